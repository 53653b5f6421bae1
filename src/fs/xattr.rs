//! Extended attributes: the file's own, and where it really is.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};

use super::share::ACCESS_LIST;
use crate::live::Live;
use crate::source::Handle;
use crate::view::Place;
use crate::view::matches::captures;

const OURS: [&str; 3] = ["user.veinfs.source", "user.veinfs.pattern", "user.veinfs.captures"];
/// The kernel's limits for one value and for a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_BYTES: usize = 64 << 10;

/// Something that has extended attributes.
pub(super) struct Subject {
    pub(super) dir: Arc<Handle>,
    /// The name in `dir` and whether it is a link to follow; `None` for `dir` itself.
    pub(super) name: Option<(CString, bool)>,
    /// The real path.
    pub(super) real: Vec<u8>,
    /// Its access list is not shown.
    pub(super) unlisted: bool,
    pub(super) place: Arc<Place>,
}

impl Subject {
    /// A path that leads there whatever has been renamed above: xattr calls take no directory descriptor.
    fn path(&self) -> PathBuf {
        let dir = PathBuf::from(format!("/proc/self/fd/{}", self.dir.0.as_raw_fd()));
        match &self.name {
            Some((name, _)) => dir.join(OsStr::from_bytes(name.to_bytes())),
            None => dir.join("."),
        }
    }

    /// The kernel lets only files and directories have `user.` attributes: for a link it would not ask for one that
    /// is listed.
    fn may_have_ours(&self) -> bool {
        use rustix::fs::{AtFlags, FileType, statat};
        let Some((name, linked)) = &self.name else { return true };
        let flags = if *linked { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        statat(&self.dir.0, name, flags).is_ok_and(|stat| {
            matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory)
        })
    }

    fn follow(&self) -> bool {
        self.name.as_ref().is_none_or(|(_, linked)| *linked)
    }

    pub(super) fn get(&self, name: &OsStr, live: &Live) -> io::Result<Vec<u8>> {
        match name.as_bytes() {
            b"user.veinfs.source" => return Ok(self.real.clone()),
            b"user.veinfs.pattern" => {
                return Ok(live.automaton.top(self.place.found.pattern).name.clone().into_bytes());
            }
            b"user.veinfs.captures" => {
                return Ok(captures(&live.automaton, &self.place.found).to_string().into_bytes());
            }
            name if self.unlisted && name == ACCESS_LIST.as_bytes() => {
                return Err(io::Error::from_raw_os_error(libc::ENODATA));
            }
            _ => {}
        }
        let mut value = vec![0; MAX_BYTES];
        let read = if self.follow() {
            getxattr(self.path(), name, &mut value[..])?
        } else {
            lgetxattr(self.path(), name, &mut value[..])?
        };
        value.truncate(read);
        Ok(value)
    }

    pub(super) fn list(&self) -> io::Result<Vec<u8>> {
        let mut names = vec![0u8; MAX_BYTES];
        let read = if self.follow() {
            listxattr(self.path(), &mut names[..])
        } else {
            llistxattr(self.path(), &mut names[..])
        };
        // A file system without xattrs has none; ours are there all the same.
        names.truncate(match read {
            Ok(read) => read,
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        });
        if !self.may_have_ours() {
            return Ok(names);
        }
        let own = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<u8> = own
            .filter(|name| !OURS.iter().any(|ours| ours.as_bytes() == *name))
            .flat_map(|name| name.iter().copied().chain([0]))
            .collect();
        for name in OURS {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        Ok(names)
    }
}
