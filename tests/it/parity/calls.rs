//! What else programs ask of files: copies by the kernel, locks, attributes, programs, events.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, epoll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, OFlags, StatVfs, StatVfsMountFlags};
use rustix::io::Errno;

use super::cases::{Site, Table, digest, errno, open, said, said_as, value, with};
use super::fixture::{DIRS, FILES, SPECIAL};

pub(super) fn add(table: &mut Table) {
    copies(table);
    locks(table);
    xattrs(table);
    programs(table);
    events(table);
    file_system(table);
    refused(table);
}

/// A file that nobody else sees, on a file system of its own.
fn memory() -> OwnedFd {
    rustix::fs::memfd_create("copy", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory")
}

/// A file without a name beside the tree.
fn beside(site: &Site) -> OwnedFd {
    rustix::fs::open(&site.scratch, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR).expect("a file beside the tree")
}

fn content(fd: &OwnedFd) -> String {
    let mut all = vec![0; 4 << 20];
    let mut length = 0;
    loop {
        match rustix::io::pread(fd, &mut all[length..], length as u64) {
            Ok(0) => return digest(&all[..length]),
            Ok(count) => length += count,
            Err(error) => return errno(error),
        }
    }
}

/// Copies piece by piece until nothing comes.
fn copied(to: &OwnedFd, mut piece: impl FnMut() -> Result<usize, Errno>) -> String {
    loop {
        match piece() {
            Ok(0) => return content(to),
            Ok(_) => {}
            Err(error) => return format!("{} after {}", errno(error), content(to)),
        }
    }
}

fn copies(table: &mut Table) {
    for path in FILES.into_iter().chain(["dir", "fifo", "link"]) {
        table.add(format!("sendfile {path}"), move |site| {
            let to = memory();
            with(site, path, |fd| copied(&to, || rustix::fs::sendfile(&to, fd, None, 300_000)))
        });
        table.add(format!("sendfile {path} from the middle"), move |site| {
            let (to, mut from) = (memory(), 3000);
            with(site, path, |fd| {
                let all = copied(&to, || rustix::fs::sendfile(&to, fd, Some(&mut from), 70_000));
                format!("{all} {}", value(rustix::fs::tell(fd)))
            })
        });
        table.add(format!("copy_file_range {path} beside"), move |site| {
            let to = beside(site);
            with(site, path, |fd| copied(&to, || rustix::fs::copy_file_range(fd, None, &to, None, 300_000)))
        });
        table.add(format!("copy_file_range {path} elsewhere"), move |site| {
            let to = memory();
            with(site, path, |fd| copied(&to, || rustix::fs::copy_file_range(fd, None, &to, None, 300_000)))
        });
        table.add(format!("io::copy {path}"), move |site| {
            let to = beside(site);
            with(site, path, |fd| {
                let mut from = File::from(fd.try_clone().expect("a descriptor"));
                let mut into = File::from(to.try_clone().expect("a descriptor"));
                let count = std::io::copy(&mut from, &mut into);
                format!("{:?} {}", count.map_err(|error| error.raw_os_error()), content(&to))
            })
        });
    }
    table.add("copy_file_range behind the end", |site| {
        let to = memory();
        with(site, "page", |fd| value(rustix::fs::copy_file_range(fd, Some(&mut 5000), &to, Some(&mut 0), 10)))
    });
    table.add("FICLONE into a file beside", |site| {
        let to = beside(site);
        with(site, "page", |fd| said_as(rustix::fs::ioctl_ficlone(&to, fd), |()| content(&to)))
    });
    table.add("cat into a pipe", |site| output(Command::new("cat").arg(site.at("1m+3"))));
    table.add("cp", |site| {
        let to = site.scratch.join(format!("copy-{}", std::process::id()));
        let said = output(Command::new("cp").args([site.at("sparse"), to.clone()]));
        let copy = File::open(&to).map(OwnedFd::from).map(|fd| content(&fd));
        let _ = std::fs::remove_file(&to);
        format!("{said} {copy:?}")
    });
}

fn locks(table: &mut Table) {
    use FlockOperation::{NonBlockingLockExclusive as Own, NonBlockingLockShared as Shared, Unlock};
    let ways: [(&str, &[(usize, FlockOperation)]); 6] = [
        ("two shared", &[(0, Shared), (1, Shared), (0, Unlock), (1, Unlock)]),
        ("shared then exclusive", &[(0, Shared), (1, Own), (0, Unlock), (1, Own)]),
        ("exclusive then shared", &[(0, Own), (1, Shared), (0, Unlock), (1, Shared)]),
        ("exclusive twice", &[(0, Own), (1, Own), (0, Own)]),
        ("turned into another", &[(0, Shared), (0, Own), (1, Shared), (0, Shared), (1, Shared), (0, Own)]),
        ("unlocked unasked", &[(0, Unlock), (1, Unlock)]),
    ];
    for path in ["page", "1m+3", "dir", "hard"] {
        for (label, steps) in ways {
            table.add(format!("flock {path} {label}"), move |site| {
                with(site, path, |one| {
                    with(site, if path == "hard" { "page" } else { path }, |two| {
                        steps
                            .iter()
                            .map(|(at, how)| said(rustix::fs::flock([one, two][*at], *how)))
                            .collect::<Vec<_>>()
                            .join(" ")
                    })
                })
            });
        }
        table.add(format!("flock {path} ends with the file"), move |site| {
            let first = with(site, path, |fd| said(rustix::fs::flock(fd, Own)));
            first + " " + &with(site, path, |fd| said(rustix::fs::flock(fd, Own)))
        });
    }
    table.add("flock O_PATH", |site| {
        said_as(open(&site.at("page"), OFlags::PATH), |fd| said(rustix::fs::flock(&fd, Shared)))
    });
    for (label, how) in [("read", Shared), ("write", Own), ("none", Unlock)] {
        table.add(format!("fcntl_lock {label}"), move |site| {
            with(site, "page", |fd| said(rustix::fs::fcntl_lock(fd, how)))
        });
    }
}

/// A list of names but for veinfs's own, sorted.
fn names(result: Result<Vec<u8>, Errno>) -> String {
    said_as(result, |bytes| {
        let mut names: Vec<String> = bytes
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty() && !name.starts_with(b"user.veinfs."))
            .map(|name| name.escape_ascii().to_string())
            .collect();
        names.sort();
        format!("[{}]", names.join(" "))
    })
}

