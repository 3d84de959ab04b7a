"""Writes the golden files of this folder with Hugging Face's `tokenizers`, which no test needs.

usage: python3 -m venv VENV && VENV/bin/pip install tokenizers
       VENV/bin/python tests/golden/tokenizer/make.py build/release/launch/sluice

hf_PATTERN.json    learnt and written by `tokenizers` from text.txt
ours_PATTERN.json  learnt and written by `sluice data train-tokenizer` from text.txt
ids.json           what `tokenizers` makes of the cases with each of the four files
"""
import json
import pathlib
import subprocess
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
TEXT = HERE / "text.txt"
VOCAB = {"gpt2": 420, "qwen2": 420}
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")

CASES = TEXT.read_text().splitlines() + [
    "", " ", "  ", "\n", "\r\n", "\r", "\n\n\n", " \n \n", "\t\t x", "a  b   c    d     ", "a\r\nb\r\n\r\nc\r\r\n",
    "it's IT'S we'Ve they'LL 'sun 'Tis x'd'd 'RE'M ''s' dogs' 'll",
    "3.14159 1e-10 0x1F 100,000 2024-02-29 ٣٤٥ Ⅻ ½¾ x² ①②",
    "camelCase snake_case kebab-case a.b(c)[d]{e}<f>/g\\h|i!j?k@l#m$n%o^p&q*r",
    "...!!!???---___===+++ ,,, ;;; \"\"\" ''' ``` ~~~",
    "\x00\x01\x1f\x7f control\x00chars\x0b\x0c\x1c\x1d\x1e\x1f\x85x",
    "\u00a0no\u00a0break\u2003em\u2028line\u2029par\u3000wide\u180emongol\u200bzero\u2060join\ufeffbom",
    "e\u0301 n\u0303o o\u0308\u0304 \u0301 \u0e01\u0e33\u0e40\u0e01\u0e49\u0e32 \u0928\u093f\u0915\u094d\u0937 \u0bb5\u0bbe",
    "👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇺🇦⌚️☎️ 🙂🙃 🌊x🌊",
    "中文,English混排。日本語テキスト、한국어 문장입니다. ไทย ភាសាខ្មែរ",
    "ǅ ǆ ß ẞ ı İ ſ K Å µ ª º ʰ ㎏ ﬁ ⅷ 𝔘𝔫𝔦 𝟘𝟙",
    "<|endoftext|> <|im_start|> <|endoftext",
    "\ue000\uf8ff private \ufffd \ufffe",
    "x" * 300 + " " * 70 + "the" * 60 + "\n" * 40 + "水" * 50 + "ab" * 40,
    "waterwaterwaterwaterwaterwaterwaterwaterwaterwaterwater gates",
]


def hugging_face(pattern):
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    split = pre_tokenizers.Split(Regex(QWEN2), "isolated")
    tokenizer.pre_tokenizer = bytes_ if pattern == "gpt2" else pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB[pattern], special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train([str(TEXT)], trainer)
    tokenizer.save(str(HERE / f"hf_{pattern}.json"), pretty=False)


def main(sluice):
    golden = {"cases": CASES}
    for pattern in VOCAB:
        hugging_face(pattern)
        subprocess.run([sluice, "data", "train-tokenizer", TEXT, "--pattern", pattern, "--vocab-size",
                        str(VOCAB[pattern]), "--out", HERE / f"ours_{pattern}.json"], check=True)
        for who in "hf", "ours":
            name = f"{who}_{pattern}"
            tokenizer = Tokenizer.from_file(str(HERE / f"{name}.json"))
            tokenizer.encode_special_tokens = True  # plain text, as ours
            golden[name] = [tokenizer.encode(text).ids for text in CASES]
            for text, ids in zip(CASES, golden[name]):
                assert tokenizer.decode(ids, skip_special_tokens=False) == text, (name, text)
    (HERE / "ids.json").write_text(json.dumps(golden, separators=(",", ":")).replace("],\"", "],\n\"") + "\n")


main(sys.argv[1])
