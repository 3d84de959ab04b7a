#!/usr/bin/env bash
# tests/ranks/train_fault_test.sh -- training on ranks that mpirun started: one is killed, one is stopped, one has another
# config. Every process must be gone soon, the message must name the rank, and the run goes on with the same bits.
#   train_fault_test.sh SLUICE        exits 77, loudly, where there is no mpirun
set -uo pipefail
program=$(realpath "${1:?usage: train_fault_test.sh SLUICE}")
repo=$(cd "$(dirname "$0")/../.." && pwd)
command -v mpirun >/dev/null || { echo "SKIPPED: there is no mpirun (apt-get install openmpi-bin)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
for i in $(seq 500); do echo "line $i of a text: $((i * i)) is the square of $i"; done >text
"$program" data train-tokenizer text --vocab-size 300 --out tokenizer.json >/dev/null &&
  "$program" data encode text --tokenizer tokenizer.json --out train.h5 >/dev/null || exit 1
cat >run.yaml <<TXT
run: {threads: 1, device: cpu}
model: {hidden_size: 32, num_hidden_layers: 2, ratio: "1:1", ffn: dense, intermediate_size: 64,
        kda: {num_heads: 2, num_value_heads: 2, head_dim: 16},
        mla: {num_attention_heads: 2, kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16}}
data: {tokenizer: tokenizer.json, train: [{path: train.h5, weight: 1, max_epochs: 1000}], seq_len_tokens: 64}
train: {steps: 300, batch_tokens: 256, micro_batch_tokens: 64, validate_every_steps: 1000}
checkpoint: {every_steps: 20}
parallel: {timeout_seconds: 10}
TXT

failed=0
train() { exec "$repo/launch/mpirun.sh" 3 "$program" train run.yaml --set run.dir="$work/$1"; }
ranks_of() {  # RUN: process ids in the order of ranks
  local p
  for p in $(pgrep -f -- "^$program train run.yaml --set run.dir=$work/$1"); do
    echo "$(tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | sed -n 's/^OMPI_COMM_WORLD_RANK=//p') $p"
  done | sort -n | sed 's/^[0-9]* //'
}
expect() {  # WHAT FILE PATTERN
  if grep -Eq -- "$3" "$2"; then
    printf 'ok      %s: %s\n' "$1" "$(grep -E -m1 -o -- "[^[:cntrl:]]*$3.*" "$2" | cut -c1-160)"
  else
    printf 'FAILED  %s: no line matches %s in\n' "$1" "$3"
    cat "$2"
    failed=1
  fi
}

(train straight >straight.log 2>&1) || { cat straight.log; exit 1; }

# fault NAME SIGNAL RANK PATTERN: after the first checkpoint, in some step.
fault() {
  local name=$1 signal=$2 rank=$3 pattern=$4 pid victims i start code
  (train "$name" >"$name.log" 2>&1) &
  pid=$!
  for ((i = 0; i < 600; ++i)); do [ -d "$work/$name/checkpoints/step-00000020" ] && break; sleep 0.1; done
  victims=$(ranks_of "$name")
  start=$SECONDS
  kill "-$signal" "$(sed -n "$((rank + 1))p" <<<"$victims")" || { echo "FAILED  $name: no rank $rank"; cat "$name.log"; failed=1; }
  wait $pid
  code=$?
  echo "ok      $name: SIG$signal of rank $rank; exit code $code after $((SECONDS - start)) s"
  [ $code -ne 0 ] || { echo "FAILED  $name: exit code 0"; failed=1; }
  [ $((SECONDS - start)) -lt 40 ] || { echo "FAILED  $name: it took $((SECONDS - start)) s"; failed=1; }
  expect "$name names the rank" "$name.log" "$pattern"
  expect "$name names a collective" "$name.log" "(in|after|before) .*\(call [0-9]+ of "
  sleep 1
  for i in $victims; do
    case "$(sed -n 's/^State:\t//p' "/proc/$i/status" 2>/dev/null)" in
      "" | Z*) ;;  # gone; a zombie is where nobody reaps
      *) echo "FAILED  $name: process $i is left"; kill -9 "$i"; failed=1 ;;
    esac
  done
  (train "$name" >"$name.again.log" 2>&1) || { cat "$name.again.log"; failed=1; }
  expect "$name goes on" "$name.again.log" "resumed .*\(bitwise\)"
  if "$program" compare straight "$name"; then echo "ok      $name: the bits of a run without it"; else failed=1; fi
}
fault killed KILL 1 "rank 1 .*is gone"
fault stopped STOP 2 "rank 2 .*is silent"
fault root KILL 0 "rank 0 is gone"

# One rank with another config.
cat >other.sh <<TXT
#!/usr/bin/env bash
[ "\$OMPI_COMM_WORLD_RANK" != 2 ] || exec "$program" "\$@" --set optim.lr=1e-3
exec "$program" "\$@"
TXT
chmod +x other.sh
"$repo/launch/mpirun.sh" 3 ./other.sh train run.yaml --set run.dir="$work/other" >other.log 2>&1
code=$?
[ $code -eq 2 ] || { echo "FAILED  another config: exit code $code, expected 2"; failed=1; }
expect "another config" other.log "rank 2 has optim.lr: .*rank 0 has"
[ ! -e other/metrics.jsonl ] || { echo "FAILED  another config: a step was made"; failed=1; }
exit $failed
