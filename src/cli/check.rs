//! `veinfs check`: mistakes in patterns.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Write};

use super::{DONE, FAILED, out};
use crate::config::{compile_all, load_patterns};
use crate::pattern::lint::{Severity, lint};

/// Look for mistakes in patterns: what can never hold, and what is likely not meant
///
/// Exit codes: 0 if nothing is wrong, warnings aside; 1 if something can never hold; 2 if a pattern cannot be used.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Pattern files or names of built-in patterns
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<OsString>,
    /// One JSON object a line for each mistake, on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let patterns = load_patterns(&args.patterns)?;
    let lints = lint(&patterns, &compile_all(&patterns, None)?);
    let mut stdout = io::stdout().lock();
    if args.json {
        for lint in &lints {
            serde_json::to_writer(&mut stdout, lint)?;
            stdout.write_all(b"\n")?;
        }
    } else {
        for lint in &lints {
            out::line(&lint.to_string());
        }
        let wrong: HashSet<&str> = lints.iter().map(|lint| &*lint.pattern).collect();
        for pattern in patterns.iter().filter(|pattern| !wrong.contains(&*pattern.name)) {
            writeln!(stdout, "{}: ok", out::for_terminal(pattern.name.as_bytes()))?;
        }
    }
    stdout.flush()?;
    Ok(if lints.iter().any(|lint| lint.severity == Severity::Error) { FAILED } else { DONE })
}
