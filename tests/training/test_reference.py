"""The reference's log-probabilities: correct, computed once, and never reused for other data or another model."""

import copy
import math
import random
from pathlib import Path

import pytest
import torch

from src.checkpoint import read_checkpoint, save_checkpoint
from src.data.batching import in_batches, pack_pairs
from src.data.prompts import Example
from src.model.gpt import GPTModel
from src.training import reference as module
from src.training.losses import answer_logprobs, preference_loss
from src.training.reference import REFERENCE, TOLERANCE, Reference

CONFIG = {"vocab_size": 61, "context_length": 32, "d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0}
IDENTITY = {"pairs": "1", "base": "2", "tokenizer": "3"}


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def all_pairs() -> list:
    rng = random.Random(0)

    def ids(most: int) -> list[int]:
        return [rng.randrange(61) for _ in range(rng.randint(1, most))]

    def pair(prompt: list[int]) -> tuple:
        answers = ids(12), ids(12)
        return tuple(Example(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for answer in answers)

    return [(i, pair(ids(15))) for i in range(9)]


class Counting(GPTModel):
    """A model that counts its forward passes."""

    forward_passes = 0

    def hidden_states(self, *args, **kwargs):
        self.forward_passes += 1
        return super().hidden_states(*args, **kwargs)


def reference(model: GPTModel, folder: Path, identity=IDENTITY) -> Reference:
    counting = Counting(CONFIG).eval().requires_grad_(False)
    counting.load_state_dict(model.state_dict())
    return Reference(counting, in_batches(all_pairs(), pack_pairs, 2), folder / REFERENCE, identity)


def all_logprobs(model: GPTModel, folder: Path, identity=IDENTITY) -> tuple[torch.Tensor, int]:
    """The log-probabilities of all pairs in a new process, and the number of forward passes they took."""
    fresh = reference(model, folder, identity)
    return fresh.logprobs(pack_pairs(all_pairs())), fresh.model.forward_passes


def test_logprobs_are_computed_once_and_then_cached(model: GPTModel, tmp_path: Path, capsys) -> None:
    computed, passes = all_logprobs(model, tmp_path)
    assert passes == 5  # batches of two of nine pairs
    assert "9 pairs computed in" in (output := capsys.readouterr().out)
    assert output.endswith("(not cached yet)\n") and output.count("\n") == 1
    cached, passes = all_logprobs(model, tmp_path)
    assert passes == 1
    assert torch.equal(cached, computed)
    assert "checked against the model" in capsys.readouterr().out
    some = pack_pairs([all_pairs()[i] for i in (7, 0, 4)])
    fresh = reference(model, tmp_path)
    torch.testing.assert_close(fresh.logprobs(some), answer_logprobs(model, some), atol=1e-4, rtol=1e-5)


def test_cached_logprobs_give_the_loss_of_a_live_reference(model: GPTModel, tmp_path) -> None:
    cached, batch = reference(model, tmp_path), pack_pairs(all_pairs()[3:7])
    loss, metrics = preference_loss(model, batch, reference=cached, beta=0.1)
    assert loss.item() / 4 == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["margin"].item() == pytest.approx(0, abs=1e-4)
    policy = copy.deepcopy(model)
    with torch.no_grad():
        policy.wte.weight.add_(0.1 * torch.randn_like(policy.wte.weight))
    exact = reference(model, tmp_path)
    exact.logprobs = lambda batch: answer_logprobs(model, batch).detach()
    ours, live = (preference_loss(policy, batch, reference=r, beta=0.1)[0] for r in (cached, exact))
    assert abs(live.item() / 4 - math.log(2)) > 1e-3
    torch.testing.assert_close(ours, live, atol=1e-5, rtol=1e-5)
    gradients = (torch.autograd.grad(of, list(policy.parameters())) for of in (ours, live))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changed", [*IDENTITY, "precision", "version"])
def test_a_changed_input_invalidates_the_cache(
    model: GPTModel, tmp_path: Path, changed: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_logprobs(model, tmp_path)
    if changed == "version":
        monkeypatch.setattr(module, "VERSION", 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=changed == "precision"):
        _, passes = all_logprobs(model, tmp_path, {**IDENTITY, **({changed: "other"} if changed in IDENTITY else {})})
    assert passes == 5
    assert "other data, or another base, tokenizer or precision" in capsys.readouterr().out


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def alter(path: Path) -> None:
    """Change one value, of a pair that is not in the batch compared with the model."""
    content = read_checkpoint(path)
    content["logprobs"][1, 8] += 1
    save_checkpoint(path, content)


def strip(path: Path) -> None:
    save_checkpoint(path, {"key": read_checkpoint(path)["key"], "logprobs": "none"})


@pytest.mark.parametrize("damage", [cut, alter, strip, lambda path: path.write_text("no checkpoint", encoding="utf-8")])
def test_a_damaged_cache_is_recomputed(model: GPTModel, tmp_path: Path, damage, capsys) -> None:
    computed, _ = all_logprobs(model, tmp_path)
    damage(tmp_path / REFERENCE)
    again, passes = all_logprobs(model, tmp_path)
    assert passes == 5
    assert torch.equal(again, computed)
    assert "(the file was damaged)" in capsys.readouterr().out
    assert all_logprobs(model, tmp_path)[1] == 1


@pytest.mark.parametrize("off", [2.0, math.nan])
def test_a_cache_that_disagrees_with_the_model_is_recomputed(
    model: GPTModel, tmp_path: Path, off: float, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    right, _ = all_logprobs(model, tmp_path)
    path = tmp_path / REFERENCE
    content = read_checkpoint(path)
    content["logprobs"][0, 1] += off * TOLERANCE[torch.float32]
    content["sha256"] = module._sha256(content["logprobs"])
    save_checkpoint(path, content)
    again, passes = all_logprobs(model, tmp_path)
    assert passes == 1 + 5
    assert torch.equal(again, right)
    assert "nats off recomputed values)" in capsys.readouterr().out


def test_a_cache_in_bf16_is_reused(model: GPTModel, tmp_path: Path) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = all_logprobs(model, tmp_path)
        cached, passes = all_logprobs(model, tmp_path)
    assert passes == 1
    assert torch.equal(cached, rounded)
    assert cached.dtype == torch.float32
    assert not torch.allclose(cached, all_logprobs(model, tmp_path)[0], atol=1e-4)
