//! A tree that changes while it is kept: whatever is told of the changes, what is known is what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;
use veinfs::automaton::Automaton;
use veinfs::config::NamedSource;
use veinfs::crawl::{Unwatched, Watching};
use veinfs::entry::RelPath;
use veinfs::live::Live;
use veinfs::pattern::Pattern;
use veinfs::pattern::compile::compile;
use veinfs::pattern::load::to_json;
use veinfs::source::Handle;
use veinfs::source::local::LocalSource;
use veinfs::update::store::Store;
use veinfs::update::{Event, KeepOptions, Keeper, Told};
use veinfs::walk::{self, Progress, Trouble, WalkOptions};
use veinfs::watch::{Change, Mode, State};

use crate::bed::ndjson;
use crate::faults::FailingSource;
use crate::generate::{CONTENTS, DIRECTORY_NAMES, FILE_NAMES, arb_case, relative};
use crate::oracle::{Name, Node, Tree, joined, lay_out};

/// A watch that the test tells for.
#[derive(Debug)]
struct TestWatch(bool);

impl Watching for TestWatch {
    fn add(&self, _dir: &Handle, _dev: u64, _path: &[u8]) -> bool {
        true
    }

    fn knows(&self, _dev: u64) -> Option<bool> {
        // As fanotify does, or as inotify.
        self.0.then_some(true)
    }

    fn tells(&self, _dev: u64) -> bool {
        false
    }

    fn remove(&self, _path: &[u8]) {}

    fn state(&self) -> State {
        let mode = if self.0 { Mode::Fanotify } else { Mode::Inotify };
        State { mode, reason: None, watches: 0, limit: None, refused: 0, lost: 0 }
    }
}

/// A tree on disk that is changed.
struct Changing {
    root: PathBuf,
    deny: Arc<Mutex<std::collections::HashSet<(u64, u64)>>>,
    automaton: Arc<Automaton>,
    patterns: Vec<Pattern>,
    /// What was not told yet: the directory, by a descriptor, so that it is told by the path that it has then.
    untold: Vec<(File, What)>,
    /// What was done, for people.
    log: Vec<String>,
    _place: tempfile::TempDir,
}

#[derive(Clone, Debug)]
enum What {
    Entry(Name, bool),
    Attributes(Name, bool),
    Content(Name),
}

impl What {
    fn text(&self) -> String {
        match self {
            What::Entry(name, true) => format!("directory {}", name.escape_ascii()),
            What::Entry(name, false) => format!("file {}", name.escape_ascii()),
            What::Attributes(name, _) => format!("attributes {}", name.escape_ascii()),
            What::Content(name) => format!("content {}", name.escape_ascii()),
        }
    }
}

/// A change of a tree; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    File(Index, Index, Index),
    Directory(Index, Index),
    Link(Index, Index, Index),
    Dangling(Index, Index, Index),
    Write(Index, Index),
    Rename(Index, Index, Index),
    Remove(Index),
    Shut(Index),
    /// What was not told is told, each `n` times, in an order of its own; 0 is never, and then it is said that some was
    /// lost.
    Tell(Vec<u8>, u64),
    /// Somebody asks to look at everything.
    Refresh,
    /// The mount ends and begins again.
    Reopen,
}

fn arb_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        6 => (index(), index(), index()).prop_map(|(a, b, c)| Step::File(a, b, c)),
        4 => (index(), index()).prop_map(|(a, b)| Step::Directory(a, b)),
        2 => (index(), index(), index()).prop_map(|(a, b, c)| Step::Link(a, b, c)),
        1 => (index(), index(), index()).prop_map(|(a, b, c)| Step::Dangling(a, b, c)),
        2 => (index(), index()).prop_map(|(a, b)| Step::Write(a, b)),
        5 => (index(), index(), index()).prop_map(|(a, b, c)| Step::Rename(a, b, c)),
        4 => index().prop_map(Step::Remove),
        1 => index().prop_map(Step::Shut),
        6 => (prop::collection::vec(prop_oneof![1 => Just(0u8), 6 => Just(1u8), 1 => Just(2u8)], 1..6), any::<u64>())
            .prop_map(|(times, seed)| Step::Tell(times, seed)),
        1 => Just(Step::Refresh),
        1 => Just(Step::Reopen),
    ]
}

