//! Watches of real directories, by way of what `Watch` offers.
//!
//! fanotify needs root, and so do mounts: those tests print SKIP where they are not permitted. Others change the same
//! file systems meanwhile, and so tests look for what they wait for, with a time limit, and never at all that is told.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::mount::{MountFlags, UnmountFlags};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// A watched tree, `root` in a directory of its own.
struct Bed {
    // In the order in which they have to go.
    watch: Watch,
    root: PathBuf,
    told: Receiver<Vec<Change>>,
    seen: RefCell<Vec<Change>>,
    dir: Arc<tempfile::TempDir>,
    name: &'static str,
}

/// A mount that goes with this value.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn skip(what: &str) {
    println!("SKIP: {what}");
}

fn mount_tmpfs(at: &Path) -> Option<Mounted> {
    match rustix::mount::mount("veinfs-test", at, "tmpfs", MountFlags::empty(), None) {
        Ok(()) => Some(Mounted(at.to_owned())),
        Err(error) => {
            skip(&format!("cannot mount: {error}"));
            None
        }
    }
}

fn tempdir() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().expect("a directory"))
}

/// Where tests are, without links.
fn real(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().canonicalize().expect("a path")
}

/// Runs a test with each way of watching that works here.
fn with_each(dirs: &[&str], test: impl Fn(&Bed)) {
    for (choice, mode, name) in
        [(Choice::Fanotify, Mode::Fanotify, "fanotify"), (Choice::Inotify, Mode::Inotify, "inotify")]
    {
        let dir = tempdir();
        let root = real(&dir).join("root");
        fs::create_dir(&root).expect("the root");
        for path in dirs {
            fs::create_dir_all(real(&dir).join(path)).expect("a directory");
        }
        let bed = Bed::new(dir, root, choice, name);
        if bed.watch.mode() == mode {
            bed.add_all(&bed.root);
            test(&bed);
        } else {
            assert!(mode == Mode::Fanotify, "inotify works for everybody: {:?}", bed.watch.state());
            skip(&bed.watch.state().reason.expect("a reason"));
        }
    }
}

impl Bed {
    fn new(dir: Arc<tempfile::TempDir>, root: PathBuf, choice: Choice, name: &'static str) -> Self {
        let (sender, told) = mpsc::channel();
        let watch = Watch::start(&root, choice, Box::new(move |changes| drop(sender.send(changes))));
        Self { watch, root, told, seen: RefCell::default(), dir, name }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A path beside the root.
    fn out(&self, path: &str) -> PathBuf {
        real(&self.dir).join(path)
    }

    fn add(&self, path: &Path) -> bool {
        let dir = File::open(path).expect("a directory");
        let device = dir.metadata().expect("its attributes").dev();
        self.watch.add(dir.as_fd(), device, path.as_os_str().as_bytes())
    }

    /// Adds a directory and all below it.
    fn add_all(&self, path: &Path) {
        assert!(self.add(path), "{}: {:?}", path.display(), self.watch.state());
        for entry in fs::read_dir(path).expect("a listing").map(|entry| entry.expect("an entry")) {
            if entry.file_type().expect("a type").is_dir() {
                self.add_all(&entry.path());
            }
        }
    }

    /// What is told from now on is looked at; what has been done is told before.
    fn settle(&self) {
        loop {
            let mark = tempfile::Builder::new().prefix("mark-").tempfile_in(&self.root).expect("a file");
            let name = mark.path().file_name().expect("a name").as_bytes().to_vec();
            drop(mark);
            let is_mark = |change: &Change| matches!(change, Change::Entry { name: Some(it), .. } if **it == *name);
            self.seen.borrow_mut().clear();
            self.wait("a mark", &|change| is_mark(change) || *change == Change::Lost);
            // Something that was lost may have been the mark.
            if std::mem::take(&mut *self.seen.borrow_mut()).iter().any(is_mark) {
                return;
            }
        }
    }

    fn wait(&self, what: &str, is: &dyn Fn(&Change) -> bool) {
        let end = Instant::now() + LIMIT;
        while !self.seen.borrow().iter().any(is) {
            match self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(changes) => {
                    assert!(!changes.is_empty(), "{}: an empty batch", self.name);
                    self.seen.borrow_mut().extend(changes);
                }
                Err(error) => panic!("{}: {what}: {error}; seen: {:#?}", self.name, shown(&self.seen.borrow())),
            }
        }
    }

    /// Waits until each of these is told, then for a mark that is told after what was done; the rest that was told.
    fn expect(&self, what: &str, changes: &[Change]) -> Vec<Change> {
        for change in changes {
            self.wait(&format!("{what}: {:?}", shown(std::slice::from_ref(change))), &|told| told == change);
        }
        let mut seen = std::mem::take(&mut *self.seen.borrow_mut());
        assert!(!seen.contains(&Change::Lost) || changes.contains(&Change::Lost), "{}: {what}: lost", self.name);
        seen.retain(|change| !changes.contains(change));
        self.settle();
        seen
    }

