"""The tokenizer in a Hugging Face folder: read as an encoding with exactly the same ids, and written."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.common.json_file import read_json_object
from src.tokenizer.byte_pair_vocabulary import (
    BytePairVocabulary,
    encoding_of,
    end_of_text_name,
    parse_merges,
    vocabulary_of,
)
from src.tokenizer.byte_pairs import bytes_of, spelling_of
from src.tokenizer.core.exceptions import VocabularyError
from src.tokenizer.gpt2 import END_OF_TEXT, load_gpt2_encoding, vocabulary_file
from src.tokenizer.protocols.interfaces import Encoding

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")  # all are the end-of-text token, as GPT-2's
_TOKENIZER, _VOCABULARY, _MERGES, _ADDED = "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"
_SETTINGS, _SPECIAL, _CONFIG = "tokenizer_config.json", "special_tokens_map.json", "config.json"
_OTHER_KINDS = ("vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
_UNSUPPORTED_MODEL_OPTIONS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


def read_folder_encoding(folder: Path) -> Encoding | None:
    """The tokenizer of a Hugging Face folder: GPT-2's if it is the same, otherwise a BytePairEncoding.

    None if the folder has no tokenizer. Raises ValueError naming the file if this project cannot reproduce its ids.
    """
    names = (_TOKENIZER, _VOCABULARY, *_OTHER_KINDS, _MERGES, _SETTINGS)
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        if file.name in _OTHER_KINDS:
            raise VocabularyError("it is of another kind than GPT-2's")
        if file.name == _SETTINGS and read_json_object(file).get("tokenizer_class", _CLASSES[0]) in _CLASSES:
            return None
        vocabulary = _read_tokenizer_json(file) if file.name == _TOKENIZER else _read_vocab_and_merges(folder)
        return encoding_of(vocabulary, list(_end_of_text(folder)))
    except (VocabularyError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, VocabularyError) else f"unexpected content: {error!r:.60}"
        raise ValueError(
            f"{file}: this tokenizer cannot be used ({reason}), and GPT-2's would give nonsense"
        ) from error


def _read_tokenizer_json(file: Path) -> BytePairVocabulary:
    content = read_json_object(file)
    model, splitter = content["model"], content.get("pre_tokenizer") or {}
    if model.get("type", "BPE") != "BPE" or content.get("normalizer") is not None:
        raise VocabularyError(f"its type is {model.get('type')!r}, or it normalises texts")
    if splitter.get("type") != "ByteLevel" or splitter.get("use_regex") is False:
        raise VocabularyError(f"it splits texts by {splitter.get('type')!r:.40}, not as GPT-2")
    if splitter.get("add_prefix_space"):
        raise VocabularyError("it adds a blank in front of every text")
    options = [name for name in _UNSUPPORTED_MODEL_OPTIONS if model.get(name)]
    if options:
        raise VocabularyError(f"it has the option {options[0]}")
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    vocabulary = BytePairVocabulary(dict(model["vocab"]), [(bytes_of(left), bytes_of(right)) for left, right in merges])
    for token in content.get("added_tokens") or ():
        vocabulary.add(token["id"], token)
    return vocabulary


def _read_vocab_and_merges(folder: Path) -> BytePairVocabulary:
    for name in (_VOCABULARY, _MERGES):
        if not (folder / name).is_file():
            raise VocabularyError(f"{name} is missing")
    merges = parse_merges((folder / _MERGES).read_bytes())
    vocabulary = BytePairVocabulary(read_json_object(folder / _VOCABULARY), merges)
    settings = _optional(folder / _SETTINGS)
    if settings.get("add_prefix_space"):
        raise VocabularyError("it adds a blank in front of every text")
    for text, id_ in _optional(folder / _ADDED).items():
        vocabulary.add(id_, {"content": text})
    for id_, token in (settings.get("added_tokens_decoder") or {}).items():
        vocabulary.add(id_, token)
    return vocabulary


def _end_of_text(folder: Path) -> Iterator[str | int | None]:
    """What may be the end-of-text token: its spelling in the settings, GPT-2's spelling, or its id in the config."""
    for name in (_SETTINGS, _SPECIAL):
        token = _optional(folder / name).get("eos_token")
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str):
            yield token
    yield END_OF_TEXT
    yield read_json_object(folder / _CONFIG).get("eos_token_id")


def _optional(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.is_file() else {}


def tokenizer_files(encoding: Encoding) -> dict[str, bytes]:
    """The files, by name, that give a Hugging Face folder this byte-pair encoding. Empty for a word tokenizer.

    Libraries read either tokenizer.json, or vocab.json and merges.txt.
    """
    vocabulary = vocabulary_of(encoding)
    if vocabulary is None:
        return {}
    if encoding is load_gpt2_encoding():
        files = {_VOCABULARY: vocabulary_file("encoder.json"), _MERGES: vocabulary_file("vocab.bpe")}
    else:
        lines = "".join(f"{merge}\n" for merge in vocabulary.spelled_merges())
        files = {_VOCABULARY: _json(vocabulary.ids), _MERGES: f"#version: 0.2\n{lines}".encode()}
    if vocabulary.added:
        files[_ADDED] = _json(vocabulary.added)
    special = _json(dict.fromkeys(SPECIAL_TOKENS, end_of_text_name(encoding)))
    return {**files, _TOKENIZER: _tokenizer_json(vocabulary), _SPECIAL: special}


def _tokenizer_json(vocabulary: BytePairVocabulary) -> bytes:
    """The content of tokenizer.json, written by the library that reads it."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.processors import ByteLevel as Offsets

    merges = [(spelling_of(left), spelling_of(right)) for left, right in vocabulary.merges]
    tokenizer = Tokenizer(BPE(vocab={**vocabulary.ids, **vocabulary.added}, merges=merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), Decoder()
    tokenizer.post_processor = Offsets(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in vocabulary.special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in vocabulary.added])
    return tokenizer.to_str(pretty=True).encode("utf-8")


def _json(content: Mapping[str, int | str]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8")
