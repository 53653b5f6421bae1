//! Attributes, access, links, names and paths.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::cases::{Site, Table, digest, errno, open, said, said_as};
use super::fixture::{DIRS, FILES, LINKS, LOST, SPECIAL, deepest, wrong_name};

/// Paths that lead somewhere or not, in all the ways in which paths can be odd.
fn odd_paths() -> Vec<(String, PathBuf)> {
    let long = |length: usize| "n".repeat(length);
    let below_link = |name: &str| PathBuf::from("link-dir").join(name);
    // Every `dir/..` is seven bytes with its slash.
    let up_and_down = |length: usize| {
        let mut path = "dir/../".repeat(length / 7);
        path.push_str(&"/".repeat(length % 7));
        path
    };
    let mut all: Vec<(String, PathBuf)> = [
        "no-such",
        "no-such/",
        "no-such/x",
        "one/",
        "one/.",
        "one/..",
        "one/x",
        "page/x/y",
        "dir/",
        "dir/.",
        "dir//",
        "dir/./one",
        "dir/../one",
        "dir/sub/../one",
        "dir/no-such/../one",
        "private/inside",
        "private/no-such",
        "unsearchable/inside",
        "unsearchable/no-such",
        "unlisted/inside",
        "unlisted/no-such",
        "fifo/",
        "fifo/x",
        "dangling/",
        "dangling/x",
        "loop/",
        "loop/x",
        "link/",
        "link/x",
        "up/one",
        "up/up/up/one",
        "dir/sub/../../one",
        ".",
        "./",
        "./.",
        "many/entry number 4999",
        "many/entry number 5000",
        "many/Entry number 1",
        "hard",
        "script",
        "elf",
        "sticky/inside",
        " ",
        "one ",
        "ONE",
        "*",
        "\n",
        "dir\\one",
        "-",
        "...",
        ".veinfs",
        ".veinfs/status.json",
        ".git",
    ]
    .iter()
    .map(|path| ((*path).to_owned(), PathBuf::from(path)))
    .collect();
    let named: Vec<(&str, PathBuf)> = vec![
        ("name of 255", long(255).into()),
        ("name of 255 with slash", format!("{}/", long(255)).into()),
        ("missing name of 255", "m".repeat(255).into()),
        ("name of 256", long(256).into()),
        ("name of 1024", long(1024).into()),
        ("name of 1025", long(1025).into()),
        ("name of 4095", long(4095).into()),
        ("name of 256 below", PathBuf::from("dir").join(long(256))),
        ("name of 256 below nothing", PathBuf::from("no-such").join(long(256))),
        ("name of 256 below a file", PathBuf::from("one").join(long(256))),
        ("path of 3500", up_and_down(3500).into()),
        ("path of 4200", up_and_down(4200).into()),
        ("missing path of 4200", format!("{}/x", long(4200)).into()),
        ("wrong name", wrong_name().into()),
        ("missing wrong name", OsStr::from_bytes(b"\xff").into()),
        ("deepest", deepest()),
        ("below the deepest", deepest().join("x")),
        ("one below a link", below_link("one")),
        ("nothing below a link", below_link("no-such")),
        ("above a link", below_link("..")),
    ];
    all.extend(named.into_iter().map(|(name, path)| (name.to_owned(), path)));
    all
}

/// All that there is.
fn entries() -> impl Iterator<Item = &'static str> {
    FILES.into_iter().chain(DIRS).chain(SPECIAL).chain(LINKS).chain(LOST)
}

pub(super) fn add(table: &mut Table) {
    stats(table);
    statx(table);
    accesses(table);
    links(table);
    paths(table);
}

/// What `stat` says but for times of access, which reading moves on; numbers of devices and inodes, and links of
/// directories, and the length of links are cases of their own.
fn shown(stat: &Stat) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let links = if kind.is_dir() { String::new() } else { format!(" nlink {}", stat.st_nlink) };
    let size = if kind.is_symlink() { "of its text".to_owned() } else { stat.st_size.to_string() };
    format!(
        "{:o} {}:{} size {size} blocks {} of {} mtime {}.{:09} ctime {}.{:09} rdev {:x}{links}",
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        stat.st_blocks,
        stat.st_blksize,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
        stat.st_rdev
    )
}

fn stat_of(result: Result<Stat, Errno>) -> String {
    said_as(result, |stat| shown(&stat))
}

