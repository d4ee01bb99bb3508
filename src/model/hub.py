"""The files of a Hugging Face model: which of them hold the weights, and how to download them from a hub.

Downloads go to huggingface_hub's own cache, which other programs share, and follow its settings (HF_ENDPOINT,
HF_HUB_OFFLINE, HF_HOME, HF_TOKEN, ...). Its `hf_hub_download` is not used: as of version 2.4 it deletes a partial file
when interrupted, never verifies a hash, and without network retries for 23 s or more.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.common.atomic_file import atomic_write
from src.common.disk import format_bytes, require_free_space
from src.common.messages import one_line

CONFIG_FILE = "config.json"
# In order of preference. An index lists the files that a large model is split into.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ALTERNATIVES = (
    "three alternatives: --weights PATH (a Hugging Face folder or weights file that you have), "
    "HF_ENDPOINT=https://MIRROR (another server), or python main.py (train from scratch, nothing to download)"
)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it. `size` in bytes, None if unknown."""

    name: str
    url: str
    commit: str
    etag: str
    size: int | None


def find_weight_files(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder, in the most preferred format.

    Raises FileNotFoundError if there are none or a part is missing, ValueError for an unreadable index.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            return [path]
        parts = [folder / part for part in _parts(path)]
        for part in parts:
            if not part.is_file():
                raise FileNotFoundError(f"{path} lists {part.name}, which is not in its folder; download it as well")
        return parts
    raise FileNotFoundError(f"{folder} has no weights; expected {WEIGHT_FILES[0]}, {WEIGHT_FILES[2]} or an index")


def download_model(repo: str, cache: str | Path | None = None) -> Path:
    """The folder with config.json and the weights of the hub model `repo`, downloaded unless it is cached.

    A cached model needs no network. A download is announced on stderr with its size, and resumes an earlier partial
    one. A file enters the cache only if its SHA-256 equals the hub's. cache: the cache folder (None: huggingface_hub's
    own). Raises OSError that names the alternatives to a download, and ValueError for an unreadable index.
    """
    from huggingface_hub import constants

    cache_dir = Path(cache or constants.HF_HUB_CACHE).expanduser()
    return _cached(repo, cache_dir) or _fetch_model(repo, cache_dir)


def _cached(repo: str, cache_dir: Path) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, CONFIG_FILE, cache_dir=cache_dir)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        find_weight_files(folder)
    except FileNotFoundError:
        return None
    return folder


def _fetch_model(repo: str, cache_dir: Path) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repo_folder = cache_dir / repo_folder_name(repo_id=repo, repo_type="model")
    config = _file_info(repo, CONFIG_FILE, cache_dir)
    if config is None:
        raise FileNotFoundError(f"{constants.ENDPOINT} has no {CONFIG_FILE} for {repo}; {ALTERNATIVES}")
    snapshot = repo_folder / "snapshots" / config.commit
    weights = _first_weights(repo, cache_dir)
    files = [weights]
    if weights.name.endswith(".json"):
        _fetch(repo, [weights], repo_folder, snapshot)
        files = [_part_info(repo, name, cache_dir) for name in _parts(snapshot / weights.name)]
    _fetch(repo, [config, *files], repo_folder, snapshot)
    with atomic_write(repo_folder / "refs" / "main") as file:  # last: this marks the model as complete
        file.write(config.commit.encode("utf-8"))
    return snapshot


def _first_weights(repo: str, cache_dir: Path) -> RemoteFile:
    for name in WEIGHT_FILES:
        found = _file_info(repo, name, cache_dir)
        if found is not None:
            return found
    raise FileNotFoundError(f"{repo} has neither {WEIGHT_FILES[0]} nor {WEIGHT_FILES[2]}; {ALTERNATIVES}")


def _part_info(repo: str, name: str, cache_dir: Path) -> RemoteFile:
    found = _file_info(repo, name, cache_dir)
    if found is None:
        raise FileNotFoundError(f"{repo} lacks {name}, which its own index lists; {ALTERNATIVES}")
    return found


