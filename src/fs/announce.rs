//! Telling programs that watch the mount with inotify(7) that matches come and go.
//!
//! The kernel raises such events only for changes that go through its own system calls; no message of a FUSE file
//! system does it. So each change of the view is played to it once more, after it has become true: a helper, a process
//! of its own, calls mkdir(2) or rmdir(2) on the mount for a name that has come or gone. What the kernel
//! is given for it is a *phantom*, a directory with a number of its own that is good for this one call: it is never
//! the match itself. Whoever looks the name up, then or later, gets what the view says.
//!
//! Why it is safe:
//! - Nobody else can change anything. The kernel says which thread a request comes from; all but the helper's get
//!   EROFS, and the helper only for the names that it was just told to announce. Where the privilege is there, the
//!   mount itself is read-only to all besides, and the helper goes through a private copy of it ([`Way::Clone`]).
//! - No real inode is marked as removed: when a name is looked up for rmdir(2), the phantom is the answer. The kernel
//!   does not ask if it already knows what the name stands for; then rmdir is answered ESTALE, which makes the kernel
//!   ask and try once more (`retry_estale` in `fs/namei.c`), all under the folder's own lock. What is open in a match
//!   that goes away works on.
//! - Nothing waits for it. The view and the kernel's caches are right before it is told; it has no lock of ours, and
//!   before it takes one of the kernel's it asks for attributes, to be sure that somebody answers. It is a process
//!   since a process must not wait for itself: one that is killed while a thread of it waits for its own answer never
//!   closes `/dev/fuse`, and so never ends.
//! - It does not stand in the way. The kernel locks a folder while a name in it is made, and first waits for those who
//!   look names up there. Where somebody waits for a slow source, it is not tried: all others would queue behind it.
//! - It does not hold the mount. What it has of it is open for some milliseconds in a burst, and never while it is
//!   idle; the helper itself ends soon after.
//! - It is bounded. Folders that the kernel was never told of cannot be watched and are passed over. Of each name only
//!   the outcome is kept, of at most 20,000 names; what is more is dropped but for the last one of each
//!   folder, so that whoever reads a folder anew on any event sees it all. A watcher that counts on each single event
//!   has lost some by then anyway: the kernel's queue holds 16,384.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use crate::view::inode::{self, PHANTOMS};
use crate::view::{Changes, Item, View};
use helper::{Helper, Op};
pub use helper::{Reach, Way, serve};

mod attr;
mod helper;

/// How many names may wait to be announced.
const MOST_PENDING: usize = 20_000;
/// A helper that had nothing to do for this long is ended.
const IDLE: Duration = Duration::from_secs(10);
/// How often a helper may break before no other is started.
const MOST_BROKEN: u32 = 3;

/// A folder in which a request takes longer than this is left alone.
const SLOW: Duration = Duration::from_millis(20);

/// What an entry looks like in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
}

/// What is to be said of a name. Both: it stands for another thing now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    gone: Option<Kind>,
    came: Option<Kind>,
}

impl Change {
    /// This change, and then `later`. What came and went is still said to be gone: it may have been listed meanwhile.
    fn then(self, later: Self) -> Self {
        match later.gone {
            Some(kind) => Self { gone: self.gone.or(Some(kind)), came: later.came },
            None => Self { gone: self.gone, came: later.came.or(self.came) },
        }
    }
}

/// A folder's inode number, and a name in it.
type Key = (u64, Box<[u8]>);

/// What waits to be announced.
#[derive(Debug, Default)]
struct Pending {
    /// The names in the order in which they were first told.
    order: VecDeque<Key>,
    changes: FxHashMap<Key, Change>,
    /// The path of each folder that has a name here.
    paths: FxHashMap<u64, Box<[u8]>>,
    /// Where there was no room for more: the last name of each folder.
    last: FxHashMap<u64, (Box<[u8]>, Change)>,
    /// How many names are being announced.
    in_hand: usize,
    ended: bool,
}

impl Pending {
    fn add(&mut self, key: Key, change: Change) {
        if let Some(known) = self.changes.get_mut(&key) {
            *known = known.then(change);
        } else if self.order.len() < MOST_PENDING {
            self.changes.insert(key.clone(), change);
            self.order.push_back(key);
        } else {
            self.last.insert(key.0, (key.1, change));
        }
    }

