#!/usr/bin/env python3
"""How long a change in a source takes to be seen through a mount; for scripts/bench.d/index. As a program:

    latency.py storm DIR [--rate N]

makes files in the directories of DIR, renames and deletes them, N changes a second in all, until it gets SIGTERM; then
it prints how many a second there were, in the mean and in the slowest whole second.
"""

import argparse
import itertools
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

import mounting
from mounting import Failure, Mount

# All that is made in a source is in here.
PLACE = "veinfs-bench-latency"
# How long after an answer the mount is asked again. Without a pause the asking alone takes a core, which a program that
# waits for a file would not; the times are too long by half of it in the mean.
ASK_EVERY = 0.0001
# When a change counts as lost, in seconds.
LOST = 30
# So many lost ones, and there is no point in going on.
LOST_ENOUGH = 3
STORM_DIRECTORIES = 100
RATE = 10_000


class Runs:
    """Experiment runs that lack their last file, for one series."""

    def __init__(self, place, series, count):
        self.paths = [os.path.join(place, f"{series}-{number:04}") for number in range(count)]
        for path in self.paths:
            make_run(path)
            os.rename(os.path.join(path, "data.csv"), os.path.join(path, "data.csv.part"))


def make_run(path):
    """A directory that matches experiment-run.json."""
    os.makedirs(os.path.join(path, "raw"))
    os.makedirs(os.path.join(path, "results/figures"))
    for name in ("config.yaml", "data.csv", "raw/block-0.csv", "results/metrics.json", "results/figures/overview.png"):
        open(os.path.join(path, name), "x").close()


def is_there(path):
    try:
        os.stat(path)
        return True
    except FileNotFoundError:
        return False


def until(path, there):
    """Seconds until a path is there, or no longer there; `None` if that takes too long."""
    began = time.perf_counter()
    while is_there(path) != there:
        if time.perf_counter() - began > LOST:
            return None
        time.sleep(ASK_EVERY)
    return time.perf_counter() - began


def series(mount, runs):
    """Lets each run become a match by its last file, and then none by a delete; the seconds of both."""
    chance = random.Random(7)
    appeared, disappeared, lost = [], [], 0
    for path in runs.paths:
        seen = os.path.join(mount.folder, os.path.basename(path))
        last = os.path.join(path, "data.csv")
        if is_there(seen):
            raise Failure(f"{seen} is there before it should be")
        for change, there, took in ((lambda: os.rename(last + ".part", last), True, appeared),
                                    (lambda: os.unlink(last), False, disappeared)):
            # At no particular moment of what the daemon may do regularly.
            time.sleep(chance.uniform(0.002, 0.01))
            began = time.perf_counter()
            change()
            waited = until(seen, there)
            if waited is None:
                lost += 1
                if lost == LOST_ENOUGH:
                    raise Failure(f"{seen}: {lost} changes not seen within {LOST} s")
                break
            took.append(time.perf_counter() - began)
    if lost:
        raise Failure(f"{lost} changes not seen within {LOST} s")
    return appeared, disappeared


class Storm:
    """The other process, which changes other files of the same source."""

    def __init__(self, place):
        self.process = subprocess.Popen([sys.executable, __file__, "storm", place], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE)
        time.sleep(1)

    def end(self):
        """Changes a second, in the mean and in the slowest second."""
        self.process.terminate()
        said = self.process.communicate(timeout=10)[0].split()
        if self.process.returncode != 0:
            raise Failure("the storm failed")
        return tuple(map(float, said))


def measure(veinfs, pattern, tree, work, mode, count, poll):
    """Measures with one way of watching and prints; returns aims as (text, met), and what went wrong."""
    place = os.path.join(tree, PLACE)
    mountpoint = os.path.join(work, f"latency-{mode}")
    shutil.rmtree(place, ignore_errors=True)
    try:
        storm_place = os.path.join(place, "storm")
        for number in range(STORM_DIRECTORIES):
            os.makedirs(os.path.join(storm_place, f"{number:02}"))
        idle, stormy = (Runs(os.path.join(place, "runs"), f"{name}-{mode}", count) for name in ("idle", "storm"))
        os.mkdir(mountpoint)
        options = ["--wait", "--watch", mode, "--index", os.path.join(work, f"latency-{mode}.index")]
        mount = Mount(veinfs, tree, mountpoint, pattern, options + (["--poll", poll] if poll else []))
        mount.until_complete()
        before = mount.names()
        results = [("idle", *series(mount, idle))]

        storm = Storm(storm_place)
        try:
            used, began = mount.cpu(), time.perf_counter()
            results.append(("storm", *series(mount, stormy)))
            share = (mount.cpu() - used) / (time.perf_counter() - began)
        finally:
            mean, slowest = storm.end()

        # When all is over, what is shown is what is there.
        mount.refresh()
        wrong = [] if mount.names() == before else [f"latency, {mode}: other matches after the storm than before"]
        watch = mount.status()["sources"][0]["watch"]
        mount.unmount()
    finally:
        shutil.rmtree(place, ignore_errors=True)

    rows = [(f"{what}, {when}", len(times), *(1000 * value for value in summary(times)))
            for when, appeared, disappeared in results
            for what, times in (("appears", appeared), ("disappears", disappeared))]
    print(f"\nlatency in ms, --watch {mode} ({watch['mode']}), from the change to its being seen")
    print(f"{'':20}  {'times':>6}  {'median':>8}  {'99 %':>8}  {'longest':>8}")
    for name, times, *values in rows:
        print(f"{name:20}  {times:6}" + "".join(f"  {value:8.2f}" for value in values))
    print(f"storm: {mean:.0f} changes a second, {slowest:.0f} in the slowest one; the daemon took {share:.0%} of a core"
          f"; {watch['overflows']} overflows, {watch['refused']} watches refused")
    if mean < 0.95 * RATE:
        print(f"(this machine did not make the {RATE} changes a second)")
    aims = []
    for name, _, median, late, _ in rows[:2]:
        aims.append((f"{name}, {watch['mode']}: median {median:.2f} ms, aim <= 5", median <= 5))
        aims.append((f"{name}, {watch['mode']}: 99 % {late:.2f} ms, aim <= 50", late <= 50))
    return aims, wrong


def summary(values):
    ordered = sorted(values)
    return statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1], ordered[-1]


def storm(place, rate):
    """Changes files until SIGTERM."""
    going = True

    def stop(_number, _frame):
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    directories = sorted(entry.path for entry in os.scandir(place))

    def changes():
        for number in itertools.count():
            path = os.path.join(directories[number % len(directories)], f"file-{number}")
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            yield
            os.rename(path, path + ".renamed")
            yield
            os.unlink(path + ".renamed")
            yield

    source = changes()
    began = last = time.perf_counter()
    done, whole_seconds = 0, []
    while going:
        now = time.perf_counter()
        if now - last >= 1:
            whole_seconds.append(done - sum(whole_seconds))
            last += 1
        # What was missed is made up for, but never in bursts of more than a tenth of a second's changes.
        for _ in range(min(int((now - began) * rate) - done, rate // 10)):
            next(source)
            done += 1
        time.sleep(0.0005)
    print(done / (time.perf_counter() - began), min(whole_seconds, default=0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["storm"])
    parser.add_argument("directory")
    parser.add_argument("--rate", type=int, default=RATE)
    given = parser.parse_args()
    storm(given.directory, given.rate)
