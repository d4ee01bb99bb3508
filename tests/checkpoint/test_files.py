"""Checkpoints are atomic and self-describing, their code is never executed, and damage is named in one line."""

import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import main
from src.checkpoint import BEST, FORMAT, LATEST, load_checkpoint, load_model, read_checkpoint, save_checkpoint
from src.model.gpt import GPTModel
from tests.checkpoint.small_checkpoint import CONFIG, description, new_model, refusal, same_weights

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # for the damaged files below


# --- saving


def test_a_checkpoint_describes_itself(best: Path, model: GPTModel) -> None:
    content = torch.load(best, weights_only=True)
    assert content["format"] == FORMAT
    assert content["versions"]["torch"] == torch.__version__
    assert content["versions"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    rebuilt = GPTModel(content["config"])
    rebuilt.load_state_dict(content["model"])
    assert same_weights(rebuilt, model)


def test_tied_weights_are_saved_once(best: Path, model: GPTModel) -> None:
    names = list(read_checkpoint(best)["model"])
    assert names.count("wte.weight") == 1 and not [name for name in names if "head" in name]
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert weights < best.stat().st_size < weights + 16_000


def test_saving_creates_the_folder_and_one_file(tmp_path: Path, model: GPTModel) -> None:
    path = tmp_path / "a" / "b" / LATEST
    save_checkpoint(path, description(model))
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_is_flushed_before_it_is_renamed(best: Path, model: GPTModel, monkeypatch) -> None:
    order, flush, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("flush"), flush(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append((Path(a).parent, b)), replace(a, b))[1])
    save_checkpoint(best, description(model))
    assert order == ["flush", (best.parent, best)]


