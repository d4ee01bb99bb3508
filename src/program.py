"""Run a script: exit codes, signals, and errors as one line on stderr."""

import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import NoReturn

from src.common.messages import one_line

OUT_OF_MEMORY = (
    "out of memory; halve --batch-size and double --grad-accum, which trains the same (with --no-resume if a run is "
    "unfinished), then lower --context-length or take a smaller model"
)
DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and leave with its exit code; what a person can cause becomes one line on stderr."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = main()
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved before is kept", file=sys.stderr)
        code = INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        code = _failed(MemoryError(OUT_OF_MEMORY) if _is_out_of_memory(error) else error)
    try:
        print(end="", flush=True)
    except OSError as error:  # its reader has left or its disk is full, so that flushing it at exit would fail again
        code = code or _failed(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python, CUDA and the CPU allocator each have their own way to say so."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _failed(error: BaseException) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return FAILED
