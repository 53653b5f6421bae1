//! Odd names, large and deep trees, what cannot be read, links in circles: on real mounts and in scans.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, RawDir};
use serde_json::Value;

use crate::bed::{Output, TestBed, can_mount, eventually, is_root, names, ndjson, path_of};

const RUN: &str = "name: run\nfiles: [data.csv]\n";

/// The `view` of each match by its `relpath`.
fn views(found: &[Value]) -> Vec<(String, String)> {
    let text = |found: &Value, key: &str| found[key].as_str().expect("text").to_owned();
    let mut views: Vec<(String, String)> =
        found.iter().map(|found| (text(found, "relpath"), text(found, "view"))).collect();
    views.sort();
    views
}

fn listing(dir: &Path) -> BTreeSet<Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|entry| entry.expect("an entry").file_name().into_vec()).collect()
}

#[test]
fn names_that_are_no_text_and_names_as_long_as_can_be() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&[] as &[&str]);
    let long = [b"n".repeat(250), "ü".as_bytes().to_vec(), b"end".to_vec()].concat();
    let odd: [&[u8]; 6] = [b"\xff\xfe", b"a\nb", b"\xc3(", b" ", b"-rf *", &long];
    for name in odd {
        for parent in ["x", "y"] {
            let dir = bed.src.join(parent).join(path_of(name));
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(dir.join("data.csv"), name).expect("a file");
            fs::write(dir.join(path_of(name)), name).expect("a file");
        }
    }
    let run = bed.file("run.yaml", "name: run\nfiles: [data.csv, '*']\n");
    bed.mount(["-p", &run]);
    let view = bed.mnt.join("run");
    let shown = listing(&view);
    assert_eq!(shown.len(), 12);
    for name in odd {
        assert!(shown.contains(name), "{}", name.escape_ascii());
        assert_eq!(fs::read(view.join(path_of(name)).join(path_of(name))).expect("a file"), name);
    }
    let suffixed: Vec<&Vec<u8>> = shown.iter().filter(|name| !odd.contains(&name.as_slice())).collect();
    assert_eq!(suffixed.len(), 6);
    for name in suffixed {
        let cut = name.len() - 7;
        assert_eq!(name[cut], b'~', "{}", name.escape_ascii());
        assert!(name.len() <= 255 && odd.iter().any(|odd| odd.starts_with(&name[..cut])), "{}", name.escape_ascii());
        let own = fs::read(view.join(path_of(name)).join("data.csv")).expect("a file");
        let below = bed.src.join("y").join(path_of(&own));
        assert_eq!(fs::metadata(below.join("data.csv")).expect("it").len(), own.len() as u64);
    }
    // The names that scan foretells, byte for byte.
    use base64::Engine;
    let found = bed.scan(["-p", &run, "--json"]).ok().ndjson();
    let foretold: BTreeSet<Vec<u8>> = found
        .iter()
        .map(|found| match found["view_bytes"].as_str() {
            Some(bytes) => base64::engine::general_purpose::STANDARD.decode(bytes).expect("base64"),
            None => found["view"].as_str().expect("text").as_bytes().to_vec(),
        })
        .map(|view| view.strip_prefix(b"run/").expect("below the pattern").to_vec())
        .collect();
    assert_eq!(foretold, shown);
    // A file named by a glob of characters, not bytes.
    let one = bed.file("one.yaml", "name: one\ndirectory_name: '??'\nfiles: ['??']\n");
    assert_eq!(bed.scan(["-p", &one, "--count"]).ok().text(), "4\n", "\\xff\\xfe and \\xc3( twice");
}

/// All names of a directory with their positions.
fn entries(dir: &OwnedFd) -> Vec<(OsString, u64)> {
    let mut buffer = Vec::with_capacity(8192);
    let mut dir = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut all = Vec::new();
    while let Some(entry) = dir.next() {
        let entry = entry.expect("an entry");
        all.push((OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(), entry.next_entry_cookie()));
    }
    all
}

