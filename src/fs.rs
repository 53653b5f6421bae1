//! The file system: the kernel's requests → view and sources → answers.
//!
//! Folders come from the current view and are cached by the kernel for good, since every change of the view is told
//! to it. What is inside matches is read from the source when it is asked for, and cached for as long as changes of it
//! are told (`keep` says how long that is).
//! Nothing here writes: every change is answered EROFS, by the kernel where the mount is read-only to it and here where
//! it is not ([`announce`] says why).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::Notifier;
use parking_lot::Mutex;
use serde_json::json;

use crate::crawl::Watching;
use crate::expand::Symlinks;
use crate::listing::ScratchPool;
use crate::live::Live;
use crate::signals::SessionEnd;
use crate::view::inode::Devices;
use announce::{Announcer, Kind};
use attr::{Attr, folder_attr, since_epoch};
use cache::{Cache, Handles};
use control::Control;
use epochs::Epochs;
use files::Opened;
use forget::{Forgetter, Late};
use habits::Habits;
use negotiate::Agreed;
use node::{Listing, Node, Nodes};
use reach::Target;
use wire::Channel;

mod ahead;
pub mod announce;
mod attr;
mod cache;
mod control;
mod dirs;
mod epochs;
mod export;
mod files;
mod forget;
pub mod guard;
mod habits;
mod keep;
pub mod mount;
mod negotiate;
mod node;
mod reach;
mod refresh;
mod serve;
mod settle;
mod share;
mod waiting;
mod wire;
mod xattr;

/// How long the kernel may keep what only changes when it is told so: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long what was read of a source's directories is taken for what is there.
const FRESH: Duration = Duration::from_secs(1);

/// How many entries of listings are kept: some 100 MB of memory.
const LISTED_ENTRIES: usize = 1_000_000;

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
    /// How long the kernel may keep attributes and entries of sources before it asks again; `None` for as long as
    /// changes are told, or for as long as it takes until somebody looks.
    pub ttl: Option<Duration>,
    /// How often sources that do not tell of changes are looked at, if at all.
    pub poll: Option<Duration>,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// The walk went through links.
    pub follow: bool,
}

/// The file system.
pub struct VeinFs {
    live: Arc<Live>,
    options: FsOptions,
    uid: u32,
    gid: u32,
    nodes: Arc<Nodes>,
    handles: Arc<Handles>,
    listings: Arc<Cache<Listing>>,
    devices: Arc<Devices>,
    scratch: ScratchPool,
    opened: Opened,
    waiting: Arc<waiting::Waiting>,
    habits: Habits,
    /// For each source.
    lookers: Vec<ahead::Lookers>,
    /// What tells of changes, for each source.
    watches: Vec<Arc<dyn Watching>>,
    epochs: Arc<Epochs>,
    missing: export::Missing,
    /// What was agreed with the kernel; set before the first request.
    agreed: Arc<OnceLock<Agreed>>,
    channel: OnceLock<Channel>,
    notifier: Arc<OnceLock<Notifier>>,
    /// What the kernel has to forget because an answer came late.
    late: Sender<Late>,
    announcer: Announcer,
    end: Mutex<Option<SessionEnd>>,
}

impl std::fmt::Debug for VeinFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VeinFs").field("live", &self.live).finish_non_exhaustive()
    }
}

