//! Which file systems can be trusted to tell of every change: those that nobody but this kernel writes to.

/// `FUSE_SUPER_MAGIC`; also of `fuseblk`, where a daemon alone writes to a disk of this machine.
pub(super) const FUSE: u32 = 0x6573_5546;

/// Why the file system with this magic number (`f_type` of statfs(2), `linux/magic.h`) cannot be trusted, if so.
///
/// A server or another machine changes network file systems without a word to this kernel, a daemon FUSE ones; what
/// pseudo file systems show changes without an event.
pub(super) fn distrust(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS does not tell of changes made on other machines",
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => "SMB does not tell of changes made on other machines",
        0x0102_1997 => "9p does not tell of changes made on the host",
        FUSE => "FUSE does not tell of changes made behind it",
        // vboxsf, vmhgfs, prlfs
        0x786f_4256 | 0xbacb_acbc | 0x7c7c_6673 => "a folder shared by a host does not tell of changes made there",
        // afs, kafs, ceph, ncp, coda, gpfs, lustre, beegfs, orangefs, panfs, snfs, gfs2, ocfs2
        0x5346_414f | 0x6b41_4653 | 0x00c3_6400 | 0x564c | 0x7375_7245 | 0x4750_4653 | 0x0bd0_0bd0 | 0x1983_0326
        | 0x2003_0528 | 0xaad7_aaea | 0xbeef_dead | 0x0116_1970 | 0x7461_636f => {
            "this network file system does not tell of changes made on other machines"
        }
        // autofs, devpts, proc, cgroup, mqueue, binfmt_misc, smackfs, pstore, configfs, sysfs, cgroup2, debugfs,
        // fusectl, rpc_pipefs, nsfs, securityfs, tracefs, bpf, efivarfs, selinuxfs
        0x0187 | 0x1cd1 | 0x9fa0 | 0x0027_e0eb | 0x1980_0202 | 0x4249_4e4d | 0x4341_5d53 | 0x6165_676c
        | 0x6265_6570 | 0x6265_6572 | 0x6367_7270 | 0x6462_6720 | 0x6573_5543 | 0x6759_6969 | 0x6e73_6673
        | 0x7363_6673 | 0x7472_6163 | 0xcafe_4a11 | 0xde5e_81e4 | 0xf97c_ff8c => {
            "a pseudo file system does not tell of its changes"
        }
        _ => return None,
    })
}

/// True if no watch can be on a mount of this type, as `/proc/self/mountinfo` calls it: none is lost with it.
///
/// It may be wrong in one direction only: a type that is not known here counts as one with watches.
pub(super) fn never_watched(fstype: &[u8]) -> bool {
    const TYPES: &[&[u8]] = &[
        b"9p",
        b"afs",
        b"autofs",
        b"beegfs",
        b"ceph",
        b"cifs",
        b"fuse",
        b"gpfs",
        b"lustre",
        b"nfs",
        b"nfs4",
        b"smb3",
        b"virtiofs",
    ];
    TYPES.contains(&fstype) || fstype.starts_with(b"fuse.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems() {
        // ext4, xfs, btrfs, tmpfs, zfs, overlay, f2fs, vfat, exfat, ntfs3, bcachefs
        let local = [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x2fc1_2fc1,
            0x794c_7630,
            0xf2f5_2010,
            0x4d44,
            0x2011_bab0,
            0x7366_746e,
            0xca45_1a4e,
        ];
        for magic in local {
            assert_eq!(distrust(magic), None, "{magic:x}");
        }
        for (magic, word) in [(0x6969, "NFS"), (FUSE, "FUSE"), (0xff53_4d42, "SMB"), (0x9fa0, "pseudo")] {
            assert!(distrust(magic).is_some_and(|reason| reason.contains(word)), "{magic:x}");
        }
        let magic = rustix::fs::statfs("/proc").expect("/proc").f_type as u32;
        assert!(distrust(magic).is_some(), "/proc is {magic:x}");
    }

    #[test]
    fn mount_types() {
        for fstype in ["nfs4", "fuse.sshfs", "fuse", "autofs", "cifs"] {
            assert!(never_watched(fstype.as_bytes()), "{fstype}");
        }
        for fstype in ["ext4", "fuseblk", "tmpfs", "overlay", "of-tomorrow"] {
            assert!(!never_watched(fstype.as_bytes()), "{fstype}");
        }
    }
}
