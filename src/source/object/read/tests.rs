use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::source::object::count::Purpose;
use crate::source::object::testing::{Answer, Asked, Bucket, Server};

/// A bucket with an object `x` of so many bytes, none of which is the same as those far from it.
struct Bed {
    bucket: Bucket,
    server: Server,
    remote: Arc<Remote>,
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at ^ (at >> 8) ^ (at >> 16).wrapping_mul(31)) as u8).collect()
}

impl Bed {
    fn new(length: usize) -> Self {
        let bucket = Bucket::default();
        bucket.put("x", content(length));
        let server = bucket.serve();
        let client = Client::of_server(&server.url());
        let remote = Remote::new(Arc::new(client), b"test");
        Self { bucket, server, remote }
    }

    fn meta(&self) -> Meta {
        let object = self.bucket.objects.lock()[&b"x"[..]].clone();
        let modified = crate::source::object::client::time("Thu, 26 Nov 2026 00:00:00 GMT").expect("a time");
        Meta { size: object.body.len() as u64, etag: Some(object.etag.into()), modified, ..Meta::default() }
    }

    fn open(&self, engine: &Arc<Engine>) -> Reader {
        Reader::new(engine, &self.remote, "x".into(), &self.meta())
    }

    fn gets(&self) -> u64 {
        self.remote.client.counts.of(Purpose::Get)
    }
}

fn engine(bytes: u64) -> Arc<Engine> {
    Engine::new(bytes, None)
}

fn read(reader: &Reader, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut into = vec![0; length];
    let got = reader.read_full(&mut into, offset)?;
    into.truncate(got);
    Ok(into)
}

fn kind(error: &io::Error) -> FaultKind {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).expect("a fault").kind
}

#[test]
fn whoever_reads_on_is_read_ahead() {
    let bed = Bed::new(40 << 20);
    let reader = bed.open(&engine(1 << 30));
    let (all, step) = (content(40 << 20), 128 << 10);
    for at in (0..all.len()).step_by(step) {
        assert!(read(&reader, at as u64, step).expect("it is read") == all[at..at + step], "at {at}");
    }
    // 320 reads.
    assert!(bed.gets() < 40, "{} requests", bed.gets());
    assert!(read(&reader, 40 << 20, 10).expect("nothing").is_empty());
    drop(reader);
    assert_eq!(bed.bucket.requests(|asked| !asked.is_probe() && asked.header("if-match").is_none()), 0);
}

#[test]
fn whoever_reads_here_and_there_gets_what_was_asked_for() {
    let bed = Bed::new(64 << 20);
    let reader = bed.open(&engine(1 << 30));
    let all = content(64 << 20);
    for number in 0..100u64 {
        let at = (number * 7_919_333) % (60 << 20);
        assert!(read(&reader, at, 65536).expect("it is read") == all[at as usize..at as usize + 65536]);
    }
    let bytes: u64 = bed.remote.client.counts.json()["bytes"].as_u64().expect("a number");
    assert!(bytes < 100 * 65536 * 5 / 4 + (1 << 20), "{bytes} bytes for 100 x 64 KiB");
    assert!(bed.gets() < 110, "{}", bed.gets());
}

#[test]
fn several_read_on_by_one_handle() {
    let bed = Bed::new(24 << 20);
    let reader = bed.open(&engine(1 << 30));
    let all = content(24 << 20);
    for step in 0..32usize {
        for start in [0, 8 << 20, 16 << 20] {
            let at = start + step * (256 << 10);
            assert!(read(&reader, at as u64, 256 << 10).expect("it is read") == all[at..at + (256 << 10)]);
        }
    }
    assert!(bed.gets() < 60, "{} requests for 96 reads", bed.gets());
}

