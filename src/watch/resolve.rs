//! From a directory's handle to its paths below the root, now.
//!
//! The kernel opens a handle by way of an open directory of the same mount, and says the path as that mount shows it. An
//! open directory keeps a mount busy, so it is opened when the first handle of a batch is not in the cache, and closed
//! when the batch is done.
//!
//! The cache must never give a path that was: whoever reads events clears it before it resolves any of them if one says
//! that a directory was moved or deleted. The events have been read before they are resolved, and so every move that
//! could have made a kept path wrong is either among them or has its own event still to come, which tells of the new
//! path by itself.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lru::LruCache;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::fanotify::Handle;
use super::inotify::Paths;
use super::{is_within, sys};

/// How many directories are kept, outside ones included: what changes together is rarely more.
const KEPT: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

/// How far up a path is looked for from a directory that is too deep for one; where there is none, nothing is known.
const HIGHEST: usize = 1 << 16;

/// How many levels one call climbs: a path of `../` is as long as any other.
const CLIMBED: usize = 256;

/// How often and after how long a handle is tried again: soon, since another look mostly does, and then for 25 ms.
const PAUSES_MICROS: [u64; 24] =
    [30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 100, 200, 400, 800, 1600, 3200, 6400, 12_800];

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file system whose events are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// As in the events' handles.
    pub(super) fsid: [u8; 8],
    /// The device of its directories.
    pub(super) device: u64,
    /// The device of its mounts; with btrfs another.
    pub(super) mount_device: Option<u64>,
    /// Where it is seen at or below the root: mount points, and the root itself. The first is where it was found.
    pub(super) places: Vec<Arc<[u8]>>,
}

/// What a handle stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// A directory at these paths below the root; at none if it has gone or is elsewhere.
    At(Paths),
    /// It cannot be said, for this reason, and may be below the root.
    Unsure(Errno),
}

/// The cache, and what is open for the current batch.
#[derive(Debug)]
pub(super) struct Resolver {
    cache: LruCache<Box<[u8]>, Paths>,
    open: Vec<(u64, Arc<[u8]>, Door)>,
    missed: bool,
}

/// The way into a file system.
#[derive(Debug)]
enum Door {
    Open(OwnedFd),
    /// There is another file system. When it comes and goes is told by itself, and the cache cleared.
    Other,
    /// There is nothing.
    Away,
    Failed(Errno),
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self { cache: LruCache::new(KEPT), open: Vec::new(), missed: false }
    }

    /// Forgets all paths: a directory was moved or deleted, or mounts have changed.
    pub(super) fn clear(&mut self) {
        self.cache.clear();
    }

    /// Closes what was opened for a batch.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    /// True if, since it was last asked, something could not be resolved because its root was away.
    pub(super) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// The paths of a directory of the file system.
    pub(super) fn resolve(&mut self, file_system: &FileSystem, handle: &Handle<'_>) -> Resolved {
        if let Some(paths) = self.cache.get(handle.key) {
            return Resolved::At(paths.clone());
        }
        let mut paths = Paths::new();
        let mut certain = true;
        for place in &file_system.places {
            match self.door(file_system.device, place) {
                Door::Open(mount) => match path_of(mount.as_fd(), place, handle.kind, handle.bytes) {
                    Ok(Some(path)) => paths.push(path),
                    Ok(None) => {}
                    Err(error) => return Resolved::Unsure(error),
                },
                Door::Other => {}
                Door::Away => {
                    self.missed = true;
                    certain = false;
                }
                Door::Failed(error) => return Resolved::Unsure(*error),
            }
        }
        if certain {
            self.cache.put(handle.key.into(), paths.clone());
        }
        Resolved::At(paths)
    }

    fn door(&mut self, device: u64, place: &Arc<[u8]>) -> &Door {
        let at = match self.open.iter().position(|(dev, path, _)| *dev == device && path == place) {
            Some(at) => at,
            None => {
                self.open.push((device, Arc::clone(place), Door::new(device, place)));
                self.open.len() - 1
            }
        };
        &self.open[at].2
    }
}

