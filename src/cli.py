"""Command-line flags from a dataclass: its fields define the parser, the help and the defaults."""

import argparse
import dataclasses
import math
import os
import re
import reprlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from src.common.messages import visible
from src.common.terminal import in_terminal_width
from src.program import BAD_USAGE

_SIMILAR = 0.8  # the least similarity, from 0 to 1, of a mistyped flag and the one that is suggested
_WORDS = " words"  # ends the name of the argument that collects the words of a positional flag

C = TypeVar("C")
T = TypeVar("T")


def flag(default: T, help: str, *, path: bool = False, positional: bool = False) -> T:
    """A dataclass field that is a command-line flag. `help` describes it, with its unit.

    path: the text may be a path, so a ~ at its start is expanded. A field of type Path needs no such mark.
    positional: words without a flag become its text, too. At most one field can be positional.
    """
    return dataclasses.field(default=default, metadata={"help": help, "path": path, "positional": positional})


def flag_name(field: str) -> str:
    return "--" + field.replace("_", "-")


def parse(config: type[C], argv: Sequence[str] | None, description: str) -> tuple[C, set[str]]:
    """Return the config that a command line describes, and the names of the fields that it sets.

    config: a dataclass whose fields are flags; it raises ValueError for bad values. Exits with code 2 and one line on
    stderr, which names every problem, if the command line is invalid.
    """
    parser, hints = Parser(description), get_type_hints(config)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        _add_flag(parser, field, hints[field.name])
    arguments, unknown = parser.parse_known_args(argv)
    typed = vars(arguments)  # {field: text}, of the flags on the command line only
    problems = [*map(parser.unknown, _flags_among(unknown)), *_take_words(typed)]
    values, bad = _convert_all(config, typed)
    problems += bad.values()
    try:
        settings = config(**values)
    except ValueError as error:
        problems += _further_problems(error, bad, typed, values)
    if problems:
        parser.error("; ".join(problems))
    return settings, set(values)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports bad usage in one line and suggests the nearest flag for a misspelt one."""

    def __init__(self, description: str | None) -> None:
        super().__init__(_module(), description=description, allow_abbrev=False, formatter_class=_Layout)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for text in sys.argv[1:] if args is None else args:
            if re.fullmatch(r"--[^=]+=--", text):  # argparse would raise ValueError
                self.error(f"{text.partition('=')[0]}: expected one argument, got '--'")
        return super().parse_known_args(args, namespace)

    def unknown(self, name: str) -> str:
        """Say that there is no such flag, and suggest those that begin or end with it, or one that is spelt like it."""
        known = {option.lstrip("-"): option for option in self._option_string_actions}
        typed = name.lstrip("-")
        longer = [flag for flag in known if typed and (flag.startswith(typed) or flag.endswith(f"-{typed}"))]
        nearest = [known[flag] for flag in longer[:3] or get_close_matches(typed, known, 1, _SIMILAR)]
        return f"there is no {name:.100}" + (f" (did you mean {' or '.join(nearest)}?)" if nearest else "")

    def error(self, message: str) -> NoReturn:
        command = f"-m {self.prog}" if self.prog == _module() else self.prog
        line = f"{self.prog}: {visible(' '.join(message.split()))}; see python {command} --help"
        self.exit(BAD_USAGE, f"{in_terminal_width(line, sys.stderr)}\n")


class _Layout(argparse.HelpFormatter):
    """Fills each paragraph of the description to the width of the terminal. One with indented lines stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(
            each if re.search("^ ", each, re.MULTILINE) else fill(each, width, indent) for each in paragraphs
        )


