//! `veinfs explain`: it agrees with the oracle, what it says to change does help and is the least, and how it reads.

use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;
use veinfs::entry::RelPath;
use veinfs::explain::clauses::{Clause, Met, explain};
use veinfs::explain::cure::{Action, Change, apply, cure};
use veinfs::explain::load::{Limits, outline};
use veinfs::explain::outline::{Content, Dir, Entry, File};
use veinfs::explain::{Explanation, Question};
use veinfs::listing::Scratch;
use veinfs::matcher::bits::Bits;
use veinfs::pattern::load::to_json;
use veinfs::pattern::{Body, Pattern, Subpattern};
use veinfs::walk::WalkOptions;

use crate::differential::Laid;
use crate::generate::arb_case;
use crate::oracle::{self, Name, Node, Real, Tree, joined, split};

mod commands;
mod reading;

/// How long a list of changes is sought in tests, in steps.
const STEPS: u32 = 3_000;

struct Case(Tree, Vec<Pattern>);

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: [", self.0.name.escape_ascii().to_string())?;
        for path in self.0.paths().iter().skip(1) {
            writeln!(f, "  {} = {:?}", joined(path).escape_ascii(), self.0.at(path).map(summary))?;
        }
        self.1.iter().try_for_each(|pattern| write!(f, "]\n{}", to_json(pattern)))
    }
}

fn summary(node: &Node) -> String {
    match node {
        Node::Dir { readable: true, .. } => "dir".into(),
        Node::Dir { .. } => "unreadable dir".into(),
        Node::File { bytes } => format!("file {:?}", bytes.escape_ascii().to_string()),
        Node::Link { to } => format!("link to {:?}", to.escape_ascii().to_string()),
        Node::Special => "FIFO".into(),
    }
}

fn cases() -> impl Strategy<Value = Case> {
    arb_case().prop_map(|(tree, patterns)| Case(tree, patterns))
}

/// What is read of a directory of a tree that is laid out.
fn read(question: &Question, laid: &Laid, tree: &Tree, path: &[Name]) -> (Dir, Bits) {
    let path = RelPath::from_bytes(joined(path));
    let options = WalkOptions::default();
    let loaded = outline(&question.automaton, &laid.source(), &tree.name, &path, &options, Limits::default());
    (loaded.dir, loaded.above)
}

fn explained(question: &Question, dir: &Dir, above: &Bits) -> Explanation {
    explain(question, &dir.judge(&question.automaton, &mut Scratch::new(&question.automaton), above))
}

