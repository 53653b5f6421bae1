//! `veinfs check`: mistakes in patterns.

use std::ffi::OsString;

use super::{DONE, USAGE, out};
use crate::config::{compile_all, load_patterns};

/// Look for mistakes in patterns.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Pattern files or names of built-in patterns
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<OsString>,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let patterns = load_patterns(&args.patterns)?;
    compile_all(&patterns, None)?;
    for pattern in &patterns {
        println!("{}: ok", out::for_terminal(pattern.name.as_bytes()));
    }
    let _ = USAGE;
    Ok(DONE)
}
