//! The oracle against answers worked out by hand from `docs/patterns.md`, in its order.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;
use serde_json::{Value, json};
use veinfs::entry::Kind;

use super::{Mapping, Outcome, Tree, glob_error, glob_match, joined, json, lay_out, matches, split, view};

/// What patterns find in a tree called `root`: matches as `path` or `path name=value`, undecided ones as `path?`, the
/// root's path as `.`.
fn found(lines: &[&str], patterns: &[Value]) -> Vec<Vec<String>> {
    let tree = Tree::from_lines("root", lines);
    let patterns: Vec<_> =
        patterns.iter().enumerate().map(|(i, value)| json::pattern(&format!("p{i}"), value)).collect();
    let show = |path: &[u8]| if path.is_empty() { ".".to_owned() } else { path.escape_ascii().to_string() };
    let outcome = |outcome: &Outcome| {
        let matches = outcome.matches.iter().map(|(path, captures)| {
            let values = captures.iter().map(|(name, value)| {
                format!(" {name}={}", value.as_ref().map_or("_".into(), |value| value.escape_ascii().to_string()))
            });
            show(path) + &values.collect::<String>()
        });
        matches.chain(outcome.undecided.iter().map(|path| show(path) + "?")).collect()
    };
    matches(&patterns, &tree).iter().map(outcome).collect()
}

#[track_caller]
fn check(lines: &[&str], pattern: Value, expected: &[&str]) {
    assert_eq!(found(lines, std::slice::from_ref(&pattern))[0], expected, "{pattern} in {lines:?}");
}

/// What the match at `path` shows.
#[track_caller]
fn check_view(lines: &[&str], pattern: Value, path: &str, expected: &[&str]) {
    let tree = Tree::from_lines("root", lines);
    let parsed = json::pattern("p", &pattern);
    let outcome = &matches(std::slice::from_ref(&parsed), &tree)[0];
    let (path, captures) = outcome.matches.iter().find(|(at, _)| at == path.as_bytes()).expect("the directory matches");
    let shown = view(&parsed, &tree, path, captures);
    let shown: Vec<String> = shown.iter().map(|path| path.escape_ascii().to_string()).collect();
    assert_eq!(shown, expected, "{pattern} in {lines:?}");
}

#[test]
fn what_a_directory_offers() {
    let tree = ["a/f", "b/l -> ../a/f", "c/l -> ../a", "d/l -> nowhere", "e/l|", "f/l/", "g/l -> ../e/l"];
    check(&tree, json!({"files": ["l"]}), &["b", "d", "g"]);
    check(&tree, json!({"directories": [{"directory_name": "l"}]}), &["c", "f"]);
    check(&["a/"], json!({"directory_name": "root"}), &["."]);
    check(&["a/"], json!({}), &[".", "a"]);
    check(&["a/"], json!({"directory_name": ""}), &[".", "a"]);
}

#[test]
fn links_above_the_root_are_told_apart() {
    for (lines, escapes) in [
        (vec!["a -> sub/../a", "sub -> ."], true),
        (vec!["d/a -> ../.."], true),
        (vec!["d/a -> ../d/..", "b -> nowhere", "c -> c"], false),
    ] {
        assert_eq!(Tree::from_lines("root", &lines).escapes(), escapes, "{lines:?}");
    }
}

#[test]
fn links_lead_through_links_and_end_in_loops() {
    let tree = ["a/x", "l -> m", "m -> n/../a", "n/", "o -> o", "p -> ../root/a", "q -> a/x/..", "r -> ./a/."];
    let kinds = ["l", "m", "o", "p", "q", "r"]
        .map(|name| Tree::from_lines("root", &tree).kind(&split(name.as_bytes())).expect("it is there"));
    assert_eq!(kinds, [Kind::LinkDir, Kind::LinkDir, Kind::LinkFile, Kind::LinkFile, Kind::LinkFile, Kind::LinkDir]);
    let chain = |links: usize| {
        let mut tree = Tree::from_lines("root", &["d/"]);
        for i in 0..links {
            let to = if i == 0 { "d".into() } else { format!("l{}", i - 1) };
            tree.put(format!("l{i}").as_bytes(), super::Node::Link { to: to.into() });
        }
        tree.kind(&split(format!("l{}", links - 1).as_bytes()))
    };
    assert_eq!((chain(40), chain(41)), (Some(Kind::LinkDir), Some(Kind::LinkFile)));
}

