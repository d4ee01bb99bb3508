"""Read instruction files: instruction/response pairs, Alpaca records, and chats of messages."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from src.data.prompts import Message, Role
from src.data.record_files import read_records
from src.data.records import BadRecord, Record, kind, only_key, parse_records, text_of

INSTRUCTIONS = Path("Data/instruction_data.json")
FORMATS = "expected 'instruction' and 'response', Alpaca's 'instruction', 'input' and 'output', or chat 'messages'"


@dataclass(frozen=True)
class Conversation:
    """Messages, the last one from the assistant. `where` is the record they came from, for error messages."""

    where: str
    messages: tuple[Message, ...]


def load_conversations(
    path: str | Path, *, skip_bad: bool = False, notify: Callable[[str], None] = print
) -> list[Conversation]:
    """Load a JSON or JSONL file. Each record may have any of three formats:

    {"instruction", "response"}; Alpaca's {"instruction", "input", "output"} with an optional input; or
    {"messages": [{"role", "content"}, ...]}, where user and assistant alternate after an optional system message.
    White space around texts is stripped; other keys are ignored.
    skip_bad: leave bad records out, if at most a tenth are bad.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no records, or a record has none of these formats; one line with the first problems.
    """

    def parse(where: str, record: Record) -> Conversation:
        return Conversation(where, _messages(where, record))

    return parse_records(parse, read_records(path), skip_bad=skip_bad, notify=notify)


def _messages(where: str, record: Record) -> tuple[Message, ...]:
    if only_key(where, record, ("instruction", "messages"), FORMATS) == "messages":
        return read_messages(where, record, "messages", last="assistant")
    answer_key = only_key(where, record, ("response", "output"), FORMATS)
    return (instruction_message(where, record), Message("assistant", text_of(where, record, answer_key)))


def instruction_message(where: str, record: Record) -> Message:
    """Return the user message of an "instruction" and an optional "input"; raises BadRecord if either is not text."""
    has_input = record.get("input") is not None
    return Message(
        "user",
        text_of(where, record, "instruction"),
        text_of(where, record, "input", may_be_empty=True) if has_input else "",
    )


def read_messages(where: str, record: Record, key: str, last: Role) -> tuple[Message, ...]:
    """Read the chat under `key`: an optional system message, then user and assistant in turn, ending with `last`.

    An empty system message is dropped. Raises BadRecord if the messages are not such a chat.
    """
    entries = message_list(where, record, key)
    messages = [read_message(f"{where}, message {n} of {key!r}", entry) for n, entry in enumerate(entries, start=1)]
    n_system = 1 if messages[0].role == "system" else 0
    for index, message in enumerate(messages[n_system:]):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            raise BadRecord(
                f"{where}, message {n_system + index + 1} of {key!r}",
                f"found the role {message.role!r}, "
                f"expected {expected!r}; user and assistant must alternate, after at most one system message",
            )
    if messages[-1].role != last:
        raise BadRecord(where, f"{key!r} ends with the role {messages[-1].role!r}, expected {last!r}")
    return tuple(message for message in messages if message.text)


def message_list(where: str, record: Record, key: str) -> list[object]:
    """Return the non-empty list under `key`; raises BadRecord if it is something else."""
    value = record[key]
    if not isinstance(value, list):
        raise BadRecord(
            where, f"{key!r} is {kind(value)}, expected a list of messages [{{'role': ..., 'content': ...}}, ...]"
        )
    if not value:
        raise BadRecord(where, f"{key!r} is empty; add messages or remove the record")
    return value


def read_message(where: str, message: object) -> Message:
    """Read one {"role", "content"} object; raises BadRecord if it is something else."""
    if not isinstance(message, dict):
        raise BadRecord(where, f"found {kind(message)}, expected an object with 'role' and 'content'")
    role = text_of(where, message, "role")
    if role not in get_args(Role):
        raise BadRecord(where, f"unknown role {role[:30]!r}, expected 'system', 'user' or 'assistant'")
    return Message(cast(Role, role), text_of(where, message, "content", may_be_empty=role == "system"))
