"""How a run is divided among its processes: the batches, and the model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from src.common.machine import usable_memory
from src.distributed.environment import local_world_size
from src.distributed.processes import Processes
from src.distributed.sharding import shard
from src.distributed.strategy import ReplicatedModel, ShardedModel, SharedModel, Strategy
from src.model.gpt import GPTConfig, GPTModel, initial_weights, on_meta_device
from src.runtime import PRECISIONS, Runtime, seed_step
from src.training.flags import TrainingFlags
from src.training.losses import LossFunction
from src.training.memory import memory, peak
from src.training.stage import Stage


def divide_batches(stage: Stage, processes: Processes) -> None:
    """Let each process load its part of every micro-batch.

    Raises ValueError if the micro-batches do not divide evenly.
    """
    size, count = stage.loader.batch_size, processes.count
    if size % count:
        sizes = [nearest for nearest in (size - size % count, size - size % count + count) if nearest]
        raise ValueError(
            f"--batch-size {size} does not divide evenly among {count} processes; "
            f"pass --batch-size {' or '.join(map(str, sizes))}"
        )
    stage.loader.processes = processes


def choose_strategy(flags: TrainingFlags, config: GPTConfig, runtime: Runtime) -> Runtime:
    """The runtime with the strategy that --strategy names.

    "auto" is DDP if all processes of this machine fit its memory, else FSDP.
    """
    processes = runtime.processes
    if processes.count == 1:
        return runtime
    strategy: Strategy
    if flags.strategy != "auto":
        strategy = flags.strategy
    else:
        tokens = flags.batch_size * min(flags.context_length, config.context_length) // processes.count
        held = memory(config, tokens, half=runtime.precision != "fp32", accumulated=flags.grad_accum > 1)
        usable, _ = usable_memory()
        fits = usable is None or peak(held) * local_world_size() <= usable
        strategy = processes.from_first("ddp" if fits else "fsdp")
    return replace(runtime, strategy=strategy)


def new_model(
    size: Mapping[str, Any], flags: TrainingFlags, runtime: Runtime, *, vocab_size: int, dropout: float
) -> tuple[Runtime, GPTModel]:
    """The runtime with its strategy, and a model whose initial weights depend only on the seed.

    Under FSDP it has no memory yet, and `share_model` draws them.
    """
    changes = {"vocab_size": vocab_size, "context_length": flags.context_length, "dropout": dropout}
    config = GPTConfig.of({**size, **changes})
    runtime = choose_strategy(flags, config, runtime)
    if runtime.strategy == "fsdp":
        return runtime, on_meta_device(config)
    seed_step(flags.seed, 0)
    return runtime, GPTModel(config)


def share_model(
    model: GPTModel, loss_fn: LossFunction, runtime: Runtime, *, seed: int, initialised: bool = True
) -> SharedModel:
    """The model as the processes of the run share it.

    Under FSDP, a model on the meta device gets the initial weights of the seed, unless `initialised` is False: then its
    weights are loaded later.
    Raises ValueError for FSDP in fp16.
    """
    if runtime.strategy == "none":
        return SharedModel(model, loss_fn)
    if runtime.strategy == "ddp":
        return ReplicatedModel(model, loss_fn)
    if runtime.precision == "fp16":
        raise ValueError("--strategy fsdp does not train in fp16; pass --precision bf16 or fp32")
    seed_step(seed, 0)
    initial = initial_weights(model.config) if initialised else ()
    return ShardedModel(model, loss_fn, runtime.device, _half(runtime), initial)


def share_frozen(model: GPTModel, runtime: Runtime) -> Any:
    """Put a model that is not trained on the device. Under FSDP, returns the module to run it with, otherwise None."""
    if runtime.strategy == "fsdp":
        return shard(model, runtime.device, _half(runtime))
    model.to(runtime.device)
    return None


def _half(runtime: Runtime) -> torch.dtype | None:
    return PRECISIONS[runtime.precision] if runtime.precision != "fp32" else None
