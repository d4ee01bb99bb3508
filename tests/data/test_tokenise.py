"""A streamed text has the ids of its whole documents, however it is cut, interrupted or damaged."""

import gzip
import hashlib
import json
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data import documents as documents_module
from src.data import gutenberg, token_cache, token_shards
from src.data import tokenise as tokenise_module
from src.data.datasets import TextWindows
from src.data.documents import Piece, cut_document, cut_rule
from src.data.learned_tokenizer import training_texts
from src.data.split import split_tokens, token_bytes
from src.data.text import load_tokens, prepare_data
from src.data.token_cache import cache_key
from src.data.token_shards import ResumePoint, ShardedTokens
from src.tokenizer import load_gpt2_encoding, word_encoding_of
from src.tokenizer.byte_pairs import BytePairEncoding

ENCODING = load_gpt2_encoding()
silent = partial(load_tokens, notify=lambda _: None)


def hostile_text(seed: int) -> str:
    """Characters that the pre-tokenizer treats differently, in random order."""
    pieces = ["\n"] * 8 + ["\n\n", " ", "  ", "\t", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2028", "\u3000"]
    pieces += [*"aa11Ä中。٣½_'!/😀", "word", "word,", "'s", "'ll", "<|endoftext|>", "e\u0301"]
    return "".join(random.Random(seed).choices(pieces, k=400))


def small_shards(monkeypatch: pytest.MonkeyPatch, piece_chars: int = 50, shard_tokens: int = 300) -> None:
    for module in (documents_module, tokenise_module):
        monkeypatch.setattr(module, "PIECE_CHARS", piece_chars)
    monkeypatch.setattr(token_shards, "SHARD_TOKENS", shard_tokens)
    monkeypatch.setattr(token_shards, "_BLOCK_BYTES", 64)


def cache(folder: Path) -> Path:
    (found,) = folder.glob("*.tokens")
    return found


# --- pieces


@pytest.mark.parametrize("piece_chars", [1, 7, 50])
def test_pieces_have_the_ids_of_the_whole_document(monkeypatch: pytest.MonkeyPatch, piece_chars: int) -> None:
    monkeypatch.setattr(documents_module, "PIECE_CHARS", piece_chars)
    n_pieces = 0
    for seed in range(60):
        text = hostile_text(seed)
        pieces = list(cut_document([text], cut_rule(ENCODING)))
        n_pieces += len(pieces)
        ids = [id_ for piece in pieces for id_ in ENCODING.encode_ordinary(piece)]
        assert ids == ENCODING.encode_ordinary(text), repr(text)
    assert n_pieces > 300  # the texts were really cut


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=20) | st.sampled_from([" ", "\n", "'s", "a,", "1.", "中。", "  x"]), max_size=30))
def test_any_unicode_has_the_same_ids_in_pieces(parts: list[str]) -> None:
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "PIECE_CHARS", 3)
        pieces = list(cut_document([text], cut_rule(ENCODING)))
        in_blocks = list(cut_document([text[i : i + 5] for i in range(0, len(text), 5)], cut_rule(ENCODING)))
    assert in_blocks == pieces
    assert [id_ for piece in pieces for id_ in ENCODING.encode_ordinary(piece)] == ENCODING.encode_ordinary(text)


def test_only_cuts_that_are_safe_for_the_tokenizer_are_made() -> None:
    assert cut_rule(word_encoding_of(["some words\n"])).findall("some words,\nand more") == ["\n"]
    ranks = {bytes([byte]): byte for byte in range(256)}
    assert cut_rule(BytePairEncoding(ranks, {"<e>": 256}, {"<x>": 257}, 256)) is cut_rule(ENCODING)
    assert cut_rule(BytePairEncoding(ranks, {"<e>": 256}, {"<x y>": 257}, 256)) is None


# --- shards


def write_documents(folder: Path, count: int = 12) -> list[str]:
    """Files of hostile texts; returns their texts."""
    folder.mkdir()
    texts = [hostile_text(seed).replace("\r", "") for seed in range(count)]
    for number, text in enumerate(texts):
        (folder / f"{number:02}.txt").write_bytes(text.encode())
    return texts


