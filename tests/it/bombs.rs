//! Patterns made to exhaust time, memory or the stack end soon, with a result or a clear error.

use std::fmt::Write as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use veinfs::automaton::Automaton;
use veinfs::matcher::names::{GlobId, NameSet};
use veinfs::pattern::compile::compile;
use veinfs::pattern::glob::{Capture, Glob, components};
use veinfs::pattern::load::{Format, load_text};
use veinfs::pattern::{MAX_FILE_BYTES, PatternError};

/// The longest name that file systems know.
const LONGEST: usize = 255;
/// The stack of a thread by default, which threads that match have.
const STACK: usize = 2 << 20;

/// Runs `work` on a common stack and fails if it takes much longer than any of it should.
fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let thread = thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || drop(sender.send(work())))
        .expect("a thread can be started");
    match receiver.recv_timeout(Duration::from_secs(60)) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("not done within a minute"),
        Err(RecvTimeoutError::Disconnected) => {
            thread.join().expect("the work does not panic");
            unreachable!("the thread sends before it ends")
        }
    }
}

fn build(json: &str) -> Result<Automaton, Vec<PatternError>> {
    compile(&load_text(json.as_bytes(), Format::Json, "bomb.json", "bomb")?)
}

/// A pattern of these file clauses, each a JSON text.
fn files(clauses: impl IntoIterator<Item = String>) -> String {
    let quoted: Vec<String> = clauses.into_iter().map(|glob| serde_json::to_string(&glob).expect("a text")).collect();
    format!("{{\"files\": [{}]}}", quoted.join(","))
}

fn names() -> Vec<Vec<u8>> {
    let mut mixed: Vec<u8> = b"a\xffb\xc3".repeat(64);
    mixed.truncate(LONGEST);
    vec![
        Vec::new(),
        b"a".to_vec(),
        b"a".repeat(LONGEST),
        b"ab".repeat(LONGEST / 2),
        "é".repeat(LONGEST / 2).into_bytes(),
        b"\xff".repeat(LONGEST),
        mixed,
    ]
}

fn match_all(set: &NameSet) -> usize {
    let (mut cache, mut matched, mut sum) = (set.cache(), Vec::new(), 0);
    for name in names() {
        set.matches(&mut cache, &name, &mut matched);
        sum += matched.len();
    }
    sum
}

/// Compiles and matches, or says what is wrong.
fn run(json: String) -> Result<usize, String> {
    soon(move || match build(&json) {
        Ok(automaton) => {
            let matched = match_all(&automaton.names);
            for at in 0..automaton.names.len() as u32 {
                let glob = automaton.names.glob(GlobId(at));
                if !glob.captures().is_empty() {
                    names().iter().for_each(|name| drop(glob.mappings(name, automaton.names.captures())));
                }
            }
            Ok(matched)
        }
        Err(errors) => {
            assert!(!errors.is_empty() && errors.len() <= 101, "{} errors", errors.len());
            let text = errors[0].to_string();
            assert!(text.len() < 1000, "an error of {} bytes", text.len());
            Err(text)
        }
    })
}

#[test]
fn braces_by_the_thousand() {
    assert!(run(files(["{a,b}".repeat(800)])).is_ok());
    assert!(run(files(["{,}".repeat(1365)])).is_ok());
    assert!(run(files(["*{}".repeat(1365)])).is_ok());
    assert!(run(files([format!("{{{}}}", "a,".repeat(2000))])).is_ok());
    assert!(run(files([format!("{}{}", "{".repeat(60), "}".repeat(60))])).is_ok());
    for open in ["{", "{a,", "{*"] {
        let error = run(files([open.repeat(1000)])).expect_err("too deep");
        assert!(error.contains("nested too deeply"), "{error}");
    }
    let wide = |glob: &str| run(files((0..250).map(|at| format!("{}{at}", glob.repeat(4000 / glob.len())))));
    assert!(wide("{a,b}").is_ok());
    wide("{?,[!a]}").expect_err("too large");
}

#[test]
fn stars_against_the_longest_names() {
    assert!(run(files(["*a".repeat(2048)])).is_ok());
    assert!(run(files([format!("{}b", "*a".repeat(120))])).is_ok());
    assert!(run(files(["?*".repeat(2048)])).is_ok());
    assert!(run(files(["[!b]*".repeat(800)])).is_ok());
    assert!(run(files((0..50).map(|at| format!("{}{at}", "*a*b?".repeat(50))))).is_ok());
    let error = run(files(["a".repeat(4097)])).expect_err("too long");
    assert!(error.contains("a glob of 4097 bytes; at most 4096"), "{error}");
    let error = run(files(["a".repeat(1_000_000)])).expect_err("too long");
    assert!(error.contains("a glob of 1000000 bytes"), "{error}");
}

