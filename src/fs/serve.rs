//! Requests to answers.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::announce::{Answer as Announced, Kind};
use super::attr::errno;
use super::files::{Open, piece, splices};
use super::forget::Late;
use super::node::Node;
use super::wire::answer::{Answer, Entry, OpenedAs, told_of};
use super::wire::request::{Call, Request};
use super::wire::spliced::Pipe;
use super::wire::{Channel, READ_BYTES};
use super::{VeinFs, refresh};
use crate::source::File;
use crate::view::inode::is_directory;

/// What a thread that answers keeps from one request to the next.
#[derive(Debug, Default)]
struct Worker {
    answer: Answer,
    /// A pipe for pages of files; none before the first long read, or where there cannot be one.
    pipe: Option<Pipe>,
    pipe_failed: bool,
}

/// What becomes of an answer that was put together.
enum Outcome {
    /// It is sent.
    Send,
    /// It has been sent, or there is none.
    Done,
}

/// Threads that answer the kernel; the last one to end ends the session.
#[derive(Debug)]
pub(super) struct Workers {
    running: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts to answer.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub(super) fn start(fs: &Arc<VeinFs>, channel: &Channel, threads: usize) -> io::Result<Self> {
        let running = Arc::new(AtomicUsize::new(threads));
        for number in 0..threads {
            let (fs, channel, running) = (Arc::clone(fs), channel.clone(), Arc::clone(&running));
            std::thread::Builder::new().name(format!("fuse-{number}")).spawn(move || {
                serve(&fs, &channel);
                if running.fetch_sub(1, Ordering::AcqRel) == 1 {
                    fs.destroy();
                }
            })?;
        }
        Ok(Self { running })
    }

    /// True when the kernel has let go of the mount.
    pub(super) fn have_ended(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }
}

/// Answers requests until the mount ends.
fn serve(fs: &VeinFs, channel: &Channel) {
    let mut buffer = Channel::buffer();
    let mut worker = Worker::default();
    loop {
        match channel.next(&mut buffer) {
            Ok(Some(Request { call: Call::Destroy, unique, .. })) => {
                worker.answer.clear();
                channel.send(unique, worker.answer.bytes_mut());
                return;
            }
            Ok(Some(request)) => worker.serve(fs, channel, &request),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "requests of the kernel cannot be read");
                return;
            }
        }
    }
}

