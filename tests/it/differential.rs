//! The real matcher on real directories against the oracle.

use std::collections::{BTreeSet, HashSet};
use std::ffi::CString;
use std::fmt::{self, Write as _};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use veinfs::automaton::Automaton;
use veinfs::expand::{Content, Directory, Shown, Symlinks, expand};
use veinfs::listing::{Exclude, ListRules, Scratch};
use veinfs::matcher::Own;
use veinfs::matcher::bits::Bits;
use veinfs::matcher::mapping::Mapping;
use veinfs::pattern::Pattern;
use veinfs::pattern::compile::compile;
use veinfs::pattern::load::{Format, load_text, to_json};
use veinfs::reader::{Reader, above_children};
use veinfs::source::local::LocalSource;
use veinfs::source::{Handle, Source};
use veinfs::walk::{Event, Found, Progress, Trouble, WalkOptions, walk};

use crate::faults::{FailingSource, ShuffledSource};
use crate::generate::arb_case;
use crate::oracle::{self, Captures, Node, Outcome, Tree, joined, lay_out};

/// A tree and patterns, printed as what a plain test of them says.
struct Case(Tree, Vec<Pattern>);

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case(tree, patterns) = self;
        write!(f, "{:?}: [", tree.name.escape_ascii().to_string())?;
        for path in tree.paths().iter().skip(1) {
            let node = tree.at(path).expect("it is a path of the tree");
            let mut line = joined(path).escape_ascii().to_string();
            match node {
                Node::File { bytes } if bytes.is_empty() => {}
                Node::File { bytes } => write!(line, "={}", bytes.escape_ascii())?,
                Node::Dir { readable: false, .. } => line.push('!'),
                Node::Dir { children, .. } if children.is_empty() => line.push('/'),
                Node::Dir { .. } => continue,
                Node::Link { to } => write!(line, " -> {}", to.escape_ascii())?,
                Node::Special => line.push('|'),
            }
            write!(f, "{line:?}, ")?;
        }
        write!(f, "]")?;
        patterns.iter().try_for_each(|pattern| write!(f, "\n{}", to_json(pattern)))
    }
}

/// A tree on disk.
pub(crate) struct Laid {
    pub(crate) root: PathBuf,
    name: Vec<u8>,
    /// Unreadable directories.
    deny: HashSet<(u64, u64)>,
    _place: tempfile::TempDir,
}

impl Laid {
    pub(crate) fn new(tree: &Tree) -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let place = place.expect("a temporary directory");
        let root = lay_out(tree, place.path());
        let unreadable = |path: &&oracle::Real| matches!(tree.at(path), Some(Node::Dir { readable: false, .. }));
        let identity = |path: &oracle::Real| {
            let path = root.join(std::ffi::OsStr::from_bytes(&joined(path)));
            let metadata = fs::symlink_metadata(path).expect("it is laid out");
            (metadata.dev(), metadata.ino())
        };
        let deny = tree.paths().iter().filter(unreadable).map(identity).collect();
        Self { root, name: tree.name.clone(), deny, _place: place }
    }

    pub(crate) fn source(&self) -> FailingSource<LocalSource> {
        FailingSource {
            inner: LocalSource::new(&self.root),
            deny: Arc::new(parking_lot::Mutex::new(self.deny.clone())),
        }
    }

    /// What a walk reports.
    pub(crate) fn walk(&self, automaton: &Automaton, source: &dyn Source, options: &WalkOptions) -> Reported {
        let reported = Mutex::new(Reported::default());
        let report = |event| {
            let mut reported = reported.lock().expect("no thread panics with it");
            match event {
                Event::Match(found) => reported.found.push(found),
                Event::Trouble(Trouble::Undecided { pattern, path }) => {
                    reported.undecided.push((pattern.index(), path.as_bytes().to_vec()));
                }
                Event::Trouble(Trouble::Unread { path, .. }) => {
                    reported.unread.insert(path.as_bytes().to_vec());
                }
                Event::Trouble(trouble) => panic!("{trouble}"),
            }
        };
        walk(automaton, source, &self.name, options, &Progress::default(), &report).expect("the root is readable");
        let mut reported = reported.into_inner().expect("no thread panics with it");
        reported.found.sort_by(|a, b| (a.pattern, &a.path).cmp(&(b.pattern, &b.path)));
        reported.undecided.sort();
        reported
    }
}