impl Changing {
    fn new(tree: &Tree, patterns: Vec<Pattern>) -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let place = place.expect("a temporary directory");
        // Links that lead above the root end in directories of this test.
        let above = place.path().join("1/2/3/4/5/6");
        fs::create_dir_all(&above).expect("directories");
        let root = lay_out(tree, &above).canonicalize().expect("its path");
        let changing = Self {
            automaton: Arc::new(compile(&patterns).unwrap_or_else(|errors| panic!("{}", errors[0]))),
            root,
            deny: Arc::default(),
            patterns,
            untold: Vec::new(),
            log: Vec::new(),
            _place: place,
        };
        for path in tree.paths() {
            if matches!(tree.at(&path), Some(Node::Dir { readable: false, .. })) {
                changing.shut(&changing.root.join(OsStr::from_bytes(&joined(&path))));
            }
        }
        changing
    }

    fn shut(&self, path: &Path) {
        let meta = fs::symlink_metadata(path).expect("it is there");
        let identity = (meta.dev(), meta.ino());
        let mut deny = self.deny.lock();
        let mode = if deny.remove(&identity) { 0o755 } else { 0o700 };
        if mode == 0o700 {
            deny.insert(identity);
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    fn source(&self) -> NamedSource {
        NamedSource {
            name: b"src".as_slice().into(),
            root_name: self.root.file_name().expect("a name").as_bytes().into(),
            root: self.root.clone(),
            source: Arc::new(FailingSource { inner: LocalSource::new(&self.root), deny: Arc::clone(&self.deny) }),
        }
    }

    /// A mount without a mount point, its writer in the hands of the test.
    fn keep(&self, watch: Arc<dyn Watching>, threads: usize, index: Option<&Path>) -> (Arc<Live>, Keeper) {
        let options = WalkOptions { threads, ..WalkOptions::default() };
        let sources = vec![self.source()];
        let store = index.map(|path| {
            let identity = veinfs::update::store::identity(&sources, &options);
            let fingerprints = veinfs::update::store::fingerprints(&self.patterns, None);
            let (store, notice) = Store::open(path.into(), &identity, fingerprints).expect("an index");
            assert_eq!(notice, None);
            store
        });
        let (live, inodes) = Live::new(
            "/nowhere".into(),
            Arc::clone(&self.automaton),
            self.patterns.clone(),
            sources,
            vec![options],
            Arc::default(),
        );
        let live = Arc::new(live);
        let refreshed = Arc::clone(&live);
        let make_watch = move |_: usize, _: Sender<Event>| Arc::clone(&watch);
        let keeper = Keeper::new(
            Arc::clone(&live),
            inodes,
            &make_watch,
            store,
            KeepOptions { poll: None },
            Box::new(move |told: Told| told.tickets.iter().for_each(|ticket| refreshed.note_refreshed(*ticket))),
        );
        (live, keeper.expect("threads"))
    }

    /// All paths below the root, sorted; those of directories alone, if so asked, with the root.
    fn paths(&self, directories: bool) -> Vec<Vec<Name>> {
        fn below(at: &Path, path: &[Name], directories: bool, all: &mut Vec<Vec<Name>>) {
            let mut entries: Vec<_> = fs::read_dir(at).expect("a directory").map(|entry| entry.expect("one")).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let path = [path, &[entry.file_name().into_vec()]].concat();
                let is_dir = entry.file_type().expect("a type").is_dir();
                if is_dir || !directories {
                    all.push(path.clone());
                }
                if is_dir {
                    below(&entry.path(), &path, directories, all);
                }
            }
        }
        let mut all = if directories { vec![Vec::new()] } else { Vec::new() };
        below(&self.root, &[], directories, &mut all);
        all
    }

    fn real(&self, path: &[Name]) -> PathBuf {
        self.root.join(OsStr::from_bytes(&joined(path)))
    }

    fn event(&mut self, dir: &[Name], what: What) {
        self.log.push(format!("{} {}", joined(dir).escape_ascii(), what.text()));
        self.untold.push((File::open(self.real(dir)).expect("a directory"), what));
    }

    fn remove(&mut self, path: &[Name]) {
        let real = self.real(path);
        let (name, dir) = path.split_last().expect("not the root");
        let is_dir = fs::symlink_metadata(&real).expect("it is there").is_dir();
        if is_dir {
            let entries: Vec<Name> =
                fs::read_dir(&real).expect("a directory").map(|e| e.expect("one").file_name().into_vec()).collect();
            entries.into_iter().for_each(|name| self.remove(&[path, &[name]].concat()));
            fs::remove_dir(&real).expect("it is empty");
        } else {
            fs::remove_file(&real).expect("it is there");
        }
        self.event(dir, What::Entry(name.clone(), is_dir));
    }

    /// Changes the tree.
    fn step(&mut self, step: &Step) {
        let directories = self.paths(true);
        let all = self.paths(false);
        let free = |path: &[Name]| fs::symlink_metadata(self.real(path)).is_err() && path.len() < 7;
        match step {
            Step::File(dir, name, content) => {
                let (dir, name) = (dir.get(&directories), name.get(FILE_NAMES).to_vec());
                let path = [&dir[..], std::slice::from_ref(&name)].concat();
                let there = fs::symlink_metadata(self.real(&path)).ok();
                if there.as_ref().is_none_or(fs::Metadata::is_file) && path.len() < 7 {
                    fs::write(self.real(&path), content.get(CONTENTS)).expect("a file");
                    if there.is_none() {
                        self.event(dir, What::Entry(name.clone(), false));
                    }
                    self.event(dir, What::Content(name));
                }
            }
            Step::Directory(dir, name) => {
                let (dir, name) = (dir.get(&directories), name.get(DIRECTORY_NAMES).to_vec());
                let path = [&dir[..], std::slice::from_ref(&name)].concat();
                if free(&path) {
                    fs::create_dir(self.real(&path)).expect("a directory");
                    self.event(dir, What::Entry(name, true));
                }
            }
            Step::Link(dir, name, to) if !all.is_empty() => {
                let names = if name.index(2) == 0 { FILE_NAMES } else { DIRECTORY_NAMES };
                let (dir, name, to) = (dir.get(&directories), name.get(names).to_vec(), to.get(&all));
                self.link(dir, name, &relative(dir, to));
            }
            Step::Dangling(dir, name, to) => {
                let (dir, name) = (dir.get(&directories), name.get(FILE_NAMES).to_vec());
                let texts: &[&[u8]] = &[b"gone", b"../gone/x", b"a", b"./b", b"b/a", b"sub-01/../a", b"../a", b".."];
                let to: &&[u8] = to.get(texts);
                self.link(dir, name, to);
            }
            Step::Write(file, content) if !all.is_empty() => {
                let path = file.get(&all);
                let (name, dir) = path.split_last().expect("not the root");
                if fs::symlink_metadata(self.real(path)).expect("it is there").is_file() {
                    fs::write(self.real(path), content.get(CONTENTS)).expect("a file");
                    self.event(dir, What::Content(name.clone()));
                }
            }
            Step::Rename(from, dir, name) if !all.is_empty() => {
                let (from, dir) = (from.get(&all), dir.get(&directories));
                let names = if name.index(2) == 0 { FILE_NAMES } else { DIRECTORY_NAMES };
                let to = [&dir[..], &[name.get(names).to_vec()]].concat();
                let deepest = all.iter().filter(|path| path.starts_with(from)).map(Vec::len).max().unwrap_or(0);
                if to.len() + deepest - from.len() >= 7 || fs::rename(self.real(from), self.real(&to)).is_err() {
                    return;
                }
                let is_dir = fs::symlink_metadata(self.real(&to)).expect("it is there").is_dir();
                let (name, dir) = from.split_last().expect("not the root");
                self.event(dir, What::Entry(name.clone(), is_dir));
                let (name, dir) = to.split_last().expect("not the root");
                self.event(dir, What::Entry(name.clone(), is_dir));
            }
            Step::Remove(what) if !all.is_empty() => self.remove(&what.get(&all).clone()),
            Step::Shut(what) => {
                let path = what.get(&directories).clone();
                if let Some((name, dir)) = path.split_last() {
                    self.shut(&self.real(&path));
                    self.event(dir, What::Attributes(name.clone(), true));
                }
            }
            _ => {}
        }
    }

    fn link(&mut self, dir: &[Name], name: Name, text: &[u8]) {
        let path = [dir, std::slice::from_ref(&name)].concat();
        if fs::symlink_metadata(self.real(&path)).is_err() && path.len() < 7 {
            symlink(OsStr::from_bytes(text), self.real(&path)).expect("a link");
            self.event(dir, What::Entry(name, false));
        }
    }

    /// What a watch tells now of what happened: the directories by the paths that they have at this moment.
    fn tell(&mut self, times: &[u8], seed: u64) -> (Vec<Change>, bool) {
        let (mut changes, mut lost) = (Vec::new(), false);
        for (at, (dir, what)) in std::mem::take(&mut self.untold).into_iter().enumerate() {
            let path = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).expect("an open directory");
            let times = times[at % times.len()];
            lost |= times == 0;
            if path.as_os_str().as_bytes().ends_with(b" (deleted)") {
                continue;
            }
            let dir: Box<[u8]> = path.as_os_str().as_bytes().into();
            let change = match what {
                What::Entry(name, is_dir) => Change::Entry { dir, name: Some(name.into()), is_dir },
                What::Attributes(name, is_dir) => Change::Attributes { dir, name: Some(name.into()), is_dir },
                What::Content(name) => Change::Content { dir, name: name.into() },
            };
            (0..times).for_each(|_| changes.push(change.clone()));
        }
        // Fisher and Yates' shuffle by a linear congruential generator.
        let mut state = seed;
        for at in (1..changes.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            changes.swap(at, (state >> 33) as usize % (at + 1));
        }
        (changes, lost)
    }

    /// What a fresh walk finds, and what it cannot decide.
    fn walk(&self) -> (Vec<walk::Found>, BTreeSet<(u32, Vec<u8>)>) {
        let (found, undecided) = (Mutex::new(Vec::new()), Mutex::new(BTreeSet::new()));
        let report = |event| match event {
            walk::Event::Match(one) => found.lock().push(one),
            walk::Event::Trouble(Trouble::Undecided { pattern, path }) => {
                undecided.lock().insert((pattern.0, path.as_bytes().to_vec()));
            }
            walk::Event::Trouble(_) => {}
        };
        let NamedSource { source, root_name, .. } = self.source();
        let options = WalkOptions { threads: 1, ..WalkOptions::default() };
        walk::walk(&self.automaton, &*source, &root_name, &options, &Progress::default(), &report).expect("a root");
        let mut found = found.into_inner();
        found.sort_by(|a, b| (a.pattern, &a.path).cmp(&(b.pattern, &b.path)));
        (found, undecided.into_inner())
    }
}