#[test]
fn chains_of_any_depth() {
    assert!(run(files(["**/".repeat(63) + "x"])).is_ok());
    assert!(run(files(["**/a/".repeat(31) + "x"])).is_ok());
    assert!(run(files(["*/**/".repeat(31) + "x"])).is_ok());
    let chains = |count: usize| run(files((0..count).map(|at| format!("{}{at}", "**/a/".repeat(31)))));
    assert!(chains(500).is_ok());
    let error = chains(1000).expect_err("too many");
    assert!(error.contains("subpatterns in all patterns together; at most 50000"), "{error}");
    let error = run(files(["a/".repeat(64) + "x"])).expect_err("too deep");
    assert!(error.contains("a path of 65 components; at most 64"), "{error}");
    assert!(run(files(["a/".repeat(300_000) + "x"])).expect_err("too deep").contains("a path of 300001 components"));
}

#[test]
fn expressions_that_blow_up() {
    let with = |expression: &str, glob: &str| {
        let expression = serde_json::to_string(expression).expect("a text");
        run(format!("{{\"captures\": {{\"a\": {expression}}}, \"files\": [\"{glob}\"]}}"))
    };
    for expression in ["(a*)*b", "(a|aa)+", "(a|a)*", "(a|b)*a(a|b){200}", r"\w{1,30}", "(?:a?){100}a{100}", "((a*)*)*"]
    {
        for glob in ["<a>", "*<a>*", "<a><a>", "<a>_<a>*<a>", "{<a>,<a>*<a>}"] {
            with(expression, glob).unwrap_or_else(|error| panic!("{expression} in {glob}: {error}"));
        }
    }
    for expression in [".{0,1000}{0,1000}", r"\w{1000}", "((a{0,100}){0,100}){0,100}"] {
        let error = with(expression, "<a>").expect_err("too large");
        assert!(error.contains("captures.a") && error.contains("takes more than 1024 KiB"), "{error}");
    }
    for expression in ["(".repeat(100_000) + &")".repeat(100_000), "(".repeat(200) + &")".repeat(200), "[".repeat(9999)]
    {
        let error = with(&expression, "<a>").expect_err("too deep");
        assert!(error.contains("is wrong"), "{error}");
    }
    let large = r"\\w{1,40}";
    let error = with(r"\w{1,40}", &"<a>".repeat(1365)).expect_err("too large");
    assert!(error.contains("the globs are too large"), "{error}");
    let many = |count: usize, expression: &str| {
        let (mut captures, mut globs) = (String::new(), String::new());
        for at in 0..count {
            let comma = if at == 0 { "" } else { "," };
            write!(captures, "{comma}\"c{at}\": \"{expression}\"").expect("a String takes all");
            write!(globs, "{comma}\"<c{at}>\"").expect("a String takes all");
        }
        run(format!("{{\"captures\": {{{captures}}}, \"files\": [{globs}]}}"))
    };
    assert!(many(900, "a+").is_ok());
    for error in [many(20_000, "a+"), many(500, large)] {
        let error = error.expect_err("too many");
        assert!(error.contains("too many or too large captures"), "{error}");
    }
}

#[test]
fn captures_that_match_in_too_many_ways() {
    let scope: Vec<Capture> = (0..)
        .map(veinfs::matcher::mapping::CaptureId)
        .zip(["a", "b", "c"])
        .map(|(id, name)| Capture::new(name, id, ".*").expect("a right expression"))
        .collect();
    let ways = |glob: &str, length: usize| {
        let (glob, scope) = (Glob::parse(glob, &scope, false).expect("a right glob"), scope.clone());
        soon(move || glob.mappings(&b"a".repeat(length), &scope).map(|ways| ways.len()))
    };
    for glob in ["<a>*<a>*<a>*<b>", "<a>*<b>*<c>", "*<a>*<b>*<c>*", "{<a>,<b>,<c>}*{<a>,<b>,<c>}*<a>"] {
        assert!(ways(glob, LONGEST).is_err(), "{glob}");
    }
    assert_eq!(ways(&"<a>".repeat(1365), LONGEST), Ok(0), "neither none nor one `a` fill the name");
    assert_eq!(ways(&"<a>".repeat(1365), 0), Ok(1));
    assert_eq!(ways(&"<a>".repeat(51), LONGEST), Ok(1));
    assert!(ways(&"{<a>,<b>}".repeat(400), 3).is_ok());
    assert_eq!(ways(&("*_".repeat(20) + "<a>"), LONGEST), Ok(0));
    assert_eq!(ways(&("*a".repeat(40) + "<a>"), LONGEST), Ok(216), "found once each, not once for each way");
    assert_eq!(ways(&"{,a}".repeat(200), 200), Ok(1));
}

