"""The tokenizer with one id for all unknown words."""

from src.tokenizer.core.constants import UNKNOWN_ID
from src.tokenizer.tokenizers.base import Tokenizer


class TokenizerWithUnknown(Tokenizer):
    """Gives every word that the vocabulary lacks the id of <UNK>, so any text can be encoded."""

    kind = "with_unknown"

    def _ids(self, tokens: list[str]) -> list[int]:
        id_of = self._word_ids.get
        return [id_of(token, UNKNOWN_ID) for token in tokens]
