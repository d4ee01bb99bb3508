"""Preference files: every format is read, and every mistake is named with its file and record."""

import json
from pathlib import Path

import pytest

from src.data.preferences import Preference, load_preferences
from src.data.prompts import Message


def say(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


SYSTEM, USER, AGAIN = say("system", "Be kind."), say("user", "Hi."), say("user", "And now?")
GOOD, BAD = say("assistant", "Hello."), say("assistant", "No.")
TEXTS = {"prompt": "Hi.", "chosen": "Hello.", "rejected": "No."}
MESSAGES = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
CHATS = {"chosen": [USER, GOOD], "rejected": [USER, BAD]}
PAIR = {"instruction": "Hi.", "chosen": "Hello.", "rejected": "No."}
HI = (Message("user", "Hi."),)
LONG_PROMPT = (
    Message("system", "Be kind."),
    *HI,
    Message("assistant", "Hello."),
    Message("user", "And now?"),
)


def save_list(tmp_path: Path, *records: object) -> Path:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """The one-line error of a refused file, without its folder."""
    with pytest.raises(ValueError) as caught:
        load_preferences(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path.parent)).lstrip("\\/")


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        (PAIR, HI),
        ({**PAIR, "input": ""}, HI),
        ({**PAIR, "input": None}, HI),
        ({**PAIR, "input": " To Ann. "}, (Message("user", "Hi.", "To Ann."),)),
        (TEXTS, HI),
        (MESSAGES, HI),
        ({**MESSAGES, "prompt": [SYSTEM, USER, GOOD, AGAIN]}, LONG_PROMPT),
        ({**MESSAGES, "prompt": [say("system", ""), USER]}, HI),
        (CHATS, HI),
        ({"chosen": [SYSTEM, USER, GOOD, AGAIN, GOOD], "rejected": [SYSTEM, USER, GOOD, AGAIN, BAD]}, LONG_PROMPT),
        ({**CHATS, "score_chosen": 9.5, "messages": [USER, GOOD], "response": "x"}, HI),
        ({"instruction": " Hi.\n", "chosen": "\tHello. ", "rejected": " No.\r\n"}, HI),
        ({"prompt": "Hi. ", "chosen": " Hello.", "rejected": " No."}, HI),
        ({"chosen": [say("user", "Hi. "), GOOD], "rejected": [USER, say("assistant", " No. ")]}, HI),
    ],
    ids=[
        "pair", "pair, empty input", "pair, null input", "pair with input", "texts", "messages", "longer prompt",
        "empty system", "whole chats", "longer whole chats", "other keys", "pair, spaces", "texts, spaces",
        "chats, spaces",
    ],
)  # fmt: skip
def test_each_format_becomes_a_prompt_and_two_answers(
    tmp_path: Path, record: dict[str, object], messages: tuple[Message, ...]
) -> None:
    path = save_list(tmp_path, record)
    assert load_preferences(path) == [Preference(f"{path} record 1", messages, "Hello.", "No.")]


def test_formats_can_be_mixed_in_one_file(tmp_path: Path) -> None:
    path = save_list(tmp_path, PAIR, TEXTS, MESSAGES, CHATS)
    assert load_preferences(path) == [Preference(f"{path} record {n}", HI, "Hello.", "No.") for n in range(1, 5)]


