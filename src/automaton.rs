//! Patterns compiled to one bottom-up tree automaton.
//!
//! Every distinct name glob of all patterns is in one [`NameSet`]; every distinct (sub)pattern is a [`State`]. Which
//! states a directory is in follows from its own entries and the states of its child directories alone, so one pass
//! from the leaves up answers all patterns at once. [`crate::matcher`] runs it.

use crate::matcher::bits::Bits;
use crate::matcher::mapping::CaptureId;
use crate::matcher::names::{GlobId, NameSet};
use crate::pattern::{Magic, SizeTest};
use crate::view::layout::Layout;

/// The number of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u32);

impl StateId {
    /// Stands for the state that it appears in, before that has a number (`**` is a state that refers to itself).
    pub(crate) const OWN: StateId = StateId(u32::MAX);

    /// The place in the table of states.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a test of a file's size or content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TestId(pub u32);

/// A test of a file beyond its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// The size in bytes.
    Size(SizeTest),
    /// Bytes at an offset.
    Magic(Magic),
    /// Bytes somewhere in the first [`CONTAINS_BYTES`].
    Contains(Vec<u8>),
}

/// How far into a file `contains` looks, in bytes.
pub const CONTAINS_BYTES: u64 = 1 << 20;

/// The number of a pattern, its place in [`Automaton::tops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatternId(pub u32);

impl PatternId {
    /// The place in the table of patterns.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A compiled set of patterns.
#[derive(Debug)]
pub struct Automaton {
    /// All globs.
    pub names: NameSet,
    /// All states.
    pub states: Vec<State>,
    /// All tests of files.
    pub tests: Vec<Test>,
    /// The patterns, in the order given.
    pub tops: Vec<Top>,
    pub(crate) triggers: Triggers,
    /// Globs whose matching files are needed one by one, not only as being there.
    pub(crate) detailed: Bits,
    /// Globs whose matching files are tested beyond their names.
    pub(crate) tested_globs: Bits,
    /// Globs that files are asked for, globs that child directories are asked for.
    pub(crate) file_globs: Bits,
    pub(crate) dir_globs: Bits,
    /// Globs of `forbidden_ancestors`.
    pub(crate) ancestor_globs: Bits,
    /// True if some clause asks for any file, or some subpattern for a directory of any name.
    pub(crate) any_file: bool,
    pub(crate) any_dir: bool,
    /// States that some state asks of its child directories.
    pub(crate) subs: Bits,
    /// States of `**`, which ask themselves of their child directories.
    pub(crate) recursive: Bits,
}

/// What a pattern is besides its state.
#[derive(Debug)]
pub struct Top {
    /// The pattern's folder.
    pub name: String,
    /// The state that a matching directory is in.
    pub state: StateId,
    /// No other match of this pattern counts inside a match.
    pub prune: bool,
    /// No other match of any pattern counts inside a match.
    pub opaque: bool,
    /// Where matches appear.
    pub layout: Option<Layout>,
    /// The captures of a match, sorted by name.
    pub captures: Vec<CaptureId>,
}

/// One (sub)pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The directory's own name; `None` for any.
    pub name: Option<GlobId>,
    /// Names it must not have.
    pub forbidden_names: Vec<GlobId>,
    /// Names that no directory above may have.
    pub forbidden_ancestors: Vec<GlobId>,
    /// What its content must be.
    pub body: Expr,
    /// Captures that have a value of their own in each directory in this state.
    pub declares: Vec<CaptureId>,
    /// The view shows everything below.
    pub whole: bool,
    /// No capture of an enclosing pattern is used in it: it holds or not, for all values alike.
    pub closed: bool,
    /// It counts files for a clause further up; it holds if there is one.
    pub counts: bool,
    /// It stands for a directory of a path glob, and what is shown below agrees with the captures of its name.
    pub path: bool,
}

/// What a directory's content must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// All required parts and none of the forbidden ones.
    All(Vec<Part>),
    /// At least one.
    Any(Vec<Expr>),
    /// The directory's own name.
    Name(GlobId),
    /// From `min` to `max` of these, together.
    Count {
        /// What is counted: one atom, or for `**` the files here and those below.
        of: Vec<Atom>,
        /// At least.
        min: u32,
        /// At most.
        max: Option<u32>,
    },
    /// In a counting state: what is passed up to be counted.
    Sum(Vec<Atom>),
}

/// A part of [`Expr::All`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// What it is for.
    pub role: Role,
    /// What is asked.
    pub expr: Expr,
    /// How to name it to people; optional parts have none, nor has `any_of`.
    pub label: Option<String>,
}

/// What a part of a pattern is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Must hold.
    Required,
    /// Must not hold.
    Forbidden,
    /// Is shown.
    Optional,
    /// Is shown, and reported if not there.
    Recommended,
}

/// What an entry must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Atom {
    /// A file by name (`None` for any) that passes tests.
    File(Option<GlobId>, Vec<TestId>),
    /// A child directory in this state.
    Child(StateId),
}

/// Which states are worth judging, given what a directory offers.
#[derive(Debug, Default)]
pub(crate) struct Triggers {
    pub(crate) by_file: Vec<Vec<StateId>>,
    pub(crate) by_name: Vec<Vec<StateId>>,
    pub(crate) by_child: Vec<Vec<StateId>>,
    pub(crate) always: Vec<StateId>,
}

impl Automaton {
    /// A state by number.
    pub fn state(&self, id: StateId) -> &State {
        &self.states[id.index()]
    }

    /// A pattern by number.
    pub fn top(&self, id: PatternId) -> &Top {
        &self.tops[id.index()]
    }

    /// Removes from `asked` what a child in these states settles: states that hold or not, and nothing more.
    pub(crate) fn drop_settled(&self, asked: &mut Bits, child: &crate::matcher::Summary) {
        let settles = |id: &usize| self.states[*id].closed && !self.states[*id].counts;
        for id in child.yes.iter().filter(settles) {
            asked.take(id);
        }
    }

    /// True if a pattern has `**`.
    pub(crate) fn has_recursion(&self) -> bool {
        !self.recursive.is_empty()
    }

    /// Removes the states of `**`.
    pub(crate) fn drop_recursive(&self, states: &mut Bits) {
        states.remove(&self.recursive);
    }

    /// The name of a capture.
    pub fn capture_name(&self, id: CaptureId) -> &str {
        &self.names.captures()[id.index()].name
    }

    /// True if `state` depends on more than the names in a directory: on its children's content, or on its files'.
    pub(crate) fn looks_deeper(&self, state: StateId) -> bool {
        let mut deeper = false;
        atoms(&self.state(state).body, &mut |atom| {
            deeper |= match atom {
                Atom::File(_, tests) => !tests.is_empty(),
                Atom::Child(_) => true,
            };
        });
        deeper
    }

    /// The states that `state` asks of child directories, in required, forbidden and shown parts alike.
    pub(crate) fn asked_of_children(&self, state: StateId, into: &mut Bits) {
        atoms(&self.state(state).body, &mut |atom| {
            if let Atom::Child(child) = atom {
                into.insert(child.index());
            }
        });
    }
}

/// Calls `each` for every atom of an expression.
pub(crate) fn atoms<'a>(expr: &'a Expr, each: &mut impl FnMut(&'a Atom)) {
    match expr {
        Expr::All(parts) => parts.iter().for_each(|part| atoms(&part.expr, each)),
        Expr::Any(list) => list.iter().for_each(|expr| atoms(expr, each)),
        Expr::Count { of, .. } | Expr::Sum(of) => of.iter().for_each(each),
        Expr::Name(_) => {}
    }
}
