"""The shapes of published data sets: which conversation or preference each becomes, and what is reported about it."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from src.data.instructions import load_conversations
from src.data.preferences import load_preferences
from src.data.prompts import Message
from tests.repository import ROOT


def load(load_file: Any, tmp_path: Path, *records: object) -> tuple[list[Any], list[str]]:
    """What a file with these records becomes, and the notes about it without the file's name."""
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    notes: list[str] = []
    loaded = load_file(path, notify=notes.append)
    return loaded, [note.removeprefix(f"note: {path}: ") for note in notes]


def chats(tmp_path: Path, *records: object) -> list[list[str]]:
    """The conversations of records that are read without a note. "?" marks a user, "!" a system message."""
    loaded, notes = load(load_conversations, tmp_path, *records)
    assert notes == []
    return [spoken(conversation.messages) for conversation in loaded]


def spoken(messages: tuple[Message, ...]) -> list[str]:
    marks = {"user": "?", "system": "!", "assistant": ""}
    return [
        message.text + marks[message.role] + (f" ({message.input})" if message.input else "") for message in messages
    ]


def say(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def told(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


Q, A, R = say("user", "q"), say("assistant", "a"), say("assistant", "r")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, ["q?", "a"]),
        ({"conversations": [{**told("human", "q"), "weight": 0}, told("gpt", "a")]}, ["q?", "a"]),
        ({"instruction": "q", "context": "m", "response": "a"}, ["q? (m)", "a"]),
        ({"Instruction": "q", "Input": "m", "Response": "a"}, ["q? (m)", "a"]),
        ({"question": "q", "inputs": "m", "answer": "a"}, ["q? (m)", "a"]),
        ({"instruction": "q", "input": "m", "context": "n", "output": "a"}, ["q? (m\n\nn)", "a"]),
        ({"query": "q", "response": "a"}, ["q?", "a"]),
        ({"inputs": "q", "targets": "a"}, ["q?", "a"]),
        ({"input": "q", "context": "m", "output": "a"}, ["q? (m)", "a"]),
        ({"instruction": "", "input": "q", "output": "a"}, ["q?", "a"]),
        ({"system_prompt": "s", "question": "q", "response": "a"}, ["s!", "q?", "a"]),
        ({"instruction": "q", "response": "a", "output": None, "messages": []}, ["q?", "a"]),
        ({"instruction": "q", "response": "a", "history": [["p", "o"]]}, ["p?", "o", "q?", "a"]),
        ({"prompt": "q", "response": "a", "history": [say("user", "p"), R]}, ["p?", "r", "q?", "a"]),
        ({"system": "s", "messages": [Q, A]}, ["s!", "q?", "a"]),
        ({"system": "s", "messages": [say("system", "s"), Q, A]}, ["s!", "q?", "a"]),
        ({"messages": [say("developer", "s"), Q, A]}, ["s!", "q?", "a"]),
        ({"messages": [say("User", "q"), say("Assistant", "a")]}, ["q?", "a"]),
        ({"messages": [told("human", "q"), told("gpt", "a")]}, ["q?", "a"]),
        ({"messages": [say("user", "q", input="m"), A]}, ["q? (m)", "a"]),
        ({"messages": json.dumps([Q, A])}, ["q?", "a"]),
        ({"prompt": "q", "messages": [Q, A]}, ["q?", "a"]),
        ({"conversations": [Q, A]}, ["q?", "a"]),
        ({"conversations": [told("system", "s"), told("human", "q"), told("chatgpt", "a")]}, ["s!", "q?", "a"]),
        ({"conversations": [{"human": "q", "assistant": "a"}]}, ["q?", "a"]),
        ({"conversation": [{"system": "s", "input": "q", "output": "a"}]}, ["s!", "q?", "a"]),
        ({"data": ["q", "a", "p", "o"]}, ["q?", "a", "p?", "o"]),
        ({"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]},
         ["q?", "a"]),
        ({"messages": [say("user", [{"type": "text", "text": "q"}, {"text": "p"}]), A]}, ["q\np?", "a"]),
        ({"prompt": [Q], "completion": [A]}, ["q?", "a"]),
        ({"text": "### Instruction:\nq\n\n### Input:\nm\n\n### Response:\na"}, ["q? (m)", "a"]),
        ({"text": "Be kind.\n\n### Instruction:\nq\n\n### Response:\na"}, ["Be kind.!", "q?", "a"]),
        ({"text": "### Human: q### Assistant: a### Human: p### Assistant: o"}, ["q?", "a", "p?", "o"]),
        ({"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"}, ["q?", "a"]),
        ({"text": "Human: q\nAssistant: a"}, ["q?", "a"]),
        ({"prompt": "\n\nHuman: q\n\nAssistant:", "completion": " a"}, ["q?", "a"]),
        ({"instruction": "q", "output": "a", "text": "### Instruction:\nq\n\n### Response:\na"}, ["q?", "a"]),
        ({"instruction": "q", "output": "a", "id": "7", "source": "x", "review_score": "good", "n": 3}, ["q?", "a"]),
    ],
)  # fmt: skip
def test_published_shapes_are_read_without_loss(tmp_path: Path, record: dict[str, object], expected: list[str]) -> None:
    assert chats(tmp_path, record) == [expected]


