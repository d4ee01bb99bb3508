"""What there is to say about a vocabulary that was just built or loaded."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VocabularyInfo:
    """`size`: number of ids, the two reserved ones among them. `sources`: the files that it comes from.

    Of a vocabulary that was counted, not loaded, also the number of tokens in the text, how many different ones there
    were, and the share (0 to 1) of all of them that the vocabulary knows.
    """

    size: int
    sources: tuple[Path, ...]
    counted_tokens: int | None = None
    distinct_tokens: int | None = None
    coverage: float | None = None
