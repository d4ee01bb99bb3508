"""The picture of one or more training runs of a stage: the loss, and the other metrics of the log."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.common.atomic_file import atomic_write
from src.common.checks import is_number
from src.curves.logs import RunLog, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
_COLUMNS = 3
_TEXT_WIDTH = 56  # characters of a note above one column
# Runs differ in line style and marker, too, so that a picture in grey can be read.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#222222")  # Okabe and Ito's, for the colour-blind
_LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Panel:
    """One plot of the picture: a metric of the log, and a sentence on how it usually looks."""

    metric: str
    title: str
    axis: str
    usual: str


_OVERFITTING = "Validation that rises while training falls is overfitting."
_USUAL_LOSS = {
    "pretrain": "Starts near ln(vocabulary size), falls fast, then slowly. Validation is a little above training. "
    + _OVERFITTING,
    "sft": f"Falls in the first passes over the data. Near 0, the answers are memorised. {_OVERFITTING}",
    "dpo": "Starts at ln 2 = 0.693 with the sigmoid loss, and falls. Near 0, the pairs are memorised.",
}
_PANELS = (
    Panel("margin", "Margin of the rewards", "margin (beta x nats)", "Starts at 0 and grows."),
    Panel("accuracy", "Accuracy", "share of the pairs", "0 before the first step, 0.5 by chance, 1 at best."),
    Panel("kl", "Distance from the reference", "KL (nats per token)", "Starts at 0. If it jumps, raise --beta."),
    Panel("chosen_logp", "Chosen answers", "log-probability (nats)", "Rises, or falls more slowly than the rejected."),
    Panel("rejected_logp", "Rejected answers", "log-probability (nats)", "Falls."),
    Panel("lr", "Learning rate", "learning rate", "Rises in the warm-up, then falls."),
    Panel(
        "grad_norm", "Gradient norm", "norm before clipping", "High at first, then low. If it jumps, lower --max-lr."
    ),
    Panel("tokens_per_s", "Speed", "tokens per second", "Level. The first steps may be slower."),
)


def draw(runs: Sequence[RunLog], out: Path) -> None:
    """Draw runs of one stage, with at least one loss each, to a PNG, PDF or SVG file.

    Raises OSError if the file cannot be written.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    panels = [panel for panel in _PANELS if any(_has(run, panel) for run in runs)]
    rows = math.ceil(len(panels) / _COLUMNS)
    figure = Figure(figsize=(13, 5 + 2.8 * rows), dpi=100, layout="constrained")
    grid = figure.add_gridspec(1 + rows, _COLUMNS, height_ratios=[1.6, *[1] * rows])
    figure.suptitle(_title(runs), fontsize=14, parse_math=False)
    _draw_panel(figure.add_subplot(grid[0, :]), _loss_panel(runs[0].stage), runs, width=3 * _TEXT_WIDTH)
    drawn: dict[str, Axes] = {}
    for i, panel in enumerate(panels):
        shared = drawn.get("chosen_logp") if panel.metric == "rejected_logp" else None  # to compare them
        drawn[panel.metric] = figure.add_subplot(grid[1 + i // _COLUMNS, i % _COLUMNS], sharey=shared)
        _draw_panel(drawn[panel.metric], panel, runs, width=_TEXT_WIDTH)
    _add_legend(figure, runs)
    with atomic_write(out) as file:
        figure.savefig(file, format=out.suffix[1:])


def _loss_panel(stage: str) -> Panel:
    axis = "loss per pair" if stage == "dpo" else "loss (nats per token)"
    return Panel("loss", "Loss", axis, _USUAL_LOSS.get(stage, f"Falls. {_OVERFITTING}"))


def _has(run: RunLog, panel: Panel) -> bool:
    return bool(run.steps.get(panel.metric) or run.evaluations.get(panel.metric))


def _title(runs: Sequence[RunLog]) -> str:
    return f"{runs[0].title}: " + (runs[0].path.stem if len(runs) == 1 else f"{len(runs)} runs")


def _draw_panel(axes: "Axes", panel: Panel, runs: Sequence[RunLog], width: int) -> None:
    """One metric of all runs, under its title and a note on what is usual."""
    for number, run in enumerate(runs):
        _draw_run(axes, panel, run, number, alone=len(runs) == 1)
    clip = runs[0].settings.get("grad_clip")
    if panel.metric == "grad_norm" and is_number(clip) and len(runs) == 1:
        axes.axhline(clip, color="black", linestyle=":", linewidth=1)
        axes.annotate(f"clipped above {clip:g}", (1, clip), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    note = textwrap.fill(panel.usual, width)
    axes.set_title(panel.title, loc="left", fontsize=11, pad=8 + 11 * len(note.splitlines()))
    axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=8, color="#444444", va="bottom")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(panel.axis)
    axes.yaxis.set_major_formatter("{x:,.6g}")
    axes.grid(alpha=0.3)


def _draw_run(axes: "Axes", panel: Panel, run: RunLog, number: int, *, alone: bool) -> None:
    """The metric of one run: its mean over some steps as a line, evaluations as markers, the best loss as a star."""
    style: dict[str, Any] = {"color": _pick(_COLOURS, number), "linestyle": _pick(_LINES, number)}
    evaluation_colour = "black" if alone else style["color"]
    if steps := run.steps.get(panel.metric):
        window = 1 if panel.metric == "lr" else smoothing_window(len(steps))
        x, y = np.asarray(steps, dtype=float).T
        if alone and window > 1:
            axes.plot(x, y, color=style["color"], linewidth=0.6, alpha=0.45, label="training, each step")
        name = f"training, mean of {window} steps" if window > 1 else "training"
        axes.plot(x, smooth(y, window), **style, linewidth=1.4, label=name)
    if evaluations := run.evaluations.get(panel.metric):
        name = "validation" if run.evaluated_on == "val" else "evaluation on training data"
        style |= {"color": evaluation_colour, "marker": _pick(_MARKERS, number), "markersize": 4, "linewidth": 0.9}
        axes.plot(*zip(*evaluations, strict=True), **style, label=name)
    if panel.metric == "loss" and (best := run.evaluations.get("best")):
        step, loss = best[-1]
        star: dict[str, Any] = {"marker": "*", "markersize": 14, "markeredgecolor": "white", "linestyle": ""}
        axes.plot(step, loss, color=evaluation_colour, **star, label=f"best: {loss:.4f} after step {step}")


def smoothing_window(count: int) -> int:
    """The number of steps that are averaged, of a run of `count` steps."""
    return max(1, round(math.sqrt(count)))


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the `window` values around each value, (N,); of fewer at both ends."""
    if window == 1:
        return values
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones_like(values), ones, "same")


def _pick(choices: Sequence[Any], number: int) -> Any:
    return choices[number % len(choices)]


def _add_legend(figure: "Figure", runs: Sequence[RunLog]) -> None:
    """The kinds of curves for one run; the settings that differ, and the best loss, for several."""
    from matplotlib.lines import Line2D

    if len(runs) == 1:
        figure.axes[0].legend()
        return
    lines = []
    for number, (run, label) in enumerate(zip(runs, labels(runs), strict=True)):
        best = run.evaluations.get("best")
        name = textwrap.fill(label, 90) + (f": best {best[-1][1]:.4f} after step {best[-1][0]}" if best else "")
        marker = _pick(_MARKERS, number)
        lines.append(
            Line2D([], [], color=_pick(_COLOURS, number), linestyle=_pick(_LINES, number), marker=marker, label=name)
        )
    title = "lines: training, smoothed; markers: evaluations; star: the best model"
    for text in figure.axes[0].legend(handles=lines, title=title).get_texts():
        text.set_parse_math(False)  # a path may have a dollar sign
