//! What is generated is valid, and matches often.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use veinfs::pattern::{Body, DirClause, FileClause, Pattern, Subpattern};

use super::{arb_case, arb_pattern};
use crate::oracle::{Node, glob_error, matches, split, view};

/// Panics at the first malformed glob of a pattern, and at counted paths with more than one `**`.
fn check_globs(pattern: &Pattern) {
    fn glob(glob: &str, captures: &BTreeMap<String, String>) {
        assert_eq!(glob_error(glob, captures), None, "{glob}");
        assert!(!glob.is_empty() && !glob.contains('/'), "{glob}");
    }
    fn sub(sub: &Subpattern, above: &BTreeMap<String, String>) {
        let mut captures = above.clone();
        captures.extend(sub.captures.clone());
        sub.forbidden_names.iter().chain(&sub.forbidden_ancestors).for_each(|name| glob(name, &captures));
        check_body(&sub.body, &captures);
    }
    fn check_body(body: &Body, captures: &BTreeMap<String, String>) {
        body.directory_name.iter().for_each(|name| glob(name, captures));
        let clauses = [&body.files, &body.optional_files, &body.recommended_files, &body.forbidden_files];
        clauses.into_iter().flatten().for_each(|clause| files(clause, captures));
        let clauses =
            [&body.directories, &body.optional_directories, &body.recommended_directories, &body.forbidden_directories];
        clauses.into_iter().flatten().for_each(|clause| directories(clause, captures));
        body.any_of.iter().for_each(|alternative| check_body(alternative, captures));
    }
    fn files(clause: &FileClause, captures: &BTreeMap<String, String>) {
        match clause {
            FileClause::AnyOf(clauses) => clauses.iter().for_each(|clause| files(clause, captures)),
            FileClause::One(test) => {
                let components: Vec<&str> = test.glob.split('/').collect();
                components.iter().for_each(|component| glob(component, captures));
                let stars = components.iter().filter(|component| **component == "**").count();
                let is_counted = test.min != 1 || test.max.is_some();
                assert!(!is_counted || components.len() == 1 || stars <= 1, "{test:?}");
                assert!(test.max.is_none_or(|max| max >= test.min), "{test:?}");
            }
        }
    }
    fn directories(clause: &DirClause, captures: &BTreeMap<String, String>) {
        match clause {
            DirClause::AnyOf(clauses) => clauses.iter().for_each(|clause| directories(clause, captures)),
            DirClause::One(one) => sub(one, captures),
        }
    }
    sub(&pattern.root, &BTreeMap::new());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_are_valid(pattern in arb_pattern()) {
        check_globs(&pattern);
    }

    #[test]
    fn what_is_shown_is_there((tree, patterns) in arb_case()) {
        for (pattern, outcome) in patterns.iter().zip(matches(&patterns, &tree)) {
            check_globs(pattern);
            for (path, captures) in &outcome.matches {
                let dir = tree.at(&split(path));
                prop_assert!(matches!(dir, Some(Node::Dir { .. })), "no directory {}", path.escape_ascii());
                for shown in view(pattern, &tree, path, captures) {
                    let shown = [split(path), split(&shown)].concat();
                    prop_assert!(tree.kind(&shown).is_some_and(|kind| kind.is_file() || kind.is_dir()));
                }
            }
        }
    }
}

/// A good share of patterns match somewhere, and every feature takes part.
#[test]
fn cases_match_often() {
    let mut runner = TestRunner::deterministic();
    let mut counts = BTreeMap::<&str, usize>::new();
    for _ in 0..600 {
        let (tree, patterns) = arb_case().new_tree(&mut runner).expect("nothing is filtered").current();
        for (pattern, outcome) in patterns.iter().zip(matches(&patterns, &tree)) {
            let text = format!("{pattern:?}");
            let has_match = !outcome.matches.is_empty();
            let features = [
                ("patterns", true),
                ("with a match", has_match),
                ("with a match, but not all", has_match && outcome.matches.len() < tree.paths().len() / 4),
                ("undecided", !outcome.undecided.is_empty()),
                ("captures set in a match", outcome.matches.iter().any(|(_, all)| all.values().any(Option::is_some))),
                ("counts, matching", has_match && text.contains("max: Some")),
                ("paths, matching", has_match && text.contains("**/")),
                ("any_of, matching", has_match && text.contains("any_of: [B")),
                ("alternatives, matching", has_match && text.contains("AnyOf")),
                ("forbidden, matching", has_match && text.contains("forbidden_files: [O")),
                ("contents, matching", has_match && (text.contains("SizeTest") || text.contains("Magic"))),
                ("nested, matching", has_match && !pattern.root.body.directories.is_empty()),
            ];
            for (feature, is_there) in features {
                *counts.entry(feature).or_default() += usize::from(is_there);
            }
        }
    }
    println!("{counts:#?}");
    assert!(counts["with a match"] * 5 > counts["patterns"] * 2, "{counts:?}");
    assert!(counts.values().all(|count| *count >= 15), "{counts:?}");
}