fn question(pattern: &Pattern) -> Question {
    Question::new(pattern).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

/// Directories that a walk looks at.
fn directories(tree: &Tree) -> Vec<Real> {
    let is_dir = |path: &Real| matches!(tree.at(path), Some(Node::Dir { .. }));
    let entered = |path: &Real| path.iter().all(|name| name != b".veinfs");
    tree.paths().into_iter().filter(|path| is_dir(path) && entered(path)).collect()
}

/// The pattern with nothing but one of its clauses, and neither pruning nor opaque.
fn only(pattern: &Pattern, keep: impl FnOnce(&mut Body, &Body)) -> Pattern {
    let root = &pattern.root;
    let mut body = Body::default();
    keep(&mut body, &root.body);
    let root = Subpattern { body, forbidden_names: Vec::new(), forbidden_ancestors: Vec::new(), ..root.clone() };
    Pattern { root, ..plain(pattern) }
}

fn plain(pattern: &Pattern) -> Pattern {
    let mut pattern = Pattern { prune: false, ..pattern.clone() };
    pattern.root.opaque = false;
    pattern
}

/// What the oracle says of every directory: yes, no or unknown.
fn by_oracle(pattern: &Pattern, tree: &Tree) -> BTreeMap<Vec<u8>, Met> {
    let outcome = oracle::matches(std::slice::from_ref(pattern), tree).remove(0);
    let mut met: BTreeMap<Vec<u8>, Met> = outcome.matches.into_iter().map(|(path, _)| (path, Met::Yes)).collect();
    met.extend(outcome.undecided.into_iter().map(|path| (path, Met::Unknown)));
    met
}

/// The pattern of each clause at the top, by its place.
fn single_clauses(pattern: &Pattern) -> Vec<(String, Pattern)> {
    let body = &pattern.root.body;
    let mut all = Vec::new();
    for at in 0..body.files.len() {
        all.push((format!("files[{at}]"), only(pattern, |to, from| to.files.push(from.files[at].clone()))));
    }
    for at in 0..body.directories.len() {
        let keep = |to: &mut Body, from: &Body| to.directories.push(from.directories[at].clone());
        all.push((format!("directories[{at}]"), only(pattern, keep)));
    }
    for at in 0..body.recommended_files.len() {
        let keep = |to: &mut Body, from: &Body| to.files.push(from.recommended_files[at].clone());
        all.push((format!("recommended_files[{at}]"), only(pattern, keep)));
    }
    for at in 0..body.optional_directories.len() {
        let keep = |to: &mut Body, from: &Body| to.directories.push(from.optional_directories[at].clone());
        all.push((format!("optional_directories[{at}]"), only(pattern, keep)));
    }
    for at in 0..body.forbidden_files.len() {
        let keep = |to: &mut Body, from: &Body| to.files.push(from.forbidden_files[at].clone());
        all.push((format!("forbidden_files[{at}]"), only(pattern, keep)));
    }
    for at in 0..body.any_of.len() {
        let keep = |to: &mut Body, from: &Body| to.any_of.push(from.any_of[at].clone());
        all.push((format!("any_of[{at}]"), only(pattern, keep)));
    }
    if body.directory_name.is_some() {
        let keep = |to: &mut Body, from: &Body| to.directory_name.clone_from(&from.directory_name);
        all.push(("directory_name".into(), only(pattern, keep)));
    }
    all
}

fn flat(clauses: &[Clause]) -> Vec<&Clause> {
    let mut all = Vec::new();
    for clause in clauses {
        all.push(clause);
        if clause.key == "any_of" {
            all.extend(&clause.clauses);
        }
    }
    all
}

/// The verdict, and that of every clause at the top, are the oracle's.
fn check_verdicts(Case(tree, patterns): &Case) -> Result<(), TestCaseError> {
    let laid = Laid::new(tree);
    for pattern in patterns.iter().map(plain) {
        let question = question(&pattern);
        let whole = by_oracle(&pattern, tree);
        let singles: Vec<_> =
            single_clauses(&pattern).into_iter().map(|(at, one)| (at, by_oracle(&one, tree))).collect();
        for path in directories(tree) {
            let (dir, above) = read(&question, &laid, tree, &path);
            let explanation = explained(&question, &dir, &above);
            let of = |met: &BTreeMap<Vec<u8>, Met>| met.get(&joined(&path)).copied().unwrap_or(Met::No);
            let place = joined(&path).escape_ascii().to_string();
            prop_assert_eq!(explanation.met, of(&whole), "{}", &place);
            for (at, single) in &singles {
                let clauses = flat(&explanation.clauses);
                let clause = clauses.iter().find(|clause| clause.place == *at && clause.key != "captures");
                let Some(clause) = clause else {
                    // A glob that any name matches says nothing.
                    prop_assert_eq!(at, "directory_name");
                    continue;
                };
                let wanted = match (of(single), at.starts_with("forbidden")) {
                    (met, false) => met,
                    (Met::Yes, true) => Met::No,
                    (Met::No, true) => Met::Yes,
                    (Met::Unknown, true) => Met::Unknown,
                };
                prop_assert_eq!(clause.met, wanted, "{}: {}", &place, at);
            }
        }
    }
    Ok(())
}

/// Makes the changes in a tree.
fn change(tree: &mut Tree, base: &[Name], changes: &[Change]) {
    let mut base = base.to_vec();
    for Change { path, action } in changes {
        let path: Real = [&base[..], &split(path)].concat();
        match action {
            Action::CreateDir => insert(tree, &path, Node::dir()),
            Action::CreateFile(made) | Action::Rewrite(made) => {
                let mut bytes = made.bytes.clone();
                bytes.resize(usize::try_from(made.size).expect("it is small"), 0);
                insert(tree, &path, Node::File { bytes });
            }
            Action::Remove => drop(remove(tree, &path)),
            Action::Rename(to) if path.is_empty() => tree.name = to.to_vec(),
            Action::Rename(to) => {
                let node = remove(tree, &path);
                let mut renamed = path.clone();
                *renamed.last_mut().expect("it is not the root") = to.to_vec();
                assert!(tree.at(&renamed).is_none(), "{} is there", to.escape_ascii());
                insert(tree, &renamed, node);
                if path == base {
                    base = renamed;
                }
            }
        }
    }
}

fn entries<'a>(tree: &'a mut Tree, path: &[Name]) -> &'a mut BTreeMap<Name, Node> {
    let mut at = &mut tree.root;
    for name in path {
        let Node::Dir { children, .. } = at else { panic!("no directory at {name:?}") };
        at = children.get_mut(name).unwrap_or_else(|| panic!("{} is not there", name.escape_ascii()));
    }
    let Node::Dir { children, .. } = at else { panic!("no directory") };
    children
}

