"""Which messages get a note that they may contradict a saved fact, and which do not."""

import json
import re
from pathlib import Path

import pytest

from src.memory.contradictions import BARE_CORRECTION, OUTDATED, is_correction_of, outdated_questions
from src.memory.keeping import FactKeeper
from src.memory.long_term import LongTermMemory

HELD_OUT = Path(__file__).resolve().parents[2] / "benchmarks" / "memory_held_out.json"
DOUBTFUL = [  # (fact, the next message)
    ("I like strawberries.", "Sorry, I meant raspberries."),
    ("My name is Kim.", "Correction: Tim."),
    ("I'm allergic to nuts.", "Sorry, I'm allergic to eggs."),
    ("My wife is called Ann.", "I'm divorced now."),
    ("I live in Graz.", "We just moved to Vienna last month."),
    ("I have a dog called Pepper.", "Hi! Last week our dog Pepper died."),
    ("I drive a Fiat.", "I sold my car."),
    ("I work as a nurse.", "I'm retired now."),
    ("I'm single.", "I got married last week."),
    ("I have two sons.", "Sorry, I have three sons."),
    ("I work as a nurse.", "I was laid off last week."),
    ("My cat is called Miso.", "Sorry, her name's Momo."),
    ("I got a dog called Rex.", "Rex died."),
    ("I live in a flat in Graz.", "We moved to a new house in Linz."),
]
CERTAIN = [
    ("I like strawberries.", "No, thanks."),
    ("I like strawberries.", "Sorry, I don't understand."),
    ("I like strawberries.", "I like raspberries, too."),
    ("I like strawberries.", "Sorry, did I mean raspberries?"),
    ("My wife is called Ann.", "My sister is divorced."),
    ("My brother's wife is called Ann.", "I'm divorced."),
    ("I'm vegan.", "Sorry, I'm late."),
    ("I have two sons.", "Sorry, I have to go."),
    ("I like strawberries.", "Actually, I like raspberries, too."),
    ("My cat is called Miso.", "Wait, my cat is on the keyboard."),
    ("My cat is called Miso.", "No, it's wonderful."),
    ("My cat is called Miso.", "No, OK."),
    ("My cat is called Miso.", "Her cat died."),
    ("My cat is called Miso.", "The cat died at the end of the film."),
    ("My cat died last week.", "My cat died on Sunday."),
    ("I work as a nurse.", "I need a new job."),
    ("My rent is 940 euros.", "The rent is over 900 euros."),
    ("My brother is called Leo.", "I sold my brother's car."),
    ("My wife is called Ann.", "We split up the work."),
    ("I live in Linz.", "When I was six we moved to Graz."),
    ("I live in Linz.", "I moved to Linz last year."),
    ("I live in Linz.", "I moved to a new flat in Linz."),
    ("I studied in Porto.", "I graduated last year."),
    ("I quit my job at the bakery.", "I was fired."),
    ("We moved house.", "We moved to Linz."),
    ("I have a dog called Pepper.", "Pepper is hungry."),
    ("I have a dog called Pepper.", "My grandfather died last week."),
    ("My cat is called Miso.", "Wait, stop."),
    ("I live in Graz.", "I moved the sofa."),
    ("I moved to Graz.", "I moved to Graz."),
    ("I work as a nurse.", "I lost my job. " + "This is a long story. " * 30),  # probably pasted
    ("I live in Graz.", "I live in Linz now."),  # it replaces the fact
]


@pytest.fixture
def keeper(tmp_path):
    notes: list[str] = []
    memory = LongTermMemory(tmp_path / "memory.sqlite3", pytest.fail)
    yield FactKeeper(memory, "auto", notes.append, can_keep=True), notes
    memory.close()


@pytest.mark.parametrize(
    ("fact", "message", "is_doubtful"),
    [*((*pair, True) for pair in DOUBTFUL), *((*pair, False) for pair in CERTAIN)],
)
def test_a_note_names_a_fact_only_if_the_message_may_contradict_it(keeper, fact, message, is_doubtful):
    facts, notes = keeper
    facts.read(fact, "a")
    facts.read(message, "a")
    note = f'this may contradict fact 1, "{fact}": /forget 1 deletes it'
    found = [each.removesuffix(", and /remember TEXT keeps what is true now") for each in notes if "contradict" in each]
    assert found == [note] * is_doubtful


@pytest.mark.parametrize("message", ["Sorry, I meant raspberries.", "Sorry, I like raspberries."])
def test_a_note_tells_how_to_keep_the_right_value_unless_the_message_was_kept(keeper, message):
    facts, notes = keeper
    facts.read("I like strawberries.", "a")
    facts.read(message, "a")
    assert ("/remember" in notes[-1]) != any("Remembered: I like rasp" in note for note in notes)


def test_a_fact_is_called_doubtful_once(keeper):
    facts, notes = keeper
    for message in ("I have a dog called Pepper.", "My dog Pepper is dead.", "Pepper died."):
        facts.read(message, "a")
    assert sum("contradict" in note for note in notes) == 1


def test_a_bare_correction_is_about_the_message_directly_before_it(keeper):
    facts, notes = keeper
    for message in ("I like strawberries.", "My name is Kim.", "Sorry, I meant Tim.", "No, it's Tom."):
        facts.read(message, "a")
    assert [note[:36] for note in notes[2:]] == ['this may contradict fact 2, "My name']
    facts.read("My name is Kim.", "a")  # it is remembered already
    facts.memory.forget(2)
    facts.read("Sorry, I meant Tim.", "a")
    assert len(notes) == 3


def test_most_contradictions_are_noticed_and_no_other_message(keeper):
    facts, notes = keeper
    cases = json.loads(HELD_OUT.read_text(encoding="utf-8"))

    def is_noticed(case: dict[str, str]) -> bool:
        for saved in facts.memory.all():
            facts.memory.forget(saved.id)
        facts.read(case["fact"], "a")
        notes.clear()
        facts.read(case["message"], "a")
        return any("contradict" in note or "Forgotten" in note for note in notes)

    assert sum(map(is_noticed, cases["contradicts"])) >= len(cases["contradicts"]) - 4
    assert [case for case in cases["contradicts_not"] if is_noticed(case)] == []


@pytest.mark.parametrize("example", BARE_CORRECTION)
def test_each_pattern_of_a_bare_correction_matches_its_example(example):
    assert re.match(BARE_CORRECTION[example], example, re.IGNORECASE)
    assert is_correction_of(example, "My cat is called Miso.")


@pytest.mark.parametrize("example", OUTDATED)
def test_each_pattern_of_an_outdated_fact_matches_its_example(example):
    pattern, question = OUTDATED[example]
    match = re.search(pattern, example, re.IGNORECASE)
    assert match and match.expand(question) in outdated_questions(example)
