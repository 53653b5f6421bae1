//! One source of a mount, kept up to date: its tree, what is to be looked at, and what is under way.
//!
//! Each source has a thread of its own, so that one that does not answer holds up no other. What it finds goes to the
//! publisher as a report after each step.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};

use super::{Event, KeepOptions, Touch, Touched};
use crate::automaton::PatternId;
use crate::crawl::{Crawler, Job, Looked, Sink};
use crate::entry::RelPath;
use crate::index::DirRecord;
use crate::live::{KEPT_TROUBLES, Live, Phase, Request, SourceState};
use crate::source::Handle;
use crate::tree::restore::Planted;
use crate::tree::{Judge, MatchChange, NodeId, Outcome, State, Tree};
use crate::walk::Trouble;
use crate::watch::{Change, Mode};

/// How often a source that is away is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long what a first scan finds is gathered.
const GATHER: Duration = Duration::from_millis(2);
/// The most events that are taken in at once.
const BATCH: usize = 16 << 10;
/// How long a piece of reconciling should take, so that changes that are told meanwhile do not wait.
const PIECE_TIME: Duration = Duration::from_millis(20);
/// How long a directory that matches is not judged while new ones in it are read.
const DEFER: Duration = Duration::from_millis(200);
/// The fewest directories that are looked at in one piece, for each thread.
const PIECE_LEAST: usize = 64;
/// A directory that takes longer to read than this is read again only after some time, however often it changes.
const SLOW: Duration = Duration::from_millis(5);
/// So many times longer than the reading took.
const REST: u32 = 4;

/// Directories that are compared with what is known of them.
#[derive(Debug)]
struct Reconcile {
    ids: Vec<NodeId>,
    at: usize,
    /// All directories are among them.
    whole: bool,
    /// Only those in which changes are not told.
    unwatched: bool,
    /// Directories may have become other ones under the same names: they are watched anew.
    anew: bool,
}

/// What a source has to say after a step.
pub(super) struct Report {
    /// Which source.
    pub(super) source: usize,
    /// How it stands.
    pub(super) state: SourceState,
    /// What matches now and did not, or the other way round.
    pub(super) changes: Vec<MatchChange>,
    /// What is shown otherwise.
    pub(super) touches: FxHashSet<Touch>,
    /// What cannot be read or decided, if that is another thing than it was: how much there is, and the first of it.
    pub(super) troubles: Option<(u64, Vec<Value>)>,
    /// Records for the index: `None` where there is none any more.
    pub(super) records: FxHashMap<NodeId, Option<DirRecord>>,
    /// All that matches, said once, when it was compared with what is there.
    pub(super) founded: Option<FxHashSet<(PatternId, RelPath)>>,
    /// What was asked for and is done.
    pub(super) tickets: Vec<u64>,
}

/// What is kept of a source.
pub(super) struct Kept {
    at: usize,
    crawler: Arc<Crawler>,
    live: Arc<Live>,
    tree: Tree,
    events: Sender<Event>,
    received: Receiver<Event>,
    options: KeepOptions,
    polled: Instant,
    retried: Instant,
    touches: FxHashSet<Touch>,
    /// Who waits for it to be idle.
    waiting: Vec<u64>,
    /// All that matches was said.
    founded: bool,
    last: Option<SourceState>,
    stopped: bool,
    /// Large new trees are read here, so that they hold up nothing else.
    crawls: rayon::ThreadPool,
    /// For what is waited for.
    quick: rayon::ThreadPool,
    crawling: usize,
    /// Directories to be read again.
    dirty: FxHashSet<NodeId>,
    /// Of those that take long to read: since when, and how long it took.
    slow: FxHashMap<NodeId, (Instant, Duration)>,
    /// Told of before they were known, while a crawl is under way.
    early: FxHashSet<Box<[u8]>>,
    /// Events were lost while a crawl was under way: what it reads is read again.
    distrust: bool,
    reconciles: VecDeque<Reconcile>,
    /// Since when directories wait for new ones in them.
    deferring: Option<Instant>,
    piece: usize,
    phase: Phase,
    reconciled: Option<SystemTime>,
    /// Device and inode of the root; the device is not known of one from an index.
    root: Option<(Option<u64>, u64)>,
    records: FxHashMap<NodeId, Option<DirRecord>>,
}

