//! Refusals: whatever would change something fails on a mount as it does on a file system mounted for reading.
//!
//! Every change is tried on everything that a mount has: its root, a pattern's folder, a match, what is in it, `.veinfs`.
//! What is expected is what the kernel says of a tree of the same shape, owners and modes, mounted for reading.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use crate::bed::{Output, TestBed, can_mount, has, is_root};
use crate::parity::cases::{Site, said};
use crate::parity::differences::{Difference, differs};
use crate::parity::{Outcomes, Reference, USER, judge, mount_as, outcomes_of, run_for_all, tell};

/// Something that is tried on an entry.
pub(crate) type Try = fn(&Path) -> Result<(), Errno>;

/// What would change something by its path, with what it is tried on: a directory `d`, a file `f`, a link `l`.
///
/// `r`: EROFS wherever it is tried. `m`: there, or EACCES where the kernel asks first whether the user might.
pub(crate) const CHANGES: &[(&str, &str, Try)] = &[
    ("mkdir", "dr", |at| rustix::fs::mkdir(at.join("new"), Mode::RWXU)),
    ("mkdir of what is there", "dfl", |at| rustix::fs::mkdir(at, Mode::RWXU)),
    ("mkdir in nothing", "df", |at| rustix::fs::mkdir(at.join("no-such/new"), Mode::RWXU)),
    ("rmdir", "dr", |at| rustix::fs::rmdir(at)),
    ("rmdir of nothing", "d", |at| rustix::fs::rmdir(at.join("no-such"))),
    ("rmdir of a file", "fl", |at| rustix::fs::rmdir(at)),
    ("rmdir of dot", "d", |at| rustix::fs::rmdir(at.join("."))),
    ("symlink", "dr", |at| rustix::fs::symlink("x", at.join("new"))),
    ("symlink where something is", "dfl", |at| rustix::fs::symlink("x", at)),
    ("mknod fifo", "dr", |at| rustix::fs::mknodat(CWD, at.join("new"), FileType::Fifo, Mode::RWXU, 0)),
    ("mknod file", "dr", |at| rustix::fs::mknodat(CWD, at.join("new"), FileType::RegularFile, Mode::RWXU, 0)),
    ("mknod socket", "d", |at| rustix::fs::mknodat(CWD, at.join("new"), FileType::Socket, Mode::RWXU, 0)),
    ("mknod device", "d", |at| {
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, at.join("new"), FileType::CharacterDevice, Mode::RWXU, null)
    }),
    ("mknod where something is", "fl", |at| rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0)),
    ("bind a socket", "d", |at| io(std::os::unix::net::UnixListener::bind(at.join("new")))),
    ("bind a socket where something is", "f", |at| io(std::os::unix::net::UnixListener::bind(at))),
    ("create", "dr", |at| open(&at.join("new"), OFlags::CREATE | OFlags::WRONLY)),
    ("create new", "dr", |at| open(&at.join("new"), OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY)),
    ("create to read", "d", |at| open(&at.join("new"), OFlags::CREATE)),
    ("create with slash", "d", |at| open(&at.join("new/"), OFlags::CREATE | OFlags::WRONLY)),
    ("create without a name", "d", |at| open(at, OFlags::TMPFILE | OFlags::RDWR)),
    ("create without a name to write", "d", |at| open(at, OFlags::TMPFILE | OFlags::WRONLY)),
    ("rename", "dfrl", |at| rustix::fs::rename(at, at.with_file_name("new"))),
    ("rename without replacement", "dfr", |at| renamed(at, &at.with_file_name("new"), RenameFlags::NOREPLACE)),
    ("rename to itself", "dfl", |at| rustix::fs::rename(at, at)),
    ("rename to itself without replacement", "df", |at| renamed(at, at, RenameFlags::NOREPLACE)),
    ("rename over another", "df", |at| rustix::fs::rename(at, at.with_file_name("other"))),
    ("rename another over it", "df", |at| rustix::fs::rename(at.with_file_name("other"), at)),
    ("rename below itself", "d", |at| rustix::fs::rename(at, at.join("new"))),
    ("rename above itself", "df", |at| rustix::fs::rename(at, at.parent().expect("a parent").join("../new"))),
    ("rename in exchange", "df", |at| renamed(at, &at.with_file_name("other"), RenameFlags::EXCHANGE)),
    ("rename leaving a whiteout", "df", |at| renamed(at, &at.with_file_name("new"), RenameFlags::WHITEOUT)),
    ("rename with a wrong flag", "df", |at| renamed(at, &at.with_file_name("new"), RenameFlags::from_bits_retain(64))),
    ("rename out", "dfl", |at| rustix::fs::rename(at, elsewhere().join("new"))),
    ("rename in", "d", |at| rustix::fs::rename(elsewhere(), at.join("new"))),
    ("rename nothing", "d", |at| rustix::fs::rename(at.join("no-such"), at.join("new"))),
    ("link", "fr", |at| rustix::fs::link(at, at.with_file_name("new"))),
    ("link of a link", "l", |at| rustix::fs::link(at, at.with_file_name("new"))),
    ("link of a directory", "d", |at| rustix::fs::link(at, at.with_file_name("new"))),
    ("link to what is there", "f", |at| rustix::fs::link(at, at.with_file_name("other"))),
    ("link out", "f", |at| rustix::fs::link(at, elsewhere().join("new"))),
    ("link in", "d", |at| rustix::fs::link("/proc/self/exe", at.join("new"))),
    ("unlink", "frl", |at| rustix::fs::unlink(at)),
    ("unlink a directory", "d", |at| rustix::fs::unlink(at)),
    ("unlink nothing", "d", |at| rustix::fs::unlink(at.join("no-such"))),
    ("chmod", "dfr", |at| rustix::fs::chmod(at, Mode::RWXU)),
    ("chmod to what it is", "df", |at| {
        rustix::fs::chmod(at, Mode::from_raw_mode(rustix::fs::stat(at)?.st_mode & 0o7777))
    }),
    ("chown", "dfr", |at| rustix::fs::chown(at, Some(rustix::process::getuid()), None)),
    ("chown of nothing", "df", |at| rustix::fs::chown(at, None, None)),
    ("chown to root", "df", |at| rustix::fs::chown(at, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT))),
    ("lchown", "dfl", |at| {
        let own = Some(rustix::process::getuid());
        rustix::fs::chownat(CWD, at, own, None, AtFlags::SYMLINK_NOFOLLOW)
    }),
    ("utimes", "dfr", |at| rustix::fs::utimensat(CWD, at, &times(1), AtFlags::empty())),
    ("utimes to now", "df", |at| rustix::fs::utimensat(CWD, at, &times(rustix::fs::UTIME_NOW), AtFlags::empty())),
    ("utimes to what they are", "df", |at| {
        rustix::fs::utimensat(CWD, at, &times(rustix::fs::UTIME_OMIT), AtFlags::empty())
    }),
    ("utimes of a link", "dfl", |at| rustix::fs::utimensat(CWD, at, &times(1), AtFlags::SYMLINK_NOFOLLOW)),
    ("setxattr", "dfr", |at| rustix::fs::setxattr(at, "user.new", b"1", XattrFlags::empty())),
    ("setxattr new", "df", |at| rustix::fs::setxattr(at, "user.new", b"1", XattrFlags::CREATE)),
    ("setxattr what is not there", "df", |at| rustix::fs::setxattr(at, "user.new", b"1", XattrFlags::REPLACE)),
    ("setxattr of ours", "dfr", |at| rustix::fs::setxattr(at, "user.veinfs.source", b"/", XattrFlags::empty())),
    ("setxattr trusted", "df", |at| rustix::fs::setxattr(at, "trusted.new", b"1", XattrFlags::empty())),
    ("setxattr security", "df", |at| rustix::fs::setxattr(at, "security.new", b"1", XattrFlags::empty())),
    ("setxattr unknown", "df", |at| rustix::fs::setxattr(at, "no.such", b"1", XattrFlags::empty())),
    ("setxattr access list", "df", |at| {
        let list = [2, 0, 0, 0].to_vec();
        rustix::fs::setxattr(at, "system.posix_acl_access", &list, XattrFlags::empty())
    }),
    ("lsetxattr", "dfl", |at| rustix::fs::lsetxattr(at, "user.new", b"1", XattrFlags::empty())),
    ("removexattr", "dfr", |at| rustix::fs::removexattr(at, "user.new")),
    ("removexattr of ours", "df", |at| rustix::fs::removexattr(at, "user.veinfs.source")),
    ("removexattr trusted", "df", |at| rustix::fs::removexattr(at, "trusted.new")),
    ("access", "dfm", |at| rustix::fs::access(at, rustix::fs::Access::WRITE_OK)),
    ("truncate", "fm", |at| truncated(at, 0)),
    ("truncate to more", "fm", |at| truncated(at, 1 << 20)),
    ("truncate to less than nothing", "f", |at| truncated(at, -1)),
    ("truncate a directory", "d", |at| truncated(at, 0)),
    ("write", "fm", |at| open(at, OFlags::WRONLY)),
    ("write a directory", "d", |at| open(at, OFlags::WRONLY)),
    ("read and write", "fm", |at| open(at, OFlags::RDWR)),
    ("append", "fm", |at| open(at, OFlags::WRONLY | OFlags::APPEND)),
    ("cut", "fm", |at| open(at, OFlags::RDONLY | OFlags::TRUNC)),
    ("cut and write", "fm", |at| open(at, OFlags::RDWR | OFlags::TRUNC)),
    ("create what is there", "fm", |at| open(at, OFlags::CREATE | OFlags::WRONLY)),
    ("create anew what is there", "df", |at| open(at, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY)),
    ("create a directory by opening it", "d", |at| open(at, OFlags::CREATE | OFlags::WRONLY)),
    // What is open for reading.
    ("ftruncate", "df", |at| rustix::fs::ftruncate(&reading(at)?, 0)),
    ("fallocate", "df", |at| rustix::fs::fallocate(&reading(at)?, FallocateFlags::empty(), 0, 10)),
    ("punch a hole", "df", |at| {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&reading(at)?, hole, 0, 10)
    }),
    ("write to what is read", "df", |at| rustix::io::write(&reading(at)?, b"x").map(drop)),
    ("copy_file_range into it", "df", |at| {
        rustix::fs::copy_file_range(&reading(at)?, None, &reading(at)?, Some(&mut 100), 1).map(drop)
    }),
    ("sendfile into it", "df", |at| {
        let from = File::open("/proc/self/exe").expect("this program");
        rustix::fs::sendfile(&reading(at)?, from, None, 10).map(drop)
    }),
    ("FICLONE into it", "df", |at| rustix::fs::ioctl_ficlone(&reading(at)?, &reading(at)?)),
    ("FS_IOC_SETFLAGS", "df", |at| rustix::fs::ioctl_setflags(&reading(at)?, IFlags::NOATIME)),
    ("fchmod", "df", |at| rustix::fs::fchmod(&reading(at)?, Mode::RWXU)),
    ("fchown", "df", |at| rustix::fs::fchown(&reading(at)?, Some(rustix::process::getuid()), None)),
    ("futimens", "df", |at| rustix::fs::futimens(&reading(at)?, &times(1))),
    ("fsetxattr", "df", |at| rustix::fs::fsetxattr(&reading(at)?, "user.new", b"1", XattrFlags::empty())),
    ("fremovexattr", "df", |at| rustix::fs::fremovexattr(&reading(at)?, "user.new")),
    ("link what is open", "f", |at| {
        let open = reading(at)?;
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        rustix::fs::linkat(CWD, again, CWD, at.with_file_name("new"), AtFlags::SYMLINK_FOLLOW)
    }),
];

