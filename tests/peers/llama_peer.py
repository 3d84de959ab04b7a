"""Loads our GGUF files, and what llama.cpp's own converter makes of our Hugging Face folder, in llama.cpp, and compares text, scores and samples.

    pip wheel --no-deps llama-cpp-python==0.3.36; pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36    # wheel and sources
    python3 llama_peer.py SLUICE RUN TEXT --converter SOURCES/vendor/llama.cpp/convert_hf_to_gguf.py [--dtypes f32,bf16,...] [--documents 40]

Needs llama-cpp-python, numpy, tokenizers, and for the converter torch, transformers, gguf. For each file: ids of the text equal to ours (those of
tokenizers on the exported tokenizer.json); perplexity of paragraphs of TEXT, each a document, beside that of `sluice eval`; 48 tokens of greedy
text beside those of `sluice generate`. From f32 files, the converter's tensors are compared with ours bit by bit, and its keys with ours.
Fails if a perplexity is more than 0.5 % apart, or an id, a tensor or a key that llama.cpp computes with is another.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

# Ours alone, or of no effect on what is computed: names for people, and the value length of a cache that holds no values.
OWN_KEYS = ("sluice.", "general.name", "general.size_label", "general.basename", "general.finetune", "general.sampling",
            "attention.value_length", "expert_weights_norm", "expert_group", "tokenizer.ggml.add_", "tokenizer.ggml.pre", "GGUF.")

CONVERT = """
import runpy, sys
sys.path[:0] = [{folder!r}, {folder!r} + "/gguf-py"]
import conversion.base as base
known = base.TextModel.get_vocab_base_pre
def named(self, tokenizer):  # a tokenizer that was trained here has no hash in its list
    try:
        return known(self, tokenizer)
    except NotImplementedError:
        print("converter: does not know this tokenizer's hash; told that it is", {pre!r})
        return {pre!r}
base.TextModel.get_vocab_base_pre = named
sys.argv = ["convert", {hf!r}, "--outfile", {out!r}, "--outtype", "f32"]
runpy.run_path({script!r}, run_name="__main__")
"""


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def our_scores(args, paragraphs, folder):
    """Log-likelihood of each paragraph as a document, from `sluice eval`'s multiple choice with an empty question."""
    questions = folder / "questions.jsonl"
    with open(questions, "w") as f:
        for a, b in zip(paragraphs[::2], paragraphs[1::2]):
            f.write(json.dumps({"question": "", "choices": [a, b], "answer": 0}) + "\n")
    run(args.sluice, "eval", args.run, "--out", folder, "--name", "peer", "multiple-choice", questions, "--prompt", "{question}", "--choice", "{choice}")
    lines = [json.loads(line) for line in open(folder / "peer.questions.jsonl")]
    return [x for line in lines for x in line["log_likelihoods"]]


def our_sample(args, prompt, n):
    out = run(args.sluice, "generate", args.run, "--prompt", prompt, "--max-new-tokens", n, "--json")
    return json.loads(out.strip().splitlines()[-1])


class Peer:
    def __init__(self, path):
        from llama_cpp import Llama
        self.llm = Llama(str(path), n_ctx=2048, n_batch=512, logits_all=True, verbose=False, n_threads=2)

    def ids(self, text, bos=False):  # the converter's file does not say that a document begins with one
        return [self.llm.token_bos()] * bos + self.llm.tokenize(text.encode(), add_bos=False, special=False)

    def logits(self, ids):
        self.llm.reset()
        self.llm.eval(ids)
        return np.array(self.llm.scores[:len(ids)], dtype=np.float64)

    def score(self, text):
        ids = self.ids(text, bos=True)
        x = self.logits(ids)[:-1]
        x -= x.max(axis=1, keepdims=True)
        log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        return log_p[np.arange(len(ids) - 1), ids[1:]].sum(), len(ids) - 1

    def greedy(self, prompt, n):
        ids, end = self.ids(prompt, bos=True), self.llm.token_eos()
        begin = len(ids)
        self.llm.reset()
        self.llm.eval(ids)
        while len(ids) < begin + n:
            ids.append(int(np.argmax(self.llm.scores[self.llm.n_tokens - 1])))
            if ids[-1] == end:
                break
            self.llm.eval(ids[-1:])
        return ids[begin:]


