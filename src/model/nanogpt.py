"""Checkpoints of nanoGPT (https://github.com/karpathy/nanoGPT): its ckpt.pt, as train.py saves it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from src.common.checks import is_count
from src.model.config import GPTConfig
from src.model.meta_device import model_to_fill
from src.model.weight_files import parameter_name

_SIZES = {
    "vocab_size": "vocab_size",
    "block_size": "context_length",
    "n_embd": "d_model",
    "n_head": "n_heads",
    "n_layer": "n_layers",
}
_GPT2_IDS = 50257  # nanoGPT pads them to 50304; the other rows of the embedding are never used
_PADDED_IDS = range(_GPT2_IDS, 50305)


def from_nanogpt(
    tensors: Mapping[str, Tensor], model_args: Mapping[str, Any], source: str
) -> tuple[GPTConfig, dict[str, Tensor]]:
    """(config, tensors): nanoGPT computes the exact GELU, pads the vocabulary, and can leave out all biases.

    A padded vocabulary is cut to GPT-2's ids, and missing biases are added as zeros.
    Raises ValueError if the sizes are invalid, or if the vocabulary is not GPT-2's.
    """
    values = {ours: model_args.get(theirs) for theirs, ours in _SIZES.items()}
    wrong = [theirs for theirs, ours in _SIZES.items() if not is_count(values[ours])]
    if wrong:
        raise ValueError(f"{source}: nanoGPT's model_args has no valid {', '.join(wrong)}")
    if values["vocab_size"] not in _PADDED_IDS:
        raise ValueError(
            f"{source}: this nanoGPT model has {values['vocab_size']} token ids, so it was trained with a tokenizer of "
            "its own, which is not in the file; only models with GPT-2's 50257 ids can be used"
        )
    try:
        config = GPTConfig.of({**values, "vocab_size": _GPT2_IDS, "activation": "gelu"})
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    found = {parameter_name(name): tensor for name, tensor in tensors.items()}
    for name in ("wte.weight", "lm_head.weight"):
        if name in found:
            found[name] = found[name][:_GPT2_IDS]
    if model_args.get("bias") is False:
        expected = model_to_fill(config, len(found)).state_dict()
        missing = {name: torch.zeros(value.shape) for name, value in expected.items() if name.endswith(".bias")}
        found = {**missing, **found}
    return config, found
