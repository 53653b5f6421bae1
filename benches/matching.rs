//! What a name and a directory cost the matcher: `cargo bench --bench matching`.

use divan::{Bencher, black_box};
use veinfs::automaton::Automaton;
use veinfs::listing::Scratch;
use veinfs::matcher::bits::Bits;
use veinfs::matcher::{Files, Kids, Offer, Own};
use veinfs::pattern::compile::compile;
use veinfs::pattern::library::LIBRARY;
use veinfs::pattern::load::{Format, load_text};

fn main() {
    divan::main();
}

/// Names as they are in trees.
const NAMES: [&str; 8] = [
    "data.csv",
    "config.yaml",
    "sub-01_ses-02_task-rest_run-1_bold.nii.gz",
    "Cargo.toml",
    "IMG_20240102_112233.jpg",
    "mod.rs",
    "0000017.dcm",
    "überblick.md",
];

/// The first `count` patterns of the library, as one automaton.
fn library(count: usize) -> Automaton {
    let patterns: Vec<_> = LIBRARY
        .iter()
        .take(count)
        .flat_map(|builtin| load_text(builtin.text.as_bytes(), Format::Yaml, builtin.name, builtin.name))
        .flatten()
        .collect();
    compile(&patterns).expect("the library compiles")
}

#[divan::bench(args = [1, 5, 20])]
fn eight_names(bencher: Bencher<'_, '_>, patterns: usize) {
    let automaton = library(patterns);
    let mut scratch = Scratch::new(&automaton);
    bencher.bench_local(|| {
        for name in NAMES {
            automaton.names.matches(&mut scratch.cache, black_box(name.as_bytes()), &mut scratch.globs);
            black_box(&scratch.globs);
        }
    });
}

#[divan::bench(args = [1, 5, 20])]
fn a_directory_of_eight_files(bencher: Bencher<'_, '_>, patterns: usize) {
    let automaton = library(patterns);
    let mut scratch = Scratch::new(&automaton);
    let globs = scratch.match_name(&automaton, b"run-17");
    let above = Bits::new(automaton.names.len());
    let own = Own { name: b"run-17", globs: &globs, above: &above };
    bencher.bench_local(|| {
        let mut files = Files::new(&automaton);
        for name in NAMES {
            automaton.names.matches(&mut scratch.cache, name.as_bytes(), &mut scratch.globs);
            files.add(&automaton, name.as_bytes(), &scratch.globs);
        }
        let kids = Kids::new(&automaton);
        let offer = Offer { own: &own, files: &files, kids: &kids, probe: &|_, _| Some(true), unread: false };
        black_box(automaton.judge(&offer, None))
    });
}
