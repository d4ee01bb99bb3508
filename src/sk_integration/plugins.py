"""The kernel's functions and prompts for a chat, and a filter that lets prompts contain any text."""

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

# The question comes last: truncation removes the start of a message, and small models answer best this way (26 to 28
# of 30 trained answers word for word; with the question first, 4 of 30).
PROMPTS = {
    "first_step": "Task: {{$task}}\n\n{{$step}}",
    "step": "Task: {{$task}}\n\nSo far: {{$previous}}\n\n{{$step}}",
    "refine": "{{$instruction}}\n\nAnswer: {{$draft}}\n\n{{$question}}",
}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class ChatPlugin:
    """Passes a chat history to the service directly. A prompt template would render it as XML to be parsed again."""

    @kernel_function(description="Streams the answer to the last message of a chat history.")
    async def reply(
        self,
        history: ChatHistory,
        service: ChatCompletionClientBase,
        execution_settings: PromptExecutionSettings,
    ) -> AsyncGenerator[StreamingChatMessageContent | None, None]:
        async for part in service.get_streaming_chat_message_content(history, execution_settings):
            yield part


class MemoryPlugin:
    """Long-term memory for the chat, and for prompt templates: `{{memory.recall $question}}`."""

    def __init__(self, memory: LongTermMemory) -> None:
        self._memory = memory

    @kernel_function(
        description="Returns facts from any conversation that are relevant to a text, best first, one per line."
    )
    async def recall(
        self, query: Annotated[str, "text to search for"], top: Annotated[int, "maximum number of facts"] = 3
    ) -> str:
        facts = await asyncio.to_thread(self._memory.recall, query, top)
        return "\n".join(" ".join(recalled.fact.text.split()) for recalled in facts)

    @kernel_function(
        description="Stores the facts that a user states about themselves. Returns the new facts, one per line."
    )
    async def remember(self, text: str, session: Annotated[str, "session of the text"] = "") -> str:
        facts = await asyncio.to_thread(self._memory.remember, text, session)
        return "\n".join(f"fact {fact.id}: {fact.text}" for fact in facts)


async def escape_prompt_xml(
    context: PromptRenderContext, next: Callable[[PromptRenderContext], Awaitable[None]]
) -> None:
    """A filter for FilterTypes.PROMPT_RENDERING: text inserted into a prompt reaches the model as typed.

    Semantic Kernel parses a rendered prompt as XML. A control character, as in text copied from a terminal, makes the
    parser fail, and then the tags become part of the message; so control characters become U+FFFD. The parser also
    turns a typed `&lt;` into `<`; escaping it once more prevents that.
    """
    await next(context)
    if context.rendered_prompt is not None:
        text = _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", context.rendered_prompt)
        context.rendered_prompt = text.replace("&amp;", "&amp;amp;")


def register_plugins(kernel: Kernel, memory: LongTermMemory) -> None:
    """Add the functions `chat.reply`, `memory.*` and `prompts.*`, and the filter, to a kernel."""
    kernel.add_plugin(ChatPlugin(), plugin_name="chat")
    kernel.add_plugin(MemoryPlugin(memory), plugin_name="memory")
    for name, template in PROMPTS.items():
        prompt = f"<message role='user'>{template}</message>"
        kernel.add_function("prompts", KernelFunctionFromPrompt(name, "prompts", prompt=prompt))
    kernel.add_filter(FilterTypes.PROMPT_RENDERING, escape_prompt_xml)