#[test]
fn readers_of_one_object_share_what_they_get() {
    let bed = Bed::new(16 << 20);
    let (engine, all) = (engine(1 << 30), content(16 << 20));
    let readers: Vec<Reader> = (0..16).map(|_| bed.open(&engine)).collect();
    // Each of them a MiB, beside each other: what one has ahead is the next one's.
    std::thread::scope(|scope| {
        for (number, reader) in readers.iter().enumerate() {
            let all = &all;
            scope.spawn(move || {
                for at in (number << 20..(number + 1) << 20).step_by(128 << 10) {
                    assert!(read(reader, at as u64, 128 << 10).expect("it is read") == all[at..at + (128 << 10)]);
                }
            });
        }
    });
    let bytes = || bed.remote.client.counts.json()["bytes"].as_u64().expect("a number");
    assert!(bytes() <= 16 << 20, "{} bytes, where each is held by somebody", bytes());
    // One of them goes, and those who need what it had begun to get have it.
    let (first, second) = (&readers[0], &readers[1]);
    let (made, begun) = (bed.gets(), bytes());
    read(first, 0, 128 << 10).expect("it is read");
    read(second, 0, 128 << 10).expect("it is read");
    assert!(bed.gets() <= made + 1 && bytes() <= begun + (256 << 10), "{} requests", bed.gets() - made);
    drop(readers);
    let version = Reader::new(&engine, &bed.remote, "x".into(), &bed.meta()).0.version.clone();
    let begun = Instant::now();
    while version.parts.lock().parts.values().any(|part| part.strong_count() > 0) {
        assert!(begun.elapsed() < Duration::from_secs(20), "somebody holds it still");
        std::thread::yield_now();
    }
}

#[test]
fn one_that_goes_leaves_others_what_it_has_begun() {
    let bed = Bed::new(1 << 20);
    bed.bucket.fail(|_, answer| Answer { stall: Some((50_000, Duration::from_millis(300))), ..answer });
    let (engine, all) = (engine(1 << 30), content(1 << 20));
    let (first, second) = (bed.open(&engine), bed.open(&engine));
    let (sender, received) = std::sync::mpsc::channel();
    let given_up = first.read(0, 100_000, Box::new(|_| ()));
    let _ticket = second.read(0, 100_000, Box::new(move |read| sender.send(read).expect("it is waited for")));
    drop((given_up, first));
    let got = received.recv().expect("an answer").expect("it is read").concat();
    assert!(got == all[..100_000]);
    assert_eq!(bed.gets(), 1);
}

