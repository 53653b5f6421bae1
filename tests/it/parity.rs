//! Parity: the same system calls on a mount and on a read-only mount of its source come to the same.
//!
//! A case is a name and a closure from a tree's root to what came of some calls, in words. It runs on a read-only bind
//! mount of the source, which is what the kernel has to say, and then on a veinfs mount. Where the two differ, one entry
//! of [`differences`] says so, and why; an entry that has come to differ no more fails too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use globset::{Glob, GlobMatcher};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::bed::{Output, TestBed, can_mount, has, is_root, with_fuse_for_all};
use cases::{Site, Table};
use differences::{DELIBERATE, Difference, KNOWN};

mod calls;
pub(crate) mod cases;
pub(crate) mod differences;
mod files;
mod fixture;
mod listings;
mod names;

const TABLES: &[&[Difference]] = &[DELIBERATE, KNOWN];

/// An ordinary user.
pub(crate) const USER: u32 = 65534;

/// A tree mounted once more for reading, until this is dropped.
pub(crate) struct Reference(pub(crate) PathBuf);

impl Reference {
    /// `tree` at `at`, with the flags that a mount of veinfs has.
    pub(crate) fn new(tree: &Path, at: PathBuf) -> Self {
        fs::create_dir(&at).expect("a directory");
        rustix::mount::mount_bind(tree, &at).expect("a bind mount");
        let reference = Self(at);
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount_remount(&reference.0, flags, c"").expect("a read-only mount");
        reference
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What came of each case: on the reference, and on the mount.
pub(crate) type Outcomes = BTreeMap<String, [String; 2]>;

fn all_cases() -> Table {
    let mut table = Table::default();
    files::add(&mut table);
    names::add(&mut table);
    listings::add(&mut table);
    calls::add(&mut table);
    table
}

fn outcomes(reference: &Site, mount: &Site) -> Outcomes {
    let mut all = Outcomes::new();
    for case in all_cases().0 {
        let came = [(case.act)(reference), (case.act)(mount)];
        assert!(all.insert(case.name.clone(), came).is_none(), "two cases are called {}", case.name);
    }
    assert!(all.len() > 2500, "{} cases", all.len());
    if has("python3") {
        let [expected, came] = [reference, mount].map(|site| raw(&site.root));
        assert!(expected.keys().eq(came.keys()));
        for ((name, expected), came) in expected.into_iter().zip(came.into_values()) {
            assert!(all.insert(name.clone(), [expected, came]).is_none(), "two cases are called {name}");
        }
    }
    all
}

/// The cases that take what Rust calls unsafe.
fn raw(root: &Path) -> BTreeMap<String, String> {
    let script = ["-k", "5", "120", "python3", "-c", include_str!("parity/raw.py")];
    let output = Output::of(Command::new("timeout").args(script).arg(root));
    let said = output.ok();
    assert_eq!(said.stderr, "");
    said.text()
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, what)| (name.into(), what.into()))
        .collect()
}

/// A mount beside its reference.
struct Pair {
    // Before the bed, which is removed with what is in it.
    _reference: Reference,
    reference: Site,
    mount: Site,
    bed: TestBed,
}

impl Pair {
    /// Mounts with `words`, as the user `owner` if one is given, whom all then belongs to.
    fn new(words: &[&str], owner: Option<u32>) -> Self {
        let bed = TestBed::new(&[] as &[&str]);
        fixture::grow(&bed.src, owner);
        let scratch = bed.dir.join("scratch");
        fs::create_dir(&scratch).expect("a directory");
        fs::set_permissions(&scratch, Permissions::from_mode(0o1777)).expect("a mode");
        let bound = Reference::new(&bed.src, bed.dir.join("reference"));
        let pattern = bed.file("all.yaml", "name: all\ndirectory_name: src\n");
        mount_as(&bed, owner, &[&["-p", &pattern], words].concat());
        let site = |root: PathBuf| Site { root, scratch: scratch.clone() };
        let (reference, mount) = (site(bound.0.clone()), site(bed.mnt.join("all/src")));
        Self { _reference: bound, reference, mount, bed }
    }

    /// What came of all cases, tried by the user `who`.
    fn outcomes_of(&self, who: u32) -> Outcomes {
        outcomes_of(who, "parity::child_tells_what_came", &self.bed, &self.reference, &self.mount)
    }
}

/// Makes root's mount what it is from the first change on that is announced: read-only as the reference is, a mount of a
/// file system that is not. Until then the file system is read-only too, and says so before it looks who asks.
fn as_once_announced(mnt: &Path) {
    use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};
    let picked = fspick(rustix::fs::CWD, mnt, FsPickFlags::FSPICK_CLOEXEC).expect("a file system");
    fsconfig_set_flag(&picked, c"rw").and_then(|()| fsconfig_reconfigure(&picked)).expect("another mode");
}

/// Mounts the bed's source at its mount point, as the user `owner` if one is given.
#[track_caller]
pub(crate) fn mount_as(bed: &TestBed, owner: Option<u32>, words: &[&str]) {
    let Some(owner) = owner else {
        bed.mount(words);
        return as_once_announced(&bed.mnt);
    };
    let cache = bed.dir.join("cache");
    fs::create_dir(&cache).expect("a directory");
    for mine in [&cache, &bed.mnt] {
        std::os::unix::fs::chown(mine, Some(owner), Some(owner)).expect("an owner");
    }
    let mut all: Vec<OsString> = vec!["mount".into(), "--wait".into(), bed.src.clone().into(), bed.mnt.clone().into()];
    all.extend(words.iter().map(OsString::from));
    Output::of(bed.command(all).uid(owner).gid(owner)).ok();
    bed.keep(&bed.mnt);
}

