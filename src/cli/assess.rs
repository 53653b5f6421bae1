//! `veinfs assess`: which matches a file belongs to.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::{DONE, FAILED, PARTIAL, StoreArgs, out};
use crate::assess::mounted::{Mounted, below, ways};
use crate::assess::{Assessment, Near, assess};
use crate::automaton::{Automaton, PatternId};
use crate::config::{ConfigError, NamedSource, compile_all, find_sources, load_patterns};
use crate::entry::{RelPath, printable};
use crate::listing::Exclude;
use crate::pattern::Pattern;
use crate::pattern::load::to_json;
use crate::scan::{ScanEvent, Scanner, options_of, plain};
use crate::view::matches::{MatchSet, bytes, bytes_of, candidate, ndjson};
use crate::walk::{Found, WalkOptions};

/// Say which matches files and directories belong to, and where the views show them.
///
/// A line for each match: the pattern, the match's directory, and where its view shows PATH, with tabs between them. A
/// running mount that PATH is in, or that has it in one of its sources, is asked; -p is needed only where there is none.
/// What nearly matches is said on stderr.
#[derive(Debug, clap::Args)]
pub(crate) struct AssessArgs {
    /// Files and directories
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
    /// Pattern file (JSON, YAML, TOML) or the name of a built-in pattern; repeat for several
    #[arg(short = 'p', long = "pattern", value_name = "PATTERN")]
    patterns: Vec<OsString>,
    /// Seek matches only below DIR, and name them as a mount of it would, which takes a scan [default: all directories
    /// above PATH]
    #[arg(long, value_name = "DIR")]
    source: Vec<OsString>,
    /// Leave out names that match GLOB, or paths below the source if it has a `/`
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// See nothing deeper than N levels below the source
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_depth: Option<u32>,
    #[command(flatten)]
    stores: StoreArgs,
    /// Seek matches behind symbolic links too
    #[arg(long, short = 'L')]
    follow: bool,
    /// Where matches would appear in a mount
    #[arg(long, value_name = "TEMPLATE")]
    layout: Option<String>,
    /// One JSON object a line
    #[arg(long, conflicts_with = "null")]
    json: bool,
    /// End each of the three fields with NUL instead of a tab or newline
    #[arg(short = '0', long)]
    null: bool,
}

pub(crate) fn run(args: &AssessArgs) -> anyhow::Result<u8> {
    let asking = Asking::new(args)?;
    let mut printer = Printer {
        json: args.json,
        null: args.null,
        terminal: io::stdout().is_terminal(),
        noted: false,
        stdout: BufWriter::new(io::stdout().lock()),
    };
    let (mut matched, mut failed, mut partial) = (false, false, false);
    for path in &args.paths {
        let told = asking.ask(Path::new(path), &mut printer)?;
        matched |= told.matched;
        failed |= told.failed;
        partial |= told.partial;
    }
    printer.stdout.flush()?;
    Ok(match (failed, partial, matched) {
        (true, ..) => FAILED,
        (_, true, _) => PARTIAL,
        (_, _, true) => DONE,
        (_, _, false) => FAILED,
    })
}

/// What came of one path.
#[derive(Default)]
struct Told {
    matched: bool,
    /// It is not there, or cannot be looked at.
    failed: bool,
    /// Something above it could not be read.
    partial: bool,
}

/// The names of all matches of a scan.
type Places = HashMap<(PatternId, usize, RelPath), Vec<Box<[u8]>>>;

/// What is asked of every path.
struct Asking<'a> {
    args: &'a AssessArgs,
    patterns: Vec<Pattern>,
    options: WalkOptions,
    /// As given by --source, or the root of all directories.
    sources: Vec<NamedSource>,
    source_options: Vec<WalkOptions>,
    mounts: Vec<Mounted>,
    places: OnceCell<Places>,
}

impl<'a> Asking<'a> {
    fn new(args: &'a AssessArgs) -> anyhow::Result<Self> {
        let patterns = load_patterns(&args.patterns)?;
        compile_all(&patterns, args.layout.as_deref())?;
        let options = WalkOptions {
            max_depth: args.max_depth,
            follow: args.follow,
            exclude: Exclude::new(&args.exclude).map_err(ConfigError::Exclude)?,
            ..WalkOptions::default()
        };
        let given = !args.source.is_empty();
        let root = [OsString::from("/")];
        let sources = find_sources(if given { &args.source } else { &root }, &args.stores.stores(&options))?;
        let source_options = options_of(&sources, &options);
        let mounts = if given { Vec::new() } else { Mounted::all() };
        Ok(Self { args, patterns, options, sources, source_options, mounts, places: OnceCell::new() })
    }

    fn scans(&self) -> bool {
        !self.args.source.is_empty()
    }

