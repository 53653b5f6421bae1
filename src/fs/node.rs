//! What the kernel knows of sources: one node for each inode that it remembers, with no more than it takes to find the
//! real thing again.

use std::ffi::{CStr, CString};
use std::hash::BuildHasher;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::expand::{Content, Shown};
use crate::source::{Handle, Stat};
use crate::view::Place;
use crate::view::table::Table;

/// How many ways the tables are split, so that threads seldom meet on a lock.
const SHARDS: usize = 64;

/// An inode inside a match.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ino: u64,
    /// The match it belongs to; of a file that several matches show, the first through which it was looked up.
    pub(crate) place: Arc<Place>,
    pub(crate) kind: NodeKind,
    /// Where the real thing is.
    pub(crate) at: Mutex<At>,
    /// How it is open.
    pub(crate) open: Mutex<OpenState>,
}

/// The directory and name of the real thing.
#[derive(Clone, Debug)]
pub(crate) struct At {
    /// `None` for the match's own directory.
    pub(crate) parent: Option<Arc<Node>>,
    pub(crate) name: CString,
    /// The name is a link, and the thing is what it leads to.
    pub(crate) linked: bool,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Dir {
        /// Below the source.
        path: Box<[u8]>,
        content: Mutex<Arc<Content>>,
        shown: Mutex<ShownState>,
    },
    /// A file, link or special, by its device and inode number.
    Leaf { dev: u64, ino: u64 },
}

/// What differs after a file was written to. A modification time alone can be set back to what it was.
pub(crate) type Version = ((i64, u32), (i64, u32), u64);

/// How a file is open; all opens of one inode at a time share one mode and one backing file.
#[derive(Debug, Default)]
pub(crate) struct OpenState {
    pub(crate) count: u32,
    pub(crate) backing: Weak<fuser::BackingId>,
    /// Modification and change time and size when it was last opened: pages cached since are good if they are the same.
    pub(crate) seen: Option<Version>,
}

/// What a directory showed last.
#[derive(Debug, Default)]
pub(crate) struct ShownState {
    /// A hash of it, once it was listed.
    hash: Option<u64>,
    /// The directory's own modification time before it was listed.
    own: (i64, u32),
    /// When it was seen to have changed though that had not.
    changed: Option<SystemTime>,
}

impl Node {
    /// Remembers what a directory shows now: a change that its own modification time does not tell of, deeper down,
    /// counts as one of its own, so that the kernel asks for its entries again.
    /// True if it is another thing than it was.
    pub(crate) fn note_shown(&self, entries: &[(Box<[u8]>, Shown)], own: (i64, u32)) -> bool {
        let NodeKind::Dir { shown, .. } = &self.kind else { return false };
        // Independent of the order of listing.
        let hash = entries.iter().fold(0u64, |sum, entry| sum.wrapping_add(FxBuildHasher.hash_one(entry)));
        let mut shown = shown.lock();
        let another = shown.hash.is_some_and(|known| known != hash);
        if shown.own != own {
            shown.changed = None;
        } else if another {
            shown.changed = Some(SystemTime::now());
        }
        shown.hash = Some(hash);
        shown.own = own;
        another
    }

    /// When what a directory shows changed last, if its own modification time, now `own`, does not tell.
    pub(crate) fn changed(&self, own: (i64, u32)) -> Option<SystemTime> {
        let NodeKind::Dir { shown, .. } = &self.kind else { return None };
        let shown = shown.lock();
        // The two come from clocks of different grain: which of them is later says nothing.
        shown.changed.filter(|_| shown.own == own)
    }

    /// The match through which it was looked up last.
    pub(crate) fn place(&self) -> Arc<Place> {
        match (&self.kind, &self.at.lock().parent) {
            (NodeKind::Leaf { .. }, Some(parent)) => Arc::clone(&parent.place),
            _ => Arc::clone(&self.place),
        }
    }

    /// True for a directory that was listed since the kernel was told of it.
    pub(crate) fn was_listed(&self) -> bool {
        matches!(&self.kind, NodeKind::Dir { shown, .. } if shown.lock().hash.is_some())
    }

    /// The path of a directory below its source; for anything else, that of the directory it is in.
    pub(crate) fn dir_path(&self) -> Vec<u8> {
        match &self.kind {
            NodeKind::Dir { path, .. } => path.to_vec(),
            NodeKind::Leaf { .. } => self.at.lock().parent.as_ref().map_or(Vec::new(), |parent| parent.dir_path()),
        }
    }

