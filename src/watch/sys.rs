//! File handles, for which neither rustix nor nix has a call: a directory's lasting name within its file system.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// The longest handle that the kernel gives (`MAX_HANDLE_SZ` in `linux/exportfs.h`).
pub(super) const MAX_HANDLE: usize = 128;

/// `struct file_handle` (open_by_handle_at(2)) with room for the longest handle.
#[repr(C)]
struct Buffer {
    size_bytes: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE],
}

/// The type and the bytes of a directory's handle, name_to_handle_at(2).
pub(super) fn handle_of(dir: BorrowedFd<'_>) -> Result<(i32, Vec<u8>), Errno> {
    let mut buffer = Buffer { size_bytes: MAX_HANDLE as u32, kind: 0, bytes: [0; MAX_HANDLE] };
    let mut mount = 0;
    // SAFETY: the path is a NUL-terminated literal; the buffer begins with the fields of `struct file_handle` and has
    // as many bytes behind them as it says; all three pointers are good during the call.
    let result = unsafe {
        let handle = (&raw mut buffer).cast();
        libc::name_to_handle_at(dir.as_raw_fd(), c"".as_ptr(), handle, &raw mut mount, libc::AT_EMPTY_PATH)
    };
    if result < 0 {
        return Err(last_error());
    }
    let length = (buffer.size_bytes as usize).min(MAX_HANDLE);
    Ok((buffer.kind, buffer.bytes[..length].to_vec()))
}

/// Opens what a handle stands for in the file system that `mount` is on, without any access (`O_PATH`);
/// open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH.
pub(super) fn open_handle(mount: BorrowedFd<'_>, kind: i32, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let mut buffer = Buffer { size_bytes: bytes.len() as u32, kind, bytes: [0; MAX_HANDLE] };
    buffer.bytes.get_mut(..bytes.len()).ok_or(Errno::INVAL)?.copy_from_slice(bytes);
    // SAFETY: the buffer begins with the fields of `struct file_handle` and holds as many bytes behind them as it
    // says, checked above; the pointer is good during the call.
    let fd =
        unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut buffer).cast(), libc::O_PATH | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
