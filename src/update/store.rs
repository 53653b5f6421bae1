//! The index of a mount: read when the mount begins, written by a thread of its own while it lives.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::automaton::PatternId;
use crate::config::NamedSource;
use crate::entry::printable;
use crate::index::{Batch, DirRecord, Identity, Index, IndexError, Meta, Opened};
use crate::live::Live;
use crate::pattern::Pattern;
use crate::pattern::load::to_json;
use crate::view::catalog::{Catalog, Named};
use crate::view::saved;
use crate::walk::WalkOptions;

/// How long it takes until what could not be written is tried again, if nothing else is to be written.
const RETRY: Duration = Duration::from_secs(10);

/// An index in use.
#[derive(Debug)]
pub struct Store {
    index: Arc<Mutex<Index>>,
    path: PathBuf,
    writer: bool,
    fingerprints: Vec<[u8; 16]>,
    /// A hash of what was saved last of each pattern.
    saved: FxHashMap<PatternId, u64>,
    batches: Sender<Batch>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<Status>>,
}

#[derive(Debug, Default)]
struct Status {
    /// What was written is no longer there: all of it is needed once more.
    lost: bool,
    committed: Option<SystemTime>,
    directories: u64,
    trouble: Option<String>,
}

/// What tells one index from another.
pub fn identity(sources: &[NamedSource], options: &WalkOptions) -> Identity {
    let sources = sources.iter().map(|source| {
        let root = std::os::unix::ffi::OsStrExt::as_bytes(source.root.as_os_str());
        let root = source.source.as_listed().map_or(root, |listed| listed.location());
        (source.name.clone(), root.into())
    });
    let options = json!({
        "exclude": options.exclude.given(),
        "max_depth": options.max_depth,
        "one_file_system": options.one_file_system,
        "follow": options.follow,
        "listings": 1,
    });
    Identity { sources: sources.collect(), options: options.to_string() }
}

/// What tells the matches of one pattern from those of another: all that they and their names depend on.
pub fn fingerprints(patterns: &[Pattern], layout: Option<&str>) -> Vec<[u8; 16]> {
    let texts: Vec<String> = patterns.iter().map(|pattern| to_json(pattern).to_string()).collect();
    let one = |own: &String| {
        let mut hasher = Xxh3::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add("matches 1");
        add(layout.map_or("none", |_| "layout"));
        add(layout.unwrap_or_default());
        add(own);
        // An opaque pattern keeps others from matching in it.
        texts.iter().zip(patterns).filter(|(_, pattern)| pattern.root.opaque).for_each(|(text, _)| add(text));
        hasher.digest128().to_le_bytes()
    };
    texts.iter().map(one).collect()
}