fn stats(table: &mut Table) {
    for path in entries() {
        table.add(format!("stat {path}"), move |site| stat_of(rustix::fs::stat(site.at(path))));
        table.add(format!("lstat {path}"), move |site| stat_of(rustix::fs::lstat(site.at(path))));
        table.add(format!("fstat {path}"), move |site| {
            let fd = open(&site.at(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW);
            stat_of(fd.and_then(|fd| rustix::fs::fstat(&fd)))
        });
        table.add(format!("fstat O_PATH {path}"), move |site| {
            let fd = open(&site.at(path), OFlags::PATH | OFlags::NOFOLLOW);
            stat_of(fd.and_then(|fd| rustix::fs::fstat(&fd)))
        });
    }
    table.add("fstatat below a descriptor", |site| {
        said_as(open(&site.at("dir"), OFlags::PATH), |dir| {
            let stat = |path: &str, flags| stat_of(rustix::fs::statat(&dir, path, flags));
            [
                stat("one", AtFlags::empty()),
                stat("../page", AtFlags::empty()),
                stat("sub/", AtFlags::SYMLINK_NOFOLLOW),
                stat("", AtFlags::EMPTY_PATH),
                stat("", AtFlags::empty()),
                stat("no-such", AtFlags::EMPTY_PATH),
                stat("one", AtFlags::NO_AUTOMOUNT),
            ]
            .join(" / ")
        })
    });
    table.add("fstatat below a file", |site| {
        let file = open(&site.at("one"), OFlags::RDONLY);
        stat_of(file.and_then(|file| rustix::fs::statat(&file, "x", AtFlags::empty())))
    });
    table.add("hard links are one inode", |site| {
        let ino = |path| rustix::fs::stat(site.at(path)).map(|stat| (stat.st_dev, stat.st_ino));
        (ino("hard") == ino("page") && ino("hard") != ino("one")).to_string()
    });
    table.add("all is on one device", |site| {
        let dev = |path: &str| rustix::fs::lstat(site.at(path)).map_or(0, |stat| stat.st_dev);
        entries().all(|path| path.starts_with("private/") || dev(path) == dev(".")).to_string()
    });
    table.add("number of the device", |site| said_as(rustix::fs::stat(site.at("one")), |stat| stat.st_dev));
    table.add("number of an inode", |site| said_as(rustix::fs::stat(site.at("one")), |stat| stat.st_ino));
    table.add("links of a directory", |site| said_as(rustix::fs::stat(site.at("dir")), |stat| stat.st_nlink));
}

fn statx(table: &mut Table) {
    for path in ["one", "sparse", "dir", "fifo", "private", "."] {
        for (label, mask) in [
            ("basic", StatxFlags::BASIC_STATS),
            ("birth", StatxFlags::BTIME),
            ("all", StatxFlags::BASIC_STATS.union(StatxFlags::BTIME)),
            ("size", StatxFlags::SIZE),
            ("nothing", StatxFlags::empty()),
        ] {
            table.add(format!("statx {label} {path}"), move |site| {
                said_as(rustix::fs::statx(CWD, site.at(path), AtFlags::empty(), mask), |got| {
                    // It may tell more than it was asked for.
                    let told = StatxFlags::from_bits_retain(got.stx_mask) & mask;
                    let birth = if told.contains(StatxFlags::BTIME) {
                        format!("{}.{:09}", got.stx_btime.tv_sec, got.stx_btime.tv_nsec)
                    } else {
                        "unknown".into()
                    };
                    format!("{:x} {:o} {} born {birth}", told.bits(), got.stx_mode, got.stx_size)
                })
            });
        }
        for (label, flags) in [
            ("FORCE_SYNC", AtFlags::STATX_FORCE_SYNC),
            ("DONT_SYNC", AtFlags::STATX_DONT_SYNC),
            ("both", AtFlags::STATX_FORCE_SYNC.union(AtFlags::STATX_DONT_SYNC)),
            ("NOFOLLOW", AtFlags::SYMLINK_NOFOLLOW),
        ] {
            table.add(format!("statx {label} {path}"), move |site| {
                said_as(rustix::fs::statx(CWD, site.at(path), flags, StatxFlags::BASIC_STATS), |got| {
                    format!("{:o} {} {}.{:09}", got.stx_mode, got.stx_size, got.stx_mtime.tv_sec, got.stx_mtime.tv_nsec)
                })
            });
        }
    }
    table.add("statx of a root of a mount", |site| {
        said_as(rustix::fs::statx(CWD, site.at("dir"), AtFlags::empty(), StatxFlags::BASIC_STATS), |got| {
            got.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
        })
    });
}

fn accesses(table: &mut Table) {
    let modes = [
        ("F", Access::EXISTS),
        ("R", Access::READ_OK),
        ("W", Access::WRITE_OK),
        ("X", Access::EXEC_OK),
        ("RW", Access::READ_OK.union(Access::WRITE_OK)),
        ("RX", Access::READ_OK.union(Access::EXEC_OK)),
    ];
    let more = ["no-such", "one/x", "script", "private/inside", "unsearchable/inside", "unlisted/inside"];
    // What is behind a link may be written to.
    let paths = FILES.into_iter().chain(DIRS).chain(SPECIAL).chain(more);
    for path in paths {
        for (label, mode) in modes {
            table.add(format!("access {label} {path}"), move |site| said(rustix::fs::access(site.at(path), mode)));
        }
    }
    for path in ["one", "mode000", "mode755", "private", "dir", "dangling", "link-dir"] {
        table.add(format!("faccessat2 {path}"), move |site| {
            let ask = |mode, flags| said(rustix::fs::accessat(CWD, site.at(path), mode, flags));
            let (effective, nofollow) = (AtFlags::EACCESS, AtFlags::SYMLINK_NOFOLLOW);
            [
                ask(Access::READ_OK, effective),
                ask(Access::EXEC_OK, effective),
                ask(Access::READ_OK, nofollow),
                ask(Access::WRITE_OK, nofollow),
                ask(Access::EXISTS, effective | nofollow),
            ]
            .join(" ")
        });
    }
}

fn links(table: &mut Table) {
    for path in LINKS.into_iter().chain(LOST) {
        table.add(format!("readlink {path}"), move |site| text(site, path));
        table.add(format!("readlink into three bytes {path}"), move |site| {
            let mut into = [0; 3];
            said_as(rustix::fs::readlinkat_raw(CWD, site.at(path), &mut into[..]), |count| count)
        });
        table.add(format!("a link is as long as its text {path}"), move |site| {
            let length = rustix::fs::lstat(site.at(path)).map(|stat| stat.st_size as usize);
            let text = rustix::fs::readlink(site.at(path), Vec::new()).map(|text| text.as_bytes().len());
            (length == text).to_string()
        });
        table.add(format!("open {path} RESOLVE_NO_SYMLINKS"), move |site| {
            resolved(site, path, ResolveFlags::NO_SYMLINKS)
        });
    }
    for path in FILES.into_iter().chain(DIRS).chain(SPECIAL) {
        table.add(format!("readlink {path}"), move |site| text(site, path));
    }
    for path in ["no-such", "link/", "link-dir/", "one/x", "private/inside"] {
        table.add(format!("readlink {path}"), move |site| text(site, path));
    }
    for path in ["one", "dir/sub", "dir/../one", "no-such", "deep/.."] {
        for (label, how) in [
            ("BENEATH", ResolveFlags::BENEATH),
            ("IN_ROOT", ResolveFlags::IN_ROOT),
            ("NO_XDEV", ResolveFlags::NO_XDEV),
            ("NO_MAGICLINKS", ResolveFlags::NO_MAGICLINKS),
        ] {
            table.add(format!("open {path} RESOLVE_{label}"), move |site| resolved(site, path, how));
        }
    }
}

fn text(site: &Site, path: &str) -> String {
    said_as(rustix::fs::readlink(site.at(path), Vec::new()), |text| {
        Path::new(OsStr::from_bytes(text.as_bytes())).display().to_string()
    })
}

fn resolved(site: &Site, path: &str, how: ResolveFlags) -> String {
    said_as(open(&site.root, OFlags::PATH), |root| {
        // Something was renamed or mounted anywhere meanwhile: the kernel asks for another try (openat2(2), EAGAIN).
        let opened = std::iter::repeat_with(|| rustix::fs::openat2(&root, path, OFlags::RDONLY, Mode::empty(), how));
        said(opened.take(1000).find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN)))
    })
}

