//! Blocks of objects on disk, so that what was read is not got again, also after a remount.
//!
//! A block is a MiB of an object, or less at its end, in a file of its own: `blocks-1/KK/KEY`, where KEY is a hash of
//! source, key, version, size and number of the block, in hexadecimal, and KK its first two digits.
//!
//! ```text
//! file, little endian = magic "veinblok" | key u128 | length u32 | CRC-32C u32 | the bytes of the block
//! ```
//!
//! Nothing here is trusted: what is not whole, or of another key, counts as missing and is removed. Files come under their
//! names whole (rename(2)) and are not synced: a crash costs some of them. Several processes may use one directory: what one
//! removes is missing to the other; each keeps the bound by what it has seen, and looks around again now and then.
//!
//! Which block goes is chosen by SIEVE (Zhang et al., NSDI 2024): a hand goes from the oldest to the newest and takes the
//! first that was not used since it came by.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 1 << 20;
const MAGIC: &[u8; 8] = b"veinblok";
const HEADER_BYTES: usize = 32;
/// Blocks that wait to be written; more are not kept.
const WAITING: usize = 64;
/// The directory of blocks in this form.
const BLOCKS: &str = "blocks-1";

/// What a block is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey(u128);

impl BlockKey {
    /// A block of a version of an object: `of` tells the version from all others.
    pub fn new(of: &[u8], number: u64) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&number.to_le_bytes());
        hash.update(of);
        Self(hash.digest128())
    }

    fn path(self, dir: &Path) -> PathBuf {
        let name = format!("{:032x}", self.0);
        dir.join(&name[..2]).join(name)
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    bytes: u64,
    used: bool,
    at: u64,
}

/// The blocks that are there, in the order in which they came.
#[derive(Debug, Default)]
struct Index {
    blocks: HashMap<u128, Known>,
    order: std::collections::BTreeMap<u64, u128>,
    next: u64,
    hand: u64,
    bytes: u64,
}

impl Index {
    fn insert(&mut self, key: u128, bytes: u64) {
        self.remove(key);
        let at = self.next;
        self.next += 1;
        self.blocks.insert(key, Known { bytes, used: false, at });
        self.order.insert(at, key);
        self.bytes += bytes;
    }

    fn remove(&mut self, key: u128) {
        if let Some(known) = self.blocks.remove(&key) {
            self.order.remove(&known.at);
            self.bytes -= known.bytes;
        }
    }

    /// The block that goes next.
    fn victim(&mut self) -> Option<u128> {
        // Twice around all have been passed over once.
        for _ in 0..=2 * self.order.len() {
            let next = self.order.range(self.hand..).next().or_else(|| self.order.iter().next());
            let (at, key) = next.map(|(at, key)| (*at, *key))?;
            self.hand = at + 1;
            let known = self.blocks.get_mut(&key)?;
            if !std::mem::take(&mut known.used) {
                self.remove(key);
                return Some(key);
            }
        }
        None
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    limit: u64,
    index: Mutex<Index>,
    writing: Mutex<Writing>,
    /// So that the one who writes does not keep it.
    own: Weak<Self>,
    off: AtomicBool,
    written: AtomicU64,
}

/// The thread that writes; there is none before there is something to be written.
#[derive(Debug)]
enum Writing {
    NotYet,
    Begun(SyncSender<(BlockKey, Bytes)>, JoinHandle<()>),
    Over,
}

impl Cache {
    /// The blocks in a directory, which is made if it is missing; they take `limit` bytes at most.
    ///
    /// # Errors
    /// If the directory cannot be used, or is another user's.
    pub fn open(dir: &Path, limit: u64) -> io::Result<Arc<Self>> {
        let dir = dir.join(BLOCKS);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let meta = fs::metadata(&dir)?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory is another user's"));
        }
        if meta.mode() & 0o077 != 0 {
            // What is in it is what its user may read.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        }
        let cache = Arc::new_cyclic(|own| Self {
            dir,
            limit,
            index: Mutex::default(),
            writing: Mutex::new(Writing::NotYet),
            own: Weak::clone(own),
            off: AtomicBool::new(false),
            written: AtomicU64::new(0),
        });
        cache.look_around();
        Ok(cache)
    }

