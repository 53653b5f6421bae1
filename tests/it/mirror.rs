//! The view as a mirror: every entry has the bytes and attributes of its source.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use crate::bed::{TestBed, can_mount, lay_out, ndjson};

/// A small generator (xorshift64*), so that a seed stands for the same tree everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// A random tree, in which some directories are runs: `data.csv`, `config.yaml` and `raw/` with `*.csv`.
pub(crate) struct Grower {
    random: Random,
    root: PathBuf,
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    is_root: bool,
}

impl Grower {
    pub(crate) fn grow(seed: u64, root: &Path) {
        let is_root = rustix::process::geteuid().is_root();
        let random = Random::new(seed);
        let mut grower = Grower { random, root: root.into(), files: Vec::new(), dirs: Vec::new(), is_root };
        grower.dir(root.to_path_buf(), 0);
        for run in 0..2 {
            let run = root.join(format!("run{run}"));
            fs::create_dir_all(run.join("raw")).expect("a directory");
            for name in ["data.csv", "config.yaml", "README.md", "notes.txt", "other.bin", "raw/1.csv", "raw/x.bin"] {
                grower.file(run.join(name));
            }
        }
        grower.links();
        grower.attributes();
    }

    fn name(&mut self, number: u64) -> OsString {
        let kind = self.random.below(6);
        let stem = match kind {
            0 => b".hidden ".to_vec(),
            1 => "Größe 日本".as_bytes().to_vec(),
            2 => b"wrong \xff\xc3(".to_vec(),
            3 => b"a\tb\nc\\".to_vec(),
            _ => b"plain".to_vec(),
        };
        OsString::from_vec([stem, number.to_string().into_bytes()].concat())
    }

    fn dir(&mut self, at: PathBuf, depth: u32) {
        for number in 0..self.random.below(6) {
            let name = self.name(number);
            self.file(at.join(name));
        }
        if depth < 4 {
            for number in 10..10 + self.random.below(4) {
                let below = at.join(self.name(number));
                fs::create_dir(&below).expect("a directory");
                self.dir(below, depth + 1);
            }
        }
        self.dirs.push(at);
    }

    fn file(&mut self, at: PathBuf) {
        let sizes = [0, 1, 7, 4095, 4096, 4097, 50_000, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 1_500_000];
        let size = self.random.of(&sizes);
        let file = File::create(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
        if self.random.below(5) == 0 {
            // Sparse: a hole, some bytes, a hole.
            file.set_len(3 << 20).expect("a length");
            let bytes = self.random.bytes(5000);
            file.write_all_at(&bytes, 1 << 20).expect("some bytes");
        } else {
            file.write_all_at(&self.random.bytes(size), 0).expect("some bytes");
        }
        self.files.push(at);
    }

    fn links(&mut self) {
        for number in 0..6u64 {
            let dir = self.random.below(self.dirs.len() as u64) as usize;
            let file = self.random.below(self.files.len() as u64) as usize;
            let (dir, file) = (self.dirs[dir].clone(), self.files[file].clone());
            fs::hard_link(&file, dir.join(format!("hard{number}"))).expect("a hard link");
            symlink(&file, dir.join(format!("absolute{number}"))).expect("a link");
            let depth = dir.strip_prefix(&self.root).expect("below the root").components().count();
            let up = "../".repeat(depth);
            let relative = Path::new(&up).join(file.strip_prefix(&self.root).expect("below the root"));
            symlink(relative, dir.join(format!("relative{number}"))).expect("a link");
            symlink(format!("{up}nowhere"), dir.join(format!("dangling{number}"))).expect("a link");
        }
        let deepest = self.dirs.first().expect("the root at least").clone();
        if deepest != self.root {
            symlink("..", deepest.join("up")).expect("a link");
        }
        symlink("self", deepest.join("self")).expect("a link");
        symlink(self.root.join("run0/raw"), deepest.join("to-dir")).expect("a link");
        lay_out(&deepest, &["fifo|"]);
        std::os::unix::net::UnixListener::bind(self.root.join("run0/socket")).expect("a socket");
        if self.is_root {
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(CWD, self.root.join("run1/null"), FileType::CharacterDevice, Mode::RUSR, device)
                .expect("a device");
        }
    }

    fn attributes(&mut self) {
        // Directories last, from the bottom up: what is made in them changes their times.
        let all: Vec<(PathBuf, bool)> =
            self.files.iter().map(|f| (f.clone(), false)).chain(self.dirs.iter().map(|d| (d.clone(), true))).collect();
        for (path, is_dir) in all {
            for number in 0..self.random.below(3) {
                let length = self.random.of(&[0, 1, 20, 900]);
                let value = self.random.bytes(length);
                rustix::fs::setxattr(&path, format!("user.number{number}"), &value, XattrFlags::empty())
                    .expect("an xattr");
            }
            if self.is_root {
                let owner = self.random.of(&[0, 1000, 65534, 70_000]);
                std::os::unix::fs::chown(&path, Some(owner), Some(self.random.of(&[0, 100, 65534]))).expect("an owner");
            }
            // Root reads whatever the mode says.
            let mode = match (is_dir, self.is_root) {
                (true, true) => self.random.of(&[0o755, 0o700, 0o2775, 0o1777, 0o555, 0o000]),
                (false, true) => self.random.of(&[0o644, 0o600, 0o4755, 0o2711, 0o444, 0o000, 0o777]),
                (true, false) => self.random.of(&[0o755, 0o700, 0o1777]),
                (false, false) => self.random.of(&[0o644, 0o600, 0o755, 0o444]),
            };
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
            let mut time = || Timespec {
                tv_sec: self.random.of(&[-2_000_000_000, -86_401, -1, 0, 1, 1_700_000_000, 4_000_000_000]),
                tv_nsec: self.random.of(&[0, 1, 250_000_000, 999_999_999]),
            };
            let times = Timestamps { last_access: time(), last_modification: time() };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).expect("times");
        }
    }
}