def _module() -> str | None:
    """NAME, if this runs as `python -m NAME`. None for a script, whose name argparse knows."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec and spec.origin == sys.argv[0] else None


# --- from a dataclass to the flags of a parser


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: object) -> None:
    """Add an argument. An absent flag is left out of the namespace, so that the dataclass provides the default."""
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(field)}
    kind, _ = _kind(hint)
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        choices = get_args(kind)
        if _takes_several(hint):
            options["nargs"] = "+"
        options["metavar"] = "{" + ",".join(choices) + "}" if choices else _METAVARS[kind]
    parser.add_argument(flag_name(field.name), *map(flag_name, field.metadata.get("aliases", ())), **options)
    if field.metadata.get("positional"):
        words = f"{field.name}{_WORDS}"
        parser.add_argument(words, nargs="*", metavar=field.name.upper(), help=f"same as {flag_name(field.name)}")


def _help(field: dataclasses.Field) -> str:
    text = str(field.metadata.get("help", ""))
    if field.default in (None, dataclasses.MISSING) or "default" in text:
        return text.replace("%", "%%")
    return f"{text} (default: {field.default})".replace("%", "%%")


def _kind(hint: Any) -> tuple[Any, bool]:
    """(the type of a flag's value, whether the value can also be None)."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    return next(kind for kind in get_args(hint) if kind is not type(None)), True


def _takes_several(hint: object) -> bool:
    """Whether the type of a flag's value is one value or a tuple of them."""
    return any(get_origin(part) is tuple for part in get_args(hint))


# --- from the texts on the command line to values


def _take_words(typed: dict[str, Any]) -> list[str]:
    """Make the words without a flag the text of the positional flag. Returns the problems."""
    for key in [key for key in typed if key.endswith(_WORDS)]:
        name, words = key.removesuffix(_WORDS), typed.pop(key)
        if words and name in typed:
            return [f"{flag_name(name)} is given twice, the second time without the flag: {' '.join(words):.40}"]
        if words:
            typed[name] = " ".join(words)
    return []


def _flags_among(unknown: Sequence[str]) -> list[str]:
    """The unknown flags without their values, or the values if there are no flags."""
    flags = [text.split("=")[0] for text in unknown if text.startswith("-") and not text[1:2].isdigit()]
    return flags or list(unknown)


def _convert_all(config: type, typed: Mapping[str, str | bool | list[str]]) -> tuple[dict[str, Any], dict[str, str]]:
    """({field: value}, {flag: the problem with its value})."""
    hints, fields = get_type_hints(config), {field.name: field for field in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    bad: dict[str, str] = {}
    for name, text in typed.items():
        try:
            values[name] = _value(text, hints[name])
        except ValueError as error:
            bad[flag_name(name)] = f"{flag_name(name)} must be {error}, got {reprlib.repr(text)}"
            continue
        if fields[name].metadata.get("path"):
            values[name] = os.path.expanduser(str(values[name]))
    return values, bad


def _value(text: str | bool | list[str], hint: object) -> object:
    """The value of a flag's text, or a tuple with that of each of its texts. Raises ValueError as _convert does."""
    if isinstance(text, list):
        several = tuple(_convert(each, hint) for each in text)
        return several if len(several) > 1 else several[0]
    return text if isinstance(text, bool) else _convert(text, hint)


def _convert(text: str, hint: object) -> object:
    """The value of a flag's text. Raises ValueError whose message is what was expected."""
    kind, optional = _kind(hint)
    if optional and text.lower() in ("none", "off"):
        return None
    choices = get_args(kind)
    expected = f"one of {', '.join(choices)}" if choices else _EXPECTED[kind]
    try:
        return choices[choices.index(text)] if choices else _CONVERTERS[kind](text)
    except ValueError:
        raise ValueError(expected + (" or none" if optional else "")) from None


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:  # larger numbers fit neither a tensor's shape nor a float
        raise ValueError
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _path(text: str) -> Path:
    if not text:  # Path("") is the current folder, but an empty text is more likely an unset shell variable
        raise ValueError
    return Path(os.path.expanduser(text))  # the shell expands ~ in --out ~/x, but not in --out=~/x


# By the type of a flag's value: the placeholder in the help, what an error message says was expected, the conversion.
_METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
_EXPECTED = {int: "a whole number below 2**63", float: "a finite number", Path: "a path", str: "text"}
_CONVERTERS: dict[type, Callable[[str], object]] = {int: _whole, float: _finite, Path: _path, str: str}


# --- the problems that the dataclass itself reports


def _further_problems(
    error: ValueError, bad: Mapping[str, str], typed: Mapping[str, object], values: Mapping[str, object]
) -> list[str]:
    """The config's own problems, without those of flags in `bad`: the config got their defaults, not what was typed."""
    problems = [part for part in str(error).split("; ") if not any(name in part for name in bad)]
    return [_as_typed(problem, typed, values) for problem in problems]


def _as_typed(problem: str, texts: Mapping[str, object], values: Mapping[str, object]) -> str:
    """The problem with the text of each number as it was typed: -1, even if its value is shown as -1.0."""
    what, got, shown = problem.rpartition(", got ")
    for name, value in values.items():
        if isinstance(value, int | float) and flag_name(name) in what:
            shown = shown.replace(str(value), str(texts[name]), 1)
    return what + got + shown
