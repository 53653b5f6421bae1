//! Indexes as files that several processes share, on disks that are full or closed, and the command for them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;
use veinfs::index::{Batch, DirRecord, Identity, Index, IndexError, Opened, Stamp, survey};

use crate::bed::{TestBed, eventually, is_root, names};

fn identity(options: &str) -> Identity {
    Identity { sources: vec![(b"lab"[..].into(), b"/srv/lab"[..].into())], options: options.to_owned() }
}

fn record(id: u32, generation: u32) -> DirRecord {
    let name = if id == 0 { String::new() } else { format!("dir-{id}") };
    let listing = generation.to_le_bytes().repeat(20 + (id % 17) as usize);
    let time = (i64::from(generation), id);
    DirRecord {
        parent: id / 8,
        name: name.into_bytes().into(),
        stamp: Stamp { ino: 100 + u64::from(id), mtime: time, ctime: time },
        trusted: id.is_multiple_of(2),
        listing: listing.into(),
    }
}

const FINGERPRINT: [u8; 16] = *b"some fingerprint";

/// Everything there is in one generation, so that a mixture is seen.
fn generation(number: u32) -> Batch {
    Batch {
        dirs: (0..600).map(|id| ((0, id), Some(record(id, number)))).collect(),
        matches: vec![(FINGERPRINT, number.to_le_bytes().to_vec())],
        reconciled: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(number.into())),
        ..Batch::default()
    }
}

/// The generation in an index, which must be all of one; `None` if it is empty.
#[track_caller]
fn generation_of(index: &mut Index) -> Result<Option<u32>, IndexError> {
    let mut found = Vec::new();
    let meta = index.load(&mut |source, id, record| found.push((source, id, record)))?;
    let Some(reconciled) = meta.reconciled else {
        assert!(found.is_empty());
        return Ok(None);
    };
    let number = reconciled.duration_since(SystemTime::UNIX_EPOCH).expect("after it").as_secs();
    let number = u32::try_from(number).expect("a generation");
    assert_eq!(found.len(), 600);
    for (place, (source, id, found)) in (0..).zip(found) {
        assert_eq!((source, id), (0, place));
        assert!(found == record(id, number), "directory {id} is not of generation {number}");
    }
    Ok(Some(number))
}

fn at(bed: &TestBed) -> PathBuf {
    bed.dir.join("cache/veinfs").join(identity("").file_name())
}

#[track_caller]
fn open(path: &Path) -> (Index, Opened) {
    Index::open(path, &identity("")).unwrap_or_else(|e| panic!("{e}"))
}

/// An index of generation 1.
fn begun(bed: &TestBed) -> (PathBuf, Index) {
    let path = at(bed);
    let (mut index, opened) = open(&path);
    assert_eq!(opened, Opened::New);
    index.commit(&generation(1)).expect("a commit");
    (path, index)
}

fn empty_bed() -> TestBed {
    TestBed::new::<&str>(&[])
}

#[test]
fn an_index_is_for_its_user_alone() {
    let bed = empty_bed();
    let (path, mut index) = begun(&bed);
    assert_eq!(generation_of(&mut index).expect("an index"), Some(1));
    let mode = |path: &Path| fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!((mode(&bed.dir.join("cache")), mode(path.parent().expect("a directory"))), (0o700, 0o700));
    for entry in fs::read_dir(path.parent().expect("a directory")).expect("a directory") {
        assert_eq!(mode(&entry.expect("an entry").path()), 0o600);
    }
}