fn sized(length: usize, get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; length];
    let count = get(&mut buffer)?;
    // A question for the length alone fills nothing.
    buffer.resize(count, 0);
    Ok(buffer)
}

fn xattrs(table: &mut Table) {
    use rustix::fs::{fgetxattr, getxattr, lgetxattr, listxattr, llistxattr};
    let long = format!("user.{}", "x".repeat(251));
    let asked = [
        "user.colour",
        "user.none",
        "user.long",
        "user.no-such",
        "user.",
        "user",
        "trusted.colour",
        "trusted.no",
        "security.selinux",
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "system.no",
        "no.such",
        "",
        &long,
    ]
    .map(str::to_owned);
    for path in
        ["page", "dir", "empty", "link", "dangling", "fifo", "null", "mode000", "private/inside", "no-such", "one/x"]
    {
        for name in asked.clone() {
            table.add(format!("getxattr {name} {path}"), move |site| {
                let of =
                    |length| said_as(sized(length, |b| getxattr(site.at(path), &*name, b)), |value| digest(&value));
                [of(0), of(1), of(4), of(900), of(1 << 16)].join(" ")
            });
        }
        table.add(format!("lgetxattr {path}"), move |site| {
            said_as(sized(100, |b| lgetxattr(site.at(path), "user.colour", b)), |value| digest(&value))
        });
        table.add(format!("fgetxattr {path}"), move |site| {
            with(site, path, |fd| said_as(sized(100, |b| fgetxattr(fd, "user.colour", b)), |value| digest(&value)))
        });
        table.add(format!("listxattr {path}"), move |site| names(sized(1 << 16, |b| listxattr(site.at(path), b))));
        table.add(format!("llistxattr {path}"), move |site| names(sized(1 << 16, |b| llistxattr(site.at(path), b))));
        table.add(format!("listxattr into one byte {path}"), move |site| {
            names(sized(1, |b| listxattr(site.at(path), b)))
        });
    }
    table.add("fgetxattr O_PATH", |site| {
        said_as(open(&site.at("page"), OFlags::PATH), |fd| {
            said_as(sized(100, |b| fgetxattr(&fd, "user.colour", b)), |value| digest(&value))
        })
    });
}

