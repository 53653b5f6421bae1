//! fanotify(7): events of whole file systems, each with a handle of the directory and a name in it.
//!
//! ```text
//! struct fanotify_event_metadata          records behind it, as long as event_len lasts
//! | event_len u32 | vers u8 | - u8 |      | type u8 | - u8 | len u16 |                       header
//! | metadata_len u16 | mask u64 |         | fsid 8 | handle_bytes u32 | handle_type i32 |     FID, DFID, DFID_NAME
//! | fd i32 | pid i32 |                    | f_handle | name, NUL |                           name: DFID_NAME
//! ```
//!
//! Layouts from `linux/fanotify.h`, in the machine's byte order.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::io::Errno;

use super::{Events, Facts};

/// What is asked for: nothing that reading causes, since then this program would wake itself.
///
/// `FAN_DELETE_SELF` and `FAN_MOVE_SELF` are not needed: the directory above is on the same mark and tells.
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_ATTRIB
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ONDIR;

/// The size of the metadata in version 3, the only one since Linux 2.6.37.
const METADATA_BYTES: usize = 24;
const HEADER_BYTES: usize = 4;
const FSID_BYTES: usize = 8;
const HANDLE_HEAD_BYTES: usize = 8;

/// A group of marks and its queue of events, which the kernel bounds.
#[derive(Debug)]
pub(super) struct Group(Fanotify);

impl Group {
    /// A group without marks; from Linux 5.9.
    pub(super) fn new() -> nix::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let report = InitFlags::from_bits_retain(libc::FAN_REPORT_DFID_NAME);
        Fanotify::init(flags | report, EventFFlags::O_RDONLY).map(Self)
    }

    /// Asks for the events of the whole file system that `dir` is on; more than once is the same as once.
    ///
    /// A mark keeps neither the file system nor a mount of it busy, and goes when it is unmounted.
    pub(super) fn mark(&self, dir: BorrowedFd<'_>) -> nix::Result<()> {
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        self.0.mark::<_, Path>(flags, MaskFlags::from_bits_retain(MASK), dir, None)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What events call the file system that `dir` is on: the two numbers of `f_fsid` in statfs(2).
pub(super) fn fsid_of(dir: BorrowedFd<'_>) -> Result<[u8; FSID_BYTES], Errno> {
    // rustix has them in one, the first as the lower half.
    let both = rustix::fs::fstatvfs(dir)?.f_fsid;
    let mut fsid = [0; FSID_BYTES];
    fsid[..4].copy_from_slice(&(both as u32).to_ne_bytes());
    fsid[4..].copy_from_slice(&((both >> 32) as u32).to_ne_bytes());
    Ok(fsid)
}

/// What stands in one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    mask: u64,
    /// The directory; `None` if the kernel could not name it.
    pub(super) dir: Option<Handle<'a>>,
    /// The name in it; `None` if the event is about the directory itself.
    pub(super) name: Option<&'a [u8]>,
}

/// A directory's lasting name, without a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle<'a> {
    /// The file system, as `f_fsid` of statfs(2).
    pub(super) fsid: [u8; FSID_BYTES],
    /// The handle's type.
    pub(super) kind: i32,
    /// The handle's bytes.
    pub(super) bytes: &'a [u8],
    /// All of these in one: equal for the same directory of the same file system, and for no other.
    pub(super) key: &'a [u8],
}

impl Event<'_> {
    /// True if the queue was full and events were thrown away.
    pub(super) fn is_overflow(&self) -> bool {
        self.mask & libc::FAN_Q_OVERFLOW != 0
    }

    /// What it says; the kernel puts several things of one name together.
    pub(super) fn facts(&self) -> Facts {
        let any = |bits| self.mask & bits != 0;
        Facts {
            entry: any(libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO),
            attributes: any(libc::FAN_ATTRIB),
            content: any(libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE),
            is_dir: any(libc::FAN_ONDIR),
        }
    }

    /// True if a directory was moved, and so all below it have other paths than before.
    pub(super) fn is_dir_moved(&self) -> bool {
        self.facts().is_dir && self.mask & (libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO) != 0
    }

    /// True if a directory was deleted: on file systems without generations its handle may be another's next.
    pub(super) fn is_dir_deleted(&self) -> bool {
        self.facts().is_dir && self.mask & libc::FAN_DELETE != 0
    }
}

