//! Indexes on a medium that fails, forgets and lies.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::format::PAGE;
use super::lock::Access;
use super::*;

/// A xorshift generator: tests that fail are to fail again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(at, data) => {
                let end = *at as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at as usize..end].copy_from_slice(data);
            }
        }
    }
}

/// A file in memory, of which a crash leaves what was synced and any part of the rest.
#[derive(Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Since the last sync.
    changes: Vec<Change>,
    /// How many more writes, syncs and changes of length succeed.
    left: Option<usize>,
    /// How many there were.
    done: usize,
    syncs: usize,
    /// A disk with no more room than this.
    room: Option<u64>,
    set_aside: usize,
}

impl Medium {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => return Err(io::Error::other("the medium has died")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.done += 1;
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.bytes);
        self.changes.push(change);
    }

    /// What a loss of power leaves: sectors of what was not synced, as chance will have it.
    fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let chance = random.below(5);
        for change in &self.changes {
            match change {
                Change::Write(at, data) => {
                    for (sector, part) in data.chunks(512).enumerate() {
                        if random.below(4) < chance {
                            Change::Write(at + sector as u64 * 512, part.to_vec()).apply(&mut bytes);
                        }
                    }
                }
                Change::Length(_) if random.below(4) < chance => change.apply(&mut bytes),
                Change::Length(_) => {}
            }
        }
        bytes
    }
}

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Medium>>);

