//! `infer`: what it prints for directories as people have them, and that it keeps its promise, by the oracle.

use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;
use proptest::sample::Index;
use veinfs::automaton::Test;
use veinfs::config::find_sources;
use veinfs::infer::gather::gather;
use veinfs::infer::{Dir, Failure, Inferred, Look, Options, Tree as Example, infer};
use veinfs::pattern::Pattern;
use veinfs::pattern::compile::compile;
use veinfs::pattern::lint::lint;
use veinfs::pattern::load::{Format, load_text, to_json};
use veinfs::stores::Stores;
use veinfs::walk::WalkOptions;

use crate::bed::TestBed;
use crate::generate::arb_tree;
use crate::oracle::{self, Name, Node, Tree};

mod snapshots;

/// What is in the files of a tree.
struct Contents(BTreeMap<Vec<u8>, Vec<u8>>);

impl Look for Contents {
    fn test(&self, path: &[u8], test: &Test) -> Option<bool> {
        let bytes = self.0.get(path)?;
        Some(match test {
            Test::Size(size) => size.holds(bytes.len() as u64),
            Test::Magic(magic) => bytes.get(magic.offset as usize..).is_some_and(|at| at.starts_with(&magic.bytes)),
            Test::Contains(text) => bytes.windows(text.len()).any(|window| window == &**text),
        })
    }

    fn size(&self, path: &[u8]) -> Option<u64> {
        self.0.get(path).map(|bytes| bytes.len() as u64)
    }

    fn head(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.0.get(path).cloned()
    }
}

/// A tree without links and special files, as `infer` takes it.
fn example(label: &str, tree: &Tree) -> Example {
    fn dir_of(name: &[u8], node: &Node, path: &[Name], contents: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Dir {
        let Node::Dir { children, readable } = node else { unreachable!("it is a directory") };
        let mut dir = Dir { name: name.into(), open: !readable, ..Dir::default() };
        // What is called so is not entered, and empty to patterns.
        if !readable || (!path.is_empty() && name == b".veinfs") {
            return dir;
        }
        for (name, child) in children {
            let path = [path, std::slice::from_ref(name)].concat();
            match child {
                Node::File { bytes } => {
                    dir.files.push(name.as_slice().into());
                    contents.insert(path.join(&b'/'), bytes.clone());
                }
                Node::Dir { .. } => dir.dirs.push(dir_of(name, child, &path, contents)),
                Node::Link { .. } | Node::Special => {}
            }
        }
        dir
    }
    let mut contents = BTreeMap::new();
    let dir = dir_of(&tree.name, &tree.root, &[], &mut contents);
    Example { label: label.to_owned(), dir, look: Box::new(Contents(contents)) }
}

fn examples(trees: &[Tree], what: &str) -> Vec<Example> {
    trees.iter().enumerate().map(|(at, tree)| example(&format!("{what}{at}"), tree)).collect()
}

/// The pattern, if its text reads back as the same and the linter has nothing to say.
#[track_caller]
fn sound(inferred: &Inferred) -> Pattern {
    let yaml = inferred.yaml();
    let read = load_text(yaml.as_bytes(), Format::Yaml, "inferred", "x").unwrap_or_else(|e| panic!("{e:?} in\n{yaml}"));
    assert_eq!(read, std::slice::from_ref(&inferred.pattern), "{yaml}");
    let json = to_json(&inferred.pattern).to_string();
    assert_eq!(load_text(json.as_bytes(), Format::Json, "inferred", "x").expect("it is right"), read, "{json}");
    let automaton = compile(&read).unwrap_or_else(|e| panic!("{e:?} in\n{yaml}"));
    let lints: Vec<String> = lint(&read, &automaton).iter().map(ToString::to_string).collect();
    assert!(lints.is_empty(), "{lints:?} in\n{yaml}");
    inferred.pattern.clone()
}

/// Whether the pattern matches a tree's root, by the oracle.
fn matches(pattern: &Pattern, tree: &Tree) -> bool {
    let outcome = oracle::matches(std::slice::from_ref(pattern), tree).remove(0);
    outcome.matches.iter().any(|(path, _)| path.is_empty())
}

/// True if no pattern can tell the two apart: names, and what is in files, are the same; bytes that are no text have no
/// name of their own in globs.
fn alike(one: &Tree, other: &Tree) -> bool {
    fn same(one: &Node, other: &Node) -> bool {
        match (one, other) {
            (Node::Dir { children: a, .. }, Node::Dir { children: b, .. }) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|((a, one), (b, other))| as_text(a) == as_text(b) && same(one, other))
            }
            (a, b) => a == b,
        }
    }
    as_text(&one.name) == as_text(&other.name) && same(&one.root, &other.root)
}

