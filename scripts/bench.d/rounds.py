#!/usr/bin/env python3
"""Measure programs against each other, in interleaved rounds.

    rounds.py [--runs N] [--base NAME] [--aim AIM]... [--json FILE] -- NAME[,count][,runs=N] COMMAND... [-- NAME ...]

Each program runs once unmeasured, then once a round, the order turned by one from round to round; one with `runs=N`
runs in N rounds spread evenly, and not unmeasured. Standard output goes to /dev/null, with `count` it is one number,
shown. Wall time is from start to reaping, CPU is user and system time of the process and its children (wait4), and
the peak is the largest resident set (GNU time's, since wait4's would include this driver's own before the exec).

An AIM is `NAME wall|cpu|rss <=|< [FACTOR] OTHER` or, in seconds or MiB, `NAME wall|cpu|rss <=|< NUMBER`. A program that
fails is said to have failed, and the exit code is 1; a missed aim is only shown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

GNU_TIME = "/usr/bin/time"


class Program:
    def __init__(self, words, runs):
        if len(words) < 2:
            sys.exit("rounds.py: a NAME and a COMMAND between the --")
        self.name, *settings = words[0].split(",")
        self.command = words[1:]
        self.count = "count" in settings
        own = [int(setting[5:]) for setting in settings if setting.startswith("runs=")]
        self.warm = not own
        runs_of_own = min(own[0], runs) if own else runs
        self.rounds = {round(i * runs / runs_of_own) for i in range(runs_of_own)}
        self.wall, self.cpu, self.rss, self.found, self.failed = [], [], [], set(), None

    def run(self, scratch, measured=True):
        peak = os.path.join(scratch, "peak")
        stdout = open(os.path.join(scratch, "out"), "w+b") if self.count else subprocess.DEVNULL
        wrapper = [GNU_TIME, "-q", "-o", peak, "-f", "%M"] if os.access(GNU_TIME, os.X_OK) else []
        started = time.perf_counter()
        process = subprocess.Popen(wrapper + self.command, stdin=subprocess.DEVNULL, stdout=stdout,
                                   stderr=subprocess.PIPE)
        # Read to the end before reaping: a program that says much must not block.
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        if process.returncode != 0:
            last = complaint.decode(errors="replace").strip().splitlines()[-1:]
            self.failed = f"exit code {process.returncode}" + (f": {last[0]}" if last else "")
        if self.count:
            stdout.seek(0)
            self.found.add(stdout.read().decode(errors="replace").strip())
            stdout.close()
        if not measured:
            return
        self.wall.append(wall)
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        if wrapper:
            with open(peak) as said:
                self.rss.append(int(said.read().split()[-1]) / 1024)
        else:
            self.rss.append(usage.ru_maxrss / 1024)

    def metric(self, name):
        values = {"wall": self.wall, "cpu": self.cpu, "rss": self.rss}[name]
        return max(values) if name == "rss" else statistics.median(values)

    def result(self):
        """The count, if every run gave the same."""
        if not self.count:
            return ""
        return self.found.copy().pop() or "none" if len(self.found) == 1 else "varies"


def arguments():
    groups = [[]]
    for word in sys.argv[1:]:
        if word == "--":
            groups.append([])
        else:
            groups[-1].append(word)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--base")
    parser.add_argument("--aim", action="append", default=[])
    parser.add_argument("--json")
    options = parser.parse_args(groups[0])
    programs = [Program(group, options.runs) for group in groups[1:]]
    if not programs:
        parser.error("nothing to measure")
    return options, programs


def judge(aim, programs):
    """The aim with what was measured: (what was measured, whether that is within the bound)."""
    name, metric, relation, *bound = aim.split()
    value = programs[name].metric(metric)
    other = programs.get(bound[-1])
    limit = float(Fraction(bound[0])) if len(bound) == 2 or other is None else 1.0
    if other:
        value /= other.metric(metric)
    met = value < limit if relation == "<" else value <= limit
    unit = f" of {other.name}" if other else {"rss": " MiB"}.get(metric, " s")
    return f"{name} {metric} {value:.3g}{unit}, aim {relation} {bound[0] if not other or len(bound) == 2 else 1}", met


def main():
    options, programs = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        for program in programs:
            if program.warm:
                program.run(scratch, measured=False)
        for number in range(options.runs):
            turn = number % len(programs)
            for program in programs[turn:] + programs[:turn]:
                if number in program.rounds:
                    program.run(scratch)

    by_name = {program.name: program for program in programs}
    base = by_name.get(options.base)
    width = max(map(len, by_name))
    ratio = f"CPU/{base.name}" if base else ""
    print(f"\n{'':{width}}  runs    wall s     CPU s  {ratio:>13}  peak MiB   found")
    for program in programs:
        ratio = f"{program.metric('cpu') / base.metric('cpu'):.2f}" if base else ""
        print(f"{program.name:{width}}  {len(program.wall):4}  {program.metric('wall'):8.3f}  {program.metric('cpu'):8.3f}"
              f"  {ratio:>13}  {program.metric('rss'):8.1f}   {program.result()}".rstrip())
    print("(medians; the largest peak)" + ("" if os.access(GNU_TIME, os.X_OK) else " (peaks: at least this driver's)"))
    for program in programs:
        if program.failed:
            print(f"{program.name} FAILED: {program.failed}")
    for aim in options.aim:
        measured, met = judge(aim, by_name)
        print(f"{'met   ' if met else 'MISSED'}  {measured}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump([{"name": program.name, "command": program.command, "wall_s": program.wall,
                        "cpu_s": program.cpu, "rss_mib": program.rss, "found": program.result(),
                        "failed": program.failed} for program in programs], file, indent=1)
    sys.exit(1 if any(program.failed for program in programs) else 0)


if __name__ == "__main__":
    main()