#[test]
fn globs_match_by_character() {
    let table: &[(&str, &[u8], bool)] = &[
        ("a", b"a", true),
        ("a", b"A", false),
        ("a", b"ab", false),
        ("*", b"", true),
        ("*.c", b".c", true),
        ("*", b".dot", true),
        ("a**b", b"axxb", true),
        ("**", b"x", true),
        ("?", b"x", true),
        ("?", b"", false),
        ("?", "é".as_bytes(), true),
        ("??", "é".as_bytes(), false),
        ("?", b"\xe9", true),
        ("??", b"\xe2\x82", true),
        ("?a", b"\xe2a", true),
        ("caf?", b"caf\xe9", true),
        ("[a-z_]", b"_", true),
        ("[a-z_]", b"5", false),
        ("[!a]", b"b", true),
        ("[!a]", b"a", false),
        ("[^a]", b"b", true),
        ("[^a]", b"^", true),
        ("[!a]", b"\xff", true),
        ("[à-ï]", "é".as_bytes(), true),
        ("[!a]", "é".as_bytes(), true),
        ("[]a]", b"]", true),
        ("[!]a]", b"]", false),
        ("[-a]", b"-", true),
        ("[a-]", b"-", true),
        ("[a-]", b"b", false),
        ("[a^]", b"^", true),
        ("[\\]", b"\\", true),
        ("[*]", b"x", false),
        ("{a,b}c", b"bc", true),
        ("{a,{b,c}d}", b"cd", true),
        ("x{,.gz}", b"x", true),
        ("x{,.gz}", b"x.gz", true),
        ("{a,b", b"", false),
        ("a,b", b"a,b", true),
        ("{[},],x}", b",", true),
        ("\\*", b"*", true),
        ("\\*", b"x", false),
        ("\\a", b"a", true),
        ("]", b"]", true),
        ("<x>", b"<x>", true),
    ];
    let none = BTreeMap::new();
    for (glob, name, expected) in table {
        let is_match = glob_error(glob, &none).is_none() && !glob_match(glob, None, false, name).is_empty();
        assert_eq!(is_match, *expected, "{glob} on {}", name.escape_ascii());
    }
}

#[test]
fn wrong_globs_are_errors() {
    let declared = BTreeMap::from([("s".to_owned(), ".*".to_owned())]);
    for glob in ["[", "[]", "[!]", "a[b", "[z-a]", "{a", "{a,{b}", "}", "a}", "\\", "a\\", "<t>"] {
        assert!(glob_error(glob, &declared).is_some(), "{glob}");
    }
    for glob in ["<s>", "\\<t>", "<", "<>", "a>", "[<]"] {
        assert_eq!(glob_error(glob, &declared), None, "{glob}");
    }
}

#[test]
fn case_folds_simply() {
    let table: &[(&str, &str, bool)] = &[
        ("straße", "STRASSE", false),
        ("é", "É", true),
        ("[a-c]", "B", true),
        ("[!a-c]", "B", false),
        ("k", "\u{212a}", true),
        ("σ", "ς", true),
    ];
    for (glob, name, expected) in table {
        assert_eq!(!glob_match(glob, None, true, name.as_bytes()).is_empty(), *expected, "{glob} on {name}");
    }
}

#[test]
fn globs_yield_every_way() {
    let declared = BTreeMap::from([("r".to_owned(), "[0-9]*".to_owned()), ("s".to_owned(), "[a-z]+".to_owned())]);
    let ways = |glob: &str, name: &[u8]| -> Vec<String> {
        let text = |mapping: &Mapping| -> Vec<String> {
            mapping.iter().map(|(name, value)| format!("{name}={}", value.escape_ascii())).collect()
        };
        glob_match(glob, Some(&declared), false, name).iter().map(|mapping| text(mapping).join(" ")).collect()
    };
    assert_eq!(ways("<s>-<r>", b"ab-12"), ["r=12 s=ab"]);
    assert_eq!(ways("*<s>*", b"ab"), ["s=a", "s=ab", "s=b"]);
    assert_eq!(ways("<s><s>", b"abab"), ["s=ab"]);
    assert_eq!(ways("{<s>,*}", b"ab"), ["", "s=ab"]);
    assert_eq!(ways("a<r>", b"a"), ["r="]);
    assert_eq!(ways("<s>", b"a1").len(), 0);
}