fn open(path: &Path, flags: OFlags) -> Result<(), Errno> {
    rustix::fs::open(path, flags, Mode::RWXU).map(drop)
}

fn reading(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY, Mode::empty())
}

fn renamed(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}

fn truncated(path: &Path, length: i64) -> Result<(), Errno> {
    nix::unistd::truncate(path, length).map_err(|error| Errno::from_raw_os_error(error as i32))
}

fn io<T>(result: std::io::Result<T>) -> Result<(), Errno> {
    result.map(drop).map_err(|error| Errno::from_io_error(&error).expect("an error of the system"))
}

fn times(nanoseconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: 1, tv_nsec: nanoseconds as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// A directory of another file system, into which something would go.
fn elsewhere() -> PathBuf {
    PathBuf::from("/proc/self")
}

/// Everything of the mount, a pattern's match `run/a` with what is in it and `.veinfs`, below its root.
const ENTRIES: [&str; 13] = [
    "",
    "run",
    "run/a",
    "run/a/data.csv",
    "run/a/other",
    "run/a/dangling",
    "run/a/sub",
    "run/a/sub/more.csv",
    "run/a/sub/other",
    ".veinfs",
    ".veinfs/status.json",
    ".veinfs/patterns",
    ".veinfs/patterns/run.json",
];

const SOURCE: [&str; 5] = ["a/data.csv=1,2", "a/other=3", "a/sub/more.csv=4", "a/sub/other=5", "a/dangling -> no-such"];

/// A tree of the shape that the mount has, with its owners and modes.
fn shape(mount: &Path, like: &Path) {
    let mut modes = Vec::new();
    for entry in ENTRIES {
        let (shown, at) = (mount.join(entry), like.join(entry));
        let meta = fs::symlink_metadata(&shown).unwrap_or_else(|e| panic!("{entry}: {e}"));
        match meta.file_type() {
            kind if kind.is_symlink() => symlink("no-such", &at).expect("a link"),
            kind if kind.is_dir() => fs::create_dir_all(&at).expect("a directory"),
            _ => fs::write(&at, entry).expect("a file"),
        }
        std::os::unix::fs::lchown(&at, Some(meta.uid()), Some(meta.gid())).expect("an owner");
        modes.push((at, meta));
    }
    for (at, meta) in modes.iter().rev().filter(|(_, meta)| !meta.is_symlink()) {
        fs::set_permissions(at, Permissions::from_mode(meta.mode() & 0o7777)).expect("a mode");
    }
}

fn outcomes(reference: &Site, mount: &Site) -> Outcomes {
    let mut all = Outcomes::new();
    for entry in ENTRIES {
        let at = reference.at(entry);
        let kind = match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => 'l',
            Ok(meta) if meta.is_dir() => 'd',
            // Behind a directory that is shut it makes no difference.
            _ => 'f',
        };
        for (name, on, change) in CHANGES.iter().filter(|(_, on, _)| on.contains(kind)) {
            let came = [reference, mount].map(|site| {
                // Joined with nothing it would get a slash.
                let at = if entry.is_empty() { site.root.clone() } else { site.at(entry) };
                said(change(&at))
            });
            let refused = ["EROFS", "EACCES"].contains(&&*came[0]) || !on.contains(['r', 'm']) || entry.is_empty();
            assert!(refused, "{name} of {entry}: the reference is no read-only file system: {came:?}");
            all.insert(format!("{name}: /{entry}"), came);
        }
    }
    all
}

