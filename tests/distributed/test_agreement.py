"""Training on several processes gives the same model as on one: every stage, both strategies, resumed and restarted."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import dpo_train
import finetune_gpt2
import instruction_tune
import main
from src.checkpoint import read_checkpoint
from src.program import INTERRUPTED
from src.training import loop
from tests.distributed.worker import signalling
from tests.repository import ROOT

pytestmark = pytest.mark.slow

SCRIPTS = {"main": main, "finetune_gpt2": finetune_gpt2, "instruction_tune": instruction_tune, "dpo_train": dpo_train}
WORDS = "the quick brown fox jumps over a lazy dog while seven ships sail north and no one waits for rain".split()
STEPS = 20
TOLERANCE = 3e-4
COMMON = f"--max-steps {STEPS} --eval-every 20 --batch-size 4 --grad-accum 2 --precision fp32 --max-lr 3e-4".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data whose examples differ in length and do not fill the last step of an epoch."""
    folder = tmp_path_factory.mktemp("distributed")
    text = "\n".join(" ".join(WORDS[i * j % len(WORDS)] for j in range(1, 12)) for i in range(60))
    (folder / "text.txt").write_text(text)
    answers = [" ".join(WORDS[i % 9 : i % 9 + 1 + i % 7]) for i in range(27)]
    records = [{"instruction": f"{WORDS[i % 20]} {WORDS[i % 7]}", "response": answers[i]} for i in range(27)]
    pairs = [
        {"instruction": r["instruction"], "chosen": r["response"], "rejected": f"rain {answers[i - 4]}"}
        for i, r in enumerate(records)
    ]
    (folder / "sft.json").write_text(json.dumps(records))
    (folder / "dpo.json").write_text(json.dumps(pairs))
    return folder


def commands(out: str, *more: str) -> list[dict[str, Any]]:
    """Every stage, each from the model that one process trained in the stage before."""
    text = ["--data", "text.txt", "--context-length", "16", "--dropout", "0"]
    stages = {
        "main": ["--tokenizer", "word", "--optimizer", "adamw", *text],
        "finetune_gpt2": ["--weights", "one/main/best_model.pt", "--optimizer", "muon", *text],
        "instruction_tune": ["--base", "one/main/best_model.pt", "--data", "sft.json", "--val-fraction", "0.1"],
        "dpo_train": ["--base", "one/instruction_tune/best_model.pt", "--data", "dpo.json", "--val-fraction", "0.1"],
    }
    return [
        {"script": name, "arguments": [*arguments, *COMMON, "--out", f"{out}/{name}", "--log-dir", out, *more]}
        for name, arguments in stages.items()
    ]