def joined(texts: list[str]) -> list[int]:
    ids: list[int] = []
    for text in texts:
        ids += [ENCODING.eot_token, *ENCODING.encode_ordinary(text)]
    return ids[1:]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=9) | st.sampled_from([" ", "\n\n", "<|endoftext|>", "<|endof"]), min_size=1))
def test_documents_that_are_encoded_together_have_the_ids_of_each(texts: list[str]) -> None:
    pieces = [Piece([text], True, 0, 0.0) for text in texts]
    batch = tokenise_module.PieceBatch(pieces, ResumePoint(0, len(texts)))
    encoded = tokenise_module._encode(batch, ENCODING, token_bytes(ENCODING))
    assert encoded.ids.tolist() == [ENCODING.eot_token, *joined(texts)]
    assert encoded.documents == len(texts)


def test_shards_together_hold_the_ids_of_all_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    texts = write_documents(tmp_path / "texts")
    tokens = silent(tmp_path / "texts", ENCODING)
    assert isinstance(tokens, ShardedTokens) and len(list(cache(tmp_path).glob("*.bin"))) > 8
    expected = np.array(joined(texts), np.uint16)
    assert tokens.tolist() == expected.tolist() and tokens.dtype == np.uint16
    for start, stop in ((0, 1), (299, 305), (50, 1500), (len(expected) - 3, len(expected)), (7, 7), (-20, None)):
        assert tokens[start:stop].tolist() == expected[start:stop].tolist()
    assert tokens[50:1500][60:800][-5:].astype(np.int64).tolist() == expected[845:850].tolist()
    assert tokens[10:].sha256() == tokens[10:].sha256() == hashlib.sha256(expected[10:].data).hexdigest()


def test_a_split_of_shards_is_that_of_one_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = write_documents(tmp_path / "texts")
    small_shards(monkeypatch)
    shards, array = silent(tmp_path / "texts", ENCODING), np.array(joined(texts), np.uint16)
    for fraction in (0.03, 0.1, 0.42, 0.9):
        assert len(split_tokens(shards, ENCODING, fraction)[0]) == len(split_tokens(array, ENCODING, fraction)[0])


def test_windows_over_shards_are_those_over_one_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = write_documents(tmp_path / "texts", 3)
    expected = TextWindows(np.array(joined(texts), np.uint16), 16, seed=1)
    small_shards(monkeypatch)
    windows = TextWindows(silent(tmp_path / "texts", ENCODING), 16, seed=1)
    assert windows.order(2) == expected.order(2)
    assert all(windows[start][1].tolist() == expected[start][1].tolist() for start in windows.order(0))
    assert windows.content_hash() == expected.content_hash()


@pytest.mark.parametrize("stop_after", [3, 40, 100])
def test_an_interrupted_text_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int) -> None:
    small_shards(monkeypatch)
    texts = write_documents(tmp_path / "texts")
    n_pieces = sum(len(list(cut_document([text], cut_rule(ENCODING)))) for text in texts)
    encoded: list[str] = []

    class Stopping:
        """GPT-2's encoding, which is interrupted after some pieces."""

        name, n_vocab, eot_token = ENCODING.name, ENCODING.n_vocab, ENCODING.eot_token
        decode, decode_bytes = ENCODING.decode, ENCODING.decode_bytes
        decode_single_token_bytes = ENCODING.decode_single_token_bytes
        encode_ordinary_batch = ENCODING.encode_ordinary_batch
        left = stop_after

        def encode_ordinary(self, text: str) -> list[int]:
            encoded.append(text)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return ENCODING.encode_ordinary(text)

    with pytest.raises(KeyboardInterrupt):
        silent(tmp_path / "texts", Stopping())
    before = len(encoded)
    Stopping.left = -1
    lines: list[str] = []
    tokens = load_tokens(tmp_path / "texts", Stopping(), notify=lines.append)
    assert tokens.tolist() == joined(texts)
    if stop_after > 3:
        assert "continuing in" in lines[1]
        assert len(encoded) - before < n_pieces - stop_after / 2


