#!/usr/bin/env bash
# tests/launch/slurm_test.sh -- a run over two nodes of a private Slurm: the time limit's signal saves it and queues it
# again, a node that dies ends it with a message that names the node, and it goes on with the same bits.
#   slurm_test.sh SLUICE        some minutes; exits 77, loudly, where there is no Slurm, no mpirun, or no root
set -uo pipefail
program=$(realpath "${1:?usage: slurm_test.sh SLUICE}")
repo=$(cd "$(dirname "$0")/../.." && pwd)
skip() { echo "SKIPPED: $1 (apt-get install slurmctld slurmd slurm-client munge openmpi-bin)"; exit 77; }
for need in slurmctld slurmd munged; do [ -x "/usr/sbin/$need" ] || skip "there is no $need"; done
for need in sbatch mpirun; do command -v $need >/dev/null || skip "there is no $need"; done
[ "$(id -u)" -eq 0 ] || skip "a private Slurm needs root"

work=$(mktemp -d /tmp/slurm-test.XXXXXX)
chmod 755 "$work"  # for munge
failed=0
finish() {
  scancel --quiet --user=root --full 2>/dev/null
  "$repo/tests/launch/private_slurm.sh" down "$work/slurm"
  if [ "$failed" -eq 0 ]; then rm -rf "$work"; else echo "what is left is in $work"; fi
}
trap finish EXIT
"$repo/tests/launch/private_slurm.sh" up "$work/slurm" 2 || exit 1
export SLURM_CONF=$work/slurm/slurm.conf SLUICE=$program
cd "$work" || exit 1

# A model of some thousand parameters, and a run that does not end by itself.
for i in $(seq 2000); do echo "line $i of a text: $((i * i)) is the square of $i"; done >text
"$program" data train-tokenizer text --vocab-size 300 --out tokenizer.json >/dev/null &&
  "$program" data encode text --tokenizer tokenizer.json --out train.h5 >/dev/null || exit 1
cat >run.yaml <<TXT
run: {dir: $work/run, threads: 1, device: cpu}
model: {hidden_size: 32, num_hidden_layers: 2, ratio: "1:1", ffn: dense, intermediate_size: 64,
        kda: {num_heads: 2, num_value_heads: 2, head_dim: 16},
        mla: {num_attention_heads: 2, kv_lora_rank: 16, qk_nope_head_dim: 16, qk_rope_head_dim: 8, v_head_dim: 16}}
data: {tokenizer: tokenizer.json, train: [{path: train.h5, weight: 1, max_epochs: 1000000}], seq_len_tokens: 64}
train: {steps: 1000000, batch_tokens: 256, micro_batch_tokens: 64, validate_every_steps: 1000000}
checkpoint: {every_steps: 20, keep_every_steps: 20}
metrics: {log_every_steps: 100, tensorboard: false}
TXT

out=$work/out
ok() { printf 'ok      %s\n' "$1"; }
bad() { printf 'FAILED  %s\n' "$1"; failed=1; tail -n 40 "$out"; exit 1; }
newest() { ls "$work/run/checkpoints" 2>/dev/null | sed -n 's/^step-0*//p' | sort -n | tail -n 1; }
# until_ SECONDS WHAT COMMAND...
until_() {
  local seconds=$1 what=$2 i
  shift 2
  for ((i = 0; i < seconds * 5; ++i)); do if "$@"; then ok "$what"; return; fi; sleep 0.2; done
  bad "$what, not within $seconds s"
}
printed() { grep -q -- "$1" "$out" 2>/dev/null; }
count() { [ "$(grep -c -- "$1" "$out")" -ge "$2" ]; }
beyond() { [ "$(newest)" -gt "$1" ] 2>/dev/null; }
submit() {
  sbatch --parsable --nodes=2 --ntasks-per-node=1 --output="$out" --signal=B:USR1@60 --time="$1" \
    "$repo/launch/slurm/train.sbatch" run.yaml
}

job=$(submit 2)
until_ 120 "sbatch: job $job trains over two nodes" printed "ranks    2"
until_ 120 "a checkpoint is there" beyond 0
SLUICE=$program sbatch --parsable --nodes=1 --ntasks=1 --job-name=other --output="$work/second" \
  --time=1 "$repo/launch/slurm/train.sbatch" run.yaml >/dev/null
until_ 200 "the time limit's signal comes before the limit" printed "== signal: save and queue again"
until_ 60 "all ranks stop after the same step, which is saved" printed "which is saved; the same command goes on (exit code 75)"
until_ 30 "the job queues itself again" printed "== saved; job $job is queued again"
saved=$(sed -n 's/.*stopped after step \([0-9]*\), which is saved.*/\1/p' "$out" | tail -n 1)
until_ 180 "its second start" printed "== job $job, start 2,"
until_ 120 "which resumes step $saved with the same bits" printed "resumed  .*step-0*$saved (bitwise)"
until_ 120 "and goes on" beyond "$saved"
grep -q "in use by pid" "$work/second" && ok "a second job on the same folder is refused: $(grep -m1 -o 'this run folder.*' "$work/second")"

# A node dies: everything that runs there, at once.
of_node() {
  local p
  for p in /proc/[0-9]*; do
    if grep -qzx "SLURMD_NODENAME=$1" "$p/environ" && grep -qzx "SLURM_JOB_ID=$job" "$p/environ"; then
      echo "${p#/proc/}"
    fi
  done 2>/dev/null
}
before=$(newest)
# shellcheck disable=SC2046
kill -9 $(of_node n1) 2>/dev/null
until_ 120 "a node that dies ends the job" printed "== job $job failed with exit code"
grep -m3 -n -i -- "n1\|lost\|rank 1" "$out" | sed 's/^/        /'
until_ 30 "and a message names it" grep -q -i "lost.*n1\|node n1\|on n1\|rank 1" "$out"
gone() { [ -z "$(of_node n0)$(of_node n1)" ]; }
until_ 60 "no process of the job is left" gone

job=$(submit 10)
until_ 180 "the job that is submitted again resumes" printed "== job $job, start 1,"
until_ 120 "from a checkpoint, with the same bits" count "(bitwise)" 2
until_ 120 "and goes on after step $before" beyond "$((before + 20))"
milestone=$(((before / 20 + 1) * 20))
scancel --quiet "$job"

# Without any of this: the same bits at a step after all of it.
(exec "$repo/launch/mpirun.sh" 2 "$program" train run.yaml --set run.dir="$work/straight" >"$work/straight.out" 2>&1) &
straight=$!
folder=$(printf 'step-%08d' "$milestone")
there() { [ -d "$work/straight/checkpoints/$folder" ]; }
until_ 300 "a run without interruptions comes to step $milestone" there
kill "$straight"
wait "$straight" 2>/dev/null
for file in "$work/run/checkpoints/$folder"/*.safetensors; do
  cmp "$file" "$work/straight/checkpoints/$folder/$(basename "$file")" || bad "bits of $(basename "$file") at step $milestone"
done
ok "and has the same bits there: $(ls "$work/run/checkpoints/$folder"/*.safetensors | wc -l) files"
exit $failed
