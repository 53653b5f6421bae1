//! Opening, reading and seeking.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv, preadv2, read, readv};

use super::cases::{Site, Table, digest, errno, open, said, said_as, value, with};
use super::fixture::{DIRS, FILES, LINKS, LOST, SPECIAL};

/// Flags that ask for nothing that a read-only file system refuses.
const READING: [(&str, OFlags); 15] = [
    ("RDONLY", OFlags::RDONLY),
    ("DIRECTORY", OFlags::DIRECTORY),
    ("NOFOLLOW", OFlags::NOFOLLOW),
    ("DIRECTORY|NOFOLLOW", OFlags::DIRECTORY.union(OFlags::NOFOLLOW)),
    ("PATH", OFlags::PATH),
    ("PATH|NOFOLLOW", OFlags::PATH.union(OFlags::NOFOLLOW)),
    ("PATH|DIRECTORY", OFlags::PATH.union(OFlags::DIRECTORY)),
    ("NOATIME", OFlags::NOATIME),
    ("DIRECT", OFlags::DIRECT),
    ("APPEND", OFlags::APPEND),
    ("SYNC", OFlags::SYNC),
    ("DSYNC", OFlags::DSYNC),
    ("NOCTTY", OFlags::NOCTTY),
    ("EXCL", OFlags::EXCL),
    // Where its low bits say neither read nor write, the kernel asks for both.
    ("ACCMODE", OFlags::RDWR.union(OFlags::WRONLY)),
];

/// Flags that ask for what it refuses, of what is there already at least.
const WRITING: [(&str, OFlags); 18] = [
    ("WRONLY", OFlags::WRONLY),
    ("RDWR", OFlags::RDWR),
    ("WRONLY|APPEND", OFlags::WRONLY.union(OFlags::APPEND)),
    ("WRONLY|DIRECTORY", OFlags::WRONLY.union(OFlags::DIRECTORY)),
    ("WRONLY|NOFOLLOW", OFlags::WRONLY.union(OFlags::NOFOLLOW)),
    ("RDWR|DIRECT", OFlags::RDWR.union(OFlags::DIRECT)),
    ("TRUNC", OFlags::TRUNC),
    ("WRONLY|TRUNC", OFlags::WRONLY.union(OFlags::TRUNC)),
    ("RDWR|TRUNC", OFlags::RDWR.union(OFlags::TRUNC)),
    ("CREATE", OFlags::CREATE),
    ("CREATE|WRONLY", OFlags::CREATE.union(OFlags::WRONLY)),
    ("CREATE|EXCL", OFlags::CREATE.union(OFlags::EXCL)),
    ("CREATE|EXCL|WRONLY", OFlags::CREATE.union(OFlags::EXCL).union(OFlags::WRONLY)),
    ("CREATE|TRUNC|WRONLY", OFlags::CREATE.union(OFlags::TRUNC).union(OFlags::WRONLY)),
    ("CREATE|DIRECTORY", OFlags::CREATE.union(OFlags::DIRECTORY)),
    ("TMPFILE", OFlags::TMPFILE),
    ("TMPFILE|WRONLY", OFlags::TMPFILE.union(OFlags::WRONLY)),
    ("TMPFILE|RDWR", OFlags::TMPFILE.union(OFlags::RDWR)),
];

/// What is opened in all ways; none of it leads anywhere else.
const OPENED: [&str; 21] = [
    "empty",
    "one",
    "1m+3",
    "mode000",
    "mode400",
    "script",
    ".",
    "dir",
    "dir/.",
    "dir/..",
    "dir/",
    "bare",
    "private",
    "private/inside",
    "unsearchable/inside",
    "unlisted/inside",
    "one/",
    "one/x",
    "no-such",
    "no-such/",
    "no-such/x",
];

pub(super) fn add(table: &mut Table) {
    opens(table);
    reads(table);
    seeks(table);
}

fn opens(table: &mut Table) {
    for path in OPENED {
        for (flags_name, flags) in READING.into_iter().chain(WRITING) {
            table.add(format!("open {path} {flags_name}"), move |site| opened(site, path, flags));
        }
    }
    for path in LINKS.into_iter().chain(LOST).chain(SPECIAL) {
        for (flags_name, flags) in READING {
            // What is behind a link may be written to, and a pipe waits for its other end.
            let flags = flags | OFlags::NONBLOCK;
            if flags_name != "ACCMODE" {
                table.add(format!("open {path} {flags_name}"), move |site| opened(site, path, flags));
            }
        }
    }
    for path in SPECIAL {
        for (flags_name, flags) in WRITING {
            if !flags_name.contains("TRUNC") {
                table
                    .add(format!("open {path} {flags_name}"), move |site| opened(site, path, flags | OFlags::NONBLOCK));
            }
        }
    }
}

