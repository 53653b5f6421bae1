//! Reading directories for a tree that is kept: one by one, or a whole new subtree in parallel.
//!
//! What is not entered and what is behind links follows the same rules as in [`crate::walk`]. Each directory is
//! watched, then its stamp is taken, then it is read: a change after that is told, or leaves another stamp.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::automaton::{Automaton, TestId};
use crate::config::NamedSource;
use crate::entry::RelPath;
use crate::listing::stored::Kept;
use crate::listing::{ListRules, Listed, ScratchPool, c_name, list_and_keep};
use crate::matcher::bits::Bits;
use crate::matcher::{Own, Verdict};
use crate::reader::{LINK_BUDGET, NOT_ENTERED, Reader, Reading, Target, Way};
use crate::source::{Handle, Source, Stamp, Stat, open_steps, open_way};
use crate::tree::{Link, Outcome, ReadDir};
use crate::walk::{Progress, Trouble, WalkOptions};
use crate::watch::{Mode, State, Watch};

/// Within this time of a change another one may leave the same times: clocks of file systems tick in up to 2 seconds.
const GRAIN: Duration = Duration::from_millis(2100);
/// The most links that one path goes through (`MAXSYMLINKS`, `linux/namei.h`).
const MAX_HOPS: usize = 40;

/// Where changes are told of.
pub trait Watching: Send + Sync {
    /// To be called before a directory is read; false if changes in it will not be told. `path` is absolute.
    fn add(&self, dir: &Handle, dev: u64, path: &[u8]) -> bool;
    /// Whether changes in any directory of a device are told; `None` if each one has to be added.
    fn knows(&self, dev: u64) -> Option<bool>;
    /// Whether changes in all directories of a device that were added are told.
    fn tells(&self, dev: u64) -> bool;
    /// The directory at `path` and all below it are no longer there.
    fn remove(&self, path: &[u8]);
    /// How it is done, for people.
    fn state(&self) -> State;
}

impl Watching for Watch {
    fn add(&self, dir: &Handle, dev: u64, path: &[u8]) -> bool {
        dir.local().is_ok_and(|dir| Watch::add(self, dir, dev, path))
    }

    fn knows(&self, dev: u64) -> Option<bool> {
        Watch::knows(self, dev)
    }

    fn tells(&self, dev: u64) -> bool {
        Watch::tells(self, dev)
    }

    fn remove(&self, path: &[u8]) {
        Watch::remove(self, path);
    }

    fn state(&self) -> State {
        Watch::state(self)
    }
}

/// Nobody tells.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watching for Unwatched {
    fn add(&self, _dir: &Handle, _dev: u64, _path: &[u8]) -> bool {
        false
    }

    fn knows(&self, _dev: u64) -> Option<bool> {
        Some(false)
    }

    fn tells(&self, _dev: u64) -> bool {
        false
    }

    fn remove(&self, _path: &[u8]) {}

    fn state(&self) -> State {
        State { mode: Mode::Poll, reason: None, watches: 0, limit: None, refused: 0, lost: 0 }
    }
}

/// A directory to be read.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where, below the source.
    pub path: RelPath,
    /// It is behind a link.
    pub linked: bool,
}

/// Whether a directory is as it was.
#[derive(Debug)]
pub enum Looked {
    /// It is.
    Same,
    /// It has to be read again.
    Changed,
    /// It is not there, or no directory any more.
    Gone,
}

/// Reads the directories of one source, from any number of threads.
pub struct Crawler {
    /// The patterns.
    pub automaton: Arc<Automaton>,
    /// The source.
    pub source: NamedSource,
    /// What is entered.
    pub options: WalkOptions,
    /// For names.
    pub scratch: Arc<ScratchPool>,
    /// Told of each directory before it is read.
    pub watch: Arc<dyn Watching>,
    /// Listings are wanted in the form in which they are stored.
    pub storing: bool,
    /// Counters.
    pub progress: Arc<Progress>,
    /// Descriptors that wait for children to be opened, and how many may.
    open: AtomicUsize,
    open_limit: usize,
    root_dev: Mutex<Option<u64>>,
}

impl std::fmt::Debug for Crawler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crawler").field("source", &self.source.root).finish_non_exhaustive()
    }
}

/// A directory whose children are read one after the other.
struct Parent {
    path: RelPath,
    handle: Option<Handle>,
    children: Vec<(Box<[u8]>, bool)>,
    next: AtomicUsize,
    open: Arc<Crawler>,
}