    fn entry(&self, path: &str) -> Change {
        let (dir, name) = self.split(path);
        Change::Entry { dir, name: Some(name), is_dir: false }
    }

    fn dir_entry(&self, path: &str) -> Change {
        let (dir, name) = self.split(path);
        Change::Entry { dir, name: Some(name), is_dir: true }
    }

    fn content(&self, path: &str) -> Change {
        let (dir, name) = self.split(path);
        Change::Content { dir, name }
    }

    fn attributes(&self, path: &str) -> Change {
        let (dir, name) = self.split(path);
        Change::Attributes { dir, name: Some(name), is_dir: false }
    }

    fn split(&self, path: &str) -> (Box<[u8]>, Box<[u8]>) {
        let path = self.at(path);
        let part = |part: Option<&OsStr>| part.expect("a path below the root").as_bytes().into();
        (part(path.parent().map(Path::as_os_str)), part(path.file_name()))
    }
}

fn own_attributes(path: &Path) -> Change {
    Change::Attributes { dir: path.as_os_str().as_bytes().into(), name: None, is_dir: true }
}

/// Changes as people read them.
fn shown(changes: &[Change]) -> Vec<String> {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let name = |name: &Option<Box<[u8]>>| name.as_ref().map_or("-".into(), |name| text(name));
    changes
        .iter()
        .map(|change| match change {
            Change::Entry { dir, name: it, is_dir } => format!("entry {} {} {is_dir}", text(dir), name(it)),
            Change::Attributes { dir, name: it, is_dir } => format!("attributes {} {} {is_dir}", text(dir), name(it)),
            Change::Content { dir, name } => format!("content {} {}", text(dir), text(name)),
            other => format!("{other:?}"),
        })
        .collect()
}

fn write(path: &Path) {
    fs::write(path, "text").expect("a file");
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.display()));
}

#[test]
fn what_is_done_to_files_is_told() {
    with_each(&["root/a", "root/b", "out"], |bed| {
        write(&bed.at("a/x"));
        bed.expect("create", &[bed.entry("a/x"), bed.content("a/x")]);

        let mut file = File::options().append(true).open(bed.at("a/x")).expect("a file");
        file.write_all(b"more").expect("a write");
        bed.expect("write, and keep it open", &[bed.content("a/x")]);
        file.set_len(1).expect("a length");
        bed.expect("truncate", &[bed.content("a/x")]);
        drop(file);
        bed.expect("close", &[bed.content("a/x")]);

        fs::set_permissions(bed.at("a/x"), fs::Permissions::from_mode(0o600)).expect("a mode");
        bed.expect("chmod", &[bed.attributes("a/x")]);
        fs::hard_link(bed.at("a/x"), bed.at("b/link")).expect("a link");
        bed.expect("link", &[bed.entry("b/link")]);
        std::os::unix::fs::symlink("x", bed.at("a/sym")).expect("a link");
        bed.expect("symlink", &[bed.entry("a/sym")]);

        rename(&bed.at("a/x"), &bed.at("b/y"));
        bed.expect("rename", &[bed.entry("a/x"), bed.entry("b/y")]);
        rename(&bed.at("b/y"), &bed.out("out/z"));
        bed.expect("rename out of the tree", &[bed.entry("b/y")]);
        rename(&bed.out("out/z"), &bed.at("a/x"));
        bed.expect("rename into the tree", &[bed.entry("a/x")]);
        write(&bed.at("top"));
        rename(&bed.at("top"), &bed.at("a/x"));
        bed.expect("rename over another", &[bed.entry("top"), bed.entry("a/x")]);
        fs::remove_file(bed.at("a/x")).expect("a file to go");
        bed.expect("delete", &[bed.entry("a/x")]);
    });
}

