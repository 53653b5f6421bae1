//! `veinfs mount`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use sd_notify::NotifyState;
use serde_json::{Map, Value, json};

use super::{DONE, FAILED, USAGE, WalkArgs, out, split_last};
use crate::config::{ConfigError, NamedSource, compile_all, find_sources_or_away, load_patterns};
use crate::daemon::{DaemonChannel, open_log, spawn_background};
use crate::expand::Symlinks;
use crate::fs::mount::{Keeping, MountOptions, Mounted, mount};
use crate::fs::{FsOptions, OpenMode, ViewMode};
use crate::live::Live;
use crate::mounts::prepare_mountpoint;
use crate::pattern::{Pattern, nearest};
use crate::scan::{leave_out, options_of};
use crate::signals::{self, ShutdownReason, Waiter};
use crate::update::KeepOptions;
use crate::update::store::{Store, fingerprints, identity};
use crate::walk::WalkOptions;
use crate::watch::Choice;

/// Show the directories that match as folders below MOUNTPOINT.
#[derive(Debug, clap::Args)]
#[command(override_usage = "veinfs mount [OPTIONS] SOURCE... MOUNTPOINT -p PATTERN...")]
pub(crate) struct MountArgs {
    /// Directories to search, each PATH or NAME=PATH, and last the directory to mount at
    #[arg(value_name = "SOURCE|MOUNTPOINT", required_unless_present = "config", num_args = 1..)]
    paths: Vec<OsString>,
    /// Pattern file (JSON, YAML, TOML) or the name of a built-in pattern; repeat for several
    #[arg(short = 'p', long = "pattern", value_name = "PATTERN", required_unless_present = "config")]
    patterns: Vec<OsString>,
    /// Mount what a file says: a path, or the name of one in ~/.config/veinfs/mounts.d or /etc/veinfs/mounts.d
    #[arg(long, value_name = "NAME|FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    walk: WalkArgs,
    /// What is shown of a match
    #[arg(long, value_enum, default_value_t)]
    view: ViewMode,
    /// How symbolic links inside matches are shown
    #[arg(long, value_enum, default_value_t)]
    symlinks: Symlinks,
    /// Where matches appear below their pattern's folder, such as '<.parent>/<.name>'
    #[arg(long, value_name = "TEMPLATE")]
    layout: Option<String>,
    /// Return only when the sources are read, or compared with the index, not after 2 seconds at the latest
    #[arg(long)]
    wait: bool,
    /// Stay in the foreground, until Ctrl-C
    #[arg(short, long)]
    foreground: bool,
    /// How files are opened
    #[arg(long, value_enum, default_value_t)]
    open: OpenMode,
    /// How long the kernel may keep attributes of sources before it asks again, in seconds [default: as long as changes
    /// are told of, and where nobody tells of them --poll at most]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    attr_timeout: Option<Duration>,
    /// Where what is known of the sources is kept [default: a file of its own in ~/.cache/veinfs]
    #[arg(long, value_name = "FILE", conflicts_with = "no_index")]
    index: Option<PathBuf>,
    /// Keep nothing: read the sources anew
    #[arg(long)]
    no_index: bool,
    /// How changes in sources are learnt of
    #[arg(long, value_enum, default_value_t)]
    watch: WatchMode,
    /// The same as --watch=off
    #[arg(long, conflicts_with = "watch")]
    no_watch: bool,
    /// How often to look for changes where nobody tells of them, such as 60s, 5m or 0 for never
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    poll: Duration,
    /// Threads that answer the kernel
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    fuse_threads: u16,
    /// Mount options as mount(8) has them: allow_other, noexec, nonempty, attr_timeout=SECONDS, fsname=NAME
    #[arg(short = 'o', long, value_name = "OPTION,...", value_delimiter = ',')]
    options: Vec<String>,
    /// Append the daemon's messages to FILE
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// How long `mount` waits for the first scan without `--wait`: a small tree is complete when it returns.
const GRACE: Duration = Duration::from_secs(2);

/// What `-o` can say; the second column tells of those that fstab holds for others and that change nothing here.
const OPTIONS: [(&str, bool); 25] = [
    ("allow_other", true),
    ("attr_timeout", true),
    ("exec", true),
    ("fsname", true),
    ("noexec", true),
    ("nonempty", true),
    ("defaults", false),
    ("ro", false),
    ("rw", false),
    ("auto", false),
    ("noauto", false),
    ("user", false),
    ("nouser", false),
    ("users", false),
    ("nofail", false),
    ("_netdev", false),
    ("nodev", false),
    ("nosuid", false),
    ("noatime", false),
    ("relatime", false),
    ("nodiratime", false),
    ("default_permissions", false),
    ("async", false),
    ("dev", false),
    ("suid", false),
];

/// How changes in sources are learnt of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WatchMode {
    #[default]
    Auto,
    Fanotify,
    Inotify,
    Poll,
    Off,
}

