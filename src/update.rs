//! How a mount follows its sources: what is read and told of them becomes the next view.
//!
//! Each source has a thread ([`source`]) that owns its tree. It takes [`Event`]s one batch after the other: what crawls
//! have read, what a watch tells, what users ask for. After each batch it reads again what has to be, judges it
//! ([`crate::tree`]) and reports. One publisher, the only writer of the view, names the matches of all sources, publishes
//! the next view, says what the kernel has to forget, and hands to the index what is new. While nothing happens all of
//! them sleep without a time limit, unless something has to be polled, tried again or committed.
//!
//! Readers wait for none of them: they take the view that was published last. Nor does a source wait for another one: one
//! that does not answer holds up itself alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::automaton::PatternId;
use crate::crawl::{Crawler, Job, Watching};
use crate::entry::RelPath;
use crate::index::{Batch, DirRecord};
use crate::listing::Scratch;
use crate::live::{Ask, Live, Phase, Request, SourceState};
use crate::source::Renewed;
use crate::tree::restore::Restoring;
use crate::tree::{MatchChange, NodeId, Outcome};
use crate::view::catalog::Catalog;
use crate::view::inode::Inodes;
use crate::view::{Changes, Edit, View};
use crate::watch::Change;
use source::{Kept, Report};
use store::Store;

pub mod source;
pub mod store;

/// The least time between two views while a scan runs.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// The least time between two commits.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Commits are not put off when records take more than this, in bytes.
const COMMIT_BYTES: usize = 16 << 20;

/// Something that happened to a source.
#[derive(Debug)]
pub enum Event {
    /// A crawl has read a directory.
    Seen {
        /// Where.
        job: Job,
        /// What it is.
        outcome: Outcome,
    },
    /// A crawl has come to its end.
    Crawled,
    /// A source that is listed as a whole was listed again, or could not be.
    Renewed(std::io::Result<Renewed>),
    /// A watch tells of changes.
    Told {
        /// What changed.
        changes: Vec<Change>,
    },
    /// Somebody asks for something.
    Asked(Request),
}

/// A real directory that shows another thing than it did, or may do so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Touch {
    /// The source.
    pub source: usize,
    /// The directory below the source.
    pub dir: RelPath,
    /// What of it.
    pub what: Touched,
}

/// What of a directory is another thing than it was, or may be so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Touched {
    /// The directory itself: its entries or its attributes.
    Itself,
    /// What a name in it stands for.
    Entry(Box<[u8]>),
    /// Content or attributes of what a name in it stands for, which is as it was otherwise.
    File(Box<[u8]>),
    /// Who may search it, and so reach what is below.
    Reach,
    /// All in it and below.
    Below,
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
    /// Refreshes that are done when this was told.
    pub tickets: Vec<u64>,
}

/// Makes the watch of a source, which sends what it tells as [`Event::Told`].
pub type MakeWatch<'a> = &'a dyn Fn(usize, Sender<Event>) -> Arc<dyn Watching>;

/// How a mount is kept up to date.
#[derive(Clone, Copy, Debug)]
pub struct KeepOptions {
    /// How often that of which changes are not told is looked at; `None` for never.
    pub poll: Option<Duration>,
}

/// Keeps a mount up to date.
pub struct Keeper {
    sources: Vec<Kept>,
    senders: Vec<Sender<Event>>,
    publisher: Publisher,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("live", &self.publisher.live).finish_non_exhaustive()
    }
}

