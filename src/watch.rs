//! What changes below a source's root, told as it happens.
//!
//! A [`Watch`] is one thread for one root. It sleeps until the kernel has something to say, gathers what is there for a
//! moment, and hands it on as a batch of [`Change`]s. How a directory is watched depends on the file system that it is
//! on, and is decided once for each, when the first directory of it comes to [`Watch::add`]:
//!
//! - fanotify(7) marks the whole file system, for which one must be root. Events name directories by handles.
//! - inotify(7) has a watch for each directory, as many as the system allows.
//! - Nothing: network and pseudo file systems do not tell of every change. Such directories have to be polled.
//!
//! The files: `decide` says how a file system is watched, and `trust` which do not tell of everything; `fanotify` and
//! `inotify` parse events and hold what the kernel watches; `resolve` has the path of a handle; `above` watches the way
//! down to the root, `mounted` the mounts; `batch` gathers; `run` is the thread. `sys` alone is unsafe.
//!
//! What holds:
//!
//! - Changes say where to look, not what is there. One that is told may have been undone, and it may be told twice.
//! - A change in a directory for which `add` said true, made after `add` was called, is told, or [`Change::Lost`] is.
//!   Not told: of a file with several names, what is done to it by a name that is not below the root.
//! - Memory is bounded: the kernel's queue, the cache of paths and a batch each have a limit; past it something is lost
//!   and said to be. inotify's watches are bounded by the system's own limit.
//! - An idle watch does not wake up. It keeps no file system busy: neither marks nor watches do, and descriptors of
//!   directories are open during a batch alone.
//! - Reading causes no events, and so a watch is not woken by who reads what it has told.

mod above;
mod batch;
mod decide;
mod fanotify;
mod inotify;
mod mounted;
mod resolve;
mod run;
mod sys;
#[cfg(test)]
mod tests;
mod trust;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use rustix::event::EventfdFlags;
use rustix::fs::{CWD, Mode as FileMode, OFlags};

use decide::{Shared, Standing};
use inotify::Tree;

/// What a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best that works: fanotify, else inotify, else polling.
    #[default]
    Auto,
    /// fanotify; where it does not work, as `Auto`.
    Fanotify,
    /// inotify; where it does not work, polling.
    Inotify,
    /// No events at all.
    Poll,
}

/// How a source, or a directory in it, is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A mark on each file system.
    Fanotify,
    /// A watch on each directory.
    Inotify,
    /// Not at all: whoever wants to know has to look.
    Poll,
}

/// Something happened; paths are absolute, bytes, and as of the moment at which the event was read.
///
/// Where a directory that is told of has gone since, its path may be that of nothing, or of another by now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// An entry of a directory came, went, was renamed, or is another now.
    ///
    /// For a directory that came this is all that is told: what is in it, however deep, has to be looked at and added.
    Entry {
        /// The directory.
        dir: Box<[u8]>,
        /// The entry's name in it; `None` stands for any.
        name: Option<Box<[u8]>>,
        /// True if the entry is a directory.
        is_dir: bool,
    },
    /// Attributes changed: mode, owner, times, extended attributes. Told of directories above the root too, since who
    /// may reach the root depends on them.
    Attributes {
        /// The directory.
        dir: Box<[u8]>,
        /// The entry's name in it; `None` stands for the directory itself.
        name: Option<Box<[u8]>>,
        /// True if it is a directory.
        is_dir: bool,
    },
    /// A file was written to, truncated, or closed by one who could have written.
    Content {
        /// The directory.
        dir: Box<[u8]>,
        /// The file's name in it.
        name: Box<[u8]>,
    },
    /// The root itself may have been removed, replaced, moved, mounted over, or have come back.
    ///
    /// If it is there, everything has to be looked at, and every directory added, again: even where it is what it was,
    /// watches may have gone in between.
    Root,
    /// Events were lost, or a file system was mounted or unmounted below the root: everything has to be looked at, and
    /// every directory added, again.
    Lost,
}

/// How a watch is doing, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How the root is watched.
    pub mode: Mode,
    /// Why it is not watched in a better way; `None` if there is none, or it is the one that was asked for.
    pub reason: Option<String>,
    /// How many watches are held: of inotify one for each directory, of fanotify one for each file system.
    pub watches: u64,
    /// How many inotify watches this user's programs may have together; `None` if there is none here, or no limit.
    pub limit: Option<u64>,
    /// How often [`Watch::add`] has said that a directory has to be polled.
    pub refused: u64,
    /// How often [`Change::Lost`] was told.
    pub lost: u64,
}

/// Where batches of changes go; it is called from the watch's thread, and while it runs the kernel's queue fills.
pub type Sink = Box<dyn Fn(Vec<Change>) + Send>;

/// A root that is being watched; its thread and all its watches end when it is dropped.
///
/// Dropping waits for a sink that is being called, unless it is dropped in there.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Read once: the state is asked for after each change.
    limit: OnceLock<Option<u64>>,
}

