"""The checks of exercises 31 to 38. The expected values are those of torch's own layers and of the project's model."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.checks.forbidden import forbids
from exercises.checks.judging import judge, kind_of, random, require
from exercises.checks.state_dicts import Weights, judge_with_weights, random_model, weights_of
from src.model.gpt import GPTModel
from src.model.transformerBlock import TransformerBlock

Answer = Callable[..., Any]

CONFIG = {"vocab_size": 11, "context_length": 7, "d_model": 8, "n_heads": 2, "n_layers": 3}


def check_linear(function: Answer) -> None:
    """Exercise 31: compare with F.linear, also for a square weight, where a missing transpose goes unnoticed."""
    for shape, size in [((2,), 2), ((4, 3), 5), ((2, 5, 4), 4), ((1, 1, 6), 2)]:
        x, weight, bias = random(*shape, seed=1), random(size, shape[-1], seed=2), random(size, seed=3)
        mistakes = {
            "the bias is missing": F.linear(x, weight),
            "the bias is subtracted": F.linear(x, weight, -bias),
        }
        if size == shape[-1]:
            mistakes["the weight is (O, I): transpose it before you multiply x by it"] = x @ weight + bias
        weights = {"c_proj.weight": weight, "c_proj.bias": bias, "other.weight": weight + 1, "other.bias": bias + 1}
        judge_with_weights(
            function, {"x": x, "weights": weights, "name": "c_proj"}, F.linear(x, weight, bias), mistakes
        )


def check_embed(function: Answer) -> None:
    """Exercise 32: compare with the embeddings of the project's model."""
    wte, wpe = random(11, 4, seed=1), random(9, 4, seed=2)
    for ids in (torch.tensor([[5, 0, 3]]), torch.tensor([[1, 1, 8, 10], [7, 2, 2, 0]]), torch.tensor([[6]])):
        T = ids.shape[1]
        expected = F.embedding(ids, wte) + F.embedding(torch.arange(T), wpe)
        mistakes = {
            "the position embeddings are missing": wte[ids],
            "the position embeddings were looked up by token; they depend on the position only": (
                wte[ids] + wpe[ids.clamp(max=8)]
            ),
            "positions count from 0": wte[ids] + wpe[1 : T + 1],
            "all tokens got the same position; token t needs row t of wpe": wte[ids] + wpe[T - 1],
            "all tokens got position 0; token t needs row t of wpe, for t up to ids.shape[1]": wte[ids] + wpe[0],
            "add the two embeddings; here they are multiplied": wte[ids] * wpe[:T],
            "the token embeddings are missing": wpe[:T].expand(len(ids), T, 4),
        }
        judge_with_weights(
            function, {"ids": ids, "weights": {"wte.weight": wte, "wpe.weight": wpe}}, expected, mistakes
        )


@forbids(("layer_norm", "write it with mean, a square root, * and +"))
def check_layer_norm(function: Answer) -> None:
    """Exercise 33: compare with F.layer_norm, also for channels that hardly differ, where epsilon matters."""
    for shape, spread in [((4,), 1.0), ((2, 3, 6), 3.0), ((3, 3), 0.01), ((2, 5), 0.0)]:
        C = shape[-1]
        x = 2.0 + spread * random(*shape, seed=1)
        weight, bias = random(C, seed=2), random(C, seed=3)
        expected = F.layer_norm(x, (C,), weight, bias, eps=1e-5)
        centred, variance = x - x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        normal = centred / torch.sqrt(variance + 1e-5)
        mistakes = {
            "the variance is the mean of the squares: divide by C, not by C - 1 (torch's var needs correction=0)": (
                centred / torch.sqrt(x.var(-1, keepdim=True) + 1e-5) * weight + bias
            ),
            "epsilon belongs inside the square root, added to the variance": (
                centred / (variance.sqrt() + 1e-5) * weight + bias
            ),
            "epsilon is missing: channels that are all equal have variance 0": centred / variance.sqrt() * weight
            + bias,
            "divide by the standard deviation, the square root of the variance": (
                centred / (variance + 1e-5) * weight + bias
            ),
            "the mean is not subtracted": x / torch.sqrt(variance + 1e-5) * weight + bias,
            "divided by the root of the mean square (RMSNorm); subtract the mean first": (
                x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5) * weight + bias
            ),
            "weight and bias are missing": normal,
            "the bias is missing": normal * weight,
            "the weight is missing": normal + bias,
            "mean and variance are those of all tokens together; each token needs its own": (
                (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5) * weight + bias
            ),
            "mean and variance run over the tokens; they run over the channels, the last dimension": (
                F.layer_norm(x.mT, (shape[-2],), eps=1e-5).mT * weight + bias if len(shape) > 1 else expected
            ),
        }
        weights = {"ln_f.weight": weight, "ln_f.bias": bias}
        judge_with_weights(function, {"x": x, "weights": weights, "name": "ln_f"}, expected, mistakes)


