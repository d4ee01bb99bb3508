"""--memorised: what a text copies, compared with the naive search."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from src.checkpoint import save_checkpoint
from src.data.shakespeare import SHAKESPEARE_PATH
from src.evaluate import main
from src.evaluation.memorisation import GRAM, WordIndex, find_copies, suffix_array
from src.model.generate import TextGenerator
from src.model.gpt import GPTModel
from src.tokenizer import describe, load_gpt2_encoding

NUMBERS = " ".join(f"line {i} has words\n" for i in range(400))


def naive_match(text: list[str], words: list[str]) -> int:
    starts = range(len(text))
    return max(next((n for n in range(len(words), 0, -1) if text[s : s + n] == words[:n]), 0) for s in starts)


@pytest.mark.parametrize("n_words", [1, 2, 3, 40])
def test_longest_match_equals_the_naive_search(n_words: int) -> None:
    generator = random.Random(n_words)
    vocabulary = [f"w{i}" for i in range(n_words)]
    text, other = (generator.choices([*vocabulary, "\n"], k=length) for length in (120, 60))
    index = WordIndex(" ".join(text), longest=32)
    text, other = [word for word in text if word != "\n"], [*(word for word in other if word != "\n"), "unseen"]
    for i in range(len(other)):
        words = other[i : i + 20]
        length, position = index.longest_match(words)
        assert length == naive_match(text, words)
        assert text[position : position + length] == words[:length]


@pytest.mark.parametrize("longest", [1, 5, 64])
def test_suffix_array_sorts_the_positions(longest: int) -> None:
    ids = np.random.default_rng(longest).integers(3, size=200)
    order = suffix_array(ids, longest)
    assert sorted(order.tolist()) == list(range(200))
    suffixes = [ids[i : i + longest].tolist() for i in order]
    assert suffixes == sorted(suffixes)


def test_copies_are_counted_and_found() -> None:
    copied = "line 17 has words line 18 has words line 19"
    found = find_copies(WordIndex(NUMBERS, longest=64), [f"new {copied} indeed", "line 5 has"])
    words = f"new {copied} indeed".split()
    grams = [words[i : i + GRAM] for i in range(len(words) - GRAM + 1)]
    expected = sum(naive_match(NUMBERS.split(), gram) == GRAM for gram in grams)
    assert (found.words, found.grams, found.copied) == (len(words) + 3, len(grams), expected)
    assert found.longest[0].text == copied and found.longest[0].words == 10
    assert NUMBERS.splitlines()[found.longest[0].line - 1].strip() == "line 17 has words"
    assert [each.words for each in found.longest] == [10, 3]


def test_report_compares_samples_with_the_validation_text(tmp_path: Path, capsys, monkeypatch) -> None:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_positions=64, n_embd=16, n_head=1, n_layer=1)).save_pretrained(tmp_path / "gpt2")
    (tmp_path / "text.txt").write_text(NUMBERS, encoding="utf-8")
    copied = "line 100 has words line 101 has words line 102 has words"
    monkeypatch.setattr(TextGenerator, "generate_batch", lambda self, prompts, *_, **__: [copied] * len(prompts))
    asked = ["--memorised", "--model", str(tmp_path / "gpt2"), "--data", str(tmp_path / "text.txt"), "--device", "cpu"]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "samples              384                160          100.00 %      12 words\n" in out
    assert f'line 101 of the training text, 12 words: "{copied}"' in out
    assert main([*asked, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samples"]["copied"] == report["samples"]["grams"] == 160
    assert report["validation"]["copied"] == 0


@pytest.mark.parametrize(
    ("stage", "recorded", "more", "expected"),
    [
        ("pretrain", "text.txt", [], Path("text.txt")),
        ("finetune", ["a.txt", "b.txt"], [], (Path("a.txt"), Path("b.txt"))),
        ("pretrain", "text.txt", ["--data", "other.txt"], Path("other.txt")),
        ("sft", "examples.json", [], SHAKESPEARE_PATH),
    ],
)
def test_training_text_is_the_recorded_one(tmp_path: Path, monkeypatch, stage, recorded, more, expected) -> None:
    model = GPTModel({"vocab_size": 50257, "context_length": 32, "d_model": 8, "n_heads": 1, "n_layers": 1})
    content = {"stage": stage, "config": asdict(model.config), "model": model.state_dict(), "template": None}
    recorded_run = {"settings": {"data": recorded}, "tokenizer": describe(load_gpt2_encoding())}
    save_checkpoint(tmp_path / "best_model.pt", {**content, **recorded_run})
    read = []
    monkeypatch.setattr(
        "src.evaluate.load_tokens", lambda data, *_, **__: read.append(data) or np.arange(900, dtype="uint16")
    )
    assert main(["--memorised", "--model", str(tmp_path), "--device", "cpu", *more]) == 0
    assert read == [expected]
