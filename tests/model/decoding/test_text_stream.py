"""Tokens to text: stop strings within one token, across tokens, and inside each other."""

import itertools

import pytest

from src.model.decoding.text_stream import TextStream, stop_strings
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
    assert streamed(" therefore", ("e",), encoding) == ([" th"], "stop")


@pytest.mark.parametrize(
    ("text", "stop", "pieces"),
    [
        ("abSTO-", "STOP", ["a", "b", "STO-"]),  # held back until the text is not the stop string
        ("abSTO", "STOP", ["a", "b", "STO"]),  # and released at the end
        ("abSTSTOP", "STOP", ["a", "b", "ST"]),
        ("xABABAC", "ABAC", ["x", "AB"]),  # the longest possible start is held back, not the shortest
        ("xaab", "aaab", ["x", "aab"]),
        ("xa", "a", ["x"]),
    ],
)
def test_a_possible_start_of_a_stop_string_waits(text: str, stop: str, pieces: list[str]) -> None:
    assert streamed(text, (stop,)) == (pieces, "stop")


def test_the_longest_start_of_any_stop_string_waits() -> None:
    assert streamed("xABY", ("BZ", "ABC")) == (["x", "ABY"], "stop")
    assert streamed("xABY", ("ABC", "BZ")) == (["x", "ABY"], "stop")


@pytest.mark.parametrize(("limit", "reason"), [(3, "length"), (2, "length"), (4, "stop")])
def test_the_reason_is_length_at_the_limit(limit: int, reason: str) -> None:
    stream = TextStream([1, 2, 3], ByteEncoding(), limit, ())
    assert stream.finish_reason is None
    assert next(stream) == "\1"
    assert stream.ids == [1]
    list(stream)
    assert (stream.ids, stream.finish_reason) == ([1, 2, 3], reason)


def test_a_character_is_held_back_until_its_last_byte() -> None:
    euro = "€".encode()
    assert list(TextStream([*b"a", *euro, *b"b"], ByteEncoding(), 100, ())) == ["a", "€", "b"]
    assert list(TextStream([*b"a", *euro[:2]], ByteEncoding(), 100, ()))[-1] == "\ufffd"


def test_a_word_is_spaced_from_the_token_before_the_text() -> None:
    encoding = WordPairs()
    assert "".join(TextStream([1, 2], encoding, 100, (), previous=[0])) == " 1 2"
    assert "".join(TextStream([1, 2], encoding, 100, ())) == "1 2"


class WordPairs(ByteEncoding):
    """Tokens are numbers; a space separates each from the one before."""

    def decode_bytes(self, tokens) -> bytes:
        return " ".join(map(str, tokens)).encode()


@pytest.mark.parametrize(("stop", "stops"), [(None, ()), ("a", ("a",)), ([], ()), (["a", "bc"], ("a", "bc"))])
def test_stop_strings_are_a_tuple(stop, stops: tuple[str, ...]) -> None:
    assert stop_strings(stop) == stops


@pytest.mark.parametrize("stop", ["", ["a", ""], [3], [None], 3, True, {"a": 1}])
def test_an_empty_stop_string_is_refused(stop) -> None:
    with pytest.raises(ValueError, match="stop must be a non-empty string or a list of them, got"):
        stop_strings(stop)
