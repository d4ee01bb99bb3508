"""A fake Hugging Face hub on 127.0.0.1 that serves one model or data set.

Like the real hub, it answers HEAD and GET requests for `/<repo>/resolve/main/<file>`. It sends the size and SHA-256 of
a large file in X-Linked-* headers, and redirects requests for its content to a CDN, here on another port. For a data
set (`datasets/<repo>`) it also answers `/api/datasets/<repo>/revision/<revision>`.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import SimpleNamespace, TracebackType
from urllib.parse import urlsplit

import pytest
from huggingface_hub import close_session, constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Request:
    """A request that the hub received. `path` starts with /cdn/ if it asked for the content of a large file."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    encoding: str | None


class FakeHub:
    """Serves `files` as the model `repo` while used as a context manager. Tests set the faults they need."""

    def __init__(self, files: Mapping[str, bytes], repo: str = "someone/tiny-gpt2") -> None:
        self.files = dict(files)
        self.repo = repo
        self.requests: list[Request] = []
        self.content_bytes = 0  # bytes of large files sent in total
        self.claimed_hash: str | None = None  # sent in place of the true SHA-256
        self.cuts: list[tuple[int, str]] = []  # each cuts one response after N bytes, by "close" or "reset"
        self.error_response: tuple[int, dict[str, str]] | None = None  # status and headers of every response
        self.card: dict[str, object] = {}  # the metadata of a data set's card
        self.gated = False  # whether the content of a data set is refused
        self.supports_ranges = True
        self.sends_sizes = True

    def __enter__(self) -> "FakeHub":
        served_hub = self

        class Handler(_Handler):
            hub = served_hub

        self._servers = [_Server(("127.0.0.1", 0), Handler) for _ in range(2)]
        self.endpoint, self.content_endpoint = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def content_requests(self) -> list[Request]:
        """The requests for large files' content, in order."""
        return [request for request in self.requests if request.path.startswith("/cdn/")]


def point_client_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the endpoint of a client that is already imported. It also downloads in small chunks and never sleeps."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))
    close_session()


class _Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's also resolves the host name, which can take seconds without DNS


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        hub = self.hub
        headers = (self.headers[name] for name in ("Range", "Authorization", "Accept-Encoding"))
        hub.requests.append(Request(self.command, self.path, *headers))
        if hub.error_response is not None:
            return self._head(hub.error_response[0], {**hub.error_response[1], "Content-Length": "0"})
        if self.path.startswith("/cdn/"):
            return self._content(hub.files[self.path.removeprefix("/cdn/")])
        if self.path.startswith("/api/datasets/"):
            return self._dataset_info(urlsplit(self.path).path.removeprefix("/api/datasets/"))
        repo, _, name = self.path.strip("/").replace(f"/{COMMIT}/", "/main/").partition("/resolve/main/")
        if hub.gated:
            return self._head(403, {"X-Error-Code": "GatedRepo", "Content-Length": "0"})
        if repo.removeprefix("datasets/") != hub.repo:
            return self._head(404, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"})
        if name not in hub.files:
            return self._head(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT, "Content-Length": "0"})
        self._resolved(name, hub.files[name])

    def _dataset_info(self, path: str) -> None:
        """Answer a request for "<repo>/revision/<revision>"."""
        repo, _, revision = path.partition("/revision/")
        if repo != self.hub.repo or revision not in ("main", COMMIT):
            missing = "RepoNotFound" if repo != self.hub.repo else "RevisionNotFound"
            return self._head(404, {"X-Error-Code": missing, "Content-Length": "0"})
        files = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": "0" * 40,
                "lfs": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 1},
            }
            for name, content in self.hub.files.items()
        ]
        body = json.dumps({"id": repo, "sha": COMMIT, "cardData": self.hub.card, "siblings": files}).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _resolved(self, name: str, content: bytes) -> None:
        headers = {"X-Repo-Commit": COMMIT}
        if not name.endswith(".json"):
            headers |= {
                "X-Linked-Etag": f'"{self.hub.claimed_hash or hashlib.sha256(content).hexdigest()}"',
                "Location": f"{self.hub.content_endpoint}/cdn/{name}",
                "Content-Length": "0",
            }
            if self.hub.sends_sizes:
                headers["X-Linked-Size"] = str(len(content))
            return self._head(302, headers)
        etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self._head(200, headers | {"ETag": f'"{etag}"', "Content-Length": str(len(content))})
        if self.command == "GET":
            self.wfile.write(content)

    def _content(self, content: bytes) -> None:
        start = 0
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if requested and self.hub.supports_ranges:
            start = int(requested[1])
            if start >= len(content):
                return self._head(416, {"Content-Length": "0"})
            self._head(
                206,
                {
                    "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
                    "Content-Length": str(len(content) - start),
                },
            )
        else:
            self._head(200, {"Content-Length": str(len(content))})
        length, ending = self.hub.cuts.pop(0) if self.hub.cuts else (len(content), "")
        sent = content[start : start + length]
        self.hub.content_bytes += len(sent)
        self.wfile.write(sent)
        self.wfile.flush()
        if ending:
            self._close_connection(abruptly=ending == "reset")

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _close_connection(self, abruptly: bool) -> None:
        self.close_connection = True
        if abruptly:  # with a linger time of 0 s the system sends RST instead of FIN
            time.sleep(0.1)  # a reset makes the client drop unread data, so let it read first
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_WR)
