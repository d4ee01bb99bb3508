"""Your answers to exercises 50 to 56: replace each `raise`. The tasks are in training_exercises.md.

Write in exercises/answers/training.py, a copy of this file: `python -m exercises.start` creates it.

Later answers may call earlier ones. Check an answer with `python -m exercises.check 50`.

A run is a dict of all that training changes:
"weights", "means", "squares": three dicts from parameter names to tensors of the same shapes. The means and the squares
are those of Adam, and 0 at first. "step": the number of finished steps. "generator": draws the batches.
"""

import math  # noqa: F401
from pathlib import Path

import torch  # noqa: F401
from torch import Tensor


def adam_update(gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's update, and the new mean and square, with betas 0.9 and 0.95 and epsilon 1e-8.

    All tensors have the same shape (...). mean and square: the running averages of the gradient and of its square.
    step: 1 for the first step.
    """
    raise NotImplementedError("exercise 50")


def learning_rate(step: int, max_lr: float, min_lr: float, warmup_steps: int, steps: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then cosine decay to min_lr in the last step."""
    raise NotImplementedError("exercise 51")


def clip_gradients(gradients: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
    """The gradients, scaled to a global norm of at most max_norm, and the norm that they had before."""
    raise NotImplementedError("exercise 52")


def train_step(run: dict, ids: Tensor, config: dict, settings: dict) -> float:
    """One training step of the run, which it changes; returns the loss of the batch before the update.

    ids: the text, int64 (N,). settings: "batch_size", "max_lr", "min_lr", "warmup_steps", "steps", "weight_decay" and
    "max_norm".
    """
    raise NotImplementedError("exercise 53")


def save_run(run: dict, path: Path) -> None:
    """Write the run to a file: the same dict, with the generator's state in place of the generator."""
    raise NotImplementedError("exercise 54")


def load_run(path: Path) -> dict:
    """The run that `save_run` wrote to the file, ready to continue."""
    raise NotImplementedError("exercise 55")


def pretrain(ids: Tensor, config: dict, settings: dict, path: Path, until: int) -> tuple[dict, list[float]]:
    """Train until `until` steps are finished, and save the run at `path`; returns it and the loss of each new step.

    Continues the run at `path`. If there is no such file, starts a run whose generator has the seed settings["seed"].
    """
    raise NotImplementedError("exercise 56")
