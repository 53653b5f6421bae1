//! Programs that watch a mount see matches come and go, and nobody can change anything all the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use veinfs::automaton::PatternId;
use veinfs::config::{compile_all, find_sources, load_patterns};
use veinfs::entry::RelPath;
use veinfs::expand::Symlinks;
use veinfs::fs::mount::{MountOptions, Served, serve};
use veinfs::fs::{FsOptions, OpenMode, ViewMode};
use veinfs::live::Live;
use veinfs::mounts::Exit;
use veinfs::stores::Stores;
use veinfs::tree::MatchChange;
use veinfs::update::Told;
use veinfs::view::Edit;
use veinfs::view::catalog::Catalog;
use veinfs::view::inode::Inodes;
use veinfs::walk::Found;

use crate::bed::{LIMIT, Output, TestBed, can_mount, eventually, has, is_root, names, with_fuse_for_all};
use crate::refusals::CHANGES;

const RUN: &str = "name: run\nfiles: [data.csv]\n";

/// A mount that shows what the test says, served by this process.
struct Trial {
    bed: TestBed,
    live: Arc<Live>,
    inodes: RefCell<Inodes>,
    catalog: RefCell<Catalog>,
    served: Served,
}

impl Trial {
    fn new(lines: &[&str], layout: Option<&str>, view: ViewMode) -> Self {
        Self::shared(lines, layout, view, false)
    }

    fn shared(lines: &[&str], layout: Option<&str>, view: ViewMode, allow_other: bool) -> Self {
        let bed = TestBed::new(lines);
        let patterns = load_patterns(&[bed.file("run.yaml", RUN).into()]).expect("a pattern");
        let automaton = Arc::new(compile_all(&patterns, layout).expect("an automaton"));
        let sources = find_sources(&[bed.src.clone().into()], &Stores::default()).expect("a source");
        let options = vec![Default::default()];
        let (live, inodes) = Live::new(bed.mnt.clone(), automaton, patterns, sources, options, Arc::default());
        let live = Arc::new(live);
        let fs = FsOptions {
            view,
            symlinks: Symlinks::Follow,
            open: OpenMode::Cached,
            ttl: Some(Duration::from_secs(1)),
            poll: None,
            allow_other,
            follow: false,
        };
        let program = PathBuf::from(env!("CARGO_BIN_EXE_veinfs"));
        let options = MountOptions { fs, threads: 4, exec: true, source_name: "trial".into(), program };
        let served = serve(&live, Vec::new(), None, &options).expect("a mount");
        let catalog = RefCell::new(Catalog::new(&live.automaton));
        Self { bed, live, inodes: RefCell::new(inodes), catalog, served }
    }

    /// Shows these directories of the source as matches, and no others.
    fn show<S: AsRef<str>>(&self, paths: impl IntoIterator<Item = S>) {
        let mut catalog = self.catalog.borrow_mut();
        let mut inodes = self.inodes.borrow_mut();
        let pattern = PatternId(0);
        let gone: Vec<MatchChange> =
            catalog.of_source(0).map(|(pattern, path)| MatchChange::Gone(pattern, path.clone())).collect();
        catalog.note(0, gone);
        for path in paths {
            let path = RelPath::from_bytes(path.as_ref().as_bytes());
            catalog.note(
                0,
                [MatchChange::Set(Found { pattern, path, captures: Default::default(), missing: Vec::new() })],
            );
        }
        let old = Arc::clone(&self.live.view());
        let mut edit = Edit::new(&old, &mut inodes);
        catalog.publish(&mut edit, &self.live.automaton, &self.live.sources);
        let (new, changes) = edit.finish();
        let new = Arc::new(new);
        self.live.publish(Arc::clone(&new));
        self.served.teller().tell(&Told { old, new, changes, touches: Vec::new(), tickets: Vec::new() });
    }

    fn run(&self, path: &str) -> PathBuf {
        self.bed.mnt.join("run").join(path)
    }

    fn announcing(&self) -> serde_json::Value {
        self.bed.status()["announcing"].clone()
    }

