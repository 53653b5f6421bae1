//! Reading objects through windows ahead of those who read on, and by exact ranges for those who do not.
//!
//! An open object ([`Reader`]) knows some `Stream`s: places from which somebody reads on. What is ahead of a stream is got
//! in `Part`s, several at once, as far as its window goes: that grows while it is used up and is bound by the memory that
//! all readers share (`Budget`). A read waits for the bytes that it needs, not for whole parts. Somebody who reads here and
//! there gets what is asked for and nothing ahead. What one reader of a version has got, or is getting, serves the others
//! of it as well (`Version`).
//!
//! All bytes are of the version that was listed: requests name it (`If-Match`), and answers are compared with it, as
//! some servers do not look. Once an object turned out to be another one, an open one gives ESTALE for good.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::cache::{BLOCK_BYTES, BlockKey, Cache};
use super::client::Client;
use super::connect::runtime;
use super::fault::{Fault, FaultKind};
use super::snapshot::Meta;
use super::tree::{Done, ReadObject, Ticket};

mod fill;
mod gate;

use gate::{Budget, Gate, Grant};

/// What is got ahead of a first read, in bytes.
const FIRST_AHEAD: u64 = 128 << 10;
/// The largest window.
const MOST_AHEAD: u64 = 64 << 20;
/// The largest part.
const PART_BYTES: u64 = 8 << 20;
/// The smallest part that is got ahead, but for smaller windows: those are one part.
const LEAST_PART: u64 = 1 << 20;
/// What is read by exact ranges begins and ends at multiples of this.
const GRAIN: u64 = 4 << 10;
/// The kernel asks for pages a little out of order: so far from a stream's place still belongs to it.
const NEAR: u64 = 1 << 20;
/// Streams that an open object knows.
const STREAMS: usize = 8;
/// Somebody who began anew so often reads here and there.
const MISSES: u32 = 2;
/// Requests at once for one open object.
const REQUESTS: usize = 8;
/// A reader that was not used for so long gives back what it has ahead.
const IDLE: Duration = Duration::from_secs(5);
/// How often is looked for such readers.
const LOOK: Duration = Duration::from_millis(100);
/// Faults that were told of, so that each is told once an object.
const TOLD: usize = 1024;

/// What all readers share.
#[derive(Debug)]
pub struct Engine {
    budget: Arc<Budget>,
    cache: Option<Arc<Cache>>,
    readers: Mutex<Vec<Weak<Shared>>>,
    /// What is open, by what tells it from all others.
    versions: Mutex<HashMap<Box<[u8]>, Weak<Version>>>,
    open: AtomicUsize,
    looked: Mutex<Option<Instant>>,
    clock: AtomicU64,
}

impl Engine {
    /// Readers that hold so many bytes at most, and keep blocks in a cache if there is one.
    pub fn new(memory_bytes: u64, cache: Option<Arc<Cache>>) -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::new(Budget::new(memory_bytes)),
            cache,
            readers: Mutex::default(),
            versions: Mutex::default(),
            open: AtomicUsize::new(0),
            looked: Mutex::new(None),
            clock: AtomicU64::new(0),
        })
    }

    /// Bytes that readers hold.
    pub fn memory_in_use(&self) -> u64 {
        self.budget.in_use()
    }

    /// The cache on disk.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// The largest window of each of those who read.
    fn most_ahead(&self) -> u64 {
        let share = self.budget.total() / 2 / (self.open.load(Ordering::Relaxed).max(1) as u64);
        share.min(MOST_AHEAD)
    }

    /// Takes from those who do not read what they have ahead; from all, if `all`.
    fn reclaim(&self, all: bool) {
        {
            let mut looked = self.looked.lock();
            if looked.is_some_and(|at| at.elapsed() < LOOK) {
                return;
            }
            *looked = Some(Instant::now());
        }
        let readers: Vec<Arc<Shared>> = self.readers.lock().iter().filter_map(Weak::upgrade).collect();
        for reader in readers {
            // One that is at it just now is not idle.
            if let Some(mut state) = reader.state.try_lock()
                && (all || state.used.elapsed() > IDLE)
            {
                state.drop_ahead();
            }
        }
    }

    /// What the readers of a version share.
    fn version(&self, id: Box<[u8]>) -> Arc<Version> {
        let mut versions = self.versions.lock();
        if let Some(version) = versions.get(&id).and_then(Weak::upgrade) {
            return version;
        }
        if versions.len() > 2 * self.open.load(Ordering::Relaxed) + 64 {
            versions.retain(|_, version| version.strong_count() > 0);
        }
        let version = Arc::new(Version { id: id.clone(), parts: Mutex::default() });
        versions.insert(id, Arc::downgrade(&version));
        version
    }

    fn add(&self, reader: &Arc<Shared>) {
        let mut readers = self.readers.lock();
        if readers.len() > 2 * self.open.load(Ordering::Relaxed) + 64 {
            readers.retain(|reader| reader.strong_count() > 0);
        }
        readers.push(Arc::downgrade(reader));
        self.open.fetch_add(1, Ordering::Relaxed);
    }
}