#[test]
fn what_is_done_to_directories_is_told() {
    with_each(&["root/a/sub", "root/b"], |bed| {
        fs::create_dir(bed.at("a/new")).expect("a directory");
        bed.expect("mkdir", &[bed.dir_entry("a/new")]);
        fs::create_dir_all(bed.at("a/new/deep/deeper")).expect("directories");
        bed.add_all(&bed.at("a/new"));
        write(&bed.at("a/new/deep/deeper/x"));
        bed.expect("a file in a new directory", &[bed.entry("a/new/deep/deeper/x")]);

        fs::set_permissions(bed.at("a/sub"), fs::Permissions::from_mode(0o711)).expect("a mode");
        bed.expect("chmod", &[own_attributes(&bed.at("a/sub"))]);
        fs::set_permissions(&bed.root, fs::Permissions::from_mode(0o711)).expect("a mode");
        bed.expect("chmod of the root", &[own_attributes(&bed.root)]);
        let above = real(&bed.dir);
        fs::set_permissions(&above, fs::Permissions::from_mode(0o711)).expect("a mode");
        bed.expect("chmod above the root", &[own_attributes(&above)]);

        rename(&bed.at("a/sub"), &bed.at("b/sub-2"));
        bed.expect("rename", &[bed.dir_entry("a/sub"), bed.dir_entry("b/sub-2")]);
        fs::remove_dir(bed.at("b/sub-2")).expect("a directory to go");
        bed.expect("rmdir", &[bed.dir_entry("b/sub-2")]);
        fs::remove_dir_all(bed.at("a")).expect("a tree to go");
        bed.expect("rm -r", &[bed.dir_entry("a")]);
        bed.watch.remove(bed.at("a").as_os_str().as_bytes());
        assert!(bed.add(&bed.root));
    });
}

#[test]
fn a_moved_directory_is_told_of_at_its_new_path() {
    with_each(&["root/a/deep/er", "root/b", "out/in/er"], |bed| {
        write(&bed.at("a/deep/er/x"));
        bed.expect("before", &[bed.entry("a/deep/er/x")]);
        for (at, remove_first) in [false, true].into_iter().enumerate() {
            let (from, to) = [("a", "b/c"), ("b/c", "a")][at];
            rename(&bed.at(from), &bed.at(to));
            bed.expect("rename", &[bed.dir_entry(from), bed.dir_entry(to)]);
            let remove = || bed.watch.remove(bed.at(from).as_os_str().as_bytes());
            if remove_first {
                remove();
            }
            bed.add_all(&bed.at(to));
            if !remove_first {
                remove();
            }
            write(&bed.at(&format!("{to}/deep/er/y")));
            let rest = bed.expect("after", &[bed.content(&format!("{to}/deep/er/y"))]);
            let old = bed.at(from).join("deep/er").as_os_str().as_bytes().to_vec();
            let is_old = |change: &Change| matches!(change, Change::Content { dir, .. } if **dir == *old);
            assert!(!rest.iter().any(is_old), "{}: {:?}", bed.name, shown(&rest));
        }

        // A directory that was outside, and told of there, comes in, and one that was in goes.
        write(&bed.out("out/in/er/x"));
        bed.settle();
        rename(&bed.out("out/in"), &bed.at("in"));
        bed.expect("comes in", &[bed.dir_entry("in")]);
        bed.add_all(&bed.at("in"));
        write(&bed.at("in/er/y"));
        bed.expect("in it", &[bed.entry("in/er/y")]);
        rename(&bed.at("in"), &bed.out("out/in"));
        bed.expect("goes out", &[bed.dir_entry("in")]);
        bed.watch.remove(bed.at("in").as_os_str().as_bytes());
        bed.settle();
        write(&bed.out("out/in/er/z"));
        let rest = bed.expect("outside", &[]);
        assert!(rest.is_empty(), "{}: {:?}", bed.name, shown(&rest));
    });
}

#[test]
fn a_directory_above_what_changes_may_move_at_the_same_time() {
    with_each(&["root/a/deep"], |bed| {
        // Each file must be told in `deep`, or come after a rename that is told, wherever the directory was then.
        for round in 0..200 {
            write(&bed.at("a/deep").join(format!("x{round}")));
            rename(&bed.at("a"), &bed.at("b"));
            write(&bed.at("b/deep").join(format!("y{round}")));
            rename(&bed.at("b"), &bed.at("a"));
        }
        write(&bed.at("a/deep/last"));
        let told = |change: &Change| matches!(change, Change::Entry { name: Some(name), .. } if **name == *b"last");
        bed.wait("the last", &told);
        let seen = bed.seen.borrow();
        let last = seen.iter().rfind(|change| told(change));
        assert_eq!(last, Some(&bed.entry("a/deep/last")), "{}", bed.name);
        assert!(seen.contains(&bed.dir_entry("a")), "{}", bed.name);
    });
}

#[test]
fn names_are_bytes() {
    with_each(&["root/plain"], |bed| {
        let dir = bed.at("plain").join(OsStr::from_bytes(b"d\xff\x01 (deleted)"));
        fs::create_dir(&dir).expect("a directory");
        bed.add_all(&dir);
        for name in [&b"\xfe\xff"[..], b"x\ny", b"back\\slash", b" ", &[b'n'; 255]] {
            let path = dir.join(OsStr::from_bytes(name));
            write(&path);
            let (dir, name): (Box<[u8]>, Box<[u8]>) = (dir.as_os_str().as_bytes().into(), name.into());
            bed.expect("create", &[Change::Entry { dir, name: Some(name), is_dir: false }]);
        }
    });
}