impl Memory {
    fn of(bytes: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Medium { bytes: bytes.to_vec(), synced: bytes.to_vec(), ..Medium::default() })))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    fn open(&self) -> (Index, Opened) {
        Index::on_place(Box::new(self.clone()), &identity(), true).expect("an index")
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let medium = self.0.lock();
        if medium.left == Some(0) {
            return Err(io::Error::other("the medium has died"));
        }
        let part = medium.bytes.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut medium = self.0.lock();
        medium.step()?;
        medium.change(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut medium = self.0.lock();
        medium.step()?;
        medium.syncs += 1;
        medium.synced = medium.bytes.clone();
        medium.changes.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut medium = self.0.lock();
        if medium.room.is_some_and(|room| offset + data.len() as u64 > room) {
            return Err(io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error()));
        }
        medium.step()?;
        medium.change(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}

impl Place for Memory {
    fn open(&self, access: Access) -> Result<Option<Box<dyn StorageBackend>>, IndexError> {
        let empty = self.0.lock().bytes.is_empty();
        Ok(if access == Access::Read && empty { None } else { Some(Box::new(self.clone())) })
    }

    fn set_aside(&self) -> Result<Option<PathBuf>, IndexError> {
        let mut medium = self.0.lock();
        medium.bytes.clear();
        medium.set_aside += 1;
        Ok(Some("memory.damaged".into()))
    }

    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

fn identity() -> Identity {
    let part = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    Identity { sources: vec![(part("lab"), part("/srv/lab"))], options: "follow".to_owned() }
}

fn record(parent: u32, name: &str, listing: &[u8]) -> DirRecord {
    let time = (1_700_000_000 + listing.len() as i64, 7);
    DirRecord {
        parent,
        name: name.as_bytes().into(),
        stamp: Stamp { ino: 1000 + listing.len() as u64, mtime: time, ctime: time },
        trusted: true,
        listing: listing.into(),
    }
}

fn root() -> DirRecord {
    record(0, "", b"root")
}

/// Everything in an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    dirs: BTreeMap<(u32, u32), DirRecord>,
    matches: BTreeMap<[u8; 16], Vec<u8>>,
    reconciled: Option<SystemTime>,
}

const FINGERPRINTS: [[u8; 16]; 4] = [[1; 16], [2; 16], [3; 16], [4; 16]];

impl State {
    fn of(index: &mut Index) -> Result<Self, IndexError> {
        let mut state = Self::default();
        let found = index.matches(&FINGERPRINTS)?;
        state.matches = FINGERPRINTS.into_iter().zip(found).filter_map(|(key, found)| Some((key, found?))).collect();
        let meta = index.load(&mut |source, id, record| {
            assert!(state.dirs.insert((source, id), record).is_none());
        })?;
        state.reconciled = meta.reconciled;
        assert_eq!((meta.dirs, meta.patterns), (state.dirs.len() as u64, state.matches.len() as u64));
        Ok(state)
    }

    fn apply(&mut self, batch: &Batch) {
        if batch.clear_dirs {
            self.dirs.clear();
            self.reconciled = None;
        }
        for (key, record) in &batch.dirs {
            match record {
                Some(record) => self.dirs.insert(*key, record.clone()),
                None => self.dirs.remove(key),
            };
        }
        self.matches.extend(batch.matches.iter().cloned());
        self.reconciled = batch.reconciled.or(self.reconciled);
    }
}

fn random_batch(random: &mut Random) -> Batch {
    let mut batch = Batch { clear_dirs: random.below(12) == 0, ..Batch::default() };
    let span = [40, 200, 3000][random.below(3) as usize];
    for _ in 0..random.below(120) {
        let (source, id) = (random.below(2) as u32, random.below(span) as u32);
        let length = if random.below(60) == 0 { random.below(20_000) } else { random.below(150) };
        let listing: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let record = if id == 0 { root() } else { record(id / 3, &format!("d{id}"), &listing) };
        batch.dirs.insert((source, id), (random.below(5) > 0).then_some(record));
    }
    if random.below(2) == 0 {
        let fingerprint = FINGERPRINTS[random.below(4) as usize];
        let length = random.below(9000);
        batch.matches.push((fingerprint, (0..length).map(|_| random.next() as u8).collect()));
    }
    if random.below(2) == 0 {
        batch.reconciled = Some(SystemTime::UNIX_EPOCH + Duration::new(random.below(1 << 32), 5));
    }
    batch
}

/// A small index and what is in it.
fn small() -> (Memory, State) {
    let (memory, state, _) = small_with_its_past();
    (memory, state)
}

/// The same, and what was in it one commit before.
fn small_with_its_past() -> (Memory, State, State) {
    let memory = Memory::default();
    let (mut index, opened) = memory.open();
    assert_eq!(opened, Opened::New);
    let mut state = State::default();
    let mut batch = Batch { reconciled: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9)), ..Batch::default() };
    batch.dirs.insert((0, 0), Some(root()));
    for id in 1..150 {
        let listing: Vec<u8> = (0..id % 90).map(|n| (n * id * 37) as u8).collect();
        batch.dirs.insert((0, id), Some(record(id / 4, &format!("dir-{id}"), &listing)));
    }
    batch.matches.push((FINGERPRINTS[0], b"some matches".repeat(30)));
    batch.matches.push((FINGERPRINTS[1], Vec::new()));
    index.commit(&batch).expect("a commit");
    state.apply(&batch);
    let mut batch = Batch::default();
    batch.dirs.insert((0, 20), None);
    batch.dirs.insert((0, 70), Some(record(3, "changed", b"other")));
    let past = state.clone();
    index.commit(&batch).expect("a commit");
    state.apply(&batch);
    (memory, state, past)
}

/// A batch that touches every table of the small index.
fn change() -> Batch {
    let mut batch = Batch { reconciled: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(77)), ..Batch::default() };
    for id in [5, 33, 34, 149, 400, 401] {
        batch.dirs.insert((0, id), Some(record(1, &format!("new-{id}"), &vec![id as u8; 700])));
    }
    batch.dirs.insert((0, 6), None);
    batch.matches.push((FINGERPRINTS[0], b"other matches".repeat(700)));
    batch.matches.push((FINGERPRINTS[2], b"new".to_vec()));
    batch
}

#[test]
fn what_is_committed_is_read() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..12 {
        let memory = Memory::default();
        let mut state = State::default();
        let (mut index, _) = memory.open();
        for _ in 0..12 {
            let batch = random_batch(&mut random);
            index.commit(&batch).expect("a commit");
            state.apply(&batch);
            if random.below(3) == 0 {
                let (again, opened) = memory.open();
                assert_eq!(opened, Opened::Existing);
                index = again;
            }
            assert_eq!(State::of(&mut index).expect("what was committed"), state);
        }
        assert_eq!(memory.0.lock().set_aside, 0);
    }
}

