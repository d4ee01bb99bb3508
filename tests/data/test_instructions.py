"""Instruction files: every format is read, and every mistake is named with its file and record."""

import json
from pathlib import Path

import pytest

from src.data.instructions import Conversation, load_conversations
from src.data.prompts import Message
from src.data.record_files import read_records

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
        ({"messages": [say("system", ""), say("user", "Say hello."), say("assistant", "Hello there.")]}, PAIR_MESSAGES),
        (
            {"messages": [say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")]},
            (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")),
        ),
    ],
    ids=[
        "pair", "pair with input", "alpaca, empty input", "alpaca, blank input", "alpaca, null input",
        "alpaca, no input", "alpaca", "chat", "chat with system", "chat with empty system", "chat of two rounds",
    ],
)  # fmt: skip
def test_each_format_becomes_messages(tmp_path: Path, record: dict[str, object], messages: tuple[Message, ...]) -> None:
    path = save_list(tmp_path, record)
    assert load_conversations(path) == [Conversation(f"{path} record 1", messages)]


def test_white_space_is_stripped_around_texts_but_not_inside(tmp_path: Path) -> None:
    pair = {"instruction": " \n Say  hello.\t", "input": " a\nb ", "response": "\r\nHello\n\nthere. "}
    chat = {"messages": [say("user", " Say\nhello. "), say("assistant", "\tHello  there.\n")]}
    first, second = load_conversations(save_list(tmp_path, pair, chat))
    assert first.messages == (Message("user", "Say  hello.", "a\nb"), Message("assistant", "Hello\n\nthere."))
    assert second.messages == (Message("user", "Say\nhello."), Message("assistant", "Hello  there."))


def test_formats_can_be_mixed_and_other_keys_are_ignored(tmp_path: Path) -> None:
    alpaca = {"instruction": "Say hello.", "output": "Hello there.", "text": 7, "id": None}
    chat = {"messages": [{**say("user", "Say hello."), "name": "Ann"}, say("assistant", "Hello there.")], "source": []}
    loaded = load_conversations(save_list(tmp_path, {**PAIR, "tags": ["x"]}, alpaca, chat))
    assert [conversation.messages for conversation in loaded] == [PAIR_MESSAGES] * 3


LINE = json.dumps(PAIR)


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("x.json", f"[{LINE}, {LINE}]", ["record 1", "record 2"]),
        ("x.json", b"\xef\xbb\xbf" + f"[{LINE}]".encode(), ["record 1"]),
        ("x.json", json.dumps({"version": 1, "data": [PAIR, PAIR]}, indent=2), ["'data' record 1", "'data' record 2"]),
        ("x.jsonl", f"{LINE}\n{LINE}\n", ["line 1", "line 2"]),
        ("x.JSONL", f"{LINE}", ["line 1"]),
        ("x.jsonl", b"\xef\xbb\xbf" + f"{LINE}\r\n\r\n  \r\n{LINE}".encode(), ["line 1", "line 4"]),
        ("x.json", f"\n{LINE}\n{LINE}", ["line 2", "line 3"]),
        ("x.txt", f"{LINE}\n{LINE}", ["line 1", "line 2"]),
        ("x.jsonl", json.dumps([PAIR], indent=2), ["record 1"]),
    ],
    ids=[
        "list", "list with BOM", "list in an object", "jsonl", "jsonl in capitals", "jsonl with BOM, CRLF and blanks",
        "jsonl named json", "jsonl named txt", "list named jsonl",
    ],
)  # fmt: skip
def test_each_kind_of_file_is_read_with_locations(
    tmp_path: Path, name: str, text: str | bytes, places: list[str]
) -> None:
    path = save(tmp_path / name, text)
    assert load_conversations(path) == [Conversation(f"{path} {place}", PAIR_MESSAGES) for place in places]


def test_unicode_line_separators_do_not_split_jsonl_lines(tmp_path: Path) -> None:
    text = "na\u00efve\u2028\u4f60\u597d\x85\U0001f600!"
    line = json.dumps({"instruction": text, "response": text}, ensure_ascii=False)
    loaded = load_conversations(save(tmp_path / "x.jsonl", f"{line}\n{line}"))
    assert [message.text for conversation in loaded for message in conversation.messages] == [text] * 4


def test_read_records_returns_every_key(tmp_path: Path) -> None:
    record = {"a": 1, "b": [1.5, None, True], "c": {"d": "\u00e9"}}
    path = save_list(tmp_path, record)
    assert read_records(str(path)).records == [(f"{path} record 1", record)]


def chat(*messages: object) -> dict[str, object]:
    return {"messages": list(messages)}


