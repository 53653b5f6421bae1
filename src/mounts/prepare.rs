//! The directory that is to become a mount point, checked before anything else is done, so that a
//! mistake costs no scan.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{MountState, MountsError, UnmountError, find, resolve, state, unmount};

/// Why nothing can be mounted there.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// There is no such directory.
    #[error("the mount point {} does not exist; make it: mkdir -p {}", path.display(), path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is a file, or something above it is.
    #[error("the mount point {} is not a directory", path.display())]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Something is in it that the mount would hide.
    #[error("the mount point {} is not empty, and a mount would hide what is in it; \
        take an empty directory, or mount with -o nonempty", path.display())]
    NotEmpty {
        /// The path.
        path: PathBuf,
    },
    /// veinfs is mounted there.
    #[error("{} is already mounted by veinfs; to end that: veinfs unmount {}", path.display(), path.display())]
    AlreadyMounted {
        /// The path.
        path: PathBuf,
    },
    /// veinfs is mounted there and does not answer.
    #[error("{} is already mounted by veinfs, but its daemon does not answer; detach it: \
        veinfs unmount --lazy {}", path.display(), path.display())]
    Stuck {
        /// The path.
        path: PathBuf,
    },
    /// The dead mount of another program is there.
    #[error("a dead mount ({}) is at {}; take it off: fusermount3 -u {}",
        fstype.display(), path.display(), path.display())]
    DeadForeign {
        /// The path.
        path: PathBuf,
        /// The type of the file system that died.
        fstype: OsString,
    },
    /// A dead veinfs mount is there and does not come off.
    #[error("a dead veinfs mount is in the way: {0}")]
    Unmount(#[from] UnmountError),
    /// The directory cannot be looked at.
    #[error("cannot use the mount point {}: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The mounts could not be looked at.
    #[error(transparent)]
    Mounts(MountsError),
}

impl From<MountsError> for PrepareError {
    fn from(error: MountsError) -> Self {
        match error {
            MountsError::Path { path, error } => PrepareError::io(path, error),
            other => PrepareError::Mounts(other),
        }
    }
}

impl PrepareError {
    fn io(path: PathBuf, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => PrepareError::Missing { path },
            io::ErrorKind::NotADirectory => PrepareError::NotDirectory { path },
            _ => PrepareError::Io { path, error },
        }
    }
}

/// A directory that can be mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its absolute path without links, as `/proc/self/mountinfo` will show it.
    pub path: PathBuf,
    /// How many dead veinfs mounts were cleared away from it.
    pub cleared: usize,
}

/// Checks that `path` is a directory on which nothing of veinfs is mounted, and an empty one unless
/// `nonempty`. Dead veinfs mounts there are taken off.
pub fn prepare_mountpoint(path: &Path, nonempty: bool) -> Result<Prepared, PrepareError> {
    let path = resolve(path)?;
    let mut cleared = 0;
    loop {
        match state(&path)? {
            MountState::NotMounted => break,
            MountState::Live => return Err(PrepareError::AlreadyMounted { path }),
            MountState::Stuck => return Err(PrepareError::Stuck { path }),
            MountState::Dead => unmount(&path, false)?,
        }
        cleared += 1;
    }
    let failed = |error: io::Error| match find(&path) {
        Ok(Some(entry)) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            PrepareError::DeadForeign { path: path.clone(), fstype: entry.fstype }
        }
        _ => PrepareError::io(path.clone(), error),
    };
    if !fs::metadata(&path).map_err(failed)?.is_dir() {
        return Err(PrepareError::NotDirectory { path });
    }
    if !nonempty && fs::read_dir(&path).map_err(failed)?.next().is_some() {
        return Err(PrepareError::NotEmpty { path });
    }
    Ok(Prepared { path, cleared })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_will_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("its path");
        fs::create_dir_all(root.join("full/sub")).expect("a tree");
        fs::write(root.join("file"), "").expect("a file");
        std::os::unix::fs::symlink("full/sub", root.join("link")).expect("a link");
        let prepare = |name: &str, nonempty| prepare_mountpoint(&root.join(name), nonempty);

        let good = Prepared { path: root.join("full/sub"), cleared: 0 };
        assert_eq!(prepare("full/sub/", false).expect("empty"), good);
        assert_eq!(prepare("link", false).expect("empty"), good);
        assert_eq!(prepare("full", true).expect("a directory").path, root.join("full"));
        assert!(matches!(prepare("full", false), Err(PrepareError::NotEmpty { .. })));
        assert!(matches!(prepare("file", true), Err(PrepareError::NotDirectory { .. })));
        assert!(matches!(prepare("file/below", true), Err(PrepareError::NotDirectory { .. })));
        for missing in ["no", "no/such/dir"] {
            let error = prepare(missing, false).expect_err(missing);
            assert!(matches!(error, PrepareError::Missing { .. }), "{error}");
            assert!(error.to_string().ends_with(&format!("mkdir -p {}/{missing}", root.display())), "{error}");
        }
    }
}
