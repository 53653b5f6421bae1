//! A mount's life: from the mount point through the scan to the unmount.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fuser::{Config, MountOption, Session, SessionACL};
use parking_lot::Mutex;

use super::announce::{Announcer, Reach, Way};
use super::forget::Forgetter;
use super::negotiate::{Negotiator, Wish};
use super::node::Slack;
use super::serve::Workers;
use super::wire::Channel;
use super::{FsOptions, VeinFs, guard};
use crate::crawl::{Unwatched, Watching};
use crate::live::Live;
use crate::mounts;
use crate::signals::{SessionEnd, ShutdownReason, Waiter};
use crate::update::store::Store;
use crate::update::{Event, KeepOptions, Keeper, Told};
use crate::view::inode::Inodes;
use crate::watch;

/// How long the end of a mount waits for the last commit.
const COMMIT_LIMIT: Duration = Duration::from_secs(4);
/// After this an open directory of a source is closed, so that an idle mount does not keep the source busy.
const IDLE: Duration = Duration::from_secs(1);
/// After this what a directory showed is forgotten; whoever is in the middle of it goes on with a new listing.
const LISTED: Duration = Duration::from_secs(60);
/// How often whoever waits for a scan looks whether the mount is still there.
const LOOK: Duration = Duration::from_millis(50);

/// How a file system is put into the tree.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// How it behaves.
    pub fs: FsOptions,
    /// Threads that answer the kernel; a slow source keeps one busy for each request.
    pub threads: usize,
    /// Programs on it may be run.
    pub exec: bool,
    /// What `mount` shows as the source.
    pub source_name: String,
    /// This program, which is started once more to announce changes ([`super::announce`]).
    pub program: PathBuf,
}

/// What went wrong with a mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel or fusermount3 refused.
    #[error("cannot mount at {}: {reason}", mountpoint.display())]
    Refused {
        /// Where.
        mountpoint: PathBuf,
        /// Why, and the cure.
        reason: String,
    },
    /// A thread could not be started, or the kernel's answer not be understood.
    #[error("mount: {0}")]
    System(#[from] io::Error),
}

/// How a mount learns of its sources.
#[derive(Debug)]
pub struct Keeping {
    /// How local sources are watched; `None` for not at all.
    pub watch: Option<watch::Choice>,
    /// How they are kept up to date.
    pub keep: KeepOptions,
    /// What was known of them.
    pub store: Option<Store>,
}

/// A file system in use.
#[derive(Debug)]
pub struct Mounted {
    live: Arc<Live>,
    waiter: Waiter,
    served: Served,
    /// Closed when the writer has ended and all is committed.
    kept: Mutex<Receiver<()>>,
}

/// A session that answers the kernel.
#[derive(Debug)]
pub struct Served {
    // Dropping it would unmount by path, which may be another's mount by then.
    _session: ManuallyDrop<Session<Negotiator>>,
    workers: Workers,
    entry: Option<mounts::MountEntry>,
    teller: Teller,
}

/// Tells the kernel, and programs that watch, of what was published; clones are the same one.
#[derive(Clone, Debug)]
pub struct Teller {
    forgetter: Arc<Forgetter>,
    announcer: Announcer,
}

