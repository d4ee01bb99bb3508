"""python -m benchmarks.decode_modes: throughput of batched decoding, and of decoding with draft tokens, at 124M.

All modes take turns in one process, in fp32 or in int8. Draft tokens are measured at both extremes. A random model,
sampled at temperature 1, never repeats itself, so it finds no draft. A model whose blocks add nothing repeats its last
token forever, so it accepts every draft token. Real text lies in between: see benchmarks.draft_tokens.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.decode_speed import EndlessTokenizer
from benchmarks.harness import check_rounds, time_in_turns
from src.cli import flag, parse
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.model.quantize import quantize_int8
from src.program import run_script

PROMPT_TOKENS = 64
BATCH_SIZES = (1, 2, 4, 8, 16)
DRAFT_TOKENS = (0, 2, 5, 8)


@dataclass(frozen=True, kw_only=True)
class Flags:
    quantize: bool = flag(False, "quantize to int8")
    tokens: int = flag(64, "tokens to generate per sequence")
    rounds: int = flag(5, "measurements of each mode, after one to warm up")


def new_generator(*, quantize: bool, repeating: bool) -> TextGenerator:
    """A 124M model with random weights. repeating: its blocks add nothing, so it repeats its last token."""
    torch.manual_seed(0)
    model = GPTModel({**GPT_CONFIGS["gpt2-124M"], "dropout": 0.0}).eval()
    if repeating:
        for name, parameter in model.named_parameters():
            if "c_proj" in name or name == "wpe.weight":
                torch.nn.init.zeros_(parameter)
    return TextGenerator(quantize_int8(model) if quantize else model, EndlessTokenizer())


def decode_modes(
    random: TextGenerator, repeating: TextGenerator, prompt: list[int], tokens: int
) -> dict[str, tuple[int, Callable[[], object]]]:
    """For each mode, the number of tokens that it generates, and the function that generates them."""

    def batched(batch_size: int) -> Callable[[], object]:
        return lambda: random.generate_batch([prompt] * batch_size, tokens, batch_size=batch_size, seed=1)

    def drafted(generator: TextGenerator, draft_tokens: int) -> Callable[[], object]:
        temperature = 0.0 if generator is repeating else 1.0  # decoded greedily, the random model repeats itself, too
        return lambda: generator.generate(prompt, tokens, temperature=temperature, draft_tokens=draft_tokens, seed=1)

    modes = {f"batch of {n}": (n * tokens, batched(n)) for n in BATCH_SIZES}
    for n in DRAFT_TOKENS:
        modes[f"{n} draft tokens, all accepted"] = tokens, drafted(repeating, n)
        modes[f"{n} draft tokens, none found"] = tokens, drafted(random, n)
    return modes


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    random, repeating = (new_generator(quantize=flags.quantize, repeating=repeating) for repeating in (False, True))
    prompt = torch.randint(50000, (PROMPT_TOKENS,)).tolist()
    modes = decode_modes(random, repeating, prompt, flags.tokens)
    times = time_in_turns({name: generate for name, (_, generate) in modes.items()}, flags.rounds)
    dtype = "int8" if flags.quantize else "fp32"
    print(f"124M, {dtype}, prompt of {PROMPT_TOKENS} tokens, {torch.get_num_threads()} threads, prefill included")
    for name, (tokens, _) in modes.items():
        print(f"{name:<28} {tokens / statistics.median(times[name]):6.1f} tokens/s")
    return 0


if __name__ == "__main__":
    run_script(main)
