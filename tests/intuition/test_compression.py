"""The code is as long as the sum of -log2(probability), and gives the data back. A checkpoint's bits are its loss."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.checkpoint import save_checkpoint
from src.evaluation.perplexity import text_loss
from src.intuition.__main__ import main
from src.intuition.compression import END, CountingModel, byte_bits, decode, encode
from src.intuition.own_compression import token_bits
from src.model.gpt import GPTModel
from src.tokenizer import Encoding, describe, load_gpt2_encoding, word_encoding_of


@given(st.binary(max_size=12).map(lambda data: data.replace(END, b"") + END))
@settings(max_examples=25, deadline=None)
def test_the_code_has_the_length_of_the_bits_and_gives_the_data_back(data: bytes) -> None:
    code = encode(data)
    assert decode(code) == data
    assert math.floor(sum(byte_bits(data))) <= len(code) < sum(byte_bits(data)) + 2


def test_bits_have_a_closed_form() -> None:
    # After "a", "b" was seen n of n times: its probability is (n + 1/256) / (n + 1).
    bits = byte_bits(b"abababab")
    assert bits[:3] == [8, 8, 8]
    assert bits[3::2] == pytest.approx([-math.log2((n + 1 / 256) / (n + 1)) for n in (1, 2, 3)])
    model = CountingModel()
    model.read(97)
    assert sum(model.probabilities()) == 1


def gpt(vocab_size: int) -> GPTModel:
    return GPTModel({"vocab_size": vocab_size, "context_length": 8, "d_model": 8, "n_heads": 2, "n_layers": 1}).eval()


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary() -> None:
    model = gpt(64)
    torch.nn.init.zeros_(model.wte.weight)
    assert token_bits(model, [5, 3, 9], start=0) == [6, 6, 6]


def test_bits_are_the_loss_of_the_evaluation() -> None:
    torch.manual_seed(1)
    model, ids = gpt(64), np.random.default_rng(1).integers(64, size=30)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    bits = token_bits(model, ids[1:].tolist(), start=int(ids[0]))
    assert len(bits) == 29 and sum(bits) == pytest.approx(29 * text_loss(model, ids, 8, 4) / math.log(2), rel=1e-6)


def checkpoint(folder: Path, encoding: Encoding) -> str:
    model = gpt(encoding.n_vocab)
    torch.nn.init.zeros_(model.wte.weight)
    content = {"stage": "pretrain", "config": asdict(model.config), "model": model.state_dict(), "template": None}
    save_checkpoint(folder / "best_model.pt", {**content, "tokenizer": describe(encoding)})
    return str(folder / "best_model.pt")


def test_the_bits_of_a_checkpoint_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(tmp_path, load_gpt2_encoding())
    assert main(["compression", "--checkpoint", path, "--text", "a\nnaïve \udcff"]) == 0
    shown = capsys.readouterr().out
    ids = load_gpt2_encoding().encode_ordinary("a\nnaïve \ufffd")
    assert f"{len(ids)} tokens" in shown and f"{len(ids) * math.log2(50257):.2f} bits" in shown
    assert f"{math.log(50257):.4f} nats per token" in shown
    assert f"your model  {math.ceil(len(ids) * math.log2(50257) / 8):>7} bytes" in shown


def test_a_tokenizer_that_drops_spaces_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, word_encoding_of(["some words"]))
    with pytest.raises(ValueError, match="has the word tokenizer, which drops spaces"):
        main(["compression", "--checkpoint", path])
