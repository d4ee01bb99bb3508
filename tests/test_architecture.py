"""The layout of the project and its house rules, enforced on the source code as it is written."""

import ast
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Who may import whom, downwards only. A name stands for a module or package and all that is in it; the longest name
# that fits an importing module decides. Tests may import anything.
LIBRARY = {
    "src": set(),
    "src.common": {"src.common"},
    "src.program": {"src.common"},
    "src.cli": {"src.program", "src.common"},
    "src.runtime": {"src.common"},
    "src.tokenizer": {"src.tokenizer", "src.common"},
    "src.model": {"src.model", "src.tokenizer.protocols", "src.common"},
    "src.data": {"src.data", "src.tokenizer", "src.common"},
    "src.checkpoint": {"src.model", "src.tokenizer", "src.common"},
    "src.training": {
        "src.training", "src.model", "src.data", "src.checkpoint", "src.runtime", "src.cli", "src.common",
    },
    "src.memory": {"src.memory", "src.common"},
    "src.chat": {
        "src.chat", "src.model", "src.data.prompts", "src.checkpoint", "src.tokenizer", "src.runtime", "src.cli",
        "src.common",
    },
    "src.sk_integration": {
        "src.sk_integration", "src.chat", "src.memory", "src.model.generate", "src.tokenizer", "src.common",
    },
    "src.intuition": {
        "src.intuition", "src.model", "src.tokenizer", "src.data", "src.training.losses", "src.cli", "src.program",
        "src.common",
    },
}  # fmt: skip
ALL_OF_IT = set(LIBRARY) - {"src"}
SCRIPTS = {
    "main": ALL_OF_IT,
    "finetune_gpt2": ALL_OF_IT | {"main"},
    "instruction_tune": ALL_OF_IT,
    "dpo_train": ALL_OF_IT,
    "chat": ALL_OF_IT,
    "sk_chat": ALL_OF_IT,
    "src.plan": ALL_OF_IT,
    "src.evaluate": ALL_OF_IT,
    "src.export_hf": ALL_OF_IT,
    "benchmarks": ALL_OF_IT | {"benchmarks", "main"},
    "exercises": ALL_OF_IT | {"exercises"},
}
MAY_IMPORT = LIBRARY | SCRIPTS

# Names that are kept for a few, whatever the table says.
KEPT_FOR = {
    "src.tokenizer.app": {"src.tokenizer.app", *SCRIPTS},
    "src.intuition": {"src.intuition"},
}

TOP_LEVEL = {
    ".ci", ".gitignore", "README.md", "benchmarks", "checkpoints", "chat.py", "Data", "dpo_train.py", "exercises",
    "finetune_gpt2.py", "instruction_tune.py", "logs", "main.py", "pyproject.toml", "requirements-dev.txt",
    "requirements.txt", "sk_chat.py", "src", "tests",
}  # fmt: skip
NOT_IN_GIT = {"checkpoints", "logs"}

FUNCTION_LINES, MODULE_LINES, SCRIPT_LINES = 40, 300, 150

# What may be called while a module is imported: it makes a constant, a type, a field or a decorator, and no more.
CALLED_AT_IMPORT = {
    "Path", "TypeVar", "_size", "dataclass", "dict.fromkeys", "field", "field_validator", "flag", "kernel_function",
    "logging.getLogger", "option", "ord", "partial", "range", "re.compile", "torch.inference_mode", "torch.no_grad",
    "with_default",
}  # fmt: skip

Problems = Iterator[tuple[int, str]]  # line, what is wrong there


@cache
def sources() -> dict[str, Path]:
    """Every Python file of the project by its module name, tests among them."""
    files = [*ROOT.glob("*.py")]
    for folder in ("src", "benchmarks", "exercises", "tests"):
        files += (ROOT / folder).rglob("*.py")
    return {module_name(file): file for file in sorted(files)}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_test(module: str) -> bool:
    return module.split(".")[0] == "tests"


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def area(module: str) -> str | None:
    """The longest name of the table that the module is within."""
    # `src` is only the package's own, empty file: a module in it that the table does not know has no area.
    fitting = [name for name in MAY_IMPORT if within(module, name) and (name != "src" or module == "src")]
    return max(fitting, key=len, default=None)


