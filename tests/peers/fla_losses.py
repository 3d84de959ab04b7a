"""Trains flash-linear-attention's own pure-KDA model from our weights, on our batches, with PyTorch's AdamW, and compares the losses.

    sluice train RUN.yaml --set run.dir=START --set train.steps=1 --set optim.lr=1e-30     # START: the weights that both begin with
    sluice train RUN.yaml --set run.init.from=START
    sluice data batches RUN.yaml --end STEPS --out batches.safetensors
    python3 fla_losses.py RUN_DIR START_DIR batches.safetensors STEPS [--again] [--first-config] --out losses.json

PyTorch with CUDA, fla-core and flash-linear-attention 0.6.0, transformers. Weights are f32 masters with a bf16 copy that forward and backward
work on, gradients are bf16 and become f32 before the norm: FSDP's mixed precision on one GPU. The learning rate of each step is read from the
run's metrics.jsonl; betas, eps, decay, clipping are the defaults of optim/config.h. --again: trains twice, for the reference's own spread between
runs. --first-config: Triton kernels take the first of their configurations instead of timing all of them (minutes less, the same function).
"""
import argparse
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

IGNORED = -1
BETAS, EPS, DECAY, CLIP, NORM_EPS = (0.9, 0.95), 1e-8, 0.1, 1.0, 1e-5


def take_first_config():
    from triton.runtime.autotuner import Autotuner
    init = Autotuner.__init__
    Autotuner.__init__ = lambda self, fn, names, configs, *a, **k: init(self, fn, names, configs[:1], *a, **k)


def split_layer(w, n):
    """Our fused tensors of layer n under the names of FLA's module."""
    ours, to = f"layers.{n}.", f"model.layers.{n}."
    a, m = to + "attn.", to + "mlp."
    K = w[ours + "kda.f_b_proj"].shape[1]
    HV = w[ours + "kda.A_log"].shape[0]
    f_a, g_a, b = w[ours + "kda.fgb_proj"].split([K, w[ours + "kda.g_b_proj"].shape[1], HV])
    named = {to + "attn_norm.weight": w[ours + "mixer_norm"], to + "mlp_norm.weight": w[ours + "ffn_norm"],
             a + "f_proj.0.weight": f_a, a + "f_proj.1.weight": w[ours + "kda.f_b_proj"],
             a + "g_proj.0.weight": g_a, a + "g_proj.1.weight": w[ours + "kda.g_b_proj"], a + "b_proj.weight": b,
             a + "A_log": w[ours + "kda.A_log"], a + "dt_bias": w[ours + "kda.dt_bias"].reshape(-1),
             a + "o_norm.weight": w[ours + "kda.o_norm"], a + "o_proj.weight": w[ours + "kda.o_proj"],
             m + "down_proj.weight": w[ours + "ffn.down_proj"]}
    for name, rows, taps in zip("qkv", w[ours + "kda.qkv_proj"].chunk(3), w[ours + "kda.qkv_conv"].chunk(3)):
        named[f"{a}{name}_proj.weight"], named[f"{a}{name}_conv1d.weight"] = rows, taps.unsqueeze(1)
    named[m + "gate_proj.weight"], named[m + "up_proj.weight"] = w[ours + "ffn.gate_up_proj"].chunk(2)
    return named


def build(w):
    from fla.models.kda import KDAConfig, KDAForCausalLM
    layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("layers."))
    vocab, hidden = w["embedding.weight"].shape
    heads = w["layers.0.kda.A_log"].shape[0]
    model = KDAForCausalLM(KDAConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_heads=heads, head_dim=w["layers.0.kda.f_b_proj"].shape[1], vocab_size=vocab,
        intermediate_size=w["layers.0.ffn.down_proj"].shape[1], norm_eps=NORM_EPS, use_cache=False)).cuda()
    named = {"model.embeddings.weight": w["embedding.weight"], "model.norm.weight": w["head.norm"], "lm_head.weight": w["head.weight"]}
    for n in range(layers):
        named |= split_layer(w, n)
    theirs = model.state_dict()
    missing, unused = theirs.keys() - named.keys(), named.keys() - theirs.keys()
    extra = {name for name in missing if name.endswith("g_proj.1.bias")}  # we have none: it stays 0 and does not learn
    if missing - extra or unused:
        sys.exit(f"fla_losses: no weights for {sorted(missing - extra)}, no place for {sorted(unused)}")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in extra:
                p.zero_().requires_grad_(False)
            else:
                p.copy_(named[name].reshape(p.shape))
    return model.train()


