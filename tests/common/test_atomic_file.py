"""Files are written completely or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.common import atomic_file
from src.common.atomic_file import atomic_write


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


def test_temporary_files_of_a_killed_process_are_removed(target: Path) -> None:
    killed = (
        "import os, pathlib, sys\nfrom src.common.atomic_file import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as out:\n"
        "    out.write(b'half')\n    out.flush()\n    os._exit(9)\n"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", killed, str(target)], cwd=root).returncode == 9
    assert target.read_bytes() == b"old"
    (dead,) = (entry for entry in target.parent.iterdir() if entry != target)
    with atomic_write(target) as first:
        assert not dead.exists()
        first.write(b"first")
        with atomic_write(target) as second:
            second.write(b"second")
    assert target.read_bytes() == b"first"
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("name", ["1-0123abcd", "word-0123abcd", "99999999999999999999-0123abcd"])
def test_temporary_files_of_other_processes_stay_for_an_hour(target: Path, name: str) -> None:
    temporary = target.with_name(f".{target.name}.{name}.tmp")
    temporary.write_bytes(b"half")
    atomic_file.remove_stale_temporaries(target)
    assert temporary.exists()
    os.utime(temporary, (0, 0))
    atomic_file.remove_stale_temporaries(target)
    assert not temporary.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_private_file_is_readable_by_its_owner_only(target: Path) -> None:
    with atomic_write(target, atomic_file.OWNER_ONLY) as out:
        out.write(b"secret")
    assert target.stat().st_mode & 0o777 == 0o600