impl VeinFs {
    /// A file system that shows `live`; `watches` tell of changes in its sources, in their order, `end` is told when the
    /// session is over, and `late` of what the kernel has to be told once more.
    fn new(
        live: Arc<Live>,
        options: FsOptions,
        watches: Vec<Arc<dyn Watching>>,
        end: Option<SessionEnd>,
        late: Sender<Late>,
    ) -> Self {
        let announcer = Announcer::new(options.view == ViewMode::Link);
        let room = (crate::walk::descriptor_limit() / 4).clamp(16, 4096);
        // In the order of the sources, so that files have the same numbers after a remount.
        let devices = Devices::default();
        for source in &live.sources {
            if let Ok((dev, ino)) = source.source.open_root().and_then(|root| source.source.identity(&root)) {
                devices.ino(dev, ino);
            }
        }
        let lookers = live.sources.iter().map(|_| ahead::Lookers::default()).collect();
        Self {
            scratch: ScratchPool::new(Arc::clone(&live.automaton)),
            live,
            options,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            nodes: Arc::default(),
            handles: Arc::new(Cache::new(room)),
            listings: Arc::new(Cache::new(LISTED_ENTRIES)),
            devices: Arc::new(devices),
            opened: Opened::default(),
            waiting: Arc::default(),
            habits: Habits::default(),
            lookers,
            watches,
            epochs: Arc::default(),
            missing: export::Missing::new(),
            agreed: Arc::default(),
            channel: OnceLock::new(),
            notifier: Arc::default(),
            late,
            announcer,
            end: Mutex::new(end),
        }
    }

    /// What announces changes of the view to programs that watch.
    fn announcer(&self) -> Announcer {
        self.announcer.clone()
    }

    /// The open directories of sources, to be closed when nobody uses them.
    fn handles(&self) -> Arc<Handles> {
        Arc::clone(&self.handles)
    }

    /// What directories show.
    fn listings(&self) -> Arc<Cache<Listing>> {
        Arc::clone(&self.listings)
    }

