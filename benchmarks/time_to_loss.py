"""python -m benchmarks.time_to_loss: how much sooner we reach a plain PyTorch loop's loss, in bits per byte.

The rivals are nanoGPT-style loops: the size of our model with GPT-2's vocabulary and with our byte pairs, and nanoGPT's
recipe for a CPU on single bytes. Each trains for --seconds, in the faster of fp32 and bf16, with the batch size that is
best at one rate, with every beta2, at rates that double and halve until the best is neither the largest nor the
smallest. Ours, the recipe of `main.py`, trains for growing shares of that time until it reaches the best loss of each
rival. Every run has a complete schedule; its length follows from the time of a step, measured before. All are judged
as by `src.evaluate`, on the last tenth of the text.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

import main as pretrain
from benchmarks.plain_gpt2 import PlainGPT2, as_our_model, plain_adamw
from src.cli import flag, parse
from src.data.batching import Batch, StepLoader
from src.data.learned_tokenizer import choose_encoding
from src.data.shakespeare import SHAKESPEARE_PATH
from src.evaluation.perplexity import text_loss
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import Runtime, choose_runtime, has_bf16_products, keep_freed_memory, seed_step
from src.training.losses import language_model_loss
from src.training.optim import clip_gradients, lr_at, make_optimizer, set_lr
from src.training.recipes import RECIPES

Kind = Literal["gpt2", "bytes", "bpe", "ours"]
VAL_FRACTION = 0.1
WARM_UP, TIMED = 2, 8  # steps before each choice of precision and length
RATES = (1e-3, 2e-3, 4e-3)  # to begin with
BETAS = (0.95, 0.99)
# Of the rivals, in windows.
BATCH_SIZES: dict[str, Sequence[int]] = {"gpt2": (2, 4, 8), "bpe": (2, 4, 8), "bytes": (12,)}
SHARES = (1 / 12, 1 / 8, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0)
OURS = RECIPES["pretrain"]["micro"]
NANOGPT_CPU = {"d_model": 128, "n_heads": 4, "n_layers": 4, "context_length": 64}  # of its README


@dataclass(frozen=True, kw_only=True)
class Flags:
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8")
    seconds: float = flag(100.0, "training time of each run of a rival")
    rival: Literal["all", "gpt2", "bytes", "bpe"] = flag("all", "which rival to run before ours")
    seed: int = flag(1337, "seed of the weights and the windows")


@dataclass(frozen=True)
class Contestant:
    kind: Kind
    flags: Flags
    batch_size: int = OURS["batch_size"]

    @cached_property
    def encoding(self) -> Any:
        if self.kind == "gpt2":
            return choose_encoding("gpt2", self.flags.data)
        size = 257 if self.kind == "bytes" else OURS["vocab_size"]
        return choose_encoding("bpe", self.flags.data, vocab_size=size, val_fraction=VAL_FRACTION)

    @cached_property
    def ids(self) -> Sequence[Any]:
        """(training, validation)"""
        return pretrain.prepare_data(self.flags.data, self.encoding, VAL_FRACTION)

    @cached_property
    def size(self) -> dict[str, Any]:
        size = NANOGPT_CPU if self.kind == "bytes" else {"context_length": OURS["context_length"]}
        return {**GPT_CONFIGS["micro"], **size, "vocab_size": self.encoding.n_vocab, "dropout": 0.0}

    def train(self, runtime: Runtime, steps: int, max_lr: float, beta2: float) -> tuple[Any, float]:
        """Train with a schedule of this many steps; returns the model and the median seconds of a step."""
        seed_step(self.flags.seed, 0)
        ours = self.kind == "ours"
        model: Any = GPTModel(self.size) if ours else PlainGPT2(self.size)
        make = partial(make_optimizer, "muon") if ours else plain_adamw
        optimizer = make(model, max_lr=max_lr, weight_decay=0.1, beta2=beta2)
        schedule: dict[str, Any] = {"min_lr": max_lr / 10, "warmup_steps": steps // 20}
        if ours:
            schedule = {"min_lr": OURS["min_lr"], "warmup_steps": OURS["warmup_steps"], "decay": OURS["lr_decay"]}
        windows = pretrain.create_dataloader(
            self.ids[0], self.batch_size, self.size["context_length"], seed=self.flags.seed
        )
        loader, times = StepLoader(windows), []
        for step in range(steps):
            start = time.perf_counter()
            set_lr(optimizer, lr_at(step, max_lr=max_lr, steps=steps, **schedule))
            optimizer.zero_grad(set_to_none=True)
            [batch] = loader.step_batches(step)
            with runtime.autocast():
                loss = mean_loss(model, batch)
            loss.backward()
            (clip_gradients if ours else torch.nn.utils.clip_grad_norm_)(model.parameters(), 1.0)
            optimizer.step()
            times.append(time.perf_counter() - start)
        return model, median(times[WARM_UP:] or times)

    def bits_per_byte(self, model: Any) -> float:
        judged = model if isinstance(model, GPTModel) else as_our_model(model, self.size)
        ids, context = self.ids[1], self.size["context_length"]
        nats = text_loss(judged, ids, context, context // 2) * (len(ids) - 1)
        return nats / math.log(2) / len(self.encoding.decode_bytes(ids[1:].tolist()))

    def fastest(self) -> tuple[Runtime, float]:
        """(the faster precision, seconds of a step in it)"""
        precisions = ("fp32", "bf16") if has_bf16_products(torch.device("cpu")) else ("fp32",)
        runtimes = [choose_runtime("cpu", precision) for precision in precisions]
        timed = [self.train(runtime, WARM_UP + TIMED, 1e-3, 0.95)[1] for runtime in runtimes]
        return runtimes[timed.index(min(timed))], min(timed)


def mean_loss(model: Any, batch: Batch) -> torch.Tensor:
    if isinstance(model, GPTModel):
        return language_model_loss(model, batch)[0] / batch.loss_denominator
    return model(batch.inputs, batch.targets)


def run(who: Contestant, runtime: Runtime, steps: int, max_lr: float, beta2: float) -> float:
    start = time.perf_counter()
    model, step_s = who.train(runtime, steps, max_lr, beta2)
    result, seconds = who.bits_per_byte(model), time.perf_counter() - start
    print(
        f"{who.kind:<6} {runtime.precision} lr {max_lr:<7g} beta2 {beta2:<5g} {steps:5d} steps of {who.batch_size:2d} "
        f"windows, {step_s * 1e3:5.0f} ms, {seconds:5.0f} s with evaluation | {result:.4f} bits per byte",
        flush=True,
    )
    return result


def with_best_batch_size(kind: Kind, flags: Flags) -> tuple[Contestant, Runtime, int]:
    """(the rival with the batch size that is best at the middle rate, its precision, its steps)"""
    tried = []
    for batch_size in BATCH_SIZES[kind]:
        who = Contestant(kind, flags, batch_size)
        runtime, step_s = who.fastest()
        tried.append((who, runtime, max(1, int(flags.seconds / step_s))))
    if len(tried) == 1:
        return tried[0]
    return min(tried, key=lambda each: run(each[0], each[1], each[2], RATES[1], BETAS[-1]))


def best_of_rival(kind: Kind, flags: Flags) -> float:
    """The lowest bits per byte over all rates and betas, with the best rate inside the grid of each beta."""
    who, runtime, steps = with_best_batch_size(kind, flags)
    best = []
    for beta2 in BETAS:
        results = {rate: run(who, runtime, steps, rate, beta2) for rate in RATES}
        while (rate := min(results, key=results.__getitem__)) in (min(results), max(results)):
            more = rate * 2 if rate == max(results) else rate / 2
            results[more] = run(who, runtime, steps, more, beta2)
        best.append(results[rate])
    return min(best)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    keep_freed_memory()
    kinds: list[Kind] = ["gpt2", "bytes", "bpe"] if flags.rival == "all" else [flags.rival]
    targets = {kind: best_of_rival(kind, flags) for kind in kinds}
    ours = Contestant("ours", flags)
    runtime, step_s = ours.fastest()
    for share in SHARES:
        steps = max(1, int(flags.seconds * share / step_s))
        result = run(ours, runtime, steps, OURS["max_lr"], OURS["beta2"])
        for kind in [kind for kind, target in targets.items() if result <= target]:
            print(f"{kind}: {targets.pop(kind):.4f} reached in {share:.3f} of its time: {1 / share:.1f} times as fast")
        if not targets:
            break
    return 0


if __name__ == "__main__":
    run_script(main)
