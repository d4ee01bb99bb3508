"""`python -m src.checkpoint` says what a model is and where it comes from, also when the files before it are gone."""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from src.checkpoint import BEST, load_base, load_model, save_checkpoint
from src.checkpoint.__main__ import main
from src.checkpoint.lineage import INTACT, ancestors, state_of
from src.model.gpt import GPTModel
from src.tokenizer import describe, load_gpt2_encoding

CONFIG = {"vocab_size": 50257, "context_length": 8, "d_model": 4, "n_heads": 1, "n_layers": 1}


def save(path: Path, stage: str, seed: int, **entries: Any) -> Path:
    torch.manual_seed(seed)
    model = GPTModel(CONFIG)
    content = {"stage": stage, "config": asdict(model.config), "template": None, "step": 7, "epoch": 1}
    tokenizer = describe(load_gpt2_encoding())
    save_checkpoint(path, {**content, "tokenizer": tokenizer, **entries, "model": model.state_dict()})
    return path


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """Three stages, the last one first."""
    first = save(tmp_path / "scratch" / BEST, "pretrain", 0, val_loss=5.5)
    second = save(tmp_path / "sft" / BEST, "sft", 1, val_loss=2.25, parent=load_base(str(first)).parent)
    settings = {"data": "pairs.json", "max_lr": 1e-4, "patience": None}
    losses = {
        "first_loss": 0.69,
        "best_loss": 0.25,
        "train_loss": 0.3,
        "data_sha256": "d" * 64,
        "summary": {"data": "20 pairs"},
    }
    parent = load_base(str(second)).parent
    third = save(tmp_path / "dpo" / BEST, "dpo", 2, parent=parent, settings=settings, **losses)
    return [third, second, first]


def test_a_model_is_described_with_its_whole_chain(chain: list[Path], capsys: pytest.CaptureFixture) -> None:
    assert main([str(chain[0])]) == 0
    rows = {line[:12].strip(): line[12:] for line in capsys.readouterr().out.splitlines()}
    assert rows["model"].startswith(f"{chain[0]}, as requested: ")
    assert rows["size"] == "1 layers, 4 wide, 1 heads, context 8: 201,312 parameters, 252 without the embeddings"
    assert rows["stage"] == "dpo, step 7 (epoch 1), loss before 0.6900, best 0.2500, train 0.3000"
    assert rows["data"] == f"pairs.json, 20 pairs, content SHA-256 {'d' * 64}"
    assert rows["settings"] == "data pairs.json, max_lr 0.0001"
    assert rows["versions"] == f"torch {torch.__version__}, python {platform.python_version()}"
    assert rows["comes from"].startswith(f"{chain[1]} (sft, step 7 (epoch 1), val 2.2500), SHA-256 ")
    assert rows["comes from"].endswith(INTACT)
    assert rows["before"].startswith(f"{chain[2]} (pretrain, step 7 (epoch 1), val 5.5000), SHA-256 ")


def test_the_chain_survives_deleted_and_changed_files(chain: list[Path]) -> None:
    chain[1].unlink()
    save(chain[2], "pretrain", 9)
    found = list(ancestors(load_model(chain[0])[1]))
    assert [each["path"] for each in found] == [str(path) for path in chain[1:]]
    assert [state_of(each) for each in found] == [
        "no longer present",
        "present, but with other weights: it was trained again",
    ]
    chain[2].write_bytes(b"PK")
    assert state_of(found[1]).startswith("unreadable: ")


def test_the_base_of_a_base_is_read_from_its_file(chain: list[Path]) -> None:
    parent = {"path": str(chain[1]), "sha256": "0"}  # as version 0.1 recorded it
    assert [each["path"] for each in ancestors({"parent": parent})] == [str(path) for path in chain[1:]]
    assert state_of(parent) == "present, but with other weights: it was trained again"
    assert list(ancestors({"parent": {"path": ["x"]}})) == list(ancestors({"parent": 3})) == []


def test_control_characters_in_a_checkpoint_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save(tmp_path / BEST, "\x1b[31msft", 0, settings={"data": "\x07"}, parent={"path": "\x1b[2J"}, versions=None)
    assert main([str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\x07" not in output and r"\x1b[31msft" in output


@pytest.mark.parametrize("value", [None, 3, [[]], {"path": 1}, torch.zeros(2), float("nan"), "x" * 10_000], ids=repr)
def test_absurd_entries_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture, value: Any) -> None:
    names = ("stage", "step", "settings", "summary", "source", "val_loss", "data_sha256")
    parent = {"path": "/dev/zero", "ancestors": value}
    save(tmp_path / BEST, **{**dict.fromkeys(names, value), "seed": 0}, parent=parent)
    assert main([str(tmp_path)]) == 0
    assert "no longer present" in capsys.readouterr().out


def test_a_path_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(SystemExit):
        main([])
