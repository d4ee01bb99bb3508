"""Reports a run: aligned lines and a progress bar in the terminal, a JSON lines log, a plot of the curves.

A run does not depend on its report: if the log or the plot cannot be written, a note says so.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from src.common.messages import one_line
from src.curves.logs import join_resumed, read_log, with_earlier_logs
from src.curves.picture import draw
from src.distributed.environment import is_first
from src.training.tensorboard import TensorBoardLog

# Metrics with a column, and their format. Steps show _STEP_COLUMNS, evaluations show all, the log has every metric.
_COLUMNS = {
    "margin": "{:+8.3f}",
    "accuracy": "{:4.0%}",
    "chosen_logp": "{:7.1f}",
    "rejected_logp": "{:7.1f}",
    "kl": "{:8.4f}",
}
_STEP_COLUMNS = ("margin", "accuracy")
_SAMPLE_LINES = 8
_LINES_PER_RUN = 20  # lines of training steps; evaluations print their own


class Reporter:
    """Reports one run. On a terminal, a progress bar stays below the lines. A pipe gets only the lines."""

    def __init__(self, stage: str, log_dir: Path, *, first_step: int, steps: int, tensorboard: bool = False) -> None:
        self.stage, self.steps = stage, steps
        self.path = log_dir / f"{stage}-{datetime.now():%Y%m%d-%H%M%S}.jsonl"
        self._log: TextIO | None = None
        self._board: TensorBoardLog | None = None
        if is_first():
            self._open_log()
            if tensorboard:
                self._open_board()
        self._start = time.perf_counter()
        self._line_every = max(1, steps // _LINES_PER_RUN)
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            desc=stage,
            unit="step",
            disable=not (is_first() and sys.stderr.isatty()),
            dynamic_ncols=True,
        )

    def _open_log(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._log = _new_file(self.path)
            self.path = Path(self._log.name)
        except OSError as error:
            self._stop_log(error)

    def _open_board(self) -> None:
        try:
            self._board = TensorBoardLog(self.path.with_suffix(""))
        except OSError as error:
            self._stop_board(error)

    def event(self, event: str, **values: Any) -> None:
        """Write one JSON line to the log. NaN and infinity become null. TensorBoard gets the numbers, if asked for."""
        try:
            if self._board:
                self._board.event(event, values)
        except OSError as error:
            self._stop_board(error)
        if self._log is None:
            return
        line = {"event": event, "stage": self.stage, **values, "elapsed_s": round(time.perf_counter() - self._start, 3)}
        try:
            os.stat(self.path)  # raises if the file was removed, which a write does not notice
            self._log.write(json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) + "\n")
            self._log.flush()
        except OSError as error:
            self._stop_log(error)

    def step(self, step: int, loss: float, metrics: Mapping[str, float], **values: Any) -> None:
        """Report a training step: always in the log, on the terminal every few steps. `step` counts from 1."""
        self.event("step", step=step, loss=loss, **values, **metrics)
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update(1)
        if step % self._line_every == 0 or step == 1:
            rates = f"lr {values['lr']:.1e} | norm {values['grad_norm']:6.2f}"
            self.say(
                f"step {step:>6}/{self.steps} | loss {loss:8.4f} | {rates}"
                f" | {_thousands(values['tokens_per_s'])} tok/s{_columns(metrics, _STEP_COLUMNS)}"
            )

    def evaluation(self, step: int, name: str, values: Mapping[str, float], *, best: bool, **logged: Any) -> None:
        """Report an evaluation; `name` is the data it used, "val" or "train"."""
        metrics = {k: v for k, v in values.items() if k != "loss"}
        self.event("eval", step=step, **{f"{name}_loss": values["loss"]}, best=best, **metrics, **logged)
        mark = "(best)" if best else ""
        columns = _columns(metrics, tuple(_COLUMNS))
        self.say(f"eval {step:>6}/{self.steps} | {name} {values['loss']:8.4f} {mark:6}{columns}".rstrip())

    def sample(self, text: str) -> None:
        """Print the first lines of a generated sample, indented, without empty lines."""
        lines = [line for line in text.splitlines() if line.strip()]
        if lines:
            self.say("\n".join("    " + line for line in lines[:_SAMPLE_LINES]))

    @staticmethod
    def say(text: str) -> None:
        """Print a line above the progress bar."""
        tqdm.write(text)
        sys.stdout.flush()

    def close(self) -> None:
        """End the progress bar, and close the log and TensorBoard's files."""
        self._bar.close()
        self._close_log()
        try:
            if self._board:
                self._board.close()
        except OSError as error:
            self._stop_board(error)

    def _stop_board(self, error: OSError) -> None:
        if self._board:
            with suppress(OSError):  # it may hold numbers that could not be written
                self._board.close()
        self._board = None
        self.say(f"note: TensorBoard's files cannot be written ({error.strerror}); training continues without them")

    def _stop_log(self, error: OSError) -> None:
        self._close_log()
        self.say(f"note: the log {self.path} cannot be written ({error.strerror}); training continues without it")

    def _close_log(self) -> None:
        if self._log:
            with suppress(OSError):  # it may hold a line that could not be written
                self._log.close()
        self._log = None


def draw_curves(log: Path) -> Path | None:
    """Draw the curves of a run to a PNG file next to its log, with those of its earlier logs; returns the file's path.

    Returns None if there is nothing to draw. If drawing fails, prints a note and returns None.
    """
    if not log.is_file():
        return None
    try:
        [run] = join_resumed(with_earlier_logs(read_log(log)))
        if run.is_empty:
            return None
        picture = log.with_suffix(".png")
        draw([run], picture)
        return picture
    except Exception as error:  # a failed plot must not end a run: matplotlib may be missing, broken or misconfigured
        print(f"note: the curves were not drawn: {one_line(error)}")
        return None


def _columns(metrics: Mapping[str, float], names: tuple[str, ...]) -> str:
    shown = [name for name in names if name in metrics]
    return "".join(f" | {name.replace('_', ' ')} {_COLUMNS[name].format(metrics[name])}" for name in shown)


def _thousands(number: float) -> str:
    return f"{number / 1000:6.1f}k" if number >= 1000 else f"{number:6.0f} "


def _plain(value: Any) -> Any:
    """The value with everything in it converted to what JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, int | str | None) else str(value)


def _new_file(path: Path) -> TextIO:
    """A new file, opened for writing; its name gets a number if another run started in the same second."""
    candidate, number = path, 1
    while True:
        try:
            return open(candidate, "x", encoding="utf-8")
        except FileExistsError:
            number += 1
            candidate = path.with_stem(f"{path.stem}-{number}")
