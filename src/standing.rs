//! Standing mounts: what a file or a line of fstab(5) says of a mount, as words of the command line.
//!
//! A file is TOML. `sources`, `mountpoint` and `patterns` say what; everything else is an option of `veinfs mount` by its
//! long name. Paths are relative to the file's directory, and `~/` is the home of whoever mounts.
//!
//! ```toml
//! sources = ["/data/runs", "nas=/mnt/nas/runs", "s3://lab-runs/2026"]
//! mountpoint = "/srv/runs"
//! patterns = ["./run.yaml", "bids-dataset", { name = "raw", files = ["*.raw"] }]
//! poll = "5m"
//! options = ["allow_other"]
//! option = { region = "eu-west-1" }
//! ```

use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::pattern::load::Format;
use crate::pattern::{PatternError, nearest};
use crate::source::object::location::is_url;

pub mod helper;

/// An option of `veinfs mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its long name, without dashes.
    pub name: String,
    /// It has a value.
    pub takes_value: bool,
    /// It may be given several times.
    pub repeats: bool,
    /// The value is a path.
    pub is_path: bool,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Each PATH or NAME=PATH, absolute.
    pub sources: Vec<String>,
    /// Where, absolute.
    pub mountpoint: Option<String>,
    /// Names, absolute paths, or JSON.
    pub patterns: Vec<String>,
    /// Options by their long names, each as a word of the command line.
    pub options: Vec<(String, String)>,
}

/// Where files of standing mounts are, by their names: the user's own, then the system's.
pub fn directories(config: Option<PathBuf>, home: Option<PathBuf>, root: bool) -> Vec<PathBuf> {
    let config = config.filter(|path| path.is_absolute());
    let own = config.or_else(|| Some(home.filter(|path| path.is_absolute())?.join(".config")));
    let system = PathBuf::from("/etc/veinfs/mounts.d");
    let own = own.map(|dir| dir.join("veinfs/mounts.d"));
    if root { std::iter::once(system).chain(own).collect() } else { own.into_iter().chain([system]).collect() }
}

/// Takes the text of a file apart; `dir` is where it is, `known` what else may be in it.
///
/// # Errors
/// All that is wrong, each with its line and column.
pub fn parse(
    text: &str,
    origin: &str,
    (dir, home): (&Path, Option<&Path>),
    known: &[Known],
) -> Result<Standing, Vec<PatternError>> {
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            return Err(vec![wrong(text, origin, at, message, None)]);
        }
    };
    let mut reading = Reading { text, origin, dir, home, known, standing: Standing::default(), wrong: Vec::new() };
    for (key, value) in table.get_ref() {
        reading.entry(key, value);
    }
    for (missing, is_missing) in
        [("sources", reading.standing.sources.is_empty()), ("patterns", reading.standing.patterns.is_empty())]
    {
        if is_missing && !table.get_ref().keys().any(|key| key.get_ref() == missing) {
            reading.wrong.push(wrong(text, origin, 0, format!("there is no `{missing}`"), None));
        }
    }
    if reading.wrong.is_empty() { Ok(reading.standing) } else { Err(reading.wrong) }
}

fn wrong(text: &str, origin: &str, at: usize, message: String, hint: Option<String>) -> PatternError {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    PatternError { origin: origin.to_owned(), place: format!("line {line}, column {column}"), message, hint }
}

struct Reading<'a> {
    text: &'a str,
    origin: &'a str,
    dir: &'a Path,
    home: Option<&'a Path>,
    known: &'a [Known],
    standing: Standing,
    wrong: Vec<PatternError>,
}

