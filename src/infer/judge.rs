//! Patterns held against gathered trees, by the matcher that everything else uses.

use super::{Dir, Tree};
use crate::automaton::{Automaton, PatternId, TestId};
use crate::matcher::bits::Bits;
use crate::matcher::names::{GlobId, NameCache};
use crate::matcher::{Files, Kids, Offer, Own, Verdict};
use crate::pattern::Pattern;
use crate::pattern::compile::compile;

/// As many patterns are compiled together.
const TOGETHER: usize = 200;

/// Whether a tree's root matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// What could not be read decides.
    Unknown,
}

/// The answers of each pattern for each tree; all [`Answer::Unknown`] for a pattern that does not compile.
pub(super) fn answers(patterns: &[Pattern], trees: &[&Tree]) -> Vec<Vec<Answer>> {
    let mut answers = Vec::with_capacity(patterns.len());
    for some in patterns.chunks(TOGETHER) {
        match compile(some) {
            Ok(automaton) => {
                let of_trees: Vec<Vec<Answer>> = trees.iter().map(|tree| of_tree(&automaton, tree)).collect();
                answers.extend((0..some.len()).map(|at| of_trees.iter().map(|of| of[at]).collect::<Vec<_>>()));
            }
            Err(_) if some.len() > 1 => {
                some.iter().for_each(|one| answers.extend(self::answers(std::slice::from_ref(one), trees)));
            }
            Err(_) => answers.push(vec![Answer::Unknown; trees.len()]),
        }
    }
    answers
}

/// The answers of one pattern for each tree.
pub(super) fn answer(pattern: &Pattern, trees: &[&Tree]) -> Vec<Answer> {
    answers(std::slice::from_ref(pattern), trees).pop().unwrap_or_default()
}

fn of_tree(automaton: &Automaton, tree: &Tree) -> Vec<Answer> {
    let mut judge = Judge { automaton, tree, cache: automaton.names.cache(), globs: Vec::new(), path: Vec::new() };
    let verdict = judge.dir(&tree.dir, &Bits::new(automaton.names.len()));
    let answer = |id| {
        if verdict.accepted.iter().any(|accepted| accepted.pattern == id) {
            Answer::Yes
        } else if verdict.undecided.contains(&id) {
            Answer::Unknown
        } else {
            Answer::No
        }
    };
    (0..automaton.tops.len() as u32).map(|id| answer(PatternId(id))).collect()
}

struct Judge<'a> {
    automaton: &'a Automaton,
    tree: &'a Tree,
    cache: NameCache,
    globs: Vec<GlobId>,
    path: Vec<&'a [u8]>,
}

impl<'a> Judge<'a> {
    fn dir(&mut self, dir: &'a Dir, above: &Bits) -> Verdict {
        let automaton = self.automaton;
        automaton.names.matches(&mut self.cache, &dir.name, &mut self.globs);
        let mut own_globs = Bits::new(automaton.names.len());
        self.globs.iter().for_each(|glob| own_globs.insert(glob.index()));
        let own = Own { name: &dir.name, globs: &own_globs, above };
        let mut files = Files::new(automaton);
        for name in &dir.files {
            automaton.names.matches(&mut self.cache, name, &mut self.globs);
            files.add(automaton, name, &self.globs);
        }
        let below = crate::reader::above_children(automaton, &own);
        let mut kids = Kids::new(automaton);
        for child in &dir.dirs {
            self.path.push(&child.name);
            kids.merge(self.dir(child, &below).summary);
            self.path.pop();
        }
        let probe = |name: &[u8], test: TestId| {
            let path: Vec<&[u8]> = self.path.iter().copied().chain([name]).collect();
            self.tree.look.test(&path.join(&b'/'), &automaton.tests[test.0 as usize])
        };
        let offer = Offer { own: &own, files: &files, kids: &kids, probe: &probe, unread: dir.open };
        automaton.judge(&offer, None)
    }
}
