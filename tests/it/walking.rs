//! What a walk goes into and what it leaves out.

use serde_json::{Value, json};
use veinfs::entry::RelPath;
use veinfs::listing::Exclude;
use veinfs::pattern::compile::compile;
use veinfs::walk::WalkOptions;

use crate::differential::{Laid, read};
use crate::oracle::Tree;

/// The matches in a tree called `root`, whose own path is `.`.
fn found(lines: &[&str], pattern: Value, options: &WalkOptions) -> Vec<String> {
    let automaton = compile(&read(&[pattern])).expect("the pattern is right");
    let laid = Laid::new(&Tree::from_lines("root", lines));
    let reported = laid.walk(&automaton, &laid.source(), options);
    let shown =
        |path: &RelPath| if path.is_root() { ".".into() } else { path.as_os_str().to_str().unwrap().to_owned() };
    reported.found.iter().map(|found| shown(&found.path)).collect()
}

fn files(glob: &str) -> Value {
    json!({"files": [glob]})
}

fn empty() -> Value {
    json!({"forbidden_files": ["*"], "forbidden_directories": [{}]})
}

#[test]
fn depth_is_limited() {
    let tree = ["a/b/c/x", "a/l -> b/c", "y"];
    let table: &[(u32, Value, &[&str])] = &[
        (4, files("x"), &["a/b/c"]),
        (3, files("x"), &[]),
        (3, json!({"directory_name": "c"}), &["a/b/c"]),
        (2, json!({"directory_name": "c"}), &[]),
        (3, empty(), &["a/b/c"]),
        (2, empty(), &["a/b"]),
        (1, empty(), &["a"]),
        (0, empty(), &["."]),
        (1, files("y"), &["."]),
        (0, files("y"), &[]),
        (0, json!({}), &["."]),
        (3, files("l/x"), &["a"]),
        (2, files("l/x"), &[]),
        (2, json!({"directories": [{"directory_name": "l"}]}), &["a"]),
        (1, json!({"directories": [{"directory_name": "l"}]}), &[]),
        (4, files("**/x"), &[".", "a", "a/b", "a/b/c"]),
        (3, files("**/x"), &[".", "a"]),
        (2, files("**/x"), &[]),
    ];
    for (limit, pattern, expected) in table {
        let options = WalkOptions { max_depth: Some(*limit), ..WalkOptions::default() };
        assert_eq!(found(&tree, pattern.clone(), &options), *expected, "{pattern} with --max-depth {limit}");
    }
}

#[test]
fn what_is_excluded_is_not_seen() {
    let tree = ["a/x", "a/b/x", "c/x", "c/b/y", "d/l -> ../a", "e/m -> ../c/x"];
    let table: &[(&str, Value, &[&str])] = &[
        ("zzz", files("x"), &["a", "a/b", "c"]),
        ("b", files("x"), &["a", "c"]),
        ("b/", files("x"), &["a", "c"]),
        ("a", files("x"), &["c"]),
        ("a/b", files("x"), &["a", "c"]),
        ("/a", files("x"), &["c"]),
        ("/b", files("x"), &["a", "a/b", "c"]),
        ("**/b", files("y"), &[]),
        ("*/b", files("y"), &[]),
        ("a/*", files("x"), &["c"]),
        ("x", files("x"), &[]),
        ("{a,c}", files("x"), &[]),
        ("l", files("l/x"), &[]),
        ("d/l/x", files("l/x"), &[]),
        ("a/x", files("l/x"), &["d"]),
        ("m", files("m"), &[]),
        ("x", files("m"), &["e"]),
        ("?", empty(), &["."]),
    ];
    for (glob, pattern, expected) in table {
        let exclude = Exclude::new(&[(*glob).to_owned()]).expect("the glob is right");
        let options = WalkOptions { exclude, ..WalkOptions::default() };
        assert_eq!(found(&tree, pattern.clone(), &options), *expected, "{pattern} with --exclude {glob}");
    }
}

#[test]
fn links_are_walked_if_asked() {
    // A tree, a pattern, its matches without and with --follow.
    type Row = (&'static [&'static str], Value, &'static [&'static str], &'static [&'static str]);
    let table: &[Row] = &[
        (&["a/x", "l -> a"], files("x"), &["a"], &["a", "l"]),
        (&["a/x", "l -> a"], json!({"directory_name": "l"}), &[], &["l"]),
        (&["a/b/x", "l -> a"], files("x"), &["a/b"], &["a/b", "l/b"]),
        (&["a/x", "a/up -> .."], files("x"), &["a"], &["a"]),
        (&["a/x", "a/up -> .."], files("up/a/x"), &["a"], &["a"]),
        (&["a/x", "a/up -> .."], files("**/x"), &[".", "a"], &[".", "a"]),
        (&["a/x", "a/self -> ."], files("self/x"), &["a"], &["a"]),
        (&["a/b -> ../b", "b/a -> ../a", "a/x", "b/y"], files("x"), &["a"], &["a", "b/a"]),
        (&["a/b -> ../b", "b/a -> ../a", "a/x", "b/y"], files("y"), &["b"], &["a/b", "b"]),
        (&["a/b -> ../b", "b/a -> ../a", "a/x", "b/y"], files("**/y"), &[".", "a", "b"], &[".", "a", "a/b", "b"]),
        (&["l -> gone", "m -> m", "a/f", "n -> a/f"], files("[lmn]"), &["."], &["."]),
    ];
    for (tree, pattern, plain, followed) in table {
        for (follow, expected) in [(false, plain), (true, followed)] {
            for threads in [1, 3] {
                let options = WalkOptions { follow, threads, ..WalkOptions::default() };
                assert_eq!(found(tree, pattern.clone(), &options), *expected, "{pattern}, follow: {follow}, {tree:?}");
            }
        }
    }
}

#[test]
fn some_directories_are_not_entered() {
    let tree = ["a/b/x", "a/x", "l -> a"];
    let table: &[(&str, Value, &[&str])] = &[
        ("c", files("x"), &["a", "a/b"]),
        ("a/b", files("x"), &["a"]),
        ("a/b", empty(), &["a/b"]),
        ("a/b", files("b/x"), &[]),
        ("a", files("x"), &[]),
        ("a", files("a/x"), &[]),
        ("a", files("l/x"), &["."]),
        ("l", files("l/x"), &[]),
        ("l/b", files("l/b/x"), &[]),
        ("l", json!({"directories": [{"directory_name": "l"}]}), &["."]),
    ];
    for (path, pattern, expected) in table {
        let not_entered = [RelPath::from_bytes(path.as_bytes())].into();
        let options = WalkOptions { not_entered, ..WalkOptions::default() };
        assert_eq!(found(&tree, pattern.clone(), &options), *expected, "{pattern} without {path}");
    }
}
