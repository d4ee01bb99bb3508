"""The base class of the word tokenizers: text to tokens to ids, and back."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from src.tokenizer.core.constants import END_OF_TEXT_ID, RESERVED
from src.tokenizer.core.exceptions import SettingError, TokenIdError
from src.tokenizer.core.models import EncodedText, EncodedTextWithTokens, Vocabulary
from src.tokenizer.processing.cleaner import TextCleaner
from src.tokenizer.processing.splitter import TextSplitter
from src.tokenizer.vocabulary.storage import vocabulary_state


class Tokenizer(ABC):
    """A tokenizer of whole words. It is an `Encoding`, so a model can be trained with it.

    encode = clean, split, look up. decode = look up, join. decode(encode(text)) is the normal form of the text, see
    `processing.splitter`: made for print in languages with spaces, not for URLs, code, Chinese or Thai.
    Subclasses decide what happens to a word that the vocabulary lacks.
    """

    kind: ClassVar[str]
    name = "word"
    eot_token = END_OF_TEXT_ID

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._cleaner, self._splitter = TextCleaner(vocabulary.cleaning), TextSplitter()
        # Without the reserved tokens: no text may encode to their ids.
        self._word_ids = {token: id_ for token, id_ in vocabulary.ids.items() if token not in RESERVED}

    @property
    def n_vocab(self) -> int:
        """Number of ids; every id is in range(n_vocab)."""
        return len(self.vocabulary)

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text, known or not. Raises SettingError if it is not a string."""
        if not isinstance(text, str):
            raise SettingError(f"cannot encode {type(text).__name__}; pass a str")
        return self._splitter.split(self._cleaner.clean(text))

    def unknown(self, text: str) -> list[str]:
        """The tokens of a text that the vocabulary lacks, each once, in order of appearance."""
        return [token for token in dict.fromkeys(self.tokens(text)) if token not in self._word_ids]

    @abstractmethod
    def _ids(self, tokens: list[str]) -> list[int]:
        """The id of every token."""

    def encode(self, text: str) -> EncodedText:
        """The ids of a text."""
        return EncodedText(self.encode_ordinary(text))

    def encode_with_tokens(self, text: str) -> EncodedTextWithTokens:
        """The ids of a text and its tokens."""
        tokens = self.tokens(text)
        return EncodedTextWithTokens(self._ids(tokens), tokens)

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text as a list. End-of-text is never among them; code inserts its id."""
        return self._ids(self.tokens(text))

    def encode_documents(self, texts: Iterable[str]) -> EncodedText:
        """The ids of several documents in one sequence, an end-of-text id before each, as in the training data.

        `decode` shows that id as <ENDOFTEXT>. Raises SettingError if `texts` is one string.
        """
        if isinstance(texts, str):
            raise SettingError("cannot encode one str as documents; pass a list of texts")
        return EncodedText(id_ for text in texts for id_ in (self.eot_token, *self.encode_ordinary(text)))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ids. A prefix of the ids gives a prefix of the text, so text can be streamed.

        Raises TokenIdError if a value is not an id of the vocabulary.
        """
        return self._splitter.join(self._spelling(id_) for id_ in _require_iterable(tokens))

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The text of ids as UTF-8, like `tiktoken.Encoding.decode_bytes`."""
        return _utf8(self.decode(tokens))

    def decode_single_token_bytes(self, token: int) -> bytes:
        """One token as it is in the vocabulary: without spaces, quotation marks with their direction."""
        return _utf8(self._spelling(token))

    def state(self) -> dict[str, Any]:
        """Everything that determines the ids of a text, in plain values, for `src.tokenizer.load_encoding`."""
        return {"kind": self.kind, **vocabulary_state(self.vocabulary)}

    def _spelling(self, id_: int) -> str:
        known = self.vocabulary.tokens
        try:
            index = operator.index(id_)  # also accepts the integers of numpy and torch
        except TypeError:
            index = None
        if index is None or isinstance(id_, bool):
            raise TokenIdError(f"{id_!r:.60} of type {type(id_).__name__} is not a token id; ids are whole numbers")
        if not 0 <= index < len(known):
            raise TokenIdError(
                f"{index} is not a token id of this vocabulary, whose ids are 0 to {len(known) - 1}; "
                "decode with the tokenizer that made the ids"
            )
        return known[index]


def _require_iterable(tokens: Iterable[int]) -> Iterable[int]:
    if not isinstance(tokens, Iterable):
        raise TokenIdError(f"cannot decode {type(tokens).__name__}; pass a list of ids")
    return tokens


def _utf8(text: str) -> bytes:
    # A vocabulary has lone surrogates only if its cleaning rule for them is off.
    return text.encode("utf-8", "surrogatepass")
