"""A script ends cleanly: exit codes, signals, output that cannot be written, and errors on one line."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any

import pytest

import main
from src.program import import_and_run, out_of_memory_advice, run_script, termination_signals

ROOT = Path(main.__file__).parent
OUT_OF_MEMORY = "error: out of memory; use a smaller model\n"


def exit_code(main: Callable[[], int]) -> int | None:
    with pytest.raises(SystemExit) as exited:
        run_script(main)
    return exited.value.code


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own signal handlers, which `run_script` changes. A test run in the background or by nohup lacks some."""
    own = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    numbers = {getattr(signal, name): handler for name, handler in own.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n  b"), "error: a b\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), "error: No such file or directory: 'x'\n"),
        (RuntimeError("a kernel failed"), "error: a kernel failed\n"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), OUT_OF_MEMORY),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "error: out of memory; use a smaller model\n",
        ),
        (ImportError("no module"), "error: no module\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "error: the package torch is missing; install it: pip install -r requirements.txt\n",
        ),
        (ValueError("a\x1b[2Jb"), "error: a\\x1b[2Jb\n"),
        (MemoryError(), OUT_OF_MEMORY),
        (KeyboardInterrupt(), "\ninterrupted; everything saved so far is intact\n"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error: BaseException, line: str, capsys) -> None:
    def fail() -> int:
        raise error

    assert exit_code(fail) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert capsys.readouterr() == ("", line)


def test_out_of_memory_advice_of_a_script_without_a_model() -> None:
    assert out_of_memory_advice([]) == "close other programs"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_nohup_is_respected() -> None:
    assert termination_signals() == [signal.SIGTERM, signal.SIGHUP]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert termination_signals() == [signal.SIGTERM]


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        run_script(lambda: {}["missing"])


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_mains_return_value(code: int) -> None:
    assert exit_code(lambda: code) == code


def test_bad_usage_exits_with_code_2(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", "--epochs", "0"])
    assert exit_code(main.main) == 2
    assert capsys.readouterr().err == "main.py: --epochs must be at least 1, got 0; see python main.py --help\n"


@pytest.mark.parametrize("number", termination_signals())
def test_a_termination_signal_ends_a_script_that_ignores_sigint(number: signal.Signals) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reached = []

    def work() -> int:
        signal.raise_signal(number)
        reached.append("the end")
        return 0

    assert exit_code(work) == 130
    assert not reached


def run_in_a_process(body: str, folder: Path, call: str = "run_script(main)", **options: Any) -> CompletedProcess:
    """Run a script whose main is `body`."""
    file = folder / "script.py"
    lines = [f"import sys; sys.path.insert(0, {str(ROOT)!r})", "from src.program import *", "def main():"]
    file.write_text("\n".join([*lines, *(f"    {line}" for line in body.splitlines()), call]), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "PYTHONUNBUFFERED": ""}
    return subprocess.run([sys.executable, str(file)], env=environment, stderr=subprocess.PIPE, timeout=60, **options)


def test_output_is_utf8_in_every_terminal(tmp_path: Path) -> None:
    body = 'print("Ž → 字 \\udcff")\nraise ValueError("Ωmega")'
    ended = run_in_a_process(body, tmp_path, stdout=subprocess.PIPE)
    assert ended.returncode == 1
    assert ended.stdout.decode("utf-8").strip() == r"Ž → 字 \udcff"
    assert ended.stderr.decode("utf-8").strip() == "error: Ωmega"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("print('x'); return 0", 0, ""),
        ("print('x'); return 1", 1, ""),
        ("for i in range(5000): print(i)\nraise KeyError", 0, ""),
        ("print('x'); raise ValueError('bad')", 1, "error: bad"),
        ("print('x'); sys.exit(2)", 2, ""),
    ],
)
def test_a_closed_pipe_ends_a_script_quietly(tmp_path: Path, body: str, code: int, message: str) -> None:
    with closed_pipe() as pipe:
        ended = run_in_a_process(body, tmp_path, stdout=pipe)
    assert (ended.returncode, ended.stderr.decode().strip()) == (code, message)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ("run_script(main)", 1, "error: stdout cannot be written (No space left on device)"),
        (
            "run_script(main, outlives_output=True)",
            0,
            "note: stdout cannot be written (No space left on device); continuing without it",
        ),
    ],
)
def test_a_full_disk_ends_only_scripts_that_do_no_more_than_print(
    tmp_path: Path, call: str, code: int, message: str
) -> None:
    with open("/dev/full", "wb") as full:
        ended = run_in_a_process("for i in range(5000): print(i)\nreturn 0", tmp_path, call, stdout=full)
    assert (ended.returncode, ended.stderr.decode().strip()) == (code, message)


@contextmanager
def closed_pipe() -> Iterator[IO[bytes]]:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        yield pipe


def test_a_run_outlives_a_closed_pipe(tmp_path: Path) -> None:
    body = "for i in range(5000): print(i)\nopen('end', 'w').close()\nreturn 130"
    with closed_pipe() as pipe:
        ended = run_in_a_process(body, tmp_path, "run_script(main, outlives_output=True)", stdout=pipe, cwd=tmp_path)
    assert ended.returncode == 130 and (tmp_path / "end").exists()
    assert ended.stderr.decode().strip() == "note: stdout cannot be written (Broken pipe); continuing without it"


@pytest.mark.parametrize(
    ("imported", "code", "message"),
    [
        ("import missing_package", 1, "error: the package missing_package is missing; install it: pip install -r"),
        (
            "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept BaseException: raise ImportError from None",
            130,
            "interrupted; everything saved so far is intact",
        ),
    ],
)
def test_a_failing_import_is_one_line(tmp_path: Path, imported: str, code: int, message: str) -> None:
    (tmp_path / "library.py").write_text(imported, encoding="utf-8")
    ended = run_in_a_process("pass", tmp_path, "import_and_run('library')")
    assert ended.returncode == code
    assert ended.stderr.decode().strip().startswith(message) and ended.stderr.strip().count(b"\n") == 0


def test_an_import_in_a_script_leaves_the_signal_handlers(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "a_script.py").write_text("def main(): raise MemoryError", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        import_and_run("a_script")
    assert capsys.readouterr().err == "error: out of memory; close other programs\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_script_without_stdout_still_succeeds(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert exit_code(lambda: 0) == 0