#[test]
fn file_clauses_count_and_look_inside() {
    let tree = ["a/1.c=xy", "a/2.c=needle", "b/1.c", "c/x -> ../a/2.c", "d/x -> away"];
    check(&tree, json!({"files": [{"glob": "*.c", "min": 2}]}), &["a"]);
    check(&tree, json!({"files": [{"glob": "*.c", "max": 1}]}), &["b"]);
    check(&tree, json!({"files": [{"glob": "*.c", "min": 0, "max": 0}]}), &[".", "c", "d"]);
    check(&tree, json!({"files": [{"glob": "*.c", "min": 0, "max": 1}], "directory_name": "?"}), &["b", "c", "d"]);
    check(&tree, json!({"files": [{"glob": "*", "size": ">0"}]}), &["a", "c"]);
    check(&tree, json!({"files": [{"glob": "*", "size": "<1"}]}), &["b"]);
    check(&tree, json!({"files": [{"glob": "*", "magic": {"offset": 1, "bytes": "y"}}]}), &["a"]);
    check(&tree, json!({"files": [{"glob": "*", "contains": "eedl"}]}), &["a", "c"]);
    check(&tree, json!({"files": [{"glob": "*", "contains": "eedl", "max": 0, "min": 0}]}), &[".", "b", "d"]);
    check(&tree, json!({"files": [{"glob": "1.c", "size": "=2", "contains": "needle"}]}), &[]);
    check(&tree, json!({"files": ["1.c", "?.c"]}), &["a", "b"]);
    check(&tree, json!({"files": [["2.c", ["x", "y"]]]}), &["a", "c", "d"]);
}

#[test]
fn directory_clauses() {
    let tree = ["a/b/x", "a/c/y", "d/b/", "d/c/x"];
    check(&tree, json!({"directories": [{"directory_name": "b", "files": ["x"]}]}), &["a"]);
    check(&tree, json!({"directories": [{"directory_name": "b"}, {"files": ["x"]}]}), &["a", "d"]);
    check(&tree, json!({"directories": [[{"directory_name": "z"}, [{"files": ["y"]}]]]}), &["a"]);
    check(&tree, json!({"directories": [{"directories": [{"files": ["y"]}]}]}), &["."]);
    check(&tree, json!({"forbidden_directories": [{"files": ["y"]}], "directories": [{}]}), &[".", "d"]);
    check(&tree, json!({"forbidden_files": ["x"], "directory_name": "[bc]"}), &["a/c", "d/b"]);
    check(&tree, json!({"optional_files": ["x"], "recommended_directories": [{}], "directory_name": "d"}), &["d"]);
}

#[test]
fn path_globs_are_subpatterns() {
    let tree = ["a/b/x", "a/c/x", "a/c/d/x", "a/c/d/y", "z/"];
    check(&tree, json!({"files": ["b/x"]}), &["a"]);
    check(&tree, json!({"files": ["*/*/x"]}), &[".", "a"]);
    check(&tree, json!({"files": ["**/x"]}), &[".", "a", "a/b", "a/c", "a/c/d"]);
    check(&tree, json!({"files": ["c/**/y"]}), &["a"]);
    check(&tree, json!({"files": ["c/**"]}), &["a"]);
    check(&tree, json!({"files": ["a/**/x/**"]}), &[]);
    check(&tree, json!({"forbidden_files": ["**/x"]}), &["z"]);
    check(&tree, json!({"files": [{"glob": "*/x", "min": 2}]}), &["a"]);
    check(&tree, json!({"files": [{"glob": "**/x", "min": 3}]}), &[".", "a"]);
    check(&tree, json!({"files": [{"glob": "**/x", "max": 1}]}), &["a/b", "a/c/d"]);
    check(&tree, json!({"files": [{"glob": "C/D/Y", "case_insensitive": true}]}), &["a"]);
}

