//! Reads that something else answers than the thread that took them: which of them somebody still waits for.
//!
//! Whoever takes a read off here answers it, so that it is answered once: the one that has the bytes, or the one that is
//! told that it was interrupted (FUSE_INTERRUPT, `linux/fuse.h`). Threads take requests in any order, so that an
//! interrupt may be seen before what it is of: the last few of those are remembered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::source::object::Ticket;

/// How many interrupts of what is not known are remembered; of most the answer was on its way.
const REMEMBERED: usize = 64;

/// The reads that are under way, by the number of their request.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    reads: Mutex<FxHashMap<u64, Option<Ticket>>>,
    early: Mutex<VecDeque<u64>>,
    any_early: AtomicBool,
}

impl Waiting {
    /// Notes a read before it begins; false if it is not wanted any more.
    pub(super) fn begin(&self, unique: u64) -> bool {
        self.reads.lock().insert(unique, None);
        if !self.any_early.load(Ordering::Acquire) {
            return true;
        }
        let mut early = self.early.lock();
        let Some(at) = early.iter().position(|known| *known == unique) else { return true };
        early.remove(at);
        self.any_early.store(!early.is_empty(), Ordering::Release);
        drop(early);
        !self.finish(unique)
    }

    /// It is under way; what was answered already needs no ticket.
    pub(super) fn set(&self, unique: u64, ticket: Ticket) {
        if let Some(known) = self.reads.lock().get_mut(&unique) {
            *known = Some(ticket);
        }
    }

    /// True for the one that is to answer it.
    pub(super) fn finish(&self, unique: u64) -> bool {
        // A ticket may be one of the last to hold what it is of: it is dropped without the lock.
        let taken = self.reads.lock().remove(&unique);
        taken.is_some()
    }

    /// Nobody waits any more; true for the one that is to say so.
    pub(super) fn interrupt(&self, unique: u64) -> bool {
        if self.finish(unique) {
            return true;
        }
        let mut early = self.early.lock();
        if early.len() == REMEMBERED {
            early.pop_front();
        }
        early.push_back(unique);
        self.any_early.store(true, Ordering::Release);
        drop(early);
        // It may have begun since.
        self.finish(unique)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn each_read_is_answered_once() {
        let waiting = Waiting::default();
        assert!(waiting.begin(2));
        waiting.set(2, Ticket(None));
        assert!(waiting.finish(2));
        assert!(!waiting.interrupt(2), "the answer is on its way");
        assert!(waiting.begin(4));
        assert!(waiting.interrupt(4));
        assert!(!waiting.finish(4));
        waiting.set(4, Ticket(None));
        assert!(!waiting.finish(4), "a ticket alone is no read");
    }

    #[test]
    fn an_interrupt_may_come_first() {
        let waiting = Waiting::default();
        assert!(!waiting.interrupt(6));
        assert!(!waiting.begin(6));
        assert!(!waiting.finish(6));
        assert!(waiting.begin(8), "another one goes on");
    }

    #[test]
    fn an_interrupted_read_is_given_up() {
        struct Dropped(Arc<AtomicUsize>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (waiting, dropped) = (Waiting::default(), Arc::new(AtomicUsize::new(0)));
        assert!(waiting.begin(2));
        waiting.set(2, Ticket(Some(Box::new(Dropped(Arc::clone(&dropped))))));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        waiting.interrupt(2);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn whoever_is_first_answers() {
        let waiting = Waiting::default();
        for unique in (0..20_000).map(|n| n * 2) {
            let answers = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let (waiting, answers) = (&waiting, &answers);
                scope.spawn(move || {
                    if waiting.interrupt(unique) {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                });
                // Not begun counts as answered by the one that began it.
                let going = waiting.begin(unique);
                if !going || waiting.finish(unique) {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert_eq!(answers.into_inner(), 1);
        }
    }
}
