//! What the kernel knows of sources: one node for each inode that it remembers, with no more than it takes to find the
//! real thing again.

use std::ffi::{CStr, CString};
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::expand::{Content, Shown};
use crate::source::{Handle, Stat};
use crate::view::Place;
use crate::view::inode::{Devices, is_directory};
use crate::view::table::Table;

/// How many ways the tables are split, so that threads seldom meet on a lock.
const SHARDS: usize = 64;

/// An inode inside a match.
///
/// There is one for each file that the kernel remembers, so it is small: with its place in the table some 170 bytes and
/// the name.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ino: u64,
    /// Where the real thing is.
    pub(crate) at: Mutex<At>,
    pub(crate) kind: NodeKind,
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
    Dir(Box<Dir>),
    /// A file, link or special.
    Leaf(Identity),
}

/// Which file it is. File systems give the number of one that is gone to the next, which is born at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) generation: u64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { dev: stat.dev, ino: stat.ino, generation: generation(stat) }
    }
}

/// A directory inside a match, or the match itself.
#[derive(Debug)]
pub(crate) struct Dir {
    /// The match it belongs to.
    pub(crate) place: Arc<Place>,
    /// Below the source.
    pub(crate) path: Box<[u8]>,
    pub(crate) content: Mutex<Arc<Content>>,
    pub(crate) shown: Mutex<ShownState>,
    /// It, or a directory above it in the match, is reached through a link.
    pub(crate) behind_link: bool,
    /// Device and inode number, where the kernel is told who may look into it by what it is told of the directory.
    pub(crate) identity: Option<(u64, u64)>,
    /// Changes in it are told, as far as its entries are known.
    pub(crate) told: AtomicBool,
    /// The device that it is on, once it was listed.
    pub(crate) dev: AtomicU64,
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

impl Dir {
    /// True if changes in it are told, as far as its entries are known.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}

impl Node {
    /// Remembers what a directory shows now: a change that its own modification time does not tell of, deeper down,
    /// counts as one of its own, so that the kernel asks for its entries again.
    /// True if it is another thing than it was.
    pub(crate) fn note_shown(&self, entries: &[(Box<[u8]>, Shown)], own: (i64, u32)) -> bool {
        let Some(Dir { shown, .. }) = self.dir() else { return false };
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
        let shown = self.dir()?.shown.lock();
        // The two come from clocks of different grain: which of them is later says nothing.
        shown.changed.filter(|_| shown.own == own)
    }

    /// It as a directory.
    pub(crate) fn dir(&self) -> Option<&Dir> {
        match &self.kind {
            NodeKind::Dir(dir) => Some(dir),
            NodeKind::Leaf(_) => None,
        }
    }

    /// The match through which it was looked up last.
    ///
    /// # Panics
    /// Never: what is no directory always has one that it is in.
    pub(crate) fn place(&self) -> Arc<Place> {
        match &self.kind {
            NodeKind::Dir(dir) => Arc::clone(&dir.place),
            NodeKind::Leaf(_) => self.at.lock().parent.as_ref().expect("a leaf is in a directory").place(),
        }
    }

    /// True for a directory that was listed since the kernel was told of it.
    pub(crate) fn was_listed(&self) -> bool {
        self.dir().is_some_and(|dir| dir.shown.lock().hash.is_some())
    }

    /// The path of a directory below its source; for anything else, that of the directory it is in.
    pub(crate) fn dir_path(&self) -> Vec<u8> {
        match &self.kind {
            NodeKind::Dir(dir) => dir.path.to_vec(),
            NodeKind::Leaf(_) => self.at.lock().parent.as_ref().map_or(Vec::new(), |parent| parent.dir_path()),
        }
    }

    /// The path below its source.
    pub(crate) fn path(&self) -> Vec<u8> {
        let mut own = self.dir_path();
        if let NodeKind::Leaf { .. } = self.kind {
            if !own.is_empty() {
                own.push(b'/');
            }
            own.extend_from_slice(self.at.lock().name.to_bytes());
        }
        own
    }

