//! The mounts of this machine: which are veinfs's own, whether they live, how they come off, and
//! where a new one may go.
//!
//! What is mounted is read from `/proc/self/mountinfo`. A mount point itself is touched in
//! [`state`] alone, in a thread of its own and with a time limit: on a mount whose daemon was
//! killed every call fails with `ENOTCONN`, on one whose daemon is stuck it never returns.
//!
//! A veinfs mount is one of type `fuse.veinfs`, whoever started it.

mod busy;
mod info;
mod prepare;
mod unmount;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::process::{Pid, PidfdFlags};

pub use busy::{Busy, BusyReport, Use};
pub use info::{FSTYPE, MountEntry, is_pseudo, parse, topmost};
pub use prepare::{PrepareError, Prepared, prepare_mountpoint};
pub use unmount::{Others, UnmountError, unmount, unmount_own};

/// Why the mounts could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum MountsError {
    /// `/proc` is missing or closed.
    #[error("cannot read /proc/self/mountinfo: {0}; is /proc mounted?")]
    Mountinfo(io::Error),
    /// The directory that holds a mount point cannot be reached.
    #[error("cannot reach {}: {error}", path.display())]
    Path {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// What a mount point is, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountState {
    /// No veinfs mount is seen there.
    NotMounted,
    /// Its daemon answers. Also said of another user's mount without `allow_other`: nobody else, root
    /// included, may ask it.
    Live,
    /// Its daemon has gone and left the mount behind.
    Dead,
    /// Its daemon did not answer in time.
    Stuck,
}

/// How long [`state`] waits for an answer.
pub const STATE_LIMIT: Duration = Duration::from_secs(3);

/// All mounts of this process's mount namespace, in the kernel's order.
pub fn mounts() -> Result<Vec<MountEntry>, MountsError> {
    fs::read("/proc/self/mountinfo").map(|text| parse(&text)).map_err(MountsError::Mountinfo)
}

/// All veinfs mounts, dead ones too.
pub fn veinfs_mounts() -> Result<Vec<MountEntry>, MountsError> {
    Ok(mounts()?.into_iter().filter(MountEntry::is_veinfs).collect())
}

/// The absolute path of `path` without links, found without a visit to what may be mounted there.
///
/// Links are followed in the directories above and in the last component too. The last component
/// need not exist. On a mount, `readlink(2)` fails before the file system is asked.
pub fn resolve(path: &Path) -> Result<PathBuf, MountsError> {
    const MAX_LINKS: usize = 40;
    let failed = |error| MountsError::Path { path: path.to_path_buf(), error };
    let mut current = std::path::absolute(path).map_err(failed)?;
    for _ in 0..MAX_LINKS {
        let (Some(parent), Some(name)) = (current.parent(), current.file_name()) else {
            // The root, or a path that ends in `..`.
            return current.canonicalize().map_err(failed);
        };
        let parent = parent.canonicalize().map_err(failed)?;
        let found = parent.join(name);
        match fs::read_link(&found) {
            Ok(target) => current = parent.join(target),
            Err(_) => return Ok(found),
        }
    }
    Err(failed(rustix::io::Errno::LOOP.into()))
}

/// What is mounted at `mountpoint`, of any type; the uppermost, if several are stacked there.
///
/// A relative path, one with links and the path of a dead mount are all fine.
pub fn find(mountpoint: &Path) -> Result<Option<MountEntry>, MountsError> {
    let mountpoint = resolve(mountpoint)?;
    Ok(topmost(&mounts()?, &mountpoint).cloned())
}

/// Mount points at or below `under` that a walk must not enter, see [`is_pseudo`].
///
/// What is hidden by another mount on top of it does not count.
pub fn not_entered(under: &Path) -> Result<Vec<PathBuf>, MountsError> {
    let under = resolve(under)?;
    let mounts = mounts()?;
    let mut found: Vec<PathBuf> = mounts
        .iter()
        .filter(|entry| entry.mountpoint.starts_with(&under) && is_pseudo(&entry.fstype))
        .filter(|entry| topmost(&mounts, &entry.mountpoint).is_some_and(|top| top.id == entry.id))
        .map(|entry| entry.mountpoint.clone())
        .collect();
    found.sort();
    Ok(found)
}

/// Whether a veinfs mount is at `mountpoint`, and whether it answers within [`STATE_LIMIT`].
pub fn state(mountpoint: &Path) -> Result<MountState, MountsError> {
    state_within(mountpoint, STATE_LIMIT)
}

