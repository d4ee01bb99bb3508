"""The plan of a training run: its memory and time, and the lines or the JSON object that report them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from src.common.machine import usable_cpus
from src.distributed.processes import Processes
from src.planning.flags import Flags
from src.planning.scale import TOKENS_PER_PARAMETER, flops_per_token, optimal_tokens, traffic
from src.planning.timing import measure_step
from src.runtime import Runtime, choose_runtime
from src.training.fit import GB, advice, device_memory
from src.training.memory_estimate import Workload, memory_by_purpose, peak
from src.training.parallel import resolve_strategy, workload
from src.training.recipes import RECIPES

ASSUMED_MEMORY = 8 * GB  # if the system does not report its memory


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A planned run: its step, the memory that each process may use, and the time of the step."""

    flags: Flags
    runtime: Runtime
    work: Workload
    processes_per_machine: int
    room: float  # bytes that each process may use
    limited_by: str  # what sets that limit
    changes: list[str]  # that make the run fit; none if it does
    step_seconds: float | None = None  # None if the run does not fit: then nothing is measured

    @property
    def tokens_per_step(self) -> int:
        return self.flags.batch_size * self.flags.grad_accum * self.flags.context_length

    @property
    def flops_per_token(self) -> float:
        return flops_per_token(self.work.config, self.flags.context_length, frozen=self.flags.lora is not None)

    @property
    def tokens(self) -> int:
        """The tokens of the whole run: --tokens, or the compute-optimal number."""
        return self.flags.tokens or optimal_tokens(self.work.config)

    @property
    def seconds(self) -> float | None:
        """The time of the whole run."""
        return self.step_seconds and self.step_seconds * self.tokens / self.tokens_per_step


def make_plan(flags: Flags) -> Plan:
    """Compute the memory of a run and, if it suffices, measure the time of a step."""
    flags = _with_vocabulary(flags)
    runtime = choose_runtime(flags.device, flags.precision, packed_width=flags.packed_width)
    per_machine = _processes_per_machine(flags, runtime.device)
    room, limited_by = _memory_limit(flags, runtime.device, per_machine)
    work = _workload(flags, runtime, room)
    plan = Plan(
        flags=flags,
        runtime=replace(runtime, strategy=work.strategy),
        work=work,
        processes_per_machine=per_machine,
        room=room,
        limited_by=limited_by,
        changes=[] if peak(work) <= room else _changes(work, flags, room, per_machine),
    )
    if plan.changes and not flags.speed:
        return plan
    return replace(plan, step_seconds=_step_seconds(plan))


def _with_vocabulary(flags: Flags) -> Flags:
    """The flags with the vocabulary that main.py would use, unless --vocab-size is given; None is GPT-2's."""
    recipe = RECIPES["pretrain"].get(flags.model, {})
    return replace(flags, vocab_size=flags.vocab_size or recipe.get("vocab_size"))


def _processes_per_machine(flags: Flags, device: torch.device) -> int:
    """How many processes run on this machine, one per GPU or CPU core. The others run on machines like it."""
    return min(flags.processes, torch.cuda.device_count() if device.type == "cuda" else usable_cpus())


def _memory_limit(flags: Flags, device: torch.device, processes_per_machine: int) -> tuple[float, str]:
    """(bytes that each process may use, what limits them)."""
    if flags.memory:
        return flags.memory * GB, "as requested"
    available, limited_by = device_memory(device)
    memory = ASSUMED_MEMORY if available is None else float(available)
    if available is None:
        limited_by = f"unknown, so {ASSUMED_MEMORY / GB:.0f} GB are assumed"
    if device.type == "cuda" or processes_per_machine == 1:
        return memory, limited_by
    return memory / processes_per_machine, f"{limited_by}, for {processes_per_machine} processes"


def _workload(flags: Flags, runtime: Runtime, room: float) -> Workload:
    """A step of the planned run, in as many processes as --processes says."""
    planned = replace(runtime, processes=Processes(count=flags.processes))
    work = workload(flags, flags.config(), planned, dpo=flags.stage == "dpo")
    work = replace(work, on_gpu=work.on_gpu or flags.memory is not None)
    return replace(work, strategy=resolve_strategy(flags.strategy, work, room))


def _changes(work: Workload, flags: Flags, room: float, processes_per_machine: int) -> list[str]:
    """What would make the run fit. --memory is that of one GPU; without it, the processes of this machine share its."""
    sharing = 1 if flags.memory else processes_per_machine
    return advice(work, room, sharing, "GPUs" if work.on_gpu else "machines")


