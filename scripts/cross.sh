#!/bin/bash
# cross.sh [TARGET [COMMAND...]]: builds the glasses' programs in release mode for TARGET or, without one, for this
# machine; or runs COMMAND, such as `cargo build --target TARGET`, with what Cargo needs for TARGET: a Rust standard
# library, a C compiler, libclang for bindgen, and a sysroot of Debian 12 (sysroot.sh). Makes or installs whatever is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${1:-$host}
shift $(($# > 0))
[ $# -gt 0 ] || set -- cargo build --locked --release --target "$target" --bin lenscastd --bin lenscastctl
[ "$target" != "$host" ] || exec "$@"
# architecture: Debian's name; gnu: GNU's, of compiler and folders.
case $target in
  aarch64-unknown-linux-gnu) architecture=arm64 gnu=aarch64-linux-gnu ;;
  armv7-unknown-linux-gnueabihf) architecture=armhf gnu=arm-linux-gnueabihf ;;
  x86_64-unknown-linux-gnu) architecture=amd64 gnu=x86_64-linux-gnu ;;
  *) echo "no cross build for $target is known here; add it to $0" >&2; exit 2 ;;
esac
scripts/install-dependencies.sh cross
command -v "$gnu-gcc" > /dev/null || scripts/install-dependencies.sh packages "gcc-$gnu"
sysroot=$(scripts/sysroot.sh "$architecture")

has_std() { [ -n "$(find "$("$1" --print sysroot)/lib/rustlib/$target/lib" -name 'libstd-*.rlib' 2> /dev/null)" ]; }
if ! has_std rustc && command -v rustup > /dev/null; then
  timeout 120 rustup --quiet target add "$target" || echo "rustup cannot bring it; taking Debian's Rust" >&2
fi
if ! has_std rustc; then
  # The standard library must come from exactly this compiler, so this is a complete one.
  RUSTC=$(scripts/debian-rust.sh "$architecture" "$target")
  export RUSTC
fi

upper=${target^^}
upper=${upper//-/_}
lower=${target//-/_}
export PKG_CONFIG_ALLOW_CROSS=1
export PKG_CONFIG_SYSROOT_DIR=$sysroot
export PKG_CONFIG_LIBDIR=$sysroot/usr/lib/$gnu/pkgconfig:$sysroot/usr/share/pkgconfig
export "CARGO_TARGET_${upper}_LINKER=$gnu-gcc"
# Indirect libraries are not the program's own: the linker only looks them up, where -rpath-link says.
# Both in the form that allows spaces in paths.
export CARGO_ENCODED_RUSTFLAGS=-Clink-arg=--sysroot=$sysroot$'\x1f'-Clink-arg=-Wl,-rpath-link,$sysroot/usr/lib/$gnu:$sysroot/lib/$gnu
export "CC_$lower=$gnu-gcc" CC_SHELL_ESCAPED_FLAGS=1 "CFLAGS_$lower='--sysroot=$sysroot'"
# Without it bindgen takes the target's words from this machine's headers and says nothing. It splits the value as a shell does.
export "BINDGEN_EXTRA_CLANG_ARGS_$lower='--sysroot=$sysroot'"
exec "$@"
