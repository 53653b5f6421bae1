//! One directory's entries, matched against all globs as they are read.

use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::automaton::Automaton;
use crate::entry::Kind;
use crate::matcher::Files;
use crate::matcher::bits::Bits;
use crate::matcher::names::{GlobId, NameCache};
use crate::source::{Handle, ListBuffer, RawKind, Source};

pub mod stored;

/// Names that a walk leaves out: a glob without `/` is held against names, one with `/` against paths below the
/// source, where `**` crosses directories.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    names: GlobSet,
    paths: GlobSet,
    given: Vec<String>,
}

impl Exclude {
    /// Compiles globs of globset's syntax.
    ///
    /// # Errors
    /// The first glob that is wrong, and why.
    pub fn new(globs: &[String]) -> Result<Self, globset::Error> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for glob in globs {
            let trimmed = glob.trim_end_matches('/');
            let compiled = GlobBuilder::new(trimmed.trim_start_matches('/')).literal_separator(true).build()?;
            if trimmed.contains('/') {
                paths.add(compiled)
            } else {
                names.add(compiled)
            };
        }
        Ok(Self { names: names.build()?, paths: paths.build()?, given: globs.to_vec() })
    }

    /// The globs as they were given.
    pub fn given(&self) -> &[String] {
        &self.given
    }

    /// True if nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty()
    }

    /// True if the entry `name` of the directory at `path` is left out.
    pub fn excludes(&self, path: &dyn Fn() -> Vec<u8>, name: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let of = |bytes: &[u8]| std::path::PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
        if !self.names.is_empty() && self.names.is_match(of(name)) {
            return true;
        }
        if self.paths.is_empty() {
            return false;
        }
        let mut whole = path();
        if !whole.is_empty() {
            whole.push(b'/');
        }
        whole.extend_from_slice(name);
        self.paths.is_match(of(&whole))
    }
}

/// What one thread reuses from directory to directory.
#[derive(Debug)]
pub struct Scratch {
    /// For the names' automaton.
    pub cache: NameCache,
    /// For directory entries.
    pub buffer: ListBuffer,
    /// Globs that the name at hand matches.
    pub globs: Vec<GlobId>,
}

impl Scratch {
    /// For one thread.
    pub fn new(automaton: &Automaton) -> Self {
        Self { cache: automaton.names.cache(), buffer: ListBuffer::default(), globs: Vec::new() }
    }

    /// The globs that `name` matches, as a set.
    pub fn match_name(&mut self, automaton: &Automaton, name: &[u8]) -> Bits {
        automaton.names.matches(&mut self.cache, name, &mut self.globs);
        let mut bits = Bits::new(automaton.names.len());
        self.globs.iter().for_each(|glob| bits.insert(glob.index()));
        bits
    }
}

/// Scratch space kept for any number of threads.
#[derive(Debug)]
pub struct ScratchPool {
    automaton: Arc<Automaton>,
    free: parking_lot::Mutex<Vec<Scratch>>,
}

impl ScratchPool {
    /// An empty pool.
    pub fn new(automaton: Arc<Automaton>) -> Self {
        Self { automaton, free: parking_lot::Mutex::default() }
    }

    /// Calls `work` with scratch space of its own.
    pub fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let mut scratch = self.free.lock().pop().unwrap_or_else(|| Scratch::new(&self.automaton));
        let result = work(&mut scratch);
        self.free.lock().push(scratch);
        result
    }
}

/// Child directories: names with a closing NUL in one buffer, and what is known of each.
#[derive(Debug, Default)]
pub struct Dirs {
    names: Vec<u8>,
    globs: Vec<GlobId>,
    entries: Vec<DirEntry>,
}

#[derive(Clone, Copy, Debug)]
struct DirEntry {
    name: u32,
    globs: u32,
    linked: bool,
}

impl Dirs {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of a child.
    pub fn name(&self, at: usize) -> &CStr {
        CStr::from_bytes_until_nul(&self.names[self.entries[at].name as usize..]).unwrap_or_default()
    }

    /// True if the child is a link.
    pub fn linked(&self, at: usize) -> bool {
        self.entries[at].linked
    }

