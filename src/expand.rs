//! What a match shows in one of its directories: source × state → entries.

use std::ffi::CStr;
use std::io;

use smallvec::SmallVec;

use crate::automaton::{Atom, Automaton, StateId};
use crate::entry::Kind;
use crate::listing::{Dirs, Listed, Scratch, c_name};
use crate::matcher::bits::Bits;
use crate::matcher::mapping::Mapping;
use crate::matcher::names::GlobId;
use crate::matcher::{Files, Offer, Own, Probe, Summary};
use crate::reader::{LINK_BUDGET, Reader, Reading, Way};
use crate::source::{Handle, RawKind, Stat};

/// What is shown of a directory.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Content {
    /// Everything.
    Whole,
    /// What these states describe, with the values that captures have above.
    States(Vec<(StateId, Mapping)>),
}

/// How symbolic links inside a match are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// As what they lead to; those that dangle, and those to a directory on the way to them, as links
    #[default]
    Follow,
    /// As links whose text leads to the same place
    Keep,
    /// Not at all
    Skip,
}

/// An entry that is shown.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Shown {
    /// A directory; `linked` if it is behind a link.
    Dir {
        /// What is shown of it.
        content: Content,
        /// It is the target of a link of this name.
        linked: bool,
    },
    /// A file.
    File {
        /// It is the target of a link of this name.
        linked: bool,
        /// Its inode number as the directory has it; 0 for what a link leads to.
        ino: u64,
    },
    /// A link, shown as such.
    Link,
    /// FIFO, socket or device.
    Special,
}

impl Shown {
    /// True for what a link leads to.
    pub fn is_linked(&self) -> bool {
        matches!(self, Shown::Dir { linked: true, .. } | Shown::File { linked: true, .. })
    }

    /// The kind, in terms of a file's mode (`S_IFDIR` and so on); of a special file it is not known.
    pub fn kind(&self) -> Option<u32> {
        match self {
            Shown::Dir { .. } => Some(libc::S_IFDIR),
            Shown::File { .. } => Some(libc::S_IFREG),
            Shown::Link => Some(libc::S_IFLNK),
            Shown::Special => None,
        }
    }
}

/// A directory to be shown.
pub struct Directory<'a> {
    /// Its name and what is above it.
    pub own: Own<'a>,
    /// It, opened.
    pub handle: &'a Handle,
    /// The path below the source.
    pub path: &'a [u8],
    /// True if a directory of this device and inode is on the way to it from the source's root; asked only where links
    /// are met.
    pub is_below: &'a dyn Fn((u64, u64)) -> bool,
}

/// All entries that `content` shows in a directory; none in one that is not entered.
///
/// # Errors
/// If it cannot be read.
pub fn expand(
    reader: &Reader<'_>,
    directory: &Directory<'_>,
    content: &Content,
    symlinks: Symlinks,
    scratch: &mut Scratch,
) -> io::Result<Vec<(Box<[u8]>, Shown)>> {
    if !directory.path.is_empty() && reader.closes(directory.path, directory.own.name) {
        return Ok(Vec::new());
    }
    let entries = read(reader, directory, matches!(content, Content::States(_)), scratch)?;
    let way = Way::new(directory.handle, directory.is_below);
    Ok(match content {
        Content::Whole => whole(reader, &way, directory, entries, symlinks),
        Content::States(states) => described(reader, &way, directory, entries, states, symlinks, scratch),
    })
}

