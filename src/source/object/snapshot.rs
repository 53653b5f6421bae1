//! All objects below a prefix as they were when they were listed last: a sorted table on disk.
//!
//! An object store knows keys, no directories, and each request for keys costs time and money. So all keys are asked for
//! once, in parallel, and everything that names and attributes tell (which directories there are, what is in them, sizes,
//! times) is answered from here, without a request and after a restart too.
//!
//! The model: a [`Snapshot`] is immutable; a [`Writer`] makes one, by any number of [`Run`]s, each of which puts keys in
//! rising order, while no two runs have keys between those of each other. A [`Cursor`] goes through the keys from any
//! place on. In memory are one key of some hundred objects, and a bounded number of blocks.
//!
//! What holds: keys are unique and sorted by their bytes; a key ends with `/` if it stands for a directory alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lru::LruCache;
use parking_lot::Mutex;

use crate::source::LeftOut;
use format::{Block, Filling, HEADER_BYTES, MAGIC, Reader, TRAILER_BYTES, VERSION, checksum, damaged};

mod compare;
mod format;
#[cfg(test)]
mod tests;

pub(in crate::source::object) use compare::after;
pub use compare::{Difference, compare};

/// Blocks that are kept in memory, in all; a block has some 16 KiB.
const KEPT_BLOCKS: usize = 512;
/// How many ways the kept blocks are split, so that threads seldom meet on a lock.
const SHARDS: usize = 16;

/// What a listing says of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Stands for a directory alone: an object whose key ends with `/`.
    pub marker: bool,
    /// Size in bytes.
    pub size: u64,
    /// When it was written: seconds and nanoseconds since the epoch.
    pub modified: (i64, u32),
    /// What its content is recognised by, without quotes; weak ones begin with `W/`.
    pub etag: Option<Box<str>>,
    /// The store's own name for this version.
    pub version: Option<Box<str>>,
    /// The storage class, where it is not the usual one.
    pub class: Option<Box<str>>,
}

/// An ETag as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtagRef<'a> {
    /// There is none.
    None,
    /// 32 hexadecimal digits in lower case.
    Hex(&'a [u8; 16]),
    /// Anything else.
    Text(&'a [u8]),
}

/// A [`Meta`] where it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaRef<'a> {
    /// See [`Meta`].
    pub marker: bool,
    /// Size in bytes.
    pub size: u64,
    /// Seconds and nanoseconds since the epoch.
    pub modified: (i64, u32),
    /// See [`Meta`].
    pub etag: EtagRef<'a>,
    /// See [`Meta`].
    pub version: Option<&'a [u8]>,
    /// See [`Meta`].
    pub class: Option<&'a [u8]>,
}

impl MetaRef<'_> {
    /// The same, by itself.
    pub fn to_meta(&self) -> Meta {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
        let etag = match self.etag {
            EtagRef::None => None,
            EtagRef::Hex(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()),
            EtagRef::Text(bytes) => Some(text(bytes)),
        };
        Meta {
            marker: self.marker,
            size: self.size,
            modified: self.modified,
            etag,
            version: self.version.map(text),
            class: self.class.map(text),
        }
    }
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The location that was listed, and how: another one's snapshot is of no use.
    pub location: Box<[u8]>,
    /// When the listing began.
    pub listed: SystemTime,
    /// How many keys were left out, since they are no paths.
    pub left_out: u64,
    /// The first of them, and why.
    pub named: Vec<LeftOut>,
}

/// Where a block is.
#[derive(Clone, Debug)]
struct BlockAt {
    key: Box<[u8]>,
    offset: u64,
    length: u32,
    checksum: u32,
}

