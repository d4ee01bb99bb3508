"""A learned tokenizer depends on the training part of the text only."""

from pathlib import Path
from typing import Any

import pytest

from src.data import documents, learned_tokenizer
from src.data.learned_tokenizer import choose_encoding
from src.data.prompts import headings
from src.data.split import split_tokens
from src.data.text import load_tokens
from src.tokenizer import describe, load_encoding, load_gpt2_encoding


def learned(path: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """(the tokenizer that is learned from a text, the lines that were reported)"""
    lines: list[str] = []
    encoding = choose_encoding("bpe", path, notify=lines.append, **{"vocab_size": 300, **options})
    return describe(encoding), lines


@pytest.fixture
def play(tmp_path: Path) -> Path:
    path = tmp_path / "play.txt"
    path.write_text("To be, or not to be: thät is the question.\n" * 40, encoding="utf-8")
    return path


def test_byte_pairs_are_not_learned_from_the_validation_text(tmp_path: Path) -> None:
    train, val = "To be, or not to be: thät is the question.\n" * 90, "Whether 'tis nobler in the mind to suffer\n" * 10
    size = len(val.encode()) / len((train + val).encode())
    path = tmp_path / "play.txt"
    path.write_text(train + val, encoding="utf-8")
    expected, lines = learned(path, val_fraction=size)
    assert lines == [f"vocabulary: 300 tokens, learned from the text in {lines[0].split()[-2]} s"]
    path.write_text(train + "x" * len(val.encode()), encoding="utf-8")
    assert learned(path, val_fraction=size)[0] == expected != learned(path)[0]
    path.write_text("y" + train[1:] + val, encoding="utf-8")
    assert learned(path, val_fraction=size)[0] != expected


def test_byte_pairs_are_not_learned_from_validation_documents(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(9):
        (folder / f"{i}.txt").write_text(f"Document {i} is about the number {i}.\n" * 20, encoding="utf-8")
    _, val = split_tokens(load_tokens(folder, load_gpt2_encoding()), load_gpt2_encoding(), 0.15)
    assert load_gpt2_encoding().decode(val).startswith("Document 7")  # the border is in this document
    expected = learned(folder, val_fraction=0.15)[0]
    for i in (7, 8):
        (folder / f"{i}.txt").write_text("?" * (folder / f"{i}.txt").stat().st_size, encoding="utf-8")
    assert learned(folder, val_fraction=0.15)[0] == expected != learned(folder)[0]


def test_documents_are_learned_without_their_separator(play: Path) -> None:
    play.write_text("xq" + "<|endoftext|>" * 99 + "xq", encoding="utf-8")
    tokens = learned(play, vocab_size=10_000, documents="endoftext")[0]["state"]["tokens"].split("\n")
    assert "xq" in tokens and "|>" not in tokens
    tokens = learned(play, vocab_size=10_000)[0]["state"]["tokens"].split("\n")
    assert "|>" in tokens


def test_the_headings_of_prompts_are_few_tokens(play: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play.write_text("To be, or not to be: that is the question.\n" * 2000, encoding="utf-8")

    def tokens_of_headings() -> int:
        encoding = load_encoding(learned(play, vocab_size=400)[0])
        return sum(len(encoding.encode_ordinary(heading)) for heading in headings())

    repeated = tokens_of_headings()
    monkeypatch.setattr(learned_tokenizer, "_CHARS_PER_TEMPLATE", 1 << 30)
    assert repeated < 0.8 * tokens_of_headings()


def test_a_long_text_is_sampled_and_a_small_vocabulary_noted(play: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PIECE_CHARS", 50)
    monkeypatch.setattr(learned_tokenizer, "_LEARNED_CHARS", len(play.read_text(encoding="utf-8")) // 3)
    lines = learned(play, vocab_size=50_000)[1]
    assert "tokens, learned from one part in 4 of the text in " in lines[0]
    assert lines[1] == "note: not 50,000 tokens as in --vocab-size: no other pair of tokens occurs twice in the text"


@pytest.mark.parametrize("tokenizer", ["word", "bpe"])
def test_a_pipe_is_refused(play: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str) -> None:
    monkeypatch.setattr(learned_tokenizer, "is_stored", lambda path: False)
    message = f"--tokenizer {tokenizer} reads the text twice, and .* is a pipe or a device; save it as a file"
    with pytest.raises(ValueError, match=message):
        choose_encoding(tokenizer, play)
