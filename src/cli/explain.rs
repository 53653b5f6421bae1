//! `veinfs explain`: why a directory matches or does not, and the nearest misses of a source.

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use super::{DONE, FAILED, PARTIAL, PatternArgs, WalkArgs, out};
use crate::config::{ConfigError, NamedSource, find_sources, load_patterns};
use crate::entry::{RelPath, printable};
use crate::explain::clauses::{Explanation, Met, explain};
use crate::explain::cure::{Cure, cure};
use crate::explain::load::{Limits, outline};
use crate::explain::nearest::{self, Miss, nearest};
use crate::explain::text::{Line, Style, change, lines};
use crate::explain::{Question, json as shape};
use crate::listing::Scratch;
use crate::scan::{options_of, plain};
use crate::stores::Stores;
use crate::view::matches::bytes;
use crate::walk::WalkOptions;

/// How long the list of changes is sought, in steps.
const STEPS: u32 = 60_000;

/// Say why a directory matches a pattern or does not, and what would make it match
///
/// With --nearest, say which directories of sources come nearest to matching.
///
/// Exit codes: 0 if each DIR matches each pattern, 1 if one does not, 3 if part of what it takes could not be read.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "veinfs explain [OPTIONS] DIR... -p PATTERN...\n       veinfs explain --nearest[=N] [OPTIONS] SOURCE... -p PATTERN..."
)]
pub(crate) struct ExplainArgs {
    /// Directories to explain; with --nearest, sources to search, each PATH or NAME=PATH
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<OsString>,
    #[command(flatten)]
    patterns: PatternArgs,
    /// Rank the N directories of the sources that come nearest to matching [default: 20]
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "20",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nearest: Option<u32>,
    /// The source that DIR is in, for `forbidden_ancestors` and --max-depth [default: DIR itself]
    #[arg(long, value_name = "ROOT", conflicts_with = "nearest")]
    source: Option<OsString>,
    #[command(flatten)]
    walk: WalkArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<u8> {
    let patterns = load_patterns(&args.patterns.patterns)?;
    // Together first, so that what is wrong between them is told as it is elsewhere.
    crate::config::compile_all(&patterns, None)?;
    let questions = patterns.iter().map(Question::new).collect::<Result<Vec<_>, _>>().map_err(ConfigError::Patterns)?;
    let mut printer = Printer { to: BufWriter::new(io::stdout().lock()), look: Look::of_stdout() };
    let code = match args.nearest {
        Some(most) => rank(args, &questions, most as usize, &mut printer)?,
        None => explain_each(args, &questions, &mut printer)?,
    };
    printer.to.flush()?;
    Ok(code)
}

fn explain_each(args: &ExplainArgs, questions: &[Question], printer: &mut Printer<impl Write>) -> anyhow::Result<u8> {
    let (mut code, mut first) = (DONE, true);
    let stores = args.walk.stores(&args.walk.options()?);
    for dir in &args.dirs {
        let (source, path) = locate(dir, args.source.as_ref(), &stores)?;
        let options = options_of(std::slice::from_ref(&source), &args.walk.options()?).remove(0);
        for question in questions {
            let explained = Explained::of(question, &source, &path, &options);
            for (path, error) in &explained.troubles {
                let path = source.path_of(&RelPath::from_bytes(&path[..]));
                out::error(&format!("cannot read {}: {}", printable(&path), plain(error)));
            }
            if args.json {
                let object = explained.json(question, &source, &path);
                serde_json::to_writer(&mut printer.to, &object)?;
                printer.to.write_all(b"\n")?;
            } else {
                if !std::mem::replace(&mut first, false) {
                    printer.to.write_all(b"\n")?;
                }
                let shown = std::os::unix::ffi::OsStrExt::as_bytes(dir.as_os_str());
                let lines = lines(&question.pattern.name, shown, &explained.explanation, explained.cure.as_ref());
                lines.iter().try_for_each(|line| printer.line(line))?;
            }
            code = code.max(explained.code());
        }
    }
    Ok(code)
}

/// The source that a directory is in, and its path below that.
fn locate(dir: &OsString, root: Option<&OsString>, stores: &Stores) -> anyhow::Result<(NamedSource, RelPath)> {
    let Some(root) = root else {
        return Ok((find_sources(std::slice::from_ref(dir), stores)?.remove(0), RelPath::root()));
    };
    let source = find_sources(std::slice::from_ref(root), stores)?.remove(0);
    let wrong = |reason: String| ConfigError::Source { path: dir.into(), reason };
    let outside = format!("it is not in {}; leave out --source, or give one that it is in", source.root.display());
    if source.source.as_listed().is_some() {
        let below = Path::new(dir).strip_prefix(&source.root).map_err(|_| wrong(outside))?;
        let below = RelPath::from_bytes(std::os::unix::ffi::OsStrExt::as_bytes(below.as_os_str()));
        return Ok((source, below));
    }
    let real = Path::new(dir).canonicalize().map_err(|error| wrong(plain(&error)))?;
    if !real.is_dir() {
        return Err(wrong("not a directory; give the directory that is to match".into()).into());
    }
    let below = real.strip_prefix(&source.root).map_err(|_| wrong(outside))?;
    Ok((source, RelPath::from_bytes(std::os::unix::ffi::OsStrExt::as_bytes(below.as_os_str()))))
}

struct Explained {
    explanation: Explanation,
    cure: Option<Cure>,
    troubles: Vec<(Vec<u8>, io::Error)>,
}

impl Explained {
    fn of(question: &Question, source: &NamedSource, path: &RelPath, options: &WalkOptions) -> Self {
        let automaton = &question.automaton;
        let loaded = outline(automaton, &*source.source, &source.root_name, path, options, Limits::default());
        let explanation = explain(question, &loaded.dir.judge(automaton, &mut Scratch::new(automaton), &loaded.above));
        let cure = match explanation.met {
            Met::No => cure(&question.pattern, automaton, &loaded.dir, &loaded.above, STEPS),
            Met::Yes | Met::Unknown => None,
        };
        Self { explanation, cure, troubles: loaded.troubles }
    }

