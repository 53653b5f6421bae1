//! Files that are replaced, removed, cut or written to in the source while they are open through the mount, in every way
//! in which the mount can open them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use crate::bed::{TestBed, can_mount, eventually, names};

const WAYS: [&str; 3] = ["auto", "cached", "passthrough"];
/// In bytes: one that is always read through the page cache by default, and one that is passed through.
const SIZES: [usize; 2] = [5000, 300_000];

/// A mount of one run with one file, which is open.
struct Held {
    /// What was opened; closed before the mount ends.
    open: File,
    bed: TestBed,
    /// What it held then.
    old: Vec<u8>,
    /// What is to be held by what takes its place.
    new: Vec<u8>,
    /// How it was made, for messages.
    how: String,
}

impl Held {
    fn new(way: &str, size: usize) -> Self {
        let bed = TestBed::new(&["run/marker="]);
        let [old, new] = [b'o', b'n'].map(|byte| [byte, b'0', b'1', b'2', b'3'].repeat(size / 5));
        fs::write(bed.src.join("run/file"), &old).expect("a file");
        bed.mount(["-p", &bed.file("run.yaml", "files: [marker]\n"), "--view", "all", "--open", way]);
        let open = File::open(bed.mnt.join("run/run/file")).expect("a file");
        let held = Self { open, bed, old, new, how: format!("{way}, {size} bytes") };
        // The beginning is in the kernel's cache from here on, and the rest may not be.
        assert_eq!(held.read(0, 100), held.old[..100], "{}", held.how);
        held
    }

    fn source(&self) -> PathBuf {
        self.bed.src.join("run/file")
    }

    fn seen(&self) -> PathBuf {
        self.bed.mnt.join("run/run/file")
    }

    /// Up to `length` bytes of what is open, from `at` on.
    fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut into = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.open.read_at(&mut into[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => panic!("{}: {error}", self.how),
            }
        }
        into.truncate(filled);
        into
    }

    /// All of what is open, up to more than any of these files holds.
    fn whole(&self) -> Vec<u8> {
        self.read(0, 2 * SIZES[1])
    }

    /// What is open is what it was, wherever it is read.
    #[track_caller]
    fn is_what_it_was(&self) {
        assert!(self.whole() == self.old, "{}: the whole", self.how);
        let middle = self.old.len() / 2;
        assert!(self.read(middle as u64, 1000) == self.old[middle..middle + 1000], "{}: the middle", self.how);
        let meta = self.open.metadata().unwrap_or_else(|error| panic!("{}: {error}", self.how));
        assert_eq!(meta.len(), self.old.len() as u64, "{}", self.how);
    }

    /// Waits until those who open it now read this.
    #[track_caller]
    fn opens_as(&self, content: &[u8]) {
        let read = || fs::read(self.seen()).is_ok_and(|read| read == content);
        eventually(&format!("{}: who opens it now reads the new bytes", self.how), read);
        assert_eq!(fs::metadata(self.seen()).expect("a file").len(), content.len() as u64, "{}", self.how);
    }
}

fn each(act: impl Fn(Held)) {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        for size in SIZES {
            act(Held::new(way, size));
        }
    }
}

#[test]
fn what_was_replaced_stays_as_it_was() {
    each(|held| {
        let number = held.open.metadata().expect("attributes").ino();
        fs::write(held.bed.src.join("run/next"), &held.new).expect("a file");
        fs::rename(held.bed.src.join("run/next"), held.source()).expect("a file in place of another");
        held.is_what_it_was();
        held.opens_as(&held.new);
        held.is_what_it_was();
        let now = fs::metadata(held.seen()).expect("a file").ino();
        assert_ne!(now, number, "{}: another file has another number", held.how);
        assert_eq!(held.open.metadata().expect("attributes").ino(), number, "{}", held.how);
        // And again, with both open.
        let second = File::open(held.seen()).expect("a file");
        fs::write(held.bed.src.join("run/next"), "third").expect("a file");
        fs::rename(held.bed.src.join("run/next"), held.source()).expect("a file in place of another");
        held.opens_as(b"third");
        let mut all = vec![0; held.new.len()];
        second.read_exact_at(&mut all, 0).expect("what was open");
        assert!(all == held.new, "{}: the second", held.how);
        held.is_what_it_was();
    });
}

