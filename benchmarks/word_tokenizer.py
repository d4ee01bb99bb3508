"""python -m benchmarks.word_tokenizer: speed and memory of the word tokenizer, compared with the `tokenizers` library.

The library's WordLevel model gets the same regular expression, vocabulary and text. Its text is already cleaned, with
directed quotation marks, and its ids must equal ours. They take turns; the times are medians. Building the vocabulary
is compared with a bare Counter. Memory is measured in processes that build it from 1, 4 and 16 copies of the text: the
peak of what building allocates, and the peak of the process, imports included. Linux and macOS only.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import check_rounds, peak_mb, require, time_in_turns
from src.cli import flag, parse
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.program import run_script
from src.tokenizer import build_word_encoding
from src.tokenizer.processing.cleaner import TextCleaner
from src.tokenizer.processing.splitter import token_pattern, with_directions
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown

LINES_PER_PIECE = 1000


@dataclass(frozen=True, kw_only=True)
class Flags:
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8")
    rounds: int = flag(7, "measurements, after one to warm up")
    worker: Path | None = flag(None, "internal: print the memory that building the vocabulary of this text takes")


def library_tokenizer(ours: TokenizerWithUnknown) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    # The library's regex engine spells code points and the "verbose" flag differently.
    pattern = "(?x)" + token_pattern().pattern.replace(r"\u200c\u200d", r"\x{200c}\x{200d}")
    theirs = Tokenizer(models.WordLevel(dict(ours.vocabulary.ids), unk_token="<UNK>"))
    theirs.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    return theirs


def compare_encoding(path: Path, rounds: int) -> None:
    text = path.read_text(encoding="utf-8")
    ours = build_word_encoding(path)
    theirs = library_tokenizer(ours)
    cleaned = with_directions(TextCleaner().clean(text))
    lines = cleaned.splitlines(keepends=True)
    pieces = ["".join(lines[i : i + LINES_PER_PIECE]) for i in range(0, len(lines), LINES_PER_PIECE)]

    def batch() -> list[int]:
        return [id_ for encoded in theirs.encode_batch_fast(pieces) for id_ in encoded.ids]

    ids = ours.encode_ordinary(text)
    assert ids == theirs.encode(cleaned).ids == batch(), "the ids differ"
    print(f"encoding {len(text) / 1e6:.1f} million characters, {len(ids):,} tokens, {ours.n_vocab:,} in the vocabulary")
    workloads: dict[str, Callable[[], object]] = {
        "ours, with cleaning": lambda: ours.encode_ordinary(text),
        "tokenizers, encode": lambda: theirs.encode(cleaned).ids,
        "tokenizers, encode_batch_fast": batch,
    }
    print_times(workloads, rounds)


def compare_building(path: Path, rounds: int) -> None:
    def count_words() -> Counter[str]:
        text = path.read_text(encoding="utf-8")
        return Counter(token_pattern(ascii_only=text.isascii()).findall(text))

    print("building the vocabulary")
    print_times({"ours": lambda: build_word_encoding(path), "Counter(findall(text))": count_words}, rounds)


def print_times(workloads: Mapping[str, Callable[[], object]], rounds: int) -> None:
    """Print the median of each workload, and how it compares with the first, which is ours."""
    medians = {name: statistics.median(times) for name, times in time_in_turns(workloads, rounds).items()}
    ours = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"  {name:<30} {median:6.2f} s   {median / ours:5.2f} x ours")


def compare_memory(path: Path) -> None:
    print("memory of building the vocabulary")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "text.txt"
        for times in (1, 4, 16):
            with open(copy, "wb") as file:
                for _ in range(times):
                    with open(path, "rb") as original:
                        shutil.copyfileobj(original, file)
            measured = subprocess.run(
                [sys.executable, "-m", "benchmarks.word_tokenizer", "--worker", str(copy)],
                check=True, capture_output=True, encoding="utf-8",
            )  # fmt: skip
            imports, process, allocated = map(float, measured.stdout.split())
            print(
                f"  {times:>2} x the text, {copy.stat().st_size / 1e6:5.1f} MB: {allocated:5.1f} MB allocated; "
                f"process {process:.1f} MB, {imports:.1f} of them after its imports"
            )


def print_memory(path: Path) -> None:
    """Print in MB: the peak of this process after its imports, after building, and what building allocates."""
    imports = peak_mb()
    build_word_encoding(path)
    process = peak_mb()
    tracemalloc.start()  # only now: its records take memory of their own
    build_word_encoding(path)
    print(imports, process, tracemalloc.get_traced_memory()[1] / 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    if flags.worker:
        print_memory(flags.worker)
        return 0
    require("tokenizers")
    if flags.data == SHAKESPEARE_PATH:
        ensure_shakespeare(flags.data)
    # While this process is small: on Linux, a child's peak starts at its parent's.
    compare_memory(flags.data)
    compare_building(flags.data, flags.rounds)
    compare_encoding(flags.data, flags.rounds)
    return 0


if __name__ == "__main__":
    run_script(main)
