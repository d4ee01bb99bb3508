"""Which facts may answer a question, one spelling for both kinds of English, and what a correction replaces."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.memory.long_term import LongTermMemory
from src.memory.relevance import is_personal, subject_of
from src.memory.words import american

HELD_OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "memory_held_out.json"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[LongTermMemory]:
    opened = LongTermMemory(tmp_path / "memory.sqlite3", pytest.fail)
    yield opened
    opened.close()


def test_single_facts_are_recalled_by_their_questions_only(memory: LongTermMemory) -> None:
    def recalls(pair: dict[str, str]) -> bool:
        fact = memory.store(pair["fact"], "a")
        assert fact is not None
        found = bool(memory.recall(pair["question"]))
        memory.forget(fact.id)
        return found

    cases = json.loads(HELD_OUT.read_text(encoding="utf-8"))
    assert sum(map(recalls, cases["recalls"])) >= 57 and len(cases["recalls"]) == 60
    assert sum(map(recalls, cases["recalls_not"])) <= 1  # of 50


@pytest.mark.parametrize(
    ("british", "other"),
    [
        ("favourite colour", "favorite color"),
        ("neighbours organised", "neighbors organized"),
        ("travelled to the theatre", "traveled to the theater"),
        ("grey tyres", "gray tires"),
        ("analysing a catalogue", "analyzing a catalog"),
    ],
)
def test_both_spellings_are_searched_as_one(british: str, other: str) -> None:
    assert american(british) == american(other) == other
    assert american("called four hours") == "called four hours"


@pytest.mark.parametrize(
    ("question", "personal"),
    [
        ("Where do I live?", True),
        ("Who is my boss?", True),
        ("How do I boil an egg?", False),
        ("Tell me of Rome.", False),
        ("I wonder why the sky is blue.", False),
    ],
)
def test_questions_about_the_user_are_recognised(question: str, personal: bool) -> None:
    assert is_personal(question) == personal


@pytest.mark.parametrize(
    ("old", "new", "replaced"),
    [
        ("My cat is called Miso.", "My cat is called Momo.", True),
        ("My cat's name is Miso.", "My cat is called Momo.", True),
        ("I live in Rome.", "I live in Oslo now.", True),
        ("I live in Rome.", "I no longer live in Rome.", True),
        ("I have a dog.", "I have two cats.", False),
        ("My dog is called Rex.", "My cat is called Momo.", False),
    ],
)
def test_a_correction_replaces_what_it_is_about(memory: LongTermMemory, old: str, new: str, replaced: bool) -> None:
    memory.store(old, "a")
    corrected = memory.corrected_by(new)
    assert bool(corrected) == replaced == (subject_of(old) == subject_of(new) != "")
    memory.store(new, "b", [fact.id for fact in corrected])
    assert [fact.text for fact in memory.all()] == ([new] if replaced else [old, new])
