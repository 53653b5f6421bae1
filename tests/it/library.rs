//! The built-in library on trees made for it: `tests/data/library/NAME.txt` has what the pattern NAME matches, and what
//! is nearly it (format: the README there).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use veinfs::automaton::Automaton;
use veinfs::pattern::Pattern;
use veinfs::pattern::compile::compile;
use veinfs::pattern::library::{FIELDS, LIBRARY, find};
use veinfs::source::local::LocalSource;
use veinfs::walk::{Event, Found, Progress, WalkOptions, walk};

use crate::bed::{TestBed, can_mount, ndjson};
use crate::differential::shown;

/// What the root of a tree is called, to patterns too.
const ROOT: &str = "tree";

/// The trees of one pattern.
struct Book {
    name: String,
    /// Other patterns that match somewhere in the examples, and are meant to.
    also: BTreeSet<String>,
    trees: Vec<Tree>,
}

/// An example, or a counter-example.
struct Tree {
    title: String,
    is_example: bool,
    entries: Vec<Entry>,
    /// Directories that match, below the root; `.` is the root.
    matches: BTreeSet<String>,
}

struct Entry {
    path: String,
    kind: Kind,
    shown: InView,
}

enum Kind {
    Dir,
    File(Vec<u8>),
    Link(String),
}

/// Which of the matches above an entry show it.
#[derive(Clone, Copy, PartialEq)]
enum InView {
    All,
    Innermost,
    None,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/library")
}

fn books() -> Vec<Book> {
    let read = |name: &str| {
        let text = fs::read_to_string(data().join(format!("{name}.txt")));
        Book::parse(name, &text.unwrap_or_else(|e| panic!("the trees of {name}: {e}")))
    };
    LIBRARY.iter().map(|builtin| read(builtin.name)).collect()
}

impl Book {
    fn parse(name: &str, text: &str) -> Self {
        let mut book = Self { name: name.to_owned(), also: BTreeSet::new(), trees: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(others) = line.strip_prefix("also: ") {
                book.also.extend(others.split(' ').map(str::to_owned));
            } else if let Some(title) = line.strip_prefix("== ") {
                let (kind, title) = title.split_once(": ").unwrap_or_else(|| panic!("{name}: {line}"));
                let is_example = kind == "example";
                assert!(is_example || kind == "not", "{name}: {line}");
                let (title, entries, matches) = (title.to_owned(), Vec::new(), BTreeSet::new());
                book.trees.push(Tree { title, is_example, entries, matches });
            } else {
                book.trees.last_mut().unwrap_or_else(|| panic!("{name}: {line}")).line(line);
            }
        }
        book
    }

    fn examples(&self) -> impl Iterator<Item = &Tree> {
        self.trees.iter().filter(|tree| tree.is_example)
    }
}

impl Tree {
    fn line(&mut self, line: &str) {
        if let Some(path) = line.strip_prefix("> ") {
            self.matches.insert(path.to_owned());
            return;
        }
        let (line, shown) = match (line.strip_prefix("- "), line.strip_prefix("~ ")) {
            (Some(line), _) => (line, InView::None),
            (_, Some(line)) => (line, InView::Innermost),
            (None, None) => (line, InView::All),
        };
        let (path, kind) = if let Some((path, text)) = line.split_once(" -> ") {
            (path, Kind::Link(text.to_owned()))
        } else if let Some((path, text)) = line.split_once(" = ") {
            (path, Kind::File(content(text)))
        } else if let Some(path) = line.strip_suffix('/') {
            (path, Kind::Dir)
        } else {
            (line, Kind::File(Vec::new()))
        };
        self.entries.push(Entry { path: path.to_owned(), kind, shown });
    }

    fn lay_out(&self, root: &Path) {
        let make = |dir: &Path| fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        make(root);
        for Entry { path, kind, .. } in &self.entries {
            let path = root.join(path);
            make(path.parent().expect("an entry lies below the root"));
            let made = match kind {
                Kind::Dir => fs::create_dir_all(&path),
                Kind::File(content) => fs::write(&path, content),
                Kind::Link(text) => symlink(text, &path),
            };
            made.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }

    /// The path of an entry below a match, if it is in it.
    fn inside<'a>(path: &'a str, found: &str) -> Option<&'a str> {
        if found == "." { Some(path) } else { path.strip_prefix(found)?.strip_prefix('/') }
    }

    /// What a match shows: entries, and the directories that they are in.
    fn view(&self, found: &str) -> BTreeSet<String> {
        let mut view = BTreeSet::new();
        for entry in &self.entries {
            let Some(inside) = Self::inside(&entry.path, found) else { continue };
            let deeper = |other: &String| other.len() > found.len() && Self::inside(&entry.path, other).is_some();
            let is_shown = match entry.shown {
                InView::All => true,
                InView::Innermost => !self.matches.iter().any(deeper),
                InView::None => false,
            };
            if is_shown {
                let above = inside.match_indices('/').map(|(at, _)| inside[..at].to_owned());
                view.extend(above.chain([inside.to_owned()]));
            }
        }
        view
    }

    /// The directories that match, and what each shows.
    fn views(&self) -> Vec<(String, BTreeSet<String>)> {
        self.matches.iter().map(|found| (found.clone(), self.view(found))).collect()
    }
}

