"""How the processes of a run share a model: DDP keeps all of it in each of them, FSDP2 a part of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from src.distributed.environment import is_first

LossFunction: TypeAlias = Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]  # of (model, batch)


class SharedModel:
    """A model and its loss in a run of one process. The subclasses share it among several."""

    name = "one process"

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        self.model, self.loss_fn = model, loss_fn

    def loss(self, _: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over this process's part of a batch, and its metrics.

        It is called like any loss function, with the model, which the wrapper already holds.
        """
        return self.loss_fn(self.model, batch)

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        """The context of forward and backward. Gradients are averaged over the processes only if `now`."""
        return nullcontext()

    def whole(self, state: Any) -> Any:
        """A state dict with whole tensors. Every process must call it; the first one uses the result."""
        return state

    def sample(self, generate: Callable[[], str]) -> str:
        """Text that the model generates, or "" in a process that does not report it."""
        return generate()


class ReplicatedModel(SharedModel):
    """DDP (Li et al. 2020): every process has the whole model, and the gradients are averaged during backward."""

    name = "ddp"

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        super().__init__(model, loss_fn)
        self._module = nn.parallel.DistributedDataParallel(_LossModule(model, loss_fn), gradient_as_bucket_view=True)

    def loss(self, _: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        result: tuple[Tensor, dict[str, Tensor]] = self._module(batch)
        return result

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        return nullcontext() if now else self._module.no_sync()

    def sample(self, generate: Callable[[], str]) -> str:
        return generate() if is_first() else ""


class ShardedModel(SharedModel):
    """FSDP2 (Zhao et al. 2023): every process has a part of each parameter, its gradient and its optimizer state.

    A block's parameters are gathered before its forward and its backward pass, and dropped afterwards. The embedding,
    which is also the output head, is one group with the final LayerNorm.
    """

    name = "fsdp"

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        super().__init__(model, loss_fn)
        from torch.distributed.fsdp import fully_shard  # slow to import, and only needed here

        for block in model.h:  # type: ignore[union-attr]
            fully_shard(block)
        self._module: Any = fully_shard(_LossModule(model, loss_fn))

    def loss(self, _: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        result: tuple[Tensor, dict[str, Tensor]] = self._module(batch)
        if not torch.is_grad_enabled():  # only a backward pass drops the gathered embedding; it would be out of date
            self._module.reshard()
        return result

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        self._module.set_requires_gradient_sync(now)
        return nullcontext()

    def whole(self, state: Any) -> Any:
        if isinstance(state, dict):
            return {key: self.whole(value) for key, value in state.items()}
        return state.full_tensor().cpu() if hasattr(state, "full_tensor") else state

    def sample(self, generate: Callable[[], str]) -> str:
        return ""  # decoding reads the weights directly, and no process has all of them


class _LossModule(nn.Module):
    """A model with its loss as the forward pass.

    DDP and FSDP2 act around a forward pass. Ours includes the loss, because the output head is the embedding matrix:
    both uses of it must be inside, so that its gradient is complete when they exchange it.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss_fn(self.model, batch)


def share_model(
    model: nn.Module,
    loss_fn: LossFunction,
    optimizers: Sequence[torch.optim.Optimizer],
    strategy: Literal["none", "ddp", "fsdp"],
) -> SharedModel:
    """The model and the state of its optimizers, shared among the processes of the run."""
    if strategy == "none":
        return SharedModel(model, loss_fn)
    if strategy == "ddp":
        return ReplicatedModel(model, loss_fn)
    whole: list[Tensor] = list(model.parameters())
    sharded = ShardedModel(model, loss_fn)
    parts: dict[Tensor, Tensor] = dict(zip(whole, model.parameters(), strict=True))
    for optimizer in optimizers:
        _shard_optimizer(optimizer, parts)
    return sharded


def is_sharded(model: nn.Module) -> bool:
    """Whether this process has only a part of each parameter, so it cannot generate text."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def _shard_optimizer(optimizer: torch.optim.Optimizer, parts: Mapping[Tensor, Tensor]) -> None:
    """Replace an optimizer's whole parameters and their state by this process's parts."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def part_of(value: Any, parameter: Tensor) -> Any:
        if not isinstance(parameter, DTensor) or getattr(value, "shape", None) != parameter.shape:
            return value
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)

    for group in optimizer.param_groups:
        group["params"] = [parts[parameter] for parameter in group["params"]]
    for parameter, state in list(optimizer.state.items()):
        part = parts[parameter]
        del optimizer.state[parameter]
        optimizer.state[part] = {name: part_of(value, part) for name, value in state.items()}
