//! What is read from and written to a redb database, each time opened for that moment alone.
//!
//! Every call into redb runs inside [`guarded`]: whatever panics there is damage, reported as such and printed nowhere.
//! A session that writes has one durable commit, that of the close, which has two phases and saves redb's map of free
//! pages with it: what the session's transaction wrote lasts together or not at all, and after a crash nothing has to be
//! searched for. Only where a file has become much too large it is compacted besides, in commits that change nothing of
//! what it holds.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Once};

use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};

use super::format::{self, Head, HeadError, PAGE, Totals, Wrong};
use super::lock::{Access, Place};
use super::sealed::{Overlay, Sealed, Shared};
use super::{Batch, DirRecord, Identity, IndexError};

mod write;

/// [`Totals`], under the number of the piece.
const META: TableDefinition<'_, [u8; 4], &[u8]> = TableDefinition::new("meta");
/// Blocks of directories: source, block, piece.
const DIRS: TableDefinition<'_, [u8; 12], &[u8]> = TableDefinition::new("dirs");
/// Matches: fingerprint, piece.
const MATCHES: TableDefinition<'_, [u8; 20], &[u8]> = TableDefinition::new("matches");

/// A file below this size is not compacted.
const COMPACT_ABOVE: u64 = 1 << 20;
/// A file this many times larger than what is in it is compacted: rewriting everything needs twice the room, and the
/// next time uses it again.
const COMPACT_TIMES: u64 = 3;
/// Pages that redb keeps in memory while it reads: each is needed once.
const READ_CACHE: usize = 4 << 20;
/// And while it writes.
const WRITE_CACHE: usize = 64 << 20;

/// Why a session failed, before the path is known.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What is there cannot be trusted.
    Damaged(String),
    /// The medium failed.
    Io(io::Error),
    /// Said by what ran in the session.
    Index(IndexError),
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Self::Damaged(wrong.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Ours, for a page that is not what was written; and a file that is shorter than it says.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            // A sector that cannot be read is damage too: a new file lies elsewhere.
            _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Self::Damaged(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

/// Any error of redb's: the medium's own, or damage.
fn failure(error: impl Into<redb::Error>) -> Failure {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        error => Failure::Damaged(error.to_string()),
    }
}

type Session<T> = Result<T, Failure>;

thread_local! {
    /// True while a panic of this thread is caught, and so not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs what calls redb. A panic is damage.
fn guarded<T>(run: impl FnOnce() -> Session<T>) -> Session<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    // A callback's own panic, told by the hook already, goes on its way.
    if !QUIET.replace(false)
        && let Err(panic) = result
    {
        resume_unwind(panic);
    }
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Failure::Damaged(format!("redb: {}", text.unwrap_or("panic"))))
    })
}

/// Runs a callback of the caller's inside of [`guarded`]: its panics are its own.
fn unguarded<T>(run: impl FnOnce() -> T) -> T {
    QUIET.set(false);
    let result = run();
    QUIET.set(true);
    result
}

/// An index's bytes, opened, and what their head says.
struct Opened {
    head: Head,
    pages: Arc<Sealed>,
}

/// Reads the head; `None` if the file is empty.
fn read_head(backend: &dyn StorageBackend) -> Session<Option<(Head, u64)>> {
    let length = backend.len()?;
    if length == 0 {
        return Ok(None);
    }
    let wrong = |error: HeadError| Failure::Damaged(error.to_string());
    let mut bytes = vec![0; PAGE];
    if length < PAGE as u64 {
        return Err(Failure::Damaged("it is no index, or cut off".to_owned()));
    }
    backend.read(0, &mut bytes)?;
    let whole = Head::length(&bytes).map_err(wrong)?;
    if length < whole as u64 {
        return Err(Failure::Damaged("its head is cut off".to_owned()));
    }
    bytes.resize(whole, 0);
    backend.read(0, &mut bytes)?;
    Ok(Some((Head::decode(&bytes).map_err(wrong)?, whole as u64)))
}

