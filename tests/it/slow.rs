//! A source whose every answer takes its time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bed::{TestBed, can_mount, eventually, is_root, lay_out};

#[allow(dead_code, reason = "a program of its own, of which the file system alone is used")]
#[path = "../../benches/slow_fs.rs"]
mod slow_fs;

/// A slow mirror of a directory, for as long as this lives.
struct Slow {
    path: PathBuf,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    // Last, since what is mounted on it ends first.
    _dir: tempfile::TempDir,
}

impl Slow {
    fn new(root: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_owned();
        let before = fs::metadata(&path).expect("a directory").dev();
        let options = slow_fs::Options {
            root: root.to_owned(),
            mountpoint: path.clone(),
            delay: Duration::from_millis(1),
            threads: 32,
        };
        let serving = std::thread::spawn(move || slow_fs::serve(&options));
        eventually("mounted", || fs::metadata(&path).is_ok_and(|meta| meta.dev() != before));
        Self { path, serving: Some(serving), _dir: dir }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
        // How the session ends when it was detached is fuser's own affair.
        let _ = self.serving.take().map(JoinHandle::join);
    }
}

/// Kind and permissions, size, and where it leads, of all that is below; each directory is listed before its entries are
/// asked for.
fn all_below(root: &Path) -> BTreeMap<PathBuf, (u32, u64, Option<PathBuf>)> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        for path in entries.collect::<Vec<_>>() {
            let meta = fs::symlink_metadata(&path).expect("its attributes");
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            let size = if meta.is_file() { meta.len() } else { 0 };
            let below = path.strip_prefix(root).expect("below").to_owned();
            assert!(all.insert(below, (meta.mode(), size, fs::read_link(&path).ok())).is_none(), "{}", path.display());
        }
    }
    all
}

#[test]
fn a_large_directory_is_looked_at_by_many() {
    if !can_mount() || !is_root() {
        return;
    }
    let real = tempfile::tempdir().expect("a directory");
    let run = real.path().join("run");
    let mut lines = vec![String::from("data.csv=x")];
    lines.extend((0..700).map(|at| format!("file-{at:03}{}={}", "-".repeat(at % 200), "x".repeat(at))));
    lines.extend((0..30).map(|at| format!("dir-{at}/in={at}")));
    lines.extend((0..30).map(|at| format!("link-{at} -> /nowhere/{at}")));
    lay_out(&run, &lines);
    let slow = Slow::new(real.path());
    let mut bed = TestBed::new(&[] as &[&str]);
    bed.src = slow.path.clone();
    let pattern = bed.file("run.yaml", "name: run\nfiles: [data.csv]\nopaque: true\n");
    bed.mount(["-p", &pattern, "--symlinks", "keep", "--no-index"]);
    assert_eq!(all_below(&bed.mnt.join("run/run")), all_below(&run));
    let threads = fs::read_dir(format!("/proc/{}/task", bed.daemon())).expect("its threads");
    let names = threads.map(|thread| fs::read_to_string(thread.expect("a thread").path().join("comm")));
    assert_eq!(names.filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("stat-"))).count(), 16);
}