    /// What the kernel remembers.
    fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
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
            epochs: Arc::clone(&self.epochs),
            late: self.late.clone(),
            narrows: self.options.allow_other,
        }
    }

    /// Where the session's notifier is to be put once there is one.
    fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.notifier)
    }

    fn do_readlink(&self, ino: u64) -> io::Result<Vec<u8>> {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(error) => return self.place_by_ino(ino).map(|place| self.link_text(&place)).ok_or(error),
        };
        self.shown_text(&node)
    }

    /// What a link says, made absolute where it was relative to where it really is.
    fn shown_text(&self, node: &Node) -> io::Result<Vec<u8>> {
        let (dir, at) = self.whereabouts(node)?;
        let place = node.place();
        let text = self.source(&place).read_link(&dir, &at.name)?;
        if text.starts_with(b"/") {
            return Ok(text);
        }
        let source = &self.live.sources[place.source];
        let mut real = source.path_of(&crate::entry::RelPath::from_bytes(node.dir_path()));
        real.push(b'/');
        real.extend_from_slice(&text);
        Ok(real)
    }

    fn do_xattrs(&self, ino: u64) -> io::Result<Option<xattr::Subject>> {
        let node = match self.target(ino) {
            Ok(Target::Node(node)) => node,
            Ok(Target::Folder(_) | Target::Control(_)) => return Ok(None),
            // A match shown as a link has no node.
            Err(_) if self.place_by_ino(ino).is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        let (dir, name) = match node.dir() {
            Some(_) => (self.handle(&node)?, None),
            None => {
                let (dir, at) = self.whereabouts(&node)?;
                (dir, Some((at.name, at.linked)))
            }
        };
        Ok(Some(xattr::Subject { dir, name, node }))
    }

    /// Where something in a source really is.
    fn real_path(&self, node: &Node) -> Vec<u8> {
        let source = &self.live.sources[node.place().source];
        let mut path = node.dir_path();
        if node.dir().is_none() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(node.at.lock().name.to_bytes());
        }
        source.path_of(&crate::entry::RelPath::from_bytes(path))
    }

    /// True if the access list of something is not shown: what a narrowed folder's own list gives, the directories above
    /// it may not.
    fn is_unlisted(&self, node: &Arc<Node>) -> bool {
        let top = node.dir().is_some() && node.at.lock().parent.is_none();
        // What cannot be opened is not opened to anyone.
        self.options.allow_other
            && top
            && self.handle(node).map_or(true, |handle| handle.local().is_ok_and(share::narrows))
    }

    fn control_attr(&self, control: &Control) -> Attr {
        let mut attr = folder_attr(control.ino(), self.live.started, self.uid, self.gid);
        // It names every match, also those that other users may not reach.
        let readers = if self.options.allow_other { 0o700 } else { 0o777 };
        attr.set_perm(attr.perm() & readers);
        if let Some(text) = self.control_text(control) {
            attr.mode = libc::S_IFREG | 0o444 & readers;
            attr.size = text.len() as u64;
            attr.mtime = since_epoch(SystemTime::now());
        }
        attr
    }

    fn control_text(&self, control: &Control) -> Option<Vec<u8>> {
        let mode = match (self.agreed().passthrough, self.options.open) {
            (false, _) | (_, OpenMode::Cached) => "page cache",
            (true, OpenMode::Auto) => "passthrough for large files, page cache for others",
            (true, OpenMode::Passthrough) => "passthrough",
        };
        let reads = json!({"mode": mode, "inodes": self.nodes.len(), "open": self.opened.len()});
        control.text(&self.live, reads, &self.announcer)
    }

    fn do_statfs(&self, ino: u64) -> io::Result<rustix::fs::StatVfs> {
        let root = match self.target(ino) {
            Ok(Target::Node(node)) => self.root_handle(node.place().source)?,
            // The first source that is there.
            _ => {
                let mut sources = 0..self.live.sources.len();
                sources.find_map(|at| self.root_handle(at).ok()).ok_or_else(reach::gone)?
            }
        };
        match &*root {
            crate::source::Handle::Local(fd) => Ok(rustix::fs::fstatvfs(fd)?),
            crate::source::Handle::Object(dir) => Ok(dir.statfs()),
        }
    }

    /// What was agreed with the kernel; nothing where nothing is mounted, as in tests.
    fn agreed(&self) -> Agreed {
        self.agreed.get().copied().unwrap_or_default()
    }

    /// What the kernel gets of a name that is announced: good for this one call.
    fn phantom(&self, ino: u64, kind: Kind) -> Attr {
        let mut attr = folder_attr(ino, self.live.started, self.uid, self.gid);
        if kind == Kind::Link {
            attr.set_kind(libc::S_IFLNK);
            attr.size = 1;
        }
        attr
    }

    /// access(2); `mask` is of `R_OK` and so on.
    fn do_access(&self, ino: u64, mask: u32) -> io::Result<()> {
        use rustix::fs::{Access, AtFlags, accessat};
        let asks = |bit: i32| mask & bit.cast_unsigned() != 0;
        let read_only = || io::Error::from_raw_os_error(libc::EROFS);
        let Target::Node(node) = self.target(ino)? else {
            return if asks(libc::W_OK) { Err(read_only()) } else { Ok(()) };
        };
        // Devices, FIFOs and sockets are written to without a change of the file system.
        if asks(libc::W_OK)
            && matches!(self.stat(&node)?.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR | libc::S_IFLNK)
        {
            return Err(read_only());
        }
        let mut access = Access::EXISTS;
        access.set(Access::READ_OK, asks(libc::R_OK));
        access.set(Access::WRITE_OK, asks(libc::W_OK));
        access.set(Access::EXEC_OK, asks(libc::X_OK));
        match node.dir() {
            Some(_) => {
                // Not by `.`, for which one has to be allowed to search it.
                let dir = self.handle(&node)?;
                let Ok(dir) = dir.local() else { return Ok(()) };
                let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
                accessat(rustix::fs::CWD, link, access, AtFlags::EACCESS)?;
            }
            None => {
                let (dir, at) = self.whereabouts(&node)?;
                if let Ok(dir) = dir.local() {
                    accessat(dir, &at.name, access, AtFlags::EACCESS)?;
                } else if asks(libc::X_OK) {
                    return Err(io::Error::from_raw_os_error(libc::EACCES));
                }
            }
        }
        Ok(())
    }
}
