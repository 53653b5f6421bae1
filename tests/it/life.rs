//! A mount's life: how it begins, what it survives, and how it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use rustix::io::Errno;
use veinfs::mounts::Exit;

use crate::bed::{LIMIT, Output, TestBed, can_mount, eventually, is_root, names};

const RUN: &str = "name: run\nfiles: [data.csv]\n";

fn bed() -> (TestBed, String) {
    let bed = TestBed::new(&["runs/a/data.csv=1,2", "runs/b/data.csv=3,4", "file=x"]);
    let run = bed.file("run.yaml", RUN);
    (bed, run)
}

fn unmount(bed: &TestBed, args: &[&str]) -> Output {
    let mut words = vec!["unmount", bed.mnt.to_str().expect("text")];
    words.extend(args);
    bed.veinfs(words)
}

fn status(bed: &TestBed) -> Output {
    bed.veinfs([OsStr::new("status"), bed.mnt.as_os_str()])
}

#[test]
fn what_cannot_be_mounted_on_is_refused() {
    if !can_mount() {
        return;
    }
    let (bed, run) = bed();
    let source = [bed.src.as_os_str()];
    let at = |name: &str, args: &[&str]| {
        let args: Vec<&str> = ["-p", &run].iter().chain(args).copied().collect();
        bed.mount_at(&source, &bed.dir.join(name), args)
    };
    let missing = at("no/such", &[]).code(1);
    assert!(missing.stderr.contains("mkdir -p") && missing.stderr.contains("no/such"), "{}", missing.stderr);
    at("run.yaml", &[]).code(1).says("is not a directory");
    let full = bed.dir.join("full");
    fs::create_dir(&full).expect("a directory");
    fs::write(full.join("something"), "").expect("a file");
    at("full", &[]).code(1).says("is not empty").says("-o nonempty");
    assert_eq!(names(&full), ["something"]);
    at("full", &["-o", "nonempty"]).ok();
    assert_eq!(names(&full), ["run"]);

    bed.mount(["-p", &run]);
    let again = bed.try_mount(["-p", &run]).code(1);
    assert!(again.stderr.contains("already mounted by veinfs"), "{}", again.stderr);
    assert_eq!(again.stderr.lines().count(), 1, "one clear line: {}", again.stderr);
    assert_eq!(names(bed.mnt.join("run")), ["a", "b"], "the first goes on");
    bed.unmount();
    unmount(&bed, &[]).code(1).says("nothing is mounted at");
    status(&bed).code(1).says("no veinfs mount is here");
}

#[test]
fn mistakes_are_found_before_anything_is_mounted() {
    if !can_mount() {
        return;
    }
    let (bed, run) = bed();
    let broken = bed.file("broken.yaml", "file: [x]\n");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["-p", &broken], 2, "did you mean `files`?"),
        (&["-p", "cargo-crat"], 2, "did you mean `cargo-crate`?"),
        (&["-p", &run, "--layout", "<.nam>"], 2, "did you mean `<.name>`?"),
        (&["-p", &run, "--exclude", "[a"], 2, "--exclude"),
        (&["-p", &run, "-o", "alow_other"], 2, "did you mean `allow_other`?"),
        (&["-p", &run, "-o", "ro,noexce"], 2, "did you mean `noexec`?"),
        (&["-p", &run, "-o", "attr_timeout=soon"], 2, "give seconds"),
        (&["-p", &run, "--attr-timeout", "soon"], 2, "give seconds"),
        (&["-p", &run, "-p", &run], 2, "run"),
        (&["-p", &run, "--log", "/no/such/dir/log"], 1, "/no/such/dir/log"),
    ];
    for (args, code, says) in cases {
        let output = bed.try_mount(*args);
        assert_eq!(output.code, *code, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(says), "{args:?}: {}", output.stderr);
        assert!(!bed.is_mounted(), "{args:?}");
    }
    let nowhere = bed.dir.join("nowhere");
    bed.mount_at(&[nowhere.as_os_str()], &bed.mnt, ["-p", &run]).code(2).says("there is no such directory");
    // What fstab holds for others is taken.
    bed.mount(["-p", &run, "-o", "ro,noauto,nofail,_netdev,x-systemd.automount"]);
    assert_eq!(names(bed.mnt.join("run")), ["a", "b"]);
}

