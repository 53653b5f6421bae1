//! A mount under load for long: it answers what is there, and keeps nothing of what is gone.
//!
//! The number of operations is bounded, not the time: a minute's worth or so in a debug build. `VEINFS_SOAK=N` does N times
//! as much, 60 for an hour or so.

mod changes;
mod readers;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use veinfs::mounts::Exit;

use crate::bed::{LIMIT, TestBed, can_mount, eventually, has, is_root, ndjson};
use changes::Changer;
use readers::{Readers, Report};

const RUN: &str =
    "name: run\nfiles: [data.csv]\noptional_files: ['*']\noptional_directories: [{directory_name: '*'}]\n";

/// How many changes each changer makes before all is compared, and how often.
const CHANGES: usize = 250;
const ROUNDS: usize = 12;
const CHANGERS: u64 = 2;

/// How much larger the daemon may be at the end than after a third. Measured: some 0.6 MiB, what allocators make of
/// it. This is far above that, and less than what 50 bytes left of each read come to (some 200,000 reads follow the third).
const GROWTH_KIB: u64 = 8 << 10;

fn rounds() -> usize {
    let factor = std::env::var("VEINFS_SOAK").ok().map(|text| text.parse::<usize>().expect("VEINFS_SOAK: a number"));
    ROUNDS * factor.unwrap_or(1)
}

/// What an entry is, as far as a mount must show it as it is.
#[derive(Debug, PartialEq)]
struct Entry {
    attributes: (u32, u32, u32, u64, i64, i64),
    content: Vec<u8>,
}

/// Everything at and below `path`; where it fails, the place.
fn all_below(path: &Path, at: &Path, into: &mut BTreeMap<PathBuf, Entry>) -> Result<(), (PathBuf, std::io::Error)> {
    let here = |error| (at.to_path_buf(), error);
    let meta = fs::symlink_metadata(path).map_err(here)?;
    let size = if meta.is_dir() { 0 } else { meta.size() };
    let attributes = (meta.mode(), meta.uid(), meta.gid(), size, meta.mtime(), meta.mtime_nsec());
    let content = if meta.is_file() { fs::read(path).map_err(here)? } else { Vec::new() };
    into.insert(at.to_path_buf(), Entry { attributes, content });
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(here)? {
            let name = entry.map_err(here)?.file_name();
            all_below(&path.join(&name), &at.join(&name), into)?;
        }
    }
    Ok(())
}

