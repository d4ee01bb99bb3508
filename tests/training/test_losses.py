"""Losses against PyTorch's cross-entropy, TRL's preference losses, and values computed by hand."""

import copy
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from trl import DPOTrainer

from src.data.batching import IGNORE, Batch, pad_examples, pad_pairs
from src.model.gpt import GPTModel
from src.training import losses
from src.training.losses import dpo_loss, language_model_loss, linear_cross_entropy, preference_loss

CONFIG = {"vocab_size": 61, "context_length": 32, "d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0}


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def example(prompt: list[int], response: list[int]) -> tuple[list[int], list[bool]]:
    return prompt + response, [False] * len(prompt) + [True] * len(response)


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 300])
def test_chunked_cross_entropy_equals_the_plain_form(rows: int) -> None:
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 16, dtype=torch.float64, requires_grad=True) for n in (rows, 61))
    targets = torch.randint(61, (rows,))
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    expected_gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, (hidden, weight)), expected_gradients)


def test_chunked_cross_entropy_passes_a_numerical_gradient_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_ROWS", 2)
    hidden, weight = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 7))
    targets = torch.randint(7, (5,))
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets), (hidden, weight))


def test_chunked_cross_entropy_in_bf16_stays_near_fp32(model: GPTModel) -> None:
    ids = torch.randint(61, (4, 20))
    batch = Batch(ids[:, :-1], ids[:, 1:])
    exact, _ = language_model_loss(model, batch)
    exact.backward()
    gradient, model.wte.weight.grad = model.wte.weight.grad, None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = language_model_loss(model, batch)
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    assert rounded.item() != exact.item()
    assert F.cosine_similarity(model.wte.weight.grad.flatten(), gradient.flatten(), dim=0) > 0.99


def test_only_targets_that_count_are_in_the_loss(model: GPTModel) -> None:
    batch = pad_examples([example([1, 2, 3], [4, 5]), example([6], [7, 8, 9, 10])])
    loss, _ = language_model_loss(model, batch)
    expected = F.cross_entropy(
        model(batch.inputs).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    torch.testing.assert_close(loss, expected)
    assert batch.count == 6


def test_padding_changes_no_loss(model: GPTModel) -> None:
    short, long = example([1, 2], [3, 4]), example([5] * 9, [6] * 9)
    together, _ = language_model_loss(model, pad_examples([short, long]))
    apart = sum(language_model_loss(model, pad_examples([one]))[0] for one in (short, long))
    torch.testing.assert_close(together, apart)


def trl_loss(kind: str, logps: list[torch.Tensor], lengths: torch.Tensor, smoothing: float) -> torch.Tensor:
    """What TRL's DPOTrainer computes, its own code run on a model that returns the given log-probabilities."""
    pairs = len(logps[0])
    T = int(lengths.max()) + 1
    mask = (torch.arange(T)[None] > 0) & (torch.arange(T)[None] <= lengths[:, None])
    per_token = torch.zeros(2 * pairs, T - 1)
    per_token[:, 0] = torch.cat(logps[:2])
    zeros = torch.zeros_like(per_token)
    outputs = SimpleNamespace(log_probs=per_token, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=accelerator,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=0.3,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    inputs = {
        "input_ids": torch.zeros(2 * pairs, T, dtype=torch.int64),
        "completion_mask": mask.long(),
        "ref_chosen_logps": logps[2],
        "ref_rejected_logps": logps[3],
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


@pytest.mark.parametrize(
    ("kind", "smoothing"), [("sigmoid", 0.0), ("hinge", 0.0), ("ipo", 0.0), ("robust", 0.0), ("robust", 0.2)]
)
def test_every_preference_loss_equals_trls(kind: str, smoothing: float) -> None:
    torch.manual_seed(1)
    for _ in range(5):
        logps = [-20 * torch.rand(6) for _ in range(4)]
        lengths = torch.randint(1, 12, (12,))
        ours = dpo_loss(*logps, beta=0.3, loss=kind, label_smoothing=smoothing, lengths=lengths.split(6))
        torch.testing.assert_close(ours.mean(), trl_loss(kind, logps, lengths, smoothing))


def test_dpo_loss_is_equation_seven() -> None:
    loss = dpo_loss(*(torch.tensor([x]) for x in (-5.0, -7.0, -6.0, -6.5)), beta=0.1)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.1 * ((-5 + 6) - (-7 + 6.5))))))