#[test]
fn one_that_is_replaced_never_mixes_versions() {
    for ignores in [false, true] {
        let bed = Bed::new(4 << 20);
        let reader = bed.open(&engine(1 << 30));
        read(&reader, 0, 4096).expect("it is read");
        // So that nothing of it is there already.
        reader.0.state.lock().parts.clear();
        let other: Vec<u8> = content(4 << 20).into_iter().map(|byte| !byte).collect();
        bed.bucket.put("x", other);
        if ignores {
            // As some servers do: the new one, whatever was asked for.
            let bucket = bed.bucket.clone();
            bed.bucket.fail(move |asked, answer| {
                if answer.status != 412 {
                    return answer;
                }
                let object = bucket.objects.lock()[&b"x"[..]].clone();
                let (from, to) =
                    asked.header("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-')).expect("one");
                let (from, to): (usize, usize) = (from.parse().expect("one"), to.parse().expect("one"));
                Answer { status: 206, body: object.body[from..=to].to_vec(), ..Answer::default() }
                    .header("etag", &format!("\"{}\"", object.etag))
                    .header("content-range", &format!("bytes {from}-{to}/{}", object.body.len()))
            });
        }
        let error = read(&reader, 2 << 20, 4096).expect_err("it is another one");
        assert_eq!((kind(&error), super::super::fault::errno(&error)), (FaultKind::Replaced, Some(libc::ESTALE)));
        *bed.bucket.faults.lock() = None;
        bed.bucket.put("x", content(4 << 20));
        assert!(read(&reader, 0, 4096).is_err(), "for good");
        assert!(read(&bed.open(&engine(1 << 30)), 0, 4096).is_ok(), "opened again it is what is there");
    }
}

#[test]
fn what_passes_is_waited_for() {
    let all = content(3 << 20);
    let check = |faults: fn(u64, Answer) -> Answer| {
        let bed = Bed::new(3 << 20);
        let number = AtomicU64::new(0);
        bed.bucket.fail(move |_, answer| faults(number.fetch_add(1, Ordering::Relaxed), answer));
        let reader = bed.open(&engine(1 << 30));
        for at in (0..all.len()).step_by(512 << 10) {
            assert!(read(&reader, at as u64, 512 << 10).expect("it is read") == all[at..at + (512 << 10)]);
        }
    };
    check(|number, answer| if number < 3 { Answer::text(503, "<Code>SlowDown</Code>") } else { answer });
    check(
        |number, answer| if number % 2 == 0 { Answer { cut: Some(answer.body.len() / 3), ..answer } } else { answer },
    );
    check(|number, answer| if number == 1 { Answer { cut: Some(0), ..answer } } else { answer });
    // Slow, but it comes.
    check(|number, answer| match number {
        0 => Answer { trickle: Some((16 << 10, Duration::from_millis(5))), ..answer },
        _ => answer,
    });
    check(|number, answer| if number == 0 { Answer::text(500, "") } else { answer });
}

#[test]
fn a_server_without_ranges_is_read_all_the_same() {
    let bed = Bed::new(1 << 20);
    bed.bucket.fail(|_, answer| {
        let headers = answer.headers.iter().filter(|(name, _)| name != "content-range").cloned().collect();
        Answer { status: 200, body: content(1 << 20), headers, ..answer }
    });
    let (reader, all) = (bed.open(&engine(1 << 30)), content(1 << 20));
    assert!(read(&reader, 700_000, 5000).expect("it is read") == all[700_000..705_000]);
    // Another length than was listed is another object, whatever its tag.
    bed.bucket.fail(|_, answer| Answer { status: 200, body: vec![7; 999], headers: Vec::new(), ..answer });
    let error = read(&bed.open(&engine(1 << 30)), 0, 100).expect_err("it is too short");
    assert_eq!(kind(&error), FaultKind::Replaced);
}

#[test]
fn what_does_not_pass_is_said_at_once() {
    let check = |status: u16, text: &'static str, wanted: FaultKind| {
        let bed = Bed::new(1 << 20);
        bed.bucket.fail(move |_, _| Answer::text(status, text));
        let begun = Instant::now();
        let error = read(&bed.open(&engine(1 << 30)), 0, 100).expect_err("it is refused");
        assert_eq!(kind(&error), wanted);
        assert!(begun.elapsed() < Duration::from_secs(5));
    };
    check(403, "<Code>InvalidObjectState</Code>", FaultKind::Archived);
    check(403, "<Code>AccessDenied</Code>", FaultKind::Denied);
    check(404, "<Code>NoSuchKey</Code>", FaultKind::Gone);
    check(404, "<Code>NoSuchBucket</Code>", FaultKind::NoBucket);
    check(400, "<Code>ExpiredToken</Code>", FaultKind::Expired);
    check(301, "<Code>PermanentRedirect</Code>", FaultKind::WrongRegion);
}

#[test]
fn many_readers_stay_within_the_budget() {
    let bed = Bed::new(8 << 20);
    let engine = engine(32 << 20);
    let all = content(8 << 20);
    let readers: Vec<Reader> = (0..200).map(|_| bed.open(&engine)).collect();
    for at in [0usize, 128 << 10, 256 << 10] {
        for reader in &readers {
            assert!(read(reader, at as u64, 128 << 10).expect("it is read") == all[at..at + (128 << 10)]);
            assert!(engine.memory_in_use() <= 33 << 20, "{} bytes", engine.memory_in_use());
        }
    }
    drop(readers);
    let begun = Instant::now();
    while engine.memory_in_use() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} bytes are left", engine.memory_in_use());
        std::thread::yield_now();
    }
}

