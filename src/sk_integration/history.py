"""What Semantic Kernel hands over as a chat history, in the order that the model was taught: question, then answer.

Programs write histories in many orders; none of them loses what was said:

- system messages before the first other one are the system message; a later one is read where it stands, as the
  person's words, and so are results of tools
- several messages of one side in a row are one, with an empty line between them; empty ones are left out
- an answer at the end, as one agent hands its text to the next, is read as what the model is to answer
- an answer at the beginning, a greeting, is left out: the model has learned no answer without a question
"""

from collections.abc import Sequence
from dataclasses import dataclass

from semantic_kernel.contents import (
    AuthorRole,
    ChatMessageContent,
    FunctionCallContent,
    FunctionResultContent,
    TextContent,
)
from semantic_kernel.exceptions import ServiceInvalidRequestError


@dataclass(frozen=True)
class Request:
    """The system message ("" for none), the questions with their answers, and the message to answer."""

    system: str
    exchanges: tuple[tuple[str, str], ...]
    message: str


def read_request(messages: Sequence[ChatMessageContent]) -> Request:
    """Raises ServiceInvalidRequestError where there is no text to answer, or something that is not text."""
    system, said = _sides(messages)
    if len(said) > 1 and said[0][0] == "assistant":
        del said[0]
    if said and said[-1][0] == "assistant":
        last = said.pop()[1]
        said.append(("user", f"{said.pop()[1]}\n\n{last}" if said else last))
    if not said:
        raise ServiceInvalidRequestError("the chat history holds no message to answer; add a user message with text")
    texts = [text for _, text in said]
    return Request(system, tuple(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1])


def _sides(messages: Sequence[ChatMessageContent]) -> tuple[str, list[tuple[str, str]]]:
    """The system message, and what the two sides said by turns."""
    system: list[str] = []
    said: list[tuple[str, str]] = []
    for message in messages:
        text = _text(message)
        if not text.strip():
            continue
        side = "assistant" if message.role == AuthorRole.ASSISTANT else "user"
        if not said and message.role in (AuthorRole.SYSTEM, AuthorRole.DEVELOPER):
            system.append(text)
        elif said and said[-1][0] == side:
            said[-1] = (side, f"{said[-1][1]}\n\n{text}")
        else:
            said.append((side, text))
    return "\n\n".join(system), said


def _text(message: ChatMessageContent) -> str:
    parts: list[str] = []
    for item in message.items:
        if isinstance(item, TextContent):
            parts.append(item.text)
        elif isinstance(item, FunctionResultContent):
            parts.append(str(item.result))
        elif not isinstance(item, FunctionCallContent):  # the result says what a call was for
            raise ServiceInvalidRequestError(f"this model reads text only, a message holds {type(item).__name__}")
    return "\n".join(parts)
