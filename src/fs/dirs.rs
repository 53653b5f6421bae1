//! Directories: what they show, looking names up, and listing them.
//!
//! Directories are not opened: the kernel is told that `opendir` is not needed, keeps their contents, and asks for
//! them again when the attributes that it gets after [`super::FsOptions::ttl`] have another modification time. Cookies are
//! hashes of names, so that a listing goes on where it was even if the directory was read anew in between.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{FileAttr, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::attr::{folder_attr, kind_of};
use super::control::{self, Control};
use super::node::{Listing, Node, NodeKind, generation};
use super::reach::{Target, gone, stale};
use super::{FOREVER, VeinFs, ViewMode};
use crate::expand::{Directory, Shown, Symlinks, expand};
use crate::listing::ListRules;
use crate::matcher::Own;
use crate::matcher::bits::Bits;
use crate::reader::Reader;
use crate::source::open_steps;
use crate::view::table::{DOTS, Table};
use crate::view::{Folder, Item, Place, inode};

/// How long one answer looks at matches: enough for all that fit into it on a disk, while on a slow source names are not
/// held up by attributes that nobody may ask for.
const LOOKS: Duration = Duration::from_millis(5);

/// What there is to list.
enum Entries {
    Folder(Arc<Folder>),
    Dir(Arc<Node>, Arc<Table<Shown>>),
    Control(Table<Control>),
}

fn not_a_directory() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOTDIR)
}

impl VeinFs {
    pub(super) fn listing(&self, node: &Arc<Node>, ttl: Duration) -> io::Result<Listing> {
        let NodeKind::Dir { path, content, .. } = &node.kind else {
            return Err(not_a_directory());
        };
        let content = Arc::clone(&content.lock());
        if let Some(listing) = self.listings.get(node.ino, ttl)
            && (Arc::ptr_eq(&listing.content, &content) || listing.content == content)
            && (ttl == FOREVER || !listing.recent && self.modified(node).is_ok_and(|own| own == listing.own))
        {
            return Ok(listing);
        }
        let own = self.modified(node)?;
        // Opened anew: two that read the same descriptor would share one position.
        let handle = self.source(&node.place).open_dir(&*self.handle(node)?, c".")?;
        let recent = Listing::is_recent(own);
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
                shut: &options.shut,
                entered: &|_| {},
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
        if node.note_shown(&entries, own) {
            // Nobody receives where nothing is mounted, as in tests.
            let _ = self.changed.send(node.ino);
        }
        let listing = Listing { table: Arc::new(Table::new(entries)), content, own, recent };
        self.listings.put(node.ino, listing.clone());
        Ok(listing)
    }

    fn modified(&self, node: &Arc<Node>) -> io::Result<(i64, u32)> {
        Ok(self.source(&node.place).stat_dir(&*self.handle(node)?)?.mtime)
    }

    /// Device and inode of each directory on the way to a node from the source's root, as far as they can be had.
    fn identities_above(&self, node: &Arc<Node>) -> Vec<(u64, u64)> {
        let source = self.source(&node.place);
        let mut identities = Vec::new();
        // Where the way is no longer there, what it was makes no difference.
        let _ = open_steps(source, &node.place.found.path, self.options.follow, &mut |handle| {
            identities.extend(source.identity(handle));
        });
        let mut at = node.at.lock().parent.clone();
        while let Some(parent) = at {
            identities.extend(self.handle(&parent).and_then(|handle| source.identity(&handle)));
            at = parent.at.lock().parent.clone();
        }
        identities
    }

    pub(super) fn do_lookup(&self, parent: INodeNo, name: &[u8]) -> io::Result<(FileAttr, u64, Duration, Duration)> {
        match self.target(parent)? {
            Target::Control(control) => {
                let child = control.child(name, &self.live).ok_or_else(gone)?;
                Ok((self.control_attr(&child), 0, Duration::ZERO, FOREVER))
            }
            Target::Folder(folder) => match folder.entries.get(name) {
                Some(Item::Folder(below)) => {
                    let below = self.folder(*below).ok_or_else(gone)?;
                    self.announcer.looked_up(below.ino);
                    Ok((folder_attr(below.ino, below.changed, self.uid, self.gid), 0, FOREVER, FOREVER))
                }
                Some(Item::Match(place)) if self.options.view == ViewMode::Link => {
                    Ok((self.link_attr(place), 0, FOREVER, FOREVER))
                }
                Some(Item::Match(place)) => {
                    let _visit = self.announcer.visit(folder.ino);
                    let (node, stat) = self.enter_place(place)?;
                    Ok((self.attr(&node, &stat), 0, self.options.ttl, FOREVER))
                }
                None if folder.ino == inode::ROOT && name == control::NAME => {
                    Ok((self.control_attr(&Control::Root), 0, Duration::ZERO, FOREVER))
                }
                None => Err(gone()),
            },
            Target::Node(dir) => {
                let listing = self.listing(&dir, self.options.ttl)?;
                let shown = listing.table.get(name).ok_or_else(gone)?;
                let (node, stat) = self.enter(&dir, &*self.handle(&dir)?, name, shown)?;
                Ok((self.attr(&node, &stat), generation(&stat), self.options.ttl, self.options.ttl))
            }
        }
    }

    fn entries(&self, ino: INodeNo, offset: u64) -> io::Result<Entries> {
        Ok(match self.target(ino)? {
            Target::Control(control) => Entries::Control(control.entries(&self.live).ok_or_else(not_a_directory)?),
            Target::Folder(folder) => Entries::Folder(folder),
            Target::Node(node) => {
                // In the middle of a listing the old one is as good.
                let ttl = if offset == 0 { self.options.ttl } else { FOREVER };
                let table = self.listing(&node, ttl)?.table;
                Entries::Dir(node, table)
            }
        })
    }

