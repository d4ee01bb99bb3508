"""Small models that several tests of decoding share."""

import pytest
import torch

from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from tests.fakes import BYTE_MODEL, ByteEncoding


@pytest.fixture(scope="module")
def model() -> GPTModel:
    """A byte-level model with random weights."""
    torch.manual_seed(0)
    model = GPTModel(BYTE_MODEL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def alphabet_generator() -> TextGenerator:
    """A generator whose model repeats the alphabet."""
    torch.manual_seed(0)
    model = GPTModel({**BYTE_MODEL, "dropout": 0.0})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        ids = 97 + (torch.arange(40) + torch.randint(26, (8, 1))) % 26
        torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return TextGenerator(model.eval(), ByteEncoding())
