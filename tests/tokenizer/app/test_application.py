"""The application: from files to a tokenizer."""

from pathlib import Path

import pytest

from src.tokenizer.app.application import TokenizerApplication
from src.tokenizer.core.exceptions import EmptyTextError, MissingFileError, TokenizerError, VocabularyNotLoadedError
from src.tokenizer.tokenizers.simple import SimpleTokenizer
from src.tokenizer.vocabulary.builder import VocabularyBuilder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("Hello world!\nHello", encoding="utf-8")
    (tmp_path / "b.txt").write_text("\ufeffBrave new world", encoding="utf-8")
    (tmp_path / "c.md").write_text("no", encoding="utf-8")
    (tmp_path / "deep.txt").mkdir()
    return tmp_path


def test_a_file_becomes_a_tokenizer(folder: Path) -> None:
    app = TokenizerApplication()
    info = app.load_vocabulary_from_file(folder / "a.txt")
    assert (info.size, info.sources, info.counted_tokens, info.distinct_tokens, info.coverage) == (
        6, (folder / "a.txt",), 5, 4, 1.0,
    )  # fmt: skip
    result = app.get_tokenizer("with_unknown").encode_with_tokens("Hello new world!")
    assert (result.token_ids, result.tokens) == ([2, 0, 5, 4], ["Hello", "new", "world", "!"])
    assert isinstance(app.get_tokenizer("simple"), SimpleTokenizer)


def test_several_files_and_a_folder_make_one_vocabulary(folder: Path) -> None:
    app = TokenizerApplication()
    files = app.load_vocabulary_from_files([folder / "b.txt", folder / "a.txt"])
    several = app.get_tokenizer("simple").state()
    assert files.size == 8 and several["tokens"] == [
        "<UNK>",
        "<ENDOFTEXT>",
        "Hello",
        "world",
        "\n",
        "!",
        "Brave",
        "new",
    ]
    assert app.load_vocabulary_from_folder(folder).sources == (folder / "a.txt", folder / "b.txt")
    assert app.get_tokenizer("simple").state() == several
    assert app.load_vocabulary_from_folder(folder, "*.md").size == 3


def test_a_text_without_tokens_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "invisible.txt"
    path.write_text("\u200b", encoding="utf-8")
    app = TokenizerApplication(lambda: VocabularyBuilder(always=["a"]))
    with pytest.raises(EmptyTextError) as caught:
        app.load_vocabulary_from_file(path)
    assert str(caught.value) == f"{path}: no tokens found; choose files that contain words"


def test_a_custom_builder_determines_the_vocabulary(folder: Path) -> None:
    app = TokenizerApplication(lambda: VocabularyBuilder(min_count=2))
    info = app.load_vocabulary_from_file(folder / "a.txt")
    assert (info.size, info.distinct_tokens, info.coverage) == (3, 4, 0.4)


def test_a_saved_vocabulary_is_loaded_by_another_application(folder: Path) -> None:
    app, other = TokenizerApplication(), TokenizerApplication()
    app.load_vocabulary_from_file(folder / "a.txt")
    app.save_vocabulary(folder / "words.json")
    assert other.load_vocabulary(folder / "words.json").size == 6
    assert other.get_tokenizer("simple").state() == app.get_tokenizer("simple").state()


def test_a_failed_load_keeps_the_current_vocabulary(folder: Path) -> None:
    app = TokenizerApplication()
    app.load_vocabulary_from_file(folder / "a.txt")
    for call in (app.load_vocabulary_from_file, app.load_vocabulary, app.load_vocabulary_from_folder):
        with pytest.raises(TokenizerError):
            call(folder / "missing")
    assert app.get_tokenizer("simple").n_vocab == 6


def test_without_a_vocabulary_the_error_says_how_to_load_one(tmp_path: Path) -> None:
    app = TokenizerApplication()
    calls = {
        "get_tokenizer": lambda: app.get_tokenizer("simple"),
        "save_vocabulary": lambda: app.save_vocabulary(tmp_path),
    }
    for name, call in calls.items():
        with pytest.raises(VocabularyNotLoadedError) as caught:
            call()
        assert str(caught.value) == (f"{name} needs a vocabulary; call load_vocabulary_from_file(Path(...)) first")


def test_a_missing_folder_and_one_without_texts_are_named(folder: Path) -> None:
    app = TokenizerApplication()
    for path, end in [
        (folder / "missing", "not found; pass a folder with text files"),
        (folder / "a.txt", "is not a folder; pass a folder with text files"),
        (folder / "deep.txt", "has no file *.txt; put one there, or pass another pattern"),
    ]:
        with pytest.raises(MissingFileError) as caught:
            app.load_vocabulary_from_folder(path)
        assert str(caught.value) == f"{path} {end}"


def test_an_empty_list_and_a_single_path_are_refused(folder: Path) -> None:
    app = TokenizerApplication()
    with pytest.raises(TokenizerError, match="^the list of text files is empty; pass at least one path$"):
        app.load_vocabulary_from_files([])
    with pytest.raises(TokenizerError, match="is one path; pass a list of them, or call load_vocabulary_from_file$"):
        app.load_vocabulary_from_files(folder / "a.txt")  # type: ignore[arg-type]
