"""The checks of exercises 15 to 26: 15 to 21 are here, the counting ones, 22 to 26, in hard_costs.py.

Expected values never come from the solutions, but from torch's own functions, autograd, or the model.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.checks.forbidden import AUTOGRAD, forbids
from exercises.checks.hard_costs import (
    check_cache_bytes,
    check_crossover_length,
    check_forward_flops,
    check_parameter_count,
    check_tokens_per_second,
)
from exercises.checks.hard_tools import parts, require_small_tensors
from exercises.checks.judging import call, compare, judge, random, require, scale_mistakes
from src.model.gpt import GPTModel

Answer = Callable[..., Any]


@forbids((r"logsumexp|logcumsumexp", "write it with exp, sum and log"))
def check_log_sum_exp(function: Answer) -> None:
    """Exercise 15: compare with torch.logsumexp, also for rows that overflow, underflow or are -inf."""
    inf = math.inf
    cases = [
        random(5, 7, seed=1),
        random(2, 3, 4, seed=2),
        torch.tensor([1000.0, 1000.0]),
        torch.tensor([-1000.0, -1001.0]),
        torch.tensor([[0.0, 1.0], [2000.0, 0.0]]),
        torch.tensor([-inf, 0.0, 1.0]),
        torch.tensor([-inf, -inf]),
    ]
    for scores in cases:
        scores = scores.double()
        top, expected = scores.amax(dim=-1), torch.logsumexp(scores, -1)
        mistakes = {
            "-inf - -inf is NaN: if the maximum is -inf, subtract something finite instead": (
                (scores - top[..., None]).exp().sum(-1).log() + top
            ),
            "exp overflows, or every term underflows to 0: subtract the maximum first": scores.exp().sum(-1).log(),
            "add the maximum back at the end": torch.logsumexp(scores - top[..., None], -1),
            "next to a larger row, a small one underflows to 0: subtract each row's own maximum": (
                (scores - scores.max()).exp().sum(-1).log() + scores.max()
            ),
            "this is the maximum, only the largest term of the sum": top,
            "the logarithm is missing": scores.exp().sum(-1),
            "take the logarithm of the sum, then add the maximum": (scores - top[..., None]).exp().sum(-1),
            "this is the logarithm of the mean: don't divide the sum": expected - math.log(scores.shape[-1]),
            "the sum runs over all scores: every row needs its own": torch.logsumexp(scores.flatten(), 0),
        }
        judge(function, {"scores": scores}, expected, mistakes)


@forbids(AUTOGRAD)
def check_softmax_backward(function: Answer) -> None:
    """Exercise 16: compare with autograd, and limit the size of intermediate tensors."""
    for shape, spread in [((3,), 1.0), ((4, 6), 1.0), ((2, 3, 5), 1.0), ((3, 4), 1e4)]:
        scores = (random(*shape, seed=1) * spread).requires_grad_()
        gradient = random(*shape, seed=2)
        probabilities = scores.softmax(dim=-1)
        (expected,) = torch.autograd.grad(probabilities, scores, gradient)
        p = probabilities.detach()
        average = (p * gradient).sum(-1, keepdim=True)
        mistakes = {
            "all scores share a denominator, so each one moves every probability, not only its own": p * gradient,
            "this is the diagonal of the Jacobian; the entries -p_i p_j off the diagonal are missing": p
            * (1 - p)
            * gradient,
            "every row needs its own average, over the last dimension": p * (gradient - (p * gradient).sum()),
            "weight the average of the gradient with the probabilities": (
                p * (gradient - gradient.mean(-1, keepdim=True))
            ),
            "multiply the gradient minus its average by the probabilities": gradient - average,
            "the average is that of the gradient, not of the probabilities": p * (gradient - 1),
            "weight the sum of the gradient with the probabilities": p * (gradient - gradient.sum(-1, keepdim=True)),
        }
        judge(function, {"probabilities": p, "gradient": gradient}, expected, mistakes)
    p, gradient = random(2, 400, seed=1).softmax(dim=-1), random(2, 400, seed=2)
    advice = "write out the product with diag(p) - p p^T, so that the matrix itself isn't needed"
    require_small_tensors("for 2 rows of 400 scores", lambda: function(p, gradient), 2 * 400, advice)


@forbids(AUTOGRAD)
def check_attention_backward(function: Answer) -> None:
    """Exercise 17: compare with autograd through scaled_dot_product_attention."""
    names = ("queries", "keys", "values")
    for shape in [(5, 4), (1, 3), (2, 3, 6, 4)]:
        q, k, v = (random(*shape, seed=seed).requires_grad_() for seed in range(3))
        gradient = random(*shape, seed=3)
        backward = partial(_gradients, q, k, v, gradient)
        expected, unmasked = backward(), backward(causal=False)
        scaled = scale_mistakes(backward, shape[-1])
        wrong = _attention_mistakes(q, k, v, gradient)
        inputs = {name: x.detach() for name, x in zip((*names, "gradient"), (q, k, v, gradient), strict=True)}
        where = f"for inputs of shape {shape}"
        answer = parts(where, call(function, inputs), 3)
        for i, name in enumerate(names):
            mistakes = {
                "later tokens are visible: the mask is missing": unmasked[i],
                "divide by the square root of D in the backward pass too": expected[i] * math.sqrt(shape[-1]),
                "divided twice by the square root of D in the backward pass": expected[i] / math.sqrt(shape[-1]),
                **{mistake: results[i] for mistake, results in scaled.items()},
                **{f"this is the gradient of the {names[j]}": expected[j] for j in range(3) if i != j},
                **wrong[name],
            }
            compare(f"{where}, as gradient of the {name}", answer[i], expected[i], mistakes)


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, gradient: Tensor, factor: float | None = None, causal: bool = True
) -> tuple[Tensor, ...]:
    """The gradients of queries, keys and values from that of the output. factor: of the scores; None is 1 / sqrt(D)."""
    y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=factor)
    return torch.autograd.grad(y, (q, k, v), gradient)


def _attention_mistakes(q: Tensor, k: Tensor, v: Tensor, gradient: Tensor) -> dict[str, dict[str, Tensor]]:
    """The gradients of queries, keys and values if one step of the backward pass is wrong."""
    T, D = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)
    weights = (scores + torch.full((T, T), -math.inf, dtype=q.dtype).triu(1)).softmax(-1)
    grad_weights, grad_scores = torch.autograd.grad(weights @ v, (weights, scores), gradient)
    elementwise = weights * grad_weights / math.sqrt(D)
    wrong_softmax = "the softmax was differentiated elementwise; use exercise 16"
    not_transposed = (
        "a (T, T) matrix has to be transposed: a key or value collects gradient from every query that looks at it"
    )
    return {
        "queries": {wrong_softmax: elementwise @ k},
        "keys": {wrong_softmax: elementwise.transpose(-2, -1) @ q, not_transposed: grad_scores @ q / math.sqrt(D)},
        "values": {not_transposed: weights @ gradient},
    }


@forbids(("attention", "compute it block by block"))
def check_blockwise_attention(function: Answer) -> None:
    """Exercise 18: compare several block sizes with scaled_dot_product_attention; limit intermediate tensors."""
    rescaling = (
        "a single block was right, so the rescaling is wrong: when the largest score grows, the total and the weighted"
        " sum so far must both be multiplied by exp(old largest - new largest)"
    )
    for block, spread, advice in [
        (36, 1.0, None),
        (12, 1.0, rescaling),
        (1, 1.0, rescaling),
        (8, 1.0, "blocks that divide the length evenly were right: here the last one has 4 keys"),
        (64, 1.0, "a block may be longer than the sequence"),
        (12, 1e3, "small scores were right, these overflow: subtract the largest score so far"),
    ]:
        q, k, v = random(2, 36, 8, seed=1) * spread, random(2, 36, 8, seed=2), random(2, 36, 8, seed=3)
        arguments = {"queries": q, "keys": k, "values": v, "block": block}
        answer = call(function, arguments)
        where = f"for 36 tokens in blocks of {block}"
        attend = partial(F.scaled_dot_product_attention, q, k, v, is_causal=True)
        expected, scaled = attend(), scale_mistakes(lambda factor, attend=attend: attend(scale=factor), 8)
        mistakes = {
            "later tokens are visible: the mask is missing": F.scaled_dot_product_attention(q, k, v),
            **scaled,
        }
        if advice and isinstance(answer, Tensor):
            mistakes[advice] = answer
        compare(where, answer, expected, mistakes)
    q, k, v = (random(64, 8, seed=seed) for seed in range(3))
    advice = "keep scores, weights and mask for only one block of keys at a time"
    require_small_tensors("for 64 tokens in blocks of 8", lambda: function(q, k, v, 8), 64 * 8, advice)


@forbids(AUTOGRAD, (r"cross_entropy|nll_loss", "write it with log_sum_exp"))
def check_chunked_cross_entropy(function: Answer) -> None:
    """Exercise 19: compare with F.cross_entropy and autograd, and limit intermediate tensors."""
    for rows, spread in [(10, 1.0), (5, 1.0), (1, 1.0), (4, 1.0), (64, 1.0), (5, 1e3)]:
        hidden, weight = random(10, 4, seed=1) * spread, random(7, 4, seed=2)
        targets = torch.arange(10) % 7
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = F.cross_entropy(h @ w.T, targets, reduction="sum")
        expected = (loss.detach(), *torch.autograd.grad(loss, (h, w)))
        logits, last = hidden @ weight.T, slice((9 // rows) * rows, None)
        p = logits.softmax(dim=-1)
        no_target = "this is the gradient of log_sum_exp alone: the loss also subtracts the target's logit"
        overflow = "exp overflows: subtract the maximum first"
        naive = (logits.exp().sum(-1).log() - logits[range(10), targets]).sum()
        last_only = "this is the last chunk's part only: sum the gradient of weight over all chunks"
        wrong: tuple[dict[str, Tensor], ...] = (
            {
                overflow: naive,
                "this is the sum of log_sum_exp alone: subtract the logits of the targets": logits.logsumexp(-1).sum(),
                "these are the losses of the tokens: add them up": F.cross_entropy(logits, targets, reduction="none"),
            },
            {no_target: p @ weight, overflow: logits.exp() / logits.exp().sum(-1, keepdim=True) @ weight},
            {no_target: p.T @ hidden, last_only: (p - F.one_hot(targets, 7))[last].T @ hidden[last]},
        )
        where = f"for 10 tokens, {rows} rows at a time" + (", large logits" if spread > 1 else "")
        arguments = {"hidden": hidden, "weight": weight, "targets": targets, "rows": rows}
        answer = parts(where, call(function, arguments), 3)
        names = ("loss", "gradient of hidden", "gradient of weight")
        for i, name in enumerate(names):
            others = {f"this is the {names[j]}": expected[j] for j in range(3) if i != j}
            mistakes = {"this is the mean over the tokens, not the sum": expected[i] / 10, **wrong[i], **others}
            compare(f"{where}, as {name}", answer[i], expected[i], mistakes)
    hidden, weight, targets = random(256, 4, seed=1), random(64, 4, seed=2), torch.arange(256) % 64
    advice = "keep logits, and anything of their shape, for only `rows` tokens at a time"
    where = "for 256 tokens, 8 rows at a time, V 64, C 4"
    require_small_tensors(where, lambda: function(hidden, weight, targets, 8), 256 * 4, advice)


@forbids(AUTOGRAD)
def check_tied_gradient(function: Answer) -> None:
    """Exercise 20: compare with autograd through the project's GPTModel."""
    config = {"vocab_size": 11, "context_length": 8, "d_model": 6, "n_heads": 2, "n_layers": 1}
    model = GPTModel(config).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = random(*parameter.shape, seed=seed)
    for what, ids in [
        ("2 rows of 3 different tokens", torch.tensor([[0, 1, 2], [3, 4, 5]])),
        ("2 rows of tokens that occur more than once", torch.tensor([[7, 7, 2, 7], [2, 10, 0, 7]])),
    ]:
        embedded: list[Tensor] = []
        with model.wte.register_forward_hook(
            lambda _module, _inputs, output, embedded=embedded: embedded.append(output)
        ):
            hidden = model.hidden_states(ids)
        logits = model.head(hidden)
        loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="sum")
        expected, by_embedded, by_logits = torch.autograd.grad(loss, (model.wte.weight, embedded[0], logits))
        hidden = hidden.detach()
        head = by_logits.flatten(0, 1).T @ hidden.flatten(0, 1)
        overwritten = head.clone()
        overwritten[ids] += by_embedded
        mistakes = {
            "this is the gradient from the head; the one from the embedding is missing": head,
            "this is the gradient from the embedding; the one from the head is missing": expected - head,
            "x[ids] += y keeps only one gradient of a token that occurs twice; index_add adds all": overwritten,
            "this is the mean over both uses; add them up": expected / 2,
        }
        arguments = {"ids": ids, "embedded_gradient": by_embedded, "hidden": hidden, "logits_gradient": by_logits}
        compare(f"for a GPT-2 on {what}", call(function, arguments), expected, mistakes)


