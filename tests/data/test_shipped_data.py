"""The two shipped data files are what the README says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from src.data.instructions import load_conversations
from src.data.preferences import load_preferences
from src.tokenizer import load_gpt2_encoding

DATA = Path(__file__).resolve().parents[2] / "Data"
INSTRUCTIONS = DATA / "instruction_data.json"
PREFERENCES = DATA / "preference_data.json"


def records(path: Path) -> list[dict[str, str]]:
    loaded: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def words(text: str) -> int:
    return len(text.split())


def gpt2_tokens(text: str) -> int:
    return len(load_gpt2_encoding().encode_ordinary(text))


def test_all_thirty_instructions_load() -> None:
    loaded = load_conversations(INSTRUCTIONS)
    assert [set(record) for record in records(INSTRUCTIONS)] == [{"instruction", "response"}] * 30
    assert [[message.text for message in one.messages] for one in loaded] == [
        [*one.values()] for one in records(INSTRUCTIONS)
    ]


def test_all_twenty_preferences_load() -> None:
    loaded = load_preferences(PREFERENCES)
    assert [set(record) for record in records(PREFERENCES)] == [{"instruction", "chosen", "rejected"}] * 20
    assert [[one.messages[0].text, one.chosen, one.rejected] for one in loaded] == [
        [*one.values()] for one in records(PREFERENCES)
    ]


@pytest.mark.parametrize("path", [INSTRUCTIONS, PREFERENCES], ids=lambda path: path.name)
def test_texts_are_clean_ascii_sentences(path: Path) -> None:
    for text in (text for record in records(path) for text in record.values()):
        assert text.isascii() and text.isprintable() and text == " ".join(text.split()), text
        assert text.rstrip('"')[-1] in ".?!" or text.endswith('."'), text


@pytest.mark.parametrize("path", [INSTRUCTIONS, PREFERENCES], ids=lambda path: path.name)
def test_answers_have_8_to_40_words_in_at_most_three_sentences(path: Path) -> None:
    for answer in (text for record in records(path) for key, text in record.items() if key != "instruction"):
        assert 8 <= words(answer) <= 40, answer
        assert 1 <= sum(f"{answer} ".count(f"{end} ") for end in ".?!") <= 3, answer


@pytest.mark.parametrize("path", [INSTRUCTIONS, PREFERENCES], ids=lambda path: path.name)
def test_no_two_instructions_start_with_the_same_five_words(path: Path) -> None:
    starts = [" ".join(record["instruction"].lower().split()[:5]) for record in records(path)]
    assert len(set(starts)) == len(starts)


def test_no_answer_is_repeated() -> None:
    responses = [record["response"] for record in records(INSTRUCTIONS)]
    answers = [record[key] for record in records(PREFERENCES) for key in ("chosen", "rejected")]
    assert len(set(responses)) == 30
    assert len(set(answers)) == 40


def test_the_questions_that_people_try_first_are_included() -> None:
    asked = {record["instruction"] for record in records(INSTRUCTIONS)}
    assert {"What is the capital of France?", "What is machine learning?", "Who wrote Hamlet?"} <= asked


def test_half_of_the_preferences_repeat_an_instruction_pair() -> None:
    responses = {record["instruction"]: record["response"] for record in records(INSTRUCTIONS)}
    repeated = [record for record in records(PREFERENCES) if record["instruction"] in responses]
    assert len(repeated) == 10
    for record in repeated:
        assert record["chosen"] == responses[record["instruction"]]


def test_no_rejected_answer_is_a_good_answer_elsewhere() -> None:
    pairs = records(PREFERENCES)
    good = {record["response"] for record in records(INSTRUCTIONS)} | {record["chosen"] for record in pairs}
    assert good.isdisjoint(record["rejected"] for record in pairs)


@pytest.mark.parametrize("length", [words, gpt2_tokens], ids=["words", "gpt2_tokens"])
def test_length_does_not_distinguish_rejected_from_chosen(length: Callable[[str], int]) -> None:
    pairs = [(length(record["chosen"]), length(record["rejected"])) for record in records(PREFERENCES)]
    assert 0.9 <= sum(rejected for _, rejected in pairs) / sum(chosen for chosen, _ in pairs) <= 1.1
    assert 8 <= sum(rejected > chosen for chosen, rejected in pairs) <= 12
    assert 7 <= sum(rejected < chosen for chosen, rejected in pairs) <= 12