#[test]
fn the_root_goes_and_comes_back() {
    with_each(&["root/a", "new/a"], |bed| {
        rename(&bed.root, &bed.out("old"));
        bed.wait("it goes", &|change| *change == Change::Root);
        bed.seen.borrow_mut().clear();
        rename(&bed.out("new"), &bed.root);
        bed.wait("another comes", &|change| *change == Change::Root);
        bed.add_all(&bed.root);
        write(&bed.at("a/x"));
        bed.wait("in it", &|change| *change == bed.entry("a/x"));
        bed.settle();
        write(&bed.out("old/a/y"));
        let rest = bed.expect("in what it was", &[]);
        assert!(rest.is_empty(), "{}: {:?}", bed.name, shown(&rest));

        fs::remove_dir_all(&bed.root).expect("a tree to go");
        bed.wait("it is deleted", &|change| *change == Change::Root);
        bed.seen.borrow_mut().clear();
        fs::create_dir_all(bed.at("b")).expect("a tree");
        bed.wait("it is made", &|change| *change == Change::Root);
        bed.add_all(&bed.root);
        write(&bed.at("b/x"));
        bed.wait("in it", &|change| *change == bed.entry("b/x"));
    });
}

#[test]
fn a_root_may_be_away_at_first() {
    for choice in [Choice::Auto, Choice::Inotify] {
        let dir = tempdir();
        let root = real(&dir).join("up/root");
        let bed = Bed::new(dir, root, choice, "away");
        assert_eq!(bed.watch.state().reason, None);
        fs::create_dir_all(&bed.root).expect("a root");
        bed.wait("it comes", &|change| *change == Change::Root);
        bed.add_all(&bed.root);
        write(&bed.at("x"));
        bed.wait("in it", &|change| *change == bed.entry("x"));
    }
}

#[test]
fn what_is_done_while_the_root_is_away_is_lost_when_it_comes_back() {
    with_each(&["root/a"], |bed| {
        if bed.watch.mode() == Mode::Fanotify {
            rename(&bed.root, &bed.out("old"));
            bed.wait("it goes", &|change| *change == Change::Root);
            write(&bed.out("old/a/x"));
            // Until the thread has come by: the next is told after it.
            fs::set_permissions(bed.out(""), fs::Permissions::from_mode(0o711)).expect("a mode");
            bed.wait("above", &|change| matches!(change, Change::Attributes { .. }));
            rename(&bed.out("old"), &bed.root);
            bed.wait("it comes back", &|change| *change == Change::Lost);
        }
    });
}

#[test]
fn an_overflow_is_told_as_lost() {
    for (choice, name) in [(Choice::Fanotify, "fanotify"), (Choice::Inotify, "inotify")] {
        let dir = tempdir();
        // A file system of its own, so that others do not suffer; without, it is as well.
        let _mounted = mount_tmpfs(dir.path());
        let root = real(&dir).join("root");
        fs::create_dir(&root).expect("the root");
        let (sender, told) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let (at_gate, is_at_gate) = mpsc::channel();
        let sink = move |changes| {
            let _ = at_gate.send(());
            // Shut until its other end goes.
            let _ = gate.recv();
            drop(sender.send(changes));
        };
        let watch = Watch::start(&root, choice, Box::new(sink));
        let bed = Bed { watch, root, told, seen: RefCell::default(), dir: Arc::clone(&dir), name };
        assert!(bed.add(&bed.root));
        write(&bed.at("first"));
        is_at_gate.recv_timeout(LIMIT).expect("the first is told");
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
        let count = limit.trim().parse::<usize>().expect("a number").max(20_000) + 5000;
        if count > 200_000 {
            skip("this machine's queues are too long to be filled");
            drop(open);
            return;
        }
        for at in 0..count {
            File::create(bed.at(&format!("f{at}"))).expect("a file");
        }
        drop::<Sender<()>>(open);
        bed.wait("an overflow", &|change| *change == Change::Lost);
        assert!(bed.watch.state().lost > 0);
        bed.settle();
        write(&bed.at("after"));
        bed.wait("after it", &|change| *change == bed.entry("after"));
    }
}

