"""House rules that no linter checks: who may import whom, nothing happens at import, and length limits."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.repository import ROOT, tracked_files

# Which of our modules a module may import, besides its own package and src.common. A name means a module or
# package and everything in it. The entry with the longest name that matches the importing module applies.
LIBRARY = {
    "src": set(),
    "src.common": set(),
    "src.distributed": set(),
    "src.entry": {"src.program"},
    "src.program": {"src.distributed.environment", "src.distributed.failure", "src.entry"},
    "src.cli": {"src.program"},
    "src.runtime": {"src.distributed"},
    "src.tokenizer": set(),
    "src.model": {"src.tokenizer.protocols"},
    "src.data": {"src.tokenizer", "src.distributed"},
    "src.stages": {"src.model.foreign"},
    "src.checkpoint": {"src.stages", "src.model", "src.tokenizer"},
    "src.curves": set(),
    "src.training": {
        "src.curves",
        "src.distributed",
        "src.model",
        "src.data",
        "src.checkpoint",
        "src.tokenizer",
        "src.runtime",
        "src.cli",
        "src.program",
    },
    "src.planning": {
        "src.training",
        "src.data",
        "src.distributed",
        "src.model",
        "src.runtime",
        "src.cli",
    },
    "src.export": {"src.checkpoint", "src.data.prompts", "src.model", "src.tokenizer"},
    "src.evaluation": {"src.cli", "src.data", "src.model", "src.stages", "src.tokenizer"},
    "src.memory": set(),
    "src.chat": {
        "src.memory",
        "src.model",
        "src.data.prompts",
        "src.stages",
        "src.checkpoint",
        "src.tokenizer",
        "src.runtime",
        "src.cli",
        "src.program",
    },
    "src.sk_integration": {"src.chat", "src.memory", "src.data.prompts", "src.model.generate", "src.tokenizer"},
    "src.intuition": {
        "src.checkpoint",
        "src.model",
        "src.tokenizer",
        "src.data",
        "src.evaluation",
        "src.training.losses",
        "src.cli",
        "src.entry",
        "src.program",
    },
}
WHOLE_LIBRARY = set(LIBRARY) - {"src"}
SCRIPTS = {
    "main": WHOLE_LIBRARY,
    "finetune_gpt2": WHOLE_LIBRARY | {"main"},
    "instruction_tune": WHOLE_LIBRARY,
    "dpo_train": WHOLE_LIBRARY,
    "chat": WHOLE_LIBRARY,
    "sk_chat": WHOLE_LIBRARY,
    "src.checkpoint.__main__": WHOLE_LIBRARY,
    "src.curves.__main__": WHOLE_LIBRARY,
    "src.plan": WHOLE_LIBRARY,
    "src.evaluate": WHOLE_LIBRARY,
    "src.look": WHOLE_LIBRARY,
    "src.export_hf": WHOLE_LIBRARY,
    "benchmarks": WHOLE_LIBRARY | {"main"},
    "exercises": WHOLE_LIBRARY,
}
MAY_IMPORT = LIBRARY | SCRIPTS

# Packages that only these modules may import, whatever the table says.
RESERVED = {
    "src.tokenizer.app": {"src.tokenizer.app", *SCRIPTS},
    "src.intuition": {"src.intuition"},
}

TOP_LEVEL = {
    ".ci", ".gitignore", "README.md", "benchmarks", "chat.py", "Data", "dpo_train.py", "exercises", "finetune_gpt2.py",
    "instruction_tune.py", "main.py", "pyproject.toml", "requirements-dev.txt", "requirements.txt", "sk_chat.py", "src",
    "tests",
}  # fmt: skip

FUNCTION_LINES, MODULE_LINES, SCRIPT_LINES = 40, 300, 150

# A call at import may make a constant, a type, a field or a decorator, and no more.
CALLED_AT_IMPORT = {
    "Panel", "Path", "Processes", "TypeVar", "_size", "dataclass", "dict.fromkeys", "field", "field_validator",
    "first_process_first", "flag", "forbids", "kernel_function",
    "logging.getLogger", "option", "ord", "partial", "range", "re.compile", "torch.inference_mode", "torch.no_grad",
    "with_default",
}  # fmt: skip
AT_IMPORT = (
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Pass,
)

Problems = Iterator[tuple[int, str]]  # line, what is wrong there


@cache
def sources() -> dict[str, Path]:
    """Every Python file of the project by its module name. A new file in src/ is included before git tracks it."""
    files = {*tracked_files("*.py"), *(ROOT / "src").rglob("*.py")}
    return {module_name(file): file for file in sorted(files)}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def trees() -> dict[str, ast.Module]:
    return {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in sources().items()}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def problems(check: Callable[[str, ast.Module], Problems]) -> list[str]:
    return [
        f"{file.relative_to(ROOT).as_posix()}:{line}: {problem}"
        for module, file in sources().items()
        for line, problem in check(module, trees()[module])
    ]


# --- imports


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that is imported, at the top of a file or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield node.lineno, submodule if submodule in sources() else str(node.module)


def test_only_sk_chat_needs_semantic_kernel() -> None:
    def uses(module: str, tree: ast.Module) -> Problems:
        if not (
            module.startswith(("tests", "benchmarks")) or module == "sk_chat" or within(module, "src.sk_integration")
        ):
            packages = {"semantic_kernel", "pydantic", "src.sk_integration"}
            for line, target in imported_modules(tree):
                if any(within(target, package) for package in packages):
                    yield line, f"imports {target}"

    assert problems(uses) == []


def import_problems(module: str, tree: ast.Module) -> Problems:
    for line, target in imported_modules(tree):
        if not may_import(module, target):
            yield line, f"{module} must not import {target}"


def may_import(module: str, target: str) -> bool:
    if within(module, "tests"):
        return not (within(target, "tests") and target.split(".")[-1].startswith("test_"))
    if within(module, "src.tokenizer") and within(target, "torch"):
        return False  # tokenizing needs no torch
    if target.split(".")[0] not in {name.split(".")[0] for name in MAY_IMPORT}:
        return True
    home = max((name for name in MAY_IMPORT if within(module, name)), key=len)
    if home == "src" and module != "src":
        return False  # the module is not in the table
    allowed = [within(target, name) for name in {home, "src.common", *MAY_IMPORT[home]}]
    reserved = [any(within(module, name) for name in users) for name, users in RESERVED.items() if within(target, name)]
    return any(allowed) and all(reserved)


def test_imports_follow_the_table() -> None:
    assert problems(import_problems) == []


@pytest.mark.parametrize(
    ("module", "line", "allowed"),
    [
        ("src.model.gpt", "from src.data.prompts import TEMPLATE", False),
        ("src.model.gpt", "from src.tokenizer.gpt2 import END_OF_TEXT", False),
        ("src.model.gpt", "from src.tokenizer.protocols.interfaces import Encoding", True),
        ("src.data.text", "def f():\n    from src.model.gpt import GPTModel", False),
        ("src.data.text", "from src import checkpoint", False),
        ("src.data.text", "from src.data import download", True),
        ("src.new", "from src.cli import flag", False),
        ("src.tokenizer.gpt2", "import torch.nn", False),
        ("src.tokenizer.stored", "from src.tokenizer.app.application import TokenizerApplication", False),
        ("chat", "from src.tokenizer.app.application import TokenizerApplication", True),
        ("chat", "from src.intuition.custom_tokenizers import x", False),
        ("chat", "from main import prepare_data", False),
        ("finetune_gpt2", "from main import prepare_data", True),
        ("tests.test_chat", "from tests.test_cli import x", False),
        ("tests.test_chat", "from tests.fakes import x", True),
    ],
)
def test_import_table_decides(module: str, line: str, allowed: bool) -> None:
    assert (list(import_problems(module, ast.parse(line))) == []) == allowed


# --- nothing happens at import


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The node and every part of it that runs at import: all but the bodies of functions and the main guard."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING"):
        return
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        parts = [*getattr(node, "decorator_list", []), *node.args.defaults, *filter(None, node.args.kw_defaults)]
    else:
        parts = list(ast.iter_child_nodes(node))
    for part in parts:
        yield from run_at_import(part)


def import_time_problems(module: str, tree: ast.Module) -> Problems:
    if within(module, "tests"):
        return
    for node in run_at_import(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join")) | ast.Expr(value=ast.Constant()):
                continue
            case ast.Call() if ast.unparse(node.func) not in CALLED_AT_IMPORT:
                yield node.lineno, f"called at import: {ast.unparse(node.func)}"
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                yield node.lineno, f"changed at import: {ast.unparse(node)}"
            case ast.stmt() if not isinstance(node, AT_IMPORT):
                yield node.lineno, f"happens at import: {ast.unparse(node).splitlines()[0]}"


def test_nothing_happens_at_import() -> None:
    assert problems(import_time_problems) == []


@pytest.mark.parametrize(
    "code",
    [
        "device = torch.device('cuda')",
        "os.environ['X'] = '1'",
        "torch.backends.cudnn.benchmark = True",
        "sys.path += ['src']",
        "for x in range(3):\n    pass",
        "class A:\n    b = load()",
        "@register('x')\ndef f(): pass",
        "def f(*, x=load()): pass",
        "print('x')",
    ],
)
def test_work_at_import_is_found(code: str) -> None:
    assert list(import_time_problems("x", ast.parse(code))) != []


# --- layout, lengths, loading


def test_top_level_holds_only_the_listed_files() -> None:
    assert {file.relative_to(ROOT).parts[0] for file in tracked_files()} == TOP_LEVEL


def function_length_problems(module: str, tree: ast.Module) -> Problems:
    if within(module, "tests") or within(module, "benchmarks"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) is not None else None
            if (lines := line_count(node) - line_count(docstring)) > FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines without its docstring; the limit is {FUNCTION_LINES}"


def line_count(node: ast.stmt | None) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1 if node else 0


def test_functions_are_short() -> None:
    assert problems(function_length_problems) == []


def test_modules_and_scripts_are_short() -> None:
    lengths = {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in sources().items()}
    limited = {module: lines for module, lines in lengths.items() if not module.startswith(("tests", "benchmarks"))}
    limits = {module: SCRIPT_LINES if module in SCRIPTS else MODULE_LINES for module in limited}
    assert {module: lines for module, lines in limited.items() if lines > limits[module]} == {}


def test_pickles_are_loaded_as_weights_only() -> None:
    def unsafe(module: str, tree: ast.Module) -> Problems:
        if within(module, "tests"):
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "weights_only" and ast.unparse(node.value) != "True":
                yield node.value.lineno, "torch.load must have weights_only=True: a pickle may run any code"

    assert problems(unsafe) == []