#[test]
fn names_and_ancestors() {
    let tree = ["a/b/c/", "x/b/c/"];
    check(&tree, json!({"directory_name": "b", "forbidden_ancestors": ["x"]}), &["a/b"]);
    check(&tree, json!({"directory_name": "c", "forbidden_ancestors": ["x"]}), &["a/b/c"]);
    check(&tree, json!({"directory_name": "x", "forbidden_ancestors": ["x"]}), &["x"]);
    check(&tree, json!({"forbidden_ancestors": ["r*"]}), &["."]);
    check(&tree, json!({"forbidden_names": ["b", "roo?"]}), &["a", "a/b/c", "x", "x/b/c"]);
    check(&tree, json!({"directories": [{"directory_name": "c", "forbidden_ancestors": ["a"]}]}), &["x/b"]);
    check(&tree, json!({"directories": [{"forbidden_names": ["c"], "directory_name": "?"}]}), &[".", "a", "x"]);
}

#[test]
fn alternatives_follow_the_same_rules() {
    let tree = ["a/x", "b/y", "c/x", "c/y", "d/e/"];
    check(&tree, json!({"any_of": [{"files": ["x"]}, {"files": ["y"]}]}), &["a", "b", "c"]);
    check(&tree, json!({"any_of": [{"files": ["x"], "forbidden_files": ["y"]}, {"directory_name": "b"}]}), &["a", "b"]);
    check(&tree, json!({"any_of": [{"any_of": [{"directories": [{"directory_name": "e"}]}]}]}), &["d"]);
    check(
        &tree,
        json!({"any_of": [{"files": ["x"]}, {}], "forbidden_files": ["x"], "directory_name": "?"}),
        &["b", "d", "d/e"],
    );
    check(&tree, json!({"any_of": [], "directory_name": "a"}), &["a"]);
}

#[test]
fn case_is_ignored_below_unless_told() {
    let tree = ["A/X", "A/B/x"];
    check(&tree, json!({"files": ["x"]}), &["A/B"]);
    check(&tree, json!({"files": ["x"], "case_insensitive": true}), &["A", "A/B"]);
    check(&tree, json!({"files": [{"glob": "x", "case_insensitive": false}], "case_insensitive": true}), &["A/B"]);
    check(&tree, json!({"directories": [{"directory_name": "b", "files": ["X"]}], "case_insensitive": true}), &["A"]);
    check(&tree, json!({"directories": [{"directory_name": "b", "case_insensitive": true}]}), &["A"]);
    check(&tree, json!({"directory_name": "a", "directories": [{"case_insensitive": true}]}), &[]);
    check(&tree, json!({"forbidden_names": ["a", "root"], "case_insensitive": true}), &["A/B"]);
}

#[test]
fn captures_agree_within_a_match() {
    let own = |name: &str, files: Value| json!({"captures": {"s": "[0-9]+"}, "directory_name": name, "files": files});
    let tree = ["sub-01/sub-01_bold", "sub-02/sub-01_bold", "sub-03/x"];
    check(&tree, own("sub-<s>", json!(["sub-<s>_bold"])), &["sub-01 s=01"]);
    check(&tree, own("*", json!(["sub-<s>_bold"])), &["sub-01 s=01", "sub-02 s=01"]);
    let tree = ["1.a", "2.a", "2.b", "3.b", "3.a"];
    check(&tree, own("*", json!(["<s>.a", "<s>.b"])), &[". s=2"]);
    check(&tree, own("*", json!([["<s>.z", "<s>.b"]])), &[". s=2"]);
    check(&tree, own("*", json!(["{<s>,3}.b"])), &[". s=2"]);
    check(&["3.b"], own("*", json!(["{<s>,3}.b"])), &[". s=3"]);
    check(&["3.b"], own("*", json!(["?.b"])), &[". s=_"]);
    // The value matches the whole regular expression.
    check(&["a1"], json!({"captures": {"s": "a|a1x"}, "files": ["<s>1"]}), &[". s=a"]);
    check(&["a1"], json!({"captures": {"s": "a|1"}, "files": ["<s>"]}), &[]);
    check(&["\u{e9}x"], json!({"captures": {"s": "."}, "files": ["<s>x"]}), &[". s=\\xc3\\xa9"]);
}

