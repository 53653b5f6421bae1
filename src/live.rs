//! The state of a mount: what is looked for and where, the current view, and how the scan is going.
//!
//! Readers take the view without a lock; one thread ([`Live::collect`]) receives what the scan finds, builds the next
//! view now and then, publishes it and says what the kernel has to forget.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use crate::automaton::Automaton;
use crate::config::NamedSource;
use crate::entry::printable;
use crate::pattern::Pattern;
use crate::scan::{ScanEvent, plain};
use crate::view::inode::Inodes;
use crate::view::matches::{MatchSet, ndjson};
use crate::view::{Changes, View};
use crate::walk::{Progress, Trouble, WalkOptions};

/// How many troubles are kept word for word; all are counted.
const KEPT_TROUBLES: usize = 10_000;
/// The least time between two views while a scan runs.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);

/// How long what is found is gathered before it is looked at.
const GATHER: Duration = Duration::from_millis(2);

/// How far a source is.
#[derive(Clone, Debug, Default)]
enum Walked {
    #[default]
    Scanning,
    Complete,
    /// It could not be read; it is tried again.
    Failed(String),
}

/// All that a mount knows.
#[derive(Debug)]
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
    /// Counters of the scan.
    pub progress: Arc<Progress>,
    /// When the mount was made.
    pub started: SystemTime,
    view: ArcSwap<View>,
    state: Mutex<State>,
    complete: Condvar,
}

#[derive(Debug, Default)]
struct State {
    complete: Option<(SystemTime, Duration)>,
    /// How far each source is.
    sources: Vec<Walked>,
    troubles: VecDeque<Value>,
    trouble_count: u64,
}

impl State {
    /// The sources that could not be read, and why.
    fn failures(&self) -> impl Iterator<Item = (usize, &str)> {
        self.sources.iter().enumerate().filter_map(|(at, walked)| match walked {
            Walked::Failed(error) => Some((at, error.as_str())),
            Walked::Scanning | Walked::Complete => None,
        })
    }
}

