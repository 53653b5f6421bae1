//! Taking a veinfs mount off: as root by umount2(2), as anyone else by FUSE's set-uid helper.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::busy::{self, BusyReport};
use super::info::{MountEntry, topmost};
use super::{MountState, MountsError, STATE_LIMIT, answer, mounts, resolve};

/// Why a mount stayed.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Nothing is mounted there.
    #[error("nothing is mounted at {}; {others}", mountpoint.display())]
    NotMounted {
        /// Where.
        mountpoint: PathBuf,
        /// Where veinfs is.
        others: Others,
    },
    /// Some other file system is mounted there.
    #[error("{} is not a veinfs mount: {} ({}) is mounted there; {others}",
        mountpoint.display(), mounted.display(), fstype.display())]
    NotVeinfs {
        /// Where.
        mountpoint: PathBuf,
        /// What is mounted there: a device, a server's export.
        mounted: OsString,
        /// Its type.
        fstype: OsString,
        /// Where veinfs is.
        others: Others,
    },
    /// It belongs to another user.
    #[error("{} was mounted by user {owner}: only that user and root can unmount it", mountpoint.display())]
    NotYours {
        /// Where.
        mountpoint: PathBuf,
        /// The user's id.
        owner: u32,
    },
    /// It is in use.
    #[error("{} is busy:\n{report}\nend these, or detach it with `veinfs unmount --lazy {}`",
        mountpoint.display(), mountpoint.display())]
    Busy {
        /// Where.
        mountpoint: PathBuf,
        /// By whom.
        report: Box<BusyReport>,
    },
    /// It is in use, and its daemon does not answer.
    #[error("{} is busy, and its daemon does not answer:\n{report}\ndetach it with `veinfs unmount --lazy {}`, \
        then end the daemon",
        mountpoint.display(), mountpoint.display())]
    Stuck {
        /// Where.
        mountpoint: PathBuf,
        /// By whom.
        report: Box<BusyReport>,
    },
    /// Neither `fusermount3` nor `fusermount` is there.
    #[error("cannot unmount {}: neither fusermount3 nor fusermount is in PATH; install the package fuse3, \
        or unmount it as root", mountpoint.display())]
    NoHelper {
        /// Where.
        mountpoint: PathBuf,
    },
    /// The helper refused.
    #[error("cannot unmount {}: {message}", mountpoint.display())]
    Helper {
        /// Where.
        mountpoint: PathBuf,
        /// What the helper said.
        message: String,
    },
    /// The system refused.
    #[error("cannot unmount {}: {error}", mountpoint.display())]
    System {
        /// Where.
        mountpoint: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The mounts could not be looked at.
    #[error(transparent)]
    Mounts(#[from] MountsError),
}

/// The veinfs mounts there are, to be named where one was sought and not found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others(pub Vec<PathBuf>);

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no veinfs mount is anywhere");
        }
        f.write_str("veinfs mounts: ")?;
        for (at, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, path.display())?;
        }
        Ok(())
    }
}

impl Others {
    fn among(mounts: &[MountEntry]) -> Self {
        Self(mounts.iter().filter(|entry| entry.is_veinfs()).map(|entry| entry.mountpoint.clone()).collect())
    }
}

/// Takes the veinfs mount at `mountpoint` off, the uppermost if several are stacked there.
///
/// With `lazy` it disappears at once and ends when the last process lets go of it. A dead mount is
/// detached in that way if it does not come off otherwise, since nothing can be lost on it.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), UnmountError> {
    let mountpoint = resolve(mountpoint)?;
    let all = mounts()?;
    let Some(entry) = topmost(&all, &mountpoint) else {
        return Err(UnmountError::NotMounted { mountpoint, others: Others::among(&all) });
    };
    if !entry.is_veinfs() {
        let (mounted, fstype) = (entry.source.clone(), entry.fstype.clone());
        return Err(UnmountError::NotVeinfs { mountpoint, mounted, fstype, others: Others::among(&all) });
    }
    take_off(entry, lazy)
}