def test_each_instance_of_a_task_is_a_conversation(tmp_path: Path) -> None:
    seed = {"instruction": "q", "instances": [{"input": "m", "output": "a"}, {"input": "", "output": "b"}]}
    assert chats(tmp_path, seed) == [["q? (m)", "a"], ["q?", "b"]]


def reply(role: str, text: str, *replies: object, **more: object) -> dict[str, object]:
    return {"role": role, "text": text, "replies": list(replies), **more}


def test_a_tree_is_read_along_its_best_path(tmp_path: Path) -> None:
    best = reply(
        "assistant", "best", reply("prompter", "alone"), reply("prompter", "p", reply("assistant", "o")), rank=0
    )
    others = [reply("assistant", "second", rank=1), reply("assistant", "gone", rank=-1, deleted=True)]
    assert chats(tmp_path, {"prompt": reply("prompter", "q", *others, best)}) == [["q?", "best", "p?", "o"]]
    by_score = [reply("assistant", "low", score=1), reply("assistant", "high", score=2)]
    assert chats(tmp_path, {"prompt": reply("prompter", "q", *by_score)}) == [["q?", "high"]]


def test_flat_messages_are_joined_to_trees(tmp_path: Path) -> None:
    flat = [
        {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "a", "rank": 1},
        {"message_id": "3", "parent_id": "1", "role": "assistant", "text": "b", "rank": 0},
        {"message_id": "1", "parent_id": None, "role": "prompter", "text": "q"},
    ]
    assert chats(tmp_path, *flat) == [["q?", "b"]]
    loaded, notes = load(load_conversations, tmp_path, *flat, {**flat[0], "text": "z"}, flat[1])
    assert [spoken(chat.messages) for chat in loaded] == [["q?", "b"]]
    assert notes == ["left out 2 of 5 records: messages with the id of an earlier one (2)"]
    orphan = {"message_id": "5", "parent_id": "4", "role": "prompter", "text": "c"}
    its_reply = {"message_id": "6", "parent_id": "5", "role": "assistant", "text": "d"}
    loaded, notes = load(load_conversations, tmp_path, *flat, orphan, its_reply)
    assert len(loaded) == 1
    assert notes == ["left out 2 of 5 records: replies to a message that is missing (2)"]