#[test]
fn a_directory_of_a_hundred_thousand_entries() {
    if !can_mount() {
        return;
    }
    const COUNT: usize = 100_000;
    let bed = TestBed::new(&["big/data.csv=x"]);
    let big = bed.src.join("big");
    for number in 1..COUNT {
        File::create(big.join(format!("file {number}"))).expect("a file");
    }
    let (run, whole) =
        (bed.file("run.yaml", "name: run\nfiles: [data.csv, {glob: 'file*', min: 99999}]\n"), "whole.yaml");
    let whole = bed.file(whole, "name: whole\ndirectory_name: big\n");
    assert_eq!(bed.scan(["-p", &run, "-p", &whole, "--count"]).ok().text(), "1 run\n1 whole\n");
    bed.mount(["-p", &run, "-p", &whole]);
    for pattern in ["run", "whole"] {
        let view = bed.mnt.join(pattern).join("big");
        assert_eq!(fs::read_dir(&view).expect("a directory").count(), COUNT);
        let dir = rustix::fs::open(&view, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("a directory");
        let all = entries(&dir);
        assert_eq!(all.len(), COUNT + 2);
        let unique: BTreeSet<&OsString> = all.iter().map(|(name, _)| name).collect();
        assert_eq!(unique.len(), COUNT + 2, "each once");
        // From any position on, the rest follows: what telldir said holds for seekdir.
        for at in [0, 1, 2, COUNT / 3, COUNT - 1, COUNT + 1] {
            rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(all[at].1)).expect("a position");
            assert_eq!(entries(&dir), all[at + 1..], "{pattern} from {at}");
        }
    }
    assert_eq!(fs::metadata(bed.mnt.join("run/big/file 99999")).expect("a file").len(), 0);
    assert!(!bed.mnt.join("run/big/file 100000").exists());
}

/// Opens a way of directories one by one: its path may be longer than the system takes.
fn descend(root: &Path, names: &[String]) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = rustix::fs::open(root, flags, Mode::empty()).expect("the root");
    for (depth, name) in names.iter().enumerate() {
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty()).unwrap_or_else(|e| panic!("at {depth}: {e}"));
    }
    dir
}

#[test]
fn a_tree_a_thousand_deep() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["top/"]);
    let way: Vec<String> = (0..1000).map(|depth| format!("level-{depth:04}")).collect();
    let mut dir = rustix::fs::open(bed.src.join("top"), OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    for name in &way {
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).expect("a directory");
        dir = rustix::fs::openat(&dir, name, OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    }
    let file = rustix::fs::openat(&dir, "data.csv", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR).expect("a file");
    File::from(file).write_all(b"at the bottom").expect("its content");
    let run = bed.file("run.yaml", RUN);
    let found = bed.scan(["-p", &run]).ok();
    assert_eq!(found.stderr, "");
    assert_eq!(found.text().matches("level-").count(), 1000);
    let whole = bed.file("whole.yaml", "name: whole\ndirectory_name: top\n");
    let deep = bed.file("deep.yaml", "name: deep\ndirectory_name: top\nfiles: ['**/data.csv']\n");
    bed.mount(["-p", &run, "-p", &whole, "-p", &deep]);
    let read = |dir: &OwnedFd| {
        let file = rustix::fs::openat(dir, "data.csv", OFlags::RDONLY, Mode::empty()).expect("a file");
        std::io::read_to_string(File::from(file)).expect("its content")
    };
    for view in ["whole/top", "deep/top"] {
        let bottom = descend(&bed.mnt.join(view), &way);
        assert_eq!(read(&bottom), "at the bottom", "{view}");
        assert_eq!(entries(&bottom).len(), 3, "{view}");
    }
    // The match itself lies deeper than a path can name.
    let view = bed.mnt.join("run");
    assert_eq!(names(&view), ["level-0999"]);
    assert_eq!(read(&descend(&view, &way[999..])), "at the bottom");
    if crate::bed::has("find") {
        let mut find = std::process::Command::new("timeout");
        find.args(["60", "find"]).arg(bed.mnt.join("whole")).args(["-name", "data.csv", "-printf", "%d"]);
        assert_eq!(Output::of(&mut find).ok().text(), "1002");
    }
}

