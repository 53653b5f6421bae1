//! The automaton against each glob's own exact reading.

use proptest::prelude::*;

use super::*;
use crate::matcher::mapping::CaptureId;

fn set(globs: &[&str], captures: &[(&str, &str)], fold: bool) -> NameSet {
    let captures: Vec<Capture> = (0..)
        .map(CaptureId)
        .zip(captures)
        .map(|(id, (name, expression))| Capture::new(name, id, expression).expect("a right expression"))
        .collect();
    let globs = globs.iter().map(|glob| Glob::parse(glob, &captures, fold).expect("a right glob")).collect();
    NameSet::new(globs, captures).expect("small enough")
}

fn matched(set: &NameSet, cache: &mut NameCache, name: &[u8]) -> Vec<usize> {
    let mut ids = vec![GlobId(u32::MAX)];
    set.matches(cache, name, &mut ids);
    let mut matched: Vec<usize> = ids.iter().map(|id| id.index()).collect();
    matched.sort_unstable();
    matched
}

fn model(set: &NameSet, name: &[u8]) -> Vec<usize> {
    (0..set.len()).filter(|at| set.globs[*at].matches(name, &set.captures)).collect()
}

#[test]
fn every_glob_that_matches_is_told() {
    let set = set(&["*.txt", "a*", "?", "{a,b}", "", "[!a]", "é"], &[], false);
    let mut cache = set.cache();
    let table: &[(&[u8], &[usize])] = &[
        (b"a.txt", &[0, 1]),
        (b"a", &[1, 2, 3]),
        (b"", &[4]),
        ("é".as_bytes(), &[2, 5, 6]),
        (b"\xff", &[2, 5]),
        (b"a\xff", &[1]),
        (b"\xff.txt", &[0]),
        (b"zz", &[]),
    ];
    for (name, wanted) in table {
        assert_eq!(matched(&set, &mut cache, name), *wanted, "{name:?}");
        assert_eq!(model(&set, name), *wanted, "{name:?}");
    }
    let none = NameSet::new(Vec::new(), Vec::new()).expect("small enough");
    assert!(none.is_empty() && matched(&none, &mut none.cache(), b"a").is_empty());
}

#[test]
fn no_value_is_part_of_a_character() {
    let set = set(&["<b><b>", "<b>*", "*"], &[("b", "(?s-u:.)")], false);
    let mut cache = set.cache();
    assert_eq!(matched(&set, &mut cache, "é".as_bytes()), [2]);
    assert_eq!(matched(&set, &mut cache, b"\xc3a"), [0, 1, 2]);
}

fn glob() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ab.éÉkK]",
        2 => Just("?".to_owned()),
        2 => Just("*".to_owned()),
        2 => "\\[[!^]?[abé\u{80}-\u{7ff}]{1,2}\\]",
        1 => Just("[!\u{0}-\u{7f}]".to_owned()),
        1 => Just("<t>".to_owned()),
        1 => Just("<b>".to_owned()),
    ];
    let sequence = proptest::collection::vec(piece, 0..5).prop_map(|parts| parts.concat());
    sequence.prop_recursive(2, 12, 3, |inner| {
        let braces = proptest::collection::vec(inner.clone(), 1..4).prop_map(|list| format!("{{{}}}", list.join(",")));
        (inner.clone(), braces, inner).prop_map(|(before, braces, after)| [before, braces, after].concat())
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ab.éÉkK\u{212A}🙂]".prop_map(String::into_bytes),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => prop_oneof![Just(b"\xc3".to_vec()), Just(b"\xf0\x9f".to_vec()), Just(b"\xa9".to_vec())],
    ];
    proptest::collection::vec(piece, 0..7).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_set_says_what_each_glob_says(
        globs in proptest::collection::vec(glob(), 1..8),
        names in proptest::collection::vec(name(), 24),
        fold in any::<bool>(),
        bytes in any::<bool>(),
    ) {
        let texts: Vec<&str> = globs.iter().map(String::as_str).collect();
        let expression = if bytes { r"(?-u:[a\x80-\xff])+" } else { "[ab]?k|é+" };
        let set = set(&texts, &[("t", "[^b]+"), ("b", expression)], fold);
        let mut cache = set.cache();
        for name in &names {
            prop_assert_eq!(matched(&set, &mut cache, name), model(&set, name), "{:?} and {:?}", globs, name);
        }
    }
}
