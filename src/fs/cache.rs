//! Things that are cheap to keep and can be had again: open directories, and what directories show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use super::node::Listing;
use crate::source::Handle;

/// How many ways a cache is split, so that threads seldom meet on a lock.
const SHARDS: usize = 16;

/// Open directories by inode number, each with the count of changes on the way to it when it was opened: under the same
/// path there may be another directory after one.
pub(super) type Handles = Cache<(Arc<Handle>, u64)>;

/// What takes room in a cache.
pub(super) trait Weigh: Clone {
    /// How much of it.
    fn weight(&self) -> usize;
}

impl Weigh for (Arc<Handle>, u64) {
    fn weight(&self) -> usize {
        1
    }
}

impl Weigh for Listing {
    /// Its entries: a directory may have a few or millions.
    fn weight(&self) -> usize {
        1 + self.table.len()
    }
}

/// Things by inode number, each kept for a limited time, and those that were used last as far as there is room.
#[derive(Debug)]
pub(super) struct Cache<T> {
    shards: Vec<Mutex<Shard<T>>>,
    /// For each of them.
    room: usize,
}

#[derive(Debug)]
struct Shard<T> {
    kept: LruCache<u64, (T, Instant)>,
    weight: usize,
}

impl<T: Weigh> Shard<T> {
    fn out(&mut self, out: Option<(T, Instant)>) -> Option<T> {
        let (value, _) = out?;
        self.weight -= value.weight();
        Some(value)
    }
}

impl<T: Weigh> Cache<T> {
    /// A cache for things of about this weight together; one that is heavier is kept alone.
    pub(super) fn new(room: usize) -> Self {
        let shard = || Mutex::new(Shard { kept: LruCache::unbounded(), weight: 0 });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), room: room / SHARDS }
    }

    fn shard(&self, key: u64) -> &Mutex<Shard<T>> {
        &self.shards[(key ^ key >> 32) as usize % SHARDS]
    }

    /// What is kept for `key`, if it is younger than `ttl`.
    pub(super) fn get(&self, key: u64, ttl: Duration) -> Option<T> {
        let mut shard = self.shard(key).lock();
        let (value, since) = shard.kept.get(&key)?;
        (since.elapsed() < ttl).then(|| value.clone())
    }

    /// Keeps it, in place of what was kept for `key`.
    pub(super) fn put(&self, key: u64, value: T) {
        // What falls out is dropped without the lock.
        let mut out = Vec::new();
        let mut shard = self.shard(key).lock();
        shard.weight += value.weight();
        let before = shard.kept.put(key, (value, Instant::now()));
        out.extend(shard.out(before));
        while shard.weight > self.room && shard.kept.len() > 1 {
            let oldest = shard.kept.pop_lru().map(|(_, oldest)| oldest);
            out.extend(shard.out(oldest));
        }
        drop(shard);
        drop(out);
    }

    /// Drops what is older than `age`; gives its weight.
    pub(super) fn expire(&self, age: Duration) -> usize {
        let mut weight = 0;
        for shard in &self.shards {
            let mut out = Vec::new();
            let mut shard = shard.lock();
            let old: Vec<u64> =
                shard.kept.iter().filter(|(_, (_, since))| since.elapsed() >= age).map(|(key, _)| *key).collect();
            for key in old {
                let popped = shard.kept.pop(&key);
                out.extend(shard.out(popped));
            }
            drop(shard);
            weight += out.iter().map(Weigh::weight).sum::<usize>();
        }
        weight
    }

    pub(super) fn remove(&self, key: u64) {
        let mut shard = self.shard(key).lock();
        let popped = shard.kept.pop(&key);
        let out = shard.out(popped);
        drop(shard);
        drop(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[test]
    fn the_heaviest_and_the_oldest_go() {
        const LONG: Duration = Duration::from_secs(100);
        // Keys of one shard.
        let (cache, key) = (Cache::new(100 * SHARDS), |number: u64| number * SHARDS as u64);
        (0..10).for_each(|number| cache.put(key(number), 10));
        assert!(cache.get(key(0), LONG).is_some(), "there is room for ten");
        cache.put(key(10), 20);
        let gone: Vec<u64> = (0..11).filter(|number| cache.get(key(*number), LONG).is_none()).collect();
        assert_eq!(gone, [1, 2], "the first was used");
        cache.put(key(10), 5);
        cache.put(key(11), 15);
        assert!((3..12).all(|number| cache.get(key(number), LONG).is_some()), "what it replaced weighs nothing");
        cache.put(key(12), 1_000_000);
        let left: Vec<u64> = (0..13).filter(|number| cache.get(key(*number), LONG).is_some()).collect();
        assert_eq!(left, [12], "the newest is kept in any case");
        cache.remove(key(12));
        cache.put(key(13), 1);
        assert_eq!(cache.expire(Duration::ZERO), 1);
        assert!(cache.get(key(13), LONG).is_none());
        assert!(cache.shards.iter().all(|shard| shard.lock().weight == 0 && shard.lock().kept.is_empty()));
    }
}