    /// Unmounts; what has the mount open for a moment as an ordinary user is waited for.
    fn unmount(&self) {
        if rustix::process::geteuid().is_root() {
            return rustix::mount::unmount(&self.bed.mnt, rustix::mount::UnmountFlags::empty()).expect("not busy");
        }
        let mut tries = 0;
        while Output::of(Command::new("fusermount3").arg("-u").arg(&self.bed.mnt)).code != 0 {
            tries += 1;
            assert!(tries < 20, "busy");
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // The one that serves it must not be asked whether it is there.
        if veinfs::mounts::find(&self.bed.mnt).is_ok_and(|entry| entry.is_some()) {
            let _ = rustix::mount::unmount(&self.bed.mnt, rustix::mount::UnmountFlags::DETACH);
            let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&self.bed.mnt).stderr(Stdio::null()).status();
        }
    }
}

/// Directories that are watched.
struct Watch {
    fd: OwnedFd,
    dirs: HashMap<i32, String>,
}

impl Watch {
    fn new(root: &Path, dirs: &[&str]) -> Self {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::DELETE_SELF;
        let dirs = dirs.iter().map(|dir| {
            let wd = inotify::add_watch(&fd, root.join(dir), flags).unwrap_or_else(|e| panic!("{dir}: {e}"));
            (wd, (*dir).to_owned())
        });
        let dirs = dirs.collect();
        Self { fd, dirs }
    }

    /// What has come within `limit`, as `+dir/name` or `-dir/name`, directories with a `/` at the end.
    fn read(&self, limit: Duration) -> Vec<String> {
        let timeout = Timespec::try_from(limit).expect("a time");
        let ready = rustix::event::poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout));
        if ready.expect("a poll") == 0 {
            return Vec::new();
        }
        let mut buffer = [MaybeUninit::uninit(); 1 << 16];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut all = Vec::new();
        while let Ok(event) = reader.next() {
            let sign = match event.events() {
                is if is.contains(ReadFlags::CREATE) => '+',
                is if is.contains(ReadFlags::DELETE) => '-',
                is if is.contains(ReadFlags::QUEUE_OVERFLOW) => '!',
                _ => '?',
            };
            let slash = if event.events().contains(ReadFlags::ISDIR) { "/" } else { "" };
            let name = event.file_name().map_or("".into(), |name| name.to_string_lossy().into_owned());
            let dir = self.dirs.get(&event.wd()).map_or("", String::as_str);
            all.push(format!("{sign}{dir}/{name}{slash}"));
        }
        all
    }

    /// Waits for exactly these, in this order.
    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        let (deadline, mut seen) = (Instant::now() + LIMIT, Vec::new());
        while seen.len() < expected.len() && Instant::now() < deadline {
            seen.extend(self.read(Duration::from_millis(100)));
        }
        assert_eq!(seen, expected);
    }
}

fn found(path: &Path) -> bool {
    // Asked of the file system, not of what the kernel may have kept.
    fs::symlink_metadata(path).is_ok()
}

#[test]
fn whoever_watches_sees_matches_come_and_go_and_finds_them_so() {
    if !can_mount() {
        return;
    }
    let trial = Trial::new(&["a/data.csv=1", "b/data.csv=2", "p/x/data.csv=3", "q/x/data.csv=4"], None, ViewMode::All);
    trial.show(["a"]);
    assert_eq!(names(trial.run("")), ["a"]);
    assert_eq!(trial.bed.status()["announces"], true);
    let watch = Watch::new(&trial.bed.mnt, &["", "run"]);
    trial.show(["a", "b"]);
    watch.expect(&["+run/b/"]);
    let ino = trial.live.view().places.values().find(|place| *place.view == [Box::from(*b"b")]).expect("b").ino;
    assert_eq!(fs::metadata(trial.run("b")).expect("a match").ino(), ino);
    assert_eq!(fs::read_to_string(trial.run("b/data.csv")).expect("a file"), "2");
    trial.show(["b"]);
    watch.expect(&["-run/a/"]);
    assert!(!found(&trial.run("a")));
    assert_eq!(names(trial.run("")), ["b"]);
    // Another thing under the same name, both known to the kernel and not.
    trial.show(["b", "p/x"]);
    watch.expect(&["+run/x/"]);
    let mut paths = ["q/x", "p/x"].into_iter().cycle();
    for asked in [false, true, false, true] {
        let before = asked.then(|| fs::metadata(trial.run("x")).expect("a match").ino());
        let path = paths.next().expect("one of two");
        trial.show(["b", path]);
        watch.expect(&["-run/x/", "+run/x/"]);
        let text = fs::read(trial.run("x/data.csv")).expect("a file");
        assert_eq!(text, fs::read(trial.bed.src.join(path).join("data.csv")).expect("a file"));
        assert_ne!(Some(fs::metadata(trial.run("x")).expect("a match").ino()), before);
    }
    trial.show(["b"]);
    watch.expect(&["-run/x/"]);
    assert_eq!(names(trial.run("")), ["b"]);
}

