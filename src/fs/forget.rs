//! What the kernel has to forget when a view was published or something inside a match changed.
//!
//! Its own thread tells the kernel, so that a source that does not answer, and with it a page that the kernel waits
//! for, holds up nothing else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};
use rustc_hash::FxHashSet;

use super::cache::{Cache, Handles};
use super::epochs::Epochs;
use super::node::{Identity, Listing, Node, Nodes};
use crate::entry::RelPath;
use crate::listing::c_name;
use crate::live::Live;
use crate::update::{Told, Touch, Touched};
use crate::view::inode::{self, Devices};

/// How many numbers are tried for a directory whose hash was taken by another one, or by one that was there before.
const NEIGHBOURS: u64 = 4;

/// Tells the kernel.
#[derive(Debug)]
pub(super) struct Forgetter {
    pub(super) live: Arc<Live>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) handles: Arc<Handles>,
    pub(super) listings: Arc<Cache<Listing>>,
    pub(super) devices: Arc<Devices>,
    pub(super) notifier: Arc<OnceLock<Notifier>>,
    pub(super) epochs: Arc<Epochs>,
    /// What is to be forgotten once more.
    pub(super) late: Sender<Late>,
    /// Attributes of matches depend on the directories above them.
    pub(super) narrows: bool,
}

/// What the kernel has to be told once more, since an answer from before may have come after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Late {
    /// What a name in a directory stands for.
    Entry(u64, Box<[u8]>),
    /// An inode's attributes and pages.
    Inode(u64),
    /// A directory's entries.
    Listing(u64),
    /// The same, but some time later: answers may be under way that nobody has counted.
    Settle(u64),
}

impl Forgetter {
    /// Has the kernel forget what is no longer so.
    pub(super) fn tell(&self, told: &Told) {
        self.count(told);
        // The kernel answers ENOENT for what it has never heard of.
        for (folder, name) in &told.changes.names {
            self.entry(*folder, name);
        }
        for folder in &told.changes.folders {
            self.inode(*folder);
            self.again(*folder);
        }
        if !told.changes.places.is_empty() {
            let places: FxHashSet<u64> = told.changes.places.iter().copied().collect();
            self.nodes.each_dir(|node| {
                if node.dir().is_some_and(|dir| places.contains(&dir.place.ino)) {
                    self.directory(node.ino);
                }
            });
        }
        self.reach(&told.touches);
        for touch in &told.touches {
            self.touch(touch);
        }
    }

    /// Has the attributes of matches forgotten whose ways have changed: they say who may reach what is in them.
    fn reach(&self, touches: &[Touch]) {
        let changed: FxHashSet<(usize, &[u8])> = touches
            .iter()
            .filter(|touch| self.narrows && touch.what == Touched::Reach)
            .map(|touch| (touch.source, touch.dir.as_bytes()))
            .collect();
        if changed.is_empty() {
            return;
        }
        for place in self.live.view().places.values() {
            let path = place.found.path.as_bytes();
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
            let mut ways = ends.chain([0, path.len()]).map(|end| (place.source, &path[..end]));
            if ways.any(|way| changed.contains(&way))
                && let Some(notifier) = self.notifier.get()
            {
                for ino in place.ino..place.ino + NEIGHBOURS {
                    let _ = notifier.inval_inode(INodeNo(ino), -1, 0);
                    // Whoever was let in by mistake would stay in: once more, when all answers have come.
                    if self.nodes.get(ino).is_some() {
                        self.again(ino);
                    }
                }
            }
        }
    }

    /// Counts the changes, before the kernel is told of any.
    fn count(&self, told: &Told) {
        if !(told.changes.places.is_empty() && told.changes.folders.is_empty() && told.changes.names.is_empty()) {
            self.epochs.count_all();
        }
        for touch in &told.touches {
            match touch.what {
                // Who may reach a match is told with its attributes, wherever the directory above it lies.
                Touched::Below | Touched::Reach => self.epochs.count_all(),
                _ => self.epochs.count(touch.source, touch.dir.as_bytes()),
            }
        }
    }

    fn entry(&self, parent: u64, name: &[u8]) {
        if let Some(notifier) = self.notifier.get() {
            let _ = notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(name));
        }
    }

    fn inode(&self, ino: u64) {
        if let Some(notifier) = self.notifier.get() {
            let _ = notifier.inval_inode(INodeNo(ino), 0, 0);
        }
    }

    /// An answer that is on its way may come late: the directory is forgotten once more.
    fn again(&self, ino: u64) {
        // Nobody receives where nothing is mounted, as in tests.
        let _ = self.late.send(Late::Settle(ino));
    }

    fn directory(&self, ino: u64) {
        self.listings.remove(ino);
        self.handles.remove(ino);
        self.inode(ino);
    }

    fn touch(&self, touch: &Touch) {
        let dir = &touch.dir;
        if touch.what == Touched::Reach {
            return;
        }
        if touch.what == Touched::Below {
            // Files as well: nobody has said which of them are what they were.
            self.nodes.each(|node| {
                if node.place().source == touch.source && node.is_below(dir.as_bytes()) {
                    self.directory(node.ino);
                }
            });
        }
        let nodes = self.shown(touch.source, dir);
        if let (Touched::File(name), false) = (&touch.what, nodes.is_empty()) {
            // Its name and the directory are what they were.
            return self.file(touch.source, dir, name);
        }
        let mut looked = false;
        for node in nodes {
            self.directory(node.ino);
            self.again(node.ino);
            if let Touched::Entry(name) = &touch.what {
                self.entry(node.ino, name);
                // The file itself may be open, or be known by another name.
                if !std::mem::replace(&mut looked, true) {
                    self.file(touch.source, dir, name);
                }
            }
        }
    }

    fn file(&self, source: usize, dir: &RelPath, name: &[u8]) {
        let source = &self.live.sources[source].source;
        let stat = source.open_root().and_then(|root| source.stat(&root, &c_name(dir.join(name).as_bytes()), false));
        if let Ok(stat) = stat
            && !stat.is_dir()
        {
            let ino = self.nodes.number(&self.devices, &Identity::of(&stat));
            if self.nodes.get(ino).is_some() {
                self.inode(ino);
            }
        }
    }

    /// The directories inside matches, as far as the kernel knows them, that are `dir` of a source.
    fn shown(&self, source: usize, dir: &RelPath) -> Vec<Arc<Node>> {
        let path = dir.as_bytes();
        let view = self.live.view();
        let mut shown = Vec::new();
        // From the source's root down to the directory itself.
        let ends = (0..=path.len()).filter(|end| *end == 0 || *end == path.len() || path[*end] == b'/');
        let mut last = None;
        for end in ends {
            if last == Some(end) {
                continue;
            }
            last = Some(end);
            for place in view.places_at(source, &path[..end]) {
                let first = if end == path.len() { place.ino } else { inode::inside(place.ino, path) };
                let same =
                    |node: &Arc<Node>| node.dir().is_some_and(|dir| dir.place.ino == place.ino && *dir.path == *path);
                shown.extend((first..first + NEIGHBOURS).filter_map(|ino| self.nodes.get(ino)).filter(same));
            }
        }
        shown
    }
}
