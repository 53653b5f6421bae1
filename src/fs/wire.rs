//! The kernel's protocol: requests as they are read from `/dev/fuse`, and answers as they are written there.
//!
//! fuser mounts, negotiates and notifies. Requests are read here and not by its session, for what that has no answer
//! to: `statx`, entries without attributes among those with them, file pages that go from the source's cache to the
//! kernel without a copy of ours, and taking back what a reader that was interrupted has never got.
//!
//! Layouts from `include/uapi/linux/fuse.h`, protocol 7.40 and what later ones add to it; numbers are in the machine's
//! byte order, and names end with a NUL.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

pub(super) mod answer;
pub(super) mod backing;
pub(super) mod request;
pub(super) mod spliced;

use request::Request;

/// The size of `struct fuse_out_header`: length u32, error i32, the request's number u64.
pub(super) const HEADER_BYTES: usize = 16;
/// The largest read that one request may ask for, in bytes.
pub(super) const READ_BYTES: usize = 1 << 20;
/// What one read from the device needs: the kernel asks for room for the longest write that was negotiated, which never
/// comes, and its header.
const REQUEST_BYTES: usize = READ_BYTES + 4096;

/// A connection to the kernel; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Channel(Arc<OwnedFd>);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    pub(super) fn new(device: OwnedFd) -> Self {
        Self(Arc::new(device))
    }

    /// A buffer for requests; memory is used only as far as requests are long.
    pub(super) fn buffer() -> Vec<u8> {
        vec![0; REQUEST_BYTES]
    }

    /// Waits for the next request; `None` when the mount has ended.
    ///
    /// # Errors
    /// If the device cannot be read, or what it says has not the form.
    pub(super) fn next<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Request<'a>>> {
        use rustix::io::Errno;
        let read = loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Ok(read) => break read,
                // ENOENT: the request was interrupted before it was read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(Errno::NODEV) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        Request::parse(&buffer[..read]).map(Some).ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))
    }

    /// Sends an answer that was put together behind a header of its own; false if nobody waits for it any more.
    pub(super) fn send(&self, unique: u64, answer: &mut [u8]) -> bool {
        let length = answer.len();
        answer[..HEADER_BYTES].copy_from_slice(&header(unique, length, 0));
        self.write(&[IoSlice::new(answer)])
    }

    /// Answers a request with bytes as they are, in pieces; false if nobody waits for them.
    pub(super) fn send_pieces(&self, unique: u64, pieces: &[bytes::Bytes]) -> bool {
        /// The most pieces of one writev(2) (`UIO_MAXIOV`, `linux/uio.h`), less the header.
        const MOST: usize = 1023;
        if pieces.len() > MOST {
            return self.send_pieces(unique, &[pieces.concat().into()]);
        }
        let length = pieces.iter().map(bytes::Bytes::len).sum::<usize>();
        let header = header(unique, HEADER_BYTES + length, 0);
        let all: Vec<IoSlice<'_>> =
            std::iter::once(IoSlice::new(&header)).chain(pieces.iter().map(|piece| IoSlice::new(piece))).collect();
        self.write(&all)
    }

    /// Sends an error number.
    pub(super) fn refuse(&self, unique: u64, errno: i32) {
        self.write(&[IoSlice::new(&header(unique, HEADER_BYTES, errno))]);
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> bool {
        match rustix::io::writev(&self.0, parts) {
            Ok(_) => true,
            Err(error) => {
                // ENOENT: whoever asked was interrupted; ENODEV: the mount is going.
                if !matches!(error, rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) {
                    tracing::warn!(%error, "the kernel refuses an answer");
                }
                false
            }
        }
    }
}

/// `struct fuse_out_header` of an answer of `length` bytes.
pub(super) fn header(unique: u64, length: usize, errno: i32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes[4..8].copy_from_slice(&errno.wrapping_neg().to_ne_bytes());
    bytes[8..].copy_from_slice(&unique.to_ne_bytes());
    bytes
}
