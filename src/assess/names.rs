//! What names alone tell: from which directories which patterns could show a path.

use super::Ascent;
use crate::automaton::{Atom, Expr, Role, StateId};
use crate::matcher::bits::Bits;

impl Ascent<'_> {
    /// The states that matter in each directory: those of patterns that by all names could show the path from there, of
    /// patterns by which such a match would not count, and what these ask of their children.
    pub(super) fn wanted(&self) -> Vec<Bits> {
        let automaton = self.reader.automaton;
        let none = || Bits::new(automaton.states.len());
        let mut tops: Vec<Bits> = Vec::new();
        let mut below = vec![false; automaton.tops.len()];
        for at in (0..self.dirs.len()).rev() {
            let (mut here, mut showing) = (none(), vec![false; automaton.tops.len()]);
            for (number, top) in automaton.tops.iter().enumerate() {
                showing[number] = self.could_show(at, top.state, top.opaque);
                let hides = (top.prune && below[number]) || (top.opaque && below.contains(&true));
                if showing[number] || hides {
                    here.insert(top.state.index());
                }
            }
            below.iter_mut().zip(showing).for_each(|(below, here)| *below |= here);
            tops.push(here);
        }
        tops.reverse();
        let mut wanted: Vec<Bits> = Vec::new();
        for (at, top) in tops.into_iter().enumerate() {
            let mut all = top;
            if let Some(above) = wanted.last() {
                above.iter().for_each(|state| automaton.asked_of_children(StateId(state as u32), &mut all));
            }
            wanted.push(automaton.possible(&self.steps[at].name.own(), &all));
        }
        wanted
    }

    /// True if a directory in `state` could show the path, as far as names tell.
    pub(super) fn could_show(&self, at: usize, state: StateId, opaque: bool) -> bool {
        let automaton = self.reader.automaton;
        let mut states = Bits::new(automaton.states.len());
        states.insert(state.index());
        states = automaton.possible(&self.steps[at].name.own(), &states);
        if opaque {
            return !states.is_empty();
        }
        for step in &self.steps[at + 1..] {
            let mut next = Bits::new(automaton.states.len());
            for state in states.iter().map(|state| automaton.state(StateId(state as u32))) {
                if state.whole {
                    return true;
                }
                let mut shown = false;
                showing_atoms(&state.body, &mut |atom| match atom {
                    Atom::File(glob, _) => {
                        shown |= step.kind.is_file() && glob.is_none_or(|glob| step.globs.contains(&glob));
                    }
                    Atom::Child(child) => next.insert(child.index()),
                });
                if shown {
                    return true;
                }
            }
            states = if step.kind.is_dir() { automaton.possible(&step.name.own(), &next) } else { Bits::default() };
            if states.is_empty() {
                return false;
            }
        }
        !states.is_empty()
    }
}

/// Calls `each` for every atom by which an expression could show something.
fn showing_atoms<'e>(expr: &'e Expr, each: &mut impl FnMut(&'e Atom)) {
    match expr {
        Expr::All(parts) => {
            let shown = parts.iter().filter(|part| part.role != Role::Forbidden);
            shown.for_each(|part| showing_atoms(&part.expr, each));
        }
        Expr::Any(list) => list.iter().for_each(|expr| showing_atoms(expr, each)),
        Expr::Count { of, .. } | Expr::Sum(of) => of.iter().for_each(each),
        Expr::Name(_) => {}
    }
}
