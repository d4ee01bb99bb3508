"""A limit to the time an answer may take. It needs no alarm of the operating system, so it holds on Windows, too."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from src.program import FAILED

TIME_LIMIT_S = 10
GRACE_S = 2  # then the process ends, as the interruption is caught by the answer, or waits for a long call of torch's


class TimeIsUpError(Exception):
    """The block took too long; the traceback ends where it was interrupted."""


@contextmanager
def time_limit(seconds: float | None, name: str) -> Iterator[None]:
    """Interrupt the block, which runs in the main thread, after so many seconds; None: never.

    Raises TimeIsUpError. A block that can't be interrupted ends the process with one line that begins with the name.
    """
    words = f"not done after {seconds} s: is there an endless loop? (--no-time-limit waits)"
    finished, expired = threading.Event(), threading.Event()

    def watch() -> None:
        if finished.wait(seconds):
            return
        expired.set()
        _thread.interrupt_main()
        if not finished.wait(GRACE_S):
            print(f"{name}: {words}", file=sys.__stdout__, flush=True)
            os._exit(FAILED)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background begin without it
    try:
        threading.Thread(target=watch, daemon=True).start()
        yield
    except BaseException as error:
        if expired.is_set():
            raise TimeIsUpError(words).with_traceback(error.__traceback__) from None
        raise
    finally:
        finished.set()
        signal.signal(signal.SIGINT, handler)