#[test]
fn captures_of_subpatterns_are_their_own() {
    let tree = ["d1/1.x", "d2/2.x", "d3/4.x"];
    let sub = json!({"directory_name": "d<s>", "files": ["<s>.x"]});
    check(&tree, json!({"captures": {"s": "."}, "directories": [sub], "directory_name": "root"}), &[". s=1"]);
    let mut own = sub.clone();
    own["captures"] = json!({"s": "."});
    check(&tree, json!({"directories": [own, {"directory_name": "d3"}]}), &["."]);
    // Two clauses of one value, and of values of their own.
    let (a, b) = (json!({"files": ["a<s>"]}), json!({"files": ["b<s>"]}));
    let tree = ["p/a1", "q/b2"];
    check(&tree, json!({"captures": {"s": "."}, "directories": [a, b]}), &[]);
    let (a, b) =
        (json!({"files": ["a<s>"], "captures": {"s": "."}}), json!({"files": ["b<s>"], "captures": {"s": "."}}));
    check(&tree, json!({"directories": [a, b]}), &["."]);
}

#[test]
fn path_globs_yield_unions_along_the_path() {
    let tree = ["1/1.x", "2/3.x", "4/5/4.y"];
    check(&tree, json!({"captures": {"s": "."}, "files": ["<s>/<s>.x"]}), &[". s=1"]);
    check(&tree, json!({"captures": {"s": "."}, "files": ["<s>/**/<s>.y"]}), &[". s=4"]);
    check(&tree, json!({"captures": {"a": ".", "b": "."}, "files": ["<a>/<b>.x"]}), &[". a=1 b=1"]);
}

#[test]
fn counts_are_of_agreeing_files() {
    let tree = ["1a", "1b", "2a", "3a", "3b", "3c"];
    let count =
        |min: u32, max: u32| json!({"captures": {"s": "."}, "files": [{"glob": "<s>?", "min": min, "max": max}]});
    check(&tree, count(1, 1), &[". s=2"]);
    check(&tree, count(2, 2), &[". s=1"]);
    check(&tree, count(3, 9), &[". s=3"]);
    check(&tree, count(4, 9), &[]);
    check(&tree, count(0, 5), &[]);
    check(&tree, count(0, 6), &[". s=_"]);
}

#[test]
fn forbidden_clauses_reject_agreeing_mappings() {
    let tree = ["1.a", "2.a", "1.b"];
    check(&tree, json!({"captures": {"s": "."}, "files": ["<s>.a"], "forbidden_files": ["<s>.b"]}), &[". s=2"]);
    check(&tree, json!({"captures": {"s": "."}, "files": ["?.a"], "forbidden_files": ["<s>.b"]}), &[]);
    check(&tree, json!({"captures": {"s": "."}, "files": ["<s>.a"], "forbidden_files": ["?.b"]}), &[]);
    // A forbidden clause is judged in its own directory, with what the clauses there give.
    let sub = json!({"directory_name": "d<s>", "forbidden_files": ["<s>.x"]});
    let tree = ["d1/1.x", "d2/1.x"];
    check(&tree, json!({"captures": {"s": "."}, "directories": [sub]}), &[". s=2"]);
    let sub = json!({"forbidden_files": ["<s>.x"]});
    check(&tree, json!({"captures": {"s": "."}, "directories": [sub]}), &[]);
}

#[test]
fn the_smallest_mapping_is_shown() {
    let tree = ["2-x", "1-y"];
    check(&tree, json!({"captures": {"a": ".", "b": "."}, "files": ["<b>-<a>"]}), &[". a=x b=2"]);
    check(&tree, json!({"captures": {"a": ".", "b": "."}, "files": ["{<b>,?}-{x,<a>}"]}), &[". a=x b=2"]);
}

#[test]
fn optional_clauses_set_what_is_left() {
    let pattern = json!({
        "captures": {"a": ".", "b": "."}, "files": ["<a>.x"],
        "recommended_files": ["<a><b>.y"], "optional_files": ["<a><b>.z"], "optional_directories": [{"files": ["<b>"]}],
    });
    check(&["1.x", "12.y", "03.z"], pattern.clone(), &[". a=1 b=2"]);
    check(&["1.x", "12.y", "13.z"], pattern.clone(), &[". a=1 b=3"]);
    check(&["1.x", "12.y", "d/8", "d/7"], pattern.clone(), &[". a=1 b=7"]);
    check(&["1.x"], pattern, &[". a=1 b=_"]);
}

