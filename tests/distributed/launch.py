"""Start several processes for the tests: by the command torchrun, or by its Python interface, which takes less time."""

import atexit
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from src.program import run_script
from tests.repository import ROOT

START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
IMPORTED_ONCE = [
    *("main", "finetune_gpt2", "instruction_tune", "dpo_train", "safetensors.torch"),
    *("torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo"),
]


def import_once() -> None:
    """Start the process that has imported PyTorch and the scripts, unless it runs: others are forked from it."""
    if START_METHOD == "forkserver":
        from multiprocessing import forkserver  # Windows has none

        multiprocessing.set_forkserver_preload(IMPORTED_ONCE)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment(TORCH_CPP_LOG_LEVEL="ERROR").items():  # PyTorch reads it when imported
                patch.setenv(name, value)
            forkserver.ensure_running()


def run_in_processes(
    function: Callable[..., Any], *arguments: Any, processes: int = 2, max_restarts: int = 0
) -> dict[int, Any]:
    """Run a function in several processes, in the current folder; returns its result by rank.

    torchrun's code starts them, forked from one process that has imported PyTorch and the scripts.
    Raises ChildFailedError if one of them fails.
    """
    import_once()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.1,
        start_method=START_METHOD,
    )
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        try:
            results: dict[int, Any] = elastic_launch(config, function)(*arguments)
            return results
        finally:  # torchrun has replaced some
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def run_forked(
    function: Callable[..., int],
    *arguments: Any,
    processes: int,
    machines: int = 1,
    stopped: int | None = None,
    **variables: str,
) -> list[tuple[int, str]]:
    """Run the `main` of a script in several processes; returns the exit code and the output of each.

    They are forked from one process that has imported PyTorch. As torchrun does, this process holds their store, and
    when one of them fails, the others of its machine get SIGTERM and, after a while, SIGKILL. `stopped` is the rank of
    a process that does not end by itself: it gets SIGKILL when the others have ended.
    """
    import_once()
    context = multiprocessing.get_context(START_METHOD)
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    local = processes // machines
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(local), **variables}
    with TemporaryDirectory() as folder:
        logs = [Path(folder, str(rank)) for rank in range(processes)]
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank % local)} for rank in range(processes)]
        children = [
            context.Process(target=_forked, args=(log, {**shared, **own}, function, *arguments))
            for log, own in zip(logs, ranks, strict=True)
        ]
        for process in children:
            process.start()
        try:
            _wait([child for rank, child in enumerate(children) if rank != stopped], terminate=machines == 1)
        finally:
            for process in children:
                process.kill()
                process.join()
        return [
            (process.exitcode, log.read_text(encoding="utf-8")) for process, log in zip(children, logs, strict=True)
        ]


def _wait(processes: Sequence[Any], *, terminate: bool) -> None:
    """Wait until all processes have ended. terminate: end the others when one has failed."""
    running = {process.sentinel: process for process in processes}
    timeout_s = 60.0
    while running and (ended := multiprocessing.connection.wait([*running], timeout_s)):
        failed = any([running.pop(sentinel).exitcode for sentinel in ended])
        if failed and terminate:
            timeout_s = 5.0
            for process in running.values():
                process.terminate()


def _forked(log: Path, variables: Mapping[str, str], function: Callable[..., int], *arguments: Any) -> None:
    os.environ |= variables
    with log.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        run_script(partial(function, *arguments))
    finally:
        atexit._run_exitfuncs()  # a process that multiprocessing starts ends without it


def environment(**more: str) -> dict[str, str]:
    """The variables of a launcher. The commands `python` and `torchrun` are those of this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


TRAIN = (  # a run of minutes, which prints a line every 100 steps
    "main.py --data text.txt --tokenizer word --context-length 16 --batch-size 4 --precision fp32 --max-lr 3e-4 "
    "--dropout 0 --max-steps 2000 --eval-every 2000 --log-dir logs --out out"
).split()


def write_text(folder: Path) -> None:
    words = "the quick brown fox jumps over a lazy dog while seven ships sail north and no one waits for rain".split()
    lines = [" ".join(words[i * j % len(words)] for j in range(1, 12)) for i in range(60)]
    (folder / "text.txt").write_text("\n".join(lines))


@contextmanager
def started(command: str | Sequence[str], folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs in the folder, with stdout and stderr as one pipe. It is killed at the end."""
    process = subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the process prints, until a line matches or its output ends."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            break
    text = "".join(lines)
    print(text)  # pytest shows it if the test fails
    return text
