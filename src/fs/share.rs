//! Sharing a mount without widening access.
//!
//! With `allow_other` the kernel checks modes, owners and access lists of what the mount shows, and knows nothing of the
//! real directories above a match. So a match's folder carries what they allow: everything in it is reached through it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::attr::Attr;

/// The attribute that holds an access list.
pub(super) const ACCESS_LIST: &str = "system.posix_acl_access";

/// A directory above that somebody may not search.
struct Narrow {
    uid: u32,
    gid: u32,
    mode: u32,
    listed: bool,
}

/// True if the file has an access list: then the group's bits are only its mask, and anybody may be shut out by name.
fn listed(path: &Path) -> bool {
    rustix::fs::getxattr_query(path, ACCESS_LIST).is_ok_and(|length| length > 0)
}

/// The directories above `path` that not everyone may search, upwards.
fn narrow_above(path: &Path) -> Vec<Narrow> {
    let narrow = path.ancestors().skip(1).filter_map(|above| match std::fs::metadata(above) {
        Ok(meta) => {
            let listed = listed(above);
            // All three: where a group may not, its members may not though all others may.
            let open = meta.mode() & 0o111 == 0o111 && !listed;
            (!open).then(|| Narrow { uid: meta.uid(), gid: meta.gid(), mode: meta.mode(), listed })
        }
        // What cannot be seen is not opened to anyone.
        Err(_) => Some(Narrow { uid: u32::MAX, gid: u32::MAX, mode: 0, listed: false }),
    });
    narrow.collect()
}

/// True if a match's folder at `path` does not have the access that it has by itself, nor its access list.
pub(super) fn narrows(path: &Path) -> bool {
    !narrow_above(path).is_empty()
}

/// Takes from the attributes of a match's folder what the real directories above `path` do not let everyone do.
///
/// Where all of them may be searched by everyone, nothing changes. Otherwise the folder belongs to the owner of the
/// narrowest, and to its group if that one may search it and no other directory is narrower still. Access lists only
/// take away: what they give to others is not seen.
pub(super) fn narrow(attr: &mut Attr, path: &Path) {
    let above = narrow_above(path);
    let Some(Narrow { uid, gid, mode, .. }) = above.first() else { return };
    let one_owner = above.iter().all(|other| other.uid == *uid && other.mode & 0o100 != 0);
    let one_group = above.iter().all(|other| other.gid == *gid && other.mode & 0o010 != 0 && !other.listed);
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
    if one_group && !listed(path) {
        perm |= group << 3;
    }
    attr.set_perm(perm);
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::PermissionsExt;

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
            narrow(&mut attr, &folder);
            (attr.perm(), narrows(&folder))
        };
        set(dir.path(), 0o755);
        assert_eq!(narrowed(0o755), (0o755, false));
        assert_eq!(narrowed(0o711), (0o755, false));
        assert_eq!(narrowed(0o750), (0o750, true));
        assert_eq!(narrowed(0o700), (0o700, true));
        assert_eq!(narrowed(0o705), (0o700, true), "all but the group: it cannot be told from the others");
        assert_eq!(narrowed(0o655), (0o050, true), "the owner may not");
        set(&above, 0o755);
        let list = access_list();
        match rustix::fs::setxattr(&above, ACCESS_LIST, &list, rustix::fs::XattrFlags::empty()) {
            Ok(()) => assert_eq!(narrowed(0o755), (0o700, true), "one user is shut out by name"),
            Err(error) => assert_eq!(error, rustix::io::Errno::OPNOTSUPP),
        }
        set(dir.path(), 0o700);
    }
}
