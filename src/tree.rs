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

use rustc_hash::FxHashMap;

use crate::automaton::{Automaton, PatternId};
use crate::entry::RelPath;
use crate::matcher::{Accepted, Files, Summary};
use crate::source::Stamp;
use crate::walk::{Found, Trouble};

pub mod judge;
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
