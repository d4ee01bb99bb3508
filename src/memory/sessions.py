"""Conversations on disk, each in its own JSON file.

Two programs can have the same conversation open: saving merges the changes that each made since it last read the file.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.common.messages import Notify
from src.memory.conversation import Conversation, DamagedSession, as_json, read_bytes, read_conversation
from src.memory.merging import merge_messages
from src.memory.private_files import CHECK_FOLDER, locked, quarantine, write_private
from src.memory.words import contains_any

_MAX_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{_MAX_NAME}}}")
_DATED = re.compile(r"-\d{8}-\d{6}(?:-\d{1,2})?$")
_WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


@dataclass(frozen=True)
class SessionInfo:
    """A saved session. saved: when the file was last written (Unix time). first: its first message."""

    name: str
    turn_count: int
    saved: float
    first: str


def check_name(name: str) -> None:
    """Raises ValueError for a name that no session can have; see SessionStore."""
    shown = repr(name[:70])
    if not _NAME.fullmatch(name):
        raise ValueError(f"{shown} is not a valid name: use 1 to {_MAX_NAME} letters (a-z), digits, - or _")
    if _WINDOWS_DEVICE.fullmatch(name):
        raise ValueError(f"{shown} is not a valid name: Windows reserves it for a device")


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
            return read_conversation(path) or Conversation(name)
        except DamagedSession:
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
            on_disk = read_bytes(path)
            theirs = None if on_disk == conversation.file else self._read_or_quarantine(path)
            if on_disk is None and conversation.file:
                self.notify(f"session {conversation.name}: another program deleted or renamed it; it is saved again")
            if theirs and theirs.on_disk != conversation.on_disk:
                _merge(conversation, theirs)
                self.notify(f"session {conversation.name}: another program changed it too; the changes are merged")
            revision = max(conversation.revision, theirs.revision if theirs else 0) + 1
            file = as_json(conversation, revision).encode("utf-8")
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
                if not (conversation := read_conversation(path)):
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

    def names(self) -> list[str]:
        """The names of all saved sessions, readable or not."""
        return [file.stem for file in self._files()]

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
            source, target = self.existing_path(old), self._path(new)
            if target.exists():
                raise ValueError(f"session {new!r} already exists; choose another name")
            try:
                source.rename(target)
            except OSError as error:
                raise OSError(f"{source}: could not be renamed ({error.strerror}); {CHECK_FOLDER}") from error

    def delete(self, name: str) -> None:
        """Delete a conversation. Raises ValueError if there is none of that name."""
        with locked(self.folder):
            path = self.existing_path(name)
            try:
                path.unlink()
            except OSError as error:
                raise OSError(f"{path}: could not be deleted ({error.strerror}); {CHECK_FOLDER}") from error

    def existing_path(self, name: str) -> Path:
        """The file of a conversation. Raises ValueError listing the existing ones if there is none of that name."""
        path = self._path(name)
        if not path.is_file():
            existing = ", ".join(self.names()) or "none"
            raise ValueError(f"there is no session {name}; the sessions are: {existing}")
        return path

    def _path(self, name: str) -> Path:
        check_name(name)
        shown = repr(name)
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
            return read_conversation(path)
        except DamagedSession as error:
            moved_to = quarantine(path)
            self.notify(f"{error}; renamed to {moved_to.name}, starting with an empty conversation")
            return None


def _merge(ours: Conversation, theirs: Conversation) -> None:
    """Apply to our conversation the changes that the other program made since we last read the file."""
    base_messages, base_summary = ours.on_disk
    ours.messages[:] = merge_messages(base_messages, ours.messages, theirs.messages)
    changed = [summary for summary in (theirs.summary, ours.summary) if summary != base_summary]
    ours.summary = "\n".join(filter(None, dict.fromkeys(changed))) if changed else base_summary
