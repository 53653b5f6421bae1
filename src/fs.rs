//! The fuser adapter: kernel requests → view and sources → replies.
//!
//! Folders come from the current view and are cached by the kernel for good, since every change of the view is told
//! to it. What is inside matches is read from the source when it is asked for, and cached for [`FsOptions::ttl`].
//! Nothing here writes: the mount is read-only, so that the kernel itself answers every change with EROFS.

use std::cell::OnceCell;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{
    AccessFlags, BackingId, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    Notifier, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::json;

use crate::expand::{Content, Directory, Shown, Symlinks, expand};
use crate::listing::{ListRules, ScratchPool, c_name};
use crate::live::Live;
use crate::matcher::Own;
use crate::matcher::bits::Bits;
use crate::reader::Reader;
use crate::signals::SessionEnd;
use crate::source::{Handle, Stat};
use crate::view::inode::{self, Devices};
use crate::view::table::{DOTS, Table};
use crate::view::{Folder, Item, Place};
use attr::{errno, file_attr, folder_attr, kind_of};
use control::Control;
use node::{At, Cache, Listing, Node, NodeKind, Nodes, OpenState, generation, open_child};

mod attr;
mod control;
pub mod mount;
mod node;
mod share;

/// How long the kernel may keep what only changes when it is told so: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Files of this size in bytes and above are passed through; smaller ones gain more from the page cache, since an
/// open without a backing file costs less (measured in `docs/benchmarks.md`).
const PASSTHROUGH_BYTES: u64 = 128 << 10;
/// The largest read that one request may ask for, in bytes.
const READ_BYTES: usize = 1 << 20;

/// What is shown of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
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
    nodes: Nodes,
    handles: Cache<Arc<Handle>>,
    listings: Cache<Listing>,
    devices: Devices,
    scratch: ScratchPool,
    opened: Opened,
    passthrough: bool,
    notifier: Arc<OnceLock<Notifier>>,
    end: Mutex<Option<SessionEnd>>,
}

/// What is open, by file handle.
#[derive(Debug)]
struct Opened {
    next: AtomicU64,
    shards: Vec<Mutex<FxHashMap<u64, Open>>>,
}

#[derive(Clone, Debug)]
enum Open {
    File { fd: Arc<OwnedFd>, node: Arc<Node>, backing: Option<Arc<BackingId>> },
    Text(Arc<[u8]>),
    Folder(Arc<Folder>),
    Dir { node: Arc<Node>, table: Arc<Table<Shown>> },
    Control(Arc<Table<Control>>),
}

impl Default for Opened {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), shards: (0..16).map(|_| Mutex::default()).collect() }
    }
}

