#!/bin/bash
# install-dependencies.sh [run|test|deny|fuzz|cross|deb]: installs the missing Debian and npm packages for building and
# running (run), or also for testing (test); or those for `make deny`, `make fuzz`, `make cross` and `make deb`.
# Returns at once when nothing is missing; without root it only says what is.
# install-dependencies.sh packages NAME...: the same for these Debian packages.
set -euo pipefail

# libclang reads the kernel's header for bindgen; without it the build ends in `Unable to find libclang`.
build="gcc make pkg-config libclang-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libssl-dev"
# libav decodes AAC and key frames for the cloud.
run="gstreamer1.0-libav gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-alsa glib-networking ca-certificates nginx-light libnginx-mod-rtmp"
# iproute2, nftables, util-linux: a network that can be cut. openssl and the stream module: RTMPS. chromium: the watch
# page and the players. The lines after: the camera rig; packages; the emulated board, and what flashes it.
test="libnginx-mod-stream ffmpeg curl openssl iproute2 nftables util-linux python3
  chromium linux-source-6.1 patch flex bison bc libelf-dev xz-utils kmod busybox-static v4l-utils python3-minimal
  mmdebstrap arch-test qemu-user-static gcc-aarch64-linux-gnu lintian mandoc groff
  qemu-system-arm qemu-utils u-boot-qemu e2fsprogs fdisk cpio libc6-dev-arm64-cross openssh-client"

# From npm: the player in the watch page; the tests' browser driver and players, and the apps' SDK.
run_npm="web"
test_npm="web tests/browser tests/sdk"

# Built from source, a few minutes each, in versions that are known to work.
cargo_command() {
  command -v "$1" > /dev/null || cargo install --locked --quiet "$1@$2"
}

# A Node.js from elsewhere will do.
command -v npm >/dev/null || build="$build nodejs npm"

npm_packages() {
  cd "$(dirname "$0")/.."
  for folder in $1; do
    # npm leaves a copy of the lock file where it has installed everything.
    if [ "$folder/package-lock.json" -nt "$folder/node_modules/.package-lock.json" ]; then
      echo "installing: npm packages of $folder"
      npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error
    fi
  done
}

what=${1:-run}
case $what in
  run) wanted="$build $run" npm=$run_npm ;;
  test) wanted="$build $run $test" npm=$test_npm ;;
  deny) wanted="$build" npm= ;;
  # libFuzzer is C++.
  fuzz) wanted="$build g++" npm= ;;
  cross) wanted="gcc make pkg-config libclang-dev mmdebstrap" npm= ;;
  # The licences' texts are put together by packaging/third-party.py.
  deb) wanted="$build python3" npm= ;;
  packages) wanted=${*:2} npm= ;;
  *) echo "usage: $0 [run|test|deny|fuzz|cross|deb]" >&2; exit 2 ;;
esac

# Sets missing, the wanted Debian packages that are not installed.
look() {
  local package
  missing=()
  for package in $wanted; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
}

look
command -v cargo >/dev/null || { echo "cargo is missing: install the Rust toolchain (https://rustup.rs)" >&2; exit 1; }
# rustup's cargo may be there without a toolchain, for a new user or HOME.
reason=$(cargo --version 2>&1 >/dev/null) || { echo "cargo does not run: ${reason%%$'\n'*}" >&2; exit 1; }
finish() {
  npm_packages "$npm"
  case $what in
    deny) cargo_command cargo-deny 0.20.2 ;;
    deb) cargo_command cargo-deb 3.8.0 ;;
    fuzz) cargo_command cargo-fuzz 0.13.2 ;;
  esac
}
if [ ${#missing[@]} -eq 0 ]; then
  finish
  exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing packages: ${missing[*]}" >&2
  echo "install them with: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

# Debian starts a web server on port 80 when nginx is installed, which nobody wants here.
policy=/usr/sbin/policy-rc.d
if [[ " ${missing[*]} " == *" nginx-light "* && ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt-get update -qq
# Apt gets the whole list, so that it does not remove installed packages of it to make room for others, and removes
# nothing.
install=(apt-get install -y -qq --no-install-recommends --no-remove --no-upgrade)
versions=()
if ! "${install[@]}" --simulate $wanted >/dev/null 2>&1; then
  # Packages from elsewhere (backports) may be too new for those in this machine's sources: qemu-utils 10 breaks
  # qemu-system-arm 7.2. Those of the list go back to the sources' version.
  for package in $wanted; do
    there=$(dpkg-query -W -f='${Version}' "$package" 2>/dev/null || true)
    offered=$(apt-cache madison "$package" | awk '{ print $3; exit }')
    if [ -n "$there" ] && [ -n "$offered" ] && dpkg --compare-versions "$there" gt "$offered"; then
      echo "going back from $package $there to $offered, which fits the others"
      versions+=("$package=$offered")
    fi
  done
  if ! reason=$("${install[@]}" --allow-downgrades --simulate $wanted "${versions[@]}" 2>&1 >/dev/null); then
    echo "$reason" >&2
    echo "nothing was installed, as it would take something away: see \`apt-get install --simulate ${missing[*]}\`" >&2
    exit 1
  fi
fi
"${install[@]}" --allow-downgrades $wanted "${versions[@]}" >/dev/null
if [[ " ${missing[*]} " == *" nginx-light "* ]] && [ -d /run/systemd/system ]; then
  systemctl disable --quiet nginx
fi
look
[ ${#missing[@]} -eq 0 ] || { echo "still missing after apt-get install: ${missing[*]}" >&2; exit 1; }
finish
