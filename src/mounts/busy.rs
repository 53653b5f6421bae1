//! Which processes keep a mount busy, from `/proc` alone: the mount itself is never touched, so this
//! works for one that is dead or does not answer.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::info::MountEntry;
use crate::entry::printable;

/// One way in which a process uses a mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Its working directory, this path.
    WorkingDirectory(PathBuf),
    /// Its root directory (chroot), this path.
    RootDirectory(PathBuf),
    /// The program it runs.
    Program(PathBuf),
    /// An open file or directory.
    OpenFile(PathBuf),
    /// A file mapped into its memory.
    MappedFile(PathBuf),
}

impl Use {
    fn path(&self) -> &Path {
        match self {
            Use::WorkingDirectory(path)
            | Use::RootDirectory(path)
            | Use::Program(path)
            | Use::OpenFile(path)
            | Use::MappedFile(path) => path,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Use::WorkingDirectory(_) => "working directory",
            Use::RootDirectory(_) => "root directory",
            Use::Program(_) => "program",
            Use::OpenFile(_) => "open file",
            Use::MappedFile(_) => "mapped file",
        };
        write!(f, "{what} {}", self.path().display())
    }
}

/// A process that uses a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Its process id.
    pub pid: u32,
    /// Its name, at most 15 bytes (`/proc/PID/comm`).
    pub command: String,
    /// How it uses the mount; not empty, each once.
    pub uses: Vec<Use>,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        write!(f, "{} (pid {}): ", self.command, self.pid)?;
        for (at, what) in self.uses.iter().take(SHOWN).enumerate() {
            write!(f, "{}{what}", if at == 0 { "" } else { ", " })?;
        }
        match self.uses.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What keeps a mount busy, as far as this user may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusyReport {
    /// The processes that use it, by process id.
    pub processes: Vec<Busy>,
    /// Processes that this user may not look into.
    pub hidden: usize,
    /// Mount points below it: it cannot be unmounted before them.
    pub nested: Vec<PathBuf>,
}

impl fmt::Display for BusyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        let mut lines: Vec<String> = self.processes.iter().take(SHOWN).map(Busy::to_string).collect();
        if self.processes.len() > SHOWN {
            lines.push(format!("and {} more processes", self.processes.len() - SHOWN));
        }
        lines.extend(self.nested.iter().map(|path| format!("another mount on it: {}", path.display())));
        if lines.is_empty() {
            lines
                .push("no process found; an NFS export, a loop device or a swap file on it would not show here".into());
        }
        if self.hidden > 0 {
            lines.push(format!("processes that could not be looked into, though root may: {}", self.hidden));
        }
        f.write_str(&lines.join("\n"))
    }
}

/// The processes that use the mount `entry`, and the mounts on it among `mounts`.
pub(super) fn report(entry: &MountEntry, mounts: &[MountEntry]) -> BusyReport {
    let mut report = BusyReport::default();
    report.nested.extend(mounts.iter().filter(|other| other.parent == entry.id).map(|other| other.mountpoint.clone()));
    let namespace = fs::read_link("/proc/self/ns/mnt").ok();
    let Ok(processes) = fs::read_dir("/proc") else { return report };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match uses(&process.path(), entry, namespace.as_deref()) {
            // This process ends in a moment; it may stand where it was started.
            Ok(uses) if uses.is_empty() || pid == std::process::id() => {}
            Ok(uses) => report.processes.push(Busy { pid, command: command(&process.path()), uses }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // Kernel threads have no command line, and hold nothing.
                let is_user = fs::read(process.path().join("cmdline")).is_ok_and(|line| !line.is_empty());
                report.hidden += usize::from(is_user);
            }
            // It ended meanwhile.
            Err(_) => {}
        }
    }
    report.processes.sort_by_key(|busy| busy.pid);
    report
}

fn command(process: &Path) -> String {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    match printable(name.trim_ascii_end()).into_owned() {
        name if name.is_empty() => "?".to_owned(),
        name => name,
    }
}

