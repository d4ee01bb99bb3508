"""python -m src.export_hf: transformers loads the same model, tokenizer and chat template from the exported folder."""

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from src.checkpoint import LoadedModel, load_base, load_model, save_checkpoint
from src.data.prompts import OLD_TEMPLATE, TEMPLATE, Message, as_jinja, render_conversation
from src.export.card import model_card
from src.export.folder import tokenizer_config
from src.export_hf import main
from src.model.gguf_weights import gguf_fields
from src.model.gpt import GPTModel
from src.tokenizer import (
    Encoding,
    build_word_encoding,
    describe,
    encoding_fingerprint,
    learn_byte_pairs,
    load_gpt2_encoding,
    read_folder_encoding,
)
from src.tokenizer.byte_pairs import BytePairEncoding
from src.tokenizer.hugging_face import tokenizer_files
from tests.fakes import TRICKY_TEXTS

TEXTS = ["What's the capital of France?", "naïve café\n\n  two lines", "数学 {{ 7 }} {% raw %} 'quoted' \\n"]
# Of a few tokens. Files with GPT-2's 50,257 take seconds.
OWN = learn_byte_pairs(TEXTS * 9, 330)
N = len(OWN.ranks)
FOREIGN = BytePairEncoding(OWN.ranks, {"<s>": N, "<|endoftext|>": N + 1}, {"Boot": N + 2}, end_of_text=N)


