"""Which facts a statement replaces: those that it corrects or denies, and no other."""

import pytest

from src.memory.corrections import replaces
from src.memory.facts import find_statements

REPLACED = [  # (fact, later statement)
    ("My cat is called Miso.", "Actually, my cat is called Momo."),
    ("My cat's name is Miso.", "No, my cat is called Momo."),
    ("I live in Rome.", "I live in Oslo now."),
    ("I live in Graz.", "I'm living in Vienna now."),
    ("I live in Graz.", "Actually, I moved to Vienna."),
    ("I live near Graz.", "Sorry, I moved to New York last month."),
    ("I live in Leeds.", "Actually I moved to York last month."),
    ("I moved to Graz.", "Actually, I moved to Vienna."),
    ("I moved to Graz.", "I live in Vienna now."),
    ("My sister lives in Bonn.", "Actually, my sister moved to Vienna."),
    ("My favourite colour is red.", "My favourite colour is blue."),
    ("I'm 34 years old.", "I'm 35 years old."),
    ("I'm 34 years old.", "I turned forty last week."),
    ("I'm vegan.", "I'm not vegan any more."),
    ("I've been vegan since 2010.", "I am no longer vegan."),
    ("I'm not vegan any more.", "I'm vegan again."),
    ("I drive a Fiat.", "I don\N{RIGHT SINGLE QUOTATION MARK}t drive a Fiat anymore."),
    ("I drive a Fiat.", "i dont drive any longer"),
    ("I smoke a pipe.", "I've stopped smoking."),
    ("I work at Siemens.", "I quit working at Siemens."),
    ("I work at Siemens.", "I don't work at Siemens now."),
    ("I work out at the gym.", "I've stopped working out."),
    ("I eat meat.", "I don't eat meat."),
    ("I can swim.", "I can't swim."),
    ("I hate mushrooms.", "I like mushrooms now."),
    ("I love jazz.", "I can't stand jazz any more."),
    ("I love jazz.", "I don't love jazz any more."),
    ("I hate mushrooms.", "I don't hate mushrooms any more."),
    ("I have a cat called Miso.", "I haven't got a cat any more."),
    ("I've got a cat.", "I have no cat any more."),
    ("I have a cat called Miso.", "My cat died, so I don't have a cat any more."),
    ("My wife and I live in Graz.", "We don't live in Graz any more."),
    ("My sister lives in Bonn.", "My sister no longer lives in Bonn."),
    ("My boss is called Anna Fuchs.", "My boss is no longer Anna Fuchs."),
    ("My brother has a dog.", "My brother doesn't have a dog any more."),
]
BOTH_STAY = [
    ("I have a dog.", "I have two cats now."),
    ("My dog is called Rex.", "Actually, my cat is called Momo."),
    ("My cat is called Miso.", "My cat is called Tom."),
    ("My name is Kim.", "My name is Kim!"),
    ("I live in Graz.", "I moved to Vienna."),
    ("I live in Graz.", "Actually, I moved to Vienna in 2015."),
    ("I live in Graz.", "Actually, I moved to the sales team."),
    ("I live in Graz.", "Actually, my sister moved to Vienna."),
    ("I moved to Graz in 2015.", "I live in Vienna now."),
    ("I live with my sister.", "Actually, I moved to Vienna."),
    ("I live in a flat near the river with my husband Koen and our two cats.", "I live in Bruges now."),
    ("I live alone.", "I live in Vienna now."),
    ("I live in Rome.", "I no longer live in Turin."),
    ("I live in Rome.", "I don't live alone any more."),
    ("I live in Rome.", "I don't understand it any more."),
    ("I live in Bonn.", "My sister no longer lives in Bonn."),
    ("My sister lives in Bonn.", "I no longer live in Bonn."),
    ("I work at Siemens.", "I don't work on Sundays."),
    ("I work at Siemens.", "I'm not working now."),
    ("I work out at the gym.", "I don't work any more."),
    ("I drive a Fiat.", "I don't drive at night."),
    ("I drink coffee and tea.", "I don't drink coffee any more."),
    ("I play the cello.", "I don't play chess any more."),
    ("I'm vegan.", "I'm not hungry."),
    ("I hate mushrooms.", "I like tea."),
    ("I like jazz.", "I don't love jazz."),
    ("I love hiking in the Alps.", "I hate hiking in the rain."),
    ("I'm vegan.", "I'm vegan, not vegetarian."),
    ("My dog is called Rex.", "My dog isn't well."),
    ("I speak Basque.", "I stopped at the shop."),
]


@pytest.mark.parametrize(
    ("fact", "statement", "replaced"), [*((*pair, True) for pair in REPLACED), *((*pair, False) for pair in BOTH_STAY)]
)
def test_a_statement_replaces_only_what_it_makes_untrue(fact: str, statement: str, replaced: bool) -> None:
    found = find_statements(statement)
    assert any(replaces(each.text, fact, corrects=each.corrects) for each in found) == replaced
    assert found or not replaced
