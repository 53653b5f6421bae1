//! From inode numbers to the real things: targets, nodes, open directories, attributes.

use std::ffi::CString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;

use super::attr::{Attr, file_attr, folder_attr, since_epoch};
use super::control::Control;
use super::files::Open;
use super::node::{At, Dir, Identity, Node, NodeKind, ShownState, open_child};
use super::{FOREVER, FRESH, VeinFs, ViewMode, share};
use crate::expand::{Content, Shown};
use crate::listing::c_name;
use crate::source::{Handle, Source, Stat, open_way};
use crate::view::{Folder, Place, inode};

/// What an inode number stands for.
pub(super) enum Target {
    Folder(Arc<Folder>),
    Control(Control),
    Node(Arc<Node>),
}

pub(super) fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

pub(super) fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

impl VeinFs {
    pub(super) fn target(&self, ino: u64) -> io::Result<Target> {
        if let Some(control) = Control::of(ino, self.live.patterns.len()) {
            return Ok(Target::Control(control));
        }
        if let Some(node) = self.nodes.get(ino) {
            return Ok(Target::Node(node));
        }
        self.folder(ino).map(Target::Folder).ok_or_else(stale)
    }

    /// A folder of the current view.
    pub(super) fn folder(&self, ino: u64) -> Option<Arc<Folder>> {
        self.live.view().folders.get(ino).cloned()
    }

    pub(super) fn node(&self, ino: u64) -> io::Result<Arc<Node>> {
        self.nodes.get(ino).ok_or_else(stale)
    }

    // --- the real directories behind nodes ---

    pub(super) fn source(&self, place: &Place) -> &dyn Source {
        &*self.live.sources[place.source].source
    }

    pub(super) fn root_handle(&self, source: usize) -> io::Result<Arc<Handle>> {
        let key = source as u64;
        let epoch = self.epochs.on_the_way(source, b"");
        if let Some(handle) = self.kept_handle(key, epoch) {
            return Ok(handle);
        }
        let root = self.live.sources[source].source.open_root();
        let handle = Arc::new(root.map_err(|error| self.unless_away(source, error))?);
        self.keep_handle(key, &handle, epoch);
        Ok(handle)
    }

    /// An open directory that is kept, if nothing on the way to it has changed since it was opened.
    pub(super) fn kept_handle(&self, key: u64, epoch: u64) -> Option<Arc<Handle>> {
        self.handles.get(key, FRESH).filter(|(_, then)| *then == epoch).map(|(handle, _)| handle)
    }

    /// Keeps an open directory; `epoch` is from before it was opened.
    pub(super) fn keep_handle(&self, key: u64, handle: &Arc<Handle>, epoch: u64) {
        self.handles.put(key, (Arc::clone(handle), epoch));
    }

    /// The count of changes on the way to a directory.
    pub(super) fn epoch_of_way(&self, dir: &Dir) -> u64 {
        self.epochs.on_the_way(dir.place.source, &dir.path)
    }

