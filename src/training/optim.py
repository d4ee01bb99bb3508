"""The optimizers, gradient clipping and the learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from src.training.muon import Muon

Optimizer: TypeAlias = Any  # a torch.optim.Optimizer, or MuonAndAdamW, which works like one
LRDecay: TypeAlias = Literal["cosine", "linear"]
GPT3_BETA1, GPT3_BETA2 = 0.9, 0.95
# With Muon, AdamW has a smaller beta1, and the embeddings a higher learning rate: found by trials at micro's size.
BETA1_WITH_MUON, EMBEDDING_LR_SCALE, MUON_MOMENTUM = 0.8, 3.0, 0.9


def make_optimizer(
    kind: Literal["adamw", "muon"],
    model: nn.Module,
    *,
    max_lr: float,
    weight_decay: float,
    beta2: float = GPT3_BETA2,
) -> Optimizer:
    """The optimizer that --optimizer names."""
    make = MuonAndAdamW if kind == "muon" else make_adamw
    return make(model, max_lr=max_lr, weight_decay=weight_decay, beta2=beta2)


def optimizer_parts(optimizer: Optimizer) -> list[torch.optim.Optimizer]:
    """The PyTorch optimizers in an optimizer."""
    return [optimizer.muon, optimizer.adamw] if isinstance(optimizer, MuonAndAdamW) else [optimizer]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices, embeddings included, with weight decay; biases and LayerNorms without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def make_adamw(
    model: nn.Module, *, max_lr: float, weight_decay: float, beta1: float = GPT3_BETA1, beta2: float = GPT3_BETA2
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019), by default with GPT-3's betas, fused if the device supports it.

    GPT-3's batches have millions of tokens. With a few thousand, a larger beta2 averages over more steps and learns
    faster (Marek et al. 2025, "Small batch size training for language models").
    """
    fused = next(model.parameters()).device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=max_lr, betas=(beta1, beta2), fused=fused)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients to a total norm of at most `max_norm` (Pascanu et al. 2013); returns the norm before.

    The same as `clip_grad_norm_`, except that gradients within the limit are left alone instead of multiplied by one.
    """
    trained = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if norm > max_norm:
        torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
    return float(norm)


class MuonAndAdamW:
    """Muon for the matrices inside the blocks, AdamW for embeddings, biases and LayerNorms.

    Muon's updates are as large as AdamW's, so both have the same learning rate. The embeddings learn faster with three
    times that rate.
    """

    def __init__(self, model: nn.Module, *, max_lr: float, weight_decay: float, beta2: float = GPT3_BETA2) -> None:
        hidden: dict[str, nn.Parameter] = {}
        others = nn.ParameterList()
        for name, parameter in model.named_parameters():
            if not (name.startswith("h.") and parameter.dim() == 2):
                others.append(parameter)
            elif parameter.requires_grad:
                hidden[name] = parameter
        fused = [parameter for name, parameter in hidden.items() if "c_attn" in name]
        self.muon = Muon(list(hidden.values()), fused, lr=max_lr, weight_decay=weight_decay, momentum=MUON_MOMENTUM)
        self.adamw = make_adamw(others, max_lr=max_lr, weight_decay=weight_decay, beta1=BETA1_WITH_MUON, beta2=beta2)
        self.adamw.param_groups[0]["lr_scale"] = EMBEDDING_LR_SCALE

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


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups; a group with an `lr_scale` has that multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def lr_at(
    step: int, *, max_lr: float, min_lr: float, warmup_steps: int, steps: int, decay: LRDecay = "cosine"
) -> float:
    """Learning rate of a step counted from 0: linear warm-up, starting above 0, then decay to min_lr.

    Step `warmup_steps` has max_lr and the last step has min_lr. A warm-up as long as the run never reaches the decay.
    """
    if step < warmup_steps:
        return max_lr * (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
    remaining = 1 - progress if decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return min_lr + (max_lr - min_lr) * remaining