def problems_everywhere(check: Callable[[str, ast.Module], Problems], *, tests_too: bool) -> list[str]:
    return [
        f"{file.relative_to(ROOT).as_posix()}:{line}: {problem}"
        for module, file in sources().items()
        if tests_too or not is_test(module)
        for line, problem in check(module, ast.parse(file.read_text(encoding="utf-8")))
    ]


# --- imports


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that is imported, wherever in the file; a relative one begins with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in sources() else base
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, name) for name in named_in_call(node))


def named_in_call(call: ast.Call) -> list[str]:
    """The module that `import_module` or `__import__` is asked for, where it is written out."""
    if ast.unparse(call.func).split(".")[-1] not in ("import_module", "__import__"):
        return []
    return [str(name.value) for name in call.args[:1] if isinstance(name, ast.Constant)]


def import_problems(module: str, tree: ast.Module) -> Problems:
    home = area(module)
    if home is None:
        yield 1, f"{module} is not in the table of imports"
        return
    for line, target in imported_modules(tree):
        if area(target) is None and not within(target, "src"):
            continue
        keepers = [kept for name, kept in KEPT_FOR.items() if within(target, name)]
        allowed = any(within(target, name) for name in MAY_IMPORT[home])
        if not allowed or not all(any(within(module, name) for name in kept) for kept in keepers):
            yield line, f"{module} must not import {target}"


def spelling_problems(_: str, tree: ast.Module) -> Problems:
    inside = {path.stem for path in (ROOT / "src").iterdir()} - {"__init__", "__pycache__"}
    inside -= {path.stem for path in ROOT.glob("*.py")}  # chat.py is a script, src/chat a package
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            if any(within(name, "src") for name in names):
                yield node.lineno, "write `from src.x import y`, not `import src.x`"
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.level:
                yield node.lineno, "write `from src.x import y`, not a relative import"
                continue
            if node.module == "src":
                yield node.lineno, "write `from src.x import y`, not `from src import x`"
        elif isinstance(node, ast.Call):
            names = named_in_call(node)
            if any(within(name, "src") for name in names):
                yield node.lineno, "import our own modules by statement"
        else:
            continue
        for name in names:
            if name.split(".")[0] in inside:
                yield node.lineno, f"write `from src.{name}`: under a second name a module is loaded twice"


def shared_test_code_problems(_: str, tree: ast.Module) -> Problems:
    for line, target in imported_modules(tree):
        if is_test(target) and target.rpartition(".")[2].startswith("test_"):
            yield line, f"a test must not import {target}: move what they share to tests/fakes.py"


def library_problems(module: str, tree: ast.Module) -> Problems:
    """The word tokenizer is for machines without torch, too."""
    if within(module, "src.tokenizer"):
        for line, target in imported_modules(tree):
            if within(target, "torch"):
                yield line, "the tokenizer must not need torch"


def test_imports_go_down_as_the_table_says() -> None:
    assert problems_everywhere(import_problems, tests_too=False) == []


def test_our_modules_are_imported_under_one_name() -> None:
    assert problems_everywhere(spelling_problems, tests_too=True) == []


def test_no_test_imports_another() -> None:
    assert problems_everywhere(shared_test_code_problems, tests_too=True) == []


