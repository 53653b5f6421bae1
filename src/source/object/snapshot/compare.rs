//! What is different between two snapshots of one location.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use super::{Cursor, Snapshot};

/// One difference; keys are as in the snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Difference {
    /// An entry of a directory came or went; `dir` is its path, empty for the root. Of a directory that came or went
    /// this is all that is said.
    Entry {
        /// The directory that it is in.
        dir: Box<[u8]>,
        /// Its name there.
        name: Box<[u8]>,
        /// True for a directory.
        is_dir: bool,
    },
    /// An object is another one.
    Content {
        /// The directory that it is in.
        dir: Box<[u8]>,
        /// Its name there.
        name: Box<[u8]>,
    },
}

/// Says all that is different, or `None` if that is more than `most`.
///
/// # Errors
/// Those of the file system, or of damaged snapshots.
pub fn compare(old: &Arc<Snapshot>, new: &Arc<Snapshot>, most: usize) -> io::Result<Option<Vec<Difference>>> {
    let (mut before, mut now) = (old.seek(b"")?, new.seek(b"")?);
    let mut found = Vec::new();
    loop {
        if found.len() > most {
            return Ok(None);
        }
        let order = match (before.key(), now.key()) {
            (None, None) => return Ok(Some(found)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(now)) => before.cmp(now),
        };
        match order {
            Ordering::Less => one_sided(&mut before, new, &mut found)?,
            Ordering::Greater => one_sided(&mut now, old, &mut found)?,
            Ordering::Equal => {
                if before.meta()? != now.meta()? && !now.key().is_some_and(|key| key.ends_with(b"/")) {
                    let (dir, name) = split(now.key().expect("both have one"));
                    found.push(Difference::Content { dir: dir.into(), name: name.into() });
                }
                before.advance()?;
                now.advance()?;
            }
        }
    }
}

/// Notes the key of a cursor that the other snapshot does not have, and moves on: past all in a directory that the other
/// does not have either.
fn one_sided(cursor: &mut Cursor, other: &Arc<Snapshot>, found: &mut Vec<Difference>) -> io::Result<()> {
    let key = cursor.key().expect("it has one").to_vec();
    // The outermost directory that is on this side alone.
    for end in key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end) {
        if !other.has_prefix(&key[..=end])? {
            let (dir, name) = split(&key[..end]);
            found.push(Difference::Entry { dir: dir.into(), name: name.into(), is_dir: true });
            return cursor.seek(&after(&key[..=end]));
        }
    }
    // A marker in a directory that both have changes nothing.
    if !key.ends_with(b"/") {
        let (dir, name) = split(&key);
        found.push(Difference::Entry { dir: dir.into(), name: name.into(), is_dir: false });
    }
    cursor.advance()
}

/// Directory and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The first key after all that begin with `dir`, which ends with a slash.
pub(in crate::source::object) fn after(dir: &[u8]) -> Vec<u8> {
    let mut key = dir.to_vec();
    if let Some(last) = key.last_mut() {
        *last = b'/' + 1;
    }
    key
}
