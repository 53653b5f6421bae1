//! Having the kernel forget once more what it may have been told of too late.
//!
//! The kernel compares modification times of directories by itself. But the answer to a reader that asked before a change
//! can be put into its cache after another reader has seen the change, and is then kept as if it were the new content. An
//! answer that is late on its way to the kernel is noticed ([`super::epochs`]). One that has arrived is not: the reader
//! puts it into the cache by itself, whenever it runs again, which on a busy machine was seen to take longer than 100 ms.
//! So what has changed is forgotten again, three times, and each time as much later as it is less likely.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use fuser::{INodeNo, Notifier};
use rustc_hash::FxHashMap;

use super::forget::Late;

/// When an inode is forgotten again, after its last change.
const AFTER: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];

/// The inodes that are to be forgotten again.
#[derive(Debug, Default)]
struct Settling {
    /// When each one has changed last.
    changed: FxHashMap<u64, Instant>,
    /// Each one in one of the queues, with the time when it is due.
    queues: [VecDeque<(Instant, u64)>; AFTER.len()],
}

impl Settling {
    /// An inode has changed.
    fn push(&mut self, ino: u64, now: Instant) {
        if self.changed.insert(ino, now).is_none() {
            self.queues[0].push_back((now + AFTER[0], ino));
        }
    }

    /// When the next one is due.
    fn due(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.front()).map(|(due, _)| *due).min()
    }

    /// One that is due.
    fn pop(&mut self, now: Instant) -> Option<u64> {
        for stage in 0..AFTER.len() {
            while let Some((_, ino)) = self.queues[stage].front().copied().filter(|(due, _)| *due <= now) {
                self.queues[stage].pop_front();
                let changed = self.changed.get(&ino).copied().unwrap_or(now);
                if changed + AFTER[stage] > now {
                    // Once more since it was put here.
                    self.queues[0].push_back((now.max(changed + AFTER[0]), ino));
                } else if let Some(next) = self.queues.get_mut(stage + 1) {
                    next.push_back((now.max(changed + AFTER[stage + 1]), ino));
                    return Some(ino);
                } else {
                    self.changed.remove(&ino);
                    return Some(ino);
                }
            }
        }
        None
    }
}

/// Has the kernel forget, until nobody sends any more.
pub(super) fn settle(late: &Receiver<Late>, notifier: &Notifier) {
    let mut settling = Settling::default();
    loop {
        let now = Instant::now();
        while let Some(ino) = settling.pop(now) {
            let _ = notifier.inval_inode(INodeNo(ino), 0, 0);
        }
        let next = match settling.due() {
            None => late.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => late.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        // The kernel answers ENOENT for what it has forgotten by itself.
        match next {
            Ok(Late::Settle(ino)) => settling.push(ino, Instant::now()),
            Ok(Late::Entry(parent, name)) => {
                let _ = notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name));
            }
            Ok(Late::Inode(ino) | Late::Listing(ino)) => {
                let _ = notifier.inval_inode(INodeNo(ino), 0, 0);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_forgotten_later_and_later() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut settling = Settling::default();
        let mut told = Vec::new();
        settling.push(1, at(0));
        for millis in (0..15_000).step_by(10) {
            if millis == 500 {
                settling.push(2, at(500));
                settling.push(1, at(500));
            }
            while let Some(ino) = settling.pop(at(millis)) {
                told.push((millis, ino));
            }
        }
        // For one that has changed again it begins anew, at the latest when it would have been its turn.
        assert_eq!(told, [(100, 1), (600, 2), (1010, 1), (1500, 2), (1500, 1), (10_500, 2), (10_500, 1)]);
        assert!(settling.changed.is_empty() && settling.due().is_none());
    }
}
