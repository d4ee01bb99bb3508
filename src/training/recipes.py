"""Hyperparameters by model size, in one place.

A script's constants are those for GPT-2's sizes. Models that are trained from scratch on a laptop need others; they
stand here, found by the runs that benchmarks/README.md describes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

F = TypeVar("F")

SMALL_DATASET = 200
# The constants of the scripts as published, by stage: where one differs, somebody edited it.
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
    "optimizer": "muon",
    "max_steps": 600,  # half a million tokens: minutes on two cores
    "batch_size": 4,
    "context_length": 256,  # room for a few turns of a chat
    "max_lr": 1e-2,
    "min_lr": 5e-4,
    "warmup_steps": 20,
    "patience": 3,  # a short text is overfitted long before the last step
}
# To know a few answers by heart is what such a model can show: no validation, no decay, as many passes as that takes.
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
# stage -> size -> {field: value}; sizes that are not here keep the constants.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "pretrain": {"micro": _FROM_SCRATCH, "tiny": _FROM_SCRATCH},
    "sft": {"micro": {**_MEMORISE, "max_lr": 2e-3}, "tiny": {**_MEMORISE, "max_lr": 1e-3}},
    "dpo": {"micro": {**_DPO_SMALL, "max_lr": 5e-5}, "tiny": {**_DPO_SMALL, "max_lr": 2e-5}},
}


def size_name(config: Mapping[str, Any], sizes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The name of the size that a model config has, whatever its vocabulary, context and dropout; None for no known."""
    shape = ("d_model", "n_heads", "n_layers")
    return next((name for name, size in sizes.items() if all(size[k] == config[k] for k in shape)), None)


def apply_recipe(flags: F, stage: str, size: str | None, given: set[str], examples: int = 0) -> F:
    """The flags with the recipe of the size in place of every value that nobody chose.

    A flag that was given, or a script's constant that was edited away from what was published, is a choice. With more
    than a few `examples` there is more to do than to learn them by heart: length and validation stay the script's.
    """
    chosen = given | {name for name, value in SCRIPT_DEFAULTS[stage].items() if getattr(flags, name) != value}
    if "epochs" in chosen:
        chosen.add("max_steps")  # a recipe's steps would overrule the epochs that were asked for
    if examples > SMALL_DATASET:
        chosen |= {"max_steps", "val_fraction"}
    recipe = RECIPES[stage].get(size or "", {})
    if "optimizer" in chosen and recipe.get("optimizer", "adamw") != flags.optimizer:  # type: ignore[attr-defined]
        chosen |= {"max_lr", "min_lr"}  # a recipe's rates are good for its optimizer only
    free = {name: value for name, value in recipe.items() if name not in chosen}
    rates = {**vars(flags), **free}
    if rates["min_lr"] > rates["max_lr"]:  # one was chosen, beyond the recipe's other: that one stays the script's
        del free["min_lr" if "min_lr" in free else "max_lr"]
    return replace(flags, **free)  # type: ignore[type-var]
