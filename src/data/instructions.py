"""Read instruction files: questions with their answers, and chats, in the shapes of published data sets.

A shape is a function that returns the chats of a record, or None if the record has another shape. To read one more
format, write such a function and add it to SHAPES.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.common.messages import Notify
from src.data.chats import CHAT_KEYS, EXAMPLE_CHAT, in_turns, is_chat, read_chat, split_transcript
from src.data.fields import Fields, LeftOut, as_bool
from src.data.grouping import LABEL_KEYS, best_path, join_trees
from src.data.input_file import find_shipped
from src.data.inspection import notes_on_record
from src.data.prompts import Message
from src.data.questions import (
    ANSWER_KEYS,
    FACTS_KEY,
    INPUT_KEYS,
    QUESTION_KEYS,
    SYSTEM_KEYS,
    question_key,
    read_answer,
    read_material,
    read_question,
    read_system,
)
from src.data.record_files import load_records
from src.data.records import BadRecord, type_name

INSTRUCTIONS = Path("Data/instruction_data.json")
_EXPECTED = (
    "expected 'instruction' and 'response', Alpaca's 'instruction', 'input' and 'output', or chat 'messages' "
    "(all formats: src/data/README.md)"
)
NOT_LEARNED = "marked as not to be learned"
_OTHER_CHAT_KEYS = ("dialogue", "dialog", "chat", "turns", "contents", "data")  # only if there is no question
_TRANSCRIPT_KEYS = ("text", *CHAT_KEYS, *_OTHER_CHAT_KEYS[:3], "transcript")
_OTHER_STRUCTURES = {
    "paragraphs": "is in SQuAD's original structure; its flat form is read: --data rajpurkar/squad",
    "mapping": "is a chat that ChatGPT exported, a graph of messages; write it as a list of 'messages' first",
    "body": "is a request to an API, not an example; write its messages and the answer as chat 'messages'",
}
_TEMPLATE_MARK = re.compile(r"\[INST\]|<\|user\|>|<start_of_turn>|<\|start_header_id\|>|\b(?:USER|ASSISTANT):")
_KNOWN_KEYS = (*QUESTION_KEYS, *INPUT_KEYS, *ANSWER_KEYS, *SYSTEM_KEYS, FACTS_KEY, *CHAT_KEYS, "history", "instances")

Chats = list[list[Message]]


@dataclass(frozen=True)
class Conversation:
    """Messages, the last one from the assistant. `where` is the record they came from, for error messages."""

    where: str
    messages: tuple[Message, ...]


def load_conversations(path: str | Path, *, skip_bad: bool = False, notify: Notify = print) -> list[Conversation]:
    """Load the conversations of a data file, in any of the shapes in src/data/README.md, also mixed in one file.

    White space around texts is stripped. `notify` gets a line for each kind of thing that was left out or changed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has bad records, unless `skip_bad` leaves them out; or no record is left.
    """
    path = find_shipped(INSTRUCTIONS) if Path(path) == INSTRUCTIONS else Path(path)
    loaded = load_records(path, read_conversations, join_trees, skip_bad=skip_bad, notify=notify)
    return [Conversation(where, messages) for where, conversations in loaded for messages in conversations]


def tree(fields: Fields) -> Chats | None:
    """OASST: {"prompt": {"role", "text", "replies": [...]}}, read along its best path."""
    path = best_path(fields)
    return None if path is None else [path]


def chat(fields: Fields) -> Chats | None:
    """{"messages": [...]} or another name for it, with an optional system message next to it."""
    key = chat_key(fields)
    if key is None:
        return None
    messages = [*read_system(fields), *read_chat(fields, key)]
    asked = fields.first(QUESTION_KEYS)
    if asked and fields.has(asked) and fields.text(asked) not in [message.text for message in messages]:
        raise fields.error(f"has both {fields.key(asked)!r} and {fields.key(key)!r}; keep one of them")
    return [messages]


def task_with_instances(fields: Fields) -> Chats | None:
    """Self-instruct's seeds: {"instruction", "instances": [{"input", "output"}, ...]}. Each instance is a chat."""
    if not is_chat(fields.peek("instances")):
        return None
    chats: Chats = []
    for number, instance in enumerate(fields.value("instances"), start=1):
        inner = fields.inside(f"{fields.where}, instance {number}", instance, "instances")
        question = replace(read_question(fields), input=read_material(inner))
        chats.append([*read_system(fields), question, read_answer(inner)])
        inner.note_unread()
    return chats


def question_and_answer(fields: Fields) -> Chats | None:
    """{"instruction", "input", "output"} under any of their names, with optional "system" and "history"."""
    key = fields.first(ANSWER_KEYS)
    if key is None or question_key(fields) is None:
        return None
    answer = read_chat(fields, key) if is_chat(fields.peek(key)) else [read_answer(fields)]
    return [[*read_prompt(fields), *answer]]


