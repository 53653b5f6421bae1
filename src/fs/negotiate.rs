//! What is agreed with the kernel when a mount begins.

use std::io;
use std::sync::{Arc, OnceLock};

use fuser::{InitFlags, KernelConfig, Request};

use super::OpenMode;
use super::wire::READ_BYTES;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// How files are to be opened.
    pub(super) open: OpenMode,
    /// The kernel is to check access by modes, owners and access lists.
    pub(super) checks: bool,
}

/// What was agreed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreed {
    /// The kernel can read files by itself.
    pub(super) passthrough: bool,
    /// Directories need not be opened.
    pub(super) no_opendir: bool,
}

/// Answers the kernel's first request; fuser asks it nothing else, since [`super::serve`] reads all others.
#[derive(Debug)]
pub(super) struct Negotiator {
    pub(super) wish: Wish,
    pub(super) agreed: Arc<OnceLock<Agreed>>,
}

impl fuser::Filesystem for Negotiator {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_EXPORT_SUPPORT
            | InitFlags::FUSE_MAX_PAGES;
        let no_opendir = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_ok();
        let mut agreed = Agreed { no_opendir, ..Agreed::default() };
        for flag in wanted.iter() {
            // A kernel without one of them works all the same, only slower.
            let _ = config.add_capabilities(flag);
        }
        if self.wish.checks {
            // The kernel then asks for access lists once, and holds users to them as the source's file system does.
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_ACL);
        }
        let root = rustix::process::geteuid().is_root();
        if root && self.wish.open != OpenMode::Cached && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() {
            agreed.passthrough = config.set_max_stack_depth(2).is_ok();
        }
        let bytes = READ_BYTES as u32;
        if let Err(most) = config.set_max_readahead(bytes) {
            let _ = config.set_max_readahead(most);
        }
        // Nothing is written; it says how long answers may be, too.
        let _ = config.set_max_write(bytes);
        let _ = config.set_max_background(64);
        let _ = self.agreed.set(agreed);
        Ok(())
    }
}
