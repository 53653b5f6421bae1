//! The shared vocabulary: names, relative paths and kinds of directory entries.
//!
//! Names are bytes, never text. Every name that comes from a listing passes [`valid_name`] once;
//! whatever holds a name after that relies on it: not empty, no `/`, no NUL, neither `.` nor `..`.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The kernel's limit for one name in bytes (`NAME_MAX`, `linux/limits.h`).
pub const NAME_MAX: usize = 255;

/// What a directory entry is to a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link that leads to a directory: a directory to a pattern.
    LinkDir,
    /// Any other symbolic link, dangling ones too: a file to a pattern.
    LinkFile,
    /// FIFO, socket, device: neither a file nor a directory to a pattern.
    Special,
}

impl Kind {
    /// True for what counts as a file in a pattern.
    pub fn is_file(self) -> bool {
        matches!(self, Kind::File | Kind::LinkFile)
    }

    /// True for what counts as a directory in a pattern.
    pub fn is_dir(self) -> bool {
        matches!(self, Kind::Dir | Kind::LinkDir)
    }
}

/// True if `name` can be one component of a path: not empty, no `/`, no NUL, neither `.` nor `..`.
pub fn valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

/// A path below a source's root: components joined by `/`, empty for the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The source's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// A path from components already joined by `/`; each must be a [`valid_name`].
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Self {
        let bytes = bytes.into();
        debug_assert!(bytes.is_empty() || bytes.split(|b| *b == b'/').all(valid_name));
        Self(bytes)
    }

    /// The path of the entry `name` below this one.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut joined = Vec::with_capacity(self.0.len() + 1 + name.len());
        joined.extend_from_slice(&self.0);
        if !joined.is_empty() && !name.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Self(joined.into())
    }

    /// The components joined by `/`, without a leading or trailing one.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for the operating system's calls.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// True for the source's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.0.rsplit(|b| *b == b'/').next().filter(|name| !name.is_empty())
    }

    /// The components from the top down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
    }

    /// The same path below `root`, as the operating system sees it.
    pub fn below(&self, root: &std::path::Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(self.as_os_str()) }
    }
}

/// Bytes as text to print: valid UTF-8 as it is, anything else with replacement characters.
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
