//! What is entered on no way, through links neither: the kernel's file systems, veinfs mounts, and one's own.
//!
//! Below a source the walk knows them by their paths. A link leads to them by ways without end; there they are known by
//! their device, and one's own mount point also by the directory that it is in and its name, so that it need not be
//! asked: the thread that would answer may be the one that asks.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::source::{Handle, Source};

/// Devices and mount points that are not entered; clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Shut(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    devices: Vec<u64>,
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    /// Device and inode of the directory that it is in.
    parent: (u64, u64),
    name: Box<[u8]>,
}

impl Shut {
    /// One more device, as `st_dev` has it.
    pub fn add_device(&self, device: u64) {
        let mut known = self.0.write();
        if !known.devices.contains(&device) {
            known.devices.push(device);
        }
    }

    /// One more mount point; a path without links.
    pub fn add_point(&self, path: &Path) {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Ok(meta) = std::fs::metadata(parent)
        {
            self.0.write().points.push(Point { parent: (meta.dev(), meta.ino()), name: name.as_bytes().into() });
        }
    }

    /// True if nothing on this device is entered.
    pub fn is_device(&self, device: u64) -> bool {
        self.0.read().devices.contains(&device)
    }

    /// True if the directory `name` in `dir` is such a mount point; what is mounted there is not asked.
    pub fn is_point(&self, source: &dyn Source, dir: &Handle, name: &[u8]) -> bool {
        let known = self.0.read();
        if known.points.iter().all(|point| *point.name != *name) {
            return false;
        }
        let identity = source.identity(dir).ok();
        known.points.iter().any(|point| Some(point.parent) == identity && *point.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::local::LocalSource;

    #[test]
    fn a_mount_point_is_known_on_every_way() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(dir.path().join("a/mnt")).expect("a tree");
        std::os::unix::fs::symlink("a", dir.path().join("b")).expect("a link");
        let shut = Shut::default();
        shut.clone().add_point(&dir.path().join("a/mnt"));
        let source = LocalSource::new(dir.path());
        let root = source.open_root().expect("the root");
        let through_link = source.open_link(&root, c"b").expect("a directory");
        assert!(shut.is_point(&source, &through_link, b"mnt"));
        assert!(!shut.is_point(&source, &through_link, b"other"));
        assert!(!shut.is_point(&source, &root, b"mnt"));
        assert!(!shut.is_device(7));
        shut.add_device(7);
        assert!(shut.is_device(7));
    }
}