    pub(super) fn do_readdirplus(&self, ino: INodeNo, offset: u64, reply: &mut ReplyDirectoryPlus) -> io::Result<()> {
        let entries = self.entries(ino, offset)?;
        let (own, above) = self.dots(&entries);
        // The kernel neither counts nor keeps the attributes of these two.
        let dot = |ino| folder_attr(ino, self.live.started, self.uid, self.gid);
        for (cookie, name, ino) in [(1, ".", own), (DOTS, "..", above)] {
            if offset < cookie && reply.add(INodeNo(ino), cookie, name, &Duration::ZERO, &dot(ino), Generation(0)) {
                return Ok(());
            }
        }
        match &entries {
            Entries::Folder(folder) => {
                let begun = Instant::now();
                let _visit = self.announcer.visit(folder.ino);
                for entry in folder.entries.behind(offset.max(DOTS)) {
                    let (attr, generation, ttl, node) = match &entry.value {
                        Item::Folder(below) => {
                            // Gone since this folder was looked up.
                            let Some(below) = self.folder(*below) else { continue };
                            self.announcer.looked_up(below.ino);
                            (folder_attr(below.ino, below.changed, self.uid, self.gid), 0, FOREVER, None)
                        }
                        Item::Match(place) if self.options.view == ViewMode::Link => {
                            (self.link_attr(place), 0, FOREVER, None)
                        }
                        Item::Match(place) => {
                            let entered = if begun.elapsed() < LOOKS { self.enter_place(place) } else { Err(stale()) };
                            match entered {
                                Ok((node, stat)) => (self.attr(&node, &stat), 0, self.options.ttl, Some(node)),
                                // It is known to have been there; what is asked of it will say what is wrong, if anything.
                                Err(_) => {
                                    if self.add_unread(reply, place, entry.cookie, &entry.name) {
                                        return Ok(());
                                    }
                                    continue;
                                }
                            }
                        }
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
                        match node {
                            Some(node) => self.nodes.forget(node.ino, 1),
                            None => self.announcer.forget(attr.ino.0, 1),
                        }
                        return Ok(());
                    }
                }
            }
            Entries::Dir(dir, table) => {
                let handle = self.handle(dir)?;
                for entry in table.behind(offset.max(DOTS)) {
                    let Ok((node, stat)) = self.enter(dir, &handle, &entry.name, &entry.value) else { continue };
                    let attr = self.attr(&node, &stat);
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(attr.ino, entry.cookie, name, &self.options.ttl, &attr, Generation(generation(&stat)))
                    {
                        self.nodes.forget(node.ino, 1);
                        return Ok(());
                    }
                }
            }
            Entries::Control(table) => {
                for entry in table.behind(offset.max(DOTS)) {
                    let attr = self.control_attr(&entry.value);
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(attr.ino, entry.cookie, name, &Duration::ZERO, &attr, Generation(0)) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// An entry for a match without a look at its directory; the kernel asks again when somebody wants more than its name.
    fn add_unread(&self, reply: &mut ReplyDirectoryPlus, place: &Arc<Place>, cookie: u64, name: &[u8]) -> bool {
        let node = self.remember_place(place);
        let attr = folder_attr(node.ino, self.live.started, self.uid, self.gid);
        let full = reply.add(attr.ino, cookie, OsStr::from_bytes(name), &Duration::ZERO, &attr, Generation(0));
        if full {
            self.nodes.forget(node.ino, 1);
        }
        full
    }

    pub(super) fn do_readdir(&self, ino: INodeNo, offset: u64, reply: &mut ReplyDirectory) -> io::Result<()> {
        let entries = self.entries(ino, offset)?;
        let (own, above) = self.dots(&entries);
        for (cookie, name, ino) in [(1, ".", own), (DOTS, "..", above)] {
            if offset < cookie && reply.add(INodeNo(ino), cookie, fuser::FileType::Directory, name) {
                return Ok(());
            }
        }
        let from = offset.max(DOTS);
        let mut add = |ino, cookie, kind, name: &[u8]| reply.add(INodeNo(ino), cookie, kind, OsStr::from_bytes(name));
        match &entries {
            Entries::Folder(folder) => {
                let linked = self.options.view == ViewMode::Link;
                let kind = |item: &Item| match item {
                    Item::Match(_) if linked => fuser::FileType::Symlink,
                    _ => fuser::FileType::Directory,
                };
                folder.entries.behind(from).any(|e| add(e.value.ino(), e.cookie, kind(&e.value), &e.name));
            }
            Entries::Dir(dir, table) => {
                let handle = self.handle(dir)?;
                for entry in table.behind(from) {
                    let Ok((node, stat)) = self.enter(dir, &handle, &entry.name, &entry.value) else { continue };
                    let full = add(node.ino, entry.cookie, kind_of(stat.mode), &entry.name);
                    self.nodes.forget(node.ino, 1);
                    if full {
                        break;
                    }
                }
            }
            Entries::Control(table) => {
                table.behind(from).any(|entry| {
                    let attr = self.control_attr(&entry.value);
                    add(attr.ino.0, entry.cookie, attr.kind, &entry.name)
                });
            }
        }
        Ok(())
    }

    /// Inode numbers of a directory and the one above it.
    fn dots(&self, entries: &Entries) -> (u64, u64) {
        match entries {
            Entries::Folder(folder) => (folder.ino, folder.parent),
            Entries::Dir(node, _) => {
                let parent = node.at.lock().parent.as_ref().map(|parent| parent.ino);
                (node.ino, parent.unwrap_or(node.place.parent))
            }
            Entries::Control(_) => (control::ROOT, inode::ROOT),
        }
    }
}
