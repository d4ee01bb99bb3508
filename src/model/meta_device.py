"""Models on PyTorch's meta device: their parameters have shapes but no memory until weights are loaded into them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from src.common.messages import one_line
from src.model.config import GPTConfig
from src.model.gpt import GPTModel, initialise
from src.model.transformerBlock import TransformerBlock


def on_meta_device(config: Mapping[str, Any] | GPTConfig, model_class: type[GPTModel] = GPTModel) -> GPTModel:
    """A model whose parameters have shapes but no memory, for `load_state_dict(..., assign=True)`."""
    with torch.device("meta"), _SkipInit():
        return model_class(config)


class _SkipInit(TorchFunctionMode):
    """Skips torch.nn.init: initialising meta tensors would only trigger slow imports."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", *args[:1])
        return func(*args, **(kwargs or {}))


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


def initial_weights(config: GPTConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, value) of every parameter of `GPTModel(config)`: the same values, if the random state is the same.

    Only the embeddings or one layer are in memory at a time, for a model that one process cannot hold.
    """
    # PyTorch's layers draw weights when they are built, and GPTModel replaces these. Draw the same numbers here.
    nn.Embedding(config.vocab_size, config.d_model)
    nn.Embedding(config.context_length, config.d_model)
    for _ in range(config.n_layers):
        TransformerBlock(config)
    for name, parameter in on_meta_device(config).named_parameters():
        weight = torch.empty(parameter.shape)
        initialise(name, weight, config)
        yield name, weight
