//! What the user asked for, resolved once: patterns compiled, sources found, options checked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::automaton::Automaton;
use crate::pattern::compile::compile;
use crate::pattern::load::{Format, load_file, load_text};
use crate::pattern::{Pattern, PatternError, library, nearest};
use crate::source::Source;
use crate::source::local::LocalSource;
use crate::source::object::location::{Location, is_url};
use crate::stores::Stores;
use crate::view::layout::Layout;

/// A source with the name that it has in views and output.
#[derive(Clone, Debug)]
pub struct NamedSource {
    /// Unique among the sources of a mount or scan.
    pub name: Box<[u8]>,
    /// The name that the root directory has to patterns; empty for `/`.
    pub root_name: Box<[u8]>,
    /// Where it is.
    pub root: PathBuf,
    /// The tree.
    pub source: Arc<dyn Source>,
}

/// What is wrong with a command's arguments or what they name.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Patterns that cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Patterns(Vec<PatternError>),
    /// A source that cannot be used.
    #[error("source {}: {reason}", path.display())]
    Source {
        /// As given.
        path: PathBuf,
        /// Why, and the cure.
        reason: String,
    },
    /// A source in an object store that cannot be listed.
    #[error("source {}: {reason}", path.display())]
    Away {
        /// Where it is.
        path: PathBuf,
        /// Why, and the cure.
        reason: String,
    },
    /// A layout that cannot be used.
    #[error("--layout: {0}")]
    Layout(String),
    /// An `--exclude` that cannot be used.
    #[error("--exclude: {0}")]
    Exclude(globset::Error),
    /// A word of the command line that cannot be.
    #[error("{0}")]
    Usage(String),
}

