//! Which matches a file belongs to: held against what each match shows, by how little is listed, and as commands say it.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use veinfs::assess::assess;
use veinfs::automaton::{Automaton, Test};
use veinfs::config::NamedSource;
use veinfs::entry::{Kind, RelPath};
use veinfs::pattern::Pattern;
use veinfs::pattern::compile::compile;
use veinfs::source::local::LocalSource;
use veinfs::source::{File, Handle, ListBuffer, RawKind, Source, Stat};
use veinfs::walk::WalkOptions;

use crate::bed::{TestBed, can_mount, deny};
use crate::differential::{Laid, read, shown};
use crate::generate::arb_case;
use crate::oracle::{Node, Real, Tree, joined};

/// A source that counts its listings.
#[derive(Debug)]
struct CountingSource<S> {
    inner: S,
    listings: AtomicU64,
}

impl<S: Source> Source for CountingSource<S> {
    fn open_root(&self) -> io::Result<Handle> {
        self.inner.open_root()
    }

    fn open_again(&self, dir: &Handle) -> io::Result<Handle> {
        self.inner.open_again(dir)
    }

    fn open_dir(&self, base: &Handle, tail: &CStr) -> io::Result<Handle> {
        self.inner.open_dir(base, tail)
    }

    fn open_link(&self, dir: &Handle, name: &CStr) -> io::Result<Handle> {
        self.inner.open_link(dir, name)
    }

    fn list(&self, dir: &Handle, buffer: &mut ListBuffer, each: &mut dyn FnMut(&CStr, RawKind, u64)) -> io::Result<()> {
        self.listings.fetch_add(1, Ordering::Relaxed);
        self.inner.list(dir, buffer, each)
    }

    fn link_kind(&self, dir: &Handle, name: &CStr) -> Kind {
        self.inner.link_kind(dir, name)
    }

    fn path_of(&self, dir: &Handle) -> io::Result<Vec<u8>> {
        self.inner.path_of(dir)
    }

    fn identity(&self, dir: &Handle) -> io::Result<(u64, u64)> {
        self.inner.identity(dir)
    }

    fn test(&self, dir: &Handle, name: &CStr, test: &Test) -> io::Result<bool> {
        self.inner.test(dir, name, test)
    }

