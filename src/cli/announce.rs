//! `veinfs announce`, which a mount starts for itself: see [`crate::fs::announce`].

use std::ffi::OsString;

use super::DONE;
use crate::fs::announce::{Reach, Way, serve};

/// Make and remove names on a mount as its daemon says on standard input.
#[derive(Debug, clap::Args)]
pub(crate) struct AnnounceArgs {
    /// The mount's device numbers
    major: u32,
    minor: u32,
    /// Where it is mounted
    mountpoint: OsString,
    /// Go through a private copy of the mount
    #[arg(long)]
    clone: bool,
}

pub(crate) fn run(args: AnnounceArgs) -> anyhow::Result<u8> {
    let way = if args.clone { Way::Clone } else { Way::Path };
    serve(&Reach::of_helper(args.mountpoint, (args.major, args.minor), way))?;
    Ok(DONE)
}