fn insert(tree: &mut Tree, path: &[Name], node: Node) {
    let (name, above) = path.split_last().expect("it is not the root");
    entries(tree, above).insert(name.clone(), node);
}

fn remove(tree: &mut Tree, path: &[Name]) -> Node {
    let (name, above) = path.split_last().expect("it is not the root");
    entries(tree, above).remove(name).expect("it is there")
}

/// What happens behind one link can happen behind another one.
fn has_links(tree: &Tree) -> bool {
    tree.paths().iter().any(|path| matches!(tree.at(path), Some(Node::Link { .. })))
}

/// After the changes the directory matches: by the oracle, and by a scan of what is then on disk.
fn check_cures(Case(tree, patterns): &Case) -> Result<(), TestCaseError> {
    prop_assume!(!has_links(tree));
    let laid = Laid::new(tree);
    for pattern in patterns.iter().map(plain) {
        let question = question(&pattern);
        for path in directories(tree) {
            let (dir, above) = read(&question, &laid, tree, &path);
            if explained(&question, &dir, &above).met != Met::No {
                continue;
            }
            let Some(cure) = cure(&pattern, &question.automaton, &dir, &above, STEPS) else { continue };
            let mut changed = tree.clone();
            // A new name for the directory may be another one's in the tree.
            let renamed = cure.changes.iter().find_map(|change| match &change.action {
                Action::Rename(to) if change.path.is_empty() => Some(to.to_vec()),
                _ => None,
            });
            let mut after = path.clone();
            if let (Some(to), Some(last)) = (renamed, after.last_mut()) {
                *last = to;
                if tree.at(&after).is_some() {
                    continue;
                }
            }
            change(&mut changed, &path, &cure.changes);
            let said = || format!("{:?} of {}", &cure, joined(&path).escape_ascii());
            let met = by_oracle(&pattern, &changed).get(&joined(&after)).copied();
            prop_assert_eq!(met, Some(Met::Yes), "{}", said());
            let laid = Laid::new(&changed);
            let reported =
                laid.walk(&question.automaton, &laid.source(), &WalkOptions { threads: 1, ..WalkOptions::default() });
            let found = reported.found.iter().any(|found| found.path.as_bytes() == joined(&after));
            prop_assert!(found, "not found by a scan: {}", said());
        }
    }
    Ok(())
}

/// All that one change can make of a directory, over few names and contents.
fn neighbours(dir: &Dir, names: &[Name], contents: &[File]) -> Vec<Dir> {
    let mut all = Vec::new();
    for name in names.iter().filter(|name| **name != *dir.name) {
        all.push(Dir { name: name.clone().into(), ..dir.clone() });
    }
    inner_neighbours(dir, names, contents, &mut all);
    all
}

