//! The index: listings and matches on disk, so that a mount shows at once what was there when the last one ended.
//!
//! One file for each set of sources and walk options ([`Identity`]), shared by all processes that have the same. It is
//! a [redb](https://docs.rs/redb) database behind a layer of page checksums (`sealed`) and is open only for the moment
//! of a read or a commit (`store`, `lock`). One process at a time, the first to come, may write listings; the
//! others read them all and write matches.
//!
//! # What holds
//!
//! - A commit lasts as a whole or not at all, over a kill, a loss of power and a full disk. What is read is a state that
//!   was once committed.
//! - Nothing in the file is trusted: it is this user's own regular file; each page is checked when it is read, each
//!   value and what all of them add up to besides. What fails is renamed to `PATH.damaged` and begun anew, as is what is
//!   of another version; the caller hears of it and builds it again.
//! - No read waits for more than a commit, and none writes: not even after a crash, or on a full disk.
//!
//! # Numbers
//!
//! For 100,000 directories with listings of 75 bytes (`cargo bench --bench index -- --numbers`), CPU time:
//!
//! | | as in real trees | nothing in common |
//! | --- | --- | --- |
//! | first commit, all at once | 40 ms | 60 ms |
//! | load | 17 ms | 27 ms |
//! | bytes on disk | 4.1 MB | 13.0 MB |
//! | the same, not packed, with names and stamps | 11.4 MB | 12.5 MB |
//!
//! A commit of one directory, opened and closed for it, is 0.5 ms in memory; on a disk its syncs count, five. A
//! look for one pattern's matches takes 0.04 ms. Where everything is written anew in one commit, the file has room for
//! both for a while.
//!
//! # Layout
//!
//! [`mod@format`] has the bytes: it is pure. [`survey`] is for people: what indexes there are, whether they are sound.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

pub mod format;
mod lock;
mod sealed;
mod store;
pub mod survey;
#[cfg(test)]
mod tests;

pub use lock::PATIENCE;

pub use crate::source::Stamp;
use lock::{FilePlace, Place, WriterLock};
use store::{Failure, Target};

/// One directory as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirRecord {
    /// The id of the directory above; 0 for the root, whose id is 0. Nothing here checks that the ids make a tree.
    pub parent: u32,
    /// Its name, a [`valid_name`](crate::entry::valid_name); empty for the root.
    pub name: Box<[u8]>,
    /// What it was.
    pub stamp: Stamp,
    /// False: it must be read again, whatever its stamp.
    pub trusted: bool,
    /// What was in it, as the caller encodes it.
    pub listing: Box<[u8]>,
}

/// Name and absolute root of a source.
pub type NamedRoot = (Box<[u8]>, Box<[u8]>);

/// Which index: the sources, and the walk options that change what a listing holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The sources, in order.
    pub sources: Vec<NamedRoot>,
    /// The options as canonical text.
    pub options: String,
}

impl Identity {
    /// What the index is called in the cache directory: a hash of the identity, of 26 digits, and `.index`.
    pub fn file_name(&self) -> String {
        format!("{}{}", format::identity_hash(self), survey::SUFFIX)
    }
}

/// What is between the name of an index and a source's place in the name of the source's listing.
const LISTING: &str = ".objects-";

/// Where the listing of the source at a place among the sources is kept, beside the index.
pub fn listing_path(index: &Path, source: usize) -> PathBuf {
    let mut path = index.as_os_str().to_owned();
    path.push(format!("{LISTING}{source}"));
    path.into()
}

/// Where indexes are kept: `$XDG_CACHE_HOME/veinfs`, else `~/.cache/veinfs`, and for root without a home
/// `/var/cache/veinfs`.
pub fn cache_directory() -> Option<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    cache_directory_of(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"), root)
}

/// Variables that hold no absolute path are ignored, as the XDG base directory specification has it.
fn cache_directory_of(cache: Option<OsString>, home: Option<OsString>, root: bool) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let cache = cache.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")));
    cache.or_else(|| root.then(|| PathBuf::from("/var/cache"))).map(|cache| cache.join("veinfs"))
}

