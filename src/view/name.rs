//! What matches are called: their own names, and where several would share one, a hash of where they are.
//!
//! Names are a function of the set of matches alone, never of the order in which they were found.

use rustc_hash::{FxHashMap, FxHashSet};
use xxhash_rust::xxh3::Xxh3;

use crate::entry::NAME_MAX;

/// The digits of hashes in names: lower case, none that is mistaken for another (Crockford's base 32).
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The first `digits` base-32 digits of a hash of `parts`; the same on every machine and in every version.
pub fn hash_text(parts: &[&[u8]], digits: usize) -> String {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.digest128();
    (0..digits.min(25)).map(|at| char::from(DIGITS[(hash >> (5 * at)) as usize % 32])).collect()
}

/// `name~suffix`, the name cut where the whole would be longer than a name can be.
pub fn suffixed(name: &[u8], suffix: &str) -> Box<[u8]> {
    let mut room = NAME_MAX - 1 - suffix.len();
    if name.len() > room {
        // Not in the middle of a character.
        while room > 0 && name[room] & 0b1100_0000 == 0b1000_0000 {
            room -= 1;
        }
    }
    let kept = &name[..name.len().min(room)];
    [kept, b"~", suffix.as_bytes()].concat().into()
}

/// A match as far as its name depends on it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The source's name.
    pub source: &'a [u8],
    /// The path below the source.
    pub path: &'a [u8],
    /// Where it would like to appear: at least one component.
    pub wanted: Vec<Box<[u8]>>,
}

/// What `name` is called where others have it: with ever longer hashes of `parts`, until one is `free`.
pub fn distinct_name(name: &[u8], parts: &[&[u8]], mut free: impl FnMut(&[u8]) -> bool) -> Option<Box<[u8]>> {
    (6..=25).map(|digits| suffixed(name, &hash_text(parts, digits))).find(|name| free(name))
}

/// The final paths of `candidates`, which are sorted by (source, path), in the same order.
///
/// Of those that want the same path, the first gets it and the others `name~XXXXXX`. Levels that other matches
/// need as folders keep their plain names; a match that wants such a name is suffixed too.
pub fn assign(candidates: &[Candidate<'_>]) -> Vec<Vec<Box<[u8]>>> {
    let mut levels: FxHashSet<&[Box<[u8]>]> = FxHashSet::default();
    for candidate in candidates {
        (1..candidate.wanted.len()).for_each(|depth| {
            levels.insert(&candidate.wanted[..depth]);
        });
    }
    let mut first: FxHashMap<&[Box<[u8]>], usize> = FxHashMap::default();
    for (at, candidate) in candidates.iter().enumerate() {
        if !levels.contains(candidate.wanted.as_slice()) {
            first.entry(&candidate.wanted).or_insert(at);
        }
    }
    let mut suffixes: FxHashSet<Vec<Box<[u8]>>> = FxHashSet::default();
    candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| {
            if first.get(candidate.wanted.as_slice()) == Some(&at) {
                return candidate.wanted.clone();
            }
            let Some((name, above)) = candidate.wanted.split_last() else { return Vec::new() };
            for digits in (6..=25).chain(std::iter::repeat_n(25, 1000)) {
                let salt = suffixes.len().to_le_bytes();
                let salt: &[u8] = if digits < 25 { &[] } else { &salt };
                let mut path = above.to_vec();
                path.push(suffixed(name, &hash_text(&[candidate.source, candidate.path, salt], digits)));
                if !levels.contains(path.as_slice())
                    && !first.contains_key(path.as_slice())
                    && suffixes.insert(path.clone())
                {
                    return path;
                }
            }
            candidate.wanted.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(matches: &[(&str, &str)]) -> Vec<String> {
        let candidates: Vec<Candidate<'_>> = matches
            .iter()
            .map(|(path, wanted)| Candidate {
                source: b"s",
                path: path.as_bytes(),
                wanted: wanted.split('/').map(|part| part.as_bytes().into()).collect(),
            })
            .collect();
        let joined = |path: Vec<Box<[u8]>>| String::from_utf8(path.join(&b'/')).expect("names of the test are text");
        assign(&candidates).into_iter().map(joined).collect()
    }

    #[test]
    fn the_first_keeps_the_name_and_the_others_get_a_hash() {
        let found = names(&[("a/run", "run"), ("b/run", "run"), ("c/other", "other")]);
        assert_eq!((found[0].as_str(), found[2].as_str()), ("run", "other"));
        assert_eq!(found[1], format!("run~{}", hash_text(&[b"s", b"b/run", b""], 6)));
        // A suffix depends on the match alone.
        assert_eq!(names(&[("a/run", "run"), ("aa/run", "run"), ("b/run", "run")])[2], found[1]);
    }

    #[test]
    fn a_level_keeps_its_name() {
        let found = names(&[("x", "x"), ("x/y", "x/y")]);
        assert!(found[0].starts_with("x~"), "{found:?}");
        assert_eq!(found[1], "x/y");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let name = "é".repeat(127) + "x";
        let cut = suffixed(name.as_bytes(), "abcdef");
        assert!(cut.len() <= NAME_MAX && std::str::from_utf8(&cut).is_ok());
    }

    #[test]
    fn a_hundred_thousand_of_one_name_differ() {
        let paths: Vec<String> = (0..100_000).map(|n| format!("{n:06}")).collect();
        let matches: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "run")).collect();
        let found: FxHashSet<String> = names(&matches).into_iter().collect();
        assert_eq!(found.len(), 100_000);
    }
}
