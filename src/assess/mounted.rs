//! What a running mount says of a path: its matches and their names are those that it shows, whatever a scan would say.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::mounts::{MountState, resolve, state, veinfs_mounts};
use crate::view::matches::bytes_of;

/// The attribute that says where something really is, see [`crate::fs`].
const SOURCE: &str = "user.veinfs.source";
/// The kernel's limit for one value (`XATTR_SIZE_MAX`, `linux/limits.h`).
const MAX_BYTES: usize = 64 << 10;

/// A mount that answers.
#[derive(Debug)]
pub struct Mounted {
    /// Where it is.
    pub mountpoint: PathBuf,
    /// Its patterns as JSON.
    pub patterns: Vec<Value>,
    /// False while its first scan runs.
    pub complete: bool,
    sources: Vec<PathBuf>,
    matches: OnceCell<Vec<Value>>,
}

/// A match of a mount that shows a path.
#[derive(Debug)]
pub struct ShownBy<'a> {
    /// Its line of `.veinfs/matches.ndjson`.
    pub line: &'a Value,
    /// Where the mount shows the path, below the mount point.
    pub view: Vec<u8>,
}

impl Mounted {
    /// All mounts that answer, but for those of other users.
    pub fn all() -> Vec<Mounted> {
        let mounts = veinfs_mounts().unwrap_or_default();
        let live = mounts.into_iter().map(|entry| entry.mountpoint).filter(|at| {
            // One that is dead or stuck answers nothing.
            matches!(state(at), Ok(MountState::Live))
        });
        live.filter_map(|mountpoint| Mounted::read(mountpoint).ok()).collect()
    }

    fn read(mountpoint: PathBuf) -> io::Result<Mounted> {
        let control = mountpoint.join(".veinfs");
        let status: Value = serde_json::from_slice(&std::fs::read(control.join("status.json"))?)?;
        let mut patterns = Vec::new();
        for entry in std::fs::read_dir(control.join("patterns"))? {
            patterns.push(serde_json::from_slice(&std::fs::read(entry?.path())?)?);
        }
        let sources = status["sources"].as_array().into_iter().flatten();
        let sources = sources.filter_map(|source| Some(PathBuf::from(source["path"].as_str()?))).collect();
        let complete = status["state"] != "scanning";
        Ok(Mounted { mountpoint, patterns, complete, sources, matches: OnceCell::new() })
    }

    /// True if the path is in the mount, or in one of its sources.
    pub fn covers(&self, path: &Path) -> bool {
        path.starts_with(&self.mountpoint) || self.sources.iter().any(|source| path.starts_with(source))
    }

    /// The real path of one that is in the mount; `None` for any other.
    ///
    /// # Errors
    /// If nothing real is behind it, as for the folder of a pattern.
    pub fn real(&self, path: &Path) -> Option<io::Result<PathBuf>> {
        path.starts_with(&self.mountpoint).then(|| {
            source_of(path).or_else(|error| {
                // Links have no attributes of ours: they are in the directory that they are shown in.
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
                std::fs::read_link(path).map_err(|_| error)?;
                Ok(source_of(parent)?.join(name))
            })
        })
    }

    fn matches(&self) -> &[Value] {
        self.matches.get_or_init(|| {
            // A mount that goes meanwhile shows nothing.
            let lines = std::fs::read(self.mountpoint.join(".veinfs/matches.ndjson")).unwrap_or_default();
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
        })
    }

    /// The matches that show the real path, the innermost first; whether they do is asked of the mount itself.
    pub fn shows(&self, path: &Path) -> Vec<ShownBy<'_>> {
        let mut shown = Vec::new();
        for line in self.matches() {
            let root = bytes_of(line, "path");
            let Ok(below) = path.strip_prefix(OsStr::from_bytes(&root)) else { continue };
            let mut view = bytes_of(line, "view");
            if !below.as_os_str().is_empty() {
                view.push(b'/');
                view.extend_from_slice(below.as_os_str().as_bytes());
            }
            if std::fs::symlink_metadata(self.mountpoint.join(OsStr::from_bytes(&view))).is_ok() {
                shown.push((root.len(), ShownBy { line, view }));
            }
        }
        shown.sort_by_key(|(length, _)| Reverse(*length));
        shown.into_iter().map(|(_, shown)| shown).collect()
    }
}

fn source_of(path: &Path) -> io::Result<PathBuf> {
    let mut value = vec![0; MAX_BYTES];
    let read = rustix::fs::lgetxattr(path, SOURCE, &mut value[..])?;
    Ok(PathBuf::from(OsStr::from_bytes(&value[..read])))
}

/// The ways to a path: without links, and as it was given where that is another one. Its last component stays as it is.
///
/// # Errors
/// If there is no such path.
pub fn ways(path: &Path) -> io::Result<Vec<PathBuf>> {
    let given = std::path::absolute(path)?;
    let real = match (given.parent(), given.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize()?.join(name),
        _ => given.canonicalize()?,
    };
    std::fs::symlink_metadata(&real)?;
    // `..` behind a link leads elsewhere than it says.
    let up = given.components().any(|part| part == Component::ParentDir);
    let given = (!up && given != real).then_some(given);
    Ok(std::iter::once(real).chain(given).collect())
}

/// The part of a path below `root`, which has no links, even if there are some in what the path has above that.
pub fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    if let Ok(below) = path.strip_prefix(root) {
        return Some(below.to_path_buf());
    }
    let above = path.ancestors().find(|above| resolve(above).is_ok_and(|above| above == root))?;
    path.strip_prefix(above).ok().map(Path::to_path_buf)
}
