//! `veinfs patterns`: the built-in library.

use std::io::{self, Write};

use anyhow::bail;
use serde_json::{Map, Value};

use super::DONE;
use crate::config::ConfigError;
use crate::pattern::library::{self, Builtin, LIBRARY};
use crate::pattern::load::to_json;
use crate::pattern::nearest;

/// List the built-in patterns, search them, or print one.
///
/// `veinfs patterns NAME` prints the file that `-p NAME` uses; redirect it to begin a pattern of your own. Words that
/// are no pattern's name are looked for in names, fields, descriptions and sources, and all of them must be there.
#[derive(Debug, clap::Args)]
pub(crate) struct PatternsArgs {
    /// A pattern to print, or words to look for; without any, all patterns are listed
    #[arg(value_name = "NAME|WORD")]
    words: Vec<String>,
    /// Look for the words, also where one is a pattern's name
    #[arg(long, short = 's', requires = "words")]
    search: bool,
    /// One JSON object a line: name, field, description, source and url; for one pattern, the pattern too
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &PatternsArgs) -> anyhow::Result<u8> {
    let mut stdout = io::stdout().lock();
    let named = match &*args.words {
        [name] if !args.search => library::find(name),
        _ => None,
    };
    if let Some(builtin) = named {
        print(&mut stdout, builtin, args.json)?;
    } else if args.words.is_empty() {
        list(&mut stdout, LIBRARY.iter(), args.json)?;
    } else {
        let found = library::search(&args.words);
        if found.is_empty() {
            bail!(ConfigError::Usage(not_found(&args.words)));
        }
        list(&mut stdout, found.into_iter(), args.json)?;
    }
    stdout.flush()?;
    Ok(DONE)
}

/// One line a pattern.
fn list(
    out: &mut impl Write,
    patterns: impl Iterator<Item = &'static Builtin> + Clone,
    json: bool,
) -> anyhow::Result<()> {
    let width = patterns.clone().map(|builtin| builtin.name.len()).max().unwrap_or(0);
    for builtin in patterns {
        if json {
            writeln!(out, "{}", Value::Object(object(builtin)))?;
        } else {
            writeln!(out, "{:width$}  {}", builtin.name, builtin.description())?;
        }
    }
    Ok(())
}

/// One pattern, as its file or as JSON.
fn print(out: &mut impl Write, builtin: &Builtin, json: bool) -> anyhow::Result<()> {
    if json {
        let mut object = object(builtin);
        object.insert("pattern".to_owned(), to_json(&builtin.pattern()));
        writeln!(out, "{}", Value::Object(object))?;
    } else {
        out.write_all(builtin.text.as_bytes())?;
    }
    Ok(())
}

fn object(builtin: &Builtin) -> Map<String, Value> {
    let values = [
        ("name", builtin.name.into()),
        ("field", builtin.field.into()),
        ("description", builtin.description().into()),
        ("source", builtin.source().into()),
        ("url", builtin.url().into()),
    ];
    values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn not_found(words: &[String]) -> String {
    let all = "`veinfs patterns` lists them all";
    match words {
        [word] => match nearest(word, LIBRARY.iter().map(|builtin| builtin.name)) {
            Some(near) => format!("no built-in pattern is called `{word}`; did you mean `{near}`?"),
            None => format!("no built-in pattern is called `{word}` or speaks of it; {all}"),
        },
        words => format!("no built-in pattern speaks of all of `{}`; use fewer words, or {all}", words.join("`, `")),
    }
}
