"""The record of the training examples in a checkpoint."""

from pathlib import Path

import pytest

from src.checkpoint import LoadedModel
from src.checkpoint.training_examples import MAX_CHARACTERS, TrainingExamples, examples_of, record_examples
from src.data.examples import questions_and_answers
from src.data.instructions import Conversation
from src.data.prompts import Message
from src.model.gpt import GPTModel
from tests.fakes import BYTE_MODEL, ByteEncoding

PAIRS = (("Who?", "I."), ("Who?", "You."), ("Why?", "So."))


def test_the_record_gives_the_pairs_back():
    examples = examples_of(record_examples(PAIRS, "my.json"))
    assert examples == TrainingExamples(PAIRS, "my.json")
    assert (examples.questions, examples.count) == (["Who?", "Why?"], 2)


def test_a_large_data_set_is_not_recorded():
    assert record_examples([("Why?", "x" * MAX_CHARACTERS)], "my.json") == {}


@pytest.mark.parametrize("damage", [None, 3, [], {"pairs": 3}, {"pairs": [["Who?"], 3, ["Who?", None]]}])
def test_a_damaged_record_holds_no_examples(damage):
    assert examples_of({"examples": damage}).pairs == ()


def test_the_next_stage_inherits_the_record():
    model = GPTModel(BYTE_MODEL)
    tuned = LoadedModel(model, record_examples(PAIRS, "my.json"), ByteEncoding(), Path("sft.pt"), "")
    aligned = LoadedModel(model, {"parent": tuned.parent}, ByteEncoding(), Path("dpo.pt"), "")
    assert examples_of(aligned.metadata).pairs == PAIRS
    again = aligned.parent
    assert examples_of({"parent": again}).pairs == PAIRS
    assert "examples" not in again["ancestors"][0]


def test_the_pairs_of_a_conversation_are_its_learned_answers():
    messages = (
        Message("system", "Be brief."),
        Message("user", "Sum up.", input="Snow fell."),
        Message("assistant", "Snow."),
        Message("user", "And?"),
        Message("assistant", "Context only.", supervised=False),
    )
    assert list(questions_and_answers([Conversation("1", messages)])) == [
        ("Sum up.\n\n### Input:\nSnow fell.", "Snow.")
    ]
