"""A text as token ids: looked at, tokenised once and cached, then split into training windows."""

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from src.common.machine import usable_cpus
from src.common.messages import naming_file
from src.data.batching import EpochDataset
from src.data.examples import tuning_texts
from src.data.gutenberg import strip_boilerplate
from src.data.inspection import licence_note, notes_on, notes_on_words
from src.data.shakespeare import SHAKESPEARE_PATH, ensure_shakespeare
from src.data.split import split_tokens, without_end
from src.data.text_files import is_stored, read_texts
from src.data.token_cache import TokenArray, cache_path, open_cache, remove_other_caches, store, token_dtype
from src.data.vocabulary import learned_encoding
from src.distributed.processes import Processes, first_process_first
from src.tokenizer import (
    Encoding,
    describe,
    encoding_fingerprint,
    load_encoding,
    load_gpt2_encoding,
    word_encoding_of,
)
from src.tokenizer.gpt2 import END_OF_TEXT
from src.tokenizer.protocols.interfaces import BatchEncoding, WordEncoding

Documents: TypeAlias = Literal["endoftext"] | None
Tokenizer: TypeAlias = Literal["gpt2", "bpe", "word"]

# The help of the flags --data and --documents.
TEXT_HELP = "text in UTF-8: a file, a .gz, or a folder of .txt files; Shakespeare's works are downloaded if missing"
DOCUMENTS_HELP = "endoftext: <|endoftext|> in the text becomes the end-of-text token (default: ordinary characters)"

_CACHE_VERSION = 1
_CHUNK_CHARS = 1 << 16
_CHUNKS_PER_BATCH = 64
_CUT = re.compile(r"\S(?= )|\S\n(?=\w)")
_FILES_WITH_NOTES = 5  # of a folder


def choose_encoding(
    tokenizer: Tokenizer,
    path: Path,
    documents: Documents = None,
    *,
    vocab_size: int = 4096,
    val_fraction: float = 0.0,
    saved: Encoding | None = None,
    processes: Processes | None = None,
    notify: Callable[[str], None] = print,
) -> Encoding:
    """GPT-2's tokenizer, or one with the words or the byte pairs of a text and of the examples for SFT and DPO.

    Byte pairs are learned without the last `val_fraction` of the text. vocab_size: how many tokens they make.
    saved: an encoding to use instead, if it was learned from the same text. All processes get the first one's.
    If the text file is Shakespeare's works and does not exist, it is downloaded first.
    Raises ValueError for a pipe, which cannot be read a second time for its tokens.
    """
    if tokenizer == "gpt2":
        return load_gpt2_encoding()
    processes = processes or Processes()
    if processes.rank:
        return load_encoding(processes.from_first(None))
    path = _with_shakespeare(path)
    if path.exists() and not is_stored(path):
        raise ValueError(f"--tokenizer {tokenizer} reads the text twice, and {path} is a pipe; save it as a file first")
    text = _read_clean(path, documents, lambda _: None)
    encoding: Encoding
    if tokenizer == "word":
        encoding = word_encoding_of(_lines(text.replace(END_OF_TEXT, "\n") if documents else text), tuning_texts())
    else:
        training = without_end(text, val_fraction)
        texts = training.split(END_OF_TEXT) if documents else [training]
        encoding = learned_encoding(chain.from_iterable(map(_chunks, texts)), vocab_size, saved, notify)
    processes.from_first(describe(encoding))
    return encoding


