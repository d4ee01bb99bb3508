"""Access to the keys of a record by any of their names, and a report of the keys that nothing has read.

A key that nothing reads may hold the passage that an answer depends on. So the readers of all formats use `Fields`,
which records what was read. The other keys are reported once per file, except bookkeeping such as an id.
"""

import ast
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from src.data.records import BadRecord, Record, key_names, type_name

# Keys that hold neither what the model must read nor what it must learn.
_BOOKKEEPING = {
    "author", "categories", "category", "created", "data_source", "dataset", "date", "difficulty", "domain", "hash",
    "generator", "id", "idx", "index", "lang", "language", "languages", "license", "link", "locale", "model", "name",
    "origin", "quality", "rank", "rating", "ratings", "score", "scores", "source", "sources", "split", "tags", "time",
    "timestamp", "topic", "topics", "type", "uid", "url", "uuid", "version",
}  # fmt: skip
_BOOKKEEPING_ENDINGS = (
    "_at", "_by", "_category", "_count", "_date", "_hash", "_id", "_ids", "_index", "_lang", "_language", "_length",
    "_model", "_name", "_rating", "_score", "_source", "_state", "_time", "_tokens", "_type", "_url",
)  # fmt: skip
_LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")
_OTHER_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_WEIGHTS = ("weight", "train", "training", "trainable", "loss", "loss_mask")  # of a message or a record
# Numbers and booleans are bookkeeping too, unless one of these words is in their key.
_VERDICTS = ("correct", "ignore", "label", "learn", "loss", "mask", "skip", "train", "weight")
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")  # categories of Unicode: white space, U+200B from a web page, ...
_MAX_BOOKKEEPING_CHARS = 100  # a longer text is content: the "source" of a summary may be the whole article


class LeftOut(ValueError):
    """Raised for a well-formed record that holds nothing to learn. Such records are counted, and are not errors."""


@dataclass
class Found:
    """What reading a record found: the values that were read, and what to report about it."""

    values: list[Any] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # a set that keeps its order


