//! A bed for tests of the program itself: a tree, the built binary, and mounts that are gone when the test is.
//!
//! A tree is written a line an entry: `dir/file=content`, `dir/`, `link -> text`, `fifo|`.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use veinfs::mounts::Exit;

/// How long a condition may take to come true.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What a program said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Output {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self {
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// It, if it ended with this exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// It, if it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// It, if stderr holds this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not in: {}", self.stderr);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The lines of stdout, sorted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Stdout as NDJSON.
    #[track_caller]
    pub(crate) fn ndjson(&self) -> Vec<Value> {
        ndjson(&self.stdout)
    }
}

/// One value a line.
#[track_caller]
pub(crate) fn ndjson(text: &[u8]) -> Vec<Value> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
}

/// True if FUSE mounts are possible; says so if not.
pub(crate) fn can_mount() -> bool {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if device.is_ok() {
        return true;
    }
    let required = std::env::var_os("VEINFS_REQUIRE_FUSE").is_some_and(|value| value == "1");
    assert!(!required, "VEINFS_REQUIRE_FUSE=1, but /dev/fuse cannot be opened");
    eprintln!("SKIP: /dev/fuse cannot be opened");
    false
}

/// True if the tests run as root; says so if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: it takes root");
    }
    root
}

/// True if the program is installed; where it is not, says so, and fails in CI.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
        assert!(!ci, "CI, but there is no {program}");
        eprintln!("SKIP: there is no {program}");
    }
    found
}

/// A command that runs the words added to it as root where everybody may mount: with a device for everybody, in a mount
/// namespace where nobody else sees it. What other tests have mounted does not live on in there. `dir` is searchable for
/// everybody and holds what this takes.
pub(crate) fn with_fuse_for_all(dir: &Path) -> Command {
    let script = r#"
        awk '/ - fuse/ { print $5 }' /proc/self/mountinfo | while read -r at; do umount -l "$(printf "$at")"; done
        mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse &&
        echo user_allow_other > conf && mount --bind conf /etc/fuse.conf &&
        exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).current_dir(dir);
    command
}

/// Waits until `true_now`.
#[track_caller]
pub(crate) fn eventually(what: &str, mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !true_now() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a directory, sorted.
#[track_caller]
pub(crate) fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let dir = dir.as_ref();
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap_or_else(|e| panic!("{}: {e}", dir.display())))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Lays out a tree below `root`.
pub(crate) fn lay_out<S: AsRef<str>>(root: &Path, lines: &[S]) {
    let made = |path: &str| {
        let path = root.join(path);
        let parent = path.parent().expect("an entry lies below the root");
        fs::create_dir_all(parent).unwrap_or_else(|e| panic!("{}: {e}", parent.display()));
        path
    };
    for line in lines.iter().map(AsRef::as_ref) {
        let done = if let Some((path, text)) = line.split_once(" -> ") {
            symlink(text, made(path))
        } else if let Some((path, content)) = line.split_once('=') {
            fs::write(made(path), content)
        } else if let Some(path) = line.strip_suffix('|') {
            nix::unistd::mkfifo(&made(path), nix::sys::stat::Mode::from_bits_truncate(0o644)).map_err(Into::into)
        } else {
            fs::create_dir_all(made(line))
        };
        done.unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

/// Closes a file or directory to everybody but root with all its rights.
#[track_caller]
pub(crate) fn deny(path: &Path) {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("another owner");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("a mode");
}

/// A source, a mount point, and a place for files besides.
pub(crate) struct TestBed {
    /// The tree that is searched.
    pub(crate) src: PathBuf,
    /// Where it is mounted.
    pub(crate) mnt: PathBuf,
    /// What both are in.
    pub(crate) dir: PathBuf,
    mounted: RefCell<Vec<(PathBuf, Option<Daemon>)>>,
    // Last, since the mounts in it end first.
    _temp: tempfile::TempDir,
}

/// A daemon that this test started.
struct Daemon {
    pid: u32,
    exit: Exit,
}

impl TestBed {
    pub(crate) fn new<S: AsRef<str>>(lines: &[S]) -> Self {
        let temp = tempfile::Builder::new().prefix("veinfs-it-").tempdir().expect("a temporary directory");
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let dir = temp.path().canonicalize().expect("its path");
        let (src, mnt) = (dir.join("src"), dir.join("mnt"));
        fs::create_dir(&src).expect("a directory");
        fs::create_dir(&mnt).expect("a directory");
        lay_out(&src, lines);
        Self { src, mnt, dir, mounted: RefCell::default(), _temp: temp }
    }

    /// Writes a file beside source and mount point, a pattern as a rule.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path.to_str().expect("a temporary path is text").to_owned()
    }

    /// The program, in surroundings of its own.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veinfs"));
        command.args(args).env("XDG_CACHE_HOME", self.dir.join("cache")).env_remove("RUST_LOG").current_dir(&self.dir);
        command
    }

    /// Runs the program.
    pub(crate) fn veinfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        Output::of(&mut self.command(args))
    }

    /// Runs the program as somebody who may not read what [`deny`] closes, root or not; `None` where that cannot be.
    pub(crate) fn veinfs_shut_out<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Option<Output> {
        if !rustix::process::geteuid().is_root() {
            return Some(self.veinfs(args));
        }
        if !has("setpriv") {
            return None;
        }
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-dac_override,-dac_read_search"]).arg(env!("CARGO_BIN_EXE_veinfs")).args(args);
        Some(Output::of(command.env("XDG_CACHE_HOME", self.dir.join("cache")).current_dir(&self.dir)))
    }

    /// Scans the source.
    pub(crate) fn scan<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let mut words = vec![OsString::from("scan"), self.src.clone().into()];
        words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self.veinfs(words)
    }

    /// Tries to mount the source at the mount point; whatever comes of it ends with the test.
    pub(crate) fn try_mount<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.mount_at(&[self.src.as_os_str()], &self.mnt, args)
    }

    /// Mounts the source at the mount point.
    #[track_caller]
    pub(crate) fn mount<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) {
        self.try_mount(args).ok();
    }

    pub(crate) fn mount_at<S: AsRef<OsStr>>(
        &self,
        sources: &[&OsStr],
        mountpoint: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Output {
        let mut words = vec![OsString::from("mount"), "--wait".into()];
        words.extend(sources.iter().map(|source| (*source).to_owned()));
        words.push(mountpoint.into());
        words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        let output = self.veinfs(words);
        if output.code == 0 {
            self.keep(mountpoint);
        }
        output
    }

    /// Ends what is mounted here with the test.
    pub(crate) fn keep(&self, mountpoint: &Path) {
        let daemon = status_at(mountpoint).and_then(|status| {
            let pid = u32::try_from(status["pid"].as_u64()?).ok()?;
            Some(Daemon { pid, exit: Exit::of(pid).ok()? })
        });
        self.mounted.borrow_mut().push((mountpoint.to_path_buf(), daemon));
    }

    /// What the mount says of itself.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        status_at(&self.mnt).expect("a status")
    }

    /// Where a change was lost that `right` waits for in vain: the daemon's threads, and what helps.
    pub(crate) fn whence(&self, mut right: impl FnMut() -> bool) -> String {
        let status = self.status();
        let mut told = status.to_string();
        for thread in fs::read_dir(format!("/proc/{}/task", status["pid"])).into_iter().flatten().flatten() {
            let of = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default().trim().to_owned();
            told += &format!("\n{}: {} {}", of("comm"), of("wchan"), of("syscall"));
        }
        let mut helps = |what: &str| {
            let begun = Instant::now();
            let mut is_right = right();
            while !is_right && begun.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(5));
                is_right = right();
            }
            told += &format!("\n{what}: {}", if is_right { "right" } else { "wrong" });
        };
        // Slab objects alone: entries and inodes.
        let dropped = fs::write("/proc/sys/vm/drop_caches", "2");
        helps(&format!("when the kernel has forgotten what nobody uses ({dropped:?})"));
        self.veinfs(["refresh".as_ref(), self.mnt.as_os_str()]);
        helps("when it is refreshed");
        told
    }

    /// The process that serves the mount.
    #[track_caller]
    pub(crate) fn daemon(&self) -> nix::unistd::Pid {
        let pid = self.status()["pid"].as_i64().expect("a process id");
        nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"))
    }

    /// Unmounts, and is sure of it.
    #[track_caller]
    pub(crate) fn unmount(&self) {
        self.veinfs([OsStr::new("unmount"), self.mnt.as_os_str()]).ok();
        assert!(!self.is_mounted());
    }

    pub(crate) fn is_mounted(&self) -> bool {
        veinfs::mounts::find(&self.mnt).expect("the mounts").is_some()
    }
}

