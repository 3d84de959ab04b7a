#!/usr/bin/env bash
# launch/test.sh -- builds and passes all tests. Safe to run again: it builds only what changed.
#   test.sh             the suite
#   test.sh --sanitize  the suite under AddressSanitizer and UBSan, in its own build folder
#   test.sh --tsan      the threaded tests under ThreadSanitizer
#   test.sh --portable  the suite of a build for any x86-64-v2, and the operators' tests at each lower level
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
    # The pool, ranks, saves, prefetch, training with two threads, the CPU side of every op.
    select=(-R 'Thread|Comm|Ranks|Cpu\.|CheckpointWriter|Prefetcher')
    ;;
  --portable)
    kind=portable
    args=(-DSLUICE_MARCH=portable)
    ;;
  "") ;;
  *)
    echo "usage: test.sh [--sanitize | --tsan | --portable]" >&2
    exit 2
    ;;
esac

launch/setup.sh
SLUICE_CMAKE_ARGS="-DSLUICE_WERROR=ON ${args[*]}" launch/build.sh "build/$kind"
jobs=$(nproc)
ctest --test-dir "build/$kind" --output-on-failure -j "$jobs" "${select[@]}"
[ "$kind" = portable ] || exit 0

# What runs on the oldest CPU has no instruction of a newer one (its vectors are named xmm; ymm and zmm are AVX's).
for file in build/portable/launch/sluice build/portable/lib/libsluice_kernels.so; do
  count=$(objdump -d --no-show-raw-insn "$file" | grep -c '%[yz]mm' || true)
  [ "$count" = 0 ] || { echo "test: $file has $count AVX instructions" >&2; exit 1; }
done
for level in x86-64-v3 x86-64-v2; do
  for program in build/portable/tests/kernels_*_test; do
    case $program in *_gpu_test) continue ;; esac
    /lib64/ld-linux-x86-64.so.2 --glibc-hwcaps-mask $level "$program" --gtest_brief=1 >/tmp/sluice_level.$$ 2>&1 ||
      { cat /tmp/sluice_level.$$; echo "test: $program fails at $level" >&2; exit 1; }
  done
  rm -f /tmp/sluice_level.$$
  echo "portable: operators at $level pass"
done