impl Live {
    /// A mount whose scan has not begun.
    pub fn new(
        mountpoint: PathBuf,
        automaton: Arc<Automaton>,
        patterns: Vec<Pattern>,
        sources: Vec<NamedSource>,
        options: Vec<WalkOptions>,
        progress: Arc<Progress>,
    ) -> (Self, Inodes) {
        let mut inodes = Inodes::default();
        let (view, _) = View::empty().next(&automaton, &sources, &MatchSet::default(), &mut inodes);
        let state = State { sources: vec![Walked::default(); sources.len()], ..State::default() };
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
            complete: Condvar::new(),
        };
        (live, inodes)
    }

    /// The current view.
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// Waits until the first scan is complete; false if it is not after `limit`.
    pub fn wait_complete(&self, limit: Duration) -> bool {
        let mut state = self.state.lock();
        if state.complete.is_none() {
            self.complete.wait_for(&mut state, limit);
        }
        state.complete.is_some()
    }

    /// Receives what the scan finds until it ends, publishing views; `changed` is told what the kernel has to forget.
    pub fn collect(&self, events: &Receiver<ScanEvent>, mut inodes: Inodes, changed: impl Fn(&Changes, &View, &View)) {
        let begun = Instant::now();
        let (mut matches, mut fresh) = (MatchSet::default(), false);
        // Building a view costs as much as there are matches: never more than a tenth of the time goes there.
        let (mut last, mut pause) = (Instant::now() - PUBLISH_EVERY, PUBLISH_EVERY);
        loop {
            let event = if fresh {
                events.recv_timeout(pause.saturating_sub(last.elapsed()))
            } else {
                // More will follow: not to be woken for each one.
                let first = events.recv().map_err(|_| RecvTimeoutError::Disconnected);
                std::thread::sleep(GATHER);
                first
            };
            let ended = matches!(event, Err(RecvTimeoutError::Disconnected));
            let settled = matches!(event, Ok(ScanEvent::SourceDone { .. } | ScanEvent::SourceFailed { .. }));
            match event {
                Ok(ScanEvent::Match { source, found }) => {
                    matches.insert(source, found);
                    fresh = true;
                }
                Ok(ScanEvent::Trouble { source, trouble }) => self.note(source, &trouble),
                Ok(ScanEvent::SourceFailed { source, error }) => {
                    tracing::warn!(source = %self.sources[source].root.display(), %error, "source cannot be read");
                    self.state.lock().sources[source] = Walked::Failed(plain(&error));
                }
                Ok(ScanEvent::SourceDone { source }) => self.state.lock().sources[source] = Walked::Complete,
                Err(_) => {}
            }
            let scanned = !self.state.lock().sources.iter().any(|walked| matches!(walked, Walked::Scanning));
            // A source that is back after the others were done is no reason to publish each of its matches by itself.
            if fresh && (ended || scanned && settled || last.elapsed() >= pause) {
                let building = Instant::now();
                self.publish(&matches, &mut inodes, &changed);
                (last, fresh) = (Instant::now(), false);
                pause = PUBLISH_EVERY.max(building.elapsed() * 10);
            }
            if scanned || ended {
                // Sources that are away do not hold up the others.
                self.state.lock().complete.get_or_insert_with(|| (SystemTime::now(), begun.elapsed()));
                self.complete.notify_all();
            }
            if ended {
                return;
            }
        }
    }

    /// Shows these matches from now on; after that, `changed` is told what changed, and the views before and after.
    ///
    /// For the one writer.
    pub fn publish(&self, matches: &MatchSet, inodes: &mut Inodes, changed: impl Fn(&Changes, &View, &View)) {
        let old = self.view.load_full();
        let (next, changes) = old.next(&self.automaton, &self.sources, matches, inodes);
        let next = Arc::new(next);
        self.view.store(Arc::clone(&next));
        changed(&changes, &old, &next);
    }

    fn note(&self, source: usize, trouble: &Trouble) {
        let source = &self.sources[source];
        let message = trouble.describe(source, &self.automaton);
        tracing::debug!("{message}");
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
        let mut state = self.state.lock();
        state.trouble_count += 1;
        if state.troubles.len() == KEPT_TROUBLES {
            state.troubles.pop_front();
        }
        state.troubles.push_back(object);
    }

    /// A source that could not be read when a file in it was asked for.
    pub fn note_read_error(&self, source: usize, path: &[u8], error: std::io::Error) {
        let path = crate::entry::RelPath::from_bytes(path);
        self.note(source, &Trouble::Unread { path, error });
    }

    /// What `.veinfs/status.json` holds; `reads` says how files are read.
    pub fn status(&self, reads: Value) -> Value {
        let view = self.view();
        let state = self.state.lock();
        let mut matches = vec![0u64; self.automaton.tops.len()];
        view.places.iter().for_each(|place| matches[place.found.pattern.index()] += 1);
        let patterns = self.automaton.tops.iter().zip(matches).map(|(top, n)| json!({"name": top.name, "matches": n}));
        let sources = self.sources.iter().zip(&state.sources).map(|(source, walked)| {
            let (name, error) = match walked {
                Walked::Scanning => ("scanning", None),
                Walked::Complete => ("complete", None),
                Walked::Failed(error) => ("failed", Some(error)),
            };
            json!({
                "name": printable(&source.name),
                "path": printable(&source.path_of(&crate::entry::RelPath::root())),
                "state": name,
                "error": error,
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "mountpoint": printable(std::os::unix::ffi::OsStrExt::as_bytes(self.mountpoint.as_os_str())),
            "started": seconds(self.started),
            "state": if state.complete.is_some() { "complete" } else { "scanning" },
            "scan_seconds": state.complete.map(|(_, took)| took.as_secs_f64()),
            "scanned": state.complete.map(|(at, _)| seconds(at)),
            "directories": self.progress.directories.load(Ordering::Relaxed),
            "entries": self.progress.entries.load(Ordering::Relaxed),
            "matches": view.places.len(),
            "errors": state.trouble_count + state.failures().count() as u64,
            "patterns": patterns.collect::<Vec<_>>(),
            "sources": sources.collect::<Vec<_>>(),
            "watch": "none",
            "reads": reads,
        })
    }

    /// What `.veinfs/matches.ndjson` holds.
    pub fn matches_ndjson(&self) -> Vec<u8> {
        let view = self.view();
        let lines = view.places.iter().map(|place| {
            let source = &self.sources[place.source];
            ndjson(&self.automaton, source, &place.found, &place.view)
        });
        ndjson_lines(lines)
    }

    /// What `.veinfs/errors.ndjson` holds: the last troubles, the newest at the end.
    pub fn errors_ndjson(&self) -> Vec<u8> {
        let state = self.state.lock();
        let failed = state.failures().map(|(at, message)| {
            let source = &self.sources[at];
            let path = source.path_of(&crate::entry::RelPath::root());
            json!({"kind": "source", "source": printable(&source.name), "path": printable(&path), "message": message})
        });
        ndjson_lines(failed.chain(state.troubles.iter().cloned()))
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
        metric("errors_total", "counter", "What could not be read or decided.", &one(state.trouble_count as f64));
        metric(
            "scan_complete",
            "gauge",
            "1 once the first scan is complete.",
            &one(f64::from(u8::from(state.complete.is_some()))),
        );
        let mut matches = vec![0u64; self.automaton.tops.len()];
        view.places.iter().for_each(|place| matches[place.found.pattern.index()] += 1);
        let label = |name: &str| {
            format!("{{pattern=\"{}\"}}", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
        };
        let values: Vec<(String, f64)> =
            self.automaton.tops.iter().zip(matches).map(|(top, n)| (label(&top.name), n as f64)).collect();
        metric("matches", "gauge", "Directories that match, by pattern.", &values);
        text
    }
}

fn seconds(at: SystemTime) -> f64 {
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
