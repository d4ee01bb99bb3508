"""A fresh clone to run the scripts in, arguments for runs of a few steps, and what a script prints when it fails."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from src.program import run_script
from tests.repository import tracked_files

SHORT = ["--max-steps", "3", "--batch-size", "2", "--context-length", "32", "--eval-every", "3", "--device", "cpu"]
TUNE = ["--batch-size", "4", "--max-steps", "3"]
PRETRAIN = ["--data", "verse.txt", "--model", "micro", "--tokenizer", "word", *SHORT]
VERSE = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n"


def make_fresh_clone(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """The current folder looks like a fresh clone to the scripts: the shipped data, a short text, no checkpoints."""
    (folder / "Data").mkdir()
    for file in tracked_files("Data"):
        shutil.copy(file, folder / "Data")
    (folder / "verse.txt").write_text(VERSE * 60, encoding="utf-8")
    patch.chdir(folder)
    # The trial takes longer than these runs.
    patch.setattr("src.runtime._bf16_gain", lambda device, packed_width: 0.5)


def exit_code(script: Callable, *argv: str) -> int:
    """The exit code of a script, run as from the command line."""
    with pytest.raises(SystemExit) as exited:
        run_script(lambda: script(list(argv)))
    return exited.value.code


def error(capsys: pytest.CaptureFixture) -> str:
    """The only line on stderr."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert "Traceback" not in line
    return line
