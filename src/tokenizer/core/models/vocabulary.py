"""All tokens that a tokenizer knows. The position of a token is its id."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from src.tokenizer.core.constants import LONGEST_TOKEN_CHARS, RESERVED
from src.tokenizer.core.exceptions import VocabularyError


class Vocabulary:
    """Tokens in the order of their ids, the reserved ones first, and the rules that cleaned their texts.

    The rules are part of the vocabulary: in a text cleaned by other rules, known words could look unknown.
    Raises VocabularyError if the reserved tokens are not first, or if a token is empty, too long, repeated or
    not a string; the message names the first such token.
    """

    __slots__ = ("_cleaning", "_ids", "_tokens")

    def __init__(self, tokens: Iterable[str], cleaning: Iterable[str]) -> None:
        self._tokens, self._cleaning = tuple(tokens), tuple(cleaning)
        for id_, token in enumerate(self._tokens):
            _check_token(token, id_)
        self._ids = {token: id_ for id_, token in enumerate(self._tokens)}
        if self._tokens[: len(RESERVED)] != RESERVED:
            raise VocabularyError(
                f"the vocabulary starts with {list(self._tokens[: len(RESERVED)])!r:.60}, not with {list(RESERVED)}; "
                "build it with VocabularyBuilder"
            )
        for id_, token in enumerate(self._tokens):
            if self._ids[token] != id_:
                raise VocabularyError(
                    f"the vocabulary has {token!r:.60} twice, as id {id_} and {self._ids[token]}; remove one"
                )

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens in the order of their ids."""
        return self._tokens

    @property
    def ids(self) -> Mapping[str, int]:
        """The id of every token, read-only."""
        return MappingProxyType(self._ids)

    @property
    def cleaning(self) -> tuple[str, ...]:
        """Names of the active rules of `processing.cleaner`."""
        return self._cleaning

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self._tokens, self._cleaning) == (other._tokens, other._cleaning)

    def __hash__(self) -> int:
        return hash((self._tokens, self._cleaning))

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} tokens>"


def _check_token(token: object, id_: int) -> None:
    if not isinstance(token, str):
        raise VocabularyError(
            f"the vocabulary's token {id_} is of type {type(token).__name__}; every token must be a string"
        )
    if not 0 < len(token) <= LONGEST_TOKEN_CHARS:
        raise VocabularyError(
            f"the vocabulary's token {id_} has {len(token)} characters; 1 to {LONGEST_TOKEN_CHARS} are allowed"
        )
