"""The files of a Hugging Face model: which of them hold the weights, and fetching them from a hub.

What is fetched lies in huggingface_hub's own cache, where any other program finds it, and its settings hold
(HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME, HF_TOKEN, ...). Its `hf_hub_download` is not used: as of version 2.4 it deletes
a partial file when it is interrupted, never hashes what arrived, and without network retries for 23 s and more.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.common.atomic_file import atomic_write
from src.common.messages import one_line

CONFIG = "config.json"
# In the order of preference. An index names the files that a large model is cut into.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
WAYS_ON = (
    "three ways on: --weights PATH (a Hugging Face folder or weights file that you have), "
    "HF_ENDPOINT=https://MIRROR (another server), or python main.py (train from scratch, nothing to download)"
)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it. `size` in bytes, None where the hub doesn't say."""

    name: str
    url: str
    commit: str
    etag: str
    size: int | None


def weight_files(folder: Path) -> list[Path]:
    """The files in a Hugging Face folder that hold its weights, in the order of preference above.

    Raises FileNotFoundError where there are none or a part is missing, ValueError for an unreadable index.
    """
    for name in WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            return [path]
        parts = [folder / part for part in _parts(path)]
        for part in parts:
            if not part.is_file():
                raise FileNotFoundError(f"{path} names {part.name}, which is not beside it; fetch that file as well")
        return parts
    raise FileNotFoundError(f"{folder} holds no weights; expected {WEIGHTS[0]}, {WEIGHTS[2]} or an index of parts")


def download(repo: str, cache: str | Path | None = None) -> Path:
    """Folder with config.json and the weights of the hub model `repo`, from the cache or else from the hub.

    Without network a cached model works. A download is announced on stderr with its true size, goes on where an
    earlier one was cut, and enters the cache only if its SHA-256 is the one the hub gave. `cache` is the cache folder
    (None: huggingface_hub's own). Raises OSError with the ways on.
    """
    from huggingface_hub import constants

    root = Path(cache or constants.HF_HUB_CACHE).expanduser()
    return _cached(repo, root) or _fetch_model(repo, root)


def _cached(repo: str, root: Path) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, CONFIG, cache_dir=root)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        weight_files(folder)
    except FileNotFoundError:
        return None
    return folder


def _fetch_model(repo: str, root: Path) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    home = root / repo_folder_name(repo_id=repo, repo_type="model")
    config = _ask(repo, CONFIG, root)
    if config is None:
        raise FileNotFoundError(f"{constants.ENDPOINT} has no {CONFIG} of {repo}; {WAYS_ON}")
    snapshot = home / "snapshots" / config.commit
    weights = _first_weights(repo, root)
    files = [weights]
    if weights.name.endswith(".json"):
        _fetch(repo, [weights], home, snapshot)
        files = [_ask_for_part(repo, name, root) for name in _parts(snapshot / weights.name)]
    _fetch(repo, [config, *files], home, snapshot)
    with atomic_write(home / "refs" / "main") as file:  # last: from now on the cache holds the whole model
        file.write(config.commit.encode("utf-8"))
    return snapshot


def _first_weights(repo: str, root: Path) -> RemoteFile:
    for name in WEIGHTS:
        found = _ask(repo, name, root)
        if found is not None:
            return found
    raise FileNotFoundError(f"{repo} has neither {WEIGHTS[0]} nor {WEIGHTS[2]}; {WAYS_ON}")


def _ask_for_part(repo: str, name: str, root: Path) -> RemoteFile:
    found = _ask(repo, name, root)
    if found is None:
        raise FileNotFoundError(f"{repo} lacks {name}, which its own index names; {WAYS_ON}")
    return found