/// What the mount shows that is not so, a line each; the source is at rest.
fn differences(bed: &TestBed, run: &str) -> Vec<String> {
    let Ok(shown) = fs::read(bed.mnt.join(".veinfs/matches.ndjson")) else { return vec!["no matches".into()] };
    let views = |found: &[serde_json::Value]| -> BTreeMap<String, String> {
        let text = |found: &serde_json::Value, key: &str| found[key].as_str().expect("text").to_owned();
        found.iter().map(|found| (text(found, "relpath"), text(found, "view"))).collect()
    };
    let shown = views(&ndjson(&shown));
    let found = views(&bed.scan(["-p", run, "--json"]).ok().ndjson());
    let mut lines = Vec::new();
    lines.extend(found.keys().filter(|path| !shown.contains_key(*path)).map(|path| format!("{path} is not shown")));
    lines.extend(shown.keys().filter(|path| !found.contains_key(*path)).map(|path| format!("{path} is no match")));
    let mut names: Vec<String> = shown.values().map(|view| view.replace("run/", "")).collect();
    names.sort();
    if crate::bed::names(bed.mnt.join("run")) != names {
        lines.push(format!("the folder holds other names than {names:?}"));
    }
    for (path, view) in &shown {
        let (mut real, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (root, into) in [(bed.src.join(path), &mut real), (bed.mnt.join(view), &mut seen)] {
            if let Err((at, error)) = all_below(&root, Path::new(""), into) {
                lines.push(format!("{}: {error}", root.join(at).display()));
            }
        }
        for (at, entry) in &real {
            match seen.remove(at) {
                None => lines.push(format!("{path}/{} is not there", at.display())),
                Some(other) if other.attributes != entry.attributes => {
                    lines.push(format!("{path}/{}: {:?}, not {:?}", at.display(), other.attributes, entry.attributes));
                }
                Some(other) if other != *entry => lines.push(format!("{path}/{}: another content", at.display())),
                Some(_) => {}
            }
        }
        lines.extend(seen.keys().map(|at| format!("{path}/{} is there no longer", at.display())));
    }
    lines
}

/// Waits until the mount shows what is there, through whatever the kernel remembers; what it does not show, if anything.
fn stale(bed: &TestBed, run: &str, changers: &[Changer]) -> Option<String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let lines = differences(bed, run);
        if lines.is_empty() {
            return None;
        }
        if Instant::now() > deadline {
            let text = lines[..lines.len().min(20)].join("\n");
            let history: Vec<String> = changers.iter().flat_map(|changer| changer.history(&text)).collect();
            let history = history.join("\n");
            let whence = bed.whence(|| differences(bed, run).is_empty());
            return Some(format!("not within {LIMIT:?}:\n{text}\n{history}\n{whence}"));
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[track_caller]
fn comes_to_show_what_is_there(bed: &TestBed, run: &str, changers: &[Changer], what: &str) {
    if let Some(stale) = stale(bed, run, changers) {
        panic!("{what}: {stale}");
    }
}

/// What a daemon uses.
#[derive(Clone, Copy, Debug)]
struct Usage {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
    /// Inodes that the kernel remembers, and open files, by its status.
    inodes: u64,
    open: u64,
}

fn usage(bed: &TestBed, pid: Pid) -> Usage {
    let count = |name| fs::read_dir(format!("/proc/{pid}/{name}")).expect("a process").count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let reads = bed.status()["reads"].clone();
    let number = |key: &str| reads[key].as_u64().expect("a number");
    Usage {
        descriptors: count("fd"),
        threads: count("task"),
        resident_kib: resident.trim().trim_end_matches(" kB").parse().expect("a number"),
        inodes: number("inodes"),
        open: number("open"),
    }
}

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Has the kernel forget entries and inodes that nobody uses.
fn drop_caches() {
    fs::write(DROP_CACHES, "2").expect("it may be written to");
}

/// Waits until as little is used as `limit`, and nothing is open.
#[track_caller]
fn comes_down_to(bed: &TestBed, pid: Pid, limit: Usage) -> Usage {
    let deadline = Instant::now() + LIMIT;
    loop {
        drop_caches();
        let now = usage(bed, pid);
        let few = now.open == 0 && now.inodes <= limit.inodes;
        if few && now.descriptors <= limit.descriptors && now.threads <= limit.threads {
            return now;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {now:?} to {limit:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// All changers make some changes at the same time; `made` counts them.
fn change(changers: &mut [Changer], count: usize, made: &AtomicUsize) {
    std::thread::scope(|scope| {
        for changer in changers {
            scope.spawn(move || {
                for _ in 0..count {
                    changer.change();
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

fn bed() -> (TestBed, String, Vec<Changer>) {
    let bed = TestBed::new(&["kept/data.csv=1,2", "kept/a0=a0 version 1 times 1\n"]);
    let run = bed.file("run.yaml", RUN);
    let changers = (0..CHANGERS).map(|number| Changer::new(number, &bed.src)).collect();
    (bed, run, changers)
}

#[track_caller]
fn nothing_was_wrong(reports: &[(&'static str, Report)], said: &[String]) {
    for (name, report) in reports {
        assert!(report.wrong.is_empty(), "{name}: {:#?}", report.wrong);
    }
    assert!(said.is_empty(), "{said:#?}");
}

fn can_soak() -> bool {
    let may = can_mount() && is_root() && has("find") && has("python3");
    if may && fs::OpenOptions::new().write(true).open(DROP_CACHES).is_err() {
        eprintln!("SKIP: {DROP_CACHES} is not for this root");
        return false;
    }
    may
}

#[test]
fn nothing_is_stale_and_nothing_is_left_behind() {
    if !can_soak() {
        return;
    }
    let (bed, run, mut changers) = bed();
    let made = AtomicUsize::new(0);
    bed.mount(["-p", &run]);
    let pid = bed.daemon();
    // Once, so that all that begins with use has begun.
    change(&mut changers, CHANGES, &made);
    comes_to_show_what_is_there(&bed, &run, &changers, "before");
    drop_caches();
    let first = std::cell::Cell::new(usage(&bed, pid));
    // What is kept for a moment only is gone when three looks in a row show the same.
    eventually("it is at rest", || {
        drop_caches();
        let now = usage(&bed, pid);
        let before = first.replace(now);
        (now.descriptors, now.inodes, now.open) == (before.descriptors, before.inodes, 0)
    });
    let base = first.get();
    let readers = Readers::start(&bed.mnt, &bed.dir);
    let mut third = None;
    let rounds = rounds();
    for round in 0..rounds {
        change(&mut changers, CHANGES, &made);
        comes_to_show_what_is_there(&bed, &run, &changers, &format!("round {round}"));
        if round + 1 == rounds.div_ceil(3) {
            third = Some(usage(&bed, pid));
        }
    }
    let (reads, last) = (readers.reads.load(Ordering::Relaxed), usage(&bed, pid));
    let (reports, said) = readers.end();
    nothing_was_wrong(&reports, &said);
    assert!(reports.iter().all(|(_, report)| !report.cut_off && report.reads > 100), "{reports:?}");
    // As many matches as there are now, each with some files that this test's own look has left in the kernel.
    let end = comes_down_to(&bed, pid, base);
    let third = third.expect("a third");
    eprintln!(
        "{} changes, {reads} reads\nbase  {base:?}\nthird {third:?}\nlast  {last:?}\nend   {end:?}",
        made.into_inner()
    );
    let grown = last.resident_kib.saturating_sub(third.resident_kib);
    assert!(grown <= GROWTH_KIB, "{third:?} has grown to {last:?}");
}

#[test]
fn nothing_is_stale_where_the_kernel_asks_only_after_an_hour() {
    if !can_soak() {
        return;
    }
    let (bed, run, mut changers) = bed();
    let made = AtomicUsize::new(0);
    bed.mount(["-p", &run, "--attr-timeout", "3600"]);
    let readers = Readers::start(&bed.mnt, &bed.dir);
    for round in 0..rounds() {
        change(&mut changers, CHANGES, &made);
        comes_to_show_what_is_there(&bed, &run, &changers, &format!("round {round}"));
    }
    let (reports, said) = readers.end();
    nothing_was_wrong(&reports, &said);
}

#[test]
fn a_daemon_that_is_killed_leaves_nobody_waiting_and_is_mounted_over() {
    if !can_soak() {
        return;
    }
    let (bed, run, mut changers) = bed();
    let made = AtomicUsize::new(0);
    change(&mut changers, CHANGES, &made);
    let mut held = Vec::new();
    for round in 0..rounds() {
        // Over a dead one, but for the first.
        bed.mount(["-p", &run]);
        comes_to_show_what_is_there(&bed, &run, &changers, &format!("mounted, {round}"));
        // Somebody keeps using what is dead.
        held.push(["run/kept", "run/kept/data.csv"].map(|path| fs::File::open(bed.mnt.join(path)).expect("it")));
        let pid = bed.daemon();
        let exit = Exit::of(pid.as_raw().unsigned_abs()).expect("a process");
        let readers = Readers::start(&bed.mnt, &bed.dir);
        let before = made.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| change(&mut changers, CHANGES, &made));
            eventually("much is under way", || {
                readers.reads.load(Ordering::Relaxed) > 500 && made.load(Ordering::Relaxed) > before + CHANGES
            });
            kill(pid, Signal::SIGKILL).expect("a signal");
        });
        // Also where it was about to have the kernel forget a name, and a thread of it waits for what waits for it.
        assert!(exit.wait(LIMIT).expect("a process"), "the daemon was killed and does not end");
        let (reports, said) = readers.end();
        for (name, report) in &reports {
            assert!(report.wrong.is_empty(), "{name}: {:#?}", report.wrong);
            assert!(report.cut_off, "{name} has not noticed");
        }
        let ended = ["not connected", "connection abort", "Bus error"];
        let strange: Vec<&String> = said.iter().filter(|line| !ended.iter().any(|text| line.contains(text))).collect();
        assert!(strange.is_empty(), "{strange:#?}");
        assert!(bed.is_mounted());
    }
    bed.mount(["-p", &run]);
    comes_to_show_what_is_there(&bed, &run, &changers, "mounted over what was dead");
    bed.unmount();
    assert!(!bed.is_mounted(), "nothing was left below");
}
