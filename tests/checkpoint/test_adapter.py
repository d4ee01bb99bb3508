"""A LoRA adapter in PEFT's files: merged into its base as PEFT merges it, exported for PEFT, refused if unusable."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from src.checkpoint import load_base, load_model, save_checkpoint
from src.data.prompts import TEMPLATE
from src.export.adapter import adapter_base, adapter_in
from src.export.folder import config_json, hugging_face_state_dict
from src.export_hf import main as export
from src.model.gpt import GPTModel
from src.model.lora import Adapter, merged_weights

SIZE = {"vocab_size": 61, "context_length": 16, "d_model": 32, "n_heads": 2, "n_layers": 2}
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
A_NAME = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A checkpoint of ours, next to the same model as a Hugging Face folder, "hf"."""
    torch.manual_seed(0)
    model = GPTModel(SIZE)
    path = tmp_path / "base/best_model.pt"
    save_checkpoint(path, {"stage": "pretrain", "config": asdict(model.config), "model": model.state_dict()})
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text(json.dumps(config_json(model.config, None)), encoding="utf-8")
    weights = hugging_face_state_dict(model.state_dict())
    save_file(weights, tmp_path / "hf/model.safetensors", metadata={"format": "pt"})
    return path


def from_peft(folder: Path, base: Path, **changes: Any) -> torch.nn.Module:
    """An adapter with random weights, saved by PEFT; returns its model."""
    settings = {"r": 3, "lora_alpha": 7, "target_modules": ["c_attn"], "fan_in_fan_out": True}
    model = AutoModelForCausalLM.from_pretrained(base.parent.parent / "hf").eval()
    model = get_peft_model(model, LoraConfig(**{**settings, **changes}, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    edit(folder, base_model_name_or_path=str(base))
    return model


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | changes
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        output = model(torch.arange(16)[None])
    return getattr(output, "logits", output)


@pytest.mark.parametrize(
    "changes",
    [{}, {"target_modules": ["c_attn", "attn.c_proj", "mlp.c_proj", "c_fc"], "use_rslora": True, "r": 5}],
)
def test_an_adapter_of_peft_is_merged_into_its_base(tmp_path: Path, base: Path, changes: dict) -> None:
    theirs = from_peft(tmp_path / "adapter", base, **changes)
    loaded = load_base(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded.model), logits(theirs), atol=1e-4, rtol=1e-4)
    assert loaded.parent["ancestors"][0]["path"] == str(base)
    assert not torch.allclose(logits(load_model(base)[0]), logits(loaded.model), atol=1e-2)


def test_an_exported_adapter_works_in_peft_and_here(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture) -> None:
    tensors = {"h.0.attn.c_attn.lora_A": torch.randn(3, 32), "h.0.attn.c_attn.lora_B": torch.randn(96, 3)}
    tensors |= {name.replace("h.0", "h.1"): tensor + 1 for name, tensor in tensors.items()}
    adapter, start = Adapter(rank=3, alpha=6.0, tensors=tensors, scale=2.0), load_base(str(base))
    merged = {"model": merged_weights(start.model.state_dict(), adapter), "adapter": vars(adapter)}
    content = {"stage": "sft", "template": TEMPLATE, "config": asdict(start.model.config), "parent": start.parent}
    save_checkpoint(tmp_path / "tuned.pt", {**content, **merged})
    folder = tmp_path / "adapter"
    assert export(["--model", str(tmp_path / "tuned.pt"), "--adapter", "--out", str(folder)]) == 0
    assert f"transformers cannot read {base}; export it, too: python -m src.export_hf" in capsys.readouterr().out
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "hf"), folder)
    whole, (again, metadata) = load_model(tmp_path / "tuned.pt")[0], load_model(folder)
    torch.testing.assert_close(logits(theirs), logits(whole), atol=1e-3, rtol=1e-4)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert metadata["template"] == TEMPLATE
    base.write_bytes((tmp_path / "tuned.pt").read_bytes())
    with pytest.raises(ValueError, match=r"best_model.pt no longer has the weights that the adapter was trained on"):
        load_model(folder)


def test_the_hub_name_of_the_base_is_exported(tmp_path: Path, base: Path) -> None:
    entry = {"rank": 1, "alpha": 1.0, "tensors": {}, "scale": 1.0}
    loaded = load_base(str(base))
    tuned = replace(loaded, metadata={"parent": {"path": "x.pt", "source": "gpt2-355M"}, "adapter": entry})
    assert (adapter_base(tuned), adapter_in(tuned).rank) == ("openai-community/gpt2-medium", 1)
    with pytest.raises(ValueError, match=r"best_model.pt was not trained with --lora, so it has no adapter"):
        adapter_in(loaded)


def change_tensor(name: str, tensor: Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        tensors.pop(name, None)
        save_file(tensors if tensor is None else {**tensors, name: tensor}, folder / WEIGHTS)

    return change


def with_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **changes)


UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"has no {WEIGHTS}; copy it there"),
    "no JSON": (lambda folder: (folder / CONFIG).write_text("["), f"{CONFIG} is not valid JSON"),
    "another kind": (with_config(peft_type="IA3"), "peft_type is 'IA3'; only 'LORA' is supported"),
    "biases": (with_config(bias="all"), "bias is 'all'; only 'none' is supported"),
    "dora": (with_config(use_dora=True), "'use_dora' is not supported; merge the adapter with PEFT's"),
    "whole modules": (with_config(modules_to_save=["wte"]), "'modules_to_save' is not supported"),
    "ranks by layer": (with_config(rank_pattern={"c_attn": 2}), "'rank_pattern' is not supported"),
    "pissa": (with_config(init_lora_weights="pissa"), "init_lora_weights is 'pissa', which changes the base"),
    "huge rank": (with_config(r=10**12), "expected floats of rank 1000000000000"),
    "impossible rank": (with_config(r=10**400), "expected floats of rank 1000"),
    "empty": (lambda folder: save_file({}, folder / WEIGHTS), "holds no tensors"),
    "rank 0": (with_config(r=0), "r, the rank, must be a whole number of at least 1, got 0"),
    "rank of a wrong type": (with_config(r="8"), "r, the rank, must be a whole number of at least 1, got '8'"),
    "no alpha": (with_config(lora_alpha=None), "lora_alpha must be a number above 0, got None"),
    "huge alpha": (with_config(lora_alpha=1e300), "has values that are not finite"),
    "rslora of a wrong type": (with_config(use_rslora="yes"), "use_rslora must be true or false, got 'yes'"),
    "a pattern": (with_config(target_modules=".*"), "target_modules must be a list of layer names, got '.*'"),
    "no base": (with_config(base_model_name_or_path=None), "base_model_name_or_path must name the base model"),
    "lost base": (with_config(base_model_name_or_path="gone.pt"), "is an adapter for 'gone.pt': gone.pt not found"),
    "missing layers": (with_config(target_modules=["c_attn", "c_fc"]), "the tensors of h.0.mlp.c_fc are missing"),
    "missing B": (change_tensor(A_NAME.replace("lora_A", "lora_B"), None), "h.0.attn.c_attn.lora_B is missing"),
    "unknown": (change_tensor("base_model.model.lm_head.lora_A.weight", torch.ones(3, 32)), "unknown tensor"),
    "one layer more": (change_tensor(A_NAME.replace("h.0", "h.9"), torch.ones(3, 32)), "h.9.attn.c_attn.lora_B is"),
    "integers": (change_tensor(A_NAME, torch.ones(3, 32, dtype=torch.int32)), "expected floats of rank 3"),
    "not finite": (change_tensor(A_NAME, torch.full((3, 32), torch.nan)), "contains values that are not finite"),
    "another width": (
        change_tensor(A_NAME, torch.ones(3, 64)),
        "it belongs to another base: h.0.attn.c_attn has 32 inputs and 96 outputs, the adapter is for 64 and 96",
    ),
}


@pytest.fixture(scope="module")
def adapter_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("peft")
    model = GPTModel(SIZE)
    path = folder / "base.pt"
    save_checkpoint(path, {"stage": "pretrain", "config": asdict(model.config), "model": model.state_dict()})
    layers = {f"base_model.model.transformer.h.{i}.attn.c_attn.lora_{m}.weight" for i in range(2) for m in "AB"}
    tensors = {name: torch.randn((3, 32) if "lora_A" in name else (96, 3)) for name in layers}
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["c_attn"], "bias": "none"}
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": str(path)}), encoding="utf-8")
    load_model(folder)
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)}


@pytest.mark.parametrize("kind", [*UNUSABLE])
def test_an_unusable_adapter_is_refused_in_one_line(tmp_path: Path, adapter_files: dict, kind: str) -> None:
    for name, content in adapter_files.items():
        (tmp_path / name).write_bytes(content)
    change, message = UNUSABLE[kind]
    change(tmp_path)
    with pytest.raises((ValueError, OSError)) as refusal:
        load_model(tmp_path)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def test_converted_weights_of_the_base_are_found(
    tmp_path: Path, adapter_files: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT names the base as its user did: "gpt2" is one of the hub's names for OpenAI's smallest model."""
    monkeypatch.chdir(tmp_path)
    for name, content in adapter_files.items():
        (tmp_path / name).write_bytes(content)
    model = GPTModel(SIZE)
    content = {"stage": "pretrained", "source": "gpt2-124M", "config": asdict(model.config)}
    save_checkpoint(Path("checkpoints/gpt2_pretrained.pt"), {**content, "model": model.state_dict()})
    edit(tmp_path, base_model_name_or_path="gpt2")
    merged, metadata = load_model(tmp_path)
    assert metadata["parent"]["path"] == str(Path("checkpoints/gpt2_pretrained.pt"))
    assert torch.equal(merged.wte.weight, model.wte.weight)


def test_an_adapter_of_an_adapter_is_refused(tmp_path: Path, adapter_files: dict) -> None:
    for name, content in adapter_files.items():
        (tmp_path / name).write_bytes(content)
    edit(tmp_path, base_model_name_or_path=str(tmp_path))
    with pytest.raises(ValueError, match="which is an adapter, too"):
        load_model(tmp_path)
