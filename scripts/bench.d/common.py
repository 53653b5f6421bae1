"""What the benchmarks in Python share with the scripts in bash."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))


def call(function, *arguments):
    """What a function of scripts/common.sh prints."""
    script = '. "$1"; shift; "$@"'
    command = ["bash", "-euo", "pipefail", "-c", script, "bash", os.path.join(HERE, "../common.sh"), function]
    done = subprocess.run([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {function} failed")
    return done.stdout.strip()


def shell(function, *arguments):
    """The same of one that has to print something."""
    printed = call(function, *arguments)
    if not printed:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {function} printed nothing")
    return printed


def say(text):
    print(text, file=sys.stderr)