#[test]
fn what_others_planted_is_refused() {
    let bed = empty_bed();
    let victim = bed.file("victim", "precious");
    let path = bed.dir.join("planted.index");
    let refused = |what: &str| match Index::open(&path, &identity("")) {
        Err(error @ IndexError::Refused { .. }) => assert!(error.to_string().contains(what), "{error}"),
        other => panic!("{what}: {other:?}"),
    };
    symlink(&victim, &path).expect("a link");
    refused("a symbolic link");
    fs::remove_file(&path).expect("a link");
    symlink("nowhere", &path).expect("a link");
    refused("a symbolic link");
    fs::remove_file(&path).expect("a link");
    fs::create_dir(&path).expect("a directory");
    refused("a directory");
    fs::remove_dir(&path).expect("a directory");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a FIFO");
    refused("no regular file");
    fs::remove_file(&path).expect("a FIFO");
    assert_eq!(names(&bed.dir), ["mnt", "src", "victim"], "and no lock is left");
    // A lock that leads elsewhere only takes the right to write.
    symlink(&victim, bed.dir.join("planted.index.lock")).expect("a link");
    let (index, _) = open(&path);
    assert!(!index.is_writer());
    drop(index);
    if is_root() {
        std::os::unix::fs::chown(&path, Some(12_345), None).expect("an owner");
        refused("another user's file");
    }
    assert_eq!(fs::read_to_string(victim).expect("the file"), "precious");
    assert!(!bed.dir.join("nowhere").exists());
}

#[test]
fn what_is_of_no_use_is_set_aside() {
    let bed = empty_bed();
    let (path, index) = begun(&bed);
    drop(index);
    let aside = path.with_extension("index.damaged");
    for (content, reason) in [(&b"garbage"[..], "no index"), (&[b'x'; 9000], "no index")] {
        fs::write(&path, content).expect("a file");
        let (mut index, opened) = open(&path);
        match opened {
            Opened::SetAside { aside: Some(moved), reason: why } => {
                assert_eq!(moved, aside);
                assert!(why.contains(reason), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(&aside).expect("what was there"), content);
        assert_eq!(generation_of(&mut index).expect("an index"), None);
        index.commit(&generation(2)).expect("a commit");
        assert_eq!(generation_of(&mut index).expect("an index"), Some(2));
    }
    // Another identity, at a path that somebody chose.
    let (index, opened) = Index::open(&path, &identity("follow")).expect("an index");
    assert!(matches!(opened, Opened::SetAside { .. }), "{opened:?}");
    // Not while it is in use.
    match Index::open(&path, &identity("")) {
        Err(IndexError::Taken { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(index);
    // Damage in the middle comes out in the reading.
    let (mut index, _) = open(&path);
    index.commit(&generation(3)).expect("a commit");
    let mut bytes = fs::read(&path).expect("a file");
    let place = bytes.windows(5).position(|part| part == b"dir-3").expect("a name");
    bytes[place] ^= 1;
    fs::write(&path, bytes).expect("a file");
    match generation_of(&mut index) {
        Err(IndexError::Damaged { aside: Some(moved), .. }) => assert_eq!(moved, aside),
        other => panic!("{other:?}"),
    }
    assert_eq!(generation_of(&mut index).expect("an index"), None);
    index.commit(&generation(4)).expect("a commit");
    assert_eq!(generation_of(&mut index).expect("an index"), Some(4));
}

#[test]
fn one_writes_listings_and_all_read() {
    let bed = empty_bed();
    let (path, mut first) = begun(&bed);
    let (mut second, opened) = open(&path);
    assert_eq!((opened, first.is_writer(), second.is_writer()), (Opened::Existing, true, false));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut last) = (0u8, 0);
            loop {
                let finished = done.load(Ordering::Relaxed);
                let found = generation_of(&mut second).expect("an index").expect("a generation");
                assert!(found >= last);
                last = found;
                second.commit(&Batch { matches: vec![([9; 16], vec![reads])], ..generation(99) }).expect("matches");
                reads = reads.saturating_add(1);
                if finished {
                    return last;
                }
            }
        });
        let commits: Vec<_> = (2..40).map(|number| first.commit(&generation(number))).collect();
        done.store(true, Ordering::Relaxed);
        commits.into_iter().for_each(|commit| commit.expect("a commit"));
        assert_eq!(reader.join().expect("a reader"), 39);
    });
    let found = second.matches(&[FINGERPRINT, [9; 16], [8; 16]]).expect("matches");
    assert_eq!(found[0].as_deref(), Some(&39u32.to_le_bytes()[..]));
    assert!(found[1].is_some() && found[2].is_none());
    // The right passes on, with nothing taken for known.
    assert!(!second.become_writer());
    drop(first);
    assert!(second.become_writer());
    assert!(matches!(second.commit(&generation(50)), Err(IndexError::Replaced { .. })));
    second.commit(&Batch { clear_dirs: true, ..generation(50) }).expect("a commit");
    assert_eq!(generation_of(&mut second).expect("an index"), Some(50));
}

