"""python -m benchmarks.decode_speed: tokens a second out of a 124M model, ours in fp32 and int8 beside its peers.

Greedy, one text at a time, over a cache. Each peer writes a short and a long text in turn; the difference of the two is
its time for the tokens in between, the short one that of reading the prompt. The limit is what the memory delivers:
each token reads every matrix once. transformers in fp32; CTranslate2, where it is installed, in fp32 and int8.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from src.cli import flag, parse, run
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.load_gpt2 import load_gpt2
from src.model.quantize import quantize_int8

Write = Callable[[list[int], int], object]  # (prompt ids, number of new tokens)


@dataclass(frozen=True, kw_only=True)
class Config:
    prompt: int = flag(64, "tokens of the prompt")
    tokens: int = flag(64, "tokens to write after the first")
    rounds: int = flag(7, "texts of each that count, after one to warm up")


class Endless:
    """A tokenizer without end-of-text, so that every text has the length that is asked for."""

    name, n_vocab, eot_token = "endless", 50257, -1

    def encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return "." * len(tokens)

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        return b"." * len(tokens)

    def decode_single_token_bytes(self, token: int) -> bytes:
        return b"."


def ours(model: GPTModel) -> Write:
    generator = TextGenerator(model, Endless())
    return lambda prompt, n: generator.generate(prompt, n, temperature=0)


def transformers(folder: Path) -> Write:
    model = GPT2LMHeadModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def write(prompt: list[int], n: int) -> object:
        ids = torch.tensor([prompt])
        seen = torch.ones_like(ids)
        return model.generate(
            ids, attention_mask=seen, do_sample=False, min_new_tokens=n, max_new_tokens=n, pad_token_id=0
        )

    return write


def ctranslate2(folder: Path, compute_type: str) -> Write:
    from ctranslate2 import Generator
    from ctranslate2.converters import TransformersConverter

    converted = folder / compute_type
    TransformersConverter(str(folder)).convert(str(converted), quantization=compute_type)
    threads = torch.get_num_threads()
    generator = Generator(str(converted), device="cpu", compute_type=compute_type, intra_threads=threads)
    words = [f"t{i}" for i in range(50257)]

    def write(prompt: list[int], n: int) -> object:
        start = [words[i] for i in prompt]
        return generator.generate_batch(
            [start], sampling_topk=1, min_length=n, max_length=n, include_prompt_in_result=False, end_token=[]
        )

    return write


def bandwidth() -> float:
    """Bytes a second that all threads read together from memory that no cache holds."""
    numbers = torch.ones(2**27)  # half a gigabyte
    numbers.sum()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return numbers.numel() * 4 / min(times)


def random_model(folder: Path) -> None:
    """A GPT-2 of 124M random parameters and a vocabulary of made-up words, as Hugging Face saves them."""
    import json

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    words = {f"t{i}": i for i in range(50256)} | {"<|endoftext|>": 50256}
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def contestants(folder: Path) -> dict[str, Write]:
    model = load_gpt2(folder)
    writers = {"ours": ours(model), "ours, int8": ours(quantize_int8(model)), "transformers": transformers(folder)}
    try:
        import ctranslate2 as _  # noqa: F401
    except ImportError:
        print("CTranslate2 is left out: pip install ctranslate2")
    else:
        writers |= {"CTranslate2": ctranslate2(folder, "float32"), "CTranslate2, int8": ctranslate2(folder, "int8")}
    return writers


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    prompt = torch.randint(50000, (flags.prompt,), generator=torch.Generator().manual_seed(1)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        random_model(Path(folder))
        writers = contestants(Path(folder))
    reading: dict[str, list[float]] = {name: [] for name in writers}
    writing: dict[str, list[float]] = {name: [] for name in writers}
    for turn in range(flags.rounds + 1):
        for name, write in writers.items():
            times = []
            for n in (1, 1 + flags.tokens):
                start = time.perf_counter()
                write(prompt, n)
                times.append(time.perf_counter() - start)
            if turn:
                reading[name].append(times[0])
                writing[name].append((times[1] - times[0]) / flags.tokens)
    matrices = 124_318_464  # numbers that a token reads: all blocks' matrices, and the head
    limits = {False: matrices * 4 / bandwidth(), True: matrices / bandwidth()}
    print(f"124M, prompt of {flags.prompt}, {flags.tokens} new tokens, {torch.get_num_threads()} threads")
    for name in writers:
        token, first = statistics.median(writing[name]), statistics.median(reading[name])
        print(
            f"{name:<18} {1 / token:6.1f} tokens/s (best {1 / min(writing[name]):5.1f}), "
            f"{limits['int8' in name] / token:4.0%} of the memory's rate | first token after {first * 1e3:5.0f} ms"
        )
    return 0


if __name__ == "__main__":
    run(main)
