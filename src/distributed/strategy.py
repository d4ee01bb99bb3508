"""How the processes of a run share a model: under DDP each has all of it, under FSDP2 a shard."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from src.distributed.sharding import Applied, fill, run_sharded, shard

LossFunction: TypeAlias = Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]  # of (model, batch)
Strategy: TypeAlias = Literal["none", "ddp", "fsdp"]


class SharedModel:
    """A model and its loss in a run of one process. The subclasses share it among several."""

    name = "one process"

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        self.model, self.loss_fn = model, loss_fn

    def loss(self, _: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over this process's share of a batch, and its metrics.

        It is called like any loss function, with the model, which the wrapper already holds.
        """
        return self.loss_fn(self.model, batch)

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        """The context of forward and backward. Gradients are averaged over the processes only if `now`."""
        return nullcontext()


class ReplicatedModel(SharedModel):
    """DDP (Li et al. 2020): every process has the whole model, and the gradients are averaged during backward."""

    name = "ddp"

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        super().__init__(model, loss_fn)
        self._module = nn.parallel.DistributedDataParallel(Applied(model), gradient_as_bucket_view=True)

    def loss(self, _: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        result: tuple[Tensor, dict[str, Tensor]] = self._module(self.loss_fn, batch)
        return result

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        return nullcontext() if now else self._module.no_sync()


class ShardedModel(SharedModel):
    """FSDP2: every process has a shard of each parameter; see `sharding.py`.

    A model on the meta device gets its memory here. `initial` then gives its weights, one tensor at a time, unless
    they are loaded later.
    """

    name = "fsdp"

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        device: torch.device,
        half: torch.dtype | None = None,
        initial: Iterable[tuple[str, Tensor]] = (),
    ) -> None:
        super().__init__(model, loss_fn)
        without_memory = any(parameter.is_meta for parameter in model.parameters())
        self._module = shard(model, device, half)
        if without_memory:
            self._module.to_empty(device=device)
            fill(model, initial)

    def loss(self, _: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return run_sharded(self._module, self.loss_fn, batch)

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        self._module.set_requires_gradient_sync(now)
        return nullcontext()
