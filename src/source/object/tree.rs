//! The objects of a snapshot as a tree of directories and files.
//!
//! Directories are the beginnings of keys up to a slash. A file and a directory of the same name can both be there; then
//! the directory is shown. All but the content of objects is answered from the [`Snapshot`], without a request. Which one
//! that is may change at any time: a directory is known by its path, and what is in it is looked up in the newest one.
//!
//! Attributes: an object belongs to whoever runs this, and may be read by all, as with other tools that mount buckets.
//! All times are that of its writing. A new version of an object is another file under the same name, born at another time,
//! so that whoever has the old one open never sees the new one's bytes. A directory's modification time is that of the
//! newest object right in it; the nanoseconds of its times are a hash of the names in it, so that a directory is as it
//! was if its times are.

use std::any::Any;
use std::ffi::{CStr, CString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::answers::{Answers, Question};
use super::snapshot::{EtagRef, Meta, MetaRef, Snapshot, Writer, after, compare};
use crate::automaton::{CONTAINS_BYTES, Test};
use crate::entry::Kind;
use crate::source::{File, Handle, LeftOut, ListBuffer, Listed, RawKind, Renewed, Source, Stat};

/// What a directory's numbers are made of in place of a device of this machine's; those have 32 bits in all.
const DEVICES: u64 = 0x4f62_6a00_0000_0000;
const NANOS: u64 = 1_000_000_000;
/// Optimal size of a request, in bytes (`stx_blksize`).
const BLOCK_BYTES: u32 = 1 << 20;

/// What is behind the name of a listing's file in that of the answers to tests.
const ANSWERS: &str = ".answers";
/// So many differences between two listings are told one by one.
const MOST_TOLD: usize = 100_000;

/// So many replaced objects are known; beyond that it is found out again which they are.
const MOST_REPLACED: usize = 10_000;

/// What is asked of a store; all but the opening of objects makes requests.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// What a listing is of, and how it is made: another one's is of no use.
    fn location(&self) -> &[u8];

    /// Lists all objects.
    ///
    /// # Errors
    /// If any part of it could not be listed, with a sentence that says why.
    fn list(&self, into: Writer, cancelled: &AtomicBool) -> io::Result<Snapshot>;

    /// The object at a path below the prefix, as it was listed. No request is made yet.
    fn open(&self, path: &[u8], meta: &Meta) -> Arc<dyn ReadObject>;

    /// What an object is now that turned out, when it was read, to be another version than `listed`; `None` for all others,
    /// without a request.
    ///
    /// # Errors
    /// ESTALE if there is none any more; those of the store.
    fn look_again(&self, _path: &[u8], _listed: &Meta) -> io::Result<Option<Meta>> {
        Ok(None)
    }

    /// How many requests were made, and of what kind.
    fn requests(&self) -> Value;
}

/// Called once with what was read, in pieces one behind the other, from any thread.
pub type Done = Box<dyn FnOnce(io::Result<Vec<Bytes>>) + Send>;

/// A read that is under way; once it is dropped nobody waits for it, and what it asked for need not be got.
pub struct Ticket(pub Option<Box<dyn Any + Send>>);

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

/// The content of one version of an object.
pub trait ReadObject: Send + Sync + std::fmt::Debug {
    /// Begins to read, up to the end of the object, and calls `done` with what was read, perhaps before it returns.
    fn read(&self, offset: u64, length: usize, done: Done) -> Ticket;

