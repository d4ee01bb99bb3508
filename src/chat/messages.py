"""The messages of a conversation as token ids, and white space around a streamed answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from src.chat.flags import ChatSettings
from src.common.messages import OnceNote, count, without_surrogates
from src.data.prompts import Message, Role, check_template, render_conversation
from src.tokenizer.protocols.interfaces import Encoding

_SHORT_ANSWER = 32  # tokens; fewer are seldom enough for an answer


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


@dataclass(frozen=True)
class Exchange:
    """The token ids of a prompt and of the answer to it, and the settings; empty before the first answer."""

    prompt: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    settings: ChatSettings | None = None


@dataclass(frozen=True)
class MessageEncoder:
    """Encodes messages as the model was trained on them. Raises ValueError for an unknown template.

    template: the prompt template that the model was tuned with; None for a raw model, which continues text.
    """

    encoding: Encoding
    template: str | None

    def __post_init__(self) -> None:
        if self.template is not None:
            check_template(self.template)

    @property
    def is_raw(self) -> bool:
        return self.template is None

    def encode(self, role: Role, text: str, before: str = "\n") -> EncodedMessage:
        """A message. before: the text of the message before it; a raw model needs a line break between them."""
        if self.template is None:
            needs_break = role == "user" and not before.endswith("\n")
            ids = self.encoding.encode_ordinary(("\n" if needs_break else "") + text)
        else:
            ids, _ = render_conversation([Message(role, text)], self.encoding, self.template)
        return EncodedMessage(role, text, tuple(ids))

    def encode_user_message(self, text: str, before: str = "\n") -> EncodedMessage:
        """A message of the user, without white space around it. Raises ValueError if it is empty."""
        # Training data has no white space around messages. After a trailing space, a raw model could not continue with
        # any of the many tokens that begin with a space.
        text = without_surrogates(text).rstrip(" \t") if self.is_raw else without_surrogates(text).strip()
        if not text.strip():
            raise ValueError("the message is empty")
        return self.encode("user", text, before)

    def encode_system(self, text: str, context_length: int) -> list[EncodedMessage]:
        """The system message; [] if it is empty. Raises ValueError if the model takes none, or if it leaves no room."""
        text = without_surrogates(text).strip()
        if text and self.is_raw:
            raise ValueError("a raw model takes no system message; python instruction_tune.py makes a model that does")
        system = [self.encode("system", text)] if text else []
        smallest_budget = context_length - context_length // 2  # the budget if max_tokens is large
        needed = token_count(system) + len(self.encode("user", "").ids) + 1  # one token of message
        if needed > smallest_budget and system:
            raise ValueError(
                f"the system message is too long: it takes {needed} tokens with the headings of a message, and the "
                f"limit is {smallest_budget}, half of the context"
            )
        if needed > smallest_budget:
            raise ValueError(
                f"the context of {context_length} tokens is too small: it leaves room for {smallest_budget} tokens of "
                f"prompt, but the headings of a message take {needed}"
            )
        return system

    def shorten(self, text: str, room: int) -> EncodedMessage:
        """As much of the end of a user message as fits into `room` tokens with its headings."""
        ids = self.encoding.encode_ordinary(text)
        keep = room - len(self.encode("user", "").ids)
        while True:
            end = self.encoding.decode(ids[len(ids) - keep :]).lstrip("\N{REPLACEMENT CHARACTER}")
            message = self.encode("user", end.strip())
            if len(message.ids) <= room:
                return message
            keep -= len(message.ids) - room  # the shortened text can encode to more tokens


def cut_off_note(max_tokens: int) -> str:
    """What the user is told about an answer that reached max_tokens."""
    return f"the answer was cut off at {count(max_tokens, 'token')}; a larger max-tokens allows longer ones"


def dropped_note(context_length: int, budget: int) -> str:
    """What the user is told when the oldest turns no longer fit a prompt."""
    reserved = context_length - budget
    advice = f"; /max-tokens {reserved // 2} leaves more room" if reserved >= 2 * _SHORT_ANSWER else ""
    return OnceNote(
        f"the model now sees only the latest turns: {reserved} of its {context_length} tokens are reserved for the "
        f"answer{advice}"
    )


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
