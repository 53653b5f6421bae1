//! Where a mount is not what a read-only mount of its source is.
//!
//! Runs: `auto`, `cached` and `passthrough` are root's own mounts with `--symlinks keep`, one for each way of opening
//! files; `follow` is a mount by default, `shared` another user on root's mount with `allow_other`, `own` an ordinary
//! user on a mount of its own.

use std::fmt;

/// Cases for which a mount says another thing than its reference.
#[derive(Debug)]
pub(crate) struct Difference {
    /// A glob that matches the names of cases, each of which differs; only one entry matches a case.
    pub(crate) case: &'static str,
    /// In which runs; in all if there are none.
    pub(crate) on: &'static [&'static str],
    /// A glob that matches what the mount says.
    pub(crate) says: &'static str,
    /// True if they differ whatever the source's file system is.
    pub(crate) always: bool,
    /// Why they differ.
    pub(crate) why: &'static str,
}

impl Difference {
    pub(crate) fn is_about(&self, run: &str) -> bool {
        self.on.is_empty() || self.on.contains(&run)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({:?}, because {})", self.case, self.says, self.why)
    }
}

/// What differs always.
pub(crate) const fn differs(
    case: &'static str,
    on: &'static [&'static str],
    says: &'static str,
    why: &'static str,
) -> Difference {
    Difference { case, on, says, always: true, why }
}

/// What differs if the source's file system can what a mount cannot.
const fn may_differ(
    case: &'static str,
    on: &'static [&'static str],
    says: &'static str,
    why: &'static str,
) -> Difference {
    Difference { case, on, says, always: false, why }
}

const ALL: &[&str] = &[];
const ROOT: &[&str] = &["auto", "cached", "passthrough", "follow"];
const ROOT_OR_OWN: &[&str] = &["auto", "cached", "passthrough", "follow", "own"];
const KEEP: &[&str] = &["auto", "cached", "passthrough", "shared", "own"];
const FOLLOW: &[&str] = &["follow"];
const OWN: &[&str] = &["own"];

const NUMBERS: &str = "numbers of its own, which stay over remounts";
const ABSOLUTE: &str = "a link says where it leads from anywhere";
const FOLLOWED: &str = "a link is shown as what it leads to";
const TWO_SYSTEMS: &str = "the kernel copies within one file system; programs then copy by themselves";
const OURS: &str = "user.veinfs.* is listed too";
const NO_SUCH_CALL: &str = "FUSE passes ioctls on only to daemons that ask for them";
const LARGEST: &str = "FUSE has files of any size, and the source's file system has not";
const GUESSED: &str = "the C library guesses by the type of the file system";
const WE_OPEN: &str = "an ordinary user's mount is open for writing to the kernel, and refused by veinfs after that";
const ORDER: &str = "an ordinary user's mount asks veinfs first, which is read-only before anything else";
const UNASKED: &str = "without default_permissions the kernel does not look at modes here";

