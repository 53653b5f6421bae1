//! Attacks: what is in the source changes places with links that lead out of it, while it is read through the mount.
//!
//! Readers go through no link themselves (`RESOLVE_NO_SYMLINKS`), so that whatever they get of the outside was got by the
//! mount. The outside can be told by its bytes, its size, its names, its times and its extended attributes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, openat2, statat};

use super::probe::{BEN, Probe};
use super::{can_share, set};
use crate::bed::{LIMIT, TestBed, can_mount, eventually, lay_out, names};

const RUN: &str =
    "name: run\nfiles: [data.csv]\noptional_files: ['*']\noptional_directories: [{directory_name: sub}]\n";

/// How often the two change places.
const ROUNDS: usize = 200;
const READERS: usize = 3;

const INSIDE: &str = "what is in the source";
const SECRET: &str = "a secret that is not in the source";
/// When what is outside was modified, in seconds since the epoch.
const LONG_AGO: i64 = 86_400;

/// What changes places with a link to the same below `out`.
const PLACES: [(&str, &str); 5] = [
    ("a small file", "top/run/data.csv"),
    ("a large file", "top/run/large"),
    ("a directory in a match", "top/run/sub"),
    ("a match", "top/run"),
    ("a directory above a match", "top"),
];

/// Inside and outside, with the same names; the outside has some more.
fn bed() -> TestBed {
    let bed = TestBed::new(&[] as &[&str]);
    for (root, text) in [(bed.src.clone(), INSIDE), (bed.dir.join("out"), SECRET)] {
        let run = root.join("top/run");
        lay_out(&run, &[format!("data.csv={text}"), format!("sub/below={text}")]);
        // Large enough to be passed through.
        fs::write(run.join("large"), text.repeat(10_000)).expect("a file");
    }
    let out = bed.dir.join("out/top/run");
    lay_out(&out, &["secret=", "sub/secret="]);
    for path in ["data.csv", "large", "sub/below", "sub", "."] {
        let _ = rustix::fs::setxattr(out.join(path), "user.secret", b"1", rustix::fs::XattrFlags::empty());
        let time = rustix::fs::Timespec { tv_sec: LONG_AGO, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, out.join(path), &times, AtFlags::empty()).expect("a time");
    }
    bed
}

