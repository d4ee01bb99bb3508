"""Examples: the supervision mask and how it is shown, truncation, and the validation split."""

import re

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.batching import Example
from src.data.examples import instruction_examples, preference_examples, show_mask, split_examples
from src.data.instructions import Conversation
from src.data.preferences import Preference
from src.data.prompts import Message, render_conversation
from src.tokenizer import load_gpt2_encoding

END = 50256
LONG_CONTEXT = 1000  # tokens, more than any text here has
ASKED = "### Instruction:\nSay hello.\n\n### Response:\n"


@pytest.fixture(scope="module")
def encoding() -> tiktoken.Encoding:
    return load_gpt2_encoding()


def conversation(*messages: tuple[str, str]) -> Conversation:
    return Conversation("x.json record 1", tuple(Message(role, text) for role, text in messages))  # type: ignore[arg-type]


def preference(chosen: str, rejected: str, *messages: tuple[str, str]) -> Preference:
    asked = conversation(*messages) if messages else conversation(("user", "Say hello."))
    return Preference("x.json record 1", asked.messages, chosen, rejected)


def supervised_text(example: Example, encoding: tiktoken.Encoding) -> str:
    return encoding.decode([i for i, supervised in zip(*example, strict=True) if supervised])


def context_text(example: Example, encoding: tiktoken.Encoding) -> str:
    return encoding.decode([i for i, supervised in zip(*example, strict=True) if not supervised])


