#!/usr/bin/env bash
# Sets up what the tests need and passes every test of the workspace.
#
#   ./tests/run.sh                 everything
#   ./tests/run.sh -E 'test(cdr)'  further arguments go to cargo-nextest: here, only tests whose name contains "cdr"
#
# The tests run in three parts, and the arguments go to each: the workspace as it is built everywhere, then what there is only with ROS 2,
# then what there is only with Docker. For the last one, an image is built, which takes minutes: with arguments only if they say "container".
#
# Installs missing Debian packages when it runs as root; otherwise it names them and stops. With pip it installs, once, peaq's SDK and
# CLI into target/peaq-venv, and ROS 2 Jazzy into target/ros2-venv where none is sourced. No test sends a packet beyond loopback, or
# beyond network namespaces of its own. The network tests need such namespaces, of root or of a user; where there are none they are
# skipped, which is said here, unless TRIBUTARY_NO_SKIPS makes them fail. The power-cut tests mount an ext4 image on a loop device where
# they are allowed to, and say so where they are not. The container tests need a Docker engine with compose, and root; without they are
# skipped, which is said here and which the runner counts, unless TRIBUTARY_CONTAINERS=1 makes that fail; TRIBUTARY_CONTAINERS=0 skips them.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/tools/debian.sh

say() { printf '%s\n' "$*" >&2; }

# --- Debian packages: a C compiler for SQLite, zstd and libsecp256k1; ext4 and mount tools for the power-cut tests; network namespaces
# with NAT for the network tests.
declare -A package_of=([cc]=build-essential [mkfs.ext4]=e2fsprogs [losetup]=mount [mount]=mount [python3]=python3
    [ip]=iproute2 [tc]=iproute2 [nft]=nftables [unshare]=util-linux)
missing=()
for tool in "${!package_of[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing+=("${package_of[$tool]}")
done
# Debian's python3 can be there without the parts that make an environment.
! command -v python3 >/dev/null || python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# A python3 that is about to come does not bring them either.
[[ " ${missing[*]} " != *" python3 "* ]] || missing+=(python3-venv)
# A clock that is an hour off, for one process.
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
install_missing "${missing[@]}"

if ! unshare --net true 2>/dev/null && ! unshare --user --map-root-user --net true 2>/dev/null; then
    say "SKIPPED: the network tests; there are no network namespaces here"
fi

# --- The test runner.
if ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest (once)"
    cargo install --locked cargo-nextest
fi

# --- peaq's own SDK and CLI, which the tests exchange files with. The environment's name is a hash of what is in it and of where it is
# (its programs name their folder), so it is made once for each state of the requirements; it counts only when its last step, the marker,
# is there.
requirements=tests/tools/requirements-peaq.txt
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
key=$({ python3 -c 'import sys; print(sys.version, sys.prefix)'; echo "$target"; cat "$requirements"; } | sha256sum | cut -c1-16)
venv=$target/peaq-venv/$key
mkdir -p "$target/peaq-venv"
exec 9>"$target/peaq-venv/lock"
flock 9
if [[ ! -e $venv/complete ]]; then
    say "installing peaq's SDK and CLI (once)"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    touch "$venv/complete"
fi
exec 9>&-
# `peaqos` lies beside it.
export TRIBUTARY_PEAQ_PYTHON=$venv/bin/python
# The SDK reports its use to its makers unless it is asked not to; no test sends a packet beyond loopback.
export DO_NOT_TRACK=1

# A filter may be about one part only: that the other has no such test is no error, as long as one of them has.
filters=$#
found=0
pass() {
    local code=0
    cargo nextest run --locked "$@" || code=$?
    # What the runner ends with when there is no test.
    if ((code == 4 && filters > 0)); then
        return
    fi
    ((code == 0)) || exit "$code"
    found=1
}

pass --workspace "$@"
# Examples in the documentation are tests as well; the runner above does not know them.
if ((filters == 0)); then
    cargo test --workspace --locked --doc --quiet
fi

# --- Live topics. Which tests these are stands in .config/nextest.toml.
source tests/tools/ros2_env.sh
pass --profile ros2 --package tributary --lib --package tributary-tests --test ros2 \
    --features tributary/ros2,tributary-tests/ros2 "$@"

# --- Containers. Their image and all that the tests make of it is removed at the end, also when that comes early.
source tests/tools/containers.sh
if ((filters == 0)) || [[ "$*" == *container* ]]; then
    if [[ ${TRIBUTARY_CONTAINERS:-} == 0 ]]; then
        say "SKIPPED: the container tests, as TRIBUTARY_CONTAINERS=0 asks for"
    elif reason=$(containers_missing); then
        say "SKIPPED: the container tests; $reason"
        [[ ${TRIBUTARY_CONTAINERS:-} != 1 ]] || exit 1
    else
        command -v debootstrap >/dev/null || install_missing debootstrap
        say "building the container image"
        trap remove_containers EXIT
        build_container_image quick
        pass --profile containers --package tributary-tests --test containers "$@"
    fi
fi

if ((!found)); then
    say "no test is what the arguments ask for: $*"
    exit 4
fi
