"""The lineage of a model: the chain of its base models, as its checkpoint records it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.checkpoint.digest import file_sha256, weights_sha256
from src.checkpoint.models import load_model
from src.common.messages import one_line

INTACT = "present, weights unchanged"


def ancestors(metadata: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The base model, its base model, and so on, each as "path", "weights_sha256" and some facts about its training.

    A checkpoint stores the whole chain. Version 0.1 stored only the first base, so there the file of each base is
    opened to find the next.
    """
    seen: set[str] = set()
    base = metadata.get("parent")
    while isinstance(base, dict) and isinstance(base.get("path"), str) and base["path"] not in seen:
        seen.add(base["path"])
        yield base
        stored = base.get("ancestors")
        if isinstance(stored, list):
            yield from (each for each in stored if isinstance(each, dict) and isinstance(each.get("path"), str))
            return
        base = _parent_in(Path(base["path"]))


def state_of(ancestor: Mapping[str, Any]) -> str:
    """Whether the file of an ancestor exists and still holds the recorded weights."""
    path = Path(ancestor["path"])
    if not path.is_file() and not path.is_dir():
        return "no longer present"
    try:
        if "weights_sha256" in ancestor:
            same = weights_sha256(load_model(path)[0].state_dict()) == ancestor["weights_sha256"]
        else:  # version 0.1 recorded the hash of the file
            same = file_sha256(path) == ancestor.get("sha256")
    except (ValueError, OSError) as error:
        return f"unreadable: {one_line(error)}"
    return INTACT if same else "present, but with other weights: it was trained again"


def _parent_in(path: Path) -> object:
    try:
        return load_model(path)[1].get("parent")
    except (ValueError, OSError):
        return None
