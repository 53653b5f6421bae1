//! All that one match shows, as it was at one look: what is to be copied.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use super::Failure;
use crate::config::NamedSource;
use crate::expand::{Content, Shown, Symlinks};
use crate::inside::{Dir, content_of};
use crate::listing::{Scratch, c_name};
use crate::reader::Reader;
use crate::source::{Handle, Source, Stat};
use crate::walk::{Found, WalkOptions};

/// What a match shows, from its own directory down.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Its directories, each after the one that it is in; the match's own is the first.
    pub folders: Vec<Folder>,
}

/// A directory that is shown.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The place of the directory that it is in; its own, for the first.
    pub parent: usize,
    /// Its name; empty for the first.
    pub name: Box<[u8]>,
    /// The name is a link, and this what it leads to.
    pub linked: bool,
    /// Its path below the match; empty for the first.
    pub path: Box<[u8]>,
    /// Its attributes.
    pub stat: Stat,
    /// What else it holds, by name.
    pub items: Vec<Item>,
}

/// A file, link or special.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its attributes.
    pub stat: Stat,
    /// What it is.
    pub what: What,
}

/// What an [`Item`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file; `linked` if it is behind a link of this name.
    File {
        /// It is what the link leads to.
        linked: bool,
    },
    /// A link with this text.
    Link(Vec<u8>),
    /// FIFO, socket or device.
    Special,
}

impl Folder {
    /// The path below the match of something in it.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path, b"/".as_slice(), name].concat() }
    }
}

/// A directory that is still to be read.
struct Waiting {
    /// The one that it is in, or for the first itself.
    above: Arc<Dir>,
    parent: usize,
    name: Box<[u8]>,
    linked: bool,
    content: Content,
}

/// How inventories are taken.
pub struct Taking<'a> {
    /// The sources' own way of reading.
    pub reader: Reader<'a>,
    /// Where the match is.
    pub source: &'a NamedSource,
    /// How it was found.
    pub options: &'a WalkOptions,
    /// How links are shown.
    pub symlinks: Symlinks,
    /// Device and inode of the directory that is copied to; nothing is read there.
    pub dest: Option<(u64, u64)>,
}

impl Taking<'_> {
    /// All that a match shows.
    ///
    /// # Errors
    /// If anything of it cannot be read: a copy without that would not be what the view shows.
    pub fn take(&self, found: &Found, scratch: &mut Scratch) -> Result<Inventory, Failure> {
        let unread: RefCell<Option<Failure>> = RefCell::new(None);
        let failed = |path: &[u8], error: io::Error| {
            let path = crate::entry::RelPath::from_bytes(path);
            unread.borrow_mut().get_or_insert_with(|| Failure::at(&self.source.path_of(&path), &error));
        };
        let reader = Reader { failed: &failed, ..self.reader };
        let inventory = self.walk(&reader, found, scratch)?;
        match unread.into_inner() {
            Some(failure) => Err(failure),
            None => Ok(inventory),
        }
    }

    fn walk(&self, reader: &Reader<'_>, found: &Found, scratch: &mut Scratch) -> Result<Inventory, Failure> {
        let at = |dir: &Dir, name: &[u8]| self.source.path_of(&dir.path.join(name));
        let root = Dir::root(reader, &self.source.root_name, scratch)
            .and_then(|root| root.descend(reader, &found.path, self.options.follow, scratch))
            .map_err(|error| Failure::at(&self.source.path_of(&found.path), &error))?;
        let mut folders: Vec<Folder> = Vec::new();
        // What is still to be read, the next last: opened only then, so that few are open at a time.
        let mut waiting = vec![Waiting {
            above: root,
            parent: 0,
            name: Box::default(),
            linked: false,
            content: content_of(reader.automaton, found),
        }];
        while let Some(Waiting { above, parent, name, linked, content }) = waiting.pop() {
            let (dir, path) = match folders.get(parent) {
                None => (above, Box::default()),
                Some(folder) => {
                    let dir = above.child(reader, &name, linked, scratch);
                    let dir = dir.map_err(|error| Failure::at(&at(&above, &name), &error))?;
                    (dir, folder.path_of(&name).into())
                }
            };
            let stat = self.entered(reader, &dir)?;
            let shown = dir.show(reader, &content, self.symlinks, scratch);
            let mut shown = shown.map_err(|error| Failure::at(&at(&dir, b""), &error))?;
            shown.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            let number = folders.len();
            let (mut items, first) = (Vec::new(), waiting.len());
            for (name, shown) in shown {
                if let Shown::Dir { content, linked } = shown {
                    waiting.push(Waiting { above: Arc::clone(&dir), parent: number, name, linked, content });
                } else {
                    let item = self.item(reader.source, &dir, name.clone(), &shown);
                    items.push(item.map_err(|error| Failure::at(&at(&dir, &name), &error))?);
                }
            }
            waiting[first..].reverse();
            folders.push(Folder { parent, name, linked, path, stat, items });
        }
        Ok(Inventory { folders })
    }

    /// The attributes of a directory that is about to be read.
    fn entered(&self, reader: &Reader<'_>, dir: &Dir) -> Result<Stat, Failure> {
        let path = self.source.path_of(&dir.path);
        let stat = reader.source.stat_dir(&dir.handle).map_err(|error| Failure::at(&path, &error))?;
        if self.dest == Some((stat.dev, stat.ino)) {
            return Err(Failure::new(&path, "leads into the destination; leave it out with --exclude"));
        }
        Ok(stat)
    }

    fn item(&self, source: &dyn Source, dir: &Dir, name: Box<[u8]>, shown: &Shown) -> io::Result<Item> {
        let linked = matches!(shown, Shown::File { linked: true, .. });
        let c_name = c_name(&name);
        let stat = source.stat(&dir.handle, &c_name, linked)?;
        let (fits, what) = match shown {
            Shown::File { linked, .. } => (stat.is_file(), What::File { linked: *linked }),
            Shown::Link => (stat.is_link(), What::Link(self.text(source, dir, &c_name)?)),
            Shown::Special | Shown::Dir { .. } => (!stat.is_dir() && !stat.is_link(), What::Special),
        };
        if fits { Ok(Item { name, stat, what }) } else { Err(changed()) }
    }

    /// A link's text as views have it: one that leads to the same place from anywhere.
    fn text(&self, source: &dyn Source, dir: &Dir, name: &std::ffi::CStr) -> io::Result<Vec<u8>> {
        let text = source.read_link(&dir.handle, name)?;
        if text.starts_with(b"/") {
            return Ok(text);
        }
        let above = self.source.path_of(&dir.path);
        Ok([above.as_slice(), b"/", &text].concat())
    }
}

