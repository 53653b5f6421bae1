//! Who wants attributes with the names.
//!
//! A listing with attributes spares whoever asks for them a request for each file. It costs a look at each file and an
//! inode in the kernel, which a walk that goes by names alone (`find -name`, `fd`, globs) does not use: without them
//! such a walk takes half the time. So the attributes of one file of a listing are held back now and then: who wants
//! attributes looks that file up. What a thread did in its last listing counts for its next.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

/// How many ways the table is split, so that threads seldom meet on a lock.
const SHARDS: usize = 16;
/// How many threads are known in each.
const KNOWN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// After so many listings somebody who wanted attributes is tried again.
const TRIED_AGAIN: u32 = 64;

/// What a listing is to give of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Give {
    /// Names and attributes.
    All,
    /// Attributes of all but the first.
    AllButFirst,
    /// Names alone.
    Names,
}

#[derive(Debug, Default)]
struct Habit {
    /// It goes by names.
    names: bool,
    /// What it wants was seen.
    seen: bool,
    /// Listings since then.
    since: u32,
    /// The directory of which something was held back last.
    held: Option<u64>,
    /// The directory whose listing is under way, and what it gives.
    lists: Option<(u64, Give)>,
}

/// What threads were seen to do, by thread.
#[derive(Debug)]
pub(super) struct Habits(Vec<Mutex<LruCache<u32, Habit>>>);

impl Default for Habits {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(LruCache::new(KNOWN))).collect())
    }
}

impl Habits {
    fn with<T>(&self, thread: u32, what: impl FnOnce(&mut Habit) -> T) -> T {
        let mut shard = self.0[thread as usize % SHARDS].lock();
        what(shard.get_or_insert_mut(thread, Habit::default))
    }

    /// What the listing of a directory that a thread begins, or goes on with, is to give.
    pub(super) fn lists(&self, thread: u32, dir: u64, begins: bool) -> Give {
        // The kernel's own threads, and those of other process namespaces, which cannot be told apart.
        if thread == 0 {
            return Give::All;
        }
        self.with(thread, |habit| {
            if !begins {
                return match habit.lists {
                    Some((known, Give::Names)) if known == dir => Give::Names,
                    _ => Give::All,
                };
            }
            if habit.held.take().is_some() {
                // Nobody has asked for what was held back.
                (habit.names, habit.seen, habit.since) = (true, true, 0);
            }
            habit.since += 1;
            if !habit.names && habit.since > TRIED_AGAIN {
                habit.seen = false;
            }
            let give = match (habit.seen, habit.names) {
                (false, _) => Give::AllButFirst,
                (true, true) => Give::Names,
                (true, false) => Give::All,
            };
            habit.lists = Some((dir, give));
            give
        })
    }

    /// Something of a directory was held back.
    pub(super) fn held(&self, thread: u32, dir: u64) {
        self.with(thread, |habit| habit.held = Some(dir));
    }

    /// A thread looks something up in a directory.
    pub(super) fn looks_up(&self, thread: u32, dir: u64) {
        let mut shard = self.0[thread as usize % SHARDS].lock();
        if let Some(habit) = shard.get_mut(&thread)
            && habit.held == Some(dir)
        {
            *habit = Habit { seen: true, lists: habit.lists, ..Habit::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALKER: u32 = 77;

    #[test]
    fn who_goes_by_names_gets_names() {
        let habits = Habits::default();
        // In the first there are no files.
        assert_eq!(habits.lists(WALKER, 1, true), Give::AllButFirst);
        assert_eq!(habits.lists(WALKER, 2, true), Give::AllButFirst);
        habits.held(WALKER, 2);
        assert_eq!(habits.lists(WALKER, 2, false), Give::All);
        assert_eq!(habits.lists(WALKER, 3, true), Give::Names);
        habits.held(WALKER, 3);
        assert_eq!(habits.lists(WALKER, 3, false), Give::Names);
        assert_eq!(habits.lists(WALKER, 4, true), Give::Names);
        assert_eq!(habits.lists(WALKER + 1, 4, true), Give::AllButFirst, "another one");
        assert_eq!(habits.lists(0, 4, true), Give::All);
    }

    #[test]
    fn who_asks_for_attributes_gets_them() {
        let habits = Habits::default();
        for _ in 0..3 {
            assert_eq!(habits.lists(WALKER, 2, true), Give::AllButFirst);
            habits.held(WALKER, 2);
            habits.looks_up(WALKER, 9);
            habits.looks_up(WALKER, 2);
            for dir in 0..u64::from(TRIED_AGAIN) {
                assert_eq!(habits.lists(WALKER, dir, true), Give::All, "{dir}");
            }
        }
        // From names back to attributes.
        assert_eq!(habits.lists(WALKER, 3, true), Give::AllButFirst);
        habits.held(WALKER, 3);
        assert_eq!(habits.lists(WALKER, 4, true), Give::Names);
        habits.held(WALKER, 4);
        habits.looks_up(WALKER, 4);
        assert_eq!(habits.lists(WALKER, 5, true), Give::All);
    }
}
