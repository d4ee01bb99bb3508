"""How a run is divided among its processes: the batches, and the model."""

from typing import Literal

from src.common.machine import usable_memory
from src.distributed.environment import local_world_size
from src.distributed.processes import Processes
from src.model.config import GPTConfig
from src.runtime import Runtime
from src.training.flags import TrainingFlags
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


def choose_strategy(flags: TrainingFlags, config: GPTConfig, runtime: Runtime) -> Literal["none", "ddp", "fsdp"]:
    """The strategy that --strategy names. "auto" is DDP if all processes of this machine fit its memory, else FSDP.

    Raises ValueError for FSDP in fp16.
    """
    processes = runtime.processes
    if processes.count == 1:
        return "none"
    strategy: Literal["ddp", "fsdp"]
    if flags.strategy != "auto":
        strategy = flags.strategy
    else:
        tokens = flags.batch_size * min(flags.context_length, config.context_length) // processes.count
        held = memory(config, tokens, half=runtime.precision != "fp32", accumulated=flags.grad_accum > 1)
        usable, _ = usable_memory()
        fits = usable is None or peak(held) * local_world_size() <= usable
        strategy = processes.from_first("ddp" if fits else "fsdp")
    if strategy == "fsdp" and runtime.precision == "fp16":
        raise ValueError("--strategy fsdp does not train in fp16; pass --precision bf16 or fp32")
    return strategy
