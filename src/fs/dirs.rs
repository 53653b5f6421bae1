//! Directories: what they show, looking names up, and listing them.
//!
//! Directories are not opened: the kernel is told that `opendir` is not needed, keeps their contents, and asks for
//! them again when it is told to, or when attributes that it asks for (`keep`) have another modification time. Cookies are
//! hashes of names, so that a listing goes on where it was even if the directory was read anew in between.

use std::cell::{OnceCell, RefCell};
use std::ffi::CString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;

use super::ahead::{Looks, Wanted};
use super::attr::folder_attr;
use super::control::{self, Control};
use super::forget::Late;
use super::habits::Give;
use super::keep::Keep;
use super::node::{Dir, Listing, Node, generation};
use super::reach::{Target, gone, stale};
use super::wire::answer::{Answer, Entry};
use super::{FOREVER, FRESH, VeinFs, ViewMode};
use crate::entry::RelPath;
use crate::expand::{Content, Directory, Shown, Symlinks, expand, whole_entry};
use crate::listing::{ListRules, Scratch, c_name};
use crate::matcher::Own;
use crate::matcher::bits::Bits;
use crate::reader::Reader;
use crate::source::{Handle, Stat, open_steps};
use crate::view::table::{DOTS, Table};
use crate::view::{Folder, Item, Place, inode};

/// How long one answer looks at matches: enough for all that fit into it on a disk, while on a slow source names are not
/// held up by attributes that nobody may ask for.
const LOOKS: Duration = Duration::from_millis(5);

/// The longest name that file systems have, in bytes (`NAME_MAX` of `linux/limits.h`).
const NAME_MAX: usize = 255;

/// What there is to list.
enum Entries {
    Folder(Arc<Folder>),
    Dir(Arc<Node>, Listing),
    Control(Table<Control>),
}

fn not_a_directory() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOTDIR)
}

/// True if the numbers that a directory has for files are those of their attributes, and the files on its device: so
/// with file systems that are not made of others.
fn has_numbers(dir: &Handle, dev: u64) -> bool {
    thread_local! {
        static KNOWN: RefCell<FxHashMap<u64, bool>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        *known.entry(dev).or_insert_with(|| {
            // ext4, XFS, Btrfs, tmpfs, F2FS, ZFS (`linux/magic.h`)
            const PLAIN: [u32; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1];
            match dir.local() {
                Ok(dir) => rustix::fs::fstatfs(dir).is_ok_and(|stat| PLAIN.contains(&(stat.f_type as u32))),
                Err(_) => true,
            }
        })
    })
}

/// True if whatever can be looked up in a directory is listed in it under that very name: not where upper and lower case
/// are one, so that an entry would be kept under names that no change tells of.
fn has_exact_names(dir: &Handle, dev: u64) -> bool {
    /// `FS_CASEFOLD_FL` of `linux/fs.h`.
    const CASEFOLD: u32 = 0x4000_0000;
    has_numbers(dir, dev)
        && match dir.local() {
            Ok(dir) => rustix::fs::ioctl_getflags(dir).is_ok_and(|flags| flags.bits() & CASEFOLD == 0),
            Err(_) => true,
        }
}

/// Adds an entry that there is room for.
fn add(answer: &mut Answer, size: usize, cookie: u64, name: &[u8], entry: &Entry) {
    let added = answer.name_plus(size, (entry.attr.ino, cookie, name, entry.attr.mode), Some(entry));
    debug_assert!(added, "there was room for it");
}