#[test]
fn a_dead_mount_is_seen_cleared_and_mounted_over() {
    if !can_mount() || !is_root() {
        return;
    }
    let (bed, run) = bed();
    let die = || {
        bed.mount(["-p", &run]);
        let pid = bed.daemon();
        let exit = Exit::of(pid.as_raw().unsigned_abs()).expect("a process");
        kill(pid, Signal::SIGKILL).expect("a signal");
        assert!(exit.wait(LIMIT).expect("a process"));
        assert!(bed.is_mounted());
        let gone = fs::read_dir(&bed.mnt).expect_err("nobody answers");
        assert_eq!(gone.raw_os_error(), Some(Errno::NOTCONN.raw_os_error()));
    };
    die();
    let said = status(&bed).code(1);
    assert!(said.text().contains("dead; `veinfs unmount "), "{}", said.text());
    let all = bed.veinfs(["status", "--json"]).ndjson();
    let ours = all.iter().find(|one| one["mountpoint"] == bed.mnt.to_str().expect("text")).expect("ours");
    assert_eq!(ours["state"], "dead");
    bed.unmount();
    assert_eq!(names(&bed.mnt), [] as [&str; 0]);
    die();
    bed.mount(["-p", &run]);
    assert_eq!(names(bed.mnt.join("run")), ["a", "b"]);
    bed.unmount();
    assert!(!bed.is_mounted(), "nothing was left below");
}

#[test]
fn a_busy_mount_stays_and_says_who_uses_it() {
    if !can_mount() {
        return;
    }
    let (bed, run) = bed();
    bed.mount(["-p", &run]);
    let pid = bed.daemon().as_raw().unsigned_abs();
    let mut user = Command::new("sleep").arg("1000").current_dir(bed.mnt.join("run/a")).spawn().expect("sleep");
    let busy = unmount(&bed, &[]).code(1);
    assert!(busy.stderr.contains(&format!("sleep (pid {}): working directory", user.id())), "{}", busy.stderr);
    assert!(busy.stderr.contains("veinfs unmount --lazy"), "{}", busy.stderr);
    assert_eq!(names(bed.mnt.join("run")), ["a", "b"]);

    let open = File::open(bed.mnt.join("run/b/data.csv")).expect("a file");
    unmount(&bed, &["--lazy"]).ok();
    assert!(!bed.is_mounted());
    assert_eq!(names(&bed.mnt), [] as [&str; 0]);
    let mut text = String::new();
    (&open).read_to_string(&mut text).expect("what is open goes on");
    assert_eq!(text, "3,4");
    // The same place can be used again while the old one still lives.
    bed.mount(["-p", &run]);
    let exit = Exit::of(pid).expect("the first daemon still serves");
    user.kill().expect("a child to end");
    user.wait().expect("its status");
    drop(open);
    assert!(exit.wait(LIMIT).expect("a process"), "it ends with its last use");
    assert_eq!(names(bed.mnt.join("run")), ["a", "b"], "and leaves the new one alone");
}

#[test]
fn signals_unmount() {
    if !can_mount() {
        return;
    }
    let (bed, run) = bed();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        bed.mount(["-p", &run]);
        let pid = bed.daemon();
        let exit = Exit::of(pid.as_raw().unsigned_abs()).expect("a process");
        // In use all the same.
        let open = (signal == Signal::SIGINT).then(|| File::open(bed.mnt.join("run/a")).expect("a directory"));
        kill(pid, signal).expect("a signal");
        eventually("it is unmounted", || !bed.is_mounted());
        drop(open);
        assert!(exit.wait(LIMIT).expect("a process"), "{signal}");
        assert_eq!(names(&bed.mnt), [] as [&str; 0], "{signal}");
    }
}