impl Opened {
    fn add(&self, open: Open) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards[handle as usize % 16].lock().insert(handle, open);
        FileHandle(handle)
    }

    fn get(&self, handle: FileHandle) -> Option<Open> {
        self.shards[handle.0 as usize % 16].lock().get(&handle.0).cloned()
    }

    fn remove(&self, handle: FileHandle) -> Option<Open> {
        self.shards[handle.0 as usize % 16].lock().remove(&handle.0)
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// What an inode number stands for.
enum Target {
    Folder(Arc<Folder>),
    Control(Control),
    Node(Arc<Node>),
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

impl VeinFs {
    /// A file system that shows `live`; `end` is told when the session is over.
    pub fn new(live: Arc<Live>, options: FsOptions, end: Option<SessionEnd>) -> Self {
        let room = (crate::walk::descriptor_limit() / 4).clamp(64, 4096);
        Self {
            scratch: ScratchPool::new(Arc::clone(&live.automaton)),
            live,
            options,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            nodes: Nodes::default(),
            handles: Cache::new(room),
            listings: Cache::new(4096),
            devices: Devices::default(),
            opened: Opened::default(),
            passthrough: false,
            notifier: Arc::default(),
            end: Mutex::new(end),
        }
    }

    /// Where the session's notifier is to be put once there is one.
    pub fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.notifier)
    }

    fn target(&self, ino: INodeNo) -> io::Result<Target> {
        if let Some(control) = Control::of(ino.0, self.live.patterns.len()) {
            return Ok(Target::Control(control));
        }
        if let Some(node) = self.nodes.get(ino.0) {
            return Ok(Target::Node(node));
        }
        self.live.view().folders.get(&ino.0).map(|folder| Target::Folder(Arc::clone(folder))).ok_or_else(stale)
    }

    fn node(&self, ino: INodeNo) -> io::Result<Arc<Node>> {
        self.nodes.get(ino.0).ok_or_else(stale)
    }

    // --- the real directories behind nodes ---

    fn source(&self, place: &Place) -> &dyn crate::source::Source {
        &*self.live.sources[place.source].source
    }

    fn root_handle(&self, source: usize) -> io::Result<Arc<Handle>> {
        let key = source as u64;
        if let Some(handle) = self.handles.get(key, self.options.ttl) {
            return Ok(handle);
        }
        let handle = Arc::new(self.live.sources[source].source.open_root()?);
        self.handles.put(key, Arc::clone(&handle));
        Ok(handle)
    }

    /// Opens the directory of a match.
    fn place_handle(&self, place: &Place) -> io::Result<Handle> {
        let source = self.source(place);
        let path = &place.found.path;
        let root = self.root_handle(place.source)?;
        if path.is_root() {
            return source.open_root();
        }
        match source.open_dir(&root, &c_name(path.as_bytes())) {
            // The way to it goes through links, which only --follow walks.
            Err(error) if self.options.follow && matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                self.way_to(place, &mut |_| {})
            }
            opened => opened,
        }
    }

    /// Opens the directory of a match one component after the other, and shows `each` directory above it.
    fn way_to(&self, place: &Place, each: &mut dyn FnMut(&Handle)) -> io::Result<Handle> {
        let source = self.source(place);
        let mut at = source.open_root()?;
        for name in place.found.path.components().map(c_name) {
            each(&at);
            at = match source.open_dir(&at, &name) {
                Err(_) if self.options.follow => source.open_link(&at, &name)?,
                opened => opened?,
            };
        }
        Ok(at)
    }

    /// A directory node's directory, opened through those above it, kept for a while.
    fn handle(&self, node: &Arc<Node>) -> io::Result<Arc<Handle>> {
        // From the nearest directory above that is open downwards; a loop, since trees may be very deep.
        let mut missing: Vec<(Arc<Node>, At)> = Vec::new();
        let mut at = Arc::clone(node);
        let mut base = loop {
            if let Some(handle) = self.handles.get(at.ino, self.options.ttl) {
                break handle;
            }
            let how = at.at.lock().clone();
            match how.parent.clone() {
                Some(parent) => {
                    missing.push((at, how));
                    at = parent;
                }
                None => {
                    let handle = Arc::new(self.place_handle(&at.place)?);
                    self.handles.put(at.ino, Arc::clone(&handle));
                    break handle;
                }
            }
        };
        for (node, how) in missing.into_iter().rev() {
            base = Arc::new(open_child(self.source(&node.place), &base, &how.name, how.linked)?);
            self.handles.put(node.ino, Arc::clone(&base));
        }
        Ok(base)
    }

    /// The open directory that a leaf is in, and its name there.
    fn whereabouts(&self, node: &Node) -> io::Result<(Arc<Handle>, At)> {
        let at = node.at.lock().clone();
        let parent = at.parent.as_ref().ok_or_else(stale)?;
        Ok((self.handle(parent)?, at))
    }

    fn stat(&self, node: &Arc<Node>) -> io::Result<Stat> {
        match &node.kind {
            NodeKind::Dir { .. } => self.source(&node.place).stat_dir(&*self.handle(node)?),
            NodeKind::Leaf { dev, ino } => {
                let (dir, at) = self.whereabouts(node)?;
                let stat = self.source(&node.place).stat(&dir, &at.name, at.linked)?;
                // Another file has taken the name: whoever asks by name looks it up again.
                if (stat.dev, stat.ino) == (*dev, *ino) { Ok(stat) } else { Err(stale()) }
            }
        }
    }

    fn attr(&self, node: &Arc<Node>, stat: &Stat) -> FileAttr {
        let mut attr = file_attr(node.ino, stat);
        let top_of_match = matches!(&node.kind, NodeKind::Dir { .. }) && node.at.lock().parent.is_none();
        if self.options.allow_other && top_of_match {
            let source = &self.live.sources[node.place.source];
            share::narrow(&mut attr, &PathBuf::from(OsStr::from_bytes(&source.path_of(&node.place.found.path))));
        }
        attr
    }

    // --- what directories show ---

    fn listing(&self, node: &Arc<Node>) -> io::Result<Listing> {
        let NodeKind::Dir { path, content } = &node.kind else {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        };
        let content = Arc::clone(&content.lock());
        if let Some(listing) = self.listings.get(node.ino, self.options.ttl)
            && (Arc::ptr_eq(&listing.content, &content) || listing.content == content)
        {
            return Ok(listing);
        }
        let handle = self.handle(node)?;
        let automaton = &*self.live.automaton;
        let options = &self.live.options[node.place.source];
        let source = node.place.source;
        let symlinks = if self.options.allow_other && self.options.symlinks == Symlinks::Follow {
            // Shown as links, so that the kernel checks the way to what they lead to for whoever follows them.
            Symlinks::Keep
        } else {
            self.options.symlinks
        };
        let entries = self.scratch.with(|scratch| {
            let root_name = &self.live.sources[source].root_name;
            let mut above = Bits::new(automaton.names.len());
            let name = path.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty()).unwrap_or(root_name);
            if !automaton.ancestor_globs.is_empty() && !path.is_empty() {
                let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
                names.pop();
                names.push(root_name);
                for name in names {
                    let globs = scratch.match_name(automaton, name);
                    globs.iter().filter(|glob| automaton.ancestor_globs.contains(*glob)).for_each(|g| above.insert(g));
                }
            }
            let globs = scratch.match_name(automaton, name);
            let reader = Reader {
                automaton,
                source: &*self.live.sources[source].source,
                rules: ListRules { exclude: &options.exclude, follow: false },
                closed: &|path| options.closes(path),
                failed: &|path, error| self.live.note_read_error(source, path, error),
            };
            let above_node = OnceCell::new();
            let directory = Directory {
                own: Own { name, globs: &globs, above: &above },
                handle: &handle,
                path,
                is_below: &|identity| above_node.get_or_init(|| self.identities_above(node)).contains(&identity),
            };
            expand(&reader, &directory, &content, symlinks, scratch)
        })?;
        let listing = Listing { table: Arc::new(Table::new(entries)), content };
        self.listings.put(node.ino, listing.clone());
        Ok(listing)
    }

    /// Device and inode of each directory on the way to a node from the source's root, as far as they can be had.
    fn identities_above(&self, node: &Arc<Node>) -> Vec<(u64, u64)> {
        let source = self.source(&node.place);
        let mut identities = Vec::new();
        // Where the way is no longer there, what it was makes no difference.
        let _ = self.way_to(&node.place, &mut |handle| identities.extend(source.identity(handle)));
        let mut at = node.at.lock().parent.clone();
        while let Some(parent) = at {
            identities.extend(self.handle(&parent).and_then(|handle| source.identity(&handle)));
            at = parent.at.lock().parent.clone();
        }
        identities
    }

    /// The node and attributes of an entry that a directory shows; counts as a lookup.
    fn enter(&self, dir: &Arc<Node>, name: &[u8], shown: &Shown) -> io::Result<(Arc<Node>, Stat)> {
        let handle = self.handle(dir)?;
        let linked = matches!(shown, Shown::Dir { linked: true, .. } | Shown::File { linked: true });
        let name = c_name(name);
        let stat = self.source(&dir.place).stat(&handle, &name, linked)?;
        let at = At { parent: Some(Arc::clone(dir)), name, linked };
        let fits = match shown {
            Shown::Dir { .. } => stat.is_dir(),
            Shown::File { .. } => stat.is_file(),
            Shown::Link => stat.is_link(),
            Shown::Special => !stat.is_dir() && !stat.is_link(),
        };
        if !fits {
            // It has become something else since it was listed.
            self.listings.remove(dir.ino);
            return Err(gone());
        }
        let content = match shown {
            Shown::Dir { content, .. } => Some(content.clone()),
            _ => None,
        };
        Ok((self.remember(&dir.place, at, &stat, content), stat))
    }

    fn remember(&self, place: &Arc<Place>, at: At, stat: &Stat, content: Option<Content>) -> Arc<Node> {
        if let Some(content) = content {
            let mut path = at.parent.as_ref().map_or(Vec::new(), |parent| parent.dir_path());
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(at.name.to_bytes());
            return self.remember_dir(place, path, at, content, None);
        }
        let (dev, ino) = (stat.dev, stat.ino);
        let same = |node: &Node| matches!(node.kind, NodeKind::Leaf { dev: d, ino: i } if (d, i) == (dev, ino));
        let node = self.nodes.remember(self.devices.ino(dev, ino), same, |number| Node {
            ino: number,
            place: Arc::clone(place),
            kind: NodeKind::Leaf { dev, ino },
            at: Mutex::new(at.clone()),
            open: Mutex::new(OpenState::default()),
        });
        // Looked up by another name: the newest is the likeliest to be there still.
        *node.at.lock() = at;
        node
    }

    fn remember_dir(
        &self,
        place: &Arc<Place>,
        path: Vec<u8>,
        at: At,
        content: Content,
        number: Option<u64>,
    ) -> Arc<Node> {
        let number = number.unwrap_or_else(|| inode::inside(place.ino, &path));
        let same = |node: &Node| {
            node.place.ino == place.ino && matches!(&node.kind, NodeKind::Dir { path: known, .. } if **known == *path)
        };
        let node = self.nodes.remember(number, same, |number| Node {
            ino: number,
            place: Arc::clone(place),
            kind: NodeKind::Dir { path: path.clone().into(), content: Mutex::new(Arc::new(content.clone())) },
            at: Mutex::new(at.clone()),
            open: Mutex::new(OpenState::default()),
        });
        if let NodeKind::Dir { content: known, .. } = &node.kind {
            let mut known = known.lock();
            if **known != content {
                *known = Arc::new(content);
            }
        }
        node
    }

    /// The node of a match's own directory; counts as a lookup.
    fn enter_place(&self, place: &Arc<Place>) -> io::Result<(Arc<Node>, Stat)> {
        let automaton = &self.live.automaton;
        let top = automaton.top(place.found.pattern);
        let whole = self.options.view == ViewMode::All || top.opaque || automaton.state(top.state).whole;
        let content =
            if whole { Content::Whole } else { Content::States(vec![(top.state, place.found.captures.clone())]) };
        let handle = match self.handles.get(place.ino, self.options.ttl) {
            Some(handle) => handle,
            None => {
                let handle = Arc::new(self.place_handle(place)?);
                self.handles.put(place.ino, Arc::clone(&handle));
                handle
            }
        };
        let stat = self.source(place).stat_dir(&handle)?;
        let at = At { parent: None, name: CString::default(), linked: false };
        Ok((self.remember_dir(place, place.found.path.as_bytes().to_vec(), at, content, Some(place.ino)), stat))
    }

    /// A match shown as a link.
    fn link_text(&self, place: &Place) -> Vec<u8> {
        self.live.sources[place.source].path_of(&place.found.path)
    }

    fn link_attr(&self, place: &Place) -> FileAttr {
        let mut attr = folder_attr(place.ino, self.live.started, self.uid, self.gid);
        attr.kind = fuser::FileType::Symlink;
        attr.perm = 0o777;
        attr.size = self.link_text(place).len() as u64;
        attr
    }

    fn place_by_ino(&self, ino: u64) -> Option<Arc<Place>> {
        self.live.view().places.iter().find(|place| place.ino == ino).cloned()
    }

    // --- requests ---

    fn do_lookup(&self, parent: INodeNo, name: &[u8]) -> io::Result<(FileAttr, u64, Duration, Duration)> {
        match self.target(parent)? {
            Target::Control(control) => {
                let child = control.child(name, &self.live).ok_or_else(gone)?;
                Ok((self.control_attr(&child), 0, Duration::ZERO, FOREVER))
            }
            Target::Folder(folder) => match folder.entries.get(name) {
                Some(Item::Folder(below)) => {
                    Ok((folder_attr(below.ino, below.changed, self.uid, self.gid), 0, FOREVER, FOREVER))
                }
                Some(Item::Match(place)) if self.options.view == ViewMode::Link => {
                    Ok((self.link_attr(place), 0, FOREVER, FOREVER))
                }
                Some(Item::Match(place)) => {
                    let (node, stat) = self.enter_place(place)?;
                    Ok((self.attr(&node, &stat), generation(&stat), self.options.ttl, FOREVER))
                }
                None if folder.ino == inode::ROOT && name == control::NAME => {
                    Ok((self.control_attr(&Control::Root), 0, Duration::ZERO, FOREVER))
                }
                None => Err(gone()),
            },
            Target::Node(dir) => {
                let listing = self.listing(&dir)?;
                let shown = listing.table.get(name).ok_or_else(gone)?;
                let (node, stat) = self.enter(&dir, name, shown)?;
                Ok((self.attr(&node, &stat), generation(&stat), self.options.ttl, self.options.ttl))
            }
        }
    }

    fn do_getattr(&self, ino: INodeNo, handle: Option<FileHandle>) -> io::Result<(FileAttr, Duration)> {
        if let Some(Open::File { fd, node, .. }) = handle.and_then(|handle| self.opened.get(handle)) {
            let stat = self.source(&node.place).stat_dir(&Handle(fd.as_fd().try_clone_to_owned()?))?;
            return Ok((file_attr(node.ino, &stat), self.options.ttl));
        }
        match self.target(ino) {
            Ok(Target::Control(control)) => Ok((self.control_attr(&control), Duration::ZERO)),
            Ok(Target::Folder(folder)) => Ok((folder_attr(folder.ino, folder.changed, self.uid, self.gid), FOREVER)),
            Ok(Target::Node(node)) => match self.stat(&node) {
                Ok(stat) => Ok((self.attr(&node, &stat), self.options.ttl)),
                // Removed or replaced while open: what is open tells.
                Err(error) => match self.any_open(&node) {
                    Some(stat) => Ok((file_attr(node.ino, &stat), self.options.ttl)),
                    None => Err(error),
                },
            },
            Err(error) if self.options.view == ViewMode::Link => {
                let place = self.place_by_ino(ino.0).ok_or(error)?;
                Ok((self.link_attr(&place), FOREVER))
            }
            Err(error) => Err(error),
        }
    }

    /// Attributes of a file by any of its open handles.
    fn any_open(&self, node: &Arc<Node>) -> Option<Stat> {
        if node.open.lock().count == 0 {
            return None;
        }
        self.opened.shards.iter().find_map(|shard| {
            shard.lock().values().find_map(|open| match open {
                Open::File { fd, node: other, .. } if Arc::ptr_eq(node, other) => {
                    let handle = Handle(fd.as_fd().try_clone_to_owned().ok()?);
                    self.source(&node.place).stat_dir(&handle).ok()
                }
                _ => None,
            })
        })
    }

    fn do_open(
        &self,
        ino: INodeNo,
        flags: OpenFlags,
        reply: &ReplyOpen,
    ) -> io::Result<(FileHandle, FopenFlags, Option<Arc<BackingId>>)> {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let node = match self.target(ino)? {
            Target::Control(control) => {
                let text = self.control_text(&control).ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
                return Ok((self.opened.add(Open::Text(text.into())), FopenFlags::FOPEN_DIRECT_IO, None));
            }
            Target::Folder(_) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            Target::Node(node) => node,
        };
        let NodeKind::Leaf { dev, ino } = node.kind else { return Err(io::Error::from_raw_os_error(libc::EISDIR)) };
        let (dir, at) = self.whereabouts(&node)?;
        let source = self.source(&node.place);
        let fd = source.open_file(&dir, &at.name, at.linked)?;
        let handle = Handle(fd);
        let stat = source.stat_dir(&handle)?;
        if (stat.dev, stat.ino) != (dev, ino) {
            return Err(stale());
        }
        let fd = Arc::new(handle.0);
        let mut state = node.open.lock();
        let version = (stat.mtime, stat.size);
        let changed = state.seen.is_some_and(|seen| seen != version);
        let mut backing = state.backing.upgrade();
        if backing.is_none() && state.count == 0 && self.passes(stat.size) {
            match reply.open_backing(&*fd) {
                Ok(id) => {
                    let id = Arc::new(id);
                    state.backing = Arc::downgrade(&id);
                    backing = Some(id);
                }
                Err(error) => tracing::debug!(%error, "no passthrough"),
            }
        }
        state.count += 1;
        state.seen = Some(version);
        drop(state);
        let mut flags = FopenFlags::FOPEN_NOFLUSH;
        if backing.is_none() && !changed {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        if changed && let Some(notifier) = self.notifier.get() {
            // The kernel's size may be the old one still. Attributes alone: pages wait for no reader here.
            let _ = notifier.inval_inode(INodeNo(node.ino), -1, 0);
        }
        let handle = self.opened.add(Open::File { fd, node, backing: backing.clone() });
        Ok((handle, flags, backing))
    }

    fn passes(&self, size: u64) -> bool {
        self.passthrough
            && match self.options.open {
                OpenMode::Auto => size >= PASSTHROUGH_BYTES,
                OpenMode::Cached => false,
                OpenMode::Passthrough => true,
            }
    }

    fn do_opendir(&self, ino: INodeNo) -> io::Result<(FileHandle, FopenFlags)> {
        let cached = FopenFlags::FOPEN_CACHE_DIR;
        Ok(match self.target(ino)? {
            Target::Control(control) => {
                let table = control.entries(&self.live).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTDIR))?;
                (self.opened.add(Open::Control(Arc::new(table))), FopenFlags::empty())
            }
            // The kernel drops what it has cached when the view's change is told to it.
            Target::Folder(folder) => (self.opened.add(Open::Folder(folder)), cached | FopenFlags::FOPEN_KEEP_CACHE),
            Target::Node(node) => {
                let known = self.listings.get(node.ino, FOREVER);
                let listing = self.listing(&node)?;
                let same = known.is_some_and(|known| same_entries(&known.table, &listing.table));
                let keep = if same { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
                (self.opened.add(Open::Dir { node, table: listing.table }), cached | keep)
            }
        })
    }

    fn do_readdirplus(&self, handle: FileHandle, offset: u64, reply: &mut ReplyDirectoryPlus) -> io::Result<()> {
        let open = self.opened.get(handle).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let (own, above) = self.dots(&open);
        // The kernel neither counts nor keeps the attributes of these two.
        let dot = |ino| folder_attr(ino, self.live.started, self.uid, self.gid);
        for (cookie, name, ino) in [(1, ".", own), (DOTS, "..", above)] {
            if offset < cookie && reply.add(INodeNo(ino), cookie, name, &Duration::ZERO, &dot(ino), Generation(0)) {
                return Ok(());
            }
        }
        match &open {
            Open::Folder(folder) => {
                for entry in folder.entries.behind(offset.max(DOTS)) {
                    let (attr, generation, ttl, node) = match &entry.value {
                        Item::Folder(below) => {
                            (folder_attr(below.ino, below.changed, self.uid, self.gid), 0, FOREVER, None)
                        }
                        Item::Match(place) if self.options.view == ViewMode::Link => {
                            (self.link_attr(place), 0, FOREVER, None)
                        }
                        Item::Match(place) => match self.enter_place(place) {
                            Ok((node, stat)) => {
                                (self.attr(&node, &stat), generation(&stat), self.options.ttl, Some(node))
                            }
                            Err(error) => {
                                // It is known to have been there; what is asked of it will say what is wrong.
                                tracing::debug!(%error, "match cannot be read");
                                if self.add_unread(reply, place, entry.cookie, &entry.name) {
                                    return Ok(());
                                }
                                continue;
                            }
                        },
                    };
                    if reply.add(
                        attr.ino,
                        entry.cookie,
                        OsStr::from_bytes(&entry.name),
                        &ttl,
                        &attr,
                        Generation(generation),
                    ) {
                        // Not sent, so not counted by the kernel.
                        node.inspect(|node| self.nodes.forget(node.ino, 1));
                        return Ok(());
                    }
                }
            }
            Open::Dir { node: dir, table } => {
                for entry in table.behind(offset.max(DOTS)) {
                    let Ok((node, stat)) = self.enter(dir, &entry.name, &entry.value) else { continue };
                    let attr = self.attr(&node, &stat);
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(attr.ino, entry.cookie, name, &self.options.ttl, &attr, Generation(generation(&stat)))
                    {
                        self.nodes.forget(node.ino, 1);
                        return Ok(());
                    }
                }
            }
            Open::Control(table) => {
                for entry in table.behind(offset.max(DOTS)) {
                    let attr = self.control_attr(&entry.value);
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(attr.ino, entry.cookie, name, &Duration::ZERO, &attr, Generation(0)) {
                        return Ok(());
                    }
                }
            }
            Open::File { .. } | Open::Text(_) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        }
        Ok(())
    }

    /// An entry for a match whose directory cannot be looked at, remembered as a node all the same.
    fn add_unread(&self, reply: &mut ReplyDirectoryPlus, place: &Arc<Place>, cookie: u64, name: &[u8]) -> bool {
        let at = At { parent: None, name: CString::default(), linked: false };
        let path = place.found.path.as_bytes().to_vec();
        let node = self.remember_dir(place, path, at, Content::States(Vec::new()), Some(place.ino));
        let attr = folder_attr(node.ino, self.live.started, self.uid, self.gid);
        let full = reply.add(attr.ino, cookie, OsStr::from_bytes(name), &Duration::ZERO, &attr, Generation(0));
        if full {
            self.nodes.forget(node.ino, 1);
        }
        full
    }

    fn do_readdir(&self, handle: FileHandle, offset: u64, reply: &mut ReplyDirectory) -> io::Result<()> {
        let open = self.opened.get(handle).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let (own, above) = self.dots(&open);
        for (cookie, name, ino) in [(1, ".", own), (DOTS, "..", above)] {
            if offset < cookie && reply.add(INodeNo(ino), cookie, fuser::FileType::Directory, name) {
                return Ok(());
            }
        }
        let from = offset.max(DOTS);
        let mut add = |ino, cookie, kind, name: &[u8]| reply.add(INodeNo(ino), cookie, kind, OsStr::from_bytes(name));
        match &open {
            Open::Folder(folder) => {
                let linked = self.options.view == ViewMode::Link;
                let kind = |item: &Item| match item {
                    Item::Match(_) if linked => fuser::FileType::Symlink,
                    _ => fuser::FileType::Directory,
                };
                folder.entries.behind(from).iter().any(|e| add(e.value.ino(), e.cookie, kind(&e.value), &e.name));
            }
            Open::Dir { node: dir, table } => {
                for entry in table.behind(from) {
                    let Ok((node, stat)) = self.enter(dir, &entry.name, &entry.value) else { continue };
                    let full = add(node.ino, entry.cookie, kind_of(stat.mode), &entry.name);
                    self.nodes.forget(node.ino, 1);
                    if full {
                        break;
                    }
                }
            }
            Open::Control(table) => {
                table.behind(from).iter().any(|entry| {
                    let attr = self.control_attr(&entry.value);
                    add(attr.ino.0, entry.cookie, attr.kind, &entry.name)
                });
            }
            Open::File { .. } | Open::Text(_) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        }
        Ok(())
    }

    /// Inode numbers of a directory and the one above it.
    fn dots(&self, open: &Open) -> (u64, u64) {
        match open {
            Open::Folder(folder) => (folder.ino, folder.parent),
            Open::Dir { node, .. } => {
                let parent = node.at.lock().parent.as_ref().map(|parent| parent.ino);
                (node.ino, parent.unwrap_or(node.place.parent))
            }
            _ => (control::ROOT, inode::ROOT),
        }
    }

    fn do_readlink(&self, ino: INodeNo) -> io::Result<Vec<u8>> {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(error) => return self.place_by_ino(ino.0).map(|place| self.link_text(&place)).ok_or(error),
        };
        let (dir, at) = self.whereabouts(&node)?;
        let text = self.source(&node.place).read_link(&dir, &at.name)?;
        if text.starts_with(b"/") {
            return Ok(text);
        }
        // Relative to where the link really is.
        let source = &self.live.sources[node.place.source];
        let mut real = source.path_of(&crate::entry::RelPath::from_bytes(node.dir_path()));
        real.push(b'/');
        real.extend_from_slice(&text);
        Ok(real)
    }

    fn do_xattrs(&self, ino: INodeNo) -> io::Result<Option<xattr::Subject>> {
        let node = match self.target(ino)? {
            Target::Node(node) => node,
            Target::Folder(_) | Target::Control(_) => return Ok(None),
        };
        let (dir, name) = match &node.kind {
            NodeKind::Dir { .. } => (self.handle(&node)?, None),
            NodeKind::Leaf { .. } => {
                let (dir, at) = self.whereabouts(&node)?;
                (dir, Some((at.name, at.linked)))
            }
        };
        let source = &self.live.sources[node.place.source];
        let mut path = node.dir_path();
        if let Some((name, _)) = &name {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
        }
        let real = source.path_of(&crate::entry::RelPath::from_bytes(path));
        Ok(Some(xattr::Subject { dir, name, real, place: Arc::clone(&node.place) }))
    }

    fn control_attr(&self, control: &Control) -> FileAttr {
        let mut attr = folder_attr(control.ino(), self.live.started, self.uid, self.gid);
        if let Some(text) = self.control_text(control) {
            attr.kind = fuser::FileType::RegularFile;
            attr.perm = 0o444;
            attr.size = text.len() as u64;
            attr.mtime = std::time::SystemTime::now();
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
        control.text(&self.live, reads)
    }

    fn do_statfs(&self, ino: INodeNo) -> io::Result<rustix::fs::StatVfs> {
        let root = match self.target(ino) {
            Ok(Target::Node(node)) => self.root_handle(node.place.source)?,
            _ => self.root_handle(0)?,
        };
        Ok(rustix::fs::fstatvfs(&root.0)?)
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

/// True if two listings of a directory hold the same names for the same things.
fn same_entries(old: &Arc<Table<Shown>>, new: &Arc<Table<Shown>>) -> bool {
    Arc::ptr_eq(old, new)
        || old.len() == new.len() && old.iter().zip(new.iter()).all(|(a, b)| a.name == b.name && a.value == b.value)
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
        for flag in wanted.iter() {
            // A kernel without one of them works all the same, only slower.
            let _ = config.add_capabilities(flag);
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
        if let Some(mut end) = self.end.lock().take() {
            end.send(Ok(()));
        }
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.do_lookup(parent, name.as_bytes()) {
            Ok((attr, generation, attr_ttl, entry_ttl)) => {
                reply.entry_with_ttls(&attr_ttl, &entry_ttl, &attr, Generation(generation));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, lookups: u64) {
        self.nodes.forget(ino.0, lookups);
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
            Some(Open::Text(text)) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let to = from.saturating_add(size as usize).min(text.len());
                reply.data(&text[from..to]);
            }
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

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.do_opendir(ino) {
            Ok((handle, flags)) => reply.opened(handle, flags),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.do_readdir(handle, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.do_readdirplus(handle, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.opened.remove(handle);
        reply.ok();
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

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
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

/// Fills the buffer up to the file's end: the kernel takes a short answer for the end.
fn read_full(fd: &OwnedFd, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match rustix::io::pread(fd, &mut into[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) if filled == 0 => return Err(error.into()),
            Err(_) => break,
        }
    }
    Ok(filled)
}

mod xattr;