def half_then(act: Callable[[], None]) -> Callable:
    """A torch.save that writes part of the file and then fails."""

    def save(content: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        file.flush()
        act()

    return save


@pytest.mark.parametrize(
    "error", [RuntimeError("writing failed\nat: 1"), OSError(28, "No space left"), KeyboardInterrupt()]
)
def test_a_failed_save_leaves_the_old_file_unchanged(
    best: Path, intact: bytes, monkeypatch, error: BaseException
) -> None:
    def fail() -> None:
        assert list(best.parent.glob(f".{BEST}.*.tmp"))
        raise error

    monkeypatch.setattr(torch, "save", half_then(fail))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError) as failed:
        save_checkpoint(best, description(new_model(1)))
    if isinstance(failed.value, OSError):
        assert str(failed.value).startswith(f"{best}: could not be written (")
        assert str(failed.value).endswith("); its old content is unchanged") and "\n" not in str(failed.value)
    assert best.read_bytes() == intact
    assert list(best.parent.iterdir()) == [best]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_up_leaves_the_old_file_unchanged(best: Path, intact: bytes) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(intact) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written .*; its old content is unchanged") as failed:
            save_checkpoint(best, description(new_model(1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(failed.value)
    assert best.read_bytes() == intact
    assert list(best.parent.iterdir()) == [best]


def test_a_killed_save_leaves_the_old_file_unchanged(best: Path, model: GPTModel, monkeypatch) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(main.__file__).parent)!r})
import torch
from pathlib import Path
from src.checkpoint import save_checkpoint
write = torch.save
def half(content, file):
    write(content, file)
    file.truncate(file.tell() // 2)
    file.flush()
    os._exit(9)  # like kill -9
torch.save = half
save_checkpoint(Path(sys.argv[1]), {{"model": {{"w": torch.zeros(10_000)}}}})
"""
    ended = subprocess.run([sys.executable, "-c", program, str(best)], timeout=120)
    assert ended.returncode == 9
    (left,) = best.parent.glob(f".{BEST}.*.tmp")
    assert left.stat().st_size > 10_000
    assert same_weights(load_model(best)[0], model)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0 if left.exists() else 2**40))
    save_checkpoint(best, description(model))  # deletes the temporary file of the dead process first
    assert list(best.parent.iterdir()) == [best]


def test_a_full_disk_is_reported_before_anything_is_written(best: Path, intact: bytes, monkeypatch) -> None:
    weights = {"w": torch.zeros(20_000_000)}
    asked = []
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("wrote"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=81_000_000))
    with pytest.raises(OSError) as failed:
        save_checkpoint(best, {"model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 1.0}]}})
    assert str(failed.value) == f"{best} needs 96.8 MB, but the disk has only 81.0 MB free; nothing was overwritten"
    assert asked == [best.parent]
    assert best.read_bytes() == intact


def test_the_optimizer_state_is_part_of_the_needed_disk_space(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    content = {"model": {"w": torch.zeros(10)}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3_000_000)}}}}
    with pytest.raises(OSError, match="needs 28.8 MB, but the disk has only 10.0 MB free"):
        save_checkpoint(tmp_path / LATEST, content)


# --- refused files


class Hostile:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("load", [read_checkpoint, load_model])
def test_code_in_a_checkpoint_is_refused_and_never_run(best: Path, load: Callable, zipped: bool) -> None:
    made = best.parent / "made"
    content = {"format": FORMAT, "config": CONFIG, "model": Hostile(made)}
    if zipped:
        torch.save(content, best)
    else:
        best.write_bytes(pickle.dumps(content))
    line = refusal(load, best)
    assert not made.exists()
    if zipped:
        assert f"refused, it contains code ({os.mkdir.__module__}.mkdir), not just tensors and plain values" in line
        torch.load(best, weights_only=False)
        assert made.exists()  # an unsafe load runs the code


@pytest.mark.parametrize("kept", [0, 1, 2, 4, 30, 100, 500, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, -500, -100, -22, -1])
@pytest.mark.parametrize("load", [read_checkpoint, load_model])
def test_a_truncated_checkpoint_is_refused(best: Path, intact: bytes, load: Callable, kept: float) -> None:
    best.write_bytes(intact[: int(kept * len(intact)) if isinstance(kept, float) else kept])
    assert "damaged; make it again" in refusal(load, best)


def test_changed_bytes_are_harmless_or_refused_in_one_line(best: Path, intact: bytes) -> None:
    with zipfile.ZipFile(best) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    start = intact.index(pickled)
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(intact)
        for _ in range(rng.choice((1, 2, 5))):
            damaged[start + rng.randrange(len(pickled))] = rng.randrange(256)
        best.write_bytes(damaged)
        try:
            load_model(best)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{best}: ") and "\n" not in str(error)
    assert refused > 200


def foreign_files(folder: Path, model: GPTModel) -> dict[str, Callable[[Path], object]]:
    """Functions that write files which are not checkpoints of ours."""

    def archive(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme.txt", "no tensors here")

    return {
        "noise": lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
        "text": lambda path: path.write_text("To be, or not to be\n" * 50, encoding="utf-8"),
        "zeros": lambda path: path.write_bytes(bytes(5000)),
        "archive": archive,
        "a state dict": lambda path: torch.save(model.state_dict(), path),
        "a list": lambda path: torch.save([1, 2, 3], path),
        "a tensor": lambda path: torch.save(torch.zeros(3), path),
        "another project's": lambda path: torch.save({"model": model.state_dict(), "config": CONFIG}, path),
        "a later format": lambda path: torch.save({"format": "gpt2-pipeline 99", "model": {}}, path),
    }


@pytest.mark.parametrize("kind", list(foreign_files(Path(), new_model())))
@pytest.mark.parametrize("load", [read_checkpoint, load_model, lambda path: load_checkpoint(path, new_model())])
def test_other_files_are_refused(best: Path, model: GPTModel, kind: str, load: Callable) -> None:
    foreign_files(best.parent, model)[kind](best)
    if load is load_model and kind in ("a state dict", "another project's"):
        assert same_weights(load_model(best)[0], model)
        return
    if kind == "archive":
        with pytest.raises(ValueError, match="best_model.pt: this is a zip archive; unpack it, and pass the folder"):
            load(best)
        return
    reason = "a checkpoint of another ver" if kind == "a later format" else "not a checkpoint of this project"
    assert f": {reason}" in refusal(load, best)


def test_an_empty_folder_is_refused(best: Path) -> None:
    best.unlink()
    with pytest.raises(
        FileNotFoundError, match=f"a folder without {BEST} or .* config.json; make one with python instr"
    ):
        load_model(best.parent)
    with pytest.raises(FileNotFoundError, match="no such checkpoint; make it with one of the training scripts"):
        read_checkpoint(best.parent)


def test_a_missing_file_is_named_with_the_command_to_make_it(best: Path) -> None:
    latest = best.with_name(LATEST)
    for load in (load_model, read_checkpoint):
        with pytest.raises(FileNotFoundError) as missing:
            load(latest)
        reason = "no such checkpoint; make it with python instruction_tune.py, or pass another path"
        assert str(missing.value) == f"{latest}: {reason}"


def test_a_file_without_read_permission_is_not_called_damaged(best: Path, monkeypatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(best))

    monkeypatch.setattr(torch, "load", deny)
    with pytest.raises(PermissionError, match="Permission denied: .*best_model.pt"):
        load_model(best)
