"""A digest covers names, types and values; no damaged bit gives other weights or other values in silence."""

import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.checkpoint import BEST, LATEST, file_sha256, load_model, read_checkpoint, save_checkpoint, weights_sha256
from src.checkpoint.digest import entry_digests
from src.model.gpt import GPTModel
from src.training.optim import make_adamw

CONFIG = {"vocab_size": 7, "context_length": 4, "d_model": 4, "n_heads": 1, "n_layers": 1, "dropout": 0.0}


def content() -> dict[str, Any]:
    """A small checkpoint with plain values of every kind, and an optimizer state."""
    torch.manual_seed(0)
    model = GPTModel(CONFIG)
    optimizer = make_adamw(model, max_lr=0.1, weight_decay=0.1)
    model(torch.arange(4).view(1, 4)).sum().backward()
    optimizer.step()
    return {
        "stage": "sft",
        "config": CONFIG,
        "step": 70_000,
        "train_loss": 1.5,
        "settings": {"compile": True, "resume": None, "data": "my.txt", "betas": (0.9, 0.95), "none": [], "n": -3},
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / LATEST
    save_checkpoint(path, content())
    return path


# --- damage


@pytest.mark.parametrize("mapped", [True, False])
def test_every_flipped_bit_that_changes_content_is_noticed(saved: Path, tmp_path: Path, mapped: bool) -> None:
    intact, path = saved.read_bytes(), tmp_path / LATEST
    expected = entry_digests(read_checkpoint(saved))
    rng, refused = random.Random(0), 0
    for _ in range(120):
        damaged = bytearray(intact)
        damaged[rng.randrange(len(intact))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert entry_digests(read_checkpoint(path, mapped=mapped)) == expected
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 40  # the other bits are padding and unused fields of the archive


@pytest.mark.parametrize("entry", ["model", "optimizer", "settings", "train_loss"])
def test_a_changed_value_is_refused_and_its_entry_named(saved: Path, tmp_path: Path, entry: str) -> None:
    loaded = torch.load(saved, weights_only=True)
    match loaded[entry]:
        case {"ln_f.bias": bias}:
            bias[-1] = 0.5
        case {"state": state}:
            state[0]["exp_avg"][0] += 1
        case {"n": _} as settings:
            settings["compile"] = 1  # equal to True, but another type
        case _:
            loaded[entry] += 1e-9
    path = tmp_path / LATEST
    torch.save(loaded, path)
    with pytest.raises(ValueError) as refused:
        read_checkpoint(path)
    assert str(refused.value).startswith(f"{path}: damaged: {entry!r} changed since saving; 8 others are intact; ")


def test_missing_and_added_entries_are_damage(saved: Path, tmp_path: Path) -> None:
    loaded = torch.load(saved, weights_only=True)
    path = tmp_path / LATEST
    torch.save({name: value for name, value in loaded.items() if name != "step"} | {"steq": 1}, path)
    with pytest.raises(ValueError, match="damaged: 'step', 'steq' changed since saving; 8 others are intact"):
        read_checkpoint(path)
    loaded["dogests"] = loaded.pop("digests")
    torch.save(loaded, path)
    with pytest.raises(ValueError, match="damaged: its digests are unreadable"):
        read_checkpoint(path)


def test_the_model_loads_although_the_optimizer_is_damaged(saved: Path, tmp_path: Path) -> None:
    loaded = torch.load(saved, weights_only=True)
    loaded["optimizer"]["state"][0]["exp_avg"][0] += 1
    torch.save(loaded, tmp_path / LATEST)
    model, metadata = load_model(tmp_path / LATEST)
    assert weights_sha256(model.state_dict()) == weights_sha256(content()["model"])
    assert "optimizer" not in metadata


def test_a_checkpoint_of_version_0_1_has_no_digests(saved: Path, tmp_path: Path) -> None:
    loaded = torch.load(saved, weights_only=True)
    del loaded["digests"]
    torch.save(loaded, tmp_path / BEST)
    assert entry_digests(load_model(tmp_path / BEST)[1]).keys() == loaded.keys() - {"model", "optimizer"}


def test_a_checkpoint_saved_again_gets_new_digests(saved: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / LATEST, {**read_checkpoint(saved), "step": 3})
    assert read_checkpoint(tmp_path / LATEST)["step"] == 3


# --- what a digest covers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (1, 1.0),
        (0.0, -0.0),
        ("a", b"a"),
        ([], {}),
        ([1], (1,)),
        ([[1], 2], [[1, 2]]),
        (None, "None"),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2), torch.tensor([0.0, -0.0])),
    ],
)
def test_different_values_have_different_digests(one: object, other: object) -> None:
    assert entry_digests({"x": one}) != entry_digests({"x": other})


