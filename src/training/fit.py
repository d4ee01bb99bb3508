"""Whether a run fits in the memory of this machine, and what to change if it does not."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from src.common.machine import swap_space, usable_memory
from src.distributed.environment import local_world_size
from src.model.config import GPT_CONFIGS, GPTConfig
from src.training.memory_estimate import Workload, memory_by_purpose, peak

MARGIN = 1.25  # a run is refused if its estimate is above this times the memory; estimates are within 1.15 of real runs
MAX_PROCESSES, MAX_SPLITS = 4096, 1024  # limits of the search for advice; a micro-batch is split into MAX_SPLITS
ADVISED_RANK = 8  # of an adapter
GB = 1e9


def device_memory(device: torch.device) -> tuple[int | None, str]:
    """(bytes that the processes on this device may use together, what limits them); None if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0], "free on the GPU"
    return usable_memory()


def require_fit(work: Workload, device: torch.device) -> None:
    """Raise ValueError with the estimate and what to change, if a run clearly does not fit.

    A run is refused if its estimate, times the processes that share the memory, exceeds memory plus swap space by the
    factor MARGIN. The estimate is not exact, and a run that fits must not be refused.
    """
    available, limited_by = device_memory(device)
    if available is None:
        return
    on_gpu = device.type == "cuda"
    sharing, swap = (1, 0) if on_gpu else (local_world_size(), swap_space())
    if peak(work) * sharing <= MARGIN * (available + swap):
        return
    changes = "; or ".join(advice(work, available / sharing, sharing, "GPUs" if on_gpu else "machines"))
    raise ValueError(
        f"this run does not fit in memory: a step needs {needed(work, sharing)}, and there are "
        f"{available / GB:,.1f} GB, {limited_by}; {changes}; --no-memory-check tries it anyway"
    )


def needed(work: Workload, sharing: int) -> str:
    """The estimated memory of a process and its largest parts, as text."""
    held = memory_by_purpose(work)
    parts = ", ".join(f"{name} {part / GB:,.1f}" for name, part in held.items() if part > 0.05 * sum(held.values()))
    return f"about {peak(work) / GB:,.1f} GB{f' in each of {sharing} processes' if sharing > 1 else ''} ({parts})"


def advice(work: Workload, room: float, sharing: int = 1, place: str = "machines") -> list[str]:
    """Changes that make a run fit, the least intrusive first.

    room: bytes for each process. sharing: how many processes share a place, a machine or a GPU.
    """
    changes = [*_smaller_steps(work, room), *_adapter(work, room), *_more_places(work, room, sharing, place)]
    if smaller := _smaller_model(work, room):
        changes.append(f"use a smaller model, up to {smaller}")
    return changes or ["use a smaller model"]


def _smaller_steps(work: Workload, room: float) -> Iterator[str]:
    """The same training with recomputed activations, in smaller micro-batches, or both; or else shorter sequences."""
    recomputed = replace(work, activation_checkpointing=True)
    if fits := not work.activation_checkpointing and peak(recomputed) <= room:
        yield "pass --activation-checkpointing"
    for tried, also in ((work, ""), (recomputed, " --activation-checkpointing")):
        if batch := _largest_batch(tried, room):
            yield f"pass --batch-size {batch} --grad-accum {work.batch_size * work.grad_accum // batch}{also}"
            return
        if fits:
            return
    smallest = replace(recomputed, batch_size=work.processes)
    for halvings in range(1, work.context_length.bit_length()):
        length = work.context_length >> halvings
        if peak(replace(smallest, context_length=length)) <= room:
            yield f"pass --context-length {length} --batch-size {work.processes} --activation-checkpointing"
            return


def _adapter(work: Workload, room: float) -> Iterator[str]:
    """An adapter instead of all weights."""
    adapted = replace(work, lora=ADVISED_RANK)
    if work.takes_lora and not work.lora and work.processes == 1 and peak(adapted) <= room:
        yield f"pass --lora {ADVISED_RANK}, which trains an adapter"


def _largest_batch(work: Workload, room: float) -> int | None:
    """The largest micro-batch that fits and divides the current one evenly; None if none does."""
    sequences = work.batch_size // work.processes
    for parts in (*range(2, min(sequences, MAX_SPLITS) + 1), sequences):
        batch = sequences // parts * work.processes
        smaller = replace(work, batch_size=batch, grad_accum=work.grad_accum * parts)
        if parts > 1 and sequences % parts == 0 and peak(smaller) <= room:
            return batch
    return None


def _more_places(work: Workload, room: float, sharing: int, place: str) -> Iterator[str]:
    """FSDP on 2, 4, 8, ... machines or GPUs like this one: the smallest number that suffices."""
    recomputed = replace(work, activation_checkpointing=True)
    for tried, also in ((work, ""), (recomputed, " and --activation-checkpointing")) if not work.lora else ():
        count = 2 * sharing
        while count <= MAX_PROCESSES:
            sharded = replace(tried, strategy="fsdp", processes=count, batch_size=max(count, work.batch_size))
            if peak(sharded) <= room:
                yield f"train with torchrun and --strategy fsdp{also} on {count // sharing} {place} like this one"
                return
            count *= 2


def _smaller_model(work: Workload, room: float) -> str | None:
    """The largest size with fewer parameters that fits."""
    c = work.config
    sizes = {
        name: replace(GPTConfig.of(size), vocab_size=c.vocab_size, context_length=c.context_length)
        for name, size in GPT_CONFIGS.items()
    }
    parameters = {name: size.parameter_count()[0] for name, size in sizes.items()}
    fitting = [
        name
        for name in sizes
        if parameters[name] < c.parameter_count()[0] and peak(replace(work, config=sizes[name])) <= room
    ]
    return max(fitting, key=lambda name: parameters[name], default=None)
