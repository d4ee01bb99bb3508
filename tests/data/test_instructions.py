"""Instructions: every format is read, and every mistake is named with its file and record."""

import json
from pathlib import Path

import pytest

from src.data.instructions import Conversation, load_conversations
from src.data.prompts import Message

PAIR = {"instruction": "Say hello.", "response": "Hello there."}
PAIR_MESSAGES = (Message("user", "Say hello."), Message("assistant", "Hello there."))


def say(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def save(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def save_list(tmp_path: Path, *records: object) -> Path:
    return save(tmp_path / "x.json", json.dumps(records))


def refusal(path: Path) -> str:
    """The one-line error of a refused file, without its folder."""
    with pytest.raises(ValueError) as caught:
        load_conversations(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path.parent)).lstrip("\\/")


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        (PAIR, PAIR_MESSAGES),
        ({**PAIR, "input": "To Ann."}, (Message("user", "Say hello.", "To Ann."), PAIR_MESSAGES[1])),
        ({"instruction": "Say hello.", "input": "", "output": "Hello there."}, PAIR_MESSAGES),
        ({"instruction": "Say hello.", "input": " \n", "output": "Hello there."}, PAIR_MESSAGES),
        ({"instruction": "Say hello.", "input": None, "output": "Hello there."}, PAIR_MESSAGES),
        ({"instruction": "Say hello.", "output": "Hello there."}, PAIR_MESSAGES),
        (
            {"instruction": "Add.", "input": "2 and 3", "output": "5"},
            (Message("user", "Add.", "2 and 3"), Message("assistant", "5")),
        ),
        ({"messages": [say("user", "Say hello."), say("assistant", "Hello there.")]}, PAIR_MESSAGES),
        (
            {"messages": [say("system", "Be kind."), say("user", "Say hello."), say("assistant", "Hello there.")]},
            (Message("system", "Be kind."), *PAIR_MESSAGES),
        ),
        (
            {"instruction": "Say hello.", "response": "Hello there.", "facts": ["I live in Rome.", "I ski."]},
            (Message("system", "Known facts: I live in Rome. I ski."), *PAIR_MESSAGES),
        ),
        (
            {"system": "Be kind.", "instruction": "Say hello.", "response": "Hello there.", "facts": "I ski."},
            (Message("system", "Be kind.\n\nKnown facts: I ski."), *PAIR_MESSAGES),
        ),
        ({**PAIR, "system": "\u200b"}, PAIR_MESSAGES),
        ({**PAIR, "response": "\U0001fae8"}, (PAIR_MESSAGES[0], Message("assistant", "\U0001fae8"))),
        ({"messages": [say("system", ""), say("user", "Say hello."), say("assistant", "Hello there.")]}, PAIR_MESSAGES),
        (
            {"messages": [say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")]},
            (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")),
        ),
    ],
    ids=[
        "pair", "pair with input", "alpaca, empty input", "alpaca, blank input", "alpaca, null input",
        "alpaca, no input", "alpaca", "chat", "chat with system", "facts", "system and facts",
        "invisible system", "emoji of Unicode 15", "chat with empty system", "chat of two rounds",
    ],
)  # fmt: skip
def test_each_format_becomes_messages(tmp_path: Path, record: dict[str, object], messages: tuple[Message, ...]) -> None:
    path = save_list(tmp_path, record)
    assert load_conversations(path) == [Conversation(f"{path} record 1", messages)]


def test_a_number_too_large_to_read_is_refused_only_as_a_text(tmp_path: Path) -> None:
    record = '{"instruction": "Say hello.", "response": RESPONSE, "score": 1e400}'
    [conversation] = load_conversations(save(tmp_path / "x.json", record.replace("RESPONSE", '"Hello there."')))
    assert conversation.messages == PAIR_MESSAGES
    message = refusal(save(tmp_path / "x.json", record.replace("RESPONSE", "1e400")))
    assert message == "x.json record 1: 'response' is a number too large to read; write it in quotes"


def test_white_space_is_stripped_around_texts_but_not_inside(tmp_path: Path) -> None:
    pair = {"instruction": " \n Say  hello.\t", "input": " a\nb ", "response": "\r\nHello\n\nthere. "}
    chat = {"messages": [say("user", " Say\nhello. "), say("assistant", "\tHello  there.\n")]}
    first, second = load_conversations(save_list(tmp_path, pair, chat))
    assert first.messages == (Message("user", "Say  hello.", "a\nb"), Message("assistant", "Hello\n\nthere."))
    assert second.messages == (Message("user", "Say\nhello."), Message("assistant", "Hello  there."))


def test_formats_can_be_mixed_in_one_file(tmp_path: Path) -> None:
    alpaca = {"instruction": "Say hello.", "output": "Hello there."}
    chat = {"messages": [say("user", "Say hello."), say("assistant", "Hello there.")]}
    loaded = load_conversations(save_list(tmp_path, PAIR, alpaca, chat))
    assert [conversation.messages for conversation in loaded] == [PAIR_MESSAGES] * 3


def chat(*messages: object) -> dict[str, object]:
    return {"messages": list(messages)}


USER, ASSISTANT, SYSTEM = say("user", "Hi."), say("assistant", "Hello."), say("system", "Be kind.")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "'instruction' or 'messages' is missing, found no keys; expected 'instruction' and 'response', Alpaca's"),
        (
            {"instruction": "a", "respones": "b"},
            "'response' or 'output' is missing, found 'instruction', 'respones'",
        ),
        ({"conversations": []}, "'conversations' is empty; add messages or remove the record"),
        ({**PAIR, "output": "b"}, "has both 'response' and 'output'; keep one of them"),
        ({**PAIR, "messages": [USER, ASSISTANT]}, "has both 'instruction' and 'messages'; keep one of them"),
        ({**PAIR, "response": None}, "'response' is null, expected text in quotes"),
        ({**PAIR, "response": ["b"]}, "'response' is a list, expected text in quotes"),
        ({**PAIR, "input": {"a": "b"}}, "'input' is an object, expected text in quotes"),
        ({**PAIR, "instruction": ""}, "'instruction' is empty; fill it in or remove"),
        ({**PAIR, "response": " \n\t"}, "'response' is empty; fill it in or remove"),
        ({**PAIR, "response": "\u200b\ufeff"}, "'response' is empty; fill it in or remove"),
        ({"instruction": "a", "output": ""}, "'output' is empty; "),
        ({"messages": "Hi."}, "'messages' is text, expected a list of messages [{'role': ..., 'content': ...}, ...]"),
        ({"messages": []}, "'messages' is empty; add messages or remove the record"),
        (chat("Hi."), ", message 1 of 'messages': found text, expected an object with 'role' and 'content'"),
        (chat(USER, {"content": "a"}), ", message 2 of 'messages': 'role' is missing, found 'content'; add it, or cor"),
        (
            chat({"role": "bot-9", "content": "a"}),
            ", message 1 of 'messages': unknown role 'bot-9', expected 'system',",
        ),
        (chat(USER, {"role": "assistant"}), ", message 2 of 'messages': 'content' is missing, found 'role'; add it"),
        (chat(USER, say("assistant", None)), ", message 2 of 'messages': 'content' is null, expected text in quotes"),
        (chat(USER, say("assistant", [{"type": "image_url"}])), ", message 2 of 'messages': 'content' has a part of t"),
        (chat(say("user", " "), ASSISTANT), ", message 1 of 'messages': 'content' is empty; "),
        (chat(USER, say("assistant", "")), ", message 2 of 'messages': 'content' is empty; "),
        (chat({**USER, "images": ["a.png"]}, ASSISTANT), ", message 1 of 'messages': has 'images', but the model read"),
        (
            chat({"role": 1, "content": "a"}),
            ", message 1 of 'messages': unknown role '1', expected 'system', 'user' or",
        ),
        (chat(ASSISTANT), "has no question with an answer, expected a user's message and then the assistant's"),
        (chat(ASSISTANT, USER), "has no question with an answer, expected a user's"),
        (chat(SYSTEM, ASSISTANT), "has no question with an answer, expected a user's"),
        (chat(USER), "has no question with an answer, expected a user's"),
        (chat({**ASSISTANT, "weight": -1}), ", message 1 of 'messages': 'weight' is below 0, expected 0 or 1"),
        (
            {"text": "A long story."},
            "holds plain 'text' without a question and its answer; save the texts as a .t",
        ),
        (
            {"instruction": "a", "chosen": "b", "rejected": "c"},
            "holds 'chosen' and 'rejected' answers; train on",
        ),
        ({"instruction": "a", "output": ["b", "c"]}, "'output' is a list, expected text in quotes"),
        ({"instruction": "a", "output": "<nooutput>"}, "'output' is '<nooutput>', which is no answer; fill it in or"),
        ({"instruction": "a", "output": "b", "image": "a.png"}, "has 'image', but the model reads only text"),
        ({"instruction": "a", "output": "b", "history": "c"}, "'history' is text, expected a list of messages"),
        (
            {"text": "[INST] a [/INST] b"},
            "is written in another model's chat template ('[INST]'); convert it to chat 'm",
        ),
        (USER, "is one message; write the whole chat as one record, {'messages': [{'role': ...}, ...]}"),
        ([USER, ASSISTANT], "found a list, expected an object with texts, {'key': 'text', ...}; write a chat as {'mes"),
        ({"title": "a", "mapping": {"1": {}}}, "is a chat that ChatGPT exported, a graph of messages; write it as a"),
        ({"question": "a", "answers": [{"text": "b"}]}, "'answers' is an object, expected text in quotes"),
        ({"question": "a", "answers": {"b": 1}}, "'answers' holds no list of texts, expected [...] or {'text': [...]}"),
        ("Say hello.", "found text, expected an object with texts"),
        (["Say hello.", "Hello there."], "found a list, expected an object with texts"),
        (None, "found null, expected an object with texts"),
    ],
)
def test_a_record_without_a_known_format_is_refused(tmp_path: Path, record: object, reason: str) -> None:
    message = refusal(save_list(tmp_path, PAIR, record))
    assert message.startswith(f"x.json record 2{reason}" if reason[0] == "," else f"x.json record 2: {reason}")


def test_a_record_with_many_long_keys_has_a_short_message(tmp_path: Path) -> None:
    message = refusal(save_list(tmp_path, {f"{n}\n{'k' * 5000}": n for n in range(50)}))
    assert "'0\\nkkk" in message and message.count("kkk'") == 6 and ", ...;" in message
    assert len(message) < 500


def test_messages_and_conversations_are_immutable() -> None:
    with pytest.raises(AttributeError):
        PAIR_MESSAGES[0].text = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Conversation("x.json record 1", PAIR_MESSAGES).where = "other"  # type: ignore[misc]
