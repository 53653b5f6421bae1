//! The helper: this program started once more, to make and remove names on a mount as it is told.
//!
//! It is told on its standard input and answers on its standard output, in the byte order of the machine:
//!
//! ```text
//! told      length: u32 of what follows, then for each name
//!           gone: u8 | link: u8 | folder: u64 | length of path: u32 | length of name: u32 | path | name
//! answers   for each name, in the same order: an error number, 0 if done, as u32
//! ```
//!
//! It ends with its input, and so with whoever started it.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Kind, attr};

/// How the helper gets to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through a copy of the mount that is attached nowhere and can be written to, while the mount itself is read-only.
    /// It takes CAP_SYS_ADMIN, and mount_setattr(2) of Linux 5.12.
    Clone,
    /// Through the mount itself. While it is in use, an unmount finds it busy.
    Path,
}

impl Way {
    /// The one that this process can go.
    pub fn here() -> Self {
        match private_copy(Path::new("/")).and_then(|copy| attr::set_read_only(&copy, true)) {
            Ok(()) => Way::Clone,
            Err(error) => {
                tracing::debug!(%error, "no private mounts");
                Way::Path
            }
        }
    }

    /// How many names are told at once.
    pub(super) fn batch(self) -> usize {
        match self {
            Way::Clone => 256,
            Way::Path => 32,
        }
    }

    /// How long the mount is in use at most, but for the last name.
    fn limit(self) -> Duration {
        match self {
            Way::Clone => Duration::from_millis(20),
            Way::Path => Duration::from_millis(2),
        }
    }

    /// How many times as long it is left alone after that.
    pub(super) fn rest(self) -> u32 {
        match self {
            Way::Clone => 1,
            Way::Path => 4,
        }
    }
}

/// Where a mount is and how to get there.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The program to start, with the subcommand that calls [`serve`].
    pub program: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Its device number: nothing is done to what else may be there.
    pub device: (u32, u32),
    /// How.
    pub way: Way,
}

impl Reach {
    fn check(&self, root: impl AsFd) -> io::Result<()> {
        let device = look(root)?.0;
        if device == self.device { Ok(()) } else { Err(Errno::NODEV.into()) }
    }

    /// The mount's root, as long as it is open.
    fn root(&self) -> io::Result<OwnedFd> {
        let root = match self.way {
            Way::Clone => private_copy(&self.mountpoint)?,
            Way::Path => open_tree(CWD, &self.mountpoint, tree_flags())?,
        };
        self.check(&root)?;
        if self.way == Way::Clone {
            attr::set_read_only(&root, false)?;
            if is_read_only(&root)? {
                make_writable(&root)?;
            }
        }
        Ok(root)
    }
}

/// True if nothing can be changed even through a copy of a mount that can be written to.
fn is_read_only(root: &OwnedFd) -> io::Result<bool> {
    use rustix::fs::StatVfsMountFlags;
    Ok(rustix::fs::fstatvfs(root)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Makes a file system one that can be written to. Mounts of it that are read-only stay so.
///
/// It is not so from the beginning: of a file system that is read-only the kernel keeps times of access over reads, and
/// so all attributes.
fn make_writable(root: &OwnedFd) -> io::Result<()> {
    use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_NO_AUTOMOUNT;
    let picked = fspick(root, c"", flags)?;
    fsconfig_set_flag(&picked, c"rw")?;
    Ok(fsconfig_reconfigure(&picked)?)
}

fn tree_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_NO_AUTOMOUNT | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
}

fn private_copy(mountpoint: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, mountpoint, tree_flags() | OpenTreeFlags::OPEN_TREE_CLONE)?)
}

/// Device and inode number, as far as the kernel knows them without asking.
fn look(file: impl AsFd) -> io::Result<((u32, u32), u64)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(file, c"", flags, StatxFlags::INO)?;
    Ok(((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino))
}

/// One name to make or to remove.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op<'a> {
    pub(super) gone: bool,
    pub(super) kind: Kind,
    /// The folder's inode number and its path below the mount point.
    pub(super) folder: u64,
    pub(super) path: &'a [u8],
    pub(super) name: &'a [u8],
}

impl<'a> Op<'a> {
    fn write(&self, into: &mut Vec<u8>) {
        into.extend([u8::from(self.gone), u8::from(self.kind == Kind::Link)]);
        into.extend(self.folder.to_ne_bytes());
        // Longer than the kernel takes is an error when it is tried, not here.
        into.extend((self.path.len() as u32).to_ne_bytes());
        into.extend((self.name.len() as u32).to_ne_bytes());
        into.extend(self.path);
        into.extend(self.name);
    }

    fn read(from: &mut &'a [u8]) -> Option<Self> {
        let (head, rest) = from.split_first_chunk::<18>()?;
        let number = |at| head[at..at + 4].try_into().ok().map(u32::from_ne_bytes);
        let (path, rest) = rest.split_at_checked(number(10)? as usize)?;
        let (name, rest) = rest.split_at_checked(number(14)? as usize)?;
        *from = rest;
        let kind = if head[1] == 1 { Kind::Link } else { Kind::Dir };
        let folder = u64::from_ne_bytes(head[2..10].try_into().ok()?);
        Some(Self { gone: head[0] == 1, kind, folder, path, name })
    }
}