#[test]
fn a_match_that_looks_four_thousand_levels_deep() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["top/"]);
    let mut dir = rustix::fs::open(bed.src.join("top"), OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    for _ in 0..4000 {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).expect("a directory");
        dir = rustix::fs::openat(&dir, "d", OFlags::DIRECTORY, Mode::empty()).expect("a directory");
    }
    rustix::fs::openat(&dir, "data.csv", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR).expect("a file");
    bed.mount(["-p", &bed.file("deep.yaml", "name: deep\ndirectory_name: top\nfiles: ['**/data.csv']\n")]);
    let names: Vec<String> = vec!["d".to_owned(); 10];
    assert_eq!(entries(&descend(&bed.mnt.join("deep/top"), &names)).len(), 3);
    assert_eq!(bed.status()["matches"], 1, "the daemon lives");
}

#[test]
fn what_an_ordinary_user_may_not_read_is_said_and_the_rest_is_served() {
    if !can_mount() || !is_root() || !crate::bed::has("fusermount3") {
        return;
    }
    const NOBODY: u32 = 65534;
    let bed = TestBed::new(&["a/data.csv=1", "shut/b/data.csv=2", "half/data.csv=3", "half/deep/x=", "c/data.csv=4"]);
    let pattern = "name: run\nfiles: [data.csv]\noptional_directories: [{directory_name: deep}]\n";
    let run = bed.file("run.yaml", pattern);
    for shut in ["shut", "half/deep"] {
        fs::set_permissions(bed.src.join(shut), Permissions::from_mode(0o700)).expect("a mode");
    }
    fs::set_permissions(bed.src.join("c/data.csv"), Permissions::from_mode(0o600)).expect("a mode");
    std::os::unix::fs::chown(&bed.mnt, Some(NOBODY), Some(NOBODY)).expect("an owner");
    let as_nobody = |words: &[&OsStr]| Output::of(bed.command(words).uid(NOBODY).gid(NOBODY));
    let words = |words: &[&str]| words.iter().map(|word| OsString::from(*word)).collect::<Vec<_>>();
    let (src, mnt) = (bed.src.to_str().expect("text"), bed.mnt.to_str().expect("text"));
    let run_as_nobody = |args: &[&str]| as_nobody(&words(args).iter().map(OsString::as_os_str).collect::<Vec<_>>());

    let found = run_as_nobody(&["scan", src, "-p", &run]).code(3);
    assert_eq!(found.lines(), ["a", "c", "half"].map(|name| bed.src.join(name).to_str().expect("text").to_owned()));
    assert!(found.stderr.contains(&format!("cannot read {src}/shut: Permission denied")), "{}", found.stderr);

    // The device is everyone's on most machines; where it is not, for a moment.
    let device = Path::new("/dev/fuse");
    let mode = fs::metadata(device).expect("the device").permissions();
    struct Restore<'a>(&'a Path, Permissions);
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            let _ = fs::set_permissions(self.0, self.1.clone());
        }
    }
    let restore = Restore(device, mode);
    fs::set_permissions(device, Permissions::from_mode(0o666)).expect("a mode");
    let mounted = run_as_nobody(&["mount", "--wait", src, mnt, "-p", &run]);
    drop(restore);
    if mounted.code != 0 && std::env::var_os("VEINFS_REQUIRE_FUSE").is_none() {
        eprintln!("SKIP: an ordinary user cannot mount here: {}", mounted.stderr);
        return;
    }
    mounted.ok();
    bed.keep(&bed.mnt);
    // Nobody else, root included, sees what is in a mount without allow_other.
    let script = "import os, sys\nos.setgid(65534); os.setuid(65534)\nos.chdir(sys.argv[1])\n\
        print(sorted(os.listdir('run')), sorted(os.listdir('run/half')), open('run/a/data.csv').read())\n\
        for path in ['run/c/data.csv', 'run/half/deep']:\n\
        \x20 try:\n\x20   os.listdir(path) if path.endswith('deep') else open(path)\n\
        \x20 except PermissionError: print('denied')\n\
        print(open('.veinfs/errors.ndjson').read())\n";
    let script = bed.file("look.py", script);
    if crate::bed::has("python3") {
        let mut python = std::process::Command::new("timeout");
        let seen = Output::of(python.args(["60", "python3", &script, mnt])).ok().text();
        let mut lines = seen.lines();
        assert_eq!(lines.next(), Some("['a', 'c', 'half'] ['data.csv', 'deep'] 1"));
        assert_eq!((lines.next(), lines.next()), (Some("denied"), Some("denied")), "{seen}");
        let errors = ndjson(lines.collect::<Vec<_>>().join("\n").as_bytes());
        assert!(errors.iter().any(|e| e["kind"] == "unread" && e["path"] == format!("{src}/shut")), "{errors:?}");
    }
    run_as_nobody(&["status", mnt]).ok();
    run_as_nobody(&["unmount", mnt]).ok();
    assert!(!bed.is_mounted());
}

