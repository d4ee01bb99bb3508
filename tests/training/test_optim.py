"""The optimizers against PyTorch's unfused form, their parameter groups, and the learning rate against its formula."""

import math

import pytest
import torch

from src.model.gpt import GPTModel
from src.training.muon import Muon
from src.training.optim import (
    MuonAndAdamW,
    clip_gradients,
    lr_at,
    make_adamw,
    make_optimizer,
    parameter_groups,
    set_lr,
)

CONFIG = {"vocab_size": 61, "context_length": 16, "d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0}


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(CONFIG)


def test_only_matrices_have_weight_decay(model: GPTModel) -> None:
    decaying, others = parameter_groups(model, 0.3)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in others["params"]} == {
        name for name in names.values() if name.endswith("bias") or "ln_" in name
    }
    assert {"wte.weight", "wpe.weight", "h.1.attn.c_attn.weight"} <= {names[id(p)] for p in decaying["params"]}


def test_every_parameter_is_in_a_group_exactly_once(model: GPTModel) -> None:
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters()}


def test_frozen_parameters_are_in_no_group(model: GPTModel) -> None:
    model.wpe.weight.requires_grad_(False)
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert set(grouped) == {id(p) for p in model.parameters()} - {id(model.wpe.weight)}


def test_adamw_has_the_settings_of_gpt3(model: GPTModel) -> None:
    # Brown et al. 2020, appendix B: Adam with betas 0.9 and 0.95, epsilon 1e-8, weight decay 0.1.
    optimizer = make_adamw(model, max_lr=0.02, weight_decay=0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group, weight_decay in zip(optimizer.param_groups, (0.1, 0.0), strict=True):
        assert (group["betas"], group["eps"], group["lr"]) == ((0.9, 0.95), 1e-8, 0.02)
        assert group["weight_decay"] == weight_decay
        assert group["fused"] is True  # the CPU has a fused form too


def test_fused_adamw_equals_the_unfused_form(model: GPTModel) -> None:
    torch.manual_seed(0)
    twin = GPTModel(CONFIG)
    ours = make_adamw(model, max_lr=0.01, weight_decay=0.5)
    plain = torch.optim.AdamW(parameter_groups(twin, 0.5), lr=0.01, betas=(0.9, 0.95), fused=False, foreach=False)
    for _ in range(10):
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step()
        plain.step()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)


def test_the_first_adamw_step_is_the_papers() -> None:
    # Loshchilov and Hutter 2019, algorithm 2: with bias correction the first update is the sign of the gradient.
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = make_adamw(layer, max_lr=0.1, weight_decay=0.2)
    layer(torch.tensor([[3.0, -2.0]])).sum().backward()
    optimizer.step()
    expected = before[0] * (1 - 0.1 * 0.2) - 0.1 * torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(layer.weight.detach(), expected)
    torch.testing.assert_close(layer.bias.detach(), before[1] - 0.1)


def test_muon_updates_block_matrices_and_adamw_the_rest(model: GPTModel) -> None:
    torch.manual_seed(0)
    twin = GPTModel(CONFIG)
    ours = MuonAndAdamW(model, max_lr=0.01, weight_decay=0.5)
    by_name = dict(twin.named_parameters())
    inside = {name: p for name, p in by_name.items() if name.startswith("h.") and p.dim() == 2}
    assert len(inside) == 8  # four in each of two blocks
    fused = [p for name, p in inside.items() if "c_attn" in name]
    muon = Muon(list(inside.values()), fused, lr=0.01, weight_decay=0.5, momentum=0.9)
    outside = [p for name, p in by_name.items() if name not in inside]
    groups = [
        {"params": [p for p in outside if p.dim() >= 2], "weight_decay": 0.5, "lr": 0.03},  # the embeddings
        {"params": [p for p in outside if p.dim() < 2], "weight_decay": 0.0, "lr": 0.01},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), fused=True)
    set_lr(ours, 0.01)
    for _ in range(4):
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step()
        muon.step()
        adamw.step()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_muon_reads_lr_from_its_groups_and_zeroes_gradients(model: GPTModel) -> None:
    optimizer = MuonAndAdamW(model, max_lr=0.01, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))
    optimizer.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("kind", "made"), [("adamw", torch.optim.AdamW), ("muon", MuonAndAdamW)])
