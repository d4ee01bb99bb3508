"""A conversation and its JSON file."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from src.common.checks import is_count
from src.common.messages import one_line, without_surrogates
from src.memory.private_files import CHECK_FILE

FORMAT = 1
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class StoredMessage:
    """A message of a saved conversation. Lone surrogates, which UTF-8 cannot encode, become replacement characters."""

    role: Literal["system", "user", "assistant"]
    text: str
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", without_surrogates(self.text))

    @cached_property
    def line(self) -> str:
        """The message in the file. Encoded once, because every turn saves all messages again."""
        content = {"role": self.role, "text": self.text, "finish_reason": self.finish_reason}
        return json.dumps(content, ensure_ascii=False)


@dataclass
class Conversation:
    """The messages of a session, oldest first. `summary` describes older turns that left the context; "" if none did.

    `revision` counts how many times the file was written, by any program.
    """

    name: str
    messages: list[StoredMessage] = field(default_factory=list)
    summary: str = ""
    revision: int = 0
    # Messages and summary, and the whole file, as last read or written here: another program may have changed the file.
    on_disk: tuple[tuple[StoredMessage, ...], str] = field(default=((), ""), init=False, repr=False, compare=False)
    file: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def turn_count(self) -> int:
        """The number of user messages."""
        return sum(message.role == "user" for message in self.messages)

    def answered(self, start: int, end: int | None = None) -> list[int]:
        """Indices of the messages from `start` up to `end`, without the turns whose answer is empty."""
        indices: list[int] = []
        for i in range(len(self.messages))[start:end]:
            if self.messages[i].text.strip():
                indices.append(i)
            elif indices:
                indices.pop()  # the question that has no answer
        return indices

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Every message of the user with its answer."""
        pairs: list[tuple[str, str]] = []
        for message in self.messages:
            if message.role == "user":
                pairs.append((message.text, ""))
            elif message.role == "assistant" and pairs:
                pairs[-1] = (pairs[-1][0], message.text)
        return pairs

    def mark_saved(self, revision: int, file: bytes) -> None:
        self.revision, self.on_disk, self.file = revision, (tuple(self.messages), self.summary), file


class DamagedSession(ValueError):
    """The file is not a complete session."""


def read_bytes(path: Path) -> bytes | None:
    """The content of a file; None if there is no file. Raises OSError with a one-line message."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror}); {CHECK_FILE}") from error


def read_conversation(path: Path) -> Conversation | None:
    """The conversation in a file; None if there is no file. Raises DamagedSession, or ValueError for a newer format."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        content = _object(json.loads(data))  # of bytes, it also reads UTF-16
        version = content.get("format")
        if version == FORMAT:
            conversation = _parse(path.stem, content)
            conversation.mark_saved(content["revision"], data)
            return conversation
        if not is_count(version) or version < FORMAT:
            raise ValueError(f"'format' is {version!r}")
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedSession(f"{path}: damaged, not a complete session ({one_line(error)[:200]})") from error
    raise ValueError(f"{path}: written by a newer version of this program; use that one, or another session")


def as_json(conversation: Conversation, revision: int) -> str:
    """The file of a conversation, one message per line."""
    summary = without_surrogates(conversation.summary)
    start = json.dumps({"format": FORMAT, "revision": revision, "summary": summary}, ensure_ascii=False)
    messages = ",\n".join(message.line for message in conversation.messages)
    return f'{start[:-1]}, "messages": [\n{messages}\n]}}\n'


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise TypeError(f"expected a JSON object, found {type(content).__name__}")
    return content


def _parse(name: str, content: dict[str, Any]) -> Conversation:
    """The conversation in a file's JSON. Raises TypeError or ValueError naming the first field that is wrong."""
    types = {"revision": int, "summary": str, "messages": list}
    for key, expected in types.items():
        if not isinstance(content.get(key), expected) or isinstance(content[key], bool):
            raise TypeError(f"{key!r} is missing or has the wrong type")
    conversation = Conversation(name, summary=without_surrogates(content["summary"]))
    for n, message in enumerate(content["messages"], start=1):
        try:
            conversation.messages.append(_parse_message(_object(message)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"message {n}: {error}") from error
    return conversation


def _parse_message(content: dict[str, Any]) -> StoredMessage:
    if unknown := content.keys() - {"role", "text", "finish_reason"}:
        raise ValueError(f"unknown key {min(unknown)!r}")
    role, text, finish_reason = content.get("role"), content.get("text"), content.get("finish_reason")
    if role not in _ROLES:
        raise ValueError(f"'role' is {role!r}, expected one of {', '.join(_ROLES)}")
    if not isinstance(text, str) or not isinstance(finish_reason, str | None):
        raise TypeError("'text' or 'finish_reason' is not text")
    return StoredMessage(role, text, finish_reason)
