"""The tokens of a text are cached safely, and its documents and validation text are read as asked."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.data import text as text_module
from src.data.learned_tokenizer import choose_encoding
from src.data.text import load_tokens, prepare_data
from src.tokenizer import load_gpt2_encoding


class ByteEncoding:
    """One token per UTF-8 byte, with `first_id` added. Counts the texts that are not empty."""

    name = "bytes"
    eot_token = 0

    def __init__(self, n_vocab: int = 256, first_id: int = 0) -> None:
        self.n_vocab = n_vocab
        self.first_id = first_id
        self.calls = 0

    def encode_ordinary(self, text: str) -> list[int]:
        self.calls += bool(text)
        return [byte + self.first_id for byte in text.encode("utf-8")]

    def decode(self, ids: object) -> str:
        raise NotImplementedError

    def decode_bytes(self, tokens: object) -> bytes:
        raise NotImplementedError

    def decode_single_token_bytes(self, token: int) -> bytes:
        if not self.first_id <= token < self.first_id + 256:
            raise KeyError(token)
        return bytes([token - self.first_id])


def load(path: Path, encoding: ByteEncoding) -> tuple[np.ndarray, list[str]]:
    """(tokens, the lines that were reported)"""
    lines: list[str] = []
    return load_tokens(path, encoding, notify=lines.append), lines


def caches(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tokens"))


def shard(folder: Path) -> Path:
    """The only shard of the only cache in a folder."""
    return caches(folder)[0] / "tokens-00000.bin"


def new_cache(folder: Path) -> str:
    return f"tokens: cached in {caches(folder)[0]}, which can be deleted"


@pytest.fixture
def play(tmp_path: Path) -> Path:
    path = tmp_path / "play [1].txt"
    path.write_bytes("To be, or not to be: thät is the question.\n".encode() * 40)
    return path


# --- tokens and their cache


def test_tokens_are_mapped_read_only_from_the_cache(play: Path) -> None:
    tokens, lines = load(play, ByteEncoding())
    assert tokens.tolist() == list(play.read_bytes())
    assert isinstance(tokens, np.memmap)
    assert not tokens.flags.writeable
    assert lines == [new_cache(play.parent), f"tokens: {len(tokens):,} in {play}"]
    assert np.fromfile(shard(play.parent), np.uint16).tolist() == tokens.tolist()


def test_a_second_load_uses_the_cache(play: Path) -> None:
    encoding = ByteEncoding()
    first, _ = load(play, encoding)
    second, _ = load(play, encoding)
    assert encoding.calls == 1
    assert isinstance(second, np.memmap)
    assert first.tolist() == second.tolist()


def test_a_changed_text_replaces_its_cache(play: Path) -> None:
    load(play, ByteEncoding())
    (old,) = caches(play.parent)
    play.write_bytes(b"Words, words, words.\n")
    tokens, _ = load(play, ByteEncoding())
    assert tokens.tolist() == list(b"Words, words, words.\n")
    assert len(caches(play.parent)) == 1
    assert caches(play.parent) != [old]


def test_another_tokenizer_does_not_use_the_cache(play: Path) -> None:
    load(play, ByteEncoding())
    tokens, _ = load(play, ByteEncoding(n_vocab=300, first_id=7))
    assert tokens.tolist() == [byte + 7 for byte in play.read_bytes()]
    assert len(caches(play.parent)) == 1


def test_caches_of_other_texts_and_other_files_are_not_deleted(play: Path) -> None:
    neighbour = play.with_name("play [1].txt.old.txt")
    neighbour.write_bytes(b"another text\n")
    load(neighbour, ByteEncoding())
    mine = play.with_name("play [1].txt.my own notes.tokens")
    mine.write_bytes(b"notes")
    old = play.with_name("play [1].txt.0123456789abcdef.tokens.npy")
    old.write_bytes(b"a cache of an earlier version")
    load(play, ByteEncoding())
    play.write_bytes(b"changed\n")
    load(play, ByteEncoding())
    assert mine.read_bytes() == b"notes" and not old.exists()
    assert len(caches(play.parent)) == 3


def test_line_endings_are_normalised_and_a_byte_order_mark_dropped(play: Path) -> None:
    play.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert load(play, ByteEncoding())[0].tolist() == list(b"one\ntwo\n")


def test_a_raw_gutenberg_file_is_cleaned_and_this_is_reported(play: Path) -> None:
    body = "Now is the winter of our discontent\n" * 30
    play.write_text(
        f"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n{body}*** END OF THE PROJECT GUTENBERG EBOOK X ***\n",
        encoding="utf-8",
    )
    tokens, lines = load(play, ByteEncoding())
    assert tokens.tolist() == list(body.encode())
    assert lines[0] == f"text: using 92.2% of {play}, without Project Gutenberg's header and licence"


def test_a_text_that_cannot_be_cleaned_is_an_error_with_its_path(play: Path) -> None:
    play.write_text("*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence\n", encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load(play, ByteEncoding())
    assert str(caught.value).startswith(f"{play}: removing Project Gutenberg's header")


@pytest.mark.parametrize("file", ["tokens-00000.bin", "index.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"[" * 100_000,
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: content + b"\0",
    ],
    ids=["half", "last byte missing", "empty", "brackets", "one bit flipped", "one byte more"],
)
def test_a_damaged_cache_is_reported_and_replaced(play: Path, file: str, damage: Callable[[bytes], bytes]) -> None:
    expected = load(play, ByteEncoding())[0].tolist()
    damaged = caches(play.parent)[0] / file
    damaged.write_bytes(damage(damaged.read_bytes()))
    encoding = ByteEncoding()
    tokens, lines = load(play, encoding)
    assert tokens.tolist() == expected
    assert encoding.calls == 1
    assert len(lines) == 3
    assert lines[0].startswith(f"tokens: cannot use {damaged} (")
    assert load(play, ByteEncoding())[1] == lines[2:]


def test_the_index_of_another_text_is_not_used(play: Path) -> None:
    other = play.with_name("other.txt")
    other.write_bytes(b"another text")
    load(other, ByteEncoding())
    load(play, ByteEncoding())
    mine, theirs = (next(play.parent.glob(f"{name}.*.tokens")) for name in ("play*", "other*"))
    shutil.rmtree(mine)
    theirs.rename(mine)
    tokens, lines = load(play, ByteEncoding())
    assert tokens.tolist() == list(play.read_bytes())
    assert "it is the index of another text or tokenizer" in lines[0]


def test_tokens_stay_in_memory_if_the_cache_cannot_be_written(play: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    tokens, lines = load(play, ByteEncoding())
    assert tokens.tolist() == list(play.read_bytes())
    assert not isinstance(tokens, np.memmap)
    assert lines[0].startswith(f"tokens: {len(tokens):,} in {play}, not cached: ")
    assert lines[0].endswith("cannot be written (Permission denied)")
    assert os.listdir(play.parent) == [play.name]
    monkeypatch.setattr(text_module, "IN_MEMORY_BYTES", 1000)
    with pytest.raises(OSError, match="Permission denied.; move the text to a folder that you can write"):
        load(play, ByteEncoding())


@pytest.mark.parametrize(("n_vocab", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_tokens_are_uint16_if_every_id_fits(play: Path, n_vocab: int, dtype: type[np.unsignedinteger]) -> None:
    play.write_bytes(b"\x7f")
    tokens, _ = load(play, ByteEncoding(n_vocab, first_id=n_vocab - 1 - 0x7F))
    assert tokens.dtype == dtype
    assert tokens.tolist() == [n_vocab - 1]


def test_an_id_outside_the_vocabulary_is_refused(play: Path) -> None:
    with pytest.raises(ValueError, match="gave ids from 0 to 195, its vocabulary has 195"):
        load(play, ByteEncoding(n_vocab=195))


@pytest.mark.parametrize("name", ["x" * 235 + ".txt", "\u732b" * 80])
def test_a_long_file_name_has_a_cache_with_a_short_one(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path / ("y" + name[1:])):
        path.write_bytes(b"to be")
        assert load(path, ByteEncoding())[1][-1:] == load(path, ByteEncoding())[1] == [f"tokens: 5 in {path}"]
    assert len(caches(tmp_path)) == 2
    path.write_bytes(b"or not to be")
    load(path, ByteEncoding())
    assert len(caches(tmp_path)) == 2


def test_a_cache_that_another_run_removes_does_not_fail(play: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanished(path: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    load(play, ByteEncoding())
    monkeypatch.setattr(Path, "rename", vanished)
    assert load(play, ByteEncoding(n_vocab=300))[0].tolist() == list(play.read_bytes())


def test_a_pipe_has_no_cache(play: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "is_stored", lambda path: False)
    tokens, lines = load(play, ByteEncoding())
    assert tokens.tolist() == list(play.read_bytes())
    assert lines == [f"tokens: {len(tokens):,} in {play}, not cached"]
    assert caches(play.parent) == []


# --- folders, documents, validation texts, notes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.txt").write_text(f"This is {name}.\n", encoding="utf-8")
    return folder


def test_the_files_of_a_folder_are_documents(folder: Path) -> None:
    tokens, lines = load(folder, ByteEncoding())
    assert bytes(tokens.tolist()) == b"This is a.\n\0This is b.\n"
    assert lines == [
        f"text: 2 files in {folder}, 0.0 kB, from {folder / 'a.txt'} to {folder / 'b.txt'}",
        new_cache(folder.parent),
        f"tokens: 23 in {folder}, 2 documents",
    ]
    assert [cache.parent for cache in caches(folder.parent)] == [folder.parent]
    assert choose_encoding("word", folder).unknown("This is b. c") == ["c"]


def test_files_of_a_folder_that_are_not_read_are_named(folder: Path) -> None:
    for letter in "fcde":
        (folder / f"{letter}.md").write_text("This is more.\n", encoding="utf-8")
    note = load(folder, ByteEncoding())[1][1]
    assert note == (
        f"note: {folder}: not reading c.md, d.md, e.md and 1 more; to read more, pass a pattern: --data '{folder}/**/*'"
    )


def test_documents_are_separated_by_the_end_of_text_id(folder: Path) -> None:
    (folder / "b.txt").write_text("two<|endoftext|>\nthree<|endoftext|>", encoding="utf-8")
    encoding = load_gpt2_encoding()
    whole = "This is a.\n<|endoftext|>two<|endoftext|>\nthree<|endoftext|>"
    expected = encoding.encode(whole, allowed_special="all")
    tokens = load_tokens(folder, encoding, "endoftext", notify=lambda _: None)
    assert tokens.tolist() == expected
    words = choose_encoding("word", folder, "endoftext")
    assert words.unknown("endoftext < | >") == ["endoftext", "<", "|", ">"]
    ids = load_tokens(folder, words, "endoftext", notify=lambda _: None)
    assert (ids == words.eot_token).sum() == 3


def test_documents_have_a_cache_of_their_own(play: Path) -> None:
    play.write_bytes(b"one<|endoftext|>two")
    encoding = ByteEncoding()
    plain, separated = (load_tokens(play, encoding, mode, notify=lambda _: None) for mode in (None, "endoftext"))
    assert bytes(plain.tolist()) == b"one<|endoftext|>two"
    assert bytes(separated.tolist()) == b"one\0two"


def test_documents_without_a_separator_are_noted(play: Path) -> None:
    lines: list[str] = []
    load_tokens(play, ByteEncoding(), "endoftext", notify=lines.append)
    assert lines[0] == f"note: {play}: no <|endoftext|> in it, so --documents endoftext separates nothing"


def test_notes_name_the_file_and_are_few(folder: Path) -> None:
    for i in range(7):
        (folder / f"{i}.txt").write_text("caf\ufffd\n", encoding="utf-8")
    lines = load(folder, ByteEncoding())[1]
    assert [line[: line.index(": U+FFFD")] for line in lines[1:6]] == [f"note: {folder / f'{i}.txt'}" for i in range(5)]
    assert lines[6] == "note: 2 more files have such notes"
    assert load(folder, ByteEncoding())[1][1:7] == lines[1:7]  # from the cache


def test_another_text_can_be_the_validation_set(play: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(b"held out")
    train, val = prepare_data(play, ByteEncoding(), val_data=other)
    assert bytes(train.tolist()) == play.read_bytes()
    assert bytes(val.tolist()) == b"held out"


def test_a_text_to_validate_on_that_is_also_trained_on_is_noted(
    play: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_data(play, ByteEncoding(), val_data=[tmp_path / "." / play.name])
    assert f"note: {play.resolve()} is in both --data and --val-data: " in capsys.readouterr().out
