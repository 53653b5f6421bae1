//! File system operations in bulk, timed: what `scripts/bench fuse` runs on a mount and on its source.
//!
//! ```text
//! fs_ops lstat LIST --root DIR
//! fs_ops read LIST --root DIR [--threads N]
//! fs_ops latency LIST --root DIR [--missing]
//! fs_ops seq FILE [--direct]
//! fs_ops rand FILE [--bytes N] [--count N] [--seed N]
//! ```
//!
//! A LIST holds paths below the root, each with a NUL behind it. They are looked up relative to the open root, and
//! nothing is allocated, listed or printed between two system calls, so that the driver costs next to nothing itself.
//!
//! - `lstat` looks at each; `read` opens each, reads it with one call and closes it, the list cut into as many parts as
//!   there are threads, which start together;
//! - `latency` opens the directory of each, untimed, and times the look at one name in it; with `--missing` at a name
//!   that is not there;
//! - `seq` reads a file from its beginning to its end, 1 MiB a call; `rand` reads at places that depend on the seed and
//!   the file's size alone, which are multiples of the size of a read.
//!
//! Each prints a line of JSON: `seconds`, how many calls there were (`count`), how many `bytes`, and a `sum` of what was
//! read or seen, the same for the same content. `latency` gives the `median` and the 99th percentile, `p99`, in seconds.

use std::ffi::{CStr, CString, OsString};
use std::mem::size_of;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::{Errno, pread, read};

const USAGE: &str = "usage: fs_ops lstat|read|latency LIST --root DIR [--threads N] [--missing] | seq FILE [--direct] | \
                     rand FILE [--bytes N] [--count N] [--seed N]";

/// A read of `seq`.
const SEQUENTIAL_BYTES: usize = 1 << 20;
/// Where buffers begin, and what `O_DIRECT` asks for on any device.
const PAGE: usize = 4096;
/// Larger than the files that are read, so that one call reads a whole one.
const SMALL_BYTES: usize = 64 << 10;

type Failed = String;

