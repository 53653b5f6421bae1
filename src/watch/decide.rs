//! How each file system is watched: decided when its first directory comes, and remembered by its device.
//!
//! What has been decided is a table that is never changed, only replaced, so that who asks for a directory takes no lock.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use nix::errno::Errno as MarkError;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::io::Errno;

use super::fanotify::{self, Group};
use super::inotify::Tree;
use super::resolve::{self, FileSystem};
use super::{Choice, Mode, mounted, trust};

const NOT_PERMITTED: &str = "fanotify is for root (it needs the capabilities CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH)";

/// What the thread and the callers of a watch share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) root: Box<[u8]>,
    choice: Choice,
    /// The fanotify group, or why there is none.
    pub(super) group: Result<Group, String>,
    /// True when the group has failed.
    pub(super) group_failed: AtomicBool,
    /// The inotify instance, from the first file system on that needs it.
    pub(super) tree: OnceLock<Tree>,
    pub(super) table: ArcSwap<Table>,
    /// Held by who makes the next table from the last.
    tabling: Mutex<()>,
    pub(super) standing: Mutex<Standing>,
    pub(super) refused: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) stop: AtomicBool,
    /// Wakes the thread; `None` if there is none.
    pub(super) wake: Option<OwnedFd>,
    #[cfg(test)]
    pub(super) wakeups: AtomicU64,
}

/// What has been decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// How directories of a device are watched.
    pub(super) devices: FxHashMap<u64, Mode>,
    /// Those with a mark.
    pub(super) file_systems: Vec<FileSystem>,
}

#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) mode: Mode,
    pub(super) reason: Option<String>,
}

/// How a file system is watched.
struct Verdict {
    mode: Mode,
    reason: Option<String>,
    /// With fanotify, what to look for in events.
    file_system: Option<FileSystem>,
}

impl Verdict {
    fn poll(reason: impl Into<String>) -> Self {
        Self { mode: Mode::Poll, reason: Some(reason.into()), file_system: None }
    }
}