/// What is so on purpose, or is the kernel's doing for all FUSE file systems.
pub(crate) const DELIBERATE: &[Difference] = &[
    differs("number of {an inode,the device}", ALL, "*", NUMBERS),
    may_differ("links of a directory", ALL, "1", "what a directory holds in the view is the view's choice"),
    differs("readlink {dangling,loop,loop-a,up}", ALL, "/*/src/*", ABSOLUTE),
    differs("readlink {link,link-dir,link-link,dir/up-file}", KEEP, "/*/src/*", ABSOLUTE),
    differs("readlink into three bytes up", ALL, "3", ABSOLUTE),
    differs("readlink {link,link-abs,link-dir,link-elsewhere,link-link,dir/up-file}", FOLLOW, "EINVAL", FOLLOWED),
    differs("readlink into three bytes {link,link-*,dir/up-file}", FOLLOW, "EINVAL", FOLLOWED),
    differs("a link is as long as its text {link,link-*,dir/up-file}", FOLLOW, "false", FOLLOWED),
    differs("lstat {link,link-*,dir/up-file}", FOLLOW, "*", FOLLOWED),
    differs("fstat {link,link-*,dir/up-file}", FOLLOW, "*", FOLLOWED),
    differs("fstat O_PATH {link,link-*,dir/up-file}", FOLLOW, "*", FOLLOWED),
    differs("open {link,link-*,dir/up-file} NOFOLLOW", FOLLOW, "* first *", FOLLOWED),
    differs("open link-dir DIRECTORY|NOFOLLOW", FOLLOW, "* first EISDIR", FOLLOWED),
    differs("open {link,link-*,dir/up-file} RESOLVE_NO_SYMLINKS", FOLLOW, "ok", FOLLOWED),
    differs("getdents . {280,300,4096,1048576,again}", FOLLOW, "*", FOLLOWED),
    differs("getdents dir {64,280,300,4096,1048576,again}", FOLLOW, "*", FOLLOWED),
    differs("{lgetxattr,llistxattr} link", FOLLOW, "*", FOLLOWED),
    differs(
        "copy_file_range {128*,1m+3,dir/sub/file,empty,hole,mode755,old,one,page*,sparse,suid} beside",
        ALL,
        "EXDEV after 0:*",
        TWO_SYSTEMS,
    ),
    differs("copy_file_range mode400 beside", ROOT_OR_OWN, "EXDEV after 0:*", TWO_SYSTEMS),
    differs("copy_file_range mode000 beside", ROOT, "EXDEV after 0:*", TWO_SYSTEMS),
    differs("copy_file_range link beside", FOLLOW, "EXDEV after 0:*", TWO_SYSTEMS),
    differs("FICLONE into a file beside", ALL, "EXDEV", TWO_SYSTEMS),
    differs("epoll page", ALL, "ok", "FUSE lets any file be waited for, and it is always ready"),
    may_differ("FS_IOC_GETFLAGS {page,dir,empty}", ALL, "ENOTTY", NO_SUCH_CALL),
    may_differ("ioctl FS_IOC_{FSGETXATTR,GETVERSION} *", ALL, "ENOTTY", NO_SUCH_CALL),
    may_differ("ioctl FS_IOC_FIEMAP *", ALL, "ENOTSUP", NO_SUCH_CALL),
    differs("listxattr into one byte {empty,mode000}", ALL, "ERANGE", OURS),
    differs("listxattr into one byte private/inside", ROOT_OR_OWN, "ERANGE", OURS),
    may_differ(
        "lseek {128*,1m+3,dir/sub/file,empty,hole,mode755,old,one,page*,sparse,suid} SET max",
        ALL,
        "9223372036854775807 then *",
        LARGEST,
    ),
    may_differ("lseek mode400 SET max", ROOT_OR_OWN, "9223372036854775807 then *", LARGEST),
    may_differ("lseek mode000 SET max", ROOT, "9223372036854775807 then *", LARGEST),
    may_differ("pathconf PC_{FILESIZEBITS,LINK_MAX} {dir,page,private/inside}", ALL, "{32,127}", GUESSED),
    may_differ("getxattr security.selinux *", ALL, "EOPNOTSUPP*", NO_LABELS),
    differs("statfs type", ALL, "65735546", "it is a FUSE file system"),
    may_differ("pread * O_DIRECT unaligned", ALL, "*", "what reads past the page cache is aligned by nobody but disks"),
    // An ordinary user's own mount.
    differs("fstatvfs page", OWN, "* StatVfsMountFlags(NODEV | NOSUID*)", WE_OPEN),
    differs("statvfs {.,dir,fifo,page,private/inside}", OWN, "* StatVfsMountFlags(NODEV | NOSUID*)", WE_OPEN),
    differs("access {W,RW} {mode000,mode400}", OWN, "EROFS", ORDER),
    differs("faccessat2 mode000", OWN, "EACCES EACCES EACCES EROFS ok", ORDER),
    differs(
        "open {mode000,mode400} {WRONLY,RDWR,CREATE|WRONLY,RDWR|DIRECT,WRONLY|APPEND,WRONLY|NOFOLLOW}",
        OWN,
        "EROFS",
        ORDER,
    ),
    differs("open mode000 TRUNC", OWN, "EACCES", ORDER),
    differs("faccessat2 {dangling,link-dir}", OWN, "* ok ok ok", UNASKED),
    differs("inotify mode000 {plain,DONT_FOLLOW}", OWN, "ok true ok", UNASKED),
];

const NO_LABELS: &str = "where no SELinux runs there are no labels; told so, `ls -l` asks once and not of each file";
const ACCMODE: &str = "access mode 3 asks for the right to write, and is opened for reading";

/// What should be mended. An entry goes with its cause: the test fails when there is no difference any more.
pub(crate) const KNOWN: &[Difference] = &[differs("open mode400 ACCMODE", OWN, "100003 first EBADF", ACCMODE)];
