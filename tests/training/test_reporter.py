"""Reports of a run: the log, the lines in the terminal, the picture of the curves, and TensorBoard."""

import io
import json
import math
import re
import shutil
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from src.training import reporter as reporter_module
from src.training.reporter import Reporter, draw_curves
from tests.training.small_run import flags

STEP = {"lr": 1e-3, "grad_norm": 0.5, "tokens": 512, "tokens_per_s": 900.0, "step_s": 0.5, "epoch": 0}
DPO = {"margin": 0.5, "accuracy": 0.75, "chosen_logp": -30.0, "rejected_logp": -35.5, "kl": 0.01}


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, parsed as strict JSON: NaN and Infinity are errors."""

    def refuse(spelling: str) -> None:
        raise AssertionError(f"{spelling} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def reporter(tmp_path: Path):
    reporter = Reporter("dpo", tmp_path / "logs", first_step=0, steps=100)
    yield reporter
    reporter.close()


def test_a_log_line_is_one_json_object(reporter: Reporter) -> None:
    reporter.event("start", step=0, summary={"data": "Zürich 字"})
    reporter.step(1, 2.5, DPO, **STEP)
    reporter.evaluation(1, "val", {"loss": 2.0, **DPO}, best=True, epoch=0)
    start, step, evaluation = lines_of(reporter.path)  # each is on the disk at once
    assert start["summary"] == {"data": "Zürich 字"} and "字" in reporter.path.read_text(encoding="utf-8")
    assert step == {
        "event": "step",
        "stage": "dpo",
        "step": 1,
        "loss": 2.5,
        **STEP,
        **DPO,
        "elapsed_s": step["elapsed_s"],
    }
    expected = {"event": "eval", "stage": "dpo", "step": 1, "epoch": 0, "val_loss": 2.0, "best": True, **DPO}
    assert evaluation == {**expected, "elapsed_s": evaluation["elapsed_s"]}
    assert 0 <= start["elapsed_s"] <= step["elapsed_s"] <= evaluation["elapsed_s"]


def test_an_evaluation_on_training_data_is_train_loss(reporter: Reporter, capsys) -> None:
    reporter.evaluation(5, "train", {"loss": 2.0}, best=False)
    [line] = lines_of(reporter.path)
    assert line["train_loss"] == 2.0 and "val_loss" not in line
    assert capsys.readouterr().out == "eval      5/100 | train   2.0000\n"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_logged_as_null(reporter: Reporter, value: float) -> None:
    reporter.event("end", best_loss=value, settings={"clip": value, "rates": [1.0, value]})
    reporter.step(1, 2.0, {}, **{**STEP, "grad_norm": value})
    end, step = lines_of(reporter.path)
    assert end["best_loss"] is None
    assert end["settings"] == {"clip": None, "rates": [1.0, None]}
    assert step["grad_norm"] is None and step["loss"] == 2.0


def test_other_values_are_logged_as_plain_values(reporter: Reporter) -> None:
    reporter.event("start", path=Path("a"), flag=True, none=None, many=(1, "b"), by={3: Path("c")}, dtype=torch.float32)
    [line] = lines_of(reporter.path)
    expected = {"path": "a", "flag": True, "none": None, "many": [1, "b"], "by": {"3": "c"}, "dtype": "torch.float32"}
    assert {key: line[key] for key in expected} == expected


def bars(line: str) -> list[int]:
    """The positions of the column separators in a line."""
    return [match.start() for match in re.finditer(r" \| |$", line)]


def test_step_lines_are_aligned(reporter: Reporter, capsys) -> None:
    steps = [
        (1, 10.8249, {"margin": 0.0, "accuracy": 0.0}, {"lr": 1e-3, "grad_norm": 123.456, "tokens_per_s": 999.4}),
        (5, 0.0001, {"margin": -12.3456, "accuracy": 1.0}, {"lr": 2.5e-10, "grad_norm": 0.0, "tokens_per_s": 41_234.0}),
        (100, 123.4, {"margin": 999.0, "accuracy": 0.055}, {"lr": 0.5, "grad_norm": math.inf, "tokens_per_s": 0.0}),
    ]
    for step, loss, metrics, values in steps:
        reporter.step(step, loss, metrics, **{**STEP, **values})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "step      5/100 | loss   0.0001 | lr 2.5e-10 | norm   0.00 |   41.2k tok/s | margin  -12.346 | accuracy 100%"
    )
    assert len(lines) == 3
    assert {tuple(bars(line)) for line in lines} == {tuple(bars(lines[0]))}


def test_evaluation_lines_are_aligned(reporter: Reporter, capsys) -> None:
    far = {"margin": -12.5, "accuracy": 1.0, "chosen_logp": -1234.5, "rejected_logp": -9.0, "kl": 123.4}
    reporter.evaluation(0, "val", {"loss": 0.6931, **DPO}, best=False)
    reporter.evaluation(100, "val", {"loss": 12.0, **far}, best=True)
    first, second = capsys.readouterr().out.splitlines()
    assert bars(first) == bars(second)
    assert second == (
        "eval    100/100 | val  12.0000 (best) | margin  -12.500 | accuracy 100%"
        " | chosen logp -1234.5 | rejected logp    -9.0 | kl 123.4000"
    )


def test_a_metric_without_a_column_is_only_logged(reporter: Reporter, capsys) -> None:
    reporter.step(1, 2.0, {"surprise": 7.5}, **STEP)
    assert "7.5" not in capsys.readouterr().out
    assert lines_of(reporter.path)[0]["surprise"] == 7.5


@pytest.mark.parametrize(("steps", "shown"), [(5, 5), (20, 20), (400, 21), (1000, 21)])
def test_every_step_is_logged_and_about_twenty_are_shown(tmp_path: Path, capsys, steps: int, shown: int) -> None:
    reporter = Reporter("sft", tmp_path, first_step=0, steps=steps)
    for step in range(1, steps + 1):
        reporter.step(step, 2.0, {}, **STEP)
    reporter.close()
    assert [line["step"] for line in lines_of(reporter.path)] == list(range(1, steps + 1))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == shown
    assert lines[0].startswith("step      1/") and lines[-1].startswith(f"step {steps:>6}/")


def test_piped_output_has_only_lines(tmp_path: Path, capsys) -> None:
    reporter = Reporter("sft", tmp_path, first_step=0, steps=2)
    reporter.say("first")
    reporter.step(1, 2.0, {}, **STEP)
    reporter.step(2, 1.0, {}, **STEP)
    reporter.close()
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split(" |")[0] for line in out.split("\n")] == ["first", "step      1/2", "step      2/2", ""]
    assert not re.search(r"[^\n -~]", out)  # no carriage return, no escape


@pytest.mark.parametrize("first_step", [0, 40])
def test_a_terminal_shows_a_progress_bar_below_the_lines(tmp_path, monkeypatch, first_step: int) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    piped = io.StringIO()
    monkeypatch.setattr(sys, "stdout", piped)
    reporter = Reporter("sft", tmp_path, first_step=first_step, steps=50)
    reporter.step(first_step + 1, 2.25, {}, **STEP)
    reporter.step(50, 2.0, {}, **STEP)
    reporter.close()
    drawn = re.split(r"[\r\n]", screen.getvalue())
    assert any(f"{first_step}/50 [" in bar and "<" in bar for bar in drawn)
    assert f"{first_step + 2}/50 [" in drawn[-2] and "loss 2.0000" in drawn[-2]
    assert re.fullmatch(r"(step +\d+/50 \| [^\r\x1b]*\n)+", piped.getvalue())  # lines go to stdout, whole


def test_a_line_replaces_the_progress_bar(tmp_path: Path, monkeypatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    reporter = Reporter("sft", tmp_path, first_step=0, steps=3)
    for step in (1, 2, 3):
        reporter.step(step, 2.0, {}, **STEP)
    reporter.close()
    lines = [text for text in re.split(r"[\r\n]", screen.getvalue()) if " | lr " in text]
    assert [text[:16] for text in lines] == [f"step      {step}/3 | " for step in (1, 2, 3)]


class Clock(datetime):
    """A stopped clock."""

    @classmethod
    def now(cls, tz: object = None) -> "Clock":
        return cls(2031, 5, 6, 7, 8, 9)


def test_runs_started_in_the_same_second_have_two_logs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reporter_module, "datetime", Clock)
    names = []
    for number in range(3):
        reporter = Reporter("sft", tmp_path / "logs", first_step=0, steps=1)
        reporter.event("start", number=number)
        reporter.close()
        names.append(reporter.path.name)
        assert [line["number"] for line in lines_of(reporter.path)] == [number]
    assert names == ["sft-20310506-070809.jsonl", "sft-20310506-070809-2.jsonl", "sft-20310506-070809-3.jsonl"]
    assert lines_of(tmp_path / "logs" / names[0])[0]["number"] == 0


# --- a run does not depend on its report


def test_a_log_that_cannot_be_created_is_a_note(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    reporter = Reporter("sft", tmp_path / "file" / "logs", first_step=0, steps=1)
    reporter.event("start")
    reporter.close()
    assert capsys.readouterr().out == (
        f"note: the log {reporter.path} cannot be written (Not a directory); training continues without it\n"
    )
    assert draw_curves(reporter.path) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_the_log_with_one_note(reporter: Reporter, capsys) -> None:
    reporter._log = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    for step in range(3):
        reporter.event("step", step=step)
    reporter.close()
    assert capsys.readouterr().out.count("cannot be written (No space left on device); training continues") == 1


def test_a_removed_log_folder_ends_the_log_with_one_note(reporter: Reporter, capsys) -> None:
    reporter.event("start")
    shutil.rmtree(reporter.path.parent)
    reporter.event("step", step=1)
    reporter.event("step", step=2)
    assert capsys.readouterr().out.count("cannot be written (No such file or directory); training continues") == 1
    assert draw_curves(reporter.path) is None and capsys.readouterr().out == ""


@pytest.mark.usefixtures("drawn_curves")
@pytest.mark.parametrize("error", [ImportError("no matplotlib"), ValueError("Key backend: 'x' is not a valid value")])
def test_a_picture_that_cannot_be_drawn_is_a_note(reporter: Reporter, monkeypatch, capsys, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("matplotlib.figure.Figure.__init__", fail)
    reporter.event("start", step=0)
    reporter.event("step", step=1, loss=3.5)
    assert draw_curves(reporter.path) is None
    assert capsys.readouterr().out == f"note: the curves were not drawn: {error}\n"


def test_a_picture_of_a_damaged_log_is_a_note(tmp_path: Path, capsys) -> None:
    log = tmp_path / "sft-1.jsonl"
    log.write_text('{"event": "step", "st', encoding="utf-8")
    assert draw_curves(log) is None
    assert "note: the curves were not drawn: " in capsys.readouterr().out


def test_a_log_without_losses_has_no_picture(reporter: Reporter) -> None:
    reporter.event("start", step=0)
    assert draw_curves(reporter.path) is None
    assert list(reporter.path.parent.iterdir()) == [reporter.path]


# --- TensorBoard


def test_tensorboard_has_the_numbers_of_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reporter = Reporter("dpo", tmp_path, first_step=0, steps=2, tensorboard=True)
    reporter.event("start", step=0, settings={"max_lr": 1.0})
    reporter.step(1, 2.5, DPO, **STEP)
    reporter.step(2, math.nan, DPO, **STEP)
    reporter.evaluation(2, "val", {"loss": 2.0, **DPO}, best=True, epoch=0)
    reporter.close()
    found = EventAccumulator(str(reporter.path.with_suffix("")))
    found.Reload()
    train = {"loss", "lr", "grad_norm", "tokens", "tokens_per_s", "step_s", *DPO}
    expected = {f"train/{name}" for name in train} | {f"evaluation/{name}" for name in ("val_loss", *DPO)}
    assert set(found.Tags()["scalars"]) == expected
    assert [(each.step, each.value) for each in found.Scalars("train/loss")] == [(1, 2.5)]
    assert [(each.step, each.value) for each in found.Scalars("evaluation/val_loss")] == [(2, 2.0)]


def test_tensorboard_folder_that_cannot_be_written_is_a_note(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    reporter = Reporter("sft", tmp_path / "file", first_step=0, steps=1, tensorboard=True)
    reporter.step(1, 2.0, {}, **STEP)
    reporter.close()
    assert "note: TensorBoard's files cannot be written (" in capsys.readouterr().out


def test_a_full_disk_ends_tensorboard_with_one_note(tmp_path: Path, monkeypatch, capsys) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    hook = threading.excepthook
    reporter = Reporter("sft", tmp_path, first_step=0, steps=1, tensorboard=True)
    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", fail)
    for step in range(1, 100):
        reporter.event("step", step=step, loss=2.0)
        time.sleep(0.001)  # TensorBoard's thread fails in its own time
    reporter.close()
    out, err = capsys.readouterr()
    assert (
        out
        == "note: TensorBoard's files cannot be written (No space left on device); training continues without them\n"
    )
    assert err == "" and threading.excepthook is hook


def test_tensorboard_without_its_package_is_refused_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("src.training.flags.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^--tensorboard needs the package tensorboard: pip install tensorboard$"):
        flags(tmp_path, tensorboard=True)
