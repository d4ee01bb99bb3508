"""The tokenizer that has no id for an unknown word."""

from src.tokenizer.core.exceptions import UnknownTokensError
from src.tokenizer.tokenizers.base import Tokenizer

_NAMED = 5


class SimpleTokenizer(Tokenizer):
    """Refuses a text with a word that the vocabulary lacks: UnknownTokensError names up to five of them."""

    kind = "simple"

    def _ids(self, tokens: list[str]) -> list[int]:
        try:
            return list(map(self._word_ids.__getitem__, tokens))
        except KeyError:
            unknown = [token for token in dict.fromkeys(tokens) if token not in self._word_ids]
        named = ", ".join(f"{token!r:.60}" for token in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise UnknownTokensError(
            f"the vocabulary of {self.n_vocab} tokens lacks {named}{more}; "
            'use the tokenizer "with_unknown", or build the vocabulary from a text that has them'
        )
