"""Every size up to GPT-3's largest builds, is sharded among processes and counts its parameters, without memory."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from src.distributed.sharding import shard, to_local
from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.meta_device import on_meta_device
from src.training.memory_estimate import Workload, memory_by_purpose

PROCESSES = 8
# Radford et al. 2019, table 2, as corrected by the released models (the paper's own counts are too small), and
# Brown et al. 2020, table 2.1. Its row of 13B has a width of 5140, but the published count is that of a width of 5120.
PUBLISHED = {
    "gpt2-124M": 124e6, "gpt2-355M": 355e6, "gpt2-774M": 774e6, "gpt2-1558M": 1558e6,
    "gpt3-125M": 125e6, "gpt3-350M": 356e6, "gpt3-760M": 760e6, "gpt3-1.3B": 1320e6, "gpt3-2.7B": 2650e6,
    "gpt3-6.7B": 6660e6, "gpt3-175B": 174600e6,
}  # fmt: skip


@pytest.fixture(scope="module")
def processes() -> Iterator[None]:
    """This process as the first of eight, which exchange nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=PROCESSES)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", GPT_CONFIGS)
def test_parameters_are_counted_and_sharded(name: str, processes: None) -> None:
    config = GPTConfig.of(GPT_CONFIGS[name])
    model = on_meta_device(config)
    parameters, body = config.parameter_count()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(parameter.numel() for parameter in model.h.parameters()) == body - 2 * config.d_model
    if name in PUBLISHED:
        assert parameters == pytest.approx(PUBLISHED[name], rel=0.004)
    shallow = replace(config, n_layers=1)  # sharding takes a while for each layer
    model = on_meta_device(shallow)
    shard(model, torch.device("cpu"), torch.bfloat16)
    assert all(parameter.is_meta for parameter in model.parameters())
    part = sum(to_local(parameter).nbytes for parameter in model.parameters())
    work = Workload(config=shallow, batch_size=8, context_length=8, strategy="fsdp", processes=PROCESSES)
    assert part == pytest.approx(memory_by_purpose(work)["weights"], rel=0.001)


def test_the_published_count_of_13b_is_that_of_a_width_of_5120() -> None:
    config = GPTConfig.of({**GPT_CONFIGS["gpt3-13B"], "d_model": 5120})
    assert config.parameter_count()[0] == pytest.approx(12850e6, rel=0.001)
