"""Merges the turns that two programs saved in one conversation."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Protocol, TypeVar


class Message(Protocol):
    @property
    def role(self) -> str: ...


M = TypeVar("M", bound=Message)


def merge_messages(base: Sequence[M], ours: Sequence[M], theirs: Sequence[M]) -> list[M]:
    """The messages after the changes that both programs made to `base`. SessionStore.save has the rules."""
    base_turns, our_turns, their_turns = _turns(base), _turns(ours), _turns(theirs)
    unchanged = _unchanged(base_turns, our_turns) & _unchanged(base_turns, their_turns)
    their_new = _added(base_turns, their_turns)
    our_new = [turn for turn in _added(base_turns, our_turns) if turn not in their_new]
    merged = [*(base_turns[i] for i in sorted(unchanged)), *their_new, *our_new]
    return [message for turn in merged for message in turn]


def _turns(messages: Iterable[M]) -> list[tuple[M, ...]]:
    """Messages in turns: a message of the user or the system, and the answers to it."""
    turns: list[list[M]] = []
    for message in messages:
        if message.role != "assistant" or not turns:
            turns.append([])
        turns[-1].append(message)
    return [tuple(turn) for turn in turns]


def _unchanged(base: Sequence[tuple[M, ...]], changed: Sequence[tuple[M, ...]]) -> set[int]:
    """The indices of the turns of `base` that are still in `changed`."""
    blocks = SequenceMatcher(None, base, changed, autojunk=False).get_matching_blocks()
    return {i for block in blocks for i in range(block.a, block.a + block.size)}


def _added(base: Sequence[tuple[M, ...]], changed: Sequence[tuple[M, ...]]) -> list[tuple[M, ...]]:
    """The turns of `changed` that are not in `base`, in order."""
    blocks = SequenceMatcher(None, base, changed, autojunk=False).get_matching_blocks()
    known = {i for block in blocks for i in range(block.b, block.b + block.size)}
    return [turn for i, turn in enumerate(changed) if i not in known]
