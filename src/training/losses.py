"""The losses of all stages. Each takes (model, batch) and gives (sum over what the batch counts, sums of metrics).

The loop divides both by the count of the whole step: a mean of means is wrong as soon as counts differ.
A target below 0 is one to leave out. B rows, T tokens, N tokens that count, C channels, V vocabulary, P pairs.
"""

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "robust"]
Metrics = dict[str, Tensor]

CHUNK_ROWS = 128  # rows of logits in memory at once: 25 MB at GPT-2's vocabulary


def language_model_loss(model: Any, batch: Any) -> tuple[Tensor, Metrics]:
    """Sum of the cross-entropies, in nats, of the targets that count: scalar, no further metrics."""
    hidden, targets = _states_that_count(model, batch)
    return linear_cross_entropy(hidden, model.wte.weight, targets), {}


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`F.cross_entropy(hidden @ weight.T, targets, reduction="sum")` without ever holding all logits.

    hidden (N, C), weight (V, C), targets (N,) to a scalar. The logits of a few rows are made, turned into their
    gradient and thrown away while they are still in the processor's cache, so nothing of size (N, V) exists.
    """
    if not torch.is_grad_enabled():  # inside the function it never is; what asks for no gradient makes none
        hidden, weight = hidden.detach(), weight.detach()
    return _LinearCrossEntropy.apply(hidden, weight, targets)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        h, w = hidden.to(dtype), weight.to(dtype)
        needs_gradient = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(h) if needs_gradient else None
        # The first product overwrites it; to fill it with zeros before is a pass over the whole vocabulary.
        grad_weight = (torch.empty_like if len(h) else torch.zeros_like)(weight) if needs_gradient else None
        exact = torch.promote_types(dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=hidden.device)
        buffer = h.new_empty(min(CHUNK_ROWS, len(h)), len(w))  # made once: new memory costs more than it looks
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(h), CHUNK_ROWS):
                rows, wanted = h[start : start + CHUNK_ROWS], targets[start : start + CHUNK_ROWS, None]
                logits = torch.mm(rows, w.T, out=buffer[: len(rows)]).to(exact)  # (rows, V)
                highest, right = logits.amax(dim=1, keepdim=True), logits.gather(1, wanted)
                odds = logits.sub_(highest).exp_()  # softmax times z, in place
                z = odds.sum(dim=1, keepdim=True)
                total += (z.log() + highest - right).sum()
                if grad_hidden is not None and grad_weight is not None:
                    if dtype == torch.float16:  # whose numbers end at 65,504, and z may be as large as V
                        odds, z = odds.div_(z), torch.ones_like(z)
                    # The gradient is odds / z - 1 at the target. Dividing (rows, C) by z spares a pass over (rows, V).
                    gradient = odds.scatter_add_(1, wanted, -z).to(dtype)
                    grad_hidden[start : start + CHUNK_ROWS] = (gradient @ w) / z
                    _add_product(grad_weight, gradient.T, (rows / z).to(dtype), first=start == 0)
        ctx.gradients = grad_hidden, grad_weight
        ctx.hidden_dtype = hidden.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy can be differentiated once: its gradients are scaled in place")
        grad_hidden, grad_weight = ctx.gradients
        ctx.gradients = None
        return grad_hidden.to(ctx.hidden_dtype).mul_(grad_outputs[0]), grad_weight.mul_(grad_outputs[0]), None


def _add_product(total: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """total += a @ b, or = where `first`; in half precision the sum is kept in total's dtype."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if first else 1)
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b


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
    logits, targets, answers = _logits_that_count(model, batch)  # (N, V)
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
        reference_logits, _, _ = _logits_that_count(reference.model, batch)
        metrics["kl"] = (_by_answer(_kl(logits, reference_logits), answers % P, P) / (lengths[:P] + lengths[P:])).sum()
    return losses.sum(), metrics


def answer_logprobs(model: Any, batch: Any) -> Tensor:
    """Log-probabilities (2P,), summed over each answer of a batch of pairs: the chosen ones, then the rejected."""
    logits, targets, answers = _logits_that_count(model, batch)
    return _by_answer(-F.cross_entropy(logits, targets, reduction="none"), answers, 2 * batch.count)


def _kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) of the distributions of two logits (N, V), in nats."""
    logps, reference_logps = logits.log_softmax(dim=1), reference_logits.log_softmax(dim=1)
    return (logps.exp() * (logps - reference_logps)).sum(dim=1)


def _by_answer(values: Tensor, answers: Tensor, count: int) -> Tensor:
    """Sums (count,) of the values (N,) that belong to each answer."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, answers, values)


def _logits_that_count(model: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, at least float32 (N, V), targets (N,) and answers (N,) of the positions whose target counts."""
    states, targets = _states_that_count(model, batch)
    logits = model.head(states)
    exact = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(exact), targets, batch.answers[batch.targets >= 0]


def _states_that_count(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """States (N, C) and targets (N,) of the positions whose target counts; the head runs on no others."""
    counts = batch.targets >= 0
    return model.hidden_states(batch.inputs, segments=batch.segments)[counts], batch.targets[counts]
