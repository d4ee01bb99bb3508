"""FSDP2 (Zhao et al. 2023): every process has a shard of each parameter, its gradient and its optimizer state.

Each layer's matrices are gathered before its forward and its backward pass, and freed afterwards. Embeddings and
LayerNorms are one group, because the token embedding is also the output head.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from src.distributed.environment import is_first

T = TypeVar("T")


class WrappedModel(nn.Module):
    """A model as a module whose forward pass is any function of the model.

    DDP and FSDP2 act before and after a module's forward pass. A loss uses the embedding matrix twice, also as the
    output head. Both uses must be inside one forward pass, so that the gradient is complete when it is exchanged.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Any, batch: Any) -> Any:
        return function(self.model, batch)


def shard(model: nn.Module, device: torch.device, half: torch.dtype | None = None) -> Any:
    """Shard a GPT's parameters among all processes; returns the module to run it with, a `WrappedModel`.

    The model may be on the meta device: then it takes no memory until `to_empty`. Otherwise its values are kept, and
    each layer goes to the device only when it is sharded.
    half: the dtype in which the layers' matrices are gathered and used. The shards and the sums of gradients stay fp32.
    """
    from torch.distributed.device_mesh import init_device_mesh  # slow to import, and only needed here
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.h:  # type: ignore[union-attr]
        if half:  # a LayerNorm of fp32 inputs needs fp32 weights
            fully_shard([block.ln_1, block.ln_2], mesh=mesh)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(WrappedModel(model), mesh=mesh)


def run_sharded(module: Any, function: Callable[[Any, Any], T], batch: Any) -> T:
    """function(model, batch), with the weights gathered while they are used. `module` comes from `shard`."""
    result: T = module(function, batch)
    if not torch.is_grad_enabled():  # only a backward pass frees the gathered embeddings; they would be outdated
        module.reshard()
    return result


@torch.no_grad()
def fill(model: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy whole tensors, given by name one at a time, into the model: each process copies its shard."""
    parameters = dict(model.named_parameters())
    for name, whole in tensors:
        to_local(parameters[name]).copy_(to_local(distribute_like(whole, parameters[name])))


def distribute_like(whole: Tensor, like: Any) -> Tensor:
    """This process's shard of a whole tensor, if `like`, of the same shape, is sharded. Nothing is exchanged."""
    if not hasattr(like, "full_tensor") or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor  # slow to import, and only needed here

    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def full_tensor(part: Tensor) -> Tensor:
    """The whole tensor, gathered from all processes if it is sharded. Then every process must call it."""
    return part.full_tensor() if hasattr(part, "full_tensor") else part


def to_local(tensor: Tensor) -> Tensor:
    """The values of this process's shard of a tensor."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(model: nn.Module) -> bool:
    """Whether the model is sharded: this process has only a shard of each parameter."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


@contextmanager
def gathered(model: nn.Module, folder: Path) -> Iterator[dict[str, Tensor]]:
    """The whole weights of a model by name. Every process must enter; the result is for the first one.

    If they are sharded, one tensor at a time is gathered, and the first process copies it to a memory-mapped file in
    `folder`, deleted at the end. So no process holds them all in memory of its own.
    """
    weights = model.state_dict()
    if not is_sharded(model):
        yield weights
        return
    with TemporaryDirectory(prefix=".gathered-", dir=folder, ignore_cleanup_errors=True) as temporary:
        for number, (name, part) in enumerate(weights.items()):
            whole = part.full_tensor()
            if is_first():
                file = str(Path(temporary) / str(number))
                mapped = torch.from_file(file, shared=True, size=whole.numel(), dtype=whole.dtype)
                weights[name] = mapped.view(whole.shape).copy_(whole)
        yield weights
