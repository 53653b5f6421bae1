//! Mounts that follow their sources: what changes there is seen in the mount, in each way in which changes are told.
//!
//! The kernel may keep everything for an hour here, so that only what the mount tells it makes a change seen.

mod kept;
mod restless;
mod roots;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::RawDir;
use serde_json::Value;

use crate::bed::{Output, TestBed, can_mount, eventually, is_root, lay_out, names, ndjson};

const RUN: &str = "name: run\nfiles: [data.csv]\n";
const DEEP: &str = "{name: deep, directories: [{directory_name: one, directories: [{directory_name: two, \
                    directories: [{directory_name: three, files: [leaf]}]}]}]}";
const NONE: [&str; 0] = [];

/// The ways in which changes are told, by the kernel.
const TOLD: [&str; 2] = ["fanotify", "inotify"];
/// Those, and looking.
const ALL: [&str; 3] = ["fanotify", "inotify", "poll"];

/// Tries it in each way that there is here.
fn each(ways: &[&'static str], test: impl Fn(&'static str)) {
    if can_mount() {
        ways.iter().filter(|way| **way != "fanotify" || is_root()).for_each(|way| test(way));
    }
}

/// A source that is mounted, and followed in one way.
struct Followed {
    bed: TestBed,
    /// `-p` and its value, for each pattern.
    patterns: Vec<String>,
}

impl Followed {
    /// `None` if the source cannot be followed in this way here; says so.
    #[track_caller]
    fn new<S: AsRef<str>>(way: &str, lines: &[S], patterns: &[&str], args: &[&str]) -> Option<Self> {
        Self::on(TestBed::new(lines), way, patterns, args)
    }

    #[track_caller]
    fn on(bed: TestBed, way: &str, patterns: &[&str], args: &[&str]) -> Option<Self> {
        let files = patterns.iter().enumerate().map(|(n, text)| bed.file(&format!("{n}.yaml"), text));
        let patterns: Vec<String> = files.flat_map(|file| ["-p".to_owned(), file]).collect();
        let mut words: Vec<&str> = patterns.iter().map(String::as_str).collect();
        words.extend(["--attr-timeout", "3600", "--watch", way]);
        if way == "poll" {
            words.extend(["--poll", "200ms"]);
        }
        words.extend(args);
        bed.mount(words);
        let watch = bed.status()["sources"][0]["watch"].clone();
        let mode = if way == "poll" { "polling" } else { way };
        if watch["mode"] != mode {
            assert_eq!(way, "fanotify", "{watch}");
            eprintln!("SKIP: {watch}");
            return None;
        }
        Some(Self { bed, patterns })
    }

    fn src(&self, path: &str) -> PathBuf {
        self.bed.src.join(path)
    }

    fn mnt(&self, path: &str) -> PathBuf {
        self.bed.mnt.join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.mnt(path)).unwrap_or_default()
    }

    /// Waits until a folder holds exactly these.
    #[track_caller]
    fn shows(&self, folder: &str, expected: &[&str]) {
        eventually(&format!("{folder}: {expected:?}"), || names(self.mnt(folder)) == expected);
        // Each by its name, too.
        eventually(&format!("all of {expected:?}"), || {
            expected.iter().all(|name| is_there(&self.mnt(folder).join(name)))
        });
    }

    /// True if the mount knows of exactly the matches that a scan finds, and has each under its name.
    fn is_as_found(&self) -> bool {
        is_as_found(&self.bed, &self.patterns)
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn is_as_found(bed: &TestBed, patterns: &[String]) -> bool {
    let key = |found: &Value| (found["pattern"].to_string(), found["relpath"].to_string());
    let shown = ndjson(&fs::read(bed.mnt.join(".veinfs/matches.ndjson")).expect("the matches"));
    let found = bed.scan(patterns.iter().map(String::as_str).chain(["--json"])).ok().ndjson();
    let all = |list: &[Value]| list.iter().map(key).collect::<BTreeSet<_>>();
    all(&shown) == all(&found)
        && shown.len() == found.len()
        && shown.iter().all(|found| is_there(&bed.mnt.join(found["view"].as_str().expect("text"))))
}

/// The inode number of everything below a directory, by path.
fn numbers(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut numbers = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if meta.is_dir() {
            open.extend(names(&path).iter().map(|name| path.join(name)));
        }
        numbers.insert(path.strip_prefix(dir).expect("a path below").to_path_buf(), meta.ino());
    }
    numbers
}