#[test]
fn many_of_each() {
    let subpatterns: Vec<String> =
        (0..500).map(|at| format!("{{\"directory_name\": \"d{at}*\", \"files\": [\"f{at}*\"]}}")).collect();
    assert!(run(format!("{{\"directories\": [{}]}}", subpatterns.join(","))).is_ok());
    let nested = (0..63).fold("{\"files\": [\"x\"]}".to_owned(), |inner, at| {
        format!("{{\"directory_name\": \"d{at}\", \"directories\": [{inner}]}}")
    });
    assert!(run(nested).is_ok());
    let any_of = |depth: usize| {
        (0..depth).fold("{\"files\": [\"x\"]}".to_owned(), |inner, _| format!("{{\"any_of\": [{inner}, {inner}]}}"))
    };
    assert!(run(any_of(10)).is_ok());
    let narrow = |depth: usize| "{\"any_of\": [".repeat(depth) + "{}" + &"]}".repeat(depth);
    assert!(run(narrow(60)).is_ok());
    assert!(run(narrow(10_000)).is_err());
    let clauses = |depth: usize| format!("{{\"files\": [{}\"x\"{}]}}", "[".repeat(depth), "]".repeat(depth));
    assert!(run(clauses(60)).is_ok());
    assert!(run(clauses(100_000)).is_err());

    let filled = |one: &dyn Fn(usize) -> String, head: &str, tail: &str| {
        let mut text = head.to_owned();
        for at in 0.. {
            let next = one(at);
            if text.len() + next.len() + tail.len() + 1 > MAX_FILE_BYTES as usize {
                break;
            }
            if at > 0 {
                text.push(',');
            }
            text.push_str(&next);
        }
        text + tail
    };
    // A mebibyte each of patterns, of equal names, of tests, of wrong globs, of captures below captures.
    run(filled(&|at| format!("{{\"name\": \"p{at}\"}}"), "[", "]")).expect("equal states are one");
    run(filled(&|at| format!("{{\"glob\": \"*\", \"size\": {at}}}"), "{\"files\": [", "]}")).expect("many tests");
    run(filled(&|_| "\"[\"".to_owned(), "{\"files\": [", "]}")).expect_err("wrong globs");
    run(filled(&|at| format!("\"*{at}?\""), "{\"files\": [", "]}")).expect_err("too many globs");
    let captures: String = (0..500).map(|at| format!("\"c{at}\": \"\\\\w\",")).collect();
    let head = format!("{{\"captures\": {{{}}}, \"directories\": [", captures.trim_end_matches(','));
    run(filled(&|at| format!("{{\"files\": [\"<c{}>x\"]}}", at % 500), &head, "]}")).expect("scopes are shared");
    run(filled(&|_| "{\"captures\": {\"x\": \"a\"}, \"files\": [\"<x>\"]}".to_owned(), &head, "]}"))
        .expect_err("too many captures");
    run(filled(&|_| format!("\"{}\"", "<c1>".repeat(1000)), &head.replace("directories", "files"), "]}"))
        .expect("equal globs are one");
    run(filled(&|at| format!("\"{at}{}\"", "<c1>".repeat(1000)), &head.replace("directories", "files"), "]}"))
        .expect_err("too large");
}

#[test]
fn ten_thousand_globs_keep_to_their_memory() {
    let json = files((0..10_000).map(|at| format!("*{at}*.{}", at % 97)));
    soon(move || {
        let automaton = build(&json).expect("not too large");
        let names = &automaton.names;
        assert_eq!(names.len(), 10_000);
        let (mut cache, mut matched, mut most) = (names.cache(), Vec::new(), 0);
        for at in 0..200u32 {
            let name = format!("{}.{}", at.wrapping_mul(2_654_435_761), at % 97);
            names.matches(&mut cache, name.as_bytes(), &mut matched);
            assert!(matched.iter().all(|id| names.glob(*id).matches(name.as_bytes(), &[])));
            most = most.max(cache.bytes());
        }
        assert!(most <= 6 << 20, "{most} bytes for one thread");
    });
}

#[test]
fn long_texts_are_read_in_one_pass() {
    soon(|| {
        for text in ["[", "{", "\\", "*", "<a", "[]", "{}", "é[", "/"] {
            let long = text.repeat(100_000);
            let _ = components(&long);
            let _ = Glob::parse(&long, &[], true);
        }
    });
}
