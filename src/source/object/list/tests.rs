use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Instant, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::source::object::connect::runtime;
use crate::source::object::count::Purpose;
use crate::source::object::snapshot::{About, Snapshot};
use crate::source::object::testing::{Answer, Bucket, Server};

struct Listed {
    snapshot: Arc<Snapshot>,
    left: Left,
    requests: u64,
}

fn listed(server: &Server, location: &str, scope: &Scope) -> Result<Listed, Fault> {
    let client = Client::of_server_as(&server.url(), location);
    let (writer, left) = (Writer::new(None).expect("a file"), Left::default());
    let location = Location::parse(location).expect("a location");
    let cancelled = AtomicBool::new(false);
    runtime().block_on(list(&client, &location, scope, (&writer, &left), &cancelled))?;
    let about =
        About { location: Box::default(), listed: SystemTime::now(), left_out: left.count(), named: left.named() };
    let snapshot = Arc::new(writer.finish(about).expect("written"));
    Ok(Listed { snapshot, left, requests: client.counts.of(Purpose::List) })
}

fn keys(snapshot: &Arc<Snapshot>) -> Vec<Vec<u8>> {
    let mut cursor = snapshot.seek(b"").expect("it can be read");
    let mut keys = Vec::new();
    while let Some(key) = cursor.key() {
        keys.push(key.to_vec());
        cursor.advance().expect("it can be read");
    }
    keys
}

fn bucket(keys: impl IntoIterator<Item = Vec<u8>>, page: usize) -> Bucket {
    let bucket = Bucket { page, ..Bucket::default() };
    keys.into_iter().for_each(|key| bucket.put(&key, key.clone()));
    bucket
}

#[test]
fn odd_keys_spoil_nothing() {
    let all = [
        "p/a",
        "p/a//b",
        "p/",
        "p//",
        "p/x",
        "p/x-1",
        "p/x/y",
        "p/d/",
        "p/e/",
        "p/e/f",
        "p/../g",
        "p/ü +%41&<",
        "q/z",
        "p",
    ];
    let bucket = bucket(all.iter().map(|key| key.as_bytes().to_vec()), 3);
    bucket.put("p/d/", "not empty");
    let listed = listed(&bucket.serve(), "s3://b/p", &Scope::default()).expect("it is listed");
    let found: Vec<String> =
        keys(&listed.snapshot).into_iter().map(|key| String::from_utf8(key).expect("text")).collect();
    assert_eq!(found, ["a", "d/", "e/", "e/f", "x", "x-1", "x/y", "ü +%41&<"]);
    let left: Vec<String> = listed
        .left
        .named()
        .iter()
        .map(|left| format!("{} {}", String::from_utf8_lossy(&left.key), left.reason))
        .collect();
    assert_eq!(listed.left.count() as usize, left.len());
    for part in ["../g a name that", "/ an empty name", "a//b an empty name", "x a directory of the same name"] {
        assert!(left.iter().any(|left| left.starts_with(part)), "{part}: {left:?}");
    }
    let meta = listed.snapshot.get(b"a").expect("it can be read").expect("it is there");
    assert_eq!((meta.size, meta.modified), (3, (1_795_688_430, 500_000_000)));
    assert_eq!(meta.etag.as_deref().map(str::len), Some(32));
}

#[test]
fn many_keys_in_ranges() {
    let names = (0..20_000).map(|n| format!("runs/2026/run-{n:05}/data.csv").into_bytes());
    let all: Vec<Vec<u8>> = names.collect();
    let bucket = bucket(all.clone(), 100);
    let server = bucket.serve();
    let listed = listed(&server, "s3://b", &Scope::default()).expect("it is listed");
    assert_eq!(keys(&listed.snapshot), all);
    // 200 pages, and some more that ranges cost.
    assert!(listed.requests < 300, "{} requests", listed.requests);
    let split = bucket.requests(|asked| asked.param("start-after").is_some());
    assert!(split > 20, "{split} ranges");
}