/// The next few names of an open directory; none at its end.
fn some_names(dir: &File) -> Vec<String> {
    let mut buffer = [MaybeUninit::uninit(); 512];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        names.push(entry.expect("an entry").file_name().to_string_lossy().into_owned());
        if entries.is_buffer_empty() {
            break;
        }
    }
    names
}

#[test]
fn a_match_comes_and_goes_and_no_other_is_disturbed() {
    each(&ALL, |way| {
        let files = (0..400).map(|n| format!("kept/k0/f{n}={n}"));
        let dirs = (1..40).map(|n| format!("kept/k{n}/f0=0"));
        let changing = ["runs/a/part=1", "d/one/two/three/part=2"].map(str::to_owned);
        let lines: Vec<String> = files.chain(dirs).chain(changing).collect();
        let patterns = [RUN, DEEP, "name: kept\nfiles: ['f*']\n"];
        let Some(it) = Followed::new(way, &lines, &patterns, &[]) else { return };
        let open = File::open(it.mnt("kept/k0/f7")).expect("a file");
        let dirs = ["kept", "kept/k0"].map(|dir| File::open(it.mnt(dir)).expect("a directory"));
        let mut halves = dirs.each_ref().map(some_names);
        assert!(halves.iter().all(|half| (3..30).contains(&half.len())), "{halves:?}");
        let before = numbers(&it.mnt("kept"));
        it.shows("run", &[]);
        it.shows("deep", &[]);
        for _ in 0..2 {
            fs::rename(it.src("runs/a/part"), it.src("runs/a/data.csv")).expect("a rename");
            it.shows("run", &["a"]);
            assert_eq!(it.read("run/a/data.csv"), "1");
            fs::remove_file(it.src("runs/a/data.csv")).expect("removed");
            it.shows("run", &[]);
            eventually("its name is gone", || !is_there(&it.mnt("run/a")));
            lay_out(&it.bed.src, &["runs/a/data.csv=3"]);
            it.shows("run", &["a"]);
            eventually("it is new", || it.read("run/a/data.csv") == "3");

            fs::rename(it.src("d/one/two/three/part"), it.src("d/one/two/three/leaf")).expect("a rename");
            it.shows("deep", &["d"]);
            it.shows("deep/d/one/two/three", &["leaf"]);
            fs::rename(it.src("d/one/two"), it.src("d/one/zwei")).expect("a rename");
            it.shows("deep", &[]);
            fs::rename(it.src("d/one/zwei"), it.src("d/one/two")).expect("a rename");
            it.shows("deep", &["d"]);
            fs::remove_dir_all(it.src("d/one/two")).expect("removed");
            it.shows("deep", &[]);
            lay_out(&it.bed.src, &["d/one/two/three/leaf=4"]);
            it.shows("deep", &["d"]);
            eventually("what it holds", || it.read("deep/d/one/two/three/leaf") == "4");
            // As it was in the beginning.
            fs::rename(it.src("runs/a/data.csv"), it.src("runs/a/part")).expect("a rename");
            fs::write(it.src("runs/a/part"), "1").expect("a file");
            fs::rename(it.src("d/one/two/three/leaf"), it.src("d/one/two/three/part")).expect("a rename");
            it.shows("run", &[]);
            it.shows("deep", &[]);
        }
        assert_eq!(numbers(&it.mnt("kept")), before);
        let mut text = [0; 1];
        open.read_exact_at(&mut text, 0).expect("the open file");
        assert_eq!(text, *b"7");
        for (dir, half) in dirs.iter().zip(&mut halves) {
            loop {
                let more = some_names(dir);
                if more.is_empty() {
                    break;
                }
                half.extend(more);
            }
        }
        for (half, (letter, count)) in halves.iter_mut().zip([('k', 40), ('f', 400)]) {
            half.sort();
            let mut all: Vec<String> = (0..count).map(|n| format!("{letter}{n}")).collect();
            all.extend([".", ".."].map(str::to_owned));
            all.sort();
            assert_eq!(*half, all);
        }
    });
}

