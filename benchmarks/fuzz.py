"""python -m benchmarks.fuzz: give random, damaged input to everything that reads foreign bytes.

An input passes if it is accepted, or refused with an error that the scripts print as one line: a ValueError or OSError
without control characters. Any other exception, a crash, or more than LIMIT_S seconds is a failure. Each input follows
from its number, so `--only NUMBER` repeats it. Linux and macOS only.
"""

import contextlib
import io
import json
import mmap
import os
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from benchmarks.fork import Child, prepare
from benchmarks.fuzz_readers import READERS, Readers
from src.cli import flag, parse
from src.common.messages import one_line
from src.program import BAD_USAGE, DONE, run_script

LIMIT_S = 5.0
CHUNK = 20_000  # inputs per child process
MEMORY_BYTES = 4 * 2**30  # that a child may allocate
MAX_MESSAGE = 2_000  # characters; a longer message repeats its input


@dataclass(frozen=True)
class Flags:
    inputs: int = flag(1_000_000, "random inputs")
    seed: int = flag(0, "number of the first input")
    only: int | None = flag(None, "repeat the input with this number, with its traceback")
    reader: str = flag("all", f"one of {', '.join(READERS)}, or all")

    def __post_init__(self) -> None:
        if self.reader not in ("all", *READERS):
            raise ValueError(f"--reader must be all or one of {', '.join(READERS)}, got {self.reader!r}")


class _TimeLimit(BaseException):
    """Not an Exception, so that no reader catches it."""


def choose(number: int, readers: Sequence[str]) -> tuple[str, Random]:
    """The reader of an input, and the random numbers that make it."""
    rng = Random(number)
    return rng.choices(readers, [READERS[name] for name in readers])[0], rng


def attempt(readers: Readers, name: str, rng: Random) -> tuple[str, str]:
    """("accepted" or "refused", "") for an input that passes, otherwise ("failed", the fault)."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            getattr(readers, name)(rng)
            return "accepted", ""
        except SystemExit as end:
            problem = _usage_problem(end.code, stderr.getvalue())
        except (ValueError, OSError) as error:
            problem = _message_problem(one_line(error))
        except BaseException as error:
            problem = f"{type(error).__name__} at {_place(error)}"
    return ("failed", problem) if problem else ("refused", "")


def _usage_problem(code: Any, message: str) -> str:
    if code not in (DONE, BAD_USAGE):
        return f"exit code {code}"
    lines = message.removesuffix("\n")
    return "" if code == DONE else _message_problem(lines)


def _message_problem(message: str) -> str:
    """What is wrong with an error message, or an empty text."""
    if bad := sorted({f"U+{ord(c):04X}" for c in message if unicodedata.category(c) in ("Cc", "Zl", "Zp")}):
        return f"control characters in the message: {', '.join(bad)}"
    return "an empty message" if not message else "a very long message" if len(message) > MAX_MESSAGE else ""


def _place(error: BaseException) -> str:
    """The last line of this project in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}site-packages{os.sep}" not in f.filename and "benchmarks" not in f.filename]
    ours = [f for f in ours if Path(f.filename).is_relative_to(Path.cwd())] or list(frames)
    return f"{os.path.relpath(ours[-1].filename)}:{ours[-1].lineno}: {' '.join(str(error).split())[:100]}"


def _on_alarm(number: int, frame: FrameType | None) -> None:
    raise _TimeLimit(f"more than {LIMIT_S:g} s")


def run_chunk(numbers: range, names: Sequence[str], current: mmap.mmap, result: Path) -> int:
    """In a child: try the inputs, and write counts and failures to `result`. `current` holds the input being tried."""
    signal.signal(signal.SIGALRM, _on_alarm)
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    os.fsync = lambda fd: None  # waiting for the disk would take most of the time
    counts: Counter[str] = Counter()
    failures = []
    with scratch_folder() as folder:
        readers = Readers(folder)
        for number in numbers:
            current[:8] = number.to_bytes(8, "little")
            name, rng = choose(number, names)
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
            outcome, problem = attempt(readers, name, rng)
            signal.setitimer(signal.ITIMER_REAL, 0)
            counts[f"{name} {outcome}"] += 1
            if problem:
                failures.append((number, f"{name}: {problem}"))
    result.write_text(json.dumps([counts, failures]), encoding="utf-8")
    return DONE


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, in memory if the system has such a place."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def campaign(flags: Flags, names: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """(counts of outcomes, counts of failures). Prints the first failures of each kind with the input's number."""
    counts, kinds = Counter[str](), Counter[str]()
    current = mmap.mmap(-1, 8)
    with tempfile.TemporaryDirectory() as folder:
        for start in range(flags.seed, flags.seed + flags.inputs, CHUNK):
            numbers = range(start, min(start + CHUNK, flags.seed + flags.inputs))
            while numbers:
                result = Path(folder) / "result.json"
                code = Child(lambda: run_chunk(numbers, names, current, result)).wait(CHUNK)  # noqa: B023
                if code == DONE:
                    new_counts, failures = json.loads(result.read_text(encoding="utf-8"))
                    numbers = range(0)
                else:  # a crash: what the child counted is lost, so continue after the input that crashed it
                    number = int.from_bytes(current[:8], "little")
                    name, _ = choose(number, names)
                    new_counts, failures = {f"{name} failed": 1}, [(number, f"{name}: ended with {code}")]
                    numbers = range(number + 1, numbers.stop)
                counts.update(new_counts)
                for number, kind in failures:
                    kinds[kind] += 1
                    if kinds[kind] <= 2:
                        print(f"{kind} (--only {number})", flush=True)
    return counts, kinds


def repeat(number: int, names: Sequence[str]) -> int:
    """Try one input and let its exception through."""
    name, rng = choose(number, names)
    with scratch_folder() as folder:
        print(f"reader: {name}")
        getattr(Readers(folder), name)(rng)
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    names = list(READERS) if flags.reader == "all" else [flags.reader]
    if flags.only is not None:
        return repeat(flags.only, names)
    prepare(("torch._dynamo", "safetensors", "chat", "sk_chat"))
    start = time.monotonic()
    counts, kinds = campaign(flags, names)
    for name in names:
        row = ", ".join(f"{counts[f'{name} {outcome}']:,} {outcome}" for outcome in ("accepted", "refused", "failed"))
        print(f"{name:<14}{row}")
    seconds = time.monotonic() - start
    print(f"{counts.total():,} inputs, {kinds.total():,} failures, {counts.total() / seconds:,.0f} inputs/s")
    return 1 if kinds else 0


if __name__ == "__main__":
    run_script(main)
