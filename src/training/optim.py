"""The optimizer and its learning rate."""

import math

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on matrices (embeddings among them), none on biases and LayerNorms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def make_adamw(model: nn.Module, *, max_lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) with the betas of GPT-3, in its fused form where the device has one."""
    fused = next(model.parameters()).device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=max_lr, betas=(0.9, 0.95), fused=fused)


def lr_at(step: int, *, max_lr: float, min_lr: float, warmup_steps: int, steps: int) -> float:
    """Learning rate of a step counted from 0: linear warm-up that never is 0, then half a cosine down to min_lr.

    The last step has min_lr, unless the warm-up leaves it no step after the one with max_lr; a warm-up as long as the
    run or longer never reaches the cosine.
    """
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    share = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(math.pi * min(1.0, share)))
