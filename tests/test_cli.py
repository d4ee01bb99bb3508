"""The command line: flags become typed values, problems are one line, scripts exit cleanly, no flag is dead."""

import ast
import dataclasses
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import IO, Any, Literal, get_type_hints

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
from src.cli import Parser, flag, flag_name, parse
from src.model.decoding.sampling import sample
from src.program import import_and_run, out_of_memory_advice, run_script, termination_signals
from src.training import checkpoints, loop, parallel, stage, tokenizer
from src.training import run as training_run
from src.training.flags import TrainingFlags

ROOT = Path(main.__file__).parent
TRAINING = (main, finetune_gpt2, instruction_tune, dpo_train)
CHATS = (chat, sk_chat)
SCRIPTS = (*TRAINING, *CHATS)
OUT_OF_MEMORY = "error: out of memory; use a smaller model\n"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One flag of each type that the scripts use."""

    count: int = flag(3, "how many")
    rate: float = flag(0.5, "how fast")
    word: str = flag("it", "what")
    folder: Path = flag(Path("here"), "where")
    slow: bool = flag(False, "whether to take time")
    loud: bool = flag(True, "whether to make noise")
    limit: int | None = flag(None, "at most (default: all of 100%)")
    share: float | None = flag(0.9, "which part; none disables it")
    name: str | None = flag(None, "whose")
    source: Path | None = flag(Path("there"), "where from")
    kind: Literal["plain", "fancy"] = flag("plain", "which")
    again: bool | None = flag(None, "whether to repeat")
    base: str = flag("auto", "a name or a path", path=True)

    def __post_init__(self) -> None:
        problems = [f"--count must be above 0, got {self.count}"] if self.count <= 0 else []
        if self.count > 100 * self.rate:
            problems.append(f"--rate must fit --count, got {self.rate} and {self.count}")
        if problems:
            raise ValueError("; ".join(problems))


@dataclass(frozen=True)
class Question:
    """A flag that takes the words without a flag, and one with a second name."""

    text: str = flag("", "what to ask", positional=True)
    heat: float = dataclasses.field(default=0.5, metadata={"help": "how hot", "aliases": ("warmth",)})


def test_words_without_a_flag_are_the_text_of_the_positional_flag() -> None:
    asked = Question("Who wrote Hamlet?", 0)
    assert parse(Question, ["Who", "wrote Hamlet?", "--heat", "0"], "") == (asked, {"text", "heat"})
    assert parse(Question, ["--text", "Who?"], "")[0] == parse(Question, ["Who?"], "")[0]
    assert parse(Question, [], "") == (Question(), set())


def test_a_flag_can_have_a_second_name() -> None:
    assert parse(Question, ["--warmth", "0.1"], "") == (Question(heat=0.1), {"heat"})


def test_a_text_given_twice_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert "--text is given twice, the second time without the flag: Why" in refusal(
        Question, ["--text", "Who?", "Why"], capsys
    )


def refusal(config: type, argv: list[str], capsys: pytest.CaptureFixture) -> str:
    """The line on stderr of a `parse` that exits with code 2."""
    with pytest.raises(SystemExit) as exited:
        parse(config, argv, "")
    out, err = capsys.readouterr()
    assert (exited.value.code, out) == (2, "")
    assert err.count("\n") == 1 and err.endswith(" --help\n")
    return err


def exit_code(main: Callable[[], int]) -> int | None:
    with pytest.raises(SystemExit) as exited:
        run_script(main)
    return exited.value.code


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the signal handlers that `run_script` changes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *termination_signals())}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("--count 7", "count", 7),
        ("--count=-0 --count 12", "count", 12),  # the last one is used
        ("--rate 2.5e-1", "rate", 0.25),
        ("--rate 3", "rate", 3.0),
        ("--word none", "word", "none"),
        ("--word=--x", "word", "--x"),
        ("--folder a/b", "folder", Path("a/b")),
        ("--slow", "slow", True),
        ("--no-slow", "slow", False),
        ("--no-loud", "loud", False),
        ("--limit 5", "limit", 5),
        ("--limit none", "limit", None),
        ("--share off", "share", None),
        ("--share None", "share", None),
        ("--share 0.1", "share", 0.1),
        ("--name Ada", "name", "Ada"),
        ("--source none", "source", None),
        ("--source a", "source", Path("a")),
        ("--kind fancy", "kind", "fancy"),
        ("--base sft", "base", "sft"),
        ("--base=~/a", "base", "/home/ada/a"),
        ("--folder=~/a", "folder", Path("/home/ada/a")),
        ("--source ~", "source", Path("/home/ada")),
        ("--folder ~no.such.user/a", "folder", Path("~no.such.user/a")),
        ("--word ~/a", "word", "~/a"),
        ("--limit 9223372036854775807", "limit", 2**63 - 1),
        ("--again", "again", True),
        ("--no-again", "again", False),
    ],
)
def test_a_flag_becomes_a_value_of_its_type(text: str, field: str, value: object, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings, explicit = parse(Settings, text.split(), "")
    assert getattr(settings, field) == value
    assert type(getattr(settings, field)) is type(value)
    assert explicit == {field}
    assert settings == dataclasses.replace(Settings(), **{field: value})


def test_without_flags_all_fields_have_their_defaults() -> None:
    assert parse(Settings, [], "") == (Settings(), set())


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--count", "many"], "--count must be a whole number below 2**63, got 'many'"),
        (["--count", "1.5"], "--count must be a whole number below 2**63, got '1.5'"),
        (["--count", "none"], "--count must be a whole number below 2**63, got 'none'"),
        (["--rate", "0,5"], "--rate must be a finite number, got '0,5'"),
        (["--rate", "nan"], "--rate must be a finite number, got 'nan'"),
        (["--share", "inf"], "--share must be a finite number or none, got 'inf'"),
        (["--limit", ""], "--limit must be a whole number below 2**63 or none, got ''"),
        (["--folder", ""], "--folder must be a path, got ''"),
        (["--kind", "Plain"], "--kind must be one of plain, fancy, got 'Plain'"),
        (["--kind", "pla\nin"], r"--kind must be one of plain, fancy, got 'pla\nin'"),
        (["--rate"], "--rate: expected one argument"),
        (["--slow=yes"], "--slow/--no-slow: ignored explicit argument 'yes'"),
        (["--count", "-4"], "--count must be above 0, got -4"),
        (["--count=--"], "--count: expected one argument, got '--'"),
        (["--count", "9" * 400], "--count must be a whole number below 2**63, got '999999999999...9999999999999'"),
        (["--count", "9" * 5000], "--count must be a whole number below 2**63, got '99999"),
        (["--limit", f"-{2**63}"], "--limit must be a whole number below 2**63 or none, got '-922337203685"),
        (["--rate", "9" * 400], "--rate must be a finite number, got '99999"),
        (["a\x1b[2J\u202eb"], r"there is no a\x1b[2J\u202eb;"),
        (["more"], "there is no more;"),
        (["more\nlines"], "there is no more lines;"),
    ],
)
def test_a_bad_value_is_reported_with_the_flag_and_what_was_expected(capsys, argv, complaint) -> None:
    assert complaint in refusal(Settings, argv, capsys)


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("--cuont", "--count"),
        ("--foldr=x", "--folder"),
        ("--no-lod", "--no-loud"),
        ("-rate", "--rate"),
        ("--s_low", "--slow"),
        ("--sh", "--share"),
        ("--loud-er", None),
        ("--again-and-again", None),
        ("--val-source", None),
        ("--", None),
    ],
)
def test_the_nearest_flag_is_suggested_for_a_misspelt_one(capsys, typed: str, suggested: str | None) -> None:
    line = refusal(Settings, [typed, "-1"], capsys)
    hint = f" (did you mean {suggested}?)" if suggested else ""
    assert f"there is no {typed.split('=')[0]}{hint};" in line
    assert "-1" not in line  # its value is not reported separately


def test_a_part_of_a_flag_suggests_the_whole_flag(capsys) -> None:
    for typed, suggested in {"--lr": "--max-lr or --min-lr or --lr-decay", "--batch": "--batch-size"}.items():
        assert f"there is no {typed} (did you mean {suggested}?);" in refusal(main.Flags, [typed, "1"], capsys)


def test_an_unknown_flag_without_a_near_one_has_no_suggestion(capsys) -> None:
    assert "there is no --zzz; see" in refusal(Settings, ["--zzz"], capsys)


def test_every_problem_is_reported_at_once(capsys) -> None:
    line = refusal(Settings, ["--cuont", "3", "--limit", "x", "--kind", "odd", "--count", "0", "--wrod", "a"], capsys)
    for problem in (
        "no --cuont",
        "no --wrod",
        "--limit must be",
        "--kind must be one",
        "--count must be above 0, got 0",
    ):
        assert line.count(problem) == 1


def test_the_default_in_place_of_a_bad_value_is_not_reported(capsys) -> None:
    # 60 does not fit the default rate, but the user gave another rate.
    assert "must fit" not in refusal(Settings, ["--count", "60", "--rate", "fast"], capsys)
    assert "--rate must fit --count, got 0.5 and 60" in refusal(Settings, ["--count", "60"], capsys)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_an_abbreviated_flag_is_refused(script: ModuleType, capsys) -> None:
    names = [flag_name(field.name) for field in dataclasses.fields(script.Flags)]
    for name in names:
        if name[:-1] not in (*names, "--") and len(name) > 4:
            assert f"there is no {name[:-1]} " in refusal(script.Flags, [name[:-1], "1"], capsys)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_numbers_must_be_finite(script: ModuleType, value: str, capsys) -> None:
    hints = get_type_hints(script.Flags)
    numbers = [flag_name(name) for name, hint in hints.items() if hint in (float, float | None)]
    assert numbers
    for name in numbers:
        assert f"{name} must be a finite number" in refusal(script.Flags, [f"{name}={value}"], capsys)


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
def test_training_scripts_refuse_values_out_of_range(script: ModuleType, argv: str, complaint: str, capsys) -> None:
    assert complaint in refusal(script.Flags, argv.split(), capsys)


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
    script: ModuleType, argv: str, complaint: str, capsys
) -> None:
    assert complaint in refusal(script.Flags, argv.split(), capsys)


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


def test_help_shows_choices_negations_and_percent_signs(capsys) -> None:
    with pytest.raises(SystemExit):
        parse(Settings, ["--help"], "What it does: 100%.")
    out = capsys.readouterr().out
    for shown in ("--kind {plain,fancy}", "--slow, --no-slow", "--count N", "--rate X", "all of 100%", "does: 100%."):
        assert shown in out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n  b"), "error: a b\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), "error: No such file or directory: 'x'\n"),
        (RuntimeError("a kernel failed"), "error: a kernel failed\n"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), OUT_OF_MEMORY),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "error: out of memory; use a smaller model\n",
        ),
        (ImportError("no module"), "error: no module\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "error: the package torch is missing; install it: pip install -r requirements.txt\n",
        ),
        (ValueError("a\x1b[2Jb"), "error: a\\x1b[2Jb\n"),
        (MemoryError(), OUT_OF_MEMORY),
        (KeyboardInterrupt(), "\ninterrupted; everything saved so far is intact\n"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error: BaseException, line: str, capsys) -> None:
    def fail() -> int:
        raise error

    assert exit_code(fail) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(
    "script", [*SCRIPTS, plan_module, evaluate_module, export_module, look_module], ids=lambda s: s.__name__
)
def test_out_of_memory_advice_names_flags_that_the_script_has(script: ModuleType) -> None:
    flags = [field.name for field in dataclasses.fields(script.Flags)]
    advice = out_of_memory_advice(flags)
    assert set(re.findall(r"--(?:no-)?([a-z-]+)", advice)) <= {name.replace("_", "-") for name in flags}
    assert "use a smaller model" in advice
    assert ("--batch-size" in advice) == ("batch_size" in flags)


def test_out_of_memory_advice_of_a_script_without_a_model() -> None:
    assert out_of_memory_advice([]) == "close other programs"


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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_nohup_is_respected() -> None:
    assert termination_signals() == [signal.SIGTERM, signal.SIGHUP]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert termination_signals() == [signal.SIGTERM]


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        run_script(lambda: {}["missing"])


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_mains_return_value(code: int) -> None:
    assert exit_code(lambda: code) == code


def test_bad_usage_exits_with_code_2(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", "--epochs", "0"])
    assert exit_code(main.main) == 2
    assert capsys.readouterr().err == "main.py: --epochs must be at least 1, got 0; see python main.py --help\n"


@pytest.mark.parametrize("number", termination_signals())
def test_a_termination_signal_ends_a_script_that_ignores_sigint(number: signal.Signals) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reached = []

    def work() -> int:
        signal.raise_signal(number)
        reached.append("the end")
        return 0

    assert exit_code(work) == 130
    assert not reached


def run_in_a_process(body: str, folder: Path, call: str = "run_script(main)", **options: Any) -> CompletedProcess:
    """Run a script whose main is `body`."""
    file = folder / "script.py"
    lines = [f"import sys; sys.path.insert(0, {str(ROOT)!r})", "from src.program import *", "def main():"]
    file.write_text("\n".join([*lines, *(f"    {line}" for line in body.splitlines()), call]), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "PYTHONUNBUFFERED": ""}
    return subprocess.run([sys.executable, str(file)], env=environment, stderr=subprocess.PIPE, timeout=60, **options)


def test_output_is_utf8_in_every_terminal(tmp_path: Path) -> None:
    body = 'print("Ž → 字 \\udcff")\nraise ValueError("Ωmega")'
    ended = run_in_a_process(body, tmp_path, stdout=subprocess.PIPE)
    assert ended.returncode == 1
    assert ended.stdout.decode("utf-8").strip() == r"Ž → 字 \udcff"
    assert ended.stderr.decode("utf-8").strip() == "error: Ωmega"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("print('x'); return 0", 0, ""),
        ("print('x'); return 1", 1, ""),
        ("for i in range(5000): print(i)\nraise KeyError", 0, ""),
        ("print('x'); raise ValueError('bad')", 1, "error: bad"),
        ("print('x'); sys.exit(2)", 2, ""),
    ],
)
def test_a_closed_pipe_ends_a_script_quietly(tmp_path: Path, body: str, code: int, message: str) -> None:
    with closed_pipe() as pipe:
        ended = run_in_a_process(body, tmp_path, stdout=pipe)
    assert (ended.returncode, ended.stderr.decode().strip()) == (code, message)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ("run_script(main)", 1, "error: stdout cannot be written (No space left on device)"),
        (
            "run_script(main, outlives_output=True)",
            0,
            "note: stdout cannot be written (No space left on device); continuing without it",
        ),
    ],
)
def test_a_full_disk_ends_only_scripts_that_do_no_more_than_print(
    tmp_path: Path, call: str, code: int, message: str
) -> None:
    with open("/dev/full", "wb") as full:
        ended = run_in_a_process("for i in range(5000): print(i)\nreturn 0", tmp_path, call, stdout=full)
    assert (ended.returncode, ended.stderr.decode().strip()) == (code, message)


@contextmanager
def closed_pipe() -> Iterator[IO[bytes]]:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        yield pipe


def test_a_run_outlives_a_closed_pipe(tmp_path: Path) -> None:
    body = "for i in range(5000): print(i)\nopen('end', 'w').close()\nreturn 130"
    with closed_pipe() as pipe:
        ended = run_in_a_process(body, tmp_path, "run_script(main, outlives_output=True)", stdout=pipe, cwd=tmp_path)
    assert ended.returncode == 130 and (tmp_path / "end").exists()
    assert ended.stderr.decode().strip() == "note: stdout cannot be written (Broken pipe); continuing without it"


@pytest.mark.parametrize(
    ("imported", "code", "message"),
    [
        ("import missing_package", 1, "error: the package missing_package is missing; install it: pip install -r"),
        (
            "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept BaseException: raise ImportError from None",
            130,
            "interrupted; everything saved so far is intact",
        ),
    ],
)
def test_a_failing_import_is_one_line(tmp_path: Path, imported: str, code: int, message: str) -> None:
    (tmp_path / "library.py").write_text(imported, encoding="utf-8")
    ended = run_in_a_process("pass", tmp_path, "import_and_run('library')")
    assert ended.returncode == code
    assert ended.stderr.decode().strip().startswith(message) and ended.stderr.strip().count(b"\n") == 0


def test_an_import_in_a_script_leaves_the_signal_handlers(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "a_script.py").write_text("def main(): raise MemoryError", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        import_and_run("a_script")
    assert capsys.readouterr().err == "error: out of memory; close other programs\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_script_without_stdout_still_succeeds(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert exit_code(lambda: 0) == 0


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
        assert self.word
    def both(self):
        return self.rate
def main(flags, model):
    flags.folder = model.limit
    return flags.count, dict(kind=flags.kind)
"""
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert dead_flags(Settings, source, stage_source="self.flags.loud") == fields - {"rate", "count", "kind", "loud"}


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


def test_a_description_is_filled_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    command = "    indented lines stay as they are, however long they are"
    shown = Parser(f"A title that is longer than the line of this terminal.\n\nTwo\nlines.\n\n{command}").format_help()
    assert "A title that is longer than the line\nof this terminal.\n\nTwo lines.\n\n" in shown
    assert command in shown
