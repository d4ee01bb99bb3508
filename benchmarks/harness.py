"""Shared by the benchmarks: times, peak memory, hardware limits, and worker processes that take turns."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:  # importing torch would add 200 MB to the peak of benchmarks that do without it
    import torch

SPIN_S = 0.5  # idle threads of some libraries spin for about this long


def check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {rounds}")


def require(package: str, install: str = "pip install -r requirements-dev.txt") -> None:
    """Raises ImportError, naming the command that installs the package, if it is missing."""
    if find_spec(package) is None:
        raise ImportError(f"{package} is not installed; run {install}")


def seconds(work: Callable[[], object]) -> float:
    """The wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_in_turns(workloads: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each workload, one number per round. An extra round at the start warms up and is not returned.

    The workloads take turns, so that other load on the machine slows all of them alike.
    """
    times = [{name: seconds(work) for name, work in workloads.items()} for _ in range(rounds + 1)]
    return {name: [measured[name] for measured in times[1:]] for name in workloads}


def matmul_gflops(dtype: "torch.dtype", side: int = 2048) -> float:
    """The current speed of a large matrix product, in GFLOP/s."""
    import torch

    a = torch.randn(side, side).to(dtype)
    a @ a  # in half precision, the first product includes setup
    return 2 * side**3 / seconds(lambda: a @ a) / 1e9


def memory_bandwidth() -> float:
    """Bytes per second that all threads together read from memory. The array is larger than any cache."""
    import torch

    numbers = torch.ones(2**27)  # half a gigabyte
    numbers.sum()
    return numbers.numel() * 4 / min(seconds(numbers.sum) for _ in range(5))


def peak_mb() -> float:
    """Peak memory of this process in MB, imports included. Linux and macOS only."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def serve(measure: Callable[[], Sequence[float]]) -> None:
    """Be a worker: measure once per line on stdin, and print the numbers."""
    for _ in sys.stdin:
        print(*measure(), flush=True)


def run_in_turns(
    commands: Mapping[str, Sequence[str]], rounds: int, after_round: Callable[[], None]
) -> dict[str, list[list[float]]]:
    """Let workers measure in turns. Returns each worker's measurements, one list of numbers per round.

    Each worker is a process of its own that calls `serve`. An extra round at the start warms up and is not returned.
    The pause before each turn lets the idle threads of the previous worker stop spinning. `after_round` runs after
    every round.
    """
    results: dict[str, list[list[float]]] = {name: [] for name in commands}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(name, command)) for name, command in commands.items()}
        for _ in range(rounds + 1):
            for name, measure in workers.items():
                time.sleep(SPIN_S)
                results[name].append(measure())
            after_round()
    return {name: measured[1:] for name, measured in results.items()}


@contextmanager
def _worker(name: str, command: Sequence[str]) -> Iterator[Callable[[], list[float]]]:
    """Start a worker and yield a function that runs one measurement in it.

    The function raises RuntimeError with the last line of the worker's stderr if the worker has ended.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        arguments = [sys.executable, "-m", *command]
        process = subprocess.Popen(arguments, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        output = cast(IO[str], process.stdout)

        def measure() -> list[float]:
            try:
                print("go", file=process.stdin, flush=True)
                line = output.readline()
            except BrokenPipeError:
                line = ""
            if line:
                return [float(number) for number in line.split()]
            process.wait()
            errors.seek(0)
            last = (errors.read().strip() or "no message").splitlines()[-1]
            raise RuntimeError(f"{name} ended with exit code {process.returncode}: {last.removeprefix('error: ')}")

        try:
            yield measure
        finally:
            process.kill()
            process.communicate()