    /// What could not be done yet, to be done first.
    fn put_back(&mut self, key: Key, path: Box<[u8]>, change: Change) {
        if self.ended {
            return;
        }
        self.paths.insert(key.0, path);
        match self.changes.get_mut(&key) {
            Some(later) => *later = change.then(*later),
            None => {
                self.changes.insert(key.clone(), change);
                self.order.push_front(key);
            }
        }
    }

    /// The next names, at most `most`.
    fn take(&mut self, most: usize) -> Vec<(Key, Change)> {
        if self.order.is_empty() {
            let last = std::mem::take(&mut self.last);
            last.into_iter().for_each(|(folder, (name, change))| self.add((folder, name), change));
        }
        let names = self.order.drain(..most.min(self.order.len()));
        let taken = names.filter_map(|key| self.changes.remove(&key).map(|change| (key, change))).collect();
        if self.order.is_empty() && self.order.capacity() > 1024 {
            (self.order, self.changes) = Default::default();
        }
        taken
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty() && self.last.is_empty()
    }
}

/// What the helper is about to do with a name.
#[derive(Debug)]
struct Expected {
    change: Change,
    /// The kernel was given a phantom for the name, to remove.
    given: bool,
}

/// What the helper is to get for a name that it looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The name is not there.
    Nothing,
    /// It stands for a phantom with this inode number.
    Phantom(u64, Kind),
}

/// Announces changes of the view; clones are the same one.
#[derive(Clone, Debug)]
pub struct Announcer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Matches are shown as links.
    linked: bool,
    /// The folders that the kernel knows, each with how often it was told of it.
    known: Mutex<FxHashMap<u64, u64>>,
    /// The requests in each folder that wait for a source, by when they began.
    visits: Mutex<FxHashMap<u64, Vec<Instant>>>,
    pending: Mutex<Pending>,
    wake: Condvar,
    /// The helper's process id, which is the id of its only thread; 0 if there is none.
    helper: AtomicU32,
    expected: Mutex<FxHashMap<Key, Expected>>,
    next_phantom: AtomicU64,
    /// Why nothing is announced.
    off: Mutex<Option<String>>,
    /// How many names were announced.
    announced: AtomicU64,
    /// How long it took, in microseconds.
    took: AtomicU64,
}

impl Announcer {
    /// One that announces nothing until it is started; `linked` if matches are shown as links.
    pub fn new(linked: bool) -> Self {
        Self(Arc::new(Shared {
            linked,
            known: Mutex::default(),
            visits: Mutex::default(),
            pending: Mutex::default(),
            wake: Condvar::new(),
            helper: AtomicU32::new(0),
            expected: Mutex::default(),
            next_phantom: AtomicU64::new(PHANTOMS.start),
            off: Mutex::new(Some("it has not been started".to_owned())),
            announced: AtomicU64::new(0),
            took: AtomicU64::new(0),
        }))
    }

