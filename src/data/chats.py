"""Read a chat: a list of messages in any of the usual spellings, or a text in which a whole chat is written out."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from src.common.messages import Notify
from src.data.fields import Fields, LeftOut, decoded_list
from src.data.prompts import Message, Role
from src.data.questions import (
    ANSWER_KEYS,
    INPUT_KEYS,
    TOOL_CALLS,
    read_answer,
    read_content,
    read_material,
    read_question,
    read_system,
)
from src.data.records import type_name

CHAT_KEYS = ("messages", "conversations", "conversation")
EXAMPLE_CHAT = "[{'role': ..., 'content': ...}, ...]"

_SPEAKERS: dict[Role, tuple[str, ...]] = {
    "user": ("user", "human", "prompter", "customer"),
    "assistant": ("assistant", "gpt", "chatgpt", "gpt-4", "bard", "bing", "claude", "gemini", "llama", "model", "bot",
                  "chatbot", "ai"),
    "system": ("system", "developer"),
}  # fmt: skip
_ROLE_KEYS = ("role", "from", "speaker")
_CONTENT_KEYS = ("content", "value", "text", "parts", "message")
_TOOL_ROLES = ("tool", "function", "ipython", "observation", "tool_call", "tool_response", "function_call",
               "function_response")  # fmt: skip
_TOOL_KEYS = ("tool_calls", "function_call")

# The marks before the turns of a transcript.
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


def read_chat(fields: Fields, name: str) -> list[Message]:
    """Return the messages of the list under `name`, in their order.

    An entry is a message with its role, an object with the role as its key, a question with its answer, or the two as
    a pair of texts. A list of texts alone alternates between user and assistant.
    Raises BadRecord if an entry is something else, LeftOut for tool calls.
    """
    key, entries = fields.key(name), message_list(fields, name)
    if len(entries) > 1 and all(isinstance(entry, str) for entry in entries):
        entries = [entries[start : start + 2] for start in range(0, len(entries), 2)]
    messages: list[Message] = []
    for number, entry in enumerate(entries, start=1):
        where = f"{fields.where}, message {number} of {key!r}"
        inner = fields.inside(where, entry if isinstance(entry, dict) else {}, key)
        messages += _read_entry(inner, entry)
    return messages


def role_of(speaker: str) -> Role | None:
    """The role of a speaker by any of the usual names, or None."""
    return next((role for role, speakers in _SPEAKERS.items() if speaker.lower() in speakers), None)


def is_chat(value: object) -> bool:
    """Whether a value is a list of objects: messages, if anything."""
    return isinstance(value, list) and value != [] and all(isinstance(entry, dict) for entry in value)


def message_list(fields: Fields, name: str) -> list[Any]:
    """Return the non-empty list under `name`, or the list that its text spells; raises BadRecord if there is none."""
    value, key = decoded_list(fields.value(name)), fields.key(name)
    if not isinstance(value, list):
        raise fields.error(f"{key!r} is {type_name(value)}, expected a list of messages {EXAMPLE_CHAT}")
    if not value:
        raise fields.error(f"{key!r} is empty; add messages or remove the record")
    return value


def _read_entry(fields: Fields, entry: Any) -> list[Message]:
    if isinstance(entry, list) and 1 <= len(entry) <= 2:
        texts = [fields.checked_text(text, "a text of the pair") for text in entry]
        return [Message("user", texts[0]), *(Message("assistant", text) for text in texts[1:])]
    if not isinstance(entry, dict):
        raise fields.error(f"found {type_name(entry)}, expected an object with 'role' and 'content'")
    has_role = fields.first(_ROLE_KEYS) is not None
    if not has_role and fields.first(ANSWER_KEYS):
        messages = [*read_system(fields), read_question(fields), read_answer(fields)]
    elif not has_role and any(map(role_of, entry)):
        messages = [Message(role, fields.text(key)) for key in entry if fields.has(key) and (role := role_of(key))]
    else:
        messages = [read_message(fields)]
    fields.note_unread()
    return messages


def read_message(fields: Fields) -> Message:
    """Return the message of a role and a content. Raises BadRecord if one is missing or unknown, LeftOut for tools."""
    speaker = fields.text(fields.first(_ROLE_KEYS) or "role")
    if speaker.lower() in _TOOL_ROLES or any(fields.has(name) for name in _TOOL_KEYS):
        raise LeftOut(TOOL_CALLS)
    role = role_of(speaker)
    if role is None:
        raise fields.error(f"unknown role {speaker[:30]!r}, expected 'system', 'user' or 'assistant'")
    fields.refuse_media()
    text = read_content(fields, fields.first(_CONTENT_KEYS) or "content", may_be_empty=role == "system")
    is_learned = fields.is_learned()  # read for every role: ShareGPT's users have a weight of 0
    if role == "assistant":
        return Message(role, text, supervised=is_learned)
    return Message(role, text, read_material(fields, INPUT_KEYS) if role == "user" else "")


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
            return _messages_of([("system", preamble.strip()), *zip(roles, texts, strict=True)])
    return None


def _messages_of(turns: list[tuple[str, str]]) -> list[Message]:
    messages: list[Message] = []
    for role, text in turns:
        if role == "input" and messages:
            messages[-1] = Message(messages[-1].role, messages[-1].text, text)
        elif text and role != "input":
            messages.append(Message(role, text))  # type: ignore[arg-type]
    return messages


def in_turns(messages: Sequence[Message], note: Notify) -> list[Message]:
    """Return the chat with at most one system message, at the start, and then user and assistant in turn.

    A chat out of turn is changed as src/sk_integration/history.py does it, and `note` reports that. A greeting of the
    assistant before the first question is dropped. Consecutive messages of one role are joined. A later system message
    becomes a part of the user's.
    """
    messages = [message for message in messages if message.text]  # a system message may be empty
    start = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    system = "\n\n".join(dict.fromkeys(message.text for message in messages[:start]))
    rest = [replace(message, role="user") if message.role == "system" else message for message in messages[start:]]
    if any(message.role == "system" for message in messages[start:]):
        note("a system message after the first message is read as the user's")
    turns = [_join(list(group)) for _, group in groupby(rest, key=lambda message: message.role)]
    if len(turns) < len(rest):
        note("consecutive messages of one role are joined")
    if len(turns) > 1 and turns[0].role == "assistant":
        note("the assistant's greeting before the first question is left out")
        del turns[0]
    return [*([Message("system", system)] if system else []), *turns]


def _join(messages: list[Message]) -> Message:
    """Messages of one role as one message. Joined answers are supervised only if all of them are."""
    *earlier, last = messages
    texts = [text for message in earlier for text in (message.text, message.input)] + [last.text]
    supervised = all(message.supervised for message in messages)
    return Message(last.role, "\n\n".join(filter(None, texts)), last.input, supervised)
