"""Losses against PyTorch's cross-entropy, TRL's preference losses, and values computed by hand."""

import copy
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from trl import DPOTrainer

from src.data.batching import IGNORE, Batch, pack_examples, pack_pairs
from src.data.prompts import Example
from src.model.gpt import GPTModel
from src.training import tied_head
from src.training.losses import answer_logprobs, dpo_loss, language_model_loss, preference_loss
from src.training.tied_head import TiedGradient, embed, linear_cross_entropy

CONFIG = {"vocab_size": 61, "context_length": 32, "d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0}


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def example(prompt: list[int], response: list[int]) -> Example:
    return Example(prompt + response, [False] * len(prompt) + [True] * len(response))


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 20])
def test_chunked_cross_entropy_equals_torch(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(tied_head, "CHUNK_ROWS", 8)
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 16, dtype=torch.float64, requires_grad=True) for n in (rows, 61))
    targets = torch.randint(61, (rows,))
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    expected_gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, (hidden, weight)), expected_gradients)


def test_chunked_cross_entropy_needs_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tied_head, "CHUNK_ROWS", 2)
    hidden, weight, targets = torch.randn(7, 16), torch.randn(61, 16), torch.randint(61, (7,))
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), expected)


def test_the_softmax_of_half_precision_logits_is_in_float32() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 16), torch.randn(61, 16), torch.randint(61, (9,))
    expected = F.cross_entropy((hidden.bfloat16() @ weight.bfloat16().T).float(), targets, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-6)
    assert abs(loss - F.cross_entropy(hidden @ weight.T, targets, reduction="sum")) > 1e-3  # bf16 was used


def test_chunked_cross_entropy_matches_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tied_head, "CHUNK_ROWS", 2)
    hidden, weight = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 7))
    targets, tiny = torch.randint(7, (5,)), 1e-6
    gradients = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), (hidden, weight))
    for tensor, gradient in zip((hidden, weight), gradients, strict=True):
        for at in range(tensor.numel()):
            moved = [tensor.detach().clone() for _ in range(2)]
            moved[0].view(-1)[at] += tiny
            moved[1].view(-1)[at] -= tiny
            up, down = (
                linear_cross_entropy(*((m, weight) if tensor is hidden else (hidden, m)), targets) for m in moved
            )
            assert abs((up - down) / (2 * tiny) - gradient.view(-1)[at]) < 1e-7


