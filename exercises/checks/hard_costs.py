"""The checks of exercises 22 to 26: compare counts with models on the meta device and PyTorch's FLOP counter."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from exercises.checks.hard_tools import compare_number
from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.kv_cache import KeyValueCache
from src.model.meta_device import on_meta_device
from src.model.transformerBlock import TransformerBlock

Answer = Callable[..., Any]

# Unusual sizes, so that no mistake cancels out.
ODD = {"vocab_size": 97, "context_length": 16, "d_model": 24, "n_heads": 3, "n_layers": 5, "dropout": 0.0}
CONFIGS: dict[str, dict[str, Any]] = {"micro": GPT_CONFIGS["micro"], f"the config {ODD}": ODD}

# Parts of a model that are easily forgotten, and a regular expression for the names of their parameters.
MISSING = {
    "the biases of linear layers and norms": "bias",
    "the biases of the linear layers": r"(attn|mlp).*bias",
    "the biases of the layer norms, one per channel like the gains,": r"ln_.*bias",
    "the biases of the linear layers and all layer norms": "bias|ln_",
    "the parameters of all layer norms, two per block and ln_f,": "ln_",
    "the parameters of the last layer norm, ln_f,": "ln_f",
    "the position embeddings, wpe,": "wpe",
    "the position embeddings, wpe, and the biases of the linear layers": r"wpe|(attn|mlp).*bias",
    "the parameters of attention's c_proj": r"attn\.c_proj",
    "the parameters of the MLP's second layer, 4C to C,": r"mlp\.c_proj",
    "the weights of one of the MLP's two layers": r"mlp\.c_proj\.weight",
    "the parameters of the MLP": "mlp",
}
# For FLOPs: parameters that no matrix product multiplies with, and the weights of products that are easily forgotten.
NO_PRODUCT = {
    "biases and layer norms are": "bias|ln_",
    "biases are": r"(attn|mlp).*bias",
    "biases, layer norms and position embeddings are": "bias|ln_|wpe",
}
LINEAR = {
    "attention's c_proj": r"attn\.c_proj\.weight",
    "one layer of the MLP": r"mlp\.c_proj\.weight",
    "the MLP": r"mlp.*weight",
}


def check_parameter_count(function: Answer) -> None:
    """Exercise 22: compare with the parameters of the project's model."""
    for name, config in CONFIGS.items():
        sizes = {part: parameter.numel() for part, parameter in on_meta_device(config).named_parameters()}
        head, blocks = sizes["wte.weight"], _total(sizes, r"^h\.")
        for tied in (True, False):
            expected = sum(sizes.values()) + (0 if tied else head)
            mistakes = {
                "a tied head is the embedding, counted once": expected + head,
                "a head that isn't tied has V x C parameters of its own": expected - head,
                "the head has no bias": expected + config["vocab_size"],
                "this is one block: multiply by n_layers": expected - blocks + blocks // config["n_layers"],
                "queries, keys and values have a matrix each: c_attn is C to 3C": (
                    expected - _total(sizes, "c_attn") * 2 // 3
                ),
                **{f"{what} are missing": expected - _total(sizes, pattern) for what, pattern in MISSING.items()},
            }
            compare_number(f"for {name} and tied {tied}", function(dict(config), tied), expected, mistakes)


def _total(sizes: Mapping[str, int], pattern: str) -> int:
    return sum(size for part, size in sizes.items() if re.search(pattern, part))