def _ask(repo: str, name: str, root: Path) -> RemoteFile | None:
    """What the hub says of a file, or None where the model has no such file. One request, no retries."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

    url = hf_hub_url(repo, name)
    with _explained(repo, root):
        try:
            found = get_hf_file_metadata(url)
        except HfHubHTTPError as error:
            plain_404 = error.response.status_code == 404 and not isinstance(error, RepositoryNotFoundError)
            if plain_404 or isinstance(error, EntryNotFoundError):
                return None
            raise
    if found.etag is None or not re.fullmatch(r"\w[\w.-]*", found.commit_hash or ""):
        raise OSError(f"{constants.ENDPOINT} does not answer as a Hugging Face hub does; check HF_ENDPOINT; {WAYS_ON}")
    return RemoteFile(name, url, str(found.commit_hash), found.etag, found.size)


@contextmanager
def _explained(repo: str, root: Path) -> Iterator[None]:
    """Any failure of the client as one line with the ways on.

    The client lets its HTTP library's errors through, and which library that is has changed with its versions.
    """
    try:
        yield
    except Exception as error:
        raise OSError(f"{repo} can't be downloaded: {_reason(error, repo, root)}; {WAYS_ON}") from error


def _reason(error: Exception, repo: str, root: Path) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set and {root} does not hold it"
    if isinstance(error, GatedRepoError):
        return f"it is gated; accept its terms at {constants.ENDPOINT}/{repo}, then run: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no such model (if it is private, run: hf auth login)"
    if isinstance(error, HfHubHTTPError):
        return f"{constants.ENDPOINT} answered {error.response.status_code}"
    return f"no connection to {constants.ENDPOINT} ({one_line(error)})"


def _fetch(repo: str, files: list[RemoteFile], home: Path, snapshot: Path) -> None:
    """Bring files into the snapshot, those that it lacks, after a check that the disk has room for all of them."""
    missing = [file for file in files if not (snapshot / file.name).is_file()]
    if not missing:
        return
    _check_space(repo, missing, home)
    listed = ", ".join(f"{file.name} ({_size_and_progress(file, home)})" for file in missing)
    print(f"Downloading {repo} into {home}: {listed}", file=sys.stderr)
    for file in missing:
        _fetch_file(repo, file, _partial(file, home), snapshot / file.name)


def _fetch_file(repo: str, file: RemoteFile, partial: Path, target: Path) -> None:
    from huggingface_hub.utils import WeakFileLock

    home = partial.parent.parent
    lock = home.parent / ".locks" / home.name / partial.with_suffix(".lock").name
    for path in (lock, partial, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # two processes would write into each other's partial file
        if target.is_file():
            return
        try:
            _receive(file, partial)
        except Exception as error:
            raise OSError(
                f"{repo}: the download of {file.name} stopped at {_in_bytes(_held(partial))} of "
                f"{_in_bytes(file.size)} ({one_line(error)}); the same command goes on from there; {WAYS_ON}"
            ) from error
        _verify(repo, file, partial)
        os.replace(partial, target)


def _receive(file: RemoteFile, partial: Path) -> None:
    """Append to `partial` what it lacks. The client shows progress and asks again after most cuts, in the same file."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    if file.size is None or _held(partial) > file.size:
        partial.unlink(missing_ok=True)
    while True:
        held = _held(partial)
        try:
            with partial.open("ab") as stream:
                http_get(
                    file.url,
                    stream,
                    resume_size=held,
                    headers=build_hf_headers(headers={"Accept-Encoding": "identity"}),  # compressed, ranges differ
                    expected_size=file.size,
                    displayed_filename=file.name,
                )
            return
        except Exception:
            if _held(partial) <= held:  # a reset connection is not asked again by the client; go on while bytes come
                raise


def _verify(repo: str, file: RemoteFile, partial: Path) -> None:
    """Compare with the SHA-256 that the hub gives as the etag of every large file (LFS)."""
    if not re.fullmatch(r"[0-9a-f]{64}", file.etag):
        return  # small text files carry git's own hash; reading them as JSON is their check
    digest = hashlib.sha256()
    with partial.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != file.etag:
        partial.unlink()
        raise OSError(
            f"{repo}: {file.name} arrived with SHA-256 {digest.hexdigest()[:12]}..., the hub promised "
            f"{file.etag[:12]}...; it was deleted, run the same command again to fetch it anew"
        )


def _check_space(repo: str, files: list[RemoteFile], home: Path) -> None:
    needed = sum(max((file.size or 0) - _held(_partial(file, home)), 0) for file in files)
    folder = next(parent for parent in (home, *home.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{repo} needs {_in_bytes(needed)} in {home}, {_in_bytes(free)} are free; "
            "make room there or choose another cache folder (HF_HOME=FOLDER)"
        )


def _size_and_progress(file: RemoteFile, home: Path) -> str:
    held = _held(_partial(file, home))
    return _in_bytes(file.size) + (f", {_in_bytes(held)} of it already here" if held else "")


def _partial(file: RemoteFile, home: Path) -> Path:
    """Where a file grows. The name is a hash since the etag is whatever a server chose to send."""
    return home / "blobs" / (hashlib.sha256(f"{file.name} {file.etag}".encode()).hexdigest()[:32] + ".incomplete")


def _held(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _parts(index: Path) -> list[str]:
    """The file names in an index, checked to be plain names."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names: Iterable[object] = content["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is no index of weights (JSON with a weight_map); delete it, fetch it again"
        ) from error
    unique = sorted({str(name) for name in names})
    for name in unique:
        if not re.fullmatch(r"\w[\w.-]*\.(safetensors|bin)", name):
            raise ValueError(f"{index} names {name!r}; expected file names ending in .safetensors or .bin")
    return unique


def _in_bytes(size: int | None) -> str:
    if size is None:
        return "size unknown"
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
