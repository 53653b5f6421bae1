//! Pages with checksums: what redb reads is what it wrote, or an error.
//!
//! A [`Sealed`] lies between redb and the file. It keeps a checksum of every page but the first
//! ([`format`](super::format) draws where) and fails a read that does not agree with it. That is all redb needs to be
//! safe from damage: it handles errors well, but takes what it reads for its own, and a page number with a flipped bit
//! makes it allocate gigabytes or panic while it unwinds.
//!
//! Crashes: pages and checksums are written in any order and one sync makes both last. A page and a checksum that were
//! torn apart were not yet synced, so no commit of two phases needs that page: redb writes pages that no durable commit
//! refers to. Only where it moves its pages together it has commits of one phase, which are found to have lasted by
//! reading what they wrote; then [`leave_checks_to_redb`](Sealed::leave_checks_to_redb).
//!
//! An [`Overlay`] keeps what is written in memory. So an index that was left unclean is read as redb repairs it, by
//! readers that may not write, or on a full disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;

use super::format::{GROUP, PAGE, page_sum};

const PAGE_BYTES: u64 = PAGE as u64;
const GROUP_PAGES: u64 = GROUP as u64;

/// The pages of one index while it is open.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Until [`shut`](Sealed::shut).
    inner: RwLock<Option<Box<dyn StorageBackend>>>,
    /// Where the first group begins.
    start: u64,
    seed: u64,
    groups: Mutex<BTreeMap<u64, Sums>>,
    /// True: what does not agree is taken for what was written, since redb is about to check it itself.
    unchecked: AtomicBool,
    /// The first error of the medium, or the first damage found.
    trouble: Mutex<Option<io::Error>>,
}

/// The checksums of one group.
#[derive(Debug)]
struct Sums {
    of: Box<[u64; GROUP]>,
    dirty: bool,
}

/// An error that says that a page was damaged.
pub(crate) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a page is not what was written")
}

fn gone() -> io::Error {
    io::Error::other("the index is closed")
}

/// Where a group's page of checksums lies, counted in pages from the first group.
fn sums_at(group: u64) -> u64 {
    group * (GROUP_PAGES + 1)
}

/// Where a page lies, counted likewise.
fn page_at(page: u64) -> u64 {
    sums_at(page / GROUP_PAGES) + 1 + page % GROUP_PAGES
}