/// As [`state`], with a time limit of one's own.
///
/// A thread that gets no answer is left behind. It ends with the mount or with this process.
pub fn state_within(mountpoint: &Path, limit: Duration) -> Result<MountState, MountsError> {
    match find(mountpoint)? {
        Some(entry) if entry.is_veinfs() => Ok(answer(entry.mountpoint, limit)),
        _ => Ok(MountState::NotMounted),
    }
}

fn answer(mountpoint: PathBuf, limit: Duration) -> MountState {
    use rustix::io::Errno;
    let (sender, receiver) = mpsc::channel();
    let asked = thread::Builder::new().name("mount-state".into()).spawn(move || {
        // Without FORCE_SYNC the kernel may answer from its attribute cache for a daemon long gone.
        let stat = rustix::fs::statx(CWD, &mountpoint, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS);
        // Nobody listens any more after the limit.
        let _ = sender.send(stat.err());
    });
    if asked.is_err() {
        return MountState::Stuck;
    }
    match receiver.recv_timeout(limit) {
        Ok(Some(Errno::NOTCONN | Errno::CONNABORTED)) => MountState::Dead,
        // It came off while it was asked.
        Ok(Some(Errno::NOENT)) => MountState::NotMounted,
        Ok(_) => MountState::Live,
        Err(_) => MountState::Stuck,
    }
}

/// The processes that keep what is mounted at `mountpoint` busy, but this one; empty if nothing is
/// mounted there.
pub fn busy(mountpoint: &Path) -> Result<BusyReport, MountsError> {
    let mountpoint = resolve(mountpoint)?;
    let mounts = mounts()?;
    Ok(topmost(&mounts, &mountpoint).map(|entry| busy::report(entry, &mounts)).unwrap_or_default())
}

/// Waits until no veinfs mount is at `mountpoint`; false if one still is after `limit`.
///
/// The daemon may live on for a moment, see [`Exit`].
pub fn wait_gone(mountpoint: &Path, limit: Duration) -> Result<bool, MountsError> {
    const STEP: Duration = Duration::from_millis(10);
    let mountpoint = resolve(mountpoint)?;
    let deadline = Instant::now() + limit;
    loop {
        if !topmost(&mounts()?, &mountpoint).is_some_and(MountEntry::is_veinfs) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        thread::sleep(STEP.min(left));
    }
}

/// The end of another process, as something to wait for.
///
/// Taken before the unmount and waited for after it, it tells when a daemon has written its index
/// and released its lock; and it is never mistaken for a later process with the same id.
#[derive(Debug)]
pub struct Exit(OwnedFd);

impl Exit {
    /// Watches the process `pid`; `ESRCH` if there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Waits until the process has ended; false if it still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| rustix::io::Errno::INVAL)?;
            match rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                ended => return Ok(ended? > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_up_to_its_last_component() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("its path");
        fs::create_dir_all(root.join("real/sub")).expect("a tree");
        std::os::unix::fs::symlink("real", root.join("link")).expect("a link");
        std::os::unix::fs::symlink("link/sub", root.join("chain")).expect("a link");
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).expect("a link");
        std::os::unix::fs::symlink("loop", root.join("loop")).expect("a link");
        let cases = [
            ("real", "real"),
            ("real/", "real"),
            ("real/.", "real"),
            ("link", "real"),
            ("chain", "real/sub"),
            ("link/sub/..", "real"),
            ("link/missing", "real/missing"),
            ("dangling", "nowhere"),
        ];
        for (given, expected) in cases {
            assert_eq!(resolve(&root.join(given)).expect(given), root.join(expected), "{given}");
        }
        assert_eq!(resolve(Path::new("/")).expect("the root"), Path::new("/"));
        assert!(resolve(&root.join("loop")).is_err());
        let missing = resolve(&root.join("no/such")).expect_err("no parent");
        assert!(missing.to_string().contains("no/such"), "{missing}");
    }

    #[test]
    fn proc_is_not_entered() {
        let below = not_entered(Path::new("/")).expect("the mounts");
        assert!(below.contains(&PathBuf::from("/proc")), "{below:?}");
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(not_entered(dir.path()).expect("the mounts"), [] as [PathBuf; 0]);
        assert_eq!(state(dir.path()).expect("the mounts"), MountState::NotMounted);
        assert!(wait_gone(dir.path(), Duration::ZERO).expect("the mounts"));
    }

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let exit = Exit::of(child.id()).expect("a process");
        assert!(!exit.wait(Duration::from_millis(20)).expect("a wait"));
        child.kill().expect("a child to end");
        assert!(exit.wait(Duration::from_secs(10)).expect("a wait"));
        child.wait().expect("its status");
        for pid in [0, i32::MAX as u32, u32::MAX] {
            assert!(Exit::of(pid).is_err(), "{pid}");
        }
    }
}
