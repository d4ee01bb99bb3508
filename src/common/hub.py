"""Download files of a repository on the Hugging Face hub, a model or a data set.

Downloads go to huggingface_hub's own cache, which other programs share, and follow its settings (HF_ENDPOINT,
HF_HUB_OFFLINE, HF_HOME, HF_TOKEN, ...). Its `hf_hub_download` is not used: as of version 2.4 it deletes a partial file
when interrupted, never verifies a hash, and without network retries for 23 s or more.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.common.disk import format_bytes, require_free_space
from src.common.messages import one_line
from src.common.proxy import proxy_problem


@dataclass(frozen=True)
class HubRepository:
    """A repository on the hub and its place in the cache. `advice` ends the message of every failure."""

    name: str
    cache: Path
    advice: str
    kind: Literal["model", "dataset"] = "model"

    @property
    def folder(self) -> Path:
        """Its folder in the cache, which may not exist yet."""
        from huggingface_hub.file_download import repo_folder_name

        return self.cache / repo_folder_name(repo_id=self.name, repo_type=self.kind)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it. `size` in bytes, None if unknown."""

    name: str
    url: str
    commit: str
    etag: str
    size: int | None


def file_info(repository: HubRepository, name: str) -> RemoteFile | None:
    """The hub's description of a file of a model, or None if there is no such file. One request, no retries."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

    url = hf_hub_url(repository.name, name)
    with one_line_errors(repository):
        try:
            found = get_hf_file_metadata(url)
        except HfHubHTTPError as error:
            plain_404 = error.response.status_code == 404 and not isinstance(error, RepositoryNotFoundError)
            if plain_404 or isinstance(error, EntryNotFoundError):
                return None
            raise
    if found.etag is None or not re.fullmatch(r"\w[\w.-]*", found.commit_hash or ""):
        raise OSError(f"{constants.ENDPOINT} is not a Hugging Face hub; check HF_ENDPOINT; {repository.advice}")
    return RemoteFile(name, url, str(found.commit_hash), found.etag, found.size)


@contextmanager
def one_line_errors(repository: HubRepository) -> Iterator[None]:
    """Turn any failure of the client into a one-line OSError that ends with the advice.

    Every exception is caught: the client lets its HTTP library's exceptions through, and which library it uses
    depends on the client's version.
    """
    try:
        yield
    except Exception as error:
        raise _failed(error, repository) from error


def _failed(error: Exception, repository: HubRepository) -> OSError:
    return OSError(f"{repository.name} cannot be downloaded: {_reason(error, repository)}; {repository.advice}")


def _reason(error: Exception, repository: HubRepository) -> str:
    from huggingface_hub import constants, errors

    noun, path = (
        ("model", repository.name) if repository.kind == "model" else ("data set", f"datasets/{repository.name}")
    )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set and the {noun} is not in {repository.cache}"
    if isinstance(error, errors.GatedRepoError):
        return f"it is gated; accept its terms at {constants.ENDPOINT}/{path}, then run: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        local = "there is no such file here, and " if repository.kind == "dataset" else ""
        return f"{local}{constants.ENDPOINT} has no such {noun} (if it is private, run: hf auth login)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the {noun} has no such revision"
    if isinstance(error, errors.HfHubHTTPError):
        return f"{constants.ENDPOINT} answered {error.response.status_code}"
    return f"no connection to {constants.ENDPOINT} ({proxy_problem() or one_line(error)})"


def download_files(repository: HubRepository, files: Sequence[RemoteFile], snapshot: Path, note: str = "") -> None:
    """Download the files that the snapshot lacks, after checking that the disk has room for all of them."""
    missing = [file for file in files if not (snapshot / file.name).is_file()]
    if not missing:
        return
    _check_space(missing, repository.folder)
    listed = ", ".join(f"{file.name} ({_size_and_progress(file, repository.folder)})" for file in missing)
    print(f"Downloading {repository.name} into {repository.folder}: {listed}{note}", file=sys.stderr)
    for file in missing:
        _fetch_file(repository, file, snapshot / file.name)


def _fetch_file(repository: HubRepository, file: RemoteFile, target: Path) -> None:
    from huggingface_hub.errors import GatedRepoError
    from huggingface_hub.utils import WeakFileLock

    partial = _partial(file, repository.folder)
    lock = repository.cache / ".locks" / repository.folder.name / partial.with_suffix(".lock").name
    for path in (lock, partial, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # two processes must not write to the same partial file
        if target.is_file():
            return
        try:
            _download_rest(file, partial)
        except Exception as error:
            if isinstance(error, GatedRepoError):
                raise _failed(error, repository) from error
            raise OSError(
                f"{repository.name}: the download of {file.name} stopped at {_size(_bytes_on_disk(partial))} of "
                f"{_size(file.size)} ({one_line(error)}); run the same command again to resume; {repository.advice}"
            ) from error
        _verify(repository.name, file, partial)
        os.replace(partial, target)


def _download_rest(file: RemoteFile, partial: Path) -> None:
    """Download the missing bytes. The client shows progress, and resumes after most broken connections."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if file.size is None or _bytes_on_disk(partial) > file.size:
        partial.unlink(missing_ok=True)
    while True:
        on_disk = _bytes_on_disk(partial)
        try:
            with partial.open("ab") as stream:
                http_get(
                    file.url,
                    stream,
                    resume_size=on_disk,
                    # Compression would change the byte offsets that resuming relies on.
                    headers=build_hf_headers(headers={"Accept-Encoding": "identity"}),
                    expected_size=file.size,
                    displayed_filename=file.name,
                )
            return
        except Exception:
            if _bytes_on_disk(partial) <= on_disk:  # the client does not retry a reset connection, so we do
                raise


def _verify(repo: str, file: RemoteFile, partial: Path) -> None:
    """Compare with the SHA-256, which is the hub's etag for every large file (LFS)."""
    if not re.fullmatch(r"[0-9a-f]{64}", file.etag):
        return  # a small text file has git's hash as its etag; it is checked when parsed as JSON
    digest = hashlib.sha256()
    with partial.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != file.etag:
        partial.unlink()
        raise OSError(
            f"{repo}: {file.name} has SHA-256 {digest.hexdigest()[:12]}..., expected "
            f"{file.etag[:12]}...; it was deleted, run the same command again to download it again"
        )


def _check_space(files: list[RemoteFile], repo_folder: Path) -> None:
    needed = sum(max((file.size or 0) - _bytes_on_disk(_partial(file, repo_folder)), 0) for file in files)
    require_free_space(repo_folder, needed, "free some space or choose another cache folder (HF_HOME=FOLDER)")


def _size_and_progress(file: RemoteFile, repo_folder: Path) -> str:
    on_disk = _bytes_on_disk(_partial(file, repo_folder))
    return _size(file.size) + (f", {_size(on_disk)} of it already downloaded" if on_disk else "")


def _partial(file: RemoteFile, repo_folder: Path) -> Path:
    """The path of a partial download. Its name is a hash, because a server may send anything as an etag."""
    return (
        repo_folder / "blobs" / (hashlib.sha256(f"{file.name} {file.etag}".encode()).hexdigest()[:32] + ".incomplete")
    )


def _bytes_on_disk(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _size(size: int | None) -> str:
    return "size unknown" if size is None else format_bytes(size)
