"""Hyperparameters by size: what a recipe replaces, and what is somebody's own choice."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import dpo_train
import instruction_tune
import main
from src.model.gpt import GPT_CONFIGS
from src.training import recipes
from src.training.flags import TrainingFlags
from src.training.recipes import RECIPES, SCRIPT_DEFAULTS, apply_recipe, size_name

SCRIPTS = {"pretrain": main, "sft": instruction_tune, "dpo": dpo_train}
CONSTANTS = {
    "epochs": "NUM_EPOCHS",
    "batch_size": "BATCH_SIZE",
    "context_length": "CONTEXT_LENGTH",
    "max_lr": "MAX_LR",
    "min_lr": "MIN_LR",
    "warmup_steps": "WARMUP_STEPS",
}


@pytest.mark.parametrize("stage", SCRIPTS)
def test_what_was_published_are_the_constants_of_the_script_and_the_defaults_of_its_flags(stage: str) -> None:
    script: ModuleType = SCRIPTS[stage]
    assert SCRIPT_DEFAULTS[stage] == {field: getattr(script, constant) for field, constant in CONSTANTS.items()}
    assert SCRIPT_DEFAULTS[stage] == {field: getattr(script.Flags(), field) for field in CONSTANTS}
    assert set(SCRIPT_DEFAULTS) == set(RECIPES) == set(SCRIPTS)


def test_every_recipe_is_of_a_size_that_exists_and_of_flags_that_its_script_has() -> None:
    for stage, sizes in RECIPES.items():
        for size, recipe in sizes.items():
            assert size in GPT_CONFIGS, (stage, size)
            flags = SCRIPTS[stage].Flags()
            assert apply_recipe(flags, stage, size, set()) == replace(flags, **recipe)  # the checks of the flags pass


@pytest.mark.parametrize("name", ["micro", "tiny", "gpt2-124M", "gpt2-355M", "gpt2-774M", "gpt2-1558M", "gpt3-13B"])
def test_a_size_is_known_by_its_shape_alone(name: str) -> None:
    config = {**GPT_CONFIGS[name], "vocab_size": 7, "context_length": 3, "dropout": 0.5}
    assert size_name(config) == name


@pytest.mark.parametrize("changed", ["d_model", "n_heads", "n_layers"])
def test_another_shape_is_no_known_size(changed: str) -> None:
    config = {**GPT_CONFIGS["micro"], changed: 2 * GPT_CONFIGS["micro"][changed]}
    assert size_name(config) is None


def test_a_recipes_rates_are_for_its_optimizer_only() -> None:
    published = SCRIPTS["pretrain"].Flags()
    by_recipe = RECIPES["pretrain"]["micro"]
    given = replace(published, optimizer="adamw")
    fitted = apply_recipe(given, "pretrain", "micro", {"optimizer"})
    assert (fitted.optimizer, fitted.max_lr, fitted.min_lr) == ("adamw", published.max_lr, published.min_lr)
    assert fitted.max_steps == by_recipe["max_steps"]
    same = apply_recipe(replace(published, optimizer="muon"), "pretrain", "micro", {"optimizer"})
    assert (same.max_lr, same.min_lr) == (by_recipe["max_lr"], by_recipe["min_lr"])


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> TrainingFlags:
    """Flags as published, for a stage whose recipe for micro is another."""
    published = {
        "epochs": 3,
        "batch_size": 8,
        "context_length": 128,
        "max_lr": 3e-4,
        "min_lr": 3e-5,
        "warmup_steps": 20,
    }
    recipe = {"epochs": 9, "max_lr": 2e-3, "min_lr": 2e-4, "val_fraction": 0.0}
    monkeypatch.setattr(recipes, "SCRIPT_DEFAULTS", {"a stage": published})
    monkeypatch.setattr(recipes, "RECIPES", {"a stage": {"micro": recipe}})
    return TrainingFlags(data=Path("data"), out=Path("out"), **published)


def test_a_recipe_takes_the_place_of_what_nobody_chose(flags: TrainingFlags) -> None:
    fitted = apply_recipe(flags, "a stage", "micro", set())
    assert fitted == replace(flags, epochs=9, max_lr=2e-3, min_lr=2e-4, val_fraction=0.0)


@pytest.mark.parametrize("size", ["gpt2-124M", None])
def test_without_a_recipe_the_flags_stay(flags: TrainingFlags, size: str | None) -> None:
    assert apply_recipe(flags, "a stage", size, set()) == flags


def test_a_flag_that_was_given_is_a_choice_also_where_it_equals_what_was_published(flags: TrainingFlags) -> None:
    assert apply_recipe(flags, "a stage", "micro", {"epochs"}).epochs == 3
    assert apply_recipe(replace(flags, val_fraction=0.5), "a stage", "micro", {"val_fraction"}).val_fraction == 0.5


def test_a_constant_that_was_edited_is_a_choice(flags: TrainingFlags) -> None:
    fitted = apply_recipe(replace(flags, epochs=4), "a stage", "micro", set())
    assert fitted == replace(flags, epochs=4, max_lr=2e-3, min_lr=2e-4, val_fraction=0.0)


def test_a_highest_rate_below_the_recipes_lowest_keeps_the_scripts_lowest(flags: TrainingFlags) -> None:
    fitted = apply_recipe(replace(flags, max_lr=1e-4), "a stage", "micro", {"max_lr"})
    assert (fitted.max_lr, fitted.min_lr) == (1e-4, 3e-5)
    fitted = apply_recipe(replace(flags, max_lr=1e-3), "a stage", "micro", {"max_lr"})
    assert (fitted.max_lr, fitted.min_lr) == (1e-3, 2e-4)


def test_a_lowest_rate_above_the_recipes_highest_keeps_the_scripts_highest(flags: TrainingFlags, monkeypatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", {"a stage": {"micro": {"max_lr": 1e-4, "min_lr": 1e-5}}})
    fitted = apply_recipe(replace(flags, min_lr=2e-4), "a stage", "micro", {"min_lr"})
    assert (fitted.max_lr, fitted.min_lr) == (3e-4, 2e-4)
