//! The virtual tree: folders for patterns and layout levels, and in them the matches.
//!
//! A [`View`] is immutable. Readers hold an [`Arc`] of it; the one writer makes the next by an [`Edit`], which shares
//! everything that did not change: what a change costs does not grow with the number of matches, but for a few
//! thousand pointers. What is inside a match is not part of it but read when it is looked at ([`crate::expand`]), so
//! that a view takes memory for its matches, not for their files.

use std::sync::Arc;
use std::time::SystemTime;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::automaton::Automaton;
use crate::entry::RelPath;
use crate::walk::Found;
use inode::{Inodes, hash62};
use shards::Shards;
use table::Table;

pub mod catalog;
pub mod inode;
pub mod layout;
pub mod matches;
pub mod name;
pub mod saved;
pub mod shards;
pub mod table;

/// A folder that is in no source: the root, a pattern's, or a level of a layout.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Its inode number.
    pub ino: u64,
    /// That of the folder above; the root is its own.
    pub parent: u64,
    /// The path below the mount point.
    pub path: Box<[u8]>,
    /// What it holds.
    pub entries: Table<Item>,
    /// When its entries last changed.
    pub changed: SystemTime,
}

/// An entry of a folder.
#[derive(Clone, Debug)]
pub enum Item {
    /// A folder, by its inode number.
    Folder(u64),
    /// A match.
    Match(Arc<Place>),
}

impl Item {
    /// The inode number.
    pub fn ino(&self) -> u64 {
        match self {
            Item::Folder(ino) => *ino,
            Item::Match(place) => place.ino,
        }
    }
}

/// A match and where it appears.
#[derive(Debug)]
pub struct Place {
    /// Its inode number, the same wherever it appears.
    pub ino: u64,
    /// That of the folder that it is in.
    pub parent: u64,
    /// The place of its source.
    pub source: usize,
    /// What was found.
    pub found: Found,
    /// The path below the pattern's folder, in components.
    pub view: Vec<Box<[u8]>>,
}

/// One state of the virtual tree.
#[derive(Clone, Debug)]
pub struct View {
    /// Every folder by inode number; the root is among them.
    pub folders: Shards<Arc<Folder>>,
    /// Every match by inode number.
    pub places: Shards<Arc<Place>>,
    /// How many matches each pattern has.
    pub counts: Vec<u64>,
    /// Inode numbers of matches by a hash of source and path.
    by_path: Shards<Vec<u64>>,
}

/// What changed from one view to the next, in terms that the kernel caches.
#[derive(Debug, Default)]
pub struct Changes {
    /// Folders whose entries changed.
    pub folders: Vec<u64>,
    /// Names that are gone or now mean something else, with the folder that they were in.
    pub names: Vec<(u64, Box<[u8]>)>,
    /// Names that are new or now mean something else, with the folder that they are in.
    pub added: Vec<(u64, Box<[u8]>)>,
    /// Matches that show another thing than they did, though they are where they were.
    pub places: Vec<u64>,
}

fn key(source: usize, path: &[u8]) -> u64 {
    hash62(&[&(source as u64).to_le_bytes(), path])
}

impl View {
    /// The view that has the patterns' folders and no matches.
    pub fn of_patterns(automaton: &Automaton, inodes: &mut Inodes) -> Self {
        let root = Folder {
            ino: inode::ROOT,
            parent: inode::ROOT,
            path: Box::default(),
            entries: Table::default(),
            changed: SystemTime::now(),
        };
        let mut folders = Shards::default();
        folders.insert(inode::ROOT, Arc::new(root));
        let counts = vec![0; automaton.tops.len()];
        let view = Self { folders, places: Shards::default(), counts, by_path: Shards::default() };
        let mut edit = Edit::new(&view, inodes);
        for top in &automaton.tops {
            edit.folder(&[top.name.as_bytes()]);
        }
        edit.finish().0
    }

    /// The matches that are the directory at `path` of a source.
    pub fn places_at(&self, source: usize, path: &[u8]) -> impl Iterator<Item = &Arc<Place>> {
        let inos = self.by_path.get(key(source, path)).into_iter().flatten();
        let places = inos.filter_map(|ino| self.places.get(*ino));
        places.filter(move |place| place.source == source && place.found.path.as_bytes() == path)
    }

    /// All matches, by pattern, source and path.
    pub fn sorted(&self) -> Vec<Arc<Place>> {
        let mut places: Vec<Arc<Place>> = self.places.values().cloned().collect();
        let order = |place: &Place| -> (crate::automaton::PatternId, usize, RelPath) {
            (place.found.pattern, place.source, place.found.path.clone())
        };
        places.sort_by_cached_key(|place| order(place));
        places
    }
}

/// The next view while it is made.
#[derive(Debug)]
pub struct Edit<'a> {
    old: &'a View,
    next: View,
    inodes: &'a mut Inodes,
    /// What was touched: names by folder.
    touched: FxHashMap<u64, FxHashSet<Box<[u8]>>>,
    places: Vec<u64>,
    /// The folder that was asked for last, by its path.
    last: (Vec<u8>, u64),
}

