"""python -m benchmarks.scale: the table of benchmarks/scale.md, what models of 1.5 to 175 billion parameters need.

Nothing is run: memory and traffic come from the formulas of `src.plan`, times from the figures below.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from src.cli import parse
from src.model.config import GPT_CONFIGS, GPTConfig
from src.planning.scale import flops_per_token, optimal_tokens, traffic
from src.program import run_script
from src.training.memory_estimate import Workload, memory_by_purpose, peak

GPU_MEMORY = 80e9  # bytes; this and the next three: NVIDIA's data sheet of the H100 SXM, a machine of eight
GPU_FLOPS = 989e12  # per second, bf16, dense
NVLINK = 450e9  # bytes per second that a GPU sends inside its machine
NETWORK = 50e9  # bytes per second that a GPU sends to other machines: 400 Gbit/s each
UTILISATION = 0.4  # of GPU_FLOPS; Narayanan et al. 2021, table 1, reached 0.44 to 0.52 on the A100
SPEED = UTILISATION * GPU_FLOPS
DAY = 86_400


@dataclass(frozen=True)
class Run:
    """A compute-optimal pretraining run with FSDP, bf16 and recomputed activations, one process per GPU."""

    model: str
    step_tokens: int
    processes: int

    @property
    def work(self) -> Workload:
        config = GPTConfig.of(GPT_CONFIGS[self.model])
        sequences = self.step_tokens // config.context_length // self.processes * self.processes
        return Workload(
            config=config,
            batch_size=sequences,
            context_length=config.context_length,
            half=True,
            strategy="fsdp",
            processes=self.processes,
            activation_checkpointing=True,
            on_gpu=True,
        )

    @property
    def compute_s(self) -> float:
        """Seconds of arithmetic in a step."""
        config = self.work.config
        return flops_per_token(config, config.context_length) * self.work.tokens / SPEED

    @property
    def traffic_s(self) -> float:
        """Seconds of traffic in a step: over NVLink inside one machine, else over the network."""
        return traffic(self.work) / (NVLINK if self.processes <= 8 else NETWORK)

    @property
    def days(self) -> float:
        """Days of a compute-optimal run, if traffic and arithmetic overlap completely."""
        steps = optimal_tokens(self.work.config) / (self.work.tokens * self.processes)
        return steps * max(self.compute_s, self.traffic_s) / DAY


# Tokens per step: GPT-2's 512 windows (Radford et al. 2019), the others from Brown et al. 2020, table 2.1.
RUNS = (
    ("gpt2-1558M", 524_288, (8, 32, 64)),
    ("gpt3-13B", 2_097_152, (8, 64, 256)),
    ("gpt3-175B", 3_211_264, (64, 256, 1024)),
)


def rows() -> Iterator[str]:
    """The lines of the table."""
    yield "| model | GPUs | memory of each: state, activations, rest, sum | sent | arithmetic, traffic | days |"
    yield "|---|---|---|---|---|---|"
    for run in (Run(model, tokens, n) for model, tokens, processes in RUNS for n in processes):
        parts = memory_by_purpose(run.work)
        state = sum(parts[name] for name in ("weights", "optimizer", "gradients")) / 1e9
        activations, total = parts["activations"] / 1e9, peak(run.work) / 1e9
        memory = f"{state:.0f}, {activations:.0f}, {total - state - activations:.0f}, {total:.0f} GB"
        if total * 1e9 > GPU_MEMORY:
            memory += ": does not fit"
        times = f"{run.compute_s:.1f} s, {run.traffic_s:.1f} s"
        sent = f"{traffic(run.work) / 1e9:,.0f} GB"
        yield f"| {run.model} | {run.processes} | {memory} | {sent} | {times} | {run.days:,.1f} |"


@dataclass(frozen=True)
class Flags:
    """None: the assumptions are the constants above."""


def main(argv: Sequence[str] | None = None) -> int:
    parse(Flags, argv, __doc__)
    print(*rows(), sep="\n")
    return 0


if __name__ == "__main__":
    run_script(main)
