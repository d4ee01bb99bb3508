"""A small model, the content of its checkpoint, and how a refusal is tested."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from src.model.gpt import GPTModel
from src.tokenizer import describe
from src.tokenizer.core.constants import RESERVED
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.tokenizers.factory import create_tokenizer

CONFIG = {"vocab_size": 61, "context_length": 16, "d_model": 64, "n_heads": 1, "n_layers": 2, "dropout": 0.0}
TOKENIZER = describe(create_tokenizer("simple", Vocabulary([*RESERVED, "be", "or", "to"], ())))
IDS = torch.arange(12).view(1, 12)


def new_model(seed: int = 0, **changes: Any) -> GPTModel:
    torch.manual_seed(seed)
    model = GPTModel({**CONFIG, **changes}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def description(model: GPTModel) -> dict[str, Any]:
    """The content of a checkpoint without optimizer state."""
    return {
        "stage": "sft",
        "config": asdict(model.config),
        "epoch": 2,
        "step": 30,
        "train_loss": 1.5,
        "val_loss": None,
        "seed": 7,
        "template": "a template",
        "tokenizer": TOKENIZER,
        "parent": {"path": "checkpoints/a.pt", "weights_sha256": "0" * 64},
        "model": model.state_dict(),
    }


def refusal(load: Callable[[Path], object], path: Path) -> str:
    """The one-line ValueError of a refused file. It names the file and the command to run."""
    with pytest.raises(ValueError) as refused:
        load(path)
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    assert line.endswith("with python instruction_tune.py")
    return line


def same_weights(model: GPTModel, other: GPTModel) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