impl<'a> Edit<'a> {
    /// Begins with `old`.
    pub fn new(old: &'a View, inodes: &'a mut Inodes) -> Self {
        Self {
            old,
            next: old.clone(),
            inodes,
            touched: FxHashMap::default(),
            places: Vec::new(),
            last: Default::default(),
        }
    }

    fn touch(&mut self, folder: u64, name: &[u8]) {
        let names = self.touched.entry(folder).or_default();
        if !names.contains(name) {
            names.insert(name.into());
        }
    }

    /// The folder at these levels, made if it is not there; its inode number.
    pub fn folder(&mut self, levels: &[&[u8]]) -> u64 {
        let whole = levels.join(&b'/');
        if self.last.0 == whole && self.next.folders.get(self.last.1).is_some() {
            return self.last.1;
        }
        let (mut ino, mut path) = (inode::ROOT, Vec::new());
        for name in levels {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let below = self.inodes.folder(&path);
            if self.next.folders.get(below).is_none() {
                let folder = Folder {
                    ino: below,
                    parent: ino,
                    path: path.as_slice().into(),
                    entries: Table::default(),
                    changed: SystemTime::now(),
                };
                self.next.folders.insert(below, Arc::new(folder));
                self.set(ino, name, Some(Item::Folder(below)));
            }
            ino = below;
        }
        self.last = (whole, ino);
        ino
    }

    fn set(&mut self, folder: u64, name: &[u8], item: Option<Item>) {
        self.touch(folder, name);
        if let Some(folder) = self.next.folders.get_mut(folder) {
            let entries = &mut Arc::make_mut(folder).entries;
            match item {
                Some(item) => entries.insert(name, item),
                None => {
                    entries.remove(name);
                }
            }
        }
    }

    /// Adds a match at `view` below its pattern's folder.
    pub fn insert(&mut self, pattern: &[u8], source_name: &[u8], source: usize, found: &Found, view: Vec<Box<[u8]>>) {
        let Some((name, levels)) = view.split_last() else { return };
        let above: Vec<&[u8]> = std::iter::once(pattern).chain(levels.iter().map(|level| &**level)).collect();
        let parent = self.folder(&above);
        let ino = self.inodes.place(pattern, source_name, found.path.as_bytes());
        let name = name.clone();
        let place = Arc::new(Place { ino, parent, source, found: found.clone(), view });
        self.set(parent, &name, Some(Item::Match(Arc::clone(&place))));
        self.next.counts[found.pattern.index()] += 1;
        let inos = self.next.by_path.entry(key(source, found.path.as_bytes()));
        inos.push(ino);
        let changed = self.old.places.get(ino).is_some_and(|old| old.parent == parent && old.found != *found);
        if changed {
            self.places.push(ino);
        }
        self.next.places.insert(ino, place);
    }

    /// Removes a match.
    pub fn remove(&mut self, pattern: &[u8], source_name: &[u8], found: &Found) {
        let ino = self.inodes.place(pattern, source_name, found.path.as_bytes());
        let Some(place) = self.next.places.remove(ino) else { return };
        self.inodes.release_place(pattern, source_name, found.path.as_bytes());
        self.next.counts[found.pattern.index()] -= 1;
        let key = key(place.source, found.path.as_bytes());
        let inos = self.next.by_path.entry(key);
        inos.retain(|known| *known != ino);
        if inos.is_empty() {
            self.next.by_path.remove(key);
        }
        if let Some(name) = place.view.last() {
            self.set(place.parent, name, None);
        }
        // Levels that nothing needs go too, the pattern's own folder stays.
        let mut at = place.parent;
        while let Some(folder) = self.next.folders.get(at) {
            let folder = Arc::clone(folder);
            let Some(name) = folder.path.rsplit(|byte| *byte == b'/').next() else { break };
            if !folder.entries.is_empty() || folder.parent == inode::ROOT || at == inode::ROOT {
                break;
            }
            self.set(folder.parent, name, None);
            self.next.folders.remove(at);
            self.inodes.release_folder(&folder.path);
            at = folder.parent;
        }
    }

    /// The next view, and what the kernel has to forget.
    pub fn finish(mut self) -> (View, Changes) {
        let mut changes = Changes { places: self.places, ..Changes::default() };
        for (folder, names) in self.touched {
            let ino_in = |view: &View, name: &[u8]| Some(view.folders.get(folder)?.entries.get(name)?.ino());
            let mut changed = false;
            for name in names {
                let (before, after) = (ino_in(self.old, &name), ino_in(&self.next, &name));
                if before == after {
                    continue;
                }
                changed = true;
                if before.is_some() {
                    changes.names.push((folder, name.clone()));
                }
                if after.is_some() {
                    changes.added.push((folder, name));
                }
            }
            if changed {
                changes.folders.push(folder);
                if let Some(folder) = self.next.folders.get_mut(folder) {
                    Arc::make_mut(folder).changed = SystemTime::now();
                }
            }
        }
        changes.folders.sort_unstable();
        (self.next, changes)
    }
}
