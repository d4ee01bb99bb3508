"""Statistics of a vocabulary that was built or loaded."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VocabularyInfo:
    """`size` is the number of ids, including the two reserved ones; `sources` are the files it comes from.

    For a vocabulary that was built, not loaded, also: the number of tokens in the text, the number of distinct tokens,
    and the fraction (0 to 1) of the text's tokens that the vocabulary covers.
    """

    size: int
    sources: tuple[Path, ...]
    counted_tokens: int | None = None
    distinct_tokens: int | None = None
    coverage: float | None = None