    /// True for what is at `path` of its source, or below.
    pub(crate) fn is_below(&self, path: &[u8]) -> bool {
        let own = self.path();
        own.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// The nodes that the kernel remembers, each with how often it was told of it; directories apart, since they alone are
/// gone through.
#[derive(Debug)]
pub(crate) struct Nodes {
    dirs: Vec<Mutex<Shard>>,
    leaves: Vec<Mutex<Shard>>,
}

/// By inode number.
type Shard = FxHashMap<u64, (Arc<Node>, u64)>;

impl Default for Nodes {
    fn default() -> Self {
        let shards = || (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { dirs: shards(), leaves: shards() }
    }
}

impl Nodes {
    fn shard(&self, ino: u64) -> &Mutex<Shard> {
        let shards = if is_directory(ino) { &self.dirs } else { &self.leaves };
        &shards[(ino ^ ino >> 32) as usize % SHARDS]
    }

    pub(crate) fn get(&self, ino: u64) -> Option<Arc<Node>> {
        self.shard(ino).lock().get(&ino).map(|(node, _)| Arc::clone(node))
    }

    /// The number of a file: its own, or another one while the kernel remembers a file under it that is gone. Told of two
    /// files by one number, the kernel would take the older one from those who still have it.
    pub(crate) fn number(&self, devices: &Devices, file: &Identity) -> u64 {
        let number = devices.ino(file.dev, file.ino);
        match self.get(number).map(|node| matches!(node.kind, NodeKind::Leaf(known) if known == *file)) {
            None | Some(true) => number,
            Some(false) => devices.another(file.dev, file.ino, file.generation),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.dirs.iter().chain(&self.leaves).map(|shard| shard.lock().len()).sum()
    }

    /// Calls `each` for every one, without a lock.
    pub(crate) fn each(&self, mut each: impl FnMut(&Arc<Node>)) {
        self.dirs.iter().chain(&self.leaves).for_each(|shard| of(shard).iter().for_each(&mut each));
    }

    /// Calls `each` for every directory, without a lock.
    pub(crate) fn each_dir(&self, mut each: impl FnMut(&Arc<Node>)) {
        self.dirs.iter().for_each(|shard| of(shard).iter().for_each(&mut each));
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

    /// The kernel forgets what it was told `lookups` times; true if it knows it no longer.
    pub(crate) fn forget(&self, ino: u64, lookups: u64) -> bool {
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
        node.is_some()
    }
}

/// Gives back the memory of nodes when most of those that were there are forgotten, and of listings.
#[derive(Debug, Default)]
pub(crate) struct Slack {
    /// The most nodes since it was given back last.
    peak: usize,
    /// Entries of listings that were dropped since then.
    entries: usize,
}

impl Slack {
    /// Of fewer nodes than this the memory is not worth a look (some 30 MB).
    const LEAST: usize = 100_000;

    /// To be called now and then, with how many entries of listings were dropped since; true if memory was given back.
    pub(crate) fn look(&mut self, nodes: &Nodes, entries: usize) -> bool {
        let now = nodes.len();
        self.peak = self.peak.max(now);
        self.entries += entries;
        if self.entries < Self::LEAST && (self.peak < Self::LEAST || now > self.peak / 2) {
            return false;
        }
        (self.peak, self.entries) = (now, 0);
        for shard in nodes.dirs.iter().chain(&nodes.leaves) {
            let mut shard = shard.lock();
            let room = 2 * shard.len();
            shard.shrink_to(room);
        }
        give_back();
        true
    }
}

/// Has the allocator give what is free back to the system. It lies between what is not: measured, 590 MB stayed of two
/// million nodes that were forgotten.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "malloc_trim(3) has no safe form; it has no preconditions")]
fn give_back() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}

fn of(shard: &Mutex<Shard>) -> Vec<Arc<Node>> {
    shard.lock().values().map(|(node, _)| Arc::clone(node)).collect()
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
    /// The numbers of files in it are those of their attributes.
    pub(crate) numbered: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_what_is_forgotten_is_given_back() {
        let (nodes, mut slack) = (Nodes::default(), Slack::default());
        let most = 2 * Slack::LEAST as u64;
        let file = Identity { dev: 1, ino: 1, generation: 1 };
        let at = || Mutex::new(At { parent: None, name: CString::default(), linked: false });
        for ino in 0..most {
            nodes.remember(ino << 8, |_| true, |ino| Node { ino, at: at(), kind: NodeKind::Leaf(file) });
        }
        assert_eq!(nodes.len() as u64, most);
        assert!(!slack.look(&nodes, Slack::LEAST - 1), "they are all there");
        let room = |nodes: &Nodes| nodes.dirs.iter().chain(&nodes.leaves).map(|shard| shard.lock().capacity()).sum();
        let before: usize = room(&nodes);
        for ino in 0..most {
            if ino % 10 != 0 {
                assert!(nodes.forget(ino << 8, 1));
            }
        }
        assert!(slack.look(&nodes, 0) && !slack.look(&nodes, 0), "once");
        assert!(slack.look(&nodes, Slack::LEAST) && !slack.look(&nodes, 1), "of listings");
        let after: usize = room(&nodes);
        assert!(after * 2 < before, "{after} of {before}");
        assert!(nodes.get(10 << 8).is_some() && nodes.get(11 << 8).is_none());
    }
}
