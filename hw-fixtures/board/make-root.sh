#!/bin/bash
# make-root.sh [--where]: makes the board's root file system (root/, Debian 12 arm64 with systemd, GStreamer and an SSH server) and
# fetches its kernel (debs/); prints the folder they are in (cached.sh). --where prints it without making it. Two and a half
# minutes. Needs root, for device nodes and to change into it, and a kernel that runs arm64 programs by qemu-user-static.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cached.sh"
where=
[ "${1:-}" = --where ] && where=1
begin root "$0"

suite=bookworm
# A board's software as such; python for the hardware's simulators, sudo for those who are not root. Not ca-certificates, which
# take emulation a minute.
base=systemd,systemd-sysv,udev,dbus,kmod,iproute2,procps,v4l-utils,alsa-utils,openssh-server,sudo,python3
gstreamer="gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-alsa glib-networking"

[ "$(id -u)" -eq 0 ] || { say "its root file system can only be made by root"; exit 1; }
for program in mmdebstrap qemu-aarch64-static arch-test; do
  command -v "$program" > /dev/null || { say "$program is missing: run scripts/install-dependencies.sh test"; exit 1; }
done
# Left there: it is what Debian's qemu-user-binfmt does at boot, and others may use it by now.
binfmt=/proc/sys/fs/binfmt_misc
if [ ! -e $binfmt/qemu-aarch64 ]; then
  [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt ||
    { say "cannot mount binfmt_misc on $binfmt, without which no arm64 program runs here: use a container that may, or a machine"; exit 1; }
  cat /usr/lib/binfmt.d/qemu-aarch64.conf > $binfmt/register ||
    { say "cannot register qemu-aarch64-static in $binfmt, without which no arm64 program runs here"; exit 1; }
fi

# The machine's own mirrors if it is of this suite, else Debian's.
mapfile -t sources < <(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
  'Created-By: Packages' 'Origin: Debian' | grep -E " $suite(-updates|-security)? main$" | sort -u)

say "making its root file system, about 3 minutes on two idle cores"
root=$new/root
options=(--aptopt='Apt::Install-Recommends "false"')
for folder in man doc locale; do options+=("--dpkgopt=path-exclude=/usr/share/$folder/*"); done
# Keys of its own come later; those that the package makes take emulation ten seconds.
no_keys='mkdir -p "$1/etc/ssh"; for kind in rsa ecdsa ed25519; do touch "$1/etc/ssh/ssh_host_${kind}_key"; done'
run mmdebstrap --mode=root --variant=minbase --architectures=arm64 "${options[@]}" --include=$base \
  --extract-hook="$no_keys" $suite "$root" "${sources[@]}"
rm -f "$root"/etc/ssh/ssh_host_*
say "has its base"

# Apt for its architecture.
mkdir -p "$work"/apt/{lists,cache/archives}/partial
cat > "$work/apt.conf" << X
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Dir::State "$work/apt";
Dir::State::status "$root/var/lib/dpkg/status";
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
Dir::Etc::sourcelist "$root/etc/apt/sources.list";
Dir::Etc::sourceparts "-";
X
arm64=(env "APT_CONFIG=$work/apt.conf")
run "${arm64[@]}" apt-get update

# Kernel, and what a module for it is compiled with: its headers, and the tools of this machine's architecture.
mkdir "$new/debs"
cd "$new/debs"
image=$("${arm64[@]}" apt-cache depends linux-image-arm64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
version=${image#linux-image-}
common=${version%-arm64}-common
run "${arm64[@]}" apt-get download "$image" "linux-headers-$version" "linux-headers-$common"
kbuild=${version%%-*}
run apt-get download "linux-kbuild-${kbuild%.*}"
say "has its kernel"

# GStreamer is three quarters of it: unpacked by this machine's dpkg, which is ten times faster, and configured by its own.
run "${arm64[@]}" apt-get install --yes --download-only $gstreamer
echo arm64 > "$root/var/lib/dpkg/arch"
excluded=()
for folder in man doc locale; do excluded+=("--path-exclude=/usr/share/$folder/*"); done
run dpkg --root="$root" "${excluded[@]}" --force-depends --force-architecture --force-unsafe-io --unpack "$work"/apt/cache/archives/*.deb
rm "$root/var/lib/dpkg/arch"
run chroot "$root" dpkg --configure -a
[ -z "$(chroot "$root" dpkg --audit)" ] || { say "its packages are not all configured"; exit 1; }
run chroot "$root" useradd --create-home --shell /bin/bash --password '*' dev
say "has GStreamer"
complete
