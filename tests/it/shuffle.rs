//! Matches copied out: held against `cp -a` of the view, killed, without room, in conflict, and as a dry run says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, SeekFrom, Timespec, Timestamps, XattrFlags};
use serde_json::{Value, json};
use veinfs::automaton::{PatternId, Test};
use veinfs::config::NamedSource;
use veinfs::entry::{Kind, RelPath};
use veinfs::expand::Symlinks;
use veinfs::listing::{Exclude, ScratchPool};
use veinfs::pattern::compile::compile;
use veinfs::pattern::load::{Format, load_text};
use veinfs::shuffle::dest::Dest;
use veinfs::shuffle::{Copied, Job, Shuffle, ShuffleOptions};
use veinfs::source::local::LocalSource;
use veinfs::source::{File, Handle, ListBuffer, RawKind, Source, Stat};
use veinfs::walk::{Found, WalkOptions};

use crate::bed::{Output, TestBed, can_mount, deny, eventually, has, is_root, names};
use crate::mirror::{Grower, xattrs};

const RUN: &str = "name: run\nfiles: [data.csv]\noptional_files: ['*.txt', 'link*', 'hard*', 'sparse*']\n\
    optional_directories: [{directory_name: raw}]\n";

impl TestBed {
    fn dest(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// Copies the source's matches to `out`.
    fn shuffle<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        Output::of(&mut self.shuffling(args))
    }

    fn shuffling<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut words = vec![OsString::from("shuffle"), self.src.clone().into(), self.dest().into()];
        words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self.command(words)
    }
}

/// All that a copy is to have of an entry.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: (i64, i64),
    rdev: u64,
    bytes: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// Where data begins and ends.
    data: Vec<(u64, u64)>,
    /// The first name of the same file.
    same_as: Option<PathBuf>,
}

/// Everything below a directory, by path.
fn seen(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut all, mut first) = (BTreeMap::new(), BTreeMap::new());
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.expect("an entry");
        let path = entry.path();
        let meta = fs::symlink_metadata(path).expect("an entry");
        let below = path.strip_prefix(root).expect("below the root").to_path_buf();
        let mut own = if meta.is_symlink() { BTreeMap::new() } else { xattrs(path) };
        own.retain(|name, _| !name.starts_with("user.veinfs."));
        let bytes = match () {
            () if meta.is_file() => fs::read(path).expect("a file"),
            () if meta.is_symlink() => fs::read_link(path).expect("a link").into_os_string().into_encoded_bytes(),
            () => Vec::new(),
        };
        let mut same_as = None;
        if meta.nlink() > 1 && !meta.is_dir() {
            let original = first.entry((meta.dev(), meta.ino())).or_insert_with(|| below.clone());
            same_as = Some(original.clone());
        }
        let seen = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            size: if meta.is_file() { meta.len() } else { 0 },
            mtime: (meta.mtime(), meta.mtime_nsec()),
            rdev: meta.rdev(),
            bytes,
            xattrs: own,
            data: if meta.is_file() { data_of(path) } else { Vec::new() },
            same_as,
        };
        all.insert(below, seen);
    }
    all
}

/// Where a file has data, by SEEK_DATA and SEEK_HOLE.
fn data_of(path: &Path) -> Vec<(u64, u64)> {
    let Ok(file) = fs::File::open(path) else { return Vec::new() };
    let (mut at, mut data) = (0, Vec::new());
    while let Ok(begin) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(begin)).expect("there is one at the end");
        data.push((begin, at));
    }
    data
}

#[track_caller]
fn same(a: &BTreeMap<PathBuf, Seen>, b: &BTreeMap<PathBuf, Seen>) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for ((path, a), b) in a.iter().zip(b.values()) {
        assert!(a == b, "{}:\n{:?}\n{:?}", path.display(), without_bytes(a), without_bytes(b));
    }
}