/// All that a tree is, so that a change would be seen.
fn state(root: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(root).sort_by_file_name();
    let told = entries.into_iter().map(|entry| {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("attributes");
        let path = CString::new(entry.path().as_os_str().as_bytes()).expect("a path");
        let xattrs = rustix::fs::llistxattr(&path, &mut [0u8; 4096][..]);
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        format!("{path:?} {:o} {} {} {} {times:?} {xattrs:?}", meta.mode(), meta.uid(), meta.nlink(), meta.len())
    });
    told.collect()
}

/// Holds what comes of every change on a mount against what comes of it on a read-only one of the same shape; `who`
/// tries, root if that is nobody.
fn compare(run: &str, words: &[&str], owner: Option<u32>, who: Option<u32>) {
    let bed = TestBed::new(&SOURCE);
    if let Some(owner) = owner {
        for entry in walkdir::WalkDir::new(&bed.src) {
            std::os::unix::fs::lchown(entry.expect("an entry").path(), Some(owner), Some(owner)).expect("an owner");
        }
    }
    let pattern = bed.file("run.yaml", "name: run\nfiles: [data.csv]\n");
    mount_as(&bed, owner, &[&["-p", &pattern, "--view", "all", "--symlinks", "keep"], words].concat());
    let before = state(&bed.src);
    let like = bed.dir.join("like");
    fs::create_dir(&like).expect("a directory");
    shape_as(owner, &bed, &like);
    let reference = Reference::new(&like, bed.dir.join("reference"));
    let site = |root: &Path| Site { root: root.into(), scratch: bed.dir.clone() };
    let (expected, came) = (site(&reference.0), site(&bed.mnt));
    let outcomes = match who {
        None => outcomes(&expected, &came),
        Some(who) => outcomes_of(who, "refusals::child_tells_what_came", &bed, &expected, &came),
    };
    assert!(outcomes.len() > 500, "{} cases", outcomes.len());
    judge(run, &outcomes, &[DELIBERATE, KNOWN]);
    assert_eq!(state(&bed.src), before, "something was changed in the source");
}