/// Writes the head of a new file.
fn write_head(backend: &dyn StorageBackend, identity: &Identity) -> Session<(Head, u64)> {
    let mut epoch = [0; 16];
    let mut filled = 0;
    while filled < epoch.len() {
        filled += rustix::rand::getrandom(&mut epoch[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Failure::Io(errno.into()))?;
    }
    let head = Head { epoch, identity: identity.clone() };
    let Some(bytes) = head.encode() else {
        return Err(Failure::Io(io::Error::new(io::ErrorKind::InvalidInput, "too many sources or options")));
    };
    backend.set_len(bytes.len() as u64)?;
    backend.write(0, &bytes)?;
    Ok((head, bytes.len() as u64))
}

/// Ends a session: the file is let go, and what the medium said counts for more than what redb made of it.
fn ended<T>(pages: &Sealed, result: Session<T>) -> Session<T> {
    pages.shut();
    result.map_err(|failure| match (failure, pages.trouble()) {
        (failure @ Failure::Index(_), _) => failure,
        (_, Some(error)) => error.into(),
        (failure, None) => failure,
    })
}

/// True if redb has begun a database and not finished it: it writes its magic number last.
fn unfinished(pages: &Sealed) -> io::Result<bool> {
    if pages.len()? == 0 {
        return Ok(true);
    }
    let mut magic = [0; 8];
    pages.read(0, &mut magic)?;
    Ok(magic == [0; 8])
}

/// What is read in a session; without a transaction in a new index, where nothing is stored.
pub(crate) struct Reading<'a> {
    /// The file's head.
    pub(crate) head: &'a Head,
    transaction: Option<&'a ReadTransaction>,
}

