"""The assistant: a kernel with our model in it, a conversation that is kept on disk, and what was told long ago."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, cast

from semantic_kernel import Kernel
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, StreamingChatMessageContent
from semantic_kernel.exceptions import KernelException
from semantic_kernel.functions import KernelArguments

from src.chat.session import ChatSettings, Usage
from src.sk_integration.loop_thread import LoopThread
from src.sk_integration.memory_manager import Conversation, LongTermMemory, SessionStore, StoredMessage
from src.sk_integration.plugins import register_plugins
from src.sk_integration.service import GPT2ChatCompletion, GPT2ChatSettings

IMPROVE = "Improve this answer."
KNOWN_FACTS = "Known facts: "
_FACTS_SHARE = 4  # recalled facts take at most one part in so many of the tokens that a prompt may have
_ABOUT_WORDS, _ABOUT_QUESTIONS = 8, 20


class Assistant:
    """One conversation at a time, with a memory that all of them share. To be closed.

    `settings` may be replaced at any time; the next answer follows them. keep: whether the conversation is read from
    the store and saved there after every answer. notify: is told, in one line, what a person should know: what was
    left out, recalled, kept, and where the disk failed.

    Answers are generators. Whatever ends one, what was said stays in the conversation; a failure is raised as
    ValueError, RuntimeError or MemoryError, and the next message is answered as if nothing had been.

    Raises what reading the session raises: ValueError for a name that cannot be one, OSError.
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
        keep: bool = True,
    ) -> None:
        self.service, self.store, self.memory, self.settings, self.notify = service, store, memory, settings, notify
        self.kernel = Kernel(services=service)
        register_plugins(self.kernel, memory)
        self.finish_reason = "interrupted"
        self._keep = keep
        self._use(store.load(session) if keep else Conversation(session))
        self._loop = LoopThread()

    def close(self) -> None:
        self._loop.close()
        self.memory.close()

    def reply(self, text: str) -> Generator[str, None, None]:
        """The answer in pieces. What is known about the message goes in front of the conversation, for this once."""
        if not text.strip():
            raise ValueError("the message is empty")
        text = StoredMessage("user", text).text
        facts = self._recalled(text)
        if told := self._call("memory", "remember", text=text, session=self.conversation.name):
            self.notify(f"remembered {told}")
        history = self._history(facts)
        history.add_user_message(text)
        yield from self._exchange(text, self._answer("chat", "reply", history=history))

    def refine(self, instruction: str = IMPROVE) -> Generator[str, None, None]:
        """The last answer once more, changed as the instruction says, in place of the old one. An interrupted or empty
        one changes nothing. Raises ValueError, at once, where there is none."""
        if not self.conversation.messages:
            raise ValueError("there is no answer to refine yet; ask something first")
        *_, asked, old = self.conversation.messages

        def replace(text: str) -> None:
            if text and self.finish_reason != "interrupted":
                self.conversation.messages[-1] = StoredMessage("assistant", text, self.finish_reason)
                self._save()
            else:
                self.notify("the answer stays as it was")

        pieces = self._answer("prompts", "refine", instruction=instruction, draft=old.text, question=asked.text)
        return _collected(pieces, replace)

    def multi(self, task: str, steps: Sequence[str]) -> Iterator[tuple[str, Generator[str, None, None]]]:
        """For each step a heading and the answer, which sees the task and the answer before it, and nothing else.

        Every step becomes a turn of the conversation as soon as it is answered. Raises ValueError where the step before
        became none: its answer was not read, or the model failed at its first word.
        """
        previous, before = "", None
        for n, step in enumerate(steps, start=1):
            if n > 1:
                if self._last is None or self._last is before:
                    raise ValueError(f"step {n - 1} was not answered, and step {n} goes on from that; read it first")
                previous = self._last.text
            before = self._last
            function = "step" if previous else "first_step"
            pieces = self._answer("prompts", function, task=task, step=step, previous=previous)
            yield f"Step {n} of {len(steps)}: {step}\n", self._exchange(step, pieces)

    def reset(self) -> None:
        """Forget what was said here, on the disk as well; long-term memory stays."""
        self.conversation.messages.clear()
        self.conversation.summary, self.left_out = "", 0
        self._save()

    def switch(self, name: str) -> None:
        """Go on with another session, a new one where there is none of that name. Raises as the store."""
        self._keep = True
        self._use(self.store.load(name))

    def copy_to(self, name: str) -> None:
        """Save the conversation under another name as well. Raises ValueError where there is one, and as the store."""
        if any(info.name == name for info in self.store.list_sessions()):
            raise ValueError(f"session {name!r}: there is one of that name; /load {name} opens it, or choose another")
        conversation = self.conversation
        self.store.save(Conversation(name, list(conversation.messages), conversation.summary))

    @property
    def usage(self) -> Usage:
        """Tokens of the conversation as far as it is still read, and how many the next prompt may have."""
        return self.service.usage(self._history(), self.settings)

    def _use(self, conversation: Conversation) -> None:
        self.conversation, self.left_out = conversation, 0

    @property
    def _last(self) -> StoredMessage | None:
        return self.conversation.messages[-1] if self.conversation.messages else None

    def _messages_in_context(self) -> list[int]:
        """Where in the conversation the messages are that still fit, without those that got no answer."""
        places: list[int] = []
        for place in range(self.left_out, len(self.conversation.messages)):
            if self.conversation.messages[place].text.strip():
                places.append(place)
            elif places:
                places.pop()
        return places

    def _history(self, facts: Sequence[str] = ()) -> ChatHistory:
        """The conversation as far as it is still read."""
        history = ChatHistory(system_message=KNOWN_FACTS + " ".join(facts)) if facts else ChatHistory()
        for place in self._messages_in_context():
            message = self.conversation.messages[place]
            history.add_message(ChatMessageContent(role=AuthorRole(message.role), content=message.text))
        return history

    def _recalled(self, text: str) -> list[str]:
        """The facts that a message is about, but for those that the conversation itself still holds."""
        if self.service.is_raw:  # it continues a text, to which the facts do not belong
            return []
        said = [" ".join(message.text.split()) for message in self.conversation.messages[self.left_out :]]
        found = self._call("memory", "recall", query=text).splitlines()
        facts = [fact for fact in found if not any(fact in message for message in said)]
        room = self.usage.budget // _FACTS_SHARE
        while facts and self.service.token_count(KNOWN_FACTS + " ".join(facts)) > room:
            facts.pop()
        if facts:
            self.notify(f"recalled: {' '.join(facts)}")
        return facts

    def _exchange(self, asked: str, pieces: Generator[str, None, None]) -> Generator[str, None, None]:
        """The pieces; at their end, or when it is closed, question and answer are kept with what was said."""

        def keep(text: str) -> None:
            if text or self.finish_reason != "interrupted":
                answer = StoredMessage("assistant", text, self.finish_reason)
                self.conversation.messages += [StoredMessage("user", asked), answer]
                self.conversation.summary = about(self.conversation.messages[: self.left_out])
                self._save()

        return _collected(pieces, keep)

    def _answer(self, plugin: str, function: str, **arguments: Any) -> Generator[str, None, None]:
        """The answer of a function of the kernel; notes how it ended and which turns no longer fitted."""
        self.finish_reason, places = "interrupted", self._messages_in_context()
        settings = GPT2ChatSettings.of(self.settings, self.service.service_id)
        parts = self.kernel.invoke_stream(
            plugin_name=plugin, function_name=function, arguments=KernelArguments(settings=settings, **arguments)
        )
        try:
            with closing(self._loop.stream(parts)) as stream:
                for part in stream:
                    chunk = cast(StreamingChatMessageContent, part[0] if isinstance(part, list) else part)
                    if dropped := chunk.metadata["left_out"]:
                        self.left_out = places[dropped - 1] + 1
                    if chunk.finish_reason:
                        self.finish_reason = chunk.finish_reason.value
                    if chunk.content:
                        yield chunk.content
        except Exception as error:
            raise _reason(error) from error

    def _call(self, plugin: str, function: str, **arguments: Any) -> str:
        """What a function of the kernel returns; where it fails the person is told, and the chat goes on without."""
        work = self.kernel.invoke(plugin_name=plugin, function_name=function, arguments=KernelArguments(**arguments))
        try:
            return str(self._loop.run(work))
        except Exception as error:
            self.notify(f"{plugin} could not {function}: {_reason(error)}")
            return ""

    def _save(self) -> None:
        """A disk that fails must not end the chat: what was said is still here, and the next answer tries again."""
        if not self._keep:
            return
        before = list(self.conversation.messages)
        try:
            self.store.save(self.conversation)
        except (OSError, ValueError) as error:
            self.notify(f"the conversation is not saved: {error}")
        if self.conversation.messages != before:  # another program's turns are among them now: count anew what fits
            self.left_out = 0


