"""The run saved in latest_model.pt: read, checked field by field, and restored. Nothing in the file is trusted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from src.checkpoint import check_weights, read_checkpoint
from src.checkpoint.files import read_without_parts
from src.checkpoint.parts import Parts, put_tensors
from src.common.checks import is_count, is_number, is_whole_number
from src.common.messages import one_line
from src.distributed.sharding import fill, local_part, part_of
from src.model.gpt import GPTModel
from src.model.lora import trained_weights
from src.training.optim import MuonAndAdamW, Optimizer
from src.training.parts_saver import read_own_part
from src.training.stage import Progress

# The entries that a resume needs, besides "progress", and their types.
_KINDS = {
    "model": dict,
    "optimizer": dict,
    "scaler": dict,
    "identity": dict,
    "settings": dict,
    "device": str,
    "finished": bool,
    "run_id": str,
    "stage": str,
}


@dataclass(frozen=True)
class SavedRun:
    """A saved run: everything that an exact resume needs."""

    path: Path
    progress: Progress
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    identity: Mapping[str, Any]
    device: str
    finished: bool
    settings: Mapping[str, Any]
    run_id: str
    parts: Parts | None = None  # the files with the tensors of model and optimizer, if each process reads its part

    def restore(self, model: GPTModel, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Load the weights, the optimizer state and the loss scale.

        Raises ValueError, before the model is changed, if they do not fit.
        """
        try:
            state = {"model": self.model, "optimizer": self.optimizer}
            if self.parts:
                put_tensors(state, read_own_part(self.parts, model, optimizer))
            check_weights(trained_weights(model), state["model"])
            _restore_optimizer(optimizer, state["optimizer"], self.progress.step, skips_steps=scaler.is_enabled())
            _restore_scaler(scaler, self.scaler)
        except ValueError as error:
            raise not_resumable(self.path, error) from error
        fill(model, state["model"].items())


def read_saved_run(path: Path, *, sharded: bool = False) -> SavedRun:
    """The run in a latest_model.pt. sharded: under FSDP, `restore` reads only this process's part of the tensors.

    Raises FileNotFoundError, or ValueError with one line if anything that a resume needs is missing or impossible.
    """
    try:
        if not sharded:
            return _parse(path, read_checkpoint(path))
        content, parts = read_without_parts(path, mapped=True)
        return replace(_parse(path, content), parts=parts)
    except ValueError as error:
        raise not_resumable(path, error) from error


def _parse(path: Path, content: Mapping[str, Any]) -> SavedRun:
    """The run in the content of a checkpoint. Version 0.1 named its entries "run" and "state"."""
    resume = content.get("resume", content.get("run"))
    if not isinstance(resume, dict):
        raise ValueError("holds no run")
    entries = {**resume, **content, "run_id": content.get("run_id", ""), "stage": content.get("stage")}
    for name, kind in _KINDS.items():
        _require(isinstance(entries.get(name), kind), name, entries.get(name), kind.__name__)
    progress = _parse_progress(resume.get("progress", resume.get("state")))
    step = entries.get("step")
    _require(is_whole_number(step) and step == progress.step, "step", step, f"{progress.step}, as in 'progress'")
    for name in ("settings", "identity"):
        _require(_is_plain(entries[name]), name, entries[name], "plain values")
    settings, identity = entries["settings"], {"stage": entries["stage"], **entries["identity"]}
    epochs, max_steps, precision = settings.get("epochs"), settings.get("max_steps"), identity.get("precision")
    _require(is_count(epochs), "epochs", epochs, "a count")
    _require(max_steps is None or is_count(max_steps), "max_steps", max_steps, "a count or None")
    _require(precision in ("fp32", "bf16", "fp16"), "precision", precision, "fp32, bf16 or fp16")
    parts = {name: entries[name] for name in _KINDS if name != "stage"}
    return SavedRun(**{**parts, "path": path, "progress": progress, "identity": identity})


