#!/usr/bin/env bash
# tests/ranks/fault_test.sh -- kills, stops and breaks one of the ranks that mpirun started.
#   fault_test.sh LAUNCHER PROGRAM KIND RANK RANKS
# Every process must be gone within the timeout and some seconds, the exit code must say so, and the
# message must name the rank and the collective.
set -uo pipefail
launcher=$1 program=$2 kind=$3 rank=$4 ranks=$5
command -v mpirun >/dev/null || { echo "SKIPPED: there is no mpirun"; exit 77; }
timeout_s=3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
start=$(date +%s%N)
timeout 60 "$launcher" "$ranks" "$program" "$kind" "$rank" "$timeout_s" "$folder" >"$folder/log" 2>&1
code=$?
took=$(( ($(date +%s%N) - start) / 1000000 ))
cat "$folder/log"
echo "exit code $code after $took ms"

failed=0
expect() {  # PATTERN
  grep -Eq -- "$1" "$folder/log" || { echo "FAILED: no line matches: $1"; failed=1; }
}
processes=0
for file in "$folder"/[0-9]*; do
  processes=$((processes + 1))
  pid=$(basename "$file")
  for _ in $(seq 30); do  # who collects orphans takes a moment
    grep -q '^State:.*[^Z] (' "/proc/$pid/status" 2>/dev/null || break
    sleep 0.1
  done
  if grep -q '^State:.*[^Z] (' "/proc/$pid/status" 2>/dev/null; then
    echo "FAILED: process $pid is still there"
    failed=1
  fi
done
[ "$processes" -eq "$ranks" ] || { echo "FAILED: $processes processes ran, expected $ranks"; failed=1; }
if [ "$kind" = none ]; then
  [ "$code" -eq 0 ] || failed=1
  expect "$ranks ranks.*all steps done"
  exit $failed
fi
[ "$code" -ne 0 ] && [ "$code" -ne 124 ] || { echo "FAILED: exit code $code"; failed=1; }
[ "$took" -lt 20000 ] || { echo "FAILED: it took $took ms"; failed=1; }
case "$kind" in
  kill) expect "rank $rank .*is gone: its connection closed" ;;
  stop) expect "rank $rank .*is silent for" ;;
  hang) ;;
  error) expect "rank $rank .*failed: the disk is full" ;;
esac
# The fault is between the two collectives of step 11.
if [ "$kind" = error ]; then
  expect "rank $rank .*after all_reduce_sum 'layer' \(call 11 of pair\)"
elif [ "$rank" -gt 0 ]; then
  expect "all_reduce_max 'norm' \(call 13 of world\).*in it .*; missing $rank\$"
elif [ "$kind" != hang ]; then
  expect "rank 0 is.*this rank is in all_reduce_(sum|max) '(layer|norm)' \(call [0-9]+ of (pair|world)\)"
fi
exit $failed