def transcript(fields: Fields) -> Chats | None:
    """{"text": "### Human: ...### Assistant: ..."}, or another text in which a whole chat is written out."""
    for key in _TRANSCRIPT_KEYS:
        if messages := split_transcript(fields.peek(key)):
            fields.value(key)
            return [[*read_system(fields), *messages]]
    return None


def accepted_answers(fields: Fields) -> Chats | None:
    """SQuAD: {"question", "context", "answers": {"text": [...]}}, or a list of texts. The first one is learned."""
    key, answers = question_key(fields), fields.peek("answers")
    if key is None or not isinstance(answers, dict | list):
        return None
    answers = fields.value("answers")
    texts = answers.get("text") if isinstance(answers, dict) else answers
    if not isinstance(texts, list):
        raise fields.error("'answers' holds no list of texts, expected [...] or {'text': [...]}")
    if not texts:
        raise LeftOut("questions without an answer")
    if any(text != texts[0] for text in texts):
        fields.note("of several 'answers', the first is read")
    return [[*read_prompt(fields), Message("assistant", fields.checked_text(texts[0], "answers"))]]


SHAPES: Sequence[Callable[[Fields], Chats | None]] = (
    tree,
    chat,
    task_with_instances,
    question_and_answer,
    accepted_answers,
    transcript,
)


def chat_key(fields: Fields) -> str | None:
    """Return the key of a record's list of messages, or None."""
    has_question = question_key(fields) is not None
    allowed = CHAT_KEYS if has_question else CHAT_KEYS + _OTHER_CHAT_KEYS
    names = [name for name in allowed if _is_list(fields.peek(name))]
    return fields.first([name for name in names if fields.has(name) or not has_question])


def _is_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))  # JSON in a table


def read_prompt(fields: Fields) -> list[Message]:
    """Return the system message, the earlier turns and the question of a record.

    The question may also be a list of messages, or a transcript. Raises BadRecord if there is no question.
    """
    key = question_key(fields) or QUESTION_KEYS[0]
    value = fields.value(key)
    turns = read_chat(fields, key) if isinstance(value, list) else split_transcript(value)
    if turns and turns[-1].role == "user":
        material = read_material(fields, [name for name in INPUT_KEYS if name != key])
        turns[-1] = replace(turns[-1], input=material or turns[-1].input)
    history = read_chat(fields, "history") if fields.has("history") else []
    return [*read_system(fields), *history, *(turns or [read_question(fields)])]


def read_conversations(fields: Fields) -> list[tuple[Message, ...]]:
    """Return the conversations of a record, each with its turns in order and an answer at its end.

    Raises BadRecord if no shape fits or a text is missing, LeftOut if there is nothing to learn.
    """
    labels = [as_bool(fields.value(name)) for name in LABEL_KEYS if as_bool(fields.peek(name)) is not None]  # KTO's
    if False in labels or not fields.is_learned():
        raise LeftOut(NOT_LEARNED)
    fields.refuse_media()
    chats = next((chats for shape in SHAPES if (chats := shape(fields)) is not None), None)
    if chats is None:
        raise unknown_shape(fields)
    conversations = [_up_to_last_answer(fields, in_turns(messages, fields.note)) for messages in chats]
    fields.note_unread()
    for note in notes_on_record("\n".join(message.text for messages in conversations for message in messages)):
        fields.note(note)
    return conversations


def _up_to_last_answer(fields: Fields, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Leave out what follows the last answer to learn."""
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not answers or messages[answers[0] - 1].role != "user":
        raise fields.error("has no question with an answer, expected a user's message and then the assistant's")
    if messages[-1].role == "user":
        fields.note("a last message without an answer is left out")
    supervised = [index for index in answers if messages[index].supervised]
    if not supervised:
        raise LeftOut(NOT_LEARNED)
    return tuple(messages[: supervised[-1] + 1])


def unknown_shape(fields: Fields) -> BadRecord:
    """The error for a record that no shape fits."""
    if fields.has("chosen") and fields.has("rejected"):
        return fields.error("holds 'chosen' and 'rejected' answers; train on them with python dpo_train.py --data FILE")
    if fields.has("role") and fields.has("content"):
        return fields.error("is one message; write the whole chat as one record, {'messages': [{'role': ...}, ...]}")
    if known := next((name for name in _OTHER_STRUCTURES if fields.has(name)), None):
        return fields.error(_OTHER_STRUCTURES[known])
    if mark := _TEMPLATE_MARK.search(str(fields.peek("text") or fields.peek("chat") or "")):
        return fields.error(f"is written in another model's chat template ({mark[0]!r}); convert it to chat 'messages'")
    if fields.has("text") and question_key(fields) is None:
        return fields.error(
            "holds plain 'text' without a question and its answer; save the texts as a .txt file for python main.py"
        )
    if key := fields.first([name for name in CHAT_KEYS if fields.has(name)]):
        return fields.error(f"{key!r} is {type_name(fields.peek(key))}, expected a list of messages {EXAMPLE_CHAT}")
    wanted = ("response", "output") if question_key(fields) else ("instruction", "messages")
    return fields.missing(wanted, _EXPECTED, _KNOWN_KEYS)
