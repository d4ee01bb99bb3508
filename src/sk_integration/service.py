"""Our model as a chat service of Semantic Kernel: `kernel.add_service(GPT2ChatCompletion(generator, template=...))`.

Prompt, token budget and streaming are those of `ChatSession`, which answers each request in a thread of its own.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, get_args

from pydantic import ValidationInfo, field_validator
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, StreamingChatMessageContent
from semantic_kernel.contents.utils.finish_reason import FinishReason
from semantic_kernel.exceptions import KernelException, ServiceInvalidRequestError, ServiceResponseException

from src.chat.session import RAW_MODEL, ChatSession, ChatSettings, PrefixCache, TextGenerator, Usage
from src.sk_integration.history import Request, read_request

logger = logging.getLogger(__name__)


class GPT2ChatSettings(PromptExecutionSettings, ChatSettings):  # type: ignore[misc]  # pydantic's are not frozen
    """The fields of ChatSettings as Semantic Kernel's settings, with the same defaults and bounds.

    Raises pydantic's ValidationError, a ValueError, for a value out of bounds. None disables a filter when it is given
    here or assigned; in generic settings it leaves the default, since Semantic Kernel drops None when it converts them.
    """

    def __init__(self, service_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(service_id, **kwargs)
        for name, declared in type(self).model_fields.items():
            if name in kwargs and kwargs[name] is None and type(None) in get_args(declared.annotation):
                setattr(self, name, None)

    @field_validator("*")
    @classmethod
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        if problem := cls.problem(info.field_name or "", value):
            raise ValueError(problem)
        return value

    @classmethod
    def of(cls, settings: ChatSettings, service_id: str) -> "GPT2ChatSettings":
        return cls(service_id, **asdict(settings))

    def chat_settings(self) -> ChatSettings:
        return ChatSettings(**{setting.name: getattr(self, setting.name) for setting in fields(ChatSettings)})

    def unknown(self) -> set[str]:
        """Names that were given and mean nothing to this model; Semantic Kernel takes any."""
        return set(self.extension_data) - set(self.keys)


@dataclass(frozen=True)
class _Part:
    """A piece of an answer; the last one is empty and says how it ended."""

    text: str
    metadata: dict[str, Any]
    finish_reason: FinishReason | None = None


class GPT2ChatCompletion(ChatCompletionClientBase):
    """A TextGenerator that Semantic Kernel can talk to: in prompts, plugins and agents.

    template: the prompt template that the model was tuned with; None for a raw model, whose text is continued.
    notify: is told, from the thread that answers, what is left out of the context; a warning in the log by default.

    An answer, and every chunk of it, carries in `metadata` as "left_out" how many messages of the history no longer
    fitted; the answer, and its last chunk, also `finish_reason` and the token counts as "usage". One answer is made at
    a time. Who cancels or closes a stream ends its answer within a token.

    Raises ValueError for a template that this code does not speak. A request raises ServiceInvalidRequestError where
    it cannot be answered, and ServiceResponseException where the model fails, each with its reason as the cause.
    """

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = False
    _generator: TextGenerator
    _template: str | None
    _notify: Callable[[str], None]
    _told: set[str]
    _worker: ThreadPoolExecutor
    _kept: PrefixCache

    def __init__(
        self,
        generator: TextGenerator,
        *,
        template: str | None,
        ai_model_id: str = "gpt2",
        service_id: str = "gpt2",
        notify: Callable[[str], None] = logger.warning,
    ) -> None:
        super().__init__(ai_model_id=ai_model_id, service_id=service_id)
        self._generator, self._template, self._notify = generator, template, notify
        self._told, self._worker, self._kept = set(), ThreadPoolExecutor(1, "gpt2"), PrefixCache()
        self._session("", GPT2ChatSettings().chat_settings())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "GPT2ChatCompletion":
        return self  # there is one model in memory, also for those who copy what refers to it

    @property
    def is_raw(self) -> bool:
        return self._template is None

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return GPT2ChatSettings

    def usage(self, history: ChatHistory, settings: ChatSettings) -> Usage:
        """Tokens of the history, and how many a prompt may have. Blocks while it counts."""
        request = read_request([*history.messages, ChatMessageContent(role=AuthorRole.USER, content="?")])
        return self._session_with_history(request, settings).usage

    def token_count(self, text: str) -> int:
        return len(self._generator.encoding.encode_ordinary(text))

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        parts = [part async for part in self._answer(chat_history, settings)]
        return [self._whole("".join(part.text for part in parts), parts[-1])]

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        async with aclosing(self._answer(chat_history, settings)) as parts:
            async for part in parts:
                yield [self._chunk(part, function_invoke_attempt)]

    async def _answer(self, history: ChatHistory, settings: PromptExecutionSettings) -> AsyncGenerator[_Part, None]:
        """The parts of an answer, from the worker thread."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        parts: asyncio.Queue[_Part | BaseException] = asyncio.Queue()
        messages = list(history.messages)  # the caller may go on with the history

        def put(part: _Part | BaseException) -> None:
            try:
                loop.call_soon_threadsafe(parts.put_nowait, part)
            except RuntimeError:  # the loop is closed: nobody waits any more
                stop.set()

        def work() -> None:
            try:
                for part in self._parts(messages, settings, stop.is_set):
                    put(part)
            except BaseException as error:
                put(error)

        self._worker.submit(work)
        ended = False
        try:
            while not ended:
                part = await parts.get()
                if isinstance(part, KernelException):
                    raise part
                if isinstance(part, BaseException):
                    refused = ServiceInvalidRequestError if isinstance(part, ValueError) else ServiceResponseException
                    raise refused(f"the model gave no answer: {part or type(part).__name__}") from part
                yield part
                ended = part.finish_reason is not None
        finally:
            stop.set()

    def _parts(
        self, messages: Sequence[ChatMessageContent], settings: PromptExecutionSettings, should_stop: Callable[[], bool]
    ) -> Iterator[_Part]:
        """What the worker thread does."""
        if should_stop():
            return
        assert isinstance(settings, GPT2ChatSettings)  # the base class converts what it is given
        if unknown := settings.unknown():
            self._tell_once(f"settings that this model does not have are ignored: {', '.join(sorted(unknown))}")
        request = read_request(messages)
        session = self._session_with_history(request, settings.chat_settings())
        for piece in session.reply(request.message, should_stop):
            yield _Part(piece, {"left_out": session.left_out})
        usage = CompletionUsage(prompt_tokens=session.prompt_tokens, completion_tokens=session.answer_tokens)
        reason = FinishReason.LENGTH if session.finish_reason == "length" else FinishReason.STOP
        yield _Part("", {"left_out": session.left_out, "usage": usage}, reason)

    def _session_with_history(self, request: Request, settings: ChatSettings) -> ChatSession:
        """A session in which everything of the request but its message was said."""
        session = self._session("" if self.is_raw else request.system, settings)
        if self.is_raw and request.system:
            session.remember(request.system, "")
        for asked, answered in request.exchanges:
            session.remember(asked, answered)
        return session

    def _session(self, system: str, settings: ChatSettings) -> ChatSession:
        return ChatSession(
            self._generator,
            template=self._template,
            settings=settings,
            notify=self._tell,
            system=system or None,
            kept=self._kept,
        )

    def _tell(self, note: str) -> None:
        if note == RAW_MODEL:
            self._tell_once(note)
        else:
            self._notify(note)

    def _tell_once(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            self._notify(note)

    def _whole(self, text: str, ended: _Part) -> ChatMessageContent:
        return ChatMessageContent(
            role=AuthorRole.ASSISTANT,
            content=text,
            ai_model_id=self.ai_model_id,
            finish_reason=ended.finish_reason,
            metadata=ended.metadata,
        )

    def _chunk(self, part: _Part, attempt: int) -> StreamingChatMessageContent:
        return StreamingChatMessageContent(
            role=AuthorRole.ASSISTANT,
            choice_index=0,
            content=part.text,
            ai_model_id=self.ai_model_id,
            function_invoke_attempt=attempt,
            finish_reason=part.finish_reason,
            metadata=part.metadata,
        )