/// A snapshot that is being written; see the module.
///
/// Without [`Writer::finish`] nothing is left behind.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// The file's name, and what it is to be called at the end; `None` for one without a name.
    names: Option<(PathBuf, PathBuf)>,
    end: AtomicU64,
    blocks: Mutex<Vec<BlockAt>>,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Writer {
    /// Begins a snapshot that will be at `path`, or one without a name in a directory for temporary files.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        let (file, names) = match path {
            None => (tempfile::tempfile()?, None),
            Some(path) => {
                let dir = path.parent().unwrap_or(Path::new("."));
                let made = tempfile::Builder::new().prefix(".listing-").suffix(".tmp").tempfile_in(dir)?;
                let (file, name) = made.keep().map_err(|error| error.error)?;
                (file, Some((name, path.to_owned())))
            }
        };
        file.write_all_at(MAGIC, 0)?;
        file.write_all_at(&VERSION.to_le_bytes(), MAGIC.len() as u64)?;
        Ok(Self {
            file,
            names,
            end: AtomicU64::new(HEADER_BYTES),
            blocks: Mutex::default(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// Begins a run.
    pub fn run(&self) -> Run<'_> {
        Run { writer: self, filling: Filling::default(), last: None, records: 0, bytes: 0 }
    }

    /// Drops all that was added; for when it turns out to be of no use.
    pub fn begin_anew(&self) {
        self.blocks.lock().clear();
        self.records.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// How many objects there are so far.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    fn put(&self, filling: &mut Filling) -> io::Result<()> {
        let (bytes, key) = filling.take();
        let offset = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(&bytes, offset)?;
        let at = BlockAt { key: key.into(), offset, length: bytes.len() as u32, checksum: checksum(&bytes) };
        self.blocks.lock().push(at);
        Ok(())
    }

    /// Ends it: from now on it is the snapshot at its path.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self, about: About) -> io::Result<Snapshot> {
        let mut blocks = std::mem::take(&mut *self.blocks.lock());
        blocks.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let (records, bytes) = (*self.records.get_mut(), *self.bytes.get_mut());
        let mut index = Vec::new();
        format::put_text(&mut index, &about.location);
        let listed = about.listed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format::put_varint(&mut index, u64::try_from(listed.as_nanos()).unwrap_or(u64::MAX));
        for number in [records, bytes, about.left_out, blocks.len() as u64] {
            format::put_varint(&mut index, number);
        }
        for block in &blocks {
            format::put_varint(&mut index, block.offset);
            format::put_varint(&mut index, u64::from(block.length));
            index.extend_from_slice(&block.checksum.to_le_bytes());
            format::put_text(&mut index, &block.key);
        }
        format::put_varint(&mut index, about.named.len() as u64);
        for LeftOut { key, reason } in &about.named {
            format::put_text(&mut index, key);
            format::put_text(&mut index, reason.as_bytes());
        }
        let at = *self.end.get_mut();
        let mut trailer = at.to_le_bytes().to_vec();
        trailer.extend_from_slice(&(index.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&checksum(&index).to_le_bytes());
        trailer.extend_from_slice(MAGIC);
        index.extend_from_slice(&trailer);
        self.file.write_all_at(&index, at)?;
        if let Some((own, wanted)) = &self.names {
            self.file.sync_data()?;
            std::fs::rename(own, wanted)?;
        }
        self.names = None;
        let file = self.file.try_clone()?;
        Ok(Snapshot::of(file, about, records, bytes, blocks))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some((own, _)) = &self.names {
            let _ = std::fs::remove_file(own);
        }
    }
}

/// Keys in rising order; see [`Writer`].
#[derive(Debug)]
pub struct Run<'a> {
    writer: &'a Writer,
    filling: Filling,
    last: Option<Vec<u8>>,
    records: u64,
    bytes: u64,
}

impl Run<'_> {
    /// Adds an object.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::InvalidInput`] for a key that does not come after the last one.
    pub fn push(&mut self, key: &[u8], meta: &Meta) -> io::Result<()> {
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "keys of a listing are out of order"));
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.filling.push(key, meta);
        self.records += 1;
        self.bytes += meta.size;
        if self.filling.is_full() {
            self.writer.put(&mut self.filling)?;
        }
        Ok(())
    }

    /// Ends the run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.filling.is_empty() {
            self.writer.put(&mut self.filling)?;
        }
        self.writer.records.fetch_add(self.records, Ordering::Relaxed);
        self.writer.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// The objects below a prefix as they were at some time; see the module.
