"""Every script checks and describes its flags, reads each of them, and starts before its slow imports."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest

import chat
import dpo_train
import finetune_gpt2
import instruction_tune
import main
import sk_chat
from src import evaluate as evaluate_module
from src import export_hf as export_module
from src import look as look_module
from src import plan as plan_module
from src.chat.flags import ChatFlags
from src.chat.session import ChatSession
from src.chat.start import load_chat_model
from src.cli import flag_name
from src.model.decoding.sampling import sample
from src.program import out_of_memory_advice
from src.training import checkpoints, loop, parallel, stage, tokenizer
from src.training import run as training_run
from src.training.flags import TrainingFlags

TRAINING = (main, finetune_gpt2, instruction_tune, dpo_train)
CHATS = (chat, sk_chat)
SCRIPTS = (*TRAINING, *CHATS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_an_abbreviated_flag_is_refused(script: ModuleType, refusal: Callable[..., str]) -> None:
    names = [flag_name(field.name) for field in dataclasses.fields(script.Flags)]
    for name in names:
        if name[:-1] not in (*names, "--") and len(name) > 4:
            assert f"there is no {name[:-1]} " in refusal(script.Flags, [name[:-1], "1"])


def test_a_part_of_a_flag_suggests_the_whole_flag(refusal: Callable[..., str]) -> None:
    for typed, suggested in {"--lr": "--max-lr or --min-lr or --lr-decay", "--batch": "--batch-size"}.items():
        assert f"there is no {typed} (did you mean {suggested}?);" in refusal(main.Flags, [typed, "1"])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_numbers_must_be_finite(script: ModuleType, value: str, refusal: Callable[..., str]) -> None:
    hints = get_type_hints(script.Flags)
    numbers = [flag_name(name) for name, hint in hints.items() if hint in (float, float | None)]
    assert numbers
    for name in numbers:
        assert f"{name} must be a finite number" in refusal(script.Flags, [f"{name}={value}"])


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--batch-size -1", "--batch-size must be at least 1, got -1"),
        ("--context-length 0", "--context-length must be at least 1, got 0"),
        ("--grad-accum 0", "--grad-accum must be at least 1, got 0"),
        ("--max-steps 0", "--max-steps must be at least 1, got 0"),
        ("--eval-every 0", "--eval-every must be at least 1, got 0"),
        ("--patience 0", "--patience must be at least 1, got 0"),
        ("--warmup-steps -1", "--warmup-steps must be at least 0 and below 2**63, got -1"),
        ("--weight-decay -0.1", "--weight-decay must be at least 0 and below 2**63, got -0.1"),
        ("--min-lr -1", "--min-lr must be at least 0 and below 2**63, got -1"),
        ("--seed -1", "--seed must be at least 0 and below 2**63, got -1"),
        ("--seed 9223372036854775808", "--seed must be a whole number below 2**63, got '9223372036854775808'"),
        ("--max-lr 0 --min-lr 0", "--max-lr must be above 0 and below 10, got 0"),
        ("--max-lr 10", "--max-lr must be above 0 and below 10, got 10"),
        ("--max-lr 1e-6 --min-lr 1e-5", "--min-lr must not be above --max-lr, got 1e-5 and 1e-6"),
        ("--grad-clip 0", "--grad-clip must be above 0, or none, got 0"),
        ("--val-fraction 1", "--val-fraction must be at least 0 and below 1, got 1"),
        ("--device gpu", "--device must be one of auto, cpu, cuda, mps, got 'gpu'"),
        ("--precision half", "--precision must be one of auto, fp32, bf16, fp16, got 'half'"),
    ],
)
@pytest.mark.parametrize("script", TRAINING, ids=lambda script: script.__name__)
def test_training_scripts_refuse_values_out_of_range(script: ModuleType, argv: str, complaint: str, refusal) -> None:
    assert complaint in refusal(script.Flags, argv.split())


@pytest.mark.parametrize(
    ("script", "argv", "complaint"),
    [
        (main, "--model gpt5", "--model gpt5: no such size; choose from micro, tiny, gpt2-124M"),
        (dpo_train, "--beta 0", "--beta must be above 0, got 0"),
        (dpo_train, "--beta -0.1", "--beta must be above 0, got -0.1"),
        (dpo_train, "--loss dpo", "--loss must be one of sigmoid, ipo, hinge, robust, got 'dpo'"),
        (
            dpo_train,
            "--loss robust --label-smoothing 0.5",
            "--label-smoothing must be at least 0 and below 0.5, got 0.5",
        ),
        (dpo_train, "--label-smoothing 0.1", "--label-smoothing works only with --loss robust, not with sigmoid"),
        (dpo_train, "--dropout 0.1", "there is no --dropout"),
        (dpo_train, "--compile", "there is no --compile"),
        (instruction_tune, "--compile", "there is no --compile"),
        (main, "--dropout 1", "--dropout must be at least 0 and below 1, got 1"),
        (finetune_gpt2, "--dropout -0.1", "--dropout must be at least 0 and below 1, got -0.1"),
        (instruction_tune, "--turns 0", "--turns must be at least 1, got 0"),
    ],
)
def test_scripts_refuse_values_that_their_stage_cannot_use(
    script: ModuleType, argv: str, complaint: str, refusal
) -> None:
    assert complaint in refusal(script.Flags, argv.split())


@pytest.mark.parametrize("name", ["max_lr", "min_lr", "weight_decay", "grad_clip", "dropout", "val_fraction"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_config_created_in_python_is_checked_too(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{flag_name(name)} must .*, got {value}"):
        main.Flags(**{name: value})


def test_a_config_created_in_python_reports_every_bad_value() -> None:
    with pytest.raises(ValueError) as refused:
        main.Flags(epochs=0, seed=-1, max_lr=0.0, min_lr=0.0, dropout=2.0, grad_clip=-1.0)
    for name in ("epochs", "seed", "max-lr", "dropout", "grad-clip"):
        assert f"--{name} must be" in str(refused.value)


def help_entries(text: str) -> dict[str, str]:
    """{flag: its help on one line}, from the output of --help."""
    entries: dict[str, str] = {}
    name = ""
    for line in text.split("options:\n")[1].splitlines():
        if line.startswith("  -"):
            name = line.split()[0].rstrip(",")
        entries[name] = f"{entries.get(name, '')} {line.strip()}"
    return entries


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_help_describes_every_flag_and_shows_its_default(script: ModuleType, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as exited:
        script.main(["--help"])
    assert exited.value.code == 0
    out = capsys.readouterr().out
    assert script.__doc__.splitlines()[0] in out
    entries = help_entries(out)
    for field in dataclasses.fields(script.Flags):
        entry = entries[flag_name(field.name)]
        assert field.metadata["help"] in entry
        if field.default is not None and "default" not in field.metadata["help"]:
            assert entry.endswith(f"(default: {field.default})")


@pytest.mark.parametrize(
    "script", [*SCRIPTS, plan_module, evaluate_module, export_module, look_module], ids=lambda s: s.__name__
)
def test_out_of_memory_advice_names_flags_that_the_script_has(script: ModuleType) -> None:
    flags = [field.name for field in dataclasses.fields(script.Flags)]
    advice = out_of_memory_advice(flags)
    assert set(re.findall(r"--(?:no-)?([a-z-]+)", advice)) <= {name.replace("_", "-") for name in flags}
    assert "use a smaller model" in advice
    assert ("--batch-size" in advice) == ("batch_size" in flags)


def attributes_read(code: ast.AST, owners: tuple[str, ...]) -> set[str]:
    """The attributes that code reads from variables named `owners`, except in the functions that check values."""
    checks = [
        node
        for node in ast.walk(code)
        if isinstance(node, ast.FunctionDef) and node.name in ("__post_init__", "problems")
    ]
    excluded = {id(node) for check in checks for node in ast.walk(check)}
    return {
        node.attr
        for node in ast.walk(code)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in excluded
        if getattr(node.value, "id", getattr(node.value, "attr", None)) in owners
    }


def dead_flags(config: type, source: str, *, stage_source: str) -> set[str]:
    """Fields that neither the script nor its stage reads."""
    by_script = attributes_read(ast.parse(source), ("flags", "settings", "self"))
    by_stage = attributes_read(ast.parse(stage_source), ("flags",))
    return {field.name for field in dataclasses.fields(config)} - by_script - by_stage


def source_of(script: ModuleType) -> str:
    source = Path(script.__file__).read_text(encoding="utf-8")
    if script in CHATS:  # both pass their flags to load_chat_model and their settings to ChatSession
        modules = map(inspect.getmodule, (load_chat_model, ChatSession, ChatFlags, sample))
        source += "\n".join(["", *map(inspect.getsource, modules)])
    return source


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_flag_is_read(script: ModuleType) -> None:
    shared = (stage, checkpoints, loop, parallel, training_run, tokenizer) if script in TRAINING else ()
    stage_source = "\n".join(Path(module.__file__).read_text(encoding="utf-8") for module in shared)
    assert dead_flags(script.Flags, source_of(script), stage_source=stage_source) == set()


def test_a_flag_that_is_only_checked_or_set_is_dead() -> None:
    source = """
