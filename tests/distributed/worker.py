"""What each of several processes runs for the tests: the scripts, in some with a signal at a chosen step."""

import atexit
import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from src.distributed.environment import rank, restarts
from src.training import loop, reporter
from src.training.reporter import Reporter
from src.training.stage import Progress, TrainingRun

FILES = 6  # that a process writes in a save: the 28 tensors of the model and the 56 of its optimizer, 16 in each


def signalling(step: int, number: int) -> Callable[[TrainingRun, Progress, Reporter], None]:
    """The loop's training step, after which the process sends itself a signal if it was this one."""
    train_step = loop._train_step

    def step_and_signal(run: TrainingRun, progress: Progress, reporter: Reporter) -> None:
        train_step(run, progress, reporter)
        if progress.step == step:
            os.kill(os.getpid(), number)

    return step_and_signal


def fail_in_save(number: int, fault: Callable[[], None]) -> None:
    """Have a fault when this process has written the first file of a save."""
    calls, write = count(1), safetensors.torch.save

    def write_and_fail(*args: Any, **kwargs: Any) -> bytes:
        if next(calls) == (number - 1) * FILES + 2:
            fault()
        return write(*args, **kwargs)

    safetensors.torch.save = write_and_fail


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def run_scripts(commands: Sequence[Mapping[str, Any]]) -> None:
    """Run {"script", "arguments"} one after another; ends with the exit code of the last one.

    {"signal", "rank", "step"}: this rank sends itself the signal after this step, unless torchrun has restarted it.
    {"killed_save" or "full_disk": N, "rank"}: this rank is killed during its N-th save in the background, or finds the
    disk full, with some of the files written. The error that a script raises is in the file error-RANK, too.
    """
    torch.set_num_threads(1)
    reporter.draw = lambda _, picture: picture.touch()  # drawing takes longer than the steps
    code = 0
    for command in commands:
        if command.get("rank") == rank() and "signal" in command and not restarts():
            loop._train_step = signalling(command["step"], command["signal"])
        for name, fault in {"killed_save": kill, "full_disk": fill_disk}.items():
            if command.get("rank") == rank() and name in command:
                fail_in_save(command[name], fault)
        try:
            code = import_module(command["script"]).main(command["arguments"])
        except OSError as error:
            Path(f"error-{rank()}").write_text(str(error), encoding="utf-8")
            raise
    atexit._run_exitfuncs()  # a process that multiprocessing starts ends without it
    if code:
        sys.exit(code)
