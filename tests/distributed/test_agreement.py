"""Training on several processes gives the same model as on one: every stage, both strategies, resumed and restarted."""

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

import dpo_train
import finetune_gpt2
import instruction_tune
import main
from src.checkpoint import read_checkpoint
from src.program import INTERRUPTED
from src.training import loop
from tests.distributed.launch import run_in_processes
from tests.distributed.worker import run_scripts, signalling

pytestmark = pytest.mark.slow

SCRIPTS = {"main": main, "finetune_gpt2": finetune_gpt2, "instruction_tune": instruction_tune, "dpo_train": dpo_train}
WORDS = "the quick brown fox jumps over a lazy dog while seven ships sail north and no one waits for rain".split()
STEPS = 12
TOLERANCE = 3e-4
COMMON = (
    f"--max-steps {STEPS} --eval-every {STEPS} --batch-size 4 --grad-accum 2 --precision fp32 --max-lr 3e-4".split()
)


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


@pytest.fixture(autouse=True)
def in_its_folder(one_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(one_process)


def run_until_stopped(processes: int, command: Mapping[str, Any], *more: str) -> None:
    """Run a command that a signal stops."""
    with pytest.raises(ChildFailedError):
        run_in_processes(run_scripts, [{**command, "arguments": [*command["arguments"], *more]}], processes=processes)


def difference(found: str) -> float:
    """The largest difference between the weights of a folder and those of one process, and between their losses."""
    a, b = (read_checkpoint(Path(folder, "latest_model.pt")) for folder in (found, f"one/{Path(found).name}"))
    weights = max(float((a["model"][name] - b["model"][name]).abs().max()) for name in b["model"])
    return max(weights, *(abs(a[loss] - b[loss]) for loss in ("train_loss", "val_loss")))


ALL = [(strategy, name) for strategy in ("ddp", "fsdp") for name in SCRIPTS]


@pytest.mark.parametrize(("processes", "runs"), [(2, ALL), (4, [("ddp", "instruction_tune"), ("fsdp", "main")])])
def test_several_processes_train_the_model_of_one(processes: int, runs: Sequence[tuple[str, str]]) -> None:
    todo = [
        command
        for strategy, name in runs
        for command in commands(f"{strategy}{processes}", "--strategy", strategy)
        if command["script"] == name
    ]
    run_in_processes(run_scripts, todo, processes=processes)
    for strategy, name in runs:
        assert difference(f"{strategy}{processes}/{name}") < TOLERANCE, (strategy, name)


def test_a_run_moves_from_one_process_to_two_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    [command, *_] = commands("moved")
    latest = Path("moved/main/latest_model.pt")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_train_step", signalling(4, signal.SIGTERM))
        assert main.main(command["arguments"]) == INTERRUPTED
    assert read_checkpoint(latest)["step"] == 4
    run_until_stopped(2, {**command, "rank": 1, "step": 9, "signal": signal.SIGTERM}, "--strategy", "fsdp")
    assert read_checkpoint(latest)["step"] == 9
    assert len(list(latest.parent.glob("parts-*"))) == 1  # under FSDP, each process wrote its shard
    assert main.main(command["arguments"]) == 0
    assert list(latest.parent.glob("parts-*")) == []
    assert difference("moved/main") < TOLERANCE


def test_a_run_moves_from_two_sharded_processes_to_four_and_to_one() -> None:
    [command, *_] = commands("widened", "--keep", "2", "--save-every", "3")
    out, stop = Path("widened/main"), {"rank": 1, "signal": signal.SIGTERM}
    run_until_stopped(2, {**command, **stop, "step": 5}, "--strategy", "fsdp")
    saves = [file.name[:11] for file in sorted(out.glob("step-*.pt"))]
    assert saves == ["step-000003", "step-000005"]
    assert len(list(out.glob("parts-*"))) == 2  # a kept save shares the files of latest_model.pt
    run_until_stopped(4, {**command, **stop, "step": 9}, "--strategy", "ddp")
    assert read_checkpoint(out / "latest_model.pt")["step"] == 9
    assert main.main(command["arguments"]) == 0
    assert difference("widened/main") < TOLERANCE


def test_a_kill_during_a_sharded_save_leaves_the_earlier_one() -> None:
    [command, *_] = commands("killed_save", "--strategy", "fsdp", "--save-every", "4")
    out = Path("killed_save/main")
    run_until_stopped(2, {**command, "rank": 1, "killed_save": 2})
    assert read_checkpoint(out / "latest_model.pt")["step"] == 4
    assert len(list(out.glob("parts-*"))) == 2  # one is incomplete
    run_in_processes(run_scripts, [command])
    assert len(list(out.glob("parts-*"))) == 1
    assert difference("killed_save/main") < TOLERANCE


def test_a_disk_that_fills_up_during_a_sharded_save_leaves_the_earlier_one() -> None:
    [command, *_] = commands("full_disk", "--strategy", "fsdp", "--save-every", "4")
    latest = Path("full_disk/main/latest_model.pt")
    run_until_stopped(2, {**command, "rank": 1, "full_disk": 2})
    problem = "rank 1 could not write its shard (No space left on device); its old content is unchanged"
    assert {file.read_text(encoding="utf-8") for file in Path().glob("error-*")} == {f"{latest}: {problem}"}
    assert read_checkpoint(latest)["step"] == 4
    run_in_processes(run_scripts, [command])
    assert difference("full_disk/main") < TOLERANCE


def test_a_killed_process_is_restarted_and_changes_nothing() -> None:
    [command, *_] = commands("killed", "--no-resume")
    run_in_processes(run_scripts, [{**command, "rank": 1, "step": 8, "signal": signal.SIGKILL}], max_restarts=1)
    assert difference("killed/main") < TOLERANCE