impl Sealed {
    /// The pages behind a head of `start` bytes.
    pub(crate) fn new(inner: Box<dyn StorageBackend>, start: u64, seed: u64) -> Self {
        Self {
            inner: RwLock::new(Some(inner)),
            start,
            seed,
            groups: Mutex::default(),
            unchecked: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Lets go of the file; every use after this fails. redb may have leaked what it had open.
    pub(crate) fn shut(&self) {
        *self.inner.write() = None;
    }

    /// If a page was found damaged, goes on without an eye on that, and says so.
    ///
    /// Only for a database that redb checks in full when it opens it, against checksums of its own: a commit of one
    /// phase that was cut off is found there, and may have lost our checksums alone. What redb accepts has new ones.
    pub(crate) fn leave_checks_to_redb(&self) -> bool {
        let mut trouble = self.trouble.lock();
        let damaged = trouble.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
        if damaged {
            *trouble = None;
            self.unchecked.store(true, Ordering::Relaxed);
        }
        damaged
    }

    /// What went wrong first, if anything did.
    pub(crate) fn trouble(&self) -> Option<io::Error> {
        self.trouble.lock().take()
    }

    fn with<T>(&self, run: impl FnOnce(&dyn StorageBackend) -> io::Result<T>) -> io::Result<T> {
        let result = self.inner.read().as_deref().ok_or_else(gone).and_then(run);
        if let Err(error) = &result {
            let mut trouble = self.trouble.lock();
            if trouble.is_none() {
                *trouble = Some(match error.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(error.kind(), error.to_string()),
                });
            }
        }
        result
    }

    fn pages(&self, inner: &dyn StorageBackend) -> io::Result<u64> {
        let pages = inner.len()?.saturating_sub(self.start) / PAGE_BYTES;
        Ok(pages - pages.div_ceil(GROUP_PAGES + 1))
    }

    fn at(&self, place: u64) -> u64 {
        self.start + place * PAGE_BYTES
    }

    /// Runs on the checksums of a group, which are read if they are not there yet.
    fn sums<T>(
        &self,
        inner: &dyn StorageBackend,
        group: u64,
        run: impl FnOnce(&mut Sums) -> io::Result<T>,
    ) -> io::Result<T> {
        use std::collections::btree_map::Entry;
        match self.groups.lock().entry(group) {
            Entry::Occupied(mut sums) => run(sums.get_mut()),
            Entry::Vacant(place) => {
                let mut bytes = [0; PAGE];
                inner.read(self.at(sums_at(group)), &mut bytes)?;
                let mut of = Box::new([0; GROUP]);
                let (numbers, _) = bytes.as_chunks::<8>();
                of.iter_mut().zip(numbers).for_each(|(sum, number)| *sum = u64::from_le_bytes(*number));
                run(place.insert(Sums { of, dirty: false }))
            }
        }
    }

    /// Splits whole pages by group: the first page and how many bytes of the rest are in the same group.
    fn in_group(page: u64, bytes: usize) -> usize {
        let left = usize::try_from(GROUP_PAGES - page % GROUP_PAGES).map_or(usize::MAX, |pages| pages * PAGE);
        bytes.min(left)
    }

    fn flush(&self, inner: &dyn StorageBackend) -> io::Result<()> {
        for (group, sums) in self.groups.lock().iter_mut().filter(|(_, sums)| sums.dirty) {
            let bytes: Vec<u8> = sums.of.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            inner.write(self.at(sums_at(*group)), &bytes)?;
            sums.dirty = false;
        }
        Ok(())
    }

    /// The first page has no checksum, since redb writes parts of it in place.
    fn in_first(offset: u64, length: usize) -> bool {
        offset < PAGE_BYTES && length as u64 <= PAGE_BYTES - offset
    }

    fn aligned(offset: u64, length: usize) -> io::Result<u64> {
        if offset.is_multiple_of(PAGE_BYTES) && length.is_multiple_of(PAGE) && offset > 0 {
            Ok(offset / PAGE_BYTES)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole pages"))
        }
    }
}

impl StorageBackend for Sealed {
    fn len(&self) -> io::Result<u64> {
        self.with(|inner| Ok(self.pages(inner)? * PAGE_BYTES))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|inner| {
            let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
            if end > self.pages(inner)? * PAGE_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if Self::in_first(offset, out.len()) {
                return inner.read(self.at(page_at(0)) + offset, out);
            }
            let mut page = Self::aligned(offset, out.len())?;
            let mut rest = out;
            while !rest.is_empty() {
                let (part, after) = rest.split_at_mut(Self::in_group(page, rest.len()));
                inner.read(self.at(page_at(page)), part)?;
                let whole = self.sums(inner, page / GROUP_PAGES, |sums| {
                    let in_file = &mut sums.of[(page % GROUP_PAGES) as usize..];
                    let (pages, _) = part.as_chunks::<PAGE>();
                    for ((sum, bytes), number) in in_file.iter_mut().zip(pages).zip(page..) {
                        let read = page_sum(bytes, number, self.seed);
                        if *sum != read {
                            if !self.unchecked.load(Ordering::Relaxed) {
                                return Ok(false);
                            }
                            *sum = read;
                            sums.dirty = true;
                        }
                    }
                    Ok(true)
                })?;
                if !whole {
                    return Err(damaged());
                }
                page += (part.len() / PAGE) as u64;
                rest = after;
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|inner| {
            if !length.is_multiple_of(PAGE_BYTES) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole pages"));
            }
            let pages = length / PAGE_BYTES;
            if pages < self.pages(inner)? {
                // Pages that come back later were not written.
                let last = pages / GROUP_PAGES;
                if !pages.is_multiple_of(GROUP_PAGES) {
                    self.sums(inner, last, |sums| {
                        sums.of[(pages % GROUP_PAGES) as usize..].fill(0);
                        sums.dirty = true;
                        Ok(())
                    })?;
                }
                self.groups.lock().retain(|group, _| *group < pages.div_ceil(GROUP_PAGES));
            }
            inner.set_len(self.at(pages + pages.div_ceil(GROUP_PAGES)))
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|inner| {
            self.flush(inner)?;
            inner.sync_data()
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|inner| {
            if Self::in_first(offset, data.len()) {
                return inner.write(self.at(page_at(0)) + offset, data);
            }
            let mut page = Self::aligned(offset, data.len())?;
            let mut rest = data;
            while !rest.is_empty() {
                let (part, after) = rest.split_at(Self::in_group(page, rest.len()));
                inner.write(self.at(page_at(page)), part)?;
                self.sums(inner, page / GROUP_PAGES, |sums| {
                    let (pages, _) = part.as_chunks::<PAGE>();
                    let in_file = &mut sums.of[(page % GROUP_PAGES) as usize..];
                    for ((sum, bytes), number) in in_file.iter_mut().zip(pages).zip(page..) {
                        *sum = page_sum(bytes, number, self.seed);
                    }
                    sums.dirty = true;
                    Ok(())
                })?;
                page += (part.len() / PAGE) as u64;
                rest = after;
            }
            Ok(())
        })
    }

    fn close(&self) -> io::Result<()> {
        self.with(|inner| self.flush(inner))
    }
}

/// A backend that several hold.
#[derive(Debug)]
pub(crate) struct Shared<B>(pub(crate) std::sync::Arc<B>);

impl<B: StorageBackend> StorageBackend for Shared<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// Another backend that is only read, and what was written instead.
#[derive(Debug)]
pub(crate) struct Overlay<B> {
    base: B,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl<B: StorageBackend> Overlay<B> {
    pub(crate) fn new(base: B) -> io::Result<Self> {
        let length = base.len()?;
        Ok(Self { base, written: Mutex::new(Written { length, pages: BTreeMap::new() }) })
    }

    /// Runs on each page that a range touches: its number, where in it, and which part of the range that is.
    fn each_page(
        offset: u64,
        length: usize,
        mut run: impl FnMut(u64, usize, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let inside = (at % PAGE_BYTES) as usize;
            let part = (PAGE - inside).min(length - done);
            run(at / PAGE_BYTES, inside, done..done + part)?;
            done += part;
        }
        Ok(())
    }
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::each_page(offset, out.len(), |page, inside, part| {
            match written.pages.get(&page) {
                Some(bytes) => out[part.clone()].copy_from_slice(&bytes[inside..inside + part.len()]),
                None => self.base.read(page * PAGE_BYTES + inside as u64, &mut out[part])?,
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written.lock();
        written.pages.retain(|page, _| page * PAGE_BYTES < length);
        // What is beyond the end of the base, or was cut off, comes back as zeros.
        for page in length.min(written.length) / PAGE_BYTES..length.div_ceil(PAGE_BYTES) {
            if page * PAGE_BYTES >= written.length {
                written.pages.insert(page, vec![0; PAGE].into());
            }
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        use std::collections::btree_map::Entry;
        let mut written = self.written.lock();
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::each_page(offset, data.len(), |page, inside, part| {
            let bytes = match written.pages.entry(page) {
                Entry::Occupied(bytes) => bytes.into_mut(),
                Entry::Vacant(place) => {
                    let mut bytes = vec![0; PAGE];
                    if part.len() < PAGE {
                        self.base.read(page * PAGE_BYTES, &mut bytes)?;
                    }
                    place.insert(bytes.into())
                }
            };
            bytes[inside..inside + part.len()].copy_from_slice(&data[part]);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Clone, Debug)]
    enum Do {
        Length(u64),
        Write(u64, usize, u8),
        First(usize, Vec<u8>),
        Again,
    }

    fn steps() -> impl Strategy<Value = Vec<Do>> {
        let step = prop_oneof![
            (0..1200u64).prop_map(Do::Length),
            (1..1200u64, 1..40usize, any::<u8>()).prop_map(|(page, pages, byte)| Do::Write(page, pages, byte)),
            (0..3000usize, vec(any::<u8>(), 1..400)).prop_map(|(at, bytes)| Do::First(at, bytes)),
            Just(Do::Again),
        ];
        vec(step, 1..40)
    }

    /// What a medium of whole pages holds: `None` for one that was not written.
    fn check(backend: &dyn StorageBackend, first: &[u8], pages: &[Option<u8>]) -> Result<(), TestCaseError> {
        prop_assert_eq!(backend.len().ok(), Some((pages.len() * PAGE) as u64));
        if pages.is_empty() {
            return Ok(());
        }
        let mut bytes = vec![1; PAGE];
        prop_assert!(backend.read(0, &mut bytes).is_ok());
        prop_assert_eq!(&bytes, first);
        for (number, page) in pages.iter().enumerate().skip(1) {
            let read = backend.read((number * PAGE) as u64, &mut bytes);
            prop_assert_eq!(read.is_ok(), page.is_some());
            if let Some(byte) = page {
                prop_assert!(bytes.iter().all(|b| b == byte));
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Pages come back as written, also by another handle; those that were not written are errors.
        #[test]
        fn pages_come_back(steps in steps()) {
            let medium = Arc::new(InMemoryBackend::new());
            let open = || Arc::new(Sealed::new(Box::new(Shared(medium.clone())), 8192, 7));
            medium.set_len(8192).expect("memory");
            let mut sealed = open();
            let mut first = vec![0; PAGE];
            let mut pages: Vec<Option<u8>> = Vec::new();
            for step in steps {
                match step {
                    Do::Length(length) => {
                        sealed.set_len(length * PAGE_BYTES).expect("memory");
                        if length == 0 {
                            first.fill(0);
                        }
                        pages.resize(length as usize, None);
                    }
                    Do::Write(page, count, byte) => {
                        let count = count.min(pages.len().saturating_sub(page as usize));
                        if count > 0 {
                            sealed.write(page * PAGE_BYTES, &vec![byte; count * PAGE]).expect("memory");
                            pages[page as usize..][..count].fill(Some(byte));
                        }
                    }
                    Do::First(at, bytes) if !pages.is_empty() => {
                        sealed.write(at as u64, &bytes).expect("memory");
                        first[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    Do::First(..) => {}
                    Do::Again => {
                        sealed.close().expect("memory");
                        sealed = open();
                    }
                }
            }
            check(&*sealed, &first, &pages)?;
            sealed.sync_data().expect("memory");
            check(&*open(), &first, &pages)?;
        }

        /// An overlay reads as a copy would, and leaves what is below alone.
        #[test]
        fn an_overlay_is_a_copy(
            base in vec(any::<u8>(), 4 * PAGE..=4 * PAGE),
            steps in vec((0..6 * PAGE, vec(any::<u8>(), 1..6000), any::<Option<u8>>()), 1..20),
        ) {
            let medium = Arc::new(InMemoryBackend::new());
            medium.set_len(base.len() as u64).expect("memory");
            medium.write(0, &base).expect("memory");
            let overlay = Overlay::new(Shared(medium.clone())).expect("memory");
            let mut copy = base.clone();
            for (at, bytes, length) in steps {
                if let Some(pages) = length {
                    copy.resize(usize::from(pages % 8) * PAGE, 0);
                    overlay.set_len(copy.len() as u64).expect("memory");
                }
                let fits = at + bytes.len() <= copy.len();
                prop_assert_eq!(overlay.write(at as u64, &bytes).is_ok(), fits);
                if fits {
                    copy[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            let mut read = vec![0; copy.len()];
            overlay.read(0, &mut read).expect("memory");
            prop_assert!(read == copy);
            prop_assert!(overlay.read(1, &mut read).is_err());
            read.resize(base.len(), 0);
            medium.read(0, &mut read).expect("memory");
            prop_assert!(read == base);
        }
    }

    #[test]
    fn a_page_that_changed_or_moved_is_an_error() {
        let medium = Arc::new(InMemoryBackend::new());
        let open = |seed| Sealed::new(Box::new(Shared(medium.clone())), PAGE_BYTES, seed);
        let sealed = open(1);
        sealed.set_len(4 * PAGE_BYTES).expect("memory");
        sealed.write(PAGE_BYTES, &[b"a".repeat(PAGE), b"b".repeat(PAGE)].concat()).expect("memory");
        sealed.close().expect("memory");
        let mut page = vec![0; PAGE];
        let mut kind = |sealed: &Sealed, number: u64| {
            sealed.read(number * PAGE_BYTES, &mut page).map_err(|error| error.kind()).map(|()| page[0])
        };
        assert_eq!((kind(&open(1), 1), kind(&open(1), 2)), (Ok(b'a'), Ok(b'b')));
        assert_eq!(kind(&open(2), 1), Err(io::ErrorKind::InvalidData), "another epoch");
        assert_eq!(kind(&open(1), 4), Err(io::ErrorKind::UnexpectedEof));
        medium.write(3 * PAGE_BYTES + 100, b"x").expect("memory");
        let sealed = open(1);
        assert_eq!(kind(&sealed, 1), Err(io::ErrorKind::InvalidData));
        assert_eq!(sealed.trouble().map(|error| error.kind()), Some(io::ErrorKind::InvalidData));
        sealed.shut();
        assert!(sealed.len().is_err());
    }
}
