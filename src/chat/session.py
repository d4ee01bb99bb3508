"""A conversation with a model: what was said, as much of it as the context holds, and the answer as it comes.

No terminal and no files here, so that every front end can stand on it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from src.common.checks import is_count, is_seed
from src.common.messages import without_surrogates
from src.data.prompts import TEMPLATE, Message, Role, render_conversation
from src.model.decoding.sampling import SamplingSettings, option, with_default
from src.model.generate import PrefixCache, TextGenerator

NEXT_TURN = "\n### Instruction:"  # the template's heading: a model that writes it speaks for the person
RAW_MODEL = (
    "this is a raw language model: it continues your text and does not answer it; "
    "python instruction_tune.py makes a model that answers"
)


@dataclass(frozen=True, kw_only=True)
class ChatSettings(SamplingSettings):
    """How answers are generated. The flags and commands of the chats, and their defaults, follow from the fields.

    Raises ValueError naming every bad value at once.
    """

    temperature: float = with_default("temperature", 0.7)
    top_k: int | None = with_default("top_k", 40)
    top_p: float | None = with_default("top_p", 0.9)
    max_tokens: int = option(
        150,
        "maximum number of tokens in an answer",
        command="/tokens",
        is_valid=is_count,
        expected="a whole number of at least 1",
    )
    seed: int | None = option(
        None,
        "makes answers repeatable (default: a new seed for each answer)",
        command="/seed",
        is_valid=lambda value: value is None or is_seed(value),
        expected="a whole number from 0 to 2**63 - 1, or None for a new one each time",
    )


@dataclass(frozen=True)
class ChatTurn:
    """What one side said, with its ids as the model reads them."""

    role: Role
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Usage:
    """Tokens of the conversation so far, and how many the next prompt may have, the next message among them."""

    used: int
    budget: int

    @property
    def left(self) -> int:
        return max(0, self.budget - self.used)


class ChatSession:
    """One conversation. `settings` may be replaced at any time; the next answer follows them.

    template: the prompt template that the model was tuned with; None for a raw model, whose text is continued.
    notify: is told, in one line, what a person should know: what kind of model it is if it does not answer, and
    whatever is left out of the context. system: a message before all others, kept for good. kept: what the model has
    read already, for sessions that follow each other; within one session a turn costs only its own tokens anyway.

    After an answer, `finish_reason` is "stop" (the model ended it), "length" (max_tokens) or "interrupted", and
    `prompt_tokens` and `answer_tokens` are what was read and written for it. `left_out` counts the turns that no longer
    fitted, since the beginning.

    Raises ValueError for a template that this chat does not speak, and for a context too small to talk in.
    """

    def __init__(
        self,
        generator: TextGenerator,
        *,
        template: str | None,
        settings: ChatSettings,
        notify: Callable[[str], None],
        system: str | None = None,
        kept: PrefixCache | None = None,
    ) -> None:
        if template not in (None, TEMPLATE):
            raise ValueError(
                f"the model was tuned with the prompt template {template!r}, this chat speaks {TEMPLATE!r}; "
                "tune it again with python instruction_tune.py"
            )
        if system and template is None:
            raise ValueError("a raw model takes no system message; python instruction_tune.py makes a model that does")
        self.generator, self.settings, self.notify = generator, settings, notify
        self._kept = kept or PrefixCache()
        # As the tokenizer gives it back: one of words has spacing of its own.
        self._next_turn = generator.encoding.decode(generator.encoding.encode_ordinary(NEXT_TURN))
        self.is_raw = template is None
        self.finish_reason: Literal["stop", "length", "interrupted"] | None = None
        self.prompt_tokens = self.answer_tokens = self.left_out = 0
        self._turns: list[ChatTurn] = []
        self._system = [self._turn("system", without_surrogates(system).strip())] if system else []
        self._check_room()
        if self.is_raw:
            notify(RAW_MODEL)

    @property
    def turns(self) -> tuple[ChatTurn, ...]:
        """What was said and still counts: user and assistant by turns, without the system message."""
        return tuple(self._turns)

    @property
    def usage(self) -> Usage:
        context = self.generator.model.config.context_length
        answer = min(self.settings.max_tokens, context // 2)  # longer answers move the window as they are written
        return Usage(_length(self._system) + _length(self._turns), context - answer)

    def reset(self) -> None:
        """Forget what was said; a system message stays."""
        self._turns.clear()
        self.finish_reason = None

    def remember(self, asked: str, answered: str) -> None:
        """Append a message and its answer, said elsewhere, as if they had been said here."""
        self._turns.append(self._user_turn(asked))
        self._turns.append(self._turn("assistant", without_surrogates(answered)))

    def reply(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Generator[str, None, None]:
        """The answer in pieces, as they come. Both turns are kept at its end, or when it is closed, with what was said.

        should_stop: asked after every token; True interrupts the answer, for whoever cannot close it from its thread.

        Raises ValueError, at the first piece, for an empty message.
        """
        prompt, asked = self._prompt(self._user_turn(text))
        self.prompt_tokens = len(prompt)
        settings = self.settings
        stream = self.generator.stream(
            prompt,
            settings.max_tokens,
            stop=None if self.is_raw else self._next_turn,
            seed=settings.seed,
            prefix_cache=self._kept,
            **settings.sampling_options(),
        )
        said: list[str] = []
        self.finish_reason = "interrupted"
        try:
            pieces = takewhile(lambda _: not should_stop(), stream)
            for piece in pieces if self.is_raw else _stripped(pieces):
                said.append(piece)
                yield piece
            self.finish_reason = stream.finish_reason or "interrupted"
            self.answer_tokens = len(stream.ids)
        finally:
            if said or self.finish_reason != "interrupted":
                self._turns += [asked, self._turn("assistant", "".join(said))]
        if self.finish_reason == "length" and not self.is_raw:
            self.notify(f"the answer was cut at {settings.max_tokens} tokens")

    def _prompt(self, asked: ChatTurn) -> tuple[list[int], ChatTurn]:
        """The ids to go on from, and the message as far as it is among them."""
        budget = self.usage.budget
        if self.is_raw:
            ids = _ids([*self._turns, asked])
            if len(ids) > budget:
                self.notify(f"the first {len(ids) - budget} tokens of the text no longer fit {self._context}")
            return ids[-budget:], asked
        room = budget - _length(self._system)
        if len(asked.ids) > room:
            asked = self._cut(asked.text, room)
            self.notify(f"the message does not fit {self._context}: only its end is read, from {asked.text[:20]!r}")
        self._drop_oldest(room - len(asked.ids))
        return _ids([*self._system, *self._turns, asked]), asked

    def _drop_oldest(self, room: int) -> None:
        """Leave out whole messages with their answers, the oldest first, until the others fit into `room` tokens."""
        dropped = 0
        while _length(self._turns[dropped:]) > room:
            dropped += 2
        if dropped:
            del self._turns[:dropped]
            self.left_out += dropped
            which = "turn no longer fits" if dropped == 2 else f"{dropped // 2} turns no longer fit"
            self.notify(f"the oldest {which} {self._context} and {'is' if dropped == 2 else 'are'} left out")

    def _cut(self, text: str, room: int) -> ChatTurn:
        """The end of a message, as much of it as `room` tokens hold beside the headings."""
        ids = self.generator.encoding.encode_ordinary(text)
        keep = room - len(self._turn("user", "").ids)
        while True:
            end = self.generator.encoding.decode(ids[len(ids) - keep :]).lstrip("\N{REPLACEMENT CHARACTER}")
            turn = self._turn("user", end.strip())
            if len(turn.ids) <= room:
                return turn
            keep -= len(turn.ids) - room  # cut elsewhere, the same text may take more tokens

    def _check_room(self) -> None:
        context = self.generator.model.config.context_length
        least = _length(self._system) + len(self._turn("user", "").ids) + 1
        if least > context - context // 2:
            raise ValueError(
                f"{self._context} is too small: beside an answer it has room for {context - context // 2} tokens, "
                f"the system message and the headings of a message take {least}"
            )

    @property
    def _context(self) -> str:
        return f"the context of {self.generator.model.config.context_length} tokens"

    def _user_turn(self, text: str) -> ChatTurn:
        # The white space around a message is not in the training data either; the space after a raw prompt would keep
        # the model from the words that begin with one.
        text = without_surrogates(text).rstrip(" \t") if self.is_raw else without_surrogates(text).strip()
        if not text.strip():
            raise ValueError("the message is empty")
        return self._turn("user", text)

    def _turn(self, role: Role, text: str) -> ChatTurn:
        encoding = self.generator.encoding
        if self.is_raw:
            line_break = "\n" if role == "user" and self._turns and not self._turns[-1].text.endswith("\n") else ""
            ids = encoding.encode_ordinary(line_break + text)
        else:
            ids, _ = render_conversation([Message(role, text)], encoding)
        return ChatTurn(role, text, tuple(ids))


def sample_answers(generator: TextGenerator, prompts: Sequence[Sequence[Message]], max_tokens: int) -> str:
    """What a model answers to each conversation at temperature 0, below the question: shown while it is trained."""
    lines = []
    for messages in prompts:
        ids, _ = render_conversation(messages, generator.encoding)
        question = messages[-1].text.splitlines()[0][:100]
        lines.append(f"{question}\n  -> {generator.generate(ids, max_tokens, temperature=0)}")
    return "\n".join(lines)


def _stripped(pieces: Iterable[str]) -> Iterator[str]:
    """The same text without white space at its ends; inside, it comes with the word after it."""
    held, started = "", False
    for piece in pieces:
        held += piece
        text = held.rstrip() if started else held.strip()
        if text:
            yield text
            started = True
            held = held[len(held.rstrip()) :]


def _ids(turns: Iterable[ChatTurn]) -> list[int]:
    return [i for turn in turns for i in turn.ids]


def _length(turns: Iterable[ChatTurn]) -> int:
    return sum(len(turn.ids) for turn in turns)