/// What a program says, and how it ends.
fn output(command: &mut Command) -> String {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => format!("{} {:?} {}", digest(&output.stdout), output.status.code(), output.stderr.is_empty()),
        Err(error) => format!("{:?}", error.raw_os_error().map(|number| errno(Errno::from_raw_os_error(number)))),
    }
}

fn programs(table: &mut Table) {
    for path in
        ["script", "elf", "text", "page", "mode755", "empty", "dir", "no-such", "one/x", "fifo", "null", "link", "suid"]
    {
        table.add(format!("exec {path}"), move |site| output(Command::new(site.at(path)).arg("words")));
    }
    table.add("exec as an interpreter", |site| {
        let script = site.scratch.join(format!("script-{}", std::process::id()));
        std::fs::write(&script, format!("#!{} said\n", site.at("elf").display())).expect("a script");
        let said = output(
            Command::new("sh").arg("-c").arg(". \"$1\"; \"$2\" said").arg("sh").args([&script, &site.at("elf")]),
        );
        let _ = std::fs::remove_file(&script);
        said
    });
    table.add("run in a directory of it", |site| output(Command::new("ls").arg("-A").current_dir(site.at("dir"))));
    table.add("run in a directory that is shut", |site| output(Command::new("ls").current_dir(site.at("private"))));
    table.add("run in a file", |site| output(Command::new("ls").current_dir(site.at("one"))));
}

fn events(table: &mut Table) {
    for path in ["page", "dir", "fifo", "null"] {
        table.add(format!("poll {path}"), move |site| {
            with(site, path, |fd| {
                let mut asked = [PollFd::new(fd, PollFlags::IN | PollFlags::OUT | PollFlags::PRI)];
                let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
                let count = rustix::event::poll(&mut asked, Some(&now));
                format!("{} {:?}", value(count), asked[0].revents())
            })
        });
        table.add(format!("epoll {path}"), move |site| {
            with(site, path, |fd| {
                let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a set");
                said(epoll::add(&set, fd, epoll::EventData::new_u64(1), epoll::EventFlags::IN))
            })
        });
    }
    let watch = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::DELETE;
    for path in ["page", "dir", "no-such", "private", "private/inside", "mode000", "link", "dangling", "fifo", "one/x"]
    {
        for (label, flags) in [
            ("plain", watch),
            ("ONLYDIR", watch.union(WatchFlags::ONLYDIR)),
            ("DONT_FOLLOW", watch.union(WatchFlags::DONT_FOLLOW)),
        ] {
            table.add(format!("inotify {path} {label}"), move |site| {
                let fd = inotify::init(CreateFlags::CLOEXEC).expect("inotify");
                let added = inotify::add_watch(&fd, site.at(path), flags);
                let again = inotify::add_watch(&fd, site.at(path), flags);
                let removed = added.and_then(|wd| inotify::remove_watch(&fd, wd));
                format!("{} {} {}", said(added), added == again, said(removed))
            })
        }
    }
    table.add("inotify tells of an open", |site| {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        let flags = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE;
        let added = inotify::add_watch(&fd, site.at("dir"), flags);
        let _ = with(site, "dir/one", content);
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&fd, &mut space);
        let mut seen = Vec::new();
        while let Ok(event) = reader.next() {
            seen.push(format!("{:?} {:?}", event.events(), event.file_name()));
        }
        seen.dedup();
        format!("{} {}", said(added), seen.join(" "))
    });
}

/// What does not move while others write to the disk.
fn steady(stat: &StatVfs) -> String {
    // Mounts update times of access each as they please.
    let flags =
        stat.f_flag - (StatVfsMountFlags::RELATIME | StatVfsMountFlags::NOATIME | StatVfsMountFlags::NODIRATIME);
    format!("{} {} {} {} {} {flags:?}", stat.f_bsize, stat.f_frsize, stat.f_blocks, stat.f_files, stat.f_namemax)
}

