"""The assistant: a Semantic Kernel with our model, a saved conversation and long-term memory."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import cast

from semantic_kernel import Kernel
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, StreamingChatMessageContent
from semantic_kernel.functions import KernelArguments

from src.chat.flags import ChatSettings
from src.chat.messages import Exchange, Usage, cut_off_note
from src.chat.session import RAW_AFTER_SYSTEM
from src.chat.start import LoadedChatModel
from src.common.messages import Notify, without_surrogates
from src.data.prompts import opening_text
from src.memory.words import as_sentence
from src.sk_integration.loop_thread import LoopThread
from src.sk_integration.memory_manager import Conversation, FactKeeper, OpenSession, SessionStore, StoredMessage
from src.sk_integration.plugins import register_plugins
from src.sk_integration.service import GPT2ChatCompletion, root_cause
from src.sk_integration.settings import GPT2ChatSettings

REFINE_INSTRUCTION = "Improve this answer."
_MAX_FACTS_SHARE = 0.25  # of the token budget of a prompt
_MAY_FIT_AGAIN = 64  # dropped messages that each answer tries to bring back; all of a long conversation would be slow


class Assistant:
    """One conversation at a time, and a long-term memory that all conversations share. Close it after use.

    session: the open session, saved after every change. facts: keeps what the user tells about themselves. `settings`
    can be replaced at any time; the next answer uses the new ones. notify: gets one-line messages for the user.
    facts_in_prompt: whether recalled facts are put into the prompt. Only a model that was trained with facts answers as
    well with them; for others, they are only shown to the user.

    Answers are generators. The question is saved before the model runs, and however an answer ends, its text so far
    stays in the conversation. If the model fails, the generator raises ValueError, RuntimeError or MemoryError.
    """

    def __init__(
        self,
        service: GPT2ChatCompletion,
        *,
        session: OpenSession,
        facts: FactKeeper,
        settings: ChatSettings,
        notify: Notify,
        facts_in_prompt: bool = False,
    ) -> None:
        self.service, self.session, self.facts, self.settings, self.notify = service, session, facts, settings, notify
        self.memory, self.facts_in_prompt = facts.memory, facts_in_prompt and not service.is_raw
        self.kernel = Kernel(services=service)
        register_plugins(self.kernel, self.memory)
        self.finish_reason, self.system = "interrupted", ""
        self._answered: tuple[StoredMessage, StoredMessage] | None = None  # the turn that was answered last
        self._loop = LoopThread()

    def close(self) -> None:
        self._loop.close()
        self.session.close()
        self.memory.close()

    @property
    def conversation(self) -> Conversation:
        return self.session.conversation

    @property
    def store(self) -> SessionStore:
        return self.session.store

    @property
    def dropped_messages(self) -> int:
        return self.session.dropped_messages

    @property
    def turns(self) -> list[tuple[str, str]]:
        return self.conversation.turns

    @property
    def last_exchange(self) -> Exchange:
        return self.service.last_exchange if self._answered == self.session.last_turn else Exchange()

    def set_system(self, text: str) -> None:
        """Replace the system message; "" removes it. Raises ValueError if the model is raw, or if it is too long."""
        if text and self.service.is_raw:
            raise ValueError("a raw model takes no system message; python instruction_tune.py makes a model that does")
        before, self.system = self.system, text
        try:
            self.service.usage(self._history(), self.settings)
        except ValueError:
            self.system = before
            raise

    def use_model(self, model: LoadedChatModel) -> None:
        """Continue the conversation with another model. Raises ValueError; then nothing changes."""
        service = GPT2ChatCompletion(model.generator, template=model.template, notify=self.notify)
        if self.system and service.is_raw:
            raise ValueError(RAW_AFTER_SYSTEM)
        self.service, self.kernel = service, Kernel(services=service)
        register_plugins(self.kernel, self.memory)
        self.facts_in_prompt = model.checkpoint.trained_with("facts") and not service.is_raw

    def reply(self, text: str, input: str = "") -> Generator[str, None, None]:
        """Streams the answer to a message.

        input: a text that the message refers to. It is no source of facts about the user.
        """
        if not text.strip():
            raise ValueError("the message is empty")
        text = without_surrogates(text)
        if not input:
            yield from self._record(text, self._answer(text, partial(self._facts_for, text)))
            return
        facts = self._facts_for(text)
        text = self.service.with_input(self._history(facts), text, input, self.settings)
        yield from self._record(text, self._answer(text, lambda: facts))

    def _facts_for(self, text: str) -> list[str]:
        """The facts for the prompt of a new message. A statement needs none: it is kept, and may correct one."""
        return [] if self.facts.read(text, self.conversation.name) else self._recall(text)

    def retry(self) -> Generator[str, None, None]:
        """Streams another answer to the last message. Replaces the old one, and raises ValueError, as `refine` does."""
        if self.session.last_turn is None:
            raise ValueError("there is nothing to retry yet; ask something first")
        question, _ = self.session.last_turn
        return self._replace_answer(self._answer(question.text, partial(self._recall, question.text)))

    def refine(self, instruction: str = REFINE_INSTRUCTION) -> Generator[str, None, None]:
        """Streams an improved version of the last answer, which then replaces it; `undo` brings the old one back.

        An empty or interrupted version changes nothing. Raises ValueError, immediately, if there is no answer.
        """
        if self.session.last_turn is None:
            raise ValueError("there is no answer to refine yet; ask something first")
        question, answer = self.session.last_turn
        arguments = {"instruction": instruction, "draft": answer.text, "question": question.text}
        return self._replace_answer(self._stream("prompts", "refine", **arguments))

    def undo(self) -> str:
        """Take back the last turn, /retry, /refine or /multi. Returns what to tell the user: also which facts stay."""
        before, turn_count = self.session.last_turn, self.conversation.turn_count
        lines = [self.session.undo()]
        if before and self.conversation.turn_count < turn_count:
            kept = self.facts.still_kept(before[0].text)
            lines += [f"Still remembered: {as_sentence(fact.text)} /forget {fact.id} deletes it." for fact in kept]
        return "\n".join(lines)

    def redo(self) -> str:
        """Bring back what `undo` took back. Returns what to tell the user; raises ValueError."""
        return self.session.redo()

    def reset(self) -> str:
        """Clear the conversation, and keep a copy of a saved one. Long-term memory stays. See OpenSession.reset."""
        return self.session.reset()

    def multi(self, task: str, steps: Sequence[str]) -> Iterator[tuple[str, Generator[str, None, None]]]:
        """Yields a label and the streamed answer for each step.

        A step's prompt contains the task, the previous answer and the step, but not the rest of the conversation.

        Every step becomes a turn of the conversation, and one `undo` takes back all of them. Raises ValueError if the
        previous step has no answer: its stream was not consumed, or the model failed before its first word.
        """
        previous = ""
        for n, step in enumerate(steps, start=1):
            function = "step" if previous else "first_step"
            pieces = self._stream("prompts", function, task=task, step=step, previous=previous)
            self._answered = None
            yield f"Step {n} of {len(steps)}: {step}\n", self._record(step, pieces, with_previous=n > 1)
            previous = self._answered[1].text if self._answered else ""
            if not previous and n < len(steps):
                raise ValueError(f"step {n + 1} needs the answer to step {n}, which was not generated")

    @property
    def usage(self) -> Usage:
        """Tokens of the conversation in the context, and the token budget of the next prompt."""
        return self.service.usage(self._history(), self.settings)

    def _history(self, facts: Sequence[str] = (), *, without_last_turn: bool = False) -> ChatHistory:
        """The messages in context, after a system message with the facts."""
        opening = opening_text(self.system, facts)
        history = ChatHistory(system_message=opening) if opening else ChatHistory()
        for i in self.conversation.answered(self.dropped_messages, -2 if without_last_turn else None):
            message = self.conversation.messages[i]
            history.add_message(ChatMessageContent(role=AuthorRole(message.role), content=message.text))
        return history

    def _answer(self, text: str, find_facts: Callable[[], Sequence[str]]) -> Generator[str, None, None]:
        """Streams the answer to the message of the last turn. find_facts: returns the facts for the prompt.

        Facts and history are taken when the stream starts. By then the question is saved, so an interrupt keeps it, and
        saving it may have merged the turns of another program.
        """
        facts = find_facts()
        self.session.dropped_messages = max(0, self.session.dropped_messages - _MAY_FIT_AGAIN)
        history = self._history(facts, without_last_turn=True)
        history.add_user_message(text)
        yield from self._stream("chat", "reply", history=history)

    def _recall(self, text: str) -> list[str]:
        """Show the user the facts relevant to a message. Returns those for the prompt."""
        recalled = self._invoke("memory", "recall", query=text).splitlines()
        if recalled:
            self.notify(f"From memory: {' '.join(map(as_sentence, recalled))}")
        return self._facts_to_add(recalled) if self.facts_in_prompt else []

    def _facts_to_add(self, recalled: Sequence[str]) -> list[str]:
        """The recalled facts that the context does not contain yet, as many as fit into their share of the budget."""
        in_context = [" ".join(message.text.split()) for message in self.conversation.messages[self.dropped_messages :]]
        facts = [as_sentence(fact) for fact in recalled if not any(fact in message for message in in_context)]
        max_tokens = int(self.usage.budget * _MAX_FACTS_SHARE)
        while facts and self.service.token_count(opening_text("", facts)) > max_tokens:
            facts.pop()
        return facts

    def _record(
        self, question: str, pieces: Generator[str, None, None], *, with_previous: bool = False
    ) -> Generator[str, None, None]:
        """Yields the pieces, and adds the turn to the conversation: the question first, then the answer as it grows."""
        text: list[str] = []
        self.session.begin_turn(question)
        try:
            self.session.save()
            for piece in pieces:
                text.append(piece)
                self.session.grow_answer("".join(text))
                yield piece
        finally:
            pieces.close()
            self.session.end_turn("".join(text), self.finish_reason, with_previous=with_previous)
            self._answered = self.session.last_turn

    def _replace_answer(self, pieces: Generator[str, None, None]) -> Generator[str, None, None]:
        """Yields the pieces, which then replace the last answer, unless they are empty or interrupted."""
        text: list[str] = []
        try:
            for piece in pieces:
                text.append(piece)
                yield piece
        finally:
            pieces.close()
            self._end_replacing("".join(text))

    def _end_replacing(self, text: str) -> None:
        """Replace the last answer, and say so if it stays as it was."""
        earlier = self.session.last_turn[1] if self.session.last_turn else None
        is_first_text = earlier is not None and not earlier.text  # the earlier answer failed before its first word
        if not text or (self.finish_reason == "interrupted" and not is_first_text):
            self.notify("The earlier answer is unchanged.")
            return
        if earlier == StoredMessage("assistant", text, self.finish_reason):
            self.notify("The answer did not change.")
        else:
            self.session.replace_answer(text, self.finish_reason)
        self._answered = self.session.last_turn

    def _stream(self, plugin: str, function: str, **arguments: object) -> Generator[str, None, None]:
        """Streams the answer of a kernel function. Keeps track of the finish reason and of dropped messages.

        A note says if the answer reached max_tokens: to other programs, the service reports the finish reason only.
        """
        self.finish_reason, self._answered = "interrupted", None
        in_context = self.conversation.answered(self.dropped_messages)
        settings = GPT2ChatSettings.of(self.settings, self.service.service_id)
        parts = self.kernel.invoke_stream(
            plugin_name=plugin, function_name=function, arguments=KernelArguments(settings=settings, **arguments)
        )
        try:
            with closing(self._loop.stream(parts)) as stream:
                for n, part in enumerate(stream):  # prompt functions yield lists of one chunk
                    chunk = cast(StreamingChatMessageContent, part[0] if isinstance(part, list) else part)
                    # `dropped` counts messages of the history; in_context has their indices in the conversation. Only
                    # the first chunk sets it: saving the answer may merge turns, and then the indices are others.
                    if n == 0 and (dropped := chunk.metadata["dropped_messages"]):
                        self.session.dropped_messages = in_context[dropped - 1] + 1
                    if chunk.finish_reason:
                        self.finish_reason = chunk.finish_reason.value
                    if chunk.content:
                        yield chunk.content
        except Exception as error:
            raise root_cause(error) from error
        if self.finish_reason == "length" and not self.service.is_raw:
            self.notify(cut_off_note(self.settings.max_tokens))

    def _invoke(self, plugin: str, function: str, **arguments: object) -> str:
        """The result of a kernel function. If it fails, the user is notified and the result is ""."""
        kernel_arguments = KernelArguments(None, **arguments)
        call = self.kernel.invoke(plugin_name=plugin, function_name=function, arguments=kernel_arguments)
        try:
            return str(self._loop.run(call))
        except Exception as error:
            self.notify(f"{plugin} could not {function}: {root_cause(error)}")
            return ""
