//! A directory of this machine's file systems, network mounts included.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::{File, Handle, ListBuffer, RawKind, Source, Stat};
use crate::automaton::{CONTAINS_BYTES, Test};
use crate::entry::Kind;

/// Flags for every directory: read, never write, never through a link.
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A local tree.
#[derive(Debug)]
pub struct LocalSource {
    root: PathBuf,
}

impl LocalSource {
    /// The tree at an absolute path without links.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Source for LocalSource {
    fn open_root(&self) -> io::Result<Handle> {
        Ok(Handle::Local(rustix::fs::open(&self.root, DIR.difference(OFlags::NOFOLLOW), Mode::empty())?))
    }

    fn open_dir(&self, base: &Handle, tail: &CStr) -> io::Result<Handle> {
        let base = base.local()?;
        if tail.to_bytes().contains(&b'/') {
            // Several components: none of them may have become a link meanwhile.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(base, tail, DIR, Mode::empty(), resolve) {
                // Older kernels and some sandboxes have no openat2, and no path may pass 4 KiB: one component at a time
                // is as safe.
                Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => {}
                opened => return Ok(Handle::Local(opened?)),
            }
            let mut fd: Option<OwnedFd> = None;
            for name in tail.to_bytes().split(|byte| *byte == b'/') {
                let base = fd.as_ref().map_or(base, |fd| fd.as_fd());
                fd = Some(rustix::fs::openat(base, name, DIR, Mode::empty())?);
            }
            return fd.map(Handle::Local).ok_or_else(|| Errno::NOENT.into());
        }
        Ok(Handle::Local(rustix::fs::openat(base, tail, DIR, Mode::empty())?))
    }

    fn open_again(&self, dir: &Handle) -> io::Result<Handle> {
        let dir = dir.local()?;
        match rustix::fs::openat(dir, c".", DIR, Mode::empty()) {
            Err(Errno::ACCESS) => {
                let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
                Ok(Handle::Local(rustix::fs::open(link, DIR.difference(OFlags::NOFOLLOW), Mode::empty())?))
            }
            opened => Ok(Handle::Local(opened?)),
        }
    }

    fn open_link(&self, dir: &Handle, name: &CStr) -> io::Result<Handle> {
        Ok(Handle::Local(rustix::fs::openat(dir.local()?, name, DIR.difference(OFlags::NOFOLLOW), Mode::empty())?))
    }

    fn list(&self, dir: &Handle, buffer: &mut ListBuffer, each: &mut dyn FnMut(&CStr, RawKind, u64)) -> io::Result<()> {
        let dir = dir.local()?;
        let mut entries = RawDir::new(dir, &mut buffer.0);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::RegularFile => RawKind::File,
                FileType::Directory => RawKind::Dir,
                FileType::Symlink => RawKind::Link,
                FileType::Unknown => match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                        FileType::RegularFile => RawKind::File,
                        FileType::Directory => RawKind::Dir,
                        FileType::Symlink => RawKind::Link,
                        _ => RawKind::Special,
                    },
                    // Removed since it was listed.
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                _ => RawKind::Special,
            };
            each(name, kind, entry.ino());
        }
        Ok(())
    }

    fn link_kind(&self, dir: &Handle, name: &CStr) -> Kind {
        let Ok(dir) = dir.local() else { return Kind::LinkFile };
        match rustix::fs::statat(dir, name, AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Kind::LinkDir,
            _ => Kind::LinkFile,
        }
    }

    fn path_of(&self, dir: &Handle) -> io::Result<Vec<u8>> {
        let link = format!("/proc/self/fd/{}", dir.local()?.as_raw_fd());
        Ok(rustix::fs::readlink(link, Vec::new())?.into_bytes())
    }

    fn identity(&self, dir: &Handle) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(dir.local()?)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    fn test(&self, dir: &Handle, name: &CStr, test: &Test) -> io::Result<bool> {
        let stat = match rustix::fs::statat(dir.local()?, name, AtFlags::empty()) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // Opening anything else could block or have effects.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        match test {
            Test::Size(bound) => Ok(bound.holds(size)),
            Test::Magic(magic) => {
                let end = magic.offset.saturating_add(magic.bytes.len() as u64);
                if size < end && size > 0 {
                    return Ok(false);
                }
                let mut bytes = vec![0; magic.bytes.len()];
                let read = read_at(&open(dir, name, true)?, &mut bytes, magic.offset)?;
                Ok(bytes[..read] == magic.bytes)
            }
            Test::Contains(text) => {
                let fd = open(dir, name, true)?;
                let mut bytes = vec![0; usize::try_from(CONTAINS_BYTES.min(size.max(4096))).unwrap_or(usize::MAX)];
                let read = read_at(&fd, &mut bytes, 0)?;
                Ok(memchr::memmem::find(&bytes[..read], text).is_some())
            }
        }
    }

    fn stat_beneath(&self, dir: &Handle, path: &CStr) -> io::Result<Stat> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(dir.local()?, path, flags, Mode::empty(), resolve) {
            Ok(fd) => statx(fd.as_fd(), c"", AtFlags::EMPTY_PATH),
            // As in open_dir.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => self.stat_dir(&self.open_dir(dir, path)?),
            Err(error) => Err(error.into()),
        }
    }

    fn stat(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<Stat> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        statx(dir.local()?, name, flags | AtFlags::NO_AUTOMOUNT)
    }

    fn stat_dir(&self, dir: &Handle) -> io::Result<Stat> {
        statx(dir.local()?, c"", AtFlags::EMPTY_PATH)
    }

    fn read_link(&self, dir: &Handle, name: &CStr) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(dir.local()?, name, Vec::new())?.into_bytes())
    }

    fn open_file(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<File> {
        open(dir, name, follow).map(File::Local)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        statx(file.local()?, c"", AtFlags::EMPTY_PATH)
    }
}

fn open(dir: &Handle, name: &CStr, follow: bool) -> io::Result<OwnedFd> {
    // NONBLOCK: what has become a FIFO since it was looked at must not hang the reader.
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    Ok(rustix::fs::openat(dir.local()?, name, flags, Mode::empty())?)
}

/// Fills the buffer up to the end of the file, or until something fails; gives how much that is, and what failed.
fn fill(fd: &OwnedFd, into: &mut [u8], offset: u64) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while filled < into.len() {
        match rustix::io::pread(fd, &mut into[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return (filled, Err(error.into())),
        }
    }
    (filled, Ok(()))
}

fn read_at(fd: &OwnedFd, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let (filled, done) = fill(fd, into, offset);
    done.map(|()| filled)
}

/// See [`File::read_full`].
pub(super) fn read_full(fd: &OwnedFd, into: &mut [u8], offset: u64) -> io::Result<usize> {
    match fill(fd, into, offset) {
        (0, Err(error)) => Err(error),
        (filled, _) => Ok(filled),
    }
}

fn statx(dir: std::os::fd::BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> io::Result<Stat> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(dir, name, flags, mask)?;
    let time = |at: rustix::fs::StatxTimestamp| (at.tv_sec, at.tv_nsec);
    let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Ok(Stat {
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        mode: u32::from(stat.stx_mode),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        blksize: stat.stx_blksize,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        btime: if has_birth { time(stat.stx_btime) } else { (0, 0) },
    })
}
