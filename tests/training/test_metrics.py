"""Evaluation: means over all batches, without dropout, gradients or a change of mode."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest
import torch

from src.data.batching import Batch, pack_examples
from src.data.prompts import Example
from src.distributed.processes import Processes
from src.model.gpt import GPTModel
from src.runtime import Runtime
from src.training.losses import language_model_loss
from src.training.metrics import mean_metrics
from src.training.shared_model import SharedModel

CONFIG = {"vocab_size": 61, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 1, "dropout": 0.5}
CPU = Runtime(torch.device("cpu"), "fp32", "for tests")
SHORT = Example([1, 2, 3], [False, False, True])
LONG = Example(list(range(4, 16)), [False] + [True] * 11)


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.train()


def test_loss_is_a_mean_over_targets_not_over_batches(model: GPTModel) -> None:
    def loss(*batches: list[Example]) -> float:
        shared = SharedModel(model, language_model_loss)
        return mean_metrics(shared, [pack_examples(batch) for batch in batches], CPU)["loss"]

    apart, together = loss([SHORT], [LONG]), loss([SHORT, LONG])
    short, long = loss([SHORT]), loss([LONG])
    assert apart == pytest.approx(together, rel=1e-5)
    assert apart == pytest.approx((1 * short + 11 * long) / 12, rel=1e-5)
    assert apart != pytest.approx((short + long) / 2, rel=1e-2)


def test_metrics_are_means_over_the_same_count(model: GPTModel) -> None:
    def loss(model: GPTModel, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return torch.tensor(6.0), {"kl": torch.tensor(3.0), "accuracy": torch.tensor(12.0)}

    batches = [pack_examples([SHORT]), pack_examples([LONG])]
    assert mean_metrics(SharedModel(model, loss), batches, CPU) == {"loss": 1.0, "kl": 0.5, "accuracy": 2.0}


def test_evaluation_has_no_dropout_and_no_gradients(model: GPTModel) -> None:
    batches = [pack_examples([SHORT, LONG])]
    first = mean_metrics(SharedModel(model, language_model_loss), batches, CPU)
    assert mean_metrics(SharedModel(model, language_model_loss), batches, CPU) == first
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_evaluation_uses_the_device_and_precision(model: GPTModel) -> None:
    log = []

    @dataclass(frozen=True)
    class Spy:
        device: str = "a device"
        processes: Processes = Processes()

        def autocast(self) -> AbstractContextManager:
            log.append("autocast")
            return nullcontext()

    class Moving(Batch):
        def to(self, device: object) -> "Moving":
            log.append(device)
            return self

    batch = pack_examples([SHORT])
    mean_metrics(SharedModel(model, language_model_loss), [Moving(batch.inputs, batch.targets)], Spy())
    assert log == ["autocast", "a device"]
