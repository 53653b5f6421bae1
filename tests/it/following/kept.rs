//! What a mount knows outlives it: the index.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use veinfs::mounts::Exit;

use super::{NONE, RUN, is_as_found, is_there, numbers};
use crate::bed::{LIMIT, TestBed, can_mount, eventually, is_root, lay_out, names};

/// 200 matches in 221 directories; 10 names, each 20 times. Each file says where it is.
fn bed() -> (TestBed, Vec<String>) {
    let paths = (10..30).flat_map(|g| (0..10).map(move |r| format!("g{g}/r{r}")));
    let lines: Vec<String> = paths.map(|path| format!("{path}/data.csv={path}")).collect();
    let bed = TestBed::new(&lines);
    let patterns = vec!["-p".to_owned(), bed.file("run.yaml", RUN)];
    (bed, patterns)
}

/// How many directories were read since the mount began.
fn read(bed: &TestBed) -> u64 {
    bed.status()["directories"].as_u64().expect("a number")
}

/// Mounts until nothing has to be read again for being too young.
fn settle(bed: &TestBed, patterns: &[String]) {
    bed.mount(patterns);
    eventually("what was read is old enough", || {
        bed.unmount();
        bed.mount(patterns);
        read(bed) < 5
    });
    bed.unmount();
}