/// Loads the patterns that `-p` names: files, or patterns of the library.
///
/// # Errors
/// All that is wrong in any of them.
pub fn load_patterns(arguments: &[OsString]) -> Result<Vec<Pattern>, ConfigError> {
    let (mut patterns, mut errors) = (Vec::new(), Vec::new());
    for argument in arguments {
        match load_pattern(argument) {
            Ok(loaded) => patterns.extend(loaded),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() { Ok(patterns) } else { Err(ConfigError::Patterns(errors)) }
}

fn load_pattern(argument: &OsStr) -> Result<Vec<Pattern>, Vec<PatternError>> {
    // What a file of a standing mount has in it.
    if argument.as_bytes().starts_with(b"{") {
        return load_text(argument.as_bytes(), Format::Json, "pattern", "pattern");
    }
    let path = Path::new(argument);
    let is_path = argument.as_bytes().contains(&b'/') || Format::of(path) != Format::Unknown;
    let name = argument.to_string_lossy();
    if !is_path {
        if let Some(builtin) = library::find(&name) {
            return Ok(vec![builtin.pattern()]);
        }
        if !path.exists() {
            let hint = match nearest(&name, library::LIBRARY.iter().map(|builtin| builtin.name)) {
                Some(near) => format!("did you mean `{near}`? `veinfs patterns` lists the built-in ones"),
                None => "give a pattern file, or a name that `veinfs patterns` lists".to_owned(),
            };
            return Err(vec![PatternError {
                origin: name.into_owned(),
                place: String::new(),
                message: "no built-in pattern and no file of this name".into(),
                hint: Some(hint),
            }]);
        }
    }
    load_file(path)
}

/// Compiles patterns, with a layout for all of them that takes the place of their own.
///
/// # Errors
/// All that is wrong in them, or in the layout.
pub fn compile_all(patterns: &[Pattern], layout: Option<&str>) -> Result<Automaton, ConfigError> {
    let mut automaton = compile(patterns).map_err(ConfigError::Patterns)?;
    if let Some(text) = layout {
        let everywhere: Vec<&str> = patterns.iter().flat_map(|p| p.root.captures.keys()).map(String::as_str).collect();
        for (top, pattern) in automaton.tops.iter_mut().zip(patterns) {
            let own: Vec<_> =
                pattern.root.captures.keys().map(String::as_str).zip(top.captures.iter().copied()).collect();
            let parsed = Layout::parse_shared(text, &own, &everywhere).map_err(|error| {
                ConfigError::Layout(match error.hint {
                    Some(hint) => format!("{}; {hint}", error.message),
                    None => error.message,
                })
            })?;
            top.layout = Some(parsed);
        }
    }
    Ok(automaton)
}

/// Finds the sources that arguments name, `PATH` or `name=PATH`, and gives each a name of its own. Those in object stores,
/// `s3://BUCKET/PREFIX` and its kin, are listed.
///
/// # Errors
/// The first that is no directory or cannot be listed, and, if none of them is there, the first that is away.
pub fn find_sources(arguments: &[OsString], stores: &Stores) -> Result<Vec<NamedSource>, ConfigError> {
    let (sources, all_away) = find_sources_or_away(arguments, stores)?;
    for source in &sources {
        if let Some(listed) = source.source.as_listed()
            && let Err(error) = listed.renew(&AtomicBool::new(false))
        {
            return Err(ConfigError::Away { path: source.root.clone(), reason: error.to_string() });
        }
    }
    all_away.map_or(Ok(sources), Err)
}

/// Finds sources as [`find_sources`] does, and lists none; if none of them is there, the error is that of the first.
///
/// # Errors
/// The first that is no directory.
pub fn find_sources_or_away(
    arguments: &[OsString],
    stores: &Stores,
) -> Result<(Vec<NamedSource>, Option<ConfigError>), ConfigError> {
    let mut sources: Vec<NamedSource> = Vec::new();
    let (mut here, mut away) = (0, None);
    for argument in arguments {
        let (given, path) = split_name(argument);
        let fail = |reason: String| ConfigError::Source { path: path.to_path_buf(), reason };
        let found: Found;
        let text = path.to_string_lossy();
        if is_url(text.as_bytes()) && !path.exists() {
            let location = Location::parse(&text).map_err(|error| fail(error.to_string()))?;
            let source = Arc::new(stores.source(&location)?);
            found = (location.to_string().into(), location.name().into_bytes().into(), source);
            here += 1;
        } else {
            found = local(path, argument, &fail, &mut away)?;
            here += usize::from(found.0.is_dir());
        }
        let (root, root_name, source) = found;
        let wanted = match given {
            Some(name) => name.as_bytes(),
            None if root_name.is_empty() => b"root",
            None => &root_name,
        };
        let mut name: Box<[u8]> = wanted.into();
        for number in 2.. {
            if sources.iter().all(|source| source.name != name) {
                break;
            }
            if given.is_some() {
                return Err(fail(
                    "a second source of this name; give each a name of its own, as in `other=PATH`".into(),
                ));
            }
            name = [wanted, format!("-{number}").as_bytes()].concat().into();
        }
        sources.push(NamedSource { name, root_name, root, source });
    }
    Ok((sources, away.filter(|_| here == 0)))
}

/// Where a source is, what its root is called, and its tree.
type Found = (PathBuf, Box<[u8]>, Arc<dyn Source>);

/// A directory of this machine: where it is, what it is called, and its tree.
fn local(
    path: &Path,
    argument: &OsStr,
    fail: &dyn Fn(String) -> ConfigError,
    away: &mut Option<ConfigError>,
) -> Result<Found, ConfigError> {
    if path.as_os_str().is_empty() {
        return Err(fail(format!("no path in `{}`; write NAME=PATH", argument.to_string_lossy())));
    }
    // What is away now may come back: it is walked when it does.
    let root = match path.canonicalize() {
        Ok(root) if !root.is_dir() => {
            return Err(fail("not a directory; give the directory that holds what you look for".into()));
        }
        Ok(root) => root,
        Err(error) => {
            away.get_or_insert_with(|| match error.kind() {
                std::io::ErrorKind::NotFound => fail("there is no such directory; check the spelling".into()),
                _ => fail(error.to_string()),
            });
            std::path::absolute(path).map_err(|error| fail(error.to_string()))?
        }
    };
    let root_name: Box<[u8]> = root.file_name().map_or(Box::default(), |name| name.as_bytes().into());
    let source = Arc::new(LocalSource::new(&root));
    Ok((root, root_name, source))
}

/// `name=PATH`, unless the whole names something that is there.
fn split_name(argument: &OsStr) -> (Option<&OsStr>, &Path) {
    let bytes = argument.as_bytes();
    if let Some(at) = bytes.iter().position(|byte| *byte == b'=')
        && at > 0
        && !bytes[..at].contains(&b'/')
        && std::fs::symlink_metadata(argument).is_err()
    {
        return (Some(OsStr::from_bytes(&bytes[..at])), Path::new(OsStr::from_bytes(&bytes[at + 1..])));
    }
    (None, Path::new(argument))
}
