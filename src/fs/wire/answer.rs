//! The bodies of answers, each appended to a buffer that begins with room for a header.

use std::time::Duration;

use super::super::attr::Attr;
use super::HEADER_BYTES;

/// An entry of a directory, with how long it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its attributes; the number in them is the inode's.
    pub(crate) attr: Attr,
    /// Differs where a number is used for another thing.
    pub(crate) generation: u64,
    /// How long the name stands for it.
    pub(crate) keep: Duration,
    /// How long the attributes are what they are.
    pub(crate) attr_keep: Duration,
}

/// An answer that is put together.
#[derive(Debug, Default)]
pub(crate) struct Answer(Vec<u8>);

/// `FOPEN_*` in `struct fuse_open_out`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenedAs {
    /// The handle.
    pub(crate) handle: u64,
    /// Flags.
    pub(crate) flags: u32,
    /// The number of a backing file.
    pub(crate) backing: Option<u32>,
}

impl Answer {
    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
        self.0.resize(HEADER_BYTES, 0);
    }

    /// All of it, the header's room included.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// What is behind the header.
    pub(crate) fn body(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }

    /// Bytes as they are.
    pub(crate) fn data(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes that `fill` puts into room for `size`, as many as it says.
    pub(crate) fn filled<E>(&mut self, size: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        let begin = self.0.len();
        self.0.resize(begin + size, 0);
        let filled = fill(&mut self.0[begin..])?;
        self.0.truncate(begin + filled);
        Ok(())
    }

    fn u32(&mut self, number: u32) {
        self.data(&number.to_ne_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.data(&number.to_ne_bytes());
    }

    /// `struct fuse_attr`, 88 bytes.
    fn attr(&mut self, attr: &Attr) {
        self.u64(attr.ino);
        self.u64(attr.size);
        self.u64(attr.blocks);
        let times = [attr.atime, attr.mtime, attr.ctime];
        times.iter().for_each(|(seconds, _)| self.u64(seconds.cast_unsigned()));
        times.iter().for_each(|(_, fraction)| self.u32(*fraction));
        let (major, minor) = attr.rdev;
        // As new_encode_dev() has it (`linux/kdev_t.h`).
        let rdev = (minor & 0xff) | major << 8 | (minor & !0xff) << 12;
        [attr.mode, attr.nlink, attr.uid, attr.gid, rdev, attr.blksize, 0].iter().for_each(|number| self.u32(*number));
    }

    /// `struct fuse_attr_out`.
    pub(crate) fn attributes(&mut self, attr: &Attr, keep: Duration) {
        self.u64(keep.as_secs());
        self.u32(keep.subsec_nanos());
        self.u32(0);
        self.attr(attr);
    }

    /// `struct fuse_statx_out`.
    pub(crate) fn statx(&mut self, attr: &Attr, keep: Duration) {
        self.u64(keep.as_secs());
        self.u32(keep.subsec_nanos());
        self.u32(0);
        self.data(&[0; 16]);
        let birth = attr.btime != (0, 0);
        self.u32(libc::STATX_BASIC_STATS | if birth { libc::STATX_BTIME } else { 0 });
        self.u32(attr.blksize);
        self.u64(0);
        [attr.nlink, attr.uid, attr.gid].iter().for_each(|number| self.u32(*number));
        self.data(&(attr.mode as u16).to_ne_bytes());
        self.data(&[0; 2]);
        [attr.ino, attr.size, attr.blocks, 0].iter().for_each(|number| self.u64(*number));
        for (seconds, fraction) in [attr.atime, attr.btime, attr.ctime, attr.mtime] {
            self.u64(seconds.cast_unsigned());
            self.u32(fraction);
            self.u32(0);
        }
        [attr.rdev.0, attr.rdev.1, 0, 0].iter().for_each(|number| self.u32(*number));
        self.data(&[0; 14 * 8]);
    }

    /// `struct fuse_entry_out`, 128 bytes.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.u64(entry.attr.ino);
        self.u64(entry.generation);
        self.u64(entry.keep.as_secs());
        self.u64(entry.attr_keep.as_secs());
        self.u32(entry.keep.subsec_nanos());
        self.u32(entry.attr_keep.subsec_nanos());
        self.attr(&entry.attr);
    }

    /// `struct fuse_dirent`; false, and nothing, if it does not fit into `limit`. `kind` is a file's mode.
    pub(crate) fn name(&mut self, limit: usize, ino: u64, cookie: u64, name: &[u8], kind: u32) -> bool {
        let fits = self.body().len() + (DIRENT_BYTES + name.len()).next_multiple_of(8) <= limit;
        if fits {
            self.dirent(ino, cookie, name, kind);
        }
        fits
    }

    /// `struct fuse_direntplus`; without an entry the kernel learns of the name alone.
    pub(crate) fn name_plus(
        &mut self,
        limit: usize,
        (ino, cookie, name, kind): (u64, u64, &[u8], u32),
        entry: Option<&Entry>,
    ) -> bool {
        let fits = self.has_room(limit, name);
        if fits {
            match entry {
                Some(entry) => self.entry(entry),
                None => self.data(&[0; ENTRY_BYTES]),
            }
            self.dirent(ino, cookie, name, kind);
        }
        fits
    }

    /// True if a name with attributes fits into `limit`.
    pub(crate) fn has_room(&self, limit: usize, name: &[u8]) -> bool {
        self.body().len() + Self::room_of(name) <= limit
    }

    /// How many bytes a name with attributes needs.
    pub(crate) fn room_of(name: &[u8]) -> usize {
        (ENTRY_BYTES + DIRENT_BYTES + name.len()).next_multiple_of(8)
    }

    fn dirent(&mut self, ino: u64, cookie: u64, name: &[u8], kind: u32) {
        self.u64(ino);
        self.u64(cookie);
        self.u32(u32::try_from(name.len()).unwrap_or(0));
        self.u32((kind & libc::S_IFMT) >> 12);
        self.data(name);
        let padded = self.body().len().next_multiple_of(8);
        self.0.resize(HEADER_BYTES + padded, 0);
    }

    /// `struct fuse_open_out`.
    pub(crate) fn opened(&mut self, opened: OpenedAs) {
        self.u64(opened.handle);
        self.u32(opened.flags);
        self.u32(opened.backing.unwrap_or(0));
    }

    /// `struct fuse_statfs_out`.
    pub(crate) fn statfs(&mut self, stat: &rustix::fs::StatVfs) {
        [stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree].iter().for_each(|n| self.u64(*n));
        let small = |number: u64, other| u32::try_from(number).unwrap_or(other);
        self.u32(small(stat.f_bsize, 4096));
        self.u32(small(stat.f_namemax, 255));
        self.u32(small(stat.f_frsize, 4096));
        self.data(&[0; 28]);
    }

    /// `struct fuse_getxattr_out`: how long it would be.
    pub(crate) fn length(&mut self, bytes: usize) {
        self.u32(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.u32(0);
    }

    /// `struct fuse_lseek_out`.
    pub(crate) fn offset(&mut self, offset: u64) {
        self.u64(offset);
    }
}

const ENTRY_BYTES: usize = 128;
const DIRENT_BYTES: usize = 24;

/// The inodes that an answer to readdirplus tells the kernel of, and their names.
pub(crate) fn told_of(mut body: &[u8]) -> Vec<(u64, &[u8])> {
    let mut told = Vec::new();
    let u64_at = |body: &[u8], at: usize| Some(u64::from_ne_bytes(*body.get(at..)?.first_chunk()?));
    let u32_at = |body: &[u8], at: usize| Some(u32::from_ne_bytes(*body.get(at..)?.first_chunk()?));
    while let (Some(ino), Some(length)) = (u64_at(body, 0), u32_at(body, ENTRY_BYTES + 16)) {
        let begin = ENTRY_BYTES + DIRENT_BYTES;
        let name = body.get(begin..begin + length as usize).unwrap_or_default();
        told.extend((ino != 0).then_some((ino, name)));
        body = body.get((begin + length as usize).next_multiple_of(8)..).unwrap_or_default();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_attr() -> Attr {
        Attr {
            ino: 9,
            size: 100,
            blocks: 8,
            atime: (1, 2),
            mtime: (-3, 4),
            ctime: (5, 6),
            btime: (7, 8),
            mode: libc::S_IFREG | 0o644,
            nlink: 1,
            uid: 1000,
            gid: 100,
            rdev: (0x123, 0x1234),
            blksize: 4096,
        }
    }

    fn some_entry() -> Entry {
        Entry { attr: some_attr(), generation: 3, keep: Duration::new(10, 5), attr_keep: Duration::from_millis(1500) }
    }

    #[test]
    fn answers_are_as_long_as_the_kernel_wants_them() {
        let length = |make: &dyn Fn(&mut Answer)| {
            let mut answer = Answer::default();
            answer.clear();
            make(&mut answer);
            answer.body().len()
        };
        assert_eq!(length(&|answer| answer.entry(&some_entry())), 128);
        assert_eq!(length(&|answer| answer.attributes(&some_attr(), Duration::ZERO)), 104);
        assert_eq!(length(&|answer| answer.statx(&some_attr(), Duration::ZERO)), 288);
        assert_eq!(length(&|answer| answer.opened(OpenedAs::default())), 16);
        let stat = rustix::fs::statvfs("/").expect("a root");
        assert_eq!(length(&|answer| answer.statfs(&stat)), 80);
        assert_eq!(length(&|answer| answer.length(7)), 8);
    }

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        let mut answer = Answer::default();
        answer.clear();
        answer.attributes(&some_attr(), Duration::ZERO);
        let rdev = u32::from_ne_bytes(answer.body()[16 + 76..16 + 80].try_into().expect("four bytes"));
        assert_eq!(u64::from(rdev), 0x0120_0000 | 0x0001_2334);
    }

    #[test]
    fn a_listing_says_which_inodes_it_tells_of() {
        let mut answer = Answer::default();
        answer.clear();
        assert!(answer.name_plus(4096, (1, 1, b".", libc::S_IFDIR), None));
        assert!(answer.name_plus(4096, (9, 2, b"data.csv", libc::S_IFREG), Some(&some_entry())));
        assert_eq!(answer.body().len() % 8, 0);
        assert!(!answer.name_plus(answer.body().len() + 100, (9, 3, b"more", libc::S_IFREG), Some(&some_entry())));
        assert_eq!(told_of(answer.body()), [(9, &b"data.csv"[..])]);
    }
}
