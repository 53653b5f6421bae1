//! A read-only mirror of a directory whose every answer takes its time, as from a file server in a LAN.
//!
//! ```text
//! cargo bench --bench slow_fs -- DIR MOUNTPOINT [--delay-ms N] [--threads N]
//! ```
//!
//! It serves until it is unmounted. What stands for a round trip to the server sleeps for the delay (2 ms) before it is
//! answered: `lookup`, `getattr`, `readlink`, `opendir`, `readdir`, `open`, `read`, `statfs`, `getxattr`. As with NFS
//!
//! - the kernel may keep names and attributes for a second, and looks at permissions itself;
//! - opening a directory costs a call, the comparison of its attributes, and each buffer of entries another one;
//! - the end of a listing is told with its last entries, so that the empty answer after them is free;
//! - there is no call that gives entries with attributes at once, and closing costs nothing.
//!
//! So many callers wait side by side as there are threads (64): the kernel lets lookups and listings in one directory
//! run in parallel. The extended attribute `user.slow_fs.calls` of the root holds how many calls there have been of
//! each kind, as JSON; to ask for it is free and not counted.
//!
//! Inode numbers are those of the mirrored files, but for the root, which is 1; what is not on the file system of the
//! root is not there.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, fstatvfs, openat, readlinkat, statat};

const USAGE: &str = "usage: slow_fs DIR MOUNTPOINT [--delay-ms N] [--threads N]";

/// How long the kernel may keep names and attributes.
const KEPT: Duration = Duration::from_secs(1);

/// The attribute of the root that tells the calls.
const CALLS: &str = "user.slow_fs.calls";

const KINDS: [&str; 9] = ["lookup", "getattr", "readlink", "opendir", "readdir", "open", "read", "statfs", "getxattr"];

#[derive(Clone, Copy)]
enum Call {
    Lookup,
    Getattr,
    Readlink,
    Opendir,
    Readdir,
    Open,
    Read,
    Statfs,
    Getxattr,
}

/// What the kernel knows: where it is, and how often it was told of it.
struct Node {
    parent: u64,
    name: OsString,
    lookups: u64,
}

struct Entry {
    ino: u64,
    kind: FileType,
    name: OsString,
}

enum Opened {
    File(OwnedFd),
    Directory { fd: OwnedFd, listed: Mutex<Arc<[Entry]>> },
}

struct SlowFs {
    root: OwnedFd,
    dev: u64,
    delay: Duration,
    calls: [AtomicU64; KINDS.len()],
    nodes: Mutex<HashMap<u64, Node>>,
    handles: Mutex<HashMap<u64, Arc<Opened>>>,
    next_handle: AtomicU64,
}

fn main() -> ExitCode {
    let options = match arguments() {
        Ok(Some(options)) => options,
        // `cargo bench` and `cargo test` run every target, this one without a directory.
        Ok(None) => {
            eprintln!("slow_fs: no directory given, nothing mounted; {USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("slow_fs: {message}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slow_fs: {}: {error}", options.root.display());
            ExitCode::FAILURE
        }
    }
}

pub(crate) struct Options {
    pub(crate) root: PathBuf,
    pub(crate) mountpoint: PathBuf,
    pub(crate) delay: Duration,
    pub(crate) threads: usize,
}

/// The options; `None` if no directory is named.
fn arguments() -> Result<Option<Options>, String> {
    let (mut paths, mut delay_ms, mut threads) = (Vec::new(), 2.0, 64);
    let mut rest = std::env::args_os().skip(1);
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().and_then(|value| value.into_string().ok()).unwrap_or_default();
        match argument.to_str() {
            // What cargo passes to every benchmark or test.
            Some("--bench" | "--test") => {}
            Some("--delay-ms") => delay_ms = value().parse::<f64>().map_err(|_| "--delay-ms wants a number")?,
            Some("--threads") => threads = value().parse().map_err(|_| "--threads wants a number")?,
            Some(flag) if flag.starts_with("--") => return Err(format!("unknown option {flag}")),
            _ => paths.push(PathBuf::from(argument)),
        }
    }
    let delay = Duration::try_from_secs_f64(delay_ms / 1000.0).map_err(|error| error.to_string())?;
    match <[PathBuf; 2]>::try_from(paths) {
        Ok([root, mountpoint]) => Ok(Some(Options { root, mountpoint, delay, threads })),
        Err(paths) if paths.is_empty() => Ok(None),
        Err(_) => Err("a directory and a mount point".to_owned()),
    }
}

