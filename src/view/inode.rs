//! Inode numbers: the same for the same thing, in every view and after a remount.
//!
//! The two highest bits say what a number is for, so that the kinds never meet:
//!
//! | bits | for | made of |
//! | --- | --- | --- |
//! | `00` | files, links and specials | the device's place (14 bits, from 1) and the file's own inode number (48 bits) |
//! | `01` | such whose number is longer, on a further device, or used again | a hash of device, inode number and birth |
//! | `10` | folders and matches | a hash of the path in the view, or of pattern, source and path |
//! | `11` | directories inside matches | a hash of the match and the path below it |
//!
//! Hashes that meet are moved on by one; [`Inodes`] remembers which numbers are in use.
//! 1 is the root, the numbers below 2^40 are for `.veinfs`, those from there to 2^47 for [`PHANTOMS`].

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::Xxh3;

/// The root of the mount.
pub const ROOT: u64 = 1;
/// Numbers for entries that are there for one call of the kernel's, to announce a change.
pub const PHANTOMS: std::ops::Range<u64> = 1 << 40..1 << 47;
const SPACE: u64 = 1 << 62;

/// A 62-bit hash of some bytes, the same on every machine.
pub fn hash62(parts: &[&[u8]]) -> u64 {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest() & (SPACE - 1)
}

/// The number that a directory inside a match is to have, by the match's own number and the path below it.
pub fn inside(place: u64, path: &[u8]) -> u64 {
    (3 * SPACE) | hash62(&[&place.to_le_bytes(), path])
}

/// True of the numbers that folders and matches have.
pub fn may_be_folder(ino: u64) -> bool {
    ino / SPACE == 2
}

/// True of the numbers that directories have: folders, matches, and those inside matches.
pub fn is_directory(ino: u64) -> bool {
    ino / SPACE >= 2
}

/// Numbers of folders and matches.
#[derive(Debug, Default)]
pub struct Inodes {
    /// The numbers in use, each with a second hash of what it was given to.
    taken: FxHashMap<u64, u64>,
}

impl Inodes {
    /// The number of the folder at a path of the view.
    pub fn folder(&mut self, path: &[u8]) -> u64 {
        self.give(&[b"f", path])
    }

    /// The number of a match.
    pub fn place(&mut self, pattern: &[u8], source: &[u8], path: &[u8]) -> u64 {
        self.give(&[b"m", pattern, source, path])
    }

    /// The folder at a path is no more; it gets the same number if it comes back.
    pub fn release_folder(&mut self, path: &[u8]) {
        self.release(&[b"f", path]);
    }

    /// A match is no more; it gets the same number if it comes back.
    pub fn release_place(&mut self, pattern: &[u8], source: &[u8], path: &[u8]) {
        self.release(&[b"m", pattern, source, path]);
    }

    fn give(&mut self, parts: &[&[u8]]) -> u64 {
        let (mut ino, check) = key(parts);
        while *self.taken.entry(ino).or_insert(check) != check {
            ino = next(ino);
        }
        ino
    }

    fn release(&mut self, parts: &[&[u8]]) {
        let (mut ino, check) = key(parts);
        while let Some(known) = self.taken.get(&ino) {
            if *known == check {
                self.taken.remove(&ino);
                return;
            }
            ino = next(ino);
        }
    }
}

/// The number that something is to have, and a second hash of it.
fn key(parts: &[&[u8]]) -> (u64, u64) {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.digest128();
    ((2 * SPACE) | (hash as u64 & (SPACE - 1)), (hash >> 64) as u64)
}

fn next(ino: u64) -> u64 {
    (2 * SPACE) | ((ino + 1) & (SPACE - 1))
}

/// Numbers of files, by device and inode number.
#[derive(Debug, Default)]
pub struct Devices(parking_lot::RwLock<Vec<u64>>);

impl Devices {
    /// The number of a file.
    pub fn ino(&self, dev: u64, ino: u64) -> u64 {
        let place = self.0.read().iter().position(|known| *known == dev);
        let place = place.unwrap_or_else(|| {
            let mut devices = self.0.write();
            devices.iter().position(|known| *known == dev).unwrap_or_else(|| {
                devices.push(dev);
                devices.len() - 1
            })
        }) as u64
            + 1;
        if ino < 1 << 48 && place < 1 << 14 {
            place << 48 | ino
        } else {
            SPACE | hash62(&[&dev.to_le_bytes(), &ino.to_le_bytes()])
        }
    }

    /// The number of a file while another one, which had the same inode number before, is remembered by its own.
    pub fn another(&self, dev: u64, ino: u64, generation: u64) -> u64 {
        SPACE | hash62(&[&dev.to_le_bytes(), &ino.to_le_bytes(), &generation.to_le_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_differ() {
        let (mut one, mut two) = (Inodes::default(), Inodes::default());
        let a = one.folder(b"runs");
        two.folder(b"other");
        assert_eq!(two.folder(b"runs"), a);
        assert_ne!(one.place(b"runs", b"s", b"p"), a);
        assert_eq!(one.folder(b"runs"), a);
        assert_eq!(a >> 62, 2);
        assert_eq!(inside(a, b"x") >> 62, 3);
        let devices = Devices::default();
        assert_eq!(devices.ino(7, 42), 1 << 48 | 42);
        assert_eq!(devices.ino(8, 42), 2 << 48 | 42);
        assert_eq!(devices.ino(7, 1 << 50) >> 62, 1);
    }
}
