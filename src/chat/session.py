"""A conversation with a model: the messages that fit its context, and each answer as a stream.

A message is the text of one side; a turn is a user message and its answer. Nothing here uses the terminal or a file, so
any front end can use this module.
"""

from collections.abc import Callable, Generator, Sequence
from itertools import takewhile
from typing import Literal

from src.chat.flags import ChatSettings
from src.chat.messages import (
    EncodedMessage,
    Exchange,
    MessageEncoder,
    Usage,
    cut_off_note,
    dropped_note,
    join_ids,
    stripped,
    token_count,
)
from src.chat.start import LoadedChatModel
from src.common.messages import Notify, OnceNote, without_surrogates
from src.common.turns import TurnChanges, redo_reply, undo_reply
from src.data.prompts import with_input
from src.model.decoding.text_stream import TextStream
from src.model.generate import PrefixCache, TextGenerator

NEXT_TURN = "\n### Instruction:"  # if the model generates this heading, it is impersonating the user
RAW_MODEL_NOTE = (
    "this is a raw language model: it continues your text instead of answering it; "
    "python instruction_tune.py makes a model that answers"
)
RAW_AFTER_SYSTEM = "a raw model takes no system message; /system off removes it"


class ChatSession:
    """One conversation. `settings` can be replaced at any time; the next answer uses the new ones.

    template: the prompt template that the model was tuned with; None for a raw model, which continues text.
    notify: gets one-line messages for the user: that the model is raw, and what was dropped from the context.
    system: the system message, which is never dropped. prefix_cache: a KV cache to share with other sessions; by
    default the session has its own. It saves recomputing the earlier turns. note_cut_off: whether to notify about an
    answer that reached max_tokens; callers that report `finish_reason` need no such note.

    After an answer, `finish_reason` is "stop" (the model ended it), "length" (max_tokens) or "interrupted";
    `prompt_tokens` and `answer_tokens` are its token counts (`answer_tokens` is 0 if the stream was closed or failed).
    `dropped_messages` counts the messages at the start of the conversation that left the context; 0 for a raw model.

    Raises ValueError for an unknown template, and if the context is too small for a chat.
    """

    def __init__(
        self,
        generator: TextGenerator,
        *,
        template: str | None,
        settings: ChatSettings,
        notify: Notify,
        system: str | None = None,
        prefix_cache: PrefixCache | None = None,
        note_cut_off: bool = True,
    ) -> None:
        self.settings, self.notify, self._note_cut_off = settings, notify, note_cut_off
        self.finish_reason: Literal["stop", "length", "interrupted"] | None = None
        self.prompt_tokens = self.answer_tokens = self.dropped_messages = 0
        self._messages: list[EncodedMessage] = []
        self._system: list[EncodedMessage] = []
        self._unanswered = ""  # a message whose answer was stopped or failed before its first word
        self._use(generator, template, system or "", prefix_cache)

    def use_model(self, model: LoadedChatModel) -> None:
        """Continue the conversation with another model. Raises ValueError as the constructor; then nothing changes."""
        if self.system and model.template is None:
            raise ValueError(RAW_AFTER_SYSTEM)
        self._use(model.generator, model.template, self.system, None)

    def _use(self, generator: TextGenerator, template: str | None, system: str, cache: PrefixCache | None) -> None:
        encoder = MessageEncoder(generator.encoding, template)
        system_message = encoder.encode_system(system, generator.model.config.context_length)
        self.generator, self._encoder, self._system = generator, encoder, system_message
        self._prefix_cache, self.is_raw = cache or PrefixCache(), encoder.is_raw
        # Encoded and decoded, because a word tokenizer changes the spacing.
        self._next_turn = generator.encoding.decode(generator.encoding.encode_ordinary(NEXT_TURN))
        texts = ["\n", *(message.text for message in self._messages)]
        self._messages = [
            encoder.encode(message.role, message.text, before)
            for before, message in zip(texts, self._messages, strict=False)
        ]
        self._changes = TurnChanges(self._messages)
        self._generated: tuple[EncodedMessage | None, Exchange] = (None, Exchange())
        if self.is_raw:
            self.dropped_messages = 0
            self.notify(OnceNote(RAW_MODEL_NOTE))

    @property
    def last_exchange(self) -> Exchange:
        """The prompt and the answer of the last turn; empty if the answer is not the latest that this model gave."""
        answer, exchange = self._generated
        return exchange if self._messages and self._messages[-1] is answer else Exchange()

    @property
    def system(self) -> str:
        """The system message; "" if there is none."""
        return self._system[0].text if self._system else ""

    def set_system(self, text: str) -> None:
        """Replace the system message; "" removes it. Raises ValueError if the model is raw, or if it is too long."""
        self._system = self._encoder.encode_system(text, self.generator.model.config.context_length)

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Every message with its answer, also those that the context no longer holds."""
        texts = [message.text for message in self._messages]
        return list(zip(texts[::2], texts[1::2], strict=True))

    @property
    def messages(self) -> tuple[EncodedMessage, ...]:
        """The messages in the context, user and assistant alternating, without the system message."""
        return tuple(self._messages[self.dropped_messages :])

    @property
    def usage(self) -> Usage:
        context = self.generator.model.config.context_length
        answer = min(self.settings.max_tokens, context // 2)  # room for the answer; a longer one shifts the window
        return Usage(token_count(self._system) + token_count(self.messages), context - answer)

    def reset(self) -> str:
        """Clear the conversation, except for the system message. Returns what to tell the user."""
        self._unanswered = ""
        if not self._messages:
            return "The conversation is empty."
        self._changes.add(self._messages, ())
        self._keep_first(0)
        self.finish_reason = None
        return "The conversation is cleared. /undo brings it back."

    def undo(self) -> str:
        """Take back the last turn, or the last /retry. Returns what to tell the user; raises ValueError."""
        if self._unanswered:
            self._unanswered = ""
            return "Took back the unanswered message."
        removed, restored = self._changes.undo()
        self._keep_first(len(self._messages))
        return undo_reply(removed, restored)

    def redo(self) -> str:
        """Bring back what `undo` took back. Returns what to tell the user; raises ValueError."""
        removed, restored = self._changes.redo()
        self._keep_first(len(self._messages))
        return redo_reply(removed, restored)

    def retry(self) -> Generator[str, None, None]:
        """Streams another answer to the last message; it replaces the old one, unless it is stopped before it begins.

        A message whose answer did not begin is answered now. Raises ValueError, immediately, if there is no message.
        """
        if self._unanswered:
            return self._answer(self._unanswered)
        if not self._messages:
            raise ValueError("there is nothing to retry yet; ask something first")
        return self._answer(self._messages[-2].text, replaced=self._messages[-2:])

    def add_turn(self, message: str, answer: str) -> None:
        """Append a user message and a given answer, without running the model."""
        self._messages.append(self._encode_user(message))
        self._messages.append(self._encoder.encode("assistant", without_surrogates(answer)))

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
            excess = len(self._encode_user(message).ids) - room
            if excess <= 0:
                if keep < len(ids):
                    self.notify(
                        f"the input does not fit into {self._prompt_text}: only its first {keep} tokens are used"
                    )
                return message
            keep = min(keep - excess, room)
        raise ValueError(f"the prompt leaves no room for its input: a prompt holds {self.usage.budget} tokens")

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
        self._keep_first(len(self._messages) - len(replaced))
        prompt, message = self._build_prompt(self._encode_user(text))
        self._unanswered = "" if replaced else text
        self.prompt_tokens, self.answer_tokens, self.finish_reason = len(prompt), 0, "interrupted"
        settings = self.settings  # of this answer: they may be replaced while it is generated
        stream = self._stream(prompt, stop)
        pieces = takewhile(lambda _: not should_stop(), stream)
        answer: list[str] = []
        try:
            for piece in pieces if self.is_raw else stripped(pieces):
                answer.append(piece)
                yield piece
            self.finish_reason = stream.finish_reason or "interrupted"
            self.answer_tokens = len(stream.ids)
        finally:
            self._end_turn(message, "".join(answer), replaced, Exchange(tuple(prompt), tuple(stream.ids), settings))
        if self.finish_reason == "length" and self._note_cut_off and not self.is_raw:
            self.notify(cut_off_note(settings.max_tokens))

    def _stream(self, prompt: list[int], stop: Sequence[str]) -> TextStream:
        return self.generator.stream(
            prompt,
            self.settings.max_tokens,
            stop=[*stop, *([] if self.is_raw else [self._next_turn])],
            seed=self.settings.seed,
            prefix_cache=self._prefix_cache,
            **self.settings.sampling_options(),
        )

    def _end_turn(
        self, message: EncodedMessage, answer: str, replaced: Sequence[EncodedMessage], exchange: Exchange
    ) -> None:
        """Add the turn or, if its answer did not begin, the turn that it would have replaced."""
        if not answer and self.finish_reason == "interrupted":
            self._messages += replaced
            return
        turn = [message, self._encoder.encode("assistant", answer)]
        self._messages += turn
        self._generated = (turn[1], exchange)
        self._unanswered = ""
        self._changes.add(replaced, turn)

    def _keep_first(self, count: int) -> None:
        """Delete all messages but the first `count`."""
        del self._messages[count:]
        self.dropped_messages = min(self.dropped_messages, count)

    def _build_prompt(self, message: EncodedMessage) -> tuple[list[int], EncodedMessage]:
        """The prompt ids, and the (possibly truncated) message they contain. Drops old turns that do not fit."""
        budget = self.usage.budget
        if self.is_raw:
            ids = join_ids([*self.messages, message])
            if len(ids) > budget:
                self.notify(OnceNote(f"the text no longer fits into {self._prompt_text}: the model sees only its end"))
            return ids[-budget:], message
        room = budget - token_count(self._system)
        if len(message.ids) > room:
            message = self._encoder.shorten(message.text, room)
            start = repr(message.text[:20])
            self.notify(
                f"the message does not fit into {self._prompt_text}: only its end is used, starting with {start}"
            )
        self._drop_oldest_turns(room - len(message.ids))
        return join_ids([*self._system, *self.messages, message]), message

    def _drop_oldest_turns(self, room: int) -> None:
        """Drop turns, oldest first, until the others fit into `room` tokens. Dropped turns that fit again come back."""
        dropped_before, self.dropped_messages = self.dropped_messages, len(self._messages)
        while self.dropped_messages and token_count(self._messages[self.dropped_messages - 2 :]) <= room:
            self.dropped_messages -= 2
        if self.dropped_messages > dropped_before:
            self.notify(dropped_note(self.generator.model.config.context_length, self.usage.budget))

    @property
    def _prompt_text(self) -> str:
        return f"a prompt of {self.usage.budget} tokens"

    def _encode_user(self, text: str) -> EncodedMessage:
        return self._encoder.encode_user_message(text, self._messages[-1].text if self._messages else "\n")