#[test]
fn a_file_system_below_the_root() {
    with_each(&["root/a/mnt", "root/b"], |bed| {
        let at = bed.at("a/mnt");
        let Some(mounted) = mount_tmpfs(&at) else { return };
        bed.wait("mounted", &|change| *change == Change::Lost);
        fs::create_dir(at.join("in")).expect("a directory");
        bed.add_all(&at);
        bed.settle();
        write(&at.join("in/x"));
        bed.expect("in it", &[bed.entry("a/mnt/in/x"), bed.content("a/mnt/in/x")]);

        // Its mount point moves with what is above it.
        let moved = Mounted(bed.at("c/mnt"));
        rename(&bed.at("a"), &bed.at("c"));
        bed.wait("moved", &|change| *change == Change::Lost);
        bed.watch.remove(bed.at("a").as_os_str().as_bytes());
        bed.add_all(&bed.at("c"));
        bed.settle();
        write(&bed.at("c/mnt/in/y"));
        bed.wait("in it, moved", &|change| *change == bed.entry("c/mnt/in/y"));
        bed.settle();
        drop((mounted, moved));
        bed.wait("unmounted", &|change| *change == Change::Lost);
    });
}

#[test]
fn a_watch_does_not_keep_a_file_system_busy() {
    for (choice, mode) in [(Choice::Fanotify, Mode::Fanotify), (Choice::Inotify, Mode::Inotify)] {
        let dir = tempdir();
        let point = real(&dir).join("mnt");
        fs::create_dir(&point).expect("a mount point");
        let Some(mounted) = mount_tmpfs(&point) else { return };
        let root = point.join("root");
        fs::create_dir_all(root.join("a")).expect("a tree");
        let bed = Bed::new(dir, root, choice, "busy");
        if bed.watch.mode() != mode {
            skip("a tmpfs cannot be watched so");
            continue;
        }
        bed.add_all(&bed.root);
        fs::create_dir(bed.at("a/x")).expect("a directory");
        bed.wait("one change", &|change| *change == bed.dir_entry("a/x"));
        rustix::mount::unmount(&point, UnmountFlags::empty()).expect("an unmount at once");
        bed.wait("unmounted", &|change| *change == Change::Root);
        // Another comes in its place: it is watched as soon as it is added.
        let again = mount_tmpfs(&point).expect("a mount");
        fs::create_dir_all(&bed.root).expect("a root");
        bed.seen.borrow_mut().clear();
        bed.add_all(&bed.root);
        write(&bed.at("y"));
        bed.wait("in the next", &|change| *change == bed.entry("y"));
        drop((mounted, again));
    }
}

#[test]
fn a_mount_over_the_root_and_off_again() {
    with_each(&["root/a"], |bed| {
        let Some(mounted) = mount_tmpfs(&bed.root) else { return };
        bed.wait("mounted", &|change| *change == Change::Root);
        fs::create_dir(bed.at("b")).expect("a directory");
        bed.add_all(&bed.root);
        write(&bed.at("b/x"));
        bed.wait("in it", &|change| *change == bed.entry("b/x"));
        bed.settle();
        drop(mounted);
        bed.wait("unmounted", &|change| *change == Change::Root);
        bed.add_all(&bed.root);
        bed.seen.borrow_mut().clear();
        write(&bed.at("a/x"));
        bed.wait("in the first", &|change| *change == bed.entry("a/x"));
    });
}

#[test]
fn a_directory_mounted_twice_is_told_of_twice() {
    with_each(&["root/real/sub", "root/again", "out/sub", "root/from-out"], |bed| {
        for (from, to) in [(bed.at("real"), bed.at("again")), (bed.out("out"), bed.at("from-out"))] {
            match rustix::mount::mount_bind(&from, &to) {
                Ok(()) => {}
                Err(error) => return skip(&format!("cannot mount: {error}")),
            }
        }
        let _mounted = (Mounted(bed.at("again")), Mounted(bed.at("from-out")));
        bed.wait("mounted", &|change| *change == Change::Lost);
        bed.add_all(&bed.root);
        bed.settle();
        write(&bed.at("real/sub/x"));
        bed.expect("in one", &[bed.entry("real/sub/x"), bed.entry("again/sub/x")]);
        write(&bed.out("out/sub/x"));
        bed.expect("from outside", &[bed.entry("from-out/sub/x")]);
    });
}

#[test]
fn a_file_system_below_that_fanotify_cannot_mark_is_watched_by_inotify() {
    with_each(&["root/mnt", "lower/sub", "upper", "work"], |bed| {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| bed.out(name).display().to_string());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let options = std::ffi::CString::new(options).expect("no NUL");
        let mounted =
            rustix::mount::mount("veinfs-test", bed.at("mnt"), "overlay", MountFlags::empty(), options.as_c_str());
        if let Err(error) = mounted {
            return skip(&format!("cannot mount an overlay: {error}"));
        }
        let _mounted = Mounted(bed.at("mnt"));
        bed.wait("mounted", &|change| *change == Change::Lost);
        bed.add_all(&bed.root);
        bed.settle();
        // A mark or a watch for the root, and a watch for each of the others.
        assert_eq!(bed.watch.state().watches, 3, "{}", bed.name);
        write(&bed.at("mnt/sub/x"));
        bed.expect("below", &[bed.entry("mnt/sub/x"), bed.content("mnt/sub/x")]);
        write(&bed.at("x"));
        bed.expect("above", &[bed.entry("x"), bed.content("x")]);
    });
}