pub struct Snapshot {
    file: File,
    about: About,
    records: u64,
    bytes: u64,
    blocks: Vec<BlockAt>,
    kept: Vec<Mutex<LruCache<usize, Arc<Block>>>>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("about", &self.about).field("records", &self.records).finish_non_exhaustive()
    }
}

impl Snapshot {
    fn of(file: File, about: About, records: u64, bytes: u64, blocks: Vec<BlockAt>) -> Self {
        let room = std::num::NonZeroUsize::new(KEPT_BLOCKS / SHARDS).expect("not zero");
        let kept = (0..SHARDS).map(|_| Mutex::new(LruCache::new(room))).collect();
        Self { file, about, records, bytes, blocks, kept }
    }

    /// Opens the snapshot at a path.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::InvalidData`] for what is none, or is damaged.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if length < HEADER_BYTES + TRAILER_BYTES {
            return Err(damaged());
        }
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut header, 0)?;
        let mut trailer = [0; TRAILER_BYTES as usize];
        file.read_exact_at(&mut trailer, length - TRAILER_BYTES)?;
        if !header.starts_with(MAGIC) || header[MAGIC.len()..] != VERSION.to_le_bytes() || !trailer.ends_with(MAGIC) {
            return Err(damaged());
        }
        let number = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
        let (at, size) = (number(0), number(8));
        let ends = at.checked_add(size).is_some_and(|end| end == length - TRAILER_BYTES);
        if !ends || at < HEADER_BYTES {
            return Err(damaged());
        }
        let mut index = vec![0; usize::try_from(size).map_err(|_| damaged())?];
        file.read_exact_at(&mut index, at)?;
        if trailer[16..20] != checksum(&index).to_le_bytes() {
            return Err(damaged());
        }
        let mut reader = Reader(&index);
        let location = reader.text()?.into();
        let listed = SystemTime::UNIX_EPOCH + Duration::from_nanos(reader.varint()?);
        let (records, bytes, left_out) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let count = reader.length()?;
        // No more than there can be, whatever it says.
        let mut blocks: Vec<BlockAt> = Vec::with_capacity(count.min(index.len() / 7));
        for _ in 0..count {
            let (offset, length) = (reader.varint()?, reader.varint()?);
            let checksum = reader.u32()?;
            let key: Box<[u8]> = reader.text()?.into();
            let fits = offset >= HEADER_BYTES && offset.checked_add(length).is_some_and(|end| end <= at);
            let rises = blocks.last().is_none_or(|last| last.key < key);
            let length = u32::try_from(length).map_err(|_| damaged())?;
            if !fits || !rises {
                return Err(damaged());
            }
            blocks.push(BlockAt { key, offset, length, checksum });
        }
        let mut named = Vec::new();
        for _ in 0..reader.length()? {
            let (key, reason) = (reader.text()?.into(), reader.text()?);
            named.push(LeftOut { key, reason: String::from_utf8_lossy(reason).into_owned().into() });
        }
        Ok(Self::of(file, About { location, listed, left_out, named }, records, bytes, blocks))
    }

    /// What it is of.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// How many objects there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many bytes they have together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn block(&self, at: usize) -> io::Result<Arc<Block>> {
        let kept = &self.kept[at % SHARDS];
        if let Some(block) = kept.lock().get(&at) {
            return Ok(Arc::clone(block));
        }
        let place = &self.blocks[at];
        let mut bytes = vec![0; place.length as usize];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        if checksum(&bytes) != place.checksum {
            return Err(damaged());
        }
        let block = Arc::new(Block::new(bytes.into())?);
        kept.lock().put(at, Arc::clone(&block));
        Ok(block)
    }

    /// A cursor at the first key that is not below `key`.
    ///
    /// # Errors
    /// Those of the file system, also while it moves; [`io::ErrorKind::InvalidData`] for a damaged file.
    pub fn seek(self: &Arc<Self>, key: &[u8]) -> io::Result<Cursor> {
        let mut cursor = Cursor { snapshot: Arc::clone(self), at: 0, block: None, place: 0, next: 0, key: Vec::new() };
        cursor.seek(key)?;
        Ok(cursor)
    }

    /// What is known of the object with exactly this key.
    ///
    /// # Errors
    /// As [`Snapshot::seek`].
    pub fn get(self: &Arc<Self>, key: &[u8]) -> io::Result<Option<Meta>> {
        let cursor = self.seek(key)?;
        Ok(if cursor.key() == Some(key) { cursor.meta()?.map(|meta| meta.to_meta()) } else { None })
    }

    /// True if there is a key that begins so.
    ///
    /// # Errors
    /// As [`Snapshot::seek`].
    pub fn has_prefix(self: &Arc<Self>, prefix: &[u8]) -> io::Result<bool> {
        Ok(self.seek(prefix)?.key().is_some_and(|key| key.starts_with(prefix)))
    }
}

