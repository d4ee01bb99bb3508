"""The assistant: a Semantic Kernel with our model, a saved conversation and long-term memory."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import cast

from semantic_kernel import Kernel
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, StreamingChatMessageContent
from semantic_kernel.exceptions import KernelException
from semantic_kernel.functions import KernelArguments

from src.chat.session import ChatSettings, Usage, cut_off_note
from src.common.messages import without_surrogates
from src.sk_integration.loop_thread import LoopThread
from src.sk_integration.memory_manager import Conversation, LongTermMemory, SessionStore, StoredMessage
from src.sk_integration.plugins import register_plugins
from src.sk_integration.service import GPT2ChatCompletion
from src.sk_integration.settings import GPT2ChatSettings

REFINE_INSTRUCTION = "Improve this answer."
FACTS_HEADING = "Known facts: "
_MAX_FACTS_SHARE = 0.25  # of the token budget of a prompt
_SUMMARY_WORDS, _SUMMARY_QUESTIONS = 8, 20


class Assistant:
    """One conversation at a time, and a long-term memory that all conversations share. Close it after use.

    `settings` can be replaced at any time; the next answer uses the new ones. save: whether the conversation is loaded
    from the store, and saved there after every answer. notify: gets one-line messages for the user: facts remembered or
    recalled, turns dropped from the context, disk errors.

    Answers are generators. However an answer ends, its text so far stays in the conversation. If the model fails, the
    generator raises ValueError, RuntimeError or MemoryError, and the next message can be answered.

    Raises ValueError for an invalid session name, and OSError if the session cannot be read.
    """

    def __init__(
        self,
        service: GPT2ChatCompletion,
        *,
        store: SessionStore,
        memory: LongTermMemory,
        session: str,
        settings: ChatSettings,
        notify: Callable[[str], None],
        save: bool = True,
    ) -> None:
        self.service, self.store, self.memory, self.settings, self.notify = service, store, memory, settings, notify
        self.kernel = Kernel(services=service)
        register_plugins(self.kernel, memory)
        self.finish_reason = "interrupted"
        self._autosave = save
        self._open(store.load(session) if save else Conversation(session))
        self._loop = LoopThread()

    def close(self) -> None:
        self._loop.close()
        self.memory.close()

    def reply(self, text: str, input: str = "") -> Generator[str, None, None]:
        """Streams the answer to a message. Recalled facts go in front of the conversation, for this prompt only.

        input: a text that the message refers to. It is no source of facts about the user.
        """
        if not text.strip():
            raise ValueError("the message is empty")
        text = without_surrogates(text)
        facts = self._recall(text)  # first, or the message would recall itself
        if remembered := self._invoke("memory", "remember", text=text, session=self.conversation.name):
            self.notify(f"remembered {remembered}")
        history = self._history(facts)
        if input:
            text = self.service.with_input(history, text, input, self.settings)
        history.add_user_message(text)
        yield from self._record(text, self._stream("chat", "reply", history=history))

    def refine(self, instruction: str = REFINE_INSTRUCTION) -> Generator[str, None, None]:
        """Streams an improved version of the last answer, which then replaces it.

        An empty or interrupted version changes nothing. Raises ValueError, immediately, if there is no answer.
        """
        if not self.conversation.messages:
            raise ValueError("there is no answer to refine yet; ask something first")
        *_, question, answer = self.conversation.messages

        def replace(text: str) -> None:
            if text and self.finish_reason != "interrupted":
                self.conversation.messages[-1] = StoredMessage("assistant", text, self.finish_reason)
                self._save()
            else:
                self.notify("the answer is unchanged")

        pieces = self._stream("prompts", "refine", instruction=instruction, draft=answer.text, question=question.text)
        return _and_then(pieces, replace)

    def multi(self, task: str, steps: Sequence[str]) -> Iterator[tuple[str, Generator[str, None, None]]]:
        """Yields a label and the streamed answer for each step.

        A step's prompt contains the task, the previous answer and the step, but not the rest of the conversation.

        Every answered step becomes a turn of the conversation. Raises ValueError if the previous step has no answer:
        its stream was not consumed, or the model failed before its first word.
        """
        previous_answer, last_before_step = "", None
        for n, step in enumerate(steps, start=1):
            if n > 1:
                if self._last_message is None or self._last_message is last_before_step:
                    raise ValueError(f"step {n} needs the answer to step {n - 1}, which was not generated")
                previous_answer = self._last_message.text
            last_before_step = self._last_message
            function = "step" if previous_answer else "first_step"
            pieces = self._stream("prompts", function, task=task, step=step, previous=previous_answer)
            yield f"Step {n} of {len(steps)}: {step}\n", self._record(step, pieces)

    def reset(self) -> None:
        """Clear the conversation, on disk as well. Long-term memory stays."""
        self.conversation.messages.clear()
        self.conversation.summary, self.dropped_messages = "", 0
        self._save()

    def switch_to(self, name: str) -> None:
        """Open another session, empty if the name is new, and save it from now on. Raises as the store does."""
        self._autosave = True
        self._open(self.store.load(name))

    def save_copy(self, name: str) -> None:
        """Save a copy of the conversation. Raises ValueError if the name is taken, and as the store does."""
        if any(info.name == name for info in self.store.list_sessions()):
            raise ValueError(f"session {name!r} already exists; /load {name} opens it, or choose another name")
        conversation = self.conversation
        self.store.save(Conversation(name, list(conversation.messages), conversation.summary))

    @property
    def usage(self) -> Usage:
        """Tokens of the conversation in the context, and the token budget of the next prompt."""
        return self.service.usage(self._history(), self.settings)

    def _open(self, conversation: Conversation) -> None:
        self.conversation, self.dropped_messages = conversation, 0

    @property
    def _last_message(self) -> StoredMessage | None:
        return self.conversation.messages[-1] if self.conversation.messages else None

    def _indices_in_context(self) -> list[int]:
        """Indices of the conversation's messages that still fit, without turns whose answer is empty."""
        indices: list[int] = []
        for i in range(self.dropped_messages, len(self.conversation.messages)):
            if self.conversation.messages[i].text.strip():
                indices.append(i)
            elif indices:
                indices.pop()
        return indices

    def _history(self, facts: Sequence[str] = ()) -> ChatHistory:
        """The messages in context, after a system message with the facts."""
        history = ChatHistory(system_message=FACTS_HEADING + " ".join(facts)) if facts else ChatHistory()
        for i in self._indices_in_context():
            message = self.conversation.messages[i]
            history.add_message(ChatMessageContent(role=AuthorRole(message.role), content=message.text))
        return history

    def _recall(self, text: str) -> list[str]:
        """Facts relevant to a message, without those that the context already contains."""
        if self.service.is_raw:  # it would continue the facts too
            return []
        in_context = [" ".join(message.text.split()) for message in self.conversation.messages[self.dropped_messages :]]
        recalled = self._invoke("memory", "recall", query=text).splitlines()
        facts = [fact for fact in recalled if not any(fact in message for message in in_context)]
        max_tokens = int(self.usage.budget * _MAX_FACTS_SHARE)
        while facts and self.service.token_count(FACTS_HEADING + " ".join(facts)) > max_tokens:
            facts.pop()
        if facts:
            self.notify(f"recalled: {' '.join(facts)}")
        return facts

    def _record(self, question: str, pieces: Generator[str, None, None]) -> Generator[str, None, None]:
        """Yields the pieces. When they end or the generator is closed, the turn is added to the conversation."""

        def add_turn(answer: str) -> None:
            if answer or self.finish_reason != "interrupted":
                self.conversation.messages += [
                    StoredMessage("user", question),
                    StoredMessage("assistant", answer, self.finish_reason),
                ]
                self.conversation.summary = summarise(self.conversation.messages[: self.dropped_messages])
                self._save()

        return _and_then(pieces, add_turn)

    def _stream(self, plugin: str, function: str, **arguments: object) -> Generator[str, None, None]:
        """Streams the answer of a kernel function. Keeps track of the finish reason and of dropped messages.

        A note says if the answer reached max_tokens: to other programs, the service reports the finish reason only.
        """
        self.finish_reason, in_context = "interrupted", self._indices_in_context()
        settings = GPT2ChatSettings.of(self.settings, self.service.service_id)
        parts = self.kernel.invoke_stream(
            plugin_name=plugin, function_name=function, arguments=KernelArguments(settings=settings, **arguments)
        )
        try:
            with closing(self._loop.stream(parts)) as stream:
                for part in stream:  # prompt functions yield lists of one chunk
                    chunk = cast(StreamingChatMessageContent, part[0] if isinstance(part, list) else part)
                    # `dropped` counts messages of the history; in_context has their indices in the conversation.
                    if dropped := chunk.metadata["dropped_messages"]:
                        self.dropped_messages = in_context[dropped - 1] + 1
                    if chunk.finish_reason:
                        self.finish_reason = chunk.finish_reason.value
                    if chunk.content:
                        yield chunk.content
        except Exception as error:
            raise _root_cause(error) from error
        if self.finish_reason == "length" and not self.service.is_raw:
            self.notify(cut_off_note(self.settings))

    def _invoke(self, plugin: str, function: str, **arguments: object) -> str:
        """The result of a kernel function. If it fails, the user is notified and the result is ""."""
        kernel_arguments = KernelArguments(None, **arguments)
        call = self.kernel.invoke(plugin_name=plugin, function_name=function, arguments=kernel_arguments)
        try:
            return str(self._loop.run(call))
        except Exception as error:
            self.notify(f"{plugin} could not {function}: {_root_cause(error)}")
            return ""

    def _save(self) -> None:
        """Save the conversation. After a disk error, the user gets a note and the next answer retries."""
        if not self._autosave:
            return
        before = list(self.conversation.messages)
        try:
            self.store.save(self.conversation)
        except (OSError, ValueError) as error:
            self.notify(f"could not save the conversation: {error}")
        if self.conversation.messages != before:  # merged with another program's turns: recount what fits
            self.dropped_messages = 0