impl Worker {
    fn serve(&mut self, fs: &VeinFs, channel: &Channel, request: &Request<'_>) {
        self.answer.clear();
        // Before anything is looked at: a change from here on is told to the kernel once more.
        let epoch = fs.epoch(request);
        // One request with a fault of ours in it must not end the mount.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.answer(fs, channel, request)));
        match outcome.unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EIO))) {
            Ok(Outcome::Send) => {
                let sent = channel.send(request.unique, self.answer.bytes_mut());
                if !sent {
                    self.take_back(fs, request);
                } else if let Some(epoch) = epoch {
                    fs.tell_if_late(request, epoch, &self.answer);
                }
            }
            Ok(Outcome::Done) => {}
            Err(error) => {
                channel.refuse(request.unique, errno(&error));
                if let Some(epoch) = epoch {
                    fs.tell_if_late(request, epoch, &self.answer);
                }
            }
        }
    }

    /// What nobody was told does not count as told.
    fn take_back(&self, fs: &VeinFs, request: &Request<'_>) {
        match &request.call {
            Call::Lookup(_) => told_of_entry(self.answer.body()).into_iter().for_each(|ino| fs.forget(ino, 1)),
            Call::ReadDirPlus { .. } => told_of(self.answer.body()).into_iter().for_each(|(ino, _)| fs.forget(ino, 1)),
            Call::Open { .. } => fs.release(u64::from_ne_bytes(*self.answer.body().first_chunk().unwrap_or(&[0; 8]))),
            _ => {}
        }
    }

    fn answer(&mut self, fs: &VeinFs, channel: &Channel, request: &Request<'_>) -> io::Result<Outcome> {
        let answer = &mut self.answer;
        let ino = request.node;
        match &request.call {
            Call::Lookup(name) => answer.entry(&fs.lookup(request.thread, ino, name)?),
            Call::Forget(lookups) => {
                fs.forget(ino, *lookups);
                return Ok(Outcome::Done);
            }
            Call::ForgetMany(all) => {
                all.iter().for_each(|(ino, lookups)| fs.forget(*ino, *lookups));
                return Ok(Outcome::Done);
            }
            Call::Attributes { handle } => {
                let (attr, keep) = fs.do_getattr(ino, *handle)?;
                answer.attributes(&attr, keep);
            }
            Call::Statx { handle } => {
                let (attr, keep) = fs.do_getattr(ino, *handle)?;
                answer.statx(&attr, keep);
            }
            Call::ReadLink => answer.data(&fs.do_readlink(ino)?),
            Call::Open { flags } => answer.opened(fs.do_open(ino, *flags)?),
            Call::Read { handle, offset, size } => return self.read(fs, channel, request, (*handle, *offset, *size)),
            Call::Release { handle } => fs.release(*handle),
            Call::StatFs => answer.statfs(&fs.do_statfs(ino)?),
            Call::GetXattr { name, size } => {
                let value = match refresh::asked(OsStr::from_bytes(name)) {
                    Some(asked) => fs.do_refresh(request.uid, ino, asked, *size > 0)?,
                    None => fs.do_getxattr(ino, name)?,
                };
                put_xattr(answer, &value, *size)?;
            }
            Call::ListXattr { size } => {
                let names = fs.do_xattrs(ino)?.map_or(Ok(Vec::new()), |subject| subject.list(request.uid == 0))?;
                put_xattr(answer, &names, *size)?;
            }
            Call::OpenDir if fs.agreed().no_opendir => {
                // Asked once; from then on the kernel opens directories by itself.
                return Err(io::Error::from_raw_os_error(libc::ENOSYS));
            }
            Call::OpenDir => {
                answer.opened(OpenedAs { flags: FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE, ..Default::default() })
            }
            Call::ReadDir { offset, size } => fs.do_readdir(ino, *offset, *size as usize, answer)?,
            Call::ReadDirPlus { offset, size } => {
                fs.do_readdirplus(request.thread, ino, *offset, *size as usize, answer)?;
            }
            Call::Access { mask } => fs.do_access(ino, *mask)?,
            Call::Seek { handle, offset, whence } => answer.offset(fs.do_seek(*handle, *offset, *whence)?),
            Call::MakeDir(name) => answer.entry(&fs.make(request.thread, ino, name, Kind::Dir)?),
            Call::MakeLink(name) => answer.entry(&fs.make(request.thread, ino, name, Kind::Link)?),
            Call::RemoveDir(name) => fs.announcer.remove(request.thread, ino, name, Kind::Dir)?,
            Call::Unlink(name) => fs.announcer.remove(request.thread, ino, name, Kind::Link)?,
            Call::Change => return Err(io::Error::from_raw_os_error(libc::EROFS)),
            Call::Interrupt { unique } => {
                if fs.waiting.interrupt(*unique) {
                    channel.refuse(*unique, libc::EINTR);
                }
                // Of what is not waited for the answer is on its way.
                return Ok(Outcome::Done);
            }
            Call::ReleaseDir | Call::Destroy => {}
            // The kernel does without, and does not ask again.
            Call::Flush | Call::Unknown(_) => return Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        }
        Ok(Outcome::Send)
    }

    /// Answers a read, with the pages of the source's cache where it is long.
    fn read(
        &mut self,
        fs: &VeinFs,
        channel: &Channel,
        request: &Request<'_>,
        (handle, offset, size): (u64, u64, u32),
    ) -> io::Result<Outcome> {
        let size = (size as usize).min(READ_BYTES);
        let (file, whole) = match fs.open_file(handle)? {
            Open::File { file, node, .. } if matches!(*file, File::Object(_)) => {
                return Ok(later(fs, channel, request.unique, (file, node), offset, size));
            }
            Open::File { file, size: whole, .. } => (file, whole),
            Open::Text(text) => {
                self.answer.data(piece(&text, offset, size));
                return Ok(Outcome::Send);
            }
            Open::Later(later) => {
                // Whoever works it out answers; no thread of the mount waits for that.
                let (channel, unique) = (channel.clone(), request.unique);
                later.then(move |text| {
                    let mut answer = Answer::default();
                    answer.clear();
                    answer.data(piece(text, offset, size));
                    channel.send(unique, answer.bytes_mut());
                });
                return Ok(Outcome::Done);
            }
        };
        if let (Some(length), File::Local(fd)) = (splices(whole, offset, size), &*file)
            && let Some(pipe) = self.pipe_for(length)
        {
            if pipe.answer(channel, request.unique, fd, offset, length) {
                return Ok(Outcome::Done);
            }
            // What is left in it goes with it.
            self.pipe = None;
        }
        self.answer.filled(size, |into| file.read_full(into, offset))?;
        Ok(Outcome::Send)
    }

    fn pipe_for(&mut self, length: usize) -> Option<&Pipe> {
        if self.pipe.is_none() && !self.pipe_failed {
            match Pipe::new(READ_BYTES) {
                Ok(pipe) => self.pipe = Some(pipe),
                Err(error) => {
                    tracing::debug!(%error, "no pipe; reads are copied");
                    self.pipe_failed = true;
                }
            }
        }
        self.pipe.as_ref().filter(|pipe| length <= pipe.room())
    }
}

/// Has an object read; whoever has its bytes answers, so that a store that does not holds up no thread of the mount.
fn later(
    fs: &VeinFs,
    channel: &Channel,
    unique: u64,
    (file, node): (Arc<File>, Arc<Node>),
    offset: u64,
    size: usize,
) -> Outcome {
    let File::Object(object) = &*file else { return Outcome::Send };
    if !fs.waiting.begin(unique) {
        channel.refuse(unique, libc::EINTR);
        return Outcome::Done;
    }
    let (waiting, live, channel) = (Arc::clone(&fs.waiting), Arc::clone(&fs.live), channel.clone());
    let ticket = object.read(
        offset,
        size,
        Box::new(move |read| {
            if !waiting.finish(unique) {
                return;
            }
            match read {
                Ok(pieces) => {
                    channel.send_pieces(unique, &pieces);
                }
                Err(error) => {
                    channel.refuse(unique, errno(&error));
                    live.note_read_error(node.place().source, &node.path(), error);
                }
            }
        }),
    );
    fs.waiting.set(unique, ticket);
    Outcome::Done
}