@pytest.mark.parametrize(
    ("record", "expected", "note"),
    [
        ({"messages": [A, Q, R]}, ["q?", "r"], "the assistant's greeting before the first question is left out"),
        ({"messages": [Q, say("user", "p"), A]}, ["q\n\np?", "a"], "consecutive messages of one role are joined"),
        ({"messages": [Q, A, R]}, ["q?", "a\n\nr"], "consecutive messages of one role are joined"),
        ({"messages": [Q, A, Q]}, ["q?", "a"], "a last message without an answer is left out"),
        ({"messages": [Q, A, say("system", "s"), R]}, ["q?", "a", "s?", "r"],
         "a system message after the first message is read as the user's"),
        ({"instruction": "q", "input": "<noinput>", "output": "a"}, ["q?", "a"],
         "an input that is '<noinput>' is read as empty"),
        ({"instruction": "q", "input": "N/A", "output": "a"}, ["q?", "a"], "an input that is 'N/A' is read as empty"),
        ({"instruction": "q", "output": "a", "hint": "look"}, ["q?", "a"], "'hint' is not read"),
        ({"messages": [Q, A], "context": "m"}, ["q?", "a"], "'context' is not read"),
        ({"messages": [Q, A], "tools": [{"name": "f"}]}, ["q?", "a"], "'tools' is not read"),
        ({"messages": [Q, {**A, "reasoning_content": "hm"}]}, ["q?", "a"],
         "'reasoning_content' in 'messages' is not read"),
        ({"messages": [Q, say("assistant", [{"type": "thinking"}, {"type": "text", "text": "a"}])]}, ["q?", "a"],
         "parts of type 'thinking' are not read"),
        ({"instruction": "q", "input": "m", "Input": "n", "output": "a"}, ["q? (m)", "a"], "'Input' is not read"),
        ({"instruction": "q", "output": "a</s>"}, ["q?", "a</s>"],
         "'</s>' is written out in a text, and read as ordinary characters"),
        ({"instruction": "q", "output": "a<|endoftext|>"}, ["q?", "a<|endoftext|>"],
         "'<|endoftext|>' is written out in a text, and read as ordinary characters"),
        ({"instruction": "q", "output": "a\n### Response:"}, ["q?", "a\n### Response:"],
         "'### Response:' is written out in a text, and read as ordinary characters"),
        ({"instruction": "q", "output": "a \ufffd"}, ["q?", "a \ufffd"],
         "U+FFFD, the replacement character, is in a text: letters were lost in a conversion"),
        ({"instruction": "q", "output": "a â€œ"}, ["q?", "a â€œ"],
         "a text is UTF-8 that was read as Windows-1252 or 1251; convert the original again"),
        ({"messages": [Q, {**A, "weight": 0.5}]}, ["q?", "a"], "a 'weight' other than 0 and 1 counts as 1"),
        ({"instruction": "q", "source": "m" * 101, "output": "a"}, ["q?", "a"], "'source' is not read"),
        ({"instruction": "q", "output": "a", "label": 0}, ["q?", "a"], "'label' is not read"),
        ({"instruction": "q", "output": "NaN"}, ["q?", "NaN"], "an answer that is 'NaN' is learned as it is"),
        ({"messages": [Q, {**A, "mask": True}]}, ["q?", "a"], "'mask' in 'messages' is not read"),
        ({"instruction": "q", "output": "a", "sample_weight": 0}, ["q?", "a"], "'sample_weight' is not read"),
        ({"question": "q", "answers": ["a", "b"]}, ["q?", "a"], "of several 'answers', the first is read"),
        ({"instruction": "q", "output": 8}, ["q?", "8"], "'output' is a number, read as text"),
        ({"instruction": "q", "output": False}, ["q?", "false"], "'output' is true or false, read as text"),
    ],
)  # fmt: skip
def test_changed_and_skipped_fields_are_reported_once(
    tmp_path: Path, record: dict[str, object], expected: list[str], note: str
) -> None:
    loaded, notes = load(load_conversations, tmp_path, record, {"instruction": "q", "output": "a"}, record)
    assert [spoken(conversation.messages) for conversation in loaded] == [expected, ["q?", "a"], expected]
    assert notes == [f"{note}, in 2 of 3 records"]


NOT_LEARNED = [{"weight": 0}, {"weight": 0.0}, {"weight": "0"}, {"train": False}, {"Train": "false"}, {"loss": False},
               {"loss_mask": 0}]  # fmt: skip