impl Kept {
    pub(super) fn new(
        at: usize,
        live: Arc<Live>,
        crawler: Arc<Crawler>,
        (events, received): (Sender<Event>, Receiver<Event>),
        options: KeepOptions,
    ) -> io::Result<Self> {
        let threads = crawler.options.threads.max(1);
        let pool = |name: &'static str| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |number| format!("{name}-{at}-{number}"))
                .stack_size(16 << 20)
                .build()
                .map_err(io::Error::other)
        };
        Ok(Self {
            at,
            tree: Tree::new(&crawler.automaton, &crawler.source.root_name),
            crawls: pool("crawl")?,
            quick: pool("look")?,
            crawler,
            live,
            events,
            received,
            options,
            polled: Instant::now(),
            retried: Instant::now(),
            touches: FxHashSet::default(),
            waiting: Vec::new(),
            founded: false,
            last: None,
            stopped: false,
            crawling: 0,
            dirty: FxHashSet::default(),
            slow: FxHashMap::default(),
            early: FxHashSet::default(),
            distrust: false,
            reconciles: VecDeque::new(),
            deferring: None,
            piece: 0,
            phase: Phase::Scanning,
            reconciled: None,
            root: None,
            records: FxHashMap::default(),
        })
    }

    /// Which source it is.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    pub(super) fn crawler(&self) -> &Arc<Crawler> {
        &self.crawler
    }

    /// Begins with a tree from an index that was compared last at a certain time.
    pub(super) fn begin_with(&mut self, tree: Tree, planted: Planted, reconciled: Option<SystemTime>) {
        let root = tree.node(NodeId::ROOT);
        if root.state == State::Read {
            self.root = Some((None, root.stamp.ino));
            self.phase = Phase::Reconciling;
        }
        self.tree = tree;
        self.reconciled = reconciled;
        self.dirty.extend(planted.unread);
        if self.crawler.storing {
            self.records.extend(planted.stray.into_iter().map(|id| (id, None)));
        }
    }

    /// Looks at the root for the first time, and begins to read or compare.
    pub(super) fn begin(&mut self) {
        self.look_at_root();
        if matches!(self.phase, Phase::Away(_)) {
            // What is known is judged as far as that goes without the source.
            let open: Vec<NodeId> = self.dirty.drain().collect();
            open.into_iter().for_each(|id| self.tree.judge_again(id));
        }
    }

    /// Sees whether the source is there, and the same as before.
    fn look_at_root(&mut self) {
        let known = self.tree.node(NodeId::ROOT).state == State::Read;
        match self.crawler.root() {
            Err(error) => self.away(&error),
            Ok(((dev, ino), empty)) => {
                let another = match self.root {
                    Some((Some(known), _)) => known != dev,
                    Some((None, known)) => known != ino,
                    None => false,
                };
                if another && empty && known && self.tree.len() > 1 {
                    // An empty mount point is not the source that was mounted there.
                    return self
                        .away(&io::Error::other("another, empty directory is there; is something not mounted?"));
                }
                let was_away = matches!(self.phase, Phase::Away(_));
                let replaced = self.root.is_some_and(|(was, known)| known != ino || was.is_some_and(|was| was != dev));
                self.root = Some((Some(dev), ino));
                if known {
                    if was_away || self.phase == Phase::Reconciling || replaced {
                        if was_away {
                            self.phase = Phase::Reconciling;
                        }
                        self.dirty.insert(NodeId::ROOT);
                        self.reconcile_all(false);
                    }
                } else if was_away || self.crawling == 0 {
                    self.phase = Phase::Scanning;
                    self.crawl(NodeId::ROOT);
                }
            }
        }
    }

    fn away(&mut self, error: &io::Error) {
        let error = crate::scan::plain(error);
        if self.phase != Phase::Away(error.clone()) {
            tracing::warn!(source = %self.crawler.source.root.display(), error, "source cannot be read");
        }
        self.phase = Phase::Away(error);
        self.reconciles.clear();
        self.dirty.clear();
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.phase, Phase::Away(_))
    }

    /// True if nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.crawling == 0 && self.dirty.is_empty() && self.reconciles.is_empty()
    }

    /// Begins, and goes on until it is told to stop; `report` is told after each step, and says no when nobody listens
    /// any more.
    pub(super) fn run(mut self, report: &dyn Fn(Report) -> bool) {
        self.begin();
        loop {
            let said = self.report();
            // What was read after the end was told is not what is there.
            if self.crawler.progress.cancelled.load(Ordering::Relaxed) || said.is_some_and(|said| !report(said)) {
                return;
            }
            if !self.step(true) {
                return;
            }
        }
    }

    /// Takes in what happened and does what is to be done, waiting for something if `wait` says so and there is nothing
    /// to do; false at the end.
    pub(super) fn step(&mut self, wait: bool) -> bool {
        let mut next = if wait { self.wait() } else { self.received.try_recv().ok() };
        if wait && next.is_some() && self.phase == Phase::Scanning {
            // More will follow: being woken for each one took a third of a scan's time.
            std::thread::sleep(GATHER);
        }
        let mut taken = 0;
        while let Some(event) = next {
            self.take_event(event);
            taken += 1;
            next = if taken < BATCH { self.received.try_recv().ok() } else { None };
        }
        if !self.stopped {
            self.work();
        }
        !self.stopped
    }

    fn wait(&self) -> Option<Event> {
        if self.has_work() && !self.is_away() {
            return self.received.try_recv().ok();
        }
        let due =
            [self.is_away().then(|| RETRY.saturating_sub(self.retried.elapsed())), self.next_poll(), self.next_work()];
        match due.into_iter().flatten().min() {
            Some(limit) => match self.received.recv_timeout(limit) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Event::Asked(Request::Stop)),
            },
            // A sender is kept here, so that this waits until something happens.
            None => self.received.recv().ok(),
        }
    }

    fn next_poll(&self) -> Option<Duration> {
        let poll = self.options.poll?;
        (self.phase == Phase::Complete && self.needs_polling()).then(|| poll.saturating_sub(self.polled.elapsed()))
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Seen { job, outcome } => self.seen(job, outcome),
            Event::Crawled => self.crawled(),
            Event::Told { changes } => self.told(changes),
            Event::Asked(Request::Refresh { below, ticket }) => {
                self.look_at_root();
                if !self.is_away() {
                    match &below {
                        Some(path) => self.reconcile(path),
                        None => self.reconcile_all(false),
                    }
                }
                self.touch(below.unwrap_or_else(RelPath::root), Touched::Below);
                self.waiting.push(ticket);
            }
            Event::Asked(Request::Again) if !self.is_away() => {
                let nodes = (0..).map(NodeId).zip(self.tree.nodes());
                let known = nodes.filter(|(_, node)| !matches!(node.state, State::Free | State::Pending));
                self.dirty.extend(known.map(|(id, _)| id));
            }
            Event::Asked(Request::Again) => {}
            Event::Asked(Request::Stop) => self.stopped = true,
        }
    }

    /// Reads, compares and judges what has to be.
    fn work(&mut self) {
        if self.is_away() && self.retried.elapsed() >= RETRY {
            self.retried = Instant::now();
            self.look_at_root();
        }
        if self.next_poll().is_some_and(|rest| rest.is_zero()) {
            self.polled = Instant::now();
            let whole = self.crawler.watch.state().mode == Mode::Poll;
            self.look_at_root();
            self.reconcile_all(!whole);
        }
        if !self.is_away() {
            self.read_dirty();
            self.reconcile_piece();
        }
        self.judge();
        self.note_phase();
    }

    /// What there is to say.
    pub(super) fn report(&mut self) -> Option<Report> {
        let watch = self.crawler.watch.state();
        let state = SourceState {
            phase: self.phase.clone(),
            directories: self.tree.len() as u64,
            pending: self.tree.pending() as u64,
            reconciled: self.reconciled,
            watch: watch_json(&watch),
        };
        let changes = self.tree.take_changes();
        let troubles = self.tree.take_troubles_changed().then(|| {
            let texts = self.tree.troubles().take(KEPT_TROUBLES);
            let texts = texts.map(|trouble: &Trouble| self.live.trouble_json(self.at, trouble)).collect();
            (self.tree.trouble_count() as u64, texts)
        });
        let founded = (!self.founded && self.phase == Phase::Complete).then(|| {
            self.founded = true;
            self.tree.matches().map(|found| (found.pattern, found.path)).collect()
        });
        let tickets = if self.is_idle() || self.is_away() { std::mem::take(&mut self.waiting) } else { Vec::new() };
        let same = self.last.as_ref() == Some(&state);
        if same
            && changes.is_empty()
            && troubles.is_none()
            && founded.is_none()
            && tickets.is_empty()
            && self.touches.is_empty()
            && self.records.is_empty()
        {
            return None;
        }
        self.last = Some(state.clone());
        Some(Report {
            source: self.at,
            state,
            changes,
            touches: std::mem::take(&mut self.touches),
            troubles,
            records: std::mem::take(&mut self.records),
            founded,
            tickets,
        })
    }

    fn touch(&mut self, dir: RelPath, what: Touched) {
        self.touches.insert(Touch { source: self.at, dir, what });
    }

    /// True if something can be done at once.
    fn has_work(&self) -> bool {
        !self.reconciles.is_empty() || self.dirty.iter().any(|id| self.rest_of(*id).is_none())
    }

    /// When something is to be done that has to wait.
    fn next_work(&self) -> Option<Duration> {
        let deferred = self.deferring.map(|since| DEFER.saturating_sub(since.elapsed()));
        self.dirty.iter().filter_map(|id| self.rest_of(*id)).chain(deferred).min()
    }

    fn rest_of(&self, id: NodeId) -> Option<Duration> {
        let (since, took) = self.slow.get(&id)?;
        (*took * REST).checked_sub(since.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// True if changes are not told everywhere.
    fn needs_polling(&self) -> bool {
        let state = self.crawler.watch.state();
        // Nobody tells when what could not be read can be.
        state.mode == Mode::Poll || state.refused > 0 || self.tree.has_unread()
    }

    // --- reading ---

    fn job(&self, id: NodeId) -> Job {
        Job { path: self.tree.path(id), linked: self.tree.node(id).linked }
    }

    /// Reads a directory that nobody knows yet, and all below, while other things go on.
    fn crawl(&mut self, id: NodeId) {
        let job = self.job(id);
        let (events, crawler) = (self.events.clone(), Arc::clone(&self.crawler));
        let seen = events.clone();
        let progress = Arc::clone(&self.crawler.progress);
        let sink: Sink = Arc::new(move |job, outcome| {
            let going = !progress.cancelled.load(Ordering::Relaxed);
            going && seen.send(Event::Seen { job, outcome }).is_ok()
        });
        self.crawling += 1;
        self.crawls.spawn(move || {
            rayon::scope(|scope| crawler.crawl(job, &sink, scope));
            // Nobody receives any more once the mount is going.
            let _ = events.send(Event::Crawled);
        });
    }

    /// A crawl has read a directory.
    fn seen(&mut self, job: Job, outcome: Outcome) {
        let Some(id) = self.tree.find(job.path.as_bytes()) else { return };
        let node = self.tree.node(id);
        if node.state != State::Pending || node.linked != job.linked {
            // It was removed and made anew, or read otherwise, since the crawl began.
            return;
        }
        if id == NodeId::ROOT
            && let Outcome::Unread(error) = outcome
        {
            return self.away(&error);
        }
        if id == NodeId::ROOT && matches!(outcome, Outcome::Gone) {
            return self.away(&io::Error::from(io::ErrorKind::NotFound));
        }
        // The crawl that read it reads what is below as well.
        self.take(id, outcome);
        let told = !self.early.is_empty() && {
            let path = self.crawler.absolute(&job.path);
            self.early.contains(path.as_slice())
        };
        if told || self.distrust {
            self.dirty.insert(id);
        }
    }

    /// A crawl has come to its end.
    fn crawled(&mut self) {
        self.crawling -= 1;
        if self.crawling == 0 {
            self.early.clear();
            self.distrust = false;
        }
    }

    /// Takes in what a directory is; returns those in it that nobody has read.
    fn take(&mut self, id: NodeId, mut outcome: Outcome) -> Vec<NodeId> {
        let record = match &mut outcome {
            Outcome::Read(read) if self.crawler.storing => {
                let node = self.tree.node(id);
                let name: Box<[u8]> = if id == NodeId::ROOT { Box::default() } else { node.name.clone() };
                let listing = std::mem::take(&mut read.listing);
                Some(DirRecord { parent: node.parent.0, name, stamp: read.stamp, trusted: read.trusted, listing })
            }
            _ => None,
        };
        if self.crawler.storing {
            self.records.insert(id, record);
        }
        let applied = self.tree.apply(id, outcome);
        if let Some(parent) = applied.suspect {
            self.dirty.insert(parent);
        }
        self.forget_dropped();
        applied.new
    }

    fn forget_dropped(&mut self) {
        for (id, path) in self.tree.take_dropped() {
            self.crawler.watch.remove(&self.crawler.absolute(&path));
            self.dirty.remove(&id);
            self.slow.remove(&id);
            if self.crawler.storing {
                self.records.insert(id, None);
            }
        }
    }

    /// Reads again what has to be, as far as it may be now.
    fn read_dirty(&mut self) {
        let mut due: Vec<NodeId> = self.dirty.iter().copied().filter(|id| self.rest_of(*id).is_none()).collect();
        due.sort_unstable();
        if due.is_empty() {
            return;
        }
        due.iter().for_each(|id| {
            self.dirty.remove(id);
        });
        // What nobody has read yet is read with all below, elsewhere.
        let (new, known): (Vec<NodeId>, Vec<NodeId>) =
            due.into_iter().partition(|id| self.tree.node(*id).state == State::Pending);
        if self.crawling == 0 {
            new.into_iter().for_each(|id| self.crawl(id));
        } else {
            // A crawl may be reading what was there under the name before.
            self.early.extend(new.into_iter().map(|id| self.crawler.absolute(&self.tree.path(id)).into()));
        }
        let jobs: Vec<(NodeId, Job)> = known
            .into_iter()
            .filter(|id| self.tree.node(*id).state != State::Free)
            .map(|id| (id, self.job(id)))
            .collect();
        let crawler = &self.crawler;
        let read = |(id, job): (NodeId, Job)| {
            let begun = Instant::now();
            let outcome = crawler.read(None, &job);
            (id, job, outcome, begun.elapsed())
        };
        let outcomes: Vec<(NodeId, Job, Outcome, Duration)> = if let [_] = &*jobs {
            jobs.into_iter().map(read).collect()
        } else {
            self.quick.install(|| jobs.into_par_iter().map(read).collect())
        };
        for (id, job, outcome, took) in outcomes {
            if self.tree.find(job.path.as_bytes()) != Some(id) || self.tree.node(id).linked != job.linked {
                // One above it turned out to be gone, and its number may be another's by now.
                continue;
            }
            if took > SLOW {
                self.slow.insert(id, (Instant::now(), took));
            } else {
                self.slow.remove(&id);
            }
            if id == NodeId::ROOT && matches!(outcome, Outcome::Unread(_) | Outcome::Gone) {
                let error = match outcome {
                    Outcome::Unread(error) => error,
                    _ => io::Error::from(io::ErrorKind::NotFound),
                };
                return self.away(&error);
            }
            let new = self.take(id, outcome);
            new.into_iter().for_each(|id| self.crawl(id));
        }
    }

    // --- comparing ---

    /// Compares all directories with what is known of them, or those in which changes are not told.
    fn reconcile_all(&mut self, unwatched: bool) {
        let ids = (0..self.tree.nodes().len() as u32).map(NodeId).collect();
        // One that has not begun yet sees as much.
        if !self.reconciles.iter().any(|known| known.whole && known.at == 0 && !known.unwatched) {
            self.reconciles.push_back(Reconcile { ids, at: 0, whole: true, unwatched, anew: !unwatched });
        }
    }

    /// Compares a directory and all below it with what is known of them.
    fn reconcile(&mut self, path: &RelPath) {
        let mut at = path.as_bytes();
        // One that is not known is found by reading the one above it.
        let id = loop {
            if let Some(id) = self.tree.find(at) {
                break id;
            }
            at = at.iter().rposition(|byte| *byte == b'/').map_or(b"", |end| &at[..end]);
        };
        self.reconcile_below(id);
    }

    fn reconcile_below(&mut self, id: NodeId) {
        let mut ids = vec![id];
        let mut next = 0;
        while next < ids.len() {
            ids.extend_from_slice(self.tree.node(ids[next]).children());
            next += 1;
        }
        self.dirty.insert(id);
        // One that has not begun yet sees as much: a directory that is renamed to and fro is told of without end.
        let waits = |known: &Reconcile| known.at == 0 && known.ids == ids && (known.anew || !known.unwatched);
        if ids.len() > 1 && !self.reconciles.iter().any(waits) {
            self.reconciles.push_back(Reconcile { ids, at: 0, whole: false, unwatched: false, anew: true });
        }
    }

    /// One piece of the comparison that is under way.
    fn reconcile_piece(&mut self) {
        let Some(reconcile) = self.reconciles.front_mut() else { return };
        let least = PIECE_LEAST * self.quick.current_num_threads();
        let piece = self.piece.max(least);
        let end = (reconcile.at + piece).min(reconcile.ids.len());
        let (ids, unwatched, anew) = (reconcile.ids[reconcile.at..end].to_vec(), reconcile.unwatched, reconcile.anew);
        reconcile.at = end;
        if end == reconcile.ids.len() {
            self.reconciles.pop_front();
        }
        let begun = Instant::now();
        let root = match self.crawler.open_root() {
            Ok(root) => root,
            Err(error) => return self.away(&error),
        };
        let (tree, crawler) = (&self.tree, &self.crawler);
        // Together, so that directories beside each other are asked by one thread, which makes the path above them once.
        let looked: Vec<(NodeId, Looked, bool)> = self.quick.install(|| {
            let looks = ids.par_chunks(PIECE_LEAST).map(|ids| {
                let mut above = Above::default();
                let looked = ids.iter().filter_map(|id| look(tree, crawler, &root, *id, (unwatched, anew), &mut above));
                looked.collect::<Vec<_>>()
            });
            looks.flatten().collect()
        });
        for (id, looked, told) in looked {
            self.tree.set_watched(id, told);
            match looked {
                Looked::Same => {
                    if self.tree.tests_files(&self.crawler.automaton, id) {
                        self.tree.judge_again(id);
                    }
                }
                Looked::Changed => {
                    self.dirty.insert(id);
                }
                Looked::Gone => {
                    self.dirty.insert(id);
                    self.dirty.insert(self.tree.node(id).parent);
                }
            }
        }
        // Towards the time that a piece should take, by no more than twice at once.
        let took = begun.elapsed().max(Duration::from_micros(10));
        let wanted = piece as f64 * PIECE_TIME.as_secs_f64() / took.as_secs_f64();
        self.piece = (wanted as usize).clamp(piece / 2, piece * 2).clamp(least, 1 << 16);
    }

    /// What is known is what is there, if nothing is under way.
    fn note_phase(&mut self) {
        if self.is_idle() && self.tree.pending() == 0 && !self.is_away() && self.phase != Phase::Complete {
            self.phase = Phase::Complete;
            self.reconciled = Some(SystemTime::now());
        }
    }

    // --- changes that are told ---

    /// Takes in what a watch tells.
    fn told(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Entry { dir, name, is_dir } => {
                    self.changed(&dir, name.as_deref(), true);
                    if let (true, Some(name)) = (is_dir, &name) {
                        // Another directory may be there under the name of one that is known, with all below.
                        for id in self.nodes_of(&[&*dir, b"/", name].concat()) {
                            self.reconcile_below(id);
                        }
                    }
                }
                Change::Attributes { dir, name, is_dir } => {
                    self.changed(&dir, name.as_deref(), name.is_none());
                    if let (true, Some(name)) = (is_dir, &name) {
                        let path = [&*dir, b"/", name].concat();
                        self.changed(&path, None, true);
                    }
                }
                Change::Content { dir, name } => self.changed(&dir, Some(&name), false),
                Change::Root => {
                    self.note_mounts();
                    self.look_at_root();
                    // Watches may have gone though it is there again.
                    if !self.is_away() && self.tree.node(NodeId::ROOT).state == State::Read {
                        self.dirty.insert(NodeId::ROOT);
                        self.reconcile_all(false);
                    }
                }
                Change::Lost => {
                    self.note_mounts();
                    self.distrust = self.crawling > 0;
                    if self.tree.node(NodeId::ROOT).state == State::Read {
                        self.dirty.insert(NodeId::ROOT);
                    }
                    self.reconcile_all(false);
                    self.touch(RelPath::root(), Touched::Below);
                }
            }
        }
    }

    /// Something may have been mounted that is not to be entered, by links neither.
    fn note_mounts(&self) {
        let own = self.root.and_then(|(dev, _)| dev);
        crate::scan::shut_new(&self.crawler.options, own);
    }

    /// The directories that the absolute path `dir` stands for.
    fn nodes_of(&self, dir: &[u8]) -> Vec<NodeId> {
        use std::os::unix::ffi::OsStrExt;
        let root = self.crawler.source.root.as_os_str().as_bytes();
        let below = match dir.strip_prefix(root) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") || root == b"/" => self.tree.find(rest),
            _ => None,
        };
        let mut nodes: Vec<NodeId> = below.into_iter().chain(self.tree.at_real(dir)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The entry `name` of `dir` is another one, or `dir` itself is; `structure`: it came, went, or may be read otherwise.
    fn changed(&mut self, dir: &[u8], name: Option<&[u8]>, structure: bool) {
        let nodes = self.nodes_of(dir);
        if structure {
            for id in self.tree.depending(dir, name) {
                self.dirty.insert(id);
            }
        }
        let known = nodes.iter().any(|id| self.tree.node(*id).state != State::Pending);
        if !known && self.crawling > 0 {
            self.early.insert(dir.into());
        }
        for id in nodes {
            if self.tree.node(id).state == State::Pending {
                continue;
            }
            if structure {
                self.dirty.insert(id);
            } else if self.tree.tests_files(&self.crawler.automaton, id) {
                self.tree.judge_again(id);
            }
            let what = name.map_or(Touched::Itself, |name| Touched::Entry(name.into()));
            self.touch(self.tree.path(id), what);
        }
        if !structure {
            // Content behind a link.
            for id in self.tree.depending(dir, name) {
                self.dirty.insert(id);
            }
        }
    }

    // --- judging ---

    fn judge(&mut self) {
        let crawler = &self.crawler;
        let probe = |path: &RelPath, name: &[u8], test| crawler.probe(path, name, test);
        let with = Judge { automaton: &crawler.automaton, scratch: &crawler.scratch, probe: &probe, pool: &self.quick };
        self.tree.judge(&with);
        if !self.tree.defers() {
            self.deferring = None;
        } else if self.deferring.get_or_insert_with(Instant::now).elapsed() >= DEFER {
            self.tree.judge_unready();
            self.tree.judge(&with);
            self.deferring = None;
        }
        for id in self.tree.take_judged() {
            self.touch(self.tree.path(id), Touched::Itself);
        }
    }
}

