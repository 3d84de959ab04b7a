#!/usr/bin/env bash
# launch/test.sh -- builds and passes all tests. Safe to run again: it builds only what changed.
#   test.sh             the suite
#   test.sh --sanitize  the suite under AddressSanitizer and UBSan, in its own build folder
#   test.sh --tsan      the threaded tests under ThreadSanitizer
# Tests that need a GPU skip, loudly, where none is visible.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=test
args=()
select=()
case "${1:-}" in
  --sanitize)
    kind=asan
    args=(-DCMAKE_BUILD_TYPE=RelWithDebInfo -DSLUICE_SANITIZE=address,undefined)
    # On by default since g++ 13, whose stand-in stack frames are not aligned for AVX-512's spills.
    export ASAN_OPTIONS=detect_stack_use_after_return=0
    ;;
  --tsan)
    kind=tsan
    args=(-DCMAKE_BUILD_TYPE=RelWithDebInfo -DSLUICE_SANITIZE=thread)
    # The pool, ranks, saves, training with two threads, the CPU side of every op.
    select=(-R 'Thread|Comm|Ranks|Cpu\.|CheckpointWriter')
    ;;
  "") ;;
  *)
    echo "usage: test.sh [--sanitize | --tsan]" >&2
    exit 2
    ;;
esac

launch/setup.sh
SLUICE_CMAKE_ARGS="-DSLUICE_WERROR=ON ${args[*]}" launch/build.sh "build/$kind"
jobs=$(nproc)
ctest --test-dir "build/$kind" --output-on-failure -j "$jobs" "${select[@]}"
