"""Hyperparameters by size: which values a recipe replaces, and which are the user's own."""

import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import dpo_train
import instruction_tune
import main
from src.data.learned_tokenizer import Tokenizer
from src.distributed.processes import Processes
from src.model.gpt import GPT_CONFIGS
from src.training import recipes
from src.training.flags import TrainingFlags
from src.training.recipes import RECIPES, SCRIPT_DEFAULTS, apply_recipe, size_name
from src.training.tokenizer import load_or_learn_encoding

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
def test_flags_default_to_the_constants_of_the_script(stage: str) -> None:
    script: ModuleType = SCRIPTS[stage]
    for field, constant in CONSTANTS.items():
        assert getattr(script.Flags(), field) == getattr(script, constant)
    assert set(SCRIPT_DEFAULTS[stage]) == set(CONSTANTS)
    assert set(SCRIPT_DEFAULTS) == set(RECIPES) == set(SCRIPTS)


@pytest.mark.parametrize(("field", "constant"), CONSTANTS.items())
@pytest.mark.parametrize("stage", SCRIPTS)
def test_script_defaults_are_the_shipped_constants(stage: str, field: str, constant: str) -> None:
    """A person may edit a constant, committed or not. Only this project's CI fails then."""
    script, shipped = SCRIPTS[stage], SCRIPT_DEFAULTS[stage][field]
    current = getattr(script, constant)
    if current != shipped and not os.environ.get("CI"):
        pytest.skip(f"{script.__name__}.py: {constant} was edited from {shipped} to {current}")
    assert current == shipped, f"{script.__name__}.py and src/training/recipes.py disagree on {constant}"


def test_recipes_name_known_sizes_and_flags(unedited_constants: None) -> None:
    for stage, sizes in RECIPES.items():
        for size, recipe in sizes.items():
            assert size in GPT_CONFIGS, (stage, size)
            flags = SCRIPTS[stage].Flags()
            assert apply_recipe(flags, stage, size, set()) == replace(flags, **recipe)  # the checks of the flags pass


@pytest.mark.parametrize("name", ["micro", "tiny", "gpt2-124M", "gpt2-355M", "gpt2-774M", "gpt2-1558M", "gpt3-13B"])
def test_size_name_depends_only_on_the_shape(name: str) -> None:
    config = {**GPT_CONFIGS[name], "vocab_size": 7, "context_length": 3, "dropout": 0.5}
    assert size_name(config) == name


@pytest.mark.parametrize("changed", ["d_model", "n_heads", "n_layers"])
def test_an_unknown_shape_has_no_size_name(changed: str) -> None:
    config = {**GPT_CONFIGS["micro"], changed: 2 * GPT_CONFIGS["micro"][changed]}
    assert size_name(config) is None


def test_recipe_learning_rates_need_the_recipe_optimizer(unedited_constants: None) -> None:
    shipped = SCRIPTS["pretrain"].Flags()
    by_recipe = RECIPES["pretrain"]["micro"]
    given = replace(shipped, optimizer="adamw")
    applied = apply_recipe(given, "pretrain", "micro", {"optimizer"})
    assert (applied.optimizer, applied.max_lr, applied.min_lr) == ("adamw", shipped.max_lr, shipped.min_lr)
    assert applied.max_steps == by_recipe["max_steps"]
    same = apply_recipe(replace(shipped, optimizer="muon"), "pretrain", "micro", {"optimizer"})
    assert (same.max_lr, same.min_lr) == (by_recipe["max_lr"], by_recipe["min_lr"])


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> TrainingFlags:
    """Flags as shipped, for a stage whose recipe for micro differs."""
    shipped = {
        "epochs": 3,
        "batch_size": 8,
        "context_length": 128,
        "max_lr": 3e-4,
        "min_lr": 3e-5,
        "warmup_steps": 20,
    }
    recipe = {"epochs": 9, "max_lr": 2e-3, "min_lr": 2e-4, "val_fraction": 0.0}
    monkeypatch.setattr(recipes, "SCRIPT_DEFAULTS", {"a stage": shipped})
    monkeypatch.setattr(recipes, "RECIPES", {"a stage": {"micro": recipe}})
    return TrainingFlags(data=Path("data"), out=Path("out"), **shipped)


def test_a_recipe_replaces_values_the_user_did_not_set(flags: TrainingFlags) -> None:
    applied = apply_recipe(flags, "a stage", "micro", set())
    assert applied == replace(flags, epochs=9, max_lr=2e-3, min_lr=2e-4, val_fraction=0.0)


@pytest.mark.parametrize("size", ["gpt2-124M", None])
def test_without_a_recipe_the_flags_stay(flags: TrainingFlags, size: str | None) -> None:
    assert apply_recipe(flags, "a stage", size, set()) == flags


def test_a_given_flag_wins_even_at_its_default_value(flags: TrainingFlags) -> None:
    assert apply_recipe(flags, "a stage", "micro", {"epochs"}).epochs == 3
    assert apply_recipe(replace(flags, val_fraction=0.5), "a stage", "micro", {"val_fraction"}).val_fraction == 0.5


def test_an_edited_constant_wins_over_the_recipe(flags: TrainingFlags) -> None:
    applied = apply_recipe(replace(flags, epochs=4), "a stage", "micro", set())
    assert applied == replace(flags, epochs=4, max_lr=2e-3, min_lr=2e-4, val_fraction=0.0)


def test_max_lr_below_the_recipe_min_lr_keeps_the_script_min_lr(flags: TrainingFlags) -> None:
    applied = apply_recipe(replace(flags, max_lr=1e-4), "a stage", "micro", {"max_lr"})
    assert (applied.max_lr, applied.min_lr) == (1e-4, 3e-5)
    applied = apply_recipe(replace(flags, max_lr=1e-3), "a stage", "micro", {"max_lr"})
    assert (applied.max_lr, applied.min_lr) == (1e-3, 2e-4)


def test_min_lr_above_the_recipe_max_lr_keeps_the_script_max_lr(flags: TrainingFlags, monkeypatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", {"a stage": {"micro": {"max_lr": 1e-4, "min_lr": 1e-5}}})
    applied = apply_recipe(replace(flags, min_lr=2e-4), "a stage", "micro", {"min_lr"})
    assert (applied.max_lr, applied.min_lr) == (3e-4, 2e-4)


def test_a_vocabulary_size_is_taken_without_naming_the_tokenizer() -> None:
    """The recipe chooses the tokenizer that learns a vocabulary of this size."""
    flags = apply_recipe(main.Flags(vocab_size=300), "pretrain", "micro", {"vocab_size"})
    assert (flags.tokenizer, flags.vocab_size) == ("bpe", 300)


@pytest.mark.parametrize("tokenizer", ["gpt2", "word"])
def test_a_vocabulary_size_is_refused_for_a_tokenizer_with_a_size_of_its_own(tokenizer: Tokenizer) -> None:
    flags = apply_recipe(main.Flags(tokenizer=tokenizer, vocab_size=300), "pretrain", "micro", {"tokenizer"})
    with pytest.raises(ValueError, match=f"^--vocab-size is for --tokenizer bpe; .* --tokenizer {tokenizer}$"):
        load_or_learn_encoding(flags, Processes())
