"""Download text files."""

import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from src.common.atomic_file import atomic_write
from src.common.disk import format_bytes, require_free_space
from src.common.messages import Notify
from src.common.proxy import proxy_problem

_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = (4.0, 15.0)  # to connect, and between two reads


class _TransientError(OSError):
    """A failed download that may succeed on the next try."""


def download_file(
    url: str,
    path: Path,
    *,
    min_bytes: int,
    notify: Notify = print,
    timeout: tuple[float, float] = _TIMEOUT_S,
    retries: int = 2,
) -> None:
    """Download a text file to `path`, atomically.

    `timeout` is (connect, read) in seconds. A timeout, a truncated response, or the status 429 or 5xx is retried up
    to `retries` times with growing pauses; an unreachable host is not. The size that the server states is compared with
    the free disk space before the download, and with the number of bytes received after it.
    Raises OSError if the download fails, ValueError if the response is an HTML page or shorter than `min_bytes`.
    """
    for attempt in range(retries + 1):
        try:
            return _download_once(url, Path(path), min_bytes, notify, timeout)
        except _TransientError as error:
            if attempt == retries:
                raise
            pause_s = 2.0**attempt
            notify(f"{error}; retrying in {pause_s:.0f} s")
            time.sleep(pause_s)


def _download_once(url: str, path: Path, min_bytes: int, notify: Notify, timeout: tuple[float, float]) -> None:
    with _open_url(url, timeout) as response:
        stated_bytes = _stated_size(response)
        size = format_bytes(stated_bytes) if stated_bytes is not None else "unknown size"
        notify(f"downloading {url} ({size})")
        require_free_space(path, stated_bytes or min_bytes, "make room there")
        with atomic_write(path) as out:
            received = _copy_body(response, out, stated_bytes)
            if stated_bytes is not None and received != stated_bytes:
                raise _TransientError(f"{url} was cut off after {received} of {stated_bytes} bytes")
            if received < min_bytes:
                raise ValueError(f"{url} sent {received} bytes, expected at least {min_bytes}")


def _open_url(url: str, timeout: tuple[float, float]) -> requests.Response:
    host = urlsplit(url).hostname
    try:
        # No compression, so that the stated size is the size on disk.
        response = requests.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"})
    except requests.ReadTimeout:
        raise _TransientError(f"{host} did not answer within {timeout[1]:g} s") from None
    except (requests.RequestException, ValueError) as error:  # ValueError: an unknown kind of proxy
        advice = proxy_problem() or "check the network, or the proxy in HTTPS_PROXY"
        raise OSError(f"cannot reach {host} ({type(error).__name__}); {advice}") from None
    if not response.ok:
        response.close()
        kind_of_error = _TransientError if response.status_code >= 500 or response.status_code == 429 else OSError
        raise kind_of_error(f"{url} answered {response.status_code} {response.reason}")
    return response


def _stated_size(response: requests.Response) -> int | None:
    stated = response.headers.get("Content-Length", "")
    return int(stated) if stated.isdigit() and "Content-Encoding" not in response.headers else None


def _copy_body(response: requests.Response, out: BinaryIO, stated_bytes: int | None) -> int:
    """Copy the body to `out` with a progress bar and return its number of bytes. Raises ValueError for HTML."""
    received = 0
    # disable=None: no bar if stderr is not a terminal
    with tqdm(total=stated_bytes, unit="B", unit_scale=True, desc="download", leave=False, disable=None) as bar:
        try:
            for chunk in response.iter_content(_CHUNK_BYTES):
                if received == 0:
                    _refuse_html(response, chunk)
                received += out.write(chunk)
                bar.update(len(chunk))
        except requests.RequestException as error:
            raise _TransientError(
                f"{response.url} was cut off after {received} bytes ({type(error).__name__})"
            ) from None
    return received


def _refuse_html(response: requests.Response, first_chunk: bytes) -> None:
    content_type = response.headers.get("Content-Type", "").lower()
    start = first_chunk[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if "html" in content_type or start.startswith((b"<!doctype html", b"<html")):
        raise ValueError(f"{response.url} sent an HTML page instead of text; it may be the login page of this network")