    /// Announces from now on, to the mount that `reach` leads to.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(&self, reach: Reach) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        *self.0.off.lock() = None;
        std::thread::Builder::new().name("announce".into()).spawn(move || shared.run(&reach)).map(drop)
    }

    /// Announces nothing any more, for this reason.
    pub fn stop(&self, why: &str) {
        self.0.stop(why);
    }

    /// Takes up what changed from one view to the next, to be called when that is published and the kernel's caches
    /// have been told. Returns at once.
    pub fn tell(&self, changes: &Changes, old: &View, new: &View) {
        if self.0.off.lock().is_some() {
            return;
        }
        let kind = |view: &View, folder: u64, name: &[u8]| {
            view.folders.get(folder)?.entries.get(name).map(|item| match item {
                Item::Match(_) if self.0.linked => Kind::Link,
                Item::Match(_) | Item::Folder(_) => Kind::Dir,
            })
        };
        let mut told: Vec<(Key, Change)> = Vec::new();
        {
            let known = self.0.known.lock();
            let is_known = |folder: u64| folder == inode::ROOT || known.contains_key(&folder);
            for (folder, name) in changes.names.iter().filter(|(folder, _)| is_known(*folder)) {
                let gone = kind(old, *folder, name);
                told.push(((*folder, name.clone()), Change { gone, came: None }));
            }
            for (folder, name) in changes.added.iter().filter(|(folder, _)| is_known(*folder)) {
                let came = kind(new, *folder, name);
                told.push(((*folder, name.clone()), Change { gone: None, came }));
            }
        }
        // A folder that has come is announced before what is in it.
        let depth = |folder: &u64| {
            new.folders.get(*folder).map_or(0, |folder| match &*folder.path {
                [] => 0,
                path => 1 + path.iter().filter(|byte| **byte == b'/').count(),
            })
        };
        told.sort_by_cached_key(|((folder, _), _)| depth(folder));
        let mut pending = self.0.pending.lock();
        for (key, change) in told {
            // What is in a folder that has gone cannot be reached any more; its own name is told in the one above.
            let Some(folder) = new.folders.get(key.0) else { continue };
            if change != Change::default() {
                pending.paths.entry(key.0).or_insert_with(|| folder.path.clone());
                pending.add(key, change);
            }
        }
        if !pending.is_empty() {
            self.0.wake.notify_all();
        }
    }

    /// The kernel was told of a folder once more.
    pub(crate) fn looked_up(&self, folder: u64) {
        *self.0.known.lock().entry(folder).or_default() += 1;
    }

    /// The kernel forgets what it was told of `lookups` times.
    pub(crate) fn forget(&self, ino: u64, lookups: u64) {
        if !inode::may_be_folder(ino) {
            return;
        }
        let mut known = self.0.known.lock();
        if let Some(count) = known.get_mut(&ino) {
            *count = count.saturating_sub(lookups);
            if *count == 0 {
                known.remove(&ino);
            }
        }
    }

    /// A request in a folder that may wait for a source, until it is dropped.
    pub(crate) fn visit(&self, folder: u64) -> Visit<'_> {
        let begun = Instant::now();
        self.0.visits.lock().entry(folder).or_default().push(begun);
        Visit { shared: &self.0, folder, begun }
    }

    fn is_helper(&self, thread: u32) -> bool {
        // The kernel says 0 of a thread that is in no process namespace of ours.
        thread != 0 && thread == self.0.helper.load(Ordering::Acquire)
    }

    /// What a name is to stand for if it is the helper's `thread` that looks it up, to announce it.
    pub(crate) fn lookup(&self, thread: u32, folder: u64, name: &[u8]) -> Option<Answer> {
        if !self.is_helper(thread) {
            return None;
        }
        let mut expected = self.0.expected.lock();
        let expected = expected.get_mut(&(folder, name.into()))?;
        Some(match expected.change.gone {
            Some(kind) => {
                expected.given = true;
                Answer::Phantom(self.0.phantom(), kind)
            }
            None => Answer::Nothing,
        })
    }

    /// The number of the phantom that the helper makes to announce a name.
    ///
    /// # Errors
    /// EROFS for anybody else, and for any other name.
    pub(crate) fn make(&self, thread: u32, folder: u64, name: &[u8], kind: Kind) -> io::Result<u64> {
        let read_only = || io::Error::from_raw_os_error(libc::EROFS);
        if !self.is_helper(thread) {
            return Err(read_only());
        }
        let (key, mut expected) = ((folder, name.into()), self.0.expected.lock());
        match expected.get(&key).map(|expected| expected.change) {
            Some(Change { gone: None, came: Some(came) }) if came == kind => expected.remove(&key),
            _ => return Err(read_only()),
        };
        Ok(self.0.phantom())
    }

    /// Lets the helper remove a phantom to announce that a name has gone.
    ///
    /// # Errors
    /// EROFS for anybody else, and for any other name; ESTALE if the kernel may have something else under the name.
    pub(crate) fn remove(&self, thread: u32, folder: u64, name: &[u8], kind: Kind) -> io::Result<()> {
        let read_only = || io::Error::from_raw_os_error(libc::EROFS);
        if !self.is_helper(thread) {
            return Err(read_only());
        }
        let (key, mut all) = ((folder, name.into()), self.0.expected.lock());
        let expected = all.get_mut(&key).filter(|expected| expected.change.gone == Some(kind)).ok_or_else(read_only)?;
        if !expected.given {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        expected.change.gone = None;
        if expected.change.came.is_none() {
            all.remove(&key);
        }
        Ok(())
    }

    /// True if changes are announced.
    pub(crate) fn is_on(&self) -> bool {
        self.0.off.lock().is_none()
    }

    /// What `.veinfs/status.json` says of it: why nothing is announced; names so far, the time they took, and names that
    /// wait.
    pub(crate) fn status(&self) -> Value {
        let waiting = {
            let pending = self.0.pending.lock();
            pending.order.len() + pending.last.len() + pending.in_hand
        };
        json!({
            "reason": *self.0.off.lock(),
            "names": self.0.announced.load(Ordering::Relaxed),
            "seconds": self.0.took.load(Ordering::Relaxed) as f64 / 1e6,
            "waiting": waiting,
        })
    }
}