fn main() -> ExitCode {
    let done = match Options::parse() {
        Ok(Some(options)) => options.run(),
        // `cargo bench` and `cargo test` run every target, this one without a command.
        Ok(None) => {
            eprintln!("fs_ops: no command given, nothing measured; {USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("fs_ops: {message}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("fs_ops: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    command: String,
    file: OsString,
    root: OsString,
    threads: usize,
    missing: bool,
    direct: bool,
    bytes: usize,
    count: usize,
    seed: u64,
}

impl Options {
    fn parse() -> Result<Option<Self>, String> {
        let mut words = Vec::new();
        let mut options = Self {
            command: String::new(),
            file: OsString::new(),
            root: ".".into(),
            threads: 1,
            missing: false,
            direct: false,
            bytes: PAGE,
            count: 10_000,
            seed: 1,
        };
        let mut rest = std::env::args_os().skip(1);
        while let Some(word) = rest.next() {
            let mut number = |flag| {
                let value = rest.next().and_then(|value| value.to_str()?.parse::<usize>().ok());
                value.filter(|&value| value > 0).ok_or(format!("{flag} wants a number above 0"))
            };
            match word.to_str() {
                // What cargo passes to every benchmark or test.
                Some("--bench" | "--test") => {}
                Some("--missing") => options.missing = true,
                Some("--direct") => options.direct = true,
                Some("--threads") => options.threads = number("--threads")?,
                Some("--bytes") => options.bytes = number("--bytes")?,
                Some("--count") => options.count = number("--count")?,
                Some("--seed") => options.seed = number("--seed")? as u64,
                Some("--root") => options.root = rest.next().ok_or("--root wants a directory")?,
                Some(flag) if flag.starts_with("--") => return Err(format!("unknown option {flag}")),
                _ => words.push(word),
            }
        }
        match <[OsString; 2]>::try_from(words) {
            Ok([command, file]) => {
                options.command = command.into_string().unwrap_or_default();
                options.file = file;
                Ok(Some(options))
            }
            Err(words) if words.is_empty() => Ok(None),
            Err(_) => Err("a command, and one file".to_owned()),
        }
    }

    fn run(&self) -> Result<String, Failed> {
        match self.command.as_str() {
            "lstat" => lstat_all(self.open_root()?.as_fd(), &self.list()?).map(|measured| measured.json()),
            "read" => read_all(self.open_root()?.as_fd(), &self.list()?, self.threads).map(|measured| measured.json()),
            "latency" => latency(self.open_root()?.as_fd(), &self.list()?, self.missing),
            "seq" => sequential(&self.open_file()?).map(|measured| measured.json()),
            "rand" => random(&self.open_file()?, self.bytes, self.count, self.seed).map(|measured| measured.json()),
            other => Err(format!("unknown command {other}; {USAGE}")),
        }
    }

    fn open_root(&self) -> Result<OwnedFd, Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.root, flags, Mode::empty()).map_err(|error| format!("{}: {error}", self.root.display()))
    }

    fn open_file(&self) -> Result<OwnedFd, Failed> {
        let mut flags = OFlags::RDONLY | OFlags::CLOEXEC;
        flags.set(OFlags::DIRECT, self.direct);
        openat(CWD, &self.file, flags, Mode::empty()).map_err(|error| format!("{}: {error}", self.file.display()))
    }

    fn list(&self) -> Result<Vec<CString>, Failed> {
        let text = std::fs::read(&self.file).map_err(|error| format!("{}: {error}", self.file.display()))?;
        let paths = text.split_inclusive(|&byte| byte == 0);
        let paths = paths.map(|path| CStr::from_bytes_with_nul(path).map(CStr::to_owned));
        let paths: Result<Vec<_>, _> = paths.collect();
        match paths {
            Ok(paths) if !paths.is_empty() => Ok(paths),
            _ => Err(format!("{}: paths with a NUL behind each", self.file.display())),
        }
    }
}

/// What was done, and in which time.
#[derive(Clone, Copy, Default)]
struct Measured {
    time: Duration,
    count: u64,
    bytes: u64,
    sum: u64,
}

impl Measured {
    fn json(&self) -> String {
        let Self { time, count, bytes, sum } = self;
        let seconds = time.as_secs_f64();
        format!(r#"{{"seconds":{seconds:.9},"count":{count},"bytes":{bytes},"sum":{sum}}}"#)
    }

    /// Counts one read. Of what was read, eight bytes of each page count: more would take time that is not the file
    /// system's.
    fn add(&mut self, data: &[u8]) {
        self.count += 1;
        self.bytes += data.len() as u64;
        let pages = data.chunks(PAGE).filter_map(|page| page.first_chunk::<{ size_of::<u64>() }>());
        // The sum does not depend on how the reads were shared out among threads.
        self.sum = pages.fold(self.sum, |sum, &first| sum.wrapping_add(u64::from_le_bytes(first)));
    }

    fn join(self, other: Self) -> Self {
        Self {
            time: self.time.max(other.time),
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
            sum: self.sum.wrapping_add(other.sum),
        }
    }
}

fn named<T>(path: &CStr, done: Result<T, Errno>) -> Result<T, Failed> {
    done.map_err(|error| format!("{}: {error}", OsString::from_vec(path.to_bytes().to_vec()).display()))
}

fn lstat_all(root: BorrowedFd<'_>, paths: &[CString]) -> Result<Measured, Failed> {
    let mut measured = Measured::default();
    let began = Instant::now();
    for path in paths {
        let stat = named(path, statat(root, path, AtFlags::SYMLINK_NOFOLLOW))?;
        measured.count += 1;
        measured.sum = measured.sum.wrapping_add(stat.st_size as u64 ^ stat.st_mtime as u64);
    }
    measured.time = began.elapsed();
    Ok(measured)
}

fn read_all(root: BorrowedFd<'_>, paths: &[CString], threads: usize) -> Result<Measured, Failed> {
    let parts = paths.chunks(paths.len().div_ceil(threads));
    let start = Barrier::new(parts.len());
    std::thread::scope(|scope| {
        let parts: Vec<_> = parts.map(|part| scope.spawn(|| read_part(root, part, &start))).collect();
        parts.into_iter().try_fold(Measured::default(), |all, part| {
            Ok(all.join(part.join().map_err(|_| "a thread panicked".to_owned())??))
        })
    })
}

fn read_part(root: BorrowedFd<'_>, paths: &[CString], start: &Barrier) -> Result<Measured, Failed> {
    let mut buffer = vec![0; SMALL_BYTES];
    let mut measured = Measured::default();
    start.wait();
    let began = Instant::now();
    for path in paths {
        let file = named(path, openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))?;
        let length = named(path, read(&file, &mut buffer[..]))?;
        drop(file);
        measured.add(&buffer[..length]);
    }
    measured.time = began.elapsed();
    Ok(measured)
}

fn latency(root: BorrowedFd<'_>, paths: &[CString], missing: bool) -> Result<String, Failed> {
    let mut times = Vec::with_capacity(paths.len());
    for path in paths {
        let bytes = path.to_bytes();
        let (directory, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&b"."[..], bytes),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = named(path, openat(root, directory, flags, Mode::empty()))?;
        let name = [name, if missing { b".missing\0" } else { b"\0" }].concat();
        let name = CStr::from_bytes_until_nul(&name).map_err(|error| error.to_string())?;
        let began = Instant::now();
        let found = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
        times.push(began.elapsed());
        match found {
            Err(Errno::NOENT) if missing => {}
            Ok(_) if missing => return Err(format!("{}: is there", name.to_string_lossy())),
            found => drop(named(path, found)?),
        }
    }
    times.sort_unstable();
    let rank = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64();
    let (median, p99, count) = (rank(50), rank(99), times.len());
    Ok(format!(r#"{{"median":{median:.9},"p99":{p99:.9},"count":{count}}}"#))
}

fn sequential(file: &OwnedFd) -> Result<Measured, Failed> {
    let mut space = vec![0; SEQUENTIAL_BYTES + PAGE];
    let buffer = aligned(&mut space, SEQUENTIAL_BYTES);
    let mut measured = Measured::default();
    let began = Instant::now();
    loop {
        match read(file, &mut *buffer).map_err(|error| error.to_string())? {
            0 => break,
            length => measured.add(&buffer[..length]),
        }
    }
    measured.time = began.elapsed();
    Ok(measured)
}

fn random(file: &OwnedFd, bytes: usize, count: usize, seed: u64) -> Result<Measured, Failed> {
    let size = fstat(file).map_err(|error| error.to_string())?.st_size as u64;
    let places = size / bytes as u64;
    if places == 0 {
        return Err(format!("a file of at least {bytes} bytes"));
    }
    let mut space = vec![0; bytes + PAGE];
    let buffer = aligned(&mut space, bytes);
    let mut measured = Measured::default();
    let mut state = seed;
    let began = Instant::now();
    for _ in 0..count {
        let offset = split_mix(&mut state) % places * bytes as u64;
        let length = pread(file, &mut *buffer, offset).map_err(|error| error.to_string())?;
        measured.add(&buffer[..length]);
    }
    measured.time = began.elapsed();
    Ok(measured)
}

/// A part of `space`, which is a page longer, that begins with a page.
fn aligned(space: &mut [u8], length: usize) -> &mut [u8] {
    let start = space.as_ptr().align_offset(PAGE);
    &mut space[start..start + length]
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same places for all that are measured.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
