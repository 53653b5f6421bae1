//! Plain patterns find and show here what pathvein finds and copies, on random trees.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use veinfs::pattern::compile::compile;
use veinfs::walk::WalkOptions;

use crate::differential::{Laid, read, shown};
use crate::oracle::{Node, Real, Tree};

const CASES: usize = 600;

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"a.csv",
    b"s-1",
    b"A",
    b"ab",
    b"b.csv",
    b"B.CSV",
    b".csv",
    b".d",
    b"s-02",
    b"1",
    b"a b",
    b"a-",
    b"]",
    b"[a]",
    "é".as_bytes(),
    b"caf\xe9",
    b"\xe2\x82",
    b"new\nline",
];

/// What both read alike: no braces, no backslashes, no `[^`, and classes that are closed.
const GLOBS: &[&str] = &[
    "*", "a*", "?", "*.csv", "[ab]", "[!a]*", "a", "b", "A", "ab", "a.csv", ".csv", "s-1", "1", "a b", "]", "é", "**",
    "??", "*b", "*.*", ".*", "?.csv", "[a-c]*", "[!.]*", "s-[0-9]", "s-*[0-9]", "[]a]*", "[a-]*", "[!]]", "caf?",
    "[*]", "[[]a]", "[é-ë]", "z*",
];

/// One of a list, half the time of its first few.
fn one_of<T: Clone + std::fmt::Debug>(list: &'static [T], first: usize) -> impl Strategy<Value = T> {
    prop_oneof![select(&list[..first]), select(list)]
}

/// Matches by path below the source, each with what is shown of it.
type Matches = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

fn arb_tree() -> impl Strategy<Value = Tree> {
    let thing = (any::<Index>(), one_of(NAMES, 4), prop::bool::weighted(0.45));
    (select(&["a", "s-1", "B.CSV"][..]), prop::collection::vec(thing, 0..40)).prop_map(|(name, things)| {
        let mut tree = Tree::new(name.as_bytes());
        let mut directories = vec![Real::new()];
        for (parent, name, is_dir) in things {
            let path = [parent.get(&directories).clone(), vec![name.to_vec()]].concat();
            if tree.at(&path).is_some() {
                continue;
            }
            if is_dir {
                directories.push(path.clone());
            }
            tree.put(&path.join(&b'/'), if is_dir { Node::dir() } else { Node::File { bytes: Vec::new() } });
        }
        tree
    })
}

fn arb_pattern() -> impl Strategy<Value = Value> {
    let name = || prop_oneof![3 => Just(json!(null)), 1 => Just(json!("")), 3 => one_of(GLOBS, 6).prop_map(|glob| json!(glob))];
    let files = |max| prop::collection::vec(one_of(GLOBS, 6), 0..=max);
    let body = move |directories: BoxedStrategy<Vec<Value>>, optional: BoxedStrategy<Vec<Value>>| {
        (name(), files(1), directories, files(2), optional).prop_map(|(name, files, directories, optional, more)| {
            let mut pattern = json!({"directory_name": name, "files": files, "directories": directories,
                "optional_files": optional, "optional_directories": more});
            if files.is_empty() && directories.is_empty() && optional.is_empty() && more.is_empty() {
                // A pattern that names nothing stands for its whole subtree here, for an empty directory there.
                pattern["optional_files"] = json!(["no such file"]);
            }
            pattern
        })
    };
    let none = || Just(Vec::new()).boxed();
    body(none(), none()).prop_recursive(3, 8, 2, move |inner| {
        let some = |max| prop::collection::vec(inner.clone(), 0..=max).boxed();
        body(some(1), some(2))
    })
}

fn ours(laid: &Laid, pattern: &Value) -> Matches {
    let automaton = compile(&read(std::slice::from_ref(pattern))).expect("the pattern is right");
    let source = laid.source();
    let reported = laid.walk(&automaton, &source, &WalkOptions::default());
    let matches = reported.found.iter().map(|found| {
        let name = laid.root.file_name().expect("a source has a name");
        (found.path.as_bytes().to_vec(), shown(&automaton, &source, name.as_bytes(), found))
    });
    matches.collect()
}

/// What pathvein prints for a case, which is `MATCH/./PATH` for all that it copies.
fn theirs(root: &Path, lines: &[&[u8]]) -> Matches {
    let mut matches = Matches::new();
    for line in lines {
        let at = line.windows(3).position(|part| part == b"/./").expect("a match and what is copied");
        let found = Path::new(OsStr::from_bytes(&line[..at])).strip_prefix(root).expect("a match is in the source");
        let shown = matches.entry(found.as_os_str().as_bytes().to_vec()).or_default();
        let path = &line[at + 3..];
        if !path.is_empty() {
            shown.insert(path.strip_suffix(b"/").unwrap_or(path).to_vec());
        }
    }
    matches
}

/// A Python with pathvein, if it can be had.
fn python() -> Option<PathBuf> {
    let made = Command::new(scripts().join("pathvein-env")).output().expect("the script can be run");
    if made.status.success() {
        return Some(PathBuf::from(OsStr::from_bytes(made.stdout.trim_ascii())));
    }
    let reason = String::from_utf8_lossy(&made.stderr);
    assert!(std::env::var_os("VEINFS_REQUIRE_PATHVEIN").is_none_or(|value| value != "1"), "no pathvein: {reason}");
    eprintln!("SKIP: no pathvein to compare with: {reason}");
    None
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

#[test]
fn plain_patterns_are_those_of_pathvein() {
    let Some(python) = python() else { return };
    let mut runner = TestRunner::deterministic();
    let cases: Vec<(Tree, Laid, PathBuf, Value)> = (0..CASES)
        .map(|_| {
            let case = (arb_tree(), arb_pattern()).new_tree(&mut runner).expect("nothing is filtered");
            let (tree, pattern) = case.current();
            let laid = Laid::new(&tree);
            let root = laid.root.canonicalize().expect("it is laid out");
            (tree, laid, root, pattern)
        })
        .collect();
    let copies = tempfile::tempdir().expect("a temporary directory");
    let mut child = Command::new(python)
        .arg(scripts().join("pathvein-scan"))
        .args([OsStr::new("--batch"), OsStr::new("--copy"), copies.path().as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input: String = cases
        .iter()
        .map(|(_, _, root, pattern)| format!("{}\n", json!({"source": root, "pattern": pattern})))
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("all cases are read");
    assert!(output.status.success(), "pathvein-scan failed");

    let mut records = output.stdout.split(|byte| *byte == 0);
    let (mut matched, mut shown) = (0, 0);
    for (tree, laid, root, pattern) in &cases {
        let lines: Vec<&[u8]> = records.by_ref().take_while(|record| !record.is_empty()).collect();
        let (ours, theirs) = (ours(laid, pattern), theirs(root, &lines));
        let text = |matches: &Matches| {
            format!(
                "{:?}",
                matches
                    .iter()
                    .map(|(at, shown)| {
                        (
                            at.escape_ascii().to_string(),
                            shown.iter().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>(),
                        )
                    })
                    .collect::<Vec<_>>()
            )
        };
        assert_eq!(text(&ours), text(&theirs), "{pattern}\nin {tree:?}");
        matched += ours.len();
        shown += ours.values().map(BTreeSet::len).sum::<usize>();
    }
    assert!(matched > 2 * CASES && shown > CASES, "the cases say little: {matched} matches show {shown} entries");
}
