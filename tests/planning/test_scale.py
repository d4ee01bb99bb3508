"""Parameters, FLOPs and traffic: against published counts, PyTorch's own counter, and closed forms."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.gpt import GPTModel
from src.planning.scale import flops_per_token, optimal_tokens, traffic
from src.training.memory_estimate import Workload

SIZE = GPTConfig(vocab_size=96, context_length=64, d_model=32, n_heads=2, n_layers=3)


def test_flops_are_those_of_the_matrix_products() -> None:
    """PyTorch's counter ignores the causal mask, so it counts attention twice."""
    model, ids = GPTModel(SIZE), torch.randint(96, (2, 64))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(ids)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    attention = flops_per_token(SIZE, 64) - flops_per_token(SIZE, 0)
    assert counter.get_total_flops() / ids.numel() == flops_per_token(SIZE, 0) + 2 * attention


def test_the_compute_optimum_is_chinchillas() -> None:
    """Hoffmann et al. 2022, table 3: 1 billion parameters, 20.2 billion tokens; 175 billion, 3.7 trillion."""
    for name, tokens in (("gpt3-1.3B", 26e9), ("gpt3-175B", 3.7e12)):
        assert optimal_tokens(GPTConfig.of(GPT_CONFIGS[name])) == pytest.approx(tokens, rel=0.06)


def test_gpt3s_training_compute_is_the_published_one() -> None:
    """Brown et al. 2020, table D.1: 300 billion tokens of the 175B model took 3.14e23 FLOP, attention not counted."""
    size = GPTConfig.of(GPT_CONFIGS["gpt3-175B"])
    assert flops_per_token(size, 0) * 300e9 == pytest.approx(3.14e23, rel=0.01)


def test_traffic_per_step_by_strategy() -> None:
    work = Workload(config=SIZE, batch_size=8, context_length=64)
    parameters, body = SIZE.parameter_count()
    assert traffic(work) == 0
    assert traffic(replace(work, strategy="ddp", processes=2)) == 4 * parameters
    fsdp = replace(work, strategy="fsdp", processes=4)
    assert traffic(fsdp) == pytest.approx(3 / 4 * (4 * parameters + 2 * 4 * body + 4 * (parameters - body)))
    assert traffic(replace(fsdp, half=True)) == pytest.approx(traffic(fsdp) - 3 / 4 * 4 * body)
    assert traffic(replace(fsdp, grad_accum=2)) < 2 * traffic(fsdp)
