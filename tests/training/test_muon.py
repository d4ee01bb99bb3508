"""Muon against PyTorch's, matrix by matrix."""

import pytest
import torch
from torch import nn

from src.training import muon
from src.training.muon import Muon, orthogonalise

SHAPES = [(16, 16), (64, 16), (16, 64), (16, 16), (8, 16)]


def matrices(*shapes: tuple[int, int]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], gradients: list[torch.Tensor]) -> None:
    for step in range(1, 5):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.detach() * step - parameter.detach()
        optimizer.step()


@pytest.mark.parametrize("fast_bf16", [True, False])
def test_the_steps_are_those_of_pytorch(fast_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_bf16_products", lambda device: fast_bf16)
    ours, reference = matrices(*SHAPES), matrices(*SHAPES)
    gradients = [torch.randn(shape) for shape in SHAPES]
    settings = {"lr": 0.01, "weight_decay": 0.5, "momentum": 0.9}
    take_steps(Muon(ours, [], **settings), ours, gradients)
    take_steps(torch.optim.Muon(reference, adjust_lr_fn="match_rms_adamw", **settings), reference, gradients)
    for mine, theirs in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_queries_keys_and_values_are_three_matrices() -> None:
    [fused], parts = matrices((48, 16)), matrices((48, 16))[0].detach().chunk(3)
    apart = [nn.Parameter(part.clone()) for part in parts]
    gradient = torch.randn(48, 16)
    take_steps(Muon([fused], [fused], lr=0.01), [fused], [gradient])
    take_steps(Muon(apart, [], lr=0.01), apart, list(gradient.chunk(3)))
    torch.testing.assert_close(fused, torch.cat(apart), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("elements", [1, 1024, 2**22])
def test_stacks_of_any_size_give_the_same_step(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "MAX_STACK_ELEMENTS", elements)
    stacked, reference = matrices(*SHAPES), matrices(*SHAPES)
    gradients = [torch.randn(shape) for shape in SHAPES]
    take_steps(Muon(stacked, [], lr=0.01), stacked, gradients)
    for parameter, gradient in zip(reference, gradients, strict=True):
        take_steps(Muon([parameter], [], lr=0.01), [parameter], [gradient])
    for mine, theirs in zip(stacked, reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("fast_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_singular_values_come_near_one(fast_bf16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_bf16_products", lambda device: fast_bf16)
    orthogonal = orthogonalise(torch.randn(3, 64, 16))
    assert orthogonal.dtype == dtype
    singular_values = torch.linalg.svdvals(orthogonal.float())
    assert singular_values.min() > 0.3
    assert singular_values.max() < 1.3


def test_a_matrix_without_a_gradient_stays() -> None:
    moving, resting = matrices((4, 4), (4, 4))
    before = resting.detach().clone()
    moving.grad = torch.ones(4, 4)
    Muon([moving, resting], [], lr=0.1).step()
    assert torch.equal(resting, before)
    assert not torch.equal(moving, before)
