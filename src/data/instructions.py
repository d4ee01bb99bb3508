"""Read instruction files: instruction/response pairs, Alpaca records, and chats of messages."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from src.data.prompts import Message, Role
from src.data.records import Record, kind, only_key, parse_all, read_records, text_of

INSTRUCTIONS = Path("Data/instruction_data.json")
FORMATS = "expected 'instruction' and 'response', Alpaca's 'instruction', 'input' and 'output', or chat 'messages'"


@dataclass(frozen=True)
class Conversation:
    """Messages, the last one from the assistant. `where` is the record they came from, for error messages."""

    where: str
    messages: tuple[Message, ...]


def load_conversations(path: str | Path) -> list[Conversation]:
    """Load a JSON or JSONL file. Each record may have any of three formats:

    {"instruction", "response"}; Alpaca's {"instruction", "input", "output"} with an optional input; or
    {"messages": [{"role", "content"}, ...]}, where user and assistant alternate after an optional system message.
    White space around texts is stripped; other keys are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no records, or a record has none of these formats; one line with the first problem.
    """
    return parse_all(lambda located: Conversation(located[0], _messages(*located)), read_records(path))


def _messages(where: str, record: Record) -> tuple[Message, ...]:
    if only_key(where, record, ("instruction", "messages"), FORMATS) == "messages":
        return read_messages(where, record, "messages", last="assistant")
    answer_key = only_key(where, record, ("response", "output"), FORMATS)
    return (instruction_message(where, record), Message("assistant", text_of(where, record, answer_key)))


def instruction_message(where: str, record: Record) -> Message:
    """Return the user message of an "instruction" and an optional "input"; raises ValueError if either is not text."""
    has_input = record.get("input") is not None
    return Message(
        "user",
        text_of(where, record, "instruction"),
        text_of(where, record, "input", may_be_empty=True) if has_input else "",
    )


def read_messages(where: str, record: Record, key: str, last: Role) -> tuple[Message, ...]:
    """Read the chat under `key`: an optional system message, then user and assistant in turn, ending with `last`.

    An empty system message is dropped. Raises ValueError if the messages are not such a chat.
    """
    entries = message_list(where, record, key)
    messages = [read_message(f"{where}, message {n} of {key!r}", entry) for n, entry in enumerate(entries, start=1)]
    n_system = 1 if messages[0].role == "system" else 0
    for index, message in enumerate(messages[n_system:]):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            raise ValueError(
                f"{where}, message {n_system + index + 1} of {key!r}: found the role {message.role!r}, "
                f"expected {expected!r}; user and assistant must alternate, after at most one system message"
            )
    if messages[-1].role != last:
        raise ValueError(f"{where}: {key!r} ends with the role {messages[-1].role!r}, expected {last!r}")
    return tuple(message for message in messages if message.text)


def message_list(where: str, record: Record, key: str) -> list[object]:
    """Return the non-empty list under `key`; raises ValueError if it is something else."""
    value = record[key]
    if not isinstance(value, list):
        raise ValueError(
            f"{where}: {key!r} is {kind(value)}, expected a list of messages [{{'role': ..., 'content': ...}}, ...]"
        )
    if not value:
        raise ValueError(f"{where}: {key!r} is empty; add messages or remove the record")
    return value


def read_message(where: str, message: object) -> Message:
    """Read one {"role", "content"} object; raises ValueError if it is something else."""
    if not isinstance(message, dict):
        raise ValueError(f"{where}: found {kind(message)}, expected an object with 'role' and 'content'")
    role = text_of(where, message, "role")
    if role not in get_args(Role):
        raise ValueError(f"{where}: unknown role {role[:30]!r}, expected 'system', 'user' or 'assistant'")
    return Message(cast(Role, role), text_of(where, message, "content", may_be_empty=role == "system"))