fn content(bed: &TestBed, name: &str) -> String {
    fs::read_to_string(bed.mnt.join("run").join(name).join("data.csv")).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The files of the cache directory.
fn cached(bed: &TestBed) -> Vec<PathBuf> {
    let dir = bed.dir.join("cache/veinfs");
    if is_there(&dir) { names(&dir).iter().map(|name| dir.join(name)).collect() } else { Vec::new() }
}

fn default_index(bed: &TestBed) -> PathBuf {
    let all = cached(bed);
    let index = all.iter().find(|path| path.extension().is_some_and(|is| is == "index"));
    index.unwrap_or_else(|| panic!("no index: {all:?}")).clone()
}

#[test]
fn a_remount_shows_at_once_what_was_there() {
    if !can_mount() {
        return;
    }
    let (bed, patterns) = bed();
    bed.mount(&patterns);
    assert_eq!(read(&bed), 221);
    let before = numbers(&bed.mnt);
    assert_eq!(before.len(), 1 + 1 + 200 + 200);
    bed.unmount();
    settle(&bed, &patterns);
    // Without --wait.
    let (src, mnt) = (bed.src.to_str().expect("text"), bed.mnt.to_str().expect("text"));
    bed.veinfs(["mount", src, mnt].into_iter().chain(patterns.iter().map(String::as_str))).ok();
    let shown = names(bed.mnt.join("run")).len();
    bed.keep(&bed.mnt);
    assert_eq!(shown, 200);
    let state = bed.status()["state"].clone();
    assert!(["reconciling", "complete"].contains(&state.as_str().expect("text")), "{state}");
    eventually("it is compared", || bed.status()["state"] == "complete");
    assert!(read(&bed) < 5, "{}", read(&bed));
    assert_eq!(numbers(&bed.mnt), before);
}

#[test]
fn what_changed_meanwhile_is_right_and_names_stay() {
    if !can_mount() {
        return;
    }
    let (bed, patterns) = bed();
    bed.mount(&patterns);
    let before = numbers(&bed.mnt);
    let of = |path: &str| {
        let names = names(bed.mnt.join("run"));
        names.into_iter().find(|name| content(&bed, name) == path).unwrap_or_else(|| panic!("no {path}"))
    };
    assert_eq!(content(&bed, "r0"), "g10/r0");
    let second = of("g11/r0");
    assert!(second.starts_with("r0~"), "{second}");
    bed.unmount();
    // One sorts before all others of its name, one has lost the name's first.
    lay_out(&bed.src, &["a/r0/data.csv=a/r0", "a/new/data.csv=a/new", "g20/r0/later="]);
    fs::remove_dir_all(bed.src.join("g12")).expect("removed");
    fs::remove_file(bed.src.join("g10/r1/data.csv")).expect("removed");
    fs::write(bed.src.join("g13/r2/data.csv"), "other").expect("a file");
    bed.mount(&patterns);
    assert!(is_as_found(&bed, &patterns));
    assert_eq!(content(&bed, "r0"), "g10/r0");
    assert_eq!(content(&bed, &second), "g11/r0");
    assert!(of("a/r0").starts_with("r0~"));
    assert_eq!(of("a/new"), "new");
    assert!(names(bed.mnt.join("run")).iter().any(|name| content(&bed, name) == "other"));
    let after = numbers(&bed.mnt);
    assert_eq!(after.len(), before.len() - 2 * 11 + 2 * 2);
    let new = |path: &&PathBuf| !before.contains_key(*path);
    assert_eq!(after.keys().filter(new).count(), 4, "{:?}", after.keys().filter(new).collect::<Vec<_>>());
    let moved = after.iter().filter(|(path, ino)| before.get(*path).is_some_and(|was| was != *ino));
    assert_eq!(moved.collect::<Vec<_>>(), []);
    // What is gone leaves its number to nobody.
    let gone = before.iter().filter(|(path, _)| !after.contains_key(*path));
    let gone: Vec<_> = gone.filter(|(path, _)| path.components().count() == 2).collect();
    assert!(gone.iter().all(|(_, ino)| !after.values().any(|now| now == *ino)), "{gone:?}");
    bed.unmount();
    bed.mount(&patterns);
    assert_eq!(numbers(&bed.mnt), after);
    // It goes on to follow.
    fs::remove_dir_all(bed.src.join("g29")).expect("removed");
    eventually("it is as found", || is_as_found(&bed, &patterns));
}

#[test]
fn another_pattern_needs_no_other_walk() {
    if !can_mount() {
        return;
    }
    let (bed, patterns) = bed();
    settle(&bed, &patterns);
    let other = bed.file("other.yaml", "name: other\ndirectory_name: 'g1*'\ndirectories: [{directory_name: r3}]\n");
    bed.mount(["-p", &other]);
    assert_eq!(names(&bed.mnt), ["other"]);
    let expected: Vec<String> = (10..20).map(|g| format!("g{g}")).collect();
    assert_eq!(names(bed.mnt.join("other")), expected);
    assert!(read(&bed) < 5, "{}", read(&bed));
    bed.unmount();
    let both: Vec<String> = patterns.iter().cloned().chain(["-p".to_owned(), other]).collect();
    bed.mount(&both);
    assert_eq!(names(bed.mnt.join("run")).len(), 200);
    assert!(is_as_found(&bed, &both));
    assert!(read(&bed) < 5, "{}", read(&bed));
    assert_eq!(cached(&bed).iter().filter(|path| path.extension().is_some_and(|is| is == "index")).count(), 1);
}

#[test]
fn killed_it_is_mounted_over_and_right() {
    if !can_mount() || !is_root() {
        return;
    }
    let (bed, patterns) = bed();
    for round in 0..3 {
        bed.mount(&patterns);
        assert!(is_as_found(&bed, &patterns), "round {round}");
        lay_out(&bed.src, &[format!("new{round}/data.csv=")]);
        fs::remove_dir_all(bed.src.join(format!("g1{round}"))).expect("removed");
        if round > 0 {
            eventually("it is as found", || is_as_found(&bed, &patterns));
        }
        let pid = bed.daemon();
        let exit = Exit::of(pid.as_raw().unsigned_abs()).expect("a process");
        kill(pid, Signal::SIGKILL).expect("a signal");
        assert!(exit.wait(LIMIT).expect("a process"));
        fs::remove_file(bed.src.join(format!("g2{round}/r5/data.csv"))).expect("removed");
    }
    bed.mount(&patterns);
    assert!(is_as_found(&bed, &patterns));
    assert_eq!(names(bed.mnt.join("run")).len(), 200 + 3 - 30 - 3);
    bed.unmount();
}

#[test]
fn a_damaged_index_is_set_aside_and_built_anew() {
    if !can_mount() {
        return;
    }
    let (bed, patterns) = bed();
    let write_over = |index: &Path| {
        let file = File::options().write(true).open(index).expect("the index");
        let size = file.metadata().expect("its size").len();
        file.write_all_at(&vec![0x5a; (size / 2) as usize], size / 4).expect("written");
    };
    let cut = |index: &Path| {
        let file = File::options().write(true).open(index).expect("the index");
        file.set_len(file.metadata().expect("its size").len() / 2).expect("a length");
    };
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 3] =
        [("middle", &write_over), ("cut", &cut), ("other", &|index| fs::write(index, "garbage").expect("written"))];
    settle(&bed, &patterns);
    bed.mount(&patterns);
    let before = numbers(&bed.mnt);
    for (what, damage) in damages {
        bed.unmount();
        let index = default_index(&bed);
        let aside = index.with_extension("index.damaged");
        damage(&index);
        let said = bed.try_mount(&patterns).ok();
        assert!(said.stderr.contains("index") && said.stderr.contains("anew"), "{what}: {}", said.stderr);
        assert!(aside.exists(), "{what}: {:?}", cached(&bed));
        assert!(is_as_found(&bed, &patterns), "{what}");
        assert_eq!(numbers(&bed.mnt).len(), before.len(), "{what}");
        fs::remove_file(aside).expect("removed");
        // The next one finds a sound one again.
        bed.unmount();
        let said = bed.try_mount(&patterns).ok();
        assert_eq!(said.stderr, "", "{what}");
        assert!(read(&bed) < 5, "{what}: {}", read(&bed));
    }
}

