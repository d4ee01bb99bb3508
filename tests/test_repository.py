"""The tracked files and the requirements fit the code."""

import ast
import re
import shutil
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.repository import ROOT, git, tracked_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 250_000
REQUIREMENTS = ["requirements.txt", "requirements-dev.txt"]


# --- git


def test_tracked_files_are_small() -> None:
    sizes = {file: file.stat().st_size for file in tracked_files()}
    assert ROOT / "pyproject.toml" in sizes
    assert {file: size for file, size in sizes.items() if size > MAX_FILE_BYTES} == {}


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
        ("exercises/answers/attention.py", True),
        ("Data/instruction_data.json", False),
        ("Data/preference_data.json", False),
        ("src/data/x.py", False),
        ("tests/data/x.py", False),
        ("src/checkpoints/x.py", False),
        ("src/logs/x.py", False),
    ],
)
def test_git_ignores_data_checkpoints_logs_and_answers_but_no_code(
    path: str, ignored: bool, ignore_case: str, tmp_path: Path
) -> None:
    """In a folder of its own: in the checkout, a user's symbolic link may stand in place of a folder."""
    git("init", "-q", str(tmp_path))
    shutil.copy(ROOT / ".gitignore", tmp_path)
    settings = ("-C", str(tmp_path), "-c", f"core.ignorecase={ignore_case}")
    answer = git(*settings, "check-ignore", "--no-index", "-q", path, exit_codes=(0, 1))
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
def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def ranges() -> dict[str, SpecifierSet]:
    requirements = [Requirement(line) for line in project()["dependencies"]]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned(name: str) -> None:
    assert len(pins(name)) > 3
    assert [str(pin) for pin in pins(name) if pinned_version(pin) is None] == []


def test_pins_match_the_ranges_of_the_project() -> None:
    pinned = [(canonicalize_name(pin.name), pinned_version(pin)) for pin in pins("requirements.txt")]
    assert {name for name, _ in pinned} == set(ranges())
    assert [f"{name} {version}" for name, version in pinned if version is None or version not in ranges()[name]] == []


def test_dev_requirements_include_the_requirements() -> None:
    first, *others = requirement_lines("requirements-dev.txt")
    assert first == "-r requirements.txt"
    assert [line for line in others if line.startswith("-")] == []


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_pin_supports_the_oldest_python(name: str) -> None:
    (oldest,) = [spec.version for spec in SpecifierSet(project()["requires-python"]) if spec.operator == ">="]
    environment = {"python_version": oldest, "python_full_version": f"{oldest}.0"}
    wanted = [pin for pin in pins(name) if pin.marker is None or pin.marker.evaluate(environment)]
    refused = {str(pin): needs for pin in wanted if (needs := required_python(pin)) and f"{oldest}.99" not in needs}
    assert refused == {}


def required_python(pin: Requirement) -> SpecifierSet | None:
    """The Python versions that a pinned package supports; None if that version is not installed here."""
    try:
        installed = metadata(pin.name)
    except PackageNotFoundError:
        return None
    if Version(installed["Version"]).public != str(pinned_version(pin)):
        return None
    return SpecifierSet(installed["Requires-Python"] or "")


def imported_libraries(file: Path) -> set[str]:
    """The top-level names of imported modules that are neither Python's nor ours."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"src", *(script.stem for script in tracked_files(":(glob)*.py"))}


def test_every_imported_library_is_a_requirement() -> None:
    packages = packages_distributions()
    optional = {Requirement(line).name for group in project()["optional-dependencies"].values() for line in group}
    missing = {
        f"{file.relative_to(ROOT)}: {library}"
        for file in [*tracked_files(":(glob)*.py"), *(ROOT / "src").rglob("*.py")]
        for library in imported_libraries(file) - optional
        if not ranges().keys() & {canonicalize_name(package) for package in packages.get(library, [])}
    }
    assert missing == set()
