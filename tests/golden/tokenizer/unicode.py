"""Where PCRE2 and utf8proc know another Unicode than `tokenizers`: the tables of data/tokenizer/unicode.cpp.

usage: VENV/bin/python tests/golden/tokenizer/unicode.py      (a Python of Unicode 14, as PCRE2 10.42 has: 3.11)

Prints the tables and writes unicode.json, one number a question: a hash of what `tokenizers` answers for every code
point. tests/data/unicode_test.cpp asks the same.
"""
import ctypes
import json
import pathlib
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

ALL = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "Nd", "P", "S", "Z"]
SETS = [r"\p{%s}" % c for c in CATEGORIES] + [
    r"\p{Han}", r"\s", r"\S", r"\d", r"\P{L}", r"(?i:[a-z])", r"(?i:s)", r"(?i:k)", r"[^\s\p{L}\p{N}]",
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"]
# %s is the code point: alone, among what combines with it, and between Hangul letters.
SHAPES = ["%s", "a%s\u0301", "a\u0301%s\u0323%s\u05b0", "\u1100%s%s", "%s\u0301\u0323", "\u1100\u1161%s", "e%s"]


def fnv(numbers):
    h = 0xcbf29ce484222325
    for n in numbers:
        h = ((h ^ n) * 0x100000001b3) & (2**64 - 1)
    return h


def members(regex):
    text = "".join(map(chr, ALL))
    left = pre_tokenizers.Split(Regex(regex), "removed").pre_tokenize_str(text)
    return set(ALL) - {ord(c) for piece, _ in left for c in piece}


def ranges(codes):
    out = []
    for c in sorted(codes):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def in_python(category):
    return {c for c in ALL if unicodedata.category(chr(c)).startswith(category)}


def class_text(codes):
    return "".join(r"\x{%x}" % a if a == b else r"\x{%x}-\x{%x}" % (a, b) for a, b in ranges(codes))


def print_tables():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    for category in CATEGORIES:
        theirs, ours = members(r"\p{%s}" % category), in_python(category)
        assert ours <= theirs, category
        print(f'    {{"{category}", R"({class_text(theirs - ours)})"}},')
    han = members(r"\p{Han}")
    print(f'    {{"Han", R"({class_text({c for c in han if unicodedata.category(chr(c)) == "Cn"})})"}},')
    # Combining classes of characters that NFC does not know, as utf8proc has them.
    library = ctypes.CDLL("libutf8proc.so.2")
    library.utf8proc_NFC.restype = ctypes.c_void_p
    nfc, free = normalizers.NFC().normalize_str, ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]

    def utf8proc(text):
        at = library.utf8proc_NFC(text.encode())
        made = ctypes.string_at(at).decode()
        free(at)
        return made

    newer = {c for c in ALL for s in SHAPES if utf8proc(s.replace("%s", chr(c))) != nfc(s.replace("%s", chr(c)))}
    for c in ALL:  # and pairs that compose
        parts = [int(x, 16) for x in unicodedata.decomposition(chr(c)).split() if not x.startswith("<")]
        pair = "".join(map(chr, parts))
        if len(parts) == 2 and utf8proc(pair) != nfc(pair):
            newer |= {c, *parts}
    print("newer:", ", ".join("{0x%x, 0x%x}" % (a, b) for a, b in ranges(newer)))


def golden():
    nfc = normalizers.NFC().normalize_str
    answers = {"sets": {s: str(fnv(sorted(members(s)))) for s in SETS}, "nfc": {}}
    for shape in SHAPES:
        made = (nfc(shape.replace("%s", chr(c))) for c in ALL)
        answers["nfc"][shape] = str(fnv(ord(x) for text in made for x in text))
    pairs = [unicodedata.normalize("NFD", chr(c)) for c in ALL]
    answers["nfc_of_nfd"] = str(fnv(ord(x) for text in pairs for x in nfc(text)))
    file = pathlib.Path(__file__).parent / "unicode.json"
    file.write_text(json.dumps(answers, indent=1) + "\n")


print_tables()
golden()