fn inner_neighbours(dir: &Dir, names: &[Name], contents: &[File], all: &mut Vec<Dir>) {
    let Content::Read(entries) = &dir.content else { return };
    let with = |entries: Vec<Entry>| {
        let mut entries = entries;
        entries.sort_by(|a, b| a.name().cmp(b.name()));
        Dir { content: Content::Read(entries), ..dir.clone() }
    };
    let free: Vec<&Name> = names.iter().filter(|name| dir.entry(name).is_none()).collect();
    for name in &free {
        for content in contents {
            let file = File { name: (*name).clone().into(), ..content.clone() };
            all.push(with([entries.clone(), vec![Entry::File(file)]].concat()));
        }
        all.push(with([entries.clone(), vec![Entry::Dir(Dir::empty(name))]].concat()));
    }
    for at in 0..entries.len() {
        let without = || [&entries[..at], &entries[at + 1..]].concat();
        all.push(with(without()));
        for name in &free {
            let mut renamed = entries[at].clone();
            match &mut renamed {
                Entry::File(file) => file.name = (*name).clone().into(),
                Entry::Dir(dir) => dir.name = (*name).clone().into(),
                Entry::Special(old) => *old = (*name).clone().into(),
            }
            all.push(with([without(), vec![renamed]].concat()));
        }
        match &entries[at] {
            Entry::File(file) => {
                for content in contents {
                    let file = File { name: file.name.clone(), ..content.clone() };
                    all.push(with([without(), vec![Entry::File(file)]].concat()));
                }
            }
            Entry::Dir(child) if !child.linked => {
                let mut inner = Vec::new();
                inner_neighbours(child, names, contents, &mut inner);
                all.extend(inner.into_iter().map(|child| with([without(), vec![Entry::Dir(child)]].concat())));
            }
            Entry::Dir(_) | Entry::Special(_) => {}
        }
    }
}

/// A tiny tree, and a pattern of few clauses over the same few names.
fn tiny() -> impl Strategy<Value = Case> {
    let name = || prop::sample::select(vec!["a", "b", "c.x"]);
    let glob = || prop::sample::select(vec!["a", "b", "*.x", "[ab]", "*", "{a,c}*"]);
    let entry = prop_oneof![
        3 => name().prop_map(|name| name.to_owned()),
        1 => name().prop_map(|name| format!("{name}/")),
        1 => (prop::sample::select(vec!["a", "d"]), name()).prop_map(|(dir, name)| format!("{dir}/{name}")),
    ];
    let file = (glob(), 0u32..3, prop::option::weighted(0.3, 0u32..3), prop::bool::weighted(0.15)).prop_map(
        |(glob, min, max, tested)| {
            let max = max.map(|max| max.max(min));
            let contains = tested.then_some("needle");
            serde_json::json!({"glob": glob, "min": if max.is_none() { min.max(1) } else { min }, "max": max,
                "contains": contains})
        },
    );
    let clean = |mut value: serde_json::Value| {
        if let Some(object) = value.as_object_mut() {
            object.retain(|_, value| !value.is_null());
        }
        value
    };
    let file = move || file.clone().prop_map(clean);
    let files = move || prop::collection::vec(file(), 0..3);
    let dir = (prop::option::of(glob()), prop::collection::vec(glob(), 0..2), prop::collection::vec(glob(), 0..2))
        .prop_map(|(name, files, forbidden)| {
            serde_json::json!({"directory_name": name, "files": files, "forbidden_files": forbidden})
        });
    let dirs = move || prop::collection::vec(dir.clone(), 0..2);
    let pattern =
        (prop::option::weighted(0.3, glob()), files(), dirs(), prop::collection::vec(glob(), 0..2), dirs(), files())
            .prop_map(|(name, files, directories, forbidden, forbidden_dirs, any)| {
                let any: Vec<_> = any.into_iter().map(|file| serde_json::json!({"files": [file]})).collect();
                let text = serde_json::json!({"name": "p", "directory_name": name, "files": files,
                "directories": directories, "forbidden_files": forbidden, "forbidden_directories": forbidden_dirs,
                "any_of": any})
                .to_string();
                let format = veinfs::pattern::load::Format::Json;
                veinfs::pattern::load::load_text(text.as_bytes(), format, "test", "p").expect("it is valid").remove(0)
            });
    (prop::collection::vec(entry, 0..4), pattern).prop_map(|(lines, pattern)| {
        let mut tree = Tree::new(b"d");
        for line in lines {
            let path = split(line.trim_end_matches('/').as_bytes());
            let blocked = (1..=path.len()).any(|length| matches!(tree.at(&path[..length]), Some(Node::File { .. })));
            if !blocked && tree.at(&path).is_none() {
                let node = if line.ends_with('/') { Node::dir() } else { Node::File { bytes: Vec::new() } };
                tree.put(&joined(&path), node);
            }
        }
        Case(tree, vec![pattern])
    })
}

/// How far brute force goes.
const FAR: usize = 2;

