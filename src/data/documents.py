"""The documents of a text, streamed: read, cleaned, inspected, and cut into pieces to tokenise."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from src.common.messages import Notify, naming_file
from src.data.gutenberg import SECTION_CHARS, licence_note, sections, strip_boilerplate
from src.data.inspection import notes_on, notes_on_record
from src.data.text_files import text_blocks
from src.data.text_records import is_record_file, record_texts
from src.tokenizer import Encoding
from src.tokenizer.gpt2 import END_OF_TEXT
from src.tokenizer.protocols.interfaces import BatchEncoding, WordEncoding

Documents: TypeAlias = Literal["endoftext"] | None

PIECE_CHARS = 1 << 16
INSPECTED_CHARS = 1 << 26  # of all files together
_FILES_WITH_NOTES = 5  # whose notes are shown
# The ideographs and letters are explicit: what counts as a letter depends on the version of Unicode.
BEFORE_SPACE = re.compile(r"\S(?= )|\S\n(?=\w)|[A-Za-z0-9\u4e00-\u9fa5](?=[,.;:!?\u3001\u3002\uff0c\uff01\uff1f])")
LINE_END = re.compile("\n")


@dataclass(frozen=True)
class Piece:
    """All or a part of a document. The ids of its pieces, one after another, are those of the whole document.

    texts: one, unless `<|endoftext|>` also separates documents. Then each further text begins a document.
    """

    texts: list[str]
    begins: bool  # whether the first text begins a document
    file: int  # index of its file
    position: float  # approximate byte offset of its end, over all files


def cut_rule(encoding: Encoding) -> re.Pattern[str] | None:
    """A pattern whose matches end where a document may be cut without changing its ids; None if no such place is known.

    tiktoken's encodings split a text by a regular expression before they merge bytes. No match of it has a space
    after another character, a newline between two words, or punctuation after a letter. So a cut there does not change
    the matches on either side. A word tokenizer splits each line on its own.
    """
    if isinstance(encoding, WordEncoding):
        return LINE_END
    # Added tokens are found before the text is split, and may contain spaces.
    if isinstance(encoding, BatchEncoding) and not any(map(BEFORE_SPACE.search, getattr(encoding, "added", ()))):
        return BEFORE_SPACE
    return None


def cut_document(blocks: Iterable[str], cut: re.Pattern[str] | None) -> Iterator[str]:
    """Cut a document into pieces of about PIECE_CHARS. They do not depend on the blocks in which it arrives."""
    rest, searched = "", PIECE_CHARS
    for block in blocks:
        rest += block
        start = 0
        while cut and (found := cut.search(rest, max(searched, start + PIECE_CHARS))):
            yield rest[start : found.end()]
            start = found.end()
        rest = rest[start:]
        searched = max(PIECE_CHARS, len(rest) - 2)  # a match needs the character before, and the one after
    if rest:
        yield rest


class FileNotes:
    """Notes for the user on the files of a text: each line once, and only those on the first few files.

    lines: what was reported so far, also by an interrupted run that this one continues.
    """

    def __init__(self, notify: Notify) -> None:
        self.lines: list[str] = []
        self._notify, self._files = notify, set[Path]()

    def report(self, line: str) -> None:
        """Report a line, unless it was reported before."""
        if line not in self.lines:
            self.lines.append(line)
            self._notify(line)

    def report_on(self, path: Path, line: str) -> None:
        """Report a line about a file, if it is one of the first few with notes."""
        self._files.add(path)
        if len(self._files) <= _FILES_WITH_NOTES:
            self.report(line)

    def report_other_files(self) -> None:
        """Report how many more files have notes."""
        if (more := len(self._files) - _FILES_WITH_NOTES) > 0:
            self.report(f"note: {more} more files have such notes")


class DocumentReader:
    """Reads the documents of files in order: each text file is one, and so is each record of the others.

    Project Gutenberg's additions are removed. `notify` gets a line for whatever the user should know.
    documents: "endoftext" means that `<|endoftext|>` also separates documents.
    skip_bad: leave bad records out, if at most a tenth of a file's are bad.
    """

    def __init__(
        self,
        files: Sequence[Path],
        cut: re.Pattern[str] | None,
        documents: Documents = None,
        *,
        skip_bad: bool = False,
        notify: Notify = print,
    ) -> None:
        self.files, self.notes = files, FileNotes(notify)
        self.sizes = [file.stat().st_size if file.exists() else 0 for file in files]
        self._cut, self._documents, self._skip_bad = cut, documents, skip_bad
        self._position = 0  # bytes read of all files
        self._n_documents = 0
        self._document_chars = 0  # read of the current document
        self._inspected_chars, self._all_inspected = 0, True
        self._has_end_of_text = False

    def pieces(self, first_file: int = 0) -> Iterator[Piece]:
        """Yield the pieces of all documents, from a file on.

        Raises FileNotFoundError, ImportError or ValueError if a file cannot be used, naming it and its bad records.
        """
        for number in range(first_file, len(self.files)):
            self._position = sum(self.sizes[:number])
            path = self.files[number]
            for document in self._records(path) if is_record_file(path) else [self._sections(path)]:
                self._n_documents += 1
                yield from self._pieces_of(document, number)
        self._report_at_end()

    def _pieces_of(self, document: Iterable[str], file: int) -> Iterator[Piece]:
        """The pieces of a document that arrives in blocks.

        Blocks are read ahead, so a piece's position is an estimate: its share of the characters read, in bytes.
        """
        start, cut_chars, self._document_chars = self._position, 0, 0
        for text in cut_document(self._counted(document), self._cut):
            begins = cut_chars == 0
            cut_chars += len(text)
            share = cut_chars / self._document_chars
            texts = text.split(END_OF_TEXT) if self._documents else [text]
            yield Piece(texts, begins, file, start + share * (self._position - start))

    def _counted(self, document: Iterable[str]) -> Iterator[str]:
        for block in document:
            self._document_chars += len(block)
            self._has_end_of_text |= END_OF_TEXT in block
            yield block

    def _sections(self, path: Path) -> Iterator[str]:
        """The text of a text file, in sections."""
        read, kept, books = 0, 0.0, 0
        for section in sections(text_blocks(path, self._advance)):
            notes = self._inspect(path, section, is_first=not read)
            with naming_file(path):
                cleaned = strip_boilerplate(section)
            for note in (*notes, *licence_note(cleaned.text)):
                self.notes.report_on(path, f"note: {path}: {note}")
            read, kept = read + len(section), kept + cleaned.kept_fraction * len(section)
            books += cleaned.n_books
            yield cleaned.text
        if kept < read:
            additions = "header and licence" if books == 1 else f"headers and licences ({books} books)"
            share = f"{kept / read:.1%}"
            self.notes.report_on(path, f"text: using {share} of {path}, without Project Gutenberg's {additions}")

    def _inspect(self, path: Path, section: str, *, is_first: bool) -> list[str]:
        """Notes on likely mistakes in the first section of a file, up to INSPECTED_CHARS of all files."""
        if not is_first or self._inspected_chars > INSPECTED_CHARS:
            self._all_inspected = False
            return []
        self._inspected_chars += len(section)
        return notes_on(section, path, documents=self._documents is not None)

    def _records(self, path: Path) -> Iterator[list[str]]:
        """The text of each record of a file, as a list of one block."""
        counts: Counter[str] = Counter()  # the records with each note
        n_inspected = 0
        notify = partial(self.notes.report_on, path)
        for where, text in record_texts(path, skip_bad=self._skip_bad, notify=notify, on_read=self._advance):
            if self._inspected_chars <= INSPECTED_CHARS:
                self._inspected_chars += len(text)
                n_inspected += 1
                counts.update(note for note in notes_on_record(text) if not (self._documents and END_OF_TEXT in note))
            else:
                self._all_inspected = False
            try:
                cleaned = strip_boilerplate(text)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            yield [cleaned.text]
        for note, count in counts.items():
            notify(f"note: {path}: {note}, in {count:,} of {n_inspected:,} records")

    def _advance(self, n_bytes: int) -> None:
        self._position += n_bytes

    def _report_at_end(self) -> None:
        self.notes.report_other_files()
        if not self._all_inspected:
            self.notes.report(
                f"note: only the first {SECTION_CHARS / 1e6:.1f} million characters of each file, and "
                f"{INSPECTED_CHARS / 1e6:.1f} million of all files, were looked at for damage and other formats"
            )
        if self._documents and not self._has_end_of_text and self._n_documents == 1:
            path = self.files[-1]
            self.notes.report(f"note: {path}: no {END_OF_TEXT} in it, so --documents endoftext separates nothing")
