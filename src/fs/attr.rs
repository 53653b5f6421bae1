//! Attributes and error numbers in the kernel's terms.

use std::io;
use std::time::{Duration, SystemTime};

use crate::source::Stat;

/// Attributes of an inode of ours, fields as in [`Stat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    /// Our number.
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) atime: (i64, u32),
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
    pub(crate) btime: (i64, u32),
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: (u32, u32),
    pub(crate) blksize: u32,
}

impl Attr {
    /// Sets the permission bits, 0 to 0o7777.
    pub(super) fn set_perm(&mut self, perm: u32) {
        self.mode = self.mode & libc::S_IFMT | perm;
    }

    /// The permission bits.
    pub(super) fn perm(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Makes it another kind of thing (`S_IFLNK` and so on).
    pub(super) fn set_kind(&mut self, kind: u32) {
        self.mode = kind | self.perm();
    }
}

/// The error number for an error; the only place where one is chosen.
pub(super) fn errno(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        Some(number) => number,
        None if let Some(number) = crate::source::object::fault::errno(error) => number,
        None => match error.kind() {
            io::ErrorKind::NotFound => libc::ENOENT,
            io::ErrorKind::PermissionDenied => libc::EACCES,
            _ => libc::EIO,
        },
    }
}

/// Seconds and nanoseconds since the epoch.
pub(super) fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(before) => (-i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX) - 1, 0),
    }
}

/// How long ago a time is; nothing if it is to come.
pub(super) fn age(time: (i64, u32), now: SystemTime) -> Duration {
    let since = |(seconds, fraction)| u64::try_from(seconds).map_or(Duration::ZERO, |s| Duration::new(s, fraction));
    since(since_epoch(now)).saturating_sub(since(time))
}

/// The real attributes under our inode number; directories have one link, since what they hold here is our choice.
pub(super) fn file_attr(ino: u64, stat: &Stat) -> Attr {
    Attr {
        ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: stat.atime,
        mtime: stat.mtime,
        ctime: stat.ctime,
        btime: stat.btime,
        mode: stat.mode,
        nlink: if stat.is_dir() { 1 } else { stat.nlink },
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        blksize: stat.blksize,
    }
}

/// A folder of the view.
pub(super) fn folder_attr(ino: u64, changed: SystemTime, uid: u32, gid: u32) -> Attr {
    let changed = since_epoch(changed);
    Attr {
        ino,
        size: 0,
        blocks: 0,
        atime: changed,
        mtime: changed,
        ctime: changed,
        btime: changed,
        mode: libc::S_IFDIR | 0o555,
        nlink: 1,
        uid,
        gid,
        rdev: (0, 0),
        blksize: 4096,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_never_negative() {
        let now = SystemTime::UNIX_EPOCH + Duration::new(100, 500);
        assert_eq!(age((90, 0), now), Duration::new(10, 500));
        assert_eq!(age((-5, 0), now), Duration::new(100, 500));
        assert_eq!(age((101, 0), now), Duration::ZERO);
    }
}
