"""Prediction is compression: a likely token costs few bits. Run it: python -m src.intuition compression"""

import gzip
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction

from src.intuition.terminal import heading, labelled, lines, say, suggest

TEXT = "the cat sat . the cat ran . the dog sat . the cat sat ."  # as in the demonstration `next-word`
END = b"\n"  # ends a text, so that the receiver knows where to stop
SHOWN = 14  # characters at each end


class CountingModel:
    """Predicts the next byte from the byte before it, by counting in the text so far.

    Each of the 256 bytes gets 1/256 of a count beforehand, so none is impossible.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[int | None, Counter[int]] = defaultdict(Counter)
        self._previous: int | None = None

    def probabilities(self) -> list[Fraction]:
        """The probability of each byte. They sum to 1."""
        counts = self._counts[self._previous]
        return [(counts[byte] + Fraction(1, 256)) / (counts.total() + 1) for byte in range(256)]

    def read(self, byte: int) -> None:
        """Count the next byte of the text."""
        self._counts[self._previous][byte] += 1
        self._previous = byte


def byte_bits(data: bytes) -> list[float]:
    """-log2(probability) of each byte, predicted before the model reads it."""
    model, bits = CountingModel(), []
    for byte in data:
        bits.append(-math.log2(model.probabilities()[byte]))
        model.read(byte)
    return bits


def encode(data: bytes) -> str:
    """The data, which ends with END, as a string of 0 and 1: arithmetic coding with exact fractions (Rissanen 1976).

    Each byte narrows an interval, which starts as 0 to 1, to its share. The result is the shortest binary fraction
    whose continuations all lie in the last interval. It is less than 2 bits longer than the sum of -log2(probability).
    """
    model, low, width = CountingModel(), Fraction(0), Fraction(1)
    for byte in data:
        shares = model.probabilities()
        low += width * sum(shares[:byte])
        width *= shares[byte]
        model.read(byte)
    n_bits = 0
    while math.ceil(low * 2**n_bits) + 1 > (low + width) * 2**n_bits:
        n_bits += 1
    return f"{math.ceil(low * 2**n_bits):0{n_bits}b}"


def decode(code: str) -> bytes:
    """The data that `encode` turned into this code: each byte is the one whose share contains the number."""
    model, number, data = CountingModel(), Fraction(int(code, 2), 2 ** len(code)), b""
    while not data.endswith(END):
        shares = model.probabilities()
        byte = 0
        while number >= shares[byte]:
            number -= shares[byte]
            byte += 1
        number /= shares[byte]
        model.read(byte)
        data += bytes([byte])
    return data


def gzip_bytes(data: bytes) -> int:
    """The size of the data after gzip."""
    return len(gzip.compress(data, mtime=0))


def compression() -> None:
    """Show how many bits each character of a text costs, and encode the text in that many bits."""
    heading("compression", "prediction is compression")
    say("""Let a sender and a receiver run the same model. Then whatever the model predicts well hardly has to be sent.
        A token with probability p costs -log2(p) bits: 1 bit if p is 1/2, 3 bits if p is 1/8, none if p is 1. The
        model here counts, in the text so far, which byte followed which. At first all 256 bytes are equally likely
        and cost 8 bits. These are the bits of the first and the last characters, with _ for a space:""")
    data = TEXT.encode() + END
    bits = byte_bits(data)
    labelled({"text": TEXT})
    _show_bits(data[:SHOWN], bits[:SHOWN])
    _show_bits(data[-SHOWN:], bits[-SHOWN:])
    say(f"""A frequent pair costs almost nothing. A pair that was never seen costs 8 bits or more. It is not impossible,
        because the model gives every byte 1/256 of a count from the start. The line break, \\n, ends the text. The sum
        is {sum(bits):.1f} bits. Arithmetic coding needs that, rounded up, and at most one bit more:""")
    code = encode(data)
    lines(code[i : i + 64] for i in range(0, len(code), 64))
    back = decode(code).decode().removesuffix(END.decode())
    say("The receiver runs the same model on these bits, and gets the text back:")
    labelled({"and back": back})
    show_sizes(TEXT.encode(), "counting", len(code))
    say("""The loss of a language model is the same number in another unit: bits = loss x tokens / ln 2. So a lower
        loss is a better compression, and `python -m src.evaluate` prints bits per byte: the size of the compressed
        text. After `python main.py`, your own model against gzip:""")
    lines(["python -m src.intuition compression --checkpoint scratch"])
    suggest("""set TEXT in src/intuition/compression.py to 10 * "the cat sat . ". How many bits does the last sentence
        take? And which is smaller now, gzip or counting?""")


def show_sizes(data: bytes, model: str, n_bits: float) -> None:
    """Print how many bytes the data takes as it is, from gzip, and from a model."""
    sizes = {"as it is": len(data), "gzip": gzip_bytes(data), model: math.ceil(n_bits / 8)}
    lines(f"{name:<12}{size:>7,} bytes   {8 * size / len(data):5.2f} bits per byte" for name, size in sizes.items())


def _show_bits(data: Iterable[int], bits: Iterable[float]) -> None:
    lines([
        "".join(f"{_spelling(byte):>5}" for byte in data),
        "".join(f"{n:5.1f}" for n in bits),
    ])  # fmt: skip


def _spelling(byte: int) -> str:
    return "_" if byte == ord(" ") else ascii(chr(byte))[1:-1]
