"""Read preference files: prompts with a better and a worse answer, in the shapes of published data sets.

A shape is a function that returns the prompt and both answers of a record, or None if the record has another shape. To
read one more format, write such a function and add it to SHAPES.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.common.messages import Notify
from src.data.chats import CHAT_KEYS, in_turns, is_chat, read_chat, read_message, split_transcript
from src.data.fields import Fields, LeftOut, as_number
from src.data.grouping import join_labelled_answers
from src.data.input_file import find_shipped
from src.data.inspection import notes_on_record
from src.data.instructions import NOT_LEARNED, chat_key, read_prompt
from src.data.prompts import Message
from src.data.questions import ANSWER_KEYS, INPUT_KEYS, QUESTION_KEYS, SYSTEM_KEYS, question_key, read_system
from src.data.record_files import load_records
from src.data.records import BadRecord

PREFERENCES = Path("Data/preference_data.json")
_EXPECTED = (
    "expected 'instruction' or 'prompt', 'chosen' and 'rejected', or the last two alone as lists of messages "
    "(all formats: src/data/README.md)"
)
CHOSEN_KEYS = ("chosen", "chosen_response", "preferred", "preferred_output")
REJECTED_KEYS = ("rejected", "rejected_response", "dispreferred", "non_preferred_output")
_KNOWN_KEYS = (*QUESTION_KEYS, *INPUT_KEYS, *SYSTEM_KEYS, *CHOSEN_KEYS, *REJECTED_KEYS, *CHAT_KEYS)

Prompt = list[Message]  # [] if the answers are whole chats
Answers = tuple[Prompt, list[Message], list[Message]]  # the prompt; the chosen and the rejected answer, or whole chats


@dataclass(frozen=True)
class Preference:
    """A prompt with its better and its worse answer. `where` is the record they came from, for error messages."""

    where: str
    messages: tuple[Message, ...]  # the prompt; the last message is the user's
    chosen: str
    rejected: str


def load_preferences(path: str | Path, *, skip_bad: bool = False, notify: Notify = print) -> list[Preference]:
    """Load the preferences of a data file, in any of the shapes in src/data/README.md, also mixed in one file.

    White space around texts is stripped. `notify` gets a line for each kind of thing that was left out or changed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has bad records, unless `skip_bad` leaves them out; or no record is left.
    """
    path = find_shipped(PREFERENCES) if Path(path) == PREFERENCES else Path(path)
    loaded = load_records(path, read_preference, join_labelled_answers, skip_bad=skip_bad, notify=notify)
    return [Preference(where, *read) for where, read in loaded]


def chosen_and_rejected(fields: Fields) -> Answers | None:
    """{"prompt", "chosen", "rejected"} under any of their names: texts, transcripts, messages or lists of messages."""
    chosen, rejected = fields.first(CHOSEN_KEYS), fields.first(REJECTED_KEYS)
    if chosen is None or rejected is None:
        return None
    return _read_prompt(fields), _read_answer(fields, chosen), _read_answer(fields, rejected)


def list_of_answers(fields: Fields) -> Answers | None:
    """LLaMA-Factory: {"instruction", "input", "output": [chosen, rejected]}."""
    key = fields.first(ANSWER_KEYS) or ANSWER_KEYS[0]
    answers = fields.peek(key)
    if not isinstance(answers, list) or is_chat(answers) or question_key(fields) is None:
        return None
    if len(answers) != 2:
        raise fields.error(f"{fields.key(key)!r} has {len(answers)} answers, expected [chosen, rejected]")
    chosen, rejected = (Message("assistant", fields.checked_text(text, key)) for text in fields.value(key))
    return read_prompt(fields), [chosen], [rejected]


def numbered_answers(fields: Fields) -> Answers | None:
    """PKU-SafeRLHF: {"prompt", "response_0", "response_1", "better_response_id"}."""
    better = as_number(fields.peek("better_response_id"))
    if better not in (0, 1):
        return None
    fields.value("better_response_id")
    names = ("response_1", "response_0") if better else ("response_0", "response_1")
    chosen, rejected = (Message("assistant", fields.text(name)) for name in names)
    return read_prompt(fields), [chosen], [rejected]


def replies_to_a_post(fields: Fields) -> Answers | None:
    """SHP: {"history", "human_ref_A", "human_ref_B", "labels"}. The history is the post; 1 prefers A, and 0 B."""
    label = as_number(fields.peek("labels"))
    if label not in (0, 1) or not fields.has("human_ref_A"):
        return None
    fields.value("labels")
    names = ("human_ref_A", "human_ref_B") if label else ("human_ref_B", "human_ref_A")
    chosen, rejected = (Message("assistant", fields.text(name)) for name in names)
    return [Message("user", fields.text("history"))], [chosen], [rejected]


def chats_of_two_models(fields: Fields) -> Answers | None:
    """Chatbot Arena: {"conversation_a", "conversation_b", "winner": "model_a", "model_b" or a tie}."""
    if not (fields.has("conversation_a") and fields.has("conversation_b") and fields.has("winner")):
        return None
    winner = fields.text("winner")
    if winner not in ("model_a", "model_b"):
        raise LeftOut("neither answer is better")
    chats = {f"model_{side}": read_chat(fields, f"conversation_{side}") for side in "ab"}
    chosen, rejected = chats.pop(winner), next(iter(chats.values()))
    if chosen[:-1] != rejected[:-1]:
        raise LeftOut("the chats differ before their last answer")
    return [], chosen, rejected


def ranked_answers(fields: Fields) -> Answers | None:
    """Nectar: {"prompt", "answers": [{"answer", "rank"}, ...]}. The best and the worst answer are a pair."""
    answers = fields.peek("answers")
    if not is_chat(answers) or any(as_number(answer.get("rank")) is None for answer in answers):
        return None
    ranked = sorted(fields.value("answers"), key=lambda answer: as_number(answer["rank"]) or 0.0)
    if len(ranked) > 2:
        fields.note("the answers between the best and the worst are not read")
    best, worst = (fields.inside(fields.where, answer, "answers").text("answer") for answer in (ranked[0], ranked[-1]))
    return read_prompt(fields), [Message("assistant", best)], [Message("assistant", worst)]


SHAPES: Sequence[Callable[[Fields], Answers | None]] = (
    chosen_and_rejected,
    list_of_answers,
    numbered_answers,
    replies_to_a_post,
    chats_of_two_models,
    ranked_answers,
)


def _read_prompt(fields: Fields) -> list[Message]:
    """The messages before the answers: a question, or a list of messages. [] if the record has neither."""
    if isinstance(fields.peek("input"), dict) and fields.first(QUESTION_KEYS) is None:
        # OpenAI: {"input": {"messages": [...]}}
        inner = fields.inside(f"{fields.where}, 'input'", fields.value("input"), "input")
        prompt = _read_prompt(inner)
        inner.note_unread()
        return prompt
    if question_key(fields) is not None:
        return read_prompt(fields)
    key = chat_key(fields)
    answers = [fields.peek(name) for name in CHOSEN_KEYS + REJECTED_KEYS]
    messages = read_chat(fields, key) if key and fields.peek(key) not in answers else []  # UltraFeedback repeats one
    return [*read_system(fields), *messages]


def _read_answer(fields: Fields, key: str) -> list[Message]:
    """An answer, or the whole chat with the answer at its end."""
    value = fields.value(key)
    if is_chat(value) or value == []:
        return read_chat(fields, key)
    if isinstance(value, dict):
        return [read_message(fields.inside(f"{fields.where}, {fields.key(key)!r}", value, key))]
    return split_transcript(value) or [Message("assistant", fields.text(key))]


def read_preference(fields: Fields) -> tuple[tuple[Message, ...], str, str]:
    """Return the prompt, the chosen and the rejected answer of a record.

    Raises BadRecord if no shape fits or the answers are no alternatives, LeftOut if there is nothing to learn.
    """
    if not fields.is_learned():
        raise LeftOut(NOT_LEARNED)
    fields.refuse_media()
    answers = next((answers for shape in SHAPES if (answers := shape(fields)) is not None), None)
    if answers is None:
        raise unknown_shape(fields)
    prompt, chosen_chat, rejected_chat = answers
    before, chosen = _split_answer(fields, prompt, chosen_chat, "chosen")
    before_rejected, rejected = _split_answer(fields, prompt, rejected_chat, "rejected")
    if before != before_rejected:
        raise fields.error("'chosen' and 'rejected' differ before their last message, expected the same prompt in both")
    if chosen == rejected:
        raise fields.error("'chosen' and 'rejected' are identical, expected two different answers; change one")
    fields.note_unread()
    for note in notes_on_record("\n".join([*(message.text for message in before), chosen, rejected])):
        fields.note(note)
    return tuple(before), chosen, rejected


def _split_answer(
    fields: Fields, prompt: list[Message], messages: list[Message], name: str
) -> tuple[list[Message], str]:
    """Return the turns before the answer, which include the record's prompt, and the text of the answer."""
    *chat, answer = messages
    if answer.role != "assistant":
        raise fields.error(f"{name!r} ends with the role {answer.role!r}, expected 'assistant'")
    if chat:  # it has the prompt in it
        whole = "\n".join(message.text for message in messages)
        asked = [text for message in prompt if message.role != "system" for text in (message.text, message.input)]
        if not all(text in whole for text in asked):
            raise fields.error(f"the prompt is not a part of the chat in {name!r}; keep one of them")
        chat = [message for message in prompt if message.role == "system"] + chat
    turns = in_turns(chat or prompt, fields.note)
    if not turns:
        raise fields.missing(("instruction", "prompt"), _EXPECTED, _KNOWN_KEYS)
    if turns[-1].role != "user":
        raise fields.error(f"the prompt ends with the role {turns[-1].role!r}, expected 'user'")
    return turns, answer.text


def unknown_shape(fields: Fields) -> BadRecord:
    """The error for a record that no shape fits."""
    has_choice = fields.first(CHOSEN_KEYS + REJECTED_KEYS) is not None
    if not has_choice and (chat_key(fields) or (question_key(fields) and fields.first(ANSWER_KEYS))):
        return fields.error(
            "has one answer, expected a 'chosen' and a 'rejected' one; "
            "train on single answers with python instruction_tune.py --data FILE"
        )
    return fields.missing(("rejected",) if fields.first(CHOSEN_KEYS) else ("chosen",), _EXPECTED, _KNOWN_KEYS)
