"""The checks of exercises 1 to 14. Those of 1 to 9 are here, those of whole heads in heads.py.

Every expected value comes from somewhere else than the solutions: torch's own functions, or row by row.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.checks.forbidden import FUSED_ATTENTION, forbids
from exercises.checks.heads import (
    check_cached_attention,
    check_merge_heads,
    check_multi_head_attention,
    check_order_gap,
    check_split_heads,
)
from exercises.checks.judging import as_tensor, call, compare, given, judge, random, require, scale_mistakes

Answer = Callable[..., Tensor]


@forbids((r"dot|inner|matmul|^mv$|einsum|linear", "write it with * and a sum"))
def check_dot_product(function: Answer) -> None:
    """Exercise 1: compare with torch.dot."""
    pairs = [
        (torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 1.0, 5.0])),
        (torch.tensor([1.0, 2.0]), torch.tensor([2.0, -1.0])),
        (random(1, seed=1), random(1, seed=2)),
        (random(64, seed=3), random(64, seed=4)),
    ]
    for a, b in pairs:
        mistakes = {
            "these are the products; they still have to be added up": a * b,
            "this is the cosine of the angle; the lengths of the vectors matter too": F.cosine_similarity(a, b, 0),
            "this is the mean of the products, not their sum": (a * b).mean(),
            "this is sum(a) * sum(b); multiply only numbers at the same position": a.sum() * b.sum(),
        }
        judge(function, {"a": a, "b": b}, torch.dot(a, b), mistakes)


def check_score_matrix(function: Answer) -> None:
    """Exercise 2: compare with einsum, also for square inputs, where a missing transpose goes unnoticed."""
    for n_queries, n_keys, size in [(2, 3, 4), (3, 3, 3), (1, 5, 2), (4, 1, 1)]:
        queries, keys = random(n_queries, size, seed=n_queries), random(n_keys, size, seed=10 + n_keys)
        expected = torch.einsum("td,sd->ts", queries, keys)
        mistakes = {
            "this is the transpose: row t belongs to query t, column s to key s": expected.T,
            "the scores are scaled: that is exercise 3": expected / size**0.5,
        }
        if n_keys == size:
            mistakes["transpose the keys: here their columns were used as keys"] = queries @ keys
        if n_keys == n_queries:
            products = (queries * keys).sum(1)
            mistakes["this pairs query t only with key t; pair every query with every key"] = products
        judge(function, {"queries": queries, "keys": keys}, expected, mistakes)


def check_scaled_scores(function: Answer) -> None:
    """Exercise 3: compare with einsum divided by sqrt(D), with and without leading dimensions."""
    for shape, n_keys in [((3, 4), 5), ((1, 1), 2), ((2, 3, 5, 16), 4), ((9, 9), 9)]:
        queries, keys = random(*shape, seed=n_keys), random(*shape[:-2], n_keys, shape[-1], seed=20)
        size = shape[-1]
        plain = torch.einsum("...td,...sd->...ts", queries, keys)
        mistakes = {
            "the scores are not scaled": plain,
            "divided by D, or twice by its square root: divide once by the square root": plain / size,
            "divided by the square root of the number of keys; use D, the length of a query": plain / n_keys**0.5,
            "divided by the square root of the number of queries; use D, the length of one": plain / shape[-2] ** 0.5,
            "multiplied by the square root of D instead of divided": plain * size**0.5,
        }
        judge(function, {"queries": queries, "keys": keys}, plain / math.sqrt(size), mistakes)


@forbids((r"softm|logsumexp|logcumsumexp", "write it with torch.exp and a sum"))
def check_softmax(function: Answer) -> None:
    """Exercise 4: compare with torch.softmax, also for large scores and -inf; torch's own may not be called."""
    cases = [
        torch.tensor([0.0, 1.0, 2.0]),
        random(3, 5, seed=1),
        random(2, 3, 4, 4, seed=2),
        torch.tensor([[0.0, -math.inf], [-math.inf, 3.0]]),
        torch.tensor([[1000.0, 1001.0], [0.0, 1.0]]),
        torch.full((7,), -500.0),
    ]
    for scores in cases:
        by_the_largest_of_all = (scores - scores.max()).exp()
        mistakes = {
            "each row must sum to 1, but here the columns do: sum over the last dimension": scores.softmax(0),
            "the whole tensor sums to 1, but each row has to": scores.flatten().softmax(0).view(scores.shape),
            "the scores are divided by their sum without torch.exp first": scores / scores.sum(-1, keepdim=True),
            "torch.exp overflows for large scores and underflows for very negative ones: subtract the row's largest"
            " score first": scores.exp() / scores.exp().sum(-1, keepdim=True),
            "the largest of all scores was subtracted; each row needs its own, or its weights vanish": (
                by_the_largest_of_all / by_the_largest_of_all.sum(-1, keepdim=True)
            ),
            "not divided by the sum": (scores - scores.amax(-1, keepdim=True)).exp(),
            "these are only the exponentials: divide them by their sum": scores.exp(),
        }
        judge(function, {"scores": scores}, torch.softmax(scores, dim=-1), mistakes)


