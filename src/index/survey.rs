//! Indexes as people ask for them: which there are, what is in them, whether they are sound; and their end.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lock::{self, FilePlace, WriterLock};
use super::store::{self, Failure, Reading};
use super::{Identity, IndexError, Meta, format};

/// What the names of indexes end in.
pub const SUFFIX: &str = ".index";

/// An index as it is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The file.
    pub path: PathBuf,
    /// Of what it is an index.
    pub identity: Identity,
    /// The version of its format.
    pub version: u32,
    /// What is in it.
    pub meta: Meta,
    /// What it takes on the disk.
    pub disk_bytes: u64,
    /// Who may write it: `Some(None)` for a process that does not say which it is.
    pub writer: Option<Option<u32>>,
}

/// The indexes in a directory, in the order of their names; none if there is no such directory.
pub fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    in_directory(directory, SUFFIX)
}

/// The files in a directory that were indexes and have been set aside.
pub fn list_set_aside(directory: &Path) -> io::Result<Vec<PathBuf>> {
    in_directory(directory, &format!("{SUFFIX}.damaged"))
}

fn in_directory(directory: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_bytes().ends_with(suffix.as_bytes()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Describes an index, from its head and its totals alone.
pub fn describe(path: &Path) -> Result<Summary, IndexError> {
    let place = FilePlace::new(path);
    summary(path, store::read(&place, |reading| Ok((reading.head.identity.clone(), reading.totals()?))))
}

/// Reads all of an index: redb's pages, every block and all matches, and whether they add up. Nothing is written.
pub fn verify(path: &Path) -> Result<Summary, IndexError> {
    let all = |reading: &Reading<'_>| {
        let totals = reading.dirs(&mut |_, _, _| {})?;
        let patterns = reading.patterns()?;
        for fingerprint in &patterns {
            reading.matches(fingerprint)?;
        }
        if patterns.len() as u64 != totals.patterns {
            return Err(Failure::Damaged("matches of a pattern are missing".to_owned()));
        }
        Ok((reading.head.identity.clone(), totals))
    };
    summary(path, store::check(&FilePlace::new(path), all))
}

/// Removes an index and its lock.
///
/// One that is in use is not removed ([`InUse`](RemoveError::InUse)). What is no index, by its first bytes, is removed
/// only if it is called one: it may be damaged.
pub fn remove(path: &Path) -> Result<(), RemoveError> {
    let called_one = |path: &Path| {
        let name = path.file_name().unwrap_or_default().as_bytes();
        name.ends_with(SUFFIX.as_bytes()) || name.ends_with(format!("{SUFFIX}.damaged").as_bytes())
    };
    if !called_one(path) && !begins_like_one(path)? {
        return Err(RemoveError::NoIndex(path.to_owned()));
    }
    let Some(lock) = WriterLock::take(path)? else {
        let holder = WriterLock::holder(path)?.flatten();
        return Err(RemoveError::InUse { path: path.to_owned(), holder });
    };
    let removed = lock::remove_file(path);
    remove_listings(path);
    lock.remove(path)?;
    if removed? { Ok(()) } else { Err(IndexError::io(path, io::ErrorKind::NotFound.into()).into()) }
}

/// Removes what is kept beside an index, see [`super::listing_path`]; what cannot be removed takes room and does no harm.
fn remove_listings(path: &Path) {
    let beside = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let own = path.file_name().unwrap_or_default().as_bytes();
        name.as_bytes().strip_prefix(own).is_some_and(|rest| rest.starts_with(super::LISTING.as_bytes()))
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten().filter(beside) {
        if let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(file = %entry.path().display(), %error, "cannot be removed");
        }
    }
}

/// Why an index was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Somebody uses it.
    #[error("{}: in use by {}", path.display(), lock::holder_text(*holder))]
    InUse {
        /// The index.
        path: PathBuf,
        /// The process that may write it, if it says so.
        holder: Option<u32>,
    },
    /// It is something else.
    #[error("{}: not an index", .0.display())]
    NoIndex(PathBuf),
    /// It could not be locked or removed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

fn begins_like_one(path: &Path) -> Result<bool, IndexError> {
    use std::io::Read;
    let mut start = [0; format::MAGIC.len()];
    match std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)) {
        Ok(()) => Ok(start == *format::MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(IndexError::io(path, error)),
    }
}

fn summary(path: &Path, read: Result<Option<(Identity, format::Totals)>, Failure>) -> Result<Summary, IndexError> {
    let (identity, totals) = match read {
        Ok(Some(read)) => read,
        // Empty, since that it is there comes out below.
        Ok(None) => {
            std::fs::metadata(path).map_err(|error| IndexError::io(path, error))?;
            return Err(damaged(path, "it is empty".to_owned()));
        }
        Err(Failure::Damaged(reason)) => return Err(damaged(path, reason)),
        Err(Failure::Io(error)) => return Err(IndexError::io(path, error)),
        Err(Failure::Index(error)) => return Err(error),
    };
    let metadata = std::fs::metadata(path).map_err(|error| IndexError::io(path, error))?;
    Ok(Summary {
        path: path.to_owned(),
        identity,
        version: format::VERSION,
        meta: totals.into(),
        disk_bytes: metadata.blocks() * 512,
        writer: WriterLock::holder(path)?,
    })
}

fn damaged(path: &Path, reason: String) -> IndexError {
    IndexError::Damaged { path: path.to_owned(), reason, aside: None }
}