impl Keeper {
    /// One that has not begun. What an index knows of matches is in the view when this returns.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(
        live: Arc<Live>,
        inodes: Inodes,
        make_watch: MakeWatch<'_>,
        store: Option<Store>,
        options: KeepOptions,
        tell: Box<dyn Fn(Told) + Send>,
    ) -> std::io::Result<Self> {
        let storing = store.as_ref().is_some_and(Store::keeps_listings);
        let (mut sources, mut senders) = (Vec::new(), Vec::new());
        for at in 0..live.sources.len() {
            let (sender, received) = channel();
            let crawler = Crawler::new(
                Arc::clone(&live.automaton),
                live.sources[at].clone(),
                live.options[at].clone(),
                make_watch(at, sender.clone()),
                storing,
                Arc::clone(&live.progress),
            );
            senders.push(sender.clone());
            sources.push(Kept::new(at, Arc::clone(&live), Arc::new(crawler), (sender, received), options)?);
        }
        let ask = |sender: &Sender<Event>| -> Ask {
            let sender = sender.clone();
            Box::new(move |request| sender.send(Event::Asked(request)).is_ok())
        };
        live.set_requests(senders.iter().map(ask).collect());
        Ok(Self { sources, senders, publisher: Publisher::new(live, inodes, store, tell) })
    }

    /// Where events of a source are sent to, by its place.
    pub fn sender(&self, source: usize) -> Sender<Event> {
        self.senders[source].clone()
    }

    /// Keeps the mount up to date until it is told to stop, then commits what it knows.
    pub fn run(mut self) {
        self.load();
        let Self { sources, mut publisher, .. } = self;
        let (said, received) = channel();
        let stop = said.clone();
        publisher.live.on_stop(Box::new(move || {
            // It may have ended already.
            let _ = stop.send(Said::Stop);
        }));
        for kept in sources {
            let reports = said.clone();
            let name = format!("keep-{}", kept.place());
            let place = kept.place();
            let work = move || kept.run(&|report| reports.send(Said::Report(Box::new(report))).is_ok());
            if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
                publisher.fail(place, &error);
            }
        }
        drop(said);
        publisher.run(&received);
    }

    /// Begins without threads of its own: whoever calls this calls [`Keeper::settle`] as well.
    pub fn begin(&mut self) {
        self.load();
        self.sources.iter_mut().for_each(Kept::begin);
    }

    /// Takes in all that happened and does all that is to be done, until nothing is under way.
    pub fn settle(&mut self) {
        loop {
            let mut busy = false;
            for kept in &mut self.sources {
                // One that is idle may have been told something.
                kept.step(!kept.is_at_rest());
                if let Some(report) = kept.report() {
                    busy = true;
                    self.publisher.take(report);
                }
                busy |= !kept.is_at_rest();
            }
            self.publisher.work();
            if !busy {
                return;
            }
        }
    }

    /// Ends what was begun without threads: commits what it knows.
    pub fn close(mut self) {
        self.settle();
        self.publisher.close();
    }

    /// What an index knows of directories becomes trees.
    fn load(&mut self) {
        let Some(store) = &mut self.publisher.store else { return };
        let live = Arc::clone(&self.publisher.live);
        for (at, source) in live.sources.iter().enumerate() {
            if let Some(listed) = source.source.as_listed() {
                listed.keep_at(&crate::index::listing_path(store.path(), at), store.keeps_listings());
            }
        }
        let automaton = &*live.automaton;
        let mut restoring: Vec<Restoring> = self.sources.iter().map(|_| Restoring::default()).collect();
        let mut scratch = Scratch::new(automaton);
        let mut damaged = false;
        let loaded = store.load(&mut |source, id, record| {
            let (Some(into), Some(options)) = (restoring.get_mut(source as usize), live.options.get(source as usize))
            else {
                damaged = true;
                return;
            };
            let fields = (NodeId(record.parent), record.name, record.stamp, record.trusted, &*record.listing);
            damaged |= into.add(automaton, options.follow, &mut scratch, NodeId(id), fields).is_err();
        });
        if damaged {
            store.begin_anew("it holds what cannot be");
        }
        let Some(meta) = loaded.filter(|_| !damaged) else { return };
        for (kept, restoring) in self.sources.iter_mut().zip(restoring) {
            if restoring.is_empty() {
                continue;
            }
            let crawler = Arc::clone(kept.crawler());
            let closed = |name: &[u8], path: &dyn Fn() -> RelPath| {
                let options = &crawler.options;
                // Paths are made only where they matter.
                let by_place = options.max_depth.is_some() || !options.not_entered.is_empty();
                name == crate::reader::NOT_ENTERED || by_place && options.closes(path().as_bytes())
            };
            let (tree, planted) = restoring.plant(automaton, &crawler.source.root_name, &closed);
            kept.begin_with(tree, planted, meta.reconciled);
        }
    }
}