    /// In a source that is away nothing is gone: what is there cannot be read now.
    fn unless_away(&self, source: usize, error: io::Error) -> io::Error {
        let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP));
        if missing && self.live.is_away(source) { io::Error::from_raw_os_error(libc::EIO) } else { error }
    }

    /// Opens the directory of a match.
    fn place_handle(&self, place: &Place) -> io::Result<Handle> {
        let root = self.root_handle(place.source)?;
        open_way(self.source(place), &root, &place.found.path, self.options.follow)
            .map_err(|error| self.unless_away(place.source, error))
    }

    /// Attributes of the directory of a match. It is opened only when somebody looks into it: thousands of matches are
    /// listed in half the time (8,000 in 20 ms) by a look at each path from the root.
    fn stat_place(&self, place: &Place) -> io::Result<Stat> {
        let (source, path) = (self.source(place), &place.found.path);
        let root = self.root_handle(place.source)?;
        if path.is_root() {
            return source.stat_dir(&source.open_root()?);
        }
        let path = c_name(path.as_bytes());
        let looked =
            if self.options.follow { source.stat(&root, &path, true) } else { source.stat_beneath(&root, &path) };
        match looked {
            Ok(stat) if stat.is_dir() => Ok(stat),
            // Something else is there now, or the path is too long for one call: opening it tells.
            _ => source.stat_dir(&self.place_handle(place)?),
        }
    }

    /// A directory node's directory, opened through those above it, kept for a while.
    pub(super) fn handle(&self, node: &Arc<Node>) -> io::Result<Arc<Handle>> {
        // From the nearest directory above that is open downwards; a loop, since trees may be very deep.
        let mut missing: Vec<(Arc<Node>, At, u64)> = Vec::new();
        let mut at = Arc::clone(node);
        let mut base = loop {
            let epoch = at.dir().map_or(0, |dir| self.epoch_of_way(dir));
            if let Some(handle) = self.kept_handle(at.ino, epoch) {
                break handle;
            }
            let how = at.at.lock().clone();
            match how.parent.clone() {
                Some(parent) => {
                    missing.push((at, how, epoch));
                    at = parent;
                }
                None => {
                    let handle = Arc::new(self.place_handle(&at.place())?);
                    self.check(&at, &handle)?;
                    self.keep_handle(at.ino, &handle, epoch);
                    break handle;
                }
            }
        };
        for (node, how, epoch) in missing.into_iter().rev() {
            base = Arc::new(open_child(self.source(&node.place()), &base, &how.name, how.linked)?);
            self.check(&node, &base)?;
            self.keep_handle(node.ino, &base, epoch);
        }
        Ok(base)
    }

    /// A directory node's directory, opened though it may be kept.
    pub(super) fn open_anew(&self, node: &Arc<Node>) -> io::Result<Handle> {
        let how = node.at.lock().clone();
        let handle = match &how.parent {
            Some(parent) => open_child(self.source(&node.place()), &*self.handle(parent)?, &how.name, how.linked)?,
            None => self.place_handle(&node.place())?,
        };
        self.check(node, &handle)?;
        Ok(handle)
    }

    /// Sees whether a directory is the one whose attributes the kernel has, where those say who may look into it: under
    /// the same name there may be another by now, which somebody else must not be let into by what he was told before.
    fn check(&self, node: &Node, handle: &Handle) -> io::Result<()> {
        let known = node.dir().and_then(|dir| dir.identity);
        match known.map(|known| self.source(&node.place()).identity(handle).map(|identity| identity == known)) {
            Some(Ok(false)) => Err(stale()),
            Some(Err(error)) => Err(error),
            None | Some(Ok(true)) => Ok(()),
        }
    }

    /// What [`Self::check`] is to see of a directory with these attributes.
    fn identity(&self, stat: &Stat) -> Option<(u64, u64)> {
        self.options.allow_other.then_some((stat.dev, stat.ino))
    }

    /// The open directory that a leaf is in, and its name there.
    pub(super) fn whereabouts(&self, node: &Node) -> io::Result<(Arc<Handle>, At)> {
        let at = node.at.lock().clone();
        let parent = at.parent.as_ref().ok_or_else(stale)?;
        Ok((self.handle(parent)?, at))
    }

    pub(super) fn stat(&self, node: &Arc<Node>) -> io::Result<Stat> {
        match &node.kind {
            NodeKind::Dir(dir) => self.source(&dir.place).stat_dir(&*self.handle(node)?),
            NodeKind::Leaf(file) => {
                let (dir, at) = self.whereabouts(node)?;
                let stat = self.source(&node.place()).stat(&dir, &at.name, at.linked)?;
                // Another file has taken the name: whoever asks by name looks it up again.
                if Identity::of(&stat) == *file { Ok(stat) } else { Err(stale()) }
            }
        }
    }

    pub(super) fn attr(&self, node: &Arc<Node>, stat: &Stat) -> Attr {
        let mut attr = file_attr(node.ino, stat);
        if let Some(changed) = node.changed(stat.mtime) {
            attr.mtime = since_epoch(changed);
        }
        if stat.is_link()
            && let Ok(text) = self.shown_text(node)
        {
            attr.size = text.len() as u64;
        }
        if self.options.allow_other && node.dir().is_some() && node.at.lock().parent.is_none() {
            match self.handle(node) {
                Ok(handle) => {
                    // There are no other users' directories above objects.
                    if let Ok(handle) = handle.local() {
                        share::narrow(&mut attr, handle);
                    }
                }
                Err(_) => share::shut(&mut attr),
            }
        }
        attr
    }

    /// The node and attributes of an entry that a directory shows; counts as a lookup.
    pub(super) fn enter(
        &self,
        dir: &Arc<Node>,
        handle: &Handle,
        name: &[u8],
        shown: &Shown,
    ) -> io::Result<(Arc<Node>, Stat)> {
        let name = c_name(name);
        let stat = self.source(&dir.place()).stat(handle, &name, shown.is_linked())?;
        self.enter_as(dir, name, shown, &stat).map(|node| (node, stat))
    }

    /// The same where the attributes are known.
    pub(super) fn enter_as(&self, dir: &Arc<Node>, name: CString, shown: &Shown, stat: &Stat) -> io::Result<Arc<Node>> {
        let fits = match shown {
            // Through links there are other ways to what is not entered.
            Shown::Dir { .. } => stat.is_dir() && !self.live.options[dir.place().source].shut.is_device(stat.dev),
            Shown::File { .. } => stat.is_file(),
            Shown::Link => stat.is_link(),
            Shown::Special => !stat.is_dir() && !stat.is_link(),
        };
        if !fits {
            // It has become something else since it was listed.
            self.listings.remove(dir.ino);
            return Err(gone());
        }
        let at = At { parent: Some(Arc::clone(dir)), name, linked: shown.is_linked() };
        let node = match shown {
            Shown::Dir { content, .. } => self.remember_below(dir, at, content, self.identity(stat)),
            _ => self.remember_leaf(at, stat),
        };
        if node.was_listed() && self.depends_on_more_than_names(&node) {
            // What the kernel keeps of it is good for as long as the attributes that go with this answer say so.
            let _ = self.listing(&node, FRESH);
        }
        Ok(node)
    }

    fn remember_below(&self, above: &Arc<Node>, at: At, content: &Content, identity: Option<(u64, u64)>) -> Arc<Node> {
        let (place, behind_link) = match above.dir() {
            Some(dir) => (Arc::clone(&dir.place), dir.behind_link || at.linked),
            None => (above.place(), true),
        };
        let mut path = above.dir_path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(at.name.to_bytes());
        let number = inode::inside(place.ino, &path);
        self.remember_dir(&place, path, at, content, number, (behind_link, identity))
    }

    fn remember_leaf(&self, at: At, stat: &Stat) -> Arc<Node> {
        let file = Identity::of(stat);
        let same = |node: &Node| matches!(node.kind, NodeKind::Leaf(known) if known == file);
        let mut new = Some(at);
        let node = self.nodes.remember(self.nodes.number(&self.devices, &file), same, |number| Node {
            ino: number,
            at: Mutex::new(new.take().expect("made once")),
            kind: NodeKind::Leaf(file),
        });
        if let Some(at) = new {
            // Looked up by another name: the newest is the likeliest to be there still.
            *node.at.lock() = at;
        }
        node
    }

    fn remember_dir(
        &self,
        place: &Arc<Place>,
        path: Vec<u8>,
        at: At,
        content: &Content,
        number: u64,
        (behind_link, identity): (bool, Option<(u64, u64)>),
    ) -> Arc<Node> {
        // What has become a link, or is one no longer, is another directory.
        let same = |node: &Node| {
            node.dir().is_some_and(|dir| {
                dir.place.ino == place.ino
                    && *dir.path == *path
                    && (dir.behind_link, dir.identity) == (behind_link, identity)
            })
        };
        let node = self.nodes.remember(number, same, |number| Node {
            ino: number,
            at: Mutex::new(at.clone()),
            kind: NodeKind::Dir(Box::new(Dir {
                place: Arc::clone(place),
                path: path.clone().into(),
                content: Mutex::new(Arc::new(content.clone())),
                shown: Mutex::new(ShownState::default()),
                behind_link,
                identity,
                told: AtomicBool::new(false),
                dev: AtomicU64::new(0),
            })),
        });
        if let Some(dir) = node.dir() {
            let mut known = dir.content.lock();
            if **known != *content {
                *known = Arc::new(content.clone());
            }
        }
        node
    }

    /// What is shown of a match's own directory.
    fn place_content(&self, place: &Place) -> Content {
        let automaton = &self.live.automaton;
        let top = automaton.top(place.found.pattern);
        let whole = self.options.view == ViewMode::All || top.opaque || automaton.state(top.state).whole;
        if whole { Content::Whole } else { Content::States(vec![(top.state, place.found.captures.clone())]) }
    }

    /// The node of a match's own directory; counts as a lookup. Its generation is always 0: it stands for the match at
    /// this path, whatever directory is there; with `allow_other` another directory there has another number.
    pub(super) fn enter_place(&self, place: &Arc<Place>) -> io::Result<(Arc<Node>, Stat)> {
        let epoch = self.epochs.on_the_way(place.source, place.found.path.as_bytes());
        // Where attributes say who may look into it, they have to be those of the directory that is looked into.
        let opened = if self.options.allow_other { Some(Arc::new(self.place_handle(place)?)) } else { None };
        let stat = match &opened {
            Some(handle) => self.source(place).stat_dir(handle)?,
            None => match self.kept_handle(place.ino, epoch) {
                Some(handle) => self.source(place).stat_dir(&handle)?,
                None => self.stat_place(place)?,
            },
        };
        let at = At { parent: None, name: CString::default(), linked: false };
        let (path, content) = (place.found.path.as_bytes().to_vec(), self.place_content(place));
        let how = (self.options.follow, self.identity(&stat));
        let node = self.remember_dir(place, path, at, &content, place.ino, how);
        if let Some(handle) = opened {
            // By its own number: another directory that was here before may have the match's.
            self.keep_handle(node.ino, &handle, epoch);
        }
        Ok((node, stat))
    }

    /// A match shown as a link.
    pub(super) fn link_text(&self, place: &Place) -> Vec<u8> {
        self.live.sources[place.source].path_of(&place.found.path)
    }

    pub(super) fn link_attr(&self, place: &Place) -> Attr {
        let mut attr = folder_attr(place.ino, self.live.started, self.uid, self.gid);
        attr.mode = libc::S_IFLNK | 0o777;
        attr.size = self.link_text(place).len() as u64;
        attr
    }

    pub(super) fn place_by_ino(&self, ino: u64) -> Option<Arc<Place>> {
        self.live.view().places.get(ino).cloned()
    }

    /// True if what a directory shows can change without a change of the directory itself.
    pub(super) fn depends_on_more_than_names(&self, node: &Node) -> bool {
        node.dir().is_some_and(|dir| match &**dir.content.lock() {
            Content::Whole => false,
            Content::States(states) => states.iter().any(|(state, _)| self.live.automaton.looks_deeper(*state)),
        })
    }

    /// Attributes, and how long they are good.
    pub(super) fn do_getattr(&self, ino: u64, handle: Option<u64>) -> io::Result<(Attr, Duration)> {
        if let Some(Open::File { file, node, .. }) = handle.and_then(|handle| self.opened.get(handle)) {
            let stat = self.stat_open(&file, &node)?;
            return Ok((file_attr(node.ino, &stat), self.keep_attr(&node, &stat)));
        }
        match self.target(ino) {
            Ok(Target::Control(control)) => Ok((self.control_attr(&control), Duration::ZERO)),
            Ok(Target::Folder(folder)) => Ok((folder_attr(folder.ino, folder.changed, self.uid, self.gid), FOREVER)),
            Ok(Target::Node(node)) => match self.stat(&node) {
                Ok(stat) => {
                    let recent = || self.listings.get(node.ino, FOREVER).is_some_and(|listing| listing.recent);
                    if self.depends_on_more_than_names(&node) || recent() {
                        // The kernel asks whether what it keeps of the directory is still good.
                        let _ = self.listing(&node, FRESH);
                    }
                    Ok((self.attr(&node, &stat), self.keep_attr(&node, &stat)))
                }
                // Removed or replaced while open: what is open tells.
                Err(error) => match self.any_open(&node) {
                    Some(stat) => Ok((file_attr(node.ino, &stat), FRESH)),
                    None => Err(error),
                },
            },
            Err(error) if self.options.view == ViewMode::Link => {
                let place = self.place_by_ino(ino).ok_or(error)?;
                Ok((self.link_attr(&place), FOREVER))
            }
            Err(error) => Err(error),
        }
    }
}