def check_weighted_sum(function: Answer) -> None:
    """Exercise 5: compare with einsum."""
    for leading, n_rows, n_values, size in [((), 2, 3, 4), ((), 3, 3, 2), ((2, 3), 4, 4, 5), ((), 1, 1, 3)]:
        weights = random(*leading, n_rows, n_values, seed=n_rows).softmax(-1)
        values = random(*leading, n_values, size, seed=30)
        expected = torch.einsum("...ts,...sd->...td", weights, values)
        unweighted_sum = values.sum(-2, keepdim=True).expand(expected.shape)
        mistakes = {
            "all values are weighted equally: use the weight of each one": unweighted_sum,
            "this is the plain mean of the values: use the weight of each one": unweighted_sum / n_values,
            "the weights already sum to 1: don't apply softmax again": weights.softmax(-1) @ values,
            "the weights already sum to 1: don't divide by the number of values": expected / n_values,
        }
        if n_rows == n_values:
            mistakes["the weights are transposed: row t holds the weights of token t"] = weights.mT @ values
        judge(function, {"weights": weights, "values": values}, expected, mistakes)


@forbids(FUSED_ATTENTION)
def check_self_attention(function: Answer) -> None:
    """Exercise 6: compare with scaled_dot_product_attention without a mask."""
    for n_tokens, channels, size in [(3, 2, 2), (5, 6, 4), (1, 3, 2), (4, 4, 4)]:
        x = random(n_tokens, channels, seed=n_tokens)
        w_query, w_key, w_value = random(3, channels, size, seed=40)
        q, k, v = x @ w_query, x @ w_key, x @ w_value
        expected = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        scores = q @ k.T / math.sqrt(size)
        mistakes = {
            **scale_mistakes(partial(_attend, q, k, v), size),
            "the scores are divided by the square root of the number of tokens; use D, the length of a query": (
                _attend(q, k, v, 1 / math.sqrt(n_tokens))
            ),
            "the scores are divided by the square root of C; use D, the length of a query": (
                _attend(q, k, v, 1 / math.sqrt(channels))
            ),
            "softmax ran over the queries: it must run over the keys, the last dimension": scores.softmax(0) @ v,
            "the weights were applied to x: apply them to the values, x @ w_value": scores.softmax(-1) @ x,
            "the weights were applied to the keys: apply them to the values, x @ w_value": scores.softmax(-1) @ k,
            "without softmax the weights do not sum to 1": scores @ v,
            "queries and keys are swapped": scores.mT.softmax(-1) @ v,
            "a causal mask was applied: this exercise has none": (
                F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
            ),
        }
        arguments = {"x": x, "w_query": w_query, "w_key": w_key, "w_value": w_value}
        judge(function, arguments, expected, mistakes)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, factor: float) -> Tensor:
    """Attention without a mask, its scores multiplied by a factor."""
    return (queries @ keys.mT * factor).softmax(-1) @ values


def check_causal_mask(function: Answer) -> None:
    """Exercise 7: compare with row >= column, and require torch.bool."""
    for n_tokens in (4, 1, 2, 7):
        where = given({"n_tokens": n_tokens})
        expected = torch.tensor([[column <= row for column in range(n_tokens)] for row in range(n_tokens)])
        answer = as_tensor(where, call(function, {"n_tokens": n_tokens}))
        mistakes = {
            "this is the transpose: row t belongs to the token that looks, and it sees columns up to t": expected.T,
            "a token may look at itself as well, so the diagonal is True": expected & ~torch.eye(n_tokens).bool(),
            "this is the opposite: True means that the token may look": ~expected,
            "a token sees the one after it: the last True of each row is on the diagonal": (
                torch.ones(n_tokens, n_tokens).tril(1).bool()
            ),
            "every token sees every other one": torch.ones_like(expected),
            "0 and -inf are added to scores; return True and False here": (
                torch.zeros(n_tokens, n_tokens).masked_fill(~expected, -math.inf)
            ),
        }
        compare(where, answer, expected, mistakes)
        require(answer.dtype == torch.bool, f"{where}, got the right values as {answer.dtype}, expected torch.bool")


