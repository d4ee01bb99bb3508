"""Weights of other programs are read, or named for what they are with the way to convert them."""

import json
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.checkpoint import load_base, load_model
from src.model.gpt import GPTModel
from src.model.load_gpt2 import load_gpt2

SIZES = {"d_model": 64, "n_heads": 2, "n_layers": 2, "context_length": 16}
CONFIG_JSON = {"model_type": "gpt2", "vocab_size": 61, "n_positions": 16, "n_embd": 64, "n_head": 2, "n_layer": 2}


def new_model(vocab_size: int = 61, **changes: Any) -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel({"vocab_size": vocab_size, **SIZES, **changes}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def model() -> GPTModel:
    return new_model()


@pytest.fixture(params=["load_gpt2", "load_model", "load_base"])
def load(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    """--weights, --model and --base."""
    return {"load_gpt2": load_gpt2, "load_model": load_model, "load_base": lambda path: load_base(str(path))}[
        request.param
    ]


def refusal(load: Callable[[Path], object], path: Path) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        load(path)
    line = str(refused.value)
    assert line.startswith(str(path)) and "\n" not in line
    return line


# --- files


def archive(*names: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, "x")

    return write


FOREIGN_FILES: dict[str, tuple[str, bytes | Callable[[Path], object], str]] = {
    "gguf": ("model.gguf", b"GGUF\3\0\0\0", "is not a complete GGUF file"),
    "gguf by another name": ("model.pt", b"GGUF\3\0\0\0", "is not a complete GGUF file"),
    "keras": ("tf_model.h5", b"\x89HDF\r\n\x1a\n", "a Keras or TensorFlow file (HDF5); convert it"),
    "llm.c": ("gpt2_124M.bin", struct.pack("<3i", 20240326, 3, 1024), "a model of llm.c"),
    "git lfs": ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "web page": ("model.safetensors", b"\n<!DOCTYPE html><html>", "a web page, not the weights; download the file"),
    "web page with a mark": ("w.bin", b"\xef\xbb\xbf<html>", "a web page, not the weights"),
    "onnx": ("model.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX model"),
    "flax": ("flax_model.msgpack", b"\x81\xabtransformer", "a Flax model"),
    "zip": ("gpt2.zip", archive("gpt2/config.json"), "a zip archive; unpack it"),
    "zip by another name": ("gpt2.pt", archive("gpt2/config.json"), "a zip archive; unpack it"),
    "torchscript": ("model.pt", archive("m/data.pkl", "m/constants.pkl", "m/code/x.py"), "a TorchScript program"),
    "numpy": ("model.npz", lambda path: np.savez(path, a=np.ones(2)), "a NumPy archive"),
    "gzip": ("model.tar.gz", b"\x1f\x8b\x08\0", "compressed (gzip); unpack it"),
    "json": ("model.safetensors.index.json", b'{"weight_map": {}}', "JSON, not weights; pass its folder"),
}


@pytest.mark.parametrize("kind", list(FOREIGN_FILES))
def test_a_foreign_file_is_named(tmp_path: Path, load: Callable, kind: str) -> None:
    name, content, what = FOREIGN_FILES[kind]
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    assert what in refusal(load, path)
    assert "again with" not in refusal(load, path)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.bin", "model.ckpt"])
def test_a_file_is_read_whatever_its_ending(tmp_path: Path, load: Callable, model: GPTModel, name: str) -> None:
    path = tmp_path / name
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON), encoding="utf-8")
    for save in (torch.save, partial(torch.save, _use_new_zipfile_serialization=False), save_file):
        save(model.state_dict(), path)
        assert_loaded(load(path), model)


def assert_loaded(loaded: Any, model: GPTModel) -> None:
    found = loaded[0] if isinstance(loaded, tuple) else getattr(loaded, "model", loaded)
    expected = model.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_in_a_training_checkpoint_are_read(tmp_path: Path, load: Callable, model: GPTModel, key: str) -> None:
    path = tmp_path / "last.pth"
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON), encoding="utf-8")
    torch.save({key: {f"module.{k}": v for k, v in model.state_dict().items()}, "epoch": 3, "optimizer": {}}, path)
    assert_loaded(load(path), model)


def test_a_training_checkpoint_of_another_model_is_named(tmp_path: Path, load: Callable) -> None:
    torch.save({"model_state_dict": {"tok_emb.weight": torch.ones(3, 2)}}, tmp_path / "model.pth")
    assert (
        "its tensors are not those of a GPT-2; expected wte.weight, wpe.weight, ..., found tok_emb.weight"
        in refusal(load, tmp_path / "model.pth")
    )


# --- folders


def write_all(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


FOREIGN_FOLDERS: dict[str, tuple[dict[str, str], str]] = {
    "hub cache": (
        {"refs/main": "abc", "snapshots/abc/config.json": "{}", "snapshots/zzz/config.json": "{}"},
        f"is a model in the hub's cache; pass the folder {{folder}}{'/'}snapshots/abc",
    ),
    "tensorflow": ({"tf_model.h5": "", "config.json": "{}"}, "is a TensorFlow model; convert it with transformers"),
    "openai's files": ({"hparams.json": "{}", "model.ckpt.index": ""}, "is a TensorFlow model; convert it"),
    "flax": ({"flax_model.msgpack": "", "config.json": "{}"}, "is a Flax model"),
    "gguf": ({"a.gguf": ""}, "is a folder with GGUF a.gguf; pass that file"),
    "a part": ({"model-00001-of-00002.safetensors": ""}, "is a folder with model-00001-of-00002.safetensors, a part"),
    "nanogpt's out": ({"ckpt.pt": ""}, "is a folder with the file ckpt.pt; pass that file"),
}


@pytest.mark.parametrize("kind", list(FOREIGN_FOLDERS))
def test_a_foreign_folder_is_named(tmp_path: Path, load: Callable, kind: str) -> None:
    files, what = FOREIGN_FOLDERS[kind]
    folder = write_all(tmp_path / "folder", files)
    assert what.format(folder=folder) in refusal(load, folder)


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path, load: Callable, model: GPTModel) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON), encoding="utf-8-sig")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert_loaded(load(tmp_path), model)


