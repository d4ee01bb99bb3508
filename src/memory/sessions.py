"""Conversations on disk, each in its own JSON file.

Two programs can have the same conversation open: saving merges the changes that each made since it last read the file.
"""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from src.common.checks import is_count
from src.common.messages import Notify, one_line, without_surrogates
from src.memory.merging import merge_messages
from src.memory.private_files import CHECK_FILE, CHECK_FOLDER, locked, quarantine, write_private
from src.memory.words import contains_any

FORMAT = 1
_ROLES = ("system", "user", "assistant")
_MAX_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{_MAX_NAME}}}")
_DATED = re.compile(r"-\d{8}-\d{6}(?:-\d{1,2})?$")
_WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


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

    def mark_saved(self, revision: int, file: bytes) -> None:
        self.revision, self.on_disk, self.file = revision, (tuple(self.messages), self.summary), file


@dataclass(frozen=True)
class SessionInfo:
    """An entry of the list of sessions. saved: when the file was last written (Unix time). first: its first message."""

    name: str
    turn_count: int
    saved: float
    first: str


class SessionStore:
    """The conversations in one folder. `notify` gets one-line messages for the user.

    A name has 1 to 64 letters (a-z, A-Z), digits, - and _. It may not be a device name of Windows, nor differ from
    another session's name only in case. Every method raises ValueError for an invalid name, and OSError if the disk
    fails; what was saved before is then unchanged.
    """

    def __init__(self, folder: Path, notify: Notify) -> None:
        self.folder, self.notify = Path(folder), notify

    def load(self, name: str) -> Conversation:
        """The conversation of that name; an empty one if there is none.

        A damaged file is renamed, with a notification, and an empty conversation is returned. Raises ValueError if a
        newer version of the program wrote the file.
        """
        path = self._path(name)
        try:
            return _read(path) or Conversation(name)
        except _Damaged:
            with locked(self.folder):
                return self._read_or_quarantine(path) or Conversation(name)

    def save(self, conversation: Conversation) -> Path:
        """Write the conversation, merged with the changes that another program has saved since it was last read.

        A turn that either program removed is removed. A turn that either program added is saved, theirs before ours. A
        turn that one program changed is saved in its new form; if both changed it, both versions are saved.
        Afterwards, `conversation` equals the file.
        """
        path = self._path(conversation.name)
        with locked(self.folder):
            # An unchanged file is not parsed: that would take longer with every turn.
            on_disk = _bytes(path)
            theirs = None if on_disk == conversation.file else self._read_or_quarantine(path)
            if on_disk is None and conversation.file:
                self.notify(f"session {conversation.name}: another program deleted or renamed it; it is saved again")
            if theirs and theirs.on_disk != conversation.on_disk:
                _merge(conversation, theirs)
                self.notify(f"session {conversation.name}: another program changed it too; the changes are merged")
            revision = max(conversation.revision, theirs.revision if theirs else 0) + 1
            file = _as_json(conversation, revision).encode("utf-8")
            write_private(path, file)
            conversation.mark_saved(revision, file)
        return path

    def list_sessions(self, parts: Sequence[str] = ("",)) -> list[SessionInfo]:
        """The readable conversations that contain one of the parts, most recently saved first.

        `notify` gets a message for each unreadable one.
        """
        found = []
        for path in self._files():
            try:
                if not (conversation := _read(path)):
                    continue
                texts = [message.text for message in conversation.messages]
                if any(contains_any(text, parts) for text in (conversation.summary, *texts)):
                    first = next((message.text for message in conversation.messages if message.role == "user"), "")
                    found.append(SessionInfo(path.stem, conversation.turn_count, path.stat().st_mtime, first))
            except (ValueError, OSError) as error:
                self.notify(str(error))
        return sorted(found, key=lambda info: info.saved, reverse=True)

    def last(self) -> str | None:
        """The name of the session that was saved last, readable or not; None if there is none."""
        files = self._files()
        return max(files, key=lambda path: path.stat().st_mtime).stem if files else None

    def exists(self, name: str) -> bool:
        """Whether a session of that name is saved, readable or not."""
        return self._path(name).is_file()

    def dated_name(self, name: str) -> str:
        """A name that no session has: `name` with the date and time of now, in place of those that it may end with."""
        name = _DATED.sub("", name)
        dated = f"{name[: _MAX_NAME - len('-YYYYMMDD-HHMMSS-99')]}-{time.strftime('%Y%m%d-%H%M%S')}"
        names = (dated, *(f"{dated}-{n}" for n in range(2, 100)))
        return next(name for name in names if not self.exists(name))

    def rename(self, old: str, new: str) -> None:
        """Rename a conversation. Raises ValueError if there is none of the old name, or one of the new name."""
        with locked(self.folder):
            source, target = self._existing(old), self._path(new)
            if target.exists():
                raise ValueError(f"session {new!r} already exists; choose another name")
            try:
                source.rename(target)
            except OSError as error:
                raise OSError(f"{source}: could not be renamed ({error.strerror}); {CHECK_FOLDER}") from error

    def delete(self, name: str) -> None:
        """Delete a conversation. Raises ValueError listing the existing ones if there is none of that name."""
        with locked(self.folder):
            path = self._existing(name)
            try:
                path.unlink()
            except OSError as error:
                raise OSError(f"{path}: could not be deleted ({error.strerror}); {CHECK_FOLDER}") from error

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if not path.is_file():
            existing = ", ".join(file.stem for file in self._files()) or "none"
            raise ValueError(f"session {name!r}: not in {self.folder}; the sessions are: {existing}")
        return path

    def _path(self, name: str) -> Path:
        shown = repr(name[:70])
        if not _NAME.fullmatch(name):
            raise ValueError(f"session {shown}: a name has 1 to 64 letters (a-z), digits, - and _; choose another name")
        if _WINDOWS_DEVICE.fullmatch(name):
            raise ValueError(f"session {shown}: Windows reserves this name for a device; choose another name")
        for file in self._files():
            if file.stem != name and file.stem.lower() == name.lower():
                raise ValueError(
                    f"session {shown}: differs only in case from {file.stem!r}, which some systems cannot tell apart; "
                    "use that one or choose another name"
                )
        return self.folder / f"{name}.json"

    def _files(self) -> list[Path]:
        try:
            files = map(Path, sorted(os.listdir(self.folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise OSError(f"{self.folder}: cannot be read ({error.strerror}); {CHECK_FOLDER}") from error
        return [self.folder / file for file in files if file.suffix == ".json" and _NAME.fullmatch(file.stem)]

    def _read_or_quarantine(self, path: Path) -> Conversation | None:
        try:
            return _read(path)
        except _Damaged as error:
            moved_to = quarantine(path)
            self.notify(f"{error}; renamed to {moved_to.name}, starting with an empty conversation")
            return None


class _Damaged(ValueError):
    """The file is not a complete session."""


def _bytes(path: Path) -> bytes | None:
    """The content of a file; None if there is no file. Raises OSError with a one-line message."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror}); {CHECK_FILE}") from error


def _read(path: Path) -> Conversation | None:
    """The conversation in a file; None if there is no file. Raises _Damaged, or ValueError for a newer format."""
    data = _bytes(path)
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
        raise _Damaged(f"{path}: damaged, not a complete session ({one_line(error)[:200]})") from error
    raise ValueError(f"{path}: written by a newer version of this program; use that one, or another session")


def _as_json(conversation: Conversation, revision: int) -> str:
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


def _merge(ours: Conversation, theirs: Conversation) -> None:
    """Apply to our conversation the changes that the other program made since we last read the file."""
    base_messages, base_summary = ours.on_disk
    ours.messages[:] = merge_messages(base_messages, ours.messages, theirs.messages)
    changed = [summary for summary in (theirs.summary, ours.summary) if summary != base_summary]
    ours.summary = "\n".join(filter(None, dict.fromkeys(changed))) if changed else base_summary
