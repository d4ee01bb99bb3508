"""Run a script: exit codes, signals, output, and errors as one line on stderr."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import fields
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType
from typing import NoReturn, TextIO, cast

from src.common.messages import one_line
from src.common.output import Output
from src.common.terminal import in_terminal_width
from src.distributed.environment import has_own_file, is_first, local_rank, rank, world_size
from src.distributed.failure import blame, is_broken_connection, tell_others
from src.entry import EXIT_CODE, MESSAGE, exit_at_once

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, EXIT_CODE
_HEAD_START_S = 2.0  # for the first process of a machine to report an error, before the others do


def import_and_run(name: str, *, outlives_output: bool = False) -> NoReturn:
    """Import a script and run its `main`, as run_script does. Scripts call it through src/entry.py."""

    def advice() -> str:
        flags = getattr(sys.modules.get(name), "Flags", None)
        return out_of_memory_advice([field.name for field in fields(flags)] if flags else [])

    run_script(lambda: _import(name).main(), out_of_memory=advice, outlives_output=outlives_output)


def run_script(
    main: Callable[[], int],
    *,
    out_of_memory: Callable[[], str] = lambda: "use a smaller model",
    outlives_output: bool = False,
) -> NoReturn:
    """Run a script's `main` and exit with its exit code. An error that the user can cause is one line on stderr.

    out_of_memory: returns what the user of this script can do if memory runs out.
    outlives_output: the script does more than print, so it continues if its output cannot be written. Other scripts
    end: quietly if the reader of a pipe, such as `head`, has read enough, with an error if the disk is full.
    """
    for number in termination_signals():
        signal.signal(number, _interrupt)
    if world_size() > 1:  # PyTorch, imported later, would print a C++ stack trace for each lost connection
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _open_standard_streams()
    stdout, stderr = _outputs(outlives_output)
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = _exit_code(main, out_of_memory)
        try:
            with suppress(SystemExit):  # the reader of a pipe has read enough
                stdout.flush()
        except OSError as error:
            code = code or _failed(one_line(error))
    sys.exit(code)


def termination_signals() -> list[signal.Signals]:
    """The signals that end a script as Ctrl-C does: SIGTERM, and SIGHUP when the terminal closes.

    nohup makes its command ignore SIGHUP: then it is not among them. Windows has no SIGHUP.
    """
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, hangup]


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Inside, the yielded function returns True after Ctrl-C, SIGTERM or SIGHUP. A second Ctrl-C stops at once."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return

    def request(number: int, _: object) -> None:
        requested.set()
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        if number != signal.SIGINT and world_size() > 1:  # torchrun sends it, too, if another process has failed
            return
        with suppress(OSError, RuntimeError):  # the terminal may be gone, or just be written to
            print("\nfinishing this step, then saving; press Ctrl-C again to stop at once", file=sys.stderr)

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, *termination_signals())}
    try:
        yield requested.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def exits_at_once(before: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Inside, Ctrl-C and the termination signals end the process at once. Afterwards they raise KeyboardInterrupt.

    For code with nothing to save: importing, and loading a model. before: is called before the process ends.
    """

    def leave(*_: object) -> None:
        before()
        exit_at_once()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, *termination_signals())
    handlers = {number: signal.getsignal(number) for number in numbers}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.default_int_handler if handler is exit_at_once else handler)


def out_of_memory_advice(flags: Collection[str]) -> str:
    """What the user of a script with these flags (names of fields) can do if memory runs out."""
    halve = (
        "halve --batch-size and double --grad-accum, which trains the same (with --no-resume if a run is unfinished)"
    )
    by_flag = {
        "batch_size": halve if "resume" in flags else "lower --batch-size",
        "context_length": "lower --context-length",
        "quantize": "pass --quantize int8",
        "model": "use a smaller model",
        "base": "use a smaller model",
    }
    advice = [text for flag, text in by_flag.items() if flag in flags]
    return ", or ".join(advice) or "close other programs"


def _import(name: str) -> ModuleType:
    """Import a module. Ctrl-C and the termination signals end the process at once."""
    with exits_at_once():
        return import_module(name)


