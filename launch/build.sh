#!/usr/bin/env bash
# launch/build.sh -- configures and builds for this machine.
#   build.sh DIR [TARGET ...]        without targets: everything
# CUDA is switched off where no GPU is visible, and that is said; SLUICE_CUDA=ON in the environment
# builds it anyway (a login node builds for its cluster). SLUICE_CMAKE_ARGS is passed on to CMake.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${1:?usage: build.sh DIR [TARGET ...]}
shift
cuda=${SLUICE_CUDA:-}
if [ -z "$cuda" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then
    cuda=AUTO
  else
    cuda=OFF
    echo "build: no GPU is visible here, so the CUDA back end is left out (SLUICE_CUDA=ON builds it)"
  fi
fi
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
log=$(mktemp)
# shellcheck disable=SC2086
if ! cmake -S . -B "$dir" -G Ninja -DSLUICE_CUDA="$cuda" "${launcher[@]}" ${SLUICE_CMAKE_ARGS:-} >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
sed -n 's/^-- sluice: NO /build: NO /p' "$log"
rm -f "$log"
targets=()
for t in "$@"; do targets+=(--target "$t"); done
cmake --build "$dir" "${targets[@]}"
