//! The thread: sleep, gather, hand on.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::above::{Above, Meaning};
use super::batch::Batch;
use super::decide::Shared;
use super::mounted::Mounted;
use super::resolve::{Resolved, Resolver};
use super::{Change, Sink, fanotify, inotify};

/// How long a batch is gathered when nothing has happened for a while: long enough for both halves of a rename.
const LINGER: Duration = Duration::from_micros(200);

/// How long otherwise: at most so many wakeups in a second, whatever happens in the file system.
const BUSY_LINGER: Duration = Duration::from_millis(1);

/// When a batch follows the last one so soon, it is busy.
const BUSY: Duration = Duration::from_millis(10);

/// How long a batch may take to be read: what came first does not wait for all that came after it.
const READING: Duration = Duration::from_millis(10);

/// How much is read at once; many times the longest event.
const BUFFER_BYTES: usize = 256 << 10;

/// How often in a row, so that a batch has an end in a storm: together more than a queue holds.
const READS: usize = 32;

/// All that the thread has for itself.
pub(super) struct Runner {
    shared: Arc<Shared>,
    sink: Sink,
    /// `None` if no inotify instance is left: then the root's coming and going is not told.
    above: Option<Above>,
    mounted: Mounted,
    resolver: Resolver,
    batch: Batch,
    buffer: Vec<u8>,
    /// A directory was moved or deleted.
    moved: bool,
    last: Option<Instant>,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    above: bool,
    mounted: bool,
    group: bool,
    tree: bool,
}

impl Runner {
    /// Begins to watch what is above the root, and the mounts.
    pub(super) fn new(shared: Arc<Shared>, sink: Sink) -> std::io::Result<Self> {
        let above = match Above::new(&shared.root) {
            Ok(above) => Some(above),
            Err(error) => {
                tracing::warn!(error = %std::io::Error::from(error), "cannot watch the directories above a source");
                None
            }
        };
        let mounted = Mounted::new(&shared.root)?;
        Ok(Self {
            shared,
            sink,
            above,
            mounted,
            resolver: Resolver::new(),
            batch: Batch::default(),
            buffer: vec![0; BUFFER_BYTES],
            moved: false,
            last: None,
        })
    }

    /// Runs until the watch is dropped.
    pub(super) fn run(mut self) {
        loop {
            let ready = self.wait(None);
            #[cfg(test)]
            self.shared.wakeups.fetch_add(1, Ordering::Relaxed);
            if self.stops() {
                return;
            }
            self.read(ready);
            self.linger();
            if self.stops() {
                return;
            }
            let ready = self.wait(Some(Duration::ZERO));
            self.read(ready);
            self.settle();
            hand_on(&mut self.batch, &self.shared, &self.sink);
        }
    }

