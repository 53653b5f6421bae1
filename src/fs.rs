//! The fuser adapter: kernel requests → view and sources → replies.
//!
//! Folders come from the current view and are cached by the kernel for good, since every change of the view is told
//! to it. What is inside matches is read from the source when it is asked for, and cached for [`FsOptions::ttl`].
//! Nothing here writes: every change is answered EROFS, by the kernel where the mount is read-only to it and here where
//! it is not ([`announce`] says why).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::expand::Symlinks;
use crate::listing::ScratchPool;
use crate::live::Live;
use crate::signals::SessionEnd;
use crate::source::Handle;
use crate::view::inode::Devices;
use announce::{Announcer, Answer, Kind};
use attr::{errno, folder_attr};
use control::Control;
use files::{Open, Opened, piece, read_full};
use forget::Forgetter;
use node::{Cache, Listing, Node, NodeKind, Nodes};
use reach::Target;

pub mod announce;
mod attr;
mod control;
mod dirs;
mod files;
mod forget;
pub mod mount;
mod node;
mod reach;
mod refresh;
mod share;
mod xattr;

/// How long the kernel may keep what only changes when it is told so: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// The largest read that one request may ask for, in bytes.
const READ_BYTES: usize = 1 << 20;

/// What is shown of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewMode {
    /// What the pattern describes
    #[default]
    Matched,
    /// The whole directory
    All,
    /// A symbolic link to the directory
    Link,
}

/// How files are opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpenMode {
    /// Large files passed through where the kernel and the privilege allow it, others through the page cache
    #[default]
    Auto,
    /// All through the page cache
    Cached,
    /// All passed through where possible
    Passthrough,
}

/// How a mount behaves.
#[derive(Clone, Debug)]
pub struct FsOptions {
    /// What is shown of a match.
    pub view: ViewMode,
    /// How links inside matches are shown.
    pub symlinks: Symlinks,
    /// How files are opened.
    pub open: OpenMode,
    /// How long the kernel may keep attributes and entries of sources before it asks again.
    pub ttl: Duration,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// The walk went through links.
    pub follow: bool,
}

/// The file system.
#[derive(Debug)]
pub struct VeinFs {
    live: Arc<Live>,
    options: FsOptions,
    uid: u32,
    gid: u32,
    nodes: Arc<Nodes>,
    handles: Arc<Cache<Arc<Handle>>>,
    listings: Arc<Cache<Listing>>,
    devices: Arc<Devices>,
    scratch: ScratchPool,
    opened: Opened,
    passthrough: bool,
    no_opendir: bool,
    notifier: Arc<OnceLock<Notifier>>,
    /// Directories that show another thing than they did.
    changed: Sender<u64>,
    announcer: Announcer,
    end: Mutex<Option<SessionEnd>>,
}

impl VeinFs {
    /// A file system that shows `live`; `end` is told when the session is over, `changed` of each directory that shows
    /// another thing than it did.
    pub fn new(live: Arc<Live>, options: FsOptions, end: Option<SessionEnd>, changed: Sender<u64>) -> Self {
        let announcer = Announcer::new(options.view == ViewMode::Link);
        let room = (crate::walk::descriptor_limit() / 4).clamp(16, 4096);
        // In the order of the sources, so that files have the same numbers after a remount.
        let devices = Devices::default();
        for source in &live.sources {
            if let Ok((dev, ino)) = source.source.open_root().and_then(|root| source.source.identity(&root)) {
                devices.ino(dev, ino);
            }
        }
        Self {
            scratch: ScratchPool::new(Arc::clone(&live.automaton)),
            live,
            options,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            nodes: Arc::default(),
            handles: Arc::new(Cache::new(room)),
            listings: Arc::new(Cache::new(4096)),
            devices: Arc::new(devices),
            opened: Opened::default(),
            passthrough: false,
            no_opendir: false,
            notifier: Arc::default(),
            changed,
            announcer,
            end: Mutex::new(end),
        }
    }

