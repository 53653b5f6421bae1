//! Random trees, and random valid patterns that often match in them.
//!
//! A pattern is made from a list of numbers, each a choice, and a tree: a directory is picked, some of its entries
//! become clauses, and their names are widened to globs. Zero is the plainest choice and what an exhausted list gives,
//! so that counterexamples shrink to plain patterns and small trees.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use veinfs::entry::Kind;
use veinfs::pattern::{Body, DirClause, FileClause, FileTest, Magic, Pattern, SizeOp, SizeTest, Subpattern};

use crate::oracle::{Name, Node, Real, Tree};

mod capturing;
mod tests;

pub(crate) const DIRECTORY_NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"sub-01",
    b"sub-02",
    b"run-01",
    b"A",
    b".d",
    b"caf\xe9",
    "é".as_bytes(),
    b"data.csv",
    b"ses-1",
    b".veinfs",
];

pub(crate) const FILE_NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"data.csv",
    b"x.csv",
    b"run-01",
    b"sub-01_bold.nii",
    b"sub-02_bold.nii",
    b"sub-01_run-01.nii.gz",
    b"X.CSV",
    b".hidden",
    b"caf\xe9",
    "é.csv".as_bytes(),
    b"1",
    b"2",
    b"1_1",
    b"1_2",
    b"2_1",
    b"a[1]{2}.c,v",
    b"<s>.csv",
    b"\xe2\x82",
];

pub(crate) const CONTENTS: &[&[u8]] = &[b"", b"magic!", b"needle", b"magic! and a needle", b"x"];

/// Capture names with the regular expressions that they may be declared with.
const CAPTURES: &[(&str, &[&str])] =
    &[("s", &["[0-9]+", "[a-z]+", ".*", "sub-[0-9]+|a"]), ("r", &["[^_.]+", "[a-z0-9-]*", "(?s-u:.)+", "01|02|1"])];

/// Globs that come from nowhere.
const STRAY_GLOBS: &[&str] =
    &["zzz", "*.zip", "[!a-z]*", "{q,w{e,}}", "?", "*", "*é*", "[^s]*", "**.csv", "[]-]?", "sub-??", "\\.*", "caf[!e]"];

/// The deepest directory of a tree below its root.
const MAX_TREE_DEPTH: usize = 5;

/// Something to put in a tree; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Thing {
    Dir,
    File(Index),
    Unreadable,
    Special,
    Link(Index),
    Dangling(Index),
}

/// Trees of directories up to five deep, with files, few links, FIFOs and unreadable directories.
pub(crate) fn arb_tree() -> impl Strategy<Value = Tree> {
    arb_things()
        .prop_map(|(name, things)| plant(name, &things, DIRECTORY_NAMES, FILE_NAMES))
        .prop_filter("a link leads above the root", |tree| !tree.escapes())
}

/// A tree with the patterns to look for in it: of all kinds, or with names and patterns that set captures in many ways.
pub(crate) fn arb_case() -> impl Strategy<Value = (Tree, Vec<Pattern>)> {
    let choices = || prop::collection::vec(prop::collection::vec(any::<u16>(), 0..120), 1..4);
    let any_kind = (arb_tree(), choices()).prop_map(|(tree, choices)| {
        let patterns = choices.into_iter().enumerate().map(|(i, choices)| make_pattern(&tree, i, choices));
        let patterns = patterns.collect();
        (tree, patterns)
    });
    let capturing = (arb_things(), choices()).prop_map(|((name, things), choices)| {
        let patterns = choices.into_iter().enumerate().map(|(i, choices)| capturing::make_pattern(i, choices));
        (plant(name, &things, capturing::DIRECTORY_NAMES, capturing::FILE_NAMES), patterns.collect())
    });
    prop_oneof![2 => any_kind, 1 => capturing].prop_filter("a link leads above the root", |(tree, _)| !tree.escapes())
}

/// A valid pattern, made for a tree that is not told.
pub(crate) fn arb_pattern() -> impl Strategy<Value = Pattern> {
    arb_case().prop_map(|(_, mut patterns)| patterns.swap_remove(0))
}

fn arb_things() -> impl Strategy<Value = (Index, Vec<(Index, Index, Thing)>)> {
    let thing = prop_oneof![
        10 => Just(Thing::Dir),
        16 => any::<Index>().prop_map(Thing::File),
        1 => any::<Index>().prop_map(Thing::Link),
        1 => any::<Index>().prop_map(Thing::Dangling),
        1 => Just(Thing::Special),
        1 => Just(Thing::Unreadable),
    ];
    (any::<Index>(), prop::collection::vec((any::<Index>(), any::<Index>(), thing), 0..40))
}

