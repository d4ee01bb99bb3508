"""python -m benchmarks.lora: time and peak memory of a tuning step, and sizes of checkpoints, with and without --lora.

instruction_tune.py or dpo_train.py trains a model with random weights on the shipped data for a few steps, evaluates
and saves, without samples, on a CPU in fp32. The time is the median of the steps. The peak is that of the process,
imports included; the plan is the estimate of src.plan. Linux and macOS only.
"""

import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from benchmarks.harness import peak_mb
from src.checkpoint import BEST, LATEST, save_checkpoint
from src.cli import flag, parse
from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.gpt import GPTModel
from src.program import run_script
from src.training import loop, parallel
from src.training.memory_estimate import peak

SCRIPTS = {"sft": "instruction_tune", "dpo": "dpo_train"}
CASES = {
    "all weights": [],
    "--lora 8": ["--lora", "8"],
    "--lora 8 --lora-targets all-linear": ["--lora", "8", "--lora-targets", "all-linear"],
}
_SAVE = "import sys; from benchmarks.lora import save_base; save_base(*sys.argv[1:])"


@dataclass(frozen=True, kw_only=True)
class Flags:
    stage: Literal["sft", "dpo"] = flag("sft", "which kind of tuning")
    model: str = flag("gpt2-124M", f"size: {', '.join(GPT_CONFIGS)}")
    steps: int = flag(6, "steps of each run")
    batch_size: int = flag(4, "conversations or pairs per step")
    processor_time: bool = flag(
        False, "processor time of all threads in place of wall time: for a machine that is busy"
    )
    worker: str = flag("", "internal: train in this process, with these arguments")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    if flags.worker:
        if flags.processor_time:
            time.perf_counter = time.process_time
        return measure(SCRIPTS[flags.stage], json.loads(flags.worker))
    clock = "processor time" if flags.processor_time else "time"
    threads = torch.get_num_threads()
    print(f"{flags.stage}, {flags.model}, batches of {flags.batch_size}, fp32, {threads} threads, {clock} of a step")
    with TemporaryDirectory() as folder:
        base = Path(folder, "base.pt")
        subprocess.run([sys.executable, "-c", _SAVE, flags.model, str(base)], check=True)
        for number, (name, arguments) in enumerate(CASES.items()):
            print(f"{name:36}{run(flags, base, Path(folder, str(number)), arguments)}", flush=True)
    return 0


def save_base(model: str, path: str) -> None:
    """Save a model with random weights. In a process of its own: a child's peak is at least its parent's size."""
    torch.manual_seed(0)
    config = GPTConfig.of({**GPT_CONFIGS[model], "dropout": 0.0})
    save_checkpoint(Path(path), {"stage": "sft", "config": asdict(config), "model": GPTModel(config).state_dict()})


def run(flags: Flags, base: Path, out: Path, arguments: Sequence[str]) -> str:
    """Train in a process of its own; returns what it needed."""
    given = ["--base", str(base), "--out", str(out), "--log-dir", str(out), "--max-steps", str(flags.steps)]
    given += ["--eval-every", str(flags.steps), "--batch-size", str(flags.batch_size), "--precision", "fp32"]
    command = [sys.executable, "-m", "benchmarks.lora", "--stage", flags.stage]
    command += ["--processor-time"] * flags.processor_time + ["--worker"]
    done = subprocess.run([*command, json.dumps([*given, *arguments])], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the run failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    estimate, measured = json.loads(done.stdout.splitlines()[-1])
    log = next(out.glob("*.jsonl")).read_text(encoding="utf-8")
    events = [json.loads(line) for line in log.splitlines()]
    step_s = statistics.median(event["step_s"] for event in events if event["event"] == "step" and event["step"] > 1)
    sizes = " and ".join(f"{(out / name).stat().st_size / 1e6:,.1f}" for name in (BEST, LATEST))
    return (
        f"{step_s:7.3f} s | peak {measured / 1e9:5.2f} GB, planned {estimate / 1e9:5.2f} | {BEST}, {LATEST} {sizes} MB"
    )


def measure(script: str, arguments: Sequence[str]) -> int:
    """Train in this process; the last line printed is the estimate for the longest step, and the peak, in bytes."""
    estimates: list[float] = []

    def require_fit(work: parallel.Workload, device: torch.device) -> None:
        estimates.append(peak(work))

    parallel.require_fit, loop.sample = require_fit, lambda model, generate: ""
    code = int(importlib.import_module(script).main(arguments))
    print(json.dumps([estimates[-1], peak_mb() * 1e6]))
    return code


if __name__ == "__main__":
    run_script(main)