#[test]
fn unreadable_directories_are_unknown() {
    let tree = ["a/u!", "a/x", "b/x"];
    check(&tree, json!({"files": ["x"]}), &["a", "b", "a/u?"]);
    check(&tree, json!({"directory_name": "u"}), &["a/u"]);
    check(&tree, json!({"directory_name": "a", "directories": [{"files": ["x"]}]}), &["a?"]);
    check(&tree, json!({"files": ["**/x"]}), &[".", "a", "b", "a/u?"]);
    check(&tree, json!({"directory_name": "?", "forbidden_directories": [{"files": ["y"]}]}), &["b", "a?", "a/u?"]);
    check(&tree, json!({"files": [{"glob": "**/x", "max": 2}]}), &["b", ".?", "a?", "a/u?"]);
    check(&tree, json!({"files": [{"glob": "**/x", "max": 1}]}), &["b", "a?", "a/u?"]);
    check(&tree, json!({"files": [{"glob": "**/x", "min": 3}]}), &[".?", "a?", "a/u?"]);
    check(&tree, json!({"files": [{"glob": "y", "min": 0}], "directory_name": "u"}), &["a/u"]);
    check(&tree, json!({"files": [["x", "u/y"]], "directory_name": "a"}), &["a"]);
    check(&tree, json!({"directories": [{"directory_name": "v", "files": ["x"]}]}), &["a/u?"]);
    check(
        &tree,
        json!({"captures": {"s": "."}, "files": ["<s>"], "forbidden_directories": [{"files": ["<s>"]}]}),
        &["b s=x", "a?", "a/u?"],
    );
}

#[test]
fn pruned_and_opaque_matches_hide_what_is_inside() {
    let tree = ["a/x", "a/b/x", "a/b/c/x", "d/x"];
    let (plain, prune) = (json!({"files": ["x"]}), json!({"files": ["x"], "prune": true}));
    let opaque = json!({"directory_name": "b", "opaque": true});
    assert_eq!(found(&tree, &[plain.clone(), prune, opaque]), [vec!["a", "a/b", "d"], vec!["a", "d"], vec!["a/b"]]);
    // By structure: what is inside a match counts as one for pruning.
    let outer = json!({"directory_name": "a", "opaque": true});
    let inner = json!({"directory_name": "b", "opaque": true});
    assert_eq!(found(&tree, &[plain.clone(), outer, inner]), [vec!["a", "d"], vec!["a"], vec![]]);
    let sub = json!({"directories": [{"directory_name": "b", "opaque": true}]});
    assert_eq!(found(&tree, &[plain, sub])[0], ["a", "a/b", "a/b/c", "d"]);
    check(&["a/.veinfs/x", ".veinfs/b/x"], json!({"files": ["x"]}), &[]);
}

#[test]
fn links_are_read_but_not_walked() {
    let tree = ["a/x", "b/l -> ../a", "c/up -> ..", "c/x"];
    check(&tree, json!({"files": ["x"]}), &["a", "c"]);
    check(&tree, json!({"directories": [{"directory_name": "l", "files": ["x"]}]}), &["b"]);
    check(&tree, json!({"files": ["l/x"]}), &["b"]);
    check(&tree, json!({"directory_name": "c", "files": [{"glob": "**/x", "max": 1}]}), &["c"]);
    check(&tree, json!({"directory_name": "c", "files": ["up/c/up/c/x"]}), &["c"]);
    check(&["l -> .", "x"], json!({"files": [{"glob": "**/x", "max": 1}]}), &["."]);
    check(&["l -> .", "x"], json!({"directories": [{"directory_name": "l", "files": ["x"]}]}), &["."]);
}

#[test]
fn views_show_what_clauses_name() {
    let tree = ["a/x", "a/y", "a/z", "a/d/x", "a/d/y", "a/e/f/x", "a/e/f/y", "a/p|", "a/l -> d", "a/m -> x"];
    check_view(&tree, json!({"files": ["x"], "optional_files": ["q"]}), "a", &["x"]);
    check_view(
        &tree,
        json!({"files": ["x"], "optional_files": ["y"], "recommended_files": ["m"]}),
        "a",
        &["m", "x", "y"],
    );
    check_view(&tree, json!({"directories": [{"directory_name": "d", "files": ["y"]}]}), "a", &["d", "d/y"]);
    check_view(
        &tree,
        json!({"optional_directories": [{"files": ["x"]}], "files": ["z"]}),
        "a",
        &["d", "d/x", "l", "l/x", "z"],
    );
    check_view(
        &tree,
        json!({"recommended_directories": [{"directory_name": "e"}], "files": ["z"]}),
        "a",
        &["e", "e/f", "e/f/x", "e/f/y", "z"],
    );
    check_view(&tree, json!({"files": ["e/**/y"]}), "a", &["e", "e/f", "e/f/y"]);
    check_view(&tree, json!({"files": [["x", "q"], ["y", "z"]]}), "a", &["x", "y", "z"]);
    check_view(&tree, json!({"files": [[{"glob": "?", "max": 1}, "y"]]}), "a", &["y"]);
    check_view(&tree, json!({"files": ["x"], "optional_files": [{"glob": "?", "size": ">0"}]}), "a", &["x"]);
    check_view(&tree, json!({"any_of": [{"files": ["x"]}, {"files": ["y", "q"]}]}), "a", &["x"]);
    check_view(&tree, json!({"files": ["x"], "forbidden_files": ["q"]}), "a/e/f", &["x"]);
}

