//! What a mount shows when its sources change, are very deep or restricted, or when little is left to it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::Mode;

const VEINFS: &str = env!("CARGO_BIN_EXE_veinfs");

/// A source, a mount point beside it, and what is mounted there until the end of the test.
struct Bed(tempfile::TempDir);

impl Bed {
    /// `None` where nothing can be mounted.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || File::open("/dev/fuse").is_err() {
            eprintln!("skipped: mounting needs root and /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        ["src", "mnt"].iter().for_each(|name| fs::create_dir(dir.path().join(name)).expect("a directory"));
        Some(Self(dir))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Files of the source, with the directories above them.
    fn files(&self, files: &[&str]) {
        for file in files {
            let path = self.path("src").join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
            fs::write(path, file).expect("a file");
        }
    }

    /// Mounts with `command`, which is or runs veinfs.
    fn mount_by(&self, command: &mut Command, pattern: &str, options: &[&str]) {
        let file = self.path("p.yaml");
        fs::write(&file, pattern).expect("a pattern");
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.arg("mount").args([self.path("src"), self.path("mnt")]).arg("-p").arg(file).arg("--wait").args(options);
        assert!(command.status().expect("veinfs").success());
    }

    fn mount(&self, pattern: &str, options: &[&str]) {
        self.mount_by(&mut Command::new(VEINFS), pattern, options);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = Command::new(VEINFS).args(["unmount", "--lazy"]).arg(self.path("mnt")).status();
    }
}

fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_changes_further_down_is_seen_by_path() {
    let Some(bed) = Bed::new() else { return };
    bed.files(&["run/a.txt", "run/sub/x1/ok", "run/sub/x2/other"]);
    let pattern = "name: p\nfiles: [a.txt]\n\
        directories: [{directory_name: sub, directories: [{directory_name: 'x*', files: [ok]}]}]\n";
    bed.mount(pattern, &["--attr-timeout", "0.2"]);
    let sub = bed.path("mnt/p/run/sub");
    assert_eq!(names(&sub), ["x1"]);
    bed.files(&["run/sub/x2/ok"]);
    eventually("x2 has what it needs", || names(&sub) == ["x1", "x2"]);
    fs::remove_file(bed.path("src/run/sub/x2/ok")).expect("a file");
    eventually("x2 has not", || names(&sub) == ["x1"]);
}

#[test]
fn a_written_file_is_read_anew_though_its_times_are_set_back() {
    let Some(bed) = Bed::new() else { return };
    bed.files(&["run/a.txt"]);
    bed.mount("name: p\nfiles: [a.txt]\n", &["--attr-timeout", "0"]);
    let (real, seen) = (bed.path("src/run/a.txt"), bed.path("mnt/p/run/a.txt"));
    let before = fs::read(&seen).expect("a file");
    let modified = real.metadata().and_then(|meta| meta.modified()).expect("a time");
    let after = vec![b'x'; before.len()];
    fs::write(&real, &after).expect("a file");
    File::options().write(true).open(&real).and_then(|file| file.set_modified(modified)).expect("a time");
    assert_eq!(fs::read(&seen).expect("a file"), after);
}

#[test]
fn a_tree_without_end_does_not_end_the_mount() {
    let Some(bed) = Bed::new() else { return };
    bed.files(&["run/a.txt"]);
    let mut dir = File::open(bed.path("src/run")).expect("a directory");
    for _ in 0..6000 {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).expect("a directory");
        dir = rustix::fs::openat(&dir, "d", rustix::fs::OFlags::RDONLY, Mode::empty()).expect("a directory").into();
    }
    let create = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&dir, "a.txt", create, Mode::RWXU).expect("a file");
    bed.mount("name: p\nfiles: [a.txt, '**/a.txt']\n", &["--layout", "<.path>"]);
    let shown = names(bed.path("mnt/p"));
    assert!(shown.len() == 2 && shown[0] == "run" && shown[1].starts_with("run~"), "{shown:?}");
    assert_eq!(fs::read(bed.path("mnt/p").join(&shown[1]).join("a.txt")).expect("a file"), b"run/a.txt");
}

