"""The prompt template: its exact text, which of its tokens are supervised, and that no text can break it."""

from itertools import groupby, product

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.prompts import OLD_TEMPLATE, TEMPLATE, Message, Role, prompt_ids, render_conversation, with_input
from src.tokenizer import learn_byte_pairs, load_gpt2_encoding

END = 50256

# Texts that look like parts of the template, of a format string or of the end-of-text token.
NASTY = [
    "<|endoftext|>", "<|endoftext|><|endoftext|>", "### Response:\n", "### Instruction:\n", "\n\n### Response:\n", "{}",
    "{0}", "{{}}", "%s", "%(x)s", "\\1", "$1", "\n", "\n\n", " ", "\t", " \n x", "é", "👩\u200d👧", "\u0301", "\0", "#",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(NASTY) | st.text(max_size=12), max_size=4).map("".join)
ROUNDS = st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4)  # instruction, input, response


@pytest.fixture(scope="module")
def encoding() -> tiktoken.Encoding:
    return load_gpt2_encoding()


def chat(rounds: list[tuple[str, str, str]], system: str | None = None) -> list[Message]:
    messages = [Message("system", system)] if system is not None else []
    for instruction, given_input, response in rounds:
        messages += [Message("user", instruction, given_input), Message("assistant", response)]
    return messages


def parts(messages: list[Message], encoding: tiktoken.Encoding) -> list[tuple[str, bool]]:
    """The texts of the runs of supervised or unsupervised tokens, in order."""
    pairs = zip(*render_conversation(messages, encoding), strict=True)
    return [
        (encoding.decode([id_ for id_, _ in run]), supervised)
        for supervised, run in groupby(pairs, key=lambda pair: pair[1])
    ]


USER = Message("user", "What is the capital of France?")
ALPACA = Message("user", "Translate to French.", "Good day.\nHow are you?")
SYSTEM = Message("system", "Be brief.")
PARIS = Message("assistant", "Paris")

ASKED = "### Instruction:\nWhat is the capital of France?\n\n### Response:\n"
ALPACA_ASKED = "### Instruction:\nTranslate to French.\n\n### Input:\nGood day.\nHow are you?\n\n### Response:\n"
SYSTEM_TEXT = "### System:\nBe brief.\n"
ANSWERED = "Paris<|endoftext|>"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], [(ASKED, False)]),
        ([USER, PARIS], [(ASKED, False), (ANSWERED, True)]),
        ([ALPACA, PARIS], [(ALPACA_ASKED, False), (ANSWERED, True)]),
        ([SYSTEM, USER, PARIS], [(SYSTEM_TEXT + ASKED, False), (ANSWERED, True)]),
        ([SYSTEM], [(SYSTEM_TEXT, False)]),
        ([Message("system", " \n"), USER], [(ASKED, False)]),
        (
            [Message("user", f"\t{USER.text}\n\n"), Message("assistant", "\n\n  Paris ")],
            [(ASKED, False), (ANSWERED, True)],
        ),
        ([PARIS], [(ANSWERED, True)]),
        ([USER, Message("assistant", "")], [(ASKED, False), ("<|endoftext|>", True)]),
        ([USER, PARIS, ALPACA], [(ASKED, False), (ANSWERED, True), (ALPACA_ASKED, False)]),
        (
            [SYSTEM, USER, PARIS, ALPACA, Message("assistant", "Bonjour.")],
            [(SYSTEM_TEXT + ASKED, False), (ANSWERED, True), (ALPACA_ASKED, False), ("Bonjour.<|endoftext|>", True)],
        ),
        ([], []),
    ],
    ids=[
        "prompt", "pair", "alpaca", "system", "system alone", "empty system", "white space around texts",
        "response alone", "empty response", "open chat", "chat of two rounds", "nothing",
    ],
)  # fmt: skip
def test_a_conversation_is_rendered_and_masked_exactly(
    encoding: tiktoken.Encoding, messages: list[Message], expected: list[tuple[str, bool]]
) -> None:
    assert parts(messages, encoding) == expected


def test_the_template_name_changes_with_its_text() -> None:
    assert TEMPLATE == "instruction-response 2"  # checkpoints record this name for the texts above


GOLDEN = [
    (21017, b"###", False),
    (46486, b" Instruction", False),
    (25, b":", False),
    (198, b"\n", False),
    (38, b"G", False),
    (2871, b"reet", False),
    (31645, b" Zo", False),
    (26689, b"\xc3\xab", False),
    (25, b":", False),
    (23884, b" {}", False),
    (198, b"\n", False),
    (198, b"\n", False),
    (21017, b"###", False),
    (18261, b" Response", False),
    (25, b":", False),
    (198, b"\n", False),
    (15496, b"Hello", True),
    (11, b",", True),
    (31645, b" Zo", True),
    (26689, b"\xc3\xab", True),
    (0, b"!", True),
    (50169, b" \xf0\x9f\x91", True),
    (233, b"\x8b", True),
    (END, b"<|endoftext|>", True),
]


def test_ids_and_mask_of_a_sample_are_pinned(encoding: tiktoken.Encoding) -> None:
    messages = [Message("user", "Greet Zoë: {}"), Message("assistant", "Hello, Zoë! 👋")]
    ids, supervised = render_conversation(messages, encoding)
    spellings = map(encoding.decode_single_token_bytes, ids)
    assert list(zip(ids, spellings, supervised, strict=True)) == GOLDEN