/// The events in what was read from a group; after a malformed one there is none.
pub(super) fn parse(bytes: &[u8]) -> Events<'_, Event<'_>> {
    Events { bytes, first: event }
}

fn event(bytes: &[u8]) -> Option<(Event<'_>, &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let metadata = usize::from(u16_at(bytes, 6)?);
    let version = *bytes.get(4)?;
    if version != libc::FANOTIFY_METADATA_VERSION || metadata < METADATA_BYTES || length < metadata {
        return None;
    }
    let (this, rest) = bytes.split_at_checked(length)?;
    let mask = u64::from_ne_bytes(this.get(8..16)?.try_into().ok()?);
    let mut event = Event { mask, dir: None, name: None };
    let mut records = this.get(metadata..)?;
    while !records.is_empty() {
        let length = usize::from(u16_at(records, 2)?);
        let (record, after) = records.split_at_checked(length)?;
        let kind = *record.first()?;
        if kind == libc::FAN_EVENT_INFO_TYPE_DFID_NAME || kind == libc::FAN_EVENT_INFO_TYPE_DFID {
            let (handle, name) = directory(record)?;
            event.dir = Some(handle);
            event.name = if kind == libc::FAN_EVENT_INFO_TYPE_DFID_NAME { name } else { None };
        }
        records = after;
    }
    Some((event, rest))
}