/// The same, of what an ordinary user's mount shows to nobody else.
fn shape_as(owner: Option<u32>, bed: &TestBed, like: &Path) {
    let Some(owner) = owner else { return shape(&bed.mnt, like) };
    std::os::unix::fs::chown(like, Some(owner), Some(owner)).expect("an owner");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "refusals::child_makes_the_shape", "--nocapture"]).uid(owner).gid(owner).current_dir("/");
    Output::of(command.env(SHAPE, std::env::join_paths([&bed.mnt, like]).expect("paths"))).ok();
}

const SHAPE: &str = "VEINFS_TEST_REFUSALS_SHAPE";

/// The other half of `shape_as`, as another user.
#[test]
fn child_makes_the_shape() {
    if let Some(paths) = std::env::var_os(SHAPE) {
        let paths: Vec<PathBuf> = std::env::split_paths(&paths).collect();
        shape(&paths[0], &paths[1]);
    }
}

/// The other half of the tests below, as another user.
#[test]
fn child_tells_what_came() {
    tell(outcomes);
}

const OWN: &[&str] = &["own"];
const WE_REFUSE: &str =
    "an ordinary user's mount is open for writing to the kernel, which finds other faults before it asks veinfs";
const ORDER: &str = "an ordinary user's mount asks veinfs first, which is read-only before anything else";
const NOTHING: &str = "the kernel sees that there is nothing to do, and does not ask";