/// No shorter list of the same changes does, where explain says so. Gives whether it said so.
fn check_shortest(Case(tree, patterns): &Case) -> Result<(bool, bool), TestCaseError> {
    let laid = Laid::new(tree);
    let question = question(&patterns[0]);
    let (dir, above) = read(&question, &laid, tree, &[]);
    if explained(&question, &dir, &above).met != Met::No {
        return Ok((false, false));
    }
    let found = cure(&patterns[0], &question.automaton, &dir, &above, STEPS);
    let cost = found.as_ref().map_or(usize::MAX, |cure| cure.changes.len());
    if let Some(cure) = &found {
        let after = apply(&dir, &cure.changes).expect("the changes can be made");
        prop_assert_eq!(explained(&question, &after, &above).met, Met::Yes);
    }
    let names: Vec<Name> = ["a", "b", "c.x", "z", "ax"].iter().map(|name| name.as_bytes().to_vec()).collect();
    let tests = &question.automaton.tests;
    let with = |passed: bool| File {
        tests: tests.iter().map(|test| (test.clone(), Some(passed))).collect(),
        ..File::named(b"")
    };
    let contents = if tests.is_empty() { vec![with(false)] } else { vec![with(false), with(true)] };
    let mut scratch = Scratch::new(&question.automaton);
    let mut reached = vec![dir];
    let claimed = found.as_ref().is_some_and(|cure| cure.shortest);
    for far in 1..=FAR.min(cost.saturating_sub(1)) {
        let mut next = Vec::new();
        for neighbour in reached.iter().flat_map(|dir| neighbours(dir, &names, &contents)) {
            if !neighbour.judge(&question.automaton, &mut scratch, &above).verdict.accepted.is_empty() {
                prop_assert!(!claimed, "{} changes are enough: {:?}; said: {:?}", far, &neighbour, &found);
                return Ok((claimed, true));
            }
            if far < FAR.min(cost.saturating_sub(1)) {
                next.push(neighbour);
            }
        }
        reached = next;
    }
    Ok((claimed, found.is_some()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_and_clauses_are_those_of_the_oracle(case in cases()) {
        check_verdicts(&case)?;
    }

    #[test]
    fn what_is_said_to_help_does(case in cases()) {
        check_cures(&case)?;
    }
}

#[test]
fn what_is_said_to_be_shortest_is() {
    // `VEINFS_CASES=5000` looks further.
    let cases = std::env::var("VEINFS_CASES").map_or(128, |cases| cases.parse().expect("VEINFS_CASES: a number"));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let counts = std::cell::RefCell::new((0u32, 0u32));
    let result = runner.run(&tiny(), |case| {
        let (claimed, found) = check_shortest(&case)?;
        let mut counts = counts.borrow_mut();
        counts.0 += u32::from(claimed);
        counts.1 += u32::from(found);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let (claimed, found) = *counts.borrow();
    assert!(found >= 20 && claimed * 10 >= found * 7, "of {found} lists only {claimed} are known to be the shortest");
}

#[test]
fn one_name_for_two_things_makes_no_list_the_shortest() {
    let cases = [
        // What is in the way is what is lacking elsewhere.
        (
            r#"{"name":"p","files":["b"],"directories":[{"directory_name":"[ab]"}],"forbidden_files":["*.x"]}"#,
            &["b/", "c.x"][..],
        ),
        // What is in the way has to go in any case.
        (
            r#"{"name":"p","files":["*"],"forbidden_files":["b"],"forbidden_directories":[{}],"any_of":[{"files":["a"]}]}"#,
            &["a/", "a/a"],
        ),
        // A directory is made by a name that a file is to have.
        (
            r#"{"name":"p","directories":[{"directory_name":"[ab]"}],"forbidden_files":["a"],
                "any_of":[{"files":[{"glob":"*.x","min":0,"max":0}]},{"files":["b"]}]}"#,
            &["a", "c.x"],
        ),
    ];
    for (text, paths) in cases {
        let format = veinfs::pattern::load::Format::Json;
        let patterns = veinfs::pattern::load::load_text(text.as_bytes(), format, "test", "p").expect("it is valid");
        let mut tree = Tree::new(b"d");
        for path in paths {
            let node = if path.ends_with('/') { Node::dir() } else { Node::File { bytes: Vec::new() } };
            tree.put(path.trim_end_matches('/').as_bytes(), node);
        }
        check_shortest(&Case(tree, patterns))
            .expect("two changes do, and nothing else is said to be the shortest list");
    }
}