/// What a directory of which everything is shown shows under one name, and the attributes of what has that name (of a
/// link itself); `None` if nothing. No other entry is looked at.
///
/// # Errors
/// If it cannot be looked at.
pub fn whole_entry(
    reader: &Reader<'_>,
    directory: &Directory<'_>,
    name: &CStr,
    symlinks: Symlinks,
) -> io::Result<Option<(Shown, Stat)>> {
    let bytes = name.to_bytes();
    // What is mounted on one's own mount point is not asked: this thread may be the one that would answer.
    if !directory.path.is_empty() && reader.closes(directory.path, directory.own.name)
        || reader.rules.exclude.excludes(&|| directory.path.to_vec(), bytes)
        || reader.shut.is_point(reader.source, directory.handle, bytes)
    {
        return Ok(None);
    }
    let stat = match reader.source.stat(directory.handle, name, false) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let shown = if stat.is_file() {
        Some(Shown::File { linked: false, ino: stat.ino })
    } else if stat.is_dir() {
        Some(Shown::Dir { content: Content::Whole, linked: false })
    } else if stat.is_link() {
        let way = Way::new(directory.handle, directory.is_below);
        link(reader, &way, directory.handle, bytes, Some(Content::Whole), symlinks)
    } else {
        Some(Shown::Special)
    };
    Ok(shown.map(|shown| (shown, stat)))
}

struct Raw {
    name: Box<[u8]>,
    raw: RawKind,
    ino: u64,
    kind: Kind,
    globs: SmallVec<[GlobId; 4]>,
}

fn read(reader: &Reader<'_>, directory: &Directory<'_>, matched: bool, scratch: &mut Scratch) -> io::Result<Vec<Raw>> {
    let mut entries = Vec::new();
    let Scratch { cache, buffer, globs } = scratch;
    reader.source.list(directory.handle, buffer, &mut |name, raw, ino| {
        let bytes = name.to_bytes();
        if reader.rules.exclude.excludes(&|| directory.path.to_vec(), bytes) {
            return;
        }
        // One's own mount point is not shown: whoever looks into it is led on without end.
        if raw == RawKind::Dir && reader.shut.is_point(reader.source, directory.handle, bytes) {
            return;
        }
        let kind = match raw {
            RawKind::File => Kind::File,
            RawKind::Dir => Kind::Dir,
            RawKind::Link => reader.source.link_kind(directory.handle, name),
            RawKind::Special => Kind::Special,
        };
        globs.clear();
        if matched {
            reader.automaton.names.matches(cache, bytes, globs);
        }
        entries.push(Raw { name: bytes.into(), raw, ino, kind, globs: SmallVec::from_slice(globs) });
    })?;
    Ok(entries)
}

/// How a link is shown, if at all; `content` is what a directory behind it would show.
pub(crate) fn link(
    reader: &Reader<'_>,
    way: &Way<'_>,
    directory: &Handle,
    name: &[u8],
    content: Option<Content>,
    symlinks: Symlinks,
) -> Option<Shown> {
    match symlinks {
        Symlinks::Skip => None,
        Symlinks::Keep => Some(Shown::Link),
        Symlinks::Follow => {
            let Ok(stat) = reader.source.stat(directory, &c_name(name), true) else { return Some(Shown::Link) };
            if stat.is_file() {
                return Some(Shown::File { linked: true, ino: 0 });
            }
            if !stat.is_dir() || reader.shut.is_device(stat.dev) || way.holds(reader.source, (stat.dev, stat.ino)) {
                return Some(Shown::Link);
            }
            content.map(|content| Shown::Dir { content, linked: true })
        }
    }
}

fn whole(
    reader: &Reader<'_>,
    way: &Way<'_>,
    directory: &Directory<'_>,
    entries: Vec<Raw>,
    symlinks: Symlinks,
) -> Vec<(Box<[u8]>, Shown)> {
    let shown = entries.into_iter().filter_map(|entry| {
        let shown = match entry.raw {
            RawKind::File => Shown::File { linked: false, ino: entry.ino },
            RawKind::Special => Shown::Special,
            RawKind::Dir => Shown::Dir { content: Content::Whole, linked: false },
            RawKind::Link => link(reader, way, directory.handle, &entry.name, Some(Content::Whole), symlinks)?,
        };
        Some((entry.name, shown))
    });
    shown.collect()
}