def check_causal_weights(function: Answer) -> None:
    """Exercise 8: compare with the softmax of each row's visible scores."""
    # In the third case a later score is so large that softmax without a mask gives earlier tokens exactly 0.
    late_and_large = torch.tensor([[0.0, 1.0, 2000.0], [1.0, 0.0, 2000.0], [0.0, 0.0, 1.0]])
    for scores in [random(4, 4, seed=1), random(2, 3, 5, 5, seed=2), late_and_large, torch.tensor([[3.0]])]:
        n_tokens = scores.shape[-1]
        expected = torch.zeros_like(scores)
        for row in range(n_tokens):
            expected[..., row, : row + 1] = torch.softmax(scores[..., row, : row + 1], dim=-1)
        allowed = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril()
        cut_after, masked = scores.softmax(-1) * allowed, scores.masked_fill(~allowed, -math.inf)
        mistakes = {
            "masked after softmax: the rows no longer sum to 1; mask the scores before softmax": cut_after,
            "masked after softmax, then divided by a sum that can underflow: mask the scores before softmax": (
                cut_after / cut_after.sum(-1, keepdim=True)
            ),
            "a masked score of 0 still gets exp(0), which is 1: set it to -inf": (scores * allowed).softmax(-1),
            "the mask is transposed: it hides earlier tokens instead of later ones": (
                scores.masked_fill(~allowed.T, -math.inf).softmax(-1)
            ),
            "the mask is missing: later tokens have weight": scores.softmax(-1),
            "a token looks at itself, too: its own score must not be masked": (
                scores.masked_fill(~allowed.tril(-1), -math.inf).softmax(-1)
            ),
            "masked_fill fills the positions where its mask is True: give it those that are not allowed": (
                scores.masked_fill(allowed, -math.inf).softmax(-1)
            ),
            "softmax ran over the queries: it must run over the keys, the last dimension": masked.softmax(-2),
            "these are the masked scores: softmax is missing": masked,
            "the scores are scaled already: don't divide them again": (masked / math.sqrt(n_tokens)).softmax(-1),
        }
        judge(function, {"scores": scores}, expected, mistakes)


@forbids(FUSED_ATTENTION)
def check_newest_token_attention(function: Answer) -> None:
    """Exercise 9: compare with the last row of causal scaled_dot_product_attention."""
    for n_tokens, size in [(5, 4), (1, 3), (3, 9), (4, 4)]:
        q, keys, values = random(3, n_tokens, size, seed=n_tokens)
        # Causal attention of all tokens; the last row is that of the newest one.
        expected = F.scaled_dot_product_attention(q[None], keys[None], values[None], is_causal=True)[0, -1]
        mistakes = {
            "the query saw only the first token, as if it were at position 0: the newest token sees all": values[0],
            "the query saw only the newest token itself: it sees all of them": values[-1],
            **scale_mistakes(partial(_attend, q[-1], keys, values), size),
            "the scores are divided by the square root of the number of tokens; use D": (
                _attend(q[-1], keys, values, 1 / math.sqrt(n_tokens))
            ),
            "the weights were applied to the keys: apply them to the values": (
                _attend(q[-1], keys, keys, 1 / math.sqrt(size))
            ),
            "without softmax the weights do not sum to 1": q[-1] @ keys.T / math.sqrt(size) @ values,
            "all values are weighted equally: the weights come from the query and the keys": values.mean(0),
        }
        judge(function, {"query": q[-1], "keys": keys, "values": values}, expected, mistakes)


CHECKS: dict[int, tuple[str, Callable[[Callable], None]]] = {
    1: ("dot_product", check_dot_product),
    2: ("score_matrix", check_score_matrix),
    3: ("scaled_scores", check_scaled_scores),
    4: ("softmax", check_softmax),
    5: ("weighted_sum", check_weighted_sum),
    6: ("self_attention", check_self_attention),
    7: ("causal_mask", check_causal_mask),
    8: ("causal_weights", check_causal_weights),
    9: ("newest_token_attention", check_newest_token_attention),
    10: ("split_heads", check_split_heads),
    11: ("merge_heads", check_merge_heads),
    12: ("multi_head_attention", check_multi_head_attention),
    13: ("order_gap", check_order_gap),
    14: ("cached_attention", check_cached_attention),
}
