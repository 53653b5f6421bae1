//! Directory entries with stable cookies.
//!
//! A cookie is a hash of the name, as in ext4's hashed directories: whatever comes and goes between two calls of
//! `readdir`, what stays is returned once, and a cookie stays good for as long as anybody keeps it.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// The cookies that `.` and `..` have; those of entries are above.
pub const DOTS: u64 = 2;
/// Entries of one piece; a change copies one piece, and the list of pieces.
const PIECE: usize = 512;
/// Names of equal hash stand within so many cookies of it.
const WINDOW: u64 = 1 << 16;

/// An entry of a [`Table`].
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The name.
    pub name: Arc<[u8]>,
    /// Where it stands in the directory: above [`DOTS`], below 2^63.
    pub cookie: u64,
    /// What it is.
    pub value: T,
}

/// Entries in the order of their cookies. A copy shares all pieces, and a change copies only the piece that it is in.
#[derive(Clone, Debug)]
pub struct Table<T> {
    /// None of them empty.
    pieces: Vec<Arc<Vec<Entry<T>>>>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

fn hash(name: &[u8]) -> u64 {
    (xxh3_64(name) >> 1).max(DOTS + 1)
}

impl<T> Table<T> {
    /// A directory of these entries, whose names differ.
    pub fn new(entries: Vec<(Box<[u8]>, T)>) -> Self {
        let mut hashed: Vec<Entry<T>> =
            entries.into_iter().map(|(name, value)| Entry { cookie: hash(&name), name: name.into(), value }).collect();
        hashed.sort_unstable_by(|a, b| a.cookie.cmp(&b.cookie).then_with(|| a.name.cmp(&b.name)));
        let mut last = DOTS;
        for entry in &mut hashed {
            entry.cookie = entry.cookie.max(last + 1);
            last = entry.cookie;
        }
        let len = hashed.len();
        let mut pieces = Vec::with_capacity(len.div_ceil(PIECE));
        let mut entries = hashed.into_iter().peekable();
        while entries.peek().is_some() {
            pieces.push(Arc::new(entries.by_ref().take(PIECE).collect()));
        }
        Self { pieces, len }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries in the order of their cookies.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// The entries behind a cookie.
    pub fn behind(&self, cookie: u64) -> impl Iterator<Item = &Entry<T>> {
        let (piece, at) = self.first_behind(cookie);
        let (first, rest) = match self.pieces.get(piece..) {
            Some([first, rest @ ..]) => (&first[at..], rest),
            _ => (&[][..], &[][..]),
        };
        first.iter().chain(rest.iter().flat_map(|piece| piece.iter()))
    }

    /// Piece and place in it of the first entry behind a cookie.
    fn first_behind(&self, cookie: u64) -> (usize, usize) {
        let piece = self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last.cookie <= cookie));
        let at = self.pieces.get(piece).map_or(0, |piece| piece.partition_point(|entry| entry.cookie <= cookie));
        (piece, at)
    }

    /// What a name stands for.
    pub fn get(&self, name: &[u8]) -> Option<&T> {
        let hash = hash(name);
        let near = self.behind(hash - 1).take_while(|entry| entry.cookie < hash + WINDOW);
        near.filter(|entry| *entry.name == *name).map(|entry| &entry.value).next()
    }
}

impl<T: Clone> Table<T> {
    /// Adds an entry, or changes what a name stands for.
    pub fn insert(&mut self, name: &[u8], value: T) {
        let hash = hash(name);
        let mut free = hash;
        let mut known = None;
        for entry in self.behind(hash - 1).take_while(|entry| entry.cookie < hash + WINDOW) {
            if *entry.name == *name {
                known = Some(entry.cookie);
                break;
            }
            if entry.cookie == free {
                free += 1;
            }
        }
        if let Some(cookie) = known {
            let (piece, at) = self.first_behind(cookie - 1);
            Arc::make_mut(&mut self.pieces[piece])[at].value = value;
            return;
        }
        let entry = Entry { name: name.into(), cookie: free, value };
        self.len += 1;
        let (mut piece, mut at) = self.first_behind(free);
        if piece == self.pieces.len() {
            let Some(last) = self.pieces.last() else { return self.pieces.push(Arc::new(vec![entry])) };
            (piece, at) = (piece - 1, last.len());
        }
        let entries = Arc::make_mut(&mut self.pieces[piece]);
        entries.insert(at, entry);
        if entries.len() > PIECE {
            let rest = entries.split_off(entries.len() / 2);
            self.pieces.insert(piece + 1, Arc::new(rest));
        }
    }

