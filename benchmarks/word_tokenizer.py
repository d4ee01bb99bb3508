"""python -m benchmarks.word_tokenizer [--data PATH]: the word tokenizer beside WordLevel of the `tokenizers` library.

Both get the same regular expression, the same vocabulary and the same text, cleaned and with the direction of quotation
marks already in it for the library; that the ids are equal is checked. They take turns; times are medians. A vocabulary
is built beside a bare Counter, and of 1, 4 and 16 times the text, each in a process of its own, for the peak of its
memory. For Linux and macOS.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import peak_mb
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.tokenizer import build_word_encoding
from src.tokenizer.processing.cleaner import TextCleaner
from src.tokenizer.processing.splitter import token_pattern, with_directions
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown

ROUNDS = 7
LINES_A_PIECE = 1000


def library_tokenizer(ours: TokenizerWithUnknown) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    # The library's engine writes a character's number in another way, and "verbose" at the start of the expression.
    pattern = "(?x)" + token_pattern().pattern.replace(r"\u200c\u200d", r"\x{200c}\x{200d}")
    theirs = Tokenizer(models.WordLevel(dict(ours.vocabulary.ids), unk_token="<UNK>"))
    theirs.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    return theirs


def medians(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, the median of rounds in which all take their turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def compare_encoding(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    ours = build_word_encoding(path)
    theirs = library_tokenizer(ours)
    cleaned = with_directions(TextCleaner().clean(text))
    lines = cleaned.splitlines(keepends=True)
    pieces = ["".join(lines[i : i + LINES_A_PIECE]) for i in range(0, len(lines), LINES_A_PIECE)]

    def batch() -> list[int]:
        return [id_ for encoded in theirs.encode_batch_fast(pieces) for id_ in encoded.ids]

    ids = ours.encode_ordinary(text)
    assert ids == theirs.encode(cleaned).ids == batch(), "the two tokenizers disagree"
    seconds = medians(
        {
            "ours, cleaning included": lambda: ours.encode_ordinary(text),
            "tokenizers, encode": lambda: theirs.encode(cleaned).ids,
            "tokenizers, encode_batch_fast": batch,
        }
    )
    print(f"encoding {len(text) / 1e6:.1f} million characters, {len(ids):,} tokens, {ours.n_vocab:,} in the vocabulary")
    show(seconds, "ours, cleaning included")


def compare_building(path: Path) -> None:
    def bare() -> Counter[str]:
        text = path.read_text(encoding="utf-8")
        return Counter(token_pattern(ascii_only=text.isascii()).findall(text))

    print("building the vocabulary from the file")
    show(medians({"ours": lambda: build_word_encoding(path), "Counter(findall(text))": bare}), "ours")


def show(seconds: dict[str, float], first: str) -> None:
    for name, median in seconds.items():
        print(f"  {name:<30} {median:6.2f} s   {median / seconds[first]:5.2f} x ours")


def compare_memory(path: Path) -> None:
    print("peak memory of a process that builds the vocabulary")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "text.txt"
        for times in (1, 4, 16):
            with open(copy, "wb") as file:
                for _ in range(times):
                    with open(path, "rb") as original:
                        shutil.copyfileobj(original, file)
            peak = subprocess.run(
                [sys.executable, "-m", "benchmarks.word_tokenizer", "--peak-of", str(copy)],
                check=True, capture_output=True, encoding="utf-8",
            )  # fmt: skip
            print(f"  {times:>2} x the text: {copy.stat().st_size / 1e6:6.1f} MB   {float(peak.stdout):6.1f} MB peak")


def print_peak(path: Path) -> None:
    build_word_encoding(path)
    print(peak_mb())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHAKESPEARE_PATH, help="a text file in UTF-8")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(arguments.peak_of)
        return
    if arguments.data == SHAKESPEARE_PATH:
        ensure_shakespeare(arguments.data)
    # First, while this process is small: on Linux a child's peak begins with that of the process that started it.
    compare_memory(arguments.data)
    compare_building(arguments.data)
    compare_encoding(arguments.data)


if __name__ == "__main__":
    main()