def test_a_second_backward_is_refused() -> None:
    hidden, weight = (torch.randn(n, 3, requires_grad=True) for n in (5, 7))
    loss = linear_cross_entropy(hidden, weight, torch.randint(7, (5,)))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_a_second_derivative_is_refused() -> None:
    hidden, weight = (torch.randn(n, 3, requires_grad=True) for n in (5, 7))
    loss = linear_cross_entropy(hidden, weight, torch.randint(7, (5,)))
    (gradient,) = torch.autograd.grad(loss * torch.ones((), requires_grad=True), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_operand_leaves_the_other_gradient_intact(frozen: str) -> None:
    torch.manual_seed(0)
    parts = {"hidden": torch.randn(5, 3), "weight": torch.randn(7, 3)}
    free = next(part for name, part in parts.items() if name != frozen).requires_grad_()
    targets = torch.randint(7, (5,))
    expected = F.cross_entropy(parts["hidden"] @ parts["weight"].T, targets, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected, free)
    linear_cross_entropy(parts["hidden"], parts["weight"], targets).backward()
    torch.testing.assert_close(free.grad, expected_gradient)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_underflowed_target_probabilities_keep_their_loss(size: float) -> None:
    hidden, weight = (
        torch.tensor([[size]], requires_grad=True),
        torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True),
    )
    loss = linear_cross_entropy(hidden, weight, torch.tensor([1]))
    expected = F.cross_entropy(hidden @ weight.T, torch.tensor([1]), reduction="sum")
    assert loss == expected == 2 * size
    gradients = (torch.autograd.grad(of, (hidden, weight)) for of in (loss, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("rows", "piece"), [(512, 4096), (32, 16)])
def test_chunked_cross_entropy_in_bf16_stays_near_fp32(
    model: GPTModel, monkeypatch: pytest.MonkeyPatch, rows: int, piece: int
) -> None:
    monkeypatch.setattr(tied_head, "CHUNK_ROWS", rows)
    monkeypatch.setattr(tied_head, "CONVERTED_ROWS", piece)
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


@pytest.mark.parametrize("times", [1, 2])
def test_tied_weight_gradient_sums_embedding_and_head(times: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(61, 16, dtype=torch.float64, requires_grad=True)
    ids, targets, tied = torch.tensor([[3, 5, 3], [60, 0, 5]]), torch.randint(61, (6,)), TiedGradient()
    hidden = torch.tanh(embed(ids, weight, tied)).view(6, 16)
    loss = sum(linear_cross_entropy(hidden, weight, targets, tied) for _ in range(times))
    logits = torch.tanh(F.embedding(ids, weight)).view(6, 16) @ weight.T
    expected = times * F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(3 * loss, weight), torch.autograd.grad(3 * expected, weight))


def test_language_model_loss_equals_its_naive_form(model: GPTModel) -> None:
    ids = torch.randint(61, (3, 21))
    batch = Batch(ids[:, :-1], torch.where(torch.rand(3, 20) < 0.3, IGNORE, ids[:, 1:]))
    supervised = batch.targets != IGNORE
    naive = F.cross_entropy(model(batch.inputs)[supervised], batch.targets[supervised], reduction="sum")
    loss, metrics = language_model_loss(model, batch)
    assert metrics == {} and 0 < batch.loss_denominator < 60
    torch.testing.assert_close(loss, naive)
    assert_same_gradients(model, loss, naive)


def test_packed_sequences_have_the_loss_of_separate_ones(model: GPTModel) -> None:
    examples = [example([1, 2, 3], [4, 5]), example([6], [7, 8, 9, 10]), ([1, 2, 3, 4], [False, True, False, True])]
    batch = pack_examples(examples)
    loss, _ = language_model_loss(model, batch)
    expected = torch.zeros(())
    for ids, mask in examples:
        targets = torch.where(torch.tensor(mask[1:]), torch.tensor(ids[1:]), IGNORE)
        expected = expected + F.cross_entropy(
            model(torch.tensor([ids[:-1]]))[0], targets, ignore_index=IGNORE, reduction="sum"
        )
    torch.testing.assert_close(loss, expected)
    assert_same_gradients(model, loss, expected)
    assert batch.loss_denominator == 8


def test_the_first_supervised_token_starts_the_response(model: GPTModel) -> None:
    def loss(prompt: list[int], response: list[int]) -> float:
        return language_model_loss(model, pack_examples([example([9], [8]), example(prompt, response)]))[0].item()

    with torch.no_grad():
        first = model(torch.tensor([[1, 2]]))[0, -1].log_softmax(dim=0)
    difference = loss([1, 2], [3]) - loss([1, 2], [4])
    assert difference == pytest.approx((first[4] - first[3]).item(), abs=1e-4)


def assert_same_gradients(model: GPTModel, *losses: torch.Tensor) -> None:
    gradients = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in losses]
    for (name, _), ours, expected in zip(model.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-3, msg=name)


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
def test_preference_losses_equal_trl(kind: str, smoothing: float) -> None:
    torch.manual_seed(1)
    for _ in range(5):
        logps = [-20 * torch.rand(6) for _ in range(4)]
        lengths = torch.randint(1, 12, (12,))
        ours = dpo_loss(*logps, beta=0.3, loss=kind, label_smoothing=smoothing, lengths=lengths.split(6))
        torch.testing.assert_close(ours.mean(), trl_loss(kind, logps, lengths, smoothing))


def test_dpo_loss_is_equation_seven() -> None:
    loss = dpo_loss(*(torch.tensor([x]) for x in (-5.0, -7.0, -6.0, -6.5)), beta=0.1)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.1 * ((-5 + 6) - (-7 + 6.5))))))


def test_by_default_beta_is_a_tenth_and_no_label_is_flipped() -> None:
    logps = [torch.tensor([x]) for x in (-5.0, -7.0, -6.0, -6.5)]
    assert torch.equal(dpo_loss(*logps), dpo_loss(*logps, beta=0.1))
    assert torch.equal(dpo_loss(*logps, loss="robust"), dpo_loss(*logps))


def test_ipo_without_lengths_is_the_papers_form() -> None:
    loss = dpo_loss(*(torch.tensor([x]) for x in (-5.0, -7.0, -6.0, -6.5)), beta=0.1, loss="ipo")
    assert loss.item() == pytest.approx((1.5 - 5.0) ** 2)


def test_an_unknown_preference_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown preference loss 'sigmoyd'; there are sigmoid, ipo, hinge and robust"):
        dpo_loss(*[torch.zeros(1)] * 4, loss="sigmoyd")


CASES = [([1, 2, 3], [4, 5, 60], [6, 60]), ([7] * 20, [8, 60], [9] * 8 + [60]), ([5], [6, 7], [8])]
PAIRS = [(i, (example(p, chosen), example(p, rejected))) for i, (p, chosen, rejected) in enumerate(CASES)]


def live(reference: GPTModel) -> SimpleNamespace:
    """A reference that recomputes the log-probabilities of every batch."""

    @torch.no_grad()
    def logprobs(batch):
        return answer_logprobs(reference, batch)

    return SimpleNamespace(run=lambda function, batch: function(reference, batch), logprobs=logprobs)