USER, ASSISTANT, SYSTEM = say("user", "Hi."), say("assistant", "Hello."), say("system", "Be kind.")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "'instruction' or 'messages' is missing, found no keys; expected 'instruction' and 'response', Alpaca's"),
        ({"Instruction": "a", "response": "b"}, "'instruction' or 'messages' is missing, found 'Instruction', 'respon"),
        ({"instruction": "a", "respones": "b"}, "'response' or 'output' is missing, found 'instruction', 'respones';"),
        ({"conversations": []}, "'instruction' or 'messages' is missing, found 'conversations'; expected 'instruction"),
        ({**PAIR, "output": "b"}, "has both 'response' and 'output'; keep one of them"),
        ({**PAIR, "messages": [USER, ASSISTANT]}, "has both 'instruction' and 'messages'; keep one of them"),
        ({**PAIR, "instruction": 5}, "'instruction' is a number, expected text in quotes"),
        ({**PAIR, "instruction": True}, "'instruction' is true or false, expected text in quotes"),
        ({**PAIR, "response": None}, "'response' is null, expected text in quotes"),
        ({**PAIR, "response": 2.5}, "'response' is a number, expected text in quotes"),
        ({**PAIR, "response": ["b"]}, "'response' is a list, expected text in quotes"),
        ({**PAIR, "input": {"a": "b"}}, "'input' is an object, expected text in quotes"),
        ({**PAIR, "instruction": ""}, "'instruction' is empty; fill it in or remove"),
        ({**PAIR, "response": " \n\t"}, "'response' is empty; fill it in or remove"),
        ({"instruction": "a", "output": ""}, "'output' is empty; "),
        ({"messages": "Hi."}, "'messages' is text, expected a list of messages [{'role': ..., 'content': ...}, ...]"),
        ({"messages": []}, "'messages' is empty; add messages or remove the record"),
        (chat("Hi."), ", message 1 of 'messages': found text, expected an object with 'role' and 'content'"),
        (chat(USER, {"content": "a"}), ", message 2 of 'messages': 'role' is missing, found 'content'; add it, or cor"),
        (chat({"from": "human", "value": "a"}), ", message 1 of 'messages': 'role' is missing, found 'from', 'value';"),
        (chat(USER, {"role": "assistant"}), ", message 2 of 'messages': 'content' is missing, found 'role'; add it"),
        (chat(USER, say("assistant", None)), ", message 2 of 'messages': 'content' is null, expected text in quotes"),
        (chat(USER, say("assistant", [{"type": "text"}])), ", message 2 of 'messages': 'content' is a list, expected"),
        (chat(say("user", " "), ASSISTANT), ", message 1 of 'messages': 'content' is empty; "),
        (chat(USER, say("assistant", "")), ", message 2 of 'messages': 'content' is empty; "),
        (chat(USER, say("tool", "a")), ", message 2 of 'messages': unknown role 'tool', expected 'system', 'user' or"),
        (chat({"role": 1, "content": "a"}), ", message 1 of 'messages': 'role' is a number, expected text in quotes"),
        (chat(ASSISTANT, USER), ", message 1 of 'messages': found the role 'assistant', expected 'user'; user and ass"),
        (chat(USER, USER, ASSISTANT), ", message 2 of 'messages': found the role 'user', expected 'assistant'; user a"),
        (chat(SYSTEM, ASSISTANT), ", message 2 of 'messages': found the role 'assistant', expected 'user'; user and"),
        (chat(USER, ASSISTANT, SYSTEM), ", message 3 of 'messages': found the role 'system', expected 'user'; user an"),
        (chat(SYSTEM, SYSTEM, USER), ", message 2 of 'messages': found the role 'system', expected 'user'; user and"),
        (chat(USER), "'messages' ends with the role 'user', expected 'assistant'"),
        (chat(SYSTEM), "'messages' ends with the role 'system', expected 'assistant'"),
        ("Say hello.", "found text, expected an object with texts"),
        (["Say hello.", "Hello there."], "found a list, expected an object with texts"),
        (None, "found null, expected an object with texts"),
    ],
)
def test_a_record_without_a_known_format_is_refused(tmp_path: Path, record: object, reason: str) -> None:
    message = refusal(save_list(tmp_path, PAIR, record))
    assert message.startswith(f"x.json record 2{reason}" if reason[0] == "," else f"x.json record 2: {reason}")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"instruction": "a", "response": "b", "response": "c"}', "the key 'response' appears 2 times in one object;"),
        ('{"messages": [{"role": "user", "role": "user", "content": "a"}]}', "the key 'role' appears 2 times in one o"),
        ('{"instruction": "a", "response": "b", "score": NaN}', "NaN is not JSON; write a number or null, or remove i"),
        ('{"instruction": "a", "response": -Infinity}', "-Infinity is not JSON; write a number or null, or remove it"),
        (r'{"instruction": "a", "response": "\ud83d"}', r"the character '\ud83d' is a lone surrogate; remove"),
        ('{"instruction": ' + "[" * 600 + "]" * 600 + "}", "nested too deeply for a record"),
    ],
    ids=["repeated key", "repeated key in a message", "NaN", "Infinity", "lone surrogate", "deep"],
)
def test_invalid_values_that_python_parses_are_refused(tmp_path: Path, record: str, reason: str) -> None:
    assert refusal(save(tmp_path / "x.json", f"[{LINE}, {record}]")).startswith(f"x.json record 2: {reason}")
    assert refusal(save(tmp_path / "x.jsonl", f"{LINE}\n{record}")).startswith(f"x.jsonl line 2: {reason}")
    wrapped = save(tmp_path / "x.json", f'{{"data": [{LINE}, {record}]}}')
    assert refusal(wrapped).startswith(f"x.json 'data' record 2: {reason}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "", "x.json is empty; expected a JSON list of records or one JSON object per line"),
        ("x.jsonl", b"\xef\xbb\xbf \n", "x.jsonl is empty; expected a JSON list"),
        ("x.json", "[]", "x.json: the list is empty; expected at least one record"),
        ("x.json", '{"data": []}', "x.json: the list is empty; expected at least one record"),
        ("x.json", '"Say hello."', "x.json: found text, expected a list of records, or one JSON object per line"),
        ("x.json", "NaN", "x.json: found a number, expected a list of records"),
        ("x.json", LINE, "x.json: found one object with no lists in it (found 'instruction', 'response'), expected a"),
        ("x.json", '{"a": [1], "b": [2]}', "x.json: found one object with 2 lists in it (found 'a', 'b'), expected a"),
        ("x.json", '{"data": [1], "data": [2]}', "x.json: the key 'data' appears 2 times in one object; keep one"),
        ("x.json", '[\n{"a": "b"\n"c": "d"}\n]', "x.json line 3 column 1: malformed JSON (Expecting ',' delimiter), f"),
        (
            "x.json",
            '[{"a": "b"}',
            "x.json line 1 column 12: malformed JSON (Expecting ',' delimiter), found the end; c",
        ),
        (
            "x.json",
            "Say hello.",
            "x.json line 1 column 1: malformed JSON (Expecting value), found 'Say hello.'; correct",
        ),
        ("x.jsonl", f"{LINE}\n\n{{'a': 1}}", "x.jsonl line 3 column 2: malformed JSON (Expecting property name enclos"),
        ("x.jsonl", f'{LINE}\n"Say hello."', "x.jsonl line 2: found text, expected an object with texts"),
        (
            "x.json",
            f"{LINE}\nSay hello.",
            "x.json line 2 column 1: malformed JSON (Expecting value), found 'Say hello.'",
        ),
        ("x.json", "[" * 100_000, "x.json: nested too deeply for a record of texts and lists of messages"),
        ("x.json", '{"a":' * 100_000 + "\n1", "x.json: nested too deeply for a record of texts and lists"),
        ("x.jsonl", f"{LINE}\n" + '{"a":' * 100_000, "x.jsonl line 2: nested too deeply for a record"),
        ("x.json", "[" + "9" * 5000 + "]", "x.json: a number is too long to read; shorten it or remove it"),
        ("x.jsonl", f'{LINE}\n{{"a": {"9" * 5000}}}', "x.jsonl line 2: a number is too long to read"),
        ("x.json", b'[\n"caf\xe9"]', "x.json line 2: byte 0xe9 at offset 6 is not UTF-8; save the file as UTF-8"),
        ("x.json", b"\xef\xbb\xbf\xff", "x.json line 1: byte 0xff at offset 3 is not UTF-8; save the file as UTF-8"),
        ("x.json", LINE.encode("utf-16"), "x.json line 1: byte 0xff at offset 0 is not UTF-8; save the file as UTF-8"),
    ],
    ids=lambda value: None if isinstance(value, bytes) or len(value) > 40 else value[:30],
)
def test_a_file_without_records_is_refused_with_the_location(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    assert refusal(save(tmp_path / name, text)).startswith(message)


def test_a_record_with_many_long_keys_has_a_short_message(tmp_path: Path) -> None:
    message = refusal(save_list(tmp_path, {f"{n}\n{'k' * 5000}": n for n in range(50)}))
    assert "'0\\nkkk" in message and message.count("kkk'") == 6 and ", ...;" in message
    assert len(message) < 500


def test_a_missing_file_is_reported_with_the_flag_to_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_conversations(tmp_path / "none.json")
    assert str(caught.value).startswith(
        f"{tmp_path / 'none.json'} not found; pass a JSON or JSONL file with --data, such as "
    )
    assert "Data/instruction_data.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        load_conversations(tmp_path)
    assert str(caught.value) == f"{tmp_path} is a folder; pass a JSON or JSONL file in it with --data"


def test_messages_and_conversations_are_immutable() -> None:
    with pytest.raises(AttributeError):
        PAIR_MESSAGES[0].text = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Conversation("x.json record 1", PAIR_MESSAGES).where = "other"  # type: ignore[misc]
