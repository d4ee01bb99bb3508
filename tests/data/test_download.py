"""Downloads are checked and atomic; text is UTF-8."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.common import disk
from src.data import download
from src.data.download import download_file

BODY = b"Shall I compare thee to a summer's day?\n" * 500
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A local web server. A test sets its answers, one per request; the last one repeats."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests = 0
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                (server.answers.pop(0) if len(server.answers) > 1 else server.answers[0])(self)

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/text.txt"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()


def answer(
    body: bytes = BODY, status: int = 200, stated: int | None = None, content_type: str = "text/plain; charset=utf-8"
) -> Answer:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body) if stated is None else stated))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def quick_download(url: str, path: Path, retries: int = 0, min_bytes: int = 1000) -> list[str]:
    lines: list[str] = []
    download_file(url, path, min_bytes=min_bytes, notify=lines.append, timeout=(2.0, 0.3), retries=retries)
    return lines


def assert_unchanged(path: Path) -> None:
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "text.txt"
    path.parent.mkdir()
    path.write_bytes(b"old")
    return path


def test_a_download_is_saved_unchanged_and_its_size_reported(server: Server, tmp_path: Path) -> None:
    server.answers = [answer()]
    path = tmp_path / "new folder" / "text.txt"
    lines = quick_download(server.url, path)
    assert path.read_bytes() == BODY
    assert lines == [f"downloading {server.url} (20.0 kB)"]


def test_a_slow_server_times_out_and_the_old_file_stays(server: Server, target: Path) -> None:
    def wait(handler: BaseHTTPRequestHandler) -> None:
        server.released.wait(10)

    server.answers = [wait]
    with pytest.raises(OSError, match=r"127\.0\.0\.1 did not answer within 0\.3 s"):
        quick_download(server.url, target)
    assert_unchanged(target)


def test_a_stalled_download_times_out(server: Server, target: Path) -> None:
    def stall(handler: BaseHTTPRequestHandler) -> None:
        answer(BODY[:5000], stated=len(BODY))(handler)
        server.released.wait(10)

    server.answers = [stall]
    with pytest.raises(OSError, match="was cut off after"):
        quick_download(server.url, target)
    assert_unchanged(target)


def test_a_truncated_download_is_an_error(server: Server, target: Path) -> None:
    server.answers = [answer(BODY[:5000], stated=len(BODY))]
    with pytest.raises(OSError, match="was cut off after"):
        quick_download(server.url, target)
    assert_unchanged(target)


def test_a_download_below_the_minimum_size_is_refused(server: Server, target: Path) -> None:
    server.answers = [answer(stated=900)]
    with pytest.raises(ValueError, match="sent 900 bytes, expected at least 1000"):
        quick_download(server.url, target)
    assert_unchanged(target)


def test_a_missing_page_is_not_retried(server: Server, target: Path) -> None:
    server.answers = [answer(status=404)]
    with pytest.raises(OSError, match="answered 404 Not Found"):
        quick_download(server.url, target, retries=3)
    assert server.requests == 1
    assert_unchanged(target)


@pytest.mark.parametrize(
    "page",
    [
        answer(content_type="text/html"),
        answer(b"\n <!DOCTYPE html>" + BODY),
        answer(b"\xef\xbb\xbf<HTML>" + BODY, content_type="application/octet-stream"),
    ],
    ids=["content type", "first bytes", "after a byte order mark"],
)
def test_an_html_page_is_refused(server: Server, target: Path, page: Answer) -> None:
    server.answers = [page]
    with pytest.raises(ValueError, match="sent an HTML page instead of text"):
        quick_download(server.url, target, retries=3)
    assert server.requests == 1
    assert_unchanged(target)


def test_transient_errors_are_retried_with_growing_pauses(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses_s: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses_s.append)
    server.answers = [answer(status=503), answer(BODY[:5000], stated=len(BODY)), answer()]
    lines = quick_download(server.url, target, retries=2)
    assert target.read_bytes() == BODY
    assert pauses_s == [1.0, 2.0]
    assert lines[0] == f"{server.url} answered 503 Service Unavailable; retrying in 1 s"


def test_an_unreachable_host_is_not_retried(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda _: pytest.fail("retried"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nothing listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/text.txt"
        with pytest.raises(OSError, match=r"cannot reach 127\.0\.0\.1 \(Connect.*HTTPS_PROXY"):
            quick_download(url, target, retries=3)
    assert_unchanged(target)


@pytest.mark.parametrize("scheme", ["socks", "ftp"])
def test_an_unusable_proxy_is_named(target: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:7890")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(OSError, match=f"ALL_PROXY={scheme}://... is not a proxy that can be used"):
        quick_download("http://example.invalid/text.txt", target, retries=3)


def test_a_download_checks_the_free_disk_space_first(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = len(BODY) - 1

    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: Usage)
    monkeypatch.setattr(download, "atomic_write", lambda path: pytest.fail("written"))
    server.answers = [answer()]
    with pytest.raises(OSError, match=r"text\.txt needs 20\.0 kB, but .* only 20\.0 kB free; make room there"):
        quick_download(server.url, target)