    fn ask(&self, path: &Path, printer: &mut Printer<'_>) -> anyhow::Result<Told> {
        let shown = path.display();
        let mut told = Told::default();
        let ways = match ways(path).and_then(|ways| self.real(ways)) {
            Ok(ways) => ways,
            Err(error) => {
                out::error(&format!("{shown}: {}", plain(&error)));
                return Ok(Told { failed: true, ..told });
            }
        };
        let covering: Vec<&Mounted> =
            self.mounts.iter().filter(|mount| ways.iter().any(|way| mount.covers(way))).collect();
        if covering.is_empty() && self.patterns.is_empty() {
            bail!(ConfigError::Usage(format!(
                "{shown}: no running mount shows it or has it in a source; say which patterns: -p PATTERN"
            )));
        }
        let mut left: Vec<Pattern> = self.patterns.clone();
        for mount in covering {
            told.matched |= self.ask_mount(mount, path, &ways, printer)?;
            if mount.complete {
                left.retain(|pattern| !mount.patterns.contains(&to_json(pattern)));
            } else {
                out::error(&format!("{}: still scanning; it may not know all matches", mount.mountpoint.display()));
                told.partial |= self.patterns.is_empty();
            }
        }
        if !left.is_empty() {
            let automaton = compile_all(&left, self.args.layout.as_deref())?;
            self.ask_sources(&automaton, path, &ways, printer, &mut told)?;
        }
        if !told.matched {
            out::error(&format!("{shown}: in no match"));
        }
        Ok(told)
    }

    /// The real paths of those that are in mounts.
    fn real(&self, ways: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
        let real = |way: PathBuf| self.mounts.iter().find_map(|mount| mount.real(&way)).unwrap_or(Ok(way));
        ways.into_iter().map(real).collect()
    }

    fn ask_mount(
        &self,
        mount: &Mounted,
        path: &Path,
        ways: &[PathBuf],
        printer: &mut Printer<'_>,
    ) -> anyhow::Result<bool> {
        let asked: Vec<Value> = self.patterns.iter().map(to_json).collect();
        let is_asked = |name: &Value| {
            asked.is_empty() || asked.iter().any(|pattern| pattern["name"] == *name && mount.patterns.contains(pattern))
        };
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for way in ways {
            for shown in mount.shows(way) {
                if seen.contains(&shown.view) || !is_asked(&shown.line["pattern"]) {
                    continue;
                }
                let mut object = answer(path, shown.line, true);
                bytes(&mut object, "view", &shown.view);
                bytes(&mut object, "mountpoint", mount.mountpoint.as_os_str().as_bytes());
                let view = mount.mountpoint.join(OsStr::from_bytes(&shown.view));
                printer.print(&object.into(), view.as_os_str().as_bytes())?;
                seen.push(shown.view);
            }
        }
        Ok(!seen.is_empty())
    }

    fn ask_sources(
        &self,
        automaton: &Automaton,
        path: &Path,
        ways: &[PathBuf],
        printer: &mut Printer<'_>,
        told: &mut Told,
    ) -> anyhow::Result<()> {
        let mut seen: Vec<(usize, PatternId, RelPath)> = Vec::new();
        let mut is_new = |at: usize, pattern: PatternId, path: &RelPath| {
            let key = (at, pattern, path.clone());
            let new = !seen.contains(&key);
            seen.push(key);
            new
        };
        for (at, source) in self.sources.iter().enumerate() {
            for way in ways.iter().filter_map(|way| below(&source.root, way)) {
                let way = RelPath::from_bytes(way.as_os_str().as_bytes());
                let Assessment { matches, near, troubles } =
                    match assess(automaton, source, &self.source_options[at], &way) {
                        Ok(assessment) => assessment,
                        Err(error) => {
                            out::error(&format!("{}: {}", path.display(), plain(&error)));
                            told.failed = true;
                            continue;
                        }
                    };
                troubles.iter().for_each(|trouble| out::error(&trouble.describe(source, automaton)));
                told.partial |= !troubles.is_empty();
                told.matched |= !matches.is_empty();
                for found in matches.iter().filter(|found| is_new(at, found.pattern, &found.path)) {
                    self.print_match(automaton, at, found, (path, &way), printer)?;
                }
                for near in near.iter().filter(|near| is_new(at, near.pattern, &near.path)) {
                    self.print_near(automaton, at, near, path, printer)?;
                }
            }
        }
        Ok(())
    }

