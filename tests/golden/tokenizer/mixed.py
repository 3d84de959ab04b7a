"""Mixed text to compare tokenizers on: code, Chinese, emoji, combining marks, odd spaces, any assigned character.

usage: mixed.py OUT BYTES [TEXT...]     the same arguments give the same bytes; TEXT are files, e.g. English and code
"""
import pathlib
import random
import sys
import unicodedata

ASSIGNED = [chr(c) for c in range(1, 0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
MARKS = [c for c in ASSIGNED if unicodedata.combining(c)]
SPACES = [c for c in ASSIGNED if c.isspace()] + list("\u200b\u180e\ufeff\u2060")
EMOJI = ["👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇺🇦", "⌚️", "☎️", "🙂", "👩🏿‍🔬", "1️⃣"]
WORDS = ["don't", "WE'LL", "x'd", "'re", "def f(x):", "return x**2", "<|endoftext|>", "<think>", "</think>", "<｜User｜>",
         "https://a.b/c?d=e&f", "camelCase", "snake_case", "\\frac{1}{2}", "e\u0301", "n\u0303", "ﬁ", "Ǆ", "ß", "İ", "ſ"]


def pieces(rng):
    han, hangul = (chr(rng.randrange(0x4E00, 0x9FA6)) for _ in iter(int, 1)), range(0xAC00, 0xD7A4)
    some = lambda list_, low, high: "".join(rng.choice(list_) for _ in range(rng.randint(low, high)))
    while True:
        yield "".join(next(han) + rng.choice(["", "", "", "，", "。\n"]) for _ in range(rng.randint(1, 60)))
        yield some([chr(c) for c in rng.sample(hangul, 5)], 1, 9)
        yield some([chr(c) for c in range(0x1100, 0x1200)], 1, 6)  # letters that compose
        yield some(EMOJI, 1, 4)
        yield rng.choice("aeionAEnsu가\u0915") + some(MARKS, 1, 4)
        yield some("0123456789٣²Ⅻ", 1, 12)
        yield some(SPACES, 1, 8)
        yield rng.choice([" ", "\n", "\r\n", "\t", "\x00", "\x7f", "\x1b["]) * rng.randint(1, 30)
        yield some("!?.,-_()[]{}/'\"=+*", 1, 6)
        yield some(ASSIGNED, 1, 12)
        yield some("abcdefghijklmnopqrstuvwxyz", 1, 12) * rng.choice([1, 1, 1, 1, 40])
        yield chr(rng.randrange(0xE000, 0xF900))
        yield " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))


def main(out, size, *texts):
    rng = random.Random(5)
    given = "".join(pathlib.Path(t).read_bytes().decode("utf-8", "ignore") for t in texts)
    made, bytes_, at = [], 0, 0
    for piece in pieces(rng):
        if given and rng.random() < 0.1:  # about two thirds of the whole is given text
            n = rng.randint(1, 800)
            piece += given[at:at + n]
            at = (at + n) % len(given)
        made.append(piece)
        bytes_ += len(piece.encode())
        if bytes_ >= int(size):
            break
    pathlib.Path(out).write_bytes("".join(made).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
