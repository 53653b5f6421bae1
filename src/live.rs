//! The state of a mount: what is looked for and where, the current view, and how things stand.
//!
//! Readers take the view without a lock; the one writer ([`crate::update`]) publishes the next.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use crate::automaton::Automaton;
use crate::config::NamedSource;
use crate::entry::{RelPath, printable};
use crate::pattern::Pattern;
use crate::view::View;
use crate::view::inode::Inodes;
use crate::view::matches::ndjson;
use crate::walk::{Progress, Trouble, WalkOptions};

pub mod near;

/// How many troubles are kept word for word; all are counted.
pub(crate) const KEPT_TROUBLES: usize = 10_000;

/// How far a source is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Phase {
    /// It is read for the first time.
    #[default]
    Scanning,
    /// What an index knows of it is compared with it.
    Reconciling,
    /// What is shown is what is there.
    Complete,
    /// It could not be read; it is tried again.
    Away(String),
}

/// What is asked of whoever keeps a source up to date.
#[derive(Clone, Debug)]
pub enum Request {
    /// To compare what is known with what is there.
    Refresh {
        /// Only below this path.
        below: Option<RelPath>,
        /// To be told when it is done, see [`Live::note_refreshed`].
        ticket: u64,
    },
    /// To read all directories once more, since the index has lost what it had of them.
    Again,
    /// To end.
    Stop,
}

/// Hands a request on; false if nobody takes it any more.
pub(crate) type Ask = Box<dyn Fn(Request) -> bool + Send>;

/// How a source stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceState {
    /// How far it is.
    pub phase: Phase,
    /// Directories that are known.
    pub directories: u64,
    /// Of these, those that are still to be read.
    pub pending: u64,
    /// When it was last compared with what is there.
    pub reconciled: Option<SystemTime>,
    /// How changes in it are told.
    pub watch: Value,
}

/// All that a mount knows.
pub struct Live {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The compiled patterns.
    pub automaton: Arc<Automaton>,
    /// The patterns as they were given.
    pub patterns: Vec<Pattern>,
    /// The sources.
    pub sources: Vec<NamedSource>,
    /// How each source is walked.
    pub options: Vec<WalkOptions>,
    /// Counters of what is read.
    pub progress: Arc<Progress>,
    /// When the mount was made.
    pub started: SystemTime,
    view: ArcSwap<View>,
    state: Mutex<State>,
    changed: Condvar,
    requests: Mutex<Vec<Ask>>,
    on_stop: Mutex<Option<OnStop>>,
    tickets: AtomicU64,
    nears: near::Nears,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

/// Tells the publisher that the mount is going.
type OnStop = Box<dyn Fn() + Send>;

/// Tells how the index is doing.
pub type IndexStatus = Box<dyn Fn() -> Value + Send + Sync>;

#[derive(Default)]
struct State {
    complete: Option<(SystemTime, Duration)>,
    /// All matches were in an index.
    restored: bool,
    sources: Vec<SourceState>,
    /// What cannot be read or decided at this moment in each source: how much there is, and the first of it.
    troubles: Vec<(u64, Vec<Value>)>,
    /// Files that could not be read when they were asked for.
    read_errors: VecDeque<Value>,
    read_error_count: u64,
    /// The tickets of those whose refresh is not done, each with the number of sources that are still at it.
    refreshing: BTreeMap<u64, usize>,
    index: Option<IndexStatus>,
}

impl State {
    fn trouble_count(&self) -> u64 {
        self.troubles.iter().map(|(count, _)| count).sum()
    }