/// Opens without going through a link.
fn open(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn bytes(fd: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error counts too.
    let _ = File::from(fd).read_to_end(&mut bytes);
    bytes
}

/// What a look below `root` shows of the outside, and whether it showed anything of the inside.
fn look(root: &OwnedFd, below: &str, leaks: &mut BTreeSet<&'static str>) -> bool {
    let mut inside = false;
    let path = |name: &str| format!("{below}{name}");
    for name in ["data.csv", "large", "sub/below"] {
        if let Ok(fd) = open(root, &path(name), OFlags::RDONLY) {
            let bytes = bytes(fd);
            inside |= bytes.starts_with(INSIDE.as_bytes());
            if bytes.starts_with(&SECRET.as_bytes()[..4]) {
                leaks.insert("bytes");
            }
        }
    }
    for name in ["data.csv", "large", "sub/below", "sub", "."] {
        let Ok(fd) = open(root, &path(name), OFlags::PATH) else { continue };
        if let Ok(stat) = statat(&fd, "", AtFlags::EMPTY_PATH)
            && FileType::from_raw_mode(stat.st_mode) != FileType::Symlink
            && stat.st_mtime == LONG_AGO
        {
            leaks.insert("attributes");
        }
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        if rustix::fs::getxattr(own, "user.secret", &mut [0u8; 8][..]).is_ok() {
            leaks.insert("extended attributes");
        }
    }
    for name in [".", "sub"] {
        let Ok(fd) = open(root, &path(name), OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
        let Ok(entries) = rustix::fs::Dir::new(fd) else { continue };
        if entries.flatten().any(|entry| entry.file_name() == c"secret") {
            leaks.insert("names");
        }
    }
    inside
}

/// Exchanges `place` and a link to the same outside again and again, while readers look; what they saw of the outside.
fn attack(bed: &TestBed, place: &str) -> BTreeSet<&'static str> {
    let (real, link) = (bed.src.join(place), bed.src.join("spare"));
    std::os::unix::fs::symlink(bed.dir.join("out").join(place), &link).expect("a link");
    let exchange = || {
        rustix::fs::renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).expect("an exchange");
    };
    let (done, looks, good) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let leaks = Mutex::new(BTreeSet::new());
    let mnt = &bed.mnt;
    let look_once = |held: Option<&OwnedFd>| {
        let mut seen = BTreeSet::new();
        let root = open_dir(mnt).expect("the mount");
        let mut inside = look(&root, "run/run/", &mut seen);
        if let Some(held) = held {
            inside |= look(held, "", &mut seen);
        }
        leaks.lock().expect("no panic").extend(seen);
        good.fetch_add(usize::from(inside), Ordering::Relaxed);
        looks.fetch_add(1, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let held = open_dir(&mnt.join("run/run")).ok();
                while !done.load(Ordering::Relaxed) {
                    look_once(held.as_ref());
                }
            });
        }
        for round in 0..ROUNDS {
            let before = looks.load(Ordering::Relaxed);
            exchange();
            // Sometimes at once again, sometimes when somebody has looked.
            let deadline = Instant::now() + LIMIT;
            while round % 4 == 3 && looks.load(Ordering::Relaxed) < before + 2 && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // As a link, at rest.
    exchange();
    for _ in 0..20 {
        look_once(None);
    }
    exchange();
    eventually("all is as it was", || {
        fs::read_to_string(bed.mnt.join("run/run/data.csv")).is_ok_and(|text| text == INSIDE)
            && fs::read_to_string(bed.mnt.join("run/run/sub/below")).is_ok_and(|text| text == INSIDE)
    });
    assert!(good.into_inner() > 0, "nobody has read anything");
    fs::remove_file(&link).expect("a link");
    leaks.into_inner().expect("no panic")
}

/// Nothing is seen of the outside.
fn attack_all(options: &str, places: &[(&'static str, &str)]) {
    for (what, place) in places {
        let bed = bed();
        let words: Vec<&str> = options.split_whitespace().collect();
        bed.mount(["-p", &bed.file("run.yaml", RUN)].iter().chain(&words));
        let leaks = attack(&bed, place);
        assert!(leaks.is_empty(), "{options}: {what}: the outside is seen by {leaks:?}");
    }
}

#[test]
fn no_link_swapped_in_leads_outside_where_links_are_kept_or_skipped() {
    if !can_mount() {
        return;
    }
    let ways = ["--symlinks keep", "--symlinks skip", "--symlinks skip --no-watch"];
    ways.iter().for_each(|options| attack_all(options, &PLACES));
}

#[test]
fn no_link_swapped_in_leads_outside_on_a_shared_mount() {
    if can_share() {
        attack_all("-o allow_other", &PLACES);
    }
}

#[test]
fn no_link_on_the_way_to_a_match_leads_outside_where_links_inside_are_followed() {
    if can_mount() {
        attack_all("--symlinks follow", &PLACES[3..]);
    }
}

/// By design, by default: what a link in a match leads to is shown, wherever it is.
#[test]
fn a_link_in_a_match_that_leads_outside_is_followed_by_default() {
    if !can_mount() {
        return;
    }
    let bed = bed();
    let run = bed.src.join("top/run");
    for name in ["data.csv", "sub"] {
        std::os::unix::fs::symlink(bed.dir.join("out/top/run").join(name), run.join("to")).expect("a link");
        let (own, link) = (run.join(name), run.join("to"));
        rustix::fs::renameat_with(CWD, &own, CWD, &link, RenameFlags::EXCHANGE).expect("an exchange");
        match own.metadata().expect("it").is_dir() {
            true => fs::remove_dir_all(&link).expect("removed"),
            false => fs::remove_file(&link).expect("removed"),
        }
    }
    bed.mount(["-p", &bed.file("run.yaml", RUN)]);
    let seen = bed.mnt.join("run/run");
    assert_eq!(fs::read_to_string(seen.join("data.csv")).expect("a file"), SECRET);
    assert_eq!(fs::read_to_string(seen.join("sub/below")).expect("a file"), SECRET);
}

/// A directory that was shown as one stays one, for those who hold it open too: the link in its place is not gone
/// through by its name. Whoever looks anew sees what the link leads to.
#[test]
fn a_directory_held_open_does_not_become_what_a_link_in_its_place_leads_to() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["--no-watch"]] {
        let bed = bed();
        bed.mount(["-p", &bed.file("run.yaml", RUN)].iter().chain(options));
        let seen = bed.mnt.join("run/run/sub");
        let held = open_dir(&seen).expect("a directory");
        assert_eq!(bytes(open(&held, "below", OFlags::RDONLY).expect("a file")), INSIDE.as_bytes());
        let (real, link) = (bed.src.join("top/run/sub"), bed.src.join("spare"));
        std::os::unix::fs::symlink(bed.dir.join("out/top/run/sub"), &link).expect("a link");
        rustix::fs::renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).expect("an exchange");
        for _ in 0..200 {
            if let Ok(fd) = open(&held, "below", OFlags::RDONLY) {
                assert_eq!(bytes(fd), INSIDE.as_bytes());
            }
        }
        // Held still: so the kernel remembers the directory.
        let anew = || fs::read_to_string(seen.join("below"));
        eventually("it is shown as what it leads to", || anew().is_ok_and(|text| text == SECRET));
        drop(held);
    }
}

