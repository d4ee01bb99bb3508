"""Run scripts in the processes that torchrun started: python worker.py COMMANDS.json. Test modules start it.

COMMANDS.json is a list of {"script", "arguments"}, and optionally {"signal", "rank", "step"}: the signal that this rank
sends itself after this step, unless torchrun has restarted it.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from src.distributed.environment import rank, restarts
from src.training import loop
from src.training.reporter import Reporter
from src.training.stage import Progress, TrainingRun


def signalling(step: int, number: int) -> Callable[[TrainingRun, Progress, Reporter], None]:
    """The loop's training step, after which the process sends itself a signal if it was this one."""
    train_step = loop._train_step

    def step_and_signal(run: TrainingRun, progress: Progress, reporter: Reporter) -> None:
        train_step(run, progress, reporter)
        if progress.step == step:
            os.kill(os.getpid(), number)

    return step_and_signal


def main() -> int:
    torch.set_num_threads(1)
    code = 0
    for command in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        if command.get("rank") == rank() and not restarts():
            loop._train_step = signalling(command["step"], command["signal"])
        code = import_module(command["script"]).main(command["arguments"])
    return code


if __name__ == "__main__":
    sys.exit(main())
