//! `/proc/self/mountinfo` as values: the parser is pure, the file is read by the caller.
//!
//! Format (proc_pid_mountinfo(5)), fields separated by one space each:
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! |  |  |    |     |     |          |        | |    |         super options
//! |  |  |    |     |     |          |        | |    source
//! |  |  |    |     |     |          |        | file system type
//! |  |  |    |     |     |          |        end of the optional fields
//! |  |  |    |     |     |          optional fields, none or several
//! |  |  |    |     |     options of this mount
//! |  |  |    |     mount point, below the reader's root
//! |  |  |    root of the mount within its file system
//! |  |  major:minor, the st_dev of its files
//! |  id of the mount that this one is on
//! id, unique while the mount lives
//! ```

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The file system type of a veinfs mount.
pub const FSTYPE: &str = "fuse.veinfs";

/// One line of `/proc/self/mountinfo`, its escapes undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's id, as `mnt_id` in `/proc/PID/fdinfo/FD`; reused after the mount has gone.
    pub id: u32,
    /// The id of the mount that this one is on.
    pub parent: u32,
    /// Major device number of the files in it.
    pub major: u32,
    /// Minor device number of the files in it.
    pub minor: u32,
    /// The directory of its file system that is the mount's root; `/` unless it is a bind mount.
    pub root: PathBuf,
    /// Where it is mounted, as seen from this process's root.
    pub mountpoint: PathBuf,
    /// Options of this mount, joined by commas.
    pub options: OsString,
    /// The type with its subtype: `ext4`, `fuse.sshfs`.
    pub fstype: OsString,
    /// What is mounted: a device, a server's export, any text; may be empty.
    pub source: OsString,
    /// Options of the file system, joined by commas.
    pub super_options: OsString,
}

impl MountEntry {
    /// True for a mount of this program.
    pub fn is_veinfs(&self) -> bool {
        self.fstype == FSTYPE
    }

    /// The user who mounted a FUSE file system; `None` for any other.
    pub fn owner(&self) -> Option<u32> {
        let options = self.super_options.as_encoded_bytes();
        let value = options.split(|b| *b == b',').find_map(|option| option.strip_prefix(b"user_id="))?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }
}

/// The mounts in a text of the form of `/proc/self/mountinfo`, in its order.
///
/// A line that does not have the form is left out: the kernel writes none, and one odd line must
/// not hide all other mounts.
pub fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|b| *b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = fields.next()?;
    let colon = device.iter().position(|b| *b == b':')?;
    let (major, minor) = (number(&device[..colon])?, number(&device[colon + 1..])?);
    let root = unescape(fields.next()?).into();
    let mountpoint = unescape(fields.next()?).into();
    let options = unescape(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let fstype = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let super_options = unescape(fields.next()?);
    Some(MountEntry { id, parent, major, minor, root, mountpoint, options, fstype, source, super_options })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and hash (`mangle` in `fs/seq_file.c`).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The mount that is seen at `mountpoint`: the uppermost, if several are stacked there.
pub fn topmost<'a>(mounts: &'a [MountEntry], mountpoint: &std::path::Path) -> Option<&'a MountEntry> {
    let here = |entry: &&MountEntry| entry.mountpoint == mountpoint;
    let covered = |entry: &MountEntry| mounts.iter().filter(here).any(|other| other.parent == entry.id);
    mounts.iter().rev().filter(here).find(|entry| !covered(entry))
}

