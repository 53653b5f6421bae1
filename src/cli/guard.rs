//! `veinfs guard`, which a mount starts for itself: see [`crate::fs::guard`].

use std::path::PathBuf;

use super::DONE;
use crate::fs::guard::{Guarded, serve};

/// Wait for a daemon's end, and end its session if it was killed and cannot.
#[derive(Debug, clap::Args)]
pub(crate) struct GuardArgs {
    /// The mount's device numbers
    major: u32,
    minor: u32,
    /// The daemon's process id
    daemon: u32,
    /// Where it is mounted
    mountpoint: PathBuf,
}

pub(crate) fn run(args: GuardArgs) -> anyhow::Result<u8> {
    let GuardArgs { major, minor, daemon, mountpoint } = args;
    serve(&Guarded { device: (major, minor), mountpoint, daemon })?;
    Ok(DONE)
}
