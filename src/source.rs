//! Where trees come from: one trait for all back ends.
//!
//! A source hands out [`Handle`]s to directories; everything else is asked relative to a handle, so that no path is
//! resolved from the root twice and nothing moves underneath between two questions.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use serde_json::Value;

use crate::automaton::Test;
use crate::entry::{Kind, RelPath};
use crate::listing::c_name;

pub mod local;
pub mod object;

pub use object::snapshot::Difference;

/// An open directory of a source.
#[derive(Debug)]
pub enum Handle {
    /// Of this machine.
    Local(OwnedFd),
    /// Of an object store.
    Object(object::Dir),
}

impl Handle {
    /// The descriptor of a directory of this machine.
    ///
    /// # Errors
    /// EOPNOTSUPP for any other one.
    pub(crate) fn local(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Self::Local(fd) => Ok(fd.as_fd()),
            Self::Object(_) => Err(not_local()),
        }
    }
}

/// An open file of a source.
#[derive(Debug)]
pub enum File {
    /// Of this machine.
    Local(OwnedFd),
    /// An object of an object store.
    Object(object::OpenObject),
}

impl File {
    /// The descriptor of a file of this machine.
    ///
    /// # Errors
    /// EOPNOTSUPP for any other one.
    pub(crate) fn local(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Self::Local(fd) => Ok(fd.as_fd()),
            Self::Object(_) => Err(not_local()),
        }
    }

    /// Fills the buffer from an offset on, up to the end of the file; gives the number of bytes.
    ///
    /// # Errors
    /// Those of the file system, if nothing could be read.
    pub fn read_full(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Local(fd) => local::read_full(fd, into, offset),
            Self::Object(object) => object.read_full(into, offset),
        }
    }
}

fn not_local() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

/// What an entry is before links are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link to anything.
    Link,
    /// FIFO, socket or device.
    Special,
}

/// Attributes of a file, directory or link, as `statx(2)` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Major and minor number of the device, as one number.
    pub dev: u64,
    /// The inode's number on it.
    pub ino: u64,
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as major and minor.
    pub rdev: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// Access, modification, change and birth time in seconds and nanoseconds since the epoch.
    pub atime: (i64, u32),
    /// See `atime`.
    pub mtime: (i64, u32),
    /// See `atime`.
    pub ctime: (i64, u32),
    /// See `atime`; zero where the file system does not tell.
    pub btime: (i64, u32),
}

/// What tells whether a directory is as it was when it was read.
///
/// There is no device number in it: that of many file systems is another one after each boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The inode's number.
    pub ino: u64,
    /// Modification time, see [`Stat`].
    pub mtime: (i64, u32),
    /// Change time, see [`Stat`].
    pub ctime: (i64, u32),
}

impl Stat {
    /// What has to be the same for a directory to be as it was.
    pub fn stamp(&self) -> Stamp {
        Stamp { ino: self.ino, mtime: self.mtime, ctime: self.ctime }
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// True for a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }
}

/// A buffer for directory entries, one for each thread; 32 KiB is what glibc uses, and larger ones measured no better.
pub struct ListBuffer(pub(crate) Box<[std::mem::MaybeUninit<u8>]>);

impl Default for ListBuffer {
    fn default() -> Self {
        Self(Box::new_uninit_slice(32 << 10))
    }
}

impl Debug for ListBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListBuffer")
    }
}

/// A tree of directories and files that is only ever read.
pub trait Source: Send + Sync + Debug {
    /// Opens the root.
    ///
    /// # Errors
    /// Those of the file system, also in all other methods.
    fn open_root(&self) -> io::Result<Handle>;

    /// Opens an open directory once more, with a position of its own; who may read it may not be allowed to search it.
    fn open_again(&self, dir: &Handle) -> io::Result<Handle>;

    /// Opens a directory below `base`; `tail` is a relative path of real directories, none of which may be a link.
    fn open_dir(&self, base: &Handle, tail: &CStr) -> io::Result<Handle>;

    /// Opens the directory that the link `name` in `dir` leads to.
    fn open_link(&self, dir: &Handle, name: &CStr) -> io::Result<Handle>;

