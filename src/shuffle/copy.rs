//! One file after the other: data by reflink, by copy_file_range(2) or by hand, holes as holes; then its attributes.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags, fgetxattr, flistxattr,
    fremovexattr, fsetxattr,
};
use rustix::io::Errno;

use super::Lost;
use super::inventory::{Item, What, changed};
use crate::source::{File, Source, Stat};

/// How much is copied before progress is told, in bytes.
const PIECE: usize = 8 << 20;
/// The buffer where the kernel does not copy by itself, in bytes.
const BUFFER: usize = 256 << 10;
/// The kernel's limits for one value and for a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_BYTES: usize = 64 << 10;
/// The access lists of files and directories, as extended attributes; see acl(5).
const ACCESS_LISTS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];

/// Copies a regular file to a new name; once more if it changes meanwhile.
///
/// # Errors
/// Those of both file systems; of the kind `Other` if the file does not come to rest.
pub(super) fn file(
    source: &dyn Source,
    original: &File,
    item: &Item,
    (to, name): (&OwnedFd, &CStr),
    lost: &Lost,
    copied: &AtomicU64,
) -> io::Result<()> {
    let mut before = source.stat_file(original)?;
    if !before.is_file() || (before.dev, before.ino) != (item.stat.dev, item.stat.ino) {
        return Err(changed());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    for again in [true, false] {
        data(original, &copy, before.size, copied)?;
        let after = source.stat_file(original)?;
        let version = |stat: &Stat| (stat.size, stat.mtime, stat.ctime);
        if version(&before) == version(&after) {
            break;
        }
        if !again {
            return Err(io::Error::other("changed while it was copied, twice; try again when it is at rest"));
        }
        rustix::fs::ftruncate(&copy, 0)?;
        before = after;
    }
    attributes(original.local().ok(), copy.as_fd(), &before, lost)
}

/// Copies what is in a file; what is told as copied is its whole size in the end.
fn data(from: &File, to: &OwnedFd, size: u64, copied: &AtomicU64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    let File::Local(from) = from else {
        by_hand(from, to, 0, size, copied)?;
        return Ok(rustix::fs::ftruncate(to, size)?);
    };
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        copied.fetch_add(size, Ordering::Relaxed);
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin.min(size),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => size,
            // A file system that does not tell.
            Err(_) => at,
        };
        let end = match rustix::fs::seek(from, SeekFrom::Hole(begin)) {
            Ok(end) if begin < size => end.min(size),
            _ => size,
        };
        copied.fetch_add(begin - at, Ordering::Relaxed);
        if begin < end && !piece(from, to, begin, end, copied)? {
            break;
        }
        at = end.max(begin);
    }
    // At the end, so that the size tells whether the data is complete.
    Ok(rustix::fs::ftruncate(to, size)?)
}

/// Copies from `begin` to `end`; false if the file ends before.
fn piece(from: &OwnedFd, to: &OwnedFd, begin: u64, end: u64, copied: &AtomicU64) -> io::Result<bool> {
    let mut at = begin;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let (mut read, mut written) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
            Ok(0) => break,
            Ok(done) => {
                at += done as u64;
                copied.fetch_add(done as u64, Ordering::Relaxed);
            }
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(error.into()),
            // Between file systems, or from one that cannot.
            Err(_) => break,
        }
    }
    by_hand(from, to, at, end, copied)
}

/// Copies from `at` to `end` through a buffer; false if the file ends before.
fn by_hand(from: &impl ReadAt, to: &OwnedFd, mut at: u64, end: u64, copied: &AtomicU64) -> io::Result<bool> {
    let mut buffer = vec![0; if at < end { BUFFER } else { 0 }];
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let read = match from.read_at(&mut buffer[..length], at) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) => return Err(error),
        };
        write_all(to, &buffer[..read], at)?;
        at += read as u64;
        copied.fetch_add(read as u64, Ordering::Relaxed);
    }
    Ok(true)
}

