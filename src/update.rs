//! The one writer of a mount: what is read and told of the sources becomes the next view.
//!
//! [`Keeper`] owns the trees of all sources, the names of matches and the index. It takes [`Event`]s one batch after
//! the other: what crawls have read, what watches tell, what users ask for. After each batch it reads again what has
//! to be, judges it ([`crate::tree`]), publishes the next view, and says what the kernel has to forget. While nothing
//! happens it sleeps without a time limit, unless something has to be polled, tried again or committed.
//!
//! Readers never wait for it: they take the view that was published last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashSet;
use serde_json::{Value, json};

use crate::automaton::PatternId;
use crate::crawl::{Crawler, Job, Watching};
use crate::entry::RelPath;
use crate::index::Batch;
use crate::listing::Scratch;
use crate::live::{Live, SourceState};
use crate::tree::restore::Restoring;
use crate::tree::{MatchChange, NodeId, Outcome};
use crate::view::catalog::Catalog;
use crate::view::inode::Inodes;
use crate::view::{Changes, Edit, View};
use crate::watch::{Change, Mode};
use source::{Kept, Phase};
use store::Store;

pub mod source;
pub mod store;

/// How often a source that is away is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The least time between two views while a scan runs.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// The least time between two commits.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Commits are not put off when records take more than this, in bytes.
const COMMIT_BYTES: usize = 16 << 20;
/// The most events that are taken in at once.
const BATCH: usize = 16 << 10;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A crawl has read a directory.
    Seen {
        /// Which source, by its place.
        source: usize,
        /// Where.
        job: Job,
        /// What it is.
        outcome: Outcome,
    },
    /// A crawl has come to its end.
    Crawled {
        /// Which source.
        source: usize,
    },
    /// A watch tells of changes.
    Told {
        /// Which source.
        source: usize,
        /// What changed.
        changes: Vec<Change>,
    },
    /// Somebody wants to be sure that what is shown is what is there.
    Refresh {
        /// Only of this source and below this path.
        below: Option<(usize, RelPath)>,
        /// To be told when it is.
        ticket: u64,
    },
    /// The mount is going.
    Stop,
}

/// A real directory that shows another thing than it did, or may do so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Touch {
    /// The source.
    pub source: usize,
    /// The directory below the source; `None` for all of them.
    pub dir: Option<RelPath>,
    /// The entry of it; `None` for the directory itself.
    pub name: Option<Box<[u8]>>,
}

/// What has to be told to the kernel after a view was published.
#[derive(Debug)]
pub struct Told {
    /// The view before.
    pub old: Arc<View>,
    /// The one that was published.
    pub new: Arc<View>,
    /// What changed in the view.
    pub changes: Changes,
    /// What changed inside of matches.
    pub touches: Vec<Touch>,
}

/// Makes the watch of a source, which sends what it tells as [`Event::Told`].
pub type MakeWatch<'a> = &'a dyn Fn(usize, Sender<Event>) -> Arc<dyn Watching>;

/// How a mount is kept up to date.
#[derive(Clone, Copy, Debug)]
pub struct KeepOptions {
    /// How often that of which changes are not told is looked at; `None` for never.
    pub poll: Option<Duration>,
}

/// The writer.
pub struct Keeper {
    live: Arc<Live>,
    sources: Vec<Kept>,
    catalog: Catalog,
    inodes: Inodes,
    events: Receiver<Event>,
    sender: Sender<Event>,
    store: Option<Store>,
    options: KeepOptions,
    tell: Box<dyn Fn(Told) + Send>,
    begun: Instant,
    /// Names are final from here on.
    settled: bool,
    published: Instant,
    pause: Duration,
    touches: FxHashSet<Touch>,
    polled: Instant,
    retried: Instant,
    committed: Instant,
    /// Matches are other ones than in the index.
    unsaved: bool,
    waiting: Vec<u64>,
    /// Sources of which an index knew matches that have not been compared with what is there.
    unverified: Vec<usize>,
    stopped: bool,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("live", &self.live.mountpoint).finish_non_exhaustive()
    }
}

