//! File pages that go from the source's cache into the kernel's without a copy of ours: through a pipe.
//!
//! A `pread` and a `write` copy each byte twice before the kernel has it in its page cache; through a pipe it is copied
//! once. Measured on 1 MiB reads of a file in the source's cache: docs/benchmarks.md.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::{Channel, HEADER_BYTES, header};

/// A pipe of one thread, and how many bytes it holds.
#[derive(Debug)]
pub(crate) struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
    /// Bytes of a file that fit in behind a header; each page of a file takes a place of its own.
    room: usize,
}

const PAGE: usize = 4096;

impl Pipe {
    /// A pipe for answers of `bytes`, or as many as the system allows (pipe(7), `pipe-max-size`).
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A place for the header, and one more where a read begins inside of a page.
        let mut wanted = bytes + 2 * PAGE;
        let size = loop {
            match fcntl_setpipe_size(&to, wanted) {
                Ok(size) => break size,
                Err(_) if wanted > 16 * PAGE => wanted /= 2,
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Self { from, to, room: size.saturating_sub(2 * PAGE) })
    }

    /// How many bytes one answer may have.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Answers a read with `length` bytes of `file`; false if nothing was sent, and the pipe has to be given up.
    ///
    /// The header is in front and says how long the answer is, so a file that turns out to be shorter gives none.
    pub(crate) fn answer(&self, channel: &Channel, unique: u64, file: &OwnedFd, offset: u64, length: usize) -> bool {
        let total = HEADER_BYTES + length;
        if !matches!(rustix::io::write(&self.to, &header(unique, total, 0)), Ok(HEADER_BYTES)) {
            return false;
        }
        let (mut at, mut rest) = (offset, length);
        while rest > 0 {
            match splice(file, Some(&mut at), &self.to, None, rest, SpliceFlags::NONBLOCK) {
                Ok(0) | Err(_) => return false,
                Ok(moved) => rest -= moved,
            }
        }
        // Without SPLICE_F_MOVE: it would take the pages out of the source's own cache.
        match splice(&self.from, None, channel, None, total, SpliceFlags::empty()) {
            Ok(sent) => sent == total,
            // Whoever asked was interrupted.
            Err(rustix::io::Errno::NOENT) => true,
            Err(_) => false,
        }
    }
}
