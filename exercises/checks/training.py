"""The checks of exercises 50 to 56: 50 to 52 are here, those of whole runs in runs.py."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from exercises.checks.hard_tools import compare_number, parts
from exercises.checks.judging import call, compare, given, random, require
from exercises.checks.reference_run import BETAS, EPSILON, reference_adam_update
from exercises.checks.runs import check_load_run, check_pretrain, check_save_run, check_train_step
from src.training.optim import lr_at

Answer = Callable[..., Any]


def check_adam_update(function: Answer) -> None:
    """Exercise 50: compare with torch's AdamW over several steps, also for tiny gradients and for zeros."""
    for shape, spread in [((3,), 1.0), ((2, 3), 1e-7), ((2,), 0.0)]:
        mean, square = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        for step in range(1, 4):
            gradient = spread * random(*shape, seed=step)
            arguments = {"gradient": gradient, "mean": mean, "square": square, "step": step}
            where = given(arguments)
            update, mean, square = parts(where, call(function, arguments), 3)
            expected = reference_adam_update(**arguments)
            mistakes = _adam_mistakes(**arguments)
            compare(f"{where}, as new mean", mean, expected[1], mistakes["mean"])
            compare(f"{where}, as new square", square, expected[2], mistakes["square"])
            compare(f"{where}, as update", update, expected[0], mistakes["update"])
            _, mean, square = expected


def _adam_mistakes(gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> dict[str, dict[str, Tensor]]:
    """The wrong means, squares and updates that common mistakes lead to."""
    beta1, beta2 = BETAS
    new_mean, new_square = beta1 * mean + (1 - beta1) * gradient, beta2 * square + (1 - beta2) * gradient**2
    too_early = "return the running average itself; its bias correction is only for the update"
    return {
        "mean": {
            too_early: new_mean / (1 - beta1**step),
            "the old mean keeps 0.9 of its value, and the gradient gets 0.1": (1 - beta1) * mean + beta1 * gradient,
            "this is the gradient; average it with the old mean": gradient,
            "the gradient has the factor 0.1": beta1 * mean + gradient,
            "the order is update, mean, square; this is the square": new_square,
        },
        "square": {
            too_early: new_square / (1 - beta2**step),
            "average the square of the gradient": beta2 * square + (1 - beta2) * gradient,
            "the square of the gradient has the factor 0.05": beta2 * square + gradient**2,
            "beta 2 is 0.95; here it is 0.9": beta1 * square + (1 - beta1) * gradient**2,
            "beta 2 is 0.95; here it is 0.999": 0.999 * square + 0.001 * gradient**2,
            "average the square of the gradient, not the square of the average": (
                beta2 * square + (1 - beta2) * new_mean**2
            ),
        },
        "update": _update_mistakes(gradient, new_mean, new_square, step),
    }


def _update_mistakes(gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> dict[str, Tensor]:
    """Wrong updates. mean and square: the new averages."""
    beta1, beta2 = BETAS
    m, v = mean / (1 - beta1**step), square / (1 - beta2**step)
    one_less = [(1 - beta ** (step - 1)) or math.nan for beta in BETAS]
    return {
        "the bias correction is missing: divide mean and square by 1 - beta**step": mean / (square.sqrt() + EPSILON),
        "the bias correction of the square is missing": m / (square.sqrt() + EPSILON),
        "the bias correction of the mean is missing": mean / (v.sqrt() + EPSILON),
        "the first step is step 1; here the bias correction counts from 0": (
            mean / one_less[0] / ((square / one_less[1]).sqrt() + EPSILON)
        ),
        "epsilon is added to the root; here it is inside": m / torch.sqrt(v + EPSILON),
        "epsilon is missing: a gradient of 0 gives 0 / 0": m / v.sqrt(),
        "the square root of the square is missing": m / (v + EPSILON),
        "the update follows the mean, not the gradient": gradient / (v.sqrt() + EPSILON),
        "the update has the sign of the mean; a training step subtracts it": -m / (v.sqrt() + EPSILON),
    }


def check_learning_rate(function: Answer) -> None:
    """Exercise 51: compare with the project's schedule, at the ends of warm-up and decay and in between."""
    for max_lr, min_lr, warmup, steps in [(1e-3, 1e-4, 4, 20), (0.5, 0.0, 0, 11), (6e-4, 6e-5, 9, 100)]:
        for step in sorted(
            {0, 1, warmup // 2, max(0, warmup - 1), warmup, warmup + 3, steps // 2, steps - 2, steps - 1}
        ):
            arguments = {"step": step, "max_lr": max_lr, "min_lr": min_lr, "warmup_steps": warmup, "steps": steps}
            expected = lr_at(step, max_lr=max_lr, min_lr=min_lr, warmup_steps=warmup, steps=steps)
            compare_number(given(arguments), call(function, arguments), expected, _lr_mistakes(**arguments))


def _lr_mistakes(step: int, max_lr: float, min_lr: float, warmup_steps: int, steps: int) -> dict[str, float]:
    if step < warmup_steps:
        return {
            "the first step would have no effect: warm-up has step + 1 in it": max_lr * step / warmup_steps,
            "the first step would have no effect: warm-up starts at max_lr / (warmup_steps + 1)": (
                max_lr * step / (warmup_steps + 1)
            ),
            "max_lr comes one step early: step warmup_steps is the first to have it": max_lr
            * (step + 1)
            / warmup_steps,
            "warm-up starts near 0, not at min_lr": min_lr + (max_lr - min_lr) * (step + 1) / (warmup_steps + 1),
            "warm-up is missing": max_lr,
        }
    length = steps - 1 - warmup_steps
    progress = (step - warmup_steps) / length

    def cosine(progress: float, low: float = min_lr) -> float:
        return low + (max_lr - low) * 0.5 * (1 + math.cos(math.pi * progress))

    return {
        "progress is 0 at the end of warm-up; here it counts from step 0": cosine(step / (steps - 1)),
        "the last step, steps - 1, has min_lr: divide by steps - 1 - warmup_steps": cosine(
            (step - warmup_steps) / (length + 1)
        ),
        "progress is 0 at step warmup_steps; here it is one step ahead": cosine((step + 1 - warmup_steps) / length),
        "the decay is linear; use the cosine": min_lr + (max_lr - min_lr) * (1 - progress),
        "the learning rate falls to min_lr, not to 0": cosine(progress, low=0.0),
        "min_lr is added at the end; the cosine spans max_lr - min_lr": min_lr + cosine(progress, low=0.0),
        "the factor 0.5 is missing": min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)),
        "the cosine goes from 0 to pi": min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(progress)),
        "the cosine rises: add it, do not subtract it": min_lr
        + (max_lr - min_lr) * 0.5 * (1 - math.cos(math.pi * progress)),
        "the decay is missing": max_lr,
        "this continues the warm-up": max_lr * (step + 1) / (warmup_steps + 1),
    }