impl Watch {
    /// Starts to watch below `root`, which is absolute and has no links in it; it may be away at the moment.
    ///
    /// `sink` gets batches that are never empty. Nothing is told of a directory before it was [added](Self::add). It
    /// never fails: [`state`](Self::state) says why it is not what was asked for. It takes as long as the root's file
    /// system takes to open a directory.
    pub fn start(root: &Path, choice: Choice, sink: Sink) -> Self {
        let root = root.as_os_str().as_bytes();
        Self::try_start(root, choice, sink).unwrap_or_else(|error| {
            let shared = Shared::new(root, Choice::Poll, None);
            shared.standing.lock().reason = Some(format!("nothing can be watched: {error}"));
            Self { shared: Arc::new(shared), thread: None, limit: OnceLock::new() }
        })
    }

    fn try_start(root: &[u8], choice: Choice, sink: Sink) -> std::io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared::new(root, choice, Some(wake)));
        // What is above first: a root that is replaced from here on is told.
        let runner = run::Runner::new(Arc::clone(&shared), sink)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(dir) = rustix::fs::openat(CWD, root, flags, FileMode::empty())
            && let Ok(stat) = rustix::fs::fstat(&dir)
        {
            shared.decide(dir.as_fd(), stat.st_dev, root);
        }
        let thread = thread::Builder::new().name("watch".into()).spawn(move || runner.run())?;
        Ok(Self { shared, thread: Some(thread), limit: OnceLock::new() })
    }

    /// To be called for each directory before it is listed, from any number of threads; true if changes in it are told
    /// from now on, false if it has to be polled.
    ///
    /// `dir` is the directory, open for reading, `dev` its `st_dev`, `path` its absolute path without links: one that
    /// is reached through a link is told of at its real path alone, and not at all if that is not below the root.
    /// For each file system the first call takes a few system calls, and those for the root always; with fanotify all
    /// others are answered without one and without a lock.
    pub fn add(&self, dir: BorrowedFd<'_>, dev: u64, path: &[u8]) -> bool {
        let told = is_within(&self.shared.root, path) && self.shared.add(dir, dev, path);
        if !told {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    /// Whether changes in the directories of a file system are told without more ado, by its `st_dev`; `None` if each
    /// one has to be [added](Self::add), or it is not known yet.
    pub fn knows(&self, dev: u64) -> Option<bool> {
        match self.shared.table.load().devices.get(&dev)? {
            Mode::Fanotify => Some(true),
            Mode::Inotify => None,
            Mode::Poll => Some(false),
        }
    }

    /// Whether changes in all directories of a file system that were added are told, by its `st_dev`.
    pub fn tells(&self, dev: u64) -> bool {
        match self.shared.table.load().devices.get(&dev) {
            Some(Mode::Fanotify) => true,
            Some(Mode::Inotify) => self.shared.refused.load(Ordering::Relaxed) == 0,
            Some(Mode::Poll) | None => false,
        }
    }

    /// The directory `path` and all below it are gone from the tree, at this path: their watches are dropped.
    ///
    /// A directory that was moved and has been added at its new path keeps its watch there.
    pub fn remove(&self, path: &[u8]) {
        if let Some(tree) = self.shared.tree.get() {
            tree.remove(path);
        }
    }

    /// How the root is watched; it may change when the root is added again.
    pub fn mode(&self) -> Mode {
        self.shared.standing.lock().mode
    }

    /// How the watch is doing.
    pub fn state(&self) -> State {
        let Standing { mode, reason } = self.shared.standing.lock().clone();
        let tree = self.shared.tree.get();
        let marks = self.shared.table.load().file_systems.len();
        State {
            mode,
            reason,
            watches: (marks + tree.map_or(0, Tree::len)) as u64,
            limit: tree.and_then(|_| *self.limit.get_or_init(inotify::limit)),
            refused: self.shared.refused.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic in the sink has been reported by its thread.
            let _ = thread.join();
        }
    }
}

/// Events that do not have the form: what they say is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// Takes the first event off; what is behind it is left.
type First<'a, E> = fn(&'a [u8]) -> Option<(E, &'a [u8])>;

/// The events in what the kernel has written, one behind the other; after a malformed one there is none.
#[derive(Clone, Debug)]
struct Events<'a, E> {
    bytes: &'a [u8],
    first: First<'a, E>,
}

impl<E> Iterator for Events<'_, E> {
    type Item = Result<E, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let Some((event, rest)) = (self.first)(self.bytes) else {
            self.bytes = &[];
            return Some(Err(Malformed));
        };
        self.bytes = rest;
        Some(Ok(event))
    }
}

/// What an event says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Something came, went or was renamed.
    entry: bool,
    /// Attributes changed.
    attributes: bool,
    /// Content changed.
    content: bool,
    /// It is a directory.
    is_dir: bool,
}

/// True if `path` is `root` or below it.
fn is_within(root: &[u8], path: &[u8]) -> bool {
    let stem = root.strip_suffix(b"/").unwrap_or(root);
    path.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
