//! Whether a copy is what it is a copy of: every byte and attribute of both sides, read again.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rayon::prelude::*;
use rustix::fs::Advice;

use super::Failure;
use super::copy::{xattr, xattr_names};
use super::dest::survey;
use super::inventory::{Inventory, Item, What};
use super::plan::{Step, hard_links, steps};
use crate::listing::c_name;
use crate::source::local::LocalSource;
use crate::source::{File, Handle, Source, Stat};

/// How much is compared at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// Compares a copy with its match; `shown` is its path, for what is told of it.
///
/// # Errors
/// The first difference, or what cannot be read.
pub(super) fn verify(
    source: &dyn Source,
    from: &Handle,
    to: &Handle,
    inventory: &Inventory,
    shown: &[u8],
) -> Result<(), Failure> {
    let failed = |path: &[u8], error: io::Error| Failure::at(&[shown, b"/", path].concat(), &error);
    let there = survey(to.local().and_then(|to| to.try_clone_to_owned()).map_err(|error| failed(b"", error))?)
        .map_err(|error| failed(b"", error))?;
    let wanted: BTreeSet<Vec<u8>> = steps(inventory).map(|step: Step<'_>| step.path()).collect();
    if let Some(extra) = there.keys().find(|path| !wanted.contains(*path)) {
        return Err(Failure::new(&[shown, b"/", extra].concat(), "is not in the match"));
    }
    let links = hard_links(inventory);
    for ((folder, item), (other, original)) in &links {
        let path = |folder: usize, item: usize| {
            let folder = &inventory.folders[folder];
            folder.path_of(&folder.items[item].name)
        };
        let (link, original) = (path(*folder, *item), path(*other, *original));
        let identity = |path: &Vec<u8>| there.get(path).map(|entry| (entry.stat.dev, entry.stat.ino));
        if identity(&link) != identity(&original) {
            return Err(differs(shown, &link, "is no hard link of its other name"));
        }
    }
    // The same calls as for sources, without their root.
    let copies = LocalSource::new("/");
    (0..inventory.folders.len()).into_par_iter().try_for_each(|at| {
        let folder = &inventory.folders[at];
        let original = inventory.open(source, from, at).map_err(|error| failed(&folder.path, error))?;
        let path = if folder.path.is_empty() { c".".to_owned() } else { c_name(&folder.path) };
        let copy = copies.open_dir(to, &path).map_err(|error| failed(&folder.path, error))?;
        same_attributes((source.stat_dir(&original), copies.stat_dir(&copy)), (original.local().ok(), copy.local()))
            .map_err(|error| failed(&folder.path, error))?
            .map_or(Ok(()), |what| Err(differs(shown, &folder.path, &what)))?;
        folder.items.par_iter().try_for_each(|item| {
            let path = folder.path_of(&item.name);
            match same(source, (&original, &copies, &copy), item) {
                Ok(None) => Ok(()),
                Ok(Some(what)) => Err(differs(shown, &path, &what)),
                Err(error) => Err(failed(&path, error)),
            }
        })
    })
}

fn differs(shown: &[u8], path: &[u8], what: &str) -> Failure {
    Failure::new(&[shown, b"/", path].concat(), what)
}

/// What is different between an entry and its copy, if anything.
fn same(
    source: &dyn Source,
    (original, copies, copy): (&Handle, &LocalSource, &Handle),
    item: &Item,
) -> io::Result<Option<String>> {
    let name = c_name(&item.name);
    match &item.what {
        What::File { linked } => {
            let from = source.open_file(original, &name, *linked)?;
            let to = copies.open_file(copy, &name, false)?;
            let stats = (source.stat_file(&from), copies.stat_file(&to));
            if let Some(what) = same_attributes(stats, (from.local().ok(), to.local()))? {
                return Ok(Some(what));
            }
            // What is still to be written is, so that what is read comes from the disk.
            let _ = rustix::fs::fadvise(to.local()?, 0, None, Advice::DontNeed);
            Ok(same_bytes(&from, &to)?.map(|at| format!("differs from byte {at} on")))
        }
        What::Link(text) => {
            let (from, to) = (source.stat(original, &name, false)?, copies.stat(copy, &name, false)?);
            if !to.is_link() || copies.read_link(copy, &name)? != *text {
                return Ok(Some("is another link".into()));
            }
            Ok((from.mtime != to.mtime).then(|| "has another modification time".into()))
        }
        What::Special => Ok(differing(&source.stat(original, &name, false)?, &copies.stat(copy, &name, false)?)),
    }
}

/// What differs in the attributes that a copy has from its original.
fn differing(from: &Stat, to: &Stat) -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    let what = if from.mode != to.mode {
        "has another type or mode"
    } else if root && (from.uid, from.gid) != (to.uid, to.gid) {
        "has another owner"
    } else if from.mtime != to.mtime {
        "has another modification time"
    } else if from.is_file() && from.size != to.size {
        "has another size"
    } else if from.rdev != to.rdev {
        "is another device"
    } else {
        return None;
    };
    Some(what.into())
}

/// What is different in attributes, extended ones too where the original can have any.
fn same_attributes(
    (from_stat, to_stat): (io::Result<Stat>, io::Result<Stat>),
    (from, to): (Option<BorrowedFd<'_>>, io::Result<BorrowedFd<'_>>),
) -> io::Result<Option<String>> {
    if let Some(what) = differing(&from_stat?, &to_stat?) {
        return Ok(Some(what));
    }
    let (Some(from), to) = (from, to?) else { return Ok(None) };
    let (names, copied) = (xattr_names(from)?, xattr_names(to)?);
    let all: BTreeSet<&CStr> = names.iter().chain(&copied).map(|name| &**name).collect();
    let other = all.into_iter().find(|name| xattr(from, name) != xattr(to, name));
    Ok(other.map(|name| format!("has another {}", crate::entry::printable(name.to_bytes()))))
}

/// The first byte in which two files differ.
fn same_bytes(from: &File, to: &File) -> io::Result<Option<u64>> {
    let (mut ours, mut theirs) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut at = 0u64;
    loop {
        let (a, b) = (from.read_full(&mut ours, at)?, to.read_full(&mut theirs, at)?);
        if ours[..a] != theirs[..b] {
            let common = ours[..a].iter().zip(&theirs[..b]).take_while(|(a, b)| a == b).count();
            return Ok(Some(at + common as u64));
        }
        if a < BUFFER {
            return Ok(None);
        }
        at += a as u64;
    }
}
