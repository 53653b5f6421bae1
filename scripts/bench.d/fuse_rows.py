"""What `fuse` measures: each task with its rows, and the bars that veinfs is held to in them."""

import json
import os
import subprocess
import sys
import time

import mounting
from common import HERE
from mounting import Failure

COLD_READS, WARM_READS = 2_000, 20_000
# Where the order of reads at random begins.
SEED = 7


class Bar:
    """A ratio to native that a system is to stay within: a number, or half of what the best peer has."""

    def __init__(self, limit, system="veinfs"):
        self.limit, self.system = limit, system


HALF = Bar(None)
AGAIN = Bar(1.0)
OPEN_AGAIN = Bar(1.3)


class Task:
    """Something that is done on one mount, made for it; `rows` are what it gives, in order, with their bars."""

    def __init__(self, group, name, rows, measure, prepare="", data=None):
        self.group, self.name, self.rows, self.measure = group, name, rows, measure
        self.prepare, self.data = prepare, data or group

    def chosen(self, only):
        return only is None or self.group in only or f"{self.group}.{self.name}" in only


class Expected:
    """What native gave, which all others have to give too."""

    def __init__(self):
        self.seen, self.wrong = {}, []

    def check(self, system, what, got):
        right = self.seen.setdefault(what, got) if system == "native" else self.seen.get(what)
        if got != right:
            self.note(f"{system}: {what}: {got}, native {right}")

    def note(self, text):
        if text not in self.wrong:
            self.wrong.append(text)


def timed(command):
    """How long a program takes, from start to end, in seconds; what it prints goes nowhere."""
    began = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          timeout=mounting.LIMIT, env={**os.environ, "LC_ALL": "C"})
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Failure(f"{command[0]}: {said[0] if said else f'exit code {done.returncode}'}")
    return seconds


def listed(root):
    """What a tree holds: of files the sizes too; those of links and directories are the file system's own affair."""
    files = ["-type", "f", "-printf", r"f %s %P\0"]
    return set(mounting.run(["find", root, *files, "-o", "-printf", r"%y %P\0"]).split(b"\0"))


def compare(system, what, root, source, expected):
    """Whether a mount shows exactly what its source has; asked twice, should the source be changing."""
    for _ in range(2):
        got, right = listed(root), listed(source)
        if got == right:
            return
    example = min(got ^ right).decode(errors="replace")
    expected.note(f"{system}: {what}: {len(got - right)} entries too many, {len(right - got)} missing, as {example!r}")


def tasks(fs_ops):
    """All of them, in the order in which they are shown."""

    def operation(*words):
        return json.loads(mounting.run([fs_ops, *map(str, words)]))

    def walk(title, *command):
        def measure(root, _data, _check):
            words = [root if word == "ROOT" else word for word in command]
            return {f"{title}, first": timed(words), f"{title}, again": timed(words)}

        return measure

    def files(title, command, *options):
        def measure(root, data, check):
            rows = {}
            for turn in ("first", "again"):
                got = operation(command, data.list, "--root", root, *options)
                rows[f"{title}, {turn}"] = got.pop("seconds")
                check(title, got)
            return rows

        return measure

    def file(titles, command):
        def measure(root, data, check):
            rows = {}
            for title in titles:
                got = command(os.path.join(root, os.path.basename(data.file)))
                rows[title] = got.pop("seconds")
                check(title, got)
            return rows

        return measure

    def latency(title, *options):
        def measure(root, data, check):
            got = operation("latency", data.timed, "--root", root, *options)
            check(title, got["count"])
            return {f"{title}, median": got["median"], f"{title}, 99 %": got["p99"]}

        return measure

    def first_and_again(title, again=AGAIN):
        return {f"{title}, first": HALF, f"{title}, again": again}

    def sequential(*options):
        return lambda path: operation("seq", path, *options)

    def at_random(count):
        return lambda path: operation("rand", path, "--bytes", 4096, "--count", count, "--seed", SEED)

    def mapped(path):
        return json.loads(mounting.run([sys.executable, os.path.join(HERE, "map_file.py"), path]))

    walks = [("find", "find", ["find", "ROOT"]), ("size", "find -printf %s", ["find", "ROOT", "-printf", "%s"]),
             ("ls", "ls -lR", ["ls", "-lR", "ROOT"])]
    all_tasks = [Task(group, name, first_and_again(title), walk(title, *command))
                 for group in ("tree", "usr") for name, title, command in walks]
    all_tasks += [
        Task("files", "lstat", first_and_again("lookup + lstat"), files("lookup + lstat", "lstat"), data="tree"),
        Task("files", "read", first_and_again("open-read-close", OPEN_AGAIN), files("open-read-close", "read"),
             data="small"),
        Task("files", "read2", first_and_again("the same, 2 threads", OPEN_AGAIN),
             files("the same, 2 threads", "read", "--threads", 2), data="small"),
        Task("latency", "lookup", {"lookup, median": HALF, "lookup, 99 %": None}, latency("lookup"), data="tree"),
        Task("latency", "missing", {"missing name, median": HALF, "missing name, 99 %": None},
             latency("missing name", "--missing"), data="tree"),
        # The better of the two prototypes in each row, where it was measured.
        Task("big", "seq", {"sequential, first": [Bar(1.5), Bar(2.5, "veinfs-cached")], "sequential, again": Bar(1.2)},
             file(["sequential, first", "sequential, again"], sequential()), "warm"),
        Task("big", "rand", {"random 4 KiB, first": None}, file(["random 4 KiB, first"], at_random(WARM_READS)), "warm"),
        Task("big", "mmap", {"mmap, first": Bar(0.9)}, file(["mmap, first"], mapped), "warm"),
        Task("cold", "seq", {"sequential, cold": Bar(1.0)}, file(["sequential, cold"], sequential()), "cool", "big"),
        Task("cold", "rand", {"random 4 KiB, cold": Bar(1.1)}, file(["random 4 KiB, cold"], at_random(COLD_READS)),
             "cool", "big"),
        Task("cold", "mmap", {"mmap, cold": None}, file(["mmap, cold"], mapped), "cool", "big"),
        Task("cold", "direct", {"O_DIRECT": Bar(1.1)}, file(["O_DIRECT"], sequential("--direct")), "cool", "big"),
    ]
    return all_tasks