def test_the_tokenizer_needs_no_torch() -> None:
    assert problems_everywhere(library_problems, tests_too=False) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("src.model.gpt", "from src.data.prompts import TEMPLATE"),
        ("src.model.gpt", "from src.cli import flag"),
        ("src.data.text", "from src.model.gpt import GPTModel"),
        ("src.data.text", "from src.checkpoint import load_model"),
        ("src.common.messages", "from src.cli import flag"),
        ("src.model.gpt", "from src.tokenizer.gpt2 import END_OF_TEXT"),
        ("src.memory.sessions", "from src.sk_integration.service import x"),
        ("src.memory.sessions", "from src.chat.session import ChatSession"),
        ("src.training.loop", "from src.tokenizer.protocols.interfaces import Encoding"),
        ("src.checkpoint", "from src.runtime import choose_runtime"),
        ("src.cli", "from src.runtime import choose_runtime"),
        ("src.chat.session", "from src.data.examples import show_mask"),
        ("src.sk_integration.plugins", "from src.model.gpt import GPTModel"),
        ("src.tokenizer", "from src.tokenizer.app.application import TokenizerApplication"),
        ("src.intuition.custom_tokenizers", "from src.tokenizer.app.application import TokenizerApplication"),
        ("src.tokenizer.gpt2", "from src.intuition.custom_tokenizers import x"),
        ("chat", "from src.intuition.custom_tokenizers import x"),
        ("chat", "from main import prepare_data"),
        ("src.evaluate", "from main import prepare_data"),
        ("src.model.gpt", "from main import train"),
        ("src.model.gpt", "from benchmarks.speed import x"),
        ("src.plan", "from src.evaluate import x"),
        ("src.data.text", "def f():\n    from src.model.gpt import GPTModel"),
        ("src.data.text", "import importlib\nimportlib.import_module('src.model.gpt')"),
        ("src.data.text", "from src.nowhere import x"),
        ("src.nowhere", "import math"),
    ],
)  # fmt: skip
def test_an_import_that_the_table_does_not_allow_is_found(module: str, line: str) -> None:
    assert len(list(import_problems(module, ast.parse(line)))) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("src.data.text", "from src.tokenizer.protocols.interfaces import Encoding"),
        ("src.data.text", "from src.data import files"),
        ("src.tokenizer.factory", "from src.tokenizer.gpt2 import load_gpt2_encoding"),
        ("src.tokenizer.app.application", "from src.tokenizer.app.other import x"),
        ("src.intuition.custom_tokenizers", "from src.tokenizer.gpt2 import load_gpt2_encoding"),
        ("src.intuition.custom_tokenizers", "from src.intuition.other import x"),
        ("chat", "from src.tokenizer.app.application import TokenizerApplication"),
        ("finetune_gpt2", "from main import prepare_data"),
        ("benchmarks.speed", "from src.model.gpt import GPTModel"),
        ("src.model.gpt", "import math, torch"),
    ],
)  # fmt: skip
def test_an_import_that_the_table_allows_passes(module: str, line: str) -> None:
    assert list(import_problems(module, ast.parse(line))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import src.cli", "import src.cli as cli", "from src import cli", "from . import cli", "from .cli import flag",
        "from ..data import text", "from model.gpt import GPTModel", "import tokenizer.gpt2", "import checkpoint",
        "__import__('src.cli')",
    ],
)  # fmt: skip
def test_another_spelling_of_an_import_is_found(line: str) -> None:
    assert len(list(spelling_problems("x", ast.parse(line)))) == 1


def test_torch_in_the_tokenizer_is_found() -> None:
    assert list(library_problems("src.tokenizer.core.models", ast.parse("import re\nfrom torch import Tensor"))) != []


# --- nothing happens at import


def import_time_problems(_: str, tree: ast.Module) -> Problems:
    yield from body_problems(tree.body)


def body_problems(body: list[ast.stmt]) -> Problems:
    """What a module or class body does beside defining: it may hold imports, constants, functions and classes."""
    for statement in body:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
                continue
            case ast.If(test=test) if ast.unparse(test) in ("__name__ == '__main__'", "TYPE_CHECKING"):
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from call_problems(statement)
            case ast.ClassDef(body=inner):
                for part in [*statement.decorator_list, *statement.bases, *statement.keywords]:
                    yield from call_problems(part)
                yield from body_problems(inner)
            case ast.Assign(targets=targets) if all(map(is_name, targets)):
                yield from call_problems(statement.value)
            case ast.AnnAssign(target=ast.Name()):
                if statement.value is not None:
                    yield from call_problems(statement.value)
            case _:
                yield statement.lineno, f"happens at import: {ast.unparse(statement).splitlines()[0]}"


def is_name(target: ast.expr) -> bool:
    return all(map(is_name, target.elts)) if isinstance(target, ast.Tuple) else isinstance(target, ast.Name)


