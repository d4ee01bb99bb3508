"""The tokenizer in a GGUF file, read as an encoding with exactly the same ids."""

from collections.abc import Mapping
from typing import Any

from src.tokenizer.byte_pair_vocabulary import BytePairVocabulary, encoding_of
from src.tokenizer.byte_pairs import bytes_of
from src.tokenizer.core.exceptions import VocabularyError
from src.tokenizer.protocols.interfaces import Encoding

_NORMAL, _CONTROL, _ADDED = 1, 3, 4  # kinds of token; other kinds are no text


def gguf_encoding(fields: Mapping[str, Any], source: str) -> Encoding:
    """The tokenizer in the fields of a GGUF file. Raises ValueError if this project cannot reproduce its ids."""
    prefix = "tokenizer.ggml."
    try:
        if (fields[f"{prefix}model"], fields.get(f"{prefix}pre", "gpt-2")) != ("gpt2", "gpt-2"):
            raise VocabularyError(f"it is of the kind {fields[f'{prefix}model']!r:.40}, {fields[f'{prefix}pre']!r:.40}")
        tokens = list(zip(fields[f"{prefix}tokens"], fields[f"{prefix}token_type"], strict=True))
        normal, control, added = (
            {token: id_ for id_, (token, kind) in enumerate(tokens) if kind == wanted}
            for wanted in (_NORMAL, _CONTROL, _ADDED)
        )
        pairs = [merge.split(" ") for merge in fields[f"{prefix}merges"]]
        merges = [(bytes_of(left), bytes_of(right)) for left, right in pairs]
        vocabulary = BytePairVocabulary(normal, merges, special=control, added=added)
        return encoding_of(vocabulary, [fields[f"{prefix}eos_token_id"]])
    except (VocabularyError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, VocabularyError) else f"unexpected content: {error!r:.60}"
        raise ValueError(f"{source}: its tokenizer cannot be used ({reason})") from error
