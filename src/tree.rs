//! One source's directories, kept: what was read of each, what states it is in, what matches. Pure: values in, values out.
//!
//! A [`Node`] is a directory as it was read, without the names of its files but for what patterns ask. [`Tree::apply`]
//! takes what a directory turned out to be, [`Tree::judge`] then judges it and upward those directories whose
//! children's states changed, the deepest first, and no others. What began to match, and what ceased to, is gathered in
//! [`Tree::take_changes`].
//!
//! Invariants: a node's children are sorted by name; a node is judged when all its children have been, so that what only
//! moved does not cease to match in between. [`Tree::judge_unready`] is for whoever does not want to wait for that. What matches is a function of the nodes alone, in
//! whatever order they came.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::automaton::{Automaton, PatternId, TestId};
use crate::entry::RelPath;
use crate::listing::ScratchPool;
use crate::matcher::bits::Bits;
use crate::matcher::{Accepted, Files, Kids, Offer, Own, Summary};
use crate::source::Stamp;
use crate::walk::{Found, Trouble};

pub mod links;
pub mod restore;

/// The number of a directory in its tree; used again when it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The source's root.
    pub const ROOT: NodeId = NodeId(0);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is to be read.
    Pending,
    /// It was read.
    Read,
    /// It is not entered, and counts as empty.
    Closed,
    /// It could not be read: nothing of it is known.
    Unread,
    /// A link to a directory above it: what subpatterns ask is known, but it is not walked.
    Behind,
    /// There is no such node.
    Free,
}

/// A link that patterns ask for.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Its states, where it leads to a directory that subpatterns ask for.
    pub summary: Option<Summary>,
    /// Absolute paths whose coming and going may change where it leads.
    pub touches: Vec<Box<[u8]>>,
    /// Absolute paths of the directories that were read behind it.
    pub behind: Vec<Box<[u8]>>,
    /// Captures combine in too many ways behind it.
    pub given_up: bool,
}

/// A directory as it was read.
#[derive(Debug)]
pub struct ReadDir {
    /// To tell whether it is as it was.
    pub stamp: Stamp,
    /// False if a change may have left the stamp as it is.
    pub trusted: bool,
    /// Changes in it are told.
    pub watched: bool,
    /// Its entries as they are stored; empty where nothing is stored.
    pub listing: Box<[u8]>,
    /// The files, as far as patterns ask.
    pub files: Files,
    /// Child directories, those behind links where these are walked: name, and whether it is a link.
    pub children: Vec<(Box<[u8]>, bool)>,
    /// Links that patterns ask for.
    pub links: Vec<Link>,
    /// What could not be read on the way.
    pub troubles: Vec<Trouble>,
    /// Its absolute path, for one behind a link that is walked.
    pub real: Option<Box<[u8]>>,
}

/// What a directory turned out to be.
#[derive(Debug)]
pub enum Outcome {
    /// It was read.
    Read(Box<ReadDir>),
    /// It is not entered.
    Closed,
    /// It cannot be read.
    Unread(io::Error),
    /// It is not there any more, or no directory.
    Gone,
    /// It is a link that leads to a directory above it.
    Behind(Box<Link>, Vec<Trouble>),
}

/// A directory.
#[derive(Debug)]
pub struct Node {
    /// The directory that it is in; the root is in itself.
    pub parent: NodeId,
    /// Levels below the root.
    pub depth: u32,
    /// Its name; the root has the name that it has to patterns.
    pub name: Box<[u8]>,
    /// It is behind a link.
    pub linked: bool,
    /// What is known of it.
    pub state: State,
    /// To tell whether it is as it was when it was read.
    pub stamp: Stamp,
    /// See [`ReadDir::trusted`].
    pub trusted: bool,
    /// See [`ReadDir::watched`].
    pub watched: bool,
    judged: bool,
    queued: bool,
    /// It is to be judged when its children have been.
    deferred: bool,
    any_file: bool,
    /// Children that were never judged.
    waiting: u32,
    files: Option<Box<Files>>,
    children: Box<[NodeId]>,
    links: Option<Box<[Link]>>,
    summary: Option<Box<Summary>>,
}

impl Node {
    fn new(parent: NodeId, depth: u32, name: Box<[u8]>, linked: bool) -> Self {
        Self {
            parent,
            depth,
            name,
            linked,
            state: State::Pending,
            stamp: Stamp::default(),
            trusted: false,
            watched: false,
            judged: false,
            queued: false,
            deferred: false,
            any_file: false,
            waiting: 0,
            files: None,
            children: Box::default(),
            links: None,
            summary: None,
        }
    }

    /// Patterns ask for links in it, and what these lead to may change without a change of the directory.
    pub fn asks_links(&self) -> bool {
        self.links.is_some()
    }

    /// The directories in it.
    pub fn children(&self) -> &[NodeId] {
        &self.children
    }
}

/// A match came, has other captures, or went.
#[derive(Clone, Debug, PartialEq)]
pub enum MatchChange {
    /// It is there.
    Set(Found),
    /// It is there no more.
    Gone(PatternId, RelPath),
}

/// What applying an outcome leads to.
#[derive(Debug, Default)]
pub struct Applied {
    /// Directories to be read.
    pub new: Vec<NodeId>,
    /// Another directory to be read again: the one that listed what is not there.
    pub suspect: Option<NodeId>,
}

struct Matched {
    accepted: Vec<Accepted>,
    reported: Vec<PatternId>,
}

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

/// The directories of a source.
pub struct Tree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    queue: BTreeMap<Reverse<u32>, Vec<NodeId>>,
    matched: FxHashMap<NodeId, Matched>,
    read_troubles: FxHashMap<NodeId, Vec<Trouble>>,
    judge_troubles: FxHashMap<NodeId, Vec<Trouble>>,
    links: links::Ways,
    changes: Vec<MatchChange>,
    dropped: Vec<(NodeId, RelPath)>,
    judged_dirs: Vec<NodeId>,
    deferred: Vec<NodeId>,
    troubles_changed: bool,
    pending: usize,
    /// Some pattern keeps others from counting.
    held: bool,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("nodes", &self.nodes.len()).field("pending", &self.pending).finish()
    }
}

impl Tree {
    /// A tree of which nothing is known yet but its root's name to patterns.
    pub fn new(automaton: &Automaton, root_name: &[u8]) -> Self {
        Self {
            nodes: vec![Node::new(NodeId::ROOT, 0, root_name.into(), false)],
            free: Vec::new(),
            queue: BTreeMap::new(),
            matched: FxHashMap::default(),
            read_troubles: FxHashMap::default(),
            judge_troubles: FxHashMap::default(),
            links: links::Ways::default(),
            changes: Vec::new(),
            dropped: Vec::new(),
            judged_dirs: Vec::new(),
            deferred: Vec::new(),
            troubles_changed: false,
            pending: 1,
            held: automaton.tops.iter().any(|top| top.prune || top.opaque),
        }
    }

