"""What git keeps, what pip installs and what the README tells people to type fit the code."""

import ast
import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MOST_BYTES = 250_000  # of a committed file
FIRST_SCREEN = 60  # lines of the README

INSTALL = ["pip", "install", "-r"]
MAIN_JOB = [
    [*INSTALL, "requirements.txt"],
    ["python", "main.py"],
    ["python", "instruction_tune.py"],
    ["python", "dpo_train.py"],
    ["python", "chat.py"],
]
TESTS = [[*INSTALL, "requirements-dev.txt"], ["python", "-m", "pytest"]]


# --- git


def git(*arguments: str, exit_codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """Run git in the checkout; fails the test, not skips it, where git can't answer."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8")
    except OSError as error:
        pytest.fail(f"this test needs git: {error}")
    if done.returncode not in exit_codes:
        pytest.fail(f"this test needs a git checkout: git {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def kept_files() -> list[Path]:
    """The files that git tracks or would add."""
    names = git("ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_committed_file_is_large() -> None:
    files = kept_files()
    assert ROOT / "pyproject.toml" in files
    assert [f"{file}: {file.stat().st_size:,} bytes" for file in files if file.stat().st_size > MOST_BYTES] == []


@pytest.mark.parametrize("ignore_case", ["true", "false"])
@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("Data/x.txt", True),
        ("Data/folder/x.json", True),
        ("checkpoints/a.pt", True),
        ("checkpoints/instruction_tuned/best_model.pt", True),
        ("logs/a.jsonl", True),
        ("logs/sessions/a.json", True),
        ("Data/instruction_data.json", False),
        ("Data/preference_data.json", False),
        ("src/data/x.py", False),
        ("tests/data/x.py", False),
        ("src/checkpoints/x.py", False),
        ("src/logs/x.py", False),
    ],
)
def test_data_checkpoints_and_logs_stay_out_of_git_and_code_does_not(
    path: str, ignored: bool, ignore_case: str
) -> None:
    answer = git("-c", f"core.ignorecase={ignore_case}", "check-ignore", "--no-index", "-q", path, exit_codes=(0, 1))
    assert (answer.returncode == 0) == ignored


# --- requirements


def requirement_lines(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def pins(name: str) -> list[Requirement]:
    return [Requirement(line) for line in requirement_lines(name) if not line.startswith("-")]


def pinned_version(pin: Requirement) -> Version | None:
    """The version of a requirement that allows exactly one."""
    match [(spec.operator, spec.version) for spec in pin.specifier]:
        case [("==", version)] if "*" not in version:
            return Version(version)
    return None


@cache
def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def ranges() -> dict[str, SpecifierSet]:
    listed = project()["dependencies"]
    assert isinstance(listed, list)
    return {canonicalize_name((needed := Requirement(line)).name): needed.specifier for line in listed}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_to_one_version(name: str) -> None:
    assert len(pins(name)) > 3
    assert [str(pin) for pin in pins(name) if pinned_version(pin) is None] == []


def test_pins_and_ranges_name_the_same_packages() -> None:
    assert {canonicalize_name(pin.name) for pin in pins("requirements.txt")} == set(ranges())


def test_every_pin_lies_in_the_range_of_the_project() -> None:
    pinned = [(canonicalize_name(pin.name), pinned_version(pin)) for pin in pins("requirements.txt")]
    outside = [f"{name} {version}" for name, version in pinned if version is None or version not in ranges()[name]]
    assert outside == []


def test_the_requirements_of_developers_begin_with_those_of_everyone() -> None:
    first, *others = requirement_lines("requirements-dev.txt")
    assert first == "-r requirements.txt"
    assert [line for line in others if line.startswith("-")] == []


def oldest_python() -> str:
    (lowest,) = [spec.version for spec in SpecifierSet(str(project()["requires-python"])) if spec.operator == ">="]
    return lowest


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_can_be_installed_on_the_oldest_python_that_the_project_names(name: str) -> None:
    oldest = oldest_python()
    environment = {"python_version": oldest, "python_full_version": f"{oldest}.0"}
    wanted = [pin for pin in pins(name) if pin.marker is None or pin.marker.evaluate(environment)]
    refused = {str(pin): needs for pin in wanted if (needs := needed_python(pin)) and f"{oldest}.99" not in needs}
    assert refused == {}


def needed_python(pin: Requirement) -> SpecifierSet | None:
    """The Pythons that a pinned package runs on, as its installed copy says; None where that is another version."""
    try:
        about = metadata(pin.name)
    except PackageNotFoundError:
        return None
    if Version(about["Version"]).public != str(pinned_version(pin)):
        return None
    return SpecifierSet(about["Requires-Python"] or "")


def shipped_sources() -> list[Path]:
    return [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]


def libraries_imported(file: Path) -> set[str]:
    """The first parts of the names of modules that are neither Python's nor ours."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"src", *(script.stem for script in ROOT.glob("*.py"))}


def test_every_library_that_is_imported_is_a_requirement() -> None:
    packages = packages_distributions()
    missing = {
        f"{file.relative_to(ROOT)}: {library}"
        for file in shipped_sources()
        for library in libraries_imported(file)
        if not ranges().keys() & {canonicalize_name(package) for package in packages.get(library, [])}
    }
    assert missing == set()


# --- README


def readme() -> str:
    if not README.is_file():
        pytest.fail("README.md is missing")
    return README.read_text(encoding="utf-8")


def command_lines(text: str) -> Iterator[list[list[str]]]:
    """The shell lines in the code blocks of a Markdown text, each as its commands, each as its words."""
    for language, block in re.findall(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", text, re.DOTALL | re.MULTILINE):
        if language in ("python", "json", "toml"):
            continue
        for line in re.sub(r"[\\`][ \t]*\n", " ", block).splitlines():
            yield [words(part) for part in re.split(r"&&|\|\||[;|]", line.strip().removeprefix("$ "))]


def words(command: str) -> list[str]:
    try:
        return shlex.split(command, comments=True)
    except ValueError:  # an apostrophe in a sample of a chat
        return command.split()


def first_screen() -> str:
    return "\n".join([*readme().splitlines()[:FIRST_SCREEN], "```"])


def has_line(text: str, commands: list[list[str]], *, flags_allowed: bool = False) -> bool:
    """Whether a shell line has exactly these commands in this order, each possibly with flags after it."""
    return any(
        len(line) == len(commands)
        and all(
            given[: len(command)] == command
            and (not given[len(command) :] or (flags_allowed and given[len(command)].startswith("--")))
            for given, command in zip(line, commands, strict=True)
        )
        for line in command_lines(text)
    )


def test_the_first_screen_of_the_readme_has_the_command_of_the_main_job() -> None:
    assert has_line(first_screen(), MAIN_JOB, flags_allowed=True)


def test_the_first_screen_of_the_readme_has_the_command_of_the_tests() -> None:
    assert has_line(first_screen(), TESTS)


def script_problems(text: str) -> list[str]:
    """Scripts and flags that a Markdown text tells people to type and that do not exist."""
    problems = []
    for command in (command for line in command_lines(text) for command in line):
        while command and re.fullmatch(r"\w+=.*", command[0]):  # VARIABLE=value before a command
            command = command[1:]
        match command:
            case ["python" | "python3" | "py", "-m", module, *arguments]:
                if module.split(".")[0] not in ("src", "benchmarks", "exercises"):
                    continue
                script = module.replace(".", "/")
                script += "/__main__.py" if (ROOT / script).is_dir() else ".py"
            case ["python" | "python3" | "py", script, *arguments] if script.endswith(".py"):
                pass
            case _:
                continue
        if not (ROOT / script).is_file():
            problems.append(f"there is no {script}")
            continue
        given = [argument.strip("[]").split("=")[0] for argument in arguments]
        flags = [argument for argument in given if argument.startswith("-")]
        problems += [f"{script} has no {flag}" for flag in flags if flag not in flags_of(script)]
    return problems


@cache
def flags_of(script: str) -> frozenset[str]:
    """The flags that a script lists in its help."""
    module: ModuleType = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit) as left:
        module.main(["--help"])
    assert left.value.code == 0
    listed = re.findall(r"^  (-\S+?)(?:, (--\S+))?(?:\s|$)", shown.getvalue(), re.MULTILINE)
    return frozenset(flag for pair in listed for flag in pair if flag)


def test_every_script_and_flag_in_the_readme_exists() -> None:
    assert script_problems(readme()) == []


SAMPLE = """
# Title
```bash
pip install -r requirements.txt && python main.py --max-steps 300 && python instruction_tune.py \\
  --show-mask && python dpo_train.py && python chat.py
```
Words, `python absent_inline.py`.
  ```
  $ OMP_NUM_THREADS=2 python3 main.py --no-compile --colour red   # --comment
  You: I'm here
  python -m pytest --anything; python absent.py
  python -m benchmarks.absent
  python chat.py [--seed=3] | tee --append x
  ```
```python
python main.py --nothing
```
"""


def test_a_script_or_flag_that_does_not_exist_is_found() -> None:
    assert script_problems(SAMPLE) == [
        "main.py has no --colour", "there is no absent.py", "there is no benchmarks/absent.py",
    ]  # fmt: skip


def test_flags_are_those_of_the_scripts_help() -> None:
    assert {"-h", "--help", "--model", "--max-steps", "--compile", "--no-compile"} <= flags_of("main.py")
    assert "--prompt" in flags_of("chat.py") - flags_of("main.py")


def test_a_command_counts_only_as_one_line_with_all_its_steps_in_order() -> None:
    assert has_line(SAMPLE, MAIN_JOB, flags_allowed=True)
    assert not has_line(SAMPLE, MAIN_JOB)
    assert not has_line(SAMPLE, MAIN_JOB[:-1], flags_allowed=True)
    assert not has_line(SAMPLE.replace("&& python dpo_train.py", ""), MAIN_JOB, flags_allowed=True)
    assert not has_line(SAMPLE.replace("chat.py\n```", "chat.py later\n```"), MAIN_JOB, flags_allowed=True)
    assert has_line("```\npip install -r requirements-dev.txt && python -m pytest\n```", TESTS)
    assert not has_line("```\npip install -r requirements-dev.txt && python -m pytest -x\n```", TESTS)
