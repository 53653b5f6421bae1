//! `veinfs scan`: matches on stdout as they are found.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{DONE, FAILED, PARTIAL, PatternArgs, WalkArgs, out};
use crate::config::{compile_all, find_sources, load_patterns};
use crate::scan::{ScanEvent, Scanner, plain};
use crate::view::matches::{MatchSet, ndjson};

/// Print the directories that match, as they are found.
///
/// With --json, one object a line once all are found, since the place in the view depends on all matches.
#[derive(Debug, clap::Args)]
#[command(override_usage = "veinfs scan [OPTIONS] SOURCE... -p PATTERN...")]
pub(crate) struct ScanArgs {
    /// Directories to search, each PATH or NAME=PATH
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<OsString>,
    #[command(flatten)]
    patterns: PatternArgs,
    #[command(flatten)]
    walk: WalkArgs,
    /// One JSON object a line
    #[arg(long, conflicts_with_all = ["null", "count", "quiet"])]
    json: bool,
    /// End each path with NUL instead of a newline
    #[arg(short = '0', long, conflicts_with_all = ["count", "quiet"])]
    null: bool,
    /// Print only how many directories match, for several patterns a line each
    #[arg(long, conflicts_with = "quiet")]
    count: bool,
    /// Print nothing; exit with 0 as soon as something matches, with 1 if nothing does
    #[arg(short, long)]
    quiet: bool,
    /// Where matches would appear in a mount, for --json
    #[arg(long, value_name = "TEMPLATE")]
    layout: Option<String>,
}

/// How long matches are gathered before they are printed.
const GATHER: Duration = Duration::from_millis(2);

pub(crate) fn run(args: &ScanArgs) -> anyhow::Result<u8> {
    let patterns = load_patterns(&args.patterns.patterns)?;
    let automaton = Arc::new(compile_all(&patterns, args.layout.as_deref())?);
    let walk = args.walk.options()?;
    let sources = find_sources(&args.sources, &args.walk.stores(&walk))?;
    let scanner = Scanner::new(Arc::clone(&automaton), sources.clone(), &walk);

    let (sender, receiver) = channel();
    let background = scanner.spawn(move |event| {
        // The receiver goes first only when the scan is being given up.
        let _ = sender.send(event);
    });
    let terminal = io::stdout().is_terminal();
    let bar = if args.quiet { None } else { out::spinner() };
    let mut stdout = BufWriter::new(io::stdout().lock());
    let (mut counts, mut troubles, mut all) = (vec![0u64; automaton.tops.len()], 0u64, MatchSet::default());
    let end = if args.null { 0 } else { b'\n' };
    let mut print = |stdout: &mut BufWriter<_>, event: ScanEvent| -> anyhow::Result<bool> {
        match event {
            ScanEvent::Match { source, found } => {
                counts[found.pattern.index()] += 1;
                if args.quiet {
                    return Ok(true);
                }
                if args.json {
                    all.insert(source, found);
                } else if !args.count {
                    let path = sources[source].path_of(&found.path);
                    match &bar {
                        Some(bar) if terminal => {
                            bar.suspend(|| out::path(stdout, &path, end, terminal).and_then(|()| stdout.flush()))?
                        }
                        _ => out::path(stdout, &path, end, terminal)?,
                    }
                }
            }
            ScanEvent::Trouble { source, trouble } => {
                troubles += 1;
                if !args.quiet {
                    let message = trouble.describe(&sources[source], &automaton);
                    match &bar {
                        Some(bar) => bar.suspend(|| out::error(&message)),
                        None => out::error(&message),
                    }
                }
            }
            ScanEvent::SourceDone { .. } => {}
            ScanEvent::SourceFailed { source, error } => {
                troubles += 1;
                out::error(&format!("source {}: {}", sources[source].root.display(), plain(&error)));
            }
        }
        Ok(false)
    };
    loop {
        let event = match receiver.try_recv() {
            Ok(event) => Some(event),
            Err(_) => {
                stdout.flush()?;
                match receiver.recv_timeout(Duration::from_millis(200)) {
                    Ok(event) => {
                        // More will follow: being woken for each one took a tenth of a scan's time.
                        std::thread::sleep(GATHER);
                        Some(event)
                    }
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        };
        if let Some(event) = event
            && print(&mut stdout, event)?
        {
            scanner.cancel();
            return Ok(DONE);
        }
        if let Some(bar) = &bar {
            let progress = scanner.progress();
            let (directories, entries) =
                (progress.directories.load(Ordering::Relaxed), progress.entries.load(Ordering::Relaxed));
            bar.set_message(format!("{directories} directories, {entries} entries"));
        }
    }
    background.join();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if args.json {
        for (source, found, view) in all.named(&automaton, &sources) {
            serde_json::to_writer(&mut stdout, &ndjson(&automaton, &sources[source], found, &view))?;
            stdout.write_all(b"\n")?;
        }
    }
    if args.count {
        match counts.as_slice() {
            [one] => writeln!(stdout, "{one}")?,
            several => {
                for (count, top) in several.iter().zip(&automaton.tops) {
                    writeln!(stdout, "{count} {}", top.name)?;
                }
            }
        }
    }
    stdout.flush()?;
    Ok(match (troubles > 0, args.quiet) {
        (true, _) => PARTIAL,
        (false, true) => FAILED,
        (false, false) => DONE,
    })
}
