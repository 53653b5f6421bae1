//! inotify(7): a watch for each directory, known to the kernel by a number and here by its paths.
//!
//! The kernel gives a directory one number however often it is asked for, at whatever path: a directory that was moved
//! keeps it, and one that is mounted at two places has one for both. So a number has a set of paths, and the watch
//! lasts as long as there is one. A path has one number: that of the directory asked for last.
//!
//! ```text
//! struct inotify_event
//! | wd i32 | mask u32 | cookie u32 | len u32 | name, len bytes, filled up with NUL |
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::{Events, Facts};

const HEAD_BYTES: usize = 16;

/// What is asked for of each directory; `EXCL_UNLINK`: what happens to a file that has no name there is not told.
const WATCH: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// How many watches are dropped before others may have a turn.
const DROPPED_AT_ONCE: usize = 256;

/// Paths of one directory; nearly always one.
pub(super) type Paths = SmallVec<[Arc<[u8]>; 1]>;

/// The watches of a tree.
#[derive(Debug)]
pub(super) struct Tree {
    fd: OwnedFd,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    paths: FxHashMap<i32, Paths>,
    watches: BTreeMap<Arc<[u8]>, i32>,
}

impl Tree {
    /// A tree without watches.
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self { fd: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?, held: Mutex::default() })
    }

    /// Watches the directory, which is at `path`.
    pub(super) fn add(&self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
        // By the descriptor: what is at the path may be another directory by now.
        let by_fd = format!("/proc/self/fd/{}", dir.as_raw_fd());
        // The kernel and the maps change together: otherwise another thread that drops the same directory at its old
        // path could take the watch away between the two.
        let mut held = self.held.lock();
        let watch = inotify::add_watch(&self.fd, by_fd, WATCH)?;
        let before = held.watches.get(path).copied();
        if before == Some(watch) {
            return Ok(());
        }
        let path: Arc<[u8]> = path.into();
        if let Some(before) = before {
            self.unlink(&mut held, before, &path);
        }
        held.paths.entry(watch).or_default().push(Arc::clone(&path));
        held.watches.insert(path, watch);
        Ok(())
    }

    /// Drops the watches at `path` and below it.
    pub(super) fn remove(&self, path: &[u8]) {
        loop {
            let mut held = self.held.lock();
            let gone: Vec<(Arc<[u8]>, i32)> = held.at_and_below(path).take(DROPPED_AT_ONCE).collect();
            for (path, watch) in &gone {
                held.watches.remove(path);
                self.unlink(&mut held, *watch, path);
            }
            if gone.len() < DROPPED_AT_ONCE {
                return;
            }
        }
    }

    /// Takes a path from a watch, and drops the watch if that was its last.
    fn unlink(&self, held: &mut Held, watch: i32, path: &[u8]) {
        let Some(paths) = held.paths.get_mut(&watch) else { return };
        paths.retain(|other| **other != *path);
        if paths.is_empty() {
            held.paths.remove(&watch);
            // It fails if the directory has gone, and then the watch too.
            let _ = inotify::remove_watch(&self.fd, watch);
        }
    }

    /// The paths of a watch; none if it was dropped.
    pub(super) fn paths(&self, watch: i32) -> Paths {
        self.held.lock().paths.get(&watch).cloned().unwrap_or_default()
    }

    /// Forgets a watch that the kernel has dropped.
    pub(super) fn forget(&self, watch: i32) {
        let mut held = self.held.lock();
        for path in held.paths.remove(&watch).unwrap_or_default() {
            if held.watches.get(&path) == Some(&watch) {
                held.watches.remove(&path);
            }
        }
    }

    /// How many watches there are.
    pub(super) fn len(&self) -> usize {
        self.held.lock().paths.len()
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Held {
    fn at_and_below<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (Arc<[u8]>, i32)> + 'a {
        // All that begins with `path/`: `0` is the byte after `/`.
        let stem = path.strip_suffix(b"/").unwrap_or(path);
        let (low, high) = ([stem, b"/"].concat(), [stem, b"0"].concat());
        let range = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
        let below: Vec<_> = self
            .watches
            .range::<[u8], _>(range)
            .take(DROPPED_AT_ONCE)
            .map(|(path, watch)| (Arc::clone(path), *watch))
            .collect();
        let at =
            self.watches.get_key_value(path).filter(|_| path != b"/").map(|(path, watch)| (Arc::clone(path), *watch));
        at.into_iter().chain(below)
    }
}

