"""What stays on disk of a deleted fact: the conversations in which it was said, and copies of damaged files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from src.memory.sessions import SessionStore


def contains_any(text: str, facts: Iterable[str]) -> bool:
    """Whether a text contains one of the facts, up to case, spacing and the full stop."""
    plain = _plain(text)
    return any(_plain(fact) in plain for fact in facts)


def sessions_with(store: SessionStore, facts: Sequence[str]) -> list[str]:
    """The names of the readable sessions whose messages or summary contain one of the facts."""
    names = []
    for info in store.list_sessions():
        conversation = store.load(info.name)
        texts = [conversation.summary, *(message.text for message in conversation.messages)]
        if any(contains_any(text, facts) for text in texts):
            names.append(info.name)
    return names


def damaged_files(folder: Path) -> list[str]:
    """The names of damaged files that were moved aside: they may contain anything."""
    return sorted(file.name for file in folder.glob("*.damaged-*"))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
