//! A map by number that is cheap to copy and to change: a copy shares all parts, and a change copies only one of them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

/// How many parts there are.
const PARTS: usize = 256;

/// A map by inode number or hash.
#[derive(Clone, Debug)]
pub struct Shards<V> {
    parts: Vec<Arc<FxHashMap<u64, V>>>,
    len: usize,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        let empty = Arc::new(FxHashMap::default());
        Self { parts: vec![empty; PARTS], len: 0 }
    }
}

fn part(key: u64) -> usize {
    (key ^ key >> 8 ^ key >> 32) as usize % PARTS
}

impl<V> Shards<V> {
    /// What a number stands for.
    pub fn get(&self, key: u64) -> Option<&V> {
        self.parts[part(key)].get(&key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().flat_map(|part| part.values())
    }
}

impl<V: Clone> Shards<V> {
    /// Adds one, or changes what a number stands for.
    pub fn insert(&mut self, key: u64, value: V) {
        let known = Arc::make_mut(&mut self.parts[part(key)]).insert(key, value);
        self.len += usize::from(known.is_none());
    }

    /// Removes one.
    pub fn remove(&mut self, key: u64) -> Option<V> {
        // Not to copy a part for what is not there.
        self.get(key)?;
        let removed = Arc::make_mut(&mut self.parts[part(key)]).remove(&key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// What a number stands for, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.get(key)?;
        Arc::make_mut(&mut self.parts[part(key)]).get_mut(&key)
    }
}

impl<V: Clone + Default> Shards<V> {
    /// What a number stands for, to be changed; made if it is not there.
    pub fn entry(&mut self, key: u64) -> &mut V {
        let part = Arc::make_mut(&mut self.parts[part(key)]);
        self.len += usize::from(!part.contains_key(&key));
        part.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut one: Shards<u64> = Shards::default();
        (0..1000).for_each(|key| one.insert(key, key));
        let two = one.clone();
        assert_eq!(one.remove(7), Some(7));
        assert_eq!((one.remove(7), one.get(7), two.get(7)), (None, None, Some(&7)));
        *one.entry(8) += 1;
        *one.entry(5000) += 1;
        assert_eq!((one.get(8), one.get(5000), two.get(8), two.get(5000)), (Some(&9), Some(&1), Some(&8), None));
        assert_eq!((one.len(), two.len(), two.values().count()), (1000, 1000, 1000));
    }
}