    /// The sources that could not be read, and why.
    fn failures(&self) -> impl Iterator<Item = (usize, &str)> {
        self.sources.iter().enumerate().filter_map(|(at, source)| match &source.phase {
            Phase::Away(error) => Some((at, error.as_str())),
            Phase::Scanning | Phase::Reconciling | Phase::Complete => None,
        })
    }
}

impl Live {
    /// A mount of which nothing is known yet.
    pub fn new(
        mountpoint: PathBuf,
        automaton: Arc<Automaton>,
        patterns: Vec<Pattern>,
        sources: Vec<NamedSource>,
        options: Vec<WalkOptions>,
        progress: Arc<Progress>,
    ) -> (Self, Inodes) {
        let mut inodes = Inodes::default();
        let view = View::of_patterns(&automaton, &mut inodes);
        let state = State {
            sources: vec![SourceState::default(); sources.len()],
            troubles: vec![Default::default(); sources.len()],
            ..State::default()
        };
        let live = Self {
            mountpoint,
            automaton,
            patterns,
            sources,
            options,
            progress,
            started: SystemTime::now(),
            view: ArcSwap::from_pointee(view),
            state: Mutex::new(state),
            changed: Condvar::new(),
            requests: Mutex::default(),
            on_stop: Mutex::default(),
            tickets: AtomicU64::new(0),
            nears: near::Nears::default(),
        };
        (live, inodes)
    }

    /// The current view.
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// True if a source cannot be read at this moment.
    pub fn is_away(&self, source: usize) -> bool {
        matches!(self.state.lock().sources[source].phase, Phase::Away(_))
    }

    // --- for the writer ---

    /// Makes `view` the current one; for the one writer.
    pub fn publish(&self, view: Arc<View>) {
        self.view.store(view);
    }

    pub(crate) fn set_source(&self, at: usize, source: SourceState) {
        self.state.lock().sources[at] = source;
    }

    /// Notes that all sources were read or compared, but for those that are away, `took` after the beginning.
    pub(crate) fn set_complete(&self, took: Duration) {
        let mut state = self.state.lock();
        if state.complete.is_none() {
            state.complete = Some((SystemTime::now(), took));
            self.changed.notify_all();
        }
    }

    pub(crate) fn set_restored(&self, all: bool) {
        self.state.lock().restored = all;
    }

    /// Says how the index can be asked for its state.
    pub fn set_index(&self, status: IndexStatus) {
        self.state.lock().index = Some(status);
    }

    /// Takes what requests are given to, one for each source.
    pub(crate) fn set_requests(&self, requests: Vec<Ask>) {
        *self.requests.lock() = requests;
    }

    /// Has all sources read all directories once more.
    pub(crate) fn read_again(&self) {
        self.requests.lock().iter().for_each(|ask| {
            ask(Request::Again);
        });
    }

    pub(crate) fn on_stop(&self, stop: OnStop) {
        *self.on_stop.lock() = Some(stop);
    }

    /// A source has done what a ticket asks for, and the kernel was told.
    pub fn note_refreshed(&self, ticket: u64) {
        let mut state = self.state.lock();
        if let Some(open) = state.refreshing.get_mut(&ticket) {
            *open -= 1;
            if *open == 0 {
                state.refreshing.remove(&ticket);
            }
        }
    }

    pub(crate) fn set_troubles(&self, source: usize, troubles: (u64, Vec<Value>)) {
        self.state.lock().troubles[source] = troubles;
    }

    /// Something that cannot be read or decided, as `errors.ndjson` has it.
    pub(crate) fn trouble_json(&self, source: usize, trouble: &Trouble) -> Value {
        let source = &self.sources[source];
        let message = trouble.describe(source, &self.automaton);
        let (path, kind) = match trouble {
            Trouble::Unread { path, .. } => (path, "unread"),
            Trouble::Undecided { path, .. } => (path, "undecided"),
            Trouble::TooManyWays { path } => (path, "captures"),
        };
        let mut object = json!({
            "kind": kind,
            "source": printable(&source.name),
            "path": printable(&source.path_of(path)),
            "message": message,
        });
        if let Trouble::Undecided { pattern, .. } = trouble {
            object["pattern"] = json!(self.automaton.top(*pattern).name);
        }
        object
    }

    // --- for others ---

