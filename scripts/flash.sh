#!/bin/bash
# flash.sh USER@BOARD | --adb: installs lenscast on a board by ssh or adb, starts its service there and shows what
# works. If the service does not come up, the previous version is restored. `make flash HOST=USER@BOARD` and `make
# flash ADB=1` call this.
#
# Environment:
#   PACKAGE  the package to put there; built for the board (`make deb`) unless given
#   SSH      the ssh to use with its options, such as "ssh -p 2222 -i key"
#   ADB_COMMAND  the adb to use with its options, such as "adb -s SERIAL"
#
# The board needs systemd, and GStreamer 1.22 or later. With dpkg it gets the Debian package, otherwise the files in
# it. Files in /etc/lenscast there are kept.
#
# Exit status: 0: the new version runs; 1: nothing was changed; 2: wrong usage; 3: it did not come up, and the previous
# version runs again; 4: it did not come up, and neither does the previous version.
set -euo pipefail
cd "$(dirname "$0")/.."
CHANGED_NOTHING=1 WRONG_USE=2

say() { echo "flash: $*" >&2; }
give_up() { local status=$1; shift; say "$@"; exit "$status"; }

by=ssh
case ${1:-} in
  --adb) by=adb board="the board at adb" ;;
  '' | -*) give_up $WRONG_USE "say where: make flash HOST=user@board, or make flash ADB=1" ;;
  *) board=$1 ;;
esac
work=$(mktemp -d)
finish() {
  [ $by = adb ] || "${ssh[@]}" -O exit "$board" 2> /dev/null || true
  rm -rf "$work"
}
# One login for all the commands that follow.
read -ra ssh <<< "${SSH:-ssh}"
ssh+=(-o ControlMaster=auto -o "ControlPath=$work/%C" -o ControlPersist=60 -o ConnectTimeout=15 -o ServerAliveInterval=5)
read -ra adb <<< "${ADB_COMMAND:-adb}"
trap finish EXIT

on_board() { # SCRIPT: runs it there with sh, as whoever logs in; gives its output and its status
  if [ $by = ssh ]; then
    "${ssh[@]}" "$board" "$1" < /dev/null
  else
    # Old versions return no status of their own, and end lines as terminals do.
    "${adb[@]}" shell "$1; status=\$?; echo; echo status=\$status" < /dev/null | tr -d '\r' > "$work/answer" || return 255
    sed '$d' "$work/answer"
    local status
    status=$(sed -n '$s/^status=//p' "$work/answer")
    return "${status:-255}"
  fi
}

copy() { # FILE FOLDER: puts it into a folder there
  if [ $by = ssh ]; then
    "${ssh[@]}" "$board" "cat > '$2/${1##*/}'" < "$1"
  else
    "${adb[@]}" push "$1" "$2/${1##*/}" > /dev/null
  fi
}

# What is on the board?
command -v "${ssh[0]}" > /dev/null || [ $by = adb ] || give_up $CHANGED_NOTHING "${ssh[0]} is not installed here"
if [ $by = adb ]; then
  command -v "${adb[0]}" > /dev/null || give_up $CHANGED_NOTHING "${adb[0]} is not installed here: apt-get install adb"
  "${adb[@]}" get-state > "$work/answer" 2>&1 ||
    give_up $CHANGED_NOTHING "no board at adb ($(tail -n 1 "$work/answer")): plug it in, unlock it, look at \`adb devices\`"
fi
questions='echo machine=$(uname -m); echo user=$(id -u)
command -v dpkg > /dev/null && echo dpkg=$(dpkg --print-architecture)
[ -d /run/systemd/system ] && echo systemd=yes
[ "$(id -u)" = 0 ] || { sudo -n true 2> /dev/null && echo sudo=yes; }
echo free=$(df -kP /var/tmp | awk "NR == 2 { print \$4 }")'
status=0
answers=$(on_board "$questions") || status=$?
[ $status -eq 0 ] || [[ $answers == *free=* ]] ||
  give_up $CHANGED_NOTHING "cannot log in: try \`${SSH:-ssh} $board true\`, and put your key there with \`ssh-copy-id $board\`"
