"""Reading in chunks: they are the whole text, end at white space, and errors have a location."""

import builtins
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.tokenizer.core.exceptions import TokenizerError
from src.tokenizer.processing import file_reader
from src.tokenizer.processing.file_reader import read_chunks


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "_BLOCK_BYTES", 7)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "text.txt"


def error(file: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        list(read_chunks(file))
    assert isinstance(caught.value, TokenizerError)
    message = str(caught.value)
    assert message.startswith(str(file)) and "; " in message and "\n" not in message
    return message.removeprefix(str(file))


def test_chunks_end_after_line_breaks_or_spaces(file: Path, small_blocks: None) -> None:
    text = "Löwe, ein\nlanges 𝄞 Wort-ohne-Ende und\r\nnoch eins\n\n" * 5 + "Schluss"
    file.write_text("\ufeff" + text, encoding="utf-8", newline="")
    chunks = list(read_chunks(file))
    assert "".join(chunks) == text and len(chunks) > 20
    assert {chunk[-1] for chunk in chunks[:-1]} == {"\n", " "}


@given(text=st.text(st.sampled_from("aé𝄞 \n\r\ufeff")).filter(lambda text: text.strip(" \n\r\ufeff")))
@settings(max_examples=100, deadline=None)
def test_characters_across_blocks_are_decoded(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.txt"
    file.write_bytes(text.encode("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_reader, "_BLOCK_BYTES", 3)
        assert "".join(read_chunks(file)) == text.removeprefix("\ufeff")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_named_with_its_offset(file: Path, small_blocks: None, mark: bytes) -> None:
    good = mark + "zwölf Wörter\n".encode() * 30 + b"ab "
    file.write_bytes(good + b"caf\xe9 au lait\n")
    expected = f"invalid continuation byte, byte 0xe9 at offset {len(good) + 3}, line 31; save it again as UTF-8"
    assert error(file, ValueError) == f" is not UTF-8: {expected}"


def test_a_file_that_ends_inside_a_character_is_refused(file: Path, small_blocks: None) -> None:
    file.write_bytes(b"one\ntwo\nthree \xf0\x9f")
    assert "unexpected end of data, byte 0xf0 at offset 14, line 3; save" in error(file, ValueError)


def test_a_nul_is_reported_as_utf16_or_binary(file: Path, small_blocks: None) -> None:
    file.write_bytes(b"first line\n" + "second".encode("utf-16-le"))
    assert "a NUL, as in UTF-16 or in binary files, byte 0x00 at offset 12, line 2;" in error(file, ValueError)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(file: Path, encoding: str) -> None:
    file.write_bytes("\ufeff".encode("utf-16-be") * (encoding == "utf-16-be") + "Hello".encode(encoding))
    name = encoding.upper().removesuffix("-BE")
    assert error(file, ValueError) == f" is {name}, not UTF-8; save it again as UTF-8"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \n\t\n"])
def test_an_empty_file_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert error(file, ValueError) == " is empty; put text in it, or choose another file"


def test_a_missing_file_is_named(file: Path) -> None:
    assert error(file, FileNotFoundError) == " not found; check the path"


def test_a_folder_is_refused_with_the_method_for_folders(tmp_path: Path) -> None:
    assert "is a folder; pass a text file in it, or" in error(tmp_path, OSError)


def test_a_file_without_read_permission_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(builtins, "open", refuse)
    assert error(file, OSError) == f" cannot be read ({os.strerror(13)}); check its permissions, or choose another file"


def test_a_file_without_white_space_is_refused_early(
    file: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_reader, "_LONGEST_CHUNK_CHARS", 50)
    file.write_text("a" * 50, encoding="utf-8")
    assert "".join(read_chunks(file)) == "a" * 50
    file.write_text("a" * 1000, encoding="utf-8")
    assert "has neither a space nor a line break in 56 characters; add" in error(file, ValueError)
