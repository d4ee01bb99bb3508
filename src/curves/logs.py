"""Read the logs of training runs. A run that was resumed has several logs, which are joined."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from src.common.checks import is_number, is_whole_number

Series = Mapping[str, Sequence[tuple[int, float]]]  # metric -> (step, value) in the order of the log

# Settings that do not change what a run computes.
_UNIMPORTANT = (
    "out",
    "log_dir",
    "tensorboard",
    "resume",
    "save_every",
    "keep",
    "memory_check",
    "show_data",
    "show_mask",
)


@dataclass(frozen=True)
class RunLog:
    """A run, or the part of a resumed run that one log holds.

    steps: the metrics of training steps. evaluations: those of evaluations; "loss" is on the validation data, or on the
    training data if there is none (evaluated_on is "train"), and "best" holds the losses that were the lowest so far.
    run_id: the same in all logs of a resumed run; None in logs of earlier versions.
    damaged: describes the first line that could not be read; empty if there is none.
    """

    path: Path
    stage: str
    title: str
    run_id: str | None
    first_step: int
    settings: Mapping[str, Any]
    steps: Series
    evaluations: Series
    evaluated_on: str = "val"
    damaged: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it has no loss to draw."""
        return not (self.steps.get("loss") or self.evaluations.get("loss"))


def read_log(path: Path) -> RunLog:
    """The metrics in a log. Lines that are damaged are left out.

    Raises FileNotFoundError if there is no such file, ValueError if it is empty or not the log of a training run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such log; training writes its logs to the folder --log-dir, usually logs/")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(lines):
        raise ValueError(f"{path}: the log is empty; its run ended before it wrote a line")
    start, problem = _event(lines[0])
    if problem or start["event"] != "start" or not isinstance(start.get("stage"), str):
        expected = 'expected {"event": "start", "stage": ...}'
        raise ValueError(f"{path}: not the log of a training run; line 1 is {_excerpt(lines[0])}, {expected}")
    events, problems = [start], []
    for number, line in enumerate(lines[1:], start=2):
        event, problem = _event(line)
        if problem:
            problems.append(f"line {number} {problem}")
        else:
            events.append(event)
    return _log_of(path, events, problems)


def _event(line: str) -> tuple[dict[str, Any], str]:
    """The event in a line of a log, and the problem with it: empty if there is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}, "is not complete JSON"
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return {}, 'has no "event"'
    if not is_whole_number(step := event.get("step")) or not 0 <= step < 2**63:
        return {}, f'has no whole number as "step", but {_excerpt(json.dumps(step))}'
    return event, ""


def _excerpt(text: str) -> str:
    return f"{text[:50]}..." if len(text) > 50 else text


def _log_of(path: Path, events: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> RunLog:
    start = events[0]
    evaluations = [event for event in events if event["event"] == "eval"]
    settings = start.get("settings")
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return RunLog(
        path=path,
        stage=start["stage"],
        title=str(start.get("title", start["stage"])),
        run_id=start.get("run"),
        first_step=start["step"],
        settings=settings if isinstance(settings, dict) else {},
        steps=_series(event for event in events if event["event"] == "step"),
        evaluations=_series(map(_with_loss, evaluations)),
        evaluated_on="val" if not evaluations or "val_loss" in evaluations[-1] else "train",
        damaged=problems[0] + more if problems else "",
    )


def _series(events: Iterable[Mapping[str, Any]]) -> Series:
    """The numbers of the events by name. A null stands for NaN or infinity, and is left out."""
    series: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        for name, value in event.items():
            if is_number(value):
                series.setdefault(name, []).append((event["step"], value))
    return series


def _with_loss(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation with its loss as "loss", whatever data it is on. "best" becomes the loss if it was the lowest."""
    loss = evaluation.get("val_loss" if "val_loss" in evaluation else "train_loss")
    return {**evaluation, "loss": loss, "best": loss if evaluation.get("best") else None}


def join_resumed(logs: Iterable[RunLog]) -> list[RunLog]:
    """One RunLog per run: the logs of a resumed run are joined in the order of their names, which are times.

    The steps that a run lost, because it resumed from an earlier save, are left out.
    """
    runs: dict[str, RunLog] = {}
    for log in sorted(logs, key=lambda log: log.path.stem):
        key = f"{log.stage} {log.run_id}" if log.run_id else str(log.path)
        runs[key] = _joined(runs[key], log) if key in runs else log
    return list(runs.values())


def _joined(before: RunLog, after: RunLog) -> RunLog:
    """The log of a run up to the step from which `after` resumed it, and `after`."""
    return replace(
        after,
        first_step=before.first_step,
        steps=_joined_series(before.steps, after.steps, after.first_step),
        evaluations=_joined_series(before.evaluations, after.evaluations, after.first_step),
    )


def _joined_series(before: Series, after: Series, resumed_at: int) -> Series:
    joined = {name: [point for point in points if point[0] <= resumed_at] for name, points in before.items()}
    for name, points in after.items():
        joined.setdefault(name, []).extend(points)
    return joined


def with_earlier_logs(log: RunLog) -> list[RunLog]:
    """The log, and those of the same run before it in its folder, if the run was resumed."""
    if not (log.run_id and log.first_step):
        return [log]
    before = [path for path in log.path.parent.glob(f"{log.stage}-*.jsonl") if path.stem < log.path.stem]
    return [*(read_log(path) for path in before if _run_id(path) == log.run_id), log]


def _run_id(path: Path) -> Any:
    """The run_id in the first line of a log; None if there is none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return _event(file.readline())[0].get("run")


def labels(runs: Sequence[RunLog]) -> list[str]:
    """A name for each run: the settings that differ between the runs, or the log's name if none does."""
    names = {name: None for run in runs for name in run.settings if name not in _UNIMPORTANT}
    differing = [name for name in names if len({str(run.settings.get(name)) for run in runs}) > 1]
    described = [", ".join(f"{name} {_excerpt(str(run.settings.get(name)))}" for name in differing) for run in runs]
    return [
        text if text and described.count(text) == 1 else f"{run.path.stem} {text}".rstrip()
        for run, text in zip(runs, described, strict=True)
    ]
