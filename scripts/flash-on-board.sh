#!/bin/sh
# flash-on-board.sh package|files FOLDER: flash.sh's part on the board, as root: installs FOLDER/lenscast.deb, or the
# files in FOLDER/lenscast.tar.gz, makes systemd run them, and undoes all of it if the service does not come up.
# Removes FOLDER. Exits with the status that flash.sh documents. For any POSIX shell and busybox's tools.
kind=$1 folder=$2
service=lenscastd.service sockets="lenscastd.socket lenscast-holders.socket"
# Without dpkg, the list of files that were put there.
list=/usr/share/lenscast/flashed-files
# On a slow board the service first scans its GStreamer plugins, once.
start_limit=120
# A service that fails right after its start is not up.
steady_for=3
log=$folder/log
# The user may disconnect; half an installation would be worse.
trap '' HUP PIPE
exec 3>&1
say() { echo "board: $*" >&3 2> /dev/null; }
show() { sed 's/^/  | /' >&3 2> /dev/null; }

property() { systemctl show --property="$1" --value $service; }

# Waits for the service to be up and stay so: it has notified systemd, and does not restart. Does not use lenscastctl,
# as the configuration may have the control socket elsewhere.
is_up() {
  timeout $start_limit systemctl start $service >> "$log" 2>&1 || return 1
  before=$(property InvocationID)
  sleep $steady_for
  [ "$(property ActiveState)" = active ] && [ "$(property InvocationID)" = "$before" ]
}

# Whether a new process soon replaces the old one.
gives_way() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ "$(property InvocationID)" = "$invocation" ] || return 0
    sleep 1
  done
  return 1
}

# Makes systemd run what is installed now: SIGHUP tells the old process to hand its stream over. Packages do so
# themselves. A restart would end the stream.
switch_over() { # UNIT...: to be started at boot
  systemctl daemon-reload
  [ $# -eq 0 ] || systemctl enable --quiet "$@" >> "$log" 2>&1 || return 1
  # A failed service may be tried again.
  systemctl reset-failed $service > /dev/null 2>&1
  if [ -n "$invocation" ] && [ "$(property ActiveState)" = active ]; then
    [ "$kind" = package ] || systemctl kill --signal=HUP $service >> "$log" 2>&1
    gives_way || timeout $start_limit systemctl restart $service >> "$log" 2>&1 || return 1
  fi
  is_up
}

# Makes a package again of what is installed, with the user's configuration.
repack() {
  tree=$folder/tree
  mkdir -p "$tree/DEBIAN"
  for file in /var/lib/dpkg/info/lenscast.*; do
    case $file in *.list | *.md5sums) ;; *) cp -p "$file" "$tree/DEBIAN/${file##*/lenscast.}" ;; esac
  done
  dpkg-query --status lenscast | awk '/^[^ ]/ { skip = /^(Status|Conffiles):/ } !skip' > "$tree/DEBIAN/control"
  dpkg-query --listfiles lenscast | while read -r path; do
    case $path in
      # On most boards these are links, which the package does not contain.
      /bin | /sbin | /lib) mkdir -p "$tree$path" ;;
      *)
        if [ -d "$path" ] && [ ! -L "$path" ]; then mkdir -p "$tree$path"
        elif [ -e "$path" ] || [ -L "$path" ]; then cp -a "$path" "$tree$path"
        fi
        ;;
    esac || exit 1
  done 2>> "$log" || return 1
  # A configuration file that the user has removed is not one.
  if [ -e "$tree/DEBIAN/conffiles" ]; then
    while read -r path; do [ -e "$tree$path" ] && echo "$path"; done < "$tree/DEBIAN/conffiles" > "$tree/conffiles"
    mv "$tree/conffiles" "$tree/DEBIAN/conffiles"
  fi
  dpkg-deb --root-owner-group -Znone --build "$tree" "$folder/old.deb" >> "$log" 2>&1
}

install_package() { # FILE
  export DEBIAN_FRONTEND=noninteractive
  dpkg --force-confdef --force-confold --install "$1" >> "$log" 2>&1 && return
  # Either a dependency is missing, or the package is broken; apt knows.
  command -v apt-get > /dev/null && say "fetching what it depends on" &&
    apt-get update --quiet >> "$log" 2>&1 &&
    apt-get install --yes --no-install-recommends --fix-broken --no-remove >> "$log" 2>&1 &&
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' lenscast)" = installed ]
}