fn uses(process: &Path, entry: &MountEntry, namespace: Option<&Path>) -> io::Result<Vec<Use>> {
    // The same path in another mount namespace is another mount, and does not keep this one.
    if fs::read_link(process.join("ns/mnt"))? != namespace.unwrap_or(Path::new("")) {
        return Ok(Vec::new());
    }
    let mut uses = BTreeSet::new();
    let mut link = |name: &str, what: fn(PathBuf) -> Use| {
        // The text of the link names the place without a visit to it. `exe` is missing in kernel threads.
        if let Ok(target) = fs::read_link(process.join(name))
            && target.starts_with(&entry.mountpoint)
        {
            uses.insert(what(target));
        }
    };
    link("cwd", Use::WorkingDirectory);
    link("root", Use::RootDirectory);
    link("exe", Use::Program);
    for fd in fs::read_dir(process.join("fd"))?.flatten() {
        let info = fs::read(process.join("fdinfo").join(fd.file_name())).unwrap_or_default();
        if mount_id(&info) == Some(entry.id)
            && let Ok(target) = fs::read_link(fd.path())
        {
            uses.insert(Use::OpenFile(target));
        }
    }
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    for path in mapped(&maps, entry.major, entry.minor).filter(|path| path.starts_with(&entry.mountpoint)) {
        if !uses.contains(&Use::Program(path.to_path_buf())) {
            uses.insert(Use::MappedFile(path.to_path_buf()));
        }
    }
    Ok(uses.into_iter().collect())
}

/// The line `mnt_id:\tN` of a `/proc/PID/fdinfo/FD`.
fn mount_id(info: &[u8]) -> Option<u32> {
    let value = info.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"mnt_id:"))?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Paths of the files of one device in a `/proc/PID/maps`: `addresses perms offset dev inode  path`.
fn mapped(maps: &[u8], major: u32, minor: u32) -> impl Iterator<Item = &Path> {
    let device = format!("{major:02x}:{minor:02x}").into_bytes();
    maps.split(|b| *b == b'\n').filter_map(move |line| {
        let mut fields = line.splitn(6, |b| *b == b' ');
        let dev = fields.nth(3)?;
        let path = fields.nth(1)?.trim_ascii_start();
        (dev == device.as_slice() && path.starts_with(b"/")).then(|| Path::new(OsStr::from_bytes(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_id_of_an_open_file() {
        assert_eq!(mount_id(b"pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t7\n"), Some(29));
        assert_eq!(mount_id(b"pos:\t0\n"), None);
        assert_eq!(mount_id(b"mnt_id:\tx\n"), None);
    }

    #[test]
    fn mapped_files_of_one_device() {
        let maps = b"7f0-7f1 r--p 00000000 00:2f 12                         /mnt/a b\n\
                     7f1-7f2 r-xp 00001000 00:30 12                         /mnt/other\n\
                     7f2-7f3 rw-p 00000000 00:00 0 \n\
                     7f3-7f4 rw-p 00000000 00:00 0                          [heap]\n\
                     7f4-7f5 r--p 00000000 00:2f 13                         /mnt/x (deleted)\n";
        let found: Vec<_> = mapped(maps, 0, 47).collect();
        assert_eq!(found, [Path::new("/mnt/a b"), Path::new("/mnt/x (deleted)")]);
        assert_eq!(mapped(maps, 0, 2).count(), 0);
    }

    #[test]
    fn a_report_reads_as_lines() {
        let path = |name: &str| PathBuf::from(name);
        let uses = vec![Use::WorkingDirectory(path("/m")), Use::OpenFile(path("/m/a")), Use::OpenFile(path("/m/b"))];
        let many = (0..5).map(|n| Use::OpenFile(path(&format!("/m/{n}")))).collect();
        let report = BusyReport {
            processes: vec![
                Busy { pid: 7, command: "bash".into(), uses },
                Busy { pid: 8, command: "cp".into(), uses: many },
            ],
            hidden: 2,
            nested: vec![path("/m/inner")],
        };
        insta::assert_snapshot!(report.to_string(), @r"
        bash (pid 7): working directory /m, open file /m/a, open file /m/b
        cp (pid 8): open file /m/0, open file /m/1, open file /m/2 and 2 more
        another mount on it: /m/inner
        processes that could not be looked into, though root may: 2
        ");
        insta::assert_snapshot!(BusyReport::default().to_string(), @"no process found; an NFS export, a loop device or a swap file on it would not show here");
    }
}
