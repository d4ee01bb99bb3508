"""Restore a saved optimizer state. Every buffer is checked first: a wrong one would spoil the run without an error."""

from collections.abc import Mapping
from typing import Any

import torch

from src.distributed.sharding import distribute_like, to_local
from src.training.optim import MuonAndAdamW, Optimizer


def restore_optimizer(optimizer: Optimizer, saved: Mapping[str, Any], step: int, *, skips_steps: bool) -> None:
    """Load an optimizer state of step `step`. The learning rate and other settings stay those of the optimizer.

    skips_steps: some steps may have been skipped, as fp16 does if gradients overflow.
    Raises ValueError, before anything is loaded, if the state does not belong to these parameters.
    """
    pairs: list[tuple[torch.optim.Optimizer, object]] = [(optimizer, saved)]
    if isinstance(optimizer, MuonAndAdamW):
        pairs = [(optimizer.muon, saved.get("muon")), (optimizer.adamw, saved.get("adamw"))]
    checked = [(each, _checked_state(each, state, step, skips_steps)) for each, state in pairs]
    for each, state in checked:
        parameters = _parameters(each)
        own = {
            number: {name: distribute_like(buffer, parameters[number]) for name, buffer in buffers.items()}
            for number, buffers in state.items()
        }
        each.load_state_dict({"state": own, "param_groups": each.state_dict()["param_groups"]})


def _checked_state(optimizer: torch.optim.Optimizer, saved: object, step: int, skips_steps: bool) -> dict[int, Any]:
    """The buffers in a saved state dict, by the number of the parameter.

    Raises ValueError unless every parameter has its own buffers, finite and fp32, and has taken `step` updates.
    """
    state = saved.get("state") if isinstance(saved, dict) else None
    if state == {} and (step == 0 or skips_steps):  # before its first update, an optimizer has no buffers
        return {}
    parameters = _parameters(optimizer)
    if not isinstance(state, dict) or state.keys() != set(range(len(parameters))):
        raise ValueError(f"'optimizer' does not have the state of {len(parameters)} parameters")
    for number, parameter in enumerate(parameters):
        shapes = _buffer_shapes(optimizer, parameter)
        if not isinstance(state[number], dict) or state[number].keys() != shapes.keys():
            raise ValueError(f"'optimizer' must have {', '.join(shapes)} of parameter {number}, and no more")
        for name, shape in shapes.items():
            _check_buffer(f"{name} of parameter {number}", state[number][name], shape)
        updates = float(state[number].get("step", step))
        if updates != step and not (skips_steps and 1 <= updates < step):
            raise ValueError(f"'optimizer' has taken {updates:g} steps, the run {step}")
    return state


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _buffer_shapes(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Size]:
    """What the optimizer stores for a parameter."""
    if isinstance(optimizer, torch.optim.Muon):
        return {"momentum_buffer": parameter.shape}
    return {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}


def _check_buffer(name: str, buffer: object, shape: torch.Size) -> None:
    if not isinstance(buffer, torch.Tensor) or buffer.shape != shape or buffer.dtype != torch.float32:
        raise ValueError(f"'optimizer': {name} must be a float32 tensor of shape {tuple(shape)}")
    own = to_local(buffer)
    if not own.numel():
        return
    lowest, highest = own.aminmax()
    if not (lowest.isfinite() and highest.isfinite()) or (lowest < 0 and name.startswith("exp_avg_sq")):
        raise ValueError(f"'optimizer': {name} has impossible values, from {lowest:g} to {highest:g}")
