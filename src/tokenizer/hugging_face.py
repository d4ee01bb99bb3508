"""The tokenizer in a Hugging Face folder: read as an encoding with exactly the same ids, and written."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.common.json_file import read_json_object
from src.tokenizer.byte_pairs import BytePairEncoding, Merge, bytes_of, require_exact_merges, spelling_of
from src.tokenizer.core.exceptions import VocabularyError
from src.tokenizer.gpt2 import END_OF_TEXT, load_gpt2_encoding, vocabulary_file
from src.tokenizer.protocols.interfaces import Encoding

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")  # all are the end-of-text token, as GPT-2's
_SETTINGS, _SPECIAL, _CONFIG = "tokenizer_config.json", "special_tokens_map.json", "config.json"
_GGUF_NORMAL, _GGUF_CONTROL, _GGUF_ADDED = 1, 3, 4  # kinds of token; other kinds are no text
_FAST, _VOCABULARY, _MERGES, _ADDED = "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"
_OTHER_KINDS = ("vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
_UNSUPPORTED_MODEL_OPTIONS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


@dataclass
class Vocabulary:
    """ids: of spelled tokens. special: tokens that no text encodes to. added: tokens found before any merge."""

    ids: dict[str, int]
    merges: list[Merge]
    special: dict[str, int] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)

    def add(self, id_: Any, token: Any) -> None:
        """Add one of `added_tokens`: its text, or a mapping with its text and how it is matched."""
        token = token if isinstance(token, Mapping) else {"content": token, "special": True}
        text = str(token["content"])
        if token.get("special"):
            self.special[text] = int(id_)
        elif any(token.get(option) for option in ("lstrip", "rstrip", "single_word")):
            raise VocabularyError(f"its added token {text!r:.40} takes in the white space around it")
        else:
            self.added[text] = int(id_)

    def spelled_merges(self) -> list[str]:
        """The merges as merges.txt has them: two spelled tokens, with a space between them."""
        return [f"{spelling_of(left)} {spelling_of(right)}" for left, right in self.merges]


def read_folder_encoding(folder: Path) -> Encoding | None:
    """The tokenizer of a Hugging Face folder: GPT-2's if it is the same, otherwise a BytePairEncoding.

    None if the folder has no tokenizer. Raises ValueError naming the file if this project cannot reproduce its ids.
    """
    names = (_FAST, _VOCABULARY, *_OTHER_KINDS, _MERGES, _SETTINGS)
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        if file.name in _OTHER_KINDS:
            raise VocabularyError("it is of another kind than GPT-2's")
        if file.name == _SETTINGS and read_json_object(file).get("tokenizer_class", _CLASSES[0]) in _CLASSES:
            return None
        vocabulary = _read_fast(file) if file.name == _FAST else _read_slow(folder)
        return _encoding(vocabulary, _end_of_text_names(folder), read_json_object(folder / _CONFIG))
    except (VocabularyError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, VocabularyError) else f"unexpected content: {error!r:.60}"
        raise ValueError(
            f"{file}: this tokenizer cannot be used ({reason}), and GPT-2's would give nonsense"
        ) from error


def gguf_encoding(fields: Mapping[str, Any], source: str) -> Encoding:
    """The tokenizer in the fields of a GGUF file. Raises ValueError if this project cannot reproduce its ids."""
    prefix = "tokenizer.ggml."
    try:
        if (fields[f"{prefix}model"], fields.get(f"{prefix}pre", "gpt-2")) != ("gpt2", "gpt-2"):
            raise VocabularyError(f"it is of the kind {fields[f'{prefix}model']!r:.40}, {fields[f'{prefix}pre']!r:.40}")
        tokens, kinds = fields[f"{prefix}tokens"], fields[f"{prefix}token_type"]
        by_kind: dict[int, dict[str, int]] = {kind: {} for kind in (_GGUF_NORMAL, _GGUF_CONTROL, _GGUF_ADDED)}
        for id_, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
            by_kind.setdefault(kind, {})[token] = id_
        pairs = [merge.split(" ") for merge in fields[f"{prefix}merges"]]
        vocabulary = Vocabulary(
            by_kind[_GGUF_NORMAL],
            [(bytes_of(left), bytes_of(right)) for left, right in pairs],
            by_kind[_GGUF_CONTROL],
            by_kind[_GGUF_ADDED],
        )
        return _encoding(vocabulary, iter(()), {"eos_token_id": fields[f"{prefix}eos_token_id"]})
    except (VocabularyError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, VocabularyError) else f"unexpected content: {error!r:.60}"
        raise ValueError(f"{source}: its tokenizer cannot be used ({reason})") from error


def byte_pair_vocabulary(encoding: Encoding) -> Vocabulary | None:
    """The vocabulary of a byte-pair encoding. None for a word tokenizer."""
    if encoding is load_gpt2_encoding():
        ids = json.loads(vocabulary_file("encoder.json"))
        return Vocabulary(ids, _merges(vocabulary_file("vocab.bpe")), {END_OF_TEXT: encoding.eot_token})
    if not isinstance(encoding, BytePairEncoding):
        return None
    ids = {**{spelling_of(token): id_ for token, id_ in encoding.ranks.items()}, **encoding.special}
    return Vocabulary(ids, encoding.merges(), encoding.special, encoding.added)


def tokenizer_files(encoding: Encoding) -> dict[str, bytes]:
    """The files, by name, that give a Hugging Face folder this byte-pair encoding. Empty for a word tokenizer.

    Libraries read either tokenizer.json, or vocab.json and merges.txt.
    """
    vocabulary = byte_pair_vocabulary(encoding)
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
    return {**files, _FAST: _fast(vocabulary), _SPECIAL: special}


def end_of_text_name(encoding: Encoding) -> str:
    """The spelling of a byte-pair encoding's end-of-text token."""
    return encoding.decode([encoding.eot_token])


