//! Files: opening, reading, and what is open.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use fuser::{FopenFlags, INodeNo};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::control::Control;
use super::node::{Identity, Node, NodeKind};
use super::reach::{Target, stale};
use super::wire::answer::OpenedAs;
use super::wire::backing::Backing;
use super::{OpenMode, VeinFs};
use crate::live::near::Later;
use crate::source::{File, Stat};

/// Files of this size in bytes and above are passed through. Smaller ones gain more from the page cache: an open
/// without a backing file costs one system call less, and reading them again none of ours.
const PASSTHROUGH_BYTES: u64 = 128 << 10;
/// Reads of so many bytes and more go through a pipe; for shorter ones its system calls cost more than the copy.
const SPLICE_BYTES: usize = 32 << 10;
/// How many ways the tables are split, so that threads seldom meet on a lock.
const SHARDS: usize = 64;

/// What is open, by file handle, and how files are open, by inode.
#[derive(Debug)]
pub(super) struct Opened {
    next: AtomicU64,
    handles: Vec<Mutex<FxHashMap<u64, Open>>>,
    states: Vec<Mutex<FxHashMap<u64, OpenState>>>,
}

#[derive(Clone, Debug)]
pub(super) enum Open {
    /// A file, the node through which it was opened, its size then, and a backing file if it is passed through.
    File { file: Arc<File>, node: Arc<Node>, size: u64, backing: Option<Arc<Backing>> },
    /// A text of ours, as it was when it was opened.
    Text(Arc<[u8]>),
    /// A text that is worked out when it is opened; whoever does that answers reads.
    Later(Arc<Later>),
}

/// What differs after a file was written to. A modification time alone can be set back to what it was.
type Version = ((i64, u32), (i64, u32), u64);

/// How a file is open; all opens of one inode at a time share one mode and one backing file.
#[derive(Debug, Default)]
struct OpenState {
    count: u32,
    backing: Weak<Backing>,
    /// Modification and change time and size when it was last opened: pages cached since are good if they are the same.
    seen: Option<Version>,
}

