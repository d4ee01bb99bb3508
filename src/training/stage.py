"""A training stage, and the state of its run: schedule, progress, and everything else that a step needs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from src.data.batching import Batch, StepLoader
from src.model.gpt import GPTModel
from src.runtime import Runtime
from src.training.flags import TrainingFlags
from src.training.losses import LossFunction
from src.training.optim import Optimizer

EVALUATIONS_PER_RUN = 10  # unless --eval-every is given


@dataclass(frozen=True)
class Stage:
    """What makes one stage differ from another: its loss, its batches, and the names shown for them.

    evaluation: the batches of every evaluation; evaluated_on: "val" or "train", the data they come from.
    sample: returns a text that shows what the model generates now. metadata: plain values saved in each checkpoint
    (template, tokenizer, parent). summary_rows: rows of the summary printed before the first step.
    next_option: the next command's flag for a non-default --out.
    """

    name: str
    title: str
    loss_fn: LossFunction
    loader: StepLoader
    evaluation: Sequence[Batch]
    evaluated_on: str
    sample: Callable[[], str]
    metadata: Mapping[str, Any]
    summary_rows: Mapping[str, str]
    next_command: str
    next_option: str


@dataclass(frozen=True)
class Schedule:
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
class Progress:
    """How far a run is. It is saved with the run, so a resumed run makes the same decisions as an uninterrupted one."""

    step: int = 0  # completed steps
    first_loss: float | None = None  # evaluation loss before the first step
    best_loss: float = math.inf
    best_step: int = 0
    stale_evaluations: int = 0  # since the best one
    loss_sum: float = 0.0  # over the steps since the last evaluation
    loss_count: int = 0
    train_loss: float | None = None  # mean over the steps between the last two evaluations
    eval_loss: float | None = None


@dataclass(frozen=True)
class TrainingRun:
    """Everything that a step, an evaluation or a checkpoint needs."""

    stage: Stage
    model: GPTModel
    flags: TrainingFlags
    runtime: Runtime
    schedule: Schedule
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    identity: Mapping[str, Any]  # everything that determines the result; a resumed run must have the same


def make_schedule(flags: TrainingFlags, steps_per_epoch: int) -> Schedule:
    """The numbers of a run from its flags. --max-steps, if given, replaces --epochs as the length of the run.

    Raises ValueError if --min-lr is above --max-lr.
    """
    if flags.min_lr > flags.max_lr:
        raise ValueError(f"--min-lr must not be above --max-lr, got {flags.min_lr} and {flags.max_lr}")
    steps = flags.max_steps or flags.epochs * steps_per_epoch
    return Schedule(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        max_lr=flags.max_lr,
        min_lr=flags.min_lr,
        warmup_steps=flags.warmup_steps,
        grad_clip=flags.grad_clip,
        eval_every=flags.eval_every or max(1, steps // EVALUATIONS_PER_RUN),
        patience=flags.patience,
        seed=flags.seed,
    )