class Fields:
    """The values of a record, or of an object inside it, by key.

    Upper and lower case are the same, unless the record has a key in both spellings. A value is empty if it
    is null, [], {} or a text without a visible character. `where` names the record in error messages; `part` names the
    object in it, such as "messages".
    """

    def __init__(self, where: str, record: Record, found: Found | None = None, *, part: str = "") -> None:
        self.where, self.part = where, part
        self.found = found or Found()
        self._record = record if part else {key: _decoded_chat(value) for key, value in record.items()}
        self._spelling = {_canonical(key): key for key in record} | {key: key for key in record}
        self._read: set[str] = set()

    def inside(self, where: str, record: Record, part: str) -> "Fields":
        """The fields of an object in this record."""
        return Fields(where, record, self.found, part=part)

    def has(self, name: str) -> bool:
        """Whether the record has this key, with a value that is not empty."""
        return not _is_empty(self.peek(name))

    def peek(self, name: str) -> Any:
        """Return the value under a key, or None. Unlike `value`, this does not count as reading it."""
        return self._record.get(self.key(name))

    def value(self, name: str) -> Any:
        """Return the value under a key, or None if the record does not have it. The key then counts as read."""
        key = self.key(name)
        self._read.add(key)
        value = self._record.get(key)
        self.found.values.append(value.strip() if isinstance(value, str) else value)
        return value

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """Return the stripped text under a key; raises BadRecord if it is missing, not text, or empty."""
        key = self._spelling.get(name)
        if key is None:
            raise self.error(f"{name!r} is missing, {key_names(self._record)}; add it, or correct the spelling")
        return self.checked_text(self.value(name), key, may_be_empty=may_be_empty)

    def checked_text(self, value: object, key: str, *, may_be_empty: bool = False) -> str:
        """Return a value as stripped text, also a number; raises BadRecord if it is something else, or empty."""
        if isinstance(value, float) and math.isinf(value):
            raise self.error(f"{key!r} is a number too large to read; write it in quotes")
        if isinstance(value, bool | int | float):
            self.note(f"{key!r} is {type_name(value)}, read as text")
            value = json.dumps(value)
        if not isinstance(value, str):
            raise self.error(f"{key!r} is {type_name(value)}, expected text in quotes")
        if not may_be_empty and not _is_visible(value):
            raise self.error(f"{key!r} is empty; fill it in or remove the record")
        return value.strip()

    def first(self, names: Sequence[str]) -> str | None:
        """Return the one of these names that the record has, or None. A name with a value goes before an empty one.

        Raises BadRecord if several names have different values.
        """
        filled = [name for name in names if self.has(name)]
        if len(filled) > 1:
            values = [self.value(name) for name in filled]
            if any(value != values[0] for value in values[1:]):
                raise self.error(f"has both {self.key(filled[0])!r} and {self.key(filled[1])!r}; keep one of them")
        return next(iter([*filled, *(name for name in names if name in self._spelling)]), None)

    def key(self, name: str) -> str:
        """The key as the record spells it."""
        return self._spelling.get(name, name)

    def error(self, problem: str) -> BadRecord:
        """The error to raise if this record cannot be used."""
        return BadRecord(self.where, problem)

    def missing(self, names: Sequence[str], expected: str, known: Iterable[str]) -> BadRecord:
        """The error for a record that has none of these names. It suggests the name nearest to a misspelt key."""
        unknown = [key for key in self._record if _canonical(key) not in {*known, "role", "content"}]
        guesses = [(key, guess) for key in unknown for guess in get_close_matches(_canonical(key), [*known], 1, 0.8)]
        near = f" (did you mean {guesses[0][1]!r} by {guesses[0][0][:30]!r}?)" if guesses else ""
        wanted = " or ".join(repr(name) for name in names)
        return self.error(f"{wanted} is missing, {key_names(self._record)}{near}; {expected}")

    def note(self, text: str) -> None:
        """Report this about the file, once, with the number of records."""
        self.found.notes[text] = None

    def is_learned(self) -> bool:
        """Whether this message or record may be learned: it has no `"weight": 0` or `"train": false`."""
        learned = True
        for name in _WEIGHTS:
            value = as_number(self.peek(name))
            if value is None or (name == "loss" and value not in (0, 1)):  # a measured loss is not a weight
                continue
            self.value(name)
            if value < 0:
                raise self.error(f"{self.key(name)!r} is below 0, expected 0 or 1")
            if value not in (0, 1):
                self.note(f"a {self.key(name)!r} other than 0 and 1 counts as 1")
            learned = learned and value != 0
        return learned

    def refuse_media(self) -> None:
        """Raises BadRecord if there are images, sound or video next to the text."""
        for name in _OTHER_MEDIA:
            if self.has(name):
                raise self.error(f"has {self.key(name)!r}, but the model reads only text; remove the record")

    def note_unread(self) -> None:
        """Report the keys that hold something and were not read, unless they repeat what was read."""
        for key, value in self._record.items():
            if key not in self._read and _holds_content(key, value) and not self._repeats(value):
                self.note(f"{key[:30]!r}{f' in {self.part!r}' if self.part else ''} is not read")

    def _repeats(self, value: Any) -> bool:
        """Whether a value was read under another key, or is a text that contains all texts that were read."""
        if value in self.found.values:
            return True
        texts = [text for text in self.found.values if isinstance(text, str) and text]
        if not isinstance(value, str) or not texts:
            return False
        return value.strip() in texts or all(text in value for text in texts)


def _canonical(key: str) -> str:
    return key.strip().casefold().replace("-", "_").replace(" ", "_")


def _is_empty(value: object) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and not _is_visible(value))


def _is_visible(text: str) -> bool:
    return any(unicodedata.category(character) not in _INVISIBLE for character in text)


def _holds_content(key: str, value: object) -> bool:
    if _is_empty(value):
        return False
    name = _canonical(key)
    if as_number(value) is not None:
        return any(word in name for word in _VERDICTS)
    if isinstance(value, str) and len(value) > _MAX_BOOKKEEPING_CHARS:
        return True
    return not (
        name in _BOOKKEEPING
        or name.endswith(_BOOKKEEPING_ENDINGS)
        or name.startswith(("id_", "is_", "has_", "num_", "score_", "__", "unnamed:"))
    )


def decoded_list(value: Any) -> Any:
    """Return the list that a text spells in JSON, or in Python as in pandas' CSV; other values as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(value.strip())
    return value


def _decoded_chat(value: Any) -> Any:
    """Like `decoded_list`, but only for a list of messages: another list may be a text to learn."""
    if not isinstance(value, str) or not _LIST_OF_OBJECTS.match(value):
        return value
    entries = decoded_list(value)
    is_chat = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    return entries if is_chat and all({"role", "from"} & entry.keys() for entry in entries) else value


def as_bool(value: object) -> bool | None:
    """The boolean that a value is or spells (a table has only texts), or None."""
    return {"true": True, "false": False}.get(str(value).lower()) if isinstance(value, bool | str) else None


def as_number(value: object) -> float | None:
    """The number that a value is or spells (a table has only texts), or None."""
    try:
        return float(value if as_bool(value) is None else bool(as_bool(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