#[test]
fn links_in_circles_end() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&[
        "run/data.csv=1",
        "run/self -> self",
        "run/here -> .",
        "run/sub/up -> ..",
        "run/sub/x=2",
        "run/one/to-two -> ../two",
        "run/two/to-one -> ../one",
        "run/a -> b",
        "run/b -> a",
        "run/chain -> link1",
        "run/link1 -> data.csv",
        "run/beyond -> ../other",
        "other/back -> ../run",
        "other/file=3",
        "run/fifo|",
    ]);
    std::os::unix::net::UnixListener::bind(bed.src.join("run/socket")).expect("a socket");
    let (run, whole) = (bed.file("run.yaml", RUN), bed.file("whole.yaml", "name: whole\ndirectory_name: run\n"));
    let deep = bed.file("deep.yaml", "name: deep\ndirectory_name: run\nfiles: ['**/x']\n");
    for follow in [None, Some("--follow")] {
        let args = ["-p", &run, "-p", &whole, "-p", &deep].into_iter().chain(follow);
        let found = bed.scan(args.clone()).ok();
        assert!(found.lines().len() < 30, "{}", found.text());
        bed.mount(args);
        for pattern in ["whole", "deep"] {
            let mut find = std::process::Command::new("timeout");
            let found = Output::of(find.args(["60", "find"]).arg(bed.mnt.join(pattern))).ok();
            assert!(found.lines().len() < 200, "{pattern}: {}", found.text());
        }
        let view = bed.mnt.join("whole/run");
        let kind = |name: &str| fs::symlink_metadata(view.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        for link in ["self", "here", "sub/up", "a", "b", "one/to-two/to-one", "beyond/back"] {
            assert!(kind(link).is_symlink(), "{link}");
        }
        assert_eq!(fs::read_to_string(view.join("chain")).expect("a file"), "1");
        assert!(kind("chain").is_file() && kind("one/to-two").is_dir() && kind("beyond").is_dir());
        assert_eq!(fs::read_to_string(view.join("beyond/file")).expect("a file"), "3");
        use std::os::unix::fs::FileTypeExt;
        assert!(kind("fifo").file_type().is_fifo() && kind("socket").file_type().is_socket());
        // Neither is a file to a pattern, and no reader waits for a writer.
        assert_eq!(names(bed.mnt.join("run").join("run")), ["data.csv"]);
        bed.unmount();
    }
}

