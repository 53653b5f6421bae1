//! What a case is, and what comes of it in words that can be compared.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hasher};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Where cases are run.
pub(crate) struct Site {
    /// The tree.
    pub(crate) root: PathBuf,
    /// A directory on the tree's own file system that may be written to.
    pub(crate) scratch: PathBuf,
}

impl Site {
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }
}

/// A system call, or a few that belong together, and what comes of it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) act: Box<dyn Fn(&Site) -> String>,
}

/// All cases; each has a name of its own.
#[derive(Default)]
pub(crate) struct Table(pub(crate) Vec<Case>);

impl Table {
    pub(crate) fn add(&mut self, name: impl Into<String>, act: impl Fn(&Site) -> String + 'static) {
        self.0.push(Case { name: name.into(), act: Box::new(act) });
    }
}

/// An error as the manual pages call it.
pub(crate) fn errno(error: Errno) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(error.raw_os_error()))
}

/// `show` of what came, or the error's name.
pub(crate) fn said_as<T, S: Display>(result: Result<T, Errno>, show: impl FnOnce(T) -> S) -> String {
    match result {
        Ok(value) => show(value).to_string(),
        Err(error) => errno(error),
    }
}

/// `ok`, or the error's name.
pub(crate) fn said<T>(result: Result<T, Errno>) -> String {
    said_as(result, |_| "ok")
}

/// The value, or the error's name.
pub(crate) fn value<T: Display>(result: Result<T, Errno>) -> String {
    said_as(result, |value| value)
}

/// How many bytes, and which.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("{}:{:08x}", bytes.len(), hasher.finish() as u32)
}

pub(crate) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
}

/// What `act` says of the file opened for reading, or why it cannot be opened.
pub(crate) fn with(site: &Site, path: impl AsRef<Path>, act: impl FnOnce(&OwnedFd) -> String) -> String {
    match open(&site.at(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => act(&fd),
        Err(error) => format!("open: {}", errno(error)),
    }
}