/// Somebody who may rename a private directory, but not look into it, puts an open one in its place.
#[test]
fn a_private_directory_that_changes_places_with_an_open_one_stays_private() {
    if !can_share() {
        return;
    }
    for options in [&[][..], &["--no-watch"]] {
        let bed = TestBed::new(&[
            "common/anns/run/data.csv=for ann alone",
            "common/decoy/run/data.csv=for everybody",
            "common/anns/run/d/in=for ann alone",
            "common/decoy/run/d/in=for everybody",
        ]);
        let common = bed.src.join("common");
        for own in ["anns", "decoy"] {
            for (path, mode) in [("run/data.csv", 644), ("run/d/in", 644), ("run/d", 755), ("run", 755)] {
                set(&common.join(own).join(path), &format!("{mode} ann:ann"));
            }
        }
        set(&common.join("anns"), "700 ann:ann");
        set(&common.join("decoy"), "755 ann:ann");
        // Everybody may rename what is in here: whoever does gets nothing by it on the real path.
        set(&common, "777 ben:ben");
        let words = ["-p", &bed.file("run.yaml", super::RUN), "-o", "allow_other", "--layout", "<.parent>-<.name>"];
        bed.mount(words.iter().chain(options));
        let (anns, decoy) = (common.join("anns"), common.join("decoy"));
        assert_eq!(names(bed.mnt.join("run")), ["anns-run", "decoy-run"]);
        let done = AtomicBool::new(false);
        let leaks = Mutex::new(BTreeSet::<PathBuf>::new());
        let looks = AtomicUsize::new(0);
        let mnt = &bed.mnt;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut probe = Probe::new(BEN);
                    while !done.load(Ordering::Relaxed) {
                        for path in ["anns-run/data.csv", "decoy-run/data.csv", "anns-run/d/in", "decoy-run/d/in"] {
                            let answer = probe.ask("read", &mnt.join("run").join(path));
                            if answer.is_ok_and(|text| text == "for ann alone") {
                                leaks.lock().expect("no panic").insert(path.into());
                            }
                        }
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for round in 0..4 * ROUNDS {
                if !leaks.lock().expect("no panic").is_empty() {
                    break;
                }
                let before = looks.load(Ordering::Relaxed);
                rustix::fs::renameat_with(CWD, &anns, CWD, &decoy, RenameFlags::EXCHANGE).expect("an exchange");
                let deadline = Instant::now() + LIMIT;
                while round % 4 == 3 && looks.load(Ordering::Relaxed) < before + 2 && Instant::now() < deadline {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let leaks = leaks.into_inner().expect("no panic");
        assert!(leaks.is_empty(), "{options:?}: ben read what is for ann alone by {leaks:?}");
    }
}
