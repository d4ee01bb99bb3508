"""Your answers to exercises 31 to 38: replace each `raise`. The tasks are in gpt_exercises.md.

Write in exercises/answers/gpt.py, a copy of this file: `python -m exercises.start` creates it.

Later answers may call earlier ones. Check an answer with `python -m exercises.check 31`.

B batch, T tokens, C channels of the model, V vocabulary; `...` any leading dimensions.
weights: a dict from GPT-2's parameter names to tensors, such as the `state_dict()` of the project's model.
"""

import math  # noqa: F401

import torch  # noqa: F401
from torch import Tensor

Weights = dict[str, Tensor]


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """The linear layer of this name: x (..., I) to (..., O).

    Its weight, `name` + ".weight", is (O, I), and its bias, `name` + ".bias", is (O,).
    """
    raise NotImplementedError("exercise 31")


def embed(ids: Tensor, weights: Weights) -> Tensor:
    """Token plus position embeddings: ids, int64 (B, T), to (B, T, C).

    "wte.weight" (V, C) has a row for each token, "wpe.weight" a row for each position, at least T of them.
    """
    raise NotImplementedError("exercise 32")


def layer_norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    """The LayerNorm of this name, over the channels of each token: (..., C) to (..., C).

    Its weight and its bias are (C,); epsilon is 1e-5.
    """
    raise NotImplementedError("exercise 33")


def gelu(x: Tensor) -> Tensor:
    """GPT-2's activation, the tanh form of GELU, of each number: (...) to (...)."""
    raise NotImplementedError("exercise 34")


def mlp(x: Tensor, weights: Weights, name: str) -> Tensor:
    """The MLP of this name: (..., C) to (..., C). Its layers are `name` + ".c_fc" and `name` + ".c_proj"."""
    raise NotImplementedError("exercise 35")


def block(x: Tensor, weights: Weights, name: str, n_heads: int) -> Tensor:
    """One whole layer of GPT-2: (B, T, C) to (B, T, C).

    Its parts are `name` + ".ln_1", ".attn.c_attn", ".attn.c_proj", ".ln_2" and ".mlp".
    """
    raise NotImplementedError("exercise 36")


def gpt_logits(ids: Tensor, weights: Weights, config: dict) -> Tensor:
    """The logits of the next token at every position: ids, int64 (B, T), to (B, T, V).

    config has "n_layers" and "n_heads".
    """
    raise NotImplementedError("exercise 37")


def initial_weights(config: dict, generator: torch.Generator) -> Weights:
    """The weights of an untrained GPT-2 of this config, an entry of GPT_CONFIGS; all random numbers from the generator.

    Shapes: "wte.weight" (V, C), "wpe.weight" (context, C), and so on, as in the table of the task.
    """
    raise NotImplementedError("exercise 38")
