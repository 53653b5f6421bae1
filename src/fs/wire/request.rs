//! Requests, parsed.
//!
//! ```text
//! struct fuse_in_header, 40 bytes: len u32 | opcode u32 | unique u64 | nodeid u64 | uid u32 | gid u32 | pid u32 | - u32
//! ```

/// A request of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// The number that the answer has to bear.
    pub(crate) unique: u64,
    /// The inode that it is about.
    pub(crate) node: u64,
    /// The user that asks.
    pub(crate) uid: u32,
    /// The thread that asks (gettid(2)); 0 for one that is in no process namespace of ours.
    pub(crate) thread: u32,
    /// What is asked.
    pub(crate) call: Call<'a>,
}

/// What is asked; of those that change something only as much as is needed to refuse it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    /// What a name stands for.
    Lookup(&'a [u8]),
    /// How often the kernel forgets an inode that it was told of.
    Forget(u64),
    /// The same of several: numbers and how often.
    ForgetMany(Vec<(u64, u64)>),
    /// Attributes, of an open file if there is a handle.
    Attributes { handle: Option<u64> },
    /// The same, with the time of birth.
    Statx { handle: Option<u64> },
    /// The text of a link.
    ReadLink,
    /// To open a file, with flags as open(2) has them.
    Open { flags: i32 },
    /// Bytes of an open file.
    Read { handle: u64, offset: u64, size: u32 },
    /// A file is closed.
    Release { handle: u64 },
    /// statvfs(3).
    StatFs,
    /// An extended attribute, or its length if `size` is 0.
    GetXattr { name: &'a [u8], size: u32 },
    /// The names of all, or their length.
    ListXattr { size: u32 },
    /// To open a directory.
    OpenDir,
    /// Entries of a directory behind a cookie.
    ReadDir { offset: u64, size: u32 },
    /// The same with attributes.
    ReadDirPlus { offset: u64, size: u32 },
    /// access(2).
    Access { mask: u32 },
    /// lseek(2), of data and holes alone.
    Seek { handle: u64, offset: u64, whence: u32 },
    /// A directory is to be made.
    MakeDir(&'a [u8]),
    /// A symbolic link is to be made.
    MakeLink(&'a [u8]),
    /// A directory is to be removed.
    RemoveDir(&'a [u8]),
    /// Anything else is to be removed.
    Unlink(&'a [u8]),
    /// Anything else is to be changed.
    Change,
    /// The mount ends.
    Destroy,
    /// Nobody waits any more for what was asked under this number.
    Interrupt { unique: u64 },
    /// Done without us, by default.
    Flush,
    /// A directory is closed.
    ReleaseDir,
    /// Anything that is not known here, by its number.
    Unknown(u32),
}

/// Reads numbers and names off the front.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Some(name)
    }
}

impl<'a> Request<'a> {
    /// A request from what was read from the device; `None` if it has not the form.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let (_length, opcode, unique, node) = (rest.u32()?, rest.u32()?, rest.u64()?, rest.u64()?);
        let (uid, _gid, thread, _) = (rest.u32()?, rest.u32()?, rest.u32()?, rest.u32()?);
        Some(Self { unique, node, uid, thread, call: Call::parse(opcode, rest)? })
    }
}

impl<'a> Call<'a> {
    fn parse(opcode: u32, mut rest: Rest<'a>) -> Option<Self> {
        Some(match opcode {
            1 => Call::Lookup(rest.name()?),
            2 => Call::Forget(rest.u64()?),
            42 => {
                let (count, _) = (rest.u32()?, rest.u32()?);
                let each = (0..count).map(|_| Some((rest.u64()?, rest.u64()?)));
                Call::ForgetMany(each.collect::<Option<_>>()?)
            }
            3 => Call::Attributes { handle: handle(&mut rest)? },
            52 => Call::Statx { handle: handle(&mut rest)? },
            5 => Call::ReadLink,
            14 => Call::Open { flags: rest.u32()?.cast_signed() },
            15 => Call::Read { handle: rest.u64()?, offset: rest.u64()?, size: rest.u32()? },
            17 => Call::StatFs,
            18 => Call::Release { handle: rest.u64()? },
            22 => {
                let (size, _) = (rest.u32()?, rest.u32()?);
                Call::GetXattr { size, name: rest.name()? }
            }
            23 => Call::ListXattr { size: rest.u32()? },
            25 => Call::Flush,
            36 => Call::Interrupt { unique: rest.u64()? },
            27 => Call::OpenDir,
            28 | 44 => {
                let (_handle, offset, size) = (rest.u64()?, rest.u64()?, rest.u32()?);
                if opcode == 28 { Call::ReadDir { offset, size } } else { Call::ReadDirPlus { offset, size } }
            }
            29 => Call::ReleaseDir,
            34 => Call::Access { mask: rest.u32()? },
            38 => Call::Destroy,
            46 => Call::Seek { handle: rest.u64()?, offset: rest.u64()?, whence: rest.u32()? },
            9 => {
                let (_mode, _umask) = (rest.u32()?, rest.u32()?);
                Call::MakeDir(rest.name()?)
            }
            6 => Call::MakeLink(rest.name()?),
            10 => Call::Unlink(rest.name()?),
            11 => Call::RemoveDir(rest.name()?),
            // SETATTR, MKNOD, RENAME, LINK, WRITE, SETXATTR, REMOVEXATTR, CREATE, FALLOCATE, RENAME2, TMPFILE
            4 | 8 | 12 | 13 | 16 | 21 | 24 | 35 | 43 | 45 | 51 => Call::Change,
            other => Call::Unknown(other),
        })
    }
}

/// The handle in `struct fuse_getattr_in` and the beginning of `struct fuse_statx_in`.
fn handle(rest: &mut Rest<'_>) -> Option<Option<u64>> {
    /// `FUSE_GETATTR_FH`
    const HAS_HANDLE: u32 = 1;
    let (flags, _, handle) = (rest.u32()?, rest.u32()?, rest.u64()?);
    Some((flags & HAS_HANDLE != 0).then_some(handle))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((40 + body.len() as u32).to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend(42u64.to_ne_bytes());
        [1000u32, 100, 4711, 0].iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        bytes.extend(body);
        bytes
    }

    fn numbers(of_32: &[u32], of_64: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = of_32.iter().flat_map(|number| number.to_ne_bytes()).collect();
        bytes.extend(of_64.iter().flat_map(|number| number.to_ne_bytes()));
        bytes
    }

    #[test]
    fn requests_say_who_asks_what() {
        let bytes = request(1, b"data.csv\0");
        let parsed = Request::parse(&bytes).expect("a request");
        assert_eq!((parsed.unique, parsed.node, parsed.uid, parsed.thread), (7, 42, 1000, 4711));
        assert_eq!(parsed.call, Call::Lookup(b"data.csv"));
        let read = [5u64, 4096].iter().flat_map(|n| n.to_ne_bytes()).chain(numbers(&[8192, 0], &[0, 0])).collect();
        let table: [(u32, Vec<u8>, Call<'_>); 12] = [
            (2, numbers(&[], &[3]), Call::Forget(3)),
            (42, numbers(&[2, 0], &[5, 1, 6, 2]), Call::ForgetMany(vec![(5, 1), (6, 2)])),
            (3, numbers(&[0, 0], &[9]), Call::Attributes { handle: None }),
            (3, numbers(&[1, 0], &[9]), Call::Attributes { handle: Some(9) }),
            (52, numbers(&[1, 0], &[9, 0]), Call::Statx { handle: Some(9) }),
            (15, read, Call::Read { handle: 5, offset: 4096, size: 8192 }),
            (14, numbers(&[0o100000, 0], &[]), Call::Open { flags: 0o100000 }),
            (22, [numbers(&[64, 0], &[]), b"user.x\0".to_vec()].concat(), Call::GetXattr { name: b"user.x", size: 64 }),
            (9, [numbers(&[0o755, 0], &[]), b"new\0".to_vec()].concat(), Call::MakeDir(b"new")),
            (6, b"new\0target\0".to_vec(), Call::MakeLink(b"new")),
            (16, Vec::new(), Call::Change),
            (4711, Vec::new(), Call::Unknown(4711)),
        ];
        for (opcode, body, call) in table {
            let bytes = request(opcode, &body);
            assert_eq!(Request::parse(&bytes).map(|parsed| parsed.call), Some(call), "{opcode}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(opcode in 0u32..60, body in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = request(opcode, &body);
            (0..=bytes.len()).for_each(|end| drop(Request::parse(&bytes[..end])));
        }
    }
}