/// Why an index could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The disk is full, or a quota reached. What was stored before is still there.
    #[error("{}: the disk is full", path.display())]
    Full {
        /// The index.
        path: PathBuf,
    },
    /// What is there does not add up. Nothing that was read counts; the index is empty now, if it could be moved.
    #[error("{}: damaged: {reason}", path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// What was found.
        reason: String,
        /// Where the damaged file is now; `None` where it could not be moved, or somebody else did.
        aside: Option<PathBuf>,
    },
    /// Other processes read or write it without end.
    #[error("{}: other processes keep it busy", path.display())]
    Busy {
        /// The index.
        path: PathBuf,
    },
    /// Another file is there than the one that was opened, or none: a commit must hold everything, with `clear_dirs`.
    #[error("{}: it was removed or replaced", path.display())]
    Replaced {
        /// The index.
        path: PathBuf,
    },
    /// It is another index, and somebody may be using it.
    #[error("{}: it is in use for other sources or options{}", path.display(), by(*holder))]
    Taken {
        /// The index.
        path: PathBuf,
        /// The process that may write it, if it says so.
        holder: Option<u32>,
    },
    /// What stands there is not what an index can be kept in.
    #[error("{}: {why}, which is not used as an index", path.display())]
    Refused {
        /// What was to be an index.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// A record that cannot be stored: a name that is none, or a root that is no root. The caller's mistake.
    #[error("a record of source {source_place} between {first} and {} is none", first.saturating_add(format::PER_BLOCK - 1))]
    Record {
        /// The source's place.
        source_place: u32,
        /// The first id that it can be.
        first: u32,
    },
}

impl IndexError {
    fn io(path: &Path, error: io::Error) -> Self {
        let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
        let path = path.to_owned();
        if full.contains(&error.raw_os_error()) { Self::Full { path } } else { Self::Io { path, error } }
    }
}

fn by(holder: Option<u32>) -> String {
    holder.map(|pid| format!(", by process {pid}")).unwrap_or_default()
}

/// What was found when an index was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing; it is new.
    New,
    /// An index of the same identity.
    Existing,
    /// Something that is of no use: damaged, of another version, or of another identity. The index is new.
    SetAside {
        /// Where it is now; `None` if somebody else moved it.
        aside: Option<PathBuf>,
        /// What was wrong with it.
        reason: String,
    },
}

/// What an index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// When the source and the index last agreed, as the writer said.
    pub reconciled: Option<SystemTime>,
    /// When it was last written.
    pub written: Option<SystemTime>,
    /// Directories.
    pub dirs: u64,
    /// What they take, packed, in bytes.
    pub dir_bytes: u64,
    /// Patterns with matches stored.
    pub patterns: u64,
    /// What they take, packed, in bytes.
    pub match_bytes: u64,
}

impl From<format::Totals> for Meta {
    fn from(totals: format::Totals) -> Self {
        Self {
            reconciled: totals.reconciled.and_then(format::to_time),
            written: (totals.written != 0).then(|| format::to_time((totals.written, 0))).flatten(),
            dirs: totals.dirs,
            dir_bytes: totals.dir_bytes,
            patterns: totals.patterns,
            match_bytes: totals.match_bytes,
        }
    }
}

/// What is to be written at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// First drop all directories, and the time of the last agreement.
    pub clear_dirs: bool,
    /// Directories by source and id; `None` for one that is no more.
    pub dirs: BTreeMap<(u32, u32), Option<DirRecord>>,
    /// Matches by their pattern's fingerprint, as the caller encodes them. The last 256 patterns are kept.
    pub matches: Vec<([u8; 16], Vec<u8>)>,
    /// When source and index agree.
    pub reconciled: Option<SystemTime>,
}

/// An index that is kept in a file. The file is open only while a method runs; the right to write listings is held
/// until this is dropped.
#[derive(Debug)]
pub struct Index {
    place: Box<dyn Place>,
    identity: Identity,
    /// Which file the caller knows.
    epoch: Cell<[u8; 16]>,
    /// True if the caller does not know what is in that file.
    unknown: Cell<bool>,
    lock: Option<WriterLock>,
    writer: bool,
}

