//! Programs that read from a mount: what they make of it is what they make of the source.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{FlockOperation, Mode, OFlags, SeekFrom};

use crate::bed::{Output, TestBed, can_mount, has, names};

/// Runs a shell script with `$1`, `$2`… set.
#[track_caller]
fn sh(script: &str, args: &[&Path]) -> String {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120", "bash", "-euo", "pipefail", "-c", script, "bash"]).args(args);
    command.env("LC_ALL", "C").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    Output::of(&mut command).ok().text()
}

/// What a tree is, in the words of `find` and `sha256sum`; times and modes if `times`.
fn digest(dir: &Path, times: bool) -> String {
    let print = if times { r"%P %y %s %m %U %G %T@\n" } else { r"%P %y %s\n" };
    let list = sh(
        &format!(r"cd $1; find . -mindepth 1 -type d -printf '%P %y\n' -o -mindepth 1 -printf '{print}' | sort"),
        &[dir],
    );
    let sums = sh("cd $1; find . -type f -print0 | sort -z | xargs -0r sha256sum", &[dir]);
    format!("{list}{sums}")
}

fn project() -> TestBed {
    let big = format!("lib/big.txt={}", "0123456789abcdef\n".repeat(40_000));
    let bed = TestBed::new(&[
        "project/marker=",
        "project/src/main.c=#include \"say.h\"\n#include \"deep/er.h\"\nint main(void) { say(ER); return 0; }\n",
        "project/src/say.c=#include \"say.h\"\n#include <stdio.h>\nvoid say(const char *s) { puts(s); }\n",
        "project/include/say.h=void say(const char *s);\n",
        "project/include/deep/er.h=#define ER \"from the mount\"\n",
        "project/lib/module.py=ANSWER = 42\n",
        "project/lib/with space/ü.txt=text",
        "project/lib/empty=",
        "project/lib/dangling -> no/such",
        "project/lib/to-marker -> ../marker",
        "project/empty dir/",
        &format!("project/{big}"),
    ]);
    let src = bed.src.join("project");
    fs::set_permissions(src.join("marker"), fs::Permissions::from_mode(0o640)).expect("a mode");
    File::open(src.join("lib/empty"))
        .and_then(|file| file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(981_173_106, 123_456_789)))
        .expect("a time");
    rustix::fs::setxattr(src.join("marker"), "user.colour", b"blue", rustix::fs::XattrFlags::empty())
        .expect("an xattr");
    let sparse = File::create(src.join("lib/sparse")).expect("a file");
    sparse.set_len(4 << 20).expect("a length");
    sparse.write_all_at(b"in the middle", 2 << 20).expect("bytes");
    // Of another second than now: that is as far as rsync looks.
    File::open(src.join("lib"))
        .and_then(|dir| dir.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 987_654_321)))
        .expect("a time");
    bed
}

fn mounted(symlinks: &str) -> TestBed {
    let bed = project();
    bed.mount(["-p", &bed.file("project.yaml", "files: [marker]\n"), "--view", "all", "--symlinks", symlinks]);
    bed
}