@pytest.fixture(scope="module")
def one_process(folder: Path) -> Path:
    """The folder, in which one process has trained every stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands("one"):
            assert SCRIPTS[command["script"]].main(command["arguments"]) == 0
    return folder


def torchrun(folder: Path, processes: int, todo: Sequence[Mapping[str, Any]], *options: str) -> int:
    """Run the commands in several processes; returns the exit code of torchrun."""
    (folder / "commands.json").write_text(json.dumps(todo))
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={processes}",
        "--standalone",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    worker = [str(ROOT / "tests/distributed/worker.py"), "commands.json"]
    result = subprocess.run([*launcher, *worker], cwd=folder, env=environment, capture_output=True, timeout=300)
    print(result.stdout.decode()[-3000:], result.stderr.decode()[-3000:])  # pytest shows it if the test fails
    return result.returncode


def difference(found: Path, expected: Path) -> float:
    """The largest difference between the weights of two checkpoints, and between their losses."""
    a, b = (read_checkpoint(path / "latest_model.pt") for path in (found, expected))
    weights = max(float((a["model"][name] - b["model"][name]).abs().max()) for name in b["model"])
    return max(weights, *(abs(a[loss] - b[loss]) for loss in ("train_loss", "val_loss")))


ALL = [(strategy, name) for strategy in ("ddp", "fsdp") for name in SCRIPTS]


@pytest.mark.parametrize(("processes", "runs"), [(2, ALL), (4, [("ddp", "instruction_tune"), ("fsdp", "main")])])
def test_several_processes_train_the_model_of_one(
    one_process: Path, processes: int, runs: Sequence[tuple[str, str]]
) -> None:
    todo = [
        command
        for strategy, name in runs
        for command in commands(f"{strategy}{processes}", "--strategy", strategy)
        if command["script"] == name
    ]
    assert torchrun(one_process, processes, todo) == 0
    for strategy, name in runs:
        found = difference(one_process / f"{strategy}{processes}" / name, one_process / "one" / name)
        assert found < TOLERANCE, (strategy, name)


def test_a_run_moves_from_one_process_to_two_and_back(one_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [command, *_] = commands("moved")
    arguments, latest = command["arguments"], one_process / "moved/main/latest_model.pt"
    monkeypatch.chdir(one_process)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_step", signalling(6, signal.SIGTERM))
        assert main.main(arguments) == INTERRUPTED
    assert read_checkpoint(latest)["step"] == 6
    stopped = {
        **command,
        "arguments": [*arguments, "--strategy", "fsdp"],
        "rank": 1,
        "step": 13,
        "signal": signal.SIGTERM,
    }
    assert torchrun(one_process, 2, [stopped]) != 0
    assert read_checkpoint(latest)["step"] == 13
    assert len(list(latest.parent.glob("parts-*"))) == 1  # under FSDP, each process wrote its part
    assert main.main(arguments) == 0
    assert list(latest.parent.glob("parts-*")) == []
    assert difference(one_process / "moved/main", one_process / "one/main") < TOLERANCE


def test_a_run_moves_from_two_divided_processes_to_four_and_to_one(
    one_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [command, *_] = commands("widened", "--keep", "2", "--save-every", "3")
    out, stop = one_process / "widened/main", {"rank": 1, "signal": signal.SIGTERM}
    stopped = {**command, **stop, "step": 7, "arguments": [*command["arguments"], "--strategy", "fsdp"]}
    assert torchrun(one_process, 2, [stopped]) != 0
    saves = [file.name[:11] for file in sorted(out.glob("step-*.pt"))]
    assert saves == ["step-000006", "step-000007"]
    assert len(list(out.glob("parts-*"))) == 2  # a kept save shares the files of latest_model.pt
    stopped = {**command, **stop, "step": 14, "arguments": [*command["arguments"], "--strategy", "ddp"]}
    assert torchrun(one_process, 4, [stopped]) != 0
    assert read_checkpoint(out / "latest_model.pt")["step"] == 14
    monkeypatch.chdir(one_process)
    assert main.main(command["arguments"]) == 0
    assert difference(out, one_process / "one/main") < TOLERANCE


def test_a_kill_during_a_divided_save_leaves_the_earlier_one(
    one_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [command, *_] = commands("killed_save", "--strategy", "fsdp", "--save-every", "5")
    out = one_process / "killed_save/main"
    assert torchrun(one_process, 2, [{**command, "rank": 1, "killed_save": 2}]) != 0
    assert read_checkpoint(out / "latest_model.pt")["step"] == 5
    assert len(list(out.glob("parts-*"))) == 2  # one is incomplete
    assert torchrun(one_process, 2, [command]) == 0
    assert len(list(out.glob("parts-*"))) == 1
    assert difference(out, one_process / "one/main") < TOLERANCE


def test_a_killed_process_is_restarted_and_changes_nothing(one_process: Path) -> None:
    [command, *_] = commands("killed", "--no-resume")
    killed = {**command, "rank": 1, "step": 14, "signal": signal.SIGKILL}
    assert torchrun(one_process, 2, [killed], "--max-restarts=1") == 0
    assert difference(one_process / "killed/main", one_process / "one/main") < TOLERANCE
