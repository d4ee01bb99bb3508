"""Conversations on disk, each in a JSON file of its own.

Two programs may have the same conversation open: what each of them changed since it last read the file is joined.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from src.common.messages import without_surrogates
from src.memory.private_files import CHECK_FOLDER, locked, quarantine, write_private

FORMAT = 1
_ROLES = ("system", "user", "assistant")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEVICE = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


@dataclass(frozen=True)
class Message:
    """One thing said. Lone surrogates, which no file can hold, become replacement characters."""

    role: Literal["system", "user", "assistant"]
    text: str
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", without_surrogates(self.text))


Exchange = tuple[Message, ...]  # what a person said and all that follows up to the next thing they say


@dataclass
class Conversation:
    """What was said under a name, oldest first. `summary` is what older, dropped turns were about; "" for none.

    `revision` counts how often the file was written, by whichever program.
    """

    name: str
    messages: list[Message] = field(default_factory=list)
    summary: str = ""
    revision: int = 0
    # Messages and summary as the file last had them: what differs from them there was changed by another program.
    on_disk: tuple[tuple[Message, ...], str] = field(default=((), ""), init=False, repr=False, compare=False)

    def mark_saved(self, revision: int) -> None:
        self.revision, self.on_disk = revision, (tuple(self.messages), self.summary)


@dataclass(frozen=True)
class SessionInfo:
    """A conversation as a list shows it: how many messages of the person it holds, when it was saved (Unix time)."""

    name: str
    turns: int
    saved: float


class SessionStore:
    """The conversations of one folder. `notify` is told, in one line, what a person should know.

    A name has 1 to 64 letters (a-z, A-Z), digits, - and _, is no device of Windows, and differs from the others in
    more than upper and lower case; every method raises ValueError for another. Where the disk fails they raise
    OSError, and what was saved before stays as it was.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None]) -> None:
        self.folder, self.notify = Path(folder), notify

    def load(self, name: str) -> Conversation:
        """The conversation of that name; an empty one where there is none, or where the file is damaged.

        A damaged file is renamed, which `notify` is told. Raises ValueError for one of a newer version.
        """
        path = self._path(name)
        try:
            return _read(path) or Conversation(name)
        except _Damaged:
            with locked(self.folder):
                return self._read_or_set_aside(path) or Conversation(name)

    def save(self, conversation: Conversation) -> Path:
        """Write the conversation, after joining it with what another program wrote since it was last read.

        What either of the two dropped is dropped, what either added is kept, theirs before ours, and a question stays
        with its answer; an answer that one replaced while the other went on is there in both forms. Afterwards
        `conversation` is what the file holds.
        """
        path = self._path(conversation.name)
        with locked(self.folder):
            theirs = self._read_or_set_aside(path)
            if theirs and theirs.on_disk != conversation.on_disk:
                _join(conversation, theirs)
                self.notify(f"session {conversation.name}: another program wrote to it as well; it now holds both")
            revision = max(conversation.revision, theirs.revision if theirs else 0) + 1
            content = {
                "format": FORMAT,
                "revision": revision,
                "summary": without_surrogates(conversation.summary),
                "messages": [asdict(message) for message in conversation.messages],
            }
            write_private(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
            conversation.mark_saved(revision)
        return path

    def names(self) -> list[SessionInfo]:
        """All conversations that can be read, the last saved first; `notify` is told of the others."""
        found = []
        for path in self._files():
            try:
                if conversation := _read(path):
                    turns = sum(message.role == "user" for message in conversation.messages)
                    found.append(SessionInfo(path.stem, turns, path.stat().st_mtime))
            except (ValueError, OSError) as error:
                self.notify(str(error))
        return sorted(found, key=lambda info: info.saved, reverse=True)

    def delete(self, name: str) -> None:
        """Remove a conversation. Raises ValueError naming those there are where it is none of them."""
        path = self._path(name)
        with locked(self.folder):
            if not path.is_file():
                there = ", ".join(file.stem for file in self._files()) or "none"
                raise ValueError(f"session {name!r}: not in {self.folder}; there are: {there}")
            try:
                path.unlink()
            except OSError as error:
                raise OSError(f"{path}: could not be removed ({error.strerror}); {CHECK_FOLDER}") from error

    def _path(self, name: str) -> Path:
        shown = repr(name[:70])
        if not _NAME.fullmatch(name):
            raise ValueError(f"session {shown}: a name has 1 to 64 letters (a-z), digits, - and _; choose such a one")
        if _DEVICE.fullmatch(name):
            raise ValueError(f"session {shown}: on Windows that is a device, not a file; choose another name")
        for file in self._files():
            if file.stem != name and file.stem.lower() == name.lower():
                raise ValueError(f"session {shown}: there is {file.stem!r}, for some systems the same; use that one")
        return self.folder / f"{name}.json"

    def _files(self) -> list[Path]:
        try:
            files = map(Path, sorted(os.listdir(self.folder)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OSError(f"{self.folder}: cannot be read ({error.strerror}); {CHECK_FOLDER}") from error
        return [self.folder / file for file in files if file.suffix == ".json" and _NAME.fullmatch(file.stem)]

    def _read_or_set_aside(self, path: Path) -> Conversation | None:
        try:
            return _read(path)
        except _Damaged as error:
            aside = quarantine(path)
            self.notify(f"{error}; it is kept as {aside.name}, and the conversation begins anew")
            return None


class _Damaged(ValueError):
    """A file that is not a whole session."""


def _read(path: Path) -> Conversation | None:
    """The conversation of a file; None where there is none. Raises _Damaged, or ValueError for a newer format."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror}); {CHECK_FOLDER}") from error
    try:
        content = json.loads(data.decode("utf-8"))
        version = content["format"]
        if version == FORMAT:
            return _conversation(path.stem, content)
        if not isinstance(version, int) or version < FORMAT:
            raise ValueError(f"format {version!r}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged(f"{path}: damaged, not a whole session") from error
    raise ValueError(f"{path}: written by a newer version of this program; use that one, or another --session")


def _conversation(name: str, content: dict[str, Any]) -> Conversation:
    """Raises KeyError, TypeError or ValueError for content that is no conversation."""
    messages, summary, revision = content["messages"], content["summary"], content["revision"]
    if not isinstance(messages, list) or not isinstance(summary, str) or not isinstance(revision, int):
        raise TypeError("messages, summary or revision")
    conversation = Conversation(name, [Message(**message) for message in messages], without_surrogates(summary))
    for n, message in enumerate(conversation.messages):
        if message.role not in _ROLES or not isinstance(message.finish_reason, str | None):
            raise ValueError(f"message {n}")
    conversation.mark_saved(revision)
    return conversation


def _join(ours: Conversation, theirs: Conversation) -> None:
    """Put into our conversation what the other program changed in the file."""
    messages, summary = ours.on_disk
    base, mine, other = _exchanges(messages), _exchanges(ours.messages), _exchanges(theirs.messages)
    kept = _kept(base, mine) & _kept(base, other)
    theirs_new = _added(base, other)
    ours_new = [exchange for exchange in _added(base, mine) if exchange not in theirs_new]
    merged = [*(base[i] for i in sorted(kept)), *theirs_new, *ours_new]
    ours.messages[:] = [message for exchange in merged for message in exchange]
    changed = [text for text in (theirs.summary, ours.summary) if text != summary]
    ours.summary = "\n".join(filter(None, dict.fromkeys(changed))) if changed else summary


def _exchanges(messages: Iterable[Message]) -> list[Exchange]:
    exchanges: list[list[Message]] = []
    for message in messages:
        if message.role != "assistant" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(message)
    return [tuple(exchange) for exchange in exchanges]


def _kept(base: Sequence[Exchange], changed: Sequence[Exchange]) -> set[int]:
    """Which exchanges of `base` are still in `changed`."""
    blocks = SequenceMatcher(None, base, changed, autojunk=False).get_matching_blocks()
    return {i for block in blocks for i in range(block.a, block.a + block.size)}


def _added(base: Sequence[Exchange], changed: Sequence[Exchange]) -> list[Exchange]:
    """Which exchanges of `changed` were not in `base`, in their order."""
    blocks = SequenceMatcher(None, base, changed, autojunk=False).get_matching_blocks()
    known = {i for block in blocks for i in range(block.b, block.b + block.size)}
    return [exchange for i, exchange in enumerate(changed) if i not in known]