#[test]
fn without_an_index_nothing_is_kept() {
    if !can_mount() {
        return;
    }
    let (bed, patterns) = bed();
    let words = || patterns.iter().map(String::as_str).chain(["--no-index"]);
    bed.mount(words());
    assert_eq!(names(bed.mnt.join("run")).len(), 200);
    assert_eq!(bed.status()["index"], Value::Null);
    fs::remove_dir_all(bed.src.join("g10")).expect("removed");
    eventually("it is as found", || is_as_found(&bed, &patterns));
    bed.unmount();
    assert_eq!(cached(&bed), [] as [PathBuf; 0]);
    bed.mount(words());
    assert_eq!(read(&bed), 210);
}

#[test]
fn two_mounts_share_an_index() {
    if !can_mount() {
        return;
    }
    let (bed, patterns) = bed();
    let second = bed.dir.join("second");
    fs::create_dir(&second).expect("a directory");
    let other = bed.file("other.yaml", "name: other\ndirectories: [{directory_name: r3, files: [data.csv]}]\n");
    bed.mount(&patterns);
    bed.mount_at(&[bed.src.as_os_str()], &second, patterns.iter().map(String::as_str).chain(["-p", &other])).ok();
    assert_eq!(
        numbers(&second.join("run")).keys().collect::<Vec<_>>(),
        numbers(&bed.mnt.join("run")).keys().collect::<Vec<_>>()
    );
    assert_eq!(names(second.join("other")).len(), 20);
    fs::remove_file(bed.src.join("g10/r3/data.csv")).expect("removed");
    lay_out(&bed.src, &["h/r3/data.csv=h"]);
    eventually("the first follows", || is_as_found(&bed, &patterns));
    let others: Vec<String> = (11..30).map(|g| format!("g{g}")).chain(["h".to_owned()]).collect();
    eventually("the second follows", || names(second.join("other")) == others);
    assert_eq!(names(second.join("run")).len(), 200);
    // The one that writes ends first.
    bed.unmount();
    fs::remove_dir_all(bed.src.join("h")).expect("removed");
    eventually("the second goes on", || names(second.join("other")) == others[..19]);
    bed.veinfs(["unmount", second.to_str().expect("text")]).ok();
    bed.mount(&patterns);
    assert!(is_as_found(&bed, &patterns));
    bed.unmount();
    assert_eq!(names(&bed.mnt), NONE);
}