#[test]
fn what_a_match_holds_is_seen_as_it_is() {
    each(&TOLD, |way| {
        let names_in = ["grown", "cut", "replaced", "moded", "removed", "sub/deep"];
        let lines = names_in.map(|name| format!("run/{name}=old content"));
        let pattern = "name: run\nfiles: [grown]\noptional_files: ['*']\noptional_directories: [sub]\n";
        let pattern = pattern.replace("[sub]", "[{directory_name: sub, optional_files: ['*']}]");
        let Some(it) = Followed::new(way, &lines, &[&pattern], &[]) else { return };
        let (src, view) = (it.src("run"), it.mnt("run/run"));
        // All of it is in the kernel's caches, and missing names are as well.
        assert_eq!(names(&view), ["cut", "grown", "moded", "removed", "replaced", "sub"]);
        for name in names_in {
            assert_eq!(fs::read_to_string(view.join(name)).expect("a file"), "old content", "{name}");
            assert_eq!(fs::metadata(view.join(name)).expect("a file").len(), 11, "{name}");
        }
        for missing in ["new", "sub/new", "link"] {
            assert!(!is_there(&view.join(missing)));
        }
        let held = File::open(view.join("replaced")).expect("a file");
        let removed = File::open(view.join("removed")).expect("a file");

        let is = |name: &str, text: &str| {
            eventually(name, || {
                let size = fs::metadata(view.join(name)).map(|meta| meta.len());
                size.is_ok_and(|size| size == text.len() as u64)
                    && fs::read_to_string(view.join(name)).is_ok_and(|now| now == text)
            });
        };
        for (name, more) in [("grown", " and more"), ("sub/deep", " and deeper"), ("grown", " and still more")] {
            let mut file = File::options().append(true).open(src.join(name)).expect("a file");
            std::io::Write::write_all(&mut file, more.as_bytes()).expect("written");
            // Also while whoever writes goes on.
            is(name, &fs::read_to_string(src.join(name)).expect("a file"));
        }
        File::options().write(true).open(src.join("cut")).and_then(|file| file.set_len(3)).expect("a length");
        is("cut", "old");
        fs::write(src.join("part"), "another file").expect("a file");
        fs::rename(src.join("part"), src.join("replaced")).expect("a rename");
        is("replaced", "another file");
        fs::write(src.join("replaced"), "written over").expect("a file");
        is("replaced", "written over");
        let mode = |name: &str| fs::metadata(view.join(name)).map_or(0, |meta| meta.mode() & 0o7777);
        for bits in [0o400, 0o751] {
            fs::set_permissions(src.join("moded"), Permissions::from_mode(bits)).expect("a mode");
            eventually("the mode", || mode("moded") == bits);
        }
        for (dir, bits) in [("sub", 0o700), ("", 0o711), ("sub", 0o755)] {
            fs::set_permissions(src.join(dir), Permissions::from_mode(bits)).expect("a mode");
            eventually("a directory's mode", || mode(dir) == bits);
        }
        let time = fs::metadata(view.join("moded")).expect("a file").modified().expect("a time");
        let earlier = time - std::time::Duration::from_secs(1000);
        File::options().write(true).open(src.join("moded")).and_then(|f| f.set_modified(earlier)).expect("a time");
        eventually("a time", || {
            fs::metadata(view.join("moded")).and_then(|meta| meta.modified()).is_ok_and(|t| t == earlier)
        });
        fs::remove_file(src.join("removed")).expect("removed");
        eventually("it is gone", || !is_there(&view.join("removed")) && !names(&view).contains(&"removed".to_owned()));
        lay_out(&src, &["new=new", "sub/new=new", "link -> new"]);
        is("new", "new");
        is("sub/new", "new");
        is("link", "new");
        it.shows("run/run", &["cut", "grown", "link", "moded", "new", "replaced", "sub"]);
        it.shows("run/run/sub", &["deep", "new"]);
        // What is open is what it was.
        for (file, name) in [(held, "replaced"), (removed, "removed")] {
            let mut text = String::new();
            (&file).read_to_string(&mut text).expect("text");
            assert_eq!(text, "old content", "{name}");
        }
    });
}

