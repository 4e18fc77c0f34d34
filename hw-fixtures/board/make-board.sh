#!/bin/bash
# make-board.sh [--where]: makes an emulated aarch64 board, a flashable disk with U-Boot's extlinux, Debian's own arm64 kernel and the
# root file system of make-root.sh, made too if it is not there. Prints the folder it is in (cached.sh): disk.img, and
# host_key.pub, by which its SSH server is known. --where prints it without making it. 25 seconds after the root file system's two and
# a half minutes. Needs root.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$(dirname "$here")
. "$here/cached.sh"
where=
[ "${1:-}" = --where ] && where=1
mapfile -t inputs < <(find "$here/overlay" "$fixtures/guest" "$fixtures/uvcsim" "$fixtures/vh264enc" -type f ! -name '*.pyc' | sort)
begin board "$0" "$here"/{cached.sh,make-root.sh,init.c} "${inputs[@]}"

# Sizes in MiB; what is left free is for what is flashed.
boot_size=64 root_size=1300
# With their dependencies: the rig's hardware, the shared folder, the network, and what systemd asks for.
modules="vhci-hcd uvcvideo vivid v4l2-mem2mem videobuf2-vmalloc videobuf2-dma-contig snd-aloop 9p 9pnet_virtio
  virtio_net virtio_rng autofs4 sch_netem sch_tbf"
boot_modules="virtio_pci virtio_blk crc32c_generic ext4"

for program in aarch64-linux-gnu-gcc mke2fs sfdisk cpio ssh-keygen; do
  command -v "$program" > /dev/null || { say "$program is missing: run scripts/install-dependencies.sh test"; exit 1; }
done
setsid "$here/make-root.sh" > "$work/base" 9>&- & command=$!
wait "$command" || exit 1
command= base=$(cat "$work/base")
[ -e /usr/src/linux-source-6.1.tar.xz ] || { say "linux-source-6.1 is missing: run scripts/install-dependencies.sh test"; exit 1; }
say "making its disk"
root=$work/root kernel=$work/kernel
run cp -a "$base/root" "$root"
for package in "$base"/debs/*.deb; do run dpkg-deb -x "$package" "$kernel"; done
image=$(echo "$kernel"/boot/vmlinuz-*)
version=${image##*/vmlinuz-}

# The encoder, for this kernel. Its headers look for those that all architectures share where the package would have put them.
headers=$kernel/usr/src/linux-headers-$version
sed -i "s:/usr/src/linux-headers-:$kernel/usr/src/linux-headers-:g" "$headers/Makefile"
cp -r "$fixtures/vh264enc" "$work/vh264enc"
# And the LEDs of user space, which Debian leaves out.
source=linux-source-6.1
tar -C "$work" -xf /usr/src/$source.tar.xz --occurrence=1 $source/drivers/leds/uleds.c
echo "obj-m += uleds.o" > "$work/$source/drivers/leds/Makefile"
for folder in "$work/vh264enc" "$work/$source/drivers/leds"; do
  run make -s -C "$headers" M="$folder" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- modules
  install -D -m 644 -t "$kernel/lib/modules/$version/extra" "$folder"/*.ko
done
run depmod -b "$kernel" "$version"
say "compiled its encoder and LED"

files_of() { # MODULE...: their files, each after those it needs; those that are not modules in this kernel are built in
  for module in "$@"; do
    modprobe -d "$kernel" -S "$version" --show-depends "$module" 2> "$work/log" || { tail "$work/log" >&2; exit 1; }
  done | awk '/^insmod/ && !seen[$2]++ { print $2 }'
}
files=$(files_of $modules vh264enc uleds)
for file in $files; do
  install -D -m 644 "$file" "$root${file#"$kernel"}"
done
cp "$kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
run depmod -b "$root" "$version"

# Without a fixed identity each boot would be a first one, which takes 4 s longer.
echo 4c5d7a1e0b9f4c6e8a2d3f5b7c9e1a2b > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/resolv.conf"
echo board > "$root/etc/hostname"
echo 127.0.0.1 localhost board > "$root/etc/hosts"
: > "$root/etc/fstab"
cp -r --no-preserve=ownership "$here/overlay/." "$root"
mkdir -p "$root/host" "$root/usr/lib/hw-fixtures"
cp -r --no-preserve=ownership "$fixtures"/{guest,uvcsim} "$root/usr/lib/hw-fixtures"
system=$root/etc/systemd/system
for unit in systemd-networkd.service board-host.service board-agent.service; do
  file=/etc/systemd/system/$unit
  [ -e "$root$file" ] || file=/lib/systemd/system/$unit
  ln -sf "$file" "$system/multi-user.target.wants/$unit"
done
# What a board that lives for minutes has no use for.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
  getty@tty1.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount; do
  ln -sf /dev/null "$system/$unit"
done
ssh-keygen -q -t ed25519 -N '' -C board -f "$root/etc/ssh/ssh_host_ed25519_key"
cp "$root/etc/ssh/ssh_host_ed25519_key.pub" "$new/host_key.pub"

initramfs=$work/initramfs boot=$work/boot
mkdir -p "$initramfs"/{dev,proc,root,modules} "$boot/extlinux"
run aarch64-linux-gnu-gcc -static -O2 -s -Wall -o "$initramfs/init" "$here/init.c"
files=$(files_of $boot_modules)
number=100
for file in $files; do
  cp "$file" "$initramfs/modules/$((number++))-${file##*/}"
done
(cd "$initramfs" && find . | cpio -o -H newc --quiet | gzip -1) > "$boot/initrd"
cp "$image" "$boot/vmlinuz"
cat > "$boot/extlinux/extlinux.conf" << X
TIMEOUT 1
DEFAULT linux
LABEL linux
  KERNEL /vmlinuz
  INITRD /initrd
  APPEND console=ttyAMA0 quiet panic=-1 root=/dev/vda2 mitigations=off net.ifnames=0
X

disk=$new/disk.img
boot_start=1 root_start=$((1 + boot_size))
truncate -s $((root_start + root_size + 1))M "$disk"
sfdisk -q "$disk" << X
label: gpt
start=${boot_start}MiB, size=${boot_size}MiB, type=linux, attrs=LegacyBIOSBootable
start=${root_start}MiB, size=${root_size}MiB, type=linux
X
# U-Boot reads the first and knows less. The second has a journal, as a board may lose its power.
run mke2fs -q -F -t ext4 -O ^has_journal,^metadata_csum,^64bit -d "$boot" -E offset=$((boot_start << 20)) "$disk" ${boot_size}M
run mke2fs -q -F -t ext4 -J size=16 -d "$root" -E offset=$((root_start << 20)),lazy_itable_init=1 "$disk" ${root_size}M
complete