#[test]
fn many_keys_by_their_names() {
    let names = (0..400).flat_map(|run| (0..50).map(move |n| format!("p/runs/run-{run:03}/{n:02}.csv").into_bytes()));
    let all: Vec<Vec<u8>> = names.collect();
    let bucket = bucket(all.clone(), 100);
    let server = bucket.serve();
    let listed = listed(&server, "abfss://b@account.dfs.core.windows.net/p", &Scope::default()).expect("it is listed");
    assert!(keys(&listed.snapshot).iter().zip(&all).all(|(key, all)| *key == all[2..]));
    assert_eq!(listed.snapshot.records(), 20_000);
    // 200 pages, and some more that splitting costs.
    assert!(listed.requests < 300, "{} requests", listed.requests);
    let split = bucket.requests(|asked| asked.param("prefix").is_some_and(|prefix| prefix.starts_with("p/runs/run-")));
    assert!(split > 20, "{split} ranges");
}

#[test]
fn a_level_of_many_names_is_not_listed_twice() {
    let all: Vec<Vec<u8>> = (0..20_000).map(|n| format!("img-{n:05}.png").into_bytes()).collect();
    let bucket = bucket(all.clone(), 100);
    let listed = listed(&bucket.serve(), "abfss://b@account.dfs.core.windows.net", &Scope::default());
    let listed = listed.expect("it is listed");
    assert_eq!(keys(&listed.snapshot), all);
    // Its names are as many pages as it is itself.
    assert!(listed.requests < 260, "{} requests for 200 pages", listed.requests);
}

