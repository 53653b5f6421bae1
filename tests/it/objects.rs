//! Buckets mounted: the same matches and the same bytes as on disk, whatever the store does.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::bed::{Output, TestBed, can_mount, eventually, names};

#[path = "../../src/source/object/testing.rs"]
pub(crate) mod testing;

use testing::{Answer, Bucket, Server};

const RUN: &str = r#"{"name": "run", "files": ["data.csv"], "directories": [{"name": "raw", "files": ["*.bin"]}]}"#;
const ANY: &str = r#"{"name": "any", "files": ["data.csv"]}"#;

/// A bucket that is served, and a place to mount it at.
struct Cloud {
    bed: TestBed,
    bucket: Bucket,
    server: Server,
}

impl Cloud {
    fn new(objects: &[(&str, &[u8])]) -> Self {
        let bucket = Bucket::default();
        objects.iter().for_each(|(key, body)| bucket.put(key, *body));
        let server = bucket.serve();
        Self { bed: TestBed::new::<&str>(&[]), bucket, server }
    }

    /// The options that lead to the server.
    fn options(&self) -> Vec<String> {
        let endpoint = format!("endpoint={}", self.server.url());
        ["--option", &endpoint, "--option", "skip_signature=true"].map(str::to_owned).to_vec()
    }

    fn try_mount(&self, sources: &[&str], args: &[&str]) -> Output {
        let sources: Vec<&OsStr> = sources.iter().map(OsStr::new).collect();
        let args: Vec<String> = self.options().into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        self.bed.mount_at(&sources, &self.bed.mnt, args)
    }

    fn mount(&self, location: &str, args: &[&str]) {
        self.try_mount(&[location], args).ok();
    }

    fn lists(&self) -> usize {
        self.bucket.requests(|asked| asked.query.contains("list-type") && !asked.is_probe())
    }

    fn gets(&self) -> usize {
        self.bucket.requests(|asked| !asked.query.contains("list-type"))
    }
}

fn big(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at ^ (at >> 8) ^ (at >> 16).wrapping_mul(31)) as u8).collect()
}

#[test]
fn a_bucket_is_mounted_and_read() {
    if !can_mount() {
        return;
    }
    let body = big(3_000_000);
    let cloud = Cloud::new(&[
        ("2026/a/data.csv", b"1,2\n"),
        ("2026/a/raw/x.bin", &body),
        ("2026/b/data.csv", b""),
        ("2026/b/raw//odd.bin", b""),
        ("other/c/data.csv", b"3"),
    ]);
    let run = cloud.bed.file("run.json", RUN);
    let any = cloud.bed.file("any.json", ANY);
    cloud.mount("s3://lab/2026", &["-p", &run, "-p", &any]);
    let mnt = &cloud.bed.mnt;
    assert_eq!(names(mnt.join("run")), ["a"]);
    assert_eq!(names(mnt.join("any")), ["a", "b"]);
    assert_eq!(cloud.gets(), 0, "what is listed is all that is needed");
    let file = mnt.join("run/a/raw/x.bin");
    let meta = fs::metadata(&file).expect("it is there");
    assert_eq!((meta.size(), meta.mtime(), meta.mode() & 0o777), (3_000_000, 1_795_688_430, 0o444));
    assert_eq!(cloud.gets(), 0);
    assert!(fs::read(&file).expect("it is read") == body);
    assert_eq!(fs::read(mnt.join("any/b/data.csv")).expect("it is empty"), b"");
    let mut open = fs::File::open(&file).expect("it opens");
    open.seek(SeekFrom::Start(2_999_990)).expect("a place");
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).expect("it is read");
    assert_eq!(rest, body[2_999_990..]);
    let mut etag = [0; 64];
    let length = rustix::fs::getxattr(&file, "user.veinfs.etag", &mut etag).expect("an attribute");
    assert_eq!(length, 32);
    // What is left out is told.
    let errors = fs::read_to_string(mnt.join(".veinfs/errors.ndjson")).expect("it is read");
    assert!(errors.contains("s3://lab/2026/b/raw//odd.bin") && errors.contains("empty name"), "{errors}");
    let status = cloud.bed.status();
    let source = &status["sources"][0];
    assert_eq!((source["path"].as_str(), source["state"].as_str()), (Some("s3://lab/2026"), Some("complete")));
    assert_eq!(source["listing"]["objects"], 3);
    // One to find out where the bucket is.
    assert_eq!(source["listing"]["requests"]["list"], 2);
    let said = cloud.bed.veinfs([OsStr::new("status"), mnt.as_os_str()]).ok();
    assert!(said.text().contains("s3://lab/2026, complete") && said.text().contains("2 LIST"), "{}", said.text());
}