#[test]
fn copies_are_what_the_source_is() {
    if !can_mount() {
        return;
    }
    let bed = mounted("keep");
    let (view, real) = (bed.mnt.join("project/project"), bed.src.join("project"));
    let wanted = |times| {
        // Links say where they lead in words of their own.
        digest(&real, times).lines().filter(|line| !line.contains(" l ")).collect::<Vec<_>>().join("\n")
    };
    let found = |dir: &Path, times| {
        digest(dir, times).lines().filter(|line| !line.contains(" l ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(found(&view, true), wanted(true));
    let copy = |name: &str| {
        let dir = bed.dir.join(name);
        fs::create_dir(&dir).expect("a directory");
        dir
    };
    let lossless = |dir: &Path| {
        assert_eq!(found(dir, true), wanted(true), "{}", dir.display());
        assert_eq!(fs::read_link(dir.join("lib/dangling")).expect("a link"), real.join("lib/no/such"));
        assert_eq!(fs::read(dir.join("lib/to-marker")).expect("a link that resolves"), b"");
        let (copied, source) = (fs::metadata(dir.join("lib")).expect("a copy"), fs::metadata(real.join("lib")));
        assert_eq!(copied.mtime_nsec(), source.expect("a source").mtime_nsec(), "{}", dir.display());
    };
    let to = copy("cp");
    sh("cp -a \"$1/.\" \"$2\"", &[&view, &to]);
    lossless(&to);
    if has("getfattr") {
        let colour = sh("getfattr --only-values -n user.colour \"$1/marker\"", &[&to]);
        assert_eq!(colour, "blue");
        let found = sh("getfattr --only-values -n user.veinfs.source \"$1/marker\"", &[&to]);
        assert_eq!(Path::new(&found), real.join("marker"));
    }
    let to = copy("tar");
    sh("tar -C \"$1\" --sparse --xattrs -cf - . | tar -C \"$2\" -xpf -", &[&view, &to]);
    lossless(&to);
    if has("rsync") {
        let to = copy("rsync");
        sh("rsync -aX \"$1/\" \"$2\"", &[&view, &to]);
        lossless(&to);
        // A second run finds nothing to do.
        let again = sh("rsync -aXi \"$1/\" \"$2\"", &[&view, &to]);
        assert_eq!(again, "");
    }
}

#[test]
fn find_and_sums_agree_with_the_source() {
    if !can_mount() {
        return;
    }
    let bed = mounted("follow");
    let (view, real) = (bed.mnt.join("project/project"), bed.src.join("project"));
    let listed = sh("cd \"$1\"; find . -ls | awk '{print $3, $5, $6, $7, $11, $12}' | sort", &[&view]);
    let wanted = sh("cd \"$1\"; find -L . -ls 2>&1 | awk '{print $3, $5, $6, $7, $11, $12}' | sort", &[&real]);
    let files = |text: &str| -> Vec<String> {
        text.lines().filter(|l| l.starts_with('-') || l.starts_with('d')).map(strip_dir_size).collect()
    };
    assert_eq!(files(&listed), files(&wanted));
    let sums = "cd \"$1\"; find -L . -type f -print0 | sort -z | xargs -0 sha256sum";
    assert_eq!(sh(sums, &[&view]), sh(sums, &[&real]));
    let usage = "cd \"$1\"; find . -type f ! -name to-marker -printf '%P %k %S\\n' | sort";
    assert_eq!(sh(usage, &[&view]), sh(usage, &[&real]), "blocks and sparseness");
}

/// A directory's size is our choice.
fn strip_dir_size(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    if line.starts_with('d') { format!("{} {}", words[0], words[4..].join(" ")) } else { line.to_owned() }
}

#[test]
fn git_works_in_a_worktree_that_is_seen_through_a_pattern() {
    if !can_mount() || !has("git") {
        return;
    }
    let bed = TestBed::new(&["repo/a.txt=one\n", "repo/dir/b.txt=two\n", "repo/.gitignore=*.o\n", "repo/x.o=junk"]);
    let repo = bed.src.join("repo");
    let git = "git -c safe.directory='*' -c user.name=n -c user.email=e@x";
    sh(&format!("cd \"$1\"; git init -q -b main .; {git} add .; {git} commit -qm first; {git} tag v1"), &[&repo]);
    sh(&format!("cd \"$1\"; echo 1 >> a.txt; {git} commit -qam second; echo changed > dir/b.txt"), &[&repo]);
    bed.mount(["-p", "git-worktree"]);
    let view = bed.mnt.join("git-worktree/repo");
    for command in ["status --porcelain", "log --format='%H %s'", "ls-files -s", "diff", "fsck --no-dangling"] {
        let script = format!("cd \"$1\"; GIT_OPTIONAL_LOCKS=0 {git} {command} 2>&1");
        assert_eq!(sh(&script, &[&view]), sh(&script, &[&repo]), "git {command}");
    }
    assert_eq!(sh(&format!("cd \"$1\"; {git} status --porcelain"), &[&view]), " M dir/b.txt\n");
    let clone = bed.dir.join("clone");
    sh(&format!("{git} clone -q --no-local \"$1\" \"$2\""), &[&view, &clone]);
    assert_eq!(fs::read_to_string(clone.join("a.txt")).expect("a file"), "one\n1\n");
    let log = "git -c safe.directory='*' -C \"$1\" log --format=%H";
    assert_eq!(sh(log, &[&clone]), sh(log, &[&repo]));
}

#[test]
fn python_opens_walks_and_maps() {
    if !can_mount() || !has("python3") {
        return;
    }
    let bed = mounted("follow");
    let script = bed.file(
        "read.py",
        r#"
import hashlib, importlib.util, mmap, os, sys
root = sys.argv[1]
os.chdir(root)
for at, dirs, files in os.walk("."):
    dirs.sort()
    for name in sorted(files):
        path = os.path.join(at, name)
        if name == "dangling":
            continue
        with open(path, "rb") as file:
            whole = file.read()
            print(path, os.path.getsize(path), hashlib.sha256(whole).hexdigest())
            if whole:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    assert mapped[:] == whole, path
                    assert mapped[len(whole) // 2:] == whole[len(whole) // 2:]
            # To a socket, through the kernel alone.
            out, back = os.memfd_create("copy"), 0
            while back < len(whole):
                sent = os.sendfile(out, file.fileno(), back, len(whole) - back)
                assert sent > 0, path
                back += sent
            assert os.pread(out, len(whole) + 1, 0) == whole, path
            os.close(out)
spec = importlib.util.spec_from_file_location("module", "lib/module.py")
module = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
spec.loader.exec_module(module)
print(module.ANSWER, sorted(entry.name for entry in os.scandir("lib") if entry.is_file()))
"#,
    );
    let view = sh("python3 \"$1\" \"$2\"", &[Path::new(&script), &bed.mnt.join("project/project")]);
    let real = sh("python3 \"$1\" \"$2\"", &[Path::new(&script), &bed.src.join("project")]);
    assert_eq!(view, real);
    assert!(view.contains("42 ["), "{view}");
}

#[test]
fn a_compiler_reads_sources_and_headers_and_the_result_runs_from_a_mount() {
    if !can_mount() || !has("gcc") {
        return;
    }
    let bed = mounted("follow");
    let view = bed.mnt.join("project/project");
    let program = bed.src.join("project/hello");
    sh("gcc -I \"$1/include\" \"$1/src/main.c\" \"$1/src/say.c\" -o \"$2\"", &[&view, &program]);
    let shown = view.join("hello");
    crate::bed::eventually("the program is there", || shown.exists());
    let output = Output::of(&mut Command::new(&shown)).ok();
    assert_eq!(output.text(), "from the mount\n");
    bed.unmount();
    bed.mount(["-p", &bed.file("project.yaml", "files: [marker]\n"), "--view", "all", "-o", "noexec"]);
    let refused = Command::new(&shown).status().expect_err("noexec");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn unusual_ways_of_reading() {
    if !can_mount() {
        return;
    }
    let bed = mounted("follow");
    let (view, real) = (bed.mnt.join("project/project"), bed.src.join("project"));
    // O_DIRECT, below and above the size from which files are passed through.
    for name in ["marker", "src/main.c", "lib/big.txt", "lib/sparse"] {
        let whole = fs::read(real.join(name)).expect("a file");
        let file = rustix::fs::open(view.join(name), OFlags::RDONLY | OFlags::DIRECT, Mode::empty())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut room = vec![0u8; (64 << 10) + 4096];
        let start = room.as_ptr().align_offset(4096);
        let aligned = &mut room[start..start + (64 << 10)];
        let mut read = Vec::new();
        loop {
            match rustix::io::pread(&file, &mut *aligned, read.len() as u64) {
                Ok(0) => break,
                Ok(more) => read.extend_from_slice(&aligned[..more]),
                // Behind the end, at a place that is no multiple of the block.
                Err(rustix::io::Errno::INVAL) if read.len() == whole.len() => break,
                Err(error) => panic!("{name}: {error}"),
            }
        }
        assert!(read == whole, "{name}: {} bytes of {}", read.len(), whole.len());
    }
    // Holes.
    let (shown, own) =
        (File::open(view.join("lib/sparse")).expect("it"), File::open(real.join("lib/sparse")).expect("it"));
    for from in [SeekFrom::Data(0), SeekFrom::Hole(0), SeekFrom::Hole(2 << 20), SeekFrom::Data(3 << 20)] {
        assert_eq!(rustix::fs::seek(&shown, from), rustix::fs::seek(&own, from), "{from:?}");
    }
    // Locks, which are the mount's own.
    let (one, two) = (File::open(view.join("marker")).expect("it"), File::open(view.join("marker")).expect("it"));
    rustix::fs::flock(&one, FlockOperation::LockExclusive).expect("a lock");
    let second = rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(second, Err(rustix::io::Errno::WOULDBLOCK));
    rustix::fs::flock(&one, FlockOperation::Unlock).expect("unlocked");
    rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive).expect("a lock");
    // The space is that of the source's file system.
    let (shown, own) = (rustix::fs::statvfs(&view).expect("statfs"), rustix::fs::statvfs(&real).expect("statfs"));
    assert_eq!((shown.f_blocks, shown.f_files, shown.f_namemax), (own.f_blocks, own.f_files, own.f_namemax));
    assert_eq!((shown.f_bsize, shown.f_frsize), (own.f_bsize, own.f_frsize));
    assert!(shown.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let of = sh("df --output=size,target \"$1\" | tail -1", &[&view]);
    assert!(of.trim().ends_with(bed.mnt.to_str().expect("text")), "{of}");
    // Access is as the source has it.
    assert_eq!(names(view.join("lib")), names(real.join("lib")));
    assert_eq!(rustix::fs::access(&view, rustix::fs::Access::WRITE_OK), Err(rustix::io::Errno::ROFS));
    let runs = rustix::fs::access(view.join("marker"), rustix::fs::Access::EXEC_OK);
    assert_eq!(runs, Err(rustix::io::Errno::ACCESS));
}
