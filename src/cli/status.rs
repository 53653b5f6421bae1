//! `veinfs status`: what mounts there are and how they are doing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::{DONE, FAILED, out};
use crate::mounts::{MountState, find, state, veinfs_mounts};

/// Say what mounts there are, what they show and how the scan is going.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Only the mount here [default: all]
    mountpoint: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// What a live mount says of itself.
pub(crate) fn read(mountpoint: &Path) -> anyhow::Result<Value> {
    let path = mountpoint.join(".veinfs/status.json");
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<u8> {
    let mut stdout = io::stdout().lock();
    let mountpoints: Vec<PathBuf> = match &args.mountpoint {
        Some(mountpoint) => match find(mountpoint)? {
            Some(entry) if entry.is_veinfs() => vec![entry.mountpoint],
            _ => {
                out::error(&format!("{}: no veinfs mount is here; `veinfs status` lists all", mountpoint.display()));
                return Ok(FAILED);
            }
        },
        None => veinfs_mounts()?.into_iter().map(|entry| entry.mountpoint).collect(),
    };
    if mountpoints.is_empty() && !args.json {
        writeln!(stdout, "no veinfs mounts")?;
    }
    let mut code = DONE;
    for mountpoint in mountpoints {
        let trouble = match state(&mountpoint)? {
            MountState::Live => None,
            MountState::Dead => Some("dead"),
            MountState::Stuck => Some("stuck"),
            MountState::NotMounted => continue,
        };
        let status = match trouble {
            None => read(&mountpoint),
            Some(trouble) => {
                code = FAILED;
                Ok(json!({"mountpoint": mountpoint.display().to_string(), "state": trouble}))
            }
        };
        match status {
            Ok(status) if args.json => writeln!(stdout, "{status}")?,
            Ok(status) => print(&mut stdout, &mountpoint, &status)?,
            Err(error) => {
                // Another user's mount, say.
                out::error(&format!("{error:#}"));
                code = FAILED;
            }
        }
    }
    Ok(code)
}

fn print(to: &mut dyn Write, mountpoint: &Path, status: &Value) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let shown = out::for_terminal(mountpoint.as_os_str().as_bytes()).into_owned();
    let number = |key: &str| status[key].as_u64().unwrap_or(0);
    match status["state"].as_str() {
        Some("dead") => return writeln!(to, "{shown}: dead; `veinfs unmount {shown}` clears it"),
        Some("stuck") => return writeln!(to, "{shown}: does not answer"),
        Some(state) => {
            write!(to, "{shown}: {state}, {} matches, {} errors; ", number("matches"), number("errors"))?;
            let sources = status["sources"].as_array().into_iter().flatten();
            let known: u64 = sources.filter_map(|source| source["directories"].as_u64()).sum();
            write!(to, "{known} directories known, {} read", number("directories"))?;
            match status["scan_seconds"].as_f64() {
                Some(took) if state == "complete" => writeln!(to, ", complete after {took:.1} s")?,
                _ => writeln!(to, " so far")?,
            }
        }
        None => writeln!(to, "{shown}")?,
    }
    for pattern in status["patterns"].as_array().into_iter().flatten() {
        let name = pattern["name"].as_str().unwrap_or_default();
        writeln!(to, "  pattern {}: {} matches", out::for_terminal(name.as_bytes()), pattern["matches"])?;
    }
    for source in status["sources"].as_array().into_iter().flatten() {
        let text = |key: &str| out::for_terminal(source[key].as_str().unwrap_or_default().as_bytes()).into_owned();
        write!(to, "  source {}: {}, {}", text("name"), text("path"), text("state"))?;
        if let Some(error) = source["error"].as_str() {
            write!(to, ": {}", out::for_terminal(error.as_bytes()))?;
        }
        if let Some(at) = source["reconciled"].as_f64() {
            write!(to, ", compared {}", ago(at))?;
        }
        let watch = &source["watch"];
        if let Some(mode) = watch["mode"].as_str() {
            write!(to, "; watched by {mode}")?;
            if let Some(reason) = watch["reason"].as_str() {
                write!(to, " ({})", out::for_terminal(reason.as_bytes()))?;
            }
            match watch["refused"].as_u64() {
                Some(refused) if refused > 0 && mode != "polling" => write!(to, ", but for {refused} directories")?,
                _ => {}
            }
        }
        writeln!(to)?;
        if source["listing"].is_object() {
            let listing = &source["listing"];
            let number = |value: &Value| value.as_u64().unwrap_or(0);
            let requests = &listing["requests"];
            write!(
                to,
                "    {} objects; requests so far: {} LIST",
                number(&listing["objects"]),
                number(&requests["list"])
            )?;
            write!(to, ", {} GET", number(&requests["get"]))?;
            match (number(&requests["failed"]), number(&listing["left_out"])) {
                (0, 0) => writeln!(to)?,
                (failed, 0) => writeln!(to, ", {failed} of which failed")?,
                (failed, left) => writeln!(to, ", {failed} of which failed; {left} keys cannot be shown")?,
            }
        }
    }
    match (status["index"]["path"].as_str(), status["index"]["error"].as_str()) {
        (None, _) => writeln!(to, "  index: none")?,
        (Some(path), Some(error)) => {
            let text = |text: &str| out::for_terminal(text.as_bytes()).into_owned();
            writeln!(to, "  index: {}: {}", text(path), text(error))?;
        }
        (Some(path), None) => {
            write!(to, "  index: {}", out::for_terminal(path.as_bytes()))?;
            match status["index"]["committed"].as_f64() {
                Some(at) => writeln!(to, ", written {}", ago(at))?,
                None => writeln!(to)?,
            }
        }
    }
    let reads = status["reads"]["mode"].as_str().unwrap_or("unknown");
    writeln!(to, "  reads: {reads}; daemon: process {}", status["pid"])
}

/// How long ago a time is, in seconds since the epoch.
fn ago(at: f64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    let seconds = (now - at).max(0.0);
    let (number, unit) = match seconds {
        ..1.0 => return "just now".to_owned(),
        ..120.0 => (seconds, "seconds"),
        ..7200.0 => (seconds / 60.0, "minutes"),
        ..172_800.0 => (seconds / 3600.0, "hours"),
        _ => (seconds / 86_400.0, "days"),
    };
    let whole = number.floor();
    let unit = if whole == 1.0 { &unit[..unit.len() - 1] } else { unit };
    format!("{whole} {unit} ago")
}
