"""Splitting and joining: what a token is, and that the normal form is stable."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src.tokenizer.processing.cleaner import TextCleaner
from src.tokenizer.processing.splitter import TextSplitter, token_pattern
from tests.fakes import TRICKY_TEXTS

SPLITTER = TextSplitter()

# A text, its tokens separated by |, and its normal form (None: equal to the text). Quotation marks in tokens are curly.
EXAMPLES = [
    ("Hello, world!", "Hello|,|world|!", None),
    ("don't mother-in-law's a__b_c GPT-2 1st", "don't|mother-in-law's|a__b_c|GPT-2|1st", None),
    ("1,000.50 at 3:30, 2024-11-22. 5.", "1,000.50|at|3:30|,|2024-11-22|.|5|.", None),
    ("No.5 a:1 5:a", "No|.|5|a|:|1|5|:|a", "No. 5 a: 1 5: a"),
    ("To be,\n  or not\n\nto be ", "To|be|,|\n|or|not|\n|\n|to|be", "To be,\nor not\n\nto be"),
    ('"Go," he said, "\'tis late."', "\u201c|Go|,|\u201d|he|said|,|\u201c|\u2018|tis|late|.|\u201d", None),
    ("o' th' sea's lovers' 'had!' how", "o|\u2019|th|\u2019|sea's|lovers|\u2019|\u2018|had|!|\u2019|how", None),
    ("\u201cDon\u2019t\u201d", "\u201c|Don't|\u201d", '"Don\'t"'),
    ("a father--O, and/or wait -- what?", "a|father|--|O|,|and|/|or|wait|--|what|?", "a father--O, and/or wait--what?"),
    ("--'twas - -5 --- / //", "--|\u2018|twas|-|-|5|---|/|//", "-- 'twas - - 5---/ //"),
    ("( a ) [b] {c} $5 50 % x . . .", "(|a|)|[|b|]|{|c|}|$|5|50|%|x|.|.|.", "(a) [b] {c} $5 50% x..."),
    ("### Instruction:\nHi\n", "###|Instruction|:|\n|Hi|\n", None),
    ("a<UNK>b <<UNK>> <ENDOFTEXT>", "a|<UNK>|b|<|<UNK>|>|<|ENDOFTEXT|>", "a <UNK> b < <UNK> > < ENDOFTEXT >"),
    ("क्षि naïve e\u0301t Ⅷ 中文。", "क्षि|naïve|e\u0301t|Ⅷ|中文|。", "क्षि naïve e\u0301t Ⅷ 中文 。"),
    ("❤\ufe0f 👩\u200d👩\u200d👧 ok👍🏽", "❤\ufe0f|👩\u200d👩\u200d👧|ok|👍🏽", "❤\ufe0f 👩\u200d👩\u200d👧 ok 👍🏽"),
    ("\ud800 \0\x1b[31m\u0301", "\ud800|\0\x1b|[|31m\u0301", "\ud800 \0\x1b [31m\u0301"),
    (" \t\r\v\u3000", "", ""),
]


@pytest.mark.parametrize(("text", "tokens", "normal"), EXAMPLES)
def test_a_text_is_split_and_joined_as_expected(text: str, tokens: str, normal: str | None) -> None:
    assert SPLITTER.split(text) == [*filter(None, tokens.split("|"))]
    assert SPLITTER.join(SPLITTER.split(text)) == (text if normal is None else normal)


@given(text=TRICKY_TEXTS)
@example(text="\u0301_a")
@example(text="\u2764\ufe0f'a")
@example(text="a__b _c_ --'d")
@settings(max_examples=150, deadline=None)
def test_the_normal_form_splits_into_the_same_tokens(text: str) -> None:
    tokens = SPLITTER.split(text)
    assert SPLITTER.split(SPLITTER.join(tokens)) == tokens
    clean = SPLITTER.split(TextCleaner().clean(text))
    assert SPLITTER.split(TextCleaner().clean(SPLITTER.join(clean))) == clean


@given(text=TRICKY_TEXTS, unknown=st.sets(st.integers(0, 20)))
@settings(max_examples=80, deadline=None)
def test_unknown_words_keep_the_normal_form(text: str, unknown: set[int]) -> None:
    tokens = ["<UNK>" if i in unknown else token for i, token in enumerate(SPLITTER.split(text))]
    assert SPLITTER.split(SPLITTER.join(tokens)) == tokens


@given(text=TRICKY_TEXTS)
@settings(max_examples=80, deadline=None)
def test_splitting_only_drops_white_space(text: str) -> None:
    straight = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}
    expected = [c for c in text.translate(straight) if c == "\n" or not c.isspace() or c in "\x1c\x1d\x1e\x1f"]
    assert [*"".join(SPLITTER.split(text)).translate(straight)] == expected


@given(before=TRICKY_TEXTS, after=TRICKY_TEXTS, cut=st.sampled_from("\n "))
@settings(max_examples=80, deadline=None)
def test_a_text_can_be_split_after_a_line_break_or_space(before: str, after: str, cut: str) -> None:
    def tokens(text: str) -> list[str]:
        return SPLITTER.split(TextCleaner().clean(text))

    assert tokens(before + cut) + tokens(after) == tokens(before + cut + after)


@given(tokens=st.lists(TRICKY_TEXTS.map(SPLITTER.split)).map(lambda lists: [t for tokens in lists for t in tokens]))
@settings(max_examples=80, deadline=None)
def test_a_prefix_of_the_tokens_gives_a_prefix_of_the_text(tokens: list[str]) -> None:
    whole = SPLITTER.join(tokens)
    assert all(whole.startswith(SPLITTER.join(tokens[:n])) for n in range(len(tokens)))


@given(text=st.lists(st.sampled_from([*map(chr, range(128)), "<UNK>", "1,0", "a_b", "\u201c", "\u2019"])).map("".join))
@settings(max_examples=100, deadline=None)
def test_both_engines_find_the_same_tokens_in_ascii(text: str) -> None:
    assert token_pattern(ascii_only=True).findall(text) == token_pattern().findall(text)
