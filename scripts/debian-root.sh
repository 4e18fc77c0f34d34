#!/bin/bash
# debian-root.sh TARGET [OPTION of mmdebstrap...]: Debian 12 in TARGET, a folder or a .tar, from the mirrors that this machine
# uses itself, if it is a Debian 12, else from Debian's own. Without recommended packages.
set -euo pipefail
target=$1
shift
mapfile -t mirrors < <(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
  'Created-By: Packages' 'Origin: Debian' | grep -E ' bookworm(-updates|-security)? main$' | sort -u)
exec mmdebstrap --quiet --aptopt='Apt::Install-Recommends "false"' "$@" bookworm "$target" "${mirrors[@]}"