/// Mounts, and starts to read or compare the sources; both are running when it returns.
///
/// # Errors
/// If the mount is refused. What is met in the sources is in [`Live`].
pub fn mount(
    live: Live,
    inodes: Inodes,
    keeping: Keeping,
    waiter: Waiter,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let live = Arc::new(live);
    let Keeping { watch, keep, store } = keeping;
    if let Some(store) = &store {
        live.set_index(Box::new(store.status()));
    }
    // In the order of the sources, for which they are made one after the other.
    let watches: Mutex<Vec<Arc<dyn Watching>>> = Mutex::default();
    let make_watch = |at: usize, events: Sender<Event>| -> Arc<dyn Watching> {
        let sink = move |changes| {
            // Nobody receives any more once the mount is going.
            let _ = events.send(Event::Told { changes });
        };
        let watch: Arc<dyn Watching> = match watch {
            // Listings tell.
            _ if live.sources[at].source.as_listed().is_some() => Arc::new(Unwatched),
            Some(choice) => Arc::new(watch::Watch::start(&live.sources[at].root, choice, Box::new(sink))),
            None => Arc::new(Unwatched),
        };
        watches.lock().push(Arc::clone(&watch));
        watch
    };
    let (told, to_tell) = channel::<Told>();
    let tell = move |what| {
        let _ = told.send(what);
    };
    // What an index knows is in the view before anybody can look.
    let keeper = Keeper::new(Arc::clone(&live), inodes, &make_watch, store, keep, Box::new(tell))?;
    let served = serve(&live, watches.into_inner(), Some(waiter.session_end()), options)?;
    let teller = served.teller();
    start("forget", move || to_tell.iter().for_each(|told| teller.tell(&told)))?;
    let (ended, kept) = channel();
    start("keep", move || {
        keeper.run();
        drop(ended);
    })?;
    Ok(Mounted { live, waiter, served, kept: Mutex::new(kept) })
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

/// Mounts, and answers the kernel; `watches` tell of changes in the sources, in their order, and `end` is told of the
/// session's end.
///
/// # Errors
/// If the mount is refused.
pub fn serve(
    live: &Arc<Live>,
    watches: Vec<Arc<dyn Watching>>,
    end: Option<SessionEnd>,
    options: &MountOptions,
) -> Result<Served, MountError> {
    let (late, to_settle) = channel();
    let fs = Arc::new(VeinFs::new(Arc::clone(live), options.fs.clone(), watches, end, late));
    let (handles, listings, nodes, announcer) = (fs.handles(), fs.listings(), fs.nodes(), fs.announcer());
    let forgetter = Arc::new(fs.forgetter());
    let refused = |error: io::Error| MountError::Refused {
        mountpoint: live.mountpoint.clone(),
        reason: refusal(&error, options.fs.allow_other),
    };
    // Where the kernel checks access, an ordinary user's helper could not write to folders that nobody may write to.
    let way = Some(Way::here()).filter(|way| *way == Way::Clone || !options.fs.allow_other);
    let checks = options.fs.allow_other || way == Some(Way::Clone) && fs.tells_all();
    let wish = Wish { open: options.fs.open, checks };
    let negotiator = Negotiator { wish, agreed: Arc::clone(&fs.agreed) };
    let read_only = way != Some(Way::Path);
    let session = Session::new(negotiator, &live.mountpoint, &config(options, read_only)).map_err(refused)?;
    let kernel = Channel::new(session.as_fd().try_clone_to_owned()?);
    let _ = fs.channel.set(kernel.clone());
    let notifier = session.notifier();
    let _ = fs.notifier().set(notifier.clone());
    let workers = Workers::start(&fs, &kernel, options.threads.max(2))?;
    // Unmounting must never hit another mount at the same path: it is told apart by its device number.
    let entry = mounts::find(&live.mountpoint).ok().flatten();
    if let Some(entry) = &entry {
        let own = rustix::fs::makedev(entry.major, entry.minor);
        live.options.iter().for_each(|options| options.shut.add_device(own));
        // The kernel keeps what it is told of the root: a link in a source that leads there asks no thread of ours.
        let _ = std::fs::metadata(&live.mountpoint);
        raise_readahead(&format!("{}:{}", entry.major, entry.minor));
    }
    match (way, &entry) {
        (Some(way), Some(entry)) => announce(&announcer, way, entry, options),
        (None, _) => announcer.stop("with allow_other, it takes the right to mount (CAP_SYS_ADMIN)"),
        (_, None) => announcer.stop("the mount is not seen in /proc/self/mountinfo"),
    }
    if let Some(entry) = &entry {
        look_after(entry, &options.program)?;
    }
    start("idle", move || {
        let mut slack = Slack::default();
        loop {
            std::thread::sleep(IDLE);
            handles.expire(IDLE);
            let entries = listings.expire(LISTED);
            slack.look(&nodes, entries);
        }
    })?;
    start("settle", move || super::settle::settle(&to_settle, &notifier))?;
    let teller = Teller { forgetter, announcer };
    Ok(Served { _session: ManuallyDrop::new(session), workers, entry, teller })
}

/// Starts a guard, from a thread that lives as long as this process.
fn look_after(entry: &mounts::MountEntry, program: &Path) -> io::Result<()> {
    let (device, mountpoint, program) = ((entry.major, entry.minor), entry.mountpoint.clone(), program.to_path_buf());
    start("guard", move || match guard::start(&program, device, &mountpoint).and_then(|mut guard| guard.wait()) {
        Ok(status) => tracing::debug!(%status, "the guard has ended"),
        Err(error) => tracing::warn!(%error, "nobody guards the mount: if this process is killed, it may hang"),
    })
}

/// Starts to announce.
fn announce(announcer: &Announcer, way: Way, entry: &mounts::MountEntry, options: &MountOptions) {
    let mountpoint = entry.mountpoint.clone();
    let reach = Reach { program: options.program.clone(), mountpoint, device: (entry.major, entry.minor), way };
    if let Err(error) = announcer.start(reach) {
        announcer.stop(&error.to_string());
    }
}

impl Served {
    /// True when the kernel has let go of the mount.
    pub fn has_ended(&self) -> bool {
        self.workers.have_ended()
    }

    /// What is to be told of changes.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }
}

impl Teller {
    /// Has the kernel forget what has changed, and announces it to programs that watch; the new view is published.
    pub fn tell(&self, told: &Told) {
        self.forgetter.tell(told);
        self.announcer.tell(&told.changes, &told.old, &told.new);
        told.tickets.iter().for_each(|ticket| self.forgetter.live.note_refreshed(*ticket));
    }
}

impl Mounted {
    /// What it shows.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Waits until the sources are read or compared, or for `limit`; false if the mount ended before.
    pub fn wait_scanned(&self, limit: Option<Duration>) -> bool {
        let begun = Instant::now();
        loop {
            let rest = limit.map_or(LOOK, |limit| limit.saturating_sub(begun.elapsed()).min(LOOK));
            if self.live.wait_complete(rest) || limit.is_some_and(|limit| begun.elapsed() >= limit) {
                break;
            }
            if let Some(reason) = self.waiter.wait_timeout(Duration::ZERO) {
                self.end(&reason);
                return false;
            }
        }
        true
    }

    /// Serves until somebody unmounts or a signal comes, then says that it is `ending` and unmounts.
    pub fn wait(&self, ending: &dyn Fn()) -> ShutdownReason {
        loop {
            let reason = self.waiter.wait();
            ending();
            if self.end(&reason) {
                return reason;
            }
        }
    }

    /// Ends the mount and commits what is known; false if the mount could not be taken off and goes on.
    pub fn end(&self, reason: &ShutdownReason) -> bool {
        if let ShutdownReason::Signal(signal) = reason {
            self.served.teller.announcer.stop("the mount is about to end");
            let Some(entry) = &self.served.entry else { return true };
            // One in use is detached: it is gone for all, and what is open on it ends with this process.
            match mounts::unmount_own(entry, false) {
                Ok(_) => {}
                Err(_) => {
                    if let Err(error) = mounts::unmount_own(entry, true) {
                        tracing::error!(%error, ?signal, "cannot unmount");
                        return false;
                    }
                }
            }
        }
        self.live.stop();
        // A source that does not answer must not keep the daemon: then the index is as it was committed last.
        let _ = self.kept.lock().recv_timeout(COMMIT_LIMIT);
        true
    }
}

fn config(options: &MountOptions, read_only: bool) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        if read_only { MountOption::RO } else { MountOption::RW },
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::FSName(options.source_name.clone()),
        // As text: fuser's own option of this name does not reach the kernel when root mounts.
        MountOption::CUSTOM("subtype=veinfs".into()),
    ];
    if !options.exec {
        config.mount_options.push(MountOption::NoExec);
    }
    if options.fs.allow_other {
        config.mount_options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    config
}

fn refusal(error: &io::Error, allow_other: bool) -> String {
    let plain = crate::scan::plain(error);
    if !Path::new("/dev/fuse").exists() {
        return "there is no /dev/fuse; load the module with `modprobe fuse`, or start the container with `--device /dev/fuse`".into();
    }
    if rustix::process::geteuid().is_root() {
        return plain;
    }
    let helper = ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/bin/fusermount", "/bin/fusermount"];
    if !helper.iter().any(|path| Path::new(path).exists()) {
        return format!("{plain}; ordinary users need fusermount3: `apt-get install fuse3`");
    }
    if plain.contains("could not determine username") {
        return "fusermount3 mounts for users that have a name alone; add this one to /etc/passwd".into();
    }
    if allow_other {
        return format!("{plain}; allow_other needs the line `user_allow_other` in /etc/fuse.conf");
    }
    format!("{plain}; /dev/fuse must be writable for you, and so must the mount point")
}

/// The kernel's limit of 128 KiB for read-ahead can be raised by root alone, for each mount.
fn raise_readahead(device: &str) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(path, "1024") {
        tracing::debug!(%error, "read-ahead stays as it is");
    }
}
