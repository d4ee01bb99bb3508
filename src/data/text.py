"""The token ids of a text: it is inspected, tokenised once and cached, then split into training and validation."""

import glob
from collections.abc import Sequence
from pathlib import Path

from src.common.disk import format_bytes
from src.common.messages import Notify
from src.data.documents import DocumentReader, Documents, cut_rule
from src.data.inspection import notes_on_words
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.data.split import split_tokens
from src.data.text_files import TextPaths, as_paths, find_files, is_stored, unread_in
from src.data.token_cache import cache_folder, cache_key, lock_folder, remove_other_caches, remove_unused
from src.data.token_shards import Index, TokenArray, read_index
from src.data.tokenise import IN_MEMORY_BYTES, tokenise_in_memory, tokenise_to_shards
from src.distributed.processes import first_process_first
from src.tokenizer import Encoding, encoding_fingerprint, load_gpt2_encoding
from src.tokenizer.protocols.interfaces import WordEncoding

# The help of the flags --data and --documents.
TEXT_HELP = (
    "text in UTF-8: .txt, .txt.gz, .jsonl or .parquet files (key or column 'text'), folders of them, or glob patterns; "
    "Shakespeare's works are downloaded if missing"
)
DOCUMENTS_HELP = "endoftext: <|endoftext|> in the text becomes the end-of-text token (default: ordinary characters)"

_CACHE_VERSION = "3"


@first_process_first()
def load_tokens(
    paths: TextPaths,
    encoding: Encoding,
    documents: Documents = None,
    *,
    skip_bad: bool = False,
    notify: Notify = print,
) -> TokenArray:
    """Return all token ids of a text, without Project Gutenberg's additions; an end-of-text id separates documents.

    paths: files, folders of files, or glob patterns: see `find_files`. Each text file is a document, and so is the
    `text` of each record of a JSONL or Parquet file. A pipe is read, too. documents: "endoftext" means that
    `<|endoftext|>` in a text also separates documents; otherwise, it is ordinary text.
    skip_bad: leave bad records out, if at most a tenth of a file's are bad.
    The ids are cached next to the text, in shards that are mapped into memory; an interrupted call continues after the
    last complete shard. The cache's name holds a key of text and tokenizer (`cache_key`), so the text is tokenised
    again when either changes. If the cache cannot be written, the ids of a text of up to 1 GB stay in memory.
    `notify` gets one line per step, and one per likely mistake in the text.
    The shape is (tokens,); the type is uint16 if every id fits, and uint32 otherwise.
    Raises FileNotFoundError, ImportError or ValueError if the text cannot be used, and OSError if the disk is full.
    """
    files = find_text_files(paths)
    name = " ".join(map(str, as_paths(paths)))
    reader = DocumentReader(files, cut_rule(encoding), documents, skip_bad=skip_bad, notify=notify)
    _report_files(as_paths(paths), reader, notify)
    index, problem = None, ""
    if all(map(is_stored, files)):  # a pipe has no place for a cache
        settings = (_CACHE_VERSION, encoding_fingerprint(encoding), str(documents), str(skip_bad))
        key = cache_key(files, settings)
        folder = cache_folder(as_paths(paths), files, key)
        index, problem = _complete_index(folder, key, reader, encoding, notify)
    if index is None:
        in_memory = tokenise_in_memory(reader, encoding)
        notify(f"tokens: {len(in_memory):,} in {name}, not cached{problem}")
        return in_memory
    tokens, n_documents = index.tokens(), sum(shard.documents for shard in index.shards)
    notify(f"tokens: {len(tokens):,} in {name}" + (f", {n_documents:,} documents" if n_documents > 1 else ""))
    return tokens


def _report_files(paths: Sequence[Path], reader: DocumentReader, notify: Notify) -> None:
    """A line if there are several files, and one for each folder of which not everything is read."""
    files = reader.files
    if len(files) > 1:
        name, size = " ".join(map(str, paths)), format_bytes(sum(reader.sizes))
        notify(f"text: {len(files)} files in {name}, {size}, from {files[0]} to {files[-1]}")
    for path in paths:
        if unread := unread_in(path):
            names = ", ".join(other.name for other in unread[:3])
            more = f" and {len(unread) - 3:,} more" if len(unread) > 3 else ""
            pattern = f"{glob.escape(str(path))}/**/*"
            notify(f"note: {path}: not reading {names}{more}; to read more, pass a pattern: --data '{pattern}'")


def _complete_index(
    folder: Path, key: str, reader: DocumentReader, encoding: Encoding, notify: Notify
) -> tuple[Index | None, str]:
    """(the complete index of a text's cache, ""). Missing shards are written first.

    (None, the reason) if the cache cannot be written. Raises OSError if the text is too large to keep in memory.
    """
    index = read_index(folder, key, encoding.n_vocab, notify)
    if index.complete:
        for note in index.notes:
            notify(note)
        return index, ""
    try:
        lock = lock_folder(folder, notify)
    except OSError as error:
        problem = f"{folder} cannot be written ({error.strerror})"
        if sum(reader.sizes) > IN_MEMORY_BYTES:
            raise OSError(f"{problem}; move the text to a folder that you can write: memory is too small") from None
        return None, f": {problem}"
    try:
        with lock:
            index = tokenise_to_shards(index, reader, encoding, notify)
    finally:
        remove_unused(folder)
    remove_other_caches(keep=folder)
    notify(f"tokens: cached in {folder}, which can be deleted")
    return index, ""


def find_text_files(paths: TextPaths) -> list[Path]:
    """The files that --data names. If the default is among them, Shakespeare's works are downloaded if missing."""
    return find_files([ensure_shakespeare(path) if path == SHAKESPEARE_PATH else path for path in as_paths(paths)])


def prepare_data(
    path: TextPaths = SHAKESPEARE_PATH,
    encoding: Encoding | None = None,
    val_fraction: float = 0.1,
    documents: Documents = None,
    val_data: TextPaths | None = None,
    skip_bad: bool = False,
) -> tuple[TokenArray, TokenArray]:
    """(train, val) token ids of a text. Val is the text `val_data`, or else the end of the text: see `split_tokens`.

    encoding: GPT-2's by default. With a `val_fraction` of 0, val is empty.
    Raises FileNotFoundError or ValueError for an unusable text. Shakespeare's works are downloaded if missing.
    """
    encoding = encoding or load_gpt2_encoding()
    tokens = load_tokens(path, encoding, documents, skip_bad=skip_bad)
    if val_data:
        train, val = tokens, load_tokens(val_data, encoding, documents, skip_bad=skip_bad)
        if both := {file.resolve() for file in find_files(path)} & {file.resolve() for file in find_files(val_data)}:
            print(f"note: {min(both)} is in both --data and --val-data: the model is validated on what it trains on")
    elif val_fraction:
        train, val = split_tokens(tokens, encoding, val_fraction)
    else:
        train, val = tokens, tokens[:0]
    if isinstance(encoding, WordEncoding):
        for note in notes_on_words(encoding, train, val):
            print(f"note: {' '.join(map(str, as_paths(path)))}: {note}")
    return train, val