def test_each_kind_of_optimizer_has_its_rate_and_decay(model: GPTModel, kind: str, made: type) -> None:
    optimizer = make_optimizer(kind, model, max_lr=0.03, weight_decay=0.4)
    assert isinstance(optimizer, made)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for group in optimizer.param_groups:
        matrices = all(p.dim() >= 2 for p in group["params"])
        assert (group["lr"], group["weight_decay"]) == (0.03, 0.4 if matrices else 0.0)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_beta2_reaches_adamw_and_nothing_else(model: GPTModel, kind: str) -> None:
    groups = make_optimizer(kind, model, max_lr=0.03, weight_decay=0.4, beta2=0.999).param_groups
    assert {group["betas"][1] for group in groups if "betas" in group} == {0.999}


def test_both_states_of_muon_and_adamw_are_restored(model: GPTModel) -> None:
    optimizer, twin = (MuonAndAdamW(model, max_lr=0.01, weight_decay=0.0) for _ in range(2))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    twin.load_state_dict(optimizer.state_dict())
    for name, state in optimizer.state_dict().items():
        restored = twin.state_dict()[name]["state"]
        assert state["state"].keys() == restored.keys() != set()
        for index, values in state["state"].items():
            assert all(torch.equal(value, restored[index][key]) for key, value in values.items()), name


def rates(steps: int, warmup_steps: int, max_lr: float = 1.0, min_lr: float = 0.1) -> list[float]:
    return [lr_at(i, max_lr=max_lr, min_lr=min_lr, warmup_steps=warmup_steps, steps=steps) for i in range(steps)]


def test_lr_warms_up_linearly_and_decays_as_a_cosine() -> None:
    assert rates(9, 3) == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4, 1.0, *(0.1 + 0.45 * (1 + math.cos(math.pi * i / 5)) for i in range(1, 6))]
    )


@pytest.mark.parametrize(("steps", "warmup_steps"), [(2, 0), (10, 0), (10, 1), (100, 20), (1000, 998), (57, 13)])
def test_lr_peaks_after_the_warm_up_and_ends_at_min_lr(steps: int, warmup_steps: int) -> None:
    values = rates(steps, warmup_steps)
    assert values[warmup_steps] == max(values) == pytest.approx(1.0)
    assert values[-1] == pytest.approx(0.1)
    rising, falling = values[: warmup_steps + 1], values[warmup_steps:]
    assert all(a < b for a, b in zip(rising, rising[1:], strict=False))
    assert all(a > b for a, b in zip(falling, falling[1:], strict=False))
    assert values[0] > 0


@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 20), (5, 20), (20, 20)])
def test_a_warm_up_as_long_as_the_run_only_rises(steps: int, warmup_steps: int) -> None:
    assert rates(steps, warmup_steps) == pytest.approx([(i + 1) / (warmup_steps + 1) for i in range(steps)])


@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (4, 3)])
def test_a_single_step_after_the_warm_up_has_max_lr(steps: int, warmup_steps: int) -> None:
    assert rates(steps, warmup_steps)[-1] == pytest.approx(1.0)


def test_lr_may_be_constant_or_decay_to_zero() -> None:
    assert rates(5, 0, max_lr=0.3, min_lr=0.3) == pytest.approx([0.3] * 5)
    assert rates(5, 0, min_lr=0.0)[-1] == pytest.approx(0.0, abs=1e-12)


def test_linear_decay_falls_by_the_same_amount_in_every_step() -> None:
    values = [lr_at(i, max_lr=1.0, min_lr=0.2, warmup_steps=3, steps=8, decay="linear") for i in range(9)]
    assert values == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_steps_beyond_the_last_have_min_lr() -> None:
    values = {lr_at(step, max_lr=1.0, min_lr=0.1, warmup_steps=2, steps=10) for step in (9, 10, 11, 500)}
    assert list(values) == pytest.approx([0.1])


@pytest.mark.parametrize("max_norm", [0.1, 3.0, 5.0, math.inf])
def test_clipping_equals_torch_and_skips_short_gradients(max_norm: float) -> None:
    gradients = [torch.tensor([[3.0, 0.0]]), torch.tensor([4.0 / 3]), None]
    ours, theirs = ([torch.nn.Parameter(torch.zeros(s)) for s in ((1, 2), (1,), (3,))] for _ in range(2))
    for parameter, gradient in zip([*ours, *theirs], gradients * 2, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    norm = clip_gradients(ours, max_norm)
    assert norm == float(torch.nn.utils.clip_grad_norm_(theirs, max_norm))
    assert norm == pytest.approx(math.hypot(3, 4 / 3))
    for mine, other, gradient in zip(ours, theirs, gradients, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
        assert max_norm < norm or gradient is None or torch.equal(mine.grad, gradient)