impl Reading<'_> {
    fn fail(&mut self, at: &std::ops::Range<usize>, message: String, hint: Option<String>) {
        self.wrong.push(wrong(self.text, self.origin, at.start, message, hint));
    }

    fn entry(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, value: &Spanned<DeValue<'_>>) {
        let name = key.get_ref().replace('_', "-");
        match name.as_str() {
            "sources" => {
                for one in self.list(&name, value) {
                    let Some(text) = self.text_of(&name, one) else { continue };
                    let source = self.source(&text);
                    self.standing.sources.push(source);
                }
            }
            "mountpoint" => {
                if let Some(text) = self.text_of(&name, value) {
                    self.standing.mountpoint = Some(self.path(&text));
                }
            }
            "patterns" => {
                for one in self.list(&name, value) {
                    match one.get_ref() {
                        DeValue::Table(_) => {
                            let pattern = json(one.get_ref()).to_string();
                            self.standing.patterns.push(pattern);
                        }
                        _ => {
                            let Some(text) = self.text_of(&name, one) else { continue };
                            let is_path = text.contains('/') || Format::of(Path::new(&text)) != Format::Unknown;
                            let pattern = if is_path { self.path(&text) } else { text };
                            self.standing.patterns.push(pattern);
                        }
                    }
                }
            }
            _ => self.option(key, &name, value),
        }
    }

    fn option(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, name: &str, value: &Spanned<DeValue<'_>>) {
        let Some(known) = self.known.iter().find(|known| known.name == name).cloned() else {
            let names = self.known.iter().map(|known| known.name.as_str());
            let near = nearest(name, names.chain(["sources", "mountpoint", "patterns"]));
            let hint = near.map_or_else(
                || "there are `sources`, `mountpoint`, `patterns` and the long options of `veinfs mount`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return self.fail(&key.span(), format!("`{}` is no key of a mount", key.get_ref()), Some(hint));
        };
        match (value.get_ref(), known.takes_value) {
            (DeValue::Boolean(true), false) => self.standing.options.push((known.name.clone(), format!("--{name}"))),
            (DeValue::Boolean(false), false) => {}
            (_, false) => self.fail(&value.span(), format!("`{name}` is `true` or `false`"), None),
            // As `option = { region = "eu-west-1" }`.
            (DeValue::Table(table), true) if known.repeats => {
                for (key, value) in table {
                    if let Some(text) = self.text_of(name, value) {
                        let word = format!("--{name}={}={text}", key.get_ref());
                        self.standing.options.push((known.name.clone(), word));
                    }
                }
            }
            (DeValue::Array(all), true) if known.repeats => {
                for one in all {
                    self.value(&known, one);
                }
            }
            (_, true) => self.value(&known, value),
        }
    }

    fn value(&mut self, known: &Known, value: &Spanned<DeValue<'_>>) {
        let Some(text) = self.text_of(&known.name, value) else { return };
        let text = if known.is_path { self.path(&text) } else { text };
        self.standing.options.push((known.name.clone(), format!("--{}={text}", known.name)));
    }

    /// The values of a list, or the one that stands for it.
    fn list<'v, 'i>(&self, _name: &str, value: &'v Spanned<DeValue<'i>>) -> Vec<&'v Spanned<DeValue<'i>>> {
        match value.get_ref() {
            DeValue::Array(all) => all.iter().collect(),
            _ => vec![value],
        }
    }

    fn text_of(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            _ => {
                self.fail(&value.span(), format!("`{name}` is a text, such as \"…\""), None);
                None
            }
        }
    }

    fn source(&self, text: &str) -> String {
        let named = text.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('/'));
        match named {
            Some((name, path)) => format!("{name}={}", self.path(path)),
            None => self.path(text),
        }
    }

    fn path(&self, text: &str) -> String {
        if is_url(text.as_bytes()) {
            return text.to_owned();
        }
        if let (Some(below), Some(home)) = (text.strip_prefix("~/"), self.home) {
            return home.join(below).display().to_string();
        }
        self.dir.join(text.strip_prefix("./").unwrap_or(text)).display().to_string()
    }
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => number.to_string().parse::<i64>().map_or(Value::Null, Value::from),
        DeValue::Float(number) => number.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(all) => all.iter().map(|one| json(one.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, value)| (key.get_ref().clone().into_owned(), json(value.get_ref()))).collect()
        }
    }
}