impl Index {
    /// Opens the index at `path`, or begins one, with the directories above it.
    ///
    /// What is damaged, of another version or of another identity is renamed to `PATH.damaged`, in the place of an
    /// older one, and the index begins anew. Errors are for what leaves no way on: a directory that cannot be written, a
    /// path that is no file of this user's, an index of another identity that is in use.
    pub fn open(path: &Path, identity: &Identity) -> Result<(Self, Opened), IndexError> {
        lock::make_parent(path)?;
        // Before there is a lock beside what is none of ours.
        lock::check(path)?;
        // Where it cannot be taken for another reason than that somebody has it, listings can still be read.
        let lock = WriterLock::take(path).unwrap_or(None);
        let writer = lock.is_some();
        let (mut index, opened) = Self::on_place(Box::new(FilePlace::new(path)), identity, writer)?;
        index.lock = lock;
        if opened != Opened::Existing {
            lock::sync_parent(path);
        }
        Ok((index, opened))
    }

    /// An index at any place, which this may write listings to or not.
    fn on_place(place: Box<dyn Place>, identity: &Identity, writer: bool) -> Result<(Self, Opened), IndexError> {
        let index = Self {
            place,
            identity: identity.clone(),
            epoch: Cell::default(),
            unknown: Cell::new(false),
            lock: None,
            writer,
        };
        let found = store::read(&*index.place, |reading| {
            // Other identities are not looked into.
            let same = reading.head.identity == *identity;
            if same {
                reading.totals()?;
            }
            Ok((same, reading.head.epoch))
        });
        let reason = match found {
            Ok(Some((true, epoch))) => {
                index.epoch.set(epoch);
                return Ok((index, Opened::Existing));
            }
            Ok(None) => {
                index.begin()?;
                return Ok((index, Opened::New));
            }
            Ok(Some((false, _))) if writer => "it is of other sources or options".to_owned(),
            Ok(Some((false, _))) => {
                let path = index.place.path().to_owned();
                let holder = WriterLock::holder(&path).ok().flatten().flatten();
                return Err(IndexError::Taken { path, holder });
            }
            Err(Failure::Damaged(reason)) => reason,
            Err(failure) => return Err(index.error(failure)),
        };
        let aside = index.place.set_aside()?;
        index.begin()?;
        Ok((index, Opened::SetAside { aside, reason }))
    }

    /// What the file is called.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// True if this process is the one that may write listings; others may read all, and write matches.
    pub fn is_writer(&self) -> bool {
        self.writer
    }

    /// Tries to become the writer, once the one before has gone; true if it is one now. Its first commit must hold
    /// everything, with `clear_dirs`: until then commits of listings are [`Replaced`](IndexError::Replaced).
    pub fn become_writer(&mut self) -> bool {
        if !self.writer
            && let Ok(Some(lock)) = WriterLock::take(self.place.path())
        {
            self.lock = Some(lock);
            self.writer = true;
            self.unknown.set(true);
        }
        self.writer
    }

    /// What was stored for patterns, by their fingerprints; `None` for those of which nothing is known. It may be asked
    /// before [`load`](Index::load), and reads these alone.
    ///
    /// Errors are as for `load`.
    pub fn matches(&self, fingerprints: &[[u8; 16]]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let found = store::read(&*self.place, |reading| {
            store::same_identity(&*self.place, reading.head, &self.identity)?;
            fingerprints.iter().map(|fingerprint| reading.matches(fingerprint)).collect()
        });
        let found: Option<Vec<_>> = found.map_err(|failure| self.failed(failure))?;
        Ok(found.unwrap_or_else(|| vec![None; fingerprints.len()]))
    }