/// The content that a line gives: `\n` begins a line, and `@N ` at the start stands for N bytes of zero.
fn content(text: &str) -> Vec<u8> {
    let padded = text.strip_prefix('@').and_then(|rest| rest.split_once(' '));
    let (zeros, text) = padded.map_or((0, text), |(zeros, text)| (zeros.parse().expect("a number of zeros"), text));
    [vec![0; zeros], text.replace("\\n", "\n").into_bytes()].concat()
}

fn compiled(patterns: &[Pattern]) -> Automaton {
    compile(patterns).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

/// The matches in a tree.
fn found(automaton: &Automaton, root: &Path) -> Vec<Found> {
    let found = Mutex::new(Vec::new());
    let report = |event| match event {
        Event::Match(one) => found.lock().expect("no thread panics with it").push(one),
        Event::Trouble(trouble) => panic!("{trouble}"),
    };
    let options = WalkOptions { threads: 1, ..WalkOptions::default() };
    walk(automaton, &LocalSource::new(root), ROOT.as_bytes(), &options, &Progress::default(), &report)
        .expect("the root is readable");
    found.into_inner().expect("no thread panics with it")
}

fn path_of(found: &Found) -> String {
    match found.path.as_bytes() {
        b"" => ".".to_owned(),
        path => String::from_utf8(path.to_vec()).expect("trees are made of text"),
    }
}

fn laid_out(tree: &Tree) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = place.path().join(ROOT);
    tree.lay_out(&root);
    (place, root)
}

#[test]
fn every_pattern_has_examples_and_counter_examples() {
    let mut names =
        fs::read_dir(data()).expect("the trees are part of the repository").fold(Vec::new(), |mut all, e| {
            all.push(e.expect("a readable entry").file_name().into_string().expect("text"));
            all
        });
    names.retain(|name| name != "README.md");
    names.sort();
    let mut wanted: Vec<String> = LIBRARY.iter().map(|builtin| format!("{}.txt", builtin.name)).collect();
    wanted.sort();
    assert_eq!(names, wanted, "one file a pattern");
    for book in books() {
        let name = &book.name;
        assert!(book.examples().count() >= 1, "{name}: an example");
        assert!(book.trees.len() - book.examples().count() >= 2, "{name}: two counter-examples");
        assert!(book.also.iter().all(|other| other != name && find(other).is_some()), "{name}: {:?}", book.also);
        let titles: BTreeSet<&String> = book.trees.iter().map(|tree| &tree.title).collect();
        assert_eq!(titles.len(), book.trees.len(), "{name}: each tree says what it is");
        for tree in &book.trees {
            assert!(!tree.title.is_empty() && !tree.entries.is_empty(), "{name}: {}", tree.title);
            assert_eq!(tree.is_example, !tree.matches.is_empty(), "{name}: {}: matches", tree.title);
        }
    }
}