impl Standing {
    /// The words of the command line, without options that `skip` names: they are given there, or contradict one that is.
    pub fn words(&self, skip: &dyn Fn(&str) -> bool, (paths, patterns): (bool, bool)) -> Vec<String> {
        let mut words: Vec<String> =
            self.options.iter().filter(|(name, _)| !skip(name)).map(|(_, word)| word.clone()).collect();
        if patterns {
            words.extend(self.patterns.iter().map(|pattern| format!("--pattern={pattern}")));
        }
        if paths {
            words.extend(self.sources.iter().chain(&self.mountpoint).cloned());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Known> {
        let one =
            |name: &str, takes_value, repeats, is_path| Known { name: name.into(), takes_value, repeats, is_path };
        vec![
            one("poll", true, false, false),
            one("follow", false, false, false),
            one("options", true, true, false),
            one("option", true, true, false),
            one("exclude", true, true, false),
            one("max-depth", true, false, false),
            one("index", true, false, true),
        ]
    }

    fn read(text: &str) -> Result<Standing, String> {
        let found = parse(text, "x.toml", (Path::new("/etc/m"), Some(Path::new("/home/u"))), &known());
        found.map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn what_a_file_says() {
        let standing = read(
            "sources = ['/data', 'nas=~/nas', 'runs', 's3://b/x']\nmountpoint = '/mnt/m'\n\
             patterns = ['bids', './run.yaml', 'a.toml', {name = 'raw', files = ['*.raw'], min = 2}]\n\
             poll = '5m'\nfollow = true\nmax_depth = 4\nexclude = ['a', 'b']\nindex = 'x.index'\n\
             options = ['allow_other', 'noexec']\n[option]\nregion = 'eu-west-1'\n",
        );
        let words = standing.expect("it is sound").words(&|_| false, (true, true)).join("\n");
        let mut lines: Vec<&str> = words.lines().collect();
        lines[..9].sort_unstable();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        --exclude=a
        --exclude=b
        --follow
        --index=/etc/m/x.index
        --max-depth=4
        --option=region=eu-west-1
        --options=allow_other
        --options=noexec
        --poll=5m
        --pattern=bids
        --pattern=/etc/m/run.yaml
        --pattern=/etc/m/a.toml
        --pattern={"files":["*.raw"],"min":2,"name":"raw"}
        /data
        nas=/home/u/nas
        /etc/m/runs
        s3://b/x
        /mnt/m
        "#);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let error = |text: &str| read(text).expect_err(text);
        let base = "sources = ['/a']\npatterns = ['x']\n";
        insta::assert_snapshot!(error(&format!("{base}  pol = '5m'")), @"x.toml: line 3, column 3: `pol` is no key of a mount; did you mean `poll`?");
        insta::assert_snapshot!(error(&format!("{base}follow = 'yes'")), @"x.toml: line 3, column 10: `follow` is `true` or `false`");
        insta::assert_snapshot!(error(&format!("{base}poll = []")), @r#"x.toml: line 3, column 8: `poll` is a text, such as "…""#);
        insta::assert_snapshot!(error("sources = ['/a']"), @"x.toml: line 1, column 1: there is no `patterns`");
        assert!(error("sources = [").starts_with("x.toml: line 1, column "));
        assert_eq!(error("pol = 1\nfolow = 2").lines().count(), 4);
    }

    #[test]
    fn where_files_are() {
        let dirs = |root| directories(None, Some("/home/u".into()), root);
        assert_eq!(dirs(false)[0], Path::new("/home/u/.config/veinfs/mounts.d"));
        assert_eq!(dirs(true)[0], Path::new("/etc/veinfs/mounts.d"));
        assert_eq!(directories(None, None, false), [Path::new("/etc/veinfs/mounts.d")]);
    }
}