def test_an_instruction_example_is_the_whole_conversation(encoding: tiktoken.Encoding) -> None:
    chats = [
        conversation(("user", "Say hello."), ("assistant", "Hello!")),
        conversation(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
    ]
    examples, n_truncated = instruction_examples(chats, encoding, LONG_CONTEXT)
    assert examples == [render_conversation(chat.messages, encoding) for chat in chats]
    assert [supervised_text(example, encoding) for example in examples] == [
        "Hello!<|endoftext|>", "b<|endoftext|>d<|endoftext|>",
    ]  # fmt: skip
    assert n_truncated == 0


def test_long_instructions_are_truncated_at_the_start_and_counted(encoding: tiktoken.Encoding) -> None:
    chats = [
        conversation(("user", "Say hello."), ("assistant", "Hello!")),
        conversation(("user", "word " * 50), ("assistant", "Hello!")),
        conversation(("user", "word " * 90), ("assistant", "Hello!")),
    ]
    examples, n_truncated = instruction_examples(chats, encoding, 40)
    assert [len(ids) for ids, _ in examples] == [len(render_conversation(chats[0].messages, encoding)[0]), 41, 41]
    assert [supervised_text(example, encoding) for example in examples] == ["Hello!<|endoftext|>"] * 3
    assert all(context_text(example, encoding).endswith("\n\n### Response:\n") for example in examples)
    assert n_truncated == 2


def test_an_instruction_that_just_fits_is_not_truncated(encoding: tiktoken.Encoding) -> None:
    chat = conversation(("user", "Say hello."), ("assistant", "Hello!"))
    length = len(render_conversation(chat.messages, encoding)[0])
    assert instruction_examples([chat], encoding, length - 1)[1] == 0
    assert instruction_examples([chat], encoding, length - 2)[1] == 1


def test_both_answers_of_a_preference_follow_the_same_prompt(encoding: tiktoken.Encoding) -> None:
    pairs, n_truncated = preference_examples([preference("Hello!", "Go away, you.")], encoding, LONG_CONTEXT)
    ((chosen, rejected),) = pairs
    assert (context_text(chosen, encoding), supervised_text(chosen, encoding)) == (ASKED, "Hello!<|endoftext|>")
    assert (context_text(rejected, encoding), supervised_text(rejected, encoding)) == (
        ASKED,
        "Go away, you.<|endoftext|>",
    )
    assert n_truncated == 0


def test_only_the_last_response_of_a_preference_is_supervised(encoding: tiktoken.Encoding) -> None:
    messages = [("system", "s"), ("user", "a"), ("assistant", "earlier"), ("user", "c")]
    (((ids, supervised), rejected),) = preference_examples(
        [preference("yes", "no", *messages)], encoding, LONG_CONTEXT
    )[0]
    assert supervised_text((ids, supervised), encoding) == "yes<|endoftext|>"
    assert supervised_text(rejected, encoding) == "no<|endoftext|>"
    assert "earlier<|endoftext|>### Instruction:\nc" in context_text((ids, supervised), encoding)
    assert context_text((ids, supervised), encoding) == context_text(rejected, encoding)
    assert supervised == sorted(supervised)


def test_preferences_keep_their_order(encoding: tiktoken.Encoding) -> None:
    several = [preference(f"good {n}", f"bad {n}") for n in range(5)]
    pairs, _ = preference_examples(several, encoding, LONG_CONTEXT)
    assert [(supervised_text(chosen, encoding), supervised_text(rejected, encoding)) for chosen, rejected in pairs] == [
        (f"good {n}<|endoftext|>", f"bad {n}<|endoftext|>") for n in range(5)
    ]


def test_a_long_prompt_is_truncated_the_same_for_both_answers(encoding: tiktoken.Encoding) -> None:
    long = preference("Hello!", "I would much rather not say hello to you at all", ("user", "word " * 60))
    pairs, n_truncated = preference_examples([long, preference("Hello!", "No.")], encoding, 40)
    chosen, rejected = pairs[0]
    assert context_text(chosen, encoding) == context_text(rejected, encoding)
    assert context_text(chosen, encoding).endswith("word \n\n### Response:\n")
    assert supervised_text(chosen, encoding) == "Hello!<|endoftext|>"
    assert supervised_text(rejected, encoding) == "I would much rather not say hello to you at all<|endoftext|>"
    assert len(rejected[0]) == 41
    assert n_truncated == 1


def test_an_answer_longer_than_the_context_loses_its_end(encoding: tiktoken.Encoding) -> None:
    pairs, n_truncated = preference_examples([preference("word " * 60, "Hello!")], encoding, 20)
    ((chosen_ids, chosen_mask), (rejected_ids, rejected_mask)) = pairs[0]
    assert (len(chosen_ids), chosen_mask) == (21, [False] + [True] * 20)
    assert END not in chosen_ids
    assert rejected_mask == [False, True, True, True]
    assert chosen_ids[0] == rejected_ids[0]
    assert rejected_ids[-1] == END
    assert n_truncated == 1


@pytest.mark.parametrize(
    ("count", "val_fraction", "n_val"),
    [(30, 0.1, 3), (30, 0, 0), (20, 0.1, 2), (3, 0.1, 1), (2, 0.01, 1), (2, 0.5, 1), (1, 0, 0), (10, 0.9, 9)],
)
def test_the_last_examples_are_for_validation(count: int, val_fraction: float, n_val: int) -> None:
    train, val = split_examples(range(count), val_fraction)
    assert train + val == list(range(count))
    assert len(val) == n_val


@pytest.mark.parametrize(("count", "val_fraction"), [(1, 0.1), (2, 0.9), (5, 0.95)])
def test_a_split_without_training_examples_is_refused(count: int, val_fraction: float) -> None:
    with pytest.raises(ValueError, match=re.escape(
        f"--val-fraction {val_fraction:g} leaves none of {count} examples for training; pass 0"
    )):  # fmt: skip
        split_examples(range(count), val_fraction)


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
    asked_and_answered = [f"### Instruction:\n{text}\n\n### Response:\n[[{text}<|endoftext|>]]" for text in texts]
    assert show_mask(render_conversation(messages, encoding), encoding, colour=False) == "".join(asked_and_answered)


def test_half_of_a_character_is_shown_as_a_replacement_character(encoding: tiktoken.Encoding) -> None:
    ids = encoding.encode_ordinary("👋")
    assert len(ids) > 1
    assert show_mask((ids, [True] * len(ids)), encoding, colour=False) == "[[👋]]"
    assert show_mask((ids[:-1], [True] * (len(ids) - 1)), encoding, colour=False) == "[[\ufffd]]"
