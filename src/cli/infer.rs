//! `veinfs infer`: the pattern that example directories have in common.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::{DONE, FAILED, PARTIAL, StoreArgs, out};
use crate::config::{ConfigError, NamedSource, compile_all, find_sources};
use crate::entry::{printable, valid_name};
use crate::infer::gather::{MAX_ENTRIES, SourceLook, gather, judge_root};
use crate::infer::{DEPTH, Failure, Inferred, Options, Tree, infer};
use crate::listing::Exclude;
use crate::pattern::MAX_DEPTH;
use crate::pattern::load::{Format, load_text, to_json};
use crate::scan::{ScanEvent, Scanner, options_of, plain};
use crate::stores::Stores;
use crate::walk::WalkOptions;

/// Print the tightest readable pattern that directories have in common.
///
/// It matches every DIR and no --not DIR, or there is none and the reason is said. Names that differ become globs, parts
/// that differ in step captures, what only some have optional; behind each clause stands what was seen. Keep it in a
/// file, and change what you know better.
///
/// Exit codes: 0 done; 1 no pattern matches all examples and no counter-example; 2 a DIR is none; 3 done, but part of a
/// directory could not be read.
#[derive(Debug, clap::Args)]
#[command(override_usage = "veinfs infer [OPTIONS] DIR... [--not DIR...] [--check SOURCE...]")]
pub(crate) struct InferArgs {
    /// Example directories; the more unlike, the better
    #[arg(value_name = "DIR", required = true)]
    examples: Vec<OsString>,
    /// Directories that the pattern must not match
    #[arg(long, value_name = "DIR", num_args = 1..)]
    not: Vec<OsString>,
    /// Say on stderr what else in these trees it would match
    #[arg(long, value_name = "SOURCE", num_args = 1..)]
    check: Vec<OsString>,
    /// The pattern's name [default: from the directories' names]
    #[arg(long)]
    name: Option<String>,
    /// Describe N levels below the examples
    #[arg(long, value_name = "N", default_value_t = DEPTH as u16, value_parser = clap::value_parser!(u16).range(1..=MAX_DEPTH as i64 - 1))]
    depth: u16,
    /// Leave out names that match GLOB, or paths below the directory if it has a `/`
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    #[command(flatten)]
    stores: StoreArgs,
    /// How the pattern is written
    #[arg(long, value_enum, default_value = "yaml")]
    format: Output,
}

/// How a pattern is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// With comments on what was seen
    Yaml,
    /// Without comments
    Json,
}

/// Other matches that `--check` names.
const NAMED: usize = 10;
/// How deep counter-examples are compared.
const COMPARED_DEPTH: usize = MAX_DEPTH;

pub(crate) fn run(args: &InferArgs) -> anyhow::Result<u8> {
    if let Some(name) = args.name.as_deref().filter(|name| !valid_name(name.as_bytes()) || name.starts_with(".veinfs"))
    {
        return Err(
            ConfigError::Usage(format!("--name {name}: it becomes a folder's name, and this can be none")).into()
        );
    }
    let walk =
        WalkOptions { exclude: Exclude::new(&args.exclude).map_err(ConfigError::Exclude)?, ..WalkOptions::default() };
    let stores = args.stores.stores(&walk);
    let (examples, counters) = (find_sources(&args.examples, &stores)?, find_not(&args.not, &stores)?);
    let everything = args
        .check
        .iter()
        .map(|source| find_sources(std::slice::from_ref(source), &stores))
        .collect::<Result<Vec<_>, _>>()?;
    let sources = [&examples[..], &counters[..]].concat();
    let options = options_of(&sources, &walk);
    let depth = usize::from(args.depth);
    let Some((trees, partial)) = read(args, &sources, &options, depth) else { return Ok(FAILED) };
    let mut trees = trees;
    let counter_trees = trees.split_off(examples.len());
    let wanted = Options { name: args.name.clone(), depth };
    let inferred = match infer(&trees, &counter_trees, &wanted)
        .and_then(|inferred| prove(&inferred, &sources, &options, examples.len(), &trees).map(|()| inferred))
    {
        Ok(inferred) => inferred,
        Err(failure) => {
            out::error(&failure.to_string());
            return Ok(FAILED);
        }
    };
    let text = match args.format {
        Output::Yaml => inferred.yaml(),
        Output::Json => serde_json::to_string_pretty(&to_json(&inferred.pattern))? + "\n",
    };
    reads_back(&inferred, &text, args.format)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    let checked = if everything.is_empty() { true } else { check(&inferred, everything.concat(), &examples, &walk)? };
    Ok(if partial || !checked { PARTIAL } else { DONE })
}

fn find_not(arguments: &[OsString], stores: &Stores) -> Result<Vec<NamedSource>, ConfigError> {
    if arguments.is_empty() { Ok(Vec::new()) } else { find_sources(arguments, stores) }
}