#[test]
fn directories_that_move_take_their_matches_along() {
    each(&ALL, |way| {
        let bed = TestBed::new(&["a/run/data.csv=moved", "b/"]);
        let outside: Vec<String> = (0..300).map(|n| format!("outside/t{}/d{n}/data.csv={n}", n / 20)).collect();
        lay_out(&bed.dir, &outside);
        let Some(it) = Followed::on(bed, way, &[RUN], &["--layout", "<.path>"]) else { return };
        let outside = it.bed.dir.join("outside");
        it.shows("run", &["a"]);
        for (from, to) in [("a/run", "b/run"), ("b", "c"), ("c/run", "a/walk")] {
            fs::rename(it.src(from), it.src(to)).expect("a rename");
            it.shows("run", &[to.split('/').next().expect("a name")]);
            eventually("it is as found", || it.is_as_found());
        }
        assert_eq!(it.read("run/a/walk/data.csv"), "moved");
        let matches = |count: u64| eventually("all are there", || it.bed.status()["matches"] == count);
        fs::rename(&outside, it.src("in")).expect("a rename");
        matches(301);
        it.shows("run", &["a", "in"]);
        assert_eq!(it.read("run/in/t14/d299/data.csv"), "299");
        fs::rename(it.src("in"), &outside).expect("a rename");
        it.shows("run", &["a"]);
        matches(1);
        // Moved on while it is read.
        fs::rename(&outside, it.src("in")).expect("a rename");
        fs::rename(it.src("in"), it.src("on")).expect("a rename");
        matches(301);
        it.shows("run", &["a", "on"]);
        fs::rename(it.src("on"), &outside).expect("a rename");
        it.shows("run", &["a"]);
        Output::of(Command::new("cp").arg("-r").arg(&outside).arg(it.src("copy"))).ok();
        matches(301);
        it.shows("run", &["a", "copy"]);
        eventually("it is as found", || it.is_as_found());
        fs::remove_dir_all(it.src("copy")).expect("removed");
        it.shows("run", &["a"]);
        matches(1);
    });
}

