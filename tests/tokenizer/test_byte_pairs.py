"""A Hugging Face folder's own vocabulary gives the ids that `tokenizers` gives, or is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from src.tokenizer import Encoding, describe, load_encoding, load_gpt2_encoding, read_folder_encoding
from src.tokenizer.byte_pairs import BytePairEncoding
from src.tokenizer.gpt2 import vocabulary_file
from tests.fakes import TRICKY_TEXTS

TEXT = [
    "Der Fährmann fährt über den Fluss, und die Fähre fährt zurück. " * 3,
    "aaaa aaa aa a abab ababab  bb\n\n\tif (x == 10): 1234 12 'll don't",
    "Größe 猫 🐈 e\u0301\u200b " * 2,
]


def trained(size: int = 420, special: tuple[str, ...] = ("<|endoftext|>",), **options: Any) -> Tokenizer:
    """A byte-level BPE tokenizer, trained as Hugging Face's course does it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*special], initial_alphabet=alphabet, show_progress=False, **options
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def write(folder: Path, tokenizer: Tokenizer, eos: int | None = 0, slow: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": eos}), encoding="utf-8")
    tokenizer.model.save(str(folder)) if slow else tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def theirs() -> Tokenizer:
    tokenizer = trained(special=("<s>", "</s>", "<|endoftext|>"))
    tokenizer.add_tokens(["Fähre", "Fähren", AddedToken("<user>", normalized=False)])
    return tokenizer


@pytest.fixture(scope="module")
def ours(theirs: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Encoding:
    found = read_folder_encoding(write(tmp_path_factory.mktemp("folder") / "model", theirs))
    assert isinstance(found, BytePairEncoding)
    return found


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@settings(max_examples=100, deadline=None)
@given(text=TRICKY_TEXTS)
def test_ids_equal_those_of_tokenizers(theirs: Tokenizer, ours: Encoding, text: str) -> None:
    text = text.encode("utf-8", "replace").decode("utf-8") + " Die Fähren fähren <user>Fähre abababab"
    if any(name in text for name in ("<s>", "</s>")):
        return
    ids = ours.encode_ordinary(text)
    assert ids == ids_of(theirs, text)
    assert ours.decode(ids) == text


def test_special_tokens_are_ordinary_text(theirs: Tokenizer, ours: Encoding) -> None:
    assert ours.eot_token == theirs.token_to_id("<|endoftext|>")
    assert ours.eot_token not in ours.encode_ordinary("a<|endoftext|>b</s>")
    assert ours.decode(ours.encode_ordinary("a<|endoftext|>b")) == "a<|endoftext|>b"
    assert ours.n_vocab == theirs.get_vocab_size()


def test_a_checkpoint_stores_the_whole_vocabulary(ours: Encoding) -> None:
    description = describe(ours)
    again = load_encoding(json.loads(json.dumps(description)))
    text = TEXT[0] + " Fähren <user>"
    assert again.encode_ordinary(text) == ours.encode_ordinary(text)
    assert (again.eot_token, again.n_vocab) == (ours.eot_token, ours.n_vocab)
    for damage in ({"tokens": 1}, {"end_of_text": 5}, {"special": {"<s>": "0"}}, {"tokens": "a\nb"}, {"added": None}):
        with pytest.raises(ValueError, match="the tokenizer in this checkpoint is damaged"):
            load_encoding({**description, "state": {**description["state"], **damage}})


def test_vocab_json_and_merges_are_read_alike(tmp_path: Path) -> None:
    tokenizer = trained()
    ours = read_folder_encoding(write(tmp_path, tokenizer, slow=True))
    assert isinstance(ours, BytePairEncoding)
    for text in TEXT:
        assert ours.encode_ordinary(text) == ids_of(tokenizer, text)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match="vocab.json: this tokenizer cannot be used .merges.txt is missing"):
        read_folder_encoding(tmp_path)


def gpt2_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "vocab.json").write_bytes(vocabulary_file("encoder.json"))
    (folder / "merges.txt").write_bytes(vocabulary_file("vocab.bpe"))
    return folder