fn plant(name: Index, things: &[(Index, Index, Thing)], directory_names: &[&[u8]], file_names: &[&[u8]]) -> Tree {
    let mut tree = Tree::new(directory_names[name.index(directory_names.len())]);
    let mut directories = vec![Real::new()];
    let mut paths = vec![Real::new()];
    let mut links = 0;
    for (parent, name, thing) in things {
        let parent = parent.get(&directories).clone();
        let (names, node) = match thing {
            Thing::Dir => (directory_names, Node::dir()),
            Thing::Unreadable => (directory_names, Node::Dir { children: BTreeMap::new(), readable: false }),
            Thing::File(content) => (file_names, Node::File { bytes: content.get(CONTENTS).to_vec() }),
            Thing::Special => (file_names, Node::Special),
            Thing::Link(to) => {
                links += 1;
                let names = if links % 2 == 0 { file_names } else { directory_names };
                (names, Node::Link { to: relative(&parent, &paths[to.index(paths.len())]) })
            }
            Thing::Dangling(to) => {
                let texts: &[&[u8]] = &[b"gone", b"../gone/x", b"a", b"./b", b"x.csv/y", b"sub-01/../a"];
                let to = to.get(texts);
                let to = if parent.is_empty() { to.strip_prefix(b"../").unwrap_or(to) } else { to };
                (file_names, Node::Link { to: to.to_vec() })
            }
        };
        let mut path = parent;
        path.push(name.get(names).to_vec());
        if tree.at(&path).is_some() || path.len() > MAX_TREE_DEPTH || links > 4 {
            continue;
        }
        if matches!(node, Node::Dir { readable: true, .. }) {
            directories.push(path.clone());
        }
        tree.put(&path.join(&b'/'), node);
        paths.push(path);
    }
    tree
}

/// The text of a link in `from` to `to`, both from the root.
pub(crate) fn relative(from: &[Name], to: &[Name]) -> Vec<u8> {
    let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(b"..".to_vec(), from.len() - shared);
    let text = up.chain(to[shared..].iter().cloned()).collect::<Vec<_>>().join(&b'/');
    if text.is_empty() { b".".to_vec() } else { text }
}

/// Numbers that are used up one by one; then zeros.
struct Choices(std::vec::IntoIter<u16>);

impl Choices {
    /// A number less than `count`.
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) % count
    }

    /// True in `percent` of cases; false is the plainer choice.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// What (sub)patterns above a glob say about it.
#[derive(Clone, Default)]
struct Scope {
    captures: BTreeMap<String, String>,
    ignore_case: bool,
}

fn make_pattern(tree: &Tree, number: usize, choices: Vec<u16>) -> Pattern {
    let mut maker = Maker { tree, choices: Choices(choices.into_iter()) };
    let has_content = |path: &Real| tree.list(path).is_some_and(|entries| !entries.is_empty());
    let directories: Vec<Real> = tree.paths().into_iter().filter(|path| has_content(path)).collect();
    let path = if directories.is_empty() { Real::new() } else { maker.choices.of(&directories) };
    let prune = maker.choices.chance(10);
    let mut root = maker.subpattern(&path, &Scope::default(), 0);
    root.opaque = maker.choices.chance(5);
    named(number, root, prune)
}

fn named(number: usize, root: Subpattern, prune: bool) -> Pattern {
    let name = format!("p{number}");
    Pattern { name, origin: "test".into(), place: String::new(), description: None, root, prune, layout: None }
}

/// Makes patterns that fit a tree, more or less.
struct Maker<'a> {
    tree: &'a Tree,
    choices: Choices,
}

