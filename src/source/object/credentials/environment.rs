//! The environment as a value: variables and what is below the home directory.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Environment variables, read once, so that nothing later depends on the process. Never shown: they hold secrets.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// That of this process, without what is no UTF-8.
    pub fn of_process() -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment { variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// One of given variables.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
        let mut environment = Environment::default();
        environment.set(variables);
        environment
    }

    /// Sets variables.
    pub fn set<'a>(&mut self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.variables.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// A variable, if it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a variable says yes.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).and_then(super::super::location::options::truth) == Some(true)
    }

    /// The first of several that is set.
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// All that begin with a prefix, such as `AWS_`.
    pub fn beginning<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.variables.iter().filter(move |(name, value)| name.starts_with(start) && !value.is_empty());
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A path below the home directory.
    pub fn at_home(&self, below: &str) -> Option<PathBuf> {
        Some(Path::new(self.get("HOME")?).join(below))
    }

    /// A path that a variable names, `~/` being the home directory, or else one below the home directory.
    pub fn path(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        match self.get(name) {
            Some(path) => Some(self.expand(path)),
            None => self.at_home(below_home),
        }
    }

    /// A path, with `~/` for the home directory.
    pub fn expand(&self, path: &str) -> PathBuf {
        match path.strip_prefix("~/").and_then(|below| self.at_home(below)) {
            Some(path) => path,
            None => PathBuf::from(path),
        }
    }

    /// A program on the search path.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let directories = std::env::split_paths(self.get("PATH")?);
        directories.map(|directory| directory.join(name)).find(|path| path.is_file())
    }
}

/// Names alone: values are secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