const TOLD: &str = "VEINFS_TEST_PARITY_TOLD";
const ROOTS: &str = "VEINFS_TEST_PARITY_ROOTS";
const SCRATCH: &str = "VEINFS_TEST_PARITY_SCRATCH";

/// What came of all cases, tried by the user `who` in a process of its own: the test `child`, which calls [`tell`].
pub(crate) fn outcomes_of(who: u32, child: &str, bed: &TestBed, reference: &Site, mount: &Site) -> Outcomes {
    let told = bed.dir.join("told");
    fs::write(&told, "").and_then(|()| fs::set_permissions(&told, Permissions::from_mode(0o666))).expect("a file");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", child, "--nocapture"]).uid(who).gid(who).current_dir("/");
    command.env(ROOTS, std::env::join_paths([&reference.root, &mount.root]).expect("paths"));
    let output = Output::of(command.env(TOLD, &told).env(SCRATCH, &mount.scratch));
    eprintln!("{}", output.stderr);
    output.ok();
    serde_json::from_slice(&fs::read(&told).expect("what was told")).expect("outcomes")
}

/// Tells what comes of all cases, where [`outcomes_of`] has started this process.
pub(crate) fn tell(outcomes: fn(&Site, &Site) -> Outcomes) {
    let Some(told) = std::env::var_os(TOLD) else { return };
    let roots = std::env::var_os(ROOTS).expect("two trees");
    let scratch = PathBuf::from(std::env::var_os(SCRATCH).expect("a directory"));
    let sites: Vec<Site> = std::env::split_paths(&roots).map(|root| Site { root, scratch: scratch.clone() }).collect();
    let outcomes = outcomes(&sites[0], &sites[1]);
    fs::write(told, serde_json::to_vec(&outcomes).expect("JSON")).expect("a file");
}

/// The other half of the tests below, as another user.
#[test]
fn child_tells_what_came() {
    tell(outcomes);
}

/// Holds what came against the tables; `run` is how it was mounted and who tried.
#[track_caller]
pub(crate) fn judge(run: &str, outcomes: &Outcomes, tables: &[&[Difference]]) {
    let mut wrong = Vec::new();
    let about = tables.iter().flat_map(|table| table.iter()).filter(|difference| difference.is_about(run));
    let mut differences: Vec<_> = about.map(|difference| (difference, glob(difference.case), 0)).collect();
    for (case, [expected, came]) in outcomes {
        let mut explained = differences.iter_mut().filter(|(_, covers, _)| covers.is_match(case));
        let first = explained.next();
        let twice = explained.next().is_some();
        match first {
            None if expected == came => {}
            None => wrong.push(format!("{case}: expected {expected}, got {came}")),
            Some((difference, ..)) if twice => wrong.push(format!("{case}: two entries match it, one is {difference}")),
            Some((difference, _, seen)) => {
                *seen += 1;
                if expected == came && difference.always {
                    wrong.push(format!("{case}: differs no more, take it out of {difference}: {came}"));
                } else if expected != came && !glob(difference.says).is_match(came) {
                    wrong.push(format!("{case}: expected {expected} or what {difference} says, got {came}"));
                }
            }
        }
    }
    let unseen = differences.iter().filter(|(_, _, seen)| *seen == 0);
    wrong.extend(unseen.map(|(difference, ..)| format!("there is no such case: {difference}")));
    assert!(wrong.is_empty(), "{run}: {} of {} cases:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
}

fn glob(text: &str) -> GlobMatcher {
    Glob::new(text).expect("a glob").compile_matcher()
}

/// True if what is compared with can be made here.
fn can_compare() -> bool {
    can_mount() && is_root()
}

fn for_root(run: &str, words: &[&str]) {
    if can_compare() {
        let pair = Pair::new(words, None);
        let reads = pair.bed.status()["reads"]["mode"].to_string();
        if run == "passthrough" && !reads.contains("passthrough") {
            eprintln!("SKIP: this kernel passes nothing through: {reads}");
        }
        judge(run, &outcomes(&pair.reference, &pair.mount), TABLES);
    }
}

#[test]
fn by_default() {
    for_root("auto", &["--open", "auto", "--symlinks", "keep"]);
}

#[test]
fn through_the_page_cache() {
    for_root("cached", &["--open", "cached", "--symlinks", "keep"]);
}

#[test]
fn passed_through() {
    for_root("passthrough", &["--open", "passthrough", "--symlinks", "keep"]);
}

#[test]
fn with_links_followed() {
    for_root("follow", &[]);
}

#[test]
fn for_another_user_of_a_shared_mount() {
    if can_compare() {
        let pair = Pair::new(&["-o", "allow_other"], None);
        judge("shared", &pair.outcomes_of(USER), TABLES);
    }
}

const AS_USER: &str = "VEINFS_TEST_PARITY_AS_USER";

/// The other half of the next test, where everybody may mount.
#[test]
fn child_mounts_as_an_ordinary_user() {
    if std::env::var_os(AS_USER).is_some() {
        let pair = Pair::new(&["--symlinks", "keep"], Some(USER));
        judge("own", &pair.outcomes_of(USER), TABLES);
    }
}

#[test]
fn for_an_ordinary_user_of_an_own_mount() {
    if can_compare() && has("unshare") && has("fusermount3") {
        run_for_all("parity::child_mounts_as_an_ordinary_user", AS_USER);
    }
}

/// Runs a test of this program where everybody may mount, with the variable `told` set.
pub(crate) fn run_for_all(test: &str, told: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).expect("a mode");
    let mut command = with_fuse_for_all(dir.path());
    command.arg(std::env::current_exe().expect("this program")).env(told, "1").env("TMPDIR", dir.path());
    let output = Output::of(command.args(["--exact", test, "--nocapture"]));
    eprintln!("{}{}", output.text(), output.stderr);
    output.ok();
}