class Flags:
    def __post_init__(self):
        assert self.checked
    def both(self):
        return self.by_method
def main(flags, model):
    flags.only_set = model.other
    return flags.by_main, dict(key=flags.by_main_too)
"""
    names = ("checked", "by_method", "only_set", "other", "by_main", "by_main_too", "by_stage")
    flags = dataclasses.make_dataclass("Flags", names)
    assert dead_flags(flags, source, stage_source="self.flags.by_stage") == {"checked", "only_set", "other"}


def test_every_script_has_the_flags_of_its_stage() -> None:
    shared = {field.name for field in dataclasses.fields(TrainingFlags)}
    own = {script.__name__: {f.name for f in dataclasses.fields(script.Flags)} - shared for script in TRAINING}
    adapter = {"lora", "lora_alpha", "lora_targets"}
    assert own["main"] == {
        "model", "tokenizer", "vocab_size", "dropout", "compile", "documents", "val_data", "skip_bad",
    }  # fmt: skip
    assert own["finetune_gpt2"] == {
        "model", "weights", "dropout", "compile", "documents", "val_data", "skip_bad", *adapter,
    }  # fmt: skip
    assert own["instruction_tune"] == {
        "base", "turns", "show_mask", "show_data", "skip_bad", "system_share", "dropout", *adapter,
    }  # fmt: skip
    assert own["dpo_train"] == {
        "base", "beta", "loss", "label_smoothing", "show_data", "skip_bad", *adapter,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "outlives_output"),
    [
        *((script, True) for script in (*TRAINING, export_module, look_module)),
        *((script, False) for script in (*CHATS, plan_module, evaluate_module)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_scripts_start_before_their_imports(script: ModuleType, outlives_output: bool) -> None:
    _, guard = ast.parse(inspect.getsource(script)).body[:2]
    call = f"run_module('{script.__name__}'{', outlives_output=True' if outlives_output else ''})"
    assert ast.unparse(guard).splitlines() == [
        "if __name__ == '__main__':",
        "    from src.entry import run_module",
        f"    {call}",
    ]
