"""What is measured by `fuse`: the source itself, veinfs, and other file systems that show a directory elsewhere.

All are mounted read-only, as they come and tuned: what they have to keep names, attributes, listings and pages in the
kernel, and threads.
"""

import contextlib
import glob
import json
import os
import shutil
import subprocess
import tempfile
import time

import mounting
from mounting import Failure, Mount, run

# What the tuned ones keep, in seconds: longer than anything takes.
KEPT = 86400
BINDFS_TUNED = f"ro,kernel_cache,entry_timeout={KEPT},attr_timeout={KEPT},negative_timeout={KEPT}"
MERGERFS_TUNED = (f"ro,cache.files=auto-full,cache.readdir=true,cache.symlinks=true,cache.open={KEPT},"
                  f"cache.entry={KEPT},cache.attr={KEPT},cache.negative_entry={KEPT},category.search=ff")
# Of the user's rclone.conf it needs nothing; without a file it would say so.
RCLONE = ["--daemon", "--read-only", "--config", os.devnull, "--attr-timeout", "24h", "--dir-cache-time", "24h"]
# How long a daemon is looked at to find that it does nothing, in seconds.
QUIET = 0.05


class Native:
    """The source itself, to which all others are compared."""

    name, is_peer, big_only = "native", False, False

    @contextlib.contextmanager
    def shown(self, path):
        yield path


class Veinfs:
    """A match that is the whole source."""

    is_peer, big_only = False, False

    def __init__(self, name, veinfs, work, options):
        self.name, self.veinfs, self.work = name, veinfs, work
        # Nothing is kept of the source: the index is what `scripts/bench index` measures. Links stay links, as they are
        # in the source.
        self.options = ["--wait", "--no-index", "--symlinks", "keep", *options]

    @contextlib.contextmanager
    def shown(self, path):
        mountpoint = fresh(self.work)
        pattern = os.path.join(self.work, "whole.json")
        with open(pattern, "w") as file:
            # No files and no directories named: its whole subtree.
            json.dump({"directory_name": escaped(os.path.basename(path)), "opaque": True}, file)
        mount = Mount(self.veinfs, f"bench={path}", mountpoint, pattern, self.options)
        mount.until_complete()
        until_quiet(mount)
        names = os.listdir(mount.folder)
        if len(names) != 1:
            raise Failure(f"{self.name}: the folder of the whole source has {len(names)} matches")
        yield os.path.join(mount.folder, names[0])
        mount.unmount()


class Peer:
    """Another program that mounts a directory and goes into the background."""

    is_peer = True

    def __init__(self, name, work, command, big_only=False):
        """`command` gives the command line for a directory and a mount point."""
        self.name, self.work, self.command, self.big_only = name, work, command, big_only

    @contextlib.contextmanager
    def shown(self, path):
        mountpoint = fresh(self.work)
        others = set(mounting.children())
        daemonize(self.command(path, mountpoint))
        wait_for(lambda: os.path.ismount(mountpoint), f"{self.name} did not mount")
        yield mountpoint
        wait_for(lambda: took_off(mountpoint), f"{self.name} could not be unmounted")
        # What a daemon does at its end is not to be measured with the next one.
        wait_for(lambda: all(mounting.ended(pid) for pid in set(mounting.children()) - others),
                 f"{self.name} had not ended {mounting.END_LIMIT} s after it was unmounted")


def all_systems(veinfs, work, wanted):
    """Native, veinfs twice, and those of the peers that are wanted; and the names of those that are not installed."""
    peers = [
        Peer("bindfs", work, lambda path, point: ["bindfs", "--no-allow-other", "-o", "ro", path, point]),
        Peer("bindfs-tuned", work, lambda path, point: [
            "bindfs", "--no-allow-other", "--multithreaded", "-o", BINDFS_TUNED, path, point]),
        Peer("mergerfs", work, lambda path, point: ["mergerfs", "-o", "ro", glob.escape(path), point]),
        Peer("mergerfs-tuned", work, lambda path, point: ["mergerfs", "-o", MERGERFS_TUNED, glob.escape(path), point]),
        Peer("rclone", work, lambda path, point: ["rclone", "mount", path, point, *RCLONE], big_only=True),
    ]
    known = [peer.name for peer in peers]
    unknown = sorted(set(wanted) - set(known)) if wanted is not None else []
    if unknown:
        raise SystemExit(f"fuse: unknown peers {', '.join(unknown)}; there are {', '.join(known)}")
    peers = [peer for peer in peers if wanted is None or peer.name in wanted]
    installed = [peer for peer in peers if shutil.which(program(peer.name))]
    own = [Veinfs("veinfs", veinfs, work, []), Veinfs("veinfs-cached", veinfs, work, ["--open", "cached"])]
    return [Native(), *own, *installed], [peer.name for peer in peers if peer not in installed]


def program(name):
    return name.removesuffix("-tuned")


def versions(systems):
    """The first lines of what the peers say of their versions, one a program."""
    for name in dict.fromkeys(program(system.name) for system in systems if system.is_peer):
        yield name, run([name, "--version"]).decode().splitlines()[0]


def escaped(name):
    """A glob for exactly this name."""
    return "".join("\\" + char if char in "*?[]{}\\<>!" else char for char in name)


def fresh(work):
    """A mount point that was never one before."""
    fresh.count = getattr(fresh, "count", 0) + 1
    mountpoint = os.path.join(work, f"mount-{fresh.count}")
    os.mkdir(mountpoint)
    return mountpoint


def daemonize(command):
    """Runs a command that leaves a daemon behind, which keeps the error output that the command had."""
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                              timeout=mounting.END_LIMIT)
        if done.returncode != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise Failure(f"{command[0]}: {lines[-1] if lines else f'exit code {done.returncode}'}")


def took_off(mountpoint):
    """Whether it could be unmounted; it cannot while somebody still has something open there."""
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    return subprocess.run([*command, mountpoint], stderr=subprocess.DEVNULL).returncode == 0


def wait_for(condition, otherwise):
    until = time.monotonic() + mounting.END_LIMIT
    while not condition():
        if time.monotonic() > until:
            raise Failure(otherwise)
        time.sleep(mounting.ASK_EVERY)


def until_quiet(mount):
    """Waits until a daemon rests from its scan, whose end a program that waits for `--wait` does not see."""
    until = time.monotonic() + mounting.END_LIMIT
    before = None
    while before is None or mount.cpu() - before > QUIET / 50:
        if time.monotonic() > until:
            return
        before = mount.cpu()
        time.sleep(QUIET)
