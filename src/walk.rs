//! The parallel walk: source × matcher → matches, from the leaves up.
//!
//! Every directory is a task: it is listed once, its children become tasks, and whichever child is done last judges
//! it and hands its states to its own parent. Tasks are taken newest first by the thread that made them, so each
//! thread goes depth first; what is held at any time is a chain of directories for each thread with the names of
//! their child directories, not the tree. Directories are opened relative to their parent's descriptor.
//!
//! Matches are handed on when they are judged. Only where a pattern says `prune` or `opaque` are they held back,
//! until no directory above could still be such a match.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::automaton::{Automaton, PatternId};
use crate::entry::RelPath;
use crate::listing::{Dirs, Exclude, ListRules, Listed, Scratch, list};
use crate::matcher::bits::Bits;
use crate::matcher::mapping::Mapping;
use crate::matcher::{Files, Kids, Offer, Own, Summary, Verdict};
use crate::reader::{LINK_BUDGET, NOT_ENTERED, Reader, Reading, Target, Way};
use crate::shut::Shut;
use crate::source::{Handle, Source};

/// Room for what is read behind links.
const STACK_BYTES: usize = 16 << 20;

/// How a source is walked.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    /// Threads that walk; more than there are cores pay off on network file systems.
    pub threads: usize,
    /// Entries deeper than this are not seen; the root's own entries have depth 1.
    pub max_depth: Option<u32>,
    /// Directories on another device than the root are not entered.
    pub one_file_system: bool,
    /// Links to directories are walked.
    pub follow: bool,
    /// What is left out.
    pub exclude: Exclude,
    /// Directories below the source that are not entered.
    pub not_entered: HashSet<RelPath>,
    /// What is not entered through links either.
    pub shut: Shut,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            max_depth: None,
            one_file_system: false,
            follow: false,
            exclude: Exclude::default(),
            not_entered: HashSet::new(),
            shut: Shut::default(),
        }
    }
}

impl WalkOptions {
    /// True if the directory at `path` below the source is not entered, by its place.
    pub fn closes(&self, path: &[u8]) -> bool {
        let depth = || path.split(|byte| *byte == b'/').count();
        self.max_depth.is_some_and(|limit| depth() >= limit as usize)
            || (!self.not_entered.is_empty() && self.not_entered.contains(&RelPath::from_bytes(path)))
    }
}

/// A directory that matches a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Which pattern.
    pub pattern: PatternId,
    /// Where.
    pub path: RelPath,
    /// The captured values.
    pub captures: Mapping,
    /// The recommended parts that are missing.
    pub missing: Vec<String>,
}

/// What could not be read, or not be decided.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A directory or file that could not be read.
    #[error("{}: {error}", crate::entry::printable(path.as_bytes()))]
    Unread {
        /// Where.
        path: RelPath,
        /// Why.
        error: io::Error,
    },
    /// A directory that may match, but for what could not be read below it.
    #[error("{}: may match, but for what could not be read", crate::entry::printable(path.as_bytes()))]
    Undecided {
        /// The pattern that it may match.
        pattern: PatternId,
        /// Where.
        path: RelPath,
    },
    /// A directory where captures combine in too many ways to be judged.
    #[error("{}: captures combine in too many ways here; use narrower expressions", crate::entry::printable(path.as_bytes()))]
    TooManyWays {
        /// Where.
        path: RelPath,
    },
}

/// What a walk reports while it runs, from any of its threads.
#[derive(Debug)]
pub enum Event {
    /// A match.
    Match(Found),
    /// Something that could not be read or decided.
    Trouble(Trouble),
}

/// Counters of a walk, to be read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Directories listed.
    pub directories: AtomicU64,
    /// Entries seen.
    pub entries: AtomicU64,
    /// Set to end the walk soon.
    pub cancelled: AtomicBool,
}

