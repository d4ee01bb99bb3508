"""The public functions of main.py: prepare_data, create_dataloader, train and load_checkpoint."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import main
from src.checkpoint import load_model, read_checkpoint
from src.data import text
from src.data.batching import StepLoader
from src.model.generate import TextGenerator
from src.model.gpt import GPT_CONFIGS, GPTModel
from src.runtime import Runtime, seed_step
from src.tokenizer import build_word_encoding, load_gpt2_encoding
from src.training.losses import language_model_loss
from src.training.optim import make_adamw

VERSE = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n"
MICRO = {**GPT_CONFIGS["micro"], "context_length": 16}
SIZE = {**MICRO, "d_model": 32, "n_layers": 1}  # with GPT-2's vocabulary, micro takes seconds to save
CONFIG = {"max_steps": 2, "context_length": 16, "max_lr": 1e-3, "min_lr": 1e-4, "warmup_steps": 1, "precision": "fp32"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "verse.txt").write_text(VERSE * 60, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new_model(seed: int = 0) -> GPTModel:
    seed_step(seed, 0)
    return GPTModel(SIZE)


def loaders() -> list:
    """The training and the validation loader of the verse."""
    ids = main.prepare_data("verse.txt")
    return [main.create_dataloader(part, batch_size=2, context_length=16) for part in ids]


def trained(model: GPTModel, **config: object) -> GPTModel:
    assert main.train(model, *loaders(), "cpu", {**CONFIG, **config}) == 0
    return model


def log_lines(event: str) -> list[dict]:
    [log] = Path("logs").glob("*.jsonl")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == event]


def same_weights(a: GPTModel, b: GPTModel) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


# --- prepare_data


def test_prepare_data_splits_the_token_ids_of_a_text() -> None:
    train_ids, val_ids = main.prepare_data("verse.txt", val_fraction=0.2)
    assert [*train_ids, *val_ids] == load_gpt2_encoding().encode_ordinary(VERSE * 60)
    assert load_gpt2_encoding().decode(val_ids) == (VERSE * 60)[-len(VERSE) * 12 :]


def test_prepare_data_holds_out_a_tenth_by_default_and_nothing_at_0() -> None:
    train_ids, val_ids = main.prepare_data(Path("verse.txt"))
    assert load_gpt2_encoding().decode(val_ids) == (VERSE * 60)[-len(VERSE) * 6 :]
    everything, nothing = main.prepare_data("verse.txt", val_fraction=0.0)
    assert (len(everything), len(nothing)) == (len(train_ids) + len(val_ids), 0)


def test_prepare_data_takes_another_tokenizer() -> None:
    encoding = build_word_encoding(Path("verse.txt"))
    train_ids, _ = main.prepare_data("verse.txt", encoding)
    assert train_ids.tolist() == encoding.encode_ordinary(VERSE * 60)[: len(train_ids)]


def test_prepare_data_downloads_shakespeare_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def ensure(path: Path) -> Path:
        path.parent.mkdir()
        path.write_text(VERSE * 60, encoding="utf-8")
        return path

    monkeypatch.setattr(text, "ensure_shakespeare", ensure)
    assert [ids.tolist() for ids in main.prepare_data()] == [ids.tolist() for ids in main.prepare_data("verse.txt")]


def test_prepare_data_refuses_an_unusable_text() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.txt not found"):
        main.prepare_data("nowhere.txt")
    with pytest.raises(ValueError, match="--val-fraction"):
        main.prepare_data("verse.txt", val_fraction=1.0)


# --- create_dataloader


def test_create_dataloader_gives_inputs_and_shifted_targets() -> None:
    loader = main.create_dataloader(np.arange(1000, dtype=np.uint16), batch_size=4, context_length=16)
    assert isinstance(loader, DataLoader)
    assert (loader.batch_size, len(loader)) == (4, 16)  # 62 windows
    batches = list(loader)
    assert len(batches) == 16
    for inputs, targets in batches[:-1]:
        assert inputs.shape == targets.shape == (4, 16)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(targets, inputs + 1)


def test_create_dataloader_defaults_to_the_constants_of_the_script() -> None:
    inputs, _ = next(iter(main.create_dataloader(np.arange(50 * main.BATCH_SIZE * main.CONTEXT_LENGTH))))
    assert inputs.shape == (main.BATCH_SIZE, main.CONTEXT_LENGTH)


def test_create_dataloader_shuffles_by_seed_and_epoch() -> None:
    def epochs(seed: int) -> list[list[int]]:
        loader = main.create_dataloader(np.arange(1000), 4, 16, seed=seed)
        return [[int(i) for inputs, _ in loader for i in inputs[:, 0]] for _ in range(2)]

    first, second = epochs(1)
    assert epochs(1) == [first, second]
    assert first != second
    assert epochs(2)[0] != first


def test_a_step_of_micro_batches_equals_one_large_batch() -> None:
    loader = StepLoader(main.create_dataloader(np.arange(1000), 2, 16), 3)
    whole = StepLoader(main.create_dataloader(np.arange(1000), 6, 16))
    assert loader.steps_per_epoch == whole.steps_per_epoch == 11
    parts, [one] = loader.step_batches(4), whole.step_batches(4)
    assert torch.equal(torch.cat([batch.inputs for batch in parts]), one.inputs)


def test_create_dataloader_refuses_a_text_shorter_than_a_window() -> None:
    with pytest.raises(ValueError, match="has 16 tokens; one window needs 17: lower --context-length"):
        main.create_dataloader(np.arange(16), 2, 16)


# --- train


def test_train_lowers_the_loss_and_saves_both_checkpoints() -> None:
    model = trained(new_model(), max_steps=5, out=Path("own"))
    best, latest = (read_checkpoint(Path(f"own/{name}_model.pt")) for name in ("best", "latest"))
    assert latest["step"] == 5
    assert best["val_loss"] < latest["resume"]["progress"]["first_loss"]
    assert same_weights(load_model("own/latest_model.pt")[0], model)
    assert not same_weights(model, new_model())


def test_train_is_deterministic_however_its_config_is_passed() -> None:
    expected = trained(new_model(), out=Path("a"))
    flags = main.Flags(**{**CONFIG, "out": Path("b")})
    model = new_model()
    assert main.train(model, *loaders(), torch.device("cpu"), flags) == 0
    assert same_weights(model, expected)
    model = new_model()
    assert main.train(model, *loaders(), Runtime(torch.device("cpu"), "fp32", ""), {**CONFIG, "out": Path("c")}) == 0
    assert same_weights(model, expected)
    assert not same_weights(trained(new_model(), seed=2, dropout=0.0, max_lr=2e-3, out=Path("d")), expected)


def test_train_equals_the_script(unedited_constants: None) -> None:
    argv = ["--data", "verse.txt", "--model", "micro", "--optimizer", "adamw", "--patience", "none", "--device", "cpu"]
    argv += ["--tokenizer", "gpt2", "--lr-decay", "cosine", "--beta2", "0.95"]  # the flags of the recipe
    argv += [word for name, value in CONFIG.items() for word in ("--" + name.replace("_", "-"), str(value))]
    assert main.main([*argv, "--batch-size", "2", "--out", "script"]) == 0
    seed_step(1337, 0)
    model = trained(GPTModel({**MICRO, "dropout": main.Flags().dropout}), out=Path("own"))
    assert same_weights(load_model("script/latest_model.pt")[0], model)


def test_train_accumulates_the_batches_of_the_loader(capsys: pytest.CaptureFixture) -> None:
    train_loader, val_loader = loaders()
    config = {**CONFIG, "batch_size": 5, "grad_accum": 3, "out": Path("own")}
    assert main.train(new_model(), train_loader, val_loader, "cpu", config) == 0
    steps = math.ceil(len(train_loader) / 3)
    assert f"2 x 3 accumulated, {steps} steps per epoch" in capsys.readouterr().out
    assert {line["tokens"] for line in log_lines("step")} == {2 * 3 * 16}


def test_evaluation_has_the_same_batches_for_any_accumulation() -> None:
    train_loader, _ = loaders()
    generator = TextGenerator(new_model(), load_gpt2_encoding(), torch.device("cpu"))
    once, thrice = (
        main.make_stage(main.Flags(), generator, StepLoader(train_loader, grad_accum), None).evaluation
        for grad_accum in (1, 3)
    )
    assert len(once) == main.EVAL_BATCHES < len(train_loader)
    assert [batch.inputs.tolist() for batch in once] == [batch.inputs.tolist() for batch in thrice]


def test_train_refuses_a_loader_that_create_dataloader_did_not_make() -> None:
    train_loader, _ = loaders()
    with pytest.raises(ValueError, match="make it with create_dataloader"):
        main.train(new_model(), DataLoader(list(train_loader)), None, "cpu", CONFIG)


def test_train_without_val_loader_evaluates_on_training_data(capsys: pytest.CaptureFixture) -> None:
    train_loader, _ = loaders()
    assert main.train(new_model(), train_loader, None, "cpu", {**CONFIG, "out": Path("own")}) == 0
    assert "validation     none: training loss decides the best model" in capsys.readouterr().out
    assert read_checkpoint(Path("own/best_model.pt"))["val_loss"] is None


def test_train_returns_130_after_an_interrupt_and_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(new_model(), max_steps=4, out=Path("whole"))

    def interrupting(model: GPTModel, batch: object) -> tuple:
        if model.training:
            os.kill(os.getpid(), signal.SIGINT)
        return language_model_loss(model, batch)

    config = {**CONFIG, "max_steps": 4, "out": Path("own")}
    with monkeypatch.context() as patch:
        patch.setattr(main, "language_model_loss", interrupting)
        assert main.train(new_model(), *loaders(), "cpu", config) == 130
    assert read_checkpoint(Path("own/latest_model.pt"))["step"] == 1
    resumed = new_model(seed=9)
    assert main.train(resumed, *loaders(), "cpu", config) == 0
    assert same_weights(resumed, expected)


def test_train_refuses_bad_settings_in_one_line() -> None:
    with pytest.raises(ValueError) as refused:
        main.train(new_model(), *loaders(), "cpu", {"max_lr": 0.0, "min_lr": 0.0, "epochs": 0})
    assert "--max-lr must be above 0" in str(refused.value) and "--epochs must be at least 1" in str(refused.value)
    with pytest.raises(ValueError, match="--device tpu: not available"):
        main.train(new_model(), *loaders(), "tpu", CONFIG)
    with pytest.raises(ValueError, match="the tokenizer has 50257 ids"):
        main.train(GPTModel({**SIZE, "vocab_size": 50}), *loaders(), "cpu", CONFIG)


def test_train_advises_a_lower_learning_rate_if_the_loss_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(model: GPTModel, batch: object) -> tuple:
        loss, metrics = language_model_loss(model, batch)
        return loss * (float("nan") if model.training else 1.0), metrics

    monkeypatch.setattr(main, "language_model_loss", diverging)
    with pytest.raises(ValueError, match="step 1: the loss is nan; .* try --max-lr below 0.001, with --no-resume"):
        main.train(new_model(), *loaders(), "cpu", {**CONFIG, "out": Path("own")})


def test_train_describes_its_data_as_a_dataloader() -> None:
    trained(new_model(), out="own", log_dir="logs")
    settings = read_checkpoint(Path("own/best_model.pt"))["settings"]
    assert settings["data"] == f"a DataLoader of {len(loaders()[0].dataset):,} windows"
    assert (settings["context_length"], settings["batch_size"]) == (16, 2)
    assert "Shakespeare" not in json.dumps(log_lines("start"))
    trained(new_model(), out="named", log_dir="other", data="verse.txt")
    assert read_checkpoint(Path("named/best_model.pt"))["settings"]["data"] == "verse.txt"


def test_train_names_the_setting_nearest_to_an_unknown_one() -> None:
    with pytest.raises(ValueError, match=r"^config has no setting 'max_step'; did you mean 'max_steps'\?$"):
        main.train(new_model(), *loaders(), "cpu", {"max_step": 2})
    with pytest.raises(ValueError, match="^config has no setting 'qqq'; expected data, epochs, "):
        main.train(new_model(), *loaders(), "cpu", {"qqq": 2})


# --- load_checkpoint


def test_load_checkpoint_restores_model_and_optimizer() -> None:
    model = trained(new_model(), out=Path("own"))
    restored = new_model(seed=9)
    optimizer = make_adamw(restored, max_lr=1e-3, weight_decay=0.1)
    checkpoint = main.load_checkpoint("own/latest_model.pt", restored, optimizer)
    assert checkpoint["step"] == 2
    assert {"epoch", "train_loss", "val_loss"} <= set(checkpoint)
    assert same_weights(restored, model)
    assert all(state["step"] == 2 for state in optimizer.state.values())


def test_load_checkpoint_of_the_best_model_has_no_optimizer_state() -> None:
    model = trained(new_model(), out=Path("own"))
    with pytest.raises(ValueError, match="no optimizer state; pass the latest_model.pt"):
        main.load_checkpoint("own/best_model.pt", model, make_adamw(model, max_lr=1e-3, weight_decay=0.1))
    assert main.load_checkpoint("own/best_model.pt", model)["step"] == 2