def _clipping_mistakes(gradient: Tensor, gradients: list[Tensor], max_norm: float) -> dict[str, Tensor]:
    """One of the gradients, as common mistakes leave it."""
    own, norms = gradient.norm().item(), [each.norm().item() for each in gradients]
    norm = math.hypot(*norms)
    return {
        "every gradient was clipped on its own; all are multiplied by the same number": (
            gradient * (min(1.0, max_norm / own) if own else 1.0)
        ),
        "each number was clipped; multiply all of them by the same number": gradient.clamp(-max_norm, max_norm),
        "the norm is below the limit, so the gradients stay as they are": gradient * (max_norm / (norm or 1)),
        "the gradients are not clipped": gradient,
        "divide by the norm and multiply by max_norm": gradient / norm if norm else gradient,
        "the squares of all numbers are added, then comes one square root; here the norms were added": (
            gradient * min(1.0, max_norm / (sum(norms) or 1))
        ),
        "the norm is 0: do not divide by it": gradient * math.nan,
    }


def check_clip_gradients(function: Answer) -> None:
    """Exercise 52: compare with one scale for all gradients, above and below the limit."""
    pair = [torch.tensor([3.0, 0.0], dtype=torch.float64), torch.tensor([[4.0]], dtype=torch.float64)]
    large = [10 * random(3, 4, seed=1), random(5, seed=2), 0.1 * random(2, 2, seed=3)]
    small = [0.1 * random(3, seed=4), 0.1 * random(2, 2, seed=5)]
    zeros = [torch.zeros(2, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)]
    for gradients, max_norm in [(large, 1.0), (large, 5.0), (pair, 1.0), (small, 1.0), (zeros, 1.0)]:
        values = torch.cat([gradient.flatten() for gradient in gradients])
        norm = values.norm().item()
        where = f"for gradients of norm {norm:.4g} together and max_norm {max_norm}"
        copies = [gradient.clone() for gradient in gradients]
        answer = parts(where, call(lambda max_norm, own=copies: function(own, max_norm), {"max_norm": max_norm}), 2)
        unchanged = all(map(torch.equal, copies, gradients))
        require(unchanged, "the call changed its argument gradients: return new tensors")
        clipped = list(answer[0]) if isinstance(answer[0], list | tuple) else []
        require(len(clipped) == len(gradients), f"{where}, expected a list of {len(gradients)} gradients first")
        scale = min(1.0, max_norm / norm) if norm else 1.0
        for i, gradient in enumerate(gradients):
            compare(
                f"{where}, as gradient {i}",
                clipped[i],
                gradient * scale,
                _clipping_mistakes(gradient, gradients, max_norm),
            )
        got = answer[1].item() if isinstance(answer[1], Tensor) and answer[1].numel() == 1 else answer[1]
        wrong = {
            "this is the norm after clipping; return the one before": norm * scale,
            "the square root is missing": norm**2,
            "this is the sum of the norms": sum(gradient.norm().item() for gradient in gradients),
            "this is the largest norm of a gradient": max(gradient.norm().item() for gradient in gradients),
        }
        compare_number(f"{where}, as norm", got, norm, wrong)


CHECKS: dict[int, tuple[str, Answer]] = {
    50: ("adam_update", check_adam_update),
    51: ("learning_rate", check_learning_rate),
    52: ("clip_gradients", check_clip_gradients),
    53: ("train_step", check_train_step),
    54: ("save_run", check_save_run),
    55: ("load_run", check_load_run),
    56: ("pretrain", check_pretrain),
}
