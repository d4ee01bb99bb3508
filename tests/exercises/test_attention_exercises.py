"""Exercises 1 to 14: examples hold, solutions pass, and common mistakes are named."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exercises import attention, check
from exercises.checks.attention import CHECKS
from exercises.checks.judging import compare
from exercises.solutions import attention as solutions
from tests.exercises.proof import ROOT, example_problems, layout_problems, number_problems, sections

TASKS = ROOT / "exercises/attention_exercises.md"
ANSWERS = ROOT / "exercises/solutions/attention.md"
NAMES = {name: getattr(solutions, name) for name, _ in CHECKS.values()}
STUBS = {number: getattr(attention, name) for number, (name, _) in CHECKS.items()}


# --- the text


def test_every_exercise_has_signature_example_command_and_hints() -> None:
    assert layout_problems(TASKS.read_text(encoding="utf-8"), STUBS) == []


@pytest.mark.parametrize("text", [TASKS, ANSWERS], ids=lambda path: path.name)
def test_every_example_and_number_in_the_text_is_right(text: Path) -> None:
    content = text.read_text(encoding="utf-8")
    assert example_problems(content, NAMES) == []
    assert number_problems(content, NAMES) == []


def test_every_exercise_has_a_worked_answer_with_the_same_title() -> None:
    tasks, answers = (sections(path.read_text(encoding="utf-8")) for path in (TASKS, ANSWERS))
    assert {n: task.split("\n")[0] for n, task in tasks.items()} == {n: a.split("\n")[0] for n, a in answers.items()}


# --- solutions and stubs


@pytest.mark.parametrize("number", CHECKS)
def test_solution_passes_its_check(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(number), "--solution"]) == 0
    assert capsys.readouterr().out == f"exercise {number} ({CHECKS[number][0]}): right\n"


@pytest.mark.parametrize("number", CHECKS)
def test_stub_and_solution_signatures_match(number: int) -> None:
    assert inspect.signature(STUBS[number]) == inspect.signature(NAMES[CHECKS[number][0]])
    assert STUBS[number].__doc__


# --- mistakes


def heads_of(x: Tensor, layer: Any, n_heads: int) -> list[Tensor]:
    return [solutions.split_heads(part, n_heads) for part in layer(x).split(x.shape[2], dim=2)]


def mixed_heads_of(x: Tensor, layer: Any, n_heads: int) -> list[Tensor]:
    return [part.reshape(len(x), n_heads, x.shape[1], -1) for part in layer(x).split(x.shape[2], dim=2)]


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, scale: float | None = None) -> Tensor:
    """What F.scaled_dot_product_attention computes, which answers may not call."""
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool)
    return masked(scores, allowed.tril() if causal else allowed).softmax(-1) @ v


def gap(attention: Callable[[Tensor], Tensor], x: Tensor, order: Tensor) -> Tensor:
    return attention(x[order]) - attention(x)[order]


def extended(cached: Tensor, new: Tensor) -> Tensor:
    return torch.cat([cached, new], 2)


def masked(scores: Tensor, allowed: Tensor, value: float = -math.inf) -> Tensor:
    return scores.masked_fill(~allowed, value)


MISTAKES: list[tuple[int, Callable[..., Any], str]] = [
    (1, lambda a, b: a * b, "added up"),
    (1, lambda a, b: F.cosine_similarity(a, b, 0), "cosine"),
    (1, lambda a, b: (a * b).mean(), "mean"),
    (1, lambda a, b: a.sum() * b.sum(), "same position"),
    (1, lambda a, b: None, "needs a return"),
    (1, lambda a, b: "5", "got a str, expected a tensor"),
    (1, lambda a, b: (a * b).sum().item(), "got a float, expected a tensor"),
    (1, lambda a, b: -(a * b).sum(), "the sign is wrong"),
    (1, lambda a, b: (a * b).sum(0, keepdim=True), "right, but not the shape"),
    (1, lambda a, b: torch.einsum("i,i->", a, b), "torch's own einsum: write it with * and a sum"),
    (2, lambda q, k: k @ q.T, "transpose"),
    (2, lambda q, k: q @ k.T / q.shape[1] ** 0.5, "exercise 3"),
    (3, lambda q, k: k @ q.mT / q.shape[-1] ** 0.5, "transpose the result"),
    (2, lambda q, k: q @ k if k.shape[0] == k.shape[1] else q @ k.T, "columns were used as keys"),
    (2, lambda q, k: (q * k).sum(1) if q.shape == k.shape else q @ k.T, "every query with every key"),
    (3, lambda q, k: q @ k.mT, "not scaled"),
    (3, lambda q, k: q @ k.mT / q.shape[-1], "divided by D, or twice"),
    (3, lambda q, k: q @ k.mT / math.sqrt(k.shape[-2]), "number of keys"),
    (3, lambda q, k: q @ k.mT / math.sqrt(q.shape[-2]), "number of queries"),
    (3, lambda q, k: q @ k.mT * math.sqrt(q.shape[-1]), "multiplied"),
    (4, lambda s: s.exp() / s.exp().sum(-1, keepdim=True), "subtract the row's largest"),
    (4, lambda s: (e := (s - s.max()).exp()) / e.sum(0), "the columns do"),
    (4, lambda s: (e := (s - s.max()).exp()) / e.sum(-1, keepdim=True), "each row needs its own"),
    (4, lambda s: s / s.sum(-1, keepdim=True), "without torch.exp"),
    (4, lambda s: torch.softmax(s, -1), "torch's own softmax: write it with torch.exp"),
    (4, lambda s: s.softmax(dim=-1), "torch's own softmax: "),
    (4, lambda s: F.softmax(s, -1), "own softmax"),
    (4, lambda s: nn.Softmax(-1)(s), "calls torch's own softmax"),
    (4, lambda s: s.log_softmax(-1).exp(), "calls torch's own"),
    (4, lambda s: F.softmin(-s, -1), "calls torch's own softmin"),
    (4, lambda s: nn.Softmin(-1)(-s), "calls torch's own softmin"),
    (4, lambda s: (s - s.logsumexp(-1, keepdim=True)).exp(), "torch's own logsumexp"),
    (4, lambda s: s.exp(), "divide them by their sum"),
    (4, lambda s: (e := (s - s.amin(-1, keepdim=True)).exp()) / e.sum(-1, keepdim=True), "NaN comes from inf - inf"),
    (4, lambda s: (e := (s - s.max()).exp()) / e.sum(), "each row has to"),
    (4, lambda s: (s - s.amax(-1, keepdim=True)).exp(), "not divided"),
    (5, lambda w, v: w.mT @ v if w.shape[-1] == w.shape[-2] else w @ v, "weights are transposed"),
    (5, lambda w, v: v.mean(-2, keepdim=True).expand_as(w @ v), "plain mean"),
    (5, lambda w, v: v.sum(-2, keepdim=True).expand_as(w @ v), "weighted equally"),
    (5, lambda w, v: w.softmax(-1) @ v, "don't apply softmax again"),
    (5, lambda w, v: (w @ v).mT, "transpose the result"),
    (5, lambda w, v: 3 * (w @ v), "every number is 3 times the expected one"),
    (6, lambda x, q, k, v: F.scaled_dot_product_attention(x @ q, x @ k, x @ v), "from your own functions"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T / q.shape[1]).softmax(-1) @ x @ v, "or twice by its square root"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T * q.shape[1] ** 0.5).softmax(-1) @ x @ v, "divide by it"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T / q.shape[1] ** 0.5).softmax(-1) @ x @ k, "applied to the keys"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T).softmax(-1) @ x @ v, "not divided"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T / x.shape[1] ** 0.5).softmax(-1) @ x @ v, "root of C"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T / q.shape[1] ** 0.5).softmax(0) @ x @ v, "over the queries"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T / q.shape[1] ** 0.5).softmax(-1) @ x, "applied to x"),
    (6, lambda x, q, k, v: (x @ q @ (x @ k).T / q.shape[1] ** 0.5) @ x @ v, "without softmax"),
    (6, lambda x, q, k, v: (x @ k @ (x @ q).T / q.shape[1] ** 0.5).softmax(-1) @ x @ v, "are swapped"),
    (6, lambda x, q, k, v: attend(*(t[None] for t in (x @ q, x @ k, x @ v)))[0], "causal mask was applied"),
    (7, lambda n: torch.ones(n, n).triu().bool(), "the transpose"),
    (7, lambda n: torch.ones(n, n).tril(-1).bool(), "itself as well"),
    (7, lambda n: torch.ones(n, n).triu(1).bool(), "the opposite"),
    (7, lambda n: torch.full((n, n), -math.inf).triu(1), "added to scores"),
    (7, lambda n: torch.ones(n, n).tril(1).bool(), "sees the one after it"),
    (7, lambda n: torch.ones(n, n).bool(), "every token sees"),
    (7, lambda n: torch.ones(n, n).tril(), "expected torch.bool"),
    (8, lambda s: masked(s, torch.ones_like(s).tril(-1).bool()).softmax(-1), "its own score must not be masked"),
    (8, lambda s: masked(s, ~solutions.causal_mask(s.shape[-1])).softmax(-1), "those that are not allowed"),
    (8, lambda s: masked(s, solutions.causal_mask(s.shape[-1])), "softmax is missing"),
    (8, lambda s: masked(s, solutions.causal_mask(s.shape[-1])).softmax(-2), "over the queries"),
    (8, lambda s: s.softmax(-1).tril(), "masked after softmax: the rows"),
    (8, lambda s: (w := s.softmax(-1).tril()) / w.sum(-1, keepdim=True), "can underflow"),
    (8, lambda s: s.tril().softmax(-1), "gets exp(0)"),
    (8, lambda s: masked(s, solutions.causal_mask(s.shape[-1]).T).softmax(-1), "mask is transposed"),
    (8, lambda s: s.softmax(-1), "mask is missing"),
    (8, lambda s: s.masked_fill_(~solutions.causal_mask(s.shape[-1]), -math.inf).softmax(-1), "changed its argument"),
    (9, lambda q, k, v: attend(q[None, None], k[None], v[None])[0, 0], "only the first token"),
    (9, lambda q, k, v: v[-1], "only the newest token"),
    (9, lambda q, k, v: (k @ q).softmax(0) @ v, "not divided"),
    (9, lambda q, k, v: (k @ q / len(k) ** 0.5).softmax(0) @ v, "number of tokens"),
    (9, lambda q, k, v: v.mean(0), "weighted equally"),
    (9, lambda q, k, v: (k @ q / len(q)).softmax(0) @ v, "twice by its square root"),
    (9, lambda q, k, v: (k @ q / len(q) ** 0.5).softmax(0) @ k, "applied to the keys"),
    (9, lambda q, k, v: F.scaled_dot_product_attention(q[None], k, v)[0], "scaled_dot_product_attention"),
    (10, lambda x, h: x.view(*x.shape[:2], h, -1).permute(2, 0, 1, 3), "in the wrong order"),
    (10, lambda x, h: x.view(x.shape[0], h, x.shape[1], -1), "mixed up"),
    (10, lambda x, h: x.view(*x.shape[:2], h, -1), "have to be swapped"),
    (10, lambda x, h: x.view(*x.shape[:2], -1, h).permute(0, 3, 1, 2), "every H-th"),
    (11, lambda y: y.reshape(y.shape[0], y.shape[2], -1), "mixed up"),
    (11, lambda y: y.permute(0, 2, 3, 1).reshape(y.shape[0], y.shape[2], -1), "side by side"),
    (11, lambda y: y.sum(1), "added up"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*heads_of(x, a, h), causal=False))), "mask is missing"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*heads_of(x, a, h), scale=x.shape[2] ** -0.5))), "of C"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*heads_of(x, a, h), scale=1.0))), "not divided"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*(heads_of(x, a, h)[i] for i in (1, 0, 2))))), "in this"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*(heads_of(x, a, h)[i] for i in (0, 2, 1))))),
     "keys and values are swapped"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*heads_of(x, a, 1)))), "one head"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*mixed_heads_of(x, a, h)))), "are split"),
    (12, lambda x, a, p, h: p(attend(*heads_of(x, a, h)).reshape(x.shape)), "are merged"),
    (12, lambda x, a, p, h: solutions.merge_heads(attend(*heads_of(x, a, h))), "c_proj is missing"),
    (12, lambda x, a, p, h: solutions.merge_heads(attend(*heads_of(x, a, h))) @ p.weight.T, "bias of c_proj"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*heads_of(x, lambda x: x @ a.weight.T, h)))), "of c_attn"),
    (12, lambda x, a, p, h: p(solutions.merge_heads(attend(*heads_of(x, a, h), scale=h / x.shape[2]))), "or twice"),
    (12, lambda x, a, p, h: x + p(solutions.merge_heads(attend(*heads_of(x, a, h)))), "x is added"),
    (12, lambda x, a, p, h: nn.MultiheadAttention(x.shape[2], h).double()(x, x, x)[0], "own multi_head_attention"),
    (13, lambda f, x, order: (f(x[order]) - f(x)).abs().max().item(), "reorder the attention"),
    (13, lambda f, x, order: (f(x[order])[order] - f(x)).abs().max().item(), "wrong way"),
    (13, lambda f, x, order: gap(f, x, order).max().item(), "absolute values first"),
    (13, lambda f, x, order: gap(f, x, order).abs().mean().item(), "mean"),
    (13, lambda f, x, order: gap(f, x, order).abs().sum().item(), "sum"),
    (13, lambda f, x, order: gap(f, x, order).abs(), "all the differences"),
    (13, lambda f, x, order: gap(f, x, order).abs().max(), "got a tensor, expected a float"),
    (14, lambda q, k, v, K, V: (attend(q, K := extended(K, k), V := extended(V, v)), K, V), "sees S + t + 1"),
    (14, lambda q, k, v, K, V: (attend(q, K := extended(K, k), V := extended(V, v), causal=False), K, V), "later new"),
    (14, lambda q, k, v, K, V: (attend(q, k, v), extended(K, k), extended(V, v)), "ignore the cache"),
    (14, lambda q, k, v, K, V: (attend(q, k, v), extended(k, K), extended(v, V)), "cached ones come first"),
    (14, lambda q, k, v, K, V: (attend(q, k, v), extended(K, k), extended(v, V)), "as values"),
    (14, lambda q, k, v, K, V: (attend(q, k, v), K, extended(V, v)), "only the cached ones"),
    (14, lambda q, k, v, K, V: (attend(q, k, v), k, v), "only the new ones"),
    (14, lambda q, k, v, K, V: (attend(q, k, v), extended(V, v), extended(K, k)), "then the keys, then the values"),
    (14, lambda q, k, v, K, V: (attend(q, k, v, scale=1 / q.shape[-1]), extended(K, k), extended(V, v)), "twice"),
    (14, lambda q, k, v, K, V: attend(q, k, v), "got a tensor, expected a tuple of three: "),
]  # fmt: skip


@pytest.mark.parametrize(("number", "wrong", "hint"), MISTAKES, ids=[f"{n}: {hint}" for n, _, hint in MISTAKES])
def test_a_common_mistake_fails_with_a_message_that_names_it(number: int, wrong: Callable[..., Any], hint: str) -> None:
    with pytest.raises(AssertionError) as refused:
        CHECKS[number][1](wrong)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_exercise_has_at_least_two_mistakes() -> None:
    assert min(sum(number == mistake[0] for mistake in MISTAKES) for number in CHECKS) >= 2


def test_message_points_at_the_largest_difference() -> None:
    with pytest.raises(AssertionError, match=r"^here, got 1 at \[2\], expected 3$"):
        compare("here", torch.tensor([-math.inf, 1.0, 1.0]), torch.tensor([-math.inf, 2.0, 3.0]))


def test_a_float32_answer_passes() -> None:
    CHECKS[6][1](lambda *tensors: solutions.self_attention(*(tensor.float() for tensor in tensors)))