/// The flags that the open file has, and what its first byte is.
fn opened(site: &Site, path: &str, flags: OFlags) -> String {
    said_as(open(&site.at(path), flags), |fd| {
        let now = rustix::fs::fcntl_getfl(&fd).map(|flags| format!("{:o}", flags.bits()));
        let direct = flags.contains(OFlags::DIRECT);
        let mut aligned = vec![0; 4096 + 512];
        let from = aligned.as_ptr().align_offset(512);
        let first = if direct { said(pread(&fd, &mut aligned[from..from + 4096], 0)) } else { byte(&fd) };
        format!("{} first {first}", value(now))
    })
}

fn byte(fd: &OwnedFd) -> String {
    let mut byte = [0; 1];
    said_as(read(fd, &mut byte), |count| digest(&byte[..count]))
}

/// Offsets at which something is different, for a file of this size.
fn offsets(size: u64) -> Vec<u64> {
    let mut all = vec![0, 1, 511, 4095, 4096, 4097, 131_071, 1 << 20, size / 2, size, size + 1, size + 100_000];
    all.extend([size.saturating_sub(1), 1 << 40, i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX, 1 << 63]);
    all
}

const LENGTHS: [usize; 7] = [0, 1, 100, 4096, 5000, 70_000, 2 << 20];

fn reads(table: &mut Table) {
    for name in FILES {
        table.add(format!("read {name} whole"), move |site| with(site, name, |fd| whole(fd, 1 << 16)));
        table.add(format!("read {name} in odd pieces"), move |site| with(site, name, |fd| whole(fd, 9973)));
        for (at, label) in ["0", "1", "511", "4095", "4096", "4097", "128k-1", "1m", "middle", "end", "end+1", "far"]
            .into_iter()
            .chain(["end-1", "1t", "max-1", "max", "-1", "min"])
            .enumerate()
        {
            table.add(format!("pread {name} at {label}"), move |site| {
                with(site, name, |fd| {
                    let offset = offsets(size(fd))[at];
                    LENGTHS.map(|length| piece(pread(fd, &mut vec![0; length], offset), fd, offset)).join(" ")
                })
            });
        }
        table.add(format!("preadv {name}"), move |site| with(site, name, vectors));
        table.add(format!("pread {name} O_DIRECT"), move |site| direct(site, name));
        table.add(format!("pread {name} O_DIRECT unaligned"), move |site| {
            said_as(open(&site.at(name), OFlags::DIRECT), |fd| {
                [(0, 100), (1, 4096), (4096, 513)]
                    .map(|(at, length)| said(pread(&fd, &mut vec![0; length], at)))
                    .join(" ")
            })
        });
    }
    for path in DIRS {
        table.add(format!("read {path}"), move |site| with(site, path, byte));
        table.add(format!("pread {path}"), move |site| with(site, path, |fd| value(pread(fd, &mut [0; 10], 0))));
    }
    table.add("read O_PATH", |site| said_as(open(&site.at("one"), OFlags::PATH), |fd| byte(&fd)));
    table.add("read with RWF flags", |site| {
        with(site, "page", |fd| {
            [ReadWriteFlags::HIPRI, ReadWriteFlags::SYNC, ReadWriteFlags::APPEND, ReadWriteFlags::DSYNC]
                .map(|flags| value(preadv2(fd, &mut [IoSliceMut::new(&mut [0; 100])], 10, flags)))
                .join(" ")
        })
    });
    table.add("write to what is open for reading", |site| {
        with(site, "one", |fd| said(rustix::io::write(fd, b"x")) + " " + &said(rustix::io::pwrite(fd, b"x", 0)))
    });
    table.add("two descriptors of one open file share a position", |site| {
        with(site, "page", |fd| {
            let twin = rustix::io::dup(fd).expect("a descriptor");
            format!("{} {} {}", byte(fd), byte(&twin), value(rustix::fs::tell(fd)))
        })
    });
}

fn size(fd: &OwnedFd) -> u64 {
    rustix::fs::fstat(fd).map_or(0, |stat| stat.st_size as u64)
}

/// What a read at `offset` gave, read once more as a whole so that its bytes are in the answer.
fn piece(result: Result<usize, Errno>, fd: &OwnedFd, offset: u64) -> String {
    said_as(result, |count| {
        let mut again = vec![0; count];
        said_as(pread(fd, &mut again, offset), |count| digest(&again[..count]))
    })
}

