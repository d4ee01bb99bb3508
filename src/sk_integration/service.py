"""Our model as a chat service of Semantic Kernel: `kernel.add_service(GPT2ChatCompletion(generator, template=...))`.

A `ChatSession` handles the prompt, the token budget and streaming. Requests are answered in a worker thread.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
from semantic_kernel.connectors.ai.function_choice_type import FunctionChoiceType
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, StreamingChatMessageContent
from semantic_kernel.contents.utils.finish_reason import FinishReason
from semantic_kernel.exceptions import KernelException, ServiceInvalidRequestError, ServiceResponseException

from src.chat.flags import ChatSettings
from src.chat.messages import Exchange, Usage
from src.chat.session import ChatSession
from src.common.messages import Notify, OnceNote
from src.model.generate import PrefixCache, TextGenerator
from src.sk_integration.history import ChatRequest, parse_history
from src.sk_integration.settings import GPT2ChatSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Chunk:
    """A piece of an answer. The last chunk has no text, but a finish reason."""

    text: str
    metadata: dict[str, Any]
    finish_reason: FinishReason | None = None


class GPT2ChatCompletion(ChatCompletionClientBase):
    """A TextGenerator as a chat service, for prompts, plugins and agents.

    template: the prompt template that the model was tuned with; None for a raw model, which continues text.
    notify: called in the worker thread with one-line messages for the user, such as what was dropped from the context.
    By default, they are logged as warnings.

    `metadata` of an answer, and of each of its chunks, has "dropped_messages", the number of messages of the history
    that no longer fit the context. The answer, and its last chunk, also have `finish_reason` and, as "usage", the token
    counts. One answer is generated at a time. Cancelling or closing a stream stops it at the next piece of text.

    Raises ValueError as ChatSession does. A request raises ServiceInvalidRequestError if it cannot be answered and
    ServiceResponseException if the model fails, with the original error as the cause.
    """

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = False
    _generator: TextGenerator
    _template: str | None
    _notify: Notify
    _seen_notes: set[str]
    _worker: ThreadPoolExecutor
    _prefix_cache: PrefixCache
    _last_session: ChatSession

    def __init__(
        self,
        generator: TextGenerator,
        *,
        template: str | None,
        ai_model_id: str = "gpt2",
        service_id: str = "gpt2",
        notify: Notify = logger.warning,
    ) -> None:
        super().__init__(ai_model_id=ai_model_id, service_id=service_id)
        self._generator, self._template, self._notify = generator, template, notify
        self._seen_notes, self._worker, self._prefix_cache = set(), ThreadPoolExecutor(1, "gpt2"), PrefixCache()
        self._last_session = self._new_session("", GPT2ChatSettings().chat_settings())  # raises if it cannot chat

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "GPT2ChatCompletion":
        return self  # Semantic Kernel copies objects that refer to the service; do not copy the weights

    @property
    def last_exchange(self) -> Exchange:
        """The token ids of the last prompt and of its answer."""
        return self._last_session.last_exchange

    @property
    def is_raw(self) -> bool:
        return self._template is None

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return GPT2ChatSettings

    async def get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, **kwargs: Any
    ) -> list[ChatMessageContent]:
        self._check_functions(settings, kwargs.get("kernel"))
        return await super().get_chat_message_contents(chat_history, settings, **kwargs)

    def get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, **kwargs: Any
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        self._check_functions(settings, kwargs.get("kernel"))
        return super().get_streaming_chat_message_contents(chat_history, settings, **kwargs)

    def _check_functions(self, settings: PromptExecutionSettings, kernel: Kernel | None) -> None:
        """Note that functions are never called, if a request offers some. Agents ask for Auto() even without any.

        Raises ServiceInvalidRequestError if the request requires a function call: an answer in words would be wrong.
        """
        asked = settings.function_choice_behavior.type_ if settings.function_choice_behavior else None
        if asked == FunctionChoiceType.REQUIRED:
            raise ServiceInvalidRequestError(
                "this model cannot call functions, but the request requires a call: function_choice_behavior is "
                "'required'; use 'none', 'auto' or another service"
            )
        if asked == FunctionChoiceType.AUTO and kernel and kernel.plugins:
            self._notify_once("this model cannot call functions: function_choice_behavior 'auto' is ignored")

    def usage(self, history: ChatHistory, settings: ChatSettings) -> Usage:
        """Tokens of the history, and the token budget of a prompt. Blocks while it tokenizes."""
        return self._session_before_message(history, settings).usage

    def with_input(self, history: ChatHistory, text: str, input: str, settings: ChatSettings) -> str:
        """A message that refers to an input, as ChatSession.with_input. Blocks while it tokenizes."""
        return self._session_before_message(history, settings).with_input(text, input)

    def token_count(self, text: str) -> int:
        return len(self._generator.encoding.encode_ordinary(text))

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        chunks = [chunk async for chunk in self._stream(chat_history, settings)]
        return [self._to_message("".join(chunk.text for chunk in chunks), chunks[-1])]

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        async with aclosing(self._stream(chat_history, settings)) as chunks:
            async for chunk in chunks:
                yield [self._to_streaming_message(chunk, function_invoke_attempt)]

    async def _stream(self, history: ChatHistory, settings: PromptExecutionSettings) -> AsyncGenerator[_Chunk, None]:
        """The chunks of an answer, generated in the worker thread."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        queue: asyncio.Queue[_Chunk | BaseException] = asyncio.Queue()
        messages = list(history.messages)  # a copy: the caller may change the history meanwhile

        def put(item: _Chunk | BaseException) -> None:
            try:
                loop.call_soon_threadsafe(queue.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody is waiting any more
                stop.set()

        def work() -> None:
            try:
                for chunk in self._generate(messages, settings, stop.is_set):
                    put(chunk)
            except BaseException as error:
                put(error)

        self._worker.submit(work)
        finished = False
        try:
            while not finished:
                item = await queue.get()
                if isinstance(item, KernelException):
                    raise item
                if isinstance(item, BaseException):
                    wrapper = ServiceInvalidRequestError if isinstance(item, ValueError) else ServiceResponseException
                    raise wrapper(f"the answer failed: {item or type(item).__name__}") from item
                yield item
                finished = item.finish_reason is not None
        finally:
            stop.set()

    def _generate(
        self, messages: Sequence[ChatMessageContent], settings: PromptExecutionSettings, should_stop: Callable[[], bool]
    ) -> Iterator[_Chunk]:
        """Yields the chunks of the answer. Runs in the worker thread."""
        if should_stop():
            return
        assert isinstance(settings, GPT2ChatSettings)  # converted by the base class
        if ignored := settings.ignored():
            self._notify_once(f"ignored settings that this model does not have: {', '.join(sorted(ignored))}")
        request = parse_history(messages)
        if request.skipped:
            self._notify_once(f"skipped in the chat history, because this model reads text only: {request.skipped}")
        self._last_session = session = self._session_with_history(request, settings.chat_settings())
        for piece in session.reply(request.message, should_stop, settings.stop or ()):
            yield _Chunk(piece, {"dropped_messages": session.dropped_messages})
        usage = CompletionUsage(prompt_tokens=session.prompt_tokens, completion_tokens=session.answer_tokens)
        reason = FinishReason.LENGTH if session.finish_reason == "length" else FinishReason.STOP
        yield _Chunk("", {"dropped_messages": session.dropped_messages, "usage": usage}, reason)

    def _session_before_message(self, history: ChatHistory, settings: ChatSettings) -> ChatSession:
        # parse_history needs a message to answer; the session does not count it.
        request = parse_history([*history.messages, ChatMessageContent(role=AuthorRole.USER, content="?")])
        return self._session_with_history(request, settings)

    def _session_with_history(self, request: ChatRequest, settings: ChatSettings) -> ChatSession:
        """A session that holds everything of the request except the message to answer."""
        session = self._new_session("" if self.is_raw else request.system, settings)
        if self.is_raw and request.system:
            session.add_turn(request.system, "")
        for message, answer in request.turns:
            session.add_turn(message, answer)
        return session

    def _new_session(self, system: str, settings: ChatSettings) -> ChatSession:
        return ChatSession(
            self._generator,
            template=self._template,
            settings=settings,
            notify=self._notify_from_session,
            system=system or None,
            prefix_cache=self._prefix_cache,
            note_cut_off=False,  # the finish reason of the answer is "length"
        )

    def _notify_from_session(self, note: str) -> None:
        if isinstance(note, OnceNote):  # every session repeats it
            self._notify_once(note)
        else:
            self._notify(note)

    def _notify_once(self, note: str) -> None:
        if note not in self._seen_notes:
            self._seen_notes.add(note)
            self._notify(note)

    def _to_message(self, text: str, last: _Chunk) -> ChatMessageContent:
        return ChatMessageContent(
            role=AuthorRole.ASSISTANT,
            content=text,
            ai_model_id=self.ai_model_id,
            finish_reason=last.finish_reason,
            metadata=last.metadata,
        )

    def _to_streaming_message(self, chunk: _Chunk, function_invoke_attempt: int) -> StreamingChatMessageContent:
        return StreamingChatMessageContent(
            role=AuthorRole.ASSISTANT,
            choice_index=0,
            content=chunk.text,
            ai_model_id=self.ai_model_id,
            function_invoke_attempt=function_invoke_attempt,
            finish_reason=chunk.finish_reason,
            metadata=chunk.metadata,
        )


def root_cause(error: BaseException) -> Exception:
    """The error that Semantic Kernel has wrapped, as a type that the chat loop reports."""
    while isinstance(error, KernelException) and error.__cause__ is not None:
        error = error.__cause__
    for error_type in (ValueError, MemoryError):
        if isinstance(error, error_type):
            return error_type(str(error))
    is_clear = isinstance(error, RuntimeError | OSError | KernelException)
    return RuntimeError(str(error) if is_clear else f"{type(error).__name__}: {error}")