/// Opens an index to read from it. `None` if there is none.
pub(crate) fn read<T>(place: &dyn Place, run: impl FnOnce(&Reading<'_>) -> Session<T>) -> Session<Option<T>> {
    let Some(opened) = open_read(place)? else { return Ok(None) };
    let result = guarded(|| {
        let head = &opened.head;
        if unfinished(&opened.pages)? {
            return run(&Reading { head, transaction: None });
        }
        match builder(READ_CACHE).open_read_only_with_backend(Shared(opened.pages.clone())) {
            Ok(database) => {
                let transaction = database.begin_read().map_err(failure)?;
                run(&Reading { head, transaction: Some(&transaction) })
            }
            // It was left unclean. Or it is damaged, which comes out in the same way.
            Err(_) => {
                let database = repaired(&opened.pages)?;
                let transaction = database.begin_read().map_err(failure)?;
                run(&Reading { head, transaction: Some(&transaction) })
            }
        }
    });
    ended(&opened.pages, result).map(Some)
}

/// Opens an index and has redb check all its own structures, of which nothing is written.
pub(crate) fn check<T>(place: &dyn Place, run: impl FnOnce(&Reading<'_>) -> Session<T>) -> Session<Option<T>> {
    let Some(opened) = open_read(place)? else { return Ok(None) };
    let result = guarded(|| {
        let head = &opened.head;
        if unfinished(&opened.pages)? {
            return run(&Reading { head, transaction: None });
        }
        let mut database = repaired(&opened.pages)?;
        if !database.check_integrity().map_err(failure)? {
            return Err(Failure::Damaged("redb finds its pages in disorder".to_owned()));
        }
        let transaction = database.begin_read().map_err(failure)?;
        run(&Reading { head, transaction: Some(&transaction) })
    });
    ended(&opened.pages, result).map(Some)
}

fn open_read(place: &dyn Place) -> Session<Option<Opened>> {
    let Some(backend) = place.open(Access::Read).map_err(Failure::Index)? else { return Ok(None) };
    let Some((head, start)) = read_head(&*backend)? else { return Ok(None) };
    let pages = Arc::new(Sealed::new(backend, start, head.seed()));
    Ok(Some(Opened { head, pages }))
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

/// The database as redb repairs it after a crash, in memory.
fn repaired(pages: &Arc<Sealed>) -> Session<Database> {
    open_database(pages, READ_CACHE, || Ok(Overlay::new(Shared(pages.clone()))?))
}

/// Opens a database to write, or to repair. If pages are not what was written, redb has to find out whether they matter.
fn open_database<B: StorageBackend>(
    pages: &Sealed,
    cache_bytes: usize,
    backend: impl Fn() -> Session<B>,
) -> Session<Database> {
    match builder(cache_bytes).create_with_backend(backend()?) {
        Err(error) if pages.leave_checks_to_redb() => {
            let mut builder = builder(cache_bytes);
            builder.set_check_integrity_on_open(true);
            // What was found first says it better.
            builder.create_with_backend(backend()?).map_err(|_| failure(error))
        }
        opened => opened.map_err(failure),
    }
}

impl Reading<'_> {
    /// The totals; those of nothing in a new index.
    pub(crate) fn totals(&self) -> Session<Totals> {
        let Some(transaction) = self.transaction else { return Ok(Totals::default()) };
        read_totals(&transaction.open_table(META).map_err(failure)?)
    }

    /// The matches stored for a pattern.
    pub(crate) fn matches(&self, fingerprint: &[u8; 16]) -> Session<Option<Vec<u8>>> {
        let Some(transaction) = self.transaction else { return Ok(None) };
        let table = transaction.open_table(MATCHES).map_err(failure)?;
        let Some(sealed) = joined(&table, |piece| matches_piece(fingerprint, piece))? else { return Ok(None) };
        let content = format::unseal(fingerprint, &sealed)?;
        // When they were written comes first, which matters to those that are to go.
        match content.get(8..) {
            Some(bytes) => Ok(Some(bytes.to_vec())),
            None => Err(Failure::Damaged("matches are cut off".to_owned())),
        }
    }

    /// The patterns with matches stored.
    pub(crate) fn patterns(&self) -> Session<Vec<[u8; 16]>> {
        let Some(transaction) = self.transaction else { return Ok(Vec::new()) };
        patterns(&transaction.open_table(MATCHES).map_err(failure)?)
    }

    /// Hands out every directory, and checks that they add up; those handed out count for nothing if they do not.
    pub(crate) fn dirs(&self, each: &mut dyn FnMut(u32, u32, DirRecord)) -> Session<Totals> {
        let totals = self.totals()?;
        let Some(transaction) = self.transaction else { return Ok(totals) };
        let table = transaction.open_table(DIRS).map_err(failure)?;
        let mut found = Totals::default();
        let mut sealed: Vec<u8> = Vec::new();
        let mut current: Option<(u32, u32)> = None;
        let mut pieces = 0;
        for piece in table.iter().map_err(failure)? {
            let (key, value) = piece.map_err(failure)?;
            let (source, block, piece) = parts_of(key.value());
            if current != Some((source, block)) {
                if let Some(block) = current.replace((source, block)) {
                    block_out(block, &sealed, &mut found, each)?;
                }
                sealed.clear();
                pieces = 0;
            }
            if piece != pieces {
                return Err(Failure::Damaged("a piece of a block is missing".to_owned()));
            }
            pieces += 1;
            sealed.extend_from_slice(value.value());
        }
        if let Some(block) = current {
            block_out(block, &sealed, &mut found, each)?;
        }
        if (found.dirs, found.blocks, found.sum) != (totals.dirs, totals.blocks, totals.sum) {
            return Err(Failure::Damaged("directories are missing or out of date".to_owned()));
        }
        Ok(totals)
    }
}

/// Opens one sealed block and hands out what is in it.
fn block_out(
    (source, block): (u32, u32),
    sealed: &[u8],
    found: &mut Totals,
    each: &mut dyn FnMut(u32, u32, DirRecord),
) -> Session<()> {
    let content = format::unseal(&format::block_key(source, block), sealed)?;
    let mut dirs = 0;
    format::decode_block(block, &content, &mut |id, record| {
        dirs += 1;
        unguarded(|| each(source, id, record));
    })?;
    found.dirs += dirs;
    found.blocks += 1;
    found.sum = found.sum.wrapping_add(format::sum_of(sealed).unwrap_or_default());
    Ok(())
}

fn block_piece(source: u32, block: u32, piece: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&format::block_key(source, block));
    key[8..].copy_from_slice(&piece.to_be_bytes());
    key
}

fn parts_of(key: [u8; 12]) -> (u32, u32, u32) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = key;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([i, j, k, l]))
}

