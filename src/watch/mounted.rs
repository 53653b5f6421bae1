//! What is mounted at, above and below the root, and what has changed since it was last looked at.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::trust::never_watched;
use super::{Change, is_within};
use crate::mounts::{MountEntry, is_pseudo, parse};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The mounts that matter to a root, as they were when they were last looked at.
#[derive(Debug)]
pub(super) struct Mounted {
    /// Open all the time: the kernel tells of changes through it.
    file: File,
    root: Box<[u8]>,
    known: Vec<MountEntry>,
}

impl Mounted {
    /// Looks for the first time.
    pub(super) fn new(root: &[u8]) -> io::Result<Self> {
        let mut mounted = Self { file: File::open(MOUNTINFO)?, root: root.into(), known: Vec::new() };
        mounted.known = mounted.read()?;
        Ok(mounted)
    }

    fn read(&mut self) -> io::Result<Vec<MountEntry>> {
        let mut text = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut text)?;
        let mut mounts = parse(&text);
        mounts.retain(|mount| {
            let at = mount.mountpoint.as_os_str().as_bytes();
            is_within(&self.root, at) || is_within(at, &self.root)
        });
        Ok(mounts)
    }

    /// True if something was mounted below the root.
    pub(super) fn is_any_below(&self) -> bool {
        self.known.iter().any(|mount| !is_within(mount.mountpoint.as_os_str().as_bytes(), &self.root))
    }

    /// Looks again: what has come and what has gone.
    pub(super) fn look(&mut self) -> Vec<Change> {
        match self.read() {
            Ok(mounts) => {
                let changes = changes(&self.root, &self.known, &mounts);
                self.known = mounts;
                changes
            }
            Err(_) => vec![Change::Root, Change::Lost],
        }
    }
}

impl AsFd for Mounted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What a change from the first list to the second means.
fn changes(root: &[u8], before: &[MountEntry], now: &[MountEntry]) -> Vec<Change> {
    let only_in = |these: &[MountEntry], those: &[MountEntry]| -> Vec<MountEntry> {
        these.iter().filter(|this| those.iter().all(|that| !is_same(this, that))).cloned().collect()
    };
    let mut changes = Vec::new();
    for mount in only_in(before, now).into_iter().chain(only_in(now, before)) {
        let at = mount.mountpoint.as_os_str().as_bytes();
        let change = match entry_at(at) {
            _ if is_within(at, root) => Change::Root,
            // No watch was or is on it; that the directory has changed suffices.
            Some(entry) if is_pseudo(&mount.fstype) || never_watched(mount.fstype.as_bytes()) => entry,
            _ => Change::Lost,
        };
        if !changes.contains(&change) {
            changes.push(change);
        }
    }
    changes
}

/// True if it is the same mount at the same place; options may differ.
fn is_same(this: &MountEntry, that: &MountEntry) -> bool {
    let key = |mount: &MountEntry| (mount.id, mount.major, mount.minor);
    key(this) == key(that) && this.mountpoint == that.mountpoint && this.root == that.root
}

fn entry_at(path: &[u8]) -> Option<Change> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let (dir, name) = (path.parent()?, path.file_name()?);
    Some(Change::Entry { dir: dir.as_os_str().as_bytes().into(), name: Some(name.as_bytes().into()), is_dir: true })
}

/// All mounts, now.
pub(super) fn all() -> Vec<MountEntry> {
    std::fs::read(MOUNTINFO).map(|text| parse(&text)).unwrap_or_default()
}

/// The `st_dev` of the files in a mount.
pub(super) fn device_of(mount: &MountEntry) -> u64 {
    rustix::fs::makedev(mount.major, mount.minor)
}

/// The device of the mount that shows `path`, and the last place on the way there at which one can get into it: its
/// mount point, or the root if that is further down.
///
/// btrfs has files of one mount on several devices, none of them the mount's.
pub(super) fn place_of(mounts: &[MountEntry], root: &[u8], path: &[u8]) -> (Option<u64>, Arc<[u8]>) {
    let point = |mount: &MountEntry| mount.mountpoint.as_os_str().as_bytes().to_vec();
    let on_the_way = mounts.iter().filter(|mount| is_within(mount.mountpoint.as_os_str().as_bytes(), path));
    // Of several at one place the last covers the others.
    let shown = on_the_way.max_by_key(|mount| mount.mountpoint.as_os_str().len());
    let place = shown.map(point).filter(|point| is_within(root, point)).map_or(root.into(), Into::into);
    (shown.map(device_of), place)
}

