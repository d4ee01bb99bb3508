"""Read a question, its material, its answer and its system message, each under any of the usual keys."""

from collections.abc import Iterator, Sequence
from typing import Any

from src.data.fields import Fields, LeftOut
from src.data.prompts import Message, opening_text

QUESTION_KEYS = ("instruction", "prompt", "question", "query")
INPUT_KEYS = ("input", "inputs", "context")  # the first two hold the question, if nothing else does
ANSWER_KEYS = ("response", "output", "completion", "answer", "target", "targets")
SYSTEM_KEYS = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")
FACTS_KEY = "facts"

TOOL_CALLS = "tool calls"

_MISSING = ("n/a", "none", "null", "nan")  # what programs write for a missing value
_PLACEHOLDERS = ("<noinput>", "<no input>", "[noinput]", "noinput", "no input", *_MISSING)
_NO_OUTPUT = ("<nooutput>", "<no output>", "nooutput")
_TEXT_PARTS = ("text", "input_text", "output_text")
_THOUGHT_PARTS = ("thinking", "reasoning")
_TOOL_PARTS = ("tool_use", "tool_result", "tool_call")


def question_key(fields: Fields) -> str | None:
    """Return the key of a record's question, or None. If the question is empty, its material takes its place."""
    key, other = fields.first(QUESTION_KEYS), fields.first(INPUT_KEYS[:2])
    return other if key is None or (other and fields.has(other) and not fields.has(key)) else key


def read_question(fields: Fields) -> Message:
    """Return the user message of a question and its material. Raises BadRecord if they are missing or not text."""
    key = question_key(fields) or QUESTION_KEYS[0]
    material = read_material(fields, [name for name in INPUT_KEYS if name != key])
    return Message("user", read_content(fields, key), material)


def read_material(fields: Fields, names: Sequence[str] = INPUT_KEYS) -> str:
    """Return the texts under these keys, often "". A placeholder such as <noinput> is empty."""
    texts = [fields.text(name) for name in names if fields.has(name)]
    if placeholders := [text for text in texts if text.lower() in _PLACEHOLDERS]:
        fields.note(f"an input that is {placeholders[0]!r} is read as empty")
    return "\n\n".join(dict.fromkeys(text for text in texts if text not in placeholders))


def read_answer(fields: Fields) -> Message:
    """Return the assistant's message under a key for answers. Raises BadRecord if it is missing, empty or not text."""
    key = fields.first(ANSWER_KEYS) or ANSWER_KEYS[0]
    text = read_content(fields, key)
    if text.lower() in _NO_OUTPUT:
        raise fields.error(f"{fields.key(key)!r} is {text!r}, which is no answer; fill it in or remove the record")
    if text.lower() in _MISSING:
        fields.note(f"an answer that is {text!r} is learned as it is")
    return Message("assistant", text)


def read_system(fields: Fields) -> list[Message]:
    """Return the system message that a record has next to its question or chat; [] if there is none.

    Facts about the user, a text or a list of texts, are appended to it, as in a chat that recalls them.
    """
    key = fields.first(SYSTEM_KEYS)
    system = read_content(fields, key) if key and fields.has(key) else ""
    facts = fields.value(FACTS_KEY) if fields.has(FACTS_KEY) else []
    facts = facts if isinstance(facts, list) else [facts]
    text = opening_text(system, [fields.checked_text(fact, FACTS_KEY) for fact in facts])
    return [Message("system", text)] if text else []


def read_content(fields: Fields, key: str, *, may_be_empty: bool = False) -> str:
    """Return the text under `key`. It may be a list of parts: {"type": "text", "text": ...}, {"text": ...}, or texts.

    Raises BadRecord for anything but text, such as an image; LeftOut for tool calls.
    """
    value = fields.value(key)
    if isinstance(value, dict) and isinstance(value.get("parts"), list):  # Gemini's, and ChatGPT's exports
        value = [{"text": part} if isinstance(part, str) else part for part in value["parts"]]
    if not value or not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return fields.text(key, may_be_empty=may_be_empty)
    text = "\n".join(_part_texts(fields, value, fields.key(key)))
    return fields.checked_text(text, fields.key(key), may_be_empty=may_be_empty)


def _part_texts(fields: Fields, parts: Sequence[dict[str, Any]], key: str) -> Iterator[str]:
    for part in parts:
        type_ = part.get("type", "text")
        if type_ in _TOOL_PARTS:
            raise LeftOut(TOOL_CALLS)
        if type_ in _THOUGHT_PARTS:
            fields.note(f"parts of type {type_!r} are not read")
        elif type_ in _TEXT_PARTS and isinstance(part.get("text"), str):
            yield part["text"]
        else:
            raise fields.error(f"{key!r} has a part of type {str(type_)[:30]!r}, but the model reads only text parts")
