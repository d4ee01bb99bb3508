"""python -m benchmarks.decode_speed: tokens a second out of a 124M model, ours in fp32 and int8 beside its peers.

Greedy, one text at a time, over a cache. All take turns, each in a process of its own, since idle threads of one
library slow the next one down. Each writes a short and a long text: the difference of the two is its time for the
tokens in between, the short one that of reading the prompt. The limit is what the memory delivers when each token
reads every matrix once, in 32 or 8 bits. Ours is what a chat has, `TextGenerator.prepare_fast_decoding`. transformers
in fp32; CTranslate2, if it is installed, in fp32 and int8. OpenVINO GenAI takes
part with --openvino FOLDER, a GPT-2 of 124M that it was given as int8 (its converter wants an environment of its own):
optimum-cli export openvino --model openai-community/gpt2 --task text-generation-with-past --weight-format int8 FOLDER
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from benchmarks.harness import check_rounds, memory_bandwidth, run_in_turns, serve
from src.cli import flag, parse
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.load_gpt2 import load_gpt2
from src.model.quantize import quantize_int8
from src.program import run_script

MATRICES = 123_532_032  # numbers that a token reads: all blocks' matrices, and the head

Write = Callable[[list[int], int], object]  # (prompt ids, number of new tokens)


@dataclass(frozen=True, kw_only=True)
class Config:
    prompt: int = flag(64, "tokens of the prompt")
    tokens: int = flag(64, "tokens to write after the first")
    rounds: int = flag(7, "texts of each that count, after one to warm up")
    openvino: Path | None = flag(None, "a folder that OpenVINO's converter wrote")
    alone: str | None = flag(None, "be this contestant, for a parent process")


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


def ours(model: GPTModel, *, prepared: bool = False) -> Write:
    generator = TextGenerator(model, Endless())
    if prepared:
        generator.prepare_fast_decoding(wait=True)
    # A random model repeats itself, so draft tokens would flatter it.
    return lambda prompt, n: generator.generate(prompt, n, temperature=0, draft_tokens=0)


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


def openvino(folder: Path) -> Write:
    import openvino as ov
    from openvino_genai import GenerationConfig, LLMPipeline, TokenizedInputs

    pipeline = LLMPipeline(str(folder), "CPU", INFERENCE_NUM_THREADS=torch.get_num_threads())

    def write(prompt: list[int], n: int) -> object:
        config = GenerationConfig()
        config.min_new_tokens = config.max_new_tokens = n
        config.do_sample, config.ignore_eos = False, True
        ids = torch.tensor([prompt]).numpy()
        return pipeline.generate(TokenizedInputs(ov.Tensor(ids), ov.Tensor(ids * 0 + 1)), config)

    return write


def random_model(folder: Path) -> None:
    """A GPT-2 of 124M random parameters and a vocabulary of made-up words, as Hugging Face saves them."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    words = {f"t{i}": i for i in range(50256)} | {"<|endoftext|>": 50256}
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


CONTESTANTS: dict[str, Callable[[Path], Write]] = {
    "ours": lambda folder: ours(load_gpt2(folder), prepared=True),
    "ours, fp32 head": lambda folder: ours(load_gpt2(folder)),
    "ours, int8": lambda folder: ours(quantize_int8(load_gpt2(folder))),
    "transformers": transformers,
    "CTranslate2": lambda folder: ctranslate2(folder, "float32"),
    "CTranslate2, int8": lambda folder: ctranslate2(folder, "int8"),
    "OpenVINO, int8": openvino,
}


def contend(name: str, folder: Path, prompt: list[int], tokens: int) -> None:
    """For every line that comes in, the seconds of a short text and what a long one takes longer."""
    with redirect_stdout(sys.stderr):
        write = CONTESTANTS[name](folder)

    def turn() -> tuple[float, float]:
        times = []
        for n in (1, 1 + tokens):
            start = time.perf_counter()
            write(prompt, n)
            times.append(time.perf_counter() - start)
        return times[0], times[1] - times[0]

    serve(turn)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Config, argv, __doc__)
    check_rounds(flags.rounds)
    if flags.alone:
        name, folder = flags.alone.split("@", 1)
        prompt = torch.randint(50000, (flags.prompt,), generator=torch.Generator().manual_seed(1)).tolist()
        contend(name, Path(folder), prompt, flags.tokens)
        return 0
    names = [name for name in CONTESTANTS if find_spec("ctranslate2") or "CTranslate2" not in name]
    if "CTranslate2" not in names:
        print("CTranslate2 is left out: pip install ctranslate2")
    if flags.openvino is None:
        names.remove("OpenVINO, int8")
    with tempfile.TemporaryDirectory() as folder:
        random_model(Path(folder))
        folders = {"OpenVINO, int8": flags.openvino}
        command = ["benchmarks.decode_speed", f"--prompt={flags.prompt}", f"--tokens={flags.tokens}"]
        commands = {name: [*command, f"--alone={name}@{folders.get(name, folder)}"] for name in names}
        rates: list[float] = []
        turns = run_in_turns(commands, flags.rounds, lambda: rates.append(memory_bandwidth()))
    rate = statistics.median(rates)
    threads = torch.get_num_threads()
    print(f"124M, prompt of {flags.prompt}, {flags.tokens} new tokens, {threads} threads, {rate / 1e9:.0f} GB/s")
    for name in names:
        first, token = (statistics.median(turn[i] for turn in turns[name]) for i in (0, 1))
        limit, speed = MATRICES * (1 if "int8" in name else 4) / rate, flags.tokens / token
        share = f"{limit * speed:4.0%} of the limit"
        print(f"{name:<18} {speed:6.1f} tokens/s, {share} | first token after {first * 1e3:5.0f} ms")
    return 0


if __name__ == "__main__":
    run_script(main)