#[test]
fn what_is_open_in_a_match_that_goes_away_works_on() {
    if !can_mount() {
        return;
    }
    let trial = Trial::new(&["a/data.csv=1", "a/sub/more.csv=2"], None, ViewMode::All);
    trial.show(["a"]);
    assert_eq!(names(trial.run("")), ["a"]);
    let watch = Watch::new(&trial.bed.mnt, &["run"]);
    let file = File::open(trial.run("a/data.csv")).expect("a file");
    let dir = File::open(trial.run("a")).expect("a directory");
    let mut user = Command::new("sh");
    user.arg("-c").arg("echo in; read go; cat data.csv; ls; cat sub/more.csv; read go");
    let mut user = user
        .current_dir(trial.run("a"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell in the match");
    let mut output = BufReader::new(user.stdout.take().expect("a pipe"));
    let mut said = String::new();
    output.read_line(&mut said).expect("a line");
    for round in 0..3 {
        trial.show([] as [&str; 0]);
        watch.expect(&["-run/a/"]);
        assert!(!found(&trial.run("a")));
        let mut text = [0; 1];
        file.read_exact_at(&mut text, 0).expect("the open file");
        assert_eq!(text, *b"1");
        let mut listed: Vec<_> = rustix::fs::Dir::read_from(&dir)
            .expect("the open directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        listed.sort();
        assert_eq!(listed, ["data.csv", "sub"], "round {round}");
        let inside = rustix::fs::openat(&dir, "sub/more.csv", rustix::fs::OFlags::RDONLY, Mode::empty());
        let mut text = String::new();
        File::from(inside.expect("a file")).read_to_string(&mut text).expect("text");
        assert_eq!(text, "2");
        // It comes back while somebody still is in the old one.
        trial.show(["a"]);
        watch.expect(&["+run/a/"]);
        assert_eq!(names(trial.run("a")), ["data.csv", "sub"]);
        assert_eq!(fs::read_to_string(trial.run("a/sub/more.csv")).expect("a file"), "2");
        let (old, new) = (rustix::fs::fstat(&dir).expect("open"), fs::metadata(trial.run("a")).expect("a match"));
        assert_eq!((old.st_ino, old.st_nlink), (new.ino(), new.nlink()));
    }
    trial.show([] as [&str; 0]);
    watch.expect(&["-run/a/"]);
    let mut input = user.stdin.take().expect("a pipe");
    input.write_all(b"go\ngo\n").expect("a shell");
    output.read_to_string(&mut said).expect("text");
    assert_eq!(said, "in\n1data.csv\nsub\n2");
    user.wait().expect("its end");
}

#[test]
fn a_match_that_was_looked_up_before_it_is_announced_stays_what_it_is() {
    if !can_mount() {
        return;
    }
    let lines: Vec<String> = (0..300).map(|n| format!("m{n}/data.csv={n}")).collect();
    let trial = Trial::new(&lines.iter().map(String::as_str).collect::<Vec<_>>(), None, ViewMode::All);
    trial.show([] as [&str; 0]);
    assert_eq!(names(trial.run("")), [] as [&str; 0]);
    let all: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
    let looked = |n: usize| fs::read_to_string(trial.run(&format!("m{n}/data.csv"))).expect("a file");
    for _ in 0..5 {
        let watch = Watch::new(&trial.bed.mnt, &["run"]);
        trial.show(&all);
        // While they are announced.
        let dirs: Vec<File> =
            (0..300).rev().map(|n| File::open(trial.run(&format!("m{n}"))).expect("a match")).collect();
        (0..300).rev().for_each(|n| assert_eq!(looked(n), n.to_string()));
        let mut seen = Vec::new();
        eventually("each is told", || {
            seen.extend(watch.read(Duration::ZERO));
            seen.len() >= 300
        });
        (0..300).for_each(|n| assert_eq!(looked(n), n.to_string()));
        for dir in &dirs {
            assert_ne!(rustix::fs::fstat(dir).expect("open").st_nlink, 0);
            assert_eq!(rustix::fs::Dir::read_from(dir).expect("open").count(), 3);
        }
        trial.show([] as [&str; 0]);
        eventually("each is told to be gone", || {
            seen.extend(watch.read(Duration::ZERO));
            seen.len() >= 600
        });
        assert_eq!(seen.len(), 600);
        assert!(seen.iter().all(|event| event.ends_with('/') && !event.starts_with(['!', '?'])), "{seen:?}");
    }
    if !is_root() {
        return;
    }
    // Nothing is left of what was made to announce it.
    eventually("the kernel forgets", || {
        drop(fs::write("/proc/sys/vm/drop_caches", "2"));
        trial.bed.status()["reads"]["inodes"].as_u64().is_some_and(|nodes| nodes < 10)
    });
}

#[test]
fn a_name_that_changes_hands_is_always_one_of_the_two() {
    if !can_mount() {
        return;
    }
    let trial = Trial::new(&["p/x/data.csv=p", "q/x/data.csv=q", "y/data.csv="], None, ViewMode::All);
    trial.show(["p/x", "y"]);
    assert_eq!(names(trial.run("")), ["x", "y"]);
    let (path, done) = (trial.run("x"), AtomicBool::new(false));
    let (mut events, watch) = (Vec::new(), Watch::new(&trial.bed.mnt, &["run"]));
    const ROUNDS: usize = 300;
    let opened = std::thread::scope(|scope| {
        let readers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut opened = 0;
                while !done.load(Ordering::Relaxed) {
                    let dir = File::open(&path).expect("one of the two");
                    // The kernel refuses to list or to look up in what it takes for removed.
                    assert_eq!(rustix::fs::Dir::read_from(&dir).expect("a directory").count(), 3);
                    let file = rustix::fs::openat(&dir, "data.csv", OFlags::RDONLY, Mode::empty()).expect("a file");
                    let mut text = String::new();
                    File::from(file).read_to_string(&mut text).expect("text");
                    assert!(["p", "q"].contains(&text.as_str()));
                    assert_ne!(rustix::fs::fstat(&dir).expect("open").st_nlink, 0);
                    opened += 1;
                }
                opened
            })
        });
        let mut turn = ["q/x", "p/x"].into_iter().cycle();
        for round in 1..=ROUNDS {
            trial.show([turn.next().expect("one of two"), "y"]);
            eventually("it is told", || {
                events.extend(watch.read(Duration::from_millis(10)));
                events.len() >= 2 * round || readers.iter().any(|reader| reader.is_finished())
            });
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("a reader")).sum::<usize>()
    });
    assert!(opened > ROUNDS, "{opened}");
    assert_eq!(events, ["-run/x/", "+run/x/"].repeat(ROUNDS));
}

