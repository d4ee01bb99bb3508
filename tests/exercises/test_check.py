"""python -m exercises.check: the list, one exercise, errors in an answer, endless loops, and bad usage."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exercises import attention, check, hard_attention, start
from exercises.checks.explain import expected_shapes
from exercises.checks.time_limit import TimeIsUpError, time_limit
from tests.exercises.proof import ROOT


@pytest.fixture
def answers_are(answers: Path) -> Callable[[str], Path]:
    """Write the learner's attention.py. The other answers are stubs."""

    def write(code: str) -> Path:
        start.copy_stubs()
        (answers / "attention.py").write_text(code, encoding="utf-8")
        return answers / "attention.py"

    return write


def test_exercises_are_numbered_without_gaps() -> None:
    numbers = list(check.all_exercises())
    assert numbers == list(range(1, len(numbers) + 1))


def test_list_shows_states_and_the_next_exercise(
    answers_are: Callable[[str], Path], capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    noisy = "def dot_product(a, b):\n    print('hm')\n    __import__('warnings').warn('oh')\n    return (a * b).sum()\n"
    answers_are(noisy + "def softmax(x):\n    return x\n")
    assert check.main([]) == 0
    assert recwarn.list == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "exercises/attention_exercises.md"
    shown = [line.split(maxsplit=2) for line in (lines[1], lines[4])]
    assert shown == [["1", "dot_product", "done"], ["4", "softmax", "not right yet"]]
    assert lines[15] == "exercises/hard_attention_exercises.md"
    assert lines[16].startswith("  15  ") and lines[16].endswith("  to do")
    assert lines[-1] == f"1 of {len(check.all_exercises())} done; next: python -m exercises.check 2"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def dot_product(a, b):\n    c = a\n    return c * b[1:]\n",
            "attention.py:3: RuntimeError: The size of tensor",
        ),
        ("def dot_product(a):\n    return a\n", "and b [3.0, 1.0, 5.0]: TypeError: dot_product() takes 1 positional"),
        (
            "def dot_product(a, b):\n    assert a is b, 'mine'\n",
            "attention.py:2: AssertionError: mine\n    assert a is b",
        ),
        (
            "def dot_product(a, b):\n    return times(a)\ndef times(a):\n    return a.b\n",
            "attention.py:4: AttributeError: ",
        ),
        (
            "def dot_product(a, b):\n    raise NotImplementedError('exercise 2')\n",
            "not yet: it calls exercise 2, still a stub at answers",
        ),
        ("def dot_product(a, b):\n    return a * b\n", "not yet: for a [1.0, 2.0, 0.0] and b [3.0, 1.0, 5.0], got"),
        (
            "def dot_product(a, b):\n    return a @ b\n",
            "attention.py:2: the function calls torch's own matmul: write it with * and a sum\n    return a @ b\n",
        ),
        (
            "def dot_product(a, b):\n    exit()\n",
            "attention.py:2: SystemExit ends the program; return a result instead\n    exit()\n",
        ),
        ("import sys\nsys.exit(0)\n", "attention.py:2: SystemExit ends the program"),
        ("def dot(a, b):\n    return a\n", "attention.py has no function dot_product; copy its stub from"),
        ("def dot_product(a, b:\n", "attention.py:1: SyntaxError: '(' was never closed\n    def dot_product(a, b:\n"),
        ("import torhc\n", "attention.py:1: ModuleNotFoundError: No module named 'torhc'\n    import torhc\n"),
        (
            "from exercises.attention import softmax\ndef dot_product(a, b):\n    return softmax(a)\n",
            "; import it from exercises.answers.attention\n",
        ),
    ],
)
def test_an_error_in_the_answer_is_reported_with_its_line(
    code: str, message: str, answers_are: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    answers_are(code)
    assert check.main(["1"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("exercise 1 (dot_product): not yet: ") and message in shown
    assert shown.count("\n") <= 2


def test_list_reports_a_broken_file_once(
    answers_are: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    answers_are("1 +\n")
    assert check.main([]) == 0
    shown = capsys.readouterr().out
    assert shown.count("SyntaxError") == 1
    assert shown.splitlines()[-1].startswith("0 of ")


def test_a_missing_file_is_reported(answers_are: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    answers_are("").unlink()
    assert check.main(["1"]) == 1
    assert capsys.readouterr().out == (
        f"exercise 1 (dot_product): not yet: {Path('answers', 'attention.py')} does not exist; "
        "create it: python -m exercises.start\n"
    )
    assert check.main([]) == 0
    assert capsys.readouterr().out.endswith("done; next: python -m exercises.start\n")


def test_an_answer_may_import_from_another_answer_file(answers_are: Callable[[str], Path]) -> None:
    folder = answers_are("FACTOR = 6\n").parent
    code = "def crossover_length(d_model, share):\n    return FACTOR * d_model * share / (1 - share)\n"
    (folder / "hard_attention.py").write_text(
        "from exercises.answers.attention import FACTOR\n" + code, encoding="utf-8"
    )
    assert check.main(["24"]) == 0


@pytest.mark.parametrize("unknown", ["0", "999", "xyz"])
def test_an_unknown_exercise_is_bad_usage_and_lists_all(unknown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        check.main([unknown])
    assert left.value.code == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == f"there is no exercise {unknown}; choose from"
    listed = [f"{number} {exercise.function}" for number, exercise in check.all_exercises().items()]
    assert ", ".join(line.rstrip(",") for line in lines) == ", ".join(listed)
    assert max(map(len, lines)) <= 100


def test_a_misspelt_name_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        check.main(["sofmax"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "there is no exercise sofmax; did you mean softmax?\n"


def test_an_exercise_is_found_by_its_function_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["softmax", "--solution"]) == 0
    assert capsys.readouterr().out == "exercise 4 (softmax): right\n"
    assert len({exercise.function for exercise in check.all_exercises().values()}) == len(check.all_exercises())


def test_check_runs_as_a_script_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "exercises" / "check.py"), "3", "--solution"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, "exercise 3 (scaled_scores): right\n"), done.stderr


# --- shapes


def test_a_torch_error_is_followed_by_the_expected_shapes(
    answers_are: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    docstring = "'''Not this. Queries (..., T, D)\n    and so on: (..., T, S).\n\n    Nor this.'''"
    answers_are(f"def scaled_scores(q, k):\n    {docstring}\n    return q @ k\n")
    assert check.main(["3"]) == 1
    end = "    return q @ k\n    expected: Queries (..., T, D) and so on: (..., T, S).\n"
    assert capsys.readouterr().out.endswith(end)


def test_only_shape_errors_are_followed_by_expected_shapes() -> None:
    for exercise in list(check.all_exercises().values())[:21]:
        stub = getattr(attention if exercise.number < 15 else hard_attention, exercise.function)
        assert "(" in expected_shapes(RuntimeError("sizes"), stub), exercise
        assert expected_shapes(NameError("x"), stub) == ""


# --- endless loops and Ctrl-C


def test_imports_of_torch_do_not_count_towards_the_time_limit() -> None:
    code = """
import sys
from contextlib import contextmanager
from exercises import check

@contextmanager
def limit(seconds, name):
    before = set(sys.modules)
    yield
    print(name, len(set(sys.modules) - before))

exercise = check.all_exercises()[20]
answers = check.load_answers(exercise, True, None)
check.time_limit = limit
check.run_check(exercise, answers, 10)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert int(done.stdout.split()[-1]) < 50, done.stderr


ENDLESS = {
    "plain": "def causal_mask(n):\n    while True:\n        pass\n",
    "caught": "def causal_mask(n):\n    try:\n        while True:\n            pass\n    except:\n        return n\n",
    "at import": "while True:\n    pass\n",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_loop_is_stopped_and_located(
    kind: str,
    answers_are: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "TIME_LIMIT_S", 1)
    answers_are(ENDLESS[kind])
    assert check.main(["7"]) == 1
    place = "" if kind == "caught" else r"answers.attention\.py:\d: "
    sentence = r"still running after 1 s: is there an endless loop\? \(--no-time-limit waits for it\)\n"
    assert re.match(rf"exercise 7 \(causal_mask\): not yet: {place}{sentence}", capsys.readouterr().out)


def test_list_continues_after_an_endless_loop(
    answers_are: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "TIME_LIMIT_S", 1)
    answers_are(ENDLESS["plain"] + "def weighted_sum(w, v):\n    return w @ v\n")
    assert check.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[7].split(maxsplit=2) == ["7", "causal_mask", check.TIMED_OUT]
    assert lines[-1].startswith("1 of ")


def test_an_uninterruptible_call_ends_the_process_with_one_line() -> None:
    code = (
        "import time\n"
        "from exercises.checks import time_limit\n"
        "time_limit.GRACE_S = 0.1\n"
        "with time_limit.time_limit(0.1, 'exercise 7'):\n"
        "    time.sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60)
    assert done.stdout == (
        "exercise 7: still running after 0.1 s: is there an endless loop? (--no-time-limit waits for it)\n"
    )
    assert (done.returncode, done.stderr) == (1, "")


def test_the_limit_works_in_a_background_job() -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(TimeIsUpError), time_limit(0.5, "exercise 7"):
            while True:
                pass
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_no_time_limit_lets_a_slow_answer_finish(
    answers_are: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "TIME_LIMIT_S", 0.05)
    answers_are("import time\ndef dot_product(a, b):\n    time.sleep(0.2)\n    return (a * b).sum()\n")
    assert check.main(["1"]) == 1
    assert check.main(["1", "--no-time-limit"]) == 0


@pytest.mark.parametrize("argv", [["7"], []])
def test_ctrl_c_exits_with_one_line(
    argv: list[str], answers_are: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    answers_are("def causal_mask(n):\n    raise KeyboardInterrupt\n")
    assert check.main(argv) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
