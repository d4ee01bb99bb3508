"""One layer of GPT-2. B batch, T tokens, C channels."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.model.attention import KeyValueCache, MultiHeadAttention, Segments
from src.model.config import GPTConfig

_ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


class MLP(nn.Module):
    """Widen, bend, narrow: each token on its own."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.d_ff or 4 * config.d_model
        self.c_fc = nn.Linear(config.d_model, width)
        self.c_proj = nn.Linear(width, config.d_model)
        self.activation = _ACTIVATION[config.activation]
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        wide = self.c_fc(x)  # (B, T, 4 C)
        if torch.is_grad_enabled():
            # The bent values are a quarter of what training would keep, and are made again in a moment.
            narrow = checkpoint(self._project, wide, use_reentrant=False, preserve_rng_state=False)
        else:
            narrow = self._project(wide)
        return self.dropout(narrow)

    def _project(self, wide: Tensor) -> Tensor:
        return self.c_proj(self.activation(wide))


class TransformerBlock(nn.Module):
    """Attention and MLP, each added to what came in, each reading a normalised copy (pre-norm, as in GPT-2)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.attn = MultiHeadAttention(config)
        self.ln_2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cache: KeyValueCache | None = None, layer: int = 0, segments: Segments | None = None
    ) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.attn(self.ln_1(x), cache, layer, segments)
        return x + self.mlp(self.ln_2(x))
