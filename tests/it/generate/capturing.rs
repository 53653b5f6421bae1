//! Trees and patterns in which captures are set in many ways, agree and disagree.

use veinfs::pattern::{Body, DirClause, FileClause, FileTest, Pattern, Subpattern};

use super::{Choices, named};

/// Names for captures to be set from, and globs for them where `A` and `B` stand for captures.
pub(super) const DIRECTORY_NAMES: &[&[u8]] = &[b"1", b"2", b"d1", b"d2"];
pub(super) const FILE_NAMES: &[&[u8]] = &[b"1", b"2", b"1a", b"2a", b"3a", b"1b", b"2b", b"12", b"21", b"11a"];
const DIRECTORY_GLOBS: &[&str] = &["A", "dA", "*", "{,d}A", "?", "*A", "d*"];
const FILE_GLOBS: &[&str] = &["A", "Aa", "Ab", "AB", "ABa", "A*", "*A*", "?a", "*", "{A,?}b", "A{,a}", "AA?"];

/// A pattern whose clauses set and share captures, for trees of [`FILE_NAMES`].
pub(super) fn make_pattern(number: usize, choices: Vec<u16>) -> Pattern {
    let mut choices = Choices(choices.into_iter());
    let mut root = subpattern(&mut choices, &[], 0);
    root.opaque = choices.chance(5);
    named(number, root, choices.chance(5))
}

fn subpattern(choices: &mut Choices, above: &[&'static str], depth: usize) -> Subpattern {
    let mut sub = Subpattern::default();
    let mut captures = above.to_vec();
    for name in ["r", "s"] {
        let percent = if depth == 0 { 50 } else { 45 };
        if !captures.contains(&name) && choices.chance(percent) {
            captures.push(name);
            sub.captures.insert(name.into(), choices.of(&["[0-9]", "[0-9]+", "[0-9]?", "1|3", "2"]).into());
        }
    }
    sub.body = clauses(choices, &captures, depth);
    sub
}

fn clauses(choices: &mut Choices, captures: &[&'static str], depth: usize) -> Body {
    let mut body = Body::default();
    if choices.chance(if depth == 0 { 15 } else { 60 }) {
        body.directory_name = Some(captured(choices, captures, DIRECTORY_GLOBS)).filter(|glob| glob != "*");
    }
    let lists = [
        (&mut body.files, [60, 30]),
        (&mut body.optional_files, [20, 0]),
        (&mut body.recommended_files, [20, 0]),
        (&mut body.forbidden_files, [20, 0]),
    ];
    for (list, percents) in lists {
        for percent in percents {
            if choices.chance(percent) {
                list.push(file_clause(choices, captures));
            }
        }
    }
    let lists = [
        (&mut body.directories, [50, 45]),
        (&mut body.optional_directories, [15, 0]),
        (&mut body.recommended_directories, [10, 0]),
        (&mut body.forbidden_directories, [15, 0]),
    ];
    for (list, percents) in lists {
        for percent in percents {
            if depth < 2 && choices.chance(percent) {
                let sub = DirClause::One(subpattern(choices, captures, depth + 1));
                list.push(if choices.chance(10) {
                    DirClause::AnyOf(vec![sub, DirClause::One(subpattern(choices, captures, depth + 1))])
                } else {
                    sub
                });
            }
        }
    }
    if depth < 2 && choices.chance(15) {
        body.any_of = (0..=choices.below(2)).map(|_| clauses(choices, captures, depth + 1)).collect();
    }
    body
}

fn file_clause(choices: &mut Choices, captures: &[&'static str]) -> FileClause {
    if choices.chance(12) {
        return FileClause::AnyOf((0..=choices.below(2)).map(|_| file_clause(choices, captures)).collect());
    }
    let mut glob = captured(choices, captures, FILE_GLOBS);
    if choices.chance(20) {
        let above = captured(choices, captures, DIRECTORY_GLOBS);
        glob = format!("{}/{glob}", if choices.chance(40) { "**".into() } else { above });
    }
    let mut test = FileTest::glob(glob);
    if choices.chance(35) {
        test.min = choices.of(&[1, 1, 2, 0, 3]);
        test.max = choices.of(&[None, Some(0), Some(1)]).map(|more| test.min + more);
    }
    FileClause::One(test)
}

/// A glob of `globs` with captures of those declared, `?` where none is.
fn captured(choices: &mut Choices, captures: &[&'static str], globs: &[&str]) -> String {
    let glob = choices.of(globs);
    let mut capture = |glob: String, place: &str| {
        let captures: Vec<String> = captures.iter().map(|name| format!("<{name}>")).collect();
        let value = if captures.is_empty() { "?".into() } else { choices.of(&captures) };
        glob.replace(place, &value)
    };
    let glob = capture(glob.to_owned(), "A");
    capture(glob, "B")
}
