"""What `fuse` reads: trees, many small files and a large one, made once and kept in the cache directory.

All that is made gets modification times ten days back: nothing of it looks as if it were about to change.
"""

import ctypes
import errno
import os
import random
import shutil
import time

from common import call, say, shell
from mounting import Failure

DIRECTORIES, FILES_A_DIRECTORY = 20_000, 10
SMALL_DIRECTORIES, SMALL_FILES, SMALL_BYTES = 500, 100, 4096
MIB = 1 << 20
AGE_S = 10 * 86400
# How many files are looked at one by one, and how many each of which is timed.
LISTED, TIMED = 50_000, 5_000
CACHESTAT = 451  # asm-generic/unistd.h, Linux 6.5
PAGE = 4096


class Tree:
    """A tree that is walked, and lists of files in it, each with a NUL behind it."""

    def __init__(self, path, work):
        self.path = path
        directories, files = 0, []
        for at, below, here in os.walk(os.fsencode(path)):
            directories += 1
            below.sort()
            names = [os.path.join(at, name) for name in sorted(here)]
            files += [os.path.relpath(name, os.fsencode(path)) for name in names if not os.path.islink(name)]
        self.about = f"{path}: {directories} directories, {len(files)} files"
        chosen = random.Random(1)
        some = sorted(chosen.sample(range(len(files)), min(LISTED, len(files))))
        self.list = write_list(work, path, "list", [files[at] for at in some])
        # All over the tree, in no order.
        self.timed = write_list(work, path, "timed", chosen.sample(files, min(TIMED, len(files))))


class Big:
    """One large file, alone in its directory."""

    def __init__(self, path):
        self.path, self.file = path, os.path.join(path, "data")
        self.size = os.path.getsize(self.file)
        self.about = f"{self.file}: {self.size / MIB:.0f} MiB"

    def warm(self):
        """Sees to it that the page cache holds all of the source."""
        for _ in range(3):
            if resident(self.file) == self.size:
                return
            with open(self.file, "rb", buffering=0) as file:
                while file.readinto(warm_buffer):
                    pass
        if resident(self.file) is not None:
            raise Failure(f"{self.file} does not stay in the page cache; is there memory for it twice? see --big")

    def cool(self):
        """Sees to it that the page cache holds nothing of the source."""
        fd = os.open(self.file, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        # Only where that was not enough: it is everybody's page cache.
        if resident(self.file) != 0 and os.geteuid() == 0:
            with open("/proc/sys/vm/drop_caches", "w") as file:
                file.write("1")
        if resident(self.file):
            raise Failure(f"{resident(self.file) / MIB:.1f} MiB of {self.file} stay in the page cache")


warm_buffer = bytearray(MIB)


def resident(path):
    """How many bytes of a file are in the page cache, in whole pages; `None` if the kernel does not tell."""
    counts = (ctypes.c_uint64 * 5)()
    everything = (ctypes.c_uint64 * 2)(0, 0)
    with open(path, "rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(CACHESTAT, file.fileno(), everything, counts, 0) != 0:
            if ctypes.get_errno() == errno.ENOSYS:
                return None
            raise OSError(ctypes.get_errno(), "cachestat", path)
    return counts[0] * PAGE


def write_list(work, path, name, paths):
    file = os.path.join(work, f"{os.path.basename(path)}.{name}")
    with open(file, "wb") as out:
        out.writelines(path + b"\0" for path in paths)
    return file


def made(name, make):
    """The directory of this name in the cache directory, made by `make` if it was not made to its end before."""
    path = os.path.join(call("cache_directory"), name)
    mark = path + ".made"
    if not os.path.exists(mark):
        say(f"making {path}")
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        make(path)
        age(path)
        open(mark, "w").close()
    return path


def age(path):
    then = time.time() - AGE_S
    for at, below, here in os.walk(path, topdown=False):
        for name in [*here, *below, "."]:
            os.utime(os.path.join(at, name), (then, then), follow_symlinks=False)


def made_tree():
    path = shell("made_tree", DIRECTORIES, FILES_A_DIRECTORY)
    if os.stat(path).st_mtime > time.time() - AGE_S / 2:
        # The root is the last one to be aged.
        age(path)
    return path


def made_small():
    def make(path):
        content = random.Random(1)
        for directory in range(SMALL_DIRECTORIES):
            at = os.path.join(path, f"{directory:03}")
            os.mkdir(at)
            for number in range(SMALL_FILES):
                with open(os.path.join(at, f"{number:03}.dat"), "wb") as file:
                    file.write(content.randbytes(SMALL_BYTES))

    return made(f"small-{SMALL_DIRECTORIES * SMALL_FILES}", make)


def made_big(size_mib):
    def make(path):
        with open(os.path.join(path, "data"), "wb") as file:
            for _ in range(size_mib):
                file.write(os.urandom(MIB))
            file.flush()
            # What has not been written cannot leave the page cache.
            os.fsync(file.fileno())

    return made(f"big-{size_mib}", make)
