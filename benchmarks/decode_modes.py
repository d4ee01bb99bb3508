"""python -m benchmarks.decode_modes: what several texts at once and guessed tokens bring, at 124M.

All ways take turns in one process, in fp32 or in int8. Guesses are measured on two models: one of random weights,
whose text never repeats itself, so that none is made, and one whose blocks add nothing to what they read, which
writes its last token for ever, so that all are right. What a real text brings lies in between.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.decode_speed import Endless
from benchmarks.harness import check_rounds
from src.cli import flag, parse
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.model.quantize import quantize_int8
from src.program import run_script

PROMPT = 64


@dataclass(frozen=True, kw_only=True)
class Config:
    quantize: bool = flag(False, "in int8")
    tokens: int = flag(64, "tokens of each text")
    rounds: int = flag(5, "texts of each way that count, after one to warm up")


def new_generator(*, quantize: bool, echo: bool) -> TextGenerator:
    torch.manual_seed(0)
    model = GPTModel({**GPT_CONFIGS["gpt2-124M"], "dropout": 0.0}).eval()
    if echo:
        for name, parameter in model.named_parameters():
            if "c_proj" in name or name == "wpe.weight":
                torch.nn.init.zeros_(parameter)
    return TextGenerator(quantize_int8(model) if quantize else model, Endless())


def ways(
    usual: TextGenerator, echo: TextGenerator, prompt: list[int], tokens: int
) -> dict[str, tuple[int, Callable[[], object]]]:
    """Of each way how many tokens it writes, and what writes them."""

    def alone(generator: TextGenerator, draft_tokens: int) -> Callable[[], object]:
        temperature = 0.0 if generator is echo else 1.0  # the likeliest text of the usual one repeats itself, too
        return lambda: generator.generate(prompt, tokens, temperature=temperature, draft_tokens=draft_tokens, seed=1)

    def together(texts: int) -> Callable[[], object]:
        return lambda: usual.generate_batch([prompt] * texts, tokens, batch_size=texts, seed=1)

    found = {f"{n} texts at once": (n * tokens, together(n)) for n in (1, 2, 4, 8, 16)}
    for draft_tokens in (0, 2, 5, 8):
        found[f"{draft_tokens} draft tokens, all accepted"] = tokens, alone(echo, draft_tokens)
        found[f"{draft_tokens} draft tokens, none found"] = tokens, alone(usual, draft_tokens)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    check_rounds(flags.rounds)
    usual, echo = (new_generator(quantize=flags.quantize, echo=echo) for echo in (False, True))
    prompt = torch.randint(50000, (PROMPT,)).tolist()
    table = ways(usual, echo, prompt, flags.tokens)
    speeds: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(flags.rounds + 1):
        for name, (tokens, write) in table.items():
            start = time.perf_counter()
            write()
            speeds[name].append(tokens / (time.perf_counter() - start))
    print(f"124M, {'int8' if flags.quantize else 'fp32'}, prompt of {PROMPT}, {torch.get_num_threads()} threads")
    for name, found in speeds.items():
        print(f"{name:<31} {statistics.median(found[1:]):6.1f} tokens/s, prompt included")
    return 0


if __name__ == "__main__":
    run_script(main)