# Paths of the new version's files, one per line without the leading slash, except configuration that already exists.
new_files() {
  tar -tzf "$folder/lenscast.tar.gz" | sed 's:^\./::' | grep -v '/$' | while read -r path; do
    case $path in etc/lenscast/*) [ -e "/$path" ] && continue ;; esac
    echo "$path"
  done
}

put_files() {
  new_files > "$folder/new"
  sed 's:^:./:' "$folder/new" > "$folder/new.tar"
  tar -xzf "$folder/lenscast.tar.gz" -C / -T "$folder/new.tar" >> "$log" 2>&1 || return 1
  # Files of the old version that the new one does not have.
  [ ! -e "$folder/old.list" ] || grep -vxF -f "$folder/new" "$folder/old.list" | grep -v '^etc/lenscast/' | while read -r path; do rm -f "/$path"; done
  mkdir -p "${list%/*}"
  { cat "$folder/new"; [ ! -e "$folder/old.list" ] || grep '^etc/lenscast/' "$folder/old.list"; } | sort -u > $list
  settle
}

settle() {
  systemd-sysusers >> "$log" 2>&1
  systemd-tmpfiles --create >> "$log" 2>&1
  udevadm control --reload >> "$log" 2>&1 && udevadm trigger --action=add --subsystem-match=leds --subsystem-match=video4linux >> "$log" 2>&1
  return 0
}

take_files_back() {
  while read -r path; do rm -f "/$path"; done < "$folder/new"
  tar -xf "$folder/old.tar" -C / >> "$log" 2>&1
  if [ -e "$folder/old.list" ]; then cp "$folder/old.list" $list; else rm -f $list; fi
  settle
}

# --- what is there now
invocation=$(property InvocationID)
enabled= disabled=
for unit in $service $sockets; do
  case $(systemctl is-enabled $unit 2> /dev/null) in
    enabled*) enabled="$enabled $unit" ;;
    disabled | not-found | '') disabled="$disabled $unit" ;;
  esac
done
had=
if [ "$kind" = package ]; then
  if [ "$(dpkg-query --show --showformat='${db:Status-Status}' lenscast 2> /dev/null)" = installed ]; then
    had=$(dpkg-query --show --showformat='${Version}' lenscast)
    repack || { show < "$log"; say "cannot keep a copy of lenscast $had; nothing was changed"; rm -rf "$folder"; exit 1; }
  fi
else
  [ ! -e $list ] || cp $list "$folder/old.list"
  # There is no list if the files came with an image, or were copied by hand.
  if [ -e $list ] || [ -e /usr/bin/lenscastd ] || [ "$(property LoadState)" = loaded ]; then had="the version before"; fi
  new_files > "$folder/new"
  sort -u "$folder/new" $([ ! -e $list ] || echo $list) | while read -r path; do [ -e "/$path" ] && echo "$path"; done > "$folder/there"
  if ! tar -cf "$folder/old.tar" -C / -T "$folder/there" 2>> "$log"; then
    show < "$log"; say "cannot keep a copy of what is there; nothing was changed"; rm -rf "$folder"; exit 1
  fi
fi

# --- the new version
begun=$(date +%s)
say "installing${had:+, in place of $had}"
: > "$log"
if [ "$kind" = package ]; then install_package "$folder/lenscast.deb"; else put_files; fi && say "starting its service" && switch_over $service && {
  sync
  say "what works on this board, by lenscastctl doctor:"
  timeout 60 lenscastctl doctor 2>&1 | show
  rm -rf "$folder"
  exit 0
}

# --- undone
say "it did not come up:"
{ tail -n 15 "$log"; journalctl --quiet --no-pager --output=cat --lines=15 --unit=$service --since="@$begun"; } 2> /dev/null | show
say "taking it back"
: > "$log"
invocation=$(property InvocationID)
# Enabled at boot as before: what was enabled together with the others is enabled again below.
[ -z "$had" ] || [ -z "$disabled" ] || systemctl disable --quiet $disabled >> "$log" 2>&1
if [ "$kind" = package ]; then
  if [ -n "$had" ]; then dpkg --force-confold --force-downgrade --install "$folder/old.deb" >> "$log" 2>&1; else dpkg --remove --force-remove-reinstreq lenscast >> "$log" 2>&1; fi
else
  [ -n "$had" ] || systemctl disable --quiet --now $service $sockets >> "$log" 2>&1
  take_files_back
fi
if [ -z "$had" ]; then
  systemctl daemon-reload
  sync
  say "removed; there was nothing before"
  rm -rf "$folder"
  exit 3
fi
if switch_over $enabled; then
  sync
  say "$had runs again"
  rm -rf "$folder"
  exit 3
fi
tail -n 15 "$log" | show
say "$had does not come up either: journalctl -u $service on the board tells why; what was tried is in $folder"
exit 4
