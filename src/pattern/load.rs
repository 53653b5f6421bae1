//! Text to [`Pattern`]s: JSON, YAML and TOML, and back to JSON.
//!
//! A text first becomes a `Node`, the same for all formats (`node`), which a typed reader then turns
//! into patterns (`read`; `keys` says what may stand where), carrying the key path for messages. Shape
//! is checked here, also of what stands inside strings but globs and regular expressions (`scalar`).
//!
//! Texts come from strangers. Their size, nesting and what aliases unfold to are bounded before a
//! `Node` is built, so that neither the reader nor a drop can exhaust the stack or the memory.

mod json;
mod keys;
mod node;
mod read;
mod scalar;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{MAX_FILE_BYTES, Pattern, PatternError};
pub use json::to_json;
use node::{Budget, Node, SyntaxError};
use read::{Named, Reader};
pub(crate) use scalar::clip;

/// The notation of a pattern file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// YAML 1.2, core schema.
    Yaml,
    /// TOML 1.1.
    Toml,
    /// JSON, and if it is not, YAML.
    Unknown,
}

impl Format {
    /// The format that the extension of `path` stands for.
    pub fn of(path: &Path) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "json" => Self::Json,
            "yaml" | "yml" => Self::Yaml,
            "toml" => Self::Toml,
            _ => Self::Unknown,
        }
    }
}

/// Reads the patterns of a file of at most [`MAX_FILE_BYTES`]; a pattern without a name gets the file's stem.
///
/// # Errors
/// Every fault that was found (a hundred at the most), or the one that kept the file from being read.
pub fn load_file(path: &Path) -> Result<Vec<Pattern>, Vec<PatternError>> {
    let origin = path.display().to_string();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| vec![whole(&origin, format!("cannot be read: {error}"), None)])?;
    load_text(&text, Format::of(path), &origin, stem)
}

/// Reads the patterns of `text`. Messages name `origin`; a single pattern without a name gets `default_name`.
///
/// # Errors
/// Every fault that was found, a hundred at the most.
pub fn load_text(
    text: &[u8],
    format: Format,
    origin: &str,
    default_name: &str,
) -> Result<Vec<Pattern>, Vec<PatternError>> {
    let text = decode(text, origin).map_err(|error| vec![error])?;
    let budget = Budget::default();
    let node = parse(text, format, &budget).map_err(|SyntaxError { place, message, hint }| {
        vec![PatternError { origin: origin.to_owned(), place, message, hint }]
    })?;
    let mut reader = Reader::new(origin, &budget);
    let named = reader.file(node);
    let patterns = name_all(&mut reader, named, default_name);
    let errors = reader.finish();
    if errors.is_empty() { Ok(patterns) } else { Err(errors) }
}

/// The text without its byte order mark, if it is one that can be looked at.
fn decode<'a>(text: &'a [u8], origin: &str) -> Result<&'a str, PatternError> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(whole(origin, format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20), None));
    }
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let valid = String::from_utf8_lossy(&text[..error.valid_up_to()]);
        PatternError {
            origin: origin.to_owned(),
            place: node::place_at(&valid, valid.len()),
            message: format!("the byte 0x{:02X} is no valid UTF-8", text[error.valid_up_to()]),
            hint: Some("save the file as UTF-8".to_owned()),
        }
    })?;
    if text.trim().is_empty() {
        return Err(whole(origin, "the file is empty", Some("`{}` is the pattern that matches every directory")));
    }
    Ok(text)
}

fn parse(text: &str, format: Format, budget: &Budget) -> Result<Node, SyntaxError> {
    match format {
        Format::Json => node::from_json(text, budget),
        Format::Yaml => node::from_yaml(text, budget),
        Format::Toml => node::from_toml(text, budget),
        Format::Unknown => {
            let json = match node::from_json(text, budget) {
                Ok(node) => return Ok(node),
                Err(error) => error,
            };
            match node::from_yaml(text, budget) {
                // YAML takes almost any text for a string.
                Ok(node @ (Node::Map(_) | Node::List(_))) => Ok(node),
                _ if text.trim_start().starts_with(['{', '[']) => Err(json),
                Ok(_) => Err(SyntaxError {
                    place: String::new(),
                    message: "this is neither JSON nor YAML of a pattern".to_owned(),
                    hint: Some("for another format name the file .json, .yaml or .toml".to_owned()),
                }),
                Err(yaml) => Err(yaml),
            }
        }
    }
}

/// Gives the one pattern without a name the default one, and sees to it that names are unique in the file.
fn name_all(reader: &mut Reader<'_>, named: Vec<Named>, default_name: &str) -> Vec<Pattern> {
    let unnamed = named.iter().filter(|named| named.name.is_none()).count();
    let mut taken = HashSet::new();
    let mut patterns = Vec::with_capacity(named.len());
    for Named { name, mut pattern } in named {
        let name = match name {
            Some(name) => name,
            None if unnamed > 1 => {
                let hint = "only one pattern of a file can go without: add `name`".to_owned();
                reader.fail(&pattern.place, "the pattern has no name", Some(hint));
                continue;
            }
            None => {
                if let Err(message) = scalar::check_name(default_name) {
                    let message = format!("the file's name gives the pattern no name: {message}");
                    reader.fail(&pattern.place, message, Some("add `name`".to_owned()));
                    continue;
                }
                default_name.to_owned()
            }
        };
        if !taken.insert(name.clone()) {
            let message = format!("another pattern of this file has the name `{}`", scalar::clip(&name));
            reader.fail(&super::key(&pattern.place, "name"), message, Some("names are unique".to_owned()));
        }
        pattern.name = name;
        patterns.push(pattern);
    }
    patterns
}

fn whole(origin: &str, message: impl Into<String>, hint: Option<&str>) -> PatternError {
    PatternError {
        origin: origin.to_owned(),
        place: String::new(),
        message: message.into(),
        hint: hint.map(str::to_owned),
    }
}
