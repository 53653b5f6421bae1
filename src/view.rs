//! The virtual tree: folders for patterns and layout levels, and in them the matches.
//!
//! A [`View`] is immutable. Readers hold an [`Arc`] of it; the one writer builds the next from the set of matches,
//! sharing every folder that did not change. What is inside a match is not part of it but read when it is looked at
//! ([`crate::expand`]), so that a view takes memory for its matches, not for their files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustc_hash::FxHashMap;

use crate::automaton::Automaton;
use crate::config::NamedSource;
use crate::walk::Found;
use inode::Inodes;
use matches::MatchSet;
use table::Table;

pub mod inode;
pub mod layout;
pub mod matches;
pub mod name;
pub mod table;

/// A folder that is in no source: the root, a pattern's, or a level of a layout.
#[derive(Debug)]
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
    /// A folder.
    Folder(Arc<Folder>),
    /// A match.
    Match(Arc<Place>),
}

impl Item {
    /// The inode number.
    pub fn ino(&self) -> u64 {
        match self {
            Item::Folder(folder) => folder.ino,
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
#[derive(Debug)]
pub struct View {
    /// The root folder.
    pub root: Arc<Folder>,
    /// Every folder by inode number.
    pub folders: FxHashMap<u64, Arc<Folder>>,
    /// All matches, by pattern, source and path.
    pub places: Vec<Arc<Place>>,
    /// The same by inode number.
    pub by_ino: FxHashMap<u64, Arc<Place>>,
}

/// What changed from one view to the next, in terms that the kernel caches.
#[derive(Debug, Default)]
pub struct Changes {
    /// Folders whose entries changed.
    pub folders: Vec<u64>,
    /// Names that are gone or now mean something else, with the folder that they were in.
    pub names: Vec<(u64, Box<[u8]>)>,
    /// Names that are new or now mean something else, with their folder.
    pub added: Vec<(u64, Box<[u8]>)>,
}

/// A tree of names before it has inode numbers.
#[derive(Default)]
struct Level {
    folders: BTreeMap<Box<[u8]>, Level>,
    matches: Vec<(Box<[u8]>, Arc<Place>)>,
}

impl View {
    /// A view without patterns, to start from.
    pub fn empty() -> Self {
        let root = Arc::new(Folder {
            ino: inode::ROOT,
            parent: inode::ROOT,
            path: Box::default(),
            entries: Table::default(),
            changed: SystemTime::now(),
        });
        let folders = FxHashMap::from_iter([(inode::ROOT, Arc::clone(&root))]);
        Self { root, folders, places: Vec::new(), by_ino: FxHashMap::default() }
    }

    /// The view of `matches` that follows this one.
    pub fn next(
        &self,
        automaton: &Automaton,
        sources: &[NamedSource],
        matches: &MatchSet,
        inodes: &mut Inodes,
    ) -> (View, Changes) {
        let mut builder = Builder { old: self, inodes, folders: FxHashMap::default(), changes: Changes::default() };
        let mut root = Level::default();
        for top in &automaton.tops {
            root.folders.insert(top.name.as_bytes().into(), Level::default());
        }
        let mut places = Vec::with_capacity(matches.len());
        for (source, found, view) in matches.named(automaton, sources) {
            let pattern = automaton.top(found.pattern).name.as_bytes();
            let Some((name, levels)) = view.split_last() else { continue };
            let above = levels.iter().fold(pattern.to_vec(), |path, level| [&path, b"/".as_slice(), level].concat());
            let parent = builder.inodes.folder(&above);
            let ino = builder.inodes.place(pattern, &sources[source].name, found.path.as_bytes());
            let place = match self.by_ino.get(&ino) {
                Some(place) if place.parent == parent && place.view == view && place.found == *found => {
                    Arc::clone(place)
                }
                _ => Arc::new(Place { ino, parent, source, found: found.clone(), view: view.clone() }),
            };
            let mut level = root.folders.entry(pattern.into()).or_default();
            for name in levels {
                level = level.folders.entry(name.clone()).or_default();
            }
            level.matches.push((name.clone(), Arc::clone(&place)));
            places.push(place);
        }
        let root = builder.folder(&[], inode::ROOT, root);
        let Builder { folders, changes, .. } = builder;
        let by_ino = places.iter().map(|place| (place.ino, Arc::clone(place))).collect();
        (View { root, folders, places, by_ino }, changes)
    }
}

struct Builder<'a> {
    old: &'a View,
    inodes: &'a mut Inodes,
    folders: FxHashMap<u64, Arc<Folder>>,
    changes: Changes,
}

impl Builder<'_> {
    /// Recursion is as deep as layouts have levels ([`layout::MAX_LEVELS`]).
    fn folder(&mut self, path: &[u8], parent: u64, level: Level) -> Arc<Folder> {
        let ino = if path.is_empty() { inode::ROOT } else { self.inodes.folder(path) };
        let mut entries: Vec<(Box<[u8]>, Item)> = Vec::with_capacity(level.folders.len() + level.matches.len());
        for (name, below) in level.folders {
            let path = if path.is_empty() { name.to_vec() } else { [path, b"/", &name].concat() };
            entries.push((name, Item::Folder(self.folder(&path, ino, below))));
        }
        entries.extend(level.matches.into_iter().map(|(name, place)| (name, Item::Match(place))));
        let entries = Table::new(entries);
        let old = self.old.folders.get(&ino);
        let same = |old: &Arc<Folder>| {
            old.entries.len() == entries.len()
                && old.entries.iter().zip(entries.iter()).all(|(a, b)| a.name == b.name && a.value.same(&b.value))
        };
        let folder = match old {
            Some(old) if same(old) => Arc::clone(old),
            _ => {
                let before = |name: &[u8]| old.and_then(|old| old.entries.get(name)).map(Item::ino);
                let added = entries.iter().filter(|entry| before(&entry.name) != Some(entry.value.ino()));
                self.changes.added.extend(added.map(|entry| (ino, entry.name.clone())));
                if let Some(old) = old {
                    let names = old
                        .entries
                        .iter()
                        .filter(|entry| entries.get(&entry.name).is_none_or(|new| new.ino() != entry.value.ino()));
                    self.changes.names.extend(names.map(|entry| (ino, entry.name.clone())));
                    if old
                        .entries
                        .iter()
                        .map(|e| (&e.name, e.value.ino()))
                        .ne(entries.iter().map(|e| (&e.name, e.value.ino())))
                    {
                        self.changes.folders.push(ino);
                    }
                }
                Arc::new(Folder { ino, parent, path: path.into(), entries, changed: SystemTime::now() })
            }
        };
        self.folders.insert(ino, Arc::clone(&folder));
        folder
    }
}

impl Item {
    fn same(&self, other: &Item) -> bool {
        match (self, other) {
            (Item::Folder(a), Item::Folder(b)) => Arc::ptr_eq(a, b),
            (Item::Match(a), Item::Match(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
