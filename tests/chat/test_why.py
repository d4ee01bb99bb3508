"""Why an answer came out as it did."""

import pytest
import torch

from src.chat.why import explain, origin, token_choices
from src.checkpoint.training_examples import TrainingExamples
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from tests.fakes import ENCODING

CONTEXT = 24
PROMPT, ANSWER = ENCODING.encode_ordinary("Once upon"), ENCODING.encode_ordinary(" a time")

EXAMPLES = TrainingExamples(
    (
        ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet, a tragedy about a Danish prince."),
        ("What is a verb?", "A verb is a word for an action, such as run or think."),
    ),
    "my.json",
)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    model = GPTModel({"vocab_size": 50257, "context_length": CONTEXT, "d_model": 8, "n_heads": 1, "n_layers": 1}).eval()
    torch.nn.init.normal_(model.wte.weight, std=2)  # so that some tokens are likely
    return TextGenerator(model, ENCODING)


def test_the_chances_are_those_of_predict_next_token(generator):
    choices = token_choices(generator, PROMPT, ANSWER)
    assert [choice.token for choice in choices] == [" a", " time"]
    for i, choice in enumerate(choices):
        ranked = generator.predict_next_token([*PROMPT, *ANSWER[:i]], top_k=50257)
        assert choice.probability == pytest.approx(dict(ranked)[choice.token], rel=1e-3)
        expected = [pair for pair in ranked[:3] if pair[0] != choice.token][:2]
        assert [token for token, _ in choice.others] == [token for token, _ in expected]
        assert [p for _, p in choice.others] == pytest.approx([p for _, p in expected], rel=1e-3)


def test_an_answer_longer_than_the_context_is_explained_as_far_as_it_fits(generator):
    choices = token_choices(generator, PROMPT, ANSWER * CONTEXT)
    assert len(choices) == CONTEXT - 1
    shown = "".join(text for _, text in explain(choices, 2 * CONTEXT, "Made up.").parts)
    assert f"\nThese are the last {CONTEXT - 1} of {2 * CONTEXT} tokens: the context holds no more.\n" in shown
    assert "of at least 50%, " in shown
    assert token_choices(generator, [], ANSWER[:1]) == []


def test_surprises_are_marked_without_colours_too(generator):
    choices = token_choices(generator, PROMPT, ANSWER * 5)
    styled = explain(choices, len(choices), "Made up.")
    rows = "".join(text for _, text in styled.parts).splitlines()[1 : 1 + len(choices)]
    for row, choice in zip(rows, choices, strict=True):
        expected = "!" if choice.probability < 0.1 else "?" if choice.probability < 0.5 else " "
        assert row.startswith(f"{expected} {choice.token!r}")


@pytest.mark.parametrize("columns", [30, 50, 80])
def test_the_table_fits_the_window(generator, columns):
    styled = explain(token_choices(generator, PROMPT, ANSWER * 5), 10, "", columns)
    rows = "".join(text for _, text in styled.parts).splitlines()[:-2]  # the last ones are wrapped when they are shown
    assert max(map(len, rows)) <= columns


@pytest.mark.parametrize(
    ("answer", "begins"),
    [
        (
            "William Shakespeare wrote Hamlet, a tragedy about a Danish prince.",
            'Learned by heart: word for word the answer to "Who wrote Hamlet?" in my.json.',
        ),
        (
            "William Shakespeare wrote Hamlet, a tragedy about a Danish cook.",
            'Mostly learned by heart: the answer to "Who wrote Hamlet?" in my.json contains ... william shakes',
        ),
        (
            "The boy saw an action, such as run or think, and he went to sleep in the garden of his father.",
            'Partly learned by heart: the answer to "What is a verb?" in my.json contains ... an action such as run',
        ),
        ("The moon is a green cheese.", "Made up: no training answer shares more than 2 words in a row with it."),
        ("", "Made up: no training answer shares any word with it."),
    ],
)
def test_the_origin_of_an_answer(answer, begins):
    assert origin(answer, EXAMPLES).startswith(begins)