def check_packed_inputs(function: Answer) -> None:
    """Exercise 21: compare with a block-diagonal mask and positions that restart."""
    for lengths in ([3, 2], [1], [4], [1, 1, 1], [2, 5, 1, 3]):
        where, T = f"for lengths {lengths}", sum(lengths)
        mask, positions = parts(where, call(function, {"lengths": lengths}), 2)
        kind = getattr(mask, "dtype", type(mask).__name__)
        require(kind == torch.bool, f"{where}, as mask, got {kind}, expected a tensor of torch.bool")
        squares = [torch.ones(length, length) for length in lengths]
        expected = torch.block_diag(*(square.tril() for square in squares)).bool()
        mistakes = {
            "tokens see earlier documents": torch.ones(T, T).tril().bool(),
            "tokens see later tokens of their own document": torch.block_diag(*squares).bool(),
            "this is the transpose: rows are the tokens that look, columns the tokens they look at": expected.T,
            "True means that a token may look": ~expected,
            "a token may look at itself, too": expected & ~torch.eye(T).bool(),
        }
        compare(f"{where}, as mask", mask, expected, mistakes)
        expected = torch.cat([torch.arange(length) for length in lengths])
        mistakes = {
            "every document starts at position 0": torch.arange(T),
            "the first position is 0": expected + 1,
            "this is the index of each token's document": torch.arange(len(lengths)).repeat_interleave(
                torch.tensor(lengths)
            ),
        }
        compare(f"{where}, as positions", positions, expected, mistakes)
        kind = positions.dtype
        require(kind == torch.int64, f"{where}, as positions, got the right values as {kind}, expected torch.int64")


CHECKS: dict[int, tuple[str, Callable[[Answer], None]]] = {
    15: ("log_sum_exp", check_log_sum_exp),
    16: ("softmax_backward", check_softmax_backward),
    17: ("attention_backward", check_attention_backward),
    18: ("blockwise_attention", check_blockwise_attention),
    19: ("chunked_cross_entropy", check_chunked_cross_entropy),
    20: ("tied_gradient", check_tied_gradient),
    21: ("packed_inputs", check_packed_inputs),
    22: ("parameter_count", check_parameter_count),
    23: ("forward_flops", check_forward_flops),
    24: ("crossover_length", check_crossover_length),
    25: ("cache_bytes", check_cache_bytes),
    26: ("tokens_per_second", check_tokens_per_second),
}