def _collected(pieces: Generator[str, None, None], keep: Callable[[str], None]) -> Generator[str, None, None]:
    """The pieces; at their end, or when it is closed, `keep` is given what was said."""
    said: list[str] = []
    try:
        for piece in pieces:
            said.append(piece)
            yield piece
    finally:
        pieces.close()
        keep("".join(said))


def about(messages: Sequence[StoredMessage]) -> str:
    """What these messages were about: the first words of each question, the last ones if there are many.

    Words of the conversation itself, since a model of a few million parameters writes no summary.
    """
    questions = [message.text.split() for message in messages if message.role == "user"]
    starts = [
        " ".join(words[:_ABOUT_WORDS]) + ("..." if len(words) > _ABOUT_WORDS else "")
        for words in questions[-_ABOUT_QUESTIONS:]
    ]
    earlier = len(questions) - len(starts)
    return ("; ".join(starts) + (f" (and {earlier} before)" if earlier else "")) if starts else ""


def _reason(error: BaseException) -> Exception:
    """What is at the bottom of an error that Semantic Kernel has wrapped, as a kind that the terminal shows."""
    while error.__cause__ is not None:
        error = error.__cause__
    for kind in (ValueError, MemoryError):
        if isinstance(error, kind):
            return kind(str(error))
    plain = isinstance(error, RuntimeError | OSError | KernelException)
    return RuntimeError(str(error) if plain else f"{type(error).__name__}: {error}")
