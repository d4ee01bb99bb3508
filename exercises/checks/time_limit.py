"""A time limit for answers. It does not use signal.alarm, so it also works on Windows."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from src.program import FAILED

TIME_LIMIT_S = 10
GRACE_S = 2  # then the process ends: the answer caught the interrupt, or is inside one long torch call


class TimeIsUpError(Exception):
    """The block took too long. The traceback ends where it was interrupted."""


@contextmanager
def time_limit(seconds: float | None, name: str) -> Iterator[None]:
    """Interrupt the block, which must run in the main thread, after `seconds`; None disables the limit.

    Raises TimeIsUpError. If the block can't be interrupted, prints one line that starts with `name` and exits.
    """
    message = f"still running after {seconds} s: is there an endless loop? (--no-time-limit waits for it)"
    finished, expired = threading.Event(), threading.Event()

    def watch() -> None:
        if finished.wait(seconds):
            return
        expired.set()
        _thread.interrupt_main()
        if not finished.wait(GRACE_S):
            print(f"{name}: {message}", file=sys.__stdout__, flush=True)
            os._exit(FAILED)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start with SIGINT ignored
    try:
        threading.Thread(target=watch, daemon=True).start()
        yield
    except BaseException as error:
        if expired.is_set():
            raise TimeIsUpError(message).with_traceback(error.__traceback__) from None
        raise
    finally:
        finished.set()
        signal.signal(signal.SIGINT, handler)
