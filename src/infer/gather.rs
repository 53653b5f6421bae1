//! Examples read from a source, and the proof that a pattern matches what is really there.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use super::{Dir, Look};
use crate::automaton::{Automaton, CONTAINS_BYTES, Test};
use crate::config::NamedSource;
use crate::entry::{Kind, RelPath};
use crate::listing::{ListRules, Scratch, c_name, list};
use crate::matcher::bits::Bits;
use crate::matcher::{Own, Verdict};
use crate::reader::{LINK_BUDGET, NOT_ENTERED, Reader, Reading, Way};
use crate::source::{Handle, ListBuffer, RawKind, Source, open_steps};
use crate::walk::WalkOptions;

/// The most entries of all examples together; what lies deeper than it takes to stay below is not looked at.
pub const MAX_ENTRIES: usize = 1_000_000;
/// The most entries of the examples' own directories together.
pub const MAX_TOP_ENTRIES: usize = 4_000_000;

/// What could not be read.
#[derive(Debug)]
pub struct Unread {
    /// Which of the sources.
    pub source: usize,
    /// Where below it.
    pub path: RelPath,
    /// Why.
    pub error: io::Error,
}

/// Trees as they were gathered.
#[derive(Debug)]
pub struct Gathered {
    /// One for each source.
    pub dirs: Vec<Dir>,
    /// What could not be read, the sources' roots aside.
    pub unread: Vec<Unread>,
    /// Levels below the roots that were looked at, if deeper ones were not.
    pub cut_at: Option<usize>,
}

/// Reads trees level by level, all of them to the same depth: as deep as `depth`, and as long as there are no more than
/// `most` entries.
///
/// # Errors
/// If a root cannot be read, or there are too many entries in the roots.
pub fn gather(
    sources: &[NamedSource],
    options: &[WalkOptions],
    depth: usize,
    most: usize,
) -> Result<Gathered, (usize, io::Error)> {
    let mut dirs = Vec::new();
    let mut entries = 0;
    let mut unread = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let gatherer = Gatherer { source: &*source.source, options: &options[at], buffer: RefCell::default() };
        let root = gatherer.source.open_root().map_err(|error| (at, error))?;
        let mut dir = gatherer.list(&root, &source.root_name, &[]).map_err(|error| (at, error))?;
        entries += dir.entries();
        if entries > MAX_TOP_ENTRIES {
            let reason =
                format!("more than {MAX_TOP_ENTRIES} entries in the examples' own directories; give fewer of them");
            return Err((at, io::Error::other(reason)));
        }
        dir.open = false;
        dirs.push(dir);
    }
    for level in 1..depth {
        // Each level is read as a whole or not at all, so that all examples are known equally well.
        let mut next = dirs.clone();
        let mut added = 0;
        let mut failed = Vec::new();
        let mut deeper = false;
        for (at, source) in sources.iter().enumerate() {
            let gatherer = Gatherer { source: &*source.source, options: &options[at], buffer: RefCell::default() };
            let mut fill = Fill {
                gatherer: &gatherer,
                added: &mut added,
                room: most.saturating_sub(entries),
                deeper: &mut deeper,
                failed: &mut |path: &[u8], error| {
                    failed.push(Unread { source: at, path: RelPath::from_bytes(path), error });
                },
            };
            let root = gatherer.source.open_root().map_err(|error| (at, error))?;
            fill.level(&mut next[at], &root, &mut Vec::new(), level);
        }
        if added > most.saturating_sub(entries) {
            return Ok(Gathered { dirs, unread, cut_at: Some(level) });
        }
        entries += added;
        dirs = next;
        unread.extend(failed);
        if !deeper {
            return Ok(Gathered { dirs, unread, cut_at: None });
        }
    }
    let open = dirs.iter().any(|dir| !dir.is_known());
    Ok(Gathered { dirs, unread, cut_at: open.then_some(depth) })
}

struct Gatherer<'a> {
    source: &'a dyn Source,
    options: &'a WalkOptions,
    buffer: RefCell<ListBuffer>,
}

impl Gatherer<'_> {
    /// One directory with its children still open.
    fn list(&self, handle: &Handle, name: &[u8], path: &[u8]) -> io::Result<Dir> {
        let mut dir = Dir { name: name.into(), ..Dir::default() };
        let mut links = Vec::new();
        let here = || path.to_vec();
        self.source.list(handle, &mut self.buffer.borrow_mut(), &mut |name, raw, _| {
            let bytes = name.to_bytes();
            if !self.options.exclude.is_empty() && self.options.exclude.excludes(&here, bytes) {
                return;
            }
            match raw {
                RawKind::File => dir.files.push(bytes.into()),
                RawKind::Dir => dir.dirs.push(Dir { name: bytes.into(), open: true, ..Dir::default() }),
                RawKind::Link => links.push(name.to_owned()),
                RawKind::Special => {}
            }
        })?;
        for link in links {
            match self.source.link_kind(handle, &link) {
                Kind::LinkDir => {
                    dir.dirs.push(Dir { name: link.to_bytes().into(), open: true, ..Dir::default() });
                }
                _ => dir.files.push(link.to_bytes().into()),
            }
        }
        dir.files.sort_unstable();
        dir.dirs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(dir)
    }

    fn is_shut(&self, handle: &Handle, path: &[u8], name: &[u8]) -> bool {
        name == NOT_ENTERED
            || self.options.closes(path)
            || self.source.identity(handle).is_ok_and(|(device, _)| self.options.shut.is_device(device))
    }
}