    /// Waits until the first scan is complete; false if it is not after `limit`.
    pub fn wait_complete(&self, limit: Duration) -> bool {
        let mut state = self.state.lock();
        if state.complete.is_none() && !limit.is_zero() {
            self.changed.wait_for(&mut state, limit);
        }
        state.complete.is_some()
    }

    /// True if the view showed all matches that an index knew from the beginning.
    pub fn is_restored(&self) -> bool {
        self.state.lock().restored
    }

    /// Has what is shown compared with what is there, below a path of one source or everywhere. It is done when the ticket
    /// is no longer among those that `refreshing` in the status lists; `None` if the mount is going.
    pub fn refresh(&self, below: Option<(usize, RelPath)>) -> Option<u64> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let requests = self.requests.lock();
        let asked: Vec<(&Ask, Option<RelPath>)> = match below {
            Some((source, path)) => vec![(requests.get(source)?, Some(path))],
            None => requests.iter().map(|request| (request, None)).collect(),
        };
        self.state.lock().refreshing.insert(ticket, asked.len());
        let sent = asked.into_iter().all(|(ask, below)| ask(Request::Refresh { below, ticket }));
        sent.then_some(ticket)
    }

    /// True if a refresh is not done yet.
    pub fn is_refreshing(&self, ticket: u64) -> bool {
        self.state.lock().refreshing.contains_key(&ticket)
    }

    /// Says that the mount is going.
    pub fn stop(&self) {
        self.progress.cancelled.store(true, Ordering::Relaxed);
        self.requests.lock().iter().for_each(|ask| {
            // It may have ended already.
            ask(Request::Stop);
        });
        self.on_stop.lock().iter().for_each(|stop| stop());
    }

    /// A source that could not be read when a file in it was asked for.
    pub fn note_read_error(&self, source: usize, path: &[u8], error: std::io::Error) {
        let path = RelPath::from_bytes(path);
        let object = self.trouble_json(source, &Trouble::Unread { path, error });
        tracing::debug!(%object, "cannot be read");
        let mut state = self.state.lock();
        state.read_error_count += 1;
        if state.read_errors.len() == KEPT_TROUBLES {
            state.read_errors.pop_front();
        }
        state.read_errors.push_back(object);
    }