impl Default for Opened {
    fn default() -> Self {
        let next = AtomicU64::new(1);
        let handles = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { next, handles, states: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Opened {
    fn add(&self, open: Open) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles[handle as usize % SHARDS].lock().insert(handle, open);
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Option<Open> {
        self.handles[handle as usize % SHARDS].lock().get(&handle).cloned()
    }

    fn remove(&self, handle: u64) -> Option<Open> {
        self.handles[handle as usize % SHARDS].lock().remove(&handle)
    }

    /// How many handles there are.
    pub(super) fn len(&self) -> usize {
        self.handles.iter().map(|shard| shard.lock().len()).sum()
    }

    fn states(&self, ino: u64) -> &Mutex<FxHashMap<u64, OpenState>> {
        &self.states[(ino ^ ino >> 32) as usize % SHARDS]
    }

    /// The kernel has forgotten an inode.
    pub(super) fn forget(&self, ino: u64) {
        let mut states = self.states(ino).lock();
        // Looked up again meanwhile, and opened.
        if states.get(&ino).is_some_and(|state| state.count == 0) {
            states.remove(&ino);
        }
    }
}

/// What a read of a text gets.
pub(super) fn piece(text: &[u8], offset: u64, size: usize) -> &[u8] {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[from..from.saturating_add(size).min(text.len())]
}

/// How many bytes to answer a read of a file with through a pipe, which was so long when it was opened; `None` where a
/// copy is better.
pub(super) fn splices(whole: u64, offset: u64, size: usize) -> Option<usize> {
    let rest = usize::try_from(whole.saturating_sub(offset)).unwrap_or(usize::MAX);
    // What may have grown is read, to where it ends now.
    (size >= SPLICE_BYTES && rest >= size).then_some(size)
}

impl VeinFs {
    /// Attributes of a file by any of its open handles.
    pub(super) fn any_open(&self, node: &Arc<Node>) -> Option<Stat> {
        if self.opened.states(node.ino).lock().get(&node.ino).is_none_or(|state| state.count == 0) {
            return None;
        }
        self.opened.handles.iter().find_map(|shard| {
            shard.lock().values().find_map(|open| match open {
                Open::File { file, node: other, .. } if other.ino == node.ino => self.stat_open(file, other).ok(),
                _ => None,
            })
        })
    }

    /// Attributes of an open file.
    pub(super) fn stat_open(&self, file: &File, node: &Node) -> io::Result<Stat> {
        self.source(&node.place()).stat_file(file)
    }

    pub(super) fn do_open(&self, ino: u64, flags: i32) -> io::Result<OpenedAs> {
        // The third mode asks for the right to both, and then allows neither (open(2)).
        if !matches!(flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_ACCMODE) {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let node = match self.target(ino)? {
            Target::Control(Control::Near(at)) => {
                let handle = self.opened.add(Open::Later(self.live.near(at)?));
                return Ok(OpenedAs { handle, flags: FopenFlags::FOPEN_DIRECT_IO.bits(), backing: None });
            }
            Target::Control(control) => {
                let text = self.control_text(&control).ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
                let flags = FopenFlags::FOPEN_DIRECT_IO.bits();
                return Ok(OpenedAs { handle: self.opened.add(Open::Text(text.into())), flags, backing: None });
            }
            Target::Folder(_) => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            Target::Node(node) => node,
        };
        let (file, stat) = self.open_node(&node)?;
        let mut states = self.opened.states(node.ino).lock();
        let state = states.entry(node.ino).or_default();
        let version = (stat.mtime, stat.ctime, stat.size);
        let changed = state.seen.is_some_and(|seen| seen != version);
        let mut backing = state.backing.upgrade();
        if backing.is_none()
            && state.count == 0
            && self.passes(stat.size)
            && let (Some(channel), File::Local(fd)) = (self.channel.get(), &file)
        {
            match Backing::new(channel, fd) {
                Ok(new) => {
                    let new = Arc::new(new);
                    state.backing = Arc::downgrade(&new);
                    backing = Some(new);
                }
                Err(error) => tracing::debug!(%error, "no passthrough"),
            }
        }
        state.count += 1;
        state.seen = Some(version);
        drop(states);
        let mut flags = FopenFlags::FOPEN_NOFLUSH;
        match &backing {
            Some(_) => flags |= FopenFlags::FOPEN_PASSTHROUGH,
            None if !changed => flags |= FopenFlags::FOPEN_KEEP_CACHE,
            None => {}
        }
        if changed && let Some(notifier) = self.notifier.get() {
            // The kernel's size may be the old one still. Attributes alone: pages wait for no reader here.
            let _ = notifier.inval_inode(INodeNo(node.ino), -1, 0);
        }
        let id = backing.as_ref().map(|backing| backing.id());
        let handle = self.opened.add(Open::File { file: Arc::new(file), node, size: stat.size, backing });
        Ok(OpenedAs { handle, flags: flags.bits(), backing: id })
    }

    /// Opens the file that a node stands for, and no other.
    fn open_node(&self, node: &Arc<Node>) -> io::Result<(File, Stat)> {
        let NodeKind::Leaf(file) = node.kind else { return Err(io::Error::from_raw_os_error(libc::EISDIR)) };
        let (dir, at) = self.whereabouts(node)?;
        let place = node.place();
        let source = self.source(&place);
        let opened = source.open_file(&dir, &at.name, at.linked)?;
        let stat = source.stat_file(&opened)?;
        if Identity::of(&stat) != file || !stat.is_file() {
            return Err(stale());
        }
        Ok((opened, stat))
    }

    /// What a handle stands for.
    pub(super) fn open_file(&self, handle: u64) -> io::Result<Open> {
        self.opened.get(handle).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// lseek(2) to data or a hole.
    pub(super) fn do_seek(&self, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        use rustix::fs::SeekFrom;
        let Open::File { file, size, .. } = self.open_file(handle)? else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let File::Local(fd) = &*file else {
            // All of it is data (lseek(2)).
            return match whence.cast_signed() {
                libc::SEEK_DATA | libc::SEEK_HOLE if offset >= size => Err(io::Error::from_raw_os_error(libc::ENXIO)),
                libc::SEEK_DATA => Ok(offset),
                libc::SEEK_HOLE => Ok(size),
                _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            };
        };
        let to = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        Ok(rustix::fs::seek(fd, to)?)
    }

    pub(super) fn release(&self, handle: u64) {
        let Some(Open::File { node, backing, file, .. }) = self.opened.remove(handle) else { return };
        let mut states = self.opened.states(node.ino).lock();
        if let Some(state) = states.get_mut(&node.ino) {
            state.count = state.count.saturating_sub(1);
        }
        // The last handle takes the backing file with it, under the lock, so that the next open makes a new one.
        drop(backing);
        drop(states);
        drop(file);
    }

    fn passes(&self, size: u64) -> bool {
        self.agreed().passthrough
            && match self.options.open {
                OpenMode::Auto => size >= PASSTHROUGH_BYTES,
                OpenMode::Cached => false,
                OpenMode::Passthrough => true,
            }
    }
}
