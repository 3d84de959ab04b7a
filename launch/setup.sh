#!/usr/bin/env bash
# launch/setup.sh -- the packages that Sluice needs, on Debian 12 and Ubuntu 24.04.
#   setup.sh [--with-text] [--cuda]
#     --with-text  also the King James Bible that the quickstart trains on
#     --cuda       also the headers of cuDNN's frontend, for attention on a GPU, into .deps/include (by pip)
# As root it installs what is missing; otherwise it prints the one line that would, and exits 1.
set -euo pipefail

packages=(build-essential cmake ninja-build git pkg-config python3 libopenblas-dev
          libhdf5-dev zlib1g-dev libzstd-dev liblzma-dev libyaml-cpp-dev libcli11-dev nlohmann-json3-dev libfmt-dev
          libpcre2-dev libutf8proc-dev libgtest-dev libbenchmark-dev openmpi-bin libopenmpi-dev)
cuda=
for option in "$@"; do
  case "$option" in
    --with-text) packages+=(bible-kjv bible-kjv-text) ;;
    --cuda) cuda=1 ;;
    *) echo "usage: setup.sh [--with-text] [--cuda]" >&2; exit 2 ;;
  esac
done

fetch_cudnn_frontend() {
  local deps
  deps=$(dirname "$0")/../.deps
  [ -n "$cuda" ] || return 0
  if [ -e "$deps/include/cudnn_frontend.h" ]; then
    echo "setup: the headers of cuDNN's frontend are there"
    return 0
  fi
  local wheel
  wheel=$(mktemp -d)
  if ! python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$wheel" nvidia-cudnn-frontend==1.32.0; then
    echo "setup: pip could not fetch nvidia-cudnn-frontend 1.32.0, whose include/ belongs into .deps" >&2
    return 1
  fi
  mkdir -p "$deps"
  python3 - "$wheel" "$deps" <<'PY'
import pathlib, sys, zipfile
wheel, = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as z:
    z.extractall(sys.argv[2], [n for n in z.namelist() if n.startswith("include/")])
PY
  rm -r "$wheel"
  echo "setup: the headers of cuDNN's frontend are in .deps/include"
}

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: every package is there"
  fetch_cudnn_frontend
  exit
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
fetch_cudnn_frontend