/// Holds a view against what it shows.
struct Mirror<'a> {
    /// The root of the source.
    source: &'a Path,
    /// The pattern's name.
    pattern: &'a str,
    /// Each file in the view: inode number → that of the source and back.
    inodes: BTreeMap<u64, (u64, u64)>,
    back: BTreeMap<(u64, u64), u64>,
    seen: usize,
}

impl Mirror<'_> {
    /// Compares a directory and what is below; `above` holds the identities of real directories on the way.
    fn compare(&mut self, view: &Path, real: &Path, above: &mut Vec<(u64, u64)>, shown: &dyn Fn(&Path) -> bool) {
        self.entry(view, real, &fs::metadata(real).expect("a directory"));
        let meta = fs::metadata(real).expect("a directory");
        above.push((meta.dev(), meta.ino()));
        let list = |dir: &Path| -> BTreeMap<OsString, u64> {
            let dir = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
            rustix::fs::Dir::read_from(dir)
                .expect("a directory")
                .map(|entry| entry.expect("an entry"))
                .map(|entry| (OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(), entry.ino()))
                .collect()
        };
        let (in_view, in_source) = (list(view), list(real));
        let wanted: Vec<&OsString> =
            in_source.keys().filter(|name| *name == "." || *name == ".." || shown(&real.join(name))).collect();
        assert_eq!(in_view.keys().collect::<Vec<_>>(), wanted, "{}", view.display());
        for (name, d_ino) in &in_view {
            let (view, real) = (view.join(name), real.join(name));
            let meta = fs::symlink_metadata(&view).unwrap_or_else(|e| panic!("{}: {e}", view.display()));
            assert_eq!(meta.ino(), *d_ino, "d_ino of {}", view.display());
            if name == "." || name == ".." {
                continue;
            }
            let own = fs::symlink_metadata(&real).expect("an entry");
            let target = fs::metadata(&real).ok().filter(|target| {
                let back = own.is_symlink() && target.is_dir() && above.contains(&(target.dev(), target.ino()));
                !back && (target.is_dir() || target.is_file() || !own.is_symlink())
            });
            match target {
                Some(target) if target.is_dir() => self.compare(&view, &real, above, shown),
                Some(target) => self.entry(&view, &real, &target),
                None => self.link(&view, &real, &own),
            }
        }
        above.pop();
    }

    fn link(&mut self, view: &Path, real: &Path, own: &Metadata) {
        let meta = fs::symlink_metadata(view).expect("an entry");
        assert!(meta.is_symlink(), "{}", view.display());
        let text = fs::read_link(real).expect("a link");
        let absolute = real.parent().expect("a parent").join(&text);
        let shown = fs::read_link(view).expect("a link");
        assert_eq!(shown, absolute, "{}", view.display());
        assert_eq!(meta.len(), shown.as_os_str().len() as u64, "a link is as long as its text: {}", view.display());
        assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (own.uid(), own.gid(), own.mtime()), "{}", view.display());
        self.seen += 1;
    }

    fn entry(&mut self, view: &Path, real: &Path, wanted: &Metadata) {
        let meta = fs::symlink_metadata(view).unwrap_or_else(|e| panic!("{}: {e}", view.display()));
        let common = |m: &Metadata| {
            let times = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
            (m.mode(), (m.uid(), m.gid()), times, (m.size(), m.blocks()), m.rdev())
        };
        assert_eq!(common(&meta), common(wanted), "{}", view.display());
        let mut first = true;
        if wanted.is_dir() {
            assert_eq!(meta.nlink(), 1, "{}", view.display());
        } else {
            assert_eq!(meta.nlink(), wanted.nlink(), "{}", view.display());
            first = !self.back.contains_key(&(wanted.dev(), wanted.ino()));
            let (ino, identity) = (meta.ino(), (wanted.dev(), wanted.ino()));
            assert_eq!(*self.inodes.entry(ino).or_insert(identity), identity, "two files of one inode number");
            assert_eq!(*self.back.entry(identity).or_insert(ino), ino, "one file, one inode: {}", view.display());
        }
        if wanted.is_file() {
            if first {
                // Reading moves it on.
                let atime = |meta: &Metadata| (meta.atime(), meta.atime_nsec());
                assert_eq!(atime(&meta), atime(wanted), "{}", view.display());
            }
            let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(read(view) == read(real), "{}", view.display());
        }
        if wanted.is_file() || wanted.is_dir() {
            self.xattrs(view, real);
        } else {
            assert!(!wanted.file_type().is_char_device() || meta.file_type().is_char_device());
        }
        self.seen += 1;
    }

    fn xattrs(&self, view: &Path, real: &Path) {
        let (mut shown, own) = (xattrs(view), xattrs(real));
        // Of a file with several names, that by which it was looked up last.
        let source = PathBuf::from(OsString::from_vec(shown.remove("user.veinfs.source").unwrap_or_default()));
        let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).expect("a source");
        assert_eq!(identity(&source), identity(real), "{}", view.display());
        assert!(source == real || real.is_file(), "{}", view.display());
        assert!(source.starts_with(self.source));
        assert_eq!(shown.remove("user.veinfs.pattern").unwrap_or_default(), self.pattern.as_bytes());
        let captures = shown.remove("user.veinfs.captures").unwrap_or_default();
        assert_eq!(ndjson(&captures), [serde_json::json!({})]);
        assert!(shown == own, "{}: {:?}, {:?}", view.display(), shown.keys(), own.keys());
    }
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::listxattr(path, &mut names[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut values = BTreeMap::new();
    for name in names {
        let name = CString::new(name).expect("no NUL in a name");
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(path, &name, &mut value[..]).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        value.truncate(length);
        let twice = values.insert(name.into_string().expect("text"), value);
        assert!(twice.is_none(), "{}: listed twice", path.display());
    }
    values
}

fn mirror<'a>(bed: &'a TestBed, pattern: &'a str) -> Mirror<'a> {
    Mirror { source: &bed.src, pattern, inodes: BTreeMap::new(), back: BTreeMap::new(), seen: 0 }
}

const EXPERIMENT: &str = "\
name: experiment
files: [data.csv, {glob: config.yaml}]
optional_files: ['README*', 'relative*', 'dangling*']
recommended_files: ['notes.*']
directories:
  - directory_name: raw
    files: ['*.csv']
";

#[test]
fn a_whole_tree_is_shown_as_it_is() {
    if !can_mount() {
        return;
    }
    let mut seen = 0;
    for seed in 0..8 {
        let bed = TestBed::new(&[] as &[&str]);
        Grower::grow(seed, &bed.src);
        bed.mount(["-p", &bed.file("all.yaml", "name: all\ndirectory_name: src\n"), "--attr-timeout", "1000"]);
        let mut mirror = mirror(&bed, "all");
        mirror.compare(&bed.mnt.join("all/src"), &bed.src, &mut Vec::new(), &|_| true);
        seen += mirror.seen;
    }
    assert!(seen > 400, "{seen} entries are no test");
}

#[test]
fn what_a_pattern_describes_is_shown_as_it_is() {
    if !can_mount() {
        return;
    }
    for seed in 10..13 {
        let bed = TestBed::new(&[] as &[&str]);
        Grower::grow(seed, &bed.src);
        bed.mount(["-p", &bed.file("experiment.yaml", EXPERIMENT)]);
        let mut mirror = mirror(&bed, "experiment");
        for run in ["run0", "run1"] {
            let real = bed.src.join(run);
            let shown = |path: &Path| {
                let below = path.strip_prefix(&real).expect("below the run").to_string_lossy().into_owned();
                matches!(&*below, "data.csv" | "config.yaml" | "README.md" | "notes.txt" | "raw")
                    || below.starts_with("raw/") && below.ends_with(".csv")
                    || !below.contains('/') && (below.starts_with("relative") || below.starts_with("dangling"))
            };
            mirror.compare(&bed.mnt.join("experiment").join(run), &real, &mut Vec::new(), &shown);
        }
        assert!(mirror.seen >= 14);
    }
}

#[test]
fn a_file_in_two_views_is_one_inode() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["a/run/data.csv=1", "a/run/raw/1.csv=2", "a/run/config.yaml="]);
    let (one, two) = (bed.file("experiment.yaml", EXPERIMENT), bed.file("two.yaml", "files: [data.csv]"));
    bed.mount(["-p", &one, "-p", &two, "-p", &bed.file("whole.yaml", "directory_name: a")]);
    let ino = |path: &str| fs::metadata(bed.mnt.join(path)).unwrap_or_else(|e| panic!("{path}: {e}")).ino();
    let file = ino("two/run/data.csv");
    assert_eq!(ino("experiment/run/data.csv"), file);
    assert_eq!(ino("whole/a/run/data.csv"), file);
    assert_ne!(ino("experiment/run"), ino("two/run"));
    assert_ne!(ino("whole/a/run/raw"), ino("experiment/run/raw"));
    let source = bed.src.join("a/run/data.csv");
    for view in ["two/run/data.csv", "experiment/run/data.csv"] {
        assert_eq!(xattrs(&bed.mnt.join(view))["user.veinfs.source"], source.as_os_str().as_bytes());
    }
    let all: Vec<u64> =
        ["", "experiment", "experiment/run", "whole/a/run/raw", "two/run/data.csv"].map(ino).into_iter().collect();
    bed.unmount();
    bed.mount(["-p", &two, "-p", &one, "-p", &bed.file("whole.yaml", "directory_name: a")]);
    let again: Vec<u64> =
        ["", "experiment", "experiment/run", "whole/a/run/raw", "two/run/data.csv"].map(ino).into_iter().collect();
    assert_eq!(again, all, "after a remount");
}

#[test]
fn of_a_file_in_overlapping_sources_each_view_names_its_own() {
    if !can_mount() {
        return;
    }
    let bed = TestBed::new(&["a/run/data.csv=1", "a/run/no -> nowhere"]);
    let pattern = bed.file("two.yaml", "files: [data.csv]\noptional_files: [no]\n");
    let (all, inner) = (bed.src.join("a"), bed.src.join("a/run"));
    bed.mount_at(&[all.as_os_str(), inner.as_os_str()], &bed.mnt, ["-p", &pattern, "--layout", "<.source>/<.name>"])
        .ok();
    for view in ["a/run", "run/run", "a/run"] {
        let file = bed.mnt.join("two").join(view).join("data.csv");
        fs::read(&file).expect("a file");
        let source = &xattrs(&file)["user.veinfs.source"];
        assert_eq!(source, inner.join("data.csv").as_os_str().as_bytes(), "{view}");
        let link = bed.mnt.join("two").join(view).join("no");
        assert_eq!(fs::read_link(link).expect("a link"), inner.join("nowhere"), "{view}");
    }
}