    /// `way` is the path below the source.
    fn print_match(
        &self,
        automaton: &Automaton,
        at: usize,
        found: &Found,
        (path, way): (&Path, &RelPath),
        printer: &mut Printer<'_>,
    ) -> anyhow::Result<()> {
        let source = &self.sources[at];
        let place = match self.scans() {
            true => self.places()?.get(&(found.pattern, at, found.path.clone())).cloned(),
            false => None,
        };
        let known = place.is_some();
        let place = place.unwrap_or_else(|| candidate(automaton, source, found).wanted);
        let below = &way.as_bytes()[found.path.as_bytes().len()..];
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let mut view = [automaton.top(found.pattern).name.as_bytes(), b"/", &place.join(&b'/')].concat();
        if !below.is_empty() {
            view.push(b'/');
            view.extend_from_slice(below);
        }
        let mut object = answer(path, &ndjson(automaton, source, found, &place), true);
        if known {
            bytes(&mut object, "view", &view);
        } else {
            object["view"] = Value::Null;
            bytes(&mut object, "plain_view", &view);
            printer.note_plain();
        }
        self.without_source(&mut object);
        printer.print(&object.into(), &view)
    }

    fn print_near(
        &self,
        automaton: &Automaton,
        at: usize,
        near: &Near,
        path: &Path,
        printer: &mut Printer<'_>,
    ) -> anyhow::Result<()> {
        let source = &self.sources[at];
        let found =
            Found { pattern: near.pattern, path: near.path.clone(), captures: Default::default(), missing: Vec::new() };
        let mut object = answer(path, &ndjson(automaton, source, &found, &[]), false);
        for key in ["view", "view_bytes", "captures", "missing"] {
            object.shift_remove(key);
        }
        object.insert("lacks".into(), json!(near.lacks));
        self.without_source(&mut object);
        if printer.json {
            return printer.print(&object.into(), b"");
        }
        let name = &automaton.top(near.pattern).name;
        let directory = printable(&source.path_of(&near.path)).into_owned();
        out::error(&format!("{}: {directory} would show it as a match of {name}, but {}", path.display(), near.lacks));
        Ok(())
    }

    /// Where none was given, there is no source that paths could be below of.
    fn without_source(&self, object: &mut Map<String, Value>) {
        if !self.scans() {
            object["source"] = Value::Null;
            object["relpath"] = Value::Null;
            object.shift_remove("relpath_bytes");
        }
    }

    /// The names that a mount of the sources would give to all matches, from a scan the first time.
    fn places(&self) -> anyhow::Result<&Places> {
        if let Some(places) = self.places.get() {
            return Ok(places);
        }
        let automaton = Arc::new(compile_all(&self.patterns, self.args.layout.as_deref())?);
        let scanner = Scanner::new(Arc::clone(&automaton), self.sources.clone(), &self.options);
        let (sender, receiver) = channel();
        let scanning = scanner.spawn(move |event| {
            // The receiver is there until the scan is joined.
            let _ = sender.send(event);
        });
        let mut all = MatchSet::default();
        for event in receiver {
            match event {
                ScanEvent::Match { source, found } => all.insert(source, found),
                // What matters to the path was told.
                ScanEvent::Trouble { .. } | ScanEvent::SourceDone { .. } | ScanEvent::SourceFailed { .. } => {}
            }
        }
        scanning.join();
        let named = all.named(&automaton, &self.sources).into_iter();
        let places = named.map(|(source, found, place)| ((found.pattern, source, found.path.clone()), place)).collect();
        Ok(self.places.get_or_init(|| places))
    }
}

/// An object of the output: a match's own, with the path that was asked for.
fn answer(path: &Path, of: &Value, matches: bool) -> Map<String, Value> {
    let mut object = Map::new();
    bytes(&mut object, "file", path.as_os_str().as_bytes());
    object.insert("matches".into(), json!(matches));
    object.extend(of.as_object().cloned().unwrap_or_default());
    object
}

/// Stdout.
struct Printer<'a> {
    json: bool,
    null: bool,
    terminal: bool,
    noted: bool,
    stdout: BufWriter<io::StdoutLock<'a>>,
}

impl Printer<'_> {
    fn print(&mut self, object: &Value, view: &[u8]) -> anyhow::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.stdout, object)?;
            self.stdout.write_all(b"\n")?;
            return Ok(());
        }
        let (pattern, root) = (bytes_of(object, "pattern"), bytes_of(object, "path"));
        let (between, end) = if self.null { (0, 0) } else { (b'\t', b'\n') };
        for (field, end) in [(&*pattern, between), (&root, between), (view, end)] {
            if self.terminal && !self.null {
                self.stdout.write_all(out::for_terminal(field).as_bytes())?;
            } else {
                self.stdout.write_all(field)?;
            }
            self.stdout.write_all(&[end])?;
        }
        Ok(())
    }

    /// Says once that names of views are not certain.
    fn note_plain(&mut self) {
        if !std::mem::replace(&mut self.noted, true) && !self.json {
            out::error(
                "names in views are those without other matches of the same name; --source tells the final ones",
            );
        }
    }
}