def call_problems(node: ast.AST) -> Problems:
    """The calls in what is evaluated at once: not the bodies of functions, but their decorators and defaults."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        parts = [*getattr(node, "decorator_list", []), *node.args.defaults, *filter(None, node.args.kw_defaults)]
    else:
        parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Call) and ast.unparse(node.func) not in CALLED_AT_IMPORT and not is_join(node.func):
        yield node.lineno, f"called at import: {ast.unparse(node.func)}"
    for part in parts:
        yield from call_problems(part)


def is_join(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and called.attr == "join" and isinstance(called.value, ast.Constant)


def test_nothing_happens_at_import() -> None:
    assert problems_everywhere(import_time_problems, tests_too=False) == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.manual_seed(0)",
        "device = torch.device('cuda')",
        "encoding = load_gpt2_encoding()",
        "os.environ['X'] = '1'",
        "torch.backends.cudnn.benchmark = True",
        "sys.path += ['src']",
        "for x in range(3):\n    pass",
        "if torch.cuda.is_available():\n    DEVICE = 'cuda'",
        "with open('x') as f:\n    pass",
        "try:\n    import x\nexcept ImportError:\n    x = None",
        "class A:\n    b = load()",
        "class A:\n    print('x')",
        "class A(make()):\n    pass",
        "@register('x')\ndef f(): pass",
        "def f(x=load()): pass",
        "def f(*, x=load()): pass",
        "X = [load() for i in range(3)]",
        "X = lambda y=load(): y",
        "global x",
        "print('x')",
    ],
)
def test_what_would_happen_at_import_is_found(code: str) -> None:
    assert list(import_time_problems("x", ast.parse(code))) != []


def test_constants_definitions_and_the_main_guard_pass() -> None:
    code = """
        'doc'
        from x import y
        A, B = Path('a') / 'b', re.compile('c')
        C: dict[str, int] = {name: len for name in ', '.join('ab')}
        T = TypeVar('T')
        @dataclass(frozen=True)
        class D(Base, kw_only=True):
            'doc'
            e: int = flag(3, f'at least {A}')
            def f(self, x=A): return load()
        @cache
        def g(x: int = 3) -> int: return load()
        h = lambda: load()
        if __name__ == '__main__':
            run(main)
    """
    assert list(import_time_problems("x", ast.parse(textwrap.dedent(code)))) == []


# --- the top level


def top_level_entries() -> set[str]:
    """The first parts of the paths that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode("utf-8").split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.fail(f"this test needs git and a checkout: {error}; {getattr(error, 'stderr', b'')!r}")
    return {name.split("/")[0] for name in listed if name and (ROOT / name).exists()}


def test_the_top_level_holds_what_the_design_lists_and_no_more() -> None:
    entries = top_level_entries()
    assert entries - (TOP_LEVEL - NOT_IN_GIT) == set()
    assert TOP_LEVEL - NOT_IN_GIT - entries == set()


# --- house limits


def length_problems(module: str, tree: ast.Module) -> Problems:
    """Functions of more lines than the limit; their docstrings do not count."""
    for node in ast.walk(tree) if not within(module, "benchmarks") else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = line_count(node)
            if ast.get_docstring(node) is not None:
                lines -= line_count(node.body[0])
            if lines > FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines, at most {FUNCTION_LINES} are allowed"


