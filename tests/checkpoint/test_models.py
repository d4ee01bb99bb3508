"""Models are loaded from checkpoints and Hugging Face files with the same values, or refused in one line."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import main
from src.checkpoint import (
    BEST,
    LATEST,
    load_base,
    load_checkpoint,
    load_model,
    save_checkpoint,
    saved_config,
    weights_sha256,
)
from src.model.gpt import GPTModel
from src.tokenizer import describe, load_gpt2_encoding
from src.tokenizer.gpt2 import printable_bytes
from src.training.optim import make_adamw
from tests.checkpoint.small_checkpoint import IDS, TOKENIZER, description, new_model, refusal, same_weights

ORDER = ("dpo", "sft", "scratch")


def test_a_checkpoint_round_trips(best: Path, model: GPTModel) -> None:
    loaded, metadata = load_model(best)
    assert same_weights(loaded, model)
    assert not loaded.training
    assert loaded.config == model.config
    expected = {key: value for key, value in description(model).items() if key != "model"}
    assert {key: metadata[key] for key in expected} == expected
    assert "model" not in metadata
    with torch.no_grad():
        assert torch.equal(loaded(IDS), model(IDS))


def test_a_loaded_model_can_be_trained(best: Path, model: GPTModel) -> None:
    before = best.read_bytes()
    loaded, _ = load_model(best)
    optimizer = make_adamw(loaded, max_lr=0.1, weight_decay=0.1)
    loaded(IDS).sum().backward()
    optimizer.step()
    assert not same_weights(loaded, model)
    assert best.read_bytes() == before  # although the weights are mapped from the file


# --- refused files


def rewrite(best: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The valid checkpoint with a change to its content, saved with the right digests."""
    content = torch.load(best, weights_only=True)
    change(content)
    save_checkpoint(best, content)
    return best


def without_weight(content: dict[str, Any]) -> None:
    del content["model"]["h.1.ln_2.bias"]


WRONG_TENSORS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (without_weight, "missing tensor h.1.ln_2.bias"),
    (lambda c: c["model"].update(lm_head=torch.zeros(3)), "unknown tensor lm_head"),
    (lambda c: c["model"].update({"lm_head": torch.zeros(3), 7: torch.zeros(3)}), "unknown tensor 7"),
    (
        lambda c: c["model"].update({"ln_f.bias": torch.zeros(63)}),
        "ln_f.bias is torch.float32 (63,), expected float (64,)",
    ),
    (
        lambda c: c["model"].update({"ln_f.bias": torch.zeros(64, dtype=torch.int64)}),
        "ln_f.bias is torch.int64 (64,), expected float (64,)",
    ),
    (lambda c: c["model"].update({"ln_f.bias": [0.0] * 64}), "ln_f.bias is list, expected float (64,)"),
    (lambda c: c["model"]["wpe.weight"].view(-1)[5].fill_(float("nan")), "wpe.weight has values that are not finite"),
    (lambda c: c["model"]["ln_f.bias"][-1:].fill_(-float("inf")), "ln_f.bias has values that are not finite"),
    (lambda c: c.update(model=[1, 2]), "contains no model"),
    (lambda c: c.pop("model"), "contains no model"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG_TENSORS, ids=[reason for _, reason in WRONG_TENSORS])
def test_weights_that_do_not_fit_the_model_are_refused(best: Path, change: Callable, reason: str) -> None:
    rewrite(best, change)
    assert reason in refusal(load_model, best)
    model = new_model(3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as refused:
        load_checkpoint(best, model)
    assert str(refused.value).startswith(f"{best}: {reason}; ") and "\n" not in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("vocab_size", 10**12, "wte.weight is torch.float32 (61, 64), expected float (1000000000000, 64)"),
        ("context_length", 10**12, "wpe.weight is torch.float32 (16, 64), expected float (1000000000000, 64)"),
        ("d_ff", 10**12, "h.0.mlp.c_fc.weight is torch.float32 (256, 64), expected float (1000000000000, 64)"),
        ("vocab_size", 10**18, "model config: impossible sizes ("),
        ("vocab_size", 10**30, "model config: impossible sizes ("),
        ("n_layers", 10**9, "model config: 1000000000 layers, but only 28 tensors"),
        ("n_layers", 3, "missing tensor h.2.attn.c_attn.bias"),
        ("n_heads", 7, "model config: n_heads must divide d_model, got d_model 64 and n_heads 7"),
        ("vocab_size", "61", "model config: vocab_size must be a whole number of at least 1, got '61'"),
        ("d_model", None, "model config: d_model must be a whole number of at least 1, got None"),
        ("n_layers", 2.0, "model config: n_layers must be a whole number of at least 1, got 2.0"),
        ("n_layers", torch.zeros(2, 2), "model config: n_layers must be a whole number of at least 1, got tensor("),
        ("dropout", float("nan"), "model config: dropout must be in [0, 1), got nan"),
        pytest.param("dropout", 10**400, "model config: dropout must be in [0, 1), got 1000", id="dropout-10**400"),
        ("n_kv_heads", 1, "model config: unknown key 'n_kv_heads'"),
        (3, 1, "model config: unknown key 3"),
    ],
)
def test_a_bogus_config_is_refused_before_memory_is_allocated(
    best: Path, entry: object, value: object, reason: str
) -> None:
    assert reason in refusal(load_model, rewrite(best, lambda content: content["config"].update({entry: value})))


