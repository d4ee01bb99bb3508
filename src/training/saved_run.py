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
from src.distributed.sharding import fill
from src.model.gpt import GPTModel
from src.model.lora import trained_weights
from src.training.optim import Optimizer
from src.training.optimizer_state import restore_optimizer
from src.training.parts_saver import read_own_part
from src.training.stage import Progress

# The entries that a resume needs, besides "progress" and "step".
_TYPES = {
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
            restore_optimizer(optimizer, state["optimizer"], self.progress.step, skips_steps=scaler.is_enabled())
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
    """The run in the content of a checkpoint. The entries in "resume" are those that only a resume needs:

    {"model": {...}, "optimizer": {...}, "settings": {...}, "stage": "sft", "step": 7, "run_id": "...", ...,
     "resume": {"progress": {"step": 7, ...}, "scaler": {}, "identity": {...}, "device": "cpu", "finished": False}}

    Version 0.1 named "resume" "run", and "progress" "state".
    """
    resume = content.get("resume", content.get("run"))
    if not isinstance(resume, dict):
        raise ValueError("holds no run")
    entries = {**resume, **content, "run_id": content.get("run_id", ""), "stage": content.get("stage")}
    for name, type_ in _TYPES.items():
        _require(isinstance(entries.get(name), type_), name, entries.get(name), type_.__name__)
    progress = _parse_progress(resume.get("progress", resume.get("state")))
    step = entries.get("step")
    _require(is_whole_number(step) and step == progress.step, "step", step, f"{progress.step}, as in 'progress'")
    settings, identity = entries["settings"], entries["identity"]
    _check_settings(settings, identity)
    return SavedRun(
        path=path,
        progress=progress,
        model=entries["model"],
        optimizer=entries["optimizer"],
        scaler=entries["scaler"],
        identity={"stage": entries["stage"], **identity},
        settings=settings,
        device=entries["device"],
        finished=entries["finished"],
        run_id=entries["run_id"],
    )


def _check_settings(settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    for name, values in (("settings", settings), ("identity", identity)):
        _require(_is_plain(values), name, values, "plain values")
    epochs, max_steps, precision = settings.get("epochs"), settings.get("max_steps"), identity.get("precision")
    _require(is_count(epochs), "epochs", epochs, "a count")
    _require(max_steps is None or is_count(max_steps), "max_steps", max_steps, "a count or None")
    _require(precision in ("fp32", "bf16", "fp16"), "precision", precision, "fp32, bf16 or fp16")


def _parse_progress(state: object) -> Progress:
    """The progress in a checkpoint.

    Raises ValueError for an entry that is missing, unknown, of another type, or inconsistent with the others.
    """
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
    """Whether a value holds only texts, numbers, None, and lists and dicts of them."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, str | int | float | None) or (
        isinstance(value, list | tuple) and all(map(_is_plain, value))
    )


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"'{name}' is {_short(found)}, expected {expected}")


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
    """The error for a saved run that is damaged or does not fit, with its reason and the flag that starts over."""
    return ValueError(f"{path} cannot be resumed; pass --no-resume to start over ({one_line(error)})")


def _short(value: object) -> str:
    text = str(value) if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."