/// Takes `entry` off, for the daemon that serves it; false if it is not what is seen there any more,
/// and then whatever is there stays.
///
/// The entry is the one that [`find`](super::find) gave after mounting. A daemon must not unmount by
/// path alone: after `unmount --lazy` and a new mount the path is another's. To be called while the
/// session runs, for so long its device number is its own; the kernel gives it, and the mount's id,
/// to the next mount at once when the session has ended, and then there is nothing to take off.
pub fn unmount_own(entry: &MountEntry, lazy: bool) -> Result<bool, UnmountError> {
    let all = mounts()?;
    match topmost(&all, &entry.mountpoint) {
        Some(top) if top.is_veinfs() && (top.major, top.minor) == (entry.major, entry.minor) => {
            take_off(top, lazy).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// How often, and after how long, it is tried again to take off what is in use.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(7);

fn take_off(entry: &MountEntry, lazy: bool) -> Result<(), UnmountError> {
    let mountpoint = entry.mountpoint.as_path();
    match detach(entry, lazy) {
        Err(Refusal::Busy) if lazy => {
            Err(UnmountError::System { mountpoint: mountpoint.into(), error: Errno::BUSY.into() })
        }
        // Asked only now: a question that gets no answer holds the mount itself.
        // A system call of the moment, as an announcement makes them, is no use of it.
        Err(Refusal::Busy)
            if (0..TRIES).any(|_| {
                std::thread::sleep(PAUSE);
                detach(entry, false).is_ok()
            }) =>
        {
            Ok(())
        }
        Err(Refusal::Busy) => match answer(mountpoint.into(), STATE_LIMIT) {
            MountState::NotMounted => Ok(()),
            MountState::Dead => detach(entry, true).map_err(|refusal| refusal.into_error(mountpoint)),
            state => {
                let report = Box::new(busy::report(entry, &mounts()?));
                let mountpoint = mountpoint.to_path_buf();
                Err(match state {
                    MountState::Stuck => UnmountError::Stuck { mountpoint, report },
                    _ => UnmountError::Busy { mountpoint, report },
                })
            }
        },
        Err(refusal) => Err(refusal.into_error(mountpoint)),
        Ok(()) => Ok(()),
    }
}

enum Refusal {
    Busy,
    NotYours(u32),
    NoHelper,
    Helper(String),
    System(io::Error),
}

impl Refusal {
    fn into_error(self, mountpoint: &Path) -> UnmountError {
        let mountpoint = mountpoint.to_path_buf();
        match self {
            Refusal::Busy => UnmountError::System { mountpoint, error: Errno::BUSY.into() },
            Refusal::NotYours(owner) => UnmountError::NotYours { mountpoint, owner },
            Refusal::NoHelper => UnmountError::NoHelper { mountpoint },
            Refusal::Helper(message) => UnmountError::Helper { mountpoint, message },
            Refusal::System(error) => UnmountError::System { mountpoint, error },
        }
    }
}

fn detach(entry: &MountEntry, lazy: bool) -> Result<(), Refusal> {
    let user = rustix::process::geteuid();
    if user.is_root() {
        let lazily = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        match rustix::mount::unmount(&entry.mountpoint, UnmountFlags::NOFOLLOW | lazily) {
            // Root of a container without the right to mount: the helper may have it.
            Err(Errno::PERM) => {}
            Err(Errno::BUSY) => return Err(Refusal::Busy),
            // It came off meanwhile, which is what was wanted.
            Err(Errno::INVAL | Errno::NOENT) if !still_there(entry) => return Ok(()),
            other => return other.map_err(|errno| Refusal::System(errno.into())),
        }
    } else if let Some(owner) = entry.owner().filter(|owner| *owner != rustix::process::getuid().as_raw()) {
        return Err(Refusal::NotYours(owner));
    }
    by_helper(&entry.mountpoint, lazy)
}

fn still_there(entry: &MountEntry) -> bool {
    mounts().is_ok_and(|mounts| mounts.contains(entry))
}

fn by_helper(mountpoint: &Path, lazy: bool) -> Result<(), Refusal> {
    for program in ["fusermount3", "fusermount"] {
        let mut command = Command::new(program);
        // Its words are looked at, so they must be English.
        command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(mountpoint).env("LC_ALL", "C");
        match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(match message.as_str() {
                    "" => Refusal::Helper(format!("{program} failed ({})", output.status)),
                    busy if busy.contains("resource busy") => Refusal::Busy,
                    _ => Refusal::Helper(message),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Refusal::System(error)),
        }
    }
    Err(Refusal::NoHelper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_veinfs_mount_is_left_alone() {
        let error = unmount(Path::new("/proc"), false).expect_err("not ours");
        let text = error.to_string();
        assert!(text.starts_with("/proc is not a veinfs mount: proc (proc) is mounted there; "), "{text}");
        let dir = tempfile::tempdir().expect("a directory");
        let error = unmount(dir.path(), true).expect_err("no mount");
        assert!(matches!(error, UnmountError::NotMounted { .. }), "{error}");
    }

    #[test]
    fn others_are_listed() {
        assert_eq!(Others::default().to_string(), "no veinfs mount is anywhere");
        assert_eq!(Others(vec!["/a".into(), "/b".into()]).to_string(), "veinfs mounts: /a, /b");
    }
}
