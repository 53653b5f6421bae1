//! Trees that are known by listings: what is shown follows them, and nothing is listed without need.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::Value;
use veinfs::config::NamedSource;
use veinfs::crawl::{Unwatched, Watching};
use veinfs::live::Live;
use veinfs::pattern::Pattern;
use veinfs::pattern::compile::compile;
use veinfs::pattern::load::{Format, load_text};
use veinfs::source::object::ObjectSource;
use veinfs::source::object::snapshot::{About, Meta, Snapshot, Writer};
use veinfs::source::object::tree::{Done, ReadObject, Store as Objects, Ticket};
use veinfs::update::store::{Store, fingerprints, identity};
use veinfs::update::{Event, KeepOptions, Keeper, Told};
use veinfs::walk::WalkOptions;

use crate::bed::ndjson;

/// What is in a bucket: keys with what is in the objects.
type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

/// A bucket in memory.
#[derive(Clone, Debug, Default)]
struct Bucket {
    keys: Arc<Mutex<Keys>>,
    lists: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Object(Vec<u8>, Arc<AtomicU64>);

impl Objects for Bucket {
    fn location(&self) -> &[u8] {
        b"memory://bucket"
    }

    fn list(&self, into: Writer, _: &AtomicBool) -> io::Result<Snapshot> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("the bucket cannot be reached"));
        }
        let mut run = into.run();
        for (key, content) in &*self.keys.lock() {
            let etag = Some(format!("{:x}", xxhash_rust::xxh3::xxh3_64(content)).into());
            run.push(key, &Meta { size: content.len() as u64, modified: (9, 0), etag, ..Meta::default() })?;
        }
        run.finish()?;
        into.finish(About {
            location: self.location().into(),
            listed: SystemTime::now(),
            left_out: 0,
            named: Vec::new(),
        })
    }

    fn open(&self, path: &[u8], _: &Meta) -> Arc<dyn ReadObject> {
        Arc::new(Object(self.keys.lock().get(path).cloned().unwrap_or_default(), Arc::clone(&self.reads)))
    }

    fn requests(&self) -> Value {
        Value::Null
    }
}

impl ReadObject for Object {
    fn read(&self, _: u64, _: usize, done: Done) -> Ticket {
        done(Ok(Vec::new()));
        Ticket(None)
    }