def line_count(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def overlong_modules(lengths: dict[str, int]) -> list[str]:
    return [
        f"{module} has {lines} lines, at most {most} are allowed"
        for module, lines in lengths.items()
        if lines > (most := SCRIPT_LINES if module in SCRIPTS else MODULE_LINES)
    ]


def test_functions_are_short() -> None:
    assert problems_everywhere(length_problems, tests_too=False) == []


def test_modules_and_scripts_are_short() -> None:
    lengths = {
        module: len(file.read_text(encoding="utf-8").splitlines())
        for module, file in sources().items()
        if not is_test(module) and not within(module, "benchmarks")
    }
    assert overlong_modules(lengths) == []


def test_what_is_too_long_is_found() -> None:
    body = "    x = 1\n"
    assert list(length_problems("src.x", ast.parse("def f():\n    '''doc\n\n    doc'''\n" + 39 * body))) == []
    assert len(list(length_problems("src.x", ast.parse("def f():\n" + 40 * body)))) == 1
    assert len(list(length_problems("src.x", ast.parse("class A:\n    async def f():\n" + 40 * ("    " + body))))) == 1
    assert overlong_modules({"main": 150, "src.plan": 150, "src.data.text": 300}) == []
    assert len(overlong_modules({"main": 151, "src.plan": 151, "src.data.text": 301})) == 3


# --- files, checkpoints, errors, type hints


def encoding_problems(_: str, tree: ast.Module) -> Problems:
    """Text that is opened, read or written without saying that it is UTF-8, which Windows would not guess."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and opens_text(node) and not names_encoding(node):
            yield node.lineno, f"no encoding: {ast.unparse(node)[:80]}"


def opens_text(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    if called.startswith(("tarfile.", "zipfile.", "os.open")):
        return False
    name = called.split(".")[-1]
    is_method = isinstance(call.func, ast.Attribute)
    if name in ("read_text", "write_text"):
        return is_method
    if name not in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
        return False
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    position = 0 if (name == "open" and is_method and called != "io.open") or "Temporary" in name else 1
    modes += call.args[position : position + 1]
    if not modes:
        return "Temporary" not in name
    return not (isinstance(modes[0], ast.Constant) and "b" in str(modes[0].value))


def names_encoding(call: ast.Call) -> bool:
    positional = {"read_text": 1, "write_text": 2}.get(ast.unparse(call.func).split(".")[-1])
    by_position = positional is not None and len(call.args) >= positional
    return by_position or any(keyword.arg == "encoding" for keyword in call.keywords)


def loading_problems(_: str, tree: ast.Module) -> Problems:
    """torch.load other than as a call with weights_only=True: a pickle may run any code."""
    safe = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "weights_only" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load" and id(node) not in safe:
            yield node.lineno, "torch.load without weights_only=True"
        if isinstance(node, ast.ImportFrom) and node.module == "torch" and "load" in [a.name for a in node.names]:
            yield node.lineno, "write torch.load(..., weights_only=True)"


def except_problems(_: str, tree: ast.Module) -> Problems:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"


def hint_problems(_: str, tree: ast.Module) -> Problems:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            listed = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            for arg in [*listed, *filter(None, [node.args.vararg, node.args.kwarg])]:
                if arg.annotation is None and arg.arg not in ("self", "cls"):
                    yield node.lineno, f"{node.name}: no type hint for {arg.arg}"


def test_every_text_file_is_opened_with_an_encoding() -> None:
    assert problems_everywhere(encoding_problems, tests_too=True) == []


def test_pickles_are_loaded_as_weights_only() -> None:
    # Tests may load one the other way, to show what it would have done.
    assert problems_everywhere(loading_problems, tests_too=False) == []


def test_no_except_catches_everything_unnamed() -> None:
    assert problems_everywhere(except_problems, tests_too=True) == []


def test_every_argument_has_a_type_hint() -> None:
    assert problems_everywhere(hint_problems, tests_too=False) == []


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (encoding_problems, "open(p)"),
        (encoding_problems, "open(p, 'w')"),
        (encoding_problems, "open(p, mode=m)"),
        (encoding_problems, "p.open()"),
        (encoding_problems, "p.open('a')"),
        (encoding_problems, "io.open(p, 'r')"),
        (encoding_problems, "os.fdopen(fd, 'w')"),
        (encoding_problems, "NamedTemporaryFile('w')"),
        (encoding_problems, "p.read_text()"),
        (encoding_problems, "Path('x').write_text(t)"),
        (loading_problems, "torch.load(p)"),
        (loading_problems, "torch.load(p, weights_only=False)"),
        (loading_problems, "torch.load(p, weights_only=flag)"),
        (loading_problems, "partial(torch.load, p)"),
        (loading_problems, "from torch import load"),
        (except_problems, "try:\n    x\nexcept:\n    pass"),
        (hint_problems, "def f(x): pass"),
        (hint_problems, "class A:\n    async def f(self, x: int, *args, **kwargs: int): pass"),
        (hint_problems, "def f(*, x): pass"),
        (hint_problems, "def f() -> None:\n    def g(x): pass"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_found(check: Callable[[str, ast.Module], Problems], code: str) -> None:
    assert len(list(check("src.x", ast.parse(code)))) == 1


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (encoding_problems, "open(p, 'rb')"),
        (encoding_problems, "open(p, encoding='utf-8')"),
        (encoding_problems, "p.open('ab')"),
        (encoding_problems, "p.open('w', encoding='utf-8')"),
        (encoding_problems, "p.read_text('utf-8')"),
        (encoding_problems, "read_text(p)"),
        (encoding_problems, "tarfile.open(p)"),
        (encoding_problems, "NamedTemporaryFile()"),
        (loading_problems, "torch.load(p, weights_only=True)"),
        (except_problems, "try:\n    x\nexcept ValueError:\n    pass"),
        (hint_problems, "class A:\n    def f(self, x: int = 3) -> None:\n        return lambda y: y"),
    ],
)  # fmt: skip
def test_what_keeps_a_rule_passes(check: Callable[[str, ast.Module], Problems], code: str) -> None:
    assert list(check("src.x", ast.parse(code))) == []
