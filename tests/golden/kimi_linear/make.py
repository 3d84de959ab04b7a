"""Writes NAME.safetensors beside every NAME.yaml: a random model of transformers' own `kimi_linear` on the CPU (with
rotary positions `deepseek_v3`: the same MLA), what it computes and its gradients. Tests read the files; nothing else needs
this program.

usage: pip install torch transformers safetensors pyyaml        (transformers 5.23.0, torch 2.11.0 were used)
       python tests/golden/kimi_linear/make.py [NAME...]

NAME.yaml is the `model:` section of a config. The weights go to transformers as a published folder would, Moonshot's
config keys and tensor names, through from_pretrained(): the names are its loader's, not ours.
It is made to compute in f64: its casts to f32 are turned into casts to f64, nothing else of it is changed but the latents'
epsilon (see load()). In f32 its own rounding, enlarged by norms of small outputs, hides differences below 1e-4.
In the file:
  PUBLISHED_NAME        weights, bf16 (drawn so that bf16 holds them exactly)
  grad.PUBLISHED_NAME   gradients of the loss, f32
  tokens [B, T] i32, logits [B, T, V] f32, loss [1] f64 (mean over the B (T-1) predictions)
"""
import json
import math
import pathlib
import sys
import tempfile

import torch
import transformers
import yaml
from safetensors.torch import save_file
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek
from transformers.models.kimi_linear import modeling_kimi_linear as kimi

HERE = pathlib.Path(__file__).parent
SHAPES = {"dense_3_1": (2, 100), "moe_3_1": (2, 100), "moe_1_1_q_lora": (3, 71), "moe_7_1": (2, 90), "linear_1_0": (2, 130), "mla_0_1_rope": (2, 90)}
SMALLEST_MARGIN = 1e-4  # between the last expert chosen and the next: rounding must not decide


class InF64:
    """torch, but float and float32 mean float64."""

    def __getattr__(self, name):
        return torch.float64 if name in ("float", "float32") else getattr(torch, name)


def pattern(m):
    linear, full = (int(n) for n in m["ratio"].split(":"))
    kinds = ["kda" if i % (linear + full) < linear else "mla" for i in range(m["num_hidden_layers"])]
    return kinds[:-1] + ["mla"] if linear and full else kinds


def published_config(m):
    kinds, kda, mla, moe = pattern(m), m["kda"], m["mla"], m.get("moe", {})
    assert kda["num_heads"] == kda["num_value_heads"], "kimi_linear has no grouped value heads"
    config = {
        "architectures": ["KimiLinearForCausalLM"], "model_type": "kimi_linear", "dtype": "float32",
        "vocab_size": m["vocab_size"], "hidden_size": m["hidden_size"], "num_hidden_layers": m["num_hidden_layers"],
        "intermediate_size": m["intermediate_size"], "hidden_act": "silu", "rms_norm_eps": m["rms_norm_eps"],
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
        "num_key_value_heads": mla["num_attention_heads"], "mla_use_nope": True, **mla,
        "linear_attn_config": {
            "num_heads": kda["num_heads"], "head_dim": kda["head_dim"], "short_conv_kernel_size": kda["short_conv_kernel_size"],
            "kda_layers": [i + 1 for i, k in enumerate(kinds) if k == "kda"],
            "full_attn_layers": [i + 1 for i, k in enumerate(kinds) if k == "mla"]},
        "num_expert_group": 1, "topk_group": 1, "moe_router_activation_func": "sigmoid", **moe}
    if m["ffn"] == "dense":
        config["first_k_dense_replace"] = m["num_hidden_layers"]
    if not mla.get("use_nope", True):  # kimi_linear never rotates
        assert set(kinds) == {"mla"} and m["ffn"] == "dense"
        config.update(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", num_nextn_predict_layers=0,
                      rope_parameters={"rope_type": "default", "rope_theta": mla["rope_theta"]}, rope_interleave=True)
    return config


