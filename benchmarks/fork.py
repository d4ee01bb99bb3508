"""Child processes that start in a millisecond: forks of a process that has imported PyTorch. Linux and macOS only."""

import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

POLL_S = 0.001


def prepare(modules: Iterable[str]) -> None:
    """Import modules that every child would import. Call this before the first child."""
    torch.set_num_threads(1)  # a fork copies one thread only
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # or a garbage collection in a child would copy the memory of all these modules


class Child:
    """A forked process that runs `work` and exits with its result. Its output goes to a file, or nowhere."""

    def __init__(self, work: Callable[[], int], output: Path | str = os.devnull) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_run(work, output))

    def poll(self) -> int | None:
        """The exit code; minus the signal that ended it, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def send(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, limit_s: float) -> int | None:
        """Wait for its end and return the exit code. After `limit_s` seconds kill it and return None."""
        end = time.monotonic() + limit_s
        while self.poll() is None:
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return None
            time.sleep(POLL_S)
        return self._code


def _act_on_signals() -> None:
    """Handle signals as a program started at a terminal does: one started in the background ignores some."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _run(work: Callable[[], int], output: Path | str) -> int:
    """Run `work` in the child; returns its exit code."""
    try:
        _act_on_signals()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(file, stream)
        code = work()
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 70
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    return code