    fn read_full(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let rest = &self.0[usize::try_from(offset).expect("short").min(self.0.len())..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

fn patterns() -> Vec<Pattern> {
    let run = r#"{"name": "run", "files": ["data.csv"], "directories": [{"name": "raw", "files": ["*.bin"]}]}"#;
    let hot = r#"{"name": "hot", "files": [{"glob": "data.csv", "contains": "hot"}]}"#;
    [run, hot]
        .iter()
        .flat_map(|text| load_text(text.as_bytes(), Format::Json, "test", "test").expect("a pattern"))
        .collect()
}

struct Kept {
    live: Arc<Live>,
    keeper: Keeper,
}

impl Kept {
    fn begin(bucket: &Bucket, index: Option<&Path>) -> Self {
        let patterns = patterns();
        let source = NamedSource {
            name: b"bucket".as_slice().into(),
            root_name: b"bucket".as_slice().into(),
            root: "memory://bucket".into(),
            source: Arc::new(ObjectSource::new(b"memory://bucket", Box::new(bucket.clone()))),
        };
        let sources = vec![source];
        let options = WalkOptions { threads: 2, ..WalkOptions::default() };
        let store = index.map(|path| {
            let identity = identity(&sources, &options);
            Store::open(path.into(), &identity, fingerprints(&patterns, None)).expect("an index").0
        });
        let automaton = Arc::new(compile(&patterns).expect("patterns"));
        let (live, inodes) = Live::new("/nowhere".into(), automaton, patterns, sources, vec![options], Arc::default());
        let live = Arc::new(live);
        let refreshed = Arc::clone(&live);
        let make_watch = |_: usize, _: Sender<Event>| -> Arc<dyn Watching> { Arc::new(Unwatched) };
        let tell = Box::new(move |told: Told| told.tickets.iter().for_each(|ticket| refreshed.note_refreshed(*ticket)));
        let keep = KeepOptions { poll: None };
        let mut keeper = Keeper::new(Arc::clone(&live), inodes, &make_watch, store, keep, tell).expect("threads");
        keeper.begin();
        Self { live, keeper }
    }

    fn settled(bucket: &Bucket, index: Option<&Path>) -> Self {
        let mut kept = Self::begin(bucket, index);
        kept.keeper.settle();
        kept
    }

    fn refresh(&mut self) {
        let ticket = self.live.refresh(None).expect("it is not going");
        self.keeper.settle();
        assert!(!self.live.is_refreshing(ticket));
    }

    /// Pattern and path of each match.
    fn shown(&self) -> BTreeSet<(String, String)> {
        let lines = ndjson(&self.live.matches_ndjson());
        let text = |line: &Value, key: &str| line[key].as_str().expect("a text").to_owned();
        lines.iter().map(|line| (text(line, "pattern"), text(line, "path"))).collect()
    }

    fn state(&self) -> String {
        self.live.status(Value::Null)["sources"][0]["state"].as_str().expect("a text").to_owned()
    }
}

/// What matches, by the naive way.
fn oracle(keys: &Keys) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (key, content) in keys {
        let key = std::str::from_utf8(key).expect("text");
        let Some(dir) = key.strip_suffix("/data.csv") else { continue };
        // A directory of the same name is shown in place of the object.
        if keys.keys().any(|other| other.starts_with(format!("{key}/").as_bytes())) {
            continue;
        }
        let path = format!("memory://bucket/{dir}");
        let in_raw = |other: &str| {
            let name = other.strip_prefix(&format!("{dir}/raw/"));
            let is_dir = || keys.keys().any(|deeper| deeper.starts_with(format!("{other}/").as_bytes()));
            name.is_some_and(|name| !name.contains('/') && name.ends_with(".bin")) && !is_dir()
        };
        if keys.keys().any(|other| in_raw(std::str::from_utf8(other).expect("text"))) {
            found.insert(("run".to_owned(), path.clone()));
        }
        if content.starts_with(b"hot") {
            found.insert(("hot".to_owned(), path));
        }
    }
    found
}

fn arb_keys() -> impl Strategy<Value = Keys> {
    let dir = prop::sample::select(vec!["a", "b", "raw", "data.csv"]);
    let name = prop::sample::select(vec!["data.csv", "raw/x.bin", "raw/y.bin", "raw/x.bin/z", "other"]);
    let key = (prop::collection::vec(dir, 1..3), name).prop_map(|(dirs, name)| format!("{}/{name}", dirs.join("/")));
    let content = prop::sample::select(vec!["hot", "cold", ""]);
    let entry = (key, content).prop_map(|(key, content)| (key.into_bytes(), content.as_bytes().to_vec()));
    prop::collection::btree_map(entry.clone().prop_map(|(key, _)| key), entry.prop_map(|(_, content)| content), 0..14)
}

fn keys(keys: &[(&str, &str)]) -> Keys {
    keys.iter().map(|(key, content)| (key.as_bytes().to_vec(), content.as_bytes().to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_shown_is_what_was_listed_last(steps in prop::collection::vec(arb_keys(), 1..5), remount in any::<bool>()) {
        let dir = tempfile::tempdir().expect("a directory");
        let index = dir.path().join("x.index");
        let bucket = Bucket::default();
        let mut kept = Kept::settled(&bucket, Some(&index));
        for keys in steps {
            *bucket.keys.lock() = keys.clone();
            if remount {
                kept.keeper.close();
                kept = Kept::settled(&bucket, Some(&index));
            }
            kept.refresh();
            prop_assert_eq!(kept.shown(), oracle(&keys));
            prop_assert_eq!(kept.state(), "complete");
        }
        kept.keeper.close();
    }
}

#[test]
fn a_remount_makes_no_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let index = dir.path().join("x.index");
    let bucket = Bucket::default();
    *bucket.keys.lock() = keys(&[("a/data.csv", "hot"), ("a/raw/1.bin", "x"), ("b/data.csv", "cold")]);
    let kept = Kept::settled(&bucket, Some(&index));
    let shown = kept.shown();
    assert_eq!(shown.len(), 2);
    kept.keeper.close();
    let before = (bucket.lists.load(Ordering::Relaxed), bucket.reads.load(Ordering::Relaxed));
    assert_eq!(before, (1, 2), "listed once, and both tested files read");

    // Nothing is lost, and what is there now is not looked at.
    bucket.keys.lock().clear();
    let mut kept = Kept::settled(&bucket, Some(&index));
    assert_eq!(kept.shown(), shown);
    assert_eq!(kept.state(), "complete");
    assert_eq!((bucket.lists.load(Ordering::Relaxed), bucket.reads.load(Ordering::Relaxed)), before);
    kept.refresh();
    assert!(kept.shown().is_empty());
    assert_eq!(bucket.lists.load(Ordering::Relaxed), 2);
    kept.keeper.close();

    // Without the listing it is made.
    std::fs::remove_file(veinfs::index::listing_path(&index, 0)).expect("it was there");
    let kept = Kept::settled(&bucket, Some(&index));
    assert_eq!(bucket.lists.load(Ordering::Relaxed), 3);
    kept.keeper.close();
}

#[test]
fn what_cannot_be_reached_is_not_empty() {
    let bucket = Bucket::default();
    *bucket.keys.lock() = keys(&[("a/data.csv", "hot")]);
    let mut kept = Kept::settled(&bucket, None);
    let shown = kept.shown();
    assert_eq!(shown.len(), 1);
    bucket.fails.store(true, Ordering::Relaxed);
    kept.refresh();
    assert_eq!((kept.shown(), kept.state().as_str()), (shown.clone(), "failed"));
    let status = kept.live.status(Value::Null);
    assert_eq!(status["sources"][0]["error"], "the bucket cannot be reached");
    // It changed meanwhile.
    bucket.keys.lock().insert(b"c/data.csv".to_vec(), b"hot".to_vec());
    bucket.fails.store(false, Ordering::Relaxed);
    kept.refresh();
    assert_eq!((kept.shown().len(), kept.state().as_str()), (2, "complete"));
    kept.keeper.close();
}

#[test]
fn what_cannot_be_reached_at_first_comes_later() {
    let bucket = Bucket::default();
    *bucket.keys.lock() = keys(&[("a/data.csv", "hot")]);
    bucket.fails.store(true, Ordering::Relaxed);
    let mut kept = Kept::settled(&bucket, None);
    assert_eq!((kept.shown().len(), kept.state().as_str()), (0, "failed"));
    bucket.fails.store(false, Ordering::Relaxed);
    kept.refresh();
    assert_eq!((kept.shown().len(), kept.state().as_str()), (1, "complete"));
    kept.keeper.close();
}

#[test]
fn another_version_is_read_again_and_no_other() {
    let bucket = Bucket::default();
    *bucket.keys.lock() = keys(&[("a/data.csv", "hot"), ("b/data.csv", "cold"), ("c/data.csv", "hot")]);
    let mut kept = Kept::settled(&bucket, None);
    assert_eq!(bucket.reads.load(Ordering::Relaxed), 3);
    bucket.keys.lock().insert(b"b/data.csv".to_vec(), b"hot!".to_vec());
    bucket.keys.lock().insert(b"d/other".to_vec(), Vec::new());
    kept.refresh();
    assert_eq!(kept.shown().len(), 3);
    assert_eq!(bucket.reads.load(Ordering::Relaxed), 4);
    kept.keeper.close();
}