#[test]
fn who_finds_it_locked_waits() {
    let bed = empty_bed();
    let (path, mut index) = begun(&bed);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("the file");
    file.lock().expect("a lock");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            index.commit(&generation(2)).expect("a commit");
            generation_of(&mut index).expect("an index")
        });
        // Whether it waits already or not, it must not have come through.
        let other = fs::read(&path).expect("the file");
        assert_eq!(fs::read(&path).expect("the file"), other);
        file.unlock().expect("a lock");
        assert_eq!(waiting.join().expect("a thread"), Some(2));
    });
}

#[test]
fn a_file_that_goes_is_begun_anew() {
    let bed = empty_bed();
    let (path, mut index) = begun(&bed);
    fs::remove_file(&path).expect("the file");
    assert!(matches!(index.commit(&generation(2)), Err(IndexError::Replaced { .. })));
    assert_eq!(fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or(0), 0);
    index.commit(&Batch { clear_dirs: true, ..generation(2) }).expect("a commit");
    assert_eq!(generation_of(&mut index).expect("an index"), Some(2));
    // Another one in its place, of the same identity.
    fs::remove_file(&path).expect("the file");
    drop(open(&path));
    assert!(matches!(index.commit(&generation(3)), Err(IndexError::Replaced { .. })));
    index.commit(&Batch { clear_dirs: true, ..generation(3) }).expect("a commit");
    assert_eq!(generation_of(&mut index).expect("an index"), Some(3));
    // Its directory is gone.
    fs::remove_dir_all(path.parent().expect("a directory")).expect("the directory");
    let error = index.commit(&generation(4)).expect_err("no directory");
    assert!(matches!(error, IndexError::Io { .. }), "{error}");
    assert!(matches!(generation_of(&mut index), Ok(None)));
}

/// What [`killed_in_the_middle`] starts: commits until it is killed.
#[test]
#[ignore = "runs until it is killed; another test starts it"]
fn commits_for_ever() {
    let path = std::env::var_os("VEINFS_TEST_INDEX").expect("only for the other test");
    let (mut index, _) = open(Path::new(&path));
    assert!(index.is_writer());
    let mut number = generation_of(&mut index).expect("an index").unwrap_or(0);
    loop {
        number += 1;
        index.commit(&Batch { clear_dirs: number.is_multiple_of(3), ..generation(number) }).expect("a commit");
    }
}

#[test]
fn killed_in_the_middle() {
    let bed = empty_bed();
    let (path, index) = begun(&bed);
    drop(index);
    let mut last = 1;
    for round in 0..15u32 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "indexing::commits_for_ever", "--ignored"])
            .env("VEINFS_TEST_INDEX", &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this program again");
        let inode_and_time = || fs::metadata(&path).map(|metadata| (metadata.mtime(), metadata.mtime_nsec())).ok();
        for _ in 0..=round % 5 {
            let before = inode_and_time();
            eventually("a commit", || inode_and_time() != before);
        }
        child.kill().expect("a kill");
        child.wait().expect("its end");
        let (mut index, opened) = open(&path);
        assert_eq!(opened, Opened::Existing, "round {round}");
        assert!(index.is_writer());
        let found = generation_of(&mut index).expect("an index").expect("a generation");
        assert!(found >= last, "round {round}: {found} after {last}");
        last = found;
    }
    assert!(last > 10, "{last}");
}