#[test]
fn a_remount_asks_for_nothing_and_a_refresh_for_a_listing() {
    if !can_mount() {
        return;
    }
    let cloud = Cloud::new(&[("p/a/data.csv", b"1"), ("p/b/data.csv", b"2"), ("p/c//odd.csv", b"")]);
    let any = cloud.bed.file("any.json", ANY);
    let index = cloud.bed.dir.join("x.index");
    let args = ["-p", &*any, "--index", index.to_str().expect("text"), "--poll", "1h"];
    cloud.mount("s3://lab/p", &args);
    assert_eq!(names(cloud.bed.mnt.join("any")), ["a", "b"]);
    cloud.bed.unmount();
    assert_eq!(cloud.lists(), 1);
    cloud.bucket.put("p/c/data.csv", "3");
    cloud.bucket.objects.lock().remove(&b"p/a/data.csv"[..]);
    cloud.mount("s3://lab/p", &args);
    let dir = cloud.bed.mnt.join("any");
    assert_eq!(names(&dir), ["a", "b"]);
    assert_eq!(cloud.lists(), 1, "it is not due");
    let errors = fs::read_to_string(cloud.bed.mnt.join(".veinfs/errors.ndjson")).expect("it is read");
    assert!(errors.contains("s3://lab/p/c//odd.csv") && errors.contains("empty name"), "{errors}");
    cloud.bed.veinfs([OsStr::new("refresh"), cloud.bed.mnt.as_os_str()]).ok();
    assert_eq!(names(&dir), ["b", "c"]);
    assert_eq!(cloud.lists(), 2);
    cloud.bed.unmount();
    // With the index goes the listing.
    cloud.bed.veinfs([OsStr::new("index"), OsStr::new("drop"), index.as_os_str()]).ok();
    let left: Vec<String> = names(&cloud.bed.dir).into_iter().filter(|name| name.starts_with("x.index")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_changes_is_seen_by_polling() {
    if !can_mount() {
        return;
    }
    let cloud = Cloud::new(&[("p/a/data.csv", b"1")]);
    let any = cloud.bed.file("any.json", ANY);
    cloud.mount("s3://lab/p", &["-p", &any, "--poll", "100ms"]);
    let dir = cloud.bed.mnt.join("any");
    assert_eq!(fs::read(dir.join("a/data.csv")).expect("it is read"), b"1");
    cloud.bucket.put("p/b/data.csv", "2");
    eventually("one appears", || names(&dir) == ["a", "b"]);
    cloud.bucket.objects.lock().remove(&b"p/b/data.csv"[..]);
    eventually("one goes", || names(&dir) == ["a"]);
    cloud.bucket.put("p/a/data.csv", "another");
    eventually("another version is read", || fs::read(dir.join("a/data.csv")).is_ok_and(|read| read == b"another"));
}

#[test]
fn one_that_is_replaced_while_it_is_open_is_not_mixed() {
    if !can_mount() {
        return;
    }
    let body = big(8 << 20);
    let cloud = Cloud::new(&[("p/a/data.csv", &body)]);
    let any = cloud.bed.file("any.json", ANY);
    cloud.mount("s3://lab/p", &["-p", &any, "--poll", "0"]);
    let file = fs::File::open(cloud.bed.mnt.join("any/a/data.csv")).expect("it opens");
    let mut piece = vec![0; 4096];
    file.read_exact_at(&mut piece, 0).expect("it is read");
    let mut now: Vec<u8> = body.iter().map(|byte| !byte).collect();
    cloud.bucket.put("p/a/data.csv", now.clone());
    let mut failed = None;
    for at in (0..body.len()).step_by(64 << 10) {
        match file.read_exact_at(&mut piece, at as u64) {
            Ok(()) => assert!(piece == body[at..at + 4096], "another version at {at}"),
            Err(error) => failed = error.raw_os_error(),
        }
    }
    assert_eq!(failed, Some(libc::ESTALE));
    let errors = fs::read_to_string(cloud.bed.mnt.join(".veinfs/errors.ndjson")).expect("it is read");
    assert!(errors.contains("replaced"), "{errors}");
    // Whoever opens it again reads what it is now, longer or shorter, though nothing is listed.
    let path = cloud.bed.mnt.join("any/a/data.csv");
    let is = |now: &[u8]| {
        assert!(fs::read(&path).expect("it is read") == now);
        assert_eq!(fs::metadata(&path).expect("its attributes").len(), now.len() as u64);
    };
    for length in [9 << 20, 5, 100_000, 0] {
        is(&now);
        let file = fs::File::open(&path).expect("it opens");
        now = big(length).into_iter().map(|byte| byte ^ 0x55).collect();
        cloud.bucket.put("p/a/data.csv", now.clone());
        // Of one whose pages the kernel has nothing is asked.
        let _ = nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let error = file.read_exact_at(&mut [0], 0).expect_err("another version");
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    }
    is(&now);
    assert_eq!(cloud.lists(), 1);
}

#[test]
fn a_store_that_stands_still_holds_up_nothing_else() {
    if !can_mount() {
        return;
    }
    let cloud = Cloud::new(&[("p/a/data.csv", b"slow"), ("p/b/data.csv", b"quick")]);
    cloud.bucket.fail(|asked, answer| match asked.path.ends_with("/a/data.csv") {
        true => Answer { stall: Some((0, Duration::from_secs(20))), ..answer },
        false => answer,
    });
    let any = cloud.bed.file("any.json", ANY);
    cloud.mount("s3://lab/p", &["-p", &any, "--fuse-threads", "2"]);
    let dir = cloud.bed.mnt.join("any");
    let mut slow: Vec<_> = (0..6)
        .map(|_| {
            Command::new("cat").arg(dir.join("a/data.csv")).stdout(std::process::Stdio::null()).spawn().expect("cat")
        })
        .collect();
    eventually("they wait", || cloud.gets() > 0);
    let begun = Instant::now();
    assert_eq!(fs::read(dir.join("b/data.csv")).expect("it is read"), b"quick");
    assert_eq!(names(&dir), ["a", "b"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    // They can be ended at once.
    for cat in &mut slow {
        cat.kill().expect("a signal");
        cat.wait().expect("it ends");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn what_is_wrong_is_said_with_a_cure() {
    let cloud = Cloud::new(&[]);
    let any = cloud.bed.file("any.json", ANY);
    let scan = |location: &str, options: &[&str]| {
        let mut words = vec!["scan", location, "-p", &any];
        words.extend(options);
        let mut command = cloud.bed.command(&words);
        command.env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9").env_remove("AWS_PROFILE");
        let begun = Instant::now();
        let output = Output::of(&mut command);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        output
    };
    let endpoint = format!("endpoint={}", cloud.server.url());
    let ours = ["--option", &endpoint, "--option", "skip_signature=true"];
    scan("s3://lab/nothing", &ours).code(2).says("there is no object whose key begins with `nothing/`");
    scan("s3://lab", &["--option", &endpoint]).code(2).says("no credentials").says("aws configure");
    scan("s3://lab", &["--option", "reigon=x"]).code(2).says("did you mean `region`?");
    scan("s3://lab", &["--option", "secret_access_key=x"]).code(2).says("AWS_SECRET_ACCESS_KEY");
    scan("ftp://lab/x", &[]).code(2).says("no kind of source");
    scan("https://u:secret@host/x", &[]).code(2).says("VEINFS_WEBDAV_USER");
    cloud.bucket.fail(|_, _| Answer::text(404, "<Error><Code>NoSuchBucket</Code></Error>"));
    scan("s3://lab", &ours).code(2).says("no such bucket");
    cloud.bucket.fail(|_, _| Answer::text(403, "<Error><Code>AccessDenied</Code></Error>"));
    scan("s3://lab", &ours).code(2).says("access is denied");
    let refusing = Server::start(|_| Answer::text(403, "<Error><Code>AccessDenied</Code></Error>"));
    let endpoint = format!("endpoint={}", refusing.url());
    scan("s3://lab", &["--option", &endpoint, "--option", "skip_signature=true"]).code(2).says("access is denied");
}

#[test]
fn buckets_and_directories_are_one_view() {
    if !can_mount() {
        return;
    }
    let cloud = Cloud::new(&[("p/a/data.csv", b"cloud")]);
    fs::create_dir_all(cloud.bed.src.join("b")).expect("made");
    fs::write(cloud.bed.src.join("b/data.csv"), "disk").expect("written");
    let any = cloud.bed.file("any.json", ANY);
    let disk = cloud.bed.src.to_str().expect("text").to_owned();
    cloud.try_mount(&["s3://lab/p", &disk], &["-p", &any]).ok();
    let read =
        |name: &str| fs::read_to_string(cloud.bed.mnt.join("any").join(name).join("data.csv")).expect("it is read");
    assert_eq!((read("a"), read("b")), ("cloud".to_owned(), "disk".to_owned()));
}

/// All files below a directory with what is in them.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn below(root: &Path, at: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(at).expect("a directory").map(|entry| entry.expect("one")) {
            if entry.file_type().expect("a type").is_dir() {
                below(root, &entry.path(), all);
            } else {
                let path = entry.path().strip_prefix(root).expect("it is below").to_path_buf();
                all.insert(path, fs::read(entry.path()).expect("it is read"));
            }
        }
    }
    let mut all = BTreeMap::new();
    below(dir, dir, &mut all);
    all
}

#[test]
fn a_tree_in_a_bucket_is_the_tree_on_disk() {
    if !can_mount() {
        return;
    }
    let name = prop::sample::select(vec!["a", "b", "raw", "data.csv", "x.bin", "ü 1", "y+%41"]);
    let path = prop::collection::vec(name, 1..5);
    let tree = prop::collection::btree_map(path, prop::collection::vec(any::<u8>(), 0..200), 0..24);
    let mut runner = TestRunner::new(Config { cases: 6, failure_persistence: None, ..Config::default() });
    runner
        .run(&tree, |tree| {
            let (disk, cloud) = (TestBed::new::<&str>(&[]), Cloud::new(&[("src/.keep", b"")]));
            for (path, body) in &tree {
                let file = disk.src.join(path.join("/"));
                // A file is in the way of a directory, or the other way round: in neither place.
                let made = fs::create_dir_all(file.parent().expect("one")).and_then(|()| fs::write(&file, body));
                if made.is_ok() {
                    cloud.bucket.put(format!("src/{}", path.join("/")), body.clone());
                }
            }
            let (run, any) = (cloud.bed.file("run.json", RUN), cloud.bed.file("any.json", ANY));
            cloud.mount("s3://lab/src", &["-p", &run, "-p", &any]);
            disk.mount(["-p", &run, "-p", &any]);
            prop_assert_eq!(contents(&cloud.bed.mnt.join("run")), contents(&disk.mnt.join("run")));
            prop_assert_eq!(contents(&cloud.bed.mnt.join("any")), contents(&disk.mnt.join("any")));
            Ok(())
        })
        .expect("they are the same");
}

#[test]
fn what_was_read_is_kept_on_disk() {
    if !can_mount() {
        return;
    }
    let body = big(3 << 20);
    let cloud = Cloud::new(&[("p/a/data.csv", &body)]);
    let any = cloud.bed.file("any.json", ANY);
    let cache = cloud.bed.dir.join("cache");
    let args = ["-p", &*any, "--cache", cache.to_str().expect("text"), "--cache-size", "64M"];
    cloud.mount("s3://lab/p", &args);
    assert!(fs::read(cloud.bed.mnt.join("any/a/data.csv")).expect("it is read") == body);
    eventually("it is written", || {
        cloud.bed.status()["sources"][0]["listing"]["requests"]["cache_bytes"].as_u64() >= Some(3 << 20)
    });
    cloud.bed.unmount();
    let gets = cloud.gets();
    cloud.mount("s3://lab/p", &args);
    assert!(fs::read(cloud.bed.mnt.join("any/a/data.csv")).expect("it is read") == body);
    assert_eq!(cloud.gets(), gets);
}
