"""Byte pairs learned from a text: deterministic, and with the ids of `tokenizers` and of a plain implementation."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from src.tokenizer import describe, encoding_fingerprint, learn_byte_pairs, load_encoding
from src.tokenizer.byte_pairs import BytePairEncoding, Merge, byte_pairs_from_state, spelling_of
from src.tokenizer.gpt2 import SPLIT
from src.tokenizer.learning import spread_sample
from tests.fakes import TRICKY_TEXTS
from tests.repository import ROOT

TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate: 1,609 naïve 猫.\n" * 3
LETTERS = st.text(alphabet="ab cé\n'1", max_size=60)


@pytest.fixture(scope="module")
def encoding() -> BytePairEncoding:
    return learn_byte_pairs([TEXT], 310)


def plain_merges(texts: Iterable[str], n_merges: int) -> list[Merge]:
    """Sennrich et al. 2016, algorithm 1, without any optimisation; ties go to the pair with the lower ids."""
    ids = dict(learn_byte_pairs([], 257).ranks)
    words = [
        [word[i : i + 1] for i in range(len(word))]
        for text in texts
        for word in (part.encode() for part in regex.findall(SPLIT, text))
    ]
    merges: list[Merge] = []
    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in zip(word, word[1:], strict=False))
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]), default=None)
        if best is None or counts[best] < 2:
            break
        merges.append(best)
        ids[b"".join(best)] = len(ids)
        words = [merged(word, best) for word in words]
    return merges


def merged(word: list[bytes], pair: Merge) -> list[bytes]:
    result: list[bytes] = []
    for token in word:
        if result and (result[-1], token) == pair:
            result[-1:] = [b"".join(pair), b""]  # the empty token keeps it from being merged again
        else:
            result.append(token)
    return list(filter(None, result))


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(LETTERS, min_size=1, max_size=3))
def test_merges_are_those_of_the_plain_algorithm(texts: list[str]) -> None:
    expected = plain_merges(texts, 40)
    assert learn_byte_pairs(texts, 257 + 40).merges() == expected


@settings(max_examples=100, deadline=None)
@given(text=TRICKY_TEXTS)
def test_any_text_is_encoded_and_restored(encoding: BytePairEncoding, text: str) -> None:
    text = text.encode("utf-8", "replace").decode("utf-8") + " more lovely 猫"
    ids = encoding.encode_ordinary(text)
    assert encoding.decode(ids) == text
    assert encoding.eot_token not in ids
    assert ids == theirs(encoding).encode(text).ids


def theirs(encoding: BytePairEncoding) -> Tokenizer:
    """The same vocabulary in the library `tokenizers`."""
    vocabulary = {spelling_of(token): id_ for token, id_ in encoding.ranks.items()}
    merges = [(spelling_of(left), spelling_of(right)) for left, right in encoding.merges()]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_ids_are_bytes_then_merges_then_end_of_text(encoding: BytePairEncoding) -> None:
    assert (encoding.n_vocab, encoding.eot_token, encoding.decode([309])) == (310, 309, "<|endoftext|>")
    assert sorted(encoding.ranks.values()) == list(range(309))
    assert {len(token) for token, id_ in encoding.ranks.items() if id_ < 256} == {1}
    assert len(encoding.merges()) == 310 - 257
    assert "".join(encoding.decode(encoding.encode_ordinary("<|endoftext|>"))) == "<|endoftext|>"


def test_a_text_with_few_pairs_makes_a_smaller_vocabulary() -> None:
    assert learn_byte_pairs([], 300).n_vocab == 257
    assert learn_byte_pairs(["abab cd ef"], 300).merges() == [(b"a", b"b")]
    with pytest.raises(ValueError, match="a byte-pair vocabulary has at least 257 ids, got 256"):
        learn_byte_pairs([TEXT], 256)


def test_always_is_learned_too() -> None:
    assert b" Instruction" in learn_byte_pairs([TEXT], 400, always=["### Instruction:\n"] * 9).ranks


@pytest.mark.parametrize("threads", ["1", "3"])
def test_another_process_learns_the_same(threads: str) -> None:
    code = (
        "from src.tokenizer import encoding_fingerprint, learn_byte_pairs\n"
        f"print(encoding_fingerprint(learn_byte_pairs({TEXT.splitlines(True)}, 400)))"
    )
    environment = {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads, "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == encoding_fingerprint(learn_byte_pairs(TEXT.splitlines(True), 400)), done.stderr


def test_a_saved_encoding_is_used_for_the_same_text_and_size() -> None:
    first = learn_byte_pairs([TEXT], 300, always=["an example"])
    stored = load_encoding(describe(first))
    assert isinstance(stored, BytePairEncoding)
    assert learn_byte_pairs([TEXT], 300, always=["another example"] * 99, saved=stored) is stored
    assert learn_byte_pairs([TEXT + "."], 300, saved=stored) is not stored
    assert learn_byte_pairs([TEXT], 301, saved=stored) is not stored
    with pytest.raises(ValueError, match="its source is not a hash"):
        byte_pairs_from_state({**first.state(), "learned_from": 7})


@given(lengths=st.lists(st.integers(0, 9), max_size=40), limit=st.integers(1, 100))
def test_a_sample_is_spread_over_the_whole_text(lengths: list[int], limit: int) -> None:
    chunks = [f"{i:x}" * length for i, length in enumerate(lengths)]
    sample, stride = spread_sample(iter(chunks), limit)
    assert sample == chunks[::stride]
    assert sum(map(len, sample)) <= limit or len(sample) == 1
    assert stride == 1 or sum(map(len, chunks[:: stride // 2])) > limit
