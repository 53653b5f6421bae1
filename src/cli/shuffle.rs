//! `veinfs shuffle`: matches copied out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{DONE, FAILED, PARTIAL, PatternArgs, WalkArgs, out, split_last};
use crate::automaton::Automaton;
use crate::config::{ConfigError, NamedSource, compile_all, find_sources, load_patterns};
use crate::entry::printable;
use crate::expand::Symlinks;
use crate::listing::ScratchPool;
use crate::scan::{ScanEvent, Scanner, options_of, plain};
use crate::shuffle::dest::{Dest, DestError};
use crate::shuffle::inventory::What;
use crate::shuffle::plan::{Action, Step, Totals, steps};
use crate::shuffle::{Copied, Job, Outcome, Shuffle, ShuffleOptions};
use crate::view::matches::{MatchSet, bytes, ndjson};
use crate::walk::WalkOptions;

/// Copy out what matches, as a mount would show it: DEST/PATTERN/MATCH/...
///
/// A match is there whole or not at all; a second run goes on where one was ended. What is in DEST already stays as it
/// is: a match of the same sizes and times counts as copied, anything else under its name is a conflict.
#[derive(Debug, clap::Args)]
#[command(override_usage = "veinfs shuffle [OPTIONS] SOURCE... DEST -p PATTERN...")]
pub(crate) struct ShuffleArgs {
    /// Directories to search, each PATH or NAME=PATH, and last the directory to copy to
    #[arg(value_name = "SOURCE|DEST", required = true, num_args = 1..)]
    paths: Vec<OsString>,
    #[command(flatten)]
    patterns: PatternArgs,
    #[command(flatten)]
    walk: WalkArgs,
    /// Where matches go below their pattern's folder, such as '<.parent>/<.name>'
    #[arg(long, value_name = "TEMPLATE")]
    layout: Option<String>,
    /// How symbolic links inside matches are copied
    #[arg(long, value_enum, default_value_t)]
    symlinks: Symlinks,
    /// How many files are copied at a time [default: the number of cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Do nothing; print all that would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Replace what is something else under a match's name
    #[arg(long)]
    overwrite: bool,
    /// Read all again on both sides, and compare bytes and attributes, also of what was there
    #[arg(long)]
    verify: bool,
    /// Print all that is done, as --dry-run does
    #[arg(short, long)]
    verbose: bool,
    /// One JSON object a match and line
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
}

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &ShuffleArgs) -> anyhow::Result<u8> {
    let Some((sources, dest)) = split_last(args.paths.clone()) else {
        bail!(ConfigError::Usage("give sources and, last, the directory to copy to: SOURCE... DEST".into()));
    };
    let patterns = load_patterns(&args.patterns.patterns)?;
    let automaton = Arc::new(compile_all(&patterns, args.layout.as_deref())?);
    let options = args.walk.options()?;
    let sources = find_sources(&sources, &args.walk.stores(&options))?;
    let dest = match Dest::open(Path::new(&dest), &sources, &options.exclude, args.dry_run) {
        Err(error @ (DestError::InSource { .. } | DestError::AroundSource { .. })) => {
            bail!(ConfigError::Usage(error.to_string()))
        }
        opened => opened?,
    };
    let (matches, troubles) = scan(&automaton, &sources, &options);
    let jobs: Vec<Job> = matches
        .named(&automaton, &sources)
        .into_iter()
        .map(|(source, found, place)| {
            let folder: Box<[u8]> = automaton.top(found.pattern).name.as_bytes().into();
            Job { source, found: found.clone(), place: std::iter::once(folder).chain(place).collect() }
        })
        .collect();
    let telling = Telling { args, automaton: &automaton, sources: &sources, dest: &dest, jobs: &jobs };
    let counts = copy(&telling, &options)?;
    telling.summary(&counts);
    Ok(match (counts.failed + counts.conflicts, troubles) {
        (0, 0) => DONE,
        (0, _) => PARTIAL,
        (_, _) => FAILED,
    })
}

