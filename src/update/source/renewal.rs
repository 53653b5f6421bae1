//! Sources that are known by a listing of all of them: when it is made anew, and what comes of that.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Kept;
use crate::entry::RelPath;
use crate::source::{Difference, Listed, Renewed};
use crate::update::Event;
use crate::watch::Change;

/// What is done about a new listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Nothing.
    #[default]
    Idle,
    /// It is being made.
    UnderWay,
    /// It is being made, and was asked for since that began.
    Again,
}

impl Renewal {
    pub(super) fn is_due(self) -> bool {
        self != Self::Idle
    }
}

impl Kept {
    fn listed(&self) -> Option<&dyn Listed> {
        self.crawler.source.source.as_listed()
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed().is_some()
    }

    /// True if nothing can be read yet.
    pub(super) fn is_unlisted(&self) -> bool {
        self.listed().is_some_and(|listed| listed.listed().is_none())
    }

    /// True while nothing can be read.
    pub(super) fn is_blind(&self) -> bool {
        self.is_away() || self.is_unlisted()
    }

    /// A listing that was kept is as old as it is.
    pub(super) fn note_listed(&mut self) {
        let age = self.listed().and_then(Listed::listed).and_then(|at| SystemTime::now().duration_since(at).ok());
        if let Some(then) = age.and_then(|age| Instant::now().checked_sub(age)) {
            self.polled = then;
        }
    }

    /// Has a new listing made, which is begun after this.
    pub(super) fn renew(&mut self) {
        if self.renewal.is_due() {
            self.renewal = Renewal::Again;
            return;
        }
        let (events, crawler) = (self.events.clone(), Arc::clone(&self.crawler));
        let work = move || {
            let listed = crawler.source.source.as_listed().expect("it is renewed since it is listed");
            // Nobody receives any more once the mount is going.
            let _ = events.send(Event::Renewed(listed.renew(&crawler.progress.cancelled)));
        };
        match std::thread::Builder::new().name(format!("list-{}", self.at)).spawn(work) {
            Ok(_) => self.renewal = Renewal::UnderWay,
            Err(error) => self.away(&error),
        }
    }

    /// A listing was made, or could not be.
    pub(super) fn renewed(&mut self, result: io::Result<Renewed>) {
        let again = std::mem::take(&mut self.renewal) == Renewal::Again;
        self.polled = Instant::now();
        self.retried = self.polled;
        match result {
            Err(error) => self.away(&error),
            Ok(renewed) => {
                self.reconciled = Some(SystemTime::now());
                if renewed == Renewed::First || self.is_away() {
                    self.look_at_root();
                }
                match renewed {
                    Renewed::First => {}
                    Renewed::Changes(changes) => self.told(changes.into_iter().map(|one| self.change(one)).collect()),
                    Renewed::Much => self.told(vec![Change::Lost]),
                }
            }
        }
        if again {
            self.renew();
        }
    }

    /// A difference as a watch would tell it.
    fn change(&self, difference: Difference) -> Change {
        let absolute = |dir: Box<[u8]>| self.crawler.absolute(&RelPath::from_bytes(dir.into_vec())).into_boxed_slice();
        match difference {
            Difference::Entry { dir, name, is_dir } => Change::Entry { dir: absolute(dir), name: Some(name), is_dir },
            Difference::Content { dir, name } => Change::Content { dir: absolute(dir), name },
        }
    }
}
