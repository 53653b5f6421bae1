//! One match written: directories, then files, links, their other names, and what directories are like at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rayon::prelude::*;
use rustix::fs::AtFlags;

use super::dest::{names, private_dir, remove_all, survey};
use super::inventory::{Inventory, Item, What};
use super::plan::{Entry, hard_links, is_done, steps};
use super::{Copied, Failure, Lost, copy};
use crate::listing::c_name;
use crate::source::local::LocalSource;
use crate::source::{Handle, Source};

/// A match that is being written.
pub(super) struct Writing<'a> {
    pub(super) source: &'a dyn Source,
    /// The match's directory, and the one that is to become its copy.
    pub(super) from: &'a Handle,
    pub(super) root: &'a OwnedFd,
    pub(super) inventory: &'a Inventory,
    /// The path that the copy is to have, and that of the match.
    pub(super) shown: &'a [u8],
    pub(super) origin: &'a [u8],
    pub(super) lost: &'a Lost,
    pub(super) copied: &'a Copied,
}

impl Writing<'_> {
    /// Writes all of it, but for what a killed run has done.
    pub(super) fn write(&self) -> Result<(), Failure> {
        let there = self.left().map_err(|error| self.failed(b"", &error))?;
        for folder in self.inventory.folders.iter().skip(1) {
            let above = &self.inventory.folders[folder.parent];
            let made = open_below(self.root, &above.path).and_then(|above| private_dir(&above, &c_name(&folder.name)));
            made.map_err(|error| self.failed(&folder.path, &error))?;
        }
        self.items(&there)?;
        self.links()?;
        self.folders()
    }

    fn failed(&self, path: &[u8], error: &io::Error) -> Failure {
        Failure::at(&[self.shown, b"/", path].concat(), error)
    }

    /// What a killed run has left of it; nothing, if part of that is not to be there.
    fn left(&self) -> io::Result<BTreeMap<Vec<u8>, Entry>> {
        let there = self.root.try_clone().and_then(survey);
        match there {
            Ok(there) if there.len() <= 1 => return Ok(BTreeMap::new()),
            Ok(there) => {
                let wanted: BTreeSet<Vec<u8>> = steps(self.inventory).map(|step| step.path()).collect();
                if there.keys().all(|path| wanted.contains(path)) {
                    return Ok(there);
                }
            }
            // A directory that has its own mode already may not let even its owner in.
            Err(_) => {}
        }
        for name in names(self.root.as_fd())? {
            remove_all(self.root.as_fd(), &name)?;
        }
        Ok(BTreeMap::new())
    }

    fn items(&self, there: &BTreeMap<Vec<u8>, Entry>) -> Result<(), Failure> {
        let links = hard_links(self.inventory);
        (0..self.inventory.folders.len()).into_par_iter().try_for_each(|at| {
            let folder = &self.inventory.folders[at];
            if folder.items.is_empty() {
                return Ok(());
            }
            let failed = |error: io::Error| self.failed(&folder.path, &error);
            let from = self.inventory.open(self.source, self.from, at).map_err(failed)?;
            let to = open_below(self.root, &folder.path).map_err(failed)?;
            folder.items.par_iter().enumerate().try_for_each(|(place, item)| {
                if links.contains_key(&(at, place)) {
                    return Ok(());
                }
                let path = folder.path_of(&item.name);
                self.item(&from, &to, item, &path, there.get(&path))
            })
        })
    }

    fn item(
        &self,
        from: &Handle,
        to: &OwnedFd,
        item: &Item,
        path: &[u8],
        there: Option<&Entry>,
    ) -> Result<(), Failure> {
        let name = c_name(&item.name);
        let failed = |error: io::Error| self.failed(path, &error);
        match there {
            Some(entry) if is_done(item, entry) && item.what != What::Special => {
                if let What::File { .. } = item.what {
                    self.copied.bytes.fetch_add(item.stat.size, Ordering::Relaxed);
                }
                return Ok(());
            }
            Some(_) => remove_all(to.as_fd(), &name).map_err(failed)?,
            None => {}
        }
        let What::File { linked } = item.what else {
            return copy::other(item, to, &name, self.lost).map_err(failed);
        };
        let original = self.source.open_file(from, &name, linked);
        let original = original.map_err(|error| Failure::at(&[self.origin, b"/", path].concat(), &error))?;
        copy::file(self.source, &original, item, (to, &name), self.lost, &self.copied.bytes).map_err(failed)?;
        self.copied.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The further names of files.
    fn links(&self) -> Result<(), Failure> {
        let mut links: Vec<_> = hard_links(self.inventory).into_iter().collect();
        links.sort_unstable();
        for ((folder, item), (other, original)) in links {
            let (folder, other) = (&self.inventory.folders[folder], &self.inventory.folders[other]);
            let (name, original) = (c_name(&folder.items[item].name), c_name(&other.items[original].name));
            let made = || {
                let (from, to) = (open_below(self.root, &other.path)?, open_below(self.root, &folder.path)?);
                remove_all(to.as_fd(), &name)?;
                Ok(rustix::fs::linkat(&from, &original, &to, &name, AtFlags::empty())?)
            };
            made().map_err(|error: io::Error| self.failed(&folder.path_of(name.to_bytes()), &error))?;
        }
        Ok(())
    }

    /// Attributes of directories, the deepest first: what is made in one changes its times.
    fn folders(&self) -> Result<(), Failure> {
        for (at, folder) in self.inventory.folders.iter().enumerate().rev() {
            let done = self.inventory.open(self.source, self.from, at).and_then(|from| {
                let to = open_below(self.root, &folder.path)?;
                copy::attributes(from.local().ok(), to.as_fd(), &folder.stat, self.lost)
            });
            done.map_err(|error| self.failed(&folder.path, &error))?;
        }
        Ok(())
    }
}

/// Opens a directory below another, by a path that may be empty.
pub(super) fn open_below(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { c".".to_owned() } else { c_name(path) };
    // The same calls as for sources, without their root.
    LocalSource::new("/").open_dir(&Handle::Local(root.try_clone()?), &path)?.local()?.try_clone_to_owned()
}
