"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalised before the update."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from src.distributed.sharding import distribute_like, full_tensor
from src.runtime import has_bf16_products

MAX_STACK_ELEMENTS = 2**22  # orthogonalised together; one large matrix already uses all cores
# The quintic iteration of Jordan et al. 2024 brings singular values to between 0.7 and 1.2.
COEFFICIENTS, ITERATIONS, EPS = (3.4445, -4.7750, 2.0315), 5, 1e-7


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` for GPT-2: the same update, with two differences.

    Queries, keys and values are stored as one matrix, but orthogonalised separately: they are three linear maps.
    Matrices of the same shape are orthogonalised together, which takes half the time at micro's size.
    An update is scaled by 0.2 sqrt(longer side), which makes its root mean square that of AdamW's updates (Liu et al.
    2025, "Muon is scalable for LLM training").

    fused: the matrices (3 C, C) that hold queries, keys and values.
    """

    def __init__(self, matrices: Sequence[Tensor], fused: Sequence[Tensor], **settings: Any) -> None:
        super().__init__(matrices, **settings)
        self._fused = {id(matrix) for matrix in fused}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one optimizer step. `closure` is ignored."""
        for group in self.param_groups:
            for parameters in self._stacks([p for p in group["params"] if p.grad is not None]):
                self._update(parameters, group)

    def _update(self, parameters: Sequence[Tensor], group: Mapping[str, Any]) -> None:
        """Update a stack of parameters, with the settings of their group."""
        momenta = torch.stack([self._momentum(p, group["momentum"]) for p in parameters])
        _, rows, columns = momenta.shape
        if id(parameters[0]) in self._fused:
            rows //= 3
        updates = orthogonalise(momenta.view(-1, rows, columns)).reshape(momenta.shape)
        step_size = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(distribute_like(update, parameter), alpha=-step_size)

    def _stacks(self, parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """The parameters in stacks of one kind and shape, each as large as MAX_STACK_ELEMENTS allows."""
        by_shape: dict[tuple[torch.Size, bool], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape, id(parameter) in self._fused].append(parameter)
        for (shape, _), alike in by_shape.items():
            at_once = max(1, MAX_STACK_ELEMENTS // shape.numel())
            yield from (alike[start : start + at_once] for start in range(0, len(alike), at_once))

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """The Nesterov momentum of a parameter: the whole matrix, even if this process holds only a shard."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return full_tensor(gradient.lerp(average, momentum))


def orthogonalise(matrices: Tensor) -> Tensor:
    """(N, rows, columns) to the same with all singular values near 1: Newton-Schulz (Jordan et al. 2024).

    Computes and returns bf16, whose digits suffice for it, or fp32 if the device is slow in bf16.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).to(
        torch.bfloat16 if has_bf16_products(matrices.device) else torch.float32
    )
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)  # all singular values at most 1
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