/// What a walk reports, sorted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reported {
    pub(crate) found: Vec<Found>,
    pub(crate) undecided: Vec<(usize, Vec<u8>)>,
    unread: BTreeSet<Vec<u8>>,
}

impl Reported {
    /// As the oracle puts it.
    fn outcomes(&self, automaton: &Automaton) -> Vec<Outcome> {
        let outcome = |(at, top): (usize, &veinfs::automaton::Top)| {
            let captures = |mapping: &Mapping| -> Captures {
                let value = |id| (automaton.capture_name(id).to_owned(), mapping.get(id).map(<[u8]>::to_vec));
                top.captures.iter().map(|id| value(*id)).collect()
            };
            let ours = self.found.iter().filter(|found| found.pattern.index() == at);
            let undecided = self.undecided.iter().filter(|(pattern, _)| *pattern == at);
            Outcome {
                matches: ours.map(|found| (found.path.as_bytes().to_vec(), captures(&found.captures))).collect(),
                undecided: undecided.map(|(_, path)| path.clone()).collect(),
            }
        };
        automaton.tops.iter().enumerate().map(outcome).collect()
    }
}

fn options(threads: usize) -> WalkOptions {
    WalkOptions { threads, ..WalkOptions::default() }
}

fn compiled(patterns: &[Pattern]) -> Automaton {
    compile(patterns).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

/// Walks the tree in several ways, which must agree with each other and with the oracle.
fn check_matches(Case(tree, patterns): &Case) -> Result<(), TestCaseError> {
    let automaton = compiled(patterns);
    let laid = Laid::new(tree);
    let reported = laid.walk(&automaton, &laid.source(), &options(1));
    for (threads, seed) in [(3, 1), (1, 2)] {
        let source = ShuffledSource { inner: laid.source(), seed };
        prop_assert_eq!(&laid.walk(&automaton, &source, &options(threads)), &reported, "threads: {}", threads);
    }
    let mut expected = oracle::matches(patterns, tree);
    let mut found = reported.outcomes(&automaton);
    if patterns.iter().any(|pattern| pattern.prune || pattern.root.opaque) {
        // An undecided directory is told of even where a match would not count.
        expected.iter_mut().chain(&mut found).for_each(|outcome| outcome.undecided.clear());
    }
    prop_assert_eq!(found, expected);
    let unreadable = |path: &oracle::Real| {
        let entered = path.iter().all(|name| name != b".veinfs");
        entered && matches!(tree.at(path), Some(Node::Dir { readable: false, .. }))
    };
    for path in tree.paths().into_iter().filter(unreadable) {
        prop_assert!(reported.unread.contains(&joined(&path)), "{} is not told of", joined(&path).escape_ascii());
    }
    Ok(())
}

/// Expands each match from its root down and holds what is shown against the oracle.
fn check_views(Case(tree, patterns): &Case) -> Result<(), TestCaseError> {
    let automaton = compiled(patterns);
    let laid = Laid::new(tree);
    let source = laid.source();
    let reported = laid.walk(&automaton, &source, &options(1));
    for found in &reported.found {
        let pattern = &patterns[found.pattern.index()];
        let captures = &reported.outcomes(&automaton)[found.pattern.index()].matches;
        let (_, captures) =
            captures.iter().find(|(path, _)| path == found.path.as_bytes()).expect("it is the same match");
        let shown = shown(&automaton, &source, &laid.name, found);
        let expected = oracle::view(pattern, tree, found.path.as_bytes(), captures);
        let printed = |paths: &BTreeSet<Vec<u8>>| -> Vec<String> {
            paths.iter().map(|path| path.escape_ascii().to_string()).collect()
        };
        prop_assert_eq!(
            printed(&shown),
            printed(&expected),
            "{}: {}",
            &pattern.name,
            &found.path.as_os_str().display()
        );
    }
    Ok(())
}

/// The paths that a match shows, but for FIFOs.
pub(crate) fn shown(automaton: &Automaton, source: &dyn Source, root_name: &[u8], found: &Found) -> BTreeSet<Vec<u8>> {
    let exclude = Exclude::default();
    let reader = Reader {
        automaton,
        source,
        rules: ListRules { exclude: &exclude, follow: false },
        closed: &|_| false,
        shut: &veinfs::shut::Shut::default(),
        entered: &|_| {},
        failed: &|_, _| {},
    };
    let mut scratch = Scratch::new(automaton);
    let mut place = Place {
        handles: vec![Arc::new(source.open_root().expect("the root is readable"))],
        path: Vec::new(),
        name: root_name.to_vec(),
        above: Bits::new(automaton.names.len()),
    };
    for name in found.path.components() {
        let above = place.above_children(automaton, &mut scratch);
        match place.child(source, name, false, above) {
            Some(child) => place = child,
            // It matches by its name alone.
            None => return BTreeSet::new(),
        }
    }
    let top = automaton.top(found.pattern);
    let whole = top.opaque || automaton.state(top.state).whole;
    let content = if whole { Content::Whole } else { Content::States(vec![(top.state, found.captures.clone())]) };
    let mut shown = BTreeSet::new();
    show(&reader, &place, &content, &mut scratch, &[], &mut shown);
    shown
}

/// A directory as a view holds it.
struct Place {
    /// It and the directories above, the nearest first.
    handles: Vec<Arc<Handle>>,
    path: Vec<u8>,
    name: Vec<u8>,
    above: Bits,
}

impl Place {
    fn above_children(&self, automaton: &Automaton, scratch: &mut Scratch) -> Bits {
        let globs = scratch.match_name(automaton, &self.name);
        above_children(automaton, &Own { name: &self.name, globs: &globs, above: &self.above })
    }

    fn child(&self, source: &dyn Source, name: &[u8], linked: bool, above: Bits) -> Option<Place> {
        let c_name = CString::new(name).expect("names have no NUL");
        let handle = &self.handles[0];
        let opened = if linked { source.open_link(handle, &c_name) } else { source.open_dir(handle, &c_name) };
        let path = if self.path.is_empty() { name.to_vec() } else { [&self.path[..], b"/", name].concat() };
        let handles = std::iter::once(Arc::new(opened.ok()?)).chain(self.handles.iter().cloned()).collect();
        Some(Place { handles, path, name: name.to_vec(), above })
    }
}

fn show(
    reader: &Reader<'_>,
    place: &Place,
    content: &Content,
    scratch: &mut Scratch,
    at: &[u8],
    shown: &mut BTreeSet<Vec<u8>>,
) {
    let globs = scratch.match_name(reader.automaton, &place.name);
    let directory = Directory {
        own: Own { name: &place.name, globs: &globs, above: &place.above },
        handle: &place.handles[0],
        path: &place.path,
        is_below: &|wanted| {
            place.handles[1..].iter().any(|handle| reader.source.identity(handle).expect("it is open") == wanted)
        },
    };
    let entries = expand(reader, &directory, content, Symlinks::Follow, scratch).expect("it is readable");
    for (name, entry) in entries {
        let path = if at.is_empty() { name.to_vec() } else { [at, b"/", &name].concat() };
        if entry == Shown::Special {
            continue;
        }
        shown.insert(path.clone());
        if let Shown::Dir { content, linked } = entry {
            let above = place.above_children(reader.automaton, scratch);
            if let Some(child) = place.child(reader.source, &name, linked, above) {
                show(reader, &child, &content, scratch, &path, shown);
            }
        }
    }
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 1500;
    }
    config.failure_persistence = Some(Box::new(FileFailurePersistence::WithSource("regressions")));
    config
}

