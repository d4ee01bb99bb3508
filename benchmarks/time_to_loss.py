"""python -m benchmarks.time_to_loss: validation loss after a given training time, compared with a plain PyTorch loop.

The plain loop trains for --seconds at each of three learning rates. Ours trains with Muon for a third of that time.
The text, vocabulary, model size and validation windows are the same. The first steps are timed to choose the
number of steps, and so the length of the schedule. Evaluation is not timed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.plain_gpt2 import PlainGPT2, plain_adamw
from main import create_dataloader, prepare_data
from src.cli import flag, parse
from src.data.batching import StepLoader
from src.data.shakespeare import SHAKESPEARE_PATH
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import seed_step
from src.training.losses import language_model_loss
from src.training.optim import MuonAndAdamW, lr_at

SETUP_STEPS, TIMED_STEPS = 2, 8  # the timed ones decide how many steps fit into the time
PLAIN_RATES = (1e-3, 2e-3, 4e-3)


@dataclass(frozen=True, kw_only=True)
class Flags:
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8")
    model: Literal["micro", "tiny"] = flag("micro", "model size")
    seconds: float = flag(100.0, "training time of the plain loop; ours gets a third")
    context_length: int = flag(128, "tokens in a window")
    batch_size: int = flag(8, "windows per step of the plain loop")
    our_batch_size: int = flag(8, "windows per step of ours")
    max_lr: float = flag(1e-2, "peak learning rate of ours")
    only: Literal["both", "ours", "plain"] = flag("both", "which to run")
    seed: int = flag(1337, "seed of the weights and the windows")


def train(model: Any, optimizer: Any, mean_loss: Callable, loader: StepLoader, *, max_lr: float, seconds: float) -> int:
    """Train for about `seconds` and return the number of steps."""
    steps, start, step = None, time.perf_counter(), 0
    while steps is None or step < steps:
        lr = lr_at(step, max_lr=max_lr, min_lr=max_lr / 20, warmup_steps=20, steps=steps or 10_000)
        for group in optimizer.param_groups:
            group["lr"] = lr
        [batch] = loader.step_batches(step)
        optimizer.zero_grad(set_to_none=True)
        mean_loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step == SETUP_STEPS:
            start = time.perf_counter()
        if step == SETUP_STEPS + TIMED_STEPS:
            steps = SETUP_STEPS + int(seconds / ((time.perf_counter() - start) / TIMED_STEPS))
    return step


def plain_loss(model: Any, batch: Any) -> torch.Tensor:
    return model(batch.inputs, batch.targets)


def our_loss(model: Any, batch: Any) -> torch.Tensor:
    return language_model_loss(model, batch)[0] / batch.count


@torch.no_grad()
def validation_loss(model: Any, mean_loss: Callable, batches: Sequence[Any]) -> float:
    model.eval()
    return sum(float(mean_loss(model, batch)) for batch in batches) / len(batches)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    train_ids, val_ids = prepare_data(flags.data)
    size = {**GPT_CONFIGS[flags.model], "context_length": flags.context_length, "dropout": 0.0}
    shape: dict[str, Any] = {"context_length": flags.context_length, "seed": flags.seed}
    validation = StepLoader(create_dataloader(val_ids, 8, **shape)).first_batches(40)
    runs: list[tuple[str, float]] = [("plain", lr) for lr in PLAIN_RATES] if flags.only != "ours" else []
    runs += [("ours", flags.max_lr)] if flags.only != "plain" else []
    for kind, max_lr in runs:
        seed_step(flags.seed, 0)
        plain = kind == "plain"
        model: Any = PlainGPT2(size) if plain else GPTModel(size)
        make_ours = partial(MuonAndAdamW, max_lr=max_lr, weight_decay=0.1)
        optimizer: Any = plain_adamw(model, lr=max_lr) if plain else make_ours(model)
        mean_loss = plain_loss if plain else our_loss
        batch_size = flags.batch_size if plain else flags.our_batch_size
        loader = StepLoader(create_dataloader(train_ids, batch_size, **shape))
        start = time.perf_counter()
        seconds = flags.seconds if plain else flags.seconds / 3
        steps = train(model, optimizer, mean_loss, loader, max_lr=max_lr, seconds=seconds)
        took = time.perf_counter() - start
        loss = validation_loss(model, mean_loss, validation)
        print(f"{kind:<6} lr {max_lr:<7g} {steps:5d} steps, {took:6.1f} s | val {loss:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
