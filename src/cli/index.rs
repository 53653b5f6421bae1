//! `veinfs index`: what indexes there are, whether they are sound, and their end.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{DONE, FAILED, out};
use crate::config::ConfigError;
use crate::entry::printable;
use crate::index::survey::{self, RemoveError, Summary};
use crate::index::{IndexError, cache_directory};
use crate::mounts::{MountState, state, veinfs_mounts};

/// Show, verify or drop indexes: what is remembered of sources, in the cache directory
#[derive(Debug, clap::Args)]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, clap::Subcommand)]
enum IndexCommand {
    /// Say what indexes there are and what is in them
    Show(ShowArgs),
    /// Read indexes to the end and say whether they are sound; changes nothing
    Verify(VerifyArgs),
    /// Remove indexes; the next mount begins anew
    Drop(DropArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// An index, or a directory of some [default: the cache directory]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// An index, or a directory of some [default: the cache directory]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct DropArgs {
    /// An index
    #[arg(value_name = "PATH", required_unless_present = "all", conflicts_with = "all")]
    paths: Vec<PathBuf>,
    /// All in the cache directory, those that were set aside as damaged too
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &IndexArgs) -> anyhow::Result<u8> {
    match &args.command {
        IndexCommand::Show(args) => show(args),
        IndexCommand::Verify(args) => verify(args),
        IndexCommand::Drop(args) => drop_indexes(args),
    }
}

fn cache() -> anyhow::Result<PathBuf> {
    match cache_directory() {
        Some(directory) => Ok(directory),
        None => bail!(ConfigError::Usage("no cache directory: set HOME or XDG_CACHE_HOME, or give a PATH".into())),
    }
}

/// The indexes that the arguments name.
fn named(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let default = if paths.is_empty() { vec![cache()?] } else { Vec::new() };
    let mut indexes = Vec::new();
    for path in paths.iter().chain(&default) {
        if path.is_dir() || !default.is_empty() {
            let listed = survey::list(path);
            indexes.extend(listed.map_err(|error| IndexError::Io { path: path.clone(), error })?);
        } else {
            indexes.push(path.clone());
        }
    }
    Ok(indexes)
}

fn show(args: &ShowArgs) -> anyhow::Result<u8> {
    let mut stdout = io::stdout().lock();
    let indexes = named(&args.paths)?;
    if indexes.is_empty() && !args.json {
        writeln!(stdout, "no indexes")?;
    }
    let mut code = DONE;
    for path in indexes {
        match survey::describe(&path) {
            Ok(summary) if args.json => writeln!(stdout, "{}", object(&summary))?,
            Ok(summary) => print(&mut stdout, &summary)?,
            Err(error) => {
                out::error(&error.to_string());
                code = FAILED;
            }
        }
    }
    Ok(code)
}

fn print(to: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let meta = &summary.meta;
    let path = out::for_terminal(summary.path.as_os_str().as_bytes());
    writeln!(to, "{path}: {} directories, {} patterns, {}", meta.dirs, meta.patterns, size(summary.disk_bytes))?;
    for (name, root) in &summary.identity.sources {
        writeln!(to, "  source {}: {}", out::for_terminal(name), out::for_terminal(root))?;
    }
    if !summary.identity.options.is_empty() {
        writeln!(to, "  options: {}", out::for_terminal(summary.identity.options.as_bytes()))?;
    }
    match meta.reconciled {
        Some(time) => writeln!(to, "  agreed with its sources {}", ago(time))?,
        None => writeln!(to, "  has never agreed with its sources")?,
    }
    if let Some(each) = bytes_per_directory(summary) {
        writeln!(to, "  {each:.1} bytes a directory, packed; format {}", summary.version)?;
    }
    match summary.writer {
        Some(holder) => writeln!(to, "  in use by {}", user(holder)),
        None => writeln!(to, "  not in use"),
    }
}

/// An index as an object of NDJSON; times are seconds since the epoch.
fn object(summary: &Summary) -> Value {
    let seconds = |time: Option<SystemTime>| {
        time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).map(|since| since.as_secs_f64())
    };
    let sources = summary.identity.sources.iter().map(|(name, root)| {
        let mut source = Map::new();
        text(&mut source, "name", name);
        text(&mut source, "path", root);
        Value::Object(source)
    });
    let sources: Vec<Value> = sources.collect();
    let mut object = Map::new();
    text(&mut object, "path", summary.path.as_os_str().as_bytes());
    let rest = json!({
        "version": summary.version,
        "sources": sources,
        "options": summary.identity.options,
        "directories": summary.meta.dirs,
        "patterns": summary.meta.patterns,
        "disk_bytes": summary.disk_bytes,
        "directory_bytes": summary.meta.dir_bytes,
        "match_bytes": summary.meta.match_bytes,
        "bytes_per_directory": bytes_per_directory(summary),
        "reconciled": seconds(summary.meta.reconciled),
        "written": seconds(summary.meta.written),
        "in_use": summary.writer.is_some(),
        "pid": summary.writer.flatten(),
    });
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    Value::Object(object)
}

