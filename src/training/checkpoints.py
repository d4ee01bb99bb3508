"""The checkpoints of a run: best_model.pt, latest_model.pt, and the recent saves that --keep asks for."""

import filecmp
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from src.checkpoint import BEST, LATEST, read_checkpoint, save_checkpoint
from src.common.atomic_file import atomic_write
from src.common.checks import is_number
from src.common.disk import require_free_space
from src.common.messages import one_line
from src.distributed.environment import is_first
from src.distributed.sharding import gathered
from src.model.gpt import GPTModel
from src.model.lora import ADAPTER, adapter_of, merged_weights, trained_weights
from src.training.flags import plain_settings
from src.training.parts_saver import PartsSaver, remove_unused_parts
from src.training.stage import Progress, TrainingRun


@dataclass
class RunCheckpoints:
    """Saves the checkpoints of a run. Never overwrites the best model of another run."""

    run: TrainingRun
    owns_latest: bool  # whether latest_model.pt is from this run, not from an earlier one
    best_loss: float | None  # of best_model.pt; None if it is not from this run
    _parts: PartsSaver | None = None

    def save_best(self, progress: Progress) -> None:
        """Save the weights as best_model.pt.

        The model there is first set aside if it is from an earlier run, or better than this one. A better one of this
        run exists if the user went back to an older latest_model.pt.
        """
        best = self.run.flags.out / BEST
        must_keep = best.is_file() and (self.best_loss is None or progress.best_loss > self.best_loss)
        owner = "an earlier run" if self.best_loss is None else "a later step"
        self.wait()  # so that a restart knows whose best_model.pt it finds
        previous = None
        with gathered(self.run.model, self.run.flags.out) as weights:
            if is_first():
                previous = set_aside(best) if must_keep else None
                save_checkpoint(best, {**self._description(progress), **_whole_model(self.run.model, weights)})
        self.best_loss = progress.best_loss
        if previous:
            print(f"{best}: the best model of {owner} is now {previous.name}")

    def save_latest(self, progress: Progress) -> None:
        """Save everything that an exact resume needs, and a copy if --keep asks for it.

        With --lora, the weights are those of the adapter only: the command that resumes loads the base again.
        """
        resume = {
            "progress": asdict(progress),
            "scaler": self.run.scaler.state_dict(),
            "identity": dict(self.run.identity),
            "device": self.run.runtime.device.type,
            "finished": progress.is_complete(self.run.schedule),
        }
        tensors = {"model": trained_weights(self.run.model), "optimizer": self.run.optimizer.state_dict()}
        content = {**self._description(progress), **tensors, "resume": resume}
        self.owns_latest = True
        saved = partial(self._after_save, progress.step)
        if self.run.runtime.strategy == "fsdp":
            self._parts = self._parts or PartsSaver(self.run.flags.out / LATEST, self.run.runtime.processes)
            self._parts.save(content, progress.step, self.run.run_id, saved)
        elif is_first():
            save_checkpoint(self.run.flags.out / LATEST, content)
            saved()

    def wait(self) -> None:
        """Wait for a save in the background. Raises its error, if any."""
        if self._parts:
            self._parts.wait()

    def close(self) -> None:
        """Stop the background save thread after its last save."""
        if self._parts:
            self._parts.close()

    def save_interrupted(self, progress: Progress) -> None:
        """Like save_latest. If the run started over by itself, the earlier latest_model.pt is set aside."""
        latest = self.run.flags.out / LATEST
        self.wait()
        if is_first() and not self.owns_latest and self.run.flags.resume is None and latest.is_file():
            print(f"{latest}: the earlier run is now {set_aside(latest).name}")
        self.save_latest(progress)

    def _after_save(self, step: int) -> None:
        if self.run.flags.keep and step:
            self._keep_copy(step)
        remove_unused_parts(self.run.flags.out)

    def _keep_copy(self, step: int) -> None:
        """Keep latest_model.pt as step-STEP-RUN.pt, and delete all but the most recent of this run's such files."""
        out, run_id = self.run.flags.out, self.run.run_id
        copy = out / f"step-{step:06}-{run_id}.pt"
        _copy(out / LATEST, copy)  # not a hard link: copying a save over latest_model.pt would overwrite both
        saves = sorted(out.glob(f"step-*-{run_id}.pt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for old in saves[: -self.run.flags.keep]:
            old.unlink()

    def _description(self, progress: Progress) -> dict[str, Any]:
        """The entries of both checkpoints, except the weights."""
        stage, model, flags = self.run.stage, self.run.model, self.run.flags
        return {
            "stage": stage.name,
            "run_id": self.run.run_id,
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
            "summary": stage.summary_rows,
            **stage.metadata,
        }


def _whole_model(model: GPTModel, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The entries of best_model.pt with weights: a plain model and, if one was trained, the adapter merged into it."""
    adapter = adapter_of(model)
    return {"model": merged_weights(weights, adapter), **({ADAPTER: vars(adapter)} if adapter else {})}


def loss_of_best(best: Path, run_id: str, best_step: int) -> float | None:
    """The loss of the run's best_model.pt. None if it is missing, damaged, or from another run.

    Earlier versions saved no run id; then best_step decides.
    """
    try:
        content = read_checkpoint(best, mapped=True)
    except (ValueError, OSError):
        return None
    is_from_run = content.get("run_id", "") == run_id and bool(run_id or best_step)
    if not is_from_run:
        return None
    loss = content.get("best_loss")
    return loss if is_number(loss) else math.inf


def set_aside(path: Path) -> Path:
    """Give a file a second name: NAME.previous.pt, or the first free one of NAME.previous-2.pt, -3, ...; returns it.

    No file is ever overwritten. If an earlier, killed run has set the same file aside already, its name is returned.
    """
    kept, number = path.with_name(f"{path.stem}.previous{path.suffix}"), 1
    while os.path.lexists(kept):
        if kept.is_file() and filecmp.cmp(path, kept, shallow=False):
            return kept
        number += 1
        kept = path.with_name(f"{path.stem}.previous-{number}{path.suffix}")
    _link_or_copy(path, kept)
    return kept


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name. If the file system has no hard links, write a copy."""
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        raise
    except OSError:
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    require_free_space(target, source.stat().st_size, "nothing was overwritten")
    try:
        with open(source, "rb") as content, atomic_write(target) as file:
            shutil.copyfileobj(content, file)
    except OSError as error:
        raise OSError(f"{target}: could not be written ({one_line(error)}); nothing was overwritten") from error
