use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::listing::c_name;
use crate::source::object::snapshot::{About, Writer};

/// What every object has in it: its path.
#[derive(Debug)]
struct Paths;

#[derive(Debug)]
struct Content(Vec<u8>);

impl Store for Paths {
    fn location(&self) -> &[u8] {
        b"s3://b/p"
    }

    fn list(&self, into: Writer, _: &AtomicBool) -> io::Result<Snapshot> {
        drop(into);
        Err(error(libc::EIO))
    }

    fn open(&self, path: &[u8], _: &Meta) -> Arc<dyn ReadObject> {
        Arc::new(Content(path.to_vec()))
    }

    fn requests(&self) -> Value {
        Value::Null
    }
}

impl ReadObject for Content {
    fn read(&self, offset: u64, length: usize, done: Done) -> Ticket {
        let mut bytes = vec![0; length];
        done(self.read_full(&mut bytes, offset).map(|read| vec![Bytes::from(bytes).slice(..read)]));
        Ticket(None)
    }

    fn read_full(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = &self.0[usize::try_from(offset).expect("short").min(self.0.len())..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

fn snapshot(keys: &BTreeSet<Vec<u8>>, etag: &str) -> Arc<Snapshot> {
    let writer = Writer::new(None).expect("a file");
    let mut run = writer.run();
    for key in keys {
        let meta = Meta { size: key.len() as u64, modified: (7, 0), etag: Some(etag.into()), ..Meta::default() };
        run.push(key, &meta).expect("in order");
    }
    run.finish().expect("written");
    let about = About { location: Box::default(), listed: SystemTime::UNIX_EPOCH, left_out: 0, named: Vec::new() };
    Arc::new(writer.finish(about).expect("written"))
}

fn source(keys: &BTreeSet<Vec<u8>>) -> ObjectSource {
    let source = ObjectSource::new(b"s3://b/p", Box::new(Paths));
    source.set_snapshot(snapshot(keys, "e1"));
    source
}

fn keys(keys: &[&str]) -> BTreeSet<Vec<u8>> {
    keys.iter().map(|key| key.as_bytes().to_vec()).collect()
}

/// Each directory with its entries, by the naive way.
fn oracle(keys: &BTreeSet<Vec<u8>>) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, bool>> {
    let mut dirs: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, bool>> = BTreeMap::new();
    dirs.entry(Vec::new()).or_default();
    for key in keys {
        let mut dir = Vec::new();
        let parts: Vec<&[u8]> = key.split(|byte| *byte == b'/').collect();
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            let is_dir = at + 1 < parts.len();
            let entry = dirs.entry(dir.clone()).or_default().entry(part.to_vec()).or_insert(is_dir);
            *entry |= is_dir;
            if !dir.is_empty() {
                dir.push(b'/');
            }
            dir.extend_from_slice(part);
            if is_dir {
                dirs.entry(dir.clone()).or_default();
            }
        }
    }
    dirs
}

fn listed(source: &ObjectSource, dir: &Handle) -> BTreeMap<Vec<u8>, bool> {
    let mut found = BTreeMap::new();
    source
        .list(dir, &mut ListBuffer::default(), &mut |name, kind, _| {
            let twice = found.insert(name.to_bytes().to_vec(), kind == RawKind::Dir);
            assert_eq!(twice, None, "{name:?} is listed once");
        })
        .expect("sound");
    found
}

fn open(source: &ObjectSource, path: &[u8]) -> io::Result<Handle> {
    let root = source.open_root()?;
    if path.is_empty() { Ok(root) } else { source.open_dir(&root, &c_name(path)) }
}

fn walk(source: &ObjectSource, path: &[u8], into: &mut BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, bool>>) {
    let entries = listed(source, &open(source, path).expect("a directory"));
    for (name, _) in entries.iter().filter(|(_, is_dir)| **is_dir) {
        let below = if path.is_empty() { name.clone() } else { [path, b"/", name].concat() };
        walk(source, &below, into);
    }
    into.insert(path.to_vec(), entries);
}

proptest! {
    #[test]
    fn the_tree_is_what_keys_say(
        keys in prop::collection::btree_set(
            prop::collection::vec(prop_oneof!["a", "b", "a-b", "a\\.csv", "a0", "run", "é"], 1..4),
            0..40,
        ),
        marked in any::<u64>(),
    ) {
        let keys: BTreeSet<Vec<u8>> = keys
            .iter()
            .enumerate()
            .map(|(at, parts)| [parts.join("/").as_bytes(), if marked >> (at % 64) & 1 == 1 { b"/" } else { b"" }].concat())
            .collect();
        let source = source(&keys);
        let mut found = BTreeMap::new();
        walk(&source, b"", &mut found);
        let wanted = oracle(&keys);
        prop_assert_eq!(&found, &wanted);
        for (dir, entries) in &wanted {
            let handle = open(&source, dir).expect("a directory");
            for (name, is_dir) in entries {
                let name = c_name(name);
                prop_assert_eq!(source.stat(&handle, &name, false).expect("there").is_dir(), *is_dir);
                prop_assert_eq!(source.open_dir(&handle, &name).is_ok(), *is_dir);
                prop_assert_eq!(source.open_file(&handle, &name, false).is_ok(), !*is_dir);
            }
        }
    }
}

#[test]
fn a_directory_is_as_it_was_while_its_names_are() {
    let source = source(&keys(&["runs/1/a", "runs/1/b", "runs/2/a"]));
    let stamps = |source: &ObjectSource| -> Vec<_> {
        let dirs: [&[u8]; 4] = [b"", b"runs", b"runs/1", b"runs/2"];
        dirs.iter().map(|dir| source.stat_dir(&open(source, dir).expect("there")).expect("there").stamp()).collect()
    };
    let before = stamps(&source);
    let held = open(&source, b"runs/1").expect("there");
    source.set_snapshot(snapshot(&keys(&["runs/1/a", "runs/1/b", "runs/1/c", "runs/2/a"]), "e2"));
    let now = stamps(&source);
    let same: Vec<bool> = before.iter().zip(&now).map(|(before, now)| before == now).collect();
    assert_eq!(same, [true, true, false, true]);
    assert_eq!(listed(&source, &held).len(), 3, "an open directory shows what is there now");
    source.set_snapshot(snapshot(&keys(&["other"]), "e2"));
    let gone = source.stat_dir(&held).expect_err("gone");
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    assert_eq!(listed(&source, &open(&source, b"").expect("the root stays")).len(), 1);
}

#[test]
fn another_version_is_another_file() {
    let source = source(&keys(&["a"]));
    let root = source.open_root().expect("there");
    let file = source.open_file(&root, c"a", false).expect("there");
    let old = source.stat_file(&file).expect("open");
    source.set_snapshot(snapshot(&keys(&["a"]), "e2"));
    let new = source.stat(&root, c"a", false).expect("there");
    assert_eq!((old.mtime, old.size, old.ino), (new.mtime, new.size, new.ino), "written within one second");
    assert_ne!(old.btime, new.btime);
    assert_ne!(old.ctime, new.ctime);
    assert_eq!(source.stat_file(&file).expect("open"), old);
}

#[test]
fn content_attributes_and_what_is_not_there() {
    let source = source(&keys(&["run/data.csv", "run/data.csv/x", "run/b"]));
    let root = source.open_root().expect("there");
    let run = source.open_dir(&root, c"run").expect("there");
    assert!(source.stat(&run, c"data.csv", false).expect("there").is_dir(), "a directory hides the object of its name");
    let file = source.open_file(&root, c"run/b", false).expect("by a path");
    let mut bytes = [0; 9];
    assert_eq!(file.read_full(&mut bytes, 2).expect("read"), 3);
    assert_eq!(&bytes[..3], b"n/b");
    assert_eq!(file.read_full(&mut bytes, 99).expect("past the end"), 0);
    let test = |name: &CStr, test: &Test| source.test(&run, name, test).expect("decided");
    assert!(test(c"b", &Test::Contains(b"run/".to_vec())));
    assert!(!test(c"b", &Test::Contains(b"walk".to_vec())));
    assert!(!test(c"absent", &Test::Contains(b"".to_vec())));
    let Handle::Object(dir) = &run else { panic!("an object store's") };
    assert_eq!(dir.xattr(Some(b"b"), b"user.veinfs.etag").as_deref(), Some(&b"e1"[..]));
    assert_eq!(dir.xattrs(Some(b"b")), b"user.veinfs.etag\0");
    assert_eq!(dir.xattrs(None), b"");
    assert_eq!(source.path_of(&run).expect("a path"), b"s3://b/p/run");
    let missing = |result: io::Result<Handle>| result.expect_err("none").raw_os_error();
    assert_eq!(missing(source.open_dir(&root, c"ru")), Some(libc::ENOENT));
    assert_eq!(missing(source.open_dir(&root, c"run/b")), Some(libc::ENOTDIR));
    let other = ObjectSource::new(b"s3://b/p", Box::new(Paths));
    assert_eq!(other.open_root().expect_err("not listed").kind(), io::ErrorKind::NotConnected);
    assert_eq!(missing(other.open_dir(&root, c"run")), Some(libc::EBADF));
}