/// A small file system in memory, gone with this value.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(bed: &TestBed, options: &std::ffi::CStr) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let path = bed.dir.join("tmpfs");
        fs::create_dir(&path).expect("a directory");
        match rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                eprintln!("SKIP: no tmpfs: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk() {
    let bed = empty_bed();
    let Some(disk) = Tmpfs::new(&bed, c"size=600k") else { return };
    let path = disk.0.join("full.index");
    let (mut index, _) = open(&path);
    index.commit(&generation(1)).expect("a commit");
    let filler = disk.0.join("filler");
    // Nearly full: it begins, and does not come through.
    let large = Batch {
        dirs: (600..9000).map(|id| ((0, id), Some(DirRecord { listing: noise(id), ..record(id, 2) }))).collect(),
        ..generation(2)
    };
    for free in [0, 8192, 40_000, 150_000] {
        let room = rustix::fs::statvfs(&disk.0).expect("a file system");
        let bytes = (room.f_bavail * room.f_frsize).saturating_sub(free);
        fs::write(&filler, vec![1; usize::try_from(bytes).expect("a small disk")]).expect("a file");
        let error = index.commit(&large).expect_err("no room");
        assert!(matches!(error, IndexError::Full { .. }), "{error}");
        assert_eq!(generation_of(&mut index).expect("an index"), Some(1), "with {free} bytes free");
        assert_eq!(index.matches(&[FINGERPRINT]).expect("matches"), [Some(1u32.to_le_bytes().to_vec())]);
        let (mut other, opened) = open(&path);
        assert_eq!(opened, Opened::Existing);
        assert_eq!(generation_of(&mut other).expect("an index"), Some(1));
        fs::remove_file(&filler).expect("a file");
    }
    index.commit(&generation(2)).expect("a commit");
    assert_eq!(generation_of(&mut index).expect("an index"), Some(2));
    assert_eq!(names(&disk.0), ["full.index", "full.index.lock"]);
    // No room for a new one: an error, and no panic.
    fs::write(&filler, vec![1; 1 << 20]).expect_err("no room for all of it");
    let other = disk.0.join("other.index");
    assert!(Index::open(&other, &identity("")).is_err());
}

/// Bytes that do not pack.
fn noise(seed: u32) -> Box<[u8]> {
    let mut state = u64::from(seed) * 2 + 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(150).collect()
}

#[test]
fn a_closed_disk() {
    let bed = empty_bed();
    let Some(disk) = Tmpfs::new(&bed, c"size=2m") else { return };
    let path = disk.0.join("closed.index");
    let (mut index, _) = open(&path);
    index.commit(&generation(1)).expect("a commit");
    drop(index);
    rustix::mount::mount_remount(&disk.0, MountFlags::RDONLY, c"size=2m").expect("read-only");
    let (mut index, opened) = open(&path);
    assert_eq!((opened, index.is_writer()), (Opened::Existing, false));
    assert_eq!(generation_of(&mut index).expect("an index"), Some(1));
    let error = index.commit(&generation(2)).expect_err("it is read-only");
    assert!(matches!(error, IndexError::Io { .. }), "{error}");
    let error = Index::open(&disk.0.join("none.index"), &identity("")).expect_err("it is read-only");
    assert!(error.to_string().contains("none.index"), "{error}");
    assert!(Index::open(&disk.0.join("sub/none.index"), &identity("")).is_err());
}

