//! The pattern that example directories have in common: trees of names in, a [`Pattern`] out. Pure but for
//! `gather`, which reads the trees.
//!
//! The way from examples to a pattern:
//! 1. `tokens` cuts names into words, numbers and marks, and finds what several names have in common: their tokens in
//!    columns where the marks agree, else the longest common beginning, end and subsequence.
//! 2. `align` says which entries of the examples correspond. Names that differ only in numbers are of one shape; a
//!    number or word that is in each example what its own name has there is a *step variable*, and becomes a capture.
//! 3. `generalise` turns what differs into the tightest class that is still nice to read.
//! 4. `choose` makes clauses of groups, and goes on with directories in the same role, one level further down.
//! 5. `tell` adds clauses until no counter-example matches: first what all examples have and it has not, then what it
//!    has and no example has, then numbers, sizes and contents, at last one alternative for each example.
//! 6. `write` prints the `draft` with what was seen behind each clause.
//!
//! Cleverness may be wrong, so that nothing relies on it: every draft is compiled and held against all trees by the
//! matcher (`judge`), and what does not match its own examples is given up for something plainer. What is returned
//! matches every example and no counter-example. Only trees that are the same, as far as they could be read, are told
//! apart by no pattern; then that is the answer.

use crate::automaton::Test;
use crate::entry::printable;
use crate::pattern::Pattern;
use crate::pattern::compile::compile;
use crate::pattern::lint::lint;
use choose::{Limits, describe};
use draft::{Draft, FileDraft};
use judge::{Answer, answer};

mod align;
mod choose;
mod draft;
pub mod gather;
mod generalise;
mod judge;
mod tell;
mod tokens;
mod write;

/// How many levels below the examples are described unless told otherwise.
pub const DEPTH: usize = 4;
/// The most required clauses of one kind in one directory.
const CLAUSES: usize = 12;
/// The most clauses of a pattern, those at its top aside.
const WEIGHT: usize = 40;
/// How many clauses the linter may have left out.
const LINTED: usize = 64;

/// A directory as far as patterns see it: names of files and child directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dir {
    /// Its own name.
    pub name: Box<[u8]>,
    /// Files, sorted.
    pub files: Vec<Box<[u8]>>,
    /// Child directories, sorted by name.
    pub dirs: Vec<Dir>,
    /// What is in it is not known: it could not be read, is behind a link, or deeper than was looked.
    pub open: bool,
}

impl Dir {
    /// How many files and directories there are below it.
    pub fn entries(&self) -> usize {
        self.files.len() + self.dirs.iter().map(|dir| 1 + dir.entries()).sum::<usize>()
    }

    fn is_known(&self) -> bool {
        !self.open && self.dirs.iter().all(Dir::is_known)
    }
}

/// What is in files, asked only where names do not tell trees apart. Paths are below the tree's root.
pub trait Look {
    /// Whether a file passes a test; `None` if it cannot be read.
    fn test(&self, path: &[u8], test: &Test) -> Option<bool>;
    /// A file's size in bytes; `None` if it is no regular file or cannot be read.
    fn size(&self, path: &[u8]) -> Option<u64>;
    /// A file's beginning: as much as `contains` looks at.
    fn head(&self, path: &[u8]) -> Option<Vec<u8>>;
}

/// An example or counter-example.
pub struct Tree {
    /// What it is called in messages.
    pub label: String,
    /// The names in it.
    pub dir: Dir,
    /// What is in its files.
    pub look: Box<dyn Look>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("label", &self.label).field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pattern's name; `None` for one made of the examples' names.
    pub name: Option<String>,
    /// How many levels below the examples are described.
    pub depth: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: None, depth: DEPTH }
    }
}

/// A pattern that matches every example and no counter-example.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// The pattern.
    pub pattern: Pattern,
    draft: Draft,
    heading: Vec<String>,
}

impl Inferred {
    /// The text of a pattern file, with a comment on what each clause saw.
    pub fn yaml(&self) -> String {
        write::yaml(&self.draft, &self.pattern.name, self.pattern.description.as_deref(), &self.heading)
    }
}

/// Why there is no such pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Two trees are alike.
    #[error("no pattern matches {example} but not {counter}: {shared}")]
    Alike {
        /// The example's label.
        example: String,
        /// The counter-example's label.
        counter: String,
        /// What they share.
        shared: String,
    },
    /// An example's root is something that no pattern can be sure to match.
    #[error("{example}: {reason}")]
    Example {
        /// The example's label.
        example: String,
        /// Why.
        reason: String,
    },
}

/// Infers a pattern from at least one example.
///
/// # Errors
/// If no pattern can match every example and no counter-example, and why.
pub fn infer(examples: &[Tree], counters: &[Tree], options: &Options) -> Result<Inferred, Failure> {
    let matching: Vec<&Tree> = examples.iter().collect();
    let others: Vec<&Tree> = counters.iter().collect();
    let name = options.name.clone().unwrap_or_else(|| name_for(examples));
    let mut draft = common_draft(&matching, options.depth, &name)?;
    tell::tell_apart(&mut draft, &matching, &others, options.depth)?;
    clean(&mut draft, &matching, &others, &name);
    let pattern = draft.pattern(&name, None);
    if let Some(at) = answer(&pattern, &matching).iter().position(|answer| *answer != Answer::Yes) {
        let reason = "it cannot be told whether a pattern matches it, since part of it cannot be read".to_owned();
        return Err(Failure::Example { example: examples[at].label.clone(), reason });
    }
    if let Some(at) = answer(&pattern, &others).iter().position(|answer| *answer != Answer::No) {
        let shared = "part of the latter cannot be read, and what can be does not differ".to_owned();
        let (example, counter) = (examples[0].label.clone(), counters[at].label.clone());
        return Err(Failure::Alike { example, counter, shared });
    }
    Ok(Inferred { pattern, draft, heading: heading(examples, counters) })
}