def _and_then(pieces: Generator[str, None, None], finish: Callable[[str], None]) -> Generator[str, None, None]:
    """Yields the pieces. When they end or the generator is closed, `finish` is called with the text so far."""
    text: list[str] = []
    try:
        for piece in pieces:
            text.append(piece)
            yield piece
    finally:
        pieces.close()
        finish("".join(text))


def summarise(messages: Sequence[StoredMessage]) -> str:
    """The first words of each question, or of the last ones if there are many.

    A summary of quotes, because a model of a few million parameters cannot write a summary.
    """
    questions = [message.text for message in messages if message.role == "user"]
    starts = [
        " ".join(words[:_SUMMARY_WORDS]) + ("..." if len(words) > _SUMMARY_WORDS else "")
        for words in map(str.split, questions[-_SUMMARY_QUESTIONS:])
    ]
    earlier = len(questions) - len(starts)
    return "; ".join(starts) + (f" (and {earlier} earlier)" if earlier else "")


def _root_cause(error: BaseException) -> Exception:
    """The error that Semantic Kernel has wrapped, as a type that the chat loop reports."""
    while error.__cause__ is not None:
        error = error.__cause__
    for error_type in (ValueError, MemoryError):
        if isinstance(error, error_type):
            return error_type(str(error))
    is_clear = isinstance(error, RuntimeError | OSError | KernelException)
    return RuntimeError(str(error) if is_clear else f"{type(error).__name__}: {error}")