@first_process_first()
def load_tokens(
    path: Path, encoding: Encoding, documents: Documents = None, *, notify: Callable[[str], None] = print
) -> TokenArray:
    """Return all token ids of a text, without Project Gutenberg's additions.

    The path is a UTF-8 file, also one in gzip, a folder of .txt files, or a pipe. documents: "endoftext" encodes
    `<|endoftext|>` as the end-of-text token, as between the files of a folder; otherwise, it is ordinary text.
    The ids are cached next to the text in a .npy file, which is mapped into memory. The cache's name contains a hash
    of text and tokenizer, so the text is tokenised again when either changes. If the cache cannot be written, the ids
    stay in memory. `notify` gets one line per step, and one for whatever is surely not meant in the text.
    The shape is (tokens,); the type is uint16 if every id fits, and uint32 otherwise.
    Raises FileNotFoundError or ValueError if the text cannot be used.
    """
    path = _with_shakespeare(Path(path))
    text = _read_clean(path, documents, notify)
    separator = END_OF_TEXT if documents else None
    if not is_stored(path):
        tokens = _tokenise(text, encoding, separator)
        notify(f"tokens: {len(tokens)} in {path}, not cached")
        return tokens
    cache = cache_path(path, _cache_key(text, encoding, separator))
    cached = open_cache(cache, encoding.n_vocab, notify)
    if cached is None:
        cached = store(_tokenise(text, encoding, separator), cache, notify)
        remove_other_caches(keep=cache)
    notify(f"tokens: {len(cached)} in {path}")
    return cached


def _with_shakespeare(path: Path) -> Path:
    """The path. If it is the default, Shakespeare's works are downloaded unless a copy is found."""
    return ensure_shakespeare(path) if path == SHAKESPEARE_PATH else path


def _read_clean(path: Path, documents: Documents, notify: Callable[[str], None]) -> str:
    """The text, without Project Gutenberg's additions. The files of a folder are joined."""
    texts = read_texts(path)
    files_with_notes, bodies = 0, []
    for file, text in texts.items():
        body, notes = _clean(file, text, documents)
        bodies.append(body)
        files_with_notes += bool(notes)
        if files_with_notes <= _FILES_WITH_NOTES:
            for note in notes:
                notify(note)
    if files_with_notes > _FILES_WITH_NOTES:
        notify(f"note: {files_with_notes - _FILES_WITH_NOTES} more files have such notes")
    if path.is_dir():
        notify(f"text: {len(texts)} .txt files of {path}, in the order of their names")
    joined = (END_OF_TEXT if documents else "\n").join(bodies)
    if documents and END_OF_TEXT not in joined:
        notify(f"note: {path}: no {END_OF_TEXT} in it, so --documents endoftext separates nothing")
    return joined


def _clean(path: Path, text: str, documents: Documents) -> tuple[str, list[str]]:
    """(the text without Project Gutenberg's additions, one line for each thing that the user should know)."""
    with naming_file(path):
        cleaned = strip_boilerplate(text)
    notes = [*notes_on(text, path, documents=documents is not None), *licence_note(cleaned.text)]
    lines = [f"note: {path}: {note}" for note in notes]
    if cleaned.kept_fraction < 1.0:
        additions = "header and licence" if cleaned.n_books == 1 else f"headers and licences ({cleaned.n_books} books)"
        lines.append(f"text: using {cleaned.kept_fraction:.1%} of {path}, without Project Gutenberg's {additions}")
    return cleaned.text, lines


def _cache_key(text: str, encoding: Encoding, separator: str | None) -> str:
    text_hash = hashlib.sha256(text.encode("utf-8")).hexdigest()
    key = f"{_CACHE_VERSION} {text_hash} {encoding_fingerprint(encoding)}" + (f" {separator}" if separator else "")
    return hashlib.sha256(key.encode("ascii")).hexdigest()[:16]


def _tokenise(text: str, encoding: Encoding, separator: str | None) -> TokenArray:
    """The ids of the whole text, with the end-of-text id for each separator."""
    # An encoding that takes batches (tiktoken) works on all CPUs.
    chunks: Iterator[str] = _chunks(text) if isinstance(encoding, BatchEncoding) else iter([text])
    parts = []
    while batch := list(islice(chunks, _CHUNKS_PER_BATCH)):
        pieces = [chunk.split(separator) if separator else [chunk] for chunk in batch]
        encoded = _encode([piece for chunk in pieces for piece in chunk], encoding)
        for chunk in pieces:
            parts += [_as_array([encoding.eot_token] * (i > 0) + next(encoded), encoding) for i in range(len(chunk))]
    return np.concatenate(parts)


def _encode(pieces: list[str], encoding: Encoding) -> Iterator[list[int]]:
    if isinstance(encoding, BatchEncoding):
        return iter(encoding.encode_ordinary_batch(pieces, num_threads=usable_cpus()))
    return map(encoding.encode_ordinary, pieces)