impl VeinFs {
    pub(super) fn listing(&self, node: &Arc<Node>, ttl: Duration) -> io::Result<Listing> {
        let Some(dir) = node.dir() else { return Err(not_a_directory()) };
        let content = Arc::clone(&dir.content.lock());
        if let Some(listing) = self.listings.get(node.ino, ttl)
            && (Arc::ptr_eq(&listing.content, &content) || listing.content == content)
            && (ttl == FOREVER || !listing.recent && self.modified(node).is_ok_and(|own| own == listing.own))
        {
            return Ok(listing);
        }
        let epoch = self.epoch_of_way(dir);
        let (handle, stat, anew) = self.open_to_list(node, epoch)?;
        let own = stat.mtime;
        let numbered = has_numbers(&handle, stat.dev);
        dir.dev.store(stat.dev, Ordering::Relaxed);
        dir.told.store(self.is_told(dir, &handle, stat.dev), Ordering::Relaxed);
        let recent = Listing::is_recent(own);
        let entries = self.with_reader(node, dir, &handle, |reader, directory, scratch| {
            expand(reader, directory, &content, self.symlinks(), scratch)
        })?;
        if node.note_shown(&entries, own) {
            // Nobody receives where nothing is mounted, as in tests.
            let _ = self.late.send(Late::Settle(node.ino));
        }
        if anew {
            self.keep_handle(node.ino, &handle, epoch);
        }
        let listing = Listing { table: Arc::new(Table::new(entries)), content, own, recent, numbered };
        self.listings.put(node.ino, listing.clone());
        Ok(listing)
    }

