//! Reading the directories of a source, and comparing them with what is known.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use rayon::prelude::*;

use super::{Kept, Reconcile};
use crate::crawl::{Crawler, Job, Looked, Sink};
use crate::entry::RelPath;
use crate::index::DirRecord;
use crate::live::Phase;
use crate::source::Handle;
use crate::tree::{NodeId, Outcome, State, Tree};
use crate::update::Event;

/// How long a piece of reconciling should take, so that changes that are told meanwhile do not wait.
const PIECE_TIME: Duration = Duration::from_millis(20);
/// The fewest directories that are looked at in one piece, for each thread.
const PIECE_LEAST: usize = 64;
/// A directory that takes longer to read than this is read again only after some time, however often it changes.
const SLOW: Duration = Duration::from_millis(5);

impl Kept {
    pub(super) fn job(&self, id: NodeId) -> Job {
        Job { path: self.tree.path(id), linked: self.tree.node(id).linked }
    }

    /// Reads a directory that nobody knows yet, and all below, while other things go on.
    pub(super) fn crawl(&mut self, id: NodeId) {
        let job = self.job(id);
        let (events, crawler) = (self.events.clone(), Arc::clone(&self.crawler));
        let seen = events.clone();
        let progress = Arc::clone(&self.crawler.progress);
        let sink: Sink = Arc::new(move |job, outcome| {
            let going = !progress.cancelled.load(Ordering::Relaxed);
            going && seen.send(Event::Seen { job, outcome }).is_ok()
        });
        self.crawling += 1;
        self.crawls.spawn(move || {
            rayon::scope(|scope| crawler.crawl(job, &sink, scope));
            // Nobody receives any more once the mount is going.
            let _ = events.send(Event::Crawled);
        });
    }

    /// A crawl has read a directory.
    pub(super) fn seen(&mut self, job: Job, outcome: Outcome) {
        let Some(id) = self.tree.find(job.path.as_bytes()) else { return };
        let node = self.tree.node(id);
        if node.state != State::Pending || node.linked != job.linked {
            // It was removed and made anew, or read otherwise, since the crawl began.
            return;
        }
        if let Some(error) = away(id, &outcome) {
            return self.away(&error);
        }
        // The crawl that read it reads what is below as well.
        self.take(id, outcome);
        let told = !self.early.is_empty() && {
            let path = self.crawler.absolute(&job.path);
            self.early.contains(path.as_slice())
        };
        if told || self.distrust {
            self.dirty.insert(id);
        }
    }

    /// A crawl has come to its end.
    pub(super) fn crawled(&mut self) {
        self.crawling -= 1;
        if self.crawling == 0 {
            self.early.clear();
            self.distrust = false;
        }
    }

    /// Takes in what a directory is; returns those in it that nobody has read.
    pub(super) fn take(&mut self, id: NodeId, mut outcome: Outcome) -> Vec<NodeId> {
        let record = match &mut outcome {
            Outcome::Read(read) if self.crawler.storing => {
                let node = self.tree.node(id);
                let name: Box<[u8]> = if id == NodeId::ROOT { Box::default() } else { node.name.clone() };
                let listing = std::mem::take(&mut read.listing);
                Some(DirRecord { parent: node.parent.0, name, stamp: read.stamp, trusted: read.trusted, listing })
            }
            _ => None,
        };
        if self.crawler.storing {
            self.records.insert(id, record);
        }
        let applied = self.tree.apply(id, outcome);
        if let Some(parent) = applied.suspect {
            self.dirty.insert(parent);
        }
        self.forget_dropped();
        applied.new
    }

    pub(super) fn forget_dropped(&mut self) {
        for (id, path) in self.tree.take_dropped() {
            self.crawler.watch.remove(&self.crawler.absolute(&path));
            self.dirty.remove(&id);
            self.slow.remove(&id);
            if self.crawler.storing {
                self.records.insert(id, None);
            }
        }
    }

