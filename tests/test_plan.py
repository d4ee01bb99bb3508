"""python -m src.plan: its memory estimate against what PyTorch saves, its time estimate against measured steps."""

import re
from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from src.data.batching import Batch
from src.model.config import GPTConfig
from src.model.gpt import GPTModel
from src.plan import LARGEST, Flags, _trial_step, main, step_seconds
from src.runtime import choose_runtime
from src.training.losses import language_model_loss
from src.training.memory import memory, peak
from src.training.optim import MuonAndAdamW, make_adamw, make_optimizer

SIZE = GPTConfig(vocab_size=90, context_length=128, d_model=64, n_heads=4, n_layers=3)


def saved_by_autograd(size: GPTConfig, windows: int, *, half: bool) -> int:
    """Bytes that the forward pass saves for backward, weights excluded."""
    model = GPTModel(size)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(size.vocab_size, (windows, size.context_length))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)
    with saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        hidden = model.hidden_states(ids)  # keep a reference: a freed address could be reused
    assert hidden.shape == (windows, size.context_length, size.d_model)
    return sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in weights)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("changes", [{}, {"d_ff": 96}, {"d_model": 128}])
def test_activation_memory_equals_what_autograd_saves(half: bool, changes: dict) -> None:
    size = replace(SIZE, **changes)
    deeper, tokens = replace(size, n_layers=size.n_layers + 2), 16 * size.context_length
    saved, planned = (
        of(deeper) - of(size)
        for of in (
            lambda s: saved_by_autograd(s, 16, half=half),
            lambda s: memory(s, tokens, half=half)["gradients and activations"],
        )
    )
    assert planned == pytest.approx(saved, rel=0.03)


def nbytes(state: dict) -> int:
    tensors = [value for group in state.values() for value in group.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in tensors if tensor.dim())


def test_weights_moments_and_gradients_match_a_real_step() -> None:
    model = GPTModel(SIZE)
    adamw, muon = make_adamw(model, max_lr=1e-3, weight_decay=0.1), MuonAndAdamW(model, max_lr=1e-3, weight_decay=0.1)
    model(torch.randint(90, (1, 8))).sum().backward()
    adamw.step()
    muon.step()
    parameters = list(model.parameters())
    planned = memory(SIZE, 1, half=False)
    assert planned["weights"] == sum(p.nbytes for p in parameters)
    assert planned["gradients and activations"] >= sum(p.grad.nbytes for p in parameters if p.grad is not None)
    assert planned["moments"] == nbytes(adamw.state)
    both = nbytes(muon.muon.state) + nbytes(muon.adamw.state)
    assert memory(SIZE, 1, half=False, muon=True)["moments"] == pytest.approx(both, rel=0.02)


def test_step_time_is_extrapolated_per_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {1: iter([90.0, 4.0, 3.0, 5.0, 4.0]), 4: iter([1.0, 9.0, 11.0, 9.5, 10.0]), 2: iter([9.0, 7, 6, 8, 7])}
    monkeypatch.setattr("src.plan._trial_step", lambda flags, runtime, size: lambda: next(times[size.n_layers]))
    assert step_seconds(Flags(model="gpt2-124M"), choose_runtime("cpu", "fp32")) == 3 + 11 * 2
    assert step_seconds(Flags(model="micro"), choose_runtime("cpu", "fp32")) == 6


