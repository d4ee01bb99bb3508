"""A model is found by its stage, by a path, or as the first that exists; a missing one is named with its command."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from src import stages
from src.stages import BEST, STAGE_OUTPUTS, find_model, producing_command, sft_bases

ORDER = ("dpo", "sft", "scratch")


@pytest.fixture
def make_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that creates the files of models, by name, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            path, _ = STAGE_OUTPUTS[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def test_auto_takes_the_first_model_that_exists(make_models: Callable[..., None]) -> None:
    make_models("scratch", "pretrained")
    assert find_model("auto", ORDER) == (STAGE_OUTPUTS["scratch"][0], "best available, no dpo or sft model yet")
    make_models("sft")
    assert find_model("auto", ORDER) == (STAGE_OUTPUTS["sft"][0], "best available, no dpo model yet")
    make_models("dpo")
    assert find_model("auto", ORDER) == (STAGE_OUTPUTS["dpo"][0], "best available")


def test_sft_starts_from_what_was_trained_last(make_models: Callable[..., None]) -> None:
    assert sft_bases()[-1] == "scratch"  # with no model at all, the message names `python main.py`
    make_models("pretrained")
    assert find_model("auto", sft_bases())[0] == STAGE_OUTPUTS["pretrained"][0]
    make_models("finetuned", "scratch")
    for older, newer in [("finetuned", "scratch"), ("scratch", "finetuned")]:
        os.utime(STAGE_OUTPUTS[older][0], (1000, 1000))
        os.utime(STAGE_OUTPUTS[newer][0], (2000, 2000))
        assert find_model("auto", sft_bases()) == (STAGE_OUTPUTS[newer][0], "trained last")


def test_a_model_is_found_by_name_or_path(make_models: Callable[..., None], tmp_path: Path) -> None:
    make_models("dpo", "scratch")
    best = tmp_path / "elsewhere" / BEST
    best.parent.mkdir()
    best.touch()
    assert find_model("scratch", ORDER) == (STAGE_OUTPUTS["scratch"][0], "scratch, as requested")
    assert find_model(str(best), ORDER) == (best, "as requested")
    assert find_model(str(best.parent), ORDER) == (best, "as requested")


@pytest.mark.parametrize(("name", "command"), [(name, command) for name, (_, command) in STAGE_OUTPUTS.items()])
def test_a_missing_model_is_named_with_the_command_to_make_it(make_models, name: str, command: str) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        find_model(name, ORDER)
    assert str(missing.value) == f"{STAGE_OUTPUTS[name][0]}: not found in {Path.cwd()}; make it with {command}"


def test_names_may_be_in_any_case(make_models: Callable[..., None]) -> None:
    make_models("dpo")
    assert find_model("DPO", ORDER) == (STAGE_OUTPUTS["dpo"][0], "dpo, as requested")
    assert find_model("Auto", ORDER)[0] == STAGE_OUTPUTS["dpo"][0]


def test_models_next_to_the_scripts_are_a_second_choice(make_models, tmp_path: Path, monkeypatch) -> None:
    other = tmp_path / "project"
    monkeypatch.setattr(stages, "_scripts_folder", lambda: other)
    with pytest.raises(FileNotFoundError) as missing:
        find_model("dpo", ORDER, beside_scripts=True)
    assert f"not found in {Path.cwd()} or in {other}; make it with python dpo_train.py" in str(missing.value)
    there = other / STAGE_OUTPUTS["sft"][0]
    there.parent.mkdir(parents=True)
    there.touch()
    assert find_model("auto", ORDER, beside_scripts=True) == (there, "best available, no dpo model yet")
    with pytest.raises(FileNotFoundError):
        find_model("auto", ORDER)
    make_models("scratch")
    assert find_model("auto", ORDER, beside_scripts=True)[0] == STAGE_OUTPUTS["scratch"][0]


def test_auto_without_any_model_names_the_first_command(make_models) -> None:
    with pytest.raises(FileNotFoundError, match="not found in .*; make it with python main.py, or pass a path"):
        find_model("auto", ORDER)
    with pytest.raises(FileNotFoundError, match="make it with python instruction_tune.py, or pass a path"):
        find_model("auto", ("sft",))


@pytest.mark.parametrize("name", ["scratch", "auto"])
def test_a_model_in_the_former_folder_is_not_found_but_named(make_models, name: str) -> None:
    former = Path("checkpoints/pretrained/best_model.pt")
    former.parent.mkdir(parents=True)
    former.touch()
    with pytest.raises(FileNotFoundError) as missing:
        find_model(name, ORDER)
    found = f"{STAGE_OUTPUTS['scratch'][0]}: not found, but {former} exists"
    assert str(missing.value).startswith(f"{found}; rename {former.parent} to {Path('checkpoints/scratch')}")
    former.parent.rename("checkpoints/scratch")
    assert find_model(name, ORDER)[0] == STAGE_OUTPUTS["scratch"][0]


@pytest.mark.parametrize(("name", "shown"), [("elsewhere.pt", "elsewhere.pt"), ("", "''")])
def test_a_path_that_does_not_exist_is_refused(make_models, name: str, shown: str) -> None:
    missing = f"{shown}: no such file{f' in {Path.cwd()}' if name else ''}; "
    paths = "the path of a checkpoint, a Hugging Face directory or a weights file"
    with pytest.raises(FileNotFoundError) as refused:
        find_model(name, ORDER)
    assert str(refused.value) == f"{missing}make a model with python main.py, or pass {paths}"
    make_models("dpo", "scratch", "pretrained")
    with pytest.raises(FileNotFoundError) as refused:
        find_model(name, ORDER)
    assert str(refused.value) == f"{missing}pass dpo, scratch, or {paths}"


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("checkpoints/dpo_aligned/best_model.pt", "python dpo_train.py"),
        ("elsewhere/dpo_aligned/latest_model.pt", "python dpo_train.py"),
        ("checkpoints/instruction_tuned/best_model.pt", "python instruction_tune.py"),
        ("checkpoints/gpt2_shakespeare/latest_model.pt", "python finetune_gpt2.py"),
        ("checkpoints/gpt2_pretrained.pt", "python finetune_gpt2.py"),
        ("checkpoints/scratch/best_model.pt", "python main.py"),
        ("checkpoints/mine.pt", "one of the training scripts"),
        ("best_model.pt", "one of the training scripts"),
    ],
)
def test_the_producing_command_follows_from_the_folder(path: str, command: str) -> None:
    assert producing_command(Path(path)) == command
