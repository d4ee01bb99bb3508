"""The checks of exercises 15 to 26: 15 to 21 are here, the counting ones, 22 to 26, in hard_costs.py.

Expected values never come from the solutions, but from torch's own functions, autograd, or the model.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.checks.hard_costs import (
    check_cache_bytes,
    check_crossover_length,
    check_forward_flops,
    check_parameter_count,
    check_tokens_per_second,
)
from exercises.checks.hard_tools import parts, require_small_tensors
from exercises.checks.judging import call, call_without, compare, given, judge, random, require
from src.model.gpt import GPTModel

Answer = Callable[..., Any]


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
        top = scores.amax(dim=-1)
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
        }
        answer = call_without(
            ("logsumexp", "logcumsumexp"), "write it with exp, sum and log", function, {"scores": scores}
        )
        compare(given({"scores": scores}), answer, torch.logsumexp(scores, dim=-1), mistakes)


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
        }
        judge(function, {"probabilities": p, "gradient": gradient}, expected, mistakes)
    p, gradient = random(2, 400, seed=1).softmax(dim=-1), random(2, 400, seed=2)
    advice = "write out the product with diag(p) - p p^T, so that the matrix itself isn't needed"
    require_small_tensors("for 2 rows of 400 scores", lambda: function(p, gradient), 2 * 400, advice)


def check_attention_backward(function: Answer) -> None:
    """Exercise 17: compare with autograd through scaled_dot_product_attention."""
    names = ("queries", "keys", "values")
    for shape in [(5, 4), (1, 3), (2, 3, 6, 4)]:
        q, k, v = (random(*shape, seed=seed).requires_grad_() for seed in range(3))
        gradient = random(*shape, seed=3)
        expected, unmasked = (
            torch.autograd.grad(F.scaled_dot_product_attention(q, k, v, is_causal=causal), (q, k, v), gradient)
            for causal in (True, False)
        )
        wrong = _attention_mistakes(q, k, v, gradient)
        inputs = {name: x.detach() for name, x in zip((*names, "gradient"), (q, k, v, gradient), strict=True)}
        where = f"for inputs of shape {shape}"
        with torch.no_grad():
            answer = parts(where, call(function, inputs), 3)
        for i, name in enumerate(names):
            mistakes = {
                "later tokens are visible: the mask is missing": unmasked[i],
                "divide by the square root of D in the backward pass too": expected[i] * math.sqrt(shape[-1]),
                **{f"this is the gradient of the {names[j]}": expected[j] for j in range(3) if i != j},
                **wrong[name],
            }
            compare(f"{where}, as gradient of the {name}", answer[i], expected[i], mistakes)


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
        hint = "compute it block by block"
        answer = call_without(("scaled_dot_product_attention",), hint, function, arguments)
        where = f"for 36 tokens in blocks of {block}"
        expected, unscaled = (
            F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale) for scale in (None, 1.0)
        )
        mistakes = {
            "later tokens are visible: the mask is missing": F.scaled_dot_product_attention(q, k, v),
            "the scores are not divided by the square root of D": unscaled,
        }
        if advice and isinstance(answer, Tensor):
            mistakes[advice] = answer
        compare(where, answer, expected, mistakes)
    q, k, v = (random(64, 8, seed=seed) for seed in range(3))
    advice = "keep scores, weights and mask for only one block of keys at a time"
    require_small_tensors("for 64 tokens in blocks of 8", lambda: function(q, k, v, 8), 64 * 8, advice)


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
            {overflow: naive},
            {no_target: p @ weight, overflow: logits.exp() / logits.exp().sum(-1, keepdim=True) @ weight},
            {no_target: p.T @ hidden, last_only: (p - F.one_hot(targets, 7))[last].T @ hidden[last]},
        )
        where = f"for 10 tokens, {rows} rows at a time" + (", large logits" if spread > 1 else "")
        with torch.no_grad():
            arguments = {"hidden": hidden, "weight": weight, "targets": targets, "rows": rows}
            answer = parts(where, call(function, arguments), 3)
        for i, name in enumerate(("loss", "gradient of hidden", "gradient of weight")):
            mistakes = {"this is the mean over the tokens, not the sum": expected[i] / 10, **wrong[i]}
            compare(f"{where}, as {name}", answer[i], expected[i], mistakes)
    hidden, weight, targets = random(256, 4, seed=1), random(64, 4, seed=2), torch.arange(256) % 64
    advice = "keep logits, and anything of their shape, for only `rows` tokens at a time"
    where = "for 256 tokens, 8 rows at a time, V 64, C 4"
    require_small_tensors(where, lambda: function(hidden, weight, targets, 8), 256 * 4, advice)


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
        }
        compare(f"{where}, as mask", mask, expected, mistakes)
        no_restart = {"every document starts at position 0": torch.arange(T)}
        expected = torch.cat([torch.arange(length) for length in lengths])
        compare(f"{where}, as positions", positions, expected, no_restart)


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
