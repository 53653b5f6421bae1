//! A tree of odd files: sizes around those at which something changes, holes, modes, links, names.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::bed::lay_out;

/// Entries of the directory that is listed from everywhere.
pub(super) const MANY: usize = 5000;
/// Directories below each other.
pub(super) const DEPTH: usize = 40;

/// Regular files by what is odd about them.
pub(super) const FILES: [&str; 17] = [
    "empty",
    "one",
    "page-1",
    "page",
    "page+1",
    "128k-1",
    "128k",
    "128k+1",
    "1m+3",
    "sparse",
    "hole",
    "mode000",
    "mode400",
    "mode755",
    "suid",
    "old",
    "dir/sub/file",
];

/// Symbolic links that lead to something.
pub(super) const LINKS: [&str; 6] = ["link", "link-abs", "link-link", "link-dir", "dir/up-file", "link-elsewhere"];
/// Symbolic links that do not, or that lead back above themselves.
pub(super) const LOST: [&str; 5] = ["dangling", "dangling-abs", "loop", "loop-a", "up"];
/// Directories.
pub(super) const DIRS: [&str; 8] = [".", "dir", "dir/sub", "bare", "private", "unsearchable", "unlisted", "sticky"];
/// What is neither.
pub(super) const SPECIAL: [&str; 3] = ["fifo", "socket", "null"];

/// A name that is no UTF-8.
pub(super) fn wrong_name() -> &'static OsStr {
    OsStr::from_bytes(b"wrong \xff\xc3(\n")
}

/// The path of the deepest file.
pub(super) fn deepest() -> PathBuf {
    let mut path = PathBuf::from("deep");
    path.extend((0..DEPTH).map(|level| format!("level-{level}")));
    path.join("file")
}

/// Bytes that differ at every place (a linear congruence, its high byte).
fn bytes(length: usize) -> Vec<u8> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 56) as u8)
    };
    let mut state = 1;
    std::iter::from_fn(|| next(&mut state)).take(length).collect()
}

/// Grows the tree at `root`, a directory that is there; `owner` owns it all where this is given.
pub(super) fn grow(root: &Path, owner: Option<u32>) {
    files(root);
    directories(root);
    links(root);
    special(root);
    attributes(root);
    if let Some(owner) = owner {
        chown_all(root, owner);
    }
    modes(root);
}

fn files(root: &Path) {
    let sizes = [
        ("empty", 0),
        ("one", 1),
        ("page-1", 4095),
        ("page", 4096),
        ("page+1", 4097),
        ("128k-1", (128 << 10) - 1),
        ("128k", 128 << 10),
        ("128k+1", (128 << 10) + 1),
        ("1m+3", (1 << 20) + 3),
        ("mode000", 1000),
        ("mode400", 1000),
        ("mode755", 1000),
        ("suid", 1000),
        ("old", 1000),
    ];
    for (name, size) in sizes {
        fs::write(root.join(name), bytes(size)).expect("a file");
    }
    fs::write(root.join(wrong_name()), "wrong").expect("a file");
    fs::write(root.join("n".repeat(255)), "long").expect("a file");
    fs::write(root.join("script"), "#!/bin/sh\necho \"ran with $1\"\n").expect("a script");
    fs::write(root.join("text"), "neither program nor script\n").expect("a file");
    fs::copy(fs::canonicalize("/bin/echo").expect("echo"), root.join("elf")).expect("a program");
    fs::hard_link(root.join("page"), root.join("hard")).expect("a hard link");
    let file = File::create(root.join("sparse")).expect("a file");
    file.set_len(3 << 20).and_then(|()| file.write_all_at(&bytes(5000), 1 << 20)).expect("a sparse file");
    File::create(root.join("hole")).and_then(|file| file.set_len(1 << 20)).expect("a hole");
}

fn directories(root: &Path) {
    lay_out(
        root,
        &[
            "dir/sub/file=below",
            "dir/one=1",
            "bare/",
            "private/inside=kept",
            "unsearchable/inside=kept",
            "unlisted/inside=found",
            "sticky/inside=1",
        ],
    );
    lay_out(root, &[format!("{}=deep", deepest().display())]);
    lay_out(root, &(0..MANY).map(|n| format!("many/entry number {n}=")).collect::<Vec<_>>());
}

fn links(root: &Path) {
    let absolute = |name: &str| root.join(name).into_os_string();
    let elsewhere = root.parent().expect("a parent").join("elsewhere");
    fs::write(&elsewhere, "outside").expect("a file");
    let links = [
        ("link", "page".into()),
        ("link-abs", absolute("page")),
        ("link-link", "link".into()),
        ("link-dir", "dir".into()),
        ("dir/up-file", "../page".into()),
        ("link-elsewhere", elsewhere.into_os_string()),
        ("dangling", "no-such".into()),
        ("dangling-abs", absolute("no-such")),
        ("loop", "loop".into()),
        ("loop-a", "loop-b".into()),
        ("loop-b", "loop-a".into()),
        ("up", ".".into()),
    ];
    for (name, text) in links {
        symlink(text, root.join(name)).expect("a link");
    }
}

fn special(root: &Path) {
    lay_out(root, &["fifo|"]);
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).expect("a socket"));
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), null)
        .expect("a device");
}

fn attributes(root: &Path) {
    for (file, name, value) in [
        ("page", "user.colour", &b"blue"[..]),
        ("page", "user.none", b""),
        ("page", "user.long", &[7; 900]),
        ("dir", "user.colour", b"green"),
        ("page", "trusted.colour", b"red"),
    ] {
        rustix::fs::setxattr(root.join(file), name, value, XattrFlags::empty()).expect("an xattr");
    }
    let time = Timespec { tv_sec: -86_401, tv_nsec: 999_999_999 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, root.join("old"), &times, AtFlags::empty()).expect("times");
}

fn chown_all(root: &Path, owner: u32) {
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("an entry");
        std::os::unix::fs::lchown(entry.path(), Some(owner), Some(owner)).expect("an owner");
    }
}

fn modes(root: &Path) {
    let modes = [
        ("mode000", 0o000),
        ("mode400", 0o400),
        ("mode755", 0o755),
        ("suid", 0o4755),
        ("script", 0o755),
        ("elf", 0o755),
        ("text", 0o755),
        ("private", 0o700),
        ("unsearchable", 0o644),
        ("unlisted", 0o711),
        ("sticky", 0o1777),
    ];
    for (name, mode) in modes {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).expect("a mode");
    }
}