    /// What `.veinfs/status.json` holds; `reads` says how files are read.
    pub fn status(&self, reads: Value) -> Value {
        let view = self.view();
        let state = self.state.lock();
        let tops = self.automaton.tops.iter().zip(&view.counts);
        let patterns = tops.map(|(top, n)| json!({"name": top.name, "matches": n}));
        let sources = self.sources.iter().zip(&state.sources).map(|(source, now)| {
            let (name, error) = match &now.phase {
                Phase::Scanning => ("scanning", None),
                Phase::Reconciling => ("reconciling", None),
                Phase::Complete => ("complete", None),
                Phase::Away(error) => ("failed", Some(error)),
            };
            let listing = source.source.as_listed().map(|listed| listed.status());
            let mut object = json!({
                "name": printable(&source.name),
                "path": printable(&source.path_of(&RelPath::root())),
                "state": name,
                "error": error,
                "directories": now.directories,
                "pending": now.pending,
                "reconciled": now.reconciled.map(seconds),
                "watch": now.watch,
            });
            if let Some(listing) = listing {
                object["listing"] = listing;
            }
            object
        });
        let busy = |phase: &Phase| matches!(phase, Phase::Scanning | Phase::Reconciling);
        let name = match state.complete {
            None if state.restored => "reconciling",
            None => "scanning",
            Some(_) if state.sources.iter().any(|source| busy(&source.phase)) => "reconciling",
            Some(_) => "complete",
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "mountpoint": printable(std::os::unix::ffi::OsStrExt::as_bytes(self.mountpoint.as_os_str())),
            "started": seconds(self.started),
            "state": name,
            "scan_seconds": state.complete.map(|(_, took)| took.as_secs_f64()),
            "scanned": state.complete.map(|(at, _)| seconds(at)),
            "directories": self.progress.directories.load(Ordering::Relaxed),
            "entries": self.progress.entries.load(Ordering::Relaxed),
            "matches": view.places.len(),
            "errors": state.trouble_count() + state.read_error_count + state.failures().count() as u64,
            "patterns": patterns.collect::<Vec<_>>(),
            "sources": sources.collect::<Vec<_>>(),
            "index": state.index.as_ref().map(|index| index()),
            "refreshing": state.refreshing.keys().collect::<Vec<_>>(),
            "reads": reads,
        })
    }

    /// What `.veinfs/matches.ndjson` holds.
    pub fn matches_ndjson(&self) -> Vec<u8> {
        let places = self.view().sorted();
        let lines = places.iter().map(|place| {
            let source = &self.sources[place.source];
            ndjson(&self.automaton, source, &place.found, &place.view)
        });
        ndjson_lines(lines)
    }

    /// What `.veinfs/errors.ndjson` holds: sources that are away, what cannot be read or decided at this moment, and
    /// the last files that could not be read when they were asked for, the newest at the end.
    pub fn errors_ndjson(&self) -> Vec<u8> {
        let state = self.state.lock();
        let failed = state.failures().map(|(at, message)| {
            let source = &self.sources[at];
            let path = source.path_of(&RelPath::root());
            json!({"kind": "source", "source": printable(&source.name), "path": printable(&path), "message": message})
        });
        let left_out = self.sources.iter().flat_map(|source| {
            let listed = source.source.as_listed();
            listed.map(|listed| listed.left_out()).unwrap_or_default().into_iter().map(|one| {
                let path = [source.root.as_os_str().as_bytes(), b"/", &one.key].concat();
                json!({
                    "kind": "left out",
                    "source": printable(&source.name),
                    "path": printable(&path),
                    "message": one.reason,
                })
            })
        });
        ndjson_lines(
            failed
                .chain(left_out)
                .chain(state.troubles.iter().flat_map(|(_, texts)| texts.iter().cloned()))
                .chain(state.read_errors.iter().cloned()),
        )
    }

    /// What `.veinfs/metrics` holds, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let view = self.view();
        let state = self.state.lock();
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            text.push_str(&format!("# HELP veinfs_{name} {help}\n# TYPE veinfs_{name} {kind}\n"));
            values.iter().for_each(|(labels, value)| text.push_str(&format!("veinfs_{name}{labels} {value}\n")));
        };
        let one = |value: f64| vec![(String::new(), value)];
        metric(
            "directories_total",
            "counter",
            "Directories read by the scan.",
            &one(self.progress.directories.load(Ordering::Relaxed) as f64),
        );
        metric(
            "entries_total",
            "counter",
            "Directory entries seen by the scan.",
            &one(self.progress.entries.load(Ordering::Relaxed) as f64),
        );
        metric("errors", "gauge", "What cannot be read or decided.", &one(state.trouble_count() as f64));
        metric(
            "read_errors_total",
            "counter",
            "Files that could not be read when they were asked for.",
            &one(state.read_error_count as f64),
        );
        metric(
            "scan_complete",
            "gauge",
            "1 once the first scan is complete.",
            &one(f64::from(u8::from(state.complete.is_some()))),
        );
        let label = |name: &str| {
            format!("{{pattern=\"{}\"}}", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
        };
        let values: Vec<(String, f64)> =
            self.automaton.tops.iter().zip(&view.counts).map(|(top, n)| (label(&top.name), *n as f64)).collect();
        metric("matches", "gauge", "Directories that match, by pattern.", &values);
        text
    }
}

/// Seconds since the epoch.
pub(crate) fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn ndjson_lines(values: impl Iterator<Item = Value>) -> Vec<u8> {
    let mut lines = Vec::new();
    for value in values {
        // Writing to memory cannot fail, and keys are all strings.
        let _ = serde_json::to_writer(&mut lines, &value);
        lines.push(b'\n');
    }
    lines
}
