"""The two checkpoints of a run, and when one may be resumed."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from src.checkpoint import BEST, LATEST, read_checkpoint, save_checkpoint
from src.training.run import Run, State

PREVIOUS_BEST = "best_model.previous.pt"
# What may differ between a run and the one that goes on with it.
_MAY_CHANGE = ("max_steps", "epochs", "eval_every", "patience", "device", "out", "log_dir", "resume", "compile", "data")


@dataclass
class RunCheckpoints:
    """Saves a run and restores it."""

    run: Run
    replaced: bool = field(default=False, init=False)  # whether an earlier run's best has been put aside

    def restore(self) -> State:
        """The state to start from: that of latest_model.pt where it is to be resumed, or a new one."""
        latest = self.run.flags.out / LATEST
        base = (self.run.stage.metadata.get("parent") or {}).get("path")
        if base and Path(base).resolve().parent == self.run.flags.out.resolve() and Path(base).name in (BEST, LATEST):
            raise ValueError(f"--out {self.run.flags.out} holds the model to start from, {base}; pass another --out")
        if self.run.flags.resume is False or (self.run.flags.resume is None and not latest.is_file()):
            return State()
        try:
            saved = read_checkpoint(latest)
        except ValueError as error:
            raise ValueError(f"{latest} cannot be resumed; pass --no-resume to start over ({error})") from error
        if not {"model", "optimizer", "run"} <= saved.keys():
            raise ValueError(f"{latest}: holds no run to resume; pass --no-resume to start over")
        if self.run.flags.resume is None and saved["run"]["finished"]:
            return State()
        if self.run.flags.precision == "auto" and saved["run"]["device"] == self.run.runtime.device.type:
            self.run.runtime = replace(
                self.run.runtime, precision=saved["run"]["identity"]["precision"], reason="as in the run that goes on"
            )
        self._refuse_other_run(latest, saved)
        self.run.model.load_state_dict(saved["model"])
        self.run.optimizer.load_state_dict(saved["optimizer"])
        self.run.scaler.load_state_dict(saved["run"]["scaler"])
        self.replaced = saved["run"]["state"]["best_step"] > 0
        return State(**saved["run"]["state"])

    def save_best(self, state: State) -> None:
        """The weights; what an earlier run left under this name is put aside first."""
        best = self.run.flags.out / BEST
        if not self.replaced and best.is_file():
            os.replace(best, best.with_name(PREVIOUS_BEST))
            print(f"{best}: what an earlier run left there is kept as {PREVIOUS_BEST}")
        self.replaced = True
        save_checkpoint(best, self._description(state))

    def save_latest(self, state: State, *, finished: bool) -> None:
        """All that an exact resume needs; `finished` says that there is nothing left to resume."""
        run = {
            "state": asdict(state),
            "scaler": self.run.scaler.state_dict(),
            "identity": self.identity,
            "device": self.run.runtime.device.type,
            "finished": finished,
        }
        content = {**self._description(state), "optimizer": self.run.optimizer.state_dict(), "run": run}
        save_checkpoint(self.run.flags.out / LATEST, content)

    def _description(self, state: State) -> dict[str, Any]:
        return {
            "stage": self.run.stage.name,
            "config": asdict(self.run.model.config),
            "epoch": state.step // self.run.plan.steps_per_epoch,
            "step": state.step,
            "train_loss": state.train_loss,
            "val_loss": state.eval_loss if self.run.stage.evaluated_on == "val" else None,
            "seed": self.run.flags.seed,
            "settings": plain_settings(self.run.flags),
            **self.run.stage.metadata,
            "model": self.run.model.state_dict(),
        }

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that the course of a run depends on."""
        settings = {k: v for k, v in plain_settings(self.run.flags).items() if k not in _MAY_CHANGE}
        parent = self.run.stage.metadata.get("parent") or {}
        return {
            **settings,
            "precision": self.run.runtime.precision,
            "model": asdict(self.run.model.config),
            "data": self.run.stage.loader.dataset.content_hash(),
            "base": parent.get("sha256"),
            "tokenizer": (self.run.stage.metadata.get("tokenizer") or {}).get("fingerprint"),
        }

    def _refuse_other_run(self, latest: Path, saved: Mapping[str, Any]) -> None:
        there, here = {"optimizer": "adamw", **saved["run"]["identity"]}, self.identity
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