/// The limit on watches of all programs of this user together; `None` if it cannot be read.
pub(super) fn limit() -> Option<u64> {
    // Of the machine, and of the user namespace.
    let limits = ["/proc/sys/fs/inotify/max_user_watches", "/proc/sys/user/max_inotify_watches"];
    limits.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).min()
}

/// What stands in one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// The number of the watch.
    pub(super) watch: i32,
    mask: ReadFlags,
    /// The name in the directory; `None` if the event is about the directory itself.
    pub(super) name: Option<&'a [u8]>,
}

impl Event<'_> {
    /// True if the queue was full and events were thrown away.
    pub(super) fn is_overflow(&self) -> bool {
        self.mask.contains(ReadFlags::QUEUE_OVERFLOW)
    }

    /// True if the kernel has dropped the watch.
    pub(super) fn is_dropped(&self) -> bool {
        self.mask.contains(ReadFlags::IGNORED)
    }

    /// True if the directory itself was moved or deleted.
    pub(super) fn is_self_gone(&self) -> bool {
        self.mask.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF)
    }

    /// True if a directory in this one was moved, and so all below it have other paths than before.
    pub(super) fn is_dir_moved(&self) -> bool {
        self.facts().is_dir && self.mask.intersects(ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO)
    }

    /// What it says.
    pub(super) fn facts(&self) -> Facts {
        let entry = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        Facts {
            entry: self.mask.intersects(entry),
            attributes: self.mask.contains(ReadFlags::ATTRIB),
            content: self.mask.intersects(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE),
            is_dir: self.mask.contains(ReadFlags::ISDIR),
        }
    }
}

/// The events in what was read from an inotify instance; after a malformed one there is none.
pub(super) fn parse(bytes: &[u8]) -> Events<'_, Event<'_>> {
    Events { bytes, first: event }
}

