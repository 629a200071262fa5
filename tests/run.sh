#!/usr/bin/env bash
# Sets up what the tests need and passes every test of the workspace.
#
#   ./tests/run.sh                 everything
#   ./tests/run.sh -E 'test(cdr)'  further arguments go to cargo-nextest: here, only tests whose name contains "cdr"
#
# Installs missing Debian packages when it runs as root; otherwise it names them and stops. No test sends a packet beyond
# loopback. The power-cut tests mount an ext4 image on a loop device where they are allowed to, and say so where they are not.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# --- Debian packages: a C compiler for SQLite, zstd and libsecp256k1; ext4 and mount tools for the power-cut tests.
declare -A package_of=([cc]=build-essential [mkfs.ext4]=e2fsprogs [losetup]=mount [mount]=mount [python3]=python3)
missing=()
for tool in "${!package_of[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing+=("${package_of[$tool]}")
done
if ((${#missing[@]})); then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if [[ $(id -u) -eq 0 ]]; then
        say "installing: ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        say "missing packages; run: sudo apt-get install ${missing[*]}"
        exit 1
    fi
fi

# --- The test runner.
if ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest (once)"
    cargo install --locked cargo-nextest
fi

cargo nextest run --workspace --locked "$@"
# Examples in the documentation are tests as well; the runner above does not know them.
if (($# == 0)); then
    cargo test --workspace --locked --doc --quiet
fi
