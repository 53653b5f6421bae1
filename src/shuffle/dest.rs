//! The directory that is copied to: opened once, locked, and entered through no link.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;

use super::plan::{Entry, Existing, PART};
use crate::config::NamedSource;
use crate::listing::{Exclude, c_name};
use crate::source::local::LocalSource;
use crate::source::{Handle, ListBuffer, Source, Stat};

/// Flags for every directory: never through a link.
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What is made first is for nobody else, until it has its own mode.
const PRIVATE: Mode = Mode::RWXU;
/// The mode of levels above matches, less the umask.
const LEVEL: Mode = Mode::from_raw_mode(0o777);

/// Why nothing can be copied there.
#[derive(Debug, thiserror::Error)]
pub enum DestError {
    /// It would be written below a source.
    #[error("{} is inside the source {}, and nothing is written below a source; take a directory elsewhere, or leave it \
        out: --exclude '/{}'", dest.display(), source_root.display(), below.display())]
    InSource {
        /// The destination.
        dest: PathBuf,
        /// The source.
        source_root: PathBuf,
        /// The one below the other.
        below: PathBuf,
    },
    /// A source is in it.
    #[error("the source {} is inside {}, and nothing is written below a source; take a directory elsewhere",
        source_root.display(), dest.display())]
    AroundSource {
        /// The destination.
        dest: PathBuf,
        /// The source.
        source_root: PathBuf,
    },
    /// Somebody else copies there.
    #[error("another `veinfs shuffle` copies to {}; wait for its end", .0.display())]
    Busy(PathBuf),
    /// It cannot be used.
    #[error("cannot copy to {}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The destination.
#[derive(Debug)]
pub struct Dest {
    /// Its absolute path without links.
    pub path: PathBuf,
    /// Itself, locked; `None` if it is not there, for a dry run.
    root: Option<OwnedFd>,
    /// Directories in which what was left by killed runs was removed.
    swept: Mutex<HashSet<Vec<u8>>>,
}

impl Dest {
    /// Checks where a directory is, and opens it; it is made if it is not there, unless nothing is to be done.
    ///
    /// # Errors
    /// If something would be written below a source, and those of the file system.
    pub fn open(given: &Path, sources: &[NamedSource], exclude: &Exclude, dry_run: bool) -> Result<Self, DestError> {
        let failed = |error| DestError::Io { path: given.to_path_buf(), error };
        let path = absolute(given).map_err(failed)?;
        for source in sources {
            apart(&path, source, exclude)?;
        }
        let there = path.symlink_metadata().is_ok();
        if !there && dry_run {
            return Ok(Self { path, root: None, swept: Mutex::default() });
        }
        std::fs::create_dir_all(&path).map_err(failed)?;
        let root = rustix::fs::open(&path, DIR, Mode::empty()).map_err(|error| failed(error.into()))?;
        if !dry_run {
            // File systems without locks say something else.
            let locked = rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive);
            if locked == Err(Errno::WOULDBLOCK) {
                return Err(DestError::Busy(path));
            }
        }
        Ok(Self { path, root: Some(root), swept: Mutex::default() })
    }

    /// Device and inode.
    pub fn identity(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::fstat(self.root.as_ref()?).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// What is at a place, given by its components.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn look(&self, place: &[Box<[u8]>]) -> io::Result<Existing> {
        let Some((name, levels)) = place.split_last() else { return Ok(Existing::Nothing) };
        let Some(mut dir) = self.root.as_ref().map(|root| root.try_clone()).transpose()? else {
            return Ok(Existing::Nothing);
        };
        for level in levels {
            dir = match rustix::fs::openat(&dir, &**level, DIR, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => return Ok(Existing::Nothing),
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Existing::Blocked(not_a_directory(level))),
                Err(error) => return Err(error.into()),
            };
        }
        match rustix::fs::openat(&dir, &**name, DIR, Mode::empty()) {
            Ok(found) => survey(found).map(Existing::Folder),
            Err(Errno::NOENT) => Ok(Existing::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(Existing::Other(not_a_directory(name))),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that a match is to be in, made if need be; what killed runs have left in it is removed, but for
    /// those of `parts`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn parent(&self, levels: &[Box<[u8]>], parts: &HashSet<Box<[u8]>>) -> io::Result<OwnedFd> {
        let root = self.root.as_ref().ok_or(Errno::NOENT)?;
        let mut dir = root.try_clone()?;
        for level in levels {
            match rustix::fs::mkdirat(&dir, &**level, LEVEL) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            dir = rustix::fs::openat(&dir, &**level, DIR, Mode::empty())?;
        }
        if self.swept.lock().insert(levels.join(&b'/')) {
            let left = names(dir.as_fd())?.into_iter().filter(|name| name.to_bytes().starts_with(PART));
            for name in left.filter(|name| !parts.contains(name.to_bytes())) {
                remove_all(dir.as_fd(), &name)?;
            }
        }
        Ok(dir)
    }

    /// The directory that a match is to be in, which was made before.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn enter(&self, levels: &[Box<[u8]>]) -> io::Result<OwnedFd> {
        let mut dir = self.root.as_ref().ok_or(Errno::NOENT)?.try_clone()?;
        for level in levels {
            dir = rustix::fs::openat(&dir, &**level, DIR, Mode::empty())?;
        }
        Ok(dir)
    }

    /// Has all that was written reach the disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> io::Result<()> {
        match &self.root {
            Some(root) => Ok(rustix::fs::syncfs(root)?),
            None => Ok(()),
        }
    }
}