#[test]
fn links_are_followed_to_where_they_lead_now() {
    each(&ALL, |way| {
        let bed = TestBed::new(&["m/target -> ../real", "real/x=1", "other/y=2", "n/target/x=3"]);
        lay_out(&bed.dir, &["beside/x=4"]);
        let linked = "name: linked\ndirectories: [{directory_name: target, files: [x]}]\n";
        // Nobody tells of what is outside the source.
        let args: &[&str] = if way == "poll" { &[] } else { &["--poll", "200ms"] };
        let Some(it) = Followed::on(bed, way, &[linked], args) else { return };
        let beside = it.bed.dir.join("beside");
        let point = |to: &str| {
            symlink(to, it.src("m/new")).expect("a link");
            fs::rename(it.src("m/new"), it.src("m/target")).expect("a rename");
        };
        let (with, without) = (|| it.shows("linked", &["m", "n"]), || it.shows("linked", &["n"]));
        let x = "linked/m/target/x";
        with();
        assert_eq!(it.read(x), "1");
        fs::remove_file(it.src("real/x")).expect("removed");
        without();
        fs::write(it.src("real/x"), "5").expect("a file");
        with();
        eventually("the new one", || it.read(x) == "5");
        fs::rename(it.src("real"), it.src("away")).expect("a rename");
        without();
        fs::rename(it.src("away"), it.src("real")).expect("a rename");
        with();
        point("../other");
        without();
        point("../real");
        with();
        point("../../beside");
        with();
        eventually("what is beside", || it.read(x) == "4");
        fs::remove_file(beside.join("x")).expect("removed");
        without();
        fs::write(beside.join("x"), "6").expect("a file");
        with();
        eventually("what is beside now", || it.read(x) == "6");
        fs::remove_dir_all(&beside).expect("removed");
        without();
        lay_out(&beside, &["x=7"]);
        with();
        eventually("what is beside again", || it.read(x) == "7");
        fs::remove_file(it.src("m/target")).expect("removed");
        without();
        lay_out(&it.bed.src, &["m/target/x=8"]);
        with();
        eventually("no link any more", || it.read(x) == "8");
    });
}

#[test]
fn what_nobody_tells_of_is_seen_when_it_is_asked_for() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["a/data.csv=1", "b/data.csv=2"]);
    let run = bed.file("run.yaml", "name: run\nfiles: [data.csv]\noptional_files: ['*']\n");
    let other = bed.dir.join("other");
    fs::create_dir(&other).expect("a directory");
    let source = [bed.src.as_os_str()];
    bed.mount_at(&source, &other, ["-p", &run, "--attr-timeout", "3600"]).ok();
    bed.mount(["-p", &run, "--attr-timeout", "3600", "--watch", "off"]);
    let (mnt, text) = (bed.mnt.to_str().expect("text"), |path: &str| bed.dir.join(path).display().to_string());
    let view = bed.mnt.join("run");
    let told = |expected: &[&str]| eventually("it is told", || names(other.join("run")) == expected);
    let refresh = |paths: &[&str]| bed.veinfs(["refresh", mnt].iter().chain(paths));
    assert_eq!(names(&view), ["a", "b"]);
    assert_eq!(fs::read_to_string(view.join("b/data.csv")).expect("a file"), "2");

    lay_out(&bed.src, &["c/data.csv=3", "part=new"]);
    fs::remove_file(bed.src.join("a/data.csv")).expect("removed");
    fs::rename(bed.src.join("part"), bed.src.join("b/data.csv")).expect("a rename");
    told(&["b", "c"]);
    assert_eq!(names(&view), ["a", "b"]);
    let done = refresh(&[]).ok();
    assert_eq!((done.text(), done.stderr), (String::new(), String::new()));
    assert_eq!(names(&view), ["b", "c"]);
    assert!(!is_there(&view.join("a")));
    assert_eq!(fs::read_to_string(view.join("b/data.csv")).expect("a file"), "new");

    // By paths of the source, and of the mount; also what is inside a match, and kept by the kernel.
    let size = |name: &str| fs::metadata(view.join("b").join(name)).map_or(0, |meta| meta.len());
    assert_eq!((size("data.csv"), size("more")), (3, 0));
    lay_out(&bed.src, &["d/data.csv=4", "e/f/data.csv=5", "b/more=6"]);
    fs::write(bed.src.join("b/data.csv"), "newer").expect("a file");
    told(&["b", "c", "d", "f"]);
    refresh(&[&text("src/c")]).ok();
    assert_eq!(names(&view), ["b", "c"]);
    refresh(&[&text("src/e/f/data.csv")]).ok();
    assert!(names(&view).contains(&"f".to_owned()), "{:?}", names(&view));
    refresh(&[&text("mnt/run/b")]).ok();
    assert_eq!((size("data.csv"), size("more")), (5, 1));
    fs::write(bed.src.join("b/data.csv"), "the newest").expect("a file");
    refresh(&[&text("mnt/run/b/data.csv")]).ok();
    assert_eq!(size("data.csv"), 10);
    fs::write(bed.src.join("b/data.csv"), "short").expect("a file");
    refresh(&[&text("src/b/data.csv")]).ok();
    assert_eq!(size("data.csv"), 5);
    fs::write(bed.src.join("b/more"), "more").expect("a file");
    refresh(&[&text("src")]).ok();
    assert_eq!((names(&view), size("more")), (["b", "c", "d", "f"].map(str::to_owned).into(), 4));
    fs::write(bed.src.join("b/more"), "even more").expect("a file");
    refresh(&[&text("mnt/run")]).ok();
    assert_eq!(size("more"), 9);
    fs::remove_dir_all(bed.src.join("e")).expect("removed");
    fs::remove_dir_all(bed.src.join("d")).expect("removed");
    told(&["b", "c"]);
    refresh(&[&text("src/d")]).ok();
    assert!(!names(&view).contains(&"d".to_owned()));
    refresh(&[&text("src/e/f")]).ok();
    assert_eq!(names(&view), ["b", "c"]);

    refresh(&[&text("run.yaml")]).code(1).says("neither in the mount nor in one of its sources");
    refresh(&[&text("no/such/file")]).code(1).says("no/such");
    refresh(&[&text("mnt/run/none")]).code(1).says("mnt/run/none");
    bed.veinfs(["refresh", &text("src")]).code(1).says("no veinfs mount is here");
    bed.veinfs(["refresh"]).code(2);
    assert_eq!(names(&view), ["b", "c"]);
}

