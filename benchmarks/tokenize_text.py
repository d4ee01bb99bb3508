"""python -m benchmarks.tokenize_text: time and peak memory to tokenise a generated text of any size.

Ours streams the text into shards. It is compared with tiktoken alone, which reads all documents into memory and encodes
them in one batch on all CPUs, and with a preparation like nanoGPT's in one process: encode one document after another,
then write all ids to one memory-mapped file. Each runs in a process of its own, whose peak memory includes Python and
PyTorch. CPU seconds are those of all threads: wall time also depends on what else the machine does.

The text is JSONL: documents of words from GPT-2's vocabulary, the frequent ones more often, with numbers, made-up words
and punctuation. After 100 MB they come again, with a running number. The text is deleted at the end.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import regex

from benchmarks.harness import peak_mb
from src.cli import flag, parse
from src.common.disk import require_free_space
from src.common.machine import usable_cpus
from src.data.text import load_tokens
from src.program import run_script
from src.tokenizer import load_gpt2_encoding

NEW_TEXT = 100_000_000  # bytes of text before its documents come again


def write_text(path: Path, n_bytes: int) -> None:
    written, new, texts = 0, make_documents(), []
    with open(path, "w", encoding="utf-8") as out:
        for number in count():
            if written >= n_bytes:
                return
            if written < NEW_TEXT:
                texts.append(text := next(new))
            else:
                text = f"{number} {texts[number % len(texts)]}"
            written += out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def make_documents() -> Iterator[str]:
    random, encoding = np.random.default_rng(1), load_gpt2_encoding()
    vocabulary = [encoding.decode([id_]) for id_ in range(256, encoding.eot_token)]
    words = [word for word in vocabulary if regex.fullmatch(r" ?\p{L}+", word)]
    ends = [".", ".", ",", ",", ";", "?", "!", '"', "\n", "\n\n"]
    weights = 1 / np.arange(10, len(words) + 10)
    cumulative = np.cumsum(weights / weights.sum())
    while True:
        length = random.geometric(1 / 400)
        chosen = [words[i] for i in np.searchsorted(cumulative, random.random(length))]
        for place in random.integers(0, length, length // 8):
            chosen[place] += ends[place % len(ends)]
        for place in random.integers(0, length, length // 40):
            chosen[place] = f" {random.integers(10**6)}"
        yield "".join(chosen).strip()


def documents(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as lines:
        yield from (json.loads(line)["text"] for line in lines)


def ours(path: Path) -> int:
    return len(load_tokens(path, load_gpt2_encoding(), notify=lambda _: None))


def tiktoken_alone(path: Path) -> int:
    encoding, texts = load_gpt2_encoding(), list(documents(path))
    return sum(map(len, encoding.encode_ordinary_batch(texts, num_threads=usable_cpus()))) + len(texts) - 1


def one_process(path: Path) -> int:
    encoding = load_gpt2_encoding()
    encoded = [np.array([*encoding.encode_ordinary(text), encoding.eot_token], np.uint16) for text in documents(path)]
    n_tokens = sum(map(len, encoded))
    file = np.memmap(path.with_suffix(".bin"), np.uint16, "w+", shape=(n_tokens,))
    at = 0
    for ids in encoded:
        file[at : at + len(ids)] = ids
        at += len(ids)
    file.flush()
    return n_tokens - 1


WAYS: dict[str, Callable[[Path], int]] = {
    "ours": ours,
    "cached": ours,
    "one-process": one_process,
    "tiktoken": tiktoken_alone,
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    megabytes: int = flag(100, "size of the text")
    folder: Path | None = flag(None, "folder for the text and its tokens (default: a temporary one)")
    ways: str = flag(",".join(WAYS), "what to measure, with commas between; cached is ours again")

    def __post_init__(self) -> None:
        if self.megabytes < 1:
            raise ValueError(f"--megabytes must be at least 1, got {self.megabytes}")
        if unknown := [way for way in self.ways.split(",") if way not in WAYS]:
            raise ValueError(f"--ways has {unknown[0]!r}, expected some of {','.join(WAYS)}")


def measure(way: str, path: Path) -> tuple[int, float, float, float]:
    """(tokens, wall seconds, CPU seconds, peak memory in MB), in a process of its own."""
    start = time.perf_counter(), time.process_time()
    n_tokens = WAYS[way](path)
    return n_tokens, time.perf_counter() - start[0], time.process_time() - start[1], peak_mb()


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a function. A new process begins with the peak memory of its parent, so the parent stays small."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        path = Path(folder) / "text.jsonl"
        require_free_space(path, 2_500_000 * flags.megabytes, "pass a smaller --megabytes, or --folder on another disk")
        in_own_process(write_text, path, 1_000_000 * flags.megabytes)
        size = path.stat().st_size / 1e6
        print(f"{size:,.0f} MB of text")
        counts = set()
        for way in flags.ways.split(","):
            n_tokens, seconds, cpu_s, peak = in_own_process(measure, way, path)
            speed = f"{size / seconds:7.1f} MB/s, {size / cpu_s:6.1f} MB per CPU second"
            print(f"{way:<12} {seconds:8.1f} s  {speed}  peak {peak:6,.0f} MB  {n_tokens:,} tokens", flush=True)
            counts.add(n_tokens)
    if len(counts) > 1:
        raise ValueError(f"the ways give different numbers of tokens: {counts}")
    return 0


if __name__ == "__main__":
    run_script(main)