/// Whatever the medium dies at, what is found is the state before or the one after.
#[test]
fn a_crash_at_any_step() {
    let (memory, before) = small();
    let image = memory.bytes();
    let mut after = before.clone();
    after.apply(&change());
    let steps = {
        let memory = Memory::of(&image);
        memory.open().0.commit(&change()).expect("a commit");
        memory.0.lock().done
    };
    assert!(steps > 10, "{steps}");
    let mut random = Random(77);
    let mut seen = [0; 2];
    for step in 0..steps {
        let memory = Memory::of(&image);
        let (mut index, _) = memory.open();
        memory.0.lock().left = Some(step);
        assert!(matches!(index.commit(&change()), Err(IndexError::Io { .. })), "step {step}");
        let mut images = vec![memory.bytes(), memory.0.lock().synced.clone()];
        images.extend((0..60).map(|_| memory.0.lock().after_power_loss(&mut random)));
        for (number, image) in images.iter().enumerate() {
            let memory = Memory::of(image);
            let (mut index, opened) = memory.open();
            assert_eq!(opened, Opened::Existing, "step {step}, image {number}");
            let state = State::of(&mut index).unwrap_or_else(|e| panic!("step {step}, image {number}: {e}"));
            assert!(state == before || state == after, "step {step}, image {number}: neither the old nor the new");
            seen[usize::from(state == after)] += 1;
            // Reading repaired nothing on the medium; the next commit does.
            assert_eq!(memory.0.lock().done, 0);
            index.commit(&change()).unwrap_or_else(|e| panic!("step {step}, image {number}: {e}"));
            assert!(State::of(&mut index).expect("a state") == after, "step {step}, image {number}");
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

/// The first commit of all, where redb lays out its file.
#[test]
fn a_crash_while_it_is_begun() {
    let mut after = State::default();
    after.apply(&change());
    let steps = {
        let memory = Memory::default();
        memory.open().0.commit(&change()).expect("a commit");
        memory.0.lock().done
    };
    let mut random = Random(78);
    for step in 0..steps {
        let memory = Memory::default();
        memory.0.lock().left = Some(step);
        match Index::on_place(Box::new(memory.clone()), &identity(), true) {
            Ok((mut index, _)) => assert!(index.commit(&change()).is_err()),
            Err(error) => assert!(matches!(error, IndexError::Io { .. }), "{error}"),
        }
        let mut images = vec![memory.bytes()];
        images.extend((0..10).map(|_| memory.0.lock().after_power_loss(&mut random)));
        for image in images {
            let memory = Memory::of(&image);
            // The head may have been torn: then it is begun anew.
            let (mut index, _) = memory.open();
            let state = State::of(&mut index).unwrap_or_else(|e| panic!("step {step}: {e}"));
            assert!(state == State::default() || state == after, "step {step}");
            index.commit(&change()).unwrap_or_else(|e| panic!("step {step}: {e}"));
            assert!(State::of(&mut index).expect("a state") == after, "step {step}");
        }
    }
}

/// Crash upon crash, in between some commits that succeed.
#[test]
fn a_life_of_crashes() {
    for seed in 1..=30 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let memory = Memory::default();
        let mut state = State::default();
        for _ in 0..60 {
            let (mut index, opened) = memory.open();
            assert!(!matches!(opened, Opened::SetAside { .. }), "seed {seed}");
            let batch = random_batch(&mut random);
            let mut after = state.clone();
            after.apply(&batch);
            memory.0.lock().left = (random.below(3) > 0).then(|| random.below(40) as usize);
            let done = index.commit(&batch);
            let image = {
                let medium = memory.0.lock();
                if random.below(2) == 0 { medium.bytes.clone() } else { medium.after_power_loss(&mut random) }
            };
            *memory.0.lock() = Medium { bytes: image.clone(), synced: image, ..Medium::default() };
            // Before anything lasted, a torn head may begin it anew.
            let (mut index, opened) = memory.open();
            if matches!(opened, Opened::SetAside { .. }) {
                assert_eq!(state, State::default(), "seed {seed}");
            }
            let found = State::of(&mut index).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(found == after || (done.is_err() && found == state), "seed {seed}: {done:?}");
            state = found;
        }
    }
}

#[test]
fn a_full_disk_keeps_what_was_there() {
    let (memory, mut state) = small();
    let mut batch = change();
    for id in 1000..1500 {
        batch
            .dirs
            .insert((0, id), Some(record(1, &format!("big-{id}"), &Random(id.into()).next().to_le_bytes().repeat(40))));
    }
    let mut random = Random(5);
    let full = memory.bytes().len() as u64;
    for room in [0, full / 2, full - 4096, full, full + 4096, full + 20_000, full + 60_000] {
        let memory = Memory::of(&memory.bytes());
        memory.0.lock().room = Some(room);
        let (mut index, _) = memory.open();
        assert!(matches!(index.commit(&batch), Err(IndexError::Full { .. })), "{room}");
        for image in [memory.bytes(), memory.0.lock().after_power_loss(&mut random)] {
            // It is read, though nothing can be repaired there.
            let memory = Memory::of(&image);
            memory.0.lock().room = Some(room);
            let (mut index, opened) = memory.open();
            assert_eq!(opened, Opened::Existing, "{room}");
            assert!(State::of(&mut index).expect("a state") == state, "{room}");
        }
        memory.0.lock().room = None;
        let mut after = state.clone();
        after.apply(&batch);
        index.commit(&batch).expect("a commit");
        assert!(State::of(&mut index).expect("a state") == after, "{room}");
    }
    state.apply(&batch);
}

/// What was found in a damaged image: nothing wrong in any case, and commits go on.
#[track_caller]
fn survives(image: &[u8], good: &[&State], commits: bool, what: &str) -> bool {
    let memory = Memory::of(image);
    let (mut index, opened) = match Index::on_place(Box::new(memory.clone()), &identity(), true) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let fresh = matches!(opened, Opened::SetAside { .. });
    let state = State::of(&mut index);
    let damaged = match &state {
        Ok(state) if fresh => {
            assert_eq!(*state, State::default(), "{what}: what was set aside is still there");
            true
        }
        Ok(state) => {
            let rolled_back = image.is_empty() && *state == State::default();
            assert!(rolled_back || good.contains(&state), "{what}: it reads something else");
            false
        }
        Err(IndexError::Damaged { aside: Some(_), .. }) => true,
        Err(error) => panic!("{what}: {error}"),
    };
    assert_eq!(memory.0.lock().set_aside, usize::from(damaged), "{what}");
    if commits {
        let mut state = State::of(&mut index).expect("a state");
        let mut batch = change();
        batch.dirs.insert((0, 1000), Some(record(1, "x", b"y")));
        match index.commit(&batch) {
            Ok(()) => {
                state.apply(&batch);
                assert!(State::of(&mut index).expect("a state") == state, "{what}");
            }
            // Damage where reading does not come by.
            Err(IndexError::Damaged { .. }) => {
                assert!(matches!(index.commit(&batch), Err(IndexError::Replaced { .. })), "{what}");
                batch.clear_dirs = true;
                index.commit(&batch).expect("a commit");
                let mut state = State::default();
                state.apply(&batch);
                assert!(State::of(&mut index).expect("a state") == state, "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    damaged
}

/// Every byte, some bits of it.
#[test]
fn flipped_bytes() {
    let (memory, state, past) = small_with_its_past();
    let image = memory.bytes();
    // A page that nobody refers to is as good with other bytes: a few of them are enough.
    let blank = |at: usize| image[at / PAGE * PAGE..][..PAGE].iter().all(|byte| *byte == 0);
    let flipped = |part: usize| {
        let mut bad = image.clone();
        let mut damaged = 0;
        for at in (part..image.len()).step_by(2).filter(|at| !blank(*at) || at % 256 == part) {
            let redb_header = 2 * PAGE..2 * PAGE + 400;
            let closely = at < PAGE / 8 || redb_header.contains(&at);
            for flip in if closely { &[0x01, 0x10, 0x80, 0xff][..] } else { &[0x04, 0x80][at / 2 % 2..][..1] } {
                bad[at] ^= flip;
                // The bit in redb's first page that says which of two commits is the last.
                let good = if at == 2 * PAGE + 9 { &[&state, &past][..] } else { &[&state][..] };
                damaged += usize::from(survives(&bad, good, at % 128 < 2, &format!("byte {at} ^ {flip:#x}")));
                bad[at] ^= flip;
            }
        }
        damaged
    };
    let damaged: usize = std::thread::scope(|scope| {
        let odd = scope.spawn(|| flipped(1));
        flipped(0) + odd.join().expect("the other half")
    });
    assert!(damaged > 5_000, "{damaged}");
}

#[test]
fn files_cut_off_and_other_files() {
    let (memory, state) = small();
    let image = memory.bytes();
    for length in (1..image.len()).filter(|length| length % 512 == 0 || *length < 200) {
        survives(&image[..length], &[&state, &State::default()], true, &format!("length {length}"));
    }
    assert!(!survives(&[], &[], true, "nothing"));
    let mut longer = image.clone();
    for more in [1, 512, 4096, 5000, 1 << 20] {
        longer.resize(image.len() + more, 0);
        survives(&longer, &[&state], true, &format!("{more} more"));
    }
    let mut random = Random(3);
    let mut garbage: Vec<u8> = (0..100_000).map(|_| random.next() as u8).collect();
    assert!(survives(&garbage, &[], true, "garbage"));
    garbage[..image.len().min(5000)].copy_from_slice(&image[..5000]);
    assert!(survives(&garbage, &[], true, "garbage behind a head"));
    assert!(survives(&vec![0; 50_000], &[], true, "zeros"));
    let mut version = image.clone();
    version[16] += 1;
    assert!(survives(&version, &[], true, "another version"));
}

/// Sectors that hold what they held before a commit, or what another page holds: with a right checksum or not.
#[test]
fn lost_and_misplaced_writes() {
    let (memory, before) = small();
    let old = memory.bytes();
    memory.open().0.commit(&change()).expect("a commit");
    let mut after = before.clone();
    after.apply(&change());
    let image = memory.bytes();
    let good = [&after, &before];
    let (head, sums) = (PAGE, 2 * PAGE);
    let pages = (image.len() - sums) / PAGE;
    let old_page = |page: usize| old.get(sums + page * PAGE..).and_then(|rest| rest.get(..PAGE));
    for page in 0..pages {
        let at = sums + page * PAGE..sums + (page + 1) * PAGE;
        let Some(lost) = old_page(page) else { continue };
        // With its checksum: nothing but the sums over everything can tell.
        let mut bad = image.clone();
        bad[at.clone()].copy_from_slice(lost);
        bad[head + page * 8..][..8].copy_from_slice(&old[head + page * 8..][..8]);
        survives(&bad, &good, true, &format!("lost page {page}"));
        let mut bad = image.clone();
        bad[at.clone()].copy_from_slice(lost);
        survives(&bad, &good, true, &format!("lost page {page} without its checksum"));
        for other in [1, pages / 2, pages - 1] {
            let mut bad = image.clone();
            bad.copy_within(sums + other * PAGE..sums + (other + 1) * PAGE, at.start);
            survives(&bad, &good, true, &format!("page {other} in the place of {page}"));
        }
    }
    // Everything but the first page, and the first page alone, from before.
    let mut bad = image.clone();
    bad[sums..sums + PAGE].copy_from_slice(&old[sums..sums + PAGE]);
    survives(&bad, &good, true, "an old first page");
    let mut bad = old.clone();
    bad.resize(image.len(), 0);
    bad[sums..sums + PAGE].copy_from_slice(&image[sums..sums + PAGE]);
    survives(&bad, &good, true, "a new first page");
}

/// Each sync is some milliseconds on a disk.
#[test]
fn a_commit_takes_few_syncs() {
    let (memory, _) = small();
    let (mut index, _) = memory.open();
    index.commit(&change()).expect("a commit");
    let before = memory.0.lock().syncs;
    index.commit(&change()).expect("a commit");
    let syncs = memory.0.lock().syncs - before;
    assert!(syncs <= 5, "{syncs}");
    let before = memory.0.lock().done;
    index.load(&mut |_, _, _| {}).expect("an index");
    assert_eq!(memory.0.lock().done, before, "reading writes nothing");
}

#[test]
fn another_file_in_its_place() {
    let (memory, _) = small();
    let (mut index, _) = memory.open();
    let other = Memory::default();
    drop(other.open());
    memory.0.lock().bytes = other.bytes();
    let mut batch = change();
    assert!(matches!(index.commit(&batch), Err(IndexError::Replaced { .. })));
    // It stays so, even when the old one is back: nobody knows what happened to it.
    assert!(matches!(index.commit(&batch), Err(IndexError::Replaced { .. })));
    batch.clear_dirs = true;
    index.commit(&batch).expect("a commit");
    let mut state = State::default();
    state.apply(&batch);
    assert_eq!(State::of(&mut index).expect("a state"), state);
    // And when it is gone.
    memory.0.lock().bytes.clear();
    assert!(matches!(index.commit(&change()), Err(IndexError::Replaced { .. })));
    index.commit(&batch).expect("a commit");
    assert_eq!(State::of(&mut index).expect("a state"), state);
}

#[test]
fn who_does_not_write_listings_writes_matches() {
    let (memory, mut state) = small();
    let (mut index, _) = Index::on_place(Box::new(memory.clone()), &identity(), false).expect("an index");
    assert!(!index.is_writer());
    let batch = Batch { clear_dirs: true, ..change() };
    index.commit(&batch).expect("a commit");
    state.matches.extend(batch.matches);
    assert_eq!(State::of(&mut index).expect("a state"), state);
    let done = memory.0.lock().done;
    index.commit(&Batch { matches: Vec::new(), ..change() }).expect("a commit");
    assert_eq!(memory.0.lock().done, done, "nothing to write");
}

#[test]
fn records_that_are_none_are_refused() {
    let (memory, state) = small();
    let (mut index, _) = memory.open();
    let mut batch = change();
    batch.dirs.insert((0, 7), Some(record(0, "a/b", b"")));
    let error = index.commit(&batch).expect_err("a wrong name");
    assert_eq!(error.to_string(), "a record of source 0 between 0 and 31 is none");
    assert_eq!(State::of(&mut index).expect("a state"), state, "nothing of it was written");
    assert_eq!(memory.0.lock().set_aside, 0);
}

#[test]
fn panics_of_the_callback_are_its_own() {
    let (memory, state) = small();
    let (mut index, _) = memory.open();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = index.load(&mut |_, id, _| {
            if id == 9 {
                std::panic::panic_any(9u32)
            }
        });
    }));
    assert_eq!(panic.expect_err("a panic").downcast_ref(), Some(&9u32));
    assert_eq!(State::of(&mut index).expect("a state"), state);
    assert_eq!(memory.0.lock().set_aside, 0);
}

#[test]
fn only_so_many_patterns_are_kept() {
    let memory = Memory::default();
    let (mut index, _) = memory.open();
    let fingerprint = |n: u32| -> [u8; 16] { u128::from(n).to_be_bytes() };
    for from in (0..400).step_by(50) {
        let matches = (from..from + 50).map(|n| (fingerprint(n), vec![7; 5000])).collect();
        index.commit(&Batch { matches, ..Batch::default() }).expect("a commit");
    }
    let meta = index.load(&mut |_, _, _| {}).expect("an index");
    assert_eq!(meta.patterns, 256 + 50);
    let all: Vec<[u8; 16]> = (0..400).map(fingerprint).collect();
    let found = index.matches(&all).expect("matches");
    assert_eq!(found.iter().flatten().count(), 306);
    assert!(found[350..].iter().all(Option::is_some), "those just written stay");
}

/// A file that holds little is made small again.
#[test]
fn a_large_file_shrinks() {
    let memory = Memory::default();
    let (mut index, _) = memory.open();
    let mut random = Random(9);
    let mut batch = Batch::default();
    batch.dirs.insert((0, 0), Some(root()));
    for id in 1..20_000 {
        let listing: Vec<u8> = (0..600).map(|_| random.next() as u8).collect();
        batch.dirs.insert((0, id), Some(record(0, &format!("d{id}"), &listing)));
    }
    index.commit(&batch).expect("a commit");
    let large = memory.bytes().len();
    // Half of the growth may be a hole.
    assert!(large > 12_000_000 && large < 20_000_000, "{large}");
    batch.dirs.iter_mut().skip(300).for_each(|(_, record)| *record = None);
    index.commit(&batch).expect("a commit");
    let small = memory.bytes().len();
    assert!(small < 2_000_000, "{small}");
    let mut state = State::default();
    state.apply(&batch);
    assert_eq!(State::of(&mut index).expect("a state"), state);
}

/// Of the commits in which redb moves its pages together, only what they hold counts.
#[test]
fn a_crash_while_it_shrinks() {
    let memory = Memory::default();
    let (mut index, _) = memory.open();
    let mut random = Random(10);
    let mut batch = Batch::default();
    batch.dirs.insert((0, 0), Some(root()));
    for id in 1..4000 {
        let listing: Vec<u8> = (0..600).map(|_| random.next() as u8).collect();
        batch.dirs.insert((0, id), Some(record(0, &format!("d{id}"), &listing)));
    }
    index.commit(&batch).expect("a commit");
    let image = memory.bytes();
    let mut before = State::default();
    before.apply(&batch);
    // From the front, so that what stays lies behind.
    batch.dirs.iter_mut().skip(1).take(3500).for_each(|(_, record)| *record = None);
    let mut after = before.clone();
    after.apply(&batch);
    let steps = {
        let memory = Memory::of(&image);
        memory.open().0.commit(&batch).expect("a commit");
        assert!(memory.bytes().len() < image.len() / 3, "{}", memory.bytes().len());
        memory.0.lock().done
    };
    for step in (0..steps).step_by(steps / 150 + 1).chain(steps - 25..steps) {
        let memory = Memory::of(&image);
        let (mut index, _) = memory.open();
        memory.0.lock().left = Some(step);
        assert!(matches!(index.commit(&batch), Err(IndexError::Io { .. })), "step {step} of {steps}");
        let images = [memory.bytes(), memory.0.lock().after_power_loss(&mut random)];
        for (number, image) in images.iter().enumerate() {
            let (mut index, opened) = Memory::of(image).open();
            assert_eq!(opened, Opened::Existing, "step {step} of {steps}, image {number}");
            let state = State::of(&mut index).unwrap_or_else(|e| panic!("step {step} of {steps}, image {number}: {e}"));
            assert!(state == before || state == after, "step {step} of {steps}, image {number}");
        }
    }
}

#[test]
fn where_indexes_are_kept() {
    let of = |cache: Option<&str>, home: Option<&str>, root| {
        cache_directory_of(cache.map(OsString::from), home.map(OsString::from), root)
            .map(|path| path.to_str().expect("text").to_owned())
    };
    let home = Some("/home/ann");
    assert_eq!(of(Some("/tmp/c"), home, false).as_deref(), Some("/tmp/c/veinfs"));
    for ignored in [None, Some(""), Some("cache")] {
        assert_eq!(of(ignored, home, false).as_deref(), Some("/home/ann/.cache/veinfs"));
    }
    assert_eq!(of(None, None, true).as_deref(), Some("/var/cache/veinfs"));
    assert_eq!(of(None, Some("relative"), false), None);
}