@pytest.mark.parametrize("config", [None, [1], "tiny", {}])
def test_a_checkpoint_without_a_config_is_refused(best: Path, config: object) -> None:
    line = refusal(load_model, rewrite(best, lambda content: content.update(config=config)))
    assert ("missing context_length" if config == {} else "contains no model") in line


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_dtypes_become_float32(best: Path, model: GPTModel, dtype: torch.dtype) -> None:
    rewrite(best, lambda content: content.update(model={k: v.to(dtype) for k, v in content["model"].items()}))
    loaded, _ = load_model(best)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded.wte.weight, model.wte.weight, atol=1e-2, rtol=1e-2)


# --- Hugging Face files and folders


def hugging_face(model: GPTModel) -> dict[str, torch.Tensor]:
    """The model's weights as Hugging Face stores GPT-2, with transposed matrices."""
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {k: (v.t() if k.endswith(transposed) else v).contiguous() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("name", ["", "model.safetensors", "weights.safetensors", "pytorch_model.bin"])
def test_hugging_face_folders_and_weights_files_are_loaded(tmp_path: Path, model: GPTModel, name: str) -> None:
    config = {"model_type": "gpt2", "vocab_size": 61, "n_positions": 16, "n_embd": 64, "n_head": 1, "n_layer": 2}
    if not name:  # the folder
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if name.endswith(".bin"):
        torch.save(hugging_face(model), tmp_path / name)
    else:
        save_file(hugging_face(model), tmp_path / (name or "model.safetensors"))
    loaded, metadata = load_model(tmp_path / name)
    assert same_weights(loaded, model)
    assert not loaded.training
    assert (metadata["stage"], metadata["template"], metadata["tokenizer"]) == ("pretrained", None, None)
    assert metadata["config"] == asdict(loaded.config)
    base = load_base(str(tmp_path / name), ORDER)
    assert base.encoding is load_gpt2_encoding()
    assert same_weights(base.model, model)
    assert base.parent["path"] == str(tmp_path / name)
    assert base.parent["weights_sha256"] == weights_sha256(model.state_dict())


def test_sizes_are_read_without_the_weights(tmp_path: Path, model: GPTModel) -> None:
    save_checkpoint(tmp_path / "ours.pt", {**description(model), "model": {}})
    assert saved_config(tmp_path / "ours.pt") == model.config
    theirs = hugging_face_folder(tmp_path, vocab_size=260)
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    assert saved_config(tmp_path) == theirs.config
    (tmp_path / "config.json").write_text("{")
    assert saved_config(tmp_path) is saved_config(tmp_path / "missing") is None


def hugging_face_folder(folder: Path, vocab_size: int) -> GPTModel:
    model = new_model(vocab_size=vocab_size)
    config = {"model_type": "gpt2", "vocab_size": vocab_size, "n_positions": 16, "n_embd": 64, "n_head": 1}
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 2, "eos_token_id": 0}), encoding="utf-8")
    save_file(hugging_face(model), folder / "model.safetensors")
    return model