/// Something else is there than a moment ago.
pub fn changed() -> io::Error {
    io::Error::other("changed while it was looked at; try again")
}

impl Inventory {
    /// Opens the directory of a folder, from that of the match.
    ///
    /// # Errors
    /// Those of the source.
    pub fn open(&self, source: &dyn Source, root: &Handle, folder: usize) -> io::Result<Handle> {
        let mut way = Vec::new();
        let mut at = folder;
        while at != 0 {
            way.push(at);
            at = self.folders[at].parent;
        }
        let mut handle: Option<Handle> = None;
        let mut tail: Vec<u8> = Vec::new();
        for folder in way.into_iter().rev().map(|at| &self.folders[at]) {
            if folder.linked {
                let base = step(source, root, handle, &mut tail)?;
                handle = Some(source.open_link(base.as_ref().unwrap_or(root), &c_name(&folder.name))?);
            } else {
                if !tail.is_empty() {
                    tail.push(b'/');
                }
                tail.extend_from_slice(&folder.name);
            }
        }
        match step(source, root, handle, &mut tail)? {
            Some(handle) => Ok(handle),
            None => source.open_dir(root, c"."),
        }
    }

    /// True if another look saw the same: names, kinds, sizes and times.
    pub fn is_same(&self, other: &Inventory) -> bool {
        let file = |stat: &Stat| (stat.dev, stat.ino, stat.mode, stat.size, stat.mtime);
        let items = |a: &Folder, b: &Folder| {
            a.items.len() == b.items.len()
                && a.items.iter().zip(&b.items).all(|(a, b)| {
                    a.name == b.name && a.what == b.what && (a.stat.is_link() || file(&a.stat) == file(&b.stat))
                })
        };
        self.folders.len() == other.folders.len()
            && self.folders.iter().zip(&other.folders).all(|(a, b)| {
                (&a.path, a.linked, a.stat.dev, a.stat.ino) == (&b.path, b.linked, b.stat.dev, b.stat.ino)
                    && items(a, b)
            })
    }
}

/// Opens a way of real directories, if there is any.
fn step(source: &dyn Source, root: &Handle, handle: Option<Handle>, tail: &mut Vec<u8>) -> io::Result<Option<Handle>> {
    if tail.is_empty() {
        return Ok(handle);
    }
    let opened = source.open_dir(handle.as_ref().unwrap_or(root), &c_name(tail))?;
    tail.clear();
    Ok(Some(opened))
}
