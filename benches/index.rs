//! What an index costs: `cargo bench --bench index` on the clock; with `-- --numbers` bytes, syncs aside, and CPU time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use divan::Bencher;
use rustix::time::{ClockId, clock_gettime};
use veinfs::index::{Batch, DirRecord, Identity, Index, Stamp};

fn main() {
    if std::env::args().any(|arg| arg == "--numbers") {
        numbers();
    } else {
        divan::main();
    }
}

/// Directories by thousands.
const COUNTS: [u32; 2] = [10, 100];

fn identity() -> Identity {
    Identity { sources: vec![(b"bench"[..].into(), b"/bench"[..].into())], options: String::new() }
}

/// A xorshift generator.
fn random() -> impl FnMut() -> u64 {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }
}

fn stamp(id: u32, next: &mut impl FnMut() -> u64) -> Stamp {
    let time = (1_700_000_000 + (next() % 100_000).cast_signed(), (next() % 1_000_000_000) as u32);
    Stamp { ino: 1_000_000 + u64::from(id) * 3 + next() % 40, mtime: time, ctime: time }
}

/// Directories whose listings have nothing in common: 80 bytes on the average.
fn unlike(count: u32) -> Batch {
    let mut next = random();
    let mut batch = Batch { reconciled: Some(SystemTime::now()), ..Batch::default() };
    for id in 0..count {
        let name = if id == 0 { String::new() } else { format!("run-{id:05}") };
        let listing: Vec<u8> = (0..40 + next() % 80).map(|_| next() as u8).collect();
        let stamp = stamp(id, &mut next);
        let record =
            DirRecord { parent: id / 8, name: name.as_bytes().into(), stamp, trusted: true, listing: listing.into() };
        batch.dirs.insert((0, id), Some(record));
    }
    batch
}

/// The directories of real trees, again and again, depth first; names share what they begin with.
fn real(count: u32) -> Batch {
    let mut next = random();
    let mut batch = Batch { reconciled: Some(SystemTime::now()), ..Batch::default() };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut trees: Vec<BTreeMap<String, BTreeSet<String>>> = Vec::new();
    for name in ["bids-examples", "nf-core-modules", "charts", "ansible-examples", "rosbag2"] {
        let mut text = String::new();
        let file = std::fs::File::open(data.join(format!("{name}.txt.gz"))).expect("a tree");
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("text");
        let mut tree: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in text.lines() {
            let mut path = line[2..].split(" -> ").next().expect("split yields something").trim_end_matches('/');
            while !path.is_empty() {
                let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
                tree.entry(above.to_owned()).or_default().insert(last.to_owned());
                path = above;
            }
        }
        trees.push(tree);
    }
    let mut stack: Vec<(usize, String, u32)> = Vec::new();
    let mut round = 0;
    for id in 0..count {
        let (tree, path, parent) = stack.pop().unwrap_or_else(|| {
            round += 1;
            (round % trees.len(), String::new(), 0)
        });
        let entries = &trees[tree][&path];
        let mut listing = Vec::new();
        let mut before = "";
        for name in entries {
            let shared = name.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count().min(31);
            listing.push((shared as u8) << 3);
            listing.push((name.len() - shared) as u8);
            listing.extend_from_slice(&name.as_bytes()[shared..]);
            before = name;
        }
        let name = if path.is_empty() { format!("tree-{round}") } else { path.rsplit('/').next().expect("it").into() };
        let name = if id == 0 { String::new() } else { name };
        let stamp = stamp(id, &mut next);
        let record = DirRecord { parent, name: name.as_bytes().into(), stamp, trusted: true, listing: listing.into() };
        batch.dirs.insert((0, id), Some(record));
        for name in entries.iter().rev() {
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            if trees[tree].contains_key(&below) {
                stack.push((tree, below, id));
            }
        }
    }
    batch
}

fn filled(batch: &Batch) -> (tempfile::TempDir, Index) {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut index, _) = Index::open(&dir.path().join("bench.index"), &identity()).expect("an index");
    index.commit(batch).expect("a commit");
    (dir, index)
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn first_commit(bencher: Bencher<'_, '_>, thousands: u32) {
    let batch = real(thousands * 1000);
    bencher.bench_local(|| filled(&batch));
}

#[divan::bench(args = COUNTS, sample_count = 20)]
fn load(bencher: Bencher<'_, '_>, thousands: u32) {
    let (_dir, mut index) = filled(&real(thousands * 1000));
    bencher.bench_local(|| {
        let mut all = Vec::new();
        index.load(&mut |_, _, record| all.push(record)).expect("an index");
        all
    });
}

#[divan::bench(args = COUNTS, sample_count = 50)]
fn commit_of_one(bencher: Bencher<'_, '_>, thousands: u32) {
    let mut batch = real(thousands * 1000);
    let (_dir, mut index) = filled(&batch);
    batch.dirs = batch.dirs.into_iter().skip(4321).take(1).collect();
    bencher.bench_local(|| index.commit(&batch).expect("a commit"));
}

#[divan::bench(args = COUNTS, sample_count = 50)]
fn open(bencher: Bencher<'_, '_>, thousands: u32) {
    let (dir, index) = filled(&real(thousands * 1000));
    drop(index);
    bencher.bench_local(|| Index::open(&dir.path().join("bench.index"), &identity()).expect("an index"));
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn numbers() {
    for (what, batch) in [("unlike", unlike(100_000)), ("real", real(100_000))] {
        let records = batch.dirs.values().flatten();
        let (listings, payload) = records.fold((0, 0), |(listings, payload), record| {
            (listings + record.listing.len(), payload + record.listing.len() + record.name.len() + 36)
        });
        println!("{what}: 100,000 directories, listings of {listings} bytes; {payload} with names and stamps");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bench.index");
        let (mut index, _) = Index::open(&path, &identity()).expect("an index");
        let report = |what: &str, run: &mut dyn FnMut()| {
            let (cpu, clock) = (cpu_seconds(), SystemTime::now());
            run();
            let clock = clock.elapsed().map_or(0.0, |time| time.as_secs_f64());
            let file = std::fs::metadata(&path).expect("a file");
            println!(
                "  {what}: {:.1} ms CPU, {:.1} ms; {} bytes on disk, {} long",
                (cpu_seconds() - cpu) * 1e3,
                clock * 1e3,
                file.blocks() * 512,
                file.len()
            );
        };
        report("first commit", &mut || index.commit(&batch).expect("a commit"));
        let mut all = Vec::new();
        report("load", &mut || {
            index.load(&mut |_, id, record| all.push((id, record))).map(drop).expect("an index");
        });
        let mut some = Batch::default();
        some.dirs.extend(all.iter().step_by(997).map(|(id, record)| ((0, *id), Some(record.clone()))));
        report("commit of 100 here and there", &mut || index.commit(&some).expect("a commit"));
        let again = Batch { clear_dirs: true, dirs: batch.dirs.clone(), ..Batch::default() };
        report("everything again", &mut || index.commit(&again).expect("a commit"));
        report("and again", &mut || index.commit(&again).expect("a commit"));
        let mut one = Batch::default();
        one.dirs.extend(all.iter().skip(50_000).take(1).map(|(id, record)| ((0, *id), Some(record.clone()))));
        report("100 commits of one", &mut || (0..100).for_each(|_| index.commit(&one).expect("a commit")));
        report("100 looks for matches", &mut || {
            (0..100).for_each(|n| assert_eq!(index.matches(&[[n; 16]]).expect("an index"), [None]));
        });
    }
}
