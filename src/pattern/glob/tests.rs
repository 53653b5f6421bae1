//! Tables of syntax and meaning, and globset as the model where the two agree.

use globset::GlobBuilder;
use proptest::prelude::*;

use super::*;
use crate::pattern::capture::CaptureError;

fn capture(number: u32, name: &str, expression: &str) -> Capture {
    Capture::new(name, CaptureId(number), expression).expect("a right expression")
}

fn parse(glob: &str) -> Glob {
    Glob::parse(glob, &[], false).unwrap_or_else(|error| panic!("{glob}: {error:?}"))
}

fn matches(glob: &str, name: impl AsRef<[u8]>) -> bool {
    parse(glob).matches(name.as_ref(), &[])
}

fn folded_matches(glob: &str, name: &str) -> bool {
    Glob::parse(glob, &[], true).expect("a right glob").matches(name.as_bytes(), &[])
}

#[test]
fn what_is_wrong_where_and_the_cure() {
    let table: &[(&str, usize, &str, Option<&str>)] = &[
        ("[", 1, "unclosed `[`", Some("close it with `]`, or write `\\[` for the character itself")),
        ("ab[", 3, "unclosed `[`", Some("close it")),
        ("é[a", 2, "unclosed `[`", Some("close it")),
        ("[]", 1, "unclosed `[`", Some("close it")),
        ("[!]", 1, "unclosed `[`", Some("close it")),
        ("[^]", 1, "unclosed `[`", Some("close it")),
        ("{", 1, "unclosed `{`", Some("close it with `}`, or write `\\{` for the character itself")),
        ("a{b,c", 2, "unclosed `{`", Some("close it")),
        ("{a,{b}", 1, "unclosed `{`", Some("close it")),
        ("{a,{b,c", 4, "unclosed `{`", Some("close it")),
        ("{[}]", 1, "unclosed `{`", Some("close it")),
        ("a}", 2, "`}` without `{`", Some("write `\\}` for the character itself")),
        ("{a}}", 4, "`}` without `{`", Some("write `\\}`")),
        ("\\", 1, "`\\` at the end escapes nothing", Some("write `\\\\` for a backslash")),
        ("ab\\", 3, "`\\` at the end escapes nothing", Some("write `\\\\`")),
        ("{a\\", 3, "`\\` at the end escapes nothing", Some("write `\\\\`")),
        ("[z-a]", 2, "the range `z-a` runs backwards", Some("write `a-z`")),
        ("x[!bz-a]", 5, "the range `z-a` runs backwards", Some("write `a-z`")),
        ("[a--]", 2, "the range `a--` runs backwards", Some("write `--a`")),
        ("[c-e-a]", 4, "the range `c-a` runs backwards", Some("write `a-c`")),
    ];
    for (glob, column, message, hint) in table {
        let error = Glob::parse(glob, &[], false).expect_err(glob);
        assert_eq!((error.column, error.message.as_str()), (*column, *message), "{glob}");
        match (hint, &error.hint) {
            (None, None) => {}
            (Some(wanted), Some(hint)) if hint.starts_with(wanted) => {}
            (_, hint) => panic!("{glob}: {hint:?}"),
        }
    }
    let deep = format!("{}{}", "{".repeat(65), "}".repeat(65));
    let error = Glob::parse(&deep, &[], false).expect_err("65 braces");
    assert_eq!((error.column, error.message.as_str()), (66, "`{` nested too deeply"));
    assert!(Glob::parse(&deep[1..deep.len() - 1], &[], false).is_ok());
}

#[test]
fn undeclared_captures_are_errors_where_captures_are_declared() {
    let scope = [capture(0, "sub", "[0-9]+"), capture(1, "run", "[0-9]+")];
    let error = |glob: &str| Glob::parse(glob, &scope, false).expect_err(glob);
    let near = error("x-<sup>");
    assert_eq!((near.column, near.message.as_str()), (3, "undeclared capture `<sup>`"));
    assert_eq!(near.hint.as_deref(), Some("did you mean `<sub>`?"));
    let far = error("<elsewhere>");
    assert_eq!((far.column, far.message.as_str()), (1, "undeclared capture `<elsewhere>`"));
    let hint = "declare it in `captures`, or write `\\<` for the character itself; declared: sub, run";
    assert_eq!(far.hint.as_deref(), Some(hint));
    assert_eq!(error("{a,<s>}").column, 4);

    for (glob, name) in [("\\<sup>", "<sup>"), ("<>", "<>"), ("<sup", "<sup"), ("<a b>", "<a b>"), ("a<", "a<")] {
        assert!(Glob::parse(glob, &scope, false).expect(glob).matches(name.as_bytes(), &scope), "{glob}");
    }
    assert!(matches("<sup>", "<sup>"), "without captures `<` is a character like any other");
}