def _chunks(text: str) -> Iterator[str]:
    """Cut a text into chunks that together have the same tokens as the whole text.

    tiktoken's encodings split a text into pieces before they merge bytes. No piece holds a space after another
    character, and none continues after a newline between a word and a word. So the pieces on either side of such a
    cut do not change.
    """
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + _CHUNK_CHARS)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


def _lines(text: str) -> Iterator[str]:
    """Cut a text after line breaks, into chunks that a word tokenizer can split one by one."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _CHUNK_CHARS) + 1 or len(text)
        yield text[start:end]
        start = end


def _as_array(ids: list[int], encoding: Encoding) -> TokenArray:
    as_int64 = np.array(ids, dtype=np.int64)
    if as_int64.size and not 0 <= as_int64.min() <= as_int64.max() < encoding.n_vocab:
        raise ValueError(
            f"the tokenizer gave ids from {as_int64.min()} to {as_int64.max()}, its vocabulary has {encoding.n_vocab}"
        )
    return as_int64.astype(token_dtype(encoding.n_vocab))


def load_split(
    path: str | Path,
    encoding: Encoding,
    val_fraction: float,
    documents: Documents = None,
    val_data: str | Path | None = None,
) -> tuple[TokenArray, TokenArray]:
    """(train, val) token ids. Val is the text `val_data`, or else the last `val_fraction` of the text, if not 0.

    Raises the errors of `load_tokens` and `split_tokens`.
    """
    tokens = load_tokens(Path(path), encoding, documents)
    if val_data:
        train, val = tokens, load_tokens(Path(val_data), encoding, documents)
    else:
        train, val = split_tokens(tokens, encoding, val_fraction) if val_fraction else (tokens, tokens[:0])
    if isinstance(encoding, WordEncoding):
        for note in notes_on_words(encoding, train, val):
            print(f"note: {path}: {note}")
    return train, val


class TextWindows(EpochDataset):
    """Windows of `context_length` tokens over a text, from a new offset and in a new order each epoch.

    A window's key is the index of its first token. Offset and order depend only on (seed, epoch), so a run can be
    resumed at any step. The offset is in [0, context_length). From there, the windows of an epoch follow one another to
    the end of the text. The last window is shifted back if it would cross the end.
    """

    def __init__(self, ids: TokenArray, context_length: int, seed: int) -> None:
        """ids: shape (tokens,). Raises ValueError if there are too few for one window and its targets."""
        if context_length < 1:
            raise ValueError(f"--context-length is {context_length}, at least 1 is needed")
        if len(ids) <= context_length:
            raise ValueError(
                f"the text, or the part that --val-fraction holds out, has {len(ids)} tokens; one window needs "
                f"{context_length + 1}: lower --context-length, change --val-fraction, or pass a longer text"
            )
        self.ids, self._context_length, self._seed = ids, context_length, seed

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self._context_length

    def __getitem__(self, start: int) -> tuple[Tensor, Tensor]:
        """The window from token `start`: (inputs, targets), int64 (T,) each. Targets are shifted by one token."""
        if not 0 <= start < len(self.ids) - self._context_length:
            raise IndexError(f"no window starts at token {start} of {len(self.ids)}")
        # A copy: a window must not keep pages of the file in memory, and embedding and loss need int64.
        tokens = torch.from_numpy(self.ids[start : start + self._context_length + 1].astype(np.int64))
        return tokens[:-1], tokens[1:]

    def order(self, epoch: int) -> list[int]:
        """The index of the first token of each window of an epoch, shuffled."""
        # Hash, so neighbouring seeds and epochs share nothing.
        mixed = hashlib.sha256(f"{self._seed} {epoch}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(mixed, "little") >> 1)
        offset = torch.randint(self._context_length, (1,), generator=generator)
        starts = offset + self._context_length * torch.randperm(len(self), generator=generator)
        return starts.clamp(max=len(self.ids) - 1 - self._context_length).tolist()

    def content_hash(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.ids).data).hexdigest()
