"""The time of a training step: measured on this machine for a shallow model, and extrapolated to all layers.

Several processes are started as by torchrun, up to as many as this machine can run.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from src.data.batching import Batch, PairBatch, pack_pairs
from src.data.prompts import Example
from src.distributed.processes import join
from src.model.lora import add_lora
from src.planning.flags import Flags
from src.planning.scale import flops_per_token
from src.runtime import Runtime, keep_freed_memory
from src.training.loop import accumulate, optimizer_step
from src.training.losses import LossFunction, language_model_loss, preference_loss
from src.training.optim import make_optimizer
from src.training.shared_model import initial_model, share_model

TRIAL_STEPS, FIT_DEPTH = 4, 4  # steps timed per model, layers of the deeper model
MEASURED_LENGTH, MEASURED_TOKENS = 1024, 4096  # the longest window, and the most tokens per process and step


def measure_step(flags: Flags, runtime: Runtime, local_processes: int) -> float:
    """Seconds per training step of all processes together, of which some or all run on this machine.

    A step of up to MEASURED_TOKENS per process is measured whole. Of a larger step, a part is measured, and its time
    multiplied by the ratio of FLOPs.
    """
    length = min(flags.context_length, MEASURED_LENGTH)
    sequences = flags.batch_size // flags.processes  # per process and micro-batch
    windows = min(sequences, MEASURED_TOKENS // length)
    batches = min(flags.grad_accum, max(1, MEASURED_TOKENS // (length * windows)))
    trial = replace(
        flags,
        context_length=length,
        batch_size=windows * local_processes,
        grad_accum=batches,
        processes=local_processes,
    )
    if local_processes == 1:
        runtime = replace(runtime, strategy="none")  # a single process needs neither DDP nor FSDP
    ratio = _step_flops(flags, sequences * flags.grad_accum) / _step_flops(trial, windows * batches)
    return _measure(trial, runtime) * ratio


def _step_flops(flags: Flags, sequences: int) -> float:
    return flops_per_token(flags.config(), flags.context_length) * flags.context_length * sequences


def _measure(flags: Flags, runtime: Runtime) -> float:
    """Seconds per step of the whole model. Of a deep one, the time per layer comes from two shallow models."""
    layers = flags.config().n_layers
    depths = [layers] if layers <= FIT_DEPTH else [1, FIT_DEPTH]
    time_steps = best_times if flags.processes == 1 else best_times_in_processes
    best = time_steps(flags, runtime, depths)
    per_layer = (max(best) - best[0]) / (FIT_DEPTH - 1)  # not negative, even if noise made the deeper model faster
    return best[0] + (layers - depths[0]) * per_layer


def best_times(flags: Flags, runtime: Runtime, depths: Sequence[int]) -> list[float]:
    """The seconds of the fastest trial step at each depth."""
    trials = [_trial_step(flags, runtime, depth) for depth in depths]
    rounds = [[trial() for trial in trials] for _ in range(1 + TRIAL_STEPS)]  # alternating; the first round is warm-up
    return [min(times[1:]) for times in zip(*rounds, strict=True)]


def best_times_in_processes(flags: Flags, runtime: Runtime, depths: Sequence[int]) -> list[float]:
    """`best_times` in several processes, as the first one measures them."""
    context = torch.multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(flags.processes)}
    torch.multiprocessing.spawn(_process, (flags, runtime, depths, environment, sender), flags.processes)
    times: list[float] = receiver.recv()
    return times


def _process(rank: int, flags: Flags, runtime: Runtime, depths: Sequence[int], environment: Any, sender: Any) -> None:
    """What each process runs, with the environment variables that torchrun sets."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": environment["WORLD_SIZE"]}
    os.environ.update(environment, **ranks)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    keep_freed_memory()
    device = torch.device(runtime.device.type, rank) if runtime.device.type == "cuda" else runtime.device
    times = best_times(flags, replace(runtime, device=device, processes=join(device)), depths)
    if rank == 0:
        sender.send(times)
    torch.distributed.destroy_process_group()


def _trial_step(flags: Flags, runtime: Runtime, layers: int) -> Callable[[], float]:
    """A function that takes one training step, with all its micro-batches, and returns its seconds."""
    model = initial_model(flags.config(n_layers=layers), 0, runtime)
    batch, loss = _batch(flags, flags.batch_size // flags.processes)
    if runtime.model_device:
        model.to(runtime.model_device)
    if flags.lora:
        add_lora(model, flags.lora, alpha=1.0, seed=0, targets=flags.lora_targets)
    shared = share_model(model, loss, runtime, seed=0)
    optimizer = make_optimizer(flags.optimizer, model, max_lr=1e-6, weight_decay=0.1)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")

    def step() -> float:
        start = time.perf_counter()
        accumulate(shared, [batch] * flags.grad_accum, runtime, scaler)
        optimizer_step(model, optimizer, scaler, grad_clip=1.0)
        runtime.synchronise()
        return time.perf_counter() - start

    return step


def _batch(flags: Flags, sequences: int) -> tuple[Batch, LossFunction]:
    """A micro-batch of random tokens for one process, and the loss of the stage."""
    vocabulary, length = flags.config().vocab_size, flags.context_length
    ids = torch.randint(vocabulary, (sequences, length + 1))
    if flags.stage != "dpo":
        return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()), language_model_loss
    mask = [position > length // 2 for position in range(length + 1)]
    answers = [Example(row, mask) for row in ids.tolist()]
    loss = partial(preference_loss, reference=_ZeroReference(), beta=0.1)  # type: ignore[arg-type]
    return pack_pairs([(key, (answer, answer)) for key, answer in enumerate(answers)]), loss


class _ZeroReference:
    """A reference whose log-probabilities are 0. In a real run, they come from a file."""

    def logprobs(self, batch: PairBatch) -> torch.Tensor:
        return torch.zeros(2 * batch.n_pairs, device=batch.inputs.device)
