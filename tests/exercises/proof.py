"""Check the text of the exercises: run every example and recompute every number.

A number in a text is either output of a >>> example in a python block, the right side of `expression = value` in
backticks, or a plain number without decimals that the task assumes.
"""

import doctest
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exercises.checks.explain import number_of_stub
from exercises.checks.judging import CallFailedError

ROOT = Path(__file__).resolve().parents[2]
HEADING = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
LAST_EQUALS = re.compile(r"(.*[^=<>!:])=(?!=)(.*)")
NUMBER = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?(e[-+]?\d+)?")
WITH_DECIMALS = re.compile(r"\d[.,]\d")
HINT = re.compile(r"<details>\s*<summary>Hint[^<]*</summary>\n\n(.+?)\n\n</details>", re.DOTALL)


def sections(text: str) -> dict[int, str]:
    """The sections of a text by exercise number."""
    found = list(HEADING.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {int(match[1]): text[match.start() : end] for match, end in zip(found, ends, strict=True)}


def example_problems(text: str, names: dict[str, Any]) -> list[str]:
    """The examples that fail. Each exercise has a fresh namespace with torch, math and the given names."""
    problems: list[str] = []
    for number, section in sections(text).items():
        code = "\n".join(PYTHON.findall(section))
        test = doctest.DocTestParser().get_doctest(code, namespace(names), f"exercise {number}", None, 0)
        doctest.DocTestRunner(verbose=False).run(test, out=problems.append)
    return problems


def number_problems(text: str, names: dict[str, Any]) -> list[str]:
    """Numbers in prose that are wrong, can't be recomputed, or have decimals and no expression."""
    prose = FENCED.sub("", text)
    wrong = [problem for piece in IN_BACKTICKS.findall(prose) if (problem := equation_problem(piece, names))]
    lines = IN_BACKTICKS.sub("", prose).splitlines()
    return wrong + [f"no expression for a number in: {line}" for line in lines if WITH_DECIMALS.search(line)]


def equation_problem(piece: str, names: dict[str, Any]) -> str | None:
    """What is wrong with `expression = value`; None for `name = 3`, symbolic equations and other code."""
    match = LAST_EQUALS.fullmatch(piece)
    if match is None or match[1].strip().isidentifier() or not NUMBER.fullmatch(match[2].strip()):
        return None
    written = match[2].strip().replace(",", "")
    try:
        true = float(eval(match[1], namespace(names)))
    except Exception as error:
        return f"{piece}: {error!r}"
    # Allow half a unit of the last decimal; a number without decimals is exact.
    decimals = len(written.partition("e")[0].partition(".")[2])
    scale = float("1" + written[written.index("e") :]) if "e" in written else 1.0
    leeway = scale * 0.5 * 10.0**-decimals if decimals else 0.0
    return None if math.isclose(true, float(written), rel_tol=1e-9, abs_tol=leeway) else f"{piece}: it is {true!r}"


def namespace(names: dict[str, Any]) -> dict[str, Any]:
    return {"torch": torch, "math": math, **names}


def layout_problems(text: str, stubs: dict[int, Callable[..., Any]]) -> list[str]:
    """Exercises without the signature of their stub, an example, their command, or one to three hints."""
    found = sections(text)
    if list(found) != list(stubs):
        return [f"the text has exercises {list(found)}, the checks have {list(stubs)}"]
    problems = []
    for number, section in found.items():
        wanted = {
            "signature": inspect.getsource(stubs[number]).partition(":\n")[0] + ":\n",
            "example": "```python\n>>> ",
            "command": f"```bash\npython -m exercises.check {number}\n```",
        }
        problems += [f"exercise {number}: no {name}" for name, piece in wanted.items() if piece not in section]
        if not 1 <= len(HINT.findall(section)) == section.count("<details>") <= 3:
            problems.append(f"exercise {number}: one to three hints, each in <details> with a <summary>")
    return problems


def prove_solution_and_stub(number: int, checks: dict[int, Any], stubs: Any, solutions: Any) -> None:
    """Assert that a solution passes its check, and that its stub has the same signature and is known as a stub."""
    name, check = checks[number]
    stub, solution = getattr(stubs, name), getattr(solutions, name)
    check(solution)
    with pytest.raises((CallFailedError, NotImplementedError)) as raised:
        check(stub)
    assert number_of_stub(raised.value) == number
    assert inspect.signature(stub) == inspect.signature(solution)
    assert stub.__doc__


def prove_texts(module: str, checks: dict[int, Any], stubs: Any, names: dict[str, Any]) -> None:
    """Assert that the tasks and the worked answers of a module are complete, and their examples and numbers right."""
    files = (ROOT / f"exercises/{module}_exercises.md", ROOT / f"exercises/solutions/{module}.md")
    tasks, answers = (file.read_text(encoding="utf-8") for file in files)
    assert layout_problems(tasks, {number: getattr(stubs, name) for number, (name, _) in checks.items()}) == []
    for text in (tasks, answers):
        assert example_problems(text, names) == []
        assert number_problems(text, names) == []
    titles = [{number: part.split("\n")[0] for number, part in sections(text).items()} for text in (tasks, answers)]
    assert titles[0] == titles[1]


def prove_mistake(check: Callable[..., None], wrong: Callable[..., Any], named: str) -> None:
    """Assert that the check refuses a wrong answer with one line that names the mistake."""
    with pytest.raises(AssertionError) as raised:
        check(wrong)
    sentence = str(raised.value)
    assert named in sentence and "\n" not in sentence and len(sentence) < 500
