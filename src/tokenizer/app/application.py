"""The whole word tokenizer behind one object: from text files to a tokenizer."""

from collections.abc import Callable, Iterable
from pathlib import Path

from src.tokenizer.core.exceptions import MissingFileError, SettingError, VocabularyNotLoadedError
from src.tokenizer.core.logging import get_logger
from src.tokenizer.core.models import Vocabulary, VocabularyInfo
from src.tokenizer.processing.file_reader import read_pieces
from src.tokenizer.tokenizers.base import Tokenizer
from src.tokenizer.tokenizers.factory import create_tokenizer
from src.tokenizer.vocabulary import storage
from src.tokenizer.vocabulary.builder import VocabularyBuilder


class TokenizerApplication:
    """Builds a vocabulary from text files, or loads a saved one, and makes tokenizers with it.

    make_builder: how vocabularies are built, for settings of one's own:
    `TokenizerApplication(lambda: VocabularyBuilder(min_count=2, max_size=10_000))`.
    A vocabulary that is loaded takes the place of the one before; where loading fails, that one stays.
    """

    def __init__(self, make_builder: Callable[[], VocabularyBuilder] = VocabularyBuilder) -> None:
        self._make_builder = make_builder
        self._vocabulary: Vocabulary | None = None

    def load_vocabulary_from_file(self, path: Path) -> VocabularyInfo:
        """Build the vocabulary of one text file in UTF-8, of any size.

        Raises an OSError or ValueError of `core.exceptions` for a file that can't be used; the others do the same.
        """
        return self.load_vocabulary_from_files([path])

    def load_vocabulary_from_files(self, paths: Iterable[Path]) -> VocabularyInfo:
        """Build one vocabulary of several text files."""
        if isinstance(paths, str | Path):
            raise SettingError(f"{paths} is one path; pass a list of them, or call load_vocabulary_from_file")
        files = tuple(Path(path) for path in paths)
        if not files:
            raise MissingFileError("no text files were given; pass a list of at least one path")
        builder = self._make_builder()
        for file in files:
            for piece in read_pieces(file):
                builder.add(piece)
        return self._take(builder, files)

    def load_vocabulary_from_folder(self, folder: Path, pattern: str = "*.txt") -> VocabularyInfo:
        """Build one vocabulary of the text files in a folder, and not in folders within it, by name."""
        folder = Path(folder)
        if not folder.is_dir():
            found = "is not a folder" if folder.exists() else "not found"
            raise MissingFileError(f"{folder} {found}; name a folder with text files")
        files = sorted(file for file in folder.glob(pattern) if file.is_file())
        if not files:
            raise MissingFileError(f"{folder} has no file {pattern}; put one there, or pass another pattern")
        return self.load_vocabulary_from_files(files)

    def get_tokenizer(self, kind: str) -> Tokenizer:
        """A tokenizer of the loaded vocabulary: "simple" refuses unknown words, "with_unknown" has an id for them.

        Raises VocabularyNotLoadedError before a vocabulary is loaded, SettingError for another kind.
        """
        return create_tokenizer(kind, self._loaded("get_tokenizer"))

    def save_vocabulary(self, path: Path) -> None:
        """Write the loaded vocabulary to a JSON file. Raises VocabularyNotLoadedError before there is one."""
        storage.save_vocabulary(self._loaded("save_vocabulary"), Path(path))

    def load_vocabulary(self, path: Path) -> VocabularyInfo:
        """Load a vocabulary that was saved. Raises a ValueError or OSError for a file that is none, or damaged."""
        path = Path(path)
        self._vocabulary = storage.load_vocabulary(path)
        return VocabularyInfo(len(self._vocabulary), (path,))

    def _loaded(self, call: str) -> Vocabulary:
        if self._vocabulary is None:
            raise VocabularyNotLoadedError(
                f"{call} needs a vocabulary and none is loaded; call load_vocabulary_from_file(Path(...)) first"
            )
        return self._vocabulary

    def _take(self, builder: VocabularyBuilder, files: tuple[Path, ...]) -> VocabularyInfo:
        vocabulary, counts = builder.build(), builder.counts
        known = sum(count for token, count in counts.items() if token in vocabulary)
        info = VocabularyInfo(len(vocabulary), files, counts.total(), len(counts), known / counts.total())
        get_logger().info(
            "%d of %d different tokens, %.1f%% of the text, from %d files",
            info.size,
            len(counts),
            100 * known / counts.total(),
            len(files),
        )
        self._vocabulary = vocabulary
        return info
