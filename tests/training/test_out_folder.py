"""Only one run at a time uses a folder."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import dpo_train
import finetune_gpt2
import instruction_tune
import main
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.training import out_folder
from src.training.out_folder import LOCK, locked_folder
from tests.repository import ROOT


@contextmanager
def another_run(out: Path) -> Iterator[subprocess.Popen]:
    """A process that holds the folder until it is killed."""
    code = "import sys, pathlib\nfrom src.training.out_folder import locked_folder\n"
    code += "with locked_folder(pathlib.Path(sys.argv[1]), 'sft'):\n    print(flush=True)\n    sys.stdin.read()\n"
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_until_its_run_is_killed(tmp_path: Path) -> None:
    with another_run(tmp_path) as other:
        refused = rf"--out {tmp_path} is in use by another run \(sft, process {other.pid} on .+, started 2.+\); wait .*"
        with pytest.raises(OSError, match=refused), locked_folder(tmp_path, "pretrain"):
            pytest.fail("locked twice")
        other.kill()
        other.wait()
        assert (tmp_path / LOCK).exists()
        with locked_folder(tmp_path, "pretrain"):
            pass


@pytest.mark.parametrize("script", [main, finetune_gpt2, instruction_tune, dpo_train], ids=lambda s: s.__name__)
def test_scripts_refuse_a_folder_in_use_before_they_load_anything(script, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # neither the data nor a base is here
    with locked_folder(Path("run"), "pretrain"):
        with pytest.raises(OSError, match=f"--out run is in use by another run .pretrain, process {os.getpid()} on"):
            script.main(["--out", "run", "--data", "missing"])


def test_training_from_python_locks_the_folder_too(tmp_path: Path) -> None:
    model = GPTModel({**GPT_CONFIGS["micro"], "context_length": 8, "d_model": 16, "n_layers": 1})
    loader = main.create_dataloader(np.arange(100, dtype="uint16"), batch_size=2, context_length=8)
    with locked_folder(tmp_path, "pretrain"), pytest.raises(OSError, match="is in use by another run"):
        main.train(model, loader, None, "cpu", {"out": tmp_path})


@pytest.mark.parametrize("content", [b"", b"\n{", b"\n[1]", b"\n{}", b"\xff\xfe\xfd"])
def test_a_lock_file_that_does_not_name_its_run_still_refuses(tmp_path: Path, content: bytes) -> None:
    with locked_folder(tmp_path, "pretrain"):
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(OSError, match="in use by another run; wait"), locked_folder(tmp_path, "sft"):
            pytest.fail("locked twice")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    for out in (tmp_path, tmp_path / "file" / "out"):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=f"--out {out} cannot be written .*; pass another --out"):
            with locked_folder(out, "sft"):
                pytest.fail("locked")


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    class FullDisk(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="--out .* cannot be written .No space left on device."):
        out_folder._write_holder(FullDisk(), tmp_path, "sft")


def test_a_file_system_without_locks_is_used_with_a_note(tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(out_folder, "lock_descriptor", refuse)
    with locked_folder(tmp_path, "sft"):
        assert capsys.readouterr().out == (
            f"note: {tmp_path} cannot be locked (No locks available); make sure that no other run uses it\n"
        )


def test_temporary_files_of_killed_runs_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f".best_model.pt.{os.getpid()}-0123abcd.tmp"  # a process id that is in use again
    leftover.touch()
    with locked_folder(tmp_path, "sft"):
        assert not leftover.exists()


def test_a_run_that_saves_nothing_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "mine", tmp_path / "new" / "run"):
        with pytest.raises(ValueError), locked_folder(out, "sft"):
            raise ValueError
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with locked_folder(tmp_path / "new" / "run", "sft"):
        (tmp_path / "new" / "run" / "model").touch()
    assert sorted(os.listdir(tmp_path / "new" / "run")) == [LOCK, "model"]


@pytest.mark.parametrize("name", ["best_model.pt", "latest_model.pt"])
def test_a_folder_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with (
        pytest.raises(OSError, match=f"{name} is a folder; move it, or pass another --out"),
        locked_folder(tmp_path, "sft"),
    ):
        pytest.fail("locked")
