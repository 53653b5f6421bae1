//! A small set of numbers, for globs and states.

use smallvec::{SmallVec, smallvec};

/// A set of small numbers; two words without an allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bits(SmallVec<[u64; 2]>);

impl Bits {
    /// An empty set with room for `0..len`.
    pub fn new(len: usize) -> Self {
        Self(smallvec![0; len.div_ceil(64)])
    }

    /// Adds a number below the set's length.
    #[inline]
    pub fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// True if the number is in the set; false for any beyond its length.
    #[inline]
    pub fn contains(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Adds all of another set of the same length.
    #[inline]
    pub fn extend(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    /// Removes a number.
    pub fn take(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
    }

    /// Removes all of another set.
    pub fn remove(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, less)| *word &= !less);
    }

    /// True if nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    at * 64 + bit
                })
            })
        })
    }
}
