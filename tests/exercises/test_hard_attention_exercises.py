"""Exercises 15 to 26: solutions pass, stubs fail, common mistakes are named, and examples hold."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from exercises import hard_attention as stubs
from exercises.checks.hard_attention import CHECKS
from exercises.checks.judging import CallFailedError
from exercises.solutions import hard_attention as solutions
from src.model.attention import MultiHeadAttention
from src.model.gpt import GPT_CONFIGS, GPTModel
from tests.exercises.proof import ROOT, example_problems, layout_problems, number_problems

TEXT = ROOT / "exercises" / "hard_attention_exercises.md"
WORKED = ROOT / "exercises" / "solutions" / "hard_attention.md"
NAMES = {name: getattr(solutions, name) for name, _ in CHECKS.values()}


@pytest.mark.parametrize("number", CHECKS)
def test_solution_passes_and_stub_fails(number: int) -> None:
    name, check = CHECKS[number]
    check(getattr(solutions, name))
    with pytest.raises((NotImplementedError, CallFailedError)) as raised:
        check(getattr(stubs, name))
    origin = raised.value.__cause__ or raised.value
    assert isinstance(origin, NotImplementedError) and str(origin) == f"exercise {number}"


def test_stubs_solutions_and_checks_match() -> None:
    assert list(CHECKS) == list(range(15, 27))
    for module in (stubs, solutions):
        functions = inspect.getmembers(module, inspect.isfunction)
        own = [name for name, function in functions if function.__module__ == module.__name__]
        assert sorted(own) == sorted(NAMES)
    for name in NAMES:
        assert inspect.signature(getattr(stubs, name)) == inspect.signature(NAMES[name])
        assert inspect.getdoc(getattr(stubs, name))


def test_every_exercise_has_signature_example_command_and_hints() -> None:
    text = TEXT.read_text(encoding="utf-8")
    assert layout_problems(text, {number: getattr(stubs, name) for number, (name, _) in CHECKS.items()}) == []


@pytest.mark.parametrize("file", [TEXT, WORKED], ids=lambda file: file.name)
def test_every_example_and_number_in_the_text_is_right(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert [f"## {number}." for number in CHECKS if f"\n## {number}. " not in text] == []
    assert example_problems(text, NAMES) == []
    assert number_problems(text, NAMES) == []


# --- mistakes


def logits_of(hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right, but creates all logits at once."""
    return solutions.chunked_cross_entropy(hidden, weight, targets, len(hidden))


def online(queries: Tensor, keys: Tensor, values: Tensor, block: int, *, total: bool, weighted: bool) -> Tensor:
    """Blockwise attention that forgets to rescale one of its sums, or both."""
    T, D = queries.shape[-2:]
    positions, top = torch.arange(T), queries.new_full((*queries.shape[:-1], 1), -math.inf)
    sums, result = torch.zeros_like(top), torch.zeros_like(queries)
    for start in range(0, T, block):
        part = slice(start, start + block)
        scores = queries @ keys[..., part, :].transpose(-2, -1) / math.sqrt(D)
        scores = scores.masked_fill(positions[part] > positions[:, None], -math.inf)
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
        shrink, weights = (top - new_top).exp(), (scores - new_top).exp()
        sums = sums * (shrink if total else 1) + weights.sum(-1, keepdim=True)
        result = result * (shrink if weighted else 1) + weights @ values[..., part, :]
        top = new_top
    return result / sums