impl Keeper {
    /// A writer that has not begun. What an index knows of matches is in the view when it returns.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(
        live: Arc<Live>,
        mut inodes: Inodes,
        make_watch: MakeWatch<'_>,
        mut store: Option<Store>,
        options: KeepOptions,
        tell: Box<dyn Fn(Told) + Send>,
    ) -> std::io::Result<Self> {
        let (sender, events) = channel();
        let storing = store.as_ref().is_some_and(Store::keeps_listings);
        let sources = (0..live.sources.len()).map(|at| {
            let crawler = Crawler::new(
                Arc::clone(&live.automaton),
                live.sources[at].clone(),
                live.options[at].clone(),
                make_watch(at, sender.clone()),
                storing,
                Arc::clone(&live.progress),
            );
            Kept::new(at, Arc::new(crawler), sender.clone())
        });
        let sources = sources.collect::<std::io::Result<Vec<_>>>()?;
        let mut catalog = Catalog::new(&live.automaton);
        let (mut settled, mut unverified) = (false, Vec::new());
        if let Some(store) = &mut store {
            let saved = store.matches(&live);
            let all = saved.iter().all(Option::is_some) && !saved.is_empty();
            let view = Arc::clone(&live.view());
            let mut edit = Edit::new(&view, &mut inodes);
            for (source, named) in saved.into_iter().flatten().flatten() {
                catalog.restore(&mut edit, &live.automaton, &live.sources, source, named);
                if !unverified.contains(&source) {
                    unverified.push(source);
                }
            }
            if all {
                // They have had their names for some time.
                catalog.settle();
                settled = true;
            }
            catalog.publish(&mut edit, &live.automaton, &live.sources);
            live.publish(Arc::new(edit.finish().0));
            live.set_restored(all);
        }
        live.set_requests(sender.clone());
        let now = Instant::now();
        Ok(Self {
            live,
            sources,
            catalog,
            inodes,
            events,
            sender,
            store,
            options,
            tell,
            begun: now,
            settled,
            published: now.checked_sub(PUBLISH_EVERY).unwrap_or(now),
            pause: PUBLISH_EVERY,
            touches: FxHashSet::default(),
            polled: now,
            retried: now,
            committed: now,
            unsaved: false,
            waiting: Vec::new(),
            unverified,
            stopped: false,
        })
    }

    /// Sends events to it.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Keeps the mount up to date until it is told to stop, then commits what it knows.
    pub fn run(mut self) {
        self.begin();
        while self.step(true) {}
        self.commit();
        if let Some(store) = self.store.take() {
            store.close();
        }
    }

    /// Begins: from the index, or with a scan.
    pub fn begin(&mut self) {
        self.load();
        for kept in &mut self.sources {
            kept.begin();
        }
        self.work();
    }

    /// What an index knows of directories becomes trees.
    fn load(&mut self) {
        let Some(store) = &mut self.store else { return };
        let automaton = Arc::clone(&self.live.automaton);
        let mut restoring: Vec<Restoring> = self.sources.iter().map(|_| Restoring::default()).collect();
        let mut scratch = Scratch::new(&automaton);
        let mut damaged = false;
        let sources = &self.sources;
        let loaded = store.load(&mut |source, id, record| {
            let (Some(into), Some(kept)) = (restoring.get_mut(source as usize), sources.get(source as usize)) else {
                damaged = true;
                return;
            };
            let follow = kept.crawler().options.follow;
            let fields = (NodeId(record.parent), record.name, record.stamp, record.trusted, &*record.listing);
            damaged |= into.add(&automaton, follow, &mut scratch, NodeId(id), fields).is_err();
        });
        if damaged {
            store.begin_anew("it holds what cannot be");
        }
        let Some(meta) = loaded.filter(|_| !damaged) else { return };
        for (kept, restoring) in self.sources.iter_mut().zip(restoring) {
            if restoring.is_empty() {
                continue;
            }
            kept.reconciled = meta.reconciled;
            self.live.progress.directories.fetch_add(restoring.len() as u64, Ordering::Relaxed);
            self.live.progress.entries.fetch_add(restoring.entries, Ordering::Relaxed);
            let crawler = Arc::clone(kept.crawler());
            let closed = |path: &RelPath| {
                path.name() == Some(crate::reader::NOT_ENTERED)
                    || !path.is_root() && crawler.options.closes(path.as_bytes())
            };
            let (tree, planted) = restoring.plant(&automaton, &crawler.source.root_name, &closed);
            if crawler.storing {
                kept.records.extend(planted.stray.into_iter().map(|id| (id, None)));
            }
            kept.begin_with(tree, planted.unread);
        }
    }

    /// Takes in what happened, waiting for it if `wait` says so and nothing else is to be done; false at the end.
    pub fn step(&mut self, wait: bool) -> bool {
        let first = if wait { self.wait() } else { self.events.try_recv().ok() };
        let mut taken = 0;
        let mut next = first;
        while let Some(event) = next {
            self.take(event);
            taken += 1;
            next = if taken < BATCH { self.events.try_recv().ok() } else { None };
        }
        self.work();
        !self.stopped
    }

    /// Takes in all that happened and does all that is to be done, until nothing is under way.
    pub fn settle(&mut self) {
        loop {
            let idle = self.sources.iter().all(|kept| kept.is_idle() || kept.is_away());
            if idle {
                match self.events.try_recv() {
                    Ok(event) => self.take(event),
                    Err(_) => return self.work(),
                }
            }
            self.step(!idle);
        }
    }

    fn wait(&mut self) -> Option<Event> {
        if self.sources.iter().any(Kept::has_work) {
            return self.events.try_recv().ok();
        }
        let due = [
            (!self.settled && self.catalog.is_stale()).then(|| self.pause.saturating_sub(self.published.elapsed())),
            self.sources.iter().any(Kept::is_away).then(|| RETRY.saturating_sub(self.retried.elapsed())),
            self.next_poll(),
            self.has_uncommitted().then(|| COMMIT_EVERY.saturating_sub(self.committed.elapsed())),
            self.sources.iter().filter_map(Kept::next_work).min(),
        ];
        match due.into_iter().flatten().min() {
            Some(limit) => match self.events.recv_timeout(limit) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
            },
            // A sender is kept here, so that this waits until something happens.
            None => self.events.recv().ok(),
        }
    }

    fn next_poll(&self) -> Option<Duration> {
        let poll = self.options.poll?;
        let polled = |kept: &Kept| kept.phase == Phase::Complete && kept.needs_polling();
        self.sources.iter().any(polled).then(|| poll.saturating_sub(self.polled.elapsed()))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Seen { source, job, outcome } => self.sources[source].seen(job, outcome),
            Event::Crawled { source } => self.sources[source].crawled(),
            Event::Told { source, changes } => {
                let touches = &mut self.touches;
                self.sources[source].told(changes, &mut |touch| {
                    touches.insert(touch);
                });
            }
            Event::Refresh { below, ticket } => {
                match below {
                    Some((source, path)) => {
                        if let Some(kept) = self.sources.get_mut(source) {
                            kept.look_at_root();
                            kept.reconcile(&path);
                        }
                        self.touches.insert(Touch { source, dir: Some(path), name: None });
                    }
                    None => {
                        for (source, kept) in self.sources.iter_mut().enumerate() {
                            kept.look_at_root();
                            if !kept.is_away() {
                                kept.reconcile_all(false);
                            }
                            self.touches.insert(Touch { source, dir: None, name: None });
                        }
                    }
                }
                self.waiting.push(ticket);
            }
            Event::Stop => self.stopped = true,
        }
    }

    /// Reads, judges and publishes what has to be.
    fn work(&mut self) {
        if self.stopped {
            return;
        }
        if self.sources.iter().any(Kept::is_away) && self.retried.elapsed() >= RETRY {
            self.retried = Instant::now();
            self.sources.iter_mut().filter(|kept| kept.is_away()).for_each(Kept::look_at_root);
        }
        if self.next_poll().is_some_and(|rest| rest.is_zero()) {
            self.polled = Instant::now();
            for kept in self.sources.iter_mut().filter(|kept| kept.phase == Phase::Complete) {
                let whole = kept.crawler().watch.state().mode == Mode::Poll;
                kept.look_at_root();
                kept.reconcile_all(!whole);
            }
        }
        for (source, kept) in self.sources.iter_mut().enumerate() {
            if kept.is_away() {
                // What was in flight when it went is taken in, no more.
                let changes = kept.judge(&mut |_| {});
                self.catalog.note(source, changes);
                continue;
            }
            kept.read_dirty();
            kept.reconcile_piece();
            let touches = &mut self.touches;
            let changes = kept.judge(&mut |touch| {
                touches.insert(touch);
            });
            self.catalog.note(source, changes);
            kept.note_phase();
        }
        let complete = self.sources.iter().all(|kept| kept.phase == Phase::Complete || kept.is_away());
        self.verify();
        self.publish(complete);
        self.report(complete);
        let idle = self.sources.iter().all(|kept| kept.is_idle() || kept.is_away());
        if idle && !self.waiting.is_empty() {
            let done = self.waiting.drain(..).max();
            self.live.set_refreshed(done);
        }
        if self.sources.iter().map(|kept| kept.record_bytes).sum::<usize>() > COMMIT_BYTES
            || self.has_uncommitted() && self.committed.elapsed() >= COMMIT_EVERY
        {
            self.commit();
        }
    }

    /// Drops matches from an index whose directories nobody knows any more, once their source was compared.
    fn verify(&mut self) {
        let sources = &self.sources;
        let (compared, open): (Vec<usize>, Vec<usize>) =
            self.unverified.drain(..).partition(|source| sources[*source].phase == Phase::Complete);
        self.unverified = open;
        for source in compared {
            let founded: FxHashSet<(PatternId, RelPath)> =
                self.sources[source].tree.matches().map(|found| (found.pattern, found.path)).collect();
            let known = self.catalog.of_source(source);
            let gone: Vec<MatchChange> = known
                .filter(|(pattern, path)| !founded.contains(&(*pattern, (*path).clone())))
                .map(|(pattern, path)| MatchChange::Gone(pattern, path.clone()))
                .collect();
            self.catalog.note(source, gone);
        }
    }

    fn publish(&mut self, complete: bool) {
        let stale = self.catalog.is_stale();
        let due = self.settled || complete || self.published.elapsed() >= self.pause;
        if !(stale && due) && (stale || self.touches.is_empty()) {
            if complete && !self.settled {
                self.settled = true;
                self.catalog.settle();
                self.unsaved = true;
            }
            return;
        }
        let building = Instant::now();
        let old = Arc::clone(&self.live.view());
        let mut edit = Edit::new(&old, &mut self.inodes);
        if stale {
            self.catalog.publish(&mut edit, &self.live.automaton, &self.live.sources);
            self.unsaved = true;
        }
        let (new, changes) = edit.finish();
        let new = Arc::new(new);
        self.live.publish(Arc::clone(&new));
        let touches = self.touches.drain().collect();
        (self.tell)(Told { old, new, changes, touches });
        self.published = Instant::now();
        // Naming all costs as much as there are matches: never more than a tenth of the time goes there.
        self.pause = PUBLISH_EVERY.max(building.elapsed() * 10);
        if complete && !self.settled {
            self.settled = true;
            self.catalog.settle();
        }
    }

    /// Tells readers how it stands.
    fn report(&mut self, complete: bool) {
        let states = self.sources.iter().map(|kept| {
            let watch = kept.crawler().watch.state();
            SourceState {
                phase: kept.phase.clone(),
                directories: kept.tree.len() as u64,
                pending: kept.tree.pending() as u64,
                reconciled: kept.reconciled,
                watch: watch_json(&watch),
            }
        });
        self.live.set_sources(states.collect());
        if complete {
            self.live.set_complete(self.begun.elapsed());
        }
        if self.sources.iter_mut().fold(false, |any, kept| any | kept.tree.take_troubles_changed()) {
            let count: usize = self.sources.iter().map(|kept| kept.tree.trouble_count()).sum();
            let texts = self
                .sources
                .iter()
                .enumerate()
                .flat_map(|(at, kept)| kept.tree.troubles().map(move |trouble| (at, trouble)));
            self.live.set_troubles(count as u64, texts);
        }
    }

    fn has_uncommitted(&self) -> bool {
        let fresh = |kept: &Kept| !kept.records.is_empty();
        self.store.is_some() && (self.sources.iter().any(fresh) || self.unsaved && self.settled)
    }

    /// Hands what is new to the index; whatever comes of it, the mount goes on.
    fn commit(&mut self) {
        if !self.has_uncommitted() {
            return;
        }
        let Some(store) = &mut self.store else { return };
        let mut batch = Batch::default();
        for (source, kept) in self.sources.iter_mut().enumerate() {
            kept.record_bytes = 0;
            let records = std::mem::take(&mut kept.records);
            batch.dirs.extend(records.into_iter().map(|(id, record)| ((source as u32, id.0), record)));
        }
        if std::mem::take(&mut self.unsaved) && self.settled {
            batch.matches = store.save(&self.live, &self.catalog);
        }
        let times = self.sources.iter().map(|kept| kept.reconciled).collect::<Option<Vec<SystemTime>>>();
        batch.reconciled = times.and_then(|times| times.into_iter().min());
        store.commit(batch);
        self.committed = Instant::now();
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

/// What is counted by pattern.
pub(crate) fn by_pattern<T>(items: impl Iterator<Item = (PatternId, T)>) -> BTreeMap<PatternId, Vec<T>> {
    let mut sorted: BTreeMap<PatternId, Vec<T>> = BTreeMap::new();
    items.for_each(|(pattern, item)| sorted.entry(pattern).or_default().push(item));
    sorted
}
