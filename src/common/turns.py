"""The undo and redo history of a conversation: /undo and /redo."""

from collections.abc import Sequence
from typing import Generic, TypeVar

M = TypeVar("M")
Turn = Sequence[M]  # the messages of one turn or of all; empty if a change added or removed the turn

_NOTHING_TO_UNDO = "there is nothing to take back yet"
_NOTHING_TO_REDO = "there is nothing to bring back"


class TurnChanges(Generic[M]):
    """The changes of a list of messages, oldest first. A change replaces a turn, adds one, or removes all.

    A change is found by its messages, not by its position, because another program may have added turns, and old turns
    may have left the list.
    """

    def __init__(self, messages: list[M]) -> None:
        self.messages = messages
        self._done: list[tuple[Turn[M], Turn[M]]] = []
        self._undone: list[tuple[Turn[M], Turn[M]]] = []

    def add(self, before: Turn[M], after: Turn[M]) -> None:
        """Record that the turn `before` was replaced by `after`. What was taken back can no longer be brought back."""
        self._done.append((tuple(before), tuple(after)))
        self._undone.clear()

    def undo(self) -> tuple[Turn[M], Turn[M]]:
        """Take back the last change, or without one, the last turn. Returns (the turn removed, the turn restored).

        Raises ValueError if there is nothing to take back.
        """
        if not self._done and self.messages:
            self._done.append(((), tuple(self.messages[-2:])))
        before, after = _last(self._done, _NOTHING_TO_UNDO)
        self._replace(after, before)
        self._undone.append(self._done.pop())
        return after, before

    def redo(self) -> tuple[Turn[M], Turn[M]]:
        """Bring back what was taken back last. Returns (the turn removed, the turn restored). Raises ValueError."""
        before, after = _last(self._undone, _NOTHING_TO_REDO)
        self._replace(before, after)
        self._done.append(self._undone.pop())
        return before, after

    def _replace(self, old: Turn[M], new: Turn[M]) -> None:
        place = len(self.messages)
        if old:
            n = len(old)
            starts = range(len(self.messages) - n, -1, -1)
            place = next((start for start in starts if tuple(self.messages[start : start + n]) == tuple(old)), -1)
            if place < 0:
                raise ValueError("that turn is no longer in the conversation")
        self.messages[place : place + len(old)] = new


def _last(changes: Sequence[tuple[Turn[M], Turn[M]]], otherwise: str) -> tuple[Turn[M], Turn[M]]:
    if not changes:
        raise ValueError(otherwise)
    return changes[-1]


def undo_reply(removed: str, restored: str) -> str:
    """The reply to /undo. removed, restored: the messages of the user in the two turns; "" for no turn."""
    if not removed:
        return "The conversation is back."
    if restored:
        return f"The earlier answer to {_short(restored)} is back; /redo brings back the later one."
    return f"Took back {_short(removed)}; /redo brings it back."


def redo_reply(removed: str, restored: str) -> str:
    """The reply to /redo. removed, restored: as for undo_reply."""
    if not restored:
        return "The conversation is cleared again."
    return f"The later answer to {_short(restored)} is back." if removed else f"{_short(restored)} is back."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= 50 else f'"{line[:47]}..."'
