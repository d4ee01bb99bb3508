"""python -m benchmarks.token_cache: time to read, tokenise and cache a text, compared with tiktoken alone.

The two take turns. Ours starts from the file and ends with memory-mapped ids, once without an existing cache and once
with it. tiktoken starts from the text in memory and returns a list.
"""

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import check_rounds, seconds
from src.cli import flag, parse
from src.data.gutenberg import strip_boilerplate
from src.data.shakespeare import SHAKESPEARE_PATH
from src.data.text import load_tokens
from src.data.text_files import read_text
from src.program import run_script
from src.tokenizer import load_gpt2_encoding


@dataclass(frozen=True, kw_only=True)
class Flags:
    data: Path = flag(SHAKESPEARE_PATH, "text file in UTF-8")
    rounds: int = flag(5, "measurements, after one to warm up")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    encoding, text = load_gpt2_encoding(), strip_boilerplate(read_text(flags.data)).text
    times: dict[str, list[float]] = {"ours, no cache": [], "ours, from cache": [], "tiktoken alone": []}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(flags.data, folder))

        def ours() -> object:
            return load_tokens(copy, encoding, notify=lambda _: None)

        for _ in range(flags.rounds + 1):
            for cache in Path(folder).glob("*.tokens"):
                shutil.rmtree(cache)
            times["ours, no cache"].append(seconds(ours))
            times["ours, from cache"].append(seconds(ours))
            times["tiktoken alone"].append(seconds(lambda: encoding.encode_ordinary(text)))
    print(f"{len(text) / 1e6:.1f} million characters")
    for name, measured in times.items():
        print(f"{name:<22} {statistics.median(measured[1:]):6.2f} s")
    return 0


if __name__ == "__main__":
    run_script(main)
