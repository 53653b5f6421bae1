//! Names for what is not there yet: the simplest one for each set of globs that some name matches at once. Pure.
//!
//! All globs are made one deterministic automaton over bytes, which is searched breadth first from short names to long
//! ones over those characters that can make a difference. What is found for a set of globs is therefore the shortest,
//! and a set that is not found has no name, unless the search was cut short.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use regex_automata::dfa::Automaton as _;
use regex_automata::dfa::dense;
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Class, Hir, HirKind, Look};
use rustc_hash::FxHashMap;

use crate::automaton::Automaton;
use crate::entry::{NAME_MAX, valid_name};
use crate::matcher::bits::Bits;
use crate::matcher::names::GlobId;
use crate::reader::NOT_ENTERED;

/// The most memory for the automaton, in bytes.
const DFA_BYTES: usize = 16 << 20;
/// How many names are looked at.
const MOST_NAMES: usize = 60_000;
/// How many names lead on from one state.
const PER_STATE: usize = 12;
/// How many sets of globs are told apart.
const MOST_KINDS: usize = 2_000;
/// What a name that only has to be there is made of.
const PLAIN: &str = "xabc0123456789yz";

/// Names of one kind: all match the same globs.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The globs.
    pub globs: Bits,
    /// Names, the simplest first.
    pub names: Vec<Box<[u8]>>,
    /// There are no others.
    pub complete: bool,
}

/// All kinds of names that the globs of an automaton tell apart.
#[derive(Debug, Default)]
pub struct Kinds {
    /// By the globs that match.
    pub kinds: Vec<Kind>,
    /// There are no others.
    pub complete: bool,
    tells: Option<Tells>,
}

/// Tells which globs match a name.
#[derive(Debug)]
struct Tells {
    dfa: dense::DFA<Vec<u32>>,
    first: StateID,
}

impl Tells {
    fn globs(&self, state: StateID) -> Vec<usize> {
        let end = self.dfa.next_eoi_state(state);
        let count = if self.dfa.is_match_state(end) { self.dfa.match_len(end) } else { 0 };
        let mut matched: Vec<usize> = (0..count).map(|at| self.dfa.match_pattern(end, at).as_usize()).collect();
        matched.sort_unstable();
        matched
    }

    fn after(&self, state: StateID, bytes: &[u8]) -> StateID {
        bytes.iter().fold(state, |state, byte| self.dfa.next_state(state, *byte))
    }
}

impl Kinds {
    /// Finds them.
    pub fn new(automaton: &Automaton) -> Self {
        search(automaton).unwrap_or_default()
    }

    /// A name of a kind that is not `taken`.
    pub fn name(&self, kind: usize, taken: &dyn Fn(&[u8]) -> bool) -> Option<Box<[u8]>> {
        let Kind { globs, names, complete } = &self.kinds[kind];
        let free = names.iter().find(|name| !taken(name)).cloned();
        if free.is_some() || *complete {
            return free;
        }
        // With a number in it, somewhere.
        let tells = self.tells.as_ref()?;
        let wanted: Vec<usize> = globs.iter().collect();
        let bases = names.iter().take(3).filter_map(|name| std::str::from_utf8(name).ok());
        let places =
            bases.flat_map(|base| (1..=base.len()).filter(|at| base.is_char_boundary(*at)).map(move |at| (base, at)));
        let numbered =
            places.flat_map(|(base, at)| (1..100u32).map(move |n| format!("{}{n}{}", &base[..at], &base[at..])));
        let mut fitting = numbered.filter(|name| {
            name.len() <= NAME_MAX
                && !taken(name.as_bytes())
                && tells.globs(tells.after(tells.first, name.as_bytes())) == wanted
        });
        fitting.next().map(|name| name.into_bytes().into())
    }
}

