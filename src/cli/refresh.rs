//! `veinfs refresh`: has a mount compare what it shows with what is there.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;

use super::{DONE, FAILED, PARTIAL, out};
use crate::mounts::{MountState, MountsError, find, resolve, state};

/// Compare what a mount shows with what is there, and return when that is done.
#[derive(Debug, clap::Args)]
pub(crate) struct RefreshArgs {
    /// The mount
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "config")]
    mountpoint: Option<PathBuf>,
    /// Only what is here or below: a path in the mount, or in one of its sources
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// The mount of a file, as `veinfs mount --config` has it
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "mountpoint")]
    config: Option<PathBuf>,
}

/// How often the mount is asked whether it is done.
const PAUSE: Duration = Duration::from_millis(10);
/// The attribute that asks, see [`crate::fs`].
const ATTRIBUTE: &str = "user.veinfs.refresh";
/// The longest name of an attribute (`XATTR_NAME_MAX`, `linux/limits.h`).
const LONGEST: usize = 255;

pub(crate) fn run(args: &RefreshArgs) -> anyhow::Result<u8> {
    let given = match (&args.mountpoint, &args.config) {
        (Some(mountpoint), _) => mountpoint.clone(),
        (None, config) => {
            let standing = super::standing::read(config.as_deref().unwrap_or(Path::new("")))?;
            standing.mountpoint.ok_or_else(|| anyhow!("the file names no mountpoint"))?.into()
        }
    };
    let shown = given.display();
    let mountpoint = match find(&given)? {
        Some(entry) if entry.is_veinfs() => entry.mountpoint,
        _ => {
            out::error(&format!("{shown}: no veinfs mount is here; `veinfs status` lists all"));
            return Ok(FAILED);
        }
    };
    match state(&mountpoint)? {
        MountState::Live => {}
        MountState::Dead => return Err(anyhow!("{shown}: its daemon has died; `veinfs unmount {shown}` clears it")),
        MountState::Stuck => return Err(anyhow!("{shown}: does not answer")),
        MountState::NotMounted => return Err(anyhow!("{shown}: unmounted meanwhile")),
    }
    let status = super::status::read(&mountpoint)?;
    let (on, attribute) = question(&mountpoint, &status, args.path.as_deref())?;
    let mut ticket = [0u8; 32];
    let length = rustix::fs::getxattr(&on, &attribute, &mut ticket)
        .map_err(std::io::Error::from)
        .with_context(|| format!("{}: cannot be refreshed", on.display()))?;
    let ticket: u64 = std::str::from_utf8(&ticket[..length])?.parse()?;
    loop {
        let status = super::status::read(&mountpoint)?;
        let open = status["refreshing"].as_array();
        if open.is_none_or(|open| open.iter().all(|other| other.as_u64() != Some(ticket))) {
            let away = status["sources"].as_array().into_iter().flatten().filter(|source| source["state"] == "failed");
            let away: Vec<&Value> = away.collect();
            for source in &away {
                let text = |key: &str| source[key].as_str().unwrap_or_default();
                out::error(&format!("source {}: {}", text("path"), text("error")));
            }
            return Ok(if away.is_empty() { DONE } else { PARTIAL });
        }
        std::thread::sleep(PAUSE);
    }
}

/// The path without links, or of what is gone the last above it that is not: there it is found to be gone.
fn nearest(path: &Path) -> anyhow::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    loop {
        match resolve(&path) {
            Err(MountsError::Path { error, .. }) if error.kind() == std::io::ErrorKind::NotFound && path.pop() => {}
            other => return Ok(other?),
        }
    }
}

/// What to read of what, for the mount to begin.
fn question(mountpoint: &Path, status: &Value, path: Option<&Path>) -> anyhow::Result<(PathBuf, OsString)> {
    let Some(path) = path else { return Ok((mountpoint.to_path_buf(), ATTRIBUTE.into())) };
    let resolved = nearest(path)?;
    if resolved.starts_with(mountpoint) {
        return Ok((resolved, ATTRIBUTE.into()));
    }
    let sources = status["sources"].as_array().into_iter().flatten().enumerate();
    for (at, source) in sources {
        let Some(below) = source["path"].as_str().and_then(|root| resolved.strip_prefix(root).ok()) else { continue };
        let mut attribute = format!("{ATTRIBUTE}:{at}:").into_bytes();
        // Of a longer path one above it: then somewhat more is compared.
        let mut below = below;
        while attribute.len() + below.as_os_str().len() > LONGEST {
            below = below.parent().unwrap_or(Path::new(""));
        }
        attribute.extend_from_slice(below.as_os_str().as_bytes());
        return Ok((mountpoint.to_path_buf(), OsString::from(std::ffi::OsStr::from_bytes(&attribute))));
    }
    Err(anyhow!(
        "{}: neither in the mount nor in one of its sources; `veinfs status {}` lists these",
        path.display(),
        mountpoint.display()
    ))
}