fn arb() -> impl Strategy<Value = Case> {
    arb_case().prop_map(|(tree, patterns)| Case(tree, patterns))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn matches_are_those_of_the_oracle(case in arb()) {
        check_matches(&case)?;
    }

    #[test]
    fn views_are_those_of_the_oracle(case in arb()) {
        check_views(&case)?;
    }
}

/// Patterns from JSON that is right.
pub(crate) fn read(patterns: &[Value]) -> Vec<Pattern> {
    let read = |(at, value): (usize, &Value)| {
        load_text(value.to_string().as_bytes(), Format::Json, "test", &format!("p{at}")).expect("a right pattern")
    };
    patterns.iter().enumerate().flat_map(read).collect()
}

/// A tree and patterns in few words.
#[track_caller]
fn same(name: &str, lines: &[&str], patterns: &[Value]) {
    let case = Case(Tree::from_lines(name, lines), read(patterns));
    check_matches(&case).unwrap_or_else(|error| panic!("{error}\n{case:?}"));
    check_views(&case).unwrap_or_else(|error| panic!("{error}\n{case:?}"));
}

#[test]
fn the_name_in_an_alternative_decides() {
    let alternative = json!({"directory_name": "?", "optional_files": ["?"]});
    same("1", &["d1/", "2/"], &[json!({"directories": [{"directory_name": "d*", "any_of": [alternative]}]})]);
}

