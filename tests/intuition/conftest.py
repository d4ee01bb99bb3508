"""Test the demonstrations with the constants of the last commit.

Every demonstration tells its reader to change a constant, such as a text. The tests hold for the committed ones.
"""

import ast
from collections.abc import Iterable
from importlib import import_module

from tests.repository import ROOT, git


def execute(file: str, statements: Iterable[ast.stmt]) -> None:
    """Execute statements in the module of a file."""
    module = import_module(file.removesuffix(".py").replace("/", "."))
    exec(compile(ast.Module(list(statements), type_ignores=[]), file, "exec"), vars(module))


def is_literal(statement: ast.stmt) -> bool:
    """Whether it assigns a value without names and calls."""
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    return value is not None and not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(value))


def restore_constants(changed: list[str]) -> None:
    """Assign the literals of the last commit to the changed modules, and import them again where they are used."""
    for file in changed:
        execute(file, filter(is_literal, ast.parse(git("show", f"HEAD:{file}").stdout).body))
    for path in sorted((ROOT / "src/intuition").glob("*.py")) if changed else ():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        imports = [line for line in body if isinstance(line, ast.ImportFrom) and "src.intuition" in str(line.module)]
        execute(path.relative_to(ROOT).as_posix(), imports)


restore_constants(git("diff", "HEAD", "--name-only", "--diff-filter=M", "--", "src/intuition/*.py").stdout.split())
