#!/usr/bin/env bash
# launch/setup.sh -- the packages that Sluice needs, on Debian 12 and Ubuntu 24.04.
#   setup.sh [--with-text]     --with-text: also the King James Bible that the quickstart trains on
# As root it installs what is missing; otherwise it prints the one line that would, and exits 1.
set -euo pipefail

packages=(build-essential cmake ninja-build git pkg-config python3 libopenblas-dev
          libhdf5-dev zlib1g-dev libzstd-dev liblzma-dev libyaml-cpp-dev libcli11-dev nlohmann-json3-dev libfmt-dev
          libpcre2-dev libutf8proc-dev libgtest-dev libbenchmark-dev)
case "${1:-}" in
  --with-text) packages+=(bible-kjv bible-kjv-text) ;;
  "") ;;
  *) echo "usage: setup.sh [--with-text]" >&2; exit 2 ;;
esac

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: every package is there"
  exit 0
fi
line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: packages are missing and this is not root. Run:" >&2
  echo "  sudo sh -c '$line'" >&2
  exit 1
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! (apt-get update && apt-get install -y --no-install-recommends "${missing[@]}") >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "setup: apt-get failed; its whole output is in $log" >&2
  exit 1
fi
rm -f "$log"
