"""python -m benchmarks.soak: train and chat for a long time, and check that memory, handles and speed stay the same.

Training saves after every evaluation, and evaluates every few steps. Then two conversations of many turns: the session
of chat.py, and the assistant of sk_chat.py with its saved conversation and long-term memory. The last quarter of the
samples is compared with the first one, after a warm-up. Speed is per second of processor time, so that other programs
on the machine do not count. Linux and macOS only.
"""

import importlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fork import Child, prepare
from benchmarks.harness import require
from src.chat.session import ChatSession, ChatSettings
from src.cli import flag, parse
from src.data.prompts import TEMPLATE
from src.memory.keeping import FactKeeper
from src.memory.long_term import LongTermMemory
from src.memory.open_session import OpenSession
from src.memory.sessions import SessionStore
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.program import DONE, INTERRUPTED, run_script
from src.tokenizer import load_gpt2_encoding

MAX_GROWTH_MB = 16.0  # of the memory in use, from the first quarter to the last
MAX_NEW_HANDLES = 1.0
MIN_SPEED = 0.75  # of the first quarter; the file of a saved conversation grows with every turn
WARM_UP = 0.1  # share of the samples that are left out: caches fill
SAMPLE_S = 1.0
TRAINING = "--eval-every 5 --batch-size 2 --context-length 32 --max-steps 1000000000 --precision fp32 --patience none"
SENTENCES = ("My name is {}.", "I live in {}.", "What is my name?", "Where do I live?", "Tell me about {} and the sea.")
NAMES = ("Ann", "Ben", "Rome", "Oslo", "Cleo", "Paris", "Dora", "Bern")


@dataclass(frozen=True)
class Flags:
    minutes: float = flag(20.0, "length of the training run")
    turns: int = flag(2000, "messages of each conversation")

    def __post_init__(self) -> None:
        if not 0 < self.minutes < 10_000 or self.turns < 10:
            raise ValueError("--minutes must be above 0 and below 10,000, and --turns at least 10")


@dataclass(frozen=True)
class Sample:
    """Memory in use in MB, open files, and steps or turns per second of processor time."""

    memory_mb: float
    handles: float
    speed: float


def sample(pid: int, speed: float) -> Sample:
    import psutil

    process = psutil.Process(pid)
    return Sample(process.memory_info().rss / 1e6, process.num_fds(), speed)


def processor_seconds(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def report(name: str, samples: Sequence[Sample], unit: str) -> list[str]:
    """Print the first and the last quarter; returns the bounds that do not hold."""
    warm = samples[int(WARM_UP * len(samples)) :]
    quarter = len(warm) // 4
    if not quarter:
        raise RuntimeError(f"{name}: only {len(samples)} samples; use more minutes or turns")
    first, last = (
        Sample(*(statistics.median(getattr(s, key) for s in part) for key in ("memory_mb", "handles", "speed")))
        for part in (warm[:quarter], warm[-quarter:])
    )
    print(
        f"{name:<10}{len(samples):>6} samples | memory {first.memory_mb:.1f} then {last.memory_mb:.1f} MB | "
        f"open files {first.handles:.0f} then {last.handles:.0f} | {first.speed:.1f} then {last.speed:.1f} {unit}",
        flush=True,
    )
    problems = {
        f"memory grew by more than {MAX_GROWTH_MB:.0f} MB": last.memory_mb - first.memory_mb > MAX_GROWTH_MB,
        "open files grew": last.handles - first.handles > MAX_NEW_HANDLES,
        f"speed fell below {MIN_SPEED:.0%}": last.speed < MIN_SPEED * first.speed,
    }
    return [f"{name}: {problem}" for problem, found in problems.items() if found]


def train(folder: Path, minutes: float) -> list[Sample]:
    """Samples of main.py on a small model, whose speed is measured by the steps in its log."""
    rng = random.Random(0)
    text = "\n".join(" ".join(rng.choices(NAMES, k=8)) + "." for _ in range(2000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    argv = ["--data", str(folder / "text.txt"), "--tokenizer", "word", *TRAINING.split()]
    argv += ["--out", str(folder / "out"), "--log-dir", str(folder / "logs")]

    def script() -> int:
        os.chdir(folder)
        sys.argv = ["main.py", *argv]
        run_script(lambda: int(importlib.import_module("main").main(argv)))

    child = Child(script, folder / "output.txt")
    samples, end = [], time.monotonic() + 60 * minutes
    steps = step_counts(folder / "logs")
    before, used = 0, 0.0
    while time.monotonic() < end and child.poll() is None:
        time.sleep(SAMPLE_S)
        count, seconds = next(steps), processor_seconds(child.pid)
        if before and count > before and seconds > used:
            samples.append(sample(child.pid, (count - before) / (seconds - used)))
        before, used = count, seconds
    child.send(signal.SIGTERM)
    if child.wait(60) != INTERRUPTED:
        raise RuntimeError(f"training ended early: {(folder / 'output.txt').read_text(encoding='utf-8')[-300:]}")
    return samples


def step_counts(log_dir: Path) -> Iterator[int]:
    """The number of steps logged so far, each time it is asked for."""
    while not (logs := list(log_dir.glob("*.jsonl"))):
        yield 0
    count = 0
    with open(logs[0], "rb") as log:
        while True:
            count += log.read().count(b'"event": "step"')
            yield count


def chat(generator: TextGenerator, settings: ChatSettings, turns: int) -> list[Sample]:
    session = ChatSession(generator, template=TEMPLATE, settings=settings, notify=lambda _: None)
    return converse(lambda text: "".join(session.reply(text)), turns)


def assist(generator: TextGenerator, settings: ChatSettings, turns: int, folder: Path) -> list[Sample]:
    from src.sk_integration.orchestrator import Assistant
    from src.sk_integration.service import GPT2ChatCompletion

    def ignore(_: str) -> None:
        pass

    store, memory = SessionStore(folder, ignore), LongTermMemory(folder / "memory.sqlite3", ignore)
    assistant = Assistant(
        GPT2ChatCompletion(generator, template=TEMPLATE, notify=ignore),
        session=OpenSession(store, "soak", save=True, can_write=True, notify=ignore),
        facts=FactKeeper(memory, "auto", ignore, can_keep=True),
        settings=settings,
        notify=ignore,
    )
    with closing(assistant):
        return converse(lambda text: "".join(assistant.reply(text)), turns)


def converse(reply: Callable[[str], str], turns: int) -> list[Sample]:
    """A sample per turn."""
    rng, samples = random.Random(0), []
    for _ in range(turns):
        text, start = rng.choice(SENTENCES).format(rng.choice(NAMES)), time.process_time()
        reply(text)
        samples.append(sample(os.getpid(), 1 / (time.process_time() - start)))
    return samples


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    require("psutil")
    prepare(("torch._dynamo", "matplotlib.pyplot", "main"))
    with tempfile.TemporaryDirectory() as folder:
        problems = report("training", train(Path(folder), flags.minutes), "steps/s")
        size = {"vocab_size": 50257, "context_length": 128, "d_model": 16, "n_heads": 2, "n_layers": 1}
        generator, settings = TextGenerator(GPTModel(size), load_gpt2_encoding()), ChatSettings(max_tokens=8)
        problems += report("chat", chat(generator, settings, flags.turns), "turns/s")
        problems += report("assistant", assist(generator, settings, flags.turns, Path(folder)), "turns/s")
    for problem in problems:
        print(problem)
    return 1 if problems else DONE


if __name__ == "__main__":
    run_script(main)