/// What a mount shows: what was found, and what it is called.
type Shown = BTreeMap<(u32, RelPath), (walk::Found, Vec<Box<[u8]>>)>;

fn shown(live: &Live) -> Shown {
    let places = live.view().sorted();
    places.iter().map(|p| ((p.found.pattern.0, p.found.path.clone()), (p.found.clone(), p.view.clone()))).collect()
}

fn errors(live: &Live) -> BTreeSet<String> {
    ndjson(&live.errors_ndjson()).iter().map(Value::to_string).collect()
}

/// Everything that a fresh mount would show is shown, and nothing else.
fn check(changing: &Changing, live: &Live) -> Result<Shown, TestCaseError> {
    let shown = shown(live);
    let (found, undecided) = changing.walk();
    let ours: Vec<walk::Found> = shown.values().map(|(found, _)| found.clone()).collect();
    prop_assert_eq!(ours, found);
    let held = changing.patterns.iter().any(|pattern| pattern.prune || pattern.root.opaque);
    let ours: Vec<Value> =
        ndjson(&live.errors_ndjson()).into_iter().filter(|error| error["kind"] == "undecided").collect();
    prop_assert!(held || ours.len() == undecided.len(), "{:?} undecided, expected {:?}", ours, undecided);
    let (fresh, mut keeper) = changing.keep(Arc::new(Unwatched), 1, None);
    keeper.begin();
    keeper.settle();
    prop_assert_eq!(errors(live), errors(&fresh));
    let names: BTreeSet<_> = shown.iter().map(|((pattern, _), (_, view))| (*pattern, view.clone())).collect();
    prop_assert_eq!(names.len(), shown.len(), "two matches of one name");
    // The folders hold just these.
    let view = live.view();
    let in_folders: usize = view
        .folders
        .values()
        .flat_map(|folder| folder.entries.iter().map(|entry| &entry.value).collect::<Vec<_>>())
        .filter(|item| matches!(item, veinfs::view::Item::Match(_)))
        .count();
    prop_assert_eq!((in_folders, view.counts.iter().sum::<u64>() as usize), (shown.len(), shown.len()));
    Ok(shown)
}