#[test]
fn the_top_of_all_may_be_the_root() {
    for choice in [Choice::Auto, Choice::Inotify] {
        let dir = tempdir();
        let bed = Bed::new(Arc::clone(&dir), "/".into(), choice, "top");
        assert!(bed.add(Path::new("/")));
        let path = real(&dir);
        assert!(bed.add(&path), "{:?}", bed.watch.state());
        write(&path.join("x"));
        let (dir, name): (Box<[u8]>, Box<[u8]>) = (path.as_os_str().as_bytes().into(), b"x".as_slice().into());
        let entry = Change::Entry { dir, name: Some(name), is_dir: false };
        bed.wait("a file", &|change| *change == entry);
    }
}

#[test]
fn what_cannot_be_trusted_is_polled() {
    with_each(&["root/a"], |bed| {
        let proc = File::open("/proc").expect("/proc");
        let device = proc.metadata().expect("its attributes").dev();
        let before = bed.watch.state();
        for _ in 0..3 {
            assert!(!bed.watch.add(proc.as_fd(), device, bed.at("proc").as_os_str().as_bytes()));
        }
        let outside = File::open(bed.out("")).expect("a directory");
        let device = outside.metadata().expect("its attributes").dev();
        assert!(!bed.watch.add(outside.as_fd(), device, bed.out("").as_os_str().as_bytes()), "not below the root");
        let after = bed.watch.state();
        assert_eq!((after.refused - before.refused, after.watches), (4, before.watches));
        assert_eq!((after.mode, after.reason, after.lost), (before.mode, None, 0));
    });
    let (sender, told) = mpsc::channel();
    let watch = Watch::start(Path::new("/proc/sys"), Choice::Auto, Box::new(move |it| drop(sender.send(it))));
    assert_eq!(watch.mode(), Mode::Poll, "{:?}", watch.state());
    assert!(watch.state().reason.is_some_and(|reason| reason.contains("pseudo")));
    assert!(told.try_recv().is_err());
}

#[test]
fn polling_is_a_choice() {
    let dir = tempdir();
    let root = real(&dir).join("root");
    fs::create_dir(&root).expect("the root");
    let bed = Bed::new(dir, root, Choice::Poll, "poll");
    assert!(!bed.add(&bed.root));
    let expected = State { mode: Mode::Poll, reason: None, watches: 0, limit: None, refused: 1, lost: 0 };
    assert_eq!(bed.watch.state(), expected);
    bed.watch.remove(bed.root.as_os_str().as_bytes());
    rename(&bed.root, &bed.out("old"));
    bed.wait("the root goes", &|change| *change == Change::Root);
}

#[test]
fn state_counts_watches() {
    with_each(&["root/a/b", "root/c"], |bed| {
        let state = bed.watch.state();
        match state.mode {
            Mode::Inotify => {
                assert_eq!((state.watches, state.limit), (4, inotify::limit()));
                assert!(state.limit.is_some());
                bed.watch.remove(bed.at("a").as_os_str().as_bytes());
                assert_eq!(bed.watch.state().watches, 2);
            }
            _ => assert_eq!((state.watches, state.limit), (1, None)),
        }
        assert_eq!((state.refused, state.lost, state.reason), (0, 0, None));
    });
}

#[test]
fn an_idle_watch_sleeps_and_ends_at_once() {
    with_each(&["root/a"], |bed| {
        write(&bed.at("a/x"));
        bed.expect("a change", &[bed.entry("a/x")]);
        // Others change the file system and mount things: one quiet moment is enough, and a timer would leave none.
        let wakeups = || bed.watch.shared.wakeups.load(Ordering::Relaxed);
        let end = Instant::now() + LIMIT;
        loop {
            let before = wakeups();
            std::thread::sleep(Duration::from_millis(60));
            if wakeups() == before {
                break;
            }
            if Instant::now() > end {
                assert!(bed.watch.mode() == Mode::Fanotify, "{}: it never sleeps", bed.name);
                return skip("this machine's file system is never quiet");
            }
        }
    });
    let start = Instant::now();
    for _ in 0..20 {
        with_each(&[], |_| {});
    }
    assert!(start.elapsed() < LIMIT, "ends take {:?}", start.elapsed());
}

