"""How the processes of a run share its work, and whether the run fits in their memory."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from src.checkpoint import saved_config
from src.data.batching import PairBatch
from src.distributed.processes import Processes, Strategy
from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.load_gpt2 import HUB_IDS
from src.runtime import Runtime, choose_runtime
from src.training.fit import device_memory, require_fit, sharing_processes
from src.training.flags import RecordTrainingFlags, TrainingFlags
from src.training.memory_estimate import Workload, peak
from src.training.stage import Stage
from src.training.step_flags import StepFlags


def divide_batches(stage: Stage, processes: Processes) -> None:
    """Let each process load its share of every micro-batch.

    Raises ValueError if the micro-batches do not divide evenly.
    """
    size, count = stage.loader.batch_size, processes.count
    if size % count:
        lower = size - size % count
        nearest = [str(multiple) for multiple in (lower, lower + count) if multiple]
        raise ValueError(
            f"--batch-size {size} does not divide evenly among {count} processes; "
            f"pass --batch-size {' or '.join(nearest)}"
        )
    stage.loader.processes = processes


def choose_strategy(flags: TrainingFlags, config: GPTConfig, runtime: Runtime, *, dpo: bool = False) -> Runtime:
    """The runtime with the strategy that --strategy names. "auto" is DDP if it fits, else FSDP.

    dpo: a frozen reference model is in memory, too. Raises ValueError for a run that clearly does not fit in memory.
    """
    _check_lora(flags, config, runtime)
    work = workload(flags, config, runtime, dpo=dpo)
    available, _ = device_memory(runtime.device)
    room = None if available is None else available / sharing_processes(runtime.device)
    strategy = resolve_strategy(flags.strategy, work, room)
    strategy = runtime.processes.from_first(strategy)  # the memory of machines may differ
    if flags.memory_check:
        length = 1 if isinstance(flags, RecordTrainingFlags) else work.context_length  # records can be short
        require_fit(replace(work, strategy=strategy, context_length=length), runtime.device)
    return replace(runtime, strategy=strategy)


def _check_lora(flags: TrainingFlags, config: GPTConfig, runtime: Runtime) -> None:
    """Raise ValueError if --lora does not suit the model or the number of processes."""
    if flags.lora and runtime.processes.count > 1:
        raise ValueError("--lora trains in one process; start the script without torchrun, or leave --lora out")
    if flags.lora and flags.lora > config.d_model:
        raise ValueError(f"--lora {flags.lora}: the rank must not be above the model's width, {config.d_model}")


def workload(flags: StepFlags, config: GPTConfig, runtime: Runtime, *, dpo: bool = False) -> Workload:
    """The input of the memory estimate for a training step with these flags, of a training script or of `src.plan`."""
    return Workload(
        config=config,
        batch_size=flags.batch_size,
        context_length=min(flags.context_length, config.context_length),
        grad_accum=flags.grad_accum,
        optimizer=flags.optimizer,
        half=runtime.precision != "fp32",
        strategy=runtime.strategy,
        processes=runtime.processes.count,
        activation_checkpointing=flags.activation_checkpointing,
        dpo=dpo,
        on_gpu=runtime.device.type == "cuda",
        lora=flags.lora,
        lora_targets=flags.lora_targets,
        takes_lora=flags.takes_lora,
    )


def resolve_strategy(requested: Literal["auto", "ddp", "fsdp"], work: Workload, room: float | None) -> Strategy:
    """The strategy for a requested one. "auto" is DDP if it fits in `room` bytes (None: unknown), else FSDP."""
    if work.processes == 1:
        return "none"
    if requested != "auto":
        return requested
    return "ddp" if room is None or peak(replace(work, strategy="ddp")) <= room else "fsdp"


def require_size_fits(name: str | Path, flags: TrainingFlags, runtime: Runtime) -> None:
    """Raise ValueError if training a model clearly does not fit in memory, before its weights are downloaded or read.

    name: one of OpenAI's sizes, or a path. Nothing is checked if its sizes are known only with the weights.
    """
    is_size = name in GPT_CONFIGS and name in HUB_IDS
    config = GPTConfig.of(GPT_CONFIGS[str(name)]) if is_size else saved_config(name)
    if config is not None:
        choose_strategy(flags, config, runtime)


def tuning_runtime(base: Path, flags: RecordTrainingFlags, *, dpo: bool = False) -> Runtime:
    """The runtime of SFT or DPO of the model at `base`, before its weights are read.

    Raises ValueError if the training clearly does not fit in memory, and what `choose_runtime` raises.
    """
    config = saved_config(base)
    width = config.d_model if config else GPT_CONFIGS["gpt2-124M"]["d_model"]  # unknown: weights without a config
    runtime = choose_runtime(flags.device, flags.precision, packed_width=width)
    if config is not None:
        choose_strategy(flags, config, runtime, dpo=dpo)  # refuses what cannot fit
    return runtime


def require_first_step_fits(stage: Stage, config: GPTConfig, flags: TrainingFlags, runtime: Runtime) -> None:
    """Raise ValueError if the batches of the first step clearly do not fit in memory. The lengths of records vary."""
    batches = stage.loader.step_batches(0)
    dpo = isinstance(batches[0], PairBatch)
    tokens = max(batch.n_supervised if dpo else batch.inputs.numel() for batch in batches)
    work = workload(flags, config, runtime, dpo=dpo)
    require_fit(replace(work, context_length=-(-tokens // work.sequences)), runtime.device)  # the average length
