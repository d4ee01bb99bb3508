"""A conversation with a model: the messages that fit its context, and each answer as a stream.

A message is the text of one side; a turn is a user message and its answer. Nothing here uses the terminal or a file, so
any front end can use this module.
"""

from collections.abc import Callable, Generator, Sequence
from itertools import takewhile
from typing import Literal

from src.chat.flags import ChatSettings
from src.chat.messages import EncodedMessage, Usage, cut_off_note, join_ids, stripped, token_count
from src.common.messages import without_surrogates
from src.common.turns import TurnChanges, redo_reply, undo_reply
from src.data.prompts import TEMPLATE, Message, Role, render_conversation, with_input
from src.model.generate import PrefixCache, TextGenerator

NEXT_TURN = "\n### Instruction:"  # if the model generates this heading, it is impersonating the user
RAW_MODEL_NOTE = (
    "this is a raw language model: it continues your text instead of answering it; "
    "python instruction_tune.py makes a model that answers"
)


class ChatSession:
    """One conversation. `settings` can be replaced at any time; the next answer uses the new ones.

    template: the prompt template that the model was tuned with; None for a raw model, which continues text.
    notify: gets one-line messages for the user: that the model is raw, and what was dropped from the context.
    system: the system message, which is never dropped. prefix_cache: a KV cache to share with other sessions; by
    default the session has its own. It saves recomputing the earlier turns. note_cut_off: whether `notify` hears of an
    answer that reached max_tokens; callers that report `finish_reason` need no such note.

    After an answer, `finish_reason` is "stop" (the model ended it), "length" (max_tokens) or "interrupted";
    `prompt_tokens` and `answer_tokens` are its token counts (`answer_tokens` is 0 if the stream was closed or failed).
    `dropped_messages` counts the messages that left the context since the session was created; 0 for a raw model.

    Raises ValueError for an unknown template, and if the context is too small for a chat.
    """

    def __init__(
        self,
        generator: TextGenerator,
        *,
        template: str | None,
        settings: ChatSettings,
        notify: Callable[[str], None],
        system: str | None = None,
        prefix_cache: PrefixCache | None = None,
        note_cut_off: bool = True,
    ) -> None:
        if template not in (None, TEMPLATE):
            raise ValueError(
                f"the model was tuned with the prompt template {template!r}, but this chat uses {TEMPLATE!r}; "
                "tune it again with python instruction_tune.py"
            )
        if system and template is None:
            raise ValueError("a raw model takes no system message; python instruction_tune.py makes a model that does")
        self.generator, self.settings, self.notify = generator, settings, notify
        self._note_cut_off = note_cut_off and template is not None
        self._prefix_cache = prefix_cache or PrefixCache()
        # Encoded and decoded, because a word tokenizer changes the spacing.
        self._next_turn = generator.encoding.decode(generator.encoding.encode_ordinary(NEXT_TURN))
        self.is_raw = template is None
        self.finish_reason: Literal["stop", "length", "interrupted"] | None = None
        self.prompt_tokens = self.answer_tokens = self.dropped_messages = 0
        self._messages: list[EncodedMessage] = []
        self._changes = TurnChanges(self._messages)
        self._system = [self._encode("system", without_surrogates(system).strip())] if system else []
        self._check_context_length()
        if self.is_raw:
            notify(RAW_MODEL_NOTE)

    @property
    def messages(self) -> tuple[EncodedMessage, ...]:
        """The messages in the context, user and assistant alternating, without the system message."""
        return tuple(self._messages)

    @property
    def usage(self) -> Usage:
        context = self.generator.model.config.context_length
        answer = min(self.settings.max_tokens, context // 2)  # room for the answer; a longer one shifts the window
        return Usage(token_count(self._system) + token_count(self._messages), context - answer)

    def reset(self) -> str:
        """Clear the conversation, except for the system message. Returns what to tell the user."""
        if not self._messages:
            return "The conversation is empty."
        self._changes.add(self._messages, ())
        self._messages.clear()
        self.finish_reason = None
        return "The conversation is cleared. /undo brings it back."

    def start_new(self, name: str) -> str:
        """As `reset`, because no conversation is saved. Raises ValueError for a name."""
        if name:
            raise ValueError("only sk_chat.py saves conversations under a name; /new without a name starts over")
        return self.reset()

    def undo(self) -> str:
        """Take back the last turn, or the last /retry. Returns what to tell the user; raises ValueError."""
        removed, restored = self._changes.undo()
        return undo_reply(*(turn[0].text if turn else "" for turn in (removed, restored)))

    def redo(self) -> str:
        """Bring back what `undo` took back. Returns what to tell the user; raises ValueError."""
        _, restored = self._changes.redo()
        return redo_reply(restored[0].text if restored else "")

    def retry(self) -> Generator[str, None, None]:
        """Streams another answer to the last message; it replaces the old one, unless it is stopped before it begins.

        Raises ValueError, immediately, if there is no message.
        """
        if not self._messages:
            raise ValueError("there is no message to answer again yet; ask something first")
        return self._answer(self._messages[-2].text, replaced=self._messages[-2:])

    def add_turn(self, message: str, answer: str) -> None:
        """Append a user message and a given answer, without running the model."""
        self._messages.append(self._encode_user_message(message))
        self._messages.append(self._encode("assistant", without_surrogates(answer)))

    def with_input(self, text: str, input: str) -> str:
        """A message that refers to an input, with as much of the input's start as fits the context.

        For a raw model, the input comes first, because the model continues the end. Raises ValueError if nothing fits.
        """
        if self.is_raw:
            return f"{input}\n\n{text}"
        ids = self.generator.encoding.encode_ordinary(without_surrogates(input))
        room, keep = self.usage.budget - token_count(self._system), len(ids)
        while keep > 0:
            message = with_input(text, self.generator.encoding.decode(ids[:keep]).rstrip("\N{REPLACEMENT CHARACTER}"))
            excess = len(self._encode_user_message(message).ids) - room
            if excess <= 0:
                if keep < len(ids):
                    self.notify(f"the input does not fit {self._context_text}: only its first {keep} tokens are used")
                return message
            keep = min(keep - excess, room)
        raise ValueError(f"the prompt leaves no room for its input in {self._context_text}")

    def reply(
        self, text: str, should_stop: Callable[[], bool] = lambda: False, stop: Sequence[str] = ()
    ) -> Generator[str, None, None]:
        """Streams the answer to a message. When the stream ends or is closed, the turn is added to the conversation.

        should_stop: called after every piece; True interrupts the answer. For callers that cannot close the generator
        because another thread runs it. stop: texts that end the answer and are not part of it.

        Raises ValueError for an empty message, when the first piece is requested.
        """
        return self._answer(text, should_stop, stop)

    def _answer(
        self,
        text: str,
        should_stop: Callable[[], bool] = lambda: False,
        stop: Sequence[str] = (),
        replaced: Sequence[EncodedMessage] = (),
    ) -> Generator[str, None, None]:
        """As `reply`. replaced: the last turn of the conversation, which the new turn replaces."""
        del self._messages[len(self._messages) - len(replaced) :]
        prompt, message = self._build_prompt(self._encode_user_message(text))
        self.prompt_tokens, self.answer_tokens = len(prompt), 0
        settings = self.settings
        stream = self.generator.stream(
            prompt,
            settings.max_tokens,
            stop=[*stop, *([] if self.is_raw else [self._next_turn])],
            seed=settings.seed,
            prefix_cache=self._prefix_cache,
            **settings.sampling_options(),
        )
        answer: list[str] = []
        self.finish_reason = "interrupted"
        try:
            pieces = takewhile(lambda _: not should_stop(), stream)
            for piece in pieces if self.is_raw else stripped(pieces):
                answer.append(piece)
                yield piece
            self.finish_reason = stream.finish_reason or "interrupted"
            self.answer_tokens = len(stream.ids)
        finally:
            if answer or self.finish_reason != "interrupted":
                turn = [message, self._encode("assistant", "".join(answer))]
                self._messages += turn
                self._changes.add(replaced, turn)
            else:
                self._messages += replaced
        if self.finish_reason == "length" and self._note_cut_off:
            self.notify(cut_off_note(settings.max_tokens))

    def _build_prompt(self, message: EncodedMessage) -> tuple[list[int], EncodedMessage]:
        """The prompt ids, and the (possibly truncated) message they contain. Drops old turns that do not fit."""
        budget = self.usage.budget
        if self.is_raw:
            ids = join_ids([*self._messages, message])
            if len(ids) > budget:
                self.notify(f"the first {len(ids) - budget} tokens of the text no longer fit {self._context_text}")
            return ids[-budget:], message
        room = budget - token_count(self._system)
        if len(message.ids) > room:
            message = self._truncate(message.text, room)
            start = repr(message.text[:20])
            self.notify(f"the message does not fit {self._context_text}: only its end is used, from {start}")
        self._drop_oldest_turns(room - len(message.ids))
        return join_ids([*self._system, *self._messages, message]), message

    def _drop_oldest_turns(self, room: int) -> None:
        """Drop turns, oldest first, until the others fit into `room` tokens."""
        dropped = 0
        while token_count(self._messages[dropped:]) > room:
            dropped += 2
        if dropped:
            del self._messages[:dropped]
            self.dropped_messages += dropped
            if dropped == 2:
                self.notify(f"the oldest turn no longer fits {self._context_text} and was dropped")
            else:
                self.notify(f"the oldest {dropped // 2} turns no longer fit {self._context_text} and were dropped")

    def _truncate(self, text: str, room: int) -> EncodedMessage:
        """As much of the end of a user message as fits into `room` tokens with its headings."""
        ids = self.generator.encoding.encode_ordinary(text)
        keep = room - len(self._encode("user", "").ids)
        while True:
            end = self.generator.encoding.decode(ids[len(ids) - keep :]).lstrip("\N{REPLACEMENT CHARACTER}")
            message = self._encode("user", end.strip())
            if len(message.ids) <= room:
                return message
            keep -= len(message.ids) - room  # the shortened text can encode to more tokens

    def _check_context_length(self) -> None:
        context = self.generator.model.config.context_length
        smallest_budget = context - context // 2  # the budget if max_tokens is large
        needed = token_count(self._system) + len(self._encode("user", "").ids) + 1  # one token of message
        if needed > smallest_budget:
            raise ValueError(
                f"{self._context_text} is too small: it leaves room for {smallest_budget} tokens of prompt, but "
                f"the system message and the headings of a message take {needed}"
            )

    @property
    def _context_text(self) -> str:
        return f"the context of {self.generator.model.config.context_length} tokens"

    def _encode_user_message(self, text: str) -> EncodedMessage:
        # Training data has no white space around messages. After a trailing space, a raw model could not continue with
        # any of the many tokens that begin with a space.
        text = without_surrogates(text).rstrip(" \t") if self.is_raw else without_surrogates(text).strip()
        if not text.strip():
            raise ValueError("the message is empty")
        return self._encode("user", text)

    def _encode(self, role: Role, text: str) -> EncodedMessage:
        encoding = self.generator.encoding
        if self.is_raw:
            needs_break = role == "user" and self._messages and not self._messages[-1].text.endswith("\n")
            ids = encoding.encode_ordinary(("\n" if needs_break else "") + text)
        else:
            ids, _ = render_conversation([Message(role, text)], encoding)
        return EncodedMessage(role, text, tuple(ids))