    /// A directory.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// All directories, at their numbers; [`State::Free`] where there is none.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many directories there are.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// True if only the root is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 1
    }

    /// Directories that are still to be read.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The path of a directory below the source.
    pub fn path(&self, id: NodeId) -> RelPath {
        let mut names = Vec::with_capacity(self.node(id).depth as usize);
        let mut at = id;
        while at != NodeId::ROOT {
            let node = self.node(at);
            names.push(&*node.name);
            at = node.parent;
        }
        names.reverse();
        RelPath::from_bytes(names.join(&b'/'))
    }

    /// The directory at a path below the source.
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        self.find_below(NodeId::ROOT, path)
    }

    /// The directory at a path below another one.
    pub fn find_below(&self, from: NodeId, path: &[u8]) -> Option<NodeId> {
        let mut at = from;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            at = self.child(at, name)?;
        }
        Some(at)
    }

    fn child(&self, id: NodeId, name: &[u8]) -> Option<NodeId> {
        let children = &self.node(id).children;
        let at = children.binary_search_by(|child| (*self.node(*child).name).cmp(name)).ok()?;
        Some(children[at])
    }

    /// True if patterns test the size or content of files that are in this directory.
    pub fn tests_files(&self, automaton: &Automaton, id: NodeId) -> bool {
        let files = self.node(id).files.as_ref();
        files.is_some_and(|files| files.present.iter().any(|glob| automaton.tested_globs.contains(glob)))
    }

    /// Says whether changes in a directory are told.
    pub fn set_watched(&mut self, id: NodeId, watched: bool) {
        self.node_mut(id).watched = watched;
    }

    /// What has changed since it was asked last.
    pub fn take_changes(&mut self) -> Vec<MatchChange> {
        std::mem::take(&mut self.changes)
    }

    /// The directories that are gone since it was asked last, with their paths.
    pub fn take_dropped(&mut self) -> Vec<(NodeId, RelPath)> {
        std::mem::take(&mut self.dropped)
    }

    /// The directories that were judged again since it was asked last, as far as they are still there: what a match
    /// shows in one of them may be another thing now.
    pub fn take_judged(&mut self) -> Vec<NodeId> {
        let mut judged = std::mem::take(&mut self.judged_dirs);
        judged.retain(|id| self.node(*id).state != State::Free);
        judged.sort_unstable();
        judged.dedup();
        judged
    }

    /// What cannot be read or decided at this moment.
    pub fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.read_troubles.values().chain(self.judge_troubles.values()).flatten()
    }

    /// True if something could not be read.
    pub fn has_unread(&self) -> bool {
        !self.read_troubles.is_empty()
    }

    /// True if [`Tree::troubles`] are other ones than when it was asked last.
    pub fn take_troubles_changed(&mut self) -> bool {
        std::mem::take(&mut self.troubles_changed)
    }

    /// How many [`Tree::troubles`] there are.
    pub fn trouble_count(&self) -> usize {
        self.read_troubles.values().chain(self.judge_troubles.values()).map(Vec::len).sum()
    }

    /// All matches that count at this moment.
    pub fn matches(&self) -> impl Iterator<Item = Found> {
        self.matched.iter().flat_map(|(id, matched)| {
            let path = self.path(*id);
            let counting = matched.accepted.iter().filter(|accepted| matched.reported.contains(&accepted.pattern));
            counting.map(move |accepted| found(accepted, path.clone())).collect::<Vec<_>>()
        })
    }

    /// The directories that depend on what is at an absolute path, by links: `dir` changed, at its entry `name`.
    pub fn depending(&self, dir: &[u8], name: Option<&[u8]>) -> Vec<NodeId> {
        self.links.depending(dir, name)
    }

    /// The directories that an absolute path stands for by way of links that are walked.
    pub fn at_real(&self, path: &[u8]) -> Vec<NodeId> {
        self.links.walked(path).filter_map(|(id, rest)| self.find_below(id, rest)).collect()
    }

    // --- taking in what was read ---

    /// Takes in what a directory turned out to be.
    pub fn apply(&mut self, id: NodeId, outcome: Outcome) -> Applied {
        let mut applied = Applied::default();
        if self.node(id).state == State::Pending {
            self.pending -= 1;
        }
        self.set_read_troubles(id, Vec::new());
        self.links.forget(id);
        let depth = self.node(id).depth;
        match outcome {
            Outcome::Read(read) => {
                let ReadDir { stamp, trusted, watched, files, children, links, troubles, real, .. } = *read;
                applied.new = self.set_children(id, children);
                let trivial = files.present.is_empty() && files.detailed.is_empty();
                let (any_file, files) = (files.any, (!trivial).then(|| Box::new(files)));
                self.links.note(id, &links, real);
                let given_up = links.iter().any(|link| link.given_up);
                let node = self.node_mut(id);
                (node.state, node.stamp, node.trusted, node.watched) = (State::Read, stamp, trusted, watched);
                (node.any_file, node.files) = (any_file, files);
                node.links = (!links.is_empty()).then(|| links.into());
                let mut troubles = troubles;
                if given_up {
                    troubles.push(Trouble::TooManyWays { path: self.path(id) });
                }
                self.set_read_troubles(id, troubles);
            }
            Outcome::Closed => self.empty(id, State::Closed),
            Outcome::Unread(error) => {
                self.empty(id, State::Unread);
                let path = self.path(id);
                self.set_read_troubles(id, vec![Trouble::Unread { path, error }]);
            }
            Outcome::Gone => {
                // Its parent is read again; while that is not done nothing is known of it.
                self.empty(id, State::Unread);
                applied.suspect = (depth > 0).then(|| self.node(id).parent);
            }
            Outcome::Behind(link, troubles) => {
                self.empty(id, State::Behind);
                self.links.note(id, std::slice::from_ref(&link), None);
                self.node_mut(id).links = Some(Box::new([*link]));
                self.set_read_troubles(id, troubles);
            }
        }
        self.queue(id);
        applied
    }

    /// Says that a directory is to be judged again, though it is as it was.
    pub fn judge_again(&mut self, id: NodeId) {
        self.queue(id);
    }

    fn set_read_troubles(&mut self, id: NodeId, troubles: Vec<Trouble>) {
        self.troubles_changed |= set_troubles(&mut self.read_troubles, id, troubles);
    }

    fn empty(&mut self, id: NodeId, state: State) {
        self.set_children(id, Vec::new());
        let node = self.node_mut(id);
        (node.state, node.trusted, node.watched, node.any_file) = (state, false, false, false);
        (node.files, node.links) = (None, None);
    }

    /// Makes `children`, sorted by name here, the directories in `id`; returns those that are new.
    fn set_children(&mut self, id: NodeId, mut children: Vec<(Box<[u8]>, bool)>) -> Vec<NodeId> {
        children.sort_unstable();
        let old = std::mem::take(&mut self.node_mut(id).children);
        let depth = self.node(id).depth + 1;
        let (mut kept, mut new) = (Vec::with_capacity(children.len()), Vec::new());
        let mut old = old.iter().copied().peekable();
        for (name, linked) in children {
            let mut same = None;
            while let Some(child) = old.peek().copied()
                && *self.node(child).name <= *name
            {
                old.next();
                if self.node(child).name == name && self.node(child).linked == linked {
                    same = Some(child);
                } else {
                    self.drop_subtree(child);
                }
            }
            kept.push(same.unwrap_or_else(|| {
                let child = self.add(Node::new(id, depth, name, linked));
                new.push(child);
                child
            }));
        }
        old.for_each(|child| self.drop_subtree(child));
        let node = self.node_mut(id);
        node.children = kept.into();
        node.waiting += new.len() as u32;
        new
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.pending += 1;
        match self.free.pop() {
            Some(id) => {
                *self.node_mut(id) = node;
                id
            }
            None => {
                // More than four thousand million directories do not fit into memory.
                let id = NodeId(u32::try_from(self.nodes.len()).expect("there are fewer nodes"));
                self.nodes.push(node);
                id
            }
        }
    }

    /// Drops a directory and all below; its parent no longer lists it.
    fn drop_subtree(&mut self, id: NodeId) {
        let parent = self.node(id).parent;
        if !self.node(id).judged {
            let node = self.node_mut(parent);
            node.waiting -= 1;
        }
        let mut below = vec![id];
        let mut at = 0;
        while at < below.len() {
            below.extend_from_slice(&self.node(below[at]).children);
            at += 1;
        }
        // From the leaves up: paths are told by what is above.
        for id in below.into_iter().rev() {
            let path = self.path(id);
            if let Some(matched) = self.matched.remove(&id) {
                let gone = matched.reported.into_iter().map(|pattern| MatchChange::Gone(pattern, path.clone()));
                self.changes.extend(gone);
            }
            self.set_read_troubles(id, Vec::new());
            self.troubles_changed |= set_troubles(&mut self.judge_troubles, id, Vec::new());
            self.links.forget(id);
            if self.node(id).state == State::Pending {
                self.pending -= 1;
            }
            self.dropped.push((id, path));
            let node = self.node_mut(id);
            *node = Node::new(NodeId::ROOT, 0, Box::default(), false);
            node.state = State::Free;
            self.free.push(id);
        }
    }

    // --- judging ---

    fn queue(&mut self, id: NodeId) {
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

    fn own_globs_above(&self, id: NodeId, automaton: &Automaton, scratch: &mut crate::listing::Scratch) -> Bits {
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

    fn verdict(&self, id: NodeId, with: &Judge<'_>, scratch: &mut crate::listing::Scratch) -> Verdict {
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

/// Sets what is wrong at a directory; false if nothing is and nothing was.
fn set_troubles(all: &mut FxHashMap<NodeId, Vec<Trouble>>, id: NodeId, troubles: Vec<Trouble>) -> bool {
    if troubles.is_empty() {
        return all.remove(&id).is_some();
    }
    all.insert(id, troubles);
    true
}

fn found(accepted: &Accepted, path: RelPath) -> Found {
    let Accepted { pattern, captures, missing } = accepted.clone();
    Found { pattern, path, captures, missing }
}