fn search(automaton: &Automaton) -> Option<Kinds> {
    let globs = automaton.names.len();
    let captures = automaton.names.captures();
    let expressions: Vec<Hir> = (0..globs as u32)
        .map(|id| Hir::concat(vec![automaton.names.glob(GlobId(id)).to_hir(captures), Hir::look(Look::End)]))
        .collect();
    let mut alphabet = Alphabet::default();
    expressions.iter().for_each(|expression| alphabet.add(expression));
    let alphabet = alphabet.characters();
    if expressions.is_empty() {
        let names = PLAIN.chars().map(|c| c.to_string().into_bytes().into()).collect();
        let kinds = vec![Kind { globs: Bits::new(0), names, complete: false }];
        return Some(Kinds { kinds, complete: true, tells: None });
    }
    let config =
        thompson::Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(DFA_BYTES));
    let nfa = thompson::Compiler::new().configure(config).build_many_from_hir(&expressions).ok()?;
    let config = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(regex_automata::dfa::StartKind::Anchored)
        .dfa_size_limit(Some(DFA_BYTES))
        .determinize_size_limit(Some(DFA_BYTES));
    let dfa = dense::Builder::new().configure(config).build_from_nfa(&nfa).ok()?;
    let first = dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).ok()?;
    let tells = Tells { dfa, first };

    let mut found: BTreeMap<Vec<usize>, Vec<Box<[u8]>>> = BTreeMap::new();
    let mut visits: FxHashMap<StateID, usize> = FxHashMap::default();
    let mut open: VecDeque<(StateID, Vec<u8>)> = VecDeque::from([(first, Vec::new())]);
    let (mut looked_at, mut cut) = (0, false);
    // Where names are left out since others lead to the same state, there may be more of a kind, never more kinds.
    while let Some((state, name)) = open.pop_front() {
        looked_at += 1;
        if looked_at > MOST_NAMES || found.len() > MOST_KINDS {
            cut = true;
            break;
        }
        if valid_name(&name) && name != NOT_ENTERED {
            let matched = tells.globs(state);
            found.entry(matched).or_default().push(name.clone().into());
        }
        for character in &alphabet {
            let mut bytes = [0; 4];
            let bytes = character.encode_utf8(&mut bytes).as_bytes();
            if name.len() + bytes.len() > NAME_MAX {
                continue;
            }
            let next = tells.after(state, bytes);
            let count = visits.entry(next).or_default();
            if *count < PER_STATE {
                *count += 1;
                open.push_back((next, [&name, bytes].concat()));
            }
        }
    }
    let kinds = found.into_iter().map(|(matched, mut names)| {
        let mut globs = Bits::new(automaton.names.len());
        matched.iter().for_each(|glob| globs.insert(*glob));
        names.sort_by_key(|name| (oddness(name), name.len()));
        // A glob that says less than a whole name has several.
        Kind { globs, complete: names.len() == 1 && !cut, names }
    });
    Some(Kinds { kinds: kinds.collect(), complete: !cut, tells: Some(tells) })
}

/// How little a name looks like one that somebody would give.
fn oddness(name: &[u8]) -> usize {
    let odd_at =
        |byte: Option<&u8>| usize::from(!byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80));
    let controls = name.iter().filter(|byte| byte.is_ascii_control() || **byte == b' ').count();
    2 * odd_at(name.first()) + 2 * odd_at(name.last()) + 8 * controls
}

/// Characters of which at least one stands for each that the globs tell apart.
#[derive(Default)]
struct Alphabet(BTreeSet<char>);

impl Alphabet {
    fn add(&mut self, expression: &Hir) {
        match expression.kind() {
            HirKind::Literal(literal) => {
                String::from_utf8_lossy(&literal.0).chars().for_each(|c| self.around(c, c));
            }
            HirKind::Class(Class::Unicode(class)) => {
                // What is told apart by many ranges (`\w`) is looked at as far as it is common.
                class.iter().take(64).for_each(|range| self.around(range.start(), range.end()));
            }
            HirKind::Class(Class::Bytes(class)) => {
                for range in class.iter().take(64) {
                    self.around(char::from(range.start().min(127)), char::from(range.end().min(127)));
                }
            }
            HirKind::Repetition(repetition) => self.add(&repetition.sub),
            HirKind::Capture(capture) => self.add(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().for_each(|part| self.add(part)),
            HirKind::Empty | HirKind::Look(_) => {}
        }
    }

    /// The first and last of a range, and their neighbours.
    fn around(&mut self, first: char, last: char) {
        let codes = [u32::from(first).wrapping_sub(1), u32::from(first), u32::from(last), u32::from(last) + 1];
        self.0.extend(codes.into_iter().filter_map(char::from_u32));
    }

    /// Plain ones first, so that they are tried first.
    fn characters(mut self) -> Vec<char> {
        self.0.retain(|c| !c.is_control() && *c != '/' && *c != '\u{10ffff}');
        let plain = PLAIN.chars().chain(['é']);
        let mut all: Vec<char> = plain.collect();
        let mut others: Vec<char> = self.0.into_iter().filter(|c| !all.contains(c)).collect();
        others.sort_by_key(|c| (!c.is_ascii_alphanumeric(), *c));
        all.extend(others);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::compile::compile;
    use crate::pattern::load::{Format, load_text};

    fn shortest(text: &str) -> Vec<(Vec<usize>, String)> {
        let patterns = load_text(text.as_bytes(), Format::Yaml, "test", "test").expect("a pattern");
        let automaton = compile(&patterns).expect("an automaton");
        let kinds = Kinds::new(&automaton);
        assert!(kinds.complete);
        let name = |kind: &Kind| String::from_utf8_lossy(&kind.names[0]).into_owned();
        kinds.kinds.iter().map(|kind| (kind.globs.iter().collect(), name(kind))).collect()
    }

    #[test]
    fn every_kind_of_name_has_its_simplest() {
        let of = |globs: &str| shortest(&format!("files: [{globs}]\n"));
        assert_eq!(of("config.yaml"), [(vec![], "x".into()), (vec![0], "config.yaml".into())]);
        assert_eq!(
            of("'*.csv', 'data*'"),
            [
                (vec![], "x".to_owned()),
                (vec![0], "x.csv".into()),
                (vec![0, 1], "data.csv".into()),
                (vec![1], "data".into())
            ]
        );
        assert_eq!(of("'[!a-z]?'")[1], (vec![0], "0x".into()));
        // Nothing matches both.
        assert_eq!(of("a, b").len(), 3);
    }
}
