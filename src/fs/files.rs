//! Files: opening, reading, and what is open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, OpenAccMode, OpenFlags, ReplyOpen};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::control::Control;
use super::node::{Node, NodeKind};
use super::reach::{Target, stale};
use super::{OpenMode, VeinFs};
use crate::live::near::Later;
use crate::source::{Handle, Stat};

/// Files of this size in bytes and above are passed through. Smaller ones gain more from the page cache: an open
/// without a backing file costs one system call less, and reading them again none of ours.
const PASSTHROUGH_BYTES: u64 = 128 << 10;

/// What is open, by file handle.
#[derive(Debug)]
pub(super) struct Opened {
    next: AtomicU64,
    shards: Vec<Mutex<FxHashMap<u64, Open>>>,
}

#[derive(Clone, Debug)]
pub(super) enum Open {
    File { fd: Arc<OwnedFd>, node: Arc<Node>, backing: Option<Arc<BackingId>> },
    Text(Arc<[u8]>),
    Later(Arc<Later>),
}

impl Default for Opened {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), shards: (0..16).map(|_| Mutex::default()).collect() }
    }
}

impl Opened {
    pub(super) fn add(&self, open: Open) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards[handle as usize % 16].lock().insert(handle, open);
        FileHandle(handle)
    }

    pub(super) fn get(&self, handle: FileHandle) -> Option<Open> {
        self.shards[handle.0 as usize % 16].lock().get(&handle.0).cloned()
    }

    pub(super) fn remove(&self, handle: FileHandle) -> Option<Open> {
        self.shards[handle.0 as usize % 16].lock().remove(&handle.0)
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl VeinFs {
    /// Attributes of a file by any of its open handles.
    pub(super) fn any_open(&self, node: &Arc<Node>) -> Option<Stat> {
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

    pub(super) fn do_open(
        &self,
        ino: INodeNo,
        flags: OpenFlags,
        reply: &ReplyOpen,
    ) -> io::Result<(FileHandle, FopenFlags, Option<Arc<BackingId>>)> {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let node = match self.target(ino)? {
            Target::Control(Control::Near(at)) => {
                let later = self.live.near(at)?;
                return Ok((self.opened.add(Open::Later(later)), FopenFlags::FOPEN_DIRECT_IO, None));
            }
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
        if (stat.dev, stat.ino) != (dev, ino) || !stat.is_file() {
            return Err(stale());
        }
        let fd = Arc::new(handle.0);
        let mut state = node.open.lock();
        let version = (stat.mtime, stat.ctime, stat.size);
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

    pub(super) fn passes(&self, size: u64) -> bool {
        self.passthrough
            && match self.options.open {
                OpenMode::Auto => size >= PASSTHROUGH_BYTES,
                OpenMode::Cached => false,
                OpenMode::Passthrough => true,
            }
    }
}

/// What a read of a text gets.
pub(super) fn piece(text: &[u8], offset: u64, size: u32) -> &[u8] {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[from..from.saturating_add(size as usize).min(text.len())]
}

/// Fills the buffer up to the file's end: the kernel takes a short answer for the end.
pub(super) fn read_full(fd: &OwnedFd, into: &mut [u8], offset: u64) -> io::Result<usize> {
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
