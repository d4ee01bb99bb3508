"""A training run to compare answers with: the project's model and learning rate, and torch's own AdamW and clipping."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw

from exercises.checks.state_dicts import Weights
from src.model.meta_device import on_meta_device
from src.training.optim import lr_at

BETAS, EPSILON = (0.9, 0.95), 1e-8
PARTS = ("weights", "means", "squares")


def new_run(weights: Weights, seed: int) -> dict[str, Any]:
    """A run that has not started yet."""
    empty = [{name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2)]
    generator = torch.Generator().manual_seed(seed)
    return {"weights": weights, "means": empty[0], "squares": empty[1], "step": 0, "generator": generator}


def copy_of(run: dict[str, Any]) -> dict[str, Any]:
    """A copy that shares nothing with the run."""
    generator = torch.Generator()
    generator.set_state(run["generator"].get_state())
    copies = {part: {name: value.detach().clone() for name, value in run[part].items()} for part in PARTS}
    return {**copies, "step": run["step"], "generator": generator}


def reference_step(
    run: dict[str, Any],
    ids: Tensor,
    config: dict[str, Any],
    settings: dict[str, Any],
    *,
    clip: bool = True,
    l2: bool = False,
    decay_all: bool = False,
    lr_step: int = 0,
    adam_step: int = 1,
) -> float:
    """One correct training step, in place; returns the loss.

    The keyword arguments make a mistake on purpose: no clipping, an L2 penalty in place of weight decay, weight decay
    on all parameters, or the learning rate or the bias correction of another step.
    """
    loss, gradients = _loss_and_gradients(run, ids, config, settings["batch_size"])
    if clip:
        scale = min(1.0, settings["max_norm"] / nn.utils.get_total_norm(gradients.values()).item())
        gradients = {name: gradient * scale for name, gradient in gradients.items()}
    lr = rate_of(settings, run["step"] + lr_step)
    for name, gradient in gradients.items():
        weight, mean, square = (run[part][name] for part in PARTS)
        decay = settings["weight_decay"] if decay_all or gradient.dim() == 2 else 0.0
        if l2:
            gradient, decay = gradient + decay * weight, 0.0
        _adamw(weight, mean, square, gradient, run["step"] + adam_step, lr, decay)
    run["step"] += 1
    return loss


def rate_of(settings: dict[str, Any], step: int) -> float:
    """The learning rate of a step, counted from 0."""
    return lr_at(step, **{name: settings[name] for name in ("max_lr", "min_lr", "warmup_steps", "steps")})


def _loss_and_gradients(
    run: dict[str, Any], ids: Tensor, config: dict[str, Any], batch_size: int
) -> tuple[float, dict[str, Tensor]]:
    """The loss of the project's model on the run's next batch, and its gradients by parameter name."""
    inputs, targets = _batch(run["generator"], ids, config["context_length"], batch_size)
    model = on_meta_device(config)
    model.load_state_dict({name: weight.clone() for name, weight in run["weights"].items()}, assign=True)
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def _batch(generator: torch.Generator, ids: Tensor, length: int, batch_size: int) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(ids) - length, (batch_size,), generator=generator)
    windows = torch.stack([ids[start : start + length + 1] for start in starts.tolist()])
    return windows[:, :-1], windows[:, 1:]


def _adamw(
    weight: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, step: int, lr: float, weight_decay: float
) -> None:
    """One step of torch's AdamW, which changes weight, mean and square."""
    adamw(
        [weight], [gradient], [mean], [square], [], [torch.tensor(float(step - 1))],
        foreach=False, amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=lr, weight_decay=weight_decay, eps=EPSILON,
        maximize=False,
    )  # fmt: skip


def reference_adam_update(gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """The update, the new mean and the new square of torch's AdamW; the arguments stay as they are."""
    weight, mean, square = torch.zeros_like(gradient), mean.clone(), square.clone()
    _adamw(weight, mean, square, gradient, step, lr=1.0, weight_decay=0.0)
    return -weight, mean, square