@forbids(("gelu", "write it with torch.tanh"))
def check_gelu(function: Answer) -> None:
    """Exercise 34: compare with F.gelu(approximate="tanh"), which the answer may not call."""
    for x in (torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64), 3 * random(2, 3, 4, seed=1), random(5, seed=2)):
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        mistakes = {
            "this is the exact GELU; GPT-2 was trained with its tanh form": F.gelu(x),
            "this is the sigmoid form of GELU; GPT-2 was trained with the tanh form": x * torch.sigmoid(1.702 * x),
            "the factor 0.5 is missing": x * (1 + torch.tanh(inner)),
            "add 1 to the tanh": 0.5 * x * torch.tanh(inner),
            "multiply by x at the end": 0.5 * (1 + torch.tanh(inner)),
            "the factor is the square root of 2 / pi": (
                0.5 * x * (1 + torch.tanh(2 / math.pi * (x + 0.044715 * x**3)))
            ),
            "the square root of 2 / pi multiplies the whole sum, x + 0.044715 x^3": (
                0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x + 0.044715 * x**3))
            ),
            "x is cubed inside the tanh; here it is squared": (
                0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**2)))
            ),
            "this is ReLU": F.relu(x),
        }
        judge(function, {"x": x}, F.gelu(x, approximate="tanh"), mistakes)


def check_mlp(function: Answer) -> None:
    """Exercise 35: compare with the project's MLP."""
    model = random_model(**CONFIG)
    for layer, shape in [(0, (8,)), (1, (2, 5, 8)), (2, (3, 8))]:
        module, x = model.h[layer].mlp, random(*shape, seed=layer)
        hidden = module.c_fc(x).detach()
        with torch.no_grad():
            wrong = {
                "the GELU between the two layers is missing": module.c_proj(hidden),
                "the MLP does not add x; the block does that": x + module(x),
                "the GELU comes after c_fc only; here there is one after c_proj too": module.activation(module(x)),
                "the GELU comes after c_fc, not after c_proj": module.activation(module.c_proj(hidden)),
                "the activation is GELU, not ReLU": module.c_proj(F.relu(hidden)),
                "the activation is the tanh form of GELU": module.c_proj(F.gelu(hidden)),
            }
            expected = module(x)
        judge_with_weights(function, {"x": x, "weights": weights_of(model), "name": f"h.{layer}.mlp"}, expected, wrong)


def check_block(function: Answer) -> None:
    """Exercise 36: compare with the project's TransformerBlock."""
    for n_heads in (2, 1, 4):
        model = random_model(**{**CONFIG, "n_heads": n_heads})
        for layer, x in enumerate((random(1, 1, 8, seed=1), random(2, 5, 8, seed=2), random(1, 7, 8, seed=3))):
            with torch.no_grad():
                expected, mistakes = model.h[layer](x), _block_mistakes(x, model.h[layer])
            arguments = {"x": x, "weights": weights_of(model), "name": f"h.{layer}", "n_heads": n_heads}
            judge_with_weights(function, arguments, expected, mistakes)


