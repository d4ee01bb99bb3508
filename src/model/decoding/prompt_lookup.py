"""Prompt-lookup decoding (Saxena 2023): draft tokens are copied from an earlier part of the same sequence.

A form of speculative decoding (Leviathan et al. 2023) without a draft model.
"""

NGRAM = 3  # tokens that must match before the tokens that followed them become the draft


class PromptLookup:
    """Finds the last earlier occurrence of a sequence's final n-gram. For one sequence, which may only grow."""

    def __init__(self) -> None:
        self._following: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token after its last occurrence
        self._indexed = NGRAM  # the first index that is not in `_following` yet

    def draft(self, ids: list[int], n_tokens: int) -> list[int]:
        """The `n_tokens` tokens after the earlier n-gram, repeated cyclically if too few; [] if there is none."""
        for i in range(self._indexed, len(ids)):
            self._following[tuple(ids[i - NGRAM : i])] = i
        self._indexed = max(self._indexed, len(ids))
        start = self._following.get(tuple(ids[-NGRAM:]))
        if start is None:
            return []
        following = ids[start:]
        return [following[i % len(following)] for i in range(n_tokens)]
