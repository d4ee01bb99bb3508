"""python -m benchmarks.training_speed: seconds a training step, ours beside a plain PyTorch loop and transformers.

All contestants take turns in one process, step by step, on the same random batch, fp32, so that whatever else the
machine does hits all alike; medians are compared. The limit is what the step's matrix products alone would take at
the rate that a large product reaches between the rounds.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.plain_gpt2 import PlainGPT2, plain_adamw
from src.cli import flag, parse, run
from src.data.batching import Batch
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.training.losses import language_model_loss
from src.training.optim import make_adamw

Step = Callable[[], None]
SHAPES = {"micro": (8, 128), "tiny": (8, 128)}  # windows, tokens; other sizes take 4 x 256


@dataclass(frozen=True, kw_only=True)
class Config:
    model: Literal["micro", "tiny", "gpt2-124M", "gpt2-355M"] = flag("micro", "size")
    rounds: int = flag(12, "steps of each contestant that count, after two to warm up")
    compiled: bool = flag(False, "the plain loop compiled by torch.compile, too")


def update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def ours(config: dict, batch: Batch) -> Step:
    model = GPTModel({**config, "dropout": 0.0})
    optimizer = make_adamw(model, max_lr=1e-5, weight_decay=0.1)
    return lambda: update(model, optimizer, lambda: language_model_loss(model, batch)[0] / batch.count)


def plain(config: dict, batch: Batch, *, compiled: bool = False) -> Step:
    model = PlainGPT2(config)
    optimizer = plain_adamw(model, lr=1e-5)
    forward = torch.compile(model) if compiled else model
    return lambda: update(model, optimizer, lambda: forward(batch.inputs, batch.targets))


def transformers(config: dict, batch: Batch) -> Step:
    from transformers import GPT2Config, GPT2LMHeadModel

    size = GPT2Config(
        n_embd=config["d_model"],
        n_head=config["n_heads"],
        n_layer=config["n_layers"],
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = GPT2LMHeadModel(size).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)
    return lambda: update(
        model, optimizer, lambda: model(batch.inputs, labels=batch.inputs, shift_labels=batch.targets).loss
    )


def product_gflops(side: int = 2048) -> float:
    """What a large matrix product reaches now, in 10^9 multiply-adds times two a second."""
    a = torch.randn(side, side)
    start = time.perf_counter()
    a @ a
    return 2 * side**3 / (time.perf_counter() - start) / 1e9


def step_gflop(model: GPTModel, tokens: int, context_length: int) -> float:
    """Matrix products of a step: 6 a parameter and token (Kaplan et al. 2020), attention's two, halved by the mask."""
    c = model.config
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and name != "wpe.weight")
    return (6 * matrices * tokens + 6 * c.n_layers * c.d_model * context_length * tokens) / 1e9


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    config = GPT_CONFIGS[flags.model]
    windows, context_length = SHAPES.get(flags.model, (4, 256))
    ids = torch.randint(config["vocab_size"], (windows, context_length + 1))
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
    contestants = {"ours": ours(config, batch), "plain PyTorch": plain(config, batch)}
    if flags.compiled:
        contestants["plain, compiled"] = plain(config, batch, compiled=True)
    contestants["transformers"] = transformers(config, batch)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    rates = []
    for turn in range(flags.rounds + 2):
        for name, step in contestants.items():
            start = time.perf_counter()
            step()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
        rates.append(product_gflops())
    limit = step_gflop(GPTModel(config), ids[:, 1:].numel(), context_length) / statistics.median(rates)
    print(f"{flags.model}, {windows} x {context_length} tokens, fp32, {torch.get_num_threads()} threads")
    our_time = statistics.median(times["ours"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(
            f"{name:<16} {median * 1e3:7.0f} ms a step (best {min(seconds) * 1e3:.0f}) | {median / our_time:.2f} times "
            f"our time | {median / limit:.2f} times the limit of {limit * 1e3:.0f} ms"
        )
    return 0


if __name__ == "__main__":
    run(main)