#[test]
fn a_pattern_of_five_hundred_subpatterns() {
    if !can_mount() {
        return;
    }
    let lines: Vec<String> =
        (0..500).flat_map(|n| [format!("set/part{n}/f{n}={n}"), format!("set/part{n}/other=")]).collect();
    let bed = TestBed::new(&lines);
    fs::create_dir(bed.src.join("partial")).expect("a directory");
    let parts: Vec<Value> = (0..500)
        .map(|n| serde_json::json!({"directory_name": format!("part{n}"), "files": [format!("f{n}")]}))
        .collect();
    let pattern = serde_json::json!({"name": "set", "directories": parts});
    let set = bed.file("set.json", &pattern.to_string());
    assert_eq!(bed.scan(["-p", &set]).ok().lines(), [bed.src.join("set").to_str().expect("text")]);
    bed.mount(["-p", &set]);
    let view = bed.mnt.join("set/set");
    assert_eq!(fs::read_dir(&view).expect("a directory").count(), 500);
    for n in [0, 17, 499] {
        assert_eq!(names(view.join(format!("part{n}"))), [format!("f{n}")]);
    }
    fs::remove_file(bed.src.join("set/part250/f250")).expect("removed");
    assert_eq!(bed.scan(["-p", &set, "--count"]).ok().text(), "0\n");
}

#[test]
fn three_hundred_matches_of_one_name() {
    if !can_mount() {
        return;
    }
    let lines: Vec<String> = (0..300).map(|n| format!("d{n:03}/run/data.csv={n}")).collect();
    let bed = TestBed::new(&lines);
    let run = bed.file("run.yaml", RUN);
    let foretold = views(&bed.scan(["-p", &run, "--json"]).ok().ndjson());
    assert_eq!(foretold[0], ("d000/run".to_owned(), "run/run".to_owned()), "the first is plain");
    for (relpath, view) in &foretold[1..] {
        assert!(view.strip_prefix("run/run~").is_some_and(|hash| hash.len() == 6), "{relpath}: {view}");
    }
    let mut wanted: Vec<String> = foretold.iter().map(|(_, view)| view.replace("run/run", "run")).collect();
    wanted.sort();
    for _ in 0..2 {
        bed.mount(["-p", &run]);
        assert_eq!(names(bed.mnt.join("run")), wanted);
        for (n, (_, view)) in foretold.iter().enumerate() {
            assert_eq!(fs::read_to_string(bed.mnt.join(view).join("data.csv")).expect("a file"), n.to_string());
        }
        bed.unmount();
    }
    // A suffix depends on the match alone: with others gone it is the same.
    fs::remove_dir_all(bed.src.join("d100")).expect("removed");
    let fewer = views(&bed.scan(["-p", &run, "--json"]).ok().ndjson());
    assert!(fewer.iter().all(|one| foretold.contains(one)));
}

