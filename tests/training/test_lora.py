"""--lora: an adapter trained as PEFT trains it, saved without its base, and merged into best_model.pt."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from src.checkpoint import load_model, read_checkpoint
from src.data.batching import Batch
from src.distributed.processes import Processes
from src.export.folder import config_json, hugging_face_state_dict
from src.model.gpt import GPT_CONFIGS, GPTConfig, GPTModel
from src.model.lora import (
    TARGETS,
    Adapter,
    Targets,
    adapter_of,
    adapter_size,
    add_lora,
    merged_weights,
    trained_weights,
)
from src.model.meta_device import on_meta_device
from src.training.flags import LoRAFlags
from src.training.loop import accumulate, optimizer_step
from src.training.losses import language_model_loss
from src.training.optim import make_adamw
from src.training.parallel import choose_strategy
from src.training.shared_model import SharedModel
from src.training.summary import adapter_row
from tests.training.small_run import CONFIG, CPU, Interrupt, flags, run, weights

TARGET = "h.0.attn.c_attn"


def lora_flags(folder: Path, **changes) -> LoRAFlags:
    return LoRAFlags(**{**asdict(flags(folder)), "lora": 2, **changes})


def base() -> GPTModel:
    """The model that `run` starts from."""
    torch.manual_seed(0)
    return GPTModel({**CONFIG, "dropout": 0.0})


def in_peft(model: GPTModel, adapter: Adapter, targets: Targets) -> torch.nn.Module:
    """transformers' model with the same weights, and PEFT's adapter with the same values."""
    theirs = GPT2LMHeadModel(GPT2Config(**config_json(model.config, None)))
    theirs.load_state_dict(hugging_face_state_dict(model.state_dict()), strict=False)
    config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=TARGETS[targets])
    theirs = get_peft_model(theirs, config)
    found = set_peft_model_state_dict(theirs, peft_names(adapter.tensors))
    assert not found.unexpected_keys
    return theirs


def peft_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"base_model.model.transformer.{name}.weight": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("targets", TARGETS)
def test_training_equals_pefts(targets: Targets) -> None:
    ours = base()
    plain = GPTModel(ours.config)
    plain.load_state_dict(ours.state_dict())
    add_lora(ours, rank=3, alpha=5.0, seed=1, targets=targets)
    adapter = adapter_of(ours)
    assert sum(tensor.numel() for tensor in adapter.tensors.values()) == adapter_size(ours.config, 3, targets)
    theirs = in_peft(plain, adapter, targets)
    optimizer = make_adamw(ours, max_lr=1e-2, weight_decay=0.1)
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    reference = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(5):
        ids = torch.randint(61, (4, 16))
        batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss = accumulate(SharedModel(ours, language_model_loss), [batch], CPU, scaler)["loss"]
        optimizer_step(ours, optimizer, scaler, grad_clip=None)
        their_loss = theirs(input_ids=ids, labels=ids).loss
        reference.zero_grad()
        their_loss.backward()
        reference.step()
        assert loss == pytest.approx(their_loss.item(), rel=1e-5)
    expected = get_peft_model_state_dict(theirs)
    found = peft_names(adapter_of(ours).tensors)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4)
    merged = hugging_face_state_dict(merged_weights(ours.state_dict(), adapter_of(ours)))
    for name, tensor in theirs.merge_and_unload().state_dict().items():
        torch.testing.assert_close(merged.get(name, tensor), tensor, atol=1e-5, rtol=1e-4)


def test_the_best_model_is_a_plain_one_with_the_adapter_merged(tmp_path: Path) -> None:
    _, model = run(lora_flags(tmp_path))
    start, (best, metadata) = base().state_dict(), load_model(tmp_path / "out")
    changed = {name for name, tensor in best.state_dict().items() if not torch.equal(tensor, start[name])}
    assert changed == {f"h.{layer}.attn.c_attn.weight" for layer in range(2)}
    ids = torch.randint(61, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(best(ids), model.eval()(ids), atol=1e-5, rtol=1e-5)
    difference = best.state_dict()[f"{TARGET}.weight"] - start[f"{TARGET}.weight"]
    assert torch.linalg.matrix_rank(difference, atol=1e-5) == metadata["adapter"]["rank"] == 2


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    _, whole = run(lora_flags(tmp_path / "whole"), dropout=0.2)
    interrupted = lora_flags(tmp_path / "parts")
    assert run(interrupted, dropout=0.2, loss_fn=Interrupt(4))[0] == 130
    content = read_checkpoint(tmp_path / "parts/out/latest_model.pt")
    assert {name.rpartition(".")[2] for name in content["model"]} == {"lora_A", "lora_B"}
    assert len(content["optimizer"]["state"]) == len(content["model"]) == 4
    _, resumed = run(interrupted, dropout=0.2)
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())


def test_an_adapter_alone_cannot_be_loaded_as_a_model(tmp_path: Path) -> None:
    run(lora_flags(tmp_path))
    with pytest.raises(ValueError, match=r"latest_model.pt: holds only the adapter .*; pass the best_model.pt next to"):
        load_model(tmp_path / "out/latest_model.pt")


def test_without_lora_the_run_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(lora_flags(tmp_path))
    run(lora_flags(tmp_path, lora=None))
    assert "a finished run with other settings (lora 2 in the file, None now)" in capsys.readouterr().out


def test_the_summary_counts_what_is_trained() -> None:
    model = on_meta_device(GPT_CONFIGS["gpt2-124M"])
    assert adapter_row(model) == {}
    add_lora(model, rank=8, alpha=16.0, seed=0)
    assert "LoRA rank 8: 294,912 of 124,439,808 parameters are trained; alpha 16," in adapter_row(model)["adapter"]
    assert adapter_size(model.config, 8, "attention") == 294_912
    assert trained_weights(model).keys() == {f"h.{i}.attn.c_attn.lora_{m}" for i in range(12) for m in "AB"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lora": 0}, "--lora must be a rank of at least 1, got 0"),
        ({"lora": None, "lora_alpha": 4.0}, "--lora-alpha needs --lora RANK"),
        ({"lora": None, "lora_targets": "all-linear"}, "--lora-targets needs --lora RANK"),
        ({"lora_alpha": -1.0}, "--lora-alpha must be above 0, got -1.0"),
        ({"optimizer": "muon"}, "--lora trains with AdamW; leave --optimizer muon out"),
    ],
)
def test_impossible_flags_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lora_flags(tmp_path, **changes)


def test_several_processes_and_too_large_a_rank_are_refused(tmp_path: Path) -> None:
    config = GPTConfig.of(CONFIG)
    with pytest.raises(ValueError, match="--lora trains in one process; start the script without torchrun"):
        choose_strategy(lora_flags(tmp_path), config, replace(CPU, processes=Processes(0, 2)))
    with pytest.raises(ValueError, match="--lora 17: the rank must not be above the model's width, 16"):
        choose_strategy(lora_flags(tmp_path, lora=17), config, CPU)
