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

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};

use super::{Event, KeepOptions, Touch, Touched};
use crate::automaton::PatternId;
use crate::crawl::Crawler;
use crate::entry::RelPath;
use crate::index::DirRecord;
use crate::live::{KEPT_TROUBLES, Live, Phase, Request, SourceState};
use crate::tree::judge::Judge;
use crate::tree::restore::Planted;
use crate::tree::{MatchChange, NodeId, State, Tree};
use crate::walk::Trouble;
use crate::watch::Mode;
use renewal::Renewal;

mod reading;
mod renewal;
mod told;

/// How often a source that is away is tried again, and one where that costs requests.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_LISTED: Duration = Duration::from_secs(30);
/// How long what a first scan finds is gathered.
const GATHER: Duration = Duration::from_millis(2);
/// The most events that are taken in at once.
const BATCH: usize = 16 << 10;
/// How long a directory that matches is not judged while new ones in it are read.
const DEFER: Duration = Duration::from_millis(200);
/// A directory that took long to read is read again only after so many times longer, however often it changes.
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
    renewal: Renewal,
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
            renewal: Renewal::default(),
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
        if self.is_unlisted() {
            return self.renew();
        }
        self.note_listed();
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
        match self.crawler.root_identity() {
            Err(error) => self.away(&error),
            Ok((dev, ino)) => {
                let another = match self.root {
                    Some((Some(known), _)) => known != dev,
                    Some((None, known)) => known != ino,
                    None => false,
                };
                if another && known && self.tree.len() > 1 && self.crawler.root_is_empty().unwrap_or(false) {
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
        self.crawling == 0 && self.dirty.is_empty() && self.reconciles.is_empty() && !self.renewal.is_due()
    }

    /// True if nothing is under way, or nothing can be until it is tried again.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_idle() || self.is_away() && !self.renewal.is_due()
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
        if self.has_work() && !self.is_blind() {
            return self.received.try_recv().ok();
        }
        let work = if self.is_blind() { None } else { self.next_work() };
        let due = [self.next_try(), self.next_poll(), work];
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

    fn next_try(&self) -> Option<Duration> {
        let every = if self.is_listed() { RETRY_LISTED } else { RETRY };
        (self.is_away() && !self.renewal.is_due()).then(|| every.saturating_sub(self.retried.elapsed()))
    }

    fn next_poll(&self) -> Option<Duration> {
        let poll = self.options.poll?;
        let wanted = self.phase == Phase::Complete && self.needs_polling() && !self.renewal.is_due();
        wanted.then(|| poll.saturating_sub(self.polled.elapsed()))
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Seen { job, outcome } => self.seen(job, outcome),
            Event::Crawled => self.crawled(),
            Event::Renewed(result) => self.renewed(result),
            Event::Told { changes } => self.told(changes),
            Event::Asked(Request::Refresh { below, ticket }) => {
                if self.is_listed() {
                    self.renew();
                } else {
                    self.look_at_root();
                    if !self.is_away() {
                        match &below {
                            Some(path) => self.reconcile(path),
                            None => self.reconcile_all(false),
                        }
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
        if self.next_try().is_some_and(|rest| rest.is_zero()) {
            self.retried = Instant::now();
            if self.is_listed() { self.renew() } else { self.look_at_root() }
        }
        if self.next_poll().is_some_and(|rest| rest.is_zero()) {
            self.polled = Instant::now();
            if self.is_listed() {
                self.renew();
            } else {
                let whole = self.crawler.watch.state().mode == Mode::Poll;
                self.look_at_root();
                self.reconcile_all(!whole);
            }
        }
        if !self.is_blind() {
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
        let tickets = if self.is_at_rest() { std::mem::take(&mut self.waiting) } else { Vec::new() };
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