#[test]
fn layouts_make_levels() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&[
        "sub-01/ses-a/run1.d/data.csv=1",
        "sub-01/ses-b/run1.d/data.csv=2",
        "sub-02/ses-a/run1.d/data.csv=3",
        "sub-02/ses-a/run1.d/data.csv.d/data.csv=4",
    ]);
    let pattern = "name: sub\ndirectory_name: sub-<sub>\ncaptures: {sub: '\\d+', none: x}\n\
        directories: [{directory_name: 'ses-*'}]\nlayout: '<sub>/<none>/<.name>'\n";
    let sub = bed.file("sub.yaml", pattern);
    let run = bed.file("run.yaml", RUN);
    bed.mount(["-p", &sub, "-p", &run]);
    assert_eq!(names(bed.mnt.join("sub")), ["01", "02"]);
    assert_eq!(names(bed.mnt.join("sub/01/_")), ["sub-01"]);
    assert_eq!(fs::read_to_string(bed.mnt.join("sub/02/_/sub-02/ses-a/run1.d/data.csv")).expect("a file"), "3");
    let mut buffer = [0; 100];
    let length = rustix::fs::getxattr(bed.mnt.join("sub/01/_/sub-01"), "user.veinfs.captures", &mut buffer[..]);
    assert_eq!(ndjson(&buffer[..length.expect("an xattr")]), [serde_json::json!({"sub": "01", "none": null})]);
    bed.unmount();

    // One match inside the folder of another.
    bed.mount(["-p", &run, "--layout", "<.path>"]);
    let view = bed.mnt.join("run");
    assert_eq!(names(&view), ["sub-01", "sub-02"]);
    let levels = names(view.join("sub-02/ses-a"));
    assert_eq!(levels.len(), 2, "{levels:?}");
    assert_eq!(levels[0], "run1.d");
    assert!(levels[1].starts_with("run1.d~"), "a level keeps its name: {levels:?}");
    assert_eq!(fs::read_to_string(view.join("sub-02/ses-a/run1.d/data.csv.d/data.csv")).expect("a file"), "4");
    assert_eq!(fs::read_to_string(view.join("sub-02/ses-a").join(&levels[1]).join("data.csv")).expect("a file"), "3");
    // Inode numbers of levels and what is in them agree, upwards too.
    let level = view.join("sub-01/ses-a");
    let ino = |path: &Path| fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino();
    assert_eq!(ino(&level.join("run1.d/..")), ino(&level));
    assert_eq!(ino(&level.join("..")), ino(&view.join("sub-01")));
    let foretold = bed.scan(["-p", &run, "--json", "--layout", "<.path>"]).ok().ndjson();
    for found in foretold {
        assert!(bed.mnt.join(found["view"].as_str().expect("text")).join("data.csv").exists(), "{found}");
    }
}

#[test]
fn sources_of_one_name_and_sources_within_each_other() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["x/disk/run/data.csv=1", "y/disk/run/data.csv=2", "y/disk/only/data.csv=3"]);
    let run = bed.file("run.yaml", RUN);
    let (one, two, all) = (bed.src.join("x/disk"), bed.src.join("y/disk"), bed.src.join("y"));
    let named = OsString::from(format!("nas={}", all.display()));
    let sources = [one.as_os_str(), two.as_os_str(), &named];
    bed.mount_at(&sources, &bed.mnt, ["-p", &run, "--layout", "<.source>/<.name>"]).ok();
    assert_eq!(names(bed.mnt.join("run")), ["disk", "disk-2", "nas"]);
    assert_eq!(names(bed.mnt.join("run/disk")), ["run"]);
    assert_eq!(names(bed.mnt.join("run/disk-2")), ["only", "run"]);
    assert_eq!(names(bed.mnt.join("run/nas")), ["only", "run"]);
    let ino = |path: &str| fs::metadata(bed.mnt.join("run").join(path)).expect(path).ino();
    assert_eq!(ino("nas/only/data.csv"), ino("disk-2/only/data.csv"), "one file");
    assert_ne!(ino("nas/only"), ino("disk-2/only"));
    bed.unmount();
    bed.mount_at(&sources, &bed.mnt, ["-p", &run]).ok();
    assert_eq!(names(bed.mnt.join("run")).len(), 5);
    assert_eq!(fs::read_to_string(bed.mnt.join("run/run/data.csv")).expect("a file"), "1", "source `disk` is first");
}

#[test]
fn views_of_each_kind() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["a/run/data.csv=1", "a/run/other=2", "a/run/deep/x=3", "b/run/data.csv=4"]);
    let run = bed.file("run.yaml", RUN);
    bed.mount(["-p", &run, "--view", "all"]);
    assert_eq!(names(bed.mnt.join("run/run")), ["data.csv", "deep", "other"]);
    assert_eq!(fs::read_to_string(bed.mnt.join("run/run/deep/x")).expect("a file"), "3");
    bed.unmount();
    bed.mount(["-p", &run, "--view", "link"]);
    let shown = names(bed.mnt.join("run"));
    for (name, real) in shown.iter().zip(["a/run", "b/run"]) {
        let link = bed.mnt.join("run").join(name);
        let meta = fs::symlink_metadata(&link).expect("a link");
        let text = fs::read_link(&link).expect("a link");
        assert_eq!(text, bed.src.join(real));
        assert_eq!(meta.len(), text.as_os_str().len() as u64);
        assert!(link.join("data.csv").exists());
    }
    let kinds: Vec<bool> = fs::read_dir(bed.mnt.join("run"))
        .expect("a directory")
        .map(|entry| entry.and_then(|entry| entry.file_type()).expect("an entry").is_symlink())
        .collect();
    assert_eq!(kinds, [true, true]);
}

