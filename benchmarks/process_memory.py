"""python -m benchmarks.process_memory: peak memory of each process of a training run, alone, with DDP and with FSDP.

main.py trains for two steps on a CPU, evaluates and saves, without samples. Printed is the peak of each process,
imports included: until the last step, and until the end, after the checkpoints. Linux and macOS only.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import main as pretraining
from benchmarks.harness import peak_mb
from src.cli import flag, parse
from src.distributed.environment import rank
from src.model.config import GPT_CONFIGS
from src.program import run_script
from src.training import loop
from src.training.reporter import Reporter
from src.training.stage import Progress, TrainingRun

SEQUENCE = 256  # tokens
RECOMPUTED = "--activation-checkpointing"
CASES: dict[str, tuple[int, list[str]]] = {  # number of processes, flags
    "one process": (1, []),
    "one process, activations recomputed": (1, [RECOMPUTED]),
    "ddp": (2, ["--strategy", "ddp"]),
    "fsdp": (2, ["--strategy", "fsdp"]),
    "fsdp, activations recomputed": (2, ["--strategy", "fsdp", RECOMPUTED]),
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("gpt2-124M", f"size: {', '.join(GPT_CONFIGS)}")
    batch_size: int = flag(4, f"sequences of {SEQUENCE} tokens per step, over all processes")
    precision: Literal["fp32", "bf16"] = flag("fp32", "number format of the forward pass")
    worker: str = flag("", "internal: run main.py in this process, with these arguments")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    if flags.worker:
        return measure(json.loads(flags.worker))
    print(f"{flags.model}, {flags.batch_size} x {SEQUENCE} tokens, {flags.precision}: MB of memory of each process")
    for name, (processes, arguments) in CASES.items():
        peaks = run(flags, processes, arguments)
        training, end = (", ".join(f"{peak[i]:,.0f}" for peak in peaks) for i in (0, 1))
        print(f"{name:36} training {training}; with saves {end}", flush=True)
    return 0


def run(flags: Flags, processes: int, arguments: Sequence[str]) -> list[list[float]]:
    """The peaks of each process, until the last step and until the end."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        text.write_text(" ".join(f"word {number}" for number in range(4000)), encoding="utf-8")
        settings = {
            "model": flags.model,
            "data": text,
            "batch-size": flags.batch_size,
            "context-length": SEQUENCE,
            "max-steps": 2,
            "precision": flags.precision,
            "device": "cpu",
            "out": Path(folder, "out"),
            "log-dir": folder,
        }
        worker = [*(f"--{name}={value}" for name, value in settings.items()), *arguments]
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
        command = [*launcher, "-m", "benchmarks.process_memory", "--worker", json.dumps(worker)]
        done = subprocess.run(command, env={**os.environ, "PEAKS": folder}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"main.py failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
        files = sorted(Path(folder).glob("peaks-*.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def measure(arguments: Sequence[str]) -> int:
    """Train in this process, and write its peaks to a file."""
    train_step, peaks = loop._train_step, [0.0]

    def measured_step(run: TrainingRun, progress: Progress, reporter: Reporter) -> None:
        train_step(run, progress, reporter)
        peaks[0] = peak_mb()

    loop._train_step, loop.sample = measured_step, lambda model, generate: ""
    code = pretraining.main(arguments)
    file = Path(os.environ["PEAKS"], f"peaks-{rank()}.json")
    file.write_text(json.dumps([*peaks, peak_mb()]), encoding="utf-8")
    return code


if __name__ == "__main__":
    run_script(main)
