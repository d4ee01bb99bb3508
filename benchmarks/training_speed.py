"""python -m benchmarks.training_speed: time and peak memory of a training step: ours, plain PyTorch, transformers.

Plain PyTorch is benchmarks/plain_gpt2.py, written as in nanoGPT: its AdamW is fused on a GPU only. "plain, tuned" has
the fused AdamW, and keeps freed memory for reuse as ours does (`keep_freed_memory`). transformers' GPT-2 has the fused
AdamW. Each runs in a process of its own. They take turns, step by step, on the same random batch, so that other load on
the machine slows all of them alike. The times are medians. The limit is the time of the step's matrix products alone,
at the speed that a large product reaches between the rounds. Peak memory is that of the process, imports included.
Linux and macOS only.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from benchmarks.harness import check_rounds, matmul_gflops, peak_mb, require, run_in_turns, seconds, serve
from benchmarks.plain_gpt2 import PlainGPT2, plain_adamw
from src.cli import flag, parse
from src.data.batching import Batch
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import PRECISIONS, Runtime, keep_freed_memory
from src.training.losses import language_model_loss
from src.training.optim import clip_gradients, make_adamw

Step = Callable[[], None]
SHAPES = {"micro": (8, 128), "tiny": (8, 128)}  # windows, tokens in each
LARGE_SHAPE = (4, 256)


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Literal["micro", "tiny", "gpt2-124M", "gpt2-355M"] = flag("micro", "model size")
    rounds: int = flag(12, "measured steps of each implementation, after two to warm up")
    precision: Literal["fp32", "bf16"] = flag("fp32", "bf16: autocast for all implementations, weights stay fp32")
    compiled: bool = flag(False, "also measure the plain loop with torch.compile")
    worker: str | None = flag(None, "internal: be the worker process of this implementation")


def train_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    mean_loss: Callable[[], torch.Tensor],
    clip: Callable[..., object] = torch.nn.utils.clip_grad_norm_,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    with runtime.autocast():
        loss = mean_loss()
    loss.backward()
    clip(model.parameters(), 1.0)
    optimizer.step()


def ours(config: dict, batch: Batch, runtime: Runtime) -> Step:
    keep_freed_memory()
    model = GPTModel({**config, "dropout": 0.0})
    optimizer = make_adamw(model, max_lr=1e-5, weight_decay=0.1)
    return lambda: train_step(
        model, optimizer, runtime, lambda: language_model_loss(model, batch)[0] / batch.loss_denominator, clip_gradients
    )


def plain(config: dict, batch: Batch, runtime: Runtime, *, compiled: bool = False, tuned: bool = False) -> Step:
    if tuned:
        keep_freed_memory()
    model = PlainGPT2(config)
    optimizer = plain_adamw(model, max_lr=1e-5, fused=tuned)
    forward = torch.compile(model) if compiled else model
    return lambda: train_step(model, optimizer, runtime, lambda: forward(batch.inputs, batch.targets))


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
    return lambda: train_step(
        model, optimizer, runtime, lambda: model(batch.inputs, labels=batch.inputs, shift_labels=batch.targets).loss
    )


def step_gflop(model: GPTModel, tokens: int, context_length: int) -> float:
    """GFLOP of a step's matrix products: 6 FLOPs per parameter and token (Kaplan et al. 2020), and attention's.

    The causal mask halves attention's products.
    """
    c = model.config
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and name != "wpe.weight")
    return (6 * matrices * tokens + 6 * c.n_layers * c.d_model * context_length * tokens) / 1e9


IMPLEMENTATIONS: dict[str, Callable[[dict, Batch, Runtime], Step]] = {
    "ours": ours,
    "plain PyTorch": plain,
    "plain, tuned": partial(plain, tuned=True),
    "plain, compiled": partial(plain, compiled=True),
    "transformers": transformers,
}


def run_worker(name: str, config: dict, shape: tuple[int, int], precision: str) -> None:
    """Serve training steps: the seconds of each, and peak memory so far in MB."""
    windows, context_length = shape
    ids = torch.randint(config["vocab_size"], (windows, context_length + 1), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
    step = IMPLEMENTATIONS[name](config, batch, Runtime(torch.device("cpu"), precision, "set by --precision"))
    step()
    serve(lambda: (seconds(step), peak_mb()))


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    config, shape = GPT_CONFIGS[flags.model], SHAPES.get(flags.model, LARGE_SHAPE)
    if flags.worker:
        run_worker(flags.worker, config, shape, flags.precision)
        return 0
    require("transformers")
    names = [name for name in IMPLEMENTATIONS if flags.compiled or "compiled" not in name]
    command = ["benchmarks.training_speed", "--model", flags.model, "--precision", flags.precision, "--worker"]
    rates: list[float] = []
    results = run_in_turns(
        {name: [*command, name] for name in names},
        flags.rounds,
        lambda: rates.append(matmul_gflops(dtype=PRECISIONS[flags.precision])),
    )
    windows, context_length = shape
    limit = step_gflop(GPTModel(config), windows * context_length, context_length) / statistics.median(rates)
    print(f"{flags.model}, {windows} x {context_length} tokens, {flags.precision}, {torch.get_num_threads()} threads")
    our_time = statistics.median(step_s for step_s, _ in results["ours"])
    for name, steps in results.items():
        median = statistics.median(step_s for step_s, _ in steps)
        print(
            f"{name:<16} {median * 1e3:7.0f} ms per step | {median / our_time:.2f} x our time | "
            f"{median / limit:.2f} x the limit of {limit * 1e3:.0f} ms | {steps[-1][1] / 1e3:.2f} GB peak"
        )
    return 0


if __name__ == "__main__":
    run_script(main)