/// One more level of one tree.
struct Fill<'a, 'g> {
    gatherer: &'a Gatherer<'g>,
    added: &'a mut usize,
    room: usize,
    deeper: &'a mut bool,
    failed: &'a mut dyn FnMut(&[u8], io::Error),
}

impl Fill<'_, '_> {
    /// Reads the directories that are `levels` below `dir`; links stay open.
    fn level(&mut self, dir: &mut Dir, handle: &Handle, path: &mut Vec<u8>, levels: usize) {
        for child in &mut dir.dirs {
            if *self.added > self.room || (levels > 1 && child.dirs.is_empty()) {
                continue;
            }
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&child.name);
            match self.gatherer.source.open_dir(handle, &c_name(&child.name)) {
                Ok(opened) if levels > 1 => self.level(child, &opened, path, levels - 1),
                Ok(opened) => self.read(child, &opened, path),
                // A link, which is not gone through.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {}
                Err(error) if levels == 1 => (self.failed)(path, error),
                Err(_) => {}
            }
            path.truncate(length);
        }
    }

    fn read(&mut self, child: &mut Dir, handle: &Handle, path: &[u8]) {
        if self.gatherer.is_shut(handle, path, &child.name) {
            // Not entered: empty to patterns.
            child.open = false;
            return;
        }
        match self.gatherer.list(handle, &child.name, path) {
            Ok(read) => {
                *self.added += read.entries();
                *self.deeper |= !read.dirs.is_empty();
                *child = read;
            }
            Err(error) => (self.failed)(path, error),
        }
    }
}

/// Files of a source, for what names do not tell.
#[derive(Debug)]
pub struct SourceLook(pub Arc<dyn Source>);

impl SourceLook {
    fn at<T>(&self, path: &[u8], ask: impl FnOnce(&Handle, &[u8]) -> Option<T>) -> Option<T> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let dir = open_steps(&*self.0, &RelPath::from_bytes(above), false, &mut |_| {}).ok()?;
        ask(&dir, name)
    }
}

impl Look for SourceLook {
    fn test(&self, path: &[u8], test: &Test) -> Option<bool> {
        self.at(path, |dir, name| self.0.test(dir, &c_name(name), test).ok())
    }

    fn size(&self, path: &[u8]) -> Option<u64> {
        let stat = self.at(path, |dir, name| self.0.stat(dir, &c_name(name), true).ok())?;
        stat.is_file().then_some(stat.size)
    }

    fn head(&self, path: &[u8]) -> Option<Vec<u8>> {
        let size = self.size(path)?;
        let file = self.at(path, |dir, name| self.0.open_file(dir, &c_name(name), true).ok())?;
        // Files of `/proc` and the like say that they are empty.
        let mut head = vec![0; usize::try_from(CONTAINS_BYTES.min(size.max(4096))).ok()?];
        let read = file.read_full(&mut head, 0).ok()?;
        head.truncate(read);
        Some(head)
    }
}

/// Judges the root of a source as it is now, reading only as deep as the patterns ask.
///
/// # Errors
/// If the root cannot be read.
pub fn judge_root(automaton: &Automaton, source: &NamedSource, options: &WalkOptions) -> io::Result<Verdict> {
    let handle = source.source.open_root()?;
    let mut scratch = Scratch::new(automaton);
    let rules = ListRules { exclude: &options.exclude, follow: false };
    let listed = list(automaton, &*source.source, &handle, &Vec::new, rules, &mut scratch)?;
    let globs = scratch.match_name(automaton, &source.root_name);
    let above = Bits::new(automaton.names.len());
    let own = Own { name: &source.root_name, globs: &globs, above: &above };
    let reader = Reader {
        automaton,
        source: &*source.source,
        rules,
        closed: &|path| options.closes(path),
        shut: &options.shut,
        entered: &|_| {},
        failed: &|_, _| {},
    };
    let mut wanted = Bits::new(automaton.states.len());
    automaton.tops.iter().for_each(|top| wanted.insert(top.state.index()));
    let mut reading = Reading { path: Vec::new(), through_link: false, budget: LINK_BUDGET, scratch: &mut scratch };
    Ok(reader.judge(&Way::new(&handle, &|_| false), &own, &listed, &wanted, &mut reading))
}