/// Refused, in other words; or nothing that would change anything.
const DELIBERATE: &[Difference] = &[
    differs("rename to itself: /?*", OWN, "ok", NOTHING),
    differs("rename {over another,another over it,in exchange}: */other", OWN, "ok", NOTHING),
    differs("{access,append,read and write,truncate,truncate to more,write}: /.veinfs/*.json", OWN, "EROFS", ORDER),
    differs("create what is there: /.veinfs/*.json", OWN, "EROFS", ORDER),
    differs("access: {/,/run,/.veinfs,/.veinfs/patterns}", OWN, "EROFS", ORDER),
    differs("FS_IOC_SETFLAGS: *", OWN, "ENOTTY", WE_REFUSE),
    differs("link in: *", OWN, "EXDEV", WE_REFUSE),
    differs("link of a directory: /?*", OWN, "EPERM", WE_REFUSE),
    differs("lsetxattr: /run/a/dangling", OWN, "EPERM", WE_REFUSE),
    differs("mknod device: *", OWN, "EPERM", WE_REFUSE),
    differs("{setxattr trusted,setxattr security,removexattr trusted}: *", OWN, "EPERM", WE_REFUSE),
    differs("rename another over it: /run/a/sub", OWN, "EISDIR", WE_REFUSE),
    differs("rename over another: /run/a/sub", OWN, "ENOTDIR", WE_REFUSE),
    differs("rename {another over it,in exchange}: {/.veinfs*,/run,/run/a}", OWN, "ENOENT", WE_REFUSE),
    differs("rename below itself: /?*", OWN, "EINVAL", WE_REFUSE),
    differs("rename to itself without replacement: /?*", OWN, "EEXIST", WE_REFUSE),
    differs("{rename,rmdir of,unlink} nothing: *", OWN, "ENOENT", WE_REFUSE),
    differs("rmdir of a file: *", OWN, "ENOTDIR", WE_REFUSE),
    differs("unlink a directory: /?*", OWN, "EISDIR", WE_REFUSE),
];

/// What should be mended; the test fails when there is no difference any more.
const KNOWN: &[Difference] = &[];

fn can_compare() -> bool {
    can_mount() && is_root()
}

#[test]
fn of_root() {
    if can_compare() {
        compare("root", &[], None, None);
    }
}

#[test]
fn of_root_and_another_user_on_a_shared_mount() {
    if can_compare() {
        compare("root shared", &["-o", "allow_other"], None, None);
        compare("shared", &["-o", "allow_other"], None, Some(USER));
    }
}

const AS_USER: &str = "VEINFS_TEST_REFUSALS_AS_USER";

/// The other half of the next test, where everybody may mount.
#[test]
fn child_mounts_as_an_ordinary_user() {
    if std::env::var_os(AS_USER).is_some() {
        compare("own", &[], Some(USER), Some(USER));
    }
}

#[test]
fn of_an_ordinary_user_on_an_own_mount() {
    if can_compare() && has("unshare") && has("fusermount3") {
        run_for_all("refusals::child_mounts_as_an_ordinary_user", AS_USER);
    }
}