/// A time with a unit; a number alone counts seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a time, such as 60s, 5m, 1h or 500ms".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = match &text[end..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(wrong()),
    };
    let seconds = number * unit;
    if seconds > 31_536_000.0 { Err("give at most a year".to_owned()) } else { Ok(Duration::from_secs_f64(seconds)) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.trim_end_matches('s').parse().map_err(|_| "give seconds, such as 1 or 0.5".to_owned())?;
    if !(0.0..=31_536_000.0).contains(&seconds) {
        return Err("give seconds from 0 to 31536000".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Gives an enum the words that the command line has for it.
macro_rules! words {
    ($of:ty: $($value:ident $word:literal $help:literal,)*) => {
        impl clap::ValueEnum for $of {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(<$of>::$value),*]
            }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                Some(match self {
                    $(<$of>::$value => clap::builder::PossibleValue::new($word).help($help),)*
                })
            }
        }
    };
}

words! { ViewMode:
    Matched "matched" "What the pattern describes",
    All "all" "The whole directory",
    Link "link" "A symbolic link to the directory",
}
words! { Symlinks:
    Follow "follow" "As what they lead to; those that dangle or lead back above themselves as links",
    Keep "keep" "As links whose text leads to the same place (always so with allow_other)",
    Skip "skip" "Not at all",
}
words! { WatchMode:
    Auto "auto" "By fanotify where that is allowed, else by inotify, else by looking",
    Fanotify "fanotify" "By fanotify on whole file systems (root)",
    Inotify "inotify" "By inotify, one watch a directory",
    Poll "poll" "By looking now and then, see --poll",
    Off "off" "Not at all but by `veinfs refresh`",
}
words! { OpenMode:
    Auto "auto" "Large files passed through where kernel and privilege allow it, others cached",
    Cached "cached" "All through the page cache",
    Passthrough "passthrough" "All passed through where possible",
}

#[derive(Debug)]
struct KernelOptions {
    allow_other: bool,
    exec: bool,
    nonempty: bool,
    attr_timeout: Option<Duration>,
    source_name: Option<String>,
}

