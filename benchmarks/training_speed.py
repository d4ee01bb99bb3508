"""python -m benchmarks.training_speed: time and memory of a training step, ours beside a plain PyTorch loop.

Each has a process of its own, and all take turns, step by step, on the same random batch, so that whatever
else the machine does hits all alike; medians are compared. Ours has what every training script sets. The limit is what
the step's matrix products alone would take at the rate that a large product reaches between the rounds. The peak of
memory is the process's, with its imports. For Linux and macOS.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from benchmarks.machine import check_rounds, peak_mb, product_gflops, serve, take_turns
from benchmarks.plain_gpt2 import PlainGPT2, plain_adamw
from src.cli import flag, parse
from src.data.batching import Batch
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import PRECISIONS, Runtime, keep_freed_memory
from src.training.losses import language_model_loss
from src.training.optim import clip_gradients, make_adamw

Step = Callable[[], None]
SHAPES = {"micro": (8, 128), "tiny": (8, 128)}  # windows, tokens; other sizes take 4 x 256


@dataclass(frozen=True, kw_only=True)
class Config:
    model: Literal["micro", "tiny", "gpt2-124M", "gpt2-355M"] = flag("micro", "size")
    rounds: int = flag(12, "steps of each contestant that count, after two to warm up")
    precision: Literal["fp32", "bf16"] = flag("fp32", "what all compute in; bf16 is autocast, with weights in fp32")
    compiled: bool = flag(False, "the plain loop compiled by torch.compile, too")
    alone: str | None = flag(None, "be this contestant, for a parent process")


def update(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    loss: Callable[[], torch.Tensor],
    clip: Callable[..., object] = torch.nn.utils.clip_grad_norm_,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    with runtime.autocast():
        mean = loss()
    mean.backward()
    clip(model.parameters(), 1.0)
    optimizer.step()


def ours(config: dict, batch: Batch, runtime: Runtime) -> Step:
    keep_freed_memory()
    model = GPTModel({**config, "dropout": 0.0})
    optimizer = make_adamw(model, max_lr=1e-5, weight_decay=0.1)
    return lambda: update(
        model, optimizer, runtime, lambda: language_model_loss(model, batch)[0] / batch.count, clip_gradients
    )


def plain(config: dict, batch: Batch, runtime: Runtime, *, compiled: bool = False) -> Step:
    model = PlainGPT2(config)
    optimizer = plain_adamw(model, lr=1e-5)
    forward = torch.compile(model) if compiled else model
    return lambda: update(model, optimizer, runtime, lambda: forward(batch.inputs, batch.targets))


def transformers(config: dict, batch: Batch, runtime: Runtime) -> Step:
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
        model, optimizer, runtime, lambda: model(batch.inputs, labels=batch.inputs, shift_labels=batch.targets).loss
    )


def step_gflop(model: GPTModel, tokens: int, context_length: int) -> float:
    """Matrix products of a step: 6 a parameter and token (Kaplan et al. 2020), attention's two, halved by the mask."""
    c = model.config
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and name != "wpe.weight")
    return (6 * matrices * tokens + 6 * c.n_layers * c.d_model * context_length * tokens) / 1e9


CONTESTANTS: dict[str, Callable[[dict, Batch, Runtime], Step]] = {
    "ours": ours,
    "plain PyTorch": plain,
    "plain, compiled": partial(plain, compiled=True),
    "transformers": transformers,
}


def contend(name: str, config: dict, shape: tuple[int, int], precision: str) -> None:
    """Take one step for every line that comes in: its seconds, and the memory's peak so far."""
    windows, context_length = shape
    ids = torch.randint(config["vocab_size"], (windows, context_length + 1), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
    step = CONTESTANTS[name](config, batch, Runtime(torch.device("cpu"), precision, "as asked"))
    step()

    def turn() -> tuple[float, float]:
        start = time.perf_counter()
        step()
        return time.perf_counter() - start, peak_mb()

    serve(turn)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    check_rounds(flags.rounds)
    config, shape = GPT_CONFIGS[flags.model], SHAPES.get(flags.model, (4, 256))
    if flags.alone:
        contend(flags.alone, config, shape, flags.precision)
        return 0
    names = [name for name in CONTESTANTS if flags.compiled or "compiled" not in name]
    command = ["benchmarks.training_speed", "--model", flags.model, "--precision", flags.precision, "--alone"]
    rates: list[float] = []
    turns = take_turns(
        {name: [*command, name] for name in names},
        flags.rounds,
        lambda: rates.append(product_gflops(dtype=PRECISIONS[flags.precision])),
    )
    windows, context_length = shape
    limit = step_gflop(GPTModel(config), windows * context_length, context_length) / statistics.median(rates)
    print(f"{flags.model}, {windows} x {context_length} tokens, {flags.precision}, {torch.get_num_threads()} threads")
    our_time = statistics.median(seconds for seconds, _ in turns["ours"])
    for name, found in turns.items():
        median = statistics.median(seconds for seconds, _ in found)
        print(
            f"{name:<16} {median * 1e3:7.0f} ms a step | {median / our_time:.2f} times our time | {median / limit:.2f} "
            f"times the limit of {limit * 1e3:.0f} ms | {found[-1][1] / 1e3:.2f} GB peak"
        )
    return 0


if __name__ == "__main__":
    run_script(main)
