"""Read preference files: prompts with a chosen and a rejected answer, in our format or any of TRL's three."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from src.data.instructions import instruction_message, message_list, read_message, read_messages
from src.data.prompts import Message
from src.data.record_files import read_records
from src.data.records import BadRecord, Record, key_names, only_key, parse_records, text_of

PREFERENCES = Path("Data/preference_data.json")
FORMATS = "expected 'instruction' or 'prompt', 'chosen' and 'rejected', or the last two alone as lists of messages"


@dataclass(frozen=True)
class Preference:
    """A prompt with its better and its worse answer. `where` is the record they came from, for error messages."""

    where: str
    messages: tuple[Message, ...]  # the prompt; the last message is the user's
    chosen: str
    rejected: str


def load_preferences(
    path: str | Path, *, skip_bad: bool = False, notify: Callable[[str], None] = print
) -> list[Preference]:
    """Load a JSON or JSONL file. Each record may have any of four formats:

    {"instruction", "chosen", "rejected"} with an optional "input"; {"prompt", "chosen", "rejected"} as texts; the same
    three as lists of messages, with one message per answer; or "chosen" and "rejected" as whole conversations that
    differ in their last message. White space around texts is stripped; other keys are ignored.
    skip_bad: leave bad records out, if at most a tenth are bad.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no records, or a record has none of these formats; one line with the first problems.
    """
    return parse_records(_preference, read_records(path), skip_bad=skip_bad, notify=notify)


def _preference(where: str, record: Record) -> Preference:
    for key in ("chosen", "rejected"):
        if key not in record:
            raise BadRecord(where, f"{key!r} is missing, {key_names(record)}; {FORMATS}")
    messages, chosen, rejected = _prompt_and_answers(where, record)
    if chosen == rejected:
        raise BadRecord(where, "'chosen' and 'rejected' are identical, expected two different answers; change one")
    return Preference(where, messages, chosen, rejected)


def _prompt_and_answers(where: str, record: Record) -> tuple[tuple[Message, ...], str, str]:
    whole_chats = isinstance(record["chosen"], list) and isinstance(record["rejected"], list)
    if whole_chats and "prompt" not in record and "instruction" not in record:
        return _split_chats(where, record)
    prompt_key = only_key(where, record, ("instruction", "prompt"), FORMATS)
    if prompt_key == "prompt" and isinstance(record["prompt"], list):
        prompt = read_messages(where, record, "prompt", last="user")
        return prompt, _answer_text(where, record, "chosen"), _answer_text(where, record, "rejected")
    if prompt_key == "prompt":
        message = Message("user", text_of(where, record, "prompt"))
    else:
        message = instruction_message(where, record)
    return (message,), text_of(where, record, "chosen"), text_of(where, record, "rejected")


def _split_chats(where: str, record: Record) -> tuple[tuple[Message, ...], str, str]:
    """Split each chat before its last message. The prompts must be the same."""
    *chosen_prompt, chosen = read_messages(where, record, "chosen", last="assistant")
    *rejected_prompt, rejected = read_messages(where, record, "rejected", last="assistant")
    if chosen_prompt != rejected_prompt:
        raise BadRecord(
            where, "'chosen' and 'rejected' differ before their last message, expected the same prompt in both"
        )
    return tuple(chosen_prompt), chosen.text, rejected.text


def _answer_text(where: str, record: Record, key: str) -> str:
    messages = message_list(where, record, key)
    if len(messages) != 1:
        raise BadRecord(where, f"{key!r} has {len(messages)} messages, expected only the assistant's answer")
    answer = read_message(f"{where}, message 1 of {key!r}", messages[0])
    if answer.role != "assistant":
        raise BadRecord(f"{where}, message 1 of {key!r}", f"found the role {answer.role!r}, expected 'assistant'")
    return answer.text