fn as_text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

struct Case {
    examples: Vec<Tree>,
    counters: Vec<Tree>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, trees) in [("example", &self.examples), ("counter", &self.counters)] {
            for tree in trees {
                writeln!(f, "{what} {}:", as_text(&tree.name))?;
                for path in tree.paths().iter().skip(1) {
                    let content = match tree.at(path) {
                        Some(Node::File { bytes }) => format!("={}", bytes.escape_ascii()),
                        _ => "/".to_owned(),
                    };
                    writeln!(f, "  {}{content}", as_text(&path.join(&b'/')))?;
                }
            }
        }
        Ok(())
    }
}

fn keeps_its_promise(case: &Case) -> Result<(), TestCaseError> {
    let (ours, theirs) = (examples(&case.examples, "example"), examples(&case.counters, "counter"));
    match infer(&ours, &theirs, &Options::default()) {
        Ok(inferred) => {
            let pattern = sound(&inferred);
            for tree in &case.examples {
                prop_assert!(matches(&pattern, tree), "{:?} is an example of\n{}", tree.name, inferred.yaml());
            }
            for tree in &case.counters {
                prop_assert!(!matches(&pattern, tree), "{:?} is none of\n{}", tree.name, inferred.yaml());
            }
        }
        Err(Failure::Alike { example, counter, .. }) => {
            let at = |label: &str, what: &str| label.trim_start_matches(what).parse::<usize>().expect("a number");
            let (one, other) = (&case.examples[at(&example, "example")], &case.counters[at(&counter, "counter")]);
            prop_assert!(alike(one, other), "{example} and {counter} differ");
        }
        Err(Failure::Example { example, reason }) => prop_assert!(false, "{example}: {reason}"),
    }
    Ok(())
}

/// Removes links and special files, which `infer`'s trees do not have, and names that no glob can tell apart.
fn plain(mut tree: Tree) -> Tree {
    fn simplify(node: &mut Node) {
        if let Node::Dir { children, readable } = node {
            *readable = true;
            children.retain(|name, child| {
                matches!(child, Node::Dir { .. } | Node::File { .. }) && std::str::from_utf8(name).is_ok()
            });
            // What is in such a directory is no part of the tree to patterns.
            if let Some(shut) = children.get_mut(b".veinfs".as_slice())
                && matches!(shut, Node::Dir { .. })
            {
                *shut = Node::dir();
            }
            children.values_mut().for_each(simplify);
        }
    }
    simplify(&mut tree.root);
    if std::str::from_utf8(&tree.name).is_err() {
        tree.name = b"latin".to_vec();
    }
    tree
}

/// What makes one laboratory's directory differ from the next.
#[derive(Clone, Debug)]
struct Subject {
    number: u8,
    sessions: u8,
    runs: u8,
    extra: Vec<u8>,
}

fn arb_subject() -> impl Strategy<Value = Subject> {
    (0u8..30, 0u8..3, 0u8..6, prop::collection::vec(0u8..12, 0..4))
        .prop_map(|(number, sessions, runs, extra)| Subject { number, sessions, runs, extra })
}