    /// Calls `each` for every entry but `.` and `..`, in no particular order, with its name, what it is, and the inode
    /// number that the directory has for it. A handle can be listed once: the listing moves its position.
    fn list(&self, dir: &Handle, buffer: &mut ListBuffer, each: &mut dyn FnMut(&CStr, RawKind, u64)) -> io::Result<()>;

    /// What the link `name` is to a pattern: [`Kind::LinkDir`] or [`Kind::LinkFile`].
    fn link_kind(&self, dir: &Handle, name: &CStr) -> Kind;

    /// The absolute path of an open directory, without links, as it is at this moment.
    fn path_of(&self, dir: &Handle) -> io::Result<Vec<u8>>;

    /// Device and inode of an open directory.
    fn identity(&self, dir: &Handle) -> io::Result<(u64, u64)>;

    /// Whether a file passes a test; links are followed, and a dangling one passes none.
    fn test(&self, dir: &Handle, name: &CStr, test: &Test) -> io::Result<bool>;

    /// Attributes of the directory at a path of several components, none of which may be a link.
    fn stat_beneath(&self, dir: &Handle, path: &CStr) -> io::Result<Stat> {
        self.stat_dir(&self.open_dir(dir, path)?)
    }

    /// Attributes of an entry, of what it leads to if `follow`.
    fn stat(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<Stat>;

    /// Attributes of an open directory.
    fn stat_dir(&self, dir: &Handle) -> io::Result<Stat>;

    /// The text of a link.
    fn read_link(&self, dir: &Handle, name: &CStr) -> io::Result<Vec<u8>>;

    /// Opens a file to read; links are followed only if `follow`.
    fn open_file(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<File>;

    /// Attributes of an open file.
    fn stat_file(&self, file: &File) -> io::Result<Stat>;

    /// The same tree, if it is known by listings of all of it.
    fn as_listed(&self) -> Option<&dyn Listed> {
        None
    }
}

/// A tree that is known by a listing of all of it, which is made anew from time to time and costs requests. Without one
/// the root cannot be opened (ENOTCONN); between two of them nothing changes.
pub trait Listed: Send + Sync + Debug {
    /// Where it is, with all that tells it from others, such as an endpoint. Nothing secret is in it.
    fn location(&self) -> &[u8];

    /// Takes up the listing that a file holds, if it is one of this tree, and keeps later ones there if `writes`.
    fn keep_at(&self, path: &Path, writes: bool);

    /// When the listing that there is was begun.
    fn listed(&self) -> Option<SystemTime>;

    /// Lists all of it again, one thread at a time.
    ///
    /// # Errors
    /// If that is not possible, with a sentence that says why; then the listing before is still there.
    fn renew(&self, cancelled: &AtomicBool) -> io::Result<Renewed>;

    /// What the last listing has that cannot be shown; the first of it if that is much.
    fn left_out(&self) -> Vec<LeftOut>;

    /// How it stands, for people.
    fn status(&self) -> Value;
}

/// What a listing says against the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// There was none before.
    First,
    /// All that is different.
    Changes(Vec<Difference>),
    /// More than is told one by one.
    Much,
}

/// Something in a listing that cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its key below the tree's root.
    pub key: Box<[u8]>,
    /// Why.
    pub reason: Cow<'static, str>,
}

/// Opens the directory at `path` below the root, through links where `follow` says so.
///
/// # Errors
/// Those of the source.
pub fn open_way(source: &dyn Source, root: &Handle, path: &RelPath, follow: bool) -> io::Result<Handle> {
    if path.is_root() {
        return source.open_root();
    }
    match source.open_dir(root, &c_name(path.as_bytes())) {
        Err(error) if follow && matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
            open_steps(source, path, follow, &mut |_| {})
        }
        opened => opened,
    }
}

/// Opens the directory at `path` one component after the other, and shows `each` directory above it.
///
/// # Errors
/// Those of the source.
pub fn open_steps(
    source: &dyn Source,
    path: &RelPath,
    follow: bool,
    each: &mut dyn FnMut(&Handle),
) -> io::Result<Handle> {
    let mut at = source.open_root()?;
    for name in path.components().map(c_name) {
        each(&at);
        at = match source.open_dir(&at, &name) {
            Err(_) if follow => source.open_link(&at, &name)?,
            opened => opened?,
        };
    }
    Ok(at)
}
