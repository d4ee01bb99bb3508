"""What a run says: aligned lines and a bar in the terminal, every step as JSON in a log, the curves as a picture."""

import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

# Metrics that have a column, and how they look; a step shows the first two, an evaluation all, the log whatever comes.
_COLUMNS = {
    "margin": "{:+.3f}",
    "accuracy": "{:.0%}",
    "chosen_logp": "{:.1f}",
    "rejected_logp": "{:.1f}",
    "kl": "{:.4f}",
}
_STEP_COLUMNS = ("margin", "accuracy")
_LINES_PER_RUN = 20  # report lines between start and end, beside those of the evaluations


class Reporter:
    """Reports one run. On a terminal a bar with the time left stands under the lines; piped, only the lines appear."""

    def __init__(self, stage: str, log_dir: Path, *, first_step: int, steps: int) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self.stage, self.steps = stage, steps
        self.path = _unused(log_dir / f"{stage}-{datetime.now():%Y%m%d-%H%M%S}.jsonl")
        self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115  closed by `close`
        self._start = time.perf_counter()
        self._line_every = max(1, steps // _LINES_PER_RUN)
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            desc=stage,
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def event(self, event: str, **values: Any) -> None:
        """One JSON line; numbers that JSON has no spelling for become null."""
        line = {"event": event, "stage": self.stage, **values, "elapsed_s": round(time.perf_counter() - self._start, 3)}
        self._file.write(json.dumps({k: _plain(v) for k, v in line.items()}, ensure_ascii=False) + "\n")
        self._file.flush()

    def step(self, step: int, loss: float, metrics: Mapping[str, float], **values: Any) -> None:
        """A training step: always in the log, now and then on the terminal. `step` counts from 1."""
        self.event("step", step=step, loss=loss, **values, **metrics)
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update(1)
        if step % self._line_every == 0 or step == 1:
            rates = f"lr {values['lr']:.1e} | norm {values['grad_norm']:5.2f}"
            self.say(
                f"step {step:>6}/{self.steps} | loss {loss:8.4f} | {rates}"
                f" | {_thousands(values['tokens_per_s'])} tok/s{_columns(metrics, _STEP_COLUMNS)}"
            )

    def evaluation(self, step: int, name: str, values: Mapping[str, float], *, best: bool, **logged: Any) -> None:
        """An evaluation: `name` says on what, "val" or "train"."""
        metrics = {k: v for k, v in values.items() if k != "loss"}
        self.event("eval", step=step, **{f"{name}_loss": values["loss"]}, best=best, **metrics, **logged)
        mark = " (best)" if best else ""
        self.say(
            f"eval {step:>6}/{self.steps} | {name} {values['loss']:8.4f}{mark}{_columns(metrics, tuple(_COLUMNS))}"
        )

    def say(self, text: str) -> None:
        """A line above the bar."""
        tqdm.write(text)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
        self._file.close()


def draw_curves(log: Path) -> Path | None:
    """A picture of the losses in a log, beside it; None where no step was logged."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [(e["step"], e["loss"]) for e in events if e["event"] == "step"]
    if not steps:
        return None
    from matplotlib.figure import Figure  # slow to import, and needed only here

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title=log.stem)
    axes.plot(*zip(*steps, strict=True), linewidth=0.8, alpha=0.6, label="training, each step")
    for name in ("val_loss", "train_loss"):
        points = [(e["step"], e[name]) for e in events if e["event"] == "eval" and e.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=f"evaluation, {name.split('_')[0]}")
    axes.grid(alpha=0.3)
    axes.legend()
    picture = log.with_suffix(".png")
    figure.savefig(picture, dpi=120)
    return picture


def _columns(metrics: Mapping[str, float], names: tuple[str, ...]) -> str:
    shown = [name for name in names if name in metrics]
    return "".join(f" | {name.replace('_', ' ')} {_COLUMNS[name].format(metrics[name])}" for name in shown)


def _thousands(number: float) -> str:
    return f"{number / 1000:6.1f}k" if number >= 1000 else f"{number:6.0f} "


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if isinstance(value, int | str | bool | list | dict | None) else str(value)


def _unused(path: Path) -> Path:
    """The path, with a number where a run of the same second has taken it."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate
