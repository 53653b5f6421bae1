//! The directories above the root: whether one of them, or the root in its place, comes, goes or is another.
//!
//! Each has an inotify watch of its own, whatever way the tree is watched: they may be on other file systems. They are
//! watched by path from the top downwards, as far as there is one. So when a missing one comes, the one above it was
//! watched before it was looked for, and nothing comes unseen.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::inotify::Event;

/// Of a directory above: its entries, and attributes, since they decide who may reach the root.
const ABOVE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(ITSELF);

/// Of the root: whether it goes, in case that the directory above may not be read.
const ITSELF: WatchFlags =
    WatchFlags::DELETE_SELF.union(WatchFlags::MOVE_SELF).union(WatchFlags::ONLYDIR).union(WatchFlags::DONT_FOLLOW);

/// The watches above a root.
#[derive(Debug)]
pub(super) struct Above {
    fd: OwnedFd,
    root: Box<[u8]>,
    steps: Vec<Step>,
}

/// A directory above, or the root.
#[derive(Debug)]
struct Step {
    watch: i32,
    /// How many bytes of the root's path are its path.
    length: usize,
}

/// What an event above the root means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Something else in the same directories.
    Nothing,
    /// The root may be another, gone or back; the watches are to be set again.
    Root,
    /// The attributes of this directory have changed.
    Attributes(Box<[u8]>),
}

impl Above {
    /// Watches what is there.
    pub(super) fn new(root: &[u8]) -> Result<Self, Errno> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut above = Self { fd, root: root.into(), steps: Vec::new() };
        above.set();
        Ok(above)
    }

    /// Watches what is there now, and no longer what is not.
    pub(super) fn set(&mut self) {
        let mut steps = Vec::new();
        for length in lengths(&self.root) {
            let mask = if length == self.root.len() { ITSELF } else { ABOVE };
            match inotify::add_watch(&self.fd, &self.root[..length], mask) {
                Ok(watch) => steps.push(Step { watch, length }),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => break,
                // One that may not be read; those below may.
                Err(_) => {}
            }
        }
        for old in std::mem::replace(&mut self.steps, steps) {
            if self.steps.iter().all(|step| step.watch != old.watch) {
                // It fails if the directory has gone, and then the watch too.
                let _ = inotify::remove_watch(&self.fd, old.watch);
            }
        }
    }

    /// What the event means.
    pub(super) fn meaning(&self, event: &Event<'_>) -> Meaning {
        if event.is_overflow() {
            return Meaning::Root;
        }
        let Some(step) = self.steps.iter().find(|step| step.watch == event.watch) else { return Meaning::Nothing };
        if event.is_dropped() || event.is_self_gone() {
            return Meaning::Root;
        }
        let facts = event.facts();
        match event.name {
            Some(name) if facts.entry && name == self.next(step) => Meaning::Root,
            // Of the directory itself; that of an entry below comes from its own watch too.
            None if facts.attributes => Meaning::Attributes(self.root[..step.length].into()),
            _ => Meaning::Nothing,
        }
    }

    /// The name on the way to the root in the directory of this step.
    fn next(&self, step: &Step) -> &[u8] {
        let rest = self.root.get(step.length..).unwrap_or_default();
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        rest.split(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

impl AsFd for Above {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How long the paths of the directories above are, from the top, and at the end the root's own.
fn lengths(root: &[u8]) -> impl Iterator<Item = usize> {
    let slashes = root.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at.max(1));
    slashes.chain((root.len() > 1).then_some(root.len()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::watch::inotify::parse;

    #[test]
    fn paths_above() {
        let all = |root: &str| lengths(root.as_bytes()).map(|length| root[..length].to_owned()).collect::<Vec<_>>();
        assert_eq!(all("/a/bc/d"), ["/", "/a", "/a/bc", "/a/bc/d"]);
        assert_eq!(all("/a"), ["/", "/a"]);
        assert_eq!(all("/"), ["/"]);
    }

    /// What the events since the last call mean, each once.
    fn told(above: &Above) -> Vec<Meaning> {
        let mut meanings = Vec::new();
        let mut buffer = [0; 16 << 10];
        while let Ok(length) = rustix::io::read(above, &mut buffer) {
            for event in parse(&buffer[..length]) {
                let meaning = above.meaning(&event.expect("well formed"));
                if meaning != Meaning::Nothing && !meanings.contains(&meaning) {
                    meanings.push(meaning);
                }
            }
        }
        meanings
    }

    #[test]
    fn what_happens_above_is_told_and_what_happens_beside_is_not() {
        let bed = tempfile::tempdir().expect("a directory");
        let root = bed.path().join("a/b/root");
        let mut above = Above::new(root.as_os_str().as_bytes()).expect("inotify");
        let mut step = |what: &str, act: &dyn Fn() -> std::io::Result<()>, expected: &[Meaning]| {
            act().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(told(&above), expected, "{what}");
            above.set();
            assert_eq!(told(&above), [], "{what}: set again");
        };
        let path = |tail: &str| bed.path().join(tail);
        step("beside", &|| fs::create_dir(path("aa")), &[]);
        step("the first of three comes", &|| fs::create_dir(path("a")), &[Meaning::Root]);
        step("the second and the third", &|| fs::create_dir_all(&root), &[Meaning::Root]);
        step("in the root", &|| fs::write(root.join("x"), ""), &[]);
        step("beside the root", &|| fs::create_dir(path("a/b/root-2")), &[]);
        step("another takes its place", &|| fs::rename(path("a/b/root"), path("a/b/old")), &[Meaning::Root]);
        step("and", &|| fs::rename(path("a/b/root-2"), &root), &[Meaning::Root]);
        step("in what it was", &|| fs::create_dir(path("a/b/old/y")), &[]);
        let mode = || {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path("a"), fs::Permissions::from_mode(0o711))
        };
        step("attributes above", &mode, &[Meaning::Attributes(path("a").as_os_str().as_bytes().into())]);
        step("one above goes", &|| fs::rename(path("a"), path("z")), &[Meaning::Root]);
        step("below what it was", &|| fs::rename(path("z/b/root"), path("z/b/r")), &[]);
        step("one above comes back", &|| fs::rename(path("z"), path("a")), &[Meaning::Root]);
        step("the root comes back", &|| fs::rename(path("a/b/r"), &root), &[Meaning::Root]);
        step("it is deleted", &|| fs::remove_dir(&root), &[Meaning::Root]);
    }
}