def _exit_code(main: Callable[[], int], out_of_memory: Callable[[], str]) -> int:
    """Run `main` and return its exit code. An error that the user can cause is reported; a bug keeps its traceback."""
    try:
        return main()
    except SystemExit as ended:  # raised by the parser, or because the reader of a pipe has read enough
        return int(ended.code or DONE)
    except KeyboardInterrupt as interrupt:
        return _terminated() if world_size() > 1 and signal.SIGTERM in interrupt.args else _interrupted()
    except ModuleNotFoundError as error:
        return _failed(f"the package {error.name} is missing; install it: pip install -r requirements.txt")
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if _is_out_of_memory(error):
            return _failed(f"out of memory; {out_of_memory()}")
        return _failed(one_line(error), broken_connection=is_broken_connection(error))


def _outputs(outlives_output: bool) -> tuple[TextIO, TextIO]:
    """Wrap stdout and stderr. Only the first process prints, and each one whose output goes to its own file."""

    def stdout_lost(error: OSError) -> None:
        if outlives_output:
            print(f"note: stdout cannot be written ({error.strerror}); continuing without it", file=sys.stderr)
        elif isinstance(error, BrokenPipeError):
            sys.exit(DONE)
        else:
            raise OSError(f"stdout cannot be written ({error.strerror})") from error

    def stderr_lost(error: OSError) -> None:
        if outlives_output:
            print(f"note: stderr cannot be written ({error.strerror}); continuing without it")

    out = sys.stdout if is_first() or has_own_file("stdout") else None
    err = sys.stderr if is_first() or has_own_file("stderr") else None
    return cast(TextIO, Output(_utf8(out), stdout_lost)), cast(TextIO, Output(_utf8(err), stderr_lost))


def _utf8(stream: TextIO | None) -> TextIO:
    """The stream, set to UTF-8. None, such as a stream closed before the script started, becomes one that drops all."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="replace")
    return stream


def _open_standard_streams() -> None:
    """Open the closed ones of descriptors 0 to 2. A file that got such a number would receive C libraries' messages."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python, CUDA and PyTorch's CPU allocator each report it in their own way."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _interrupted() -> int:
    print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
    return INTERRUPTED


def _failed(message: str, *, broken_connection: bool = False) -> int:
    """Report an error; returns the exit code. broken_connection: to another process of the run."""
    if world_size() == 1:
        return _print_error(message)
    return _end_after_broken_connection(message) if broken_connection else _failed_in_run_of_several(message)


def _print_error(message: str) -> int:
    """Print an error as one line, which a terminal shows in its width; returns the exit code."""
    stream = sys.stderr if is_first() else sys.__stderr__
    print(in_terminal_width(f"error: {message}", stream), file=stream, flush=True)
    return FAILED


# --- a run of several processes: if one fails, torchrun sends SIGTERM to the others of its machine


def _failed_in_run_of_several(message: str) -> int:
    """Report an error of this process's own. Other machines print it, too."""
    # The machine's first process prints even after SIGTERM. The others wait for SIGTERM first: if they fail for the
    # same reason, it ends them, and the line is printed once.
    _set_signal_handlers(signal.SIG_DFL if local_rank() else signal.SIG_IGN)
    tell_others(message)
    if local_rank():
        time.sleep(_HEAD_START_S)
        message = f"rank {rank()}: {message}"
    return _print_error(message)


def _end_after_broken_connection(message: str) -> NoReturn:
    """Report which process is to blame, and end at once: PyTorch takes up to half a minute to close connections."""
    _set_signal_handlers(signal.SIG_IGN)
    if line := blame(message):
        _print_error(line)
    sys.stdout.flush()
    os._exit(FAILED)


def _terminated() -> int:
    """SIGTERM ends the run, or another process has failed: then one process of each machine prints which one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the last heartbeat
    line = blame("")
    if line == "":  # no process is to blame
        return _interrupted()
    return _print_error(line) if line else FAILED


def _set_signal_handlers(handler: signal.Handlers) -> None:
    """For Ctrl-C and the termination signals."""
    for number in (signal.SIGINT, *termination_signals()):
        signal.signal(number, handler)