def _file_info(repo: str, name: str, cache_dir: Path) -> RemoteFile | None:
    """The hub's description of a file, or None if the model has no such file. One request, no retries."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

    url = hf_hub_url(repo, name)
    with _one_line_errors(repo, cache_dir):
        try:
            found = get_hf_file_metadata(url)
        except HfHubHTTPError as error:
            plain_404 = error.response.status_code == 404 and not isinstance(error, RepositoryNotFoundError)
            if plain_404 or isinstance(error, EntryNotFoundError):
                return None
            raise
    if found.etag is None or not re.fullmatch(r"\w[\w.-]*", found.commit_hash or ""):
        raise OSError(f"{constants.ENDPOINT} is not a Hugging Face hub; check HF_ENDPOINT; {ALTERNATIVES}")
    return RemoteFile(name, url, str(found.commit_hash), found.etag, found.size)


@contextmanager
def _one_line_errors(repo: str, cache_dir: Path) -> Iterator[None]:
    """Turn any failure of the client into an OSError of one line with the alternatives.

    Every exception is caught: the client lets its HTTP library's exceptions through, and which library it uses
    depends on the client's version.
    """
    try:
        yield
    except Exception as error:
        raise OSError(f"{repo} cannot be downloaded: {_reason(error, repo, cache_dir)}; {ALTERNATIVES}") from error


def _reason(error: Exception, repo: str, cache_dir: Path) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set and the model is not in {cache_dir}"
    if isinstance(error, GatedRepoError):
        return f"it is gated; accept its terms at {constants.ENDPOINT}/{repo}, then run: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no such model (if it is private, run: hf auth login)"
    if isinstance(error, HfHubHTTPError):
        return f"{constants.ENDPOINT} answered {error.response.status_code}"
    return f"no connection to {constants.ENDPOINT} ({one_line(error)})"


def _fetch(repo: str, files: list[RemoteFile], repo_folder: Path, snapshot: Path) -> None:
    """Download the files that the snapshot lacks, after checking that the disk has room for all of them."""
    missing = [file for file in files if not (snapshot / file.name).is_file()]
    if not missing:
        return
    _check_space(missing, repo_folder)
    listed = ", ".join(f"{file.name} ({_size_and_progress(file, repo_folder)})" for file in missing)
    print(f"Downloading {repo} into {repo_folder}: {listed}", file=sys.stderr)
    for file in missing:
        _fetch_file(repo, file, _partial(file, repo_folder), snapshot / file.name)


def _fetch_file(repo: str, file: RemoteFile, partial: Path, target: Path) -> None:
    from huggingface_hub.utils import WeakFileLock

    repo_folder = partial.parent.parent
    lock = repo_folder.parent / ".locks" / repo_folder.name / partial.with_suffix(".lock").name
    for path in (lock, partial, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # two processes must not write to the same partial file
        if target.is_file():
            return
        try:
            _download_rest(file, partial)
        except Exception as error:
            raise OSError(
                f"{repo}: the download of {file.name} stopped at {_size(_bytes_on_disk(partial))} of "
                f"{_size(file.size)} ({one_line(error)}); run the same command again to resume; {ALTERNATIVES}"
            ) from error
        _verify(repo, file, partial)
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


def _parts(index: Path) -> list[str]:
    """The file names listed in an index. Raises ValueError unless all are plain names of weight files."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names: Iterable[object] = content["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is not an index of weights (JSON with a weight_map); delete it and download it again"
        ) from error
    unique = sorted({str(name) for name in names})
    for name in unique:
        if not re.fullmatch(r"\w[\w.-]*\.(safetensors|bin)", name):
            raise ValueError(f"{index} lists {name!r}; expected file names ending in .safetensors or .bin")
    return unique


def _size(size: int | None) -> str:
    return "size unknown" if size is None else format_bytes(size)
