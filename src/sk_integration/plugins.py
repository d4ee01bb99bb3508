"""What the kernel can do for a chat: functions, prompts, and a filter that lets any text through to the model."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory, StreamingChatMessageContent
from semantic_kernel.filters import FilterTypes, PromptRenderContext
from semantic_kernel.functions import KernelFunctionFromPrompt, kernel_function

from src.sk_integration.memory_manager import LongTermMemory

# What a prompt asks stands at its end: there a message that is too long is not cut, and small models answer it best
# (the same words in front: 4 of 30 trained answers word for word, at the end 26 to 28).
PROMPTS = {
    "first_step": "Task: {{$task}}\n\n{{$step}}",
    "step": "Task: {{$task}}\n\nSo far: {{$previous}}\n\n{{$step}}",
    "refine": "{{$instruction}}\n\nAnswer: {{$draft}}\n\n{{$question}}",
}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class ChatPlugin:
    """The chat turn. The history goes to the service as it is, without a template that would have to be parsed."""

    @kernel_function(description="Answers the last message of a chat history, in pieces.")
    async def reply(
        self,
        history: ChatHistory,
        service: ChatCompletionClientBase,
        execution_settings: PromptExecutionSettings,
    ) -> AsyncGenerator[StreamingChatMessageContent | None, None]:
        async for part in service.get_streaming_chat_message_content(history, execution_settings):
            yield part


class MemoryPlugin:
    """Long-term memory, for the chat and for templates: `{{memory.recall $question}}`."""

    def __init__(self, memory: LongTermMemory) -> None:
        self._memory = memory

    @kernel_function(description="Facts told in any conversation that a text is about, the best first, one a line.")
    async def recall(self, query: Annotated[str, "what to look for"], top: Annotated[int, "most facts"] = 3) -> str:
        found = await asyncio.to_thread(self._memory.recall, query, top)
        return "\n".join(" ".join(recalled.fact.text.split()) for recalled in found)

    @kernel_function(description="Keeps what a person tells of their world; says what was kept, or nothing.")
    async def remember(self, text: str, session: Annotated[str, "the conversation it was told in"] = "") -> str:
        kept = await asyncio.to_thread(self._memory.remember, text, session)
        return f"fact {kept.id}: {kept.text}" if kept else ""


async def escape_prompt_xml(
    context: PromptRenderContext, next: Callable[[PromptRenderContext], Awaitable[None]]
) -> None:
    """A filter for FilterTypes.PROMPT_RENDERING: what is put into a prompt reaches the model as it was typed.

    A rendered prompt is read as XML. One control character there, as in text copied from a terminal, and the tags
    become part of the message; `&lt;` would become `<`.
    """
    await next(context)
    if context.rendered_prompt is not None:
        text = _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", context.rendered_prompt)
        context.rendered_prompt = text.replace("&amp;", "&amp;amp;")


def register_plugins(kernel: Kernel, memory: LongTermMemory) -> None:
    """Give a kernel the functions `chat.reply`, `memory.*` and `prompts.*`, and the filter."""
    kernel.add_plugin(ChatPlugin(), plugin_name="chat")
    kernel.add_plugin(MemoryPlugin(memory), plugin_name="memory")
    for name, template in PROMPTS.items():
        prompt = f"<message role='user'>{template}</message>"
        kernel.add_function("prompts", KernelFunctionFromPrompt(name, "prompts", prompt=prompt))
    kernel.add_filter(FilterTypes.PROMPT_RENDERING, escape_prompt_xml)