def check_forward_flops(function: Answer) -> None:
    """Exercise 23: compare with PyTorch's FLOP counter."""
    for name, config in CONFIGS.items():
        for batch_size, tokens in ((1, 16), (3, 10)):
            ids = torch.zeros(batch_size, tokens, dtype=torch.long, device="meta")
            linear, scores, head = _flops(model := on_meta_device(config), ids)
            expected = linear + scores + head
            mistakes = {
                "a multiply-add is two FLOPs": expected / 2,
                "the head is missing": expected - head,
                "the scores and weighted sums are missing": expected - scores,
                "half of the scores is missing: scores and weighted sums are two products, and masked scores count": (
                    expected - scores / 2
                ),
                "masked scores cost as much as any other": expected - scores * (tokens - 1) / (2 * tokens),
                "the heads together have C channels: don't multiply by their number": (
                    expected + scores * (config["n_heads"] - 1)
                ),
                "the head computes logits for every token, not only the last": expected - head * (tokens - 1) / tokens,
                "multiply by the number of blocks, n_layers": (linear + scores) / config["n_layers"] + head,
                "the batch is missing": expected / batch_size,
                "this is the cost of one token: multiply by their number": expected / tokens,
                "this includes the backward pass": expected * 3,
                **_linear_mistakes(model, expected, 2 * batch_size * tokens),
            }
            answer = function(dict(config), batch_size, tokens)
            compare_number(f"for {name}, batch_size {batch_size} and {tokens} tokens", answer, expected, mistakes)


def _linear_mistakes(model: nn.Module, expected: int, flops_each: int) -> dict[str, float]:
    """FLOPs if the wrong parameters are counted. flops_each: for every weight of a linear layer."""
    sizes = {part: parameter.numel() for part, parameter in model.named_parameters()}
    per_parameter = "this is two FLOPs per parameter: leave out biases, norms and positions, and add the scores"
    c_attn = flops_each * _total(sizes, r"c_attn\.weight")
    return {
        per_parameter: flops_each * sum(sizes.values()),
        "queries, keys and values are three products": expected - c_attn * 2 / 3,
        **{
            f"{what} in no matrix product": expected + flops_each * _total(sizes, pattern)
            for what, pattern in NO_PRODUCT.items()
        },
        **{f"{what} is missing": expected - flops_each * _total(sizes, pattern) for what, pattern in LINEAR.items()},
    }


def _flops(model: nn.Module, *inputs: Any) -> tuple[int, int, int]:
    """FLOPs of (linear layers, scores and weighted sums, head) in one forward pass on the meta device.

    There attention runs as plain matrix products; on a CPU the counter would miss the fused kernel.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    counts = {str(operation): count for operation, count in counter.get_flop_counts()["Global"].items()}
    return counts.pop("aten.addmm", 0), counts.pop("aten.bmm", 0), sum(counts.values())


def check_crossover_length(function: Answer) -> None:
    """Exercise 24: compare with the length that the FLOP counter implies for one block."""
    for d_model in (128, 768, 12288):
        with torch.device("meta"):
            block = TransformerBlock(GPTConfig(50257, 1024, d_model, 4, 1))
            linear, scores, _ = _flops(block, torch.empty(1, 8, d_model))
        equal = 8 * linear / scores  # tokens at which both cost the same: one grows with T, the other with T * T
        for share in (0.1, 0.5, 0.25, 0.9):
            expected = equal * share / (1 - share)
            mistakes = {
                "the MLP belongs to the block": expected / 3,
                "the block has 12 x C x C weights: four projections of C x C, and C to 4C and back": expected * 2 / 3,
                "scores and weighted sums are two products, and masked scores count": expected * 2,
                "the scores have multiply-adds, too: count either FLOPs or multiply-adds for both": expected / 2,
                "return the number itself, not a whole one": math.floor(expected),
                "this is relative to the rest of the block; use a share of the whole block": equal * share,
                "this is where the rest of the block has that share": equal * (1 - share) / share,
            }
            compare_number(f"for d_model {d_model} and share {share}", function(d_model, share), expected, mistakes)


def check_cache_bytes(function: Answer) -> None:
    """Exercise 25: compare with the size of the project's KV cache."""
    dtypes = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}
    for name, batch_size, tokens, size, kv_heads in (
        ("gpt2-774M", 7, 100, 4, None),
        ("micro", 1, 1, 1, 4),
        ("gpt2-774M", 3, 100, 2, 5),
        ("gpt3-175B", 8, 2048, 2, 1),
    ):
        config = GPT_CONFIGS[name]
        heads, head_size = kv_heads or config["n_heads"], config["d_model"] // config["n_heads"]
        cached_config = GPTConfig.of({**config, "d_model": heads * head_size, "n_heads": heads})
        cache = KeyValueCache(cached_config, batch_size, tokens, device=torch.device("meta"), dtype=dtypes[size])
        expected = cache.keys_values.nbytes
        mistakes = {
            "keys and values are both cached": expected / 2,
            "every layer has keys and values": expected / config["n_layers"],
            "every head has d_model / n_heads channels, not d_model": expected * config["n_heads"],
            "this is one head; all are cached": expected / heads,
            "only kv_heads heads are cached": expected * config["n_heads"] / heads,
            "every sequence of the batch has its own cache": expected / batch_size,
            "these are numbers, not bytes": expected / size,
            "these are bits, not bytes": expected * 8,
            "queries are not cached": expected * 3 / 2,
            "only the given tokens are cached, not context_length": expected * config["context_length"] / tokens,
        }
        arguments = [dict(config), batch_size, tokens, size, *([] if kv_heads is None else [kv_heads])]
        where = f"for {name}, batch_size {batch_size}, {tokens} tokens, {size} bytes a number and kv_heads {kv_heads}"
        compare_number(where, function(*arguments), expected, mistakes)


