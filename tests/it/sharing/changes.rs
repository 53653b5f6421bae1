//! Permissions that change while the tree is mounted: also for what the kernel remembers, and for what others hold open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::probe::{BEN, Probe, USERS};
use super::{OPEN, RUN, can_share, compare, has_access_lists, set};
use crate::bed::{TestBed, eventually, lay_out};

/// One change of permissions, and back.
struct Step {
    name: &'static str,
    /// Where in the tree of this step; `top/mid/match` is the match, `..` what the source is in.
    at: &'static str,
    before: &'static str,
    after: &'static str,
}

const fn step(name: &'static str, at: &'static str, before: &'static str, after: &'static str) -> Step {
    Step { name, at, before, after }
}

const TOP: &str = "";
const MID: &str = "mid";

/// The last are above the source's root, so they are for all.
const STEPS: [Step; 14] = [
    step("top-shut", TOP, OPEN, "700 ann:ann"),
    step("mid-shut", MID, OPEN, "700 ann:ann"),
    step("mid-opened", MID, "700 ann:ann", OPEN),
    step("mid-team", MID, OPEN, "750 ann:shared"),
    step("mid-team-lost", MID, "750 ann:shared", "750 ann:ann"),
    step("mid-given-away", MID, "700 ann:ann", "700 ben:ben"),
    step("mid-to-root", MID, OPEN, "700 root:root"),
    step("match-shut", "mid/match", OPEN, "700 ann:ann"),
    step("match-given-away", "mid/match", "700 ann:ann", "700 ben:ben"),
    step("inside-shut", "mid/match/d", OPEN, "700 ann:ann"),
    step("file-shut", "mid/match/data.csv", "644 ann:ann", "600 ann:ann"),
    step("file-opened", "mid/match/data.csv", "600 ann:ann", "644 ann:ann"),
    step("root-shut", "..", "755 root:root", "700 root:root"),
    step("above-root-shut", "../..", "755 root:root", "700 ann:ann"),
];

const LISTED_STEPS: [Step; 3] = [
    step("mid-without-ben", MID, OPEN, "755 ann:ann u:ben:---"),
    step("match-without-ben", "mid/match", OPEN, "755 ann:ann u:ben:---"),
    step("file-without-ben", "mid/match/data.csv", "644 ann:ann", "644 ann:ann u:ben:---"),
];

const WAYS: [(&str, &[&str]); 4] = [
    ("auto", &[]),
    ("no-watch", &["--no-watch"]),
    ("fanotify", &["--watch", "fanotify", "--attr-timeout", "3600"]),
    ("inotify", &["--watch", "inotify", "--attr-timeout", "3600"]),
];

/// What is tried in a match.
const TRIES: [(&str, &str); 6] =
    [("list", ""), ("stat", "data.csv"), ("read", "data.csv"), ("list", "d"), ("stat", "d/in"), ("read", "d/in")];

/// A tree for each step, mounted for all.
struct Trees {
    // First, since they hold open what is unmounted.
    probes: Vec<Probe>,
    bed: TestBed,
}

impl Trees {
    /// `None` if changes are not told in this way here; says so.
    fn new(way: &str, args: &[&str], steps: &[Step]) -> Option<Self> {
        let mut bed = TestBed::new(&[] as &[&str]);
        bed.src = bed.dir.join("outer/src");
        for step in steps {
            let own = bed.src.join(step.name).join("mid").join(step.name);
            lay_out(&own, &["data.csv=a file", "d/in=a file below"]);
            for path in ["data.csv", "d/in"] {
                set(&own.join(path), "644 ann:ann");
            }
            for path in [own.join("d"), own.clone(), own.join(".."), own.join("../..")] {
                set(&path, OPEN);
            }
            set(&place(&bed, step), step.before);
        }
        let run = bed.file("run.yaml", RUN);
        bed.mount(["-p", &run, "-o", "allow_other"].iter().chain(args));
        let watch = bed.status()["sources"][0]["watch"].clone();
        if args.contains(&way) && watch["mode"] != way {
            eprintln!("SKIP: {watch}");
            return None;
        }
        let probes = USERS.iter().map(|user| Probe::new(*user)).collect();
        Some(Self { probes, bed })
    }

    fn seen(&self, step: &Step) -> PathBuf {
        self.bed.mnt.join("run").join(step.name)
    }

    fn real(&self, step: &Step) -> PathBuf {
        self.bed.src.join(step.name).join("mid").join(step.name)
    }

    /// What all may do now, a word for each user; see [`compare`].
    fn row(&mut self, step: &Step) -> String {
        let (seen, real) = (self.seen(step), self.real(step));
        row(&mut self.probes, &seen, &real)
    }

