//! What a mount costs when much happens, and when nothing does.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::{Followed, RUN, TOLD, each};
use crate::bed::{LIMIT, TestBed, eventually, lay_out, names};

fn proc_of(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// How many files a process has open, and how many threads it has.
fn uses(pid: Pid) -> (usize, usize) {
    let count = |name| fs::read_dir(proc_of(pid, name)).expect("a process").count();
    (count("fd"), count("task"))
}

/// Processor time in clock ticks (`proc_pid_stat(5)`).
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(proc_of(pid, "stat")).expect("a process");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    // The third field is the first here.
    number(14 - 3) + number(15 - 3)
}

/// Waits until a mount has read and written nothing for longer than it keeps what it has to write.
///
/// What others do on the same file system, and their mounts, cost it some time also then.
#[track_caller]
fn comes_to_rest(bed: &TestBed) {
    const REST: Duration = Duration::from_millis(5500);
    let pid = bed.daemon();
    let now = || {
        let status = bed.status();
        (status["directories"].clone(), status["index"]["committed"].clone(), status["refreshing"].clone())
    };
    let deadline = Instant::now() + LIMIT;
    let (mut last, mut since, mut used) = (now(), Instant::now(), ticks(pid));
    while since.elapsed() < REST {
        assert!(Instant::now() < deadline, "it goes on and on: {last:?}");
        std::thread::sleep(Duration::from_millis(50));
        let now = now();
        if now != last {
            (last, since, used) = (now, Instant::now(), ticks(pid));
        }
    }
    // Of 550.
    let used = ticks(pid) - used;
    assert!(used < 60, "{used} ticks for nothing");
}

#[test]
fn a_burst_ends_with_the_right_view_and_leaves_nothing_behind() {
    each(&TOLD, |way| {
        let Some(it) = Followed::new(way, &["first/data.csv="], &[RUN], &[]) else { return };
        it.shows("run", &["first"]);
        let pid = it.bed.daemon();
        let before = uses(pid);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dir = it.src(&format!("t{thread}"));
                scope.spawn(move || {
                    let all: Vec<PathBuf> = (0..750).map(|n| dir.join(format!("g{}/m{thread}-{n}", n % 25))).collect();
                    for (n, path) in all.iter().enumerate() {
                        fs::create_dir_all(path).expect("a directory");
                        fs::write(path.join("data.csv"), "").expect("a file");
                        // Most go again, each in one of three ways.
                        match (n.checked_sub(10).map(|early| &all[early]), n % 4) {
                            (Some(early), 0) => fs::remove_dir_all(early).expect("removed"),
                            (Some(early), 1) => fs::remove_file(early.join("data.csv")).expect("removed"),
                            (Some(early), 2) => fs::rename(early, early.with_extension("moved")).expect("a rename"),
                            _ => {}
                        }
                    }
                });
            }
        });
        eventually("it is as found", || it.is_as_found());
        let shown = names(it.mnt("run"));
        assert_eq!(shown.len() as u64, it.bed.status()["matches"].as_u64().expect("a number"));
        assert!(shown.len() > 1000, "{}", shown.len());
        (0..4).for_each(|n| fs::remove_dir_all(it.src(&format!("t{n}"))).expect("removed"));
        it.shows("run", &["first"]);
        eventually("it uses what it used", || {
            let now = uses(pid);
            now.0 <= before.0 + 8 && now.1 <= before.1 + 2
        });
        let watch = it.bed.status()["sources"][0]["watch"].clone();
        assert!(watch["watches"].as_u64().is_some_and(|n| n < 10), "{watch}");
    });
}

#[test]
fn a_mount_in_its_own_source_comes_to_rest() {
    each(&TOLD, |way| {
        let mut bed = TestBed::new(&["a/data.csv=1", "keep/data.csv=2"]);
        let mountpoint = bed.src.join("a/mnt");
        fs::create_dir(&mountpoint).expect("a directory");
        bed.mnt = mountpoint;
        let index = bed.src.join("keep/of.index");
        let whole = "name: whole\nfiles: ['*']\n";
        let args = ["--index", index.to_str().expect("text"), "--view", "all"];
        let Some(it) = Followed::on(bed, way, &[RUN, whole], &args) else { return };
        it.shows("run", &["a", "keep"]);
        let read = || it.bed.status()["directories"].as_u64().expect("a number");
        let before = read();
        lay_out(&it.bed.src, &["b/data.csv=3", "a/c/data.csv=4"]);
        it.shows("run", &["a", "b", "c", "keep"]);
        it.shows("whole", &["a", "b", "c", "keep"]);
        comes_to_rest(&it.bed);
        assert!(read() < before + 30, "{before}, {}", read());
        assert!(index.exists());
    });
}