/// What the publisher hears.
enum Said {
    Report(Box<Report>),
    Stop,
}

/// The one writer of the view.
struct Publisher {
    live: Arc<Live>,
    catalog: Catalog,
    inodes: Inodes,
    store: Option<Store>,
    tell: Box<dyn Fn(Told) + Send>,
    begun: Instant,
    states: Vec<SourceState>,
    /// Names are final from here on.
    settled: bool,
    published: Instant,
    pause: Duration,
    touches: FxHashSet<Touch>,
    tickets: Vec<u64>,
    records: BTreeMap<(u32, u32), Option<DirRecord>>,
    record_bytes: usize,
    committed: Instant,
    /// Matches are other ones than in the index.
    unsaved: bool,
}

impl Publisher {
    fn new(live: Arc<Live>, mut inodes: Inodes, mut store: Option<Store>, tell: Box<dyn Fn(Told) + Send>) -> Self {
        let mut catalog = Catalog::new(&live.automaton);
        let mut settled = false;
        if let Some(store) = &mut store {
            let saved = store.matches(&live);
            // They have had their names for some time.
            settled = saved.iter().all(Option::is_some);
            let view = Arc::clone(&live.view());
            let mut edit = Edit::new(&view, &mut inodes);
            for (source, named) in saved.into_iter().flatten().flatten() {
                catalog.restore(&mut edit, &live.automaton, &live.sources, source, named);
            }
            if settled {
                catalog.settle();
            }
            catalog.publish(&mut edit, &live.automaton, &live.sources);
            live.publish(Arc::new(edit.finish().0));
            live.set_restored(settled);
        }
        let now = Instant::now();
        Self {
            states: vec![SourceState::default(); live.sources.len()],
            live,
            catalog,
            inodes,
            store,
            tell,
            begun: now,
            settled,
            published: now.checked_sub(PUBLISH_EVERY).unwrap_or(now),
            pause: PUBLISH_EVERY,
            touches: FxHashSet::default(),
            tickets: Vec::new(),
            records: BTreeMap::new(),
            record_bytes: 0,
            committed: now,
            unsaved: false,
        }
    }

    fn run(mut self, heard: &Receiver<Said>) {
        let mut going = true;
        while going {
            let first = self.wait(heard);
            // Not without end: what is found is to be seen.
            for said in first.into_iter().chain(heard.try_iter().take(256)) {
                match said {
                    Said::Report(report) => self.take(*report),
                    Said::Stop => going = false,
                }
            }
            self.work();
        }
        self.close();
    }

