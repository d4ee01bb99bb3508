"""The losses of all stages. Each takes (model, batch) and gives (sum over what the batch counts, sums of metrics).

The loop divides both by the count of the whole step: a mean of means is wrong as soon as counts differ.
A target below 0 is one to leave out. B rows, T tokens, N tokens that count, C channels, V vocabulary, P pairs.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "robust"]
Metrics = dict[str, Tensor]

CHUNK_ROWS = 128  # rows of logits in memory at once: 25 MB at GPT-2's vocabulary


def language_model_loss(model: Any, batch: Any) -> tuple[Tensor, Metrics]:
    """Sum of the cross-entropies, in nats, of the targets that count: scalar, no further metrics."""
    hidden, targets, _ = _states_that_count(model, batch)
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
        grad_weight = torch.zeros_like(weight) if needs_gradient else None
        exact = torch.promote_types(dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=hidden.device)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(h), CHUNK_ROWS):
                rows, wanted = h[start : start + CHUNK_ROWS], targets[start : start + CHUNK_ROWS, None]
                logits = (rows @ w.T).to(exact)  # (rows, V)
                log_z = logits.logsumexp(dim=1, keepdim=True)
                total += (log_z - logits.gather(1, wanted)).sum()
                if grad_hidden is not None and grad_weight is not None:
                    gradient = logits.sub_(log_z).exp_()  # softmax, in place
                    gradient.scatter_add_(1, wanted, torch.full_like(log_z, -1.0))
                    gradient = gradient.to(dtype)
                    torch.mm(gradient, w, out=grad_hidden[start : start + CHUNK_ROWS])
                    _add_product(grad_weight, gradient.T, rows)
        if needs_gradient:
            ctx.save_for_backward(grad_hidden, grad_weight)
            ctx.hidden_dtype = hidden.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.to(ctx.hidden_dtype) * grad_outputs[0], grad_weight * grad_outputs[0], None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, in one kernel where the dtypes agree; in half precision the sum is kept in total's."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
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


def preference_loss(
    model: Any,
    batch: Any,
    *,
    reference: Any,
    beta: float,
    loss: PreferenceLoss = "sigmoid",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Metrics]:
    """Sum of `dpo_loss` over the pairs of a batch, and sums over pairs of what tells how the alignment goes.

    `reference` is the frozen model that training started from. margin: beta times the difference of the log-ratios;
    kl: of the policy from the reference, mean over the pair's response tokens, over the whole vocabulary.
    """
    policy_logps, rows = response_logprobs(model, batch)  # (N, V)
    with torch.no_grad():
        reference_logps, _ = response_logprobs(reference, batch)
        kl = (policy_logps.exp() * (policy_logps - reference_logps)).sum(dim=1)  # (N,)
    targets = batch.targets[batch.targets >= 0][:, None]
    P = batch.count
    lengths = torch.bincount(rows, minlength=2 * P)  # (2P,)
    policy, ref = (
        _by_row(logps.gather(1, targets)[:, 0], rows, 2 * P) for logps in (policy_logps, reference_logps)
    )  # (2P,)
    losses = dpo_loss(
        *policy.split(P), *ref.split(P), beta=beta, loss=loss, label_smoothing=label_smoothing, lengths=lengths.split(P)
    )
    rewards = beta * (policy - ref).detach()
    margin = rewards[:P] - rewards[P:]
    kl_sums = _by_row(kl, rows, 2 * P)
    metrics = {
        "margin": margin.sum(),
        "accuracy": (margin > 0).float().sum(),
        "chosen_logp": policy[:P].detach().sum(),
        "rejected_logp": policy[P:].detach().sum(),
        "kl": ((kl_sums[:P] + kl_sums[P:]) / (lengths[:P] + lengths[P:])).sum(),
        "chosen_tokens": lengths[:P].float().sum(),
        "rejected_tokens": lengths[P:].float().sum(),
    }
    return losses.sum(), metrics


def _by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums (count,) of the values (N,) that belong to each row."""
    return torch.zeros(count, device=values.device).index_add(0, rows, values)


def response_logprobs(model: Any, batch: Any) -> tuple[Tensor, Tensor]:
    """Log-probabilities over the vocabulary, float32 (N, V), where a target counts, and the row (N,) of each."""
    hidden, _, rows = _states_that_count(model, batch)
    return torch.log_softmax(model.head(hidden).float(), dim=1), rows


def _states_that_count(model: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """States (N, C), targets (N,) and rows (N,) of the positions whose target counts; the head runs on no others."""
    counts = batch.targets >= 0
    rows = counts.nonzero()[:, 0]
    return model.hidden_states(batch.inputs)[counts], batch.targets[counts], rows
