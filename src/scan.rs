//! Several sources walked at once, each by threads of its own, so that a slow one does not hold up the others.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::automaton::Automaton;
use crate::config::NamedSource;
use crate::entry::{RelPath, printable};
use crate::mounts;
use crate::shut::Shut;
use crate::walk::{Event, Found, Progress, Trouble, WalkOptions, walk};

/// What a scan reports, from any thread; `source` is the source's place.
#[derive(Debug)]
pub enum ScanEvent {
    /// A match.
    Match {
        /// Which source.
        source: usize,
        /// What and where.
        found: Found,
    },
    /// Something that could not be read or decided.
    Trouble {
        /// Which source.
        source: usize,
        /// What.
        trouble: Trouble,
    },
    /// A source is walked to its end.
    SourceDone {
        /// Which source.
        source: usize,
    },
    /// A source that cannot be read at all.
    SourceFailed {
        /// Which source.
        source: usize,
        /// Why.
        error: io::Error,
    },
}

/// A scan of some sources for some patterns.
#[derive(Debug)]
pub struct Scanner {
    automaton: Arc<Automaton>,
    sources: Vec<NamedSource>,
    options: Vec<WalkOptions>,
    progress: Arc<Progress>,
}

/// A scan that runs.
#[derive(Debug)]
pub struct Scanning(Vec<JoinHandle<()>>);

impl Scanning {
    /// Waits until all sources are walked.
    pub fn join(self) {
        for thread in self.0 {
            // A panic in a walk has already been printed by its thread.
            let _ = thread.join();
        }
    }
}

/// The devices of kernel file systems and of veinfs mounts, at this moment.
fn pseudo_devices() -> Vec<u64> {
    let all = mounts::mounts().unwrap_or_default();
    let pseudo = all.iter().filter(|mount| mounts::is_pseudo(&mount.fstype));
    pseudo.map(|mount| rustix::fs::makedev(mount.major, mount.minor)).collect()
}

/// Shuts what was mounted since a source's options were made; `own` is the device of its root.
pub fn shut_new(options: &WalkOptions, own: Option<u64>) {
    let new = pseudo_devices().into_iter().filter(|device| Some(*device) != own);
    new.for_each(|device| options.shut.add_device(device));
}

/// How each source is walked: kernel file systems and veinfs mounts below it are left out.
pub fn options_of(sources: &[NamedSource], options: &WalkOptions) -> Vec<WalkOptions> {
    let pseudo = pseudo_devices();
    let of_source = |source: &NamedSource| {
        let mut options = options.clone();
        // A source that is itself in such a file system was asked for.
        let own = std::fs::metadata(&source.root).map(|meta| meta.dev()).ok();
        options.shut = Shut::default();
        pseudo.iter().filter(|device| Some(**device) != own).for_each(|device| options.shut.add_device(*device));
        let left_out = mounts::not_entered(&source.root).unwrap_or_default();
        options.not_entered.extend(left_out.iter().filter_map(|mount| {
            let below = mount.strip_prefix(&source.root).ok()?.as_os_str().as_bytes();
            (!below.is_empty()).then(|| RelPath::from_bytes(below))
        }));
        options
    };
    sources.iter().map(of_source).collect()
}

/// One more directory that is not entered, in every source that it lies below: a mount point to come.
pub fn leave_out(sources: &[NamedSource], options: &mut [WalkOptions], directory: &std::path::Path) {
    options.iter().for_each(|options| options.shut.add_point(directory));
    for (source, options) in sources.iter().zip(options) {
        if let Ok(below) = directory.strip_prefix(&source.root) {
            options.not_entered.insert(RelPath::from_bytes(below.as_os_str().as_bytes()));
        }
    }
}

impl Scanner {
    /// A scan that is not yet running; kernel file systems and veinfs mounts below the sources are left out.
    pub fn new(automaton: Arc<Automaton>, sources: Vec<NamedSource>, options: &WalkOptions) -> Self {
        let options = options_of(&sources, options);
        Self { automaton, sources, options, progress: Arc::default() }
    }

    /// Counters of all sources together.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Ends a running scan soon.
    pub fn cancel(&self) {
        self.progress.cancelled.store(true, Ordering::Relaxed);
    }

    /// Starts walking.
    pub fn spawn(&self, report: impl Fn(ScanEvent) + Send + Sync + 'static) -> Scanning {
        let report = Arc::new(report);
        let threads = self.sources.iter().zip(&self.options).enumerate().filter_map(|(at, (source, options))| {
            let (automaton, progress, report) =
                (Arc::clone(&self.automaton), Arc::clone(&self.progress), Arc::clone(&report));
            let (source, options) = (source.clone(), options.clone());
            let failed = Arc::clone(&report);
            let work = move || {
                let walked = walk(&automaton, &*source.source, &source.root_name, &options, &progress, &|event| {
                    report(match event {
                        Event::Match(found) => ScanEvent::Match { source: at, found },
                        Event::Trouble(trouble) => ScanEvent::Trouble { source: at, trouble },
                    });
                });
                report(match walked {
                    Ok(()) => ScanEvent::SourceDone { source: at },
                    Err(error) => ScanEvent::SourceFailed { source: at, error },
                });
            };
            match std::thread::Builder::new().name(format!("scan-{at}")).spawn(work) {
                Ok(thread) => Some(thread),
                Err(error) => {
                    failed(ScanEvent::SourceFailed { source: at, error });
                    None
                }
            }
        });
        Scanning(threads.collect())
    }
}

impl NamedSource {
    /// The absolute path of what is at `path` below the source.
    pub fn path_of(&self, path: &RelPath) -> Vec<u8> {
        path.below(&self.root).as_os_str().as_bytes().to_vec()
    }
}

impl Trouble {
    /// A line for people.
    pub fn describe(&self, source: &NamedSource, automaton: &Automaton) -> String {
        let at = |path: &RelPath| printable(&source.path_of(path)).into_owned();
        match self {
            Trouble::Unread { path, error } => format!("cannot read {}: {}", at(path), plain(error)),
            Trouble::Undecided { pattern, path } => format!(
                "cannot tell whether {} matches {}, since part of it cannot be read",
                at(path),
                automaton.top(*pattern).name
            ),
            Trouble::TooManyWays { path } => {
                format!("captures combine in too many ways in {}; narrow their expressions", at(path))
            }
        }
    }
}

/// An error without the number that the standard library adds.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
