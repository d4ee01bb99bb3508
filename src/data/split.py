"""The validation part of a text: whole documents at its end, the same for every tokenizer that keeps all bytes.

Lengths are in bytes of the documents. The end-of-text tokens between them have length 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache

import numpy as np
from numpy.typing import NDArray

from src.data.token_shards import ShardedTokens, TokenArray
from src.tokenizer.protocols.interfaces import Encoding

_BLOCK = 1 << 20  # tokens that are measured at a time
_SEARCHED_TOKENS = 1 << 24  # for the start of a document, before or after the ideal border


def split_tokens(ids: TokenArray, encoding: Encoding, val_fraction: float) -> tuple[TokenArray, TokenArray]:
    """Split into (train, val). Val is about the last `val_fraction` (between 0 and 1) of the text, measured in bytes.

    Val starts with the document that contains this border, or with the next one, as long as val keeps between half and
    twice its size and moves by at most 16 million tokens. Otherwise, as in a text of one document, it starts at the
    border. Except for a token that crosses the border, it is the same text for every tokenizer that keeps all bytes.
    Raises ValueError if either part would be empty.
    """
    lengths = token_bytes(encoding)
    blocks = ids.shards() if isinstance(ids, ShardedTokens) else [(ids, _count_bytes(ids, lengths))]
    n_bytes = sum(size for _, size in blocks)
    n_val = round(n_bytes * val_fraction)
    n_train, position = _tokens_before(blocks, lengths, n_bytes - n_val)
    if not (0.0 < val_fraction < 1.0 and 0 < n_train < len(ids)):
        raise ValueError(
            f"a validation fraction of {val_fraction:g} leaves {n_train} of {len(ids)} tokens for training "
            f"and {len(ids) - n_train} for validation; both need some: change --val-fraction, or use a longer text"
        )
    # The byte that each document near the border starts at -> its first token.
    starts = {}
    for start in _document_starts(ids, n_train, encoding.eot_token):
        before, after = ids[start:n_train], ids[n_train:start]  # one of them is empty
        starts[position - _count_bytes(before, lengths) + _count_bytes(after, lengths)] = start
    n_train = starts.get(_border(starts, n_bytes - n_val, n_val), n_train)
    return ids[:n_train], ids[n_train:]


def _document_starts(ids: TokenArray, border: int, eot_token: int) -> Iterator[int]:
    """Yield the first token of the last document before a border, and of the first one after it, if they are near."""
    first = max(0, border - _SEARCHED_TOKENS)
    ends_before = np.flatnonzero(np.asarray(ids[first:border]) == eot_token)
    if len(ends_before):
        yield first + int(ends_before[-1]) + 1
    ends_after = np.flatnonzero(np.asarray(ids[border : border + _SEARCHED_TOKENS]) == eot_token)
    if len(ends_after):
        yield border + int(ends_after[0]) + 1


def training_part(documents: Sequence[str], val_fraction: float) -> Iterator[str]:
    """The part of the documents that `split_tokens` leaves for training; the last one may be cut off."""
    sizes = [len(document.encode("utf-8")) for document in documents]
    n_val = round(sum(sizes) * val_fraction)
    starts = np.append(0, np.cumsum(sizes, dtype=np.int64)).tolist()
    border = _border(starts[:-1], starts[-1] - n_val, n_val)
    for document, start in zip(documents, starts, strict=False):
        if start < border:  # the last one is cut between two characters
            yield document.encode("utf-8")[: border - start].decode("utf-8", "ignore")


def _border(starts: Iterable[int], border: int, n_val: int) -> int:
    """The byte where val begins: the start of a document, if one is near enough to the ideal border."""
    before = [start for start in starts if max(1, border - n_val) <= start <= border]
    after = [start for start in starts if border < start <= border + n_val // 2]
    return max(before, default=min(after, default=border))


def _tokens_before(
    blocks: Iterable[tuple[TokenArray, int]], lengths: NDArray[np.int64], border: int
) -> tuple[int, int]:
    """(how many tokens begin before a byte of the text, the byte that the next one begins at)."""
    n_tokens = position = 0
    for block, size in blocks:
        if position + size < border:
            n_tokens, position = n_tokens + len(block), position + size
            continue
        for start in range(0, len(block), _BLOCK):
            ends = position + lengths[np.asarray(block[start : start + _BLOCK])].cumsum()
            begins = np.append(position, ends[:-1])
            if begins[-1] >= border:
                index = int(np.searchsorted(begins, border))
                return n_tokens + index, int(begins[index])
            n_tokens, position = n_tokens + len(ends), int(ends[-1])
    return n_tokens, position


def _count_bytes(ids: TokenArray, lengths: NDArray[np.int64]) -> int:
    return sum(int(lengths[np.asarray(ids[start : start + _BLOCK])].sum()) for start in range(0, len(ids), _BLOCK))


@cache
def token_bytes(encoding: Encoding) -> NDArray[np.int64]:
    """How many bytes of a text each token has. 0 for end-of-text, and for an id that is not used."""
    lengths = np.zeros(encoding.n_vocab, dtype=np.int64)
    for token in range(encoding.n_vocab):
        with suppress(KeyError):
            lengths[token] = len(encoding.decode_single_token_bytes(token))
    lengths[encoding.eot_token] = 0
    lengths.flags.writeable = False
    return lengths
