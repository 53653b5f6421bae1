//! Keys to paths: which can be shown, and what becomes of the others.
//!
//! A key is any text (S3) of up to 1,024 bytes. As a path it stands for a file in directories; one that ends with a slash
//! stands for the directory alone, whatever its size. Of a file and a directory of one name the directory is shown.

use parking_lot::Mutex;

use super::snapshot::{Meta, Run};
use crate::source::LeftOut;

/// So many of those left out are named.
const NAMED: usize = 100;
/// The longest name (`NAME_MAX`, `linux/limits.h`).
const NAME_BYTES: usize = 255;
/// The longest path (`PATH_MAX`, less its end).
const PATH_BYTES: usize = 4095;

/// What cannot be shown.
#[derive(Debug, Default)]
pub(super) struct Left {
    inner: Mutex<(u64, Vec<LeftOut>)>,
}

impl Left {
    fn note(&self, key: &[u8], reason: &'static str) {
        let mut inner = self.inner.lock();
        inner.0 += 1;
        if inner.1.len() < NAMED {
            inner.1.push(LeftOut { key: key.into(), reason: reason.into() });
        }
    }

    /// Forgets all of them, as all is listed again.
    pub(super) fn clear(&self) {
        *self.inner.lock() = Default::default();
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.inner.lock().0
    }

    /// The first of them.
    pub(super) fn named(&self) -> Vec<LeftOut> {
        self.inner.lock().1.clone()
    }
}

/// Why a key below the prefix cannot be shown, if so.
pub(super) fn fault(key: &[u8]) -> Option<&'static str> {
    let path = key.strip_suffix(b"/").unwrap_or(key);
    if path.is_empty() {
        // The prefix itself, as a directory.
        return (!key.is_empty()).then_some("an empty name");
    }
    if path.contains(&0) {
        return Some("a NUL in its name");
    }
    if path.len() > PATH_BYTES {
        return Some("a path of more than 4095 bytes");
    }
    path.split(|byte| *byte == b'/').find_map(|name| match name {
        b"" => Some("an empty name between slashes"),
        b"." | b".." => Some("a name that stands for a directory above"),
        name if name.len() > NAME_BYTES => Some("a name of more than 255 bytes"),
        _ => None,
    })
}

/// Whether a directory is left out, by its path.
pub type Excluded = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// What of a tree is wanted.
#[derive(Default)]
pub struct Scope {
    /// How many levels below the root.
    pub max_depth: Option<usize>,
    /// Which directories are not, by their paths.
    pub excluded: Option<Excluded>,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("max_depth", &self.max_depth).finish_non_exhaustive()
    }
}

impl Scope {
    /// The outermost directory that a key is in of which no more than its name is wanted: too deep, or excluded.
    pub(super) fn shuts<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        let ends = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for (level, end) in ends.enumerate() {
            let dir = &key[..end];
            let deep = self.max_depth.is_some_and(|most| level + 1 >= most) && end + 1 < key.len();
            if deep || self.excluded.as_ref().is_some_and(|excluded| excluded(dir)) {
                return Some(dir);
            }
        }
        None
    }
}

/// Takes keys in rising order, and writes down those that can be shown.
pub(super) struct Sink<'a> {
    run: Run<'a>,
    left: &'a Left,
    scope: &'a Scope,
    last: Vec<u8>,
    any: bool,
    /// Files with whose names later keys begin: there may be a directory of that name further on.
    waiting: Vec<Vec<u8>>,
    shut: Vec<u8>,
    pub(super) objects: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(run: Run<'a>, left: &'a Left, scope: &'a Scope) -> Self {
        let (last, shut) = (Vec::new(), Vec::new());
        Self { run, left, scope, last, any: false, waiting: Vec::new(), shut, objects: 0 }
    }

    /// Adds a key below the prefix; false if it does not come after the one before.
    pub(super) fn push(&mut self, key: &[u8], meta: &Meta) -> std::io::Result<bool> {
        if self.any && key <= &*self.last {
            return Ok(false);
        }
        self.any = true;
        self.last.clear();
        self.last.extend_from_slice(key);
        self.objects += 1;
        if let Some(reason) = fault(key) {
            self.left.note(key, reason);
            return Ok(true);
        }
        if key.is_empty() {
            return Ok(true);
        }
        if !self.shut.is_empty() && key.starts_with(&self.shut) {
            return Ok(true);
        }
        if let Some(dir) = self.scope.shuts(key) {
            // The first key stands for all that is in it.
            self.shut = [dir, b"/"].concat();
            self.run.push(key, &Meta { marker: key.ends_with(b"/"), ..meta.clone() })?;
            return Ok(true);
        }
        while let Some(file) = self.waiting.pop_if(|file| !key.starts_with(file)) {
            drop(file);
        }
        let hidden = self.waiting.iter().position(|file| key[file.len()..].starts_with(b"/"));
        if let Some(at) = hidden {
            let file = self.waiting.remove(at);
            self.left.note(&file, "a directory of the same name is shown");
        }
        match key.ends_with(b"/") {
            true => self.run.push(key, &Meta { marker: true, ..meta.clone() })?,
            false => {
                self.run.push(key, meta)?;
                self.waiting.push(key.to_vec());
            }
        }
        Ok(true)
    }

    /// The last key of those that came.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    pub(super) fn finish(self) -> std::io::Result<()> {
        self.run.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be_shown() {
        for good in ["a", "a/", "a/b", "…/x", "a b/c+d", "", "a\u{1}b", ".a/..b", "a/b/"] {
            assert_eq!(fault(good.as_bytes()), None, "{good:?}");
        }
        let long = format!("{}/x", "n".repeat(256));
        let deep = "d/".repeat(2100) + "x";
        for bad in ["a//b", "/a", "/", "//", "a//", "./a", "a/..", "a/../b", "a\0b", &long, &deep] {
            assert!(fault(bad.as_bytes()).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_too_deep_or_excluded() {
        let scope = Scope { max_depth: Some(2), excluded: Some(Box::new(|dir| dir.ends_with(b"tmp"))) };
        let table = [
            ("a", None),
            ("a/b", None),
            ("a/b/c", Some("a/b")),
            ("a/b/c/d", Some("a/b")),
            ("a/b/", None),
            ("tmp/x", Some("tmp")),
            ("a/tmp/x", Some("a/tmp")),
            ("tmp", None),
        ];
        for (key, wanted) in table {
            assert_eq!(scope.shuts(key.as_bytes()), wanted.map(str::as_bytes), "{key}");
        }
    }
}
