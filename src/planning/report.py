"""The plan of a training run: its figures, and the lines that print them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch

from src.common.machine import usable_cpus
from src.distributed.processes import Processes
from src.distributed.strategy import Strategy
from src.planning.flags import Flags
from src.planning.scale import TOKENS_PER_PARAMETER, flops_per_token, optimal_tokens, traffic
from src.planning.timing import step_seconds
from src.runtime import Runtime, choose_runtime
from src.training.fit import GB, advice, device_memory
from src.training.memory_estimate import Workload, memory_by_purpose, peak
from src.training.parallel import pick_strategy, workload
from src.training.recipes import RECIPES

ASSUMED_MEMORY = 8 * GB  # if the system does not report its memory


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Memory in bytes, time in seconds. `step_seconds` is None if the run does not fit: then nothing is measured."""

    model: str
    stage: str
    parameters: int
    parameters_without_embeddings: int
    trained_parameters: int
    flops_per_token: float
    device: str
    precision: str
    precision_reason: str
    processes: int
    processes_per_machine: int
    strategy: Strategy
    tokens_per_step: int
    memory_of_a_process: dict[str, float]
    peak_of_a_process: float
    room_of_a_process: float
    limited_by: str
    changes: list[str]  # that make the run fit; none if it does
    traffic_per_step: float  # bytes that each process sends
    step_seconds: float | None
    tokens: int
    compute_optimal_tokens: int

    @property
    def seconds(self) -> float | None:
        """The time of the whole run."""
        return self.step_seconds and self.step_seconds * self.tokens / self.tokens_per_step


def make_plan(flags: Flags) -> Plan:
    """Compute the memory of a run and, if it suffices, measure the time of a step."""
    flags = replace(flags, vocab_size=flags.vocab_size or RECIPES["pretrain"].get(flags.model, {}).get("vocab_size"))
    size = flags.size()
    runtime = choose_runtime(flags.device, flags.precision, packed_width=flags.packed_width)
    local = _local_processes(flags, runtime.device)
    room, limited_by = _memory_limit(flags, runtime.device, local)
    work = _workload(flags, runtime, room)
    changes = [] if peak(work) <= room else _changes(work, flags, room, local)
    tokens_per_step = flags.batch_size * flags.grad_accum * flags.context_length
    flops = flops_per_token(size, flags.context_length, frozen=flags.lora is not None)
    step_s = None
    if flags.speed or not changes:
        step_s = _step_time(flags, replace(runtime, strategy=work.strategy), flops * tokens_per_step, local)
    parameters, body = size.parameter_count()
    return Plan(
        model=flags.model,
        stage=flags.stage,
        parameters=parameters,
        parameters_without_embeddings=body,
        trained_parameters=work.trained,
        flops_per_token=flops,
        device=str(runtime.device),
        precision=runtime.precision,
        precision_reason=runtime.reason,
        processes=flags.processes,
        processes_per_machine=local,
        strategy=work.strategy,
        tokens_per_step=tokens_per_step,
        memory_of_a_process=memory_by_purpose(work),
        peak_of_a_process=peak(work),
        room_of_a_process=room,
        limited_by=limited_by,
        changes=changes,
        traffic_per_step=traffic(work),
        step_seconds=step_s,
        tokens=flags.tokens or optimal_tokens(size),
        compute_optimal_tokens=optimal_tokens(size),
    )


def _step_time(flags: Flags, runtime: Runtime, flops_per_step: float, local_processes: int) -> float:
    """The seconds of a step: computed from --speed or, without it, measured."""
    if flags.speed:
        return flops_per_step / (flags.speed * 1e12 * flags.processes)
    return step_seconds(flags, runtime, local_processes)


def _local_processes(flags: Flags, device: torch.device) -> int:
    """How many processes run on this machine, one per GPU or CPU core. The others run on machines like it."""
    return min(flags.processes, torch.cuda.device_count() if device.type == "cuda" else usable_cpus())