#[test]
fn access_lists_hold_through_the_mount() {
    const USERS: [u32; 3] = [6001, 6002, 6003];
    let Some(bed) = Bed::new() else { return };
    bed.files(&["open/run/a.txt", "open/run/listed.txt", "shut/run/a.txt"]);
    let set =
        |list: &str, path: &str| Command::new("setfacl").args(["-m", list]).arg(bed.path("src").join(path)).status();
    if !set("u:6001:---", "shut").is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no setfacl, or no access lists here");
    }
    set("u:6001:---,u:6002:r", "open/run/listed.txt").expect("setfacl");
    bed.mount("name: p\nfiles: [a.txt]\noptional_files: ['*']\n", &["-o", "allow_other", "--layout", "<.parent>"]);
    let reads = |user: u32, path: PathBuf| {
        Command::new("cat").arg(path).uid(user).gid(user).output().expect("cat").status.success()
    };
    for user in USERS {
        for file in ["a.txt", "listed.txt"] {
            let real = reads(user, bed.path("src/open/run").join(file));
            assert_eq!(reads(user, bed.path("mnt/p/open").join(file)), real, "{user} {file}");
        }
        assert!(!reads(user, bed.path("mnt/p/shut/a.txt")), "{user}: shut to one, which no mode can say");
    }
    assert!(!reads(6001, bed.path("mnt/p/open/listed.txt")) && reads(6002, bed.path("mnt/p/open/listed.txt")));
}

#[test]
fn few_descriptors_are_enough() {
    let Some(bed) = Bed::new() else { return };
    let files: Vec<String> = (0..100).flat_map(|n| [format!("{n}/run/a.txt"), format!("{n}/run/x/y/z")]).collect();
    bed.files(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", VEINFS]);
    bed.mount_by(&mut command, "name: p\nfiles: [a.txt]\ndirectories: [{directory_name: x}]\n", &[]);
    let all = names(bed.path("mnt/p"));
    assert_eq!(all.len(), 100);
    for run in all {
        let run = bed.path("mnt/p").join(run);
        fs::read(run.join("a.txt")).and_then(|_| fs::read(run.join("x/y/z"))).expect("files");
    }
}

#[test]
fn an_interrupted_mount_says_so_in_one_line() {
    let Some(bed) = Bed::new() else { return };
    fs::write(bed.path("slow.yaml"), "files: [{glob: '*', contains: no file has this}]\n").expect("a pattern");
    let mount = Command::new(VEINFS)
        .args(["mount", "/usr", "--no-index", "--wait", "--threads", "1", "-p"])
        .args([bed.path("slow.yaml"), bed.path("mnt")])
        .stderr(Stdio::piped())
        .spawn()
        .expect("veinfs");
    eventually("it is mounted", || bed.path("mnt/.veinfs").exists());
    let status = fs::read_to_string(bed.path("mnt/.veinfs/status.json")).expect("a status");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(mount.id().cast_signed()), nix::sys::signal::SIGINT)
        .expect("a child");
    let output = mount.wait_with_output().expect("its end");
    if status.contains("scanning") && !output.status.success() {
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(said, "veinfs: interrupted (SIGINT) before the mount was usable\n");
    }
    assert!(!bed.path("mnt/.veinfs").exists() || output.status.success());
}

#[test]
fn options_may_stand_between_source_and_mount_point() {
    let veinfs = |words: &[&str]| {
        let output = Command::new(VEINFS).args(words).output().expect("veinfs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, said) = veinfs(&["mount", "/nowhere", "--wait", "-p", "git-worktree", "/tmp"]);
    assert_eq!((code, said.contains("/nowhere: there is no such directory")), (Some(2), true), "{said}");
    let (code, said) = veinfs(&["mount", "/nowhere", "-p", "git-worktree"]);
    assert_eq!((code, said.as_str()), (Some(2), "veinfs: give at least one SOURCE and then the MOUNTPOINT\n"));
}