#[test]
fn one_that_nobody_waits_for_is_given_up() {
    let bed = Bed::new(1 << 20);
    bed.bucket.fail(|_, answer| Answer { stall: Some((0, Duration::from_secs(3))), ..answer });
    let reader = bed.open(&engine(1 << 30));
    let called = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&called);
    let ticket = reader.read(0, 100, Box::new(move |_| seen.store(true, Ordering::Relaxed)));
    drop(ticket);
    drop(reader);
    let begun = Instant::now();
    // The closure goes with the task, uncalled.
    while Arc::strong_count(&called) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(2), "it is still waited for");
        std::thread::yield_now();
    }
    assert!(!called.load(Ordering::Relaxed));
    drop(bed.server);
}

#[test]
fn what_was_read_is_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let (all, bed) = (content(5_500_000), Bed::new(5_500_000));
    let whole = |cache: &Arc<Cache>| {
        let engine = Engine::new(1 << 30, Some(Arc::clone(cache)));
        let reader = bed.open(&engine);
        let mut got = Vec::new();
        while got.len() < all.len() {
            got.extend(read(&reader, got.len() as u64, 100_000).expect("it is read"));
        }
        assert!(got == all);
    };
    let cache = Cache::open(dir.path(), 1 << 30).expect("a cache");
    whole(&cache);
    let gets = bed.gets();
    // The last part is kept after its bytes were handed on.
    let begun = Instant::now();
    while cache.bytes() < 5_500_000 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} bytes", cache.bytes());
        std::thread::yield_now();
    }
    cache.close();
    let cache = Cache::open(dir.path(), 1 << 30).expect("a cache");
    whole(&cache);
    assert_eq!(bed.gets(), gets, "nothing is got again");
    // Another version has none of it.
    let other: Vec<u8> = all.iter().map(|byte| !byte).collect();
    bed.bucket.put("x", other.clone());
    let reader = bed.open(&Engine::new(1 << 30, Some(cache)));
    assert!(read(&reader, 0, 100_000).expect("it is read") == other[..100_000]);
}

/// For each of three who read at once: where (if anywhere but on), how much, and whether the object is opened anew before.
fn arb_reads() -> impl Strategy<Value = Vec<Vec<(Option<u64>, usize, bool)>>> {
    let read = (prop::option::of(0u64..3_000_000), 1usize..300_000, prop::bool::weighted(0.1));
    prop::collection::vec(prop::collection::vec(read, 1..10), 3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_reads_have_the_bytes_of_the_object(
        reads in arb_reads(),
        memory in prop::sample::select(vec![64u64 << 10, 1 << 20, 1 << 30]),
        cached in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let length = 2_500_000;
        let (all, bed) = (content(length), Bed::new(length));
        let number = AtomicU64::new(0);
        bed.bucket.fail(move |_: &Asked, answer| {
            let number = number.fetch_add(1, Ordering::Relaxed);
            match xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), seed) % 16 {
                0 => Answer::text(503, ""),
                1 => Answer { cut: Some(answer.body.len() / 2), ..answer },
                _ => answer,
            }
        });
        let dir = tempfile::tempdir().expect("a directory");
        let cache = cached.then(|| Cache::open(dir.path(), 3 << 20).expect("a cache"));
        let engine = Engine::new(memory, cache);
        let one = |reads: Vec<(Option<u64>, usize, bool)>| {
            let (mut reader, mut next) = (bed.open(&engine), 0);
            for (offset, size, anew) in reads {
                if anew {
                    reader = bed.open(&engine);
                }
                let at = offset.unwrap_or(next);
                next = at + size as u64;
                let got = read(&reader, at, size).map_err(|error| TestCaseError::fail(error.to_string()))?;
                let from = (at as usize).min(length);
                prop_assert!(got == all[from..(from + size).min(length)], "{} bytes at {}", size, at);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = reads.into_iter().map(|reads| scope.spawn(|| one(reads))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
    }
}
