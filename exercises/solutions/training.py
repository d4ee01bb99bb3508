"""Worked answers to exercises 50 to 56, explained in training.md. Try the exercises first."""

import math
from pathlib import Path

import torch
from torch import Tensor

from exercises.solutions.gpt import gpt_logits, initial_weights
from exercises.solutions.losses import cross_entropy, next_token_batch


def adam_update(gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's update, and the new mean and square, with betas 0.9 and 0.95 and epsilon 1e-8."""
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.95 * square + 0.05 * gradient**2
    corrected_mean, corrected_square = mean / (1 - 0.9**step), square / (1 - 0.95**step)
    return corrected_mean / (torch.sqrt(corrected_square) + 1e-8), mean, square


def learning_rate(step: int, max_lr: float, min_lr: float, warmup_steps: int, steps: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then cosine decay to min_lr in the last step."""
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (steps - 1 - warmup_steps)
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def clip_gradients(gradients: list[Tensor], max_norm: float) -> tuple[list[Tensor], float]:
    """The gradients, scaled to a global norm of at most max_norm, and the norm that they had before."""
    norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients))
    scale = min(1.0, max_norm / norm) if norm > 0 else 1.0
    return [gradient * scale for gradient in gradients], norm


def train_step(run: dict, ids: Tensor, config: dict, settings: dict) -> float:
    """One training step of the run, which it changes; returns the loss of the batch before the update."""
    length = config["context_length"]
    starts = torch.randint(len(ids) - length, (settings["batch_size"],), generator=run["generator"])
    inputs, targets = next_token_batch(ids, starts, length)  # (B, T) each

    weights = {name: weight.detach().requires_grad_() for name, weight in run["weights"].items()}
    loss = cross_entropy(gpt_logits(inputs, weights, config).flatten(0, 1), targets.flatten())
    gradients, _ = clip_gradients(list(torch.autograd.grad(loss, list(weights.values()))), settings["max_norm"])

    schedule = {name: settings[name] for name in ("max_lr", "min_lr", "warmup_steps", "steps")}
    lr = learning_rate(run["step"], **schedule)
    run["step"] += 1
    for (name, weight), gradient in zip(run["weights"].items(), gradients, strict=True):
        update, mean, square = adam_update(gradient, run["means"][name], run["squares"][name], run["step"])
        weight_decay = settings["weight_decay"] if weight.dim() == 2 else 0.0
        run["weights"][name] = weight - lr * (update + weight_decay * weight)
        run["means"][name], run["squares"][name] = mean, square
    return loss.item()


def save_run(run: dict, path: Path) -> None:
    """Write the run to a file: the same dict, with the generator's state in place of the generator."""
    torch.save({**run, "generator": run["generator"].get_state()}, path)


def load_run(path: Path) -> dict:
    """The run that `save_run` wrote to the file, ready to continue."""
    run = torch.load(path, weights_only=True)
    generator = torch.Generator()
    generator.set_state(run["generator"])
    return {**run, "generator": generator}


def pretrain(ids: Tensor, config: dict, settings: dict, path: Path, until: int) -> tuple[dict, list[float]]:
    """Train until `until` steps are finished, and save the run at `path`; returns it and the loss of each new step."""
    run = load_run(path) if path.exists() else _new_run(config, settings["seed"])
    losses = [train_step(run, ids, config, settings) for _ in range(run["step"], until)]
    save_run(run, path)
    return run, losses


def _new_run(config: dict, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    weights = initial_weights(config, generator)
    means, squares = ({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
    return {"weights": weights, "means": means, "squares": squares, "step": 0, "generator": generator}