@pytest.mark.parametrize("damage", ["missing", "short", "foreign"])
def test_a_damaged_shard_is_replaced_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    small_shards(monkeypatch)
    texts = write_documents(tmp_path / "texts")
    silent(tmp_path / "texts", ENCODING)
    shard = cache(tmp_path) / "tokens-00003.bin"
    content = shard.read_bytes()
    shard.unlink() if damage == "missing" else shard.write_bytes(content[:-2] if damage == "short" else content[::-1])
    lines: list[str] = []
    assert load_tokens(tmp_path / "texts", ENCODING, notify=lines.append).tolist() == joined(texts)
    assert f"tokens: cannot use {shard}" in lines[1] and "after 3 complete shards" in lines[2]


def test_damage_inside_a_shard_is_noticed_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)
    write_documents(tmp_path / "texts")
    silent(tmp_path / "texts", ENCODING)
    shard = cache(tmp_path) / "tokens-00001.bin"
    content = bytearray(shard.read_bytes())
    content[200] ^= 1  # in its fourth block
    shard.write_bytes(content)
    tokens = silent(tmp_path / "texts", ENCODING)
    assert len(tokens[:250].tolist()) == 250
    with pytest.raises(ValueError, match=r"tokens-00001\.bin: its checksum is wrong; delete the folder .*\.tokens to"):
        tokens.tolist()


def test_a_full_disk_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("word " * 10_000, encoding="utf-8")
    small_shards(monkeypatch, shard_tokens=5_000)
    monkeypatch.setattr(tokenise_module, "_PREDICTED_FROM_BYTES", 500)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 9_000}))
    with pytest.raises(OSError, match=r"needs 2\d\.\d kB, but the disk has only 9\.0 kB free; free some space"):
        silent(tmp_path / "a.txt", ENCODING)
    assert os.listdir(tmp_path) == ["a.txt"]  # an unused cache is deleted


# --- the key of the cache