fn without_bytes(seen: &Seen) -> String {
    format!("{:?}", (seen.mode, seen.owner, seen.size, seen.mtime, seen.rdev, &seen.data, &seen.same_as))
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}

/// A few runs with all that files can have.
fn runs() -> TestBed {
    let bed = TestBed::new(&[
        "a/x/data.csv=1,2",
        "a/x/other.bin=not shown",
        "a/x/notes.txt=n",
        "a/x/raw/deep/1.csv=1",
        "a/x/raw/empty/",
        "a/x/linked -> notes.txt",
        "a/x/link-dangling -> ../nowhere",
        "b/x/data.csv=3,4",
        "b/y/data.csv=5,6",
        "b/none/other=",
    ]);
    let x = bed.src.join("a/x");
    fs::hard_link(x.join("data.csv"), x.join("hard.txt")).expect("a hard link");
    fs::hard_link(x.join("data.csv"), x.join("raw/hard")).expect("a hard link");
    let sparse = fs::File::create(x.join("sparse")).expect("a file");
    sparse.set_len(4 << 20).expect("a length");
    sparse.write_all_at(&[7; 5000], 1 << 20).expect("some bytes");
    rustix::fs::setxattr(x.join("notes.txt"), "user.k", b"v\0w", XattrFlags::empty()).expect("an xattr");
    fs::set_permissions(x.join("notes.txt"), fs::Permissions::from_mode(0o4751)).expect("a mode");
    fs::set_permissions(x.join("raw/deep"), fs::Permissions::from_mode(0o555)).expect("a mode");
    for (path, seconds, nanoseconds) in [
        ("a/x/data.csv", 1_000_000_000, 123_456_789),
        ("a/x/raw/deep/1.csv", -5, 999_999_999),
        ("a/x/raw/deep", 7, 7),
        ("a/x/raw", 1_500_000_000, 1),
        ("a/x", 1_600_000_000, 2),
    ] {
        set_mtime(&bed.src.join(path), seconds, nanoseconds);
    }
    bed
}

/// Copies the view by `cp -a`.
fn cp(bed: &TestBed, folder: &str, to: &str) -> PathBuf {
    let to = bed.dir.join(to);
    Output::of(Command::new("cp").arg("-a").arg(bed.mnt.join(folder)).arg(&to)).ok();
    to
}

#[test]
fn a_copy_is_what_cp_makes_of_the_view() {
    if !can_mount() {
        return;
    }
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    bed.mount(["-p", &run]);
    bed.shuffle(["-p", &run, "--verify"]).ok().says("3 matches copied");
    let copied = bed.dest().join("run");
    let wanted = cp(&bed, "run", "cp");
    assert_eq!(names(&copied), names(bed.mnt.join("run")));
    for name in names(&copied) {
        // cp keeps no holes that are short of a block, nor do we make more of them; the view's own times move on.
        same(&seen(&copied.join(&name)), &seen(&wanted.join(&name)));
    }
    assert_eq!(names(bed.dest()), ["run"], "nothing else is left");
}

#[test]
fn random_trees_are_copied_as_cp_copies_the_view() {
    if !can_mount() || !is_root() {
        return;
    }
    for seed in 100..104 {
        let bed = TestBed::new(&[] as &[&str]);
        Grower::grow(seed, &bed.src);
        let all = bed.file("all.yaml", "name: all\ndirectory_name: src\n");
        bed.mount(["-p", &all, "--attr-timeout", "1000"]);
        bed.shuffle(["-p", &all, "--verify", "-j", "3"]).ok();
        let wanted = cp(&bed, "all/src", "cp");
        same(&seen(&bed.dest().join("all/src")), &seen(&wanted));
    }
}

