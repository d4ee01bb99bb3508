"""The validation part of a text: whole documents at its end, the same for every tokenizer that keeps all bytes."""

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from src.data.token_shards import ShardedTokens, TokenArray
from src.tokenizer.protocols.interfaces import Encoding

_BLOCK = 1 << 20  # tokens that are measured at a time
_SEARCHED_TOKENS = 1 << 24  # for the start of a document, before or after the ideal border


def without_end(text: str, fraction: float) -> str:
    """The text without the last `fraction` of its bytes: the part before the first token of `split_tokens`."""
    utf8 = text.encode("utf-8")
    return utf8[: len(utf8) - round(len(utf8) * fraction)].decode("utf-8", "ignore")


def split_tokens(ids: TokenArray, encoding: Encoding, val_fraction: float) -> tuple[TokenArray, TokenArray]:
    """Split into (train, val). Val is about the last `val_fraction` (between 0 and 1) of the text, measured in bytes.

    It begins with a document: the one that this border is in, or else the next one, if val then has from half to twice
    as many tokens, and at most 16 million more or fewer. Otherwise, as in a text of one document, it begins at the
    border. So it is the same text for every tokenizer that keeps all bytes, but for a token that crosses the border.
    Raises ValueError if either part would be empty.
    """
    n_train = _tokens_before_end(ids, encoding, val_fraction)
    if not (0.0 < val_fraction < 1.0 and 0 < n_train < len(ids)):
        raise ValueError(
            f"a validation fraction of {val_fraction:g} leaves {n_train} of {len(ids)} tokens for training "
            f"and {len(ids) - n_train} for validation; both need some: change --val-fraction, or use a longer text"
        )
    n_val = len(ids) - n_train
    first = max(1, n_train - min(n_val, _SEARCHED_TOKENS))
    last = min(len(ids) - 1, n_train + min(n_val - -(-n_val // 2), _SEARCHED_TOKENS))
    starts = np.flatnonzero(np.asarray(ids[first - 1 : last]) == encoding.eot_token) + first
    if len(starts):
        n_train = int(max(starts[starts <= n_train], default=starts[0]))
    return ids[:n_train], ids[n_train:]


def _tokens_before_end(ids: TokenArray, encoding: Encoding, fraction: float) -> int:
    """How many tokens begin before the last `fraction` of the bytes."""
    lengths = token_bytes(encoding)
    blocks = ids.shards() if isinstance(ids, ShardedTokens) else [(ids, _count_bytes(ids, lengths))]
    n_bytes = sum(size for _, size in blocks)
    left, n_train = n_bytes - round(n_bytes * fraction), 0
    for block, size in blocks:
        if size > left:
            return n_train + _tokens_within(block, lengths, left)
        left, n_train = left - size, n_train + len(block)
    return n_train


def _tokens_within(ids: TokenArray, lengths: NDArray[np.int64], n_bytes: int) -> int:
    """How many tokens begin before byte `n_bytes` of a text."""
    position = 0
    for start in range(0, len(ids), _BLOCK):
        ends = position + lengths[np.asarray(ids[start : start + _BLOCK])].cumsum()
        if ends[-1] > n_bytes:
            return start + int(np.searchsorted(np.append(position, ends[:-1]), n_bytes))
        position = int(ends[-1])
    return len(ids)


def _count_bytes(ids: TokenArray, lengths: NDArray[np.int64]) -> int:
    return sum(int(lengths[np.asarray(ids[start : start + _BLOCK])].sum()) for start in range(0, len(ids), _BLOCK))


def token_bytes(encoding: Encoding) -> NDArray[np.int64]:
    """How many bytes each token has. 0 for an id that is not used."""
    lengths = np.zeros(encoding.n_vocab, dtype=np.int64)
    for token in range(encoding.n_vocab):
        with suppress(KeyError):
            lengths[token] = len(encoding.decode_single_token_bytes(token))
    return lengths
