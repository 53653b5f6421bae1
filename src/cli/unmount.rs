//! `veinfs unmount`.

use std::path::PathBuf;
use std::time::Duration;

use super::{DONE, out};
use crate::mounts::{self, Exit, MountState, state};

/// Take a mount off, also one whose daemon has died.
#[derive(Debug, clap::Args)]
pub(crate) struct UnmountArgs {
    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT", required = true)]
    mountpoints: Vec<PathBuf>,
    /// Even if it is in use: it disappears at once and ends with its last use
    #[arg(short = 'z', long)]
    lazy: bool,
}

pub(crate) fn run(args: &UnmountArgs) -> anyhow::Result<u8> {
    let mut code = DONE;
    for mountpoint in &args.mountpoints {
        // Taken before: afterwards nothing tells which process it was.
        let daemon = match state(mountpoint) {
            Ok(MountState::Live) => super::status::read(mountpoint).ok().and_then(|status| daemon(&status)),
            _ => None,
        };
        if let Err(error) = mounts::unmount(mountpoint, args.lazy) {
            out::error(&error.to_string());
            code = super::FAILED;
            continue;
        }
        // The daemon goes a moment after its mount; what it had open is closed when this returns.
        if let (Some(daemon), false) = (daemon, args.lazy) {
            let _ = daemon.wait(Duration::from_secs(5));
        }
    }
    Ok(code)
}

fn daemon(status: &serde_json::Value) -> Option<Exit> {
    Exit::of(u32::try_from(status["pid"].as_u64()?).ok()?).ok()
}
