use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::super::{Body, DirClause, FileClause, FileTest, MAX_DEPTH, Magic, SizeOp, SizeTest, Subpattern};
use super::*;

fn load(text: &str, format: Format) -> Result<Vec<Pattern>, Vec<String>> {
    load_text(text.as_bytes(), format, "p.json", "stem")
        .map_err(|errors| errors.iter().map(PatternError::to_string).collect())
}

/// The root of the one pattern in JSON.
fn root(text: &str) -> Subpattern {
    let mut patterns = load(text, Format::Json).unwrap_or_else(|errors| panic!("{text}: {errors:#?}"));
    assert_eq!(patterns.len(), 1);
    patterns.remove(0).root
}

fn errors(text: &str, format: Format) -> Vec<String> {
    load(text, format).expect_err(text)
}

/// Asserts on the whole text of the only error.
fn assert_error(text: &str, format: Format, expected: &str) {
    assert_eq!(errors(text, format), [format!("p.json: {expected}")], "{text}");
}

fn globs(globs: &[&str]) -> Vec<FileClause> {
    globs.iter().map(|glob| FileClause::One(FileTest::glob(*glob))).collect()
}

fn named(name: &str) -> Subpattern {
    Subpattern { body: Body { directory_name: Some(name.to_owned()), ..Body::default() }, ..Subpattern::default() }
}

#[test]
fn formats_follow_the_extension() {
    for (path, format) in [
        ("a.json", Format::Json),
        ("a.JSON", Format::Json),
        ("a.yaml", Format::Yaml),
        ("a.b.yml", Format::Yaml),
        ("a.toml", Format::Toml),
        ("a.txt", Format::Unknown),
        ("a", Format::Unknown),
    ] {
        assert_eq!(Format::of(Path::new(path)), format, "{path}");
    }
}

#[test]
fn all_formats_say_the_same() {
    let json =
        r#"{"directory_name": "run_*", "files": ["a.csv", ["b", "c"]], "directories": [{"directory_name": "raw"}]}"#;
    let yaml = "directory_name: run_*\nfiles:\n  - a.csv\n  - [b, c]\ndirectories:\n  - directory_name: raw\n";
    let toml = "directory_name = 'run_*'\nfiles = ['a.csv', ['b', 'c']]\n[[directories]]\ndirectory_name = 'raw'\n";
    let mut files = globs(&["a.csv"]);
    files.push(FileClause::AnyOf(globs(&["b", "c"])));
    let body = Body { files, directories: vec![DirClause::One(named("raw"))], ..named("run_*").body };
    let expected = Pattern {
        name: "stem".to_owned(),
        origin: "p.json".to_owned(),
        place: String::new(),
        description: None,
        root: Subpattern { body, ..Subpattern::default() },
        prune: false,
        layout: None,
    };
    for (text, format) in [(json, Format::Json), (yaml, Format::Yaml), (toml, Format::Toml)] {
        assert_eq!(load(text, format).as_deref(), Ok(&[expected.clone()][..]), "{format:?}");
    }
    assert_eq!(load(json, Format::Unknown), load(yaml, Format::Unknown));
    assert_eq!(load(&format!("\u{FEFF}{json}"), Format::Json), Ok(vec![expected]));
}

