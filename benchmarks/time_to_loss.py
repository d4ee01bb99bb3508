"""python -m benchmarks.time_to_loss: the validation loss that a given time of training buys, ours and a plain loop.

The plain PyTorch loop trains for --seconds at each of three learning rates; its best loss is the mark. Ours trains
with `--optimizer muon` for a third of that time. Same text, shape, vocabulary, validation windows; every run has a
schedule of its own length, from the time that its first steps took. Evaluation does not count as time.
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

TRIAL_STEPS = 8  # that tell how many fit into the time
PLAIN_RATES = (1e-3, 2e-3, 4e-3)


@dataclass(frozen=True, kw_only=True)
class Config:
    data: Path = flag(SHAKESPEARE_PATH, "text in UTF-8")
    model: Literal["micro", "tiny"] = flag("micro", "size")
    seconds: float = flag(100.0, "training time of the plain loop; ours has a third")
    context_length: int = flag(128, "tokens in a window")
    batch_size: int = flag(8, "windows a step of the plain loop")
    our_batch_size: int = flag(8, "windows a step of ours")
    max_lr: float = flag(1e-2, "learning rate of ours")
    only: Literal["both", "ours", "plain"] = flag("both", "which to run")
    seed: int = flag(1337, "of weights and windows")


def train(model: Any, optimizer: Any, loss_of: Callable, loader: StepLoader, *, max_lr: float, seconds: float) -> int:
    """Train for that long and return the number of steps. The trial steps are the first of the run."""
    steps, start, step = None, time.perf_counter(), 0
    while steps is None or step < steps:
        lr = lr_at(step, max_lr=max_lr, min_lr=max_lr / 20, warmup_steps=20, steps=steps or 10_000)
        for group in optimizer.param_groups:
            group["lr"] = lr
        [batch] = loader.step_batches(step)
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step == 2:  # what the first two take is set-up
            start = time.perf_counter()
        if step == 2 + TRIAL_STEPS:
            steps = 2 + int(seconds / ((time.perf_counter() - start) / TRIAL_STEPS))
    return step


def plain_loss(model: Any, batch: Any) -> torch.Tensor:
    return model(batch.inputs, batch.targets)


def our_loss(model: Any, batch: Any) -> torch.Tensor:
    return language_model_loss(model, batch)[0] / batch.count


@torch.no_grad()
def validation_loss(model: Any, loss_of: Callable, batches: Sequence[Any]) -> float:
    model.eval()
    return sum(float(loss_of(model, batch)) for batch in batches) / len(batches)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    train_ids, val_ids = prepare_data(flags.data)
    size = {**GPT_CONFIGS[flags.model], "context_length": flags.context_length, "dropout": 0.0}
    shape: dict[str, Any] = {"context_length": flags.context_length, "seed": flags.seed}
    validation = create_dataloader(val_ids, 8, **shape).first_steps(40)
    runs: list[tuple[str, float]] = [("plain", lr) for lr in PLAIN_RATES] if flags.only != "ours" else []
    runs += [("ours", flags.max_lr)] if flags.only != "plain" else []
    for kind, max_lr in runs:
        seed_step(flags.seed, 0)
        plain = kind == "plain"
        model: Any = PlainGPT2(size) if plain else GPTModel(size)
        make_ours = partial(MuonAndAdamW, max_lr=max_lr, weight_decay=0.1)
        optimizer: Any = plain_adamw(model, lr=max_lr) if plain else make_ours(model)
        loss_of = plain_loss if plain else our_loss
        loader = create_dataloader(train_ids, flags.batch_size if plain else flags.our_batch_size, **shape)
        start = time.perf_counter()
        seconds = flags.seconds if plain else flags.seconds / 3
        steps = train(model, optimizer, loss_of, loader, max_lr=max_lr, seconds=seconds)
        took = time.perf_counter() - start
        loss = validation_loss(model, loss_of, validation)
        print(f"{kind:<6} lr {max_lr:<7g} {steps:5d} steps, {took:6.1f} s | val {loss:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