/// Walks a whole source; `root_name` is the name that its root has to patterns.
///
/// # Errors
/// If the root itself cannot be read or no threads can be started. Everything else is an [`Event::Trouble`].
pub fn walk(
    automaton: &Automaton,
    source: &dyn Source,
    root_name: &[u8],
    options: &WalkOptions,
    progress: &Progress,
    report: &(dyn Fn(Event) + Sync),
) -> io::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.max(1))
        .thread_name(|at| format!("walk-{at}"))
        .stack_size(STACK_BYTES)
        .build()
        .map_err(io::Error::other)?;
    let root = source.open_root()?;
    let walk = Walk {
        automaton,
        source,
        options,
        progress,
        report,
        scratch: (0..options.threads.max(1)).map(|_| Mutex::new(Scratch::new(automaton))).collect(),
        held: automaton.tops.iter().any(|top| top.prune || top.opaque),
        root_dev: if options.one_file_system { Some(source.identity(&root)?.0) } else { None },
        open: AtomicUsize::new(0),
        open_limit: descriptor_limit() / 2,
        root_error: Mutex::new(None),
    };
    pool.in_place_scope(|scope| scope.spawn(|scope| walk.start(root, root_name, scope)));
    match walk.root_error.into_inner() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub fn descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    usize::try_from(current.unwrap_or(1 << 20)).unwrap_or(1 << 20).max(64)
}

struct Walk<'a> {
    automaton: &'a Automaton,
    source: &'a dyn Source,
    options: &'a WalkOptions,
    progress: &'a Progress,
    report: &'a (dyn Fn(Event) + Sync),
    scratch: Vec<Mutex<Scratch>>,
    /// Some pattern prunes, so that matches may have to be held back.
    held: bool,
    root_dev: Option<u64>,
    /// Descriptors kept open by nodes, and how many may be.
    open: AtomicUsize,
    open_limit: usize,
    root_error: Mutex<Option<io::Error>>,
}

/// A directory that has been listed and waits for its children.
struct Node {
    parent: Option<(Arc<Node>, usize)>,
    /// The root's name; others have theirs in the parent's listing.
    root_name: Box<[u8]>,
    depth: u32,
    /// `None` where too many descriptors are open; children are then opened from further up.
    handle: Option<Handle>,
    /// What the directory is to links below that lead to it; asked only where there is no handle.
    identity: Option<(u64, u64)>,
    files: Files,
    dirs: Dirs,
    own_globs: Bits,
    above: Bits,
    /// A match of a directory above could make matches here not count.
    prunable: bool,
    next: AtomicUsize,
    pending: AtomicUsize,
    kids: Mutex<(Kids, Vec<Found>)>,
}

impl Node {
    fn name(&self) -> &[u8] {
        match &self.parent {
            Some((parent, at)) => parent.dirs.name(*at).to_bytes(),
            None => &self.root_name,
        }
    }

    /// The path below the source.
    fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some((parent, _)) = &at.parent {
            names.push(at.name());
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn own(&self) -> Own<'_> {
        Own { name: self.name(), globs: &self.own_globs, above: &self.above }
    }
}

/// The path of the child at `at` of `node`.
fn child_path(node: &Node, at: usize) -> Vec<u8> {
    let mut path = node.path();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(node.dirs.name(at).to_bytes());
    path
}

/// How a directory came out of its visit.
enum Visited {
    /// It has children to visit.
    Inner(Arc<Node>),
    /// It is judged.
    Done(Summary, Vec<Found>),
}