#[test]
fn the_nearest_declaration_of_a_capture_counts() {
    let scope = [capture(0, "a", "x"), capture(1, "a", "y")];
    let glob = Glob::parse("<a>", &scope, false).expect("a right glob");
    assert_eq!(glob.tokens, [Token::Capture(CaptureId(1))]);
    assert!(glob.matches(b"y", &scope) && !glob.matches(b"x", &scope));
}

#[test]
fn paths_split_where_no_brace_class_or_escape_is() {
    let table: &[(&str, &[&str])] = &[
        ("a", &["a"]),
        ("", &[""]),
        ("a/b", &["a", "b"]),
        ("/a//", &["", "a", "", ""]),
        ("**/x", &["**", "x"]),
        ("{a,b}/c", &["{a,b}", "c"]),
        ("[/]/a", &["[/]", "a"]),
        ("[]/]/a", &["[]/]", "a"]),
        ("[!]/]/a", &["[!]/]", "a"]),
        ("\\{/a", &["\\{", "a"]),
        ("é/ü", &["é", "ü"]),
        ("}/{", &["}", "{"]),
    ];
    for (glob, parts) in table {
        assert_eq!(components(glob).as_deref(), Ok(*parts), "{glob}");
    }
    let inside = components("é{a/b,c}").expect_err("a slash in braces");
    assert_eq!((inside.column, inside.message.as_str()), (4, "`/` inside `{}`"));
    assert!(inside.hint.is_some_and(|hint| hint.starts_with("write one clause for each path")));
    let escaped = components("ab\\/c").expect_err("an escaped slash");
    assert_eq!((escaped.column, escaped.message.as_str()), (3, "`/` cannot be escaped: no name contains it"));
}

#[test]
fn a_glob_matches_whole_names() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("", &[""], &["a"]),
        ("a", &["a"], &["", "A", "aa", "ba"]),
        ("*", &["", "a", ".hidden", "a\nb"], &[]),
        ("**", &["", ".a"], &[]),
        ("*.txt", &[".txt", "a.txt", ".a.txt"], &["a.txt~", "txt", "a.TXT"]),
        ("a*b*c", &["abc", "a-b-c", "abcbc"], &["ab", "acb"]),
        ("?", &["a", ".", "\n"], &["", "ab"]),
        ("?*", &["a", "ab"], &[""]),
        ("[abc]", &["a", "c"], &["", "d", "ab"]),
        ("[a-c_]", &["b", "_"], &["-", "d"]),
        ("[!a]", &["b", "-", "\n"], &["a", "", "bb"]),
        ("[^a]", &["b"], &["a"]),
        ("[]]", &["]"], &["["]),
        ("[]a]", &["]", "a"], &["]a]", "b"]),
        ("[!]a]", &["b"], &["]", "a"]),
        ("[-a]", &["-", "a"], &["b"]),
        ("[a-]", &["-", "a"], &["b"]),
        ("[!-a]", &["b"], &["-", "a"]),
        ("[--a]", &["-", "A", "a"], &["b", "+"]),
        ("[+--]", &["+", ",", "-"], &["a"]),
        ("[a-]]", &["a]", "-]"], &["b]", "a"]),
        ("[a-c-e]", &["a", "d", "e"], &["-", "f"]),
        ("[a^!]", &["a", "^", "!"], &["b"]),
        ("[[]", &["["], &["a"]),
        ("[\\]", &["\\"], &["a"]),
        ("[{,}]", &["{", ",", "}"], &["a"]),
        ("[*?]", &["*", "?"], &["a"]),
        ("{a,b}", &["a", "b"], &["", "ab", "a,b"]),
        ("{a}", &["a"], &["{a}"]),
        ("{}", &[""], &["{}"]),
        ("a{,.gz}", &["a", "a.gz"], &["a.g", "a."]),
        ("a{,,}", &["a"], &["a,"]),
        ("{a,b{c,d{e,}}}", &["a", "bc", "bde", "bd"], &["b", "be", "ac"]),
        ("{a,b}{c,d}", &["ac", "bd"], &["ab", "cd"]),
        ("{*.a,?}", &["x.a", "x"], &["xx"]),
        ("{a\\,b,c}", &["a,b", "c"], &["a", "b,c"]),
        ("{[,]a,b}", &[",a", "b"], &["a", "[,]a"]),
        ("a,b", &["a,b"], &["a", "b"]),
        ("\\*\\?\\[\\{\\}\\\\", &["*?[{}\\"], &["a?[{}\\"]),
        ("\\a", &["a"], &["\\a"]),
        ("]", &["]"], &["["]),
    ];
    for (glob, yes, no) in table {
        yes.iter().for_each(|name| assert!(matches(glob, name), "{glob} and {name}"));
        no.iter().for_each(|name| assert!(!matches(glob, name), "{glob} but {name}"));
    }
}