impl Shared {
    pub(super) fn new(root: &[u8], choice: Choice, wake: Option<OwnedFd>) -> Self {
        let group = match choice {
            Choice::Auto | Choice::Fanotify => Group::new().map_err(no_group),
            Choice::Inotify | Choice::Poll => Err(String::new()),
        };
        let mode = match (choice, &group) {
            (Choice::Poll, _) => Mode::Poll,
            (Choice::Auto | Choice::Fanotify, Ok(_)) => Mode::Fanotify,
            _ => Mode::Inotify,
        };
        Self {
            root: root.into(),
            choice,
            group,
            group_failed: AtomicBool::new(false),
            tree: OnceLock::new(),
            table: ArcSwap::default(),
            tabling: Mutex::new(()),
            standing: Mutex::new(Standing { mode, reason: None }),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            wake,
            #[cfg(test)]
            wakeups: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, dir: BorrowedFd<'_>, device: u64, path: &[u8]) -> bool {
        // The root is always decided anew: it may be another, on another file system with the same number.
        let known = if *path == *self.root { None } else { self.table.load().devices.get(&device).copied() };
        match known.unwrap_or_else(|| self.decide(dir, device, path)) {
            Mode::Fanotify => true,
            Mode::Inotify => self.tree.get().is_some_and(|tree| tree.add(dir, path).is_ok()),
            Mode::Poll => false,
        }
    }

    /// Decides how the file system of this directory is watched, and remembers it.
    pub(super) fn decide(&self, dir: BorrowedFd<'_>, device: u64, path: &[u8]) -> Mode {
        // Outside the lock: a file system may take long to say what it is.
        let Verdict { mode, reason, file_system } = self.judge(dir, device, path);
        let _tabling = self.tabling.lock();
        let mut table = Table::clone(&self.table.load());
        table.devices.insert(device, mode);
        if let Some(new) = file_system {
            table.file_systems.retain(|old| (old.fsid, old.device) != (new.fsid, new.device));
            table.file_systems.push(new);
        }
        self.table.store(Arc::new(table));
        if *path == *self.root {
            *self.standing.lock() = Standing { mode, reason };
        }
        mode
    }

    fn judge(&self, dir: BorrowedFd<'_>, device: u64, path: &[u8]) -> Verdict {
        if self.choice == Choice::Poll {
            return Verdict { mode: Mode::Poll, reason: None, file_system: None };
        }
        let stat = match rustix::fs::fstatfs(dir) {
            Ok(stat) => stat,
            Err(error) => return Verdict::poll(format!("statfs: {error}")),
        };
        let mounts = mounted::all();
        // The type's width differs between architectures; a magic number has 32 bits.
        let magic = stat.f_type as u32;
        let is_disk = || mounts.iter().any(|mount| mount.fstype == "fuseblk" && mounted::device_of(mount) == device);
        if let Some(reason) = trust::distrust(magic)
            && !(magic == trust::FUSE && is_disk())
        {
            return Verdict::poll(reason);
        }
        let mut reason = None;
        if matches!(self.choice, Choice::Auto | Choice::Fanotify) {
            match self.mark(dir, path) {
                Ok(fsid) => {
                    let (mount_device, place) = mounted::place_of(&mounts, &self.root, path);
                    let places = mounted::places(&mounts, &self.root, mount_device, place);
                    let file_system = Some(FileSystem { fsid, device, mount_device, places });
                    return Verdict { mode: Mode::Fanotify, reason: None, file_system };
                }
                Err(why) => reason = Some(why),
            }
        }
        match self.make_tree() {
            Ok(()) => Verdict { mode: Mode::Inotify, reason, file_system: None },
            Err(error) => {
                let inotify = format!("inotify: {}", said(error));
                Verdict::poll(reason.into_iter().chain([inotify]).collect::<Vec<_>>().join("; "))
            }
        }
    }

    /// Has the whole file system of `dir` marked; what its events call it.
    fn mark(&self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<[u8; 8], String> {
        let group = self.group.as_ref().map_err(String::clone)?;
        if self.group_failed.load(Ordering::Acquire) {
            return Err("fanotify has failed".into());
        }
        resolve::works(dir, path).map_err(|error| match error {
            Errno::PERM => NOT_PERMITTED.to_owned(),
            error => format!("fanotify is of no use where directories have no lasting handles: {}", said(error)),
        })?;
        group.mark(dir).map_err(no_mark)?;
        fanotify::fsid_of(dir).map_err(|error| format!("statfs: {}", said(error)))
    }

    fn make_tree(&self) -> Result<(), Errno> {
        if self.tree.get().is_none() {
            // If another thread was faster, its own is as good.
            let _ = self.tree.set(Tree::new()?);
            self.wake();
        }
        Ok(())
    }

    /// Mounts have changed: what was decided about devices may be about others now.
    pub(super) fn mounts_changed(&self) {
        let mounts = mounted::all();
        let _tabling = self.tabling.lock();
        let mut table = Table { devices: FxHashMap::default(), ..Table::clone(&self.table.load()) };
        table.file_systems.retain_mut(|file_system| {
            let Some(place) = file_system.places.first().cloned() else { return false };
            let is_there =
                *place == *self.root || mounts.iter().any(|mount| *mount.mountpoint.as_os_str().as_bytes() == *place);
            file_system.places = mounted::places(&mounts, &self.root, file_system.mount_device, place);
            is_there
        });
        self.table.store(Arc::new(table));
    }

    /// fanotify has failed: nothing that was decided on its account holds.
    pub(super) fn group_has_failed(&self) {
        self.group_failed.store(true, Ordering::Release);
        let _tabling = self.tabling.lock();
        self.table.store(Arc::default());
    }

    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // It fails only when the count is full, and then the thread is being woken.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }
}

fn said(error: Errno) -> std::io::Error {
    error.into()
}

fn no_group(error: MarkError) -> String {
    match error {
        MarkError::EPERM => NOT_PERMITTED.into(),
        MarkError::EINVAL => "fanotify cannot name what changes before Linux 5.9".into(),
        MarkError::ENOSYS => "this kernel has no fanotify".into(),
        MarkError::EMFILE => "fanotify: too many groups or open files".into(),
        error => format!("fanotify: {}", error.desc()),
    }
}

fn no_mark(error: MarkError) -> String {
    match error {
        MarkError::EPERM => NOT_PERMITTED.into(),
        MarkError::EXDEV => "fanotify cannot watch a subvolume".into(),
        MarkError::ENODEV | MarkError::EOPNOTSUPP => "fanotify cannot watch this file system".into(),
        error => format!("fanotify: {}", error.desc()),
    }
}
