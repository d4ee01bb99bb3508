"""A fresh clone to run the scripts in, and a small GPT-2 in Hugging Face's format."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.scripts.commands import make_fresh_clone


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unedited_constants: None) -> Path:
    make_fresh_clone(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def hugging_face_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random GPT-2 as transformers saves it."""
    folder = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_positions=64, n_embd=64, n_head=1, n_layer=2)).save_pretrained(folder)
    return folder