def _block_mistakes(x: Tensor, b: TransformerBlock) -> dict[str, Tensor]:
    """The outputs (B, T, C) of blocks with their parts in another order."""
    mlp, normal = b.mlp, b.ln_1(x)
    attended, unnormed = x + b.attn(normal), x + b.attn(x)
    post, again = b.ln_1(unnormed), b.ln_2(normal + b.attn(normal))
    return {
        "the LayerNorms come after the sums (post-norm); in GPT-2 they come before attention and before the MLP": (
            b.ln_2(post + mlp(post))
        ),
        "both LayerNorms are missing": unnormed + mlp(unnormed),
        "ln_1 is missing": unnormed + mlp(b.ln_2(unnormed)),
        "ln_2 is missing": attended + mlp(attended),
        "ln_1 is used twice; ln_2 comes before the MLP": attended + mlp(b.ln_1(attended)),
        "the MLP gets the input of the block; it needs the sum after attention": attended + mlp(b.ln_2(x)),
        "the first addition is missing: add attention's output to x": b.attn(normal) + mlp(b.ln_2(b.attn(normal))),
        "the second addition is missing: add the MLP's output to its input": mlp(b.ln_2(attended)),
        "the input x is added twice; add the MLP's output to the sum after attention": x + mlp(b.ln_2(attended)),
        "the normalised x is added; add the x from before the LayerNorm": again + mlp(again),
        "the MLP comes before attention": (first := x + mlp(b.ln_2(x))) + b.attn(b.ln_1(first)),
        "attention is missing": x + mlp(b.ln_2(x)),
        "the MLP is missing": attended,
    }


def check_gpt_logits(function: Answer) -> None:
    """Exercise 37: compare with the project's GPTModel."""
    model = random_model(**CONFIG)
    for ids in (torch.tensor([[3, 0, 10, 3, 7]]), torch.tensor([[1, 2, 3, 4, 5, 6, 7], [10, 9, 8, 7, 6, 5, 4]])):
        with torch.no_grad():
            expected = model(ids)
            states = [model.wte(ids) + model.wpe(torch.arange(ids.shape[1]))]
            for module in model.h:
                states.append(module(states[-1]))
            backwards = states[0]
            for module in reversed(model.h):
                backwards = module(backwards)
            repeated = model.h[0](model.h[0](states[1]))
            mistakes = {
                "the last LayerNorm, ln_f, is missing": model.head(states[-1]),
                "every layer has weights of its own; here layer 0 ran each time": model.head(model.ln_f(repeated)),
                "layer 0 is the first one; here the last layer ran first": model.head(model.ln_f(backwards)),
                "the last layer did not run: there are n_layers of them": model.head(model.ln_f(states[-2])),
                "no layer ran": model.head(model.ln_f(states[0])),
                "these are the hidden states; the logits are their dot products with the rows of wte": (
                    model.ln_f(states[-1])
                ),
                "these are probabilities; return the logits": expected.softmax(-1),
                "these are the logits of the last position; return those of every position": expected[:, -1],
            }
        arguments = {"ids": ids, "weights": weights_of(model), "config": CONFIG}
        judge_with_weights(function, arguments, expected, mistakes)


def check_initial_weights(function: Answer) -> None:
    """Exercise 38: compare names and shapes with the project's model, and the spread of each tensor with GPT-2's."""
    config = {"vocab_size": 257, "context_length": 64, "d_model": 64, "n_heads": 4, "n_layers": 8}
    state = torch.random.get_rng_state()
    weights = _weights(function, config, seed=1)
    unused = torch.equal(state, torch.random.get_rng_state())
    require(unused, "torch's global random state changed: draw with torch.randn(..., generator=generator)")
    _require_names_and_shapes(weights, config)
    for name, weight in weights.items():
        _require_spread(name, weight.double(), config["n_layers"])
    _require_different_numbers(weights)
    again, others = _weights(function, config, seed=1), _weights(function, config, seed=2)
    repeatable = all(torch.equal(weight, again[name]) for name, weight in weights.items())
    require(repeatable, "two generators with the same seed gave different weights")
    differ = not torch.equal(weights["wte.weight"], others["wte.weight"])
    require(
        differ, "generators with the seeds 1 and 2 gave the same weights: draw from the generator that you are given"
    )