/// See [`Announcer::visit`].
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    shared: &'a Shared,
    folder: u64,
    begun: Instant,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut visits = self.shared.visits.lock();
        let Some(all) = visits.get_mut(&self.folder) else { return };
        if let Some(at) = all.iter().position(|begun| *begun == self.begun) {
            all.swap_remove(at);
        }
        if all.is_empty() {
            visits.remove(&self.folder);
        }
    }
}

/// What is to be done next.
enum Next {
    Announce(Vec<(Key, Box<[u8]>, Change)>),
    Idle,
    End,
}

impl Shared {
    fn phantom(&self) -> u64 {
        let number = self.next_phantom.fetch_add(1, Ordering::Relaxed);
        // The kernel has long forgotten the first ones.
        PHANTOMS.start + (number - PHANTOMS.start) % (PHANTOMS.end - PHANTOMS.start)
    }

    fn stop(&self, why: &str) {
        let before = std::mem::replace(&mut *self.pending.lock(), Pending { ended: true, ..Pending::default() });
        // The first reason is the one that matters.
        if !before.ended {
            *self.off.lock() = Some(why.to_owned());
        }
        self.wake.notify_all();
    }

    fn next(&self, most: usize, has_helper: bool) -> Next {
        let mut pending = self.pending.lock();
        while pending.is_empty() && !pending.ended {
            if !has_helper {
                self.wake.wait(&mut pending);
            } else if self.wake.wait_for(&mut pending, IDLE).timed_out() {
                return Next::Idle;
            }
        }
        if pending.ended {
            return Next::End;
        }
        let taken = pending.take(most);
        let with_path = |(key, change): (Key, Change)| {
            let path = pending.paths.get(&key.0)?.clone();
            Some((key, path, change))
        };
        let (batch, slow): (Vec<_>, Vec<_>) = {
            let visits = self.visits.lock();
            let is_slow =
                |folder: &u64| visits.get(folder).is_some_and(|all| all.iter().any(|begun| begun.elapsed() > SLOW));
            taken.into_iter().filter_map(with_path).partition(|((folder, _), ..)| !is_slow(folder))
        };
        pending.in_hand = batch.len();
        // Others first.
        slow.into_iter().for_each(|(key, _, change)| pending.add(key, change));
        if pending.is_empty() {
            pending.paths.clear();
        }
        Next::Announce(batch)
    }

    fn run(&self, reach: &Reach) {
        let (mut helper, mut broken): (Option<Helper>, u32) = (None, 0);
        loop {
            let batch = match self.next(reach.way.batch(), helper.is_some()) {
                Next::Announce(batch) => batch,
                Next::Idle => {
                    self.dismiss(helper.take());
                    continue;
                }
                Next::End => return self.dismiss(helper.take()),
            };
            if batch.is_empty() {
                std::thread::sleep(SLOW);
                continue;
            }
            if helper.is_none() {
                match Helper::start(reach) {
                    Ok(started) => {
                        self.helper.store(started.id(), Ordering::Release);
                        helper = Some(started);
                    }
                    Err(error) => return self.stop(&format!("the helper cannot be started: {error}")),
                }
            }
            let Some(running) = helper.as_mut() else { continue };
            let begun = Instant::now();
            match self.announce(running, batch) {
                Ok(()) => {}
                Err(Failed::Helper(error)) => {
                    self.dismiss(helper.take());
                    broken += 1;
                    if broken == MOST_BROKEN {
                        return self.stop(&format!("the helper has ended too often: {error}"));
                    }
                }
                Err(Failed::Refused(error)) => {
                    self.dismiss(helper.take());
                    return self.stop(&format!("the kernel refuses it: {error}"));
                }
            }
            self.pending.lock().in_hand = 0;
            let took = begun.elapsed();
            self.took.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            // A burst leaves time for others, and gaps in which the mount is not in use.
            let deadline = Instant::now() + took.saturating_mul(reach.way.rest()).min(Duration::from_secs(1));
            let mut pending = self.pending.lock();
            while !pending.ended && !self.wake.wait_until(&mut pending, deadline).timed_out() {}
        }
    }

