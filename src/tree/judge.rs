//! Judging the directories of a tree, upwards as far as states change, and what counts as a match.

use std::cmp::Reverse;
use std::io;

use rustc_hash::FxHashSet;

use super::{MatchChange, Matched, NodeId, State, Tree, found, set_troubles};
use crate::automaton::{Automaton, PatternId, TestId};
use crate::entry::RelPath;
use crate::listing::{Scratch, ScratchPool};
use crate::matcher::bits::Bits;
use crate::matcher::{Accepted, Files, Kids, Offer, Own, Summary};
use crate::walk::Trouble;

/// Tests a file, by the path of its directory and its name.
pub type Probe<'a> = &'a (dyn Fn(&RelPath, &[u8], TestId) -> io::Result<bool> + Sync);

/// What judging needs besides the tree.
pub struct Judge<'a> {
    /// The patterns.
    pub automaton: &'a Automaton,
    /// For names.
    pub scratch: &'a ScratchPool,
    /// Tests files.
    pub probe: Probe<'a>,
    /// Threads for tests.
    pub pool: &'a rayon::ThreadPool,
}

struct Verdict {
    id: NodeId,
    summary: Option<Box<Summary>>,
    accepted: Vec<Accepted>,
    troubles: Vec<Trouble>,
}

impl Tree {
    pub(super) fn queue(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        if matches!(node.state, State::Pending | State::Free) {
            return;
        }
        if node.waiting == 0 {
            self.queue_now(id);
        } else if node.judged && !std::mem::replace(&mut node.deferred, true) {
            self.deferred.push(id);
        }
    }

    fn queue_now(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.deferred = false;
        if !std::mem::replace(&mut node.queued, true) {
            let depth = node.depth;
            self.queue.entry(Reverse(depth)).or_default().push(id);
        }
    }

    /// True if directories that were judged before wait for new ones in them.
    pub fn defers(&mut self) -> bool {
        let nodes = &self.nodes;
        self.deferred.retain(|id| nodes[id.index()].deferred);
        !self.deferred.is_empty()
    }

    /// Has directories that were judged before be judged without what is new in them.
    pub fn judge_unready(&mut self) {
        for id in std::mem::take(&mut self.deferred) {
            if self.node(id).deferred {
                self.queue_now(id);
            }
        }
    }

    /// Judges what has to be, upwards as far as states change.
    pub fn judge(&mut self, with: &Judge<'_>) {
        use rayon::prelude::*;
        while let Some((Reverse(depth), mut ids)) = self.queue.pop_first() {
            // One that was dropped, and whose number was given to another since, is queued for that one elsewhere.
            ids.retain(|id| self.node(*id).queued && self.node(*id).depth == depth);
            ids.sort_unstable();
            ids.dedup();
            let tree = &*self;
            // Judging takes a fraction of a microsecond; only tests of files wait for a disk.
            let verdicts: Vec<Verdict> = if with.automaton.tests.is_empty() || ids.len() < 2 {
                with.scratch.with(|scratch| ids.iter().map(|id| tree.verdict(*id, with, scratch)).collect())
            } else {
                with.pool.install(|| {
                    let one = |id: &NodeId| with.scratch.with(|scratch| tree.verdict(*id, with, scratch));
                    ids.par_iter().map(one).collect()
                })
            };
            verdicts.into_iter().for_each(|verdict| self.take(verdict, with));
        }
    }

    fn own_globs_above(&self, id: NodeId, automaton: &Automaton, scratch: &mut Scratch) -> Bits {
        let mut above = Bits::new(automaton.names.len());
        if automaton.ancestor_globs.is_empty() {
            return above;
        }
        let mut at = id;
        while at != NodeId::ROOT {
            at = self.node(at).parent;
            let globs = scratch.match_name(automaton, &self.node(at).name);
            globs.iter().filter(|glob| automaton.ancestor_globs.contains(*glob)).for_each(|glob| above.insert(glob));
        }
        above
    }

    fn verdict(&self, id: NodeId, with: &Judge<'_>, scratch: &mut Scratch) -> Verdict {
        let node = self.node(id);
        let automaton = with.automaton;
        let mut result = Verdict { id, summary: None, accepted: Vec::new(), troubles: Vec::new() };
        if node.state == State::Behind {
            let summary = node.links.as_ref().and_then(|links| links.first()).and_then(|link| link.summary.clone());
            result.summary = summary.map(Box::new);
            return result;
        }
        let globs = scratch.match_name(automaton, &node.name);
        let above = self.own_globs_above(id, automaton, scratch);
        let own = Own { name: &node.name, globs: &globs, above: &above };
        let mut kids = Kids::new(automaton);
        let children = node.children.iter().filter_map(|child| self.node(*child).summary.as_deref());
        let linked = node.links.iter().flatten().filter_map(|link| link.summary.as_ref());
        children.chain(linked).for_each(|summary| kids.merge(summary.clone()));
        let none;
        let files = match &node.files {
            Some(files) => &**files,
            None => {
                none = Files { any: node.any_file, ..Files::new(automaton) };
                &none
            }
        };
        let path = std::cell::OnceCell::new();
        let path = || path.get_or_init(|| self.path(id));
        let unread = std::cell::RefCell::new(Vec::new());
        let probe = |name: &[u8], test: TestId| match (with.probe)(path(), name, test) {
            Ok(passed) => Some(passed),
            Err(error) => {
                unread.borrow_mut().push(Trouble::Unread { path: path().join(name), error });
                None
            }
        };
        let offer = Offer { own: &own, files, kids: &kids, probe: &probe, unread: node.state == State::Unread };
        let verdict = automaton.judge(&offer, None);
        result.troubles = unread.into_inner();
        if !verdict.given_up.is_empty() {
            result.troubles.push(Trouble::TooManyWays { path: path().clone() });
        }
        let undecided = verdict.undecided.into_iter();
        result.troubles.extend(undecided.map(|pattern| Trouble::Undecided { pattern, path: path().clone() }));
        result.accepted = verdict.accepted;
        let Summary { yes, may, .. } = &verdict.summary;
        result.summary = (!yes.is_empty() || !may.is_empty()).then(|| Box::new(verdict.summary));
        result
    }