    /// True for what is at `path` of its source, or below.
    pub(crate) fn is_below(&self, path: &[u8]) -> bool {
        let mut own = self.dir_path();
        if let NodeKind::Leaf { .. } = self.kind {
            if !own.is_empty() {
                own.push(b'/');
            }
            own.extend_from_slice(self.at.lock().name.to_bytes());
        }
        own.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// The nodes that the kernel remembers, each with how often it was told of it.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<Mutex<Shard>>);

/// By inode number.
type Shard = FxHashMap<u64, (Arc<Node>, u64)>;

impl Default for Nodes {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Nodes {
    fn shard(&self, ino: u64) -> &Mutex<Shard> {
        &self.0[(ino ^ ino >> 32) as usize % SHARDS]
    }

    pub(crate) fn get(&self, ino: u64) -> Option<Arc<Node>> {
        self.shard(ino).lock().get(&ino).map(|(node, _)| Arc::clone(node))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Calls `each` for every one, without a lock.
    pub(crate) fn each(&self, mut each: impl FnMut(&Arc<Node>)) {
        for shard in &self.0 {
            let nodes: Vec<Arc<Node>> = shard.lock().values().map(|(node, _)| Arc::clone(node)).collect();
            nodes.iter().for_each(&mut each);
        }
    }

    /// The node numbered `ino`, or the next number whose node is the `same` thing or not there; counted once more.
    pub(crate) fn remember(
        &self,
        mut ino: u64,
        same: impl Fn(&Node) -> bool,
        make: impl FnOnce(u64) -> Node,
    ) -> Arc<Node> {
        loop {
            let mut shard = self.shard(ino).lock();
            match shard.get_mut(&ino) {
                Some((node, lookups)) if same(node) => {
                    *lookups += 1;
                    return Arc::clone(node);
                }
                // Another thing whose hash is the same.
                Some(_) => ino += 1,
                None => {
                    let node = Arc::new(make(ino));
                    shard.insert(ino, (Arc::clone(&node), 1));
                    return node;
                }
            }
        }
    }

    /// The kernel forgets what it was told `lookups` times.
    pub(crate) fn forget(&self, ino: u64, lookups: u64) {
        let mut shard = self.shard(ino).lock();
        let gone = match shard.get_mut(&ino) {
            Some((_, known)) => {
                *known = known.saturating_sub(lookups);
                *known == 0
            }
            None => false,
        };
        let node = if gone { shard.remove(&ino) } else { None };
        // Dropped without the lock: the last node of a chain drops those above it.
        drop(shard);
        drop(node);
    }
}

/// Things that are cheap to keep and can be had again, each for a limited time.
#[derive(Debug)]
pub(crate) struct Cache<T>(Vec<Mutex<LruCache<u64, (T, Instant)>>>);

impl<T: Clone> Cache<T> {
    /// A cache for about `room` things.
    pub(crate) fn new(room: usize) -> Self {
        let room = NonZeroUsize::new(room / 16).unwrap_or(NonZeroUsize::MIN);
        Self((0..16).map(|_| Mutex::new(LruCache::new(room))).collect())
    }

    fn shard(&self, key: u64) -> &Mutex<LruCache<u64, (T, Instant)>> {
        &self.0[(key ^ key >> 32) as usize % 16]
    }

    /// What is kept for `key`, if it is younger than `ttl`.
    pub(crate) fn get(&self, key: u64, ttl: Duration) -> Option<T> {
        let mut shard = self.shard(key).lock();
        let (value, since) = shard.get(&key)?;
        (since.elapsed() < ttl).then(|| value.clone())
    }

    pub(crate) fn put(&self, key: u64, value: T) {
        // What falls out is dropped without the lock.
        let out = self.shard(key).lock().push(key, (value, Instant::now()));
        drop(out);
    }

    /// Drops what is older than `age`.
    pub(crate) fn expire(&self, age: Duration) {
        for shard in &self.0 {
            let mut out = Vec::new();
            let mut kept = shard.lock();
            let old: Vec<u64> =
                kept.iter().filter(|(_, (_, since))| since.elapsed() >= age).map(|(key, _)| *key).collect();
            out.extend(old.iter().map(|key| kept.pop(key)));
            drop(kept);
            drop(out);
        }
    }

    pub(crate) fn remove(&self, key: u64) {
        let out = self.shard(key).lock().pop(&key);
        drop(out);
    }
}

/// What a directory shows, and as what it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) table: Arc<Table<Shown>>,
    pub(crate) content: Arc<Content>,
    /// The directory's modification time before it was read.
    pub(crate) own: (i64, u32),
    /// That time was so recent that another change may have had the same.
    pub(crate) recent: bool,
}

impl Listing {
    /// The grain of the clock that file systems take times from, with room to spare.
    const GRAIN: Duration = Duration::from_millis(20);

    /// True if a change now could bear the time `own`.
    pub(crate) fn is_recent(own: (i64, u32)) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let own = u64::try_from(own.0).map_or(Duration::ZERO, |seconds| Duration::new(seconds, own.1));
        now.abs_diff(own) < Self::GRAIN
    }
}

/// A child to open: with its parent's handle, a name, and whether to go through a link.
pub(crate) fn open_child(
    source: &dyn crate::source::Source,
    parent: &Handle,
    name: &CStr,
    linked: bool,
) -> io::Result<Handle> {
    if linked { source.open_link(parent, name) } else { source.open_dir(parent, name) }
}

/// A generation number: differs when an inode number is used again for another thing, where the file system tells
/// births.
pub(crate) fn generation(stat: &Stat) -> u64 {
    (stat.btime.0 as u64) << 30 ^ u64::from(stat.btime.1)
}