    /// Fills the buffer from an offset on, up to the end of the object; gives the number of bytes.
    ///
    /// # Errors
    /// ESTALE if the object is another one by now; those of the store.
    fn read_full(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

#[derive(Debug)]
struct Shared {
    url: Box<[u8]>,
    dev: u64,
    owner: (u32, u32),
    snapshot: ArcSwapOption<Snapshot>,
    /// By their paths, objects of which it is known that they were replaced since they were listed.
    replaced: Mutex<FxHashMap<Box<[u8]>, Meta>>,
    store: Box<dyn Store>,
}

/// A prefix of an object store; see the module.
#[derive(Debug)]
pub struct ObjectSource {
    shared: Arc<Shared>,
    /// Where listings are kept; held while one is made.
    kept: Mutex<Option<PathBuf>>,
    answers: Answers,
}

/// An open directory of an object store.
#[derive(Clone, Debug)]
pub struct Dir {
    shared: Arc<Shared>,
    /// Below the root, empty for that.
    path: Box<[u8]>,
}

/// An open object.
#[derive(Debug)]
pub struct OpenObject {
    stat: Stat,
    content: Arc<dyn ReadObject>,
}

impl OpenObject {
    /// Begins to read, see [`ReadObject::read`].
    pub fn read(&self, offset: u64, length: usize, done: Done) -> Ticket {
        let length = length.min(usize::try_from(self.stat.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        if length == 0 {
            done(Ok(Vec::new()));
            return Ticket(None);
        }
        self.content.read(offset, length, done)
    }

    /// See [`File::read_full`].
    ///
    /// # Errors
    /// Those of [`ReadObject::read_full`].
    pub fn read_full(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.stat.size {
            return Ok(0);
        }
        self.content.read_full(into, offset)
    }
}

/// What a name stands for.
enum Found {
    Dir(Dir),
    File(Box<[u8]>, Meta),
}

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl ObjectSource {
    /// The tree at a location, which has no snapshot yet: until it has one it is away. `url` is what paths begin with.
    pub fn new(url: &[u8], store: Box<dyn Store>) -> Self {
        let dev = DEVICES | xxh3_64(url) & 0xffff_ffff;
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let shared =
            Shared { url: url.into(), dev, owner, snapshot: ArcSwapOption::empty(), replaced: Mutex::default(), store };
        Self { shared: Arc::new(shared), kept: Mutex::new(None), answers: Answers::default() }
    }

    /// What was listed last.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.shared.snapshot.load_full()
    }

    /// From now on the tree is as this snapshot says.
    pub fn set_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.shared.snapshot.store(Some(snapshot));
        self.shared.replaced.lock().clear();
    }

    fn dir<'a>(&self, handle: &'a Handle) -> io::Result<&'a Dir> {
        match handle {
            Handle::Object(dir) if Arc::ptr_eq(&dir.shared, &self.shared) => Ok(dir),
            _ => Err(error(libc::EBADF)),
        }
    }
}

impl Shared {
    fn snapshot(&self) -> io::Result<Arc<Snapshot>> {
        self.snapshot.load_full().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "not listed yet"))
    }

    /// Attributes of an object.
    fn stat(&self, path: &[u8], meta: &Meta) -> Stat {
        let (seconds, nanos) = meta.modified;
        // Two versions may have been written within the clock's grain.
        let version = xxh3_64(format!("{:?} {:?} {nanos}", meta.etag, meta.version).as_bytes());
        Stat {
            mode: libc::S_IFREG | 0o444,
            size: meta.size,
            blocks: meta.size.div_ceil(512),
            mtime: meta.modified,
            ctime: (seconds, (version % NANOS) as u32),
            btime: (seconds, (version % NANOS) as u32),
            ..self.bare(path)
        }
    }

    fn bare(&self, path: &[u8]) -> Stat {
        Stat {
            dev: self.dev,
            ino: xxh3_64(path).max(1),
            mode: libc::S_IFDIR | 0o555,
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: (0, 0),
            size: 0,
            blocks: 0,
            blksize: BLOCK_BYTES,
            atime: (0, 0),
            mtime: (0, 0),
            ctime: (0, 0),
            btime: (0, 0),
        }
    }
}

