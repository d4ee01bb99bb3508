"""The losses of all stages. Each takes (model, batch) and gives (sum over what the batch counts, sums of metrics).

The loop divides both by the count of the whole step: a mean of means is wrong as soon as counts differ.
A target below 0 is one to leave out. B rows, T tokens, N tokens that count, C channels, V vocabulary, P pairs.
"""

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from src.training.tied_head import TiedGradient, embed, linear_cross_entropy

PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "robust"]
Metrics = dict[str, Tensor]


def language_model_loss(model: Any, batch: Any) -> tuple[Tensor, Metrics]:
    """Sum of the cross-entropies, in nats, of the targets that count: scalar, no further metrics."""
    tied = TiedGradient()
    hidden, targets = _supervised_states(model, batch, embed(batch.inputs, model.wte.weight, tied))
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
    """Preference losses of pairs, (P,), from log-probabilities summed over the response tokens, each (P,).

    sigmoid: DPO (Rafailov et al. 2023, eq. 7). hinge: SLiC's with the DPO margin (Zhao et al. 2023).
    ipo: Azar et al. 2023, eq. 17; with `lengths`, the chosen and rejected token counts, on means per token, as its
    authors used it. robust: DPO under labels flipped with probability `label_smoothing` (Chowdhury et al. 2024).
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
        kept, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    raise ValueError(f"unknown preference loss {loss!r}; there are sigmoid, ipo, hinge and robust")


class FrozenReference(Protocol):
    """The model that training started from, and what it gives the answers of a batch; `reference.py` has one."""

    model: Any

    def logprobs(self, batch: Any) -> Tensor:
        """Log-probabilities (2P,), summed over each answer: the chosen ones, then the rejected."""


def preference_loss(
    model: Any,
    batch: Any,
    *,
    reference: FrozenReference,
    beta: float,
    loss: PreferenceLoss = "sigmoid",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Metrics]:
    """Sum of `dpo_loss` over the pairs of a batch, and sums over pairs of what tells how the alignment goes.

    margin: beta times the difference of the log-ratios. kl, where no gradients are asked for: of the policy from the
    reference, mean over the pair's answer tokens, over the whole vocabulary; it alone runs the reference's model.
    """
    P = batch.count
    logits, targets, answers = _supervised_logits(model, batch)  # (N, V)
    policy = _by_answer(-F.cross_entropy(logits, targets, reduction="none"), answers, 2 * P)
    ref = reference.logprobs(batch)
    lengths = torch.bincount(answers, minlength=2 * P)  # (2P,), as policy and ref
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
        reference_logits, _, _ = _supervised_logits(reference.model, batch)
        metrics["kl"] = (_by_answer(_kl(logits, reference_logits), answers % P, P) / (lengths[:P] + lengths[P:])).sum()
    return losses.sum(), metrics


def answer_logprobs(model: Any, batch: Any) -> Tensor:
    """Log-probabilities (2P,), summed over each answer of a batch of pairs: the chosen ones, then the rejected."""
    logits, targets, answers = _supervised_logits(model, batch)
    return _by_answer(-F.cross_entropy(logits, targets, reduction="none"), answers, 2 * batch.count)


def _kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) of the distributions of two logits (N, V), in nats."""
    logps, reference_logps = logits.log_softmax(dim=1), reference_logits.log_softmax(dim=1)
    return (logps.exp() * (logps - reference_logps)).sum(dim=1)


def _by_answer(values: Tensor, answers: Tensor, count: int) -> Tensor:
    """Sums (count,) of the values (N,) that belong to each answer."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, answers, values)


def _supervised_logits(model: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, at least float32 (N, V), targets (N,) and answers (N,) of the positions whose target counts."""
    states, targets = _supervised_states(model, batch)
    logits = model.head(states)
    exact = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(exact), targets, batch.answers[batch.targets >= 0]


def _supervised_states(model: Any, batch: Any, embedded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """States (N, C) and targets (N,) of the positions whose target counts; the head runs on no others."""
    counts = batch.targets >= 0
    hidden = model.hidden_states(batch.inputs, batch.packing, embedded=embedded)
    return hidden[counts], batch.targets[counts]
