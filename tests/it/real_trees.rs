//! The built-in library on real trees: as many matches as the README of `tests/data` says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use veinfs::pattern::compile::compile;
use veinfs::pattern::library::LIBRARY;
use veinfs::pattern::load::{Format, load_text};
use veinfs::source::local::LocalSource;
use veinfs::walk::{Event, Progress, WalkOptions, walk};

use crate::trees::lay_out;

/// How many directories each pattern matches, those that match none left out.
fn counts(listing: &str) -> BTreeMap<String, usize> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let root = place.as_ref().expect("a temporary directory").path().join(listing);
    lay_out(listing, &root);
    let patterns: Vec<_> = LIBRARY
        .iter()
        .flat_map(|builtin| {
            load_text(builtin.text.as_bytes(), Format::Yaml, builtin.name, builtin.name).expect("the library is right")
        })
        .collect();
    let automaton = compile(&patterns).expect("the library is right");
    let counts = Mutex::new(BTreeMap::new());
    let report = |event| match event {
        Event::Match(found) => {
            let name = automaton.top(found.pattern).name.clone();
            *counts.lock().expect("no thread panics with it").entry(name).or_default() += 1;
        }
        Event::Trouble(trouble) => panic!("{trouble}"),
    };
    let source = LocalSource::new(&root);
    walk(&automaton, &source, listing.as_bytes(), &WalkOptions::default(), &Progress::default(), &report)
        .expect("the root is readable");
    counts.into_inner().expect("no thread panics with it")
}

#[track_caller]
fn check(listing: &str, expected: &[(&str, usize)]) {
    assert_eq!(counts(listing), expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect());
}

#[test]
fn bids_examples() {
    check(
        "bids-examples",
        &[
            ("bids-bold-run", 556),
            ("bids-dataset", 112),
            ("bids-subject", 807),
            ("ctf-ds", 13),
            ("zarr-array", 2),
            ("zarr-group", 2),
        ],
    );
}

#[test]
fn nf_core_modules() {
    check("nf-core-modules", &[("nf-core-module", 2162)]);
}

#[test]
fn charts() {
    check("charts", &[("helm-chart", 118)]);
}

#[test]
fn ansible_examples() {
    check("ansible-examples", &[("ansible-project", 12), ("ansible-role", 45), ("cargo-crate", 1)]);
}

#[test]
fn rosbag2() {
    check("rosbag2", &[("cmake-project", 22), ("python-package", 6), ("python-project", 2), ("ros2-bag", 21)]);
}
