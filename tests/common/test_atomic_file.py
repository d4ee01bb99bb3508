"""Files are written completely or not at all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from src.common import atomic_file
from src.common.atomic_file import atomic_write
from tests.repository import ROOT


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "text.txt"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


def assert_unchanged(path: Path) -> None:
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_write_changes_nothing(target: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as out:
        out.write(b"half")
        assert target.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert_unchanged(target)


def test_a_write_creates_the_folder_and_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    for content in (b"one", b"two"):
        with atomic_write(path) as out:
            out.write(content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file.bin"]


@contextmanager
def another_writer(target: Path) -> Iterator[Path]:
    """Yields the temporary file of a process that is writing `target`. At the end the process is killed."""
    code = "import pathlib, sys\nfrom src.common.atomic_file import atomic_write\n"
    code += (
        "with atomic_write(pathlib.Path(sys.argv[1])) as out:\n    print(out.name, flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(target)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield Path(process.stdout.readline().strip())
        process.kill()


def test_temporary_files_are_removed_once_their_process_is_killed(target: Path) -> None:
    with another_writer(target) as temporary:
        with atomic_write(target) as first:
            assert temporary.exists()
            first.write(b"first")
            with atomic_write(target) as second:
                second.write(b"second")
    assert temporary.exists() and target.read_bytes() == b"first"
    with atomic_write(target.with_name("another file")):
        assert not temporary.exists()


@pytest.mark.parametrize(("name", "removed"), [(".a.npy.1-0123abcd.tmp", True), (".a.tmp", False), ("a.1.tmp", False)])
def test_only_our_own_temporary_files_are_removed(target: Path, name: str, removed: bool) -> None:
    leftover = target.with_name(name)
    leftover.touch()
    atomic_file.remove_stale_temporaries(target.parent)
    assert leftover.exists() != removed


def test_without_locks_temporary_files_stay_for_an_hour(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(atomic_file, "lock_descriptor", refuse)
    temporary = target.with_name(f".{target.name}.1-0123abcd.tmp")
    temporary.touch()
    with atomic_write(target) as out:
        assert temporary.exists()
        out.write(b"new")
    os.utime(temporary, (0, 0))
    atomic_file.remove_stale_temporaries(target.parent)
    assert not temporary.exists() and target.read_bytes() == b"new"


def test_a_temporary_file_swept_before_it_is_locked_is_replaced(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, swept = atomic_file.lock_descriptor, []

    def sweep_first(descriptor: int, *, blocking: bool) -> bool:
        if not swept:
            swept.extend(target.parent.glob(".*.tmp"))
            swept[0].unlink()
        return lock(descriptor, blocking=blocking)

    monkeypatch.setattr(atomic_file, "lock_descriptor", sweep_first)
    with atomic_write(target) as out:
        out.write(b"new")
    assert swept and target.read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_private_file_is_readable_by_its_owner_only(target: Path) -> None:
    with atomic_write(target, atomic_file.OWNER_ONLY) as out:
        out.write(b"secret")
    assert target.stat().st_mode & 0o777 == 0o600