pub(crate) fn serve(options: &Options) -> std::io::Result<()> {
    let root = rustix::fs::open(&options.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let fs = SlowFs {
        dev: rustix::fs::fstat(&root)?.st_dev,
        root,
        delay: options.delay,
        calls: Default::default(),
        nodes: Mutex::default(),
        handles: Mutex::default(),
        next_handle: AtomicU64::new(1),
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::DefaultPermissions,
        MountOption::FSName("slow_fs".into()),
        MountOption::CUSTOM("subtype=slow_fs".into()),
    ];
    config.n_threads = Some(options.threads);
    config.clone_fd = true;
    fuser::mount(fs, &options.mountpoint, &config)
}

impl SlowFs {
    /// A round trip to the server.
    fn call(&self, call: Call) {
        self.calls[call as usize].fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.delay);
    }

    /// Where an inode is, below the root.
    fn path(&self, ino: INodeNo) -> Result<PathBuf, Errno> {
        let nodes = self.nodes.lock();
        let mut names = Vec::new();
        let mut at = ino.0;
        while at != INodeNo::ROOT.0 {
            let node = nodes.get(&at).ok_or(Errno::ESTALE)?;
            names.push(node.name.as_os_str());
            at = node.parent;
        }
        Ok(std::iter::once(OsStr::new(".")).chain(names.into_iter().rev()).collect())
    }

    fn stat(&self, path: &Path) -> Result<Stat, Errno> {
        let stat = statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
        if stat.st_dev == self.dev { Ok(stat) } else { Err(Errno::ENOENT) }
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let attr = attributes(&self.stat(&self.path(parent)?.join(name))?)?;
        let mut nodes = self.nodes.lock();
        let lookups = nodes.get(&attr.ino.0).map_or(0, |node| node.lookups) + 1;
        // The newest name is the one by which it is found, should it have several or be renamed.
        nodes.insert(attr.ino.0, Node { parent: parent.0, name: name.to_owned(), lookups });
        Ok(attr)
    }

    fn get_attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let attr = attributes(&self.stat(&self.path(ino)?)?)?;
        // Another thing has that name now.
        if ino != INodeNo::ROOT && attr.ino != ino {
            return Err(Errno::ESTALE);
        }
        Ok(FileAttr { ino, ..attr })
    }

    fn keep(&self, opened: Opened) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.lock().insert(handle, Arc::new(opened));
        FileHandle(handle)
    }

    fn opened(&self, handle: FileHandle) -> Result<Arc<Opened>, Errno> {
        self.handles.lock().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn open_at(&self, ino: INodeNo, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.root, &self.path(ino)?, flags, Mode::empty()).map_err(errno)
    }

    fn read_file(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let opened = self.opened(handle)?;
        let Opened::File(file) = &*opened else { return Err(Errno::EISDIR) };
        let mut data = vec![0; size as usize];
        let length = rustix::io::pread(file, &mut data, offset).map_err(errno)?;
        data.truncate(length);
        Ok(data)
    }

    fn forget_node(&self, ino: INodeNo, lookups: u64) {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get_mut(&ino.0) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                nodes.remove(&ino.0);
            }
        }
    }

    fn calls_json(&self) -> String {
        let counts = KINDS.iter().zip(&self.calls);
        let counts = counts.map(|(kind, count)| format!("\"{kind}\":{}", count.load(Ordering::Relaxed)));
        format!("{{{}}}", counts.collect::<Vec<_>>().join(","))
    }
}

