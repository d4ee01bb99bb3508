"""The counting model continues a text before the examples, and answers after them."""

from collections import Counter, defaultdict

import pytest

from src.intuition.fine_tuning import EPOCHS, EXAMPLES, PRETRAINING, PROMPTS, Model, continue_text, learn, likely_next


def test_examples_make_their_answers_likely_and_no_others() -> None:
    model: Model = defaultdict(Counter)
    learn(model, " ".join(PRETRAINING))
    assert likely_next(model, PROMPTS[0].split()) == {"what": 1.0}  # two of two
    assert continue_text(model, PROMPTS[0]).startswith("what is the capital of")
    for example in EXAMPLES * EPOCHS:
        learn(model, example)
    assert likely_next(model, PROMPTS[0].split()) == pytest.approx({"Paris": 3 / 5, "what": 2 / 5})
    assert continue_text(model, PROMPTS[0]) == "Paris ."
    assert continue_text(model, PROMPTS[1]).startswith("who is")
    assert continue_text(model, "unseen words") == ""