def perturbed(model: GPTModel) -> GPTModel:
    """A copy of the model with slightly different weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


def by_hand(model: GPTModel, prompt: list[int], response: list[int]) -> torch.Tensor:
    """The log-probability of one response, from a forward pass on its own."""
    logps = model(torch.tensor([prompt + response]))[0].log_softmax(dim=1)
    return sum(logps[len(prompt) - 1 + i, token] for i, token in enumerate(response))


@pytest.mark.parametrize("kind", ["sigmoid", "robust"])
def test_preference_loss_starts_at_ln_two(model: GPTModel, kind: str) -> None:
    batch = pack_pairs(PAIRS[:2])
    with torch.no_grad():
        loss, metrics = preference_loss(model, batch, reference=live(copy.deepcopy(model)), beta=0.1, loss=kind)
    assert loss.item() / 2 == torch.tensor(math.log(2)).item()
    assert metrics["margin"].item() == 0
    assert metrics["accuracy"].item() == 0  # a tie is no preference
    assert metrics["kl"].item() == 0


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_a_shared_prompt_gives_the_loss_of_separate_rows(model: GPTModel, kind: str) -> None:
    reference = perturbed(model).requires_grad_(False)
    loss, metrics = preference_loss(model, pack_pairs(PAIRS), reference=live(reference), beta=0.5, loss=kind)
    policy, ref = (
        [torch.stack([by_hand(which, p, answers[side]) for p, *answers in CASES]) for side in (0, 1)]
        for which in (model, reference)
    )
    lengths = tuple(torch.tensor([len(answers[side]) for _, *answers in CASES]) for side in (0, 1))
    expected = dpo_loss(*policy, *ref, beta=0.5, loss=kind, lengths=lengths).sum()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    assert_same_gradients(model, loss, expected)
    margin = 0.5 * (policy[0] - policy[1] - ref[0] + ref[1])
    assert metrics["margin"].item() == pytest.approx(margin.sum().item(), abs=1e-3)
    assert metrics["accuracy"].item() == (margin > 0).sum().item()
    assert metrics["chosen_logp"].item() == pytest.approx(policy[0].sum().item(), abs=1e-3)
    assert metrics["rejected_logp"].item() == pytest.approx(policy[1].sum().item(), abs=1e-3)
    assert (metrics["chosen_tokens"].item(), metrics["rejected_tokens"].item()) == (7, 12)


def test_kl_is_between_next_token_distributions(model: GPTModel) -> None:
    reference = perturbed(model)
    with torch.no_grad():
        _, metrics = preference_loss(model, pack_pairs(PAIRS[:2]), reference=live(reference), beta=0.1)
        expected = 0.0
        for prompt, *answers in CASES[:2]:
            terms = []
            for answer in answers:
                logps = (m(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1] for m in (model, reference))
                p, q = (logits.log_softmax(dim=1) for logits in logps)
                terms.append(F.kl_div(q, p, log_target=True, reduction="none").sum(dim=1))
            expected += torch.cat(terms).mean().item()
    assert expected > 0.01
    assert metrics["kl"].item() == pytest.approx(expected, rel=1e-4)


def test_a_training_step_does_not_run_the_reference(model: GPTModel) -> None:
    cached = SimpleNamespace(run=None, logprobs=lambda batch: torch.full((2 * batch.n_pairs,), -3.0))
    loss, metrics = preference_loss(model, pack_pairs(PAIRS), reference=cached, beta=0.1)
    assert "kl" not in metrics
    loss.backward()
    assert any(parameter.grad.any() for parameter in model.parameters())


def test_preference_loss_sums_over_pairs(model: GPTModel) -> None:
    reference = live(perturbed(model))
    whole, metrics = preference_loss(model, pack_pairs(PAIRS), reference=reference, beta=0.5)
    parts = [preference_loss(model, pack_pairs([pair]), reference=reference, beta=0.5) for pair in PAIRS]
    total = sum(loss for loss, _ in parts)
    torch.testing.assert_close(whole, total, atol=1e-4, rtol=1e-4)
    assert_same_gradients(model, whole, total)
    for name, value in metrics.items():
        assert value.item() == pytest.approx(sum(part[name].item() for _, part in parts), abs=1e-3), name


def test_the_label_smoothing_reaches_the_loss(model: GPTModel) -> None:
    reference, batch = live(perturbed(model)), pack_pairs(PAIRS)
    with torch.no_grad():
        logps = [*answer_logprobs(model, batch).split(3), *reference.logprobs(batch).split(3)]
        for smoothing in ({}, {"label_smoothing": 0.0}, {"label_smoothing": 0.3}):
            loss, _ = preference_loss(model, batch, reference=reference, beta=0.5, loss="robust", **smoothing)
            assert loss.item() == pytest.approx(dpo_loss(*logps, beta=0.5, loss="robust", **smoothing).sum().item())


@pytest.mark.parametrize(
    ("weights", "result"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_log_probabilities_are_at_least_float32(model: GPTModel, weights: torch.dtype, result: torch.dtype) -> None:
    with torch.no_grad():
        assert answer_logprobs(model.to(weights), pack_pairs(PAIRS)).dtype == result


def test_a_compiled_forward_pass_is_used(model: GPTModel) -> None:
    calls = []

    def forward(*arguments, **options):
        calls.append(arguments)
        return model.hidden_states(*arguments, **options)

    batch = pack_examples([example([1, 2], [3])])
    assert language_model_loss(model, batch, hidden_states=forward)[0] == language_model_loss(model, batch)[0]
    assert len(calls) == 1