impl Filesystem for SlowFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        config
            .add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS)
            .map_err(|_| std::io::Error::other("the kernel lists directories one after the other"))
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.call(Call::Lookup);
        match self.look_up(parent, name) {
            Ok(attr) => reply.entry(&KEPT, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.forget_node(ino, lookups);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.call(Call::Getattr);
        match self.get_attributes(ino) {
            Ok(attr) => reply.attr(&KEPT, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.call(Call::Readlink);
        match self.path(ino).and_then(|path| readlinkat(&self.root, &path, Vec::new()).map_err(errno)) {
            Ok(text) => reply.data(text.as_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.call(Call::Opendir);
        match self.open_at(ino, OFlags::DIRECTORY) {
            Ok(fd) => {
                let opened = Opened::Directory { fd, listed: Mutex::new(Arc::new([])) };
                reply.opened(self.keep(opened), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let opened = match self.opened(fh) {
            Ok(opened) => opened,
            Err(error) => return reply.error(error),
        };
        let Opened::Directory { fd, listed } = &*opened else { return reply.error(Errno::ENOTDIR) };
        let mut entries = Arc::clone(&listed.lock());
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset == 0 || offset < entries.len() {
            self.call(Call::Readdir);
        }
        if offset == 0 {
            entries = match list(fd) {
                Ok(entries) => entries,
                Err(error) => return reply.error(error),
            };
            *listed.lock() = Arc::clone(&entries);
        }
        for (at, entry) in entries.iter().enumerate().skip(offset) {
            if reply.add(INodeNo(entry.ino), at as u64 + 1, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.handles.lock().remove(&fh.0);
        reply.ok();
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.call(Call::Open);
        match self.open_at(ino, OFlags::empty()) {
            Ok(fd) => reply.opened(self.keep(Opened::File(fd)), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.call(Call::Read);
        match self.read_file(fh, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // The kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.handles.lock().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.call(Call::Statfs);
        match fstatvfs(&self.root) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                s.f_namemax as u32,
                s.f_frsize as u32,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if ino != INodeNo::ROOT || name != CALLS {
            self.call(Call::Getxattr);
            return reply.error(Errno::ENODATA);
        }
        let text = self.calls_json();
        match size as usize {
            0 => reply.size(text.len() as u32),
            room if room < text.len() => reply.error(Errno::ERANGE),
            _ => reply.data(text.as_bytes()),
        }
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

/// What is in a directory at this moment.
fn list(directory: &OwnedFd) -> Result<Arc<[Entry]>, Errno> {
    // With a position of its own, at the beginning.
    let entries = Dir::read_from(directory).map_err(errno)?;
    let entries = entries.map(|entry| {
        let entry = entry.map_err(errno)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        Ok(Entry { ino: entry.ino(), kind: kind(entry.file_type()).unwrap_or(FileType::RegularFile), name })
    });
    entries.collect()
}

fn kind(of: rustix::fs::FileType) -> Option<FileType> {
    use rustix::fs::FileType as Real;
    Some(match of {
        Real::RegularFile => FileType::RegularFile,
        Real::Directory => FileType::Directory,
        Real::Symlink => FileType::Symlink,
        Real::Fifo => FileType::NamedPipe,
        Real::Socket => FileType::Socket,
        Real::CharacterDevice => FileType::CharDevice,
        Real::BlockDevice => FileType::BlockDevice,
        Real::Unknown => return None,
    })
}

fn attributes(stat: &Stat) -> Result<FileAttr, Errno> {
    Ok(FileAttr {
        ino: INodeNo(stat.st_ino),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)).ok_or(Errno::EIO)?,
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: 4096,
        flags: 0,
    })
}

/// A time as `stat` gives it, also before the epoch.
fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = if seconds < 0 { SystemTime::UNIX_EPOCH - whole } else { SystemTime::UNIX_EPOCH + whole };
    start + Duration::from_nanos(nanoseconds)
}