#[test]
fn what_matches_is_what_the_trees_say() {
    let mut wrong = Vec::new();
    for book in books() {
        let automaton = compiled(&[find(&book.name).expect("a pattern of the library").pattern()]);
        for tree in &book.trees {
            let (_place, root) = laid_out(tree);
            let found: BTreeSet<String> = found(&automaton, &root).iter().map(path_of).collect();
            if found != tree.matches {
                wrong.push(format!("{}: {}: {found:?}, wanted {:?}", book.name, tree.title, tree.matches));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_shown_is_what_the_trees_say() {
    let mut wrong = Vec::new();
    for book in books() {
        let automaton = compiled(&[find(&book.name).expect("a pattern of the library").pattern()]);
        for tree in book.examples() {
            let (_place, root) = laid_out(tree);
            for one in found(&automaton, &root) {
                let shown = shown(&automaton, &LocalSource::new(&root), ROOT.as_bytes(), &one);
                let text = |path: Vec<u8>| String::from_utf8(path).expect("trees are made of text");
                let shown: BTreeSet<String> = shown.into_iter().map(text).collect();
                let wanted = tree.view(&path_of(&one));
                if shown != wanted {
                    let (more, less) = (shown.difference(&wanted), wanted.difference(&shown));
                    let (more, less): (Vec<_>, Vec<_>) = (more.collect(), less.collect());
                    let place = format!("{}: {}: {}", book.name, tree.title, path_of(&one));
                    wrong.push(format!("{place}: shown too: {more:?}, not shown: {less:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn patterns_match_in_each_others_examples_only_where_they_are_meant_to() {
    // What one pattern keeps from being found must not hide that another matches there.
    let all: Vec<Pattern> = LIBRARY
        .iter()
        .map(|builtin| {
            let mut pattern = builtin.pattern();
            (pattern.prune, pattern.root.opaque) = (false, false);
            pattern
        })
        .collect();
    let automaton = compiled(&all);
    let mut wrong = Vec::new();
    for book in books() {
        let mut others: BTreeMap<String, String> = BTreeMap::new();
        for tree in book.examples() {
            let (_place, root) = laid_out(tree);
            for one in found(&automaton, &root) {
                let name = automaton.top(one.pattern).name.clone();
                others.entry(name).or_insert_with(|| format!("{} in `{}`", path_of(&one), tree.title));
            }
        }
        assert!(others.remove(&book.name).is_some(), "{} matches in its own examples", book.name);
        for (name, place) in others.iter().filter(|(name, _)| !book.also.contains(*name)) {
            wrong.push(format!("{}: {name} matches {place}", book.name));
        }
        for name in book.also.iter().filter(|name| !others.contains_key(*name)) {
            wrong.push(format!("{}: {name} matches nowhere", book.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first example of each pattern on a real mount of them all.
#[test]
fn a_mount_of_the_whole_library_shows_the_examples() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new::<&str>(&[]);
    let books = books();
    let firsts: Vec<(&str, &Tree)> =
        books.iter().map(|book| (&*book.name, book.examples().next().expect("an example"))).collect();
    for (name, tree) in &firsts {
        tree.lay_out(&bed.src.join(name));
    }
    bed.mount(LIBRARY.iter().flat_map(|builtin| ["-p", builtin.name]));
    let told = fs::read(bed.mnt.join(".veinfs/matches.ndjson")).expect("a control file");
    let told: BTreeMap<(String, String), String> = ndjson(&told)
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().expect("text").to_owned();
            ((text("pattern"), text("relpath")), text("view"))
        })
        .collect();
    for (name, tree) in firsts {
        for (found, wanted) in tree.views() {
            let path = if found == "." { name.to_owned() } else { format!("{name}/{found}") };
            let told = told.get(&(name.to_owned(), path.clone()));
            let view = told.unwrap_or_else(|| panic!("{name}: {path} is no match"));
            let root = bed.mnt.join(view);
            let shown: BTreeSet<String> = walkdir::WalkDir::new(&root)
                .min_depth(1)
                .into_iter()
                .map(|entry| entry.expect("a readable view").into_path())
                .map(|path| path.strip_prefix(&root).expect("it is in the view").to_str().expect("text").to_owned())
                .collect();
            assert_eq!(shown, wanted, "{name}: {path}");
        }
    }
}

/// The page about the library, as the patterns have it.
fn page() -> String {
    let mut page = String::from(
        "# The pattern library\n\n\
         Patterns that are built into veinfs: `-p NAME` uses one, `veinfs patterns NAME` prints its file, and\n\
         `veinfs patterns WORD` looks for one. Their files lie in [patterns/](../patterns/), and\n\
         [tests/data/library/](../tests/data/library/) has trees that each matches and trees that it all but matches.\n\
         This page is made from the files: `VEINFS_WRITE_DOCS=1 cargo test --test it library::` writes it anew.\n",
    );
    for field in FIELDS {
        let mut heading = (*field).to_owned();
        heading[..1].make_ascii_uppercase();
        page.push_str(&format!("\n## {heading}\n\n| pattern | finds | source |\n| --- | --- | --- |\n"));
        for builtin in LIBRARY.iter().filter(|builtin| builtin.field == *field) {
            let source = builtin.source();
            let end = [", ", ": ", "; ", ". ", " ("].iter().filter_map(|mark| source.find(mark)).min();
            let title = &source[..end.unwrap_or(source.len())];
            let source = builtin.url().map_or_else(|| title.to_owned(), |url| format!("[{title}]({url})"));
            let name = builtin.name;
            page.push_str(&format!("| [{name}](../patterns/{name}.yaml) | {} | {source} |\n", builtin.description()));
        }
    }
    page
}

#[test]
fn the_page_about_the_library_is_made_from_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/library.md");
    if std::env::var_os("VEINFS_WRITE_DOCS").is_some_and(|value| value == "1") {
        fs::write(&path, page()).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/library.md is not up to date; VEINFS_WRITE_DOCS=1 writes it anew");
}
