"""Check your answers: `python -m exercises.check 3` checks exercise 3.

Without a number or name it lists all exercises and says which are done. The answers are in exercises/answers, where
`python -m exercises.start` puts the stubs.
"""

import contextlib
import io
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python exercises/check.py` without -m
    from src.entry import run_module

    run_module("exercises.check")

from exercises import start
from exercises.checks.attention import CHECKS as ATTENTION
from exercises.checks.byte_pairs import CHECKS as BYTE_PAIRS
from exercises.checks.explain import describe, expected_shapes, number_of_stub, place_of_stub
from exercises.checks.generation import CHECKS as GENERATION
from exercises.checks.gpt import CHECKS as GPT
from exercises.checks.hard_attention import CHECKS as HARD_ATTENTION
from exercises.checks.losses import CHECKS as LOSSES
from exercises.checks.time_limit import TIME_LIMIT_S, TimeIsUpError, time_limit
from exercises.checks.training import CHECKS as TRAINING
from exercises.start import short_path
from src.cli import Parser
from src.common.terminal import in_terminal_width
from src.program import BAD_USAGE, INTERRUPTED

DONE, TO_DO, WRONG, TIMED_OUT = "done", "to do", "not right yet", "timed out"
USE_GRADIENTS = ("hard_attention", "training")  # modules whose checks compute gradients with torch
LONGER_LIMIT_S = {"pretrain": 120}  # it trains a model
SOLUTIONS = Path(__file__).parent / "solutions"


@dataclass(frozen=True)
class Exercise:
    """One exercise: its function, and the check of an answer."""

    number: int
    function: str
    check: Callable[[Callable], None]
    module: str  # its file here and in solutions/, without .py


@dataclass(frozen=True)
class Verdict:
    """The result of a check."""

    state: str  # DONE, TO_DO, WRONG or TIMED_OUT
    sentence: str = ""  # what is wrong or missing


class BrokenFileError(Exception):
    """The file with the answers can't be imported; the message gives its path and line."""


class UnknownExerciseError(Exception):
    """No exercise has this number or name; the message suggests one or lists all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check one answer or list all exercises. Returns the exit code; exits with 2 if there is no such exercise."""
    exercises = all_exercises()
    parser = Parser(__doc__)
    parser.add_argument("exercise", nargs="?", help="number or function name to check (default: list all exercises)")
    parser.add_argument("--solution", action="store_true", help="check the worked solution instead of your answer")
    parser.add_argument(
        "--no-time-limit", action="store_true", help=f"run for longer than {TIME_LIMIT_S} s, for example in a debugger"
    )
    flags = parser.parse_args(argv)
    seconds = None if flags.no_time_limit else TIME_LIMIT_S
    try:
        if flags.exercise is not None:
            return report_one(find(exercises, flags.exercise), flags.solution, seconds)
        report_all(exercises, flags.solution, seconds)
        return 0
    except UnknownExerciseError as error:
        parser.exit(BAD_USAGE, f"{error}\n")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def find(exercises: dict[int, Exercise], wanted: str) -> Exercise:
    """The exercise with this number or function name. Raises UnknownExerciseError."""
    by_name = {exercise.function: exercise for exercise in exercises.values()}
    found = by_name.get(wanted) or exercises.get(int(wanted) if wanted.isdecimal() else 0)
    if found:
        return found
    if similar := get_close_matches(wanted, by_name, n=1):
        raise UnknownExerciseError(f"there is no exercise {wanted}; did you mean {similar[0]}?")
    names = ", ".join(f"{number}\0{exercise.function}" for number, exercise in exercises.items())
    listed = textwrap.fill(names, 80).replace("\0", " ")  # keeps a number and its name on one line
    raise UnknownExerciseError(f"there is no exercise {wanted}; choose from\n{listed}")


def all_exercises() -> dict[int, Exercise]:
    """Every exercise by its number."""
    modules = {
        "attention": ATTENTION,
        "hard_attention": HARD_ATTENTION,
        "byte_pairs": BYTE_PAIRS,
        "gpt": GPT,
        "losses": LOSSES,
        "generation": GENERATION,
        "training": TRAINING,
    }
    return {
        number: Exercise(number, function, check, module)
        for module, checks in modules.items()
        for number, (function, check) in checks.items()
    }


def report_one(exercise: Exercise, solution: bool, seconds: float | None) -> int:
    """Print the result of one check. Returns 0 if the answer is right, else 1."""
    try:
        verdict = run_check(exercise, load_answers(exercise, solution, seconds), seconds)
    except BrokenFileError as error:
        verdict = Verdict(WRONG, str(error))
    result = "right" if verdict.state == DONE else f"not yet: {verdict.sentence}"
    print(in_terminal_width(f"exercise {exercise.number} ({exercise.function}): {result}", sys.stdout, " " * 4))
    return int(verdict.state != DONE)


def report_all(exercises: dict[int, Exercise], solution: bool, seconds: float | None) -> None:
    """Print the state of every exercise, and which one is next."""
    states = {}
    for module in dict.fromkeys(exercise.module for exercise in exercises.values()):
        print(f"exercises/{module}_exercises.md")
        group = [exercise for exercise in exercises.values() if exercise.module == module]
        try:
            answers = load_answers(group[0], solution, seconds)
        except BrokenFileError as error:
            print(f"  {error}")
            continue
        for exercise in group:
            # Keep prints and warnings of the answers out of the list.
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                states[exercise.number] = run_check(exercise, answers, seconds).state
            print(f"  {exercise.number:>2}  {exercise.function:<28} {states[exercise.number]}")
    left = [number for number in exercises if states.get(number) != DONE]
    ending = f"; next: {next_command(exercises[left[0]], solution)}" if left else ""
    print(f"{len(exercises) - len(left)} of {len(exercises)} done{ending}")


def next_command(exercise: Exercise, solution: bool) -> str:
    """The command for the first exercise that is not done."""
    started = answer_file(exercise, solution).exists()
    return f"python -m exercises.check {exercise.number}" if started else "python -m exercises.start"


def answer_file(exercise: Exercise, solution: bool) -> Path:
    """The file of the learner's answer, or of the worked one."""
    return (SOLUTIONS if solution else start.ANSWERS) / f"{exercise.module}.py"


def load_answers(exercise: Exercise, solution: bool, seconds: float | None) -> ModuleType:
    """Import the learner's answers, or the worked ones. Raises BrokenFileError."""
    file = answer_file(exercise, solution)
    if not file.exists():
        raise BrokenFileError(f"{short_path(file)} does not exist; create it: python -m exercises.start")
    try:
        with time_limit(seconds, short_path(file)):
            return import_module(f"exercises.{file.parent.name}.{exercise.module}")
    except SyntaxError as error:
        place = short_path(Path(error.filename or file)) + (f":{error.lineno}" if error.lineno else "")
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise BrokenFileError(f"{place}: {type(error).__name__}: {error.msg}{line}") from error
    except (Exception, SystemExit) as error:
        raise BrokenFileError(describe(error, file)) from error


def run_check(exercise: Exercise, answers: ModuleType, seconds: float | None) -> Verdict:
    """Check one answer. An error raised in the learner's file is reported with the line it came from."""
    file = Path(str(answers.__file__))
    function = getattr(answers, exercise.function, None)
    if function is None:
        stub = short_path(start.STUBS / file.name)
        return Verdict(WRONG, f"{short_path(file)} has no function {exercise.function}; copy its stub from {stub}")
    if exercise.module in USE_GRADIENTS:
        import torch._dynamo  # noqa: F401  the first gradient imports it, which on a slow disk exceeds the limit
    try:
        with time_limit(limit_of(exercise, seconds), f"exercise {exercise.number} ({exercise.function}): not yet"):
            exercise.check(function)
    except TimeIsUpError as error:
        return Verdict(TIMED_OUT, describe(error, file))
    except (Exception, SystemExit) as error:
        if (number := number_of_stub(error)) == exercise.number:
            place = f"{short_path(file)}:{function.__code__.co_firstlineno}"
            return Verdict(TO_DO, f"still a stub; write your answer at {place}")
        if number is not None:
            return Verdict(WRONG, f"it calls exercise {number}, {place_of_stub(error)}")
        return Verdict(WRONG, describe(error, file) + expected_shapes(error, function))
    return Verdict(DONE)


def limit_of(exercise: Exercise, seconds: float | None) -> float | None:
    """The time limit of a check: `seconds`, or more if the exercise trains a model. None disables it."""
    return None if seconds is None else max(seconds, LONGER_LIMIT_S.get(exercise.function, 0))
