"""The losses of all stages. Each takes (model, batch) and returns (loss summed over the batch, summed metrics).

The loop divides the sums by the number of supervised positions, or of preference pairs, of the whole step. The mean of
the micro-batches' means would be wrong, because these numbers differ between micro-batches.
B rows, T tokens, N supervised positions (those with a target), C channels, V vocabulary, P pairs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from src.data.batching import IGNORE, Batch, PairBatch
from src.model.gpt import GPTModel
from src.training.tied_head import TiedGradient, embed, linear_cross_entropy

if TYPE_CHECKING:
    from src.training.reference import Reference

PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "robust"]
Metrics: TypeAlias = dict[str, Tensor]
LossFunction: TypeAlias = Callable[[GPTModel, Any], tuple[Tensor, Metrics]]  # the batch: a Batch or a PairBatch


def language_model_loss(
    model: GPTModel, batch: Batch, *, hidden_states: Callable[..., Tensor] | None = None
) -> tuple[Tensor, Metrics]:
    """Cross-entropy in nats, summed over the supervised positions: a scalar, and no metrics.

    Its naive form, for a batch with one sequence per row:

        supervised = batch.targets != IGNORE
        F.cross_entropy(model(batch.inputs)[supervised], batch.targets[supervised], reduction="sum")

    Loss and gradients are the same (test_language_model_loss_equals_its_naive_form), but the logits of all positions
    are never in memory together. hidden_states: a compiled `model.hidden_states`.
    """
    tied = TiedGradient()
    embedded = embed(batch.inputs, model.wte.weight, tied)
    hidden, targets = _supervised_states(model, batch, embedded, hidden_states)
    return linear_cross_entropy(hidden, model.wte.weight, targets, tied), {}


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
    loss: PreferenceLoss = "sigmoid",
    label_smoothing: float = 0.0,
    lengths: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Preference loss of each pair, (P,), from log-probabilities summed over the response tokens, each (P,).

    sigmoid: DPO (Rafailov et al. 2023, eq. 7). hinge: SLiC's with the DPO margin (Zhao et al. 2023).
    ipo: Azar et al. 2023, eq. 17; with `lengths`, the chosen and rejected token counts, on per-token means, as its
    authors use it. robust: DPO under labels flipped with probability `label_smoothing` (Chowdhury et al. 2024).
    A larger beta keeps the policy closer to the reference. Raises ValueError for an unknown loss.
    """
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    margin = beta * (chosen - rejected)
    if loss == "sigmoid":
        return -F.logsigmoid(margin)
    if loss == "hinge":
        return torch.relu(1 - margin)
    if loss == "ipo":
        chosen_length, rejected_length = lengths or (torch.ones_like(chosen), torch.ones_like(rejected))
        return (chosen / chosen_length - rejected / rejected_length - 1 / (2 * beta)) ** 2
    if loss == "robust":
        as_labelled, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        return ((1 - label_smoothing) * as_labelled - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    raise ValueError(f"unknown preference loss {loss!r}; there are sigmoid, ipo, hinge and robust")


def preference_loss(
    model: GPTModel,
    batch: PairBatch,
    *,
    reference: "Reference",
    beta: float,
    loss: PreferenceLoss = "sigmoid",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Metrics]:
    """`dpo_loss` and the diagnostics of the alignment, both summed over the pairs of a batch.

    margin: beta times the difference of the log-ratios. kl: the divergence of the policy from the reference over the
    whole vocabulary, averaged over a pair's answer tokens. It is computed only in evaluation, when gradients are
    disabled, because it needs a forward pass of the reference model. The loss needs only cached log-probabilities.
    """
    P = batch.n_pairs
    logits, targets, answers = _supervised_logits(model, batch)  # (N, V), (N,), (N,)
    policy = _sum_by(answers, _logprobs(logits, targets), 2 * P)  # (2P,): all chosen answers, then all rejected ones
    ref = reference.logprobs(batch)  # (2P,)
    lengths = torch.bincount(answers, minlength=2 * P)  # (2P,)
    losses = dpo_loss(
        *policy.split(P), *ref.split(P), beta=beta, loss=loss, label_smoothing=label_smoothing, lengths=lengths.split(P)
    )
    rewards = beta * (policy - ref).detach()
    margin = rewards[:P] - rewards[P:]
    metrics = {
        "margin": margin.sum(),
        "accuracy": (margin > 0).float().sum(),
        "chosen_logp": policy[:P].detach().sum(),
        "rejected_logp": policy[P:].detach().sum(),
        "chosen_tokens": lengths[:P].float().sum(),
        "rejected_tokens": lengths[P:].float().sum(),
    }
    if not torch.is_grad_enabled():
        reference_logits, _, _ = reference.run(_supervised_logits, batch)
        kl = _sum_by(answers % P, _kl(logits, reference_logits), P)  # (P,): of both answers of a pair
        metrics["kl"] = (kl / (lengths[:P] + lengths[P:])).sum()
    return losses.sum(), metrics


def answer_logprobs(model: GPTModel, batch: PairBatch) -> Tensor:
    """Log-probabilities (2P,), each summed over one answer: all chosen answers, then all rejected ones."""
    logits, targets, answers = _supervised_logits(model, batch)
    return _sum_by(answers, _logprobs(logits, targets), 2 * batch.n_pairs)


def _logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target, (N,)."""
    return -F.cross_entropy(logits, targets, reduction="none")


def _kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) between the distributions of two logits (N, V), in nats."""
    logps, reference_logps = logits.log_softmax(dim=1), reference_logits.log_softmax(dim=1)
    return (logps.exp() * (logps - reference_logps)).sum(dim=1)


def _sum_by(groups: Tensor, values: Tensor, n_groups: int) -> Tensor:
    """Sum the values (N,) of each group: (n_groups,). groups (N,): the group of each value."""
    return torch.zeros(n_groups, dtype=values.dtype, device=values.device).index_add(0, groups, values)


def _supervised_logits(model: GPTModel, batch: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in at least float32 (N, V), targets (N,) and answer numbers (N,) at the supervised positions."""
    states, targets = _supervised_states(model, batch)
    logits = model.head(states)
    fp32 = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(fp32), targets, batch.answers[batch.targets != IGNORE]


def _supervised_states(
    model: GPTModel,
    batch: Batch,
    embedded: Tensor | None = None,
    hidden_states: Callable[..., Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Hidden states (N, C) and targets (N,) at the supervised positions; the head runs on no others."""
    supervised = batch.targets != IGNORE
    forward = hidden_states or model.hidden_states
    hidden = forward(batch.inputs, packing=batch.packing, embedded=embedded)
    return hidden[supervised], batch.targets[supervised]