#[test]
fn a_watch_may_be_dropped_in_its_sink() {
    let dir = tempdir();
    let root = real(&dir);
    let slot: Arc<Mutex<Option<Watch>>> = Arc::default();
    let (sender, told) = mpsc::channel();
    let inner = Arc::clone(&slot);
    let sink = move |_| {
        drop(inner.lock().take());
        let _ = sender.send(());
    };
    let watch = Watch::start(&root, Choice::Inotify, Box::new(sink));
    let fd = File::open(&root).expect("the root");
    assert!(watch.add(fd.as_fd(), fd.metadata().expect("its attributes").dev(), root.as_os_str().as_bytes()));
    *slot.lock() = Some(watch);
    write(&root.join("x"));
    told.recv_timeout(LIMIT).expect("it is told");
    let ended = told.recv_timeout(LIMIT);
    assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected), "the thread ends");
}

#[test]
fn many_threads_add_at_once() {
    let names: Vec<String> = (0..64).map(|at| format!("root/d{at}")).collect();
    with_each(&names.iter().map(String::as_str).collect::<Vec<_>>(), |bed| {
        std::thread::scope(|scope| {
            for at in 0..8 {
                let (watch, root) = (&bed.watch, &bed.root);
                scope.spawn(move || {
                    for round in 0..64 {
                        let path = root.join(format!("d{}", (at * 8 + round) % 64));
                        let dir = File::open(&path).expect("a directory");
                        let device = dir.metadata().expect("its attributes").dev();
                        assert!(watch.add(dir.as_fd(), device, path.as_os_str().as_bytes()));
                    }
                });
            }
        });
        for at in 0..64 {
            write(&bed.at(&format!("d{at}/x")));
        }
        let all: Vec<Change> = (0..64).map(|at| bed.entry(&format!("d{at}/x"))).collect();
        bed.expect("all", &all);
    });
}

#[test]
fn a_change_is_told_soon() {
    with_each(&["root/a"], |bed| {
        let mut times: Vec<Duration> = (0..101)
            .map(|at| {
                let (from, to) = [("a/x", "a/y"), ("a/y", "a/x")][at % 2];
                if at == 0 {
                    write(&bed.at(from));
                    bed.settle();
                }
                bed.seen.borrow_mut().clear();
                std::thread::sleep(Duration::from_millis(12));
                while bed.told.try_recv().is_ok() {}
                let start = Instant::now();
                rename(&bed.at(from), &bed.at(to));
                bed.wait("told", &|change| *change == bed.entry(to));
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{}: from a rename to the sink {:?}, at most {:?}", bed.name, times[50], times[100]);
        assert!(times[50] < Duration::from_millis(50), "{}: {:?}", bed.name, times[50]);
    });
}

/// What is known of a tree by being told: the type, size and mode of all that is in it.
#[derive(Default)]
struct Follower {
    known: BTreeMap<PathBuf, (bool, u64, u32)>,
}

impl Follower {
    fn look(&mut self, watch: &Watch, path: &Path) {
        let Ok(meta) = fs::symlink_metadata(path) else { return self.forget(watch, path) };
        let size = if meta.is_dir() { 0 } else { meta.len() };
        self.known.insert(path.to_owned(), (meta.is_dir(), size, meta.mode()));
        if !meta.is_dir() {
            return self.forget_below(watch, path);
        }
        let Ok(dir) = File::open(path) else { return self.forget(watch, path) };
        let device = dir.metadata().expect("its attributes").dev();
        assert!(watch.add(dir.as_fd(), device, path.as_os_str().as_bytes()), "{:?}", watch.state());
        // By the descriptor, since what is at the path may be another by now; that is told then.
        let listing = fs::read_dir(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir)));
        let names: Vec<_> = listing.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        for gone in self.children(path).into_iter().filter(|child| !names.iter().any(|name| path.join(name) == *child))
        {
            self.forget(watch, &gone);
        }
        for name in names {
            self.look(watch, &path.join(name));
        }
    }

    fn children(&self, path: &Path) -> Vec<PathBuf> {
        self.known.keys().filter(|known| known.parent() == Some(path)).cloned().collect()
    }

    fn forget(&mut self, watch: &Watch, path: &Path) {
        self.known.remove(path);
        self.forget_below(watch, path);
    }

    fn forget_below(&mut self, watch: &Watch, path: &Path) {
        self.known.retain(|known, _| !known.starts_with(path) || known == path);
        watch.remove(path.as_os_str().as_bytes());
    }

    fn follow(&mut self, watch: &Watch, root: &Path, change: &Change) {
        let path = |dir: &[u8], name: &[u8]| Path::new(OsStr::from_bytes(dir)).join(OsStr::from_bytes(name));
        match change {
            Change::Entry { dir, name: Some(name), .. } => self.look(watch, &path(dir, name)),
            Change::Content { dir, name } | Change::Attributes { dir, name: Some(name), .. } => {
                self.attributes(&path(dir, name));
            }
            Change::Attributes { dir, name: None, .. } => self.attributes(Path::new(OsStr::from_bytes(dir))),
            Change::Entry { name: None, .. } | Change::Root | Change::Lost => self.look(watch, root),
        }
    }

    fn attributes(&mut self, path: &Path) {
        if let (Some(known), Ok(meta)) = (self.known.get_mut(path), fs::symlink_metadata(path)) {
            let size = if meta.is_dir() { 0 } else { meta.len() };
            *known = (meta.is_dir(), size, meta.mode());
        }
    }
}

