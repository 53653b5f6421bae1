//! A table of patterns and what is told of each.

use super::*;
use crate::pattern::compile::compile;
use crate::pattern::library::LIBRARY;
use crate::pattern::load::{Format, load_text};

fn lints(yaml: &str) -> Vec<Lint> {
    let patterns = load_text(yaml.as_bytes(), Format::Yaml, "p.yaml", "p").unwrap_or_else(|e| panic!("{yaml}: {e:?}"));
    let automaton = compile(&patterns).unwrap_or_else(|e| panic!("{yaml}: {e:?}"));
    lint(&patterns, &automaton)
}

fn told(yaml: &str) -> Vec<String> {
    lints(yaml).iter().map(|lint| lint.to_string().replacen("p.yaml: ", "", 1)).collect()
}

#[track_caller]
fn check(table: &[(&str, &[&str])]) {
    for (yaml, wanted) in table {
        let told = told(yaml);
        assert!(
            told.len() == wanted.len() && told.iter().zip(*wanted).all(|(told, wanted)| told.starts_with(wanted)),
            "{yaml}\ntold {told:#?}\nwanted {wanted:#?}"
        );
    }
}

#[test]
fn what_never_holds_is_an_error() {
    check(&[
        (
            "{directory_name: node_modules, forbidden_names: [a, node_*]}",
            &[
                "directory_name: error: what it allows is forbidden by forbidden_names[1], so that it never holds; leave out",
            ],
        ),
        ("{directory_name: 'a*', forbidden_names: ['a*']}", &["directory_name: error: what it allows is forbidden"]),
        ("{directory_name: '{a,b}', forbidden_names: ['?']}", &["directory_name: error: what it allows is forbidden"]),
        ("{directory_name: '{a,bc}', forbidden_names: ['?']}", &[]),
        (
            "{directory_name: a, forbidden_names: ['*']}",
            &["forbidden_names[0]: error: every name is forbidden, so that nothing matches"],
        ),
        (
            "{files: [x], directories: [{directory_name: d, forbidden_names: [d]}]}",
            &["directories[0].directory_name: error: what it allows is forbidden by directories[0].forbidden_names[0]"],
        ),
        (
            "{directory_name: raw, any_of: [{directory_name: src, files: [a]}, {files: [b]}]}",
            &["any_of[0].directory_name: error: no name matches this and directory_name too"],
        ),
        ("{directory_name: 's*', any_of: [{directory_name: src}, {files: [b]}]}", &[]),
        (
            "{forbidden_names: [src], any_of: [{directory_name: src, files: [a]}, {files: [b]}]}",
            &["any_of[0].directory_name: error: what it allows is forbidden by forbidden_names[0]"],
        ),
        (
            "{files: [a.txt], forbidden_files: ['*.txt']}",
            &["files[0]: error: `a.txt` never holds: forbidden_files[0] forbids such files; leave out one of them"],
        ),
        ("{files: ['*.txt'], forbidden_files: ['*.txt']}", &["files[0]: error: `*.txt` never holds"]),
        ("{files: ['*.txt'], forbidden_files: ['a.txt']}", &[]),
        ("{files: [x, [a, [b, c]]], forbidden_files: [b]}", &["files[1][1][0]: error: `b` never holds"]),
        ("{files: [a], forbidden_files: [[b, '*']]}", &["files[0]: error: `a` never holds: forbidden_files[0][1]"]),
        ("{files: [d/a], forbidden_files: ['d/*']}", &["files[0]: error: `d/a` never holds"]),
        ("{files: ['**/a'], forbidden_files: ['**/a']}", &["files[0]: error: `**/a` never holds"]),
        ("{files: ['**/a'], forbidden_files: [a]}", &[]),
        ("{files: [a], forbidden_files: [{glob: a, size: '0'}]}", &[]),
        (
            "{files: [{glob: a, size: '0', contains: x}], forbidden_files: [{glob: '*', size: '0'}]}",
            &["files[0].contains: error: `contains` needs 1 bytes, but", "files[0]: error: `a` never holds"],
        ),
        ("{files: ['*a'], forbidden_files: [{glob: '*a', min: 2}]}", &[]),
        ("{files: [{glob: a, min: 0, max: 0}], forbidden_files: [a]}", &[]),
        ("{files: [x], optional_files: [a], forbidden_files: [a]}", &["optional_files[0]: error: `a` never holds"]),
        (
            "{forbidden_files: [a], any_of: [{files: [a]}, {files: [b]}]}",
            &["any_of[0].files[0]: error: `a` never holds: forbidden_files[0]"],
        ),
        (
            "{files: [x], forbidden_files: [{glob: a, min: 0}]}",
            &["forbidden_files[0]: error: `min` 0 always holds, so that nothing matches; leave `min` out"],
        ),
        (
            "{directories: [{directory_name: d, files: [x]}], forbidden_directories: [{directory_name: 'd*'}]}",
            &["directories[0]: error: never holds: forbidden_directories[0] forbids such directories"],
        ),
        (
            "{directories: [{directory_name: d, files: [x]}], forbidden_directories: [{directory_name: d, files: [x]}]}",
            &["directories[0]: error: never holds"],
        ),
        ("{directories: [{files: [x]}], forbidden_directories: [{}]}", &["directories[0]: error: never holds"]),
        ("{directories: [{files: [x]}], forbidden_directories: [{directory_name: d}]}", &[]),
        (
            "{directories: [[{directory_name: d}, {directory_name: e}]], forbidden_directories: [[{directory_name: e}, {}]]}",
            &["directories[0][0]: error: never holds: forb", "directories[0][1]: error: never holds"],
        ),
        ("{directories: [{directory_name: d}], forbidden_directories: [{directory_name: d, files: [x]}]}", &[]),
        (
            "{files: [{glob: a.txt, min: 2}]}",
            &["files[0].min: error: `min` 2 never holds: at most one file can match `a.txt`; `min` counts"],
        ),
        ("{files: [{glob: '{a,b}.txt', min: 3}]}", &["files[0].min: error: `min` 3 never holds: at most 2 files"]),
        ("{files: [{glob: '{a,b}.txt', min: 2}, {glob: '*/x', min: 9}]}", &[]),
        ("{files: [{glob: readme, min: 2, case_insensitive: true}]}", &[]),
        ("{files: [{glob: 'd/{a,b}', min: 3}]}", &["files[0].min: error: `min` 3 never holds: at most 2 files"]),
        (
            "{files: [{glob: a, size: '<4', magic: {offset: 10, bytes: xy}}]}",
            &["files[0].magic: error: `magic` needs 12 bytes, but `size` allows 3 at most"],
        ),
        ("{files: [{glob: a, size: '<=12', magic: {offset: 10, bytes: xy}}]}", &[]),
        ("{files: [{glob: a, size: '>4', magic: {offset: 10, bytes: xy}}]}", &[]),
        ("{files: [{glob: a, size: 3, contains: four}]}", &["files[0].contains: error: `contains` needs 4 bytes"]),
        (
            "{files: ['<e><n>'], captures: {e: '(?:)', n: '[^\\s\\S]'}}",
            &[
                "captures.e: error: the expression of `<e>` matches the empty text only; write one",
                "captures.n: error: nothing matches the expression of `<n>`",
            ],
        ),
        ("{files: ['<e>'], captures: {e: 'a[^\\s\\S]|b[^\\s\\S]'}}", &["captures.e: error: nothing matches"]),
        ("{files: ['{,.,..}']}", &["files[0]: error: `{,.,..}` matches no name: none is empty, `.` or `..`"]),
        ("{files: ['{.,..}/a']}", &["files[0]: error: `{.,..}` matches no name"]),
        ("{files: ['a[/]b']}", &["files[0]: error: `a[/]b` matches no name: none holds a `/` or NUL"]),
        ("{files: ['a[/.]b', '[!/]']}", &[]),
    ]);
    let long = |glob: String| told(&format!("{{files: ['{glob}'], directories: [{{directory_name: '{glob}'}}]}}"));
    let [file, dir] = &long("a".repeat(256))[..] else { panic!("two errors") };
    assert!(file.starts_with("files[0]: error: `aaa") && dir.starts_with("directories[0].directory_name: error: `aaa"));
    assert!(file.ends_with("matches no name: it takes 256 bytes at least; a name has 255 bytes at most"), "{file}");
    assert_eq!(long("é".repeat(128)).len(), 2);
    assert_eq!(long("?".repeat(256)).len(), 2);
    assert_eq!(long("{a,bb}".repeat(255)), Vec::<String>::new());
}

