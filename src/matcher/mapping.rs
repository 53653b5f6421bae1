//! Mappings from captures to values, and the few operations of relational algebra that matching needs.

use std::cmp::Ordering;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// The most mappings that one clause or directory may yield.
pub const MAX_MAPPINGS: usize = 1 << 16;

/// The number of a capture in an automaton, in the order of declaration (by name within one declaration).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaptureId(pub u32);

impl CaptureId {
    /// The place in the automaton's table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Values of captures; what is absent is unset. Sorted by capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping(SmallVec<[(CaptureId, Box<[u8]>); 1]>);

/// A join would yield more than [`MAX_MAPPINGS`], or take too long to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("captures combine in too many ways")]
pub struct TooMany;

impl Mapping {
    /// The value of a capture, if it is set.
    pub fn get(&self, id: CaptureId) -> Option<&[u8]> {
        self.0.iter().find(|(set, _)| *set == id).map(|(_, value)| &**value)
    }

    /// True if nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The captures and values that are set.
    pub fn iter(&self) -> impl Iterator<Item = (CaptureId, &[u8])> {
        self.0.iter().map(|(id, value)| (*id, &**value))
    }

    /// This mapping with one more value.
    pub fn with(&self, id: CaptureId, value: &[u8]) -> Self {
        let mut longer = self.clone();
        match longer.0.binary_search_by_key(&id, |(set, _)| *set) {
            Ok(at) => longer.0[at].1 = value.into(),
            Err(at) => longer.0.insert(at, (id, value.into())),
        }
        longer
    }

    /// True if no capture has different values in the two.
    pub fn agrees(&self, other: &Mapping) -> bool {
        self.0.iter().all(|(id, value)| other.get(*id).is_none_or(|theirs| theirs == &**value))
    }

    /// What either sets; the two must agree.
    pub fn union(&self, other: &Mapping) -> Mapping {
        let mut both = self.clone();
        for (id, value) in &other.0 {
            if let Err(at) = both.0.binary_search_by_key(id, |(set, _)| *set) {
                both.0.insert(at, (*id, value.clone()));
            }
        }
        both
    }

    /// What this mapping sets of `kept`.
    pub fn only(&self, kept: &[CaptureId]) -> Mapping {
        Mapping(self.0.iter().filter(|(id, _)| kept.contains(id)).cloned().collect())
    }

    /// This mapping without the captures of `dropped`.
    pub fn without(mut self, dropped: &[CaptureId]) -> Mapping {
        self.0.retain(|(id, _)| !dropped.contains(id));
        self
    }
}

/// By captures in their order, values by bytes, unset after set.
impl Ord for Mapping {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            match (ours.peek(), theirs.peek()) {
                (None, None) => return Ordering::Equal,
                (Some(_), None) => return Ordering::Less,
                (None, Some(_)) => return Ordering::Greater,
                (Some((a, x)), Some((b, y))) => match a.cmp(b).then_with(|| x.cmp(y)) {
                    Ordering::Equal => {
                        ours.next();
                        theirs.next();
                    }
                    unequal => return unequal,
                },
            }
        }
    }
}

impl PartialOrd for Mapping {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Sorts and removes doubles.
pub fn distinct(mut mappings: Vec<Mapping>) -> Vec<Mapping> {
    mappings.sort_unstable();
    mappings.dedup();
    mappings
}

/// All unions of one mapping from each side that agree.
pub fn join(left: &[Mapping], right: &[Mapping]) -> Result<Vec<Mapping>, TooMany> {
    // Captures that every mapping of both sides sets split both sides into buckets that can agree.
    let shared: Vec<CaptureId> = left.first().map_or(Vec::new(), |first| {
        first.iter().map(|(id, _)| id).filter(|id| left.iter().chain(right).all(|m| m.get(*id).is_some())).collect()
    });
    let key = |m: &Mapping| -> Vec<Box<[u8]>> { shared.iter().filter_map(|id| m.get(*id).map(Into::into)).collect() };
    let mut buckets: FxHashMap<Vec<Box<[u8]>>, Vec<&Mapping>> = FxHashMap::default();
    for mapping in right {
        buckets.entry(key(mapping)).or_default().push(mapping);
    }
    let (mut joined, mut tried) = (Vec::new(), 0usize);
    for ours in left {
        for theirs in buckets.get(&key(ours)).into_iter().flatten() {
            tried += 1;
            if ours.agrees(theirs) {
                joined.push(ours.union(theirs));
            }
            if joined.len() > MAX_MAPPINGS || tried > 64 * MAX_MAPPINGS {
                return Err(TooMany);
            }
        }
    }
    Ok(distinct(joined))
}