@pytest.mark.parametrize("mark", NOT_LEARNED)
def test_an_answer_marked_as_not_to_be_learned_is_context(tmp_path: Path, mark: dict[str, object]) -> None:
    [conversation], notes = load(load_conversations, tmp_path, {"messages": [Q, {**A, **mark}, Q, R]})
    assert [message.supervised for message in conversation.messages] == [True, False, True, True]
    assert notes == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        *(({"instruction": "q", "output": "a", **mark}, "marked as not to be learned") for mark in NOT_LEARNED),
        ({"messages": [Q, {**A, "weight": 0}]}, "marked as not to be learned"),
        ({"prompt": "q", "completion": "a", "label": False}, "marked as not to be learned"),
        ({"question": "q", "context": "m", "answers": {"text": [], "answer_start": []}}, "questions without an answer"),
        ({"prompt": {"role": "prompter", "text": "q", "replies": []}}, "questions without an answer"),
        ({"messages": [Q, say("assistant", None, tool_calls=[{"id": "c"}]), say("tool", "t"), A]}, "tool calls"),
        ({"messages": [Q, say("assistant", None, function_call={"name": "f"})]}, "tool calls"),
        ({"conversations": [told("human", "q"), told("function_call", "f"), told("observation", "o")]}, "tool calls"),
        ({"messages": [Q, say("assistant", [{"type": "tool_use", "name": "f"}])]}, "tool calls"),
    ],
)
def test_records_with_nothing_to_learn_are_left_out_and_counted(
    tmp_path: Path, record: dict[str, object], reason: str
) -> None:
    loaded, notes = load(load_conversations, tmp_path, record, {"instruction": "q", "output": "a"}, record)
    assert [spoken(conversation.messages) for conversation in loaded] == [["q?", "a"]]
    assert notes == [f"left out 2 of 3 records: {reason} (2)"]
    with pytest.raises(ValueError, match=rf"none of its 1 records can be learned: {reason} \(1\)"):
        load(load_conversations, tmp_path, record)


def test_joined_answers_are_learned_only_if_all_of_them_are(tmp_path: Path) -> None:
    record = {"messages": [Q, {**A, "weight": 0}, R, Q, R]}
    [conversation], _ = load(load_conversations, tmp_path, record)
    assert [message.supervised for message in conversation.messages] == [True, False, True, True]


