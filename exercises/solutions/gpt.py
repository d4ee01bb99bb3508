"""Worked answers to exercises 31 to 38, explained in gpt.md. Try the exercises first.

B batch, T tokens, C channels of the model, V vocabulary; `...` any leading dimensions.
"""

import math
from functools import partial

import torch
from torch import Tensor

from exercises.solutions.attention import multi_head_attention

Weights = dict[str, Tensor]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """The linear layer of this name: x (..., I) to (..., O)."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def embed(ids: Tensor, weights: Weights) -> Tensor:
    """Token plus position embeddings: ids, int64 (B, T), to (B, T, C)."""
    T = ids.shape[1]
    return weights["wte.weight"][ids] + weights["wpe.weight"][:T]  # (B, T, C) + (T, C)


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """The LayerNorm of this name, over the channels of each token: (..., C) to (..., C)."""
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)  # (..., 1)
    return centred / torch.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    """GPT-2's activation, the tanh form of GELU, of each number: (...) to (...)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def mlp(x: Tensor, weights: Weights, name: str) -> Tensor:
    """The MLP of this name: (..., C) to (..., C)."""
    return linear(gelu(linear(x, weights, f"{name}.c_fc")), weights, f"{name}.c_proj")


def block(x: Tensor, weights: Weights, name: str, n_heads: int) -> Tensor:
    """One whole layer of GPT-2: (B, T, C) to (B, T, C)."""
    c_attn, c_proj = (partial(linear, weights=weights, name=f"{name}.attn.{part}") for part in ("c_attn", "c_proj"))
    x = x + multi_head_attention(layer_norm(x, weights, f"{name}.ln_1"), c_attn, c_proj, n_heads)
    return x + mlp(layer_norm(x, weights, f"{name}.ln_2"), weights, f"{name}.mlp")


def gpt_logits(ids: Tensor, weights: Weights, config: dict) -> Tensor:
    """The logits of the next token at every position: ids, int64 (B, T), to (B, T, V)."""
    x = embed(ids, weights)
    for layer in range(config["n_layers"]):
        x = block(x, weights, f"h.{layer}", config["n_heads"])
    return layer_norm(x, weights, "ln_f") @ weights["wte.weight"].T


def initial_weights(config: dict, generator: torch.Generator) -> Weights:
    """The weights of an untrained GPT-2 of this config; all random numbers from the generator."""
    C, n_layers = config["d_model"], config["n_layers"]
    residual_std = 0.02 / math.sqrt(2 * n_layers)

    def normal(rows: int, columns: int, std: float = 0.02) -> Tensor:
        return std * torch.randn(rows, columns, generator=generator)

    weights = {"wte.weight": normal(config["vocab_size"], C), "wpe.weight": normal(config["context_length"], C)}
    for layer in range(n_layers):
        h = f"h.{layer}"
        weights |= {f"{h}.ln_1.weight": torch.ones(C), f"{h}.ln_1.bias": torch.zeros(C)}
        weights |= {f"{h}.attn.c_attn.weight": normal(3 * C, C), f"{h}.attn.c_attn.bias": torch.zeros(3 * C)}
        weights |= {f"{h}.attn.c_proj.weight": normal(C, C, residual_std), f"{h}.attn.c_proj.bias": torch.zeros(C)}
        weights |= {f"{h}.ln_2.weight": torch.ones(C), f"{h}.ln_2.bias": torch.zeros(C)}
        weights |= {f"{h}.mlp.c_fc.weight": normal(4 * C, C), f"{h}.mlp.c_fc.bias": torch.zeros(4 * C)}
        weights |= {f"{h}.mlp.c_proj.weight": normal(C, 4 * C, residual_std), f"{h}.mlp.c_proj.bias": torch.zeros(C)}
    return weights | {"ln_f.weight": torch.ones(C), "ln_f.bias": torch.zeros(C)}