#[test]
fn the_command_shows_verifies_and_drops() {
    let bed = empty_bed();
    assert_eq!(bed.veinfs(["index", "show"]).ok().text(), "no indexes\n");
    assert_eq!(bed.veinfs(["index", "show", "--json"]).ok().text(), "");
    assert_eq!(bed.veinfs(["index", "verify"]).ok().text(), "no indexes\n");
    bed.veinfs(["index", "drop"]).code(2);
    bed.veinfs(["index"]).code(2);
    let (path, index) = begun(&bed);
    let shown = path.to_str().expect("text");
    let pid = std::process::id();

    let text = bed.veinfs(["index", "show"]).ok().text();
    let wanted = [
        format!("{shown}: 600 directories, 1 patterns, "),
        "  source lab: /srv/lab\n  agreed with its sources ".to_owned(),
        " bytes a directory, packed; format 1\n".to_owned(),
        format!("  in use by process {pid}\n"),
    ];
    wanted.iter().for_each(|wanted| assert!(text.contains(wanted), "no `{wanted}` in {text}"));
    let object = &bed.veinfs(["index", "show", "--json", shown]).ok().ndjson()[0];
    assert_eq!(object["sources"], json!([{"name": "lab", "path": "/srv/lab"}]));
    assert_eq!(
        [&object["path"], &object["directories"], &object["reconciled"], &object["in_use"], &object["pid"]],
        [&json!(shown), &json!(600), &json!(1.0), &json!(true), &json!(pid)]
    );
    let keys: Vec<&String> = object.as_object().expect("an object").keys().collect();
    assert_eq!(keys.len(), 14, "{keys:?}");

    let in_use = format!("{shown}: in use by process {pid}; `veinfs status` lists the mounts");
    bed.veinfs(["index", "drop", shown]).code(1).says(&in_use);
    bed.veinfs(["index", "drop", "--all"]).code(1).says(&in_use);
    assert!(path.exists());
    drop(index);
    assert!(bed.veinfs(["index", "show"]).ok().text().contains("  not in use\n"));

    // Damage is found, and not touched.
    let before = fs::read(&path).expect("the file");
    assert_eq!(bed.veinfs(["index", "verify"]).ok().text(), format!("{shown}: ok, 600 directories, 1 patterns\n"));
    let mut bytes = before.clone();
    let place = bytes.windows(5).position(|part| part == b"dir-3").expect("a name");
    bytes[place] ^= 1;
    let damaged = path.with_file_name("bad.index");
    fs::write(&damaged, &bytes).expect("a file");
    let text = bed.veinfs(["index", "verify"]).code(1).text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("bad.index: damaged: a page is not what was written\n"), "{text}");
    assert_eq!((fs::read(&damaged).expect("it"), fs::read(&path).expect("it")), (bytes, before));
    fs::write(&damaged, "").expect("a file");
    let text = bed.veinfs(["index", "verify", damaged.to_str().expect("text")]).code(1).text();
    assert!(text.ends_with("bad.index: damaged: it is empty\n"), "{text}");
    bed.veinfs(["index", "show"]).code(1).says("bad.index: damaged: it is empty");

    // Nothing else than indexes is removed.
    let other = bed.file("precious.txt", "precious");
    bed.veinfs(["index", "drop", &other]).code(1).says("precious.txt: not an index");
    bed.veinfs(["index", "drop", &format!("{other}.none")]).code(1).says("No such file");
    bed.veinfs(["index", "show", &format!("{other}.none")]).code(1).says("No such file");
    assert!(Path::new(&other).exists());
    bed.veinfs(["index", "drop", damaged.to_str().expect("text")]).ok();
    fs::write(path.with_extension("index.damaged"), "x").expect("a file");
    bed.veinfs(["index", "drop", "--all"]).ok();
    assert_eq!(names(path.parent().expect("a directory")), [""; 0]);
    assert_eq!(survey::list(path.parent().expect("a directory")).expect("a directory"), [] as [PathBuf; 0]);
}

#[test]
fn a_reader_repairs_nothing() {
    let bed = empty_bed();
    let (path, mut index) = begun(&bed);
    let before = fs::metadata(&path).expect("the file").modified().expect("a time");
    let bytes = fs::read(&path).expect("the file");
    assert_eq!(generation_of(&mut index).expect("an index"), Some(1));
    index.matches(&[FINGERPRINT]).expect("matches");
    drop(index);
    drop(open(&path));
    survey::verify(&path).expect("an index");
    assert_eq!(fs::metadata(&path).expect("the file").modified().expect("a time"), before);
    assert!(fs::read(&path).expect("the file") == bytes);
}
