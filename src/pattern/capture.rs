//! Captures: the regular expressions of their values, and where in a name these match.
//!
//! A value is whole characters of a name, and the expression matches it whole. Each expression is an automaton of its
//! own, lazily made deterministic, so that all values that begin at one place are found in one pass.

use std::fmt;
use std::sync::Arc;

use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;
use rustc_hash::FxHashMap;

use crate::matcher::bits::Bits;
use crate::matcher::mapping::CaptureId;

/// The most memory that one expression may take compiled, in bytes.
pub const CAPTURE_BYTES: usize = 1 << 20;
/// What each thread keeps of an expression's deterministic automaton, in bytes.
const CACHE_BYTES: usize = 128 << 10;
/// The deepest nesting of an expression.
const NEST_LIMIT: u32 = 100;

/// A capture that globs may use.
#[derive(Clone)]
pub struct Capture {
    /// What stands between `<` and `>`.
    pub name: Arc<str>,
    /// Its number in the automaton.
    pub id: CaptureId,
    values: Arc<Values>,
}

struct Values {
    hir: Hir,
    dfa: DFA,
    caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why an expression is no capture's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// `^`, `$`, `\b` or another assertion.
    #[error("an anchor in the expression")]
    Anchor,
    /// Wrong syntax, or too large.
    #[error("{0}")]
    Wrong(String),
}

impl Capture {
    /// Compiles the expression of the capture `name`, of the syntax of the `regex` crate.
    ///
    /// # Errors
    /// For wrong syntax, anchors, and what takes more than [`CAPTURE_BYTES`].
    pub fn new(name: &str, id: CaptureId, expression: &str) -> Result<Self, CaptureError> {
        let wrong = |error: String| {
            let last = error.lines().last().unwrap_or_default();
            CaptureError::Wrong(last.trim_start_matches("error: ").to_owned())
        };
        let hir = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .nest_limit(NEST_LIMIT)
            .build()
            .parse(expression)
            .map_err(|error| wrong(error.to_string()))?;
        if !hir.properties().look_set().is_empty() {
            return Err(CaptureError::Anchor);
        }
        let too_large = || CaptureError::Wrong(format!("it takes more than {} KiB compiled", CAPTURE_BYTES >> 10));
        let config =
            thompson::Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(CAPTURE_BYTES));
        let nfa = thompson::Compiler::new().configure(config).build_from_hir(&hir).map_err(|_| too_large())?;
        let config =
            Config::new().match_kind(MatchKind::All).cache_capacity(CACHE_BYTES).skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa).map_err(|_| too_large())?;
        let for_caches = dfa.clone();
        let caches = Pool::new(Box::new(move || for_caches.create_cache()) as Box<_>);
        Ok(Self { name: Arc::from(name), id, values: Arc::new(Values { hir, dfa, caches }) })
    }

    /// The expression.
    pub fn hir(&self) -> &Hir {
        &self.values.hir
    }

    /// How much memory the expression takes compiled, in bytes.
    pub fn bytes(&self) -> usize {
        self.values.dfa.get_nfa().memory_usage()
    }

    /// True if the expression could match a part of a character, which no value is.
    pub fn splits_characters(&self) -> bool {
        !self.values.hir.properties().is_utf8()
    }

    /// The characters' places behind all values that begin at the place `from`.
    fn ends(&self, name: &Chars<'_>, from: usize) -> Bits {
        const WHY: &str = "the automaton neither quits at any byte nor gives up when its cache is full";
        let (dfa, cache) = (&self.values.dfa, &mut *self.values.caches.get());
        let mut ends = Bits::new(name.len() + 1);
        let mut state = dfa.start_state(cache, &start::Config::new().anchored(Anchored::Yes)).expect(WHY);
        for to in from..=name.len() {
            if dfa.next_eoi_state(cache, state).expect(WHY).is_match() {
                ends.insert(to);
            }
            if to < name.len() {
                for byte in name.slice(to, to + 1) {
                    state = dfa.next_state(cache, state, *byte).expect(WHY);
                }
            }
            if state.is_dead() {
                break;
            }
        }
        ends
    }
}

/// A name cut into characters; a byte outside valid UTF-8 stands above the Unicode range.
pub(crate) struct Chars<'a> {
    bytes: &'a [u8],
    codes: Vec<u32>,
    starts: Vec<usize>,
}

const INVALID: u32 = 0x11_0000;

impl<'a> Chars<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let (mut codes, mut starts, mut at) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len() + 1), 0);
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                codes.push(u32::from(c));
                starts.push(at);
                at += c.len_utf8();
            }
            for byte in chunk.invalid() {
                codes.push(INVALID + u32::from(*byte));
                starts.push(at);
                at += 1;
            }
        }
        starts.push(at);
        Self { bytes, codes, starts }
    }

    /// How many characters there are.
    pub(crate) fn len(&self) -> usize {
        self.codes.len()
    }

    /// The character at a place; a byte that is none is above all of them.
    pub(crate) fn code(&self, at: usize) -> u32 {
        self.codes[at]
    }

    /// The place behind `value`, if it stands at `from` and ends with a character.
    pub(crate) fn behind(&self, from: usize, value: &[u8]) -> Option<usize> {
        let start = self.starts[from];
        self.bytes[start..].starts_with(value).then(|| self.starts.binary_search(&(start + value.len())).ok())?
    }

    /// The bytes from one place to another.
    pub(crate) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[self.starts[from]..self.starts[to]]
    }
}

/// Where captures match in one name, each place worked out when first asked for.
pub(crate) struct Spans<'a> {
    pub(crate) name: &'a Chars<'a>,
    captures: &'a [Capture],
    known: FxHashMap<(CaptureId, usize), Bits>,
}

impl<'a> Spans<'a> {
    pub(crate) fn new(name: &'a Chars<'a>, captures: &'a [Capture]) -> Self {
        Self { name, captures, known: FxHashMap::default() }
    }

    /// The places behind all values of `capture` that begin at `from`.
    pub(crate) fn ends(&mut self, capture: CaptureId, from: usize) -> &Bits {
        let Self { name, captures, known } = self;
        known.entry((capture, from)).or_insert_with(|| captures[capture.index()].ends(name, from))
    }
}