def checkpoint(folder: Path, template: str | None = TEMPLATE, encoding: Encoding = OWN, **changes) -> Path:
    """A checkpoint of a small model, whose weights are far from the initial ones."""
    torch.manual_seed(0)
    size = {"vocab_size": encoding.n_vocab, "context_length": 64, "d_model": 32, "n_heads": 4, "n_layers": 3}
    model = GPTModel({**size, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    content = {"stage": "sft", "config": asdict(model.config), "model": model.state_dict(), "template": template}
    save_checkpoint(folder / "best_model.pt", {**content, "tokenizer": describe(encoding)})
    return folder / "best_model.pt"


@pytest.mark.parametrize(
    "changes", [{}, {"activation": "relu", "d_ff": 48}, {"activation": "gelu", "layer_norm_epsilon": 1e-2}]
)
def test_transformers_computes_the_same_logits(tmp_path: Path, changes: dict) -> None:
    path = checkpoint(tmp_path, **changes)
    assert main(["--model", str(path), "--out", str(tmp_path / "hf")]) == 0
    ours, _ = load_model(path)
    ids = torch.randint(OWN.n_vocab, (2, 64))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()(ids).logits
        torch.testing.assert_close(theirs, ours(ids), atol=1e-3, rtol=1e-4)


def test_exported_folder_loads_here_bit_for_bit(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, dropout=0.1)
    main(["--model", str(path), "--out", str(tmp_path / "deep/hf")])
    (ours, of_ours), (again, of_again) = load_model(path), load_model(tmp_path / "deep/hf")
    assert of_again["template"] == of_ours["template"] == TEMPLATE  # so that a chat prompts it as in tuning
    assert asdict(again.config) == {**asdict(ours.config), "dropout": 0.0}
    assert json.loads((tmp_path / "deep/hf/config.json").read_text(encoding="utf-8"))["resid_pdrop"] == 0.1
    modes = {file.stat().st_mode for file in (tmp_path / "deep/hf").iterdir()}
    assert len(modes) == 1  # all files have the same permissions
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder of a model with GPT-2's tokenizer."""
    folder = tmp_path_factory.mktemp("gpt2")
    path = checkpoint(folder, encoding=load_gpt2_encoding())
    with redirect_stdout(io.StringIO()) as printed:
        main(["--model", str(path), "--out", str(folder / "hf")])
    assert "tokenizer  GPT-2's, with the chat template\n" in printed.getvalue()
    return folder / "hf"


def test_exported_tokenizer_is_gpt2s(gpt2_folder: Path) -> None:
    theirs, ours = AutoTokenizer.from_pretrained(gpt2_folder), load_gpt2_encoding()
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours.encode_ordinary(text)
    assert (theirs.eos_token_id, theirs.model_max_length) == (ours.eot_token, 64)


def test_chat_template_takes_three_roles(exported: tuple[Encoding, Path]) -> None:
    with pytest.raises(TemplateError, match="the roles are system, user and assistant"):
        AutoTokenizer.from_pretrained(exported[1]).apply_chat_template([{"role": "tool", "content": "7"}])


def test_untuned_model_has_no_chat_template(tmp_path: Path) -> None:
    main(["--model", str(checkpoint(tmp_path, template=None)), "--out", str(tmp_path / "hf")])
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template is None
    assert load_model(tmp_path / "hf")[1]["template"] is None


def test_a_byte_pair_vocabulary_of_its_own_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"F\xc3": 256, b"F\xc3\xa4": 257, b"hr": 258, b"hre": 259}
    encoding = BytePairEncoding(ranks, {"<s>": 260, "<ende>": 261}, {"Boot": 262}, end_of_text=261)
    model = GPTModel({"vocab_size": encoding.n_vocab, "context_length": 8, "d_model": 8, "n_heads": 2, "n_layers": 1})
    content = {"stage": "sft", "config": asdict(model.config), "model": model.state_dict(), "template": TEMPLATE}
    save_checkpoint(tmp_path / "best_model.pt", {**content, "tokenizer": describe(encoding)})
    assert main(["--model", str(tmp_path / "best_model.pt"), "--out", str(tmp_path / "hf")]) == 0
    assert "tokenizer  the model's own byte pairs, with the chat template\n" in capsys.readouterr().out
    assert load_base(str(tmp_path / "hf")).metadata["tokenizer"] == describe(encoding)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (theirs.eos_token, theirs.eos_token_id) == ("<ende>", 261)
    for text in (*TEXTS, "Fähren, Fähre hrhre Boote"):
        assert theirs(text)["input_ids"] == encoding.encode_ordinary(text)


ANY_TEXT = TRICKY_TEXTS.map(lambda text: text.encode("utf-8", "replace").decode("utf-8") + " café 数学 What's")


@pytest.fixture(scope="module", params=["gpt2", "own", "foreign"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoding, Path]:
    """(the encoding of a model, the folder it was exported to)"""
    folder = tmp_path_factory.mktemp("exported")
    encoding = {"gpt2": load_gpt2_encoding(), "own": OWN, "foreign": FOREIGN}[request.param]
    (folder / "hf").mkdir()
    for name, content in tokenizer_files(encoding).items():
        (folder / "hf" / name).write_bytes(content)
    (folder / "hf" / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    config = tokenizer_config(64, TEMPLATE, encoding)
    (folder / "hf" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return encoding, folder / "hf"


@settings(max_examples=50, deadline=None)
@given(text=ANY_TEXT)
def test_transformers_and_tokenizers_have_our_ids_on_any_text(exported: tuple[Encoding, Path], text: str) -> None:
    encoding, folder = exported
    ids = encoding.encode_ordinary(text)
    for name in ("tokenizer.json", "vocab.json"):
        theirs = of_transformers(folder, name)
        assert theirs(text)["input_ids"] == ids and theirs.decode(ids, clean_up_tokenization_spaces=False) == text
    alone = of_tokenizers(folder)
    assert alone.encode(text).ids == ids and alone.decode(ids) == text


# Texts that look like parts of the template, and white space that merges with its line breaks.
PARTS = st.sampled_from(
    ["<|endoftext|>", "<s>", "### Response:\n", "\n", "\n\n", " ", "\t\u3000", "Paris.", "", "a", "'s"]
)
ODD = TRICKY_TEXTS.map(lambda text: text.encode("utf-8", "replace").decode("utf-8"))
MESSAGES = st.builds(
    Message, st.sampled_from(["system", "user", "assistant"]), st.lists(PARTS | ODD, max_size=4).map("".join)
)
CONVERSATIONS = st.lists(MESSAGES, min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(messages=CONVERSATIONS)
def test_the_chat_template_gives_the_ids_and_the_mask_of_training(
    exported: tuple[Encoding, Path], messages: list[Message]
) -> None:
    encoding, folder = exported
    theirs = of_transformers(folder, "tokenizer.json").apply_chat_template(
        [{"role": message.role, "content": message.text} for message in messages],
        return_dict=True,
        return_assistant_tokens_mask=True,
        add_generation_prompt=messages[-1].role == "user",
    )
    ids, supervised = render_conversation(messages, encoding)
    assert theirs["input_ids"] == ids
    if ids[:1] != [encoding.eot_token]:  # transformers marks everything if the first token alone is an answer
        assert [bool(mark) for mark in theirs["assistant_masks"]] == supervised


@cache
def of_transformers(folder: Path, file: str) -> Any:
    """The tokenizer that transformers loads from one of the two kinds of files in a folder."""
    copy = Path(shutil.copytree(folder, folder.with_name(file)))
    for other in {"tokenizer.json": ("vocab.json", "merges.txt"), "vocab.json": ("tokenizer.json",)}[file]:
        (copy / other).unlink()
    return AutoTokenizer.from_pretrained(copy)


@cache
def of_tokenizers(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_exported_tokenizer_loads_here_too(exported: tuple[Encoding, Path]) -> None:
    encoding, folder = exported
    again = read_folder_encoding(folder)
    assert again is not None and encoding_fingerprint(again) == encoding_fingerprint(encoding)
    theirs = of_transformers(folder, "tokenizer.json")
    assert (theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == (*[encoding.eot_token] * 2, encoding.n_vocab)
    assert (again is load_gpt2_encoding()) == (encoding is load_gpt2_encoding())


def test_word_tokenizer_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "verse.txt").write_text("Shall I compare thee to a summer's day?", encoding="utf-8")
    encoding = build_word_encoding(tmp_path / "verse.txt")
    model = GPTModel({"vocab_size": encoding.n_vocab, "context_length": 8, "d_model": 8, "n_heads": 2, "n_layers": 1})
    content = {"stage": "pretrain", "config": asdict(model.config), "model": model.state_dict(), "template": None}
    save_checkpoint(tmp_path / "best_model.pt", {**content, "tokenizer": describe(encoding)})
    assert main(["--model", str(tmp_path / "best_model.pt"), "--out", str(tmp_path / "hf")]) == 0
    assert "none: Hugging Face has no word tokenizer of this kind" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match="a GGUF file holds byte pairs, and this model has a word tokenizer; leave --gguf"
    ):
        main(["--model", str(tmp_path / "best_model.pt"), "--out", str(tmp_path / "gguf"), "--gguf", "f16"])
    assert sorted(file.name for file in (tmp_path / "hf").iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert theirs.config.eos_token_id == encoding.eot_token


@pytest.mark.parametrize("taken", ["hf", "hf.tmp"])
def test_existing_folders_are_not_overwritten(tmp_path: Path, taken: str) -> None:
    path = checkpoint(tmp_path)
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "mine").write_text("mine", encoding="utf-8")
    asked = ["--model", str(path), "--out", str(tmp_path / "hf")]
    if taken == "hf":
        with pytest.raises(FileExistsError, match="hf already exists; remove it, or pass another folder as --out"):
            main(asked)
    else:
        assert main(asked) == 0
    assert [file.name for file in (tmp_path / taken).iterdir()] == ["mine"]


def test_failed_export_leaves_nothing_and_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    path = checkpoint(tmp_path)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match=r"hf: could not be written \(No space left on device\); pass another folder"):
        main(["--model", str(path), "--out", str(tmp_path / "hf")])
    assert [file.name for file in tmp_path.iterdir()] == ["best_model.pt"]


def test_folder_below_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    with pytest.raises(OSError, match=r"best_model.pt.hf: could not be written \(.*\); pass another folder as --out"):
        main(["--model", str(path), "--out", str(path / "hf")])


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_gguf_file_has_the_same_logits_and_tokens(tmp_path: Path, kind: str) -> None:
    path = checkpoint(tmp_path)
    assert main(["--model", str(path), "--out", str(tmp_path / "gguf"), "--gguf", kind]) == 0
    name = f"model-{kind}.gguf"
    assert {file.name for file in (tmp_path / "gguf").iterdir()} == {name, "Modelfile", "README.md"}
    ours, _ = load_model(path)
    ids = torch.randint(OWN.n_vocab, (2, 64))
    sizes = {"vocab_size": OWN.n_vocab, "n_positions": 64}  # transformers does not read these: they would be GPT-2's
    file: dict[str, Any] = {"gguf_file": name, "dtype": torch.float32, **sizes}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", **file).eval()
    with torch.no_grad():
        expected, found = ours(ids), theirs(ids).logits
    assert (found - expected).std() < {"f16": 0.01, "q8_0": 0.05}[kind] * expected.std()
    with torch.no_grad():  # what we read back is what transformers reads
        torch.testing.assert_close(load_model(tmp_path / "gguf" / name)[0](ids), found, atol=1e-3, rtol=1e-4)
    assert theirs.config.eos_token_id == OWN.eot_token


@pytest.mark.parametrize("encoding", [load_gpt2_encoding(), OWN, FOREIGN], ids=["gpt2", "own", "foreign"])
def test_a_gguf_file_says_what_llama_cpp_reads(tmp_path: Path, encoding: Encoding) -> None:
    size = {"vocab_size": encoding.n_vocab + 3, "context_length": 8, "d_model": 32, "n_heads": 2, "n_layers": 1}
    model = GPTModel(size)
    content = {"stage": "sft", "config": asdict(model.config), "model": model.state_dict(), "template": TEMPLATE}
    save_checkpoint(tmp_path / "best_model.pt", {**content, "tokenizer": describe(encoding)})
    main(["--model", str(tmp_path / "best_model.pt"), "--out", str(tmp_path / "gguf"), "--gguf", "f16"])
    fields = gguf_fields(tmp_path / "gguf/model-f16.gguf")  # by the package gguf
    assert fields["general.architecture"] == fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "gpt-2" and fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["gpt2.context_length"] == 8 and fields["gpt2.feed_forward_length"] == 128
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    end = encoding.eot_token
    assert (tokens[end], kinds[end], fields["tokenizer.ggml.eos_token_id"]) == (encoding.decode([end]), 3, end)
    assert len(tokens) == size["vocab_size"] == len(set(tokens)) and kinds[-3:] == [5, 5, 5]
    base = load_base(str(tmp_path / "gguf/model-f16.gguf"))
    assert encoding_fingerprint(base.encoding) == encoding_fingerprint(encoding)
    assert base.metadata["template"] == TEMPLATE and base.model.config.context_length == 8
    for name, tensor in base.model.state_dict().items():
        stored = model.state_dict()[name]
        rounded = stored if tensor.ndim == 1 or name == "wpe.weight" else stored.half().float()
        assert torch.equal(tensor, rounded), name
    assert fields["tokenizer.chat_template"] == as_jinja(encoding, marks_answers=False)
    stop = f'PARAMETER stop "{encoding.decode([end])}"'
    assert stop in (tmp_path / "gguf/Modelfile").read_text(encoding="utf-8")


def test_what_a_gguf_file_cannot_hold_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["--model", str(checkpoint(tmp_path, activation="relu")), "--out", str(tmp_path / "gguf"), "--gguf", "f16"]
    with pytest.raises(ValueError, match="llama.cpp computes a GPT-2 with gelu_tanh, and this model has relu"):
        main(asked)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModuleNotFoundError, match="--gguf needs the package gguf: pip install gguf"):
        main(asked)
    assert not (tmp_path / "gguf").exists()


def test_the_folder_has_what_converters_read(gpt2_folder: Path) -> None:
    read = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in gpt2_folder.glob("*.json")}
    config = read["config.json"]
    assert config["architectures"] == ["GPT2LMHeadModel"]
    # llama.cpp's converter reads these, and the norm's epsilon; CTranslate2's reads the activation.
    assert [config[key] for key in ("n_ctx", "n_embd", "n_head", "n_layer")] == [64, 32, 4, 3]
    assert config["activation_function"] == "gelu_new" and config["layer_norm_epsilon"] == 1e-5
    assert read["generation_config.json"] == {
        "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 50256, "max_new_tokens": 32
    }  # fmt: skip
    assert AutoTokenizer.from_pretrained(gpt2_folder).pad_token == "<|endoftext|>"
    assert "{% generation %}" in read["tokenizer_config.json"]["chat_template"]
    assert read["tokenizer.json"]["model"]["type"] == "BPE"
    card = (gpt2_folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n") and f"| template | {TEMPLATE} |" in card


def test_the_model_card_has_lineage_data_and_losses(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    model, metadata = load_model(path)
    parent = {"path": "scratch.pt", "weights_sha256": "ab" * 32, "stage": "pretrain", "step": 9, "best_loss": 4.5}
    training = {"step": 7, "epoch": 1, "best_loss": 0.25, "settings": {"data": "my.json"}, "parent": parent}
    base = LoadedModel(model, {**metadata, **training}, load_gpt2_encoding(), path, "as requested")
    card = model_card(base)
    assert "| stage | sft, step 7 (epoch 1), best 0.2500 |" in card and "| data | my.json" in card
    assert "| comes from | scratch.pt (pretrain, step 9 (epoch ), best 4.5000), SHA-256 abababababab... |" in card
    assert "Note: other programs tokenise" not in card
    assert "Note: other programs tokenise" in model_card(replace(base, metadata={"template": OLD_TEMPLATE}))
