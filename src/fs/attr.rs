//! Attributes and error numbers in the kernel's terms.

use std::io;
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo};

use crate::source::Stat;

/// The error number for an error; the only place where one is chosen.
pub(super) fn errno(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(number) => Errno::from_i32(number),
        None => match error.kind() {
            io::ErrorKind::NotFound => Errno::ENOENT,
            io::ErrorKind::PermissionDenied => Errno::EACCES,
            _ => Errno::EIO,
        },
    }
}

fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    let fraction = Duration::from_nanos(u64::from(nanoseconds));
    match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + fraction,
        Err(_) => SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + fraction,
    }
}

/// The type in a mode.
pub(super) fn kind_of(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// The real attributes under our inode number; directories have one link, since what they hold here is our choice.
pub(super) fn file_attr(ino: u64, stat: &Stat) -> FileAttr {
    let kind = kind_of(stat.mode);
    FileAttr {
        ino: INodeNo(ino),
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        crtime: time(stat.btime),
        kind,
        perm: (stat.mode & 0o7777) as u16,
        nlink: if kind == FileType::Directory { 1 } else { stat.nlink },
        uid: stat.uid,
        gid: stat.gid,
        rdev: u32::try_from(rustix::fs::makedev(stat.rdev.0, stat.rdev.1)).unwrap_or(0),
        blksize: stat.blksize,
        flags: 0,
    }
}

/// A folder of the view.
pub(super) fn folder_attr(ino: u64, changed: SystemTime, uid: u32, gid: u32) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: changed,
        mtime: changed,
        ctime: changed,
        crtime: changed,
        kind: FileType::Directory,
        perm: 0o555,
        nlink: 1,
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        assert_eq!(time((-1, 250_000_000)), SystemTime::UNIX_EPOCH - Duration::from_millis(750));
        assert_eq!(time((1, 5)), SystemTime::UNIX_EPOCH + Duration::new(1, 5));
    }
}
