"""Every command and every Python snippet in every README and other Markdown file works.

A command is a line of a ```bash block, or a line of another block that starts with "$ ", "python " or "pip ". Output
belongs in a ```text block. Commands run in a folder with tiny models, and train for two steps. If a command needs the
network, a large model or a library that a benchmark compares with, its script only parses the flags. The same holds
for `python ...` in prose. The ```python blocks of a file run in order. Commands in ```bash not-run blocks are only
parsed, and code in ```python not-run blocks is only compiled.
"""

import argparse
import doctest
import importlib
import inspect
import io
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import main
from exercises import start
from src.data.hub_dataset import parse_dataset_id
from src.data.shakespeare import SHAKESPEARE_PATH
from src.model.gpt import GPT_CONFIGS
from tests.markdown import Block, Command, blocks, commands, inline_commands, shell_lines
from tests.repository import ROOT, tracked_files

FOLDERS = ("src", "benchmarks", "exercises", "tests")
DOCUMENTS = [ROOT / "README.md", *sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.md"))]
FIRST_SCREEN = 60  # lines of README.md
INSTALL = ["pip", "install", "-r"]
PIPELINE = [
    [*INSTALL, "requirements.txt"],
    ["python", "main.py"],
    ["python", "instruction_tune.py"],
    ["python", "dpo_train.py"],
    ["python", "chat.py"],
]
TESTS = [[*INSTALL, "requirements-dev.txt"], ["python", "-m", "pytest"]]

OTHER_TOOLS = {"cd", "echo", "export", "git", "head", "lm_eval", "pip", "printf", "source", "tail", "tee"}

# A model small enough to train in milliseconds, in place of the sizes that the READMEs name.
TINY = {"d_model": 16, "n_heads": 2, "n_layers": 1}
# Appended to a command if its script has the flag: the last value of a flag wins.
QUICK = {
    "max_steps": ["--max-steps", "2"],
    "batch_size": ["--batch-size", "2"],
    "grad_accum": ["--grad-accum", "1"],
    "context_length": ["--context-length", "32"],
    "eval_every": ["--eval-every", "2"],
    "precision": ["--precision", "fp32"],
    "device": ["--device", "cpu"],
    "compile": ["--no-compile"],
    "stride": ["--stride", "16"],
    "max_tokens": ["--max-tokens", "3"],
}
VERSE = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n\n"
INSTRUCTIONS = [{"instruction": f"Say {word}.", "response": f"{word}!"} for word in ("one", "two", "three", "four")]
PREFERENCES = [{"instruction": f"Say {word}.", "chosen": word, "rejected": "No."} for word in ("one", "two", "three")]


# --- run a command


class Parsed(Exception):
    """Carries the parsed flags out of a script before it does any work."""


def parse_only(module: ModuleType, arguments: list[str]) -> Any:
    """The flags as the script's own parser reads them. Raises SystemExit if it refuses them."""

    def then_stop(parse: Callable[..., Any]) -> Callable[..., NoReturn]:
        def parse_and_stop(*given: Any) -> NoReturn:
            raise Parsed(parse(*given))

        return parse_and_stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", then_stop(argparse.ArgumentParser.parse_args))
        for name in {"parse", "parse_chat_flags"} & vars(module).keys():
            patch.setattr(module, name, then_stop(getattr(module, name)))
        try:
            call(module, arguments)
        except Parsed as parsed:
            (result,) = parsed.args
            return result[0] if isinstance(result, tuple) else result  # parse also returns the explicit flags
    raise AssertionError(f"{module.__name__} must parse its flags before it does anything else")


def call(module: ModuleType, arguments: list[str]) -> int | None:
    """Run the script's main with these arguments and return its exit code."""
    takes_arguments = inspect.signature(module.main).parameters
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(module.__file__), *arguments])
        code: int | None = module.main(arguments) if takes_arguments else module.main()
    return code


def runs_quickly(name: str, flags: Any) -> bool:
    """Whether a script needs no network, no large model and no library that a benchmark compares with."""
    if name == "finetune_gpt2":
        return flags.weights is not None
    if name in ("instruction_tune", "dpo_train"):
        return parse_dataset_id(flags.data) is None  # a data set on the hub
    if name == "src.plan":
        return flags.model in ("micro", "tiny") and flags.processes == 1  # several take seconds to start
    if name == "main":
        return flags.model in (None, "micro", "tiny")
    return not name.startswith("benchmarks.")