#[test]
fn levels_of_a_layout_are_announced_too() {
    if !can_mount() {
        return;
    }
    let lines = ["a/x/data.csv=1", "a/y/data.csv=1", "b/x/data.csv=2"];
    let trial = Trial::new(&lines, Some("<.parent>/<.name>"), ViewMode::All);
    trial.show(["a/x"]);
    assert_eq!(names(trial.run("a")), ["x"]);
    let watch = Watch::new(&trial.bed.mnt, &["run", "run/a"]);
    trial.show(["a/x", "a/y", "b/x"]);
    watch.expect(&["+run/b/", "+run/a/y/"]);
    assert_eq!(names(trial.run("b")), ["x"]);
    trial.show(["b/x"]);
    watch.expect(&["-run/a/"]);
    assert_eq!(names(trial.run("")), ["b"]);
    // Known all the same: whoever has it open sees what comes.
    trial.show(["a/y", "b/x"]);
    watch.expect(&["+run/a/", "+run/a/y/"]);
    assert_eq!(names(trial.run("a")), ["y"]);
}

#[test]
fn links_are_announced_as_links() {
    if !can_mount() {
        return;
    }
    let trial = Trial::new(&["a/data.csv=1", "b/data.csv=2"], None, ViewMode::Link);
    trial.show(["a"]);
    assert_eq!(names(trial.run("")), ["a"]);
    let watch = Watch::new(&trial.bed.mnt, &["run"]);
    trial.show(["b"]);
    let mut both = Vec::new();
    eventually("both are told", || {
        both.extend(watch.read(Duration::ZERO));
        both.len() >= 2
    });
    both.sort();
    assert_eq!(both, ["+run/b", "-run/a"]);
    assert_eq!(fs::read_link(trial.run("b")).expect("a link"), trial.bed.src.join("b"));
    assert!(!found(&trial.run("a")));
}