# --- nanoGPT


def nanogpt_checkpoint(model: GPTModel, *, bias: bool = True, padded: int = 0, **changes: Any) -> dict[str, Any]:
    """A checkpoint as nanoGPT's train.py saves it for a compiled model."""
    weights = {f"_orig_mod.transformer.{name}": tensor for name, tensor in model.state_dict().items()}
    embedding = torch.cat([model.wte.weight.detach(), torch.ones(padded, model.config.d_model)])
    weights |= {"_orig_mod.transformer.wte.weight": embedding, "_orig_mod.lm_head.weight": embedding}
    c = model.config
    args = {
        "n_layer": c.n_layers,
        "n_head": c.n_heads,
        "n_embd": c.d_model,
        "block_size": c.context_length,
        "bias": bias,
        "vocab_size": c.vocab_size + padded,
        "dropout": 0.0,
    }
    return {
        "model": {name: tensor for name, tensor in weights.items() if bias or not name.endswith("bias")},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}]},
        "model_args": args | changes,
        "iter_num": 250,
        "best_val_loss": torch.tensor(3.2),
        "config": {"out_dir": "out", "always_save_checkpoint": True},
    }


@pytest.mark.parametrize(("bias", "padded"), [(True, 0), (False, 47)])
def test_a_checkpoint_of_nanogpt_is_read(tmp_path: Path, load: Callable, bias: bool, padded: int) -> None:
    model = new_model(50257, d_model=8, n_heads=2, activation="gelu")
    torch.save(nanogpt_checkpoint(model, bias=bias, padded=padded), tmp_path / "ckpt.pt")
    if not bias:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.zero_() if name.endswith("bias") else None
    loaded = load(tmp_path / "ckpt.pt")
    assert_loaded(loaded, model)
    found = loaded[0] if isinstance(loaded, tuple) else getattr(loaded, "model", loaded)
    assert found.config == model.config  # with the exact GELU, which nanoGPT computes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vocab_size": 65}, "this nanoGPT model has 65 token ids, so it was trained with a tokenizer of its own"),
        ({"n_layer": None}, "nanoGPT's model_args has no valid n_layer"),
        ({"n_embd": 2**62}, "impossible sizes"),
        ({"n_layer": 2**62}, "layers, but only 29 tensors"),
        ({"n_head": 3}, "n_heads must divide d_model"),
        ({"block_size": 17}, "wpe.weight has shape (16, 8); the config requires (17, 8)"),
    ],
)
def test_an_unusable_checkpoint_of_nanogpt_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    model = new_model(50257, d_model=8, n_heads=2)
    torch.save(nanogpt_checkpoint(model, **changes), tmp_path / "ckpt.pt")
    assert reason in refusal(load_gpt2, tmp_path / "ckpt.pt")


# --- hostile sizes and tensors


@pytest.mark.parametrize("key", ["vocab_size", "n_positions", "n_embd", "n_head", "n_layer", "n_inner"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 2**63, 2**64, 10**40, True, 1.0, "64", [64], {}])
def test_impossible_sizes_are_refused_in_one_line(tmp_path: Path, model: GPTModel, key: str, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON | {key: value}), encoding="utf-8")
    if not (tmp_path / "model.safetensors").exists():
        save_file({k: v for k, v in list(model.state_dict().items())}, tmp_path / "model.safetensors")
    assert refusal(load_gpt2, tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' * 100_000, '{"n_embd": ' + "9" * 5000 + "}", '"text"', "\ud800"]
)
def test_a_hostile_json_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    save_file({"wte.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    assert "; download it again" in refusal(load_gpt2, tmp_path)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(1, 1).expand(2**18, 2**18), "has memory for less than that"),
        (torch.eye(4).to_sparse(), "contains a sparse"),
        (torch.zeros(3, device="meta"), "contains a sparse, nested, quantized or meta tensor"),
        ([1.0], "is a list; expected only named tensors"),
    ],
    ids=["expanded", "sparse", "meta", "list"],
)
def test_a_strange_tensor_is_refused_before_it_takes_memory(tmp_path: Path, tensor: Any, reason: str) -> None:
    torch.save({"wpe.weight": torch.ones(2), "wte.weight": tensor}, tmp_path / "model.bin")
    assert reason in refusal(load_gpt2, tmp_path / "model.bin")


def test_views_of_one_memory_cannot_claim_more_than_the_file(tmp_path: Path) -> None:
    shared = torch.zeros(10_000)
    torch.save({f"h.{i}.x": shared.view(10_000) for i in range(100)}, tmp_path / "model.bin")
    assert "holds tensors that are larger than the file" in refusal(load_gpt2, tmp_path / "model.bin")