fact() { sed -n "s/^$1=//p" <<< "$answers"; }
[ -n "$(fact systemd)" ] || give_up $CHANGED_NOTHING "$board is not run by systemd; see docs/board-bring-up.md for boards without"
root=
if [ "$(fact user)" != 0 ]; then
  [ $by = ssh ] || give_up $CHANGED_NOTHING "adb is not root on the board: run \`${adb[*]} root\` first"
  [ -n "$(fact sudo)" ] ||
    give_up $CHANGED_NOTHING "${board%@*} is not root there and may not use sudo without a password: use HOST=root@${board#*@}"
  root="sudo -n"
fi
case $(fact machine) in
  aarch64) target=aarch64-unknown-linux-gnu debian=arm64 ;;
  x86_64) target=x86_64-unknown-linux-gnu debian=amd64 ;;
  *) give_up $CHANGED_NOTHING "$board is a $(fact machine); there are packages for aarch64 and x86_64" ;;
esac
kind=files
[ -z "$(fact dpkg)" ] || kind=package
[ $kind = files ] || [ "$(fact dpkg)" = $debian ] ||
  give_up $CHANGED_NOTHING "the programs on $board are $(fact dpkg), though its kernel is $(fact machine)"

# What is to be installed?
package=${PACKAGE:-}
if [ -z "$package" ]; then
  say "building the package for $target"
  make --no-print-directory deb TARGET=$target >&2 || give_up $CHANGED_NOTHING "it could not be built"
  package=$(ls -t target/$target/debian/lenscast_*_$debian.deb 2> /dev/null | head -n 1) || true
  [ -n "$package" ] || give_up $CHANGED_NOTHING "make deb left no package in target/$target/debian"
fi
[ -r "$package" ] || give_up $CHANGED_NOTHING "cannot read $package"
built_for=$(dpkg-deb --field "$package" Architecture 2> "$work/answer") ||
  give_up $CHANGED_NOTHING "$package is no package: $(tail -n 1 "$work/answer")"
[ "$built_for" = $debian ] || give_up $CHANGED_NOTHING "$package is for $built_for, and $board is $debian"
# The package, and as much again for a copy of the installed one.
needed=$(($(dpkg-deb --field "$package" Installed-Size) * 3 + 1024))
[ "$(fact free)" -ge $needed ] || give_up $CHANGED_NOTHING "/var/tmp on $board has $(fact free) KiB free and needs $needed"

version=$(dpkg-deb --field "$package" Version)
payload=$work/lenscast.deb
[ $kind = package ] && cp "$package" "$payload"
if [ $kind = files ]; then
  payload=$work/lenscast.tar.gz
  dpkg-deb --fsys-tarfile "$package" | gzip -1 > "$payload"
fi
say "copying lenscast $version to $board, as a $kind of $(($(stat -c %s "$payload") / 1024)) KiB"
folder=$(on_board 'mktemp -d /var/tmp/lenscast-flash.XXXXXX' | head -n 1) || give_up $CHANGED_NOTHING "cannot write to /var/tmp there"
cp scripts/flash-on-board.sh "$work/install.sh"
for file in "$payload" "$work/install.sh"; do
  copy "$file" "$folder" || { on_board "rm -rf $folder" || true; give_up $CHANGED_NOTHING "the connection to $board broke"; }
done

status=0
on_board "$root sh $folder/install.sh $kind $folder" || status=$?
case $status in
  0) say "lenscast $version runs on $board" ;;
  1 | 3 | 4) ;; # it has said why
  *) give_up 4 "the connection to $board broke; the installation goes on there, and its log is $folder/log" ;;
esac
exit "$status"
