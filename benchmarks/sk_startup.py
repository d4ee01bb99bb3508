"""python -m benchmarks.sk_startup: start-up time of sk_chat.py, and the longest stall of its event loop.

Start-up is compared with its two unavoidable imports, in fresh processes. sk_chat.py gets an empty stdin, so it starts,
shows its prompt and exits. The stall is the longest delay of a task that wakes up every millisecond, while the model
processes a long prompt and answers.
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

from benchmarks.harness import check_rounds
from src.checkpoint import MODEL_HELP, load_base
from src.cli import flag, parse
from src.model.generate import TextGenerator
from src.program import run_script
from src.sk_integration.service import GPT2ChatCompletion, GPT2ChatSettings

IMPORTS = "import torch, semantic_kernel"


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: str = flag("auto", MODEL_HELP)
    rounds: int = flag(7, "timed starts")
    prompt_words: int = flag(20_000, "words in the message that the stall is measured with")


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    base = load_base(flags.model)
    with tempfile.TemporaryDirectory() as folder:
        chat = ["sk_chat.py", "--model", str(base.path), "--memory-dir", folder]
        seconds(chat)  # fill the disk cache
        pairs = [(seconds(["-c", IMPORTS]), seconds(chat)) for _ in range(flags.rounds)]
    imports, starts = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(start / imported for imported, start in pairs)
    print(f"{IMPORTS}: {imports:.2f} s; sk_chat.py, start to exit: {starts:.2f} s (medians)")
    print(f"ratio: {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}, {flags.rounds} rounds")
    service = GPT2ChatCompletion(
        TextGenerator(base.model, base.encoding), template=base.metadata.get("template"), notify=lambda _: None
    )
    tokens, stall = asyncio.run(measure_stall(service, "word " * flags.prompt_words))
    lengths = f"prompt of {flags.prompt_words:,} words, answer of {tokens} tokens"
    print(f"longest stall of the event loop, {lengths}: {stall:.0f} ms")
    return 0


def seconds(arguments: Sequence[str]) -> float:
    root = Path(__file__).parents[1]
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=root, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - begin


async def measure_stall(service: GPT2ChatCompletion, message: str) -> tuple[int, float]:
    """Returns the number of tokens in the answer, and the longest stall in milliseconds."""
    delays: list[float] = []
    heartbeat = asyncio.create_task(record_delays(delays))
    history = ChatHistory()
    history.add_user_message(message)
    settings = GPT2ChatSettings(max_tokens=400, temperature=1.5, seed=1)
    async for part in service.get_streaming_chat_message_content(history, settings):
        if part and "usage" in part.metadata:
            tokens = part.metadata["usage"].completion_tokens
    heartbeat.cancel()
    return tokens, max(delays) * 1000


async def record_delays(delays: list[float]) -> None:
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0.001)
        delays.append(time.perf_counter() - begin - 0.001)


if __name__ == "__main__":
    run_script(main)