    /// Ends a helper. Its id may be another's as soon as it is waited for.
    fn dismiss(&self, helper: Option<Helper>) {
        self.helper.store(0, Ordering::Release);
        self.expected.lock().clear();
        drop(helper);
    }

    fn announce(&self, helper: &mut Helper, batch: Vec<(Key, Box<[u8]>, Change)>) -> Result<(), Failed> {
        let mut ops = Vec::with_capacity(batch.len());
        let mut expected = FxHashMap::default();
        for (key, path, change) in &batch {
            let op = |kind, gone| Op { gone, kind, folder: key.0, path, name: &key.1 };
            ops.extend(change.gone.map(|kind| op(kind, true)));
            ops.extend(change.came.map(|kind| op(kind, false)));
            expected.insert(key.clone(), Expected { change: *change, given: false });
        }
        *self.expected.lock() = expected;
        let results = helper.perform(&ops);
        self.expected.lock().clear();
        let mut results = results.map_err(Failed::Helper)?.into_iter();
        let (mut done, mut refused) = (0, None);
        let mut again = Vec::new();
        for (key, path, change) in batch {
            let mut left = Change::default();
            for (kind, of) in [(change.gone, &mut left.gone), (change.came, &mut left.came)] {
                if kind.is_none() {
                    continue;
                }
                match results.next().unwrap_or(libc::EIO) {
                    0 => done += 1,
                    libc::EAGAIN => *of = kind,
                    error @ (libc::EACCES | libc::EPERM | libc::EROFS | libc::ENOSYS) => refused = Some(error),
                    // The folder has gone meanwhile, or something is mounted there.
                    error => tracing::debug!(error, "not announced"),
                }
            }
            if left != Change::default() {
                again.push((key, path, left));
            }
        }
        let mut pending = self.pending.lock();
        again.into_iter().rev().for_each(|(key, path, left)| pending.put_back(key, path, left));
        drop(pending);
        let before = self.announced.fetch_add(done, Ordering::Relaxed);
        match refused {
            Some(error) if before + done == 0 => Err(Failed::Refused(io::Error::from_raw_os_error(error))),
            _ => Ok(()),
        }
    }
}

