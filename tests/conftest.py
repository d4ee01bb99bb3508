"""Fixtures that apply to every test."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The models in the tests are so small that more threads only slow them down."""
    torch.set_num_threads(1)
