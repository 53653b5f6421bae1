//! Directories on the way to a match and inside it, opened one below the other, as commands go through them.

use std::io;
use std::sync::Arc;

use crate::automaton::Automaton;
use crate::entry::RelPath;
use crate::expand::{Content, Directory, Shown, Symlinks, expand};
use crate::listing::{Scratch, c_name};
use crate::matcher::Own;
use crate::matcher::bits::Bits;
use crate::reader::{Reader, above_children};
use crate::source::{Handle, Source};
use crate::walk::Found;

/// A directory's name, and what judging needs of those above it.
#[derive(Clone, Debug)]
pub struct Name {
    /// The name.
    pub name: Box<[u8]>,
    /// The globs that it matches.
    pub globs: Bits,
    /// What `forbidden_ancestors` sees above it.
    pub above: Bits,
}

impl Name {
    /// That of a source's root.
    pub fn root(automaton: &Automaton, name: &[u8], scratch: &mut Scratch) -> Self {
        let globs = scratch.match_name(automaton, name);
        Self { name: name.into(), globs, above: Bits::new(automaton.names.len()) }
    }

    /// That of an entry of this directory.
    pub fn child(&self, automaton: &Automaton, name: &[u8], scratch: &mut Scratch) -> Self {
        let above = above_children(automaton, &self.own());
        Self { name: name.into(), globs: scratch.match_name(automaton, name), above }
    }

    /// As the matcher takes it.
    pub fn own(&self) -> Own<'_> {
        Own { name: &self.name, globs: &self.globs, above: &self.above }
    }
}

/// A directory that is open, as long as this lives.
#[derive(Debug)]
pub struct Dir {
    /// Itself.
    pub handle: Handle,
    /// Its path below the source.
    pub path: RelPath,
    /// Its name.
    pub name: Name,
    /// The nearest directory above it that is open.
    pub parent: Option<Arc<Dir>>,
}

impl Dir {
    /// A source's root.
    ///
    /// # Errors
    /// Those of the source.
    pub fn root(reader: &Reader<'_>, name: &[u8], scratch: &mut Scratch) -> io::Result<Arc<Self>> {
        let handle = reader.source.open_root()?;
        let name = Name::root(reader.automaton, name, scratch);
        Ok(Arc::new(Self { handle, path: RelPath::root(), name, parent: None }))
    }

    /// A directory in this one, behind a link if `linked`.
    ///
    /// # Errors
    /// Those of the source.
    pub fn child(
        self: &Arc<Self>,
        reader: &Reader<'_>,
        name: &[u8],
        linked: bool,
        scratch: &mut Scratch,
    ) -> io::Result<Arc<Self>> {
        let c_name = c_name(name);
        let handle = if linked {
            reader.source.open_link(&self.handle, &c_name)
        } else {
            reader.source.open_dir(&self.handle, &c_name)
        }?;
        let path = self.path.join(name);
        let name = self.name.child(reader.automaton, name, scratch);
        Ok(Arc::new(Self { handle, path, name, parent: Some(Arc::clone(self)) }))
    }

    /// The directory at `path` below this one, through links only if `follow`.
    ///
    /// # Errors
    /// Those of the source.
    pub fn descend(
        self: &Arc<Self>,
        reader: &Reader<'_>,
        path: &RelPath,
        follow: bool,
        scratch: &mut Scratch,
    ) -> io::Result<Arc<Self>> {
        let mut at = Arc::clone(self);
        for name in path.components() {
            at = match at.child(reader, name, false, scratch) {
                Err(_) if follow => at.child(reader, name, true, scratch)?,
                child => child?,
            };
        }
        Ok(at)
    }

    /// What `content` shows in it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn show(
        &self,
        reader: &Reader<'_>,
        content: &Content,
        symlinks: Symlinks,
        scratch: &mut Scratch,
    ) -> io::Result<Vec<(Box<[u8]>, Shown)>> {
        let directory = Directory {
            own: self.name.own(),
            handle: &self.handle,
            path: self.path.as_bytes(),
            is_below: &|wanted| self.is_below(reader.source, wanted),
        };
        expand(reader, &directory, content, symlinks, scratch)
    }

    /// True if a directory of this device and inode is above it.
    pub fn is_below(&self, source: &dyn Source, wanted: (u64, u64)) -> bool {
        let mut at = self.parent.as_ref();
        while let Some(dir) = at {
            if source.identity(&dir.handle).is_ok_and(|identity| identity == wanted) {
                return true;
            }
            at = dir.parent.as_ref();
        }
        false
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Not one within the other: trees may be deeper than the stack.
        let mut parent = self.parent.take();
        while let Some(mut dir) = parent.and_then(Arc::into_inner) {
            parent = dir.parent.take();
        }
    }
}

/// What is shown of a match's own directory.
pub fn content_of(automaton: &Automaton, found: &Found) -> Content {
    let top = automaton.top(found.pattern);
    let whole = top.opaque || automaton.state(top.state).whole;
    if whole { Content::Whole } else { Content::States(vec![(top.state, found.captures.clone())]) }
}
