"""Checks that every loader of weights needs: a small file must not make the program allocate huge tensors."""

import torch
from torch import Tensor

from src.common.messages import one_line
from src.model.config import GPTConfig
from src.model.gpt import GPTModel, on_meta_device


def model_to_fill(config: GPTConfig, n_tensors: int) -> GPTModel:
    """A model on the meta device, for `load_state_dict(..., assign=True)`: an absurd config cannot allocate memory.

    n_tensors: the number of tensors that a file has for it.
    Raises ValueError if the sizes are impossible, or need more layers than the file has tensors.
    """
    if config.n_layers > n_tensors:
        raise ValueError(f"model config: {config.n_layers} layers, but only {n_tensors} tensors")
    try:
        return on_meta_device(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"model config: impossible sizes ({one_line(error)})") from error


def require_dense(tensor: Tensor) -> None:
    """Raise ValueError unless a tensor is dense and has memory for all of its values.

    A tensor with stride 0, made by `expand`, claims more memory than it has. A subclass may compute anything.
    """
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        raise ValueError(f"contains a {type(tensor).__name__}; only plain tensors are accepted")
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_meta:
        raise ValueError(f"contains a sparse, nested, quantized or meta tensor ({tensor.dtype}); make it dense")
    if tensor.is_conj() or tensor.is_neg():
        raise ValueError("contains a conjugated view; pass tensor.resolve_conj().resolve_neg()")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise ValueError(f"contains a tensor of shape {tuple(tensor.shape)} that has memory for less than that")
