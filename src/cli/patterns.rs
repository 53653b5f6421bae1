//! `veinfs patterns`: the built-in library.

use std::io::{self, Write};

use anyhow::bail;

use super::DONE;
use crate::config::ConfigError;
use crate::pattern::load::{Format, load_text};
use crate::pattern::{library, nearest};

/// List the built-in patterns, or print one.
#[derive(Debug, clap::Args)]
pub(crate) struct PatternsArgs {
    /// The pattern to print, as the file that `-p NAME` uses
    name: Option<String>,
}

pub(crate) fn run(args: &PatternsArgs) -> anyhow::Result<u8> {
    let mut stdout = io::stdout().lock();
    let Some(name) = &args.name else {
        let width = library::LIBRARY.iter().map(|builtin| builtin.name.len()).max().unwrap_or(0);
        for builtin in library::LIBRARY {
            let loaded = load_text(builtin.text.as_bytes(), Format::Yaml, builtin.name, builtin.name);
            let description = loaded.ok().and_then(|list| list.into_iter().next()?.description).unwrap_or_default();
            writeln!(stdout, "{:width$}  {description}", builtin.name)?;
        }
        return Ok(DONE);
    };
    match library::find(name) {
        Some(builtin) => stdout.write_all(builtin.text.as_bytes())?,
        None => match nearest(name, library::LIBRARY.iter().map(|builtin| builtin.name)) {
            Some(near) => {
                bail!(ConfigError::Usage(format!("no built-in pattern is called `{name}`; did you mean `{near}`?")))
            }
            None => bail!(ConfigError::Usage(format!(
                "no built-in pattern is called `{name}`; `veinfs patterns` lists them"
            ))),
        },
    }
    Ok(DONE)
}
