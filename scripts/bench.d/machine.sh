#!/usr/bin/env bash
# machine.sh [DIR]: the facts about this machine, and the file system of DIR, that a measurement depends on
set -euo pipefail

fact() { printf '%-10s %s\n' "$1" "$2"; }
fact system "$(. /etc/os-release && printf '%s' "$PRETTY_NAME"), Linux $(uname -r) $(uname -m)"
fact processor "$(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
fact memory "$(awk '/^MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
fact load "$(cut -d ' ' -f 1-3 /proc/loadavg)"
if (($#)); then
    fact 'tree on' "$(findmnt -no FSTYPE,OPTIONS -T "$1" 2>/dev/null || stat -f -c %T "$1")"
fi