impl Drop for Parent {
    fn drop(&mut self) {
        if self.handle.is_some() {
            self.open.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What is told of each directory that a crawl reads; false to end it.
pub type Sink = Arc<dyn Fn(Job, Outcome) -> bool + Send + Sync>;

impl Crawler {
    /// A reader of `source`.
    pub fn new(
        automaton: Arc<Automaton>,
        source: NamedSource,
        options: WalkOptions,
        watch: Arc<dyn Watching>,
        storing: bool,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            scratch: Arc::new(ScratchPool::new(Arc::clone(&automaton))),
            automaton,
            source,
            options,
            watch,
            storing,
            progress,
            open: AtomicUsize::new(0),
            open_limit: crate::walk::descriptor_limit() / 4,
            root_dev: Mutex::new(None),
        }
    }

    fn tree(&self) -> &dyn Source {
        &*self.source.source
    }

    /// The absolute path of what is at `path`.
    pub fn absolute(&self, path: &RelPath) -> Vec<u8> {
        self.source.path_of(path)
    }

    /// Device and inode of the root at this moment.
    ///
    /// # Errors
    /// If it cannot be opened: the source is away.
    pub fn root_identity(&self) -> io::Result<(u64, u64)> {
        self.tree().identity(&self.tree().open_root()?)
    }

    /// True if there is nothing in the root.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn root_is_empty(&self) -> io::Result<bool> {
        let (root, mut empty) = (self.tree().open_root()?, true);
        self.scratch.with(|scratch| self.tree().list(&root, &mut scratch.buffer, &mut |_, _, _| empty = false))?;
        Ok(empty)
    }

    /// Opens the root.
    ///
    /// # Errors
    /// If it is away.
    pub fn open_root(&self) -> io::Result<Handle> {
        self.tree().open_root()
    }

    /// Reads one directory; `parent` is the directory that it is in, where that is open.
    pub fn read(&self, parent: Option<&Handle>, job: &Job) -> Outcome {
        self.read_keeping(parent, job).0
    }

    fn read_keeping(&self, parent: Option<&Handle>, job: &Job) -> (Outcome, Option<Handle>) {
        if self.progress.cancelled.load(Ordering::Relaxed) {
            return (Outcome::Closed, None);
        }
        let name = job.path.name();
        if name == Some(NOT_ENTERED) || self.options.max_depth == Some(0) {
            return (Outcome::Closed, None);
        }
        if !job.path.is_root() && self.options.closes(job.path.as_bytes()) {
            return (Outcome::Closed, None);
        }
        let handle = match self.open(parent, job) {
            Ok(handle) => handle,
            Err(error) => return (missing(error, job.linked), None),
        };
        match self.read_open(parent, job, &handle) {
            Ok(outcome) => (outcome, Some(handle)),
            Err(error) => (missing(error, job.linked), None),
        }
    }

    fn open(&self, parent: Option<&Handle>, job: &Job) -> io::Result<Handle> {
        match (parent, job.path.name()) {
            (_, None) => self.tree().open_root(),
            (Some(parent), Some(name)) if job.linked => self.tree().open_link(parent, &c_name(name)),
            (Some(parent), Some(name)) => self.tree().open_dir(parent, &c_name(name)),
            (None, _) => open_way(self.tree(), &self.tree().open_root()?, &job.path, self.options.follow),
        }
    }

    fn read_open(&self, parent: Option<&Handle>, job: &Job, handle: &Handle) -> io::Result<Outcome> {
        let before = SystemTime::now();
        let stat = self.tree().stat_dir(handle)?;
        let mut real = None;
        if job.path.is_root() {
            *self.root_dev.lock() = Some(stat.dev);
        } else if self.options.one_file_system || self.options.follow {
            let root = self.root_dev()?;
            if self.options.one_file_system && stat.dev != root || self.options.shut.is_device(stat.dev) {
                return Ok(Outcome::Closed);
            }
            // Where the way is not there any more nobody can say where it ends: through a loop, on open directories, never.
            if job.linked && self.is_above(&job.path, (stat.dev, stat.ino))? {
                let troubles = Mutex::new(Vec::new());
                let link = self.behind(parent, job, &troubles)?;
                return Ok(Outcome::Behind(Box::new(link), troubles.into_inner()));
            }
            if job.linked {
                real = Some(self.tree().path_of(handle)?.into_boxed_slice());
            }
        }
        let path = if self.options.follow { self.tree().path_of(handle)? } else { self.absolute(&job.path) };
        let watched = self.watch.add(handle, stat.dev, &path);
        // What changed between the first look and the beginning of the watch is not told.
        let stamp = if watched { self.tree().stat_dir(handle)?.stamp() } else { stat.stamp() };
        let trusted = is_old(&stamp, before);
        let mut kept = Kept::new(self.storing);
        let rules = ListRules { exclude: &self.options.exclude, follow: self.options.follow };
        let Listed { files, dirs, entries } = self.scratch.with(|scratch| {
            let path = || job.path.as_bytes().to_vec();
            list_and_keep(&self.automaton, self.tree(), handle, &path, rules, scratch, Some(&mut kept))
        })?;
        self.progress.directories.fetch_add(1, Ordering::Relaxed);
        self.progress.entries.fetch_add(entries, Ordering::Relaxed);
        let mut read = ReadDir {
            stamp,
            trusted,
            watched,
            listing: if self.storing { kept.encode() } else { Box::default() },
            files,
            children: Vec::with_capacity(dirs.len()),
            links: Vec::new(),
            troubles: Vec::new(),
            real,
        };
        let troubles = Mutex::new(Vec::new());
        let mut steps = HashMap::new();
        for name in kept.into_asked() {
            let touches = self.touches(&path, &name, &mut steps);
            read.links.push(Link { touches, ..Link::default() });
        }
        for at in 0..dirs.len() {
            let (name, linked) = (dirs.name(at).to_bytes(), dirs.linked(at));
            if linked && !self.options.follow {
                let job = Job { path: job.path.join(name), linked };
                read.links.push(self.behind(Some(handle), &job, &troubles)?);
            } else {
                read.children.push((name.into(), linked));
            }
        }
        read.troubles = troubles.into_inner();
        Ok(Outcome::Read(Box::new(read)))
    }

    fn root_dev(&self) -> io::Result<u64> {
        if let Some(dev) = *self.root_dev.lock() {
            return Ok(dev);
        }
        let (dev, _) = self.tree().identity(&self.tree().open_root()?)?;
        *self.root_dev.lock() = Some(dev);
        Ok(dev)
    }

    /// True if a directory above `path` is of this identity; an error if the way there is not there.
    fn is_above(&self, path: &RelPath, identity: (u64, u64)) -> io::Result<bool> {
        let mut above = false;
        let mut each = |handle: &Handle| above |= self.tree().identity(handle).ok() == Some(identity);
        open_steps(self.tree(), path, self.options.follow, &mut each)?;
        Ok(above)
    }

    /// What subpatterns see behind a link; `parent` is the directory that it is in.
    fn behind(&self, parent: Option<&Handle>, job: &Job, troubles: &Mutex<Vec<Trouble>>) -> io::Result<Link> {
        let Some(name) = job.path.name().map(c_name) else { return Ok(Link::default()) };
        let automaton = &*self.automaton;
        let above_path = RelPath::from_bytes(parent_path(job.path.as_bytes()));
        self.scratch.with(|scratch| {
            let above = self.ancestor_globs(&job.path, scratch);
            let globs = scratch.match_name(automaton, name.to_bytes());
            let own = Own { name: name.to_bytes(), globs: &globs, above: &above };
            let wanted = automaton.possible(&own, &automaton.subs);
            if wanted.is_empty() {
                return Ok(Link::default());
            }
            let opened;
            let parent = match parent {
                Some(parent) => parent,
                None => {
                    opened = open_way(self.tree(), &self.tree().open_root()?, &above_path, self.options.follow)?;
                    &opened
                }
            };
            let behind = Mutex::new(Vec::new());
            let entered = |handle: &Handle| {
                if let Ok(path) = self.tree().path_of(handle) {
                    if let Ok((dev, _)) = self.tree().identity(handle) {
                        self.watch.add(handle, dev, &path);
                    }
                    behind.lock().push(path.into_boxed_slice());
                }
            };
            let failed = |path: &[u8], error: io::Error| {
                troubles.lock().push(Trouble::Unread { path: RelPath::from_bytes(path), error });
            };
            let reader = Reader {
                automaton,
                source: self.tree(),
                rules: ListRules { exclude: &self.options.exclude, follow: false },
                closed: &|path| self.options.closes(path),
                shut: &self.options.shut,
                entered: &entered,
                failed: &failed,
            };
            let target = Target { name: &name, linked: true, above: &above };
            let is_below = |identity| self.is_above(&above_path, identity).unwrap_or(false);
            let mut reading =
                Reading { path: above_path.as_bytes().to_vec(), through_link: true, budget: LINK_BUDGET, scratch };
            let Verdict { summary, given_up, .. } =
                reader.child(&Way::new(parent, &is_below), &target, &wanted, &mut reading);
            let mut behind = behind.into_inner();
            behind.sort_unstable();
            behind.dedup();
            let summary = (!summary.yes.is_empty() || !summary.may.is_empty()).then_some(summary);
            Ok(Link { summary, touches: Vec::new(), behind, given_up: !given_up.is_empty() })
        })
    }

    /// What `forbidden_ancestors` sees above a path.
    fn ancestor_globs(&self, path: &RelPath, scratch: &mut crate::listing::Scratch) -> Bits {
        let automaton = &*self.automaton;
        let mut above = Bits::new(automaton.names.len());
        if automaton.ancestor_globs.is_empty() || path.is_root() {
            return above;
        }
        let mut names: Vec<&[u8]> = path.components().collect();
        names.pop();
        names.push(&self.source.root_name);
        for name in names {
            let globs = scratch.match_name(automaton, name);
            globs.iter().filter(|glob| automaton.ancestor_globs.contains(*glob)).for_each(|glob| above.insert(glob));
        }
        above
    }

    /// The absolute paths that the link `name` in the directory `dir` passes: if one of them comes, goes or becomes
    /// another thing, the link may lead elsewhere. Paths between two links are covered by the ones below them.
    fn touches(&self, dir: &[u8], name: &[u8], steps: &mut HashMap<PathBuf, bool>) -> Vec<Box<[u8]>> {
        let mut at = PathBuf::from(OsStr::from_bytes(dir));
        let mut ahead: Vec<Vec<u8>> = vec![name.to_vec()];
        let (mut touched, mut hops) = (Vec::new(), 0);
        while let Some(name) = ahead.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(OsStr::from_bytes(&name)),
            }
            // A directory on the way to many links is asked once.
            if steps.get(&at) == Some(&true) {
                continue;
            }
            match rustix::fs::readlink(&at, Vec::new()) {
                Ok(text) => {
                    let text = text.into_bytes();
                    touched.push(at.as_os_str().as_bytes().into());
                    hops += 1;
                    if hops > MAX_HOPS {
                        break;
                    }
                    at.pop();
                    if text.starts_with(b"/") {
                        at = PathBuf::from("/");
                    }
                    ahead.extend(text.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                Err(rustix::io::Errno::INVAL) => {
                    if ahead.is_empty() {
                        break;
                    }
                    steps.insert(at.clone(), true);
                }
                // It ends here: whatever comes here makes a difference.
                Err(_) => break,
            }
        }
        // The link itself is in the directory: its change is one of that.
        if !touched.is_empty() {
            touched.remove(0);
        }
        touched.push(at.as_os_str().as_bytes().into());
        touched
    }

    /// Looks whether a directory is as it was, by a look at its stamp; and whether changes in it are told from then on.
    /// Where each directory has to be added to a watch, it is, unless it is `watched`.
    pub fn look(&self, root: &Handle, job: &Job, stamp: &Stamp, watched: bool) -> (Looked, bool) {
        let mut told = watched;
        let looked = self.stat(root, job).and_then(|stat| {
            if watched {
                return Ok(stat);
            }
            if let Some(known) = self.watch.knows(stat.dev) {
                told = known;
                return Ok(stat);
            }
            let handle = self.open(None, job)?;
            let path = if self.options.follow { self.tree().path_of(&handle)? } else { self.absolute(&job.path) };
            told = self.watch.add(&handle, stat.dev, &path);
            self.tree().stat_dir(&handle)
        });
        let looked = match looked {
            Ok(stat) if !stat.is_dir() => Looked::Gone,
            Ok(stat) if stat.stamp() == *stamp => Looked::Same,
            Ok(_) => Looked::Changed,
            Err(error) => match missing(error, job.linked) {
                Outcome::Gone => Looked::Gone,
                // Reading it will say what is wrong.
                _ => Looked::Changed,
            },
        };
        (looked, told)
    }

    fn stat(&self, root: &Handle, job: &Job) -> io::Result<Stat> {
        if job.path.is_root() {
            return self.tree().stat_dir(root);
        }
        match self.tree().stat(root, &c_name(job.path.as_bytes()), job.linked) {
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => {
                self.tree().stat_dir(&self.open(None, job)?)
            }
            stat => stat,
        }
    }

    /// Tests a file in the directory at `path`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn probe(&self, path: &RelPath, name: &[u8], test: TestId) -> io::Result<bool> {
        let root = self.tree().open_root()?;
        let dir = if path.is_root() { root } else { open_way(self.tree(), &root, path, self.options.follow)? };
        self.tree().test(&dir, &c_name(name), &self.automaton.tests[test.0 as usize])
    }

