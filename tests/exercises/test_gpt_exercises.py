"""Exercises 31 to 38: solutions pass, stubs fail, common mistakes are named, and examples hold."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from exercises import gpt as stubs
from exercises.checks.gpt import CHECKS
from exercises.solutions import gpt as solutions
from exercises.solutions.attention import multi_head_attention
from exercises.solutions.gpt import embed, gelu, gpt_logits, layer_norm, linear, mlp
from tests.exercises.proof import prove_mistake, prove_solution_and_stub, prove_texts

NAMES = {name: getattr(solutions, name) for name, _ in CHECKS.values()}
Weights = dict[str, Tensor]


@pytest.mark.parametrize("number", CHECKS)
def test_solution_passes_and_stub_fails(number: int) -> None:
    prove_solution_and_stub(number, CHECKS, stubs, solutions)


def test_tasks_and_answers_are_complete_and_right() -> None:
    prove_texts("gpt", CHECKS, stubs, NAMES)


def attention(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    parts = (partial(linear, weights=w, name=f"{name}.attn.{part}") for part in ("c_attn", "c_proj"))
    return multi_head_attention(x, *parts, heads)


def post_norm(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    x = layer_norm(x + attention(x, w, name, heads), w, f"{name}.ln_1")
    return layer_norm(x + mlp(x, w, f"{name}.mlp"), w, f"{name}.ln_2")


def block(
    x: Tensor,
    w: Weights,
    name: str,
    heads: int,
    first: str | None = "ln_1",
    second: str | None = "ln_2",
    add: tuple[int, int] = (1, 1),
) -> Tensor:
    """The block with other LayerNorms, or without one of its additions."""
    x = add[0] * x + attention(layer_norm(x, w, f"{name}.{first}") if first else x, w, name, heads)
    return add[1] * x + mlp(layer_norm(x, w, f"{name}.{second}") if second else x, w, f"{name}.mlp")


def parallel(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    attended = attention(layer_norm(x, w, f"{name}.ln_1"), w, name, heads)
    return x + attended + mlp(layer_norm(x, w, f"{name}.ln_2"), w, f"{name}.mlp")


def gpt(ids: Tensor, w: Weights, config: Any, layers: list[int], norm: bool = True, head: bool = True) -> Tensor:
    x = embed(ids, w)
    for layer in layers:
        x = solutions.block(x, w, f"h.{layer}", config["n_heads"])
    x = layer_norm(x, w, "ln_f") if norm else x
    return x @ w["wte.weight"].T if head else x


def norm(x: Tensor, w: Weights, name: str, *, correction: int = 0, shift: bool = True, root: float = 0.5) -> Tensor:
    variance = x.var(-1, keepdim=True, correction=correction)
    centred = x - x.mean(-1, keepdim=True) if shift else x
    return centred / (variance + 1e-5) ** root * w[f"{name}.weight"] + w[f"{name}.bias"]


def outside(x: Tensor, w: Weights, name: str, epsilon: float) -> Tensor:
    deviation = x.std(-1, keepdim=True, correction=0) + epsilon
    return (x - x.mean(-1, keepdim=True)) / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def tanh_form(x: Tensor, inner: Callable[[Tensor], Tensor], half: float = 0.5) -> Tensor:
    return half * x * (1 + torch.tanh(inner(x)))


def initial(change: Callable[[str, Tensor], Tensor | None], generator_too: bool = True) -> Callable[..., Any]:
    """Initial weights, each changed; a weight that becomes None is left out."""

    def answer(config: Any, generator: torch.Generator) -> Weights:
        weights = solutions.initial_weights(config, generator if generator_too else torch.Generator())
        changed = {name: change(name, weight) for name, weight in weights.items()}
        return {name: weight for name, weight in changed.items() if weight is not None}

    return answer


def scaled(part: str, factor: float) -> Callable[..., Any]:
    return initial(lambda name, weight: weight * factor if name.endswith(part) else weight)


def seeded_for_each(config: Any, generator: torch.Generator) -> Weights:
    """Initial weights that all come from the same random numbers."""
    weights = solutions.initial_weights(config, generator)
    for weight in weights.values():
        if weight.dim() == 2:
            weight.copy_(weight.std() * torch.randn(weight.shape, generator=generator.manual_seed(1)))
    return weights


def change_weights(x: Tensor, w: Weights, name: str) -> Tensor:
    result = linear(x, w, name)
    w[f"{name}.bias"] += 1
    return result


MISTAKES: list[tuple[int, Callable[..., Any], str]] = [
    (31, lambda x, w, n: x @ w[f"{n}.weight"].T, "bias is missing"),
    (31, lambda x, w, n: x @ (m if len(m := w[f"{n}.weight"]) == m.shape[1] else m.T) + w[f"{n}.bias"], "transpose it"),
    (31, lambda x, w, n: x @ w[f"{n}.weight"].T - w[f"{n}.bias"], "subtracted"),
    (31, change_weights, "changed its argument weights"),
    (32, lambda i, w: w["wte.weight"][i], "position embeddings are missing"),
    (32, lambda i, w: w["wte.weight"][i] + w["wpe.weight"][i.clamp(max=8)], "looked up by token"),
    (32, lambda i, w: w["wte.weight"][i] + w["wpe.weight"][1 : i.shape[1] + 1], "count from 0"),
    (32, lambda i, w: w["wte.weight"][i] + w["wpe.weight"][i.shape[1] - 1], "the same position"),
    (32, lambda i, w: w["wte.weight"][i] + w["wpe.weight"][: len(i)], "all tokens got position 0"),
    (32, lambda i, w: w["wte.weight"][i] * w["wpe.weight"][: i.shape[1]], "multiplied"),
    (33, partial(norm, correction=1), "not by C - 1"),
    (33, lambda x, w, n: outside(x, w, n, 1e-5), "inside the square root"),
    (33, lambda x, w, n: outside(x, w, n, 0.0), "epsilon is missing"),
    (33, partial(norm, root=1), "divide by the standard deviation"),
    (33, partial(norm, shift=False), "mean is not subtracted"),
    (33, lambda x, w, n: F.rms_norm(x, x.shape[-1:], w[f"{n}.weight"], 1e-5) + w[f"{n}.bias"], "RMSNorm"),
    (33, lambda x, w, n: F.normalize(x - x.mean(-1, keepdim=True), dim=-1), "expected"),
    (33, lambda x, w, n: layer_norm(x, w, n) - w[f"{n}.bias"], "bias is missing"),
    (33, lambda x, w, n: (layer_norm(x, w, n) - w[f"{n}.bias"]) / w[f"{n}.weight"], "weight and bias are missing"),
    (33, lambda x, w, n: F.layer_norm(x, x.shape[-1:], w[f"{n}.weight"], w[f"{n}.bias"]), "torch's own layer_norm"),
    (34, lambda x: F.gelu(x, approximate="tanh"), "torch's own gelu"),
    (34, lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), "exact GELU"),
    (34, lambda x: x * torch.sigmoid(1.702 * x), "sigmoid form"),
    (34, lambda x: tanh_form(x, lambda x: math.sqrt(2 / math.pi) * (x + 0.044715 * x**3), half=1), "0.5 is missing"),
    (34, lambda x: tanh_form(x, lambda x: 2 / math.pi * (x + 0.044715 * x**3)), "square root of 2 / pi"),
    (34, lambda x: tanh_form(x, lambda x: math.sqrt(2 / math.pi) * x + 0.044715 * x**3), "the whole sum"),
    (34, lambda x: tanh_form(x, lambda x: math.sqrt(2 / math.pi) * (x + 0.044715 * x**2)), "squared"),
    (34, lambda x: x.clamp(min=0), "this is ReLU"),
    (35, lambda x, w, n: linear(linear(x, w, f"{n}.c_fc"), w, f"{n}.c_proj"), "GELU between the two layers is missing"),
    (35, lambda x, w, n: x + mlp(x, w, n), "does not add x"),
    (35, lambda x, w, n: gelu(mlp(x, w, n)), "after c_proj too"),
    (35, lambda x, w, n: linear(linear(x, w, f"{n}.c_fc").relu(), w, f"{n}.c_proj"), "not ReLU"),
    (35, lambda x, w, n: linear(F.gelu(linear(x, w, f"{n}.c_fc")), w, f"{n}.c_proj"), "tanh form"),
    (36, post_norm, "post-norm"),
    (36, partial(block, first=None), "ln_1 is missing"),
    (36, partial(block, second=None), "ln_2 is missing"),
    (36, partial(block, second="ln_1"), "ln_1 is used twice"),
    (36, partial(block, add=(0, 1)), "first addition is missing"),
    (36, partial(block, add=(1, 0)), "second addition is missing"),
    (36, parallel, "the sum after attention"),
    (37, lambda i, w, c: gpt(i, w, c, [0, 1, 2], norm=False), "ln_f, is missing"),
    (37, lambda i, w, c: gpt(i, w, c, [0, 0, 0]), "weights of its own"),
    (37, lambda i, w, c: gpt(i, w, c, [2, 1, 0]), "layer 0 is the first"),
    (37, lambda i, w, c: gpt(i, w, c, [0, 1]), "last layer did not run"),
    (37, lambda i, w, c: gpt(i, w, c, [0, 1, 2], head=False), "hidden states"),
    (37, lambda i, w, c: gpt_logits(i, w, c).softmax(-1), "return the logits"),
    (37, lambda i, w, c: gpt_logits(i, w, c)[:, -1], "every position"),
    (38, initial(lambda name, weight: None if "ln_f" in name else weight), "ln_f.weight, ln_f.bias missing"),
    (38, initial(lambda name, weight: weight.T if "c_fc.weight" in name else weight), "a linear layer is (O, I)"),
    (38, initial(lambda name, weight: torch.zeros_like(weight) if "ln_" in name else weight), "same output for every"),
    (38, initial(lambda name, weight: weight + 0.02 if name.endswith("bias") else weight), "must be zeros"),
    (38, scaled("c_proj.weight", 4), "square root of 2 * n_layers"),
    (38, scaled("c_proj.weight", math.sqrt(2)), "adds twice"),
    (38, scaled("c_proj.weight", 1 / 4), "not by 2 * n_layers"),
    (38, scaled("c_fc.weight", 1 / 4), "only the two c_proj"),
    (38, scaled("wte.weight", 50), "standard normal numbers"),
    (38, scaled("wpe.weight", math.sqrt(50)), "not the variance"),
    (38, initial(lambda name, weight: weight, generator_too=False), "the seeds 1 and 2"),
    (38, lambda c, g: {**solutions.initial_weights(c, g), "wpe.weight": 0.02 * torch.randn(64, 64)}, "global"),
    (38, lambda c, g: {**solutions.initial_weights(c, g), "lm_head.weight": torch.ones(1)}, "the head is wte.weight"),
    (38, seeded_for_each, "have the same random numbers"),
    (38, lambda c, g: None, "needs a return"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "wrong", "named"), MISTAKES, ids=[f"{n}: {named}" for n, _, named in MISTAKES])
def test_common_mistakes_are_named(number: int, wrong: Callable[..., Any], named: str) -> None:
    prove_mistake(CHECKS[number][1], wrong, named)
