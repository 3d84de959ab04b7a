"""Writes the golden files of this folder with Hugging Face's `tokenizers`, which no test needs.

usage: python3 -m venv VENV && VENV/bin/pip install tokenizers
       VENV/bin/python tests/golden/tokenizer/make.py build/release/launch/sluice

hf_NAME.json       learnt and written by `tokenizers` from text.txt: the published pre-tokenizers and what goes with them
ours_PATTERN.json  learnt and written by `sluice data train-tokenizer` from text.txt
mixed.txt          mixed.py's, of text.txt
ids.json           what `tokenizers` makes of the cases with each file; of mixed.txt the number of ids and their hash
"""
import json
import pathlib
import subprocess
import sys

import mixed
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = pathlib.Path(__file__).parent
TEXT = HERE / "text.txt"
OURS = ["gpt2", "qwen2"]
APOSTROPHES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
NO_HAN = [s[:-1] + r"&&[^\p{Han}]]" for s in (UPPER, LOWER)]


def cased(upper, lower):  # with o200k's order of upper and lower case
    start = r"[^\r\n\p{L}\p{N}]?"
    return f"{start}{upper}*{lower}+{APOSTROPHES}?|{start}{upper}+{lower}*{APOSTROPHES}?"


REGEXES = {
    "gpt2": [],
    "qwen2": [APOSTROPHES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST],
    "cl100k": [APOSTROPHES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST],
    "o200k": [cased(UPPER, LOWER) + r"|\p{N}{1,3}" + REST.replace("[\\r\\n]*", "[\\r\\n/]*", 1)],
    "kimi": [r"[\p{Han}]+|" + cased(*NO_HAN) + r"|\p{N}{1,3}" + REST],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+".replace(r"\"", '"')
                    + "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+"
                    + r"|\s+(?!\S)|\s+"],
}
TEXT_TOKENS = ["<think>", "</think>", "<thi", "e\u0301!", "  "]  # not special: found in text

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
    "a<think>b</think> <thi nk><think>\u00e9!e\u0301! e\u0301  \u0301 x", "<|endoftext|><think><|endoftext|>   <think",
    "\ue000\uf8ff private \ufffd \ufffe",
    "x" * 300 + " " * 70 + "the" * 60 + "\n" * 40 + "水" * 50 + "ab" * 40,
    "waterwaterwaterwaterwaterwaterwaterwaterwaterwaterwater gates",
]


def hugging_face(pattern):
    tokenizer = Tokenizer(models.BPE(ignore_merges=pattern == "cl100k"))
    splits = [pre_tokenizers.Split(Regex(r), "isolated") for r in REGEXES[pattern]]
    digits = [pre_tokenizers.Digits(individual_digits=True)] if pattern == "gpt2-digits" else []
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not splits)
    parts = digits + splits + [bytes_]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts) if len(parts) > 1 else bytes_
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train([str(TEXT)], trainer)
    if pattern == "cl100k":  # Llama 3: a template, and some token that only a whole word can be
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])])
    if pattern in ("kimi", "deepseek-v3"):
        if pattern == "kimi":  # which has none; Qwen3 has
            tokenizer.normalizer = normalizers.NFC()
        else:
            tokenizer.normalizer = normalizers.Sequence([])
        tokenizer.add_tokens([AddedToken(t, normalized=i % 2 == 1) for i, t in enumerate(TEXT_TOKENS)])
    tokenizer.save(str(HERE / f"hf_{pattern}.json"), pretty=False)


def fnv(ids):
    h = 0xcbf29ce484222325
    for n in ids:
        h = ((h ^ n) * 0x100000001b3) & (2**64 - 1)
    return str(h)


def main(sluice):
    golden = {"cases": CASES, "mixed": {}}
    mixed.main(HERE / "mixed.txt", 20000, TEXT)
    REGEXES["gpt2-digits"] = []
    for pattern in REGEXES:
        hugging_face(pattern)
        if pattern in OURS:
            subprocess.run([sluice, "data", "train-tokenizer", TEXT, "--pattern", pattern, "--vocab-size", "420",
                            "--out", HERE / f"ours_{pattern}.json"], check=True)
        for who in ["hf", "ours"] if pattern in OURS else ["hf"]:
            name = f"{who}_{pattern}"
            tokenizer = Tokenizer.from_file(str(HERE / f"{name}.json"))
            tokenizer.encode_special_tokens = True  # plain text, as ours
            encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
            golden[name] = [encode(text) for text in CASES]
            ids = encode((HERE / "mixed.txt").read_bytes().decode())
            golden["mixed"][name] = [len(ids), fnv(ids)]
            for text, ids in zip(CASES, golden[name]):
                got = tokenizer.decode(ids, skip_special_tokens=False)
                assert pattern == "kimi" or got == text, (name, text)
    (HERE / "ids.json").write_text(json.dumps(golden, separators=(",", ":")).replace("],\"", "],\n\"") + "\n")


main(sys.argv[1])
