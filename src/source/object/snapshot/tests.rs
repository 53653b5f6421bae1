use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, Meta>;

fn meta(size: u64, etag: Option<&str>) -> Meta {
    Meta { size, modified: (1_700_000_000 - size as i64, 5), etag: etag.map(Into::into), ..Meta::default() }
}

fn about() -> About {
    let one = |key: &[u8], reason: &'static str| LeftOut { key: key.into(), reason: reason.into() };
    About {
        location: (*b"memory://m").into(),
        listed: SystemTime::UNIX_EPOCH + Duration::from_secs(9),
        left_out: 3,
        named: vec![one(b"a//b", "an empty name"), one(b"\xff\0", "a NUL in its name")],
    }
}

/// One snapshot of all, written in runs that begin at `bounds`, the last one first.
fn write(model: &Model, bounds: &[Vec<u8>], path: Option<&Path>) -> Arc<Snapshot> {
    let writer = Writer::new(path).expect("a file");
    let mut bounds = bounds.to_vec();
    bounds.push(Vec::new());
    bounds.sort_unstable();
    bounds.dedup();
    let mut end: Option<&Vec<u8>> = None;
    for from in bounds.iter().rev() {
        let mut run = writer.run();
        for (key, meta) in model.range(from.clone()..).take_while(|(key, _)| end.is_none_or(|end| *key < end)) {
            run.push(key, meta).expect("in order");
        }
        run.finish().expect("written");
        end = Some(from);
    }
    Arc::new(writer.finish(about()).expect("written"))
}

fn all(snapshot: &Arc<Snapshot>, from: &[u8]) -> Vec<(Vec<u8>, Meta)> {
    let mut cursor = snapshot.seek(from).expect("a cursor");
    let mut found = Vec::new();
    while let Some(key) = cursor.key() {
        found.push((key.to_vec(), cursor.meta().expect("sound").expect("there").to_meta()));
        cursor.advance().expect("sound");
    }
    found
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![Just("a"), Just("b"), Just("a-b"), Just("run"), Just("x.csv"), Just("é"), Just("a!")];
    (prop::collection::vec(part, 1..4), any::<bool>()).prop_map(|(parts, marker)| {
        let mut key = parts.join("/").into_bytes();
        if marker && parts.len() > 1 {
            key.push(b'/');
        }
        key
    })
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let etag = prop_oneof![
        Just(None),
        Just(Some("d41d8cd98f00b204e9800998ecf8427e".into())),
        Just(Some("D41D8CD98F00B204E9800998ECF8427E".into())),
        Just(Some("W/\"7\"".into())),
    ];
    let text = || prop_oneof![Just(None), Just(Some("GLACIER".into()))];
    (any::<u64>(), any::<i64>(), 0..1_000_000_000u32, etag, text(), text()).prop_map(
        |(size, seconds, nanos, etag, version, class)| {
            let size = size >> 12;
            Meta { marker: size % 7 == 0, size, modified: (seconds, nanos), etag, version, class }
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(key(), any_meta(), 0..60)
}

proptest! {
    #[test]
    fn what_was_written_is_read(model in model(), bounds in prop::collection::vec(key(), 0..3), from in key()) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("listing");
        let written = write(&model, &bounds, Some(&path));
        let opened = Arc::new(Snapshot::open(&path).expect("sound"));
        for snapshot in [written, opened] {
            prop_assert_eq!(snapshot.records(), model.len() as u64);
            prop_assert_eq!(snapshot.about(), &about());
            let wanted: Vec<_> = model.range(from.clone()..).map(|(k, m)| (k.clone(), m.clone())).collect();
            prop_assert_eq!(all(&snapshot, &from), wanted);
            prop_assert_eq!(snapshot.get(&from).expect("sound"), model.get(&from).cloned());
        }
    }

    #[test]
    fn differences_lead_from_one_to_the_other(old in model(), new in model()) {
        let (before, now) = (write(&old, &[], None), write(&new, &[], None));
        let found = compare(&before, &now, 1 << 20).expect("sound").expect("few");
        // All that is below a directory which came or went, and all that is named, is as in the new one; all else is
        // the same in both.
        let told = |key: &[u8]| found.iter().any(|difference| match difference {
            Difference::Entry { dir, name, is_dir } => {
                let mut path = [&**dir, if dir.is_empty() { b"" } else { b"/" }, &**name].concat();
                if *is_dir { path.push(b'/'); key.starts_with(&path) } else { key == path }
            }
            Difference::Content { dir, name } => key == [&**dir, if dir.is_empty() { b"" } else { b"/" }, &**name].concat(),
        });
        for key in old.keys().chain(new.keys()) {
            let differs = old.get(key) != new.get(key);
            let marker = key.ends_with(b"/");
            if !marker {
                prop_assert_eq!(told(key), differs, "{}", String::from_utf8_lossy(key));
            }
        }
        let dirs = |model: &Model| -> std::collections::BTreeSet<Vec<u8>> {
            let ends = |key: &Vec<u8>| key.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| key[..at].to_vec()).collect::<Vec<_>>();
            model.keys().flat_map(ends).collect()
        };
        for dir in dirs(&old).symmetric_difference(&dirs(&new)) {
            prop_assert!(told(&[&dir[..], b"/"].concat()), "{}", String::from_utf8_lossy(dir));
        }
        prop_assert!(compare(&before, &before, 0).expect("sound").expect("none").is_empty());
    }
}