def train(weights, batches, steps, rates):
    """The loss of every step."""
    model = build({name: t.cuda() for name, t in weights.items()})
    wide = lambda name: name.endswith(("A_log", "dt_bias"))
    copies = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    masters = {name: p.detach().float().clone() for name, p in copies}
    for name, p in copies:
        if not wide(name):
            p.data = p.data.bfloat16()
    for name, p in model.named_parameters():
        if not p.requires_grad:
            p.data = p.data.bfloat16()
    decays = lambda name, t: t.dim() >= 2 and not wide(name)
    groups = [{"params": [m for n, m in masters.items() if decays(n, m)], "weight_decay": DECAY},
              {"params": [m for n, m in masters.items() if not decays(n, m)], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True)
    per_step = len(batches["tokens"]) // steps
    losses, norms, began = [], [], time.time()
    for step in range(steps):
        rows = range(step * per_step, (step + 1) * per_step)
        valid = sum(int((batches["targets"][r] != IGNORED).sum()) for r in rows)
        total = 0.0
        for r in rows:
            tokens, targets = batches["tokens"][r].cuda().long(), batches["targets"][r].cuda().long()
            ends = torch.unique_consecutive(batches["cu_seqlens"][r]).cuda().long()
            hidden = model.model(input_ids=tokens[None], cu_seqlens=ends, use_cache=False)[0]
            loss = F.cross_entropy(model.lm_head(hidden)[0].float(), targets, ignore_index=IGNORED, reduction="sum") / valid
            loss.backward()
            total += loss.detach()
        for name, p in copies:
            masters[name].grad = p.grad.float()
            p.grad = None
        norms.append(float(torch.nn.utils.clip_grad_norm_(masters.values(), CLIP)))
        for g in adam.param_groups:
            g["lr"] = rates[step]
        adam.step()
        for name, p in copies:
            p.data.copy_(masters[name])
        if step == 0 or (step + 1) % 50 == 0:
            print(f"fla_losses: step {step + 1}, loss {float(total):.4f}, {time.time() - began:.1f} s", flush=True)
        losses.append(float(total))
    print(f"fla_losses: {steps} steps in {time.time() - began:.1f} s, loss {losses[0]:.4f} to {losses[-1]:.4f}", flush=True)
    return losses, norms


def compare(name, a, b):
    difference = torch.tensor(a) - torch.tensor(b)
    at = [s for s in (0, 1, 2, 5, 10, 20, 50, 100, 150, 200, 250, 299) if s < len(a)]
    print(f"{name}: mean {difference.mean():+.2e}, mean |d| {difference.abs().mean():.2e}, largest {difference.abs().max():.2e};",
          ", ".join(f"step {s + 1} {difference[s]:+.1e}" for s in at), flush=True)
    return difference.tolist()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("run")
    args.add_argument("start")
    args.add_argument("batches")
    args.add_argument("steps", type=int)
    args.add_argument("--again", action="store_true")
    args.add_argument("--first-config", action="store_true")
    args.add_argument("--out", required=True)
    args = args.parse_args()
    if args.first_config:
        take_first_config()
    run = pathlib.Path(args.run)
    events = [json.loads(line) for line in open(run / "metrics.jsonl")]
    ours = [e for e in events if e["event"] == "train"][:args.steps]
    if len(ours) < args.steps:
        sys.exit(f"fla_losses: {run}/metrics.jsonl has {len(ours)} steps, expected {args.steps}")
    weights = load_file(pathlib.Path(args.start) / "checkpoints/step-00000001/weights.safetensors")
    batches = load_file(args.batches)
    rates = [e["lr"] for e in ours]
    results = {"ours": [e["loss"] for e in ours]}
    results["fla"], results["fla_grad_norm"] = train(weights, batches, args.steps, rates)
    compare("ours - FLA", results["ours"], results["fla"])
    if args.again:
        results["fla_again"], _ = train(weights, batches, args.steps, rates)
        compare("FLA - FLA again", results["fla"], results["fla_again"])
    json.dump(results, open(args.out, "w"))


main()
