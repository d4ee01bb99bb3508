"""The encoded messages of a conversation, and white space around a streamed answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from src.data.prompts import Role


@dataclass(frozen=True)
class EncodedMessage:
    """A message with its token ids, including the headings of the template."""

    role: Role
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Usage:
    """Tokens used by the conversation so far, and the token budget of the next prompt, new message included."""

    used: int
    budget: int

    @property
    def left(self) -> int:
        return max(0, self.budget - self.used)


def cut_off_note(max_tokens: int) -> str:
    """What the user is told about an answer that reached max_tokens."""
    return f"the answer was cut off after {max_tokens} tokens; /tokens sets a higher limit"


def stripped(pieces: Iterable[str]) -> Iterator[str]:
    """Strips a streamed text: white space is held back until a word follows it."""
    held, started = "", False
    for piece in pieces:
        held += piece
        text = held.rstrip() if started else held.strip()
        if text:
            yield text
            started = True
            held = held[len(held.rstrip()) :]


def join_ids(messages: Iterable[EncodedMessage]) -> list[int]:
    return [id for message in messages for id in message.ids]


def token_count(messages: Iterable[EncodedMessage]) -> int:
    return sum(len(message.ids) for message in messages)