/// Who lives keeps its name.
fn check_names(before: &Shown, now: &Shown) -> Result<(), TestCaseError> {
    for (key, (_, view)) in now {
        if let Some((_, known)) = before.get(key) {
            prop_assert_eq!(known, view, "{:?} is called otherwise", key);
        }
    }
    Ok(())
}

fn run(tree: &Tree, patterns: Vec<Pattern>, steps: &[Step], how: u8) -> Result<(), TestCaseError> {
    let mut changing = Changing::new(tree, patterns);
    run_on(&mut changing, steps, how).map_err(|error| {
        let patterns: Vec<String> = changing.patterns.iter().map(|pattern| to_json(pattern).to_string()).collect();
        let paths: Vec<String> = tree.paths().iter().map(|p| joined(p).escape_ascii().to_string()).collect();
        TestCaseError::fail(format!("{error}\n{paths:?}\n{}\n{}", patterns.join("\n"), changing.log.join("\n")))
    })
}

fn run_on(changing: &mut Changing, steps: &[Step], how: u8) -> Result<(), TestCaseError> {
    let index = changing._place.path().join("index.redb");
    let threads = if how & 1 == 0 { 1 } else { 3 };
    let open = |changing: &Changing| {
        let watch: Arc<dyn Watching> = Arc::new(TestWatch(how & 2 == 0));
        changing.keep(watch, threads, Some(&index))
    };
    let (mut live, mut keeper) = open(changing);
    keeper.begin();
    keeper.settle();
    let mut last = check(changing, &live)?;
    for step in steps {
        match step {
            Step::Tell(times, seed) => {
                let (changes, lost) = changing.tell(times, *seed);
                changing.log.push(format!("-- told {}, lost {lost}", changes.len()));
                let sender = keeper.sender(0);
                let send = |changes| sender.send(Event::Told { changes }).expect("a receiver");
                send(changes);
                if lost {
                    send(vec![Change::Lost]);
                }
                keeper.settle();
                let now = check(changing, &live)?;
                check_names(&last, &now)?;
                last = now;
            }
            Step::Refresh => {
                changing.untold.clear();
                changing.log.push("-- refresh".into());
                let ticket = live.refresh(None).expect("a writer");
                keeper.settle();
                prop_assert!(!live.is_refreshing(ticket));
                let now = check(changing, &live)?;
                check_names(&last, &now)?;
                last = now;
            }
            Step::Reopen => {
                keeper.close();
                changing.untold.clear();
                changing.log.push("-- reopened".into());
                (live, keeper) = open(changing);
                keeper.begin();
                keeper.settle();
                let now = check(changing, &live)?;
                check_names(&last, &now)?;
                last = now;
            }
            step => changing.step(step),
        }
    }
    Ok(())
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 1000;
    }
    config.failure_persistence = Some(Box::new(FileFailurePersistence::WithSource("regressions")));
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_kept_is_what_is_there(
        ((tree, patterns), steps, how) in (arb_case(), prop::collection::vec(arb_step(), 1..40), 0u8..4)
    ) {
        let mut steps = steps;
        steps.push(Step::Tell(vec![1], 1));
        run(&tree, patterns, &steps, how)?;
    }
}
