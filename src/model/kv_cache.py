"""The KV cache: generation stores the keys and values of earlier tokens instead of recomputing them.

B batch, T new tokens, S tokens seen so far (new ones included), H heads, D head size.
"""

import copy

import torch
from torch import Tensor

from src.model.config import GPTConfig


class KeyValueCache:
    """Keys and values of every layer, preallocated: a tensor of shape (layers, B, 2, H, capacity, D).

    `length` is the number of cached tokens. `GPTModel.hidden_states` advances it after the last layer.
    """

    def __init__(
        self, config: GPTConfig, batch_size: int, capacity: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        head_size = config.d_model // config.n_heads
        shape = (config.n_layers, batch_size, 2, config.n_heads, capacity, head_size)
        self.keys_values = torch.empty(shape, device=device, dtype=dtype)
        self.capacity = capacity
        self.length = 0

    def extend(self, layer_index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new (B, H, T, D) keys and values of one layer and return all of them, (B, H, S, D)."""
        end = self.length + keys.shape[2]
        layer = self.keys_values[layer_index]  # (B, 2, H, capacity, D)
        layer[:, 0, :, self.length : end] = keys
        layer[:, 1, :, self.length : end] = values
        return layer[:, 0, :, :end], layer[:, 1, :, :end]

    def row(self, i: int) -> "KeyValueCache":
        """A view of one row: the same memory, with a length of its own, which starts at 0."""
        view = copy.copy(self)
        view.keys_values = self.keys_values[:, i : i + 1]
        view.length = 0
        return view

    def copy_from(self, other: "KeyValueCache", length: int) -> None:
        """Replace the content with the first `length` tokens of another cache of the same model."""
        self.keys_values[..., :length, :] = other.keys_values[..., :length, :]
        self.length = length