#[test]
fn many_blocks_are_searched() {
    let model: Model = (0..20_000u64)
        .map(|n| (format!("runs/{:05}/data-{n}.csv", n / 7).into_bytes(), meta(n, Some(&format!("{n:032x}")))))
        .collect();
    let snapshot = write(&model, &[b"runs/01".to_vec(), b"runs/005".to_vec()], None);
    assert!(snapshot.blocks.len() > 20, "{}", snapshot.blocks.len());
    for (key, meta) in model.iter().step_by(97) {
        assert_eq!(snapshot.get(key).expect("sound").as_ref(), Some(meta));
        assert_eq!(snapshot.get(&key[..key.len() - 1]).expect("sound"), None);
    }
    assert_eq!(all(&snapshot, b"").len(), model.len());
    assert_eq!(all(&snapshot, b"z").len(), 0);
}

#[test]
fn a_damaged_file_is_none() {
    let model: Model = (0..2000u64).map(|n| (format!("{n:05}").into_bytes(), meta(n, None))).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("listing");
    write(&model, &[], Some(&path));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1, "no other file is left");
    let sound = std::fs::read(&path).expect("a file");
    let mut wrong = 0;
    for at in (0..sound.len()).step_by(13).chain([sound.len() - 1, 9]) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&path, &bytes).expect("written");
        let read = Snapshot::open(&path).map(Arc::new).and_then(|snapshot| {
            let mut cursor = snapshot.seek(b"")?;
            let mut found = Model::new();
            while let Some(key) = cursor.key() {
                found.insert(key.to_vec(), cursor.meta()?.expect("there").to_meta());
                cursor.advance()?;
            }
            Ok(found)
        });
        match read {
            Ok(read) => assert_eq!(read, model, "byte {at}"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
                wrong += 1;
            }
        }
    }
    assert!(wrong > 1000, "{wrong}");
    for length in [0, 11, 40, sound.len() / 2, sound.len() - 1] {
        std::fs::write(&path, &sound[..length]).expect("written");
        assert!(Snapshot::open(&path).is_err(), "{length}");
    }
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let writer = Writer::new(Some(&dir.path().join("listing"))).expect("a file");
    let mut run = writer.run();
    run.push(b"b", &meta(1, None)).expect("first");
    let error = run.push(b"b", &meta(1, None)).expect_err("twice");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    drop(run);
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
}