def _step_seconds(plan: Plan) -> float:
    """The time of a step: computed from --speed or, without it, measured."""
    flags = plan.flags
    if flags.speed:
        return plan.flops_per_token * plan.tokens_per_step / (flags.speed * 1e12 * flags.processes)
    return measure_step(flags, plan.runtime, plan.processes_per_machine)


def as_json(plan: Plan) -> dict[str, object]:
    """The figures of a plan as plain values, for --json: memory in bytes, time in seconds."""
    config = plan.work.config
    parameters, body = config.parameter_count()
    return {
        "model": plan.flags.model,
        "stage": plan.flags.stage,
        "parameters": parameters,
        "parameters_without_embeddings": body,
        "trained_parameters": plan.work.trained_parameters,
        "flops_per_token": plan.flops_per_token,
        "device": str(plan.runtime.device),
        "precision": plan.runtime.precision,
        "precision_reason": plan.runtime.reason,
        "processes": plan.flags.processes,
        "processes_per_machine": plan.processes_per_machine,
        "strategy": plan.work.strategy,
        "tokens_per_step": plan.tokens_per_step,
        "memory_of_a_process": memory_by_purpose(plan.work),
        "peak_of_a_process": peak(plan.work),
        "room_of_a_process": plan.room,
        "limited_by": plan.limited_by,
        "changes": plan.changes,
        "traffic_per_step": traffic(plan.work),  # bytes that each process sends
        "step_seconds": plan.step_seconds,
        "tokens": plan.tokens,
        "compute_optimal_tokens": optimal_tokens(config),
        "fits": not plan.changes,
        "seconds": plan.seconds,
    }


def as_lines(plan: Plan) -> list[str]:
    """The lines that the command prints."""
    return [f"{name:<9}{text}" for name, text in _rows(plan)]


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """(name, text) of each line."""
    flags, runtime, each = plan.flags, plan.runtime, " each" if plan.flags.processes > 1 else ""
    yield "model", _describe_model(plan)
    yield "device", f"{runtime.device}, {runtime.precision} ({runtime.reason})"
    if flags.processes > 1:
        yield "share", _describe_sharing(plan)
    held = {name: n_bytes for name, n_bytes in memory_by_purpose(plan.work).items() if n_bytes >= 5e6}
    parts = ", ".join(f"{name} {n_bytes / GB:,.2f}" for name, n_bytes in held.items())
    yield "memory", f"about {peak(plan.work) / GB:,.2f} GB{each}: {parts}"
    fits = "it does not fit" if plan.changes else "it fits"
    yield "here", f"{plan.room / GB:,.1f} GB{each}, {plan.limited_by}: {fits}"
    for change in plan.changes:
        yield "change", change
    if plan.step_seconds is not None:
        step = f"{flags.batch_size} x {flags.grad_accum} sequences of {flags.context_length} tokens, {flags.optimizer}"
        speed = plan.tokens_per_step / plan.step_seconds
        yield "step", f"{step}: about {plan.step_seconds:.3g} s, {speed:,.0f} tokens per second"
    yield "run", _describe_run(plan)


def _describe_model(plan: Plan) -> str:
    config, lora = plan.work.config, plan.flags.lora
    parameters, _ = config.parameter_count()
    adapter = f"LoRA rank {lora} trains {plan.work.trained_parameters:,}, " if lora else ""
    return (
        f"{plan.flags.model}: {config.n_layers} layers, {config.d_model} wide, {parameters:,} parameters, {adapter}"
        f"{plan.flops_per_token / 1e9:,.3g} GFLOP per token"
    )


def _describe_sharing(plan: Plan) -> str:
    processes = plan.flags.processes
    machines = -(-processes // plan.processes_per_machine)
    place = "" if plan.flags.memory else f" on {machines} machine{'s' if machines > 1 else ''}"
    sent = f"each sends {traffic(plan.work) / GB:,.3g} GB per step"
    return f"{processes} processes{place}, {plan.work.strategy}; {sent}"


def _describe_run(plan: Plan) -> str:
    optimal = f", {TOKENS_PER_PARAMETER} per parameter, compute-optimal (Hoffmann et al. 2022)"
    tokens = f"{plan.tokens:,} tokens{'' if plan.flags.tokens else optimal}"
    time = "" if plan.seconds is None else f", about {duration(plan.seconds)}"
    return f"{tokens}: {plan.flops_per_token * plan.tokens:.2g} FLOP{time}"


def duration(seconds: float) -> str:
    """A time with a unit that suits its length."""
    units = {"years": 365.25 * 86400, "days": 86400, "h": 3600, "min": 60}
    name, length = next(((name, length) for name, length in units.items() if seconds >= length), ("s", 1))
    return f"{seconds / length:,.1f} {name}"
