"""Explain an error that an answer raised: its line, its message, and the shapes that were expected."""

import inspect
import re
import traceback
from collections.abc import Callable
from pathlib import Path

from exercises import start
from exercises.checks.forbidden import ForbiddenCallError
from exercises.checks.judging import CallFailedError
from exercises.checks.time_limit import TimeIsUpError
from exercises.start import short_path
from src.common.messages import one_line

STUB_ERROR = re.compile(r"exercise (\d+)")
SHAPE = re.compile(r"\((\.\.\.|[A-Z]\b|\))")  # the start of a shape in a docstring: (..., S), (B, T, C) or ()


def describe(error: BaseException, file: Path) -> str:
    """The error, with the last line of its traceback in this file."""
    if isinstance(error, CallFailedError) and error.__cause__:
        return f"{error}: {describe(error.__cause__, file)}"
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if lines:
        return f"{short_path(file)}:{lines[-1].lineno}: {message_of(error)}\n    {lines[-1].line}"
    return one_line(error) if isinstance(error, AssertionError) else message_of(error)  # the check's own sentence


def message_of(error: BaseException) -> str:
    """The error's type and message, or a whole sentence."""
    if isinstance(error, SystemExit):
        return "SystemExit ends the program; return a result instead"
    is_sentence = isinstance(error, ForbiddenCallError | TimeIsUpError)
    return one_line(error) if is_sentence else f"{type(error).__name__}: {one_line(error)}"


def expected_shapes(error: BaseException, function: Callable) -> str:
    """The docstring's sentences about shapes, because torch only names sizes; empty if the error can't be about one."""
    if type(error.__cause__ or error) not in (RuntimeError, IndexError, ValueError):
        return ""
    sentences = re.split(r"(?<=\.)\s+", inspect.getdoc(function) or "")
    about_shapes = " ".join(" ".join(sentence.split()) for sentence in sentences if SHAPE.search(sentence))
    return about_shapes and f"\n    expected: {about_shapes}"


def number_of_stub(error: BaseException) -> int | None:
    """The exercise whose stub raised the error or its cause; None if it is another error."""
    cause = error.__cause__ or error
    stub = STUB_ERROR.fullmatch(str(cause)) if isinstance(cause, NotImplementedError) else None
    return int(stub[1]) if stub else None


def place_of_stub(error: BaseException) -> str:
    """Where the stub is that raised the error or its cause."""
    last = traceback.extract_tb((error.__cause__ or error).__traceback__)[-1]
    file = Path(last.filename)
    advice = f"; import it from exercises.answers.{file.stem}" if file.parent == start.STUBS else ""
    return f"still a stub at {short_path(file)}:{last.lineno}{advice}"
