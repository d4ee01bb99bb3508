"""What automatic keeping saves, and what it never saves."""

import json
import re
from pathlib import Path

import pytest

from src.memory import fact_patterns
from src.memory.facts import extract_facts, find_statements
from src.memory.secrets import looks_secret

HELD_OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "memory_held_out.json"


def test_only_facts_that_people_tell_are_kept() -> None:
    cases = json.loads(HELD_OUT.read_text(encoding="utf-8"))
    assert len(cases["keep"]) >= 130 and len(cases["leave"]) >= 242
    assert [text for text in cases["leave"] if extract_facts(text)] == []
    assert sum(bool(extract_facts(text)) for text in cases["keep"]) >= len(cases["keep"]) - 5


@pytest.mark.parametrize("example", fact_patterns.FACT)
def test_each_pattern_of_a_fact_matches_its_example(example: str) -> None:
    assert re.match(fact_patterns.FACT[example], example, re.IGNORECASE)
    assert extract_facts(example) == [example]


@pytest.mark.parametrize("example", fact_patterns.NO_FACT)
def test_each_pattern_of_no_fact_matches_its_example(example: str) -> None:
    assert re.search(fact_patterns.NO_FACT[example], example, re.IGNORECASE)
    assert find_statements(example) == []


@pytest.mark.parametrize(
    ("message", "text", "requested", "corrects"),
    [
        ("Remember to buy milk.", "Remember to buy milk.", True, False),
        ("Remember that the rent is 940 euros.", "The rent is 940 euros.", True, False),
        ("please don\N{RIGHT SINGLE QUOTATION MARK}t forget that I ski", "I ski", True, False),
        ("Actually, my cat is called Momo.", "My cat is called Momo.", False, True),
        ("No, sorry, I live in Oslo.", "I live in Oslo.", False, True),
        ("I work in Oslo now.", "I work in Oslo now.", False, True),
        ("I used to live in Nairobi.", "I used to live in Nairobi.", False, False),
        ("I no longer live in Ghent.", "I no longer live in Ghent.", False, True),
        ("Hi! By the way, I have two sisters. And you?", "I have two sisters.", False, False),
        ("im allergic to nuts", "I'm allergic to nuts", False, False),
        ("I dont eat meat", "I don't eat meat", False, False),
        ("I'm learning Go because I like it.", "I'm learning Go because I like it.", False, False),
        ("I'm Tereza Malik, nice to meet you!", "I'm Tereza Malik!", False, False),
    ],
)
def test_a_statement_keeps_its_sense(message: str, text: str, requested: bool, corrects: bool) -> None:
    (statement,) = find_statements(message)
    assert (statement.text, statement.requested, statement.corrects) == (text, requested, corrects)


def test_a_secret_is_marked_even_if_it_should_be_remembered() -> None:
    (statement,) = find_statements("Remember that my PIN is 4711.")
    assert statement.is_secret and statement.requested
    mixed = find_statements("My cat is called Miso. My password is hunter2.")
    assert [each.is_secret for each in mixed] == [False, True]
    assert extract_facts("My login is maja and I use kolibri1994.") == []  # the second part is secret, too


@pytest.mark.parametrize(
    ("message", "facts"),
    [
        ("I live in Rome. My dog is called Rex.", ["I live in Rome.", "My dog is called Rex."]),
        ("My name is Kim and I'm vegan.", ["My name is Kim.", "I'm vegan."]),
        ("Remember that I like tea, but my wife is scared.", ["I like tea.", "My wife is scared."]),
        ("My wife and I live in Graz.", ["My wife and I live in Graz."]),
        ("I have a dog and my own house.", ["I have a dog and my own house."]),
        ("im tired and i live in graz", ["I live in graz"]),
        ("I asked whether my name is Tom and I live in Paris.", []),
        ("Remember that the bus is late and I walk.", ["The bus is late and I walk."]),
    ],
)
def test_each_thing_told_is_a_fact_of_its_own(message: str, facts: list[str]) -> None:
    assert extract_facts(message) == facts


@pytest.mark.parametrize("text", ["My locker combination is 12-34-56.", "My bank account is 12345678.", "The pw is x1"])
def test_secrets_are_recognised_by_their_names(text: str) -> None:
    assert looks_secret(text)


@pytest.mark.parametrize(
    "text", ["My flight is LH 1234.", "I was born in 1978.", "Call me on 555 0199.", "I spin wool."]
)
def test_other_numbers_and_words_are_not_secrets(text: str) -> None:
    assert not looks_secret(text)
