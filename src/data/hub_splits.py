"""Which files of a hub data set hold which split. The rules are those of the Hugging Face library `datasets`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

Splits = dict[str, list[str]]  # the files of each split

# In order of preference, if a data set has the same records in several formats.
FORMATS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_NOT_DATA = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "package.json", "state.json"}
_WORDS = {
    "train": "train|training",
    "validation": "validation|valid|val|dev",
    "test": "test|testing|eval|evaluation",
}
_SHARD = re.compile(r"(?:.*/)?([\w.]+)-\d{5}-of-\d{5}(?:-\w+)?\.[\w.]+")


def splits_by_config(names: Iterable[str], configs: Sequence[Mapping[str, Any]]) -> dict[str, Splits]:
    """Return the splits of each configuration in the card. If it has none, "default" holds those found in the names.

    names: all files of the data set. configs: the card's list of {"config_name", "data_files", "data_dir"}.
    """
    data = [name for name in names if _is_data(name)]
    found = {str(config.get("config_name", "default")): _declared_splits(data, config) for config in configs}
    found = {name: splits for name, splits in found.items() if splits}
    return found or {"default": _splits_by_name(data)}


def default_config(configs: Sequence[Mapping[str, Any]], found: Mapping[str, Splits]) -> str | None:
    """The configuration to read if none is named, or None if there are several and none is marked as the default."""
    marked = [str(config.get("config_name")) for config in configs if config.get("default")]
    return next(
        (name for name in [*marked, "default"] if name in found), next(iter(found)) if len(found) == 1 else None
    )


def file_format(name: str) -> str:
    """The suffix that decides how a file is read, without that of gzip: ".jsonl"."""
    stem = name.lower().removesuffix(".gz")
    return stem[stem.rfind(".") :]


def _is_data(name: str) -> bool:
    file = name.rpartition("/")[2]
    return file_format(name) in FORMATS and file not in _NOT_DATA and not file.startswith(".")


def _declared_splits(data: Sequence[str], config: Mapping[str, Any]) -> Splits:
    folder = str(config.get("data_dir", "")).strip("./")
    inside = [name for name in data if not folder or name.startswith(f"{folder}/")]
    declared = config.get("data_files")
    if not declared:
        return _splits_by_name(inside) if folder else {}
    entries = declared if isinstance(declared, list) else [declared]
    splits: Splits = {}
    for entry in entries:
        split, paths = (entry.get("split", "train"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        patterns = [str(path) for path in (paths if isinstance(paths, list) else [paths])]
        if files := [name for name in inside if any(_matches(name, folder, pattern) for pattern in patterns)]:
            splits.setdefault(str(split), []).extend(files)
    return splits


def _matches(name: str, folder: str, pattern: str) -> bool:
    relative = name.removeprefix(f"{folder}/") if folder else name
    return any(fnmatchcase(relative, form) for form in (pattern.removeprefix("./"), pattern.removeprefix("**/")))


def _splits_by_name(data: Sequence[str]) -> Splits:
    """The splits that the names of files and folders name. If none names one, all files are the split "train"."""
    by_format = {suffix: [name for name in data if file_format(name) == suffix] for suffix in FORMATS}
    candidates = [_named_splits(files) for files in by_format.values() if files]
    everything = next((files for files in by_format.values() if files), [])
    return next(filter(None, candidates), {"train": everything} if everything else {})


def _named_splits(files: Iterable[str]) -> Splits:
    splits: Splits = {}
    for name in files:
        if split := _split_of(name):
            splits.setdefault(split, []).append(name)
    return splits


def _split_of(name: str) -> str | None:
    if shard := _SHARD.fullmatch(name):
        return shard[1]
    for split, words in _WORDS.items():
        if re.search(rf"(?:^|[\W_\d])(?:{words})(?:[\W_\d]|$)", name.lower()):
            return split
    return None
