//! Which answers came late.
//!
//! A change is told to the kernel when it is known. An answer that was put together before that may reach the kernel
//! after it, and would be kept as if it were new. So each change is counted before the kernel is told, and who has sent
//! an answer looks whether the count is what it was when the request came: if not, the kernel is told once more.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

/// Directories share a count with others, so that counts need no lock and no more memory.
const SLOTS: usize = 1024;

/// Counts of changes.
#[derive(Debug)]
pub(super) struct Epochs {
    of_paths: Box<[AtomicU64]>,
    of_all: AtomicU64,
    any: AtomicU64,
}

impl Default for Epochs {
    fn default() -> Self {
        let of_paths = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { of_paths, of_all: AtomicU64::new(0), any: AtomicU64::new(0) }
    }
}

impl Epochs {
    fn slot(&self, source: usize, path: &[u8]) -> &AtomicU64 {
        &self.of_paths[(xxh3_64(path) as usize ^ source) % SLOTS]
    }

    /// The count for a directory of a source.
    pub(super) fn at(&self, source: usize, path: &[u8]) -> u64 {
        let own = self.slot(source, path).load(Ordering::SeqCst);
        own.wrapping_add(self.of_all.load(Ordering::SeqCst))
    }

    /// The count for all directories above one: while it is the same, what was opened by this path is what is there.
    pub(super) fn on_the_way(&self, source: usize, path: &[u8]) -> u64 {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let above = ends.chain((!path.is_empty()).then_some(0));
        let counts = above.map(|end| self.slot(source, &path[..end]).load(Ordering::SeqCst));
        counts.fold(self.of_all.load(Ordering::SeqCst), u64::wrapping_add)
    }

    /// The count of all changes.
    pub(super) fn any(&self) -> u64 {
        self.any.load(Ordering::SeqCst)
    }

    /// Something in a directory, or it itself, has changed.
    pub(super) fn count(&self, source: usize, path: &[u8]) {
        self.slot(source, path).fetch_add(1, Ordering::SeqCst);
        self.any.fetch_add(1, Ordering::SeqCst);
    }

    /// Anything may have changed.
    pub(super) fn count_all(&self) {
        self.of_all.fetch_add(1, Ordering::SeqCst);
        self.any.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_where_they_are() {
        let epochs = Epochs::default();
        let (own, any) = (epochs.at(0, b"runs"), epochs.any());
        epochs.count(0, b"runs");
        assert_ne!(epochs.at(0, b"runs"), own);
        assert_ne!(epochs.any(), any);
        let way = epochs.on_the_way(0, b"runs/a/b");
        epochs.count(0, b"runs/a/b");
        assert_eq!(epochs.on_the_way(0, b"runs/a/b"), way);
        epochs.count(0, b"runs");
        assert_ne!(epochs.on_the_way(0, b"runs/a/b"), way);
        let own = epochs.at(0, b"runs");
        epochs.count_all();
        assert_ne!(epochs.at(0, b"runs"), own);
    }
}
