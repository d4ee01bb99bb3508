"""The undo and redo history of a conversation: /undo and /redo."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from src.common.messages import count


class Message(Protocol):
    """A message of a conversation, in which the user and the assistant alternate: two messages are a turn."""

    @property
    def text(self) -> str: ...


M = TypeVar("M", bound=Message)
Turns = Sequence[M]  # the messages of one or more turns in a row; empty if a change added or removed them

_NOTHING_TO_UNDO = "there is nothing to take back yet"
_NOTHING_TO_REDO = "there is nothing to bring back"


class TurnChanges(Generic[M]):
    """The changes of a list of messages, oldest first. A change replaces a turn, adds turns, or removes all.

    A change is found by its messages, not by its position, because another program may have added turns, and old turns
    may have left the list.
    """

    def __init__(self, messages: list[M]) -> None:
        self.messages = messages
        self._done: list[tuple[Turns[M], Turns[M]]] = []
        self._undone: list[tuple[Turns[M], Turns[M]]] = []

    def add(self, before: Turns[M], after: Turns[M]) -> None:
        """Record that the turn `before` was replaced by `after`. What was taken back can no longer be brought back."""
        self._done.append((tuple(before), tuple(after)))
        self._undone.clear()

    def extend(self, after: Turns[M]) -> None:
        """Record that a turn was added by the same command as the last change. One `undo` takes back both."""
        before, earlier = self._done[-1]
        self._done[-1] = (before, (*earlier, *after))

    def undo(self) -> tuple[Turns[M], Turns[M]]:
        """Take back the last change, or without one, the last turn. Returns (the turns removed, the turns restored).

        Raises ValueError if there is nothing to take back.
        """
        if not self._done and self.messages:
            self._done.append(((), tuple(self.messages[-2:])))
        before, after = _last(self._done, _NOTHING_TO_UNDO)
        self._replace(after, before)
        self._undone.append(self._done.pop())
        return after, before

    def redo(self) -> tuple[Turns[M], Turns[M]]:
        """Bring back what was taken back last. Returns (the turns removed, the turns restored). Raises ValueError."""
        before, after = _last(self._undone, _NOTHING_TO_REDO)
        self._replace(before, after)
        self._done.append(self._undone.pop())
        return before, after

    def _replace(self, old: Turns[M], new: Turns[M]) -> None:
        place = len(self.messages)
        if old:
            n = len(old)
            starts = range(len(self.messages) - n, -1, -1)
            place = next((start for start in starts if tuple(self.messages[start : start + n]) == tuple(old)), -1)
            if place < 0:
                raise ValueError("that turn is no longer in the conversation")
        self.messages[place : place + len(old)] = new


def _last(changes: Sequence[tuple[Turns[M], Turns[M]]], otherwise: str) -> tuple[Turns[M], Turns[M]]:
    if not changes:
        raise ValueError(otherwise)
    return changes[-1]


def undo_reply(removed: Turns[Message], restored: Turns[Message]) -> str:
    """The reply to /undo. removed, restored: what `TurnChanges.undo` returned."""
    if not removed:
        return "The conversation is back."
    if restored:
        return f"The earlier answer to {_named(restored)} is back; /redo brings back the later one."
    return f"Took back {_named(removed)}; /redo brings {'it' if len(removed) == 2 else 'them'} back."


def redo_reply(removed: Turns[Message], restored: Turns[Message]) -> str:
    """The reply to /redo. removed, restored: what `TurnChanges.redo` returned."""
    if not restored:
        return "The conversation is cleared again."
    if removed:
        return f"The later answer to {_named(restored)} is back."
    return f"{_named(restored)} {'is' if len(restored) == 2 else 'are'} back."


def _named(turns: Turns[Message]) -> str:
    """The first question, shortened, and the number of the other turns."""
    line, n_others = " ".join(turns[0].text.split()), len(turns) // 2 - 1
    first = f'"{line}"' if len(line) <= 50 else f'"{line[:47]}..."'
    return f"{first} and {count(n_others, 'more turn')}" if n_others else first