/// All matches, and how much could not be read or decided.
fn scan(automaton: &Arc<Automaton>, sources: &[NamedSource], options: &WalkOptions) -> (MatchSet, u64) {
    let scanner = Scanner::new(Arc::clone(automaton), sources.to_vec(), options);
    let (sender, receiver) = channel();
    let scanning = scanner.spawn(move |event| {
        // The receiver is there until the scan is joined.
        let _ = sender.send(event);
    });
    let bar = out::spinner();
    let say = |message: &str| match &bar {
        Some(bar) => bar.suspend(|| out::error(message)),
        None => out::error(message),
    };
    let (mut matches, mut troubles) = (MatchSet::default(), 0);
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(ScanEvent::Match { source, found }) => matches.insert(source, found),
            Ok(ScanEvent::Trouble { source, trouble }) => {
                troubles += 1;
                say(&trouble.describe(&sources[source], automaton));
            }
            Ok(ScanEvent::SourceFailed { source, error }) => {
                troubles += 1;
                say(&format!("source {}: {}", sources[source].root.display(), plain(&error)));
            }
            Ok(ScanEvent::SourceDone { .. }) => {}
            Err(RecvTimeoutError::Timeout) => {
                let directories = scanner.progress().directories.load(Ordering::Relaxed);
                bar.iter().for_each(|bar| bar.set_message(format!("{directories} directories")));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    scanning.join();
    bar.iter().for_each(ProgressBar::finish_and_clear);
    (matches, troubles)
}

/// What came of all matches.
#[derive(Default)]
struct Counts {
    copied: u64,
    kept: u64,
    conflicts: u64,
    failed: u64,
    totals: Totals,
    took: Duration,
}

fn copy(telling: &Telling<'_>, options: &WalkOptions) -> anyhow::Result<Counts> {
    let args = telling.args;
    let copied = Copied::default();
    let scratch = ScratchPool::new(Arc::clone(telling.automaton));
    let walked = options_of(telling.sources, options);
    let threads = args.jobs.map_or_else(|| WalkOptions::default().threads, usize::from);
    let (symlinks, overwrite, dry_run, verify) = (args.symlinks, args.overwrite, args.dry_run, args.verify);
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let begun = Instant::now();
    let shuffle = Shuffle {
        automaton: telling.automaton,
        sources: telling.sources,
        walked: &walked,
        scratch: &scratch,
        dest: telling.dest,
        options: ShuffleOptions { symlinks, overwrite, dry_run, verify, threads },
        copied: &copied,
        report: &|number, outcome| {
            // The receiver goes first only where stdout is closed.
            let _ = sender.lock().send(Some((number, outcome)));
        },
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let done = shuffle.run(telling.jobs);
            let _ = sender.lock().send(None);
            done
        });
        let mut counts = Counts::default();
        let bar = if dry_run { None } else { bar() };
        let mut stdout = BufWriter::new(io::stdout().lock());
        // Told in the order of the matches, whichever is done first.
        let (mut next, mut waiting) = (0, BTreeMap::new());
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(Some((number, outcome))) => {
                    waiting.insert(number, outcome);
                    while let Some(outcome) = waiting.remove(&next) {
                        telling.tell(&mut stdout, next, &outcome, &mut counts, bar.as_ref())?;
                        next += 1;
                    }
                }
                Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => stdout.flush()?,
            }
            if let Some(bar) = &bar {
                bar.set_length(copied.bytes_total.load(Ordering::Relaxed));
                bar.set_position(copied.bytes.load(Ordering::Relaxed));
                let done = copied.matches.load(Ordering::Relaxed);
                bar.set_message(format!("{done} of {} matches", telling.jobs.len()));
            }
        }
        stdout.flush()?;
        bar.iter().for_each(ProgressBar::finish_and_clear);
        counts.took = begun.elapsed();
        match running.join() {
            Ok(done) => done.map(|()| counts).map_err(Into::into),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Progress with rate and time left, only on a terminal.
fn bar() -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(0);
    let style = "{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left; {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(TICK);
    Some(bar)
}

/// All that is needed to tell what was done.
struct Telling<'a> {
    args: &'a ShuffleArgs,
    automaton: &'a Arc<Automaton>,
    sources: &'a [NamedSource],
    dest: &'a Dest,
    jobs: &'a [Job],
}

