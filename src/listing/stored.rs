//! A directory's entries as they are stored: what does not depend on patterns. Pure: values in, values out.
//!
//! Entries are sorted by name and front-coded, which takes some 8 bytes for each in directories of numbered files:
//!
//! ```text
//! listing = entry*
//! entry   = varint(shared << 2 | kind)    bytes shared with the name before; kind: 0 file, 1 directory, 2 link, 3 special
//!           varint(length)                of what follows
//!           byte[length]                  the rest of the name
//! varint  = LEB128, unsigned, at most 5 bytes
//! ```
//!
//! Whoever stores a listing keeps the version of this format beside it.

use crate::automaton::Automaton;
use crate::entry::valid_name;
use crate::listing::{Asked, Scratch};
use crate::matcher::Files;
use crate::source::RawKind;

/// The longest name in bytes; some file systems count characters, so that it may pass the kernel's `NAME_MAX`.
const LONGEST: usize = 4095;

/// Entries of a directory while they are read.
#[derive(Debug, Default)]
pub struct Kept {
    names: Vec<u8>,
    entries: Vec<(u32, u16, RawKind)>,
    asked: Vec<Box<[u8]>>,
    storing: bool,
}

/// A stored listing that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored listing is damaged")]
pub struct BadListing;

impl Kept {
    /// Keeps entries to be stored, or only notes links if not `storing`.
    pub fn new(storing: bool) -> Self {
        Self { storing, ..Self::default() }
    }

    /// An entry.
    #[inline]
    pub fn add(&mut self, name: &[u8], kind: RawKind) {
        if self.storing && name.len() <= LONGEST {
            // A directory's names stay far below 4 GiB, and one name below 64 KiB.
            self.entries.push((self.names.len() as u32, name.len() as u16, kind));
            self.names.extend_from_slice(name);
        }
    }

    /// A link that patterns ask for.
    pub fn asked(&mut self, name: &[u8]) {
        self.asked.push(name.into());
    }

    /// The links that patterns ask for.
    pub fn into_asked(self) -> Vec<Box<[u8]>> {
        self.asked
    }

    /// The entries as they are stored.
    pub fn encode(&mut self) -> Box<[u8]> {
        let names = &self.names;
        let name = |(from, length, _): &(u32, u16, RawKind)| &names[*from as usize..*from as usize + *length as usize];
        self.entries.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        let mut out = Vec::with_capacity(self.names.len() + 2 * self.entries.len());
        let mut last: &[u8] = b"";
        for entry in &self.entries {
            let name = name(entry);
            let shared = last.iter().zip(name).take_while(|(a, b)| a == b).count();
            put(&mut out, (shared as u32) << 2 | code(entry.2));
            put(&mut out, (name.len() - shared) as u32);
            out.extend_from_slice(&name[shared..]);
            last = name;
        }
        out.into()
    }
}

fn code(kind: RawKind) -> u32 {
    match kind {
        RawKind::File => 0,
        RawKind::Dir => 1,
        RawKind::Link => 2,
        RawKind::Special => 3,
    }
}

fn put(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u32, BadListing> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(BadListing)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| BadListing);
        }
    }
    Err(BadListing)
}

/// Calls `each` for every entry of a stored listing, sorted by name.
///
/// # Errors
/// If it is damaged; `each` may have been called for the entries before.
pub fn decode(mut bytes: &[u8], each: &mut dyn FnMut(&[u8], RawKind)) -> Result<(), BadListing> {
    let mut name: Vec<u8> = Vec::with_capacity(LONGEST);
    let mut first = true;
    while !bytes.is_empty() {
        let head = take(&mut bytes)?;
        let (shared, length) = ((head >> 2) as usize, take(&mut bytes)? as usize);
        if shared > name.len() || length > bytes.len() || shared + length > LONGEST {
            return Err(BadListing);
        }
        let (rest, behind) = bytes.split_at(length);
        // Sorted, and no name twice.
        if !first && rest <= &name[shared..] {
            return Err(BadListing);
        }
        first = false;
        bytes = behind;
        name.truncate(shared);
        name.extend_from_slice(rest);
        if !valid_name(&name) {
            return Err(BadListing);
        }
        let kind = match head & 3 {
            0 => RawKind::File,
            1 => RawKind::Dir,
            2 => RawKind::Link,
            _ => RawKind::Special,
        };
        each(&name, kind);
    }
    Ok(())
}

/// What patterns see of a stored listing, without a look at the source.
#[derive(Debug)]
pub struct Restored {
    /// The files, as far as patterns ask.
    pub files: Files,
    /// The names of child directories, sorted; links not among them.
    pub dirs: Vec<Box<[u8]>>,
    /// Patterns ask for links here: what they lead to has to be looked at.
    pub asks_links: bool,
}

/// Holds a stored listing against all globs.
///
/// # Errors
/// If it is damaged.
pub fn restore(
    automaton: &Automaton,
    follow: bool,
    listing: &[u8],
    scratch: &mut Scratch,
) -> Result<Restored, BadListing> {
    let mut restored = Restored { files: Files::new(automaton), dirs: Vec::new(), asks_links: false };
    let Scratch { cache, globs, .. } = scratch;
    decode(listing, &mut |name, kind| match kind {
        RawKind::Dir => restored.dirs.push(name.into()),
        RawKind::File => {
            automaton.names.matches(cache, name, globs);
            restored.files.add(automaton, name, globs);
        }
        RawKind::Link => {
            automaton.names.matches(cache, name, globs);
            let asked = Asked::of(automaton, follow, globs);
            restored.asks_links |= asked.as_file || asked.as_dir;
        }
        RawKind::Special => {}
    })?;
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(listing: &[u8]) -> Result<Vec<(Vec<u8>, RawKind)>, BadListing> {
        let mut all = Vec::new();
        decode(listing, &mut |name, kind| all.push((name.to_vec(), kind)))?;
        Ok(all)
    }

    fn kind() -> impl Strategy<Value = RawKind> {
        prop_oneof![Just(RawKind::File), Just(RawKind::Dir), Just(RawKind::Link), Just(RawKind::Special)]
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[ab]{1,4}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 1..256).prop_filter("a name", |name| valid_name(name)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(all in prop::collection::btree_map(name(), kind(), 0..40)) {
            let mut kept = Kept::new(true);
            // In another order than the stored one.
            all.iter().rev().for_each(|(name, kind)| kept.add(name, *kind));
            prop_assert_eq!(entries(&kept.encode()), Ok(all.into_iter().collect::<Vec<_>>()));
        }

        #[test]
        fn any_bytes_are_a_listing_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(all) = entries(&bytes) {
                prop_assert!(all.is_sorted_by(|(a, _), (b, _)| a < b));
                prop_assert!(all.iter().all(|(name, _)| valid_name(name)));
            }
        }
    }

    #[test]
    fn numbered_files_take_few_bytes() {
        let mut kept = Kept::new(true);
        (0..1000).for_each(|n| kept.add(format!("frame_{n:06}.tiff").as_bytes(), RawKind::File));
        assert!(kept.encode().len() < 10 * 1000);
    }
}