/// What is read from any place.
trait ReadAt {
    /// Reads some bytes; none at the end alone.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for OwnedFd {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pread(self, &mut *into, offset))?)
    }
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_full(into, offset)
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(to, bytes, at) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes a link, FIFO, socket or device, with owner and times.
///
/// # Errors
/// Those of the file system.
pub(super) fn other(item: &Item, to: &OwnedFd, name: &CStr, lost: &Lost) -> io::Result<()> {
    let stat = &item.stat;
    match &item.what {
        What::Link(text) => {
            let text = CString::new(text.as_slice()).unwrap_or_default();
            rustix::fs::symlinkat(text.as_c_str(), to, name)?;
        }
        What::Special => {
            let kind = FileType::from_raw_mode(stat.mode);
            let device = rustix::fs::makedev(stat.rdev.0, stat.rdev.1);
            rustix::fs::mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, device)?;
        }
        What::File { .. } => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
    let (uid, gid) = owner(stat);
    lost.unless(rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW), "owners")?;
    if !stat.is_link() {
        let mode = Mode::from_raw_mode(stat.mode & 0o7777);
        lost.unless(rustix::fs::chmodat(to, name, mode, AtFlags::empty()), "modes")?;
    }
    Ok(rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives a file or directory the owner, extended attributes, access lists, mode and times of another, the times last.
///
/// # Errors
/// Those of both file systems; what the one copied to cannot hold is noted as lost instead.
pub(super) fn attributes(from: Option<BorrowedFd<'_>>, to: BorrowedFd<'_>, stat: &Stat, lost: &Lost) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    // A change of owner takes set-id bits and capabilities away, so that it comes first.
    lost.unless(rustix::fs::fchown(to, uid, gid), "owners")?;
    lost.unless(rustix::fs::fchmod(to, Mode::from_raw_mode(stat.mode & 0o7777)), "modes")?;
    let names = from.map_or(Ok(Vec::new()), xattr_names)?;
    for (from, name) in from.iter().flat_map(|from| names.iter().map(move |name| (from, name))) {
        let mut value = vec![0; MAX_BYTES];
        let read = match fgetxattr(from, name.as_c_str(), &mut value[..]) {
            Ok(read) => read,
            // Gone since it was listed, or not for us.
            Err(Errno::NODATA | Errno::ACCESS | Errno::PERM) => continue,
            Err(error) => return Err(error.into()),
        };
        let set = fsetxattr(to, name.as_c_str(), &value[..read], XattrFlags::empty());
        lost.unless(set, &crate::entry::printable(name.to_bytes()))?;
    }
    for list in ACCESS_LISTS.into_iter().filter(|list| !names.iter().any(|name| name.as_c_str() == *list)) {
        // Inherited from the directory that it is in. Where there is none, or none can be, that is fine.
        let _ = fremovexattr(to, list);
    }
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

/// The extended attributes that there are, but for those that root alone can set, if one is not.
///
/// # Errors
/// Those of the file system; one that has none at all has none.
pub(super) fn xattr_names(of: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = vec![0u8; MAX_BYTES];
    let read = match flistxattr(of, &mut names[..]) {
        Ok(read) => read,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        Err(error) => return Err(error.into()),
    };
    names.truncate(read);
    let root = rustix::process::geteuid().is_root();
    let ours = |name: &&[u8]| !name.is_empty() && (root || !name.starts_with(b"security."));
    let names = names.split(|byte| *byte == 0).filter(ours);
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

/// The value of an extended attribute; `None` if there is none.
pub(super) fn xattr(of: BorrowedFd<'_>, name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0; MAX_BYTES];
    let read = fgetxattr(of, name, &mut value[..]).ok()?;
    value.truncate(read);
    Some(value)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |(seconds, nanoseconds): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time(stat.atime), last_modification: time(stat.mtime) }
}

/// The owner and group that a copy is to have; only root gives files away.
fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    let root = rustix::process::geteuid().is_root();
    let group = Gid::from_raw(stat.gid);
    let may =
        root || rustix::process::getegid() == group || rustix::process::getgroups().is_ok_and(|g| g.contains(&group));
    (root.then(|| Uid::from_raw(stat.uid)), may.then_some(group))
}