    fn take(&mut self, verdict: Verdict, with: &Judge<'_>) {
        let Verdict { id, summary, accepted, troubles } = verdict;
        if self.node(id).judged {
            self.judged_dirs.push(id);
        }
        self.troubles_changed |= set_troubles(&mut self.judge_troubles, id, troubles);
        let node = self.node_mut(id);
        node.queued = false;
        let first = !std::mem::replace(&mut node.judged, true);
        let another = node.summary != summary;
        node.summary = summary;
        let parent = node.parent;
        if id != NodeId::ROOT {
            if first {
                self.node_mut(parent).waiting -= 1;
            }
            let above = self.node(parent);
            if another || first && above.waiting == 0 && (above.deferred || !above.judged) {
                self.queue(parent);
            }
        }
        let pruned = |accepted: &[Accepted]| -> FxHashSet<PatternId> {
            let prunes = |id: &PatternId| with.automaton.top(*id).prune || with.automaton.top(*id).opaque;
            accepted.iter().map(|accepted| accepted.pattern).filter(prunes).collect()
        };
        let before = self.matched.get(&id).map_or(&[][..], |matched| &matched.accepted);
        let below = self.held && (pruned(before) != pruned(&accepted) || first && self.could_prune(id, with));
        if before != accepted {
            if accepted.is_empty() {
                let gone = self.matched.remove(&id).map_or(Vec::new(), |matched| matched.reported);
                let path = self.path(id);
                self.changes.extend(gone.into_iter().map(|pattern| MatchChange::Gone(pattern, path.clone())));
            } else {
                let matched = self.matched.entry(id).or_insert(Matched { accepted: Vec::new(), reported: Vec::new() });
                let old = std::mem::replace(&mut matched.accepted, accepted);
                self.settle(id, &old, with);
            }
        }
        if below {
            self.settle_below(id, with);
        }
    }

    /// Tells of what counts now at one directory and did not, or with other captures, and the other way round.
    fn settle(&mut self, id: NodeId, old: &[Accepted], with: &Judge<'_>) {
        let Some(matched) = self.matched.get(&id) else { return };
        let counting: Vec<&Accepted> =
            matched.accepted.iter().filter(|accepted| self.counts(id, accepted.pattern, with)).collect();
        let path = self.path(id);
        let mut changes = Vec::new();
        for pattern in &matched.reported {
            if counting.iter().all(|accepted| accepted.pattern != *pattern) {
                changes.push(MatchChange::Gone(*pattern, path.clone()));
            }
        }
        for accepted in &counting {
            if !matched.reported.contains(&accepted.pattern) || !old.contains(accepted) {
                changes.push(MatchChange::Set(found(accepted, path.clone())));
            }
        }
        let reported = counting.iter().map(|accepted| accepted.pattern).collect();
        self.changes.extend(changes);
        if let Some(matched) = self.matched.get_mut(&id) {
            matched.reported = reported;
        }
    }

    fn settle_below(&mut self, id: NodeId, with: &Judge<'_>) {
        let mut below = self.node(id).children.to_vec();
        while let Some(id) = below.pop() {
            below.extend_from_slice(&self.node(id).children);
            if let Some(matched) = self.matched.get(&id) {
                let same = matched.accepted.clone();
                self.settle(id, &same, with);
            }
        }
    }

    /// True if a match is not inside one that keeps it from counting, nor in what may yet become one.
    fn counts(&self, id: NodeId, pattern: PatternId, with: &Judge<'_>) -> bool {
        let mut at = id;
        while self.held && at != NodeId::ROOT {
            at = self.node(at).parent;
            if !self.node(at).judged && self.could_prune(at, with) {
                return false;
            }
            let prunes = |accepted: &Accepted| {
                let top = with.automaton.top(accepted.pattern);
                top.opaque || top.prune && accepted.pattern == pattern
            };
            if self.matched.get(&at).is_some_and(|matched| matched.accepted.iter().any(prunes)) {
                return false;
            }
        }
        true
    }

    fn could_prune(&self, id: NodeId, with: &Judge<'_>) -> bool {
        let mut states = Bits::new(with.automaton.states.len());
        let pruning = with.automaton.tops.iter().filter(|top| top.prune || top.opaque);
        pruning.for_each(|top| states.insert(top.state.index()));
        with.scratch.with(|scratch| {
            let globs = scratch.match_name(with.automaton, &self.node(id).name);
            let above = self.own_globs_above(id, with.automaton, scratch);
            let own = Own { name: &self.node(id).name, globs: &globs, above: &above };
            !with.automaton.possible(&own, &states).is_empty()
        })
    }
}