#[test]
fn links_are_copied_as_told() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    let out = bed.dest().join("run/x");
    bed.shuffle(["-p", &run, "--symlinks", "skip"]).ok();
    assert!(!out.join("linked").exists() && out.join("linked").symlink_metadata().is_err());
    fs::remove_dir_all(bed.dest()).expect("a directory");
    bed.shuffle(["-p", &run, "--symlinks", "keep"]).ok();
    assert_eq!(fs::read_link(out.join("linked")).expect("a link"), bed.src.join("a/x/notes.txt"));
    fs::remove_dir_all(bed.dest()).expect("a directory");
    bed.shuffle(["-p", &run]).ok();
    assert!(out.join("linked").symlink_metadata().expect("a file").is_file());
    assert_eq!(fs::read_link(out.join("link-dangling")).expect("a link"), bed.src.join("a/x/../nowhere"));
}

#[test]
fn layouts_and_names_are_those_of_the_view() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    bed.shuffle(["-p", &run, "--layout", "<.parent>/<.name>"]).ok();
    assert_eq!(names(bed.dest().join("run")), ["a", "b"]);
    assert_eq!(names(bed.dest().join("run/b")), ["x", "y"]);
    fs::remove_dir_all(bed.dest()).expect("a directory");
    let told = bed.shuffle(["-p", &run, "--json"]).ok().ndjson();
    let views: Vec<&str> = told.iter().map(|line| line["view"].as_str().expect("text")).collect();
    let scanned = bed.scan(["-p", &run, "--json"]).ok().ndjson();
    assert_eq!(views, scanned.iter().map(|line| line["view"].as_str().expect("text")).collect::<Vec<_>>());
    assert_eq!(views.len(), 3);
    for view in views {
        assert!(bed.dest().join(view).join("data.csv").is_file(), "{view}");
    }
}

#[test]
fn a_second_run_keeps_what_is_there() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    bed.shuffle(["-p", &run]).ok().says("3 matches copied");
    let before = seen(&bed.dest());
    let inodes = |path: &Path| fs::metadata(path).expect("a file").ino();
    let file = bed.dest().join("run/x/data.csv");
    let ino = inodes(&file);
    bed.shuffle(["-p", &run, "--verify"]).ok().says("0 matches copied").says("3 there already");
    assert_eq!(inodes(&file), ino);
    same(&seen(&bed.dest()), &before);
    // Another byte of the same size and time is found by reading alone.
    let meta = fs::metadata(&file).expect("a file");
    fs::write(&file, "9,9").expect("a file");
    set_mtime(&file, meta.mtime(), meta.mtime_nsec());
    bed.shuffle(["-p", &run]).ok().says("3 there already");
    bed.shuffle(["-p", &run, "--verify"]).code(1).says("differs from byte 0 on").says("2 there already; 1 not copied");
}

#[test]
fn conflicts_stay_and_the_rest_goes_on() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    fs::create_dir_all(bed.dest().join("run/x")).expect("a directory");
    fs::write(bed.dest().join("run/x/mine"), "mine").expect("a file");
    fs::write(bed.dest().join("run/y"), "mine").expect("a file");
    let told =
        bed.shuffle(["-p", &run, "--json"]).code(1).says("out/run/x: data.csv is missing").says("y is no directory");
    let actions: Vec<Value> = told.ndjson().iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, [json!("conflict"), json!("copy"), json!("conflict")]);
    assert_eq!(names(bed.dest().join("run/x")), ["mine"]);
    assert_eq!(fs::read(bed.dest().join("run/y")).expect("a file"), b"mine");
    let told = bed.shuffle(["-p", &run, "--json", "--overwrite", "--verify"]).ok();
    let actions: Vec<Value> = told.ndjson().iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, [json!("replace"), json!("keep"), json!("replace")]);
    assert!(!bed.dest().join("run/x/mine").exists());
    assert_eq!(fs::read(bed.dest().join("run/y/data.csv")).expect("a file"), b"5,6");
    // A level that is a file, or a link that leads elsewhere.
    fs::remove_dir_all(bed.dest()).expect("a directory");
    fs::create_dir(bed.dest()).expect("a directory");
    std::os::unix::fs::symlink(&bed.src, bed.dest().join("run")).expect("a link");
    let before = names(&bed.src);
    bed.shuffle(["-p", &run]).code(1).says("run is no directory").says("3 in conflict");
    bed.shuffle(["-p", &run, "--overwrite"]).code(1).says("3 in conflict");
    assert_eq!(names(&bed.src), before, "nothing is written below a source");
}

