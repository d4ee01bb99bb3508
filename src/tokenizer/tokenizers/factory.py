"""Create a tokenizer by the name of its kind."""

import difflib

from src.tokenizer.core.exceptions import SettingError
from src.tokenizer.core.models import Vocabulary
from src.tokenizer.tokenizers.base import Tokenizer
from src.tokenizer.tokenizers.simple import SimpleTokenizer
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown

KINDS: dict[str, type[Tokenizer]] = {"simple": SimpleTokenizer, "with_unknown": TokenizerWithUnknown}


def create_tokenizer(kind: str, vocabulary: Vocabulary) -> Tokenizer:
    """A tokenizer of a kind, "simple" or "with_unknown". Raises SettingError for another name."""
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind](vocabulary)
    nearest = difflib.get_close_matches(kind, KINDS, n=1) if isinstance(kind, str) else []
    suggestion = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise SettingError(f"there is no tokenizer {kind!r:.60}, only {' and '.join(map(repr, KINDS))}{suggestion}")