    /// Removes an entry; what it stood for, if it was there.
    pub fn remove(&mut self, name: &[u8]) -> Option<T> {
        let hash = hash(name);
        let mut near = self.behind(hash - 1).take_while(|entry| entry.cookie < hash + WINDOW);
        let cookie = near.find(|entry| *entry.name == *name)?.cookie;
        drop(near);
        let (piece, at) = self.first_behind(cookie - 1);
        let entries = Arc::make_mut(&mut self.pieces[piece]);
        let removed = entries.remove(at);
        if entries.is_empty() {
            self.pieces.remove(piece);
        }
        self.len -= 1;
        Some(removed.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_and_listed_once_in_pieces_of_any_size() {
        let names: Vec<Box<[u8]>> = (0..5000).map(|n| format!("name-{n}").into_bytes().into()).collect();
        let table = Table::new(names.iter().cloned().enumerate().map(|(n, name)| (name, n)).collect());
        for (n, name) in names.iter().enumerate() {
            assert_eq!(table.get(name), Some(&n));
        }
        assert_eq!(table.get(b"other"), None);
        for step in [1, 7, 1000] {
            let (mut seen, mut cookie) = (Vec::new(), DOTS);
            while table.behind(cookie).next().is_some() {
                for entry in table.behind(cookie).take(step).collect::<Vec<_>>() {
                    assert!(entry.cookie > cookie);
                    seen.push(entry.value);
                    cookie = entry.cookie;
                }
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..5000));
        }
    }

    #[test]
    fn a_cookie_stays_good_when_others_come_and_go() {
        let all: Vec<(Box<[u8]>, usize)> = (0..100).map(|n| (format!("{n}").into_bytes().into(), n)).collect();
        let whole = Table::new(all.clone());
        let middle = whole.iter().nth(50).expect("100 entries").cookie;
        let fewer = Table::new(all.into_iter().filter(|(_, n)| n % 3 != 0).collect());
        let rest: Vec<usize> = whole.behind(middle).map(|e| e.value).filter(|n| n % 3 != 0).collect();
        assert_eq!(fewer.behind(middle).map(|e| e.value).collect::<Vec<_>>(), rest);
    }

    #[test]
    fn changes_are_those_of_a_map_and_leave_copies_alone() {
        use std::collections::BTreeMap;
        let (mut table, mut map, mut state) = (Table::default(), BTreeMap::new(), 1u64);
        let same = |table: &Table<u64>, map: &BTreeMap<Vec<u8>, u64>| {
            let mut listed: Vec<(Vec<u8>, u64)> = table.iter().map(|e| (e.name.to_vec(), e.value)).collect();
            assert!(table.iter().map(|e| e.cookie).is_sorted_by(|a, b| a < b));
            listed.sort();
            assert_eq!(table.len(), map.len());
            assert!(listed.iter().eq(map.iter().map(|(n, v)| (n.clone(), *v)).collect::<Vec<_>>().iter()));
        };
        for step in 0..20_000u64 {
            // A linear congruential generator (Knuth's MMIX).
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let name = format!("n{}", (state >> 33) % 3000).into_bytes();
            let before = (step % 5000 == 0).then(|| (table.clone(), map.clone()));
            if state >> 32 & 1 == 0 || step < 4000 {
                table.insert(&name, step);
                map.insert(name.clone(), step);
            } else {
                assert_eq!(table.remove(&name), map.remove(&name));
            }
            assert_eq!(table.get(&name), map.get(&name));
            if let Some((table, map)) = before {
                same(&table, &map);
            }
        }
        same(&table, &map);
    }
}
