"""The entry point to the word tokenizer: from text files to a tokenizer.

It is for printed text in languages that put spaces between words. It does not keep the spaces of a text, so a URL or
code does not come back as it was. Of Chinese, Japanese or Thai, whose words have no spaces between them, whole phrases
become one token each. For such texts use byte pairs: `src.tokenizer.learn_byte_pairs`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from src.tokenizer.core.exceptions import EmptyTextError, MissingFileError, SettingError, VocabularyNotLoadedError
from src.tokenizer.core.logging import get_logger
from src.tokenizer.core.models import Vocabulary, VocabularyInfo
from src.tokenizer.processing.file_reader import read_chunks
from src.tokenizer.tokenizers.base import Tokenizer
from src.tokenizer.tokenizers.factory import create_tokenizer
from src.tokenizer.vocabulary import storage
from src.tokenizer.vocabulary.builder import VocabularyBuilder


class TokenizerApplication:
    """Builds a vocabulary from text files, or loads a saved one, and creates tokenizers that use it.

    make_builder: returns a new vocabulary builder. Pass your own to change its settings:
    `TokenizerApplication(lambda: VocabularyBuilder(min_count=2, max_size=10_000))`.
    Loading a vocabulary replaces the current one. If loading fails, the current one is kept.
    """

    def __init__(self, make_builder: Callable[[], VocabularyBuilder] = VocabularyBuilder) -> None:
        self._make_builder = make_builder
        self._vocabulary: Vocabulary | None = None

    def load_vocabulary_from_file(self, path: Path) -> VocabularyInfo:
        """Build the vocabulary of one UTF-8 text file of any size.

        Like the other methods, raises an OSError or ValueError of `core.exceptions` if a file cannot be used.
        """
        return self.load_vocabulary_from_files([path])

    def load_vocabulary_from_files(self, paths: Iterable[Path]) -> VocabularyInfo:
        """Build one vocabulary from several text files."""
        if isinstance(paths, str | Path):
            raise SettingError(f"{paths} is one path; pass a list of them, or call load_vocabulary_from_file")
        files = tuple(Path(path) for path in paths)
        if not files:
            raise MissingFileError("the list of text files is empty; pass at least one path")
        builder = self._make_builder()
        for file in files:
            for chunk in read_chunks(file):
                builder.add(chunk)
        return self._build(builder, files)

    def load_vocabulary_from_folder(self, folder: Path, pattern: str = "*.txt") -> VocabularyInfo:
        """Build one vocabulary from the text files in a folder, in the order of their names; subfolders are ignored."""
        folder = Path(folder)
        if not folder.is_dir():
            found = "is not a folder" if folder.exists() else "not found"
            raise MissingFileError(f"{folder} {found}; pass a folder with text files")
        files = sorted(file for file in folder.glob(pattern) if file.is_file())
        if not files:
            raise MissingFileError(f"{folder} has no file {pattern}; put one there, or pass another pattern")
        return self.load_vocabulary_from_files(files)

    def get_tokenizer(self, kind: str) -> Tokenizer:
        """A tokenizer with the loaded vocabulary: "simple" refuses unknown words, "with_unknown" has an id for them.

        Raises VocabularyNotLoadedError if no vocabulary is loaded, SettingError for another kind.
        """
        return create_tokenizer(kind, self._require_vocabulary("get_tokenizer"))

    def save_vocabulary(self, path: Path) -> None:
        """Write the loaded vocabulary to a JSON file. Raises VocabularyNotLoadedError if there is none."""
        storage.save_vocabulary(self._require_vocabulary("save_vocabulary"), Path(path))

    def load_vocabulary(self, path: Path) -> VocabularyInfo:
        """Load a saved vocabulary. Raises an OSError or ValueError if the file is damaged or not a vocabulary."""
        path = Path(path)
        self._vocabulary = storage.load_vocabulary(path)
        return VocabularyInfo(len(self._vocabulary), (path,))

    def _require_vocabulary(self, caller: str) -> Vocabulary:
        if self._vocabulary is None:
            raise VocabularyNotLoadedError(
                f"{caller} needs a vocabulary; call load_vocabulary_from_file(Path(...)) first"
            )
        return self._vocabulary

    def _build(self, builder: VocabularyBuilder, files: tuple[Path, ...]) -> VocabularyInfo:
        vocabulary, counts = builder.build(), builder.counts
        if not counts:  # the vocabulary has only the builder's `always`
            raise EmptyTextError(f"{', '.join(map(str, files))}: no tokens found; choose files that contain words")
        known = sum(count for token, count in counts.items() if token in vocabulary)
        info = VocabularyInfo(len(vocabulary), files, counts.total(), len(counts), known / counts.total())
        get_logger().info(
            "vocabulary of %d ids from %d distinct tokens in %d files; it covers %.1f%% of the text",
            info.size,
            len(counts),
            len(files),
            100 * known / counts.total(),
        )
        self._vocabulary = vocabulary
        return info
