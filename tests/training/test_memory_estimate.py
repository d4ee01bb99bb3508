"""The memory estimate: against what autograd, the optimizers and a real step hold."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.gpt import GPTModel
from src.model.lora import TARGETS, Targets, add_lora
from src.training.memory_estimate import FRAGMENTATION, PROCESS_BASELINE, Workload, memory_by_purpose, peak
from src.training.optim import MuonAndAdamW, make_adamw

SIZE = GPTConfig(vocab_size=90, context_length=128, d_model=64, n_heads=4, n_layers=3)
RANK = 4
WORK = Workload(config=SIZE, batch_size=16, context_length=128)


def saved_by_autograd(size: GPTConfig, windows: int, *, half: bool, targets: Targets | None = None) -> int:
    """Bytes that the forward pass saves for backward, weights excluded."""
    model = GPTModel(size)
    if targets:
        add_lora(model, rank=RANK, alpha=1.0, seed=0, targets=targets)
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


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("half", [False, True])
def test_an_adapter_saves_fewer_activations(half: bool, targets: Targets) -> None:
    work = replace(WORK, half=half, lora=RANK, lora_targets=targets)
    deeper = replace(SIZE, n_layers=SIZE.n_layers + 2)
    saved, planned = (
        of(deeper) - of(SIZE)
        for of in (
            lambda s: saved_by_autograd(s, 16, half=half, targets=targets),
            lambda s: memory_by_purpose(replace(work, config=s))["activations"],
        )
    )
    assert planned == pytest.approx(saved, rel=0.03)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("changes", [{}, {"d_ff": 96}, {"d_model": 128}, {"context_length": 300}])
def test_activation_memory_equals_what_autograd_saves(half: bool, changes: dict) -> None:
    size = replace(SIZE, **changes)
    work = replace(WORK, context_length=size.context_length, half=half)
    deeper = replace(size, n_layers=size.n_layers + 2)
    saved, planned = (
        of(deeper) - of(size)
        for of in (
            lambda s: saved_by_autograd(s, 16, half=half),
            lambda s: memory_by_purpose(replace(work, config=s))["activations"],
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
    one_token = replace(WORK, batch_size=1, context_length=1)
    planned = memory_by_purpose(one_token)
    assert planned["weights"] == sum(p.nbytes for p in parameters)
    assert planned["gradients"] == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    assert planned["optimizer"] == nbytes(adamw.state)
    both = nbytes(muon.muon.state) + nbytes(muon.adamw.state)
    assert memory_by_purpose(replace(one_token, optimizer="muon"))["optimizer"] == pytest.approx(both, rel=0.02)


def test_accumulated_gradients_add_to_the_activations() -> None:
    once, again = (memory_by_purpose(replace(WORK, grad_accum=n)) for n in (1, 2))
    assert again["activations"] == once["activations"] > 0
    assert again["gradients"] - once["gradients"] == once["weights"]


def test_the_peak_adds_the_process_and_fragmentation() -> None:
    held = memory_by_purpose(WORK)
    step = sum(part for name, part in held.items() if name not in ("fragmentation", "process"))
    assert held["process"] == PROCESS_BASELINE and held["fragmentation"] == step * FRAGMENTATION
    assert peak(WORK) == sum(held.values())


def test_processes_divide_the_batch_and_under_fsdp_the_state() -> None:
    one, ddp, fsdp = (
        memory_by_purpose(replace(WORK, strategy=strategy, processes=n))
        for strategy, n in (("none", 1), ("ddp", 4), ("fsdp", 4))
    )
    assert one["activations"] == pytest.approx(4 * ddp["activations"], rel=0.05)
    assert (ddp["weights"], ddp["optimizer"]) == (one["weights"], one["optimizer"])
    assert (4 * fsdp["weights"], 4 * fsdp["optimizer"]) == (one["weights"], one["optimizer"])


def test_checkpointing_saves_one_input_per_layer_and_the_activations_of_one() -> None:
    config = GPTConfig.of({**GPT_CONFIGS["gpt2-124M"], "dropout": 0.0})
    work = Workload(config=config, batch_size=8, context_length=1024)
    layers = 12 * 8 * 1024 * 768 * 4
    full, saved = (memory_by_purpose(replace(work, activation_checkpointing=on))["activations"] for on in (False, True))
    one_layer = 8 * 1024 * 768 * (2 * 4 + 10 * 4)
    assert full - saved == 11 * one_layer - layers


def test_dpo_holds_a_second_model_and_the_logits_of_all_answers() -> None:
    work = Workload(config=GPTConfig.of(GPT_CONFIGS["micro"]), batch_size=4, context_length=64)
    lm, dpo = memory_by_purpose(work), memory_by_purpose(replace(work, dpo=True))
    assert dpo["weights"] == 2 * lm["weights"]
    assert dpo["logits"] == 3 * 4 * 4 * 64 * 50257
