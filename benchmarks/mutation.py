"""python -m benchmarks.mutation: which changes of a single expression the tests of a module do not notice.

mutmut makes the changed modules, which are called mutants. Its own runner does not support a package named `src`, so
this benchmark runs the tests: a forked process imports a mutant and runs the module's own tests. Linux and macOS only.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import zip_longest
from pathlib import Path
from types import CodeType
from typing import Any

from benchmarks.fork import Child, prepare
from benchmarks.harness import require
from src.cli import flag, parse
from src.program import run_script

MUTMUT = "mutmut==3.8.1"
PRELOADED = (
    "torch._dynamo",
    "pytest",
    "hypothesis",
    "transformers",
    "trl",
)  # imported by the tests; no mutant changes them

_TRAINING, _DECODING = "tests/training", "tests/model/decoding"
TESTS = {
    "src/training/losses.py": [f"{_TRAINING}/test_losses.py"],
    "src/training/tied_head.py": [f"{_TRAINING}/test_losses.py"],
    "src/training/optim.py": [f"{_TRAINING}/test_optim.py"],
    "src/training/loop.py": [f"{_TRAINING}/test_loop.py"],
    "src/training/stage.py": [f"{_TRAINING}/test_loop.py", f"{_TRAINING}/test_resume.py"],
    "src/training/checkpoints.py": [f"{_TRAINING}/test_checkpoints.py", f"{_TRAINING}/test_resume.py"],
    "src/training/saved_run.py": [f"{_TRAINING}/test_resume.py"],
    "src/training/optimizer_state.py": [f"{_TRAINING}/test_resume.py"],
    "src/model/decoding/sampling.py": [f"{_DECODING}/test_sampling.py"],
    "src/model/decoding/text_stream.py": [f"{_DECODING}/test_text_stream.py"],
    "src/data/batching.py": ["tests/data/test_batching.py"],
    "src/checkpoint/files.py": ["tests/checkpoint"],
    "src/checkpoint/digest.py": ["tests/checkpoint"],
    "src/checkpoint/models.py": ["tests/checkpoint"],
    "src/checkpoint/loaded_model.py": ["tests/checkpoint"],
    "src/checkpoint/other_weights.py": ["tests/checkpoint"],
}


@dataclass(frozen=True)
class Flags:
    module: str = flag("all", f"one of {', '.join(TESTS)}, or all")
    every: int = flag(1, "run only every Nth mutant, as a sample")

    def __post_init__(self) -> None:
        if self.module not in ("all", *TESTS):
            raise ValueError(f"--module must be all or one of {', '.join(TESTS)}, got {self.module!r}")
        if self.every < 1:
            raise ValueError(f"--every must be at least 1, got {self.every}")


@dataclass(frozen=True)
class Mutant:
    """A changed module: its source, and the first changed line."""

    source: str
    change: str


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every mutant of the functions in a file. Texts are left alone: most are messages."""
    import libcst
    from mutmut.mutation.file_mutation import create_mutations, deep_replace

    module, mutations, _, _ = create_mutations(str(path), path.read_text(encoding="utf-8"))
    for mutation in mutations:
        if not mutation.contained_by_top_level_function or isinstance(mutation.original_node, libcst.BaseString):
            continue
        mutated: Any = deep_replace(module, mutation.original_node, mutation.mutated_node)
        lines = zip_longest(module.code.splitlines(), mutated.code.splitlines(), fillvalue="")
        number, line = next((n, after) for n, (before, after) in enumerate(lines, 1) if before != after)
        yield Mutant(mutated.code, f"{path}:{number}: {line.strip()}")


class _MutatedModule(MetaPathFinder, SourceFileLoader):  # type: ignore[misc]
    """Imports the source of a mutant in place of its module."""

    def __init__(self, path: Path, source: str) -> None:
        super().__init__(".".join(path.with_suffix("").parts), str(path.absolute()))
        self._source = source

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec")


def run_tests(path: Path, source: str) -> int:
    """The exit code of pytest on the tests of a module, with `source` as the module's source."""
    import pytest

    sys.meta_path.insert(0, _MutatedModule(path, source))
    return pytest.main(["-x", "-n0", "-p", "no:cacheprovider", *TESTS[str(path)]])


def score(path: Path, every: int) -> tuple[int, int]:
    """(killed, all) mutants of a module. Prints the survivors. Raises RuntimeError if the tests fail without one."""
    start = time.monotonic()
    if Child(lambda: run_tests(path, path.read_text(encoding="utf-8"))).wait(600):
        raise RuntimeError(
            f"{path}: its tests fail without any change; run python -m pytest {' '.join(TESTS[str(path)])}"
        )
    limit_s = 10 + 10 * (time.monotonic() - start)
    killed = total = 0
    for mutant in list(mutants_of(path))[::every]:
        total += 1
        if Child(lambda source=mutant.source: run_tests(path, source)).wait(limit_s) == 0:  # type: ignore[misc]
            print(f"survived: {mutant.change}", flush=True)
        else:
            killed += 1
    return killed, total


def main(argv: list[str] | None = None) -> int:
    flags, _ = parse(Flags, argv, __doc__)
    require("mutmut", f"pip install {MUTMUT}")
    prepare(PRELOADED)
    for name in TESTS if flags.module == "all" else [flags.module]:
        killed, total = score(Path(name), flags.every)
        print(f"{name}: {killed} of {total} mutants noticed, {killed / total:.1%}", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
