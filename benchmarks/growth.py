"""python -m benchmarks.growth: how cost grows with context, batch and model size, beside what the arithmetic says.

Training steps by their matrix products, written tokens by the bytes that they read. The last column is the work done a
second: where it does not fall, nothing grows faster than it has to. Before all that, the memory of a long text.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from benchmarks.decode_speed import Endless
from benchmarks.machine import check_rounds, peak_mb
from benchmarks.training_speed import ours, step_gflop
from src.cli import flag, parse
from src.data.batching import Batch
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import choose_runtime

PARTS = ("memory", "context", "batch", "size", "decode")  # memory first: what is shown is the peak so far


@dataclass(frozen=True, kw_only=True)
class Config:
    model: Literal["micro", "tiny", "gpt2-124M"] = flag("gpt2-124M", "size of the model, where the size does not vary")
    part: Literal["all", "context", "batch", "size", "decode", "memory"] = flag("all", "one table alone")
    rounds: int = flag(3, "times that count, after one to warm up; the median is shown")


def median_s(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def training_steps(part: str, name: str) -> Iterator[tuple[str, int, int]]:
    """(size, windows, tokens of each) of a table."""
    if part == "context":
        yield from ((name, 1024 // length, length) for length in (128, 256, 512, 1024))
    elif part == "batch":
        yield from ((name, windows, 256) for windows in (1, 2, 4, 8))
    else:
        yield from ((size, 1, 256) for size in ("micro", "tiny", "gpt2-124M", "gpt2-355M"))


def training(part: str, flags: Config) -> None:
    print(f"\na training step, {part} growing")
    for name, windows, length in training_steps(part, flags.model):
        config = {**GPT_CONFIGS[name], "context_length": 1024}
        ids = torch.randint(config["vocab_size"], (windows, length + 1))
        step = ours(config, Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()), choose_runtime("cpu", "fp32"))
        seconds = median_s(step, flags.rounds)
        with torch.device("meta"):
            gflop = step_gflop(GPTModel(config), windows * length, length)
        print(
            f"{name:<10} {windows:2} x {length:<4} {seconds * 1e3:7.0f} ms | {gflop:7.0f} GFLOP | "
            f"{gflop / seconds:5.0f} GFLOP/s",
            flush=True,
        )


def decoding(flags: Config) -> None:
    print("\na written token, after more and more of them")
    config = {**GPT_CONFIGS[flags.model], "context_length": 1024}
    model = GPTModel(config).eval()
    generator, c = TextGenerator(model, Endless()), model.config
    weights = sum(p.numel() for n, p in model.named_parameters() if n != "wpe.weight") * 4
    for seen in (64, 128, 256, 512, 960):
        prompt = torch.randint(c.vocab_size, (seen,)).tolist()
        write = partial(generator.generate, prompt, temperature=0, lookup=0)
        short, long = (median_s(partial(write, n), flags.rounds) for n in (1, 33))
        seconds, read = (long - short) / 32, weights + 2 * c.n_layers * c.d_model * (seen + 16) * 4
        speed = f"{seconds * 1e3:7.2f} ms | {read / 1e6:5.0f} MB | {read / seconds / 1e9:5.1f} GB/s"
        print(f"after {seen:4} {speed}", flush=True)


def memory(flags: Config) -> None:
    """Ten times the context, so that the window is read again and again."""
    print("\nmemory of one long text, tiny, context 256")
    generator = TextGenerator(GPTModel(GPT_CONFIGS["tiny"]).eval(), Endless())
    stream = generator.stream("a", 2561, seed=1)
    for n, _ in enumerate(stream):
        if n % 512 == 0:
            print(f"after {n:4} tokens {peak_mb():6.0f} MB at most", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    check_rounds(flags.rounds)
    print(f"fp32, {torch.get_num_threads()} threads")
    for part in PARTS if flags.part == "all" else (flags.part,):
        if part == "decode":
            decoding(flags)
        elif part == "memory":
            memory(flags)
        else:
            training(part, flags)
    return 0


if __name__ == "__main__":
    run_script(main)