const NOBODY: u32 = 65534;
const ASKED: &str = "VEINFS_TEST_ASKED";

/// Another user, who asks without the command.
#[test]
fn role_asker() {
    if let Some(mountpoint) = std::env::var_os(ASKED) {
        let refused = rustix::fs::getxattr(Path::new(&mountpoint), "user.veinfs.refresh", &mut [0; 32]);
        assert_eq!(refused, Err(rustix::io::Errno::PERM));
        println!("refused");
    }
}

#[test]
fn another_user_may_not_ask() {
    if !can_mount() || !is_root() {
        return;
    }
    let bed = TestBed::new(&["a/data.csv=1"]);
    let run = bed.file("run.yaml", RUN);
    let mnt = bed.mnt.to_str().expect("text").to_owned();
    for args in [&["--no-index"][..], &["-o", "allow_other"]] {
        bed.mount(["-p", &run, "--watch", "off"].iter().chain(args));
        assert_eq!(names(bed.mnt.join("run")), ["a"]);
        lay_out(&bed.src, &["b/data.csv=2"]);
        let command = &mut bed.command(["refresh", &mnt]);
        Output::of(command.uid(NOBODY).gid(NOBODY)).code(1).says("ermission denied");
        if args.contains(&"allow_other") {
            let mut asker = Command::new(std::env::current_exe().expect("this program"));
            asker.args(["--exact", "following::role_asker", "--nocapture"]).env(ASKED, &bed.mnt);
            let said = Output::of(asker.current_dir("/").uid(NOBODY).gid(NOBODY)).ok().text();
            assert!(said.contains("refused"), "{said}");
        }
        bed.veinfs(["status", &mnt]).ok();
        assert_eq!(names(bed.mnt.join("run")), ["a"]);
        bed.veinfs(["refresh", &mnt]).ok();
        assert_eq!(names(bed.mnt.join("run")), ["a", "b"]);
        bed.unmount();
        fs::remove_dir_all(bed.src.join("b")).expect("removed");
    }
}