#[test]
fn in_the_foreground_an_interrupt_ends_it_well() {
    if !can_mount() {
        return;
    }
    let (bed, run) = bed();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (src, mnt) = (bed.src.to_str().expect("text"), bed.mnt.to_str().expect("text"));
        let mut command = bed.command(["mount", "-f", src, mnt, "-p", &run]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        eventually("it shows its matches", || bed.mnt.join("run/a/data.csv").exists());
        bed.keep(&bed.mnt);
        assert_eq!(bed.daemon().as_raw().unsigned_abs(), child.id());
        kill(bed.daemon(), signal).expect("a signal");
        assert_eq!(child.wait().expect("its end").code(), Some(0), "{signal}");
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert_eq!(said, "");
        assert!(!bed.is_mounted());
    }
    // Taken off by somebody else, it ends well too.
    let (src, mnt) = (bed.src.to_str().expect("text"), bed.mnt.to_str().expect("text"));
    let mut child = bed.command(["mount", "-f", src, mnt, "-p", &run]).spawn().expect("the program starts");
    eventually("it shows its matches", || bed.mnt.join("run/a/data.csv").exists());
    bed.unmount();
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

#[test]
fn a_name_that_is_looked_up_is_what_a_listing_shows() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&[
        "a/data.csv=1",
        "a/skip.tmp=2",
        "a/sub/deep/x=3",
        "a/out/y=4",
        "a/.veinfs/z=5",
        "a/file -> data.csv",
        "a/dir -> sub",
        "a/up -> ..",
        "a/gone -> nowhere",
    ]);
    rustix::fs::mkfifoat(rustix::fs::CWD, bed.src.join("a/pipe"), rustix::fs::Mode::RUSR).expect("a FIFO");
    let all = bed.file("all.json", r#"{"name": "all", "directory_name": "a", "opaque": true}"#);
    let asked = ["data.csv", "skip.tmp", "sub", "sub/deep/x", "out", "out/y", ".veinfs", ".veinfs/z", "file", "dir"];
    let asked = asked.into_iter().chain(["dir/deep", "up", "gone", "pipe", "none", "DATA.CSV", "data.csv/x"]);
    let asked: Vec<&str> = asked.collect();
    let place = bed.mnt.join("all/a");
    let look = || -> Vec<String> {
        let of = |name: &&str| match std::fs::symlink_metadata(place.join(name)) {
            Ok(meta) => format!("{name} {:o} {}", meta.mode(), if meta.is_file() { meta.len() } else { 0 }),
            Err(error) => format!("{name} {:?}", error.raw_os_error()),
        };
        asked.iter().map(of).collect()
    };
    for links in ["follow", "keep", "skip"] {
        let options = ["-p", &all, "--exclude", "*.tmp", "--exclude", "a/out/y", "--symlinks", links];
        bed.mount(options);
        // Nothing was listed inside the match before.
        let first = look();
        // What of it is there stands in the listings, and nothing else does.
        let (top, below) = (names(&place), names(place.join("out")));
        for (name, said) in asked.iter().zip(&first) {
            let there = !said.contains("Some(");
            match name.split_once('/') {
                None => assert_eq!(top.contains(&(*name).to_owned()), there, "--symlinks {links}: {said}, of {top:?}"),
                Some(("out", name)) => assert_eq!(below.contains(&name.to_owned()), there, "{said}, of {below:?}"),
                Some(_) => {}
            }
        }
        assert_eq!(look(), first, "--symlinks {links}");
        assert!(first[0].ends_with(" 1") && first[1].contains("Some(2)"), "{first:?}");
        // A name that nobody has listed goes, and another comes.
        let (x, y) = (bed.src.join("a/sub/deep/x"), bed.src.join("a/sub/deep/y"));
        std::fs::rename(&x, &y).expect("it is renamed");
        eventually("the name has changed", || !place.join("sub/deep/x").exists() && place.join("sub/deep/y").exists());
        std::fs::rename(&y, &x).expect("and back");
        bed.unmount();
    }
}

