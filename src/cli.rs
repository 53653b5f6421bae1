//! The command line: clap arguments → options, and all printing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;
use crate::listing::Exclude;
use crate::stores::Stores;
use crate::walk::WalkOptions;

mod announce;
mod assess;
mod check;
mod doctor;
mod explain;
mod guard;
mod index;
mod infer;
mod mount;
mod out;
mod pages;
mod patterns;
mod refresh;
mod scan;
mod shuffle;
mod standing;
mod status;
mod unmount;

/// Done.
pub const DONE: u8 = 0;
/// Failed, or nothing matched where that is the question.
pub const FAILED: u8 = 1;
/// The command line or a pattern is wrong.
pub const USAGE: u8 = 2;
/// Done, but part of the sources could not be read.
pub const PARTIAL: u8 = 3;

/// Find directory structures by patterns and mount them as folders.
#[derive(Debug, Parser)]
#[command(name = "veinfs", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(Box<mount::MountArgs>),
    #[command(alias = "umount")]
    Unmount(unmount::UnmountArgs),
    Scan(scan::ScanArgs),
    Assess(assess::AssessArgs),
    Shuffle(Box<shuffle::ShuffleArgs>),
    Explain(Box<explain::ExplainArgs>),
    Check(check::CheckArgs),
    Infer(infer::InferArgs),
    Patterns(patterns::PatternsArgs),
    Status(status::StatusArgs),
    Refresh(refresh::RefreshArgs),
    Index(index::IndexArgs),
    Doctor(doctor::DoctorArgs),
    Completions(pages::CompletionsArgs),
    #[command(hide = true)]
    Man(pages::ManArgs),
    #[command(hide = true)]
    Announce(announce::AnnounceArgs),
    #[command(hide = true)]
    Guard(guard::GuardArgs),
}

/// Which patterns.
#[derive(Debug, Args)]
pub(crate) struct PatternArgs {
    /// Pattern file (JSON, YAML, TOML) or the name of a built-in pattern; repeat for several
    #[arg(short = 'p', long = "pattern", value_name = "PATTERN", required = true)]
    patterns: Vec<OsString>,
}

/// How sources are walked.
#[derive(Debug, Args)]
pub(crate) struct WalkArgs {
    /// Leave out names that match GLOB, or paths below the source if it has a `/`
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// See nothing deeper than N levels below the source
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_depth: Option<u32>,
    /// Do not enter other file systems than the source's
    #[arg(long, short = 'x')]
    one_file_system: bool,
    /// Walk into directories behind symbolic links
    #[arg(long, short = 'L')]
    follow: bool,
    /// Threads that walk [default: the number of cores; more for network file systems]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(flatten)]
    stores: StoreArgs,
}

/// How sources in object stores are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Object stores")]
pub(crate) struct StoreArgs {
    /// An option of sources in object stores, such as region=eu-west-1 or endpoint=http://HOST:PORT; repeat for several
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = pair)]
    pairs: Vec<(String, String)>,
    /// Memory for what is read ahead [default: a quarter of what there is, 1G at most]
    #[arg(long, value_name = "SIZE", value_parser = crate::stores::size)]
    memory: Option<u64>,
    /// Keep what was read in DIR, also for later mounts
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Keep so much at most [default: 10G]
    #[arg(long, value_name = "SIZE", value_parser = crate::stores::size, requires = "cache")]
    cache_size: Option<u64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write KEY=VALUE".to_owned())
}

impl StoreArgs {
    fn stores(&self, walk: &WalkOptions) -> Stores {
        let cache = self.cache.clone().map(|dir| (dir, self.cache_size));
        Stores::new(self.pairs.clone(), self.memory, cache, walk)
    }
}

impl WalkArgs {
    /// What is said of object stores.
    fn stores(&self, walk: &WalkOptions) -> Stores {
        self.stores.stores(walk)
    }

    /// Resolves the options; directories that are not entered are added for each source.
    fn options(&self) -> Result<WalkOptions, ConfigError> {
        let default = WalkOptions::default();
        Ok(WalkOptions {
            threads: self.threads.map_or(default.threads, usize::from),
            max_depth: self.max_depth,
            one_file_system: self.one_file_system,
            follow: self.follow,
            exclude: Exclude::new(&self.exclude).map_err(ConfigError::Exclude)?,
            not_entered: default.not_entered,
            shut: default.shut,
        })
    }
}

/// Parses the command line, runs the command and says how the process is to end.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let words: Vec<OsString> = arguments.collect();
    if standing::is_helper(&program) {
        return ExitCode::from(match standing::as_helper(&words) {
            Ok(words) => standing::helper_code(run(words)),
            Err(code) => code,
        });
    }
    ExitCode::from(run(words))
}

fn run(words: Vec<OsString>) -> u8 {
    let words = match standing::expand(words) {
        Ok(words) => words,
        Err(error) => {
            out::error(&error.to_string());
            return USAGE;
        }
    };
    let cli = Cli::parse_from(std::iter::once(OsString::from("veinfs")).chain(words.iter().cloned()));
    let result = match cli.command {
        Command::Mount(args) => mount::run(&args, &words),
        Command::Unmount(args) => unmount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Refresh(args) => refresh::run(&args),
        Command::Index(args) => index::run(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Assess(args) => assess::run(&args),
        Command::Shuffle(args) => shuffle::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Infer(args) => infer::run(&args),
        Command::Patterns(args) => patterns::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
        Command::Announce(args) => announce::run(args),
        Command::Guard(args) => guard::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) if out::is_broken_pipe(&error) => DONE,
        Err(error) => {
            out::error(&format!("{error:#}"));
            if error.is::<ConfigError>() { USAGE } else { FAILED }
        }
    }
}

/// Splits `SOURCE... LAST` as commands with a destination take it.
fn split_last(mut paths: Vec<OsString>) -> Option<(Vec<OsString>, PathBuf)> {
    let last = paths.pop()?;
    (!paths.is_empty()).then(|| (paths, PathBuf::from(last)))
}
