"""The matrix that is embedding and head at once (Press and Wolf 2017): its cross-entropy and its gradient.

Neither the logits of all positions nor a second gradient of the matrix ever exist. N positions, C channels,
V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ROWS = 512  # of logits in memory at once, 103 MB at GPT-2's vocabulary; smaller products are slower
PIECE = 4096  # tokens of the vocabulary whose gradient is converted at once on a CPU


class TiedGradient:
    """Where the head's gradient of the one matrix waits for the embedding's, which is added to it row by row.

    Autograd would make the embedding's gradient a second (V, C), zero but for a few rows, and add the two.
    """

    def __init__(self) -> None:
        self.head: Tensor | None = None


def embed(ids: Tensor, weight: Tensor, tied: TiedGradient) -> Tensor:
    """`F.embedding(ids, weight)`, (...) to (..., C). Its gradient takes in what a head left in `tied`."""
    return _TiedEmbedding.apply(weight, ids, tied)


class _TiedEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, tied: TiedGradient) -> Tensor:
        ctx.tied, ctx.shape = tied, weight.shape
        ctx.save_for_backward(ids)
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (ids,), (gradient,) = ctx.saved_tensors, grad_outputs
        total, ctx.tied.head = ctx.tied.head, None
        if total is None:
            total = gradient.new_zeros(ctx.shape)
        return total.index_add_(0, ids.flatten(), gradient.reshape(-1, ctx.shape[1]).to(total.dtype)), None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, tied: TiedGradient | None = None) -> Tensor:
    """`F.cross_entropy(hidden @ weight.T, targets, reduction="sum")` without ever holding all logits.

    hidden (N, C), weight (V, C), targets (N,) to a scalar. The logits of a few rows are made, turned into their
    gradient in place, and overwritten by those of the next, so nothing of size (N, V) exists.
    With `tied`, the weight's gradient is left there for `embed`, which `hidden` has to come from.
    """
    if not torch.is_grad_enabled():  # inside the function it never is; what asks for no gradient makes none
        hidden, weight = hidden.detach(), weight.detach()
    return _LinearCrossEntropy.apply(hidden, weight, targets, tied)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, tied: TiedGradient | None) -> Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        h, w = hidden.to(dtype), weight.to(dtype)
        grad_hidden = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        # The first product overwrites it; to fill it with zeros before is a pass over the whole vocabulary.
        grad_weight = (torch.empty_like if len(h) else torch.zeros_like)(weight) if ctx.needs_input_grad[1] else None
        exact = torch.promote_types(dtype, torch.float32)
        chances = torch.empty(len(h), 1, dtype=exact, device=h.device)  # of the targets
        # Made once: new memory costs more than it looks. In half precision the softmax has numbers of its own.
        buffer = h.new_empty(min(CHUNK_ROWS, len(h)), len(w))
        wide = buffer if exact == dtype else torch.empty_like(buffer, dtype=exact)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(h), CHUNK_ROWS):
                part = slice(start, start + CHUNK_ROWS)
                rows, wanted = h[part], targets[part, None]
                logits = torch.mm(rows, w.T, out=buffer[: len(rows)])  # (rows, V)
                exactly = logits if wide is buffer else wide[: len(rows)].copy_(logits)
                probabilities = torch.softmax(exactly, dim=1, out=exactly if exactly.is_cpu else None)
                chances[part] = probabilities.gather(1, wanted)
                if not any(ctx.needs_input_grad):
                    continue
                less = probabilities.new_full(wanted.shape, -1.0)  # at the targets
                gradient = probabilities.scatter_add_(1, wanted, less)
                if wide is not buffer:
                    gradient = logits.copy_(gradient)
                if grad_hidden is not None:
                    grad_hidden[part] = gradient @ w
                if grad_weight is not None:
                    _add_product(grad_weight, gradient.T, rows, first=start == 0)
            losses = -chances.flatten().log()
            # What is too improbable for a number of this size is taken from the logits once more.
            for lost in (chances.flatten() < torch.finfo(exact).tiny).nonzero().flatten().split(CHUNK_ROWS):
                losses[lost] = F.cross_entropy((h[lost] @ w.T).to(exact), targets[lost], reduction="none")
        ctx.gradients = grad_hidden, grad_weight
        ctx.hidden_dtype, ctx.tied = hidden.dtype, tied
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy can be differentiated once: its gradients are scaled in place")
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


def _add_product(total: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """total += a @ b, or = where `first`; in half precision the sum is kept in total's dtype, piece by piece."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if first else 1)
        return
    at_once = PIECE if total.is_cpu else len(total)
    for some, piece in zip(total.split(at_once), a.split(at_once), strict=True):
        if first:
            some.copy_(piece @ b)
        else:
            some.add_(piece @ b)
