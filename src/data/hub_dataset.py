"""Data sets of the Hugging Face hub, such as tatsu-lab/alpaca: parse their names, and download their files."""

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from src.common.atomic_file import atomic_write
from src.common.disk import format_bytes
from src.common.hub import HubRepository, RemoteFile, download_files, one_line_errors
from src.common.messages import Notify
from src.data.hub_splits import FORMATS, Splits, default_config, file_format, splits_by_config

_ID = re.compile(
    r"(?:https?:/+[\w.:-]+/datasets/|hf:/+datasets/)?(?P<name>\w[\w.-]*/\w[\w.-]*)"
    r"(?:@(?P<revision>[\w./-]+))?(?::(?P<split>[\w.-]+(?:/[\w.-]+)?))?"
)
_FILE_SUFFIXES = (*FORMATS, ".gz", ".txt", ".zip", ".xlsx", ".bz2", ".xz", ".zst")
_INDEX = ".dataset_index.json"  # what the hub says about a commit, next to its files
_ADVICE = "two alternatives: --data PATH (a file that you have), or HF_ENDPOINT=https://MIRROR (another server)"
_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class DatasetId:
    """A data set on the hub. split: "train", or "main/train" with a configuration; None for the default."""

    name: str
    revision: str
    split: str | None


@dataclass(frozen=True)
class _Index:
    """What the hub says about a commit. files: (size in bytes or None, etag) by name; configs: of the card."""

    commit: str
    licence: str
    configs: list[dict[str, Any]]
    files: dict[str, tuple[int | None, str]]


def parse_dataset_id(source: str | Path) -> DatasetId | None:
    """Return the data set that "owner/name", "owner/name@revision:split" or its address means.

    Returns None if it is a path: it exists, its folder does, or it ends like a file.
    """
    text = source.as_posix() if isinstance(source, Path) else source
    match = _ID.fullmatch(text)
    if not match or ".." in text or Path(source).exists() or match["name"].lower().endswith(_FILE_SUFFIXES):
        return None
    if match.start("name") == 0 and Path(match["name"]).parent.is_dir():
        return None
    return DatasetId(match["name"], match["revision"] or "main", match["split"])


def download_dataset(dataset: DatasetId, notify: Notify) -> dict[str, Path]:
    """Return the files of a split by their names, downloaded unless cached. A cached split needs no network.

    `notify` gets a line with the commit, the size and the licence before the download.

    Raises:
        OSError: there is no such data set or revision, or it cannot be downloaded; with the alternatives.
        ValueError: there is no such split, or none that can be read; with the splits that there are.
        ImportError: it is in Parquet, and pyarrow is not installed.
    """
    from huggingface_hub import constants

    repository = HubRepository(dataset.name, Path(constants.HF_HUB_CACHE).expanduser(), _ADVICE, "dataset")
    index = _cached_index(repository, dataset.revision) or _fetch_index(repository, dataset.revision)
    split, names = _choose(dataset, index)
    sizes = [index.files[name][0] for name in names]
    size = "size unknown" if None in sizes else format_bytes(sum(filter(None, sizes)))
    notify(
        f"data: {dataset.name}, split {split}, commit {index.commit[:7]}: "
        f"{len(names)} file{'s' if len(names) > 1 else ''}, {size}; licence: {index.licence}"
    )
    if any(file_format(name) == ".parquet" for name in names) and importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{dataset.name} is in Parquet, which needs pyarrow; run: pip install pyarrow")
    snapshot = repository.folder / "snapshots" / index.commit
    files = [_remote_file(repository, name, index) for name in names]
    if constants.HF_HUB_OFFLINE and not all((snapshot / name).is_file() for name in names):
        raise OSError(f"HF_HUB_OFFLINE is set and {dataset.name} is not complete in {repository.cache}; {_ADVICE}")
    download_files(repository, files, snapshot)
    return {name: snapshot / name for name in names}


