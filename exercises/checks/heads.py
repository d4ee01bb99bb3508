"""The checks of exercises 10 to 14: heads, multi-head attention, token order, and the KV cache."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises.checks.forbidden import FUSED_ATTENTION, forbids
from exercises.checks.judging import call, compare, given, judge, kind_of, random, require, scale_mistakes
from src.model.attention import MultiHeadAttention
from src.model.config import GPTConfig


def check_split_heads(function: Callable[..., Tensor]) -> None:
    """Exercise 10: compare with torch.split and torch.stack."""
    for batch, n_tokens, n_heads, size in [(2, 3, 4, 5), (1, 4, 4, 2), (2, 1, 1, 3), (1, 5, 3, 1)]:
        x = random(batch, n_tokens, n_heads * size, seed=n_tokens)
        expected = torch.stack(x.split(size, dim=2), dim=1)
        mistakes = {
            "the shape is right but tokens and heads are mixed up: view as (B, T, H, D), then swap T and H": (
                x.view(batch, n_heads, n_tokens, size)
            ),
            "T and H still have to be swapped, with transpose(1, 2)": x.view(batch, n_tokens, n_heads, size),
            "head h got every H-th channel: its D channels are adjacent": (
                x.view(batch, n_tokens, size, n_heads).permute(0, 3, 1, 2)
            ),
        }
        judge(function, {"x": x, "n_heads": n_heads}, expected, mistakes)


def check_merge_heads(function: Callable[..., Tensor]) -> None:
    """Exercise 11: compare with torch.cat of the heads."""
    for batch, n_heads, n_tokens, size in [(2, 4, 3, 5), (1, 4, 4, 2), (2, 1, 1, 3), (1, 3, 5, 1)]:
        y = random(batch, n_heads, n_tokens, size, seed=n_heads)
        expected = torch.cat(y.unbind(dim=1), dim=-1)
        flat = (batch, n_tokens, n_heads * size)
        mistakes = {
            "the shape is right but tokens and heads are mixed up: swap H and T before the reshape": y.reshape(flat),
            "the heads are interleaved channel by channel: put them side by side, head 0 first": (
                y.permute(0, 2, 3, 1).reshape(flat)
            ),
            "the heads were added up: put them side by side": y.sum(1),
        }
        judge(function, {"y": y}, expected, mistakes)


@forbids(FUSED_ATTENTION)
def check_multi_head_attention(function: Callable[..., Tensor]) -> None:
    """Exercise 12: compare with the project's own MultiHeadAttention."""
    for batch, n_tokens, d_model, n_heads in [(2, 5, 12, 3), (1, 1, 4, 2), (1, 4, 8, 1), (2, 3, 16, 8)]:
        module = model_attention(d_model, n_heads)
        x = random(batch, n_tokens, d_model, seed=n_tokens)
        arguments = {"x": x, "c_attn": module.c_attn, "c_proj": module.c_proj, "n_heads": n_heads}
        with torch.no_grad():
            judge(function, arguments, module(x), multi_head_mistakes(x, module, n_heads))


def model_attention(d_model: int, n_heads: int) -> MultiHeadAttention:
    """The model's own module in float64, with random weights and biases and no dropout."""
    config = GPTConfig(vocab_size=1, context_length=8, d_model=d_model, n_heads=n_heads, n_layers=1, dropout=0.0)
    module = MultiHeadAttention(config).double().eval()
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = random(*parameter.shape, seed=seed)
    return module


def multi_head_mistakes(x: Tensor, module: MultiHeadAttention, n_heads: int) -> dict[str, Tensor]:
    """The outputs (B, T, C) that common mistakes in multi-head attention lead to."""
    B, T, C = x.shape
    parts = module.c_attn(x).split(C, dim=2)
    q, k, v = (heads(part, n_heads) for part in parts)
    unbiased = (heads(part, n_heads) for part in (x @ module.c_attn.weight.T).split(C, dim=2))
    one_head = [part[:, None] for part in parts]
    mixed = [part.reshape(B, n_heads, T, C // n_heads) for part in parts]

    def merged(q: Tensor, k: Tensor, v: Tensor, causal: bool = True, scale: float | None = None) -> Tensor:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
        return y.transpose(1, 2).reshape(B, T, C)

    wrong = {
        "later tokens are visible: the mask is missing": merged(q, k, v, causal=False),
        "the bias of c_attn is missing: call c_attn itself": merged(*unbiased),
        "the scores are divided by the square root of C; each head's queries have only D channels": (
            merged(q, k, v, scale=1 / math.sqrt(C))
        ),
        **scale_mistakes(lambda factor: merged(q, k, v, scale=factor), C // n_heads),
        "c_attn gives queries, keys and values in this order; two of them are swapped": merged(k, q, v),
        "keys and values are swapped": merged(q, v, k),
        "all channels form one head: split queries, keys and values first": merged(*one_head),
        "tokens and heads are mixed up when the heads are split": merged(*mixed),
        "tokens and heads are mixed up when the heads are merged": (
            F.scaled_dot_product_attention(q, k, v, is_causal=True).reshape(B, T, C)
        ),
    }
    late = (q @ k.mT / math.sqrt(C // n_heads)).softmax(-1).tril() @ v
    wrong["masked after softmax: mask the scores before softmax"] = late.transpose(1, 2).reshape(B, T, C)
    y, weight, bias = merged(q, k, v), module.c_proj.weight, module.c_proj.bias
    return {name: module.c_proj(y) for name, y in wrong.items()} | {
        "c_proj is missing at the end": y,
        "the bias of c_proj is missing: call c_proj itself": y @ weight.T,
        "the weight of c_proj is transposed: call c_proj itself": y @ weight + bias,
        "x is added at the end: that is the task of the block around attention": x + module.c_proj(y),
    }


def heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, T, C) to (B, H, T, D)."""
    return torch.stack(x.chunk(n_heads, dim=2), dim=1)


def check_order_gap(function: Callable[..., float]) -> None:
    """Exercise 13: compare for attention without order, with a causal mask, and with positions."""
    x, order = random(5, 4, seed=1), torch.tensor([2, 0, 3, 4, 1])  # not its own inverse
    positions = random(5, 4, seed=2)

    def unmasked(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]

    def causal(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True)[0]

    def with_positions(x: Tensor) -> Tensor:
        return unmasked(x + positions[: len(x)])

    def negative(x: Tensor) -> Tensor:
        return -causal(x)

    for attend in (unmasked, causal, with_positions, negative):
        before, after = attend(x), attend(x[order])
        gaps = torch.stack([after[new] - before[old] for new, old in enumerate(order.tolist())])
        mistakes = {
            "reorder the attention of x too before comparing the two": (after - before).abs().max(),
            "the reordering went the wrong way: row i of x[order] is row order[i] of x": (
                (after[order] - before).abs().max()
            ),
            "this is the largest difference with its sign: take absolute values first": gaps.max(),
            "this is the mean of the differences: return the largest": gaps.abs().mean(),
            "this is the largest squared difference: don't square": (gaps**2).max(),
            "this is the length of all differences together: return the largest": gaps.norm(),
            "these are all the differences: return the largest": gaps.abs(),
            "this is the sum of the differences: return the largest": gaps.abs().sum(),
        }
        arguments = {"attention": attend, "x": x, "order": order}
        where, answer = given(arguments), call(function, arguments)
        is_number = isinstance(answer, float | int)
        compare(where, torch.tensor(float(answer)) if is_number else answer, gaps.abs().max(), mistakes)
        require(is_number, f"{where}, got {kind_of(answer)}, expected a float: use .item()")


@forbids(FUSED_ATTENTION)
def check_cached_attention(function: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
    """Exercise 14: feed one sequence in steps of several lengths; compare with the whole sequence at once."""
    q, k, v = random(3, 2, 3, 6, 4, seed=1)  # (B, H, T, D) each
    whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    for chunks in [(6,), (1, 1, 1, 1, 1, 1), (3, 1, 2), (2, 4), (5, 1)]:
        start = 0
        for length in chunks:
            check_cached_step(function, (q, k, v, whole), start, start + length)
            start += length


def check_cached_step(
    function: Callable[..., tuple[Tensor, Tensor, Tensor]], tensors: tuple[Tensor, ...], start: int, end: int
) -> None:
    """Check one call: tokens start to end are new, those before start are cached."""
    q, k, v = (tensor[:, :, start:end] for tensor in tensors[:3])
    keys, values = (tensor[:, :, :end] for tensor in tensors[1:3])
    arguments = {"q": q, "k": k, "v": v, "cached_keys": keys[:, :, :start], "cached_values": values[:, :, :start]}
    answer = call(function, arguments)
    where = f"for T = {end - start} new and S = {start} cached tokens"
    triple = isinstance(answer, tuple | list) and len(answer) == 3
    wanted = "a tuple of three: the attention output, all keys and all values"
    require(triple, f"{where}, got {kind_of(answer)}, expected {wanted}")
    compare_cache(f"{where}, as keys", answer[1], keys, start, values)
    compare_cache(f"{where}, as values", answer[2], values, start, keys)
    attend = F.scaled_dot_product_attention
    mistakes = {
        "the mask's triangle starts at the first cached token; new token t sees S + t + 1 tokens": (
            attend(q, keys, values, is_causal=True)
        ),
        "new tokens see later new ones: among these the mask is still needed": attend(q, keys, values),
        "the new tokens ignore the cache": attend(q, k, v, is_causal=True),
        **scale_mistakes(lambda factor: attend(q, keys, values, is_causal=True, scale=factor), q.shape[-1]),
    }
    compare(where, answer[0], tensors[3][:, :, start:end], mistakes)


def compare_cache(where: str, answer: Tensor, expected: Tensor, start: int, other: Tensor) -> None:
    """Compare the keys or values of all tokens, of which those from `start` are new. other: the values or keys."""
    cached, new = expected[:, :, :start], expected[:, :, start:]
    mistakes = {
        "the cached ones come first, then the new ones": torch.cat([new, cached], 2),
        "these are only the new ones: append them to the cached ones": new,
        "these are only the cached ones: append the new ones to them": cached,
        "return the attention output, then the keys, then the values": other,
    }
    compare(where, answer, expected, mistakes)
