//! From a source to an [`outline`](super::outline): what of a directory clauses could be about, and one level more.

use std::cell::RefCell;
use std::io;

use super::outline::{Content, Dir, Entry, File};
use crate::automaton::{Automaton, StateId};
use crate::entry::{Kind, RelPath};
use crate::listing::{ListRules, Scratch, c_name};
use crate::matcher::Own;
use crate::matcher::bits::Bits;
use crate::matcher::names::GlobId;
use crate::reader::{LINK_BUDGET, Opened, Reader, Reading, Target, Way, above_children};
use crate::scan::plain;
use crate::source::{Handle, RawKind, Source, open_steps};
use crate::walk::WalkOptions;

/// When less than this is left of the stack, in bytes, it grows; trees may be deep.
const STACK_LEFT: usize = 128 << 10;
const STACK_GROWTH: usize = 4 << 20;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries; of what is beyond, only the states are kept.
    pub entries: usize,
    /// Levels.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 50_000, depth: 200 }
    }
}

/// Where a directory is.
pub struct Place<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its path below the source is the reading's. What `forbidden_ancestors` sees above it.
    pub above: &'a Bits,
}

struct Loader<'a, 'r> {
    reader: &'a Reader<'r>,
    left: usize,
    depth: usize,
    /// What is at hand matters to the pattern as it is, and not only as what comes near.
    matters: bool,
}

/// Reads the directory that `way` stands for, as far as `wanted` asks.
pub fn load(
    reader: &Reader<'_>,
    way: &Way<'_>,
    handle: &Handle,
    place: &Place<'_>,
    wanted: &Bits,
    reading: &mut Reading<'_>,
    limits: Limits,
) -> Dir {
    let mut loader = Loader { reader, left: limits.entries, depth: limits.depth, matters: true };
    let globs = reading.scratch.match_name(reader.automaton, place.name);
    let own = Own { name: place.name, globs: &globs, above: place.above };
    let content = loader.content(way, handle, &own, wanted, reading);
    Dir { name: place.name.into(), linked: false, looped: false, content }
}

/// A directory that was read.
#[derive(Debug)]
pub struct Loaded {
    /// It.
    pub dir: Dir,
    /// The globs of `forbidden_ancestors` that directories above it match.
    pub above: Bits,
    /// What could not be read, by path below the source, and matters.
    pub troubles: Vec<(Vec<u8>, io::Error)>,
}

/// Reads the directory at `path` below a source whose root is called `root_name`, as far as patterns ask.
pub fn outline(
    automaton: &Automaton,
    source: &dyn Source,
    root_name: &[u8],
    path: &RelPath,
    options: &WalkOptions,
    limits: Limits,
) -> Loaded {
    let troubles = RefCell::new(Vec::new());
    let mut scratch = Scratch::new(automaton);
    let mut names = vec![root_name];
    names.extend(path.components());
    let name = names.pop().unwrap_or_default();
    let mut above = Bits::new(automaton.names.len());
    for name in names {
        let globs = scratch.match_name(automaton, name);
        above = above_children(automaton, &Own { name, globs: &globs, above: &above });
    }
    let mut identities = Vec::new();
    let opened = open_steps(source, path, true, &mut |handle| identities.extend(source.identity(handle)));
    let dir = match opened {
        Err(error) => {
            let reason = plain(&error);
            troubles.borrow_mut().push((path.as_bytes().to_vec(), error));
            Dir { content: Content::Unread(reason), ..Dir::empty(name) }
        }
        Ok(handle) => {
            let reader = Reader {
                automaton,
                source,
                rules: ListRules { exclude: &options.exclude, follow: options.follow },
                closed: &|path| options.closes(path),
                shut: &options.shut,
                entered: &|_| {},
                failed: &|path, error| troubles.borrow_mut().push((path.to_vec(), error)),
            };
            let is_below = |identity| identities.contains(&identity);
            let way = Way::new(&handle, &is_below);
            let mut wanted = Bits::new(automaton.states.len());
            automaton.tops.iter().for_each(|top| wanted.insert(top.state.index()));
            let mut reading = Reading {
                path: path.as_bytes().to_vec(),
                through_link: false,
                budget: LINK_BUDGET,
                scratch: &mut scratch,
            };
            load(&reader, &way, &handle, &Place { name, above: &above }, &wanted, &mut reading, limits)
        }
    };
    Loaded { dir, above, troubles: troubles.into_inner() }
}

/// An entry as it is listed.
struct Raw {
    name: Box<[u8]>,
    kind: RawKind,
    globs: Vec<GlobId>,
}