    fn code(&self) -> u8 {
        match self.explanation.met {
            Met::Yes if self.troubles.is_empty() => DONE,
            Met::No if self.troubles.is_empty() => FAILED,
            _ => PARTIAL,
        }
    }

    fn json(&self, question: &Question, source: &NamedSource, path: &RelPath) -> Value {
        let mut object = Map::new();
        object.insert("pattern".into(), json!(question.pattern.name));
        object.insert("source".into(), json!(printable(&source.name)));
        bytes(&mut object, "path", &source.path_of(path));
        bytes(&mut object, "relpath", path.as_bytes());
        shape::explanation(&mut object, &self.explanation, self.cure.as_ref());
        Value::Object(object)
    }
}

fn rank(
    args: &ExplainArgs,
    questions: &[Question],
    most: usize,
    printer: &mut Printer<impl Write>,
) -> anyhow::Result<u8> {
    let sources = find_sources(&args.dirs, &args.walk.stores(&args.walk.options()?))?;
    let options = options_of(&sources, &args.walk.options()?);
    let troubles = AtomicU64::new(0);
    let bar = out::spinner();
    let told = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let trouble = |source: usize, path: &[u8], error: io::Error| {
        troubles.fetch_add(1, Ordering::Relaxed);
        let path = sources[source].path_of(&RelPath::from_bytes(path));
        // A source is passed through once for each pattern.
        if told.lock().is_ok_and(|mut told| told.insert(path.clone())) {
            out::error(&format!("cannot read {}: {}", printable(&path), plain(&error)));
        }
    };
    for question in questions {
        if let Some(bar) = &bar {
            bar.set_message(format!("looking for what nearly matches {}", question.pattern.name));
        }
        let misses = nearest(question, &sources, &options, most, &AtomicBool::new(false), &trouble);
        for miss in misses {
            if args.json {
                serde_json::to_writer(&mut printer.to, &nearest::ndjson(question, &sources, &miss))?;
                printer.to.write_all(b"\n")?;
            } else {
                let pattern = (questions.len() > 1).then_some(&*question.pattern.name);
                printer.line(&miss_line(pattern, &sources[miss.source].path_of(&miss.path), &miss))?;
            }
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(if troubles.load(Ordering::Relaxed) > 0 { PARTIAL } else { DONE })
}

/// One near miss: where it is, and what it takes.
fn miss_line(pattern: Option<&str>, path: &[u8], miss: &Miss) -> Line {
    let mut line = Line(vec![(Style::Strong, path.to_vec())]);
    if let Some(pattern) = pattern {
        line.0.push((Style::Plain, format!(" {pattern}").into_bytes()));
    }
    let Some(cure) = &miss.cure else {
        line.0.push((Style::Plain, format!(": {}", miss.missing().join("; ")).into_bytes()));
        return line;
    };
    let count = cure.changes.len();
    let text = if count == 1 { ": 1 change: ".to_owned() } else { format!(": {count} changes: ") };
    line.0.push((Style::Plain, text.into_bytes()));
    for (at, one) in cure.changes.iter().enumerate() {
        if at > 0 {
            line.0.push((Style::Faint, b"; ".to_vec()));
        }
        // Without its indent.
        line.0.extend(change(one).0.into_iter().skip(1));
    }
    line
}

/// How things are printed.
#[derive(Clone, Copy)]
struct Look {
    terminal: bool,
    colour: bool,
}

impl Look {
    /// In colour on a terminal, unless `NO_COLOR` (<https://no-color.org>) says otherwise.
    fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { terminal, colour: terminal && !unwanted && !dumb }
    }
}

struct Printer<W: Write> {
    to: W,
    look: Look,
}

impl<W: Write> Printer<W> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        for (style, bytes) in &line.0 {
            let code = match style {
                Style::Plain => "",
                Style::Good => "\x1b[32m",
                Style::Bad => "\x1b[31m",
                Style::Unknown => "\x1b[33m",
                Style::Faint => "\x1b[2m",
                Style::Strong => "\x1b[1m",
            };
            let coloured = self.look.colour && !code.is_empty();
            if coloured {
                self.to.write_all(code.as_bytes())?;
            }
            if self.look.terminal {
                self.to.write_all(out::for_terminal(bytes).as_bytes())?;
            } else {
                self.to.write_all(bytes)?;
            }
            if coloured {
                self.to.write_all(b"\x1b[0m")?;
            }
        }
        self.to.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_names_are_escaped_there() {
        let printed = |look| {
            let mut printer = Printer { to: Vec::new(), look };
            printer.line(&Line(vec![(Style::Bad, b"a\x1b".to_vec()), (Style::Plain, b"b".to_vec())])).expect("memory");
            String::from_utf8(printer.to).expect("text")
        };
        assert_eq!(printed(Look { terminal: false, colour: false }), "a\x1bb\n");
        assert_eq!(printed(Look { terminal: true, colour: false }), "a\\u{1b}b\n");
        assert_eq!(printed(Look { terminal: true, colour: true }), "\x1b[31ma\\u{1b}\x1b[0mb\n");
    }
}