fn kernel_options(args: &MountArgs) -> Result<KernelOptions, ConfigError> {
    let mut options = KernelOptions {
        allow_other: false,
        exec: true,
        nonempty: false,
        attr_timeout: args.attr_timeout,
        source_name: None,
    };
    for option in args.options.iter().filter(|option| !option.is_empty() && !option.starts_with("x-")) {
        let (name, value) = option.split_once('=').map_or((option.as_str(), None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("allow_other", None) => options.allow_other = true,
            ("exec", None) => options.exec = true,
            ("noexec", None) => options.exec = false,
            ("nonempty", None) => options.nonempty = true,
            ("fsname", Some(value)) => options.source_name = Some(value.to_owned()),
            ("attr_timeout", Some(value)) => {
                let wrong = |why| ConfigError::Usage(format!("-o attr_timeout={value}: {why}"));
                options.attr_timeout = Some(seconds(value).map_err(wrong)?);
            }
            (name, None) if OPTIONS.iter().any(|(known, ours)| *known == name && !ours) => {}
            _ => {
                let near = nearest(name, OPTIONS.iter().map(|(known, _)| *known));
                let hint = near.map_or_else(
                    || {
                        let ours = OPTIONS.iter().filter(|(_, ours)| *ours).map(|(name, _)| *name);
                        format!("there are {}", ours.collect::<Vec<_>>().join(", "))
                    },
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(ConfigError::Usage(format!("-o {option}: no such option; {hint}")));
            }
        }
    }
    Ok(options)
}

pub(crate) fn run(args: &MountArgs, words: &[OsString]) -> anyhow::Result<u8> {
    let channel = DaemonChannel::from_env()?;
    if channel.is_none() && !args.foreground {
        return match spawn_background(words) {
            Ok(background) => {
                if background.details.get("complete") == Some(&json!(false)) {
                    out::error("mounted; the scan goes on, and matches appear as they are found (see `veinfs status`)");
                }
                Ok(DONE)
            }
            Err(error) => {
                out::error(&error.to_string());
                Ok(error.exit_code())
            }
        };
    }
    out::init_log();
    match (serve(args, channel.is_some()), channel) {
        (Err(error), Some(channel)) => {
            let code = if error.is::<ConfigError>() { USAGE } else { FAILED };
            channel.fail(&format!("{error:#}"), code);
            Ok(code)
        }
        (Err(error), None) => Err(error),
        (Ok(mounted), channel) => {
            // What an index knew is shown already.
            let grace = if mounted.live().is_restored() { Duration::ZERO } else { GRACE };
            if !mounted.wait_scanned((!args.wait).then_some(grace)) {
                let error = anyhow!("unmounted before the first scan was complete");
                let Some(channel) = channel else { return Err(error) };
                channel.fail(&error.to_string(), FAILED);
                return Ok(FAILED);
            }
            if let Some(channel) = channel {
                let log = args.log.as_deref().map(open_log).transpose()?;
                let live = mounted.live();
                let complete = live.wait_complete(Duration::ZERO) || live.is_restored();
                let details = Map::from_iter([("complete".to_owned(), json!(complete))]);
                if let Err(error) = channel.ready(details, log) {
                    // Whoever asked for the mount is gone: nobody would know of it.
                    mounted.end(&ShutdownReason::Signal(nix::sys::signal::Signal::SIGTERM));
                    return Err(error.into());
                }
            }
            tell_service(&mounted);
            match mounted.wait(&|| notify(&[NotifyState::Stopping])) {
                ShutdownReason::SessionFailed(error) => Err(anyhow!("the session ended: {error}")),
                ShutdownReason::Signal(_) | ShutdownReason::Unmounted => Ok(DONE),
            }
        }
    }
}

/// Tells a service manager that the mount is there, if one asks (sd_notify(3)).
fn tell_service(mounted: &Mounted) {
    let status = mounted.live().status(Value::Null);
    let state = status["state"].as_str().unwrap_or_default();
    let text = format!("{state}, {} matches, {} errors", status["matches"], status["errors"]);
    notify(&[NotifyState::Ready, NotifyState::Status(&text)]);
}

fn notify(states: &[NotifyState<'_>]) {
    // Without one there is nothing to be told.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager is not told");
    }
}

fn serve(args: &MountArgs, background: bool) -> anyhow::Result<Mounted> {
    let kernel = kernel_options(args)?;
    let (sources, mountpoint) = split_last(args.paths.clone())
        .ok_or_else(|| ConfigError::Usage("give at least one SOURCE and then the MOUNTPOINT".into()))?;
    let patterns = load_patterns(&args.patterns)?;
    let automaton = Arc::new(compile_all(&patterns, args.layout.as_deref())?);
    let walk = args.walk.options()?;
    let (sources, all_away) = find_sources_or_away(&sources, &args.walk.stores(&walk))?;
    if let Some(error) = all_away
        && !index_path(args, &sources, &walk).is_some_and(|path| path.metadata().is_ok_and(|meta| meta.len() > 0))
    {
        // Likely a mistake: nothing is known of them either.
        return Err(error.into());
    }
    if let Some(log) = &args.log {
        // Found out now, while there is somebody to tell.
        open_log(log)?;
    }
    let prepared = prepare_mountpoint(&mountpoint, kernel.nonempty)?;
    if let Some(hidden) = sources.iter().find(|source| source.root.starts_with(&prepared.path)) {
        // The mount would wait for itself.
        let text = format!(
            "the mount point {} would hide the source {}; take a directory that is not above it",
            prepared.path.display(),
            hidden.root.display()
        );
        return Err(ConfigError::Usage(text).into());
    }
    if prepared.cleared > 0 && !background {
        out::error(&format!("cleared a dead mount from {}", prepared.path.display()));
    }
    let mut options = options_of(&sources, &walk);
    leave_out(&sources, &mut options, &prepared.path);
    // Until here a signal ends the process, and nothing is left behind; from here on it unmounts. No thread that could
    // take it runs yet.
    signals::block().context("signals")?;
    let store = open_index(args, &sources, &walk, &patterns);
    let source_name =
        kernel.source_name.unwrap_or_else(|| source_name(sources.iter().map(|source| source.root.as_path())));
    let (live, inodes) = Live::new(prepared.path, automaton, patterns, sources, options, Arc::default());
    let mode = if args.no_watch { WatchMode::Off } else { args.watch };
    let poll = (mode != WatchMode::Off && !args.poll.is_zero()).then_some(args.poll);
    let fs = FsOptions {
        view: args.view,
        symlinks: args.symlinks,
        open: args.open,
        ttl: kernel.attr_timeout,
        poll,
        allow_other: kernel.allow_other,
        follow: args.walk.follow,
    };
    let options = MountOptions {
        fs,
        threads: usize::from(args.fuse_threads),
        exec: kernel.exec,
        source_name,
        // Not by its path: after an upgrade that may be another version.
        program: "/proc/self/exe".into(),
    };
    let watch = match mode {
        WatchMode::Auto => Some(Choice::Auto),
        WatchMode::Fanotify => Some(Choice::Fanotify),
        WatchMode::Inotify => Some(Choice::Inotify),
        WatchMode::Poll => Some(Choice::Poll),
        WatchMode::Off => None,
    };
    let keeping = Keeping { watch, keep: KeepOptions { poll }, store };
    Ok(mount(live, inodes, keeping, Waiter::new()?, &options)?)
}

/// Where the index of these sources is, if there is to be one.
fn index_path(args: &MountArgs, sources: &[NamedSource], walk: &WalkOptions) -> Option<PathBuf> {
    match &args.index {
        _ if args.no_index => None,
        // The daemon goes to the root directory.
        Some(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        None => Some(crate::index::cache_directory()?.join(identity(sources, walk).file_name())),
    }
}

/// The index of these sources; where there can be none the mount works all the same.
fn open_index(args: &MountArgs, sources: &[NamedSource], walk: &WalkOptions, patterns: &[Pattern]) -> Option<Store> {
    let path = index_path(args, sources, walk)?;
    if args.index.is_some() && crate::index::is_other_file(&path) {
        // One that is damaged in its first bytes looks so too; better that than to move somebody's file.
        let hint = "give the path of an index or a new one, or remove it";
        out::error(&format!("going on without an index: {}: another file is there; {hint}", path.display()));
        return None;
    }
    match Store::open(path, &identity(sources, walk), fingerprints(patterns, args.layout.as_deref())) {
        Ok((store, notice)) => {
            notice.iter().for_each(|notice| out::error(notice));
            Some(store)
        }
        Err(error) => {
            out::error(&format!("going on without an index: {error}"));
            None
        }
    }
}

/// What `mount` and `df` show: the sources, where their paths can stand among mount options.
fn source_name<'a>(roots: impl Iterator<Item = &'a Path>) -> String {
    let names: Vec<String> =
        roots.map(|root| String::from_utf8_lossy(root.as_os_str().as_bytes()).into_owned()).collect();
    let joined = names.join(":");
    let plain = joined.chars().all(|c| !c.is_control() && !matches!(c, ',' | '\\' | '\u{fffd}'));
    if plain && joined.len() < 1024 { joined } else { "veinfs".to_owned() }
}