def test_a_folder_with_its_own_vocabulary_is_read_with_it(tmp_path: Path) -> None:
    hugging_face_folder(tmp_path, vocab_size=260)
    spellings = ["<|endoftext|>", *printable_bytes(), "th"]
    (tmp_path / "vocab.json").write_text(json.dumps({text: i for i, text in enumerate(spellings)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\n", encoding="utf-8")
    base = load_base(str(tmp_path))
    assert base.encoding.encode_ordinary("the") == [257, spellings.index("e")]
    save_checkpoint(tmp_path / "copy.pt", {**base.metadata, "model": base.model.state_dict()})
    assert describe(load_base(str(tmp_path / "copy.pt")).encoding) == describe(base.encoding)
    (tmp_path / "merges.txt").write_text("t z\n", encoding="utf-8")
    with pytest.raises(ValueError, match="vocab.json: this tokenizer cannot be used"):
        load_model(tmp_path)


def test_many_more_ids_than_the_tokenizer_has_are_refused(tmp_path: Path) -> None:
    hugging_face_folder(tmp_path, vocab_size=50257 + 128)
    with pytest.raises(
        ValueError, match="has 50385 token ids and GPT-2's tokenizer has 50257: it was trained with ano"
    ):
        load_model(tmp_path)


def test_a_folder_of_ours_means_its_best_model(best: Path, model: GPTModel) -> None:
    assert same_weights(load_model(best.parent)[0], model)
    base = load_base(str(best.parent), ORDER)
    assert base.path == best
    assert base.parent["path"] == str(best)
    assert [ancestor["path"] for ancestor in base.parent["ancestors"]] == ["checkpoints/a.pt"]
    best.with_name("config.json").write_text("{}", encoding="utf-8")
    assert same_weights(load_model(str(best.parent))[0], model)


# --- load_checkpoint


def test_load_checkpoint_loads_weights_and_returns_the_rest(best: Path, model: GPTModel) -> None:
    other = new_model(5)
    rest = load_checkpoint(str(best), other)
    assert same_weights(other, model)
    assert (rest["epoch"], rest["step"], rest["train_loss"], rest["val_loss"]) == (2, 30, 1.5, None)
    assert "model" not in rest and rest["stage"] == "sft"
    assert main.load_checkpoint is load_checkpoint


def test_converted_weights_have_epoch_0(best: Path) -> None:
    kept = ("format", "config", "model", "stage")
    rewrite(best, lambda content: [content.pop(key) for key in list(content) if key not in kept])
    rest = load_checkpoint(best, new_model())
    assert (rest["epoch"], rest["step"], rest["train_loss"], rest["val_loss"]) == (0, 0, None, None)


def train_step(model: GPTModel, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(IDS).square().mean().backward()
    optimizer.step()


def test_optimizer_resumes_exactly(tmp_path: Path) -> None:
    model = new_model()
    optimizer = make_adamw(model, max_lr=0.01, weight_decay=0.1)
    train_step(model, optimizer)
    path = tmp_path / LATEST
    save_checkpoint(path, {**description(model), "optimizer": optimizer.state_dict()})
    train_step(model, optimizer)
    resumed = new_model(9)
    other = make_adamw(resumed, max_lr=0.5, weight_decay=0.0)
    rest = load_checkpoint(path, resumed, other)
    assert "optimizer" not in rest
    train_step(resumed, other)
    assert same_weights(resumed, model)


def test_best_model_without_optimizer_state_points_to_latest(best: Path) -> None:
    model = new_model(4)
    with pytest.raises(ValueError, match="best_model.pt: contains no optimizer state; pass the latest_model.pt next"):
        load_checkpoint(best, model, make_adamw(model, max_lr=0.1, weight_decay=0.1))
    assert same_weights(model, new_model(4))


@pytest.mark.parametrize(
    "state", [None, "text", {}, {"state": {}, "param_groups": [{}]}, {"state": 3, "param_groups": 3}]
)
def test_an_optimizer_state_that_does_not_fit_changes_nothing(best: Path, state: object) -> None:
    model = new_model(4)
    if state is None:  # a valid state, but of two parameter groups instead of one
        optimizer = torch.optim.AdamW(model.parameters())
        state = make_adamw(model, max_lr=0.1, weight_decay=0.1).state_dict()
    else:
        optimizer = make_adamw(model, max_lr=0.1, weight_decay=0.1)
    rewrite(best, lambda content: content.update(optimizer=state))
    before = str(optimizer.state_dict())
    with pytest.raises(ValueError) as refused:
        load_checkpoint(best, model, optimizer)
    assert str(refused.value).startswith(f"{best}: its state does not fit the optimizer (")
    assert "\n" not in str(refused.value)
    assert same_weights(model, new_model(4))
    assert str(optimizer.state_dict()) == before


def test_a_model_of_another_size_is_not_called_a_damaged_file(best: Path) -> None:
    with pytest.raises(ValueError) as refused:
        load_checkpoint(best, new_model(vocab_size=50))
    assert str(refused.value) == (
        f"{best}: wte.weight is torch.float32 (61, 64), expected float (50, 64); "
        "src.checkpoint.load_model returns a model of the right size"
    )


# --- load_base


def test_load_base_loads_the_tokenizer_of_the_checkpoint(best: Path) -> None:
    assert describe(load_base(str(best), ORDER).encoding) == TOKENIZER


def test_load_base_names_the_file_of_a_damaged_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / BEST
    save_checkpoint(path, {**description(new_model()), "tokenizer": {**TOKENIZER, "fingerprint": "0"}})
    with pytest.raises(ValueError) as refused:
        load_base(str(path), ORDER)
    assert str(refused.value).startswith(f"{path}: the tokenizer in this checkpoint is damaged: ")


def test_load_model_maps_the_weights_into_memory(best: Path, monkeypatch) -> None:
    seen = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (seen.append(k), load(*a, **k))[1])
    load_model(best)
    assert seen == [{"map_location": "cpu", "weights_only": True, "mmap": os.name != "nt"}]


def test_a_folder_without_a_tokenizer_is_read_as_gpt2s_with_a_note(tmp_path: Path, capsys) -> None:
    hugging_face_folder(tmp_path, vocab_size=50257)
    assert load_base(str(tmp_path)).encoding is load_gpt2_encoding()
    assert capsys.readouterr().err == f"{tmp_path} has no tokenizer files: assuming GPT-2's\n"