/// A place among the keys of a snapshot.
#[derive(Debug)]
pub struct Cursor {
    snapshot: Arc<Snapshot>,
    /// The block's number; `block` is `None` past the last one.
    at: usize,
    block: Option<Arc<Block>>,
    /// Where the record is in the block, and where the next one is.
    place: usize,
    next: usize,
    key: Vec<u8>,
}

impl Cursor {
    /// The key; `None` past the last one.
    pub fn key(&self) -> Option<&[u8]> {
        self.block.as_ref().map(|_| &*self.key)
    }

    /// What is known of the object; `None` past the last one.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a damaged file.
    pub fn meta(&self) -> io::Result<Option<MetaRef<'_>>> {
        self.block.as_ref().map(|block| block.meta(self.place)).transpose()
    }

    /// Moves to the next key.
    ///
    /// # Errors
    /// As [`Snapshot::seek`].
    pub fn advance(&mut self) -> io::Result<()> {
        let Some(block) = &self.block else { return Ok(()) };
        match block.read(self.next, &mut self.key)? {
            Some((_, next)) => (self.place, self.next) = (self.next, next),
            None => self.enter(self.at + 1, 0)?,
        }
        Ok(())
    }

    /// Moves to the first key that is not below `key`, from anywhere.
    ///
    /// # Errors
    /// As [`Snapshot::seek`].
    pub fn seek(&mut self, key: &[u8]) -> io::Result<()> {
        let at = self.snapshot.blocks.partition_point(|block| &*block.key <= key).saturating_sub(1);
        if at >= self.snapshot.blocks.len() {
            self.block = None;
            return Ok(());
        }
        if self.block.is_none() || self.at != at {
            self.block = Some(self.snapshot.block(at)?);
            self.at = at;
        }
        let from = self.block.as_ref().expect("there is one").before(key)?;
        self.enter_at(from)?;
        while self.key().is_some_and(|own| own < key) {
            self.advance()?;
        }
        Ok(())
    }

    /// Goes to a record of a block, past the last one to none.
    fn enter(&mut self, at: usize, place: usize) -> io::Result<()> {
        if at >= self.snapshot.blocks.len() {
            self.block = None;
            return Ok(());
        }
        self.block = Some(self.snapshot.block(at)?);
        self.at = at;
        self.enter_at(place)
    }

    /// Goes to a record of this block that has its key whole.
    fn enter_at(&mut self, place: usize) -> io::Result<()> {
        self.key.clear();
        let block = self.block.as_ref().expect("a block is entered first");
        match block.read(place, &mut self.key)? {
            Some((_, next)) => (self.place, self.next) = (place, next),
            None => return Err(damaged()),
        }
        Ok(())
    }
}
