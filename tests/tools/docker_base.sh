#!/usr/bin/env bash
# Makes the two images that docker/Dockerfile starts from, where none can be pulled, for tests.
#
#   tests/tools/docker_base.sh LABEL RUNTIME RUST    names for the images: Debian without anything, and Debian with a C compiler and Rust.
#                                                    The label org.tributary.test of both, and of all that is made from them
#
# The Debian roots are made with debootstrap, once a month, and lie in target/docker-base. Rust is the
# toolchain of this computer, with the crates that Cargo has downloaded here already: the image is built without a network. The images get
# names of their own and are given to the Dockerfile as build arguments, so that no other build on this computer takes them for the real ones.
#
# Needs root, for debootstrap, and Docker.
set -euo pipefail
cd "$(dirname "$0")/../.."
label=(--change "LABEL org.tributary.test=$1")
runtime=$2
rust=$3
release=bookworm
say() { printf '%s\n' "$*" >&2; }

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# Made anew when what is in them changes, and each month, for Debian's updates.
packages=(ca-certificates gcc libc6-dev)
cache=$target/docker-base/$release-$(dpkg --print-architecture)-$(date +%Y-%m)-$(printf '%s.' "${packages[@]}")
mkdir -p "$target/docker-base"
exec 9>"$target/docker-base/lock"
flock 9
if [[ ! -e $cache/complete ]]; then
    say "making Debian roots for container images (once)"
    rm -rf "$cache"
    mkdir -p "$cache"
    # What `debian:bookworm-slim` is: no documentation, no package lists.
    slim=(--variant=minbase --arch="$(dpkg --print-architecture)")
    debootstrap "${slim[@]}" "$release" "$cache/runtime" >"$cache/log" 2>&1 || { tail -n 20 "$cache/log" >&2; exit 1; }
    cp -a "$cache/runtime" "$cache/rust"
    # What `rust:slim` adds to it, beside Rust.
    DEBIAN_FRONTEND=noninteractive chroot "$cache/rust" \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >>"$cache/log" 2>&1 || { tail -n 20 "$cache/log" >&2; exit 1; }
    for root in "$cache/runtime" "$cache/rust"; do
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}/*
    done
    touch "$cache/complete"
fi

tar --create --one-file-system -C "$cache/runtime" . | docker import "${label[@]}" --change 'CMD ["bash"]' - "$runtime" >/dev/null

# Everything that Cargo will want is there before the image is.
cargo fetch --locked --quiet
sysroot=$(rustc --print sysroot)
home=${CARGO_HOME:-$HOME/.cargo}
# The root's names begin with "./", so the others cannot be taken for them.
tar --create --one-file-system --exclude="${sysroot##*/}/share" --exclude="${sysroot##*/}/lib/rustlib/src" \
    --transform="flags=r;s,^${sysroot##*/}/,usr/local/rust/," --transform='flags=r;s,^registry/,usr/local/cargo/registry/,' \
    -C "$cache/rust" . -C "${sysroot%/*}" "${sysroot##*/}/bin" "${sysroot##*/}/lib" -C "$home" registry/cache registry/index |
    docker import "${label[@]}" --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV CARGO_HOME=/usr/local/cargo' --change 'ENV CARGO_NET_OFFLINE=true' --change 'CMD ["bash"]' - "$rust" >/dev/null
