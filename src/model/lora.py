"""LoRA (Hu et al. 2021): freeze the weights, and train a small low-rank addition to some of them.

A layer's weight W, (out, in), is frozen, and the layer computes W x + alpha / rank * B A x. Only A, (rank, in), and B,
(out, rank), are trained, so only they have gradients and optimizer state. B starts at zero: the first step starts from
the unchanged model. B A has the shape of W, so it can be added to W afterwards, and the result is a plain model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.model.config import GPTConfig
from src.model.gpt import GPTModel
from src.model.meta_device import on_meta_device

Targets = Literal["attention", "all-linear"]
# The layers of each block that get an adapter. attention: queries, keys and values, PEFT's default for GPT-2.
TARGETS: dict[Targets, tuple[str, ...]] = {
    "attention": ("attn.c_attn",),
    "all-linear": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
}
DEFAULT_SCALE = 2.0  # alpha / rank: the same at every rank, so the best learning rate stays nearly the same, too
A, B = "lora_A", "lora_B"
ADAPTER = "adapter"  # the entry of a checkpoint that holds the adapter that was merged into its weights


class LoRALinear(nn.Module):
    """A frozen linear layer with an adapter. It keeps the layer's own weight and bias, under the same names."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.alpha, self.scale = alpha, alpha / rank
        outputs, inputs = linear.weight.shape
        initial = torch.empty(rank, inputs)
        nn.init.kaiming_uniform_(initial, a=math.sqrt(5), generator=generator)  # as nn.Linear and PEFT
        self.lora_A = nn.Parameter(initial.to(linear.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(outputs, rank, device=linear.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        low_rank = F.linear(x, self.lora_A) * self.scale  # (..., rank)
        return F.linear(x, self.weight, self.bias) + F.linear(low_rank, self.lora_B)


@dataclass(frozen=True)
class Adapter:
    """A trained adapter. tensors: A and B of each layer by name, such as "h.0.attn.c_attn.lora_A"."""

    rank: int
    alpha: float
    tensors: Mapping[str, Tensor]
    scale: float

    @property
    def targets(self) -> list[str]:
        """The names of its layers within a block, such as "attn.c_attn"."""
        return list(dict.fromkeys(name.split(".", 2)[2] for name in self.layers()))

    def layers(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(A, B) of each layer by the layer's name."""
        names = [name.removesuffix(f".{A}") for name in self.tensors if name.endswith(A)]
        return {name: (self.tensors[f"{name}.{A}"], self.tensors[f"{name}.{B}"]) for name in names}


def add_lora(model: GPTModel, rank: int, alpha: float, seed: int, targets: Targets = "attention") -> None:
    """Freeze a model's weights and add an adapter to the target layers of each block."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for block in model.h:
        for name in TARGETS[targets]:
            linear = cast(nn.Linear, block.get_submodule(name))
            block.set_submodule(name, LoRALinear(linear, rank, alpha, generator))


def adapter_size(config: GPTConfig, rank: int, targets: Targets) -> int:
    """The number of parameters of an adapter."""
    c, ff = config.d_model, config.mlp_width
    inputs_and_outputs = {"attn.c_attn": 4 * c, "attn.c_proj": 2 * c, "mlp.c_fc": c + ff, "mlp.c_proj": ff + c}
    return config.n_layers * rank * sum(inputs_and_outputs[name] for name in TARGETS[targets])


def adapter_of(model: GPTModel) -> Adapter | None:
    """The adapter that is being trained, or None if all weights are."""
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    if not layers:
        return None
    return Adapter(len(layers[0].lora_A), layers[0].alpha, trained_weights(model), layers[0].scale)


def trained_weights(model: GPTModel) -> dict[str, Tensor]:
    """The weights that training changes: those of the adapter, or all."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name in trained}


def copy_sharing_weights(model: GPTModel) -> GPTModel:
    """A second model with the same weight tensors, so it takes no memory. One of the two can then get an adapter."""
    second = on_meta_device(model.config)
    second.load_state_dict(model.state_dict(), assign=True)
    return second.train(model.training)


def holds_adapter_only(weights: object) -> bool:
    """Whether a checkpoint's weights are those of an adapter, without the model that it belongs to."""
    return isinstance(weights, dict) and bool(weights) and all(str(name).endswith((A, B)) for name in weights)


def merged_weights(weights: Mapping[str, Tensor], adapter: Adapter | None) -> Mapping[str, Tensor]:
    """The state dict of a plain model from the state dict of one with an adapter. Merged weights are copies."""
    if adapter is None:
        return weights
    merged = {
        f"{name}.weight": torch.addmm(weights[f"{name}.weight"], b * adapter.scale, a)
        for name, (a, b) in adapter.layers().items()
    }
    return {name: tensor for name, tensor in weights.items() if name not in adapter.tensors} | merged
