"""A lack of disk space is reported before anything is written."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from src.common import disk
from src.common.disk import format_bytes, require_free_space


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0.0 kB"), (99_949, "99.9 kB"), (100_000, "0.1 MB"), (548_105_171, "548.1 MB"), (6_431_829_964, "6,431.8 MB")],
)
def test_bytes_are_shown_as_kb_or_mb(n_bytes: int, text: str) -> None:
    assert format_bytes(n_bytes) == text


def test_free_space_is_that_of_the_nearest_existing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: (folders.append(path), SimpleNamespace(free=1000))[1])
    path = tmp_path / "new" / "folder" / "file"
    require_free_space(path, 1000, "make room there")
    assert folders == [tmp_path.resolve()]
    with pytest.raises(OSError) as caught:
        require_free_space(path, 200_000, "make room there")
    assert str(caught.value) == f"{path} needs 0.2 MB, but the disk has only 1.0 kB free; make room there"
    assert list(tmp_path.iterdir()) == []