enum Failed {
    Helper(io::Error),
    Refused(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Option<Kind> = Some(Kind::Dir);
    const CAME: Change = Change { gone: None, came: DIR };
    const GONE: Change = Change { gone: DIR, came: None };
    const OTHER: Change = Change { gone: DIR, came: DIR };

    #[test]
    fn of_each_name_the_outcome_is_told() {
        let cases = [
            (CAME, GONE, GONE),
            (GONE, CAME, OTHER),
            (OTHER, GONE, GONE),
            (CAME, OTHER, OTHER),
            (OTHER, CAME, OTHER),
            (GONE, GONE, GONE),
            (CAME, CAME, CAME),
        ];
        for (first, later, outcome) in cases {
            assert_eq!(first.then(later), outcome, "{first:?}, {later:?}");
        }
    }

    #[test]
    fn no_more_waits_than_there_is_room_for() {
        let key = |folder, n: usize| (folder, n.to_string().into_bytes().into_boxed_slice());
        let mut pending = Pending::default();
        for n in 0..3 * MOST_PENDING {
            pending.add(key(n as u64 % 2, n), CAME);
        }
        pending.add(key(0, 0), GONE);
        assert_eq!((pending.order.len(), pending.changes.len(), pending.last.len()), (MOST_PENDING, MOST_PENDING, 2));
        let first = pending.take(1);
        assert_eq!(first, [(key(0, 0), GONE)]);
        pending.put_back(key(0, 0), Box::default(), GONE);
        assert_eq!(pending.take(usize::MAX).len(), MOST_PENDING);
        assert!(!pending.is_empty());
        let mut last = pending.take(usize::MAX);
        last.sort_by_key(|((folder, _), _)| *folder);
        let end = 3 * MOST_PENDING;
        assert_eq!(last, [(key(0, end - 2), CAME), (key(1, end - 1), CAME)]);
        assert!(pending.is_empty() && pending.changes.is_empty());
    }

    #[test]
    fn a_folder_in_which_somebody_waits_is_left_alone() {
        let announcer = Announcer::new(false);
        let shared = &announcer.0;
        for folder in [5, 6] {
            let mut pending = shared.pending.lock();
            pending.paths.insert(folder, Box::default());
            pending.add((folder, b"a".as_slice().into()), CAME);
        }
        let folders = || match shared.next(10, false) {
            Next::Announce(batch) => batch.into_iter().map(|((folder, _), ..)| folder).collect(),
            Next::Idle | Next::End => Vec::new(),
        };
        let visits = [announcer.visit(5), announcer.visit(5)];
        std::thread::sleep(SLOW * 2);
        let _other = announcer.visit(6);
        assert_eq!(folders(), [6]);
        assert_eq!(folders(), [] as [u64; 0]);
        drop(visits);
        assert_eq!(folders(), [5]);
        assert_eq!(shared.visits.lock().len(), 1);
    }

    #[test]
    fn nobody_but_the_helper_gets_more_than_erofs() {
        let announcer = Announcer::new(false);
        let errno = |result: io::Result<()>| result.expect_err("refused").raw_os_error().unwrap_or(0);
        let make = |thread, name: &[u8], kind| announcer.make(thread, 5, name, kind).map(drop);
        let remove = |thread, name: &[u8], kind| announcer.remove(thread, 5, name, kind);
        let expect = |name: &[u8], change| {
            announcer.0.expected.lock().insert((5, name.into()), Expected { change, given: false });
        };
        expect(b"new", CAME);
        expect(b"old", GONE);
        expect(b"other", OTHER);
        // Without a helper, not even the kernel's own threads are taken for it.
        for thread in [0, 77] {
            assert_eq!(errno(make(thread, b"new", Kind::Dir)), libc::EROFS);
            assert_eq!(errno(remove(thread, b"old", Kind::Dir)), libc::EROFS);
            assert_eq!(announcer.lookup(thread, 5, b"old"), None);
        }
        announcer.0.helper.store(77, Ordering::Release);
        for (thread, name, kind) in [(78, &b"new"[..], Kind::Dir), (77, b"no", Kind::Dir), (77, b"new", Kind::Link)] {
            assert_eq!(errno(make(thread, name, kind)), libc::EROFS);
            assert_eq!(errno(remove(thread, name, kind)), libc::EROFS);
        }
        assert_eq!(announcer.lookup(77, 5, b"unrelated"), None);
        assert_eq!(announcer.lookup(77, 5, b"new"), Some(Answer::Nothing));
        make(77, b"new", Kind::Dir).expect("as it was told");
        assert_eq!(errno(make(77, b"new", Kind::Dir)), libc::EROFS, "once");
        // What is removed is a phantom, or nothing.
        for name in [&b"old"[..], b"other"] {
            assert_eq!(errno(remove(77, name, Kind::Dir)), libc::ESTALE);
            assert!(
                matches!(announcer.lookup(77, 5, name), Some(Answer::Phantom(ino, Kind::Dir)) if PHANTOMS.contains(&ino))
            );
            remove(77, name, Kind::Dir).expect("as it was told");
            assert_eq!(errno(remove(77, name, Kind::Dir)), libc::EROFS, "once");
        }
        assert_eq!(announcer.lookup(77, 5, b"other"), Some(Answer::Nothing));
        make(77, b"other", Kind::Dir).expect("as it was told");
        assert!(announcer.0.expected.lock().is_empty());
    }
}
