//! Sources whose root goes away and comes back.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::{ALL, Followed, RUN, TOLD, each};
use crate::bed::{TestBed, eventually, is_root, lay_out, names};

impl Followed {
    #[track_caller]
    fn source_is(&self, state: &str) {
        let status = || self.bed.status()["sources"][0].clone();
        eventually(&format!("the source is {state}"), || status()["state"] == state);
    }

    /// Waits until opening this fails as it does where nothing is.
    #[track_caller]
    fn is_away(&self, path: &str) {
        let fits = |error: &io::Error| {
            let any = [Errno::NOENT, Errno::IO, Errno::STALE];
            any.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        };
        eventually("it cannot be opened", || File::open(self.mnt(path)).is_err_and(|error| fits(&error)));
    }
}

#[test]
fn a_root_that_is_made_anew_is_what_is_there_now() {
    each(&TOLD, |way| {
        let Some(it) = Followed::new(way, &["a/data.csv=1", "b/c/data.csv=2"], &[RUN], &[]) else { return };
        it.shows("run", &["a", "c"]);
        fs::remove_dir_all(&it.bed.src).expect("removed");
        it.source_is("failed");
        let errors = fs::read_to_string(it.mnt(".veinfs/errors.ndjson")).expect("the errors");
        assert!(errors.contains("\"kind\":\"source\""), "{errors}");
        it.is_away("run/a/data.csv");
        lay_out(&it.bed.src, &["d/data.csv=3", "b/c/data.csv=4"]);
        it.shows("run", &["c", "d"]);
        eventually("the new content", || it.read("run/c/data.csv") == "4");
        it.source_is("complete");
        // And it is followed as before.
        lay_out(&it.bed.src, &["e/f/data.csv=5"]);
        it.shows("run", &["c", "d", "f"]);
        eventually("it is as found", || it.is_as_found());
    });
}

#[test]
fn a_root_that_moves_away_and_back_takes_nothing_along() {
    each(&ALL, |way| {
        let Some(it) = Followed::new(way, &["a/data.csv=1", "b/c/data.csv=2"], &[RUN], &[]) else { return };
        let away = it.bed.dir.join("away");
        it.shows("run", &["a", "c"]);
        let number = |name: &str| super::numbers(&it.mnt("run"))[Path::new(name)];
        let before = number("c");
        fs::rename(&it.bed.src, &away).expect("a rename");
        it.source_is("failed");
        assert_eq!(names(it.mnt("run")), ["a", "c"], "what is known is shown");
        it.is_away("run/a/data.csv");
        // It changes meanwhile.
        lay_out(&away, &["d/data.csv=3"]);
        fs::remove_dir_all(away.join("a")).expect("removed");
        fs::rename(&away, &it.bed.src).expect("a rename");
        it.shows("run", &["c", "d"]);
        it.source_is("complete");
        eventually("it reads", || it.read("run/c/data.csv") == "2");
        assert_eq!(number("c"), before);
        lay_out(&it.bed.src, &["b/e/data.csv=5"]);
        it.shows("run", &["c", "d", "e"]);
    });
}

/// A file system in memory, until the end of the test.
struct Memory(PathBuf);

impl Memory {
    fn put(&self, lines: &[&str]) {
        rustix::mount::mount("veinfs-it", &self.0, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
        lay_out(&self.0, lines);
    }

    fn take(&self) -> io::Result<()> {
        Ok(rustix::mount::unmount(&self.0, UnmountFlags::DETACH)?)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        while self.take().is_ok() {}
    }
}

#[test]
fn a_disk_that_is_taken_off_and_put_back() {
    if !is_root() {
        return;
    }
    each(&TOLD, |way| {
        let bed = TestBed::new(&[] as &[&str]);
        let disk = Memory(bed.src.clone());
        disk.put(&["a/data.csv=1", "b/data.csv=2"]);
        let Some(it) = Followed::on(bed, way, &[RUN], &[]) else { return };
        it.shows("run", &["a", "b"]);
        assert_eq!(it.read("run/a/data.csv"), "1");
        disk.take().expect("it is off");
        it.source_is("failed");
        assert_eq!(names(it.mnt("run")), ["a", "b"], "what is known is shown");
        it.is_away("run/a/data.csv");
        disk.put(&["b/data.csv=3", "c/data.csv=4"]);
        it.shows("run", &["b", "c"]);
        it.source_is("complete");
        eventually("the new content", || it.read("run/b/data.csv") == "3");
        lay_out(&it.bed.src, &["d/data.csv=5"]);
        it.shows("run", &["b", "c", "d"]);
        drop(disk);
    });
}
