"""Run a script: exit codes, signals, and errors as one line on stderr."""

import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import NoReturn

from src.common.messages import one_line

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def run_script(main: Callable[[], int], *, out_of_memory: str = "use a smaller model") -> NoReturn:
    """Run a script's `main` and exit with its exit code. An error that the user can cause is one line on stderr.

    out_of_memory: what the user of this script can do if memory runs out.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        code = main()
    except KeyboardInterrupt:
        print("\ninterrupted; everything saved so far is intact", file=sys.stderr)
        code = INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        code = _failed(f"out of memory; {out_of_memory}" if _is_out_of_memory(error) else one_line(error))
    try:
        print(end="", flush=True)
    except OSError as error:  # broken pipe or full disk: flushing stdout again at exit would fail, too
        code = code or _failed(one_line(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python, CUDA and PyTorch's CPU allocator each report it in their own way."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _failed(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return FAILED