#[test]
fn what_is_likely_not_meant_is_a_warning() {
    check(&[
        ("{}", &["warning: the pattern matches every directory; name a `directory_name`, `files` or `directories`"]),
        ("{opaque: true}", &["warning: the pattern matches every directory, and no other is sought inside a match"]),
        ("{optional_files: ['*.txt']}", &["warning: the pattern matches every directory"]),
        ("{directory_name: '**'}", &["warning: the pattern matches every directory"]),
        ("{forbidden_files: [a]}", &[]),
        ("{forbidden_ancestors: [a]}", &[]),
        ("{directories: [{}]}", &[]),
        (
            "{files: [a], any_of: [{files: [b]}, {optional_files: [c]}]}",
            &["any_of[1]: warning: this alternative always holds, so that `any_of` decides nothing"],
        ),
        (
            "{files: [{glob: a, min: 0}, b]}",
            &["files[0]: warning: `min` 0 always holds and asks for nothing; write it in `optional_files`"],
        ),
        ("{files: [{glob: a, min: 0, max: 3}, b]}", &[]),
        (
            "{files: [a, a]}",
            &["files[1]: warning: always holds where files[0] does; leave it out, or write it in `optional_files`"],
        ),
        ("{files: ['*', a]}", &["files[0]: warning: always holds where files[1] does"]),
        ("{files: ['*.x', '{a,b}.x']}", &["files[0]: warning: always holds where files[1] does"]),
        ("{files: [[a, c], a]}", &["files[0]: warning: always holds where files[1] does"]),
        ("{files: ['*', [a, b]]}", &["files[0]: warning: always holds where files[1] does"]),
        ("{files: [[a, b], [b, a]]}", &["files[1]: warning: always holds where files[0] does"]),
        ("{files: [d/a, 'd/*', '**/a']}", &["files[1]: warning: always holds where files[0] does"]),
        ("{files: ['*.x', a]}", &[]),
        ("{files: [{glob: a, contains: x}, {glob: a, contains: y}]}", &[]),
        ("{files: [{glob: a, contains: x}, a]}", &["files[1]: warning: always holds where files[0] does"]),
        ("{files: [{glob: '*', min: 2}, a]}", &[]),
        ("{files: ['<n>.a', '*.a'], captures: {n: '[0-9]'}}", &[]),
        (
            "{directories: [{directory_name: 'd*'}, {directory_name: dx, files: [a]}]}",
            &["directories[0]: warning: always holds where directories[1] does; leave it out, or write it in `opt"],
        ),
        ("{directories: [{files: [a]}, {files: [a]}]}", &["directories[1]: warning: always holds where"]),
        ("{directories: [{directory_name: d}, {directory_name: e}]}", &[]),
        (
            "{files: ['*.x'], optional_files: [a.x, '*'], recommended_files: [b.x]}",
            &[
                "optional_files[0]: warning: files[0] shows these files already; leave it out",
                "recommended_files[0]: warning: files[0] shows these files already",
            ],
        ),
        (
            "{files: [a], optional_files: [b, 'b*', b]}",
            &["optional_files[2]: warning: optional_files[0] shows these files already"],
        ),
        ("{files: [a], optional_files: [b], recommended_files: [b]}", &[]),
        (
            "{directories: [{directory_name: d}], optional_directories: [{directory_name: d}, {directory_name: e}]}",
            &["optional_directories[0]: warning: directories[0] shows these directories already"],
        ),
        (
            "{files: ['<a>'], captures: {a: x+, b: y+}, directories: [{captures: {a: z, c: w}, files: ['<a>']}]}",
            &[
                "captures.b: warning: no glob uses the capture `<b>`; write `<b>` in a glob",
                "directories[0].captures.c: w",
            ],
        ),
        ("{captures: {a: x}, forbidden_names: ['<a>']}", &[]),
        ("{captures: {a: x}, files: ['<a>'], optional_directories: [{captures: {a: y}, files: ['<a>']}]}", &[]),
        ("{captures: {a: x}, any_of: [{files: ['d/<a>']}, {directories: [{directory_name: '<a>'}]}]}", &[]),
    ]);
}

