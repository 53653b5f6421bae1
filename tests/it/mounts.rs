//! `veinfs::mounts` on real FUSE mounts: live, dead, stuck, stacked.
//!
//! Live ones are served by a file system of one file. Dead and stuck ones are mounted by hand, which
//! takes root: the device's descriptor is closed, or kept and never read.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo};
use fuser::{LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request};
use rustix::mount::UnmountFlags;
use veinfs::mounts::{self, MountState, PrepareError, UnmountError, Use};

const TTL: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(20);
const TEXT: &[u8] = b"served\n";

/// One file, `file`.
struct OneFile;

fn attr(ino: INodeNo) -> FileAttr {
    let root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: if root { 0 } else { TEXT.len() as u64 },
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if root { FileType::Directory } else { FileType::RegularFile },
        perm: if root { 0o755 } else { 0o444 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 512,
        flags: 0,
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some("file") => reply.entry(&TTL, &attr(INodeNo(2)), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let from = TEXT.len().min(offset as usize);
        reply.data(&TEXT[from..TEXT.len().min(from + size as usize)]);
    }
}

/// A directory to mount on; whatever is on it is detached in the end, also when the test fails.
struct Mountpoint {
    path: PathBuf,
    // Last, since the mounts on it end first.
    _dir: tempfile::TempDir,
}

impl Mountpoint {
    fn new() -> Self {
        // With a space, which mountinfo escapes.
        let dir = tempfile::Builder::new().prefix("veinfs test ").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let path = dir.path().canonicalize().expect("its path").join("mnt");
        fs::create_dir(&path).expect("a directory");
        Self { path, _dir: dir }
    }

    fn live(&self, fstype: &str) -> BackgroundSession {
        let mut config = Config::default();
        // As MountOption::Subtype it would not reach the kernel when root mounts.
        config.mount_options = vec![MountOption::CUSTOM(format!("subtype={fstype}")), MountOption::RO];
        fuser::spawn_mount(OneFile, &self.path, &config).expect("a mount")
    }

    /// A mount that nobody serves; dead as soon as the result is dropped.
    fn unserved(&self, owner: u32) -> File {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id={owner},group_id={owner},subtype=veinfs");
        let (flags, options) = (nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOSUID, options.as_str());
        nix::mount::mount(Some("unserved"), &self.path, Some("fuse"), flags, Some(options)).expect("a mount");
        device
    }

    fn dead(&self) {
        drop(self.unserved(0));
    }

    fn unmount(&self) {
        if rustix::process::geteuid().is_root() {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            while rustix::mount::unmount(&self.path, flags).is_ok() {}
        } else {
            // Without a mount it fails, and that is fine.
            let _ = Command::new("fusermount3").arg("-uz").arg(&self.path).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Mountpoint {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn state(at: &Mountpoint) -> MountState {
    mounts::state_within(&at.path, SHORT).expect("the mounts")
}

/// True if FUSE mounts, and as root if that is needed, are possible; says so if not.
pub(crate) fn can_mount(as_root: bool) -> bool {
    let missing = if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        "/dev/fuse cannot be opened"
    } else if as_root && !rustix::process::geteuid().is_root() {
        "it takes root"
    } else {
        return true;
    };
    let required = std::env::var_os("VEINFS_REQUIRE_FUSE").is_some_and(|value| value == "1");
    assert!(!required || as_root, "VEINFS_REQUIRE_FUSE=1, but {missing}");
    eprintln!("SKIP: {missing}");
    false
}

#[test]
fn a_live_mount_is_found_and_comes_off() {
    if !can_mount(false) {
        return;
    }
    let at = Mountpoint::new();
    let session = at.live("veinfs");
    assert_eq!(state(&at), MountState::Live);
    let entry = mounts::find(&at.path).expect("the mounts").expect("a mount");
    assert!(entry.is_veinfs(), "{entry:?}");
    assert_eq!(entry.owner(), Some(rustix::process::getuid().as_raw()));
    assert!(mounts::veinfs_mounts().expect("the mounts").contains(&entry));

    let above = at.path.parent().expect("a parent");
    let link = above.join("link");
    std::os::unix::fs::symlink(&at.path, &link).expect("a link");
    assert_eq!(mounts::find(&link).expect("the mounts"), Some(entry));
    assert_eq!(mounts::not_entered(above).expect("the mounts"), [&*at.path]);
    let refused = mounts::prepare_mountpoint(&at.path, true).expect_err("mounted");
    assert!(matches!(refused, PrepareError::AlreadyMounted { .. }), "{refused}");
    assert!(!mounts::wait_gone(&at.path, SHORT).expect("the mounts"));

    mounts::unmount(&link, false).expect("off");
    assert!(mounts::wait_gone(&at.path, LIMIT).expect("the mounts"));
    assert_eq!(state(&at), MountState::NotMounted);
    // How fuser ends a session that was detached is its own affair.
    let _ = session.join();
}

#[test]
fn a_busy_mount_names_its_users() {
    if !can_mount(false) {
        return;
    }
    let at = Mountpoint::new();
    let session = at.live("veinfs");
    let open = File::open(at.path.join("file")).expect("its file");
    let stdin = open.try_clone().expect("a descriptor");
    let mut child = Command::new("sleep").arg("60").current_dir(&at.path).stdin(stdin).spawn().expect("sleep");

    let refused = mounts::unmount(&at.path, false).expect_err("busy");
    let report = mounts::busy(&at.path).expect("the mounts");
    child.kill().expect("a child to end");
    child.wait().expect("its status");
    let text = refused.to_string();
    let UnmountError::Busy { report: told, .. } = refused else { panic!("{text}") };
    assert_eq!(*told, report);
    let uses = |pid| &report.processes.iter().find(|busy| busy.pid == pid).expect("a process").uses;
    assert_eq!(uses(child.id()), &[Use::WorkingDirectory(at.path.clone()), Use::OpenFile(at.path.join("file"))]);
    assert!(report.processes.iter().all(|busy| busy.pid != std::process::id()), "whoever asks knows of itself");
    assert!(text.contains(&format!("sleep (pid {}): working directory {}", child.id(), at.path.display())), "{text}");
    assert!(text.contains("veinfs unmount --lazy"), "{text}");

    mounts::unmount(&at.path, true).expect("detached");
    assert_eq!(state(&at), MountState::NotMounted);
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut &open, &mut text).expect("what was open stays open");
    assert_eq!(text, TEXT);
    drop(open);
    // How fuser ends a session that was detached is its own affair.
    let _ = session.join();
}

#[test]
fn another_file_system_is_left_alone() {
    if !can_mount(false) {
        return;
    }
    let at = Mountpoint::new();
    let _session = at.live("other");
    assert_eq!(state(&at), MountState::NotMounted);
    let refused = mounts::unmount(&at.path, true).expect_err("not ours");
    let UnmountError::NotVeinfs { fstype, .. } = &refused else { panic!("{refused}") };
    assert_eq!(fstype, "fuse.other");
    assert_eq!(mounts::not_entered(&at.path).expect("the mounts"), [] as [PathBuf; 0]);
    let prepared = mounts::prepare_mountpoint(&at.path, true).expect("a directory");
    assert_eq!((prepared.path, prepared.cleared), (at.path.clone(), 0));
}

#[test]
fn dead_mounts_are_seen_and_cleared() {
    if !can_mount(true) {
        return;
    }
    let at = Mountpoint::new();
    at.dead();
    assert_eq!(state(&at), MountState::Dead);
    mounts::unmount(&at.path, false).expect("off");
    assert_eq!(state(&at), MountState::NotMounted);

    at.dead();
    // The second on top of the first, through the descriptor of neither.
    at.dead();
    let prepared = mounts::prepare_mountpoint(&at.path, false).expect("cleared");
    assert_eq!((prepared.path, prepared.cleared), (at.path.clone(), 2));
    assert_eq!(state(&at), MountState::NotMounted);
}

#[test]
fn a_busy_dead_mount_is_detached() {
    if !can_mount(true) {
        return;
    }
    let at = Mountpoint::new();
    let session = at.live("veinfs");
    let open = File::open(at.path.join("file")).expect("its file");
    // The attributes of its root are cached for an hour; that must not count as an answer.
    fs::metadata(&at.path).expect("its root");
    // A forced unmount ends the connection, and then finds that the mount is busy.
    let forced = rustix::mount::unmount(&at.path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
    assert_eq!(forced, Err(rustix::io::Errno::BUSY));
    assert_eq!(state(&at), MountState::Dead);
    mounts::unmount(&at.path, false).expect("detached");
    assert_eq!(state(&at), MountState::NotMounted);
    drop(open);
    // How fuser ends a session that was detached is its own affair.
    let _ = session.join();
}

#[test]
fn a_stuck_mount_hangs_nobody() {
    if !can_mount(true) {
        return;
    }
    let at = Mountpoint::new();
    let device = at.unserved(0);
    assert_eq!(state(&at), MountState::Stuck);
    // The question above still waits for its answer, and so holds the mount.
    let refused = mounts::unmount(&at.path, false).expect_err("busy");
    assert!(matches!(refused, UnmountError::Stuck { .. }), "{refused}");
    let refused = mounts::prepare_mountpoint(&at.path, false).expect_err("stuck");
    assert!(matches!(refused, PrepareError::Stuck { .. }), "{refused}");
    mounts::unmount(&at.path, true).expect("detached");
    assert_eq!(state(&at), MountState::NotMounted);
    drop(device);
}

const NOBODY: u32 = 65534;
const USERS_MOUNTPOINT: &str = "VEINFS_TEST_MOUNTPOINT";
const EXPECTED: &str = "VEINFS_TEST_EXPECTED";

/// The other half of the next test, as an ordinary user.
#[test]
fn role_ordinary_user() {
    let Some(path) = std::env::var_os(USERS_MOUNTPOINT) else { return };
    let result = mounts::unmount(Path::new(&path), false).map_err(|error| error.to_string());
    let text = result.err().unwrap_or_default();
    let expected = std::env::var(EXPECTED).expect("text");
    assert!(text.contains(&expected) && text.is_empty() == expected.is_empty(), "{text}");
}

#[test]
fn an_ordinary_user_takes_off_what_is_his() {
    if !can_mount(true) {
        return;
    }
    // (owner of the mount, extra process in it, what unmounting says)
    for (owner, in_use, expected) in
        [(NOBODY, false, ""), (NOBODY, true, "sleep (pid "), (0, false, "only that user and root")]
    {
        let at = Mountpoint::new();
        let device = at.unserved(owner);
        let mut user = in_use.then(|| {
            // It cannot enter a mount that nobody serves; an open file on it will do.
            let dir =
                rustix::fs::open(&at.path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("a handle");
            Command::new("sleep").arg("60").stdin(dir).uid(NOBODY).gid(NOBODY).spawn().expect("sleep")
        });
        let program = std::env::current_exe().expect("this program");
        let status = Command::new(program)
            .args(["--exact", "mounts::role_ordinary_user", "--nocapture"])
            .env(USERS_MOUNTPOINT, &at.path)
            .env(EXPECTED, expected)
            .stdout(Stdio::null())
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .status();
        if let Some(user) = &mut user {
            user.kill().expect("a child to end");
            user.wait().expect("its status");
        }
        let Ok(status) = status else {
            eprintln!("SKIP: this program cannot be run by an ordinary user");
            return;
        };
        assert!(status.success(), "owner {owner}, in use {in_use}");
        assert_eq!(mounts::find(&at.path).expect("the mounts").is_none(), expected.is_empty());
        drop(device);
    }
}

#[test]
fn an_old_session_leaves_the_next_mount_alone() {
    if !can_mount(true) {
        return;
    }
    let at = Mountpoint::new();
    // fuser unmounts by path when a session is dropped or joined, though it was unmounted long ago.
    let old = ManuallyDrop::new(at.live("veinfs"));
    let entry = mounts::find(&at.path).expect("the mounts").expect("a mount");
    let open = File::open(at.path.join("file")).expect("its file");
    mounts::unmount(&at.path, true).expect("detached");
    let next = at.live("veinfs");
    assert!(!mounts::unmount_own(&entry, true).expect("the mounts"), "it is another's");
    assert_eq!(state(&at), MountState::Live);
    let entry = mounts::find(&at.path).expect("the mounts").expect("a mount");
    assert!(mounts::unmount_own(&entry, false).expect("off"));
    assert_eq!(state(&at), MountState::NotMounted);
    next.join().expect("its end");
    assert!(!old.guard.is_finished(), "it still serves what is open");
    drop(open);
    let deadline = Instant::now() + LIMIT;
    while !old.guard.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(old.guard.is_finished(), "the session ends although it is never dropped");
}
