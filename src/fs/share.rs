//! Sharing a mount without widening access.
//!
//! With `allow_other` the kernel checks modes and owners of what the mount shows, and knows nothing of the real
//! directories above a match. So a match's folder carries what they allow: everything in it is reached through it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fuser::FileAttr;

/// Takes from the attributes of a match's folder what the real directories above `path` do not let everyone do.
///
/// Where all of them may be searched by everyone, nothing changes. Otherwise the folder belongs to the owner of the
/// narrowest, and to its group if that one may search it and no other directory is narrower still. Access lists only
/// take away: what they give to others is not seen.
pub(super) fn narrow(attr: &mut FileAttr, path: &Path) {
    let mut owners: Vec<(u32, u32, u32)> = Vec::new();
    for above in path.ancestors().skip(1) {
        match std::fs::metadata(above) {
            Ok(meta) if meta.mode() & 0o001 == 0 => {
                // With an access list the group's bits are only its mask, not what the group may do.
                let listed =
                    rustix::fs::getxattr(above, "system.posix_acl_access", &mut [0u8; 0][..]).is_ok_and(|n| n > 0);
                let mode = if listed { meta.mode() & !0o070 } else { meta.mode() };
                owners.push((meta.uid(), meta.gid(), mode));
            }
            Ok(_) => {}
            // What cannot be seen is not opened to anyone.
            Err(_) => owners.push((u32::MAX, u32::MAX, 0)),
        }
    }
    let Some((uid, gid, mode)) = owners.first().copied() else { return };
    let one_owner = owners.iter().all(|(other, ..)| *other == uid);
    let one_group = owners.iter().all(|(_, other, mode)| *other == gid && mode & 0o010 != 0);
    let everyone = attr.perm & 0o007;
    let group = if attr.gid == gid { (attr.perm & 0o070) >> 3 } else { everyone };
    let user = if attr.uid == uid { (attr.perm & 0o700) >> 6 } else { everyone };
    attr.perm &= 0o7000;
    if one_owner && mode & 0o100 != 0 {
        attr.perm |= user << 6;
        attr.uid = uid;
    } else {
        // Root only.
        attr.uid = 0;
    }
    attr.gid = gid;
    if one_group {
        attr.perm |= group << 3;
    }
}