    /// Learns what is there.
    fn look_around(&self) {
        let mut found: Vec<(SystemTime, u128, u64)> = Vec::new();
        let dirs = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in dirs.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten()) {
            let Ok(meta) = entry.metadata() else { continue };
            let name = entry.file_name();
            let key =
                name.to_str().filter(|name| name.len() == 32).and_then(|name| u128::from_str_radix(name, 16).ok());
            match key {
                Some(key) => found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), key, meta.len())),
                // Left by a crash; one that is being written is not older than a minute.
                None if meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 60)) => {
                    let _ = fs::remove_file(entry.path());
                }
                None => {}
            }
        }
        found.sort_unstable();
        let mut index = self.index.lock();
        let used: Vec<u128> = index.blocks.iter().filter(|(_, known)| known.used).map(|(key, _)| *key).collect();
        *index = Index::default();
        found.into_iter().for_each(|(_, key, bytes)| index.insert(key, bytes));
        for key in used {
            if let Some(known) = index.blocks.get_mut(&key) {
                known.used = true;
            }
        }
    }

    /// A block of so many bytes, if it is there and sound.
    pub fn get(&self, key: BlockKey, length: usize) -> Option<Bytes> {
        if !self.index.lock().blocks.contains_key(&key.0) {
            return None;
        }
        let path = key.path(&self.dir);
        let found = read(&path, key, length);
        let mut index = self.index.lock();
        match &found {
            Ok(_) => {
                if let Some(known) = index.blocks.get_mut(&key.0) {
                    known.used = true;
                }
            }
            Err(error) => {
                index.remove(key.0);
                drop(index);
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(file = %path.display(), %error, "a block of the cache is of no use");
                    let _ = fs::remove_file(&path);
                }
            }
        }
        found.ok()
    }

    /// True if a block may be there.
    pub fn may_have(&self, key: BlockKey) -> bool {
        self.index.lock().blocks.contains_key(&key.0)
    }

    /// Keeps a block, soon; not if too many wait to be written.
    pub fn put(&self, key: BlockKey, bytes: Bytes) {
        if self.off.load(Ordering::Relaxed) || self.may_have(key) {
            return;
        }
        let mut writing = self.writing.lock();
        if matches!(*writing, Writing::NotYet) {
            let (sender, received) = sync_channel(WAITING);
            let own = Weak::clone(&self.own);
            *writing = match std::thread::Builder::new().name("cache".into()).spawn(move || write(&received, &own)) {
                Ok(thread) => Writing::Begun(sender, thread),
                Err(error) => {
                    tracing::warn!(%error, "the cache is not added to");
                    Writing::Over
                }
            };
        }
        if let Writing::Begun(queue, _) = &*writing {
            // A full queue costs a request later.
            let _ = queue.try_send((key, bytes));
        }
    }

    /// Bytes of the blocks that are known.
    pub fn bytes(&self) -> u64 {
        self.index.lock().bytes
    }

    fn store(&self, key: BlockKey, bytes: &[u8]) -> io::Result<()> {
        let path = key.path(&self.dir);
        let size = (HEADER_BYTES + bytes.len()) as u64;
        if size > self.limit {
            return Ok(());
        }
        loop {
            let mut index = self.index.lock();
            if index.bytes + size <= self.limit {
                break;
            }
            let Some(victim) = index.victim() else { break };
            drop(index);
            let _ = fs::remove_file(BlockKey(victim).path(&self.dir));
        }
        let dir = path.parent().unwrap_or(&self.dir);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let own = dir.join(format!(".{}-{:x}", std::process::id(), self.written.fetch_add(1, Ordering::Relaxed)));
        let written =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&own).and_then(|mut file| {
                file.write_all(&header(key, bytes))?;
                file.write_all(bytes)?;
                fs::rename(&own, &path)
            });
        if written.is_err() {
            let _ = fs::remove_file(&own);
        }
        written?;
        self.index.lock().insert(key.0, size);
        Ok(())
    }

    /// Waits until all is written that was to be kept; nothing is kept any more.
    pub fn close(&self) {
        let before = std::mem::replace(&mut *self.writing.lock(), Writing::Over);
        if let Writing::Begun(queue, thread) = before {
            drop(queue);
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }
}

