//! What veinfs needs of a machine, and what of it is missing: facts in, findings out.

use serde_json::{Value, json};

/// What there is. Whoever gathers it does not judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whoever asks is root.
    pub root: bool,
    /// `/dev/fuse`: there, and what opening it says.
    pub fuse: Option<Result<(), String>>,
    /// Major and minor version of the kernel.
    pub kernel: Option<(u32, u32)>,
    /// Where fusermount3 is, and whether it may mount for ordinary users.
    pub fusermount: Option<(String, bool)>,
    /// `/etc/fuse.conf` lets ordinary users share mounts.
    pub user_allow_other: bool,
    /// Whole file systems may be watched.
    pub fanotify: bool,
    /// Directories that a user may watch.
    pub watches: Option<u64>,
    /// Files that a process may have open.
    pub open_files: Option<u64>,
    /// Where indexes are kept, whether that can be written to, and the free bytes there.
    pub index: Option<(String, Result<u64, String>)>,
    /// Mounts whose daemon has died.
    pub dead: Vec<String>,
    /// Files of standing mounts, each with what is wrong in it.
    pub files: Vec<(String, Option<String>)>,
    /// Lines of `/etc/fstab`, by their mount points, each with what is wrong in it.
    pub fstab: Vec<(String, Option<String>)>,
    /// The helper of mount(8) is there.
    pub helper: bool,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something works less well.
    Warning,
    /// Something does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it, as a command where that is one.
    pub cure: Option<String>,
}

impl Finding {
    fn new(level: Level, text: impl Into<String>, cure: Option<&str>) -> Self {
        Self { level, text: text.into(), cure: cure.map(str::to_owned) }
    }

    /// As an object of NDJSON.
    pub fn json(&self) -> Value {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Failure => "failure",
        };
        json!({"level": level, "text": self.text, "cure": self.cure})
    }
}

/// The first kernel that passes reads through to the file underneath (`FUSE_PASSTHROUGH`, `linux/fuse.h`).
const PASSTHROUGH: (u32, u32) = (6, 9);
/// The oldest kernel that is tried (openat2(2)).
const OLDEST: (u32, u32) = (5, 6);
/// Fewer watches than this do not last for a tree of some size.
const FEW_WATCHES: u64 = 100_000;
/// Fewer open files than this slow a mount down.
const FEW_FILES: u64 = 4096;
/// Less room than this is soon used up, in bytes.
const LITTLE_ROOM: u64 = 256 << 20;