    /// Calls `what` with what it takes to see what is shown of an open directory.
    fn with_reader<T>(
        &self,
        node: &Arc<Node>,
        dir: &Dir,
        handle: &Handle,
        what: impl FnOnce(&Reader<'_>, &Directory<'_>, &mut Scratch) -> T,
    ) -> T {
        let automaton = &*self.live.automaton;
        let (path, source) = (&dir.path, dir.place.source);
        let options = &self.live.options[source];
        self.scratch.with(|scratch| {
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
                handle,
                path,
                is_below: &|identity| above_node.get_or_init(|| self.identities_above(node)).contains(&identity),
            };
            what(&reader, &directory, scratch)
        })
    }

    /// How links are shown.
    fn symlinks(&self) -> Symlinks {
        if self.options.allow_other && self.options.symlinks == Symlinks::Follow {
            // Shown as links, so that the kernel checks the way to what they lead to for whoever follows them.
            Symlinks::Keep
        } else {
            self.options.symlinks
        }
    }

    fn modified(&self, node: &Arc<Node>) -> io::Result<(i64, u32)> {
        Ok(self.source(&node.place()).stat_dir(&*self.handle(node)?)?.mtime)
    }

    /// A directory opened for this one listing, and its attributes: two that read the same descriptor would share one
    /// position. True if it was not open, and may be kept after the listing.
    fn open_to_list(&self, node: &Arc<Node>, epoch: u64) -> io::Result<(Arc<Handle>, Stat, bool)> {
        let place = node.place();
        let source = self.source(&place);
        let (own, anew) = match self.kept_handle(node.ino, epoch) {
            Some(handle) => (source.open_again(&handle)?, false),
            None => (self.open_anew(node)?, true),
        };
        let stat = source.stat_dir(&own)?;
        Ok((Arc::new(own), stat, anew))
    }

    /// Whether changes in a directory are told from now on; to be asked before it is listed.
    fn is_told(&self, dir: &Dir, handle: &Handle, dev: u64) -> bool {
        let source = dir.place.source;
        let Some(watch) = self.watches.get(source).filter(|_| !dir.behind_link && self.options.ttl.is_none()) else {
            return false;
        };
        watch.knows(dev).unwrap_or_else(|| {
            // Not all that is shown is searched for matches, and so watched.
            let real = self.live.sources[source].path_of(&RelPath::from_bytes(dir.path.to_vec()));
            watch.add(handle, dev, &real)
        })
    }

    /// Device and inode of each directory on the way to a node from the source's root, as far as they can be had.
    fn identities_above(&self, node: &Arc<Node>) -> Vec<(u64, u64)> {
        let place = node.place();
        let source = self.source(&place);
        let mut identities = Vec::new();
        // Where the way is no longer there, what it was makes no difference.
        let _ = open_steps(source, &place.found.path, self.options.follow, &mut |handle| {
            identities.extend(source.identity(handle));
        });
        let mut at = node.at.lock().parent.clone();
        while let Some(parent) = at {
            identities.extend(self.handle(&parent).and_then(|handle| source.identity(&handle)));
            at = parent.at.lock().parent.clone();
        }
        identities
    }

    pub(super) fn do_lookup(&self, parent: u64, name: &[u8]) -> io::Result<Entry> {
        if name.len() > NAME_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        match name {
            b"." => return self.do_lookup_itself(parent),
            b".." => return self.do_lookup_above(parent),
            _ => {}
        }
        match self.target(parent)? {
            Target::Control(control) => {
                let child = control.child(name, &self.live).ok_or_else(gone)?;
                Ok(self.control_entry(&child))
            }
            Target::Folder(folder) => match folder.entries.get(name) {
                Some(item @ Item::Match(_)) if self.options.view != ViewMode::Link => {
                    let _visit = self.announcer.visit(folder.ino);
                    self.item_entry(item)
                }
                Some(item) => self.item_entry(item),
                None if folder.ino == inode::ROOT && name == control::NAME => Ok(self.control_entry(&Control::Root)),
                None => Err(gone()),
            },
            Target::Node(dir) => {
                if let Some(entry) = self.lookup_alone(&dir, name)? {
                    return Ok(entry);
                }
                let listing = self.listing(&dir, FRESH)?;
                let handle = self.handle(&dir)?;
                match listing.table.get(name) {
                    Some(shown) => self.entry(&dir, &handle, name, shown, SystemTime::now()),
                    // Who may not search the directory does not learn whether it is there.
                    None => match self.source(&dir.place()).stat(&handle, &c_name(name), false) {
                        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Err(error),
                        _ => Err(gone()),
                    },
                }
            }
        }
    }

    /// What a directory shows under a name, without reading the directory; `None` where it has to be read: where what is
    /// shown depends on its other entries, or one entry may have several names.
    ///
    /// Measured: a third less for a name whose directory nobody has read (docs/benchmarks.md).
    fn lookup_alone(&self, node: &Arc<Node>, name: &[u8]) -> io::Result<Option<Entry>> {
        let Some(dir) = node.dir() else { return Err(not_a_directory()) };
        if **dir.content.lock() != Content::Whole {
            return Ok(None);
        }
        let handle = self.handle(node)?;
        let dev = self.source(&dir.place).identity(&handle)?.0;
        if !has_exact_names(&handle, dev) {
            return Ok(None);
        }
        dir.dev.store(dev, Ordering::Relaxed);
        dir.told.store(self.is_told(dir, &handle, dev), Ordering::Relaxed);
        let c_name = c_name(name);
        let looked = self.with_reader(node, dir, &handle, |reader, directory, _| {
            whole_entry(reader, directory, &c_name, self.symlinks())
        })?;
        let Some((shown, stat)) = looked else { return Err(gone()) };
        let now = SystemTime::now();
        match shown.is_linked() {
            true => self.entry(node, &handle, name, &shown, now).map(Some),
            false => self.entry_as(node, (c_name, &shown), stat, now).map(Some),
        }
    }

    pub(super) fn control_entry(&self, control: &Control) -> Entry {
        Entry { attr: self.control_attr(control), generation: 0, keep: FOREVER, attr_keep: Duration::ZERO }
    }

    /// What a folder of the view holds; counts as a lookup.
    fn item_entry(&self, item: &Item) -> io::Result<Entry> {
        let (attr, attr_keep) = match item {
            Item::Folder(below) => {
                // Gone since this folder was looked up.
                let below = self.folder(*below).ok_or_else(gone)?;
                self.announcer.looked_up(below.ino);
                (folder_attr(below.ino, below.changed, self.uid, self.gid), FOREVER)
            }
            Item::Match(place) if self.options.view == ViewMode::Link => (self.link_attr(place), FOREVER),
            Item::Match(place) => return self.place_entry(place),
        };
        Ok(Entry { attr, generation: 0, keep: FOREVER, attr_keep })
    }

    /// A match's own directory; counts as a lookup.
    pub(super) fn place_entry(&self, place: &Arc<Place>) -> io::Result<Entry> {
        let (node, stat) = self.enter_place(place)?;
        let attr_keep = self.keep_match(&node, &stat, SystemTime::now());
        Ok(Entry { attr: self.attr(&node, &stat), generation: 0, keep: FOREVER, attr_keep })
    }

    /// What a directory shows under a name; counts as a lookup.
    pub(super) fn entry(
        &self,
        dir: &Arc<Node>,
        handle: &Handle,
        name: &[u8],
        shown: &Shown,
        now: SystemTime,
    ) -> io::Result<Entry> {
        let name = c_name(name);
        let stat = self.source(&dir.place()).stat(handle, &name, shown.is_linked())?;
        self.entry_as(dir, (name, shown), stat, now)
    }

    /// The same where its attributes are known.
    fn entry_as(
        &self,
        dir: &Arc<Node>,
        (name, shown): (CString, &Shown),
        stat: Stat,
        now: SystemTime,
    ) -> io::Result<Entry> {
        let node = self.enter_as(dir, name, shown, &stat)?;
        let Keep { name: keep, attr: attr_keep } = self.keep_entry(dir, &node, shown.is_linked(), &stat, now);
        Ok(Entry { attr: self.attr(&node, &stat), generation: generation(&stat), keep, attr_keep })
    }

    fn entries(&self, ino: u64, offset: u64) -> io::Result<Entries> {
        Ok(match self.target(ino)? {
            Target::Control(control) => Entries::Control(control.entries(&self.live).ok_or_else(not_a_directory)?),
            Target::Folder(folder) => Entries::Folder(folder),
            Target::Node(node) => {
                // In the middle of a listing the old one is as good.
                let ttl = if offset == 0 { FRESH } else { FOREVER };
                let listing = self.listing(&node, ttl)?;
                Entries::Dir(node, listing)
            }
        })
    }

    /// Answers with entries and attributes behind a cookie, at most `size` bytes.
    pub(super) fn do_readdirplus(
        &self,
        thread: u32,
        ino: u64,
        offset: u64,
        size: usize,
        answer: &mut Answer,
    ) -> io::Result<()> {
        let entries = self.entries(ino, offset)?;
        let (own, above) = self.dots(&entries);
        for (cookie, name, ino) in [(1, &b"."[..], own), (DOTS, b"..", above)] {
            if offset < cookie && !answer.name_plus(size, (ino, cookie, name, libc::S_IFDIR), None) {
                return Ok(());
            }
        }
        let from = offset.max(DOTS);
        match &entries {
            Entries::Folder(folder) => {
                let begun = Instant::now();
                let _visit = self.announcer.visit(folder.ino);
                for entry in folder.entries.behind(from) {
                    // What does not fit is not looked at, so that it does not count as told.
                    if !answer.has_room(size, &entry.name) {
                        break;
                    }
                    let looks = !matches!(entry.value, Item::Match(_)) || begun.elapsed() < LOOKS;
                    let entered = if looks { self.item_entry(&entry.value) } else { Err(stale()) };
                    match (entered, &entry.value) {
                        (Ok(entered), _) => add(answer, size, entry.cookie, &entry.name, &entered),
                        // It is known to have been there; what is asked of it will say what is wrong, if anything.
                        (Err(_), Item::Match(place)) => {
                            answer.name_plus(size, (place.ino, entry.cookie, &entry.name, libc::S_IFDIR), None);
                        }
                        (Err(_), Item::Folder(_)) => {}
                    }
                }
            }
            Entries::Dir(dir, listing) => {
                let (handle, now) = (self.handle(dir)?, SystemTime::now());
                let mut give = match listing.numbered {
                    true => self.habits.lists(thread, dir.ino, offset == 0),
                    false => Give::All,
                };
                let device = dir.dir().map_or(0, |dir| dir.dev.load(Ordering::Relaxed));
                let place = dir.place();
                let look = |(name, linked): &Wanted| self.source(&place).stat(&handle, name, *linked);
                let mut looks = Looks::new(&self.lookers[place.source], look);
                for entry in listing.table.behind(from) {
                    if !answer.has_room(size, &entry.name) {
                        break;
                    }
                    if let (Shown::File { ino, linked: false }, Give::Names | Give::AllButFirst) = (&entry.value, give)
                    {
                        let number = self.devices.ino(device, *ino);
                        answer.name_plus(size, (number, entry.cookie, &entry.name, libc::S_IFREG), None);
                        self.habits.held(thread, dir.ino);
                        if give == Give::AllButFirst {
                            give = Give::All;
                        }
                        continue;
                    }
                    // Those behind it that will fit as well, but for those of which names suffice.
                    let following = || {
                        let mut room = size - answer.body().len() - Answer::room_of(&entry.name);
                        let behind = listing.table.behind(entry.cookie).take_while(|next| {
                            let rest = room.checked_sub(Answer::room_of(&next.name));
                            room = rest.unwrap_or(0);
                            rest.is_some()
                        });
                        let is_named = |shown: &Shown| matches!(shown, Shown::File { linked: false, .. });
                        let looked_at = behind.filter(|next| give == Give::All || !is_named(&next.value));
                        looked_at.map(|next| (c_name(&next.name), next.value.is_linked())).collect()
                    };
                    let (wanted, looked) = looks.next((c_name(&entry.name), entry.value.is_linked()), following);
                    let entered = looked.and_then(|stat| self.entry_as(dir, (wanted.0, &entry.value), stat, now));
                    match entered {
                        Ok(entered) => add(answer, size, entry.cookie, &entry.name, &entered),
                        // One may read the directory, and not search it: its names are known and nothing else.
                        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                            let kind = entry.value.kind().unwrap_or(0);
                            let number = inode::inside(dir.ino, &entry.name);
                            answer.name_plus(size, (number, entry.cookie, &entry.name, kind), None);
                        }
                        // It has gone.
                        Err(_) => {}
                    }
                }
            }
            Entries::Control(table) => {
                for entry in table.behind(from) {
                    if !answer.has_room(size, &entry.name) {
                        break;
                    }
                    add(answer, size, entry.cookie, &entry.name, &self.control_entry(&entry.value));
                }
            }
        }
        Ok(())
    }

    /// Answers with entries behind a cookie, at most `size` bytes.
    pub(super) fn do_readdir(&self, ino: u64, offset: u64, size: usize, answer: &mut Answer) -> io::Result<()> {
        let entries = self.entries(ino, offset)?;
        let (own, above) = self.dots(&entries);
        let mut add = |ino, cookie, kind, name: &[u8]| answer.name(size, ino, cookie, name, kind);
        for (cookie, name, ino) in [(1, &b"."[..], own), (DOTS, b"..", above)] {
            if offset < cookie && !add(ino, cookie, libc::S_IFDIR, name) {
                return Ok(());
            }
        }
        let from = offset.max(DOTS);
        match &entries {
            Entries::Folder(folder) => {
                let linked = self.options.view == ViewMode::Link;
                let kind = |item: &Item| match item {
                    Item::Match(_) if linked => libc::S_IFLNK,
                    _ => libc::S_IFDIR,
                };
                let _ = folder.entries.behind(from).all(|e| add(e.value.ino(), e.cookie, kind(&e.value), &e.name));
            }
            Entries::Dir(dir, listing) => {
                let handle = self.handle(dir)?;
                for entry in listing.table.behind(from) {
                    let Ok((node, stat)) = self.enter(dir, &handle, &entry.name, &entry.value) else { continue };
                    let fits = add(node.ino, entry.cookie, stat.mode, &entry.name);
                    self.forget(node.ino, 1);
                    if !fits {
                        break;
                    }
                }
            }
            Entries::Control(table) => {
                let _ = table.behind(from).all(|entry| {
                    let attr = self.control_attr(&entry.value);
                    add(attr.ino, entry.cookie, attr.mode, &entry.name)
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
                (node.ino, parent.unwrap_or_else(|| node.place().parent))
            }
            Entries::Control(_) => (control::ROOT, inode::ROOT),
        }
    }
}
