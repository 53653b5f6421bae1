//! What is known of the content of objects: which tests of patterns a version of an object has passed, or not.
//!
//! To ask again costs requests, and a version of an object never changes, so that answers are kept in a file beside the
//! listing. It is added to as answers come; what is not whole at its end is of a crash, and is written over.
//!
//! ```text
//! file = magic "veinansw" | record*
//! record, 24 bytes = xxh3-128 of object, version and test | answer u8 | 0 u8 x 3 | CRC of the bytes before u32
//! ```
//!
//! All numbers are little endian. A file that has grown beyond [`MOST_BYTES`] begins anew, since nobody says which
//! answers are of objects that are gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::Xxh3;

use super::snapshot::Meta;
use crate::automaton::Test;

const MAGIC: &[u8; 8] = b"veinansw";
const RECORD_BYTES: usize = 24;
const SUMMED_BYTES: usize = 20;
/// Some 2.8 million answers.
const MOST_BYTES: u64 = 64 << 20;

/// Answers by what they are of; see the module.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: Mutex<FxHashMap<u128, bool>>,
    /// Where they are written, and the end of what is sound.
    file: Mutex<Option<(File, u64)>>,
}

/// What an answer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question(u128);

impl Question {
    /// Whether an object as it was listed passes a test.
    pub(super) fn new(path: &[u8], meta: &Meta, test: &Test) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&(path.len() as u64).to_le_bytes());
        hash.update(path);
        let version = (meta.size, meta.modified, &meta.etag, &meta.version);
        hash.update(format!("{version:?} {test:?}").as_bytes());
        Self(hash.digest128())
    }
}

impl Answers {
    /// Takes up the answers that a file holds, and adds later ones to it if `writes`.
    pub(super) fn keep_at(&self, path: &Path, writes: bool) {
        match self.load(path, writes) {
            Ok(file) => *self.file.lock() = file,
            Err(error) if !writes && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "what is learnt of the content of objects is not kept");
            }
        }
    }

    fn load(&self, path: &Path, writes: bool) -> io::Result<Option<(File, u64)>> {
        let file = OpenOptions::new().read(true).write(writes).create(writes).truncate(false).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        let mut end = 0;
        if (MAGIC.len() as u64..=MOST_BYTES).contains(&length) {
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            if let Some(records) = bytes.strip_prefix(MAGIC) {
                let mut known = self.known.lock();
                end = MAGIC.len() as u64;
                for (key, answer) in records.chunks_exact(RECORD_BYTES).map_while(parse) {
                    known.insert(key, answer);
                    end += RECORD_BYTES as u64;
                }
            }
        }
        if !writes {
            return Ok(None);
        }
        if end == 0 {
            file.set_len(0)?;
            file.write_all_at(MAGIC, 0)?;
            end = MAGIC.len() as u64;
        }
        Ok(Some((file, end)))
    }

    /// What is known.
    pub(super) fn get(&self, question: Question) -> Option<bool> {
        self.known.lock().get(&question.0).copied()
    }

    /// Notes an answer.
    pub(super) fn put(&self, question: Question, answer: bool) {
        if self.known.lock().insert(question.0, answer) == Some(answer) {
            return;
        }
        let mut file = self.file.lock();
        let Some((to, end)) = &mut *file else { return };
        match to.write_all_at(&record(question.0, answer), *end) {
            Ok(()) => *end += RECORD_BYTES as u64,
            Err(error) => {
                // It is asked again after the next mount.
                tracing::warn!(%error, "what is learnt of the content of objects is not kept any more");
                *file = None;
            }
        }
    }
}

fn record(key: u128, answer: bool) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..16].copy_from_slice(&key.to_le_bytes());
    bytes[16] = u8::from(answer);
    let sum = checksum(&bytes[..SUMMED_BYTES]);
    bytes[SUMMED_BYTES..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u128, bool)> {
    let (summed, sum) = bytes.split_at_checked(SUMMED_BYTES)?;
    let sound = sum == checksum(summed).to_le_bytes() && summed[16] < 2;
    sound.then(|| (u128::from_le_bytes(summed[..16].try_into().expect("16 bytes")), summed[16] == 1))
}

fn checksum(bytes: &[u8]) -> u32 {
    // Of 0 bytes, as a hole has them, it is not 0.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: u64) -> Question {
        let meta = Meta { size: number, ..Meta::default() };
        Question::new(b"a/b", &meta, &Test::Contains(b"x".to_vec()))
    }

    #[test]
    fn answers_outlive_the_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("answers");
        let answers = Answers::default();
        answers.keep_at(&path, true);
        (0..100).for_each(|number| answers.put(question(number), number % 3 == 0));
        answers.put(question(7), true);
        let again = Answers::default();
        again.keep_at(&path, true);
        for number in 0..100 {
            assert_eq!(again.get(question(number)), Some(number % 3 == 0 || number == 7), "{number}");
        }
        assert_eq!(again.get(question(100)), None);
    }

    #[test]
    fn all_of_a_version_counts() {
        let meta = Meta { size: 1, etag: Some("a".into()), ..Meta::default() };
        let test = Test::Contains(b"x".to_vec());
        let one = Question::new(b"k", &meta, &test);
        let others = [
            Question::new(b"l", &meta, &test),
            Question::new(b"k", &Meta { size: 2, ..meta.clone() }, &test),
            Question::new(b"k", &Meta { etag: Some("b".into()), ..meta.clone() }, &test),
            Question::new(b"k", &Meta { version: Some("a".into()), ..meta.clone() }, &test),
            Question::new(b"k", &Meta { modified: (1, 0), ..meta.clone() }, &test),
            Question::new(b"k", &meta, &Test::Contains(b"y".to_vec())),
        ];
        assert!(others.iter().all(|other| *other != one));
    }

    #[test]
    fn damage_costs_answers_and_makes_no_wrong_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("answers");
        let answers = Answers::default();
        answers.keep_at(&path, true);
        (0..20).for_each(|number| answers.put(question(number), number % 2 == 0));
        let whole = std::fs::read(&path).expect("it");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            bytes.truncate(whole.len() - at % 5);
            std::fs::write(&path, &bytes).expect("written");
            let again = Answers::default();
            again.keep_at(&path, true);
            for number in 0..20 {
                assert!(again.get(question(number)).is_none_or(|answer| answer == (number % 2 == 0)), "{at}");
            }
            // What is learnt now follows on what is sound.
            again.put(question(99), true);
            let third = Answers::default();
            third.keep_at(&path, false);
            assert_eq!(third.get(question(99)), Some(true), "{at}");
            assert_eq!(third.get(question(0)), again.get(question(0)));
        }
    }
}