#[test]
fn by_character_and_a_byte_that_is_none_is_one() {
    type Names<'a> = &'a [&'a [u8]];
    let table: &[(&str, Names<'_>, Names<'_>)] = &[
        ("?", &["é".as_bytes(), "🙂".as_bytes(), b"\xff", b"\xc3", b"\xa9"], &["e\u{301}".as_bytes(), b"\xff\xff"]),
        // An e and a combining accent are two characters.
        ("??", &["e\u{301}".as_bytes(), b"\xff\xff", b"\xc3\xff", b"\xe2\x82"], &["é".as_bytes(), b"\xc3\xa9"]),
        ("[!a]", &["é".as_bytes(), b"\xff", b"\x80"], &[b"a", b"\xff\xff", b"\xc3\x28"]),
        ("[!\u{0}-\u{10FFFF}]", &[b"\xff"], &[b"a", "é".as_bytes()]),
        ("[\u{0}-\u{10FFFF}]", &["é".as_bytes()], &[b"\xff"]),
        ("[à-ü]", &["é".as_bytes()], &[b"\xa9", "e".as_bytes(), "ÿ".as_bytes()]),
        ("[!à-ü]", &["ÿ".as_bytes(), b"\xc3"], &["é".as_bytes()]),
        ("é?", &[b"\xc3\xa9\xc3", "éé".as_bytes()], &[b"\xc3\xa9"]),
        ("?é", &[b"\xc3\xc3\xa9", b"\xe3\xc3\xa9", "aé".as_bytes()], &[b"\xc3\xa9"]),
        ("?a?", &[b"\xffa\xfe", "éaé".as_bytes()], &[b"\xff\xffa"]),
        // Each byte of a cut-off sequence counts alone.
        ("???", &[b"\xf0\x9f\x98"], &[b"\xf0\x9f\x98\x80"]),
        ("????", &[b"\xf0\x9f\x98\x41"], &[]),
        // Surrogates and overlong forms are no UTF-8.
        ("???", &[b"\xed\xa0\x80"], &[]),
        ("??", &[b"\xc0\x80"], &[]),
        ("*", &[b"\xff\xc3", b""], &[]),
        ("*.x", &[b"\xff.x", b"\xc3.x"], &[b"\xffx"]),
        ("{?,a}b", &[b"\xffb", b"ab"], &[b"\xff\xffb"]),
    ];
    for (glob, yes, no) in table {
        yes.iter().for_each(|name| assert!(matches(glob, name), "{glob} and {name:?}"));
        no.iter().for_each(|name| assert!(!matches(glob, name), "{glob} but {name:?}"));
    }
}

#[test]
fn case_is_folded_simply() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("readme", &["README", "ReadMe"], &["reedme"]),
        ("É", &["é", "É"], &["e", "E"]),
        ("ẞ", &["ß", "ẞ"], &["ss", "SS"]),
        ("ß", &["ẞ"], &["ss"]),
        ("k", &["K", "\u{212A}"], &["x"]),
        ("\u{212A}", &["k", "K"], &[]),
        ("[a-z]", &["Q", "q", "\u{212A}", "ſ"], &["1", "é"]),
        ("[!a-z]", &["1", "é"], &["Q", "q", "\u{212A}"]),
        ("[!A]", &["b"], &["a", "A"]),
        ("σ", &["Σ", "ς", "σ"], &[]),
        ("[à-ü]", &["É"], &["Ÿ"]),
        ("i", &["I"], &["İ", "ı"]),
        ("{A,b}\\C", &["ac", "BC"], &[]),
    ];
    for (glob, yes, no) in table {
        yes.iter().for_each(|name| assert!(folded_matches(glob, name), "{glob} and {name}"));
        no.iter().for_each(|name| assert!(!folded_matches(glob, name), "{glob} but {name}"));
    }
    assert!(!matches("É", "é") && !matches("[a-z]", "Q"));
}