impl Maker<'_> {
    /// A (sub)pattern for the directory at `path`.
    fn subpattern(&mut self, path: &[Name], scope: &Scope, depth: usize) -> Subpattern {
        let mut sub = Subpattern::default();
        let mut scope = scope.clone();
        for (name, regexes) in CAPTURES {
            if !scope.captures.contains_key(*name) && self.choices.chance(if depth == 0 { 35 } else { 45 }) {
                sub.captures.insert((*name).to_owned(), self.choices.of(regexes).to_owned());
            }
        }
        scope.captures.extend(sub.captures.clone());
        sub.case_insensitive = self.choices.chance(10);
        scope.ignore_case |= sub.case_insensitive;
        sub.opaque = self.choices.chance(5);
        sub.body = self.body(path, &scope, depth);
        if self.choices.chance(8) {
            sub.forbidden_names.push(self.stray_glob());
        }
        if self.choices.chance(8) {
            sub.forbidden_ancestors.push(self.stray_glob());
        }
        sub
    }

    fn body(&mut self, path: &[Name], scope: &Scope, depth: usize) -> Body {
        let mut body = Body::default();
        if self.choices.chance(40) {
            let name = path.last().unwrap_or(&self.tree.name).clone();
            body.directory_name = Some(self.glob(&name, scope)).filter(|glob| glob != "*");
        }
        let entries = self.tree.list(path).unwrap_or_default();
        let (directories, files): (Vec<_>, Vec<_>) =
            entries.into_iter().filter(|(_, kind)| *kind != Kind::Special).partition(|(_, kind)| kind.is_dir());
        if !files.is_empty() {
            for _ in 0..self.choices.of(&[0, 1, 1, 2, 2, 3]) {
                body.files.push(self.file_clause(path, &files, scope, true));
            }
        }
        if !directories.is_empty() && depth < 3 {
            for _ in 0..self.choices.of(&[0, 1, 1, 2, 2, 3]) {
                let paths = self.choices.chance(30).then(|| self.path_clause(path, scope)).flatten();
                match paths {
                    Some(clause) => body.files.push(clause),
                    None => body.directories.push(self.dir_clause(path, &directories, scope, depth)),
                }
            }
        }
        if self.choices.chance(6) {
            let forbidding = FileTest { min: 0, max: Some(0), ..FileTest::glob(self.stray_glob_in(scope)) };
            body.files.push(FileClause::One(forbidding));
        }
        let files = if self.choices.chance(50) { files } else { Vec::new() };
        for list in [&mut body.optional_files, &mut body.recommended_files] {
            if self.choices.chance(25) {
                list.push(self.file_clause(path, &files, scope, false));
            }
        }
        if depth < 3 {
            for list in [&mut body.optional_directories, &mut body.recommended_directories] {
                if self.choices.chance(15) {
                    list.push(self.dir_clause(path, &directories, scope, depth));
                }
            }
        }
        if self.choices.chance(20) {
            // With captures, a clause for what is there may reject some mappings only.
            let rejects_some = !scope.captures.is_empty() && self.choices.chance(60);
            let files = if rejects_some { &files[..] } else { &[] };
            body.forbidden_files.push(self.file_clause(path, files, scope, false));
        }
        if depth < 3 && self.choices.chance(15) {
            body.forbidden_directories.push(self.dir_clause(path, &[], scope, depth));
        }
        if depth < 3 && self.choices.chance(12) {
            for _ in 0..=self.choices.below(2) {
                body.any_of.push(self.body(path, scope, depth + 2));
            }
        }
        body
    }

    /// A clause for one of `files` at `path`, or for none in particular; maybe a list of alternatives.
    fn file_clause(&mut self, path: &[Name], files: &[(Name, Kind)], scope: &Scope, must_hold: bool) -> FileClause {
        if self.choices.chance(12) {
            let count = 1 + self.choices.below(2);
            let mut clauses: Vec<_> = (0..count).map(|_| self.file_clause(path, files, scope, must_hold)).collect();
            if self.choices.chance(50) {
                clauses.insert(0, FileClause::One(FileTest::glob(self.stray_glob_in(scope))));
            }
            return FileClause::AnyOf(clauses);
        }
        if files.is_empty() {
            let name = self.choices.of(FILE_NAMES);
            let glob = if self.choices.chance(60) { self.glob(name, scope) } else { self.stray_glob_in(scope) };
            let glob = if self.choices.chance(15) { format!("**/{glob}") } else { glob };
            return FileClause::One(self.tested(glob, b"magic!", must_hold));
        }
        let (name, _) = self.choices.of(files);
        let bytes = self.tree.bytes(&[path, std::slice::from_ref(&name)].concat()).unwrap_or_default().to_vec();
        let glob = self.glob(&name, scope);
        FileClause::One(self.tested(glob, &bytes, must_hold))
    }

    /// A path glob for a file somewhere below `path`.
    fn path_clause(&mut self, path: &[Name], scope: &Scope) -> Option<FileClause> {
        let is_below = |file: &Real| file.len() > path.len() + 1 && file.starts_with(path);
        let is_file = |file: &Real| self.tree.kind(file).is_some_and(Kind::is_file);
        let files: Vec<Real> = self.tree.paths().into_iter().filter(|file| is_below(file) && is_file(file)).collect();
        if files.is_empty() {
            return None;
        }
        let file = self.choices.of(&files);
        let mut components: Vec<String> = file[path.len()..].iter().map(|name| self.glob(name, scope)).collect();
        let last = components.len() - 1;
        match self.choices.below(5) {
            0 | 1 => {}
            2 => {
                let start = self.choices.below(last);
                components.splice(start..last, ["**".to_owned()]);
            }
            3 => components.insert(self.choices.below(last + 1), "**".into()),
            _ => {
                let from = 1 + self.choices.below(last);
                components.splice(from.., ["**".to_owned()]);
            }
        }
        if components.len() < 2 {
            components.insert(0, "**".into());
        }
        let bytes = self.tree.bytes(&file).unwrap_or_default().to_vec();
        let mut test = self.tested(components.join("/"), &bytes, true);
        if test.min == 1 && test.max.is_none() && self.choices.chance(15) {
            test.glob.insert_str(0, "**/");
        }
        Some(FileClause::One(test))
    }

    fn dir_clause(&mut self, path: &[Name], directories: &[(Name, Kind)], scope: &Scope, depth: usize) -> DirClause {
        if self.choices.chance(12) {
            let count = 1 + self.choices.below(2);
            return DirClause::AnyOf(
                (0..count).map(|_| self.dir_clause(path, directories, scope, depth + 1)).collect(),
            );
        }
        if directories.is_empty() {
            let name = self.choices.of(DIRECTORY_NAMES);
            let glob = if self.choices.chance(60) { self.glob(name, scope) } else { self.stray_glob_in(scope) };
            let mut sub = Subpattern::default();
            sub.body.directory_name = Some(glob).filter(|glob| glob != "*");
            if self.choices.chance(60) {
                sub.body.files.push(self.file_clause(path, &[], scope, false));
            }
            return DirClause::One(sub);
        }
        let (name, _) = self.choices.of(directories);
        DirClause::One(self.subpattern(&[path, &[name]].concat(), scope, depth + 1))
    }

    /// A test by `glob` that a file with these `bytes` mostly passes.
    fn tested(&mut self, glob: String, bytes: &[u8], must_hold: bool) -> FileTest {
        let mut test = FileTest::glob(glob);
        if self.choices.chance(if test.glob.contains(['<', '*']) { 35 } else { 10 }) {
            test.min = self.choices.of(&[1, 1, 0, 2, 2, 3]);
            if self.choices.chance(60) {
                let spread = self.choices.below(3) + usize::from(must_hold);
                test.max = Some(test.min + u32::try_from(spread).expect("it is small"));
            }
        }
        let components: Vec<&str> = test.glob.split('/').collect();
        let is_counted = test.min != 1 || test.max.is_some();
        if is_counted && components.len() > 1 && components.iter().filter(|component| **component == "**").count() > 1 {
            (test.min, test.max) = (1, None);
        }
        if self.choices.chance(5) {
            test.case_insensitive = Some(self.choices.chance(50));
        }
        if self.choices.chance(8) {
            let (len, op) = (bytes.len() as u64, self.choices.below(6));
            let (op, bytes) = match op {
                0 => (SizeOp::AtLeast, len),
                1 => (SizeOp::AtMost, len + 3),
                2 => (SizeOp::Less, len + 1),
                3 => (SizeOp::Equal, len),
                4 => (SizeOp::Greater, len.saturating_sub(1)),
                _ => (SizeOp::Greater, 4),
            };
            test.size = Some(SizeTest { op, bytes });
        }
        if self.choices.chance(4) {
            let offset = if bytes.is_empty() { 0 } else { self.choices.below(bytes.len()) };
            let wanted = if bytes.is_empty() { b"magic" } else { &bytes[offset..] };
            test.magic = Some(Magic { offset: offset as u64, bytes: wanted.to_vec() });
        }
        if self.choices.chance(4) {
            test.contains = Some(self.choices.of(&["e", "needle", "magic"]).into());
        }
        test
    }

    fn stray_glob(&mut self) -> String {
        self.choices.of(STRAY_GLOBS).into()
    }

    /// A stray glob, maybe with a capture.
    fn stray_glob_in(&mut self, scope: &Scope) -> String {
        let captures: Vec<&String> = scope.captures.keys().collect();
        if captures.is_empty() || !self.choices.chance(40) {
            return self.stray_glob();
        }
        let capture = self.choices.of(&captures);
        let around =
            self.choices.of(&[("", ""), ("sub-", "*"), ("*", ".csv"), ("{", ",b}"), ("*", "*"), ("", "*"), ("", "_*")]);
        format!("{}<{capture}>{}", around.0, around.1)
    }

    /// A glob that mostly matches `name`.
    fn glob(&mut self, name: &[u8], scope: &Scope) -> String {
        if self.choices.chance(4) {
            return self.stray_glob();
        }
        let mut parts = letters(name);
        let captures: Vec<&String> = scope.captures.keys().collect();
        let mut glob = String::new();
        // At most two captures, the first one mostly.
        for percent in [60, 40] {
            if captures.is_empty() || !self.choices.chance(percent) {
                break;
            }
            let capture = self.choices.of(&captures);
            let spans = spans(&parts, &scope.captures[capture]);
            if !spans.is_empty() {
                let (start, end) = self.choices.of(&spans);
                glob += &self.widened(&parts[..start], scope);
                glob += &format!("<{capture}>");
                parts.drain(..end);
            }
        }
        glob + &self.widened(&parts, scope)
    }

    /// A glob for some characters in a row; `None` is a byte that is none.
    fn widened(&mut self, parts: &[Option<char>], scope: &Scope) -> String {
        let len = parts.len();
        let way = self.choices.below(12);
        if len == 0 {
            return if way == 11 { "*".into() } else { String::new() };
        }
        let literal = |parts: &[Option<char>]| parts.iter().map(|char| escaped(*char, scope)).collect::<String>();
        let cut = self.choices.below(len);
        let end = cut + 1 + self.choices.below(len - cut);
        let (head, mid, tail) = (literal(&parts[..cut]), literal(&parts[cut..end]), literal(&parts[end..]));
        match way {
            0..=2 => head + &mid + &tail,
            3 | 4 => format!("{head}*{tail}"),
            5 => format!("{head}*"),
            6 => format!("*{mid}{tail}"),
            7 => format!("{head}{}{tail}", "?".repeat(end - cut)),
            8 => format!("{head}{{{mid},zz}}{tail}"),
            9 => format!("{head}{{,{{x,{mid}}}}}{tail}"),
            10 => {
                let swap = scope.ignore_case && self.choices.chance(60);
                let swapped: String = mid.chars().map(|char| if swap { swapped(char) } else { char }).collect();
                head + &swapped + &tail
            }
            _ => {
                let classes: String = parts[cut..end].iter().map(|char| self.class(*char)).collect();
                head + &classes + &tail
            }
        }
    }

    /// A class with `char` in it.
    fn class(&mut self, char: Option<char>) -> String {
        let negated = self.choices.of(&["[!q]", "[^q-q]", "[!]q-]", "[^A-B]"]).to_owned();
        match char {
            None => negated,
            Some('a'..='z') => self.choices.of(&["[a-z]", "[a-z_]", "[!A-Z]", "[]a-z-]"]).to_owned(),
            Some('0'..='9') => self.choices.of(&["[0-9]", "[!a-z]", "[-0-9]", "[0-35-91-4]", "[0-1-9]"]).to_owned(),
            Some('!' | '^') => negated,
            Some(char) => self.choices.of(&[format!("[{char}]"), format!("[{char}a]"), negated]),
        }
    }
}

