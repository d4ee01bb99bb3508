"""A small model and its checkpoint."""

from pathlib import Path

import pytest

from src.checkpoint import BEST, save_checkpoint
from src.model.gpt import GPTModel
from tests.checkpoint.small_checkpoint import description, new_model


@pytest.fixture(scope="module")
def model() -> GPTModel:
    return new_model()


@pytest.fixture(scope="module")
def intact(model: GPTModel, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a valid checkpoint."""
    path = tmp_path_factory.mktemp("intact") / "model.pt"
    save_checkpoint(path, description(model))
    return path.read_bytes()


@pytest.fixture
def best(tmp_path: Path, intact: bytes) -> Path:
    """A valid checkpoint of the SFT stage, in the folder of that stage."""
    path = tmp_path / "instruction_tuned" / BEST
    path.parent.mkdir()
    path.write_bytes(intact)
    return path
