"""The system calls that Rust lets no safe code make. Prints `name<TAB>what came of it` for each case.

usage: raw.py ROOT: a tree made by fixture.rs
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
import zlib

root = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
libc.readahead.argtypes = [ctypes.c_int, ctypes.c_longlong, ctypes.c_size_t]
libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong, ctypes.c_uint]
libc.splice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
libc.name_to_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
FAILED = ctypes.c_void_p(-1).value
PAGE = mmap.PAGESIZE


def path(name):
    return os.path.join(root, name)


def fault():
    return errno.errorcode[ctypes.get_errno()]


def say(name, what):
    print(name, what, sep="\t")


def case(name, file, act, flags=os.O_RDONLY):
    try:
        fd = os.open(path(file), flags | os.O_CLOEXEC)
    except OSError as error:
        return say(name, "open: " + errno.errorcode[error.errno])
    try:
        say(name, act(fd))
    except OSError as error:
        say(name, errno.errorcode[error.errno])
    finally:
        os.close(fd)


def digest(data):
    return f"{len(data)}:{zlib.crc32(data):08x}"


def status(result):
    return fault() if result == -1 else str(result)


# Mapped memory.


def mapped(length, prot, flags, offset=0, use=None):
    def act(fd):
        at = libc.mmap(None, length, prot, flags, fd, offset)
        if at == FAILED:
            return fault()
        try:
            return use(at) if use else "ok"
        finally:
            libc.munmap(at, length)

    return act


def bytes_of(length):
    return lambda at: digest(ctypes.string_at(at, length))


def write_private(at):
    ctypes.memset(at, 1, 10)
    return digest(ctypes.string_at(at, 100)) + " " + status(libc.msync(at, PAGE, 4))


def through(at):
    """What another call says of a mapping."""
    return lambda call: status(call(at))


for file in ["one", "page-1", "page", "page+1", "128k", "1m+3", "sparse", "hole"]:
    size = os.stat(path(file)).st_size
    whole = -(-size // PAGE) * PAGE
    for kind, flag in [("shared", mmap.MAP_SHARED), ("private", mmap.MAP_PRIVATE)]:
        # Behind the file's end the rest of the page is zeros.
        case(f"mmap {kind} {file}", file, mapped(whole, mmap.PROT_READ, flag, 0, bytes_of(whole)))
        case(f"mmap {kind} EXEC {file}", file, mapped(whole, mmap.PROT_READ | mmap.PROT_EXEC, flag, 0, bytes_of(whole)))
        if size > PAGE:
            rest = whole - PAGE
            case(f"mmap {kind} from the second page {file}", file, mapped(rest, mmap.PROT_READ, flag, PAGE, bytes_of(rest)))
        case(f"mmap {kind} WRITE {file}", file, mapped(PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flag))
        case(f"mmap {kind} behind the end {file}", file, mapped(PAGE, mmap.PROT_READ, flag, whole + PAGE))
    case(f"mmap private written {file}", file, mapped(PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, 0, write_private))
    case(f"mmap shared validate {file}", file, mapped(PAGE, mmap.PROT_READ, 0x03))
    case(f"mmap populated {file}", file, mapped(whole, mmap.PROT_READ, mmap.MAP_SHARED | 0x8000, 0, bytes_of(size)))
    case(f"mmap nothing {file}", file, mapped(0, mmap.PROT_READ, mmap.MAP_SHARED))
    case(f"mmap odd offset {file}", file, mapped(PAGE, mmap.PROT_READ, mmap.MAP_SHARED, 100))
    case(f"mmap then mprotect WRITE {file}", file, mapped(PAGE, mmap.PROT_READ, mmap.MAP_SHARED, 0,
         lambda at: status(libc.mprotect(at, PAGE, mmap.PROT_READ | mmap.PROT_WRITE))))
    case(f"mmap then msync {file}", file, mapped(PAGE, mmap.PROT_READ, mmap.MAP_SHARED, 0,
         lambda at: status(libc.msync(at, PAGE, 4))))
    for advice in range(0, 5):
        case(f"mmap then madvise {advice} {file}", file, mapped(whole, mmap.PROT_READ, mmap.MAP_SHARED, 0,
             lambda at: status(libc.madvise(at, whole, advice)) + " " + digest(ctypes.string_at(at, size))))
    case(f"mmap O_DIRECT {file}", file, mapped(whole, mmap.PROT_READ, mmap.MAP_PRIVATE, 0, bytes_of(whole)), os.O_DIRECT)

case("mmap shared O_DIRECT", "1m+3", mapped(PAGE, mmap.PROT_READ, mmap.MAP_SHARED, 0, bytes_of(PAGE)), os.O_DIRECT)
case("mmap dir", "dir", mapped(PAGE, mmap.PROT_READ, mmap.MAP_SHARED))
case("mmap empty", "empty", mapped(PAGE, mmap.PROT_READ, mmap.MAP_SHARED))
case("mmap O_PATH", "one", mapped(PAGE, mmap.PROT_READ, mmap.MAP_SHARED), os.O_PATH)


def kept(fd):
    """A mapping outlives its descriptor, and sees what a read sees."""
    at = libc.mmap(None, 1 << 20, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if at == FAILED:
        return fault()
    read = os.pread(fd, 1 << 20, 0)
    twin = os.open(path("1m+3"), os.O_RDONLY)
    os.close(twin)
    same = ctypes.string_at(at, 1 << 20) == read
    libc.munmap(at, 1 << 20)
    return f"{same} {digest(read)}"


case("mmap and read agree", "1m+3", kept)

# Locks of records.

FORMAT = "hhqqi4x"


def lock(fd, command, kind, start=0, length=0):
    """What the kernel answers; for a question, kind, start and length of what is in the way."""
    try:
        answer = fcntl.fcntl(fd, command, struct.pack(FORMAT, kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        return errno.errorcode[error.errno]
    kind, _, start, length, owner = struct.unpack(FORMAT, answer)
    return f"{kind} {start} {length} {owner == os.getppid()}"


def elsewhere(act):
    """What `act` says in a process of its own."""
    back, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(back)
        os.write(out, act().encode())
        os._exit(0)
    os.close(out)
    with os.fdopen(back) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38


def classic(name):
    def act(fd):
        def other():
            own = os.open(path(name), os.O_RDONLY | os.O_NONBLOCK)
            return " ".join([
                lock(own, fcntl.F_GETLK, fcntl.F_WRLCK, 0, 5),
                lock(own, fcntl.F_GETLK, fcntl.F_RDLCK, 0, 5),
                lock(own, fcntl.F_GETLK, fcntl.F_WRLCK, 100, 5),
                lock(own, fcntl.F_SETLK, fcntl.F_RDLCK, 0, 5),
                lock(own, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 5),
                lock(own, fcntl.F_SETLKW, fcntl.F_RDLCK, 3, 20),
            ])

        first = lock(fd, fcntl.F_SETLK, fcntl.F_RDLCK, 0, 50)
        return f"{first} / {elsewhere(other)} / {lock(fd, fcntl.F_SETLK, fcntl.F_UNLCK)} / {elsewhere(other)}"

    return act


def by_open_file(name):
    def act(fd):
        other = os.open(path(name), os.O_RDONLY | os.O_NONBLOCK)
        said = " ".join([
            lock(fd, OFD_SETLK, fcntl.F_RDLCK, 0, 50),
            lock(other, OFD_GETLK, fcntl.F_WRLCK, 10, 5),
            lock(other, OFD_SETLK, fcntl.F_RDLCK, 10, 5),
            lock(other, OFD_SETLK, fcntl.F_WRLCK, 10, 5),
            lock(fd, OFD_SETLK, fcntl.F_UNLCK, 0, 0),
            lock(other, OFD_GETLK, fcntl.F_WRLCK, 10, 5),
        ])
        os.close(other)
        return said

    return act


for file in ["page", "1m+3", "empty", "dir", "fifo"]:
    case(f"fcntl locks {file}", file, classic(file), os.O_NONBLOCK)
    case(f"fcntl OFD locks {file}", file, by_open_file(file), os.O_NONBLOCK)
    case(f"fcntl lease {file}", file, lambda fd: str(fcntl.fcntl(fd, 1024, fcntl.F_RDLCK)) + " " + str(fcntl.fcntl(fd, 1025)), os.O_NONBLOCK)
case("fcntl notify", "dir", lambda fd: str(fcntl.fcntl(fd, fcntl.F_NOTIFY, 0)))

# The rest.


def splice(chunk, offset):
    def act(fd):
        read, write = os.pipe()
        at = ctypes.c_longlong(offset)
        data = b""
        try:
            while True:
                moved = libc.splice(fd, ctypes.byref(at), write, None, chunk, 0)
                if moved == -1:
                    return fault()
                if moved == 0:
                    return digest(data)
                data += os.read(read, moved)
        finally:
            os.close(read)
            os.close(write)

    return act


for file in ["empty", "one", "page+1", "128k+1", "1m+3", "sparse", "dir"]:
    case(f"splice {file}", file, splice(60_000, 0))
    case(f"splice from the middle {file}", file, splice(5000, 777))
    case(f"readahead {file}", file, lambda fd: status(libc.readahead(fd, 0, 1 << 20)))
    case(f"readahead behind the end {file}", file, lambda fd: status(libc.readahead(fd, 1 << 40, 1 << 20)))
    case(f"sync_file_range {file}", file, lambda fd: status(libc.sync_file_range(fd, 0, 0, 7)))


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def handle(name, flags=0, room=128):
    handle, mount = Handle(room), ctypes.c_int()
    result = libc.name_to_handle_at(-100, os.fsencode(path(name)), ctypes.byref(handle), ctypes.byref(mount), flags)
    return fault() if result == -1 else "ok"


for file in ["page", "dir", "link", "dangling", "fifo", "no-such", "one/x", "private/inside"]:
    say(f"name_to_handle_at {file}", handle(file))
    say(f"name_to_handle_at FOLLOW {file}", handle(file, 0x400))
    say(f"name_to_handle_at without room {file}", handle(file, 0, 0))


def ioctl(request):
    def act(fd):
        fcntl.ioctl(fd, request, bytearray(64))
        return "ok"

    return act


for name, request in [("TCGETS", 0x5401), ("TIOCGWINSZ", 0x5413), ("BLKGETSIZE64", 0x80081272), ("nonsense", 0x12345678),
                      ("FIOASYNC off", 0x5452), ("FIOCLEX", 0x5451), ("FIONBIO off", 0x5421), ("FIGETBSZ", 2), ("FIOQSIZE", 0x5460),
                      ("FS_IOC_GETVERSION", 0x80087601), ("FS_IOC_FSGETXATTR", 0x801C581F), ("FS_IOC_FIEMAP", 0xC020660B)]:
    for file in ["page", "dir"]:
        case(f"ioctl {name} {file}", file, ioctl(request))

for name in ["page", "dir", "no-such", "one/x", "private/inside"]:
    for key in ["PC_NAME_MAX", "PC_PATH_MAX", "PC_LINK_MAX", "PC_PIPE_BUF", "PC_CHOWN_RESTRICTED", "PC_NO_TRUNC", "PC_SYMLINK_MAX", "PC_FILESIZEBITS", "PC_2_SYMLINKS"]:
        if key in os.pathconf_names:
            try:
                say(f"pathconf {key} {name}", str(os.pathconf(path(name), key)))
            except OSError as error:
                say(f"pathconf {key} {name}", errno.errorcode[error.errno])

for name in ["page", "128k+1", "1m+3"]:
    def vectors(fd):
        buffers = [bytearray(length) for length in (0, 1, 4095, 100_000)]
        count = os.preadv(fd, buffers, 3)
        return f"{count} {digest(b''.join(buffers))}"

    case(f"preadv of four {name}", name, vectors)
    case(f"preadv of very many {name}", name, lambda fd: str(os.preadv(fd, [bytearray(1) for _ in range(1025)], 0)))

for name in ["dir", "private", "one", "link-dir", "no-such", "unsearchable", "unlisted"]:
    def change(name=name):
        try:
            os.chdir(path(name))
        except OSError as error:
            return errno.errorcode[error.errno]
        return " ".join(sorted(os.listdir("."))) if os.access(".", os.R_OK) else "unlisted"

    say(f"chdir {name}", elsewhere(change))
