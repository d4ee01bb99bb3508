"""Examples: the supervision mask, truncation, and the validation split."""

import re

import pytest
import tiktoken

from src.data.examples import instruction_examples, preference_examples, split_examples
from src.data.instructions import Conversation
from src.data.preferences import Preference
from src.data.prompts import Example, Message, render_conversation
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
    assert context_text(chosen, encoding).endswith("word word\n\n### Response:\n")
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
def test_the_split_takes_each_example_once_in_its_order(count: int, val_fraction: float, n_val: int) -> None:
    train, val = split_examples(range(count), range(count), val_fraction, seed=1)
    assert sorted(train + val) == list(range(count))
    assert (train, val) == (sorted(train), sorted(val))
    assert len(val) == n_val


def test_validation_is_a_fair_sample_of_a_sorted_file() -> None:
    topics = [topic for topic in "abcde" for _ in range(50)]
    for seed in range(5):
        train, val = split_examples(topics, range(250), 0.1, seed)
        assert len(val) == 25 and set(val) == set(train) == set("abcde")


def test_the_split_depends_only_on_the_seed() -> None:
    splits = [split_examples(range(100), range(100), 0.1, seed) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_examples_with_one_prompt_are_on_one_side() -> None:
    prompts = [number // 3 for number in range(90)]
    for seed in range(5):
        train, val = split_examples(prompts, prompts, 0.1, seed)
        assert len(val) == 9 and not set(train) & set(val)


def test_a_prompt_too_frequent_for_validation_is_divided() -> None:
    notes: list[str] = []
    sides = split_examples("aaaaaaaaaa", "aaaaaaaaaa", 0.2, seed=1, notify=notes.append)
    assert [len(side) for side in sides] == [8, 2]
    assert notes == [
        "note: one prompt is in both training and validation: it has too many answers for the validation part"
    ]


@pytest.mark.parametrize(("count", "val_fraction"), [(1, 0.1), (2, 0.9), (5, 0.95)])
def test_a_split_without_training_examples_is_refused(count: int, val_fraction: float) -> None:
    with pytest.raises(ValueError, match=re.escape(
        f"--val-fraction {val_fraction:g} leaves none of {count} examples for training; pass 0"
    )):  # fmt: skip
        split_examples(range(count), range(count), val_fraction, seed=1)
