"""python -m src.curves: the logs of runs are read, joined and drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from src.curves.__main__ import main
from src.curves.logs import join_resumed, labels, read_log, with_earlier_logs
from src.curves.picture import smooth
from src.training.reporter import draw_curves
from tests.training.small_run import flags, run

pytestmark = pytest.mark.usefixtures("drawn_curves")

START = {"event": "start", "stage": "sft", "title": "Instruction tuning (SFT)", "step": 0}
DPO = {"margin": 0.5, "accuracy": 0.75, "chosen_logp": -30.0, "rejected_logp": -35.5}


def write_log(path: Path, *events: dict[str, Any] | str) -> Path:
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def steps(first: int, last: int, loss: float = 1.0, **metrics: float) -> list[dict[str, Any]]:
    return [{"event": "step", "step": step, "loss": loss, **metrics} for step in range(first, last + 1)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """(axis, label, points) of every curve that is drawn from now on, until the axis is known: "" while it is drawn."""
    curves: list[tuple[str, str, list[tuple[float, float]]]] = []
    plot, name = Axes.plot, Axes.set_ylabel

    def spy(self, x, y, **style):
        curves.append(("", style["label"], list(zip(np.ravel(x).tolist(), np.ravel(y).tolist(), strict=True))))
        return plot(self, x, y, **style)

    def named(self, label):
        curves[:] = [(axis or label, *rest) for axis, *rest in curves]
        return name(self, label)

    monkeypatch.setattr(Axes, "plot", spy)
    monkeypatch.setattr(Axes, "set_ylabel", named)
    return curves


def test_picture_has_the_curves_of_the_log(tmp_path: Path, drawn: list, capsys: pytest.CaptureFixture) -> None:
    log = write_log(
        tmp_path / "sft-1.jsonl",
        START,
        {"event": "eval", "step": 0, "val_loss": 4.0},
        {"event": "step", "step": 1, "loss": 3.5, "lr": 0.1, "grad_norm": 2.0, "tokens_per_s": 10.0},
        {"event": "step", "step": 2, "loss": None, "lr": 0.2, "grad_norm": 1.0, "tokens_per_s": 20.0},
        {"event": "eval", "step": 2, "val_loss": 3.25, "best": True},
        {"event": "eval", "step": 3, "val_loss": 3.5, "best": False},
        {"event": "end", "step": 2},
    )
    assert main([str(log)]) == 0
    assert capsys.readouterr().out == f"sft: 1 run drawn to {log.with_suffix('.png')}\n"
    assert log.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert drawn == [
        ("loss (nats per token)", "training", [(1, 3.5)]),
        ("loss (nats per token)", "validation", [(0, 4.0), (2, 3.25), (3, 3.5)]),
        ("loss (nats per token)", "best: 3.2500 after step 2", [(2, 3.25)]),
        ("learning rate", "training", [(1, 0.1), (2, 0.2)]),
        ("norm before clipping", "training", [(1, 2.0), (2, 1.0)]),
        ("tokens per second", "training", [(1, 10.0), (2, 20.0)]),
    ]


def test_preference_runs_show_margin_accuracy_answers_and_kl(tmp_path: Path, drawn: list) -> None:
    log = write_log(
        tmp_path / "dpo-1.jsonl",
        {**START, "stage": "dpo"},
        {"event": "step", "step": 1, "loss": 0.7, **DPO},
        {"event": "eval", "step": 1, "train_loss": 0.6, **DPO, "kl": 0.01},
    )
    assert main([str(log), "--out", str(tmp_path / "new/dpo.svg")]) == 0
    assert "<svg" in (tmp_path / "new/dpo.svg").read_text(encoding="utf-8")
    assert [(axis, points) for axis, label, points in drawn if label == "evaluation on training data"] == [
        ("loss per pair", [(1, 0.6)]),
        ("margin (beta x nats)", [(1, 0.5)]),
        ("share of the pairs", [(1, 0.75)]),
        ("KL (nats per token)", [(1, 0.01)]),
        ("log-probability (nats)", [(1, -30.0)]),
        ("log-probability (nats)", [(1, -35.5)]),
    ]


@pytest.mark.parametrize("window", [1, 2, 3, 10])
def test_smoothing_is_the_mean_of_the_values_around(window: int) -> None:
    values = np.arange(10.0) ** 2
    before, after = window // 2, window - window // 2  # around each value
    expected = [values[max(0, i - before) : i + after].mean() for i in range(10)]
    np.testing.assert_allclose(smooth(values, window), expected)


def test_logs_of_a_resumed_run_are_joined(tmp_path: Path) -> None:
    first = write_log(tmp_path / "sft-1.jsonl", {**START, "run": "a"}, *steps(1, 7, 2.0))
    second = write_log(tmp_path / "sft-2.jsonl", {**START, "run": "a", "step": 5}, *steps(6, 9, 1.0))
    write_log(tmp_path / "sft-3.jsonl", {**START, "run": "b"}, *steps(1, 3))
    joined, other = join_resumed(map(read_log, sorted(tmp_path.iterdir())))
    assert joined.steps["loss"] == [*((step, 2.0) for step in range(1, 6)), *((step, 1.0) for step in range(6, 10))]
    assert (joined.first_step, joined.path, other.run_id) == (0, second, "b")
    assert [log.path for log in with_earlier_logs(read_log(second))] == [first, second]


def test_training_draws_all_of_a_resumed_run(tmp_path: Path, drawn: list) -> None:
    run(flags(tmp_path, max_steps=4, eval_every=4))
    run(flags(tmp_path, max_steps=8, eval_every=4))
    validation = [
        points
        for axis, label, points in drawn
        if label == "evaluation on training data" and axis == "loss (nats per token)"
    ]
    assert [[step for step, _ in points] for points in validation] == [[0, 4], [0, 4, 8]]
    [log] = [read_log(path) for path in (tmp_path / "logs").glob("*.jsonl") if read_log(path).first_step]
    assert draw_curves(log.path) == log.path.with_suffix(".png")


def test_legend_has_the_settings_that_differ(tmp_path: Path) -> None:
    settings = [
        {"max_lr": 0.1, "seed": 1, "out": "a"},
        {"max_lr": 0.2, "seed": 1, "out": "b"},
        {"max_lr": 0.2, "seed": 1},
    ]
    logs = [
        read_log(write_log(tmp_path / f"sft-{i}.jsonl", {**START, "settings": each})) for i, each in enumerate(settings)
    ]
    assert labels(logs[:2]) == ["max_lr 0.1", "max_lr 0.2"]
    assert labels(logs) == ["max_lr 0.1", "sft-1 max_lr 0.2", "sft-2 max_lr 0.2"]
    assert labels(logs[1:]) == ["sft-1", "sft-2"]


def test_each_stage_of_a_folder_has_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    for name in ("sft-1", "sft-2", "dpo-1"):
        write_log(tmp_path / f"{name}.jsonl", {**START, "stage": name[:3]}, *steps(1, 2))
    write_log(tmp_path / "other.jsonl", {"level": "info"})
    write_log(tmp_path / "sft-9.jsonl")
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"sft: 2 runs drawn to {tmp_path / 'curves-sft.png'}\n" in out
    assert f"dpo: 1 run drawn to {tmp_path / 'dpo-1.png'}\n" in out
    assert out.count("note: left out: ") == 2
    with pytest.raises(ValueError, match="^--out names one picture, and these logs are of dpo, sft; leave --out out$"):
        main([str(tmp_path), "--out", "x.png"])
    monkeypatch.chdir(tmp_path)
    assert main(["sft-[12].jsonl"]) == 0  # as typed in Windows' shells
    assert capsys.readouterr().out.endswith("sft: 2 runs drawn to curves-sft.png\n")


def test_damaged_lines_are_left_out_with_a_note(tmp_path: Path, drawn: list, capsys: pytest.CaptureFixture) -> None:
    damaged = ["[1]", '{"event": "step", "step": "x"}', '{"event": "step", "step": 3, "lo']
    log = write_log(tmp_path / "sft-1.jsonl", START, *steps(1, 2, 2.0), *damaged)
    assert main([str(log)]) == 0
    assert f'note: left out: {log}: line 4 has no "event", and 2 more\n' in capsys.readouterr().out
    assert drawn[0] == ("loss (nats per token)", "training", [(1, 2.0), (2, 2.0)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x.jsonl: no such log; training writes its logs to the folder --log-dir, usually logs/"),
        ("\n", "x.jsonl: the log is empty; its run ended before it wrote a line"),
        (
            '{"a": 1}',
            'x.jsonl: not the log of a training run; line 1 is {"a": 1}, expected {"event": "start", "stage": ...}',
        ),
        (json.dumps(START), "x.jsonl: there is no loss to draw"),
    ],
)
def test_a_file_that_is_not_a_log_is_refused(tmp_path: Path, monkeypatch, content: str | None, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    if content:
        Path("x.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises((ValueError, OSError)) as refused:
        main(["x.jsonl"])
    assert str(refused.value) == message


def test_bad_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = write_log(tmp_path / "sft-1.jsonl", START, *steps(1, 2))
    with pytest.raises(SystemExit):
        main([str(log), "--out", "x.bmp"])
    assert "--out must end with .png, .pdf, .svg, got x.bmp" in capsys.readouterr().err
    with pytest.raises(OSError, match=r"a.png: cannot be written \(.*\); choose another file with --out"):
        main([str(log), "--out", str(log / "a.png")])
    with pytest.raises(FileNotFoundError, match="no logs \\(\\*.jsonl\\) in this folder"):
        main([str(tmp_path / "*.json")])
