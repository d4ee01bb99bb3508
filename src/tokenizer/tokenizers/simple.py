"""The tokenizer that refuses unknown words."""

from src.tokenizer.core.exceptions import UnknownTokensError
from src.tokenizer.tokenizers.base import Tokenizer

_UNKNOWN_SHOWN = 5


class SimpleTokenizer(Tokenizer):
    """Refuses a text with words that the vocabulary lacks: UnknownTokensError names up to five of them."""

    kind = "simple"

    def _ids(self, tokens: list[str]) -> list[int]:
        try:
            return list(map(self._word_ids.__getitem__, tokens))
        except KeyError:
            unknown = [token for token in dict.fromkeys(tokens) if token not in self._word_ids]
        named = ", ".join(f"{token!r:.60}" for token in unknown[:_UNKNOWN_SHOWN])
        more = f" and {len(unknown) - _UNKNOWN_SHOWN} more" if len(unknown) > _UNKNOWN_SHOWN else ""
        raise UnknownTokensError(
            f"the vocabulary of {self.n_vocab} tokens lacks {named}{more}; "
            'use the tokenizer "with_unknown", or build the vocabulary from a text that contains them'
        )