/// Text, and besides it the exact bytes in base64 where they are no UTF-8.
fn text(object: &mut Map<String, Value>, key: &str, value: &[u8]) {
    object.insert(key.into(), json!(printable(value)));
    if std::str::from_utf8(value).is_err() {
        object.insert(format!("{key}_bytes"), json!(STANDARD.encode(value)));
    }
}

fn bytes_per_directory(summary: &Summary) -> Option<f64> {
    (summary.meta.dirs > 0).then(|| summary.meta.dir_bytes as f64 / summary.meta.dirs as f64)
}

fn verify(args: &VerifyArgs) -> anyhow::Result<u8> {
    let mut stdout = io::stdout().lock();
    let indexes = named(&args.paths)?;
    if indexes.is_empty() {
        writeln!(stdout, "no indexes")?;
    }
    let mut code = DONE;
    for path in indexes {
        match survey::verify(&path) {
            Ok(Summary { meta, .. }) => {
                let shown = out::for_terminal(path.as_os_str().as_bytes());
                writeln!(stdout, "{shown}: ok, {} directories, {} patterns", meta.dirs, meta.patterns)?;
            }
            Err(IndexError::Damaged { reason, .. }) => {
                let shown = out::for_terminal(path.as_os_str().as_bytes());
                writeln!(stdout, "{shown}: damaged: {reason}")?;
                code = FAILED;
            }
            Err(error) => {
                out::error(&error.to_string());
                code = FAILED;
            }
        }
    }
    Ok(code)
}

fn drop_indexes(args: &DropArgs) -> anyhow::Result<u8> {
    let paths = if args.all {
        let cache = cache()?;
        let failed = |error| IndexError::Io { path: cache.clone(), error };
        let mut paths = survey::list(&cache).map_err(failed)?;
        paths.extend(survey::list_set_aside(&cache).map_err(failed)?);
        paths
    } else {
        args.paths.clone()
    };
    let mut code = DONE;
    for path in paths {
        let Err(error) = survey::remove(&path) else { continue };
        out::error(&match &error {
            RemoveError::InUse { holder, .. } => format!("{error}{}", cure(*holder)),
            _ => error.to_string(),
        });
        code = FAILED;
    }
    Ok(code)
}

/// Who writes an index, with the mount that it serves.
fn user(holder: Option<u32>) -> String {
    let Some(pid) = holder else { return "another process".to_owned() };
    match mount_of(pid) {
        Some(mountpoint) => {
            format!("process {pid}, the mount at {}", out::for_terminal(mountpoint.as_os_str().as_bytes()))
        }
        None => format!("process {pid}"),
    }
}

fn cure(holder: Option<u32>) -> String {
    match holder.and_then(mount_of) {
        Some(mountpoint) => format!("; `veinfs unmount {}` ends that", mountpoint.display()),
        None => "; `veinfs status` lists the mounts".to_owned(),
    }
}

/// The mount that a process serves, if it says so.
fn mount_of(pid: u32) -> Option<PathBuf> {
    let serves = |mountpoint: &Path| {
        matches!(state(mountpoint), Ok(MountState::Live))
            && super::status::read(mountpoint).is_ok_and(|status| status["pid"].as_u64() == Some(pid.into()))
    };
    veinfs_mounts().ok()?.into_iter().map(|entry| entry.mountpoint).find(|mountpoint| serves(mountpoint))
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    let mut units = ["bytes", "KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if number < 1024.0 {
            break;
        }
        number /= 1024.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{number:.1} {unit}") }
}

/// How long ago a time is, for people.
fn ago(time: SystemTime) -> String {
    let Ok(since) = SystemTime::now().duration_since(time) else { return "in the future, by the clock".to_owned() };
    let steps = [("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)];
    let step = steps.into_iter().find(|(_, seconds)| since >= Duration::from_secs(*seconds));
    match step {
        Some((unit, seconds)) => {
            let count = since.as_secs() / seconds;
            format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
        }
        None => "just now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages() {
        assert_eq!(
            [0, 1023, 1024, 1_572_864, 5 << 40].map(size),
            ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "5120.0 GiB"]
        );
        let before = |seconds| ago(SystemTime::now() - Duration::from_secs(seconds));
        assert_eq!(
            [0, 1, 59, 60, 7300, 200_000].map(before),
            ["just now", "1 second ago", "59 seconds ago", "1 minute ago", "2 hours ago", "2 days ago"]
        );
        assert_eq!(ago(SystemTime::now() + Duration::from_secs(99)), "in the future, by the clock");
    }
}
