//! Standing mounts: `--config`, and this program as the helper of mount(8).

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgAction, Command, CommandFactory};

use super::Cli;
use crate::config::ConfigError;
use crate::pattern::{PatternError, nearest};
use crate::standing::{Known, Standing, directories, helper, parse};

/// What mount(8) knows of how a helper ends.
const HELPER_USAGE: u8 = 1;
const HELPER_SYSTEM: u8 = 2;
const HELPER_FAILED: u8 = 32;
/// What this program is called as the helper of mount(8).
const HELPERS: [&str; 2] = ["mount.veinfs", "mount.fuse.veinfs"];
/// Options that make no sense in a file, or that it says otherwise.
const NOT_IN_FILES: [&str; 6] = ["config", "pattern", "help", "version", "foreground", "wait"];

fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// The options of `veinfs mount`.
fn known(command: &Command) -> Vec<Known> {
    let mount = command.find_subcommand("mount").expect("there is one");
    let options = mount.get_arguments().filter_map(|argument| Some((argument, argument.get_long()?)));
    let options = options.filter(|(_, name)| !NOT_IN_FILES.contains(name));
    options
        .map(|(argument, name)| Known {
            name: name.to_owned(),
            takes_value: argument.get_action().takes_values(),
            repeats: matches!(argument.get_action(), ArgAction::Append),
            is_path: matches!(name, "index" | "log" | "cache"),
        })
        .collect()
}

/// The file that a name or path stands for.
fn file_of(given: &Path) -> Result<PathBuf, ConfigError> {
    let is_path = given.as_os_str().as_bytes().contains(&b'/') || given.extension().is_some_and(|end| end == "toml");
    if is_path {
        return std::path::absolute(given).map_err(|error| usage(given, &error.to_string()));
    }
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let root = rustix::process::geteuid().is_root();
    let places = directories(var("XDG_CONFIG_HOME"), var("HOME"), root);
    let name = format!("{}.toml", given.display());
    if let Some(found) = places.iter().map(|dir| dir.join(&name)).find(|path| path.exists()) {
        return Ok(found);
    }
    let names: Vec<String> = places
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten())
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".toml").map(str::to_owned))
        .collect();
    let shown = given.to_string_lossy();
    let hint = match nearest(&shown, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give a name of those, or a path".to_owned(),
    };
    let places: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
    Err(usage(given, &format!("there is no {name} in {}; {hint}", places.join(" or "))))
}

fn usage(given: &Path, reason: &str) -> ConfigError {
    ConfigError::Usage(format!("--config {}: {reason}", given.display()))
}

/// What the file says that a name or path stands for.
pub(super) fn read(given: &Path) -> Result<Standing, ConfigError> {
    read_with(given, &known(&command()))
}

fn read_with(given: &Path, known: &[Known]) -> Result<Standing, ConfigError> {
    let path = file_of(given)?;
    let origin = path.display().to_string();
    let whole = |message: String| {
        let place = String::new();
        ConfigError::Patterns(vec![PatternError { origin: origin.clone(), place, message, hint: None }])
    };
    let text = std::fs::read(&path).map_err(|error| whole(crate::scan::plain(&error)))?;
    let text = String::from_utf8(text).map_err(|_| whole("it is no UTF-8".to_owned()))?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let dir = path.parent().unwrap_or(Path::new("/"));
    parse(&text, &origin, (dir, home.as_deref()), known).map_err(ConfigError::Patterns)
}

/// All files of standing mounts, each with what is wrong in it.
pub(super) fn all() -> Vec<(PathBuf, Option<String>)> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let places = directories(var("XDG_CONFIG_HOME"), var("HOME"), rustix::process::geteuid().is_root());
    let known = known(&command());
    let entries = places.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort_unstable();
    let wrong = |path: &Path| match read_with(path, &known) {
        Err(error) => Some(error.to_string()),
        Ok(standing) => {
            let patterns: Vec<OsString> = standing.patterns.iter().map(OsString::from).collect();
            crate::config::load_patterns(&patterns).err().map(|error| format!("{}: {error}", path.display()))
        }
    };
    files.into_iter().map(|path| (path.clone(), wrong(&path))).collect()
}

/// The lines of an fstab(5) that are of veinfs, by their mount points, each with what is wrong in it.
pub(super) fn check_fstab(text: &str) -> Vec<(String, Option<String>)> {
    let known = known(&command());
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = lines.filter_map(|fields| match fields[..] {
        [source, place, "veinfs" | "fuse.veinfs", ref rest @ ..] if !source.starts_with('#') => Some((
            source.to_owned(),
            place.to_owned(),
            rest.first().map_or(String::new(), |options| (*options).to_owned()),
        )),
        _ => None,
    });
    ours.map(|(source, place, options)| {
        let asked = helper::parse(&[source, place.clone(), "-o".to_owned(), options], &known);
        let wrong = match asked {
            Err(error) => Some(error.to_string()),
            Ok(asked)
                if !asked.words.iter().any(|word| word.starts_with("--pattern=") || word.starts_with("--config=")) =>
            {
                Some("it names no pattern; add `pattern=…` or `config=…` to its options".to_owned())
            }
            Ok(_) => None,
        };
        (place, wrong)
    })
    .collect()
}

