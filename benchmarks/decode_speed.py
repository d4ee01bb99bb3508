"""python -m benchmarks.decode_speed: decoding throughput of a 124M model, compared with other libraries.

Random weights, greedy decoding, batch size 1, a KV cache. Each implementation runs in a process of its own, and they
take turns. Each generates 1 token, and then many: the first time is the prefill, the difference the decode steps. Every
prompt is a new one, because OpenVINO GenAI caches the prefix of earlier prompts. The limit is the time to read every
matrix once per token, at the measured memory bandwidth.

Ours runs in fp32 with and without the 16-bit head (`TextGenerator.prepare_fast_decoding`), and in int8. transformers
runs in fp32. CTranslate2, if it is installed, runs in fp32 and int8. OpenVINO GenAI runs in int8 and int4 with
--openvino FOLDER, if FOLDER/int8 and FOLDER/int4 hold 124M models that its converter exported, best in an
environment of its own:

    optimum-cli export openvino --model openai-community/gpt2 \\
        --task text-generation-with-past --weight-format int8 FOLDER/int8

OpenVINO's int4 keeps the head in 8 bits. Only speed is compared: int4 also costs accuracy, which random weights cannot
show.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.harness import check_rounds, memory_bandwidth, require, run_in_turns, seconds, serve
from benchmarks.random_gpt2 import save_random_gpt2
from src.cli import flag, parse
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.model.load_gpt2 import load_gpt2
from src.model.quantize import quantize_int8
from src.program import run_script

BLOCK_ELEMENTS = 84_934_656  # of all matrices in the 12 blocks
HEAD_ELEMENTS = 50257 * 768
OPENVINO = "OpenVINO, "

Generate = Callable[[list[int], int], object]  # (prompt ids, number of new tokens)


@dataclass(frozen=True, kw_only=True)
class Flags:
    prompt: int = flag(64, "tokens in the prompt")
    tokens: int = flag(64, "tokens to generate after the first")
    rounds: int = flag(7, "measurements of each implementation, after one to warm up")
    openvino: Path | None = flag(None, "folder with the models int8 and int4 that OpenVINO's converter exported")
    worker: str | None = flag(None, "internal: be the worker process of this implementation")


class EndlessTokenizer:
    """A tokenizer without end-of-text, so that every generation has the requested length."""

    name, n_vocab, eot_token = "endless", 50257, -1

    def encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return "." * len(tokens)

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        return b"." * len(tokens)

    def decode_single_token_bytes(self, token: int) -> bytes:
        return b"."


def ours(model: GPTModel, *, fast_head: bool = False) -> Generate:
    generator = TextGenerator(model, EndlessTokenizer())
    if fast_head:
        generator.prepare_fast_decoding(wait=True)
    # No draft tokens: decoded greedily, a random model repeats itself, so all of them would be accepted.
    return lambda prompt, n: generator.generate(prompt, n, temperature=0, draft_tokens=0)


def transformers(folder: Path) -> Generate:
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def generate(prompt: list[int], n: int) -> object:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        return model.generate(
            ids, attention_mask=mask, do_sample=False, min_new_tokens=n, max_new_tokens=n, pad_token_id=0
        )

    return generate


def ctranslate2(folder: Path, compute_type: str) -> Generate:
    from ctranslate2 import Generator
    from ctranslate2.converters import TransformersConverter

    converted = folder / compute_type
    TransformersConverter(str(folder)).convert(str(converted), quantization=compute_type)
    threads = torch.get_num_threads()
    generator = Generator(str(converted), device="cpu", compute_type=compute_type, intra_threads=threads)
    words = [f"t{i}" for i in range(50257)]

    def generate(prompt: list[int], n: int) -> object:
        tokens = [words[i] for i in prompt]
        return generator.generate_batch(
            [tokens], sampling_topk=1, min_length=n, max_length=n, include_prompt_in_result=False, end_token=[]
        )

    return generate


def openvino(folder: Path) -> Generate:
    import openvino as ov
    from openvino_genai import GenerationConfig, LLMPipeline, TokenizedInputs

    pipeline = LLMPipeline(str(folder), "CPU", INFERENCE_NUM_THREADS=torch.get_num_threads())

    def generate(prompt: list[int], n: int) -> object:
        config = GenerationConfig()
        config.min_new_tokens = config.max_new_tokens = n
        config.do_sample, config.ignore_eos = False, True
        ids = torch.tensor([prompt]).numpy()
        return pipeline.generate(TokenizedInputs(ov.Tensor(ids), ov.Tensor(ids * 0 + 1)), config)

    return generate


IMPLEMENTATIONS: dict[str, Callable[[Path], Generate]] = {
    "ours, 16-bit head": lambda folder: ours(load_gpt2(folder), fast_head=True),
    "ours": lambda folder: ours(load_gpt2(folder)),
    "ours, int8": lambda folder: ours(quantize_int8(load_gpt2(folder))),
    "transformers": transformers,
    "CTranslate2": lambda folder: ctranslate2(folder, "float32"),
    "CTranslate2, int8": lambda folder: ctranslate2(folder, "int8"),
    f"{OPENVINO}int8": lambda folder: openvino(folder / "int8"),
    f"{OPENVINO}int4": lambda folder: openvino(folder / "int4"),
}


def installed_implementations(openvino_folder: Path | None) -> list[str]:
    """The names to measure. Prints why others are left out."""
    require("transformers")
    names = [name for name in IMPLEMENTATIONS if not name.startswith(OPENVINO)]
    if find_spec("ctranslate2") is None:
        print("CTranslate2 is left out; to include it, run pip install ctranslate2")
        names = [name for name in names if "CTranslate2" not in name]
    if openvino_folder is None:
        print("OpenVINO is left out; to include it, pass --openvino FOLDER")
        return names
    require("openvino_genai", "pip install openvino-genai")
    exported = [name for name in ("int8", "int4") if (openvino_folder / name / "openvino_model.xml").is_file()]
    if not exported:
        raise ValueError(f"{openvino_folder} has no model in int8/ or int4/; --help shows the command that exports one")
    return names + [OPENVINO + name for name in exported]


def bytes_per_token(name: str) -> float:
    """The size of all matrices that an implementation reads for a token."""
    if "int4" in name:
        return BLOCK_ELEMENTS / 2 + HEAD_ELEMENTS
    return (BLOCK_ELEMENTS + HEAD_ELEMENTS) * (1 if "int8" in name else 4)


def save_model(folder: Path) -> None:
    """Save a random 124M model, and a tokenizer with a made-up vocabulary, which CTranslate2's converter needs."""
    from transformers import GPT2TokenizerFast

    save_random_gpt2(folder)
    words = {f"t{i}": i for i in range(50256)} | {"<|endoftext|>": 50256}
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def run_worker(name: str, folder: Path, prompt_length: int, tokens: int) -> None:
    """Serve measurements: the seconds to the first token, and the seconds of all tokens after it."""
    with redirect_stdout(sys.stderr):
        generate = IMPLEMENTATIONS[name](folder)
    random = torch.Generator().manual_seed(1)

    def measure() -> tuple[float, float]:
        prompts = torch.randint(50000, (2, prompt_length), generator=random).tolist()
        first, all_tokens = (
            seconds(partial(generate, prompt, n)) for prompt, n in zip(prompts, (1, 1 + tokens), strict=True)
        )
        return first, all_tokens - first

    serve(measure)


