//! Backing files: real files that the kernel reads by itself (passthrough).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::Channel;

nix::ioctl_write_ptr!(backing_close, 229, 2, u32);

/// A file that the kernel holds for reads of ours; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Backing {
    channel: Channel,
    id: u32,
}

impl Backing {
    /// Has the kernel hold `file` (`FUSE_DEV_IOC_BACKING_OPEN`, Linux 6.9).
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, ELOOP where file systems would be stacked too deep, EOPNOTSUPP on older kernels.
    pub(crate) fn new(channel: &Channel, file: &OwnedFd) -> io::Result<Self> {
        let id = fuser::BackingId::create_raw(channel, file)?;
        Ok(Self { channel: channel.clone(), id })
    }

    /// The number that the answer to an open bears.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // SAFETY: the argument of FUSE_DEV_IOC_BACKING_CLOSE is a pointer to the number, which lives during the call.
        if let Err(error) = unsafe { backing_close(self.channel.as_fd().as_raw_fd(), &raw const self.id) } {
            tracing::warn!(%error, "a backing file stays open");
        }
    }
}