def _choose(dataset: DatasetId, index: _Index) -> tuple[str, list[str]]:
    """The split to read, and the names of its files. Raises ValueError naming the choices."""
    found = splits_by_config(index.files, index.configs)
    if not any(found.values()):
        raise ValueError(f"{dataset.name} {_why_unreadable(index)}")
    config, split = default_config(index.configs, found), dataset.split
    if split and "/" in split:
        config, _, split = split.partition("/")
    elif split in found:  # the name of a configuration
        config, split = split, None
    splits = found.get(config or "", {})
    split = split or next((name for name in splits if name == "train" or len(splits) == 1), None)
    if split not in splits:
        raise ValueError(_no_such_split(dataset, found))
    return f"{config}/{split}" if len(found) > 1 else split, splits[split]


def _no_such_split(dataset: DatasetId, found: Mapping[str, Splits]) -> str:
    choices = [f"{config}/{split}" if len(found) > 1 else split for config in found for split in found[config]]
    wanted = f"no split {dataset.split!r}" if dataset.split else "several splits"
    shown = ", ".join(choices[:20]) + (", ..." if len(choices) > 20 else "")
    return f"{dataset.name} has {wanted}; choose one with --data {dataset.name}:SPLIT, where SPLIT is one of {shown}"


def _why_unreadable(index: _Index) -> str:
    if scripts := [name for name in index.files if name.endswith(".py")]:
        return (
            f"is made by a program ({scripts[0]}), which is not run; try its copy in Parquet: add "
            "@refs/convert/parquet to its name"
        )
    suffixes = sorted({PurePosixPath(name).suffix for name in index.files} - {""})
    return f"has no files in JSON, CSV or Parquet; found {', '.join(suffixes[:8]) or 'none'}"


def _remote_file(repository: HubRepository, name: str, index: _Index) -> RemoteFile:
    from huggingface_hub import hf_hub_url

    size, etag = index.files[name]
    url = hf_hub_url(repository.name, name, repo_type="dataset", revision=index.commit)
    return RemoteFile(name, url, index.commit, etag, size)


def _fetch_index(repository: HubRepository, revision: str) -> _Index:
    """Ask the hub about a revision, and note the answer in the cache."""
    from huggingface_hub import HfApi, constants

    with one_line_errors(repository):
        info = HfApi().dataset_info(repository.name, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
    if not re.fullmatch(r"[0-9a-f]{40}", str(info.sha)):
        raise OSError(f"{constants.ENDPOINT} is not a Hugging Face hub; check HF_ENDPOINT; {_ADVICE}")
    card = info.card_data.to_dict() if info.card_data else {}
    files = {
        file.rfilename: (file.size, file.lfs.sha256 if file.lfs else str(file.blob_id))
        for file in info.siblings or []
        if not PurePosixPath(file.rfilename).is_absolute() and ".." not in PurePosixPath(file.rfilename).parts
    }
    index = _Index(str(info.sha), _licence(card), _configs(card), files)
    with atomic_write(repository.folder / "snapshots" / index.commit / _INDEX) as out:
        out.write(json.dumps(vars(index)).encode("utf-8"))
    if revision != index.commit:
        with atomic_write(repository.folder / "refs" / revision) as out:
            out.write(index.commit.encode("utf-8"))
    return index


def _cached_index(repository: HubRepository, revision: str) -> _Index | None:
    ref = repository.folder / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    try:
        saved = json.loads((repository.folder / "snapshots" / commit / _INDEX).read_text(encoding="utf-8"))
        files = {name: (size, etag) for name, (size, etag) in saved["files"].items()}
        return _Index(saved["commit"], saved["licence"], saved["configs"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _licence(card: dict[str, Any]) -> str:
    licence = card.get("license") or "not stated"
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)


def _configs(card: dict[str, Any]) -> list[dict[str, Any]]:
    configs = card.get("configs")
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []
