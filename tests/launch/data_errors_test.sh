#!/usr/bin/env bash
# tests/launch/data_errors_test.sh SLUICE -- broken inputs of `sluice data`: each ends with exit code 3 and a
# message that names the file and the place, and leaves nothing behind. A full disk, which is no fault of the inputs,
# leaves what is encoded, to go on with. Prints the messages.
set -uo pipefail
sluice=$1
folder=$(mktemp -d)
trap 'umount "$folder/small" 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failed=0

# expect NAME STATUS PART COMMAND...: the command's status, a part of what it printed, and no new file.
expect() {
  local name=$1 want=$2 part=$3 before got out
  shift 3
  before=$(find . | sort)
  out=$("$@" 2>&1)
  got=$?
  if [ $got -ne "$want" ] || [[ $out != *"$part"* ]] || [ "$before" != "$(find . | sort)" ]; then
    printf 'FAILED %s: status %d, expected %d and "%s" in:\n%s\n' "$name" $got "$want" "$part" "$out"
    diff <(echo "$before") <(find . | sort)
    failed=1
  else
    printf '%-24s %s\n' "$name" "$(grep -m1 -F -- "$part" <<<"$out")"
  fi
}

python3 - <<'PY'
import gzip, lzma, struct
text = b"".join(b"line %d of some text, and more of it\n" % i for i in range(20000))
open("good.txt", "wb").write(text)
xz, gz = lzma.compress(text), bytearray(gzip.compress(text))
open("cut.txt.xz", "wb").write(xz[:len(xz) // 2])
gz[-6] ^= 1                                   # the checksum of the text
open("crc.txt.gz", "wb").write(gz)
open("bad.txt.zst", "wb").write(b"\x28\xb5\x2f\xfd" + b"\xff" * 100)
open("named.txt.xz", "wb").write(text)
good = '{"text": "water"}\n' * 100
open("no-json.jsonl", "w").write(good + '{"text": "wat\n')
open("no-field.jsonl", "w").write(good + '{"body": "water"}\n')
open("no-string.jsonl", "w").write(good + '{"text": 7}\n')
open("empty.txt", "w")

def megatron(name, magic=b"MMIDIDX\0\0", ids=(1, 2, 3), length=3):
    open(name + ".bin", "wb").write(struct.pack("<%dH" % len(ids), *ids))
    open(name + ".idx", "wb").write(magic + struct.pack("<QBQQiqqq", 1, 8, 1, 2, length, 0, 0, 1))
megatron("magic", magic=b"TNTIDX\0\0\0")
megatron("short", length=4)
megatron("large", ids=(1, 999, 3))
PY
mkdir nothing small
"$sluice" data train-tokenizer good.txt --vocab-size 280 --out t.json >/dev/null || exit 1
encode() { "$sluice" data encode "$@" --tokenizer t.json --out out.h5; }

expect "xz, cut off" 3 "cut.txt.xz: byte " encode cut.txt.xz
expect "gzip, checksum" 3 "crc.txt.gz: byte " encode crc.txt.gz
expect "zstd, damaged" 3 "bad.txt.zst: byte " encode bad.txt.zst
expect "no xz at all" 3 "this is no xz file" encode named.txt.xz
expect "a line that is no JSON" 3 'no-json.jsonl:101: expected a JSON object, got "{"text": "wat"' encode no-json.jsonl
expect "a line without field" 3 'no-field.jsonl:101: expected an object with "text"' encode no-field.jsonl
expect "a field of a number" 3 "no-string.jsonl:101: text: expected a string, got 7" encode no-string.jsonl
expect "an empty file" 3 "empty.txt: expected text, found an empty file" encode good.txt empty.txt
expect "a pattern for nothing" 3 "*.jsonl.zst: this pattern matches no file" encode "*.jsonl.zst"
expect "a folder without text" 3 "nothing: expected .txt, .jsonl" encode nothing
expect "no such file" 3 "nowhere.txt: No such file" encode nowhere.txt
expect "a file named twice" 3 "good.txt: this input is named twice" encode good.txt "good*"
expect "a read that fails" 3 "/proc/self/mem: byte 0: Input/output error" encode /proc/self/mem
expect "standard input" 3 "standard input:2: text: expected" encode - --format jsonl < <(printf '{"text": "a"}\n{"text": []}\n')
expect "no such tokenizer" 3 "nowhere.json: No such file" "$sluice" data encode good.txt --tokenizer nowhere.json --out out.h5
expect "no folder for the shard" 3 "no/such/out.h5.partial: No such file" \
  "$sluice" data encode good.txt --tokenizer t.json --out no/such/out.h5
import() { "$sluice" data import-megatron "$1" --tokenizer t.json --out out.h5; }
expect "idx, wrong magic" 3 "magic.idx: byte 0: expected a Megatron index" import magic
expect "bin shorter than idx" 3 "short.bin: has 6 bytes, but short.idx says that sequence 0 has 4 tokens" import short
expect "id above vocabulary" 3 "large.bin: byte 2: token 999 of sequence 0: expected an id below 280" import large
expect "inspect of no shard" 3 "good.txt: expected a token shard" "$sluice" data inspect good.txt
expect "a broken tiktoken" 3 "good.txt:1" \
  "$sluice" data import-tokenizer good.txt --pattern gpt2 --special "300=<|endoftext|>" --out u.json
expect "one file by two names" 2 "expected two files" encode good.txt --valid-fraction 0.1 --valid-out ./out.h5
expect "no folder for the rest" 3 "no/such/valid.h5" encode good.txt --valid-fraction 0.1 --valid-out no/such/valid.h5
expect "a pipe before a file" 3 "expected standard input or a pipe to be the last input" encode <(cat good.txt) good.txt
expect "fraction, nowhere to go" 2 "--valid-out go together" encode good.txt --valid-fraction 0.1

# A full disk: a small file system if this user may mount one, else a limit on the size of files. First one that the
# ids do not fit into; then one that is full when the shard is written. More room, and the same command goes on.
"$sluice" data encode good.txt --tokenizer t.json --out want.h5 >/dev/null || exit 1
shard_kib=$(($(stat -c %s want.h5) / 1024))
full() { "$sluice" data encode good.txt --tokenizer t.json --out small/out.h5; }
limited() { (trap '' XFSZ; ulimit -f "$1"; full); }
if mount -t tmpfs -o size=256k tmpfs small 2>/dev/null; then
  room() { mount -o remount,size="$1"k small; }
  why="No space left on device" run=full
else
  room() { limit=$1; }
  why="File too large" run='limited $limit'
fi
room 200
expect "disk full" 3 "$why" eval "$run"
room $((shard_kib - 8))
[ "$why" = "File too large" ] || room $((shard_kib * 3 / 2))
out=$(eval "$run" 2>&1)
got=$?
if [ $got -ne 3 ] || [[ $out != *"$why"*"is kept in small/out.h5.partial"* ]] || [ "$(ls small)" != out.h5.partial ]; then
  printf 'FAILED disk full for the shard: status %d, left %s:\n%s\n' $got "$(ls small)" "$out"
  failed=1
fi
room $((shard_kib * 4))
if ! out=$(full) || [[ $out != "went on after"* ]] || ! cmp small/out.h5 want.h5 || [ "$(ls small)" != out.h5 ]; then
  printf 'FAILED disk with room again: left %s:\n%s\n' "$(ls small)" "$out"
  failed=1
fi
exit $failed