fn event(bytes: &[u8]) -> Option<(Event<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let word = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let (name, rest) = rest.split_at_checked(word(12)? as usize)?;
    let name = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty());
    if name.is_some_and(|name| name.contains(&b'/')) {
        return None;
    }
    Some((Event { watch: word(0)?.cast_signed(), mask: ReadFlags::from_bits_retain(word(4)?), name }, rest))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::super::Malformed;
    use super::*;

    fn raw(watch: i32, mask: ReadFlags, name: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(watch.to_ne_bytes());
        bytes.extend(mask.bits().to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend((name.len() as u32).to_ne_bytes());
        bytes.extend(name);
        bytes
    }

    fn all(bytes: &[u8]) -> Vec<Result<Event<'_>, Malformed>> {
        parse(bytes).collect()
    }

    #[test]
    fn events_are_read_one_after_the_other() {
        let mut bytes = raw(3, ReadFlags::CREATE | ReadFlags::ISDIR, b"na\xffme\0\0\0");
        bytes.extend(raw(-1, ReadFlags::QUEUE_OVERFLOW, b""));
        bytes.extend(raw(4, ReadFlags::IGNORED, b""));
        bytes.extend(raw(4, ReadFlags::MOVE_SELF, b"\0\0"));
        let events: Vec<Event<'_>> = all(&bytes).into_iter().map(|event| event.expect("well formed")).collect();
        assert_eq!(events.len(), 4);
        assert_eq!((events[0].watch, events[0].name), (3, Some(&b"na\xffme"[..])));
        assert_eq!(events[0].facts(), Facts { entry: true, is_dir: true, ..Facts::default() });
        assert!(!events[0].is_dir_moved());
        assert!(events[1].is_overflow() && events[1].name.is_none());
        assert!(events[2].is_dropped() && events[2].watch == 4);
        assert!(events[3].is_self_gone() && events[3].name.is_none());
    }

    #[test]
    fn what_has_not_the_form_is_told_and_ends_the_reading() {
        let good = raw(3, ReadFlags::CREATE, b"x\0\0\0");
        for length in [1, 15, 16, 17, 19] {
            assert_eq!(all(&good[..length]), [Err(Malformed)], "the first {length} bytes");
        }
        for name_bytes in [5_u32, 999, u32::MAX] {
            let mut bytes = good.clone();
            bytes[12..16].copy_from_slice(&name_bytes.to_ne_bytes());
            assert_eq!(all(&bytes), [Err(Malformed)], "a name of {name_bytes} bytes");
        }
        assert_eq!(all(&raw(3, ReadFlags::CREATE, b"a/b\0")), [Err(Malformed)]);
        assert!(all(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let events = parse(&bytes).take(1000).count();
            prop_assert!(events <= bytes.len() / HEAD_BYTES + 1);
        }
    }

    struct Bed {
        dir: tempfile::TempDir,
        tree: Tree,
    }

    impl Bed {
        fn new(dirs: &[&str]) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            for path in dirs {
                std::fs::create_dir_all(dir.path().join(path)).expect("a directory");
            }
            Self { dir, tree: Tree::new().expect("inotify") }
        }

        /// Watches the directory `real` under the path `/at`.
        fn add(&self, real: &str, at: &str) {
            let fd = File::open(self.dir.path().join(real)).expect("a directory");
            self.tree.add(fd.as_fd(), at.as_bytes()).expect("a watch");
        }

        fn all(&self) -> Vec<String> {
            let held = self.tree.held.lock();
            for (path, watch) in &held.watches {
                assert!(held.paths[watch].contains(path), "both maps have it");
            }
            assert_eq!(held.paths.values().map(|paths| paths.len()).sum::<usize>(), held.watches.len());
            let show = |path: &Arc<[u8]>| std::ffi::OsStr::from_bytes(path).display().to_string();
            held.watches.keys().map(show).collect()
        }

        /// True if the directory `real` has a watch: a new name in it is told.
        fn told(&self, real: &str) -> bool {
            let mut buffer = [0; 4096];
            while rustix::io::read(&self.tree, &mut buffer).is_ok() {}
            let file = self.dir.path().join(real).join("probe");
            std::fs::write(&file, "").expect("a file");
            std::fs::remove_file(file).expect("a file to go");
            rustix::io::read(&self.tree, &mut buffer).is_ok()
        }
    }

    #[test]
    fn a_path_takes_all_below_it_with_it_and_nothing_beside_it() {
        let bed = Bed::new(&["a", "b", "c", "d", "e"]);
        for (real, at) in [("a", "/r/x"), ("b", "/r/x/y"), ("c", "/r/x-y"), ("d", "/r/x0"), ("e", "/r")] {
            bed.add(real, at);
        }
        bed.tree.remove(b"/r/x");
        assert_eq!(bed.all(), ["/r", "/r/x-y", "/r/x0"]);
        assert!(!bed.told("a") && !bed.told("b") && bed.told("c") && bed.told("d") && bed.told("e"));
        bed.tree.remove(b"/");
        assert_eq!(bed.all(), [""; 0]);
        assert_eq!(bed.tree.len(), 0);
        assert!(!bed.told("e"));
    }

    #[test]
    fn a_moved_directory_keeps_its_watch_when_the_old_path_goes() {
        for old_first in [false, true] {
            let bed = Bed::new(&["a"]);
            bed.add("a", "/r/old");
            if old_first {
                bed.tree.remove(b"/r/old");
            }
            bed.add("a", "/r/new");
            bed.tree.remove(b"/r/old");
            assert_eq!(bed.all(), ["/r/new"]);
            assert!(bed.told("a"), "old first: {old_first}");
        }
    }

    #[test]
    fn a_path_with_another_directory_drops_the_first() {
        let bed = Bed::new(&["a", "b"]);
        bed.add("a", "/r/x");
        bed.add("a", "/r/x");
        bed.add("b", "/r/x");
        assert_eq!((bed.all(), bed.tree.len()), (vec!["/r/x".to_owned()], 1));
        assert!(bed.told("b") && !bed.told("a"));
    }

    #[test]
    fn what_the_kernel_drops_is_forgotten() {
        let bed = Bed::new(&["a", "b"]);
        bed.add("a", "/r/a");
        bed.add("b", "/r/b");
        let watch = bed.tree.held.lock().watches[&b"/r/a"[..]];
        assert_eq!(bed.tree.paths(watch).len(), 1);
        bed.tree.forget(watch);
        bed.tree.forget(999);
        assert!(bed.tree.paths(watch).is_empty());
        assert_eq!(bed.all(), ["/r/b"]);
    }

    #[test]
    fn thousands_go_at_once() {
        let bed = Bed::new(&["a"]);
        let count = DROPPED_AT_ONCE * 2 + 7;
        for at in 0..count {
            bed.add("a", &format!("/r/{at}"));
        }
        assert_eq!((bed.all().len(), bed.tree.len()), (count, 1));
        bed.tree.remove(b"/r");
        assert_eq!((bed.all().len(), bed.tree.len()), (0, 0));
    }
}
