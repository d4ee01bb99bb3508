"""python -m src.plan: what training a size would take on this machine, before it is begun: memory and time.

The time is measured, not reckoned: steps of the model with one layer and with four say what every further layer adds.
The memory is the sum of what a step has to hold at its peak, and a fifth for what lies unused between, as on a CPU.
Both without dropout, which takes more of both.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from src.cli import flag, flag_name, parse
from src.data.batching import Batch
from src.model.config import GPTConfig
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import Runtime, choose_runtime, keep_freed_memory
from src.training.losses import language_model_loss
from src.training.optim import MuonAndAdamW, clip_gradients, make_adamw
from src.training.tied_head import CHUNK_ROWS

GB = 1e9
PROGRAM = 0.3 * GB  # Python and PyTorch themselves
UNUSED = 1 / 5  # of what is held: room between blocks of different sizes
TRIAL_STEPS, FEW = 4, 4  # how often, and with how many layers
ASSUMED_MEMORY = 8 * GB  # the memory of a machine that does not say how much it has


@dataclass(frozen=True, kw_only=True)
class Config:
    model: str = flag("gpt2-124M", f"one of {', '.join(GPT_CONFIGS)}")
    batch_size: int = flag(4, "windows per micro-batch")
    grad_accum: int = flag(1, "micro-batches per step")
    context_length: int = flag(256, "tokens in a window")
    optimizer: Literal["adamw", "muon"] = flag("adamw", "what trains the matrices in the blocks")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "where to compute")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag("auto", "arithmetic of the forward pass")

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("batch_size", "grad_accum", "context_length")}
        problems = [f"{flag_name(name)} must be at least 1, got {n}" for name, n in counts.items() if n < 1]
        if self.model not in GPT_CONFIGS:
            problems.append(f"--model must be one of {', '.join(GPT_CONFIGS)}, got {self.model!r}")
        if problems:
            raise ValueError("; ".join(problems))

    def size(self, n_layers: int | None = None) -> GPTConfig:
        """The size that is asked for, or one with fewer layers."""
        size = GPT_CONFIGS[self.model]
        changes = {"context_length": self.context_length, "dropout": 0.0, "n_layers": n_layers or size["n_layers"]}
        return GPTConfig.of({**size, **changes})


def memory(size: GPTConfig, tokens: int, *, half: bool, muon: bool = False, summed: bool = False) -> dict[str, float]:
    """Bytes that a step of `tokens` in a micro-batch holds at its peak, by what they are for.

    The peak is where the head's gradient has been made and the blocks' not yet, or where all gradients are there.
    half: whether activations are bf16 or fp16. summed: whether gradients of several micro-batches are added up.
    """
    parameters, body = size.parameter_count()
    head, C, ff = size.vocab_size * size.d_model, size.d_model, size.d_ff or 4 * size.d_model
    # What the gradient needs of a layer: its two inputs, and as operands of products both normalised, q, k, v, y, h.
    kept = tokens * size.n_layers * (2 * 4 * C + (6 * C + ff) * (2 if half else 4))
    logits = min(CHUNK_ROWS, tokens) * size.vocab_size * (6 if half else 4)
    backward = tokens * (3 * ff + 4 * C) * 4  # of the layer that is on
    copies = 2 * (body + head) if half else 0
    early, late = kept + copies + 4 * head + max(logits, backward), 4 * parameters
    return {
        "weights": 4 * parameters,
        "moments": 8 * parameters - (4 * body if muon else 0),
        "gradients and activations": early + late if summed else max(early, late),
    }


def peak(held: dict[str, float]) -> float:
    return PROGRAM + (1 + UNUSED) * sum(held.values())


def memory_here(device: torch.device) -> float | None:
    """Bytes of memory that the device has; None where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def step_seconds(flags: Config, runtime: Runtime) -> float:
    """The time of a step: of a shallow model its own, of a deeper one from those of one layer and of a few."""
    layers = flags.size().n_layers
    depths = [layers] if layers <= FEW else [1, FEW]
    trials = [_trial(flags, runtime, flags.size(n_layers=depth)) for depth in depths]
    rounds = [[trial() for trial in trials] for _ in range(1 + TRIAL_STEPS)]  # in turn; the first is set-up
    best = [min(times[1:]) for times in zip(*rounds, strict=True)]
    return best[0] + (layers - depths[0]) * (max(best) - best[0]) / (FEW - 1)


def _trial(flags: Config, runtime: Runtime, size: GPTConfig) -> Callable[[], float]:
    """What takes a step of training, with all its micro-batches, and returns its seconds."""
    model = GPTModel(size).to(runtime.device)
    make: Any = MuonAndAdamW if flags.optimizer == "muon" else make_adamw
    optimizer = make(model, max_lr=1e-6, weight_decay=0.1)
    ids = torch.randint(size.vocab_size, (flags.batch_size, flags.context_length + 1))
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()).to(runtime.device)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        for _ in range(flags.grad_accum):
            with runtime.autocast():
                loss = language_model_loss(model, batch)[0] / batch.count
            loss.backward()
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()
        runtime.synchronise()
        return time.perf_counter() - start

    return step


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    keep_freed_memory()
    runtime, size = choose_runtime(flags.device, flags.precision), flags.size()
    half, tokens = runtime.precision != "fp32", flags.batch_size * flags.context_length
    held = memory(size, tokens, half=half, muon=flags.optimizer == "muon", summed=flags.grad_accum > 1)
    there = memory_here(runtime.device)
    total = size.parameter_count()[0]
    print(f"model   {flags.model}: {size.n_layers} layers, {size.d_model} wide, {total:,} parameters")
    print(f"device  {runtime.device}, {runtime.precision} ({runtime.reason})")
    parts = ", ".join(f"{name} {held_bytes / GB:.2f}" for name, held_bytes in held.items())
    here = f"{there / GB:.1f} GB in all" if there else f"an unknown number of GB, taken as {ASSUMED_MEMORY / GB:.0f}"
    print(f"memory  about {peak(held) / GB:.2f} GB at the peak ({parts}, and room between); here are {here}")
    if peak(held) > (there or ASSUMED_MEMORY):
        size_too = peak(memory(size, 1, half=half)) > (there or ASSUMED_MEMORY)
        print(f"        that does not fit: take a smaller {'model' if size_too else 'batch'}")
        return 0
    per_step = step_seconds(flags, runtime)
    speed, windows = tokens * flags.grad_accum / per_step, f"{flags.batch_size} x {flags.grad_accum}"
    print(f"step    {windows} windows of {flags.context_length} tokens, {flags.optimizer}: about {per_step:.3g} s")
    print(f"run     {speed:,.0f} tokens a second, a million in about {1e6 / speed / 60:,.1f} min")
    return 0


if __name__ == "__main__":
    run_script(main, out_of_memory="lower --batch-size or --context-length, or use a smaller --model")