#[test]
fn folders_that_nobody_knows_are_not_announced() {
    if !can_mount() {
        return;
    }
    let trial = Trial::new(&["a/data.csv=1", "b/data.csv=2"], None, ViewMode::All);
    trial.show(["a"]);
    trial.show(["a", "b"]);
    assert_eq!(trial.announcing()["waiting"], 0);
    assert_eq!(trial.announcing()["names"], 0);
    assert_eq!(names(trial.run("")), ["a", "b"]);
    trial.show(["a"]);
    eventually("it is announced", || trial.announcing()["names"] == 1);
}

/// Names for very many matches; they need not be there.
fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n}")).collect()
}

#[test]
fn a_burst_is_bounded_and_does_not_keep_the_mount() {
    if !can_mount() {
        return;
    }
    const COUNT: usize = 50_000;
    let trial = Trial::new(&["a/data.csv=1"], None, ViewMode::All);
    trial.show(["a"]);
    assert_eq!(names(trial.run("")), ["a"]);
    let watch = Watch::new(&trial.bed.mnt, &["run"]);
    let begun = Instant::now();
    trial.show(many(COUNT).iter().map(String::as_str).chain(["a"]));
    let mut seen = Vec::new();
    // An ordinary user's mount is left alone most of the time.
    while trial.announcing()["waiting"] != 0 {
        assert!(begun.elapsed() < 5 * LIMIT, "{}", trial.announcing());
        seen.extend(watch.read(Duration::from_millis(10)));
    }
    let took = begun.elapsed();
    seen.extend(watch.read(Duration::ZERO));
    eprintln!("{} of {COUNT} in {took:?}: {}", seen.len(), trial.announcing());
    // Where the reader does not keep up, the kernel says so.
    let all = seen.iter().any(|event| event.starts_with('!')) || seen.len() == 20_001;
    assert!(all && seen.len() <= 20_001, "{}", seen.len());

    // Gone in the middle of a burst, at once, and with it the session.
    trial.show(["a"]);
    eventually("it is announced", || trial.announcing()["waiting"].as_u64().is_some_and(|n| n > 1000));
    let begun = Instant::now();
    trial.unmount();
    eventually("the session ends", || trial.served.has_ended());
    eprintln!("ended after {:?}", begun.elapsed());
}

#[test]
fn unmounting_at_any_time_is_not_held_up() {
    if !can_mount() {
        return;
    }
    for round in 0..20u64 {
        let trial = Trial::new(&["a/data.csv=1"], None, ViewMode::All);
        trial.show(["a"]);
        assert_eq!(names(trial.run("")), ["a"]);
        trial.show(many(3000));
        eventually("it is announced", || trial.announcing()["names"].as_u64().is_some_and(|n| n > round * 20));
        trial.unmount();
        eventually("the session ends", || trial.served.has_ended());
        assert_eq!(names(&trial.bed.mnt), [] as [&str; 0]);
    }
}

/// Runs a test of this binary in a process of its own.
fn run_tests(mut command: Command, tests: &[&str]) {
    let program = std::env::current_exe().expect("this program");
    let output = Output::of(command.arg(program).args(tests).args(["--nocapture", "--test-threads=2"]));
    eprintln!("{}{}", output.text(), output.stderr);
    output.ok();
}

const USER: u32 = 65534;
const AS_USER: &str = "VEINFS_TEST_AS_USER";
const MOUNTED: &str = "VEINFS_TEST_MOUNTED";

#[test]
fn all_of_this_holds_for_ordinary_users() {
    if !can_mount() || !is_root() || !has("unshare") || !has("fusermount3") || !has("setpriv") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).expect("a mode");
    let mut command = with_fuse_for_all(dir.path());
    command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.env(AS_USER, "1").env("TMPDIR", dir.path());
    run_tests(command, &["announcing::"]);
}

fn open(path: &Path, flags: OFlags) -> Result<(), Errno> {
    rustix::fs::open(path, flags, Mode::RWXU).map(drop)
}