#[test]
fn a_mount_point_within_the_source_is_not_walked_into() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["a/data.csv=1", "a/mnt/", "a/sub/data.csv=2", "a/sub/back -> ..", "a/to-mount -> mnt"]);
    let mountpoint = bed.src.join("a/mnt");
    let sources = [bed.src.as_os_str()];
    let (run, whole) = (bed.file("run.yaml", RUN), bed.file("whole.yaml", "directory_name: '[as]*'\n"));
    let deep = bed.file("deep.yaml", "files: ['**/data.csv']\nname: deep\n");
    bed.mount_at(&sources, &mountpoint, ["-p", &run, "-p", &whole, "-p", &deep, "--attr-timeout", "0"]).ok();
    assert_eq!(names(mountpoint.join("run")), ["a", "sub"]);
    assert_eq!(names(mountpoint.join("whole")), ["a", "src", "sub"]);
    let again = bed.scan(["-p", &run]).ok();
    assert_eq!(again.lines().len(), 2, "nor by a scan: {}", again.text());
    assert_eq!(again.stderr, "");
    // The whole tree is finite.
    let mut find = Command::new("timeout");
    find.args(["-k", "5", "60", "find", "-L"])
        .arg(mountpoint.join("whole/a"))
        .args(["-name", "data.csv", "-printf", "%P\\n"]);
    let found = Output::of(&mut find);
    assert!(found.lines().contains(&"data.csv".to_owned()), "{found:?}");
    assert!(found.lines().iter().all(|path| path.matches('/').count() < 8), "{found:?}");
    assert!(!mountpoint.join("whole/a/mnt/run").exists());
    assert!(mountpoint.join("deep/a/sub/data.csv").exists());
    bed.veinfs([OsStr::new("unmount"), mountpoint.as_os_str()]).ok();
}

#[test]
fn a_link_out_of_the_source_does_not_lead_back_into_the_mount() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["run/data.csv=1", "run/out -> ../.."]);
    let whole = bed.file("whole.yaml", "directory_name: run\n");
    bed.mount(["-p", &whole, "-p", &bed.file("deep.yaml", "files: ['**/data.csv']\nname: deep\n")]);
    let out = bed.mnt.join("whole/run/out");
    assert!(out.join("src/run/data.csv").exists(), "what is outside is shown as it is");
    assert!(!names(&out).contains(&"mnt".to_owned()), "{:?}", names(&out));
    assert!(!out.join("mnt/whole").exists());
    let found = Output::of(Command::new("timeout").args(["60", "find"]).arg(&bed.mnt).args(["-name", "data.csv"])).ok();
    assert!(found.lines().len() < 10, "{}", found.text());
}

#[test]
fn a_source_that_goes_away_takes_nothing_else_along() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["one/a/data.csv=1", "two/b/data.csv=2"]);
    let run = bed.file("run.yaml", RUN);
    let (one, two) = (bed.src.join("one"), bed.src.join("two"));
    bed.mount_at(&[one.as_os_str(), two.as_os_str()], &bed.mnt, ["-p", &run, "--attr-timeout", "0"]).ok();
    let view = bed.mnt.join("run");
    assert_eq!(names(&view), ["a", "b"]);
    assert_eq!(fs::read_to_string(view.join("a/data.csv")).expect("a file"), "1");
    let held = File::open(view.join("a/data.csv")).expect("a file");
    fs::rename(&one, bed.src.join("away")).expect("a rename");
    fs::remove_dir_all(bed.src.join("away")).expect("removed");
    let fits = |error: &std::io::Error| {
        [Errno::NOENT, Errno::IO, Errno::STALE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    };
    eventually("reads fail", || File::open(view.join("a/data.csv")).is_err_and(|error| fits(&error)));
    assert!(names(&view).contains(&"b".to_owned()));
    assert_eq!(fs::read_to_string(view.join("b/data.csv")).expect("the other source goes on"), "2");
    let mut text = [0; 1];
    assert_eq!(held.read_at(&mut text, 0).expect("what is open goes on"), 1);
    assert_eq!(bed.status()["state"], "complete");
    // It comes back.
    crate::bed::lay_out(&bed.src, &["one/a/data.csv=new"]);
    eventually("it is there again", || fs::read_to_string(view.join("a/data.csv")).is_ok_and(|text| text == "new"));
}