#[test]
fn any_and_captures_are_known() {
    for (glob, any) in [("*", true), ("**", true), ("***", true), ("", false), ("?*", false), ("{*}", false)] {
        assert_eq!(parse(glob).is_any(), any, "{glob}");
    }
    let scope = [capture(0, "a", "x"), capture(1, "b", "y")];
    let glob = Glob::parse("{<b>,{<a>,<b>}}-<b>", &scope, false).expect("a right glob");
    assert_eq!(glob.captures(), [CaptureId(0), CaptureId(1)]);
}

/// The ways in which `name` matches, as `a=1 b=2`.
fn ways(glob: &str, scope: &[Capture], name: &[u8]) -> Vec<String> {
    let glob = Glob::parse(glob, scope, false).expect("a right glob");
    let mappings = glob.mappings(name, scope).expect("few enough ways");
    let value = |(id, value): (CaptureId, &[u8])| format!("{}={}", scope[id.index()].name, value.escape_ascii());
    mappings.iter().map(|mapping| mapping.iter().map(value).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn captures_are_found_in_every_way() {
    let scope = [capture(0, "a", ".*"), capture(1, "b", ".+"), capture(2, "n", "[0-9]+")];
    let ways = |glob: &str, name: &str| ways(glob, &scope, name.as_bytes());
    assert_eq!(ways("<b>_<a>", "x_y_z"), ["a=y_z b=x", "a=z b=x_y"]);
    assert_eq!(ways("<b>_<a>", "_x"), Vec::<String>::new());
    assert_eq!(ways("<b><b>", "abab"), ["b=ab"], "the same capture has one value");
    assert_eq!(ways("<b><b>", "aba"), Vec::<String>::new());
    assert_eq!(ways("<a><a>", ""), ["a="]);
    assert_eq!(ways("*<n>*", "a12"), ["n=1", "n=12", "n=2"]);
    assert_eq!(ways("{run-<n>,x<a>}.csv", "run-07.csv"), ["n=07"]);
    assert_eq!(ways("{run-<n>,*}.csv", "run-07.csv"), ["n=07", ""], "unset comes last");
    assert_eq!(ways("{run-<n>,*}.csv", "x.csv"), [""]);
    assert_eq!(ways("{<n>,<a>}", "12"), ["a=12", "n=12"]);
    assert_eq!(ways("{{<n>,},}{,{}}", "1"), ["n=1"]);
    assert_eq!(ways("<n>", "12x"), Vec::<String>::new(), "a value matches whole");
    assert_eq!(ways("x", "x"), [""]);
    assert_eq!(ways("x", "y"), Vec::<String>::new());
}

#[test]
fn values_are_whole_characters() {
    let text = [capture(0, "c", "."), capture(1, "d", ".")];
    assert_eq!(ways("<c>", &text, "é".as_bytes()), ["c=\\xc3\\xa9"]);
    assert_eq!(ways("<c>", &text, b"\xff"), Vec::<String>::new(), "`.` is no byte that is no character");
    assert_eq!(ways("<c>?", &text, b"a\xff"), ["c=a"]);
    let bytes = [capture(0, "c", "(?s-u:.)"), capture(1, "d", "(?s-u:.)")];
    assert_eq!(ways("<c>", &bytes, b"\xff"), ["c=\\xff"]);
    assert_eq!(ways("<c><d>", &bytes, "é".as_bytes()), Vec::<String>::new());
    assert_eq!(ways("<c><d>", &bytes, b"a\xc3"), ["c=a d=\\xc3"]);
}

#[test]
fn expressions_of_captures_are_checked() {
    let error = |expression: &str| Capture::new("a", CaptureId(0), expression).expect_err(expression);
    for anchor in ["^a", "a$", r"\ba", r"(x|\A)", "(?m:^)"] {
        assert_eq!(error(anchor), CaptureError::Anchor, "{anchor}");
    }
    for wrong in ["(", "a{2,1}", "[z-a]", "a)(b", "(?<n>a)(?<n>b)", r"\p{Nonsense}", ".{0,1000}{0,1000}"] {
        let CaptureError::Wrong(reason) = error(wrong) else { panic!("{wrong}") };
        assert!(!reason.is_empty() && !reason.contains('\n'), "{wrong}: {reason}");
    }
    let comment = [capture(0, "a", "(?x) [0-9]+ # a number")];
    assert_eq!(ways("<a>", &comment, b"12"), ["a=12"]);
    assert_eq!(ways("<a>", &[capture(0, "a", "(?i)[a-z]+")], b"Xy"), ["a=Xy"]);
}

/// Globs of the grammar that this and globset read alike: no `/`, no `**`.
fn globset_glob() -> impl Strategy<Value = String> {
    let class = ("[!^]?", "[]a-]?", "([a-c]|a-c|b-b|[{}*?,\\\\^!.-]|0-9){0,4}").prop_map(|(not, first, rest)| {
        let class = format!("[{not}{first}{rest}]");
        class
    });
    let piece = prop_oneof![
        6 => "[a-c.]{1,2}",
        2 => Just("?".to_owned()),
        2 => Just("\u{1}".to_owned()),
        2 => class,
        1 => "\\\\[a-c*?{}\\[\\],\\\\]",
        1 => "[\\],!^-]",
    ];
    let sequence = proptest::collection::vec(piece, 0..5).prop_map(|parts| parts.concat());
    sequence
        .prop_recursive(3, 24, 4, |inner| {
            let braces =
                proptest::collection::vec(inner.clone(), 1..4).prop_map(|list| format!("{{{}}}", list.join(",")));
            (inner.clone(), braces, inner).prop_map(|(before, braces, after)| [before, braces, after].concat())
        })
        .prop_map(|glob| {
            // Stars side by side are globset's `**`.
            let mut text = String::new();
            for c in glob.chars() {
                match c {
                    '\u{1}' if text.ends_with('*') => {}
                    '\u{1}' => text.push('*'),
                    c => text.push(c),
                }
            }
            text
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn globset_agrees_on_ascii(glob in globset_glob(), names in proptest::collection::vec("[a-c.0,!^{}*?\\[\\]\\\\-]{0,6}", 16)) {
        prop_assume!(!glob.contains("**"));
        let theirs = GlobBuilder::new(&glob).literal_separator(false).backslash_escape(true).empty_alternates(true).build();
        let ours = Glob::parse(&glob, &[], false);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?}, {:?}", glob, ours, theirs);
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            let theirs = theirs.compile_matcher();
            for name in names {
                prop_assert_eq!(ours.matches(name.as_bytes(), &[]), theirs.is_match(&name), "{} and {:?}", glob, name);
            }
        }
    }

    #[test]
    fn no_text_is_too_odd(text in any::<String>(), odd in r"[\[\]{}*?!^,/\\<>a-]{0,40}", fold in any::<bool>()) {
        let scope = [capture(0, "a", "[a-z]*")];
        for glob in [&text, &odd] {
            let _ = components(glob);
            for scope in [&[], &scope[..]] {
                if let Ok(glob) = Glob::parse(glob, scope, fold) {
                    let name = text.as_bytes();
                    let matched = glob.matches(name, scope);
                    if let Ok(ways) = glob.mappings(name, scope) {
                        prop_assert!(matched || ways.is_empty());
                        prop_assert!(ways.is_empty() != matched || !glob.captures().is_empty());
                    }
                }
            }
            let pattern = crate::pattern::Pattern {
                name: "p".into(),
                origin: "test".into(),
                place: String::new(),
                description: None,
                root: crate::pattern::Subpattern {
                    body: crate::pattern::Body {
                        directory_name: Some(glob.clone()),
                        files: vec![crate::pattern::FileClause::One(crate::pattern::FileTest::glob(glob.clone()))],
                        ..Default::default()
                    },
                    captures: [("a".to_owned(), odd.clone())].into(),
                    case_insensitive: fold,
                    ..Default::default()
                },
                prune: false,
                layout: Some(text.clone()),
            };
            let _ = crate::pattern::compile::compile(&[pattern]);
        }
    }
}

/// Where globset reads a glob otherwise, and why this does not.
#[test]
fn globset_differs_on_purpose() {
    let globset = |glob: &str, name: &str| {
        let built = GlobBuilder::new(glob).literal_separator(false).empty_alternates(true).build();
        built.expect("a right glob").compile_matcher().is_match(name)
    };
    // It takes `?` and classes for bytes; here they are characters.
    assert!(!globset("?", "é") && matches("?", "é"));
    assert!(!globset("[é]", "é") && matches("[é]", "é"));
    // `**` crosses directories in it; inside a name it is `*`.
    assert!(globset("a/**", "a/b") && matches("a**b", "axb"));
}