/// True for file systems that show the kernel's or a daemon's state rather than anyone's files: they
/// are endless, or lie about sizes, or act when they are read.
pub fn is_pseudo(fstype: &OsStr) -> bool {
    const PSEUDO: &[&str] = &[
        "apparmorfs",
        "binder",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "cpuset",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "functionfs",
        "fuse.lxcfs",
        "fuse.portal",
        FSTYPE,
        "fusectl",
        "gadgetfs",
        "hugetlbfs",
        "mqueue",
        "nfsd",
        "nsfs",
        "proc",
        "pstore",
        "resctrl",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
        "tracefs",
        "xenfs",
    ];
    PSEUDO.iter().any(|pseudo| fstype == *pseudo)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    fn one(line: &str) -> Option<MountEntry> {
        let mut entries = parse(line.as_bytes());
        assert!(entries.len() <= 1, "one line, several entries: {line}");
        entries.pop()
    }

    #[test]
    fn all_fields_are_read() {
        let entry = one("36 35 98:12 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue");
        let expected = MountEntry {
            id: 36,
            parent: 35,
            major: 98,
            minor: 12,
            root: "/mnt1".into(),
            mountpoint: "/mnt2".into(),
            options: "rw,noatime".into(),
            fstype: "ext3".into(),
            source: "/dev/root".into(),
            super_options: "rw,errors=continue".into(),
        };
        assert_eq!(entry, Some(expected));
    }

    #[test]
    fn mountpoints_and_sources() {
        let cases: &[(&str, &[u8], &[u8])] = &[
            ("1 0 0:5 / /a\\040b rw - tmpfs none rw", b"/a b", b"none"),
            ("1 0 0:5 / /a\\011\\012\\134\\043 rw - tmpfs x\\040y rw", b"/a\t\n\\#", b"x y"),
            ("1 0 0:5 / /a\\134040b rw - tmpfs none rw", b"/a\\040b", b"none"),
            ("1 0 0:5 / /a\\9 rw - tmpfs none rw", b"/a\\9", b"none"),
            ("1 0 0:5 / /a\\ rw - tmpfs none rw", b"/a\\", b"none"),
            ("1 0 0:5 / /empty rw - tmpfs  rw", b"/empty", b""),
            ("1 0 0:5 / / rw shared:1 - fuse.veinfs - rw,user_id=0", b"/", b"-"),
            ("1 0 0:5 / /\u{e9} rw - tmpfs \u{e9} rw", "/\u{e9}".as_bytes(), "\u{e9}".as_bytes()),
        ];
        for (line, mountpoint, source) in cases {
            let entry = one(line).unwrap_or_else(|| panic!("not read: {line}"));
            assert_eq!(entry.mountpoint.as_os_str().as_bytes(), *mountpoint, "{line}");
            assert_eq!(entry.source.as_bytes(), *source, "{line}");
        }
        let raw = parse(b"1 0 0:5 / /a\xff rw - tmpfs none rw\n");
        assert_eq!(raw[0].mountpoint.as_os_str().as_bytes(), b"/a\xff");
    }

    #[test]
    fn lines_of_another_form_are_left_out() {
        for line in ["", "x", "1 0 0:5 / /a rw", "1 0 05 / /a rw - tmpfs none rw", "1 0 0:5 / /a rw - tmpfs none"] {
            assert_eq!(one(line), None, "{line}");
        }
        assert_eq!(parse(b"odd\n1 0 0:5 / /a rw - tmpfs none rw\n").len(), 1);
    }

    #[test]
    fn owner_is_the_user_of_a_fuse_mount() {
        let owner = |line| one(line).expect("a mount").owner();
        assert_eq!(owner("1 0 0:5 / /a rw - fuse.veinfs v rw,user_id=1000,group_id=7"), Some(1000));
        assert_eq!(owner("1 0 0:5 / /a rw - tmpfs v rw"), None);
    }

    #[test]
    fn the_topmost_of_a_stack_is_seen() {
        let text = b"10 1 0:5 / /a rw - tmpfs low rw\n\
                     30 20 0:7 / /a rw - tmpfs high rw\n\
                     20 10 0:6 / /a rw - tmpfs mid rw\n\
                     40 30 0:8 / /a/b rw - tmpfs inner rw\n";
        let mounts = parse(text);
        assert_eq!(topmost(&mounts, Path::new("/a")).map(|entry| entry.id), Some(30));
        assert_eq!(topmost(&mounts, Path::new("/a/b")).map(|entry| entry.id), Some(40));
        assert_eq!(topmost(&mounts, Path::new("/")), None);
    }

    #[test]
    fn pseudo_file_systems() {
        for fstype in ["proc", "sysfs", "cgroup2", "devpts", "fuse.veinfs", "nsfs"] {
            assert!(is_pseudo(OsStr::new(fstype)), "{fstype}");
        }
        for fstype in ["ext4", "tmpfs", "autofs", "nfs", "nfs4", "fuse", "fuse.sshfs", "overlay", "procfs"] {
            assert!(!is_pseudo(OsStr::new(fstype)), "{fstype}");
        }
    }
}
