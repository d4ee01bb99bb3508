"""The two checkpoints of a run, and when one may be resumed."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from src.checkpoint import BEST, LATEST, read_checkpoint, save_checkpoint
from src.runtime import Runtime
from src.training.loop import Plan, State

PREVIOUS = "best_model.previous.pt"
# What may differ between a run and the one that goes on with it.
_MAY_CHANGE = ("max_steps", "epochs", "eval_every", "patience", "device", "out", "log_dir", "resume", "compile", "data")


@dataclass
class Keeper:
    """Saves a run of a stage (src.training.stage.Stage) and restores it."""

    stage: Any
    model: Any
    flags: Any
    runtime: Runtime
    plan: Plan
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    replaced: bool = field(default=False, init=False)  # whether an earlier run's best has been put aside

    def restore(self) -> State:
        """The state to start from: that of latest_model.pt where it is to be resumed, or a new one."""
        latest = self.flags.out / LATEST
        base = (self.stage.metadata.get("parent") or {}).get("path")
        if base and Path(base).resolve().parent == self.flags.out.resolve() and Path(base).name in (BEST, LATEST):
            raise ValueError(f"--out {self.flags.out} holds the model to start from, {base}; pass another --out")
        if self.flags.resume is False or (self.flags.resume is None and not latest.is_file()):
            return State()
        try:
            saved = read_checkpoint(latest)
        except ValueError as error:
            raise ValueError(f"{latest} cannot be resumed; pass --no-resume to start over ({error})") from error
        if not {"model", "optimizer", "run"} <= saved.keys():
            raise ValueError(f"{latest}: holds no run to resume; pass --no-resume to start over")
        if self.flags.resume is None and saved["run"]["finished"]:
            return State()
        if self.flags.precision == "auto" and saved["run"]["device"] == self.runtime.device.type:
            self.runtime = replace(
                self.runtime, precision=saved["run"]["identity"]["precision"], reason="as in the run that goes on"
            )
        self._refuse_other_run(latest, saved)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["run"]["scaler"])
        self.replaced = saved["run"]["state"]["best_step"] > 0
        return State(**saved["run"]["state"])

    def save_best(self, state: State) -> None:
        best = self.flags.out / BEST
        if not self.replaced and best.is_file():
            os.replace(best, best.with_name(PREVIOUS))
        self.replaced = True
        save_checkpoint(best, self._description(state))

    def save_latest(self, state: State, *, finished: bool) -> None:
        run = {
            "state": asdict(state),
            "scaler": self.scaler.state_dict(),
            "identity": self.identity,
            "device": self.runtime.device.type,
            "finished": finished,
        }
        content = {**self._description(state), "optimizer": self.optimizer.state_dict(), "run": run}
        save_checkpoint(self.flags.out / LATEST, content)

    def _description(self, state: State) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "config": asdict(self.model.config),
            "epoch": state.step // self.plan.steps_per_epoch,
            "step": state.step,
            "train_loss": state.train_loss,
            "val_loss": state.eval_loss if self.stage.evaluated_on == "val" else None,
            "seed": self.flags.seed,
            "settings": plain_settings(self.flags),
            **self.stage.metadata,
            "model": self.model.state_dict(),
        }

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that the course of a run depends on."""
        settings = {k: v for k, v in plain_settings(self.flags).items() if k not in _MAY_CHANGE}
        parent = self.stage.metadata.get("parent") or {}
        return {
            **settings,
            "precision": self.runtime.precision,
            "model": asdict(self.model.config),
            "data": self.stage.loader.dataset.fingerprint(),
            "base": parent.get("sha256"),
            "tokenizer": (self.stage.metadata.get("tokenizer") or {}).get("fingerprint"),
        }

    def _refuse_other_run(self, latest: Path, saved: Mapping[str, Any]) -> None:
        there, here = saved["run"]["identity"], self.identity
        changed = [name for name in here if there.get(name) != here[name]]
        if changed:
            details = ", ".join(
                f"{name} {_short(there.get(name))} there, {_short(here[name])} here" for name in changed
            )
            raise ValueError(
                f"{latest}: an unfinished run with other settings ({details}); "
                "pass its settings to go on, --no-resume to start over, or another --out"
            )


def plain_settings(flags: Any) -> dict[str, Any]:
    """The flags as values that JSON and a checkpoint can hold."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(flags).items()}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
