#!/usr/bin/env bash
# launch/quickstart.sh -- from a fresh clone to a trained model and a sample of its text.
#   quickstart.sh [--text FILE] [--compare] [--data] [--help]
# Installs the packages (or prints the line that would, when not root), builds, takes the King James
# Bible from a Debian package (or FILE), trains a small 3:1 KDA:MLA mixture of experts for about two minutes
# on two cores, is killed half-way and resumes, and prints a sample. Safe to run twice: it goes on where it was.
#   --compare   also trains two controls: the token mixers replaced by identity, and a dense model of
#               the same active parameters
#   --data      ends when the data is there: what configs/sweeps train on
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."
began=$SECONDS

usage() { sed -n '2,9s/^# \{0,1\}//p' launch/quickstart.sh; }
refuse() { echo "quickstart: $1" >&2; usage >&2; exit 2; }
text=
compare=
data_only=
while [ $# -gt 0 ]; do
  case "$1" in
    --text)
      [ $# -gt 1 ] || refuse "--text needs a file"
      text=$2
      [[ $text == /* ]] || text=$called_from/$text
      [ -f "$text" ] && [ -r "$text" ] || refuse "cannot read the file $text"
      shift 2
      ;;
    --compare) compare=1; shift ;;
    --data) data_only=1; shift ;;
    --help | -h) usage; exit 0 ;;
    *) refuse "unknown argument $1" ;;
  esac
done
say() { printf '\n== %s (%ds)\n' "$*" $((SECONDS - began)); }

say "1. packages and build"
if [ -n "$text" ]; then launch/setup.sh; else launch/setup.sh --with-text; fi
launch/build.sh build/release sluice
sluice=build/release/launch/sluice
$sluice --version

run=runs/quickstart
mkdir -p $run
say "2. text"
if [ -n "$text" ]; then
  cmp -s "$text" $run/text.txt || cp "$text" $run/text.txt
else
  bible=$(command -v bible || echo /usr/games/bible)
  # One document a chapter: an empty line where the chapter of "Ge1:1 ..." changes.
  "$bible" -f "gen1:1-rev22:21" | awk '{split($1, at, ":"); if (NR > 1 && at[1] != last) print ""; last = at[1]; print}' \
    >$run/text.txt.new
  if cmp -s $run/text.txt.new $run/text.txt; then rm $run/text.txt.new; else mv $run/text.txt.new $run/text.txt; fi
fi
wc -c $run/text.txt

say "3. tokenizer and token shards (the last 5 % of the text is held out)"
input="$run/text.txt --split blank-lines --valid-tail-fraction 0.05"
if [ ! -e $run/valid.h5 ] || [ $run/text.txt -nt $run/valid.h5 ]; then
  $sluice data train-tokenizer $input --vocab-size 1024 --out $run/tokenizer.json
  $sluice data encode $input --tokenizer $run/tokenizer.json --out $run/train.h5 --valid-out $run/valid.h5
  touch $run/valid.h5
fi
$sluice data inspect $run/train.h5
# Legal English, which every Debian has: a validation set that is not like the text, for configs/sweeps.
cat /usr/share/common-licenses/{GPL-3,Apache-2.0} >$run/licenses.txt
$sluice data encode $run/licenses.txt --split blank-lines --tokenizer $run/tokenizer.json --out $run/licenses.h5
[ -z "$data_only" ] || exit 0

say "4. training: killed after its first checkpoint, then resumed by the same command"
if ! ls -d $run/checkpoints/step-* >/dev/null 2>&1; then
  $sluice train configs/quickstart.yaml &
  pid=$!
  until ls -d $run/checkpoints/step-* >/dev/null 2>&1; do
    kill -0 $pid 2>/dev/null || { wait $pid; break; }
    sleep 0.2
  done
  kill -KILL $pid 2>/dev/null || true
  wait $pid 2>/dev/null || true
  echo "-- killed --"
fi
$sluice train configs/quickstart.yaml

say "5. baselines on the same held-out text"
$sluice data ngram $input --order 3
if [ -n "$compare" ]; then
  control() {
    local name=quickstart-$1
    shift
    $sluice train configs/quickstart.yaml --set run.name=$name --set run.dir=runs/$name "$@"
  }
  control identity --set model.linear=identity --set model.full=identity
  control dense --set model.ffn=dense
  for name in quickstart quickstart-identity quickstart-dense; do
    printf '%-20s %s bits/byte\n' $name "$(sed -n 's/.*"bits_per_byte":\([0-9.]*\).*/\1/p' runs/$name/metrics.jsonl | tail -n 1)"
  done
fi

say "6. a sample"
$sluice generate $run --prompt "And God said" --max-new-tokens 120 --temperature 0.8

say "done"
cat <<TXT
  the config          configs/quickstart.yaml
  the run             $run: metrics.jsonl, config.yaml, checkpoints/ (safetensors)
  go on               $sluice generate $run --prompt "In the beginning"
  your own text       launch/quickstart.sh --text FILE   (after removing $run)
TXT
