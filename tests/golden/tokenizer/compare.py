"""Ids of `sluice data encode` against those of `tokenizers`, one by one, and those of the file that Sluice writes again.

usage: VENV/bin/pip install tokenizers h5py
       xzcat english.txt.xz | head -c 5000000 >/tmp/english.txt
       cat /usr/include/*.h /usr/lib/python3*/*.py >/tmp/code.txt
       VENV/bin/python tests/golden/tokenizer/mixed.py /tmp/mixed.txt 10000000 /tmp/english.txt /tmp/code.txt
       VENV/bin/python tests/golden/tokenizer/compare.py build/release/launch/sluice /tmp/mixed.txt TOKENIZER.json...
"""
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy
from tokenizers import Tokenizer


def main(sluice, path, *names):
    text, failed = pathlib.Path(path).read_bytes().decode(), False
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            shard = pathlib.Path(folder) / "shard.h5"
            subprocess.run([sluice, "data", "encode", path, "--tokenizer", name, "--out", shard], check=True,
                           stdout=subprocess.DEVNULL)
            with h5py.File(shard) as file:
                ours = file["tokens"][1:]  # one document, and before it the end of the one before
        tokenizer = Tokenizer.from_file(name)
        tokenizer.encode_special_tokens = True  # plain text, as ours
        theirs = numpy.array(tokenizer.encode(text, add_special_tokens=False).ids)
        n = min(len(ours), len(theirs))
        different = numpy.flatnonzero(ours[:n] != theirs[:n])
        equal = len(ours) == len(theirs) and len(different) == 0
        print(f"{name}: {len(theirs)} ids, {'equal' if equal else 'DIFFERENT'}")
        if not equal:
            failed, at = True, different[0] if len(different) else n
            for who, ids in ("ours", ours), ("theirs", theirs):
                print(" ", who, len(ids), ids[at:at + 8], repr(tokenizer.decode([int(i) for i in ids[at:at + 8]])))
    return int(failed)


sys.exit(main(*sys.argv[1:]))