/// A bucket that is read from.
#[derive(Debug)]
pub struct Remote {
    client: Arc<Client>,
    gate: Gate,
    /// What tells it from others in the cache.
    id: Box<[u8]>,
    told: Mutex<LruCache<(u64, FaultKind), ()>>,
    /// Keys of objects that turned out to be others than were listed.
    replaced: Mutex<LruCache<Box<str>, ()>>,
}

impl Remote {
    /// The bucket that a client speaks to.
    pub fn new(client: Arc<Client>, id: &[u8]) -> Arc<Self> {
        let most = std::num::NonZeroUsize::new(TOLD).expect("some");
        let (told, replaced) = (Mutex::new(LruCache::new(most)), Mutex::new(LruCache::new(most)));
        Arc::new(Self { client, gate: Gate::default(), id: id.into(), told, replaced })
    }

    /// True if an object turned out to be another one than was listed, and nobody has looked since what it is now.
    pub(super) fn was_replaced(&self, key: &str) -> bool {
        self.replaced.lock().contains(key)
    }

    /// Somebody has looked what an object is now.
    pub(super) fn note_current(&self, key: &str) {
        self.replaced.lock().pop(key);
    }

    /// Tells of a fault, once an object.
    fn tell(&self, key: &str, fault: &Fault) {
        let id = (xxhash_rust::xxh3::xxh3_64(key.as_bytes()), fault.kind);
        if self.told.lock().put(id, ()).is_none() {
            tracing::warn!(object = key, "{fault}");
        }
    }
}

/// An open object.
#[derive(Debug)]
pub struct Reader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    engine: Arc<Engine>,
    remote: Arc<Remote>,
    key: String,
    meta: Meta,
    version: Arc<Version>,
    requests: Semaphore,
    state: Mutex<State>,
}

/// A version of an object that is open, once or more.
#[derive(Debug)]
struct Version {
    /// What tells it from all others.
    id: Box<[u8]>,
    parts: Mutex<Known>,
}

/// Parts that somebody holds, by where they begin. They do not overlap, but for those that failed.
#[derive(Debug, Default)]
struct Known {
    parts: BTreeMap<u64, Weak<Part>>,
    /// So many are looked through for those that nobody holds any more.
    crowded: usize,
}

impl Known {
    /// The part that a byte is in; else the gap between two of them. What failed is none.
    fn find(&self, at: u64) -> Result<Arc<Part>, Range<u64>> {
        let sound = |part: &Weak<Part>| part.upgrade().filter(|part| part.filled.lock().fault.is_none());
        let begin = match self.parts.range(..=at).rev().find_map(|(_, part)| sound(part)) {
            Some(part) if part.end > at => return Ok(part),
            Some(part) => part.end,
            None => 0,
        };
        let next = self.parts.range(at..).find(|(_, part)| sound(part).is_some());
        Err(begin..next.map_or(u64::MAX, |(begin, _)| *begin))
    }

    fn insert(&mut self, part: &Arc<Part>) {
        if self.parts.len() >= self.crowded {
            self.parts.retain(|_, part| part.strong_count() > 0);
            self.crowded = 2 * self.parts.len() + 16;
        }
        self.parts.insert(part.begin, Arc::downgrade(part));
    }
}

