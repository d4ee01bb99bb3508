"""python -m benchmarks.processes: speed of two processes, compared with one of two threads, and time of a restart.

All train on the same batches. They take turns, step by step, so that other load on the machine slows all of them alike.
The times are medians. For the restart, the first process of a run of main.py is killed. The time is from the kill until
the run is loaded again, with 2 seconds in which the other process finds out whom it lost. Linux and macOS only.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from benchmarks.harness import check_rounds, run_in_turns, seconds, serve
from benchmarks.training_speed import LARGE_SHAPE, SHAPES
from src.cli import flag, parse
from src.data.batching import Batch
from src.distributed.processes import Strategy
from src.model.config import GPTConfig
from src.model.gpt import GPT_CONFIGS
from src.program import run_script
from src.runtime import choose_runtime, keep_freed_memory
from src.training.loop import accumulate, optimizer_step
from src.training.losses import language_model_loss
from src.training.optim import make_optimizer
from src.training.shared_model import initial_model, share_model

PROCESSES = 2
TORCHRUN = ("torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}")


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Literal["micro", "tiny", "gpt2-124M"] = flag("micro", "model size")
    rounds: int = flag(12, "measured steps of each, after two to warm up")
    precision: Literal["fp32", "bf16"] = flag("fp32", "precision of the steps")
    part: Literal["all", "steps", "restart"] = flag("all", "measure only one of the two")
    worker: Literal["single", "ddp", "fsdp"] | None = flag(None, "internal: be a worker process of this strategy")


def run_worker(flags: Flags, strategy: Strategy) -> None:
    """Serve training steps: the seconds of each. The first process reads when to begin, and tells the others."""
    keep_freed_memory()
    runtime = replace(choose_runtime("cpu", flags.precision), strategy=strategy)
    processes = runtime.processes
    torch.set_num_threads(PROCESSES // processes.count)
    windows, context_length = SHAPES.get(flags.model, LARGE_SHAPE)
    config = GPTConfig.of({**GPT_CONFIGS[flags.model], "dropout": 0.0})
    ids = torch.randint(config.vocab_size, (windows, context_length + 1), generator=torch.Generator().manual_seed(1))
    part = torch.stack([*processes.share(list(ids))])
    batch = Batch(part[:, :-1].contiguous(), part[:, 1:].contiguous())
    model = initial_model(config, 1, runtime)
    shared = share_model(model, language_model_loss, runtime, seed=1)
    optimizer = make_optimizer("adamw", model, max_lr=1e-5, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def step() -> None:
        accumulate(shared, [batch], runtime, scaler)
        optimizer_step(model, optimizer, scaler, 1.0)

    def measure() -> tuple[float]:
        processes.from_first(True)
        return (seconds(step),)

    step()
    if processes.rank == 0:
        serve(measure)
        processes.from_first(False)
    while processes.rank and processes.from_first(True):
        step()


def compare_steps(flags: Flags) -> None:
    worker = ["benchmarks.processes", "--model", flags.model, "--precision", flags.precision, "--worker"]
    commands = {
        "one process": [*worker, "single"],
        "two, ddp": [*TORCHRUN, "-m", *worker, "ddp"],
        "two, fsdp": [*TORCHRUN, "-m", *worker, "fsdp"],
    }
    results = run_in_turns(commands, flags.rounds, lambda: None)
    windows, context_length = SHAPES.get(flags.model, LARGE_SHAPE)
    print(f"{flags.model}, {windows} x {context_length} tokens, {flags.precision}, {PROCESSES} threads in all")
    one = [step_s for (step_s,) in results["one process"]]
    for name, steps in results.items():
        times = [step_s for (step_s,) in steps]
        speed = statistics.median(a / b for a, b in zip(one, times, strict=True))
        print(f"{name:<12} {statistics.median(times) * 1e3:7.0f} ms per step | {speed:.2f} x the speed of one process")


def measure_restart() -> None:
    """Kill the first process of a run, and wait until torchrun has loaded it again."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        text.write_text("It was a dark and stormy night; the rain fell in torrents. " * 5000, encoding="utf-8")
        run = ["main.py", "--data", str(text), "--max-steps", "2000", "--eval-every", "2000", "--save-every", "50"]
        command = [sys.executable, "-m", *TORCHRUN, "--max-restarts=1", *run, "--out", folder, "--log-dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as torchrun:
            try:
                _wait_for_line(torchrun, r"step +100/")
                os.kill(json.loads(Path(folder, ".lock").read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
                start = time.perf_counter()
                _wait_for_line(torchrun, "resuming ")
                print(f"a killed process: the run is loaded again after {time.perf_counter() - start:.1f} s")
            finally:
                torchrun.terminate()


def _wait_for_line(process: "subprocess.Popen[str]", pattern: str) -> None:
    """Raises RuntimeError if the output ends before a line matches."""
    assert process.stdout
    if not any(re.match(pattern, line) for line in process.stdout):
        raise RuntimeError(f"the run ended without a line like {pattern!r}")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    if flags.worker:
        run_worker(flags, "none" if flags.worker == "single" else flags.worker)
        return 0
    os.environ["OMP_NUM_THREADS"] = str(PROCESSES)  # each worker sets its own number
    if flags.part != "restart":
        compare_steps(flags)
    if flags.part != "steps":
        measure_restart()
    return 0


if __name__ == "__main__":
    run_script(main)
