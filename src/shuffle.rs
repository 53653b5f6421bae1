//! Matches copied out: what the view shows, below a directory, as the view has it.
//!
//! Every match is looked at first ([`inventory`]), and what is done with it decided from that and from what is under its
//! name already ([`plan`]); a dry run ends here. Then it is written beside its place, under a name of its own
//! (`copy`), and gets its name when it is complete and on the disk (`dest`). What a killed run leaves is
//! found again by that name, and what is done of it stays. Two runs never write to the same destination at a time.
//!
//! A match that cannot be copied whole is not there at all; the others go on.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rayon::prelude::*;

use crate::automaton::Automaton;
use crate::config::NamedSource;
use crate::entry::printable;
use crate::expand::Symlinks;
use crate::listing::{ListRules, ScratchPool, c_name};
use crate::reader::Reader;
use crate::scan::plain;
use crate::source::{Handle, open_way};
use crate::walk::{Found, WalkOptions};
use dest::{Dest, give_name, private_dir, remove_all};
use inventory::{Inventory, Taking};
use plan::{Action, Totals, decide, part_name};
use write::{Writing, open_below};

mod copy;
pub mod dest;
pub mod inventory;
pub mod plan;
mod verify;
mod write;

/// How many complete matches wait for the disk together, how many bytes, and how long.
const BATCH: usize = 256;
const BATCH_BYTES: u64 = 1 << 30;
const BATCH_TIME: Duration = Duration::from_secs(2);
/// Room for files of one match that are copied while another waits.
const STACK_BYTES: usize = 16 << 20;

/// Why a match is not copied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", printable(path))]
pub struct Failure {
    /// Where.
    pub path: Vec<u8>,
    /// Why.
    pub reason: String,
}

impl Failure {
    pub(crate) fn new(path: &[u8], reason: impl Into<String>) -> Self {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        Self { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn at(path: &[u8], error: &io::Error) -> Self {
        Self::new(path, plain(error))
    }
}

/// What the destination could not hold.
#[derive(Debug, Default)]
pub(crate) struct Lost(Mutex<BTreeSet<String>>);

impl Lost {
    /// Passes errors on, but those that mean that there is no such thing there.
    fn unless(&self, done: rustix::io::Result<()>, what: &str) -> io::Result<()> {
        use rustix::io::Errno;
        match done {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                self.0.lock().insert(what.to_owned());
                Ok(())
            }
            done => Ok(done?),
        }
    }
}

/// A match to be copied.
#[derive(Clone, Debug)]
pub struct Job {
    /// The place of its source.
    pub source: usize,
    /// What was found.
    pub found: Found,
    /// Where it goes, below the destination: the pattern's folder, and then as in the view.
    pub place: Vec<Box<[u8]>>,
}

/// How matches are copied.
#[derive(Clone, Copy, Debug)]
pub struct ShuffleOptions {
    /// How links inside matches are copied.
    pub symlinks: Symlinks,
    /// What is under a match's name, and is something else, is replaced.
    pub overwrite: bool,
    /// Nothing is done.
    pub dry_run: bool,
    /// Everything is read again on both sides.
    pub verify: bool,
    /// How many copy.
    pub threads: usize,
}

/// What came of a match.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done, or would be.
    pub action: Action,
    /// What it shows; `None` if that could not be read.
    pub inventory: Option<Arc<Inventory>>,
    /// How much that is.
    pub totals: Totals,
    /// Why it is not there, or not as it should be.
    pub failure: Option<Failure>,
    /// What the destination could not hold.
    pub lost: Vec<String>,
}

/// Counters of a run, to be read at any time.
#[derive(Debug, Default)]
pub struct Copied {
    /// Bytes that are to be copied, as far as is known.
    pub bytes_total: AtomicU64,
    /// Bytes copied.
    pub bytes: AtomicU64,
    /// Matches that are done.
    pub matches: AtomicU64,
    /// Files copied.
    pub files: AtomicU64,
}

/// All that a run needs.
pub struct Shuffle<'a> {
    /// The patterns.
    pub automaton: &'a Automaton,
    /// The sources.
    pub sources: &'a [NamedSource],
    /// How each of them was walked.
    pub walked: &'a [WalkOptions],
    /// Scratch space.
    pub scratch: &'a ScratchPool,
    /// Where to.
    pub dest: &'a Dest,
    /// How.
    pub options: ShuffleOptions,
    /// Counters.
    pub copied: &'a Copied,
    /// Told of each match, by its place among the jobs.
    pub report: &'a (dyn Fn(usize, Outcome) + Sync),
}

/// A match that was looked at.
struct Planned<'a> {
    number: usize,
    job: &'a Job,
    part: Box<[u8]>,
    inventory: Arc<Inventory>,
    totals: Totals,
    action: Action,
}

/// A match that is complete, and waits for its name.
struct Ready<'a> {
    planned: Planned<'a>,
    lost: Vec<String>,
}

#[derive(Default)]
struct Batch<'a> {
    ready: Vec<Ready<'a>>,
    bytes: u64,
    since: Option<Instant>,
}

