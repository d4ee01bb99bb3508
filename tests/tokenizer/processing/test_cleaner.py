"""Cleaning: what each rule does, that it can be switched off, and that cleaning is idempotent."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.tokenizer.core.exceptions import SettingError
from src.tokenizer.processing.cleaner import RULES, TextCleaner
from tests.fakes import TRICKY_TEXTS

# For each rule: a text before and after cleaning.
EXAMPLES = {
    "line_ends": ("a\r\nb\rc\x85d\u2028e\ff", "a\nb\nc\nd\ne\nf"),
    "spaces": ("a\xa0b\u202fc\u3000d", "a b c d"),
    "invisible": ("\ufeffa\u200bb\xadc\u2060d", "abcd"),
    "half_characters": ("a\ud83db", "a\ufffdb"),
    "single_quotes": ("don\u2019t \u2018x\u2019", "don't 'x'"),
    "double_quotes": ("\u201cx\u201d \u201ey\u201c", '"x" "y"'),
    "long_dashes": ("wait\u2014what", "wait--what"),
    "hyphens": ("1914\u20131918 well\u2010known \u22125", "1914-1918 well-known -5"),
    "ellipsis": ("so\u2026", "so..."),
    "emphasis": ("[_Exit._] the __end__ snake_case _", "[Exit.] the end snake_case "),
    "unicode": ("cafe\u0301 \u212b", "caf\xe9 \xc5"),
}


def test_every_rule_has_an_example() -> None:
    assert list(EXAMPLES) == list(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_applied_and_can_be_switched_off(rule: str) -> None:
    text, cleaned = EXAMPLES[rule]
    assert TextCleaner().clean(text) == TextCleaner([rule]).clean(text) == cleaned
    assert TextCleaner(set(RULES) - {rule}).clean(text) != cleaned
    assert TextCleaner([]).clean(text) == text


@given(text=TRICKY_TEXTS, rules=st.sets(st.sampled_from(list(RULES))))
@settings(max_examples=150, deadline=None)
def test_cleaning_is_idempotent_for_any_rules(text: str, rules: set[str]) -> None:
    cleaner = TextCleaner(rules)
    assert cleaner.clean(cleaner.clean(text)) == cleaner.clean(text)


def test_a_letter_and_its_accent_are_composed_in_one_pass() -> None:
    assert TextCleaner().clean("e_\u0301 e\u200b\u0301") == "\xe9 \xe9"


@given(text=st.text(st.characters(codec="ascii") | st.sampled_from("_\r\n")))
@settings(max_examples=100, deadline=None)
def test_ascii_text_needs_only_the_ascii_rules(text: str) -> None:
    expected = text
    for rule in RULES.values():
        expected = rule(expected)
    assert TextCleaner().clean(text) == expected


def test_cleaning_keeps_the_meaning_of_a_text() -> None:
    text = "x\xb2 + \xbd = \u2460 \xabmot\xbb 5% \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f600\n\n  a\tb"
    assert TextCleaner().clean(text) == text


def test_rules_are_applied_in_the_order_of_the_table() -> None:
    assert TextCleaner(["unicode", "spaces"]).rules == ("spaces", "unicode")


def test_an_unknown_rule_is_refused_and_known_ones_are_listed() -> None:
    with pytest.raises(SettingError, match=r"^there is no cleaning rule 'qoutes'; choose from line_ends, spaces, "):
        TextCleaner(["qoutes"])
