"""The optimizers and their learning rate."""

import math
from collections.abc import Iterable
from typing import Any

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


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> float:
    """Scale all gradients down to a joint norm of `most`, if it is more; returns what it was (Pascanu et al. 2013).

    As `clip_grad_norm_`, which also multiplies by one.
    """
    trained = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if norm > most:
        torch.nn.utils.clip_grads_with_norm_(trained, most, norm)
    return float(norm)


class MuonAndAdamW:
    """Muon (Jordan et al. 2024) for the matrices inside the blocks, AdamW for embeddings, biases and LayerNorms.

    Muon moves a matrix along its momentum made orthogonal. Its updates are scaled to the size of AdamW's (Liu et al.
    2025, "Muon is scalable for LLM training"), so that one learning rate serves both.
    """

    def __init__(self, model: nn.Module, *, max_lr: float, weight_decay: float) -> None:
        hidden, others = nn.ParameterList(), nn.ParameterList()
        for name, parameter in model.named_parameters():
            (hidden if name.startswith("h.") and parameter.dim() == 2 else others).append(parameter)
        self.muon = torch.optim.Muon(
            [p for p in hidden if p.requires_grad], max_lr, weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = make_adamw(others, max_lr=max_lr, weight_decay=weight_decay)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.muon.param_groups + self.adamw.param_groups

    def step(self) -> None:
        self.muon.step()
        self.adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


def lr_at(step: int, *, max_lr: float, min_lr: float, warmup_steps: int, steps: int) -> float:
    """Learning rate of a step counted from 0: linear warm-up that never is 0, then half a cosine down to min_lr.

    The last step has min_lr, unless the warm-up leaves it no step after the one with max_lr; a warm-up as long as the
    run or longer never reaches the cosine.
    """
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    share = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(math.pi * min(1.0, share)))