/// Where a file system is seen: `place`, where it was found, and the mount points of its mounts below the root.
pub(super) fn places(mounts: &[MountEntry], root: &[u8], device: Option<u64>, place: Arc<[u8]>) -> Vec<Arc<[u8]>> {
    let here = mounts.iter().filter(|mount| Some(device_of(mount)) == device);
    let points = here.map(|mount| mount.mountpoint.as_os_str().as_bytes());
    let mut places: Vec<Arc<[u8]>> =
        points.filter(|at| *at != root && is_within(root, at) && **at != *place).map(Into::into).collect();
    places.sort_unstable();
    places.dedup();
    places.insert(0, place);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(text: &str) -> Vec<MountEntry> {
        let lines = text.lines().map(|line| {
            let (id, device, at, fstype) = match line.split(' ').collect::<Vec<_>>()[..] {
                [id, device, at, fstype] => (id, device, at, fstype),
                _ => panic!("odd: {line}"),
            };
            format!("{id} 1 {device} / {at} rw - {fstype} none rw\n")
        });
        parse(lines.collect::<String>().as_bytes())
    }

    const BASE: &str =
        "1 8:1 / ext4\n2 8:2 /r/src ext4\n3 8:3 /r/src/a ext4\n4 0:9 /r/src/v fuse.veinfs\n5 8:1 /r/src/b/c ext4";

    #[test]
    fn what_comes_and_goes() {
        let entry = |dir: &str, name: &str| Change::Entry {
            dir: dir.as_bytes().into(),
            name: Some(name.as_bytes().into()),
            is_dir: true,
        };
        let cases: &[(&str, &[Change])] = &[
            ("", &[]),
            ("6 8:5 /r ext4", &[Change::Root]),
            ("6 8:5 /r/src ext4", &[Change::Root]),
            ("6 0:5 / nfs", &[Change::Root]),
            ("6 8:5 /r/src/a/b ext4", &[Change::Lost]),
            ("6 8:5 /r/src/a ext4\n7 8:5 /r/src/c ext4", &[Change::Lost]),
            ("6 0:5 /r/src/a/m fuse.veinfs", &[entry("/r/src/a", "m")]),
            ("6 0:5 /r/src/n nfs4", &[entry("/r/src", "n")]),
            ("6 0:5 /r/src/n proc", &[entry("/r/src", "n")]),
            ("6 0:5 /r/src/n fuseblk", &[Change::Lost]),
            ("6 8:5 /r/src-2 ext4\n7 8:5 /q ext4", &[]),
        ];
        let mut known = mounts(BASE);
        known.retain(|mount| mount.id != 5);
        for (more, expected) in cases {
            let mut now = known.clone();
            // What is beside the root has been left out before.
            now.extend(mounts(more).into_iter().filter(|mount| {
                let at = mount.mountpoint.as_os_str().as_bytes();
                is_within(b"/r/src", at) || is_within(at, b"/r/src")
            }));
            assert_eq!(changes(b"/r/src", &known, &now), *expected, "comes: {more}");
            assert_eq!(changes(b"/r/src", &now, &known), *expected, "goes: {more}");
        }
    }

    #[test]
    fn places_of_file_systems() {
        let mounts = mounts(BASE);
        for (root, path, minor, expected) in [
            ("/r/src", "/r/src", 2, &["/r/src"][..]),
            ("/r/src", "/r/src/x", 2, &["/r/src"]),
            ("/r/src", "/r/src/a", 3, &["/r/src/a"]),
            ("/r/src", "/r/src/a/x/y", 3, &["/r/src/a"]),
            ("/r/src", "/r/src/ab", 2, &["/r/src"]),
            ("/r/src", "/r/src/b/c", 1, &["/r/src/b/c"]),
            ("/r/src/x", "/r/src/x/y", 2, &["/r/src/x"]),
            ("/r", "/r/x", 1, &["/r", "/r/src/b/c"]),
            ("/", "/q", 1, &["/", "/r/src/b/c"]),
            ("/", "/r/src/b/c/d", 1, &["/r/src/b/c"]),
        ] {
            let (device, place) = place_of(&mounts, root.as_bytes(), path.as_bytes());
            assert_eq!(device, Some(rustix::fs::makedev(8, minor)), "{root} {path}");
            let places = places(&mounts, root.as_bytes(), device, place);
            let places: Vec<_> = places.iter().map(|place| std::str::from_utf8(place).expect("text")).collect();
            assert_eq!(places, expected, "{root} {path}");
        }
        assert_eq!(place_of(&[], b"/r", b"/r/x"), (None, b"/r".as_slice().into()));
    }

    #[test]
    fn the_mounts_of_this_machine() {
        let mut mounted = Mounted::new(b"/").expect("mountinfo");
        assert!(!mounted.known.is_empty());
        // Other tests mount things meanwhile; what is not told twice is well.
        mounted.look();
        assert!(!all().is_empty());
    }
}
