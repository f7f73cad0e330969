#!/usr/bin/env bash
# Tests of 64-bit ARM's kernels on another machine, under QEMU: right or wrong, not fast or slow.
#
# usage: bench/arm.sh [CARGO TEST'S ARGUMENTS...]     (-p minke-kernels unless said otherwise)
#
# Needs `rustup target add aarch64-unknown-linux-gnu`, and Debian's qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
[ $# -gt 0 ] || set -- -p minke-kernels
exec cargo test --locked --target aarch64-unknown-linux-gnu "$@"
