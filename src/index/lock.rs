//! Files and their locks: where an index is, who reads it, who writes it, who may write listings.
//!
//! Two locks of `flock(2)`:
//! - on the index itself, for the moment of a read (shared) or a commit (exclusive). Who waits tries again for
//!   [`PATIENCE`], since a commit takes milliseconds. A file that was renamed or removed meanwhile is opened anew.
//! - on `PATH.lock`, as long as an index is open, by the one that may write listings. It holds the process's id, for
//!   people. It stays when the process ends, and goes with the index.
//!
//! Listings tell the names of private trees, so directories are made with mode 0700 and files with 0600, and nothing is
//! written to a file that somebody else put there: symbolic links and other users' files are refused.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::fs::OFlags;

use super::IndexError;

/// How long a read or a commit waits for those of other processes.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be read, by any number at a time.
    Read,
    /// To be written, by one; it is made if it is not there.
    Write,
}

/// Where an index's bytes are: a file, or what a test puts in its place.
pub(crate) trait Place: Debug + Send {
    /// Opens it, locked until the backend is dropped. `None` if there is none to read.
    fn open(&self, access: Access) -> Result<Option<Box<dyn StorageBackend>>, IndexError>;
    /// Moves what was opened last out of the way, unless something else is there by now; where to.
    fn set_aside(&self) -> Result<Option<PathBuf>, IndexError>;
    /// What it is called.
    fn path(&self) -> &Path;
}

/// An index in a file.
#[derive(Debug)]
pub(crate) struct FilePlace {
    path: PathBuf,
    /// Device and inode number of the file that was opened last.
    last: Mutex<Option<(u64, u64)>>,
}

impl FilePlace {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: Mutex::default() }
    }

    fn error(&self, error: io::Error) -> IndexError {
        IndexError::io(&self.path, error)
    }
}

impl Place for FilePlace {
    fn open(&self, access: Access) -> Result<Option<Box<dyn StorageBackend>>, IndexError> {
        let Some(file) = locked(&self.path, access)? else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| self.error(error))?;
        *self.last.lock() = Some((metadata.dev(), metadata.ino()));
        // Its own locks are not used: redb takes them through a backend, and `Sealed` passes none on.
        let backend = FileBackend::new(file).map_err(|_| self.error(io::ErrorKind::Other.into()))?;
        Ok(Some(Box::new(backend)))
    }

    fn set_aside(&self) -> Result<Option<PathBuf>, IndexError> {
        // A reader's lock is enough, and there where the file cannot be written: all have done with it that had it
        // open for writing, and the next ones find another.
        let Some(file) = locked(&self.path, Access::Read)? else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| self.error(error))?;
        if *self.last.lock() != Some((metadata.dev(), metadata.ino())) {
            return Ok(None);
        }
        let aside = beside(&self.path, ".damaged");
        std::fs::rename(&self.path, &aside).map_err(|error| self.error(error))?;
        Ok(Some(aside))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// `PATH` with something at its end.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut beside = OsString::from(path);
    beside.push(end);
    beside.into()
}

/// Makes the directory that holds `path`, with those above it, for this user alone.
pub(crate) fn make_parent(path: &Path) -> Result<(), IndexError> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| IndexError::io(parent, error))
        }
        None => Ok(()),
    }
}

/// Makes what was created or renamed in the directory of `path` outlast a loss of power; only as far as that is
/// possible, since a name that is lost is an index that is built anew.
pub(crate) fn sync_parent(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(directory) = File::open(parent) {
        let _ = directory.sync_all();
    }
}

/// Opens a regular file of this user's.
fn open_own(path: &Path, access: Access) -> Result<Option<File>, IndexError> {
    let write = access == Access::Write;
    // Not blocking: the path may be a FIFO.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .create(write)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let refused = |why| IndexError::Refused { path: path.to_owned(), why };
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !write => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(refused("a symbolic link"));
        }
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Err(refused("a directory")),
        Err(error) => return Err(IndexError::io(path, error)),
    };
    let metadata = file.metadata().map_err(|error| IndexError::io(path, error))?;
    if metadata.is_dir() {
        Err(refused("a directory"))
    } else if !metadata.is_file() {
        Err(refused("no regular file"))
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        Err(refused("another user's file"))
    } else {
        Ok(Some(file))
    }
}

/// Fails if what stands at the path is not what an index can be kept in; nothing may be there.
pub(crate) fn check(path: &Path) -> Result<(), IndexError> {
    match open_own(path, Access::Read) {
        Err(error @ IndexError::Refused { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// True if the path still leads to this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the file and locks it, waiting for others.
fn locked(path: &Path, access: Access) -> Result<Option<File>, IndexError> {
    let failed = |error| IndexError::io(path, error);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let Some(file) = open_own(path, access)? else { return Ok(None) };
        let lock = if access == Access::Write { file.try_lock() } else { file.try_lock_shared() };
        match lock {
            Ok(()) if is_at(&file, path).map_err(failed)? => return Ok(Some(file)),
            // Replaced between the two calls.
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) => {}
            // A file system without locks has no other readers either, as far as anybody can tell.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if Instant::now() >= deadline {
            return Err(IndexError::Busy { path: path.to_owned() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The right to write listings.
#[derive(Debug)]
pub(crate) struct WriterLock(File);

impl WriterLock {
    /// Takes it, unless somebody has it or the file cannot be made.
    pub(crate) fn take(index: &Path) -> Result<Option<Self>, IndexError> {
        let path = beside(index, ".lock");
        // Who only asks whether somebody has it holds it for a moment.
        let deadline = Instant::now() + Duration::from_millis(20);
        loop {
            let Some(file) = open_own(&path, Access::Write)? else { return Ok(None) };
            match file.try_lock() {
                // Removed, with its index, between the two calls.
                Ok(()) if !is_at(&file, &path).map_err(|error| IndexError::io(&path, error))? => continue,
                Ok(()) => {
                    // Only for people: a lock without a number is as good.
                    let _ = file.set_len(0);
                    let _ = file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0);
                    return Ok(Some(Self(file)));
                }
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(IndexError::io(&path, error)),
            }
        }
    }

    /// Who has it: `None` nobody, `Some(None)` somebody who does not say who.
    pub(crate) fn holder(index: &Path) -> Result<Option<Option<u32>>, IndexError> {
        let path = beside(index, ".lock");
        let Some(mut file) = open_own(&path, Access::Read)? else { return Ok(None) };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.by_ref().take(32).read_to_string(&mut text);
                Ok(Some(text.trim().parse().ok()))
            }
            Err(TryLockError::Error(error)) => Err(IndexError::io(&path, error)),
        }
    }

    /// Removes the lock's file; the lock goes with this value.
    pub(crate) fn remove(self, index: &Path) -> Result<(), IndexError> {
        let path = beside(index, ".lock");
        std::fs::remove_file(&path).map_err(|error| IndexError::io(&path, error))?;
        drop(self.0);
        Ok(())
    }
}

/// Removes an index once nobody reads or writes it; true if there was one.
pub(crate) fn remove_file(path: &Path) -> Result<bool, IndexError> {
    // Opened for reading, so that none is made to be removed; those who have it open see it to its end.
    let Some(file) = locked(path, Access::Read)? else { return Ok(false) };
    std::fs::remove_file(path).map_err(|error| IndexError::io(path, error))?;
    drop(file);
    Ok(true)
}

/// A line for a log or an error: who has it.
pub(crate) fn holder_text(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
