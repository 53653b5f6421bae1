//! Sharing a mount without widening access.
//!
//! With `allow_other` the kernel checks modes, owners and access lists of what the mount shows, and knows nothing of the
//! real directories above a match. So a match's folder carries what they allow: everything in it is reached through it.
//!
//! The directories above are those of the directory that is open, found by `..`, not those of its path: under the path
//! there may be another by now.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::attr::Attr;

/// The attribute that holds an access list.
pub(super) const ACCESS_LIST: &str = "system.posix_acl_access";
/// No directory lies deeper; the way up ends there.
const DEEPEST: usize = 1 << 16;

/// A directory above that somebody may not search.
struct Narrow {
    uid: u32,
    gid: u32,
    mode: u32,
    listed: bool,
}

impl Narrow {
    /// One that nobody may search.
    const SHUT: Narrow = Narrow { uid: u32::MAX, gid: u32::MAX, mode: 0, listed: false };
}

/// True if the directory has an access list, or may have one: then the group's bits are only its mask, and anybody may be
/// shut out by name.
fn listed(dir: impl AsFd) -> bool {
    // By this path, since directories above are open without the right to read them.
    let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    match rustix::fs::getxattr_query(path, ACCESS_LIST) {
        Ok(length) => length > 0,
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => false,
        Err(error) => {
            tracing::warn!(%error, "an access list cannot be read: it is taken to shut everybody out");
            true
        }
    }
}

/// The directory above an open one; `None` above the root.
fn above(dir: BorrowedFd<'_>, own: &Stat) -> rustix::io::Result<Option<(OwnedFd, Stat)>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(dir, c"..", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&above)?;
    Ok(((stat.st_dev, stat.st_ino) != (own.st_dev, own.st_ino)).then_some((above, stat)))
}

/// The directories above an open one that not everyone may search, upwards.
fn narrow_above(dir: impl AsFd) -> Vec<Narrow> {
    let mut narrow = Vec::new();
    let Ok(mut own) = rustix::fs::fstat(&dir) else { return vec![Narrow::SHUT] };
    let mut at: Option<OwnedFd> = None;
    for _ in 0..DEEPEST {
        match above(at.as_ref().map_or(dir.as_fd(), |at| at.as_fd()), &own) {
            Ok(None) => return narrow,
            Ok(Some((next, stat))) => {
                let listed = listed(&next);
                // All three: where a group may not, its members may not though all others may.
                if stat.st_mode & 0o111 != 0o111 || listed {
                    narrow.push(Narrow { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode, listed });
                }
                (at, own) = (Some(next), stat);
            }
            Err(_) => break,
        }
    }
    // What cannot be seen is not opened to anyone.
    narrow.push(Narrow::SHUT);
    narrow
}

/// True if a match's folder does not have the access that it has by itself, nor its access list.
pub(super) fn narrows(dir: impl AsFd) -> bool {
    !narrow_above(dir).is_empty()
}

/// Takes from the attributes of a match's folder what the real directories above `dir` do not let everyone do.
///
/// Where all of them may be searched by everyone, nothing changes. Otherwise the folder belongs to the owner of the
/// narrowest, and to its group if that one may search it and no other directory is narrower still. Access lists only
/// take away: what they give to others is not seen.
pub(super) fn narrow(attr: &mut Attr, dir: impl AsFd) {
    let above = narrow_above(&dir);
    let Some(Narrow { uid, gid, mode, .. }) = above.first() else { return };
    let one_owner = above.iter().all(|other| other.uid == *uid && other.mode & 0o100 != 0);
    // An owner without the right may be in the group, and would get in by it: owners are not told apart there.
    let owners_may = above.iter().all(|other| other.mode & 0o100 != 0);
    let one_group =
        owners_may && above.iter().all(|other| other.gid == *gid && other.mode & 0o010 != 0 && !other.listed);
    // Whoever is in the folder's own group has that group's bits and no others.
    let own = attr.perm();
    let everyone = own & own >> 3 & 0o007;
    let group = if attr.gid == *gid { (own & 0o070) >> 3 } else { everyone };
    let user = if attr.uid == *uid { (own & 0o700) >> 6 } else { everyone };
    let mut perm = own & 0o7000;
    if one_owner && mode & 0o100 != 0 {
        perm |= user << 6;
        attr.uid = *uid;
    } else {
        // Root only.
        attr.uid = 0;
    }
    attr.gid = *gid;
    if one_group && !listed(&dir) {
        perm |= group << 3;
    }
    attr.set_perm(perm);
}

/// Takes all access from the attributes of a match's folder of which it is not known who may reach it.
pub(super) fn shut(attr: &mut Attr) {
    (attr.uid, attr.gid) = (0, 0);
    attr.set_perm(0);
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::super::attr::folder_attr;
    use super::*;

    /// `u::rwx`, `u:6001:---`, `g::r-x`, `m::r-x`, `o::r-x` as the kernel has it (`linux/posix_acl_xattr.h`).
    fn access_list() -> Vec<u8> {
        let none = u32::MAX;
        let entries = [(0x01u16, 7u16, none), (0x02, 0, 6001), (0x04, 5, none), (0x10, 5, none), (0x20, 5, none)];
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            bytes.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_folder_allows_no_more_than_what_is_above() {
        let dir = tempfile::tempdir().expect("a directory");
        let above = dir.path().join("above");
        let folder = above.join("run");
        create_dir(&above).and_then(|()| create_dir(&folder)).expect("directories");
        let owner = above.metadata().expect("a directory").uid();
        let set = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
        let narrowed = |mode| {
            set(&above, mode);
            let mut attr = folder_attr(7, std::time::SystemTime::now(), owner, 4711);
            attr.set_perm(0o755);
            let open = std::fs::File::open(&folder).expect("a directory");
            narrow(&mut attr, &open);
            (attr.perm(), narrows(&open))
        };
        set(dir.path(), 0o755);
        assert_eq!(narrowed(0o755), (0o755, false));
        assert_eq!(narrowed(0o711), (0o755, false));
        assert_eq!(narrowed(0o750), (0o750, true));
        assert_eq!(narrowed(0o700), (0o700, true));
        assert_eq!(narrowed(0o705), (0o700, true), "all but the group: it cannot be told from the others");
        assert_eq!(narrowed(0o655), (0, true), "the owner may not, though perhaps in the group");
        set(&above, 0o755);
        let list = access_list();
        match rustix::fs::setxattr(&above, ACCESS_LIST, &list, rustix::fs::XattrFlags::empty()) {
            Ok(()) => assert_eq!(narrowed(0o755), (0o700, true), "one user is shut out by name"),
            Err(error) => assert_eq!(error, rustix::io::Errno::OPNOTSUPP),
        }
        set(dir.path(), 0o700);
    }
}
