"""Tokens to text: stop strings within one token, across tokens, and inside each other."""

import itertools

import pytest

from src.model.decoding.text_stream import TextStream
from src.tokenizer import load_gpt2_encoding
from tests.fakes import ByteEncoding


def streamed(text: str, stops: tuple[str, ...], encoding=None) -> tuple[list[str], str | None]:
    """The pieces of a text, one byte per token unless an encoding is given, and the reason why it ended."""
    encoding = encoding or ByteEncoding()
    stream = TextStream(encoding.encode_ordinary(text), encoding, 100, stops)
    return list(stream), stream.finish_reason


@pytest.mark.parametrize("stops", list(itertools.permutations(["fore", "here", "ref"])))
def test_a_token_with_several_stops_ends_before_the_first(stops: tuple[str, ...]) -> None:
    encoding = load_gpt2_encoding()
    assert len(encoding.encode_ordinary(" therefore")) == 1
    assert streamed(" therefore", stops, encoding) == ([" t"], "stop")
