"""Writes NAME.safetensors: random problems of KDA, Gated DeltaNet and Mamba2's recurrence, and what
flash-linear-attention's naive recurrences make of them, with gradients by autograd. Tests read the files; nothing else needs this program.

usage: pip install torch numpy safetensors; pip download --no-deps fla-core; unzip fla_core-*.whl -d DIR
       python tests/golden/fla/make.py DIR          (fla-core 0.6.0, torch 2.11.0 were used)

The naive_ functions of recurrences and gates are taken from the package's files, which cannot be imported as a whole
without Triton, and compute in f64: their casts to f32 are turned into casts to f64. The L2 norm with its epsilon and the
sigmoid of beta, which that package has in kernels only, are two lines here, and so are grouped value heads of the scalar
gates and Mamba2's step on the value. Inputs are values that bf16 holds.
In a file, H heads, HV value heads, T tokens of one sequence:
  q k [T, H, K]  v [T, HV, V]  g [T, HV, K]  beta [T, HV]  A_log [HV]  dt_bias [HV, K]  initial_state [1, HV, K, V]
  (scalar gates: g [T, HV], dt_bias [HV]; mamba2: no beta)
  d_o, dfinal_state: cotangents                                                                              all bf16
  o, final_state, d + each input's name                                                                           f32
"""
import ast
import pathlib
import sys

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
LOWER_BOUND = -5.0
#        name               T    H  HV  K  V  law         log A       bias of z
CASES = [("softplus_slow", 130, 2, 2, 8, 6, "softplus", (-4.0, -1.0), -1.0),
         ("softplus_fast", 70, 2, 2, 8, 10, "softplus", (1.0, 2.8), 1.0),
         ("softplus_grouped", 81, 1, 3, 6, 8, "softplus", (-3.0, 1.0), -2.0),
         ("bounded", 97, 2, 2, 8, 6, "bounded", (-0.5, 0.5), 0.0),
         ("bounded_slow_grouped", 66, 2, 4, 6, 5, "bounded", (0.0, 0.5), -3.0),
         ("bounded_one_token", 1, 1, 2, 16, 16, "bounded", (-0.5, 0.5), 0.0),
         ("gdn", 100, 2, 2, 8, 6, "gdn", (-4.0, 1.0), -1.0),
         ("gdn_grouped", 70, 1, 3, 8, 6, "gdn", (-2.0, 2.5), -2.0),
         ("mamba2", 100, 2, 2, 8, 6, "mamba2", (-4.0, 1.0), -1.0),
         ("mamba2_grouped", 70, 1, 3, 8, 6, "mamba2", (-2.0, 2.5), -2.0)]
SCALAR = ("gdn", "mamba2")  # one gate a head


class InF64:
    """torch, but float and float32 mean float64."""

    def __getattr__(self, name):
        return torch.float64 if name in ("float", "float32") else getattr(torch, name)


def naive(file, name):
    """One function of a file, in f64."""
    tree = ast.parse(file.read_text())
    wanted = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == name]
    scope = {"torch": InF64(), "F": torch.nn.functional}
    exec(compile(ast.Module(wanted, []), str(file), "exec"), scope)
    return scope[name]


def l2_norm(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def forward(ops, law, x):
    """o [1, T, HV, V] and the final state [1, HV, K, V]."""
    q, k, v, beta = l2_norm(x["q"])[None], l2_norm(x["k"])[None], x["v"][None], torch.sigmoid(x["beta"])[None] if "beta" in x else None
    states = {"initial_state": x["initial_state"], "output_final_state": True}
    if law in SCALAR:
        z, groups = x["g"][None], v.shape[2] // q.shape[2]
        q, k = q.repeat_interleave(groups, 2), k.repeat_interleave(groups, 2)
        g = naive(ops / "gated_delta_rule/gate.py", "naive_gdn_gate")(z, x["A_log"], x["dt_bias"])
        if law == "gdn":
            return g, naive(ops / "gated_delta_rule/naive.py", "naive_recurrent_gated_delta_rule")(q, k, v, beta, g, **states)
        step = torch.nn.functional.softplus(z + x["dt_bias"])
        return g, naive(ops / "simple_gla/naive.py", "naive_recurrent_simple_gla")(q, k, v * step[..., None], g, **states)
    gate_of = {"softplus": "naive_kda_gate", "bounded": "naive_kda_lowerbound_gate"}[law]
    bound = {"lower_bound": LOWER_BOUND} if law == "bounded" else {}
    g = naive(ops / "kda/gate.py", gate_of)(x["g"][None], x["A_log"], x["dt_bias"].reshape(-1), **bound)
    return g, naive(ops / "kda/naive.py", "naive_recurrent_kda")(q, k, v, g, beta, **states)


def make(ops, seed, name, T, H, HV, K, V, law, log_A, bias):
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=rng)

    gate = (HV,) if law in SCALAR else (HV, K)
    inputs = {"q": normal(T, H, K), "k": normal(T, H, K), "v": normal(T, HV, V), "g": 2 * normal(T, *gate), "beta": 2 * normal(T, HV),
              "A_log": log_A[0] + (log_A[1] - log_A[0]) * torch.rand(HV, generator=rng), "dt_bias": bias + normal(*gate),
              "initial_state": normal(1, HV, K, V)}
    if law == "mamba2":
        del inputs["beta"]
    cotangents = {"d_o": normal(T, HV, V), "dfinal_state": normal(1, HV, K, V)}
    inputs, cotangents = ({n: t.bfloat16() for n, t in d.items()} for d in (inputs, cotangents))
    x = {n: t.double().requires_grad_() for n, t in inputs.items()}
    decay, (o, state) = forward(ops, law, x)
    assert o.dtype == state.dtype == decay.dtype == torch.float64
    ((o[0] * cotangents["d_o"].double()).sum() + (state * cotangents["dfinal_state"].double()).sum()).backward()
    results = {"o": o[0].detach(), "final_state": state.detach(), **{"d" + n: t.grad for n, t in x.items()}}
    file = HERE / f"{name}.safetensors"
    save_file({**inputs, **cotangents, **{n: t.to(torch.float32).contiguous() for n, t in results.items()}}, file, {"law": law})
    file.chmod(0o644)
    print(f"{name}: decay {decay.min().item():.3f} to {decay.max().item():.1e}, {file.stat().st_size} bytes")


if __name__ == "__main__":
    torch.Tensor.float = torch.Tensor.double
    for number, case in enumerate(CASES):
        make(pathlib.Path(sys.argv[1]) / "fla/ops", number, *case)
