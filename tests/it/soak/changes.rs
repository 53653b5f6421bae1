//! A source that changes: matches come and go, files are replaced, cut, renamed, directories moved, permissions changed.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::mirror::Random;

/// Directories that matches move between.
const GROUPS: u64 = 4;
/// At most so many matches for each changer.
const SLOTS: u64 = 24;
/// Files in a match that are only ever replaced whole.
pub(super) const WHOLE: u64 = 4;

/// The content of a file that is only ever replaced whole: one line, as often as it says.
pub(super) fn whole(what: &str, version: u64, lines: u64) -> Vec<u8> {
    format!("{what} version {version} times {lines}\n").repeat(lines as usize).into_bytes()
}

/// True for such a content, neither cut nor mixed of two.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let Some((line, _)) = text.split_once('\n') else { return false };
    let times = line.rsplit(' ').next().and_then(|times| times.parse().ok()).unwrap_or(0);
    text == format!("{line}\n").repeat(times)
}

/// One of those who change the source, each in directories of its own.
pub(super) struct Changer {
    number: u64,
    root: PathBuf,
    random: Random,
    version: u64,
    /// The group in which each match is, if there is one.
    groups: Vec<Option<u64>>,
    /// What was done to it last, to be read where something is wrong.
    history: Vec<Vec<&'static str>>,
}

impl Changer {
    pub(super) fn new(number: u64, root: &Path) -> Self {
        for group in 0..GROUPS {
            fs::create_dir_all(root.join(format!("c{number}/g{group}"))).expect("a directory");
        }
        let (root, random) = (root.to_path_buf(), Random::new(4711 + number));
        Self {
            number,
            root,
            random,
            version: 0,
            groups: vec![None; SLOTS as usize],
            history: vec![Vec::new(); SLOTS as usize],
        }
    }

    /// The last changes of the matches that `text` names.
    pub(super) fn history(&self, text: &str) -> Vec<String> {
        let named = |slot: &u64| text.contains(&format!("/m{}-{slot}/", self.number));
        let last = |slot: u64| &self.history[slot as usize][self.history[slot as usize].len().saturating_sub(12)..];
        (0..SLOTS).filter(named).map(|slot| format!("m{}-{slot}: {}", self.number, last(slot).join(", "))).collect()
    }

    fn dir(&self, slot: u64, group: u64) -> PathBuf {
        self.root.join(format!("c{}/g{group}/m{}-{slot}", self.number, self.number))
    }

    /// One change.
    pub(super) fn change(&mut self) {
        let slot = self.random.below(SLOTS);
        let Some(group) = self.groups[slot as usize] else {
            self.history[slot as usize].push("make");
            return self.make(slot);
        };
        let dir = self.dir(slot, group);
        type Change = fn(&mut Changer, u64, &Path);
        let changes: [(&str, Change); 10] = [
            ("replace", |it, _, dir| it.replace(dir)),
            ("replace", |it, _, dir| it.replace(dir)),
            ("append", |it, _, dir| it.append(dir)),
            ("cut", |it, _, dir| it.cut(dir)),
            ("rename", |it, _, dir| it.rename(dir)),
            ("come and go", |it, _, dir| it.come_and_go(dir)),
            ("move", Changer::move_match),
            ("allow", |it, _, dir| it.allow(dir)),
            ("below", |it, _, dir| it.below(dir)),
            ("touch", |it, _, dir| it.touch(dir)),
        ];
        // One in eleven goes.
        match changes.get(self.random.below(11) as usize) {
            Some((name, change)) => {
                self.history[slot as usize].push(name);
                change(self, slot, &dir);
            }
            None => {
                self.history[slot as usize].push("remove");
                self.remove(slot, &dir);
            }
        }
    }

    fn make(&mut self, slot: u64) {
        let group = self.random.below(GROUPS);
        let dir = self.dir(slot, group);
        fs::create_dir(&dir).expect("a directory");
        (0..WHOLE).for_each(|number| self.write(&dir, number));
        fs::write(dir.join("w0"), "appended to\n").expect("a file");
        fs::create_dir(dir.join("sub")).expect("a directory");
        fs::write(dir.join("data.csv"), "1,2\n").expect("a file");
        self.groups[slot as usize] = Some(group);
    }

    fn remove(&mut self, slot: u64, dir: &Path) {
        fs::remove_dir_all(dir).expect("removed");
        self.groups[slot as usize] = None;
    }

    /// Of a line to what is passed through.
    fn write(&mut self, dir: &Path, number: u64) {
        self.version += 1;
        let lines = match self.random.below(20) {
            0 => 6000,
            few => few * 20,
        };
        let name = format!("a{number}");
        let temporary = dir.join(format!(".{name}"));
        fs::write(&temporary, whole(&name, self.version, lines.max(1))).expect("a file");
        fs::rename(temporary, dir.join(name)).expect("a rename");
    }

    fn replace(&mut self, dir: &Path) {
        let number = self.random.below(WHOLE);
        self.write(dir, number);
    }

    fn append(&mut self, dir: &Path) {
        let mut file = File::options().append(true).create(true).open(dir.join("w0")).expect("a file");
        let lines = 1 + self.random.below(200);
        file.write_all("more of it\n".repeat(lines as usize).as_bytes()).expect("some bytes");
    }

    fn cut(&mut self, dir: &Path) {
        let file = File::options().write(true).create(true).truncate(false).open(dir.join("w0")).expect("a file");
        let length = file.metadata().expect("a file").len();
        file.set_len(self.random.below(length + 1)).expect("a length");
    }

    /// Another name for a file, and back.
    fn rename(&mut self, dir: &Path) {
        let (one, other) = (dir.join("w0"), dir.join("renamed"));
        if one.exists() {
            fs::rename(one, other).expect("a rename");
        } else if other.exists() {
            fs::rename(other, one).expect("a rename");
        }
    }

    /// The directory is a match, or no longer.
    fn come_and_go(&mut self, dir: &Path) {
        let file = dir.join("data.csv");
        match file.exists() {
            true => fs::remove_file(file).expect("removed"),
            false => fs::write(file, "3,4\n").expect("a file"),
        }
    }

    fn move_match(&mut self, slot: u64, dir: &Path) {
        let group = self.random.below(GROUPS);
        if self.groups[slot as usize] != Some(group) {
            fs::rename(dir, self.dir(slot, group)).expect("a rename");
            self.groups[slot as usize] = Some(group);
        }
    }

    fn allow(&mut self, dir: &Path) {
        let (dir_mode, file_mode) = (self.random.of(&[0o755, 0o700, 0o711, 0o000]), self.random.of(&[0o644, 0o600]));
        fs::set_permissions(dir, Permissions::from_mode(dir_mode)).expect("a mode");
        fs::set_permissions(dir.join("a0"), Permissions::from_mode(file_mode)).expect("a mode");
    }

    /// Something comes or goes further down.
    fn below(&mut self, dir: &Path) {
        let deep = dir.join(format!("sub/s{}", self.random.below(3)));
        match deep.exists() {
            true => fs::remove_dir_all(deep).expect("removed"),
            false => {
                fs::create_dir(&deep).expect("a directory");
                self.version += 1;
                fs::write(deep.join("x"), self.version.to_string()).expect("a file");
            }
        }
    }

    fn touch(&mut self, dir: &Path) {
        let file = File::options().write(true).open(dir.join("a1")).expect("a file");
        file.set_modified(std::time::SystemTime::now()).expect("a time");
    }
}
