"""Which facts may answer a question, and one spelling for both kinds of English."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.memory.long_term import LongTermMemory
from src.memory.relevance import is_personal
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
    assert sum(map(recalls, cases["recalls"])) >= 96 and len(cases["recalls"]) == 100
    assert sum(map(recalls, cases["recalls_not"])) <= 1  # of 90


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
    ("fact", "question", "other"),
    [
        ("I drive a Skoda.", "Which car do I have?", "Where is my cat?"),
        ("I work as a locksmith.", "What do I do for a living?", "Where do I live?"),
        ("My husband is called Jonas.", "What is my spouse's name?", "What is my brother's name?"),
        ("I hate olives.", "What don't I like?", "What do I like?"),
    ],
)
def test_a_fact_may_have_another_word_than_its_question(
    memory: LongTermMemory, fact: str, question: str, other: str
) -> None:
    memory.store(fact, "a")
    assert [each.fact.text for each in memory.recall(question)] == [fact] and memory.recall(other) == []


@pytest.mark.parametrize(
    ("fact", "asked", "not_asked"),
    [
        (
            "My landlord is called Mr Okafor and the rent is 720 pounds.",
            ["How much is my rent?", "What rent do I pay?", "Who do I pay rent to?", "Who is my landlord?"],
            ["Where do I live?", "What is my name?"],
        ),
        ("My partner and I sing in a choir.", ["Do I sing?", "Does my partner sing?"], ["Does my brother sing?"]),
        ("My brother plays chess and the piano.", ["What does my brother play?"], ["Do I play the piano?"]),
    ],
)
def test_each_clause_of_a_fact_has_an_owner_of_its_own(
    memory: LongTermMemory, fact: str, asked: list[str], not_asked: list[str]
) -> None:
    memory.store(fact, "a")
    assert [question for question in [*asked, *not_asked] if memory.recall(question)] == asked
