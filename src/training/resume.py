"""Decide whether a command continues the run in --out, starts over, or is refused."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from src.checkpoint import LATEST, file_sha256
from src.runtime import Runtime
from src.training.flags import TrainingFlags
from src.training.saved_run import SavedRun, not_resumable, read_saved_run
from src.training.stage import Schedule, Stage

_WITHOUT_VALUES = ("data", "evaluation", "base", "tokenizer", "model")  # hashes, or too long for a message
_SHOWN_CHANGES = 4


def find_saved_run(
    stage: Stage, flags: TrainingFlags, identity: Mapping[str, Any], schedule: Schedule, runtime: Runtime
) -> tuple[SavedRun | None, str]:
    """The run in --out that this command continues, or None for a new run; and a note on what was found.

    no latest_model.pt, or --no-resume    a new run
    the same settings                     the saved run, which may be finished
    other settings, finished              a new run; refused with --resume
    other settings, unfinished            refused; a new run if it has no step yet, unless with --resume

    On the same kind of device, --precision auto keeps the precision of the saved run.
    Raises ValueError for a run that cannot be continued; FileNotFoundError for --resume without a file.
    """
    path = flags.out / LATEST
    if flags.resume is False or (flags.resume is None and not path.is_file()):
        return None, ""
    saved = read_saved_run(path, sharded=runtime.strategy == "fsdp")
    if flags.precision == "auto" and saved.device == runtime.device.type:
        identity = {**identity, "precision": saved.identity["precision"]}
    changes = _changes(saved, identity, flags, stage)
    if not changes:
        _prepare_to_continue(saved, schedule)
        return saved, _continue_note(saved, schedule)
    found = f"{path}: {'a finished' if saved.finished else 'an unfinished'} run with other settings ({changes})"
    if flags.resume or (saved.progress.step and not saved.finished):
        raise ValueError(f"{found}; pass its settings to resume it, --no-resume to start over, or another --out")
    if not saved.finished:  # and at step 0: nothing is lost
        return None, ""
    return None, (
        f"{found}, so training starts over. Its best model will be kept, under another name. "
        "To train it longer instead, pass its settings and more --max-steps. Another --out keeps both."
    )


def _changes(saved: SavedRun, identity: Mapping[str, Any], flags: TrainingFlags, stage: Stage) -> str:
    """Every setting that differs from the saved run's, with both values; empty if none does.

    A flag that is newer than the saved run had its default in that run.
    """
    before = {**{field.name: field.default for field in fields(flags)}, **saved.identity}
    changed = [name for name, value in identity.items() if name in before and before[name] != value]
    if "base" in changed and before["base"] == _file_hash_of_base(stage):
        changed.remove("base")
    details = [
        f"{name} differs" if name in _WITHOUT_VALUES else f"{name} {before[name]} in the file, {identity[name]} now"
        for name in changed
    ]
    more = [f"and {len(changed) - _SHOWN_CHANGES} more"] if len(changed) > _SHOWN_CHANGES else []
    return ", ".join(details[:_SHOWN_CHANGES] + more)


def _file_hash_of_base(stage: Stage) -> str | None:
    """The SHA-256 of the base's file. Earlier versions identified a base by it, not by its weights."""
    parent = stage.metadata.get("parent")
    return file_sha256(Path(parent["path"])) if parent and Path(parent["path"]).exists() else None


def _steps_before(saved: SavedRun, schedule: Schedule) -> int:
    """The length that the saved run had, in steps."""
    steps: int = saved.settings["max_steps"] or saved.settings["epochs"] * schedule.steps_per_epoch
    return steps


def _prepare_to_continue(saved: SavedRun, schedule: Schedule) -> None:
    """If a finished run is extended, its patience starts over.

    Raises ValueError if the run is past the end of the schedule.
    """
    step, steps, steps_before = saved.progress.step, schedule.steps, _steps_before(saved, schedule)
    if step > steps_before:
        raise not_resumable(saved.path, ValueError(f"'step' is {step}, in a run of {steps_before} steps"))
    if step > steps:
        raise ValueError(
            f"{saved.path}: this run is at step {step} already, past the {steps} steps asked for; "
            "more --max-steps or --epochs continue it, --no-resume starts over, another --out keeps both"
        )
    if saved.finished and steps > steps_before:
        saved.progress.stale_evaluations = 0


def _continue_note(saved: SavedRun, schedule: Schedule) -> str:
    """How far the run is, and how a new length changes its learning rate."""
    step, steps = saved.progress.step, schedule.steps
    if saved.progress.is_complete(schedule):
        return (
            f"{saved.path}: this run is finished, after step {step} of {steps}; nothing is left to train. "
            "More --max-steps or --epochs continue it, --no-resume starts over."
        )
    doing = "continuing the finished" if saved.finished else "resuming the unfinished"
    lr_note = _learning_rate_note(step, _steps_before(saved, schedule), schedule)
    return f"{doing} run at step {step} of {steps} (--no-resume starts over){lr_note}"


def _learning_rate_note(step: int, steps_before: int, schedule: Schedule) -> str:
    """How a new length changes the learning rate; empty if the length is unchanged."""
    if schedule.steps == steps_before or step == 0:
        return ""
    before = replace(schedule, steps=steps_before).learning_rate(step - 1)
    now, end = schedule.learning_rate(step), schedule.learning_rate(schedule.steps - 1)
    return (
        f"\nthe learning rate follows the schedule of {schedule.steps} steps instead of {steps_before}: "
        f"{now:.1e} now, after {before:.1e}, and {end:.1e} at the end"
    )
