"""python -m benchmarks.plan_accuracy: the memory and time that src.plan estimates, compared with real runs of main.py.

A run of a few steps, with an evaluation and its saves, gives the peak memory of its largest process, and the fastest
step after the first. Plan and run take turns. The fastest steps of all rounds and the median of the peaks are compared.
Each process has one thread, as torchrun sets it. Linux and macOS only.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import main as pretraining
from benchmarks.harness import check_rounds, peak_mb
from src.cli import flag, parse
from src.distributed.environment import rank
from src.distributed.processes import join
from src.planning import timing
from src.planning.flags import Flags as PlanFlags
from src.planning.report import make_plan
from src.program import run_script
from src.training import memory_estimate

STEPS = 6
BATCH, LENGTH = 4, 256
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Flags:
    models: str = flag("micro,tiny,gpt2-124M", "sizes, separated by commas")
    processes: str = flag("1,2-ddp,2-fsdp", "numbers of processes with their strategies, separated by commas")
    precisions: str = flag("fp32,bf16", "number formats, separated by commas")
    optimizer: Literal["adamw", "muon"] = flag("adamw", "optimizer of the matrices in the blocks")
    grad_accum: int = flag(1, "micro-batches per step")
    activation_checkpointing: bool = flag(False, "recompute each layer's activations in backward")
    rounds: int = flag(3, "plans and runs of each row")
    processor_time: bool = flag(False, "processor time in place of wall time: for a machine that is busy")
    worker: str | None = flag(None, "internal: a JSON file that says what this process measures")


@dataclass(frozen=True, kw_only=True)
class Row:
    model: str
    processes: int
    strategy: str
    precision: str
    flags: Flags

    def arguments(self) -> list[str]:
        """The flags that main.py and the plan share."""
        switch = (
            "--activation-checkpointing" if self.flags.activation_checkpointing else "--no-activation-checkpointing"
        )
        return [
            *("--model", self.model, "--batch-size", str(BATCH), "--context-length", str(LENGTH), "--device", "cpu"),
            *("--optimizer", self.flags.optimizer, "--grad-accum", str(self.flags.grad_accum)),
            *("--precision", self.precision, "--strategy", self.strategy, switch),
        ]

    def plan(self) -> PlanFlags:
        return parse(PlanFlags, [*self.arguments(), "--processes", str(self.processes)], "")[0]


def rows(flags: Flags) -> Iterator[Row]:
    for model in flags.models.split(","):
        for processes in flags.processes.split(","):
            count, _, strategy = processes.partition("-")
            for precision in flags.precisions.split(","):
                yield Row(
                    model=model, processes=int(count), strategy=strategy or "auto", precision=precision, flags=flags
                )


def measure(row: Row, kind: Literal["plan", "run"]) -> tuple[float, float]:
    """(seconds of a step, the peak memory of the largest process in bytes)."""
    with TemporaryDirectory() as folder:
        random_text(Path(folder) / "text.txt")
        arguments = [*row.arguments(), "--data", "text.txt", "--out", "out", "--log-dir", "logs", "--dropout", "0"]
        arguments += ["--max-steps", str(STEPS), "--eval-every", str(STEPS), "--save-every", "1000"]
        work = {"kind": kind, "run": arguments, "plan": [*row.arguments(), "--processes", str(row.processes)]}
        Path(folder, "work.json").write_text(json.dumps(work), encoding="utf-8")
        switch = ["--processor-time"] if row.flags.processor_time else []
        worker = ["-m", "benchmarks.plan_accuracy", "--worker", "work.json", *switch]
        if row.processes > 1:
            worker = ["-m", "torch.distributed.run", f"--nproc-per-node={row.processes}", "--standalone", *worker]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        result = subprocess.run([sys.executable, *worker], cwd=folder, env=environment, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"the {kind} of {row.model} failed: {result.stderr.strip().splitlines()[-1]}")
        found = [json.loads(file.read_text(encoding="utf-8")) for file in Path(folder).glob("rank-*.json")]
    return max(seconds for seconds, _ in found), max(peak for _, peak in found)


def random_text(file: Path) -> None:
    """A text of tens of thousands of tokens: enough for the steps, and soon tokenised."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 7))) for _ in range(3000)]
    file.write_text("\n".join(" ".join(rng.choices(words, k=12)) for _ in range(900)), encoding="utf-8")


def run_worker(flags: Flags) -> None:
    """Measure a plan or a run in this process, and write the result to a file."""
    if flags.processor_time:
        time.perf_counter = time.process_time
    work = json.loads(Path(str(flags.worker)).read_text(encoding="utf-8"))
    if work["kind"] == "plan":
        # This process is one of those that the plan would start.
        timing.best_times_in_processes = lambda flags, runtime, depths: timing.best_times(
            flags, replace(runtime, processes=join(runtime.device)), depths
        )
        plan = make_plan(parse(PlanFlags, work["plan"], "")[0])
        seconds, peak = plan.step_seconds or 0.0, memory_estimate.peak(plan.work)
    else:
        pretraining.main(work["run"])
        seconds, peak = fastest_step(), peak_mb() * 1e6
    Path(f"rank-{rank()}.json").write_text(json.dumps([seconds, peak]), encoding="utf-8")


def fastest_step() -> float:
    """The seconds of the fastest step after the first in the log; 0 in a process without a log."""
    events = [json.loads(line) for log in Path("logs").glob("*.jsonl") for line in log.open(encoding="utf-8")]
    return min((event["step_s"] for event in events if event["event"] == "step" and event["step"] > 1), default=0.0)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    if flags.worker:
        run_worker(flags)
        return 0
    clock = "processor time" if flags.processor_time else "time"
    print(
        f"{BATCH} x {flags.grad_accum} x {LENGTH} tokens, {flags.optimizer}, one thread per process, {clock} of a step"
    )
    for row in rows(flags):
        found = [(measure(row, "plan"), measure(row, "run")) for _ in range(flags.rounds)]
        print_row(row, plans=[plan for plan, _ in found], runs=[run for _, run in found])
    return 0


def print_row(row: Row, plans: Sequence[tuple[float, float]], runs: Sequence[tuple[float, float]]) -> None:
    (planned_s, planned), (run_s, _) = min(plans), min(runs)
    peaks = [peak for _, peak in runs]
    held = statistics.median(peaks)
    print(
        f"{row.model:<10} {row.processes} {row.strategy if row.processes > 1 else '':<4} {row.precision} | "
        f"planned {planned_s:6.3f} s, measured {run_s:6.3f} s, {planned_s / run_s - 1:+4.0%} | "
        f"planned {planned / 1e9:.2f} GB, measured {held / 1e9:.2f} ({min(peaks) / 1e9:.2f} to "
        f"{max(peaks) / 1e9:.2f}), {planned / held - 1:+4.0%}",
        flush=True,
    )


if __name__ == "__main__":
    run_script(main)