#[test]
fn links_are_followed_kept_or_skipped() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&[
        "run/data.csv=1",
        "run/file -> ../shared/x",
        "run/dir -> ../shared",
        "run/dangling -> ../later",
        "run/deep/up -> ../data.csv",
        "shared/x=2",
    ]);
    let whole = bed.file("whole.yaml", "name: whole\ndirectory_name: run\n");
    let view = bed.mnt.join("whole/run");
    let link = |name: &str| fs::symlink_metadata(view.join(name)).is_ok_and(|meta| meta.is_symlink());
    bed.mount(["-p", &whole]);
    assert!(link("dangling") && !link("file") && !link("dir") && !link("deep/up"));
    assert_eq!(fs::read_to_string(view.join("file")).expect("a file"), "2");
    assert_eq!(fs::read_to_string(view.join("dir/x")).expect("a file"), "2");
    // What a dangling link says is where its target would be.
    assert_eq!(fs::read_link(view.join("dangling")).expect("a link"), bed.src.join("run/../later"));
    fs::write(bed.src.join("later"), "now").expect("a file");
    eventually("the link resolves", || fs::read_to_string(view.join("dangling")).is_ok_and(|text| text == "now"));
    bed.unmount();
    bed.mount(["-p", &whole, "--symlinks", "keep"]);
    for (name, text) in [("file", Some("2")), ("deep/up", Some("1")), ("dangling", Some("now")), ("dir", None)] {
        assert!(link(name), "{name}");
        if let Some(text) = text {
            assert_eq!(fs::read_to_string(view.join(name)).expect("it resolves"), text, "{name}");
        }
    }
    assert_eq!(names(view.join("dir")), ["x"]);
    bed.unmount();
    bed.mount(["-p", &whole, "--symlinks", "skip"]);
    assert_eq!(names(&view), ["data.csv", "deep"]);
    assert_eq!(names(view.join("deep")), [] as [&str; 0]);
}

#[test]
fn pruned_and_opaque() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["a/data.csv=", "a/x/b/data.csv=", "a/x/b/c/data.csv=", "d/data.csv=", "d/more/y="]);
    let run = bed.file("run.yaml", RUN);
    let pruned = bed.file("pruned.yaml", "name: pruned\nfiles: [data.csv]\nprune: true\n");
    let opaque = bed.file("opaque.yaml", "name: opaque\ndirectory_name: d\nfiles: [data.csv]\nopaque: true\n");
    bed.mount(["-p", &run, "-p", &pruned, "-p", &opaque]);
    assert_eq!(names(bed.mnt.join("run")), ["a", "b", "c", "d"]);
    assert_eq!(names(bed.mnt.join("pruned")), ["a", "d"]);
    assert_eq!(names(bed.mnt.join("opaque")), ["d"]);
    assert_eq!(names(bed.mnt.join("opaque/d")), ["data.csv", "more"]);
    assert_eq!(names(bed.mnt.join("run/d")), ["data.csv"]);
    let limited = bed.scan(["-p", &run, "--max-depth", "2"]).ok();
    assert_eq!(limited.lines().len(), 2);
    let excluded = bed.scan(["-p", &run, "--exclude", "a/x"]).ok();
    assert_eq!(excluded.lines().len(), 2);
}
