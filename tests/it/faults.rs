//! Sources that misbehave, around one that does not.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;

use std::sync::Arc;

use nix::errno::Errno;
use parking_lot::Mutex;
use veinfs::automaton::Test;
use veinfs::entry::Kind;
use veinfs::source::{File, Handle, ListBuffer, RawKind, Source, Stat};

/// A source where some directories cannot be opened, whoever asks.
#[derive(Debug)]
pub(crate) struct FailingSource<S> {
    pub(crate) inner: S,
    /// Device and inode of those directories.
    pub(crate) deny: Arc<Mutex<HashSet<(u64, u64)>>>,
}

impl<S: Source> FailingSource<S> {
    fn allowed(&self, handle: Handle) -> io::Result<Handle> {
        if self.deny.lock().contains(&self.inner.identity(&handle)?) { Err(Errno::EACCES.into()) } else { Ok(handle) }
    }
}

/// A source that lists in an order of its own, another one for each seed.
#[derive(Debug)]
pub(crate) struct ShuffledSource<S> {
    pub(crate) inner: S,
    pub(crate) seed: u64,
}

/// The methods in which both are like the source inside.
macro_rules! as_inside {
    () => {
        fn link_kind(&self, dir: &Handle, name: &CStr) -> Kind {
            self.inner.link_kind(dir, name)
        }

        fn path_of(&self, dir: &Handle) -> io::Result<Vec<u8>> {
            self.inner.path_of(dir)
        }

        fn identity(&self, dir: &Handle) -> io::Result<(u64, u64)> {
            self.inner.identity(dir)
        }

        fn test(&self, dir: &Handle, name: &CStr, test: &Test) -> io::Result<bool> {
            self.inner.test(dir, name, test)
        }

        fn stat(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<Stat> {
            self.inner.stat(dir, name, follow)
        }

        fn stat_dir(&self, dir: &Handle) -> io::Result<Stat> {
            self.inner.stat_dir(dir)
        }

        fn read_link(&self, dir: &Handle, name: &CStr) -> io::Result<Vec<u8>> {
            self.inner.read_link(dir, name)
        }

        fn open_file(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<File> {
            self.inner.open_file(dir, name, follow)
        }

        fn stat_file(&self, file: &File) -> io::Result<Stat> {
            self.inner.stat_file(file)
        }
    };
}

impl<S: Source> Source for FailingSource<S> {
    fn open_root(&self) -> io::Result<Handle> {
        self.allowed(self.inner.open_root()?)
    }

    fn open_again(&self, dir: &Handle) -> io::Result<Handle> {
        self.allowed(self.inner.open_again(dir)?)
    }

    fn open_dir(&self, base: &Handle, tail: &CStr) -> io::Result<Handle> {
        self.allowed(self.inner.open_dir(base, tail)?)
    }

    fn open_link(&self, dir: &Handle, name: &CStr) -> io::Result<Handle> {
        self.allowed(self.inner.open_link(dir, name)?)
    }

    fn list(&self, dir: &Handle, buffer: &mut ListBuffer, each: &mut dyn FnMut(&CStr, RawKind, u64)) -> io::Result<()> {
        self.inner.list(dir, buffer, each)
    }

    as_inside!();
}

impl<S: Source> Source for ShuffledSource<S> {
    fn open_root(&self) -> io::Result<Handle> {
        self.inner.open_root()
    }

    fn open_again(&self, dir: &Handle) -> io::Result<Handle> {
        self.inner.open_again(dir)
    }

    fn open_dir(&self, base: &Handle, tail: &CStr) -> io::Result<Handle> {
        self.inner.open_dir(base, tail)
    }

    fn open_link(&self, dir: &Handle, name: &CStr) -> io::Result<Handle> {
        self.inner.open_link(dir, name)
    }

    fn list(&self, dir: &Handle, buffer: &mut ListBuffer, each: &mut dyn FnMut(&CStr, RawKind, u64)) -> io::Result<()> {
        let mut entries: Vec<(CString, RawKind, u64)> = Vec::new();
        self.inner.list(dir, buffer, &mut |name, kind, ino| entries.push((name.to_owned(), kind, ino)))?;
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        entries.sort_by_key(|(name, ..)| hasher.hash_one((self.seed, name)));
        entries.iter().for_each(|(name, kind, ino)| each(name, *kind, *ino));
        Ok(())
    }

    as_inside!();
}