/// The words with what a file says in place of `--config`; those that stand on the command line go before it.
pub(super) fn expand(words: Vec<OsString>) -> Result<Vec<OsString>, ConfigError> {
    let command = command();
    let all = std::iter::once(OsString::from("veinfs")).chain(words.iter().cloned());
    // What is wrong with them is said where they are used.
    let Ok(matches) = command.clone().try_get_matches_from(all) else { return Ok(words) };
    let Some(("mount", given)) = matches.subcommand() else { return Ok(words) };
    let Some(config) = given.get_one::<PathBuf>("config") else { return Ok(words) };
    let standing = read_with(config, &known(&command))?;
    let mount = command.find_subcommand("mount").expect("there is one");
    let mut skip: Vec<&str> = Vec::new();
    for argument in mount.get_arguments() {
        if given.try_contains_id(argument.get_id().as_str()).is_ok()
            && given.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine)
        {
            skip.extend(argument.get_long());
            skip.extend(mount.get_arg_conflicts_with(argument).iter().filter_map(|other| other.get_long()));
        }
    }
    let places = given.get_many::<OsString>("paths").map_or(0, |paths| paths.len());
    let mut standing = standing;
    if places > 0 {
        // The one is where to mount.
        standing.mountpoint = None;
    }
    if standing.mountpoint.is_none() && places == 0 {
        return Err(usage(config, "it names no `mountpoint`; add one, or give it on the command line"));
    }
    let patterns = !skip.contains(&"pattern");
    let said = standing.words(&|name| skip.contains(&name), (places < 2, patterns));
    let (options, sources): (Vec<String>, Vec<String>) = said.into_iter().partition(|word| word.starts_with("--"));
    let mut expanded = vec![OsString::from("mount")];
    expanded.extend(options.into_iter().map(OsString::from));
    let mut rest = words.into_iter().skip(1);
    let mut sources = Some(sources);
    while let Some(word) = rest.next() {
        match word.as_bytes() {
            b"--config" => drop(rest.next()),
            text if text.starts_with(b"--config=") => {}
            // What is before the mount point goes before it.
            b"--" => {
                expanded.extend(sources.take().into_iter().flatten().map(OsString::from));
                expanded.extend(rest.by_ref());
            }
            _ => expanded.push(word),
        }
    }
    if let Some(sources) = sources {
        let at = if places == 0 { expanded.len() } else { first_place(&expanded, given) };
        expanded.splice(at..at, sources.into_iter().map(OsString::from));
    }
    Ok(expanded)
}

/// Where the first place stands among the words.
fn first_place(words: &[OsString], given: &clap::ArgMatches) -> usize {
    let first = given.get_many::<OsString>("paths").and_then(|mut paths| paths.next());
    first.and_then(|first| words.iter().rposition(|word| word == first)).unwrap_or(words.len())
}

/// True if this program was called as the helper of mount(8).
pub(super) fn is_helper(program: &std::ffi::OsStr) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default();
    HELPERS.iter().any(|helper| name == *helper)
}

/// What this program does as the helper of mount(8): words of the command line, or how it ends.
pub(super) fn as_helper(arguments: &[OsString]) -> Result<Vec<OsString>, u8> {
    let told = |text: &str, code: u8| {
        super::out::error(text);
        Err(code)
    };
    let texts: Result<Vec<String>, OsString> = arguments.iter().cloned().map(OsString::into_string).collect();
    let Ok(texts) = texts else {
        return told("an argument is no UTF-8; name what it stands for by --config", HELPER_USAGE);
    };
    let asked = match helper::parse(&texts, &known(&command())) {
        Ok(asked) => asked,
        Err(error) => return told(&error.to_string(), HELPER_USAGE),
    };
    if let Some(namespace) = &asked.namespace
        && let Err(error) = enter(namespace)
    {
        return told(&format!("-N {namespace}: {error}"), HELPER_SYSTEM);
    }
    let words: Vec<OsString> =
        std::iter::once("mount".into()).chain(asked.words.into_iter().map(OsString::from)).collect();
    if asked.fake {
        return match expand(words) {
            Ok(_) => Err(0),
            Err(error) => told(&error.to_string(), HELPER_USAGE),
        };
    }
    Ok(words)
}

/// How a helper ends where `veinfs mount` ends so.
pub(super) fn helper_code(code: u8) -> u8 {
    match code {
        super::DONE => 0,
        super::USAGE => HELPER_USAGE,
        _ => HELPER_FAILED,
    }
}

/// Goes into a mount namespace: that of a process, or the one that a path leads to.
fn enter(namespace: &str) -> std::io::Result<()> {
    let path = match namespace.parse::<u32>() {
        Ok(pid) => format!("/proc/{pid}/ns/mnt"),
        Err(_) => namespace.to_owned(),
    };
    let file = std::fs::File::open(path)?;
    let kind = rustix::thread::LinkNameSpaceType::Mount;
    Ok(rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind))?)
}
