"""The processes of a run. torchrun starts them and numbers them by rank; without it there is one, of rank 0."""

import atexit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias, TypeVar

import torch
import torch.distributed as dist

from src.distributed import failure, heartbeat
from src.distributed.environment import is_first, local_world_size, restarts, timeout_s, world_size

T = TypeVar("T")
Strategy: TypeAlias = Literal["none", "ddp", "fsdp"]  # how the processes share a model

_LONG_WORK_DAYS = 1


@dataclass(frozen=True)
class Processes:
    """This process among the processes of a run. With one process, every method returns what it is given."""

    rank: int = 0
    count: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of the items. The shares follow one another in the order of the ranks."""
        start, end = (len(items) * rank // self.count for rank in (self.rank, self.rank + 1))
        return items[start:end]

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value summed over all processes, which must pass the same names."""
        if self.count == 1:
            return dict(values)
        heartbeat.count_exchange()
        summed = torch.tensor([*values.values()], dtype=torch.float64)
        dist.all_reduce(summed)
        return dict(zip(values, summed.tolist(), strict=True))

    def sum(self, value: float) -> float:
        """The value summed over all processes."""
        return self.total({"value": value})["value"]

    def any(self, condition: bool) -> bool:
        """Whether the condition holds in at least one process."""
        return self.sum(float(condition)) > 0

    def from_first(self, value: T) -> T:
        """The first process's value: for a decision that depends on a clock or a file, and could differ by process."""
        if self.count == 1:
            return value
        heartbeat.count_exchange()
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


def join(device: torch.device) -> Processes:
    """Connect the processes that torchrun started; without torchrun there is this one.

    They exchange gradients through NCCL on CUDA, and through Gloo elsewhere. A process that waits for another one
    longer than GPT2_TIMEOUT_S seconds (600 by default) fails. All fail if one of them stops sending heartbeats.
    Raises ValueError for an Apple GPU, whose tensors Gloo does not take.
    """
    if world_size() == 1:
        return Processes()
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"several processes cannot train on --device {device.type}; pass --device cpu")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        timeout = timedelta(seconds=timeout_s())
        store, rank, count = next(dist.rendezvous("env://", timeout=timeout))
        if local_world_size() == count:  # torchrun keeps its store when it restarts: old addresses are still in it
            store = dist.PrefixStore(f"restart-{restarts()}", store)
        atexit.register(_disconnect)  # registered first, so it is called after the heartbeat has left
        # A connection of its own: a call of one thread would block those of the others.
        announced = heartbeat.announce(store.clone(), rank, count)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
        announced.start(failure.end_process)
    return Processes(dist.get_rank(), dist.get_world_size())


def _disconnect() -> None:
    """End the threads of Gloo. If one still held a tensor when Python ends, the process would abort."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Run the body in the first process, then in all others, which find what the first one has downloaded or tokenised.

    They wait for up to a day, since a large text takes longer than GPT2_TIMEOUT_S. If the first process is lost, its
    heartbeats end.
    """
    if not dist.is_initialized():
        yield
        return
    group = dist.new_group(timeout=timedelta(days=_LONG_WORK_DAYS), backend="gloo")
    if not is_first():
        dist.barrier(group)
    yield
    if is_first():
        dist.barrier(group)
    dist.destroy_process_group(group)
