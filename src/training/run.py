"""What a run is made of: its stage, its resolved numbers, how far it is, and what it works with."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from src.runtime import Runtime

EVALUATIONS = 10  # in a run, unless --eval-every says otherwise


class Loader(Protocol):
    """Batches by optimizer step; `src.data.batching.StepLoader` is one."""

    dataset: Any

    @property
    def steps_per_epoch(self) -> int: ...
    def step_batches(self, step: int) -> list[Any]: ...


@dataclass(frozen=True)
class Stage:
    """What makes a stage: its name, loss and batches, and what it leaves for the next one.

    evaluation: the batches evaluated on, `evaluated_on` saying what they are ("val" or "train").
    sample: a text that shows what the model does now. metadata: plain values for the checkpoint: template, tokenizer,
    parent. facts: rows for the terminal. next_option: what tells the next command of a folder other than the usual.
    """

    name: str
    title: str
    loss_fn: Callable  # (model, batch) -> (sum of the batch's losses, sums of its metrics)
    loader: Loader
    evaluation: Sequence[Any]
    evaluated_on: str
    sample: Callable[[], str]
    metadata: Mapping[str, Any]
    facts: Mapping[str, str]
    next_command: str
    next_option: str


@dataclass(frozen=True)
class Plan:
    """The resolved numbers of a run. Steps are optimizer steps."""

    steps: int
    steps_per_epoch: int
    max_lr: float
    min_lr: float
    warmup_steps: int
    grad_clip: float | None
    eval_every: int
    patience: int | None
    seed: int


@dataclass
class State:
    """How far a run is: saved with it, so that a resumed run decides as the uninterrupted one would."""

    step: int = 0  # steps done
    first_loss: float | None = None  # of the evaluation before the first step
    best_loss: float = math.inf
    best_step: int = 0
    stale_evaluations: int = 0  # since the best
    loss_sum: float = 0.0  # of the steps since the last evaluation
    loss_count: int = 0
    train_loss: float | None = None  # mean of the steps between the last two evaluations
    eval_loss: float | None = None


@dataclass
class Run:
    """A stage on its way: all that a step, an evaluation or a checkpoint needs. `flags` are the script's."""

    stage: Stage
    model: Any
    flags: Any
    runtime: Runtime
    plan: Plan
    optimizer: Any  # torch.optim's, or one that works like it
    scaler: torch.amp.GradScaler


def make_plan(flags: Any, steps_per_epoch: int) -> Plan:
    """The numbers of a run from its flags; --max-steps, where given, is the length that the schedule spans.

    Raises ValueError for learning rates the wrong way round.
    """
    if flags.min_lr > flags.max_lr:
        raise ValueError(f"--min-lr must not be above --max-lr, got {flags.min_lr} and {flags.max_lr}")
    steps = flags.max_steps or flags.epochs * steps_per_epoch
    return Plan(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        max_lr=flags.max_lr,
        min_lr=flags.min_lr,
        warmup_steps=flags.warmup_steps,
        grad_clip=flags.grad_clip,
        eval_every=flags.eval_every or max(1, steps // EVALUATIONS),
        patience=flags.patience,
        seed=flags.seed,
    )