#[test]
fn open_files_keep_what_they_had_and_new_opens_see_what_is_there() {
    if !can_mount() {
        return;
    }
    // Below and above the size from which files are passed through.
    for size in [10usize, 300_000] {
        let text = |c: u8| vec![c; size];
        let bed = TestBed::new(&["run/data.csv="]);
        let run = bed.file("run.yaml", "name: run\nfiles: [data.csv]\noptional_files: ['*']\n");
        let dir = bed.src.join("run");
        for name in ["replaced", "grown", "cut", "removed", "rewritten"] {
            fs::write(dir.join(name), text(b'a')).expect("a file");
        }
        bed.mount(["-p", &run]);
        let view = bed.mnt.join("run/run");
        let read = |name: &str| fs::read(view.join(name));
        let held = |name: &str| {
            let file = File::open(view.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            let mut all = Vec::new();
            (&file).read_to_end(&mut all).expect("its content");
            assert!(all == text(b'a'), "{name}");
            file
        };
        let (replaced, removed) = (held("replaced"), held("removed"));
        for name in ["grown", "cut", "rewritten"] {
            drop(held(name));
        }
        let old = |file: &File| {
            let mut all = vec![0; size + 1];
            let read = file.read_at(&mut all, 0).expect("its content");
            all.truncate(read);
            assert!(all == text(b'a'), "{size}: {read} bytes");
        };
        fs::write(dir.join("new"), text(b'b')).expect("a file");
        fs::rename(dir.join("new"), dir.join("replaced")).expect("a rename");
        fs::remove_file(dir.join("removed")).expect("removed");
        fs::write(dir.join("grown"), [text(b'a'), text(b'c')].concat()).expect("a file");
        File::options().write(true).open(dir.join("cut")).and_then(|file| file.set_len(3)).expect("a length");
        fs::write(dir.join("rewritten"), text(b'd')).expect("a file");
        old(&replaced);
        old(&removed);
        eventually("the file that took its place", || read("replaced").is_ok_and(|all| all == text(b'b')));
        eventually("what is gone", || read("removed").is_err());
        eventually("what was added", || read("grown").is_ok_and(|all| all.len() == 2 * size));
        eventually("what is left", || read("cut").is_ok_and(|all| all == b"aaa"));
        eventually("what was written over", || read("rewritten").is_ok_and(|all| all == text(b'd')));
        old(&replaced);
        old(&removed);
        assert_eq!(fs::metadata(view.join("cut")).expect("it").len(), 3);
        // New files too.
        eventually("a new name", || names(&view).contains(&"grown".to_owned()) && !view.join("removed").exists());
        fs::write(dir.join("late"), "x").expect("a file");
        eventually("a new file", || names(&view).contains(&"late".to_owned()));
    }
}

#[test]
fn the_mount_is_up_while_the_scan_runs() {
    if !can_mount() {
        return;
    }
    let lines: Vec<String> = (0..300).map(|n| format!("d{n}/e/data.csv=")).collect();
    let bed = TestBed::new(&lines);
    let run = bed.file("run.yaml", RUN);
    let (src, mnt) = (bed.src.to_str().expect("text"), bed.mnt.to_str().expect("text"));
    // Without --wait.
    bed.veinfs(["mount", src, mnt, "-p", &run]).ok();
    bed.keep(&bed.mnt);
    assert_eq!(names(&bed.mnt), ["run"]);
    eventually("the scan is complete", || bed.status()["state"] == "complete");
    assert_eq!(names(bed.mnt.join("run")).len(), 300);
    let log = bed.dir.join("log");
    bed.unmount();
    bed.mount(["-p", &run, "--log", log.to_str().expect("text")]);
    assert!(log.exists());
    assert_eq!(names(bed.mnt.join("run")).len(), 300);
}

#[test]
fn many_readers_of_one_changing_directory_miss_nothing() {
    if !can_mount() {
        return;
    }
    let lines: Vec<String> = (0..200).map(|n| format!("run/kept{n}=")).chain(["run/data.csv=".to_owned()]).collect();
    let bed = TestBed::new(&lines);
    let run = bed.file("run.yaml", "name: run\nfiles: [data.csv, 'kept*']\noptional_files: ['*']\n");
    bed.mount(["-p", &run, "--attr-timeout", "0"]);
    let view = bed.mnt.join("run/run");
    let done = std::sync::atomic::AtomicBool::new(false);
    /// Ends the readers, also when the test fails.
    struct End<'a>(&'a std::sync::atomic::AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let end = End(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let kept = names(&view).iter().filter(|name| name.starts_with("kept")).count();
                    assert_eq!(kept, 200);
                    assert!(view.join("kept7").exists());
                }
            });
        }
        for n in 0..100 {
            let new = bed.src.join("run").join(format!("new{n}"));
            fs::write(&new, "").expect("a file");
            assert!(view.join(format!("new{n}")).exists(), "new{n}");
            if n % 10 == 0 {
                eventually("a new name", || names(&view).contains(&format!("new{n}")));
            }
            fs::remove_file(&new).expect("removed");
        }
        drop(end);
    });
    eventually("the last name is gone", || names(&view).len() == 201);
}
