"""Checkpoints whose tensors are in files of their own: the same content, damage named, converted in both directions."""

from pathlib import Path
from typing import Any

import pytest
import torch

from src.checkpoint import load_model, read_checkpoint, save_checkpoint, weights_sha256
from src.checkpoint.__main__ import main
from src.checkpoint.files import read_without_parts
from src.checkpoint.parts import put_tensors, take_tensors
from src.model.gpt import GPTModel
from src.training.optim import MuonAndAdamW

CONFIG = {"vocab_size": 61, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the state of an optimizer that has taken a step."""
    model = GPTModel(CONFIG)
    optimizer = MuonAndAdamW(model, max_lr=1e-3, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    path = tmp_path_factory.mktemp("one") / "latest_model.pt"
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "config": CONFIG, "step": 3}
    save_checkpoint(path, {**content, "run_id": "abc123"})
    return path


@pytest.fixture
def in_parts(one_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "latest_model.pt"
    assert main([str(one_file), "--in-parts", str(path)]) == 0
    return path


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else bool(a == b)


def test_a_checkpoint_in_parts_has_the_content_of_one_file(one_file: Path, in_parts: Path) -> None:
    assert same(read_checkpoint(in_parts), read_checkpoint(one_file))
    assert weights_sha256(load_model(in_parts)[0].state_dict()) == weights_sha256(load_model(one_file)[0].state_dict())
    assert in_parts.stat().st_size < 20_000


def test_conversion_and_back_changes_nothing(one_file: Path, in_parts: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pt"
    assert main([str(in_parts), "--one-file", str(again)]) == 0
    assert same(read_checkpoint(again), read_checkpoint(one_file))


def test_a_conversion_overwrites_nothing(one_file: Path, in_parts: Path) -> None:
    with pytest.raises(FileExistsError, match="exists already; pass another name"):
        main([str(one_file), "--in-parts", str(in_parts)])


def test_tensors_are_taken_and_put_back(one_file: Path) -> None:
    content = read_checkpoint(one_file)
    rest, tensors = take_tensors(content)
    assert "model/h.1.mlp.c_fc.weight" in tensors and "optimizer/adamw/state/0/exp_avg" in tensors
    assert rest["optimizer"]["adamw"]["state"][0].keys() == {"step"}
    assert same(put_tensors(rest, tensors), content)
    content["optimizer"]["adamw"]["state"][0]["step"] += 1  # as training does while a save is being written
    assert rest["optimizer"]["adamw"]["state"][0]["step"] == 1


def test_the_weights_are_read_without_the_optimizer(in_parts: Path) -> None:
    content = read_checkpoint(in_parts, without=("optimizer",))
    assert "optimizer" not in content and content["model"].keys() == GPTModel(CONFIG).state_dict().keys()


def files_of(path: Path) -> list[Path]:
    _, parts = read_without_parts(path)
    assert parts is not None
    return sorted(parts.folder.iterdir())


def test_a_changed_byte_is_refused_and_the_file_named(in_parts: Path) -> None:
    file = files_of(in_parts)[1]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"latest_model.pt: damaged: .*{file.name} changed since saving"):
        read_checkpoint(in_parts)


def test_missing_and_added_files_are_damage(in_parts: Path) -> None:
    first, second = files_of(in_parts)[:2]
    first.rename(first.with_name("x.safetensors"))
    with pytest.raises(ValueError, match="is missing or not part of it"):
        read_checkpoint(in_parts)
    first.with_name("x.safetensors").unlink()
    with pytest.raises(ValueError, match=f"{first.name} is missing"):
        read_checkpoint(in_parts)


def test_a_missing_folder_is_named(in_parts: Path) -> None:
    folder = files_of(in_parts)[0].parent
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ValueError, match=f"its tensors are in the folder .*{folder.name}, which is missing"):
        read_checkpoint(in_parts)


@pytest.mark.parametrize(
    "entry", [None, {}, {"folder": "../x", "files": {"a": "b"}}, {"folder": "parts-1", "files": {}}, {"folder": 3}]
)
def test_an_unreadable_entry_is_damage(one_file: Path, tmp_path: Path, entry: object) -> None:
    content, _ = take_tensors(read_checkpoint(one_file))
    save_checkpoint(tmp_path / "x.pt", {**content, "parts": entry})
    with pytest.raises(ValueError, match="its entry 'parts' is unreadable"):
        read_checkpoint(tmp_path / "x.pt")