fn status_at(mountpoint: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(mountpoint.join(".veinfs/status.json")).ok()?).ok()
}

impl Drop for TestBed {
    fn drop(&mut self) {
        for (mountpoint, daemon) in self.mounted.take().into_iter().rev() {
            let mounted = || veinfs::mounts::find(&mountpoint).ok().flatten().is_some();
            if mounted() {
                let _ = self.command([OsStr::new("unmount"), mountpoint.as_os_str()]).stderr(Stdio::null()).status();
            }
            while mounted() {
                let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
                let off = rustix::mount::unmount(&mountpoint, flags).is_ok()
                    || Command::new("fusermount3").arg("-uz").arg(&mountpoint).status().is_ok_and(|s| s.success());
                if !off {
                    eprintln!("{} stays mounted", mountpoint.display());
                    break;
                }
            }
            if let Some(Daemon { pid, exit }) = daemon
                && !exit.wait(Duration::from_secs(5)).unwrap_or(true)
            {
                eprintln!("the daemon {pid} did not end by itself");
                let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                let _ = exit.wait(Duration::from_secs(5));
            }
        }
    }
}

/// A path made of bytes.
pub(crate) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[test]
fn a_bed_leaves_nothing_behind() {
    if !can_mount() {
        return;
    }
    let pattern = "name: run\nfiles: [data.csv]\n";
    let left = std::panic::catch_unwind(|| {
        let bed = TestBed::new(&["runs/a/data.csv=1,2", "runs/b/", "runs/c -> a", "runs/d|"]);
        bed.mount(["-p", &bed.file("run.yaml", pattern)]);
        assert_eq!(names(&bed.mnt), ["run"]);
        assert_eq!(names(bed.mnt.join("run")), ["a"]);
        let pid = bed.daemon().as_raw().unsigned_abs();
        std::panic::resume_unwind(Box::new((bed.dir.clone(), pid)));
    });
    let what = left.expect_err("a panic");
    let (dir, pid) = what.downcast::<(PathBuf, u32)>().map(|what| *what).expect("where it was");
    assert!(!dir.exists());
    // Gone, or waited for by nobody.
    assert!(Exit::of(pid).map_or(true, |exit| exit.wait(Duration::ZERO).expect("a process")));
}
