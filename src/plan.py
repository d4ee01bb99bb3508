"""python -m src.plan: the memory and time that training a model size would need on this machine.

Time is measured: the slope between a one-layer and a four-layer model gives the cost per layer. Of a large step, a part
is measured and the rest extrapolated. Memory is the sum of everything that a step holds at its peak, plus a fifth for
fragmentation, as measured on a CPU. Dropout needs more of both and is not included.
"""

if __name__ == "__main__":  # at the top: see run_module
    from src.entry import run_module

    run_module("src.plan")

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from src.cli import flag, flag_name, parse
from src.common.machine import usable_memory
from src.data.batching import Batch
from src.model.config import GPTConfig
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.runtime import Runtime, choose_runtime, keep_freed_memory
from src.training.loop import accumulate, update
from src.training.losses import language_model_loss
from src.training.memory import memory, peak
from src.training.optim import make_optimizer

GB = 1e9
TRIAL_STEPS, FIT_DEPTH = 4, 4  # steps timed per model, layers of the deeper model
MEASURED_LENGTH, MEASURED_TOKENS = 1024, 4096  # of a longer window or a larger step, only so much is measured
ASSUMED_MEMORY = 8 * GB  # if the system does not report its memory
LARGEST = 10**9  # of a flag


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("gpt2-124M", f"one of {', '.join(GPT_CONFIGS)}")
    batch_size: int = flag(4, "windows per micro-batch")
    grad_accum: int = flag(1, "micro-batches per step")
    context_length: int = flag(256, "tokens in a window")
    optimizer: Literal["adamw", "muon"] = flag("adamw", "optimizer of the matrices in the blocks")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag("auto", "device to train on")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag("auto", "number format of the forward pass")

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("batch_size", "grad_accum", "context_length")}
        expected = f"a whole number from 1 to {LARGEST:,}"
        problems = [
            f"{flag_name(name)} must be {expected}, got {str(n)[:20]}"
            for name, n in counts.items()
            if not 1 <= n <= LARGEST
        ]
        if self.model not in GPT_CONFIGS:
            problems.append(f"--model must be one of {', '.join(GPT_CONFIGS)}, got {self.model!r}")
        if problems:
            raise ValueError("; ".join(problems))

    def size(self, n_layers: int | None = None) -> GPTConfig:
        """The config of --model, or the same with fewer layers."""
        size = GPT_CONFIGS[self.model]
        changes = {"context_length": self.context_length, "dropout": 0.0, "n_layers": n_layers or size["n_layers"]}
        return GPTConfig.of({**size, **changes})


def device_memory(device: torch.device) -> tuple[int | None, str]:
    """(bytes of memory that this process may use on the device, what limits them); None if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1], "the GPU's memory"
    return usable_memory()


def step_seconds(flags: Flags, runtime: Runtime) -> float:
    """Seconds per training step: measured for a shallow model, extrapolated from 1 and FIT_DEPTH layers for others.

    Of a larger step, MEASURED_TOKENS are measured; the rest is extrapolated by its arithmetic.
    """
    length = min(flags.context_length, MEASURED_LENGTH)
    windows = min(flags.batch_size, MEASURED_TOKENS // length)
    batches = min(flags.grad_accum, max(1, MEASURED_TOKENS // (length * windows)))
    measured = replace(flags, context_length=length, batch_size=windows, grad_accum=batches)
    return _measure(measured, runtime) * _arithmetic(flags) / _arithmetic(measured)


def _arithmetic(flags: Flags) -> float:
    """Multiplications of a step's forward pass: each token with every weight and, in attention, with all tokens."""
    size = flags.size()
    weights = size.parameter_count()[1] + size.vocab_size * size.d_model
    per_token = weights + size.n_layers * size.d_model * flags.context_length  # a causal token meets half the window
    return float(per_token * flags.context_length * flags.batch_size * flags.grad_accum)


def _measure(flags: Flags, runtime: Runtime) -> float:
    layers = flags.size().n_layers
    depths = [layers] if layers <= FIT_DEPTH else [1, FIT_DEPTH]
    trials = [_trial_step(flags, runtime, flags.size(n_layers=depth)) for depth in depths]
    rounds = [[trial() for trial in trials] for _ in range(1 + TRIAL_STEPS)]  # alternating; the first round is warm-up
    best = [min(times[1:]) for times in zip(*rounds, strict=True)]
    per_layer = (max(best) - best[0]) / (FIT_DEPTH - 1)  # not negative, even if noise made the deeper model faster
    return best[0] + (layers - depths[0]) * per_layer


def _trial_step(flags: Flags, runtime: Runtime, size: GPTConfig) -> Callable[[], float]:
    """A function that takes one training step, with all its micro-batches, and returns its seconds."""
    model = GPTModel(size).to(runtime.device)
    optimizer = make_optimizer(flags.optimizer, model, max_lr=1e-6, weight_decay=0.1)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
    ids = torch.randint(size.vocab_size, (flags.batch_size, flags.context_length + 1))
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()).to(runtime.device)

    def step() -> float:
        start = time.perf_counter()
        accumulate(model, language_model_loss, [batch] * flags.grad_accum, runtime, scaler)
        update(model, optimizer, scaler, grad_clip=1.0)
        runtime.synchronise()
        return time.perf_counter() - start

    return step


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    keep_freed_memory()
    runtime, size = choose_runtime(flags.device, flags.precision), flags.size()
    half, tokens = runtime.precision != "fp32", flags.batch_size * flags.context_length
    held = memory(size, tokens, half=half, muon=flags.optimizer == "muon", accumulated=flags.grad_accum > 1)
    available, limited_by = device_memory(runtime.device)
    total = size.parameter_count()[0]
    print(f"model   {flags.model}: {size.n_layers} layers, {size.d_model} wide, {total:,} parameters")
    print(f"device  {runtime.device}, {runtime.precision} ({runtime.reason})")
    parts = ", ".join(f"{name} {held_bytes / GB:,.2f}" for name, held_bytes in held.items())
    print(f"memory  about {peak(held) / GB:,.2f} GB at the peak ({parts}, and fragmentation)")
    assumed = f"unknown, assumed to be {ASSUMED_MEMORY / GB:.0f} GB"
    print(f"here    {f'{available / GB:,.1f} GB, {limited_by}' if available else assumed}")
    if peak(held) > (available or ASSUMED_MEMORY):
        model_too_large = peak(memory(replace(size, context_length=1), 1, half=half)) > (available or ASSUMED_MEMORY)
        advice = "choose a smaller --model" if model_too_large else "lower --batch-size or --context-length"
        print(f"        it does not fit: {advice}")
        return 0
    per_step = step_seconds(flags, runtime)
    speed, windows = tokens * flags.grad_accum / per_step, f"{flags.batch_size} x {flags.grad_accum}"
    print(f"step    {windows} windows of {flags.context_length} tokens, {flags.optimizer}: about {per_step:.3g} s")
    print(f"run     {speed:,.0f} tokens per second, a million in about {1e6 / speed / 60:,.1f} min")
    return 0
