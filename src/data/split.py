"""The validation part of a text: whole documents at its end, the same for every tokenizer that keeps all bytes.

So places in a text are bytes of its documents, not tokens. The end-of-text tokens between documents have length 0.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
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
    twice its size and moves by at most 16 million tokens. For example, of documents of 40, 30 and 30 bytes, a fraction
    of 0.2 has its border at byte 80, so val is the third document. Otherwise, as in a text of one document, val starts
    at the border. Except for a token that crosses the border, it is the same text for every tokenizer that keeps all
    bytes. Raises ValueError if either part would be empty.
    """
    lengths = token_bytes(encoding)
    shards = ids.shards() if isinstance(ids, ShardedTokens) else [(ids, _count_bytes(ids, lengths))]
    n_bytes = sum(size for _, size in shards)
    val_bytes = round(n_bytes * val_fraction)
    border = n_bytes - val_bytes
    n_train, train_bytes = _first_token_from(border, shards, lengths)
    if not (0.0 < val_fraction < 1.0 and 0 < n_train < len(ids)):
        raise ValueError(
            f"a validation fraction of {val_fraction:g} leaves {n_train} of {len(ids)} tokens for training "
            f"and {len(ids) - n_train} for validation; both need some: change --val-fraction, or use a longer text"
        )
    token_at = _document_starts_near(n_train, train_bytes, ids, encoding)
    n_train = token_at.get(_val_start(token_at, border, val_bytes), n_train)
    return ids[:n_train], ids[n_train:]


def training_part(documents: Sequence[str], val_fraction: float) -> Iterator[str]:
    """The part of the documents that `split_tokens` leaves for training; the last one may be cut off."""
    sizes = [len(document.encode("utf-8")) for document in documents]
    val_bytes = round(sum(sizes) * val_fraction)
    *starts, n_bytes = np.append(0, np.cumsum(sizes, dtype=np.int64)).tolist()
    val_start = _val_start(starts, n_bytes - val_bytes, val_bytes)
    for document, start in zip(documents, starts, strict=True):
        if start < val_start:  # the last one is cut between two characters
            yield document.encode("utf-8")[: val_start - start].decode("utf-8", "ignore")


def _val_start(document_starts: Collection[int], border: int, val_bytes: int) -> int:
    """The byte where val begins: the start of a document, if one is near enough to the border, else the border."""
    before = [start for start in document_starts if max(1, border - val_bytes) <= start <= border]
    after = [start for start in document_starts if border < start <= border + val_bytes // 2]
    return max(before, default=min(after, default=border))


def _document_starts_near(token: int, byte: int, ids: TokenArray, encoding: Encoding) -> dict[int, int]:
    """{byte: token} of the last document that starts up to a token, and of the next document, if they are near.

    byte: where the given token begins in the text.
    """
    lengths, starts = token_bytes(encoding), {}
    searched = max(0, token - _SEARCHED_TOKENS)
    ends_before = np.flatnonzero(np.asarray(ids[searched:token]) == encoding.eot_token)
    if len(ends_before):
        start = searched + int(ends_before[-1]) + 1
        starts[byte - _count_bytes(ids[start:token], lengths)] = start
    ends_after = np.flatnonzero(np.asarray(ids[token : token + _SEARCHED_TOKENS]) == encoding.eot_token)
    if len(ends_after):
        start = token + int(ends_after[0]) + 1
        starts[byte + _count_bytes(ids[token:start], lengths)] = start
    return starts


def _first_token_from(
    byte: int, shards: Iterable[tuple[TokenArray, int]], lengths: NDArray[np.int64]
) -> tuple[int, int]:
    """The first token that begins at a byte or after it: its number in the text, and the byte that it begins at.

    shards: ids, and the number of their bytes.
    """
    n_tokens = n_bytes = 0  # before the tokens that are looked at
    for ids, shard_bytes in shards:
        if n_bytes + shard_bytes < byte:
            n_tokens, n_bytes = n_tokens + len(ids), n_bytes + shard_bytes
            continue
        for start in range(0, len(ids), _BLOCK):
            ends = n_bytes + lengths[np.asarray(ids[start : start + _BLOCK])].cumsum()
            begins = np.append(n_bytes, ends[:-1])
            if begins[-1] >= byte:
                index = int(np.searchsorted(begins, byte))
                return n_tokens + index, int(begins[index])
            n_tokens, n_bytes = n_tokens + len(ends), int(ends[-1])
    return n_tokens, n_bytes


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
