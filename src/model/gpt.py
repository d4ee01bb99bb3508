"""GPT-2 (Radford et al. 2019): embeddings, a stack of blocks, and an output head tied to the token embedding.

B batch, T tokens, C channels, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.model.attention import MultiHeadAttention, Packing
from src.model.config import GPT_CONFIGS, GPTConfig
from src.model.few_rows import linear
from src.model.kv_cache import KeyValueCache
from src.model.transformerBlock import TransformerBlock

__all__ = ["GPT_CONFIGS", "GPTConfig", "GPTModel", "initialise"]


class GPTModel(nn.Module):
    """A GPT-2 of any size. The output head is `wte` itself (tied weights), so it has no parameter of its own.

    activation_checkpointing: backward repeats each layer's forward pass instead of storing its activations (Chen et al.
    2016). Off by default.
    Raises ValueError for an unknown config key or an impossible combination, naming it.
    """

    def __init__(self, config: Mapping[str, Any] | GPTConfig) -> None:
        super().__init__()
        self.config = config = GPTConfig.of(config)
        self.wte = nn.Embedding(config.vocab_size, config.d_model)  # of tokens; also the output head
        self.wpe = nn.Embedding(config.context_length, config.d_model)  # of positions
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.activation_checkpointing = False
        for name, parameter in self.named_parameters():
            initialise(name, parameter, config)

    def forward(self, ids: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Next-token logits: int64 (B, T) to float (B, T, V). With a cache, `ids` continues the cached tokens."""
        return self.head(self.hidden_states(ids, cache))

    def hidden_states(
        self,
        ids: Tensor,
        cache: KeyValueCache | None = None,
        *,
        packing: Packing | None = None,
        embedded: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final LayerNorm: int64 (B, T) to (B, T, C).

        cache: `ids` continues the cached tokens; the cache grows by T. packing: each row holds several segments; the
        states of a segment are those that it would have in a sequence of its own, after its parent.
        embedded: `wte(ids)`, (B, T, C), if the caller has it already.
        Raises ValueError if a sequence is longer than the model's context.
        """
        n_cached = cache.length if cache is not None else 0
        positions = self._positions(ids, n_cached, packing)  # (T,)
        token_embeddings = self.wte(ids) if embedded is None else embedded  # (B, T, C)
        x = self.drop(token_embeddings + self.wpe(positions))
        for layer_index, block in enumerate(self.h):
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, cache, layer_index, packing, use_reentrant=False)
            else:
                x = block(x, cache, layer_index, packing)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.ln_f(x)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C): their dot products with each token's embedding."""
        return linear(hidden, self.wte.weight)  # F.linear, faster for a single token

    def _positions(self, ids: Tensor, n_cached: int, packing: Packing | None) -> Tensor:
        """The position of each token in a row of ids (B, T): (T,). Raises ValueError if one is beyond the context."""
        spans = [(n_cached, n_cached + ids.shape[1])] if packing is None else _segment_spans(packing)
        longest = max(end for _, end in spans)
        if longest > self.config.context_length:
            raise ValueError(f"{longest} tokens do not fit the model's context of {self.config.context_length}")
        return torch.cat([torch.arange(start, end, device=ids.device) for start, end in spans])

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Turn dropout and gradients off inside, and restore the previous mode afterwards."""
        was_training = self.training
        if was_training:
            self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            if was_training:
                self.train()

    def set_dropout(self, dropout: float) -> None:
        """Change the dropout rate that the model was built with."""
        self.config = replace(self.config, dropout=dropout)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
            elif isinstance(module, MultiHeadAttention):
                module.dropout = dropout

    def new_cache(self, batch_size: int = 1, capacity: int | None = None) -> KeyValueCache:
        """An empty cache for `capacity` tokens (the whole context by default) on the model's device."""
        return KeyValueCache(
            self.config,
            batch_size,
            capacity or self.config.context_length,
            device=self.wpe.weight.device,
            dtype=self.wpe.weight.dtype,
        )


def initialise(name: str, weight: Tensor, config: GPTConfig) -> None:
    """Initialise a parameter in place: normal with deviation 0.02, biases 0, LayerNorm weights 1.

    As in GPT-2, the deviation of projections into the residual stream is divided by sqrt(2 layers).
    """
    if name.endswith("bias"):
        nn.init.zeros_(weight)
    elif ".ln_" in name or name.startswith("ln_"):
        nn.init.ones_(weight)
    else:
        residual = name.endswith("c_proj.weight")
        nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.n_layers) if residual else 0.02)


def _segment_spans(packing: Packing) -> list[tuple[int, int]]:
    """The positions of each segment as (start, end). A segment continues its parent, or starts at position 0."""
    spans: list[tuple[int, int]] = []
    for length, parent in packing:
        start = 0 if parent is None else spans[parent][1]
        spans.append((start, start + length))
    return spans