def test_gpt2s_own_vocabulary_is_gpt2s_encoding(tmp_path: Path) -> None:
    assert read_folder_encoding(tmp_path) is None
    folder = gpt2_folder(tmp_path)
    assert read_folder_encoding(folder) is load_gpt2_encoding()
    padding = {"50257": {"content": "<pad>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": padding}), encoding="utf-8")
    assert read_folder_encoding(folder) is load_gpt2_encoding()
    (folder / "added_tokens.json").write_text('{"Fähre": 50258}', encoding="utf-8")
    with_words = read_folder_encoding(folder)
    assert with_words is not None and with_words.encode_ordinary("Eine Fähre")[-1] == 50258


def with_(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(changes)


UNUSABLE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "normaliser": (with_(normalizer=json.loads(normalizers.NFKC().__getstate__())), "or it normalises texts"),
    "word pieces": (lambda c: c["model"].update(type="WordPiece"), "its type is 'WordPiece'"),
    "unigram": (with_(model={"type": "Unigram", "vocab": [["a", -1.0]]}), "its type is 'Unigram'"),
    "other split": (with_(pre_tokenizer={"type": "Whitespace"}), "it splits texts by 'Whitespace', not as GPT-2"),
    "prefix space": (lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "it adds a blank in front"),
    "suffix": (lambda c: c["model"].update(end_of_word_suffix="</w>"), "it has the option end_of_word_suffix"),
    "order": (lambda c: c["model"]["merges"].reverse(), "its ids are not in the order of its merges"),
    "a byte is missing": (lambda c: c["model"]["vocab"].pop("A"), "lacks 1 of the 256 single bytes"),
    "no end": (lambda c: [c["model"]["vocab"].pop("<|endoftext|>"), c.update(added_tokens=[])], "no end-of-text token"),
    "an id twice": (lambda c: c["model"]["vocab"].update(A=5), "has an id twice"),
    "ids are texts": (lambda c: c["model"]["vocab"].update(A="5"), "its ids are not whole numbers"),
    "no model": (lambda c: c.pop("model"), "unexpected content"),
    "merges are numbers": (lambda c: c["model"].update(merges=[1, 2]), "unexpected content"),
    "strips": (
        lambda c: c["added_tokens"].append({"id": 900, "content": "x", "lstrip": True, "special": False}),
        "its added token 'x' takes in the white space around it",
    ),
}


@pytest.mark.parametrize("kind", list(UNUSABLE))
def test_a_tokenizer_that_cannot_be_reproduced_is_refused(tmp_path: Path, kind: str) -> None:
    change, reason = UNUSABLE[kind]
    folder = write(tmp_path, trained(), eos=None)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError) as refused:
        read_folder_encoding(folder)
    line = str(refused.value)
    assert line.startswith(f"{folder / 'tokenizer.json'}: this tokenizer cannot be used (") and "\n" not in line
    assert reason in line and line.endswith("and GPT-2's would give nonsense")


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model"])
def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[PAD]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{name}: this tokenizer cannot be used .it is of another kind than GPT-2's"):
        read_folder_encoding(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "vocab.json").unlink(), "merges.txt: .*vocab.json is missing"),
        (lambda folder: cut(folder / "merges.txt", 9), "vocab.json: .*no merge makes [0-9]+ of its tokens, so"),
        (lambda folder: only_settings(folder, "BertTokenizer"), "tokenizer_config.json: .*vocab.json is missing"),
    ],
)
def test_an_incomplete_tokenizer_is_refused(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    change(write(tmp_path, trained(560), slow=True))
    with pytest.raises(ValueError, match=message):
        read_folder_encoding(tmp_path)


def test_settings_of_gpt2s_tokenizer_are_not_a_tokenizer(tmp_path: Path) -> None:
    only_settings(tmp_path, "GPT2TokenizerFast")
    assert read_folder_encoding(tmp_path) is None


def cut(file: Path, lines: int) -> None:
    file.write_text("\n".join(file.read_text(encoding="utf-8").split("\n")[:lines]), encoding="utf-8")


def only_settings(folder: Path, name: str) -> None:
    for file in ("vocab.json", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}), encoding="utf-8")