fn write(received: &Receiver<(BlockKey, Bytes)>, cache: &Weak<Cache>) {
    let mut since = 0;
    while let Ok((key, bytes)) = received.recv() {
        let Some(cache) = cache.upgrade() else { return };
        match cache.store(key, &bytes) {
            Ok(()) => since += bytes.len() as u64,
            Err(error) => {
                cache.off.store(true, Ordering::Relaxed);
                tracing::warn!(directory = %cache.dir.display(), %error, "the cache is not added to any more");
                return;
            }
        }
        // Others may have written as well.
        if since > cache.limit / 8 + (64 << 20) {
            since = 0;
            cache.look_around();
        }
    }
}

fn header(key: BlockKey, bytes: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..24].copy_from_slice(&key.0.to_le_bytes());
    header[24..28].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    header[28..].copy_from_slice(&checksum(bytes).to_le_bytes());
    header
}

fn read(path: &Path, key: BlockKey, length: usize) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let mut all = Vec::with_capacity(HEADER_BYTES + length + 1);
    (&mut file).take((HEADER_BYTES + length + 1) as u64).read_to_end(&mut all)?;
    let (head, bytes) = all.split_at_checked(HEADER_BYTES).ok_or(io::ErrorKind::UnexpectedEof)?;
    if bytes.len() != length || *head != header(key, bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not what was written"));
    }
    Ok(Bytes::from(all).slice(HEADER_BYTES..))
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> BlockKey {
        BlockKey::new(b"object", number)
    }

    fn block(number: u64) -> Bytes {
        Bytes::from(vec![number as u8; 1000])
    }

    #[test]
    fn blocks_outlive_the_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(dir.path(), 1 << 20).expect("a cache");
        (0..20).for_each(|number| cache.put(key(number), block(number)));
        cache.close();
        let again = Cache::open(dir.path(), 1 << 20).expect("a cache");
        for number in 0..20 {
            assert_eq!(again.get(key(number), 1000), Some(block(number)));
        }
        assert_eq!(again.get(key(20), 1000), None);
        assert_eq!(again.get(key(1), 999), None, "of another length it is another one");
        assert_eq!(fs::metadata(dir.path().join(BLOCKS)).expect("it").mode() & 0o777, 0o700);
    }

    #[test]
    fn the_bound_is_kept_and_what_is_used_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let limit = 10 * 1032;
        let cache = Cache::open(dir.path(), limit).expect("a cache");
        for number in 0..100 {
            cache.store(key(number), &block(number)).expect("written");
            assert!(cache.bytes() <= limit);
            // One that is used all the time.
            assert!(cache.get(key(0), 1000).is_some(), "{number}");
        }
        assert!(cache.get(key(99), 1000).is_some());
        assert!(cache.get(key(50), 1000).is_none());
        cache.look_around();
        assert!(cache.bytes() <= limit && cache.get(key(0), 1000).is_some());
    }

    #[test]
    fn damage_is_never_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(dir.path(), 1 << 20).expect("a cache");
        let path = key(1).path(&cache.dir);
        cache.store(key(1), &block(1)).expect("written");
        let whole = fs::read(&path).expect("it");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("written");
            cache.look_around();
            assert_eq!(cache.get(key(1), 1000), None, "{at}");
        }
        for length in [0, 5, 32, 500, whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("written");
            cache.look_around();
            assert_eq!(cache.get(key(1), 1000), None, "{length}");
        }
        // Another's under this name.
        cache.store(key(2), &block(2)).expect("written");
        fs::create_dir_all(path.parent().expect("one")).expect("made");
        fs::copy(key(2).path(&cache.dir), &path).expect("copied");
        cache.look_around();
        assert_eq!(cache.get(key(1), 1000), None);
        assert_eq!(cache.get(key(2), 1000), Some(block(2)));
        fs::remove_file(key(2).path(&cache.dir)).expect("removed");
        assert_eq!(cache.get(key(2), 1000), None, "by another process, say");
    }
}
