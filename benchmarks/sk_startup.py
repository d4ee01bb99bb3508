"""python -m benchmarks.sk_startup: how soon sk_chat.py can be typed into, and how long its event loop is kept waiting.

Start-up in rounds, each in fresh processes one after the other: what the two imports take that it cannot do without,
and sk_chat.py from its start to its prompt, by way of a pipe that ends at once. The stall is the longest time that a
task of the loop, which wants to run every millisecond, had to wait while the model read a prompt and answered.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semantic_kernel.contents import ChatHistory

from src.chat.start import MODELS
from src.checkpoint import load_base
from src.cli import flag, parse
from src.model.generate import TextGenerator
from src.program import run_script
from src.sk_integration.service import GPT2ChatCompletion, GPT2ChatSettings
from src.tokenizer import load_encoding

IMPORTS = "import torch, semantic_kernel"


@dataclass(frozen=True, kw_only=True)
class Config:
    model: str = flag("auto", "dpo, sft, or a path; auto takes the first that is there")
    rounds: int = flag(7, "how often each start is timed")
    prompt_words: int = flag(20_000, "length of the message that is answered while the loop is watched")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    base = load_base(flags.model, MODELS, load_encoding)
    with tempfile.TemporaryDirectory() as folder:
        chat = ["sk_chat.py", "--model", str(base.path), "--memory-dir", folder]
        seconds(chat)  # the disk's cache is filled for both
        pairs = [(seconds(["-c", IMPORTS]), seconds(chat)) for _ in range(flags.rounds)]
    imports, starts = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(start / alone for alone, start in pairs)
    print(f"{IMPORTS}: {imports:.2f} s; sk_chat.py to its prompt and out again: {starts:.2f} s (medians)")
    print(f"ratio: {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}, {flags.rounds} rounds")
    service = GPT2ChatCompletion(
        TextGenerator(base.model, base.encoding), template=base.metadata.get("template"), notify=lambda _: None
    )
    tokens, stall = asyncio.run(watched(service, "word " * flags.prompt_words))
    print(f"longest stall of the event loop, prompt of {flags.prompt_words:,} words, {tokens} tokens: {stall:.0f} ms")
    return 0


def seconds(arguments: Sequence[str]) -> float:
    root = Path(__file__).parents[1]
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=root, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - begin


async def watched(service: GPT2ChatCompletion, message: str) -> tuple[int, float]:
    """(tokens of the answer, longest stall in ms)"""
    gaps: list[float] = []
    beating = asyncio.create_task(beat(gaps))
    history = ChatHistory()
    history.add_user_message(message)
    settings = GPT2ChatSettings(max_tokens=400, temperature=1.5, seed=1)
    async for part in service.get_streaming_chat_message_content(history, settings):
        if part and "usage" in part.metadata:
            tokens = part.metadata["usage"].completion_tokens
    beating.cancel()
    return tokens, max(gaps) * 1000


async def beat(gaps: list[float]) -> None:
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        gaps.append(time.perf_counter() - begin - 0.001)


if __name__ == "__main__":
    run_script(main)
