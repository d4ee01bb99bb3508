"""One layer of GPT-2: attention and MLP. B batch, T tokens, C channels."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.model.attention import MultiHeadAttention, Packing
from src.model.config import GPTConfig
from src.model.kv_cache import KeyValueCache

_ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


class MLP(nn.Module):
    """Two linear layers with an activation between them, applied to each token independently."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.mlp_width)
        self.c_proj = nn.Linear(config.mlp_width, config.d_model)
        self.activation = _ACTIVATION[config.activation]
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        hidden = self.c_fc(x)  # (B, T, mlp_width)
        # The activation's output is a quarter of the layer's saved activations, and cheap to recompute.
        return self.dropout(recompute_in_backward(self._project, hidden))

    def _project(self, hidden: Tensor) -> Tensor:
        return self.c_proj(self.activation(hidden))


class TransformerBlock(nn.Module):
    """Attention and MLP, each on a normalised input and added to the residual stream (pre-norm, as in GPT-2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.attn = MultiHeadAttention(config)
        self.ln_2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cache: KeyValueCache | None = None, layer_index: int = 0, packing: Packing | None = None
    ) -> Tensor:
        """(B, T, C) to (B, T, C). cache, packing: see `MultiHeadAttention.forward`."""
        x = x + self.attn(self.ln_1(x), cache, layer_index, packing)
        return x + self.mlp(self.ln_2(x))


def recompute_in_backward(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x). Backward recomputes its intermediate results instead of storing them (Chen et al. 2016).

    The function must not draw random numbers.
    """
    if not torch.is_grad_enabled():
        return function(x)
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)