def shapes(m):
    """Published name -> shape, as the published folders have them."""
    d, kda, mla, moe = m["hidden_size"], m["kda"], m["mla"], m.get("moe", {})
    out = {"model.embed_tokens.weight": (m["vocab_size"], d), "model.norm.weight": (d,), "lm_head.weight": (m["vocab_size"], d)}

    def mlp(prefix, width):
        out.update({prefix + "gate_proj.weight": (width, d), prefix + "up_proj.weight": (width, d), prefix + "down_proj.weight": (d, width)})

    for i, kind in enumerate(pattern(m)):
        layer, a = f"model.layers.{i}.", f"model.layers.{i}.self_attn."
        out.update({layer + "input_layernorm.weight": (d,), layer + "post_attention_layernorm.weight": (d,)})
        if kind == "kda":
            H, D, W = kda["num_heads"], kda["head_dim"], kda["short_conv_kernel_size"]
            for x in "qkv":
                out.update({a + f"{x}_proj.weight": (H * D, d), a + f"{x}_conv1d.weight": (H * D, 1, W)})
            out.update({a + "A_log": (1, 1, H, 1), a + "dt_bias": (H * D,), a + "f_a_proj.weight": (D, d), a + "f_b_proj.weight": (H * D, D),
                        a + "b_proj.weight": (H, d), a + "g_a_proj.weight": (D, d), a + "g_b_proj.weight": (H * D, D),
                        a + "o_norm.weight": (D,), a + "o_proj.weight": (d, H * D)})
        else:
            H, r, rope, rank = mla["num_attention_heads"], mla["kv_lora_rank"], mla["qk_rope_head_dim"], mla["q_lora_rank"]
            q = H * (mla["qk_nope_head_dim"] + rope)
            out.update({a + "q_a_proj.weight": (rank, d), a + "q_a_layernorm.weight": (rank,), a + "q_b_proj.weight": (q, rank)}
                       if rank else {a + "q_proj.weight": (q, d)})
            out.update({a + "kv_a_proj_with_mqa.weight": (r + rope, d), a + "kv_a_layernorm.weight": (r,),
                        a + "kv_b_proj.weight": (H * (mla["qk_nope_head_dim"] + mla["v_head_dim"]), r),
                        a + "o_proj.weight": (d, H * mla["v_head_dim"])})
        if m["ffn"] == "dense" or i < moe["first_k_dense_replace"]:
            mlp(layer + "mlp.", m["intermediate_size"])
            continue
        s, width = layer + "block_sparse_moe.", moe["moe_intermediate_size"]
        out.update({s + "gate.weight": (moe["num_experts"], d), s + "gate.e_score_correction_bias": (moe["num_experts"],)})
        for e in range(moe["num_experts"]):
            out.update({s + f"experts.{e}.w1.weight": (width, d), s + f"experts.{e}.w3.weight": (width, d), s + f"experts.{e}.w2.weight": (d, width)})
        mlp(s + "shared_experts.", width * moe["num_shared_experts"])
    return out


def draw(name, shape, rng):
    """Nothing degenerate: gates from slow to fast, norms that differ by channel, logits of order 1, routers that prefer."""
    normal, uniform = torch.randn(shape, generator=rng), torch.rand(shape, generator=rng)
    if name.endswith("A_log"):
        t = torch.log(0.5 + 7.5 * uniform)
    elif name.endswith("dt_bias"):
        dt = torch.exp(math.log(1e-3) + uniform * (math.log(1.0) - math.log(1e-3)))
        t = dt + torch.log(-torch.expm1(-dt))
    elif name.endswith("e_score_correction_bias"):
        t = 0.3 * normal
    elif name.endswith(("norm.weight", "layernorm.weight")):
        t = 1 + 0.3 * normal
    elif name.endswith("conv1d.weight"):
        t = 0.6 * normal
    elif name.endswith(("embed_tokens.weight")):
        t = normal
    else:
        t = normal * (1.5 if "gate.weight" in name or "b_proj" in name else 1.0) / math.sqrt(shape[-1])
    return t.bfloat16()


