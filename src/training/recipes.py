"""Hyperparameters by model size, in one place.

The constants of the scripts are for GPT-2's sizes. Models trained from scratch on a laptop need other values; the
recipes here were found by the runs in benchmarks/recipes.md.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from src.model.config import GPT_CONFIGS
from src.training.flags import TrainingFlags

FlagsT = TypeVar("FlagsT", bound=TrainingFlags)

LORA_LR_SCALE = 10.0  # B starts at zero and A is small, so an adapter learns little at the rates of full training
SMALL_DATASET = 200  # examples; a small model memorises this many
# The constants of the scripts as shipped, by stage. A constant with another value was edited by the user.
SCRIPT_DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {
        "epochs": 3,
        "batch_size": 8,
        "context_length": 128,
        "max_lr": 3e-4,
        "min_lr": 3e-5,
        "warmup_steps": 20,
    },
    "sft": {"epochs": 5, "batch_size": 4, "context_length": 256, "max_lr": 2e-5, "min_lr": 2e-6, "warmup_steps": 20},
    "dpo": {"epochs": 5, "batch_size": 4, "context_length": 256, "max_lr": 5e-6, "min_lr": 5e-7, "warmup_steps": 5},
}
_FROM_SCRATCH = {
    "tokenizer": "bpe",
    "vocab_size": 4096,  # a head over GPT-2's 50,257 tokens would take nine tenths of a step
    "optimizer": "muon",
    "max_steps": 1800,  # 3.7 million tokens: minutes on two cores
    "batch_size": 8,
    "context_length": 256,  # enough for a few turns of a chat
    "max_lr": 1e-2,
    "min_lr": 1e-4,
    "lr_decay": "linear",
    "beta2": 0.999,  # a step has few tokens
    "warmup_steps": 20,
    "patience": 3,  # a short text overfits long before the last step
}
# A model this small can only memorise, so: no validation split, no weight decay, many epochs.
_MEMORISE = {
    "max_steps": 600,
    "batch_size": 4,
    "turns": 4,
    "min_lr": 1e-4,
    "warmup_steps": 10,
    "weight_decay": 0.0,
    "val_fraction": 0.0,
}
_DPO_SMALL = {"max_steps": 40, "min_lr": 1e-5, "weight_decay": 0.0, "val_fraction": 0.0}
# stage -> size -> {field: value}. Other sizes keep the script's constants.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "pretrain": {"micro": _FROM_SCRATCH, "tiny": _FROM_SCRATCH},
    "sft": {"micro": {**_MEMORISE, "max_lr": 2e-3}, "tiny": {**_MEMORISE, "max_lr": 1e-3}},
    "dpo": {"micro": {**_DPO_SMALL, "max_lr": 5e-5}, "tiny": {**_DPO_SMALL, "max_lr": 2e-5}},
}


def size_name(config: Mapping[str, Any]) -> str | None:
    """The name of a model's size, whatever its vocabulary, context and dropout. None if the size has no name."""
    shape = ("d_model", "n_heads", "n_layers")
    return next((name for name, size in GPT_CONFIGS.items() if all(size[k] == config[k] for k in shape)), None)


def apply_recipe(flags: FlagsT, stage: str, size: str | None, given: set[str], examples: int = 0) -> FlagsT:
    """The flags, with the recipe's value for every option that the user did not set, and LoRA's higher learning rates.

    given: the flags on the command line. An edited script constant counts as set by the user, too.
    examples: how many there are. More than SMALL_DATASET are too many to memorise, so the number of steps and the
    validation split stay the script's.
    """
    recipe = RECIPES[stage].get(size or "", {})
    explicit = given | {name for name, value in SCRIPT_DEFAULTS[stage].items() if getattr(flags, name) != value}
    if "epochs" in explicit:
        explicit.add("max_steps")  # the recipe's steps would overrule the user's epochs
    if examples > SMALL_DATASET:
        explicit |= {"max_steps", "val_fraction"}
    if "optimizer" in explicit and recipe.get("optimizer", "adamw") != flags.optimizer:
        explicit |= {"max_lr", "min_lr"}  # the recipe's learning rates are for its own optimizer
    if "tokenizer" in explicit:
        explicit.add("vocab_size")  # the recipe's size is for its own tokenizer
    changes = {name: value for name, value in recipe.items() if name not in explicit}
    lrs = {"max_lr": flags.max_lr, "min_lr": flags.min_lr, **changes}
    if lrs["min_lr"] > lrs["max_lr"]:  # the user's rate conflicts with the recipe's other rate: keep the script's
        del changes["min_lr" if "min_lr" in changes else "max_lr"]
    return apply_lora_rates(replace(flags, **changes), given)


def apply_lora_rates(flags: FlagsT, given: set[str]) -> FlagsT:
    """The flags with LoRA's higher learning rates in place of those that the user did not set."""
    if not flags.lora or "max_lr" in given:
        return flags
    return replace(
        flags,
        max_lr=flags.max_lr * LORA_LR_SCALE,
        min_lr=flags.min_lr if "min_lr" in given else flags.min_lr * LORA_LR_SCALE,
    )
