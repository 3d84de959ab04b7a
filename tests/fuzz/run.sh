#!/usr/bin/env bash
# tests/fuzz/run.sh -- builds a fuzzer with clang, ASan and UBSan, and runs it from its seeds.
#   run.sh READER [OPTION ...]    safetensors | gguf | tokenizer | yaml; options of libFuzzer, for example
#                                 -runs=10000000, -max_total_time=1800 (seconds), a file that crashed it once
# Inputs that reach new code are kept in build/fuzz/corpus/READER; the next run starts from them too.
set -euo pipefail
cd "$(dirname "$0")/../.."

reader=${1:?usage: run.sh READER [OPTION ...]}
shift
build=build/fuzz
CXX=${CXX:-clang++-14} CC=${CC:-clang-14} SLUICE_CUDA=OFF \
  SLUICE_CMAKE_ARGS="-DSLUICE_FUZZ=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSLUICE_SANITIZE=address,undefined,fuzzer-no-link" \
  launch/build.sh "$build" "fuzz_$reader"

case $reader in
  tokenizer) seeds="tests/golden/tokenizer" size=16384 ;;
  yaml) seeds="configs" size=8192 ;;
  *) seeds="tests/fuzz/seeds/$reader" size=2048 ;;
esac
corpus=$build/corpus/$reader
if [ ! -d "$corpus" ]; then
  mkdir -p "$corpus"
  find "$seeds" -type f -size -"$((size / 1024))"k \( -name '*.json' -o -name '*.yaml' -o -name "*.$reader" \) |
    while read -r file; do cp "$file" "$corpus/$(basename "$file")"; done
fi
export ASAN_OPTIONS=detect_stack_use_after_return=0:${ASAN_OPTIONS:-}
exec "$build/tests/fuzz/fuzz_$reader" -max_len=$size -dict="tests/fuzz/$reader.dict" -timeout=20 -rss_limit_mb=3072 \
  -artifact_prefix="$build/" -print_final_stats=1 "$corpus" "$@"