/// What is to be said of a machine.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    use Level::{Failure, Ok, Warning};
    let mut found = Vec::new();
    let mut say = |level, text: String, cure: Option<&str>| found.push(Finding::new(level, text, cure));
    match &facts.fuse {
        Some(Result::Ok(())) => say(Ok, "/dev/fuse can be opened".into(), None),
        Some(Err(error)) => say(Failure, format!("/dev/fuse cannot be opened: {error}"), Some("chmod 666 /dev/fuse")),
        None => say(Failure, "there is no /dev/fuse".into(), Some("modprobe fuse")),
    }
    match facts.kernel {
        Some(version) if version >= PASSTHROUGH && facts.root => {
            say(Ok, format!("Linux {}.{} passes reads of large files through", version.0, version.1), None);
        }
        Some(version) if version >= PASSTHROUGH => {
            say(
                Ok,
                format!("Linux {}.{}; reads of large files are passed through for root only", version.0, version.1),
                None,
            );
        }
        Some(version) if version >= OLDEST => {
            let text = format!(
                "Linux {}.{} passes no reads through; 6.9 does, which makes large files faster",
                version.0, version.1
            );
            say(Warning, text, None);
        }
        Some(version) => {
            let text = format!("Linux {}.{} is older than what veinfs is made for", version.0, version.1);
            say(Failure, text, Some("install a kernel of 5.6 or later"));
        }
        None => say(Warning, "the version of the kernel is not known".into(), None),
    }
    match (&facts.fusermount, facts.root) {
        (_, true) => {}
        (Some((path, true)), _) => say(Ok, format!("{path} mounts for ordinary users"), None),
        (Some((path, false)), _) => {
            say(Failure, format!("{path} has no rights to mount"), Some(&format!("chmod u+s {path}")));
        }
        (None, _) => {
            say(Failure, "fusermount3 is missing, which mounts for ordinary users".into(), Some("apt install fuse3"))
        }
    }
    if !facts.root && !facts.user_allow_other {
        let cure = "echo user_allow_other >> /etc/fuse.conf (as root)";
        say(Warning, "ordinary users cannot share mounts (-o allow_other)".into(), Some(cure));
    }
    if facts.fanotify {
        say(Ok, "changes are told by whole file systems (fanotify)".into(), None);
    } else {
        match facts.watches {
            Some(watches) if watches >= FEW_WATCHES => {
                say(Ok, format!("changes are told in up to {watches} directories (inotify)"), None);
            }
            Some(watches) => {
                let text = format!("changes are told in {watches} directories at most (inotify); others are polled");
                say(Warning, text, Some("sysctl fs.inotify.max_user_watches=1048576"));
            }
            None => say(Warning, "nobody tells of changes; sources are polled".into(), None),
        }
    }
    match facts.open_files {
        Some(files) if files < FEW_FILES => {
            say(Warning, format!("a process may have {files} files open, which is few"), Some("ulimit -n 65536"));
        }
        Some(files) => say(Ok, format!("a process may have {files} files open"), None),
        None => {}
    }
    match &facts.index {
        Some((path, Result::Ok(free))) if *free >= LITTLE_ROOM => say(Ok, format!("indexes are kept in {path}"), None),
        Some((path, Result::Ok(free))) => {
            let text = format!("there are {} MiB left for indexes in {path}", free >> 20);
            say(Warning, text, Some("veinfs index show"));
        }
        Some((path, Err(error))) => {
            let text = format!("no index can be kept in {path}: {error}; each mount reads its sources anew");
            say(Warning, text, Some("set XDG_CACHE_HOME to a directory of yours"));
        }
        None => say(Warning, "there is no place for indexes".into(), Some("set HOME or XDG_CACHE_HOME")),
    }
    for path in &facts.dead {
        say(Failure, format!("{path}: its daemon has died"), Some(&format!("veinfs unmount {path}")));
    }
    for (path, wrong) in &facts.files {
        match wrong {
            None => say(Ok, format!("{path} is sound"), None),
            Some(wrong) => say(Failure, wrong.clone(), None),
        }
    }
    for (place, wrong) in &facts.fstab {
        match wrong {
            None => say(Ok, format!("/etc/fstab: {place} is sound"), None),
            Some(wrong) => say(Failure, format!("/etc/fstab: {place}: {wrong}"), None),
        }
    }
    if !facts.fstab.is_empty() && !facts.helper {
        let text = "/etc/fstab has lines of veinfs, and mount(8) has no helper for them";
        say(Failure, text.into(), Some("ln -s $(command -v veinfs) /sbin/mount.veinfs"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(facts: &Facts) -> String {
        let line = |finding: &Finding| {
            let cure = finding.cure.as_ref().map(|cure| format!(" -> {cure}")).unwrap_or_default();
            format!("{:?} {}{cure}", finding.level, finding.text)
        };
        judge(facts).iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn sound() -> Facts {
        Facts {
            root: true,
            fuse: Some(Ok(())),
            kernel: Some((6, 18)),
            fusermount: Some(("/usr/bin/fusermount3".into(), true)),
            user_allow_other: true,
            fanotify: true,
            watches: Some(1 << 20),
            open_files: Some(1 << 20),
            index: Some(("/c".into(), Ok(1 << 40))),
            helper: true,
            ..Facts::default()
        }
    }

    #[test]
    fn a_machine_as_it_should_be() {
        insta::assert_snapshot!(lines(&sound()), @r"
        Ok /dev/fuse can be opened
        Ok Linux 6.18 passes reads of large files through
        Ok changes are told by whole file systems (fanotify)
        Ok a process may have 1048576 files open
        Ok indexes are kept in /c
        ");
        let user = Facts { root: false, fanotify: false, ..sound() };
        assert!(judge(&user).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn a_machine_without() {
        let facts = Facts {
            watches: Some(8192),
            open_files: Some(256),
            kernel: Some((5, 4)),
            dead: vec!["/m".into()],
            files: vec![("/f.toml".into(), Some("/f.toml: line 1, column 1: no".into()))],
            fstab: vec![("/srv".into(), Some("no pattern".into()))],
            index: Some(("/c".into(), Err("denied".into()))),
            ..Facts::default()
        };
        insta::assert_snapshot!(lines(&facts), @r"
        Failure there is no /dev/fuse -> modprobe fuse
        Failure Linux 5.4 is older than what veinfs is made for -> install a kernel of 5.6 or later
        Failure fusermount3 is missing, which mounts for ordinary users -> apt install fuse3
        Warning ordinary users cannot share mounts (-o allow_other) -> echo user_allow_other >> /etc/fuse.conf (as root)
        Warning changes are told in 8192 directories at most (inotify); others are polled -> sysctl fs.inotify.max_user_watches=1048576
        Warning a process may have 256 files open, which is few -> ulimit -n 65536
        Warning no index can be kept in /c: denied; each mount reads its sources anew -> set XDG_CACHE_HOME to a directory of yours
        Failure /m: its daemon has died -> veinfs unmount /m
        Failure /f.toml: line 1, column 1: no
        Failure /etc/fstab: /srv: no pattern
        Failure /etc/fstab has lines of veinfs, and mount(8) has no helper for them -> ln -s $(command -v veinfs) /sbin/mount.veinfs
        ");
    }
}
