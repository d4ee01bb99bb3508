"""The tokenizer of a training run: built from a text, described in a checkpoint, loaded and verified."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from src.tokenizer import build_word_encoding, describe, encoding_fingerprint, load_encoding, load_gpt2_encoding
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.processing import file_reader
from src.tokenizer.tokenizers.simple import SimpleTokenizer
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "play.txt"
    file.write_text("To be,\nor not to be.\n", encoding="utf-8")
    return file


def test_a_text_becomes_an_encoding_that_includes_always(text: Path) -> None:
    encoding = build_word_encoding(text, always=["### Instruction:\n", "that"])
    assert encoding.vocabulary.tokens == (
        "<UNK>", "<ENDOFTEXT>", "\n", "be", ",", ".", "To", "not", "or", "to", "###", ":", "Instruction", "that",
    )  # fmt: skip
    assert 0 not in encoding.encode("### Instruction:\nthat to be\n")


def test_the_chunks_of_a_text_do_not_matter(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = describe(build_word_encoding(text))
    monkeypatch.setattr(file_reader, "_BLOCK_BYTES", 1)
    assert describe(build_word_encoding(text)) == whole


@pytest.mark.parametrize("kind", [TokenizerWithUnknown, SimpleTokenizer])
def test_an_encoding_is_loaded_from_a_checkpoint(text: Path, tmp_path: Path, kind: type[TokenizerWithUnknown]) -> None:
    vocabulary = build_word_encoding(text).vocabulary
    encoding = kind(Vocabulary(vocabulary.tokens, []))
    torch.save({"tokenizer": describe(encoding)}, tmp_path / "model.pt")
    description = torch.load(tmp_path / "model.pt", weights_only=True)["tokenizer"]
    loaded = load_encoding(description)
    assert type(loaded) is kind and loaded.state() == encoding.state()
    assert (
        describe(loaded)
        == description
        == {
            "name": "word",
            "fingerprint": encoding_fingerprint(encoding),
            "state": {"version": 1, "kind": kind.kind, "cleaning": [], "tokens": [*vocabulary.tokens]},
        }
    )


@pytest.mark.parametrize("description", [None, {"name": "gpt2"}, "described"])
def test_gpt2s_encoding_is_loaded_by_name(description: Any) -> None:
    gpt2 = load_gpt2_encoding()
    assert load_encoding(describe(gpt2) if description == "described" else description) is gpt2


# Changes to a valid description and to its state, and the error that they cause.
DAMAGE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"name": "bpe"}, {}, "there is no tokenizer 'bpe', only 'gpt2', 'word' and 'byte_pairs'"),
    ({"name": ["word"]}, {}, "there is no tokenizer ['word'], only 'gpt2', 'word' and 'byte_pairs'"),
    ({"name": "gpt2"}, {}, "its fingerprint is a5623714bcf1..., not the stated one; "),
    ({"state": None}, {}, "its vocabulary is missing"),
    ({"state": [1]}, {}, "its vocabulary is missing"),
    ({"fingerprint": None}, {}, "its fingerprint is "),
    ({"fingerprint": "0" * 64}, {}, "its fingerprint is "),
    ({}, {"version": 2}, "its version is 2, this program reads version 1"),
    ({}, {"version": torch.ones(9, 9)}, "its version is tensor([[1., 1."),
    ({}, {"kind": "magic"}, "there is no tokenizer 'magic', only 'simple' and 'with_unknown'"),
    ({}, {"kind": None}, "there is no tokenizer None, only "),
    ({}, {"kind": ["simple"]}, "there is no tokenizer ['simple'], only "),
    ({}, {"cleaning": ["magic"]}, "there is no cleaning rule 'magic'; choose from "),
    ({}, {"cleaning": "spaces"}, "its 'cleaning' must be a list of strings"),
    ({}, {"tokens": {"a": 1}}, "its 'tokens' must be a list of strings"),
    ({}, {"tokens": ["<UNK>", "<ENDOFTEXT>", b"a"]}, "its 'tokens' must be a list of strings"),
    ({}, {"tokens": ["a"]}, "the vocabulary starts with ['a'], not with "),
    ({}, {"tokens": ["<UNK>", "<ENDOFTEXT>", "x" * 10**6]}, "the vocabulary's token 2 has 1000000 characters; "),
    ({}, {"tokens": ["<UNK>", "<ENDOFTEXT>", "be"]}, "its fingerprint is "),
]


@pytest.mark.parametrize(("outer", "inner", "problem"), DAMAGE)
def test_a_damaged_description_is_refused_in_one_line(
    text: Path, outer: dict[str, Any], inner: dict[str, Any], problem: str
) -> None:
    description = describe(build_word_encoding(text))
    changed = {**description, "state": {**description["state"], **inner}, **outer}
    with pytest.raises(ValueError) as caught:
        load_encoding(changed)
    message = str(caught.value)
    assert message.startswith(f"the tokenizer in this checkpoint is damaged: {problem}")
    assert message.endswith("; use an undamaged checkpoint, or train again with python main.py")
    assert "\n" not in message and len(message) < 500


def test_a_description_must_be_a_mapping() -> None:
    with pytest.raises(
        ValueError, match="^a tokenizer's description must be a mapping, got list; use an undamaged checkpoint, or"
    ):
        load_encoding(["gpt2"])  # type: ignore[arg-type]


def test_importing_the_tokenizers_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, src.tokenizer; sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