/// What the examples have in common, checked; the cleverest draft that matches all of them.
fn common_draft(examples: &[&Tree], depth: usize, name: &str) -> Result<Draft, Failure> {
    let matches = |draft: &Draft| answer(&draft.pattern(name, None), examples).iter().all(|a| *a == Answer::Yes);
    let dirs: Vec<&Dir> = examples.iter().map(|tree| &tree.dir).collect();
    for steps in [true, false] {
        let mut draft = describe(&dirs, Limits { clauses: CLAUSES, depth, steps });
        draft.prune(draft.files.len() + draft.directories.len() + WEIGHT);
        if !draft.is_empty() && matches(&draft) {
            return Ok(draft);
        }
        if !steps {
            let mut sound = Draft { glob: draft.glob.clone(), note: draft.note.clone(), ..Draft::default() };
            draft.clauses().iter().filter(|clause| matches(clause)).for_each(|clause| sound.add(clause));
            if !sound.is_empty() && matches(&sound) {
                return Ok(sound);
            }
        }
    }
    each_alone(examples, name)
}

/// One alternative for each example, where they have nothing in common.
fn each_alone(examples: &[&Tree], name: &str) -> Result<Draft, Failure> {
    let mut whole = Draft::default();
    for tree in examples {
        let matches = |draft: &Draft| answer(&draft.pattern(name, None), &[tree])[..] == [Answer::Yes];
        let described = describe(&[&tree.dir], Limits { clauses: CLAUSES, depth: 1, steps: false });
        let named = Draft::named(generalise::escaped(&tree.dir.name));
        let mut candidates = vec![described, nothing_inside(), named];
        candidates.retain(|draft| !draft.is_empty() && draft.glob.as_deref() != Some(""));
        let Some(mut alternative) = candidates.into_iter().find(matches) else {
            let reason = "nothing in it is something that a pattern can ask for".to_owned();
            return Err(Failure::Example { example: tree.label.clone(), reason });
        };
        alternative.note = format!("as {}", tree.label);
        let known = |known: &Draft| known.says_as(&alternative);
        if !whole.any_of.iter().any(known) {
            whole.any_of.push(alternative);
        }
    }
    Ok(match whole.any_of.len() {
        1 => whole.any_of.remove(0),
        _ => whole,
    })
}

fn nothing_inside() -> Draft {
    Draft {
        forbidden_files: vec![FileDraft::glob("*", "no files")],
        forbidden_directories: vec![Draft { note: "no directories".to_owned(), ..Draft::default() }],
        ..Draft::default()
    }
}

/// Leaves out what the linter finds superfluous, as long as the promise holds without it.
fn clean(draft: &mut Draft, examples: &[&Tree], counters: &[&Tree], name: &str) {
    for _ in 0..LINTED {
        let pattern = draft.pattern(name, None);
        let patterns = [pattern];
        let Ok(automaton) = compile(&patterns) else { return };
        let plainer = lint(&patterns, &automaton).into_iter().find_map(|lint| {
            let mut plainer = draft.clone();
            (plainer.remove(&lint.place) && keeps_promise(&plainer, examples, counters, name)).then_some(plainer)
        });
        let Some(plainer) = plainer else { return };
        *draft = plainer;
    }
}

fn keeps_promise(draft: &Draft, examples: &[&Tree], counters: &[&Tree], name: &str) -> bool {
    let pattern = draft.pattern(name, None);
    answer(&pattern, examples).iter().all(|answer| *answer == Answer::Yes)
        && answer(&pattern, counters).iter().all(|answer| *answer == Answer::No)
}

/// A pattern's name from those of the examples: their first common word.
fn name_for(examples: &[Tree]) -> String {
    let names: Vec<_> = examples.iter().map(|tree| tokens::tokens(&tree.dir.name)).collect();
    let template = match names.as_slice() {
        [one] => choose::alone(one),
        names => tokens::common(&names.iter().map(|name| &**name).collect::<Vec<_>>()),
    };
    let texts = template.0.iter().filter_map(|part| match part {
        tokens::Part::Text(text) => Some(printable(text).into_owned()),
        _ => None,
    });
    let words = texts.map(|text| {
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        text.chars().filter(|c| word(*c)).collect::<String>().trim_matches(['_', '-', '.']).to_owned()
    });
    let is_word = |word: &String| word.chars().filter(|c| c.is_alphabetic()).count() > 1 && word.len() <= 100;
    let mut words = words.filter(is_word);
    words.next().unwrap_or_else(|| "inferred".to_owned())
}

fn heading(examples: &[Tree], counters: &[Tree]) -> Vec<String> {
    let listed = |trees: &[Tree]| listed(&trees.iter().map(|tree| tree.label.clone()).collect::<Vec<_>>());
    let mut heading = vec![match examples.len() {
        1 => format!("What {} looks like.", listed(examples)),
        _ => format!("What {} have in common.", listed(examples)),
    }];
    if !counters.is_empty() {
        heading.push(format!("Does not match {}.", listed(counters)));
    }
    heading
}

/// `a, b and c`, or the first ones that take no more than a line, and how many more there are.
fn listed(texts: &[String]) -> String {
    const CHARS: usize = 60;
    let mut chars = 0;
    let fits = |text: &&String| {
        chars += text.chars().count();
        chars <= CHARS
    };
    let shown = texts.iter().take_while(fits).count().clamp(1, 4).min(texts.len());
    match (&texts[..shown], texts.len() - shown) {
        ([], _) => String::new(),
        ([one], 0) => one.clone(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    }
}
