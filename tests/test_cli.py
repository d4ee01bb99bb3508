"""The command line: flags become typed values, and problems are one line with the nearest flag."""

import dataclasses
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from src.cli import Parser, flag, parse


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One flag of each type that the scripts use."""

    count: int = flag(3, "how many")
    rate: float = flag(0.5, "how fast")
    word: str = flag("it", "what")
    folder: Path = flag(Path("here"), "where")
    slow: bool = flag(False, "whether to take time")
    loud: bool = flag(True, "whether to make noise")
    limit: int | None = flag(None, "at most (default: all of 100%)")
    share: float | None = flag(0.9, "which part; none disables it")
    name: str | None = flag(None, "whose")
    source: Path | None = flag(Path("there"), "where from")
    kind: Literal["plain", "fancy"] = flag("plain", "which")
    again: bool | None = flag(None, "whether to repeat")
    base: str = flag("auto", "a name or a path", path=True)

    def __post_init__(self) -> None:
        problems = [f"--count must be above 0, got {self.count}"] if self.count <= 0 else []
        if self.count > 100 * self.rate:
            problems.append(f"--rate must fit --count, got {self.rate} and {self.count}")
        if problems:
            raise ValueError("; ".join(problems))


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("--count 7", "count", 7),
        ("--count=-0 --count 12", "count", 12),  # the last one is used
        ("--rate 2.5e-1", "rate", 0.25),
        ("--rate 3", "rate", 3.0),
        ("--word none", "word", "none"),
        ("--word=--x", "word", "--x"),
        ("--folder a/b", "folder", Path("a/b")),
        ("--slow", "slow", True),
        ("--no-slow", "slow", False),
        ("--no-loud", "loud", False),
        ("--limit 5", "limit", 5),
        ("--limit none", "limit", None),
        ("--share off", "share", None),
        ("--share None", "share", None),
        ("--share 0.1", "share", 0.1),
        ("--name Ada", "name", "Ada"),
        ("--source none", "source", None),
        ("--source a", "source", Path("a")),
        ("--kind fancy", "kind", "fancy"),
        ("--base sft", "base", "sft"),
        ("--base=~/a", "base", "/home/ada/a"),
        ("--folder=~/a", "folder", Path("/home/ada/a")),
        ("--source ~", "source", Path("/home/ada")),
        ("--folder ~no.such.user/a", "folder", Path("~no.such.user/a")),
        ("--word ~/a", "word", "~/a"),
        ("--limit 9223372036854775807", "limit", 2**63 - 1),
        ("--again", "again", True),
        ("--no-again", "again", False),
    ],
)
def test_a_flag_becomes_a_value_of_its_type(text: str, field: str, value: object, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings, explicit = parse(Settings, text.split(), "")
    assert getattr(settings, field) == value
    assert type(getattr(settings, field)) is type(value)
    assert explicit == {field}
    assert settings == dataclasses.replace(Settings(), **{field: value})


def test_without_flags_all_fields_have_their_defaults() -> None:
    assert parse(Settings, [], "") == (Settings(), set())


@dataclass(frozen=True)
class Question:
    """A flag that takes the words without a flag, and one with a second name."""

    text: str = flag("", "what to ask", positional=True)
    heat: float = dataclasses.field(default=0.5, metadata={"help": "how hot", "aliases": ("warmth",)})


def test_words_without_a_flag_are_the_text_of_the_positional_flag() -> None:
    asked = Question("Who wrote Hamlet?", 0)
    assert parse(Question, ["Who", "wrote Hamlet?", "--heat", "0"], "") == (asked, {"text", "heat"})
    assert parse(Question, ["--text", "Who?"], "")[0] == parse(Question, ["Who?"], "")[0]
    assert parse(Question, [], "") == (Question(), set())


def test_a_flag_can_have_a_second_name() -> None:
    assert parse(Question, ["--warmth", "0.1"], "") == (Question(heat=0.1), {"heat"})


def test_a_text_given_twice_is_refused(refusal: Callable[..., str]) -> None:
    assert "--text is given twice, the second time without the flag: Why" in refusal(
        Question, ["--text", "Who?", "Why"]
    )


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--count", "many"], "--count must be a whole number below 2**63, got 'many'"),
        (["--count", "1.5"], "--count must be a whole number below 2**63, got '1.5'"),
        (["--count", "none"], "--count must be a whole number below 2**63, got 'none'"),
        (["--rate", "0,5"], "--rate must be a finite number, got '0,5'"),
        (["--rate", "nan"], "--rate must be a finite number, got 'nan'"),
        (["--share", "inf"], "--share must be a finite number or none, got 'inf'"),
        (["--limit", ""], "--limit must be a whole number below 2**63 or none, got ''"),
        (["--folder", ""], "--folder must be a path, got ''"),
        (["--kind", "Plain"], "--kind must be one of plain, fancy, got 'Plain'"),
        (["--kind", "pla\nin"], r"--kind must be one of plain, fancy, got 'pla\nin'"),
        (["--rate"], "--rate: expected one argument"),
        (["--slow=yes"], "--slow/--no-slow: ignored explicit argument 'yes'"),
        (["--count", "-4"], "--count must be above 0, got -4"),
        (["--count=--"], "--count: expected one argument, got '--'"),
        (["--count", "9" * 400], "--count must be a whole number below 2**63, got '999999999999...9999999999999'"),
        (["--count", "9" * 5000], "--count must be a whole number below 2**63, got '99999"),
        (["--limit", f"-{2**63}"], "--limit must be a whole number below 2**63 or none, got '-922337203685"),
        (["--rate", "9" * 400], "--rate must be a finite number, got '99999"),
        (["a\x1b[2J\u202eb"], r"there is no a\x1b[2J\u202eb;"),
        (["more"], "there is no more;"),
        (["more\nlines"], "there is no more lines;"),
    ],
)
def test_a_bad_value_is_reported_with_the_flag_and_what_was_expected(refusal, argv, complaint) -> None:
    assert complaint in refusal(Settings, argv)


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("--cuont", "--count"),
        ("--foldr=x", "--folder"),
        ("--no-lod", "--no-loud"),
        ("-rate", "--rate"),
        ("--s_low", "--slow"),
        ("--sh", "--share"),
        ("--loud-er", None),
        ("--again-and-again", None),
        ("--val-source", None),
        ("--", None),
    ],
)
def test_the_nearest_flag_is_suggested_for_a_misspelt_one(refusal, typed: str, suggested: str | None) -> None:
    line = refusal(Settings, [typed, "-1"])
    hint = f" (did you mean {suggested}?)" if suggested else ""
    assert f"there is no {typed.split('=')[0]}{hint};" in line
    assert "-1" not in line  # its value is not reported separately


def test_an_unknown_flag_without_a_near_one_has_no_suggestion(refusal: Callable[..., str]) -> None:
    assert "there is no --zzz; see" in refusal(Settings, ["--zzz"])


def test_every_problem_is_reported_at_once(refusal: Callable[..., str]) -> None:
    line = refusal(Settings, ["--cuont", "3", "--limit", "x", "--kind", "odd", "--count", "0", "--wrod", "a"])
    for problem in (
        "no --cuont",
        "no --wrod",
        "--limit must be",
        "--kind must be one",
        "--count must be above 0, got 0",
    ):
        assert line.count(problem) == 1


def test_the_default_in_place_of_a_bad_value_is_not_reported(refusal: Callable[..., str]) -> None:
    # 60 does not fit the default rate, but the user gave another rate.
    assert "must fit" not in refusal(Settings, ["--count", "60", "--rate", "fast"])
    assert "--rate must fit --count, got 0.5 and 60" in refusal(Settings, ["--count", "60"])


def test_help_shows_choices_negations_and_percent_signs(capsys) -> None:
    with pytest.raises(SystemExit):
        parse(Settings, ["--help"], "What it does: 100%.")
    out = capsys.readouterr().out
    for shown in ("--kind {plain,fancy}", "--slow, --no-slow", "--count N", "--rate X", "all of 100%", "does: 100%."):
        assert shown in out


def test_a_description_is_filled_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    command = "    indented lines stay as they are, however long they are"
    shown = Parser(f"A title that is longer than the line of this terminal.\n\nTwo\nlines.\n\n{command}").format_help()
    assert "A title that is longer than the line\nof this terminal.\n\nTwo lines.\n\n" in shown
    assert command in shown


def test_a_problem_is_wrapped_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit):
        parse(Settings, ["--count", "many", "--kind", "odd", "--a-flag-with-many-hyphens", "x"], "")
    lines = terminal.getvalue().splitlines()
    assert "--a-flag-with-many-hyphens;" in " ".join(lines).split()
    assert len(lines) > 3 and all(len(line) <= 40 for line in lines)