def _memory_limit(flags: Flags, device: torch.device, local_processes: int) -> tuple[float, str]:
    """(bytes that each process may use, what limits them)."""
    if flags.memory:
        return flags.memory * GB, "as requested"
    available, limited_by = device_memory(device)
    if available is None:
        limited_by = f"unknown, so {ASSUMED_MEMORY / GB:.0f} GB are assumed"
    sharing = 1 if device.type == "cuda" else local_processes
    return (available or ASSUMED_MEMORY) / sharing, limited_by + (f", for {sharing} processes" if sharing > 1 else "")


def _workload(flags: Flags, runtime: Runtime, room: float) -> Workload:
    """A step of the planned run, in as many processes as --processes says."""
    planned = replace(runtime, processes=Processes(count=flags.processes))
    work = workload(flags, flags.size(), planned, dpo=flags.stage == "dpo")
    work = replace(work, on_gpu=work.on_gpu or flags.memory is not None)
    return replace(work, strategy=pick_strategy(work, flags, room))


def _changes(work: Workload, flags: Flags, room: float, local_processes: int) -> list[str]:
    """What would make the run fit. --memory is that of one GPU; without it, the processes of this machine share its."""
    return advice(work, room, 1 if flags.memory else local_processes, "GPUs" if work.on_gpu else "machines")


def as_json(plan: Plan) -> dict[str, object]:
    """The figures of a plan as plain values, for --json."""
    return {**asdict(plan), "fits": not plan.changes, "seconds": plan.seconds}


def as_lines(plan: Plan, flags: Flags) -> Iterator[str]:
    """The lines that the command prints."""
    size, each = flags.size(), " each" if plan.processes > 1 else ""
    adapter = f"LoRA rank {flags.lora} trains {plan.trained_parameters:,}, " if flags.lora else ""
    yield (
        f"model    {plan.model}: {size.n_layers} layers, {size.d_model} wide, {plan.parameters:,} parameters, {adapter}"
        f"{plan.flops_per_token / 1e9:,.3g} GFLOP per token"
    )
    yield f"device   {plan.device}, {plan.precision} ({plan.precision_reason})"
    if plan.processes > 1:
        machines = -(-plan.processes // plan.processes_per_machine)
        place = "" if flags.memory else f" on {machines} machine{'s' if machines > 1 else ''}"
        sent = f"each sends {plan.traffic_per_step / GB:,.3g} GB per step"
        yield f"share    {plan.processes} processes{place}, {plan.strategy}; {sent}"
    parts = ", ".join(f"{name} {held / GB:,.2f}" for name, held in plan.memory_of_a_process.items() if held >= 5e6)
    yield f"memory   about {plan.peak_of_a_process / GB:,.2f} GB{each}: {parts}"
    fits = "it does not fit" if plan.changes else "it fits"
    yield f"here     {plan.room_of_a_process / GB:,.1f} GB{each}, {plan.limited_by}: {fits}"
    yield from (f"change   {change}" for change in plan.changes)
    windows = f"{flags.batch_size} x {flags.grad_accum} sequences of {flags.context_length} tokens, {flags.optimizer}"
    if plan.step_seconds is not None:
        speed = plan.tokens_per_step / plan.step_seconds
        yield f"step     {windows}: about {plan.step_seconds:.3g} s, {speed:,.0f} tokens per second"
    optimal = f", {TOKENS_PER_PARAMETER} per parameter, compute-optimal (Hoffmann et al. 2022)"
    yield (
        f"run      {plan.tokens:,} tokens{'' if flags.tokens else optimal}: "
        f"{plan.flops_per_token * plan.tokens:.2g} FLOP"
        + (f", about {duration(plan.seconds)}" if plan.seconds is not None else "")
    )


def duration(seconds: float) -> str:
    """A time with a unit that suits its length."""
    units = {"years": 365.25 * 86400, "days": 86400, "h": 3600, "min": 60}
    name, length = next(((name, length) for name, length in units.items() if seconds >= length), ("s", 1))
    return f"{seconds / length:,.1f} {name}"
