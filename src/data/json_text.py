"""Parse the JSON values of a text, one after another. An error has its place, and says in words what the mistake is."""

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

from src.data.records import BadRecord, Record, broken_character

TOO_DEEP = "nested too deeply for a record of texts and lists of messages"
BLANKS = " \t\r\n"
_BLANK = re.compile(f"[{BLANKS}]*")


@dataclass(frozen=True)
class Flaw:
    """Replaces a value that Python's JSON parser accepts and we do not. It is reported once its record is known."""

    problem: str


class CutOff(BadRecord):
    """A record that the end of the file cuts off."""


@dataclass
class JsonText:
    """A text with JSON in it. `at` is a position in it, from 0.

    name: the file's, for errors. first_line: the number of the text's first line in the file.
    """

    name: str
    text: str
    first_line: int = 1

    def skip_blank(self, at: int) -> int:
        """The position of the first character from `at` on that is not blank, or the end."""
        found = _BLANK.match(self.text, at)
        return found.end() if found else at

    def value_at(self, at: int) -> tuple[Any, int]:
        """Return the value at a position, and the position of what follows it.

        Raises BadRecord if there is none; its subclass CutOff if the text ends too early.
        """
        try:
            value, end = _decoder().raw_decode(self.text, at)
        except json.JSONDecodeError as error:
            raise self.malformed(error.pos, error.msg) from None
        except RecursionError:
            raise BadRecord(self._place(at), TOO_DEEP) from None
        except ValueError:  # Python does not parse an integer of thousands of digits
            raise BadRecord(self._place(at), "a number is too long to read; shorten it or remove it") from None
        return value, self.skip_blank(end)

    def expect_end(self, at: int) -> None:
        """Raise BadRecord unless the text ends at this position."""
        if at < len(self.text):
            raise self.malformed(at, "Extra data")

    def malformed(self, at: int, problem: str) -> BadRecord:
        """The error about a position. problem: in the words of Python's JSON parser."""
        rest = self.text[at : at + 20].strip()
        if broken := broken_character(self.text[at : at + 1]):
            return BadRecord(self._place(at), broken)
        is_open = problem.startswith("Unterminated string")
        found = repr(rest.partition("\n")[0]) if rest else "the end"
        mistake = self._mistake(at, problem) or problem
        reason = f"malformed JSON ({mistake}), found {found}; correct it"
        return (CutOff if is_open or not rest else BadRecord)(self._place(at), reason)

    def _place(self, at: int) -> str:
        """For example "my.json line 3 column 7"."""
        line = self.first_line + self.text.count("\n", 0, at)
        return f"{self.name} line {line} column {at - self.text.rfind(chr(10), 0, at)}"

    def _mistake(self, at: int, problem: str) -> str | None:
        """A frequent mistake that JSON does not allow, in words, if it is at this position."""
        before, rest = self.text[:at].rstrip()[-1:], self.text[at : at + 10]
        if problem.startswith("Unterminated string"):
            return "a text without its closing quote"
        if problem.startswith("Invalid control character"):
            return r"a control character inside a text: write \n for a line break"
        if rest.startswith("\ufeff"):
            return "a byte order mark inside the file: files were joined"
        if rest.startswith(("]", "}")) and before == ",":
            return "a comma too many"
        if rest.startswith(",") and before == "}":
            return "a comma too many: only a list in [ ] has commas between its records"
        if before == "]" and problem == "Extra data":
            return "the list ends before this"
        if rest.startswith(("//", "/*", "#")):
            return "JSON has no comments"
        if rest.startswith(("'", "\u2018", "\u2019", "\u201c", "\u201d")):
            return 'texts need straight double quotes, "..."'
        if rest.startswith(("None", "True", "False")):
            return "Python's None, True and False are null, true and false in JSON"
        return None


@cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = {sys.intern(key): value for key, value in pairs}  # the keys of all records share their memory
    if len(record) < len(pairs):
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                record[key] = Flaw(f"the key {key[:30]!r} appears {count} times in one object; keep one")
    return record


def _constant(name: str) -> Flaw | None:
    """The value of NaN, Infinity or -Infinity. Python and pandas write NaN for a missing value."""
    return None if name == "NaN" else Flaw(f"{name} is not JSON; write a number or null, or remove it")
