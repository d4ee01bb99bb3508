"""Copy the stubs of the exercises to exercises/answers, where you write: `python -m exercises.start`.

You can run it again, for example after an update: it never changes a file that is already there.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python exercises/start.py` without -m
    from src.entry import run_module

    run_module("exercises.start")

from src.cli import Parser
from src.common.atomic_file import atomic_write

STUBS = Path(__file__).parent
ANSWERS = STUBS / "answers"  # git ignores it, so an update never conflicts with an answer
FUNCTION = re.compile(r"^def (\w+)\(", re.MULTILINE)


def copy_stubs() -> list[str]:
    """Copy each stub file that has no copy yet. Returns a line about each file. Raises OSError if it can't write."""
    names = [text.name.replace("_exercises.md", ".py") for text in sorted(STUBS.glob("*_exercises.md"))]
    try:
        return [_copy(name) for name in names]
    except OSError as error:
        advice = "it must be a folder that you may write to"
        raise OSError(f"can't write to {short_path(ANSWERS)}: {error.strerror}; {advice}") from error


def _copy(name: str) -> str:
    stub, answer = STUBS / name, ANSWERS / name
    if not answer.exists():
        with atomic_write(answer) as file:
            file.write(stub.read_bytes())
        return f"created {short_path(answer)}"
    new = [function for function in _functions(stub) if function not in _functions(answer)]
    advice = f"; copy what it lacks from {short_path(stub)}: {', '.join(new)}" if new else ""
    return f"kept    {short_path(answer)}{advice}"


def _functions(file: Path) -> list[str]:
    """The names of a file's functions. A file with a syntax error has names, too."""
    return FUNCTION.findall(file.read_text(encoding="utf-8", errors="replace"))


def short_path(file: Path) -> str:
    """The path relative to the current folder, if the file is inside it."""
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)


def main(argv: Sequence[str] | None = None) -> int:
    """Copy the stubs and say what happened to each file. Returns the exit code."""
    Parser(__doc__).parse_args(argv)
    print(*copy_stubs(), sep="\n")
    print(f"Write your answers in {short_path(ANSWERS)}; git ignores this folder.")
    print("The first task is in exercises/attention_exercises.md. Check your answer to it: python -m exercises.check 1")
    return 0
