"""What a machine is capable of, what a process has taken of it, and contestants that take turns on it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, cast

import torch

SPINNING_S = 0.5


def check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {rounds}")


def product_gflops(side: int = 2048, dtype: torch.dtype = torch.float32) -> float:
    """What a large matrix product reaches now, in 10^9 multiplications and additions a second."""
    a = torch.randn(side, side).to(dtype)
    a @ a  # the first one in half precision is prepared
    start = time.perf_counter()
    a @ a
    return 2 * side**3 / (time.perf_counter() - start) / 1e9


def bandwidth() -> float:
    """Bytes a second that all threads read together from memory that no cache holds."""
    numbers = torch.ones(2**27)  # half a gigabyte
    numbers.sum()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return numbers.numel() * 4 / min(times)


def peak_mb() -> float:
    """The most memory that this process has had, its imports among it. For Linux and macOS."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def serve(turn: Callable[[], Sequence[float]]) -> None:
    """Be a contestant: for every line that comes in, the numbers of one turn go out."""
    for _ in sys.stdin:
        print(*turn(), flush=True)


def take_turns(
    commands: Mapping[str, Sequence[str]], rounds: int, between: Callable[[], None]
) -> dict[str, list[list[float]]]:
    """The numbers of each contestant's turns after a first one to warm up.

    Each is a process of its own, since the idle threads of one library slow down the next one, and before each turn
    they are waited for. `between` is called after each round.
    """
    turns: dict[str, list[list[float]]] = {name: [] for name in commands}
    with ExitStack() as ending:
        contestants = {name: ending.enter_context(_contestant(name, command)) for name, command in commands.items()}
        for _ in range(rounds + 1):
            for name, ask in contestants.items():
                time.sleep(SPINNING_S)
                turns[name].append(ask())
            between()
    return {name: found[1:] for name, found in turns.items()}


@contextmanager
def _contestant(name: str, command: Sequence[str]) -> Iterator[Callable[[], list[float]]]:
    """What asks a process for the numbers of a turn. Raises RuntimeError with its last words where it has ended."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as words:
        arguments = [sys.executable, "-m", *command]
        process = subprocess.Popen(arguments, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words)
        answers = cast(IO[str], process.stdout)

        def ask() -> list[float]:
            try:
                print("go", file=process.stdin, flush=True)
                answer = answers.readline()
            except BrokenPipeError:
                answer = ""
            if answer:
                return [float(number) for number in answer.split()]
            process.wait()
            words.seek(0)
            last = (words.read().strip() or "no word").splitlines()[-1]
            raise RuntimeError(f"{name} ended with exit code {process.returncode}: {last}")

        try:
            yield ask
        finally:
            process.kill()
            process.communicate()
