"""python -m benchmarks.scaling: how cost scales with context length, batch size and model size.

Training steps are compared with the FLOPs of their matrix products, decode steps with the bytes that they read. If
the rate in the last column does not fall, the cost grows no faster than the work. The first table is the memory of
one long generation.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from benchmarks.decode_speed import EndlessTokenizer
from benchmarks.harness import check_rounds, peak_mb, seconds
from benchmarks.training_speed import ours, step_gflop
from src.cli import flag, parse
from src.data.batching import Batch
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.program import run_script
from src.runtime import choose_runtime

PARTS = ("memory", "context", "batch", "size", "decode")  # memory first: it reports the peak of the process


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Literal["micro", "tiny", "gpt2-124M"] = flag("gpt2-124M", "model size, unless the table varies it")
    part: Literal["all", "context", "batch", "size", "decode", "memory"] = flag("all", "print one table only")
    rounds: int = flag(3, "measurements, after one to warm up; the median is printed")


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    """The median after one call to warm up."""
    work()
    return statistics.median(seconds(work) for _ in range(rounds))


def training_steps(part: str, name: str) -> Iterator[tuple[str, int, int]]:
    """(model size, windows, tokens per window) of each row of a table."""
    if part == "context":
        yield from ((name, 1024 // length, length) for length in (128, 256, 512, 1024))
    elif part == "batch":
        yield from ((name, windows, 256) for windows in (1, 2, 4, 8))
    else:
        yield from ((size, 1, 256) for size in ("micro", "tiny", "gpt2-124M", "gpt2-355M"))


def training(part: str, flags: Flags) -> None:
    print(f"\ntraining step, growing {part}")
    for name, windows, length in training_steps(part, flags.model):
        config = {**GPT_CONFIGS[name], "context_length": 1024}
        ids = torch.randint(config["vocab_size"], (windows, length + 1))
        step = ours(config, Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()), choose_runtime("cpu", "fp32"))
        step_s = median_seconds(step, flags.rounds)
        with torch.device("meta"):
            gflop = step_gflop(GPTModel(config), windows * length, length)
        print(
            f"{name:<10} {windows:2} x {length:<4} {step_s * 1e3:7.0f} ms | {gflop:7.0f} GFLOP | "
            f"{gflop / step_s:5.0f} GFLOP/s",
            flush=True,
        )


def decoding(flags: Flags) -> None:
    print("\ndecode step, growing context")
    config = {**GPT_CONFIGS[flags.model], "context_length": 1024}
    model = GPTModel(config).eval()
    generator, c = TextGenerator(model, EndlessTokenizer()), model.config
    weights = sum(p.numel() for n, p in model.named_parameters() if n != "wpe.weight") * 4
    for length in (64, 128, 256, 512, 960):
        prompt = torch.randint(c.vocab_size, (length,)).tolist()
        generate = partial(generator.generate, prompt, temperature=0, draft_tokens=0)
        short, long = (median_seconds(partial(generate, n), flags.rounds) for n in (1, 33))
        token_s, n_bytes = (long - short) / 32, weights + 2 * c.n_layers * c.d_model * (length + 16) * 4
        speed = f"{token_s * 1e3:7.2f} ms | {n_bytes / 1e6:5.0f} MB | {n_bytes / token_s / 1e9:5.1f} GB/s"
        print(f"after {length:4} tokens {speed}", flush=True)


def memory() -> None:
    """Generate ten times the context, so that the window slides many times."""
    print("\npeak memory of one long generation, tiny, context 256")
    generator = TextGenerator(GPTModel(GPT_CONFIGS["tiny"]).eval(), EndlessTokenizer())
    stream = generator.stream("a", 2561, seed=1)
    for n, _ in enumerate(stream):
        if n % 512 == 0:
            print(f"after {n:4} tokens {peak_mb():6.0f} MB", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    print(f"fp32, {torch.get_num_threads()} threads")
    for part in PARTS if flags.part == "all" else (flags.part,):
        if part == "decode":
            decoding(flags)
        elif part == "memory":
            memory()
        else:
            training(part, flags)
    return 0


if __name__ == "__main__":
    run_script(main)