    /// Reads again what has to be, as far as it may be now.
    pub(super) fn read_dirty(&mut self) {
        let mut due: Vec<NodeId> = self.dirty.iter().copied().filter(|id| self.rest_of(*id).is_none()).collect();
        due.sort_unstable();
        if due.is_empty() {
            return;
        }
        due.iter().for_each(|id| {
            self.dirty.remove(id);
        });
        // What nobody has read yet is read with all below, elsewhere.
        let (new, known): (Vec<NodeId>, Vec<NodeId>) =
            due.into_iter().partition(|id| self.tree.node(*id).state == State::Pending);
        if self.crawling == 0 {
            new.into_iter().for_each(|id| self.crawl(id));
        } else {
            // A crawl may be reading what was there under the name before.
            self.early.extend(new.into_iter().map(|id| self.crawler.absolute(&self.tree.path(id)).into()));
        }
        let jobs: Vec<(NodeId, Job)> = known
            .into_iter()
            .filter(|id| self.tree.node(*id).state != State::Free)
            .map(|id| (id, self.job(id)))
            .collect();
        let crawler = &self.crawler;
        let read = |(id, job): (NodeId, Job)| {
            let begun = Instant::now();
            let outcome = crawler.read(None, &job);
            (id, job, outcome, begun.elapsed())
        };
        let outcomes: Vec<(NodeId, Job, Outcome, Duration)> = if let [_] = &*jobs {
            jobs.into_iter().map(read).collect()
        } else {
            self.quick.install(|| jobs.into_par_iter().map(read).collect())
        };
        for (id, job, outcome, took) in outcomes {
            if self.tree.find(job.path.as_bytes()) != Some(id) || self.tree.node(id).linked != job.linked {
                // One above it turned out to be gone, and its number may be another's by now.
                continue;
            }
            if took > SLOW {
                self.slow.insert(id, (Instant::now(), took));
            } else {
                self.slow.remove(&id);
            }
            if let Some(error) = away(id, &outcome) {
                return self.away(&error);
            }
            let new = self.take(id, outcome);
            new.into_iter().for_each(|id| self.crawl(id));
        }
    }

    /// Compares all directories with what is known of them, or those in which changes are not told.
    pub(super) fn reconcile_all(&mut self, unwatched: bool) {
        // One that has not begun yet sees as much.
        if !self.reconciles.iter().any(|known| known.whole && known.at == 0 && !known.unwatched) {
            let ids = (0..self.tree.nodes().len() as u32).map(NodeId).collect();
            self.reconciles.push_back(Reconcile { ids, at: 0, whole: true, unwatched, anew: !unwatched });
        }
    }

    /// Compares a directory and all below it with what is known of them.
    pub(super) fn reconcile(&mut self, path: &RelPath) {
        let mut at = path.as_bytes();
        // One that is not known is found by reading the one above it.
        let id = loop {
            if let Some(id) = self.tree.find(at) {
                break id;
            }
            at = at.iter().rposition(|byte| *byte == b'/').map_or(b"", |end| &at[..end]);
        };
        self.reconcile_below(id);
    }

    pub(super) fn reconcile_below(&mut self, id: NodeId) {
        let mut ids = vec![id];
        let mut next = 0;
        while next < ids.len() {
            ids.extend_from_slice(self.tree.node(ids[next]).children());
            next += 1;
        }
        self.dirty.insert(id);
        // One that has not begun yet sees as much: a directory that is renamed to and fro is told of without end.
        let waits = |known: &Reconcile| known.at == 0 && known.ids == ids && (known.anew || !known.unwatched);
        if ids.len() > 1 && !self.reconciles.iter().any(waits) {
            self.reconciles.push_back(Reconcile { ids, at: 0, whole: false, unwatched: false, anew: true });
        }
    }