#[derive(Debug)]
struct State {
    streams: Vec<Stream>,
    /// What this reader holds, by where it begins.
    parts: BTreeMap<u64, Arc<Part>>,
    misses: u32,
    failed: Option<Fault>,
    used: Instant,
}

/// Somebody who reads on.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Where the next read is expected.
    next: u64,
    /// Up to where it is got, or is being got.
    planned: u64,
    /// Where it began to read on.
    begun: u64,
    /// How far ahead: twice as far as it has read on; 0 for one who has not yet.
    window: u64,
    /// When it was used last.
    used: u64,
}

/// A range of an object that is got by one request.
#[derive(Debug)]
struct Part {
    begin: u64,
    end: u64,
    filled: Mutex<Filled>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
struct Filled {
    /// As they came, each with where it begins in the part.
    pieces: Vec<(u64, Bytes)>,
    length: u64,
    fault: Option<Fault>,
    /// The memory that it takes.
    grant: Option<Grant>,
    /// Reads that wait for bytes of it, each with the offset up to which it needs them.
    waiting: Vec<(u64, Arc<Pending>)>,
}

impl Drop for Part {
    fn drop(&mut self) {
        // Nobody waits for it any more.
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

impl Part {
    /// Adds what came, and answers those who waited for it.
    fn add(&self, bytes: Bytes) {
        let mut filled = self.filled.lock();
        let at = filled.length;
        filled.length += bytes.len() as u64;
        filled.pieces.push((at, bytes));
        self.wake(filled);
    }

    /// No more comes.
    fn fail(&self, fault: Fault) {
        let mut filled = self.filled.lock();
        filled.fault = Some(fault);
        self.wake(filled);
    }

    fn wake(&self, mut filled: parking_lot::MutexGuard<'_, Filled>) {
        if filled.waiting.is_empty() {
            return;
        }
        let (has, failed) = (self.begin + filled.length, filled.fault.is_some());
        let ready: Vec<Arc<Pending>> =
            filled.waiting.extract_if(.., |(end, _)| failed || has >= *end).map(|(_, read)| read).collect();
        drop(filled);
        ready.iter().for_each(Pending::go_on);
    }
}

/// A read that is under way.
///
/// Whoever brings the last bytes that it needs answers it: a task of its own that is woken for that was measured to cost a
/// sixth of a random read.
struct Pending {
    shared: Arc<Shared>,
    offset: u64,
    end: u64,
    /// What it needs, and whom to tell; gone once it is answered or given up.
    open: Mutex<Option<(Vec<Arc<Part>>, Done)>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("offset", &self.offset).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Pending {
    /// Answers, or waits for the first part that has not enough.
    fn go_on(self: &Arc<Self>) {
        let mut open = self.open.lock();
        let Some((parts, _)) = &*open else { return };
        for part in parts {
            let mut filled = part.filled.lock();
            let end = self.end.min(part.end);
            if filled.fault.is_none() && part.begin + filled.length < end {
                filled.waiting.push((end, Arc::clone(self)));
                return;
            }
        }
        let Some((parts, done)) = open.take() else { return };
        drop(open);
        let gathered = gather(&parts, self.offset, self.end);
        drop(parts);
        done(gathered.map_err(|fault| self.shared.failed(&fault)));
    }
}

/// The bytes of a read, of parts that have them.
fn gather(parts: &[Arc<Part>], offset: u64, end: u64) -> Result<Vec<Bytes>, Fault> {
    let (mut pieces, mut at) = (Vec::new(), offset);
    for part in parts {
        let filled = part.filled.lock();
        let to = end.min(part.begin + filled.length);
        let first = filled.pieces.partition_point(|(begin, piece)| part.begin + begin + piece.len() as u64 <= at);
        for (begin, piece) in &filled.pieces[first..] {
            let begin = part.begin + begin;
            if begin >= to {
                break;
            }
            let until = to.min(begin + piece.len() as u64);
            pieces.push(piece.slice((at - begin) as usize..(until - begin) as usize));
            at = until;
        }
        if at < end.min(part.end)
            && let Some(fault) = &filled.fault
        {
            return Err(fault.clone());
        }
    }
    Ok(pieces)
}

/// A read that is given up with its ticket.
struct GivenUp(Arc<Pending>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        let open = self.0.open.lock().take();
        drop(open);
    }
}

impl State {
    fn stream_at(&mut self, offset: u64) -> Option<usize> {
        let near = |stream: &Stream| {
            let last = stream.planned.max(stream.next.saturating_add(stream.window.min(NEAR)));
            offset.saturating_add(NEAR.min(stream.window)) >= stream.next && offset <= last
        };
        let found = self.streams.iter().enumerate().filter(|(_, stream)| near(stream));
        found.min_by_key(|(_, stream)| stream.next.abs_diff(offset)).map(|(at, _)| at)
    }

    /// Forgets parts that no stream needs any more.
    fn forget(&mut self) {
        let streams = &self.streams;
        self.parts.retain(|_, part| {
            streams.iter().any(|stream| {
                let behind = stream.next.saturating_sub(if stream.window == 0 { 0 } else { NEAR });
                part.end > behind && part.begin < stream.planned
            })
        });
    }

    fn drop_ahead(&mut self) {
        // What is waited for is held by those who wait.
        self.parts.clear();
        for stream in &mut self.streams {
            stream.begun = stream.next;
            stream.planned = stream.planned.min(stream.next);
        }
    }
}

impl Shared {
    /// Has all got that a read needs, and what is ahead of it; gives the parts that it is in.
    fn plan(self: &Arc<Self>, state: &mut State, offset: u64, end: u64) -> Vec<Arc<Part>> {
        let size = self.meta.size;
        let now = self.engine.clock.fetch_add(1, Ordering::Relaxed);
        let at = match state.stream_at(offset) {
            Some(at) => {
                let most = self.engine.most_ahead().max(FIRST_AHEAD);
                let stream = &mut state.streams[at];
                stream.next = stream.next.max(end);
                if stream.window == 0 {
                    state.misses = 0;
                }
                stream.window = (2 * (stream.next - stream.begun.min(stream.next))).clamp(FIRST_AHEAD, most);
                at
            }
            None => {
                state.misses += 1;
                let window = if state.misses > MISSES { 0 } else { FIRST_AHEAD };
                if state.streams.len() == STREAMS {
                    let oldest = state.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
                    let oldest = oldest.map_or(0, |(at, _)| at);
                    state.streams.swap_remove(oldest);
                }
                state.streams.push(Stream { next: end, planned: offset, begun: offset, window, used: now });
                state.streams.len() - 1
            }
        };
        let stream = &mut state.streams[at];
        stream.used = now;
        let mut stream = *stream;
        let mut known = self.version.parts.lock();
        // What is needed; what failed is tried again.
        let grain = if stream.window > 0 && self.engine.cache.is_some() { BLOCK_BYTES } else { GRAIN };
        let (mut needed, mut from) = (Vec::new(), offset);
        while from < end {
            let part = known.find(from).unwrap_or_else(|gap| {
                let begin = (from / grain * grain).max(gap.start);
                // What is ahead at first comes with it: two requests would come later than one.
                let ahead = if stream.window <= FIRST_AHEAD { stream.window } else { 0 };
                let until = (end + ahead).next_multiple_of(grain).min(size).min(gap.end);
                self.get(&mut known, begin, until, None)
            });
            from = part.end;
            state.parts.insert(part.begin, Arc::clone(&part));
            needed.push(part);
        }
        // What is ahead.
        if stream.window > 0 {
            let target = stream.next.saturating_add(stream.window).min(size);
            let mut from = stream.planned.max(from);
            let part = (stream.window / 4).clamp(LEAST_PART.min(stream.window), PART_BYTES);
            while from < target {
                let next = match known.find(from) {
                    Ok(part) => {
                        from = part.end;
                        state.parts.insert(part.begin, part);
                        continue;
                    }
                    Err(gap) => gap.end,
                };
                let until =
                    if self.engine.cache.is_some() { (from + part).next_multiple_of(BLOCK_BYTES) } else { from + part };
                let until = until.min(size).min(next);
                // A little at a time would be many requests.
                if until > target && until < size && until - target > part / 2 {
                    break;
                }
                let Some(grant) = self.engine.budget.try_take(until - from) else {
                    self.engine.reclaim(false);
                    break;
                };
                let part = self.get(&mut known, from, until, Some(grant));
                from = until;
                state.parts.insert(part.begin, part);
            }
            stream.planned = stream.planned.max(from);
        } else {
            stream.planned = end;
        }
        state.streams[at] = stream;
        drop(known);
        state.forget();
        needed
    }

    /// Has a part got.
    fn get(self: &Arc<Self>, known: &mut Known, begin: u64, end: u64, grant: Option<Grant>) -> Arc<Part> {
        let filled = Mutex::new(Filled { grant, ..Filled::default() });
        let part = Arc::new(Part { begin, end, filled, task: Mutex::new(None) });
        // It may go on without the one who asked; it ends when nobody knows the part any more.
        let task = runtime().spawn(fill::fill(Arc::clone(self), Arc::downgrade(&part), begin, end));
        *part.task.lock() = Some(task.abort_handle());
        known.insert(&part);
        part
    }

    fn failed(&self, fault: &Fault) -> io::Error {
        self.remote.tell(&self.key, fault);
        if matches!(fault.kind, FaultKind::Replaced | FaultKind::Gone) {
            let mut state = self.state.lock();
            // Not each time that somebody tries to read on: what it is now may be known by then.
            if state.failed.is_none() {
                state.failed = Some(fault.clone());
                self.remote.replaced.lock().put(self.key.as_str().into(), ());
            }
        }
        fault.clone().into()
    }
}

impl Reader {
    /// Opens a version of an object; no request is made.
    pub fn new(engine: &Arc<Engine>, remote: &Arc<Remote>, key: String, meta: &Meta) -> Self {
        let version = format!("{key}\0{} {:?} {:?} {:?}", meta.size, meta.etag, meta.version, meta.modified);
        let version = [&*remote.id, b"\0", version.as_bytes()].concat().into_boxed_slice();
        let state =
            State { streams: Vec::new(), parts: BTreeMap::new(), misses: 0, failed: None, used: Instant::now() };
        let shared = Arc::new(Shared {
            engine: Arc::clone(engine),
            remote: Arc::clone(remote),
            key,
            meta: meta.clone(),
            version: engine.version(version),
            requests: Semaphore::new(REQUESTS),
            state: Mutex::new(state),
        });
        engine.add(&shared);
        Self(shared)
    }

    fn block(shared: &Shared, number: u64) -> BlockKey {
        BlockKey::new(&shared.version.id, number)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.engine.open.fetch_sub(1, Ordering::Relaxed);
        // Those that are under way end with their parts.
        let parts = std::mem::take(&mut self.0.state.lock().parts);
        drop(parts);
    }
}

impl ReadObject for Reader {
    fn read(&self, offset: u64, length: usize, done: Done) -> Ticket {
        let shared = &self.0;
        let end = offset.saturating_add(length as u64).min(shared.meta.size);
        if offset >= end {
            done(Ok(Vec::new()));
            return Ticket(None);
        }
        let mut state = shared.state.lock();
        state.used = Instant::now();
        if let Some(fault) = state.failed.clone() {
            drop(state);
            done(Err(fault.into()));
            return Ticket(None);
        }
        let parts = shared.plan(&mut state, offset, end);
        drop(state);
        let open = Mutex::new(Some((parts, done)));
        let read = Arc::new(Pending { shared: Arc::clone(shared), offset, end, open });
        read.go_on();
        let waits = read.open.lock().is_some();
        Ticket(waits.then(|| Box::new(GivenUp(read)) as _))
    }

    fn read_full(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let (sender, received) = std::sync::mpsc::sync_channel(1);
        // Dropped at the end: nobody waits any more.
        let _ticket = self.read(
            offset,
            into.len(),
            Box::new(move |read| {
                // Whoever asked waits for it.
                let _ = sender.send(read);
            }),
        );
        let pieces = received.recv().map_err(|_| io::Error::from_raw_os_error(libc::EINTR))??;
        let mut at = 0;
        for piece in pieces {
            into[at..at + piece.len()].copy_from_slice(&piece);
            at += piece.len();
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests;
