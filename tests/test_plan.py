"""python -m src.plan: its memory against what PyTorch really keeps, its time against steps of one and two layers."""

import re
from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from src.model.config import GPTConfig
from src.model.gpt import GPTModel
from src.plan import Config, _trial, main, memory, peak, step_seconds
from src.runtime import choose_runtime
from src.training.losses import language_model_loss
from src.training.optim import MuonAndAdamW, make_adamw

SIZE = GPTConfig(vocab_size=90, context_length=128, d_model=64, n_heads=4, n_layers=3)


def kept_by_autograd(size: GPTConfig, windows: int, *, half: bool) -> int:
    """Bytes that the forward pass keeps for the gradient, beside the weights."""
    model = GPTModel(size)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(size.vocab_size, (windows, size.context_length))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)
    with saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        hidden = model.hidden_states(ids)  # held: what is freed may lend its address to the next
    assert hidden.shape == (windows, size.context_length, size.d_model)
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("changes", [{}, {"d_ff": 96}, {"d_model": 128}])
def test_what_a_layer_keeps_is_what_autograd_keeps(half: bool, changes: dict) -> None:
    size = replace(SIZE, **changes)
    deeper, tokens = replace(size, n_layers=size.n_layers + 2), 16 * size.context_length
    found, planned = (
        of(deeper) - of(size)
        for of in (
            lambda s: kept_by_autograd(s, 16, half=half),
            lambda s: memory(s, tokens, half=half)["gradients and activations"],
        )
    )
    assert planned == pytest.approx(found, rel=0.03)


def nbytes(state: dict) -> int:
    tensors = [value for group in state.values() for value in group.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in tensors if tensor.dim())


def test_weights_moments_and_gradients_are_those_of_a_real_step() -> None:
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


def test_the_time_grows_by_what_a_layer_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {1: iter([90.0, 4.0, 3.0, 5.0, 4.0]), 4: iter([1.0, 9.0, 11.0, 9.5, 10.0]), 2: iter([9.0, 7, 6, 8, 7])}
    monkeypatch.setattr("src.plan._trial", lambda flags, runtime, size: lambda: next(times[size.n_layers]))
    assert step_seconds(Config(model="gpt2-124M"), choose_runtime("cpu", "fp32")) == 3 + 11 * 2
    assert step_seconds(Config(model="micro"), choose_runtime("cpu", "fp32")) == 6


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_trial_step_is_one_of_training(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    """Every micro-batch is read, and the optimizer is the one that is asked for."""
    seen: list[int] = []
    loss_of = language_model_loss
    monkeypatch.setattr("src.plan.language_model_loss", lambda *of: (seen.append(len(of[1].inputs)), loss_of(*of))[1])
    made: list[str] = []
    for name, make in (("make_adamw", make_adamw), ("MuonAndAdamW", MuonAndAdamW)):
        monkeypatch.setattr(f"src.plan.{name}", lambda *a, n=name, m=make, **k: (made.append(n), m(*a, **k))[1])
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("src.plan.time.perf_counter", lambda: next(clock))
    flags = Config(model="micro", batch_size=2, grad_accum=3, context_length=8, optimizer=optimizer)
    assert _trial(flags, choose_runtime("cpu", "fp32"), flags.size(n_layers=1))() == 2.0
    assert seen == [2] * 3
    assert made[:1] == [{"adamw": "make_adamw", "muon": "MuonAndAdamW"}[optimizer]]


def test_accumulated_gradients_lie_beside_the_activations() -> None:
    once, again = (memory(SIZE, 4096, half=False, summed=more) for more in (False, True))
    assert again["gradients and activations"] - once["gradients and activations"] == once["weights"]


def test_the_peak_is_the_program_what_is_held_and_a_fifth_of_that() -> None:
    assert peak({"a": 4e9, "b": 1e9}) == 0.3e9 + 6e9


def test_a_person_reads_memory_and_time_of_a_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = ["--model", "micro", "--batch-size", "1", "--context-length", "16", "--device", "cpu"]
    assert main([*asked, "--precision", "fp32", "--grad-accum", "2", "--optimizer", "muon"]) == 0
    model, device, memory_line, step, run = capsys.readouterr().out.splitlines()
    assert model.startswith("model   micro: 2 layers, 128 wide, 6,831,744 parameters")
    assert device == "device  cpu, fp32 (as asked)"
    assert memory_line.startswith("memory  about 0.")
    assert step.startswith("step    1 x 2 windows of 16 tokens, muon: about ")
    assert run.startswith("run     ") and "tokens a second, a million in about " in run
    for speed, told in ((50.0, "50 tokens a second, a million in about 333.3 min"), (1e5, "about 0.2 min")):
        monkeypatch.setattr("src.plan.step_seconds", lambda *_, speed=speed: 32 / speed)
        main([*asked, "--precision", "fp32", "--grad-accum", "2"])
        assert capsys.readouterr().out.endswith(f"{told}\n")


def test_what_does_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("src.plan.memory_here", lambda device: 8e9)
    monkeypatch.setattr("src.plan._trial", lambda *_: pytest.fail("tried"))
    assert main(["--model", "gpt3-175B", "--precision", "fp32", "--device", "cpu"]) == 0
    *_, found, advice = capsys.readouterr().out.splitlines()
    assert found.endswith("; here are 8.0 GB in all")
    assert advice.strip() == "that does not fit: take a smaller model"
    main(["--model", "gpt2-124M", "--batch-size", "64", "--precision", "fp32", "--device", "cpu"])
    assert capsys.readouterr().out.endswith("that does not fit: take a smaller batch\n")
    monkeypatch.setattr("src.plan.memory_here", lambda device: None)
    main(["--model", "gpt3-175B", "--precision", "fp32", "--device", "cpu"])
    assert "here are an unknown number of GB, taken as 8\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "gpt4"], "--model must be one of micro, tiny, gpt2-124M, .*, got 'gpt4'"),
        (["--batch-size", "0", "--grad-accum", "-1"], "--batch-size must be .* got 0; --grad-accum must be .* got -1"),
    ],
)
def test_a_bad_flag_is_named(argv: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(argv)
    assert re.search(message, capsys.readouterr().err)
