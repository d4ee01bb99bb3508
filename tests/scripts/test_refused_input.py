"""Bad input and bad usage end a script with one line, an exit code, and no files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import chat
import dpo_train
import finetune_gpt2
import instruction_tune
import main
from tests.scripts.commands import PRETRAIN, SHORT, error, exit_code


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        (instruction_tune, [], ["checkpoints/scratch/best_model.pt: not found", "python main.py"]),
        (dpo_train, [], ["checkpoints/instruction_tuned/best_model.pt: not found", "python instruction_tune.py"]),
        (chat, ["--prompt", "hi"], ["not found", "python main.py"]),
        (chat, ["--model", "dpo", "--prompt", "hi"], ["checkpoints/dpo_aligned", "python dpo_train.py"]),
        (instruction_tune, ["--base", "nowhere.pt"], ["nowhere.pt: no such file"]),
        (instruction_tune, ["--base", "verse.txt"], ["verse.txt"]),
        (instruction_tune, ["--data", "nowhere.json"], ["nowhere.json not found", "--data"]),
        (instruction_tune, ["--data", "verse.txt"], ["verse.txt", "JSON"]),
        (main, ["--data", "nowhere.txt"], ["nowhere.txt not found", "--data"]),
        (main, ["--data", "verse.txt", "--context-length", "5000"], ["5001", "--context-length"]),
        (main, ["--data", "verse.txt", "--precision", "fp16", "--device", "cpu"], ["--precision fp16", "CUDA"]),
        (finetune_gpt2, [*SHORT, "--data", "verse.txt", "--weights", "nowhere"], ["nowhere"]),
        (finetune_gpt2, [*SHORT, "--data", "verse.txt", "--model", "gpt3-175B"], ["gpt3-175B", "gpt2-124M"]),
    ],
)
def test_missing_or_bad_input_is_one_line_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture, script, argv: list[str], words: list[str]
) -> None:
    assert exit_code(script.main, *argv) == 1
    line = error(capsys)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        (main, ["--max-step", "3"], ["--max-step", "did you mean --max-steps?"]),
        (main, ["--steps", "3"], ["--steps", "did you mean --warmup-steps or --max-steps?"]),
        (main, ["--batch-size", "0"], ["--batch-size must be at least 1, got 0"]),
        (main, ["--max-lr", "fast"], ["--max-lr", "fast"]),
        (main, ["--model", "gigantic"], ["--model gigantic: no such size", "gpt2-124M"]),
        (main, ["--min-lr", "1", "--max-lr", "0.5", "--dropout", "2"], ["--min-lr", "--dropout"]),
        (dpo_train, ["--beta", "0"], ["--beta must be above 0"]),
        (dpo_train, ["--loss", "kto"], ["kto", "sigmoid"]),
        (dpo_train, ["--label-smoothing", "0.1"], ["--label-smoothing works only with --loss robust"]),
        (instruction_tune, ["--turns", "0"], ["--turns must be at least 1"]),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture, script, argv: list[str], words: list[str]
) -> None:
    assert exit_code(script.main, *argv) == 2
    line = error(capsys)
    for word in words:
        assert word in line


@pytest.mark.parametrize("script", [main.main, instruction_tune.main])
def test_out_must_not_be_a_file(folder: Path, capsys: pytest.CaptureFixture, script: Callable) -> None:
    Path("taken").write_text("mine", encoding="utf-8")
    assert exit_code(script, "--out", "taken") == 2
    assert "--out must be a folder, taken is a file" in error(capsys)
    assert Path("taken").read_text(encoding="utf-8") == "mine"


def test_learning_rates_are_checked_after_the_recipe(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.main([*PRETRAIN, "--min-lr", "0.001"]) == 0  # above the constant, below micro's
    assert "learning rate  0.01 to 0.001" in capsys.readouterr().out
    assert exit_code(main.main, *PRETRAIN, "--min-lr", "1") == 1
    assert "--min-lr must not be above --max-lr, got 1 and" in error(capsys)


def test_a_failed_fine_tuning_leaves_no_conversion_behind(
    folder: Path, hugging_face_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = ["--weights", str(hugging_face_folder), "--data", "verse.txt"]
    assert exit_code(finetune_gpt2.main, *weights, "--context-length", "65") == 1
    note, line = capsys.readouterr().err.splitlines()
    assert note.endswith("has no tokenizer files: assuming GPT-2's")
    assert line == "error: --context-length 65: the model's is 64"
    assert not Path("checkpoints/gpt2_pretrained.pt").exists()


def test_a_bad_record_fails_before_anything_is_loaded(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("mine.json").write_text(json.dumps([{"instruction": "a", "response": "b"}, {"instruction": "c"}]), "utf-8")
    assert exit_code(instruction_tune.main, "--data", "mine.json") == 1
    assert "mine.json record 2: 'response' or 'output' is missing" in error(capsys)
    assert not Path("checkpoints").exists() and not Path("logs").exists()