impl Dir {
    /// The path of something in it.
    fn below(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&*self.path, b"/", name].concat() }
    }

    /// What keys in it begin with.
    fn prefix(&self) -> Vec<u8> {
        if self.path.is_empty() { Vec::new() } else { [&*self.path, b"/"].concat() }
    }

    fn child(&self, path: Vec<u8>) -> Self {
        Self { shared: Arc::clone(&self.shared), path: path.into() }
    }

    fn exists(&self, snapshot: &Arc<Snapshot>) -> io::Result<bool> {
        // A prefix without objects is an empty directory as long as it is mounted.
        Ok(self.path.is_empty() || snapshot.has_prefix(&self.prefix())?)
    }

    fn find(&self, name: &[u8]) -> io::Result<Found> {
        let snapshot = self.shared.snapshot()?;
        let path = self.below(name);
        let dir = self.child(path.clone());
        if dir.exists(&snapshot)? {
            return Ok(Found::Dir(dir));
        }
        match snapshot.get(&path)? {
            Some(listed) => {
                let now = self.shared.replaced.lock().get(&*path).cloned();
                Ok(Found::File(path.into(), now.unwrap_or(listed)))
            }
            None => Err(error(libc::ENOENT)),
        }
    }

    /// Calls `each` for what is right in it: name, and what is known of it if it is a file.
    fn each(&self, each: &mut dyn FnMut(&[u8], Option<&MetaRef<'_>>)) -> io::Result<()> {
        let snapshot = self.shared.snapshot()?;
        let prefix = self.prefix();
        let mut cursor = snapshot.seek(&prefix)?;
        if cursor.key().is_none_or(|key| !key.starts_with(&prefix)) {
            return if self.path.is_empty() { Ok(()) } else { Err(error(libc::ENOENT)) };
        }
        // Files with whose names the key begins: there may be a directory of that name further on.
        let mut waiting: Vec<(Vec<u8>, Meta)> = Vec::new();
        while let Some(rest) = cursor.key().and_then(|key| key.strip_prefix(&*prefix)) {
            while let Some((name, meta)) = waiting.pop_if(|(name, _)| !rest.starts_with(name)) {
                tell(each, &name, &meta);
            }
            match rest.iter().position(|byte| *byte == b'/') {
                Some(end) => {
                    let name = rest[..end].to_vec();
                    waiting.retain(|(file, _)| *file != name);
                    each(&name, None);
                    cursor.seek(&after(&[&*prefix, &name, b"/"].concat()))?;
                }
                None => {
                    if !rest.is_empty() {
                        let meta = cursor.meta()?.map(|meta| meta.to_meta()).unwrap_or_default();
                        waiting.push((rest.to_vec(), meta));
                    }
                    cursor.advance()?;
                }
            }
        }
        waiting.iter().rev().for_each(|(name, meta)| tell(each, name, meta));
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        let mut newest = (0, 0);
        let mut hash = Xxh3::new();
        self.each(&mut |name, meta| {
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(&[u8::from(meta.is_some())]);
            newest = newest.max(meta.map_or((0, 0), |meta| meta.modified));
        })?;
        let hash = hash.digest();
        let (low, high) = ((hash % NANOS) as u32, (hash / NANOS % NANOS) as u32);
        Ok(Stat { mtime: (newest.0, low), ctime: (newest.0, high), ..self.shared.bare(&self.path) })
    }

    /// The extended attributes of an object, or of the directory itself, each with a NUL behind.
    pub(crate) fn xattrs(&self, name: Option<&[u8]>) -> Vec<u8> {
        let known = [ETAG, STORAGE_CLASS].into_iter().filter(|attribute| self.xattr(name, attribute).is_some());
        known.flat_map(|attribute| attribute.iter().copied().chain([0])).collect()
    }

    /// One of the extended attributes.
    pub(crate) fn xattr(&self, name: Option<&[u8]>, attribute: &[u8]) -> Option<Vec<u8>> {
        let Found::File(_, meta) = self.find(name?).ok()? else { return None };
        let value = match attribute {
            ETAG => meta.etag,
            STORAGE_CLASS => meta.class,
            _ => None,
        };
        value.map(|value| value.as_bytes().to_vec())
    }

    /// Sizes of the file system: what there is, and no room for more.
    pub(crate) fn statfs(&self) -> rustix::fs::StatVfs {
        let (bytes, files) =
            self.shared.snapshot.load().as_ref().map_or((0, 0), |snapshot| (snapshot.bytes(), snapshot.records()));
        rustix::fs::StatVfs {
            f_bsize: u64::from(BLOCK_BYTES),
            f_frsize: 512,
            f_blocks: bytes.div_ceil(512),
            f_bfree: 0,
            f_bavail: 0,
            f_files: files,
            f_ffree: 0,
            f_favail: 0,
            f_fsid: self.shared.dev,
            f_flag: rustix::fs::StatVfsMountFlags::RDONLY,
            f_namemax: 255,
        }
    }
}