#[test]
fn files_hold_one_pattern_or_lists() {
    let places = |text: &str| -> Vec<(String, String)> {
        load(text, Format::Json).expect(text).into_iter().map(|pattern| (pattern.name, pattern.place)).collect()
    };
    let pair = |name: &str, place: &str| (name.to_owned(), place.to_owned());
    assert_eq!(places("{}"), [pair("stem", "")]);
    assert_eq!(places(r#"[{"name": "a"}, {}]"#), [pair("a", "[0]"), pair("stem", "[1]")]);
    assert_eq!(
        places(r#"{"patterns": [{"name": "a"}, {"name": "b"}]}"#),
        [pair("a", "patterns[0]"), pair("b", "patterns[1]")]
    );
    let toml = load("[[patterns]]\nname = 'a'\n[[patterns]]\nname = 'b'\n", Format::Toml).unwrap();
    assert_eq!(toml[1].place, "patterns[1]");
}

#[test]
fn keys_of_a_pattern() {
    let text = r#"{"name": "n", "description": "d", "prune": true, "opaque": true, "layout": "<sub>/<.name>",
        "case_insensitive": true, "captures": {"sub": "[0-9]+"}, "forbidden_names": ["tmp*"],
        "forbidden_ancestors": ["old"], "any_of": [{"directory_name": "x", "any_of": [{"files": ["f"]}]}, {}]}"#;
    let pattern = load(text, Format::Json).unwrap().remove(0);
    assert_eq!(pattern.name, "n");
    assert_eq!(pattern.description.as_deref(), Some("d"));
    assert_eq!(pattern.layout.as_deref(), Some("<sub>/<.name>"));
    assert!(pattern.prune && pattern.root.opaque && pattern.root.case_insensitive);
    assert_eq!(pattern.root.captures["sub"], "[0-9]+");
    assert_eq!(pattern.root.forbidden_names, ["tmp*"]);
    assert_eq!(pattern.root.forbidden_ancestors, ["old"]);
    let inner = Body { files: globs(&["f"]), ..Body::default() };
    assert_eq!(pattern.root.body.any_of, [Body { any_of: vec![inner], ..named("x").body }, Body::default()]);
}

#[test]
fn any_name_is_no_name() {
    for name in ["null", "\"\"", "\"*\""] {
        assert_eq!(root(&format!(r#"{{"directory_name": {name}}}"#)), Subpattern::default());
    }
    assert_eq!(
        root(r#"{"files": null, "directories": null, "any_of": null, "captures": null}"#),
        Subpattern::default()
    );
}

#[test]
fn file_tests() {
    let test = |text: &str| match &root(&format!(r#"{{"files": [{text}]}}"#)).body.files[..] {
        [FileClause::One(test)] => test.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(test(r#"{"glob": "a/**/b"}"#), FileTest::glob("a/**/b"));
    let full = r#"{"glob": "a", "min": 0, "max": 3, "case_insensitive": false, "size": ">=4KiB",
        "magic": {"offset": 8, "bytes": "hex:89 50 4E47"}, "contains": "x"}"#;
    let expected = FileTest {
        min: 0,
        max: Some(3),
        case_insensitive: Some(false),
        size: Some(SizeTest { op: SizeOp::AtLeast, bytes: 4096 }),
        magic: Some(Magic { offset: 8, bytes: b"\x89PNG".to_vec() }),
        contains: Some("x".to_owned()),
        ..FileTest::glob("a")
    };
    assert_eq!(test(full), expected);
    assert_eq!(test(r#"{"glob": "a", "size": 5}"#).size, Some(SizeTest { op: SizeOp::Equal, bytes: 5 }));
    assert_eq!(
        test(r#"{"glob": "a", "magic": {"bytes": "PK"}}"#).magic,
        Some(Magic { offset: 0, bytes: b"PK".to_vec() })
    );
}

#[test]
fn sizes() {
    use SizeOp::{AtLeast, AtMost, Equal, Greater, Less};
    for (text, op, bytes) in [
        (">0", Greater, 0),
        ("<10MiB", Less, 10 << 20),
        (" >= 4 KiB ", AtLeast, 4096),
        ("<=1kB", AtMost, 1000),
        ("=512", Equal, 512),
        ("==1K", Equal, 1000),
        ("7", Equal, 7),
        ("2b", Equal, 2),
        ("1.5kib", Equal, 1536),
        ("<1 TiB", Less, 1 << 40),
        (">1GB", Greater, 1_000_000_000),
        (">0.1KiB", Greater, 102),
        ("<=0.1KiB", AtMost, 102),
        ("<0.1KiB", Less, 103),
        (">=0.1KiB", AtLeast, 103),
        ("<=18446744073709551615", AtMost, u64::MAX),
    ] {
        assert_eq!(scalar::size(text), Ok(SizeTest { op, bytes }), "{text}");
    }
    for text in [
        "",
        ">",
        "KiB",
        "x",
        "-1",
        "> -1",
        "1.",
        ".5",
        "1.2.3",
        "1PB",
        "1 KiB!",
        "=0.1KiB",
        "<0",
        "<>1",
        "=<1",
        "18446744073709551616",
        "99999999999999999999TiB",
        "111111111111111111111",
        "1.0000000000000001",
    ] {
        let (message, hint) = scalar::size(text).expect_err(text);
        assert!(message.starts_with(&format!("`{text}` is no size: ")), "{message}");
        assert!(hint.unwrap().contains("\">0\", \"<10MiB\""));
    }
}

/// Each with the whole text of its only error, from its place on.
#[test]
fn faults() {
    for (text, expected) in [
        // Keys.
        (r#"{"file": ["a"]}"#, "unknown key `file`; did you mean `files`?"),
        (r#"{"directories": [{"flies": ["a"]}]}"#, "directories[0]: unknown key `flies`; did you mean `files`?"),
        (r#"{"files": ["a"], "files": ["b"]}"#, "duplicate key `files`; keep one"),
        (r#"{"captures": {"a": "x", "a": "y"}}"#, "captures: duplicate key `a`; keep one"),
        (
            r#"{"directories": [{"prune": true}]}"#,
            "directories[0]: `prune` is no key of a subpattern; it belongs at the top of the pattern",
        ),
        (
            r#"{"any_of": [{"layout": "x"}]}"#,
            "any_of[0]: `layout` is no key of an alternative of `any_of`; it belongs at the top of the pattern",
        ),
        (
            r#"{"any_of": [{"captures": {}}]}"#,
            "any_of[0]: `captures` is no key of an alternative of `any_of`; it belongs in the pattern or subpattern around `any_of`",
        ),
        (
            r#"{"any_of": [{"opaque": true}]}"#,
            "any_of[0]: `opaque` is no key of an alternative of `any_of`; it belongs in the pattern or subpattern around `any_of`",
        ),
        (r#"{"glob": "x"}"#, "`glob` is no key of a pattern; it belongs in a file clause: files: [{\"glob\": …}]"),
        (
            r#"{"files": [{"glob": "x", "files": []}]}"#,
            "files[0]: `files` is no key of a file clause; it belongs in a pattern or subpattern",
        ),
        (
            r#"{"files": [{"glob": "x", "bytes": "x"}]}"#,
            "files[0]: `bytes` is no key of a file clause; it belongs in the `magic` of a file clause",
        ),
        (
            r#"[{"patterns": []}]"#,
            "[0]: `patterns` is no key of a pattern; a list `patterns` stands alone at the top of a file",
        ),
        (
            r#"{"patterns": [{}], "files": []}"#,
            "unexpected key `files`; beside `patterns` there are no other keys; put it into each pattern",
        ),
        (
            r#"{"files": [{"glob": "x", "zzzz": 1}]}"#,
            "files[0]: unknown key `zzzz`; a file clause has glob, min, max, case_insensitive, size, magic, contains",
        ),
        // Types.
        (r#"{"files": "data.csv"}"#, "files: expected a list of file clauses, found a string; write [\"data.csv\"]"),
        (
            r#"{"files": {"glob": "a"}}"#,
            "files: expected a list of file clauses, found an object; put it into a list: [{…}]",
        ),
        (
            r#"{"directories": "raw"}"#,
            "directories: expected a list of subpatterns, found a string; write [{\"directory_name\": \"raw\"}]",
        ),
        (
            r#"{"directories": ["raw"]}"#,
            "directories[0]: expected a subpattern, found a string; write {\"directory_name\": \"raw\"}",
        ),
        (r#"{"directories": [1]}"#, "directories[0]: expected a subpattern (an object), found a number"),
        (
            r#"{"files": [2024]}"#,
            "files[0]: expected a glob, an object or a list of alternatives, found a number; quote it",
        ),
        (
            r#"{"files": [true]}"#,
            "files[0]: expected a glob, an object or a list of alternatives, found `true`; quote it",
        ),
        (r#"{"files": [null]}"#, "files[0]: expected a glob, an object or a list of alternatives, found null"),
        (r#"{"directory_name": 2024}"#, "directory_name: expected a string, found a number; quote it"),
        (r#"{"directory_name": ["a"]}"#, "directory_name: expected a string, found a list"),
        (r#"{"forbidden_names": "tmp"}"#, "forbidden_names: expected a list of globs, found a string; write [\"tmp\"]"),
        (r#"{"prune": "yes"}"#, "prune: expected `true` or `false`, found a string"),
        (r#"{"any_of": {}}"#, "any_of: expected a list of alternatives, found an object; put it into a list: [{…}]"),
        (r#"{"any_of": ["a"]}"#, "any_of[0]: expected an alternative of `any_of` (an object), found a string"),
        (
            r#"{"any_of": "a"}"#,
            "any_of: expected a list of alternatives, found a string; write [{\"files\": [\"a.csv\"]}, {\"files\": [\"b.csv\"]}]",
        ),
        (r#"{"patterns": {}}"#, "patterns: expected a list of patterns, found an object; write [{…}]"),
        ("17", "expected a pattern (an object), found a number"),
        // Alternatives and lists.
        ("[]", "the list of patterns is empty"),
        (r#"{"patterns": []}"#, "patterns: the list of patterns is empty"),
        (r#"{"files": [[]]}"#, "files[0]: an empty list of alternatives never holds; leave it out"),
        (
            r#"{"forbidden_directories": [[]]}"#,
            "forbidden_directories[0]: an empty list of alternatives never holds; leave it out",
        ),
        // Globs.
        (r#"{"files": [""]}"#, "files[0]: an empty glob matches nothing; write \"*\" for any name"),
        (r#"{"files": [{"glob": ""}]}"#, "files[0].glob: an empty glob matches nothing; write \"*\" for any name"),
        (r#"{"files": ["/a"]}"#, "files[0]: `/a` begins with `/`; paths are taken below the directory: leave it out"),
        (
            r#"{"files": ["a/"]}"#,
            "files[0]: `a/` ends with `/`; a file clause names files; for a directory write directories: [{\"directory_name\": …}]",
        ),
        (r#"{"files": ["a//b"]}"#, "files[0]: `a//b` holds `//`; write one `/`"),
        (r#"{"files": [["x", "../b"]]}"#, "files[0][1]: `../b` has `..` for a name, which matches nothing"),
        (r#"{"files": ["a/./b"]}"#, "files[0]: `a/./b` has `.` for a name, which matches nothing"),
        (r#"{"files": ["a\u0000"]}"#, "files[0]: `a\\u{0}` holds a NUL, which no name does"),
        (
            r#"{"directory_name": "a/b"}"#,
            "directory_name: `a/b` holds a `/`, but is for one name; nest `directories` for a path: {\"directory_name\": \"a\", \"directories\": [{\"directory_name\": \"b\"}]}",
        ),
        (r#"{"forbidden_names": [""]}"#, "forbidden_names[0]: an empty glob matches nothing; write \"*\" for any name"),
        // File tests.
        (r#"{"files": [{"min": 1}]}"#, "files[0]: the file clause has no `glob`; add \"glob\": \"*\" for any name"),
        (r#"{"files": [{"glob": "a", "min": 3, "max": 2}]}"#, "files[0].max: `max` 2 is less than `min` 3"),
        (
            r#"{"files": [{"glob": "a", "max": 0}]}"#,
            "files[0].max: no file may match, but `min` is 1 by default; to forbid such files, use `forbidden_files` or \"min\": 0",
        ),
        (
            r#"{"files": [{"glob": "a", "min": -1}]}"#,
            "files[0].min: expected a whole number from 0 to 4294967295, found -1",
        ),
        (
            r#"{"files": [{"glob": "a", "min": 4294967296}]}"#,
            "files[0].min: expected a whole number from 0 to 4294967295, found 4294967296",
        ),
        (
            r#"{"files": [{"glob": "a", "min": 1.0}]}"#,
            "files[0].min: expected a whole number from 0 to 4294967295, found a number",
        ),
        (
            r#"{"files": [{"glob": "a", "size": "big"}]}"#,
            "files[0].size: `big` is no size: the unit is none of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB; write \">0\", \"<10MiB\", \">=4KiB\" or \"=512\"",
        ),
        (r#"{"files": [{"glob": "a", "size": -1}]}"#, "files[0].size: this is no size of a file"),
        (
            r#"{"files": [{"glob": "a", "magic": "PK"}]}"#,
            "files[0].magic: expected an object, found a string; write {\"bytes\": \"PK\"}",
        ),
        (
            r#"{"files": [{"glob": "a", "magic": {}}]}"#,
            "files[0].magic: `magic` has no `bytes`; add \"bytes\": \"hex:89504e47\", or a text",
        ),
        (
            r#"{"files": [{"glob": "a", "magic": {"bytes": "hex:123"}}]}"#,
            "files[0].magic.bytes: `hex:123` is no hexadecimal: it has an odd number of digits; write \"hex:89504e47\"",
        ),
        (
            r#"{"files": [{"glob": "a", "magic": {"bytes": "hex:zz"}}]}"#,
            "files[0].magic.bytes: `hex:zz` is no hexadecimal: it has characters that are no digits; write \"hex:89504e47\"",
        ),
        (
            r#"{"files": [{"glob": "a", "magic": {"bytes": ""}}]}"#,
            "files[0].magic.bytes: it is empty, so every file has it; leave it out",
        ),
        (
            r#"{"files": [{"glob": "a", "magic": {"bytes": "hex:"}}]}"#,
            "files[0].magic.bytes: it is empty, so every file has it; leave it out",
        ),
        (
            r#"{"files": [{"glob": "a", "magic": {"bytes": "a", "offset": 9223372036854775808}}]}"#,
            "files[0].magic.offset: expected a whole number of bytes from 0 to 9223372036854775807",
        ),
        (
            r#"{"files": [{"glob": "a", "contains": ""}]}"#,
            "files[0].contains: it is empty, so every file has it; leave it out",
        ),
        // Captures, layout, names.
        (
            r#"{"captures": {"a-b": "x"}}"#,
            "captures: `a-b` cannot be a capture's name; use letters, digits and `_`, and no digit first",
        ),
        (
            r#"{"captures": {"1a": "x"}}"#,
            "captures: `1a` cannot be a capture's name; use letters, digits and `_`, and no digit first",
        ),
        (r#"{"captures": {"a": 1}}"#, "captures.a: expected a string, found a number; quote it"),
        (
            r#"{"captures": ["a"]}"#,
            "captures: expected an object of names and regular expressions, found a list; write {\"sub\": \"[0-9]+\"}",
        ),
        (r#"{"layout": ""}"#, "layout: an empty layout gives matches no name; write \"<.name>\", or leave it out"),
        (r#"{"name": ""}"#, "name: this cannot be a pattern's name: it is empty"),
        (r#"{"name": "a/b"}"#, "name: this cannot be a pattern's name: `a/b` is no file name"),
        (r#"{"name": ".."}"#, "name: this cannot be a pattern's name: `..` is no file name"),
        (
            r#"{"name": ".veinfs"}"#,
            "name: this cannot be a pattern's name: names that begin with `.veinfs` are veinfs's own",
        ),
        (
            r#"[{"name": "a"}, {"name": "a"}]"#,
            "[1].name: another pattern of this file has the name `a`; names are unique",
        ),
        (r#"[{"name": "stem"}, {}]"#, "[1].name: another pattern of this file has the name `stem`; names are unique"),
        // Syntax.
        ("{\"files\": [\"a\",\n  ]}", "line 2, column 3: trailing comma; remove the comma before it"),
        (r#"{"é": "a" "b"}"#, "line 1, column 11: expected `,` or `}`"),
        ("", "the file is empty; `{}` is the pattern that matches every directory"),
        (" \n\t", "the file is empty; `{}` is the pattern that matches every directory"),
    ] {
        assert_error(text, Format::Json, expected);
    }
}

#[test]
fn long_names_and_contents() {
    let long = |len: usize| "x".repeat(len);
    assert!(load(&json!({"name": long(255)}).to_string(), Format::Json).is_ok());
    let error = errors(&json!({"name": long(256)}).to_string(), Format::Json);
    assert_eq!(error, ["p.json: name: this cannot be a pattern's name: it is longer than 255 bytes"]);
    for (text, ok) in [(long(4096), true), (long(4097), false)] {
        for test in [json!({"glob": "a", "contains": text}), json!({"glob": "a", "magic": {"bytes": text}})] {
            assert_eq!(load(&json!({"files": [test]}).to_string(), Format::Json).is_ok(), ok);
        }
    }
}

#[test]
fn several_faults_at_once() {
    let text =
        r#"{"patterns": [{"file": []}, {"files": "a"}, {"name": "c", "directories": [{"files": [{"min": true}]}]}]}"#;
    assert_eq!(
        errors(text, Format::Json),
        [
            "p.json: patterns[0]: unknown key `file`; did you mean `files`?",
            "p.json: patterns[1].files: expected a list of file clauses, found a string; write [\"a\"]",
            "p.json: patterns[2].directories[0].files[0].min: expected a whole number from 0 to 4294967295, found `true`",
            "p.json: patterns[2].directories[0].files[0]: the file clause has no `glob`; add \"glob\": \"*\" for any name",
            "p.json: patterns[0]: the pattern has no name; only one pattern of a file can go without: add `name`",
            "p.json: patterns[1]: the pattern has no name; only one pattern of a file can go without: add `name`",
        ]
    );
    let many = json!({"files": vec![1; 1000]}).to_string();
    assert_eq!(errors(&many, Format::Json).len(), 100);
}

#[test]
fn default_names_are_checked() {
    for stem in ["", ".veinfs", ".."] {
        let errors = load_text(b"{}", Format::Json, "o", stem).unwrap_err();
        assert!(errors[0].message.starts_with("the file's name gives the pattern no name"), "{stem}");
    }
}

#[test]
fn yaml_faults() {
    for (text, expected) in [
        (
            "files:\n  - *.csv\n",
            "line 2, column 5: reference to unknown value; quote globs that begin with such a character: '*.csv'",
        ),
        (
            "files: [a, *.csv]",
            "line 1, column 12: reference to unknown value; quote globs that begin with such a character: '*.csv'",
        ),
        (
            "files: {a,b}.csv",
            "line 1, column 13: while parsing a block mapping, did not find expected key; quote globs that begin with such a character: '*.csv'",
        ),
        ("files: [a.csv", "line 1, column 8: unclosed bracket '['"),
        ("files:\n\t- a", "line 2, column 2: tabs disallowed within this context (block indentation)"),
        ("a: 1\n---\nb: 1\n", "line 3, column 1: only single YAML document expected but multiple found"),
        ("files: [a]\nfiles: [b]\n", "duplicate key `files`; keep one"),
        ("# nothing", "expected a pattern (an object), found null"),
        ("files: [1.10]", "files[0]: expected a glob, an object or a list of alternatives, found a number; quote it"),
        ("directory_name: true", "directory_name: expected a string, found `true`; quote it"),
    ] {
        assert_error(text, Format::Yaml, expected);
    }
    let patterns = load("files: [001, 1_0, on, no, .nan, 2024-01-01]\noptional_files:\n", Format::Yaml).unwrap();
    assert_eq!(patterns[0].root.body.files, globs(&["001", "1_0", "on", "no", ".nan", "2024-01-01"]));
    let anchors = "directories:\n  - &d {directory_name: a}\n  - *d\n";
    assert_eq!(load(anchors, Format::Yaml).unwrap()[0].root.body.directories.len(), 2);
}

#[test]
fn toml_faults() {
    for (text, expected) in [
        ("files = ['a'", "line 1, column 13: unclosed array, expected `]`"),
        ("name = 'a'\nname = 'b'", "line 2, column 1: duplicate key"),
        (
            "files = [2024-01-01]",
            "files[0]: expected a glob, an object or a list of alternatives, found a date; quote it",
        ),
    ] {
        assert_error(text, Format::Toml, expected);
    }
    assert_eq!(load("# nothing", Format::Toml), load("{}", Format::Json));
}

#[test]
fn unknown_formats_report_the_likelier_error() {
    assert_error("{\"files\": [\"a\"", Format::Unknown, "line 1, column 14: EOF while parsing a list");
    assert_error("files: [a", Format::Unknown, "line 1, column 8: unclosed bracket '['");
    let hint = "this is neither JSON nor YAML of a pattern; for another format name the file .json, .yaml or .toml";
    assert_error("hello", Format::Unknown, hint);
    assert!(load("{files: [a]}", Format::Unknown).is_ok());
}

#[test]
fn invalid_utf8_names_the_line() {
    let errors = load_text(b"{\n\"\xC3\xA9\": \"\xFF\"}", Format::Json, "o", "s").unwrap_err();
    assert_eq!(errors[0].to_string(), "o: line 2, column 7: the byte 0xFF is no valid UTF-8; save the file as UTF-8");
}

#[test]
fn pathvein_encodes_subpatterns() {
    let plain = json!({"directory_name": "c", "files": ["x"], "directories": [], "optional_files": [], "optional_directories": []});
    let inner = json!({"directory_name": "b", "files": [], "directories": [plain.to_string()], "optional_files": [], "optional_directories": []});
    let encoded = json!({"directory_name": "*", "files": ["m.json"], "directories": [inner.to_string()],
        "optional_files": ["o"], "optional_directories": [format!(" {inner}\n")]});
    let objects = json!({"files": ["m.json"], "optional_files": ["o"],
        "directories": [{"directory_name": "b", "directories": [plain]}],
        "optional_directories": [{"directory_name": "b", "directories": [plain]}]});
    assert_eq!(root(&encoded.to_string()), root(&objects.to_string()));

    let documented = r#"{"directories": [{"name": "raw", "description": "the raw files"}], "any_of": [{"name": "x"}]}"#;
    assert_eq!(root(documented).body.directories, [DirClause::One(Subpattern::default())]);

    let bad = |inner: &str| json!({"directories": [json!({"directories": [inner]}).to_string()]}).to_string();
    let place = "directories[0].directories[0]";
    assert_error(
        &bad("{\n\"files\" 1}"),
        Format::Json,
        &format!("{place}: in line 2, column 9 of the encoded subpattern: expected `:`"),
    );
    assert_error(&bad(r#"{"file": []}"#), Format::Json, &format!("{place}: unknown key `file`; did you mean `files`?"));
    assert_error(
        &bad("raw"),
        Format::Json,
        &format!("{place}: expected a subpattern, found a string; write {{\"directory_name\": \"raw\"}}"),
    );
}

/// A pattern with `depth` levels below its root.
fn nested(depth: usize, level: impl Fn(String) -> String) -> String {
    (0..depth).fold(r#"{"files": [{"glob": "a", "magic": {"bytes": "x"}}]}"#.to_owned(), |inner, _| level(inner))
}

#[test]
fn depth_is_bounded() {
    type Level = fn(String) -> String;
    let levels: [(&str, Level); 3] = [
        ("directories", |inner| format!(r#"{{"directories": [{inner}]}}"#)),
        ("any_of", |inner| format!(r#"{{"any_of": [{inner}]}}"#)),
        ("alternatives", |inner| format!(r#"{{"directories": [[{inner}]]}}"#)),
    ];
    for (what, level) in levels {
        let deepest = if what == "alternatives" { MAX_DEPTH / 2 } else { MAX_DEPTH };
        for format in [Format::Json, Format::Yaml] {
            let text = format!(r#"{{"patterns": [{}]}}"#, nested(deepest, level));
            assert!(load(&text, format).is_ok(), "{what} {format:?}");
            let errors = errors(&nested(deepest + 1, level), format);
            assert_eq!(errors.len(), 1);
            assert!(errors[0].ends_with("subpatterns and alternatives are nested more than 64 deep"), "{errors:?}");
        }
    }
    let lists = format!(r#"{{"files": [{}"a"{}]}}"#, "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    assert!(errors(&lists, Format::Json)[0].ends_with("nested more than 64 deep"));
    let headers: String =
        (1..=MAX_DEPTH).map(|depth| format!("[[{}]]\n", vec!["directories"; depth].join("."))).collect();
    assert!(load(&headers, Format::Toml).is_ok());
    let encoded =
        (0..8).fold(nested(MAX_DEPTH - 7, levels[0].1), |inner, _| json!({"directories": [inner]}).to_string());
    assert!(errors(&encoded, Format::Json)[0].ends_with("nested more than 64 deep"));
}

/// Texts that are small, but want much: each ends soon, in little stack, with an error.
#[test]
fn bombs_fizzle() {
    let fill = |unit: &str| unit.repeat(MAX_FILE_BYTES as usize / unit.len());
    let mut bombs = Vec::new();
    for unit in ["[", "{\"a\":", "[{\"directories\":", "{},", "0,"] {
        bombs.push((Format::Json, fill(unit)));
    }
    for unit in ["[", "{a: ", "- ", "? ", "a: {", "{a,", "- - a\n", "a: 1\n", "&a ", "---\n", "a: |\n", "'", ": "] {
        bombs.push((Format::Yaml, fill(unit)));
    }
    for unit in ["[", "a.", "a={", "a=[", "[a]\n", "[[a]]\n", "a.a.a = 1\n"] {
        bombs.push((Format::Toml, fill(unit)));
    }
    // Billions of laughs, and few but long ones.
    let laughs: String =
        (1..20).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    bombs.push((Format::Yaml, format!("a0: &a0 [x]\n{laughs}")));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(900_000), vec!["*a"; 90].join(","));
    bombs.push((Format::Yaml, long));
    let files = json!({"files": vec!["a"; 100_000]}).to_string();
    let shared = format!("forbidden_directories: [&a '{files}', {}]", vec!["*a"; 90].join(","));
    bombs.push((Format::Yaml, shared));
    // Keys with dots nest tables much deeper than brackets do.
    let dots = vec!["a"; 79].join(".");
    let inline = format!("{dots} = {{").repeat(78);
    bombs.push((Format::Toml, format!("[{dots}]\n{inline}{}", "}".repeat(78))));
    // One key as long as the file, and many that are unknown.
    bombs.push((Format::Json, json!({"x".repeat(1_000_000): 1}).to_string()));
    let keys: serde_json::Map<_, _> = (0..80_000).map(|n| (format!("k{n}"), 1.into())).collect();
    bombs.push((Format::Json, serde_json::Value::Object(keys).to_string()));
    bombs.push((Format::Json, "x".repeat(MAX_FILE_BYTES as usize + 1)));

    let test = move || {
        for (format, text) in bombs {
            let start = Instant::now();
            let errors = load(&text, format).expect_err(&text[..20]);
            assert!(errors.iter().all(|error| error.len() < 2000), "{:.200}", errors[0]);
            assert!(start.elapsed() < Duration::from_secs(10), "{:.20}: {:?}", text, start.elapsed());
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn files_are_read_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bids.v1.yaml");
    std::fs::write(&path, "files: ['*.csv']").unwrap();
    let patterns = load_file(&path).unwrap();
    assert_eq!((patterns[0].name.as_str(), patterns[0].origin.as_str()), ("bids.v1", path.to_str().unwrap()));

    std::fs::write(&path, vec![b' '; MAX_FILE_BYTES as usize + 1]).unwrap();
    assert_eq!(load_file(&path).unwrap_err()[0].message, "the file is larger than 1 MiB");
    let missing = load_file(&dir.path().join("none.json")).unwrap_err();
    assert!(missing[0].message.starts_with("cannot be read: "));
    assert!(load_file(dir.path()).is_err());
}

fn assert_round_trip(pattern: &Pattern) {
    let json = to_json(pattern);
    for text in [json.to_string(), serde_json::to_string_pretty(&json).unwrap()] {
        let again = load_text(text.as_bytes(), Format::Json, &pattern.origin, "other").unwrap();
        assert_eq!(again, [Pattern { place: String::new(), ..pattern.clone() }]);
    }
}

#[test]
fn to_json_says_the_least() {
    let json =
        json!({"name": "n", "directory_name": "run_*", "files": ["a", {"glob": "b", "size": ">=4096"}, ["c", "d"]]});
    let pattern = load(&json.to_string(), Format::Json).unwrap().remove(0);
    assert_eq!(to_json(&pattern), json);
    let deepest = nested(MAX_DEPTH, |inner| format!(r#"{{"directories": [{inner}]}}"#));
    assert_round_trip(&load(&deepest, Format::Json).unwrap()[0]);
}

fn file_tests_strategy() -> impl Strategy<Value = FileTest> {
    let size =
        (prop::sample::select(vec![SizeOp::AtMost, SizeOp::Equal, SizeOp::AtLeast, SizeOp::Greater]), any::<u64>());
    let magic = (0..=i64::MAX as u64, prop::collection::vec(any::<u8>(), 1..20));
    (
        "[a-z*?.]{1,8}x(/[a-z]{1,3})?",
        0..3_u32,
        prop::option::of(3..6_u32),
        any::<Option<bool>>(),
        prop::option::of(size.prop_map(|(op, bytes)| SizeTest { op, bytes })),
        prop::option::of(magic.prop_map(|(offset, bytes)| Magic { offset, bytes })),
        prop::option::of("(hex:)?.{1,9}"),
    )
        .prop_map(|(glob, min, max, case_insensitive, size, magic, contains)| FileTest {
            glob,
            min,
            max,
            case_insensitive,
            size,
            magic,
            contains,
        })
}

fn file_clauses_strategy() -> impl Strategy<Value = Vec<FileClause>> {
    let clause = file_tests_strategy()
        .prop_map(FileClause::One)
        .prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 1..3).prop_map(FileClause::AnyOf));
    prop::collection::vec(clause, 0..3)
}

fn subpatterns_strategy() -> impl Strategy<Value = Subpattern> {
    let leaf = (prop::option::of("[a-z]{1,4}"), prop::array::uniform4(file_clauses_strategy())).prop_map(
        |(directory_name, [files, optional_files, recommended_files, forbidden_files])| Subpattern {
            body: Body { directory_name, files, optional_files, recommended_files, forbidden_files, ..Body::default() },
            ..Subpattern::default()
        },
    );
    leaf.prop_recursive(3, 12, 3, |inner| {
        let clause = inner
            .clone()
            .prop_map(DirClause::One)
            .prop_recursive(2, 4, 2, |clause| prop::collection::vec(clause, 1..3).prop_map(DirClause::AnyOf));
        let clauses = prop::array::uniform4(prop::collection::vec(clause, 0..2));
        let any_of = prop::collection::vec(inner.clone().prop_map(|subpattern| subpattern.body), 0..3);
        let captures = prop::collection::btree_map("[a-z_][a-z0-9_]{0,3}", ".{0,5}", 0..3);
        let names = prop::array::uniform2(prop::collection::vec("[a-z]{1,3}", 0..2));
        (inner, clauses, any_of, captures, any::<[bool; 2]>(), names).prop_map(
            |(mut subpattern, [required, optional, recommended, forbidden], any_of, captures, flags, names)| {
                subpattern.body.directories = required;
                subpattern.body.optional_directories = optional;
                subpattern.body.recommended_directories = recommended;
                subpattern.body.forbidden_directories = forbidden;
                subpattern.body.any_of = any_of;
                subpattern.captures = captures;
                [subpattern.opaque, subpattern.case_insensitive] = flags;
                [subpattern.forbidden_names, subpattern.forbidden_ancestors] = names;
                subpattern
            },
        )
    })
}

/// A document that uses everything, in each format.
const EVERYTHING: [(Format, &str); 3] = [
    (
        Format::Json,
        r#"{"patterns": [{"name": "a", "captures": {"s": "[0-9]+"}, "files": ["<s>.csv", ["b", {"glob": "c", "min": 1,
        "max": 2, "size": "<10MiB", "magic": {"offset": 1, "bytes": "hex:00ff"}, "contains": "x"}]], "directories":
        ["{\"directory_name\": \"d\", \"directories\": [\"{\\\"files\\\": [\\\"e\\\"]}\"]}", [{"opaque": true}]],
        "any_of": [{"files": ["f"]}, {"any_of": []}], "prune": true, "layout": "<.name>", "forbidden_names": ["t*"]}]}"#,
    ),
    (
        Format::Yaml,
        "- &p\n  name: a\n  files: ['*.csv', [b, {glob: c, size: '>0', min: 0x1}]]\n  directories:\n    - directory_name: d\n      \
         any_of: [{files: [f]}]\n    - |\n      {\"files\": [\"g\"]}\n- <<: *p\n  name: b\n  # comment\n  description: >\n    folded\n",
    ),
    (
        Format::Toml,
        "name = 'a'\nfiles = ['x', {glob = 'y', min = 1_0, max = 20}]\n[captures]\ns = '''\\d+'''\n[[directories]]\n\
         directory_name = \"d\"\n[[directories.files]]\nglob = \"z\\u0041\"\nmagic.bytes = 'PK'\n",
    ),
];

#[test]
fn everything_is_accepted() {
    for (format, text) in EVERYTHING {
        let patterns = load(text, format).unwrap_or_else(|errors| panic!("{format:?} {errors:#?}"));
        patterns.iter().for_each(assert_round_trip);
    }
}

/// Loads in all formats; every pattern that comes out must go round.
fn assert_harmless(text: &[u8]) {
    let start = Instant::now();
    for format in [Format::Json, Format::Yaml, Format::Toml, Format::Unknown] {
        match load_text(text, format, "o", "s") {
            Ok(patterns) => patterns.iter().for_each(assert_round_trip),
            Err(errors) => assert!(!errors.is_empty() && errors.len() <= 100),
        }
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

proptest! {
    #[test]
    fn patterns_go_round(root in subpatterns_strategy(), prune: bool, description in prop::option::of(".{0,9}"), layout in prop::option::of(".{1,9}")) {
        let (name, origin, place) = ("n".to_owned(), "o".to_owned(), String::new());
        assert_round_trip(&Pattern { name, origin, place, description, root, prune, layout });
    }

    #[test]
    fn arbitrary_bytes_are_harmless(text in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_harmless(&text);
    }

    #[test]
    fn arbitrary_syntax_is_harmless(text in "([\\[\\]{}:,\"'*&!#=\n -]|files|any_of|name|a|1|\\\\|\\|){0,60}") {
        assert_harmless(text.as_bytes());
    }

    #[test]
    fn mutated_documents_are_harmless(
        (which, edits) in (0..3_usize, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8, 0..40_usize), 1..6)),
    ) {
        let mut text = EVERYTHING[which].1.as_bytes().to_vec();
        for (at, byte, edit, len) in edits {
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            match edit {
                0 => text[at] = byte,
                1 => drop(text.splice(at..at, text[at..end].to_vec())),
                _ if text.len() > 40 => drop(text.drain(at..end)),
                _ => {}
            }
        }
        assert_harmless(&text);
    }
}
