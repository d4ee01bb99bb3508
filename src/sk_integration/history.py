"""Converts a Semantic Kernel chat history into what the model was tuned on: user messages, each with its answer.

Other programs may order their messages differently. No text of a user is lost:

- Leading system messages become the system message. Later ones, and tool results, count as user messages.
- Consecutive messages of one role are joined with an empty line between them. Empty messages are dropped.
- If the last message is an assistant's, as when one agent hands its text to the next, it becomes the end of the user
  message to answer.
- Tool calls are left out, because their results follow.
- What another model added to its text is skipped: its reasoning, and annotations such as the sources it quotes. An
  image, a sound or a file is refused by name.
- An assistant's greeting at the start is dropped: the model was never tuned on an answer without a question.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from semantic_kernel.contents import (
    AnnotationContent,
    AuthorRole,
    ChatMessageContent,
    FunctionCallContent,
    FunctionResultContent,
    ReasoningContent,
    StreamingAnnotationContent,
    StreamingReasoningContent,
    TextContent,
)
from semantic_kernel.exceptions import ServiceInvalidRequestError

_SKIPPED = {
    ReasoningContent: "reasoning",
    StreamingReasoningContent: "reasoning",
    AnnotationContent: "annotations",
    StreamingAnnotationContent: "annotations",
}


@dataclass(frozen=True)
class ChatRequest:
    """The system message ("" for none), the turns as (user message, answer), and the user message to answer.

    skipped: what was left out of the messages, such as "annotations, reasoning"; "" if nothing was.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    message: str
    skipped: str = ""


def parse_history(messages: Sequence[ChatMessageContent]) -> ChatRequest:
    """The request in a chat history.

    Raises ServiceInvalidRequestError if there is no text to answer, or if a message contains anything but text.
    """
    system, alternating = _merge_by_role(messages)
    if len(alternating) > 1 and alternating[0][0] == "assistant":
        del alternating[0]
    if alternating and alternating[-1][0] == "assistant":
        end = alternating.pop()[1]
        start = f"{alternating.pop()[1]}\n\n" if alternating else ""
        alternating.append(("user", start + end))
    if not alternating:
        raise ServiceInvalidRequestError("the chat history has no message to answer; add a user message with text")
    texts = [text for _, text in alternating]
    kinds = {_SKIPPED[type(item)] for message in messages for item in message.items if type(item) in _SKIPPED}
    return ChatRequest(system, tuple(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1], ", ".join(sorted(kinds)))


def _merge_by_role(messages: Sequence[ChatMessageContent]) -> tuple[str, list[tuple[str, str]]]:
    """The system message, and (role, text) pairs in which user and assistant alternate."""
    system: list[str] = []
    alternating: list[tuple[str, str]] = []
    for message in messages:
        text = _text(message)
        if not text.strip():
            continue
        role = "assistant" if message.role == AuthorRole.ASSISTANT else "user"
        if not alternating and message.role in (AuthorRole.SYSTEM, AuthorRole.DEVELOPER):
            system.append(text)
        elif alternating and alternating[-1][0] == role:
            alternating[-1] = (role, f"{alternating[-1][1]}\n\n{text}")
        else:
            alternating.append((role, text))
    return "\n\n".join(system), alternating


def _text(message: ChatMessageContent) -> str:
    parts: list[str] = []
    for item in message.items:
        if isinstance(item, TextContent):
            parts.append(item.text)
        elif isinstance(item, FunctionResultContent):
            parts.append(str(item.result))
        elif not isinstance(item, (FunctionCallContent, *_SKIPPED)):
            raise ServiceInvalidRequestError(
                f"this model takes text only, but a message contains {type(item).__name__}"
            )
    return "\n".join(parts)
