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
mod explain;
mod guard;
mod index;
mod infer;
mod mount;
mod out;
mod patterns;
mod refresh;
mod scan;
mod shuffle;
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
    /// Show the directories that match as folders below MOUNTPOINT
    Mount(Box<mount::MountArgs>),
    /// Take a mount off, also one whose daemon has died
    #[command(alias = "umount")]
    Unmount(unmount::UnmountArgs),
    /// Print the directories that match, as they are found
    Scan(scan::ScanArgs),
    /// Say which matches files belong to
    Assess(assess::AssessArgs),
    /// Copy out what matches, as a mount would show it
    Shuffle(Box<shuffle::ShuffleArgs>),
    /// Say why a directory matches or does not, and what comes nearest
    Explain(Box<explain::ExplainArgs>),
    /// Look for mistakes in patterns
    Check(check::CheckArgs),
    /// Print the pattern that example directories have in common
    Infer(infer::InferArgs),
    /// List the built-in patterns, search them, or print one
    Patterns(patterns::PatternsArgs),
    /// Say what mounts there are and how they are doing
    Status(status::StatusArgs),
    /// Have a mount look at its sources now
    Refresh(refresh::RefreshArgs),
    /// Show, verify or drop indexes
    Index(index::IndexArgs),
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
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let cli = Cli::parse();
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
        Command::Announce(args) => announce::run(args),
        Command::Guard(args) => guard::run(args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if out::is_broken_pipe(&error) => ExitCode::from(DONE),
        Err(error) => {
            out::error(&format!("{error:#}"));
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { FAILED })
        }
    }
}

/// Splits `SOURCE... LAST` as commands with a destination take it.
fn split_last(mut paths: Vec<OsString>) -> Option<(Vec<OsString>, PathBuf)> {
    let last = paths.pop()?;
    (!paths.is_empty()).then(|| (paths, PathBuf::from(last)))
}
