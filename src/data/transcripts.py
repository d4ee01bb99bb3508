"""Split a text in which a whole chat is written out, with a mark before each turn."""

import re

from src.data.chats import role_of
from src.data.prompts import Message

_NAMES = "Human|User|Assistant|System"
_HEADINGS = re.compile(rf"###\s*({_NAMES}|Instruction|Input|Response):")  # Guanaco's, and Alpaca's template
_CHAT_ML = re.compile(r"<\|im_start\|>(\w+)\n")
_MARKS = (
    re.compile(rf"(?:\A|\n\s*\n)\s*({_NAMES}):"),  # HH-RLHF
    re.compile(rf"(?:\A|\n)\s*({_NAMES}):"),
    _HEADINGS,
    _CHAT_ML,
)
_ALPACA = {"instruction": "user", "input": "input", "response": "assistant"}


def split_transcript(text: object) -> list[Message] | None:
    """Return the turns of a text like "\\n\\nHuman: Hi\\n\\nAssistant: Hello.", or None if it is not a transcript.

    A transcript begins with the first turn, and has turns of the user and the assistant. Only headings with ### may
    have a text before them, which becomes a system message. Empty turns, such as the place for an answer, are left out.
    """
    if not isinstance(text, str):
        return None
    for mark in _MARKS:
        preamble, *parts = mark.split(text)
        roles = [role_of(name) or _ALPACA.get(name.lower(), "") for name in parts[::2]]
        texts = [part.strip().removesuffix("<|im_end|>").strip() for part in parts[1::2]]
        begins = mark is _HEADINGS or not preamble.strip()
        if begins and {"user", "assistant"} <= {*roles} and roles[0] in ("user", "system"):
            return _messages([("system", preamble.strip()), *zip(roles, texts, strict=True)])
    return None


def _messages(turns: list[tuple[str, str]]) -> list[Message]:
    messages: list[Message] = []
    for role, text in turns:
        if role == "input" and messages:
            messages[-1] = Message(messages[-1].role, messages[-1].text, text)
        elif text and role != "input":
            messages.append(Message(role, text))  # type: ignore[arg-type]
    return messages
