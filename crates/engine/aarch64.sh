#!/bin/sh
# Runs the engine's tests as AArch64 programs on an x86-64 Debian machine: the NEON kernels are compiled and
# emulated. It says whether they are right, not how fast they are.
#
#   crates/engine/aarch64.sh                                # all tests of the engine, on two processors
#   crates/engine/aarch64.sh -p dovetail-engine --test clerk   # or what these arguments of `cargo test` choose
#
# It needs root (it asks sudo) and 4 GB. The first run installs a Debian sid into ~/.cache/dovetail/aarch64 (or
# $DOVETAIL_CACHE/aarch64): sid has Rust's standard library for AArch64 as a package, so that no rustup is needed.
# Nothing else on the machine changes; to be rid of it, remove that folder.
set -eu

cache=${DOVETAIL_CACHE:-$HOME/.cache/dovetail}
[ "$(id -u)" = 0 ] || exec sudo DOVETAIL_CACHE="$cache" "$0" "$@"
# What is mounted below is mounted for this process alone, and gone when it ends.
[ "${1-}" = --alone ] || exec unshare --mount "$0" --alone "$@"
shift
[ $# -gt 0 ] || set -- -p dovetail-engine
repository=$(cd "$(dirname "$0")/../.." && pwd)
root=$cache/aarch64

if [ ! -d "$root" ]; then
    command -v debootstrap >/dev/null || apt-get install -y debootstrap
    rm -rf --one-file-system "$root.part"
    mkdir -p "$cache"
    debootstrap --variant=minbase \
        --include=ca-certificates,cargo,rustc,gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross,qemu-user \
        sid "$root.part" http://deb.debian.org/debian
    # Unpacked, not installed: what it would bring along is for compiling on AArch64. A mirror that lags will do.
    chroot "$root.part" sh -euc '
        dpkg --add-architecture arm64
        apt-get update -o Acquire::Check-Valid-Until=false
        cd /tmp
        apt-get download libstd-rust-dev:arm64
        dpkg -x libstd-rust-dev_*.deb /
        rm libstd-rust-dev_*.deb
        mkdir /source'
    mv "$root.part" "$root"
fi

mount -o bind,ro "$repository" "$root/source"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
# The machine's own way to crates.io.
mount --bind /etc/ssl/certs "$root/etc/ssl/certs"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"

# Emulates a processor; the tests fail if they do not find these kernels on it.
on() {
    processor=$1 kernels=$2
    shift 2
    echo "== $processor: $kernels =="
    chroot "$root" env -i PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 \
        https_proxy="${https_proxy-}" \
        CARGO_TARGET_DIR=/target \
        CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $processor" \
        DOVETAIL_TEST_KERNELS="$kernels" \
        cargo test --locked --manifest-path /source/Cargo.toml "$@"
}

# That of a Raspberry Pi 4, which has no byte products, and that of a Raspberry Pi 5, which has.
on cortex-a72 "neon scalar" "$@"
on cortex-a76 "neon-dotprod neon scalar" "$@"