/// A subject's directory in the style of a laboratory.
fn lay(style: u8, subject: &Subject) -> Tree {
    let Subject { number, sessions, runs, extra } = subject;
    let id = match style % 4 {
        0 => format!("sub-{number:02}"),
        1 => format!("mouse{number}_2024-01-{:02}", number % 28 + 1),
        2 => ["anna", "ben", "carla", "dirk", "eva"][usize::from(number % 5)].to_owned(),
        _ => format!("{number}"),
    };
    let mut tree = Tree::new(id.as_bytes());
    let mut put = |path: String, content: &str| tree.put(path.as_bytes(), Node::File { bytes: content.into() });
    put("config.yaml".to_owned(), &format!("version: 1\nsubject: {number}\n"));
    for session in 1..=*sessions {
        for run in 1..=*runs {
            put(format!("ses-{session}/{id}_ses-{session}_run-{run:02}_bold.nii.gz"), "");
        }
        put(format!("ses-{session}/{id}_ses-{session}_events.tsv"), "onset\tduration\n");
    }
    for run in 0..*runs {
        put(format!("raw/frame_{:04}.tif", u32::from(run * number)), "II*");
    }
    for extra in extra {
        let names = [
            "notes.txt",
            ".DS_Store",
            "README",
            "config.yaml~",
            "a[1].csv",
            "<sub>.csv",
            "odd/{x}",
            "FAILED",
            "data.csv",
            "x,y",
            "été.txt",
            "no",
        ];
        put(names[usize::from(*extra)].to_owned(), "x");
    }
    tree
}

/// One small change.
fn mutate(mut tree: Tree, kind: u8, at: Index) -> Tree {
    let paths: Vec<_> = tree.paths().into_iter().skip(1).collect();
    if paths.is_empty() || kind == 0 {
        return tree;
    }
    let path = at.get(&paths);
    let (name, above) = path.split_last().expect("it is not the root");
    let joined = |extra: &[u8]| [above, &[extra.to_vec()]].concat().join(&b'/');
    match kind {
        1 => tree.put(&joined(b"extra.log"), Node::File { bytes: b"x".to_vec() }),
        2 => tree.put(&joined(b"extra"), Node::dir()),
        3 | 4 => {
            let mut node = &mut tree.root;
            for name in above {
                let Node::Dir { children, .. } = node else { return tree };
                let Some(child) = children.get_mut(name) else { return tree };
                node = child;
            }
            if let Node::Dir { children, .. } = node {
                match (kind, children.get_mut(name)) {
                    (4, Some(Node::File { bytes })) => bytes.push(b'!'),
                    _ => drop(children.remove(name)),
                }
            }
        }
        5 => {
            if let Some(Node::File { bytes }) = tree.at(path) {
                let mut bytes = bytes.clone();
                bytes.iter_mut().take(1).for_each(|byte| *byte = b'?');
                tree.put(&path.join(&b'/'), Node::File { bytes });
            }
        }
        _ => tree.name.push(b'x'),
    }
    tree
}

fn arb_laboratory() -> impl Strategy<Value = Case> {
    let subjects = prop::collection::vec(arb_subject(), 1..5);
    let mutations = prop::collection::vec((any::<Index>(), 0u8..7, any::<Index>()), 0..3);
    let strangers = prop::collection::vec(arb_subject(), 0..2);
    (any::<u8>(), subjects, mutations, strangers).prop_map(|(style, subjects, mutations, strangers)| {
        let examples: Vec<Tree> = subjects.iter().map(|subject| lay(style, subject)).collect();
        let mutants = mutations.into_iter().map(|(which, kind, at)| mutate(which.get(&examples).clone(), kind, at));
        let counters = mutants.chain(strangers.iter().map(|subject| lay(style, subject))).collect();
        Case { examples, counters }
    })
}

fn arb_mess() -> impl Strategy<Value = Case> {
    let trees = |count| prop::collection::vec(arb_tree().prop_map(plain), count);
    (trees(1..4), trees(0..3)).prop_map(|(examples, counters)| Case { examples, counters })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn laboratories_are_told_apart(case in arb_laboratory()) {
        keeps_its_promise(&case)?;
    }

    #[test]
    fn any_trees_are_told_apart(case in arb_mess()) {
        keeps_its_promise(&case)?;
    }
}

fn runs() -> TestBed {
    TestBed::new(&[
        "run_01/data.csv=1,2",
        "run_01/config.yaml=a: 1",
        "run_02/data.csv=1,2,3",
        "run_02/config.yaml=a: 2",
        "run_02/notes.txt=x",
        "run_03/data.csv=",
        "run_03/config.yaml=a: 3",
        "old/run_09/data.csv=1",
        "old/run_09/config.yaml=a: 9",
    ])
}

