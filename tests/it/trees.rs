//! Real trees from their listings in `tests/data` (format: the README there).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// One line of a listing; the path is below the tree's root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// A regular file.
    File(PathBuf),
    /// A directory, listed only where nothing in it is.
    Dir(PathBuf),
    /// A symbolic link and its text.
    Link(PathBuf, PathBuf),
}

impl Entry {
    /// Where it is, below the root.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Entry::File(path) | Entry::Dir(path) | Entry::Link(path, _) => path,
        }
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The names of all listings, sorted.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(data())
        .expect("tests/data is part of the repository")
        .filter_map(|entry| entry.expect("a readable entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".txt.gz").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// The entries of the listing `name` in the order written.
pub(crate) fn entries(name: &str) -> Vec<Entry> {
    let file = File::open(data().join(format!("{name}.txt.gz"))).unwrap_or_else(|e| panic!("listing {name}: {e}"));
    let mut text = Vec::new();
    GzDecoder::new(file).read_to_end(&mut text).unwrap_or_else(|e| panic!("listing {name}: {e}"));
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    text.split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| match line {
            [b'f', b' ', rest @ ..] => Entry::File(path(rest)),
            [b'd', b' ', rest @ ..] => Entry::Dir(path(rest)),
            [b'l', b' ', rest @ ..] => {
                let tab = rest.iter().position(|b| *b == b'\t').expect("a link's line has a tab before its text");
                Entry::Link(path(&rest[..tab]), path(&rest[tab + 1..]))
            }
            _ => panic!("listing {name}: {:?}", String::from_utf8_lossy(line)),
        })
        .collect()
}

/// Creates the tree of the listing `name` below `root`, which is made if need be: directories, empty files, links.
pub(crate) fn lay_out(name: &str, root: &Path) {
    let create = |dir: &Path| fs::create_dir_all(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    create(root);
    let mut last = root.to_path_buf();
    for entry in entries(name) {
        let path = root.join(entry.path());
        let parent = path.parent().expect("an entry lies below the root");
        if parent != last {
            create(parent);
            last = parent.to_path_buf();
        }
        match entry {
            Entry::File(_) => drop(File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))),
            Entry::Dir(_) => create(&path),
            Entry::Link(_, text) => symlink(text, &path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        }
    }
}

#[test]
fn the_listings_are_those_of_the_readme() {
    let readme = fs::read_to_string(data().join("README.md")).expect("the listings have a README");
    for name in names() {
        let row = readme.lines().find(|line| line.starts_with(&format!("| {name} |"))).expect("a row for each listing");
        let count = row.split('|').nth(3).expect("a third column").trim().replace(',', "");
        assert_eq!(count, entries(&name).len().to_string(), "{name}");
    }
    assert_eq!(names(), ["ansible-examples", "bids-examples", "charts", "nf-core-modules", "rosbag2"]);
}

#[test]
fn every_entry_is_laid_out_and_no_other() {
    for name in names() {
        let root = tempfile::tempdir().expect("a temporary directory");
        lay_out(&name, root.path());
        let listed = entries(&name);
        let mut implied: BTreeSet<&Path> =
            listed.iter().flat_map(|entry| entry.path().ancestors().skip(1)).filter(|path| *path != "").collect();
        let mut wanted: Vec<Entry> = Vec::new();
        for entry in &listed {
            match entry {
                Entry::Dir(path) => drop(implied.insert(path)),
                _ => wanted.push(entry.clone()),
            }
        }
        wanted.extend(implied.into_iter().map(|path| Entry::Dir(path.to_path_buf())));
        wanted.sort();
        let mut found: Vec<Entry> = walkdir::WalkDir::new(root.path())
            .min_depth(1)
            .into_iter()
            .map(|entry| {
                let entry = entry.expect("a readable tree");
                let path = entry.path().strip_prefix(root.path()).expect("an entry lies below the root").to_path_buf();
                match entry.file_type() {
                    kind if kind.is_dir() => Entry::Dir(path),
                    kind if kind.is_symlink() => {
                        Entry::Link(path, fs::read_link(entry.path()).expect("a readable link"))
                    }
                    _ => Entry::File(path),
                }
            })
            .collect();
        found.sort();
        assert!(wanted == found, "{name}: {} entries wanted, {} found", wanted.len(), found.len());
    }
}
