"""--show-data and --show-mask describe the data and train nothing; --skip-bad leaves bad records out."""

import json
from pathlib import Path

import pytest

import dpo_train
import instruction_tune
from tests.scripts.commands import error, exit_code


def test_show_mask_marks_the_response_and_trains_nothing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert instruction_tune.main(["--show-mask"]) == 0
    output = capsys.readouterr().out
    assert "### Response:\n[[The capital of France is Paris, a city on the river Seine.<|endoftext|>]]" in output
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        (
            instruction_tune,
            ["  records        30", "[[The capital of France is Paris, a city on the river Seine.<|endo"],
        ),
        (
            dpo_train,
            [
                "  pairs          20\n  turns          20, at most 1 per pair",
                "[[The capital of France is Lyon, a large city",
            ],
        ),
    ],
)
def test_show_data_describes_the_data_and_trains_nothing(
    folder: Path, capsys: pytest.CaptureFixture, script, lines: list[str]
) -> None:
    assert script.main(["--show-data"]) == 0
    output = capsys.readouterr().out
    assert all(line in output for line in lines)
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("script", "bad"),
    [(instruction_tune, {"instruction": "a", "output": ""}), (dpo_train, {"instruction": "a", "chosen": "b"})],
)
def test_skip_bad_leaves_bad_records_out(folder: Path, capsys: pytest.CaptureFixture, script, bad: dict) -> None:
    good = {"instruction": "a", "output": "b"} if script is instruction_tune else {**bad, "rejected": "c"}
    Path("mine.json").write_text(json.dumps([good] * 10 + [bad]), "utf-8")
    assert exit_code(script.main, "--data", "mine.json", "--show-data") == 1
    assert "--skip-bad" in error(capsys)
    assert script.main(["--data", "mine.json", "--show-data", "--skip-bad"]) == 0
    assert "note: mine.json: left out 1 of 11 records: " in capsys.readouterr().out
