#!/usr/bin/env bash
# tests/peers/llama_peer.sh -- trains four small models and has llama.cpp load them (llama_peer.py).
#   llama_peer.sh SLUICE TEXT RANKS.tiktoken FOLDER [OPTION ...]     OPTIONs are llama_peer.py's, for example --converter
# A 3:1 MoE with a tokenizer learnt from TEXT, a dense 3:1 hybrid with GPT-2's tokenizer, GDN layers in the place of KDA's, MLA layers alone.
# Models that are in FOLDER already are not trained again. PYTHON names the interpreter.
set -euo pipefail
sluice=$1 text=$2 ranks=$3 folder=$4
shift 4
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"

model() {  # NAME TOKENIZER [--set ...]
  local name=$1 tokenizer=$2
  shift 2
  local run=$folder/$name
  if [ ! -d "$run/checkpoints" ]; then
    [ -e "$tokenizer.h5" ] || "$sluice" data encode "$text" --split blank-lines --tokenizer "$tokenizer" --out "$tokenizer.h5"
    "$sluice" train "$here/llama_peer.yaml" --set "run.dir=$run" --set "run.name=$name" --set "data.tokenizer=$tokenizer" \
      --set "data.train.0.path=$tokenizer.h5" "$@"
  fi
}

[ -e "$folder/own.json" ] || "$sluice" data train-tokenizer "$text" --split blank-lines --pattern gpt2 --vocab-size 2048 --out "$folder/own.json"
[ -e "$folder/gpt2.json" ] ||
  "$sluice" data import-tokenizer "$ranks" --pattern gpt2 --special '50256=<|endoftext|>' --out "$folder/gpt2.json"
model moe "$folder/own.json"
model dense "$folder/gpt2.json" --set model.ffn=dense --set train.steps=100
model gdn "$folder/own.json" --set model.linear=gdn
model mla "$folder/own.json" --set model.ratio=0:1 --set model.mla.use_nope=false --set model.mla.q_lora_rank=64
failed=0
for name in ${MODELS:-moe dense gdn mla}; do
  echo "== $name"
  "${PYTHON:-python3}" "$here/llama_peer.py" "$sluice" "$folder/$name" "$text" "$@" || failed=1
done
exit $failed
