"""The two checkpoints of a run, and the resume point that latest_model.pt holds."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.checkpoint import BEST, LATEST, read_checkpoint, save_checkpoint
from src.model.config import GPTConfig
from src.training.flags import TrainingFlags
from src.training.stage import Progress, Stage, TrainingRun

PREVIOUS_BEST = "best_model.previous.pt"
# Settings that may change on resume. "data" is the path; `run_identity` hashes the content, which may not change.
_MAY_CHANGE = (
    "max_steps",
    "epochs",
    "eval_every",
    "patience",
    "device",
    "out",
    "log_dir",
    "resume",
    "compile",
    "data",
    "skip_bad",
    "show_data",
    "show_mask",
)


@dataclass(frozen=True)
class ResumePoint:
    """A saved run: everything that an exact resume needs."""

    path: Path
    progress: Progress
    model: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    identity: Mapping[str, Any]
    device: str

    def refuse_other_run(self, identity: Mapping[str, Any]) -> None:
        """Raises ValueError naming every setting that differs from the saved run's."""
        saved = {"optimizer": "adamw", **self.identity}  # version 0.1 had no other optimizer, and did not save its name
        changed = [name for name, value in identity.items() if saved.get(name) != value]
        if changed:
            details = ", ".join(
                f"{name} {_short(saved.get(name))} in the file, {_short(identity[name])} now" for name in changed
            )
            raise ValueError(
                f"{self.path}: an unfinished run with other settings ({details}); "
                "pass its settings to resume it, --no-resume to start over, or another --out"
            )


def find_resume_point(stage: Stage, flags: TrainingFlags) -> ResumePoint | None:
    """The run to resume from --out, or None to start a new run.

    Raises ValueError for a file that cannot be resumed, and if --out holds the model to start from; FileNotFoundError
    for --resume without a file.
    """
    _refuse_folder_of_base(stage, flags.out)
    path = flags.out / LATEST
    if flags.resume is False or (flags.resume is None and not path.is_file()):
        return None
    try:
        saved = read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be resumed; pass --no-resume to start over ({error})") from error
    resume = saved.get("resume") or saved.get("run")  # version 0.1 wrote "run"
    if not resume or not {"model", "optimizer"} <= saved.keys():
        raise ValueError(f"{path}: holds no run to resume; pass --no-resume to start over")
    if flags.resume is None and resume["finished"]:
        return None
    progress = Progress(**(resume.get("progress") or resume["state"]))  # version 0.1 wrote "state"
    restored = {name: resume[name] for name in ("scaler", "identity", "device")}
    return ResumePoint(path, progress, saved["model"], saved["optimizer"], **restored)


def run_identity(stage: Stage, config: GPTConfig, flags: TrainingFlags, precision: str) -> dict[str, Any]:
    """Everything that determines the result of a run: settings, precision, model, data, base and tokenizer."""
    parent = stage.metadata.get("parent") or {}
    return {
        **{name: value for name, value in plain_settings(flags).items() if name not in _MAY_CHANGE},
        "precision": precision,
        "model": asdict(config),
        "data": stage.loader.dataset.content_hash(),
        "base": parent.get("weights_sha256"),
        "tokenizer": (stage.metadata.get("tokenizer") or {}).get("fingerprint"),
    }


@dataclass
class RunCheckpoints:
    """Saves best_model.pt and latest_model.pt of a run."""

    run: TrainingRun
    owns_best: bool  # whether best_model.pt is from this run, not from an earlier one

    def save_best(self, progress: Progress) -> None:
        """Save the weights. The best model of an earlier run is renamed first."""
        best = self.run.flags.out / BEST
        if not self.owns_best and best.is_file():
            os.replace(best, best.with_name(PREVIOUS_BEST))
            print(f"{best}: the best model of an earlier run is now {PREVIOUS_BEST}")
        self.owns_best = True
        save_checkpoint(best, self._shared_content(progress))

    def save_latest(self, progress: Progress, *, finished: bool) -> None:
        """Save everything that an exact resume needs; `finished`: there is nothing left to resume."""
        resume = {
            "progress": asdict(progress),
            "scaler": self.run.scaler.state_dict(),
            "identity": dict(self.run.identity),
            "device": self.run.runtime.device.type,
            "finished": finished,
        }
        content = {**self._shared_content(progress), "optimizer": self.run.optimizer.state_dict(), "resume": resume}
        save_checkpoint(self.run.flags.out / LATEST, content)

    def _shared_content(self, progress: Progress) -> dict[str, Any]:
        stage, model, flags = self.run.stage, self.run.model, self.run.flags
        return {
            "stage": stage.name,
            "config": asdict(model.config),
            "epoch": progress.step // self.run.schedule.steps_per_epoch,
            "step": progress.step,
            "train_loss": progress.train_loss,
            "val_loss": progress.eval_loss if stage.evaluated_on == "val" else None,
            "seed": flags.seed,
            "first_loss": progress.first_loss,
            "best_loss": progress.best_loss,
            "settings": plain_settings(flags),
            "data_sha256": self.run.identity["data"],
            "summary": dict(stage.summary_rows),
            **stage.metadata,
            "model": model.state_dict(),
        }


def plain_settings(flags: TrainingFlags) -> dict[str, Any]:
    """The flags as values that JSON and a checkpoint can hold."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(flags).items()}


def _refuse_folder_of_base(stage: Stage, out: Path) -> None:
    """Raises ValueError if saving this run would overwrite the model that it starts from."""
    base = (stage.metadata.get("parent") or {}).get("path")
    if base and Path(base).resolve().parent == out.resolve() and Path(base).name in (BEST, LATEST):
        raise ValueError(f"--out {out} holds the model to start from, {base}; pass another --out")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