/// Gives what is complete its name, where nothing has it, or in the place of what has it if `replace`.
///
/// # Errors
/// Those of the file system; `EEXIST` if something has the name.
pub fn give_name(dir: &OwnedFd, part: &[u8], name: &[u8], replace: bool) -> io::Result<()> {
    let (part, name) = (c_name(part), c_name(name));
    if replace {
        match rustix::fs::renameat_with(dir, &part, dir, &name, RenameFlags::EXCHANGE) {
            Ok(()) => return remove_all(dir.as_fd(), &part),
            // It has gone, or the file system cannot exchange: then for a moment nothing has the name.
            Err(Errno::NOENT) => {}
            Err(Errno::INVAL | Errno::NOSYS) => {
                let old = c_name(&[part.to_bytes(), b"-old"].concat());
                rustix::fs::renameat(dir, &name, dir, &old)?;
                rustix::fs::renameat(dir, &part, dir, &name)?;
                return remove_all(dir.as_fd(), &old);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match rustix::fs::renameat_with(dir, &part, dir, &name, RenameFlags::NOREPLACE) {
        // Not on all network file systems. A directory takes the place of an empty one at most.
        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(rustix::fs::renameat(dir, &part, dir, &name)?),
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) => Err(error.into()),
        },
        done => Ok(done?),
    }
}

fn not_a_directory(name: &[u8]) -> String {
    format!("{} is no directory", crate::entry::printable(name))
}

/// The absolute path without links of what may not be there yet.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    let mut missing: Vec<&OsStr> = Vec::new();
    for above in whole.ancestors() {
        match above.canonicalize() {
            Ok(real) => return Ok(missing.into_iter().rev().fold(real, |path, name| path.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && above.symlink_metadata().is_err() => {
                let name = above.file_name().ok_or_else(|| io::Error::other("`..` in a path that is not there"))?;
                missing.push(name);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

/// Sees to it that the destination is not below the source, nor the source below it; by their identities, too, so that
/// another mount of the same directory counts.
fn apart(dest: &Path, source: &NamedSource, exclude: &Exclude) -> Result<(), DestError> {
    let identity = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    let (of_dest, of_source) = (identity(dest), identity(&source.root));
    if let Some(above) =
        dest.ancestors().find(|above| *above == source.root || (of_source.is_some() && identity(above) == of_source))
    {
        let below = dest.strip_prefix(above).unwrap_or(dest);
        if !is_left_out(below, exclude) {
            let (dest, source_root) = (dest.to_path_buf(), source.root.clone());
            return Err(DestError::InSource { dest, source_root, below: below.to_path_buf() });
        }
    }
    let around = |above: &Path| above == dest || (of_dest.is_some() && identity(above) == of_dest);
    if source.root.ancestors().any(around) {
        return Err(DestError::AroundSource { dest: dest.to_path_buf(), source_root: source.root.clone() });
    }
    Ok(())
}

/// True if `--exclude` leaves out the path below a source, or something that it is in.
fn is_left_out(below: &Path, exclude: &Exclude) -> bool {
    let mut above: Vec<u8> = Vec::new();
    for name in below.iter().map(OsStrExt::as_bytes) {
        if exclude.excludes(&|| above.clone(), name) {
            return true;
        }
        if !above.is_empty() {
            above.push(b'/');
        }
        above.extend_from_slice(name);
    }
    false
}

/// The names in a directory.
///
/// # Errors
/// Those of the file system.
pub fn names(dir: std::os::fd::BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // Opened anew: the position in a directory belongs to what is open.
    let dir = rustix::fs::openat(dir, c".", DIR, Mode::empty())?;
    let mut buffer = ListBuffer::default();
    let mut entries = RawDir::new(&dir, &mut buffer.0);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// All entries of a directory and of those below, by their paths; itself by the empty one.
///
/// # Errors
/// Those of the file system.
pub fn survey(dir: OwnedFd) -> io::Result<BTreeMap<Vec<u8>, Entry>> {
    // The same calls as for sources, without their root.
    let (source, root) = (LocalSource::new("/"), Handle::Local(dir));
    let mut entries = BTreeMap::new();
    entries.insert(Vec::new(), Entry { stat: source.stat_dir(&root)?, text: None });
    let mut waiting: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let way = if path.is_empty() { c".".to_owned() } else { c_name(&path) };
        let handle = source.open_dir(&root, &way)?;
        for name in names(handle.local()?)? {
            let below = match &*path {
                b"" => name.to_bytes().to_vec(),
                path => [path, b"/", name.to_bytes()].concat(),
            };
            let stat: Stat = source.stat(&handle, &name, false)?;
            let text = if stat.is_link() { Some(source.read_link(&handle, &name)?) } else { None };
            if stat.is_dir() {
                waiting.push(below.clone());
            }
            entries.insert(below, Entry { stat, text });
        }
    }
    Ok(entries)
}

/// Makes a directory for oneself alone, or takes one that is there.
///
/// # Errors
/// Those of the file system.
pub fn private_dir(dir: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name, PRIVATE) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
                remove_all(dir.as_fd(), name)?;
                rustix::fs::mkdirat(dir, name, PRIVATE)?;
            } else if stat.st_mode & 0o700 != 0o700 {
                // It has its own mode already.
                rustix::fs::chmodat(dir, name, PRIVATE, AtFlags::empty())?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::openat(dir, name, DIR, Mode::empty())?)
}

/// Removes a file, or a directory with all in it; nothing being there is fine.
///
/// # Errors
/// Those of the file system.
pub fn remove_all(dir: std::os::fd::BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // A directory that has its own mode already may not let even its owner in.
    let _ = rustix::fs::chmodat(dir, name, PRIVATE, AtFlags::empty());
    let below = rustix::fs::openat(dir, name, DIR, Mode::empty())?;
    for child in names(below.as_fd())? {
        stacker::maybe_grow(128 << 10, 4 << 20, || remove_all(below.as_fd(), &child))?;
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}
