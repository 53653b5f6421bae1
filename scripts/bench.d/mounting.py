"""Mounts to be measured: what their daemons use, when they are complete, and that nothing stays behind.

A daemon becomes a child of this process when the `veinfs mount` that started it has ended (PR_SET_CHILD_SUBREAPER), so
that wait4 tells what it used from its start to its end. While it lives, its CPU time is read from its clock
(clock_getcpuclockid(3)), which counts in nanoseconds where /proc/PID/stat counts in hundredths of a second.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# How often a mount is asked whether it is complete: rarely enough that answering costs next to nothing.
ASK_EVERY = 0.01
# Longer than anything that is measured should take, in seconds.
LIMIT = 600
# How long a daemon may take to end once it is unmounted.
END_LIMIT = 60


class Failure(Exception):
    """A wrong result, or a program that failed."""


def begin():
    """To be called before anything is mounted: signals end this process by way of its `finally`s."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")

    def leave(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def clean_up(work):
    """Takes off what is mounted below `work`, ends the processes that are left, and removes `work`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The last mounted first: it may have another one as its source.
    for mountpoint in reversed(mounts_below(work)):
        take_off(mountpoint)
    # Daemons and others end with their mounts; none of them is needed any more.
    for number, limit in ((0, 5), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        left = children()
        for pid in left if number else []:
            os.kill(pid, number)
        until = time.monotonic() + limit
        while left and time.monotonic() < until:
            time.sleep(0.02)
            left = [pid for pid in left if not ended(pid)]
        if not left:
            break
    if mounts_below(work):
        print(f"still mounted: {', '.join(mounts_below(work))}", file=sys.stderr)
    else:
        shutil.rmtree(work, ignore_errors=True)


def ended(pid):
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def children():
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []  # A kernel that does not tell.


def mounts_below(path):
    """What is mounted below a path, in the order of mounting."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split()[4].decode("unicode_escape") for line in file]
    return [point for point in points if point.startswith(path + "/")]


def take_off(mountpoint):
    for command in (["umount", "-l"], ["fusermount3", "-uz"]):
        if shutil.which(command[0]):
            if subprocess.run([*command, mountpoint], stderr=subprocess.DEVNULL).returncode == 0:
                return


def run(command, limit=LIMIT):
    """The output of a command that has to succeed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit,
                          env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Failure(f"{' '.join(map(str, command[:2]))}: {said[0]}")
    return done.stdout


def shown(matches):
    """The names in the pattern's folder, from lines as `veinfs scan --json` and `.veinfs/matches.ndjson` have them."""
    return {json.loads(line)["view"].split("/", 1)[1].encode() for line in matches.splitlines()}


class Mount:
    """A mount in the background, from the call of `veinfs mount` on; all times are seconds from there."""

    def __init__(self, veinfs, source, mountpoint, pattern, options):
        self.veinfs, self.mountpoint = veinfs, mountpoint
        self.folder = os.path.join(mountpoint, os.path.basename(pattern).rsplit(".", 1)[0])
        self._pid = None
        self.began = time.perf_counter()
        run([veinfs, "mount", *options, source, mountpoint, "-p", pattern])
        self.returned = self.age()

    def age(self):
        return time.perf_counter() - self.began

    def status(self):
        with open(os.path.join(self.mountpoint, ".veinfs/status.json"), "rb") as file:
            return json.loads(file.read())

    @property
    def pid(self):
        if self._pid is None:
            self._pid = self.status()["pid"]
        return self._pid

    def cpu(self):
        """Seconds of CPU time that the daemon has used, of the user's and the system's."""
        return time.clock_gettime(~self.pid << 3 | 2)  # CPUCLOCK_SCHED of a process, linux/posix-timers.h

    def memory(self):
        """The daemon's resident memory now and at its peak, in MiB."""
        with open(f"/proc/{self.pid}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))

    def until_complete(self):
        """Waits until all is read or compared."""
        while True:
            status = self.status()
            if status["state"] == "complete":
                return status
            for source in status["sources"]:
                if source["state"] == "failed":
                    raise Failure(f"source {source['path']}: {source['error']}")
            if self.age() > LIMIT:
                raise Failure(f"{status['state']} after {LIMIT} s")
            time.sleep(ASK_EVERY)

    def refresh(self):
        run([self.veinfs, "refresh", self.mountpoint])

    def names(self):
        """What `ls` prints of the pattern's folder."""
        return set(run(["ls", self.folder]).splitlines())

    def known(self):
        """The same names as the daemon tells them, without a look at the source."""
        with open(os.path.join(self.mountpoint, ".veinfs/matches.ndjson"), "rb") as file:
            return shown(file.read())

    def unmount(self):
        """The CPU seconds that the daemon had used when it had ended, what it had to write included."""
        pid = self.pid
        run([self.veinfs, "unmount", self.mountpoint])
        until = time.monotonic() + END_LIMIT
        while True:
            got, status, usage = os.wait4(pid, os.WNOHANG)
            if got:
                break
            if time.monotonic() > until:
                raise Failure(f"the daemon had not ended {END_LIMIT} s after it was unmounted")
            time.sleep(ASK_EVERY)
        if status != 0:
            raise Failure(f"the daemon ended with {os.waitstatus_to_exitcode(status)}")
        return usage.ru_utime + usage.ru_stime


class Slow:
    """A directory as seen through `benches/slow_fs.rs`."""

    def __init__(self, slow_fs, directory, mountpoint, delay_ms, threads):
        os.mkdir(mountpoint)
        self.mountpoint = mountpoint
        self.process = subprocess.Popen([slow_fs, directory, mountpoint, "--delay-ms", str(delay_ms), "--threads",
                                         str(threads)], stdin=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while not os.path.ismount(mountpoint):
            if self.process.poll() is not None or time.monotonic() > until:
                raise Failure("slow_fs did not mount")
            time.sleep(ASK_EVERY)

    def calls(self):
        """How often it was called."""
        return sum(json.loads(os.getxattr(self.mountpoint, "user.slow_fs.calls")).values())

    def end(self):
        run([*(["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]), self.mountpoint])
        if self.process.wait(END_LIMIT) != 0:
            raise Failure("slow_fs failed")