    /// What is said next, or nothing where something else is to be done.
    fn wait(&self, heard: &Receiver<Said>) -> Option<Said> {
        let due = [
            (!self.settled && self.catalog.is_stale()).then(|| self.pause.saturating_sub(self.published.elapsed())),
            self.has_uncommitted().then(|| COMMIT_EVERY.saturating_sub(self.committed.elapsed())),
        ];
        match due.into_iter().flatten().min() {
            Some(limit) => match heard.recv_timeout(limit) {
                Ok(said) => Some(said),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Said::Stop),
            },
            None => Some(heard.recv().unwrap_or(Said::Stop)),
        }
    }

    /// A source has no thread.
    fn fail(&mut self, source: usize, error: &std::io::Error) {
        self.states[source].phase = Phase::Away(error.to_string());
        self.live.set_source(source, self.states[source].clone());
    }

    fn take(&mut self, report: Report) {
        let Report { source, state, changes, touches, troubles, records, founded, tickets } = report;
        self.catalog.note(source, changes);
        if let Some(founded) = founded {
            // Matches from an index whose directories nobody knows any more.
            let known = self.catalog.of_source(source);
            let gone: Vec<MatchChange> = known
                .filter(|(pattern, path)| !founded.contains(&(*pattern, (*path).clone())))
                .map(|(pattern, path)| MatchChange::Gone(pattern, path.clone()))
                .collect();
            self.catalog.note(source, gone);
        }
        self.touches.extend(touches);
        self.tickets.extend(tickets);
        if let Some(troubles) = troubles {
            self.live.set_troubles(source, troubles);
        }
        if self.store.is_some() {
            self.keep(source, records);
        }
        self.live.set_source(source, state.clone());
        self.states[source] = state;
    }

    fn keep(&mut self, source: usize, records: FxHashMap<NodeId, Option<DirRecord>>) {
        for (id, record) in records {
            self.record_bytes += 64 + record.as_ref().map_or(0, |record| record.listing.len());
            self.records.insert((source as u32, id.0), record);
        }
    }

    /// Publishes and commits what has to be.
    fn work(&mut self) {
        let done = |state: &SourceState| matches!(state.phase, Phase::Complete | Phase::Away(_));
        let complete = self.states.iter().all(done);
        self.publish(complete);
        if complete {
            self.live.set_complete(self.begun.elapsed());
        }
        if self.record_bytes > COMMIT_BYTES || self.has_uncommitted() && self.committed.elapsed() >= COMMIT_EVERY {
            self.commit();
        }
    }

    fn publish(&mut self, complete: bool) {
        let stale = self.catalog.is_stale() && (self.settled || complete || self.published.elapsed() >= self.pause);
        if stale || !self.touches.is_empty() || !self.tickets.is_empty() {
            let building = Instant::now();
            let old = Arc::clone(&self.live.view());
            let mut edit = Edit::new(&old, &mut self.inodes);
            if stale {
                self.catalog.publish(&mut edit, &self.live.automaton, &self.live.sources);
                self.unsaved = true;
                self.published = building;
            }
            let (new, changes) = edit.finish();
            let new = Arc::new(new);
            self.live.publish(Arc::clone(&new));
            let (touches, tickets) = (self.touches.drain().collect(), std::mem::take(&mut self.tickets));
            (self.tell)(Told { old, new, changes, touches, tickets });
            // Naming all costs as much as there are matches: never more than a tenth of the time goes there.
            self.pause = PUBLISH_EVERY.max(building.elapsed() * 10);
        }
        if complete && !self.settled {
            self.settled = true;
            self.catalog.settle();
            self.unsaved = true;
        }
    }

    fn has_uncommitted(&self) -> bool {
        self.store.is_some() && (!self.records.is_empty() || self.unsaved && self.settled)
    }

    /// Hands what is new to the index; whatever comes of it, the mount goes on.
    fn commit(&mut self) {
        if !self.has_uncommitted() {
            return;
        }
        let Some(store) = &mut self.store else { return };
        let clear_dirs = store.take_lost();
        if clear_dirs {
            self.live.read_again();
            self.unsaved = true;
        }
        let mut batch = Batch { clear_dirs, dirs: std::mem::take(&mut self.records), ..Batch::default() };
        self.record_bytes = 0;
        if self.settled && std::mem::take(&mut self.unsaved) {
            batch.matches = store.save(&self.live, &self.catalog);
        }
        let times = self.states.iter().map(|state| state.reconciled).collect::<Option<Vec<SystemTime>>>();
        batch.reconciled = times.and_then(|times| times.into_iter().min());
        store.commit(batch);
        self.committed = Instant::now();
    }

    fn close(mut self) {
        self.commit();
        if let Some(store) = self.store.take() {
            store.close();
        }
    }
}

/// What is counted by pattern.
pub(crate) fn by_pattern<T>(items: impl Iterator<Item = (PatternId, T)>) -> BTreeMap<PatternId, Vec<T>> {
    let mut sorted: BTreeMap<PatternId, Vec<T>> = BTreeMap::new();
    items.for_each(|(pattern, item)| sorted.entry(pattern).or_default().push(item));
    sorted
}
