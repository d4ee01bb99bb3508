"""A run that does not fit in memory is refused before the model is built. A trial step chooses the precision."""

import json
from pathlib import Path

import pytest

import dpo_train
import finetune_gpt2
import instruction_tune
import main
from src.training import parallel
from tests.scripts.commands import exit_code


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        (main, ["--data", "verse.txt", "--model", "gpt3-175B"]),
        (finetune_gpt2, ["--data", "verse.txt", "--model", "gpt2-1558M"]),
        (finetune_gpt2, ["--data", "verse.txt"]),
        (instruction_tune, []),
        (dpo_train, []),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_it_is_built(
    folder: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    hugging_face_folder: Path,
    script,
    argv,
) -> None:
    if not argv or argv[-1] == "verse.txt":
        source = "--weights" if script is finetune_gpt2 else "--base"
        argv = [*argv, source, str(hugging_face_folder), "--context-length", "32"]
    monkeypatch.setattr("src.training.fit.usable_memory", lambda: (10**8, "the memory limit of its container"))
    monkeypatch.setattr("src.training.fit.swap_space", lambda: 0)
    with monkeypatch.context() as patch:
        patch.setattr("src.training.shared_model.GPTModel", lambda config: pytest.fail("built"))
        patch.setattr("main.prepare_data", lambda *_: pytest.fail("tokenised"))
        patch.setattr("src.checkpoint.other_weights.load_gpt2", lambda *_: pytest.fail("loaded"))
        patch.setattr(
            "src.training.pretrained.find_weights",
            lambda source: Path(source) if "hf" in str(source) else pytest.fail("downloaded"),
        )
        assert exit_code(script.main, *argv) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: this run does not fit in memory: a step needs about ")
    assert "there are 0.1 GB, the memory limit of its container; " in line
    if "gpt" not in argv[-1]:
        assert exit_code(script.main, *argv, "--no-memory-check", "--max-steps", "1", "--device", "cpu") == 0


@pytest.mark.parametrize("script", [instruction_tune, dpo_train])
def test_the_lengths_of_records_decide_whether_they_fit(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, hugging_face_folder: Path, script
) -> None:
    """A step is refused for the tokens in it, not for those that the context could hold."""
    short = json.dumps([{"instruction": "Why?", "response": "So.", "chosen": "So.", "rejected": "No."}] * 4)
    long = short.replace("So.", "so " * 50)
    seen: list[int] = []
    require = parallel.require_fit
    monkeypatch.setattr(
        parallel, "require_fit", lambda work, device: (seen.append(work.context_length), require(work, device))
    )
    for text in (short, long):
        Path("records.json").write_text(text, encoding="utf-8")
        argv = ["--data", "records.json", "--base", str(hugging_face_folder), "--max-steps", "1", "--device", "cpu"]
        argv += ["--system-share", "0"] if script is instruction_tune else []
        assert exit_code(script.main, *argv, "--val-fraction", "0", "--no-resume") == 0
    *early_short, short_tokens = seen[:3]  # before the model is loaded, after it, and before the first step
    *early_long, long_tokens = seen[3:]
    assert early_short == early_long == [1, 1]
    assert short_tokens < 25 < long_tokens < 64


def test_the_trial_of_tuning_has_the_width_of_the_base(
    folder: Path, hugging_face_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.runtime.has_bf16_products", lambda device: True)
    monkeypatch.setattr("src.runtime._bf16_gain", lambda device, packed_width: 9.0 if packed_width == 64 else 0.5)
    asked = ["--base", str(hugging_face_folder), "--max-steps", "1", "--device", "cpu"]
    assert exit_code(instruction_tune.main, *asked) == 0
    assert "cpu, bf16 (a trial step ran 9.0 times as fast as in fp32)" in capsys.readouterr().out
