//! What is done with a match: a function of what it shows and of what is under its name already.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::inventory::{Folder, Inventory, Item, What};
use crate::entry::printable;
use crate::source::Stat;
use crate::view::name::hash_text;

/// How the names of what is not complete begin.
pub const PART: &[u8] = b".veinfs-part-";

/// What a match is written to before it gets its name. The same for the same match, so that a second run goes on where
/// one was killed; but not after a restart of the machine (`boot`), when what had not reached the disk may be lost.
pub fn part_name(boot: &[u8], pattern: &[u8], source: &[u8], path: &[u8]) -> Box<[u8]> {
    [PART, hash_text(&[boot, pattern, source, path], 16).as_bytes()].concat().into()
}

/// What is under the name of a match.
#[derive(Clone, Debug)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A directory with these entries, by their paths below it; that itself by the empty one.
    Folder(BTreeMap<Vec<u8>, Entry>),
    /// Something that is no directory, and what.
    Other(String),
    /// A level above it is no directory: nothing can be there.
    Blocked(String),
}

/// An entry of a directory that is there already.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its attributes.
    pub stat: Stat,
    /// The text of a link.
    pub text: Option<Vec<u8>>,
}

/// What is done with a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is copied.
    Copy,
    /// It is there already, with the same sizes and times.
    Keep,
    /// It takes the place of something else, as told.
    Replace,
    /// Something else is under its name, which stays as it is.
    Conflict(String),
}

/// Decides by names, kinds, sizes and modification times.
pub fn decide(inventory: &Inventory, existing: &Existing, overwrite: bool) -> Action {
    let reason = match existing {
        Existing::Nothing => return Action::Copy,
        Existing::Folder(entries) => match difference(inventory, entries) {
            None => return Action::Keep,
            Some(difference) => difference,
        },
        Existing::Other(what) => what.clone(),
        Existing::Blocked(what) => return Action::Conflict(what.clone()),
    };
    if overwrite { Action::Replace } else { Action::Conflict(reason) }
}

/// The first difference between what is to be and what is there.
fn difference(inventory: &Inventory, entries: &BTreeMap<Vec<u8>, Entry>) -> Option<String> {
    let mut known = 0;
    for folder in &inventory.folders {
        known += 1;
        match entries.get(&*folder.path) {
            Some(entry) if entry.stat.is_dir() => {}
            Some(_) => return Some(format!("{} is no directory", printable(&folder.path))),
            None => return Some(format!("{} is missing", printable(&folder.path))),
        }
        for item in &folder.items {
            known += 1;
            let path = folder.path_of(&item.name);
            let Some(entry) = entries.get(&path) else { return Some(format!("{} is missing", printable(&path))) };
            if !is_done(item, entry) {
                return Some(format!("{} is another one", printable(&path)));
            }
        }
    }
    if known == entries.len() {
        return None;
    }
    let paths: BTreeSet<Vec<u8>> = steps(inventory).map(|step| step.path()).collect();
    let extra = entries.keys().find(|path| !path.is_empty() && !paths.contains(*path))?;
    Some(format!("{} is there besides", printable(extra)))
}

/// True if an entry is what the item is to become, by its kind, size and modification time, or by a link's text.
pub fn is_done(item: &Item, entry: &Entry) -> bool {
    match &item.what {
        What::File { .. } => {
            entry.stat.is_file() && entry.stat.size == item.stat.size && same_time(item.stat.mtime, entry.stat.mtime)
        }
        What::Link(text) => entry.text.as_ref() == Some(text),
        What::Special => {
            let kind = |stat: &Stat| (stat.mode & libc::S_IFMT, stat.rdev);
            kind(&entry.stat) == kind(&item.stat)
        }
    }
}

/// Equal, or as near as a file system that keeps whole seconds can come.
fn same_time(wanted: (i64, u32), there: (i64, u32)) -> bool {
    wanted == there || (there.1 == 0 && wanted.0 == there.0)
}

/// One thing to be made.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A directory.
    Folder(&'a Folder),
    /// A file, link or special in a directory.
    Item(&'a Folder, &'a Item),
    /// Another name of a file that was made before: of the item in that directory.
    HardLink(&'a Folder, &'a Item, (&'a Folder, &'a Item)),
}

impl Step<'_> {
    /// The path below the match.
    pub fn path(&self) -> Vec<u8> {
        match self {
            Step::Folder(folder) => folder.path.to_vec(),
            Step::Item(folder, item) | Step::HardLink(folder, item, _) => folder.path_of(&item.name),
        }
    }
}

/// For each name of a file but its first, by folder and place in it: the first. Only real hard links count: what is
/// shown twice through links is two files.
pub fn hard_links(inventory: &Inventory) -> FxHashMap<(usize, usize), (usize, usize)> {
    let (mut first, mut links) = (FxHashMap::default(), FxHashMap::default());
    for (at, folder) in inventory.folders.iter().enumerate() {
        for (place, item) in folder.items.iter().enumerate().filter(|(_, item)| item.stat.nlink > 1) {
            let original = *first.entry((item.stat.dev, item.stat.ino)).or_insert((at, place));
            if original != (at, place) {
                links.insert((at, place), original);
            }
        }
    }
    links
}

/// All that is made, in the order in which it is listed.
pub fn steps(inventory: &Inventory) -> impl Iterator<Item = Step<'_>> {
    let links = Rc::new(hard_links(inventory));
    let folders = inventory.folders.iter().enumerate();
    folders.flat_map(move |(at, folder)| {
        let links = Rc::clone(&links);
        let items = folder.items.iter().enumerate().map(move |(place, item)| match links.get(&(at, place)) {
            Some((other, original)) => {
                let other = &inventory.folders[*other];
                Step::HardLink(folder, item, (other, &other.items[*original]))
            }
            None => Step::Item(folder, item),
        });
        std::iter::once(Step::Folder(folder)).chain(items)
    })
}

/// How much a match is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Directories, its own included.
    pub directories: u64,
    /// Regular files, each once.
    pub files: u64,
    /// Further names of these.
    pub hard_links: u64,
    /// Symbolic links.
    pub links: u64,
    /// FIFOs, sockets and devices.
    pub specials: u64,
    /// The sizes of the files.
    pub bytes: u64,
}

impl Totals {
    /// Of a match.
    pub fn of(inventory: &Inventory) -> Self {
        let mut totals = Totals::default();
        for step in steps(inventory) {
            match step {
                Step::Folder(_) => totals.directories += 1,
                Step::HardLink(..) => totals.hard_links += 1,
                Step::Item(_, item) => match item.what {
                    What::File { .. } => {
                        totals.files += 1;
                        totals.bytes += item.stat.size;
                    }
                    What::Link(_) => totals.links += 1,
                    What::Special => totals.specials += 1,
                },
            }
        }
        totals
    }

    /// Both together.
    pub fn and(self, other: Totals) -> Totals {
        Totals {
            directories: self.directories + other.directories,
            files: self.files + other.files,
            hard_links: self.hard_links + other.hard_links,
            links: self.links + other.links,
            specials: self.specials + other.specials,
            bytes: self.bytes + other.bytes,
        }
    }
}