    /// The globs that the child's name matches.
    pub fn globs(&self, at: usize) -> &[GlobId] {
        let from = self.entries[at].globs as usize;
        let to = self.entries.get(at + 1).map_or(self.globs.len(), |next| next.globs as usize);
        &self.globs[from..to]
    }

    /// Adds a child.
    pub fn push(&mut self, name: &CStr, linked: bool, globs: &[GlobId]) {
        // A directory's names stay far below 4 GiB: a name takes 255 bytes at most.
        self.entries.push(DirEntry { name: self.names.len() as u32, globs: self.globs.len() as u32, linked });
        self.names.extend_from_slice(name.to_bytes_with_nul());
        self.globs.extend_from_slice(globs);
    }
}

/// What one listing yields.
#[derive(Debug)]
pub struct Listed {
    /// The files, as far as patterns ask.
    pub files: Files,
    /// The child directories, links to directories included where a pattern could ask for them.
    pub dirs: Dirs,
    /// All entries.
    pub entries: u64,
}

/// How a listing is read.
#[derive(Clone, Copy)]
pub struct ListRules<'a> {
    /// What is left out.
    pub exclude: &'a Exclude,
    /// Links to directories are walked, so that all of them are wanted.
    pub follow: bool,
}

/// Reads a directory. `path` yields its path below the source, asked only where something is excluded by path.
///
/// # Errors
/// Those of the source.
pub fn list(
    automaton: &Automaton,
    source: &dyn Source,
    dir: &Handle,
    path: &dyn Fn() -> Vec<u8>,
    rules: ListRules<'_>,
    scratch: &mut Scratch,
) -> io::Result<Listed> {
    list_and_keep(automaton, source, dir, path, rules, scratch, None)
}

/// Reads a directory as [`list`] does, and keeps what does not depend on the patterns in `kept`.
///
/// # Errors
/// Those of the source.
pub fn list_and_keep(
    automaton: &Automaton,
    source: &dyn Source,
    dir: &Handle,
    path: &dyn Fn() -> Vec<u8>,
    rules: ListRules<'_>,
    scratch: &mut Scratch,
    mut kept: Option<&mut stored::Kept>,
) -> io::Result<Listed> {
    let mut listed = Listed { files: Files::new(automaton), dirs: Dirs::default(), entries: 0 };
    let Scratch { cache, buffer, globs } = scratch;
    let excluding = !rules.exclude.is_empty();
    source.list(dir, buffer, &mut |name, raw, _| {
        let bytes = name.to_bytes();
        if excluding && rules.exclude.excludes(path, bytes) {
            return;
        }
        listed.entries += 1;
        if let Some(kept) = &mut kept {
            kept.add(bytes, raw);
        }
        if raw == RawKind::Special {
            return;
        }
        automaton.names.matches(cache, bytes, globs);
        match raw {
            RawKind::Dir => listed.dirs.push(name, false, globs),
            RawKind::File => listed.files.add(automaton, bytes, globs),
            RawKind::Link => {
                // A stat each, so only where what the link leads to makes a difference.
                let asked = Asked::of(automaton, rules.follow, globs);
                if asked.as_file || asked.as_dir {
                    if let Some(kept) = &mut kept {
                        kept.asked(bytes);
                    }
                    match source.link_kind(dir, name) {
                        Kind::LinkDir if asked.as_dir => listed.dirs.push(name, true, globs),
                        Kind::LinkDir => {}
                        _ => listed.files.add(automaton, bytes, globs),
                    }
                }
            }
            RawKind::Special => {}
        }
    })?;
    Ok(listed)
}

/// What patterns ask of a link.
pub(crate) struct Asked {
    pub(crate) as_file: bool,
    pub(crate) as_dir: bool,
}

impl Asked {
    /// Of a link whose name matches `globs`.
    pub(crate) fn of(automaton: &Automaton, follow: bool, globs: &[GlobId]) -> Self {
        let any = |of: &Bits| globs.iter().any(|glob| of.contains(glob.index()));
        Self {
            as_file: automaton.any_file || any(&automaton.file_globs),
            as_dir: follow || automaton.any_dir || any(&automaton.dir_globs),
        }
    }
}

/// A name from a listing for the source's calls.
pub fn c_name(name: &[u8]) -> CString {
    CString::new(name).unwrap_or_default()
}
