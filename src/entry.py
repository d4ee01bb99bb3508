"""The first import of a script: from here on, Ctrl-C ends it with one line.

It imports almost nothing, because until it has run, Python answers Ctrl-C with a traceback.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` wraps; importing that one takes five times as long
import os

EXIT_CODE = 130
MESSAGE = "interrupted; everything saved so far is intact"


def run_module(name: str, *, outlives_output: bool = False) -> None:
    """Import a script and run its `main`, as `src.program.run_script` does. Never returns.

    A script calls this before its other imports. So while they run, Ctrl-C or a missing package is one line, too.
    """
    if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, exit_at_once)
    from src.program import import_and_run

    import_and_run(name, outlives_output=outlives_output)


def exit_at_once(*_: object) -> None:
    """Print one line and end the process, whatever it is doing. A signal handler.

    A KeyboardInterrupt inside a library could be turned into any other error. Of several processes, the first prints.
    """
    if os.environ.get("RANK", "0") == "0":
        os.write(2, f"\n{MESSAGE}\n".encode())
    os._exit(EXIT_CODE)
