//! `.veinfs/near`: the nearest misses of a pattern, worked out when somebody reads them.
//!
//! A thread of its own reads the sources; whoever reads the file gets the answer from it, so that no thread that answers
//! the kernel waits. One pattern is worked out at a time, and all who ask for it meanwhile share what comes of it.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::{Live, ndjson_lines};
use crate::explain::Question;
use crate::explain::nearest::{ndjson, nearest};
use crate::pattern::PatternError;

/// How many near misses of a pattern are told.
const MOST: usize = 100;
/// Threads that read the sources for it: nobody is to notice.
const THREADS: usize = 2;

type Reader = Box<dyn FnOnce(&[u8]) + Send>;

/// A text that is worked out, with those who wait for it.
pub struct Later(Mutex<Progress>);

enum Progress {
    Waiting(Vec<Reader>),
    Done(Arc<[u8]>),
}

impl std::fmt::Debug for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Later")
    }
}

impl Later {
    fn new() -> Self {
        Self(Mutex::new(Progress::Waiting(Vec::new())))
    }

    /// Calls `reader` with the text: now, or from another thread when it is there.
    pub fn then(&self, reader: impl FnOnce(&[u8]) + Send + 'static) {
        let text = match &mut *self.0.lock() {
            Progress::Waiting(readers) => return readers.push(Box::new(reader)),
            Progress::Done(text) => Arc::clone(text),
        };
        reader(&text);
    }

    fn done(&self, text: Vec<u8>) {
        let text: Arc<[u8]> = text.into();
        let before = std::mem::replace(&mut *self.0.lock(), Progress::Done(Arc::clone(&text)));
        if let Progress::Waiting(readers) = before {
            readers.into_iter().for_each(|reader| reader(&text));
        }
    }
}

/// What is worked out at this moment, by the pattern's place.
#[derive(Debug, Default)]
pub(super) struct Nears {
    open: Mutex<FxHashMap<usize, Arc<Later>>>,
    /// Held by the thread that reads the sources.
    busy: Mutex<()>,
}

impl Live {
    /// The near misses of a pattern as NDJSON, as they are from now on.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn near(self: &Arc<Self>, pattern: usize) -> io::Result<Arc<Later>> {
        let mut open = self.nears.open.lock();
        if let Some(later) = open.get(&pattern) {
            return Ok(Arc::clone(later));
        }
        let later = Arc::new(Later::new());
        let (live, told) = (Arc::clone(self), Arc::clone(&later));
        std::thread::Builder::new().name("near".into()).spawn(move || {
            // Whatever happens, those who wait get an answer.
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _busy = live.nears.busy.lock();
                live.near_ndjson(pattern)
            }));
            live.nears.open.lock().remove(&pattern);
            told.done(found.ok().and_then(Result::ok).unwrap_or_default());
        })?;
        open.insert(pattern, Arc::clone(&later));
        Ok(later)
    }

    fn near_ndjson(&self, pattern: usize) -> Result<Vec<u8>, Vec<PatternError>> {
        let question = Question::new(&self.patterns[pattern])?;
        let mut options = self.options.clone();
        options.iter_mut().for_each(|options| options.threads = options.threads.min(THREADS));
        // What cannot be read is in `errors.ndjson` already.
        let misses = nearest(&question, &self.sources, &options, MOST, &self.progress.cancelled, &|_, _, _| {});
        Ok(ndjson_lines(misses.iter().map(|miss| ndjson(&question, &self.sources, miss))))
    }
}