    /// Hands out every directory, as source, id and record, in order.
    ///
    /// If what is there does not add up, the error is [`Damaged`](IndexError::Damaged), what was handed out counts for
    /// nothing, and the index has been set aside and is empty.
    pub fn load(&mut self, each: &mut dyn FnMut(u32, u32, DirRecord)) -> Result<Meta, IndexError> {
        let loaded = store::read(&*self.place, |reading| {
            store::same_identity(&*self.place, reading.head, &self.identity)?;
            Ok((reading.head.epoch, reading.dirs(each)?))
        });
        match loaded {
            Ok(Some((epoch, totals))) => {
                self.epoch.set(epoch);
                self.unknown.set(false);
                Ok(totals.into())
            }
            // Removed since it was opened: as good as empty, but a commit has to begin it anew.
            Ok(None) => {
                self.unknown.set(true);
                Ok(Meta::default())
            }
            Err(failure) => {
                let error = self.failed(failure);
                if matches!(error, IndexError::Damaged { aside: Some(_), .. }) {
                    // It is empty, which the caller now knows.
                    self.unknown.set(false);
                }
                Err(error)
            }
        }
    }

    /// Writes a batch as one transaction: all of it or nothing, also over a loss of power. Without the right to write
    /// listings, only its matches.
    ///
    /// Where the error is [`Replaced`](IndexError::Replaced) or [`Damaged`](IndexError::Damaged), the next commit must
    /// hold everything, with `clear_dirs`; until then the answer stays `Replaced`. After any other error the old state is
    /// there, or the new one if it failed at the very end, and the same batch may be tried again:
    /// [`Full`](IndexError::Full), say, once there is room.
    ///
    /// Others wait meanwhile: what is very much is better written in several batches, of some 100,000 directories.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), IndexError> {
        let listings = self.writer && (batch.clear_dirs || !batch.dirs.is_empty() || batch.reconciled.is_some());
        if !listings && batch.matches.is_empty() {
            return Ok(());
        }
        // Matches alone may go into any file of this identity.
        let anew = !listings || batch.clear_dirs;
        if self.unknown.get() && !anew {
            return Err(IndexError::Replaced { path: self.place.path().to_owned() });
        }
        let target = Target { identity: &self.identity, epoch: (!anew).then(|| self.epoch.get()) };
        match store::commit(&*self.place, target, batch, listings) {
            Ok(epoch) if listings => {
                self.epoch.set(epoch);
                self.unknown.set(false);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(failure) => {
                let error = self.failed(failure);
                if matches!(error, IndexError::Replaced { .. }) {
                    self.unknown.set(true);
                }
                Err(error)
            }
        }
    }

    /// Begins a new file, or takes the one that somebody else has begun meanwhile.
    fn begin(&self) -> Result<(), IndexError> {
        let epoch = store::create(&*self.place, &self.identity).map_err(|failure| self.error(failure))?;
        self.epoch.set(epoch);
        Ok(())
    }

    /// The error for a failure; what is damaged is set aside and begun anew.
    fn failed(&self, failure: Failure) -> IndexError {
        let error = self.error(failure);
        let IndexError::Damaged { path, reason, .. } = error else { return error };
        self.unknown.set(true);
        match self.place.set_aside() {
            Ok(aside) => {
                // If it cannot be begun now, the next commit tries again.
                let _ = self.begin();
                IndexError::Damaged { path, reason, aside }
            }
            Err(_) => IndexError::Damaged { path, reason, aside: None },
        }
    }

    fn error(&self, failure: Failure) -> IndexError {
        let path = self.place.path();
        match failure {
            Failure::Damaged(reason) => IndexError::Damaged { path: path.to_owned(), reason, aside: None },
            Failure::Io(error) => IndexError::io(path, error),
            Failure::Index(error) => error,
        }
    }
}

/// True if something is at `path` that never was an index: it is not to be set aside. An index whose first bytes are
/// damaged looks so too.
pub fn is_other_file(path: &Path) -> bool {
    use std::io::Read;
    let Ok(mut file) = std::fs::File::open(path) else { return false };
    let mut start = [0; format::MAGIC.len()];
    match file.read(&mut start) {
        Ok(0) => false,
        Ok(read) => start[..read] != format::MAGIC[..read],
        // A directory, say: opening it as an index tells.
        Err(_) => false,
    }
}