/// The trees of all sources, and whether part of them could not be read; `None` if that is a root, which is said.
fn read(args: &InferArgs, sources: &[NamedSource], options: &[WalkOptions], depth: usize) -> Option<(Vec<Tree>, bool)> {
    let levels = if args.not.is_empty() { depth } else { COMPARED_DEPTH };
    let gathered = match gather(sources, options, levels, MAX_ENTRIES) {
        Ok(gathered) => gathered,
        Err((at, error)) => {
            out::error(&format!("cannot read {}: {}", sources[at].root.display(), plain(&error)));
            return None;
        }
    };
    for unread in &gathered.unread {
        let path = sources[unread.source].path_of(&unread.path);
        out::error(&format!("cannot read {}: {}", printable(&path), plain(&unread.error)));
    }
    if let Some(level) = gathered.cut_at.filter(|level| *level < depth) {
        out::error(&format!("the directories are large: nothing deeper than {level} levels was looked at"));
    }
    let partial = !gathered.unread.is_empty();
    let labels = args.examples.iter().chain(&args.not).map(|given| {
        let given = given.to_string_lossy();
        if given.len() > 1 { given.trim_end_matches('/').to_owned() } else { given.into_owned() }
    });
    let tree = |((label, dir), source): ((String, _), &NamedSource)| Tree {
        label,
        dir,
        look: Box::new(SourceLook(Arc::clone(&source.source))),
    };
    Some((labels.zip(gathered.dirs).zip(sources).map(tree).collect(), partial))
}

/// Holds the pattern against the directories as they are now, links and all.
fn prove(
    inferred: &Inferred,
    sources: &[NamedSource],
    options: &[WalkOptions],
    examples: usize,
    trees: &[Tree],
) -> Result<(), Failure> {
    let fail = |at: usize, reason: String| {
        let example = trees.get(at).map_or_else(|| sources[at].root.display().to_string(), |tree| tree.label.clone());
        Failure::Example { example, reason }
    };
    let automaton = compile_all(std::slice::from_ref(&inferred.pattern), None).map_err(|e| fail(0, e.to_string()))?;
    for (at, (source, options)) in sources.iter().zip(options).enumerate() {
        let verdict = judge_root(&automaton, source, options).map_err(|error| fail(at, plain(&error)))?;
        if verdict.accepted.is_empty() == (at < examples) || (at >= examples && !verdict.undecided.is_empty()) {
            return Err(fail(
                at,
                "it has changed, or part of it cannot be read, so that nothing is certain; try again".into(),
            ));
        }
    }
    Ok(())
}

/// A pattern that was printed is one that can be loaded; anything else is our mistake.
fn reads_back(inferred: &Inferred, text: &str, format: Output) -> anyhow::Result<()> {
    let format = if format == Output::Yaml { Format::Yaml } else { Format::Json };
    let read = load_text(text.as_bytes(), format, &inferred.pattern.origin, &inferred.pattern.name);
    match read.as_deref() {
        Ok([read]) if *read == inferred.pattern => Ok(()),
        Ok(_) => anyhow::bail!("the pattern does not read back as it was; please report this"),
        Err(errors) => Err(ConfigError::Patterns(errors.to_vec()).into()),
    }
}

/// Says what else is matched; false if part could not be read.
fn check(
    inferred: &Inferred,
    sources: Vec<NamedSource>,
    examples: &[NamedSource],
    walk: &WalkOptions,
) -> anyhow::Result<bool> {
    let automaton = Arc::new(compile_all(std::slice::from_ref(&inferred.pattern), None)?);
    let scanner = Scanner::new(Arc::clone(&automaton), sources.clone(), walk);
    let (sender, receiver) = channel();
    let scanning = scanner.spawn(move |event| {
        // The receiver outlives the scan.
        let _ = sender.send(event);
    });
    let known: BTreeSet<&PathBuf> = examples.iter().map(|source| &source.root).collect();
    let (mut others, mut first, mut seen, mut complete) = (0u64, BTreeSet::new(), 0usize, true);
    for event in receiver {
        match event {
            ScanEvent::Match { source, found } => {
                let path = found.path.below(&sources[source].root);
                if known.contains(&path) {
                    seen += 1;
                    continue;
                }
                others += 1;
                first.insert(path);
                if first.len() > NAMED {
                    first.pop_last();
                }
            }
            ScanEvent::Trouble { source, trouble } => {
                complete = false;
                out::error(&trouble.describe(&sources[source], &automaton));
            }
            ScanEvent::SourceFailed { source, error } => {
                complete = false;
                out::error(&format!("source {}: {}", sources[source].root.display(), plain(&error)));
            }
            ScanEvent::SourceDone { .. } => {}
        }
    }
    scanning.join();
    let roots: Vec<String> = sources.iter().map(|source| source.root.display().to_string()).collect();
    let among = if seen > 0 { format!(", {seen} of the examples aside") } else { String::new() };
    let roots = roots.join(", ");
    out::error(&match others {
        0 => format!("it matches nothing else in {roots}{among}"),
        1 => format!("it also matches 1 directory in {roots}{among}:"),
        others => format!(
            "it also matches {others} directories in {roots}{among}{}:",
            if others > NAMED as u64 { "; the first" } else { "" }
        ),
    });
    first.iter().for_each(|path| out::line(&format!("  {}", path.display())));
    Ok(complete)
}
