"""The time of a step: how it is extrapolated from what is measured, and that a real training step is measured."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from src.data.batching import Batch, PairBatch
from src.model.gpt import GPTModel
from src.planning import timing
from src.planning.flags import LIMITS, Flags
from src.planning.timing import _trial_step, measure_step
from src.runtime import choose_runtime
from src.training.losses import language_model_loss
from src.training.optim import MuonAndAdamW, make_optimizer
from tests.distributed.launch import START_METHOD, import_once

CPU = choose_runtime("cpu", "fp32")


def test_step_time_is_extrapolated_per_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {1: iter([90.0, 4.0, 3.0, 5.0, 4.0]), 4: iter([1.0, 9.0, 11.0, 9.5, 10.0]), 2: iter([9.0, 7, 6, 8, 7])}
    monkeypatch.setattr(timing, "_trial_step", lambda flags, runtime, layers: lambda: next(times[layers]))
    assert measure_step(Flags(model="gpt2-124M"), CPU, 1) == 3 + 11 * 2
    assert measure_step(Flags(model="micro"), CPU, 1) == 6


@pytest.mark.parametrize(
    ("larger", "measured", "times"),
    [
        ({"batch_size": 16, "context_length": 256}, (16, 1, 256), 1),
        ({"batch_size": 64, "context_length": 256}, (16, 1, 256), 4),
        ({"batch_size": 4, "context_length": 256, "grad_accum": 40}, (4, 4, 256), 10),
        ({"batch_size": 4, "context_length": 60_000}, (4, 1, 1024), 183.3),  # attention is quadratic in the length
        ({name: LIMITS[name] for name in ("batch_size", "grad_accum", "context_length")}, (4, 1, 1024), None),
    ],
)
def test_a_large_step_is_measured_in_part(
    monkeypatch: pytest.MonkeyPatch, larger: dict, measured: tuple, times: float | None
) -> None:
    seen: set[tuple] = set()

    def trial(flags, runtime, layers):
        seen.add((flags.batch_size, flags.grad_accum, flags.context_length))
        return lambda: 2.0

    monkeypatch.setattr(timing, "_trial_step", trial)
    seconds = measure_step(Flags(model="micro", **larger), CPU, 1)
    assert seen == {measured}
    assert times is None or seconds == pytest.approx(2 * times, rel=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_trial_step_is_a_training_step(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    """It runs every micro-batch and updates the weights with the chosen optimizer."""
    seen: list[int] = []

    def loss(model: GPTModel, batch: Batch) -> tuple:
        seen.append(len(batch.inputs))
        return language_model_loss(model, batch)

    monkeypatch.setattr(timing, "language_model_loss", loss)
    models: list[GPTModel] = []
    made: list[object] = []

    def make(kind: str, model: GPTModel, **settings: float) -> object:
        models.append(model)
        made.append(make_optimizer(kind, model, **settings))
        return made[-1]

    monkeypatch.setattr(timing, "make_optimizer", make)
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("src.planning.timing.time.perf_counter", lambda: next(clock))
    flags = Flags(model="micro", batch_size=2, grad_accum=3, context_length=8, vocab_size=300, optimizer=optimizer)
    step = _trial_step(flags, CPU, layers=1)
    before = models[0].wte.weight.clone()
    assert step() == 2.0
    assert seen == [2] * 3
    assert [type(made_one) for made_one in made] == [{"adamw": torch.optim.AdamW, "muon": MuonAndAdamW}[optimizer]]
    assert len(models[0].h) == 1 and not torch.equal(models[0].wte.weight, before)


def test_dpo_is_measured_on_pairs_of_half_prompt_and_half_answer() -> None:
    flags = Flags(model="micro", stage="dpo", batch_size=2, context_length=8, vocab_size=300)
    batch, _ = timing._batch(flags, 2)
    assert isinstance(batch, PairBatch) and (batch.n_pairs, batch.n_supervised) == (2, 2 * 8)
    assert _trial_step(flags, CPU, layers=1)() > 0


def test_a_machine_with_one_cpu_measures_one_of_several_processes() -> None:
    flags = Flags(model="micro", batch_size=2, context_length=8, vocab_size=300, processes=2)
    assert 0 < measure_step(flags, replace(CPU, strategy="ddp"), 1) < 10


@pytest.mark.slow
def test_several_processes_are_measured_together(monkeypatch: pytest.MonkeyPatch) -> None:
    import_once()
    fork = partial(torch.multiprocessing.start_processes, start_method=START_METHOD)
    monkeypatch.setattr(torch.multiprocessing, "spawn", fork)  # two that import PyTorch take longer than they measure
    flags = Flags(model="micro", batch_size=2, context_length=8, vocab_size=300, processes=2)
    assert 0 < measure_step(flags, replace(CPU, strategy="fsdp"), 2) < 10
