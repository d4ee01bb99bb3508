"""The validation part of a text: its last bytes, so the same for every tokenizer that keeps all bytes."""

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from src.data.token_cache import TokenArray
from src.tokenizer.protocols.interfaces import Encoding

_BLOCK = 1 << 20  # tokens that are measured at a time


def without_end(text: str, fraction: float) -> str:
    """The text without the last `fraction` of its bytes: the part before the first token of `split_tokens`."""
    utf8 = text.encode("utf-8")
    return utf8[: len(utf8) - round(len(utf8) * fraction)].decode("utf-8", "ignore")


def split_tokens(ids: TokenArray, encoding: Encoding, val_fraction: float) -> tuple[TokenArray, TokenArray]:
    """Split into (train, val). Val is the last `val_fraction` (between 0 and 1) of the text, measured in bytes.

    So it is the same text for every tokenizer that keeps all bytes, but for a token that crosses the border.
    Raises ValueError if either part would be empty.
    """
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(ids), _BLOCK)]
    lengths = _token_bytes(encoding)
    n_bytes = sum(int(lengths[ids[block]].sum()) for block in blocks)
    border, position, n_train = n_bytes - round(n_bytes * val_fraction), 0, 0
    for block in blocks:
        ends = position + lengths[ids[block]].cumsum()
        starts_before_border = int(np.searchsorted(np.append(position, ends[:-1]), border))
        n_train += starts_before_border
        if starts_before_border < len(ends):
            break
        position = int(ends[-1])
    if not (0.0 < val_fraction < 1.0 and 0 < n_train < len(ids)):
        raise ValueError(
            f"a validation fraction of {val_fraction:g} leaves {n_train} of {len(ids)} tokens for training "
            f"and {len(ids) - n_train} for validation; both need some: change --val-fraction, or use a longer text"
        )
    return ids[:n_train], ids[n_train:]


def _token_bytes(encoding: Encoding) -> NDArray[np.int64]:
    """How many bytes each token has. 0 for an id that is not used."""
    lengths = np.zeros(encoding.n_vocab, dtype=np.int64)
    for token in range(encoding.n_vocab):
        with suppress(KeyError):
            lengths[token] = len(encoding.decode_single_token_bytes(token))
    return lengths
