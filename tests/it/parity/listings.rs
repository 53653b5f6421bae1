//! Directories: what is listed, with any buffer, from anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::cases::{Site, Table, digest, errno, open, said_as, value, with};
use super::fixture::{DIRS, MANY};
use crate::bed::path_of;

/// An entry: name, number, type, and the position behind it.
struct Listed {
    name: Vec<u8>,
    ino: u64,
    kind: String,
    next: u64,
}

/// What comes from here to the end, or as much as one buffer holds.
fn list(fd: &OwnedFd, buffer: usize, once: bool) -> Result<Vec<Listed>, Errno> {
    let mut space = vec![MaybeUninit::uninit(); buffer];
    let mut dir = RawDir::new(fd, &mut space);
    let mut all = Vec::new();
    while let Some(entry) = dir.next() {
        let entry = entry?;
        let kind = format!("{:?}", entry.file_type());
        let name = entry.file_name().to_bytes().to_vec();
        all.push(Listed { name, ino: entry.ino(), kind, next: entry.next_entry_cookie() });
        if once && dir.is_buffer_empty() {
            break;
        }
    }
    Ok(all)
}

/// Names and types in order, since file systems list in orders of their own.
fn shown(all: &[Listed]) -> String {
    let sorted: BTreeMap<&[u8], &str> = all.iter().map(|entry| (&entry.name[..], entry.kind.as_str())).collect();
    let mut text = format!("{} entries:", all.len());
    for (name, kind) in &sorted {
        let _ = write!(text, " {} {kind}", name.escape_ascii());
    }
    if sorted.len() > 50 { digest(text.as_bytes()) } else { text }
}

pub(super) fn add(table: &mut Table) {
    for path in DIRS.into_iter().chain(["many", "deep", "one", "fifo", "no-such"]) {
        for buffer in [0, 16, 24, 64, 280, 300, 4096, 1 << 20] {
            table.add(format!("getdents {path} {buffer}"), move |site| {
                with(site, path, |fd| said_as(list(fd, buffer, false), |all| shown(&all)))
            });
        }
        table.add(format!("getdents {path} again"), move |site| with(site, path, rewound));
        table.add(format!("getdents {path} numbers"), move |site| with(site, path, numbers));
    }
    table.add("getdents every position", |site| with(site, "many", |fd| value(positions(fd))));
    table.add("getdents on from every position", |site| with(site, "many", |fd| value(onwards(fd))));
    table.add("getdents two at once", two);
    table.add("getdents O_PATH", |site| {
        said_as(open(&site.at("dir"), OFlags::PATH), |fd| said_as(list(&fd, 4096, false), |all| shown(&all)))
    });
    table.add("getdents behind the end", |site| {
        with(site, "dir", |fd| {
            let last = list(fd, 4096, false).ok().and_then(|all| all.last().map(|entry| entry.next));
            let moved = last.map(|last| rustix::fs::seek(fd, SeekFrom::Start(last)));
            let rest = said_as(list(fd, 4096, false), |all| all.len());
            format!("{} {rest}", moved.is_some_and(|moved| moved.is_ok()))
        })
    });
}

fn rewound(fd: &OwnedFd) -> String {
    let again = || -> Result<String, Errno> {
        let first = list(fd, 300, true)?;
        rustix::fs::seek(fd, SeekFrom::Start(0))?;
        let all = list(fd, 4096, false)?;
        let begins = first.iter().zip(&all).all(|(one, other)| one.name == other.name);
        Ok(format!("{begins} {} then {}", shown(&all), list(fd, 4096, false)?.len()))
    };
    value(again())
}

/// Every entry has the number that `lstat` tells, and `..` that of the directory above.
fn numbers(fd: &OwnedFd) -> String {
    said_as(list(fd, 1 << 16, false), |all| {
        let wrong = all.iter().filter(|entry| entry.name != b"..").filter(|entry| {
            rustix::fs::statat(fd, path_of(&entry.name), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| stat.st_ino != entry.ino)
        });
        format!("{} wrong", wrong.count())
    })
}

/// Goes back to each position from the last to the first, as `seekdir` does, and reads one entry there.
fn positions(fd: &OwnedFd) -> Result<String, Errno> {
    let all = list(fd, 1 << 16, false)?;
    let mut right = 0;
    for at in (0..all.len() - 1).rev() {
        rustix::fs::seek(fd, SeekFrom::Start(all[at].next))?;
        let found = list(fd, 280, true)?;
        right += usize::from(found.first().is_some_and(|entry| entry.name == all[at + 1].name));
    }
    Ok(format!("{right} of {}", MANY + 1))
}

/// From some of them on to the end: nothing twice, nothing left out.
fn onwards(fd: &OwnedFd) -> Result<String, Errno> {
    let all = list(fd, 1 << 16, false)?;
    let mut wrong = 0;
    for at in (0..all.len()).step_by(487) {
        rustix::fs::seek(fd, SeekFrom::Start(all[at].next))?;
        let rest = list(fd, 4096, false)?;
        let same = rest.iter().map(|entry| &entry.name).eq(all[at + 1..].iter().map(|entry| &entry.name));
        wrong += usize::from(!same);
    }
    Ok(format!("{wrong} wrong"))
}

/// Two descriptors are at two places of one directory.
fn two(site: &Site) -> String {
    with(site, "many", |one| {
        with(site, "many", |other| {
            let mut seen = [Vec::new(), Vec::new()];
            loop {
                let pieces = [list(one, 4096, true), list(other, 1024, true)];
                let mut more = false;
                for (seen, piece) in seen.iter_mut().zip(pieces) {
                    match piece {
                        Ok(piece) => {
                            more |= !piece.is_empty();
                            seen.extend(piece);
                        }
                        Err(error) => return errno(error),
                    }
                }
                if !more {
                    return seen.map(|all| shown(&all)).join(" ");
                }
            }
        })
    })
}