fn whole(fd: &OwnedFd, length: usize) -> String {
    let (mut all, mut buffer) = (Vec::new(), vec![0; length]);
    loop {
        match read(fd, &mut buffer) {
            Ok(0) => return digest(&all),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => return errno(error),
        }
    }
}

fn vectors(fd: &OwnedFd) -> String {
    let mut said = Vec::new();
    for offset in [0, 3, 4090, 131_000] {
        let (mut a, mut none, mut b, mut c) = (vec![0; 7], vec![], vec![0; 4096], vec![0; 150_000]);
        let mut into = [&mut a, &mut none, &mut b, &mut c].map(|part| IoSliceMut::new(part));
        let count = preadv(fd, &mut into, offset);
        said.push(format!("{} {}", value(count), digest(&[a, b, c].concat())));
    }
    let mut first = [0; 10];
    said.push(value(readv(fd, &mut [IoSliceMut::new(&mut first)])) + &digest(&first));
    said.push(value(preadv(fd, &mut [], 0)));
    said.join(" ")
}

/// Reads past the page cache, aligned and not.
fn direct(site: &Site, name: &str) -> String {
    said_as(open(&site.at(name), OFlags::DIRECT), |fd| {
        let mut space = vec![0; (128 << 10) + 4096];
        let from = space.as_ptr().align_offset(4096);
        let buffer = &mut space[from..from + (128 << 10)];
        let mut all = Vec::new();
        for offset in [0, 4096, 128 << 10, 1 << 20] {
            let got = pread(&fd, &mut *buffer, offset);
            all.push(said_as(got, |count| digest(&buffer[..count])));
        }
        all.join(" ")
    })
}

/// Where to go in a file of this size.
type Way = fn(u64) -> SeekFrom;

fn seeks(table: &mut Table) {
    let ways: [(&str, Way); 16] = [
        ("SET 0", |_| SeekFrom::Start(0)),
        ("SET past the end", |size| SeekFrom::Start(size + 12_345)),
        ("SET max", |_| SeekFrom::Start(i64::MAX as u64)),
        ("SET -1", |_| SeekFrom::Start(u64::MAX)),
        ("CUR 3", |_| SeekFrom::Current(3)),
        ("CUR -1", |_| SeekFrom::Current(-1)),
        ("END 0", |_| SeekFrom::End(0)),
        ("END -1", |_| SeekFrom::End(-1)),
        ("END 1000", |_| SeekFrom::End(1000)),
        ("DATA 0", |_| SeekFrom::Data(0)),
        ("DATA middle", |size| SeekFrom::Data(size / 2)),
        ("DATA end", SeekFrom::Data),
        ("HOLE 0", |_| SeekFrom::Hole(0)),
        ("HOLE 1m+1", |_| SeekFrom::Hole((1 << 20) + 1)),
        ("HOLE end-1", |size| SeekFrom::Hole(size.saturating_sub(1))),
        ("HOLE past the end", |size| SeekFrom::Hole(size + 1)),
    ];
    for name in FILES {
        for (label, way) in ways {
            table.add(format!("lseek {name} {label}"), move |site| {
                with(site, name, |fd| {
                    let moved = rustix::fs::seek(fd, way(size(fd)));
                    format!("{} then {} {}", value(moved), value(rustix::fs::tell(fd)), byte(fd))
                })
            });
        }
        table.add(format!("lseek {name} every hole"), move |site| with(site, name, extents));
    }
    for path in ["fifo", "socket", "null"] {
        table.add(format!("lseek {path}"), move |site| {
            with(site, path, |fd| value(rustix::fs::seek(fd, SeekFrom::Current(0))))
        });
    }
    for (label, way) in
        [("SET 0", SeekFrom::Start(0)), ("CUR 0", SeekFrom::Current(0)), ("SET -1", SeekFrom::Start(u64::MAX))]
    {
        table.add(format!("lseek dir {label}"), move |site| with(site, "dir", |fd| value(rustix::fs::seek(fd, way))));
    }
}

/// Where data begins and ends, as copying programs find out.
fn extents(fd: &OwnedFd) -> String {
    let mut all = Vec::new();
    let mut at = 0;
    loop {
        match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(data) => {
                let hole = rustix::fs::seek(fd, SeekFrom::Hole(data));
                all.push(format!("{data}-{}", value(hole)));
                match hole {
                    Ok(hole) if hole > at => at = hole,
                    _ => return all.join(" "),
                }
            }
            Err(error) => {
                all.push(errno(error));
                return all.join(" ");
            }
        }
    }
}