fn paths(table: &mut Table) {
    for (label, path) in odd_paths() {
        let (a, b, c, d) = (path.clone(), path.clone(), path.clone(), path);
        table.add(format!("path stat {label}"), move |site| stat_of(rustix::fs::stat(joined(site, &a))));
        table.add(format!("path lstat {label}"), move |site| stat_of(rustix::fs::lstat(joined(site, &b))));
        table.add(format!("path open {label}"), move |site| {
            said(open(&joined(site, &c), OFlags::RDONLY | OFlags::NONBLOCK))
        });
        table.add(format!("path readlink {label}"), move |site| {
            said_as(rustix::fs::readlink(joined(site, &d), Vec::new()), |_| "a text")
        });
    }
    table.add("path below descriptors all the way down", |site| {
        let mut at: OwnedFd = match open(&site.root, OFlags::PATH) {
            Ok(fd) => fd,
            Err(error) => return errno(error),
        };
        for name in deepest().parent().expect("a directory").components() {
            match rustix::fs::openat(&at, name.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(fd) => at = fd,
                Err(error) => return format!("{name:?}: {}", errno(error)),
            }
        }
        let file = rustix::fs::openat(&at, "file", OFlags::RDONLY, Mode::empty());
        let mut into = [0; 100];
        said_as(file.and_then(|file| rustix::io::read(&file, &mut into)), |count| digest(&into[..count]))
    });
    table.add("path through /proc/self/fd", |site| {
        said_as(open(&site.at("page"), OFlags::PATH), |fd| {
            let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
            said_as(open(Path::new(&again), OFlags::RDONLY), |fd| {
                let mut into = [0; 4096];
                said_as(rustix::io::read(&fd, &mut into), |count| digest(&into[..count]))
            })
        })
    });
    table.add("canonical paths", |site| {
        let root = site.root.canonicalize().expect("the root");
        ["dir/../one", "dir/./sub", "many/../dir/one"]
            .map(|path| match site.at(path).canonicalize() {
                Ok(real) => real.strip_prefix(&root).map_or("elsewhere".into(), |path| path.display().to_string()),
                Err(error) => error.to_string(),
            })
            .join(" ")
    });
}

/// The path as it is: joining takes slashes away.
fn joined(site: &Site, path: &Path) -> PathBuf {
    let mut all = site.root.clone().into_os_string();
    all.push("/");
    all.push(path);
    all.into()
}
