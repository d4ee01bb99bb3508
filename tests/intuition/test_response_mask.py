"""The mask is the one that instruction tuning uses."""

import pytest

from src.data.examples import instruction_examples
from src.data.instructions import Conversation
from src.data.prompts import Message
from src.intuition.response_mask import INSTRUCTION, RESPONSE, mark_response
from src.tokenizer import load_gpt2_encoding


@pytest.mark.parametrize(
    ("instruction", "response"),
    [(INSTRUCTION, RESPONSE), ("Say {instruction} {}", "\nno\n"), ("### Response:\n", " caf\u00e9")],
)
def test_mask_matches_the_training_data(instruction: str, response: str) -> None:
    encoding = load_gpt2_encoding()
    conversation = Conversation("here", (Message("user", instruction), Message("assistant", response)))
    (expected,), _ = instruction_examples([conversation], encoding, 256)
    assert mark_response(instruction, response, encoding) == expected