#[test]
fn a_dry_run_says_what_is_done() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    fs::create_dir_all(bed.dest().join("run/y")).expect("a directory");
    for round in [&["-p", &run][..], &["-p", &run, "--overwrite"], &["-p", &run, "--symlinks", "keep", "--overwrite"]] {
        let before = seen(&bed.dest());
        let dry = bed.shuffle(round.iter().chain(&["--dry-run"]));
        same(&seen(&bed.dest()), &before);
        let objects = bed.shuffle(round.iter().chain(&["--dry-run", "--json"])).ndjson();
        // What is said of each match, and each entry that is there after it.
        let copy = bed.shuffling(round.iter().chain(&["--verbose"])).stdin(Stdio::null()).output().expect("veinfs");
        assert_eq!(String::from_utf8_lossy(&copy.stdout), dry.text());
        assert_eq!(copy.status.code(), Some(dry.code));
        for object in objects.iter().filter(|object| object["action"] == "copy" || object["action"] == "replace") {
            let there = seen(Path::new(object["dest"].as_str().expect("text")));
            let count = |kind: u32| there.values().filter(|seen| seen.mode & 0o170_000 == kind).count() as u64;
            assert_eq!(object["directories"], json!(count(0o040_000)));
            assert_eq!(object["links"], json!(count(0o120_000)));
            let files = object["files"].as_u64().expect("a number") + object["hard_links"].as_u64().expect("a number");
            assert_eq!(files, count(0o100_000));
            let head = format!(
                "{} {} -> ",
                object["action"].as_str().unwrap_or_default(),
                object["path"].as_str().unwrap_or_default()
            );
            let listed = dry
                .text()
                .lines()
                .skip_while(|line| !line.starts_with(&head))
                .skip(1)
                .take_while(|line| line.starts_with("  "))
                .count();
            assert_eq!(listed + 1, there.len(), "{head}");
        }
    }
}

#[test]
fn a_missing_destination_is_not_made_by_a_dry_run() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    bed.shuffle(["-p", &run, "-n"]).ok().says("3 matches to copy");
    assert!(!bed.dest().exists());
}

#[test]
fn nothing_is_written_below_a_source() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    let (src, dir) = (bed.src.to_str().expect("text"), bed.dir.to_str().expect("text"));
    let inside = format!("{src}/out");
    bed.veinfs(["shuffle", src, &inside, "-p", &run]).code(2).says("nothing is written below a source");
    bed.veinfs(["shuffle", src, src, "-p", &run]).code(2).says("nothing is written below a source");
    bed.veinfs(["shuffle", src, dir, "-p", &run]).code(2).says("the source").says("is inside");
    assert!(!Path::new(&inside).exists());
    let through = bed.dir.join("through");
    std::os::unix::fs::symlink(&bed.src, &through).expect("a link");
    let through = through.join("out");
    bed.veinfs([OsStr::new("shuffle"), bed.src.as_os_str(), through.as_os_str(), "-p".as_ref(), run.as_ref()]).code(2);
    // What is left out is no part of the source.
    bed.veinfs(["shuffle", src, &inside, "-p", &run, "--exclude", "/out"]).ok().says("3 matches copied");
    bed.veinfs(["shuffle", src, &inside, "-p", &run, "--exclude", "/out"]).ok().says("3 there already");
    // A match that leads there by a link is not copied into itself.
    let all = bed.file("all.yaml", "name: all\ndirectory_name: t\n");
    fs::create_dir(bed.src.join("t")).expect("a directory");
    std::os::unix::fs::symlink(bed.dest(), bed.src.join("t/loop")).expect("a link");
    fs::create_dir_all(bed.dest()).expect("a directory");
    bed.shuffle(["-p", &all]).code(1).says("leads into the destination");
}