const ETAG: &[u8] = b"user.veinfs.etag";
const STORAGE_CLASS: &[u8] = b"user.veinfs.storage_class";

fn tell(each: &mut dyn FnMut(&[u8], Option<&MetaRef<'_>>), name: &[u8], meta: &Meta) {
    let bare = MetaRef {
        marker: meta.marker,
        size: meta.size,
        modified: meta.modified,
        etag: EtagRef::None,
        version: None,
        class: None,
    };
    each(name, Some(&bare));
}

impl Source for ObjectSource {
    fn as_listed(&self) -> Option<&dyn Listed> {
        Some(self)
    }

    fn open_root(&self) -> io::Result<Handle> {
        self.shared.snapshot()?;
        Ok(Handle::Object(Dir { shared: Arc::clone(&self.shared), path: Box::default() }))
    }

    fn open_again(&self, dir: &Handle) -> io::Result<Handle> {
        Ok(Handle::Object(self.dir(dir)?.clone()))
    }

    fn open_dir(&self, base: &Handle, tail: &CStr) -> io::Result<Handle> {
        let tail = tail.to_bytes();
        if tail == b"." {
            return self.open_again(base);
        }
        match self.dir(base)?.find(tail)? {
            Found::Dir(dir) => Ok(Handle::Object(dir)),
            Found::File(..) => Err(error(libc::ENOTDIR)),
        }
    }

    fn open_link(&self, dir: &Handle, name: &CStr) -> io::Result<Handle> {
        self.open_dir(dir, name)
    }

    fn list(&self, dir: &Handle, _: &mut ListBuffer, each: &mut dyn FnMut(&CStr, RawKind, u64)) -> io::Result<()> {
        let dir = self.dir(dir)?;
        dir.each(&mut |name, meta| {
            let kind = if meta.is_some() { RawKind::File } else { RawKind::Dir };
            let ino = xxh3_64(&dir.below(name)).max(1);
            // Keys with a NUL are not in a snapshot.
            if let Ok(name) = CString::new(name) {
                each(&name, kind, ino);
            }
        })
    }

    fn link_kind(&self, _: &Handle, _: &CStr) -> Kind {
        Kind::LinkFile
    }

    fn path_of(&self, dir: &Handle) -> io::Result<Vec<u8>> {
        let dir = self.dir(dir)?;
        let url = &*self.shared.url;
        Ok(if dir.path.is_empty() { url.to_vec() } else { [url, b"/", &dir.path].concat() })
    }

    fn identity(&self, dir: &Handle) -> io::Result<(u64, u64)> {
        let bare = self.shared.bare(&self.dir(dir)?.path);
        Ok((bare.dev, bare.ino))
    }

    fn test(&self, dir: &Handle, name: &CStr, test: &Test) -> io::Result<bool> {
        let (path, meta) = match self.dir(dir)?.find(name.to_bytes()) {
            Ok(Found::File(path, meta)) => (path, meta),
            Ok(Found::Dir(_)) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Test::Size(bound) = test {
            return Ok(bound.holds(meta.size));
        }
        let question = Question::new(&path, &meta, test);
        if let Some(answer) = self.answers.get(question) {
            return Ok(answer);
        }
        // Up to an offset and a length, no further than the object goes.
        let read = |offset: u64, length: u64| -> io::Result<Vec<u8>> {
            let length = length.min(meta.size.saturating_sub(offset));
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            if !bytes.is_empty() {
                let read = self.shared.store.open(&path, &meta).read_full(&mut bytes, offset)?;
                bytes.truncate(read);
            }
            Ok(bytes)
        };
        let answer = match test {
            Test::Size(bound) => bound.holds(meta.size),
            Test::Magic(magic) => read(magic.offset, magic.bytes.len() as u64)? == magic.bytes,
            Test::Contains(text) => memchr::memmem::find(&read(0, CONTAINS_BYTES)?, text).is_some(),
        };
        self.answers.put(question, answer);
        Ok(answer)
    }

    fn stat(&self, dir: &Handle, name: &CStr, _: bool) -> io::Result<Stat> {
        match self.dir(dir)?.find(name.to_bytes())? {
            Found::Dir(dir) => dir.stat(),
            Found::File(path, meta) => Ok(self.shared.stat(&path, &meta)),
        }
    }

    fn stat_dir(&self, dir: &Handle) -> io::Result<Stat> {
        self.dir(dir)?.stat()
    }

    fn read_link(&self, _: &Handle, _: &CStr) -> io::Result<Vec<u8>> {
        Err(error(libc::EINVAL))
    }

    fn open_file(&self, dir: &Handle, name: &CStr, _: bool) -> io::Result<File> {
        match self.dir(dir)?.find(name.to_bytes())? {
            Found::Dir(_) => Err(error(libc::EISDIR)),
            Found::File(path, mut meta) => {
                if let Some(now) = self.shared.store.look_again(&path, &meta)? {
                    let mut replaced = self.shared.replaced.lock();
                    if replaced.len() >= MOST_REPLACED {
                        replaced.clear();
                    }
                    replaced.insert(path.clone(), now.clone());
                    meta = now;
                }
                let content = self.shared.store.open(&path, &meta);
                Ok(File::Object(OpenObject { stat: self.shared.stat(&path, &meta), content }))
            }
        }
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        match file {
            File::Object(object) => Ok(object.stat),
            File::Local(_) => Err(error(libc::EBADF)),
        }
    }
}

impl Listed for ObjectSource {
    fn location(&self) -> &[u8] {
        self.shared.store.location()
    }

    fn keep_at(&self, path: &Path, writes: bool) {
        if let Ok(snapshot) = Snapshot::open(path)
            && *snapshot.about().location == *self.location()
        {
            self.set_snapshot(Arc::new(snapshot));
        }
        *self.kept.lock() = writes.then(|| path.to_owned());
        let mut answers = path.as_os_str().to_owned();
        answers.push(ANSWERS);
        self.answers.keep_at(Path::new(&answers), writes);
    }

    fn listed(&self) -> Option<SystemTime> {
        self.shared.snapshot.load().as_ref().map(|snapshot| snapshot.about().listed)
    }

    fn renew(&self, cancelled: &AtomicBool) -> io::Result<Renewed> {
        let kept = self.kept.lock();
        let writer = Writer::new(kept.as_deref()).or_else(|error| {
            tracing::warn!(%error, "the listing is not kept");
            Writer::new(None)
        })?;
        let new = Arc::new(self.shared.store.list(writer, cancelled)?);
        let Some(old) = self.snapshot() else {
            self.set_snapshot(new);
            return Ok(Renewed::First);
        };
        let changes = compare(&old, &new, MOST_TOLD);
        self.set_snapshot(new);
        Ok(match changes {
            Ok(Some(changes)) => Renewed::Changes(changes),
            Ok(None) => Renewed::Much,
            Err(error) => {
                tracing::warn!(%error, "the listing before cannot be read");
                Renewed::Much
            }
        })
    }

    fn left_out(&self) -> Vec<LeftOut> {
        self.snapshot().map(|snapshot| snapshot.about().named.clone()).unwrap_or_default()
    }

    fn status(&self) -> Value {
        let snapshot = self.snapshot();
        json!({
            "objects": snapshot.as_ref().map(|snapshot| snapshot.records()),
            "bytes": snapshot.as_ref().map(|snapshot| snapshot.bytes()),
            "left_out": snapshot.as_ref().map(|snapshot| snapshot.about().left_out),
            "requests": self.shared.store.requests(),
        })
    }
}

#[cfg(test)]
mod tests;
