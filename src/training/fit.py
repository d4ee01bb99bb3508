"""Whether a run fits in the memory of this machine, and what to change if it does not."""

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


def sharing_processes(device: torch.device) -> int:
    """How many processes share the memory of a device: 1 on an NVIDIA GPU, otherwise all of this machine."""
    return 1 if device.type == "cuda" else local_world_size()


def require_fit(work: Workload, device: torch.device) -> None:
    """Raise ValueError with the estimate and what to change, if a run clearly does not fit.

    A run is refused if its estimate, times the processes that share the memory, exceeds memory plus swap space by the
    factor MARGIN. The estimate is not exact, and a run that fits must not be refused.
    """
    available, limited_by = device_memory(device)
    if available is None:
        return
    on_gpu, sharing = device.type == "cuda", sharing_processes(device)
    swap = 0 if on_gpu else swap_space()
    if peak(work) * sharing <= MARGIN * (available + swap):
        return
    changes = "; or ".join(advice(work, available / sharing, sharing, "GPUs" if on_gpu else "machines"))
    raise ValueError(
        f"this run does not fit in memory: a step needs {_describe_memory(work, sharing)}, and there are "
        f"{available / GB:,.1f} GB, {limited_by}; {changes}; --no-memory-check tries it anyway"
    )


def _describe_memory(work: Workload, sharing: int) -> str:
    """The estimated memory of a process, and its largest parts."""
    total = peak(work)
    largest = {name: part for name, part in memory_by_purpose(work).items() if part > 0.05 * total}
    parts = ", ".join(f"{name} {part / GB:,.1f}" for name, part in largest.items())
    each = f" in each of {sharing} processes" if sharing > 1 else ""
    return f"about {total / GB:,.1f} GB{each} ({parts})"


def advice(work: Workload, room: float, sharing: int = 1, place: str = "machines") -> list[str]:
    """Changes that make a run fit, the least intrusive first.

    room: bytes for each process. sharing: how many processes share a place, a machine or a GPU.
    """
    changes = [*_smaller_steps(work, room), *_adapter(work, room), *_more_places(work, room, sharing, place)]
    if smaller := _smaller_model(work, room):
        changes.append(f"use a smaller model, up to {smaller}")
    return changes or ["use a smaller model"]


def _smaller_steps(work: Workload, room: float) -> list[str]:
    """The same training with recomputed activations, in smaller micro-batches, or both; or else shorter sequences."""
    changes = []
    recomputed = replace(work, activation_checkpointing=True)
    if peak(recomputed) <= room and not work.activation_checkpointing:
        changes.append("pass --activation-checkpointing")
    if flags := _smaller_batches(work, room):
        changes.append(f"pass {flags}")
    if changes:
        return changes
    if flags := _smaller_batches(recomputed, room):
        return [f"pass {flags} --activation-checkpointing"]
    return _shorter_sequences(recomputed, room)


def _smaller_batches(work: Workload, room: float) -> str:
    """Flags for the same step in smaller micro-batches of equal size: the largest that fits, or "" if none does."""
    sequences = work.batch_size // work.processes
    for parts in (*range(2, min(sequences, MAX_SPLITS) + 1), sequences):
        if parts == 1 or sequences % parts:
            continue
        batch = sequences // parts * work.processes
        smaller = replace(work, batch_size=batch, grad_accum=work.grad_accum * parts)
        if peak(smaller) <= room:
            return f"--batch-size {smaller.batch_size} --grad-accum {smaller.grad_accum}"
    return ""


def _shorter_sequences(work: Workload, room: float) -> list[str]:
    """One sequence at a time in each process, halved until it fits."""
    for halvings in range(1, work.context_length.bit_length()):
        length = work.context_length >> halvings
        if peak(replace(work, batch_size=work.processes, context_length=length)) <= room:
            return [f"pass --context-length {length} --batch-size {work.processes} --activation-checkpointing"]
    return []


def _adapter(work: Workload, room: float) -> list[str]:
    """An adapter instead of all weights."""
    may_adapt = work.takes_lora and not work.lora and work.processes == 1
    if may_adapt and peak(replace(work, lora=ADVISED_RANK)) <= room:
        return [f"pass --lora {ADVISED_RANK}, which trains an adapter"]
    return []


def _more_places(work: Workload, room: float, sharing: int, place: str) -> list[str]:
    """FSDP on several machines or GPUs like this one."""
    if work.lora:
        return []
    recomputed = replace(work, activation_checkpointing=True)
    for tried, also in ((work, ""), (recomputed, " and --activation-checkpointing")):
        if processes := _fewest_processes(tried, room, 2 * sharing):
            count = processes // sharing
            return [f"train with torchrun and --strategy fsdp{also} on {count} {place} like this one"]
    return []


def _fewest_processes(work: Workload, room: float, least: int) -> int | None:
    """The first of `least`, 2 * `least`, 4 * `least`, ... that suffices under FSDP; None above MAX_PROCESSES."""
    count = least
    while count <= MAX_PROCESSES:
        sharded = replace(work, strategy="fsdp", processes=count, batch_size=max(count, work.batch_size))
        if peak(sharded) <= room:
            return count
        count *= 2
    return None


def _smaller_model(work: Workload, room: float) -> str | None:
    """The name of the largest size that has fewer parameters and fits."""
    best, most = None, 0
    for name, size in GPT_CONFIGS.items():
        lengths = {"vocab_size": work.config.vocab_size, "context_length": work.config.context_length}
        config = GPTConfig.of({**size, **lengths})
        parameters = config.parameter_count()[0]
        if most < parameters < work.config.parameter_count()[0] and peak(replace(work, config=config)) <= room:
            best, most = name, parameters
    return best
