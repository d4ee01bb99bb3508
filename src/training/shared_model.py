"""A model and its loss in one process, or shared among several: under DDP each has all of it, under FSDP2 a shard."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from src.data.batching import Batch
from src.distributed.sharding import WrappedModel, fill, run_sharded, shard
from src.model.gpt import GPTConfig, GPTModel
from src.model.meta_device import initial_weights, on_meta_device
from src.runtime import PRECISIONS, Runtime, seed_step
from src.training.losses import LossFunction, Metrics


class SharedModel:
    """A model and its loss in a run of one process. The subclasses share it among several."""

    def __init__(self, model: GPTModel, loss_fn: LossFunction) -> None:
        self.model, self.loss_fn = model, loss_fn

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss summed over this process's share of a batch, and its summed metrics."""
        return self.loss_fn(self.model, batch)

    def gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """The context of forward and backward. If enabled, backward averages the gradients over the processes."""
        return nullcontext()


class ReplicatedModel(SharedModel):
    """DDP (Li et al. 2020): every process has the whole model, and the gradients are averaged during backward."""

    def __init__(self, model: GPTModel, loss_fn: LossFunction) -> None:
        super().__init__(model, loss_fn)
        self._module = nn.parallel.DistributedDataParallel(WrappedModel(model), gradient_as_bucket_view=True)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        result: tuple[Tensor, Metrics] = self._module(self.loss_fn, batch)
        return result

    def gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        return nullcontext() if enabled else self._module.no_sync()


class ShardedModel(SharedModel):
    """FSDP2: every process has a shard of each parameter; see `src/distributed/sharding.py`.

    A model on the meta device gets its memory here. `initial` then gives its weights, one tensor at a time, unless
    they are loaded later.
    """

    def __init__(
        self,
        model: GPTModel,
        loss_fn: LossFunction,
        device: torch.device,
        half: torch.dtype | None,
        initial: Iterable[tuple[str, Tensor]],
    ) -> None:
        super().__init__(model, loss_fn)
        without_memory = any(parameter.is_meta for parameter in model.parameters())
        self._module = shard(model, device, half)
        if without_memory:
            self._module.to_empty(device=device)
            fill(model, initial)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        return run_sharded(self._module, self.loss_fn, batch)

    def gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        self._module.set_requires_gradient_sync(enabled)
        return nullcontext()


def initial_model(config: GPTConfig, seed: int, runtime: Runtime) -> GPTModel:
    """A model with the initial weights of the seed. Under FSDP, `share_model` draws them."""
    if runtime.strategy == "fsdp":
        return on_meta_device(config)
    seed_step(seed, 0)
    return GPTModel(config)


def share_model(
    model: GPTModel, loss_fn: LossFunction, runtime: Runtime, *, seed: int, initialised: bool = True
) -> SharedModel:
    """Wrap the model for training in one process, under DDP or under FSDP.

    initialised: under FSDP, whether the model gets the initial weights of the seed. A resumed run loads its weights
    later.
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
    return ShardedModel(model, loss_fn, runtime.device, _half_dtype(runtime), initial)


def share_frozen(model: GPTModel, runtime: Runtime) -> Any:
    """Put a model that is not trained on the device. Under FSDP, returns the module to run it with, otherwise None."""
    if runtime.strategy == "fsdp":
        return shard(model, runtime.device, _half_dtype(runtime))
    model.to(runtime.device)
    return None


def _half_dtype(runtime: Runtime) -> torch.dtype | None:
    return PRECISIONS[runtime.precision] if runtime.precision != "fp32" else None
