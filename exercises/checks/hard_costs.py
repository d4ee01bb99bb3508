"""The checks of exercises 22 to 26: compare counts with models on the meta device and PyTorch's FLOP counter."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from exercises.checks.hard_tools import compare_number
from src.model.attention import KeyValueCache
from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.gpt import on_meta_device
from src.model.transformerBlock import TransformerBlock

Answer = Callable[..., Any]

# Unusual sizes, so that no mistake cancels out.
ODD = {"vocab_size": 97, "context_length": 16, "d_model": 24, "n_heads": 3, "n_layers": 5, "dropout": 0.0}
CONFIGS: dict[str, dict[str, Any]] = {"micro": GPT_CONFIGS["micro"], f"the config {ODD}": ODD}


def check_parameter_count(function: Answer) -> None:
    """Exercise 22: compare with the parameters of the project's model."""
    for name, config in CONFIGS.items():
        sizes = {part: parameter.numel() for part, parameter in on_meta_device(config).named_parameters()}
        head = sizes["wte.weight"]
        for tied in (True, False):
            expected = sum(sizes.values()) + (0 if tied else head)
            missing = {
                "the biases of linear layers and norms": "bias",
                "the parameters of all layer norms, two per block and ln_f,": "ln_",
                "the parameters of the last layer norm, ln_f,": "ln_f",
                "the position embeddings, wpe,": "wpe",
            }
            mistakes = {
                "a tied head is the embedding, counted once": expected + head,
                "a head that isn't tied has V x C parameters of its own": expected - head,
                "the head has no bias": expected + config["vocab_size"],
                **{
                    f"{what} are missing": expected - sum(size for part, size in sizes.items() if pattern in part)
                    for what, pattern in missing.items()
                },
            }
            compare_number(f"for {name} and tied {tied}", function(dict(config), tied), expected, mistakes)


def check_forward_flops(function: Answer) -> None:
    """Exercise 23: compare with PyTorch's FLOP counter."""
    for name, config in CONFIGS.items():
        for batch_size, tokens in ((1, 16), (3, 10)):
            ids = torch.zeros(batch_size, tokens, dtype=torch.long, device="meta")
            linear, scores, head = _flops(on_meta_device(config), ids)
            expected = linear + scores + head
            mistakes = {
                "a multiply-add is two FLOPs": expected / 2,
                "the head is missing": expected - head,
                "the scores and weighted sums are missing": expected - scores,
                "scores and weighted sums are two products, each as large": expected - scores / 2,
                "the head computes logits for every token, not only the last": expected - head * (tokens - 1) / tokens,
                "multiply by the number of blocks, n_layers": (linear + scores) / config["n_layers"] + head,
                "the batch is missing": expected / batch_size,
            }
            answer = function(dict(config), batch_size, tokens)
            compare_number(f"for {name}, batch_size {batch_size} and {tokens} tokens", answer, expected, mistakes)


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
        for share in (0.5, 0.1, 0.25, 0.9):
            expected = equal * share / (1 - share)
            mistakes = {
                "the MLP belongs to the block": expected / 3,
                "the four projections of attention belong to the block": expected * 2 / 3,
                "scores and weighted sums are two products, each as large": expected * 2,
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
    flops = sum(_flops(model, torch.zeros(batch_size, 1, dtype=torch.long, device="meta"), cache))
    size, bandwidth = rates["bytes_per_number"], rates["bandwidth"]
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    weights_s = size * (sum(sizes.values()) - sizes["wpe.weight"]) / bandwidth
    cache_s = size * cache.keys_values.numel() / bandwidth
    compute_s, read_s = flops / rates["compute"], weights_s + cache_s
    return batch_size / max(read_s, compute_s), {
        "reading and computing overlap: use the longer time, not the sum": batch_size / (read_s + compute_s),
        "the slower one sets the pace": batch_size / min(read_s, compute_s),
        "every sequence gains a token per step": 1 / max(read_s, compute_s),
        "the weights are read once for the whole batch": batch_size / max(batch_size * weights_s + cache_s, compute_s),
        "every sequence reads a cache of its own": batch_size / max(weights_s + cache_s / batch_size, compute_s),
        "the cache is read too": batch_size / max(weights_s, compute_s),
        "a number takes several bytes": batch_size / max(read_s / size, compute_s),
        "leave out the position table: only one row of it is read": (
            batch_size / max(read_s + size * sizes["wpe.weight"] / bandwidth, compute_s)
        ),
    }