fn watch_json(state: &crate::watch::State) -> Value {
    let mode = match state.mode {
        Mode::Fanotify => "fanotify",
        Mode::Inotify => "inotify",
        Mode::Poll => "polling",
    };
    json!({
        "mode": mode,
        "reason": state.reason,
        "watches": state.watches,
        "limit": state.limit,
        "refused": state.refused,
        "overflows": state.lost,
    })
}

/// The path of the directory that was asked last.
#[derive(Default)]
struct Above(Option<(NodeId, RelPath)>);

impl Above {
    fn path(&mut self, tree: &Tree, id: NodeId) -> RelPath {
        if id == NodeId::ROOT {
            return RelPath::root();
        }
        let parent = tree.node(id).parent;
        if self.0.as_ref().is_none_or(|(known, _)| *known != parent) {
            self.0 = Some((parent, tree.path(parent)));
        }
        self.0.as_ref().map_or_else(RelPath::root, |(_, path)| path.join(&tree.node(id).name))
    }
}

fn look(
    tree: &Tree,
    crawler: &Crawler,
    root: &Handle,
    id: NodeId,
    (unwatched, anew): (bool, bool),
    above: &mut Above,
) -> Option<(NodeId, Looked, bool)> {
    let node = tree.nodes().get(id.0 as usize)?;
    match node.state {
        State::Free | State::Pending => return None,
        _ if unwatched && node.watched && !node.asks_links() => return None,
        // Whether it is still closed, unreadable or a loop is told by trying.
        State::Closed | State::Unread | State::Behind => return Some((id, Looked::Changed, node.watched)),
        State::Read => {}
    }
    if !node.trusted || node.asks_links() {
        return Some((id, Looked::Changed, node.watched));
    }
    let job = Job { path: above.path(tree, id), linked: node.linked };
    let (looked, told) = crawler.look(root, &job, &node.stamp, node.watched && !anew);
    Some((id, looked, told))
}