impl<'a> Walk<'a> {
    fn start<'s>(&'s self, root: Handle, name: &[u8], scope: &rayon::Scope<'s>)
    where
        'a: 's,
    {
        let bits = self.with_scratch(|scratch| scratch.match_name(self.automaton, name));
        let above = Bits::new(self.automaton.names.len());
        if self.options.max_depth == Some(0) {
            let (files, kids) = (Files::new(self.automaton), Kids::new(self.automaton));
            let own = Own { name, globs: &bits, above: &above };
            let offer = Offer { own: &own, files: &files, kids: &kids, probe: &|_, _| None, unread: false };
            let (_, found) = self.settle(self.automaton.judge(&offer, None), Vec::new, Vec::new(), false);
            return self.emit(found);
        }
        match self.visit(None, name.into(), root, bits, above, false) {
            Ok(Visited::Inner(node)) => self.descend(node, scope),
            Ok(Visited::Done(_, found)) => self.emit(found),
            Err(error) => *self.root_error.lock() = Some(error),
        }
    }

    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let at = rayon::current_thread_index().unwrap_or(0) % self.scratch.len();
        work(&mut self.scratch[at].lock())
    }

    /// Takes one child after the other, each to its end, leaving the rest to be stolen.
    fn descend<'s>(&'s self, mut node: Arc<Node>, scope: &rayon::Scope<'s>)
    where
        'a: 's,
    {
        loop {
            let at = node.next.fetch_add(1, Ordering::Relaxed);
            if at >= node.dirs.len() {
                return;
            }
            if at + 1 < node.dirs.len() {
                let rest = Arc::clone(&node);
                scope.spawn(move |scope| self.descend(rest, scope));
            }
            match self.visit_child(&node, at) {
                Visited::Inner(child) => node = child,
                Visited::Done(summary, found) => return self.finish(node, summary, found),
            }
        }
    }

    /// Hands a judged child to its parent, and goes on upwards while that was the last one.
    fn finish(&self, mut node: Arc<Node>, mut summary: Summary, mut found: Vec<Found>) {
        loop {
            {
                let mut kids = node.kids.lock();
                kids.0.merge(summary);
                kids.1.append(&mut found);
            }
            if node.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            let (kids, held) = std::mem::take(&mut *node.kids.lock());
            (summary, found) = self.judge(&node, node.parent.is_none(), kids, held);
            if node.handle.is_some() {
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
            match &node.parent {
                Some((parent, _)) => node = Arc::clone(parent),
                None => return self.emit(found),
            }
        }
    }

    fn visit_child(&self, parent: &Arc<Node>, at: usize) -> Visited {
        let name = parent.dirs.name(at);
        let linked = parent.dirs.linked(at);
        let mut own_globs = Bits::new(self.automaton.names.len());
        parent.dirs.globs(at).iter().for_each(|glob| own_globs.insert(glob.index()));
        let above = crate::reader::above_children(self.automaton, &parent.own());
        let own = Own { name: name.to_bytes(), globs: &own_globs, above: &above };
        let depth = parent.depth + 1;
        if self.progress.cancelled.load(Ordering::Relaxed) {
            return Visited::Done(Verdict::empty(self.automaton).summary, Vec::new());
        }
        if linked && !self.options.follow {
            return self.behind_link(parent, at, &own);
        }
        let closed = name.to_bytes() == NOT_ENTERED
            || self.options.max_depth.is_some_and(|limit| depth >= limit)
            || (!self.options.not_entered.is_empty() && self.options.closes(&child_path(parent, at)));
        if closed {
            return self.without_content(parent, at, &own, false);
        }
        let handle = match self.open(parent, at, linked) {
            Ok(handle) => handle,
            Err(error) => {
                self.unread(child_path(parent, at), error);
                return self.without_content(parent, at, &own, true);
            }
        };
        if self.root_dev.is_some() || self.options.follow {
            match self.source.identity(&handle) {
                Ok((dev, _)) if self.root_dev.is_some_and(|root| root != dev) || self.options.shut.is_device(dev) => {
                    return self.without_content(parent, at, &own, false);
                }
                Ok(identity) if linked && self.is_above(parent, identity) => {
                    // A loop: what a subpattern asks of it is answered, but it is not walked.
                    return self.behind_link(parent, at, &own);
                }
                Ok(_) => {}
                Err(error) => self.unread(child_path(parent, at), error),
            }
        }
        let prunable = self.held && (parent.prunable || self.could_prune(&parent.own()));
        match self.visit(
            Some((Arc::clone(parent), at)),
            Box::default(),
            handle,
            own_globs.clone(),
            above.clone(),
            prunable,
        ) {
            Ok(visited) => visited,
            Err(error) => {
                self.unread(child_path(parent, at), error);
                self.without_content(parent, at, &own, true)
            }
        }
    }

    /// Lists an open directory; one without child directories is judged at once.
    fn visit(
        &self,
        parent: Option<(Arc<Node>, usize)>,
        root_name: Box<[u8]>,
        handle: Handle,
        own_globs: Bits,
        above: Bits,
        prunable: bool,
    ) -> io::Result<Visited> {
        let path = || parent.as_ref().map_or(Vec::new(), |(parent, at)| child_path(parent, *at));
        let rules = ListRules { exclude: &self.options.exclude, follow: self.options.follow };
        let Listed { files, dirs, entries } =
            self.with_scratch(|scratch| list(self.automaton, self.source, &handle, &path, rules, scratch))?;
        self.progress.directories.fetch_add(1, Ordering::Relaxed);
        self.progress.entries.fetch_add(entries, Ordering::Relaxed);
        let depth = parent.as_ref().map_or(0, |(parent, _)| parent.depth + 1);
        let is_root = parent.is_none();
        let children = dirs.len();
        let mut node = Node {
            parent,
            root_name,
            depth,
            handle: Some(handle),
            identity: None,
            files,
            dirs,
            own_globs,
            above,
            prunable,
            next: AtomicUsize::new(0),
            pending: AtomicUsize::new(children),
            kids: Mutex::default(),
        };
        if children == 0 {
            let (summary, found) = self.judge(&node, is_root, Kids::new(self.automaton), Vec::new());
            return Ok(Visited::Done(summary, found));
        }
        // Every eighth keeps its descriptor whatever the limit, so that paths between them stay short.
        if self.open.load(Ordering::Relaxed) < self.open_limit || depth.is_multiple_of(8) {
            self.open.fetch_add(1, Ordering::Relaxed);
        } else if let Some(handle) = node.handle.take()
            && (self.options.follow || self.automaton.has_recursion())
        {
            node.identity = Some(self.source.identity(&handle)?);
        }
        node.kids = Mutex::new((Kids::new(self.automaton), Vec::new()));
        Ok(Visited::Inner(Arc::new(node)))
    }

    fn open(&self, parent: &Node, at: usize, linked: bool) -> io::Result<Handle> {
        let name = parent.dirs.name(at);
        let reopened;
        let base = match &parent.handle {
            Some(handle) => handle,
            None => {
                reopened = self.reopen(parent)?;
                &reopened
            }
        };
        if linked { self.source.open_link(base, name) } else { self.source.open_dir(base, name) }
    }

    /// Opens a directory whose descriptor was given up, from the nearest one above that was kept.
    fn reopen(&self, node: &Node) -> io::Result<Handle> {
        let mut names = Vec::new();
        let mut at = node;
        loop {
            let Some((parent, index)) = &at.parent else { return self.source.open_root() };
            names.push((parent.dirs.name(*index), parent.dirs.linked(*index)));
            at = parent;
            let Some(handle) = &at.handle else { continue };
            names.reverse();
            let mut opened: Option<Handle> = None;
            for (name, linked) in names {
                let base = opened.as_ref().unwrap_or(handle);
                opened =
                    Some(if linked { self.source.open_link(base, name)? } else { self.source.open_dir(base, name)? });
            }
            return opened.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        }
    }

    /// True if the node or one above it is of this identity.
    fn is_above(&self, node: &Node, identity: (u64, u64)) -> bool {
        let mut at = Some(node);
        while let Some(node) = at {
            let known = node.identity.or_else(|| self.source.identity(node.handle.as_ref()?).ok());
            if known == Some(identity) {
                return true;
            }
            at = node.parent.as_ref().map(|(parent, _)| &**parent);
        }
        false
    }

    /// The verdict on a directory that is not entered (as if it were empty) or cannot be read.
    fn without_content(&self, parent: &Node, at: usize, own: &Own<'_>, unread: bool) -> Visited {
        let (files, kids) = (Files::new(self.automaton), Kids::new(self.automaton));
        let offer = Offer { own, files: &files, kids: &kids, probe: &|_, _| None, unread };
        let verdict = self.automaton.judge(&offer, None);
        let prunable = self.held && (parent.prunable || self.could_prune(&parent.own()));
        let (summary, found) = self.settle(verdict, || child_path(parent, at), Vec::new(), prunable);
        Visited::Done(summary, found)
    }

    /// What is behind a link satisfies subpatterns, but is not walked for matches.
    fn behind_link(&self, parent: &Arc<Node>, at: usize, own: &Own<'_>) -> Visited {
        let wanted = self.automaton.possible(own, &self.automaton.subs);
        if wanted.is_empty() {
            return Visited::Done(Verdict::empty(self.automaton).summary, Vec::new());
        }
        let reopened;
        let handle = match &parent.handle {
            Some(handle) => handle,
            None => match self.reopen(parent) {
                Ok(handle) => {
                    reopened = handle;
                    &reopened
                }
                Err(error) => {
                    self.unread(child_path(parent, at), error);
                    let (files, kids) = (Files::new(self.automaton), Kids::new(self.automaton));
                    let offer = Offer { own, files: &files, kids: &kids, probe: &|_, _| None, unread: true };
                    return Visited::Done(self.automaton.judge(&offer, Some(&wanted)).summary, Vec::new());
                }
            },
        };
        let reader = Reader {
            automaton: self.automaton,
            source: self.source,
            rules: ListRules { exclude: &self.options.exclude, follow: false },
            closed: &|path| self.options.closes(path),
            shut: &self.options.shut,
            entered: &|_| {},
            failed: &|path, error| self.unread(path.to_vec(), error),
        };
        let target = Target { name: parent.dirs.name(at), linked: true, above: own.above };
        let is_below = |identity| parent.parent.as_ref().is_some_and(|(above, _)| self.is_above(above, identity));
        // Not under the walk's lock on scratch space for long: a link may lead to a large tree.
        let mut scratch = Scratch::new(self.automaton);
        let mut reading =
            Reading { path: parent.path(), through_link: true, budget: LINK_BUDGET, scratch: &mut scratch };
        let verdict = reader.child(&Way::new(handle, &is_below), &target, &wanted, &mut reading);
        if !verdict.given_up.is_empty() {
            let path = RelPath::from_bytes(child_path(parent, at));
            (self.report)(Event::Trouble(Trouble::TooManyWays { path }));
        }
        Visited::Done(verdict.summary, Vec::new())
    }

    fn could_prune(&self, own: &Own<'_>) -> bool {
        let mut states = Bits::new(self.automaton.states.len());
        let pruning = self.automaton.tops.iter().filter(|top| top.prune || top.opaque);
        pruning.for_each(|top| states.insert(top.state.index()));
        !self.automaton.possible(own, &states).is_empty()
    }

    fn judge(&self, node: &Node, is_root: bool, kids: Kids, held: Vec<Found>) -> (Summary, Vec<Found>) {
        let own = node.own();
        let reopened;
        let mut handle = node.handle.as_ref();
        if handle.is_none() && !self.automaton.tests.is_empty() {
            reopened = self.reopen(node);
            handle = reopened.as_ref().ok();
        }
        let probe = |name: &[u8], test: crate::automaton::TestId| {
            let name = CString::new(name).ok()?;
            match self.source.test(handle?, &name, &self.automaton.tests[test.0 as usize]) {
                Ok(passed) => Some(passed),
                Err(error) => {
                    let mut path = node.path();
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name.to_bytes());
                    self.unread(path, error);
                    None
                }
            }
        };
        let offer = Offer { own: &own, files: &node.files, kids: &kids, probe: &probe, unread: false };
        let verdict = self.automaton.judge(&offer, None);
        self.settle(verdict, || node.path(), held, node.prunable && !is_root)
    }

    /// Turns a verdict into matches, together with those `held` from below; returns what is still to be held.
    fn settle(
        &self,
        verdict: Verdict,
        path: impl Fn() -> Vec<u8>,
        mut held: Vec<Found>,
        prunable: bool,
    ) -> (Summary, Vec<Found>) {
        if verdict.accepted.is_empty() && verdict.undecided.is_empty() && verdict.given_up.is_empty() && held.is_empty()
        {
            return (verdict.summary, held);
        }
        let here = RelPath::from_bytes(path());
        for accepted in &verdict.accepted {
            let top = self.automaton.top(accepted.pattern);
            if top.opaque {
                held.clear();
            } else if top.prune {
                held.retain(|found| found.pattern != accepted.pattern);
            }
        }
        held.extend(verdict.accepted.into_iter().map(|accepted| Found {
            pattern: accepted.pattern,
            path: here.clone(),
            captures: accepted.captures,
            missing: accepted.missing,
        }));
        if !verdict.given_up.is_empty() {
            (self.report)(Event::Trouble(Trouble::TooManyWays { path: here.clone() }));
        }
        for pattern in verdict.undecided {
            (self.report)(Event::Trouble(Trouble::Undecided { pattern, path: here.clone() }));
        }
        if !prunable {
            self.emit(std::mem::take(&mut held));
        }
        (verdict.summary, held)
    }

    fn emit(&self, found: Vec<Found>) {
        // What is judged after the walk was given up has not seen all its children.
        if !self.progress.cancelled.load(Ordering::Relaxed) {
            found.into_iter().for_each(|found| (self.report)(Event::Match(found)));
        }
    }

    fn unread(&self, path: Vec<u8>, error: io::Error) {
        (self.report)(Event::Trouble(Trouble::Unread { path: RelPath::from_bytes(path), error }));
    }
}
