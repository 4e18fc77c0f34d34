#!/bin/bash
# debian-rust.sh ARCHITECTURE TARGET: unpacks Debian's current Rust with the standard library for ARCHITECTURE in
# addition to this machine's, for when rustup's servers are out of reach but Debian's are not, and prints the path of
# its rustc: ${LENSCAST_SYSROOT:-~/.cache/lenscast-sysroot}/rust-ARCHITECTURE-VERSION/rustc. Takes about 40 seconds and
# 700 MB.
#
# Debian builds its browsers with rust-web: it is in the security updates of Debian 12, and as new as the browsers
# need.
set -euo pipefail
architecture=${1:?architecture, such as arm64} target=${2:?target, such as aarch64-unknown-linux-gnu}
cache=${LENSCAST_SYSROOT:-~/.cache/lenscast-sysroot}
version=$(LC_ALL=C apt-cache policy rustc-web | sed -n 's/^ *Candidate: //p')
[ -n "$version" ] && [ "$version" != "(none)" ] || {
  echo "Debian's packages hold no rustc-web (apt-get update?), and rustup cannot bring $target" >&2
  exit 1
}
rust=$cache/rust-$architecture-$version
[ -d "$rust" ] && { echo "$rust/rustc"; exit 0; }
mkdir -p "$cache"
exec 9> "$rust.lock"
flock 9
[ -d "$rust" ] && { echo "$rust/rustc"; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "Rust: fetching Debian's $version, about 40 seconds" >&2
"$(dirname "$0")/debian-root.sh" "$work/root" --variant=extract --architectures="$(dpkg --print-architecture),$architecture" \
  --skip=check/qemu --include="rustc-web,libstd-rust-web-dev:$architecture" > "$work/log" 2>&1 9>&- || {
  tail -n 40 "$work/log" >&2
  exit 1
}
# A process can have only one C library: the machine's, which its linker uses too.
mkdir -p "$work"/rust/{bin,lib}
mv "$work/root/usr/bin/rustc" "$work/rust/bin/rustc"
mv "$work/root/usr/lib/rustlib" "$work/root/usr/lib/$(uname -m)-linux-gnu" "$work/rust/lib"
rm -f "$work"/rust/lib/*-linux-gnu/{ld-linux-*,lib{c,m,dl,rt,pthread,resolv,mvec,util}.so*}
cat > "$work/rust/rustc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$here/bin/rustc" "$@"
WRAPPER
chmod +x "$work/rust/rustc"
mv "$work/rust" "$rust.part.$$"
mv "$rust.part.$$" "$rust"
echo "$rust/rustc"
