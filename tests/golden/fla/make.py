"""Writes NAME.safetensors: random KDA problems and what flash-linear-attention's naive recurrence makes of them, with
gradients by autograd. Tests read the files; nothing else needs this program.

usage: pip install torch einops numpy safetensors; pip download --no-deps fla-core; unzip fla_core-*.whl -d DIR
       python tests/golden/fla/make.py DIR          (fla-core 0.6.0, torch 2.11.0 were used)

naive_recurrent_kda() and the two naive gate functions are taken from the package's files, which cannot be imported as a
whole without Triton, and compute in f64: their casts to f32 are turned into casts to f64. The L2 norm with its epsilon and
the sigmoid of beta, which that package has in kernels only, are two lines here. Inputs are values that bf16 holds.
In a file, H heads, HV value heads, T tokens of one sequence:
  q k [T, H, K]  v [T, HV, V]  g [T, HV, K]  beta [T, HV]  A_log [HV]  dt_bias [HV, K]  initial_state [1, HV, K, V]
  d_o, dfinal_state: cotangents                                                                              all bf16
  o, final_state, d + each input's name                                                                           f32
"""
import ast
import importlib.util
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
         ("bounded_one_token", 1, 1, 2, 16, 16, "bounded", (-0.5, 0.5), 0.0)]


class InF64:
    """torch, but float and float32 mean float64."""

    def __getattr__(self, name):
        return torch.float64 if name in ("float", "float32") else getattr(torch, name)


def naive_functions(package):
    spec = importlib.util.spec_from_file_location("fla_kda_naive", package / "fla/ops/kda/naive.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.torch = InF64()
    # Of gate.py, which needs Triton, these two functions alone.
    tree = ast.parse((package / "fla/ops/kda/gate.py").read_text())
    wanted = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name in ("naive_kda_gate", "naive_kda_lowerbound_gate")]
    scope = {"torch": InF64(), "F": torch.nn.functional}
    exec(compile(ast.Module(wanted, []), "gate.py", "exec"), scope)
    return module.naive_recurrent_kda, {"softplus": scope["naive_kda_gate"],
                                        "bounded": lambda g, A, b: scope["naive_kda_lowerbound_gate"](g, A, b, LOWER_BOUND)}


def l2_norm(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def make(recurrence, gates, seed, name, T, H, HV, K, V, law, log_A, bias):
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=rng)

    inputs = {"q": normal(T, H, K), "k": normal(T, H, K), "v": normal(T, HV, V), "g": 2 * normal(T, HV, K), "beta": 2 * normal(T, HV),
              "A_log": log_A[0] + (log_A[1] - log_A[0]) * torch.rand(HV, generator=rng), "dt_bias": bias + normal(HV, K),
              "initial_state": normal(1, HV, K, V)}
    cotangents = {"d_o": normal(T, HV, V), "dfinal_state": normal(1, HV, K, V)}
    inputs, cotangents = ({n: t.bfloat16() for n, t in d.items()} for d in (inputs, cotangents))
    x = {n: t.double().requires_grad_() for n, t in inputs.items()}
    decay = gates[law](x["g"], x["A_log"], x["dt_bias"].reshape(-1))
    o, state = recurrence(*(t[None] for t in (l2_norm(x["q"]), l2_norm(x["k"]), x["v"], decay, torch.sigmoid(x["beta"]))),
                          initial_state=x["initial_state"], output_final_state=True)
    assert o.dtype == state.dtype == decay.dtype == torch.float64
    ((o[0] * cotangents["d_o"].double()).sum() + (state * cotangents["dfinal_state"].double()).sum()).backward()
    results = {"o": o[0].detach(), "final_state": state.detach(), **{"d" + n: t.grad for n, t in x.items()}}
    file = HERE / f"{name}.safetensors"
    save_file({**inputs, **cotangents, **{n: t.to(torch.float32).contiguous() for n, t in results.items()}}, file, {"law": law})
    file.chmod(0o644)
    print(f"{name}: decay {decay.min().item():.3f} to {decay.max().item():.1e}, {file.stat().st_size} bytes")


if __name__ == "__main__":
    torch.Tensor.float = torch.Tensor.double
    functions = naive_functions(pathlib.Path(sys.argv[1]))
    for number, case in enumerate(CASES):
        make(*functions, number, *case)