fn described(
    reader: &Reader<'_>,
    way: &Way<'_>,
    directory: &Directory<'_>,
    entries: Vec<Raw>,
    states: &[(StateId, Mapping)],
    symlinks: Symlinks,
    scratch: &mut Scratch,
) -> Vec<(Box<[u8]>, Shown)> {
    let automaton = reader.automaton;
    let mut listed = Listed { files: Files::new(automaton), dirs: Dirs::default(), entries: 0 };
    let (mut children, mut files) = (Vec::new(), Vec::new());
    for entry in entries {
        if entry.kind.is_file() {
            listed.files.add(automaton, &entry.name, &entry.globs);
            files.push(entry);
        } else if entry.kind.is_dir() {
            listed.dirs.push(&c_name(&entry.name), entry.raw == RawKind::Link, &entry.globs);
            children.push(entry);
        }
    }
    let mut wanted = Bits::new(automaton.states.len());
    states.iter().for_each(|(state, _)| wanted.insert(state.index()));
    let mut summaries: Vec<Option<Summary>> = vec![None; children.len()];
    let mut reading = Reading { path: directory.path.to_vec(), through_link: false, budget: LINK_BUDGET, scratch };
    let kids = reader.kids(
        way,
        &directory.own,
        &listed,
        &wanted,
        &mut reading,
        Some(&mut |at, summary: &Summary| {
            summaries[at] = Some(summary.clone());
        }),
    );
    let probe = |name: &[u8], test| reader.probe(directory.handle, directory.path, name, test);
    let offer = Offer { own: &directory.own, files: &listed.files, kids: &kids, probe: &probe, unread: false };

    let rules = rules(automaton, states, &offer);
    let mut shown = Vec::new();
    for entry in files {
        if rules.shows_file(automaton, &entry.name, &entry.globs, &probe) {
            let how = match entry.raw {
                RawKind::Link => link(reader, way, directory.handle, &entry.name, None, symlinks),
                _ => Some(Shown::File { linked: false, ino: entry.ino }),
            };
            shown.extend(how.map(|how| (entry.name, how)));
        }
    }
    for (entry, summary) in children.into_iter().zip(summaries) {
        let Some(content) = summary.and_then(|summary| rules.child(automaton, &summary)) else { continue };
        let how = match entry.raw {
            RawKind::Link => link(reader, way, directory.handle, &entry.name, Some(content), symlinks),
            _ => Some(Shown::Dir { content, linked: false }),
        };
        shown.extend(how.map(|how| (entry.name, how)));
    }
    shown
}

/// What states say of the entries of one directory: for each, the values of captures, and what is shown with them.
pub(crate) struct Rules<'a>(Vec<(Mapping, Vec<&'a Atom>)>);

/// What `states` show in a directory that offers this.
pub(crate) fn rules<'a>(automaton: &'a Automaton, states: &[(StateId, Mapping)], offer: &Offer<'_>) -> Rules<'a> {
    let entered = states
        .iter()
        .flat_map(|(state, given)| automaton.entered(*state, given, offer).into_iter().map(|ways| (*state, ways)));
    let rules = entered.map(|(state, captures)| {
        let atoms = automaton.shown_atoms(state, &captures, offer);
        (captures, atoms)
    });
    Rules(rules.collect())
}

impl Rules<'_> {
    /// True if a file of this name, which matches `globs`, is shown.
    pub(crate) fn shows_file(&self, automaton: &Automaton, name: &[u8], globs: &[GlobId], probe: Probe<'_>) -> bool {
        self.0
            .iter()
            .any(|(captures, atoms)| atoms.iter().any(|atom| automaton.shows_file(atom, captures, name, globs, probe)))
    }

    /// What is shown of a child directory with these states; `None` if it is not shown.
    pub(crate) fn child(&self, automaton: &Automaton, summary: &Summary) -> Option<Content> {
        let mut states: Vec<(StateId, Mapping)> = Vec::new();
        for (captures, atoms) in &self.0 {
            for atom in atoms {
                if let Atom::Child(state) = atom
                    && automaton.shows_child(*state, captures, summary)
                {
                    if automaton.state(*state).whole {
                        return Some(Content::Whole);
                    }
                    let entered = (*state, captures.clone());
                    if !states.contains(&entered) {
                        states.push(entered);
                    }
                }
            }
        }
        (!states.is_empty()).then_some(Content::States(states))
    }
}