def _parse_progress(state: object) -> Progress:
    """Raises ValueError for a field that is missing, unknown, of another type, or inconsistent with the others."""
    names = {field.name for field in fields(Progress)}
    if not isinstance(state, dict) or state.keys() != names:
        found = state.keys() if isinstance(state, dict) else set()
        raise ValueError(f"'progress' has missing or unknown entries: {_short(', '.join(map(str, names ^ found)))}")
    step, best_step, best_loss = state["step"], state["best_step"], state["best_loss"]
    _require(is_whole_number(step) and step >= 0, "step", step, "a count")
    for name in ("best_step", "stale_evaluations", "loss_count"):
        value = state[name]
        _require(is_whole_number(value) and 0 <= value <= step, name, value, f"0 to {step}, the step")
    for name in ("first_loss", "train_loss", "eval_loss"):
        _require(is_number(state[name]) or state[name] is None, name, state[name], "a finite number or None")
    _require(is_number(state["loss_sum"]), "loss_sum", state["loss_sum"], "a finite number")
    no_best = not best_step and isinstance(best_loss, float) and best_loss == math.inf
    _require(no_best or (best_step and is_number(best_loss)), "best_loss", best_loss, f"the loss of step {best_step}")
    _require(step == 0 or state["first_loss"] is not None, "first_loss", None, "a number after the first step")
    return Progress(**state)


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, str | int | float | None) or (
        isinstance(value, list | tuple) and all(map(_is_plain, value))
    )


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"'{name}' is {_short(found)}, expected {expected}")


def _restore_optimizer(optimizer: Optimizer, saved: Mapping[str, Any], step: int, *, skips_steps: bool) -> None:
    """Load an optimizer state of step `step`. The learning rate and other settings stay those of the optimizer.

    skips_steps: some steps may have been skipped, as fp16 does if gradients overflow.
    Raises ValueError if the state does not belong to these parameters.
    """
    parts: list[tuple[torch.optim.Optimizer, object]] = [(optimizer, saved)]
    if isinstance(optimizer, MuonAndAdamW):
        parts = [(optimizer.muon, saved.get("muon")), (optimizer.adamw, saved.get("adamw"))]
    loadable = [(part, _checked_state(part, state, step, skips_steps)) for part, state in parts]
    for part, state in loadable:
        parameters = [parameter for group in part.param_groups for parameter in group["params"]]
        own = {i: {name: part_of(value, parameters[i]) for name, value in state[i].items()} for i in state}
        part.load_state_dict({"state": own, "param_groups": part.state_dict()["param_groups"]})


def _checked_state(optimizer: torch.optim.Optimizer, saved: object, step: int, skips_steps: bool) -> dict[int, Any]:
    """The buffers in a saved state dict. Raises ValueError unless every parameter has its own, finite and fp32."""
    state = saved.get("state") if isinstance(saved, dict) else None
    if state == {} and (step == 0 or skips_steps):
        return {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not isinstance(state, dict) or state.keys() != set(range(len(parameters))):
        raise ValueError(f"'optimizer' does not have the state of {len(parameters)} parameters")
    for number, parameter in enumerate(parameters):
        shapes = {"momentum_buffer": parameter.shape}
        if not isinstance(optimizer, torch.optim.Muon):
            shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        if not isinstance(state[number], dict) or state[number].keys() != shapes.keys():
            raise ValueError(f"'optimizer' must have {', '.join(shapes)} of parameter {number}, and no more")
        for name, shape in shapes.items():
            _check_buffer(f"{name} of parameter {number}", state[number][name], shape)
        updates = float(state[number].get("step", step))
        if updates != step and not (skips_steps and 1 <= updates < step):
            raise ValueError(f"'optimizer' has taken {updates:g} steps, the run {step}")
    return state


def _check_buffer(name: str, buffer: object, shape: torch.Size) -> None:
    if not isinstance(buffer, torch.Tensor) or buffer.shape != shape or buffer.dtype != torch.float32:
        raise ValueError(f"'optimizer': {name} must be a float32 tensor of shape {tuple(shape)}")
    own = local_part(buffer)
    if not own.numel():
        return
    lowest, highest = own.aminmax()
    if not (lowest.isfinite() and highest.isfinite()) or (lowest < 0 and name.startswith("exp_avg_sq")):
        raise ValueError(f"'optimizer': {name} has impossible values, from {lowest:g} to {highest:g}")


def _restore_scaler(scaler: torch.amp.GradScaler, saved: Mapping[str, Any]) -> None:
    """Load the loss scale of fp16; other precisions save none. Raises ValueError if it is not usable."""
    names = scaler.state_dict().keys()
    if saved.keys() != names:
        raise ValueError(f"'scaler' must have {', '.join(names) or 'no entries'}")
    for name, value in saved.items():
        lowest = 0.0 if name == "_growth_tracker" else 1e-30
        _require(is_number(value) and lowest <= value <= 1e30, name, value, "a number above 0")
    if names:
        scaler.load_state_dict(dict(saved))


def not_resumable(path: Path, error: ValueError) -> ValueError:
    return ValueError(f"{path} cannot be resumed; pass --no-resume to start over ({one_line(error)})")


def _short(value: object) -> str:
    text = str(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."