    /// Waits until the mount allows what the real path allows.
    fn comes_right(&mut self, step: &Step, exact: bool) {
        let wrong = |letter: char| matches!(letter, '+' | '?') || exact && letter.is_ascii_lowercase();
        let begun = Instant::now();
        let last = loop {
            let row = self.row(step);
            if !row.chars().any(wrong) {
                return;
            }
            if begun.elapsed() > crate::bed::LIMIT {
                break row;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let (seen, real) = (self.seen(step), self.real(step));
        let mode = fs::metadata(&seen).map(|meta| format!("{:o} {}", meta.mode(), meta.uid()));
        let Self { probes, bed } = self;
        let whence = bed.whence(|| !row(probes, &seen, &real).chars().any(wrong));
        panic!("{}: {last}; for root {mode:?}\n{whence}", step.name);
    }
}

/// What all may do, a word for each user; see [`compare`].
fn row(probes: &mut [Probe], seen: &Path, real: &Path) -> String {
    let row = probes.iter_mut().map(|probe| {
        let letters = "abcdef".chars().zip(TRIES).map(|(letter, (what, path))| {
            let (mount, real) = (probe.ask(what, &seen.join(path)), probe.ask(what, &real.join(path)));
            match (&mount, &real) {
                // Attributes of what everybody may reach may be a moment old.
                (Ok(mount), Ok(real)) if what == "stat" && mount != real => '?',
                _ => compare(letter, what, &mount, &real, &seen.join(path)),
            }
        });
        letters.collect::<String>()
    });
    row.collect::<Vec<_>>().join(" ")
}

fn place(bed: &TestBed, step: &Step) -> PathBuf {
    bed.src.join(step.name).join(step.at.replace("match", step.name))
}

/// Through directories that somebody held open before the change, the mount allows no more than the source does.
#[track_caller]
fn held_allows_no_more(probe: &mut Probe, held: &[(i64, i64)], what: &str) {
    eventually(what, || {
        held.iter().all(|(mount, real)| {
            [("list", "."), ("read", "data.csv"), ("read", "d/in"), ("read", "in")].iter().all(|(what, path)| {
                let path = Path::new(path);
                let allowed = probe.ask_at(what, path, Some(*mount)).is_ok();
                !allowed || probe.ask_at(what, path, Some(*real)).is_ok()
            })
        })
    });
}

fn take(trees: &mut Trees, step: &Step, exact: bool, way: &str) {
    let what = format!("{way}: {}", step.name);
    trees.comes_right(step, exact);
    let before = trees.row(step);
    let ben = USERS.iter().position(|user| user.name == BEN.name).expect("a user");
    let mut held = Vec::new();
    for path in ["", "d"] {
        let (seen, real) = (trees.seen(step).join(path), trees.real(step).join(path));
        if trees.probes[ben].ask("list", &real).is_ok() {
            held.push((trees.probes[ben].hold(&seen), trees.probes[ben].hold(&real)));
        }
    }
    let at = place(&trees.bed, step);
    set(&at, step.after);
    trees.comes_right(step, exact);
    held_allows_no_more(&mut trees.probes[ben], &held, &what);
    if step.after.split(' ').count() > 2 {
        super::Output::of(std::process::Command::new("setfacl").arg("-b").arg(&at)).ok();
    }
    set(&at, step.before);
    trees.comes_right(step, true);
    assert_eq!(trees.row(step), before, "{what}, and back");
}

#[test]
fn permissions_that_change_are_followed() {
    if !can_share() {
        return;
    }
    for (way, args) in WAYS {
        let Some(mut trees) = Trees::new(way, args, &STEPS) else { continue };
        STEPS.iter().for_each(|step| take(&mut trees, step, true, way));
    }
}

#[test]
fn access_lists_that_change_are_followed() {
    if !can_share() || !has_access_lists() {
        return;
    }
    for (way, args) in WAYS {
        let Some(mut trees) = Trees::new(way, args, &LISTED_STEPS) else { continue };
        LISTED_STEPS.iter().for_each(|step| take(&mut trees, step, false, way));
    }
}

#[test]
fn what_is_moved_behind_a_private_directory_is_shut() {
    if !can_share() {
        return;
    }
    const MOVED: [Step; 1] = [step("moved", MID, OPEN, OPEN)];
    for (way, args) in WAYS {
        let Some(mut trees) = Trees::new(way, args, &MOVED) else { continue };
        trees.comes_right(&MOVED[0], true);
        let private = trees.bed.src.join("private");
        fs::create_dir(&private).expect("a directory");
        set(&private, "700 ann:ann");
        // So that the new directory is known: else the match may be found there before it is missed here, and be called
        // by another name, since both are there for a moment.
        trees.bed.veinfs(["refresh".as_ref(), trees.bed.mnt.as_os_str()]).ok();
        let seen = trees.seen(&MOVED[0]);
        let held: Vec<i64> = trees.probes.iter_mut().map(|probe| probe.hold(&seen)).collect();
        fs::rename(trees.bed.src.join("moved/mid"), private.join("mid")).expect("a rename");
        let real = private.join("mid/moved");
        for (probe, user) in trees.probes.iter_mut().zip(USERS) {
            let may = probe.ask("read", &real.join("data.csv")).is_ok();
            assert_eq!(may, matches!(user.name, "root" | "ann"));
            if !may {
                eventually(way, || probe.ask("read", &seen.join("data.csv")).is_err());
            } else if way != "no-watch" {
                eventually(way, || probe.ask("read", &seen.join("data.csv")).is_ok());
            }
        }
        drop(held);
    }
}