@pytest.mark.parametrize(
    ("larger", "measured", "times"),
    [
        ({"batch_size": 16, "context_length": 256}, (16, 1, 256), 1),
        ({"batch_size": 64, "context_length": 256}, (16, 1, 256), 4),
        ({"batch_size": 4, "context_length": 256, "grad_accum": 40}, (4, 4, 256), 10),
        ({"batch_size": 4, "context_length": 60_000}, (4, 1, 1024), 183.3),  # attention is quadratic in the length
        ({"batch_size": LARGEST, "grad_accum": LARGEST, "context_length": LARGEST}, (4, 1, 1024), None),
    ],
)
def test_a_large_step_is_measured_in_part(
    monkeypatch: pytest.MonkeyPatch, larger: dict, measured: tuple, times
) -> None:
    seen: set[tuple] = set()

    def trial(flags, runtime, size):
        seen.add((flags.batch_size, flags.grad_accum, size.context_length))
        return lambda: 2.0

    monkeypatch.setattr("src.plan._trial_step", trial)
    seconds = step_seconds(Flags(model="micro", **larger), choose_runtime("cpu", "fp32"))
    assert seen == {measured}
    assert times is None or seconds == pytest.approx(2 * times, rel=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_trial_step_is_a_training_step(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    """It runs every micro-batch and updates the weights with the chosen optimizer."""
    seen: list[int] = []

    def loss(model: GPTModel, batch: Batch) -> tuple:
        seen.append(len(batch.inputs))
        return language_model_loss(model, batch)

    monkeypatch.setattr("src.plan.language_model_loss", loss)
    models: list[GPTModel] = []
    made: list[object] = []

    def make(kind: str, model: GPTModel, **settings: float) -> object:
        models.append(model)
        made.append(make_optimizer(kind, model, **settings))
        return made[-1]

    monkeypatch.setattr("src.plan.make_optimizer", make)
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("src.plan.time.perf_counter", lambda: next(clock))
    flags = Flags(model="micro", batch_size=2, grad_accum=3, context_length=8, optimizer=optimizer)
    step = _trial_step(flags, choose_runtime("cpu", "fp32"), flags.size(n_layers=1))
    before = models[0].wte.weight.clone()
    assert step() == 2.0
    assert seen == [2] * 3
    assert [type(made_one) for made_one in made] == [{"adamw": torch.optim.AdamW, "muon": MuonAndAdamW}[optimizer]]
    assert not torch.equal(models[0].wte.weight, before)


def test_accumulated_gradients_add_to_the_activations() -> None:
    once, again = (memory(SIZE, 4096, half=False, accumulated=more) for more in (False, True))
    assert again["gradients and activations"] - once["gradients and activations"] == once["weights"]


def test_peak_adds_the_process_and_a_fifth_for_fragmentation() -> None:
    assert peak({"a": 4e9, "b": 1e9}) == 0.3e9 + 6e9


def test_main_prints_memory_and_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked = ["--model", "micro", "--batch-size", "1", "--context-length", "16", "--device", "cpu"]
    assert main([*asked, "--precision", "fp32", "--grad-accum", "2", "--optimizer", "muon"]) == 0
    model, device, memory_line, here, step, run = capsys.readouterr().out.splitlines()
    assert model.startswith("model   micro: 2 layers, 128 wide, 6,831,744 parameters")
    assert device == "device  cpu, fp32 (as asked)"
    assert memory_line.startswith("memory  about 0.")
    assert here.startswith("here    ")
    assert step.startswith("step    1 x 2 windows of 16 tokens, muon: about ")
    assert run.startswith("run     ") and "tokens per second, a million in about " in run
    for speed, shown in ((50.0, "50 tokens per second, a million in about 333.3 min"), (1e5, "about 0.2 min")):
        monkeypatch.setattr("src.plan.step_seconds", lambda *_, speed=speed: 32 / speed)
        main([*asked, "--precision", "fp32", "--grad-accum", "2"])
        assert capsys.readouterr().out.endswith(f"{shown}\n")


def test_a_model_that_does_not_fit_is_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("src.plan.usable_memory", lambda: (8 * 10**9, "the memory limit of its container"))
    monkeypatch.setattr("src.plan._trial_step", lambda *_: pytest.fail("timed"))
    assert main(["--model", "gpt3-175B", "--precision", "fp32", "--device", "cpu"]) == 0
    *_, found, advice = capsys.readouterr().out.splitlines()
    assert found == "here    8.0 GB, the memory limit of its container"
    assert advice.strip() == "it does not fit: choose a smaller --model"
    for larger in (["--batch-size", "64"], ["--context-length", str(LARGEST)]):
        main(["--model", "gpt2-124M", *larger, "--precision", "fp32", "--device", "cpu"])
        assert capsys.readouterr().out.endswith("it does not fit: lower --batch-size or --context-length\n")
    monkeypatch.setattr("src.plan.usable_memory", lambda: (None, "unknown"))
    main(["--model", "gpt3-175B", "--precision", "fp32", "--device", "cpu"])
    assert "here    unknown, assumed to be 8 GB\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "gpt4"], "--model must be one of micro, tiny, gpt2-124M, .*, got 'gpt4'"),
        (["--batch-size", "0", "--grad-accum", "-1"], "--batch-size must be .* got 0; --grad-accum must be .* got -1"),
        (
            ["--batch-size", str(LARGEST + 1)],
            "--batch-size must be a whole number from 1 to 1,000,000,000, got 1000000001",
        ),
        (["--context-length", "9" * 400], "--context-length must be .*, got '9{5,}\\.\\.\\.9{5,}';"),
    ],
)
def test_a_bad_flag_is_refused_by_name(argv: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(argv)
    assert re.search(message, capsys.readouterr().err)