    /// Reads a directory and all below it, which nobody knows yet, on the threads of `scope`; `sink` is told of each, a
    /// directory before those in it.
    pub fn crawl(self: &Arc<Self>, job: Job, sink: &Sink, scope: &rayon::Scope<'_>) {
        if let Some(parent) = self.visit(None, job, sink) {
            descend(parent, sink, scope);
        }
    }

    fn visit(self: &Arc<Self>, parent: Option<&Parent>, job: Job, sink: &Sink) -> Option<Arc<Parent>> {
        let base = parent.and_then(|parent| parent.handle.as_ref());
        let (outcome, handle) = self.read_keeping(base, &job);
        let children = match &outcome {
            Outcome::Read(read) => read.children.clone(),
            _ => Vec::new(),
        };
        let path = job.path.clone();
        if !sink(job, outcome) || children.is_empty() {
            return None;
        }
        let mut handle = handle;
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.open_limit {
            // Children are then opened from the root.
            handle = None;
        }
        if handle.is_none() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        Some(Arc::new(Parent { path, handle, children, next: AtomicUsize::new(0), open: Arc::clone(self) }))
    }
}

/// Takes one child after the other, each to its end, leaving the rest to be stolen.
fn descend(mut parent: Arc<Parent>, sink: &Sink, scope: &rayon::Scope<'_>) {
    loop {
        let at = parent.next.fetch_add(1, Ordering::Relaxed);
        let Some((name, linked)) = parent.children.get(at) else { return };
        if at + 1 < parent.children.len() {
            let (rest, sink) = (Arc::clone(&parent), Arc::clone(sink));
            scope.spawn(move |scope| descend(rest, &sink, scope));
        }
        let job = Job { path: parent.path.join(name), linked: *linked };
        match Arc::clone(&parent.open).visit(Some(&parent), job, sink) {
            Some(child) => parent = child,
            None => return,
        }
    }
}

