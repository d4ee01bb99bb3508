"""The tokenizer in a checkpoint: describe it, load it, verify it. And a word tokenizer from a text."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from src.common.messages import one_line
from src.tokenizer.byte_pairs import byte_pairs_from_state
from src.tokenizer.core.exceptions import TokenizerError, VocabularyError
from src.tokenizer.gpt2 import load_gpt2_encoding
from src.tokenizer.processing.file_reader import read_chunks
from src.tokenizer.protocols.interfaces import Encoding, Storable
from src.tokenizer.tokenizers.factory import create_tokenizer
from src.tokenizer.tokenizers.with_unknown import TokenizerWithUnknown
from src.tokenizer.vocabulary.builder import VocabularyBuilder
from src.tokenizer.vocabulary.storage import vocabulary_from_state

_TRAIN_AGAIN = "use an undamaged checkpoint, or train again with python main.py"


def describe(encoding: Encoding) -> dict[str, Any]:
    """The description of a tokenizer in a checkpoint. `load_encoding` rebuilds the tokenizer from it."""
    description = {"name": encoding.name, "fingerprint": encoding_fingerprint(encoding)}
    return {**description, "state": encoding.state()} if isinstance(encoding, Storable) else description


def load_encoding(description: Mapping[str, Any] | None) -> Encoding:
    """Return the tokenizer that `describe` described. None, as for converted weights, means GPT-2's.

    The whole description is verified. Raises a one-line ValueError if it is damaged or unknown.
    """
    if description is None:
        return load_gpt2_encoding()
    if not isinstance(description, Mapping):
        raise VocabularyError(
            f"a tokenizer's description must be a mapping, got {type(description).__name__}; {_TRAIN_AGAIN}"
        )
    name, expected = description.get("name"), description.get("fingerprint")
    try:
        encoding = _encoding(name, description.get("state"))
    except TokenizerError as error:
        problem = one_line(error)  # a tensor in place of a name, for example, is printed on several lines
        raise VocabularyError(f"the tokenizer in this checkpoint is damaged: {problem}; {_TRAIN_AGAIN}") from None
    found = encoding_fingerprint(encoding)
    if expected != found and not (name == "gpt2" and expected is None):
        raise VocabularyError(
            f"the tokenizer in this checkpoint is damaged: its fingerprint is {found[:12]}..., not the stated one; "
            f"{_TRAIN_AGAIN}"
        )
    return encoding


def _encoding(name: object, state: object) -> Encoding:
    if name == "gpt2":
        return load_gpt2_encoding()
    if name not in ("word", "byte_pairs"):
        raise VocabularyError(f"there is no tokenizer {name!r:.60}, only 'gpt2', 'word' and 'byte_pairs'")
    if not isinstance(state, Mapping):
        raise VocabularyError("its vocabulary is missing")
    if name == "byte_pairs":
        return byte_pairs_from_state(state)
    return create_tokenizer(state.get("kind", ""), vocabulary_from_state(state))


@cache  # 50,257 tokens take 0.1 s, and a script needs the hash for each file that it opens
def encoding_fingerprint(encoding: Encoding) -> str:
    """SHA-256 of the bytes of all tokens in order: equal if and only if two encodings decode every id alike."""
    digest = hashlib.sha256()
    for token in range(encoding.n_vocab):
        try:
            spelling = encoding.decode_single_token_bytes(token)
        except KeyError:  # an unused id
            spelling = b""
        digest.update(len(spelling).to_bytes(4, "little") + spelling)
    return digest.hexdigest()


def build_word_encoding(path: Path, always: Iterable[str] = ()) -> TokenizerWithUnknown:
    """A word tokenizer with all words of a text file, the most frequent ones first.

    always: texts whose tokens are added even if the file lacks them, such as the headings of the prompt template.
    The file may be larger than memory. Raises the errors of `read_chunks`.
    """
    return word_encoding_of(read_chunks(Path(path)), always)


def word_encoding_of(chunks: Iterable[str], always: Iterable[str] = ()) -> TokenizerWithUnknown:
    """The same from a text that is already read, in chunks that end after a line break or a space."""
    builder = VocabularyBuilder(always=always)
    for chunk in chunks:
        builder.add(chunk)
    return TokenizerWithUnknown(builder.build())