impl Shuffle<'_> {
    /// Copies all matches, the conflicts and failures among them told as such.
    ///
    /// # Errors
    /// If no threads can be started, or the names do not reach the disk.
    pub fn run(&self, jobs: &[Job]) -> io::Result<()> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.options.threads.max(1))
            .thread_name(|at| format!("shuffle-{at}"))
            .stack_size(STACK_BYTES)
            .build()
            .map_err(io::Error::other)?;
        // Where the kernel does not say when it was started, nothing is taken up again.
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id")
            .unwrap_or_else(|_| std::process::id().to_le_bytes().to_vec());
        let parts: Vec<Box<[u8]>> = jobs.iter().map(|job| self.part(job, &boot)).collect();
        pool.install(|| {
            let planned: Vec<Planned<'_>> = jobs
                .par_iter()
                .zip(&parts)
                .enumerate()
                .filter_map(|(at, (job, part))| self.plan(at, job, part))
                .collect();
            if self.options.dry_run {
                planned.into_iter().for_each(|planned| self.done(planned, None, Vec::new()));
                return Ok(());
            }
            let bytes = planned.iter().filter(|planned| planned.copies()).map(|planned| planned.totals.bytes).sum();
            self.copied.bytes_total.store(bytes, Ordering::Relaxed);
            let parts: HashSet<Box<[u8]>> = parts.iter().cloned().collect();
            let batch = Mutex::new(Batch::default());
            planned.into_par_iter().for_each(|planned| self.perform(planned, &parts, &batch));
            self.commit(std::mem::take(&mut *batch.lock()).ready);
            self.dest.sync()
        })
    }

    fn part(&self, job: &Job, boot: &[u8]) -> Box<[u8]> {
        let pattern = self.automaton.top(job.found.pattern).name.as_bytes();
        let root = self.sources[job.source].path_of(&job.found.path);
        part_name(boot, pattern, &root, &job.place.join(&b'/'))
    }

    fn with_taking<T>(&self, source: usize, work: impl FnOnce(&Taking<'_>) -> T) -> T {
        let options = &self.walked[source];
        let reader = Reader {
            automaton: self.automaton,
            source: &*self.sources[source].source,
            rules: ListRules { exclude: &options.exclude, follow: false },
            closed: &|path| options.closes(path),
            shut: &options.shut,
            entered: &|_| {},
            failed: &|_, _| {},
        };
        work(&Taking {
            reader,
            source: &self.sources[source],
            options,
            symlinks: self.options.symlinks,
            dest: self.dest.identity(),
        })
    }

    fn take(&self, job: &Job) -> Result<Inventory, Failure> {
        self.with_taking(job.source, |taking| self.scratch.with(|scratch| taking.take(&job.found, scratch)))
    }

    fn plan<'j>(&self, number: usize, job: &'j Job, part: &[u8]) -> Option<Planned<'j>> {
        let planned = self.take(job).and_then(|inventory| {
            let existing = self.dest.look(&job.place).map_err(|error| Failure::at(&self.shown(job), &error))?;
            let action = decide(&inventory, &existing, self.options.overwrite);
            let totals = Totals::of(&inventory);
            Ok(Planned { number, job, part: part.into(), inventory: inventory.into(), totals, action })
        });
        match planned {
            Ok(planned) => Some(planned),
            Err(failure) => {
                let (action, totals) = (Action::Copy, Totals::default());
                (self.report)(
                    number,
                    Outcome { action, inventory: None, totals, failure: Some(failure), lost: Vec::new() },
                );
                None
            }
        }
    }

    /// Where a match goes.
    fn shown(&self, job: &Job) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        [self.dest.path.as_os_str().as_bytes(), b"/", &job.place.join(&b'/')].concat()
    }

    fn done(&self, planned: Planned<'_>, failure: Option<Failure>, lost: Vec<String>) {
        let Planned { number, inventory, totals, action, .. } = planned;
        self.copied.matches.fetch_add(1, Ordering::Relaxed);
        (self.report)(number, Outcome { action, inventory: Some(inventory), totals, failure, lost });
    }

    fn perform<'j>(&self, planned: Planned<'j>, parts: &HashSet<Box<[u8]>>, batch: &Mutex<Batch<'j>>) {
        if planned.copies() {
            match self.copy(&planned, parts) {
                Ok(lost) => self.wait(Ready { planned, lost }, batch),
                Err(failure) => self.done(planned, Some(failure), Vec::new()),
            }
            return;
        }
        let verified = match planned.action {
            Action::Keep if self.options.verify => self.verify_kept(&planned, parts),
            _ => Ok(()),
        };
        self.done(planned, verified.err(), Vec::new());
    }

    fn verify_kept(&self, planned: &Planned<'_>, parts: &HashSet<Box<[u8]>>) -> Result<(), Failure> {
        let shown = self.shown(planned.job);
        let (name, levels) = planned.job.name();
        let dir = self.dest.parent(levels, parts).map_err(|error| Failure::at(&shown, &error))?;
        let from = self.open(planned.job)?;
        let to = open_below(&dir, name).map(Handle::Local).map_err(|error| Failure::at(&shown, &error))?;
        let source = &*self.sources[planned.job.source].source;
        verify::verify(source, &from, &to, &planned.inventory, &shown)
    }

    /// Opens the directory of a match.
    fn open(&self, job: &Job) -> Result<Handle, Failure> {
        let source = &self.sources[job.source];
        let root = source.source.open_root();
        let opened =
            root.and_then(|root| open_way(&*source.source, &root, &job.found.path, self.walked[job.source].follow));
        opened.map_err(|error| Failure::at(&source.path_of(&job.found.path), &error))
    }

    /// Writes a match beside its place. Of one that fails nothing stays.
    fn copy(&self, planned: &Planned<'_>, parts: &HashSet<Box<[u8]>>) -> Result<Vec<String>, Failure> {
        let shown = self.shown(planned.job);
        let (_, levels) = planned.job.name();
        let dir = self.dest.parent(levels, parts).map_err(|error| Failure::at(&shown, &error))?;
        let lost = Lost::default();
        match self.write(planned, &dir, &lost) {
            Ok(()) => Ok(lost.0.into_inner().into_iter().collect()),
            Err(failure) => {
                // What is left would be removed by the next run.
                let _ = remove_all(dir.as_fd(), &c_name(&planned.part));
                Err(failure)
            }
        }
    }

    fn write(&self, planned: &Planned<'_>, dir: &OwnedFd, lost: &Lost) -> Result<(), Failure> {
        let Planned { job, inventory, part, .. } = planned;
        let shown = self.shown(job);
        let failed = |path: &[u8], error: io::Error| Failure::at(&[&*shown, b"/", path].concat(), &error);
        let from = self.open(job)?;
        let root = private_dir(dir, &c_name(part)).map_err(|error| failed(b"", error))?;
        let source = &*self.sources[job.source].source;
        let origin = self.sources[job.source].path_of(&job.found.path);
        let (shown, origin) = (&*shown, &*origin);
        Writing { source, from: &from, root: &root, inventory, shown, origin, lost, copied: self.copied }.write()?;
        self.is_at_rest(job, inventory, &from)?;
        if self.options.verify {
            self.dest.sync().map_err(|error| failed(b"", error))?;
            let to = Handle::Local(root.try_clone().map_err(|error| failed(b"", error))?);
            verify::verify(source, &from, &to, inventory, shown)?;
        }
        Ok(())
    }

    /// What came or went while the rest was copied is noticed by the times of the directories, and then looked for.
    fn is_at_rest(&self, job: &Job, inventory: &Inventory, from: &Handle) -> Result<(), Failure> {
        let source = &self.sources[job.source];
        let same = (0..inventory.folders.len()).all(|at| {
            let stat = inventory.open(&*source.source, from, at).and_then(|dir| source.source.stat_dir(&dir));
            stat.is_ok_and(|stat| stat.stamp() == inventory.folders[at].stat.stamp())
        });
        if same || self.take(job)?.is_same(inventory) {
            return Ok(());
        }
        let path = source.path_of(&job.found.path);
        Err(Failure::new(&path, "changed while it was copied; try again when it is at rest"))
    }

    /// Gives complete matches their names, many at a time, since each time all must reach the disk.
    fn wait<'j>(&self, ready: Ready<'j>, batch: &Mutex<Batch<'j>>) {
        let full = {
            let mut batch = batch.lock();
            batch.bytes += ready.planned.totals.bytes;
            batch.ready.push(ready);
            let since = *batch.since.get_or_insert_with(Instant::now);
            let full = batch.ready.len() >= BATCH || batch.bytes >= BATCH_BYTES || since.elapsed() >= BATCH_TIME;
            if full { std::mem::take(&mut *batch).ready } else { Vec::new() }
        };
        self.commit(full);
    }

    fn commit(&self, ready: Vec<Ready<'_>>) {
        if ready.is_empty() {
            return;
        }
        let synced = self.dest.sync();
        for Ready { planned, lost } in ready {
            let named = match &synced {
                Ok(()) => self.name(&planned),
                Err(error) => Err(Failure::at(&self.shown(planned.job), error)),
            };
            self.done(planned, named.err(), lost);
        }
    }

    /// Gives a complete match its name; if that cannot be, nothing of it stays.
    fn name(&self, planned: &Planned<'_>) -> Result<(), Failure> {
        let shown = self.shown(planned.job);
        let (name, levels) = planned.job.name();
        let dir = self.dest.enter(levels).map_err(|error| Failure::at(&shown, &error))?;
        give_name(&dir, &planned.part, name, planned.action == Action::Replace).map_err(|error| {
            // What is left would be removed by the next run.
            let _ = remove_all(dir.as_fd(), &c_name(&planned.part));
            match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::new(&shown, "came to be there meanwhile"),
                _ => Failure::at(&shown, &error),
            }
        })
    }
}

impl Planned<'_> {
    fn copies(&self) -> bool {
        matches!(self.action, Action::Copy | Action::Replace)
    }
}

impl Job {
    /// Its name, and the levels above it.
    fn name(&self) -> (&[u8], &[Box<[u8]>]) {
        match self.place.split_last() {
            Some((name, levels)) => (name, levels),
            None => (b"", &[]),
        }
    }
}