#[test]
fn what_was_removed_stays_as_it_was() {
    each(|held| {
        fs::remove_file(held.source()).expect("a file");
        held.is_what_it_was();
        eventually(&format!("{}: it is gone", held.how), || File::open(held.seen()).is_err());
        eventually(&format!("{}: it is not listed", held.how), || names(held.bed.mnt.join("run/run")) == ["marker"]);
        held.is_what_it_was();
        assert_eq!(held.open.metadata().expect("attributes").nlink(), 0, "{}", held.how);
        // One of its own that takes the name is another.
        fs::write(held.source(), &held.new).expect("a file");
        held.opens_as(&held.new);
        held.is_what_it_was();
    });
}

#[test]
fn what_was_renamed_stays_open_and_is_found_by_its_new_name() {
    each(|held| {
        fs::rename(held.source(), held.bed.src.join("run/moved")).expect("another name");
        held.is_what_it_was();
        let moved = held.bed.mnt.join("run/run/moved");
        eventually(&format!("{}: it has its new name", held.how), || {
            fs::read(&moved).is_ok_and(|read| read == held.old) && fs::symlink_metadata(held.seen()).is_err()
        });
        let (open, by_name) = (held.open.metadata().expect("attributes"), fs::metadata(&moved).expect("a file"));
        assert_eq!(open.ino(), by_name.ino(), "{}: one file", held.how);
        held.is_what_it_was();
    });
}

#[test]
fn what_lost_its_directory_stays_as_it_was() {
    each(|held| {
        fs::rename(held.bed.src.join("run"), held.bed.dir.join("away")).expect("a directory");
        held.is_what_it_was();
        eventually(&format!("{}: the match is gone", held.how), || names(held.bed.mnt.join("run")).is_empty());
        held.is_what_it_was();
        fs::remove_dir_all(held.bed.dir.join("away")).expect("a directory");
        held.is_what_it_was();
    });
}

#[test]
fn what_was_cut_is_seen_cut() {
    each(|held| {
        let half = held.old.len() / 2;
        File::options().write(true).open(held.source()).and_then(|file| file.set_len(half as u64)).expect("a file");
        eventually(&format!("{}: what is open is shorter", held.how), || {
            held.open.metadata().expect("attributes").len() == half as u64 && held.whole() == held.old[..half]
        });
        assert_eq!(held.read(half as u64, 10), b"", "{}: nothing behind the end", held.how);
        held.opens_as(&held.old[..half]);
        File::create(held.source()).expect("an empty file");
        eventually(&format!("{}: what is open is empty", held.how), || held.whole().is_empty());
        held.opens_as(b"");
    });
}

#[test]
fn what_was_added_is_seen() {
    each(|held| {
        let mut all = held.old.clone();
        for more in [&b"more"[..], &[b'm'; 10_000]] {
            let mut file = File::options().append(true).open(held.source()).expect("a file");
            file.write_all(more).expect("more");
            all.extend_from_slice(more);
            eventually(&format!("{}: what is open is longer", held.how), || {
                held.open.metadata().expect("attributes").len() == all.len() as u64 && held.whole() == all
            });
            held.opens_as(&all);
        }
    });
}

#[test]
fn what_was_written_over_is_seen() {
    each(|held| {
        // Of the same length, where it has been read before and where not.
        let file = File::options().write(true).open(held.source()).expect("a file");
        file.write_all_at(&held.new, 0).expect("other bytes");
        eventually(&format!("{}: what is open has the new bytes", held.how), || held.whole() == held.new);
        held.opens_as(&held.new);
    });
}