def _fast(vocabulary: Vocabulary) -> bytes:
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


def _read_fast(file: Path) -> Vocabulary:
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
    vocabulary = Vocabulary(dict(model["vocab"]), [(bytes_of(left), bytes_of(right)) for left, right in merges])
    for token in content.get("added_tokens") or ():
        vocabulary.add(token["id"], token)
    return vocabulary


def _read_slow(folder: Path) -> Vocabulary:
    for name in (_VOCABULARY, _MERGES):
        if not (folder / name).is_file():
            raise VocabularyError(f"{name} is missing")
    merges = _merges((folder / _MERGES).read_bytes())
    vocabulary = Vocabulary(read_json_object(folder / _VOCABULARY), merges)
    settings = _optional(folder / _SETTINGS)
    if settings.get("add_prefix_space"):
        raise VocabularyError("it adds a blank in front of every text")
    for text, id_ in _optional(folder / _ADDED).items():
        vocabulary.add(id_, {"content": text})
    for id_, token in (settings.get("added_tokens_decoder") or {}).items():
        vocabulary.add(id_, token)
    return vocabulary


def _merges(content: bytes) -> list[Merge]:
    """The pairs in a merges.txt, one per line."""
    lines = content.decode("utf-8-sig", "replace").split("\n")
    pairs = [line.rstrip("\r").split(" ") for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise VocabularyError(f"{_MERGES} has a line that is not a pair")
    return [(bytes_of(left), bytes_of(right)) for left, right in pairs]


def _encoding(vocabulary: Vocabulary, end_names: Iterator[str], config: Mapping[str, Any]) -> Encoding:
    """The encoding of a vocabulary. GPT-2's own is returned if only special tokens differ."""
    if any(type(id_) is not int for id_ in vocabulary.ids.values()):
        raise VocabularyError("its ids are not whole numbers")
    ranks, special = _ranks_and_special_tokens(vocabulary)
    added = {text: id_ for text, id_ in vocabulary.added.items() if text not in special}
    ends = [special[name] for name in end_names if name in special]
    end = next((id_ for id_ in (*ends, config.get("eos_token_id")) if id_ in special.values()), None)
    if end is None:
        raise VocabularyError("it has no end-of-text token")
    gpt2 = load_gpt2_encoding()
    same = ranks == gpt2._mergeable_ranks and vocabulary.merges == _merges(vocabulary_file("vocab.bpe"))
    if same and not added and end == gpt2.eot_token:
        return gpt2
    if not same:
        require_exact_merges(ranks, vocabulary.merges)
    return BytePairEncoding(ranks, special, added, end)


def _ranks_and_special_tokens(vocabulary: Vocabulary) -> tuple[dict[bytes, int], dict[str, int]]:
    """(the ids of the tokens that text is merged into, the ids of the tokens that no text encodes to).

    Raises VocabularyError if merges are missing.
    """
    results = {left + right for left, right in vocabulary.merges}
    ranks, special = {}, dict(vocabulary.special)
    for text, id_ in vocabulary.ids.items():
        if text in special or text in vocabulary.added:
            continue
        token = bytes_of(text)
        if len(token) == 1 or token in results:
            ranks[token] = id_
        else:  # nothing merges to it
            special[text] = id_
    unreachable = len(special) - len(vocabulary.special)
    if unreachable > 16 + len(vocabulary.ids) // 100:  # more than a vocabulary has of special tokens
        raise VocabularyError(f"no merge makes {unreachable} of its tokens, so merges are missing")
    return ranks, special


def _end_of_text_names(folder: Path) -> Iterator[str]:
    for name in (_SETTINGS, _SPECIAL):
        token = _optional(folder / name).get("eos_token")
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str):
            yield token
    yield END_OF_TEXT


def _optional(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.is_file() else {}
