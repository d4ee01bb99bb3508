"""How a chat loads its model."""

import pytest
import torch

from src.chat import start
from src.chat.flags import ModelFlags
from src.chat.start import load_chat_model
from src.data.prompts import TEMPLATE
from tests.fakes import answering_model, save_model


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that PyTorch gets, on a machine for which its own choice is 8."""
    chosen = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(start, "_default_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    return chosen


def test_a_small_model_gets_one_thread_and_a_larger_one_all(threads, tmp_path, monkeypatch):
    save_model(tmp_path / "model.pt", answering_model("Rome."), TEMPLATE)
    flags = ModelFlags(model=str(tmp_path / "model.pt"))
    size = load_chat_model(flags, interactive=False).checkpoint.model.config.parameter_count()[0]
    for limit in (size - 1, size):
        monkeypatch.setattr(start, "_ONE_THREAD_PARAMETERS", limit)
        load_chat_model(flags, interactive=False)
    assert threads == [1, 8, 1]


def test_a_number_of_threads_that_the_user_chose_stays(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    start._choose_threads(1000)
    assert threads == []