def to_published(native):
    """The loaded module's own names and fused tensors -> published ones."""
    out = {}
    for name, t in native.items():
        name = name.replace("forget_gate.", "")
        moe = ".mlp.gate." in name or ".mlp.experts." in name or ".mlp.shared_experts." in name
        name = name.replace(".mlp.", ".block_sparse_moe.") if moe else name
        if name.endswith("self_attn.conv1d.weight"):
            for x, part in zip("qkv", t.chunk(3)):
                out[name.replace("conv1d", f"{x}_conv1d")] = part
        elif name.endswith("experts.gate_up_proj"):
            for e in range(t.shape[0]):
                out[name.replace("gate_up_proj", f"{e}.w1.weight")], out[name.replace("gate_up_proj", f"{e}.w3.weight")] = t[e].chunk(2)
        elif name.endswith("experts.down_proj"):
            for e in range(t.shape[0]):
                out[name.replace("down_proj", f"{e}.w2.weight")] = t[e]
        else:
            out[name] = t
    return out


def load(m, weights):
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(published_config(m)))
        save_file(weights, folder + "/model.safetensors", {"format": "pt"})
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for module in model.modules():  # the latents' norms have an epsilon of the class, 1e-6; ours is the config's everywhere
        if isinstance(module, (kimi.KimiLinearRMSNorm, deepseek.DeepseekV3RMSNorm)):
            module.variance_epsilon = m["rms_norm_eps"]
    return model.train()


def smallest_margin(model, tokens):
    margins = []

    def hook(router, inputs, _):
        biased = torch.sigmoid(inputs[0].view(-1, router.hidden_dim) @ router.weight.T) + router.e_score_correction_bias
        best = biased.topk(router.top_k + 1).values
        margins.append((best[:, -2] - best[:, -1]).min().item())

    handles = [x.register_forward_hook(hook) for x in model.modules() if isinstance(x, kimi.KimiLinearTopkRouter)]
    model(input_ids=tokens, use_cache=False)
    for h in handles:
        h.remove()
    return min(margins, default=1.0)


def make(name):
    m = yaml.safe_load((HERE / f"{name}.yaml").read_text())
    for seed in range(100):
        rng = torch.Generator().manual_seed(seed)
        weights = {n: draw(n, s, rng) for n, s in shapes(m).items()}
        tokens = torch.randint(0, m["vocab_size"], SHAPES[name], generator=rng)
        model = load(m, weights)
        with torch.no_grad():
            margin = smallest_margin(model, tokens)
        if margin > SMALLEST_MARGIN:
            break
    loaded = to_published(model.state_dict())
    assert loaded.keys() == weights.keys() and all(torch.equal(loaded[n].reshape(w.shape), w.double()) for n, w in weights.items())

    out = model(input_ids=tokens, labels=tokens, use_cache=False)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    grads = to_published({n: p.grad for n, p in model.named_parameters()})
    assert out.loss.dtype == out.logits.dtype == torch.float64
    tensors = dict(weights, tokens=tokens.int(), logits=out.logits.detach().to(torch.float32), loss=out.loss.detach().reshape(1))
    tensors.update({"grad." + n: g.to(torch.float32) for n, g in grads.items()})
    file = HERE / f"{name}.safetensors"
    save_file({n: t.contiguous() for n, t in tensors.items()}, file, {"transformers": transformers.__version__, "torch": torch.__version__, "seed": str(seed)})
    file.chmod(0o644)
    smallest = min(grads, key=lambda n: grads[n].abs().max())
    print(f"{name}: loss {out.loss.item():.5f}, logits {out.logits.std().item():.2f} (std), seed {seed}, margin {margin:.1e}, "
          f"smallest gradient {grads[smallest].abs().max().item():.1e} ({smallest}), {file.stat().st_size} bytes")


if __name__ == "__main__":
    assert kimi.chunk_kimi_delta_attention.__module__ == kimi.__name__, "some other package's kernel"
    kimi.torch = deepseek.torch = InF64()
    torch.Tensor.float = torch.Tensor.double
    for name in sys.argv[1:] or sorted(SHAPES):
        make(name)