#[test]
fn what_cannot_be_read_is_not_half_there() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    deny(&bed.src.join("a/x/raw/deep/1.csv"));
    let (src, dest) = (bed.src.clone().into_os_string(), bed.dest().into_os_string());
    let words = ["shuffle".into(), src, dest, "-p".into(), run.into()];
    let Some(told) = bed.veinfs_shut_out(&words) else { return };
    let told = told.code(1).says("a/x/raw/deep/1.csv: Permission denied").says("1 not copied");
    assert!(told.stderr.contains("2 matches copied"), "{}", told.stderr);
    assert_eq!(names(bed.dest().join("run")).len(), 2);
    assert!(!bed.dest().join("run/x").exists());
    // A directory that cannot be read may hold matches: not all is done.
    deny(&bed.src.join("b/none"));
    fs::set_permissions(bed.src.join("a/x/raw/deep/1.csv"), fs::Permissions::from_mode(0o644)).expect("a mode");
    bed.veinfs_shut_out(&words).expect("as before").code(3).says("cannot read").says("1 match copied");
}

/// A file system of its own, as long as the test.
struct Tmpfs(PathBuf);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_leaves_whole_matches_alone() {
    if !is_root() {
        return;
    }
    let bed = TestBed::new(&["a/small/data.csv=1", "b/big/data.csv=1", "c/small2/data.csv=1"]);
    fs::write(bed.src.join("b/big/notes.txt"), vec![1; 3 << 20]).expect("a file");
    fs::create_dir(bed.dest()).expect("a directory");
    let options = c"size=1m";
    let mounted = rustix::mount::mount("none", bed.dest(), "tmpfs", rustix::mount::MountFlags::empty(), options);
    if mounted.is_err() {
        eprintln!("SKIP: a tmpfs cannot be mounted");
        return;
    }
    let _tmpfs = Tmpfs(bed.dest());
    let run = bed.file("run.yaml", RUN);
    bed.shuffle(["-p", &run, "-j", "1"]).code(1).says("big/notes.txt: No space left on device").says("1 not copied");
    assert_eq!(names(bed.dest().join("run")), ["small", "small2"]);
    let remount = rustix::mount::MountFlags::empty();
    rustix::mount::mount_remount(bed.dest(), remount, "size=16m").expect("more room");
    bed.shuffle(["-p", &run, "--verify"]).ok().says("1 match copied").says("2 there already");
}

