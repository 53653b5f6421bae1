//! Extended attributes: the file's own, and where it really is.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};

use super::VeinFs;
use super::node::Node;
use super::share::ACCESS_LIST;
use crate::source::Handle;
use crate::view::matches::captures;

const OURS: [&str; 3] = ["user.veinfs.source", "user.veinfs.pattern", "user.veinfs.captures"];
/// The kernel's limits for one value and for a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_BYTES: usize = 64 << 10;

/// Something that has extended attributes.
pub(super) struct Subject {
    pub(super) dir: Arc<Handle>,
    /// The name in `dir` and whether it is a link to follow; `None` for `dir` itself.
    pub(super) name: Option<(CString, bool)>,
    pub(super) node: Arc<Node>,
}

/// The attribute that holds a label of SELinux.
const LABEL: &[u8] = b"security.selinux";

impl Subject {
    /// A path that leads there whatever has been renamed above: xattr calls take no directory descriptor.
    fn path(&self) -> io::Result<PathBuf> {
        let dir = PathBuf::from(format!("/proc/self/fd/{}", self.dir.local()?.as_raw_fd()));
        Ok(match &self.name {
            Some((name, _)) => dir.join(OsStr::from_bytes(name.to_bytes())),
            None => dir.join("."),
        })
    }

    /// The kernel lets only files and directories have `user.` attributes: for a link it would not ask for one that
    /// is listed.
    fn may_have_ours(&self) -> bool {
        use rustix::fs::{AtFlags, FileType, statat};
        let Some((name, linked)) = &self.name else { return true };
        let flags = if *linked { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let Ok(dir) = self.dir.local() else { return true };
        statat(dir, name, flags).is_ok_and(|stat| {
            matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory)
        })
    }

    fn follow(&self) -> bool {
        self.name.as_ref().is_none_or(|(_, linked)| *linked)
    }

    /// The value of one of the file's own attributes.
    pub(super) fn get(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        thread_local! {
            /// As long as the longest value.
            static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_BYTES]);
        }
        if let Handle::Object(dir) = &*self.dir {
            let name_in = self.name.as_ref().map(|(name, _)| name.to_bytes());
            return dir.xattr(name_in, name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA));
        }
        let (path, name) = (self.path()?, OsStr::from_bytes(name));
        ROOM.with_borrow_mut(|room| {
            let read =
                if self.follow() { getxattr(path, name, &mut room[..]) } else { lgetxattr(path, name, &mut room[..]) };
            Ok(room[..read?].to_vec())
        })
    }

    /// The names of all, the file's own and ours; `privileged` callers see those that are trusted too (xattr(7)).
    pub(super) fn list(&self, privileged: bool) -> io::Result<Vec<u8>> {
        let mut names = vec![0u8; MAX_BYTES];
        let read = match &*self.dir {
            Handle::Object(dir) => {
                names = dir.xattrs(self.name.as_ref().map(|(name, _)| name.to_bytes()));
                Ok(names.len())
            }
            Handle::Local(_) if self.follow() => listxattr(self.path()?, &mut names[..]),
            Handle::Local(_) => llistxattr(self.path()?, &mut names[..]),
        };
        // A file system without xattrs has none; ours are there all the same.
        names.truncate(match read {
            Ok(read) => read,
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        });
        let own = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<u8> = own
            .filter(|name| !OURS.iter().any(|ours| ours.as_bytes() == *name))
            .filter(|name| privileged || !name.starts_with(b"trusted."))
            .flat_map(|name| name.iter().copied().chain([0]))
            .collect();
        if !self.may_have_ours() {
            return Ok(names);
        }
        for name in OURS {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        Ok(names)
    }
}

impl VeinFs {
    /// The value of an extended attribute, the thing's own or ours.
    pub(super) fn do_getxattr(&self, ino: u64, name: &[u8]) -> io::Result<Vec<u8>> {
        let absent = || io::Error::from_raw_os_error(libc::ENODATA);
        let Subject { node, dir, name: at } = self.do_xattrs(ino)?.ok_or_else(absent)?;
        match name {
            b"user.veinfs.source" => return Ok(self.real_path(&node)),
            b"user.veinfs.pattern" => {
                return Ok(self.live.automaton.top(node.place().found.pattern).name.clone().into_bytes());
            }
            b"user.veinfs.captures" => {
                return Ok(captures(&self.live.automaton, &node.place().found).to_string().into_bytes());
            }
            _ if name == ACCESS_LIST.as_bytes() && self.is_unlisted(&node) => return Err(absent()),
            _ => {}
        }
        Subject { node, dir, name: at }.get(name).map_err(|error| match error.raw_os_error() {
            // `ls -l` asks for the label of each file, and the kernel keeps none; told that there are none, it asks once.
            Some(libc::ENODATA) if name == LABEL && !labels_are_in_use() => io::Error::from_raw_os_error(libc::ENOTSUP),
            _ => error,
        })
    }
}

/// True if this kernel runs SELinux.
fn labels_are_in_use() -> bool {
    static IN_USE: OnceLock<bool> = OnceLock::new();
    *IN_USE.get_or_init(|| std::path::Path::new("/sys/fs/selinux/enforce").exists())
}