const FOPEN_KEEP_CACHE: u32 = fuser::FopenFlags::FOPEN_KEEP_CACHE.bits();
const FOPEN_CACHE_DIR: u32 = fuser::FopenFlags::FOPEN_CACHE_DIR.bits();

/// The inode that an answer to a lookup tells the kernel of.
fn told_of_entry(body: &[u8]) -> Option<u64> {
    body.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)).filter(|ino| *ino != 0)
}

fn put_xattr(answer: &mut Answer, value: &[u8], size: u32) -> io::Result<()> {
    match size as usize {
        0 => answer.length(value.len()),
        room if value.len() > room => return Err(io::Error::from_raw_os_error(libc::ERANGE)),
        _ => answer.data(value),
    }
    Ok(())
}

impl VeinFs {
    fn lookup(&self, thread: u32, parent: u64, name: &[u8]) -> io::Result<Entry> {
        match self.announcer.lookup(thread, parent, name) {
            Some(Announced::Nothing) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            Some(Announced::Phantom(ino, kind)) => Ok(self.phantom_entry(ino, kind)),
            None => {
                self.habits.looks_up(thread, parent);
                self.do_lookup(parent, name)
            }
        }
    }

    /// A name's making: by the announcer's helper, or EROFS.
    fn make(&self, thread: u32, parent: u64, name: &[u8], kind: Kind) -> io::Result<Entry> {
        self.announcer.make(thread, parent, name, kind).map(|ino| self.phantom_entry(ino, kind))
    }

    fn phantom_entry(&self, ino: u64, kind: Kind) -> Entry {
        Entry { attr: self.phantom(ino, kind), generation: 0, keep: Duration::ZERO, attr_keep: Duration::ZERO }
    }

    pub(super) fn forget(&self, ino: u64, lookups: u64) {
        if self.nodes.forget(ino, lookups) {
            self.opened.forget(ino);
        }
        self.announcer.forget(ino, lookups);
    }

    fn destroy(&self) {
        self.announcer.stop("the mount has ended");
        if let Some(mut end) = self.end.lock().take() {
            end.send(Ok(()));
        }
    }

    /// The counts of changes where a request looks, if its answer is kept by the kernel.
    fn epoch(&self, request: &Request<'_>) -> Option<Epoch> {
        use Call::{Attributes, GetXattr, Lookup, ReadDir, ReadDirPlus, Statx};
        let kept = matches!(
            request.call,
            Lookup(_) | ReadDir { .. } | ReadDirPlus { .. } | Attributes { .. } | Statx { .. } | GetXattr { .. }
        );
        kept.then(|| self.epoch_at(request.node))
    }

    fn epoch_at(&self, ino: u64) -> Epoch {
        // What changes is counted at the directory that it is in, or is.
        let dir = self.nodes.get(ino).and_then(|node| match node.dir() {
            Some(_) => Some(node),
            None => node.at.lock().parent.clone(),
        });
        let any = self.epochs.any();
        match dir.as_ref().and_then(|node| node.dir()) {
            Some(dir) => Epoch { here: self.epochs.at(dir.place.source, &dir.path), any },
            // A folder of the view: of matches, which lie anywhere.
            None => Epoch { here: any, any },
        }
    }

    /// Tells the kernel once more what it has to forget if something changed while an answer was put together.
    fn tell_if_late(&self, request: &Request<'_>, before: Epoch, answer: &Answer) {
        let now = self.epoch_at(request.node);
        if now == before {
            return;
        }
        let here = now.here != before.here;
        // Nobody receives where nothing is mounted, as in tests.
        let late = |late| drop(self.late.send(late));
        let entry = |ino, name: &[u8]| {
            if here {
                late(Late::Entry(request.node, name.into()));
            }
            // What changes in a directory below is counted there.
            if here || is_directory(ino) {
                late(Late::Inode(ino));
            }
        };
        match &request.call {
            Call::Lookup(name) => match told_of_entry(answer.body()) {
                Some(ino) => entry(ino, name),
                None if here => late(Late::Entry(request.node, (*name).into())),
                None => {}
            },
            Call::ReadDirPlus { .. } => {
                if here {
                    late(Late::Listing(request.node));
                }
                told_of(answer.body()).into_iter().for_each(|(ino, name)| entry(ino, name));
            }
            Call::ReadDir { .. } if here => late(Late::Listing(request.node)),
            Call::ReadDir { .. } => {}
            _ if here => late(Late::Inode(request.node)),
            _ => {}
        }
    }
}

/// Counts of changes: where a request looks, and altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Epoch {
    here: u64,
    any: u64,
}