/// Tries every change everywhere; `asks` if the kernel knows what this user might do.
fn nothing_can_be_changed(mnt: &Path, asks: bool) {
    let (mut dirs, mut files) = (vec!["run", "run/a", "run/a/sub"], vec!["run/a/data.csv", "run/a/sub/more.csv"]);
    if !asks {
        // Shut to others.
        dirs.push(".veinfs");
        files.push(".veinfs/status.json");
    }
    let mut wrong = Vec::new();
    for (name, on, change) in CHANGES.iter().filter(|(_, on, _)| on.contains(['r', 'm'])) {
        let on_dirs = dirs.iter().filter(|_| on.contains('d'));
        let on_files = files.iter().filter(|_| on.contains('f'));
        for path in on_dirs.chain(on_files) {
            match change(&mnt.join(path)) {
                Err(Errno::ROFS) => {}
                Err(Errno::ACCESS) if asks && on.contains('m') => {}
                other => wrong.push(format!("{name} {path}: {other:?}")),
            }
        }
    }
    // On the root itself only what does not concern where it is mounted.
    for name in ["mkdir", "symlink", "mknod file", "create", "chmod", "utimes", "setxattr", "access"] {
        let (_, on, change) = CHANGES.iter().find(|(known, ..)| *known == name).expect("a change");
        match change(mnt) {
            Err(Errno::ROFS) => {}
            Err(Errno::ACCESS) if asks && on.contains('m') => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    // What takes an open file, which cannot be had for writing.
    let file = File::open(mnt.join(files[0])).expect("a file");
    let fallocate = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 10);
    let copied = rustix::fs::copy_file_range(&file, None, &file, Some(&mut 100), 1);
    let truncated = rustix::fs::ftruncate(&file, 0);
    for (name, result) in [("fallocate", fallocate), ("copy_file_range", copied.map(drop)), ("ftruncate", truncated)] {
        if !matches!(result, Err(Errno::BADF | Errno::INVAL | Errno::ROFS)) {
            wrong.push(format!("{name}: {result:?}"));
        }
    }
    let nameless = open(&mnt.join("run"), OFlags::TMPFILE | OFlags::RDWR);
    if !matches!(nameless, Err(Errno::ROFS | Errno::OPNOTSUPP | Errno::ACCESS)) {
        wrong.push(format!("O_TMPFILE: {nameless:?}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(names(mnt.join("run/a")), ["data.csv", "sub"]);
}

/// The other half of the next test, as another user.
#[test]
fn child_tries_to_change_a_mount() {
    if let Some(mnt) = std::env::var_os(MOUNTED) {
        nothing_can_be_changed(Path::new(&mnt), true);
    }
}

#[test]
fn every_change_is_refused_also_while_something_is_announced() {
    if !can_mount() {
        return;
    }
    for allow_other in [false, true] {
        if allow_other && !is_root() {
            continue;
        }
        let lines = ["a/data.csv=1", "a/sub/more.csv=2"];
        let trial = Trial::shared(&lines, None, ViewMode::All, allow_other);
        trial.show(["a"]);
        nothing_can_be_changed(&trial.bed.mnt, false);
        let flags = rustix::fs::statvfs(&trial.bed.mnt).expect("a mount").f_flag;
        assert_eq!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), is_root());
        // The helper is at work.
        trial.show(many(3000).iter().map(String::as_str).chain(["a"]));
        nothing_can_be_changed(&trial.bed.mnt, false);
        if is_root() && !allow_other {
            // A mount that somebody has made writable is no way around it.
            let writable = rustix::mount::MountFlags::BIND;
            rustix::mount::mount_remount(&trial.bed.mnt, writable, c"").expect("a writable mount");
            nothing_can_be_changed(&trial.bed.mnt, false);
        }
        if allow_other {
            let program = std::env::current_exe().expect("this program");
            let mut child = Command::new(program);
            child.args(["--exact", "announcing::child_tries_to_change_a_mount", "--nocapture"]);
            let output = Output::of(child.env(MOUNTED, &trial.bed.mnt).uid(USER).gid(USER));
            eprintln!("{}", output.stderr);
            output.ok();
        }
        let source = fs::read(trial.bed.src.join("a/data.csv")).expect("the source");
        assert_eq!(source, b"1");
        assert_eq!(names(trial.bed.src.join("a")), ["data.csv", "sub"]);
    }
}

#[test]
fn a_shared_mount_of_an_ordinary_user_announces_nothing_and_says_why() {
    if !can_mount() || is_root() {
        return;
    }
    let Ok(conf) = fs::read_to_string("/etc/fuse.conf") else { return };
    if !conf.lines().any(|line| line.trim() == "user_allow_other") {
        return eprintln!("SKIP: /etc/fuse.conf lacks user_allow_other");
    }
    let trial = Trial::shared(&["a/data.csv=1", "a/sub/more.csv=2"], None, ViewMode::All, true);
    trial.show(["a"]);
    assert_eq!(trial.bed.status()["announces"], false);
    assert!(trial.announcing()["reason"].as_str().is_some_and(|why| why.contains("allow_other")));
    nothing_can_be_changed(&trial.bed.mnt, false);
}

/// A mount of the program itself, with a source that comes while it is mounted.
fn mount_late(bed: &TestBed, mnt: &Path, run: &str, privileged: bool) -> Child {
    let words = ["mount", "-f", "here=src/here", "late=src/late"];
    let mut command = Command::new("setpriv");
    if privileged {
        // Root who may not read what is not its own.
        command.args(["--bounding-set", "-dac_override,-dac_read_search"]);
    }
    command.arg(env!("CARGO_BIN_EXE_veinfs")).args(words).arg(mnt).args(["-p", run]).current_dir(&bed.dir);
    command.env("XDG_CACHE_HOME", bed.dir.join("cache"));
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("veinfs");
    eventually("it is mounted", || mnt.join("run/a").exists());
    bed.keep(mnt);
    child
}

#[test]
fn the_program_announces_and_ends_whenever_it_is_killed() {
    if !can_mount() || !has("setpriv") {
        return;
    }
    let lines: Vec<String> = (0..3000).map(|n| format!("late/m{n}/data.csv=")).collect();
    let bed = TestBed::new(&lines);
    crate::bed::lay_out(&bed.src, &["here/a/data.csv=1"]);
    let run = bed.file("run.yaml", RUN);
    let late = bed.src.join("late");
    if is_root() {
        std::os::unix::fs::chown(&late, Some(USER), Some(USER)).expect("another owner");
    }
    fs::set_permissions(&late, fs::Permissions::from_mode(0o000)).expect("a mode");
    let mut mounts: Vec<(PathBuf, Child)> = (0..4)
        .map(|n| {
            let mnt = bed.dir.join(format!("mnt{n}"));
            fs::create_dir(&mnt).expect("a directory");
            let daemon = mount_late(&bed, &mnt, &run, is_root());
            (mnt, daemon)
        })
        .collect();
    let watches: Vec<Watch> = mounts.iter().map(|(mnt, _)| Watch::new(mnt, &["run"])).collect();
    fs::set_permissions(&late, fs::Permissions::from_mode(0o755)).expect("a mode");
    for (n, ((mnt, daemon), watch)) in mounts.iter_mut().zip(&watches).enumerate() {
        let mut seen = Vec::new();
        eventually("it is announced", || {
            seen.extend(watch.read(Duration::from_millis(1)));
            seen.len() > 100 * n
        });
        let name = seen[0].trim_start_matches("+run/").trim_end_matches('/');
        assert!(mnt.join("run").join(name).join("data.csv").exists(), "{name}");
        let pid = daemon.id();
        let exit = Exit::of(pid).expect("a process");
        // In the middle of it: killed, told to end, unmounted.
        let signal = if n < 2 { nix::sys::signal::SIGKILL } else { nix::sys::signal::SIGTERM };
        if n == 3 {
            bed.veinfs(["unmount".as_ref(), mnt.as_os_str()]).ok();
        } else {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).expect("a signal");
        }
        assert!(exit.wait(Duration::from_secs(5)).expect("a process"), "{n}: it ends at once");
        daemon.wait().expect("its end");
        if n < 2 {
            bed.veinfs(["unmount".as_ref(), mnt.as_os_str()]).ok();
        }
        assert!(veinfs::mounts::find(mnt).expect("the mounts").is_none());
        assert_eq!(names(mnt), [] as [&str; 0], "nothing was made below");
    }
    let helpers = || {
        let all = Output::of(Command::new("ps").args(["-e", "-o", "args"])).text();
        all.lines()
            .filter(|line| line.starts_with("veinfs announce") && line.contains(bed.dir.to_str().expect("text")))
            .count()
    };
    eventually("no helper is left", || helpers() == 0);
}
