//! Directory entries with stable cookies.
//!
//! A cookie is a hash of the name, as in ext4's hashed directories: whatever comes and goes between two calls of
//! `readdir`, what stays is returned once, and a cookie stays good for as long as anybody keeps it.

use xxhash_rust::xxh3::xxh3_64;

/// The cookies that `.` and `..` have; those of entries are above.
pub const DOTS: u64 = 2;

/// An entry of a [`Table`].
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The name.
    pub name: Box<[u8]>,
    /// Where it stands in the directory: above [`DOTS`], below 2^63.
    pub cookie: u64,
    /// What it is.
    pub value: T,
}

/// Entries in the order of their cookies.
#[derive(Clone, Debug)]
pub struct Table<T>(Vec<Entry<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

fn hash(name: &[u8]) -> u64 {
    (xxh3_64(name) >> 1).max(DOTS + 1)
}

impl<T> Table<T> {
    /// A directory of these entries, whose names differ.
    pub fn new(entries: Vec<(Box<[u8]>, T)>) -> Self {
        let mut hashed: Vec<Entry<T>> =
            entries.into_iter().map(|(name, value)| Entry { cookie: hash(&name), name, value }).collect();
        hashed.sort_unstable_by(|a, b| a.cookie.cmp(&b.cookie).then_with(|| a.name.cmp(&b.name)));
        let mut last = DOTS;
        for entry in &mut hashed {
            entry.cookie = entry.cookie.max(last + 1);
            last = entry.cookie;
        }
        Self(hashed)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All entries in the order of their cookies.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry<T>> {
        self.0.iter()
    }

    /// The entries behind a cookie.
    pub fn behind(&self, cookie: u64) -> &[Entry<T>] {
        &self.0[self.0.partition_point(|entry| entry.cookie <= cookie)..]
    }

    /// What a name stands for.
    pub fn get(&self, name: &[u8]) -> Option<&T> {
        let hash = hash(name);
        let from = self.0.partition_point(|entry| entry.cookie < hash);
        // Entries of equal hash stand next to each other, pushed up by one each.
        self.0[from..]
            .iter()
            .enumerate()
            .take_while(|(at, entry)| entry.cookie <= hash + *at as u64)
            .find(|(_, entry)| *entry.name == *name)
            .map(|(_, entry)| &entry.value)
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
            while let [first, ..] = table.behind(cookie) {
                assert!(first.cookie > cookie);
                for entry in table.behind(cookie).iter().take(step) {
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
        let rest: Vec<usize> = whole.behind(middle).iter().map(|e| e.value).filter(|n| n % 3 != 0).collect();
        assert_eq!(fewer.behind(middle).iter().map(|e| e.value).collect::<Vec<_>>(), rest);
    }
}