impl Telling<'_> {
    fn tell(
        &self,
        to: &mut dyn Write,
        number: usize,
        outcome: &Outcome,
        counts: &mut Counts,
        bar: Option<&ProgressBar>,
    ) -> anyhow::Result<()> {
        let job = &self.jobs[number];
        counts.add(outcome);
        if self.args.json {
            serde_json::to_writer(&mut *to, &self.object(job, outcome))?;
            to.write_all(b"\n")?;
        } else if self.args.verbose || self.args.dry_run {
            self.list(to, job, outcome)?;
        }
        let say = |message: &str| match bar {
            Some(bar) => bar.suspend(|| out::error(message)),
            None => out::error(message),
        };
        let place = printable(&self.path(job)).into_owned();
        if let Some(failure) = &outcome.failure {
            say(&format!("not copied: {place}: {failure}"));
        }
        if let Action::Conflict(reason) = &outcome.action {
            let cure = if self.args.overwrite { "" } else { "; --overwrite replaces what is there" };
            say(&format!("conflict at {place}: {reason}{cure}"));
        }
        if !outcome.lost.is_empty() {
            say(&format!("{place}: the destination cannot hold {}", outcome.lost.join(", ")));
        }
        Ok(())
    }

    fn path(&self, job: &Job) -> Vec<u8> {
        [self.dest.path.as_os_str().as_bytes(), b"/", &job.place.join(&b'/')].concat()
    }

    fn object(&self, job: &Job, outcome: &Outcome) -> Value {
        let mut object = match ndjson(self.automaton, &self.sources[job.source], &job.found, &job.place[1..]) {
            Value::Object(object) => object,
            _ => return Value::Null,
        };
        bytes(&mut object, "dest", &self.path(job));
        object.insert("action".into(), json!(word(outcome)));
        let Totals { directories, files, hard_links, links, specials, bytes } = outcome.totals;
        for (key, count) in [
            ("directories", directories),
            ("files", files),
            ("hard_links", hard_links),
            ("links", links),
            ("specials", specials),
            ("bytes", bytes),
        ] {
            object.insert(key.into(), json!(count));
        }
        let reason = match (&outcome.failure, &outcome.action) {
            (Some(failure), _) => Some(failure.to_string()),
            (None, Action::Conflict(reason)) => Some(reason.clone()),
            (None, _) => None,
        };
        object.insert("reason".into(), json!(reason));
        object.insert("lost".into(), json!(outcome.lost));
        object.into()
    }

    /// What is done with a match, and under it each entry that is made.
    fn list(&self, to: &mut dyn Write, job: &Job, outcome: &Outcome) -> io::Result<()> {
        let from = self.sources[job.source].path_of(&job.found.path);
        let line = |to: &mut dyn Write, parts: &[&[u8]]| {
            let text = parts.concat();
            out::path(to, &text, b'\n', io::stdout().is_terminal())
        };
        line(to, &[word(outcome).as_bytes(), b" ", &from, b" -> ", &self.path(job)])?;
        let (Some(inventory), true) = (&outcome.inventory, outcome.copies()) else { return Ok(()) };
        for step in steps(inventory) {
            let path = step.path();
            match step {
                Step::Folder(_) if path.is_empty() => {}
                Step::Folder(_) => line(to, &[b"  ", &path, b"/"])?,
                Step::HardLink(_, _, (folder, original)) => {
                    line(to, &[b"  ", &path, b" = ", &folder.path_of(&original.name)])?;
                }
                Step::Item(_, item) => match &item.what {
                    What::File { .. } => {
                        line(to, &[b"  ", &path, b", ", item.stat.size.to_string().as_bytes(), b" bytes"])?;
                    }
                    What::Link(text) => line(to, &[b"  ", &path, b" -> ", text])?,
                    What::Special => line(to, &[b"  ", &path, b"|"])?,
                },
            }
        }
        Ok(())
    }

    fn summary(&self, counts: &Counts) {
        let Counts { copied, kept, conflicts, failed, totals, took } = counts;
        let done = if self.args.dry_run { "to copy" } else { "copied" };
        let mut text = format!(
            "{copied} {} {done}, {} files, {}",
            if *copied == 1 { "match" } else { "matches" },
            totals.files,
            HumanBytes(totals.bytes)
        );
        if !self.args.dry_run {
            text.push_str(&format!(" in {:.1} s", took.as_secs_f64()));
        }
        for (count, what) in [(kept, "there already"), (conflicts, "in conflict"), (failed, "not copied")] {
            if *count > 0 {
                text.push_str(&format!("; {count} {what}"));
            }
        }
        out::error(&text);
    }
}

/// What was done, in a word.
fn word(outcome: &Outcome) -> &'static str {
    match (&outcome.failure, &outcome.action) {
        (Some(_), _) => "fail",
        (None, Action::Copy) => "copy",
        (None, Action::Keep) => "keep",
        (None, Action::Replace) => "replace",
        (None, Action::Conflict(_)) => "conflict",
    }
}

impl Outcome {
    fn copies(&self) -> bool {
        self.failure.is_none() && matches!(self.action, Action::Copy | Action::Replace)
    }
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match (&outcome.failure, &outcome.action) {
            (Some(_), _) => self.failed += 1,
            (None, Action::Conflict(_)) => self.conflicts += 1,
            (None, Action::Keep) => self.kept += 1,
            (None, Action::Copy | Action::Replace) => {
                self.copied += 1;
                self.totals = self.totals.and(outcome.totals);
            }
        }
    }
}