    /// What announces changes of the view to programs that watch.
    fn announcer(&self) -> Announcer {
        self.announcer.clone()
    }

    /// The open directories of sources, to be closed when nobody uses them.
    fn handles(&self) -> Arc<Cache<Arc<Handle>>> {
        Arc::clone(&self.handles)
    }

    /// What makes the kernel forget.
    fn forgetter(&self) -> Forgetter {
        Forgetter {
            live: Arc::clone(&self.live),
            nodes: Arc::clone(&self.nodes),
            handles: Arc::clone(&self.handles),
            listings: Arc::clone(&self.listings),
            devices: Arc::clone(&self.devices),
            notifier: Arc::clone(&self.notifier),
            changed: self.changed.clone(),
        }
    }

    /// Where the session's notifier is to be put once there is one.
    pub fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.notifier)
    }

    fn do_readlink(&self, ino: INodeNo) -> io::Result<Vec<u8>> {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(error) => return self.place_by_ino(ino.0).map(|place| self.link_text(&place)).ok_or(error),
        };
        self.shown_text(&node)
    }

    /// What a link says, made absolute where it was relative to where it really is.
    fn shown_text(&self, node: &Node) -> io::Result<Vec<u8>> {
        let (dir, at) = self.whereabouts(node)?;
        let text = self.source(&node.place).read_link(&dir, &at.name)?;
        if text.starts_with(b"/") {
            return Ok(text);
        }
        let source = &self.live.sources[node.place().source];
        let mut real = source.path_of(&crate::entry::RelPath::from_bytes(node.dir_path()));
        real.push(b'/');
        real.extend_from_slice(&text);
        Ok(real)
    }

    fn do_xattrs(&self, ino: INodeNo) -> io::Result<Option<xattr::Subject>> {
        let node = match self.target(ino) {
            Ok(Target::Node(node)) => node,
            Ok(Target::Folder(_) | Target::Control(_)) => return Ok(None),
            // A match shown as a link has no node.
            Err(_) if self.place_by_ino(ino.0).is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        let (dir, name) = match &node.kind {
            NodeKind::Dir { .. } => (self.handle(&node)?, None),
            NodeKind::Leaf { .. } => {
                let (dir, at) = self.whereabouts(&node)?;
                (dir, Some((at.name, at.linked)))
            }
        };
        let place = node.place();
        let source = &self.live.sources[place.source];
        let mut path = node.dir_path();
        if let Some((name, _)) = &name {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
        }
        let real = source.path_of(&crate::entry::RelPath::from_bytes(path));
        // What a narrowed folder's own list gives, the directories above it may not.
        let top = name.is_none() && node.at.lock().parent.is_none();
        let unlisted = self.options.allow_other && top && share::narrows(OsStr::from_bytes(&real).as_ref());
        Ok(Some(xattr::Subject { dir, name, real, unlisted, place }))
    }

    fn control_attr(&self, control: &Control) -> FileAttr {
        let mut attr = folder_attr(control.ino(), self.live.started, self.uid, self.gid);
        // It names every match, also those that other users may not reach.
        let readers = if self.options.allow_other { 0o700 } else { 0o777 };
        attr.perm &= readers;
        if let Some(text) = self.control_text(control) {
            attr.kind = fuser::FileType::RegularFile;
            attr.perm = 0o444 & readers;
            attr.size = text.len() as u64;
            attr.mtime = SystemTime::now();
        }
        attr
    }

    fn control_text(&self, control: &Control) -> Option<Vec<u8>> {
        let mode = match (self.passthrough, self.options.open) {
            (false, _) | (_, OpenMode::Cached) => "page cache",
            (true, OpenMode::Auto) => "passthrough for large files, page cache for others",
            (true, OpenMode::Passthrough) => "passthrough",
        };
        let reads = json!({"mode": mode, "inodes": self.nodes.len(), "open": self.opened.len()});
        control.text(&self.live, reads, &self.announcer)
    }

    fn do_statfs(&self, ino: INodeNo) -> io::Result<rustix::fs::StatVfs> {
        let root = match self.target(ino) {
            Ok(Target::Node(node)) => self.root_handle(node.place.source)?,
            // The first source that is there.
            _ => {
                let mut sources = 0..self.live.sources.len();
                sources.find_map(|at| self.root_handle(at).ok()).ok_or_else(reach::gone)?
            }
        };
        Ok(rustix::fs::fstatvfs(&root.0)?)
    }

    /// What the kernel gets of a name that is announced: good for this one call.
    fn phantom(&self, ino: u64, kind: Kind) -> FileAttr {
        let mut attr = folder_attr(ino, self.live.started, self.uid, self.gid);
        if kind == Kind::Link {
            (attr.kind, attr.size) = (fuser::FileType::Symlink, 1);
        }
        attr
    }

    /// Answers a name's making: by the announcer's helper, or EROFS.
    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, kind: Kind, reply: ReplyEntry) {
        match self.announcer.make(request.pid(), parent.0, name.as_bytes(), kind) {
            Ok(ino) => reply.entry(&Duration::ZERO, &self.phantom(ino, kind), Generation(0)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Answers a name's removal: by the announcer's helper, or EROFS.
    fn unmake(&self, request: &Request, parent: INodeNo, name: &OsStr, kind: Kind, reply: ReplyEmpty) {
        match self.announcer.remove(request.pid(), parent.0, name.as_bytes(), kind) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn do_access(&self, ino: INodeNo, mask: AccessFlags) -> io::Result<()> {
        use rustix::fs::{Access, AtFlags, accessat};
        if mask.contains(AccessFlags::W_OK) {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let Target::Node(node) = self.target(ino)? else { return Ok(()) };
        let mut access = Access::EXISTS;
        access.set(Access::READ_OK, mask.contains(AccessFlags::R_OK));
        access.set(Access::EXEC_OK, mask.contains(AccessFlags::X_OK));
        match &node.kind {
            NodeKind::Dir { .. } => accessat(&self.handle(&node)?.0, c".", access, AtFlags::EACCESS)?,
            NodeKind::Leaf { .. } => {
                let (dir, at) = self.whereabouts(&node)?;
                accessat(&dir.0, &at.name, access, AtFlags::EACCESS)?;
            }
        }
        Ok(())
    }
}

thread_local! {
    /// What a read fills before it is sent; one for each thread, as long as the longest read.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl fuser::Filesystem for VeinFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_MAX_PAGES;
        self.no_opendir = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_ok();
        for flag in wanted.iter() {
            // A kernel without one of them works all the same, only slower.
            let _ = config.add_capabilities(flag);
        }
        if self.options.allow_other {
            // The kernel then asks for access lists, and holds others to them as the source's file system does.
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_ACL);
        }
        let root = rustix::process::geteuid().is_root();
        if root && self.options.open != OpenMode::Cached && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        {
            self.passthrough = config.set_max_stack_depth(2).is_ok();
        }
        if let Err(most) = config.set_max_readahead(READ_BYTES as u32) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn destroy(&mut self) {
        self.announcer.stop("the mount has ended");
        if let Some(mut end) = self.end.lock().take() {
            end.send(Ok(()));
        }
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.announcer.lookup(request.pid(), parent.0, name.as_bytes()) {
            Some(Answer::Nothing) => return reply.error(fuser::Errno::ENOENT),
            Some(Answer::Phantom(ino, kind)) => {
                return reply.entry(&Duration::ZERO, &self.phantom(ino, kind), Generation(0));
            }
            None => {}
        }
        match self.do_lookup(parent, name.as_bytes()) {
            Ok((attr, generation, attr_ttl, entry_ttl)) => {
                reply.entry_with_ttls(&attr_ttl, &entry_ttl, &attr, Generation(generation));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, lookups: u64) {
        self.nodes.forget(ino.0, lookups);
        self.announcer.forget(ino.0, lookups);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.do_getattr(ino, handle) {
            Ok((attr, ttl)) => reply.attr(&ttl, &attr),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.do_readlink(ino) {
            Ok(text) => reply.data(&text),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.do_open(ino, flags, &reply) {
            Ok((handle, flags, Some(backing))) => {
                reply.opened_passthrough(handle, flags & !FopenFlags::FOPEN_KEEP_CACHE, &backing);
            }
            Ok((handle, flags, None)) => reply.opened(handle, flags),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.opened.get(handle) {
            Some(Open::File { fd, .. }) => BUFFER.with_borrow_mut(|buffer| {
                let size = size as usize;
                if buffer.len() < size {
                    buffer.resize(size.max(READ_BYTES), 0);
                }
                match read_full(&fd, &mut buffer[..size], offset) {
                    Ok(read) => reply.data(&buffer[..read]),
                    Err(error) => reply.error(errno(&error)),
                }
            }),
            Some(Open::Text(text)) => reply.data(piece(&text, offset, size)),
            // Whoever works it out answers; no thread of the mount waits for that.
            Some(Open::Later(later)) => later.then(move |text| reply.data(piece(text, offset, size))),
            _ => reply.error(fuser::Errno::EBADF),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(Open::File { node, backing, fd }) = self.opened.remove(handle) {
            let mut state = node.open.lock();
            state.count = state.count.saturating_sub(1);
            // The last handle takes the backing file with it, under the lock, so that the next open makes a new one.
            drop(backing);
            drop(state);
            drop(fd);
        }
        reply.ok();
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            // Asked once; from then on the kernel opens directories by itself.
            reply.error(fuser::Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.do_readdir(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.do_readdirplus(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.do_statfs(ino) {
            Ok(stat) => reply.statfs(
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                u32::try_from(stat.f_bsize).unwrap_or(4096),
                u32::try_from(stat.f_namemax).unwrap_or(255),
                u32::try_from(stat.f_frsize).unwrap_or(4096),
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if let Some(asked) = refresh::asked(name) {
            return answer_xattr(self.do_refresh(request.uid(), ino, asked, size > 0), size, reply);
        }
        let value = self.do_xattrs(ino).and_then(|subject| match subject {
            Some(subject) => subject.get(name, &self.live),
            None => Err(io::Error::from_raw_os_error(libc::ENODATA)),
        });
        answer_xattr(value, size, reply);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.do_xattrs(ino).and_then(|subject| subject.map_or(Ok(Vec::new()), |subject| subject.list()));
        answer_xattr(names, size, reply);
    }

    // Changes, which where the mount is read-only to the kernel do not get here.

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        self.make(request, parent, name, Kind::Dir, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unmake(request, parent, name, Kind::Dir, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, _target: &Path, reply: ReplyEntry) {
        self.make(request, parent, name, Kind::Link, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unmake(request, parent, name, Kind::Link, reply);
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(fuser::Errno::EROFS);
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(fuser::Errno::EROFS);
    }

    fn link(&self, _request: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(fuser::Errno::EROFS);
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::EROFS);
    }

    fn setattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(fuser::Errno::EROFS);
    }

    fn setxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::EROFS);
    }

    fn removexattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(fuser::Errno::EROFS);
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(fuser::Errno::EROFS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::EROFS);
    }

    fn access(&self, _request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        match self.do_access(ino, mask) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        use rustix::fs::SeekFrom;
        let Some(Open::File { fd, .. }) = self.opened.get(handle) else { return reply.error(fuser::Errno::EBADF) };
        let from = u64::try_from(offset).unwrap_or(0);
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(from),
            libc::SEEK_HOLE => SeekFrom::Hole(from),
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        match rustix::fs::seek(&*fd, to) {
            Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Err(error) => reply.error(errno(&error.into())),
        }
    }
}

fn answer_xattr(value: io::Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}