impl Store {
    /// Opens the index at `path`; the text says what was wrong with an older one that was set aside.
    ///
    /// # Errors
    /// If there can be none: the mount does without.
    pub fn open(
        path: PathBuf,
        identity: &Identity,
        fingerprints: Vec<[u8; 16]>,
    ) -> Result<(Store, Option<String>), IndexError> {
        let (index, opened) = Index::open(&path, identity)?;
        let notice = match opened {
            Opened::New | Opened::Existing => None,
            Opened::SetAside { aside: Some(aside), reason } => {
                Some(format!("the index is not used: {reason}; it is kept as {} and built anew", aside.display()))
            }
            Opened::SetAside { aside: None, reason } => {
                Some(format!("the index is not used: {reason}; it is built anew"))
            }
        };
        let writer = index.is_writer();
        let index = Arc::new(Mutex::new(index));
        let (batches, received) = channel();
        let status = Arc::new(Mutex::new(Status::default()));
        let (shared, state) = (Arc::clone(&index), Arc::clone(&status));
        let thread = std::thread::Builder::new().name("index".into()).spawn(move || write(&received, &shared, &state));
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                status.lock().trouble = Some(error.to_string());
                None
            }
        };
        let store = Store { index, path, writer, fingerprints, saved: FxHashMap::default(), batches, thread, status };
        Ok((store, notice))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if listings are to be handed to it: another mount may be writing them already.
    pub fn keeps_listings(&self) -> bool {
        self.writer
    }

    /// What is known of the matches of each pattern, each match with its source's place.
    pub(super) fn matches(&mut self, live: &Live) -> Vec<Option<Vec<(usize, Named)>>> {
        let saved = self.index.lock().matches(&self.fingerprints);
        let saved = saved.unwrap_or_else(|error| {
            self.trouble(&error);
            vec![None; self.fingerprints.len()]
        });
        let patterns = (0..).map(PatternId).zip(saved);
        patterns
            .map(|(pattern, saved)| {
                let saved = saved?;
                let matches = saved::decode(&live.automaton, pattern, live.sources.len(), &saved).ok()?;
                self.saved.insert(pattern, xxh3_64(&saved));
                Some(matches)
            })
            .collect()
    }

    /// Reads all directories; `None` if they are not to be trusted.
    pub(super) fn load(&mut self, each: &mut dyn FnMut(u32, u32, DirRecord)) -> Option<Meta> {
        match self.index.lock().load(each) {
            Ok(meta) => {
                let mut status = self.status.lock();
                status.directories = meta.dirs;
                Some(meta)
            }
            Err(error) => {
                self.trouble(&error);
                None
            }
        }
    }

    /// Drops all directories: what was read makes no sense.
    pub(super) fn begin_anew(&mut self, why: &str) {
        tracing::warn!(index = %self.path.display(), "the index is built anew: {why}");
        let _ = self.batches.send(Batch { clear_dirs: true, ..Batch::default() });
    }

    /// The matches of those patterns that have others than when they were saved last.
    pub(super) fn save(&mut self, live: &Live, catalog: &Catalog) -> Vec<([u8; 16], Vec<u8>)> {
        let sorted = super::by_pattern(catalog.iter().map(|(source, named)| (named.found.pattern, (source, named))));
        let patterns = (0..live.automaton.tops.len() as u32).map(PatternId);
        patterns
            .filter_map(|pattern| {
                let matches = sorted.get(&pattern).map_or(&[][..], Vec::as_slice);
                let text = saved::encode(&live.automaton, pattern, matches.iter().copied());
                let hash = xxh3_64(&text);
                let another = self.saved.insert(pattern, hash) != Some(hash);
                another.then(|| (self.fingerprints[pattern.index()], text))
            })
            .collect()
    }

    /// True, once, if all listings and matches have to be handed over again.
    pub(super) fn take_lost(&mut self) -> bool {
        let lost = std::mem::take(&mut self.status.lock().lost);
        if lost {
            self.saved.clear();
        }
        lost
    }

    /// Hands over a batch.
    pub(super) fn commit(&mut self, batch: Batch) {
        // Where the thread could not be started, nothing is kept.
        let _ = self.batches.send(batch);
    }

    /// Waits until all is written.
    pub(super) fn close(self) {
        let Store { batches, thread, .. } = self;
        drop(batches);
        if let Some(thread) = thread {
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }

    fn trouble(&self, error: &IndexError) {
        tracing::warn!(index = %self.path.display(), "{error}");
        self.status.lock().trouble = Some(error.to_string());
    }

    /// Tells how the index is doing.
    pub fn status(&self) -> impl Fn() -> Value + Send + Sync + use<> {
        let (status, path, writer) = (Arc::clone(&self.status), self.path.clone(), self.writer);
        move || {
            let status = status.lock();
            let path_text = printable(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).into_owned();
            json!({
                "path": path_text,
                "writes": if writer { "listings and matches" } else { "matches; another mount writes listings" },
                "bytes": std::fs::metadata(&path).map(|meta| meta.len()).ok(),
                "committed": status.committed.map(crate::live::seconds),
                "error": status.trouble,
            })
        }
    }
}

/// Writes batches until nobody sends any more. What cannot be written, the disk being full, say, is tried again with the
/// next, and now and then.
fn write(batches: &Receiver<Batch>, index: &Mutex<Index>, status: &Mutex<Status>) {
    let mut failed: Option<Batch> = None;
    loop {
        let received = match &failed {
            Some(_) => batches.recv_timeout(RETRY),
            None => batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let last = matches!(received, Err(RecvTimeoutError::Disconnected));
        let mut batch = match (failed.take(), received.ok()) {
            (Some(mut batch), more) => {
                more.into_iter().for_each(|more| join(&mut batch, more));
                batch
            }
            (None, Some(batch)) => batch,
            (None, None) => return,
        };
        // What has gathered meanwhile is one transaction.
        while let Ok(more) = batches.try_recv() {
            join(&mut batch, more);
        }
        let written = index.lock().commit(&batch);
        let mut status = status.lock();
        match written {
            Ok(()) => {
                status.committed = Some(SystemTime::now());
                status.trouble = None;
            }
            Err(error) => {
                let text = error.to_string();
                if status.trouble.as_ref() != Some(&text) {
                    tracing::warn!("the index could not be written: {text}");
                }
                status.trouble = Some(text);
                match error {
                    IndexError::Replaced { .. } | IndexError::Damaged { .. } => status.lost = true,
                    IndexError::Io { .. } | IndexError::Full { .. } | IndexError::Busy { .. } => failed = Some(batch),
                    IndexError::Taken { .. } | IndexError::Refused { .. } | IndexError::Record { .. } => {}
                }
            }
        }
        if last {
            return;
        }
    }
}

/// Makes two batches one: what is in the newer counts.
fn join(batch: &mut Batch, more: Batch) {
    if more.clear_dirs {
        (batch.clear_dirs, batch.dirs) = (true, Default::default());
    }
    batch.dirs.extend(more.dirs);
    let newer: Vec<[u8; 16]> = more.matches.iter().map(|(fingerprint, _)| *fingerprint).collect();
    batch.matches.retain(|(fingerprint, _)| !newer.contains(fingerprint));
    batch.matches.extend(more.matches);
    batch.reconciled = more.reconciled.or(batch.reconciled);
}