#[test]
fn killed_at_any_point_no_match_is_half_there() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&[] as &[&str]);
    let (matches, files) = (6, 30);
    for number in 0..matches {
        for file in 0..files {
            let path = bed.src.join(format!("g{}/m{number}/raw/d{}/f{file}", number % 2, file % 3));
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            let mut file = fs::File::create(path).expect("a file");
            file.write_all(&vec![number as u8; 20_000 + number * 7000]).expect("some bytes");
        }
        fs::write(bed.src.join(format!("g{}/m{number}/data.csv", number % 2)), "1").expect("a file");
    }
    let run = bed.file("run.yaml", RUN);
    bed.mount(["-p", &run]);
    let view = seen(&bed.mnt.join("run"));
    let whole = |name: &str| -> BTreeMap<PathBuf, Seen> { seen(&bed.mnt.join("run").join(name)) };
    let count =
        |dir: &Path| walkdir::WalkDir::new(dir).into_iter().flatten().filter(|e| e.file_type().is_file()).count();
    // Files as they are, whatever directory they are moved to.
    let inodes = |dir: &Path| -> BTreeSet<(u64, i64, i64)> {
        let files = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file());
        files.filter_map(|file| file.metadata().ok()).map(|m| (m.ino(), m.ctime(), m.ctime_nsec())).collect()
    };
    let total = matches * (files + 1);
    let (mut killed, mut taken_up) = (0, 0);
    for round in 0..14 {
        // Anywhere from the first file to the last.
        let threshold = (round * 7919 + 3) % total;
        let _ = fs::remove_dir_all(bed.dest());
        let mut child =
            bed.shuffling(["-p", &run, "-j", "2"]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("veinfs");
        let mut ended = false;
        eventually("enough files are there", || {
            ended = child.try_wait().expect("a child").is_some();
            ended || count(&bed.dest()) >= threshold
        });
        if !ended {
            child.kill().expect("a child to end");
        }
        killed += usize::from(child.wait().expect("its status").code().is_none());
        for name in names(bed.dest().join("run")).iter().filter(|name| !name.starts_with(".veinfs-part-")) {
            same(&seen(&bed.dest().join("run").join(name)), &whole(name));
        }
        let parts = names(bed.dest().join("run")).into_iter().filter(|name| name.starts_with(".veinfs-part-"));
        let left: BTreeSet<_> = parts.flat_map(|part| inodes(&bed.dest().join("run").join(part))).collect();
        bed.shuffle(["-p", &run, "--verify"]).ok();
        taken_up += left.intersection(&inodes(&bed.dest())).count();
        let done = seen(&bed.dest().join("run"));
        assert_eq!(
            done.keys().collect::<Vec<_>>(),
            view.keys().collect::<Vec<_>>(),
            "nothing is left of the killed run"
        );
    }
    assert!(killed >= 7, "{killed} of 14 were killed in the middle");
    assert!(taken_up > 0, "what was done is not done again");
}

#[test]
fn one_copies_to_a_place_at_a_time() {
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    fs::create_dir(bed.dest()).expect("a directory");
    let dir = fs::File::open(bed.dest()).expect("a directory");
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    bed.shuffle(["-p", &run]).code(1).says("another `veinfs shuffle` copies to");
    bed.shuffle(["-p", &run, "--dry-run"]).ok();
    drop(dir);
    bed.shuffle(["-p", &run]).ok();
}

#[test]
fn many_matches_need_few_descriptors() {
    let lines: Vec<String> = (0..300).map(|number| format!("m{number}/data.csv=")).collect();
    let bed = TestBed::new(&lines);
    let run = bed.file("run.yaml", RUN);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_veinfs"), "shuffle"]);
    limited.args([&bed.src, &bed.dest()]).args(["-p", &run, "-j", "4"]);
    Output::of(&mut limited).ok().says("300 matches copied");
}

#[test]
fn access_lists_are_kept_and_none_are_inherited() {
    if !has("setfacl") || !has("getfacl") {
        return;
    }
    let bed = runs();
    let run = bed.file("run.yaml", RUN);
    let set = |args: &[&str], path: &Path| Output::of(Command::new("setfacl").args(args).arg(path));
    if set(&["-m", "u:1234:r"], &bed.src.join("a/x/data.csv")).code != 0 {
        eprintln!("SKIP: no access lists here");
        return;
    }
    fs::create_dir(bed.dest()).expect("a directory");
    set(&["-d", "-m", "u:4321:rwx"], &bed.dest()).ok();
    bed.shuffle(["-p", &run, "--verify"]).ok();
    let list = |path: PathBuf| Output::of(Command::new("getfacl").args(["-n", "-p"]).arg(path)).ok().text();
    assert!(list(bed.dest().join("run/x/data.csv")).contains("user:1234:r--"));
    for path in ["run/x/data.csv", "run/x/notes.txt", "run/x/raw", "run/x"] {
        assert!(!list(bed.dest().join(path)).contains("4321"), "{path}");
    }
}