#[test]
fn twins_are_told() {
    let twins = |one: &str, other: &str| told(&format!("[{{name: a, {one}}}, {{name: b, {other}}}]"));
    let message = "[1]: warning: finds the same as the pattern `a` of p.yaml; leave one of them out";
    assert_eq!(twins("files: [x, y]", "files: [x, y], description: other"), [message]);
    assert_eq!(twins("files: [x], case_insensitive: false", "files: [x]"), [message]);
    assert_eq!(twins("files: ['<n>'], captures: {n: x}", "files: ['<n>'], captures: {n: x}"), [message]);
    let none: [&str; 0] = [];
    assert_eq!(twins("files: ['<n>'], captures: {n: x}", "files: ['<n>'], captures: {n: y}"), none);
    assert_eq!(twins("files: [x]", "files: [y]"), none);
    assert_eq!(twins("files: [x]", "files: [x], prune: true"), none);
    assert_eq!(twins("files: [x]", "files: [x], opaque: true"), none);
    assert_eq!(twins("files: [x]", "files: [x], layout: 'x/<.name>'"), none);
}

#[test]
fn json_has_the_same_words() {
    let lints = lints("[{name: a, files: [{glob: x, min: 2}]}]");
    let json = serde_json::to_string(&lints[0]).expect("a lint has text keys");
    assert_eq!(
        json,
        r#"{"origin":"p.yaml","pattern":"a","place":"[0].files[0].min","severity":"error","message":"`min` 2 never holds: at most one file can match `x`","hint":"`min` counts the files of one directory"}"#
    );
}

#[test]
fn nothing_is_wrong_in_the_library() {
    let mut all = Vec::new();
    for builtin in LIBRARY {
        let loaded = load_text(builtin.text.as_bytes(), Format::Yaml, builtin.name, builtin.name);
        let patterns = loaded.unwrap_or_else(|errors| panic!("{}: {errors:?}", builtin.name));
        all.extend(patterns);
    }
    let automaton = compile(&all).unwrap_or_else(|errors| panic!("{errors:?}"));
    let told: Vec<String> = lint(&all, &automaton).iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn many_clauses_take_no_longer_than_many() {
    let alternates = (0..60).map(|at| format!("{at}")).collect::<Vec<_>>().join(",");
    let clauses = (0..2000).map(|at| format!("'{}{{{alternates}}}{at}'", "a".repeat(200)));
    let yaml = format!("{{files: [{}]}}", clauses.collect::<Vec<_>>().join(", "));
    assert_eq!(told(&yaml), Vec::<String>::new());
}