def test_ipo_without_lengths_is_the_papers_form() -> None:
    loss = dpo_loss(*(torch.tensor([x]) for x in (-5.0, -7.0, -6.0, -6.5)), beta=0.1, loss="ipo")
    assert loss.item() == pytest.approx((1.5 - 5.0) ** 2)


def test_an_unknown_preference_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown preference loss 'sigmoyd'; there are sigmoid, ipo, hinge and robust"):
        dpo_loss(*[torch.zeros(1)] * 4, loss="sigmoyd")


@pytest.fixture
def pairs():
    prompt = [1, 2, 3]
    return pad_pairs(
        [
            (example(prompt, [4, 5, 60]), example(prompt, [6, 60])),
            (example([7] * 20, [8, 60]), example([7] * 20, [9] * 8 + [60])),
        ]
    )


def test_the_first_preference_loss_is_exactly_ln_two(model: GPTModel, pairs) -> None:
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    for kind in ("sigmoid", "robust"):
        loss, metrics = preference_loss(model, pairs, reference=reference, beta=0.1, loss=kind, label_smoothing=0.0)
        assert loss.item() / 2 == torch.tensor(math.log(2)).item()
        assert metrics["margin"].item() == 0
        assert metrics["kl"].item() == 0


def test_preference_log_probabilities_are_sums_over_the_response_alone(model: GPTModel, pairs) -> None:
    reference = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    _, metrics = preference_loss(model, pairs, reference=reference, beta=0.5)

    def summed(which: GPTModel, prompt: list[int], response: list[int]) -> torch.Tensor:
        logps = which(torch.tensor([prompt + response]))[0].log_softmax(dim=1)
        return sum(logps[len(prompt) - 1 + i, token] for i, token in enumerate(response))

    cases = [([1, 2, 3], [4, 5, 60], [6, 60]), ([7] * 20, [8, 60], [9] * 8 + [60])]
    chosen = sum(summed(model, p, c) for p, c, _ in cases)
    rejected = sum(summed(model, p, r) for p, _, r in cases)
    margin = 0.5 * (chosen - rejected - sum(summed(reference, p, c) - summed(reference, p, r) for p, c, r in cases))
    torch.testing.assert_close(metrics["chosen_logp"], chosen.detach())
    torch.testing.assert_close(metrics["rejected_logp"], rejected.detach())
    torch.testing.assert_close(metrics["margin"], margin.detach(), atol=1e-4, rtol=1e-4)
    assert metrics["chosen_tokens"].item() == 5
    assert metrics["rejected_tokens"].item() == 11


def test_kl_is_that_of_the_next_token_distributions(model: GPTModel) -> None:
    reference = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        model.wte.weight.add_(0.05 * torch.randn_like(model.wte.weight))
    batch = pad_pairs([(example([1, 2], [3, 4]), example([1, 2], [5]))])
    _, metrics = preference_loss(model, batch, reference=reference, beta=0.1)
    terms = []
    for ids, length in (([1, 2, 3, 4], 2), ([1, 2, 5], 1)):
        p, q = (m(torch.tensor([ids]))[0, 1 : 1 + length].log_softmax(dim=1) for m in (model, reference))
        terms.append(F.kl_div(q, p, log_target=True, reduction="none").sum(dim=1))
    torch.testing.assert_close(metrics["kl"], torch.cat(terms).mean().detach(), atol=1e-6, rtol=1e-4)


def test_the_reference_gets_no_gradient(model: GPTModel, pairs) -> None:
    reference = copy.deepcopy(model)
    loss, _ = preference_loss(model, pairs, reference=reference, beta=0.1)
    loss.backward()
    assert all(parameter.grad is None for parameter in reference.parameters())
    assert any(parameter.grad.any() for parameter in model.parameters())