/// Does something at random below `top`, of whose names there are few.
fn act(random: &mut impl FnMut(usize) -> usize, top: &Path) {
    let mut path =
        |depth: usize| (0..=depth).fold(top.to_owned(), |path, _| path.join(["a", "b", "c", "d"][random(4)]));
    let (from, to) = (path(1), path(2));
    let (short, deep) = (path(0), path(3));
    let _ = match random(10) {
        0 => fs::create_dir_all(&to),
        1 => fs::create_dir(&from),
        2 => fs::write(&deep, vec![b'x'; random(1000)]),
        3 => fs::write(&to, vec![b'x'; random(1000)]),
        4 => fs::rename(&from, &to),
        5 => fs::rename(&to, &from),
        6 => fs::rename(&short, &from),
        7 => fs::set_permissions(&to, fs::Permissions::from_mode(0o700 + random(64) as u32)),
        8 => fs::remove_file(&to),
        _ => match random(4) {
            0 => fs::remove_dir_all(&from),
            1 => fs::rename(&from, top.join("../out").join(["a", "b"][random(2)])),
            2 => fs::rename(top.join("../out").join(["a", "b"][random(2)]), &from),
            _ => fs::remove_dir_all(top.join("../out").join(["a", "b"][random(2)])),
        },
    };
}

#[test]
fn a_tree_is_known_by_being_told() {
    for round in 1..=4 {
        with_each(&["out"], |bed| {
            let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(round);
            let mut random = move |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            let mut follower = Follower::default();
            follower.look(&bed.watch, &bed.root);
            let top = bed.root.clone();
            let changing = std::thread::spawn(move || {
                for at in 0..3000 {
                    act(&mut random, &top);
                    if at % 64 == 0 {
                        std::thread::sleep(Duration::from_micros(random(3000) as u64));
                    }
                }
                write(&top.join("end"));
            });
            let end = bed.content("end");
            for changes in std::iter::from_fn(|| bed.told.recv_timeout(LIMIT).ok()) {
                for change in &changes {
                    follower.follow(&bed.watch, &bed.root, change);
                }
                if changes.contains(&end) || changes.contains(&Change::Lost) && changing.is_finished() {
                    break;
                }
            }
            changing.join().expect("changes");
            let mut real = Follower::default();
            real.look(&bed.watch, &bed.root);
            assert_eq!(follower.known, real.known, "{}: round {round}", bed.name);
        });
    }
}

const CHILD: &str = "VEINFS_TEST_WATCH_LIMIT";

/// The other half of the next test, in a user namespace of its own.
#[test]
fn child_with_few_watches() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let dir = tempdir();
    let root = real(&dir);
    let bed = Bed::new(dir, root, Choice::Auto, "few watches");
    for at in 0..30 {
        fs::create_dir(bed.at(&format!("d{at}"))).expect("a directory");
    }
    let state = bed.watch.state();
    assert_eq!(state.mode, Mode::Inotify);
    assert!(state.reason.as_ref().is_some_and(|reason| reason.contains("fanotify")), "why not fanotify: {state:?}");
    assert!(bed.add(&bed.root));
    let told: Vec<bool> = (0..30).map(|at| bed.add(&bed.at(&format!("d{at}")))).collect();
    let first = told.iter().position(|told| !told).expect("one is refused");
    assert!(first > 0 && told[first..].iter().all(|told| !told), "{told:?}");
    let state = bed.watch.state();
    assert_eq!((state.watches, state.refused, state.limit), (first as u64 + 1, 30 - first as u64, Some(20)));
    bed.watch.remove(bed.at("d0").as_os_str().as_bytes());
    assert!(bed.add(&bed.at("d29")), "there is room again");
    write(&bed.at("d29/x"));
    bed.wait("told", &|change| *change == bed.entry("d29/x"));
    println!("the child is done");
}

#[test]
fn directories_past_the_limit_are_polled() {
    let script = "echo 20 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "watch::tests::child_with_few_watches", "--nocapture"])
        .env(CHILD, "1")
        .output();
    let Ok(output) = output else { return skip("there is no unshare") };
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && !text.contains("running 1 test") {
        return skip(&format!("no user namespace: {errors}"));
    }
    assert!(output.status.success() && text.contains("the child is done"), "{text}{errors}");
}