def test_a_changed_file_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"word " * 10)
    key = cache_key([file], ["x"])
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    os.utime(file, (0, 0))
    assert cache_key([file], ["x"]) == key  # read whole, so its time does not matter
    file.write_bytes(b"Word " * 10)
    os.utime(file, ns=times)
    assert cache_key([file], ["x"]) != key
    assert cache_key([file], ["y"]) != cache_key([file], ["x"])


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "_SAMPLED_BYTES", 8192)
    monkeypatch.setattr(token_cache, "_FEWEST_BYTES", 1024)
    file = tmp_path / "a.txt"
    content = bytearray(b"word " * 100_000)
    keys = []
    for change in (None, 0, 100, len(content) // 2 + 10, len(content) - 1):
        if change is not None:
            content[change] ^= 1
        file.write_bytes(content)
        os.utime(file, (5, 5))
        keys.append(cache_key([file], []))
    assert len(set(keys)) >= 4  # the start and the end are always sampled
    os.utime(file, (6, 6))
    assert cache_key([file], []) not in keys
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved/a.txt"
    file.rename(moved)
    os.utime(moved, (5, 5))
    assert cache_key([moved], []) == keys[-1]


# --- training and validation


def write_jsonl(path: Path, count: int) -> list[str]:
    texts = [f"Document {i} has {i * 37 % 101} words." for i in range(count)]
    path.write_text("".join('{"text": "' + text + '"}\n' for text in texts), encoding="utf-8")
    return texts


def test_validation_is_whole_documents_from_the_end(tmp_path: Path) -> None:
    texts = write_jsonl(tmp_path / "a.jsonl", 200)
    train, val = prepare_data(tmp_path / "a.jsonl")
    documents = ENCODING.decode(train.tolist() + val.tolist()).split("<|endoftext|>")
    assert documents == texts
    assert train[-1] == ENCODING.eot_token
    assert ENCODING.decode(val.tolist()).split("<|endoftext|>") == texts[-20:]


def test_training_texts_leave_the_end_out(tmp_path: Path) -> None:
    texts = write_jsonl(tmp_path / "a.jsonl", 2000)
    found = list(training_texts(tmp_path / "a.jsonl", val_fraction=0.1))
    assert found[:-1] == texts[: len(found) - 1] and len(found) == pytest.approx(1800, abs=5)


@pytest.mark.parametrize("letter", "aж猫")
def test_training_texts_of_one_document_are_its_start(tmp_path: Path, letter: str) -> None:
    text = f"{letter * 4} " * 50_000
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = "".join(training_texts(tmp_path / "a.txt", val_fraction=0.1))
    assert text.startswith(found) and len(found) == pytest.approx(0.9 * len(text), rel=0.001)


def test_training_texts_have_documents_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one<|endoftext|>two", encoding="utf-8")
    assert list(training_texts(tmp_path / "a.txt", "endoftext")) == ["one", "two"]


def blocks(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def test_long_texts_are_stripped_in_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gutenberg, "SECTION_CHARS", 250_000)
    body = "".join(f"The {i}th line of a long book.\nIt has two.\n\n" for i in range(6000))
    header = "The Project Gutenberg eBook\n\nTitle: X\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n"
    footer = "\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n" + "Licence of Gutenberg.\n" * 900
    for n_books in (1, 3):
        for shift in (0, 61_234):
            whole = (header + body[shift:] + footer) * n_books
            parts = list(gutenberg.sections(blocks(whole, 50_000)))
            assert "".join(parts) == whole
            stripped = "".join(gutenberg.strip_boilerplate(part).text for part in parts)
            expected = gutenberg.strip_boilerplate(whole).text
            assert stripped.split() == expected.split()


# --- records


def test_each_record_of_a_file_is_a_document(tmp_path: Path) -> None:
    texts = ["one\nline", "l\u00e9gume \U0001f600", "three"]
    lines = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in (*texts, " "))
    (tmp_path / "a.jsonl").write_text(lines + "\n", encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"id": [1, 2, 3, 4], "text": [*texts, ""]})
    parquet.write_table(table, tmp_path / "c.parquet")
    notes: list[str] = []
    tokens = load_tokens(
        [tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.parquet")], ENCODING, notify=notes.append
    )
    assert tokens.tolist() == joined(texts * 3)
    assert notes[1] == f"note: {tmp_path / 'a.jsonl'}: left out 1 of 4 records: 'text' is empty"
    assert notes[-1].endswith("9 documents")


def test_a_column_of_bytes_is_named(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").table({"text": [b"one"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 1: 'text' is binary data; it must be the text of a document"):
        silent(tmp_path / "a.parquet", ENCODING)


BAD = '{"text": "good"}\n{"txt": 1}\n{"text": null}\nno JSON\n{"text": "\\ud800"}\n'


def test_bad_records_are_named_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(BAD, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        silent(file, ENCODING)
    assert str(caught.value).startswith(
        f"{file} line 2: 'text' is missing, found 'txt'; it must be the text of a document. "
        "Also line 3: 'text' is null, line 4 column 1: malformed JSON (Expecting value). 4 of 5 records are bad"
    )
    assert os.listdir(tmp_path) == ["a.jsonl"]
    file.write_text(BAD + '{"text": "good"}\n' * 40, encoding="utf-8")
    lines: list[str] = []
    tokens = load_tokens(file, ENCODING, skip_bad=True, notify=lines.append)
    assert tokens.tolist() == joined(["good"] * 41)
    assert lines[0].startswith(f"note: {file}: left out 4 of 45 records: ") and lines[0].endswith("is line 2")


def test_of_a_record_only_its_text_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(r'{"text": "good", "kind": "text", "id": 1, "id": 2, "score": 1e400, "url": "\ud800"}')
    assert silent(file, ENCODING).tolist() == joined(["good"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"instruction": "q", "output": "a"}',
            "found 'instruction', 'output'; run: python instr",
        ),
        ("a.jsonl", '{"text": "one", "text": "two"}', "the key 'text' appears 2 times in one object; keep one"),
        ("a.jsonl", '[{"text": "one"}]', "line 1: found a list; write one object with the key 'text' per line"),
        ("a.jsonl", '{"text": ""}', "has no texts; expected records with the key 'text'"),
        ("a.jsonl", "<html>", "is a web page"),
        ("a.parquet", "text", "is a damaged or incomplete Parquet file"),
        ("a.jsonl", '{"text": "\udcff"}', "byte 0xff is not UTF-8"),
    ],
)
def test_a_file_without_usable_texts_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        silent(tmp_path / name, ENCODING)
