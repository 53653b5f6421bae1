//! Attributes of the entries of a slow directory, looked at beside each other and ahead of their turn.
//!
//! On a disk of this machine a look takes a microsecond and is done when it is asked for. Where each one is a question to
//! another machine, or to a disk that has to find it, a listing would wait for them one by one.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rayon::prelude::*;

/// How many looks are under way at once: they wait for others, not for a core.
const BESIDE: usize = 16;
/// How many looks are done one by one, before it is said that they are slow.
const FIRST: u32 = 8;
/// A look that takes longer is slow: some ten times what it costs to have another thread do it.
const SLOW: Duration = Duration::from_micros(100);

/// The threads that look at a source's attributes; there are none before they are needed.
#[derive(Debug, Default)]
pub(super) struct Lookers(OnceLock<Option<rayon::ThreadPool>>);

impl Lookers {
    /// The threads; `None` if they cannot be started.
    fn threads(&self) -> Option<&rayon::ThreadPool> {
        let start = || {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(BESIDE).thread_name(|at| format!("stat-{at}"));
            threads.build().inspect_err(|error| tracing::warn!(%error, "attributes are looked at one by one")).ok()
        };
        self.0.get_or_init(start).as_ref()
    }
}

/// A name in a directory, and whether what it leads to is meant.
pub(super) type Wanted = (CString, bool);

/// The looks at one directory's entries, in the order in which they are asked for.
pub(super) struct Looks<'a, T, F> {
    lookers: &'a Lookers,
    look: F,
    looked: u32,
    took: Duration,
    ahead: VecDeque<(Wanted, io::Result<T>)>,
}

impl<'a, T: Send, F: Fn(&Wanted) -> io::Result<T> + Sync> Looks<'a, T, F> {
    /// None yet; `look` looks at one.
    pub(super) fn new(lookers: &'a Lookers, look: F) -> Self {
        Self { lookers, look, looked: 0, took: Duration::ZERO, ahead: VecDeque::new() }
    }

    /// What comes of a look; `following` says which others will be asked for next, and is asked only where looks are slow.
    pub(super) fn next(&mut self, wanted: Wanted, following: impl FnOnce() -> Vec<Wanted>) -> (Wanted, io::Result<T>) {
        if self.ahead.is_empty()
            && self.are_slow()
            && let Some(threads) = self.lookers.threads()
        {
            let (mut all, look) = (following(), &self.look);
            all.insert(0, wanted.clone());
            let looks = all.into_par_iter().with_max_len(1).map(|wanted| {
                let looked = look(&wanted);
                (wanted, looked)
            });
            self.ahead = threads.install(|| looks.collect::<Vec<_>>()).into();
        }
        if let Some(ahead) = self.ahead.pop_front() {
            if ahead.0 == wanted {
                return ahead;
            }
            // Others are asked for than was said.
            self.ahead.clear();
        }
        let begun = Instant::now();
        let looked = (self.look)(&wanted);
        self.took += begun.elapsed();
        self.looked += 1;
        (wanted, looked)
    }

    fn are_slow(&self) -> bool {
        self.looked >= FIRST && self.took > SLOW * self.looked
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    fn wanted(number: usize) -> Wanted {
        (CString::new(number.to_string()).expect("no NUL"), number.is_multiple_of(2))
    }

    fn number(wanted: &Wanted) -> usize {
        wanted.0.to_str().expect("a number").parse().expect("a number")
    }

    #[test]
    fn quick_looks_are_done_when_they_are_asked_for() {
        let (lookers, calls) = (Lookers::default(), Mutex::new(Vec::new()));
        let mut looks = Looks::new(&lookers, |wanted| {
            calls.lock().expect("a lock").push(number(wanted));
            Ok(())
        });
        for at in 0..100 {
            looks.took = Duration::ZERO;
            let (_, looked) = looks.next(wanted(at), || panic!("they are not slow"));
            looked.expect("it is there");
            assert_eq!(calls.lock().expect("a lock").len(), at + 1);
        }
        assert!(lookers.0.get().is_none(), "no thread was started");
    }

    #[test]
    fn slow_looks_are_done_beside_each_other_and_come_in_order() {
        let (lookers, under_way, all) = (Lookers::default(), Mutex::new(0), Condvar::new());
        // None of the first ones ends before all of them have begun.
        let mut looks = Looks::new(&lookers, |wanted| {
            let mut count = under_way.lock().expect("a lock");
            *count += 1;
            all.notify_all();
            let waited = all.wait_timeout_while(count, Duration::from_secs(20), |count| *count < BESIDE);
            let timed_out = waited.expect("a lock").1.timed_out();
            assert!(!timed_out, "they are looked at one by one");
            if number(wanted).is_multiple_of(3) {
                Err(io::Error::from_raw_os_error(libc::ENOENT))
            } else {
                Ok(number(wanted))
            }
        });
        (looks.looked, looks.took) = (FIRST, SLOW * FIRST * 2);
        for at in 0..40 {
            let (of, looked) = looks.next(wanted(at), || {
                assert_eq!(at, 0, "once");
                (1..40).map(wanted).collect()
            });
            assert_eq!(of, wanted(at));
            assert_eq!(looked.ok(), (!at.is_multiple_of(3)).then_some(at));
        }
        assert_eq!(*under_way.lock().expect("a lock"), 40);
    }

    #[test]
    fn what_was_not_said_to_follow_is_looked_at_by_itself() {
        let lookers = Lookers::default();
        let mut looks = Looks::new(&lookers, |wanted| Ok(number(wanted)));
        (looks.looked, looks.took) = (FIRST, SLOW * FIRST * 100);
        for (at, following) in [(1, vec![2, 3]), (2, vec![]), (9, vec![]), (3, vec![])] {
            let (of, looked) = looks.next(wanted(at), || following.into_iter().map(wanted).collect());
            assert_eq!((of, looked.ok()), (wanted(at), Some(at)));
        }
    }
}