/// The handle and the name in a record, header included.
fn directory(record: &[u8]) -> Option<(Handle<'_>, Option<&[u8]>)> {
    let body = record.get(HEADER_BYTES..)?;
    let fsid = body.get(..FSID_BYTES)?.try_into().ok()?;
    let size = u32_at(body, FSID_BYTES)? as usize;
    let kind = u32_at(body, FSID_BYTES + 4)?.cast_signed();
    let end = (FSID_BYTES + HANDLE_HEAD_BYTES).checked_add(size)?;
    let (key, name) = body.split_at_checked(end)?;
    let bytes = key.get(FSID_BYTES + HANDLE_HEAD_BYTES..)?;
    let name = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty() && *name != b".");
    if name.is_some_and(|name| name.contains(&b'/')) {
        return None;
    }
    Some((Handle { fsid, kind, bytes, key }, name))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Malformed;
    use super::*;

    /// An event of a record; lengths may lie.
    fn raw(mask: u64, records: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((METADATA_BYTES as u32 + records.len() as u32).to_ne_bytes());
        bytes.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend((METADATA_BYTES as u16).to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.extend(7_i32.to_ne_bytes());
        bytes.extend(records);
        bytes
    }

    fn record(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend((20 + handle.len() as u16 + name.len() as u16).to_ne_bytes());
        bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend((handle.len() as u32).to_ne_bytes());
        bytes.extend(9_i32.to_ne_bytes());
        bytes.extend(handle);
        bytes.extend(name);
        bytes
    }

    fn all(bytes: &[u8]) -> Vec<Result<Event<'_>, Malformed>> {
        parse(bytes).collect()
    }

    #[test]
    fn events_are_read_one_after_the_other() {
        let mut bytes = raw(libc::FAN_CREATE | libc::FAN_ONDIR, &record(2, b"abcd", b"na\xffme\0\0\0"));
        bytes.extend(raw(libc::FAN_ATTRIB | libc::FAN_ONDIR, &record(2, b"abcd", b".\0")));
        bytes.extend(raw(libc::FAN_MODIFY, &record(3, b"abcd", b"")));
        bytes.extend(raw(libc::FAN_Q_OVERFLOW, b""));
        let events: Vec<Event<'_>> = all(&bytes).into_iter().map(|event| event.expect("well formed")).collect();
        let key = b"\x01\x02\x03\x04\x05\x06\x07\x08\x04\0\0\0\x09\0\0\0abcd";
        let handle = Handle { fsid: [1, 2, 3, 4, 5, 6, 7, 8], kind: 9, bytes: b"abcd", key };
        assert_eq!(events.len(), 4);
        assert_eq!((events[0].dir, events[0].name), (Some(handle), Some(&b"na\xffme"[..])));
        assert!(events[0].facts().is_dir && events[0].facts().entry && !events[0].facts().content);
        assert_eq!((events[1].dir, events[1].name), (Some(handle), None));
        assert!(events[1].facts().attributes && !events[1].facts().entry);
        assert_eq!((events[2].dir, events[2].name), (Some(handle), None));
        assert!(events[2].facts().content && !events[2].facts().is_dir);
        assert!(events[3].is_overflow() && events[3].dir.is_none());
    }

    #[test]
    fn what_changes_paths_or_handles() {
        let dir = libc::FAN_ONDIR;
        let cases = [
            (libc::FAN_CREATE | dir, (false, false)),
            (libc::FAN_DELETE | libc::FAN_CREATE | dir, (false, true)),
            (libc::FAN_MOVED_FROM | dir, (true, false)),
            (libc::FAN_MOVED_TO | libc::FAN_DELETE | dir, (true, true)),
            (libc::FAN_MOVED_TO | libc::FAN_DELETE, (false, false)),
            (libc::FAN_ATTRIB | dir, (false, false)),
        ];
        for (mask, expected) in cases {
            let bytes = raw(mask, &record(2, b"abcd", b"x\0"));
            let event = all(&bytes)[0].expect("well formed");
            assert_eq!((event.is_dir_moved(), event.is_dir_deleted()), expected, "{mask:x}");
        }
    }

    #[test]
    fn unknown_records_are_passed_over() {
        let mut records = record(2, b"abcd", b"x\0");
        records.extend([77, 0, 6, 0, 1, 2]);
        let bytes = raw(libc::FAN_CREATE, &records);
        assert_eq!(all(&bytes)[0].expect("well formed").name, Some(&b"x"[..]));
    }

    #[test]
    fn what_has_not_the_form_is_told_and_ends_the_reading() {
        let good = raw(libc::FAN_CREATE, &record(2, b"abcd", b"x\0"));
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes.extend(&good);
            bytes
        };
        let cases: &[(&str, Vec<u8>)] = &[
            ("no length", with(0, &0_u32.to_ne_bytes())),
            ("a length within the metadata", with(0, &23_u32.to_ne_bytes())),
            ("a length behind the end", with(0, &9999_u32.to_ne_bytes())),
            ("the longest length", with(0, &u32::MAX.to_ne_bytes())),
            ("another version", with(4, &[2])),
            ("short metadata", with(6, &8_u16.to_ne_bytes())),
            ("long metadata", with(6, &u16::MAX.to_ne_bytes())),
            ("a record without a length", with(26, &0_u16.to_ne_bytes())),
            ("a record within its header", with(26, &3_u16.to_ne_bytes())),
            ("a record behind the end", with(26, &999_u16.to_ne_bytes())),
            ("a handle behind the end", with(36, &999_u32.to_ne_bytes())),
            ("the longest handle", with(36, &u32::MAX.to_ne_bytes())),
            ("a name that is a path", raw(libc::FAN_CREATE, &record(2, b"abcd", b"a/b\0"))),
        ];
        for (what, bytes) in cases {
            assert_eq!(all(bytes), [Err(Malformed)], "{what}");
        }
        for length in 1..good.len() {
            assert_eq!(all(&good[..length]), [Err(Malformed)], "the first {length} bytes");
        }
        assert!(all(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let events = parse(&bytes).take(1000).count();
            prop_assert!(events <= bytes.len() / METADATA_BYTES + 1);
        }

        #[test]
        fn a_damaged_event_is_read_without_a_panic(at in 0_usize..50, value in any::<u8>(), name in "[a-z]{1,8}") {
            let mut bytes = raw(libc::FAN_CREATE, &record(2, b"abcd", format!("{name}\0").as_bytes()));
            let at = at % bytes.len();
            bytes[at] = value;
            for event in parse(&bytes).flatten() {
                event.facts();
            }
        }
    }
}