CHOSEN, REJECTED = {"chosen": "a", "rejected": "r"}, {"chosen": [Q, A], "rejected": [Q, R]}


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"question": "q", **CHOSEN}, ["q?"]),
        ({"prompt": "q", "context": "m", **CHOSEN}, ["q? (m)"]),
        ({"system": "s", "input": "q", **CHOSEN}, ["s!", "q?"]),
        ({"system": "s", "prompt": "q", "history": [["p", "o"]], **CHOSEN}, ["s!", "p?", "o", "q?"]),
        ({"system": "s", **REJECTED}, ["s!", "q?"]),
        ({"prompt": "q", "messages": [Q, A], "score_chosen": 9.0, **REJECTED}, ["q?"]),
        ({"messages": [Q, A], **REJECTED}, ["q?"]),
        ({"prompt": [Q], "chosen": "a", "rejected": [R]}, ["q?"]),
        ({"prompt": "q", "chosen": [A], "rejected": R}, ["q?"]),
        ({"messages": [Q], **CHOSEN}, ["q?"]),
        ({"conversations": [told("system", "s"), told("human", "q")], "chosen": told("gpt", "a"),
          "rejected": told("gpt", "r")}, ["s!", "q?"]),
        ({"instruction": "q", "input": "m", "output": ["a", "r"]}, ["q? (m)"]),
        ({"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [R]}, ["q?"]),
        ({"prompt": "q", "response_0": "r", "response_1": "a", "better_response_id": 1}, ["q?"]),
        ({"prompt": "q", "response_0": "a", "response_1": "r", "better_response_id": "0"}, ["q?"]),  # from CSV
        ({"chosen": "\n\nHuman: p\n\nAssistant: o\n\nHuman: q\n\nAssistant: a",
          "rejected": "\n\nHuman: p\n\nAssistant: o\n\nHuman: q\n\nAssistant: r"}, ["p?", "o", "q?"]),
        ({"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " a", "rejected": " r"}, ["q?"]),
        ({"prompt": str([Q]), "chosen": json.dumps([A]), "rejected": str([R])}, ["q?"]),  # pandas' CSV
        ({"history": "q", "human_ref_A": "a", "human_ref_B": "r", "labels": 1, "score_A": 9}, ["q?"]),
        ({"history": "q", "human_ref_A": "r", "human_ref_B": "a", "labels": 0, "score_A": 3}, ["q?"]),
        ({"conversation_a": [Q, R], "conversation_b": [Q, A], "winner": "model_b", "turn": 1}, ["q?"]),
        ({"prompt": "q", "answers": [{"answer": "r", "rank": 2.0}, {"answer": "a", "rank": 1.0}]}, ["q?"]),
    ],
)  # fmt: skip
def test_published_preferences_are_read_without_loss(
    tmp_path: Path, record: dict[str, object], prompt: list[str]
) -> None:
    [preference], notes = load(load_preferences, tmp_path, record)
    assert (spoken(preference.messages), preference.chosen, preference.rejected) == (prompt, "a", "r")
    assert notes == []


@pytest.mark.parametrize(
    ("chats", "winner", "reason"),
    [
        (([Q, A], [Q, R]), "tie (bothbad)", "neither answer is better"),
        (([Q, A, Q, A], [Q, R, Q, R]), "model_a", "the chats differ before their last answer"),
    ],
)
def test_compared_chats_without_a_pair_are_left_out(
    tmp_path: Path, chats: tuple[object, object], winner: str, reason: str
) -> None:
    record = {"conversation_a": chats[0], "conversation_b": chats[1], "winner": winner}
    _, notes = load(load_preferences, tmp_path, record, REJECTED)
    assert notes == [f"left out 1 of 2 records: {reason} (1)"]


def test_the_best_and_the_worst_of_ranked_answers_are_a_pair(tmp_path: Path) -> None:
    answers = [{"answer": text, "rank": rank} for rank, text in enumerate("abcr", start=1)]
    [pair], notes = load(load_preferences, tmp_path, {"prompt": "q", "answers": answers})
    assert (pair.chosen, pair.rejected) == ("a", "r")
    assert notes == ["the answers between the best and the worst are not read, in 1 of 1 records"]


@pytest.mark.parametrize(("good", "bad"), [(True, False), (1, 0), ("True", "False")])
def test_labelled_chats_are_paired(tmp_path: Path, good: object, bad: object) -> None:
    records = [{"messages": [Q, R], "label": bad}, {"messages": [Q, A], "label": good}]
    [pair], notes = load(load_preferences, tmp_path, *records)
    assert (spoken(pair.messages), pair.chosen, pair.rejected, notes) == (["q?"], "a", "r", [])


def test_labelled_answers_are_paired_by_prompt(tmp_path: Path) -> None:
    answers = [("q", "a", True), ("p", "b", False), ("q", "r", False), ("p", "c", True), ("q", "z", True)]
    records = [{"prompt": prompt, "completion": text, "label": label} for prompt, text, label in answers]
    loaded, notes = load(load_preferences, tmp_path, *records)
    assert [(spoken(pair.messages), pair.chosen, pair.rejected) for pair in loaded] == [
        (["q?"], "a", "r"), (["p?"], "c", "b"),
    ]  # fmt: skip
    assert notes == ["left out 1 of 5 records: answers to a prompt that has none with the other label (1)"]
    with pytest.raises(ValueError, match=r"none of its 1 records can be learned: answers to a prompt that has none"):
        load(load_preferences, tmp_path, records[0])


def test_the_default_data_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(load_conversations("Data/instruction_data.json")) == 30
    assert len(load_preferences("Data/preference_data.json")) == 20


def test_the_code_in_the_readme_is_where_it_says() -> None:
    readme = (ROOT / "src/data/README.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\| (?:DPO: )?`(\w+)`, `(\w+)\.py` \|", readme, re.M)
    assert len(steps) > 15
    assert [step for step in steps if not hasattr(import_module(f"src.data.{step[1]}"), step[0])] == []


def test_every_record_in_the_readme_is_read(tmp_path: Path) -> None:
    readme = (ROOT / "src/data/README.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0].splitlines()[1:] for block in readme.split("```jsonc")[1:]]
    sft, dpo = ([line for line in lines if not line.startswith("// ")] for lines in blocks)
    loaded, notes = load(load_conversations, tmp_path, *map(json.loads, sft))
    assert len(loaded) == len(sft) and notes == []  # a task has two instances, and two flat messages are one tree
    pairs, notes = load(load_preferences, tmp_path, *map(json.loads, dpo))
    assert len(pairs) == len(dpo) - 2 and notes == []
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("Hello!", "No.")}