def script_of(words: list[str]) -> tuple[str, list[str]] | None:
    """(module, arguments) of a command that runs a script of this project; None for any other known tool."""
    match words:
        case [tool, *_] if tool in OTHER_TOOLS:
            return None
        case ["python", "-m", "pip" | "pytest" | "venv", *_]:
            return None
        case ["torchrun", *rest]:
            return script_of(["python", *itertools.dropwhile(lambda word: word.startswith("--"), rest)])
        case ["sbatch", *rest]:  # its options, and the batch file that ends with torchrun and the script
            return script_of(["torchrun", *rest[1 + rest.index("src/distributed/slurm.sbatch") :]])
        case ["python", "-m", name, *arguments]:
            path = name.replace(".", "/")
            path, name = (f"{path}/__main__.py", f"{name}.__main__") if (ROOT / path).is_dir() else (f"{path}.py", name)
        case ["python", path, *arguments]:
            name = path.removesuffix(".py").replace("/", ".")
        case _:
            raise AssertionError("this is not a known command; output belongs in a ```text block")
    assert (ROOT / path).is_file(), f"there is no {path}"
    return name, arguments


def check_paths(words: list[str]) -> None:
    """Check that the files named in a pip or pytest command exist."""
    if "pytest" in words or "pip" in words:
        paths = [word.split("::")[0] for word in words if word.endswith(".txt") or word.startswith("tests")]
        missing = [path for path in paths if not (ROOT / path).exists()]
        assert not missing, f"there is no {', '.join(missing)}"


def provide_files(name: str, arguments: list[str]) -> None:
    """Create the reader's own files that a command names: a text, records, or a Hugging Face folder."""
    for flag, value in zip(arguments, arguments[1:], strict=False):
        path = Path(value)
        if path.exists():
            continue
        if flag == "--data":
            records = {"dpo_train": PREFERENCES, "src.evaluate": [{"text": "one two three"}]}.get(name, INSTRUCTIONS)
            lines = "\n".join(map(json.dumps, records))
            content = {".json": json.dumps(records), ".jsonl": lines}.get(path.suffix, VERSE * 100)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        elif flag == "--weights" or (flag in ("--base", "--model") and not value.isalnum()):
            shutil.copytree("hugging-face", path)


def run(command: Command, *, only_parse: bool) -> None:
    """Check a command and, unless `only_parse` or it would take long, run it. Raises AssertionError if it fails."""
    words = list(itertools.dropwhile(re.compile(r"\w+=").match, command.words))  # VARIABLE=value before a command
    check_paths(words)
    if (script := script_of(words)) is None:
        return
    name, arguments = script
    module = importlib.import_module(name)
    try:
        flags = parse_only(module, arguments)
    except SystemExit as refused:
        assert refused.code == 0, "its script refuses these flags"
        return  # --help
    if only_parse or not runs_quickly(name, flags):
        return
    provide_files(name, arguments)
    quick = [word for field, flag in QUICK.items() if hasattr(flags, field) for word in flag]
    with pytest.MonkeyPatch.context() as patch:
        stdin = command.stdin or "Hello\n/quit\n"
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        code = call(module, arguments + quick)
    assert code == 0 or name == "exercises.check", f"it ends with exit code {code}"