#[test]
fn the_command_prints_a_pattern_that_other_commands_take() {
    let bed = runs();
    let at = |name: &str| bed.src.join(name).to_str().expect("text").to_owned();
    let source = bed.src.to_str().expect("text").to_owned();
    let inferred = bed.veinfs(["infer", &at("run_01"), &at("run_02"), "--check", &source]).ok();
    let inferred = inferred.says("it also matches 2 directories in ").says("old/run_09\n").says("run_03\n");
    let pattern = bed.file("run.yaml", &inferred.text());
    assert_eq!(bed.veinfs(["check", &pattern]).ok().text(), "run: ok\n");
    assert_eq!(bed.scan(["-p", &pattern, "--count"]).ok().text(), "4\n");

    let inferred = bed.veinfs(["infer", &at("run_01"), &at("run_02"), "--not", &at("run_03"), "--name", "full"]).ok();
    let pattern = bed.file("full.yaml", &inferred.text());
    assert_eq!(bed.scan(["-p", &pattern]).ok().lines(), [at("old/run_09"), at("run_01"), at("run_02")]);
    let json = bed.veinfs(["infer", &at("run_01"), &at("run_02"), "--format", "json"]).ok();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!(json["files"], serde_json::json!(["config.yaml", "data.csv"]));
}

#[test]
fn the_command_says_what_is_wrong() {
    let bed = runs();
    let at = |name: &str| bed.src.join(name).to_str().expect("text").to_owned();
    let alike = bed.veinfs(["infer", &at("run_01"), &at("run_02"), "--not", &at("run_01")]).code(1);
    assert_eq!(alike.text(), "");
    alike.says("both have the same 2 files and 0 directories below them, of the same names, sizes and contents");
    bed.veinfs(["infer", &at("none")]).code(2).says("there is no such directory");
    bed.veinfs(["infer", &at("run_01/data.csv")]).code(2).says("not a directory");
    bed.veinfs(["infer", &at("run_01"), "--name", "a/b"]).code(2).says("--name a/b: it becomes a folder's name");
    bed.veinfs(["infer"]).code(2);
}

#[test]
fn links_count_by_their_names() {
    let bed = TestBed::new(&[
        "store/x/deep=",
        "a/raw -> ../store",
        "a/data.bin -> ../.git/annex/1",
        "b/raw -> ../store",
        "b/data.bin -> ../.git/annex/2",
        "c/data.bin=",
    ]);
    let at = |name: &str| bed.src.join(name).to_str().expect("text").to_owned();
    let inferred = bed.veinfs(["infer", &at("a"), &at("b"), "--name", "linked"]).ok();
    let pattern = bed.file("linked.yaml", &inferred.text());
    assert_eq!(bed.scan(["-p", &pattern]).ok().lines(), [at("a"), at("b")]);
}

#[test]
fn all_trees_are_read_to_the_same_depth() {
    let bed = TestBed::new(&["a/x/y/1=", "a/x/y/2=", "a/x/y/3=", "b/x/y/1=", "b/x/z -> y", "b/.veinfs/status.json="]);
    let sources = find_sources(&[bed.src.join("a").into(), bed.src.join("b").into()], &Stores::default())
        .expect("they are there");
    let options = vec![WalkOptions::default(); 2];
    let shown = |dir: &Dir| {
        fn show(dir: &Dir, text: &mut String) {
            text.push_str(&as_text(&dir.name));
            text.push_str(if dir.open { "?(" } else { "(" });
            dir.files.iter().for_each(|name| text.push_str(&format!("{} ", as_text(name))));
            dir.dirs.iter().for_each(|dir| show(dir, text));
            text.push(')');
        }
        let mut text = String::new();
        show(dir, &mut text);
        text
    };
    let whole = gather(&sources, &options, 64, 100).expect("they can be read");
    assert_eq!((whole.cut_at, whole.unread.len()), (None, 0));
    assert_eq!(shown(&whole.dirs[0]), "a(x(y(1 2 3 )))");
    assert_eq!(shown(&whole.dirs[1]), "b(.veinfs()x(y(1 )z?()))");
    let part = gather(&sources, &options, 64, 8).expect("they can be read");
    assert_eq!(part.cut_at, Some(2), "the four files would be too many");
    assert_eq!(shown(&part.dirs[0]), "a(x(y?()))");
    let shallow = gather(&sources, &options, 2, 100).expect("they can be read");
    assert_eq!((shallow.cut_at, shown(&shallow.dirs[1])), (Some(2), "b(.veinfs()x(y?()z?()))".to_owned()));
}