#[test]
fn views_of_whole_subtrees() {
    let tree = ["a/x", "a/d/y", "a/p|", "a/l -> d", "a/up -> .", "a/gone -> nowhere"];
    let whole = ["d", "d/y", "gone", "l", "l/y", "up", "x"];
    check_view(&tree, json!({"directory_name": "a"}), "a", &whole);
    check_view(&tree, json!({"files": ["x"], "opaque": true}), "a", &whole);
    check_view(&tree, json!({"directory_name": "a", "forbidden_files": ["q"]}), "a", &whole);
    check_view(&tree, json!({"any_of": [{"directory_name": "a"}]}), "a", &whole);
    check_view(
        &tree,
        json!({"directories": [{"directory_name": "d", "files": ["y"], "opaque": true}]}),
        "a",
        &["d", "d/y"],
    );
}

#[test]
fn views_agree_with_captures() {
    let pattern = json!({
        "captures": {"s": "[0-9]"}, "directory_name": "d<s>", "files": ["<s>*"],
        "optional_directories": [{"directory_name": "<s>", "files": ["*<s>"]}],
    });
    let tree = ["d1/1a", "d1/2a", "d1/1/x1", "d1/1/x2", "d1/2/x2"];
    check_view(&tree, pattern, "d1", &["1", "1/x1", "1a"]);
    // A subpattern's own captures have one value in each of its matches.
    let pattern = json!({"directories": [{"captures": {"r": "[0-9]"}, "files": ["r<r>"], "optional_files": ["s<r>"]}]});
    let tree = ["m/r1", "m/r2", "m/s1", "m/s2", "n/r2", "n/s2"];
    check_view(&tree, pattern, "", &["m", "m/r1", "m/s1", "n", "n/r2", "n/s2"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Links and kinds in the model are what the kernel makes of the tree on disk.
    #[test]
    fn the_model_is_what_the_kernel_sees(tree in crate::generate::arb_tree()) {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let root = lay_out(&tree, temp.path());
        for path in tree.paths() {
            let on_disk = root.join(OsStr::from_bytes(&joined(&path)));
            let meta = std::fs::symlink_metadata(&on_disk).expect("it was laid out");
            let target = std::fs::metadata(&on_disk).ok();
            let kind = if meta.is_symlink() {
                if target.as_ref().is_some_and(std::fs::Metadata::is_dir) { Kind::LinkDir } else { Kind::LinkFile }
            } else if meta.is_dir() {
                Kind::Dir
            } else if meta.is_file() {
                Kind::File
            } else {
                Kind::Special
            };
            prop_assert_eq!(tree.kind(&path), Some(kind), "{}", on_disk.display());
            let size = target.filter(std::fs::Metadata::is_file).map(|meta| meta.len());
            prop_assert_eq!(tree.bytes(&path).map(|bytes| bytes.len() as u64), size, "{}", on_disk.display());
        }
    }

    /// Where captures are not used, globs mean what they mean to globset, on names in ASCII.
    #[test]
    fn globs_are_those_of_globset(glob in r"([a-c*?,-]|\[[!^]?[a-c]{1,2}\]|\{[a-c*]{0,2},[a-c?]{1,2}\}|\\[*a?]){0,6}", name in "[a-c*?,-]{1,5}") {
        let reference = globset::GlobBuilder::new(&glob).empty_alternates(true).backslash_escape(true).build();
        let reference = reference.expect("the glob is right").compile_matcher().is_match(&name);
        prop_assert_eq!(!glob_match(&glob, None, false, name.as_bytes()).is_empty(), reference);
    }
}