fn file_system(table: &mut Table) {
    for path in ["page", ".", "dir", "fifo", "no-such", "one/x", "private/inside", "dangling"] {
        table.add(format!("statvfs {path}"), move |site| {
            said_as(rustix::fs::statvfs(site.at(path)), |stat| steady(&stat))
        });
    }
    table.add("fstatvfs page", |site| with(site, "page", |fd| said_as(rustix::fs::fstatvfs(fd), |stat| steady(&stat))));
    table.add("statfs type", |site| said_as(rustix::fs::statfs(site.at("page")), |stat| format!("{:x}", stat.f_type)));
    for path in FILES.into_iter().chain(DIRS).chain(SPECIAL) {
        table.add(format!("fsync {path}"), move |site| {
            with(site, path, |fd| said(rustix::fs::fsync(fd)) + " " + &said(rustix::fs::fdatasync(fd)))
        });
    }
    table.add("syncfs", |site| with(site, "page", |fd| said(rustix::fs::syncfs(fd))));
    for path in ["page", "1m+3", "sparse", "dir", "fifo"] {
        for advice in
            [Advice::Normal, Advice::Sequential, Advice::Random, Advice::NoReuse, Advice::WillNeed, Advice::DontNeed]
        {
            table.add(format!("fadvise {advice:?} {path}"), move |site| {
                with(site, path, |fd| {
                    let all = said(rustix::fs::fadvise(fd, 0, None, advice));
                    let behind = said(rustix::fs::fadvise(fd, 1 << 30, std::num::NonZeroU64::new(4096), advice));
                    let first = said_as(rustix::io::pread(fd, &mut [0; 100], 0), |count| count);
                    format!("{all} {behind} {first}")
                })
            });
        }
    }
    for path in ["page", "dir", "empty", "fifo"] {
        table.add(format!("FIONREAD {path}"), move |site| {
            with(site, path, |fd| {
                let _ = rustix::io::read(fd, &mut [0; 10]);
                value(rustix::io::ioctl_fionread(fd))
            })
        });
        table.add(format!("FS_IOC_GETFLAGS {path}"), move |site| {
            with(site, path, |fd| said_as(rustix::fs::ioctl_getflags(fd), |flags| format!("{:x}", flags.bits())))
        });
        table.add(format!("O_NONBLOCK set later {path}"), move |site| {
            with(site, path, |fd| {
                let set = |flags| said(rustix::fs::fcntl_setfl(fd, flags));
                let all = [set(OFlags::NONBLOCK), set(OFlags::APPEND), set(OFlags::DIRECT), set(OFlags::NOATIME)];
                let now = rustix::fs::fcntl_getfl(fd).map(|flags| format!("{:o}", flags.bits()));
                format!("{} {}", all.join(" "), value(now))
            })
        });
    }
}

/// What is refused of what is open for reading; what goes by path is in `refusals`.
fn refused(table: &mut Table) {
    for path in ["page", "1m+3", "dir", "empty"] {
        table.add(format!("ftruncate {path}"), move |site| with(site, path, |fd| said(rustix::fs::ftruncate(fd, 1))));
        for (label, mode) in [
            ("", FallocateFlags::empty()),
            ("KEEP_SIZE", FallocateFlags::KEEP_SIZE),
            ("PUNCH_HOLE", FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE)),
            ("ZERO_RANGE", FallocateFlags::ZERO_RANGE),
            ("COLLAPSE_RANGE", FallocateFlags::COLLAPSE_RANGE),
        ] {
            table.add(format!("fallocate {label} {path}"), move |site| {
                with(site, path, |fd| said(rustix::fs::fallocate(fd, mode, 0, 4096)))
            });
        }
        table
            .add(format!("fchmod {path}"), move |site| with(site, path, |fd| said(rustix::fs::fchmod(fd, Mode::RUSR))));
        table.add(format!("futimens {path}"), move |site| {
            let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 1 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            with(site, path, |fd| said(rustix::fs::futimens(fd, &times)))
        });
        table.add(format!("fsetxattr {path}"), move |site| {
            with(site, path, |fd| said(rustix::fs::fsetxattr(fd, "user.new", b"1", rustix::fs::XattrFlags::empty())))
        });
    }
}