def test_jsonl_records_are_located_by_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\n\n{json.dumps(CHATS)}\n", encoding="utf-8")
    assert [preference.where for preference in load_preferences(path)] == [f"{path} line 1", f"{path} line 3"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "'chosen' is missing, found no keys; expected 'instruction' or 'prompt', 'chosen' and 'rejected'"),
        ({"instruction": "a", "chosen": "b"}, "'rejected' is missing, found 'instruction', 'chosen'; expected"),
        ({"instruction": "a", "choosen": "b", "rejected": "c"}, "'chosen' is missing, found 'instruction', 'choosen',"),
        (
            {"chosen": "b", "rejected": "c"},
            "'instruction' or 'prompt' is missing, found 'chosen', 'rejected'; expected",
        ),
        ({"chosen": [USER, GOOD], "rejected": "No."}, "'instruction' or 'prompt' is missing, found 'chosen', 'rejecte"),
        ({**PAIR, "prompt": "Bye."}, "has both 'instruction' and 'prompt'; keep one of them"),
        ({**PAIR, "chosen": None}, "'chosen' is null, expected text in quotes"),
        ({**PAIR, "rejected": None}, "'rejected' is null, expected text in quotes"),
        ({**PAIR, "chosen": ["Hello.", "No."]}, "'chosen' is a list, expected text in quotes"),
        ({**PAIR, "instruction": " "}, "'instruction' is empty; fill it in or remove th"),
        ({**PAIR, "chosen": ""}, "'chosen' is empty; fill it in or remove the record"),
        ({**PAIR, "rejected": "\n"}, "'rejected' is empty; fill it in or remove the rec"),
        ({**TEXTS, "prompt": ""}, "'prompt' is empty; fill it in or remove the record"),
        ({**TEXTS, "prompt": None}, "'prompt' is null, expected text in quotes"),
        ({**PAIR, "rejected": "Hello."}, "'chosen' and 'rejected' are identical, expected two different answers; chan"),
        ({**TEXTS, "rejected": " Hello.\n"}, "'chosen' and 'rejected' are identical, expected two different answers"),
        ({**MESSAGES, "rejected": [GOOD]}, "'chosen' and 'rejected' are identical, expected two different answers"),
        ({**CHATS, "rejected": [USER, GOOD]}, "'chosen' and 'rejected' are identical, expected two different answers"),
        ({**MESSAGES, "prompt": []}, "'prompt' is empty; add messages or remove the rec"),
        ({**MESSAGES, "prompt": [USER, GOOD]}, "the prompt ends with the role 'assistant', expected 'user'"),
        ({**MESSAGES, "prompt": [SYSTEM]}, "the prompt ends with the role 'system', expected 'user'"),
        ({**MESSAGES, "prompt": ["Hi."]}, ", message 1 of 'prompt': found text, expected an object with 'role' and 'c"),
        ({**MESSAGES, "chosen": []}, "'chosen' is empty; add messages or remove the rec"),
        ({**MESSAGES, "chosen": [AGAIN, GOOD]}, "the prompt is not a part of the chat in 'chosen'; keep one of them"),
        ({**MESSAGES, "chosen": [USER]}, "'chosen' ends with the role 'user', expected 'assistant'"),
        ({**MESSAGES, "rejected": [say("cat", "No.")]}, ", message 1 of 'rejected': unknown role 'cat', expected 'sys"),
        ({**MESSAGES, "rejected": [say("assistant", " ")]}, ", message 1 of 'rejected': 'content' is empty; "),
        ({**MESSAGES, "rejected": [say("assistant", None)]}, ", message 1 of 'rejected': 'content' is null, expected"),
        ({**MESSAGES, "rejected": [{"role": "assistant"}]}, ", message 1 of 'rejected': 'content' is missing, found '"),
        ({**CHATS, "rejected": [AGAIN, BAD]}, "'chosen' and 'rejected' differ before their last message, expected the"),
        ({**CHATS, "rejected": [SYSTEM, USER, BAD]}, "'chosen' and 'rejected' differ before their last message, expec"),
        ({**CHATS, "chosen": [GOOD]}, "'instruction' or 'prompt' is missing, found 'chosen', 'rejected'; expected"),
        ({"instruction": "a", "response": "b"}, "has one answer, expected a 'chosen' and a 'rejected' one; train on s"),
        ({"instruction": "a", "output": ["b"]}, "'output' has 1 answers, expected [chosen, rejected]"),
        ({**CHATS, "rejected": [USER]}, "'rejected' ends with the role 'user', expected 'assistant'"),
        ({**CHATS, "rejected": []}, "'rejected' is empty; add messages or remove the re"),
        ("Hi.", "found text, expected an object with texts"),
    ],
)
def test_a_record_without_a_known_format_is_refused(tmp_path: Path, record: object, reason: str) -> None:
    message = refusal(save_list(tmp_path, PAIR, record))
    assert message.startswith(f"x.json record 2{reason}" if reason[0] == "," else f"x.json record 2: {reason}")


def test_preferences_are_immutable() -> None:
    with pytest.raises(AttributeError):
        Preference("x.json record 1", HI, "Hello.", "No.").chosen = "No."  # type: ignore[misc]