def main(argv: Sequence[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    check_rounds(flags.rounds)
    if flags.worker:
        name, folder = flags.worker.split("@", 1)
        run_worker(name, Path(folder), flags.prompt, flags.tokens)
        return 0
    names = installed_implementations(flags.openvino)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        folders = {name: flags.openvino for name in names if name.startswith(OPENVINO)}
        command = ["benchmarks.decode_speed", f"--prompt={flags.prompt}", f"--tokens={flags.tokens}"]
        commands = {name: [*command, f"--worker={name}@{folders.get(name, folder)}"] for name in names}
        rates: list[float] = []
        results = run_in_turns(commands, flags.rounds, lambda: rates.append(memory_bandwidth()))
    rate = statistics.median(rates)
    threads = torch.get_num_threads()
    print(f"124M, prompt of {flags.prompt}, {flags.tokens} new tokens, {threads} threads, {rate / 1e9:.0f} GB/s")
    for name in names:
        first, rest = (statistics.median(times[i] for times in results[name]) for i in (0, 1))
        limit, speed = bytes_per_token(name) / rate, flags.tokens / rest
        share = f"{limit * speed:4.0%} of the limit"
        print(f"{name:<18} {speed:6.1f} tokens/s, {share} | time to first token {first * 1e3:5.0f} ms")
    return 0


if __name__ == "__main__":
    run_script(main)
