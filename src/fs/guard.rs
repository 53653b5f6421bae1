//! A small process that ends a session whose daemon was killed but cannot end.
//!
//! A thread that tells the kernel to forget a name waits for the directory's lock, and whoever holds that may wait for
//! an answer of the same daemon. Killed at that moment (SIGKILL, or for want of memory) the thread goes on waiting, with
//! it `/dev/fuse` stays open, and so all wait for each other for good. Only from outside can the connection be ended:
//! `/sys/fs/fuse/connections/N/abort`, or an unmount by force where that is not mounted.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::mounts;

/// How long a daemon that was killed may take to end by itself.
const LIMIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Starts a guard of the mount with a device number; `program` is this one, with the subcommand that calls [`serve`].
///
/// The guard learns of the daemon's end by that of the thread that starts it, which has to live as long.
pub(super) fn start(program: &Path, device: (u32, u32), mountpoint: &Path) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg0("veinfs").arg("guard").args([device.0, device.1, std::process::id()].map(|number| number.to_string()));
    command.arg("--").arg(mountpoint);
    // Nothing that would outlive the daemon, or keep anything busy.
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// What a guard looks after.
#[derive(Clone, Debug)]
pub struct Guarded {
    /// The mount's device number.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The daemon.
    pub daemon: u32,
}

/// The guard's own part: waits until the daemon has ended, or ends the session if it cannot.
///
/// # Errors
/// If the daemon cannot be watched, or the session not be ended.
pub fn serve(guarded: &Guarded) -> io::Result<()> {
    let own = Signal::SIGUSR1;
    // What a terminal sends to all, and what might end the guard before its time.
    SigSet::all().thread_block()?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::USR1))?;
    let daemon = i32::try_from(guarded.daemon).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let handle = pidfd_open(daemon, PidfdFlags::empty())?;
    let mut waited = SigSet::empty();
    waited.add(own);
    // The daemon may have gone before it was watched.
    while rustix::process::getppid() == Some(daemon) {
        waited.wait()?;
        let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&LIMIT))? > 0;
        if ended {
            return Ok(());
        }
        if is_dying(guarded.daemon) {
            return end(guarded);
        }
    }
    Ok(())
}

/// True if a process was ended, but for threads that cannot end: its first one is a zombie.
fn is_dying(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The program's name, which may hold anything, ends with the last parenthesis.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

fn end(guarded: &Guarded) -> io::Result<()> {
    let (major, minor) = guarded.device;
    let is_there =
        mounts::mounts().map_err(io::Error::other)?.iter().any(|entry| (entry.major, entry.minor) == guarded.device);
    if !is_there {
        return Ok(());
    }
    // Connections go by the minor number of their device.
    let abort = format!("/sys/fs/fuse/connections/{minor}/abort");
    if major == 0 && std::fs::write(abort, "1").is_ok() {
        return Ok(());
    }
    // Where something else is at the path, force ends nothing: it is not ours.
    match mounts::find(&guarded.mountpoint).map_err(io::Error::other)? {
        Some(entry) if (entry.major, entry.minor) == guarded.device => {
            match rustix::mount::unmount(&guarded.mountpoint, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
                // The session has ended all the same.
                Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        _ => Ok(()),
    }
}