/// A helper that runs.
#[derive(Debug)]
pub(super) struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Helper {
    pub(super) fn start(reach: &Reach) -> io::Result<Self> {
        let (major, minor) = reach.device;
        let mut command = Command::new(&reach.program);
        command.arg0("veinfs").arg("announce").args([major.to_string(), minor.to_string()]);
        command.args((reach.way == Way::Clone).then_some("--clone")).arg("--").arg(&reach.mountpoint);
        // Nothing that would outlive this process, or keep anything busy.
        command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, input, output })
    }

    /// Its process id, its own for as long as this is there.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has names made and removed; gives an error number for each.
    pub(super) fn perform(&mut self, ops: &[Op<'_>]) -> io::Result<Vec<i32>> {
        let mut text = vec![0; 4];
        ops.iter().for_each(|op| op.write(&mut text));
        let length = u32::try_from(text.len() - 4).map_err(io::Error::other)?;
        text[..4].copy_from_slice(&length.to_ne_bytes());
        self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(&text)?;
        let mut answer = vec![0; ops.len() * 4];
        self.output.read_exact(&mut answer)?;
        let (numbers, _) = answer.as_chunks::<4>();
        Ok(numbers.iter().map(|number| i32::from_ne_bytes(*number)).collect())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.input = None;
        // An idle one ends with its input. One that is in the middle of a call ends when that is answered or the
        // session ends: it is not waited for.
        let _ = self.child.kill();
        let deadline = Instant::now() + Duration::from_secs(1);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The helper's own part: performs what it is told on its standard input, until that ends.
///
/// # Errors
/// If it is told something that makes no sense.
pub fn serve(reach: &Reach) -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    loop {
        let mut length = [0; 4];
        match input.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut text = vec![0; u32::from_ne_bytes(length) as usize];
        input.read_exact(&mut text)?;
        let (mut rest, mut ops) = (&text[..], Vec::new());
        while !rest.is_empty() {
            ops.push(Op::read(&mut rest).ok_or(io::ErrorKind::InvalidData)?);
        }
        let answer: Vec<u8> = perform(reach, &ops).into_iter().flat_map(i32::to_ne_bytes).collect();
        output.write_all(&answer)?;
        output.flush()?;
    }
}

/// Opens the mount, does what can be done in the time that there is, and lets go of it.
fn perform(reach: &Reach, ops: &[Op<'_>]) -> Vec<i32> {
    let begun = Instant::now();
    let number = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let root = match reach.root().and_then(|root| answers(&root).map(|()| root)) {
        Ok(root) => root,
        Err(error) => return vec![number(&error); ops.len()],
    };
    let mut folder: Option<(u64, io::Result<OwnedFd>)> = None;
    let mut results = Vec::with_capacity(ops.len());
    for op in ops {
        if !results.is_empty() && begun.elapsed() > reach.way.limit() {
            results.push(libc::EAGAIN);
            continue;
        }
        if folder.as_ref().is_none_or(|(ino, _)| *ino != op.folder) {
            folder = Some((op.folder, open_folder(&root, reach.device, op)));
        }
        let done = match &folder {
            Some((_, Ok(folder))) => act(folder, op),
            Some((_, Err(error))) => Err(io::Error::from_raw_os_error(number(error))),
            None => Err(Errno::IO.into()),
        };
        results.push(done.map_or_else(|error| number(&error), |()| 0));
    }
    results
}

/// Returns when one of the mount's threads has answered: what follows holds a lock of the kernel's meanwhile.
fn answers(root: &OwnedFd) -> io::Result<()> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    Ok(rustix::fs::statx(root, c"", flags, StatxFlags::BASIC_STATS).map(drop)?)
}

/// A folder by its path, if it is still the one that was meant and nothing is mounted on the way.
fn open_folder(root: &OwnedFd, device: (u32, u32), op: &Op<'_>) -> io::Result<OwnedFd> {
    let path = if op.path.is_empty() { b"." } else { op.path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let folder = rustix::fs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), resolve)?;
    if look(&folder)? == (device, op.folder) { Ok(folder) } else { Err(Errno::NOENT.into()) }
}

fn act(folder: &OwnedFd, op: &Op<'_>) -> io::Result<()> {
    let name = CString::new(op.name)?;
    match (op.gone, op.kind) {
        (true, Kind::Dir) => rustix::fs::unlinkat(folder, &name, AtFlags::REMOVEDIR)?,
        (true, Kind::Link) => rustix::fs::unlinkat(folder, &name, AtFlags::empty())?,
        (false, Kind::Dir) => rustix::fs::mkdirat(folder, &name, Mode::from_raw_mode(0o555))?,
        (false, Kind::Link) => rustix::fs::symlinkat(c".", folder, &name)?,
    }
    Ok(())
}

/// What the subcommand is told.
impl Reach {
    /// Of a helper itself: it starts no other.
    pub fn of_helper(mountpoint: OsString, device: (u32, u32), way: Way) -> Self {
        Self { program: PathBuf::new(), mountpoint: mountpoint.into(), device, way }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives() {
        let ops = [
            Op { gone: true, kind: Kind::Dir, folder: 7 << 60, path: b"run/x", name: b"a\xff" },
            Op { gone: false, kind: Kind::Link, folder: 1, path: b"", name: b"b" },
        ];
        let mut text = Vec::new();
        ops.iter().for_each(|op| op.write(&mut text));
        let mut rest = &text[..];
        for op in ops {
            let read = Op::read(&mut rest).expect("an op");
            assert_eq!(format!("{read:?}"), format!("{op:?}"));
        }
        assert!(rest.is_empty());
        assert!(Op::read(&mut &text[..20]).is_none());
    }
}
