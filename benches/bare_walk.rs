//! Lists a tree in parallel and does nothing else: the lower bound that `veinfs scan` is measured against.
//!
//! ```text
//! cargo bench --bench bare_walk -- DIR [--threads N]
//! ```
//!
//! A directory costs one `openat` relative to its parent, its `getdents64` calls and a `close`. The type comes from the
//! entry, so nothing is `stat`ed but where the file system gives none. The names of a directory's children lie packed
//! in one buffer, NUL after NUL, which `rayon::join` halves until one name is left: no path, no allocation a child, and
//! both open descriptors and memory are bounded by the depth of the tree, its widest directories and the threads.

use std::cell::RefCell;
use std::ffi::{CStr, OsString};
use std::mem::MaybeUninit;
use std::ops::Add;
use std::process::ExitCode;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, statat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

const USAGE: &str = "usage: bare_walk DIR [--threads N]";

/// What `getdents64` fills in one call, one buffer a thread; the size that glibc's `readdir` uses.
const BUFFER_BYTES: usize = 32 << 10;

/// A level of the tree is a few frames, and a thread that waits at a join works on somebody else's meanwhile.
const STACK_BYTES: usize = 64 << 20;

thread_local! {
    static BUFFER: RefCell<Box<[MaybeUninit<u8>]>> = RefCell::new(Box::new_uninit_slice(BUFFER_BYTES));
}

/// What was listed; the root is a directory and no entry.
#[derive(Clone, Copy, Default)]
struct Count {
    directories: u64,
    entries: u64,
    unreadable: u64,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            directories: self.directories + other.directories,
            entries: self.entries + other.entries,
            unreadable: self.unreadable + other.unreadable,
        }
    }
}

fn main() -> ExitCode {
    let (root, threads) = match arguments() {
        Ok(Some(options)) => options,
        // `cargo bench` and `cargo test` run every target, this one without a directory.
        Ok(None) => {
            eprintln!("bare_walk: no directory given, nothing walked; {USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("bare_walk: {message}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    allow_open_files();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES).build();
    let pool = match pool {
        Ok(pool) => pool,
        Err(error) => {
            eprintln!("bare_walk: no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let root_fd = match openat(CWD, &root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(error) => {
            eprintln!("bare_walk: {}: {error}", root.display());
            return ExitCode::FAILURE;
        }
    };
    let count = pool.install(|| visit(root_fd));
    println!("{} directories, {} entries, {} unreadable", count.directories, count.entries, count.unreadable);
    ExitCode::SUCCESS
}

/// The directory and the number of threads (0: one a core); `None` if no directory is named.
fn arguments() -> Result<Option<(OsString, usize)>, String> {
    let mut root = None;
    let mut threads = 0;
    let mut rest = std::env::args_os().skip(1);
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            // What cargo passes to every benchmark or test.
            Some("--bench" | "--test") => {}
            Some("--threads") => {
                let value = rest.next().and_then(|value| value.to_str()?.parse().ok());
                threads = value.ok_or("--threads wants a number")?;
            }
            Some(flag) if flag.starts_with("--") => return Err(format!("unknown option {flag}")),
            _ if root.is_none() => root = Some(argument),
            _ => return Err("more than one directory".to_owned()),
        }
    }
    Ok(root.map(|root| (root, threads)))
}

/// A descriptor stays open for each level that a thread is in, which in deep trees is more than the usual 1024.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the walk still counts what it could not open.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn visit(directory: OwnedFd) -> Count {
    let mut children = Vec::new();
    let here = list(directory.as_fd(), &mut children);
    if children.is_empty() {
        return here;
    }
    here + visit_all(directory.as_fd(), &children)
}

/// Visits the children whose names `names` holds, each with its NUL; there is at least one.
fn visit_all(parent: BorrowedFd<'_>, names: &[u8]) -> Count {
    match halves(names) {
        Some((left, right)) => {
            let (left, right) = rayon::join(|| visit_all(parent, left), || visit_all(parent, right));
            left + right
        }
        None => {
            let name = CStr::from_bytes_with_nul(names).expect("one name with its NUL");
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(parent, name, flags, Mode::empty()) {
                Ok(fd) => visit(fd),
                Err(_) => Count { directories: 1, unreadable: 1, ..Count::default() },
            }
        }
    }
}

/// Cuts packed names at the NUL nearest behind the middle, or else before it; `None` if there is but one name.
fn halves(names: &[u8]) -> Option<(&[u8], &[u8])> {
    let last = names.len() - 1;
    let middle = last / 2;
    let behind = names[middle..last].iter().position(|&byte| byte == 0).map(|at| middle + at);
    let cut = behind.or_else(|| names[..middle].iter().rposition(|&byte| byte == 0))?;
    Some(names.split_at(cut + 1))
}

/// Lists one directory and packs the names of its child directories into `children`.
fn list(directory: BorrowedFd<'_>, children: &mut Vec<u8>) -> Count {
    BUFFER.with_borrow_mut(|buffer| {
        let mut count = Count { directories: 1, ..Count::default() };
        let mut entries = RawDir::new(directory, buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(_) => {
                    count.unreadable = 1;
                    break;
                }
            };
            let name = entry.file_name();
            match entry.file_type() {
                FileType::Directory if name == c"." || name == c".." => continue,
                FileType::Directory => children.extend_from_slice(name.to_bytes_with_nul()),
                FileType::Unknown if name == c"." || name == c".." => continue,
                FileType::Unknown if is_directory(directory, name) => {
                    children.extend_from_slice(name.to_bytes_with_nul());
                }
                _ => {}
            }
            count.entries += 1;
        }
        count
    })
}

#[cold]
fn is_directory(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
