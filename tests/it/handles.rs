//! Handles of files, as NFS servers use them: they lead back to what they were taken of, also after a remount.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{MountFlags, mount_remount};

use crate::bed::{Output, TestBed, can_mount, eventually, has, is_root};

const PATTERN: &str = "name: run\nfiles: [data.csv]\ndirectories: [{directory_name: d, files: [in]}]\n";

/// Prints handles of paths, or what handles open: content, names, or an error.
const SCRIPT: &str = r#"
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128)]
def take(path):
    handle, mount = Handle(size=128), ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0):
        return errno.errorcode[ctypes.get_errno()]
    return f"{handle.kind}:{bytes(handle.bytes[:handle.size]).hex()}"
def led(root, text):
    kind, raw = text.split(":")
    raw = bytes.fromhex(raw)
    handle = Handle(size=len(raw), kind=int(kind))
    ctypes.memmove(handle.bytes, raw, len(raw))
    fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
    if fd < 0:
        return errno.errorcode[ctypes.get_errno()]
    what = os.listdir(fd) if os.path.isdir(f"/proc/self/fd/{fd}") else os.read(fd, 99).decode()
    ino = os.fstat(fd).st_ino
    os.close(fd)
    return f"{ino} {sorted(what) if isinstance(what, list) else what}"
root = os.open(sys.argv[2], os.O_RDONLY)
for each in sys.argv[3:]:
    print(take(each) if sys.argv[1] == "take" else led(root, each))
"#;

struct Handles {
    bed: TestBed,
    script: String,
}

impl Handles {
    /// `None` where there cannot be any; says so.
    fn new() -> Option<Self> {
        if !can_mount() || !has("python3") {
            return None;
        }
        if !is_root() {
            eprintln!("SKIP: only root opens files by handles");
            return None;
        }
        let bed = TestBed::new(&["a/x/data.csv=1", "a/x/d/in=2", "b/y/data.csv=3", "b/y/d/in=4", "b/y/d/e/far=5"]);
        let script = bed.file("handles.py", SCRIPT);
        let handles = Self { bed, script };
        handles.mount();
        Some(handles)
    }

    fn mount(&self) {
        self.bed.mount(["-p", &self.bed.file("run.yaml", PATTERN)]);
    }

    fn ask(&self, what: &str, of: &[impl AsRef<std::ffi::OsStr>]) -> Vec<String> {
        let output = Output::of(Command::new("python3").arg(&self.script).arg(what).arg(&self.bed.mnt).args(of)).ok();
        output.text().lines().map(str::to_owned).collect()
    }

    fn take(&self, paths: &[&str]) -> Vec<String> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| self.bed.mnt.join(path)).collect();
        self.ask("take", &paths)
    }
}

const ALL: [&str; 8] = ["", "run", "run/x", "run/y", "run/x/data.csv", "run/y/d", "run/y/d/in", "run/y/data.csv"];

/// Makes the kernel forget what nobody uses of one mount, as a remount does.
fn forget_all(bed: &TestBed) {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(&bed.mnt, flags, c"").expect("the right to");
}

#[test]
fn handles_lead_back_after_the_kernel_forgot_and_after_a_remount() {
    let Some(handles) = Handles::new() else { return };
    let taken = handles.take(&ALL);
    let opened = handles.ask("open", &taken);
    let wanted = ["['run']", "['x', 'y']", "['d', 'data.csv']", "['d', 'data.csv']", "1", "['in']", "4", "3"];
    let content: Vec<&str> = opened.iter().filter_map(|line| line.split_once(' ')).map(|(_, what)| what).collect();
    assert_eq!(content, wanted);
    let held = || handles.bed.status()["reads"]["inodes"].as_u64().expect("a number");
    eventually("the kernel has forgotten", || {
        forget_all(&handles.bed);
        held() <= 1
    });
    // The deepest first: nothing above it is known.
    let backwards: Vec<&String> = taken.iter().rev().collect();
    let mut again = handles.ask("open", &backwards);
    again.reverse();
    assert_eq!(again, opened);
    handles.bed.unmount();
    handles.mount();
    let mut again = handles.ask("open", &backwards);
    again.reverse();
    assert_eq!(again, opened, "after a remount");
    eventually("what was looked through is forgotten", || {
        forget_all(&handles.bed);
        held() <= 1
    });
}

#[test]
fn handles_of_what_is_gone_are_stale() {
    let Some(handles) = Handles::new() else { return };
    let taken = handles.take(&["run/x/data.csv", "run/y", "run/y/d/in"]);
    handles.bed.unmount();
    let src = |path: &str| handles.bed.src.join(path);
    fs::remove_file(src("a/x/data.csv")).expect("a file");
    // Perhaps under the number that has become free.
    fs::write(src("a/x/data.csv"), "other").expect("written");
    fs::rename(src("b/y"), src("b/z")).expect("renamed");
    handles.mount();
    for _ in 0..2 {
        let opened = handles.ask("open", &taken);
        assert_eq!(opened[..2], ["ESTALE", "ESTALE"]);
        // The file is the same, elsewhere in the view.
        assert!(opened[2].ends_with(" 4"), "{opened:?}");
    }
    let new = handles.take(&["run/z/d/in"]);
    assert_eq!(handles.ask("open", &new)[0], handles.ask("open", &taken)[2]);
    fs::remove_file(src("b/z/d/in")).expect("a file");
    eventually("the match is gone", || !handles.bed.mnt.join("run/z").exists());
    assert_eq!(handles.ask("open", &taken[2..]), ["ESTALE"]);
}