def test_digests_do_not_depend_on_memory_layout_or_order() -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    again = OrderedDict(b=torch.ones(5, dtype=torch.bfloat16)[2:], a=torch.arange(6.0).view(2, 3).t().contiguous().t())
    assert weights_sha256(weights) == weights_sha256(again)
    assert weights_sha256(weights) != weights_sha256({"a": weights["a"], "c": weights["b"]})
    assert weights_sha256({"a": torch.nn.Parameter(weights["a"])}) == weights_sha256({"a": weights["a"]})


def test_the_hash_of_weights_is_independent_of_file_and_version(saved: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    save_checkpoint(tmp_path / BEST, {"model": content()["model"], "config": CONFIG})
    hashes = {weights_sha256(load_model(path)[0].state_dict()) for path in (saved, tmp_path / BEST)}
    assert hashes == {weights_sha256(content()["model"])}
    assert file_sha256(saved) != file_sha256(tmp_path / BEST)


def test_the_hash_of_a_folder_is_of_its_weights_files(tmp_path: Path) -> None:
    for name, part in (("b.safetensors", b"2"), ("a.safetensors", b"1"), ("config.json", b"{}")):
        (tmp_path / name).write_bytes(part)
    assert file_sha256(tmp_path) == hashlib.sha256(b"12").hexdigest()
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(2**20 + 3))
    assert file_sha256(big) == hashlib.sha256(bytes(2**20 + 3)).hexdigest()


# --- content that a checkpoint cannot hold


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def repeated(times: int) -> list:
    """A list with 10 ** times empty lists in it, all the same object."""
    value: list = []
    for _ in range(times):
        value = [value] * 10
    return value


def cyclic() -> list:
    value: list = []
    value.append(value)
    return value


STRANGE: dict[str, tuple[Callable[[], object], str]] = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "contains a sparse, nested, quantized or meta tensor"),
    "meta": (lambda: torch.zeros(3, device="meta"), "contains a sparse, nested, quantized or meta tensor"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "contains a sparse, nested"),
    "nested tensor": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "contains a sparse, nested"),
    "subclass": (lambda: torch.ones(3).as_subclass(Buffer), "contains a Buffer; only plain tensors"),
    "conjugate": (lambda: torch.ones(3, dtype=torch.complex64).conj(), "contains a conjugated view"),
    "deep": (lambda: nested(10_000), "is nested more than 100 levels deep"),
    "cyclic": (cyclic, "is nested more than 100 levels deep"),
    "path": (lambda: {"out": Path("x")}, "contains a PosixPath, which is neither a tensor nor a plain value"),
    "numpy": (lambda: np.float64(1.5), "contains a float64, which is neither"),
}


class Buffer(torch.Tensor):
    """A subclass of Tensor."""


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:.*quantiz")
@pytest.mark.parametrize("kind", list(STRANGE))
def test_strange_content_is_refused(tmp_path: Path, kind: str) -> None:
    make, reason = STRANGE[kind]
    with pytest.raises(ValueError) as refused:
        entry_digests({"stage": "sft", "x": make()})
    assert str(refused.value).startswith(f"entry 'x' {reason.replace('PosixPath', type(Path()).__name__)}")


def test_content_that_repeats_itself_takes_no_longer_than_its_file() -> None:
    entry_digests({"x": repeated(30)})
    tensor = torch.zeros(2**20)
    entry_digests({"x": [tensor.view(2**20) for _ in range(10_000)]}, max_bytes=2**22)


def test_an_expanded_tensor_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / BEST
    weights = {"wte.weight": torch.zeros(1, 1).expand(2**20, 2**20)}  # 4 TiB
    torch.save({"format": "gpt2-pipeline 1", "config": CONFIG, "model": weights}, path)
    with pytest.raises(
        ValueError, match="'model' contains a tensor of shape .1048576, 1048576. that has memory for le"
    ):
        read_checkpoint(path)
    shared = torch.zeros(2**20)
    views = {str(i): torch.as_strided(shared, (2**20 - i,), (1,), i) for i in range(200)}
    torch.save({"format": "gpt2-pipeline 1", "config": CONFIG, "model": views}, path)
    with pytest.raises(ValueError, match="'model' holds tensors that are larger than the file"):
        read_checkpoint(path)


def test_saving_writes_only_the_values_of_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / BEST
    rows = {"slice": torch.arange(2.0**20)[:3], "expanded": torch.ones(1).expand(2, 3), "turned": torch.eye(2, 3).t()}
    save_checkpoint(path, {"model": rows})
    assert path.stat().st_size < 10_000
    found = read_checkpoint(path)["model"]
    assert all(torch.equal(found[name], tensor) for name, tensor in rows.items())