    /// One piece of the comparison that is under way.
    pub(super) fn reconcile_piece(&mut self) {
        let Some(reconcile) = self.reconciles.front_mut() else { return };
        let least = PIECE_LEAST * self.quick.current_num_threads();
        let piece = self.piece.max(least);
        let end = (reconcile.at + piece).min(reconcile.ids.len());
        let (ids, unwatched, anew) = (reconcile.ids[reconcile.at..end].to_vec(), reconcile.unwatched, reconcile.anew);
        reconcile.at = end;
        if end == reconcile.ids.len() {
            self.reconciles.pop_front();
        }
        let begun = Instant::now();
        let root = match self.crawler.open_root() {
            Ok(root) => root,
            Err(error) => return self.away(&error),
        };
        let (tree, crawler) = (&self.tree, &self.crawler);
        // Together, so that directories beside each other are asked by one thread, which makes the path above them once.
        let looked: Vec<(NodeId, Looked, bool)> = self.quick.install(|| {
            let looks = ids.par_chunks(PIECE_LEAST).map(|ids| {
                let mut above = Above::default();
                let looked = ids.iter().filter_map(|id| look(tree, crawler, &root, *id, (unwatched, anew), &mut above));
                looked.collect::<Vec<_>>()
            });
            looks.flatten().collect()
        });
        for (id, looked, told) in looked {
            self.tree.set_watched(id, told);
            match looked {
                Looked::Same => {
                    if self.tree.tests_files(&self.crawler.automaton, id) {
                        self.tree.judge_again(id);
                    }
                }
                Looked::Changed => {
                    self.dirty.insert(id);
                }
                Looked::Gone => {
                    self.dirty.insert(id);
                    self.dirty.insert(self.tree.node(id).parent);
                }
            }
        }
        // Towards the time that a piece should take, by no more than twice at once.
        let took = begun.elapsed().max(Duration::from_micros(10));
        let wanted = piece as f64 * PIECE_TIME.as_secs_f64() / took.as_secs_f64();
        self.piece = (wanted as usize).clamp(piece / 2, piece * 2).clamp(least, 1 << 16);
    }

    /// What is known is what is there, if nothing is under way.
    pub(super) fn note_phase(&mut self) {
        if self.is_idle() && self.tree.pending() == 0 && !self.is_away() && self.phase != Phase::Complete {
            self.phase = Phase::Complete;
            self.reconciled = Some(SystemTime::now());
        }
    }
}

/// Why the source is away, if it is its root that turned out so.
fn away(id: NodeId, outcome: &Outcome) -> Option<io::Error> {
    match outcome {
        Outcome::Unread(error) if id == NodeId::ROOT => {
            Some(error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error))
        }
        Outcome::Gone if id == NodeId::ROOT => Some(io::ErrorKind::NotFound.into()),
        _ => None,
    }
}

/// The path of the directory that was asked last.
#[derive(Default)]
struct Above(Option<(NodeId, RelPath)>);

impl Above {
    fn path(&mut self, tree: &Tree, id: NodeId) -> RelPath {
        if id == NodeId::ROOT {
            return RelPath::root();
        }
        let parent = tree.node(id).parent;
        if self.0.as_ref().is_none_or(|(known, _)| *known != parent) {
            self.0 = Some((parent, tree.path(parent)));
        }
        self.0.as_ref().map_or_else(RelPath::root, |(_, path)| path.join(&tree.node(id).name))
    }
}

fn look(
    tree: &Tree,
    crawler: &Crawler,
    root: &Handle,
    id: NodeId,
    (unwatched, anew): (bool, bool),
    above: &mut Above,
) -> Option<(NodeId, Looked, bool)> {
    let node = tree.nodes().get(id.0 as usize)?;
    match node.state {
        State::Free | State::Pending => return None,
        _ if unwatched && node.watched && !node.asks_links() => return None,
        // Whether it is still closed, unreadable or a loop is told by trying.
        State::Closed | State::Unread | State::Behind => return Some((id, Looked::Changed, node.watched)),
        State::Read => {}
    }
    if !node.trusted || node.asks_links() {
        return Some((id, Looked::Changed, node.watched));
    }
    let job = Job { path: above.path(tree, id), linked: node.linked };
    let (looked, told) = crawler.look(root, &job, &node.stamp, node.watched && !anew);
    Some((id, looked, told))
}