impl Door {
    fn new(device: u64, place: &[u8]) -> Self {
        let dir = match rustix::fs::openat(CWD, place, DIR, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::LOOP) => return Self::Away,
            // A file that something is mounted on: nothing is below it.
            Err(Errno::NOTDIR) => return Self::Other,
            Err(error) => return Self::Failed(error),
        };
        match rustix::fs::fstat(&dir) {
            Ok(stat) if stat.st_dev == device => Self::Open(dir),
            Ok(_) => Self::Other,
            Err(error) => Self::Failed(error),
        }
    }
}

/// True if handles of this file system can be opened and have paths, tried on `dir`, which is at `path`.
pub(super) fn works(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    let (kind, bytes) = sys::handle_of(dir)?;
    match path_of(dir, path, kind, &bytes)? {
        Some(_) => Ok(()),
        None => Err(Errno::STALE),
    }
}

/// The path of a directory if it lives and is at or below `place`.
fn path_of(mount: BorrowedFd<'_>, place: &[u8], kind: i32, bytes: &[u8]) -> Result<Option<Arc<[u8]>>, Errno> {
    let dir = match open(mount, kind, bytes) {
        Ok(dir) => dir,
        // It has gone, and the directory above tells.
        Err(Errno::STALE | Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = match name_of(dir.as_fd()) {
        // Too deep for a path: not lost if it is not below the place.
        Err(Errno::NAMETOOLONG) => {
            return if is_deep_within(dir.as_fd(), place)? { Err(Errno::NAMETOOLONG) } else { Ok(None) };
        }
        path => path?,
    };
    // A directory of the same file system that this mount does not show has a path as if it did: one from the file
    // system's own root. If that happens to be within, somebody looks there in vain.
    if !path.starts_with(b"/") {
        return Err(Errno::NOENT);
    }
    if !is_within(place, &path) || path.ends_with(b" (deleted)") && !is_at(dir.as_fd(), &path) {
        return Ok(None);
    }
    Ok(Some(path.into()))
}

/// Opens a handle, and looks again at one whose inode number is just being given to another.
///
/// The directory has gone then, but as long as the other is not complete ext4 says ENOMEM (`iget_locked` has nothing
/// for an inode in creation) instead of ESTALE. Taken for a failure, it would make directories that come and go
/// quickly an event lost.
fn open(mount: BorrowedFd<'_>, kind: i32, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    for pause in PAUSES_MICROS {
        match sys::open_handle(mount, kind, bytes) {
            Err(Errno::NOMEM) => thread::sleep(Duration::from_micros(pause)),
            opened => return opened,
        }
    }
    sys::open_handle(mount, kind, bytes)
}

fn name_of(dir: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlink(format!("/proc/self/fd/{}", dir.as_raw_fd()), Vec::new()).map(|path| path.into_bytes())
}

/// True if the directory really is at the path: it may be called ` (deleted)`, or be so.
fn is_at(dir: BorrowedFd<'_>, path: &[u8]) -> bool {
    match (rustix::fs::fstat(dir), rustix::fs::lstat(path)) {
        (Ok(this), Ok(that)) => (this.st_dev, this.st_ino) == (that.st_dev, that.st_ino),
        _ => false,
    }
}

/// True if a directory that is too deep for a path is within the place.
///
/// Anybody can make directories as deep as that, anywhere on the file system: looked at level by level, a tree of 4,000
/// levels that was removed held up all other events for 13 s.
fn is_deep_within(dir: BorrowedFd<'_>, place: &[u8]) -> Result<bool, Errno> {
    is_within_upwards(place, |levels| match name_of(above(dir, levels)?.as_fd()) {
        Ok(path) => Ok(Some(path)),
        Err(Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    })
}

/// True if something without a path is within the place; `path_at` says the path of what is so many levels above it,
/// `None` where that is too long. Where no level has one, it may be within.
fn is_within_upwards(
    place: &[u8],
    mut path_at: impl FnMut(usize) -> Result<Option<Vec<u8>>, Errno>,
) -> Result<bool, Errno> {
    // Without a path at `low`, with one at `high` if that is known.
    let (mut low, mut high, mut levels) = (0, None, 16);
    loop {
        match path_at(levels)? {
            None if levels == HIGHEST => return Ok(true),
            None => low = levels,
            Some(path) if is_within(place, &path) => return Ok(true),
            // Two directories above one are above each other.
            Some(path) if !is_within(&path, place) => return Ok(false),
            // The place, which has a path, may lie between.
            Some(_) => high = Some(levels),
        }
        levels = match high {
            None => (levels * 8).min(HIGHEST),
            Some(high) if high - low > 1 => usize::midpoint(low, high),
            Some(_) => return Ok(false),
        };
    }
}

/// The directory so many levels above another one; above the root is the root.
fn above(dir: BorrowedFd<'_>, levels: usize) -> Result<OwnedFd, Errno> {
    let mut at = rustix::fs::openat(dir, c".", PATH, Mode::empty())?;
    for climbed in (0..levels).step_by(CLIMBED) {
        at = rustix::fs::openat(&at, "../".repeat((levels - climbed).min(CLIMBED)), PATH, Mode::empty())?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;

    /// A temp directory if handles can be opened there.
    fn bed() -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir().expect("a directory");
        let root = File::open(dir.path()).expect("the root");
        if let Err(error) = works(root.as_fd(), dir.path().as_os_str().as_bytes()) {
            println!("SKIP: handles cannot be opened: {error}");
            return None;
        }
        Some(dir)
    }

    struct Known {
        kind: i32,
        key: Vec<u8>,
    }

    fn known(path: &Path) -> Known {
        let (kind, bytes) = sys::handle_of(File::open(path).expect("a directory").as_fd()).expect("a handle");
        Known { kind, key: bytes }
    }

    fn resolve(resolver: &mut Resolver, root: &Path, known: &Known) -> Resolved {
        let device = fs::metadata(root.parent().expect("a directory above")).expect("its attributes").dev();
        let places = vec![root.as_os_str().as_bytes().into()];
        let handle = Handle { fsid: [0; 8], kind: known.kind, bytes: &known.key, key: &known.key };
        let resolved = resolver.resolve(&FileSystem { fsid: [0; 8], device, mount_device: None, places }, &handle);
        resolver.close();
        resolved
    }

    fn at(path: &Path) -> Resolved {
        Resolved::At(Paths::from_iter([path.as_os_str().as_bytes().into()]))
    }

    fn nowhere() -> Resolved {
        Resolved::At(Paths::new())
    }

    #[test]
    fn a_directory_is_where_it_is_now() {
        let Some(bed) = bed() else { return };
        let (root, mut resolver) = (bed.path().join("root"), Resolver::new());
        fs::create_dir_all(root.join("a/b")).expect("a tree");
        fs::create_dir(bed.path().join("root-2")).expect("a directory beside");
        let (top, inner, beside) = (known(&root), known(&root.join("a/b")), known(&bed.path().join("root-2")));
        assert_eq!(resolve(&mut resolver, &root, &top), at(&root));
        assert_eq!(resolve(&mut resolver, &root, &inner), at(&root.join("a/b")));
        assert_eq!(resolve(&mut resolver, &root, &beside), nowhere());
        fs::rename(root.join("a"), root.join("c")).expect("a rename");
        fs::rename(bed.path().join("root-2"), root.join("in")).expect("a rename");
        assert_eq!(resolve(&mut resolver, &root, &inner), at(&root.join("a/b")), "kept until it is cleared");
        resolver.clear();
        assert_eq!(resolve(&mut resolver, &root, &inner), at(&root.join("c/b")));
        assert_eq!(resolve(&mut resolver, &root, &beside), at(&root.join("in")));
        fs::remove_dir(root.join("c/b")).expect("a directory to go");
        resolver.clear();
        assert_eq!(resolve(&mut resolver, &root, &inner), nowhere());
        assert!(!resolver.take_missed());
    }

    #[test]
    fn a_directory_is_found_at_every_place_and_kept_though_some_show_it_not() {
        let Some(bed) = bed() else { return };
        let (root, mut resolver) = (bed.path().join("root"), Resolver::new());
        fs::create_dir_all(root.join("a/b")).expect("a tree");
        fs::write(root.join("file"), "").expect("a file");
        let Known { kind, key } = known(&root.join("a/b"));
        let device = fs::metadata(&root).expect("its attributes").dev();
        let mut resolve = |places: &[&Path]| {
            let places = places.iter().map(|place| place.as_os_str().as_bytes().into()).collect();
            let handle = Handle { fsid: [0; 8], kind, bytes: &key, key: &key };
            let resolved = resolver.resolve(&FileSystem { fsid: [0; 8], device, mount_device: None, places }, &handle);
            resolver.close();
            (resolved, resolver.cache.pop(&key[..]).is_some())
        };
        let b = &root.join("a/b");
        assert_eq!(resolve(&[&root, &root.join("file"), Path::new("/proc")]), (at(b), true));
        let twice = Resolved::At(Paths::from_iter([b.as_os_str().as_bytes().into(), b.as_os_str().as_bytes().into()]));
        assert_eq!(resolve(&[&root, &root.join("a")]), (twice, true));
        assert_eq!(resolve(&[&root, &root.join("none")]), (at(b), false));
    }

    #[test]
    fn deleted_and_called_so_are_two_things() {
        let Some(bed) = bed() else { return };
        let mut resolver = Resolver::new();
        let path = bed.path().join("x (deleted)");
        fs::create_dir(&path).expect("a directory");
        let named = known(&path);
        assert_eq!(resolve(&mut resolver, bed.path(), &named), at(&path));
        let path = bed.path().join("y");
        fs::create_dir(&path).expect("a directory");
        let gone = known(&path);
        let open = File::open(&path).expect("a directory");
        fs::remove_dir(&path).expect("a directory to go");
        assert_eq!(resolve(&mut resolver, bed.path(), &gone), nowhere(), "open, and so it may still have a handle");
        drop(open);
    }

    #[test]
    fn what_is_too_deep_for_a_path_is_unsure_below_the_root_alone() {
        let Some(bed) = bed() else { return };
        let (root, mut resolver) = (bed.path().join("root"), Resolver::new());
        fs::create_dir_all(&root).expect("a directory");
        for (top, expected) in
            [(root.clone(), Resolved::Unsure(Errno::NAMETOOLONG)), (bed.path().to_owned(), nowhere())]
        {
            let mut dir = rustix::fs::open(&top, PATH, Mode::empty()).expect("a directory");
            let name = "n".repeat(250);
            for _ in 0..40 {
                rustix::fs::mkdirat(&dir, &name, Mode::RWXU).expect("a directory");
                dir = rustix::fs::openat(&dir, &name, DIR, Mode::empty()).expect("a directory");
            }
            let (kind, key) = sys::handle_of(dir.as_fd()).expect("a handle");
            assert_eq!(resolve(&mut resolver, &root, &Known { kind, key }), expected, "{}", top.display());
        }
    }

    #[test]
    fn what_is_too_deep_for_a_path_is_looked_for_in_few_steps() {
        for (length, depths) in [(1, vec![2100, 2500, 4000, 30_000, 200_000]), (250, vec![17, 20, 33, 34, 400])] {
            let name = format!("/{}", "n".repeat(length));
            for depth in depths {
                let path = name.repeat(depth).into_bytes();
                let above = |levels: usize| &path[..name.len() * depth.saturating_sub(levels)];
                for at in [depth, 2000, 40, 16, 10, 3, 1].into_iter().filter(|at| *at <= depth) {
                    for (end, expected) in [("", true), ("/elsewhere", false)] {
                        let place = [&path[..name.len() * at], end.as_bytes()].concat();
                        if place.len() >= 4096 {
                            continue;
                        }
                        let mut looks = 0;
                        let within = is_within_upwards(&place, |levels| {
                            looks += 1;
                            Ok(Some(above(levels).to_vec()).filter(|path| path.len() < 4096))
                        });
                        // What is deeper than anything that is looked at may be within.
                        let expected = expected || depth > HIGHEST + 4096 / name.len();
                        assert_eq!(within, Ok(expected), "{depth} names of {length}, the place at {at}");
                        assert!(looks < 25, "{looks} looks from {depth}");
                    }
                }
            }
        }
        let error = is_within_upwards(b"/", |_| Err(Errno::ACCESS));
        assert_eq!(error, Err(Errno::ACCESS));
    }

    #[test]
    fn so_many_levels_up() {
        let bed = tempfile::tempdir().expect("a directory");
        let number = |dir: &OwnedFd| rustix::fs::fstat(dir).expect("its attributes").st_ino;
        let mut dir = rustix::fs::open(bed.path(), PATH, Mode::empty()).expect("a directory");
        let mut numbers = vec![number(&dir)];
        for _ in 0..600 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).expect("a directory");
            dir = rustix::fs::openat(&dir, "d", DIR, Mode::empty()).expect("a directory");
            numbers.push(number(&dir));
        }
        for levels in [0, 1, 255, 256, 257, 512, 600] {
            let up = above(dir.as_fd(), levels).expect("a directory");
            assert_eq!(number(&up), numbers[600 - levels], "{levels}");
        }
        let root = above(dir.as_fd(), 5000).expect("a directory");
        assert_eq!(name_of(root.as_fd()), Ok(b"/".to_vec()));
    }

    #[test]
    fn a_directory_that_is_being_deleted_is_never_unsure() {
        let Some(bed) = bed() else { return };
        let mut resolver = Resolver::new();
        let (sender, handles) = std::sync::mpsc::channel();
        let path = bed.path().to_owned();
        let deleting = thread::spawn(move || {
            for at in 0..2000 {
                let dir = path.join(format!("d{at}"));
                fs::create_dir(&dir).expect("a directory");
                let _ = sender.send(known(&dir));
                fs::remove_dir(&dir).expect("a directory to go");
            }
        });
        for known in handles {
            let resolved = resolve(&mut resolver, bed.path(), &known);
            assert!(matches!(resolved, Resolved::At(_)), "{resolved:?}");
        }
        deleting.join().expect("all deleted");
    }

    #[test]
    fn what_is_missed_while_the_root_is_away_is_remembered() {
        let Some(bed) = bed() else { return };
        let (root, mut resolver) = (bed.path().join("root"), Resolver::new());
        fs::create_dir_all(root.join("a")).expect("a tree");
        let inner = known(&root.join("a"));
        fs::rename(&root, bed.path().join("away")).expect("a rename");
        assert_eq!(resolve(&mut resolver, &root, &inner), nowhere());
        assert!(resolver.take_missed() && !resolver.take_missed());
        fs::rename(bed.path().join("away"), &root).expect("a rename");
        assert_eq!(resolve(&mut resolver, &root, &inner), at(&root.join("a")), "not kept as outside");
    }

    #[test]
    fn a_handle_of_nothing_and_one_that_is_too_long() {
        let Some(bed) = bed() else { return };
        let mut resolver = Resolver::new();
        let Known { kind, key } = known(bed.path());
        let long = Known { kind, key: vec![1; sys::MAX_HANDLE + 1] };
        assert_eq!(resolve(&mut resolver, bed.path(), &long), Resolved::Unsure(Errno::INVAL));
        let other = Known { kind, key: key.iter().map(|byte| byte ^ 0x55).collect() };
        assert_eq!(resolve(&mut resolver, bed.path(), &other), nowhere());
    }
}