/// What it means that a directory cannot be opened.
fn missing(error: io::Error, linked: bool) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Outcome::Gone,
        Some(libc::ENOTDIR | libc::ELOOP) if !linked => Outcome::Gone,
        Some(libc::ENOTDIR) => Outcome::Gone,
        _ => Outcome::Unread(error),
    }
}

/// True if a change now would leave other times than these.
fn is_old(stamp: &Stamp, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    [stamp.mtime, stamp.ctime].iter().all(|(seconds, nanoseconds)| {
        u64::try_from(*seconds).map_or(true, |seconds| Duration::new(seconds, *nanoseconds) + GRAIN < now)
    })
}

fn parent_path(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::compile::compile;
    use crate::pattern::load::{Format, load_text};
    use crate::source::local::LocalSource;

    #[test]
    fn a_loop_in_what_was_moved_away_has_an_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("s");
        std::fs::create_dir_all(root.join("a")).expect("a tree");
        std::os::unix::fs::symlink(".", root.join("a/loop")).expect("a link");
        let patterns = load_text(br#"{"name": "p", "files": ["x"]}"#, Format::Json, "test", "p").expect("a pattern");
        let source = NamedSource {
            name: b"s".as_slice().into(),
            root_name: b"s".as_slice().into(),
            root: root.clone(),
            source: Arc::new(LocalSource::new(&root)),
        };
        let options = WalkOptions { follow: true, ..WalkOptions::default() };
        let automaton = Arc::new(compile(&patterns).expect("it compiles"));
        let crawler = Crawler::new(automaton, source, options, Arc::new(Unwatched), false, Arc::default());
        let open = crawler.tree().open_dir(&crawler.tree().open_root().expect("the root"), c"a").expect("a directory");
        let job = Job { path: RelPath::from_bytes(b"a/loop".as_slice()), linked: true };
        assert!(matches!(crawler.read(Some(&open), &job), Outcome::Behind(..)));
        std::fs::rename(root.join("a"), dir.path().join("away")).expect("moved");
        assert!(matches!(crawler.read(Some(&open), &job), Outcome::Gone));
    }
}