    fn stops(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// What is ready, within the time; without one it waits.
    fn wait(&self, limit: Option<Duration>) -> Ready {
        let Shared { wake, group, tree, .. } = &*self.shared;
        let group = group.as_ref().ok().filter(|_| !self.shared.group_failed.load(Ordering::Acquire));
        let mut fds = vec![PollFd::from_borrowed_fd(self.mounted.as_fd(), PollFlags::PRI)];
        let mut place = |fd| {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            fds.len() - 1
        };
        let wake = wake.as_ref().map(|wake| place(wake.as_fd()));
        let above = self.above.as_ref().map(|above| place(above.as_fd()));
        let group = group.map(|group| place(group.as_fd()));
        let tree = tree.get().map(|tree| place(tree.as_fd()));
        let limit = limit.map(timespec);
        match rustix::event::poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ready::default(),
            Err(_) => {
                // Out of memory: not at once again.
                thread::sleep(Duration::from_millis(100));
                return Ready::default();
            }
        }
        let is = |place: Option<usize>| place.is_some_and(|place| !fds[place].revents().is_empty());
        if is(wake)
            && let Some(wake) = &self.shared.wake
        {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        Ready { above: is(above), mounted: is(Some(0)), group: is(group), tree: is(tree) }
    }

    /// Gives what belongs together the time to arrive; the end of the watch cuts it short.
    fn linger(&self) {
        let busy = self.last.is_some_and(|last| last.elapsed() < BUSY);
        let limit = timespec(if busy { BUSY_LINGER } else { LINGER });
        if let Some(wake) = &self.shared.wake {
            let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)], Some(&limit));
        }
    }

    fn read(&mut self, ready: Ready) {
        // The way to the root first: what is resolved afterwards sees it as it is at least since these events.
        if ready.above {
            self.read_above();
        }
        if ready.mounted {
            self.look_at_mounts();
        }
        if ready.group {
            self.read_group();
        }
        if ready.tree {
            self.read_tree();
        }
    }

    fn read_above(&mut self) {
        let Some(above) = &mut self.above else { return };
        let mut is_root = false;
        for _ in 0..READS {
            let Ok(length) = rustix::io::read(&*above, &mut self.buffer) else { break };
            for event in inotify::parse(&self.buffer[..length]) {
                match event.map_or(Meaning::Root, |event| above.meaning(&event)) {
                    Meaning::Nothing => {}
                    Meaning::Root => is_root = true,
                    Meaning::Attributes(dir) => self.batch.push(Change::Attributes { dir, name: None, is_dir: true }),
                }
            }
        }
        if is_root {
            above.set();
            self.batch.push(Change::Root);
            self.is_elsewhere();
        }
    }

    fn look_at_mounts(&mut self) {
        let changes = self.mounted.look();
        if changes.is_empty() {
            return;
        }
        self.shared.mounts_changed();
        if let Some(above) = &mut self.above {
            above.set();
        }
        changes.into_iter().for_each(|change| self.batch.push(change));
        self.is_elsewhere();
    }

    /// The root or mounts may be others than before: paths are to be found anew, by new ways.
    fn is_elsewhere(&mut self) {
        self.resolver.clear();
        self.resolver.close();
        if self.resolver.take_missed() {
            self.batch.lose();
        }
    }

    fn read_group(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Ok(group) = &shared.group else { return };
        let mut begun = Instant::now();
        for _ in 0..READS {
            let length = match rustix::io::read(group, &mut self.buffer) {
                Ok(length @ 1..) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                failed => {
                    tracing::warn!(?failed, "fanotify cannot be read any longer");
                    self.shared.group_has_failed();
                    self.batch.lose();
                    return;
                }
            };
            let table = shared.table.load();
            let events = fanotify::parse(&self.buffer[..length]);
            let is_moved = |event: &fanotify::Event<'_>| event.is_dir_moved() || event.is_overflow();
            self.moved |= events.clone().flatten().any(|event| is_moved(&event));
            // Before any of them is resolved: the kernel puts later events together with earlier ones.
            if events.clone().any(|event| event.map_or(true, |event| is_moved(&event) || event.is_dir_deleted())) {
                self.resolver.clear();
            }
            for event in events {
                let Ok(event) = event else {
                    self.batch.lose();
                    break;
                };
                let Some(handle) = event.dir else {
                    // An overflow, or the kernel had no memory for a name.
                    self.batch.lose();
                    continue;
                };
                let Some(file_system) = table.file_systems.iter().find(|known| known.fsid == handle.fsid) else {
                    continue;
                };
                match self.resolver.resolve(file_system, &handle) {
                    Resolved::At(paths) => {
                        paths.iter().for_each(|path| self.batch.tell(event.facts(), path, event.name));
                    }
                    Resolved::Unsure(error) => {
                        tracing::debug!(%error, "a directory that has changed has no path that can be found");
                        self.batch.lose();
                    }
                }
                if begun.elapsed() > READING {
                    hand_on(&mut self.batch, &shared, &self.sink);
                    begun = Instant::now();
                }
            }
        }
    }

    fn read_tree(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(tree) = shared.tree.get() else { return };
        for _ in 0..READS {
            let Ok(length) = rustix::io::read(tree, &mut self.buffer) else { return };
            for event in inotify::parse(&self.buffer[..length]) {
                let Ok(event) = event else {
                    self.batch.lose();
                    break;
                };
                if event.is_overflow() {
                    self.resolver.clear();
                    self.moved = true;
                    self.batch.lose();
                } else if event.is_dropped() {
                    tree.forget(event.watch);
                } else {
                    if event.is_dir_moved() {
                        self.resolver.clear();
                        self.moved = true;
                    }
                    tell(&mut self.batch, &shared.root, &event, &tree.paths(event.watch));
                }
            }
        }
    }

    /// What follows from what was read.
    fn settle(&mut self) {
        // A mount point moves with the directories above it, and the kernel says nothing of that.
        if std::mem::take(&mut self.moved) && self.mounted.is_any_below() {
            self.look_at_mounts();
        }
        // An open directory keeps its file system busy.
        self.resolver.close();
        self.last = Some(Instant::now());
    }
}

/// Tells what was gathered.
fn hand_on(batch: &mut Batch, shared: &Shared, sink: &Sink) {
    let changes = batch.take();
    if changes.contains(&Change::Lost) {
        shared.lost.fetch_add(1, Ordering::Relaxed);
    }
    if !changes.is_empty() {
        sink(changes);
    }
}

/// What an event of inotify says of a directory at these paths.
fn tell(batch: &mut Batch, root: &[u8], event: &inotify::Event<'_>, paths: &[Arc<[u8]>]) {
    for path in paths {
        if !event.is_self_gone() {
            batch.tell(event.facts(), path, event.name);
        } else if **path == *root {
            batch.push(Change::Root);
        } else if let Some(at) = path.iter().rposition(|byte| *byte == b'/') {
            // The directory above tells the same if it has a watch.
            let (dir, name) = (&path[..at.max(1)], &path[at + 1..]);
            batch.push(Change::Entry { dir: dir.into(), name: Some(name.into()), is_dir: true });
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: i64::from(duration.subsec_nanos()) }
}
