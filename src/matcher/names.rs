//! All globs of all patterns as one automaton over the bytes of a name.
//!
//! A lazily built DFA (regex-automata's hybrid) reads a name once and tells which globs match it, whatever their
//! number. Names that are no valid UTF-8 go through [`Glob::matches`] for those globs that count characters, and so do
//! all names for captures whose expressions match bytes.

use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Hir, Look};

use crate::pattern::glob::{Capture, Chars, Glob, Spans};

#[cfg(test)]
mod tests;

/// The number of a glob in a [`NameSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GlobId(pub u32);

impl GlobId {
    /// The place in the table of globs.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The globs together take more memory than an automaton may.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the globs are too large for an automaton: {0}")]
pub struct TooLarge(String);

/// The most memory that the automaton's graph may take, in bytes.
const NFA_BYTES: usize = 32 << 20;
/// What each thread keeps of the deterministic automaton, in bytes.
const CACHE_BYTES: usize = 4 << 20;

/// A set of globs, matched together.
#[derive(Debug)]
pub struct NameSet {
    globs: Vec<Glob>,
    captures: Vec<Capture>,
    by_character: Vec<GlobId>,
    splitting: Vec<GlobId>,
    dfa: DFA,
}

/// What one thread needs to match names; made by [`NameSet::cache`].
#[derive(Debug)]
pub struct NameCache(Cache);

impl NameCache {
    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.memory_usage()
    }
}

impl NameSet {
    /// Compiles the set; a glob's place in `globs` is its [`GlobId`].
    pub fn new(globs: Vec<Glob>, captures: Vec<Capture>) -> Result<Self, TooLarge> {
        let bytes = globs.iter().map(|glob| glob.bytes(&captures)).fold(0, usize::saturating_add);
        if bytes > NFA_BYTES {
            return Err(TooLarge(format!("more than {} MiB", NFA_BYTES >> 20)));
        }
        let end = || Hir::look(Look::End);
        let expressions: Vec<Hir> = globs.iter().map(|glob| Hir::concat(vec![glob.to_hir(&captures), end()])).collect();
        let too_large = |error: &dyn std::error::Error| TooLarge(error.to_string());
        let config =
            thompson::Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(NFA_BYTES));
        let nfa = thompson::Compiler::new()
            .configure(config)
            .build_many_from_hir(&expressions)
            .map_err(|error| too_large(&error))?;
        let config =
            Config::new().match_kind(MatchKind::All).cache_capacity(CACHE_BYTES).skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa).map_err(|error| too_large(&error))?;
        let by_character =
            (0..).map(GlobId).zip(&globs).filter(|(_, glob)| glob.counts_characters()).map(|(id, _)| id).collect();
        let splitting = (0..)
            .map(GlobId)
            .zip(&globs)
            .filter(|(_, glob)| glob.splits_characters(&captures))
            .map(|(id, _)| id)
            .collect();
        Ok(Self { globs, captures, by_character, splitting, dfa })
    }

    /// How many globs there are.
    pub fn len(&self) -> usize {
        self.globs.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// The glob of a number.
    pub fn glob(&self, id: GlobId) -> &Glob {
        &self.globs[id.index()]
    }

    /// The captures that globs use, by their numbers.
    pub fn captures(&self) -> &[Capture] {
        &self.captures
    }

    /// A fresh cache for one thread.
    pub fn cache(&self) -> NameCache {
        NameCache(self.dfa.create_cache())
    }

    /// Puts the globs that match `name` into `into`, which it empties first.
    pub fn matches(&self, cache: &mut NameCache, name: &[u8], into: &mut Vec<GlobId>) {
        into.clear();
        if self.globs.is_empty() {
            return;
        }
        if self.run(&mut cache.0, name, into).is_none() {
            // The lazy DFA gives up only where its configuration tells it to, which ours does not; exact all the same.
            into.clear();
            into.extend(
                (0..).map(GlobId).zip(&self.globs).filter(|(_, g)| g.matches(name, &self.captures)).map(|(i, _)| i),
            );
        } else if !self.by_character.is_empty() {
            let checked = if std::str::from_utf8(name).is_err() { &self.by_character } else { &self.splitting };
            if !checked.is_empty() {
                let name = Chars::of(name);
                let mut spans = Spans::new(&name, &self.captures);
                into.retain(|id| checked.binary_search(id).is_err());
                into.extend(checked.iter().filter(|id| self.glob(**id).matches_spans(&mut spans)));
            }
        }
    }

    fn run(&self, cache: &mut Cache, name: &[u8], into: &mut Vec<GlobId>) -> Option<()> {
        let mut state = self.dfa.start_state(cache, &start::Config::new().anchored(Anchored::Yes)).ok()?;
        for byte in name {
            state = self.dfa.next_state(cache, state, *byte).ok()?;
            if state.is_tagged() {
                if state.is_dead() {
                    return Some(());
                }
                if state.is_quit() {
                    return None;
                }
            }
        }
        state = self.dfa.next_eoi_state(cache, state).ok()?;
        if state.is_match() {
            let matched = self.dfa.match_len(cache, state);
            into.extend((0..matched).map(|at| GlobId(self.dfa.match_pattern(cache, state, at).as_u32())));
        }
        Some(())
    }
}