#[test]
fn another_order_loses_nothing() {
    // All of the directory comes first, though `-` is before `/`: a range that ended in it would never see the other one.
    let all: BTreeSet<Vec<u8>> = (0..2000)
        .map(|n| format!("a/{:02}/{n:04}", n / 100))
        .chain(["a-b/x".to_owned()])
        .map(String::into_bytes)
        .collect();
    let bucket = Bucket { slash_first: true, ..bucket(all.clone(), 50) };
    let found = listed(&bucket.serve(), "abfss://b@account.dfs.core.windows.net", &Scope::default());
    assert_eq!(keys(&found.expect("it is listed").snapshot), all.into_iter().collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_is_told() {
    let kind = |answer: fn() -> Answer| {
        let server = Server::start(move |_| answer());
        let fault = listed(&server, "s3://b/p", &Scope::default()).err().expect("it is no listing");
        fault.kind
    };
    assert_eq!(kind(|| Answer::text(404, "<Code>NoSuchBucket</Code>")), FaultKind::NoBucket);
    assert_eq!(kind(|| Answer::text(403, "<Code>AccessDenied</Code>")), FaultKind::Denied);
    assert_eq!(kind(|| Answer::text(200, "<html>")), FaultKind::Refused);
    assert_eq!(kind(|| Answer::text(200, "<ListBucketResult></ListBucketResult>")), FaultKind::NoBucket);
    let empty = Server::start(|_| Answer::text(200, "<ListBucketResult></ListBucketResult>"));
    let none = listed(&empty, "s3://b", &Scope::default()).expect("an empty bucket is one");
    assert_eq!(none.snapshot.records(), 0);
}

#[test]
fn whoever_does_not_wait_is_not_kept() {
    let server = Server::start(|_| Answer::text(503, ""));
    let client = Client::of_server(&server.url());
    let (writer, left) = (Writer::new(None).expect("a file"), Left::default());
    let location = Location::parse("s3://b/p").expect("a location");
    let cancelled = AtomicBool::new(false);
    let scope = Scope::default();
    std::thread::scope(|threads| {
        let listing =
            threads.spawn(|| runtime().block_on(list(&client, &location, &scope, (&writer, &left), &cancelled)));
        while client.counts.of(Purpose::List) == 0 {
            std::thread::yield_now();
        }
        let begun = Instant::now();
        cancelled.store(true, Ordering::Relaxed);
        let fault = listing.join().expect("no panic").expect_err("it is given up");
        assert_eq!(fault.kind, FaultKind::Cancelled);
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_server_without_order_is_sorted() {
    let all: BTreeMap<usize, Vec<u8>> = (0..250).map(|n| (n, format!("k{:03}", (n * 77) % 250).into_bytes())).collect();
    let pages = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        pages.fetch_add(1, Ordering::Relaxed);
        let from: usize = asked.param("continuation-token").and_then(|token| token.parse().ok()).unwrap_or(0);
        let mut text = "<ListBucketResult>".to_owned();
        for key in all.values().skip(from).take(50) {
            text.push_str(&format!("<Contents><Key>{}</Key><Size>1</Size></Contents>", String::from_utf8_lossy(key)));
        }
        if from + 50 < all.len() {
            text.push_str(&format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
                from + 50
            ));
        }
        Answer::text(200, &(text + "</ListBucketResult>"))
    });
    let found = listed(&server, "s3://b", &Scope::default()).expect("it is listed");
    let wanted: Vec<Vec<u8>> = (0..250).map(|n| format!("k{n:03}").into_bytes()).collect();
    assert_eq!(keys(&found.snapshot), wanted);
}

#[test]
fn what_is_shut_is_passed_over() {
    let deep = (0..5000).map(|n| format!("a/tmp/{n:05}"));
    let all = deep.chain(["a/b", "a/z", "c/d"].map(str::to_owned)).map(String::into_bytes);
    let bucket = bucket(all, 100);
    let scope = Scope { max_depth: None, excluded: Some(Box::new(|dir| dir.ends_with(b"tmp"))) };
    let found = listed(&bucket.serve(), "s3://b", &scope).expect("it is listed");
    let keys: Vec<String> =
        keys(&found.snapshot).into_iter().map(|key| String::from_utf8(key).expect("text")).collect();
    let others: Vec<&str> = keys.iter().map(String::as_str).filter(|key| !key.starts_with("a/tmp/")).collect();
    assert_eq!(others, ["a/b", "a/z", "c/d"]);
    // It is there, with some of what is in it.
    assert!((1..16).contains(&(keys.len() - 3)), "{keys:?}");
    assert!(found.requests < 20, "{} requests", found.requests);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges_have_all_keys_once(
        names in prop::collection::btree_set(prop::collection::vec(prop::sample::select(b"/-05ZazM".to_vec()), 1..7), 0..160),
        page in 1usize..9,
        location in prop::sample::select(vec!["s3://b", "abfss://b@account.dfs.core.windows.net"]),
        slash_first in any::<bool>(),
        faults in any::<u64>(),
    ) {
        let bucket = Bucket { slash_first, ..bucket(names.clone(), page) };
        let tries = AtomicUsize::new(0);
        // About one in eight fails, in one way or another.
        bucket.fail(move |_, answer| {
            let number = tries.fetch_add(1, Ordering::Relaxed) as u64;
            match xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), faults) % 24 {
                0 => Answer::text(503, "<Code>SlowDown</Code>"),
                1 => Answer { cut: Some(answer.body.len() / 2), ..answer },
                2 => Answer::text(500, ""),
                _ => answer,
            }
        });
        let found = listed(&bucket.serve(), location, &Scope::default()).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        let wanted: BTreeSet<Vec<u8>> =
            names.into_iter().filter(|key| super::super::keys::fault(key).is_none() && key != b"/").collect();
        prop_assert_eq!(keys(&found.snapshot), wanted.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_middle_is_between(from in "[ -~ü]{0,5}", to in proptest::option::of("[ -~ü]{1,5}")) {
        let found = middle(from.as_bytes(), to.as_ref().map(String::as_bytes));
        if let Some(middle) = found {
            prop_assert!(*middle > *from.as_bytes());
            prop_assert!(to.is_none_or(|to| *middle < *to.as_bytes()));
            prop_assert!(std::str::from_utf8(&middle).is_ok());
        }
    }
}