/// A source that changes while it is read.
#[derive(Debug)]
struct RestlessSource {
    inner: LocalSource,
    /// How often a file grows when it was looked at.
    grows: AtomicU32,
    /// A file that comes when another is opened.
    comes: Mutex<Option<PathBuf>>,
}

impl Source for RestlessSource {
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
        if let Some(path) = self.comes.lock().take() {
            fs::write(path, "late")?;
        }
        self.inner.open_file(dir, name, follow)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        let stat = self.inner.stat_file(file)?;
        let more = |left: u32| left.checked_sub(1);
        if let File::Local(fd) = file
            && self.grows.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            fs::OpenOptions::new().append(true).open(path)?.write_all(b"+")?;
        }
        Ok(stat)
    }
}

/// Copies the one match of a restless source; why it failed, if it did.
fn copy_restless(bed: &TestBed, grows: u32, comes: Option<&str>) -> Option<String> {
    let text = RUN.as_bytes();
    let patterns = load_text(text, Format::Yaml, "test", "run").expect("a right pattern");
    let automaton = Arc::new(compile(&patterns).expect("a right pattern"));
    let comes = Mutex::new(comes.map(|path| bed.src.join(path)));
    let inner = LocalSource::new(&bed.src);
    let source = RestlessSource { inner, grows: AtomicU32::new(grows), comes };
    let name: Box<[u8]> = Box::from(&b"src"[..]);
    let root = bed.src.clone();
    let sources = [NamedSource { name: name.clone(), root_name: name, root, source: Arc::new(source) }];
    let dest = Dest::open(&bed.dest(), &sources, &Exclude::default(), false).expect("a destination");
    let found = Found {
        pattern: PatternId(0),
        path: RelPath::from_bytes(&b"x"[..]),
        captures: Default::default(),
        missing: Vec::new(),
    };
    let place = vec![Box::from(&b"run"[..]), Box::from(&b"x"[..])];
    let failed = Mutex::new(None);
    let shuffle = Shuffle {
        automaton: &automaton,
        sources: &sources,
        walked: &[WalkOptions::default()],
        scratch: &ScratchPool::new(Arc::clone(&automaton)),
        dest: &dest,
        options: ShuffleOptions {
            symlinks: Symlinks::Follow,
            overwrite: true,
            dry_run: false,
            verify: false,
            threads: 2,
        },
        copied: &Copied::default(),
        report: &|_, outcome| *failed.lock() = outcome.failure.map(|failure| failure.to_string()),
    };
    shuffle.run(&[Job { source: 0, found, place }]).expect("threads");
    failed.into_inner()
}

#[test]
fn what_changes_while_it_is_copied_is_not_half_copied() {
    let bed = TestBed::new(&["x/data.csv=1,2"]);
    let copy = bed.dest().join("run/x");
    // Once is made good, again and again is not.
    assert_eq!(copy_restless(&bed, 1, None), None);
    assert_eq!(fs::read(copy.join("data.csv")).expect("a file"), b"1,2+");
    fs::remove_dir_all(bed.dest()).expect("a directory");
    let why = copy_restless(&bed, 1000, None).expect("a failure");
    assert!(why.ends_with("run/x/data.csv: changed while it was copied, twice; try again when it is at rest"), "{why}");
    assert_eq!(names(bed.dest().join("run")), [] as [&str; 0]);
    // A file that comes meanwhile would be missing in the copy; one that is not shown makes no difference.
    set_mtime(&bed.src.join("x"), 1_000_000_000, 0);
    let why = copy_restless(&bed, 0, Some("x/late.txt")).expect("a failure");
    assert!(why.contains("src/x: changed while it was copied"), "{why}");
    assert_eq!(names(bed.dest().join("run")), [] as [&str; 0]);
    set_mtime(&bed.src.join("x"), 1_000_000_000, 0);
    assert_eq!(copy_restless(&bed, 0, Some("x/late.bin")), None);
    assert_eq!(names(&copy), ["data.csv", "late.txt"]);
}
