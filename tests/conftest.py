"""Fixtures that apply to every test, and the number of processes that run them."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from src.cli import parse
from src.curves.picture import draw

_PROCESSES = 4  # each imports PyTorch and transformers, which takes memory


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process per core for the whole suite. Selected tests run in this process: starting more takes seconds."""
    selected = config.option.file_or_dir or config.option.keyword
    return 0 if selected else min(os.cpu_count() or 1, _PROCESSES)


@pytest.fixture(autouse=True, scope="session")
def signals_of_a_terminal() -> None:
    """Under `nohup`, or in the background of a script, a process ignores Ctrl-C or a closed terminal: not here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The models in the tests are so small that more threads only slow them down."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def empty_pictures() -> Iterator[None]:
    """A run ends with an empty picture: drawing the curves takes longer than the few steps of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.training.reporter.draw", lambda _, picture: picture.touch())
        yield


@pytest.fixture
def drawn_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw their curves."""
    monkeypatch.setattr("src.training.reporter.draw", draw)


@pytest.fixture(autouse=True)
def no_models_next_to_the_scripts(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The models that a developer has trained in the project must not answer in the tests."""
    monkeypatch.setattr("src.stages._scripts_folder", lambda: tmp_path_factory.getbasetemp() / "scripts")


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture):
    """A function that returns the line on stderr with which `parse` refuses a command line."""

    def refusal(config: type, argv: list[str]) -> str:
        with pytest.raises(SystemExit) as exited:
            parse(config, argv, "")
        out, err = capsys.readouterr()
        assert (exited.value.code, out) == (2, "")
        assert err.count("\n") == 1 and err.endswith(" --help\n")
        return err

    return refusal


@pytest.fixture(scope="module")
def unedited_constants() -> Iterator[None]:
    """Treat the constants of the scripts as shipped, whatever they are: editing one must not break a test."""
    import dpo_train
    import instruction_tune
    import main
    from src.training import recipes

    names = {
        "epochs": "NUM_EPOCHS",
        "batch_size": "BATCH_SIZE",
        "context_length": "CONTEXT_LENGTH",
        "max_lr": "MAX_LR",
        "min_lr": "MIN_LR",
        "warmup_steps": "WARMUP_STEPS",
    }
    with pytest.MonkeyPatch.context() as patch:
        for stage, script in (("pretrain", main), ("sft", instruction_tune), ("dpo", dpo_train)):
            constants = {field: getattr(script, name) for field, name in names.items()}
            patch.setitem(recipes.SCRIPT_DEFAULTS, stage, constants)
        yield