def compare_files(ours, theirs):
    """Bit by bit; what llama.cpp computes with must be the same."""
    from gguf import GGUFReader
    a, b = GGUFReader(str(ours)), GGUFReader(str(theirs))
    problems = []
    x, y = {t.name: t for t in a.tensors}, {t.name: t for t in b.tensors}
    problems += [f"tensor {n} only in {'ours' if n in x else 'theirs'}" for n in sorted(x.keys() ^ y.keys())]
    largest = 0.0
    for n in sorted(x.keys() & y.keys()):
        if list(x[n].shape) != list(y[n].shape) or x[n].tensor_type != y[n].tensor_type:
            problems.append(f"{n}: {x[n].tensor_type.name} {list(x[n].shape)}, theirs {y[n].tensor_type.name} {list(y[n].shape)}")
        elif n.endswith("ssm_a"):  # exp of two libraries
            largest = max(largest, float(np.max(np.abs(x[n].data / y[n].data - 1))))
        elif not np.array_equal(x[n].data, y[n].data):
            problems.append(f"{n}: other values")
    prefix = a.fields["general.architecture"].contents() + "."
    dense = a.fields[prefix + "leading_dense_block_count"].contents() == a.fields[prefix + "block_count"].contents()
    keys = [k for k in sorted(set(a.fields) | set(b.fields)) if not any(own in k for own in OWN_KEYS) and not (dense and ".expert_" in k)]
    for k in keys:
        p, q = (r.fields[k].contents() if k in r.fields else None for r in (a, b))
        if p != q:
            problems.append(f"key {k}: ours {str(p)[:80]}, theirs {str(q)[:80]}")
    print(f"  against the converter's: {len(x.keys() & y.keys())} tensors, {len(keys)} keys compared, ssm_a within {largest:.1e}, {len(problems)} differ")
    for p in problems:
        print("   ", p)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sluice")
    parser.add_argument("run")
    parser.add_argument("text")
    parser.add_argument("--converter", type=pathlib.Path)
    parser.add_argument("--dtypes", default="f32,f16,bf16,q8_0")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--mixed", help="more text for the comparison of ids alone")
    args = parser.parse_args()
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        files = {}
        for dtype in args.dtypes.split(","):
            files[f"ours {dtype}"] = folder / f"{dtype}.gguf"
            print(run(args.sluice, "export", args.run, folder / f"{dtype}.gguf", "--dtype", dtype).strip().splitlines()[-1])
        run(args.sluice, "export", args.run, folder / "hf", "--dtype", "f32", "--for", "llama.cpp")
        failures = []
        if args.converter:
            first = next(iter(files.values()))
            from gguf import GGUFReader
            pre = GGUFReader(str(first)).fields["tokenizer.ggml.pre"].contents()
            code = CONVERT.format(folder=str(args.converter.parent), script=str(args.converter), hf=str(folder / "hf"), out=str(folder / "theirs.gguf"), pre=pre)
            out = run(sys.executable, "-c", code)
            print("\n".join(line for line in out.splitlines() if line.startswith("converter:")))
            files["converter's f32"] = folder / "theirs.gguf"
            if "ours f32" in files:
                failures += compare_files(files["ours f32"], folder / "theirs.gguf")

        text = open(args.text, encoding="utf-8").read()
        paragraphs = [p.strip() for p in text.split("\n\n") if 60 < len(p.strip()) < 1500][:args.documents // 2 * 2]
        ours = our_scores(args, paragraphs, folder)
        tokenizer = Tokenizer.from_file(str(folder / "hf" / "tokenizer.json"))
        tokenizer.encode_special_tokens = True  # in plain text they are text
        corpus = text[:400_000] + (open(args.mixed, encoding="utf-8", newline="").read() if args.mixed else "")
        wanted = tokenizer.encode(corpus, add_special_tokens=False).ids
        prompt = " ".join(paragraphs[0].split()[:6])
        sample = our_sample(args, prompt, 48)
        print(f"\n{len(paragraphs)} documents; ids of {len(corpus.encode()):,} bytes; prompt {prompt!r}")
        print(f"{'':16} {'perplexity':>11} {'to ours':>9}  ids   greedy tokens as ours")
        tokens = None
        for name, path in files.items():
            peer = Peer(path)
            got = peer.ids(corpus)
            same = got == wanted
            scores = [peer.score(p) for p in paragraphs]
            tokens = sum(n for _, n in scores)
            if name == next(iter(files)):
                print(f"{'sluice':16} {np.exp(-sum(ours) / tokens):11.5f}")
            ratio = np.exp((sum(ours) - sum(s for s, _ in scores)) / tokens) - 1
            greedy = peer.greedy(prompt, 48)
            alike = next((i for i, (a, b) in enumerate(zip(greedy, sample["tokens"])) if a != b), min(len(greedy), len(sample["tokens"])))
            print(f"{name:16} {np.exp(-sum(s for s, _ in scores) / tokens):11.5f} {100 * ratio:+8.4f}%  {'same' if same else 'OTHER'}  {alike} of {len(sample['tokens'])}")
            if not same:
                at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
                failures.append(f"{name}: ids differ from {at}: {got[at:at + 5]}, expected {wanted[at:at + 5]}: {tokenizer.decode(wanted[max(0, at - 3):at + 5])!r}")
            if abs(ratio) > 0.005:
                failures.append(f"{name}: perplexity {100 * ratio:+.3f} % from ours")
            if name == "ours f32":
                print(f"  ours:  {sample['text']!r}\n  peer:  {tokenizer.decode(greedy)!r}")
        print(f"{tokens} tokens scored")
        sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
