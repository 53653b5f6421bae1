//! Handles of files that outlive what the kernel remembers (name_to_handle_at(2)): those that NFS clients keep.
//!
//! A handle is an inode number and a generation. When the kernel knows the inode no longer, after memory was short or
//! after a remount, it looks up `.` in it, and `..` to find its way to the root. Numbers are made of what they stand for
//! (see [`inode`]), and so they are the same as before, but only those of folders and matches lead back to it; what is
//! inside matches is looked for in all of them.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::attr::folder_attr;
use super::node::Node;
use super::reach::{Target, stale};
use super::wire::answer::Entry;
use super::{FOREVER, FRESH, VeinFs};
use crate::expand::Shown;
use crate::view::inode;

/// Numbers that were looked for in vain, and the count of changes then.
#[derive(Debug)]
pub(super) struct Missing(Mutex<lru::LruCache<u64, u64, rustc_hash::FxBuildHasher>>);

impl Missing {
    /// How many are remembered: a client with many old handles asks for each of them again and again.
    const MOST: std::num::NonZeroUsize = std::num::NonZeroUsize::new(64 << 10).expect("not zero");

    pub(super) fn new() -> Self {
        Self(Mutex::new(lru::LruCache::with_hasher(Self::MOST, rustc_hash::FxBuildHasher)))
    }
}

impl VeinFs {
    /// The thing itself, by its number; counts as a lookup.
    pub(super) fn do_lookup_itself(&self, ino: u64) -> io::Result<Entry> {
        match self.target(ino) {
            Ok(Target::Control(control)) => Ok(self.control_entry(&control)),
            Ok(Target::Folder(folder)) => {
                let attr = folder_attr(folder.ino, folder.changed, self.uid, self.gid);
                Ok(Entry { attr, generation: 0, keep: FOREVER, attr_keep: FOREVER })
            }
            Ok(Target::Node(node)) => self.entry_of(&node),
            Err(error) => match self.place_by_ino(ino) {
                Some(place) => self.place_entry(&place),
                None if ino < inode::PHANTOMS.end || inode::may_be_folder(ino) => Err(error),
                None => self.find_inside(ino),
            },
        }
    }

    /// The directory that something is in; counts as a lookup.
    pub(super) fn do_lookup_above(&self, ino: u64) -> io::Result<Entry> {
        self.do_lookup_itself(self.above(ino)?)
    }

    /// A remembered node once more.
    fn entry_of(&self, node: &Arc<Node>) -> io::Result<Entry> {
        let at = node.at.lock().clone();
        match &at.parent {
            None => self.place_entry(&node.place()),
            Some(parent) => {
                // By the node, which the kernel need not remember.
                let (listing, handle) = (self.listing(parent, FRESH)?, self.handle(parent)?);
                let name = at.name.to_bytes();
                let shown = listing.table.get(name).ok_or_else(stale)?;
                let entry = self.entry(parent, &handle, name, shown, SystemTime::now())?;
                if entry.attr.ino == node.ino {
                    return Ok(entry);
                }
                self.forget(entry.attr.ino, 1);
                Err(stale())
            }
        }
    }

    /// Looks for what has a number in all matches. That takes as long as listing them all, so what is not there is
    /// remembered until something changes.
    fn find_inside(&self, ino: u64) -> io::Result<Entry> {
        let now = self.epochs.any();
        if self.missing.0.lock().get(&ino) == Some(&now) {
            return Err(stale());
        }
        let view = Arc::clone(&self.live.view());
        for place in view.places.values() {
            // A match that cannot be read holds nothing that could be opened.
            let Ok((top, _)) = self.enter_place(place) else { continue };
            let found = self.find_below(top, ino);
            if let Some(entry) = found {
                return Ok(entry);
            }
        }
        self.missing.0.lock().put(ino, now);
        Err(stale())
    }

    /// Looks for what has a number below a directory, which counts as looked up and no longer does when this returns.
    fn find_below(&self, top: Arc<Node>, ino: u64) -> Option<Entry> {
        let mut left = vec![top];
        let mut found = None;
        // With its own stack, since trees may be very deep.
        while let Some(dir) = left.pop() {
            if found.is_none() {
                found = self.find_in(&dir, ino, &mut left);
            }
            self.forget(dir.ino, 1);
        }
        found
    }

    fn find_in(&self, dir: &Arc<Node>, ino: u64, below: &mut Vec<Arc<Node>>) -> Option<Entry> {
        let listing = self.listing(dir, FOREVER).ok()?;
        let handle = self.handle(dir).ok()?;
        for entry in listing.table.iter() {
            let is_dir = matches!(entry.value, Shown::Dir { .. });
            let Ok((node, _)) = self.enter(dir, &handle, &entry.name, &entry.value) else { continue };
            if node.ino == ino {
                let found = self.entry(dir, &handle, &entry.name, &entry.value, SystemTime::now());
                self.forget(node.ino, 1);
                return found.ok();
            }
            if is_dir {
                below.push(node);
            } else {
                self.forget(node.ino, 1);
            }
        }
        None
    }

    /// The number of the directory that something is in.
    fn above(&self, ino: u64) -> io::Result<u64> {
        Ok(match self.target(ino)? {
            Target::Control(_) => inode::ROOT,
            Target::Folder(folder) => folder.parent,
            Target::Node(node) => {
                let parent = node.at.lock().parent.as_ref().map(|parent| parent.ino);
                parent.unwrap_or_else(|| node.place().parent)
            }
        })
    }
}
