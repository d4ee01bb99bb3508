"""Cross-entropy through the tied output head (Press and Wolf 2017) without large temporaries.

The head is the token embedding matrix. Neither the logits of all positions nor a second gradient of that matrix is
ever in memory. N positions, C channels, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ROWS = 512  # rows of logits in memory at once: 103 MB at GPT-2's vocabulary; smaller products are slower
CONVERTED_ROWS = 4096  # rows of a half-precision gradient converted to float32 at once on a CPU


class TiedGradient:
    """Holds the head's gradient of the shared matrix until the embedding adds its rows to it.

    Autograd would allocate a second (V, C) gradient for the embedding, zero in all but a few rows, and add the two.
    """

    def __init__(self) -> None:
        self.head: Tensor | None = None


def embed(ids: Tensor, weight: Tensor, tied: TiedGradient) -> Tensor:
    """`F.embedding(ids, weight)`, (...) to (..., C). Its backward adds to the head's gradient held in `tied`."""
    return _TiedEmbedding.apply(weight, ids, tied)


class _TiedEmbedding(torch.autograd.Function):
    """The embedding. Autograd runs its backward after that of the head, because the head's input depends on it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, tied: TiedGradient) -> Tensor:
        """weight (V, C) and ids (...) to (..., C)."""
        ctx.tied, ctx.shape = tied, weight.shape
        ctx.save_for_backward(ids)
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        """The gradient (V, C) of the weight: the head's, with the rows of the ids added to it."""
        (ids,), (gradient,) = ctx.saved_tensors, grad_outputs
        total, ctx.tied.head = ctx.tied.head, None
        if total is None:
            total = gradient.new_zeros(ctx.shape)
        rows = gradient.reshape(-1, ctx.shape[1]).to(total.dtype)
        return total.index_add_(0, ids.flatten(), rows), None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, tied: TiedGradient | None = None) -> Tensor:
    """`F.cross_entropy(hidden @ weight.T, targets, reduction="sum")` without all logits in memory.

    hidden (N, C), weight (V, C), targets (N,) to a scalar. Logits are computed CHUNK_ROWS rows at a time, turned into
    their gradient in place, and overwritten by those of the next rows.
    With `tied`, the gradient of `weight` is left there for `embed`; `hidden` must be computed from its result.
    """
    if not torch.is_grad_enabled():  # autograd.Function runs with gradients disabled, so check here
        hidden, weight = hidden.detach(), weight.detach()
    return _LinearCrossEntropy.apply(hidden, weight, targets, tied)


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients in forward, while the logits exist. Backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, tied: TiedGradient | None) -> Tensor:
        """hidden (N, C), weight (V, C) and targets (N,) to the summed loss, a scalar."""
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        h, w = hidden.to(dtype), weight.to(dtype)
        grad_hidden = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            # The first product overwrites it: filling it with zeros would be a pass over the whole vocabulary.
            grad_weight = torch.empty_like(weight) if len(h) else torch.zeros_like(weight)
        with torch.autocast(kind, enabled=False):
            losses = _losses_and_gradients(h, w, targets, grad_hidden, grad_weight)
        ctx.gradients = grad_hidden, grad_weight
        ctx.hidden_dtype, ctx.tied = hidden.dtype, tied
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The gradients of hidden and weight. With `tied`, that of weight is left there for the embedding."""
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy can be differentiated only once: it scales its gradients in place")
        grad_hidden, grad_weight = ctx.gradients
        ctx.gradients = None
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(ctx.hidden_dtype).mul_(grad_outputs[0])
        if grad_weight is not None:
            grad_weight.mul_(grad_outputs[0])
        if ctx.tied is not None and grad_weight is not None:
            ctx.tied.head = grad_weight if ctx.tied.head is None else ctx.tied.head.add_(grad_weight)
            grad_weight = None
        return grad_hidden, grad_weight, None, None


def _losses_and_gradients(
    h: Tensor, w: Tensor, targets: Tensor, grad_hidden: Tensor | None, grad_weight: Tensor | None
) -> Tensor:
    """The loss of each row, (N,). Writes the gradients of their sum to `grad_hidden` and `grad_weight`, if given.

    For a chunk of rows, with p the softmax of its logits:

        gradient = p - one_hot(targets)     of the logits
        grad_hidden = gradient @ w
        grad_weight += gradient.T @ rows
    """
    compute_dtype = torch.promote_types(h.dtype, torch.float32)  # of the softmax
    target_probs = torch.empty(len(h), 1, dtype=compute_dtype, device=h.device)
    # Reuse one buffer: allocating per chunk is measurably slower. Half precision needs a second one in float32.
    buffer = h.new_empty(min(CHUNK_ROWS, len(h)), len(w))
    fp32_buffer = buffer if compute_dtype == h.dtype else torch.empty_like(buffer, dtype=compute_dtype)
    for start in range(0, len(h), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        rows, target_ids = h[chunk], targets[chunk, None]
        logits = torch.mm(rows, w.T, out=buffer[: len(rows)])  # (rows, V)
        fp32_logits = logits if fp32_buffer is buffer else fp32_buffer[: len(rows)].copy_(logits)
        probs = torch.softmax(fp32_logits, dim=1, out=fp32_logits if fp32_logits.is_cpu else None)
        target_probs[chunk] = probs.gather(1, target_ids)
        if grad_hidden is None and grad_weight is None:
            continue
        minus_one = probs.new_full(target_ids.shape, -1.0)
        gradient = probs.scatter_add_(1, target_ids, minus_one)
        if fp32_buffer is not buffer:
            gradient = logits.copy_(gradient)
        if grad_hidden is not None:
            grad_hidden[chunk] = gradient @ w
        if grad_weight is not None:
            _add_product(grad_weight, gradient.T, rows, first=start == 0)
    return _losses(target_probs.flatten(), h, w, targets)


def _losses(target_probs: Tensor, h: Tensor, w: Tensor, targets: Tensor) -> Tensor:
    """-log of the targets' probabilities (N,), recomputed from the logits for those that underflowed."""
    losses = -target_probs.log()
    underflowed = (target_probs < torch.finfo(target_probs.dtype).tiny).nonzero().flatten()
    for some in underflowed.split(CHUNK_ROWS):
        losses[some] = F.cross_entropy((h[some] @ w.T).to(losses.dtype), targets[some], reduction="none")
    return losses


def _add_product(total: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """total += a @ b, or total = a @ b if `first`. A half-precision product is added in the dtype of `total`."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if first else 1)
        return
    rows = CONVERTED_ROWS if total.is_cpu else len(total)
    for total_rows, a_rows in zip(total.split(rows), a.split(rows), strict=True):
        if first:
            total_rows.copy_(a_rows @ b)
        else:
            total_rows.add_(a_rows @ b)
