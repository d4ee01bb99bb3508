"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The models here are so small that threads cost more than they give."""
    torch.set_num_threads(1)
