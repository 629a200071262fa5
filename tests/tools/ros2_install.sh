#!/usr/bin/env bash
# Makes an environment with ROS 2 Jazzy in target/ros2-venv, laid out as /opt/ros/jazzy, and prints its folder. It is made once for
# each state of requirements-ros2.txt and takes some minutes then. ros2_env.sh, which one sources, calls this.
#
# Installs missing Debian packages when it runs as root; otherwise it names them and stops.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/tools/debian.sh

requirements=tests/tools/requirements-ros2.txt
missing=()

# --- A Python that the wheels are made for.
python=
for candidate in python3 python3.{13,12,11,10,14}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [[ -z $python ]]; then
    echo "ROS 2 needs a CPython from 3.10 to 3.14, and there is none; install one beside $(python3 --version 2>&1)" >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$version-venv")

# Where this Python's shared library is, or would be: the libraries of the messages expect Python's symbols to be there.
libpython() {
    "$python" - <<'PYTHON'
import os, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
folders = [sysconfig.get_config_var("LIBDIR") or "", "/usr/lib/" + (sysconfig.get_config_var("MULTIARCH") or "")]
print(next((path for path in (os.path.join(folder, name) for folder in folders) if os.path.exists(path)), ""))
PYTHON
}

# --- Debian packages: Python's shared library, libclang with its headers to read ROS's, and what makes a network of loopback only.
[[ -n $(libpython) ]] || missing+=("libpython$version")
if [[ -z ${LIBCLANG_PATH:-} ]]; then
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null ||
        missing+=(libclang-dev)
fi
PATH=$PATH:/usr/sbin:/sbin command -v ip >/dev/null || missing+=(iproute2)
command -v unshare >/dev/null && command -v nsenter >/dev/null || missing+=(util-linux)
install_missing "${missing[@]}"

# --- The environment. Its name is a hash of what is in it; it counts only when its last step, the marker, is there.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
key=$({ "$python" -c 'import sys; print(sys.version, sys.prefix)'; echo "$target"; cat "$requirements" "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-16)
prefix=$target/ros2-venv/$key
mkdir -p "$target/ros2-venv"
exec 9>"$target/ros2-venv/lock"
flock 9
if [[ ! -e $prefix/complete ]]; then
    echo "installing ROS 2 Jazzy (once)" >&2
    rm -rf "$prefix"
    "$python" -m venv "$prefix"
    pip=("$prefix/bin/python" -m pip --quiet --disable-pip-version-check)
    # Many small files: waiting for one after the other takes most of the time. empy has no wheel; one is made of its source.
    grep -v '^#' "$requirements" |
        xargs -d '\n' -P 8 -n 7 "${pip[@]}" wheel --no-deps --only-binary :all: --no-binary empy -w "$prefix/wheels" >&2
    "${pip[@]}" install --no-deps --no-index --find-links "$prefix/wheels" -r "$requirements" >&2
    rm -r "$prefix/wheels"
    # Programs ask for the middleware by this name; the wheels link one directly.
    ln -sf librmw_fastrtps_cpp.so "$prefix/lib/librmw_implementation.so"
    libpython >"$prefix/libpython"
    touch "$prefix/complete"
fi
printf '%s\n' "$prefix"
