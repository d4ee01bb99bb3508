"""The description of a data file: its numbers, and samples with the supervised tokens marked."""

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from src.common.messages import visible
from src.data.instructions import Conversation
from src.data.openings import choose_openings
from src.data.prompts import Example, Message, render_conversation
from src.data.show_data import describe_conversations, show_mask
from src.tokenizer import load_gpt2_encoding

ASKED = "### Instruction:\nSay hello.\n\n### Response:\n"
GREEN, DIM, PLAIN = "\033[0;1;32m", "\033[2m", "\033[0m"
TALK = [
    Message("user", "Say hello."),
    Message("assistant", "Hello, Zoë 👋🏽"),
    Message("user", "Again."),
    Message("assistant", "Hello!"),
]
AGAIN = "### Instruction:\nAgain.\n\n### Response:\n"


def test_without_colours_supervised_text_is_in_brackets(encoding: tiktoken.Encoding) -> None:
    assert show_mask(render_conversation(TALK, encoding), encoding, colour=False) == (
        f"{ASKED}[[Hello, Zoë 👋🏽<|endoftext|>]]{AGAIN}[[Hello!<|endoftext|>]]"
    )


def test_with_colours_supervised_text_is_green_and_the_rest_dim(encoding: tiktoken.Encoding) -> None:
    assert show_mask(render_conversation(TALK, encoding), encoding, colour=True) == (
        f"{DIM}{ASKED}{GREEN}Hello, Zoë 👋🏽<|endoftext|>{PLAIN}{DIM}{AGAIN}"
        f"{GREEN}Hello!<|endoftext|>{PLAIN}{DIM}{PLAIN}"
    )


def test_a_prompt_without_response_has_no_marks(encoding: tiktoken.Encoding) -> None:
    assert show_mask(render_conversation(TALK[:1], encoding), encoding, colour=False) == ASKED
    assert show_mask(render_conversation(TALK[:1], encoding), encoding, colour=True) == f"{DIM}{ASKED}{PLAIN}"


@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_characters_split_across_tokens_are_shown(encoding: tiktoken.Encoding, texts: list[str]) -> None:
    messages = [message for text in texts for message in (Message("user", text), Message("assistant", text))]
    asked_and_answered = [
        f"### Instruction:\n{text}\n\n### Response:\n[[{text}<|endoftext|>]]" for text in map(str.strip, texts)
    ]
    shown = show_mask(render_conversation(messages, encoding), encoding, colour=False)
    assert shown == visible("".join(asked_and_answered))


def test_half_of_a_character_is_shown_as_a_replacement_character(encoding: tiktoken.Encoding) -> None:
    ids = encoding.encode_ordinary("👋")
    assert len(ids) > 1
    assert show_mask(Example(ids, [True] * len(ids)), encoding, colour=False) == "[[👋]]"
    assert show_mask(Example(ids[:-1], [True] * (len(ids) - 1)), encoding, colour=False) == "[[\ufffd]]"


@pytest.fixture(scope="module")
def encoding() -> tiktoken.Encoding:
    return load_gpt2_encoding()


def test_the_text_of_a_sample_cannot_control_the_terminal(encoding: tiktoken.Encoding) -> None:
    ids = encoding.encode_ordinary("\x1b[2Jtext")
    assert (
        show_mask(Example(ids, [True] * len(ids)), encoding, colour=True)
        == f"{DIM}{GREEN}\\x1b[2Jtext{PLAIN}{DIM}{PLAIN}"
    )


def test_conversations_are_described_with_samples(encoding: tiktoken.Encoding) -> None:
    chats = [Conversation(f"x.json record {number}", tuple(TALK)) for number in (1, 1, 2, 3)]
    chats.append(Conversation("x.json record 4", (Message("user", "word " * 50), TALK[1])))
    numbers, samples = describe_conversations(chats, encoding, 40).split("\n\n", 1)
    assert numbers.splitlines() == [
        "  records        4",
        "  conversations  5",
        "  turns          9, at most 2 per conversation",
        "  tokens         193, 62 of them supervised; the longest has 41",
        "  truncated      1, to 40 tokens",
        f"  openings       {choose_openings(chats, 0, None).describe()}",
    ]
    assert samples.count("### Instruction:\nSay hello.") == 3