#[test]
fn a_value_is_that_of_the_match_that_declares_it() {
    let inner = json!({"directory_name": "?", "recommended_files": ["**/<r>*"]});
    let outer = json!({"captures": {"r": "[0-9]"}, "directories": [inner]});
    same("1", &["d2/1/1a", "d2/1/2"], &[json!({"recommended_directories": [outer]})]);
}

#[test]
fn values_that_cannot_agree_are_known_to_disagree() {
    let captures = json!({"r": "[^_.]+", "s": "[a-z]+"});
    let files = json!(["[a-z]<r>ta.cs<s>", "**/[a-z]/<r>"]);
    same(
        "a",
        &["ses-1/data.csv", "ses-1/b/b!"],
        &[json!({"captures": captures, "directory_name": "<s>s-1", "files": files})],
    );
}

#[test]
fn what_cannot_be_read_rejects_only_what_it_could() {
    let captures = json!({"s": "[0-9]"});
    let forbidden = json!([{"directory_name": "<s>", "files": ["x"]}]);
    same(
        "a",
        &["m/f1", "m/2!", "n/f1", "n/1!", "o/f1", "o/f2", "o/1!"],
        &[json!({"captures": captures, "files": ["f<s>"], "forbidden_directories": forbidden})],
    );
}

#[test]
fn a_directory_that_matches_by_name_is_shown_empty_if_it_cannot_be_read() {
    same("1", &["1!"], &[json!({}), json!({"directories": [{}]})]);
}

#[test]
fn links_back_are_loops_to_paths() {
    let pattern = json!({"captures": {"s": "2"}, "optional_files": ["<s>"], "recommended_files": ["**/<s>*"]});
    same("1", &["1/1/1 -> ../..", "2"], &[pattern]);
    same("r", &["a/up -> ..", "x"], &[json!({"files": ["**/x"]}), json!({"files": ["up/x"]}), json!({})]);
    same("r", &["a/self -> .", "a/x"], &[json!({"directories": [{"directory_name": "self", "files": ["x"]}]})]);
    let counting = json!({"files": [{"glob": "**/x", "min": 2, "max": 2}]});
    same("r", &["a/b -> ../b", "b/a -> ../a", "a/x", "b/x"], &[counting]);
}

#[test]
fn what_is_not_entered_counts_as_empty() {
    let lines = ["a/.veinfs/x", "b/l -> ../a/.veinfs", "c/l -> ../a"];
    let patterns = [json!({"files": ["x"]}), json!({"files": ["**/x"]}), json!({"directory_name": ".veinfs"})];
    same("r", &lines, &[&patterns[..], &[json!({}), json!({"directories": [{}]})]].concat());
}

#[test]
fn a_path_globs_captures_agree_along_it() {
    let pattern = json!({"captures": {"s": "[0-9]+"}, "files": ["x"], "recommended_directories": [
        {"optional_files": ["*<s>/<s>*", {"glob": "**/<s>*/*<s>", "min": 0}]}
    ]});
    same("r", &["x", "1/d1/1a", "1/d1/2", "1/d12/1", "1/d12/12", "1/d12/2", "1/2/3/a3", "1/3/2/a3"], &[pattern]);
}