fn matches_piece(fingerprint: &[u8; 16], piece: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(fingerprint);
    key[16..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// The sealed value whose pieces have these keys; `None` if there is none.
fn joined<const N: usize>(
    table: &impl ReadableTable<[u8; N], &'static [u8]>,
    key: impl Fn(u32) -> [u8; N],
) -> Session<Option<Vec<u8>>> {
    let mut joined: Option<Vec<u8>> = None;
    for (number, piece) in (0..).zip(table.range(key(0)..=key(u32::MAX)).map_err(failure)?) {
        let (found, value) = piece.map_err(failure)?;
        if found.value() != key(number) {
            return Err(Failure::Damaged("a piece of a value is missing".to_owned()));
        }
        joined.get_or_insert_default().extend_from_slice(value.value());
    }
    Ok(joined)
}

fn read_totals(table: &impl ReadableTable<[u8; 4], &'static [u8]>) -> Session<Totals> {
    match joined(table, u32::to_be_bytes)? {
        Some(sealed) => Ok(Totals::decode(&format::unseal(b"meta", &sealed)?)?),
        None => Err(Failure::Damaged("its totals are missing".to_owned())),
    }
}

fn patterns(table: &impl ReadableTable<[u8; 20], &'static [u8]>) -> Session<Vec<[u8; 16]>> {
    let mut found = Vec::new();
    for piece in table.iter().map_err(failure)? {
        let (key, _) = piece.map_err(failure)?;
        if let Some((fingerprint, [0, 0, 0, 0])) = key.value().split_first_chunk::<16>() {
            found.push(*fingerprint);
        }
    }
    Ok(found)
}

/// Which file a commit may go into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// Of what it must be an index.
    pub(crate) identity: &'a Identity,
    /// Which file it must be; any, and a new one, if `None`.
    pub(crate) epoch: Option<[u8; 16]>,
}

/// Makes sure that there is an index, new and empty if need be; its epoch.
pub(crate) fn create(place: &dyn Place, identity: &Identity) -> Session<[u8; 16]> {
    match place.open(Access::Write).map_err(Failure::Index)? {
        None => Err(Failure::Io(io::ErrorKind::NotFound.into())),
        Some(backend) => {
            let head = match read_head(&*backend)? {
                Some((head, _)) => head,
                None => {
                    let (head, _) = write_head(&*backend, identity)?;
                    backend.sync_data()?;
                    head
                }
            };
            same_identity(place, &head, identity)?;
            Ok(head.epoch)
        }
    }
}

/// Fails if an index is of something else.
pub(crate) fn same_identity(place: &dyn Place, head: &Head, identity: &Identity) -> Session<()> {
    let same = head.identity == *identity;
    let other = || Failure::Index(IndexError::Taken { path: place.path().to_owned(), holder: None });
    same.then_some(()).ok_or_else(other)
}

/// Writes a batch as one transaction; listings only if they may be. The epoch of the file that it went into.
pub(crate) fn commit(place: &dyn Place, into: Target<'_>, batch: &Batch, listings: bool) -> Session<[u8; 16]> {
    let replaced = || Failure::Index(IndexError::Replaced { path: place.path().to_owned() });
    let Some(backend) = place.open(Access::Write).map_err(Failure::Index)? else { return Err(replaced()) };
    let (head, start) = match read_head(&*backend)? {
        Some(found) => found,
        None if into.epoch.is_some() => return Err(replaced()),
        None => write_head(&*backend, into.identity)?,
    };
    same_identity(place, &head, into.identity)?;
    if into.epoch.is_some_and(|epoch| epoch != head.epoch) {
        return Err(replaced());
    }
    let pages = Arc::new(Sealed::new(backend, start, head.seed()));
    let result = guarded(|| {
        if unfinished(&pages)? {
            pages.set_len(0)?;
        }
        let mut database = open_database(&pages, WRITE_CACHE, || Ok(Shared(pages.clone())))?;
        let mut transaction = database.begin_write().map_err(failure)?;
        // The close makes it last; see above.
        transaction.set_durability(Durability::None).map_err(failure)?;
        let totals = write::write(&transaction, batch, listings)?;
        transaction.commit().map_err(failure)?;
        let length = pages.len()?;
        if length > COMPACT_ABOVE && length / COMPACT_TIMES > totals.dir_bytes + totals.match_bytes {
            database.compact().map_err(failure)?;
        }
        database.close().map_err(failure)
    });
    ended(&pages, result).map(|()| head.epoch)
}