    fn stat(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<Stat> {
        self.inner.stat(dir, name, follow)
    }

    fn stat_dir(&self, dir: &Handle) -> io::Result<Stat> {
        self.inner.stat_dir(dir)
    }

    fn read_link(&self, dir: &Handle, name: &CStr) -> io::Result<Vec<u8>> {
        self.inner.read_link(dir, name)
    }

    fn open_file(&self, dir: &Handle, name: &CStr, follow: bool) -> io::Result<File> {
        self.inner.open_file(dir, name, follow)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        self.inner.stat_file(file)
    }
}

fn named(source: Arc<dyn Source>, name: &[u8], root: &Path) -> NamedSource {
    NamedSource { name: name.into(), root_name: name.into(), root: root.into(), source }
}

/// A match, by its pattern and its path below the source.
type Key = (usize, Vec<u8>);

/// The matches that a path belongs to.
fn belongs(automaton: &Automaton, source: &NamedSource, path: &[u8]) -> BTreeSet<Key> {
    let assessment = assess(automaton, source, &WalkOptions::default(), &RelPath::from_bytes(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
    assessment.matches.iter().map(|found| (found.pattern.index(), found.path.as_bytes().to_vec())).collect()
}

/// Holds each path of a tree, and each that a match shows, against what all matches show.
fn check(tree: &Tree, patterns: &[Pattern]) -> Result<(), TestCaseError> {
    let automaton = compile(patterns).unwrap_or_else(|errors| panic!("{}", errors[0]));
    let laid = Laid::new(tree);
    let source = Arc::new(laid.source());
    let reported = laid.walk(&automaton, &*source, &WalkOptions { threads: 1, ..WalkOptions::default() });
    let within = |root: &[u8], below: &[u8]| match (root, below) {
        (b"", below) => below.to_vec(),
        (root, b"") => root.to_vec(),
        (root, below) => [root, b"/", below].concat(),
    };
    let mut views: Vec<(Key, BTreeSet<Vec<u8>>)> = Vec::new();
    for found in &reported.found {
        let root = found.path.as_bytes();
        let mut paths: BTreeSet<Vec<u8>> =
            shown(&automaton, &*source, &tree.name, found).iter().map(|below| within(root, below)).collect();
        paths.insert(root.to_vec());
        views.push(((found.pattern.index(), root.to_vec()), paths));
    }
    let special = |path: &Real| matches!(tree.at(path), Some(Node::Special));
    let real = tree.paths().into_iter().filter(|path| !special(path)).map(|path| joined(&path));
    let asked: BTreeSet<Vec<u8>> = real.chain(views.iter().flat_map(|(_, paths)| paths.iter().cloned())).collect();
    let source = named(source, &tree.name, &laid.root);
    for path in asked {
        let expected: BTreeSet<Key> =
            views.iter().filter(|(_, paths)| paths.contains(&path)).map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(
            belongs(&automaton, &source, &path),
            expected,
            "{} in {:?}",
            path.escape_ascii(),
            tree.paths().iter().map(|path| joined(path).escape_ascii().to_string()).collect::<Vec<_>>()
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_none() { 800 } else { ProptestConfig::default().cases },
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_file_belongs_to_the_matches_that_show_it((tree, patterns) in arb_case()) {
        check(&tree, &patterns)?;
    }
}

#[track_caller]
fn same(lines: &[&str], patterns: &[Value]) {
    check(&Tree::from_lines("root", lines), &read(patterns)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn links_prunes_and_alternatives() {
    let run = json!({"files": ["x"], "optional_directories": [{"directory_name": "l", "optional_files": ["**/y"]}]});
    same(&["a/x", "a/l -> ../b", "b/y", "b/c/y", "b/z"], &[run]);
    same(&["a/l -> .", "a/x"], &[json!({"files": ["x"], "directories": [{"directory_name": "l"}]})]);
    same(&["a/b/x", "a/x"], &[json!({"files": ["x"], "prune": true}), json!({"files": ["x"]})]);
    same(&["a/b/x", "a/o"], &[json!({"files": ["o"], "opaque": true}), json!({"files": ["x"]})]);
    same(&["a/c/d/e/x", "a/c/d/l -> ..", "a/y"], &[json!({"files": ["y"], "directories": [{"directory_name": "c"}]})]);
    let any = json!({"any_of": [{"files": ["x", "p"]}, {"files": ["x", "q"], "optional_files": ["r"]}]});
    same(&["a/x", "a/p", "a/r", "b/x", "b/q", "b/r"], &[any]);
    same(&["a/.veinfs/x", "a/.veinfs/b/x"], &[json!({"files": ["**/x"]}), json!({"files": ["x"]}), json!({})]);
}

#[test]
fn few_directories_are_listed() {
    let mut lines = vec!["lab/runs/r1/data.csv".to_owned(), "lab/runs/r1/raw/1.csv".into(), "lab/runs/r1/notes".into()];
    for n in 0..40 {
        lines.push(format!("lab/runs/other{n}/sub/file"));
        lines.push(format!("lab/runs/r1/zzz{n}/deep/file"));
        lines.push(format!("lab/other{n}/file"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let laid = Laid::new(&Tree::from_lines("root", &lines));
    let flat = json!({"files": ["data.csv"]});
    let raw = json!({"files": ["data.csv"], "directories": [{"directory_name": "raw", "files": ["*.csv"]}]});
    let lab = json!({"directory_name": "lab", "directories": [{"directory_name": "runs", "directories": [flat]}]});
    // What is asked, of which pattern, how many matches it is in, and how many directories are listed for that.
    let table: &[(&str, &Value, usize, u64)] = &[
        ("lab/runs/r1/data.csv", &flat, 1, 1),
        ("lab/runs/r1/notes", &flat, 0, 0),
        ("lab/runs/r1/zzz7/deep/file", &flat, 0, 0),
        ("lab/runs/r1/raw/1.csv", &flat, 0, 0),
        ("lab/runs/r1/raw/1.csv", &raw, 1, 2),
        ("lab/runs/r1/data.csv", &raw, 1, 2),
        ("lab/runs/r1", &raw, 1, 2),
        ("lab/runs/r1/raw", &raw, 1, 2),
        ("lab/runs/r1/data.csv", &json!({"files": ["**/data.csv"]}), 4, 4),
        ("lab/runs/r1/data.csv", &lab, 1, 3),
        ("lab/runs/r1/zzz7/deep/file", &json!({"directory_name": "r1"}), 1, 1),
        ("lab/runs/r1/zzz7/deep/file", &json!({"directory_name": "r2"}), 0, 0),
        ("lab/other3/file", &lab, 0, 0),
    ];
    for (path, pattern, matches, listings) in table {
        let automaton = compile(&read(&[(*pattern).clone()])).expect("a right pattern");
        let counting = Arc::new(CountingSource { inner: LocalSource::new(&laid.root), listings: AtomicU64::new(0) });
        let source = named(Arc::clone(&counting) as Arc<dyn Source>, b"root", &laid.root);
        assert_eq!(belongs(&automaton, &source, path.as_bytes()).len(), *matches, "{path}: {pattern}");
        assert_eq!(counting.listings.load(Ordering::Relaxed), *listings, "{path}: {pattern}");
    }
}

const RUN: &str = "name: run\nfiles: [data.csv]\ndirectories: [{directory_name: raw, files: ['*.csv']}]\n";

fn lab() -> TestBed {
    TestBed::new(&[
        "a/x/data.csv=",
        "a/x/raw/1.csv=",
        "a/x/other=",
        "b/x/data.csv=",
        "b/x/raw/1.csv=",
        "c/y/data.csv=",
        "d/l -> ../a/x",
    ])
}

#[test]
fn without_a_mount_the_pattern_is_given() {
    let bed = lab();
    let run = bed.file("run.yaml", RUN);
    let path = |below: &str| bed.src.join(below).into_os_string().into_string().expect("text");
    let of_b = path("b/x/raw/1.csv");
    let line = |root: &str, view: &str| format!("run\t{}\t{view}\n", path(root));
    let told = bed.veinfs(["assess", &of_b, "-p", &run]).ok().says("--source tells");
    assert_eq!(told.text(), line("b/x", "run/x/raw/1.csv"));
    // With all matches of the source the name is the one in a mount of it.
    let src = bed.src.to_str().expect("text");
    let told = bed.veinfs(["assess", &of_b, "-p", &run, "--source", src]).ok();
    let named = bed.scan(["-p", &run, "--json"]).ndjson();
    let view = named.iter().find(|line| line["relpath"] == "b/x").expect("a match")["view"].as_str().expect("text");
    assert!(view.starts_with("run/x~"));
    assert_eq!((told.text(), &*told.stderr), (line("b/x", &format!("{view}/raw/1.csv")), ""));
    // Through a link the file is the same, and so is its match.
    let told = bed.veinfs(["assess", &path("d/l/data.csv"), "-p", &run]).ok();
    assert_eq!(told.text(), line("a/x", "run/x/data.csv"));
    let told = bed.veinfs(["assess", &path("a/x/other"), "-p", &run]).code(1).says("in no match");
    assert_eq!(told.text(), "");
    let told = bed.veinfs(["assess", &path("c/y/data.csv"), "-p", &run]).code(1);
    let near = format!("veinfs: {0}/data.csv: {0} would show it as a match of run, but it lacks raw/\n", path("c/y"));
    assert!(told.stderr.contains(&near), "{}", told.stderr);
    bed.veinfs(["assess", &path("nowhere"), "-p", &run]).code(1).says("nowhere: No such file or directory");
    bed.veinfs(["assess", &of_b]).code(2).says("say which patterns: -p PATTERN");
    let nul = bed.veinfs(["assess", "-0", &path("a/x"), "-p", &run]).ok();
    assert_eq!(nul.text(), format!("run\0{}\0run/x\0", path("a/x")));
}

#[test]
fn objects_say_what_is_known() {
    let bed = lab();
    let run = bed.file("run.yaml", RUN);
    let path = |below: &str| bed.src.join(below).into_os_string().into_string().expect("text");
    let args = ["assess", "--json", "-p", &run, &path("a/x/data.csv"), &path("c/y/data.csv")];
    let told = bed.veinfs(args).ok().ndjson();
    let expected = [
        json!({"file": path("a/x/data.csv"), "matches": true, "pattern": "run", "source": null, "path": path("a/x"),
            "relpath": null, "view": null, "captures": {}, "missing": [], "plain_view": "run/x/data.csv"}),
        json!({"file": path("c/y/data.csv"), "matches": false, "pattern": "run", "source": null, "path": path("c/y"),
            "relpath": null, "lacks": "it lacks raw/"}),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    let bed = TestBed::new(&["a/x/data.csv=", "a/x/raw/1.csv="]);
    let run = bed.file("run.yaml", RUN);
    deny(&bed.src.join("a/x/raw"));
    let file = bed.src.join("a/x/data.csv").into_os_string();
    let words = ["assess".into(), file, "-p".into(), run.into()];
    let Some(told) = bed.veinfs_shut_out(&words) else { return };
    told.code(3).says("cannot tell whether");
}

#[test]
fn a_running_mount_answers() {
    if !can_mount() {
        return;
    }
    let bed = lab();
    let run = bed.file("run.yaml", RUN);
    bed.mount(["-p", &run]);
    let (src, mnt) = (bed.src.to_str().expect("text"), bed.mnt.to_str().expect("text"));
    let views = |root: &str| -> String {
        let told = bed.scan(["-p", &run, "--json"]).ndjson();
        let line = told.iter().find(|line| line["relpath"] == root).expect("a match").clone();
        line["view"].as_str().expect("text").to_owned()
    };
    let b = views("b/x");
    let wanted = format!("run\t{src}/b/x\t{mnt}/{b}/raw/1.csv\n");
    let real = format!("{src}/b/x/raw/1.csv");
    let told = bed.veinfs(["assess", &real]).ok();
    assert_eq!((told.text(), &*told.stderr), (wanted.clone(), ""));
    // A path in the mount itself, and a pattern that the mount has.
    assert_eq!(bed.veinfs(["assess", &format!("{mnt}/{b}/raw/1.csv")]).ok().text(), wanted);
    assert_eq!(bed.veinfs(["assess", &real, "-p", &run]).ok().text(), wanted);
    // One that it has not is looked for.
    let other = bed.file("other.yaml", "name: other\nfiles: [1.csv]\n");
    let told = bed.veinfs(["assess", &real, "-p", &run, "-p", &other]).ok();
    assert_eq!(told.text(), format!("{wanted}other\t{src}/b/x/raw\tother/raw/1.csv\n"));
    assert_eq!(
        bed.veinfs(["assess", &real, "-p", &other]).ok().text(),
        format!("other\t{src}/b/x/raw\tother/raw/1.csv\n")
    );
    let told = bed.veinfs(["assess", "--json", &real]).ok().ndjson();
    assert_eq!(told[0]["view"], json!(format!("{b}/raw/1.csv")));
    assert_eq!(told[0]["mountpoint"], json!(mnt));
    bed.veinfs(["assess", &format!("{src}/a/x/other")]).code(1).says("in no match");
    bed.veinfs(["assess", &format!("{mnt}/run")]).code(1);
    // The mount keeps names that a scan would give otherwise.
    fs::create_dir_all(bed.src.join("0/x/raw")).expect("a directory");
    fs::write(bed.src.join("0/x/raw/1.csv"), "").expect("a file");
    fs::write(bed.src.join("0/x/data.csv"), "").expect("a file");
    bed.veinfs([OsStr::new("refresh"), bed.mnt.as_os_str()]).ok();
    let told = bed.veinfs(["assess", &format!("{src}/a/x")]).ok();
    assert_eq!(told.text(), format!("run\t{src}/a/x\t{mnt}/run/x\n"));
}

#[test]
fn names_are_bytes() {
    let bed = TestBed::new(&[] as &[&str]);
    let run = bed.file("run.yaml", "name: run\nfiles: ['*']\n");
    let dir = bed.src.join(OsStr::from_bytes(b"wrong \xff"));
    fs::create_dir(&dir).expect("a directory");
    let file = dir.join(OsStr::from_bytes(b"\xfe"));
    fs::write(&file, "").expect("a file");
    let told = bed.veinfs([OsStr::new("assess"), file.as_os_str(), "-0".as_ref(), "-p".as_ref(), run.as_ref()]).ok();
    let wanted = [b"run\0", dir.as_os_str().as_bytes(), b"\0run/wrong \xff/\xfe\0"].concat();
    assert_eq!(told.stdout, wanted);
}