def _weights(function: Answer, config: dict, seed: int) -> Weights:
    weights = function(dict(config), torch.Generator().manual_seed(seed))
    require(weights is not None, "got None: the function needs a return")
    require(isinstance(weights, dict), f"got {kind_of(weights)}, expected a dict from names to tensors")
    return weights


def _require_names_and_shapes(weights: Weights, config: dict) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in weights_of(GPTModel(config)).items()}
    require("lm_head.weight" not in weights, "lm_head.weight is too much: the head is wte.weight (tied)")
    missing = [name for name in shapes if name not in weights]
    surplus = [name for name in weights if name not in shapes]
    require(not missing, f"{', '.join(missing[:3])}{' ...' if missing[3:] else ''} missing (n_layers is 8)")
    require(not surplus, f"unknown names: {', '.join(map(str, surplus[:3]))}")
    for name, shape in shapes.items():
        got = tuple(weights[name].shape)
        turned = ": the weight of a linear layer is (O, I)" if got == shape[::-1] and len(shape) == 2 else ""
        require(got == shape, f"{name} has shape {got}, expected {shape} (d_model is 64){turned}")


def _require_different_numbers(weights: Weights) -> None:
    """Raise AssertionError if two matrices begin with the same random numbers, by their signs."""
    seen: dict[tuple[bool, ...], str] = {}
    for name, weight in weights.items():
        if weight.dim() == 2:
            other = seen.setdefault(tuple((weight.flatten()[:64] > 0).tolist()), name)
            require(other == name, f"{other} and {name} have the same random numbers: draw new ones for each")


def _require_spread(name: str, weight: Tensor, n_layers: int) -> None:
    """Raise AssertionError unless the tensor is all zeros or all ones, or has GPT-2's standard deviation."""
    if name.endswith("bias"):
        require(bool((weight == 0).all()), f"{name} must be zeros: a bias starts at 0")
        return
    if "ln_" in name:
        hint = ": a LayerNorm with weight 0 gives the same output for every input" if (weight == 0).all() else ""
        require(bool((weight == 1).all()), f"{name} must be ones{hint}")
        return
    residual = name.endswith("c_proj.weight")
    expected, got = 0.02 / math.sqrt(2 * n_layers) if residual else 0.02, weight.std().item()
    mistakes = {
        "c_proj adds to the residual stream: divide by the square root of 2 * n_layers": residual and 0.02,
        "each layer adds twice: divide by the square root of 2 * n_layers": residual and 0.02 / math.sqrt(n_layers),
        "divide by the square root of 2 * n_layers, not by 2 * n_layers": residual and 0.02 / (2 * n_layers),
        "only the two c_proj of a layer are divided": not residual and 0.02 / math.sqrt(2 * n_layers),
        "these are standard normal numbers, still to be multiplied by 0.02": 1.0,
        "0.02 is the standard deviation, not the variance": math.sqrt(0.02),
        "this looks like a uniform distribution from 0 to 0.02; it is normal": 0.02 / math.sqrt(12),
    }
    hints = [f": {mistake}" for mistake, wrong in mistakes.items() if wrong and math.isclose(got, wrong, rel_tol=0.05)]
    close = math.isclose(got, expected, rel_tol=0.05)
    require(close, f"{name} has the standard deviation {got:.5f}, expected {expected:.5f}{(hints or [''])[0]}")
    centred = abs(weight.mean().item()) < 0.2 * expected
    require(centred, f"{name} has the mean {weight.mean().item():.5f}, expected 0: normal numbers, not uniform ones")


CHECKS: dict[int, tuple[str, Answer]] = {
    31: ("linear", check_linear),
    32: ("embed", check_embed),
    33: ("layer_norm", check_layer_norm),
    34: ("gelu", check_gelu),
    35: ("mlp", check_mlp),
    36: ("block", check_block),
    37: ("gpt_logits", check_gpt_logits),
    38: ("initial_weights", check_initial_weights),
}
