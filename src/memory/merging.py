"""Merges the turns that two programs saved in one conversation."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from src.memory.conversation import StoredMessage

Turn = tuple[StoredMessage, ...]  # a message of the user or the system, and the answers to it


def merge_messages(
    base: Sequence[StoredMessage], ours: Sequence[StoredMessage], theirs: Sequence[StoredMessage]
) -> list[StoredMessage]:
    """The messages after the changes that both programs made to `base`. SessionStore.save has the rules."""
    base_turns, our_turns, their_turns = _turns(base), _turns(ours), _turns(theirs)
    our_same, their_same = _same_turns(base_turns, our_turns), _same_turns(base_turns, their_turns)
    unchanged = [turn for i, turn in enumerate(base_turns) if i in our_same and i in their_same]
    their_new = _without(their_same.values(), their_turns)
    our_new = [turn for turn in _without(our_same.values(), our_turns) if turn not in their_new]
    return [message for turn in (*unchanged, *their_new, *our_new) for message in turn]


def _turns(messages: Iterable[StoredMessage]) -> list[Turn]:
    turns: list[list[StoredMessage]] = []
    for message in messages:
        if message.role != "assistant" or not turns:
            turns.append([])
        turns[-1].append(message)
    return [tuple(turn) for turn in turns]


def _same_turns(base: Sequence[Turn], changed: Sequence[Turn]) -> dict[int, int]:
    """The turns of `base` that are still in `changed`: from the index in `base` to the index in `changed`."""
    blocks = SequenceMatcher(None, base, changed, autojunk=False).get_matching_blocks()
    return {block.a + n: block.b + n for block in blocks for n in range(block.size)}


def _without(indices: Iterable[int], turns: Sequence[Turn]) -> list[Turn]:
    left_out = set(indices)
    return [turn for i, turn in enumerate(turns) if i not in left_out]