@contextmanager
def failures_at(place: str, text: str, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Turn any failure into one that names the place in the README, the command, and what it printed."""
    try:
        yield
    except (Exception, SystemExit) as error:
        printed = "\n".join(capsys.readouterr()[::-1]).strip()[-2000:]
        cause = None if isinstance(error, AssertionError | SystemExit) else error  # their traceback adds nothing
        raise AssertionError(f"{place}: {text}\n{type(error).__name__}: {error}\n{printed}") from cause


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which every stage has run once, with tiny models under the names micro and tiny."""
    folder = tmp_path_factory.mktemp("readmes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("micro", "tiny"):
            patch.setitem(GPT_CONFIGS, name, {**GPT_CONFIGS[name], **TINY})
        patch.setattr(main, "GPT_CONFIG", {**main.GPT_CONFIG, **TINY})
        Path("Data").mkdir()
        for records in tracked_files("Data"):
            shutil.copy(records, "Data")
        for text in (SHAKESPEARE_PATH, Path("my.txt")):
            text.write_text(VERSE * 100, encoding="utf-8")
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(n_positions=64, n_embd=16, n_head=1, n_layer=1)).save_pretrained("hugging-face")
        for stage in ("main.py", "finetune_gpt2.py --weights hugging-face", "instruction_tune.py", "dpo_train.py"):
            run(Command(["python", *stage.split()]), only_parse=False)
        yield folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, to run in. Files are linked: every script replaces a file and never edits it."""
    shutil.copytree(prepared, tmp_path / "clone", copy_function=os.link)
    monkeypatch.setattr(start, "ANSWERS", tmp_path / "clone" / "exercises" / "answers")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


LINES = [line for file in DOCUMENTS for block in blocks(file) for line in shell_lines(block)]
PYTHON = [block for file in DOCUMENTS for block in blocks(file) if block.info[:1] == ("python",)]
READMES = sorted({block.file for block in PYTHON if block.file.name == "README.md"})  # tests/exercises runs the others


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.place)
def test_commands_run(line: Block, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with failures_at(line.place, line.text, capsys):
        for command in commands(line.text):
            run(command, only_parse="not-run" in line.info)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_commands_in_prose_parse(file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, text in inline_commands(file):
        complete = re.sub(r"(\s--?\S+)?\s\.\.\.", "", text)  # without "..." or "--flag ..."
        with failures_at(f"{file.relative_to(ROOT)}:{number}", text, capsys):
            for command in commands(complete):
                run(command, only_parse=True)


@pytest.mark.parametrize("file", READMES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_python_snippets_run(file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in (block for block in PYTHON if block.file == file):
        with failures_at(block.place, block.text.strip().splitlines()[0], capsys):
            run_snippet(block, names)


def run_snippet(block: Block, names: dict[str, Any]) -> None:
    if ">>>" in block.text:
        test = doctest.DocTestParser().get_doctest(block.text, names, block.place, None, block.line)
        problems: list[str] = []
        doctest.DocTestRunner(verbose=False).run(test, out=problems.append, clear_globs=False)
        assert not problems, "".join(problems)
    else:
        code = compile("\n" * (block.line - 1) + block.text, block.file, "exec")
        if "not-run" not in block.info:
            exec(code, names)


# --- the first screen of README.md


def words_of(line: str) -> list[list[str]]:
    return [command.words for command in commands(line)]


def without_flags(words: list[str]) -> list[str]:
    return list(itertools.takewhile(lambda word: not word.startswith("--"), words))


def test_first_screen_has_the_pipeline_and_the_tests() -> None:
    lines = [line.text for line in LINES if line.file == ROOT / "README.md" and line.line <= FIRST_SCREEN]
    assert PIPELINE in [[without_flags(words) for words in words_of(line)] for line in lines]
    assert TESTS in map(words_of, lines)


def test_ci_finds_the_test_command() -> None:
    """.ci/run takes the first line of README.md with "-m pytest"."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert words_of(next(line for line in lines if "-m pytest" in line)) == TESTS


def test_stated_size_of_the_core_is_true() -> None:
    """The paragraph with <!-- core: PATH PATH --> states "N lines": the length of these files, to the nearest 50."""
    paragraphs = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    core = re.compile(r"<!-- core: (.+?) -->", re.DOTALL)
    marked = [(text, found[1].split()) for text in paragraphs if (found := core.search(text))]
    assert len(marked) == 1, "README.md must state the size of the core once, next to <!-- core: PATH PATH -->"
    [(paragraph, paths)] = marked
    [stated] = re.findall(r"(\d[\d,]*)\s+lines", paragraph)
    lines = sum(len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in paths)
    assert int(stated.replace(",", "")) == 50 * round(lines / 50), f"the core has {lines} lines"


# --- tests of the functions above


SAMPLE = """
```bash
python main.py --max-steps 3 \\
  --seed 4 && python chat.py   # a comment
# only a comment
```
  ```
  $ X=1 printf 'a\\nb' | python chat.py --prompt "x; y" | head
  You: I'm output
  ```
"""


def test_lines_and_commands_are_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(SAMPLE, encoding="utf-8")
    lines = [line for block in blocks(tmp_path / "README.md") for line in shell_lines(block)]
    assert [line.line for line in lines] == [3, 8]
    assert [words_of(line.text) for line in lines] == [
        [["python", "main.py", "--max-steps", "3", "--seed", "4"], ["python", "chat.py"]],
        [["X=1", "printf", "a\\nb"], ["python", "chat.py", "--prompt", "x; y"], ["head"]],
    ]
    assert [command.stdin for command in commands("printf 'a\\nb' | python chat.py")] == ["", "a\nb"]
    assert words_of("python chat.py --prompt '' > answer.txt") == [["python", "chat.py", "--prompt", ""]]


@pytest.mark.parametrize(
    "line",
    [
        "python absent.py",
        "python -m benchmarks.absent",
        "python main.py --colour red",
        "python main.py --max-steps many",
        "python main.py --data absent/folder/ --max-steps 0",
        "python -m benchmarks.training_speed --model huge",
        "python -m exercises.check --absent",
        "pip install -r absent.txt",
        "python -m pytest tests/absent.py",
        "Training from scratch",
        "python chat.py --model absent",
    ],
)
def test_a_command_that_does_not_work_is_found(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="^README.md:1: "), failures_at("README.md:1", line, capsys):
        for command in commands(line):
            run(command, only_parse=False)