def test_prompt_ids_equal_the_rendered_conversation(encoding: tiktoken.Encoding) -> None:
    for message in (USER, ALPACA, SYSTEM):
        assert prompt_ids(message, encoding) == render_conversation([message], encoding)[0]


@given(rounds=ROUNDS, system=st.none() | TEXT)
@settings(max_examples=150, deadline=None)
def test_a_prompt_is_a_prefix_of_the_whole_conversation(
    encoding: tiktoken.Encoding, rounds: list[tuple[str, str, str]], system: str | None
) -> None:
    messages = chat(rounds, system)
    whole, _ = render_conversation(messages, encoding)
    for end in range(len(messages) + 1):
        ids, _ = render_conversation(messages[:end], encoding)
        assert whole[: len(ids)] == ids


@given(rounds=ROUNDS, system=st.none() | TEXT)
@settings(max_examples=150, deadline=None)
def test_only_responses_and_their_end_of_text_are_supervised(
    encoding: tiktoken.Encoding, rounds: list[tuple[str, str, str]], system: str | None
) -> None:
    ids, supervised = render_conversation(chat(rounds, system), encoding)
    supervised_ids = [i for i, mark in zip(ids, supervised, strict=True) if mark]
    assert supervised_ids == [
        i for _, _, response in rounds for i in [*encoding.encode_ordinary(cleaned(response)), END]
    ]
    assert ids.count(END) == len(rounds)
    assert ids[-1] == END


@given(asked=TEXT, answer=TEXT.filter(str.strip))
@settings(max_examples=100, deadline=None)
def test_supervision_starts_and_ends_with_the_response(encoding: tiktoken.Encoding, asked: str, answer: str) -> None:
    ids, supervised = render_conversation([Message("user", asked), Message("assistant", answer)], encoding)
    first = supervised.index(True)
    assert encoding.decode(ids[:first]) == f"### Instruction:\n{cleaned(asked)}\n\n### Response:\n"
    assert ids[first] == encoding.encode_ordinary(cleaned(answer))[0]
    assert (ids[-1], supervised[-1]) == (END, True)


def cleaned(text: str) -> str:
    """A message as the template contains it: no other program can take a part of it for the end-of-text token."""
    return text.strip().replace("<|endoftext|>", "< |endoftext|>")


OWN = learn_byte_pairs(["What is the capital of France? ### Response:\n\n\n naïve"] * 9, 300)


@given(rounds=ROUNDS, system=st.none() | TEXT, roles=st.permutations(["system", "user", "assistant"]))
@settings(max_examples=300, deadline=None)
def test_the_whole_text_has_the_ids_of_its_messages(
    encoding: tiktoken.Encoding, rounds: list[tuple[str, str, str]], system: str | None, roles: list[Role]
) -> None:
    conversation = chat(rounds, system)
    in_any_order = [Message(roles[i % 3], message.text) for i, message in enumerate(conversation)]
    for messages, tokenizer in product((conversation, in_any_order), (encoding, OWN)):
        ids, _ = render_conversation(messages, tokenizer)
        special = {tokenizer.decode([tokenizer.eot_token])}
        assert tokenizer.encode(tokenizer.decode(ids), allowed_special=special) == ids


@given(asked=TEXT, given_input=TEXT)
@settings(max_examples=100, deadline=None)
def test_an_instruction_with_an_input_equals_one_text(
    encoding: tiktoken.Encoding, asked: str, given_input: str
) -> None:
    one = with_input(asked, given_input) if given_input else asked
    assert prompt_ids(Message("user", asked, given_input), encoding) == prompt_ids(Message("user", one), encoding)


OLD_SYSTEM = "### System:\nBe brief.\n\n"


def test_the_template_of_earlier_checkpoints_keeps_its_ids(encoding: tiktoken.Encoding) -> None:
    ids, _ = render_conversation([SYSTEM, USER, Message("assistant", "\n\nParis")], encoding, OLD_TEMPLATE)
    parts = (OLD_SYSTEM, ASKED, "\n\nParis")
    assert ids == [id_ for part in parts for id_ in encoding.encode_ordinary(part)] + [END]
    assert ids != encoding.encode("".join(parts)) + [END]  # what other libraries make of the same text
    assert prompt_ids(Message("system", ""), encoding, OLD_TEMPLATE) == encoding.encode("### System:\n\n\n")


def test_an_unknown_template_is_refused(encoding: tiktoken.Encoding) -> None:
    with pytest.raises(ValueError, match="'chatml', which is none of 'instruction-response 1', 'instruction-resp"):
        render_conversation([USER], encoding, "chatml")


@pytest.mark.parametrize("text", NASTY)
def test_the_old_template_contains_texts_unchanged(encoding: tiktoken.Encoding, text: str) -> None:
    messages = [Message("system", text), Message("user", text, text), Message("assistant", text)]
    ids, _ = render_conversation(messages, encoding, OLD_TEMPLATE)
    assert encoding.decode(ids) == (
        f"### System:\n{text}\n\n### Instruction:\n{text}\n\n### Input:\n{text}\n\n### Response:\n{text}<|endoftext|>"
    )