def whole_blocks(queries: Tensor, keys: Tensor, values: Tensor, block: int) -> Tensor:
    """Leaves out the last keys if they don't fill a block."""
    T = queries.shape[-2]
    kept = max(T // block * block, min(T, block))
    masked = torch.ones(T, T, dtype=torch.bool).triu(1)[:, :kept]
    scores = queries @ keys[..., :kept, :].transpose(-2, -1) / math.sqrt(queries.shape[-1])
    return scores.masked_fill(masked, -math.inf).softmax(-1) @ values[..., :kept, :]


def attention_gradients(change: Callable[[tuple[Tensor, ...], int], tuple[Tensor, ...]]) -> Callable[..., Any]:
    """The right gradients, changed by `change`, which also gets D."""
    return lambda q, k, v, gradient: change(solutions.attention_backward(q, k, v, gradient), q.shape[-1])


def scaled_twice(q: Tensor, k: Tensor, v: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    root = q.shape[-1] ** 0.5
    queries, keys, values = solutions.attention_backward(q / root, k, v, gradient)
    return queries / root, keys, values


def other_triple(change: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    return lambda *arguments: change(*solutions.chunked_cross_entropy(*arguments), len(arguments[0]))


def overwritten(ids: Tensor, embedded: Tensor, hidden: Tensor, logits: Tensor) -> Tensor:
    result = logits.flatten(0, 1).T @ hidden.flatten(0, 1)
    result[ids] += embedded
    return result


def changed(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
    """The worked answer, changed by a function of the answer and its arguments."""
    return lambda *arguments, **more: change(NAMES[name](*arguments, **more), *arguments, **more)


def blocks(config: dict) -> int:
    """Channels times blocks: the number of parameters of a bias in every block."""
    return config["n_layers"] * config["d_model"]


def by_autograd(probabilities: Tensor, gradient: Tensor) -> Tensor:
    with torch.enable_grad():
        scores = probabilities.log().requires_grad_()
        scores.softmax(-1).backward(gradient)
    return scores.grad


def matrix_of_softmax(p: Tensor, g: Tensor) -> Tensor:
    return ((torch.diag_embed(p) - p[..., None] * p[..., None, :]) @ g[..., None])[..., 0]


def speeds(change: Callable[[float, float, float, int], float]) -> Callable[..., float]:
    """A function of four values: speed limit of reading, of reading without cache, of computing, and batch size."""
    speed, inf = solutions.tokens_per_second, math.inf

    def changed(config: dict, batch_size: int, seen: int, **rates: Any) -> float:
        no_compute, no_bandwidth = {**rates, "compute": inf}, {**rates, "bandwidth": inf}
        reading, uncached = (speed(config, batch_size, tokens, **no_compute) for tokens in (seen, 0))
        return change(reading, uncached, speed(config, batch_size, seen, **no_bandwidth), batch_size)

    return changed


# Exercise number, part of the expected message, wrong answer.
WRONG: list[tuple[int, str, Callable[..., Any]]] = [
    (15, "subtract the maximum first", lambda s: s.exp().sum(-1).log()),
    (15, "add the maximum back", lambda s: (s - s.amax(-1, keepdim=True)).exp().sum(-1).log()),
    (15, "own maximum", lambda s: (s - s.max()).exp().sum(-1).log() + s.max()),
    (15, "-inf - -inf", lambda s: (s - s.amax(-1, keepdim=True)).exp().sum(-1).log() + s.amax(-1)),
    (15, "only the largest term", lambda s: s.amax(-1)),
    (15, "got [[", changed("log_sum_exp", lambda result, s: result[..., None])),
    (15, "torch's own logsumexp", lambda s: s.logsumexp(-1)),
    (15, "torch's own logcumsumexp", lambda s: s.logcumsumexp(-1)[..., -1]),
    (15, "logarithm of the mean", changed("log_sum_exp", lambda result, s: result - math.log(s.shape[-1]))),
    (15, "every row needs its own", lambda s: (s - s.max()).exp().sum().log() + s.max()),
    (16, "of the gradient, not of the probabilities", lambda p, g: p * (g - 1)),
    (16, "the sign is wrong", changed("softmax_backward", lambda result, p, g: -result)),
    (16, "own requires_grad_: compute the gradient by hand", by_autograd),
    (16, "by hand", lambda p, g: torch.func.vjp(lambda s: s.softmax(-1), p.log())[1](g)[0]),
    (16, "by hand", lambda p, g: torch.autograd.functional.vjp(lambda s: s.softmax(-1), p.log(), g)[1]),
    (16, "by hand", lambda p, g: torch._softmax_backward_data(g, p, -1, p.dtype)),
    (16, "share a denominator", lambda p, g: p * g),
    (16, "the diagonal of the Jacobian", lambda p, g: p * (1 - p) * g),
    (16, "its own average", lambda p, g: p * (g - (p * g).sum())),
    (16, "weight the average", lambda p, g: p * (g - g.mean(-1, keepdim=True))),
    (16, "minus its average by the probabilities", lambda p, g: g - (p * g).sum(-1, keepdim=True)),
    (16, "of shape (2, 400, 400)", matrix_of_softmax),
    (17, "D in the backward pass", attention_gradients(lambda x, D: (x[0] * D**0.5, x[1] * D**0.5, x[2]))),
    (17, "divided twice", attention_gradients(lambda x, D: (x[0] / D**0.5, x[1] / D**0.5, x[2]))),
    (17, "or twice by its square root", scaled_twice),
    (17, "this is the gradient of the keys", attention_gradients(lambda x, D: (x[1], x[0], x[2]))),
    (17, "got 2 parts, expected a tuple of 3", attention_gradients(lambda x, D: x[:2])),
    (18, "both be multiplied by", partial(online, total=False, weighted=True)),
    (18, "both be multiplied by", partial(online, total=True, weighted=False)),
    (18, "both be multiplied by", partial(online, total=False, weighted=False)),
    (18, "the last one has 4 keys", whole_blocks),
    (18, "not divided", lambda q, k, v, b: solutions.blockwise_attention(q * q.shape[-1] ** 0.5, k, v, b)),
    (18, "mask is missing", lambda q, k, v, b: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v),
    (18, "torch's own scaled_dot", lambda q, k, v, b: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    (18, "of shape (64, 64)", lambda q, k, v, b: online(q, k, v, 999, total=True, weighted=True)),
    (18, "twice by its", lambda q, k, v, b: solutions.blockwise_attention(q / q.shape[-1] ** 0.5, k, v, b)),
    (19, "own cross_entropy: write it with log_sum_exp", lambda h, w, t, rows: F.cross_entropy(h @ w.T, t)),
    (19, "add them up", lambda h, w, t, rows: ((F.one_hot(t, 7) * -(h @ w.T).log_softmax(-1)).sum(-1), h, w)),
    (19, "this is the gradient of weight", other_triple(lambda loss, h, w, n: (loss, w, h))),
    (19, "subtract the logits of the targets", lambda h, w, t, rows: ((h @ w.T).logsumexp(-1).sum(), h, w)),
    (19, "not the sum", other_triple(lambda loss, h, w, n: (loss / n, h / n, w / n))),
    (19, "of shape (256, 64)", logits_of),
    (19, "expected a tuple of 3", other_triple(lambda loss, h, w, n: (loss, h))),
    (20, "twice; index_add", overwritten),
    (20, "from the embedding is missing", lambda i, e, h, g: g.flatten(0, 1).T @ h.flatten(0, 1)),
    (20, "mean over both uses", changed("tied_gradient", lambda x, *_: x / 2)),
    (20, "from the head is missing", lambda i, e, h, g: solutions.tied_gradient(i, e, h, torch.zeros_like(g))),
    (21, "tokens see earlier documents", lambda n: (torch.ones(sum(n), sum(n)).tril().bool(), torch.arange(sum(n)))),
    (21, "starts at position 0", changed("packed_inputs", lambda x, n: (x[0], torch.arange(sum(n))))),
    (21, "the transpose", changed("packed_inputs", lambda x, n: (x[0].T, x[1]))),
    (21, "True means that a token may look", changed("packed_inputs", lambda x, n: (~x[0], x[1]))),
    (21, "see later tokens of their own", changed("packed_inputs", lambda x, n: (x[0] | x[0].T, x[1]))),
    (21, "of torch.bool", changed("packed_inputs", lambda x, n: (x[0].float(), x[1]))),
    (21, "the first position is 0", changed("packed_inputs", lambda x, n: (x[0], x[1] + 1))),
    (21, "expected torch.int64", changed("packed_inputs", lambda x, n: (x[0], x[1].double()))),
    (22, "the biases of the linear layers are", changed("parameter_count", lambda n, c, _: n - 9 * blocks(c))),
    (22, "biases of the layer norms", changed("parameter_count", lambda n, c, _: n - 2 * blocks(c) - c["d_model"])),
    (22, "and all layer norms are", changed("parameter_count", lambda n, c, _: n - 13 * blocks(c) - 2 * c["d_model"])),
    (22, "multiply by n_layers", lambda c, tied: solutions.parameter_count({**c, "n_layers": 1}, tied)),
    (22, "counted once", lambda c, tied: solutions.parameter_count(c, False)),
    (22, "parameters of its own", lambda c, tied: solutions.parameter_count(c, True)),
    (22, "wpe, are missing", changed("parameter_count", lambda n, c, tied: n - c["context_length"] * c["d_model"])),
    (22, "ln_f, are missing", changed("parameter_count", lambda n, c, tied: n - 2 * c["d_model"])),
    (22, "biases", changed("parameter_count", lambda n, c, tied: n - c["d_model"] * (11 * c["n_layers"] + 1))),
    (22, "the head has no bias", changed("parameter_count", lambda n, c, tied: n + c["vocab_size"] * (not tied))),
    (23, "two FLOPs", changed("forward_flops", lambda n, *_: n // 2)),
    (23, "the head", changed("forward_flops", lambda n, c, b, t: n - 2 * b * t * c["vocab_size"] * c["d_model"])),
    (23, "are missing", changed("forward_flops", lambda n, c, b, t: n - 4 * b * t * t * c["d_model"] * c["n_layers"])),
    (23, "two products", changed("forward_flops", lambda n, c, b, t: n - 2 * b * t * t * c["d_model"] * c["n_layers"])),
    (23, "the batch is missing", lambda c, b, t: solutions.forward_flops(c, 1, t)),
    (23, "biases are in no", changed("forward_flops", lambda n, c, b, t: n + 2 * b * t * 9 * blocks(c))),
    (23, "biases and layer norms are in no",
     changed("forward_flops", lambda n, c, b, t: n + 2 * b * t * (13 * blocks(c) + 2 * c["d_model"]))),
    (23, "two FLOPs per parameter", lambda c, b, t: 2 * b * t * solutions.parameter_count(c, True)),
    (23, "masked scores cost", changed("forward_flops", lambda n, c, b, t: n - 2 * b * t * (t - 1) * blocks(c))),
    (24, "the MLP belongs", lambda d, s: 2 * d * s / (1 - s)),
    (24, "four projections", lambda d, s: 4 * d * s / (1 - s)),
    (24, "two products", lambda d, s: 12 * d * s / (1 - s)),
    (24, "a share of the whole block", lambda d, s: 6 * d * s),
    (24, "the rest of the block has that share", lambda d, s: 6 * d * (1 - s) / s),
    (25, "both cached", changed("cache_bytes", lambda n, *_: n // 2)),
    (25, "every layer", changed("cache_bytes", lambda n, c, *_: n // c["n_layers"])),
    (25, "not d_model", changed("cache_bytes", lambda n, c, *_: n * c["n_heads"])),
    (25, "only kv_heads", lambda c, b, t, size, kv_heads=None: solutions.cache_bytes(c, b, t, size)),
    (25, "every sequence", lambda c, b, *rest: solutions.cache_bytes(c, 1, *rest)),
    (25, "not bytes", lambda c, b, t, size, *rest: solutions.cache_bytes(c, b, t, 1, *rest)),
    (25, "bits, not bytes", changed("cache_bytes", lambda n, *_: n * 8)),
    (26, "the time of a step", speeds(lambda reading, uncached, computing, n: n / min(reading, computing))),
    (26, "two FLOPs", speeds(lambda reading, uncached, computing, n: min(reading, 2 * computing))),
    (26, "the slower one", speeds(lambda reading, uncached, computing, n: max(reading, computing))),
    (26, "not the sum", speeds(lambda reading, uncached, computing, n: 1 / (1 / reading + 1 / computing))),
    (26, "gains a token per step", speeds(lambda reading, uncached, computing, n: min(reading, computing) / n)),
    (26, "the cache is read", speeds(lambda reading, uncached, computing, n: min(uncached, computing))),
    (21, "got a tensor, expected a tuple of 2", lambda lengths: torch.ones(1)),
    (26, "got None, expected a number", lambda *_, **__: None),
    (26, "got a str, expected a number", lambda *_, **__: "1"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "sentence", "wrong"), WRONG, ids=[f"{n}: {sentence}" for n, sentence, _ in WRONG])
def test_a_common_mistake_fails_with_a_message_that_names_it(
    number: int, sentence: str, wrong: Callable[..., Any]
) -> None:
    with pytest.raises(AssertionError) as raised:
        CHECKS[number][1](wrong)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


def test_every_exercise_has_at_least_two_mistakes() -> None:
    assert [number for number in CHECKS if sum(wrong[0] == number for wrong in WRONG) < 2] == []


# --- claims of the text beyond its numbers


def packed_states(model: GPTModel, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """The hidden states (T, C) of one row with the given mask and positions."""
    x = model.wte(ids) + model.wpe(positions)
    for block in model.h:
        x = x + masked_attention(block.attn, block.ln_1(x), mask)
        x = x + block.mlp(block.ln_2(x))
    return model.ln_f(x)


def masked_attention(attention: MultiHeadAttention, x: Tensor, mask: Tensor) -> Tensor:
    T, C = x.shape
    q, k, v = (part.view(T, attention.n_heads, -1).transpose(0, 1) for part in attention.c_attn(x).split(C, dim=1))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attention.c_proj(y.transpose(0, 1).reshape(T, C))


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    model = GPTModel({"vocab_size": 31, "context_length": 12, "d_model": 16, "n_heads": 2, "n_layers": 2}).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_packed_documents_have_the_same_states_as_alone(model: GPTModel) -> None:
    lengths = [4, 1, 5]
    ids = torch.randint(31, (10,))
    alone = torch.cat([model.hidden_states(document[None])[0] for document in ids.split(lengths)])
    mask, positions = solutions.packed_inputs(lengths)
    torch.testing.assert_close(packed_states(model, ids, mask, positions), alone)
    one_document, no_restart = solutions.packed_inputs([10])
    assert not torch.allclose(packed_states(model, ids, one_document, positions), alone)
    assert not torch.allclose(packed_states(model, ids, mask, no_restart), alone)


def test_flop_counter_misses_fused_attention_on_a_cpu(model: GPTModel) -> None:
    config = {**GPT_CONFIGS["micro"], "vocab_size": 31, "context_length": 12, "d_model": 16, "n_heads": 2}
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 12, dtype=torch.long))
    scores = 4 * 12 * 12 * 16 * 2
    assert counter.get_total_flops() == solutions.forward_flops(config, 1, 12) - scores