def check_tokens_per_second(function: Answer) -> None:
    """Exercise 26: compare with a limit computed from the FLOP counter, the model and its KV cache."""
    for name, batch_size, seen, rates in (
        ("micro", 1, 1, {"bandwidth": 20e9, "compute": 100e9, "bytes_per_number": 4}),
        ("gpt2-124M", 64, 512, {"bandwidth": 2e12, "compute": 300e12, "bytes_per_number": 2}),
        ("micro", 256, 100, {"bandwidth": 1e12, "compute": 10e12, "bytes_per_number": 2}),
    ):
        expected, mistakes = _limit(GPT_CONFIGS[name], batch_size, seen, rates)
        given = ", ".join(f"{rate} {value:g}" for rate, value in rates.items())
        answer = function(dict(GPT_CONFIGS[name]), batch_size, seen, **rates)
        compare_number(f"for {name}, batch_size {batch_size}, seen {seen}, {given}", answer, expected, mistakes)


def _limit(
    config: dict[str, Any], batch_size: int, seen: int, rates: Mapping[str, float]
) -> tuple[float, dict[str, float]]:
    """Tokens per second, and the value that each common mistake leads to."""
    model = on_meta_device(config)
    cache = model.new_cache(batch_size, seen)
    cache.length = seen - 1
    linear, scores, head = _flops(model, torch.zeros(batch_size, 1, dtype=torch.long, device="meta"), cache)
    size, bandwidth = rates["bytes_per_number"], rates["bandwidth"]
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    weights_s = size * (sum(sizes.values()) - sizes["wpe.weight"]) / bandwidth
    cache_s = size * cache.keys_values.numel() / bandwidth
    compute_s, read_s = (linear + scores + head) / rates["compute"], weights_s + cache_s
    scores_s = scores / rates["compute"]
    return batch_size / max(read_s, compute_s), {
        "reading and computing overlap: use the longer time, not the sum": batch_size / (read_s + compute_s),
        "the slower one sets the pace": batch_size / min(read_s, compute_s),
        "the slower one sets the pace, and a multiply-add is two FLOPs": batch_size / min(read_s, compute_s / 2),
        "a multiply-add is two FLOPs": batch_size / max(read_s, compute_s / 2),
        "this is the time of a step: divide the number of sequences by it": max(read_s, compute_s),
        "this is the time per token: divide 1 by it": max(read_s, compute_s) / batch_size,
        "a step computes one new token per sequence, not all that it sees": batch_size / max(read_s, compute_s * seen),
        "scores and weighted sums are matrix products, too": batch_size / max(read_s, compute_s - scores_s),
        "every sequence gains a token per step": 1 / max(read_s, compute_s),
        "the weights are read once for the whole batch": batch_size / max(batch_size * weights_s + cache_s, compute_s),
        "every sequence reads a cache of its own": batch_size / max(weights_s + cache_s / batch_size, compute_s),
        "the cache is read too": batch_size / max(weights_s, compute_s),
        "a number takes several bytes": batch_size / max(read_s / size, compute_s),
        "leave out the position table: only one row of it is read": (
            batch_size / max(read_s + size * sizes["wpe.weight"] / bandwidth, compute_s)
        ),
    }