impl Loader<'_, '_> {
    fn content(
        &mut self,
        way: &Way<'_>,
        handle: &Handle,
        own: &Own<'_>,
        wanted: &Bits,
        reading: &mut Reading<'_>,
    ) -> Content {
        let raw = match self.list(handle, reading) {
            Ok(raw) => raw,
            Err(error) => return self.unread(error, reading),
        };
        let automaton = self.reader.automaton;
        let mut asked = Bits::new(automaton.states.len());
        wanted.iter().for_each(|state| automaton.asked_of_children(StateId(state as u32), &mut asked));
        let above = above_children(automaton, own);
        self.left = self.left.saturating_sub(raw.len());
        let mut entries = Vec::with_capacity(raw.len());
        for Raw { name, kind, globs } in raw {
            let kind = match kind {
                RawKind::File => Kind::File,
                RawKind::Dir => Kind::Dir,
                RawKind::Special => Kind::Special,
                RawKind::Link => self.reader.source.link_kind(handle, &c_name(&name)),
            };
            entries.push(match kind {
                Kind::Special => Entry::Special(name),
                Kind::File | Kind::LinkFile => Entry::File(self.file(handle, name, kind, &globs, reading)),
                Kind::Dir | Kind::LinkDir => {
                    let linked = kind == Kind::LinkDir;
                    let name = c_name(&name);
                    let target = Target { name: &name, linked, above: &above };
                    Entry::Dir(stacker::maybe_grow(STACK_LEFT, STACK_GROWTH, || {
                        self.child(way, &target, &asked, reading)
                    }))
                }
            });
        }
        Content::Read(entries)
    }

    fn list(&self, handle: &Handle, reading: &mut Reading<'_>) -> io::Result<Vec<Raw>> {
        let mut raw = Vec::new();
        let Reading { path, scratch, .. } = reading;
        let Scratch { cache, buffer, globs } = &mut **scratch;
        self.reader.source.list(handle, buffer, &mut |name, kind, _| {
            let name = name.to_bytes();
            if !self.reader.rules.exclude.excludes(&|| path.clone(), name) {
                self.reader.automaton.names.matches(cache, name, globs);
                raw.push(Raw { name: name.into(), kind, globs: globs.clone() });
            }
        })?;
        raw.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(raw)
    }

    fn unread(&self, error: io::Error, reading: &Reading<'_>) -> Content {
        let reason = plain(&error);
        if self.matters {
            (self.reader.failed)(&reading.path, error);
        }
        Content::Unread(reason)
    }

    fn file(&self, dir: &Handle, name: Box<[u8]>, kind: Kind, globs: &[GlobId], reading: &Reading<'_>) -> File {
        let (automaton, source) = (self.reader.automaton, self.reader.source);
        let mut file = File::named(&name);
        file.linked = kind == Kind::LinkFile;
        let tested = globs.iter().any(|glob| automaton.tested_globs.contains(glob.index()));
        if file.linked || tested {
            let stat = source.stat(dir, &c_name(&name), true);
            file.dangling = file.linked && stat.is_err();
            file.size = stat.ok().filter(|stat| stat.is_file()).map(|stat| stat.size);
        }
        if tested {
            let tests = automaton.tests.iter().zip(0..);
            file.tests = tests
                .map(|(test, id)| {
                    let passed = self.reader.probe(dir, &reading.path, &name, crate::automaton::TestId(id));
                    (test.clone(), passed)
                })
                .collect();
        }
        file
    }

    /// A child directory: as deep as `asked` asks, or its names alone where nothing is asked of it.
    fn child(&mut self, parent: &Way<'_>, target: &Target<'_>, asked: &Bits, reading: &mut Reading<'_>) -> Dir {
        let (length, through_link) = (reading.path.len(), reading.through_link);
        let name = target.name.to_bytes();
        let mut dir = Dir { name: name.into(), linked: target.linked, looped: false, content: Content::Closed };
        if self.left == 0 || self.depth == 0 {
            let summary = self.reader.child(parent, target, asked, reading).summary;
            dir.content = Content::States(Box::new(summary));
            return dir;
        }
        if length > 0 {
            reading.path.push(b'/');
        }
        reading.path.extend_from_slice(name);
        reading.through_link |= target.linked;
        let globs = reading.scratch.match_name(self.reader.automaton, name);
        let own = Own { name, globs: &globs, above: target.above };
        let matters = self.matters && !self.reader.automaton.possible(&own, asked).is_empty();
        let above = std::mem::replace(&mut self.matters, matters);
        self.depth -= 1;
        dir.content = self.enter(parent, target, &own, asked, &mut dir.looped, reading);
        self.depth += 1;
        self.matters = above;
        reading.path.truncate(length);
        reading.through_link = through_link;
        dir
    }

    fn enter(
        &mut self,
        parent: &Way<'_>,
        target: &Target<'_>,
        own: &Own<'_>,
        asked: &Bits,
        looped: &mut bool,
        reading: &mut Reading<'_>,
    ) -> Content {
        let mut wanted = asked.clone();
        let handle = match self.reader.open(parent, target, &mut wanted, reading) {
            Opened::Open(handle) => handle,
            Opened::Closed => return Content::Closed,
            Opened::Unread(error) => return self.unread(error, reading),
        };
        *looped = wanted != *asked;
        if wanted.is_empty() {
            return self.names(&handle, reading);
        }
        self.content(&parent.down(&handle), &handle, own, &wanted, reading)
    }

    /// The names in a directory that no clause asks for: the right one may be among them.
    fn names(&mut self, handle: &Handle, reading: &mut Reading<'_>) -> Content {
        let Ok(raw) = self.list(handle, reading) else { return Content::Closed };
        self.left = self.left.saturating_sub(raw.len());
        let entries = raw.into_iter().map(|Raw { name, kind, .. }| match kind {
            RawKind::File | RawKind::Link => Entry::File(File::named(&name)),
            RawKind::Dir => Entry::Dir(Dir { content: Content::Closed, ..Dir::empty(&name) }),
            RawKind::Special => Entry::Special(name),
        });
        Content::Names(entries.collect())
    }
}