/// The characters of a name; `None` for a byte that is none.
fn letters(name: &[u8]) -> Vec<Option<char>> {
    let mut letters = Vec::new();
    for chunk in name.utf8_chunks() {
        letters.extend(chunk.valid().chars().map(Some));
        letters.extend(chunk.invalid().iter().map(|_| None));
    }
    letters
}

/// Where in `parts` a value of `regex` stands.
fn spans(parts: &[Option<char>], regex: &str) -> Vec<(usize, usize)> {
    let regex = regex::Regex::new(&format!(r"\A(?:{})\z", regex.replace("(?s-u:.)", "."))).expect("it is valid");
    let text = |(start, end): (usize, usize)| parts[start..end].iter().copied().collect::<Option<String>>();
    let spans = (0..parts.len()).flat_map(|start| (start + 1..=parts.len()).rev().map(move |end| (start, end)));
    spans.filter(|span| text(*span).is_some_and(|text| regex.is_match(&text))).collect()
}

fn escaped(char: Option<char>, scope: &Scope) -> String {
    match char {
        None => "?".into(),
        Some(char @ ('*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\')) => format!("\\{char}"),
        Some('<') if !scope.captures.is_empty() => "\\<".into(),
        Some(char) => char.into(),
    }
}

fn swapped(char: char) -> char {
    if char.is_ascii_lowercase() { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() }
}
